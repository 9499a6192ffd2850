//! What a guest that knows its time can do with it.

use guest_rt::{
    Histogram, Refused, donate_window, plan_state, print, report_value, sleep_until_frame,
    switch_plan, tsc, yield_window,
};

use crate::page::Reader;

/// Frames that a sleep lasts.
const SLEEP: u64 = 3;
/// Most changes that are noted.
const CHANGES: usize = 64;
/// A plan that no system has.
const NO_PLAN: u64 = 99;

/// Notes the frame of each change of plan, and prints them at the end: printing takes more than a window.
pub fn watch(reader: &mut Reader, rounds: u64) {
    let refused = switch_plan(0) == Err(Refused::Denied);
    reader.faults.must(refused, "request-without-the-right-was-taken");
    let mut changes = [(0, 0); CHANGES];
    let mut plan = reader.now().plan;
    for change in changes.iter_mut().zip(0..rounds).map(|(change, _)| change) {
        let page = loop {
            let page = reader.next_window();
            if page.plan != plan {
                break page;
            }
        };
        plan = page.plan;
        *change = (page.frame, page.plan);
    }
    for (number, (frame, plan)) in changes.iter().zip(0..rounds).map(|(it, number)| (number, it)) {
        report_value!(format_args!("change-{number}-to-{plan}"), frame, "frame");
    }
}

/// Asks for the other plan and back.
pub fn ask(reader: &mut Reader, rounds: u64) {
    let refused = switch_plan(NO_PLAN) == Err(Refused::Invalid);
    reader.faults.must(refused, "plan-that-is-none-was-taken");
    for _ in 0..rounds {
        ask_once(reader);
    }
}

fn ask_once(reader: &mut Reader) {
    let page = reader.next_window();
    let other = 1 - u64::from(page.plan);
    let Ok(before) = plan_state() else {
        reader.faults.note("plan-call-refused");
        return;
    };
    let from = match switch_plan(other) {
        Ok(from) => from,
        Err(why) => {
            reader.faults.note(match why {
                Refused::Busy => "request-busy",
                Refused::Denied => "request-denied",
                Refused::Invalid => "request-invalid",
                Refused::Unknown => "request-unknown",
            });
            return;
        }
    };
    let second = switch_plan(other);
    let Ok(after) = plan_state() else {
        reader.faults.note("plan-call-refused");
        return;
    };
    // A frame may begin between the calls.
    let in_two = before.frame + 2 <= from && from <= after.frame + 2;
    reader.faults.must(in_two, "not-in-two-frames");
    reader
        .faults
        .must(second == Err(Refused::Busy) || after.frame >= from, "second-request-was-taken");
    reader.faults.must((after.requested, after.from) == (other, from), "request-not-told");
    loop {
        let page = reader.next_window();
        let expected = if page.frame < from { 1 - other } else { other };
        reader.faults.must(u64::from(page.plan) == expected, "plan-in-the-wrong-frame");
        if page.frame >= from {
            break;
        }
    }
}

/// Yields and sleeps in turn.
pub fn sleep(reader: &mut Reader, rounds: u64) {
    let mut woke = Histogram::new();
    for round in 0..rounds {
        let before = reader.next_window();
        let target = before.frame + SLEEP;
        let yields = round % 2 == 0;
        let answer = if yields { yield_window() } else { sleep_until_frame(target) };
        let now = tsc();
        if !yields {
            reader.skip();
        }
        let after = reader.now();
        reader.faults.must(answer.is_ok(), if yields { "yield-refused" } else { "sleep-refused" });
        reader.faults.must(after.sequence != before.sequence, "went-on-in-the-same-window");
        if yields {
            reader.faults.must(after.window_start == before.next_start, "yield-missed-a-window");
        } else {
            reader.faults.must(after.frame == target, "woke-in-another-frame");
        }
        woke.record(now.saturating_sub(after.window_start));
    }
    print!("{}", woke.report("woke"));
}

/// Gives the rest of each window away, at once or when only `left` ticks of it are left.
pub fn give(reader: &mut Reader, rounds: u64, left: Option<u64>) {
    for _ in 0..rounds {
        let before = reader.next_window();
        let at = left.map_or(0, |left| before.window_end.saturating_sub(left));
        while tsc() < at {}
        let answer = donate_window();
        let after = reader.now();
        reader.faults.must(answer.is_ok(), "donation-refused");
        reader.faults.must(after.window_start == before.next_start, "donor-missed-a-window");
    }
}

/// Counts windows that were given, and the time in them.
pub fn take(reader: &mut Reader, rounds: u64) {
    let (mut given, mut ticks) = (0, 0);
    while given < rounds {
        let page = reader.next_window();
        if page.donated != 0 {
            given += 1;
            ticks += page.window_end.saturating_sub(tsc());
        }
    }
    report_value!("windows-given", given, "windows");
    report_value!("ticks-given", ticks, "ticks");
}
