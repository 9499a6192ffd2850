//! Starts an emulator, follows its serial port, ends it.

pub mod acpi;
pub mod bochs;
pub mod line;
pub mod machine;
pub mod qemu;
pub mod uefi;

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::error::{Error, Result};
use crate::paths;
use line::Line;

pub use machine::{Firmware, Machine, Target};

/// What an emulator needs to know.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// The image to boot. The emulator gets a copy, so that runs do not disturb each other.
    pub image: &'a Path,
    /// Folder of this run: serial log, the emulator's own log, settings.
    pub folder: &'a Path,
    /// Emulator, firmware and processor.
    pub machine: &'a Machine,
    /// Logical processors.
    pub cores: usize,
    /// Memory in MiB.
    pub megabytes: u64,
    /// Whether the serial line goes both ways (Bochs only).
    pub two_way: bool,
    /// Whether Bochs notes in its log at which tick each byte goes to the serial port.
    pub serial_ticks: bool,
    /// Commands that Bochs' debugger carries out before the machine runs on its own.
    pub debugger: &'a [String],
    /// Further arguments of QEMU; of an option that is given twice, the later one counts.
    pub qemu: &'a [String],
}

impl Setup<'_> {
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

/// What the name of the file ends with, beside the emulator's own log, that holds what it prints.
const OUTPUT: &str = ".out";

/// Room above the board's memory, in MiB. A BIOS keeps its tables there. OVMF keeps some 21 MiB, and GRUB works below that.
const ABOVE_BIOS: u64 = 1;
const ABOVE_UEFI: u64 = 48;

/// Memory in MiB of a machine whose board declares memory up to `end`, the first byte behind it: so much, and room for the firmware
/// above it.
#[must_use]
pub fn megabytes(end: u64, firmware: Firmware) -> u64 {
    let above = match firmware {
        Firmware::Bios => ABOVE_BIOS,
        Firmware::Uefi => ABOVE_UEFI,
    };
    (end.div_ceil(1 << 20) + above).next_multiple_of(16).max(32)
}

/// Starts the emulator of `setup`, which is told of a monitor where it has one.
///
/// # Errors
/// The machine is none that can be emulated, a file cannot be written, or the emulator is missing.
pub fn start(setup: &Setup<'_>) -> Result<(Emulator, Option<qemu::Monitor>)> {
    setup.machine.check()?;
    if setup.machine.target.is_bochs() {
        return Ok((bochs::start(setup)?, None));
    }
    let (emulator, monitor) = qemu::start(setup)?;
    Ok((emulator, Some(monitor)))
}

/// How an emulator ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The machine switched itself off.
    PoweredOff,
    /// Anything else, with the emulator's own words where it left some.
    Broken(Option<String>),
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
        let output = File::create(paths::beside(log, OUTPUT))
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

    /// How it ended that left this status.
    #[must_use]
    pub fn ending(&self, status: ExitStatus) -> Ending {
        let read = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let log = read(&self.log);
        let ending = if self.name.starts_with(qemu::NAME) {
            qemu::ending(status.success(), &log)
        } else {
            bochs::ending(&log)
        };
        match ending {
            Ending::Broken(None) => {
                let said = read(&paths::beside(&self.log, OUTPUT));
                Ending::Broken(said.lines().next_back().map(str::to_string))
            }
            known => known,
        }
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
    fn firmware_fits_above_the_boards_memory() {
        let bios = |end| megabytes(end, Firmware::Bios);
        assert_eq!([bios(511 << 20), bios(512 << 20), bios(0)], [512, 528, 32]);
        assert_eq!(megabytes(511 << 20, Firmware::Uefi), 560);
    }
}
