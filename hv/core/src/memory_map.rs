//! Which memory of this machine is RAM, by the boot loader's map, and what stands there instead where it is not.
//!
//! The map is asked and never copied, so no number of pieces is too many. Its entries may come in any order and overlap:
//! a byte is RAM where an entry says so and no other entry says otherwise.

use bulkhead_table::Range;

use crate::multiboot::{Area, Holds};

/// Bytes of a page.
const PAGE: u64 = bulkhead_table::PAGE_SIZE;

/// Conventional memory ends here.
const CONVENTIONAL_END: u64 = 0xA_0000;

/// A boot loader's memory map.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMap<A>(A);

/// A range that is not all RAM: the first byte that is none, and what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first byte that is no RAM.
    pub at: u64,
    /// The entry that stands there; `None` where the map says nothing.
    pub instead: Option<Area>,
    /// Where RAM goes on within the range that was asked for; `None` where it does not.
    pub next: Option<u64>,
}

impl core::fmt::Display for Gap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.instead {
            Some(area) => write!(
                f,
                "from {:#x} on the boot loader's memory map has {} ({:#x}-{:#x})",
                self.at,
                area.holds,
                area.range.start,
                area.range.end()
            )?,
            None => write!(f, "from {:#x} on the boot loader's memory map has nothing", self.at)?,
        }
        match self.next {
            Some(next) => write!(f, ", and RAM again from {next:#x} on"),
            None => Ok(()),
        }
    }
}

impl<A: Iterator<Item = Area> + Clone> MemoryMap<A> {
    /// Of these entries.
    pub const fn new(areas: A) -> Self {
        Self(areas)
    }

    /// Whether every byte of `range` is RAM.
    ///
    /// # Errors
    /// The first byte that is not.
    pub fn holds(&self, range: &Range) -> Result<(), Gap> {
        let mut at = range.start;
        while at < range.end() {
            at = self.ram_to(at).ok_or_else(|| self.gap(at, range.end()))?;
        }
        Ok(())
    }

    /// Whether a byte of `range` is RAM.
    pub fn touches_ram(&self, range: &Range) -> bool {
        self.ram_to(range.start).is_some() || self.ram_from(range.start, range.end()).is_some()
    }

    /// The highest page of conventional memory that is RAM; never page 0.
    pub fn conventional_page(&self) -> Option<u64> {
        (1..CONVENTIONAL_END / PAGE)
            .rev()
            .map(|page| page * PAGE)
            .find(|start| self.holds(&Range { start: *start, size: PAGE }).is_ok())
    }

    /// Where the RAM ends that the byte at `at` belongs to, as far as one entry tells; `None` where that byte is none.
    fn ram_to(&self, at: u64) -> Option<u64> {
        if self.entry_against(at).is_some() {
            return None;
        }
        let end = self.0.clone().filter(|area| area.holds == Holds::Ram);
        let end = end.filter(|area| has(area, at)).map(|area| area.range.end()).max()?;
        let against = self.0.clone().filter(|area| area.holds != Holds::Ram);
        let start = against.map(|area| area.range.start).filter(|start| *start > at).min();
        Some(start.map_or(end, |start| start.min(end)))
    }

    /// The entry that says that the byte at `at` is no RAM.
    fn entry_against(&self, at: u64) -> Option<Area> {
        self.0.clone().find(|area| area.holds != Holds::Ram && has(area, at))
    }

    fn gap(&self, at: u64, end: u64) -> Gap {
        Gap { at, instead: self.entry_against(at), next: self.ram_from(at, end) }
    }

    /// The first byte from `from` to before `end` that is RAM. RAM begins where an entry of RAM begins or another one ends.
    fn ram_from(&self, from: u64, end: u64) -> Option<u64> {
        let edge = |area: Area| match area.holds {
            Holds::Ram => area.range.start,
            _ => area.range.end(),
        };
        let edges = self.0.clone().map(edge).filter(|edge| (from..end).contains(edge));
        edges.filter(|edge| self.ram_to(*edge).is_some()).min()
    }
}

