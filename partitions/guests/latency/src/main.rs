//! A cyclic task of the APIC timer that measures its own wake-up latency.
//!
//! Arguments: `period=100us`, `samples=20000`, `mode=hlt|spin` (how it waits).
//!
//! An emulator moves its clock in steps (Bochs with several CPUs: 5 ticks). With a period that is a multiple of the
//! step, each deadline falls on the same place of it; one that is not, such as `100020ns` (5,001 ticks of
//! 50 MHz), visits them all.
#![no_std]
#![no_main]

use guest_rt::{
    Deadline, Guest, Histogram, Machine, Timeline, Verdict, Wait, print, report_value, span_begin,
    span_end, tsc,
};

guest_rt::entry!(main);

/// What a run of the task gave.
struct Run {
    wakeup: Histogram,
    over_time: Timeline,
    /// Deadlines that had passed before the task could wait for them.
    missed: u64,
    span_exits: Option<u64>,
    /// Length of the measured span, in ticks.
    span: u64,
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["period", "samples", "mode"]);
    let period = guest.ticks("period", "100us");
    let samples = guest.number("samples", 20_000);
    let wait = match guest.choice("mode", &["hlt", "spin"]) {
        "spin" => Wait::Spinning,
        _ => Wait::Halted,
    };
    if period == 0 || samples == 0 {
        return Verdict::fail("period and samples must not be zero");
    }
    let run = measure(period, samples, wait);
    if let Some(exits) = run.span_exits {
        report_value!("span-exits", exits, "exits");
        report_value!("span", run.span, "ticks");
    }
    report_value!("missed", run.missed, "samples");
    print!("{}{}", run.wakeup.report("wakeup"), run.over_time.report("wakeup"));
    judge(guest.machine(), samples, &run)
}

fn measure(period: u64, samples: u64, wait: Wait) -> Run {
    let mut wakeup = Histogram::new();
    let mut over_time = Timeline::new(samples);
    let mut missed = 0;
    let deadline = Deadline::new(wait);
    // Each deadline is first + k * period: an error in one sample cannot move the next.
    let first = tsc() + period;
    span_begin();
    let began = tsc();
    for sample in 0..samples {
        let instant = first + sample * period;
        if tsc() >= instant {
            missed += 1;
            continue;
        }
        // An interrupt ahead of its deadline would be a fault of the clock; it wraps to a huge value
        // and shows as the maximum.
        let late = deadline.wait(instant).wrapping_sub(instant);
        wakeup.record(late);
        over_time.record(late, instant);
    }
    let span = tsc() - began;
    Run { wakeup, over_time, missed, span_exits: span_end(), span }
}

fn judge(machine: Machine, samples: u64, run: &Run) -> Verdict {
    if run.missed != 0 || run.wakeup.count() != samples {
        return Verdict::fail("deadlines were missed");
    }
    match (machine, run.span_exits) {
        (Machine::Native, _) => Verdict::pass("every sample came (native)"),
        (Machine::Shared, _) => Verdict::pass("every sample came (on a time-shared core)"),
        (Machine::Dedicated, Some(0)) => Verdict::pass("every sample came, with no exit"),
        (Machine::Dedicated, Some(_)) => Verdict::fail("exits were taken in the measured span"),
        (Machine::Dedicated, None) => Verdict::fail("the hypervisor counted no span"),
    }
}
