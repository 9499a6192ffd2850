//! Brings what a fresh Debian machine lacks: a rustup target, Debian packages. Says what and why first.

pub mod apt;
pub mod bochs;
pub mod debian;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::progress::Step;
use crate::{paths, process};
use apt::Apt;
use debian::Lists;

/// The target that the hypervisor and the Rust guests are built for.
pub const BARE_TARGET: &str = "x86_64-unknown-none";

/// What a command needs the machine for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Builds an image.
    Build,
    /// Builds one, and runs it in Bochs 2.7.
    Bochs,
    /// Builds one, and runs it in Bochs 3.0, by BIOS or by UEFI.
    Bochs3,
    /// Builds one, and runs it in QEMU, by BIOS or by UEFI.
    Qemu,
    /// All of that, and judges everything that the tests judge.
    Verify,
}

impl Need {
    /// Whether it takes what is there for `other`.
    fn includes(self, other: Self) -> bool {
        self == other || self == Self::Verify || other == Self::Build
    }
}

/// How one sees that a piece is there.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    /// A program on the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A program that says on `--version` that it has at least this major version.
    AtLeast(&'static str, u32),
}

/// A Debian package and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// As apt knows it.
    pub name: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// How one sees that it is there.
    pub probe: Probe,
    /// What asks for it, besides `Verify`.
    pub serves: &'static [Need],
}

/// The emulator without VT-x is wanted in a version that Debian 12 has in its backports only.
const QEMU: Package = Package {
    name: "qemu-system-x86",
    why: "a PC without VT-x that counts instructions",
    probe: Probe::AtLeast(crate::emulator::qemu::PROGRAM, crate::emulator::qemu::LEAST_VERSION),
    serves: &[Need::Qemu],
};

const PACKAGES: [Package; 9] = [
    Package {
        name: "gcc",
        why: "compiles the C guest and links host programs",
        probe: Probe::Program("gcc"),
        serves: &[Need::Build],
    },
    Package {
        name: "make",
        why: "builds the C guest",
        probe: Probe::Program("make"),
        serves: &[Need::Build],
    },
    Package {
        name: "grub-common",
        why: "grub-mkrescue writes the bootable image",
        probe: Probe::Program("grub-mkrescue"),
        serves: &[Need::Build],
    },
    Package {
        name: "grub-pc-bin",
        why: "boots the image by BIOS",
        probe: Probe::File("/usr/lib/grub/i386-pc/modinfo.sh"),
        serves: &[Need::Build],
    },
    Package {
        name: "grub-efi-amd64-bin",
        why: "boots the image by UEFI",
        probe: Probe::File("/usr/lib/grub/x86_64-efi/modinfo.sh"),
        serves: &[Need::Build],
    },
    Package {
        name: "xorriso",
        why: "lays out the disk image for grub-mkrescue",
        probe: Probe::Program("xorriso"),
        serves: &[Need::Build],
    },
    Package {
        name: "mtools",
        why: "fills the image's UEFI partition",
        probe: Probe::Program("mformat"),
        serves: &[Need::Build],
    },
    Package {
        name: "ovmf",
        why: "UEFI firmware for the emulators",
        probe: Probe::File(crate::emulator::uefi::CODE),
        serves: &[Need::Bochs3, Need::Qemu],
    },
    Package {
        name: "chromium",
        why: "the browser in which the page of `bulkhead report` is judged",
        probe: Probe::Program("chromium"),
        serves: &[Need::Verify],
    },
];

