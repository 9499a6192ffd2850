//! This end of the line on which partitions are typed to: cuts what is typed into frames, has one on the line at a time, and sends each
//! again until the hypervisor says that it has it. `hv_core::pc::typed` is the other end and has the protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use hv_core::pc::typed::{Answer, Frame, MAX_BYTES, MAX_FRAME, PROTOCOL, Reply};

use crate::error::{Error, Result};

/// How long the first copy of a frame waits for its answer; each further one waits twice as long, up to [`LONGEST`]. A frame that is still in
/// the port's FIFO when the next copy comes costs both, so this is longer than housekeeping stays away.
const PATIENCE: Duration = Duration::from_millis(300);
const LONGEST: Duration = Duration::from_secs(3);

/// When a frame is sent again whose partition had no room.
const FULL: Duration = Duration::from_millis(100);

/// Time without any answer after which the hypervisor does not listen. An emulator on a busy machine takes seconds.
const DEAF: Duration = Duration::from_secs(120);

/// The state of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    /// No opening was answered.
    Closed,
    /// Open, with this number.
    Open(u8),
}

/// A frame that the hypervisor does not have yet.
#[derive(Clone, Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// Not before this time.
    due: Duration,
    /// The partition said that it has no room.
    is_full: bool,
}

/// What is on the line.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// The partition; `None`: an opening.
    to: Option<u8>,
    /// When the answer is given up.
    until: Duration,
}

/// The sender of typed bytes. Times count from any one moment.
#[derive(Debug)]
pub struct Link {
    nonce: u32,
    session: Session,
    /// By partition: the number of its next frame in this session.
    numbers: BTreeMap<u8, u8>,
    waiting: BTreeMap<u8, Waiting>,
    flight: Option<Flight>,
    /// Copies of the present frame, or of whatever else, that got no answer in a row.
    unanswered: u32,
    /// Since when there is no answer to what was sent.
    deaf_since: Option<Duration>,
    /// Whose turn it was last.
    latest: u8,
}

impl Link {
    /// A line on which nothing was typed yet; `nonce` is a number that no other sender chooses.
    #[must_use]
    pub const fn new(nonce: u32) -> Self {
        Self {
            nonce,
            session: Session::Closed,
            numbers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            flight: None,
            unanswered: 0,
            deaf_since: None,
            latest: 0,
        }
    }

    /// Whether this partition has all that was given for it so far.
    #[must_use]
    pub fn is_free(&self, to: u8) -> bool {
        !self.waiting.contains_key(&to)
    }

    /// Whether this partition takes no more: it does not read what is typed.
    #[must_use]
    pub fn is_full(&self, to: u8) -> bool {
        self.waiting.get(&to).is_some_and(|waiting| waiting.is_full)
    }

    /// Takes bytes for a partition that [is free](Self::is_free), at most [`MAX_BYTES`].
    pub fn give(&mut self, to: u8, bytes: &[u8], now: Duration) {
        debug_assert!(self.is_free(to) && bytes.len() <= MAX_BYTES, "one frame at a time");
        let waiting = Waiting { bytes: bytes.to_vec(), due: now, is_full: false };
        self.waiting.insert(to, waiting);
    }

