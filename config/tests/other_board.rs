//! A system on another board than the one that it names: the whole of that board counts, and nothing of its own.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::path::{Path, PathBuf};

use bulkhead_config::{Diagnostics, Input, Plan, check_without_images};

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../partitions").join(path)
}

fn on(system: &Path, board: Option<&Path>) -> Result<Plan, Diagnostics> {
    check_without_images(Input { system, board })
}

#[test]
fn the_other_board_counts() {
    let (demo, epyc) = (shipped("demo.toml"), shipped("boards/qemu-epyc.toml"));
    let own = on(&demo, None).unwrap();
    let other = on(&demo, Some(&epyc)).unwrap();
    assert_eq!((own.board_name(), own.tsc_hz()), ("bochs-skylake-x", 50_000_000));
    assert_eq!((other.board_name(), other.tsc_hz()), ("qemu-epyc", 1_000_000_000));
    assert_eq!((own.frame(), other.frame()), (100_000, 2_000_000));
    assert!(other.report().starts_with("System demo on board qemu-epyc\n"));
    assert_eq!(other.board_file(), epyc);
    let board_files = |plan: &Plan| plan.sources().iter().filter(|path| **path != demo).count();
    assert_eq!((board_files(&own), board_files(&other)), (1, 1), "its own board is not read");
}

#[test]
fn a_system_whose_own_board_is_gone_runs_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let demo = std::fs::read_to_string(shipped("demo.toml")).unwrap();
    let guests = shipped("guests").display().to_string();
    let text = demo.replace("guests/", &format!("{guests}/"));
    let system = folder.path().join("demo.toml");
    std::fs::write(&system, text).unwrap();
    assert!(on(&system, None).is_err());
    on(&system, Some(&shipped("boards/qemu-epyc.toml"))).unwrap();
}

#[test]
fn what_is_wrong_with_the_other_board_is_told() {
    let demo = shipped("demo.toml");
    let told = |board: &Path| {
        let refused = on(&demo, Some(board)).unwrap_err();
        let found = refused.list();
        let first = found.first().unwrap();
        (first.code, format!("{} {}", first.message, first.remedy))
    };
    let (code, words) = told(Path::new("no/such/board.toml"));
    assert_eq!(code, "BH0112");
    assert!(words.contains("the board file no/such/board.toml cannot be read"), "{words}");
    let (code, words) = told(&demo);
    assert_eq!(code, "BH0117", "{words}");
}
