//! Copies firmware's ACPI tables out of memory. Addresses and lengths are firmware's word and are bounded.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bulkhead_board::acpi::{HEADER, WANTED};
use guest_rt::probe::physical;

/// Longest table that is copied: the tables with numbers are small, and the ones with code (DSDT, SSDT) stay behind.
const LONGEST: usize = 256 << 10;

/// Every wanted table that the root table names, in its order.
pub fn read(root: Option<(u64, bool)>, notes: &mut Vec<String>) -> Vec<Vec<u8>> {
    let Some((address, wide)) = root else {
        notes.push("the boot loader hands over no ACPI root table".into());
        return Vec::new();
    };
    let Some(root) = table(address) else {
        notes.push(format!("ACPI's root table at {address:#x} cannot be read"));
        return Vec::new();
    };
    let entries = root.get(HEADER..).unwrap_or_default().chunks_exact(if wide { 8 } else { 4 });
    let (mut tables, mut out_of_reach) = (Vec::new(), 0);
    for entry in entries {
        let address = entry.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let Some(signature) = physical::read(address, 4) else {
            out_of_reach += 1;
            continue;
        };
        if WANTED.iter().any(|wanted| wanted.as_slice() == signature) {
            match table(address) {
                Some(table) => tables.push(table),
                None => notes.push(format!("the ACPI table at {address:#x} cannot be read")),
            }
        }
    }
    if out_of_reach > 0 {
        notes.push(format!(
            "{out_of_reach} entries of ACPI's root table are 0 or lie above 4 GiB, where the probe image cannot read: what those tables say is missing; Linux reads them"
        ));
    }
    tables
}

fn table(address: u64) -> Option<Vec<u8>> {
    let header = physical::read(address, HEADER)?;
    let length = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?) as usize;
    (HEADER..=LONGEST).contains(&length).then(|| physical::read(address, length)).flatten()
}
