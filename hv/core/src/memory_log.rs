//! The log of a board without a serial port: kept in memory that survives a warm reset, and found there by its header.
//!
//! The memory has two halves. Each start of the hypervisor writes into the half that is not the last one's, so the log
//! of the run before a reset is still there. A half is a header of [`HEADER`] bytes and a ring: the bytes that would have
//! gone over the serial line, of which the oldest are overwritten. All integers are little-endian.
//!
//! ```text
//! magic [u8; 16] | version u32 | bytes of the ring u32 | run u64 | written u64 | build id [u8; 20] | ended u32
//! ```

/// What a header begins with. It stands on a page of its own memory.
pub const MAGIC: [u8; 16] = *b"\x7fBulkhead RAMlog";

/// Version of the layout.
pub const VERSION: u32 = 1;

/// Bytes of a header.
pub const HEADER: usize = 64;

/// A header of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the ring behind it.
    pub ring: u32,
    /// Number of the run, from 1 on; the larger one is the later run.
    pub run: u64,
    /// Bytes ever written.
    pub written: u64,
    /// The GNU build id of the hypervisor that wrote it.
    pub build: [u8; 20],
    /// Whether the log came to its orderly end.
    pub ended: bool,
}

/// Place of the count of written bytes in a header.
const WRITTEN: usize = 32;
/// Place in a header of the word that tells the end.
pub const ENDED: usize = 60;

impl Header {
    /// As it stands in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..16].copy_from_slice(&MAGIC);
        bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.ring.to_le_bytes());
        bytes[24..WRITTEN].copy_from_slice(&self.run.to_le_bytes());
        bytes[WRITTEN..40].copy_from_slice(&self.written.to_le_bytes());
        bytes[40..ENDED].copy_from_slice(&self.build);
        bytes[ENDED] = u8::from(self.ended);
        bytes
    }

    /// The header that these bytes begin with; `None` where none is.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let number = |at: usize, size: usize| {
            bytes[at..at + size].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let good = bytes.starts_with(&MAGIC) && number(16, 4) == u64::from(VERSION);
        good.then(|| Self {
            ring: number(20, 4) as u32,
            run: number(24, 8),
            written: number(WRITTEN, 8),
            build: bytes[40..ENDED].try_into().unwrap_or_default(),
            ended: bytes[ENDED] == 1,
        })
    }
}

/// A log that is being written.
pub struct MemoryLog<'m> {
    header: &'m mut [u8],
    ring: &'m mut [u8],
    written: u64,
}

impl<'m> MemoryLog<'m> {
    /// Begins a log in the half that the last run did not write. `None` where the memory holds no two halves.
    pub fn begin(memory: &'m mut [u8], build: [u8; 20]) -> Option<Self> {
        let half = memory.len() / 2;
        let (first, second) = memory.split_at_mut_checked(half)?;
        let run = |half: &[u8]| Header::from_bytes(half).map_or(0, |header| header.run);
        let (before, other) = (run(first), run(second));
        let chosen = if before <= other { first } else { second };
        let (header, ring) = chosen.split_at_mut_checked(HEADER)?;
        let size = u32::try_from(ring.len()).ok().filter(|size| *size > 0)?;
        // A run whose number is the largest is forgotten rather than trusted.
        let run = before.max(other).checked_add(1).unwrap_or(1);
        let begun = Header { ring: size, run, written: 0, build, ended: false };
        header.copy_from_slice(&begun.to_bytes());
        Some(Self { header, ring, written: 0 })
    }

    /// Adds these bytes; the oldest ones go.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let at = (self.written % self.ring.len() as u64) as usize;
            if let Some(place) = self.ring.get_mut(at) {
                *place = *byte;
            }
            self.written = self.written.wrapping_add(1);
        }
        if let Some(place) = self.header.get_mut(WRITTEN..WRITTEN + 8) {
            place.copy_from_slice(&self.written.to_le_bytes());
        }
    }
}

impl MemoryLog<'_> {
    /// Marks the log as one that came to its end.
    pub fn end(&mut self) {
        if let Some(place) = self.header.get_mut(ENDED) {
            *place = 1;
        }
    }
}

