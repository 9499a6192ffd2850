//! Where a log comes from: a serial port, a file, a FIFO or standard input.

use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::{interrupt, memory_log};

/// Bytes of one read.
pub const PIECE: usize = 4096;

/// How often a quiet port is asked whether the user wants to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// A source of bytes.
pub enum Source {
    /// A serial port: never ends by itself.
    Port(Box<dyn serialport::SerialPort>),
    /// A file, a FIFO or standard input.
    Stream(Box<dyn Read + Send>),
}

/// The log of the last run, where the file is a copy of the memory that kept it; otherwise the file is where it was.
fn kept_in_memory(file: &mut fs::File, path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |cause| Error::file("read", path, &cause);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut logs = memory_log::find(&bytes);
    let last = logs.pop();
    if let Some(last) = &last {
        let others = match logs.last() {
            Some(before) => format!("; that of run {} is there too", before.header.run),
            None => String::new(),
        };
        let end = if last.header.ended { "to its end" } else { "without its end" };
        eprintln!(
            "bulkhead: a copy of memory with the log of run {}, {end}{others}",
            last.header.run
        );
    }
    Ok(last.map(|last| last.bytes))
}

impl Source {
    /// Opens `source`, or standard input without one or for `-`. A FIFO blocks until somebody writes to it.
    ///
    /// # Errors
    /// There is no such thing, or no right to it.
    pub fn open(source: Option<&Path>, baud: u32) -> Result<Self> {
        let Some(path) = source.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stream(Box::new(io::stdin())));
        };
        let data = fs::metadata(path).map_err(|cause| Error::file("open", path, &cause))?;
        if !data.file_type().is_char_device() {
            let mut file =
                fs::File::open(path).map_err(|cause| Error::file("open", path, &cause))?;
            if data.is_file()
                && let Some(log) = kept_in_memory(&mut file, path)?
            {
                return Ok(Self::Stream(Box::new(io::Cursor::new(log))));
            }
            return Ok(Self::Stream(Box::new(file)));
        }
        let port = serialport::new(path.to_string_lossy(), baud).timeout(PATIENCE).open();
        let port = port.map_err(|cause| {
            Error::refused(
                format!("cannot open the serial port {}", path.display()),
                cause,
                "check the name and your rights (group dialout), and that no other program holds it",
            )
        })?;
        Ok(Self::Port(port))
    }

    /// The next bytes; `None` at the end, or when the user interrupts.
    ///
    /// # Errors
    /// The line broke off.
    pub fn more(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = vec![0; PIECE];
        loop {
            if interrupt::requested() {
                return Ok(None);
            }
            let got = match self {
                Self::Port(port) => port.read(&mut piece),
                Self::Stream(stream) => stream.read(&mut piece),
            };
            match got {
                Ok(0) if matches!(self, Self::Stream(_)) => return Ok(None),
                Ok(0) => {}
                Ok(count) => {
                    piece.truncate(count);
                    return Ok(Some(piece));
                }
                Err(cause)
                    if matches!(
                        cause.kind(),
                        io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(cause) => {
                    return Err(Error::failed(
                        "the log broke off",
                        cause,
                        "check the cable and the adapter, and run it again",
                    ));
                }
            }
        }
    }
}
