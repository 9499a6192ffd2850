//! What a person may have meant: a key under another name or in another section, a file beside the named one.

use std::path::Path;

use crate::language::{BOARD_SECTIONS, SYSTEM_SECTIONS, Section};
use crate::reader::closest;

/// What others call our keys: configuration languages of other hypervisors, and habit.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("affinity", "cores"),
    ("args", "arguments"),
    ("binary", "image"),
    ("bzimage", "kernel"),
    ("command-line", "arguments"),
    ("core", "cores"),
    ("cpu", "cores"),
    ("cpus", "cores"),
    ("duration", "length"),
    ("elf", "image"),
    ("frequency", "tsc"),
    ("initramfs", "initrd"),
    ("major-frame", "frame"),
    ("mem", "memory"),
    ("offset", "start"),
    ("period", "frame"),
    ("ram", "memory"),
    ("ramdisk", "initrd"),
    ("slots", "window"),
    ("vcpus", "cores"),
    ("windows", "window"),
];

/// What an unknown key may have been meant for.
pub(crate) enum Meant {
    /// This key of the same section.
    Key(&'static str),
    /// A key of this name in the section of this header.
    Elsewhere(&'static str),
    /// Nothing near.
    Nothing,
}

/// Looks for what `name` in `section` may stand for.
pub(crate) fn meant(section: &Section, name: &str) -> Meant {
    let lower = name.to_lowercase().replace('_', "-");
    let other = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == lower).map(|(_, ours)| *ours);
    if let Some(key) = other.and_then(|ours| section.key(ours)) {
        return Meant::Key(key.name);
    }
    let names: Vec<_> = section.keys.iter().map(|key| key.name).collect();
    if let Some(name) = closest(&lower, &names) {
        return Meant::Key(name);
    }
    let all = SYSTEM_SECTIONS.iter().chain(BOARD_SECTIONS);
    let mut having = all.filter(|other| other.key(&lower).is_some());
    having.next().map_or(Meant::Nothing, |other| Meant::Elsewhere(other.header))
}

/// The path as written with its last part replaced by what is there and reads alike; `None` where nothing does.
/// `path` is where the written path leads.
pub(crate) fn path_near(written: &str, path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let stem = wanted.strip_suffix(ending)?;
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut stems: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(ending)).collect();
    stems.sort_unstable();
    let near = closest(stem, &stems).filter(|near| *near != stem)?;
    Some(format!("{}{near}{ending}", written.strip_suffix(wanted)?))
}

/// The remedy with what is there and reads alike put before it.
pub(crate) fn with_near_path(written: &str, path: &Path, remedy: &str) -> String {
    match path_near(written, path) {
        Some(near) => format!("did you mean `{near}`? Else {remedy}"),
        None => remedy.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use crate::language::{PARTITION, WINDOW};

    fn key(section: &Section, name: &str) -> Option<&'static str> {
        match meant(section, name) {
            Meant::Key(name) => Some(name),
            Meant::Elsewhere(_) | Meant::Nothing => None,
        }
    }

    #[test]
    fn other_names_and_misspellings_lead_to_ours() {
        for (written, ours) in [
            ("memroy", "memory"),
            ("RAM", "memory"),
            ("cpus", "cores"),
            ("core", "cores"),
            ("args", "arguments"),
            ("initramfs", "initrd"),
            ("may_switch_plan", "may-switch-plan"),
            ("windows", "window"),
        ] {
            assert_eq!(key(&PARTITION, written), Some(ours), "{written}");
        }
        assert_eq!(key(&WINDOW, "duration"), Some("length"));
        assert_eq!(key(&PARTITION, "colour"), None);
    }

    #[test]
    fn each_other_name_leads_somewhere_and_is_no_key_itself_there() {
        let all = || SYSTEM_SECTIONS.iter().chain(BOARD_SECTIONS);
        for (theirs, ours) in OTHER_NAMES {
            assert!(all().any(|section| key(section, theirs) == Some(ours)), "{theirs}");
        }
        assert!(OTHER_NAMES.is_sorted());
    }

    #[test]
    fn a_key_of_another_section_is_sent_there() {
        let Meant::Elsewhere(header) = meant(&PARTITION, "frame") else { panic!("not found") };
        assert_eq!(header, "[schedule]");
    }

    #[test]
    fn a_file_that_reads_alike_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("press.toml"), "").unwrap();
        let near = |name: &str| path_near(&format!("b/{name}"), &folder.path().join(name));
        assert_eq!(near("pres.toml").as_deref(), Some("b/press.toml"));
        assert_eq!(near("lathe.toml"), None);
        assert_eq!(path_near("x", Path::new("absent/folder/x")), None);
    }
}
