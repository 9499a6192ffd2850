//! The boot memory map, and the table's ranges held against it.

use bulkhead_table::Range;
use heapless::Vec;

use super::defects::Defects;
use crate::memory::{self, PAGE};
use crate::table::TABLE;
use crate::text::say;

/// Usable ranges that are kept; firmware has some dozens.
const RANGES: usize = 256;

/// A page that holds the real-mode trampoline lies below this: conventional memory.
const CONVENTIONAL_END: u64 = 0xA_0000;

/// Usable RAM, ascending, with adjacent ranges joined.
pub struct MemoryMap {
    usable: Vec<Range, RANGES>,
}

impl MemoryMap {
    /// No RAM.
    pub const fn new() -> Self {
        Self { usable: Vec::new() }
    }

    /// Adds usable RAM in any order.
    pub fn add(&mut self, range: Range) {
        let mut joined = range;
        while let Some(index) = self.usable.iter().position(|known| touches(known, &joined)) {
            joined = join(&self.usable.remove(index), &joined);
        }
        let at = self.usable.iter().filter(|known| known.start < joined.start).count();
        if self.usable.insert(at, joined).is_err() {
            say!(
                "Bulkhead: the memory map has more than {RANGES} pieces; RAM at {:#x} is not seen.",
                joined.start
            );
        }
    }

    /// Whether every byte of `range` is usable.
    pub fn holds(&self, range: &Range) -> bool {
        self.usable.iter().any(|known| known.contains(range))
    }

    /// First byte of `range` that is not usable.
    fn first_gap(&self, range: &Range) -> u64 {
        let inside = |known: &&Range| known.start <= range.start && range.start < known.end();
        self.usable.iter().find(inside).map_or(range.start, Range::end)
    }

    /// A usable page of conventional memory, the highest that there is; never page 0.
    pub fn conventional_page(&self) -> Option<u64> {
        (1..CONVENTIONAL_END / PAGE)
            .rev()
            .map(|page| page * PAGE)
            .find(|start| self.holds(&Range { start: *start, size: PAGE }))
    }
}

fn touches(one: &Range, other: &Range) -> bool {
    one.start <= other.end() && other.start <= one.end()
}

fn join(one: &Range, other: &Range) -> Range {
    let start = one.start.min(other.start);
    Range { start, size: one.end().max(other.end()) - start }
}

/// Tells each range of the table that is not usable RAM here.
pub fn verify(map: &MemoryMap, defects: &mut Defects) {
    if memory::image_end() > TABLE.hypervisor.end() {
        defects.add(format_args!(
            "the hypervisor's image ends at {:#x}, behind its range, which ends at {:#x}; enlarge [hypervisor] size in the board file",
            memory::image_end(),
            TABLE.hypervisor.end()
        ));
    }
    let mut check = |range: Range, whose: core::fmt::Arguments<'_>| {
        if !map.holds(&range) {
            defects.add(format_args!(
                "{whose} {:#x}-{:#x} is not all usable RAM in the boot loader's memory map, which has none at {:#x}; correct [[memory]] of the board file",
                range.start,
                range.end(),
                map.first_gap(&range)
            ));
        }
    };
    for range in TABLE.board.memory {
        check(*range, format_args!("the board file's memory"));
    }
    check(TABLE.hypervisor, format_args!("the hypervisor's range"));
    for partition in TABLE.partitions {
        for region in partition.memory {
            let range = Range { start: region.host, size: region.size };
            check(
                range,
                format_args!("partition {}'s memory ({})", partition.name, partition.place),
            );
        }
    }
}
