//! Measures to the tick when its windows start and end, and whether they stay on their grid for ever.
//!
//! It reads the clock all the time. The first reading behind a gap is the start of a window as the guest sees it, the last one before
//! the gap the end of the window before. Both are held against the declared instants, which are the epoch + frame number × frame +
//! offset: nothing that it measured enters the arithmetic, so that drift would show as lateness.
//!
//! Arguments: `windows=10000` (how many to measure), or `until-frame=N` (to that frame's last window instead);
//! `gap=8us` (shortest time between two of its windows that counts); `timer=off|away`: with `away` its own timer runs out
//! between two windows, so that each window starts with the timer's interrupt.
#![no_std]
#![no_main]

mod seen;

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gap::{Gap, next_gap};
use guest_rt::{Alarm, Guest, Verdict, disable_interrupts, enable_interrupts, println, window};

use seen::{Running, Seen};

guest_rt::entry!(main);

/// The vector of the timer that runs out between windows.
const TIMER_VECTOR: u8 = 0x40;
/// How far behind the end of a window that timer is due, in ticks: when the window is over in any case.
const TIMER_AFTER: u64 = 300;
/// TSC at which the timer's handler was entered; 0: it did not come yet.
static TIMER_CAME: AtomicU64 = AtomicU64::new(0);

/// What the command line asks for.
struct Plan {
    windows: u64,
    until_frame: Option<u64>,
    gap: u32,
    timer: Option<Alarm>,
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["windows", "until-frame", "gap", "timer"]);
    let away = guest.choice("timer", &["off", "away"]) == "away";
    let plan = Plan {
        windows: guest.number("windows", 10_000),
        until_frame: guest.argument("until-frame").map(|_| guest.number("until-frame", 0)),
        gap: u32::try_from(guest.ticks("gap", "8us")).unwrap_or(u32::MAX),
        timer: away
            .then(|| Alarm::new(TIMER_VECTOR, |came| TIMER_CAME.store(came, Ordering::Relaxed))),
    };
    let Some(seen) = watch(&plan) else {
        println!(
            "jitter: no windows here; give the partition a [[partition.NAME.window]] in the system file"
        );
        return Verdict::fail("not on a time-shared core");
    };
    seen.report();
    seen.judge()
}

/// `None` where there are no windows.
fn watch(plan: &Plan) -> Option<Seen> {
    let mut seen = Seen::new();
    window()?;
    // The first gap only says where the guest stands: it was started somewhere within a window.
    let mut running = Running::at(next_gap(plan.gap).first)?;
    while !plan.is_done(&seen, &running) {
        let gap = plan.next_gap(running.end());
        seen.note_end(gap.last, &running);
        running = Running::at(gap.first)?;
        seen.note_start(gap.first, &running, plan.is_second_half(&seen, &running));
    }
    if let Some(timer) = &plan.timer {
        timer.clear();
    }
    Some(seen)
}

impl Plan {
    fn is_done(&self, seen: &Seen, running: &Running) -> bool {
        match self.until_frame {
            Some(last) => running.frame >= last,
            None => seen.measured() >= self.windows,
        }
    }

    fn is_second_half(&self, seen: &Seen, running: &Running) -> bool {
        match self.until_frame {
            Some(last) => running.frame >= last / 2,
            None => seen.measured() >= self.windows / 2,
        }
    }

    /// Waits for the next gap; with a timer, one that runs out behind `end`, in the gap.
    fn next_gap(&self, end: u64) -> Gap {
        let Some(timer) = &self.timer else {
            return next_gap(self.gap);
        };
        TIMER_CAME.store(0, Ordering::Relaxed);
        timer.set(end + TIMER_AFTER);
        enable_interrupts();
        let gap = next_gap(self.gap);
        disable_interrupts();
        match TIMER_CAME.load(Ordering::Relaxed) {
            0 => gap,
            came => Gap { first: gap.first.min(came), ..gap },
        }
    }
}
