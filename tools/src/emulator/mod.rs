//! Starts an emulator, follows its serial port, ends it.

pub mod bochs;
pub mod line;
pub mod qemu;

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::paths;
use line::Line;

/// The firmware for UEFI of both emulators: code and variables.
pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The variables as they are at first.
pub const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Which emulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Bochs: an industrial PC with VT-x.
    #[default]
    Bochs,
    /// QEMU without acceleration: a PC without VT-x.
    Qemu,
}

/// Which firmware boots the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// The BIOS of old.
    #[default]
    Bios,
    /// UEFI (QEMU only).
    Uefi,
}

impl Firmware {
    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// What an emulator needs to know.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// The image to boot. The emulator gets a copy, so that runs do not disturb each other.
    pub image: &'a Path,
    /// Folder of this run: serial log, the emulator's own log, settings.
    pub folder: &'a Path,
    /// Logical processors.
    pub cores: usize,
    /// Model of the processor that Bochs emulates; by default [`bochs::MODEL`].
    pub cpu_model: Option<&'a str>,
    /// First byte behind the memory that the board declares.
    pub memory_end: u64,
    /// Which firmware boots it.
    pub firmware: Firmware,
    /// Whether the serial line goes both ways (Bochs only).
    pub two_way: bool,
    /// Whether Bochs notes in its log at which tick each byte goes to the serial port.
    pub serial_ticks: bool,
    /// Further arguments of QEMU; of an option that is given twice, the later one counts.
    pub qemu: &'a [String],
}

impl Setup<'_> {
    /// Memory of the emulated machine in MiB: what the board declares, and room above it for the firmware's
    /// tables, which lie at the top.
    #[must_use]
    pub fn megabytes(&self) -> u64 {
        (self.memory_end.div_ceil(1 << 20) + 1).next_multiple_of(16).max(32)
    }

    /// Copies the image into the folder of the run.
    ///
    /// # Errors
    /// The file system says no.
    pub fn copy_image(&self) -> Result<PathBuf> {
        let copy = self.folder.join("disk.img");
        std::fs::copy(self.image, &copy)
            .map_err(|cause| Error::file("copy", self.image, &cause))?;
        Ok(copy)
    }
}

/// A running emulator. Dropping it ends it.
pub struct Emulator {
    child: Child,
    serial: Serial,
    line: Option<Line>,
    log: PathBuf,
    name: String,
}

impl Emulator {
    /// Starts `command` in a process group of its own: Ctrl-C reaches us alone, and we end it in order.
    fn start(mut command: Command, name: String, serial: &Path, log: &Path) -> Result<Self> {
        let output = File::create(paths::beside(log, ".out"))
            .map_err(|cause| Error::file("write", log, &cause))?;
        let errors = output.try_clone().map_err(|cause| Error::file("write", log, &cause))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|cause| {
                Error::failed(
                    format!("cannot start {name}"),
                    cause,
                    "run `cargo demo` or `cargo verify`, which install it",
                )
            })?;
        Ok(Self { child, serial: Serial::new(serial), line: None, log: log.to_path_buf(), name })
    }

    /// Its name and version, as its log or the program tells it.
    #[must_use]
    pub fn version(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let version =
            bochs::version(&log).map(str::to_string).or_else(|| qemu::version(&self.name));
        version.map_or_else(|| self.name.clone(), |version| format!("{} {version}", self.name))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it keeps its own log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What came over the serial port since the last call.
    ///
    /// # Errors
    /// The file that stands for the port cannot be read.
    pub fn read_serial(&mut self) -> Result<Vec<u8>> {
        match &mut self.line {
            None => self.serial.read(),
            Some(line) => {
                let path = line.path().to_path_buf();
                line.read().map_err(|cause| Error::file("read", &path, &cause))
            }
        }
    }

    /// The serial line goes both ways from now on, over this pseudo-terminal, which the emulator was told of.
    fn connect(&mut self, line: Line) {
        self.line = Some(line);
    }

    /// Sends bytes down the serial line; they go nowhere where it goes one way only.
    ///
    /// # Errors
    /// The line is broken.
    pub fn write_serial(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(line) = self.line.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        let path = line.path().to_path_buf();
        line.write(bytes).map_err(|cause| Error::file("write", &path, &cause))
    }

    /// Whether it has ended by itself, and how.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|cause| {
            Error::failed(
                format!("cannot ask whether {} still runs", self.name),
                cause,
                "run it again",
            )
        })
    }

    /// Ends it now.
    pub fn kill(&mut self) {
        // Fails only when it has already ended.
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file that stands for a serial port and grows.
struct Serial {
    path: PathBuf,
    file: Option<File>,
}

impl Serial {
    fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), file: None }
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.file.is_none() {
            // The emulator creates it when its port is first set up.
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes)
                .map_err(|cause| Error::file("read", &self.path, &cause))?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_growing_file_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let mut serial = Serial::new(&path);
        assert_eq!(serial.read().unwrap(), b"");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert_eq!(serial.read().unwrap(), b"one");
        file.write_all(b"two").unwrap();
        assert_eq!(serial.read().unwrap(), b"two");
    }

    #[test]
    fn dropping_ends_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let at = folder.path();
        let mut emulator =
            Emulator::start(command, "sleep".into(), &at.join("s"), &at.join("l")).unwrap();
        let id = emulator.child.id();
        assert!(emulator.ended().unwrap().is_none());
        drop(emulator);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn firmware_tables_fit_above_the_boards_memory() {
        let setup = |memory_end| Setup {
            image: Path::new("i"),
            folder: Path::new("f"),
            cores: 2,
            cpu_model: None,
            memory_end,
            firmware: Firmware::Bios,
            two_way: false,
            serial_ticks: false,
            qemu: &[],
        };
        assert_eq!(setup(511 << 20).megabytes(), 512);
        assert_eq!(setup(512 << 20).megabytes(), 528);
        assert_eq!(setup(0).megabytes(), 32);
    }
}