/// Brings everything that `need` asks for. Quick when nothing is missing.
///
/// # Errors
/// The machine does not let us install; the error holds the command to type.
pub fn ensure(need: Need, quiet: bool) -> Result<()> {
    ensure_target(quiet)?;
    let mut missing = lacking(&PACKAGES, need);
    let mut elsewhere = Vec::new();
    for edition in bochs::EDITIONS.iter().filter(|edition| edition.is_needed(need)) {
        match edition.is_missing()? {
            false => {}
            true if edition.is_shipped_here() => missing.extend(&bochs::PACKAGES),
            true => elsewhere.push(edition),
        }
    }
    let newer = lacking(&[QEMU], need);
    let from_backports = debian::here().as_deref() == Some(debian::BOOKWORM);
    if !from_backports {
        missing.extend(&newer);
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    if from_backports && !newer.is_empty() {
        install_from_backports(&newer)?;
    }
    elsewhere.into_iter().try_for_each(|edition| edition.unpack(quiet))?;
    match lacking(&[QEMU], need).first() {
        Some(_) => Err(too_old()),
        None => Ok(()),
    }
}

/// The packages that `need` asks for and that are not there.
fn lacking(packages: &[Package], need: Need) -> Vec<Package> {
    let path = search_path();
    packages
        .iter()
        .filter(|package| is_needed(package, need))
        .filter(|package| !is_there(&package.probe, &path))
        .copied()
        .collect()
}

fn is_needed(package: &Package, need: Need) -> bool {
    package.serves.iter().any(|serves| need.includes(*serves))
}

/// What apt could install is older than what is needed.
fn too_old() -> Error {
    let (program, least) = (crate::emulator::qemu::PROGRAM, crate::emulator::qemu::LEAST_VERSION);
    let found = version_of(program).map_or("unknown".to_string(), |major| major.to_string());
    Error::failed(
        format!("{program} is too old"),
        format!(
            "its major version is {found}, and {least} is the least: older ones count no instructions exactly"
        ),
        format!("install QEMU {least} or newer, and put it first on the search path"),
    )
}

/// Brings the components that `verify` checks formatting and lints with.
///
/// # Errors
/// rustup is missing or fails.
pub fn ensure_lints() -> Result<()> {
    for (component, probe) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let there = process::cargo().args([probe, "--version"]).output();
        if there.is_ok_and(|output| output.status.success()) {
            continue;
        }
        eprintln!(
            "bulkhead: installing the toolchain's {component}: `verify` checks the sources with it."
        );
        rustup(&["component", "add", component])?;
    }
    Ok(())
}

fn ensure_target(quiet: bool) -> Result<()> {
    let folder = sysroot()?.join("lib/rustlib").join(BARE_TARGET);
    if folder.is_dir() {
        return Ok(());
    }
    eprintln!(
        "bulkhead: installing the Rust target {BARE_TARGET}: the hypervisor and the guests run on the bare machine."
    );
    let step = Step::begin(format!("rustup target add {BARE_TARGET}"), quiet);
    rustup(&["target", "add", BARE_TARGET])?;
    step.done();
    Ok(())
}

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let output = process::run(
        rustc.args(["--print", "sysroot"]).current_dir(paths::root()?),
        "cannot ask rustc where it lives",
        "install Rust with rustup and run the command again",
    )?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output).trim()))
}

fn rustup(arguments: &[&str]) -> Result<()> {
    let line = format!("rustup {}", arguments.join(" "));
    let mut command = Command::new("rustup");
    process::run(
        command.args(arguments).current_dir(paths::root()?),
        &format!("`{line}` failed"),
        &format!("make rustup work, then run:  {line}"),
    )?;
    Ok(())
}

