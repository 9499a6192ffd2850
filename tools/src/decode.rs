//! Decodes the serial stream of a running system: packets of [`hv_core::wire`] among plain text.
//!
//! The stream may start anywhere and may be garbled anywhere. Every run of bytes between two zeros that is a
//! whole packet is taken as one, wherever it lies; everything else is text when it reads as text, and counted
//! as garbled when it does not. So a lost byte costs one packet, never the rest of the stream.

use std::collections::BTreeMap;

use hv_core::health::Incident;
use hv_core::pc::typed::Reply;
use hv_core::trace::{RECORD_BYTES, WindowRecord};
use hv_core::wire::{self, Defect, HEADER, Kind, Live, MAX_ENCODED, MAX_PAYLOAD, Packet, Stat};

use crate::diagnose::{Diagnosis, Health};
use crate::elf::{LogElf, hex};
use crate::error::{Error, Result};

/// Longest line of text or of a partition's console that is kept whole; a longer one is split.
const MAX_LINE: usize = 4096;

/// Runs of garbage that are told one by one; and packets that bring one more.
const TOLD: u64 = 5;
const PACKETS_A_LINE: u64 = 20;

/// Bytes of text that are no chance in the midst of garbage.
const SURELY_TEXT: usize = 12;

/// Bytes of garbage that were not told behind which the cause is told at once.
const ENOUGH: usize = 2048;

/// One thing that the stream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line of plain text: firmware, boot loader, the hypervisor before its log runs, a refusal.
    Text(String),
    /// The hypervisor named itself.
    Hello {
        /// Whole GNU build id.
        build: Vec<u8>,
        /// Digest of the table.
        digest: Vec<u8>,
        /// Declared frequency of the time-stamp counter, in hertz.
        tsc_hz: u64,
        /// Version of the protocol by which partitions are typed to; 0 where none can be; absent where it is older than that.
        typed: Option<u8>,
    },
    /// A message of the hypervisor.
    Log {
        /// Board CPU number.
        cpu: u8,
        /// Ticks of the time-stamp counter.
        tsc: u64,
        /// Its level, in lower case; empty for a plain print.
        level: String,
        /// Its text.
        message: String,
        /// File and line of the statement.
        place: Option<(String, u64)>,
    },
    /// A line of a partition's console.
    Console {
        /// Partition id.
        partition: u8,
        /// Ticks when its last part was written.
        tsc: u64,
        /// Without its line end.
        line: String,
    },
    /// Messages that a CPU had to drop.
    Lost {
        /// Board CPU number.
        cpu: u8,
        /// How many since the last such event.
        count: u32,
    },
    /// A figure of the hypervisor's own counters.
    Stat(Stat),
    /// The hypervisor recorded an incident.
    Incident {
        /// Board CPU number.
        cpu: u8,
        /// Ticks of the time-stamp counter.
        tsc: u64,
        /// What, to whom, by whom.
        incident: Incident,
    },
    /// Windows that ran, oldest first.
    Windows {
        /// Board CPU number.
        cpu: u8,
        /// The windows.
        records: Vec<WindowRecord>,
    },
    /// How a partition stands while the system runs.
    Live {
        /// Partition id.
        partition: u8,
        /// Ticks of the time-stamp counter.
        tsc: u64,
        /// Its figures so far.
        live: Live,
    },
    /// Exits of a partition so far, by kind.
    Exits {
        /// Partition id.
        partition: u8,
        /// Ticks of the time-stamp counter.
        tsc: u64,
        /// Numbers of [`hv_core::exit::ExitKind`] and counts above 0.
        counts: Vec<(u16, u64)>,
    },
    /// What became of a frame that was typed.
    Typed(Reply),
    /// A core was lost to a defect of the hypervisor or of the machine.
    Defect {
        /// Board CPU number.
        cpu: u8,
        /// Ticks of the time-stamp counter.
        tsc: u64,
        /// The core's last words.
        words: String,
    },
    /// Bytes that are neither text nor a packet.
    Garbled {
        /// In how many runs.
        runs: u64,
        /// How many.
        bytes: usize,
        /// What is wrong with them.
        cause: String,
    },
    /// What is wrong with the line, as far as its bytes tell: once when that is clear, and once at the end.
    Diagnosis(Diagnosis),
    /// All is said; the machine goes down next.
    End,
}

