//! Holds two board files against each other: the facts, not the choices.

use std::collections::BTreeMap;

use toml::Value;

use crate::bench::{root, sure};

/// Parts of a board file by the name of the section. What a person chooses is left out.
pub type Facts = BTreeMap<String, Value>;

/// Sections, and keys of sections, that a person chooses.
const CHOICES: [&str; 5] = ["board", "hypervisor", "power-off", "power", "hygiene"];
const CHOSEN_KEYS: [(&str, &[&str]); 2] =
    [("clock", &["tolerance", "vouched", "skew", "switch-budget"]), ("serial", &["baud"])];

/// How far two measurements of one clock may be apart, in parts per million: what a board file tolerates.
const CLOCK_PPM: f64 = 1000.0;

/// The text of a board file that ships.
///
/// # Panics
/// There is none of that name.
#[must_use]
pub fn read_board(name: &str) -> String {
    crate::systems::read(&root().join(format!("partitions/boards/{name}.toml")))
}

/// The facts of a board file.
///
/// # Panics
/// It is no TOML.
#[must_use]
pub fn facts(text: &str) -> Facts {
    let mut table: toml::Table = sure("parse a board file", text.parse());
    CHOICES.iter().for_each(|section| {
        table.remove(*section);
    });
    for (section, keys) in CHOSEN_KEYS {
        if let Some(section) = table.get_mut(section).and_then(Value::as_table_mut) {
            section.retain(|key, _| !keys.contains(&key));
        }
    }
    table.into_iter().collect()
}

/// How the RAM of two board files must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ram {
    /// The same ranges.
    Same,
    /// What is expected lies in what was found: a file that a person wrote may leave some out.
    Within,
}

/// Where `found` differs from `expected`, one sentence each. Of the two clocks each was measured: they may differ a
/// little.
#[must_use]
pub fn differences(expected: &Facts, found: &Facts, ram: Ram) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    names
        .into_iter()
        .filter(|name| !agree(name, expected.get(*name), found.get(*name), ram))
        .map(|name| format!("{name}: {:?}\n  found {:?}", expected.get(name), found.get(name)))
        .collect()
}

fn agree(name: &str, expected: Option<&Value>, found: Option<&Value>, ram: Ram) -> bool {
    let (Some(expected), Some(found)) = (expected, found) else { return false };
    match name {
        "clock" => near(quantity(&expected["tsc"]), quantity(&found["tsc"])),
        "memory" if ram == Ram::Within => {
            let found = ranges(found);
            let within = |(start, end): (f64, f64)| {
                found.iter().any(|range| range.0 <= start && end <= range.1)
            };
            ranges(expected).into_iter().all(within)
        }
        _ => expected == found,
    }
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= one * CLOCK_PPM / 1e6
}

/// Start and end of each range of RAM.
fn ranges(list: &Value) -> Vec<(f64, f64)> {
    let range = |entry: &Value| {
        let start = quantity(&entry["start"]);
        (start, start + quantity(&entry["size"]))
    };
    list.as_array().into_iter().flatten().map(range).collect()
}

/// A number, a hexadecimal number, or a number with a unit.
fn quantity(value: &Value) -> f64 {
    const UNITS: [(&str, f64); 8] = [
        ("GiB", 1_073_741_824.0),
        ("MiB", 1_048_576.0),
        ("KiB", 1024.0),
        ("GHz", 1e9),
        ("MHz", 1e6),
        ("kHz", 1e3),
        ("Hz", 1.0),
        ("B", 1.0),
    ];
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    if let Some(digits) = text.strip_prefix("0x") {
        return sure(&text, u64::from_str_radix(digits, 16)) as f64;
    }
    let unit = UNITS.into_iter().find(|(name, _)| text.ends_with(name));
    let (name, factor) = unit.unwrap_or(("", 1.0));
    sure(&text, text.trim_end_matches(name).trim().parse::<f64>()) * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "[board]\nname = \"x\"\n[clock]\ntsc = \"50 MHz\"\nskew = \"1 us\"\n[[memory]]\nstart = \"0x100000\"\n\
                         size = \"510 MiB\"\n[timers]\nhpet = \"0xfed00000\"\n";

    fn changed(old: &str, new: &str, ram: Ram) -> Vec<String> {
        assert!(BOARD.contains(old));
        differences(&facts(BOARD), &facts(&BOARD.replace(old, new)), ram)
    }

    #[test]
    fn choices_and_measurements_may_differ() {
        for (old, new) in
            [("\"x\"", "\"y\""), ("1 us", "2 us"), ("50 MHz", "49.96 MHz"), ("510 MiB", "511 MiB")]
        {
            assert_eq!(changed(old, new, Ram::Within), [] as [&str; 0], "{old}");
        }
    }

    #[test]
    fn facts_may_not() {
        for (old, new) in [
            ("50 MHz", "49 MHz"),
            ("510 MiB", "509 MiB"),
            ("fed00000", "fed10000"),
            ("[timers]", "[others]"),
        ] {
            assert!(!changed(old, new, Ram::Within).is_empty(), "{old}");
        }
        assert!(!changed("510 MiB", "511 MiB", Ram::Same).is_empty());
    }
}
