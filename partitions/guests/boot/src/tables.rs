//! The tables of ACPI, as an operating system finds and checks them.

use crate::byte;
use crate::told::{long, word};

/// Where a PC has the root pointer: ACPI 6.5, 5.2.5.1. On a bound of 16.
const FIRMWARE: core::ops::Range<u64> = 0xE_0000..0x10_0000;
const SIGNATURE: u64 = u64::from_le_bytes(*b"RSD PTR ");
/// Bytes of a table's header.
const HEADER: u64 = 36;

/// The root pointer where a PC has it.
pub fn found_by_searching() -> Option<u64> {
    FIRMWARE.step_by(16).find(|at| word(*at) == SIGNATURE)
}

fn sums_to_zero(at: u64, length: u64) -> bool {
    (at..at + length).fold(0_u8, |sum, address| sum.wrapping_add(byte(address))) == 0
}

fn is_whole(table: u64) -> bool {
    long(table + 4) >= HEADER && sums_to_zero(table, long(table + 4))
}

/// The root pointer at `at`, the table that it leads to, and those that this one leads to.
pub fn are_whole(at: u64) -> bool {
    let root = word(at + 24);
    let entries = (root + HEADER..root + long(root + 4)).step_by(8);
    word(at) == SIGNATURE
        && sums_to_zero(at, 20)
        && sums_to_zero(at, 36)
        && is_whole(root)
        && entries.clone().count() == 2
        && entries.map(word).all(is_whole)
}
