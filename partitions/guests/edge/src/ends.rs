//! Operations behind which nothing comes: the partition ends, is stopped, or starts anew.

use guest_rt::Page;
use guest_rt::hostile::{self, Width, port_out};

use crate::Act;
use crate::acts::refused;

/// ACPI's registers, as the FADT of a PC partition names them, and what is written to them.
const SLEEP_CONTROL: u16 = 0x600;
const SLEEP_TYPE_5: u32 = 0x34;
const RESET: u16 = 0x604;
const RESET_VALUE: u32 = 1;

/// Every one.
pub const ACTS: [Act; 7] = [
    ("memory-read", |world| {
        let _fault = hostile::read_memory(world.behind);
    }),
    ("memory-write", |world| refused(hostile::write_memory(world.behind, 0))),
    ("page-write", |_| {
        if let Some(page) = Page::find() {
            refused(hostile::write_memory(page.address(), 0));
        }
    }),
    ("finish", |_| hostile::finish()),
    ("triple-fault", |_| hostile::triple_fault()),
    ("off", |_| refused(port_out(SLEEP_CONTROL, Width::Byte, SLEEP_TYPE_5))),
    ("reset", |_| refused(port_out(RESET, Width::Byte, RESET_VALUE))),
];
