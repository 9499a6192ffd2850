//! What a partition's serial port sends, on its way to the log: bytes one by one in, pieces with the time of their first byte out.
//!
//! A piece ends behind a line feed or [`PIECE`] bytes, by which both ends know where the next one begins; so the log has one record
//! for a line and not one for a byte. A piece that stays open, as a prompt does, is taken as far as it goes once it is old.
//!
//! ```text
//! piece: TSC of its first byte u64, little-endian | up to PIECE bytes
//! ```

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::stream::Stream;

/// Most bytes of a piece.
pub const PIECE: usize = 64;
/// Bytes of the time in front of a piece.
const STAMP: usize = 8;
/// Bytes that the serial port takes at once, as a 16550's FIFO does.
pub const BURST: usize = 16;
/// Room without which the port says that it is full: each byte of a burst may be a piece of its own.
const ROOM: usize = BURST * (STAMP + 1);
/// Bytes on the way.
const BYTES: usize = 8192;

/// Bytes on their way from one partition's serial port.
#[derive(Default)]
pub struct Output {
    stream: Stream<BYTES>,
    /// Bytes in the piece that is being written; 0: the next byte begins one. The producer's own.
    written: AtomicU8,
    /// Bytes taken of the piece that is being read; 0: a time comes next. The consumer's own.
    taken: AtomicU8,
    /// When that piece began, or was last taken from. The consumer's own.
    since: AtomicU64,
}

/// How long the piece is behind `byte`, the last of `length` bytes: 0 when it ends.
const fn behind(byte: u8, length: u8) -> u8 {
    if byte == b'\n' || length as usize == PIECE { 0 } else { length }
}

impl Output {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stream: Stream::new(),
            written: AtomicU8::new(0),
            taken: AtomicU8::new(0),
            since: AtomicU64::new(0),
        }
    }

    /// Producer: whether a burst finds room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.stream.free() >= ROOM
    }

    /// Producer: sends `byte` at TSC `now`. False when there is no room; it is lost then, as the line of a port that is not
    /// asked whether it is ready loses bytes.
    pub fn send(&self, byte: u8, now: u64) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        let sent = if written == 0 {
            let [a, b, c, d, e, f, g, h] = now.to_le_bytes();
            self.stream.write(&[a, b, c, d, e, f, g, h, byte])
        } else {
            self.stream.write(&[byte])
        };
        if sent {
            self.written.store(behind(byte, written + 1), Ordering::Relaxed);
        }
        sent
    }

    /// Consumer: takes a piece that is whole, or, where its last part came more than `patience` ticks before `now`, what there is of
    /// it. Returns the bytes and when they were sent.
    pub fn take<'b>(
        &self,
        now: u64,
        patience: u64,
        bytes: &'b mut [u8; PIECE],
    ) -> Option<(&'b [u8], u64)> {
        let begun = self.taken.load(Ordering::Relaxed);
        let (front, since) = match begun {
            0 => (STAMP, self.stamp()?),
            _ => (0, self.since.load(Ordering::Relaxed)),
        };
        let (mut length, mut count) = (begun, 0);
        while let Some(byte) = self.stream.peek(front + count) {
            *bytes.get_mut(count)? = byte;
            count += 1;
            length = behind(byte, length + 1);
            if length == 0 {
                break;
            }
        }
        if count == 0 || (length != 0 && now.saturating_sub(since) <= patience) {
            return None;
        }
        self.stream.skip(front + count);
        self.taken.store(length, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        Some((bytes.get(..count)?, since))
    }

    /// The time in front of a piece of which nothing was taken yet. It comes into the stream together with the first byte.
    fn stamp(&self) -> Option<u64> {
        let mut stamp = [0; STAMP];
        for (offset, byte) in stamp.iter_mut().enumerate() {
            *byte = self.stream.peek(offset)?;
        }
        Some(u64::from_le_bytes(stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn send(output: &Output, text: &str, now: u64) {
        assert!(text.bytes().all(|byte| output.send(byte, now)), "room");
    }

    fn taken(output: &Output, now: u64) -> Option<(String, u64)> {
        let mut bytes = [0; PIECE];
        let (bytes, tsc) = output.take(now, 100, &mut bytes)?;
        Some((String::from_utf8(bytes.to_vec()).unwrap(), tsc))
    }

    #[test]
    fn a_line_is_one_piece_with_the_time_of_its_first_byte() {
        let output = Output::new();
        send(&output, "on", 5);
        assert_eq!(taken(&output, 6), None, "not whole, not old");
        send(&output, "e\r\ntwo\n", 7);
        assert_eq!(taken(&output, 8), Some(("one\r\n".into(), 5)));
        assert_eq!(taken(&output, 8), Some(("two\n".into(), 7)));
        assert_eq!(taken(&output, 1000), None);
    }

    #[test]
    fn an_old_prompt_is_taken_and_what_follows_waits_anew() {
        let output = Output::new();
        send(&output, "# ", 10);
        assert_eq!(taken(&output, 110), None);
        assert_eq!(taken(&output, 111), Some(("# ".into(), 10)));
        send(&output, "l", 112);
        assert_eq!(taken(&output, 211), None, "the byte may have company soon");
        send(&output, "s\n", 113);
        assert_eq!(taken(&output, 211), Some(("ls\n".into(), 111)));
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let output = Output::new();
        send(&output, &"x".repeat(PIECE + 1), 1);
        assert_eq!(taken(&output, 2).map(|(text, _)| text.len()), Some(PIECE));
        assert_eq!(taken(&output, 2), None);
        assert_eq!(taken(&output, 102), Some(("x".into(), 1)));
    }

    #[test]
    fn a_burst_fits_behind_a_port_that_said_it_has_room() {
        let output = Output::new();
        while output.has_room() {
            assert!((0..BURST).all(|_| output.send(b'\n', 0)), "the dearest bytes there are");
        }
        let mut lost = 0;
        while output.send(b'\n', 0) {
            lost += 1;
            assert!(lost < BYTES, "full in the end");
        }
        assert!(taken(&output, 0).is_some());
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_moved(
            sent in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..600),
            pauses in proptest::collection::vec(0_u64..300, 1..40),
        ) {
            let output = Output::new();
            let (mut now, mut all) = (0, Vec::new());
            let mut bytes = [0; PIECE];
            for (byte, pause) in sent.iter().zip(pauses.iter().cycle()) {
                now += pause;
                prop_assert!(output.send(*byte, now));
                if let Some((bytes, tsc)) = output.take(now, 100, &mut bytes) {
                    prop_assert!(tsc <= now);
                    all.extend_from_slice(bytes);
                }
            }
            while let Some((bytes, _)) = output.take(now + 1000, 0, &mut bytes) {
                all.extend_from_slice(bytes);
                now += 1;
            }
            prop_assert_eq!(all, sent);
        }
    }
}
