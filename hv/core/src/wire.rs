//! The format of the serial log: packets of logs, partition consoles and statistics among plain text.
//!
//! A packet travels as `00 COBS(header, payload, CRC) 00`. What stands outside a pair of zeros is plain
//! text (the firmware, the boot loader, a refusal at boot) and is passed through as such, so any
//! terminal shows it. All integers are little-endian.
//!
//! ```text
//! header: version u8 | kind u8 | source u8 | build id [u8; 4] | TSC u64      (15 bytes)
//! payload: up to MAX_PAYLOAD bytes, by kind
//! CRC-16/IBM-SDLC over header and payload, u16
//! ```

/// Version of the format; another version is refused by the reader.
pub const VERSION: u8 = 3;

/// Bytes of the header.
pub const HEADER: usize = 15;

/// Most bytes of payload in one packet. Keeps header, payload and CRC within one COBS block (254 bytes).
pub const MAX_PAYLOAD: usize = 224;

/// Most bytes of one encoded packet: two zeros, one COBS code byte, header, payload, CRC.
pub const MAX_ENCODED: usize = 2 + 1 + HEADER + MAX_PAYLOAD + 2;

/// Bytes of a [`Stat`] on the wire.
pub const STAT_BYTES: usize = 16;

/// Bytes of a [`Live`] on the wire.
pub const LIVE_BYTES: usize = 40;

const CRC: crc::Crc<u16, crc::Table<16>> =
    crc::Crc::<u16, crc::Table<16>>::new(&crc::CRC_16_IBM_SDLC);

/// First bytes of the hypervisor ELF's GNU build id: tells a reader that it holds the right ELF.
pub type BuildId = [u8; 4];

/// What a packet carries. Numbers that a reader does not know are kept, not guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First packet after boot. Payload: the whole GNU build id (20), table digest (32), declared TSC frequency (u64), and the version of the
    /// protocol by which partitions are typed to ([`crate::pc::typed::PROTOCOL`], u8; 0 where none can be typed to).
    Hello,
    /// One raw (unencoded) defmt frame. Source: board CPU number.
    Log,
    /// Bytes of a partition's console. Source: partition id. Payload: a [`channel`] (u8), then what was said there. Lines are whole within
    /// a channel.
    Console,
    /// Diagnostics of CPU `source` that were dropped since its last such packet. Payload: u32.
    Lost,
    /// One [`Stat`].
    Stat,
    /// One [`crate::health::Incident`]. Source: board CPU number.
    Incident,
    /// Windows that ran, as [`crate::trace::WindowRecord`]s one behind the other. Source: board CPU number.
    Windows,
    /// One [`Live`]. Source: partition id.
    Live,
    /// Exits of a partition by kind so far, as [`exit_entry`]s one behind the other; none with a count of 0. Source: partition id.
    Exits,
    /// One [`crate::pc::typed::Reply`] to a frame that came up the line.
    Typed,
    /// A core was lost to a defect of the hypervisor or of the machine. Payload: its last words, UTF-8. Source: board CPU number.
    Defect,
    /// Last packet of a run: all rings are drained, the machine goes down next. No payload.
    End,
    /// Not of this version.
    Unknown(u8),
}

impl Kind {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Log => 2,
            Self::Console => 3,
            Self::Lost => 4,
            Self::Stat => 5,
            Self::End => 6,
            Self::Incident => 7,
            Self::Windows => 8,
            Self::Live => 9,
            Self::Exits => 10,
            Self::Typed => 12,
            Self::Defect => 11,
            Self::Unknown(code) => code,
        }
    }

    /// The kind of a record that was drained from the ring of a core, by the record's tag; `None` for kinds that no core writes there. A
    /// record of a partition's console has no tag: it is [`Self::Console`] because of where it was drained from.
    #[must_use]
    pub const fn of_core(tag: u8) -> Option<Self> {
        match Self::from_code(tag) {
            Self::Log => Some(Self::Log),
            _ => None,
        }
    }

    /// The kind of this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Hello,
            2 => Self::Log,
            3 => Self::Console,
            4 => Self::Lost,
            5 => Self::Stat,
            6 => Self::End,
            7 => Self::Incident,
            8 => Self::Windows,
            9 => Self::Live,
            10 => Self::Exits,
            12 => Self::Typed,
            11 => Self::Defect,
            other => Self::Unknown(other),
        }
    }
}

