//! Bits of ordinary 4-level page tables. SDM 3A 4.5, tables 4-15 to 4-20.

/// The entry is in use.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// User accesses are allowed. In nested page tables each entry needs it: they are walked as a user's (APM 2 15.25.5).
pub const USER: u64 = 1 << 2;
/// Page-level write-through.
pub const WRITE_THROUGH: u64 = 1 << 3;
/// Page-level cache disable. With [`WRITE_THROUGH`] it picks PAT entry 3, uncacheable at reset (SDM 3A 12.12.4).
pub const CACHE_DISABLE: u64 = 1 << 4;
/// Set by the processor on use; set in advance, it spares the processor's locked write.
pub const ACCESSED: u64 = 1 << 5;
/// Set by the processor on a write; set in advance for the same reason.
pub const DIRTY: u64 = 1 << 6;
/// In a page-directory (2 MiB) or page-directory-pointer (1 GiB) entry: the entry is a leaf.
pub const LARGE: u64 = 1 << 7;
/// No instruction fetches; needs EFER.NXE.
pub const NO_EXECUTE: u64 = 1 << 63;
/// Physical address of the next table or of the page, bits 51:12.
pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
