//! Tries every rule of the local APIC in x2APIC mode and reports what it saw.
//!
//! Each case gives one number and knows the one that the manual (SDM 3A chapter 11) demands. The report has a line `value NAME SEEN`
//! for each, and behind it `value NAME:manual N` where the two differ. So the bare machine and the hypervisor can be held against each
//! other, and both against the manual.
//!
//! Argument: `other=ID`, the APIC id of a second CPU: then what goes between CPUs is tried too.
//!
//! The verdict says only that all cases were tried; to compare is the judge's.
#![no_std]
#![no_main]

mod access;
mod interrupts;
mod others;
mod registers;
mod timer;

use guest_rt::{Guest, Verdict, report_value};

guest_rt::entry!(main);

/// One rule: its name, what is seen, what the manual demands.
pub struct Case {
    name: &'static str,
    seen: fn() -> u64,
    manual: u64,
}

/// A case of a table.
pub const fn case(name: &'static str, seen: fn() -> u64, manual: u64) -> Case {
    Case { name, seen, manual }
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["other"]);
    let other = guest.argument("other").map(|_| guest.number("other", 0));
    // Nobody's id, where there is no other CPU.
    others::set_up(other.unwrap_or(u64::MAX), other.map_or(0, |_| guest.tsc_khz()));
    interrupts::set_up();
    registers::report_refusals();
    let between = if other.is_some() { others::CASES } else { &[] };
    let mut tried = 0;
    for case in [registers::CASES, interrupts::CASES, timer::CASES, between].into_iter().flatten() {
        access::restore();
        report(case.name, (case.seen)(), case.manual);
        tried += 1;
    }
    access::restore();
    report_value!("cases", tried, "cases");
    Verdict::pass("every case was tried")
}

/// Prints what was seen, and what should have been.
pub fn report(name: impl core::fmt::Display, seen: u64, manual: u64) {
    report_value!(name, seen, "seen");
    if seen != manual {
        report_value!(format_args!("{name}:manual"), manual, "seen");
    }
}
