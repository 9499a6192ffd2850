//! Consoles of partitions: what one says goes to this terminal as it is, what is typed goes down the serial line; or lines that were
//! given beforehand are typed, each behind a prompt. [`crate::typed`] brings it to the hypervisor and loses nothing.

use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hv_core::pc::typed::MAX_BYTES;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Result};

/// Ctrl-], as in telnet: ends the run.
const LEAVE: u8 = 0x1D;

/// How long a partition is quiet behind a prompt, which ends with a space: its output comes in pieces, and one may end within a line.
const QUIET: Duration = Duration::from_millis(500);
/// The same behind a line that ends otherwise.
const LONG_QUIET: Duration = Duration::from_secs(5);

/// What is to be done with the line now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the partition, as many as a frame takes; none when nothing was typed.
    Send(Vec<u8>),
    /// The user leaves.
    Leave,
}

/// The console of one partition.
pub struct Console {
    keys: Keys,
    terminal: Option<Terminal>,
    last_heard: Instant,
}

/// Where a console is shown and typed at.
struct Terminal {
    typed: Receiver<Vec<u8>>,
    _raw: Option<Raw>,
}

impl Console {
    /// Of the partition with this id, here. A terminal is put into raw mode until this is dropped; what is piped in is sent a line at a
    /// time, each when the partition has shown a prompt: its output does not end with a line.
    ///
    /// # Errors
    /// The terminal's mode cannot be set.
    pub fn open(partition: u8) -> Result<Self> {
        let interactive = std::io::stdin().is_terminal();
        let raw = if interactive { Some(Raw::set()?) } else { None };
        if interactive {
            eprint!("bulkhead: Ctrl-] ends the run\r\n");
        }
        let (send, typed) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 256];
            while let Ok(count @ 1..) = std::io::stdin().read(&mut piece) {
                if send.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keys = Keys::new(partition, !interactive);
        let terminal = Some(Terminal { typed, _raw: raw });
        Ok(Self { keys, terminal, last_heard: Instant::now() })
    }

    /// Of the partition with this id, shown nowhere: these lines are typed, each when the partition has shown a prompt.
    #[must_use]
    pub fn scripted<'l>(partition: u8, lines: impl IntoIterator<Item = &'l str>) -> Self {
        let mut keys = Keys::new(partition, true);
        for line in lines {
            keys.typed(line.as_bytes());
            keys.typed(b"\n");
        }
        Self { keys, terminal: None, last_heard: Instant::now() }
    }

    /// Whose it is.
    #[must_use]
    pub const fn partition(&self) -> u8 {
        self.keys.partition
    }

    /// Whether lines that were given beforehand still wait for a prompt.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.terminal.is_none() && !self.keys.waiting.is_empty()
    }

    /// Whether its lines were given beforehand.
    #[must_use]
    pub const fn is_scripted(&self) -> bool {
        self.terminal.is_none()
    }

    /// Takes what the partition said.
    pub fn hear(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.terminal.is_some() {
            let mut out = std::io::stdout().lock();
            // A reader that went away is no error: the run goes on.
            let _closed = out.write_all(bytes).and_then(|()| out.flush());
        }
        self.keys.heard(bytes);
        self.last_heard = Instant::now();
    }

    /// What is to be done now; `is_free` says that the partition has all that was typed so far.
    pub fn poll(&mut self, is_free: bool) -> Typed {
        while let Some(bytes) = self.terminal.as_ref().and_then(|it| it.typed.try_recv().ok()) {
            self.keys.typed(&bytes);
        }
        self.keys.next(self.last_heard.elapsed(), is_free)
    }
}

/// What was typed and is not sent yet.
struct Keys {
    partition: u8,
    waiting: VecDeque<u8>,
    piped: bool,
    /// A line that waited for its prompt is under way: the rest of it waits for none, whatever its echo looks like.
    in_line: bool,
    spoke: bool,
    prompted: bool,
    spaced: bool,
    leaves: bool,
}

impl Keys {
    const fn new(partition: u8, piped: bool) -> Self {
        let waiting = VecDeque::new();
        Self {
            partition,
            waiting,
            piped,
            in_line: false,
            spoke: false,
            prompted: false,
            spaced: false,
            leaves: false,
        }
    }

