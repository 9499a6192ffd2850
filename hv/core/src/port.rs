//! I/O ports: nothing is granted yet, and a partition sees an empty bus.
//!
//! - `IN` reads all ones in its width, as a port reads that no device claims.
//! - `OUT` is dropped, as such a port drops it.
//! - `INS` and `OUTS` get #GP(0): to skip one would leave out its memory access, its counters and its faults, and to carry it
//!   out would mean an instruction emulator for ports that do not exist.
//!
//! Each access is counted as denied, whichever way it is answered.

/// RAX after an `IN` of `width` bytes (1, 2 or 4) from a port that nobody claims: AL, AX or EAX all ones, with the rest of
/// the register as the instruction leaves it.
#[must_use]
#[inline(always)]
pub const fn absent(rax: u64, width: u8) -> u64 {
    match width {
        1 => rax | 0xFF,
        2 => rax | 0xFFFF,
        // A 32-bit result clears the upper half. SDM 1 3.4.1.1.
        _ => 0xFFFF_FFFF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_port_reads_all_ones_and_leaves_the_rest_of_the_register() {
        let rax = 0x1122_3344_5566_7700;
        assert_eq!(absent(rax, 1), 0x1122_3344_5566_77FF);
        assert_eq!(absent(rax, 2), 0x1122_3344_5566_FFFF);
        assert_eq!(absent(rax, 4), 0x0000_0000_FFFF_FFFF);
    }
}
