//! I/O-port policy: no port is granted yet, so each reads as a bus with nothing on it and takes writes to nowhere.
//!
//! String instructions (INS, OUTS) get #GP(0) instead: to skip one would leave its memory and its counters as no
//! machine does, and a device driver is the only code that has use for it.

/// RAX behind an IN of `width` bytes from an absent device: all ones. As on the processor, a 4-byte IN clears the upper half
/// of RAX, and narrower ones keep the rest. SDM 1 3.4.1.1.
#[must_use]
pub const fn absent(rax: u64, width: u8) -> u64 {
    match width {
        1 => rax | 0xFF,
        2 => rax | 0xFFFF,
        _ => 0xFFFF_FFFF,
    }
}

#[cfg(test)]
mod tests {
    use super::absent;

    #[test]
    fn absent_devices_read_as_ones_of_their_width() {
        let rax = 0x1234_5678_9ABC_DE00;
        assert_eq!(absent(rax, 1), 0x1234_5678_9ABC_DEFF);
        assert_eq!(absent(rax, 2), 0x1234_5678_9ABC_FFFF);
        assert_eq!(absent(rax, 4), 0xFFFF_FFFF);
    }
}
