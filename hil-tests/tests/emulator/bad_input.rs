//! Bad input through the command itself: it exits with 2 and says file, line, column and remedy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use bulkhead::{guests, process};
use hil_tests::{bench, systems};

/// The `bulkhead` command, built once.
static COMMAND: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--package", "bulkhead", "--message-format=json"])
        .current_dir(bench::root());
    let messages = process::run(&mut cargo, "the command does not build", "mend it").unwrap();
    guests::executable(&messages).unwrap()
});

const PLC_WINDOW: &str = "start = \"20 us\"\nlength = \"600 us\"";

#[test]
fn bad_input_syntax_error() {
    let system = systems::changed("demo", "bad-syntax", &[("cores = [1]", "cores = [1")]);
    refused_by_check(&system, &["not TOML"]);
}

#[test]
fn bad_input_unknown_key() {
    let system = systems::changed(
        "demo",
        "bad-key",
        &[("cores = [1]", "cores = [1]\npriority = 7")],
    );
    refused_by_check(&system, &["priority"]);
}

#[test]
fn bad_input_two_partitions_on_one_core() {
    let other = "cores = [1]\n\n[partition.other]\nimage = \"@/guests/latency\"\nmemory = \"8 MiB\"\ncores = [1]";
    let system = systems::changed("demo", "bad-core", &[("cores = [1]", other)]);
    refused_by_check(&system, &["motion", "other", "core 1"]);
}

#[test]
fn bad_input_memory_that_does_not_fit() {
    let system = systems::changed(
        "demo",
        "bad-memory",
        &[(
            "memory = \"8 MiB\"\ncores = [1]",
            "memory = \"8 GiB\"\ncores = [1]",
        )],
    );
    refused_by_check(&system, &["8 GiB"]);
}

#[test]
fn bad_input_windows_that_overlap() {
    let long = "start = \"20 us\"\nlength = \"700 us\"";
    let system = systems::changed("demo", "bad-overlap", &[(PLC_WINDOW, long)]);
    refused_by_check(&system, &["plc", "noise"]);
}

#[test]
fn bad_input_window_that_overruns_the_frame() {
    let late = "start = \"1.58 ms\"\nlength = \"500 us\"";
    let system = systems::changed(
        "demo",
        "bad-overrun",
        &[("start = \"1.58 ms\"\nlength = \"400 us\"", late)],
    );
    refused_by_check(&system, &["frame"]);
}

#[test]
fn bad_input_missing_image() {
    let system = systems::changed("demo", "bad-image", &[("guests/latency", "guests/absent")]);
    refused_by_check(&system, &["guests/absent"]);
}

#[test]
fn bad_input_image_larger_than_its_memory() {
    let system = systems::changed(
        "demo",
        "bad-size",
        &[(
            "memory = \"8 MiB\"\ncores = [1]",
            "memory = \"1028 KiB\"\ncores = [1]",
        )],
    );
    let image = bench::folder("bad-size").join("never.img");
    refused(
        Command::new(&*COMMAND)
            .arg("build")
            .arg(&system)
            .arg("-o")
            .arg(&image),
        &system,
        &["the guest image ends at", "1028 KiB"],
    );
    assert!(!image.exists(), "an image was written all the same");
}

fn refused_by_check(system: &Path, words: &[&str]) {
    refused(
        Command::new(&*COMMAND).arg("check").arg(system),
        system,
        words,
    );
}

/// Runs the command and wants exit code 2 and a message with all of `words`, a place in `system`, and a remedy.
fn refused(command: &mut Command, system: &Path, words: &[&str]) {
    let output = command.current_dir(bench::root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing in:\n{said}");
    }
    assert!(said.contains("help: "), "no remedy in:\n{said}");
    let file = system.file_name().unwrap().to_string_lossy();
    assert!(
        has_place(&said, &file),
        "no line and column of {file} in:\n{said}"
    );
}

/// Whether some line points to `FILE:LINE:COLUMN`.
fn has_place(said: &str, file: &str) -> bool {
    said.split_whitespace().any(|word| {
        let Some((_, place)) = word.rsplit_once(&format!("{file}:")) else {
            return false;
        };
        let numbers: Vec<_> = place.split(':').map(str::parse::<u32>).collect();
        matches!(numbers[..], [Ok(_), Ok(_)])
    })
}
