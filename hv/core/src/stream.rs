//! A stream of bytes from one producer to any number of consumers: what is typed to a partition, whose vCPUs may all read it.
//!
//! Nobody waits. Bytes are atomic so that the stream is safe code and can be a `static`. Consumers that race get each byte once: the one
//! that moves the end of the stream has it.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// How often a read is tried while other consumers are faster. Each failure means that another got its byte.
const TRIES: usize = 8;

/// A stream that holds up to `N` bytes; `N` is a power of two.
pub struct Stream<const N: usize> {
    /// Bytes ever written, wrapping. The producer's own.
    head: AtomicUsize,
    /// Bytes ever read, wrapping.
    tail: AtomicUsize,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Stream<N> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "positions are masked") };
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            bytes: [const { AtomicU8::new(0) }; N],
        }
    }

    fn byte(&self, position: usize) -> &AtomicU8 {
        &self.bytes[position & (N - 1)]
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        // The tail first: the head never falls behind a tail that was seen before. Both may move meanwhile.
        let (tail, head) = (self.tail.load(Ordering::Acquire), self.head.load(Ordering::Acquire));
        head.wrapping_sub(tail).min(N)
    }

    /// Bytes that there is room for.
    #[must_use]
    pub fn free(&self) -> usize {
        N - self.waiting()
    }

    /// Producer: adds all of `bytes`, or nothing where they do not fit. Returns whether they did.
    pub fn write(&self, bytes: &[u8]) -> bool {
        if bytes.len() > self.free() {
            return false;
        }
        let head = self.head.load(Ordering::Relaxed);
        for (offset, byte) in bytes.iter().enumerate() {
            self.byte(head.wrapping_add(offset)).store(*byte, Ordering::Relaxed);
        }
        self.head.store(head.wrapping_add(bytes.len()), Ordering::Release);
        true
    }

    /// Consumer: takes the first byte that waits. `None` when there is none, or when other consumers were faster again and again.
    pub fn read(&self) -> Option<u8> {
        for _ in 0..TRIES {
            let tail = self.tail.load(Ordering::Acquire);
            if self.head.load(Ordering::Acquire) == tail {
                return None;
            }
            let byte = self.byte(tail).load(Ordering::Relaxed);
            // It succeeds only while nobody took the byte, so the producer has not overwritten it.
            let taken = self.tail.compare_exchange(
                tail,
                tail.wrapping_add(1),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return Some(byte);
            }
        }
        None
    }
}

impl<const N: usize> Default for Stream<N> {
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

    #[test]
    fn a_full_stream_takes_nothing_in_part() {
        let stream = Stream::<8>::new();
        assert!(stream.write(b"seven b"));
        assert!(!stream.write(b"xy"), "one byte is free");
        assert!(stream.write(b"y"));
        assert_eq!((stream.free(), stream.waiting()), (0, 8));
        assert_eq!(stream.read(), Some(b's'));
        assert_eq!((stream.free(), stream.waiting()), (1, 7));
    }

    #[test]
    fn two_threads_lose_no_byte() {
        const COUNT: u32 = if cfg!(miri) { 200 } else { 100_000 };
        let stream = Stream::<64>::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..COUNT {
                    while !stream.write(&[number as u8]) {
                        std::thread::yield_now();
                    }
                }
            });
            for number in 0..COUNT {
                let byte = loop {
                    match stream.read() {
                        Some(byte) => break byte,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(byte, number as u8);
            }
        });
    }

    /// Two vCPUs read what is typed. Between them they get every byte once: the sum and the count are right.
    #[test]
    fn readers_that_race_get_each_byte_once() {
        const COUNT: u64 = if cfg!(miri) { 200 } else { 60_000 };
        let stream = Stream::<64>::new();
        let (count, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while count.load(Ordering::Relaxed) < COUNT as usize {
                        if let Some(byte) = stream.read() {
                            count.fetch_add(1, Ordering::Relaxed);
                            sum.fetch_add(usize::from(byte), Ordering::Relaxed);
                        }
                    }
                });
            }
            for number in 0..COUNT {
                while !stream.write(&[number as u8]) {
                    std::thread::yield_now();
                }
            }
        });
        let expected: usize = (0..COUNT).map(|number| usize::from(number as u8)).sum();
        assert_eq!((count.into_inner(), sum.into_inner()), (COUNT as usize, expected));
        assert_eq!(stream.read(), None);
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec((any::<bool>(), 0_usize..12), 0..200)) {
            let stream = Stream::<16>::new();
            let mut model = VecDeque::new();
            for (write, count) in steps {
                if write {
                    let bytes: Vec<u8> = (0..count as u8).collect();
                    let fits = model.len() + count <= 16;
                    prop_assert_eq!(stream.write(&bytes), fits);
                    if fits {
                        model.extend(bytes);
                    }
                } else {
                    for _ in 0..count {
                        prop_assert_eq!(stream.read(), model.pop_front());
                    }
                }
                prop_assert_eq!(stream.waiting(), model.len());
            }
        }
    }
}
