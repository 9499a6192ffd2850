//! The press line: four cores, each in its role.

use hil_tests::{bench, checks};

#[test]
fn press_line_runs_on_four_cores() {
    let system = bench::root().join("partitions/press-line.toml");
    let run = bench::run(&bench::build(&system, "press-line").image);
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));
    for name in ["ram", "feeder", "guard"] {
        checks::want_none(&checks::check_passed(report, name));
    }
    checks::want_none(&checks::check_plc(report, "plc"));
    for name in ["ram", "feeder"] {
        let partition = report.partition(name).unwrap();
        assert_eq!(partition.span_exits, Some(0), "exits of {name}");
        let latest = partition.histogram("wakeup").unwrap().max;
        assert!(latest <= checks::WAKEUP, "{name} woke up {latest} ticks late");
    }
    for name in ["guard", "office"] {
        checks::want_none(&checks::check_windows(report, name));
    }
}
