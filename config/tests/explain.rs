//! Each explanation holds: its bad example is rejected under its code and no other, its good one is accepted.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::collections::BTreeSet;

use bulkhead_config::{Rule, Severity};
use common::Case;

/// A system that runs on any board of the examples.
const SYSTEM: &str = "[system]\nname = \"test\"\nboard = \"boards/example.toml\"\n[housekeeping]\ncore = 0\n\
                      [partition.a]\nimage = \"good.elf\"\nmemory = \"8 MiB\"\ncores = [1]\n";

/// The codes that are told about an example, and whether it compiles.
fn verdict(file: &str, text: &str) -> (bool, BTreeSet<&'static str>, String) {
    let is_board = file.starts_with("boards/");
    let case = Case::new("system.toml", if is_board { SYSTEM } else { text });
    if is_board {
        std::fs::write(case.folder.path().join("boards/example.toml"), text).unwrap();
    }
    let (compiled, found) = match case.compile() {
        Ok(compiled) => (true, compiled.warnings().clone()),
        Err(found) => (false, found),
    };
    let codes = found.list().iter().map(|each| each.code).collect();
    (compiled, codes, found.render(false))
}

#[test]
fn each_bad_example_is_rejected_under_its_code() {
    for rule in Rule::ALL {
        let explanation = rule.explanation();
        let (compiled, codes, said) = verdict(explanation.file, explanation.bad);
        assert_eq!(compiled, rule.severity() == Severity::Warning, "{rule:?}\n{said}");
        assert_eq!(codes, BTreeSet::from([rule.code()]), "{rule:?}\n{said}");
    }
}

#[test]
fn each_good_example_is_accepted() {
    for rule in Rule::ALL {
        let explanation = rule.explanation();
        let good = explanation.good();
        let (compiled, codes, said) = verdict(explanation.file, &good);
        assert!(compiled && codes.is_empty(), "{rule:?}\n{good}\n{said}");
    }
}

#[test]
fn what_is_shown_is_short_and_not_empty() {
    for rule in Rule::ALL {
        let explanation = rule.explanation();
        for shown in [explanation.shown_bad(), explanation.shown_good()] {
            assert!((1..=40).contains(&shown.lines().count()), "{rule:?}\n{shown}");
        }
        assert_ne!(explanation.shown_bad(), explanation.shown_good(), "{rule:?}");
        assert!(explanation.why.ends_with('.') && !explanation.why.contains("  "), "{rule:?}");
    }
}

#[test]
fn a_code_is_found_however_it_is_written() {
    assert_eq!(Rule::of_code("bh0301"), Some(Rule::CoreClaimedTwice));
    assert_eq!(Rule::of_code("BH9999"), None);
}
