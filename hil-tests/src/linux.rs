//! A Linux that runs one program: Debian's kernel, and an initramfs of busybox, the program, and its libraries.
//!
//! Kernel and busybox are fetched as packages and unpacked, not installed: an installed kernel would change the host's
//! way of booting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead::{paths, process, provision};

use crate::bench::{folder, root, sure};

/// A kernel and its first file system.
pub struct Linux {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// Unpacked Debian packages below cargo's target directory; fetched where they are not there.
///
/// # Panics
/// apt-get or dpkg-deb fails, or the packages hold no kernel and no busybox.
#[must_use]
pub fn packages() -> PathBuf {
    let cache = folder("debian");
    let unpacked = cache.join("unpacked");
    if !unpacked.exists() {
        // Under another name until all is there: what was interrupted is not taken for whole.
        let partial = cache.join("partial");
        sure("remove what is left of an earlier try", paths::remove_stale(&partial));
        sure("make a folder", paths::create(&partial));
        fetch(&partial);
        sure("keep the packages", fs::rename(&partial, &unpacked));
    }
    unpacked
}

/// Fetches kernel and busybox into `folder` and unpacks them there. A fresh machine has no list of packages yet, and an old list names
/// files that are gone: what fails is tried again with a new one.
fn fetch(folder: &Path) {
    if download(folder).is_err() {
        sure("refresh the list of packages", provision::refresh_package_list());
        sure("fetch Debian's kernel", download(folder));
    }
    for entry in sure("list packages", fs::read_dir(folder)).flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(folder));
        }
    }
}

/// The packages of busybox and of the kernel that Debian calls current.
fn download(folder: &Path) -> bulkhead::Result<()> {
    let what = "cannot fetch Debian's kernel";
    let mut command = Command::new("apt-cache");
    command.args(["depends", "linux-image-amd64"]);
    let depends = process::run(&mut command, what, "run it by hand")?;
    let depends = String::from_utf8_lossy(&depends);
    let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = kernel.ok_or_else(|| {
        let cause = "linux-image-amd64 depends on no kernel";
        bulkhead::Error::failed(what, cause, "run `sudo apt-get update`")
    })?;
    let mut command = Command::new("apt-get");
    command.args(["download", kernel, "busybox-static"]).current_dir(folder);
    process::run(&mut command, what, "look at what apt-get says").map(drop)
}

/// A Linux whose first process runs `script`, a shell script that finds the `bulkhead` command on its path.
///
/// # Panics
/// The command does not build, or a file is missing.
#[must_use]
pub fn with_script(name: &str, script: &str) -> Linux {
    let unpacked = packages();
    let kernel = find(&unpacked.join("boot"), "vmlinuz-").expect("a kernel");
    let mut archive = Archive::default();
    for directory in ["bin", "proc", "sys", "dev", "lib", "lib64"] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", &unpacked.join("bin/busybox"));
    let command = bulkhead_command();
    archive.program("bin/bulkhead", &command);
    for library in libraries(&command) {
        let inside = library.strip_prefix("/").expect("ldd gives absolute paths");
        archive.program(&inside.display().to_string(), &library);
    }
    archive.file("init", script.as_bytes(), 0o100_755);
    let initramfs = folder(name).join("initramfs");
    sure("write the initramfs", paths::write(&initramfs, &archive.finish()));
    Linux { kernel, initramfs }
}

/// The `bulkhead` command of this tree.
fn bulkhead_command() -> PathBuf {
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--package", "bulkhead"]).current_dir(root());
    run(&mut cargo);
    sure("find the target directory", paths::target()).join("debug/bulkhead")
}

/// The shared libraries that a program is linked with, its loader included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = run(Command::new("ldd").arg(program));
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

fn find(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    })
}

fn run(command: &mut Command) -> String {
    let what = format!("{command:?}");
    let output = sure(&what, process::run(command, &what, "run it by hand"));
    String::from_utf8_lossy(&output).into_owned()
}

/// A cpio archive of the kind that the kernel unpacks ("newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: Vec<String>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, path: &str) {
        if !self.folders.iter().any(|known| known == path) {
            self.folders.push(path.to_string());
            self.entry(path, &[], 0o040_755);
        }
    }

    fn program(&mut self, path: &str, from: &Path) {
        let bytes = sure("read", paths::read(from));
        self.file(path, &bytes, 0o100_755);
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) {
        let folders: Vec<_> =
            path.match_indices('/').map(|(at, _)| path[..at].to_string()).collect();
        folders.iter().for_each(|folder| self.directory(folder));
        self.entry(path, bytes, mode);
    }

    fn entry(&mut self, path: &str, bytes: &[u8], mode: u32) {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).expect("a file below 4 GiB");
        let name = path.len() as u32 + 1;
        // inode, mode, user, group, links, time, size, device, device of a node, length of the name, check sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes().chain([0]));
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &[], 0);
        self.bytes
    }
}
