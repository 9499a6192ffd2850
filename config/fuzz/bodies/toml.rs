//! What the fuzz target `toml` does with its bytes. The normal tests compile and run the same lines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_config::check_texts;

/// The board that a system is checked against when the bytes hold none.
const BOARD: &str = include_str!("../../../partitions/boards/bochs-skylake-x.toml");

/// Stands between the texts of the bytes: the system, its board, a file that either may include.
const SEPARATOR: &str = "\0";

/// Checks the system whose texts the bytes are; any outcome will do, told in every form.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut texts = text.split(SEPARATOR).map(str::to_owned);
    let mut files = BTreeMap::new();
    let mut add = |path: &str, text: String| files.insert(PathBuf::from(path), text);
    add("system.toml", texts.next().unwrap_or_default());
    add("boards/bochs-skylake-x.toml", texts.next().unwrap_or_else(|| BOARD.to_owned()));
    add("shared.toml", texts.next().unwrap_or_default());
    for guest in ["latency", "plc", "noise"] {
        add(&format!("guests/{guest}/Cargo.toml"), String::new());
    }
    match check_texts(Path::new("system.toml"), files) {
        Ok(plan) => {
            assert!(!plan.report().is_empty());
            told(plan.warnings());
        }
        Err(found) => {
            assert!(!found.is_empty(), "rejected without a reason");
            told(&found);
        }
    }
}

fn told(found: &bulkhead_config::Diagnostics) {
    let _forms = (found.render(true), found.render(false), found.to_json());
}
