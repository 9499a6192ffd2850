//! What comes up the serial line to the hypervisor: frames of bytes that are typed to partitions, each checked and answered.
//!
//! The line loses bytes: its port holds 16, and the hypervisor looks at it in its own time only. So a frame fits into the port as a whole,
//! the sender has one frame on the line at a time, and sends it again until it is answered. A frame names the partition that it is for, so
//! a lost byte cannot send the rest elsewhere. A frame is taken once, by its number, and whole or not at all: a partition that has no room
//! is no loss, the frame is sent again later. The answers are packets of the log ([`crate::wire::Kind::Typed`]).
//!
//! ```text
//! frame:   COBS(to u8 | session u8 | number u8 | up to 6 bytes | CRC-32/ISO-HDLC, little-endian) 00
//! opening: the same with to = 255, session = 0, number = PROTOCOL; the bytes are a number that the sender chose, u32, little-endian
//! answer:  PROTOCOL u8 | answer u8 | session u8 | to u8 | number u8 | the sender's chosen number u32      (9 bytes)
//! ```
//!
//! An opening begins a session, in which the numbers for each partition start at 0. The same opening again is the same session.

/// Version of this protocol; the greeting of the log names it.
pub const PROTOCOL: u8 = 1;

/// Most bytes that one frame carries.
pub const MAX_BYTES: usize = 6;

/// Bytes in front of those.
const HEADER: usize = 3;
/// Bytes of the checksum.
const SUM: usize = 4;
/// Most bytes of a frame before encoding.
const RAW: usize = HEADER + MAX_BYTES + SUM;
/// Most bytes of an encoded frame without its zero: COBS adds one.
const ENCODED: usize = RAW + 1;

/// Most bytes of a frame on the line. A zero in front of a frame that is sent again makes it as long as the port's FIFO.
pub const MAX_FRAME: usize = ENCODED + 1;

const _: () = assert!(MAX_FRAME < 16, "a frame and a zero in front fit into a 16550's FIFO");

/// Where an opening goes.
const OPENING: u8 = u8::MAX;

/// Bytes of a [`Reply`] on the wire.
pub const REPLY_BYTES: usize = 9;

// Bit by bit: 13 bytes once in a while are not worth a table.
const CRC: crc::Crc<u32, crc::NoTable> = crc::Crc::<u32, crc::NoTable>::new(&crc::CRC_32_ISO_HDLC);

/// A frame of typed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// Partition id.
    pub to: u8,
    /// As the answer to the opening said.
    pub session: u8,
    /// Counts the frames for this partition in this session, wrapping.
    pub number: u8,
    /// At most [`MAX_BYTES`].
    pub bytes: &'b [u8],
}

impl Frame<'_> {
    /// The opening of a session; `nonce` is a number that no other sender chooses.
    #[must_use]
    pub const fn opening(nonce: &[u8; 4]) -> Frame<'_> {
        Frame { to: OPENING, session: 0, number: PROTOCOL, bytes: nonce }
    }

    /// As it goes down the line; `None` when there are too many bytes.
    #[must_use]
    pub fn encode<'o>(&self, out: &'o mut [u8; MAX_FRAME]) -> Option<&'o [u8]> {
        if self.bytes.len() > MAX_BYTES {
            return None;
        }
        let mut raw = [0; RAW];
        raw[..HEADER].copy_from_slice(&[self.to, self.session, self.number]);
        let end = HEADER + self.bytes.len();
        raw[HEADER..end].copy_from_slice(self.bytes);
        let sum = CRC.checksum(&raw[..end]);
        raw[end..end + SUM].copy_from_slice(&sum.to_le_bytes());
        let length = cobs::try_encode(&raw[..end + SUM], &mut out[..ENCODED]).ok()?;
        *out.get_mut(length)? = 0;
        out.get(..=length)
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A session is open.
    Opened,
    /// The partition has the bytes, since this frame or an earlier copy of it.
    Taken,
    /// The partition has no room for the bytes; the same frame may be sent again.
    Full,
    /// There is no such partition, or it has no console that takes bytes.
    Nobody,
    /// The frame is of another session, or out of step in this one.
    Forgotten,
    /// The opening asks for another version of this protocol.
    OtherVersion,
    /// Something came that is no frame: bytes were lost or garbled.
    Damaged,
}

impl Answer {
    const ALL: [Self; 7] = [
        Self::Opened,
        Self::Taken,
        Self::Full,
        Self::Nobody,
        Self::Forgotten,
        Self::OtherVersion,
        Self::Damaged,
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().position(|answer| *answer == self).map_or(0, |at| at as u8)
    }
}

