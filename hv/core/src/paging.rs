//! Builds 4-level page tables: the hypervisor's own and the extended ones of the partitions.
//!
//! The compiler asks [`tables_needed`] and cuts each pool to exactly that; the hypervisor calls [`build`] on
//! the pool at boot. Both work from the same list of mappings, so the pool cannot be too small. Nothing
//! recurses, and every loop is bounded by the number of mappings or of the tables that they fill.

use core::fmt;
use hv_defs::{ept, paging as host};

/// Bytes of the smallest page and of one table.
pub const PAGE: u64 = 4096;
/// Address bits that 4-level paging translates.
const VIRTUAL_BITS: u32 = 48;
/// Address bits that an entry can hold.
const PHYSICAL_BITS: u32 = 52;
/// Level of the root; a leaf stands at level 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB).
const ROOT: u32 = 4;
const ENTRIES: u64 = 512;

/// One table of any level.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(4096))]
pub struct PageTable(pub [u64; 512]);

const _: () = assert!(size_of::<PageTable>() == PAGE as usize);

impl PageTable {
    /// A table that maps nothing.
    pub const EMPTY: Self = Self([0; 512]);
}

/// What may be done with a mapped page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

/// How a page is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// RAM. In an EPT the guest's own PAT is ignored: an uncached view of RAM would turn each of its locked
    /// instructions into a bus lock, which other cores feel.
    WriteBack,
    /// Device registers.
    Uncached,
}

/// A range of addresses and what stands behind it. All three numbers are bytes and page-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address translated: virtual for the host, guest-physical for an EPT.
    pub virt: u64,
    /// Host-physical address behind it.
    pub phys: u64,
    /// Length.
    pub size: u64,
    /// Rights.
    pub access: Access,
    /// Caching.
    pub memory: Memory,
    /// The largest page that this mapping may take. The processor's own limit comes on top.
    pub largest: LargePages,
}

/// Which processor structure is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Ordinary page tables with supervisor pages; EFER.NXE must be set. SDM 3A 4.5.
    Host,
    /// Extended page tables. SDM 3C 29.3.2.
    Ept,
    /// Nested page tables of AMD-V: those of the host, walked as a user's. APM 2 15.25.5.
    Npt,
}

/// The largest page that may be used; the processor must support it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LargePages {
    /// 4 KiB only.
    None,
    /// 4 KiB and 2 MiB.
    Up2M,
    /// 4 KiB, 2 MiB and 1 GiB.
    Up1G,
}

/// Why a list of mappings cannot be built. `mapping` is an index into the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// An address or the size is not a multiple of the page size; without a mapping: the pool's address.
    Unaligned {
        /// The offender.
        mapping: Option<usize>,
    },
    /// Two mappings share an address.
    Overlap {
        /// The earlier one.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// Reaches beyond 48-bit canonical (host) or 48-bit (EPT) addresses, or beyond 52 bits of physical
    /// address; without a mapping: the pool does.
    OutOfRange {
        /// The offender.
        mapping: Option<usize>,
    },
    /// The pool has fewer tables than needed.
    PoolTooSmall {
        /// What [`tables_needed`] says.
        needed: usize,
    },
    /// The size is zero.
    EmptySize {
        /// The offender.
        mapping: usize,
    },
    /// Writable and not readable: an EPT misconfiguration, and not expressible on the host.
    WriteOnly {
        /// The offender.
        mapping: usize,
    },
    /// The tables that are extended map the address already.
    Taken {
        /// The offender.
        mapping: usize,
    },
    /// No rights at all; or, on the host, not readable, which ordinary page tables cannot express.
    Unreadable {
        /// The offender.
        mapping: usize,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = |f: &mut fmt::Formatter<'_>, mapping: Option<usize>| match mapping {
            Some(index) => write!(f, "mapping {index}"),
            None => write!(f, "the table pool"),
        };
        match *self {
            Self::Unaligned { mapping } => {
                subject(f, mapping)?;
                write!(f, " is not aligned to 4 KiB")
            }
            Self::OutOfRange { mapping } => {
                subject(f, mapping)?;
                write!(f, " reaches beyond the addresses that 4-level tables hold")
            }
            Self::Overlap { first, second } => write!(f, "mappings {first} and {second} overlap"),
            Self::PoolTooSmall { needed } => {
                write!(f, "the table pool is too small: {needed} tables are needed")
            }
            Self::EmptySize { mapping } => write!(f, "mapping {mapping} is empty"),
            Self::WriteOnly { mapping } => {
                write!(f, "mapping {mapping} is writable and not readable")
            }
            Self::Taken { mapping } => {
                write!(f, "mapping {mapping} lies where the shared tables map something already")
            }
            Self::Unreadable { mapping } => write!(f, "mapping {mapping} is not readable"),
        }
    }
}

impl core::error::Error for MapError {}

/// Bytes that one entry of a table at `level` covers.
const fn span(level: u32) -> u64 {
    PAGE << (9 * (level - 1))
}