/// The consoles of one partition. A number below [`channel::PAGE`] is a vCPU: what it said by hypercall.
pub mod channel {
    /// The console page of a partition with the platform of a PC.
    pub const PAGE: u8 = 0xFE;
    /// The serial port of a partition with the platform of a PC.
    pub const SERIAL: u8 = 0xFF;

    const _: () =
        assert!(bulkhead_table::MAX_VCPUS <= PAGE as usize, "no vCPU has another console's number");
}

/// A packet, borrowed from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What the payload is.
    pub kind: Kind,
    /// CPU number or partition id, by kind; else 0.
    pub source: u8,
    /// Of the hypervisor that wrote it.
    pub build: BuildId,
    /// TSC when the record was made.
    pub tsc: u64,
    /// By kind.
    pub payload: &'a [u8],
}

/// Why a run of bytes between two zeros is not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Not COBS, or too short for a header, or over-long.
    Malformed,
    /// The checksum differs: bytes were lost or garbled.
    Checksum,
    /// A format version that this reader does not know.
    Version(u8),
}

/// Encodes `packet` into `out` and returns the bytes to send; `None` when the payload is over-long.
#[must_use]
pub fn encode<'o>(packet: &Packet<'_>, out: &'o mut [u8; MAX_ENCODED]) -> Option<&'o [u8]> {
    let payload = packet.payload;
    if payload.len() > MAX_PAYLOAD {
        return None;
    }
    let mut raw = [0_u8; HEADER + MAX_PAYLOAD + 2];
    raw[0] = VERSION;
    raw[1] = packet.kind.code();
    raw[2] = packet.source;
    raw[3..7].copy_from_slice(&packet.build);
    raw[7..HEADER].copy_from_slice(&packet.tsc.to_le_bytes());
    let end = HEADER + payload.len();
    raw[HEADER..end].copy_from_slice(payload);
    let sum = CRC.checksum(&raw[..end]);
    raw[end..end + 2].copy_from_slice(&sum.to_le_bytes());
    out[0] = 0;
    let length = cobs::try_encode(&raw[..end + 2], &mut out[1..]).ok()?;
    *out.get_mut(1 + length)? = 0;
    out.get(..length + 2)
}

/// Decodes what stood between two zeros (both left out). `scratch` holds the decoded bytes.
///
/// # Errors
/// A [`Defect`] when the bytes are not a whole packet of this version.
pub fn decode<'s>(
    encoded: &[u8],
    scratch: &'s mut [u8; HEADER + MAX_PAYLOAD + 2],
) -> Result<Packet<'s>, Defect> {
    if encoded.is_empty() || encoded.len() > scratch.len() + 1 {
        return Err(Defect::Malformed);
    }
    let report = cobs::decode(encoded, &mut scratch[..]).map_err(|_| Defect::Malformed)?;
    let length = report.frame_size();
    if length < HEADER + 2 || length > scratch.len() {
        return Err(Defect::Malformed);
    }
    let raw = &scratch[..length];
    let (body, sum) = raw.split_at(length - 2);
    if CRC.checksum(body).to_le_bytes() != *sum {
        return Err(Defect::Checksum);
    }
    if body[0] != VERSION {
        return Err(Defect::Version(body[0]));
    }
    let mut tsc = [0; 8];
    tsc.copy_from_slice(&body[7..HEADER]);
    Ok(Packet {
        kind: Kind::from_code(body[1]),
        source: body[2],
        build: [body[3], body[4], body[5], body[6]],
        tsc: u64::from_le_bytes(tsc),
        payload: &body[HEADER..],
    })
}

/// One figure of the hypervisor's own counters, read out at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What the figure is.
    pub key: StatKey,
    /// Partition id or CPU number, as the key says; else 0.
    pub subject: u16,
    /// Second index, as the key says; else 0.
    pub detail: u32,
    /// The figure.
    pub value: u64,
}

