//! What is wrong with a line whose log does not decode: told from what the bytes look like, with the remedy.
//!
//! A packet that was changed in a known way is changed back on trial. It has a checksum and a version, so a success is no chance.

use std::fmt;

use hv_core::wire::{self, HEADER, Kind, MAX_PAYLOAD};

/// Bytes of garbage below which nothing is said: a few are normal when a port is opened.
const FEW: u64 = 256;

/// Runs of garbage that are tried on: they tell as much as all of them.
const TRIALS: u32 = 24;

/// Longest run that is tried on: two packets.
const LONGEST: usize = 2 * wire::MAX_ENCODED;

/// Characters of control that the driver of a terminal swallows: interrupt, end of file, newline, return, start, stop, erase.
const SWALLOWED: [u8; 7] = [0x03, 0x04, b'\n', b'\r', 0x11, 0x13, 0x7F];

/// What spoils a log, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is wrong, as far as the bytes tell.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Nothing, or almost nothing, could be decoded.
    pub is_total: bool,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; {}", self.cause, self.remedy)
    }
}

/// A known way in which bytes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A return in front of each newline.
    ReturnAdded,
    /// Returns became newlines, or the other way round.
    NewlineExchanged,
    /// A character of control is missing.
    Swallowed,
    /// Each byte above 127 became a character of UTF-8.
    Recoded,
}

const CHANGES: [Change; 4] =
    [Change::ReturnAdded, Change::NewlineExchanged, Change::Swallowed, Change::Recoded];

/// What a line carried so far.
#[derive(Clone, Debug, Default)]
pub struct Health {
    bytes: u64,
    zeros: u64,
    /// Bytes with the value of [`wire::VERSION`], of which every packet has one.
    versions: u64,
    /// Bytes above 127.
    high: u64,
    /// Replacement characters of UTF-8.
    replaced: u64,
    /// The last two bytes.
    latest: [u8; 2],
    good: u64,
    garbled: u64,
    trials: u32,
    /// By [`CHANGES`]: runs that are a packet once the change is undone.
    undone: [u32; CHANGES.len()],
}