/// Index of `address` in a table at `level`.
const fn index(address: u64, level: u32) -> usize {
    ((address / span(level)) % ENTRIES) as usize
}

impl LargePages {
    /// Highest level at which a leaf may stand.
    const fn top_leaf(self) -> u32 {
        match self {
            Self::None => 1,
            Self::Up2M => 2,
            Self::Up1G => 3,
        }
    }
}

impl Mapping {
    /// First address as a 48-bit number: canonical sign extension taken off.
    const fn start(&self) -> u64 {
        self.virt & ((1 << VIRTUAL_BITS) - 1)
    }

    const fn end(&self) -> u64 {
        self.start() + self.size
    }

    /// Whether whole entries at `level` inside the mapping may be leaves.
    const fn large_at(&self, level: u32, pages: LargePages) -> bool {
        level <= pages.top_leaf()
            && level <= self.largest.top_leaf()
            && (self.virt ^ self.phys).is_multiple_of(span(level))
    }

    const fn touches(&self, region: u64, level: u32) -> bool {
        self.start() / span(level) <= region && region <= (self.end() - 1) / span(level)
    }

    /// Whether this mapping needs a table below the entry `region` at `level`, which it touches.
    const fn splits(&self, region: u64, level: u32, pages: LargePages) -> bool {
        let start = region * span(level);
        let whole = self.start() <= start && start + span(level) <= self.end();
        !(whole && self.large_at(level, pages))
    }

    fn check(&self, format: Format, mapping: usize) -> Result<(), MapError> {
        if self.size == 0 {
            return Err(MapError::EmptySize { mapping });
        }
        if !(self.virt | self.phys | self.size).is_multiple_of(PAGE) {
            return Err(MapError::Unaligned { mapping: Some(mapping) });
        }
        let out = MapError::OutOfRange { mapping: Some(mapping) };
        let last = self.virt.checked_add(self.size - 1).ok_or(out)?;
        let last_physical = self.phys.checked_add(self.size - 1).ok_or(out)?;
        let reachable = match format {
            Format::Ept | Format::Npt => last >> VIRTUAL_BITS == 0,
            Format::Host => {
                let half = VIRTUAL_BITS - 1;
                last >> half == 0 || self.virt >> half == u64::MAX >> half
            }
        };
        if !reachable || last_physical >> PHYSICAL_BITS != 0 {
            return Err(out);
        }
        let Access { read, write, execute } = self.access;
        if write && !read {
            return Err(MapError::WriteOnly { mapping });
        }
        if !read && (format != Format::Ept || !execute) {
            return Err(MapError::Unreadable { mapping });
        }
        Ok(())
    }
}

fn check(format: Format, mappings: impl Iterator<Item = Mapping> + Clone) -> Result<(), MapError> {
    for (second, mapping) in mappings.clone().enumerate() {
        mapping.check(format, second)?;
        let mut earlier = mappings.clone().take(second);
        if let Some(first) =
            earlier.position(|m| m.start() < mapping.end() && mapping.start() < m.end())
        {
            return Err(MapError::Overlap { first, second });
        }
    }
    Ok(())
}

/// Tables at `level - 1` that `mapping` needs and none of the `earlier` ones already has.
///
/// Mappings are disjoint, so two of them meet in at most the first or the last region of each.
fn new_tables_below(
    level: u32,
    mapping: &Mapping,
    earlier: impl Iterator<Item = Mapping> + Clone,
    pages: LargePages,
) -> u64 {
    let first = mapping.start() / span(level);
    let last = (mapping.end() - 1) / span(level);
    let needed = |region: u64| {
        u64::from(
            mapping.splits(region, level, pages)
                && !earlier.clone().any(|other| other.touches(region, level)),
        )
    };
    if first == last {
        return needed(first);
    }
    let inner = if mapping.large_at(level, pages) { 0 } else { last - first - 1 };
    needed(first) + inner + needed(last)
}

/// How many tables, the root counted, [`build`] takes from its pool for these mappings.
///
/// # Errors
/// A [`MapError`] about the mappings, never [`MapError::PoolTooSmall`].
pub fn tables_needed(
    format: Format,
    pages: LargePages,
    mappings: impl Iterator<Item = Mapping> + Clone,
) -> Result<usize, MapError> {
    check(format, mappings.clone())?;
    let mut tables = 1;
    for (position, mapping) in mappings.clone().enumerate() {
        let earlier = mappings.clone().take(position);
        for level in 2..=ROOT {
            tables += new_tables_below(level, &mapping, earlier.clone(), pages);
        }
    }
    // 2^36 tables map everything that there is; a 32-bit compiler host would be out of memory first.
    Ok(usize::try_from(tables).unwrap_or(usize::MAX))
}

