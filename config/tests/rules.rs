//! One rejecting file per rule, its message snapshotted; and near misses that compile.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

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

/// What is wrong with the answer to a rejecting file; `None` when it is as it should be.
fn complaint(name: &str, case: &Case, compiled: bool, diagnostics: &Diagnostics) -> Option<String> {
    let Some(rule) = Rule::ALL.iter().find(|rule| rule.code() == code_of(name)) else {
        return Some("no rule has this code".to_owned());
    };
    let codes: BTreeSet<_> = diagnostics.list().iter().map(|each| each.code).collect();
    if compiled != (rule.severity() == Severity::Warning) || codes != BTreeSet::from([rule.code()])
    {
        return Some(case.neutral(&diagnostics.render(false)));
    }
    let other_reasons = case.findings_without(*rule);
    if !other_reasons.is_empty() {
        let told = case.neutral(&other_reasons.render(false));
        return Some(format!("with {} switched off it is still told:\n{told}", rule.code()));
    }
    let unhelpful = diagnostics.list().into_iter().find(|diagnostic| {
        diagnostic.remedy.is_empty()
            || diagnostic.primary.as_ref().is_none_or(|place| place.end <= place.start)
    });
    unhelpful.map(|diagnostic| format!("no place or no remedy: {diagnostic:?}"))
}

/// One reason each: nothing else is told, and nothing at all once the rule is switched off.
#[test]
fn each_rejecting_file_breaks_its_rule_and_no_other() {
    let mut complaints = Vec::new();
    for (path, text) in toml_files("tests/reject") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let case = Case::new("system.toml", &text);
        let (compiled, diagnostics) = verdict(&case);
        match complaint(&name, &case, compiled, &diagnostics) {
            Some(complaint) => complaints.push(format!("{name}\n{complaint}")),
            None => insta::assert_snapshot!(name, case.neutral(&diagnostics.render(false))),
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
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
    let missing: Vec<_> = Rule::ALL.iter().filter(|rule| !covered.contains(rule.code())).collect();
    assert!(missing.is_empty(), "no rejecting file: {missing:?}");
}

#[test]
fn codes_are_unique_and_ascend() {
    for pair in Rule::ALL.windows(2) {
        assert!(pair[0].code() < pair[1].code(), "{} before {}", pair[0].code(), pair[1].code());
    }
}

#[test]
fn near_misses_compile_without_a_warning() {
    for (path, text) in toml_files("tests/accept") {
        let case = Case::new("system.toml", &text);
        match case.compile() {
            Ok(compiled) => {
                assert!(compiled.warnings().is_empty(), "{path:?}\n{}", compiled.warnings());
            }
            Err(diagnostics) => panic!("{path:?}\n{}", case.neutral(&diagnostics.render(false))),
        }
    }
}

#[test]
fn a_system_file_that_is_not_there_is_named() {
    let error = bulkhead_config::requests("no/such/system.toml").unwrap_err();
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

#[test]
fn depth_is_no_danger() {
    for text in ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a.".repeat(100_000)]
    {
        let case = Case::new("system.toml", &text);
        let (compiled, diagnostics) = verdict(&case);
        assert!(!compiled && !diagnostics.is_empty());
    }
}

#[test]
fn a_finished_image_is_looked_into_before_any_build() {
    let (_, text) = toml_files("tests/reject")
        .into_iter()
        .find(|(path, _)| path.ends_with("BH0603-not-elf.toml"))
        .unwrap();
    let case = Case::new("system.toml", &text);
    let refused = bulkhead_config::check_without_images(&case.system).unwrap_err();
    assert_eq!(refused.list()[0].code, "BH0603");
}

#[test]
fn a_range_too_small_for_the_hypervisor_is_told_before_any_build() {
    let text = toml_files("tests/reject")
        .into_iter()
        .find_map(|(path, text)| path.ends_with("BH0301-one-core-twice.toml").then_some(text))
        .unwrap()
        .replacen("cores = [1]", "cores = [2]", 1);
    let case = Case::new("system.toml", &text);
    let board = case.folder.path().join("boards/bochs-skylake-x.toml");
    let small = std::fs::read_to_string(&board).unwrap().replace("\"31 MiB\"", "\"4 KiB\"");
    std::fs::write(&board, small).unwrap();
    let refused = bulkhead_config::check_without_images(&case.system).err().unwrap();
    assert_eq!(refused.list()[0].code, "BH0205", "{refused}");
}

/// To open a pipe waits for somebody who writes into it.
#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let case = Case::new("system.toml", "[system]\nname = \"test\"\nboard = \"pipe\"\n");
    let pipe = case.folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = case.compile().unwrap_err();
    assert!(
        refused.list().iter().any(|each| each.message.contains("it is not a file")),
        "{refused}"
    );
}

#[test]
fn a_file_that_cannot_be_read_hides_no_other_mistake() {
    let text = "include = [\"absent.toml\", \"broken.toml\"]\n[system]\nname = \"Test\"\nboard = \"boards/bochs-skylake-x.toml\"\n";
    let case = Case::new("system.toml", text);
    std::fs::write(case.folder.path().join("broken.toml"), "[schedule]\nframe = 2 ms\n").unwrap();
    let refused = case.compile().unwrap_err();
    let codes: BTreeSet<_> = refused.list().iter().map(|each| each.code).collect();
    assert_eq!(codes, BTreeSet::from(["BH0101", "BH0110", "BH0112"]), "{refused}");
}