    /// The hypervisor greeted, and types by this version of the protocol.
    ///
    /// # Errors
    /// It is another one, or partitions cannot be typed to there.
    pub fn greeted(&mut self, protocol: Option<u8>) -> Result<()> {
        match protocol {
            Some(PROTOCOL) => Ok(()),
            Some(0) => Err(refused(
                "no partition of this system has a console that can be typed at",
                "give a partition `platform = \"pc\"` or a kernel, or leave --console and --type out",
            )),
            other => Err(other_version(other)),
        }
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// The partition cannot be typed to; the hypervisor has another protocol, or started anew, or is typed to by somebody else.
    pub fn answered(&mut self, reply: &Reply, now: Duration) -> Result<()> {
        self.deaf_since = None;
        match (reply.answer, self.session) {
            (Answer::Opened, Session::Closed) if reply.nonce == self.nonce => {
                self.session = Session::Open(reply.session);
                self.land();
            }
            (Answer::OtherVersion, _) if reply.nonce == self.nonce => {
                return Err(other_version(Some(reply.protocol)));
            }
            // Sent again at once: what was damaged has left the port.
            (Answer::Damaged, _) => self.flight = None,
            (answer, Session::Open(session)) if reply.session == session => {
                return self.answered_frame(answer, reply, now);
            }
            _ => {}
        }
        Ok(())
    }

    fn answered_frame(&mut self, answer: Answer, reply: &Reply, now: Duration) -> Result<()> {
        let number = self.numbers.get(&reply.to).copied().unwrap_or(0);
        let (Some(waiting), true) = (self.waiting.get_mut(&reply.to), reply.number == number)
        else {
            return Ok(());
        };
        match answer {
            Answer::Taken if reply.nonce == self.nonce => {
                self.waiting.remove(&reply.to);
                self.numbers.insert(reply.to, number.wrapping_add(1));
            }
            Answer::Full if reply.nonce == self.nonce => {
                waiting.is_full = true;
                waiting.due = now + FULL;
            }
            Answer::Nobody if reply.nonce == self.nonce => {
                return Err(refused(
                    &format!("partition {} has no console that can be typed at", reply.to),
                    "give it `platform = \"pc\"` or a kernel, or name another partition",
                ));
            }
            Answer::Forgotten => return Err(forgotten()),
            _ => return Ok(()),
        }
        if self.flight.is_some_and(|flight| flight.to == Some(reply.to)) {
            self.land();
        }
        Ok(())
    }

    /// What was on the line has arrived.
    const fn land(&mut self) {
        self.flight = None;
        self.unanswered = 0;
    }

    /// What goes down the line now; empty while an answer is waited for, or when there is nothing to say.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub fn poll(&mut self, now: Duration) -> Result<Vec<u8>> {
        if let Some(flight) = self.flight {
            if now < flight.until {
                return Ok(Vec::new());
            }
            self.flight = None;
            self.unanswered += 1;
        }
        if self.deaf_since.is_some_and(|since| now.saturating_sub(since) >= DEAF) {
            return Err(deaf());
        }
        let Some(to) = self.next(now) else {
            return Ok(Vec::new());
        };
        let bytes = self.copy(to);
        let patience = PATIENCE.saturating_mul(1 << self.unanswered.min(8)).min(LONGEST);
        self.flight = Some(Flight { to, until: now + patience });
        self.deaf_since.get_or_insert(now);
        Ok(bytes)
    }

    /// Where the next frame goes, an opening being `Some(None)`: partitions take turns.
    fn next(&mut self, now: Duration) -> Option<Option<u8>> {
        let due: Vec<u8> =
            self.waiting.iter().filter(|(_, it)| it.due <= now).map(|(to, _)| *to).collect();
        let to = due.iter().find(|to| **to > self.latest).or(due.first()).copied()?;
        if self.session == Session::Closed {
            return Some(None);
        }
        self.latest = to;
        Some(Some(to))
    }

    /// A frame as it goes down the line. Whatever came before it, a zero in front ends it.
    fn copy(&self, to: Option<u8>) -> Vec<u8> {
        let nonce = self.nonce.to_le_bytes();
        let frame = match (to, self.session) {
            (Some(to), Session::Open(session)) => Frame {
                to,
                session,
                number: self.numbers.get(&to).copied().unwrap_or(0),
                bytes: self.waiting.get(&to).map_or(&[], |waiting| &waiting.bytes),
            },
            _ => Frame::opening(&nonce),
        };
        let mut room = [0; MAX_FRAME];
        let mut line = vec![0];
        line.extend(frame.encode(&mut room).unwrap_or_default());
        line
    }
}

fn refused(cause: &str, remedy: &str) -> Error {
    Error::refused("cannot type to a partition", cause, remedy)
}

fn other_version(theirs: Option<u8>) -> Error {
    let theirs = theirs.map_or("does not check what is typed".to_string(), |version| {
        format!("checks what is typed by version {version} of the protocol")
    });
    refused(
        &format!("the hypervisor {theirs}, and this command knows version {PROTOCOL}"),
        "build the image anew, or use the `bulkhead` of the tree that built it",
    )
}

fn forgotten() -> Error {
    Error::failed(
        "typing was cut off, and the last bytes may not have arrived",
        "the hypervisor does not know this session any more: it started anew, or another program types on the same line",
        "end the other program, and run it again",
    )
}

