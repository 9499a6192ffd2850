//! The JSON Schemas: every file that the compiler accepts is valid, and every mistake that lies in one key is not.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::path::Path;

use bulkhead_config::{FileKind, json_schema};
use common::{system_texts, toml_files};
use jsonschema::Validator;
use serde_json::Value;

/// Rules about one key by itself: what breaks them breaks the schema.
const KEY_RULES: [&str; 8] = [
    "BH0102-unknown-key",
    "BH0103-not-enforced",
    "BH0104-missing-keys",
    "BH0105-wrong-type",
    "BH0106-bare-number",
    "BH0107-wrong-unit",
    "BH0110-names",
    "BH0115-hygiene",
];

fn validator(kind: FileKind) -> Validator {
    jsonschema::draft7::new(&json_schema(kind)).unwrap()
}

/// `None` where the text is no TOML.
fn document(text: &str) -> Option<Value> {
    serde_json::to_value(text.parse::<toml::Table>().ok()?).ok()
}

fn complaints(validator: &Validator, document: &Value) -> Vec<String> {
    let error =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(document).map(error).collect()
}

#[test]
fn each_shipped_and_each_accepted_file_is_valid() {
    let system = validator(FileKind::System);
    for (path, text) in system_texts() {
        let document = document(&text).unwrap();
        assert_eq!(complaints(&system, &document), [""; 0], "{}", path.display());
    }
    let board = validator(FileKind::Board);
    for (path, text) in toml_files("../partitions/boards") {
        let document = document(&text).unwrap();
        assert_eq!(complaints(&board, &document), [""; 0], "{}", path.display());
    }
}

#[test]
fn a_mistake_within_a_key_is_not_valid() {
    let system = validator(FileKind::System);
    for name in KEY_RULES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reject/{name}.toml"));
        let document = document(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(!system.is_valid(&document), "{name}");
    }
    let board = validator(FileKind::Board);
    for change in ["port = \"3f8\"", "port = -1", "prot = 0x3f8", "port = [0x3f8]"] {
        let (_, text) = toml_files("../partitions/boards").swap_remove(0);
        let changed = text.replace("port = 0x3f8", change);
        assert_ne!(changed, text);
        assert!(!board.is_valid(&document(&changed).unwrap()), "{change}");
    }
}

#[test]
fn each_mistake_of_an_example_is_told() {
    let system = validator(FileKind::System);
    let told = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reject/{name}.toml"));
        let document = document(&std::fs::read_to_string(path).unwrap()).unwrap();
        complaints(&system, &document).len()
    };
    // One for each wrong value in the file: a pattern that accepts too much would tell fewer.
    assert_eq!(told("BH0106-bare-number"), 5);
    assert_eq!(told("BH0107-wrong-unit"), 5);
}

#[test]
fn what_lies_between_keys_is_left_to_check() {
    let system = validator(FileKind::System);
    for (path, text) in toml_files("tests/reject") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let about_files = ["BH0112", "BH0113", "BH0114"].iter().any(|code| name.starts_with(code));
        let about_values = name.starts_with("BH01") && !about_files;
        let Some(document) = document(&text).filter(|_| !about_values) else { continue };
        assert_eq!(complaints(&system, &document), [""; 0], "{name}");
    }
}
