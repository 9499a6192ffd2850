//! How a partition stands while the module runs, for whoever watches: read by housekeeping, at no cost to anybody else.
//!
//! Fates and schedule pages are atomic words that any core may read. What a vCPU counts only its core writes, in plain words, so that an
//! exit does not pay for who watches; they are read here as they lie.

use bulkhead_table::{Partition, PartitionId};
use heapless::Vec;
use hv_core::exit::EXIT_KINDS;
use hv_core::wire::{EXIT_BYTES, Live, LiveCounts, MAX_PAYLOAD, exit_entry};

use crate::run::module;
use crate::run::partition::{self, VcpuIndex};
use crate::table::TABLE;

/// vCPUs of a partition whose counters are read for one record: more would take longer than a packet may.
const MOST_READ: usize = 8;

/// How partition `id` stands; `None` when there is none.
pub fn of(id: PartitionId) -> Option<Live> {
    let partition = TABLE.partitions.get(usize::from(id))?;
    let pages = VcpuIndex::of(partition).filter_map(VcpuIndex::schedule_page);
    let (windows, late) = pages
        .map(|page| page.told())
        .fold((0, 0), |(windows, late), told| (windows + told.0, late + told.1));
    Some(Live { fate: module::fate(usize::from(id)), counts: counts(partition), windows, late })
}

/// Exits of partition `id` by kind, as the payload of a packet; `None` when there is no such partition, or it is too large to be read.
pub fn exits(id: PartitionId) -> Option<Vec<u8, MAX_PAYLOAD>> {
    let partition = TABLE.partitions.get(usize::from(id))?;
    if partition.cpus.len() > MOST_READ {
        return None;
    }
    let mut counts = [0; EXIT_KINDS];
    VcpuIndex::of(partition).for_each(|vcpu| partition::add_exits(vcpu, &mut counts));
    let mut payload = Vec::new();
    for (kind, count) in counts.into_iter().enumerate() {
        // Guests meet some ten kinds: what does not fit any more is told at the end.
        if count > 0 && payload.capacity() - payload.len() >= EXIT_BYTES {
            let _fits = payload.extend_from_slice(&exit_entry(kind as u16, count));
        }
    }
    Some(payload)
}

/// Exits and denied accesses of all vCPUs of a partition.
fn counts(partition: &Partition) -> Option<LiveCounts> {
    if partition.cpus.len() > MOST_READ {
        return None;
    }
    let counted = VcpuIndex::of(partition).filter_map(partition::counted);
    let none = LiveCounts { exits: 0, denied: 0 };
    Some(counted.fold(none, |sum, it| LiveCounts {
        exits: sum.exits.wrapping_add(it.exits),
        denied: sum.denied.wrapping_add(it.denied),
    }))
}
