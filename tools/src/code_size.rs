//! Counts the lines of code of each room of the tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The rooms, as folders below the root, and which deeper rooms they leave out.
const ROOMS: [(&str, &[&str]); 9] = [
    ("hv", &["hv/core", "hv/defs"]),
    ("hv/core", &[]),
    ("hv/defs", &[]),
    ("config", &["config/audit", "config/fuzz", "config/table"]),
    ("config/audit", &[]),
    ("config/table", &[]),
    ("partitions", &[]),
    ("tools", &[]),
    ("hil-tests", &[]),
];

/// Lines of Rust per room: no blank lines, no comment lines, nothing from the first `#[cfg(test)]` on, and no
/// `tests` folders (the judge's room is all tests and is counted whole).
#[must_use]
pub fn per_room(root: &Path) -> BTreeMap<String, u64> {
    ROOMS
        .iter()
        .map(|(room, without)| {
            let skipped: Vec<_> = without.iter().map(|inner| root.join(inner)).collect();
            let tests = *room == "hil-tests";
            let lines = folder(&root.join(room), &|path| {
                skipped.iter().any(|skip| skip == path) || (!tests && path.ends_with("tests"))
            });
            ((*room).to_string(), lines)
        })
        .collect()
}

fn folder(path: &Path, skip: &dyn Fn(&Path) -> bool) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !skip(path))
        .map(|path| match path.extension() {
            _ if path.is_dir() => folder(&path, skip),
            Some(extension) if extension == "rs" => {
                fs::read_to_string(&path).map_or(0, |text| lines(&text))
            }
            _ => 0,
        })
        .sum()
}

fn lines(text: &str) -> u64 {
    text.lines()
        .map(str::trim)
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(|_| 1)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_counts_and_words_do_not() {
        assert_eq!(
            lines("//! Words.\n\nfn a() {}\n    // why\nfn b() {}\n#[cfg(test)]\nmod tests {}"),
            2
        );
    }

    #[test]
    fn rooms_do_not_count_twice() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "fn x() {}\n").unwrap();
        };
        for path in
            ["hv/src/main.rs", "hv/core/src/lib.rs", "config/tests/x.rs", "hil-tests/tests/x.rs"]
        {
            write(path);
        }
        let rooms = per_room(folder.path());
        assert_eq!(
            (rooms["hv"], rooms["hv/core"], rooms["config"], rooms["hil-tests"]),
            (1, 1, 0, 1)
        );
    }
}
