//! Bochs as the industrial PC with VT-x: its settings, and what its log says of its end.

use std::path::Path;
use std::process::Command;

use super::line::Line;
use super::{Emulator, Firmware, Setup};
use crate::error::{Error, Result};
use crate::paths;

/// Emulated instructions per emulated second: the time-stamp counter ticks once an instruction.
pub const TSC_HZ: u64 = 50_000_000;

/// The processor: of Bochs' models the newest that ordinary systems boot on, with all of VT-x but posted interrupts.
pub const MODEL: &str = "corei7_skylake_x";

/// Seconds since 1970 at which the emulated clock starts: a fixed one makes runs repeat.
const START_TIME: u64 = 946_681_200;

/// What Bochs writes into its log when a guest writes `Shutdown` to port 0x8900, or switches off by ACPI.
const ORDERLY: [&str; 2] = ["Shutdown port: shutdown requested", "ACPI control: soft power off"];

/// A model's name as Bochs writes them; whether it has such a one, Bochs itself says.
///
/// # Errors
/// What is given cannot be a name.
pub fn model(name: &str) -> std::result::Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.is_empty() && name.bytes().all(plain) {
        return Ok(name.to_string());
    }
    Err("a model is written as `bochs-bin --help cpu` shows it, such as `tigerlake`".to_string())
}

/// Starts Bochs on the image of `setup`.
///
/// # Errors
/// The firmware is UEFI, which this Bochs does not have; a file cannot be written; Bochs is missing.
pub fn start(setup: &Setup<'_>) -> Result<Emulator> {
    if setup.firmware == Firmware::Uefi {
        return Err(Error::refused(
            "cannot boot by UEFI in Bochs",
            "Bochs has a BIOS only",
            "use --target qemu --firmware uefi, or leave --firmware out",
        ));
    }
    let disk = setup.copy_image()?;
    let at = |name: &str| setup.folder.join(name);
    let (serial, log) = (at("serial.log"), at("bochs.log"));
    for path in [&disk, &serial, &log] {
        check_path(path)?;
    }
    let line = if setup.two_way { Some(Line::open()?) } else { None };
    let port = match &line {
        Some(line) => format!("mode=term, dev={}", line.path().display()),
        None => format!("mode=file, dev={}", serial.display()),
    };
    paths::write(&at("bochsrc"), settings(setup, &disk, &port, &log).as_bytes())?;
    // This Bochs has its debugger built in and starts in it: the one command lets the machine run.
    paths::write(&at("commands"), b"c\n")?;
    let mut command = Command::new("bochs-bin");
    command.arg("-q").arg("-f").arg(at("bochsrc")).arg("-rc").arg(at("commands"));
    let mut emulator = Emulator::start(command, "bochs".to_string(), &serial, &log)?;
    if let Some(line) = line {
        emulator.connect(line);
    }
    Ok(emulator)
}

/// Most MiB that Bochs keeps in memory of the host; the rest of a larger machine's lies in a file of its own.
const MOST_HOST_MEMORY: u64 = 2048;

/// Bochs splits its settings at commas and quotes nothing.
fn check_path(path: &Path) -> Result<()> {
    match path.to_str() {
        Some(text) if !text.contains([',', '"', '\n']) => Ok(()),
        _ => Err(Error::refused(
            format!("cannot run Bochs in {}", path.display()),
            "Bochs takes no commas or quotes in paths",
            "move the tree, or set CARGO_TARGET_DIR to another folder",
        )),
    }
}

/// `sound`: on a machine without a sound card this Bochs crashes while it looks for one.
/// `fastboot`: no three seconds of waiting for a key that nobody presses.
fn settings(setup: &Setup<'_>, disk: &Path, port: &str, log: &Path) -> String {
    format!(
        "config_interface: textconfig
display_library: rfb, options=\"timeout=0\"
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
memory: guest={memory}, host={host}
cpu: model={model}, count={cores}, ips={TSC_HZ}, quantum=16, reset_on_triple_fault=0
clock: sync=none, time0={START_TIME}
ata0-master: type=disk, path={disk}, mode=flat
boot: disk
sound: driver=dummy
com1: enabled=1, {port}
log: {log}
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore{debug}
",
        memory = setup.megabytes(),
        host = setup.megabytes().min(MOST_HOST_MEMORY),
        cores = setup.cores,
        model = setup.cpu_model.unwrap_or(MODEL),
        disk = disk.display(),
        log = log.display(),
        debug = if setup.serial_ticks { ", serial=report" } else { "" },
    )
}

