//! Registers at rest: who may read and write them, what they hold, what they refuse.

use guest_rt::registers::{read_cr8, write_cr8};
use guest_rt::{apic_id, cpuid};

use crate::access::{
    CURRENT_COUNT, DIVIDE, ENABLED, EOI, ESR, ICR, ID, INITIAL_COUNT, IRR, ISR, LDR, LVT_ERROR,
    LVT_LINT0, LVT_LINT1, LVT_PERFORMANCE, LVT_THERMAL, LVT_TIMER, MASKED, PPR, SELF_IPI, SVR,
    SVR_START, TMR, TPR, VERSION, read, try_read, write, write_and_read,
};
use crate::{Case, case, report};

/// #GP, by which x2APIC mode answers every access that is not allowed. SDM 3A 11.12.1.3.
const REFUSED: u64 = 13;

/// Not there, or not to be read. SDM 3A table 11-6.
const NOT_READABLE: [u32; 12] =
    [0x800, 0x801, 0x804, 0x807, EOI, 0x80C, 0x80E, 0x829, 0x831, 0x83A, SELF_IPI, 0x840];
/// Not there, or not to be written.
const NOT_WRITABLE: [u32; 15] = [
    0x800,
    ID,
    VERSION,
    0x804,
    0x809,
    PPR,
    0x80C,
    LDR,
    0x80E,
    ISR,
    TMR,
    IRR,
    0x831,
    CURRENT_COUNT,
    0x840,
];
/// Values with a bit that is reserved in their register.
const RESERVED: [(u32, u64); 20] = [
    (TPR, 0x100),
    (TPR, 1 << 32),
    (EOI, 1),
    (SVR, 0x2000 | SVR_START),
    (ESR, 1),
    (ICR, 1 << 13),
    (ICR, 1 << 16),
    (ICR, 1 << 20),
    (LVT_TIMER, MASKED | 1 << 8),
    (LVT_TIMER, MASKED | 3 << 17),
    (LVT_TIMER, MASKED | 1 << 20),
    (LVT_THERMAL, MASKED | 1 << 13),
    (LVT_PERFORMANCE, MASKED | 1 << 15),
    (LVT_LINT0, MASKED | 1 << 17),
    (LVT_LINT1, MASKED | 1 << 32),
    (LVT_ERROR, MASKED | 1 << 8),
    (INITIAL_COUNT, 1 << 32),
    (DIVIDE, 0b100),
    (DIVIDE, 0b1_0000),
    (SELF_IPI, 0x100),
];

/// Reports how each access was answered that must be refused.
pub fn report_refusals() {
    for register in NOT_READABLE {
        report(format_args!("read-{register:#x}"), try_read(register), REFUSED);
    }
    for register in NOT_WRITABLE {
        report(format_args!("write-{register:#x}"), write(register, 0), REFUSED);
    }
    for (register, value) in RESERVED {
        let seen = write(register, value);
        report(format_args!("reserved-{register:#x}-{value:#x}"), seen, REFUSED);
    }
}

/// The rules.
pub const CASES: &[Case] = &[
    case("id-is-that-of-cpuid", id_is_that_of_cpuid, 1),
    case("version-is-integrated", || u64::from((0x10..0x16).contains(&(read(VERSION) & 0xFF))), 1),
    case("highest-entry", || read(VERSION) >> 16 & 0xFF, 5),
    case("logical-id-follows-the-id", logical_id, 1),
    case("nothing-in-service", || all(ISR), 0),
    case("nothing-requested", || all(IRR), 0),
    case("nothing-level-triggered", || all(TMR), 0),
    case("priority-is-kept", || write_and_read(TPR, 0x5A), 0x5A),
    case("cr8-shows-the-priority", cr8_shows, 5),
    case("cr8-sets-the-priority", cr8_sets, 0x90),
    case("cr8-refuses-16", || u64::from(write_cr8(16).err().map_or(0, |it| it.vector)), REFUSED),
    case("processor-priority-is-that-of-the-task", processor_priority, 0x35),
    case("spurious-is-kept", || write_and_read(SVR, ENABLED | 0x3C), ENABLED | 0x3C),
    case("divide-is-kept", || write_and_read(DIVIDE, 0b1010), 0b1010),
    case("timer-entry-is-kept", || write_and_read(LVT_TIMER, MASKED | 1 << 17 | 0x61), 0x3_0061),
    case(
        "timer-entry-status-is-read-only",
        || write_and_read(LVT_TIMER, MASKED | 0x1061),
        0x1_0061,
    ),
    case("thermal-entry-is-kept", || write_and_read(LVT_THERMAL, MASKED | 0x61), 0x1_0061),
    case(
        "performance-entry-takes-nmi",
        || write_and_read(LVT_PERFORMANCE, MASKED | 0x400),
        0x1_0400,
    ),
    case("lint0-entry-is-kept", || write_and_read(LVT_LINT0, MASKED | 0xA061), 0x1_A061),
    case("lint0-entry-takes-extint", || write_and_read(LVT_LINT0, MASKED | 0x700), 0x1_0700),
    case("lint1-entry-takes-nmi", || write_and_read(LVT_LINT1, MASKED | 0x400), 0x1_0400),
    case("error-entry-is-kept", || write_and_read(LVT_ERROR, MASKED | 0x71), 0x1_0071),
    case("switched-off-masks", switched_off_masks, 0x1_0061),
    case("switched-off-stays-masked", switched_off_stays_masked, 0x1_0061),
    case("switched-on-again-stays-masked", switched_on_again, 0x1_0061),
];

fn id_is_that_of_cpuid() -> u64 {
    let from_topology = cpuid(0xB, 0).edx;
    u64::from(read(ID) == u64::from(apic_id()) && from_topology == apic_id())
}

/// SDM 3A 11.12.10.2.
fn logical_id() -> u64 {
    let id = u64::from(apic_id());
    u64::from(read(LDR) == id >> 4 << 16 | 1 << (id & 15))
}

fn all(first: u32) -> u64 {
    (0..8).fold(0, |all, word| all | read(first + word))
}

fn cr8_shows() -> u64 {
    write(TPR, 0x5A);
    read_cr8()
}

fn cr8_sets() -> u64 {
    match write_cr8(9) {
        Ok(()) => read(TPR),
        Err(fault) => u64::from(fault.vector),
    }
}

fn processor_priority() -> u64 {
    write(TPR, 0x35);
    read(PPR)
}

fn switched_off_masks() -> u64 {
    write(LVT_ERROR, 0x61);
    write(SVR, 0xFF);
    read(LVT_ERROR)
}

fn switched_off_stays_masked() -> u64 {
    write(SVR, 0xFF);
    write_and_read(LVT_ERROR, 0x61)
}

fn switched_on_again() -> u64 {
    write(LVT_ERROR, 0x61);
    write(SVR, 0xFF);
    write(SVR, SVR_START);
    read(LVT_ERROR)
}
