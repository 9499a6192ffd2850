//! `bulkhead fmt`: formats system and board files in place, or says which are not formatted.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bulkhead_config::{FormatError, Formatted, format_file};

use crate::compile::rendered;
use crate::error::{Error, Result};
use crate::paths;

/// Formats each file in place; with `check`, writes nothing. Gives the files that were changed, or would be.
///
/// Every file is read before the first is written: one that is no TOML leaves all as they are.
///
/// # Errors
/// A file cannot be read, is no TOML, or cannot be written.
pub fn fmt(files: &[PathBuf], check: bool) -> Result<Vec<PathBuf>> {
    let read = |path: &PathBuf| Ok((path.clone(), formatted(path)?));
    let all: Vec<(PathBuf, Formatted)> = files.iter().map(read).collect::<Result<_>>()?;
    let changed: Vec<_> = all.into_iter().filter(|(_, text)| text.before != text.after).collect();
    if !check {
        for (path, text) in &changed {
            replace(path, &text.after)?;
        }
    }
    Ok(changed.into_iter().map(|(path, _)| path).collect())
}

/// What the command does with [`fmt`]: names the files; with `check`, files that are not formatted are an error.
///
/// # Errors
/// As [`fmt`].
pub fn run(files: &[PathBuf], check: bool) -> Result<()> {
    let changed = fmt(files, check)?;
    let names: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
    if check && !names.is_empty() {
        return Err(Error::Verdict(format!(
            "not formatted: {}\n  remedy: `bulkhead fmt {}`",
            names.join(", "),
            names.join(" ")
        )));
    }
    for name in names {
        println!("formatted {name}");
    }
    Ok(())
}

fn formatted(path: &Path) -> Result<Formatted> {
    format_file(path).map_err(|error| match error {
        FormatError::Rejected(found) => {
            Error::Rejected(format!("{} is left as it is\n{}", path.display(), rendered(&found)))
        }
        FormatError::Unsafe(cause) => Error::failed(
            format!("{} is left as it is", path.display()),
            cause,
            "format this file by hand, and tell us: the formatter should be able to",
        ),
    })
}

/// Writes beside the file and renames, so that a reader, or a crash, sees the old text or the new one, whole. A link
/// stays a link, and the rights stay what they are.
fn replace(path: &Path, text: &str) -> Result<()> {
    let target = paths::absolute(path)?;
    let failed = |cause: &std::io::Error| Error::file("write", &target, cause);
    let rights = fs::metadata(&target).map_err(|cause| failed(&cause))?.permissions();
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(|cause| failed(&cause))?;
    new.write_all(text.as_bytes())
        .and_then(|()| new.as_file().set_permissions(rights))
        .and_then(|()| new.as_file().sync_all())
        .map_err(|cause| failed(&cause))?;
    new.persist(&target).map_err(|error| failed(&error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_changed_once_with_its_rights_and_links_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("real.toml");
        fs::write(&file, "# A comment.\n[system]\nname=\"x\"\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.toml");
        symlink(&file, &link).unwrap();
        let files = [link.clone()];
        assert_eq!(fmt(&files, true).unwrap(), files);
        assert!(run(&files, true).is_err());
        assert_eq!(fmt(&files, false).unwrap(), files);
        assert_eq!(fs::read_to_string(&file).unwrap(), "# A comment.\n[system]\nname = \"x\"\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fmt(&files, false).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn broken_toml_leaves_every_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good.toml"), folder.path().join("bad.toml"));
        fs::write(&good, "a=1\n").unwrap();
        fs::write(&bad, "name = \"x\n").unwrap();
        let error = fmt(&[good.clone(), bad.clone()], false).unwrap_err().to_string();
        assert!(error.contains("BH0101") && error.contains("bad.toml"), "{error}");
        assert_eq!(fs::read_to_string(&good).unwrap(), "a=1\n");
        assert_eq!(fs::read_to_string(&bad).unwrap(), "name = \"x\n");
    }
}
