//! A periodic task in a window of a time-shared core: measures how exactly its windows start.
//!
//! It reads the clock in a loop. A gap means that the core was another partition's; the first reading behind
//! the gap is the start of the window as the guest sees it. In the middle of each window a timer
//! interrupt is due. A partition may have several windows in a frame.
//!
//! Arguments: `windows=200` (how many to see), `limit=DURATION` (latest start of a window that passes; none by default).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gap::next_gap;
use guest_rt::{
    Alarm, Guest, Histogram, Timeline, Verdict, Window, disable_interrupts, enable_interrupts,
    print, println, report_value, window,
};

guest_rt::entry!(main);

/// The vector of the timer within the window.
const TIMER_VECTOR: u8 = 0x40;
/// TSC at which the timer's handler was entered; 0: it did not come yet.
static TIMER_CAME: AtomicU64 = AtomicU64::new(0);

/// What the windows showed.
struct Seen {
    starts: Histogram,
    starts_over_time: Timeline,
    timers: Histogram,
    /// Whole frames in which the guest had no window.
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
    print!("{}", seen.starts.report("window-start"));
    print!("{}", seen.starts_over_time.report("window-start"));
    print!("{}", seen.timers.report("timer-in-window"));
    judge(&seen, limit)
}

fn watch(schedule: Window, windows: u64) -> Seen {
    let mut seen = Seen {
        starts: Histogram::new(),
        starts_over_time: Timeline::new(windows),
        timers: Histogram::new(),
        skipped: 0,
        early: 0,
        timers_missed: 0,
    };
    let alarm = Alarm::new(TIMER_VECTOR, |came| TIMER_CAME.store(came, Ordering::Relaxed));
    let shortest = shortest_gap(schedule);
    enable_interrupts();
    // The timer of the window that ran last, once there was one.
    let mut armed: Option<u64> = None;
    let mut before: Option<u64> = None;
    for _ in 0..=windows {
        let came = next_gap(shortest).first;
        // Which of its windows runs now: a partition may have several in a frame.
        let Some(running) = window() else {
            break;
        };
        let start = running.start_in(running.nearest_frame(came));
        if let (Some(due), Some(before)) = (armed, before) {
            seen.note_timer(due);
            seen.note_start(came, start);
            seen.skipped += (start - before).saturating_sub(1) / running.frame;
        }
        TIMER_CAME.store(0, Ordering::Relaxed);
        let due = start + running.length / 2;
        alarm.set(due);
        armed = Some(due);
        before = Some(start);
    }
    alarm.clear();
    disable_interrupts();
    seen
}

impl Seen {
    fn note_timer(&mut self, due: u64) {
        match TIMER_CAME.load(Ordering::Relaxed) {
            0 => self.timers_missed += 1,
            came => self.timers.record(came.wrapping_sub(due)),
        }
    }

    fn note_start(&mut self, came: u64, start: u64) {
        match came.checked_sub(start) {
            Some(late) => {
                self.starts.record(late);
                self.starts_over_time.record(late, came);
            }
            None => self.early += 1,
        }
    }
}

/// Shortest time without the core that counts, in ticks: an eighth of what others have of the frame, who may have it in
/// several pieces. An interrupt of the guest's own is much shorter.
fn shortest_gap(schedule: Window) -> u32 {
    u32::try_from(schedule.away() / 8).unwrap_or(u32::MAX)
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
