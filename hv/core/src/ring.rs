//! A ring of records between one producer and one consumer: logs and partition consoles on their way out.
//!
//! One core writes, one core reads, neither waits. A record goes in whole or not at all; one that does not fit is
//! dropped and counted. Bytes are atomic so that the ring is safe code and can be a `static`; on x86 a relaxed or
//! releasing store is a plain store.
//!
//! A record does not say who wrote it. The reader knows that from the ring, so a garbled or forged record cannot speak for
//! anybody else. Breaking the rule of one producer or one consumer garbles records of this ring and never memory.
//!
//! ```text
//! record: payload length u8 | tag u8 | TSC u64, little-endian | payload
//! ```

use core::array;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crate::wire::MAX_PAYLOAD;

/// Bytes in front of each payload.
pub const HEADER: usize = 10;

const _: () = assert!(MAX_PAYLOAD <= u8::MAX as usize, "a payload's length is one byte");

/// No record is open.
const IDLE: u8 = 0;
/// A record is open and fits so far.
const OPEN: u8 = 1;
/// A record is open and will be dropped.
const OVERFULL: u8 = 2;

/// A ring of `N` bytes; `N` is a power of two and holds at least one record of the largest size.
pub struct Ring<const N: usize> {
    /// Bytes ever committed, wrapping. Written by the producer only.
    head: AtomicUsize,
    /// Bytes ever consumed, wrapping. Written by the consumer only.
    tail: AtomicUsize,
    /// Where the open record's next byte goes. The producer's own.
    next: AtomicUsize,
    /// [`IDLE`], [`OPEN`] or [`OVERFULL`]. The producer's own.
    state: AtomicU8,
    lost: AtomicU32,
    bytes: [AtomicU8; N],
}

