//! Proves the memory of the table: the machine's, each partition's own, and the pages that translate between them.

use bulkhead_table::{PAGE_SIZE, Range, Region, Rights};

use crate::claims::{Claim, apart};
use crate::model::{Partition, Role, System};
use crate::proof::{Party, Proof};
use crate::rules::Rule;

/// Addresses that four levels of nested tables translate: 48 bits. SDM 3C 29.3.2.
const GUEST_END: u64 = 1 << 48;
/// The page of the local APIC, which no guest's RAM may cover. SDM 3A 11.4.1.
const LOCAL_APIC: Range = Range { start: 0xFEE0_0000, size: PAGE_SIZE };
/// Bytes of a page that an entry of the second level maps by itself.
const LARGE: u64 = 2 << 20;

/// Proves all of it.
pub(crate) fn prove(system: &System, proof: &mut Proof) {
    ram(system, proof);
    host(system, proof);
    for partition in &system.partitions {
        let shared = is_shared(system, partition);
        rights(partition, proof);
        guest(partition, shared, proof);
        schedule_pages(partition, shared, proof);
        ept_pages(partition, shared, system.board.large_code_pages, proof);
    }
}

/// Whether a partition runs in windows. One that runs nowhere is told elsewhere.
fn is_shared(system: &System, partition: &Partition) -> bool {
    let core = partition.cpus.first().and_then(|cpu| system.core(*cpu));
    core.is_some_and(|core| matches!(core.role, Role::Shared(_)))
}

fn whole_pages(start: u64, size: u64) -> bool {
    size > 0 && start.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE)
}

fn ram(system: &System, proof: &mut Proof) {
    let mut end = 0;
    let board = || vec![Party::thing(format!("board {}", system.board.name))];
    for range in &system.board.memory {
        let ascends = range.start >= end && range.start.checked_add(range.size).is_some();
        proof.fact(Rule::Ram, ascends && whole_pages(range.start, range.size), || {
            let (start, end) = (range.start, range.end());
            (format!("the board's RAM at {start:#x}-{end:#x} is not behind the one before it, or not whole pages"), board())
        });
        end = range.end();
    }
}

/// Regions with their owners: the hypervisor's range, then each partition's memory.
fn host_claims(system: &System) -> Vec<Claim> {
    let mut claims = vec![Claim::new(system.hypervisor, Party::thing("the hypervisor"))];
    for partition in &system.partitions {
        let claim = |region: &Region| {
            Claim::new(Range { start: region.host, size: region.size }, partition.party())
        };
        claims.extend(partition.memory.iter().map(claim));
    }
    claims
}

fn host(system: &System, proof: &mut Proof) {
    let claims = host_claims(system);
    for Claim { range, party } in &claims {
        let sound = whole_pages(range.start, range.size)
            && range.start.checked_add(range.size).is_some()
            && covers(&system.board.memory, range);
        proof.fact(Rule::InsideRam, sound, || {
            let (start, end) = (range.start, range.end());
            let message = format!(
                "memory {start:#x}-{end:#x} of {party} is not whole pages of the board's RAM"
            );
            (message, vec![party.clone()])
        });
    }
    apart(proof, Rule::HostPage, "the machine's memory", claims);
}

/// Whether every byte of `range` is in one of `pieces`; neighbours count as one.
pub(crate) fn covers(pieces: &[Range], range: &Range) -> bool {
    let mut sorted: Vec<Range> = pieces.to_vec();
    sorted.sort_by_key(|piece| piece.start);
    let mut at = range.start;
    for piece in sorted {
        if piece.start <= at && at < piece.end() {
            at = piece.end();
        }
    }
    at >= range.end()
}

/// Guest-physical ranges of a partition's memory.
pub(crate) fn guest_ranges(partition: &Partition) -> Vec<Range> {
    let range = |region: &Region| Range { start: region.guest, size: region.size };
    partition.memory.iter().map(range).collect()
}

/// SDM 3C 29.3.3.1: writable and not readable is a misconfiguration; a region that grants nothing maps nothing.
fn rights(partition: &Partition, proof: &mut Proof) {
    for region in &partition.memory {
        let Rights { read, write, execute } = region.rights;
        proof.fact(Rule::Rights, read || (execute && !write), || {
            let message = format!(
                "the memory of {} at guest-physical {:#x} is not readable",
                partition.party(),
                region.guest
            );
            (message, vec![partition.party()])
        });
    }
}

/// The pages of the schedule, one for each vCPU of a time-shared core.
pub(crate) fn schedule_range(partition: &Partition) -> Range {
    Range {
        start: partition.schedule_at,
        size: (partition.cpus.len() as u64).saturating_mul(PAGE_SIZE),
    }
}