/// The answer to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The hypervisor's [`PROTOCOL`].
    pub protocol: u8,
    /// What became of the frame.
    pub answer: Answer,
    /// The frame's session; of an opening, the one that it opened.
    pub session: u8,
    /// The frame's partition.
    pub to: u8,
    /// The frame's number.
    pub number: u8,
    /// What the sender of this session chose.
    pub nonce: u32,
}

impl Reply {
    /// As the payload of a packet.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; REPLY_BYTES] {
        let [a, b, c, d] = self.nonce.to_le_bytes();
        [self.protocol, self.answer.code(), self.session, self.to, self.number, a, b, c, d]
    }

    /// From the payload of a packet; `None` when it is none of this version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [protocol, answer, session, to, number, nonce @ ..] = bytes else {
            return None;
        };
        let answer = *Answer::ALL.get(usize::from(*answer))?;
        let nonce = u32::from_le_bytes(nonce.try_into().ok()?);
        let (protocol, session, to, number) = (*protocol, *session, *to, *number);
        Some(Self { protocol, answer, session, to, number, nonce })
    }
}

/// Whether a partition took bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// All of them.
    Taken,
    /// None: there is no room.
    Full,
    /// None: it takes no bytes at all.
    Nobody,
}

/// The hypervisor's end of the line, for up to `P` partitions.
#[derive(Debug)]
pub struct Receiver<const P: usize> {
    /// What came since the last zero.
    chunk: [u8; ENCODED],
    length: usize,
    /// More came than a frame has, or bytes were lost.
    is_spoilt: bool,
    nonce: u32,
    /// 0 before the first opening.
    session: u8,
    /// By partition: the number of its next frame.
    next: [u8; P],
}

impl<const P: usize> Receiver<P> {
    /// At the start of the line: no session is open.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            chunk: [0; ENCODED],
            length: 0,
            is_spoilt: false,
            nonce: 0,
            session: 0,
            next: [0; P],
        }
    }

    /// Bytes were lost: nothing up to the next zero is a frame.
    pub const fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    /// Takes the next byte. `deliver` hands the bytes of a whole frame to a partition, all or none. Returns what the sender is to be told.
    pub fn take(&mut self, byte: u8, deliver: impl FnOnce(u8, &[u8]) -> Delivery) -> Option<Reply> {
        if byte == 0 {
            return self.close(deliver);
        }
        match self.chunk.get_mut(self.length) {
            Some(slot) => {
                *slot = byte;
                self.length += 1;
            }
            None => self.is_spoilt = true,
        }
        None
    }

    /// A zero came: what is in front of it is a frame, or damage.
    fn close(&mut self, deliver: impl FnOnce(u8, &[u8]) -> Delivery) -> Option<Reply> {
        let length = core::mem::take(&mut self.length);
        let is_spoilt = core::mem::take(&mut self.is_spoilt);
        if length == 0 && !is_spoilt {
            return None;
        }
        let mut raw = [0; ENCODED];
        let chunk = self.chunk;
        let frame = chunk.get(..length).filter(|_| !is_spoilt).and_then(|it| decode(it, &mut raw));
        match frame {
            Some(frame) if frame.to == OPENING => self.open(&frame),
            Some(frame) => Some(self.judge(&frame, deliver)),
            // Noise on a line that nobody types on is worth no answer.
            None if self.session == 0 => None,
            None => Some(self.reply(Answer::Damaged, 0, 0, 0)),
        }
    }

    fn open(&mut self, frame: &Frame<'_>) -> Option<Reply> {
        let nonce = u32::from_le_bytes(frame.bytes.try_into().ok()?);
        if frame.number != PROTOCOL {
            let refusal = self.reply(Answer::OtherVersion, 0, frame.to, frame.number);
            return Some(Reply { nonce, ..refusal });
        }
        if self.session == 0 || nonce != self.nonce {
            self.session = self.session.checked_add(1).unwrap_or(1);
            self.nonce = nonce;
            self.next = [0; P];
        }
        Some(self.reply(Answer::Opened, self.session, frame.to, frame.number))
    }

    fn judge(&mut self, frame: &Frame<'_>, deliver: impl FnOnce(u8, &[u8]) -> Delivery) -> Reply {
        let answer = self.answer(frame, deliver);
        self.reply(answer, frame.session, frame.to, frame.number)
    }

    fn answer(&mut self, frame: &Frame<'_>, deliver: impl FnOnce(u8, &[u8]) -> Delivery) -> Answer {
        if self.session == 0 || frame.session != self.session {
            return Answer::Forgotten;
        }
        let Some(next) = self.next.get_mut(usize::from(frame.to)) else {
            return Answer::Nobody;
        };
        if frame.number == next.wrapping_sub(1) {
            return Answer::Taken;
        }
        if frame.number != *next {
            return Answer::Forgotten;
        }
        match deliver(frame.to, frame.bytes) {
            Delivery::Taken => {
                *next = next.wrapping_add(1);
                Answer::Taken
            }
            Delivery::Full => Answer::Full,
            Delivery::Nobody => Answer::Nobody,
        }
    }

    const fn reply(&self, answer: Answer, session: u8, to: u8, number: u8) -> Reply {
        Reply { protocol: PROTOCOL, answer, session, to, number, nonce: self.nonce }
    }
}

