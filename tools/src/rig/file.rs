//! Reads a rig file: every mistake at once, each with its place, its cause and its remedy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Limits, Medium, Power, Rig, Serial};
use crate::error::{Error, Result};
use crate::paths;

/// Longest time that a rig file may ask for: a board that takes longer is not one that somebody waits for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Sections and their keys.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("rig", &["name", "board"]),
    ("serial", &["device", "baud"]),
    ("power", &["on", "off", "cycle", "wait", "timeout"]),
    ("medium", &["flash", "command", "timeout"]),
    ("limits", &["banner", "silence", "attempts"]),
];

/// What stands for the image's path in a command.
pub const IMAGE: &str = "{image}";

/// Reads the rig file at `path`.
///
/// # Errors
/// It cannot be read, or [`Error::Rejected`] with all that is wrong in it.
pub fn load(path: &Path) -> Result<Rig> {
    let path = paths::absolute(path)?;
    let text = String::from_utf8_lossy(&paths::read(&path)?).into_owned();
    let mut findings = Vec::new();
    let mut reader = Reader { path: &path, text: &text, findings: &mut findings };
    let rig = reader.rig();
    match rig {
        Some(rig) if findings.is_empty() => Ok(rig),
        _ => Err(Error::Rejected(format!("the rig file is rejected\n{}", findings.join("\n")))),
    }
}

