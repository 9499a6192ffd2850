//! Systems of any size, for what must grow with them no faster than they do.
#![allow(dead_code, reason = "the benchmark takes less of it than the tests")]

use std::fmt::Write;
use std::path::PathBuf;

use tempfile::TempDir;

/// Cores that each partition brings along.
pub const CORES_EACH: usize = 4;

/// Partitions in a block: two with dedicated cores, two that share theirs.
const BLOCK: usize = 4;

/// Memory of the board, in GiB: one TiB, in ranges with holes between them.
const MEMORY: usize = 1 << 10;
const RANGES: usize = 16;

/// A system in a folder of its own.
pub struct Scaled {
    /// Deleted with this value.
    pub folder: TempDir,
    /// The system file.
    pub system: PathBuf,
}

impl Scaled {
    /// A system of so many partitions, a multiple of 4, and 4 times as many cores, on a board with 1 TiB of memory.
    pub fn new(partitions: usize) -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("guest"))?;
        std::fs::write(folder.path().join("guest/Makefile"), "# Never run.\n")?;
        std::fs::write(folder.path().join("board.toml"), board(partitions * CORES_EACH))?;
        let system = folder.path().join("system.toml");
        std::fs::write(&system, text(partitions))?;
        Ok(Self { folder, system })
    }
}

fn board(cores: usize) -> String {
    let mut text = "[board]\nname = \"large\"\n[clock]\ntsc = \"2.4 GHz\"\ntolerance = \"0.1 %\"\nskew = \"100 ns\"\n\
         switch-budget = \"20 us\"\n[hypervisor]\nstart = 0x100000\nsize = \"255 MiB\"\n[serial]\nport = 0x3f8\n\
         baud = 115200\n"
        .to_owned();
    for core in 0..cores {
        let _ = writeln!(
            text,
            "[[core]]\napic-id = {core}\npackage = {}\ncore = {}\nthread = 0",
            core / 64,
            core % 64
        );
    }
    let size = MEMORY / RANGES;
    for range in 0..RANGES {
        // The first range starts behind the first MiB, each ends a GiB before the next begins.
        let start = if range == 0 { 1 << 20 } else { (range * size) << 30 };
        let _ = writeln!(text, "[[memory]]\nstart = {start}\nsize = \"{} GiB\"", size - 1);
    }
    text
}

fn text(partitions: usize) -> String {
    let names: Vec<_> = (0..partitions).map(|id| format!("\"p{id}\"")).collect();
    let mut text = format!(
        "[system]\nname = \"large\"\nboard = \"board.toml\"\n[schedule]\nframe = \"2 ms\"\n[shutdown]\n\
         when-finished = [{}]\n[housekeeping]\ncore = 8\n[[housekeeping.window]]\nstart = \"1.5 ms\"\n\
         length = \"480 us\"\n",
        names.join(", ")
    );
    for id in 0..partitions {
        let first = id / BLOCK * BLOCK * CORES_EACH;
        match id % BLOCK {
            alone @ (0 | 1) => dedicated(&mut text, id, first + alone * CORES_EACH),
            sharing => shared(&mut text, id, first + 2 * CORES_EACH, 700 * (sharing - 2) + 20),
        }
    }
    text
}

fn section(text: &mut String, id: usize, cores: std::ops::Range<usize>) {
    let cores: Vec<_> = cores.map(|core| core.to_string()).collect();
    let _ = writeln!(
        text,
        "[partition.p{id}]\nimage = \"guest\"\nmemory = \"2 GiB\"\ncores = [{}]",
        cores.join(", ")
    );
}

fn dedicated(text: &mut String, id: usize, first: usize) {
    section(text, id, first..first + CORES_EACH);
}

fn shared(text: &mut String, id: usize, first: usize, start: usize) {
    section(text, id, first..first + 2 * CORES_EACH);
    for core in first..first + 2 * CORES_EACH {
        let _ = writeln!(
            text,
            "[[partition.p{id}.window]]\ncore = {core}\nstart = \"{start} us\"\nlength = \"600 us\""
        );
    }
}
