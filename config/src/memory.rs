//! Places the partitions' memory: lowest free address first, in the order of the file, on 2 MiB bounds.
//!
//! On 2 MiB bounds the nested page tables take large pages, so that a partition costs few of them and
//! few misses of the translation cache.

use bulkhead_table::{MAX_CORES, PAGE_SIZE, Range, Region, Rights};
use hv_core::paging::{self, Access, Format, LargePages, Mapping, Memory};

use crate::board::CheckedBoard;
use crate::boot_info;
use crate::compare::Comparisons;
use crate::diagnostics::{Finding, Findings};
use crate::rules::Rule;
use crate::schema::{Partition, SystemFile};
use crate::source::At;
use crate::units::size_text;

/// Alignment of a partition's memory in the machine.
const ALIGNMENT: u64 = 2 << 20;

/// Guest RAM ends here at the latest: behind it are the addresses of devices, the local APIC's among them.
const GUEST_RAM_END: u64 = 3 << 30;

/// Guest-physical address of the schedule page of vCPU 0; those of the others follow it. Between guest RAM and the
/// local APIC at 0xFEE0_0000, with room for as many pages as there can be cores.
const SCHEDULE_PAGES: u64 = 0xFEB0_0000;

const _: () = assert!(SCHEDULE_PAGES + MAX_CORES as u64 * PAGE_SIZE <= 0xFEC0_0000);

/// Memory of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub region: Region,
    /// Read-only pages, one for each vCPU in windows.
    pub schedule: Option<Range>,
    pub ept_pages: usize,
}

/// Placements in the order of the partitions; `None` where one could not be made, which is reported.
pub(crate) fn check(
    system: &SystemFile,
    board: Option<&CheckedBoard>,
    findings: &mut Findings,
) -> Vec<Option<Placement>> {
    let sizes: Vec<_> = system
        .partitions
        .iter()
        .map(|partition| {
            let size = partition.memory.as_ref()?;
            plausible(&partition.name.value, size, findings).then_some(size)
        })
        .collect();
    let Some((memory, own)) =
        board.and_then(|board| Some((board.memory.as_ref()?, board.hypervisor.as_ref()?)))
    else {
        return vec![None; sizes.len()];
    };
    let mut free = free_ranges(memory, own.value);
    let partitions = system.partitions.iter();
    partitions
        .zip(sizes)
        .map(|(partition, size)| {
            let (name, size) = (partition.name.value.as_str(), size?);
            let Some(piece) = take(&mut free, size.value, &mut findings.comparisons) else {
                findings.push(does_not_fit(name, size, &free, memory));
                return None;
            };
            large_pages(name, size, piece, findings);
            placement(partition, size, piece.start, findings)
        })
        .collect()
}

fn plausible(name: &str, size: &At<u64>, findings: &mut Findings) -> bool {
    let least = boot_info::ADDRESS + PAGE_SIZE;
    let finding = if size.value < least {
        Finding::new(
            Rule::MemoryTooSmall,
            format!("`{name}` has {} of memory", size_text(size.value)),
            format!(
                "write {} or more: the page at {:#x} holds the boot information, and guests are linked at 1 MiB",
                size_text(least),
                boot_info::ADDRESS
            ),
        )
        .at(size.place, "too little")
    } else if !size.value.is_multiple_of(PAGE_SIZE) {
        let (down, up) =
            (size.value / PAGE_SIZE * PAGE_SIZE, size.value.next_multiple_of(PAGE_SIZE));
        Finding::new(
            Rule::MemoryUnaligned,
            format!("the memory of `{name}` is not made of whole pages"),
            format!(
                "the nearest multiples of {} are {} and {}",
                size_text(PAGE_SIZE),
                size_text(down),
                size_text(up)
            ),
        )
        .at(size.place, format!("{} bytes", size.value))
    } else if size.value > GUEST_RAM_END {
        Finding::new(
            Rule::MemoryTooLarge,
            format!("the memory of `{name}` reaches into the addresses of devices"),
            format!("write {} or less", size_text(GUEST_RAM_END)),
        )
        .at(size.place, format!("more than {}", size_text(GUEST_RAM_END)))
    } else {
        return true;
    };
    findings.push(finding);
    false
}

/// The board's memory without the hypervisor's, cut to bounds of 2 MiB; ascending.
fn free_ranges(memory: &[At<Range>], own: Range) -> Vec<Range> {
    let mut free = Vec::new();
    for range in memory.iter().map(|at| at.value) {
        let below = Range {
            start: range.start,
            size: own.start.min(range.end()).saturating_sub(range.start),
        };
        let from = own.end().max(range.start);
        let above = Range { start: from, size: range.end().saturating_sub(from) };
        let pieces = if range.overlaps(&own) { vec![below, above] } else { vec![range] };
        free.extend(pieces.into_iter().filter_map(aligned));
    }
    free
}

