//! The firmware's memory map, turned into what a board file says: RAM for the system, and what is not.

use alloc::vec::Vec;

use crate::facts::{MemoryKind, MemoryRange};

/// A run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
}

impl Range {
    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Below lie firmware data and the page where cores start: a board file gives none of it away.
const LOW_MEMORY_END: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// What a board file can name.
const HIGHEST: u64 = 1 << 48;

fn range(from: &MemoryRange) -> Option<Range> {
    let end = from.start.checked_add(from.size)?.min(HIGHEST);
    (from.start < end).then_some(Range { start: from.start, end })
}

/// RAM above 1 MiB in whole pages, ascending; and the other ranges, ascending. What firmware names twice counts as what
/// it least allows.
#[must_use]
pub fn memory_and_reserved(map: &[MemoryRange]) -> (Vec<Range>, Vec<(Range, MemoryKind)>) {
    let mut reserved: Vec<(Range, MemoryKind)> = map
        .iter()
        .filter(|entry| entry.kind != MemoryKind::Usable)
        .filter_map(|entry| Some((range(entry)?, entry.kind)))
        .collect();
    reserved.sort_by_key(|(range, kind)| (range.start, *kind));
    let mut usable: Vec<Range> =
        map.iter().filter(|entry| entry.kind == MemoryKind::Usable).filter_map(range).collect();
    usable.sort_by_key(|range| range.start);
    for (taken, _) in &reserved {
        usable = usable.into_iter().flat_map(|range| without(range, *taken)).collect();
    }
    (merged(usable).into_iter().filter_map(whole_pages).collect(), reserved)
}

/// What is left of `range` below and above `taken`.
fn without(range: Range, taken: Range) -> impl Iterator<Item = Range> {
    let below = Range { start: range.start, end: range.end.min(taken.start) };
    let above = Range { start: range.start.max(taken.end), end: range.end };
    let pieces = if taken.start < range.end && range.start < taken.end {
        [Some(below), Some(above)]
    } else {
        [Some(range), None]
    };
    pieces.into_iter().flatten().filter(|piece| piece.start < piece.end)
}

/// Neighbours and overlaps become one.
fn merged(ranges: Vec<Range>) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn whole_pages(range: Range) -> Option<Range> {
    let start = range.start.max(LOW_MEMORY_END).checked_next_multiple_of(PAGE)?;
    let end = range.end / PAGE * PAGE;
    (start < end).then_some(Range { start, end })
}
