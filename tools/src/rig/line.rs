//! The rig's serial line: read as it comes, typed to, kept whole in a file, opened again when it breaks off.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Serial;
use crate::error::{Error, Result};

/// How long one look at the line takes when nothing comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// How often a line that broke off is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Bytes of one read.
const PIECE: usize = 4096;

/// The line, open or broken off.
pub struct Line {
    device: PathBuf,
    baud: u32,
    port: Option<Box<dyn serialport::SerialPort>>,
    tried: Instant,
    log: File,
    log_path: PathBuf,
}

/// What one look at the line found.
pub enum Heard {
    /// These bytes; none when nothing came.
    Bytes(Vec<u8>),
    /// The line broke off just now; it is tried again from here on.
    BrokeOff(String),
}

impl Line {
    /// Opens the line and the file that keeps all that comes.
    ///
    /// # Errors
    /// There is no such device, or no right to it; the file cannot be written.
    pub fn open(serial: &Serial, log_path: &Path) -> Result<Self> {
        let log = File::create(log_path).map_err(|cause| Error::file("write", log_path, &cause))?;
        let port = open(&serial.device, serial.baud).map_err(|cause| {
            Error::refused(
                format!("cannot open the serial line {}", serial.device.display()),
                cause,
                "check `device` of [serial], your rights (group dialout), and that no other program holds it",
            )
        })?;
        Ok(Self {
            device: serial.device.clone(),
            baud: serial.baud,
            port: Some(port),
            tried: Instant::now(),
            log,
            log_path: log_path.to_path_buf(),
        })
    }

    /// Looks at the line once, for a moment at most.
    ///
    /// # Errors
    /// The file that keeps the log cannot be written.
    pub fn listen(&mut self) -> Result<Heard> {
        let Some(port) = &mut self.port else {
            self.reopen();
            return Ok(Heard::Bytes(Vec::new()));
        };
        let mut piece = vec![0; PIECE];
        match port.read(&mut piece) {
            // A line that hangs up reads as its end for ever.
            Ok(0) => Ok(self.break_off("it was hung up")),
            Ok(count) => {
                piece.truncate(count);
                self.keep(&piece)?;
                Ok(Heard::Bytes(piece))
            }
            Err(cause)
                if matches!(cause.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) =>
            {
                Ok(Heard::Bytes(Vec::new()))
            }
            Err(cause) => Ok(self.break_off(&cause.to_string())),
        }
    }

    /// Sends bytes; returns why the line broke off, if it did. What a line that is broken off does not take is lost: who types sends it
    /// again.
    pub fn send(&mut self, bytes: &[u8]) -> Option<String> {
        let port = self.port.as_mut().filter(|_| !bytes.is_empty())?;
        let cause = port.write_all(bytes).and_then(|()| port.flush()).err()?;
        if matches!(cause.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) {
            return None;
        }
        self.port = None;
        self.tried = Instant::now();
        Some(cause.to_string())
    }

    /// The file that keeps all that comes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log_path
    }

    /// Writes a line of our own into the kept log. The zero in front ends a packet that was cut.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&mut self, text: &str) -> Result<()> {
        self.keep(format!("\0\n-- {text} --\n").as_bytes())
    }

    /// Forgets what is still on its way from before.
    pub fn drop_old(&mut self) {
        if let Some(port) = &self.port {
            // What cannot be dropped is heard as a part of the next boot, whose greeting tells the two apart.
            let _kept = port.clear(serialport::ClearBuffer::Input);
        }
    }

    fn break_off(&mut self, cause: &str) -> Heard {
        self.port = None;
        self.tried = Instant::now();
        Heard::BrokeOff(cause.to_string())
    }

    fn reopen(&mut self) {
        std::thread::sleep(PATIENCE);
        if self.tried.elapsed() >= RETRY {
            self.tried = Instant::now();
            // As long as this fails the line is silent, and silence has its limit.
            self.port = open(&self.device, self.baud).ok();
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        self.log.write_all(bytes).map_err(|cause| Error::file("write", &self.log_path, &cause))
    }
}

fn open(device: &Path, baud: u32) -> serialport::Result<Box<dyn serialport::SerialPort>> {
    serialport::new(device.to_string_lossy(), baud).timeout(PATIENCE).open()
}
