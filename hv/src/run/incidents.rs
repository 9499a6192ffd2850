//! Incidents of each core: recorded where they happen, told by housekeeping.
//!
//! A record costs the same few dozen instructions whatever it says. Words would cost a thousand, and be made in the time of the partition whose
//! window comes next.

use bulkhead_table::PartitionId;
use hv_core::exit::{Refusal, Violation};
use hv_core::health::{INCIDENT_BYTES, Incident, Queue, What};
use hv_defs::vmcs::field;

use super::{machine, module, percpu};
use crate::table::CORES;
use crate::vmx::instructions as vmx;

/// Incidents of a core that can wait to be told.
const KEPT: usize = 32;

/// By core of the table.
static INCIDENTS: [Queue<KEPT>; CORES] = [const { Queue::new() }; CORES];

/// Bytes of one core's.
pub const BYTES: usize = size_of::<Queue<KEPT>>();

/// Records an incident of this core.
pub fn record(incident: Incident) {
    // Without an index the core runs nothing yet: it is set first of all.
    if let Some(queue) = percpu::core_index().and_then(|core| INCIDENTS.get(core)) {
        queue.record(machine::tsc(), incident);
    }
}

/// Records what a partition did to itself, by the guest whose VMCS is current.
fn record_own(id: PartitionId, what: What) {
    record(Incident::own(what, id, module::frame_at(machine::tsc())));
}

/// Partition `id` did what it may not, at the RIP of the current VMCS.
pub fn violation(id: PartitionId, violation: Violation) {
    record_own(id, What::Violation { violation, rip: vmx::read(field::GUEST_RIP) });
}

/// Partition `id` was refused something of this kind for the first time.
pub fn refusal(id: PartitionId, Refusal { denial, detail }: Refusal) {
    let detail = u64::from(detail);
    record_own(id, What::Refusal { denial, detail, rip: vmx::read(field::GUEST_RIP) });
}

/// Partition `id` starts again.
pub fn restart(id: PartitionId, number: u32, fault: bool) {
    record_own(id, What::Restart { number, fault });
}

/// Partition `id` switched itself off.
pub fn off(id: PartitionId) {
    record_own(id, What::Off);
}

/// The processor did not take the VMCS of a vCPU of partition `id`: a defect of the hypervisor.
pub fn entry_failed(id: PartitionId) {
    record_own(id, What::EntryFailed { error: vmx::read(field::INSTRUCTION_ERROR) });
}

/// The oldest incident of a core that was not told yet: when it was seen, and the payload of its packet. Housekeeping only.
pub fn take(core: usize) -> Option<(u64, [u8; INCIDENT_BYTES])> {
    INCIDENTS.get(core)?.take()
}

/// Incidents of a core that found no room since the last call. Housekeeping only.
pub fn take_lost(core: usize) -> u32 {
    INCIDENTS.get(core).map_or(0, Queue::take_lost)
}
