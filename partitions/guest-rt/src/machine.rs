//! The few instructions that every guest needs: clock, CPUID, MSRs, ports, halting.
#![expect(unsafe_code, reason = "privileged instructions")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};

use x86_64::registers::model_specific::Msr;

/// What a CPUID leaf returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpuid {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Executes CPUID with `leaf` in EAX and `sub` in ECX.
#[must_use]
pub fn cpuid(leaf: u32, sub: u32) -> Cpuid {
    let found = __cpuid_count(leaf, sub);
    Cpuid { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
}

/// Reads the time-stamp counter, in ticks.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC has no side effect.
    unsafe { _rdtsc() }
}

/// Lets interrupts in from here on.
pub fn enable_interrupts() {
    x86_64::instructions::interrupts::enable();
}

/// Holds interrupts off from here on; the state at start.
pub fn disable_interrupts() {
    x86_64::instructions::interrupts::disable();
}

/// Halts until the next interrupt, as the interrupt flag stands: with interrupts off, for ever.
pub fn halt() {
    x86_64::instructions::hlt();
}

/// Enables interrupts, halts until one came, and disables them again. None can slip in between.
pub fn wait_for_interrupt() {
    x86_64::instructions::interrupts::enable_and_hlt();
    disable_interrupts();
}

/// Stops this CPU.
pub fn halt_for_ever() -> ! {
    disable_interrupts();
    loop {
        halt();
    }
}

/// Reads an MSR of which the caller knows that it exists; an exception ends the guest otherwise.
pub(crate) fn read_msr(index: u32) -> u64 {
    // SAFETY: reading changes nothing, and a refused one is an exception that is handled.
    unsafe { Msr::new(index).read() }
}

/// Writes an MSR.
///
/// # Safety
/// The value must not change how memory is accessed or where control flows.
#[inline(always)]
pub(crate) unsafe fn write_msr(index: u32, value: u64) {
    // SAFETY: promised by the caller.
    unsafe { Msr::new(index).write(value) }
}

/// Reads a byte from an I/O port.
pub(crate) fn port_in(port: u16) -> u8 {
    let value;
    // SAFETY: the ports that guest-rt reads belong to devices that touch no memory.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a byte to an I/O port.
pub(crate) fn port_out(port: u16, value: u8) {
    // SAFETY: as for `port_in`.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}
