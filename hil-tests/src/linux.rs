//! A Linux that runs one script: Debian's kernel, and a RAM disk with busybox and the `bulkhead` command.

use std::path::PathBuf;

use bulkhead::linux::packages::Packages;
use bulkhead::linux::{self, ramdisk};
use bulkhead::{paths, process};

use crate::bench::{folder, root, sure};

/// A kernel and its first file system.
pub struct Linux {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// A Linux whose first process runs `script`, a shell script that finds the `bulkhead` command on its path.
///
/// # Panics
/// The command does not build, or Debian's packages cannot be had.
#[must_use]
pub fn with_script(name: &str, script: &str) -> Linux {
    let mut packages = sure("make a folder of packages", Packages::new(true));
    let package = sure("find Debian's kernel", packages.behind("linux-image-amd64"));
    let kernel = sure("get Debian's kernel", linux::kernel(&mut packages, &package));
    let busybox = sure("get busybox", linux::busybox(&mut packages));
    let command =
        ramdisk::Wanted { source: bulkhead_command(), target: "bin/bulkhead".to_string() };
    let disk = ramdisk::with_init(script, &busybox, &[command], &["/".into()]);
    let initramfs = folder(name).join("initramfs");
    let written = sure("make the RAM disk", disk);
    sure("write the RAM disk", paths::write(&initramfs, &written));
    Linux { kernel, initramfs }
}

/// The `bulkhead` command of this tree.
fn bulkhead_command() -> PathBuf {
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--package", "bulkhead"]).current_dir(root());
    sure(
        "build the command",
        process::run(&mut cargo, "cannot build the command", "build it by hand"),
    );
    sure("find the target directory", paths::target()).join("debug/bulkhead")
}
