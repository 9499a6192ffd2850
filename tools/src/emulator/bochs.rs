//! Bochs as the industrial PC with VT-x: its settings, and what its log says of its end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::acpi::{self, Piece, Table};
use super::line::Line;
use super::{Emulator, Ending, Firmware, Setup, Target, uefi};
use crate::error::{Error, Result};
use crate::provision::bochs::{Edition, Installed, THREE};
use crate::{interrupt, paths};

/// As reports name it, with `-fast` behind it without its debugger.
const NAME: &str = "bochs";

/// Emulated instructions per emulated second: the time-stamp counter ticks once an instruction.
pub const TSC_HZ: u64 = 50_000_000;

/// The processor: of Bochs' models the newest that ordinary systems boot on, with all of VT-x but posted interrupts.
pub const MODEL: &str = "corei7_skylake_x";

/// Seconds since 1970 at which the emulated clock starts: a fixed one makes runs repeat.
const START_TIME: u64 = 946_681_200;

/// What Bochs writes into its log when a guest writes `Shutdown` to port 0x8900, or switches off by ACPI.
const ORDERLY: [&str; 2] = ["Shutdown port: shutdown requested", "ACPI control: soft power off"];

/// Starts Bochs on the image of `setup`.
///
/// # Errors
/// A file cannot be written, or Bochs or its firmware is missing.
pub fn start(setup: &Setup<'_>) -> Result<Emulator> {
    let installed = edition(setup)?.find()?;
    let disk = setup.copy_image()?;
    let at = |name: &str| setup.folder.join(name);
    let (serial, log) = (at("serial.log"), at("bochs.log"));
    for path in [&disk, &serial, &log, &installed.bios()] {
        check_path(path)?;
    }
    let line = if setup.two_way { Some(Line::open()?) } else { None };
    let port = match &line {
        Some(line) => format!("mode=term, dev={}", line.path().display()),
        None => format!("mode=file, dev={}", serial.display()),
    };
    let commands: String = setup.debugger.iter().map(|command| format!("{command}\n")).collect();
    let mut settings = Settings::new(setup, &installed, disk, &log);
    settings.port = Some(port);
    if setup.machine.firmware == Firmware::Uefi {
        settings.boot_by_uefi(setup, &installed)?;
    }
    let command = settings.command(&installed, setup.folder, &format!("{commands}{LET_IT_RUN}"))?;
    let name =
        if setup.machine.target.is_exact() { NAME.to_string() } else { format!("{NAME}-fast") };
    let mut emulator = Emulator::start(command, name, &serial, &log)?;
    if let Some(line) = line {
        emulator.connect(line);
    }
    Ok(emulator)
}

fn edition(setup: &Setup<'_>) -> Result<Edition> {
    setup.machine.target.edition().ok_or_else(|| {
        let what = format!("cannot start {} as a Bochs", setup.machine);
        Error::refused(what, "it is another emulator", "use --target bochs or bochs-3")
    })
}

/// Most MiB that Bochs keeps in memory of the host; the rest of a larger machine's lies in a file of its own.
const MOST_HOST_MEMORY: u64 = 2048;

/// Bochs splits its settings at commas, the loader its list of folders at colons, and neither quotes anything.
fn check_path(path: &Path) -> Result<()> {
    match path.to_str() {
        Some(text) if !text.contains([',', '"', ':', ';', '\n']) => Ok(()),
        _ => Err(Error::refused(
            format!("cannot run Bochs in {}", path.display()),
            "Bochs takes no commas, quotes, colons or semicolons in paths",
            "move the tree, or set CARGO_TARGET_DIR to another folder",
        )),
    }
}

/// With its debugger Bochs waits for a command: the machine runs.
const LET_IT_RUN: &str = "c\n";

/// Lets an unknown MSR raise #GP, as a processor does; otherwise Bochs reads 0 there. The figures of Bochs 2.7 are without it.
const STRICT: &str = ", ignore_bad_msrs=0";

/// A model in Bochs' settings: `ryzen,+x2apic,-avx2` is a ryzen with x2APIC and without AVX2.
fn processor(model: &str) -> String {
    let mut words = model.split(',');
    let name = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let list = |key: &str, sign: char| {
        let named: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix(sign)).collect();
        if named.is_empty() { String::new() } else { format!(", {key}=\"{}\"", named.join(" ")) }
    };
    format!("model={name}{}{}", list("add_features", '+'), list("exclude_features", '-'))
}

/// A machine, as Bochs' settings describe it.
struct Settings {
    /// Which Bochs, and whether its debugger runs: without it ticks are not exact.
    target: Target,
    firmware: String,
    video_bios: PathBuf,
    megabytes: u64,
    cores: usize,
    model: String,
    /// See [`STRICT`].
    strict: bool,
    /// The one that boots comes first.
    disks: Vec<PathBuf>,
    /// Where the serial port goes.
    port: Option<String>,
    /// Notes each byte that goes to the serial port.
    serial_ticks: bool,
    log: PathBuf,
}

