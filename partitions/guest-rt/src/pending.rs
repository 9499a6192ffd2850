//! Interrupts that are left behind: raised with interrupts off, or taken and never ended; and whether any comes. For guests that test what a
//! reset of the CPU or of the whole guest leaves; feature `hostile`.
#![expect(unsafe_code, reason = "loads tables of gates and lets every vector in")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use crate::apic::{EOI, SELF_IPI, SPURIOUS, SPURIOUS_APIC_ENABLED, TASK_PRIORITY};
use crate::interrupts::{Gates, load_gates, load_own_gates, with_interrupts_to};
use crate::machine::write_msr;

global_asm!(
    ".section .text.pending, \"ax\"",
    // Counts and ends the interrupt.
    ".balign 16",
    "guest_count_stub:",
    "push rax",
    "push rcx",
    "push rdx",
    "lock inc qword ptr [rip + {came}]",
    "mov ecx, {eoi}",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",
    // Leaves it in service.
    ".balign 16",
    "guest_keep_stub:",
    "iretq",
    came = sym CAME,
    eoi = const EOI,
);

unsafe extern "C" {
    static guest_count_stub: u8;
    static guest_keep_stub: u8;
}

/// Interrupts that came and were ended, on all CPUs.
static CAME: AtomicU64 = AtomicU64::new(0);

static COUNTING: Once<Gates> = Once::new();
static KEEPING: Once<Gates> = Once::new();

/// The vectors that a local APIC delivers. SDM 3A 11.5.2.
const VECTORS: core::ops::RangeInclusive<u8> = 16..=255;
/// The highest of the vectors that exceptions have too.
const LAST_OF_EXCEPTIONS: u8 = 31;
/// A vector that is an exception's with an error code, and that the APIC itself refuses to deliver but as the spurious one.
const PROTECTION: u64 = 13;

/// How what is left behind is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// Not at all.
    No,
    /// The APIC is switched off, and has an exception's vector for spurious interrupts.
    SwitchedOff,
    /// The task priority holds everything back.
    ByPriority,
    /// Behind two interrupts in service, of which one has an exception's vector.
    InService,
}

impl Hidden {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::No, Self::SwitchedOff, Self::ByPriority, Self::InService];
}

fn write(register: u32, value: u64) {
    // SAFETY: interrupts are off on this CPU, or led to a stub that takes any.
    unsafe { write_msr(register, value) };
}

fn raise(vector: u8) {
    write(SELF_IPI, u64::from(vector));
}

/// Leaves every vector pending on this CPU, whose interrupts are off.
pub fn leave(hidden: Hidden) {
    if hidden == Hidden::InService {
        load_gates(KEEPING.call_once(|| with_interrupts_to(&raw const guest_keep_stub as u64)));
        for vector in [LAST_OF_EXCEPTIONS, *VECTORS.end()] {
            raise(vector);
            let_in();
        }
        load_own_gates();
    }
    VECTORS.for_each(raise);
    match hidden {
        Hidden::No | Hidden::InService => {}
        Hidden::SwitchedOff => write(SPURIOUS, PROTECTION),
        Hidden::ByPriority => write(TASK_PRIORITY, 0xFF),
    }
}

/// Interrupts that are pending on this CPU, whose interrupts are off: takes and ends them.
#[must_use]
pub fn count() -> u64 {
    let before = CAME.load(Ordering::Relaxed);
    load_gates(COUNTING.call_once(|| with_interrupts_to(&raw const guest_count_stub as u64)));
    for _ in VECTORS {
        let_in();
    }
    load_own_gates();
    CAME.load(Ordering::Relaxed) - before
}

/// Switches this CPU's APIC on, as the start-up code of an operating system does.
pub fn switch_on() {
    write(SPURIOUS, SPURIOUS_APIC_ENABLED | u64::from(*VECTORS.end()));
    write(TASK_PRIORITY, 0);
}

/// Lets interrupts in for an instruction. SDM 3A 7.8.1: the one behind STI still runs without.
fn let_in() {
    // SAFETY: every vector that the APIC delivers leads to a stub that keeps all registers.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}
