//! Bochs in two versions. The one that this machine's Debian ships is installed; the other one is unpacked into a folder of its own,
//! below cargo's target directory, and started by that folder's own loader with that folder's libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian::{self, Lists};
use super::{Need, Package, Probe, is_there, search_path};
use crate::error::{Error, Result};
use crate::progress::Step;
use crate::{paths, process};

/// A version of Bochs, and the release of Debian that ships it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    /// As Bochs itself says it.
    pub version: &'static str,
    /// Code name of the release.
    release: &'static str,
    /// What asks for it.
    serves: Need,
}

/// The machine of the exact figures.
pub const TWO: Edition = Edition { version: "2.7", release: debian::BOOKWORM, serves: Need::Bochs };
/// The machine with UEFI and VT-x.
pub const THREE: Edition =
    Edition { version: "3.0", release: debian::TRIXIE, serves: Need::Bochs3 };

/// All of them.
pub const EDITIONS: [Edition; 2] = [TWO, THREE];

/// `bochs-term` is in the list with bochs: bochs wants one of its user interfaces installed, and that one is the
/// smallest (the headless display comes with bochs itself).
pub const PACKAGES: [Package; 4] = [
    Package {
        name: "bochs",
        why: "the emulated PC with VT-x",
        probe: Probe::Program("bochs-bin"),
        serves: &[],
    },
    Package {
        name: "bochs-term",
        why: "the smallest user interface that satisfies bochs",
        probe: Probe::Program("bochs-bin"),
        serves: &[],
    },
    Package {
        name: "bochsbios",
        why: "BIOS of the emulated PC",
        probe: Probe::File("/usr/share/bochs/BIOS-bochs-latest"),
        serves: &[],
    },
    Package {
        name: "vgabios",
        why: "video BIOS that bochs asks for",
        probe: Probe::File("/usr/share/bochs/VGABIOS-lgpl-latest"),
        serves: &[],
    },
];

/// Where Debian's packages keep libraries, from the root: since Debian 13 in the first alone.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The program that loads another one with its libraries. It lies among them.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// A Bochs that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The folder that it was unpacked into; `/` for an installed one.
    root: PathBuf,
}

impl Edition {
    /// Whether something that serves `need` asks for it.
    #[must_use]
    pub fn is_needed(&self, need: Need) -> bool {
        need.includes(self.serves)
    }

    /// Where it is.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn find(&self) -> Result<Installed> {
        if self.is_installed() {
            return Ok(Installed::at(Path::new("/")));
        }
        let root = self.folder()?;
        if root.is_dir() {
            return Ok(Installed { root });
        }
        Err(Error::failed(
            format!("cannot find Bochs {}", self.version),
            format!("it is neither installed nor in {}", root.display()),
            "start it once with `cargo bulkhead run` or `cargo verify`, which bring it",
        ))
    }

    /// Whether this machine's own Bochs is of this version.
    fn is_installed(&self) -> bool {
        let mut ask = Command::new("dpkg-query");
        let answer = ask.args(["-W", "-f=${db:Status-Status} ${Version}", "bochs"]).output();
        let told = answer.is_ok_and(|it| is_version(&it.stdout, self.version));
        told && PACKAGES.iter().all(|package| is_there(&package.probe, &search_path()))
    }

    /// Whether this machine's own Debian ships it.
    #[must_use]
    pub fn is_shipped_here(&self) -> bool {
        debian::here().as_deref() == Some(self.release)
    }

    /// Whether it is nowhere.
    ///
    /// # Errors
    /// The tree is not there any more.
    pub fn is_missing(&self) -> Result<bool> {
        Ok(!self.is_installed() && !self.folder()?.is_dir())
    }

    /// The folder that it is unpacked into.
    fn folder(&self) -> Result<PathBuf> {
        Ok(paths::target()?.join("bulkhead/debian").join(format!("bochs-{}", self.version)))
    }

    /// Fetches its packages and their libraries from another release of Debian, and unpacks them. Installs nothing and needs no rights.
    ///
    /// # Errors
    /// Debian cannot be asked, a signature is wrong, or the unpacked program does not start.
    pub fn unpack(&self, quiet: bool) -> Result<()> {
        let folder = self.folder()?;
        eprintln!(
            "bulkhead: Bochs {} is Debian {}'s; unpacking it below cargo's target directory (nothing is installed).",
            self.version, self.release
        );
        let work = paths::beside(&folder, ".new");
        paths::remove_stale(&work)?;
        let (apt, packages, root) = (work.join("apt"), work.join("packages"), work.join("root"));
        paths::create(&packages)?;
        paths::create(&root)?;
        let step =
            Step::begin(format!("packages of Bochs {} ({})", self.version, self.release), quiet);
        let lists = Lists::alone(&apt, self.release)?;
        lists.update()?;
        let needed = lists.needed_for(&PACKAGES.map(|package| package.name))?;
        let wanted: Vec<String> = needed.into_iter().filter(|name| is_wanted(name)).collect();
        lists.download(&wanted, &packages)?;
        step.done();
        let step = Step::begin(format!("unpacking {} packages", wanted.len()), quiet);
        unpack_all(&packages, &root)?;
        Installed { root: paths::absolute(&root)? }.try_out(self.version)?;
        std::fs::rename(&root, &folder).map_err(|cause| Error::file("write", &folder, &cause))?;
        paths::remove_stale(&work)?;
        step.done();
        Ok(())
    }
}