fn guest(partition: &Partition, shared: bool, proof: &mut Proof) {
    let party = partition.party();
    let of = |what: &str| Party { name: format!("{what} of {}", party.name), ..party.clone() };
    let ranges = guest_ranges(partition);
    for range in &ranges {
        let sound = whole_pages(range.start, range.size)
            && range.start.checked_add(range.size).is_some_and(|end| end <= GUEST_END);
        proof.fact(Rule::GuestPage, sound, || {
            let (start, end) = (range.start, range.end());
            let message =
                format!("{start:#x}-{end:#x} of {party} is not whole pages of a guest's addresses");
            (message, vec![party.clone()])
        });
    }
    let mut claims: Vec<Claim> =
        ranges.into_iter().map(|range| Claim::new(range, of("memory"))).collect();
    claims.push(Claim::new(LOCAL_APIC, of("local APIC")));
    if shared {
        claims.push(Claim::new(schedule_range(partition), of("schedule pages")));
    }
    apart(proof, Rule::GuestPage, "guest-physical", claims);
}

fn schedule_pages(partition: &Partition, shared: bool, proof: &mut Proof) {
    let range = schedule_range(partition);
    let (party, start) = (partition.party(), range.start);
    if shared {
        let sound = start > 0
            && start.is_multiple_of(PAGE_SIZE)
            && start.checked_add(range.size).is_some_and(|end| end <= GUEST_END);
        proof.fact(Rule::SchedulePage, sound, || {
            (
                format!("the schedule page of {party} is at {start:#x}, which no page can be"),
                vec![party],
            )
        });
    } else {
        proof.fact(Rule::SchedulePage, start == 0, || {
            (format!("{party} has a schedule page at {start:#x}, and no window"), vec![party])
        });
    }
}

fn ept_pages(partition: &Partition, shared: bool, large_code_pages: bool, proof: &mut Proof) {
    let needed = tables(partition, shared, large_code_pages);
    let have = u128::from(partition.ept_pages);
    proof.fact(Rule::EptPages, have >= needed, || {
        let party = partition.party();
        (
            format!("{party} has {have} pages for its nested page tables, and needs {needed}"),
            vec![party],
        )
    });
}

/// First and last entry of a level that need a table below them, or that a table is there for.
type Span = (u64, u64);

/// Pages of nested tables that a partition needs: the root, and one for each entry of the levels above the last
/// that does not map its whole span by itself. Code maps none so, unless the board says that its processor is free of the iTLB multihit
/// erratum. Counted by spans, so that a terabyte costs no more than a page.
fn tables(partition: &Partition, shared: bool, large_code_pages: bool) -> u128 {
    let mut pieces: Vec<(Range, bool)> = partition
        .memory
        .iter()
        .map(|region| {
            let range = Range { start: region.guest, size: region.size };
            let may_be_large = large_code_pages || !region.rights.execute;
            (range, may_be_large && (region.guest ^ region.host).is_multiple_of(LARGE))
        })
        .collect();
    if shared {
        pieces.push((schedule_range(partition), false));
    }
    pieces.retain(|(range, _)| range.size > 0);
    1 + [LARGE, LARGE << 9, LARGE << 18]
        .map(|span| distinct(below(&pieces, span)))
        .iter()
        .sum::<u128>()
}

/// Entries, each of which covers `span` bytes, that need a table.
fn below(pieces: &[(Range, bool)], span: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    for (range, large) in pieces {
        let (first, last) = (range.start / span, (range.end() - 1) / span);
        if span > LARGE || !large {
            spans.push((first, last));
            continue;
        }
        // Large pages serve the inside; what is left at either end needs a table.
        if !range.start.is_multiple_of(span) {
            spans.push((first, first));
        }
        if !range.end().is_multiple_of(span) {
            spans.push((last, last));
        }
    }
    spans
}

/// How many numbers are in at least one of the spans.
fn distinct(mut spans: Vec<Span>) -> u128 {
    spans.sort_unstable();
    let mut count = 0;
    let mut next = 0_u128;
    for (first, last) in spans {
        let from = u128::from(first).max(next);
        let behind = u128::from(last) + 1;
        count += behind.saturating_sub(from);
        next = next.max(behind);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_touch_cover_what_crosses_them() {
        let range = |start, size| Range { start, size };
        let pieces = [range(8, 4), range(0, 8), range(20, 4)];
        assert!(covers(&pieces, &range(2, 10)) && covers(&pieces, &range(20, 4)));
        assert!(!covers(&pieces, &range(2, 11)) && !covers(&pieces, &range(12, 1)));
        assert!(!covers(&[], &range(0, 1)));
    }

    #[test]
    fn spans_that_meet_count_once() {
        assert_eq!(distinct(vec![(0, 0), (0, 3), (2, 5), (9, 9)]), 7);
        assert_eq!(distinct(vec![(u64::MAX, u64::MAX), (0, u64::MAX)]), 1 << 64);
        assert_eq!(distinct(Vec::new()), 0);
    }
}