/// How much of what was decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole packets.
    pub packets: u64,
    /// Runs of bytes that were neither packet nor text.
    pub garbled: u64,
    /// Messages that the hypervisor had to drop.
    pub lost: u64,
}

/// Decoder of one stream. Feed it bytes as they come.
pub struct Decoder<'e> {
    elf: Option<&'e LogElf>,
    chunk: Vec<u8>,
    /// Whether the last byte before `chunk` was a zero that opened a packet.
    inside: bool,
    /// Lines that are not whole yet, and when their last part was written: by partition and by which of its consoles.
    consoles: BTreeMap<(u8, u8), (Vec<u8>, u64)>,
    counts: Counts,
    taps: BTreeMap<u8, Vec<u8>>,
    line: Health,
    garbage: Garbage,
}

/// Garbage, of which not every run is worth a line.
#[derive(Clone, Copy, Debug, Default)]
struct Garbage {
    /// Runs that were told one by one, or in sums.
    told: u64,
    /// Runs and bytes that were not told yet.
    runs: u64,
    bytes: usize,
    /// Nothing good came behind the last run.
    is_latest: bool,
    /// The cause was told.
    is_diagnosed: bool,
}

impl<'e> Decoder<'e> {
    /// A decoder; without `elf` the hypervisor's messages stay numbers, all else is decoded.
    #[must_use]
    pub const fn new(elf: Option<&'e LogElf>) -> Self {
        Self {
            elf,
            chunk: Vec::new(),
            inside: false,
            consoles: BTreeMap::new(),
            counts: Counts { packets: 0, garbled: 0, lost: 0 },
            taps: BTreeMap::new(),
            line: Health::new(),
            garbage: Garbage { told: 0, runs: 0, bytes: 0, is_latest: false, is_diagnosed: false },
        }
    }

    /// Keeps what this partition's console says as it is too, from now on, for [`Self::tapped`].
    pub fn tap(&mut self, partition: u8) {
        self.taps.insert(partition, Vec::new());
    }

    /// What a tapped console said since the last call.
    pub fn tapped(&mut self, partition: u8) -> Vec<u8> {
        self.taps.get_mut(&partition).map(std::mem::take).unwrap_or_default()
    }

