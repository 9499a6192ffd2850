//! Consoles of partitions: what one says goes to this terminal as it is, what is typed goes down the serial line; or lines that were
//! given beforehand are typed, each behind a prompt.
//!
//! The line carries one byte stream to the hypervisor. DLE (0x10) and a byte of 0x40 or more select a partition, two DLE are one that
//! is meant, and everything else goes to the partition that is selected (`hv_core` takes it apart).

use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hv_core::pc::typed::{DLE, FIRST};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Result};

/// Ctrl-], as in telnet: ends the run.
const LEAVE: u8 = 0x1D;

/// Most bytes that are sent at a time: a partition's ring takes 256, and a system that takes a key in time takes these.
const AT_ONCE: usize = 8;

/// How long a partition is quiet behind a prompt, which ends with a space: its output comes in pieces, and one may end within a line.
const QUIET: Duration = Duration::from_millis(500);
/// The same behind a line that ends otherwise.
const LONG_QUIET: Duration = Duration::from_secs(5);

/// What is to be done with the line now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the line; none when nothing was typed.
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

    /// What to do with the line; `selected` is the partition that the line goes to, and is kept up to date.
    pub fn poll(&mut self, selected: &mut Option<u8>) -> Typed {
        while let Some(bytes) = self.terminal.as_ref().and_then(|it| it.typed.try_recv().ok()) {
            self.keys.typed(&bytes);
        }
        self.keys.next(self.last_heard.elapsed(), selected)
    }
}

/// What was typed and is not sent yet.
struct Keys {
    partition: u8,
    waiting: VecDeque<u8>,
    piped: bool,
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
    fn next(&mut self, quiet: Duration, selected: &mut Option<u8>) -> Typed {
        if self.leaves {
            return Typed::Leave;
        }
        let is_prompt = self.prompted && quiet >= if self.spaced { QUIET } else { LONG_QUIET };
        if self.waiting.is_empty() || !self.spoke || (self.piped && !is_prompt) {
            return Typed::Send(Vec::new());
        }
        let mut out = Vec::new();
        if *selected != Some(self.partition) {
            out.extend([DLE, FIRST + self.partition]);
            *selected = Some(self.partition);
        }
        while out.len() < AT_ONCE {
            let Some(byte) = self.waiting.pop_front() else { break };
            out.push(byte);
            if byte == DLE {
                out.push(DLE);
            }
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

    /// What goes out long behind the last word, down a line that goes to nobody yet.
    fn sent(keys: &mut Keys) -> Vec<u8> {
        sent_down(keys, &mut None)
    }

    fn sent_down(keys: &mut Keys, selected: &mut Option<u8>) -> Vec<u8> {
        match keys.next(QUIET, selected) {
            Typed::Send(bytes) => bytes,
            Typed::Leave => panic!("left"),
        }
    }

    #[test]
    fn the_partition_is_selected_once_and_an_escape_is_doubled() {
        let mut keys = Keys::new(2, false);
        let mut line = None;
        keys.typed(b"a\x10b");
        assert_eq!(sent_down(&mut keys, &mut line), b"", "it has not spoken yet");
        keys.heard(b"# ");
        assert_eq!(sent_down(&mut keys, &mut line), b"\x10\x42a\x10\x10b");
        keys.typed(b"c");
        assert_eq!(sent_down(&mut keys, &mut line), b"c");
        assert_eq!(sent_down(&mut keys, &mut line), b"");
        line = Some(1);
        keys.typed(b"d");
        assert_eq!(sent_down(&mut keys, &mut line), b"\x10\x42d", "another took the line");
        assert_eq!(line, Some(2));
    }

    #[test]
    fn what_is_piped_waits_for_prompts() {
        let mut keys = Keys::new(0, true);
        let mut line = Some(0);
        keys.typed(b"one\ntwo\n");
        keys.heard(b"starting\n");
        assert_eq!(sent(&mut keys), b"");
        keys.heard(b"# ");
        assert_eq!(
            keys.next(Duration::ZERO, &mut line),
            Typed::Send(Vec::new()),
            "more may follow"
        );
        assert_eq!(sent_down(&mut keys, &mut line), b"one\n");
        assert_eq!(sent(&mut keys), b"", "its answer is not there yet");
        keys.heard(b"one\r\ndone\r\n");
        assert_eq!(sent(&mut keys), b"");
        keys.heard(b"# ");
        assert_eq!(sent_down(&mut keys, &mut line), b"two\n");
    }

    #[test]
    fn what_ends_with_no_space_may_be_a_piece_of_a_line() {
        let mut keys = Keys::new(0, true);
        keys.typed(b"one\n");
        keys.heard(b"[    0.0");
        assert_eq!(sent(&mut keys), b"");
        let late = keys.next(LONG_QUIET, &mut None);
        assert_eq!(late, Typed::Send(b"\x10\x40one\n".to_vec()), "some prompts have none");
    }

    #[test]
    fn a_long_line_goes_in_pieces() {
        let mut keys = Keys::new(0, false);
        let mut line = Some(0);
        keys.typed(&[b'x'; 20]);
        keys.heard(b"$");
        assert_eq!(sent_down(&mut keys, &mut line), [b'x'; AT_ONCE]);
        assert_eq!(sent_down(&mut keys, &mut line), [b'x'; AT_ONCE]);
    }

    #[test]
    fn only_a_terminal_leaves() {
        let mut keys = Keys::new(0, false);
        keys.typed(b"\x1d");
        assert_eq!(keys.next(QUIET, &mut None), Typed::Leave);
        let mut keys = Keys::new(0, true);
        keys.typed(b"\x1d");
        assert_eq!(keys.next(QUIET, &mut None), Typed::Send(Vec::new()));
    }
}