impl<const P: usize> Default for Receiver<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// The frame that stood in front of a zero, if it is whole.
fn decode<'r>(encoded: &[u8], raw: &'r mut [u8; ENCODED]) -> Option<Frame<'r>> {
    let length = cobs::decode(encoded, &mut raw[..]).ok()?.frame_size();
    let (body, sum) = raw.get(..length)?.split_at_checked(length.checked_sub(SUM)?)?;
    let [to, session, number, bytes @ ..] = body else {
        return None;
    };
    let is_whole = CRC.checksum(body).to_le_bytes() == *sum && bytes.len() <= MAX_BYTES;
    is_whole.then_some(Frame { to: *to, session: *session, number: *number, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        frame.encode(&mut [0; MAX_FRAME]).unwrap().to_vec()
    }

    const fn frame(session: u8, number: u8, bytes: &[u8]) -> Frame<'_> {
        Frame { to: 1, session, number, bytes }
    }

    /// A receiver, and what the partitions got.
    struct Bench {
        receiver: Receiver<3>,
        got: Vec<(u8, Vec<u8>)>,
        delivery: Delivery,
    }

    impl Bench {
        fn new() -> Self {
            Self { receiver: Receiver::new(), got: Vec::new(), delivery: Delivery::Taken }
        }

        fn feed(&mut self, line: &[u8]) -> Vec<Reply> {
            let Self { receiver, got, delivery } = self;
            let mut deliver = |to: u8, bytes: &[u8]| {
                if *delivery == Delivery::Taken {
                    got.push((to, bytes.to_vec()));
                }
                *delivery
            };
            line.iter().filter_map(|byte| receiver.take(*byte, &mut deliver)).collect()
        }

        fn open(&mut self, nonce: u32) -> u8 {
            let replies = self.feed(&encoded(&Frame::opening(&nonce.to_le_bytes())));
            let [reply] = replies[..] else { panic!("{replies:?}") };
            assert_eq!((reply.answer, reply.nonce), (Answer::Opened, nonce));
            reply.session
        }

        fn answers(&mut self, line: &[u8]) -> Vec<Answer> {
            self.feed(line).iter().map(|reply| reply.answer).collect()
        }
    }

    #[test]
    fn a_frame_is_taken_once_and_answered_each_time() {
        let mut bench = Bench::new();
        let session = bench.open(7);
        let first = encoded(&frame(session, 0, b"ls -l\n"));
        assert_eq!(first.len(), MAX_FRAME);
        for _ in 0..3 {
            assert_eq!(bench.answers(&first), [Answer::Taken]);
        }
        assert_eq!(bench.answers(&encoded(&frame(session, 1, b"\0\0"))), [Answer::Taken]);
        assert_eq!(bench.answers(&first), [Answer::Forgotten], "long over");
        assert_eq!(bench.got, [(1, b"ls -l\n".to_vec()), (1, b"\0\0".to_vec())]);
    }

    #[test]
    fn a_full_partition_gets_the_frame_later_and_keeps_nobody_else() {
        let mut bench = Bench::new();
        let session = bench.open(7);
        let first = encoded(&frame(session, 0, b"x"));
        bench.delivery = Delivery::Full;
        assert_eq!(bench.answers(&first), [Answer::Full]);
        bench.delivery = Delivery::Taken;
        let other = Frame { to: 0, session, number: 0, bytes: b"y" };
        assert_eq!(bench.answers(&encoded(&other)), [Answer::Taken]);
        assert_eq!(bench.answers(&first), [Answer::Taken]);
        bench.delivery = Delivery::Nobody;
        assert_eq!(bench.answers(&encoded(&frame(session, 1, b"x"))), [Answer::Nobody]);
        let none = Frame { to: 3, session, number: 0, bytes: b"y" };
        assert_eq!(bench.answers(&encoded(&none)), [Answer::Nobody], "the table has three");
        assert_eq!(bench.got, [(0, b"y".to_vec()), (1, b"x".to_vec())]);
    }

    #[test]
    fn another_sender_ends_the_session_and_the_same_opening_does_not() {
        let mut bench = Bench::new();
        let session = bench.open(7);
        assert_eq!(bench.answers(&encoded(&frame(session, 0, b"a"))), [Answer::Taken]);
        assert_eq!(bench.open(7), session, "its answer was lost");
        assert_eq!(bench.answers(&encoded(&frame(session, 0, b"a"))), [Answer::Taken]);
        assert_eq!(bench.got.len(), 1);
        let other = bench.open(8);
        assert_ne!(other, session);
        assert_eq!(bench.answers(&encoded(&frame(session, 1, b"b"))), [Answer::Forgotten]);
        assert_eq!(bench.answers(&encoded(&frame(other, 0, b"c"))), [Answer::Taken]);
    }

    #[test]
    fn a_session_has_a_number_at_any_time() {
        let mut bench = Bench::new();
        assert_eq!(bench.answers(&encoded(&frame(0, 0, b"a"))), [Answer::Forgotten]);
        for nonce in 1..600 {
            assert_ne!(bench.open(nonce), 0);
        }
    }

    #[test]
    fn another_version_is_told_and_opens_nothing() {
        let mut bench = Bench::new();
        let opening = Frame { number: PROTOCOL + 1, ..Frame::opening(&[1, 2, 3, 4]) };
        let reply = bench.feed(&encoded(&opening))[0];
        assert_eq!((reply.answer, reply.protocol), (Answer::OtherVersion, PROTOCOL));
        assert_eq!(reply.nonce, 0x0403_0201, "whose opening it was");
        assert_eq!(bench.answers(&encoded(&frame(1, 0, b"a"))), [Answer::Forgotten]);
    }

    #[test]
    fn what_was_spoilt_is_dropped_up_to_the_next_zero() {
        let mut bench = Bench::new();
        assert_eq!(bench.answers(b"noise\0before any session\0"), []);
        let session = bench.open(7);
        let good = encoded(&frame(session, 0, b"a"));
        bench.receiver.spoil();
        assert_eq!(bench.answers(&good), [Answer::Damaged]);
        assert_eq!(bench.answers(&[b'x'; 99]), []);
        assert_eq!(bench.answers(&good), [Answer::Damaged], "too long");
        assert_eq!(bench.answers(b"\0\0\0"), [], "zeros are no damage");
        assert_eq!(bench.answers(&good), [Answer::Taken]);
    }

    #[test]
    fn one_lost_or_changed_byte_delivers_nothing() {
        let mut bench = Bench::new();
        let session = bench.open(7);
        let good = encoded(&frame(session, 0, b"abcdef"));
        // Without its zero a frame is not over yet, and not lost.
        for at in 0..good.len() - 1 {
            let mut cut = good.clone();
            cut.remove(at);
            bench.feed(&cut);
            bench.feed(b"\0");
            for bit in 0..8 {
                let mut changed = good.clone();
                changed[at] ^= 1 << bit;
                bench.feed(&changed);
                bench.feed(b"\0");
            }
        }
        assert_eq!(bench.got, []);
        assert_eq!(bench.answers(&good), [Answer::Taken]);
    }

    #[test]
    fn too_many_bytes_are_no_frame() {
        assert_eq!(frame(1, 0, &[0; MAX_BYTES + 1]).encode(&mut [0; MAX_FRAME]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_reach_a_partition_without_a_session(line in any::<Vec<u8>>()) {
            let mut bench = Bench::new();
            bench.feed(&line);
            prop_assert_eq!(bench.got, []);
        }

        /// With a session open: what is no frame is delivered to nobody, whatever it is.
        #[test]
        fn noise_is_no_frame(noise in proptest::collection::vec(prop_oneof![Just(0_u8), 0_u8..16, any::<u8>()], 0..300)) {
            let mut bench = Bench::new();
            let session = bench.open(7);
            bench.feed(&noise);
            bench.feed(b"\0");
            prop_assert_eq!(&bench.got, &[]);
            prop_assert_eq!(bench.answers(&encoded(&frame(session, 0, b"a"))), [Answer::Taken]);
        }

        #[test]
        fn an_answer_survives_the_way(
            protocol: u8, answer in 0..Answer::ALL.len(), session: u8, to: u8, number: u8, nonce: u32,
        ) {
            let reply = Reply { protocol, answer: Answer::ALL[answer], session, to, number, nonce };
            prop_assert_eq!(Reply::from_bytes(&reply.to_bytes()), Some(reply));
            prop_assert_eq!(Reply::from_bytes(&reply.to_bytes()[1..]), None);
        }
    }
}
