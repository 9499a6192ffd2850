//! What is generated and checked in: the README's tables of keys and rules, and an emitted table.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::fmt::Write;
use std::path::Path;

use bulkhead_config::language::{BOARD_SECTIONS, SYSTEM_SECTIONS, Section};
use bulkhead_config::{FileKind, Rule, json_schema};
use common::{Case, toml_files};

/// Set to write what is generated instead of comparing it.
const BLESS: &str = "BULKHEAD_BLESS";
const BEGIN: &str = "<!-- generated from the code by tests/generated.rs: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

fn sections(out: &mut String, title: &str, sections: &[&Section]) {
    writeln!(out, "## {title}").unwrap();
    for section in sections {
        writeln!(out, "\n### `{}`\n{}\n", section.header, section.meaning).unwrap();
        writeln!(
            out,
            "| key | value | example | needed | meaning |\n| --- | --- | --- | --- | --- |"
        )
        .unwrap();
        for key in section.keys {
            let needed = if key.required { "yes" } else { "" };
            let (what, example) = (key.form.describe(), key.form.example());
            writeln!(out, "| `{}` | {what} | `{example}` | {needed} | {} |", key.name, key.meaning)
                .unwrap();
        }
        if !section.later.is_empty() {
            let names: Vec<_> = section.later.iter().map(|key| format!("`{}`", key.name)).collect();
            writeln!(out, "\nNot enforced yet, and refused until then: {}.", names.join(", "))
                .unwrap();
        }
    }
    out.push('\n');
}

fn rules(out: &mut String) {
    let files: Vec<String> = toml_files("tests/reject")
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    writeln!(out, "## Rules").unwrap();
    writeln!(out, "\nWhat must hold; a file under `tests/reject/` breaks each, and its message is in `tests/snapshots/`.\n").unwrap();
    writeln!(out, "| code | rule | rejecting files |\n| --- | --- | --- |").unwrap();
    for rule in Rule::ALL {
        let own: Vec<_> = files
            .iter()
            .filter(|file| file.starts_with(rule.code()))
            .map(|file| format!("[{0}](tests/reject/{0})", file))
            .collect();
        let severity = if rule.severity().word() == "warning" { " (a warning)" } else { "" };
        writeln!(out, "| {} | {}{severity} | {} |", rule.code(), rule.statement(), own.join(", "))
            .unwrap();
    }
}

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the README has lost its first mark");
    let (found, after) = rest.split_once(END).expect("the README has lost its last mark");
    let mut wanted = String::new();
    sections(&mut wanted, "The system file", SYSTEM_SECTIONS);
    sections(&mut wanted, "The board file", BOARD_SECTIONS);
    rules(&mut wanted);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "run the tests with {BLESS}=1 to write the tables again");
    }
}

#[test]
fn the_schemas_in_the_tree_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for (name, kind) in [("system.json", FileKind::System), ("board.json", FileKind::Board)] {
        let wanted = format!("{:#}\n", json_schema(kind));
        let path = folder.join(name);
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == wanted, "{name} is old: run the tests with {BLESS}=1 to write it again");
    }
}

#[test]
fn the_emitted_table_is_the_one_that_the_test_emitted_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emitted");
    let system = std::fs::read_to_string(folder.join("system.toml")).unwrap();
    let compiled = Case::new("system.toml", &system).compile().unwrap();
    let path = folder.join("table.rs");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, compiled.emit()).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert_eq!(checked_in, compiled.emit(), "run the tests with {BLESS}=1 to write it again");
    insta::assert_snapshot!("report", compiled.report());
}
