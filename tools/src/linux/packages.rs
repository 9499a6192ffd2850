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

    /// The package that a meta package such as `linux-image-amd64` stands for today.
    ///
    /// # Errors
    /// Debian has no such package.
    pub fn behind(&mut self, meta: &str) -> Result<String> {
        let what = format!("cannot ask Debian what {meta} stands for");
        let ask = || {
            let mut command = Command::new("apt-cache");
            process::run(command.args(["depends", "--important", meta]), &what, REMEDY)
        };
        let answer = match ask() {
            Ok(answer) if dependency(&answer).is_some() => answer,
            _ => {
                self.refresh()?;
                ask()?
            }
        };
        dependency(&answer)
            .ok_or_else(|| Error::failed(what.clone(), "it depends on nothing", REMEDY))
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

/// The first package that an answer of `apt-cache depends` names.
fn dependency(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    lines.next().map(|name| name.trim_matches(['<', '>']).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_leads_to_the_one_of_today() {
        let answer =
            b"linux-image-rt-amd64\n  Depends: linux-image-6.1.0-13-rt-amd64\n  Depends: other\n";
        assert_eq!(dependency(answer).as_deref(), Some("linux-image-6.1.0-13-rt-amd64"));
        assert_eq!(dependency(b"linux-image-rt-amd64\n"), None);
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