impl Health {
    /// Nothing came yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: 0,
            zeros: 0,
            versions: 0,
            high: 0,
            replaced: 0,
            latest: [0; 2],
            good: 0,
            garbled: 0,
            trials: 0,
            undone: [0; CHANGES.len()],
        }
    }

    /// These bytes came.
    pub fn came(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes += 1;
            self.zeros += u64::from(byte == 0);
            self.versions += u64::from(byte == wire::VERSION);
            self.high += u64::from(byte >= 0x80);
            self.replaced +=
                u64::from([self.latest[0], self.latest[1], byte] == [0xEF, 0xBF, 0xBD]);
            self.latest = [self.latest[1], byte];
        }
    }

    /// So many of them were a packet or text.
    pub const fn good(&mut self, bytes: usize) {
        self.good += bytes as u64;
    }

    /// This run of them was neither.
    pub fn garbled(&mut self, run: &[u8]) {
        self.garbled += run.len() as u64;
        // A packet has its version behind the first code of COBS. Where that comes through, runs without it are not worth a trial.
        let is_like_one = self.versions == 0 || run.get(1) == Some(&wire::VERSION);
        let is_tried = is_like_one && self.trials < TRIALS && run.len() <= LONGEST;
        self.trials += u32::from(is_tried);
        for (change, count) in CHANGES.iter().zip(&mut self.undone) {
            *count += u32::from(is_tried && change.explains(run, self.versions > 0));
        }
    }

    /// What is wrong; `None` while nothing much is.
    #[must_use]
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        let only_zeros = self.bytes >= FEW && self.zeros == self.bytes;
        let is_total = self.good * 10 < self.bytes;
        if !only_zeros && (self.garbled < FEW || !(is_total || self.is_bad())) {
            return None;
        }
        let (cause, remedy) = self.signature(is_total);
        Some(Diagnosis { cause, remedy, is_total })
    }

    /// Whether so much is garbled that it needs a cause.
    fn is_bad(&self) -> bool {
        self.garbled * 20 > self.bytes || self.undone.iter().any(|count| *count > 1)
    }

    fn signature(&self, is_total: bool) -> (&'static str, &'static str) {
        const RAW: &str = "read the port raw (`stty -F DEVICE raw -echo`), or let `bulkhead log DEVICE` open it; capture the log as binary";
        const FORMAT: &str = "set 8 data bits, no parity, 1 stop bit on this side";
        let likeliest = CHANGES.iter().zip(self.undone).max_by_key(|(_, count)| *count);
        match likeliest {
            Some((Change::ReturnAdded, 2..)) => {
                return (
                    "newlines are translated on the way: each has a return in front of it",
                    RAW,
                );
            }
            Some((Change::NewlineExchanged, 2..)) => {
                return (
                    "newlines are translated on the way: returns and newlines are exchanged",
                    RAW,
                );
            }
            Some((Change::Swallowed, 2..)) => {
                return (
                    "characters of control are swallowed on the way: the port is not raw, or has software flow control (XON/XOFF)",
                    RAW,
                );
            }
            Some((Change::Recoded, 2..)) => {
                return ("the log was saved as text: bytes above 127 became UTF-8", RAW);
            }
            _ => {}
        }
        if self.zeros == self.bytes {
            return (
                "only zeros came: the line is held low, or the board sends at a much lower baud rate",
                "check ground and the receiving wire, and that both ends have the same levels (RS-232, not TTL)",
            );
        }
        if self.replaced * 20 > self.bytes {
            return ("the log was saved as text by a program that replaces what is no UTF-8", RAW);
        }
        if self.high == 0 {
            return (
                "no byte has its highest bit set: this side reads 7 data bits, or strips the eighth",
                FORMAT,
            );
        }
        if self.zeros == 0 {
            return (
                "no zero came, and zeros stand around each packet: the program that saved the log drops them, or the baud rate is wrong",
                RAW,
            );
        }
        if is_total {
            return (
                "nothing reads as a packet or as text: the baud rate of this side is not the board's, or data bits and parity differ",
                "give --baud (a rig: `[serial] baud`) the baud rate of the board file's `[serial]`, with 8 data bits, no parity, 1 stop bit",
            );
        }
        (
            "bytes are lost or changed on the way",
            "check the cable and its ground, that nobody else reads the port, and that this machine keeps up; a lower baud rate helps",
        )
    }
}

impl Change {
    /// Whether the run is a packet once this change is undone; `versions` says that the version of packets comes through.
    fn explains(self, run: &[u8], versions: bool) -> bool {
        match self {
            Self::ReturnAdded => {
                let without = without_returns(run);
                without.len() < run.len() && is_packet(&without)
            }
            Self::NewlineExchanged => exchanged(run),
            Self::Swallowed if versions => SWALLOWED.iter().any(|byte| lacks(run, *byte)),
            Self::Swallowed => with_front(run)
                .iter()
                .any(|run| is_packet(run) || SWALLOWED.iter().any(|byte| lacks(run, *byte))),
            Self::Recoded => recoded(run).is_some_and(|bytes| is_packet(&bytes)),
        }
    }
}

fn is_packet(run: &[u8]) -> bool {
    wire::decode(run, &mut [0; HEADER + MAX_PAYLOAD + 2]).is_ok()
}

/// The run without the returns that stand in front of newlines.
fn without_returns(run: &[u8]) -> Vec<u8> {
    let next = run.iter().skip(1).copied().map(Some).chain([None]);
    let kept = run.iter().zip(next).filter(|(byte, next)| (**byte, *next) != (b'\r', Some(b'\n')));
    kept.map(|(byte, _)| *byte).collect()
}

/// Whether exchanging some newlines for returns, or some returns for newlines, makes a packet. More than ten are not tried.
fn exchanged(run: &[u8]) -> bool {
    [(b'\n', b'\r'), (b'\r', b'\n')].into_iter().any(|(is, was)| {
        let places: Vec<usize> = (0..run.len()).filter(|at| run[*at] == is).collect();
        (1..=10).contains(&places.len())
            && (1_u32..1 << places.len()).any(|which| {
                let mut trial = run.to_vec();
                for (bit, at) in places.iter().enumerate() {
                    if which >> bit & 1 == 1 {
                        trial[*at] = was;
                    }
                }
                is_packet(&trial)
            })
    })
}