type Table<'i> = DeTable<'i>;
type Value<'i> = Spanned<DeValue<'i>>;

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    findings: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn rig(&mut self) -> Option<Rig> {
        let text = self.text;
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.say(at, "this is not TOML", error.message(), "mend the line");
                return None;
            }
        };
        let document = document.get_ref();
        self.check_keys(document);
        let name = self.text(document, "rig", "name");
        let board = self.text(document, "rig", "board");
        let serial = self.serial(document);
        let power = self.power(document);
        let medium = self.medium(document);
        let limits = self.limits(document);
        Some(Rig {
            file: self.path.to_path_buf(),
            name: name?,
            board: board?,
            serial: serial?,
            power: power?,
            medium: medium?,
            limits: limits?,
        })
    }

    fn serial(&mut self, document: &Table<'_>) -> Option<Serial> {
        let device = self.text(document, "serial", "device").map(|device| self.beside(&device));
        let baud = self.number(document, "serial", "baud", 115_200, 300..=4_000_000);
        Some(Serial { device: device?, baud: baud? })
    }

    fn power(&mut self, document: &Table<'_>) -> Option<Power> {
        let on = self.required_words(document, "power", "on");
        let off = self.required_words(document, "power", "off");
        let cycle = match get(document, "power", "cycle") {
            Some(value) => Some(self.words(value, "power", "cycle")?),
            None => None,
        };
        let wait = self.duration(document, "power", "wait", Duration::from_secs(3));
        let timeout = self.duration(document, "power", "timeout", Duration::from_secs(30));
        Some(Power { on: on?, off: off?, cycle, wait: wait?, timeout: timeout? })
    }

    fn medium(&mut self, document: &Table<'_>) -> Option<Medium> {
        let timeout = self.duration(document, "medium", "timeout", Duration::from_secs(300));
        let (flash, command) =
            (get(document, "medium", "flash"), get(document, "medium", "command"));
        match (flash, command) {
            (Some(_), None) => {
                let device = self.text(document, "medium", "flash")?;
                Some(Medium::Flash(self.beside(&device)))
            }
            (None, Some(value)) => {
                let words = self.words(value, "medium", "command")?;
                if !words.iter().any(|word| word.contains(IMAGE)) {
                    self.say(
                        value.span().start,
                        &format!("`command` of [medium] does not name {IMAGE}"),
                        "the board would boot what lies there already",
                        &format!("write {IMAGE} where the path of the image belongs"),
                    );
                    return None;
                }
                Some(Medium::Command { words, timeout: timeout? })
            }
            (Some(_), Some(second)) => {
                self.say(
                    second.span().start,
                    "[medium] has both `flash` and `command`",
                    "the image gets to the board in one way",
                    "leave one of them out",
                );
                None
            }
            (None, None) => {
                self.say(
                    0,
                    "[medium] does not say how the image gets to the board",
                    "neither `flash` nor `command` is there",
                    "write flash = \"/dev/...\", or command = [\"...\", \"{image}\"]",
                );
                None
            }
        }
    }

    fn limits(&mut self, document: &Table<'_>) -> Option<Limits> {
        let banner = self.duration(document, "limits", "banner", Duration::from_secs(120));
        let silence = self.duration(document, "limits", "silence", Duration::from_secs(30));
        let attempts = self.number(document, "limits", "attempts", 3, 1..=20);
        Some(Limits { banner: banner?, silence: silence?, attempts: attempts? })
    }

    /// Unknown sections and keys, and sections that are none.
    fn check_keys(&mut self, document: &Table<'_>) {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        for (section, value) in document {
            let name = section.get_ref().as_ref();
            let Some((_, keys)) = SECTIONS.iter().find(|(known, _)| *known == name) else {
                self.unknown(section.span().start, &format!("section [{name}]"), name, &names);
                continue;
            };
            let DeValue::Table(table) = value.get_ref() else {
                let remedy = format!("write [{name}] on a line of its own, and its keys below");
                self.say(
                    value.span().start,
                    &format!("`{name}` is a section"),
                    "it is given a value",
                    &remedy,
                );
                continue;
            };
            for key in table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref())) {
                let what = format!("key `{}` in [{name}]", key.get_ref());
                self.unknown(key.span().start, &what, key.get_ref(), keys);
            }
        }
    }

    fn unknown(&mut self, at: usize, what: &str, name: &str, known: &[&str]) {
        let near = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), *known))
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
            .min();
        let remedy = match near {
            Some((_, near)) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", known.join(", ")),
        };
        self.say(at, &format!("unknown {what}"), "a rig file has no such thing", &remedy);
    }

    fn required<'t>(
        &mut self,
        document: &'t Table<'_>,
        section: &str,
        key: &str,
    ) -> Option<&'t Value<'t>> {
        let value = get(document, section, key);
        if value.is_none() {
            let at = document.get(section).map_or(0, |section| section.span().start);
            let remedy = format!(
                "add it: the example beside the shipped rigs has every key ({section}.{key})"
            );
            self.say(
                at,
                &format!("`{key}` of [{section}] is missing"),
                "a rig cannot do without it",
                &remedy,
            );
        }
        value
    }

    fn text(&mut self, document: &Table<'_>, section: &str, key: &str) -> Option<String> {
        let value = self.required(document, section, key)?;
        match value.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => Some(text.to_string()),
            _ => {
                let what = format!("`{key}` of [{section}] is no text, or an empty one");
                self.say(
                    value.span().start,
                    &what,
                    "a name or a path stands here",
                    &format!("write {key} = \"...\""),
                );
                None
            }
        }
    }

    fn required_words(
        &mut self,
        document: &Table<'_>,
        section: &str,
        key: &str,
    ) -> Option<Vec<String>> {
        let value = self.required(document, section, key)?;
        self.words(value, section, key)
    }

    fn words(&mut self, value: &Value<'_>, section: &str, key: &str) -> Option<Vec<String>> {
        let words = match value.get_ref() {
            DeValue::Array(array) => array
                .iter()
                .map(|word| match word.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let words = words.filter(|words| words.first().is_some_and(|program| !program.is_empty()));
        if words.is_none() {
            self.say(
                value.span().start,
                &format!("`{key}` of [{section}] is no command"),
                "a command is a list of words, the program first; no shell reads it",
                &format!("write {key} = [\"program\", \"argument\"], or [\"sh\", \"-c\", \"...\"]"),
            );
        }
        words
    }

    fn duration(
        &mut self,
        document: &Table<'_>,
        section: &str,
        key: &str,
        default: Duration,
    ) -> Option<Duration> {
        let Some(value) = get(document, section, key) else { return Some(default) };
        let parsed = match value.get_ref() {
            DeValue::String(text) => duration(text),
            _ => None,
        };
        let good = parsed.filter(|time| !time.is_zero() && *time <= LONGEST);
        if good.is_none() {
            self.say(
                value.span().start,
                &format!("`{key}` of [{section}] is no length of time"),
                "it is a number above 0 with one of the units ms, s, min, and at most 24 hours",
                &format!("write {key} = \"{} s\"", default.as_secs()),
            );
        }
        good
    }

    fn number(
        &mut self,
        document: &Table<'_>,
        section: &str,
        key: &str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let Some(value) = get(document, section, key) else { return Some(default) };
        let number = match value.get_ref() {
            DeValue::Integer(integer) => {
                u32::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            _ => None,
        };
        let good = number.filter(|number| range.contains(number));
        if good.is_none() {
            let cause = format!("it is a whole number from {} to {}", range.start(), range.end());
            let what = format!("`{key}` of [{section}] is out of range or no number");
            self.say(value.span().start, &what, &cause, &format!("write {key} = {default}"));
        }
        good
    }

    /// A path in the file counts from the file's folder.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    fn say(&mut self, at: usize, what: &str, cause: &str, remedy: &str) {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        self.findings.push(format!(
            "{}:{line}:{column}: {what}\n  cause:  {cause}\n  remedy: {remedy}",
            self.path.display()
        ));
    }
}

