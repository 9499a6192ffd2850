//! A pseudo-terminal as an emulator's serial line, for both ways.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::error::{Error, Result};

/// Our end of the line, and the other one, which is kept open: without it ours would read as broken before the emulator opens it.
pub struct Line {
    own: File,
    _other: File,
    path: PathBuf,
}

impl Line {
    /// A new line that carries bytes as they are.
    ///
    /// # Errors
    /// The system has no pseudo-terminal left.
    pub fn open() -> Result<Self> {
        Self::make().map_err(|cause| {
            Error::failed(
                "cannot open a pseudo-terminal for the serial line",
                cause,
                "run it without --console",
            )
        })
    }

    fn make() -> rustix::io::Result<Self> {
        let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&own)?;
        unlockpt(&own)?;
        let name = ptsname(&own, Vec::new())?;
        let path = PathBuf::from(name.to_string_lossy().into_owned());
        let other =
            rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty())?;
        let mut mode = tcgetattr(&other)?;
        mode.make_raw();
        tcsetattr(&other, OptionalActions::Now, &mode)?;
        fcntl_setfl(&own, fcntl_getfl(&own)? | OFlags::NONBLOCK)?;
        Ok(Self { own: own.into(), _other: other.into(), path })
    }

    /// What the emulator opens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What came since the last call.
    ///
    /// # Errors
    /// The line is broken.
    pub fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.own.read(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The line is broken, or the emulator does not take them.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.own.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_carries_bytes_as_they_are_both_ways() {
        let mut line = Line::open().unwrap();
        let mut other = File::options().read(true).write(true).open(line.path()).unwrap();
        assert_eq!(line.read().unwrap(), b"");
        other.write_all(b"\n\x10\r\x03\0").unwrap();
        assert_eq!(line.read().unwrap(), b"\n\x10\r\x03\0");
        line.write(b"\x10\x40a\r").unwrap();
        let mut piece = [0; 4];
        other.read_exact(&mut piece).unwrap();
        assert_eq!(&piece, b"\x10\x40a\r");
    }
}
