//! Tests that cannot run on a machine say so aloud, and `cargo verify` lists them at its end.
//!
//! A test harness keeps to itself what a passing test prints, so the sentence goes past it, and into the file that `verify` names
//! in the environment.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// The variable by which `verify` names its file.
pub const LIST: &str = "BULKHEAD_SKIPPED";

/// Says that `test` did not run, why, and how to run it.
pub fn tell(test: &str, why: &str, remedy: &str) {
    let line = format!("skipped: {test}: {why}; {remedy}\n");
    // A test cannot do more about a closed standard error than go on.
    let _shown = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os(LIST)
        && let Err(cause) = append(Path::new(&list), &line)
    {
        let _shown = writeln!(std::io::stderr(), "cannot note that in {list:?}: {cause}");
    }
}

fn append(list: &Path, line: &str) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).open(list)?.write_all(line.as_bytes())
}

/// The sentences in a list, each once, in their order.
#[must_use]
pub fn sentences(list: &str) -> Vec<&str> {
    let mut sentences: Vec<&str> = Vec::new();
    for line in list.lines() {
        if !sentences.contains(&line) {
            sentences.push(line);
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_and_repeats_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        for line in ["skipped: b\n", "skipped: a\n", "skipped: b\n"] {
            append(&list, line).unwrap();
        }
        let text = std::fs::read_to_string(&list).unwrap();
        assert_eq!(sentences(&text), ["skipped: b", "skipped: a"]);
    }
}
