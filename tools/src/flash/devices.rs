//! Which devices there are, and which of them an image may overwrite. Reads sysfs and procfs only.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::screen::grouped;

/// Bytes of the sectors that sysfs counts in.
const SECTOR: u64 = 512;

/// A block device that may be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As the user named it.
    pub path: PathBuf,
    /// Vendor and model, or what it is backed by.
    pub model: String,
    /// Bytes.
    pub size: u64,
    /// Major and minor number, and the kernel's count of devices that came before it: another device never has the same.
    pub identity: String,
}

/// The machine's view of its block devices.
pub struct System {
    sysfs: PathBuf,
    mounts: String,
    swaps: String,
    devices: PathBuf,
}

/// What a path names.
struct Node {
    /// The kernel's name: `sdb`.
    kernel: String,
    /// Major and minor number as sysfs writes them: `8:16`.
    number: String,
}

impl System {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            sysfs: PathBuf::from("/sys"),
            mounts: read("/proc/self/mountinfo"),
            swaps: read("/proc/swaps"),
            devices: PathBuf::from("/dev"),
        }
    }

    /// The device at `path`, if an image of `size` bytes may overwrite it.
    ///
    /// # Errors
    /// A sentence for each reason why not: no such device, no block device, a partition, read-only, mounted,
    /// swap, in use by another device, too small.
    pub fn choose(&self, path: &Path, size: u64) -> Result<Device> {
        let node = self.node(path)?;
        self.choose_node(path, &node, size)
    }

    fn node(&self, path: &Path) -> Result<Node> {
        let refuse = |cause: String| {
            let remedy = format!("name a whole device; there are: {}", self.listed());
            Error::refused(format!("cannot write to {}", path.display()), cause, remedy)
        };
        let data = fs::metadata(path).map_err(|cause| refuse(cause.to_string()))?;
        if !data.file_type().is_block_device() {
            return Err(refuse("it is no block device".to_string()));
        }
        let device = data.rdev();
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let link = fs::canonicalize(self.sysfs.join("dev/block").join(&number))
            .map_err(|cause| refuse(format!("the kernel does not know it: {cause}")))?;
        let kernel = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Node { kernel, number })
    }

    fn choose_node(&self, path: &Path, node: &Node, size: u64) -> Result<Device> {
        let refuse = |cause: String, remedy: &str| {
            Err(Error::refused(format!("cannot write to {}", path.display()), cause, remedy))
        };
        let folder = self.sysfs.join("dev/block").join(&node.number);
        if folder.join("partition").exists() {
            let cause = "it is a partition; an image covers a whole device".to_string();
            return refuse(cause, &format!("name the device that {} lies on", node.kernel));
        }
        let family = self.family(&folder, &node.number);
        if let Some(at) = self.mounted(&family) {
            let system =
                ["/", "/boot", "/boot/efi", "/usr", "/var", "/home"].contains(&at.as_str());
            let cause = if system {
                format!("it is a disk of the running system: it holds {at}")
            } else {
                format!("it is mounted at {at}")
            };
            let remedy = if system {
                "name another device"
            } else {
                "unmount it, if it is the device you mean"
            };
            return refuse(cause, remedy);
        }
        if let Some(swap) = self.swap(&family) {
            return refuse(format!("the running system swaps on {swap}"), "name another device");
        }
        if let Some(holder) = self.holder(&family) {
            let cause = format!("it is a part of {holder} (RAID, LVM or encryption)");
            return refuse(cause, "take it out of there, if it is the device you mean");
        }
        if read(&folder.join("ro")) == "1" {
            return refuse(
                "it is read-only".to_string(),
                "open its write lock, or name another device",
            );
        }
        let bytes = read(&folder.join("size")).parse::<u64>().unwrap_or(0).saturating_mul(SECTOR);
        if bytes < size {
            let cause = format!("it has {} bytes and the image {}", grouped(bytes), grouped(size));
            return refuse(cause, "name a larger device");
        }
        let sequence = fs::read_to_string(folder.join("diskseq")).unwrap_or_default();
        let identity = format!("{} {}", node.number, sequence.trim());
        Ok(Device { path: path.to_path_buf(), model: model(&folder), size: bytes, identity })
    }

    /// The device itself and its partitions: sysfs folder and number of each.
    fn family(&self, folder: &Path, number: &str) -> Vec<(PathBuf, String)> {
        let mut family = vec![(folder.to_path_buf(), number.to_string())];
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.join("partition").exists() {
                let number = read(&path.join("dev"));
                family.push((path, number));
            }
        }
        family
    }

    /// Where one of the family is mounted.
    fn mounted(&self, family: &[(PathBuf, String)]) -> Option<String> {
        // mountinfo: id, parent, major:minor, root, mount point, ...
        self.mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(2);
            let number = words.next()?;
            let at = words.nth(1)?;
            family.iter().any(|(_, own)| own == number).then(|| at.replace("\\040", " "))
        })
    }

    /// Which swap space lies on one of the family.
    fn swap(&self, family: &[(PathBuf, String)]) -> Option<String> {
        self.swaps.lines().skip(1).find_map(|line| {
            let path = line.split_whitespace().next()?;
            let data = fs::metadata(path).ok()?;
            let device = if data.file_type().is_block_device() { data.rdev() } else { data.dev() };
            let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            family.iter().any(|(_, own)| *own == number).then(|| path.to_string())
        })
    }

    /// Which other device is built on one of the family.
    fn holder(&self, family: &[(PathBuf, String)]) -> Option<String> {
        family.iter().find_map(|(folder, _)| {
            let entry = fs::read_dir(folder.join("holders")).ok()?.flatten().next()?;
            Some(entry.file_name().to_string_lossy().into_owned())
        })
    }

    /// The devices there are, for whoever mistyped one: whole, not empty, no RAM disks.
    fn listed(&self) -> String {
        let mut names: Vec<String> = fs::read_dir(self.sysfs.join("block"))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !matches!(read(&entry.path().join("size")).as_str(), "" | "0"))
            .map(|entry| self.devices.join(entry.file_name()).display().to_string())
            .filter(|name| !name.contains("/ram"))
            .collect();
        names.sort();
        if names.is_empty() { "none".to_string() } else { names.join(", ") }
    }
}

