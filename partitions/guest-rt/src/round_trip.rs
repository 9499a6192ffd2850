//! What one instruction costs, in ticks: the clock is read, the instruction runs, the clock is read again.
//!
//! Between the two readings stand `mov esi, eax` and `mov eax, edi` besides the instruction, in all of them
//! alike; [`nothing`] measures just these.
#![expect(unsafe_code, reason = "measures in assembly")]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::interrupts::RECOVERY;

/// Times instructions that get EAX from EDI and may change RAX to RDX.
macro_rules! timed {
    ($edi:expr, $ecx:expr $(, $instruction:literal)*) => {{
        let ticks: u32;
        // SAFETY: changes registers only, and declares them. RBX cannot be declared, so it is saved.
        unsafe {
            asm!(
                "mov {rbx}, rbx",
                "rdtsc",
                "mov esi, eax",
                "mov eax, edi",
                $($instruction,)*
                "rdtsc",
                "sub eax, esi",
                "mov rbx, {rbx}",
                rbx = out(reg) _,
                in("edi") $edi,
                out("esi") _,
                inout("ecx") $ecx => _,
                out("eax") ticks,
                out("edx") _,
                options(nostack),
            );
        }
        u64::from(ticks)
    }};
}

/// No instruction at all: what the readings themselves cost.
#[must_use]
pub fn nothing() -> u64 {
    timed!(0_u32, 0_u32)
}

/// CPUID of a leaf, sub-leaf 0.
#[must_use]
pub fn cpuid(leaf: u32) -> u64 {
    timed!(leaf, 0_u32, "cpuid")
}

/// VMCALL with this number. Under the hypervisor only.
#[must_use]
pub fn vmcall(number: u32) -> u64 {
    timed!(
        number,
        0_u32,
        "771: vmcall\n.pushsection .hypercall_sites, \"a\"\n.quad 771b\n.popsection"
    )
}

/// RDMSR of a register that the guest may read.
#[must_use]
pub fn read_msr(index: u32) -> u64 {
    timed!(0_u32, index, "rdmsr")
}

/// A byte in from a port below 256; the instruction changes AL only.
#[must_use]
pub fn port_in() -> u64 {
    timed!(0_u32, 0_u32, "in al, 0x80")
}

/// WRMSR of a value below 2^32 to a register that the guest may write.
#[must_use]
pub fn write_msr(index: u32, value: u32) -> u64 {
    timed!(value, index, "xor edx, edx", "wrmsr")
}

/// Times an instruction that is refused, the guest's own exception handler included.
macro_rules! refused {
    ($ecx:expr, $instruction:literal) => {{
        let ticks: u32;
        // SAFETY: the exception handler resumes behind the instruction with every register as it was.
        unsafe {
            asm!(
                "lea {resume}, [rip + 99f]",
                "mov [rip + {recovery}], {resume}",
                "rdtsc",
                "mov esi, eax",
                "mov eax, edi",
                $instruction,
                "99: rdtsc",
                "sub eax, esi",
                "mov qword ptr [rip + {recovery}], 0",
                resume = out(reg) _,
                recovery = sym RECOVERY,
                in("edi") 0_u32,
                out("esi") _,
                inout("ecx") $ecx => _,
                out("eax") ticks,
                out("edx") _,
            );
        }
        u64::from(ticks)
    }};
}

/// RDMSR of a register that is refused, the guest's own exception handler included.
#[must_use]
pub fn refused_msr(index: u32) -> u64 {
    refused!(index, "rdmsr")
}

/// WRMSR to a register that is refused, the guest's own exception handler included.
#[must_use]
pub fn refused_write(index: u32) -> u64 {
    refused!(index, "wrmsr")
}

/// A #GP that the processor itself raises, the guest's own exception handler included: what is left of a refusal without the
/// hypervisor's part.
#[must_use]
pub fn own_exception() -> u64 {
    /// A selector behind the end of any table.
    const NOWHERE: u32 = 0xFFF8;
    refused!(NOWHERE, "mov ds, cx")
}

/// Writes an MSR and returns the TSC as it was six instructions before: for what shows its effect in an interrupt handler.
/// Like the functions of [`crate::hostile`] it is safe in the sense that the machine defines what happens.
#[must_use]
pub fn write_msr_from(index: u32, value: u64) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: changes registers only, and declares them; what the MSR does to the machine is what the caller asks for.
    unsafe {
        asm!(
            "rdtsc",
            "mov esi, eax",
            "mov edi, edx",
            "mov eax, {low:e}",
            "mov edx, {high:e}",
            "wrmsr",
            low = in(reg) value as u32,
            high = in(reg) (value >> 32) as u32,
            in("ecx") index,
            out("esi") low,
            out("edi") high,
            out("eax") _,
            out("edx") _,
            options(nostack),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Notes the lower half of the TSC over and over until `until` is not zero: behind an interrupt that somebody counts there, `last` is at
/// most four instructions older than the one that was interrupted, if the handler looks before this goes on.
pub fn note_until(last: &AtomicU32, until: &AtomicU64) {
    // SAFETY: changes registers and `last`; both words live while it runs.
    unsafe {
        asm!(
            "2: rdtsc",
            "mov [{last}], eax",
            "cmp qword ptr [{until}], 0",
            "je 2b",
            last = in(reg) last.as_ptr(),
            until = in(reg) until.as_ptr(),
            out("eax") _,
            out("edx") _,
            options(nostack),
        );
    }
}

/// Reads a byte at `address` at the instant `at`, which is less than 2^31 ticks ahead: three to five instructions behind it.
pub fn touch_at(address: u64, at: u64) {
    // SAFETY: only reads. Who asks for an address that is not its own asks for what follows.
    unsafe {
        asm!(
            "2: rdtsc",
            "sub eax, {at:e}",
            "js 2b",
            "mov al, [{address}]",
            at = in(reg) at,
            address = in(reg) address,
            out("eax") _,
            out("edx") _,
            options(nostack, readonly),
        );
    }
}

/// Lets `turns` times two instructions pass. Where the clock moves in steps, measurements that begin at every place of a step
/// alike have a mean that is exact.
pub fn stagger(turns: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!(
            "2: dec {turns:e}",
            "jnz 2b",
            turns = inout(reg) turns.max(1) => _,
            options(nomem, nostack),
        );
    }
}
