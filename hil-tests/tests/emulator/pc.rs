//! The platform of a PC: what an operating system probes is there, it can switch itself off, and it can start itself again for ever
//! beside a control loop and windows that do not notice.

use bulkhead::decode::Event;
use hil_tests::{bench, checks};

use crate::shared::PC;

/// Fewest restarts within the run. Seen: 73 on a dedicated core, 24 on a shared one.
const RESETS: u64 = 40;
const FAULTS: u64 = 12;

/// What each life of guests/pc sends through its serial port.
const SENT: &str = "sent through the serial port";

#[test]
fn a_pc_switches_itself_off_and_starts_again_unnoticed() {
    let run = bench::run(&PC.image);
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));

    let [motion, resets, ends, faults, plc] =
        ["motion", "resets", "ends", "faults", "plc"].map(|name| report.partition(name).unwrap());
    assert_eq!(ends.fate, "off");
    assert_eq!(ends.value("checks-failed"), Some(0), "the platform is what was promised");
    let sent = |event: &&Event| matches!(event, Event::Console { line, .. } if line == SENT);
    let lines = run.events.iter().filter(sent).count() as u64;
    assert!(lines > RESETS + FAULTS, "{lines} lines came through serial ports");
    assert_eq!(ends.denied, [("port".to_string(), 6)].into(), "the ports where no device is");
    assert!(resets.restarts >= Some(RESETS), "{:?} resets", resets.restarts);
    assert!(faults.restarts >= Some(FAULTS), "{:?} triple faults", faults.restarts);
    for partition in [resets, faults] {
        assert_eq!(partition.fate, "running");
        let lives = partition.values.iter().filter(|value| value.name == "checks-failed");
        assert!(lives.clone().count() as u64 >= partition.restarts.unwrap(), "each life reports");
        assert!(lives.clone().all(|value| value.value == 0), "each life finds the platform as new");
        assert_eq!(partition.console_lost, 0);
    }

    assert_eq!(motion.fate, "passed");
    assert_eq!(motion.span_exits, Some(0), "no exit beside restarts");
    checks::want_none(&checks::check_windows(report, "plc"));
    assert_eq!((plc.fate.as_str(), faults.windows.unwrap().late), ("passed", 0));
}
