//! What is included counts as if it stood in the file: it runs, it is digested, and it is a source.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::path::PathBuf;

use bulkhead_config::Compiled;
use common::{Case, toml_files};

fn compile(case: &Case) -> Compiled {
    case.compile().unwrap_or_else(|error| panic!("{error}"))
}

fn case() -> Case {
    let files = toml_files("tests/accept");
    let (_, text) = files.iter().find(|(path, _)| path.ends_with("includes.toml")).unwrap();
    Case::new("system.toml", text)
}

#[test]
fn included_sections_come_first_and_say_where_they_stand() {
    let case = case();
    let compiled = compile(&case);
    let plan = compiled.plan();
    let places: Vec<_> = plan.partitions().iter().map(|p| (p.name.as_str(), &*p.place)).collect();
    assert_eq!(places, [("line", "lines.toml:3"), ("own", "system.toml:9")]);
    assert_eq!((plan.board_name(), plan.board_cores()), ("with-base", 3));
}

#[test]
fn every_file_is_a_source_and_changes_the_digest() {
    let case = case();
    let before = compile(&case);
    for file in ["shared/lines.toml", "shared/housekeeping.toml", "boards/base.toml"] {
        let path = case.folder.path().join(file);
        let same_file =
            |source: &PathBuf| source.canonicalize().unwrap() == path.canonicalize().unwrap();
        assert!(before.sources().iter().any(same_file), "{file}");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n# another byte\n")).unwrap();
        assert_ne!(compile(&case).digest(), before.digest(), "{file}");
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(compile(&case).digest(), before.digest());
}
