//! Machine checks: whether one is being dealt with on this core, and the end of that.
#![expect(unsafe_code, reason = "writes IA32_MCG_STATUS")]

use hv_defs::msr::{MCG_STATUS, mcg_status};
use x86_64::registers::model_specific::Msr;

use super::guarded;

/// Whether a machine check was raised on this core and nobody ended it yet.
pub fn is_in_progress() -> bool {
    guarded::read_msr(MCG_STATUS).is_some_and(|status| status & mcg_status::IN_PROGRESS != 0)
}

/// Ends the machine check that was raised on this core. Another one that comes before this shuts the processor down, which resets the
/// board. SDM 3B 16.3.1.2.
pub fn end() {
    if let Some(status) = guarded::read_msr(MCG_STATUS) {
        // SAFETY: the register exists, as the read tells; only the flag changes, and the handler has seen all that it wants.
        unsafe { Msr::new(MCG_STATUS).write(status & !mcg_status::IN_PROGRESS) };
    }
}
