//! The instruction that a guest was at, for processors that do not decode it: where it lies, and which register it names.
//!
//! Needed for moves to and from control registers on AMD-V without decode assists. Everything read here is the guest's, and hostile.

use crate::exit::ControlState;
use crate::exit::control::{CR0_PG, CR4_PAE, EFER_LMA};

/// Most bytes of an instruction. APM 3 1.1.
pub const MOST_BYTES: usize = 15;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const CR4_PSE: u64 = 1 << 4;
const PAGE_BITS: u32 = 12;

/// Guest-physical address of a linear one, by the guest's own page tables. `read` reads an aligned 64-bit word of guest-physical memory.
/// `None` where the tables lead nowhere. Ends: a walk has at most four steps. APM 2 5.2, 5.3.
pub fn physical(
    linear: u64,
    state: &ControlState,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Option<u64> {
    if state.cr0 & CR0_PG == 0 {
        return Some(linear);
    }
    if state.cr4 & CR4_PAE == 0 {
        return legacy(linear, state, read);
    }
    let (mut table, levels) = if state.efer & EFER_LMA != 0 {
        (state.cr3 & ADDRESS, 4)
    } else {
        // The page-directory-pointer table has four entries and lies at a multiple of 32. APM 2 5.2.1.
        (state.cr3 & 0xFFFF_FFE0, 3)
    };
    for level in (1..=levels).rev() {
        let shift = PAGE_BITS + 9 * (level - 1);
        let mask = if levels == 3 && level == 3 { 3 } else { 0x1FF };
        let entry = read(table + (linear >> shift & mask) * 8)?;
        if entry & PRESENT == 0 {
            return None;
        }
        let is_leaf =
            level == 1 || (entry & LARGE != 0 && (level == 2 || levels == 4 && level == 3));
        if is_leaf {
            let within = (1 << shift) - 1;
            return Some(entry & ADDRESS & !within | linear & within);
        }
        table = entry & ADDRESS;
    }
    None
}

/// Two levels of 32-bit entries. APM 2 5.2.2.
fn legacy(
    linear: u64,
    state: &ControlState,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Option<u64> {
    let mut entry = |table: u64, index: u64| {
        let at = table + index * 4;
        let word = read(at & !7)?;
        let entry = if at & 4 == 0 { word & 0xFFFF_FFFF } else { word >> 32 };
        (entry & PRESENT != 0).then_some(entry)
    };
    let upper = entry(state.cr3 & 0xFFFF_F000, linear >> 22 & 0x3FF)?;
    if upper & LARGE != 0 && state.cr4 & CR4_PSE != 0 {
        // Bits 20:13 are the address' bits 39:32.
        let high = (upper >> 13 & 0xFF) << 32;
        return Some(high | upper & 0xFFC0_0000 | linear & 0x3F_FFFF);
    }
    let lower = entry(upper & 0xFFFF_F000, linear >> PAGE_BITS & 0x3FF)?;
    Some(lower & 0xFFFF_F000 | linear & 0xFFF)
}

/// A move to or from a control register, or LMSW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMove {
    /// Bytes of the instruction.
    pub length: u8,
    /// The general-purpose register that it names.
    pub register: u8,
    /// LMSW: the register's lower four bits replace those of CR0, of which PE is never cleared. APM 3.
    pub is_lmsw: bool,
}

/// Decodes such an instruction; `None` for any other, and for LMSW from memory.
#[must_use]
pub fn control_move(bytes: &[u8], code_64: bool) -> Option<ControlMove> {
    const REX_B: u8 = 1;
    let mut rex = 0;
    let mut at = 0;
    // Ends: each round takes one of at most 15 bytes.
    loop {
        match *bytes.get(at)? {
            0x66 | 0x67 | 0xF0 | 0xF2 | 0xF3 | 0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 => rex = 0,
            prefix @ 0x40..=0x4F if code_64 => rex = prefix,
            _ => break,
        }
        at += 1;
    }
    let [0x0F, opcode, operand] = *bytes.get(at..at + 3)? else {
        return None;
    };
    let register = operand & 7 | (rex & REX_B) << 3;
    let length = at as u8 + 3;
    match opcode {
        // These have a register form only, whatever the mode bits say. APM 3, MOV CRn.
        0x20 | 0x22 => Some(ControlMove { length, register, is_lmsw: false }),
        0x01 if operand & 0xF8 == 0xF0 => Some(ControlMove { length, register, is_lmsw: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: ControlState =
        ControlState { cr0: CR0_PG | 1, cr3: 0x1000, cr4: CR4_PAE, efer: EFER_LMA, code_64: true };

    fn tables(words: &[(u64, u64)]) -> impl FnMut(u64) -> Option<u64> {
        move |at| {
            Some(words.iter().find(|(address, _)| *address == at).map_or(0, |(_, word)| *word))
        }
    }

    #[test]
    fn a_walk_follows_four_levels_and_stops_at_large_pages() {
        let linear = 0x0000_0080_4060_1ABC;
        let indices = [39, 30, 21, 12].map(|shift| linear >> shift & 0x1FF);
        let [a, b, c, d] = indices;
        let words = [
            (0x1000 + a * 8, 0x2003),
            (0x2000 + b * 8, 0x3003),
            (0x3000 + c * 8, 0x4003),
            (0x4000 + d * 8, 0x8000_0000_0005_5003),
        ];
        assert_eq!(physical(linear, &LONG, tables(&words)), Some(0x55ABC));
        let large = [words[0], words[1], (0x3000 + c * 8, 0x60_0083)];
        assert_eq!(physical(linear, &LONG, tables(&large)), Some(0x60_1ABC));
        let huge = [words[0], (0x2000 + b * 8, 0xC000_0083)];
        assert_eq!(physical(linear, &LONG, tables(&huge)), Some(0xC060_1ABC));
        assert_eq!(physical(linear, &LONG, tables(&words[..3])), None);
        assert_eq!(physical(linear, &LONG, |_| None), None);
    }

    #[test]
    fn older_modes_are_walked_too() {
        let flat = ControlState { cr0: 1, ..LONG };
        assert_eq!(physical(0x1234, &flat, |_| None), Some(0x1234));
        let pae = ControlState { efer: 0, cr3: 0x1020, ..LONG };
        let words = [(0x1020 + 3 * 8, 0x2001), (0x2000, 0x60_0083)];
        assert_eq!(physical(0xC000_0123, &pae, tables(&words)), Some(0x60_0123));
        let old = ControlState { cr4: CR4_PSE, efer: 0, ..LONG };
        let words = [(0x1000, 0x0040_0083 << 32 | 0x2003), (0x2008, 0x7003)];
        assert_eq!(physical(0x0000_2045, &old, tables(&words)), Some(0x7045));
        assert_eq!(physical(0x0040_0045, &old, tables(&words)), Some(0x0040_0045));
    }

    #[test]
    fn moves_are_decoded_with_their_prefixes() {
        let decoded = |bytes: &[u8], code_64| {
            control_move(bytes, code_64).map(|it| (it.length, it.register, it.is_lmsw))
        };
        assert_eq!(decoded(&[0x0F, 0x22, 0xC0], true), Some((3, 0, false)));
        assert_eq!(decoded(&[0x41, 0x0F, 0x22, 0xE7], true), Some((4, 15, false)));
        assert_eq!(decoded(&[0x41, 0x0F, 0x22, 0xE7], false), None, "INC ECX");
        assert_eq!(decoded(&[0xF0, 0x0F, 0x20, 0xC3], false), Some((4, 3, false)));
        assert_eq!(decoded(&[0x41, 0x66, 0x0F, 0x22, 0xC1], true), Some((5, 1, false)));
        assert_eq!(decoded(&[0x0F, 0x01, 0xF0], false), Some((3, 0, true)));
        assert_eq!(decoded(&[0x0F, 0x01, 0x30], false), None, "LMSW from memory");
        assert_eq!(decoded(&[0x0F, 0x22], false), None);
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_tables_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..=MOST_BYTES), linear: u64, cr0: u64, cr3: u64, cr4: u64, efer: u64, word: u64, code_64: bool,
        ) {
            if let Some(decoded) = control_move(&bytes, code_64) {
                prop_assert!(usize::from(decoded.length) <= bytes.len() && decoded.register < 16);
            }
            let state = ControlState { cr0, cr3, cr4, efer, code_64 };
            let _address = physical(linear, &state, |_| Some(word));
        }
    }
}
