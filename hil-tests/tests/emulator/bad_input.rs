//! Bad input through the command itself: it exits with 2 and says file, line, column and remedy.

use std::path::Path;
use std::process::Command;

use hil_tests::{bench, systems};

use crate::shared::COMMAND;

const PLC_WINDOW: &str = "start = \"25 us\"\nlength = \"600 us\"";

#[test]
fn bad_input_syntax_error() {
    let system = systems::changed("demo", "bad-syntax", &[("name = \"demo\"", "name = \"demo")]);
    refused_by_check(&system, "name = \"demo", &["not TOML"]);
}

#[test]
fn bad_input_unknown_key() {
    let system =
        systems::changed("demo", "bad-key", &[("cores = [1]", "cores = [1]\npriority = 7")]);
    refused_by_check(&system, "priority = 7", &["priority"]);
}

#[test]
fn bad_input_two_partitions_on_one_core() {
    let other = "cores = [1]\n\n[partition.other]\nimage = \"@/guests/latency\"\nmemory = \"8 MiB\"\ncores = [1]";
    let system = systems::changed("demo", "bad-core", &[("cores = [1]", other)]);
    refused_by_check(&system, "cores = [1]", &["motion", "other", "core 1"]);
}

#[test]
fn bad_input_memory_that_does_not_fit() {
    let system = systems::changed(
        "demo",
        "bad-memory",
        &[("memory = \"8 MiB\"\ncores = [1]", "memory = \"8 GiB\"\ncores = [1]")],
    );
    refused_by_check(&system, "memory = \"8 GiB\"", &["8 GiB"]);
}

#[test]
fn bad_input_windows_that_overlap() {
    let long = "start = \"25 us\"\nlength = \"700 us\"";
    let system = systems::changed("demo", "bad-overlap", &[(PLC_WINDOW, long)]);
    refused_by_check(&system, "[[partition.noise.window]]", &["plc", "noise"]);
}

#[test]
fn bad_input_window_that_overruns_the_frame() {
    let late = "start = \"1.58 ms\"\nlength = \"500 us\"";
    let system = systems::changed(
        "demo",
        "bad-overrun",
        &[("start = \"1.58 ms\"\nlength = \"400 us\"", late)],
    );
    refused_by_check(&system, "[[housekeeping.window]]", &["frame"]);
}

#[test]
fn bad_input_missing_image() {
    let system = systems::changed("demo", "bad-image", &[("guests/latency", "guests/absent")]);
    refused_by_check(&system, "guests/absent", &["guests/absent"]);
}

#[test]
fn bad_input_image_larger_than_its_memory() {
    let system = systems::changed(
        "demo",
        "bad-size",
        &[("memory = \"8 MiB\"\ncores = [1]", "memory = \"1028 KiB\"\ncores = [1]")],
    );
    let image = bench::folder("bad-size").join("never.img");
    refused(
        Command::new(&*COMMAND).arg("build").arg(&system).arg("-o").arg(&image),
        &system,
        "guests/latency",
        &["the guest image ends at", "1028 KiB"],
    );
    assert!(!image.exists(), "an image was written all the same");
}

fn refused_by_check(system: &Path, at: &str, words: &[&str]) {
    let mut command = Command::new(&*COMMAND);
    refused(command.arg("check").arg(system), system, at, words);
}

/// Runs the command and wants exit code 2, a message with all of `words` and a remedy, and the line and column of a line
/// of `system` that contains `at`.
fn refused(command: &mut Command, system: &Path, at: &str, words: &[&str]) {
    let output = command.current_dir(bench::root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing in:\n{said}");
    }
    assert!(said.contains("help: "), "no remedy in:\n{said}");
    let text = systems::read(system);
    let named = lines_named(&said, system)
        .into_iter()
        .filter_map(|line| text.lines().nth(line - 1))
        .any(|line| line.contains(at));
    assert!(named, "no place says where `{at}` is:\n{said}");
}

/// Numbers of the lines to which some `FILE:LINE:COLUMN` points.
fn lines_named(said: &str, file: &Path) -> Vec<usize> {
    let start = format!("{}:", file.file_name().unwrap().to_string_lossy());
    let line = |word: &str| {
        let (_, place) = word.rsplit_once(&start)?;
        let (line, column) = place.split_once(':')?;
        column.parse::<usize>().ok()?;
        line.parse().ok()
    };
    said.split_whitespace().filter_map(line).collect()
}