    fn typed(&mut self, bytes: &[u8]) {
        if !self.piped && bytes.contains(&LEAVE) {
            self.leaves = true;
        }
        self.waiting.extend(bytes);
    }

    fn heard(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.spoke = true;
            self.prompted = !matches!(last, b'\n' | b'\r');
            self.spaced = *last == b' ';
        }
    }

    /// What goes out now, when nothing has come for so long.
    fn next(&mut self, quiet: Duration, is_free: bool) -> Typed {
        if self.leaves {
            return Typed::Leave;
        }
        let is_prompt = self.prompted && quiet >= if self.spaced { QUIET } else { LONG_QUIET };
        let may_begin = self.spoke && (!self.piped || self.in_line || is_prompt);
        let mut out = Vec::new();
        while is_free && may_begin && out.len() < MAX_BYTES {
            let Some(byte) = self.waiting.pop_front() else { break };
            out.push(byte);
            self.in_line = byte != b'\n';
            if self.piped && byte == b'\n' {
                self.prompted = false;
                break;
            }
        }
        Typed::Send(out)
    }
}

/// The terminal in raw mode; dropping it sets it back.
struct Raw {
    before: Termios,
}

impl Raw {
    fn set() -> Result<Self> {
        let failed = |cause: rustix::io::Errno| {
            Error::failed("cannot type into the console", cause, "pipe the input in instead")
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _best_effort = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes out long behind the last word.
    fn sent(keys: &mut Keys) -> Vec<u8> {
        sent_after(keys, QUIET)
    }

    fn sent_after(keys: &mut Keys, quiet: Duration) -> Vec<u8> {
        match keys.next(quiet, true) {
            Typed::Send(bytes) => bytes,
            Typed::Leave => panic!("left"),
        }
    }

    #[test]
    fn what_is_typed_goes_as_it_is_once_the_partition_speaks_and_has_the_rest() {
        let mut keys = Keys::new(2, false);
        keys.typed(b"a\x10\0b");
        assert_eq!(sent(&mut keys), b"", "it has not spoken yet");
        keys.heard(b"# ");
        assert_eq!(keys.next(QUIET, false), Typed::Send(vec![]), "a frame is under way");
        assert_eq!(sent(&mut keys), b"a\x10\0b");
        assert_eq!(sent(&mut keys), b"");
    }

    #[test]
    fn what_is_piped_waits_for_prompts() {
        let mut keys = Keys::new(0, true);
        keys.typed(b"one\ntwo\n");
        keys.heard(b"starting\n");
        assert_eq!(sent(&mut keys), b"");
        keys.heard(b"# ");
        assert_eq!(sent_after(&mut keys, Duration::ZERO), b"", "more may follow");
        assert_eq!(sent(&mut keys), b"one\n");
        assert_eq!(sent(&mut keys), b"", "its answer is not there yet");
        keys.heard(b"one\r\ndone\r\n");
        assert_eq!(sent(&mut keys), b"");
        keys.heard(b"# ");
        assert_eq!(sent(&mut keys), b"two\n");
    }

    #[test]
    fn what_ends_with_no_space_may_be_a_piece_of_a_line() {
        let mut keys = Keys::new(0, true);
        keys.typed(b"one\n");
        keys.heard(b"[    0.0");
        assert_eq!(sent(&mut keys), b"");
        assert_eq!(sent_after(&mut keys, LONG_QUIET), b"one\n", "some prompts have none");
    }

    #[test]
    fn a_line_that_has_begun_goes_on_whatever_its_echo_looks_like() {
        let mut keys = Keys::new(0, true);
        keys.typed(b"echo ABCDEF\nnext\n");
        keys.heard(b"# ");
        assert_eq!(sent(&mut keys), b"echo A");
        keys.heard(b"echo A");
        assert_eq!(sent_after(&mut keys, Duration::ZERO), b"BCDEF\n");
        assert_eq!(sent_after(&mut keys, QUIET), b"", "the next line waits");
    }

    #[test]
    fn only_a_terminal_leaves() {
        let mut keys = Keys::new(0, false);
        keys.typed(b"\x1d");
        assert_eq!(keys.next(QUIET, false), Typed::Leave);
        let mut keys = Keys::new(0, true);
        keys.typed(b"\x1d");
        assert_eq!(keys.next(QUIET, true), Typed::Send(Vec::new()));
    }
}
