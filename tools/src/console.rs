//! A partition's console on this terminal: what it says goes out as it is, what is typed goes down the serial line.
//!
//! The line carries one byte stream to the hypervisor. DLE (0x10) and a byte of 0x40 or more select a partition, two DLE are one that
//! is meant, and everything else goes to the partition that is selected (`hv_core` takes it apart).

use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use hv_core::pc::typed::{DLE, FIRST};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Result};

/// Ctrl-], as in telnet: ends the run.
const LEAVE: u8 = 0x1D;

/// Most bytes that are sent at a time: a partition's ring takes 256, and a system that takes a key in time takes these.
const AT_ONCE: usize = 8;

/// How long a partition is quiet behind a prompt: its output comes in pieces, and one may end within a line.
const QUIET: Duration = Duration::from_millis(500);

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
    typed: Receiver<Vec<u8>>,
    last_heard: Instant,
    _raw: Option<Raw>,
}

impl Console {
    /// Of the partition with this id. A terminal is put into raw mode until this is dropped; what is piped in is sent a line at a time,
    /// each when the partition has shown a prompt: its output does not end with a line.
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
        Ok(Self { keys, typed, last_heard: Instant::now(), _raw: raw })
    }

    /// Shows what the partition said.
    pub fn show(&mut self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        // A reader that went away is no error: the run goes on.
        let _closed = out.write_all(bytes).and_then(|()| out.flush());
        self.keys.heard(bytes);
        if !bytes.is_empty() {
            self.last_heard = Instant::now();
        }
    }

    /// What to do with the line.
    pub fn poll(&mut self) -> Typed {
        loop {
            match self.typed.try_recv() {
                Ok(bytes) => self.keys.typed(&bytes),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    return self.keys.next(self.last_heard.elapsed() >= QUIET);
                }
            }
        }
    }
}

/// What was typed and is not sent yet.
struct Keys {
    partition: u8,
    waiting: VecDeque<u8>,
    piped: bool,
    selected: bool,
    spoke: bool,
    prompted: bool,
    leaves: bool,
}

impl Keys {
    const fn new(partition: u8, piped: bool) -> Self {
        let waiting = VecDeque::new();
        Self {
            partition,
            waiting,
            piped,
            selected: false,
            spoke: false,
            prompted: false,
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
        }
    }

    /// What goes out now; `quiet` says whether nothing has come for a while.
    fn next(&mut self, quiet: bool) -> Typed {
        if self.leaves {
            return Typed::Leave;
        }
        let held =
            self.waiting.is_empty() || !self.spoke || (self.piped && !(self.prompted && quiet));
        if held {
            return Typed::Send(Vec::new());
        }
        let mut out = Vec::new();
        if !self.selected {
            out.extend([DLE, FIRST + self.partition]);
            self.selected = true;
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

    fn sent(keys: &mut Keys) -> Vec<u8> {
        match keys.next(true) {
            Typed::Send(bytes) => bytes,
            Typed::Leave => panic!("left"),
        }
    }

    #[test]
    fn the_partition_is_selected_once_and_an_escape_is_doubled() {
        let mut keys = Keys::new(2, false);
        keys.typed(b"a\x10b");
        assert_eq!(sent(&mut keys), b"", "it has not spoken yet");
        keys.heard(b"# ");
        assert_eq!(sent(&mut keys), b"\x10\x42a\x10\x10b");
        keys.typed(b"c");
        assert_eq!(sent(&mut keys), b"c");
        assert_eq!(sent(&mut keys), b"");
    }

    #[test]
    fn what_is_piped_waits_for_prompts() {
        let mut keys = Keys::new(0, true);
        keys.typed(b"one\ntwo\n");
        keys.heard(b"starting\n");
        assert_eq!(sent(&mut keys), b"");
        keys.heard(b"# ");
        assert_eq!(keys.next(false), Typed::Send(Vec::new()), "more may follow");
        assert_eq!(sent(&mut keys), b"\x10\x40one\n");
        assert_eq!(sent(&mut keys), b"", "its answer is not there yet");
        keys.heard(b"one\r\ndone\r\n");
        assert_eq!(sent(&mut keys), b"");
        keys.heard(b"# ");
        assert_eq!(sent(&mut keys), b"two\n");
    }

    #[test]
    fn a_long_line_goes_in_pieces() {
        let mut keys = Keys::new(0, false);
        keys.typed(&[b'x'; 20]);
        keys.heard(b"$");
        assert_eq!(sent(&mut keys).len(), AT_ONCE);
        assert_eq!(sent(&mut keys), [b'x'; AT_ONCE]);
    }

    #[test]
    fn only_a_terminal_leaves() {
        let mut keys = Keys::new(0, false);
        keys.typed(b"\x1d");
        assert_eq!(keys.next(true), Typed::Leave);
        let mut keys = Keys::new(0, true);
        keys.typed(b"\x1d");
        assert_eq!(keys.next(true), Typed::Send(Vec::new()));
    }
}
