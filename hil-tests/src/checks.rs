//! What a run must show, as functions from a report to complaints: none means that it holds.
//!
//! The same functions serve the tests of the product, which want no complaint, and the tests of the tests, which
//! plant a fault and want one.
//!
//! Bounds are in ticks of the emulator, that is in instructions: they repeat, up to the 5 ticks in which Bochs
//! interleaves its CPUs and by which their clock moves.

use bulkhead::Report;
use bulkhead::report::{Histogram, Partition};

/// Most ticks from a window's declared start to the hypervisor's last look at the clock before the guest runs.
/// Seen: 65 to 75, the instructions between the end of the wait and that look, and the clock's step twice.
pub const WINDOW_LATENESS: u64 = 80;

/// The same for a guest whose own timer may have run out while it was away: its interrupt is injected before the guest
/// runs. Seen: 165.
pub const WINDOW_LATENESS_WITH_TIMER: u64 = 175;

/// Most ticks of a partition switch, without the wait for the window: what the project aims at. Seen: 770. All of it
/// passes ahead of the window, in the switch budget.
pub const SWITCH: u64 = 1_000;

/// Most ticks from a deadline to the handler's first look at the clock, on a dedicated core. Seen: 0 to 4, which is where
/// in the clock's step the deadline falls.
pub const WAKEUP: u64 = 10;

/// How far two runs' latencies may be apart: twice the step in which the emulator interleaves its CPUs.
pub const SAME: u64 = 10;

/// Samples that `motion` takes in the demo.
const SAMPLES: u64 = 20_000;

/// Windows that `plc` watches.
const WINDOWS: u64 = 200;

/// The demo: `motion` undisturbed by exits, every window of the shared core in its bound, nothing lost.
#[must_use]
pub fn check_demo(report: &Report) -> Vec<String> {
    let mut complaints = check_end(report);
    complaints.extend(check_motion(report));
    complaints.extend(check_passed(report, "plc"));
    complaints.extend(check_windows(report, "plc", WINDOW_LATENESS));
    complaints.extend(check_windows(report, "noise", WINDOW_LATENESS_WITH_TIMER));
    let seen = report
        .partition("plc")
        .and_then(|plc| plc.histogram("window-start"))
        .map(|starts| starts.count);
    if seen != Some(WINDOWS) {
        complaints.push(format!("plc saw {seen:?} windows instead of {WINDOWS}"));
    }
    if report.partition("noise").map(|noise| noise.fate.as_str()) != Some("running") {
        complaints.push("noise did not go on to the end".into());
    }
    complaints
}

/// A whole run: an orderly end, a whole log, a clock and switches in their bounds.
#[must_use]
pub fn check_end(report: &Report) -> Vec<String> {
    let too_long = report.cores.iter().filter(|core| core.switch_max.unwrap_or(0) > SWITCH);
    let switches = too_long.map(|core| {
        let most = core.switch_max.unwrap_or(0);
        format!("a switch on core {} took {most} ticks, more than {SWITCH}", core.cpu)
    });
    check_orderly_end(report).into_iter().chain(switches).collect()
}

/// As [`check_end`], for a run in which vCPUs are started: the switch that resets one takes longer than others, once.
#[must_use]
pub fn check_orderly_end(report: &Report) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut must = |holds: bool, complaint: String| {
        if !holds {
            complaints.push(complaint);
        }
    };
    must(report.complete, "the run did not come to its orderly end".into());
    must(report.log.lost == 0, format!("{} messages were dropped", report.log.lost));
    must(report.log.garbled == 0, format!("{} pieces of the log are garbled", report.log.garbled));
    let declared = report.boot.tsc_declared_hz;
    let measured = report.boot.tsc_measured_hz.unwrap_or(0);
    // The board file's tolerance is 0.1 %.
    must(
        measured.abs_diff(declared) <= declared / 1000,
        format!("the clock was measured at {measured} Hz, declared are {declared} Hz"),
    );
    complaints
}

