//! Which core this is: the index into the table's cores, kept in the hypervisor's GS base.
#![expect(unsafe_code, reason = "reads and writes the GS base, by which nothing is ever addressed")]

use hv_defs::msr::GS_BASE;
use x86_64::registers::model_specific::Msr;

/// Says that this core is `index` of the table. The GS base is index + 1, so that 0 means 'not said yet'; nothing is
/// ever addressed through GS.
pub fn set_core_index(index: usize) {
    // SAFETY: the value is small, and so canonical; no access of the hypervisor goes through GS.
    unsafe { Msr::new(GS_BASE).write(index as u64 + 1) };
}

/// Index of this core, once it was said.
pub fn core_index() -> Option<usize> {
    // SAFETY: reading has no effect.
    let base = unsafe { Msr::new(GS_BASE).read() };
    (base as usize).checked_sub(1)
}