fn leaf(format: Format, level: u32, mapping: &Mapping) -> u64 {
    let when = |wanted: bool, bit: u64| if wanted { bit } else { 0 };
    let Access { read, write, execute } = mapping.access;
    match format {
        Format::Host | Format::Npt => {
            let cache = match mapping.memory {
                Memory::WriteBack => 0,
                Memory::Uncached => host::CACHE_DISABLE | host::WRITE_THROUGH,
            };
            host::PRESENT
                | when(format == Format::Npt, host::USER)
                | host::ACCESSED
                | host::DIRTY
                | cache
                | when(write, host::WRITABLE)
                | when(!execute, host::NO_EXECUTE)
                | when(level > 1, host::LARGE)
        }
        Format::Ept => {
            let cache = match mapping.memory {
                Memory::WriteBack => ept::WRITE_BACK | ept::IGNORE_PAT,
                Memory::Uncached => ept::UNCACHEABLE,
            };
            cache
                | when(read, ept::READ)
                | when(write, ept::WRITE)
                | when(execute, ept::EXECUTE)
                | when(level > 1, ept::LARGE)
        }
    }
}

/// An entry that leads to a lower table grants everything: the leaf decides.
const fn branch(format: Format) -> u64 {
    match format {
        Format::Host => host::PRESENT | host::WRITABLE | host::ACCESSED,
        Format::Npt => host::PRESENT | host::WRITABLE | host::USER | host::ACCESSED,
        Format::Ept => ept::ACCESS,
    }
}

const fn is_used(format: Format, entry: u64) -> bool {
    match format {
        Format::Host | Format::Npt => entry & host::PRESENT != 0,
        Format::Ept => entry & ept::ACCESS != 0,
    }
}

/// Tables handed out from the front of a pool.
struct Pool<'p> {
    tables: &'p mut [PageTable],
    address: u64,
    used: usize,
}

impl Pool<'_> {
    /// The table that the entry at `index` of `table` leads to; a fresh one when the entry is empty.
    fn below(&mut self, format: Format, table: usize, index: usize) -> Option<usize> {
        let entry = *self.tables.get(table)?.0.get(index)?;
        if is_used(format, entry) {
            return table_index(entry, self.address);
        }
        let fresh = self.used;
        self.tables.get_mut(fresh)?.0 = [0; 512];
        self.used += 1;
        self.tables.get_mut(table)?.0[index] =
            (self.address + fresh as u64 * PAGE) | branch(format);
        Some(fresh)
    }

    /// Writes as many leaves of one size as fit in one table, from `done` bytes into the mapping on.
    /// Returns the bytes mapped.
    fn fill(
        &mut self,
        format: Format,
        pages: LargePages,
        mapping: &Mapping,
        done: u64,
    ) -> Option<u64> {
        let address = mapping.start() + done;
        let fits = |level: &u32| {
            mapping.large_at(*level, pages)
                && address.is_multiple_of(span(*level))
                && mapping.size - done >= span(*level)
        };
        let level = (2..ROOT).rev().find(fits).unwrap_or(1);
        let mut table = 0;
        for upper in ((level + 1)..=ROOT).rev() {
            table = self.below(format, table, index(address, upper))?;
        }
        let template = leaf(format, level, mapping) | (mapping.phys + done);
        let first = index(address, level);
        let count = ((mapping.size - done) / span(level)).min(ENTRIES - first as u64);
        let entries = self.tables.get_mut(table)?.0.get_mut(first..first + count as usize)?;
        for (number, entry) in entries.iter_mut().enumerate() {
            *entry = template + number as u64 * span(level);
        }
        Some(count * span(level))
    }
}

/// Index in the pool of the table to which `entry` points.
fn table_index(entry: u64, pool_address: u64) -> Option<usize> {
    // Ept and host hold the address in the same bits.
    usize::try_from((entry & ept::ADDRESS).checked_sub(pool_address)? / PAGE).ok()
}

/// Builds the tables into the front of `pool`, whose first byte has the physical address `pool_address`,
/// and returns how many it took. The root is `pool[0]`; the tables taken are cleared first, the rest of the
/// pool is left alone.
///
/// # Errors
/// A [`MapError`]; on any but a defect of this module the pool is untouched.
pub fn build(
    format: Format,
    pages: LargePages,
    mappings: impl Iterator<Item = Mapping> + Clone,
    pool: &mut [PageTable],
    pool_address: u64,
) -> Result<usize, MapError> {
    let needed = tables_needed(format, pages, mappings.clone())?;
    let too_small = MapError::PoolTooSmall { needed };
    if !pool_address.is_multiple_of(PAGE) {
        return Err(MapError::Unaligned { mapping: None });
    }
    if pool_address.saturating_add(pool.len() as u64 * PAGE) > 1 << PHYSICAL_BITS {
        return Err(MapError::OutOfRange { mapping: None });
    }
    let tables = pool.get_mut(..needed).ok_or(too_small)?;
    tables.first_mut().ok_or(too_small)?.0 = [0; 512];
    let mut pool = Pool { tables, address: pool_address, used: 1 };
    for mapping in mappings {
        let mut done = 0;
        while done < mapping.size {
            done += pool.fill(format, pages, &mapping, done).ok_or(too_small)?;
        }
    }
    Ok(pool.used)
}