/// `motion`: every sample, no exit in its measured span, no latency above [`WAKEUP`].
#[must_use]
pub fn check_motion(report: &Report) -> Vec<String> {
    let mut complaints = check_passed(report, "motion");
    let Some(motion) = report.partition("motion") else {
        return complaints;
    };
    if motion.span_exits != Some(0) {
        complaints.push(format!("motion took {:?} exits in its span", motion.span_exits));
    }
    match motion.histogram("wakeup") {
        None => complaints.push("motion reported no latencies".into()),
        Some(wakeup) => {
            if wakeup.count != SAMPLES {
                complaints.push(format!("motion took {} samples, not {SAMPLES}", wakeup.count));
            }
            if wakeup.max > WAKEUP {
                complaints
                    .push(format!("motion woke up {} ticks late, more than {WAKEUP}", wakeup.max));
            }
        }
    }
    complaints
}

/// A partition that passed.
#[must_use]
pub fn check_passed(report: &Report, name: &str) -> Vec<String> {
    check_fate(report, name, "passed")
}

/// A partition that ended as `fate` says.
#[must_use]
pub fn check_fate(report: &Report, name: &str, fate: &str) -> Vec<String> {
    match report.partition(name) {
        None => vec![format!("the report has no {name}")],
        Some(partition) if partition.fate == fate => Vec::new(),
        Some(partition) => {
            let words = partition.verdict.as_ref().map_or("", |verdict| &verdict.text);
            vec![format!("{name} is {} instead of {fate}: {words}", partition.fate)]
        }
    }
}

/// Every window of a partition started at most `bound` ticks late, and it had some.
#[must_use]
pub fn check_windows(report: &Report, name: &str, bound: u64) -> Vec<String> {
    let Some(windows) = report.partition(name).and_then(|it| it.windows) else {
        return vec![format!("the report has no windows of {name}")];
    };
    let mut complaints = Vec::new();
    if windows.run == 0 {
        complaints.push(format!("{name} had no window"));
    }
    if windows.late != 0 {
        complaints.push(format!("{} windows of {name} were late", windows.late));
    }
    let latest = windows.lateness_max.unwrap_or(u64::MAX);
    if latest > bound {
        complaints
            .push(format!("a window of {name} started {latest} ticks late, more than {bound}"));
    }
    complaints
}

/// Two runs of `motion` that must have the same latencies within [`SAME`].
#[must_use]
pub fn check_same_latency(one: &Report, other: &Report) -> Vec<String> {
    let wakeup = |report: &Report| -> Option<Histogram> {
        report.partition("motion")?.histogram("wakeup").cloned()
    };
    let (Some(one), Some(other)) = (wakeup(one), wakeup(other)) else {
        return vec!["a run has no latencies of motion".into()];
    };
    let figures = [
        ("samples", one.count, other.count, 0),
        ("min", one.min, other.min, SAME),
        ("median", one.median, other.median, SAME),
        ("p99.9", one.p99_9, other.p99_9, SAME),
        ("max", one.max, other.max, SAME),
    ];
    figures
        .iter()
        .filter(|(_, one, other, allowed)| one.abs_diff(*other) > *allowed)
        .map(|(name, one, other, _)| format!("{name} differs: {one} and {other}"))
        .collect()
}

/// One line about a partition, for a test to print.
#[must_use]
pub fn line(partition: &Partition) -> String {
    let windows = partition.windows.map_or(String::new(), |windows| {
        format!(
            ", {} windows, {} late, {:?}..{:?} ticks",
            windows.run, windows.late, windows.lateness_min, windows.lateness_max
        )
    });
    let histograms: String = partition
        .histograms
        .iter()
        .map(|it| {
            format!(", {} {}/{}/{}/{} {}", it.name, it.min, it.median, it.p99_9, it.max, it.unit)
        })
        .collect();
    format!(
        "{} {}: span exits {:?}, {} exits, denied {:?}{windows}{histograms}",
        partition.name,
        partition.fate,
        partition.span_exits,
        partition.exits_total(),
        partition.denied
    )
}

/// Prints what a run measured.
pub fn print(report: &Report) {
    for partition in &report.partitions {
        println!("  {}", line(partition));
    }
    for core in &report.cores {
        println!(
            "  core {}: switch {:?}..{:?} ticks, steps {:?}",
            core.cpu, core.switch_min, core.switch_max, core.switch_steps
        );
    }
}

/// Panics with all complaints, if there are any.
///
/// # Panics
/// There are complaints.
pub fn want_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
