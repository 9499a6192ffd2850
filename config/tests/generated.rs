//! What is generated and checked in: the README's tables of keys and rules, and an emitted table.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::fmt::Write;
use std::path::Path;

use bulkhead_config::language::{BOARD_SECTIONS, SYSTEM_SECTIONS, Section};
use bulkhead_config::{FileKind, Rule, Severity, json_schema};
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
            let needed = match (key.required, key.instead) {
                (true, None) => "yes".to_owned(),
                (true, Some(other)) => format!("or `{other}`"),
                (false, _) => String::new(),
            };
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
    let warnings = Rule::ALL.iter().filter(|rule| rule.severity() == Severity::Warning).count();
    writeln!(out, "## Rules").unwrap();
    writeln!(
        out,
        "\nWhat must hold: {} rules, of which {warnings} only warn. Files under `tests/reject/` break each, and what is then told is in \
         `tests/snapshots/`. Each of the {} files has one reason: with its rule switched off, nothing is told.\n",
        Rule::ALL.len(),
        files.len()
    )
    .unwrap();
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

/// Ten mistakes that people make, and the rejecting files that make them.
const MISTAKES: [(&str, &str); 10] = [
    ("A key is misspelt", "BH0102-unknown-key"),
    ("A number has no unit", "BH0106-bare-number"),
    ("A time falls between two ticks of the clock", "BH0109-inexact"),
    ("Two partitions want one core", "BH0301-one-core-twice"),
    ("A partition on a shared core has no window", "BH0302-mixed"),
    ("Two windows overlap", "BH0402-overlap"),
    ("A partition is forgotten in a plan", "BH0410-plan-without-windows"),
    ("Two partitions share a core by its threads", "BH0312-dedicated-threads"),
    ("The memory of all does not fit", "BH0503-too-large"),
    ("A file that two systems share says something again", "BH0111-across-files"),
];

fn mistakes(out: &mut String) {
    writeln!(out, "## Ten common mistakes").unwrap();
    writeln!(out, "\nWhat is printed is meant to be enough to mend the file, without this manual.")
        .unwrap();
    for (title, name) in MISTAKES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reject/{name}.toml"));
        let case = Case::new("system.toml", &std::fs::read_to_string(path).unwrap());
        let told = case.compile().unwrap_err().render(false);
        writeln!(out, "\n**{title}.**\n\n```text\n{}```", case.neutral(&told)).unwrap();
    }
    out.push('\n');
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
    mistakes(&mut wanted);
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
