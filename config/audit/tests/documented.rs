//! The table of what is proven in `config/README.md` is the one of the code.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::path::Path;

use bulkhead_audit::Rule;

/// Set to write what is generated instead of comparing it.
const BLESS: &str = "BULKHEAD_BLESS";
const BEGIN: &str = "<!-- audit: begin -->\n";
const END: &str = "<!-- audit: end -->\n";

#[test]
fn the_readme_lists_what_is_proven() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let rows: String = Rule::ALL
        .iter()
        .map(|rule| format!("| {} | {} |\n", rule.code(), rule.statement()))
        .collect();
    let whole =
        format!("{before}{BEGIN}| code | what is proven |\n| --- | --- |\n{rows}{END}{after}");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &whole).unwrap();
    }
    let now = std::fs::read_to_string(&path).unwrap();
    assert!(now == whole, "run this test once with {BLESS}=1, and look at the difference");
}
