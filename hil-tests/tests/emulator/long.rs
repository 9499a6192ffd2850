//! What takes minutes, and runs with `cargo verify --long` only.

use std::time::Duration;

use bulkhead::RunOptions;
use hil_tests::{bench, checks, systems};

/// A million samples of the dedicated loop are 100 s of emulated time.
#[test]
#[ignore = "a million samples take minutes; `cargo verify --long` runs it"]
fn long_a_million_samples_without_an_exit() {
    let changes =
        [("samples=20000", "samples=1000000"), ("at-latest = \"10 s\"", "at-latest = \"150 s\"")];
    let system = systems::changed("demo", "demo-million", &changes);
    let image = bench::build(&system, "demo-million").image;
    let timeout = Some(Duration::from_secs(1800));
    let run = bench::run_with(RunOptions { image, timeout, ..RunOptions::default() });
    checks::print(&run.report);
    checks::want_none(&checks::check_passed(&run.report, "motion"));
    checks::want_none(&checks::check_end(&run.report));
    checks::want_none(&checks::check_plc(&run.report, "plc"));
    checks::want_none(&checks::check_windows(&run.report, "noise"));
    let motion = run.report.partition("motion").unwrap();
    let wakeup = motion.histogram("wakeup").unwrap();
    assert_eq!((motion.span_exits, wakeup.count), (Some(0), 1_000_000));
    let latest = wakeup.max;
    assert!(latest <= checks::WAKEUP, "the slowest of a million wake-ups took {latest} ticks");
}
