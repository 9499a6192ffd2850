//! Which core this is: the index into the table's cores, kept in the hypervisor's GS base.

use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

/// Says that this core is `index` of the table. The GS base is index + 1, so that 0 means 'not said yet'; nothing is
/// ever addressed through GS.
pub fn set_core_index(index: usize) {
    GsBase::write(VirtAddr::new(index as u64 + 1));
}

/// Index of this core, once it was said.
pub fn core_index() -> Option<usize> {
    (GsBase::read().as_u64() as usize).checked_sub(1)
}
