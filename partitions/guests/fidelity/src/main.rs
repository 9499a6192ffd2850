//! Fills every register, flag, MSR and vector lane at random, runs with them across preemptions, and finds them again.
//!
//! Several of it share a core in short windows, each with patterns of its own: what a switch forgets shows as another's value. Each
//! round lasts a random time, so that preemptions fall on every instruction of it.
//!
//! Arguments: `preemptions=10000` (how many a round's loop must have met), `seed=1` (of the patterns), `rounds=1000` (on the bare
//! machine, where nothing preempts), `nmi=0` (with 1, a round sends NMIs too, one of them while another's handler runs).
#![no_std]
#![no_main]

mod nmi;
mod random;
mod registers;
mod round;
mod vectors;

use guest_rt::{Guest, Machine, Tally, Verdict, Window, print, println, report_value, window};

use random::Random;
use round::{Round, Start};

guest_rt::entry!(main);

/// What the rounds showed.
struct Seen {
    rounds: u64,
    preemptions: u64,
    /// What was not what it should be.
    mismatches: Tally,
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["preemptions", "seed", "rounds", "nmi"]);
    let wanted = guest.number("preemptions", 10_000);
    let rounds = guest.number("rounds", 1_000);
    let sends_nmis = guest.number("nmi", 0) != 0;
    let mut random = Random::new(guest.number("seed", 1));
    let start = match Start::find() {
        Ok(start) => start,
        Err((name, fault)) => {
            println!("fidelity: {name}: {fault:?}, though CPUID offers it");
            return Verdict::fail("a register is refused");
        }
    };
    let schedule = window();
    let mut seen = Seen { rounds: 0, preemptions: 0, mismatches: Tally::new() };
    loop {
        let done = match schedule {
            Some(_) => seen.preemptions >= wanted,
            None => seen.rounds >= rounds,
        };
        if done {
            break;
        }
        let round = Round::run(&start, &mut random, |name| seen.mismatches.note(name));
        if sends_nmis {
            let sent = nmi::check(&mut random, |name| seen.mismatches.note(name));
            if let Err(fault) = sent {
                println!("fidelity: an NMI to itself: {fault:?}");
                return Verdict::fail("an NMI is refused");
            }
        }
        seen.rounds += 1;
        seen.preemptions += schedule.map_or(0, |window| ends_within(&window, &round));
    }
    seen.report();
    seen.judge(guest.machine())
}

/// Ends of the window that lie within the round's loop.
fn ends_within(window: &Window, round: &Round) -> u64 {
    let first_end = window.start_in(0) + window.length;
    let before = |tsc: u64| tsc.saturating_sub(first_end) / window.frame;
    before(round.ended) - before(round.began)
}

impl Seen {
    fn report(&self) {
        report_value!("rounds", self.rounds, "rounds");
        report_value!("preemptions", self.preemptions, "preemptions");
        print!("{}", self.mismatches.report("mismatches"));
    }

    const fn judge(&self, machine: Machine) -> Verdict {
        match (self.mismatches.sum(), machine) {
            (0, Machine::Shared) => Verdict::pass("every register survived every preemption"),
            (0, _) => Verdict::pass("every register kept its value (nothing preempts here)"),
            _ => Verdict::fail("a register was not what it should be"),
        }
    }
}
