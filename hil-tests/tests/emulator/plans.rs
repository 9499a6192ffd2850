//! Plans, and guests that know their time: a change holds on all cores from the same frame, and calls do what they say.

use bulkhead::gantt;
use bulkhead::report::Partition;
use hil_tests::{bench, checks, trace};

use crate::shared::PLANS;

/// Changes that `ask` brings about.
const CHANGES: usize = 10;

/// Partitions that must pass: each holds its schedule page against the arithmetic all the time.
const GUESTS: [&str; 6] = ["ask", "sleep", "watch-one", "watch-two", "give", "take"];

/// Most ticks from the start of a window to the return of the call that slept until it. Seen: 55 to 60.
const WOKE: u64 = 75;

/// Windows in a row that a partition leaves out: a sleep lasts three frames.
const SLEEPERS: [(&str, usize); 1] = [("sleep", 2)];

/// Fewest ticks of a window of 10,000 that its receiver has, on average, when the owner gives it away at once. Seen: 8,447.
const GIVEN: u64 = 8_000;

#[test]
fn plans_change_on_all_cores_in_the_same_frame() {
    let system = bench::root().join("hil-tests/systems/plans.toml");
    let report = &PLANS.1.report;
    checks::print(report);
    let mut complaints = checks::check_end(report);
    for guest in GUESTS {
        complaints.extend(checks::check_passed(report, guest));
        let values = report.partition(guest).map(|it| it.values.as_slice()).unwrap_or_default();
        let faults = values.iter().filter(|value| value.name.starts_with("faults:"));
        complaints.extend(faults.map(|fault| format!("{guest}: {} {}", fault.name, fault.value)));
    }
    let plan = bench::sure("prove the system", bulkhead::compile::plan(&system));
    complaints.extend(trace::check_trace(report, &plan, &SLEEPERS));
    checks::want_none(&complaints);
    let picture = bench::folder("plans").join("ran.svg");
    bench::sure("draw what ran", gantt::write(report, &plan, &picture));

    let changes = |name| changes(report.partition(name).unwrap());
    let (one, two) = (changes("watch-one"), changes("watch-two"));
    println!("changes, seen from core 1: {one:?}, from core 2: {two:?}");
    assert_eq!(one.len(), CHANGES);
    assert_eq!(one, two, "a change of plan came in different frames on two cores");

    let given = report.partition("take").unwrap();
    println!("given: {:?}", given.values);
    let [windows, ticks] = ["windows-given", "ticks-given"].map(|name| given.value(name).unwrap());
    assert!(windows > 0 && ticks >= windows * GIVEN, "the receiver had {ticks} ticks in {windows}");
    let woke = report.partition("sleep").unwrap().histogram("woke").unwrap();
    assert!(woke.max <= WOKE, "a sleeper woke {} ticks behind its window's start", woke.max);
}

/// Plan and frame of each change that a watcher saw.
fn changes(partition: &Partition) -> Vec<(&str, u64)> {
    let values = partition.values.iter();
    values
        .filter_map(|value| {
            let (_, plan) = value.name.strip_prefix("change-")?.split_once("-to-")?;
            Some((plan, value.value))
        })
        .collect()
}
