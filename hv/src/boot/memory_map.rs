//! The table's memory held against the boot loader's map of the machine's.

use bulkhead_table::Range;
use hv_core::memory_map::MemoryMap;
use hv_core::multiboot::Area;

use super::defects::Defects;
use crate::memory;
use crate::table::TABLE;
use crate::text::say;

/// Tells each range that is used, by the hypervisor or by a partition, and is not all RAM here. Memory of the board file
/// that nothing uses may differ: firmware moves its own between boots.
pub fn verify<A: Iterator<Item = Area> + Clone>(map: &MemoryMap<A>, defects: &mut Defects) {
    if memory::image_end() > TABLE.hypervisor.end() {
        defects.add(format_args!(
            "the hypervisor's image ends at {:#x}, behind its range, which ends at {:#x}; enlarge [hypervisor] size in the board file",
            memory::image_end(),
            TABLE.hypervisor.end()
        ));
    }
    let mut check = |range: Range, whose: core::fmt::Arguments<'_>| {
        if let Err(gap) = map.holds(&range) {
            defects.add(format_args!(
                "{whose} {:#x}-{:#x} is not all RAM here: {gap}; correct [[memory]] of the board file, by `bulkhead probe` on this machine, and build the image again",
                range.start,
                range.end(),
            ));
        }
    };
    check(TABLE.hypervisor, format_args!("the hypervisor's memory"));
    for partition in TABLE.partitions {
        for region in partition.memory {
            let range = Range { start: region.host, size: region.size };
            check(
                range,
                format_args!("partition {}'s memory ({})", partition.name, partition.place),
            );
        }
    }
    note_unused(map);
}

/// Says which memory of the board file is not all RAM here and does not matter.
fn note_unused<A: Iterator<Item = Area> + Clone>(map: &MemoryMap<A>) {
    for range in TABLE.board.memory {
        if let Err(gap) = map.holds(range) {
            say!(
                "Bulkhead: the board file's memory {:#x}-{:#x} is not all RAM here: {gap}.",
                range.start,
                range.end()
            );
        }
    }
}
