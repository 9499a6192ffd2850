//! Writes system files: changed copies of those that ship, and systems made of attackers and victims.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bulkhead::paths;

use crate::bench::{folder, root, sure};

/// The board that this project tests on.
#[must_use]
pub fn board() -> PathBuf {
    root().join("partitions/boards/bochs-skylake-x.toml")
}

/// Writes a system file with this text into the folder `name`. In the text, `@` stands for the absolute path of
/// `partitions`.
///
/// # Panics
/// The file system says no.
#[must_use]
pub fn write(name: &str, text: &str) -> PathBuf {
    let path = folder(name).join(format!("{name}.toml"));
    let partitions = root().join("partitions").display().to_string();
    let text = text.replace('@', &partitions);
    sure(name, paths::write_if_changed(&path, text.as_bytes()));
    path
}

/// A copy of `partitions/<system>.toml` called `name`, with texts exchanged: (old, new), where each old text must
/// occur exactly once.
///
/// # Panics
/// A text does not occur exactly once.
#[must_use]
pub fn changed(system: &str, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let original = root().join(format!("partitions/{system}.toml"));
    let mut text = read(&original)
        .replace("image = \"guests/", "image = \"@/guests/")
        .replace("= \"linux/", "= \"@/linux/")
        .replace("board = \"boards/", "board = \"@/boards/");
    for (old, new) in changes {
        text = exchange(&text, old, new, &original);
    }
    write(name, &text)
}

/// A copy of the board file called `name`, with texts exchanged.
///
/// # Panics
/// A text does not occur exactly once.
#[must_use]
pub fn changed_board(name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = read(&board());
    for (old, new) in changes {
        text = exchange(&text, old, new, &board());
    }
    let path = folder(name).join("board.toml");
    sure(name, paths::write_if_changed(&path, text.as_bytes()));
    path
}

/// Puts `new` in the place of `old`.
///
/// # Panics
/// `old` does not occur exactly once: the file has moved on, and the change would hit nothing or too much.
#[must_use]
pub fn exchange(text: &str, old: &str, new: &str, file: &Path) -> String {
    let found = text.matches(old).count();
    assert!(found == 1, "{}: occurs {found} times, not once: {old}", file.display());
    text.replacen(old, new, 1)
}

/// The text of a file.
///
/// # Panics
/// It cannot be read, or is not UTF-8.
#[must_use]
pub fn read(path: &Path) -> String {
    let bytes = sure("read", paths::read(path));
    sure(&path.display().to_string(), String::from_utf8(bytes))
}

/// Ticks between two windows: the board's switch budget, in microseconds.
const GAP: u32 = 25;

/// Composes a system of windows on core 0 and dedicated cores from 1 on.
pub struct Composer {
    text: String,
    finish: Vec<String>,
    next_window: u32,
    next_core: u32,
}

impl Default for Composer {
    fn default() -> Self {
        Self { text: String::new(), finish: Vec::new(), next_window: GAP, next_core: 1 }
    }
}

impl Composer {
    /// Adds a partition with a core of its own.
    pub fn dedicated(&mut self, name: &str, guest: &str, arguments: &str) {
        let core = self.next_core;
        self.next_core += 1;
        self.partition(name, guest, arguments, core);
    }

    /// Adds a partition with a window of this many microseconds on core 0.
    pub fn shared(&mut self, name: &str, guest: &str, arguments: &str, length: u32) {
        self.partition(name, guest, arguments, 0);
        self.window(&format!("partition.{name}"), length);
    }

    /// The run waits for this partition's end.
    pub fn must_finish(&mut self, name: &str) {
        self.finish.push(format!("\"{name}\""));
    }

    /// Writes the system: what was added, and a housekeeping window of this many microseconds.
    ///
    /// # Panics
    /// The file system says no.
    #[must_use]
    pub fn write(
        mut self,
        name: &str,
        board: &Path,
        housekeeping: u32,
        at_latest: &str,
    ) -> PathBuf {
        self.window("housekeeping", housekeeping);
        let head = format!(
            "# Written by the judge.\n[system]\nname = \"{name}\"\nboard = \"{}\"\n\
             [schedule]\nframe = \"{} us\"\n\
             [shutdown]\nwhen-finished = [{}]\nat-latest = \"{at_latest}\"\n\
             [housekeeping]\ncore = 0\n",
            board.display(),
            self.next_window,
            self.finish.join(", "),
        );
        write(name, &(head + &self.text))
    }

    fn partition(&mut self, name: &str, guest: &str, arguments: &str, core: u32) {
        let _always_fits = write!(
            self.text,
            "[partition.{name}]\nimage = \"@/guests/{guest}\"\narguments = \"{arguments}\"\n\
             memory = \"8 MiB\"\ncores = [{core}]\n"
        );
    }

    fn window(&mut self, owner: &str, length: u32) {
        let start = self.next_window;
        let _always_fits = write!(
            self.text,
            "[[{owner}.window]]\nstart = \"{start} us\"\nlength = \"{length} us\"\n"
        );
        self.next_window = start + length + GAP;
    }
}
