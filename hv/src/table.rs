//! The partition table that the compiler proved, and the sizes of pools that follow from it.
#![expect(unsafe_code, reason = "places the note that leads to the table in a section of its own")]

use bulkhead_table::note::Note;

#[allow(dead_code, reason = "the compiler names the size of every pool; not each is needed here")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

/// Leads whoever reads the built hypervisor to the table that it runs by: `bulkhead audit` proves that one.
// SAFETY: linker.ld keeps the section in read-only memory, and nothing else goes into it.
#[used]
#[unsafe(link_section = ".note.bulkhead")]
static NOTE: Note = Note::of(&TABLE);

pub use generated::{CORES, EPT_PAGES, PARTITIONS, TABLE, VCPUS};

const _: () = assert!(
    TABLE.format == bulkhead_table::FORMAT,
    "the table was written by a compiler of another version: build the whole project again"
);
const _: () = assert!(
    TABLE.hypervisor.start == 0x10_0000 && TABLE.hypervisor.end() <= 1 << 32,
    "the hypervisor is linked at 1 MiB: [hypervisor] start must be 0x100000 and the range must end below 4 GiB"
);
