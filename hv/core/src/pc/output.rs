//! What a partition's serial port sends, on its way to the log: bytes one by one in, pieces with the time of their first byte out.
//!
//! Several vCPUs may send at the same time, as they may write to a real port. Each byte takes a slot of its own by one atomic addition,
//! and is stored together with its time by one atomic write. So a race mixes bytes, and cannot garble a time or anything else. Nobody
//! waits.
//!
//! A piece ends behind a line feed or [`PIECE`] bytes; so the log has one record for a line and not one for a byte. A piece that stays
//! open, as a prompt does, is taken as far as it goes once it is old.
//!
//! ```text
//! slot: TSC, its lower 48 bits | byte, 8 bits | lap, 8 bits
//! ```

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bulkhead_table::MAX_VCPUS;

/// Most bytes of a piece.
pub const PIECE: usize = 64;
/// Bytes that the serial port takes at once, as a 16550's FIFO does.
pub const BURST: usize = 16;
/// Bytes on the way.
const BYTES: usize = 2048;
/// Room without which no byte is taken: each vCPU may have seen the room and not taken its slot yet.
const SLACK: usize = MAX_VCPUS;
/// Room without which the port says that it is full.
const ROOM: usize = SLACK + BURST;

const _: () =
    assert!(BYTES.is_power_of_two() && ROOM < BYTES, "positions are masked, and a burst fits");

/// Bytes on their way from one partition's serial port: many producers, one consumer.
pub struct Output {
    /// Slots ever taken, wrapping.
    head: AtomicUsize,
    /// Slots ever emptied, wrapping. The consumer's own.
    tail: AtomicUsize,
    slots: [AtomicU64; BYTES],
}

/// How often the slots were gone round at a position, as a filled slot notes it: differs from the lap before.
const fn lap(position: usize) -> u8 {
    (position / BYTES).wrapping_add(1) as u8
}

const fn filled(position: usize, byte: u8, tsc: u64) -> u64 {
    tsc << 16 | (byte as u64) << 8 | lap(position) as u64
}

/// The TSC of a slot that was filled within 2^47 ticks of `now`, on this core or one whose TSC is slightly ahead.
const fn filled_at(slot: u64, now: u64) -> u64 {
    let age = (now.wrapping_sub(slot >> 16) << 16).cast_signed() >> 16;
    now.wrapping_sub(age.cast_unsigned())
}

impl Output {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: [const { AtomicU64::new(0) }; BYTES],
        }
    }

    fn slot(&self, position: usize) -> &AtomicU64 {
        &self.slots[position % BYTES]
    }

    fn free(&self) -> usize {
        // The tail first: the head never falls behind a tail that was seen before.
        let tail = self.tail.load(Ordering::Acquire);
        BYTES.saturating_sub(self.head.load(Ordering::Acquire).wrapping_sub(tail))
    }

    /// Producer: whether a burst finds room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.free() >= ROOM
    }

    /// Producer: sends `byte` at TSC `now`. False when there is no room; it is lost then, as the line of a port that is not
    /// asked whether it is ready loses bytes.
    pub fn send(&self, byte: u8, now: u64) -> bool {
        if self.free() < SLACK {
            return false;
        }
        let position = self.head.fetch_add(1, Ordering::AcqRel);
        // Release: the consumer that sees the slot filled may pass it.
        self.slot(position).store(filled(position, byte, now), Ordering::Release);
        true
    }

    /// Consumer: the slot `offset` places behind the first that waits, if it is filled.
    fn peek(&self, offset: usize) -> Option<u64> {
        let position = self.tail.load(Ordering::Relaxed).wrapping_add(offset);
        if self.head.load(Ordering::Acquire) == position {
            return None;
        }
        // A slot that was taken and is not filled yet still has the lap before.
        Some(self.slot(position).load(Ordering::Acquire))
            .filter(|slot| *slot as u8 == lap(position))
    }

    /// Consumer: takes a piece that is whole, or, where its first byte was sent more than `patience` ticks before `now`, what there is
    /// of it. Returns the bytes and when the first was sent.
    pub fn take<'b>(
        &self,
        now: u64,
        patience: u64,
        bytes: &'b mut [u8; PIECE],
    ) -> Option<(&'b [u8], u64)> {
        let since = filled_at(self.peek(0)?, now);
        let (mut count, mut is_whole) = (0, false);
        while !is_whole && let Some(slot) = self.peek(count) {
            let byte = (slot >> 8) as u8;
            *bytes.get_mut(count)? = byte;
            count += 1;
            is_whole = byte == b'\n' || count == PIECE;
        }
        if !is_whole && now.saturating_sub(since) <= patience {
            return None;
        }
        // Release: producers may fill the slots again once they are read.
        let tail = self.tail.load(Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(count), Ordering::Release);
        Some((bytes.get(..count)?, since))
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
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
        assert_eq!(taken(&output, 212), None, "the byte may have company soon");
        send(&output, "s\n", 113);
        assert_eq!(taken(&output, 212), Some(("ls\n".into(), 112)));
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
            assert!((0..BURST).all(|_| output.send(b'\n', 0)), "a burst fits");
        }
        let mut lost = 0;
        while output.send(b'\n', 0) {
            lost += 1;
            assert!(lost < BYTES, "full in the end");
        }
        assert!(taken(&output, 0).is_some());
    }

    #[test]
    fn a_time_survives_its_lower_bits_and_a_core_that_is_ahead() {
        for (sent, now) in [(0, 5), (1 << 48, (1 << 48) + 9), ((1 << 48) - 1, 1 << 48), (70, 64)] {
            assert_eq!(filled_at(filled(0, b'x', sent), now), sent, "{sent} at {now}");
        }
    }

    /// Each vCPU sends its own letter and the number of its byte as the time. Whatever the race: every byte comes once, in its sender's
    /// order, with the time that its sender gave it.
    #[test]
    fn vcpus_that_race_mix_bytes_and_nothing_else() {
        const EACH: u64 = if cfg!(miri) { 100 } else { 30_000 };
        const VCPUS: u8 = 3;
        let output = Output::new();
        let mut next = [0_u64; VCPUS as usize];
        std::thread::scope(|scope| {
            for vcpu in 0..VCPUS {
                let output = &output;
                scope.spawn(move || {
                    for number in 0..EACH {
                        while !output.send(vcpu, number) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut bytes = [0; PIECE];
            while next.iter().sum::<u64>() < EACH * u64::from(VCPUS) {
                let Some((bytes, tsc)) = output.take(u64::from(u32::MAX), 0, &mut bytes) else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(tsc, next[usize::from(bytes[0])], "the time is the first byte's own");
                bytes.iter().for_each(|vcpu| next[usize::from(*vcpu)] += 1);
            }
        });
        assert_eq!(next, [EACH; VCPUS as usize]);
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
