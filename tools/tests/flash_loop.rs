//! Flashes loop devices: the real kernel's view of a device, without one to lose.
//!
//! The harness is `libtest-mimic`: it reports these tests as ignored where the machine has no loop devices.
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bulkhead::flash::{FlashOptions, flash};
use libtest_mimic::{Arguments, Trial};

type Test = (&'static str, fn());

const TESTS: [Test; 3] = [
    (
        "an_image_lands_whole_and_nothing_behind_it_changes",
        an_image_lands_whole_and_nothing_behind_it_changes,
    ),
    ("an_image_smaller_than_the_head_lands_too", an_image_smaller_than_the_head_lands_too),
    ("a_device_that_is_too_small_stays_as_it_was", a_device_that_is_too_small_stays_as_it_was),
];

/// Needs a file system to mount, too.
const MOUNTING: Test =
    ("a_device_in_use_by_another_stays_as_it_was", a_device_in_use_by_another_stays_as_it_was);

fn main() -> ExitCode {
    let lack = missing_loop_devices();
    let mut trials: Vec<Trial> =
        TESTS.iter().map(|test| trial(test, lack.as_deref(), "loop device")).collect();
    let lack = lack.or_else(missing_mounts);
    trials.push(trial(&MOUNTING, lack.as_deref(), "mounted loop device"));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The harness shows the kind in brackets: the reason where the test is ignored, else the need.
fn trial((name, test): &Test, lack: Option<&str>, need: &str) -> Trial {
    let (name, test) = (*name, *test);
    let run = move || {
        test();
        Ok(())
    };
    Trial::test(name, run).with_kind(lack.unwrap_or(need)).with_ignored_flag(lack.is_some())
}

/// Why this user or this kernel has no loop devices; `None` where one can be attached.
fn missing_loop_devices() -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let backing = folder.path().join("backing");
    fs::write(&backing, vec![0; 1 << 20]).unwrap();
    match Loop::over(folder, backing) {
        Ok(_) => None,
        Err(why) => Some(format!("no loop device, run it as root: {why}")),
    }
}

/// Why no file system can be mounted here; `None` where one can.
fn missing_mounts() -> Option<String> {
    let device = Loop::attach(2 << 20);
    match device.mount() {
        Some(mounted) => {
            unmount(&mounted);
            None
        }
        None => Some("needs mkfs.ext4 and the right to mount".to_string()),
    }
}

/// A loop device over a temporary file; detached when dropped.
struct Loop {
    device: PathBuf,
    backing: PathBuf,
    folder: tempfile::TempDir,
}

impl Loop {
    fn attach(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backing = folder.path().join("backing");
        fs::write(&backing, vec![0xA5; size]).unwrap();
        Self::over(folder, backing).unwrap()
    }

    /// Attaches `backing`, a file in `folder`.
    fn over(folder: tempfile::TempDir, backing: PathBuf) -> Result<Self, String> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        match output {
            Ok(output) if output.status.success() => {
                let device = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
                Ok(Self { device, backing, folder })
            }
            other => Err(format!("losetup: {}", words(&other))),
        }
    }

    /// Makes a file system on the device and mounts it. `None` where this user cannot.
    fn mount(&self) -> Option<PathBuf> {
        let mounted = self.folder.path().join("mount");
        fs::create_dir(&mounted).unwrap();
        let made = Command::new("mkfs.ext4").arg("-q").arg(&self.device).status();
        let made = made.is_ok_and(|status| status.success());
        let there = made
            && Command::new("mount")
                .arg(&self.device)
                .arg(&mounted)
                .status()
                .is_ok_and(|status| status.success());
        there.then_some(mounted)
    }

    fn image(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("image");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn flash(&self, image: &Path) -> Result<(), String> {
        let options = FlashOptions {
            image: image.to_path_buf(),
            device: self.device.clone(),
            yes: true,
            quiet: true,
        };
        flash(&options).map_err(|error| error.to_string())
    }
}

/// What losetup said, in one line.
fn words(outcome: &std::io::Result<std::process::Output>) -> String {
    match outcome {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        Err(cause) => cause.to_string(),
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _detached = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

fn unmount(folder: &Path) {
    let _unmounted = Command::new("umount").arg(folder).status();
}

fn pattern(size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at / 512 + at % 251) as u8).collect();
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    bytes
}

fn an_image_lands_whole_and_nothing_behind_it_changes() {
    // An image that is neither a whole number of pieces nor of sectors.
    let image = pattern((3 << 20) + 700);
    let device = Loop::attach(5 << 20);
    let path = device.image(&image);
    device.flash(&path).unwrap();
    let found = fs::read(&device.backing).unwrap();
    assert!(found[..image.len()] == image[..]);
    assert!(found[image.len()..].iter().all(|byte| *byte == 0xA5));
}

fn an_image_smaller_than_the_head_lands_too() {
    let image = pattern(1000);
    let device = Loop::attach(1 << 20);
    let path = device.image(&image);
    device.flash(&path).unwrap();
    assert!(fs::read(&device.backing).unwrap()[..1000] == image[..]);
}

fn a_device_that_is_too_small_stays_as_it_was() {
    let device = Loop::attach(1 << 20);
    let path = device.image(&pattern(2 << 20));
    assert!(device.flash(&path).unwrap_err().contains("1,048,576 bytes"));
    assert!(fs::read(&device.backing).unwrap().iter().all(|byte| *byte == 0xA5));
}

fn a_device_in_use_by_another_stays_as_it_was() {
    let device = Loop::attach(2 << 20);
    let mounted = device.mount().unwrap();
    let path = device.image(&pattern(1 << 20));
    let refused = device.flash(&path).unwrap_err();
    unmount(&mounted);
    assert!(refused.contains("mounted at"), "{refused}");
}
