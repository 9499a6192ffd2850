//! Cleans what one partition could learn of another through the processor itself, at a switch between them.
//!
//! Which switch cleans what is decided in [`hv_core::hygiene`], by which the compiler keeps the time free before the window. The board
//! file declares what each kind costs; that the processor has them is verified at boot.
#![expect(unsafe_code, reason = "writes the command MSRs and executes VERW")]

use core::arch::asm;

use bulkhead_table::{Hygiene, PartitionId};
use x86_64::registers::model_specific::Msr;

use crate::table::{PARTITIONS, TABLE};

/// SDM 4, table 2-2: bit 0 is the indirect branch predictor barrier.
const IA32_PRED_CMD: u32 = 0x49;
const BRANCH_BARRIER: u64 = 1;
/// SDM 4, table 2-2: bit 0 writes back and empties the level-1 data cache.
const IA32_FLUSH_CMD: u32 = 0x10B;
const L1D_FLUSH: u64 = 1;

/// Whether any partition asks for any: where none does, the compiler leaves all of this out of the switch.
const ANY: bool = {
    let mut all = Hygiene::NONE;
    let mut id = 0;
    while id < PARTITIONS {
        all = all.or(TABLE.partitions[id].hygiene);
        id += 1;
    }
    all.is_any()
};

/// What partition `id` asks for.
#[inline(always)]
pub fn asked_by(id: PartitionId) -> Hygiene {
    if !ANY {
        return Hygiene::NONE;
    }
    TABLE.partitions.get(usize::from(id)).map_or(Hygiene::NONE, |partition| partition.hygiene)
}

/// Does what is asked for.
#[inline(always)]
pub fn clean(what: Hygiene) {
    if ANY && what.is_any() {
        clean_some(what);
    }
}

#[inline(never)]
fn clean_some(what: Hygiene) {
    if what.branch_barrier {
        // SAFETY: the boot verified the ability (CPUID.7:EDX.26); the command only forgets predictions.
        unsafe { Msr::new(IA32_PRED_CMD).write(BRANCH_BARRIER) };
    }
    if what.l1d_flush {
        // SAFETY: the boot verified the ability (CPUID.7:EDX.28); the command only empties a cache, written back first.
        unsafe { Msr::new(IA32_FLUSH_CMD).write(L1D_FLUSH) };
    }
    if what.buffer_clear {
        clear_buffers();
    }
}

/// VERW with a memory operand overwrites the buffers where the processor has MD_CLEAR. Last, so that nothing fills them again but the
/// way into the guest.
fn clear_buffers() {
    let selector: u16 = 0;
    // SAFETY: VERW only reads the selector and changes ZF.
    unsafe { asm!("verw word ptr [{}]", in(reg) &raw const selector, options(nostack, readonly)) };
}