/// Builds into `own` the tables of one core: all that the tables in `base` map, and `mappings` besides, in pages of 4 KiB. Only the tables
/// on the way to these are copied; the others stay shared, so that both see the same of them. Returns how many tables it took; the root
/// is `own[0]`. `base` and `own` begin at these physical addresses and do not overlap. For the host's own tables only.
///
/// # Errors
/// A [`MapError`] about the mappings, or [`MapError::PoolTooSmall`] with one table more than there are.
pub fn extend(
    (base, base_address): (&[PageTable], u64),
    mappings: impl Iterator<Item = Mapping>,
    (own, own_address): (&mut [PageTable], u64),
) -> Result<usize, MapError> {
    let too_small = MapError::PoolTooSmall { needed: own.len() + 1 };
    let (Some(root), Some(shared)) = (own.first_mut(), base.first()) else {
        return Err(too_small);
    };
    root.clone_from(shared);
    let mut fork = Fork { base, base_address, own, own_address, used: 1 };
    for (number, mapping) in mappings.enumerate() {
        mapping.check(Format::Host, number)?;
        let taken = MapError::Taken { mapping: number };
        let template = leaf(Format::Host, 1, &mapping);
        let mut done = 0;
        while done < mapping.size {
            let virt = mapping.start() + done;
            let table = fork.lead_to(virt, taken)?;
            let entry = fork.own.get_mut(table).and_then(|table| table.0.get_mut(index(virt, 1)));
            match entry {
                Some(entry) if !is_used(Format::Host, *entry) => {
                    *entry = template | (mapping.phys + done);
                }
                _ => return Err(taken),
            }
            done += PAGE;
        }
    }
    Ok(fork.used)
}

/// Tables of one core that grow out of shared ones.
struct Fork<'p> {
    base: &'p [PageTable],
    base_address: u64,
    own: &'p mut [PageTable],
    own_address: u64,
    used: usize,
}

impl Fork<'_> {
    /// The own table whose entries map the 4-KiB pages around `virt`: what is not the core's own on the way there is copied first.
    fn lead_to(&mut self, virt: u64, taken: MapError) -> Result<usize, MapError> {
        let too_small = MapError::PoolTooSmall { needed: self.own.len() + 1 };
        let mut table = 0;
        for level in (2..=ROOT).rev() {
            let place = index(virt, level);
            let entry = self.own.get(table).map_or(0, |table| table.0[place]);
            if is_used(Format::Host, entry) && entry & host::LARGE != 0 {
                return Err(taken);
            }
            let known = table_index(entry, self.own_address).filter(|known| *known < self.used);
            table = match known.filter(|_| is_used(Format::Host, entry)) {
                Some(own) => own,
                None => {
                    let fresh = self.copy(entry).ok_or(too_small)?;
                    let entry = (self.own_address + fresh as u64 * PAGE) | branch(Format::Host);
                    self.own.get_mut(table).ok_or(too_small)?.0[place] = entry;
                    fresh
                }
            };
        }
        Ok(table)
    }

    /// A table more: a copy of the shared one that `entry` leads to, or an empty one.
    fn copy(&mut self, entry: u64) -> Option<usize> {
        let shared = is_used(Format::Host, entry)
            .then(|| table_index(entry, self.base_address))
            .flatten()
            .and_then(|index| self.base.get(index));
        let fresh = self.used;
        self.own.get_mut(fresh)?.clone_from(shared.unwrap_or(&PageTable::EMPTY));
        self.used += 1;
        Some(fresh)
    }
}

/// The entry of the last level that maps the 4-KiB page at `virt`, as its place in `pool`: table and entry. `None` where the walk ends
/// before.
#[must_use]
pub fn last_entry(pool: &[PageTable], pool_address: u64, virt: u64) -> Option<(usize, usize)> {
    let mut table = 0;
    for level in (2..=ROOT).rev() {
        let entry = *pool.get(table)?.0.get(index(virt, level))?;
        if !is_used(Format::Host, entry) || entry & host::LARGE != 0 {
            return None;
        }
        table = table_index(entry, pool_address).filter(|table| *table < pool.len())?;
    }
    Some((table, index(virt, 1)))
}

/// What an entry of the host's last level says that maps the page at physical `phys` for reading and writing.
#[must_use]
pub const fn data_page(phys: u64) -> u64 {
    host::PRESENT | host::ACCESSED | host::DIRTY | host::WRITABLE | host::NO_EXECUTE | phys
}

