//! The devices of partitions with the platform of a PC, their console pages, and what is told about them.
#![expect(unsafe_code, reason = "looks at a page of a guest's memory")]

use core::sync::atomic::{AtomicU8, Ordering};

use bulkhead_table::pc::CONSOLE_PAGE;
use bulkhead_table::{PAGE_SIZE, PartitionId, Platform};
use hv_core::exit::Refusal;
use hv_core::pc::page::ConsolePage;
use hv_core::pc::typed::Delivery;
use hv_core::pc::{Devices, Pc};

use super::incidents;
use crate::backend::Backend;
use crate::memory::{self, Side};
use crate::table::{PARTITIONS, TABLE};
use crate::vcpu::Vcpu;

/// Partitions with such a platform.
pub const COUNT: usize = PLACES.1;
/// Whether there is one.
pub const ANY: bool = COUNT != 0;

/// By partition: its place among those.
const PLACES: ([Option<usize>; PARTITIONS], usize) = {
    let mut places = [None; PARTITIONS];
    let mut count = 0;
    let mut id = 0;
    while id < PARTITIONS {
        if matches!(TABLE.partitions[id].platform, Platform::Pc) {
            places[id] = Some(count);
            count += 1;
        }
        id += 1;
    }
    (places, count)
};

static DEVICES: [Devices; COUNT] = [const { Devices::new() }; COUNT];
/// Kinds of refused accesses that were told: bit by bit, in the order of [`Denial`].
static TOLD: [AtomicU8; COUNT] = [const { AtomicU8::new(0) }; COUNT];

/// The place of a partition among those with such a platform.
pub fn place(id: PartitionId) -> Option<usize> {
    PLACES.0.get(usize::from(id)).copied().flatten()
}

/// The devices of a partition, where it has them.
pub fn devices(id: PartitionId) -> Option<&'static Devices> {
    DEVICES.get(place(id)?)
}

/// The platform of a partition, as its vCPUs see it.
pub fn of(id: PartitionId) -> Option<Pc> {
    Some(Pc { devices: devices(id)?, clock: crate::boot::machine().clock })
}

/// Does `work` on the console page of a partition with such a platform, which this core's window shows meanwhile; `None` where the
/// partition has none.
pub fn with_console_page<R>(id: PartitionId, work: impl FnOnce(&ConsolePage) -> R) -> Option<R> {
    place(id)?;
    let partition = TABLE.partitions.get(usize::from(id))?;
    let holds =
        |start: u64, size: u64| start <= CONSOLE_PAGE && CONSOLE_PAGE + PAGE_SIZE <= start + size;
    let region = partition.memory.iter().find(|region| holds(region.guest, region.size))?;
    let host = region.host + (CONSOLE_PAGE - region.guest);
    let mapped = memory::map(Side::Source, host, PAGE_SIZE)?;
    // SAFETY: the page is the partition's alone (the compiler's proof), usable RAM (the board check's), aligned, and mapped as long as
    // the reference lives. Others write it meanwhile, the guest and a restart: all of it is atomic, and any content is valid.
    Some(work(unsafe { &*mapped.address().cast::<ConsolePage>() }))
}

/// Leaves typed bytes for partition `id`, all or none: in its console page if it uses that, and else on its serial line.
pub fn type_to(id: PartitionId, bytes: &[u8]) -> Delivery {
    let Some(devices) = devices(id) else {
        return Delivery::Nobody;
    };
    let taken = with_console_page(id, |page| page.is_open().then(|| page.type_bytes(bytes)));
    let taken = taken.flatten().unwrap_or_else(|| devices.uart.typed.write(bytes));
    if taken { Delivery::Taken } else { Delivery::Full }
}

/// Records each kind of refused access once, behind the first exit with one.
#[inline(always)]
pub fn note_refusal<B: Backend>(vcpu: &mut Vcpu) {
    if let Some(refusal) = vcpu.state.refusal.take() {
        record_refusal::<B>(vcpu, refusal);
    }
}

#[cold]
fn record_refusal<B: Backend>(vcpu: &Vcpu, refusal: Refusal) {
    let id = vcpu.state.partition;
    let kind = 1 << refusal.denial as u8;
    let told = place(id).and_then(|at| TOLD.get(at));
    // Another vCPU may have told it already.
    if told.is_some_and(|told| told.fetch_or(kind, Ordering::Relaxed) & kind == 0) {
        incidents::refusal(id, refusal, B::instruction_pointer(vcpu));
    }
}
