//! The local APIC in x2APIC mode, by its MSRs.
#![expect(unsafe_code, reason = "writes APIC registers")]

use crate::guest::under_hypervisor;
use crate::interrupts::check_free;
use crate::machine::{cpuid, port_out, read_msr, write_msr};
use crate::timer;

/// IA32_APIC_BASE.
pub const APIC_BASE: u32 = 0x1B;
const APIC_ENABLE: u64 = 1 << 11;
const APIC_X2APIC: u64 = 1 << 10;
const ID: u32 = 0x802;
pub(crate) const TASK_PRIORITY: u32 = 0x808;
pub(crate) const EOI: u32 = 0x80B;
pub(crate) const SPURIOUS: u32 = 0x80F;
/// The interrupt command register; [`command`] makes its values.
pub const COMMAND: u32 = 0x830;
pub(crate) const LVT_TIMER: u32 = 0x832;
const LVT_LINT0: u32 = 0x835;
const LVT_LINT1: u32 = 0x836;
/// The entry of the local vector table for errors.
pub const LVT_ERROR: u32 = 0x837;
pub(crate) const SELF_IPI: u32 = 0x83F;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6E0;

/// In an entry of the local vector table: nothing comes from it.
pub const LVT_MASKED: u64 = 1 << 16;
pub(crate) const SPURIOUS_APIC_ENABLED: u64 = 1 << 8;

/// The vector of spurious interrupts; needs no end of interrupt.
pub(crate) const SPURIOUS_VECTOR: u8 = 0xFF;

/// Brings the APIC into a known state: x2APIC mode, every local source masked, no priority threshold.
/// Returns what the machine lacks, if it lacks something.
pub(crate) fn set_up() -> Result<(), &'static str> {
    let features = cpuid(1, 0).ecx;
    if features & 1 << 21 == 0 {
        return Err(
            "this CPU has no x2APIC mode (CPUID.1:ECX[21]); choose a CPU model that has it",
        );
    }
    if !under_hypervisor() {
        mask_legacy_controllers();
    }
    enter_x2apic();
    for entry in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        // SAFETY: masking a source of interrupts is harmless.
        unsafe { write_msr(entry, LVT_MASKED) };
    }
    // SAFETY: every vector has a handler.
    unsafe {
        write_msr(TASK_PRIORITY, 0);
        write_msr(SPURIOUS, SPURIOUS_APIC_ENABLED | u64::from(SPURIOUS_VECTOR));
    }
    timer::set_up()
}

/// Brings the APIC into x2APIC mode, where a partition's is from the start.
pub(crate) fn enter_x2apic() {
    if under_hypervisor() {
        return;
    }
    let base = read_msr(APIC_BASE);
    // SAFETY: the APIC's mode touches no memory. Enabling comes first: off to x2APIC is not
    // a legal transition (SDM 3A, 12.12.5).
    unsafe {
        write_msr(APIC_BASE, base | APIC_ENABLE);
        write_msr(APIC_BASE, base | APIC_ENABLE | APIC_X2APIC);
    }
}

/// Masks the two legacy interrupt controllers, whose vectors would collide with exceptions.
pub(crate) fn mask_legacy_controllers() {
    port_out(0x21, 0xFF);
    port_out(0xA1, 0xFF);
}

/// This CPU's APIC id.
#[must_use]
pub fn apic_id() -> u32 {
    read_msr(ID) as u32
}

/// Ends the interrupt in service.
pub(crate) fn end_of_interrupt() {
    // SAFETY: affects only which interrupt is delivered next.
    unsafe { write_msr(EOI, 0) };
}

/// What an inter-processor interrupt does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpiKind {
    /// An ordinary interrupt with this vector.
    Fixed(u8),
    /// System-management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// Resets the target.
    Init,
    /// Starts the target at this 4 KiB page, after INIT.
    Startup(u8),
}

/// Sends an inter-processor interrupt to the CPU with this APIC id. The hypervisor refuses, by an exception or in
/// silence, what is not the partition's own.
///
/// # Panics
/// When a fixed one has a vector that [`on_interrupt`](crate::on_interrupt) does not take.
pub fn send_ipi(target: u32, kind: IpiKind) {
    if let IpiKind::Fixed(vector) = kind {
        check_free(vector);
    }
    // SAFETY: another CPU that takes it runs its own handler; this one's memory is not at stake.
    unsafe { write_msr(COMMAND, command(target, kind)) };
}

/// Raises `vector` on this CPU.
///
/// # Panics
/// When [`on_interrupt`](crate::on_interrupt) does not take the vector.
pub fn send_self_ipi(vector: u8) {
    check_free(vector);
    // SAFETY: every vector has a handler.
    unsafe { write_msr(SELF_IPI, u64::from(vector)) };
}

/// The interrupt command register's value for a physical destination.
#[must_use]
pub const fn command(target: u32, kind: IpiKind) -> u64 {
    let (mode, vector) = match kind {
        IpiKind::Fixed(vector) => (0, vector),
        IpiKind::Smi => (2, 0),
        IpiKind::Nmi => (4, 0),
        IpiKind::Init => (5, 0),
        IpiKind::Startup(page) => (6, page),
    };
    (target as u64) << 32 | 1 << 14 | mode << 8 | vector as u64
}
