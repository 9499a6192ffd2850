//! The note by which whoever reads the built hypervisor finds its table: an ELF note in loaded, read-only memory.
//!
//! It points at the very static that the hypervisor runs by, so that an audit of the image reads what will be
//! enforced and not a copy. A pointer to a slice or a string has two words whose order the language leaves
//! open; the note carries a string of known content, from which a reader learns that the order is the one that
//! it expects.

use crate::{FORMAT, PartitionTable};

/// Name of the note's owner, with the zero that ends it.
pub const OWNER: &[u8; 9] = b"Bulkhead\0";

/// Type of the note: where the table lies.
pub const KIND: u32 = 1;

/// What [`Description::sample`] says.
pub const SAMPLE: &str = "sixteen bytes...";

/// An ELF note whose description begins on a bound of 8 bytes.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct Note {
    name_size: u32,
    description_size: u32,
    kind: u32,
    name: [u8; 12],
    description: Description,
}

/// What the note says.
#[repr(C)]
#[derive(Debug)]
pub struct Description {
    /// The table.
    pub table: &'static PartitionTable,
    /// [`SAMPLE`].
    pub sample: &'static str,
    /// Bytes of a [`PartitionTable`].
    pub table_size: u32,
    /// [`FORMAT`].
    pub format: u32,
}

impl Note {
    /// The note about `table`.
    #[must_use]
    pub const fn of(table: &'static PartitionTable) -> Self {
        Self {
            name_size: OWNER.len() as u32,
            description_size: size_of::<Description>() as u32,
            kind: KIND,
            name: *b"Bulkhead\0\0\0\0",
            description: Description {
                table,
                sample: SAMPLE,
                table_size: size_of::<PartitionTable>() as u32,
                format: FORMAT,
            },
        }
    }
}

const _: () = assert!(size_of::<usize>() != 8 || size_of::<Note>() == 24 + 32);
