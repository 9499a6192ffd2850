//! A periodic task in a window of a time-shared core: measures how exactly its windows start.
//!
//! It reads the clock in a loop. A gap means that the core was another partition's; the first reading behind
//! the gap is the start of the window as the guest sees it. In the middle of each window a timer
//! interrupt is due.
//!
//! Arguments: `windows=200` (how many to see), `limit=DURATION` (latest start of a window that passes; none by default).
//! For partitions with one window a frame.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::{
    Alarm, Guest, Histogram, Verdict, Window, disable_interrupts, enable_interrupts, print,
    println, report_value, tsc, window,
};

guest_rt::entry!(main);

/// The vector of the timer within the window.
const TIMER_VECTOR: u8 = 0x40;
/// TSC at which the timer's handler was entered; 0: it did not come yet.
static TIMER_CAME: AtomicU64 = AtomicU64::new(0);

/// What the windows showed.
struct Seen {
    starts: Histogram,
    timers: Histogram,
    /// Frames in which the guest had no window.
    skipped: u64,
    /// Windows that started before their time.
    early: u64,
    /// Timers that did not come in their window.
    timers_missed: u64,
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["windows", "limit"]);
    let windows = guest.number("windows", 200);
    let limit = guest.argument("limit").map(|_| guest.ticks("limit", ""));
    let Some(schedule) = window() else {
        println!(
            "plc: no windows here; give the partition a [[partition.NAME.window]] in the system file"
        );
        return Verdict::fail("not on a time-shared core");
    };
    let seen = watch(schedule, windows);
    report_value!("windows-skipped", seen.skipped, "windows");
    report_value!("windows-early", seen.early, "windows");
    report_value!("timers-missed", seen.timers_missed, "timers");
    print!(
        "{}{}",
        seen.starts.report("window-start"),
        seen.timers.report("timer-in-window")
    );
    judge(&seen, limit)
}

fn watch(schedule: Window, windows: u64) -> Seen {
    let mut seen = Seen {
        starts: Histogram::new(),
        timers: Histogram::new(),
        skipped: 0,
        early: 0,
        timers_missed: 0,
    };
    let alarm = Alarm::new(TIMER_VECTOR, |came| {
        TIMER_CAME.store(came, Ordering::Relaxed)
    });
    let mut gaps = Gaps::new(schedule);
    enable_interrupts();
    // The first start only tells which frame it is.
    let mut frame = schedule.nearest_frame(gaps.next());
    for _ in 0..windows {
        let due = schedule.start_in(frame) + schedule.length / 2;
        TIMER_CAME.store(0, Ordering::Relaxed);
        alarm.set(due);
        let start = gaps.next();
        match TIMER_CAME.load(Ordering::Relaxed) {
            0 => seen.timers_missed += 1,
            came => seen.timers.record(came.wrapping_sub(due)),
        }
        let next = schedule.nearest_frame(start);
        seen.skipped += next.saturating_sub(frame + 1);
        frame = next;
        match start.checked_sub(schedule.start_in(frame)) {
            Some(late) => seen.starts.record(late),
            None => seen.early += 1,
        }
    }
    alarm.clear();
    disable_interrupts();
    seen
}

/// Finds the instants at which the guest got the core back.
struct Gaps {
    /// Shortest time without the core that counts, in ticks: half of what others have of the frame. An interrupt of the
    /// guest's own is much shorter.
    threshold: u64,
}

impl Gaps {
    const fn new(schedule: Window) -> Self {
        Self {
            threshold: schedule.away() / 2,
        }
    }

    /// Waits for the next gap and returns the first TSC behind it.
    fn next(&mut self) -> u64 {
        let mut before = tsc();
        loop {
            let now = tsc();
            if now - before > self.threshold {
                return now;
            }
            before = now;
        }
    }
}

fn judge(seen: &Seen, limit: Option<u64>) -> Verdict {
    if seen.skipped != 0 {
        Verdict::fail("a frame passed without the window")
    } else if seen.early != 0 {
        Verdict::fail("a window started before its time")
    } else if seen.timers_missed != 0 {
        Verdict::fail("a timer did not come in its window")
    } else if limit.is_some_and(|limit| seen.starts.max() > limit) {
        Verdict::fail("a window started later than the limit")
    } else {
        Verdict::pass("every frame had its window")
    }
}
