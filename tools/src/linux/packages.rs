//! Debian packages that are not installed but only looked into: downloaded, and some of their files taken out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::progress::Step;
use crate::{paths, process, provision};

/// A folder of downloaded packages, and what was taken out of them.
pub struct Packages {
    folder: PathBuf,
    refreshed: bool,
    quiet: bool,
}

const REMEDY: &str = "run it on a Debian with a network, or name kernel and RAM disk files of your own in the system file";

impl Packages {
    /// In cargo's target directory: what was downloaded is not downloaded again.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(quiet: bool) -> Result<Self> {
        let folder = paths::target()?.join("bulkhead/packages");
        paths::create(&folder)?;
        Ok(Self { folder: paths::absolute(&folder)?, refreshed: false, quiet })
    }

    /// The package with a kernel that a meta package such as `linux-image-amd64` stands for today.
    ///
    /// # Errors
    /// Debian has no such package, or none that ships a kernel.
    pub fn behind(&mut self, meta: &str) -> Result<String> {
        let what = format!("cannot ask Debian what {meta} stands for");
        let ask = || {
            let mut command = Command::new("apt-cache");
            process::run(command.args(["depends", "--important", meta]), &what, REMEDY)
        };
        let answer = match ask() {
            Ok(answer) if kernel_dependency(&answer).is_some() => answer,
            _ => {
                self.refresh()?;
                ask()?
            }
        };
        kernel_dependency(&answer).ok_or_else(|| {
            let cause = "it depends on no package linux-image-VERSION";
            Error::failed(what.clone(), cause, REMEDY)
        })
    }

    /// Whether a package has a file whose name, from `./` on, begins so.
    ///
    /// # Errors
    /// The package cannot be downloaded or read.
    pub fn ships(&mut self, package: &str, beginning: &str) -> Result<bool> {
        let archive = self.download(package)?;
        let mut command = Command::new("dpkg-deb");
        let what = format!("cannot look into {}", archive.display());
        let list = process::run(command.arg("--contents").arg(&archive), &what, REMEDY)?;
        let list = String::from_utf8_lossy(&list);
        Ok(list.lines().any(|line| line.split_whitespace().any(|word| word.starts_with(beginning))))
    }

    /// Files of a package that match `pattern` (of tar, such as `./boot/vmlinuz-*`), in a folder of their own.
    ///
    /// # Errors
    /// The package cannot be downloaded or has no such file.
    pub fn files(&mut self, package: &str, pattern: &str) -> Result<PathBuf> {
        let archive = self.download(package)?;
        let stem = archive.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = self.folder.join(&stem);
        let mark = folder.join(".taken").join(pattern.replace('/', "+"));
        if mark.is_file() {
            return Ok(folder);
        }
        let step = Step::begin(format!("files of {package}"), self.quiet);
        paths::create(&folder)?;
        self.take(&archive, pattern, &folder)?;
        paths::create(&folder.join(".taken"))?;
        paths::write(&mark, b"")?;
        step.done();
        Ok(folder)
    }

    fn take(&self, archive: &Path, pattern: &str, folder: &Path) -> Result<()> {
        let what = format!("cannot take {pattern} out of {}", archive.display());
        let failed = |cause: std::io::Error| Error::failed(&what, cause, REMEDY);
        let mut unpack = Command::new("dpkg-deb");
        let mut unpack = unpack
            .arg("--fsys-tarfile")
            .arg(archive)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut tar = Command::new("tar");
        tar.args(["-x", "--wildcards", "-C"]).arg(folder).arg(pattern);
        tar.stdin(unpack.stdout.take().map_or_else(Stdio::null, Stdio::from));
        let output = tar.output().map_err(failed)?;
        let unpacked = unpack.wait().map_err(failed)?;
        if output.status.success() && unpacked.success() {
            return Ok(());
        }
        Err(Error::failed(&what, String::from_utf8_lossy(&output.stderr).trim(), REMEDY))
    }

    /// The file of a package; downloaded unless it is there.
    fn download(&mut self, package: &str) -> Result<PathBuf> {
        if let Some(there) = self.downloaded(package)? {
            return Ok(there);
        }
        let step = Step::begin(format!("package {package} (Debian)"), self.quiet);
        let what = format!("cannot download the package {package}");
        let fetch = || {
            let mut command = Command::new("apt-get");
            command.args(["download", "-q", package]).current_dir(&self.folder);
            process::run(&mut command, &what, REMEDY)
        };
        if fetch().is_err() {
            self.refresh()?;
            let mut command = Command::new("apt-get");
            command.args(["download", "-q", package]).current_dir(&self.folder);
            process::run(&mut command, &what, REMEDY)?;
        }
        step.done();
        self.downloaded(package)?
            .ok_or_else(|| Error::failed(&what, "apt-get left no file", REMEDY))
    }

    /// The newest file of a package that is there.
    fn downloaded(&self, package: &str) -> Result<Option<PathBuf>> {
        let entries = std::fs::read_dir(&self.folder)
            .map_err(|cause| Error::file("read", &self.folder, &cause))?;
        let begin = format!("{package}_");
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin))
            })
            .collect();
        found.sort();
        Ok(found.pop())
    }

    /// Gets the list of packages, once.
    fn refresh(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.refreshed, true) {
            provision::refresh_package_list()?;
        }
        Ok(())
    }
}

