//! Shows that the exit counter counts.
//!
//! Argument: `count=1000`, the CPUIDs in the measured span: on a dedicated core exactly so many exits must
//! be counted.
#![no_std]
#![no_main]

use guest_rt::{Guest, Machine, Verdict, cpuid, report_value, span_begin, span_end};

guest_rt::entry!(main);

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["count"]);
    let count = guest.number("count", 1000);
    span_begin();
    for _ in 0..count {
        core::hint::black_box(cpuid(0, 0));
    }
    let counted = span_end();
    match counted {
        Some(exits) => {
            report_value!("span-exits", exits, "exits");
            judge(guest.machine(), exits, count)
        }
        None if guest.machine() == Machine::Native => Verdict::pass("natively there are no exits"),
        None => Verdict::fail("the hypervisor counted no span"),
    }
}

fn judge(machine: Machine, exits: u64, expected: u64) -> Verdict {
    match machine {
        Machine::Shared if exits >= expected => {
            Verdict::pass("every CPUID was counted, besides the window's own exits")
        }
        _ if exits == expected => Verdict::pass("the counter counted each CPUID and nothing else"),
        _ => Verdict::fail("the counter is wrong"),
    }
}