/// Vendor and model, or the file behind a loop device.
fn model(folder: &Path) -> String {
    let backing = read(&folder.join("loop/backing_file"));
    if !backing.is_empty() {
        return format!("loop device over {backing}");
    }
    let words = ["device/vendor", "device/model", "device/name"];
    let known: Vec<String> =
        words.iter().map(|file| read(&folder.join(file))).filter(|word| !word.is_empty()).collect();
    if known.is_empty() { "model unknown".to_string() } else { known.join(" ") }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one stick, `sdx` (8:400), that has one partition, `sdx1` (8:401).
    struct Fake {
        _folder: tempfile::TempDir,
        system: System,
        stick: PathBuf,
    }

    fn fake() -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = folder.path().join("sys");
        let stick = sysfs.join("dev/block/8:400");
        for path in [
            stick.join("device"),
            stick.join("sdx1/holders"),
            stick.join("holders"),
            sysfs.join("block/sdx"),
        ] {
            fs::create_dir_all(path).unwrap();
        }
        let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
        write(stick.join("size"), "2048\n");
        write(stick.join("ro"), "0\n");
        write(stick.join("device/vendor"), "ACME    \n");
        write(stick.join("device/model"), "Stick 9\n");
        write(stick.join("sdx1/partition"), "1\n");
        write(stick.join("sdx1/dev"), "8:401\n");
        write(sysfs.join("block/sdx/size"), "2048\n");
        let system = System {
            sysfs,
            mounts: "25 1 8:2 / / rw - ext4 /dev/sda2 rw\n".to_string(),
            swaps: "Filename Type Size Used Priority\n".to_string(),
            devices: PathBuf::from("/dev"),
        };
        Fake { _folder: folder, system, stick }
    }

    fn choose(fake: &Fake, size: u64) -> std::result::Result<Device, String> {
        let node = Node { kernel: "sdx".into(), number: "8:400".into() };
        fake.system
            .choose_node(Path::new("/dev/sdx"), &node, size)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_free_stick_is_taken_and_shown() {
        let device = choose(&fake(), 1 << 20).unwrap();
        assert_eq!((device.model.as_str(), device.size), ("ACME Stick 9", 1 << 20));
    }

    #[test]
    fn a_small_stick_is_refused() {
        assert!(choose(&fake(), (1 << 20) + 1).unwrap_err().contains("1,048,576 bytes"));
    }

    #[test]
    fn a_mounted_stick_is_refused() {
        for number in ["8:400", "8:401"] {
            let mut fake = fake();
            fake.system
                .mounts
                .push_str(&format!("26 1 {number} / /media/my\\040stick rw - vfat x rw\n"));
            assert!(choose(&fake, 1).unwrap_err().contains("mounted at /media/my stick"));
        }
    }

    #[test]
    fn a_disk_of_the_system_is_refused() {
        let mut fake = fake();
        fake.system.mounts.push_str("26 1 8:401 / /boot/efi rw - vfat x rw\n");
        assert!(choose(&fake, 1).unwrap_err().contains("disk of the running system"));
    }

    #[test]
    fn a_part_of_a_raid_is_refused() {
        let fake = fake();
        fs::create_dir(fake.stick.join("sdx1/holders/md0")).unwrap();
        assert!(choose(&fake, 1).unwrap_err().contains("md0"));
    }

    #[test]
    fn a_locked_stick_is_refused() {
        let fake = fake();
        fs::write(fake.stick.join("ro"), "1\n").unwrap();
        assert!(choose(&fake, 1).unwrap_err().contains("read-only"));
    }

    #[test]
    fn a_partition_is_refused() {
        let fake = fake();
        fs::write(fake.stick.join("partition"), "1\n").unwrap();
        assert!(choose(&fake, 1).unwrap_err().contains("whole device"));
    }

    #[test]
    fn a_typo_lists_what_there_is() {
        let error = fake().system.choose(Path::new("/dev/sdxx"), 1).unwrap_err().to_string();
        assert!(error.contains("/dev/sdxx") && error.contains("/dev/sdx"), "{error}");
    }

    #[test]
    fn a_file_is_no_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = fake().system.choose(file.path(), 1).unwrap_err().to_string();
        assert!(error.contains("no block device"), "{error}");
    }
}
