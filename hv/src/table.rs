//! The partition table that the compiler proved, and the sizes that follow from it.

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// Cores that the system uses.
pub const CORES: usize = TABLE.cores.len();

/// Partitions.
pub const PARTITIONS: usize = TABLE.partitions.len();

/// EPT pages of all partitions together.
pub const EPT_PAGES: usize = {
    let mut pages = 0;
    let mut index = 0;
    while index < PARTITIONS {
        pages += TABLE.partitions[index].ept_pages;
        index += 1;
    }
    pages
};

const _: () = assert!(
    TABLE.format == bulkhead_table::FORMAT,
    "the table was written by a compiler of another version: build the whole project again"
);
const _: () = assert!(
    TABLE.hypervisor.start == 0x10_0000 && TABLE.hypervisor.end() <= 1 << 32,
    "the hypervisor is linked at 1 MiB: [hypervisor] start must be 0x100000 and the range must end below 4 GiB"
);