impl Settings {
    /// The machine of `setup` as its BIOS boots it.
    fn new(setup: &Setup<'_>, installed: &Installed, disk: PathBuf, log: &Path) -> Self {
        Self {
            target: setup.machine.target,
            // `fastboot`: no three seconds of waiting for a key that nobody presses.
            firmware: format!("file={}, options=fastboot", installed.bios().display()),
            video_bios: installed.video_bios(),
            megabytes: setup.megabytes,
            cores: setup.cores,
            model: setup.machine.processor().to_string(),
            strict: setup.machine.target.edition() == Some(THREE),
            disks: vec![disk],
            port: None,
            serial_ticks: setup.serial_ticks,
            log: log.to_path_buf(),
        }
    }

    /// Lets OVMF boot it. OVMF finds no ACPI tables in Bochs, so those of Bochs' own BIOS are handed over by a medium that boots first.
    fn boot_by_uefi(&mut self, setup: &Setup<'_>, installed: &Installed) -> Result<()> {
        let folder = setup.folder.join("uefi");
        paths::create(&folder)?;
        let rom = uefi::rom(&folder)?;
        let tables = tables(setup, installed, &folder)?;
        self.firmware = format!("file={}, address={:#x}", rom.file.display(), rom.address);
        self.disks.insert(0, uefi::medium(&folder, &tables)?);
        // OVMF reads IA32_PLATFORM_ID, which no model of Bochs has.
        self.strict = false;
        Ok(())
    }

    /// The settings as Bochs reads them.
    ///
    /// `sound`: on a machine without a sound card this Bochs crashes while it looks for one.
    fn text(&self) -> String {
        let mut disks = String::new();
        for (place, disk) in ["ata0-master", "ata0-slave"].iter().zip(&self.disks) {
            disks += &format!("{place}: type=disk, path={}, mode=flat\n", disk.display());
        }
        let port =
            self.port.as_ref().map_or(String::new(), |port| format!("com1: enabled=1, {port}\n"));
        format!(
            "config_interface: textconfig
display_library: rfb, options=\"timeout=0\"
romimage: {firmware}
vgaromimage: file={video}
memory: guest={memory}, host={host}
cpu: {processor}, count={cores}, ips={TSC_HZ}, quantum=16, reset_on_triple_fault=0{strict}
clock: sync=none, time0={START_TIME}
{disks}boot: disk
sound: driver=dummy
{port}log: {log}
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore{debug}
",
            firmware = self.firmware,
            video = self.video_bios.display(),
            memory = self.megabytes,
            host = self.megabytes.min(MOST_HOST_MEMORY),
            cores = self.cores,
            processor = processor(&self.model),
            strict = if self.strict { STRICT } else { "" },
            log = self.log.display(),
            debug = if self.serial_ticks { ", serial=report" } else { "" },
        )
    }

    /// The command that starts it in `folder`, where its files are written. `script` is for the debugger: Bochs 2.7 always starts in
    /// it, and 3.0 where it is told to.
    fn command(&self, installed: &Installed, folder: &Path, script: &str) -> Result<Command> {
        let (file, commands) = (folder.join("bochsrc"), folder.join("commands"));
        paths::write(&file, self.text().as_bytes())?;
        paths::write(&commands, script.as_bytes())?;
        let mut command = installed.command();
        command.arg("-q").arg("-f").arg(file);
        if self.target == Target::Bochs3 {
            command.arg("-debugger");
        }
        if self.target.is_exact() {
            command.arg("-rc").arg(commands);
        }
        Ok(command)
    }
}

/// Where a BIOS leaves the pointer to its ACPI tables, and how much of the top of memory they lie in at most.
const BIOS_AREA: (u64, u64) = (0xe_0000, 0x2_0000);
const TABLES_WITHIN: u64 = 0x10_0000;

/// Where a BIOS loads a boot sector, and how long the disk is that holds one: a cylinder.
const BOOT_SECTOR: u64 = 0x7c00;
const CYLINDER: usize = 512 * 16 * 63;

/// Memory of the machine that is only asked for its tables, in MiB.
const SMALL: u64 = 32;

