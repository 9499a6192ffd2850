//! The log that a board without a serial port keeps in memory, found in a copy of that memory.

use hv_core::memory_log::{Found, Header, MAGIC, read};

/// A log that was found in a copy of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its header.
    pub header: Header,
    /// Its bytes, the oldest first; they begin with a whole packet.
    pub bytes: Vec<u8>,
}

/// The logs in these bytes, the earlier run first.
#[must_use]
pub fn find(memory: &[u8]) -> Vec<Kept> {
    let mut found: Vec<Kept> = Vec::new();
    let mut from = 0;
    while let Some(at) = position(memory.get(from..).unwrap_or_default()) {
        from += at;
        found.extend(read(&memory[from..]).map(kept));
        from += MAGIC.len();
    }
    found.sort_by_key(|kept| kept.header.run);
    found
}

fn position(memory: &[u8]) -> Option<usize> {
    memory.windows(MAGIC.len()).position(|window| window == MAGIC)
}

fn kept(found: Found<'_>) -> Kept {
    let Found { header, parts } = found;
    let mut bytes = [parts.0, parts.1].concat();
    if header.written > u64::from(header.ring) {
        // The first bytes are the end of a packet whose beginning was overwritten.
        let begin = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.drain(..begin);
    }
    Kept { header, bytes }
}

#[cfg(test)]
mod tests {
    use hv_core::memory_log::{HEADER, MemoryLog};

    use super::*;

    #[test]
    fn the_logs_of_two_runs_are_found_anywhere_in_the_memory() {
        let mut memory = vec![0xAA; 2 * (HEADER + 32)];
        for words in ["one", "two"] {
            MemoryLog::begin(&mut memory, [1; 20]).unwrap().write(words.as_bytes());
        }
        let dump = [&[7; 13][..], &memory, &MAGIC].concat();
        let found = find(&dump);
        let runs: Vec<_> = found.iter().map(|kept| (kept.header.run, &kept.bytes[..])).collect();
        assert_eq!(runs, [(1, &b"one"[..]), (2, b"two")]);
        assert!(find(b"nothing").is_empty());
    }

    #[test]
    fn a_packet_that_was_overwritten_in_part_is_left_out() {
        let mut memory = vec![0; 2 * (HEADER + 8)];
        MemoryLog::begin(&mut memory, [1; 20]).unwrap().write(b"\0lost\0\0kept\0");
        assert_eq!(find(&memory)[0].bytes, b"\0\0kept\0");
    }
}