fn install(missing: &[Package]) -> Result<()> {
    tell("this machine lacks Debian packages; installing:", missing);
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let apt = Apt::find(
        "cannot install these packages",
        format!(
            "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
            names.join(" ")
        ),
    )?;
    apt.run("apt-get update".to_string(), &["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&names);
    apt.run(format!("apt-get install of {} packages", names.len()), &arguments)
}

/// Installs from the backports of this machine's Debian. Their list is kept in a temporary folder: the machine's own sources stay as
/// they are.
fn install_from_backports(missing: &[Package]) -> Result<()> {
    let release = format!("{}-backports", debian::BOOKWORM);
    tell(
        &format!("this machine's Debian is older than what is needed; installing from {release}:"),
        missing,
    );
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let apt = Apt::find(
        "cannot install these packages",
        format!(
            "sudo apt-get install --no-install-recommends -t {release} {}   (with {release} among the sources)",
            names.join(" ")
        ),
    )?;
    let folder = tempfile::Builder::new().prefix("bulkhead-apt-").tempdir().map_err(|cause| {
        Error::failed("cannot create a temporary folder", cause, "check TMPDIR and its rights")
    })?;
    let step = Step::begin(format!("package lists of {release}"), false);
    let lists = Lists::beside(folder.path(), &release)?;
    lists.update()?;
    step.done();
    let settings = lists.settings();
    let settings = settings.to_string_lossy();
    let mut arguments = vec!["-c", &settings, "install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(["-t", release.as_str()]);
    arguments.extend(&names);
    apt.run(format!("apt-get install of {} from {release}", names.join(", ")), &arguments)
}

/// Says what is installed, and for what.
fn tell(sentence: &str, packages: &[Package]) {
    let width = packages.iter().map(|package| package.name.len()).max().unwrap_or(0);
    eprintln!("bulkhead: {sentence}");
    for package in packages {
        eprintln!("   {:width$}  {}", package.name, package.why);
    }
}

/// Fetches the list of packages that this Debian machine may install: a fresh one has none, and an old one names files that are gone.
///
/// # Errors
/// The machine does not let us; the error holds the command to type.
pub fn refresh_package_list() -> Result<()> {
    let apt = Apt::find("cannot refresh the list of packages", "sudo apt-get update".to_string())?;
    apt.run("apt-get update".to_string(), &["update", "-q"])
}

/// The folders of `PATH`, and those of the system administrator, which a user's path may lack.
fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect()
}

fn is_there(probe: &Probe, path: &[PathBuf]) -> bool {
    match probe {
        Probe::Program(name) => path.iter().any(|folder| folder.join(name).is_file()),
        Probe::File(file) => Path::new(file).is_file(),
        Probe::AtLeast(program, least) => {
            is_there(&Probe::Program(program), path)
                && version_of(program).is_some_and(|major| major >= *least)
        }
    }
}

/// The major version that a program tells on `--version`.
fn version_of(program: &str) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// The first number behind the word `version`.
fn major(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_there_from_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tool"), "").unwrap();
        let path = [folder.path().to_path_buf()];
        assert!(is_there(&Probe::Program("tool"), &path));
        assert!(!is_there(&Probe::Program("other"), &path));
        assert!(!is_there(&Probe::File("/no/such/file"), &path));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.22\n"), Some(7));
        assert_eq!((major("QEMU"), major("version x"), major("")), (None, None, None));
    }

    #[test]
    fn an_older_program_is_as_good_as_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        std::fs::write(&tool, "#!/bin/sh\necho TOOL version 7.2\n").unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = [folder.path().to_path_buf()];
        // The probe runs what the search path of this process names: a path in full here.
        let name: &'static str = tool.display().to_string().leak();
        assert!(is_there(&Probe::AtLeast(name, 7), &path));
        assert!(!is_there(&Probe::AtLeast(name, 10), &path));
        assert!(!is_there(&Probe::AtLeast("no-such-tool", 0), &path));
    }

    #[test]
    fn nothing_is_installed_for_others() {
        let names = |need: Need| -> Vec<&str> {
            let all = PACKAGES.iter().chain([&QEMU]);
            let needed = all.filter(|package| is_needed(package, need));
            needed.map(|package| package.name).collect()
        };
        let emulators = |need| {
            let names = names(need);
            ["ovmf", "qemu-system-x86", "chromium"].map(|name| names.contains(&name))
        };
        assert_eq!(emulators(Need::Build), [false, false, false]);
        assert_eq!(emulators(Need::Bochs), [false, false, false]);
        assert_eq!(emulators(Need::Bochs3), [true, false, false]);
        assert_eq!(emulators(Need::Qemu), [true, true, false]);
        assert_eq!(names(Need::Verify).len(), PACKAGES.len() + 1);
        for need in [Need::Build, Need::Bochs, Need::Qemu] {
            assert!(names(need).contains(&"grub-common"));
        }
    }
}