/// Names of figures. The subject is a partition unless it says `CPU` or `system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatKey {
    /// Exits of kind `detail`, an [`crate::exit::ExitKind`] number, over the partition's life.
    Exits,
    /// Exits inside the measured span (between the `SPAN_BEGIN` and `SPAN_END` hypercalls) of kind `detail`; a
    /// single zero when there were none.
    SpanExits,
    /// Windows that ran.
    WindowsRun,
    /// Windows that were missed whole, or into which the switch was not done at the declared start.
    WindowsLate,
    /// Largest lateness of a window's entry behind its declared start, in ticks.
    WindowLatenessMax,
    /// Smallest lateness of a window's entry behind its declared start, in ticks.
    WindowLatenessMin,
    /// How the partition ended: `value` is a [`Fate`] number.
    Fate,
    /// Accesses that the table does not grant; `detail` is a [`crate::exit::Denial`] number.
    Denied,
    /// TSC just before the partition's first entry.
    FirstEntry,
    /// System: TSC at the hypervisor's first instruction.
    HypervisorEntry,
    /// System: TSC of the epoch of all frames.
    Epoch,
    /// CPU: most ticks from a window's end exit to the entry of the next guest, waiting left out.
    SwitchMax,
    /// CPU: fewest ticks of the same.
    SwitchMin,
    /// CPU: ticks of one step of the longest switch; `detail` is a [`SwitchStep`] number.
    SwitchStep,
    /// CPU: diagnostics dropped because the ring was full.
    LogLost,
    /// System: TSC frequency as measured at boot, in hertz.
    TscHz,
    /// System: largest difference between two cores' TSCs measured at boot, in ticks.
    TscSkew,
    /// System: bytes of memory of one core (stacks, rings, VMX regions).
    PerCpuBytes,
    /// How often the partition restarted itself; only of one that can.
    Restarts,
    /// Bytes that a partition sent through its serial port without asking whether there was room, and that were lost; only of a partition
    /// with a serial port. What is typed to it is not lost: it is sent again until it is taken.
    ConsoleLost,
    /// TSC when the hypervisor decided to stop the partition; not told of one that it did not stop.
    StoppedAt,
    /// System: system-management interrupts that the core which keeps house took since it began to; not told where it does not count
    /// them.
    Smis,
    /// System: who owns frequency, turbo and idle states; `detail` is a place in [`POWER`], the value 1 where the hypervisor set it as the
    /// board file says, 0 where firmware's setting stayed.
    Power,
    /// Not of this version.
    Unknown(u16),
}

/// What of the processor's power management [`StatKey::Power`] tells: the key of the board file, and what it is where the hypervisor owns
/// it.
pub const POWER: [(&str, &str); 3] = [("turbo", "off"), ("frequency", "base"), ("idle", "c1")];

/// The steps of a switch, in their order. Together they are the whole switch, waiting left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchStep {
    /// From the last exit to knowing who comes next; with a housekeeping window between, from its end.
    Decide,
    /// Storing what the VMCS does not carry.
    Save,
    /// Loading the next VMCS and what it does not carry.
    Load,
    /// Hygiene.
    Clean,
    /// Telling the guest its time.
    Tell,
    /// Timers, interrupts and the preemption timer.
    Settle,
}

impl SwitchStep {
    /// All of them; the place in this list is the number on the wire.
    pub const ALL: [Self; 6] =
        [Self::Decide, Self::Save, Self::Load, Self::Clean, Self::Tell, Self::Settle];

    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Save => "save",
            Self::Load => "load",
            Self::Clean => "clean",
            Self::Tell => "tell",
            Self::Settle => "settle",
        }
    }
}

/// How a partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Was still running when the module ended.
    Running,
    /// Finished with verdict pass.
    Passed,
    /// Finished with verdict fail.
    Failed,
    /// Stopped by the hypervisor after a violation or a fault.
    Stopped,
    /// Never started: its image was missing or not the one that was proven.
    Refused,
    /// Switched itself off, as an operating system does.
    Off,
    /// Lost a core, to a defect of the hypervisor or of the machine.
    Lost,
}

impl Fate {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Running => 0,
            Self::Passed => 1,
            Self::Failed => 2,
            Self::Stopped => 3,
            Self::Refused => 4,
            Self::Off => 5,
            Self::Lost => 6,
        }
    }

    /// The fate of this number, if it is one.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Running,
            1 => Self::Passed,
            2 => Self::Failed,
            3 => Self::Stopped,
            4 => Self::Refused,
            5 => Self::Off,
            6 => Self::Lost,
            _ => return None,
        })
    }
}

