//! One rejecting file per rule, its message snapshotted; and near misses that compile.

mod common;

use std::collections::BTreeSet;

use bulkhead_config::{Diagnostics, Rule, Severity};
use common::{Case, toml_files};

/// What is told about a file: errors, or the warnings of a system that compiles.
fn verdict(case: &Case) -> (bool, Diagnostics) {
    match case.compile() {
        Ok(compiled) => (true, compiled.warnings().clone()),
        Err(diagnostics) => (false, diagnostics),
    }
}

fn code_of(file_name: &str) -> &str {
    file_name.split('-').next().unwrap_or_default()
}

#[test]
fn each_rejecting_file_breaks_its_rule_and_no_other() {
    for (path, text) in toml_files("tests/reject") {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let rule = Rule::ALL.iter().find(|rule| rule.code() == code_of(&name));
        let rule = rule.unwrap_or_else(|| panic!("{name}: no rule has this code"));
        let case = Case::new("system.toml", &text);
        let (compiled, diagnostics) = verdict(&case);
        assert_eq!(compiled, rule.severity() == Severity::Warning, "{name}");
        let codes: BTreeSet<_> = diagnostics.list().iter().map(|each| each.code).collect();
        let rendered = case.neutral(&diagnostics.render(false));
        assert_eq!(codes, BTreeSet::from([rule.code()]), "{name}\n{rendered}");
        for diagnostic in diagnostics.list() {
            let primary = diagnostic
                .primary
                .unwrap_or_else(|| panic!("{name}: no place"));
            assert!(
                primary.line > 0 && primary.end > primary.start,
                "{name}: empty place"
            );
            assert!(!diagnostic.remedy.is_empty(), "{name}: no remedy");
        }
        insta::assert_snapshot!(name, rendered);
    }
}

#[test]
fn each_rule_has_a_rejecting_file() {
    let files = toml_files("tests/reject");
    let covered: BTreeSet<_> = files
        .iter()
        .map(|(path, _)| {
            code_of(&path.file_stem().unwrap_or_default().to_string_lossy()).to_owned()
        })
        .collect();
    let missing: Vec<_> = Rule::ALL
        .iter()
        .filter(|rule| !covered.contains(rule.code()))
        .collect();
    assert!(missing.is_empty(), "no rejecting file: {missing:?}");
}

#[test]
fn codes_are_unique_and_ascend() {
    for pair in Rule::ALL.windows(2) {
        assert!(
            pair[0].code() < pair[1].code(),
            "{} before {}",
            pair[0].code(),
            pair[1].code()
        );
    }
}

#[test]
fn near_misses_compile_without_a_warning() {
    for (path, text) in toml_files("tests/accept") {
        let case = Case::new("system.toml", &text);
        match case.compile() {
            Ok(compiled) => {
                assert!(
                    compiled.warnings().is_empty(),
                    "{path:?}\n{}",
                    compiled.warnings()
                );
            }
            Err(diagnostics) => panic!("{path:?}\n{}", case.neutral(&diagnostics.render(false))),
        }
    }
}

#[test]
fn a_system_file_that_is_not_there_is_named() {
    let error = bulkhead_config::requests("no/such/system.toml".as_ref()).unwrap_err();
    let list = error.list();
    assert_eq!((list.len(), list[0].code), (1, "BH0112"));
    assert!(list[0].message.contains("no/such/system.toml"), "{error}");
}

#[test]
fn the_same_is_told_to_programs() {
    let (_, text) = toml_files("tests/reject")
        .into_iter()
        .find(|(path, _)| path.ends_with("BH0301-one-core-twice.toml"))
        .unwrap();
    let case = Case::new("system.toml", &text);
    let (_, diagnostics) = verdict(&case);
    insta::assert_snapshot!("json", case.neutral(&diagnostics.to_json()));
    assert!(diagnostics.render(true).contains('\u{1b}'));
}