impl Installed {
    /// One that was unpacked into `root`; `/` for the machine's own.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The command that starts it.
    #[must_use]
    pub fn command(&self) -> Command {
        if self.is_the_machines() {
            return Command::new("bochs-bin");
        }
        let folders = LIBRARIES.map(|folder| self.root.join(folder));
        let holds = |folder: &&PathBuf| folder.join(LOADER).is_file();
        let loader = folders.iter().find(holds).unwrap_or(&folders[0]).join(LOADER);
        let mut libraries = folders[0].as_os_str().to_os_string();
        libraries.push(":");
        libraries.push(&folders[1]);
        let mut command = Command::new(loader);
        command
            .arg("--library-path")
            .arg(libraries)
            .arg(self.root.join("usr/bin/bochs-bin"))
            .env("LTDL_LIBRARY_PATH", folders[0].join("bochs/plugins"))
            .env("BXSHARE", self.share());
        command
    }

    /// The file that holds its BIOS.
    #[must_use]
    pub fn bios(&self) -> PathBuf {
        self.share().join("BIOS-bochs-latest")
    }

    /// The file that holds its video BIOS.
    #[must_use]
    pub fn video_bios(&self) -> PathBuf {
        self.share().join("VGABIOS-lgpl-latest")
    }

    fn share(&self) -> PathBuf {
        self.root.join("usr/share/bochs")
    }

    fn is_the_machines(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Starts it for a moment: all of its libraries are there.
    fn try_out(&self, version: &str) -> Result<()> {
        let mut command = self.command();
        let what = format!("the unpacked Bochs {version} does not start");
        process::run(command.args(["--help", "cpu"]), &what, "report it with what it says")?;
        Ok(())
    }
}

/// Whether `dpkg-query` tells an installed package of this version.
fn is_version(answer: &[u8], version: &str) -> bool {
    let text = String::from_utf8_lossy(answer);
    let told = text.strip_prefix("installed ").and_then(|told| told.strip_prefix(version));
    told.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '-', '~']))
}

/// Whether a package holds the program, its firmware, or a shared library. Bochs is linked to a user interface with 70 libraries; what
/// those packages need besides (daemons, fonts, icons) is never used here.
fn is_wanted(name: &str) -> bool {
    let library = name.starts_with("lib") && !name.ends_with("-common") && !name.ends_with("-data");
    library || name == "zlib1g" || ["bochs", "bochsbios", "vgabios"].contains(&name)
}

fn unpack_all(packages: &Path, root: &Path) -> Result<()> {
    let entries =
        std::fs::read_dir(packages).map_err(|cause| Error::file("read", packages, &cause))?;
    for file in entries.flatten().map(|entry| entry.path()) {
        let mut unpack = Command::new("dpkg-deb");
        let what = format!("cannot unpack {}", file.display());
        process::run(unpack.arg("-x").arg(&file).arg(root), &what, "free space, and run it again")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert!(is_version(b"installed 2.7+dfsg-4+deb12u1", "2.7"));
        assert!(is_version(b"installed 3.0", "3.0"));
        for other in ["installed 2.71-1", "installed 3.0+dfsg-1", "config-files 2.7+dfsg-4", ""] {
            assert!(!is_version(other.as_bytes(), "2.7"), "{other}");
        }
    }

    #[test]
    fn only_what_is_loaded_is_unpacked() {
        for name in ["bochs", "bochsbios", "vgabios", "libc6", "libgtk-3-0t64", "zlib1g"] {
            assert!(is_wanted(name), "{name}");
        }
        for name in ["systemd", "libgtk-3-common", "libx11-data", "bochs-term", "fontconfig"] {
            assert!(!is_wanted(name), "{name}");
        }
    }

    #[test]
    fn an_unpacked_one_starts_by_its_own_loader() {
        let unpacked = Installed::at(Path::new("/t/bochs-3.0"));
        let text = format!("{:?}", unpacked.command());
        assert!(
            text.contains("/t/bochs-3.0/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
            "{text}"
        );
        assert!(text.contains("\"--library-path\""), "{text}");
        // Debian 12's loader lies elsewhere.
        let folder = tempfile::tempdir().unwrap();
        let loader = folder.path().join("lib/x86_64-linux-gnu").join(LOADER);
        paths::create(loader.parent().unwrap()).unwrap();
        paths::write(&loader, b"").unwrap();
        assert_eq!(Installed::at(folder.path()).command().get_program(), loader);
        assert_eq!(unpacked.bios(), Path::new("/t/bochs-3.0/usr/share/bochs/BIOS-bochs-latest"));
        let own = Installed::at(Path::new("/"));
        assert_eq!(own.command().get_program(), "bochs-bin");
        assert_eq!(own.bios(), Path::new("/usr/share/bochs/BIOS-bochs-latest"));
    }

    #[test]
    fn each_need_brings_its_own_edition() {
        let needed = |need| EDITIONS.map(|edition| edition.is_needed(need));
        assert_eq!(needed(Need::Build), [false, false]);
        assert_eq!(needed(Need::Bochs), [true, false]);
        assert_eq!(needed(Need::Bochs3), [false, true]);
        assert_eq!(needed(Need::Qemu), [false, false]);
        assert_eq!(needed(Need::Verify), [true, true]);
    }
}
