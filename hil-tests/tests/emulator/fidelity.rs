//! Nothing that a partition keeps in its registers is lost or leaks at a switch: guests with random patterns share a core, are
//! preempted ten thousand times at random points, and find everything again.

use std::path::PathBuf;

use bulkhead::Report;
use hil_tests::time::Sharing;
use hil_tests::{bench, checks, systems};

/// Preemptions that each guest's loop must have met, every register filled.
const PREEMPTIONS: u64 = 10_000;

/// The guests and the microseconds of their windows, all different so that nothing keeps step.
const GUESTS: [(&str, u32); 3] = [("one", 41), ("two", 30), ("three", 53)];

/// Three of the guest on one core, until each was preempted so often.
pub fn system(name: &str, preemptions: u64) -> PathBuf {
    let mut system = Sharing::default();
    for (seed, (guest, window)) in (1..).zip(GUESTS) {
        system.partition(guest, "fidelity", &format!("seed={seed} preemptions={preemptions}"), 0);
        system.window(&format!("partition.{guest}"), 0, window);
        system.must_finish(guest);
    }
    system.housekeeping(60);
    system.write(name, &systems::board(), "60 s")
}

#[test]
fn fidelity_over_ten_thousand_preemptions() {
    let run = bench::run(&bench::build(&system("fidelity", PREEMPTIONS), "fidelity").image);
    checks::print(&run.report);
    let mut complaints = checks::check_end(&run.report);
    for (guest, _) in GUESTS {
        complaints.extend(check(&run.report, guest));
        let preemptions = run.report.partition(guest).and_then(|it| it.value("preemptions"));
        if preemptions.is_none_or(|count| count < PREEMPTIONS) {
            complaints.push(format!("{guest} was preempted {preemptions:?} times"));
        }
    }
    checks::want_none(&complaints);
}

/// Preemptions in the rounds that send NMIs.
const NMI_PREEMPTIONS: u64 = 2_000;

/// A guest that sends NMIs, its windows parted by time of nobody's. It is the core's only partition: Bochs 2.7 does not end the blocking
/// of NMIs at an entry whose guest has none, so there one partition's blocking leaks into the next's (its bug 1456, mended in 2023).
fn nmi_system(name: &str) -> PathBuf {
    let mut system = Sharing::default();
    system.partition(GUESTS[0].0, "fidelity", &format!("nmi=1 preemptions={NMI_PREEMPTIONS}"), 0);
    for window in [41, 30, 53] {
        system.window(&format!("partition.{}", GUESTS[0].0), 0, window);
    }
    system.must_finish(GUESTS[0].0);
    system.housekeeping(60);
    system.write(name, &systems::board(), "60 s")
}

#[test]
fn fidelity_of_nmis_sent_in_a_preempted_handler() {
    let name = "fidelity-nmi";
    let run = bench::run(&bench::build(&nmi_system(name), name).image);
    checks::print(&run.report);
    let mut complaints = checks::check_end(&run.report);
    complaints.extend(check(&run.report, GUESTS[0].0));
    checks::want_none(&complaints);
}

/// The same guest without the hypervisor.
#[test]
fn fidelity_of_nmis_on_the_bare_machine() {
    let name = "fidelity-nmi-native";
    let built = bench::build_alone(&nmi_system(name), name, GUESTS[0].0);
    checks::want_none(&check(&bench::run(&built.image).report, GUESTS[0].0));
}

/// What the guest expects of a register is what the bare machine does.
#[test]
fn fidelity_guest_expects_what_the_machine_does() {
    let name = "fidelity-native";
    let built = bench::build_alone(&system(name, PREEMPTIONS), name, GUESTS[0].0);
    let run = bench::run(&built.image);
    checks::want_none(&check(&run.report, GUESTS[0].0));
}

/// The guest passed, no window of it was late whatever the others did, and what it found changed otherwise.
pub fn check(report: &Report, guest: &str) -> Vec<String> {
    let mut complaints = checks::check_passed(report, guest);
    let late = report.partition(guest).and_then(|it| it.windows).map_or(0, |windows| windows.late);
    if late > 0 {
        complaints.push(format!("{late} windows of {guest} were late"));
    }
    let values = report.partition(guest).map(|it| it.values.as_slice()).unwrap_or_default();
    println!("  {guest}: {values:?}");
    let mismatches = values.iter().filter(|value| value.name.starts_with("mismatch"));
    complaints.extend(
        mismatches
            .filter(|value| value.value != 0)
            .map(|value| format!("{guest}: {} {}", value.name, value.value)),
    );
    complaints
}
