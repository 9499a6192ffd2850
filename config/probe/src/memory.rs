//! RAM that a board file can give away, out of the firmware's memory map.
//!
//! A board file is read on one day, and the hypervisor holds every range of it against the map of another boot. Firmware lays out its own
//! memory anew at each boot: UEFI from the top of the RAM below 4 GiB downwards. So the board file keeps away from what may move.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::facts::{Firmware, MemoryKind, MemoryRange};
use crate::left::LeftOut;
use crate::toml::size_text;

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

    /// Whether both have a byte in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether every byte of `other` is one of its own.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// Where the hypervisor is linked. Below lie firmware data and the page where cores start: a board file gives none of it away.
pub(crate) const HYPERVISOR_START: u64 = 1 << 20;
/// Behind the last address that a board file can name.
pub(crate) const HIGHEST: u64 = 1 << 48;
/// Partitions begin on bounds of a large page, so a range begins there too.
const LARGE_PAGE: u64 = 2 << 20;
/// A range ends on such a bound: the last bytes in front of firmware's tables are of no use and may become firmware's.
const END_BOUND: u64 = 1 << 20;
/// Smaller ranges lie between firmware's own, and come and go with them.
const FRAGMENT: u64 = 16 << 20;
/// UEFI firmware takes memory from the top of the RAM below 4 GiB downwards: how far the highest range there stays away.
const UEFI_MARGIN: u64 = 32 << 20;
const ADDRESSES_32: u64 = 1 << 32;

/// RAM and what is none, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM to give away: begins at 1 MiB or on bounds of 2 MiB, ends on bounds of 1 MiB.
    pub usable: Vec<Range>,
    /// All that the firmware's map says is RAM, from 1 MiB on: no device decodes there.
    pub ram: Vec<Range>,
    /// What firmware keeps.
    pub reserved: Vec<(Range, MemoryKind)>,
    /// What was left out and why.
    pub notes: Vec<String>,
}

/// Concludes from the firmware's map. What firmware names twice counts as what it least allows. Of `taken`, which devices reach for
/// firmware's sake, nothing is given away either.
#[must_use]
pub fn conclude(map: &[MemoryRange], taken: &[Range], firmware: Option<Firmware>) -> Memory {
    let mut notes = Vec::new();
    let mut left = LeftOut::default();
    let mut known: Vec<(Range, MemoryKind)> = Vec::new();
    for entry in map {
        match range(entry.start, entry.size) {
            Ok(range) => known.push((range, entry.kind)),
            Err(why) => left.add(format!("the memory range at {:#x}", entry.start), why),
        }
    }
    left.tell(&mut notes);
    let of = |wanted: fn(MemoryKind) -> bool| known.iter().filter(move |(_, kind)| wanted(*kind));
    let mut reserved: Vec<_> = of(MemoryKind::is_firmwares).copied().collect();
    reserved.sort_by_key(|(range, kind)| (range.start, *kind));
    let kept: Vec<Range> = reserved.iter().map(|(range, _)| *range).collect();
    let all = of(MemoryKind::is_ram).map(|(range, _)| *range).collect();
    let ram = clipped(without_all(merged(all), &kept));
    let moving: Vec<Range> =
        of(|kind| kind == MemoryKind::BootServices).map(|(range, _)| *range).collect();
    let usable = given_away(&ram, taken, &moving, firmware, &mut notes);
    Memory { usable, ram, reserved, notes }
}

/// A range out of the start and size that somebody wrote; why not, where it is none.
pub(crate) fn range(start: u64, size: u64) -> Result<Range, &'static str> {
    match start.checked_add(size) {
        _ if size == 0 => Err("it has no bytes"),
        None => Err("it ends behind the last address"),
        Some(_) if start >= HIGHEST => {
            Err("it lies above 48 bits of address, more than a board file names")
        }
        Some(end) => Ok(Range { start, end: end.min(HIGHEST) }),
    }
}

fn given_away(
    ram: &[Range],
    taken: &[Range],
    moving: &[Range],
    firmware: Option<Firmware>,
    notes: &mut Vec<String>,
) -> Vec<Range> {
    for range in taken.iter().filter(|range| ram.iter().any(|ram| ram.overlaps(range))) {
        notes.push(format!(
            "memory from {:#x} to {:#x} is RAM in the firmware's map, and firmware lets devices reach it: it is left out of the RAM",
            range.start, range.end
        ));
    }
    let ranges = without_all(ram.to_vec(), taken);
    let before = bytes(&ranges);
    // What the hypervisor itself needs begins at 1 MiB, whatever firmware used it for before.
    let movable = |range: &&Range| range.start >= HYPERVISOR_START + UEFI_MARGIN;
    let moving: Vec<Range> = moving.iter().filter(movable).copied().collect();
    let mut ranges: Vec<Range> = without_all(ranges, &moving)
        .into_iter()
        .filter_map(aligned)
        .filter(is_no_fragment)
        .collect();
    if firmware != Some(Firmware::Bios)
        && let Some(highest) = ranges.iter_mut().rfind(|range| range.end <= ADDRESSES_32)
    {
        let end = highest.end.saturating_sub(UEFI_MARGIN);
        *highest = Range { end: end.max(highest.start), ..*highest };
    }
    ranges.retain(|range| range.size() > 0 && is_no_fragment(range));
    let lost = before - bytes(&ranges);
    if lost > 0 {
        notes.push(told(lost, firmware, !moving.is_empty()));
    }
    ranges
}

