//! The exit counter counts: k CPUIDs in the measured span are k exits.

use hil_tests::{bench, checks};

/// CPUIDs in the measured span; the default of guests/control.
const COUNT: u64 = 1000;

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
    // A window may end within the span: the timer's exits come on top.
    let ends = shared.exits.get("timer").copied().unwrap_or(0);
    let counted = shared.span_exits.unwrap();
    assert!((COUNT..=COUNT + ends).contains(&counted), "{counted} exits, {ends} ends of windows");
}
