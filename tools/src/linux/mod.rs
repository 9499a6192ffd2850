//! Gets kernels as Debian ships them, and makes RAM disks for them. Nothing is installed, nothing needs root.

pub mod archive;
pub mod packages;
pub mod ramdisk;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::progress::Step;
use crate::{bare, guests, paths, process};
use packages::Packages;
use ramdisk::Wanted;

/// The folder that the shipped systems name, from the tree's root.
pub const FOLDER: &str = "partitions/linux";

/// What is made there: the ordinary kernel, the one with PREEMPT_RT, a RAM disk with a shell, and one with `cyclictest` too.
const KERNELS: [(&str, &str); 2] =
    [("vmlinuz", "linux-image-amd64"), ("vmlinuz-rt", "linux-image-rt-amd64")];
const SHELL: &str = "initrd";
const MEASURING: &str = "initrd-rt";

/// Our own program in each of them.
const CONSOLE: &str = "linux-console";

/// The package with busybox, linked statically, and where it is in it.
const BUSYBOX: (&str, &str) = ("busybox-static", "./bin/busybox");

/// Packages with `cyclictest` and what it is linked to, and what is taken out of them.
const CYCLICTEST: [(&str, &str); 3] = [
    ("rt-tests", "./usr/bin/cyclictest"),
    ("libnuma1", "./usr/lib/x86_64-linux-gnu/libnuma.so*"),
    ("libc6", "./lib/*"),
];

/// `bulkhead linux`: kernels and RAM disks, into `folder` or where the shipped systems look for them.
///
/// # Errors
/// Debian cannot be asked, or a file cannot be written.
pub fn kernels(folder: Option<&Path>, quiet: bool) -> Result<Vec<PathBuf>> {
    let folder = match folder {
        Some(folder) => folder.to_path_buf(),
        None => paths::root()?.join(FOLDER),
    };
    paths::create(&folder)?;
    let mut packages = Packages::new(quiet)?;
    let mut made = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        paths::write_if_changed(&path, bytes)?;
        made.push(path);
        Ok::<(), Error>(())
    };
    for (name, meta) in KERNELS {
        let package = packages.behind(meta)?;
        write(name, &paths::read(&kernel(&mut packages, &package)?)?)?;
    }
    let busybox = busybox(&mut packages)?;
    let console = console(quiet)?;
    write(SHELL, &ramdisk::build(&busybox, std::slice::from_ref(&console), &[])?)?;
    let mut roots = Vec::new();
    for (package, pattern) in CYCLICTEST {
        roots.push(packages.files(package, pattern)?);
    }
    let program = roots[0].join("usr/bin/cyclictest");
    let program = Wanted { source: program, target: "bin/cyclictest".to_string() };
    write(MEASURING, &ramdisk::build(&busybox, &[console, program], &roots)?)?;
    Ok(made)
}

/// The kernel in a package, or in the one that this package depends on for it.
///
/// # Errors
/// The package cannot be downloaded, or has none.
pub fn kernel(packages: &mut Packages, package: &str) -> Result<PathBuf> {
    const KERNEL: &str = "./boot/vmlinuz-";
    let package = match packages.ships(package, KERNEL)? {
        true => package.to_string(),
        false => packages.behind(package)?,
    };
    let folder = packages.files(&package, &format!("{KERNEL}*"))?.join("boot");
    let entries =
        std::fs::read_dir(&folder).map_err(|cause| Error::file("read", &folder, &cause))?;
    let mut found = entries.flatten().map(|entry| entry.path());
    found.next().ok_or_else(|| {
        Error::failed(
            format!("cannot take the kernel out of {package}"),
            "there is none in it",
            "name a kernel file of your own in the system file",
        )
    })
}

/// Debian's busybox, linked statically.
///
/// # Errors
/// The package cannot be downloaded, or does not hold it.
pub fn busybox(packages: &mut Packages) -> Result<PathBuf> {
    let (package, file) = BUSYBOX;
    Ok(packages.files(package, file)?.join(file.trim_start_matches("./")))
}

/// The program that gives a system without a serial console one that costs no exit, linked statically.
fn console(quiet: bool) -> Result<Wanted> {
    let step = Step::begin("the shared console's program (cargo)", quiet);
    let mut command = process::cargo();
    command
        .args(["rustc", "--package", CONSOLE, "--profile", bare::PROFILE])
        .args(["--message-format=json-render-diagnostics", "--"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .current_dir(paths::root()?);
    let what = format!("{CONSOLE} does not build");
    let output = process::run(&mut command, &what, "mend its sources in partitions/linux-console")?;
    let source = guests::executable(&output).ok_or_else(|| {
        Error::failed(what, "cargo built no program", "build it by hand and look at its messages")
    })?;
    step.done();
    Ok(Wanted { source, target: format!("bin/{CONSOLE}") })
}

/// `bulkhead initrd`: a RAM disk with busybox and the given files; libraries come from this machine.
///
/// # Errors
/// Debian cannot be asked, a file cannot be read or written, or a library is nowhere.
pub fn initrd(files: &[String], output: &Path, quiet: bool) -> Result<u64> {
    let mut wanted: Vec<Wanted> = files.iter().map(|file| Wanted::parse(file)).collect();
    wanted.push(console(quiet)?);
    let busybox = busybox(&mut Packages::new(quiet)?)?;
    let bytes = ramdisk::build(&busybox, &wanted, &["/".into()])?;
    paths::write(output, &bytes)?;
    Ok(bytes.len() as u64)
}
