//! How a partition stands while the module runs, for whoever watches: read by housekeeping, at no cost to anybody else.
//!
//! Fates and schedule pages are atomic words that any core may read. What a vCPU counts is its core's alone: it is read where that is
//! the core which keeps house, and left out elsewhere. Asking the other core for it would cost an exit there.
#![expect(unsafe_code, reason = "reads the figures of vCPUs of this core, between their windows")]

use bulkhead_table::{Partition, PartitionId, Role};
use hv_core::wire::{Live, LiveCounts};

use crate::run::partition::{self, VcpuIndex};
use crate::run::{module, percpu};
use crate::table::TABLE;

/// How partition `id` stands; `None` when there is none. Only the core that keeps house calls this, while it holds no reference to a
/// vCPU.
pub fn of(id: PartitionId) -> Option<Live> {
    let partition = TABLE.partitions.get(usize::from(id))?;
    let pages = VcpuIndex::of(partition).filter_map(VcpuIndex::schedule_page);
    let (windows, late) = pages
        .map(|page| page.told())
        .fold((0, 0), |(windows, late), told| (windows + told.0, late + told.1));
    Some(Live { fate: module::fate(usize::from(id)), counts: counts(id, partition), windows, late })
}

/// Exits and denied accesses of a partition that runs on this core only.
fn counts(id: PartitionId, partition: &Partition) -> Option<LiveCounts> {
    let own = TABLE.cores.get(percpu::core_index()?)?;
    if !matches!(own.role, Role::Shared(_)) || partition.cpus != [own.cpu] {
        return None;
    }
    // SAFETY: the vCPU is this core's by its CPU number, and the caller holds no reference to it.
    let vcpu = unsafe { partition::vcpu(VcpuIndex::on_cpu(id, own.cpu)?) }?;
    let sum = |counts: &[u64]| counts.iter().fold(0_u64, |sum, count| sum.wrapping_add(*count));
    let counters = &vcpu.state.counters;
    Some(LiveCounts { exits: sum(&counters.exits), denied: sum(&counters.denied) })
}
