//! The exit counter counts: k CPUIDs in the measured span are k exits. And what an exit costs.

use bulkhead::report::Partition;
use hil_tests::{bench, checks};

/// CPUIDs in the measured span; the default of guests/control.
const COUNT: u64 = 1000;

/// Leaves whose round trip is measured.
const LEAVES: [&str; 5] = ["0", "1", "7", "0xd", "unknown"];

/// What else is measured, and the most ticks that it may take on a dedicated and on a time-shared core. The project aims at 80, 80 and 90
/// on both. Seen: 106 and 115, 112 and 130, 113 and 125; what is allowed above that is the step of the clock.
const OTHERS: [(&str, u64, u64); 3] =
    [("vmcall-unknown", 110, 120), ("rdmsr-emulated", 115, 135), ("port-in", 115, 130)];

/// Most ticks of the mean CPUID round trip on a dedicated core, worst leaf: what the project aims at. Seen: 88. The clock moves in steps
/// of 5, so a single reading says less than the mean of a thousand, which repeats within 2.
const DEDICATED_ROUND_TRIP: u64 = 90;

/// The same on a time-shared core, best of a thousand: it looks at the clock too. The mean would count the windows of
/// the others in. Seen: 100, and one step of the clock is allowed.
const SHARED_ROUND_TRIP: u64 = 105;

#[test]
fn control_guest_counts_every_exit() {
    let system = bench::root().join("hil-tests/systems/control.toml");
    let run = bench::run(&bench::build(&system, "control").image);
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));
    for name in ["dedicated", "shared"] {
        checks::want_none(&checks::check_passed(report, name));
    }
    checks::want_none(&checks::check_windows(report, "shared"));
    let [dedicated, shared] = ["dedicated", "shared"].map(|name| report.partition(name).unwrap());

    assert_eq!(dedicated.span_exits, Some(COUNT), "a dedicated core: exactly the CPUIDs");
    assert_eq!(dedicated.value("span-exits"), Some(COUNT), "what the guest was told");
    let cpuids = [("CPUID".to_string(), COUNT)].into();
    assert_eq!(dedicated.span_exits_by_reason, cpuids);
    // A window may end within the span: the preemption timer's exits come on top.
    let ends = shared.exits.get("preemption timer").copied().unwrap_or(0);
    let counted = shared.span_exits.unwrap();
    assert!((COUNT..=COUNT + ends).contains(&counted), "{counted} exits, {ends} ends of windows");

    for (name, on_dedicated, on_shared) in OTHERS {
        let seen = (round_trip(dedicated, name, "-mean"), round_trip(shared, name, ""));
        assert!(seen.0 <= on_dedicated, "{name} on a dedicated core: {} ticks", seen.0);
        assert!(seen.1 <= on_shared, "{name} on a time-shared core: {} ticks", seen.1);
    }
    let dedicated = worst(dedicated, "-mean");
    let shared = worst(shared, "");
    println!("CPUID round trip, worst leaf: dedicated {dedicated}, shared {shared} ticks");
    assert!(dedicated <= DEDICATED_ROUND_TRIP, "{dedicated} ticks");
    assert!(shared <= SHARED_ROUND_TRIP, "{shared} ticks");
}

/// The worst leaf's round trip in ticks.
fn worst(partition: &Partition, which: &str) -> u64 {
    let leaf = |leaf| round_trip(partition, &format!("cpuid-leaf-{leaf}"), which);
    LEAVES.map(leaf).into_iter().max().unwrap()
}

/// What was measured under this name; `which` of its figures: `-mean`, `-max`, or nothing for the least.
fn round_trip(partition: &Partition, name: &str, which: &str) -> u64 {
    let name = format!("{name}{which}");
    let ticks = partition.value(&name).unwrap();
    println!("{}: {name} {ticks} ticks", partition.name);
    ticks
}
