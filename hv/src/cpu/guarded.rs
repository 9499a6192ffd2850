//! Reads a model-specific register that this processor may not have: the general protection fault is caught, and nothing else is.
#![expect(unsafe_code, reason = "executes RDMSR where it may fault")]

use core::arch::{global_asm, naked_asm};

use hv_defs::msr;

// Takes the place of the ordinary stub for #GP: at the one instruction that may fault it goes on behind it. The error code lies under the
// address. SDM 3A 6.14.2.
global_asm!(
    ".global protection_stub",
    "protection_stub:",
    "push rax",
    "lea rax, [rip + guarded_rdmsr]",
    "cmp [rsp + 16], rax",
    "jne 2f",
    "lea rax, [rip + guarded_rdmsr_faulted]",
    "mov [rsp + 16], rax",
    "pop rax",
    "add rsp, 8",
    "iretq",
    "2: pop rax",
    "jmp exception_stubs + 13 * 16",
);

unsafe extern "C" {
    static protection_stub: u8;
}

/// Where #GP goes.
pub fn protection_handler() -> u64 {
    &raw const protection_stub as u64
}

/// The value of an MSR; `None` where this processor has none of this number. A machine that answers for one which no processor has, as
/// some emulators do, would answer for any, so nothing that it says of them counts.
pub fn read_msr(number: u32) -> Option<u64> {
    read(msr::NOBODYS).is_none().then(|| read(number)).flatten()
}

fn read(number: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: reading an MSR changes nothing that the callers' registers stand for, and a fault is caught.
    unsafe { try_read(number, &mut value) }.then_some(value)
}

/// System-management interrupts that this core took so far, modulo 2^32; `None` where it does not count them.
pub fn smi_count() -> Option<u32> {
    read_msr(msr::SMI_COUNT).map(|count| count as u32)
}

/// # Safety
/// `value` can be written.
#[unsafe(naked)]
unsafe extern "C" fn try_read(number: u32, value: *mut u64) -> bool {
    naked_asm!(
        "mov ecx, edi",
        ".global guarded_rdmsr",
        "guarded_rdmsr: rdmsr",
        "shl rdx, 32",
        "or rax, rdx",
        "mov [rsi], rax",
        "mov eax, 1",
        "ret",
        ".global guarded_rdmsr_faulted",
        "guarded_rdmsr_faulted: xor eax, eax",
        "ret",
    )
}
