//! The probe image: builds it, boots it in an emulator, takes the board file out of what it says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_board::log;
use bulkhead_config::{ImageKind, ImageRequest};

use crate::emulator::{self, Emulator, Firmware, Setup, Target};
use crate::error::{Error, Result};
use crate::image::build_lock;
use crate::progress::Step;
use crate::{grub, guests, interrupt, paths};

/// How often the serial port is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// An emulated machine to be probed.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its emulator, firmware and processor.
    pub emulated: emulator::Machine,
    /// Logical processors.
    pub cores: usize,
    /// Memory in MiB.
    pub megabytes: u64,
    /// Further arguments of QEMU.
    pub qemu: Vec<String>,
    /// Seconds of real time that it may take.
    pub timeout: Duration,
}

impl Machine {
    /// The machine of the board file that ships for that emulator.
    #[must_use]
    pub fn of(target: Target) -> Self {
        let machine = if target.is_bochs() { Self::bochs() } else { Self::qemu() };
        Self { emulated: emulator::Machine { target, ..machine.emulated }, ..machine }
    }

    /// The machine of `partitions/boards/bochs-skylake-x.toml`.
    #[must_use]
    pub fn bochs() -> Self {
        Self {
            emulated: emulator::Machine::default(),
            cores: 4,
            megabytes: 512,
            qemu: Vec::new(),
            timeout: Duration::from_secs(300),
        }
    }

    /// The machine of `partitions/boards/qemu-epyc.toml`: QEMU's own here.
    #[must_use]
    pub fn epyc() -> Self {
        Self {
            emulated: emulator::Machine::chosen(Some(Target::Qemu), Firmware::Bios, None),
            megabytes: 512,
            ..Self::bochs()
        }
    }

    /// The machine of `partitions/boards/qemu-q35.toml`: two cores of two threads, an IOMMU, a network card with MSI, an
    /// NVMe disk. One tick is a nanosecond, so that its clock can be measured.
    #[must_use]
    pub fn qemu() -> Self {
        // Without the x2APIC, which QEMU emulates since 9: the recorded facts of a Linux there are of a machine that lacks it.
        let model = Some("Skylake-Client,-x2apic".to_string());
        Self {
            emulated: emulator::Machine::chosen(Some(Target::Qemu), Firmware::Bios, model),
            cores: 4,
            megabytes: 1024,
            qemu: Q35.iter().map(ToString::to_string).collect(),
            timeout: Duration::from_secs(300),
        }
    }
}

/// The NVMe disk's backing store is a null device, so that no file is needed.
const Q35: [&str; 12] = [
    "-machine",
    "q35,hpet=on",
    "-smp",
    "4,sockets=1,cores=2,threads=2",
    "-device",
    "intel-iommu",
    "-device",
    "e1000e",
    "-blockdev",
    "null-co,node-name=nothing,size=1048576",
    "-device",
    "nvme,serial=bulkhead,drive=nothing",
];

/// What a probed machine said.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The whole serial log.
    pub log: String,
    /// The board file in it, called [`super::NAME`].
    pub board: String,
}

/// Builds the probe image for a disk or a stick, for BIOS and UEFI.
///
/// # Errors
/// The probe does not build, or GRUB's tools fail.
pub fn build(output: &Path, quiet: bool) -> Result<()> {
    // All of it: every build of the probe works in one folder.
    let _lock = build_lock()?;
    let work = paths::work("probe")?;
    paths::create(&work)?;
    let images = work.join("images");
    let request = ImageRequest {
        partition: "probe".to_string(),
        path: paths::root()?.join("partitions/guests/probe"),
        kind: ImageKind::Cargo,
    };
    guests::build_all(&[request], &images, quiet)?;
    let step = Step::begin("disk image (GRUB, BIOS and UEFI)", quiet);
    let staging = work.join("disk");
    paths::remove_stale(&staging)?;
    let boot = staging.join("boot");
    paths::create(&boot)?;
    let copy = grub::boot_copy(&paths::read(&images.join("probe.elf"))?, "the probe")?;
    paths::write(&boot.join(grub::BY_BIOS), &grub::without_framebuffer(&copy))?;
    paths::write(&boot.join(grub::BY_UEFI), &copy)?;
    grub::make(&staging, &grub::hypervisor_menu(&[]), output)?;
    step.done();
    Ok(())
}

/// Boots a probe image in an emulator until it has said its board. `screenshot` is written at the end (QEMU only).
///
/// # Errors
/// The emulator is missing, the time is over, or the board file is damaged.
pub fn run(
    image: &Path,
    machine: &Machine,
    folder: &Path,
    screenshot: Option<&Path>,
) -> Result<Probed> {
    let over = |text: &str| {
        text.split_once(log::END).is_some_and(|(_, rest)| rest.contains("@bulkhead verdict"))
    };
    let log = capture(image, machine, folder, screenshot, &over)?;
    let board = super::from_log(&log, "what the emulator said", super::NAME)?;
    Ok(Probed { log, board })
}

/// Boots an image in an emulator and returns what comes over the serial port until `over` is true of it.
///
/// # Errors
/// The emulator is missing, ends before that, or the time is over.
pub fn capture(
    image: &Path,
    machine: &Machine,
    folder: &Path,
    screenshot: Option<&Path>,
    over: &dyn Fn(&str) -> bool,
) -> Result<String> {
    interrupt::install();
    paths::remove_stale(folder)?;
    paths::create(folder)?;
    let setup = Setup {
        image,
        folder,
        machine: &machine.emulated,
        cores: machine.cores,
        megabytes: machine.megabytes,
        two_way: false,
        serial_ticks: false,
        debugger: &[],
        qemu: &machine.qemu,
    };
    let (mut emulator, monitor) = emulator::start(&setup)?;
    let log = follow(&mut emulator, machine.timeout, over)?;
    if let (Some(monitor), Some(path)) = (monitor, screenshot) {
        monitor.screenshot(path)?;
    }
    Ok(log)
}

/// What comes over the serial port until it is over.
fn follow(emulator: &mut Emulator, limit: Duration, over: &dyn Fn(&str) -> bool) -> Result<String> {
    let began = Instant::now();
    let mut serial = Vec::new();
    loop {
        let ended = emulator.ended()?.is_some();
        serial.extend(emulator.read_serial()?);
        let text = String::from_utf8_lossy(&serial);
        if over(&text) {
            return Ok(text.into_owned());
        }
        interrupt::check("the emulator was ended")?;
        if ended || began.elapsed() > limit {
            let last: Vec<&str> = text.lines().rev().take(5).collect();
            let words: Vec<&str> = last.into_iter().rev().collect();
            return Err(Error::failed(
                format!("what was booted did not finish in {}", emulator.name()),
                format!("it said last:\n{}", words.join("\n")),
                format!("look at {}", emulator.log().display()),
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// The folder in which `bulkhead probe --run` works.
///
/// # Errors
/// The tree is not there any more.
pub fn run_folder() -> Result<PathBuf> {
    Ok(paths::work("probe")?.join("run"))
}
