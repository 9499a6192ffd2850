//! `[limits]` by the command: a limit that is too tight makes `bulkhead measure` fail and tell the offending sample's circumstances; limits
//! that hold let it pass.

use std::path::Path;
use std::process::{Command, Output};

use hil_tests::{bench, systems};

use crate::shared::COMMAND;

/// The demo with fewer samples and these limits.
fn limited(name: &str, limits: &str) -> std::path::PathBuf {
    let limits = format!("[limits]\n{limits}\n\n[housekeeping]");
    let changes = [("samples=20000", "samples=2000"), ("[housekeeping]", limits.as_str())];
    systems::changed("demo", name, &changes)
}

fn measure(system: &Path) -> Output {
    let _permit = bench::permit();
    let mut command = Command::new(&*COMMAND);
    command.arg("measure").arg(system).args(["--timeout", "300"]).current_dir(bench::root());
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The only line of `text` that has all of `parts`.
fn line<'t>(text: &'t str, parts: &[&str]) -> &'t str {
    let mut found = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    let line = found.next().unwrap_or_else(|| panic!("no line has {parts:?} in:\n{text}"));
    assert!(found.next().is_none(), "more than one line has {parts:?} in:\n{text}");
    line
}

/// One tick for a wake-up, and two microseconds for a switch, are less than it takes.
#[test]
fn limits_that_are_too_tight_fail_with_the_sample() {
    let system = limited(
        "limits-tight",
        "timer.max = \"20 ns\"\nwindow.max = \"100 ns\"\nswitch = \"2 us\"\nexits_per_second = 0",
    );
    let output = measure(&system);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let place = |key: &str| {
        let text = systems::read(&system);
        let at = text.lines().position(|line| line.starts_with(key)).unwrap() + 1;
        format!("limits-tight.toml:{at}")
    };
    let timer = line(&told, &["timer.max", "is not kept"]);
    // Who, when, and what ran then and before: the two shared partitions and the housekeeping of core 0.
    let context = ["motion in run system", "of 2,000 samples", "at TSC", "into frame", "core 0"];
    for part in context.iter().chain(&[place("timer.max").as_str()]) {
        assert!(timer.contains(part), "{part} is missing in: {timer}");
    }
    let window = line(&told, &["window.max", "is not kept"]);
    // The first instant of its own window is what the sample is of, and housekeeping is before that in the frame.
    for part in ["plc in run system", "of 200 samples", "had plc, housekeeping before it"] {
        assert!(window.contains(part), "{part} is missing in: {window}");
    }
    let switch = line(&told, &["limit switch", "is not kept"]);
    for part in ["core 0", "the steps of its longest switch: decide ", "settle "] {
        assert!(switch.contains(part), "{part} is missing in: {switch}");
    }
    let figures = String::from_utf8_lossy(&output.stdout).into_owned();
    line(&figures, &["limit exits_per_second", "kept, at worst 0, motion in run system"]);
}

#[test]
fn limits_that_hold_pass() {
    let output = measure(&limited(
        "limits-kept",
        "timer.p99_9 = \"1 us\"\nwindow.max = \"5 us\"\nswitch = \"25 us\"\nexits_per_second = 0",
    ));
    assert_eq!(output.status.code(), Some(0));
    let figures = String::from_utf8_lossy(&output.stdout).into_owned();
    for key in ["timer.p99_9", "window.max", "switch", "exits_per_second"] {
        line(&figures, &[&format!("limit {key} "), ": kept"]);
    }
}