/// How a partition stands while the module runs: what housekeeping can read without disturbing anybody. The figures of the end
/// ([`Stat`]) replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// How it stands.
    pub fate: Fate,
    /// Exits and denied accesses so far; `None` of a partition with so many vCPUs that reading them would take too long.
    pub counts: Option<LiveCounts>,
    /// Windows that it was given so far, gifts of others included; 0 on a dedicated core.
    pub windows: u64,
    /// Windows that were late or missed, as of its latest one.
    pub late: u64,
}

/// What the vCPUs of a partition counted, as of when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCounts {
    /// Exits of all kinds.
    pub exits: u64,
    /// Accesses of all kinds that the table does not grant.
    pub denied: u64,
}

impl Live {
    /// As the payload of a packet.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LIVE_BYTES] {
        let counts = self.counts.unwrap_or(LiveCounts { exits: 0, denied: 0 });
        let mut bytes = [0; LIVE_BYTES];
        bytes[0] = self.fate.code() as u8;
        bytes[1] = self.counts.is_some() as u8;
        bytes[8..16].copy_from_slice(&counts.exits.to_le_bytes());
        bytes[16..24].copy_from_slice(&counts.denied.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.windows.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.late.to_le_bytes());
        bytes
    }

    /// From the payload of a packet; `None` when its length is not [`LIVE_BYTES`], or its fate is not of this version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LIVE_BYTES] = bytes.try_into().ok()?;
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let counts = LiveCounts { exits: long(8)?, denied: long(16)? };
        Some(Self {
            fate: Fate::from_code(u64::from(bytes[0]))?,
            counts: (bytes[1] != 0).then_some(counts),
            windows: long(24)?,
            late: long(32)?,
        })
    }
}

/// Bytes of an [`exit_entry`].
pub const EXIT_BYTES: usize = 8;

/// How often exits of a kind were taken, as it stands in the payload of [`Kind::Exits`]: `kind u16 | count u48`.
#[must_use]
pub const fn exit_entry(kind: u16, count: u64) -> [u8; EXIT_BYTES] {
    (count << 16 | kind as u64).to_le_bytes()
}

/// Kinds and counts in the payload of [`Kind::Exits`]; `None` when its length is not that of whole entries.
#[must_use]
pub fn exit_entries(payload: &[u8]) -> Option<impl Iterator<Item = (u16, u64)> + '_> {
    let (entries, rest) = payload.as_chunks::<EXIT_BYTES>();
    rest.is_empty().then(|| {
        entries.iter().map(|entry| {
            let entry = u64::from_le_bytes(*entry);
            (entry as u16, entry >> 16)
        })
    })
}

/// Known keys and their numbers on the wire.
const STAT_KEYS: [(StatKey, u16); 23] = [
    (StatKey::Exits, 1),
    (StatKey::SpanExits, 2),
    (StatKey::WindowsRun, 3),
    (StatKey::WindowsLate, 4),
    (StatKey::WindowLatenessMax, 5),
    (StatKey::WindowLatenessMin, 6),
    (StatKey::Fate, 7),
    (StatKey::Denied, 8),
    (StatKey::FirstEntry, 9),
    (StatKey::HypervisorEntry, 10),
    (StatKey::Epoch, 11),
    (StatKey::SwitchMax, 12),
    (StatKey::SwitchMin, 13),
    (StatKey::LogLost, 14),
    (StatKey::TscHz, 15),
    (StatKey::TscSkew, 16),
    (StatKey::PerCpuBytes, 17),
    (StatKey::SwitchStep, 18),
    (StatKey::Restarts, 19),
    (StatKey::ConsoleLost, 20),
    (StatKey::StoppedAt, 21),
    (StatKey::Smis, 22),
    (StatKey::Power, 23),
];

impl StatKey {
    fn code(self) -> u16 {
        if let Self::Unknown(code) = self {
            return code;
        }
        STAT_KEYS.iter().find(|(key, _)| *key == self).map_or(0, |(_, code)| *code)
    }