/// Looks an address up as the processor would: the physical address behind it, rights, caching.
/// `None` when nothing is mapped there or the address is not one that this format translates.
#[must_use]
pub fn translate(
    format: Format,
    pool: &[PageTable],
    pool_address: u64,
    virt: u64,
) -> Option<(u64, Access, Memory)> {
    let upper = virt >> (VIRTUAL_BITS - 1);
    let valid = match format {
        Format::Host => upper == 0 || upper == u64::MAX >> (VIRTUAL_BITS - 1),
        Format::Ept | Format::Npt => upper < 2,
    };
    if !valid {
        return None;
    }
    let mut table = 0;
    for level in (1..=ROOT).rev() {
        let entry = *pool.get(table)?.0.get(index(virt, level))?;
        if !is_used(format, entry) {
            return None;
        }
        if level == 1 || (level < ROOT && entry & ept::LARGE != 0) {
            let inside = span(level) - 1;
            let (access, memory) = meaning(format, entry);
            return Some(((entry & ept::ADDRESS & !inside) | (virt & inside), access, memory));
        }
        table = table_index(entry, pool_address)?;
    }
    None
}

fn meaning(format: Format, entry: u64) -> (Access, Memory) {
    match format {
        Format::Host | Format::Npt => (
            Access {
                read: true,
                write: entry & host::WRITABLE != 0,
                execute: entry & host::NO_EXECUTE == 0,
            },
            if entry & host::CACHE_DISABLE == 0 { Memory::WriteBack } else { Memory::Uncached },
        ),
        Format::Ept => (
            Access {
                read: entry & ept::READ != 0,
                write: entry & ept::WRITE != 0,
                execute: entry & ept::EXECUTE != 0,
            },
            if entry & ept::MEMORY_TYPE == ept::WRITE_BACK {
                Memory::WriteBack
            } else {
                Memory::Uncached
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const RW: Access = Access { read: true, write: true, execute: false };
    const POOL_AT: u64 = 0x7_0000_0000;

    fn ram(virt: u64, phys: u64, size: u64) -> Mapping {
        let largest = LargePages::Up1G;
        Mapping { virt, phys, size, access: RW, memory: Memory::WriteBack, largest }
    }

    fn needed(format: Format, pages: LargePages, list: &[Mapping]) -> Result<usize, MapError> {
        tables_needed(format, pages, list.iter().copied())
    }

    fn build_list(
        format: Format,
        pages: LargePages,
        list: &[Mapping],
        pool: &mut [PageTable],
        at: u64,
    ) -> Result<usize, MapError> {
        build(format, pages, list.iter().copied(), pool, at)
    }

    fn pool(tables: usize) -> Vec<PageTable> {
        // Dirty on purpose: build must clear what it takes.
        std::vec![PageTable([0xFFFF_FFFF_FFFF_FFFF; 512]); tables]
    }

    fn built(format: Format, pages: LargePages, mappings: &[Mapping]) -> Vec<PageTable> {
        let tables = needed(format, pages, mappings).unwrap();
        let mut pool = pool(tables);
        assert_eq!(build_list(format, pages, mappings, &mut pool, POOL_AT), Ok(tables));
        pool
    }

    #[test]
    fn eight_mebibytes_at_one_mebibyte_take_known_tables() {
        let guest = [ram(0x10_0000, 0x210_0000, 8 << 20)];
        assert_eq!(needed(Format::Ept, LargePages::None, &guest), Ok(3 + 5));
        // Congruent modulo 2 MiB: only the two ragged ends need a page table.
        assert_eq!(needed(Format::Ept, LargePages::Up2M, &guest), Ok(3 + 2));
        assert_eq!(needed(Format::Ept, LargePages::Up1G, &[ram(1 << 30, 2 << 30, 4 << 30)]), Ok(2));
        assert_eq!(needed(Format::Host, LargePages::None, &[]), Ok(1));
    }

    #[test]
    fn entries_carry_the_manuals_bits() {
        let code = Mapping {
            access: Access { read: true, write: false, execute: true },
            ..ram(0, 0x1000, 0x1000)
        };
        let device = Mapping { memory: Memory::Uncached, ..ram(0x1000, 0xFEE0_0000, 0x1000) };
        let host = built(Format::Host, LargePages::None, &[code, device]);
        assert_eq!(host[3].0[0], 0x1000 | 0x61);
        assert_eq!(host[3].0[1], 0xFEE0_0000 | 0x7B | 1 << 63);
        assert_eq!(host[0].0[0], (POOL_AT + 0x1000) | 0x23);
        let ept = built(Format::Ept, LargePages::None, &[code, device]);
        assert_eq!(ept[3].0[0], 0x1000 | 0b101 | 6 << 3 | 1 << 6);
        assert_eq!(ept[3].0[1], 0xFEE0_0000 | 0b011);
        assert_eq!(ept[0].0[0], (POOL_AT + 0x1000) | 7);
        let large = built(Format::Ept, LargePages::Up2M, &[ram(0, 0, 2 << 20)]);
        assert_eq!(large[2].0[0], 0b011 | 6 << 3 | 1 << 6 | 1 << 7);
    }

    #[test]
    fn a_leaf_is_no_larger_than_allowed_and_both_sides_are_aligned() {
        let askew = [ram(1 << 30, 0x1000, 1 << 30)];
        assert_eq!(needed(Format::Host, LargePages::Up1G, &askew), Ok(3 + 512));
        let by_two = [ram(1 << 30, 2 << 20, 1 << 30)];
        assert_eq!(needed(Format::Host, LargePages::Up1G, &by_two), Ok(3));
        assert_eq!(
            built(Format::Host, LargePages::Up1G, &by_two)[2].0[511],
            (1 << 30) | 0xE3 | 1 << 63
        );
    }

    /// What runs on a processor that fails on large pages of code: the code in small pages, the data beside it in large ones.
    #[test]
    fn a_mapping_may_ask_for_small_pages_where_the_processor_has_large_ones() {
        const MIB: u64 = 1 << 20;
        let code = Mapping { largest: LargePages::None, ..ram(0, 4 * MIB, 4 * MIB) };
        let data = ram(4 * MIB, 8 * MIB, 4 * MIB);
        let list = [code, data];
        assert_eq!(needed(Format::Ept, LargePages::Up1G, &list), Ok(3 + 2));
        let tables = built(Format::Ept, LargePages::Up1G, &list);
        let large = |entry: u64| entry & ept::LARGE != 0;
        assert_eq!(tables[2].0.map(large)[..5], [false, false, true, true, false]);
        let medium = Mapping { largest: LargePages::Up2M, ..ram(0, 1 << 30, 1 << 30) };
        assert_eq!(needed(Format::Ept, LargePages::Up1G, &[medium]), Ok(3));
        assert_eq!(needed(Format::Ept, LargePages::None, &[medium]), Ok(3 + 512));
    }

    #[test]
    fn the_upper_half_of_the_host_is_reachable() {
        let top = [ram(0xFFFF_FFFF_FFFF_F000, 0x5000, 0x1000)];
        let tables = built(Format::Host, LargePages::None, &top);
        let found = translate(Format::Host, &tables, POOL_AT, 0xFFFF_FFFF_FFFF_F123);
        assert_eq!(found, Some((0x5123, RW, Memory::WriteBack)));
        assert_eq!(translate(Format::Host, &tables, POOL_AT, 0x0000_FFFF_FFFF_F123), None);
    }

    #[test]
    fn each_error_is_told() {
        let reject = |format, mapping| needed(format, LargePages::None, &[mapping]);
        let none = Access { read: false, write: false, execute: false };
        let with = |access| Mapping { access, ..ram(0, 0, 0x1000) };
        let e = Format::Ept;
        let h = Format::Host;
        assert_eq!(reject(e, ram(0, 0, 0)), Err(MapError::EmptySize { mapping: 0 }));
        assert_eq!(reject(e, ram(1, 0, 0x1000)), Err(MapError::Unaligned { mapping: Some(0) }));
        assert_eq!(reject(e, ram(0, 0x800, 0x1000)), Err(MapError::Unaligned { mapping: Some(0) }));
        assert_eq!(reject(e, ram(0, 0, 0x1001)), Err(MapError::Unaligned { mapping: Some(0) }));
        let out = Err(MapError::OutOfRange { mapping: Some(0) });
        assert_eq!(reject(e, ram((1 << 48) - 0x1000, 0, 0x2000)), out);
        assert_eq!(reject(h, ram((1 << 47) - 0x1000, 0, 0x2000)), out);
        assert_eq!(reject(h, ram(0x8000_0000_0000, 0, 0x1000)), out);
        assert_eq!(reject(e, ram(0, (1 << 52) - 0x1000, 0x2000)), out);
        assert_eq!(reject(e, ram(u64::MAX - 0xFFF, 0, 0x2000)), out);
        assert_eq!(
            reject(e, with(Access { write: true, ..none })),
            Err(MapError::WriteOnly { mapping: 0 })
        );
        assert_eq!(reject(e, with(none)), Err(MapError::Unreadable { mapping: 0 }));
        assert!(reject(e, with(Access { execute: true, ..none })).is_ok());
        assert_eq!(
            reject(h, with(Access { execute: true, ..none })),
            Err(MapError::Unreadable { mapping: 0 })
        );
        let twice = [ram(0, 0, 0x2000), ram(0x4000, 0, 0x1000), ram(0x1000, 0x8000, 0x1000)];
        assert_eq!(
            needed(e, LargePages::None, &twice),
            Err(MapError::Overlap { first: 0, second: 2 })
        );
        let one = [ram(0, 0, 0x1000)];
        let mut small = pool(3);
        let built = build_list(e, LargePages::None, &one, &mut small, POOL_AT);
        assert_eq!(built, Err(MapError::PoolTooSmall { needed: 4 }));
        assert_eq!(small, pool(3));
        let askew = build_list(e, LargePages::None, &one, &mut small, 0x10);
        assert_eq!(askew, Err(MapError::Unaligned { mapping: None }));
        let far = build_list(e, LargePages::None, &one, &mut small, (1 << 52) - 0x1000);
        assert_eq!(far, Err(MapError::OutOfRange { mapping: None }));
    }

    const OWN_AT: u64 = POOL_AT + 0x100_0000;

    /// What the tables of a core say of an address: they lie in two pools.
    fn seen(base: &[PageTable], own: &[PageTable], virt: u64) -> Option<u64> {
        let mut pool = own;
        let (mut table, mut entry) = (0, 0);
        for level in (1..=ROOT).rev() {
            entry = pool[table].0[index(virt, level)];
            if entry & host::PRESENT == 0 {
                return None;
            }
            if level > 1 && entry & host::LARGE != 0 {
                return Some(entry & ept::ADDRESS | virt & (span(level) - 1));
            }
            if level > 1 {
                let own_table = table_index(entry, OWN_AT).filter(|index| *index < own.len());
                pool = if own_table.is_some() { own } else { base };
                table = own_table.or_else(|| table_index(entry, POOL_AT)).unwrap();
            }
        }
        Some(entry & ept::ADDRESS | virt & (PAGE - 1))
    }

    #[test]
    fn a_core_sees_what_is_shared_and_its_own_and_nothing_of_the_others() {
        const MIB: u64 = 1 << 20;
        // A hole of four pages in the shared data; text beside it and a large page far away.
        let shared = [
            ram(MIB, MIB, 0x4000),
            ram(MIB + 0x8000, MIB + 0x8000, 0x1000),
            ram(1 << 30, 1 << 30, 2 * MIB),
        ];
        let base = built(Format::Host, LargePages::Up2M, &shared);
        let mine = |at: u64| ram(MIB + at, MIB + at, 0x1000);
        let core = |pages: &[u64]| {
            let mut own = pool(8);
            let list = pages.iter().map(|at| mine(*at));
            let used = extend((&base, POOL_AT), list, (&mut own, OWN_AT)).unwrap();
            own.truncate(used);
            own
        };
        let cores = [core(&[0x4000, 0x5000]), core(&[0x6000])];
        assert_eq!(cores[0].len(), 4, "root, directory pointers, directory, one table");
        for own in &cores {
            for at in [MIB, MIB + 0x3FFF, MIB + 0x8000, 1 << 30, (1 << 30) + 0x12_3456] {
                assert_eq!(seen(&base, own, at), Some(at));
            }
            assert_eq!(seen(&base, own, MIB + 0x7000), None);
        }
        let sees = |core: usize, at: u64| seen(&base, &cores[core], MIB + at).is_some();
        assert!(sees(0, 0x4000) && sees(0, 0x5000) && !sees(0, 0x6000));
        assert!(!sees(1, 0x4000) && !sees(1, 0x5000) && sees(1, 0x6000));
        assert_eq!(translate(Format::Host, &base, POOL_AT, MIB + 0x4000), None);
        let (table, entry) = last_entry(&cores[1], OWN_AT, MIB + 0x6000).unwrap();
        assert_eq!(cores[1][table].0[entry], data_page(MIB + 0x6000));
        assert_eq!(last_entry(&cores[1], OWN_AT, 1 << 30), None, "that table is shared");
    }

    #[test]
    fn what_is_shared_cannot_be_mapped_again_and_tables_can_run_out() {
        let shared = [ram(0x20_0000, 0x20_0000, 0x20_0000), ram(0x1000, 0x1000, 0x1000)];
        let base = built(Format::Host, LargePages::Up2M, &shared);
        let extend = |mapping, tables| {
            extend((&base, POOL_AT), [mapping].into_iter(), (&mut pool(tables), OWN_AT))
        };
        let taken = Err(MapError::Taken { mapping: 0 });
        assert_eq!(extend(ram(0x20_0000, 0x5000, 0x1000), 8), taken);
        assert_eq!(extend(ram(0x1000, 0x5000, 0x1000), 8), taken);
        assert_eq!(extend(ram(0x0, 0x5000, 0x2000), 8), taken);
        assert_eq!(extend(ram(0x2000, 0x5000, 0x1000), 4), Ok(4));
        assert_eq!(
            extend(ram(0x2000, 0x5000, 0x1000), 3),
            Err(MapError::PoolTooSmall { needed: 4 })
        );
        assert_eq!(
            extend(ram(0x2001, 0x5000, 0x1000), 8),
            Err(MapError::Unaligned { mapping: Some(0) })
        );
        assert_eq!(extend(ram(1 << 40, 0x5000, 0x1000), 8), Ok(4));
    }

    fn format() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::Host), Just(Format::Ept)]
    }

    fn large_pages() -> impl Strategy<Value = LargePages> {
        prop_oneof![Just(LargePages::None), Just(LargePages::Up2M), Just(LargePages::Up1G)]
    }

    /// Disjoint mappings with gaps, sizes from a page to some GiB, aligned by 4 KiB, 2 MiB or 1 GiB, shuffled.
    fn mappings(max_pages: u64) -> impl Strategy<Value = Vec<Mapping>> {
        let unit = prop_oneof![Just(1_u64), Just(512), Just(512 * 512)];
        let piece = (unit, 0_u64..3, 1_u64..600, 0_u64..1 << 20, any::<[bool; 5]>());
        proptest::collection::vec(piece, 1..8)
            .prop_map(move |pieces| {
                let mut next = 0_u64;
                let mut list = Vec::new();
                for (unit, gap, count, phys, [write, execute, memory, askew, small]) in pieces {
                    let start = next.next_multiple_of(unit) + gap * unit;
                    let pages = (count * unit + u64::from(askew)).min(max_pages);
                    next = start + pages;
                    list.push(Mapping {
                        virt: start * PAGE,
                        phys: phys * unit.min(512) * PAGE,
                        size: pages * PAGE,
                        access: Access { read: true, write, execute },
                        memory: if memory { Memory::WriteBack } else { Memory::Uncached },
                        largest: if small { LargePages::None } else { LargePages::Up1G },
                    });
                }
                list
            })
            .prop_shuffle()
    }

    /// What the list itself says about an address.
    fn expected(mappings: &[Mapping], virt: u64) -> Option<(u64, Access, Memory)> {
        let m = mappings.iter().find(|m| m.virt <= virt && virt < m.virt + m.size)?;
        Some((m.phys + (virt - m.virt), m.access, m.memory))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn tables_say_what_the_mappings_say(
            format in format(), pages in large_pages(), list in mappings(4096), probes in proptest::collection::vec(any::<u64>(), 32),
        ) {
            let tables = built(format, pages, &list);
            let edges = list.iter().flat_map(|m| [m.virt.wrapping_sub(1), m.virt, m.virt + m.size - 1, m.virt + m.size]);
            let inside = probes.iter().zip(list.iter().cycle()).map(|(p, m)| m.virt + p % m.size);
            let anywhere = probes.iter().map(|p| p % (1 << 48));
            for address in edges.chain(inside).chain(anywhere) {
                prop_assert_eq!(translate(format, &tables, POOL_AT, address), expected(&list, address));
            }
        }

        #[test]
        fn every_table_taken_is_reached(format in format(), pages in large_pages(), list in mappings(2048)) {
            // The root's pool is exact: a table that leads nowhere would show as one without entries.
            let tables = built(format, pages, &list);
            for table in &tables {
                prop_assert!(table.0.iter().any(|entry| is_used(format, *entry)));
            }
        }

        /// The compiler cuts a pool for 2 MiB pages, and the hypervisor uses 1 GiB where the processor has them.
        #[test]
        fn larger_pages_never_need_more_tables(format in format(), list in mappings(4096)) {
            let tables = |pages| needed(format, pages, &list).unwrap();
            prop_assert!(tables(LargePages::Up2M) <= tables(LargePages::None));
            prop_assert!(tables(LargePages::Up1G) <= tables(LargePages::Up2M));
        }

        /// Some of the mappings are shared and the rest is one core's: it sees all, as if one builder had built all.
        #[test]
        fn shared_and_own_together_say_what_the_whole_list_says(list in mappings(64), own_ones in any::<[bool; 8]>()) {
            let is_own = |number: usize| own_ones[number % 8];
            let part = |own: bool| {
                let list = list.iter().enumerate();
                list.filter(|(number, _)| is_own(*number) == own).map(|(_, m)| *m).collect::<Vec<_>>()
            };
            // Only what is shared takes large pages, and an own page must not lie in one of them: so none here.
            let base = built(Format::Host, LargePages::None, &part(false));
            let mut own = pool(64);
            let used = extend((&base, POOL_AT), part(true).into_iter(), (&mut own, OWN_AT)).unwrap();
            own.truncate(used);
            for m in &list {
                for address in [m.virt.wrapping_sub(1), m.virt, m.virt + m.size - 1, m.virt + m.size] {
                    if address >> 47 == 0 {
                        prop_assert_eq!(seen(&base, &own, address), expected(&list, address).map(|found| found.0));
                    }
                }
            }
        }

        #[test]
        fn no_list_makes_sizing_panic(
            format in format(), pages in large_pages(),
            list in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<[bool; 3]>()), 0..4),
            aligned in any::<bool>(),
        ) {
            let mask = if aligned { !0xFFF } else { !0 };
            let list: Vec<_> = list.into_iter().map(|(virt, phys, size, [read, write, execute])| Mapping {
                virt: virt & mask, phys: phys & mask, size: size & mask,
                access: Access { read, write, execute }, memory: Memory::WriteBack, largest: LargePages::Up2M,
            }).collect();
            let _ = needed(format, pages, &list);
            let _ = build_list(format, pages, &list, &mut pool(2), POOL_AT);
        }
    }
}