/// A sentence on the RAM that a board file leaves out.
fn told(lost: u64, firmware: Option<Firmware>, boot_services: bool) -> String {
    let mut why = format!(
        "{} of RAM are left out, because firmware may lay them out otherwise at the next boot: ranges below {}, edges between bounds of {}",
        near_size(lost),
        size_text(FRAGMENT),
        size_text(LARGE_PAGE)
    );
    if boot_services {
        why += ", what UEFI's boot services used";
    }
    if firmware != Some(Firmware::Bios) {
        why += &format!(", and the last {} below 4 GiB, where UEFI grows", size_text(UEFI_MARGIN));
        if firmware.is_none() {
            why += " (whether this is UEFI could not be read)";
        }
    }
    why
}

fn near_size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => size_text(bytes),
        whole if bytes.is_multiple_of(1 << 20) => size_text(whole << 20),
        whole => format!("about {}", size_text(whole << 20)),
    }
}

fn bytes(ranges: &[Range]) -> u64 {
    ranges.iter().map(Range::size).sum()
}

/// The range that holds the hypervisor's start is wanted however small it is.
fn is_no_fragment(range: &Range) -> bool {
    range.size() >= FRAGMENT || range.start == HYPERVISOR_START
}

fn aligned(range: Range) -> Option<Range> {
    let start = match range.start {
        HYPERVISOR_START => HYPERVISOR_START,
        start => start.checked_next_multiple_of(LARGE_PAGE)?,
    };
    let end = range.end / END_BOUND * END_BOUND;
    (start < end).then_some(Range { start, end })
}

/// What lies from 1 MiB on.
fn clipped(ranges: Vec<Range>) -> Vec<Range> {
    let above = |range: Range| Range { start: range.start.max(HYPERVISOR_START), ..range };
    ranges.into_iter().map(above).filter(|range| range.start < range.end).collect()
}

fn without_all(ranges: Vec<Range>, taken: &[Range]) -> Vec<Range> {
    taken.iter().fold(ranges, |left, taken| {
        left.into_iter().flat_map(|range| without(range, *taken)).collect()
    })
}

/// What is left of `range` below and above `taken`.
fn without(range: Range, taken: Range) -> impl Iterator<Item = Range> {
    let below = Range { start: range.start, end: range.end.min(taken.start) };
    let above = Range { start: range.start.max(taken.end), end: range.end };
    let pieces =
        if taken.overlaps(&range) { [Some(below), Some(above)] } else { [Some(range), None] };
    pieces.into_iter().flatten().filter(|piece| piece.start < piece.end)
}

/// Ascending; neighbours and overlaps become one.
fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether a core can be started: there is a page of RAM below 640 KiB, behind page 0.
#[must_use]
pub fn has_start_page(map: &[MemoryRange]) -> bool {
    const PAGE: u64 = 4096;
    const CONVENTIONAL_END: u64 = 0xA_0000;
    map.iter().filter(|entry| entry.kind.is_ram()).any(|entry| {
        let end = entry.start.saturating_add(entry.size).min(CONVENTIONAL_END);
        let first = entry.start.max(PAGE).checked_next_multiple_of(PAGE);
        first.and_then(|first| end.checked_sub(first)).is_some_and(|size| size >= PAGE)
    })
}

/// The largest room for the hypervisor, which begins at 1 MiB; 0 where no RAM is there.
#[must_use]
pub(crate) fn room_at_start(usable: &[Range]) -> u64 {
    let holds = |range: &&Range| (range.start..range.end).contains(&HYPERVISOR_START);
    usable.iter().find(holds).map_or(0, |range| range.end.min(ADDRESSES_32) - HYPERVISOR_START)
}

/// Whether a partition finds a large page behind a hypervisor of this size.
#[must_use]
pub(crate) fn holds_a_partition(usable: &[Range], hypervisor: u64) -> bool {
    let own = Range { start: HYPERVISOR_START, end: HYPERVISOR_START + hypervisor };
    without_all(usable.to_vec(), &[own]).iter().any(|range| {
        let start = range.start.next_multiple_of(LARGE_PAGE);
        range.end.saturating_sub(start) >= LARGE_PAGE
    })
}