fn deaf() -> Error {
    Error::failed(
        "cannot type to a partition",
        format!("the hypervisor answers nothing that is typed within {} s", DEAF.as_secs()),
        "check the wire towards the board (transmit and ground) and that no other program holds the line",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use hv_core::pc::typed::{Delivery, Receiver};
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// What a line does to what goes over it, step by step.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Passes,
        Lost,
        Doubled,
        Changed(u8),
        /// Comes behind the next one.
        Late,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            60 => Just(Fate::Passes),
            1 => Just(Fate::Lost),
            1 => Just(Fate::Doubled),
            1 => (1..=u8::MAX).prop_map(Fate::Changed),
            1 => Just(Fate::Late),
        ]
    }

    /// One way of a line.
    struct Way<T> {
        fates: std::iter::Cycle<std::vec::IntoIter<Fate>>,
        /// What is still to be spoilt; behind that the line is good.
        trouble: usize,
        late: Option<T>,
    }

    impl<T: Clone> Way<T> {
        fn new(fates: Vec<Fate>, trouble: usize) -> Self {
            Self { fates: fates.into_iter().cycle(), trouble, late: None }
        }

        fn carry(&mut self, it: T, change: impl Fn(T, u8) -> Option<T>) -> Vec<T> {
            let fate = if self.trouble == 0 { Fate::Passes } else { self.fates.next().unwrap() };
            self.trouble = self.trouble.saturating_sub(1);
            let late = self.late.take();
            let now = match fate {
                Fate::Passes => vec![it],
                Fate::Lost => vec![],
                Fate::Doubled => vec![it.clone(), it],
                Fate::Changed(bits) => change(it, bits).into_iter().collect(),
                Fate::Late => {
                    self.late = Some(it);
                    vec![]
                }
            };
            now.into_iter().chain(late).collect()
        }
    }

    /// A hypervisor whose housekeeping looks at a port of 16 bytes now and then, and three partitions that read slowly.
    struct Board {
        port: VecDeque<u8>,
        overrun: bool,
        receiver: Receiver<3>,
        rooms: [VecDeque<u8>; 3],
        got: [Vec<u8>; 3],
    }

    impl Board {
        fn new() -> Self {
            Self {
                port: VecDeque::new(),
                overrun: false,
                receiver: Receiver::new(),
                rooms: Default::default(),
                got: Default::default(),
            }
        }

        fn arrive(&mut self, byte: u8) {
            if self.port.len() < 16 { self.port.push_back(byte) } else { self.overrun = true }
        }

        fn keep_house(&mut self, room: usize) -> Option<Reply> {
            if std::mem::take(&mut self.overrun) {
                self.receiver.spoil();
            }
            let mut reply = None;
            for byte in self.port.drain(..) {
                let rooms = &mut self.rooms;
                let deliver = |to: u8, bytes: &[u8]| {
                    let waiting = &mut rooms[usize::from(to)];
                    if waiting.len() + bytes.len() > room {
                        return Delivery::Full;
                    }
                    waiting.extend(bytes);
                    Delivery::Taken
                };
                reply = self.receiver.take(byte, deliver).or(reply);
            }
            reply
        }

        fn read(&mut self, partition: usize, count: usize) {
            let count = count.min(self.rooms[partition].len());
            self.got[partition].extend(self.rooms[partition].drain(..count));
        }
    }

    #[test]
    fn an_open_line_carries_one_frame_at_a_time() {
        let mut link = Link::new(7);
        let mut board = Board::new();
        link.give(1, b"ls\n", STEP);
        let opening = link.poll(STEP).unwrap();
        assert!(opening.len() <= 16 && opening[0] == 0);
        assert!(link.poll(STEP).unwrap().is_empty(), "an answer is waited for");
        opening.iter().for_each(|byte| board.arrive(*byte));
        let reply = board.keep_house(9).unwrap();
        link.answered(&reply, STEP).unwrap();
        let frame = link.poll(STEP).unwrap();
        assert!(frame.len() <= 16, "the port holds it");
        frame.iter().for_each(|byte| board.arrive(*byte));
        let reply = board.keep_house(9).unwrap();
        assert!(!link.is_free(1));
        link.answered(&reply, STEP).unwrap();
        assert!(link.is_free(1));
        assert_eq!(board.rooms[1], b"ls\n");
    }

    #[test]
    fn what_cannot_be_typed_to_is_told() {
        let mut link = Link::new(7);
        let told = |result: Result<()>| result.unwrap_err().to_string();
        assert!(told(link.greeted(None)).contains("does not check what is typed"));
        assert!(told(link.greeted(Some(9))).contains("version 9"));
        assert!(told(link.greeted(Some(0))).contains("platform"));
        link.greeted(Some(PROTOCOL)).unwrap();
        link.give(2, b"x", STEP);
        let reply = Reply {
            protocol: PROTOCOL,
            answer: Answer::Opened,
            session: 5,
            to: 255,
            number: PROTOCOL,
            nonce: 7,
        };
        link.answered(&Reply { nonce: 8, ..reply }, STEP).unwrap();
        assert_eq!(link.session, Session::Closed, "somebody else's");
        link.answered(&reply, STEP).unwrap();
        let of_frame = Reply { to: 2, number: 0, ..reply };
        let nobody = Reply { answer: Answer::Nobody, ..of_frame };
        assert!(told(link.answered(&nobody, STEP)).contains("partition 2"));
        let forgotten = Reply { answer: Answer::Forgotten, nonce: 0, ..of_frame };
        assert!(told(link.answered(&forgotten, STEP)).contains("may not have arrived"));
        let stale = Reply { number: 9, ..forgotten };
        link.answered(&stale, STEP).unwrap();
    }

    #[test]
    fn a_hypervisor_that_never_answers_is_told() {
        let mut link = Link::new(7);
        link.give(0, b"x", Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut copies = 0;
        let error = loop {
            match link.poll(now) {
                Ok(bytes) => copies += usize::from(!bytes.is_empty()),
                Err(error) => break error.to_string(),
            }
            now += STEP;
        };
        assert!(error.contains("answers nothing"), "{error}");
        assert!((DEAF..DEAF + 2 * LONGEST).contains(&now) && copies < 60, "{now:?}, {copies}");
    }

    proptest! {
        /// Whatever the line does to bytes and answers for a while: every byte arrives once, in order, at its partition; or, where nothing comes
        /// through for long, the typist is told, and what did arrive is the beginning of what was typed.
        #[test]
        fn every_byte_arrives_once_in_order_at_its_partition(
            texts in proptest::array::uniform3(proptest::collection::vec(any::<u8>(), 0..120)),
            up in proptest::collection::vec(fate(), 1..300),
            down in proptest::collection::vec(fate(), 1..60),
            trouble in 0_usize..2_000,
            housekeeping in 1_u32..40,
            room in MAX_BYTES..40,
            reads in proptest::array::uniform3(1_usize..9),
        ) {
            let (mut up, mut down) = (Way::new(up, trouble), Way::new(down, trouble / 20));
            let (mut link, mut board) = (Link::new(7), Board::new());
            let mut rest: Vec<VecDeque<u8>> =
                texts.iter().map(|text| text.iter().copied().collect()).collect();
            let mut now = Duration::ZERO;
            let all = |board: &Board| board.got.iter().map(Vec::len).sum::<usize>();
            let wanted: usize = texts.iter().map(Vec::len).sum();
            for step in 0_u32.. {
                prop_assert!(step < 400_000, "{} of {wanted} bytes arrived", all(&board));
                for (to, rest) in (0_u8..).zip(&mut rest) {
                    if link.is_free(to) && !rest.is_empty() {
                        let count = rest.len().min(MAX_BYTES);
                        let bytes: Vec<u8> = rest.drain(..count).collect();
                        link.give(to, &bytes, now);
                    }
                }
                let Ok(line) = link.poll(now) else {
                    for (text, got) in texts.iter().zip(&board.got) {
                        prop_assert!(text.starts_with(got));
                    }
                    return Ok(());
                };
                for byte in line {
                    let change = |byte, bits| Some(byte ^ bits);
                    up.carry(byte, change).into_iter().for_each(|byte| board.arrive(byte));
                }
                if step % housekeeping == 0 {
                    // A packet that is changed fails its checksum.
                    let reply = board.keep_house(room);
                    let heard = reply.map(|it| down.carry(it, |_, _| None)).unwrap_or_default();
                    for reply in heard {
                        link.answered(&reply, now).unwrap();
                    }
                    (0..3).for_each(|at| board.read(at, reads[at]));
                }
                if all(&board) == wanted && (0..3).all(|to| link.is_free(to)) {
                    break;
                }
                now += STEP;
            }
            prop_assert_eq!(&board.got, &texts);
        }
    }
}