/// How the name of a package with a kernel begins; the kernel's version follows.
const KERNEL_PACKAGES: [&str; 3] = ["linux-image-unsigned-", "linux-image-", "linux-binary-"];

/// The package with a kernel among those that an answer of `apt-cache depends` names, wherever it stands there: newer meta packages name
/// `linux-base` before it. A dependency may be one of several (`|Depends:`), and may be a virtual package (`<...>`), whose providers stand
/// indented below it.
fn kernel_dependency(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let names = text.lines().skip(1).filter_map(|line| {
        let line = line.trim().trim_start_matches('|');
        let name = match line.split_once(':') {
            Some(("Depends" | "PreDepends", names)) => names,
            // `package:amd64` has no space behind the colon, as a kind of dependency has.
            Some((_, rest)) if rest.starts_with(' ') => return None,
            _ => line,
        };
        // A version, as `(= 6.12.38-1)`, may follow.
        name.split_whitespace().next()
    });
    names.filter(|name| is_kernel(name)).map(|name| bare_name(name).to_string()).next()
}

/// A real package with a kernel: its name goes on with the version. `linux-image-amd64` and the like stand for one, and `-dbg` has symbols
/// alone.
fn is_kernel(name: &str) -> bool {
    let name = bare_name(name);
    let version = KERNEL_PACKAGES.iter().find_map(|beginning| name.strip_prefix(beginning));
    let version = version.filter(|version| !version.ends_with("-dbg"));
    version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

/// Without the architecture, as in `package:amd64`.
fn bare_name(name: &str) -> &str {
    name.split_once(':').map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_leads_to_the_one_of_today() {
        let meta = "linux-image-rt-amd64\n";
        for (behind, wanted) in [
            (
                "  Depends: linux-image-6.1.0-13-rt-amd64\n  Depends: other\n",
                "linux-image-6.1.0-13-rt-amd64",
            ),
            (
                "  Depends: linux-base\n  Depends: linux-image-6.12.38+deb13-rt-amd64\n",
                "linux-image-6.12.38+deb13-rt-amd64",
            ),
            (
                " |Depends: linux-image-6.16.3+deb14-amd64\n  Depends: linux-image-unsigned-6.16.3+deb14-amd64\n",
                "linux-image-6.16.3+deb14-amd64",
            ),
            (
                " |Depends: initramfs-tools\n  Depends: <linux-initramfs-tool>\n    dracut\n  PreDepends: linux-image-7.0-amd64 (= 7.0.1-1)\n",
                "linux-image-7.0-amd64",
            ),
            (
                "  Depends: <linux-image-7>\n    linux-image-7.1-amd64:amd64\n",
                "linux-image-7.1-amd64",
            ),
            (
                "  Depends: linux-image-rt-amd64-signed-template\n  Depends: linux-image-6.1-amd64-dbg\n  Depends: linux-image-6.1-rt-amd64\n",
                "linux-image-6.1-rt-amd64",
            ),
            (
                "  Recommends: linux-image-5.0-amd64\n  Depends: linux-image-6.0-amd64\n",
                "linux-image-6.0-amd64",
            ),
        ] {
            let answer = format!("{meta}{behind}");
            assert_eq!(kernel_dependency(answer.as_bytes()).as_deref(), Some(wanted), "{behind}");
        }
        for none in [
            "",
            "  Depends: linux-base\n",
            "  Depends: <linux-image-6>\n",
            "  Breaks: linux-image-6.1-amd64\n",
        ] {
            assert_eq!(kernel_dependency(format!("{meta}{none}").as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn what_was_downloaded_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tool_1.0_amd64.deb", "tool_1.1_amd64.deb", "tool-extra_9_amd64.deb", "tool_2"]
        {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let packages =
            Packages { folder: folder.path().to_path_buf(), refreshed: true, quiet: true };
        let found = packages.downloaded("tool").unwrap().unwrap();
        assert!(found.ends_with("tool_1.1_amd64.deb"));
        assert!(packages.downloaded("other").unwrap().is_none());
    }
}
