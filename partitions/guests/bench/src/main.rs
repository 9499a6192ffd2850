//! Measures what each kind of exit costs as a guest sees it, and how long an interrupt takes to its handler.
//!
//! Each operation is run many times and reported as a histogram under its name, the pair of clock readings around it included;
//! `rdtsc-pair` is that pair alone. Arguments: `runs=1000`; `partner=ID`, the APIC id of a second core of the partition, which spins and
//! takes interrupts; `only=all|floor|memory`, where `floor` measures the least that an exit can cost, under a hypervisor that is built
//! for that. `memory` touches memory that nobody gave the guest, at an instant that it tells beforehand: the hypervisor stops it, and tells
//! when it decided to.
#![no_std]
#![no_main]

mod operations;

use guest_rt::gap::{Gap, LOOP, next_gap};
use guest_rt::{Guest, Histogram, Page, Verdict, print, report_value, round_trip, tsc};

use operations::{Operation, partner};

guest_rt::entry!(main);

/// Most pairs of instructions that pass between two runs.
const MOST_TURNS: u32 = 64;

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["runs", "partner", "only"]);
    let runs = guest.number("runs", 1000);
    let partner = guest.argument("partner").map(|_| guest.number("partner", 0) as u32);
    if let Some(id) = partner
        && !partner::start(id, guest.tsc_khz())
    {
        return Verdict::fail("the second core did not start");
    }
    let schedule = Page::find();
    let mut dice = Dice(0x2545_F491);
    let list = match guest.choice("only", &["all", "floor", "memory"]) {
        "memory" => return touch(schedule.as_ref()),
        "floor" => operations::FLOOR,
        _ => operations::ALL,
    };
    for operation in list.iter().filter(|it| it.is_possible(guest.machine(), partner.is_some())) {
        match measure(operation, runs, schedule.as_ref(), &mut dice) {
            Some(costs) => print!("{}", costs.report(operation.name)),
            None => return Verdict::fail("an interrupt did not come"),
        }
    }
    if let Some(page) = &schedule {
        let (ends, early) = window_ends(runs, page, &mut dice);
        print!("{}", ends.report("window-end"));
        report_value!("windows-ended-early", early, "windows");
    }
    Verdict::pass("everything was measured")
}

/// Where no guest of the bench has memory: its own ends far below, and the identity map of guest-rt far above.
const NOBODYS: u64 = 2 << 30;
/// Frames that the guest has to tell when it will touch that, and ticks where there are none.
const FRAMES_AHEAD: u64 = 20;
const TICKS_AHEAD: u64 = 20_000_000;

/// Touches memory that is not the guest's, in the middle of a window.
fn touch(schedule: Option<&Page>) -> Verdict {
    let at = schedule.map_or_else(
        || tsc() + TICKS_AHEAD,
        |page| {
            let now = page.read();
            let middle = now.window_start.midpoint(now.window_end);
            middle + FRAMES_AHEAD * now.frame_length
        },
    );
    report_value!("touches-at", at, "tsc");
    round_trip::touch_at(NOBODYS, at);
    Verdict::fail("nobody stopped it")
}

/// How far behind the declared end of a window its last instruction is; and how many windows ended before that.
///
/// Where in the waiting loop a window ends is left to the dice: else the ticks of the boot would decide it, and so the table's digest.
fn window_ends(runs: u64, page: &Page, dice: &mut Dice) -> (Histogram, u64) {
    let (mut ends, mut early) = (Histogram::new(), 0);
    for _ in 0..runs {
        round_trip::stagger(dice.roll(MOST_TURNS));
        let told = page.read();
        let end = told.window_end;
        // A quarter of the time until its next window, which may be in the same frame: an interrupt of the guest's own is much shorter.
        let others = told.next_start.min(told.window_start + told.frame_length).saturating_sub(end);
        let away = u32::try_from(others / 4).unwrap_or(u32::MAX);
        let Gap { last, .. } = next_gap(away);
        // The last reading is the loop older than the last instruction.
        early += u64::from(last + LOOP < end);
        ends.record(last.saturating_sub(end));
    }
    (ends, early)
}

/// `None` when an interrupt did not come.
fn measure(
    operation: &Operation,
    runs: u64,
    schedule: Option<&Page>,
    dice: &mut Dice,
) -> Option<Histogram> {
    let mut costs = Histogram::new();
    operation.prepare();
    for _ in 0..runs {
        let ticks = loop {
            round_trip::stagger(dice.roll(MOST_TURNS));
            let before = window(schedule);
            let ticks = (operation.measure)()?;
            // What the end of a window cut says when the next one came, not what an exit costs.
            if window(schedule) == before {
                break ticks;
            }
        };
        costs.record(ticks);
    }
    Some(costs)
}

/// What tells the running window from others; nothing on a core without windows.
fn window(schedule: Option<&Page>) -> u64 {
    schedule.map_or(0, |page| page.read().sequence)
}

/// Pseudo-random numbers, the same in each run (xorshift, Marsaglia 2003): where a measurement begins in the step of an emulated
/// clock must depend on nothing else.
struct Dice(u32);

impl Dice {
    /// A number from 1 to `most`.
    const fn roll(&mut self, most: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % most + 1
    }
}
