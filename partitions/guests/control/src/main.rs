//! Shows that the exit counter counts, and measures what an exit costs.
//!
//! Argument: `count=1000`, the CPUIDs in the measured span: on a dedicated core exactly so many exits must
//! be counted.
#![no_std]
#![no_main]

use guest_rt::hostile;
use guest_rt::{Guest, Machine, Verdict, cpuid, report_value, round_trip, span_begin, span_end};

guest_rt::entry!(main);

/// How often each instruction is measured.
const RUNS: u64 = 1000;
/// A leaf that no CPU and no hypervisor of today defines.
const UNKNOWN_LEAF: u32 = 0x4FFF_0000;
/// A call number that the hypervisor does not define.
const UNKNOWN_CALL: u32 = 0x7FFF_FFFF;
/// An MSR whose reading the hypervisor answers itself.
const APIC_BASE: u32 = 0x1B;
/// An MSR that no guest may read: IA32_SMM_MONITOR_CTL.
const REFUSED_MSR: u32 = 0x9B;

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["count"]);
    let count = guest.number("count", 1000);
    measure_round_trips(guest.machine() != Machine::Native);
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
        None if guest.machine() == Machine::Native => {
            Verdict::pass("measured natively; there are no exits")
        }
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

fn measure_round_trips(under_hypervisor: bool) {
    report("rdtsc-pair", round_trip::nothing);
    report("cpuid-leaf-0", || round_trip::cpuid(0));
    report("cpuid-leaf-1", || round_trip::cpuid(1));
    report("cpuid-leaf-7", || round_trip::cpuid(7));
    report("cpuid-leaf-0xd", || round_trip::cpuid(0xD));
    report("cpuid-leaf-unknown", || round_trip::cpuid(UNKNOWN_LEAF));
    report("rdmsr-emulated", || round_trip::read_msr(APIC_BASE));
    report("port-in", round_trip::port_in);
    if under_hypervisor {
        report("vmcall-unknown", || round_trip::vmcall(UNKNOWN_CALL));
    }
    if hostile::read_msr(REFUSED_MSR).is_err() {
        report("rdmsr-refused", || round_trip::refused_msr(REFUSED_MSR));
    }
}

/// Reports the least of many runs as NAME, the most as NAME-max and their mean, rounded, as NAME-mean. The mean is
/// what to compare where the clock moves in steps (Bochs with several CPUs: 5 ticks): the runs begin at every place of
/// a step in turn.
fn report(name: &str, measure: impl Fn() -> u64) {
    let (mut least, mut most, mut sum) = (u64::MAX, 0, 0);
    for run in 0..RUNS {
        for step in 0..run % 5 {
            core::hint::black_box(step);
        }
        let ticks = measure();
        least = least.min(ticks);
        most = most.max(ticks);
        sum += ticks;
    }
    report_value!(name, least, "ticks");
    report_value!(format_args!("{name}-max"), most, "ticks");
    report_value!(format_args!("{name}-mean"), (sum + RUNS / 2) / RUNS, "ticks");
}