/// The ACPI tables that Bochs' BIOS makes for so many processors of that model: the machine boots by BIOS up to a boot sector that does
/// nothing, and the debugger writes its memory into files. Takes some five million ticks.
fn tables(setup: &Setup<'_>, installed: &Installed, folder: &Path) -> Result<Vec<Table>> {
    let what = "cannot take the ACPI tables out of Bochs' BIOS";
    let log = folder.join("tables.log");
    let disk = folder.join("sector.img");
    paths::write(&disk, &boot_sector())?;
    let mut settings = Settings::new(setup, installed, disk, &log);
    // The debugger writes the memory, whatever the run itself is.
    settings.target = Target::Bochs3;
    settings.megabytes = SMALL;
    let top = (SMALL << 20) - TABLES_WITHIN;
    let areas = [("low.bin", BIOS_AREA), ("top.bin", (top, TABLES_WITHIN))];
    let mut script = format!("pb {BOOT_SECTOR:#x}\nc\n");
    for (name, (start, length)) in areas {
        script += &format!("writemem \"{name}\" {start:#x} {length:#x}\n");
    }
    script += "quit\n";
    let mut command = settings.command(installed, folder, &script)?;
    // It ends with an error code, whatever was asked of it: the files tell.
    let ended = command.current_dir(folder).stdin(Stdio::null()).output();
    ended.map_err(|cause| Error::failed(what, cause, "run `cargo verify`, which installs it"))?;
    interrupt::check(what)?;
    let read = |(name, (start, _)): (&str, (u64, u64))| {
        paths::read(&folder.join(name)).map(|bytes| Piece { start, bytes })
    };
    let memory = areas.map(read).into_iter().collect::<Result<Vec<Piece>>>();
    let remedy = format!("look at {}", log.display());
    let memory = memory.map_err(|error| Error::failed(what, error, &remedy))?;
    acpi::tables(&memory).map_err(|cause| Error::failed(what, cause, &remedy))
}

/// A disk of one cylinder whose boot sector halts.
fn boot_sector() -> Vec<u8> {
    let mut disk = vec![0; CYLINDER];
    // hlt; jmp to it
    disk[..3].copy_from_slice(&[0xf4, 0xeb, 0xfd]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(target: Target) -> Settings {
        Settings {
            target,
            firmware: "file=/b".into(),
            video_bios: "/v".into(),
            megabytes: 528,
            cores: 4,
            model: MODEL.into(),
            strict: target.edition() == Some(THREE),
            disks: vec!["/d".into()],
            port: Some("mode=file, dev=/s".into()),
            serial_ticks: false,
            log: "/l".into(),
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
        let text = settings(Target::Bochs).text();
        for part in ["count=4", "guest=528", "ips=50000000", "path=/d", "dev=/s", "time0=946681200"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains("ata0-slave"), "{text}");
    }

    #[test]
    fn features_of_a_model_are_added_and_taken_away() {
        assert_eq!(processor("tigerlake"), "model=tigerlake");
        assert_eq!(processor("ryzen,+x2apic"), "model=ryzen, add_features=\"x2apic\"");
        assert_eq!(
            processor("ryzen,+x2apic,-avx2,+tsc_deadline"),
            "model=ryzen, add_features=\"x2apic tsc_deadline\", exclude_features=\"avx2\""
        );
    }

    #[test]
    fn unknown_registers_fault_in_the_newer_one() {
        let strict = |target| settings(target).text().contains("ignore_bad_msrs=0\n");
        let targets = [Target::Bochs, Target::Bochs3, Target::Bochs3Fast];
        assert_eq!(targets.map(strict), [false, true, true]);
    }

    #[test]
    fn what_boots_first_is_the_first_disk() {
        let mut settings = settings(Target::Bochs3);
        settings.disks.insert(0, "/medium".into());
        settings.port = None;
        let text = settings.text();
        assert!(text.contains("ata0-master: type=disk, path=/medium, mode=flat\nata0-slave: type=disk, path=/d, mode=flat\n"), "{text}");
        assert!(!text.contains("com1"), "{text}");
    }

    #[test]
    fn only_an_exact_machine_has_the_debugger() {
        let folder = tempfile::tempdir().unwrap();
        let installed = Installed::at(Path::new("/"));
        let line = |target| {
            let command = settings(target).command(&installed, folder.path(), "c\n").unwrap();
            let words: Vec<String> =
                command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            ["-debugger", "-rc"].map(|option| words.iter().any(|word| word == option))
        };
        assert_eq!(line(Target::Bochs), [false, true]);
        assert_eq!(line(Target::Bochs3), [true, true]);
        assert_eq!(line(Target::Bochs3Fast), [false, false]);
    }

    #[test]
    fn the_boot_sector_is_one() {
        let disk = boot_sector();
        assert_eq!((disk.len(), &disk[510..512]), (516_096, &[0x55, 0xaa][..]));
    }

    #[test]
    fn a_path_that_cannot_be_told_is_refused() {
        for bad in ["/a,b", "/a:b", "/a;b", "/a\"b"] {
            assert!(check_path(Path::new(bad)).is_err(), "{bad}");
        }
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
