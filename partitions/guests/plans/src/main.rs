//! Knows its time: reads its schedule page, asks for plans, yields, sleeps, and gives its time away.
//!
//! Arguments: `role=watch|ask|sleep|give|take`, `rounds=20`, `left=30us` (only `give`).
//!
//! - `watch` notes the frame of each change of plan that it sees, until there were `rounds` of them. Those on several cores must
//!   note the same frames.
//! - `ask` asks for the other plan and back, `rounds` times, and sees each request's fate.
//! - `sleep` yields and sleeps in turn, and measures when it wakes.
//! - `give` gives the rest of each window away: at once, or when only `left` of it is left. `take` counts the windows that it was
//!   given.
//!
//! Every role holds each page that it reads against the arithmetic, and against what the page before it foretold.
#![no_std]
#![no_main]

mod page;
mod roles;

use guest_rt::{Guest, Page, Verdict, print, println};

use page::Reader;

guest_rt::entry!(main);

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["role", "rounds", "left"]);
    let role = guest.choice("role", &["watch", "ask", "sleep", "give", "take"]);
    let rounds = guest.number("rounds", 20);
    let left = guest.argument("left").map(|_| guest.ticks("left", "0us"));
    let Some(page) = Page::find() else {
        println!(
            "plans: no schedule page here; give the partition a [[partition.NAME.window]] in the system file"
        );
        return Verdict::fail("not on a time-shared core");
    };
    let mut reader = Reader::new(page);
    match role {
        "ask" => roles::ask(&mut reader, rounds),
        "sleep" => roles::sleep(&mut reader, rounds),
        "give" => roles::give(&mut reader, rounds, left),
        "take" => roles::take(&mut reader, rounds),
        _ => roles::watch(&mut reader, rounds),
    }
    print!("{}", reader.faults.report("faults"));
    match reader.faults.sum() {
        0 => Verdict::pass("time was as the page said"),
        _ => Verdict::fail("time was not as the page said"),
    }
}
