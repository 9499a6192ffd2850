//! Every operation that exits, in the last ticks of a window: the next window's owner must not notice, and nothing is late.
//!
//! Chance does not find these instants: a second of ordinary attacks meets each of them once or never. `guests/edge` sweeps each operation
//! over the last thousand ticks of its window, one instant in each frame.

use std::time::Duration;

use bulkhead::{Run, RunOptions};
use hil_tests::edge::{self, Edge, Judge};
use hil_tests::plant::{self, Fault};
use hil_tests::{bench, checks, systems};

/// Operations of `guests/edge` of one CPU alone, and interrupt commands.
const ALONE: u64 = 48;
const INTERRUPTS: u64 = 17;

#[test]
fn edge_of_one_vcpu_on_both_platforms() {
    let (run, judge) = run("edge-alone", Edge::alone(ALONE + INTERRUPTS), 1);
    let mut complaints = judge.check(&run.report);
    complaints.extend(judge.check_fates(&run.report, |_| "passed"));
    checks::want_none(&complaints);
}

#[test]
fn edge_of_eight_vcpus_that_run() {
    many("edge-running", 8, 7);
}

#[test]
fn edge_of_ten_vcpus_that_wait() {
    many("edge-waiting", 10, 0);
}

fn many(name: &str, cores: u32, started: u32) {
    let (run, judge) = run(name, Edge::many(INTERRUPTS, cores, started), cores);
    let mut complaints = judge.check(&run.report);
    complaints.extend(judge.check_fates(&run.report, |_| "passed"));
    checks::want_none(&complaints);
}

/// How a partition can end, and what the system file says of it.
const ENDS: [(&str, &str); 7] = [
    ("memory-read", ""),
    ("page-write", ""),
    ("triple-fault", ""),
    ("finish", ""),
    ("memory-write", "platform = \"pc\""),
    ("off", "platform = \"pc\""),
    ("finish", "platform = \"pc\""),
];

#[test]
fn edge_where_partitions_end() {
    let (run, judge) = run("edge-ends", Edge::ends(&ENDS, 7), 4);
    let mut complaints = judge.check(&run.report);
    complaints.extend(judge.check_fates(&run.report, |name| match name {
        finished if finished.starts_with("finish") => "passed",
        off if off.starts_with("off") => "off",
        _ => "stopped",
    }));
    checks::want_none(&complaints);
}

/// Fewest restarts of each partition, and the frames that they take: a life is a dozen of them, most of which clear its memory.
const RESTARTS: u64 = 60;
const LIVES: u64 = 900;

#[test]
fn edge_where_partitions_start_again() {
    let (run, judge) = run("edge-restarts", Edge::restarts(LIVES), 1);
    let mut complaints = judge.check(&run.report);
    for name in ["reset", "triple-fault"] {
        let restarts = run.report.partition(name).and_then(|it| it.restarts);
        println!("  {name}: {restarts:?} restarts");
        if restarts < Some(RESTARTS) {
            complaints.push(format!("{name} started again {restarts:?} times only"));
        }
    }
    checks::want_none(&complaints);
}

/// A CPUID that takes 500 ticks: less than half of the switch budget, and a window is late for it.
#[test]
fn planted_long_exit_is_blamed_on_whose_it_is() {
    let fault = Fault {
        name: "fault-edge",
        changes: &[(
            "hv/src/vmx/exits.rs",
            "access::cpuid(&mut vcpu.registers, &vcpu.state);",
            "access::cpuid(&mut vcpu.registers, &vcpu.state);
             machine::wait_until(machine::tsc() + 500);",
        )],
    };
    let (system, _) = Edge::one("cpuid").write(fault.name, &edge::board(fault.name, 1), "40 s");
    let run = bench::run(&plant::build_faulty(&fault, &system).image);
    let complaints = checks::check_health(&run.report);
    println!("{complaints:#?}");
    let blamed = |who: &str| complaints.iter().any(|complaint| complaint.contains(who));
    assert!(
        blamed("late window of jitter-0, by bare"),
        "nobody noticed, or the wrong one is blamed"
    );
    assert!(!blamed("by the hypervisor"), "the hypervisor is blamed for a guest's exit");
}

/// A violation that is put into words where it happens: that took 900 ticks and more, in the time of whoever came next.
#[test]
fn planted_words_where_a_partition_is_stopped() {
    let fault = Fault {
        name: "fault-words",
        changes: &[(
            "hv/src/run/incidents.rs",
            "record_own(id, What::Violation { violation, rip });",
            "machine::wait_until(machine::tsc() + 900);
             record_own(id, What::Violation { violation, rip });",
        )],
    };
    let board = edge::board(fault.name, 4);
    let (system, judge) = Edge::ends(&ENDS, 7).write(fault.name, &board, "40 s");
    let run = bench::run(&plant::build_faulty(&fault, &system).image);
    let complaints = judge.check(&run.report);
    println!("{complaints:#?}");
    let late = complaints.iter().any(|complaint| complaint.contains("late window of jitter"));
    assert!(late, "nobody noticed");
}

#[test]
fn edge_acts_are_all_counted() {
    let declared = |file: &str, count: u64| {
        let source = bench::root().join("partitions/guests/edge/src").join(file);
        assert!(systems::read(&source).contains(&format!("[Act; {count}]")), "{file}: not {count}");
    };
    declared("acts.rs", ALONE);
    declared("interrupts.rs", INTERRUPTS);
    declared("ends.rs", 7);
}

fn run(name: &str, edge: Edge, cores: u32) -> (Run, Judge) {
    let (path, judge) = edge.write(name, &edge::board(name, cores), "40 s");
    let image = bench::build(&path, name).image;
    let timeout = Some(Duration::from_secs(900));
    let run = bench::run_with(RunOptions { image, timeout, ..RunOptions::default() });
    checks::print(&run.report);
    // Which operation it was is told by the frames.
    run.incidents.iter().filter(|it| it.contains("late")).for_each(|it| println!("  {it}"));
    (run, judge)
}
