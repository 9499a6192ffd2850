//! Places the partitions' memory: lowest free address first, in the order of the file, on 2 MiB bounds; a GiB and more on bounds of 1 GiB
//! where there is room.
//!
//! On these bounds the nested page tables take large pages, so that a partition costs few of them and
//! few misses of the translation cache. What fits no free range in one piece is put together from several, the largest first.

use bulkhead_table::{MAX_CORES, PAGE_SIZE, Range, Region, Rights, pc};
use hv_core::mappings::{SchedulePages, View};
use hv_core::paging::{self, Format, LargePages};

use crate::board::CheckedBoard;
use crate::boot_info;
use crate::compare::Comparisons;
use crate::diagnostics::{Finding, Findings};
use crate::programs;
use crate::rules::Rule;
use crate::schema::{Partition, SystemFile};
use crate::source::At;
use crate::units::size_text;

/// Alignment of a partition's memory in the machine.
const ALIGNMENT: u64 = 2 << 20;

/// The same of one that has as much, where the machine has room.
const HUGE: u64 = 1 << 30;

/// The last bytes of RAM below 4 GiB, which are given away last: UEFI firmware keeps its own memory there, and how much differs with
/// its version, the size of RAM and the devices. Seen: 19 to 21 MiB.
pub(crate) const EDGE: u64 = 32 << 20;

/// Guest-physical address of the schedule page of vCPU 0; those of the others follow it. Between guest RAM and the
/// local APIC at 0xFEE0_0000, with room for as many pages as there can be cores.
const SCHEDULE_PAGES: u64 = 0xFEB0_0000;

const _: () = assert!(SCHEDULE_PAGES + MAX_CORES as u64 * PAGE_SIZE <= 0xFEC0_0000);

/// Memory of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// Ascending by what the guest sees.
    pub regions: Vec<Region>,
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
            plausible(partition, size, findings).then_some(size)
        })
        .collect();
    let Some((memory, own)) =
        board.and_then(|board| Some((board.memory.as_ref()?, board.hypervisor.as_ref()?)))
    else {
        return vec![None; sizes.len()];
    };
    let mut free = free_ranges(memory, own.value);
    let edges: Vec<u64> = memory.iter().filter_map(|at| edge(&at.value)).collect();
    let partitions = system.partitions.iter();
    partitions
        .zip(sizes)
        .map(|(partition, size)| {
            let (name, size) = (partition.name.value.as_str(), size?);
            let Some((regions, spare)) =
                place(&mut free, &edges, size.value, &mut findings.comparisons)
            else {
                findings.push(does_not_fit(partition, size, &free, memory));
                return None;
            };
            let large_code_pages = board.is_some_and(|board| board.large_code_pages);
            if large_code_pages {
                large_pages(name, size, spare, findings);
            }
            placement(partition, size, regions, large_code_pages, findings)
        })
        .collect()
}

