//! The page in which the hypervisor tells a vCPU of a time-shared core its time, without an exit.
#![expect(unsafe_code, reason = "reads a page that the hypervisor writes")]

use bulkhead_table::abi::{CPUID_VCPU, SchedulePage};

use crate::guest::{own_leaf, under_hypervisor};
use crate::machine::cpuid;

/// The page of this vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Page(*const SchedulePage);

impl Page {
    /// Where the hypervisor says that it is; `None` natively, and on a dedicated core, which has none.
    #[must_use]
    pub fn find() -> Option<Self> {
        if !under_hypervisor() {
            return None;
        }
        let told = cpuid(own_leaf(CPUID_VCPU), 0);
        let address = u64::from(told.edx) << 32 | u64::from(told.ecx);
        // The identity map ends at 4 GiB.
        (address != 0 && address < 1 << 32).then_some(Self(address as *const SchedulePage))
    }

    /// Its guest-physical address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.0 as u64
    }

    /// What it says now, as one: a page that was being written is read again.
    #[must_use]
    pub fn read(&self) -> SchedulePage {
        loop {
            // SAFETY: the hypervisor mapped a page there for the life of the vCPU; every pattern of bits is a valid value.
            let (before, page, after) = unsafe {
                let sequence = &raw const (*self.0).sequence;
                let before = sequence.read_volatile();
                let page = self.0.read_volatile();
                (before, page, sequence.read_volatile())
            };
            if before == after && before & 1 == 0 {
                return page;
            }
            core::hint::spin_loop();
        }
    }
}
