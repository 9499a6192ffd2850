//! The real-time clock, as `mc146818_get_time` of Linux reads it.

use guest_rt::tsc;

use crate::{read, write};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const SECONDS: u8 = 0;
const MONTH: u8 = 8;
const A: u8 = 0x0A;
const B: u8 = 0x0B;
const D: u8 = 0x0D;
const CENTURY: u8 = 0x32;
const UPDATING: u8 = 0x80;
const VALID: u8 = 0x80;
const BINARY: u8 = 4;

/// Longer than a second on any machine, in ticks.
const PATIENCE: u64 = 20_000_000_000;

fn register(index: u8) -> u8 {
    write(INDEX, index);
    read(DATA)
}

fn set_format(bits: u8) {
    write(INDEX, B);
    write(DATA, bits);
}

/// Valid, never updating, in this century, and another second comes.
pub fn runs() -> bool {
    if register(A) & UPDATING != 0 || register(D) & VALID == 0 || register(CENTURY) != 0x20 {
        return false;
    }
    let (first, began) = (register(SECONDS), tsc());
    while register(SECONDS) == first {
        if tsc() - began > PATIENCE {
            return false;
        }
    }
    true
}

/// The same month in decimal and in binary.
pub fn has_both_formats() -> bool {
    let b = register(B);
    set_format(b & !BINARY);
    let decimal = register(MONTH);
    set_format(b | BINARY);
    let binary = register(MONTH);
    set_format(b);
    (1..=12).contains(&binary) && decimal >> 4 == binary / 10 && decimal & 0xF == binary % 10
}
