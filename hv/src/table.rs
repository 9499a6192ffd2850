//! The partition table that the compiler proved, and the sizes of pools that follow from it.

#[allow(dead_code, reason = "the compiler names the size of every pool; not each is needed here")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

pub use generated::{CORES, EPT_PAGES, PARTITIONS, TABLE, VCPUS};

const _: () = assert!(
    TABLE.format == bulkhead_table::FORMAT,
    "the table was written by a compiler of another version: build the whole project again"
);
const _: () = assert!(
    TABLE.hypervisor.start == 0x10_0000 && TABLE.hypervisor.end() <= 1 << 32,
    "the hypervisor is linked at 1 MiB: [hypervisor] start must be 0x100000 and the range must end below 4 GiB"
);
