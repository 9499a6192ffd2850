//! Registers by name, and how an access was answered.

use guest_rt::hostile;
use guest_rt::registers::write_cr8;

pub const ID: u32 = 0x802;
pub const VERSION: u32 = 0x803;
pub const TPR: u32 = 0x808;
pub const PPR: u32 = 0x80A;
pub const EOI: u32 = 0x80B;
pub const LDR: u32 = 0x80D;
pub const SVR: u32 = 0x80F;
pub const ISR: u32 = 0x810;
pub const TMR: u32 = 0x818;
pub const IRR: u32 = 0x820;
pub const ESR: u32 = 0x828;
pub const ICR: u32 = 0x830;
pub const LVT_TIMER: u32 = 0x832;
pub const LVT_THERMAL: u32 = 0x833;
pub const LVT_PERFORMANCE: u32 = 0x834;
pub const LVT_LINT0: u32 = 0x835;
pub const LVT_LINT1: u32 = 0x836;
pub const LVT_ERROR: u32 = 0x837;
pub const INITIAL_COUNT: u32 = 0x838;
pub const CURRENT_COUNT: u32 = 0x839;
pub const DIVIDE: u32 = 0x83E;
pub const SELF_IPI: u32 = 0x83F;
pub const TSC_DEADLINE: u32 = 0x6E0;

pub const MASKED: u64 = 1 << 16;
pub const ENABLED: u64 = 1 << 8;
/// Spurious-interrupt register as guest-rt sets it.
pub const SVR_START: u64 = ENABLED | 0xFF;

/// What an access was answered by: 0 for nothing, else the vector of the exception.
pub type Answer = u64;

/// Writes a register.
pub fn write(register: u32, value: u64) -> Answer {
    hostile::write_msr(register, value).map_or_else(|fault| u64::from(fault.vector), |()| 0)
}

/// Reads a register of which only the answer counts.
pub fn try_read(register: u32) -> Answer {
    hostile::read_msr(register).map_or_else(|fault| u64::from(fault.vector), |_| 0)
}

/// Reads a register; all ones where that is refused, which no register holds.
pub fn read(register: u32) -> u64 {
    hostile::read_msr(register).unwrap_or(u64::MAX)
}

/// Writes a register and reads it back.
pub fn write_and_read(register: u32, value: u64) -> u64 {
    match write(register, value) {
        0 => read(register),
        _ => u64::MAX,
    }
}

/// Brings the APIC back to where each case starts: enabled, every entry masked, no timer, no priority, no error.
pub fn restore() {
    write(SVR, SVR_START);
    for entry in [LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(entry, MASKED);
    }
    write(INITIAL_COUNT, 0);
    write(DIVIDE, DIVIDE_BY_1);
    write(TPR, 0);
    // Refused nowhere; the register is the same as the one before.
    let _ = write_cr8(0);
    // The first write moves what is pending into the register, the second clears that.
    write(ESR, 0);
    write(ESR, 0);
    crate::interrupts::forget();
}

/// The timer counts every tick of its clock.
pub const DIVIDE_BY_1: u64 = 0b1011;
