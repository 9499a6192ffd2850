//! Access to a vCPU's VMCB, which is memory. The processor reads it at VMRUN and writes it at an exit, and at no other time.
#![expect(unsafe_code, reason = "the block is named by its address")]

use hv_core::exit::ControlState;
use hv_defs::svm::EFER_SVME;
use hv_defs::vmcb::{Field, attribute, save};

use crate::backend::Page;
use crate::vcpu::Vcpu;

/// Reads a field of the block of `vcpu`.
#[inline(always)]
pub fn read(vcpu: &Vcpu, field: Field) -> u64 {
    let at = vcpu.block + u64::from(field.offset);
    // SAFETY: the block is a static page of this vCPU's own, mapped one to one on its core; the field lies inside it, aligned to its width. No
    // reference to it lives.
    unsafe {
        match field.width {
            1 => u64::from((at as *const u8).read_volatile()),
            2 => u64::from((at as *const u16).read_volatile()),
            4 => u64::from((at as *const u32).read_volatile()),
            _ => (at as *const u64).read_volatile(),
        }
    }
}

/// Writes a field of the block of `vcpu`.
///
/// # Safety
/// The value must keep the guest inside its partition: a field decides what the processor does to memory.
#[inline(always)]
pub unsafe fn write(vcpu: &Vcpu, field: Field, value: u64) {
    let at = vcpu.block + u64::from(field.offset);
    // SAFETY: as in `read`; what the value means is the caller's contract.
    unsafe {
        match field.width {
            1 => (at as *mut u8).write_volatile(value as u8),
            2 => (at as *mut u16).write_volatile(value as u16),
            4 => (at as *mut u32).write_volatile(value as u32),
            _ => (at as *mut u64).write_volatile(value),
        }
    }
}

/// A part of a segment register: its field, and where the part lies in it.
pub const fn part(segment: Field, offset: u16, width: u8) -> Field {
    Field { offset: segment.offset + offset, width }
}

/// The two pages of an MSR permission map as words.
pub fn words_of(maps: &'static mut [Page; 2]) -> &'static mut [u64; 1024] {
    // SAFETY: two pages of 512 words lie one behind the other, and the reference is the only one.
    unsafe { &mut *maps.as_mut_ptr().cast::<[u64; 1024]>() }
}

/// The guest's control registers, as decisions ask for them. SVME is not the guest's to see.
pub fn control_state(block: u64) -> ControlState {
    // SAFETY: as in [`read`].
    let field =
        |field: Field| unsafe { ((block + u64::from(field.offset)) as *const u64).read_volatile() };
    let efer = field(save::EFER);
    let code = field(part(save::CS, 0, 8)) >> 16;
    ControlState {
        cr0: field(save::CR0),
        cr3: field(save::CR3),
        cr4: field(save::CR4),
        efer: efer & !EFER_SVME,
        code_64: efer & EFER_LMA != 0 && code & u64::from(attribute::LONG) != 0,
    }
}

const EFER_LMA: u64 = 1 << 10;
