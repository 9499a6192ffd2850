//! Incidents of each core: recorded where they happen, told by housekeeping.
//!
//! A record costs the same few dozen instructions whatever it says. Words would cost a thousand, and be made in the time of the partition whose
//! window comes next.

use bulkhead_table::PartitionId;
use hv_core::exit::{Refusal, Violation};
use hv_core::health::{INCIDENT_BYTES, Incident, Queue, What};

use super::{module, percpu};
use crate::cpu::instructions as machine;
use crate::table::CORES;

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

/// Records what a partition did to itself.
fn record_own(id: PartitionId, what: What) {
    record(Incident::own(what, id, module::frame_at(machine::tsc())));
}

/// Partition `id` did what it may not, at this RIP.
pub fn violation(id: PartitionId, violation: Violation, rip: u64) {
    record_own(id, What::Violation { violation, rip });
}

/// Partition `id` was refused something of this kind for the first time.
pub fn refusal(id: PartitionId, Refusal { denial, detail }: Refusal, rip: u64) {
    let detail = u64::from(detail);
    record_own(id, What::Refusal { denial, detail, rip });
}

/// Partition `id` starts again.
pub fn restart(id: PartitionId, number: u32, fault: bool) {
    record_own(id, What::Restart { number, fault });
}

/// Partition `id` switched itself off.
pub fn off(id: PartitionId) {
    record_own(id, What::Off);
}

/// The processor did not take the control block of a vCPU of partition `id`, with this error: a defect of the hypervisor.
pub fn entry_failed(id: PartitionId, error: u64) {
    record_own(id, What::EntryFailed { error });
}

/// The oldest incident of a core that was not told yet: when it was seen, and the payload of its packet. Housekeeping only.
pub fn take(core: usize) -> Option<(u64, [u8; INCIDENT_BYTES])> {
    INCIDENTS.get(core)?.take()
}

/// Incidents of a core that found no room since the last call. Housekeeping only.
pub fn take_lost(core: usize) -> u32 {
    INCIDENTS.get(core).map_or(0, Queue::take_lost)
}
