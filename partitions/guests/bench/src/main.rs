//! Measures what each kind of exit costs as a guest sees it, and how long an interrupt takes to its handler.
//!
//! Each operation is run many times and reported as a histogram under its name, the pair of clock readings around it included;
//! `rdtsc-pair` is that pair alone. Arguments: `runs=1000`; `partner=ID`, the APIC id of a second core of the partition, which spins and
//! takes interrupts; `only=all|floor`, where `floor` measures the least that an exit can cost, under a hypervisor that is built
//! for that.
//!
//! An access to memory that nobody gave the guest is not among the operations: it ends the partition.
#![no_std]
#![no_main]

mod operations;

use guest_rt::{Guest, Histogram, Page, Verdict, print, round_trip};

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
    let floor = guest.choice("only", &["all", "floor"]) == "floor";
    let list = if floor { operations::FLOOR } else { operations::ALL };
    for operation in list.iter().filter(|it| it.is_possible(guest.machine(), partner.is_some())) {
        match measure(operation, runs, schedule.as_ref(), &mut dice) {
            Some(costs) => print!("{}", costs.report(operation.name)),
            None => return Verdict::fail("an interrupt did not come"),
        }
    }
    Verdict::pass("everything was measured")
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