/// What came out of a ring, beside the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// As written: tells the records of one producer apart.
    pub tag: u8,
    /// As written.
    pub tsc: u64,
    /// Bytes of payload.
    pub length: usize,
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(N.is_power_of_two(), "positions are masked");
            assert!(N >= HEADER + MAX_PAYLOAD, "the largest record fits");
        }
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            state: AtomicU8::new(IDLE),
            lost: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; N],
        }
    }

    fn byte(&self, position: usize) -> &AtomicU8 {
        &self.bytes[position & (N - 1)]
    }

    /// Producer: whether `count` bytes fit behind `position`.
    fn fits(&self, position: usize, count: usize) -> bool {
        // Acquire: the consumer has read what is about to be overwritten.
        let used = position.wrapping_sub(self.tail.load(Ordering::Acquire));
        used <= N && count <= N - used
    }

    fn put(&self, position: usize, bytes: &[u8]) -> usize {
        for (offset, byte) in bytes.iter().enumerate() {
            self.byte(position.wrapping_add(offset)).store(*byte, Ordering::Relaxed);
        }
        position.wrapping_add(bytes.len())
    }

    /// Producer: counts a record that was given up before it came here.
    pub fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Producer: opens a record. A record that is still open is dropped and counted. Returns whether there is room for
    /// its header; if not, the record is dropped and [`Self::commit`] counts it.
    pub fn begin(&self, tag: u8, tsc: u64) -> bool {
        if self.state.load(Ordering::Relaxed) != IDLE {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let start = self.head.load(Ordering::Relaxed);
        let fits = self.fits(start, HEADER);
        self.state.store(if fits { OPEN } else { OVERFULL }, Ordering::Relaxed);
        if fits {
            let next = self.put(start.wrapping_add(1), &[tag]);
            self.next.store(self.put(next, &tsc.to_le_bytes()), Ordering::Relaxed);
        }
        fits
    }

    /// Producer: adds bytes to the open record. One that outgrows the ring or [`MAX_PAYLOAD`] will be dropped.
    pub fn push(&self, payload: &[u8]) {
        if self.state.load(Ordering::Relaxed) != OPEN {
            return;
        }
        let next = self.next.load(Ordering::Relaxed);
        let length = self.open_length(next);
        if payload.len() > MAX_PAYLOAD - length || !self.fits(next, payload.len()) {
            self.state.store(OVERFULL, Ordering::Relaxed);
            return;
        }
        self.next.store(self.put(next, payload), Ordering::Relaxed);
    }

    /// Payload bytes of the open record whose next byte goes to `next`.
    fn open_length(&self, next: usize) -> usize {
        next.wrapping_sub(self.head.load(Ordering::Relaxed)).wrapping_sub(HEADER).min(MAX_PAYLOAD)
    }

    /// Producer: closes the open record and hands it to the consumer. False when there was none, or when it was
    /// dropped, which counts it as lost.
    pub fn commit(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(IDLE, Ordering::Relaxed);
        if state != OPEN {
            if state == OVERFULL {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        }
        let next = self.next.load(Ordering::Relaxed);
        let length = self.open_length(next);
        self.byte(self.head.load(Ordering::Relaxed)).store(length as u8, Ordering::Relaxed);
        // Release: whoever sees the new head sees the bytes.
        self.head.store(next, Ordering::Release);
        true
    }

    /// Producer: a whole record at once. False when it was dropped and counted.
    pub fn write(&self, tag: u8, tsc: u64, payload: &[u8]) -> bool {
        self.begin(tag, tsc);
        self.push(payload);
        self.commit()
    }

    /// Producer: the most payload bytes that a record may have now; 0 when none fits. To push back on a console.
    #[must_use]
    pub fn free(&self) -> usize {
        let used =
            self.head.load(Ordering::Relaxed).wrapping_sub(self.tail.load(Ordering::Acquire));
        N.saturating_sub(used).saturating_sub(HEADER).min(MAX_PAYLOAD)
    }

    /// Consumer: takes the oldest record; its payload is the first [`Record::length`] bytes of `payload`.
    pub fn pop(&self, payload: &mut [u8; MAX_PAYLOAD]) -> Option<Record> {
        let start = self.tail.load(Ordering::Relaxed);
        let head = self.head.load(Ordering::Acquire);
        let available = head.wrapping_sub(start);
        if available == 0 {
            return None;
        }
        let get = |offset: usize| self.byte(start.wrapping_add(offset)).load(Ordering::Relaxed);
        let length = usize::from(get(0));
        let is_whole = HEADER + length <= available && available <= N;
        let target = payload.get_mut(..length).filter(|_| is_whole);
        let Some(target) = target else {
            // The content contradicts itself, which one producer cannot cause. The ring drops all of it and starts anew.
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.tail.store(head, Ordering::Release);
            return None;
        };
        for (offset, byte) in target.iter_mut().enumerate() {
            *byte = get(HEADER + offset);
        }
        let record = Record {
            tag: get(1),
            tsc: u64::from_le_bytes(array::from_fn(|index| get(2 + index))),
            length,
        };
        // Release: the producer may overwrite the bytes once they are read.
        self.tail.store(start.wrapping_add(HEADER + length), Ordering::Release);
        Some(record)
    }

    /// Consumer: how many records were dropped since the last call.
    pub fn take_lost(&self) -> u32 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    type Small = Ring<256>;

    fn pop<const N: usize>(ring: &Ring<N>) -> Option<(Record, Vec<u8>)> {
        let mut payload = [0; MAX_PAYLOAD];
        let record = ring.pop(&mut payload)?;
        Some((record, payload[..record.length].to_vec()))
    }

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        static RING: Small = Small::new();
        assert!(RING.begin(3, 0x0102_0304_0506_0708));
        assert_eq!(pop(&RING), None, "an open record is not seen");
        RING.push(b"ab");
        RING.push(b"c");
        assert!(RING.commit());
        let record = Record { tag: 3, tsc: 0x0102_0304_0506_0708, length: 3 };
        assert_eq!(pop(&RING), Some((record, b"abc".to_vec())));
        assert_eq!(pop(&RING), None);
        assert_eq!(RING.take_lost(), 0);
        assert!(!RING.commit(), "nothing is open");
        assert_eq!(RING.take_lost(), 0);
    }

    #[test]
    fn what_does_not_fit_is_dropped_whole_and_counted_once() {
        let ring = Small::new();
        assert_eq!(ring.free(), MAX_PAYLOAD);
        assert!(ring.write(1, 0, &[7; 200]));
        assert_eq!(ring.free(), 256 - 210 - HEADER);
        assert!(!ring.write(1, 0, &[8; 37]));
        assert!(ring.write(1, 0, &[9; 36]));
        assert_eq!(ring.free(), 0);
        assert!(!ring.begin(0, 0));
        ring.push(b"x");
        assert!(!ring.commit());
        assert_eq!(ring.take_lost(), 2);
        assert_eq!(pop(&ring).unwrap().1, [7; 200]);
        assert_eq!(pop(&ring).unwrap().1, [9; 36]);
        assert_eq!(pop(&ring), None);
    }

    #[test]
    fn an_over_long_or_abandoned_record_is_lost() {
        let ring = Ring::<1024>::new();
        assert!(!ring.write(0, 0, &[0; MAX_PAYLOAD + 1]));
        assert!(ring.write(0, 0, &[1; MAX_PAYLOAD]));
        assert!(ring.begin(0, 0));
        ring.push(b"abandoned");
        assert!(ring.write(0, 0, b"next"));
        assert_eq!(ring.take_lost(), 2);
        assert_eq!(pop(&ring).unwrap().1, [1; MAX_PAYLOAD]);
        assert_eq!(pop(&ring).unwrap().1, b"next");
    }

    #[test]
    fn two_threads_see_whole_records_in_order() {
        const RECORDS: u64 = if cfg!(miri) { 200 } else { 100_000 };
        let ring = Small::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while number < RECORDS {
                    let length = (number % 60) as usize;
                    if ring.free() >= length
                        && ring.write(number as u8, number, &[number as u8; 60][..length])
                    {
                        number += 1;
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            let mut number = 0;
            while number < RECORDS {
                let Some((record, payload)) = pop(&ring) else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(record.tsc, number);
                assert_eq!(record.tag, number as u8);
                assert_eq!(payload, std::vec![number as u8; (number % 60) as usize]);
                number += 1;
            }
        });
        assert_eq!(pop(&ring), None);
    }

    /// What two producers do to a ring, which nothing hands them any more: records are garbled, and the reader neither panics nor hangs.
    #[test]
    fn a_broken_rule_garbles_and_does_no_more() {
        const RECORDS: usize = if cfg!(miri) { 100 } else { 20_000 };
        let ring = Small::new();
        std::thread::scope(|scope| {
            let producers: Vec<_> = (0..2_u8)
                .map(|tag| {
                    let ring = &ring;
                    scope.spawn(move || {
                        (0..RECORDS).for_each(|at| {
                            let _lost = ring.write(tag, 1, &[0xFF; 60][..at % 60]);
                        });
                    })
                })
                .collect();
            while producers.iter().any(|producer| !producer.is_finished()) {
                let _any = pop(&ring);
            }
        });
        let left = std::iter::from_fn(|| pop(&ring)).count();
        assert!(left <= 256 / HEADER, "{left} records in a ring of 256 bytes");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8, u64, Vec<u8>),
        Pieces(Vec<Vec<u8>>),
        Pop,
        Lost,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..MAX_PAYLOAD + 8);
        prop_oneof![
            (any::<u8>(), any::<u64>(), bytes()).prop_map(|(s, t, b)| Step::Write(s, t, b)),
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..5)
                .prop_map(Step::Pieces),
            Just(Step::Pop),
            Just(Step::Pop),
            Just(Step::Lost),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue_with_a_byte_budget(steps in proptest::collection::vec(step(), 0..80)) {
            let ring = Ring::<512>::new();
            let mut queue = VecDeque::new();
            let mut used = 0;
            let mut lost = 0;
            for step in steps {
                let room = |length: usize, used: usize| length <= MAX_PAYLOAD && HEADER + length <= 512 - used;
                let free = if used + HEADER > 512 { 0 } else { (512 - used - HEADER).min(MAX_PAYLOAD) };
                prop_assert_eq!(ring.free(), free);
                match step {
                    Step::Write(source, tsc, bytes) => {
                        let fits = room(bytes.len(), used);
                        prop_assert_eq!(ring.write(source, tsc, &bytes), fits);
                        if fits {
                            used += HEADER + bytes.len();
                            queue.push_back((source, tsc, bytes));
                        } else {
                            lost += 1;
                        }
                    }
                    Step::Pieces(pieces) => {
                        let bytes = pieces.concat();
                        let fits = room(bytes.len(), used);
                        ring.begin(9, 9);
                        pieces.iter().for_each(|piece| ring.push(piece));
                        prop_assert_eq!(ring.commit(), fits);
                        if fits {
                            used += HEADER + bytes.len();
                            queue.push_back((9, 9, bytes));
                        } else {
                            lost += 1;
                        }
                    }
                    Step::Pop => {
                        let expected = queue.pop_front();
                        used -= expected.as_ref().map_or(0, |(_, _, bytes)| HEADER + bytes.len());
                        let found = pop(&ring).map(|(record, bytes)| (record.tag, record.tsc, bytes));
                        prop_assert_eq!(found, expected);
                    }
                    Step::Lost => {
                        prop_assert_eq!(ring.take_lost(), lost);
                        lost = 0;
                    }
                }
            }
        }
    }
}
