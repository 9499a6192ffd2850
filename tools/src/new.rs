//! `bulkhead new`: writes a commented system file that checks and runs, for a board.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use bulkhead_config::{Starter, starter};

use crate::compile::rendered;
use crate::error::{Error, Result};
use crate::paths;

/// Writes `<name>.toml`, or `output`, for the board; gives the path.
///
/// What is written was checked; a file that is there stays as it is.
///
/// # Errors
/// The name is none, the board file is wrong or too small for the starter, or the file is there already.
pub fn new(name: &str, board: &Path, output: Option<PathBuf>) -> Result<PathBuf> {
    let board = paths::absolute(board)?;
    let guests = paths::root()?.join("partitions/guests");
    let output = output.unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => paths::absolute(parent)?,
        _ => paths::absolute(Path::new("."))?,
    };
    let wish = Starter {
        name,
        board: &board,
        board_as_written: &written(&folder, &board)?,
        guests: &written(&folder, &paths::absolute(&guests)?)?,
    };
    let text = starter(&wish).map_err(|found| {
        Error::Rejected(format!("no system file is written\n{}", rendered(&found)))
    })?;
    save(&folder, &output, &text)?;
    Ok(output)
}

/// The way from a folder to a path, as text.
fn written(folder: &Path, path: &Path) -> Result<String> {
    let way = relative(folder, path);
    way.to_str().map(str::to_owned).ok_or_else(|| {
        Error::refused(
            format!("cannot name {} in a system file", path.display()),
            "its path is not UTF-8, and a system file is",
            "rename the folder",
        )
    })
}

/// The way from a folder to a path; both are absolute and without links.
fn relative(folder: &Path, path: &Path) -> PathBuf {
    let from: Vec<Component<'_>> = folder.components().collect();
    let to: Vec<Component<'_>> = path.components().collect();
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n(Component::ParentDir, from.len() - common);
    up.chain(to.iter().skip(common).copied()).collect()
}

/// Checks the text as a file beside its place, then moves it there.
fn save(folder: &Path, output: &Path, text: &str) -> Result<()> {
    let failed = |cause: &std::io::Error| Error::file("write", output, cause);
    let mut file = tempfile::Builder::new()
        .suffix(".toml")
        .permissions(readable_by_all())
        .tempfile_in(folder)
        .map_err(|cause| failed(&cause))?;
    file.write_all(text.as_bytes()).map_err(|cause| failed(&cause))?;
    bulkhead_config::check_without_images(file.path()).map_err(|found| {
        Error::Rejected(format!("the board has no room for a starter\n{}", rendered(&found)))
    })?;
    match file.persist_noclobber(output) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::refused(
                format!("cannot write {}", output.display()),
                "it is there already, and nothing is overwritten",
                "choose another name, or another file with --output",
            ))
        }
        Err(error) => Err(failed(&error.error)),
    }
}

/// As an ordinary new file: a temporary one would be the owner's alone.
fn readable_by_all() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boards that ship.
    fn boards() -> Vec<PathBuf> {
        let folder = paths::root().unwrap().join("partitions/boards");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect()
    }

    /// The shipped board that everything runs on.
    fn bochs() -> PathBuf {
        paths::root().unwrap().join("partitions/boards/bochs-skylake-x.toml")
    }

    #[test]
    fn the_starter_of_each_shipped_board_checks_without_a_warning_and_is_formatted() {
        for board in boards() {
            let folder = tempfile::tempdir().unwrap();
            let output = folder.path().join("line.toml");
            let written = new("line", &board, Some(output.clone()));
            // QEMU has no VT-x: its board is shipped to be looked at, and nothing starts from it.
            if board.ends_with("qemu-q35.toml") {
                let refused = written.unwrap_err().to_string();
                assert!(refused.contains("BH0236") && !output.exists(), "{refused}");
                continue;
            }
            written.unwrap();
            let plan = bulkhead_config::check_without_images(&output).unwrap();
            assert!(plan.warnings().is_empty(), "{}\n{}", board.display(), plan.warnings());
            assert_eq!(crate::fmt::fmt(&[output], true).unwrap(), [] as [PathBuf; 0]);
        }
    }

    #[test]
    fn it_adapts_to_the_cores_and_the_clock() {
        let text = fs::read_to_string(bochs()).unwrap();
        let cores = "[[core]]\napic-id = ";
        let (head, rest) = text.split_once(cores).unwrap();
        let memory = rest.split_once("[[memory]]").unwrap().1;
        for (count, clock) in [(1, "50 MHz"), (2, "2399999963 Hz"), (7, "2.4 GHz")] {
            let list: String = (0..count).map(|id| format!("{cores}{id}\n")).collect();
            // 25 us and 100 ns need not be whole ticks of the other clocks.
            let head = head
                .replace("\"50 MHz\"", &format!("\"{clock}\""))
                .replace("\"25 us\"", "\"60000 ticks\"")
                .replace("\"100 ns\"", "\"240 ticks\"");
            let folder = tempfile::tempdir().unwrap();
            let board = folder.path().join("board.toml");
            let bare: String = head
                .split_inclusive('\n')
                .filter(|line| {
                    !line.starts_with("l1d")
                        && !line.starts_with("branch")
                        && !line.starts_with("buffer")
                })
                .collect();
            fs::write(&board, format!("{bare}{list}[[memory]]{memory}")).unwrap();
            let output = folder.path().join("line.toml");
            new("line", &board, Some(output.clone())).unwrap();
            let plan = bulkhead_config::check_without_images(&output).unwrap();
            assert_eq!(plan.partitions().len(), if count == 1 { 1 } else { 2 }, "{count}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_a_bad_name_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("line.toml");
        fs::write(&output, "mine").unwrap();
        let refused = new("line", &bochs(), Some(output.clone())).unwrap_err();
        assert!(refused.to_string().contains("there already"), "{refused}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
        let other = folder.path().join("other.toml");
        let refused = new("Line 1", &bochs(), Some(other.clone())).unwrap_err();
        assert!(refused.to_string().contains("BH0110") && !other.exists(), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_way_between_folders_is_found() {
        let way = |from: &str, to: &str| relative(Path::new(from), Path::new(to));
        assert_eq!(way("/a/b", "/a/b/c.toml"), Path::new("c.toml"));
        assert_eq!(way("/a/b/c", "/a/d/e.toml"), Path::new("../../d/e.toml"));
        assert_eq!(way("/", "/x"), Path::new("x"));
    }
}
