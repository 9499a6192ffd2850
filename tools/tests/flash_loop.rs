//! Flashes loop devices: the real kernel's view of a device, without one to lose.
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead::flash::{FlashOptions, flash};
use bulkhead::skipped;

/// How the tests of this file run everywhere.
const REMEDY: &str =
    "run `cargo test -p bulkhead --test flash_loop` as root on a kernel with loop devices";

/// A loop device over a temporary file; detached when dropped.
struct Loop {
    device: PathBuf,
    backing: PathBuf,
    folder: tempfile::TempDir,
}

impl Loop {
    /// `None`, said aloud, where this user or this kernel has no loop devices.
    fn attach(size: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let backing = folder.path().join("backing");
        fs::write(&backing, vec![0xA5; size]).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        match output {
            Ok(output) if output.status.success() => {
                let device = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
                Some(Self { device, backing, folder })
            }
            other => {
                skipped::tell(
                    "flash_loop",
                    &format!("losetup gave no device ({})", words(&other)),
                    REMEDY,
                );
                None
            }
        }
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

fn pattern(size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at / 512 + at % 251) as u8).collect();
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    bytes
}

#[test]
fn an_image_lands_whole_and_nothing_behind_it_changes() {
    // An image that is neither a whole number of pieces nor of sectors.
    let image = pattern((3 << 20) + 700);
    let Some(device) = Loop::attach(5 << 20) else {
        return;
    };
    let path = device.image(&image);
    device.flash(&path).unwrap();
    let found = fs::read(&device.backing).unwrap();
    assert!(found[..image.len()] == image[..]);
    assert!(found[image.len()..].iter().all(|byte| *byte == 0xA5));
}

#[test]
fn an_image_smaller_than_the_head_lands_too() {
    let image = pattern(1000);
    let Some(device) = Loop::attach(1 << 20) else {
        return;
    };
    let path = device.image(&image);
    device.flash(&path).unwrap();
    assert!(fs::read(&device.backing).unwrap()[..1000] == image[..]);
}

#[test]
fn a_device_that_is_too_small_stays_as_it_was() {
    let Some(device) = Loop::attach(1 << 20) else {
        return;
    };
    let path = device.image(&pattern(2 << 20));
    assert!(device.flash(&path).unwrap_err().contains("1,048,576 bytes"));
    assert!(fs::read(&device.backing).unwrap().iter().all(|byte| *byte == 0xA5));
}

#[test]
fn a_device_in_use_by_another_stays_as_it_was() {
    let Some(device) = Loop::attach(2 << 20) else {
        return;
    };
    let mounted = device.folder.path().join("mount");
    fs::create_dir(&mounted).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.device).status();
    let there = made.is_ok_and(|status| status.success())
        && Command::new("mount")
            .arg(&device.device)
            .arg(&mounted)
            .status()
            .is_ok_and(|s| s.success());
    if !there {
        let test = "flash_loop, a_device_in_use_by_another_stays_as_it_was";
        skipped::tell(test, "it needs mkfs.ext4 and the right to mount", REMEDY);
        return;
    }
    let path = device.image(&pattern(1 << 20));
    let refused = device.flash(&path).unwrap_err();
    let _unmounted = Command::new("umount").arg(&mounted).status();
    assert!(refused.contains("mounted at"), "{refused}");
}