fn plausible(partition: &Partition, size: &At<u64>, findings: &mut Findings) -> bool {
    let name = &partition.name.value;
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
    } else if size.value > pc::RAM_END && !programs::is_pc(partition) {
        Finding::new(
            Rule::MemoryTooLarge,
            format!("the memory of `{name}` reaches into the addresses of devices"),
            format!(
                "write {} or less, or `platform = \"pc\"`: a PC's memory goes on at {}",
                size_text(pc::RAM_END),
                size_text(pc::HIGH_RAM)
            ),
        )
        .at(size.place, format!("more than {}", size_text(pc::RAM_END)))
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

/// Takes `size` bytes for a guest: the regions of its memory, and how many bytes up to the next bound nobody else gets.
fn place(
    free: &mut Vec<Range>,
    edges: &[u64],
    size: u64,
    comparisons: &mut Comparisons,
) -> Option<(Vec<Region>, u64)> {
    let parts = [(0, size.min(pc::RAM_END)), (pc::HIGH_RAM, size.saturating_sub(pc::RAM_END))];
    let bounds = [HUGE, ALIGNMENT].into_iter().filter(|bound| *bound == ALIGNMENT || size >= HUGE);
    for bound in bounds {
        let (mut left, mut regions, mut spare) = (free.clone(), Vec::new(), 0);
        let placed = parts.iter().filter(|(_, size)| *size > 0).all(|(guest, size)| {
            let pieces = take(&mut left, edges, *size, bound, comparisons);
            let mut guest = *guest;
            for (piece, behind) in pieces.iter().flatten() {
                let (host, size) = (piece.start, piece.size);
                regions.push(Region { guest, host, size, rights: Rights::ALL });
                guest += size;
                spare = *behind;
            }
            pieces.is_some()
        });
        if placed {
            *free = left;
            return Some((regions, spare));
        }
    }
    None
}

/// The first byte of the last [`EDGE`] bytes of a range that ends below 4 GiB.
fn edge(range: &Range) -> Option<u64> {
    const LOW_END: u64 = 1 << 32;
    (range.end() <= LOW_END).then(|| range.end().saturating_sub(EDGE).max(range.start))
}

/// Where the board's RAM ends that this range reaches near to, if it does.
pub(crate) fn near_end(memory: &[Range], range: &Range) -> Option<u64> {
    let holds = memory.iter().find(|ram| ram.contains(range))?;
    edge(holds).filter(|edge| range.end() > *edge).map(|_| holds.end())
}

/// Takes `size` bytes on such bounds: from the first range that has them all without its edge, from the first that has them, or from several. With each piece, how many bytes behind
/// it nobody else gets.
fn take(
    free: &mut Vec<Range>,
    edges: &[u64],
    size: u64,
    bound: u64,
    comparisons: &mut Comparisons,
) -> Option<Vec<(Range, u64)>> {
    let usable = |range: &Range| {
        let start = range.start.checked_next_multiple_of(bound)?;
        Some(Range { start, size: range.end().checked_sub(start)? })
    };
    let inner = |range: &Range| {
        let edge = edges.iter().find(|edge| range.start <= **edge && **edge < range.end());
        let end = edge.copied().unwrap_or(range.end());
        usable(&Range { start: range.start, size: end - range.start })
    };
    let mut first = |part: &dyn Fn(&Range) -> Option<Range>| {
        free.iter().find_map(|range| {
            comparisons.add(1);
            part(range).filter(|part| part.size >= size)
        })
    };
    let pieces = match first(&inner).or_else(|| first(&usable)) {
        Some(range) => vec![Range { size, ..range }],
        None => together(free.iter().filter_map(usable).collect(), size, bound)?,
    };
    Some(pieces.into_iter().map(|piece| (piece, carve(free, piece))).collect())
}

/// `size` bytes out of several ranges, the largest first; all but the last on whole bounds.
fn together(mut ranges: Vec<Range>, size: u64, bound: u64) -> Option<Vec<Range>> {
    ranges.sort_by_key(|range| std::cmp::Reverse(range.size));
    let (mut pieces, mut missing) = (Vec::new(), size);
    for range in ranges {
        let most = if range.size >= missing { missing } else { range.size / bound * bound };
        if most > 0 {
            pieces.push(Range { size: most, ..range });
            missing -= most;
        }
    }
    (missing == 0).then_some(pieces)
}

/// Takes a piece out of the free range that holds it. Up to the next bound behind it nobody else gets any: returns how much that is.
fn carve(free: &mut Vec<Range>, piece: Range) -> u64 {
    let Some(at) = free.iter().position(|range| range.contains(&piece)) else { return 0 };
    let range = free.remove(at);
    let end = piece.end().next_multiple_of(ALIGNMENT).min(range.end());
    let before = Range { start: range.start, size: piece.start - range.start };
    let behind = Range { start: end, size: range.end() - end };
    let rest = [before, behind].into_iter().filter(|rest| rest.size > 0);
    free.splice(at..at, rest);
    end - piece.end()
}

/// The most that a partition can have of what is free: whole large pages, in no more pieces than its list holds, and below the addresses of
/// devices unless it is a PC.
fn most(free: &[Range], is_pc: bool) -> u64 {
    let mut sizes: Vec<u64> = free.iter().map(|range| range.size / ALIGNMENT * ALIGNMENT).collect();
    sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
    let limit = if is_pc { u64::MAX } else { pc::RAM_END };
    let fits =
        |size: &u64| place(&mut free.to_vec(), &[], *size, &mut Comparisons::default()).is_some();
    let sums = (1..=sizes.len()).rev().map(|count| sizes.iter().take(count).sum::<u64>());
    sums.map(|size| size.min(limit)).filter(|size| *size > 0).find(fits).unwrap_or(0)
}

fn does_not_fit(
    partition: &Partition,
    size: &At<u64>,
    free: &[Range],
    memory: &[At<Range>],
) -> Finding {
    let name = &partition.name.value;
    let left = most(free, programs::is_pc(partition));
    let remedy = if left == 0 {
        "give the partitions before it, or the hypervisor's range, less: nothing is left on bounds of 2 MiB".to_owned()
    } else {
        format!(
            "write {} or less here, or give the partitions before it less: so much is left for one, outside the hypervisor's range and the partitions before this one, on bounds of {}",
            size_text(left),
            size_text(ALIGNMENT)
        )
    };
    let message = format!("the memory of `{name}` does not fit the board");
    let finding = Finding::new(Rule::MemoryDoesNotFit, message, remedy)
        .at(size.place, format!("{} are free", size_text(left)));
    match memory.first() {
        Some(first) => finding.with(first.place, "the board's memory begins here"),
        None => finding,
    }
}

fn placement(
    partition: &Partition,
    size: &At<u64>,
    regions: Vec<Region>,
    large_code_pages: bool,
    findings: &mut Findings,
) -> Option<Placement> {
    let schedule = schedule_pages(partition);
    // How many tables these pages take does not depend on where the hypervisor keeps them: any page stands for that.
    let pages = schedule.map(|pages| SchedulePages {
        guest: pages.start,
        host: 0,
        pages: (pages.size / PAGE_SIZE) as usize,
    });
    let view = View { memory: &regions, schedule: pages, large_code_pages };
    match paging::tables_needed(Format::Ept, LargePages::Up2M, view.mappings()) {
        Ok(ept_pages) => Some(Placement { regions, schedule, ept_pages }),
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
/// Where the machine's memory has none to `spare` behind it, there is nothing to be done about it.
fn large_pages(name: &str, size: &At<u64>, spare: u64, findings: &mut Findings) {
    if size.value.is_multiple_of(ALIGNMENT) || spare == 0 {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn range(start: u64, end: u64) -> Range {
        Range { start, size: end - start }
    }

    fn placed(free: &mut Vec<Range>, size: u64) -> Option<Vec<(u64, u64, u64)>> {
        placed_off(&[], free, size)
    }

    fn placed_off(edges: &[u64], free: &mut Vec<Range>, size: u64) -> Option<Vec<(u64, u64, u64)>> {
        let (regions, _) = place(free, edges, size, &mut Comparisons::default())?;
        Some(regions.iter().map(|region| (region.guest, region.host, region.size)).collect())
    }

    #[test]
    fn a_gibibyte_and_more_takes_bounds_of_one_where_there_is_room() {
        let mut free = vec![range(32 * MIB, 3 * GIB), range(4 * GIB, 8 * GIB)];
        assert_eq!(placed(&mut free, 2 * GIB), Some(vec![(0, GIB, 2 * GIB)]));
        assert_eq!(free, [range(32 * MIB, GIB), range(4 * GIB, 8 * GIB)]);
        assert_eq!(placed(&mut free, 8 * MIB), Some(vec![(0, 32 * MIB, 8 * MIB)]));
        let wanted = vec![(0, 4 * GIB, 3 * GIB), (4 * GIB, 7 * GIB, GIB / 2)];
        assert_eq!(placed(&mut free, 7 * GIB / 2), Some(wanted));
        assert_eq!(free, [range(40 * MIB, GIB), range(15 * GIB / 2, 8 * GIB)]);
        assert_eq!(
            placed(&mut free, GIB),
            Some(vec![(0, 40 * MIB, 984 * MIB), (984 * MIB, 15 * GIB / 2, 40 * MIB)])
        );
    }

    #[test]
    fn the_edge_of_ram_is_given_away_last() {
        let all = [range(32 * MIB, 128 * MIB), range(4 * GIB, 5 * GIB)];
        let edges: Vec<u64> = all.iter().filter_map(edge).collect();
        assert_eq!(edges, [96 * MIB]);
        let mut free = all.to_vec();
        assert_eq!(placed_off(&edges, &mut free, 64 * MIB), Some(vec![(0, 32 * MIB, 64 * MIB)]));
        let mut free = all.to_vec();
        assert_eq!(placed_off(&edges, &mut free, 66 * MIB), Some(vec![(0, 4 * GIB, 66 * MIB)]));
        let mut free = vec![all[0]];
        assert_eq!(placed_off(&edges, &mut free, 66 * MIB), Some(vec![(0, 32 * MIB, 66 * MIB)]));
        assert_eq!(near_end(&all, &range(32 * MIB, 96 * MIB)), None);
        assert_eq!(near_end(&all, &range(32 * MIB, 97 * MIB)), Some(128 * MIB));
        assert_eq!(near_end(&all, &range(4 * GIB, 5 * GIB)), None);
    }

    #[test]
    fn what_is_not_there_leaves_all_as_it_was() {
        let all = vec![range(32 * MIB, GIB), range(4 * GIB, 5 * GIB)];
        let mut free = all.clone();
        assert_eq!(placed(&mut free, 2 * GIB - 30 * MIB), None);
        assert_eq!(free, all);
        assert!(placed(&mut free, 2 * GIB - 32 * MIB).is_some() && free.is_empty());
    }

    proptest! {
        #[test]
        fn memory_is_given_once_and_where_the_guest_wants_it(
            sizes in prop::collection::vec(1_u64..3000, 1..6), gaps in prop::collection::vec(1_u64..700, 1..5),
        ) {
            let mut free = Vec::new();
            let mut start = 32 * MIB;
            for gap in gaps {
                free.push(range(start, start + gap * 10 * MIB));
                start += (gap + 100) * 10 * MIB;
            }
            let mut given: Vec<Range> = Vec::new();
            for size in sizes {
                let before: u64 = free.iter().map(|range| range.size).sum();
                let Some(regions) = placed(&mut free, size * 2 * MIB) else { continue };
                let after: u64 = free.iter().map(|range| range.size).sum();
                prop_assert_eq!(before - after, size * 2 * MIB);
                let mut guest = 0;
                for (at, host, size) in regions {
                    prop_assert!(at == guest || (guest == 3 * GIB && at == 4 * GIB));
                    guest = at + size;
                    let piece = range(host, host + size);
                    prop_assert!(host.is_multiple_of(ALIGNMENT) && (at ^ host).is_multiple_of(ALIGNMENT));
                    prop_assert!(given.iter().chain(&free).all(|other| !other.overlaps(&piece)));
                    given.push(piece);
                }
                prop_assert!(free.is_sorted_by_key(|range| range.start));
            }
        }
    }
}
