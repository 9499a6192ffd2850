//! Where things lie: the tree this command was built from, and where it builds.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Root of the tree that this command was built from: it holds the hypervisor's sources.
///
/// # Errors
/// The tree is not there any more.
pub fn root() -> Result<PathBuf> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    match room.parent() {
        Some(root) if root.join("hv").is_dir() => Ok(root.to_path_buf()),
        _ => Err(Error::failed(
            "cannot find the hypervisor's sources",
            format!(
                "this command was built from {}, which is not a Bulkhead tree now",
                room.display()
            ),
            "run it as `cargo bulkhead ...` inside a clone of Bulkhead",
        )),
    }
}

/// Cargo's target directory for the tree.
///
/// # Errors
/// The tree is not there any more.
pub fn target() -> Result<PathBuf> {
    let root = root()?;
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    })
}

/// Where everything that belongs to the system `name` is built.
///
/// # Errors
/// The tree is not there any more.
pub fn work(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("bulkhead").join(name))
}

/// The absolute form of `path`, which must exist.
///
/// # Errors
/// No such file, or no right to see it.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => {
            Error::refused(format!("cannot find {}", path.display()), cause, "check the path")
        }
        _ => Error::file("find", path, &cause),
    })
}

/// `path` as it is told from `folder`, both absolute.
#[must_use]
pub fn relative(path: &Path, folder: &Path) -> PathBuf {
    pathdiff::diff_paths(path, folder).unwrap_or_else(|| path.to_path_buf())
}

/// Creates `folder` and all above it.
///
/// # Errors
/// The file system says no.
pub fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|cause| Error::file("create the folder", folder, &cause))
}

/// Reads a whole file.
///
/// # Errors
/// The file system says no.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|cause| Error::file("read", path, &cause))
}

/// Writes a whole file.
///
/// # Errors
/// The file system says no.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|cause| Error::file("write", path, &cause))
}

/// Whether a file can be written there once minutes of work have gone by. Leaves everything as it is.
///
/// # Errors
/// It cannot.
pub fn can_write(path: &Path) -> Result<()> {
    let known = fs::symlink_metadata(path);
    // To open a pipe or a device would wait for somebody, or tell it something.
    if fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
        return Ok(());
    }
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|cause| Error::file("write", path, &cause))?;
    if known.is_err() { remove_stale(path) } else { Ok(()) }
}

/// Writes a file that is not there yet.
///
/// # Errors
/// It is there, or the file system says no.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = fs::OpenOptions::new().write(true).create_new(true).open(path);
    match new.and_then(|mut file| file.write_all(bytes)) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Err(Error::refused(
            format!("cannot write {}", path.display()),
            "it is there already, and nothing is overwritten",
            "choose another name, and compare the two with `diff` or `bulkhead diff`",
        )),
        done => done.map_err(|cause| Error::file("write", path, &cause)),
    }
}

/// Writes a file only when that changes it, so that cargo sees no news where there is none.
///
/// # Errors
/// The file system says no.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(present) if present == bytes => Ok(()),
        _ => write(path, bytes),
    }
}

/// `path` with `suffix` appended to its whole name: `demo.img` and `.elf` give `demo.img.elf`.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes what is there from an earlier run; nothing there is fine.
///
/// # Errors
/// The file system says no.
pub fn remove_stale(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove", path, &cause))
        }
        _ => Ok(()),
    }
}

/// Whether this is a system file, by its name: anything else is taken for an image or a log.
#[must_use]
pub fn is_system(path: Option<&Path>) -> bool {
    path.and_then(Path::extension).is_some_and(|extension| extension == "toml")
}

/// What is said where a board is chosen for something that is no system file.
#[must_use]
pub fn no_other_board(source: impl std::fmt::Display) -> Error {
    Error::refused(
        format!("cannot put {source} on another board"),
        "an image is built for the board that it names",
        "give the system file instead, or leave --board out",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_keeps_the_whole_name() {
        assert_eq!(beside(Path::new("a/demo.img"), ".elf"), Path::new("a/demo.img.elf"));
    }

    #[test]
    fn an_unchanged_file_keeps_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_if_changed(&path, b"one").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        write_if_changed(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        write_if_changed(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
    }

    #[test]
    fn removing_nothing_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        remove_stale(&folder.path().join("absent")).unwrap();
    }
}
