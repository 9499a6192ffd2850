//! When windows start, what they lose and what a switch costs: on one, two and four time-shared cores, with 2 to 16
//! partitions on a core, behind neighbours that do their worst to the last instant.
//!
//! A neighbour stands just before each measured window. The cores of one machine carry different numbers of partitions, so that one
//! run shows that these change nothing.

use std::sync::LazyLock;
use std::time::Duration;

use bulkhead::{Run, RunOptions};
use hil_tests::time::{self, Sharing, WORST};
use hil_tests::{bench, checks, systems};

/// Windows that are measured in a run, over all its cores. With `cargo verify --long` each core has as many.
const WINDOWS: u64 = 10_000;

/// One core, two partitions: the yardstick of the others.
static ONE_CORE: LazyLock<Run> = LazyLock::new(|| {
    let mut system = Sharing::default();
    system.measured_core(0, &arguments(1), &["all"]);
    run("jitter-1", system)
});

#[test]
fn jitter_on_one_core() {
    judge(&ONE_CORE, 1);
}

#[test]
fn jitter_on_two_cores() {
    let mut system = Sharing::default();
    system.measured_core(0, &arguments(2), &WORST[..7]);
    system.measured_core(1, &with_timer(2), &["all", "cli", "hlt", "exits"]);
    let run = run("jitter-2", system);
    judge(&run, 2);
}

#[test]
fn jitter_on_four_cores_with_up_to_sixteen_partitions() {
    let mut system = Sharing::default();
    system.measured_core(0, &arguments(4), &WORST);
    system.measured_core(1, &arguments(4), &["movsb"]);
    system.measured_core(2, &arguments(4), &["exits", "wbinvd", "ports", "cr3", "xsave"]);
    system.measured_core(3, &with_timer(4), &["vmcall", "pause", "ipi"]);
    let run = run("jitter-4", system);
    judge(&run, 4);
    // 2, 6 and 16 partitions on a core; one core and four.
    let many = time::jitter(0);
    for other in [1, 2] {
        let few = time::jitter(other);
        checks::want_none(&time::check_no_growth((&run.report, &few), (&run.report, &many)));
    }
    checks::want_none(&time::check_no_growth((&ONE_CORE.report, &many), (&run.report, &many)));
}

/// What each measuring partition of a run on so many cores is told.
fn arguments(cores: u64) -> String {
    format!("windows={}", windows(cores))
}

fn with_timer(cores: u64) -> String {
    format!("windows={} timer=away", windows(cores))
}

/// Windows that each measures.
fn windows(cores: u64) -> u64 {
    if bench::is_long() { WINDOWS } else { WINDOWS / cores }
}

fn run(name: &str, system: Sharing) -> Run {
    let path = system.write(name, &systems::board(), "60 s");
    bench::run(&bench::build(&path, name).image)
}

fn judge(run: &Run, cores: u64) {
    let report = &run.report;
    checks::print(report);
    let mut complaints = checks::check_end(report);
    for core in (0..).take(usize::try_from(cores).unwrap()) {
        let name = time::jitter(core);
        println!("  {}", report.partition(&name).map(time::line).unwrap_or_default());
        complaints.extend(time::check_jitter(report, &name, windows(cores)));
    }
    checks::want_none(&complaints);
}

/// The hundred thousandth frame starts at the instant that the schedule computes.
#[test]
fn jitter_has_no_drift_in_a_hundred_thousand_frames() {
    check_drift("jitter-drift", 100_000);
}

/// The same for the millionth frame.
#[test]
#[ignore = "a million frames take minutes; `cargo verify --long` runs it"]
fn long_jitter_has_no_drift_in_a_million_frames() {
    check_drift("jitter-drift-long", 1_000_000);
}

/// Runs short frames on one core, which is quickest in the emulator.
fn check_drift(name: &str, frames: u64) {
    const OTHER_CORES: &str =
        "[[core]]\napic-id = 1\n[[core]]\napic-id = 2\n[[core]]\napic-id = 3\n";
    let board = systems::changed_board(name, &[(OTHER_CORES, "")]);
    let mut system = Sharing::default();
    let jitter = time::jitter(0);
    system.partition(&jitter, "jitter", &format!("until-frame={frames}"), 0);
    system.window(&format!("partition.{jitter}"), 0, 25);
    system.must_finish(&jitter);
    system.housekeeping(25);
    let image = bench::build(&system.write(name, &board, "200 s"), name).image;
    let timeout = Some(Duration::from_secs(900));
    let run = bench::run_with(RunOptions { image, timeout, ..RunOptions::default() });
    checks::print(&run.report);
    let partition = run.report.partition(&jitter).unwrap();
    println!("  {}", time::line(partition));
    // Some dozens pass before the guest has booted in its short windows.
    checks::want_none(&time::check_jitter(&run.report, &jitter, frames - 200));
    assert!(partition.value("last-frame").unwrap() >= frames);
    // The window's declared start: 25 us.
    let declared = partition.value("start-at-1250-max");
    assert!(declared.is_some(), "the window is not where it is declared");
    assert_eq!(partition.value("epoch"), run.report.boot.epoch, "frames count from the epoch");
}