    fn from_code(code: u16) -> Self {
        STAT_KEYS.iter().find(|(_, c)| *c == code).map_or(Self::Unknown(code), |(key, _)| *key)
    }
}

impl Stat {
    /// As the payload of a packet.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; STAT_BYTES] {
        let mut bytes = [0; STAT_BYTES];
        bytes[0..2].copy_from_slice(&self.key.code().to_le_bytes());
        bytes[2..4].copy_from_slice(&self.subject.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.detail.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    /// From the payload of a packet; `None` when its length is not [`STAT_BYTES`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAT_BYTES] = bytes.try_into().ok()?;
        let [k0, k1, s0, s1, d0, d1, d2, d3, value @ ..] = *bytes;
        Some(Self {
            key: StatKey::from_code(u16::from_le_bytes([k0, k1])),
            subject: u16::from_le_bytes([s0, s1]),
            detail: u32::from_le_bytes([d0, d1, d2, d3]),
            value: u64::from_le_bytes(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    type Scratch = [u8; HEADER + MAX_PAYLOAD + 2];
    const SCRATCH: Scratch = [0; HEADER + MAX_PAYLOAD + 2];

    fn encoded(packet: &Packet<'_>) -> Vec<u8> {
        encode(packet, &mut [0; MAX_ENCODED]).unwrap().to_vec()
    }

    /// What stands between the two zeros.
    fn inside(bytes: &[u8]) -> &[u8] {
        let [0, inside @ .., 0] = bytes else {
            panic!("no zeros around {bytes:x?}");
        };
        inside
    }

    /// Any bytes as COBS, so that hostile contents get past the framing.
    fn framed(raw: &[u8]) -> Vec<u8> {
        let mut out = std::vec![0; cobs::max_encoding_length(raw.len())];
        let length = cobs::encode(raw, &mut out);
        out.truncate(length);
        out
    }

    fn with_sum(mut raw: Vec<u8>) -> Vec<u8> {
        raw.extend(CRC.checksum(&raw).to_le_bytes());
        raw
    }

    const SMALL: Packet<'_> = Packet {
        kind: Kind::Console,
        source: 2,
        build: [0xAA, 0, 0xBB, 0],
        tsc: 0x1234,
        payload: b"x\0y",
    };

    #[test]
    fn a_packet_has_the_bytes_of_the_documentation() {
        let header = [3, 3, 2, 0xAA, 0, 0xBB, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0];
        let raw = with_sum([&header[..], b"x\0y"].concat());
        assert_eq!(inside(&encoded(&SMALL)), framed(&raw));
        // CRC-16/IBM-SDLC's own check value (the CRC catalogue's name for it).
        assert_eq!(CRC.checksum(b"123456789"), 0x906E);
    }

    #[test]
    fn the_largest_payload_fits_and_one_more_byte_does_not() {
        for byte in [0, 1, 0xFF] {
            let payload = [byte; MAX_PAYLOAD + 1];
            let largest = Packet { payload: &payload[1..], ..SMALL };
            let bytes = encoded(&largest);
            assert!(bytes.len() <= MAX_ENCODED);
            assert_eq!(decode(inside(&bytes), &mut { SCRATCH }), Ok(largest));
            let over = Packet { payload: &payload, ..SMALL };
            assert_eq!(encode(&over, &mut [0; MAX_ENCODED]), None);
        }
    }

    #[test]
    fn each_defect_is_told_apart() {
        let mut scratch = SCRATCH;
        let mut defect = |bytes: &[u8]| decode(bytes, &mut scratch).err();
        assert_eq!(defect(&[]), Some(Defect::Malformed));
        assert_eq!(defect(&[5, 1, 2]), Some(Defect::Malformed), "cut off");
        assert_eq!(defect(&[0; 20]), Some(Defect::Malformed), "zeros");
        assert_eq!(defect(&[1; 400]), Some(Defect::Malformed), "over-long");
        assert_eq!(
            defect(&framed(&with_sum(Vec::from([VERSION; HEADER - 1])))),
            Some(Defect::Malformed),
            "short header"
        );
        assert_eq!(defect(&framed(&[1; HEADER + 2])), Some(Defect::Checksum));
        assert_eq!(defect(&framed(&with_sum(Vec::from([9; HEADER])))), Some(Defect::Version(9)));
        assert_eq!(defect(&framed(&with_sum(Vec::from([VERSION; HEADER])))), None);
    }

    #[test]
    fn one_flipped_bit_is_noticed_anywhere() {
        let bytes = encoded(&SMALL);
        let good = inside(&bytes);
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, &mut { SCRATCH }).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn exits_by_reason_come_back_whole() {
        let payload = [exit_entry(10, 5), exit_entry(0xFFFF, (1 << 48) - 1)].concat();
        let read: std::vec::Vec<_> = exit_entries(&payload).unwrap().collect();
        assert_eq!(read, [(10, 5), (0xFFFF, (1 << 48) - 1)]);
        assert!(exit_entries(&payload[1..]).is_none());
    }

    #[test]
    fn numbers_and_names_agree_both_ways() {
        for code in 0..=u8::MAX {
            assert_eq!(Kind::from_code(code).code(), code);
            assert_eq!(Kind::of_core(code).is_some(), code == 2);
            if let Some(fate) = Fate::from_code(u64::from(code)) {
                assert_eq!(fate.code(), u64::from(code));
            }
        }
        for code in 0..=u16::MAX {
            let key = StatKey::from_code(code);
            assert_eq!(key.code(), code);
            assert_eq!(
                matches!(key, StatKey::Unknown(_)),
                code == 0 || usize::from(code) > STAT_KEYS.len()
            );
        }
    }

    fn kind() -> impl Strategy<Value = Kind> {
        any::<u8>().prop_map(Kind::from_code)
    }

    proptest! {
        #[test]
        fn a_packet_survives_the_way(
            kind in kind(), source: u8, build: BuildId, tsc: u64, payload in proptest::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD),
        ) {
            let packet = Packet { kind, source, build, tsc, payload: &payload };
            let bytes = encoded(&packet);
            let inside = inside(&bytes);
            prop_assert!(!inside.contains(&0));
            let mut scratch = SCRATCH;
            prop_assert_eq!(decode(inside, &mut scratch), Ok(packet));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes, &mut { SCRATCH });
        }

        /// COBS codes in a row, which are what steers the decoder; few of them are zero, many point beyond the end.
        #[test]
        fn no_codes_make_decoding_panic(
            bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), 2_u8..9, 200_u8..=255], 0..300),
        ) {
            let _ = decode(&bytes, &mut { SCRATCH });
        }

        #[test]
        fn no_framed_bytes_make_decoding_panic(raw in proptest::collection::vec(any::<u8>(), 0..300), sum: bool) {
            let raw = if sum { with_sum(raw) } else { raw };
            if let Ok(packet) = decode(&framed(&raw), &mut { SCRATCH }) {
                prop_assert_eq!(packet.payload, &raw[HEADER..raw.len() - 2]);
            }
        }

        /// Bytes of an earlier packet that are left in the scratch area must not show through.
        #[test]
        fn what_the_scratch_held_does_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..60), dirt: u8) {
            let (mut dirty, mut clean) = ([dirt; HEADER + MAX_PAYLOAD + 2], SCRATCH);
            prop_assert_eq!(decode(&bytes, &mut dirty), decode(&bytes, &mut clean));
        }

        #[test]
        fn a_figure_survives_the_way(code: u16, subject: u16, detail: u32, value: u64) {
            let stat = Stat { key: StatKey::from_code(code), subject, detail, value };
            prop_assert_eq!(Stat::from_bytes(&stat.to_bytes()), Some(stat));
            prop_assert_eq!(Stat::from_bytes(&stat.to_bytes()[1..]), None);
        }

        #[test]
        fn how_a_partition_stands_survives_the_way(
            fate in 0_u64..7, known: bool, exits: u64, denied: u64, windows: u64, late: u64,
        ) {
            let fate = Fate::from_code(fate).unwrap();
            let counts = known.then_some(LiveCounts { exits, denied });
            let live = Live { fate, counts, windows, late };
            prop_assert_eq!(Live::from_bytes(&live.to_bytes()), Some(live));
            prop_assert_eq!(Live::from_bytes(&live.to_bytes()[1..]), None);
        }
    }
}
