//! A starter: a system file for a board, with comments, that checks and runs as it is written.

use std::path::Path;

use toml_edit::Value;

use crate::board::{self, CheckedBoard};
use crate::diagnostics::{Diagnostics, Finding, Findings};
use crate::plan::read_board_file;
use crate::reader::{is_name, name_rule};
use crate::rules::Rule;
use crate::source::Sources;
use crate::units::duration_text;

/// What a starter is made for.
#[derive(Clone, Copy, Debug)]
pub struct Starter<'s> {
    /// `[system] name`.
    pub name: &'s str,
    /// The board file.
    pub board: &'s Path,
    /// The board file's path as the system file is to name it.
    pub board_as_written: &'s str,
    /// The path of the folder with the shipped guests, as the system file is to name it.
    pub guests: &'s str,
}

/// The text of a system file for the board: one partition in windows on core 0, and one that has a core for itself
/// where there is another core that shares nothing with core 0.
///
/// # Errors
/// The name is no name of the language, or the board file is wrong.
pub fn starter(wish: &Starter<'_>) -> Result<String, Diagnostics> {
    let mut sources = Sources::default();
    let mut findings = Findings::default();
    if !is_name(wish.name) {
        let message = format!("`{}` is no name for a system", wish.name);
        findings.push(Finding::new(Rule::BadName, message, name_rule()));
    }
    let facts = facts(wish.board, &mut sources, &mut findings);
    match facts {
        Some(facts) if !findings.has_errors() => Ok(text(wish, &facts)),
        _ => Err(findings.resolve(&sources)),
    }
}

/// What of the board decides how the starter looks.
struct Facts {
    board: String,
    hz: u64,
    budget: u64,
    cores: usize,
    /// A core for a partition alone: no thread of the one that boots.
    alone: Option<usize>,
}

fn facts(path: &Path, sources: &mut Sources, findings: &mut Findings) -> Option<Facts> {
    let main = match sources.read(path) {
        Ok(file) => file,
        Err(unread) => {
            findings.push(unread.finding(
                "the board file ",
                path,
                "name a board file, such as partitions/boards/bochs-skylake-x.toml",
            ));
            return None;
        }
    };
    let file = read_board_file(main, sources, findings)?;
    let board = board::check(&file, findings);
    let cores = board.apic_ids.as_ref()?.len();
    Some(Facts {
        alone: core_alone(&board, cores),
        board: board.name?,
        hz: board.hz?,
        budget: board.switch_budget?.value,
        cores,
    })
}

fn core_alone(board: &CheckedBoard, cores: usize) -> Option<usize> {
    let positions = &board.topology.positions;
    let beside_the_first = |core: usize| {
        let both = positions.first().zip(positions.get(core));
        both.is_some_and(|(first, other)| first.is_sibling_of(*other))
    };
    (1..cores).find(|core| !beside_the_first(*core))
}

/// Frames a second: 2 ms each, as the shipped systems have them.
const FRAMES_A_SECOND: u64 = 500;

/// Shortest frame in switch budgets: what switching takes stays below a tenth of the core.
const LEAST_BUDGETS: u64 = 20;

fn text(wish: &Starter<'_>, facts: &Facts) -> String {
    [head(wish, facts), shared(wish, facts), alone(wish, facts)].concat()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn head(wish: &Starter<'_>, facts: &Facts) -> String {
    let name = wish.name;
    let finished = if facts.alone.is_some() { "\"plc\", \"motion\"" } else { "\"plc\"" };
    format!(
        "# A system for the board {board}, written by `bulkhead new`. Every line is yours to change.
#
#   cargo bulkhead check {name}.toml     proves it, and shows who has what
#   cargo bulkhead run {name}.toml       builds it and runs it in an emulator
#   cargo bulkhead fmt {name}.toml       puts it into shape
#   cargo bulkhead explain               lists the rules; config/README.md has every key

[system]
name = {name_quoted}
# What the machine has: cores, memory, clock. By its path from this file.
board = {board_path}

[schedule]
# The major frame: the windows below repeat after it. A window starts at an instant of the clock.
frame = {frame}

[shutdown]
# The system ends once these have finished, and in any case at the latest time. Without this section, it runs for ever.
when-finished = [{finished}]
at-latest = \"10 s\"
",
        board = facts.board,
        name_quoted = quoted(name),
        board_path = quoted(wish.board_as_written),
        frame = quoted(&duration_text(frame(facts), facts.hz)),
    )
}

fn frame(facts: &Facts) -> u64 {
    (facts.hz / FRAMES_A_SECOND).max(LEAST_BUDGETS * facts.budget)
}

/// The partition in windows on core 0, and housekeeping beside it.
fn shared(wish: &Starter<'_>, facts: &Facts) -> String {
    let Facts { hz, budget, .. } = *facts;
    let time = |ticks| quoted(&duration_text(ticks, hz));
    let length = frame(facts) / 4;
    let housekeeping = budget + length + budget;
    format!(
        "
# Sends the logs out. Never in a partition's time: here in a window of its own.
[housekeeping]
core = 0

[[housekeeping.window]]
start = {}
length = {}

# With windows, it shares its core in time. Before each start, the board's switch budget ({}) is kept free.
[partition.plc]
image = {}
memory = \"8 MiB\"
cores = [0]

[[partition.plc.window]]
start = {}
length = {}
",
        time(housekeeping),
        time(frame(facts) - housekeeping),
        duration_text(budget, hz),
        quoted(&format!("{}/plc", wish.guests)),
        time(budget),
        time(length),
    )
}

/// The partition with a core for itself, or a sentence where there is no such core.
fn alone(wish: &Starter<'_>, facts: &Facts) -> String {
    let Some(core) = facts.alone else {
        return "\n# A partition without windows has a core for itself. This board has no second core to give away.\n"
            .to_owned();
    };
    let free = facts.cores - 2;
    let more = if free == 0 {
        String::new()
    } else {
        format!(
            "\n# The board has {} cores, 0 to {}: {free} of them are free.\n",
            facts.cores,
            facts.cores - 1
        )
    };
    format!(
        "
# Without windows, its core is dedicated to it: interrupts reach the guest with no instruction of the hypervisor.
[partition.motion]
image = {}
arguments = \"period=100us samples=2000\"
memory = \"8 MiB\"
cores = [{core}]
{more}",
        quoted(&format!("{}/latency", wish.guests)),
    )
}