fn aligned(range: Range) -> Option<Range> {
    let start = range.start.checked_next_multiple_of(ALIGNMENT)?;
    let size = range.end().checked_sub(start).filter(|size| *size > 0)?;
    Some(Range { start, size })
}

/// Takes `size` bytes from the first range that has them; up to the next bound nobody else gets any.
fn take(free: &mut [Range], size: u64, comparisons: &mut Comparisons) -> Option<Range> {
    let range = free.iter_mut().find(|range| {
        comparisons.add(1);
        range.size >= size
    })?;
    let start = range.start;
    let taken = size.next_multiple_of(ALIGNMENT).min(range.size);
    *range = Range { start: start + taken, size: range.size - taken };
    Some(Range { start, size: taken })
}

fn does_not_fit(name: &str, size: &At<u64>, free: &[Range], memory: &[At<Range>]) -> Finding {
    let left: u64 = free.iter().map(|range| range.size).sum();
    let largest = free.iter().map(|range| range.size).max().unwrap_or(0);
    let finding = Finding::new(
        Rule::MemoryDoesNotFit,
        format!("the memory of `{name}` does not fit the board"),
        format!(
            "write {} or less here, or give the partitions before it less: {} are left in all, outside the hypervisor's range and the partitions before this one, on bounds of {}",
            size_text(largest),
            size_text(left),
            size_text(ALIGNMENT)
        ),
    )
    .at(size.place, format!("the largest free piece has {}", size_text(largest)));
    match memory.first() {
        Some(first) => finding.with(first.place, "the board's memory begins here"),
        None => finding,
    }
}

fn placement(
    partition: &Partition,
    size: &At<u64>,
    host: u64,
    findings: &mut Findings,
) -> Option<Placement> {
    let region = Region { guest: 0, host, size: size.value, rights: Rights::ALL };
    let schedule = schedule_pages(partition);
    let mut mappings = vec![mapping(&region)];
    mappings.extend(schedule.as_ref().map(|pages| schedule_mapping(pages, host)));
    match paging::tables_needed(Format::Ept, LargePages::Up2M, &mappings) {
        Ok(ept_pages) => Some(Placement { region, schedule, ept_pages }),
        Err(error) => {
            let name = &partition.name.value;
            let message = format!("the memory of `{name}` cannot be mapped: {error}");
            let remedy = "choose another size, or another range of the board";
            let finding = Finding::new(Rule::MemoryDoesNotFit, message, remedy);
            findings.push(finding.at(size.place, ""));
            None
        }
    }
}

/// What is left behind the last whole large page takes a table of small ones, and misses of the translation cache.
/// Where the piece of the machine's memory has no more, there is nothing to be done about it.
fn large_pages(name: &str, size: &At<u64>, piece: Range, findings: &mut Findings) {
    if size.value.is_multiple_of(ALIGNMENT) || piece.size == size.value {
        return;
    }
    let finding = Finding::new(
        Rule::SmallPages,
        format!(
            "the last {} of the memory of `{name}` are mapped by small pages",
            size_text(size.value % ALIGNMENT)
        ),
        format!(
            "write {}: the machine's memory up to there is nobody else's, since each partition begins on a bound of {}",
            size_text(size.value.next_multiple_of(ALIGNMENT)),
            size_text(ALIGNMENT)
        ),
    );
    findings.push(finding.at(size.place, format!("no multiple of {}", size_text(ALIGNMENT))));
}

/// The schedule pages of a partition in windows, guest-physical.
fn schedule_pages(partition: &Partition) -> Option<Range> {
    let (cores, _) = (partition.cores.as_ref()?, partition.windows.as_ref()?);
    if cores.value.is_empty() {
        return None;
    }
    Some(Range { start: SCHEDULE_PAGES, size: cores.value.len() as u64 * PAGE_SIZE })
}

/// The mapping of schedule pages. How many tables it takes does not depend on where the hypervisor keeps them: any
/// page-aligned address stands for that.
fn schedule_mapping(pages: &Range, host: u64) -> Mapping {
    Mapping {
        virt: pages.start,
        phys: host,
        size: pages.size,
        access: Access { read: true, write: false, execute: false },
        memory: Memory::WriteBack,
    }
}

/// The mapping that the hypervisor makes of a region.
fn mapping(region: &Region) -> Mapping {
    let Rights { read, write, execute } = region.rights;
    Mapping {
        virt: region.guest,
        phys: region.host,
        size: region.size,
        access: Access { read, write, execute },
        memory: Memory::WriteBack,
    }
}
