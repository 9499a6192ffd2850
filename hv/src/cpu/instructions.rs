//! Instructions of the machine that the run loop and both back ends share.
#![expect(unsafe_code, reason = "RDTSC, MSR writes and DR6 have no safe form")]

use core::arch::asm;

use x86_64::registers::model_specific::Msr;

/// The time-stamp counter of this core.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC only reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits in root mode until the TSC reaches `instant`, and returns what it reads then. Ends: the TSC is invariant, which the board check
/// saw to.
#[inline(always)]
pub fn wait_until(instant: u64) -> u64 {
    loop {
        let now = tsc();
        if now >= instant {
            return now;
        }
        core::hint::spin_loop();
    }
}

const X2APIC_ICR: u32 = 0x830;

/// Writes an MSR on a guest's behalf; `hv_core::msr` checked number and value.
#[inline(always)]
pub fn write_checked_msr(number: u32, value: u64) {
    // SAFETY: the policy passes only x2APIC registers of this core, with destinations that stay in the partition, delivery modes
    // that a guest can take, and values without reserved bits.
    unsafe { Msr::new(number).write(value) };
}

/// Ends the interrupt that the exit acknowledged. SDM 3A 11.8.5.
pub fn end_of_interrupt() {
    const X2APIC_EOI: u32 = 0x80B;
    // SAFETY: the local APIC is in x2APIC mode since boot; EOI takes 0.
    unsafe { Msr::new(X2APIC_EOI).write(0) };
}

/// Sends fixed interrupt `vector` to the core with this APIC id.
pub fn send_fixed(apic_id: u32, vector: u8) {
    crate::cpu::apic::fence();
    write_checked_msr(X2APIC_ICR, hv_core::msr::fixed_command(apic_id, vector));
}

/// Sends an NMI to the core with this APIC id: the kick of a dedicated core. SDM 3A 11.12.9.
pub fn send_nmi(apic_id: u32) {
    const NMI_ASSERTED: u64 = (0b100 << 8) | (1 << 14);
    // The flag that the kick announces must be visible before it: the write below orders nothing. SDM 3A 11.12.3.
    crate::cpu::apic::fence();
    // SAFETY: the target is a core of the table, whose NMI handler and NMI exit are ours.
    unsafe { Msr::new(X2APIC_ICR).write(u64::from(apic_id) << 32 | NMI_ASSERTED) };
}

/// Adds the causes of an intercepted debug exception to DR6, which the exit left alone. SDM 3C 28.2.1, table 28-1.
pub fn raise_debug_status(causes: u64) {
    const CAUSES: u64 = 0xF | (1 << 13) | (1 << 14);
    // SAFETY: DR6 is the guest's while it runs; the bits are those that the processor would have set.
    unsafe {
        let mut dr6: u64;
        asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack));
        dr6 |= causes & CAUSES;
        asm!("mov dr6, {}", in(reg) dr6, options(nomem, nostack));
    }
}

/// Stops this core for good: interrupts off, and back to sleep after each NMI.
pub fn halt_for_ever() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Writes a byte to an I/O port of the hypervisor's own.
pub fn write_port(port: u16, byte: u8) {
    // SAFETY: only called for the power-off port that the board file declares.
    unsafe { x86_64::instructions::port::Port::new(port).write(byte) };
}
