//! The VMX instructions, one thin wrapper each. SDM 3D chapter 31.
#![expect(unsafe_code, reason = "VMX instructions have no safe form")]

use core::arch::asm;

/// A VMX instruction failed; with a current VMCS the number is in its instruction-error field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Reads a field of the current VMCS. Without a current VMCS, or for a field that the processor lacks, the value is
/// unspecified: the set-up makes the first impossible, and the board check the second.
#[inline(always)]
pub fn read(field: u32) -> u64 {
    let value: u64;
    // SAFETY: VMREAD touches no memory; the core is in VMX root operation from `enable` on, which
    // every caller runs behind.
    unsafe {
        asm!("vmread {}, {}", lateout(reg) value, in(reg) u64::from(field),
             options(nomem, nostack));
    }
    value
}

/// Writes a field of the current VMCS.
///
/// # Safety
/// The value must keep the guest inside its partition and the host state runnable: a field decides what
/// the processor does to memory.
#[inline(always)]
pub unsafe fn write(field: u32, value: u64) {
    // SAFETY: VMWRITE changes only the current VMCS; what it means is the caller's contract.
    unsafe {
        asm!("vmwrite {}, {}", in(reg) u64::from(field), in(reg) value, options(nomem, nostack));
    }
}

macro_rules! with_operand {
    ($(#[$doc:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Failed`] when the processor reports VMfail.
        ///
        /// # Safety
        /// `address` is the physical address of a page-aligned VMX region that nothing else uses.
        pub unsafe fn $name(address: u64) -> Result<(), Failed> {
            let failed: u8;
            // SAFETY: the operand is a stack slot that holds the region's address; the region is the caller's contract.
            unsafe {
                asm!(concat!($mnemonic, " qword ptr [{}]"), "setbe {}",
                     in(reg) &raw const address, lateout(reg_byte) failed, options(nostack));
            }
            if failed == 0 { Ok(()) } else { Err(Failed) }
        }
    };
}

with_operand!(
    /// Enters VMX root operation.
    vmxon, "vmxon");
with_operand!(
    /// Writes a VMCS back to its region and marks it as not launched.
    vmclear, "vmclear");
with_operand!(
    /// Makes a VMCS the current one.
    vmptrld, "vmptrld");

/// Drops all cached EPT translations (INVEPT type 2, all contexts).
pub fn invept_all() {
    let descriptor = [0_u64; 2];
    // SAFETY: INVEPT only drops cached translations; the descriptor is a 16-byte stack slot.
    unsafe {
        asm!("invept {}, [{}]", in(reg) 2_u64, in(reg) &raw const descriptor, options(nostack));
    }
}

/// Drops all linear translations of one VPID (INVVPID type 1, single context).
pub fn invvpid(vpid: u16) {
    let descriptor = [u64::from(vpid), 0];
    // SAFETY: INVVPID only drops cached translations; the descriptor is a 16-byte stack slot with its reserved bits clear.
    unsafe {
        asm!("invvpid {}, [{}]", in(reg) 1_u64, in(reg) &raw const descriptor, options(nostack));
    }
}
