//! `bulkhead probe`: a machine's board file, on a running Linux, from the probe image, or out of its serial log.

pub mod image;
mod iomem;
pub mod linux;

use std::path::{Path, PathBuf};

use bulkhead_board::{Board, Facts, log};

use crate::error::{Error, Result};
use crate::paths;

pub use bulkhead_board::{NAME, told};
pub use image::{Machine, Probed, build, capture, run, run_folder};

/// Where the facts come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The Linux that runs this.
    #[default]
    Here,
    /// A serial log of the probe image.
    Log(PathBuf),
    /// Raw facts that another machine's `bulkhead probe --facts` wrote.
    Facts(PathBuf),
}

/// The board file of the machine that the source tells of.
///
/// # Errors
/// The source cannot be read, or holds no board.
pub fn board_file(source: &Source, name: &str) -> Result<String> {
    match source {
        Source::Here => {
            let facts = linux::gather(Path::new("/"));
            Ok(Board::conclude(name, &facts).to_toml("on a running Linux"))
        }
        Source::Facts(path) => {
            let text = String::from_utf8_lossy(&paths::read(path)?).into_owned();
            let facts = Facts::parse(&text).map_err(|cause| {
                let what = format!("cannot read raw facts from {}", path.display());
                Error::refused(what, cause, "give a file that `bulkhead probe --facts` wrote")
            })?;
            Ok(Board::conclude(name, &facts).to_toml("from raw facts of another machine"))
        }
        Source::Log(path) => {
            let text = String::from_utf8_lossy(&paths::read(path)?).into_owned();
            from_log(&text, &path.display().to_string(), name)
        }
    }
}

/// The board file in a serial log of the probe image, with its name exchanged.
///
/// # Errors
/// The log holds none, or a damaged one.
pub fn from_log(log: &str, whose: &str, name: &str) -> Result<String> {
    let found = log::take(log).map_err(|cause| {
        let remedy = "capture the port again, from before the machine starts, at 115200 baud, 8N1";
        Error::refused(format!("cannot take a board file out of {whose}"), cause, remedy)
    })?;
    Ok(renamed(&found, name))
}

/// The probe image does not know how the board should be called.
fn renamed(board: &str, name: &str) -> String {
    let own = format!("[board]\nname = \"{NAME}\"\n");
    board.replacen(&own, &format!("[board]\nname = \"{name}\"\n"), 1)
}

/// Refuses a name that a board file cannot have.
///
/// # Errors
/// The name is not `[a-z][a-z0-9-]*` of at most 32 characters.
pub fn check_name(name: &str) -> Result<()> {
    let good = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good {
        return Ok(());
    }
    Err(Error::refused(
        format!("a board cannot be called `{name}`"),
        "a name begins with a lower-case letter and goes on with lower-case letters, digits and hyphens, 32 at most",
        format!("choose another name, such as {NAME}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured() -> String {
        let board = Board::conclude(NAME, &Facts::default()).to_toml("here");
        format!(
            "noise\r\n{}\r\n{}{} {:08x}\r\nmore",
            log::BEGIN,
            board.replace('\n', "\r\n"),
            log::END,
            log::sum(&board)
        )
    }

    #[test]
    fn a_log_gives_its_board_under_the_wanted_name() {
        let board = from_log(&captured(), "x.log", "press").unwrap();
        assert!(board.contains("[board]\nname = \"press\"\n"), "{board}");
        assert!(!board.contains('\r') && !board.contains("noise"));
    }

    #[test]
    fn a_damaged_log_is_refused() {
        let log = captured();
        assert!(from_log(&log.replacen("[board]", "[bOard]", 1), "x.log", "a").is_err());
        assert!(from_log(&log[..log.len() / 2], "x.log", "a").is_err());
        let error = from_log("", "x.log", "a").unwrap_err().to_string();
        assert!(error.contains("x.log") && error.contains("holds no board file"), "{error}");
    }

    /// Facts of a processor of Intel's that shows turbo and SpeedStep, and whose registers hold these values.
    fn powered(power: &str) -> Board {
        let text = format!(
            "core 0\nleaf 0 0 6 756e6547 6c65746e 49656e69\nleaf 1 0 0 0 80 0\nleaf 6 0 2 0 0 0\n{power}"
        );
        Board::conclude(NAME, &Facts::parse(&text).unwrap())
    }

    #[test]
    fn what_the_hypervisor_can_own_is_proposed_and_not_chosen() {
        let read = "power ce 2400\npower 199 2d00\npower 1a0 850089\npower 1fc 2\n";
        let text = powered(read).to_toml("here");
        assert!(!text.lines().any(|line| line.starts_with("[power]")), "{text}");
        let words = ["# [power]", "# turbo = ", "# frequency = ", "# idle = "];
        let proposed = |line: &&str| words.iter().any(|word| line.starts_with(word));
        let section: Vec<&str> = text.lines().filter(proposed).map(|line| &line[2..]).collect();
        assert_eq!(section.len(), words.len(), "{text}");

        // With the `#` taken off the compiler takes it.
        let boards = paths::root().unwrap().join("partitions/boards");
        let shipped = std::fs::read_to_string(boards.join("bochs-skylake-x.toml")).unwrap();
        let as_firmware_left_it =
            "[power]\nturbo = \"firmware\"\nfrequency = \"firmware\"\nidle = \"firmware\"\n";
        assert!(shipped.contains(as_firmware_left_it));
        let board = shipped.replace(as_firmware_left_it, &(section.join("\n") + "\n"));
        let system = std::fs::read_to_string(boards.join("../demo.toml")).unwrap();
        let guests = boards.join("../guests").display().to_string();
        let system = system.replace("\"guests/", &format!("\"{guests}/"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("boards")).unwrap();
        std::fs::write(folder.path().join("boards/bochs-skylake-x.toml"), &board).unwrap();
        std::fs::write(folder.path().join("demo.toml"), system).unwrap();
        crate::compile::plan(&folder.path().join("demo.toml")).unwrap();
    }

    #[test]
    fn what_was_not_seen_of_power_is_said() {
        let text = powered("").to_toml("here");
        assert!(text.contains("\n# turbo = \"off\"   # the processor raises its clock"), "{text}");
        for part in ["Not proposed: `frequency = \"base\"`", "Not proposed: `idle = \"c1\"`"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        let nothing = Board::conclude(NAME, &Facts::default()).to_toml("here");
        assert!(
            !nothing.contains("# [power]") && nothing.contains("Not proposed: `turbo"),
            "{nothing}"
        );
    }

    #[test]
    fn names_are_checked() {
        check_name("press-7").unwrap();
        for bad in ["", "7", "Press", "a\"b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
