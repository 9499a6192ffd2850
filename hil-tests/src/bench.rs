//! The test bench: builds images, runs them, at most two emulators at a time.
//!
//! Whatever fails here is a failed test, so these functions panic with the words of the error.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead::manifest::Manifest;
use bulkhead::{
    BuildOptions, BuiltImage, Machine, Run, RunOptions, build_image, build_native, paths,
};

/// Emulators that run at a time: each keeps one core of the host busy, and two is what the smallest host has.
const EMULATORS: usize = 2;

/// Wall-clock limit of one run: ten times what the longest takes on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Names a rig file: ordinary runs take place on its board, and not in Bochs.
const RIG: &str = "BULKHEAD_RIG";

/// Root of the tree under test.
///
/// # Panics
/// The tree is not there any more.
#[must_use]
pub fn root() -> PathBuf {
    sure("find the tree", paths::root())
}

/// The folder of one system or test, below cargo's target directory. It stays after the test, to be looked at.
///
/// # Panics
/// The folder cannot be made.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    let folder = sure("find the target directory", paths::target()).join("hil").join(name);
    sure("make a folder", paths::create(&folder));
    folder
}

/// Builds the image of a system into the folder `name`.
///
/// # Panics
/// It does not build.
#[must_use]
pub fn build(system: &Path, name: &str) -> BuiltImage {
    let began = Instant::now();
    let built = sure(name, build_image(&options(system, name)));
    println!("{name}: built in {:.1} s", began.elapsed().as_secs_f64());
    built
}

/// As [`build`], on another board than the system's own.
///
/// # Panics
/// It does not build.
#[must_use]
pub fn build_on(system: &Path, name: &str, board: &Path) -> BuiltImage {
    let options = BuildOptions { board: Some(board.to_path_buf()), ..options(system, name) };
    sure(name, build_image(&options))
}

/// Builds an image of one partition's guest alone, without the hypervisor.
///
/// # Panics
/// It does not build.
#[must_use]
pub fn build_alone(system: &Path, name: &str, partition: &str) -> BuiltImage {
    sure(name, build_native(&options(system, name), partition))
}

fn options(system: &Path, name: &str) -> BuildOptions {
    BuildOptions {
        system: system.to_path_buf(),
        work: Some(folder(name)),
        quiet: true,
        ..BuildOptions::default()
    }
}

/// Runs an image in Bochs, with the board's cores; on a rig's board where `BULKHEAD_RIG` names one.
///
/// # Panics
/// The emulator crashes, hangs, or is missing.
#[must_use]
pub fn run(image: &Path) -> Run {
    run_with(RunOptions { image: image.to_path_buf(), ..RunOptions::default() })
}

/// Runs an image on that machine, with the board's cores.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_on(machine: Machine, image: &Path) -> Run {
    run_with(RunOptions { image: image.to_path_buf(), machine, ..RunOptions::default() })
}

/// Runs an image as `options` say, quietly, and within [`LIMIT`] where they set no other.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_with(options: RunOptions) -> Run {
    let _permit = Permit::take();
    let began = Instant::now();
    let name = options.image.display().to_string();
    let timeout = options.timeout.or(Some(LIMIT));
    let rig = rig_for(&options);
    let outcome = bulkhead::run_image(&RunOptions { quiet: true, timeout, rig, ..options });
    println!("{name}: ran {:.1} s", began.elapsed().as_secs_f64());
    sure(&name, outcome)
}

/// The rig file that the environment names, for a run that is of no emulator in particular.
fn rig_for(options: &RunOptions) -> Option<PathBuf> {
    let any_machine = options.machine == Machine::default() && options.cores.is_none();
    let named = std::env::var_os(RIG).filter(|path| any_machine && !path.is_empty());
    // Tests run in their own folder; the path counts from the tree's root, where cargo is called.
    options.rig.clone().or_else(|| named.map(|path| root().join(path)))
}

/// Copies an image and what lies beside it, so that a test can change the copy.
///
/// # Panics
/// The file system says no.
#[must_use]
pub fn copy(built: &BuiltImage, name: &str) -> PathBuf {
    let image = folder(name).join(format!("{name}.img"));
    let elf = sure("read the hypervisor", paths::read(&built.elf));
    let bytes = sure("read the image", paths::read(&built.image));
    sure("write the copy", paths::write(&image, &bytes));
    sure("write the copy", paths::write(&Manifest::elf_path(&image), &elf));
    sure("write the copy", built.manifest.save(&image));
    image
}

/// Set to write what tests compare with, instead of comparing.
pub const BLESS: &str = "BULKHEAD_BLESS";

/// Whether [`BLESS`] is set.
#[must_use]
pub fn writes_again() -> bool {
    std::env::var_os(BLESS).is_some()
}

/// Whether what takes minutes is to run too: `cargo verify --long`.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("BULKHEAD_LONG").is_some()
}

/// The value, or a panic with the error's words.
///
/// # Panics
/// On an error.
pub fn sure<T, E: std::fmt::Display>(what: &str, outcome: Result<T, E>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Waits for the right to run an emulator.
#[must_use]
pub fn permit() -> Permit {
    Permit::take()
}

/// The right to run an emulator; given back when dropped.
pub struct Permit;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Permit {
    fn take() -> Self {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= EMULATORS {
            running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
