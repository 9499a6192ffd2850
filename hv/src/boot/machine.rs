//! What boot found out, for the run loop.
#![expect(unsafe_code, reason = "reads the build id's note")]

use bulkhead_table::{PartitionId, Range};
use hv_core::pc::clock::WallClock;
use spin::Once;

use super::staging::Images;

/// The verified machine.
pub struct Machine {
    /// TSC of the hypervisor's first instruction.
    pub entry_tsc: u64,
    /// TSC frequency as measured against the PM timer, in hertz.
    pub tsc_hz: u64,
    /// Largest difference found between another core's TSC and the boot core's, in ticks.
    pub tsc_skew: u64,
    /// The time of day.
    pub clock: WallClock,
    /// By partition: its guest image, or why it has none.
    pub staged: Images,
}

/// A partition's guest image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// In the hypervisor's range, and the one that was proven.
    Ready(Range),
    /// Missing, too large, or not the one that was proven; the reason was told at boot. The partition does not start.
    Refused,
}

impl Machine {
    /// Where the pristine flattened image of a partition lies, in physical memory that no table maps; `None` when it was refused.
    pub fn image(&self, id: PartitionId) -> Option<Range> {
        match *self.staged.get(usize::from(id))? {
            Staged::Refused => None,
            Staged::Ready(range) => Some(range),
        }
    }
}

static MACHINE: Once<Machine> = Once::new();

/// Sets what [`machine`] returns.
pub fn publish(machine: Machine) -> &'static Machine {
    MACHINE.call_once(|| machine)
}

/// The verified machine. Only call it from `run::core_main` on.
pub fn machine() -> &'static Machine {
    match MACHINE.get() {
        Some(machine) => machine,
        None => not_verified(),
    }
}

#[cold]
#[inline(never)]
fn not_verified() -> ! {
    panic!("the machine is not verified yet")
}

/// Bytes of a GNU build id made with SHA-1.
const BUILD_ID: usize = 20;

/// The GNU build id of this hypervisor.
pub fn build_id() -> [u8; BUILD_ID] {
    unsafe extern "C" {
        static __hv_build_id_end: u8;
    }
    // SAFETY: the id is the last part of the note that ends at this symbol; linker.ld asserts that the note is there.
    unsafe { (&raw const __hv_build_id_end).sub(BUILD_ID).cast::<[u8; BUILD_ID]>().read() }
}