/// The run with its version, and with its version and the kind of a console, both of which may be such a character.
fn with_front(run: &[u8]) -> Vec<Vec<u8>> {
    let Some((code, rest)) = run.split_first() else {
        return vec![];
    };
    let fronts: [&[u8]; 2] = [&[wire::VERSION], &[wire::VERSION, Kind::Console.code()]];
    fronts.iter().map(|front| [&[*code][..], front, rest].concat()).collect()
}

/// Whether the run is a packet with one more byte of this value.
fn lacks(run: &[u8], byte: u8) -> bool {
    (0..=run.len()).any(|at| {
        let mut trial = run.to_vec();
        trial.insert(at, byte);
        is_packet(&trial)
    })
}

/// The bytes of which the run is the UTF-8.
fn recoded(run: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(run).ok().filter(|text| !text.is_ascii())?;
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use hv_core::wire::{MAX_ENCODED, Packet};
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{Decoder, Event};

    /// The log of a run: greeting text, consoles, figures; some 30 kB.
    fn log() -> Vec<u8> {
        let mut stream = b"Booting\r\nBulkhead: the board is there\r\n".to_vec();
        let mut dice = 12_345_u64;
        let mut roll = move || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) as u8
        };
        for number in 0..600_u64 {
            let mut payload = b"\0line of a console, number ".to_vec();
            payload.extend((0..number % 30).map(|_| roll()));
            payload.extend(b"\r\n");
            let packet = Packet {
                kind: Kind::Console,
                source: 1,
                build: [0xC3, 0x0A, 0x0D, 0x91],
                tsc: number * 777_777,
                payload: &payload,
            };
            stream.extend(wire::encode(&packet, &mut [0; MAX_ENCODED]).unwrap());
        }
        stream
    }

    /// What is said of a stream, its last diagnosis, and how many lines that takes.
    fn decoded(stream: &[u8]) -> (Option<Diagnosis>, usize, u64) {
        let mut decoder = Decoder::new(None);
        let mut events = Vec::new();
        for piece in stream.chunks(100) {
            decoder.feed(piece, &mut events).unwrap();
        }
        decoder.finish(&mut events);
        let lines = events.iter().filter(|event| !matches!(event, Event::Console { .. })).count();
        let runs = events.iter().map(|event| match event {
            Event::Garbled { runs, .. } => *runs,
            _ => 0,
        });
        assert_eq!(runs.sum::<u64>(), decoder.counts().garbled, "none is kept back in the end");
        (decoder.diagnosis(), lines, decoder.counts().packets)
    }

    /// Says that the stream is diagnosed by these words, in few lines.
    fn is_told(stream: &[u8], words: &str, total: bool) {
        let (diagnosis, lines, _) = decoded(stream);
        let diagnosis = diagnosis.unwrap_or_else(|| panic!("nothing is said, but {words}"));
        assert!(diagnosis.cause.contains(words), "{diagnosis}, and not {words}");
        assert_eq!(diagnosis.is_total, total, "{diagnosis}");
        assert!(lines < 60, "{lines} lines");
    }

    /// Levels of the line, `ratio` samples of the receiver for each sender's bit as (numerator, denominator).
    fn resampled(stream: &[u8], ratio: (usize, usize), error_as_zero: bool) -> Vec<u8> {
        let bits: Vec<bool> = stream
            .iter()
            .flat_map(|byte| {
                let data = (0..8).map(move |bit| byte >> bit & 1 == 1);
                std::iter::once(false).chain(data).chain([true])
            })
            .collect();
        // In quarters of the receiver's bit.
        let level = |quarter: usize| bits.get(quarter * ratio.1 / (4 * ratio.0)).copied();
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(now) = level(at) {
            if now {
                at += 1;
                continue;
            }
            let sample = |bit: usize| level(at + 4 * bit + 6).unwrap_or(true);
            let byte = (0..8).fold(0, |byte, bit| byte | u8::from(sample(bit)) << bit);
            let framed = sample(8);
            out.push(if framed || !error_as_zero { byte } else { 0 });
            at += 38;
            // A receiver waits for the line to rest behind a framing error.
            while !framed && level(at) == Some(false) {
                at += 1;
            }
        }
        out
    }

    #[test]
    fn a_good_log_is_not_diagnosed() {
        let log = log();
        assert_eq!(decoded(&log), (None, 2, 600));
        assert_eq!(resampled(&log, (1, 1), true), log, "the line of the tests is a line");
        let middle = &log[1_111..];
        assert_eq!(decoded(middle).0, None, "a port is opened at any time");
        assert_eq!(decoded(b"").0, None);
    }

    #[test]
    fn a_wrong_baud_rate_is_told_in_few_lines() {
        for ratio in [(1, 2), (1, 3), (1, 12), (2, 1), (3, 1), (2, 3), (3, 2), (12, 1), (5, 6)] {
            for error_as_zero in [false, true] {
                let stream = resampled(&log(), ratio, error_as_zero);
                let (diagnosis, lines, packets) = decoded(&stream);
                let diagnosis = diagnosis.unwrap_or_else(|| panic!("nothing is said of {ratio:?}"));
                assert!(diagnosis.is_total && packets == 0, "{ratio:?}: {diagnosis}");
                assert!(diagnosis.cause.contains("baud rate"), "{ratio:?}: {diagnosis}");
                assert!(lines < 40, "{ratio:?}: {lines} lines");
            }
        }
    }

    #[test]
    fn seven_bits_are_told() {
        let stream: Vec<u8> = log().iter().map(|byte| byte & 0x7F).collect();
        is_told(&stream, "7 data bits", true);
    }

    #[test]
    fn translated_newlines_are_told() {
        let log = log();
        let added: Vec<u8> = log
            .iter()
            .flat_map(|byte| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] })
            .collect();
        is_told(&added, "return in front", true);
        let as_newline: Vec<u8> =
            log.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }).collect();
        is_told(&as_newline, "exchanged", true);
        let as_return: Vec<u8> =
            log.iter().map(|byte| if *byte == b'\n' { b'\r' } else { *byte }).collect();
        is_told(&as_return, "exchanged", true);
    }

    #[test]
    fn a_port_that_is_not_raw_is_told() {
        for swallowed in [0x11, 0x03, 0x04] {
            let stream: Vec<u8> = log().into_iter().filter(|byte| *byte != swallowed).collect();
            let (diagnosis, ..) = decoded(&stream);
            let diagnosis =
                diagnosis.unwrap_or_else(|| panic!("nothing is said of {swallowed:#x}"));
            assert!(diagnosis.cause.contains("swallowed"), "{swallowed:#x}: {diagnosis}");
        }
    }

    #[test]
    fn a_log_that_was_saved_as_text_is_told() {
        let log = log();
        let latin: String = log.iter().map(|byte| char::from(*byte)).collect();
        is_told(latin.as_bytes(), "became UTF-8", true);
        is_told(String::from_utf8_lossy(&log).as_bytes(), "no UTF-8", true);
        let without: Vec<u8> = log.into_iter().filter(|byte| *byte != 0).collect();
        is_told(&without, "no zero came", true);
    }

    #[test]
    fn a_dead_line_is_told() {
        is_told(&[0; 5_000], "held low", true);
    }

    #[test]
    fn a_bad_cable_is_told_beside_what_could_be_read() {
        let mut stream = log();
        for at in (0..stream.len()).step_by(190) {
            stream[at] ^= 0x20;
        }
        let (diagnosis, _, packets) = decoded(&stream);
        assert!(packets > 300);
        assert!(!diagnosis.unwrap().is_total);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn noise_of_any_length_takes_few_lines(noise in proptest::collection::vec(any::<u8>(), 0..30_000)) {
            let (_, lines, _) = decoded(&noise);
            prop_assert!(lines < 60, "{lines} lines");
        }
    }
}
