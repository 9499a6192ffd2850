//! The calls to the hypervisor; see `bulkhead_table::abi` for their registers.
#![expect(unsafe_code, reason = "VMCALL")]

use core::arch::asm;

use bulkhead_table::abi::call;

use crate::guest::under_hypervisor;
use crate::schedule::Window;

/// Registers that a call returns in.
struct Returned {
    rax: u64,
    rbx: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
}

/// Executes VMCALL. Only under the hypervisor: elsewhere it is an invalid instruction.
#[inline(always)]
fn vmcall(number: u64, rbx: u64, words: [u64; 6]) -> Returned {
    let [rdi, rsi, rdx, r8, r9, r10] = words;
    let mut returned = Returned { rax: number, rbx, rdi, rsi, rdx };
    // SAFETY: a hypercall of this interface reads and writes registers only. RBX cannot be named as an operand,
    // so it is exchanged with one that can.
    unsafe {
        asm!(
            "xchg rbx, {rbx}",
            "vmcall",
            "xchg rbx, {rbx}",
            rbx = inout(reg) returned.rbx,
            inout("rax") returned.rax,
            inout("rdi") returned.rdi,
            inout("rsi") returned.rsi,
            inout("rdx") returned.rdx,
            in("r8") r8,
            in("r9") r9,
            in("r10") r10,
            options(nostack),
        );
    }
    returned
}

/// Offers 1 to 48 console bytes and returns how many were taken, or a status.
pub(crate) fn console(length: usize, words: [u64; 6]) -> u64 {
    vmcall(call::CONSOLE, length as u64, words).rax
}

/// Ends the partition.
pub(crate) fn finish(verdict: u64) {
    vmcall(call::FINISH, verdict, [0; 6]);
}

/// Opens the measured span in which the hypervisor counts exits. Natively does nothing.
#[inline(always)]
pub fn span_begin() {
    if under_hypervisor() {
        vmcall(call::SPAN_BEGIN, 0, [0; 6]);
    }
}

/// Closes the measured span and returns the exits within it; `None` natively and without an open span.
#[inline(always)]
pub fn span_end() -> Option<u64> {
    if !under_hypervisor() {
        return None;
    }
    let returned = vmcall(call::SPAN_END, 0, [0; 6]);
    (returned.rax == 0).then_some(returned.rbx)
}

/// The window that is running now; `None` natively and on a dedicated core.
#[must_use]
pub fn window() -> Option<Window> {
    if !under_hypervisor() {
        return None;
    }
    let Returned { rax, rbx: epoch, rdi: frame, rsi: start, rdx: length } =
        vmcall(call::WINDOW, 0, [0; 6]);
    (rax == 0).then_some(Window { epoch, frame, start, length })
}