fn has(area: &Area, at: u64) -> bool {
    area.range.start <= at && at < area.range.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    const fn area(start: u64, end: u64, holds: Holds) -> Area {
        Area { range: Range { start, size: end - start }, holds }
    }

    /// Bochs with its BIOS and 512 MiB.
    const BIOS: [Area; 6] = [
        area(0, 0x9_F000, Holds::Ram),
        area(0x9_F000, 0xA_0000, Holds::Reserved),
        area(0xE_8000, 0x10_0000, Holds::Reserved),
        area(0x10_0000, 0x1FFF_0000, Holds::Ram),
        area(0x1FFF_0000, 0x2000_0000, Holds::AcpiTables),
        area(0xFFFC_0000, 0x1_0000_0000, Holds::Reserved),
    ];

    /// Bochs with OVMF and 1 GiB: RAM in one piece to 21 MiB below the top, and a patchwork above.
    const OVMF: [Area; 11] = [
        area(0, 0xA_0000, Holds::Ram),
        area(0x10_0000, 0x3EB3_F000, Holds::Ram),
        area(0x3EB3_F000, 0x3EBB_F000, Holds::Reserved),
        area(0x3EBB_F000, 0x3F8E_D000, Holds::Ram),
        area(0x3F8E_D000, 0x3FB6_D000, Holds::Reserved),
        area(0x3FB6_D000, 0x3FB7_F000, Holds::AcpiTables),
        area(0x3FB7_F000, 0x3FBF_F000, Holds::AcpiStorage),
        area(0x3FBF_F000, 0x3FF3_C000, Holds::Ram),
        area(0x3FF3_C000, 0x3FF4_0000, Holds::AcpiStorage),
        area(0x3FF4_0000, 0x3FF4_1000, Holds::Ram),
        area(0xFFC0_0000, 0x1_0000_0000, Holds::Reserved),
    ];

    /// QEMU with OVMF and S3: firmware keeps pieces of the ninth MiB.
    const OVMF_S3: [Area; 8] = [
        area(0, 0xA_0000, Holds::Ram),
        area(0x10_0000, 0x80_0000, Holds::Ram),
        area(0x80_0000, 0x80_8000, Holds::AcpiStorage),
        area(0x80_8000, 0x80_B000, Holds::Ram),
        area(0x80_B000, 0x80_C000, Holds::AcpiStorage),
        area(0x80_C000, 0x81_1000, Holds::Ram),
        area(0x81_1000, 0x90_0000, Holds::AcpiStorage),
        area(0x90_0000, 0x1ED3_F000, Holds::Ram),
    ];

    fn held(areas: &[Area], start: u64, end: u64) -> Result<(), Gap> {
        MemoryMap::new(areas.iter().copied()).holds(&Range { start, size: end - start })
    }

    #[test]
    fn the_maps_of_firmwares_hold_what_is_ram() {
        for (map, end) in [(&BIOS[..], 0x1FFF_0000), (&OVMF, 0x3EB3_F000)] {
            assert_eq!(held(map, 0x10_0000, end), Ok(()));
            assert_eq!(held(map, 0x10_0000, end + 1).unwrap_err().at, end);
        }
        assert_eq!(held(&OVMF_S3, 0x90_0000, 0x1ED3_F000), Ok(()));
    }

    #[test]
    fn a_gap_says_what_stands_there_instead() {
        let gap = held(&BIOS, 0x1FE0_0000, 0x2000_0000).unwrap_err();
        let words = "from 0x1fff0000 on the boot loader's memory map has ACPI tables (0x1fff0000-0x20000000)";
        assert_eq!(gap.to_string(), words);
        let gap = held(&OVMF_S3, 0x10_0000, 0x200_0000).unwrap_err();
        let words = "from 0x800000 on the boot loader's memory map has ACPI storage (0x800000-0x808000), and RAM again from 0x808000 on";
        assert_eq!(gap.to_string(), words);
        let gap = held(&BIOS, 0x3000_0000, 0x3000_1000).unwrap_err();
        let words = "from 0x30000000 on the boot loader's memory map has nothing";
        assert_eq!(gap.to_string(), words);
    }

    #[test]
    fn the_page_below_640_kib_is_the_highest_that_is_ram() {
        let page = |map: &[Area]| MemoryMap::new(map.iter().copied()).conventional_page();
        assert_eq!(page(&BIOS), Some(0x9_E000));
        assert_eq!(page(&OVMF), Some(0x9_F000));
        assert_eq!(page(&[area(0, PAGE, Holds::Ram)]), None);
        assert_eq!(page(&[]), None);
    }

    #[test]
    fn a_thousand_pieces_lose_nothing() {
        let pieces: Vec<Area> = (0..1000)
            .rev()
            .map(|piece| area(piece * 2 * PAGE, (piece * 2 + 1) * PAGE, Holds::Ram))
            .chain([area(0x8000_0000, 0x8000_0000 + PAGE, Holds::Ram)])
            .collect();
        for piece in 0..1000 {
            assert_eq!(held(&pieces, piece * 2 * PAGE, (piece * 2 + 1) * PAGE), Ok(()));
        }
        assert_eq!(held(&pieces, 0x8000_0000, 0x8000_0000 + PAGE), Ok(()));
    }

    #[test]
    fn what_two_entries_say_differently_is_no_ram() {
        let map = [area(0, 10 * PAGE, Holds::Ram), area(2 * PAGE, 3 * PAGE, Holds::Broken)];
        let gap = held(&map, 0, 10 * PAGE).unwrap_err();
        assert_eq!((gap.at, gap.next), (2 * PAGE, Some(3 * PAGE)));
        assert_eq!(held(&map, 3 * PAGE, 10 * PAGE), Ok(()));
    }

    /// Entries in a few units of space, so that they touch and overlap often.
    fn areas() -> impl Strategy<Value = Vec<Area>> {
        let holds = prop_oneof![3 => Just(Holds::Ram), 1 => Just(Holds::Reserved)];
        let entry = (0_u64..40, 1_u64..12, holds);
        let entry = entry.prop_map(|(start, size, holds)| area(start, start + size, holds));
        proptest::collection::vec(entry, 0..12)
    }

    proptest! {
        /// Against a look at every byte.
        #[test]
        fn a_range_is_held_where_each_byte_is(areas in areas(), start in 0_u64..50, size in 1_u64..20) {
            let is_ram = |at: u64| {
                areas.iter().any(|area| area.holds == Holds::Ram && has(area, at))
                    && !areas.iter().any(|area| area.holds != Holds::Ram && has(area, at))
            };
            let end = start + size;
            let first = (start..end).find(|at| !is_ram(*at));
            let found = held(&areas, start, end);
            prop_assert_eq!(found.err().map(|gap| gap.at), first);
            if let Some(first) = first {
                prop_assert_eq!(found.unwrap_err().next, (first..end).find(|at| is_ram(*at)));
            }
            let map = MemoryMap::new(areas.iter().copied());
            let range = Range { start, size };
            prop_assert_eq!(map.touches_ram(&range), (start..end).any(is_ram));
        }

        #[test]
        fn any_map_is_answered(
            entries in proptest::collection::vec(any::<(u64, u64, bool)>(), 0..20),
            start: u64,
            size: u64,
        ) {
            let holds = |ram| if ram { Holds::Ram } else { Holds::Reserved };
            let entry = |&(start, size, ram): &(u64, u64, bool)| Area { range: Range { start, size }, holds: holds(ram) };
            let map = MemoryMap::new(entries.iter().map(entry));
            let range = Range { start, size };
            let _answers = (map.holds(&range), map.touches_ram(&range), map.conventional_page());
        }
    }
}