    /// What is wrong with the line; `None` while nothing much is.
    #[must_use]
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        self.line.diagnosis()
    }

    /// What was decoded so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Decodes `bytes` and appends what they say to `events`.
    ///
    /// # Errors
    /// A packet of another build than the ELF's: its messages would decode to wrong texts. A whole packet of another version of the
    /// format: its figures would be read wrong.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<()> {
        self.line.came(bytes);
        for &byte in bytes {
            match byte {
                0 => self.close(events)?,
                b'\n' if !self.inside && reads_as_text(&self.chunk) => self.flush_text(events),
                _ => self.push(byte, events),
            }
        }
        Ok(())
    }

    /// The stream ended: says what is left over.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        if !self.chunk.is_empty() {
            self.flush_other(Defect::Malformed, events);
        }
        self.tell_garbage(events);
        events.extend(self.diagnosis().map(Event::Diagnosis));
        self.flush_consoles(events);
    }

    /// Tells the lines that their partitions did not end.
    fn flush_consoles(&mut self, events: &mut Vec<Event>) {
        let consoles: Vec<(u8, u8)> = self.consoles.keys().copied().collect();
        for console in consoles {
            self.flush_console(console, events);
        }
    }

    fn push(&mut self, byte: u8, events: &mut Vec<Event>) {
        self.chunk.push(byte);
        let limit = if self.inside { MAX_ENCODED } else { MAX_LINE };
        if self.chunk.len() > limit {
            self.flush_other(Defect::Malformed, events);
            self.inside = false;
        }
    }

    /// A zero came: it closes a packet, or opens the next one.
    fn close(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            self.inside = true;
            return Ok(());
        }
        let mut scratch = [0; HEADER + MAX_PAYLOAD + 2];
        match wire::decode(&chunk, &mut scratch) {
            Ok(packet) => {
                self.inside = false;
                self.counts.packets += 1;
                self.line.good(chunk.len() + 2);
                self.good_came(events);
                self.packet(&packet, events)
            }
            Err(Defect::Version(version)) => Err(other_version(version)),
            Err(defect) => {
                self.chunk = chunk;
                self.flush_other(defect, events);
                self.inside = true;
                Ok(())
            }
        }
    }

    fn flush_text(&mut self, events: &mut Vec<Event>) {
        if self.is_chance() {
            return self.flush_garbage("not a packet", events);
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.line.good(chunk.len() + 1);
        let lines = chunk.split(|byte| *byte == b'\n').map(plain).filter(|line| !line.is_empty());
        let lines: Vec<Event> = lines.map(Event::Text).collect();
        if !lines.is_empty() {
            self.good_came(events);
        }
        events.extend(lines);
    }

    /// Whether what reads as text is a part of the garbage around it: a few bytes are text by chance.
    fn is_chance(&self) -> bool {
        self.garbage.is_latest && self.chunk.len() < SURELY_TEXT
    }

    /// What is not a packet: lines of text, or garbage.
    fn flush_other(&mut self, defect: Defect, events: &mut Vec<Event>) {
        if reads_as_text(&self.chunk) {
            return self.flush_text(events);
        }
        let cause = match defect {
            Defect::Malformed | Defect::Version(_) => "not a packet",
            Defect::Checksum => "a packet with a wrong checksum",
        };
        self.flush_garbage(cause, events);
    }

    fn flush_garbage(&mut self, cause: &str, events: &mut Vec<Event>) {
        let chunk = std::mem::take(&mut self.chunk);
        self.line.garbled(&chunk);
        self.garbage.is_latest = true;
        self.garble(chunk.len(), cause, events);
        // Each packet that came may have brought much garbage to a good end: the line is bad when so much came without one.
        if self.garbage.bytes >= ENOUGH && !self.garbage.is_diagnosed {
            self.garbage.is_diagnosed = true;
            events.extend(self.diagnosis().map(Event::Diagnosis));
        }
    }

    /// Counts a run of garbage, and tells it as long as such lines are few beside the rest.
    fn garble(&mut self, bytes: usize, cause: &str, events: &mut Vec<Event>) {
        self.counts.garbled += 1;
        if self.may_tell() {
            self.garbage.told += 1;
            events.push(Event::Garbled { runs: 1, bytes, cause: cause.to_string() });
        } else {
            self.garbage.runs += 1;
            self.garbage.bytes += bytes;
        }
    }

    const fn may_tell(&self) -> bool {
        self.garbage.told < TOLD + self.counts.packets / PACKETS_A_LINE
    }

    /// Something good came: what was kept back is told, unless too much was told already.
    fn good_came(&mut self, events: &mut Vec<Event>) {
        self.garbage.is_latest = false;
        if self.may_tell() {
            self.tell_garbage(events);
        }
    }

    fn tell_garbage(&mut self, events: &mut Vec<Event>) {
        let Garbage { runs, bytes, .. } = self.garbage;
        if runs > 0 {
            self.garbage =
                Garbage { told: self.garbage.told + 1, runs: 0, bytes: 0, ..self.garbage };
            let cause = format!("{runs} more runs that are neither packets nor text");
            events.push(Event::Garbled { runs, bytes, cause });
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, events: &mut Vec<Event>) -> Result<()> {
        self.check_build(packet)?;
        match packet.kind {
            Kind::Hello => self.hello(packet, events)?,
            Kind::Log => self.log(packet, events)?,
            Kind::Console => self.console(packet, events),
            Kind::Lost => self.lost(packet, events),
            Kind::Stat => match Stat::from_bytes(packet.payload) {
                Some(stat) => events.push(Event::Stat(stat)),
                None => self.malformed(packet, "a figure of the wrong length", events),
            },
            Kind::Incident => match Incident::from_bytes(packet.payload) {
                Some(incident) => {
                    events.push(Event::Incident { cpu: packet.source, tsc: packet.tsc, incident });
                }
                None => self.malformed(packet, "an incident of the wrong length", events),
            },
            Kind::Windows => self.windows(packet, events),
            Kind::Live => match Live::from_bytes(packet.payload) {
                Some(live) => {
                    events.push(Event::Live { partition: packet.source, tsc: packet.tsc, live });
                }
                None => self.malformed(packet, "figures of a partition that do not read", events),
            },
            Kind::Exits => match wire::exit_entries(packet.payload) {
                Some(counts) => events.push(Event::Exits {
                    partition: packet.source,
                    tsc: packet.tsc,
                    counts: counts.collect(),
                }),
                None => self.malformed(packet, "exits of the wrong length", events),
            },
            Kind::Typed => match Reply::from_bytes(packet.payload) {
                Some(reply) => events.push(Event::Typed(reply)),
                None => self.malformed(packet, "an answer that does not read", events),
            },
            Kind::Defect => events.push(Event::Defect {
                cpu: packet.source,
                tsc: packet.tsc,
                words: String::from_utf8_lossy(packet.payload).into_owned(),
            }),
            Kind::End => {
                // A line without an end came before this word, and is no event behind it.
                self.flush_consoles(events);
                events.push(Event::End);
            }
            Kind::Unknown(code) => {
                self.malformed(packet, &format!("a packet of the unknown kind {code}"), events);
            }
        }
        Ok(())
    }

    fn hello(&mut self, packet: &Packet<'_>, events: &mut Vec<Event>) -> Result<()> {
        let Some((build, rest)) = packet.payload.split_at_checked(20) else {
            self.malformed(packet, "a greeting of the wrong length", events);
            return Ok(());
        };
        let (Some(digest), Some(Ok(hz))) =
            (rest.get(..32), rest.get(32..40).map(TryInto::try_into))
        else {
            self.malformed(packet, "a greeting of the wrong length", events);
            return Ok(());
        };
        events.push(Event::Hello {
            build: build.to_vec(),
            digest: digest.to_vec(),
            tsc_hz: u64::from_le_bytes(hz),
            typed: rest.get(40).copied(),
        });
        Ok(())
    }

    fn check_build(&self, packet: &Packet<'_>) -> Result<()> {
        let Some(elf) = self.elf else { return Ok(()) };
        if elf.build_id().starts_with(&packet.build) {
            return Ok(());
        }
        Err(Error::refused(
            "cannot decode this log",
            format!(
                "it was written by build {}, and {} is build {}",
                hex(&packet.build),
                elf.path().display(),
                hex(&elf.build_id()[..packet.build.len()])
            ),
            "give --elf the ELF of that build: the IMAGE.elf beside the image that runs there",
        ))
    }

    fn log(&mut self, packet: &Packet<'_>, events: &mut Vec<Event>) -> Result<()> {
        let Some(elf) = self.elf else {
            let message = format!("({} bytes; give --elf to read them)", packet.payload.len());
            events.push(log_event(packet, String::new(), message, None));
            return Ok(());
        };
        match elf.table().decode(packet.payload) {
            Ok((frame, _)) => {
                let level =
                    frame.level().map(|level| level.as_str().to_string()).unwrap_or_default();
                let message = frame.display_message().to_string();
                events.push(log_event(packet, level, message, elf.place(frame.index())));
            }
            Err(_) => self.malformed(packet, "a message that its own build does not know", events),
        }
        Ok(())
    }

    fn console(&mut self, packet: &Packet<'_>, events: &mut Vec<Event>) {
        let Some((&channel, said)) = packet.payload.split_first() else {
            self.malformed(packet, "a console that says nothing", events);
            return;
        };
        if let Some(bytes) = self.taps.get_mut(&packet.source) {
            bytes.extend(said);
        }
        let console = (packet.source, channel);
        for &byte in said {
            let (line, tsc) = self.consoles.entry(console).or_default();
            *tsc = packet.tsc;
            if byte != b'\n' {
                line.push(byte);
            }
            if byte == b'\n' || line.len() >= MAX_LINE {
                self.flush_console(console, events);
            }
        }
    }

    fn flush_console(&mut self, console: (u8, u8), events: &mut Vec<Event>) {
        let Some((line, tsc)) = self.consoles.remove(&console) else {
            return;
        };
        events.push(Event::Console { partition: console.0, tsc, line: plain(&line) });
    }

    fn lost(&mut self, packet: &Packet<'_>, events: &mut Vec<Event>) {
        let Ok(count) = packet.payload.try_into().map(u32::from_le_bytes) else {
            self.malformed(packet, "a loss count of the wrong length", events);
            return;
        };
        self.counts.lost += u64::from(count);
        events.push(Event::Lost { cpu: packet.source, count });
    }

    fn windows(&mut self, packet: &Packet<'_>, events: &mut Vec<Event>) {
        let pieces = packet.payload.chunks(RECORD_BYTES);
        match pieces.map(WindowRecord::from_bytes).collect() {
            Some(records) => events.push(Event::Windows { cpu: packet.source, records }),
            None => self.malformed(packet, "windows of the wrong length", events),
        }
    }

    fn malformed(&mut self, packet: &Packet<'_>, cause: &str, events: &mut Vec<Event>) {
        self.garble(packet.payload.len(), cause, events);
    }
}

/// A whole packet, but not of the format that this command knows.
fn other_version(version: u8) -> Error {
    Error::refused(
        "cannot decode this log",
        format!(
            "it has format version {version}, and this command knows version {}",
            wire::VERSION
        ),
        "decode it with the `bulkhead` of the tree that built the image",
    )
}

const fn log_event(
    packet: &Packet<'_>,
    level: String,
    message: String,
    place: Option<(String, u64)>,
) -> Event {
    Event::Log { cpu: packet.source, tsc: packet.tsc, level, message, place }
}

/// Whether bytes are text: UTF-8 without control characters but those of a terminal.
fn reads_as_text(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // The last character may still be on its way.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{8}' | '\u{1b}'))
}

/// Text for people: no escape sequences, no control characters, nothing at the end.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Skips what follows an escape character: `[`, parameters and a final letter, or one character.
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    if rest.next() != Some('[') {
        return;
    }
    for c in rest.by_ref() {
        if ('@'..='~').contains(&c) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(kind: Kind, source: u8, payload: &[u8]) -> Vec<u8> {
        let packet = Packet { kind, source, build: [1, 2, 3, 4], tsc: 7, payload };
        wire::encode(&packet, &mut [0; MAX_ENCODED]).unwrap().to_vec()
    }

    fn decode(bytes: &[u8]) -> (Vec<Event>, Counts) {
        let mut decoder = Decoder::new(None);
        let mut events = Vec::new();
        decoder.feed(bytes, &mut events).unwrap();
        decoder.finish(&mut events);
        (events, decoder.counts())
    }

    fn console(partition: u8, line: &str) -> Event {
        Event::Console { partition, tsc: 7, line: line.to_string() }
    }

    #[test]
    fn text_and_packets_are_told_apart() {
        let mut stream = b"GRUB loading\r\nhello".to_vec();
        stream.extend(packet(Kind::Console, 1, b"\0one\ntw"));
        stream.extend(b"between\n");
        stream.extend(packet(Kind::Console, 2, b"\0other\n"));
        stream.extend(packet(Kind::Console, 1, b"\0o\n"));
        stream.extend(packet(Kind::End, 0, b""));
        let (events, counts) = decode(&stream);
        assert_eq!(
            events,
            [
                Event::Text("GRUB loading".into()),
                Event::Text("hello".into()),
                console(1, "one"),
                Event::Text("between".into()),
                console(2, "other"),
                console(1, "two"),
                Event::End,
            ]
        );
        assert_eq!(counts, Counts { packets: 4, garbled: 0, lost: 0 });
    }

    #[test]
    fn a_line_without_an_end_comes_before_the_last_word() {
        let mut stream = packet(Kind::Console, 1, b"\0half a li");
        stream.extend(packet(Kind::End, 0, b""));
        assert_eq!(decode(&stream).0, [console(1, "half a li"), Event::End]);
    }

    #[test]
    fn lines_of_vcpus_that_speak_at_once_stay_whole() {
        let mut stream = packet(Kind::Console, 1, b"\0first ");
        stream.extend(packet(Kind::Console, 1, b"\x01second "));
        stream.extend(packet(Kind::Console, 1, b"\xFFthird"));
        stream.extend(packet(Kind::Console, 1, b"\0vCPU\n"));
        stream.extend(packet(Kind::Console, 1, b"\x01one\n"));
        let lines = ["first vCPU", "second one", "third"].map(|line| console(1, line));
        assert_eq!(decode(&stream).0, lines);
    }

    #[test]
    fn text_is_said_before_the_next_zero_comes() {
        let mut decoder = Decoder::new(None);
        let mut events = Vec::new();
        decoder.feed(b"refused: no VT-x\n", &mut events).unwrap();
        assert_eq!(events, [Event::Text("refused: no VT-x".into())]);
    }

    #[test]
    fn escape_sequences_are_left_out() {
        assert_eq!(
            decode(b"\x1b[2J\x1b[01;01HBdsDxe: ok\r\n").0,
            [Event::Text("BdsDxe: ok".into())]
        );
    }

    #[test]
    fn every_lost_byte_costs_at_most_two_packets() {
        let mut stream = Vec::new();
        for n in 0..8_u8 {
            stream.extend(packet(Kind::Console, n, b"\0payload with some length\n"));
        }
        for position in 0..stream.len() {
            let mut cut = stream.clone();
            cut.remove(position);
            let (events, _) = decode(&cut);
            let lines =
                events.iter().filter(|event| matches!(event, Event::Console { .. })).count();
            assert!(lines >= 7, "{lines} lines left without byte {position}");
        }
    }

    #[test]
    fn a_flipped_bit_is_counted() {
        let mut stream = packet(Kind::Console, 0, b"\0line\n");
        let middle = stream.len() / 2;
        stream[middle] ^= 0x10;
        let (events, counts) = decode(&stream);
        assert!(matches!(events[0], Event::Garbled { .. }), "{events:?}");
        assert_eq!(counts.garbled, 1);
    }

    #[test]
    fn a_wrong_length_is_counted_not_guessed_at() {
        assert_eq!(decode(&packet(Kind::Console, 0, b"")).1.garbled, 1);
        for kind in
            [Kind::Hello, Kind::Lost, Kind::Stat, Kind::Live, Kind::Typed, Kind::Unknown(99)]
        {
            let (events, counts) = decode(&packet(kind, 0, b"xyz"));
            assert!(matches!(events[..], [Event::Garbled { .. }]), "{events:?}");
            assert_eq!(counts.garbled, 1);
        }
    }

    #[test]
    fn another_version_of_the_format_is_refused_by_name() {
        let mut raw = vec![9_u8];
        raw.extend([0; HEADER - 1]);
        raw.extend(crc::Crc::<u16>::new(&crc::CRC_16_IBM_SDLC).checksum(&raw).to_le_bytes());
        let mut stream = vec![0; 2 + cobs::max_encoding_length(raw.len())];
        let length = cobs::encode(&raw, &mut stream[1..]);
        stream.truncate(length + 2);
        stream[length + 1] = 0;
        let error = Decoder::new(None).feed(&stream, &mut Vec::new()).unwrap_err().to_string();
        let own = format!("version {}", wire::VERSION);
        assert!(error.contains("version 9") && error.contains(&own), "{error}");
    }

    #[test]
    fn losses_add_up() {
        let mut stream = packet(Kind::Lost, 2, &3_u32.to_le_bytes());
        stream.extend(packet(Kind::Lost, 1, &4_u32.to_le_bytes()));
        let (events, counts) = decode(&stream);
        assert_eq!(events[0], Event::Lost { cpu: 2, count: 3 });
        assert_eq!(counts.lost, 7);
    }

    #[test]
    fn a_lost_core_has_the_last_word() {
        // Cut within a character, as a full slot cuts.
        let (events, _) = decode(&packet(Kind::Defect, 3, b"no way (a.rs:7) \xC3"));
        let words = "no way (a.rs:7) \u{FFFD}".to_string();
        assert_eq!(events, [Event::Defect { cpu: 3, tsc: 7, words }]);
    }

    #[test]
    fn a_greeting_is_taken_apart() {
        let mut payload = vec![9; 20];
        payload.extend([8; 32]);
        payload.extend(50_000_000_u64.to_le_bytes());
        for typed in [None, Some(1)] {
            payload.extend(typed);
            let (events, _) = decode(&packet(Kind::Hello, 0, &payload));
            let (build, digest) = (vec![9; 20], vec![8; 32]);
            assert_eq!(events, [Event::Hello { build, digest, tsc_hz: 50_000_000, typed }]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..4000),
            piece in 1_usize..64,
        ) {
            let whole = decode(&bytes).0;
            let mut decoder = Decoder::new(None);
            let mut events = Vec::new();
            for part in bytes.chunks(piece) {
                decoder.feed(part, &mut events).unwrap();
            }
            decoder.finish(&mut events);
            prop_assert_eq!(whole, events);
        }

        #[test]
        fn the_stream_is_found_again_after_garbage(garbage in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut stream = garbage;
            stream.extend(packet(Kind::Console, 0, b"\0first may be lost\n"));
            stream.extend(packet(Kind::Console, 1, b"\0second is not\n"));
            let (events, _) = decode(&stream);
            prop_assert!(events.contains(&console(1, "second is not")), "{:?}", events);
        }
    }
}
