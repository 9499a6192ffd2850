//! QEMU as a PC with AMD-V and without VT-x, by BIOS and by UEFI.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Emulator, Ending, Firmware, Setup, uefi};
use crate::error::{Error, Result};
use crate::paths;

/// As reports name it, with `-fast` behind it by the clock of the host.
pub(super) const NAME: &str = "qemu";

/// The program, on the search path.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The processor: of those with AMD-V one that QEMU emulates whole, with the x2APIC that the hypervisor wants.
pub const MODEL: &str = "EPYC,+x2apic";

/// The machine: a chipset with PCI Express.
const MACHINE: &str = "q35";

/// Makes the time-stamp counter count instructions: an instruction is a nanosecond, and halted processors do not wait for the host.
const EXACT: [&str; 2] = ["-icount", "shift=0,sleep=off"];

/// The least major version: with its `-icount` the time-stamp counter counts instructions exactly.
pub const LEAST_VERSION: u32 = 10;

/// Notes resets and triple faults in QEMU's log: with `-no-reboot` they end QEMU as orderly as power off does.
const NOTED: [&str; 2] = ["-d", "cpu_reset"];

/// QEMU's word for a triple fault in that log.
const TRIPLE_FAULT: &str = "Triple fault";

/// How long QEMU may take to write a picture of its screen.
const PICTURE_TIME: Duration = Duration::from_secs(10);

/// QEMU's monitor. Its socket lies in a folder with a short name: the path of a socket is limited.
pub struct Monitor {
    folder: tempfile::TempDir,
}

impl Monitor {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bulkhead-").tempdir().map_err(|cause| {
            Error::failed("cannot create a temporary folder", cause, "check TMPDIR and its rights")
        })?;
        Ok(Self { folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("monitor")
    }

    /// Writes what the machine's screen shows to `path`, as PNG.
    ///
    /// # Errors
    /// QEMU does not answer, or cannot write there.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let failed = |cause: String| {
            let remedy = "check the folder of the picture, and run it again";
            Error::failed(format!("cannot take a picture to {}", path.display()), cause, remedy)
        };
        // QEMU's monitor splits at spaces: it writes beside its socket, and we move the picture.
        let taken = self.folder.path().join("screen.png");
        let answer = self.ask(&format!("screendump {} -f png\n", taken.display()), &taken);
        answer.map_err(|cause| failed(cause.to_string()))?;
        if !taken.is_file() {
            return Err(failed("QEMU wrote none in time".to_string()));
        }
        fs::copy(&taken, path).map_err(|cause| failed(cause.to_string()))?;
        Ok(())
    }

    /// Sends a command and waits until `result` is a whole file, or the time is over.
    fn ask(&self, command: &str, result: &Path) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.write_all(command.as_bytes())?;
        let began = Instant::now();
        let mut told = [0; 4096];
        while began.elapsed() < PICTURE_TIME {
            // The monitor's prompt and echo are of no use; a read that times out is the pause.
            let _prompt = stream.read(&mut told);
            if fs::read(result).is_ok_and(|bytes| is_whole_png(&bytes)) {
                break;
            }
        }
        Ok(())
    }
}

/// A PNG file ends with its IEND chunk.
fn is_whole_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG") && bytes.ends_with(b"IEND\xAE\x42\x60\x82")
}

/// The version that QEMU tells of itself; `None` for another emulator.
#[must_use]
pub fn version(name: &str) -> Option<String> {
    if !name.starts_with(NAME) {
        return None;
    }
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("version ")?;
    rest.split_whitespace().next().map(str::to_string)
}

