//! Bits of extended page tables: entries and the sizes they map. SDM 3C 29.3.2, tables 29-1 to 29-6.

/// The page may be read.
pub const READ: u64 = 1 << 0;
/// The page may be written. Without [`READ`] the entry is an EPT misconfiguration (SDM 3C 29.3.3.1).
pub const WRITE: u64 = 1 << 1;
/// Instructions may be fetched from the page. Alone (execute-only) it needs bit 0 of IA32_VMX_EPT_VPID_CAP.
pub const EXECUTE: u64 = 1 << 2;
/// An entry with none of these maps nothing.
pub const ACCESS: u64 = READ | WRITE | EXECUTE;
/// Shift of the memory type of a leaf (three bits).
pub const MEMORY_TYPE_SHIFT: u32 = 3;
/// Mask of the memory type of a leaf.
pub const MEMORY_TYPE: u64 = 7 << MEMORY_TYPE_SHIFT;
/// Memory type: uncacheable (SDM 3A table 12-2: 0).
pub const UNCACHEABLE: u64 = 0;
/// Memory type: write-back (6), at its place in the entry.
pub const WRITE_BACK: u64 = 6 << MEMORY_TYPE_SHIFT;
/// The guest's PAT has no say in the memory type.
pub const IGNORE_PAT: u64 = 1 << 6;
/// In a page-directory (2 MiB) or page-directory-pointer (1 GiB) entry: the entry is a leaf.
pub const LARGE: u64 = 1 << 7;
/// Host-physical address of the next table or of the page, bits 51:12.
pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