/// A log that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its header.
    pub header: Header,
    /// Its older bytes, and its newer ones. Where bytes were overwritten, the first ones are the end of a packet.
    pub parts: (&'a [u8], &'a [u8]),
}

/// The log whose header these bytes begin with.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Found<'_>> {
    let header = Header::from_bytes(bytes)?;
    let ring = bytes.get(HEADER..)?.get(..header.ring as usize)?;
    let (size, written) = (u64::from(header.ring), header.written);
    if size == 0 {
        return None;
    }
    if written <= size {
        return Some(Found { header, parts: (ring.get(..written as usize)?, &[]) });
    }
    let (newer, older) = ring.split_at_checked((written % size) as usize)?;
    Some(Found { header, parts: (older, newer) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BUILD: [u8; 20] = [7; 20];

    fn whole(found: &Found<'_>) -> Vec<u8> {
        [found.parts.0, found.parts.1].concat()
    }

    #[test]
    fn each_run_leaves_the_log_of_the_one_before() {
        let mut memory = std::vec![0xAA; 2 * (HEADER + 16)];
        for (run, words) in [(1, "one"), (2, "two"), (3, "three")] {
            MemoryLog::begin(&mut memory, BUILD).unwrap().write(words.as_bytes());
            let halves = memory.split_at(HEADER + 16);
            let found: Vec<_> = [halves.0, halves.1].into_iter().filter_map(read).collect();
            let runs: Vec<u64> = found.iter().map(|found| found.header.run).collect();
            let expected: &[u64] = [&[1][..], &[1, 2], &[3, 2]][run as usize - 1];
            assert_eq!(runs, expected);
            let last = found.iter().find(|found| found.header.run == run).unwrap();
            assert_eq!((whole(last), last.header.build), (words.as_bytes().to_vec(), BUILD));
        }
    }

    #[test]
    fn the_orderly_end_is_told() {
        let mut memory = std::vec![0; 2 * (HEADER + 8)];
        let mut log = MemoryLog::begin(&mut memory, BUILD).unwrap();
        log.end();
        assert!(read(&memory).unwrap().header.ended);
        MemoryLog::begin(&mut memory, BUILD).unwrap();
        MemoryLog::begin(&mut memory, BUILD).unwrap();
        assert!(!read(&memory).unwrap().header.ended);
    }

    #[test]
    fn the_oldest_bytes_go() {
        let mut memory = std::vec![0; 2 * (HEADER + 8)];
        let mut log = MemoryLog::begin(&mut memory, BUILD).unwrap();
        log.write(b"0123456789");
        log.write(b"AB");
        assert_eq!(whole(&read(&memory).unwrap()), b"456789AB");
    }

    #[test]
    fn a_foreign_number_of_a_run_is_no_end() {
        let mut memory = std::vec![0; 2 * (HEADER + 8)];
        let header = Header { ring: 8, run: u64::MAX, written: 0, build: BUILD, ended: true };
        memory[..HEADER].copy_from_slice(&header.to_bytes());
        MemoryLog::begin(&mut memory, BUILD).unwrap().write(b"x");
        assert_eq!(read(&memory[HEADER + 8..]).unwrap().header.run, 1);
    }

    #[test]
    fn memory_that_is_too_small_holds_no_log() {
        for size in [0, 1, HEADER, 2 * HEADER, 2 * HEADER + 1] {
            assert!(MemoryLog::begin(&mut std::vec![0; size], BUILD).is_none(), "{size}");
        }
    }

    proptest! {
        #[test]
        fn what_fits_is_read_back(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            const RING: usize = 128;
            let mut memory = std::vec![0; 2 * (HEADER + RING)];
            let mut log = MemoryLog::begin(&mut memory, BUILD).unwrap();
            pieces.iter().for_each(|piece| log.write(piece));
            let all = pieces.concat();
            let kept = &all[all.len().saturating_sub(RING)..];
            prop_assert_eq!(whole(&read(&memory).unwrap()), kept);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), sound in any::<bool>()) {
            let mut bytes = bytes;
            if sound && bytes.len() >= 20 {
                bytes[..16].copy_from_slice(&MAGIC);
                bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
            }
            let _answers = read(&bytes);
            if let Some(mut log) = MemoryLog::begin(&mut bytes, BUILD) {
                log.write(b"abc");
            }
        }
    }
}