/// Starts QEMU on the image of `setup`.
///
/// # Errors
/// A file cannot be written; QEMU or its UEFI firmware is missing.
pub fn start(setup: &Setup<'_>) -> Result<(Emulator, Monitor)> {
    let disk = setup.copy_image()?;
    let (serial, log) = (setup.folder.join("serial.log"), setup.folder.join("qemu.log"));
    let monitor = Monitor::new()?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["-accel", "tcg", "-display", "none", "-vga", "std", "-nic", "none", "-no-reboot"])
        .args(["-no-user-config", "-nodefaults"])
        .args(NOTED)
        .args(board(setup))
        .args(setup.qemu)
        .arg("-drive")
        .arg(drive("format=raw,if=ide", &disk))
        .arg("-serial")
        .arg(joined("file:", &serial))
        .arg("-monitor")
        .arg(format!("unix:{},server=on,wait=off", monitor.socket().display()))
        .arg("-D")
        .arg(&log);
    if setup.machine.firmware == Firmware::Uefi {
        let variables = setup.folder.join("uefi-variables.fd");
        paths::write(&variables, &paths::read(Path::new(uefi::VARIABLES))?)?;
        command
            .arg("-drive")
            .arg(drive("if=pflash,format=raw,unit=0,readonly=on", Path::new(uefi::CODE)))
            .arg("-drive")
            .arg(drive("if=pflash,format=raw,unit=1", &variables));
    }
    let name =
        if setup.machine.target.is_exact() { NAME.to_string() } else { format!("{NAME}-fast") };
    Ok((Emulator::start(command, name, &serial, &log)?, monitor))
}

/// How a QEMU ended that wrote this log: whether the machine switched itself off, by ACPI.
#[must_use]
pub fn ending(orderly: bool, log: &str) -> Ending {
    let fault = log.contains(TRIPLE_FAULT).then(|| "the machine had a triple fault".to_string());
    match fault {
        None if orderly => Ending::PoweredOff,
        words => Ending::Broken(words),
    }
}

/// What makes the machine that `setup` names.
fn board(setup: &Setup<'_>) -> Vec<String> {
    let mut words: Vec<String> = ["-machine", MACHINE, "-cpu"].map(str::to_string).into();
    words.push(setup.machine.processor().to_string());
    words.extend(["-m".to_string(), format!("{}M", setup.megabytes)]);
    words.extend(["-smp".to_string(), setup.cores.to_string()]);
    if setup.machine.target.is_exact() {
        words.extend(EXACT.map(str::to_string));
    }
    words
}

/// A `-drive` argument. QEMU doubles commas in a path.
fn drive(options: &str, file: &Path) -> String {
    format!("{options},file={}", file.display().to_string().replace(',', ",,"))
}

fn joined(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(prefix);
    word.push(path);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_on_the_command_line() {
        use crate::emulator::{Machine, Target};
        let line = |target, model: Option<&str>| {
            let machine = Machine::chosen(Some(target), Firmware::Bios, model.map(str::to_string));
            let setup = Setup {
                image: Path::new("i"),
                folder: Path::new("f"),
                machine: &machine,
                cores: 2,
                megabytes: 528,
                two_way: false,
                serial_ticks: false,
                debugger: &[],
                qemu: &[],
            };
            board(&setup).join(" ")
        };
        assert_eq!(
            line(Target::Qemu, None),
            "-machine q35 -cpu EPYC,+x2apic -m 528M -smp 2 -icount shift=0,sleep=off"
        );
        assert_eq!(
            line(Target::QemuFast, Some("Haswell")),
            "-machine q35 -cpu Haswell -m 528M -smp 2"
        );
    }

    #[test]
    fn a_triple_fault_is_no_power_off() {
        let reset = "CPU Reset (CPU 0)\nEAX=00000000\n";
        assert_eq!(ending(true, reset), Ending::PoweredOff);
        assert_eq!(ending(false, reset), Ending::Broken(None));
        let fault = ending(true, "Triple fault\nCPU Reset (CPU 0)\n");
        assert_eq!(fault, Ending::Broken(Some("the machine had a triple fault".into())));
    }

    #[test]
    fn commas_are_doubled() {
        assert_eq!(drive("if=ide", Path::new("/a,b")), "if=ide,file=/a,,b");
    }

    #[test]
    fn half_a_picture_is_not_taken() {
        assert!(!is_whole_png(b"\x89PNG..."));
        assert!(is_whole_png(b"\x89PNG...IEND\xAE\x42\x60\x82"));
    }
}
