//! A stream of bytes between one producer and one consumer: what is typed to a partition, and what its serial port sends.
//!
//! As [`crate::ring`]: nobody waits, bytes are atomic so that the stream is safe code and can be a `static`, and breaking the rule of
//! one producer or one consumer garbles bytes and never memory.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A stream that holds up to `N` bytes; `N` is a power of two.
pub struct Stream<const N: usize> {
    /// Bytes ever written, wrapping. The producer's own.
    head: AtomicUsize,
    /// Bytes ever read, wrapping. The consumer's own.
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
        // Both ends move while this looks; the mask of a wrong difference is a wrong count and nothing worse.
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

    /// Consumer: the byte `offset` places behind the first that waits, if there is one.
    #[must_use]
    pub fn peek(&self, offset: usize) -> Option<u8> {
        (offset < self.waiting()).then(|| {
            let tail = self.tail.load(Ordering::Relaxed);
            self.byte(tail.wrapping_add(offset)).load(Ordering::Relaxed)
        })
    }

    /// Consumer: drops the first `count` bytes that wait.
    pub fn skip(&self, count: usize) {
        let tail = self.tail.load(Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(count.min(self.waiting())), Ordering::Release);
    }

    /// Consumer: takes the first byte that waits.
    pub fn read(&self) -> Option<u8> {
        let byte = self.peek(0);
        if byte.is_some() {
            self.skip(1);
        }
        byte
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
        assert_eq!(stream.peek(7), Some(b'y'));
        assert_eq!(stream.peek(8), None);
        stream.skip(100);
        assert_eq!((stream.read(), stream.waiting()), (None, 0), "skips what there is");
    }

    #[test]
    fn two_threads_lose_no_byte() {
        const COUNT: u32 = 100_000;
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
