//! What comes up the serial line to the hypervisor: bytes for the consoles of partitions.
//!
//! A byte goes to the partition that was selected last. DLE and a byte from 0x40 on select partition (byte - 0x40); DLE and DLE is a
//! DLE for the selected one; DLE and anything else is dropped. Bytes that nobody gets are counted.

/// Data link escape.
pub const DLE: u8 = 0x10;
/// Selects partition 0 behind a [`DLE`].
pub const FIRST: u8 = 0x40;

/// Reads the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoder {
    selected: Option<u8>,
    escaped: bool,
}

/// What a byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A byte for this partition.
    For(u8, u8),
    /// Part of a sequence.
    Control,
    /// For nobody.
    Dropped,
}

impl Decoder {
    /// At the start of the line: nobody is selected.
    #[must_use]
    pub const fn new() -> Self {
        Self { selected: None, escaped: false }
    }

    /// Takes the next byte.
    pub fn take(&mut self, byte: u8) -> Typed {
        let escaped = core::mem::take(&mut self.escaped);
        match (escaped, byte) {
            (false, DLE) => {
                self.escaped = true;
                Typed::Control
            }
            (true, FIRST..) => {
                self.selected = Some(byte - FIRST);
                Typed::Control
            }
            (true, DLE) | (false, _) => {
                self.selected.map_or(Typed::Dropped, |partition| Typed::For(partition, byte))
            }
            (true, _) => Typed::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn decoded(line: &[u8]) -> (Vec<(u8, u8)>, usize) {
        let mut decoder = Decoder::new();
        let all: Vec<Typed> = line.iter().map(|byte| decoder.take(*byte)).collect();
        let bytes = all.iter().filter_map(|typed| match typed {
            Typed::For(partition, byte) => Some((*partition, *byte)),
            _ => None,
        });
        (bytes.collect(), all.iter().filter(|typed| **typed == Typed::Dropped).count())
    }

    #[test]
    fn bytes_go_to_whom_was_selected() {
        assert_eq!(decoded(b"ab"), (std::vec![], 2));
        assert_eq!(
            decoded(b"\x10\x41a\x10\x10\x10\x40b"),
            (std::vec![(1, b'a'), (1, DLE), (0, b'b')], 0)
        );
        assert_eq!(decoded(b"\x10\x40\x10\x05a"), (std::vec![(0, b'a')], 1), "an unknown sequence");
        assert_eq!(
            decoded(b"\x10\xFFa"),
            (std::vec![(0xBF, b'a')], 0),
            "whether it exists is another's question"
        );
    }

    proptest! {
        #[test]
        fn what_is_escaped_arrives(partition in 0_u8..64, text in any::<Vec<u8>>()) {
            let mut line = std::vec![DLE, FIRST + partition];
            for byte in &text {
                line.extend(std::iter::repeat_n(*byte, if *byte == DLE { 2 } else { 1 }));
            }
            let expected: Vec<(u8, u8)> = text.iter().map(|byte| (partition, *byte)).collect();
            prop_assert_eq!(decoded(&line), (expected, 0));
        }
    }
}
