//! The same system under AMD-V, in QEMU: guests run, are kept apart, and a dedicated core takes no exit.
//!
//! QEMU runs its processors in turns, each up to the next timer of any of them. So a processor can stand still for as long while another one
//! runs, and any change of the image moves those turns. Of time one figure alone is asserted, which no turn touches: the fewest ticks to a
//! window's start on the core that runs the hypervisor's switch.

use bulkhead::{Firmware, Machine, Target};
use hil_tests::{bench, checks, systems};

/// Fewest ticks from a window's declared start to the guest's first look at the clock. Seen: 34 and 35.
const WINDOW_START: u64 = 50;
/// Wake-ups that the dedicated core's guest wants. It misses some where a turn is longer than its period.
const SAMPLES: u64 = 400;

#[test]
fn amd_v_runs_the_demo() {
    let board = bench::root().join("partitions/boards/qemu-epyc.toml");
    let system = systems::changed("demo", "amd-v", &[("samples=20000", "samples=400")]);
    let built = bench::build_on(&system, "amd-v", &board);
    let machine = Machine::chosen(Some(Target::Qemu), Firmware::Bios, None);
    let run = bench::run_on(machine, &built.image);
    let report = &run.report;
    checks::print(report);
    assert!(report.emulator.starts_with("qemu"), "{}", report.emulator);
    assert!(report.complete, "the run comes to its orderly end");
    let motion = report.partition("motion").unwrap();
    assert_eq!(motion.span_exits, Some(0), "a dedicated core keeps its interrupts");
    checks::want_none(&checks::check_fate(report, "plc", "passed"));
    checks::want_none(&checks::check_fate(report, "noise", "running"));
    let starts = report.partition("plc").and_then(|plc| plc.histogram("window-start")).unwrap();
    assert!(starts.min <= WINDOW_START, "windows start {} ticks late", starts.min);
    let wake_ups = motion.histogram("wakeup").unwrap();
    assert!(wake_ups.count > SAMPLES / 2, "{wake_ups:?}");
}