fn get<'t>(document: &'t Table<'_>, section: &str, key: &str) -> Option<&'t Value<'t>> {
    match document.get(section)?.get_ref() {
        DeValue::Table(table) => table.get(key),
        _ => None,
    }
}

/// `500 ms`, `30 s`, `5 min`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "min" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[rig]
name = "bench-1"
board = "press-7"

[serial]
device = "/dev/ttyUSB0"

[power]
on = ["relay", "on"]
off = ["relay", "off"]

[medium]
command = ["cp", "{image}", "/srv/boot.img"]
"#;

    fn read(text: &str) -> Result<Rig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rig.toml");
        std::fs::write(&path, text).unwrap();
        load(&path)
    }

    fn complaint(old: &str, new: &str) -> String {
        assert!(GOOD.contains(old), "{old}");
        read(&GOOD.replace(old, new)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let rig = read(GOOD).unwrap();
        assert_eq!((rig.serial.baud, rig.limits.attempts), (115_200, 3));
        assert_eq!(rig.power.wait, Duration::from_secs(3));
        assert_eq!(rig.serial.device, Path::new("/dev/ttyUSB0"));
    }

    #[test]
    fn each_mistake_has_place_cause_and_remedy() {
        for (old, new, words) in [
            ("device", "devise", &["rig.toml:6:1", "`devise`", "did you mean `device`?"][..]),
            ("[serial]", "[seriell]", &["5:2", "did you mean `serial`?"]),
            ("name = \"bench-1\"", "name = 7", &["2:8", "name = \"...\""]),
            ("[\"relay\", \"on\"]", "\"relay on\"", &["9:6", "list of words"]),
            ("{image}", "image", &["13:11", "boot what lies there already"]),
            ("command", "flash = \"/dev/x\"\ncommand", &["in one way"]),
            ("[medium]\ncommand", "[medium]\n# command", &["how the image gets"]),
            ("off = [\"relay\", \"off\"]", "", &["`off` of [power] is missing"]),
            ("[rig]", "[rig", &["1:", "not TOML"]),
            ("[serial]", "[limits]\nsilence = \"0 s\"\n[serial]", &["6:11", "silence = \"30 s\""]),
            ("[serial]", "[limits]\nattempts = 0\n[serial]", &["from 1 to 20"]),
            ("[serial]", "[limits]\nbanner = 5\n[serial]", &["ms, s, min"]),
        ] {
            let error = complaint(old, new);
            for word in words.iter().chain(&["cause:", "remedy:"]) {
                assert!(error.contains(word), "{new}: {word} is missing in\n{error}");
            }
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error = read("[power]\non = 1\nofff = 2\n").unwrap_err().to_string();
        for word in ["`on` of [power]", "did you mean `off`?", "`device`", "`name`", "[medium]"] {
            assert!(error.contains(word), "{word} is missing in\n{error}");
        }
    }

    #[test]
    fn the_example_that_ships_is_good() {
        let example = paths::root().unwrap().join("hil-tests/rigs/example.toml");
        let rig = load(&example).unwrap();
        assert_eq!(rig.name, "example");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