/// The tick at which a machine with [`Setup::serial_ticks`] wrote the first byte of `words` to its serial port, by Bochs' log; the
/// first time that it wrote them.
#[must_use]
pub fn sent_at(log: &str, words: &str) -> Option<u64> {
    const WRITE: &str = "com1 register write to  address: 0x03f8 = 0x";
    let written: Vec<(u64, u8)> = log
        .lines()
        .filter_map(|line| {
            let (before, byte) = line.split_once(WRITE)?;
            let ticks = before.split(|c: char| !c.is_ascii_digit()).next()?;
            Some((ticks.parse().ok()?, u8::from_str_radix(byte.trim(), 16).ok()?))
        })
        .collect();
    let wanted = words.as_bytes();
    let mut places = written.windows(wanted.len().max(1));
    let found = places.find(|place| place.iter().map(|(_, byte)| byte).eq(wanted))?;
    found.first().map(|(ticks, _)| *ticks)
}

/// Whether Bochs' log says that the machine switched itself off; otherwise the line that says why it ended.
#[must_use]
pub fn ending(log: &str) -> Ending {
    if ORDERLY.iter().any(|words| log.contains(words)) {
        return Ending::PoweredOff;
    }
    let panic = log.lines().find(|line| line.contains(">>PANIC<<"));
    Ending::Broken(panic.map(|line| line.trim().to_string()))
}

/// The version that Bochs' log begins with.
#[must_use]
pub fn version(log: &str) -> Option<&str> {
    let (_, rest) = log.split_once("Bochs x86 Emulator ")?;
    rest.split_whitespace().next()
}

/// How Bochs ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched the machine off.
    PoweredOff,
    /// Anything else, with Bochs' own words where it left some.
    Broken(Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(firmware: Firmware) -> Setup<'static> {
        Setup {
            image: Path::new("/tmp/x.img"),
            folder: Path::new("/tmp"),
            cores: 4,
            cpu_model: None,
            memory_end: 512 << 20,
            firmware,
            two_way: false,
            serial_ticks: false,
            qemu: &[],
        }
    }

    #[test]
    fn the_log_tells_when_words_were_sent() {
        let line = |ticks: u64, byte: u8| {
            format!("{ticks:011}d[SER   ] com1 register write to  address: 0x03f8 = 0x{byte:02x}\n")
        };
        let other = "00000000009d[SER   ] com1 register write to  address: 0x03f9 = 0x62\n";
        let log = [line(5, b'a'), other.to_string(), line(12, b'a'), line(13, b'b')].concat();
        assert_eq!(sent_at(&log, "ab"), Some(12));
        assert_eq!((sent_at(&log, "ba"), sent_at("", "a")), (None, None));
    }

    #[test]
    fn the_board_is_in_the_settings() {
        let text = settings(&setup(Firmware::Bios), Path::new("/d"), "dev=/s", Path::new("/l"));
        for part in ["count=4", "guest=528", "ips=50000000", "path=/d", "dev=/s", "time0=946681200"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn uefi_is_refused_with_the_way_out() {
        let Err(error) = start(&setup(Firmware::Uefi)) else { panic!("started") };
        assert!(error.to_string().contains("--target qemu"));
    }

    #[test]
    fn a_comma_in_a_path_is_refused() {
        assert!(check_path(Path::new("/a,b")).is_err());
        check_path(Path::new("/a b")).unwrap();
    }

    #[test]
    fn the_log_tells_the_version() {
        assert_eq!(version("00000000000i[      ] Bochs x86 Emulator 2.7\n"), Some("2.7"));
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_log_tells_how_it_ended() {
        assert_eq!(ending("x >>PANIC<< Shutdown port: shutdown requested\n"), Ending::PoweredOff);
        assert_eq!(ending("p >>PANIC<< ACPI control: soft power off\n"), Ending::PoweredOff);
        let broken = ending("00e[CPU0 ] >>PANIC<< exception with no resolution\n");
        assert_eq!(
            broken,
            Ending::Broken(Some("00e[CPU0 ] >>PANIC<< exception with no resolution".into()))
        );
        assert_eq!(ending(""), Ending::Broken(None));
    }
}
