//! The terminal of the program: this side of a pseudo-terminal.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A pseudo-terminal, seen from the side of the one who types.
pub struct Terminal {
    typist: OwnedFd,
    program: OwnedFd,
}

impl Terminal {
    /// A new one.
    ///
    /// # Errors
    /// The kernel has none (`devpts` has to be mounted).
    pub fn open() -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let typist = openpt(flags)?;
        grantpt(&typist)?;
        unlockpt(&typist)?;
        let name = ptsname(&typist, Vec::new())?;
        let own = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = rustix::fs::open(name, own, Mode::empty())?;
        rustix::io::ioctl_fionbio(&typist, true)?;
        Ok(Self { typist, program })
    }

    /// Starts a program on it, as the first of a session.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let side = || self.program.try_clone().map(Stdio::from);
        command.stdin(side()?).stdout(side()?).stderr(side()?);
        // SAFETY: both are single system calls, which a child may make between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())?;
                Ok(())
            });
        }
        command.spawn()
    }

    /// What the program said, as much as `room` holds; nothing when it said nothing.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn read<'r>(&self, room: &'r mut [u8]) -> Result<&'r [u8]> {
        match rustix::io::read(&self.typist, &mut *room) {
            Ok(count) => Ok(&room[..count]),
            Err(Errno::AGAIN | Errno::INTR) => Ok(&[]),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Types to the program; returns how many bytes its terminal took. The rest waits while the program does not read.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&self.typist, rest) {
                Ok(0) => return Err(Error::from(ErrorKind::WriteZero)),
                Ok(count) => taken += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok(taken)
    }

    /// Waits until the program says something, or for `most`.
    pub fn wait(&self, most: Duration) {
        let most = Timespec::try_from(most).ok();
        // An error ends the wait early, and the next read tells it.
        let _early = poll(&mut [PollFd::new(&self.typist, PollFlags::IN)], most.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(terminal: &Terminal, until: &str) -> String {
        let mut said = String::new();
        for _ in 0..500 {
            let mut room = [0; 64];
            said += &String::from_utf8_lossy(terminal.read(&mut room).unwrap());
            if said.contains(until) {
                break;
            }
            terminal.wait(Duration::from_millis(10));
        }
        said
    }

    /// Without a program that reads, the terminal takes as much as it holds, and says so.
    #[test]
    fn a_full_terminal_takes_no_more_and_says_so() {
        let terminal = Terminal::open().unwrap();
        let lines = b"a line that nobody reads\n".repeat(200);
        let taken: Vec<usize> = (0..64).map(|_| terminal.write(&lines).unwrap()).collect();
        assert!(taken.contains(&0), "{taken:?}");
        assert!(taken[0] > 0);
    }

    #[test]
    fn a_program_has_a_terminal_of_its_own() {
        let terminal = Terminal::open().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "tty; read word; echo got $word"]);
        let mut child = terminal.spawn(&mut shell).unwrap();
        assert!(all(&terminal, "/dev/pts/").contains("/dev/pts/"));
        terminal.write(b"a key\n").unwrap();
        assert!(all(&terminal, "got a key").contains("got a key"));
        assert!(child.wait().unwrap().success());
    }
}
