//! Brings what a fresh Debian machine lacks: a rustup target, Debian packages. Says what and why first.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::progress::Step;
use crate::{paths, process};

/// The target that the hypervisor and the Rust guests are built for.
pub const BARE_TARGET: &str = "x86_64-unknown-none";

/// What a command needs the machine for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Builds an image.
    Build,
    /// Builds one, and runs it in Bochs.
    Bochs,
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
enum Probe {
    /// A program on the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

/// A Debian package and what it is for.
struct Package {
    name: &'static str,
    why: &'static str,
    probe: Probe,
    serves: Need,
}

/// `bochs-term` is in the list with bochs: bochs wants one of its user interfaces installed, and that one is the
/// smallest (the headless display comes with bochs itself).
const PACKAGES: [Package; 14] = [
    Package {
        name: "gcc",
        why: "compiles the C guest and links host programs",
        probe: Probe::Program("gcc"),
        serves: Need::Build,
    },
    Package {
        name: "make",
        why: "builds the C guest",
        probe: Probe::Program("make"),
        serves: Need::Build,
    },
    Package {
        name: "grub-common",
        why: "grub-mkrescue writes the bootable image",
        probe: Probe::Program("grub-mkrescue"),
        serves: Need::Build,
    },
    Package {
        name: "grub-pc-bin",
        why: "boots the image by BIOS",
        probe: Probe::File("/usr/lib/grub/i386-pc/modinfo.sh"),
        serves: Need::Build,
    },
    Package {
        name: "grub-efi-amd64-bin",
        why: "boots the image by UEFI",
        probe: Probe::File("/usr/lib/grub/x86_64-efi/modinfo.sh"),
        serves: Need::Build,
    },
    Package {
        name: "xorriso",
        why: "lays out the disk image for grub-mkrescue",
        probe: Probe::Program("xorriso"),
        serves: Need::Build,
    },
    Package {
        name: "mtools",
        why: "fills the image's UEFI partition",
        probe: Probe::Program("mformat"),
        serves: Need::Build,
    },
    Package {
        name: "bochs",
        why: "the emulated PC with VT-x",
        probe: Probe::Program("bochs-bin"),
        serves: Need::Bochs,
    },
    Package {
        name: "bochs-term",
        why: "the smallest user interface that satisfies bochs",
        probe: Probe::Program("bochs-bin"),
        serves: Need::Bochs,
    },
    Package {
        name: "bochsbios",
        why: "BIOS of the emulated PC",
        probe: Probe::File("/usr/share/bochs/BIOS-bochs-latest"),
        serves: Need::Bochs,
    },
    Package {
        name: "vgabios",
        why: "video BIOS that bochs asks for",
        probe: Probe::File("/usr/share/bochs/VGABIOS-lgpl-latest"),
        serves: Need::Bochs,
    },
    Package {
        name: "qemu-system-x86",
        why: "a PC without VT-x, to show what is said there",
        probe: Probe::Program("qemu-system-x86_64"),
        serves: Need::Qemu,
    },
    Package {
        name: "ovmf",
        why: "UEFI firmware for QEMU",
        probe: Probe::File("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        serves: Need::Qemu,
    },
    Package {
        name: "chromium",
        why: "the browser in which the page of `bulkhead report` is judged",
        probe: Probe::Program("chromium"),
        serves: Need::Verify,
    },
];

/// Brings everything that `need` asks for. Quick when nothing is missing.
///
/// # Errors
/// The machine does not let us install; the error holds the command to type.
pub fn ensure(need: Need, quiet: bool) -> Result<()> {
    ensure_target(quiet)?;
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| need.includes(package.serves))
        .filter(|package| !is_there(&package.probe, &search_path()))
        .collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
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

fn install(missing: &[&Package]) -> Result<()> {
    let width = missing.iter().map(|package| package.name.len()).max().unwrap_or(0);
    eprintln!("bulkhead: this machine lacks Debian packages; installing:");
    for package in missing {
        eprintln!("   {:width$}  {}", package.name, package.why);
    }
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

/// Fetches the list of packages that this Debian machine may install: a fresh one has none, and an old one names files that are gone.
///
/// # Errors
/// The machine does not let us; the error holds the command to type.
pub fn refresh_package_list() -> Result<()> {
    let apt = Apt::find("cannot refresh the list of packages", "sudo apt-get update".to_string())?;
    apt.run("apt-get update".to_string(), &["update", "-q"])
}

/// The right to use apt-get.
struct Apt {
    /// What stands before it: nothing, or sudo.
    prefix: Vec<&'static str>,
    /// What a person would type.
    by_hand: String,
}

impl Apt {
    /// Finds apt-get and the right to use it; a password is asked for now, while no spinner runs over the prompt. `what` names the
    /// deed in an error, `by_hand` what a person would type.
    fn find(what: &str, by_hand: String) -> Result<Self> {
        let path = search_path();
        if !is_there(&Probe::Program("apt-get"), &path) {
            let cause = "this machine has no apt-get: it is not a Debian";
            let remedy = format!("do by this machine's own means what there is:  {by_hand}");
            return Err(Error::failed(what, cause, remedy));
        }
        let remedy = format!("run:  {by_hand}");
        let prefix = privilege(&path).ok_or_else(|| {
            let cause = "neither root, nor a sudo that can ask for its password";
            Error::failed(what, cause, &remedy)
        })?;
        if prefix == ASKING {
            eprintln!("bulkhead: sudo asks for your password, to run apt-get.");
            process::run_shown(Command::new("sudo").arg("-v"), what, &remedy)?;
        }
        Ok(Self { prefix, by_hand })
    }

    /// Runs apt-get as a step that is called `what`.
    fn run(&self, what: String, arguments: &[&str]) -> Result<()> {
        let failed = format!("{what} failed");
        let step = Step::begin(what, false);
        let remedy = format!("look at what apt-get says, then run:  {}", self.by_hand);
        process::run(&mut apt(&self.prefix, arguments), &failed, &remedy)?;
        step.done();
        Ok(())
    }
}

/// A sudo that asks for a password.
const ASKING: [&str; 1] = ["sudo"];

/// What to put before apt-get; `None` when this user may not install. A sudo that wants a password asks on the terminal.
fn privilege(path: &[PathBuf]) -> Option<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Some(vec![]);
    }
    if !is_there(&Probe::Program("sudo"), path) {
        return None;
    }
    let silent = Command::new("sudo").args(["-n", "true"]).output();
    if silent.is_ok_and(|output| output.status.success()) {
        return Some(vec!["sudo", "-n"]);
    }
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    terminal.is_ok().then(|| ASKING.to_vec())
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Command {
    // `env` behind sudo: sudo drops the variables of its caller.
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .chain(arguments.iter().copied())
        .collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
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
    }
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
    fn nothing_is_installed_for_others() {
        let names = |need: Need| -> Vec<&str> {
            let needed = PACKAGES.iter().filter(|package| need.includes(package.serves));
            needed.map(|package| package.name).collect()
        };
        let emulators = |need| {
            let names = names(need);
            ["bochs", "qemu-system-x86", "chromium"].map(|name| names.contains(&name))
        };
        assert_eq!(emulators(Need::Build), [false, false, false]);
        assert_eq!(emulators(Need::Bochs), [true, false, false]);
        assert_eq!(emulators(Need::Qemu), [false, true, false]);
        assert_eq!(names(Need::Verify).len(), PACKAGES.len());
        for need in [Need::Build, Need::Bochs, Need::Qemu] {
            assert!(names(need).contains(&"grub-common"));
        }
    }

    #[test]
    fn sudo_keeps_the_variable() {
        let command = format!("{:?}", apt(&["sudo", "-n"], &["update"]));
        assert_eq!(
            command,
            r#""sudo" "-n" "env" "DEBIAN_FRONTEND=noninteractive" "apt-get" "update""#
        );
    }
}
