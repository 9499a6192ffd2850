//! The SVM instructions and registers, one thin wrapper each. APM 3, SVM instructions.
#![expect(unsafe_code, reason = "SVM instructions have no safe form")]

use core::arch::asm;

use hv_defs::svm::{EFER_SVME, msr};
use x86_64::registers::model_specific::{Efer, Msr};

/// Switches SVM on, with this page for the host's state, and keeps INIT from taking the core away. APM 2 15.4, 15.30.1, 15.30.4.
///
/// # Safety
/// The page is this core's own, and nothing else uses it.
pub unsafe fn enable(host_save: u64) {
    // SAFETY: SVM was verified at boot. EFER.SVME has no effect but to allow the instructions.
    unsafe {
        Efer::write_raw(Efer::read_raw() | EFER_SVME);
        Msr::new(msr::VM_HSAVE_PA).write(host_save);
    }
}

/// Stores FS, GS, TR, LDTR, KERNEL_GS_BASE and the registers of system calls of this core.
///
/// # Safety
/// `block` is the physical address of a page that nothing else uses, mapped one to one.
pub unsafe fn vmsave(block: u64) {
    // SAFETY: the caller's contract.
    unsafe { asm!("vmsave rax", in("rax") block, options(nostack, preserves_flags)) };
}

/// Closes GIF: interrupts and NMIs wait. APM 2 15.17.
pub fn close_gif() {
    // SAFETY: what waits is taken by the next entry or the next opening.
    unsafe { asm!("clgi", options(nomem, nostack, preserves_flags)) };
}

/// Lets an NMI in that waits: its handler only notes it. Interrupts stay off by IF.
pub fn open_gif() {
    // SAFETY: the NMI handler has a stack of its own and keeps all registers.
    unsafe { asm!("stgi", "nop", "clgi", options(nomem, nostack)) };
}

/// Lets in what waits, interrupts too: the handler of every vector from 32 on only ends the interrupt.
pub fn open_gif_to_interrupts() {
    // SAFETY: as above; the interrupt handlers keep all registers. STI shadows one instruction, which is STGI.
    unsafe { asm!("sti", "stgi", "nop", "clgi", "cli", options(nomem, nostack)) };
}
