//! Tries every rule of the local APIC in x2APIC mode and reports what it saw.
//!
//! Each case gives one number and knows the one that the manual (SDM 3A chapter 11) demands. The report has a line `value NAME SEEN`
//! for each, and behind it `value NAME:manual N` where the two differ. So the bare machine and the hypervisor can be held against each
//! other, and both against the manual.
//!
//! Arguments:
//! - `other=ID`, the APIC id of a second CPU: then what goes between CPUs is tried too.
//! - `current-count=read|unread`: an emulator that counts instructions (QEMU) ends when the machine's own current count is read.
//!
//! What needs the TSC-deadline mode is tried where CPUID offers it.
//!
//! The verdict says only that all cases were tried; to compare is the judge's.
#![no_std]
#![no_main]

mod access;
mod interrupts;
mod others;
mod registers;
mod timer;

use guest_rt::{Guest, Verdict, cpuid, report_value};

guest_rt::entry!(main);

/// One rule: its name, what is seen, what the manual demands.
pub struct Case {
    name: &'static str,
    seen: fn() -> u64,
    manual: u64,
    needs: Needs,
}

/// What a case looks at that is not everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing such.
    Nothing,
    /// The timer's current count.
    CurrentCount,
    /// The timer's TSC-deadline mode.
    Deadline,
    /// Both.
    Both,
}

/// A case of a table.
pub const fn case(name: &'static str, seen: fn() -> u64, manual: u64) -> Case {
    Case { name, seen, manual, needs: Needs::Nothing }
}

impl Case {
    /// The same case, which is tried where this is there.
    const fn with(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }
}

/// Bit of CPUID.1:ECX.
const HAS_DEADLINE: u32 = 1 << 24;

/// Whether a case with such needs can be tried.
fn is_there(needs: Needs, current_count: bool) -> bool {
    let deadline = cpuid(1, 0).ecx & HAS_DEADLINE != 0;
    match needs {
        Needs::Nothing => true,
        Needs::CurrentCount => current_count,
        Needs::Deadline => deadline,
        Needs::Both => current_count && deadline,
    }
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["other", "current-count"]);
    let current_count = guest.choice("current-count", &["read", "unread"]) == "read";
    let other = guest.argument("other").map(|_| guest.number("other", 0));
    // Nobody's id, where there is no other CPU.
    others::set_up(other.unwrap_or(u64::MAX), other.map_or(0, |_| guest.tsc_khz()));
    interrupts::set_up();
    registers::report_refusals();
    let between = if other.is_some() { others::CASES } else { &[] };
    let mut tried = 0;
    let cases = [registers::CASES, interrupts::CASES, timer::CASES, between].into_iter().flatten();
    for case in cases.filter(|case| is_there(case.needs, current_count)) {
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
