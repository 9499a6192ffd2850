//! The systems that a suite measures on a board beside the user's own: the bench, with one neighbour after the other.
//!
//! Core 0 is shared by a task in windows, the guest that measures costs, one that is stopped for what it touches, and the neighbour. Cores 1 and 2 are dedicated to the
//! same cost guest, core 3 to a cyclic timer task.

use std::path::Path;

use bulkhead_config::Plan;

use super::suite::Amounts;
use crate::error::{Error, Result};

/// The partition that measures costs on cores of its own, and the one in windows.
pub const COSTS: &str = "costs";
/// The same in windows of a shared core.
pub const COSTS_SHARED: &str = "costs-shared";
/// The partition with the cyclic timer task.
pub const TIMER: &str = "timer";
/// The partition that watches its windows.
pub const WINDOWS: &str = "windows";

/// The partition that touches memory which nobody gave it, and is stopped for that.
pub const STOPPED: &str = "stopped";

/// Cores that the bench takes.
const CORES: usize = 4;

/// Windows of core 0 in microseconds, one behind the other: whose, and how long.
const LENGTHS: [(&str, u64); 5] = [
    ("partition.windows", 300),
    ("partition.costs-shared", 500),
    ("partition.stopped", 100),
    ("partition.noise", 300),
    ("housekeeping", 400),
];

/// Period of the timer task: about 20 microseconds, so that a million samples take 20 seconds; no multiple of the 5 ticks in which an
/// emulator's clock may move.
const PERIOD_NS: u64 = 19_980;

/// The system file of the bench beside one neighbour, for the board of `plan`, which the user's own system names.
///
/// # Errors
/// The board has too few cores.
pub fn text(plan: &Plan, board: &Path, guests: &Path, of: &Composition<'_>) -> Result<String> {
    check_board(plan)?;
    let amounts = of.amounts;
    let guest = |name: &str| guests.join(name).display().to_string();
    let only = if of.floor { " only=floor" } else { "" };
    let period = period(plan.tsc_hz());
    let (windows, frame) = windows(plan);
    Ok(format!(
        "# Written by `bulkhead measure --suite`.\n\
         [system]\nname = \"bench\"\nboard = \"{board}\"\n\
         [schedule]\nframe = \"{frame} ticks\"\n\
         [shutdown]\nwhen-finished = [\"{COSTS}\", \"{COSTS_SHARED}\", \"{TIMER}\", \"{WINDOWS}\"]\n\
         [log]\nwindows = true\n\
         [housekeeping]\ncore = 0\n\
         [partition.{COSTS}]\nimage = \"{bench}\"\narguments = \"runs={runs} partner={partner}{only}\"\nmemory = \"8 MiB\"\ncores = [1, 2]\n\
         [partition.{COSTS_SHARED}]\nimage = \"{bench}\"\narguments = \"runs={runs}\"\nmemory = \"8 MiB\"\ncores = [0]\n\
         [partition.{TIMER}]\nimage = \"{latency}\"\narguments = \"period={period} samples={samples} mode=hlt\"\nmemory = \"8 MiB\"\ncores = [3]\n\
         [partition.{WINDOWS}]\nimage = \"{plc}\"\narguments = \"windows={count}\"\nmemory = \"8 MiB\"\ncores = [0]\n\
         [partition.{STOPPED}]\nimage = \"{bench}\"\narguments = \"only=memory\"\nmemory = \"8 MiB\"\ncores = [0]\n\
         [partition.noise]\nimage = \"{noise}\"\narguments = \"mode={neighbour}\"\nmemory = \"8 MiB\"\ncores = [0]\n\
         {windows}",
        board = board.display(),
        bench = guest("bench"),
        latency = guest("latency"),
        plc = guest("plc"),
        noise = guest("noise"),
        runs = amounts.runs,
        samples = amounts.samples,
        count = amounts.windows,
        neighbour = of.neighbour,
        partner = of.partner,
    ))
}

/// Whether the board is large enough for a suite.
///
/// # Errors
/// It is not.
pub fn check_board(plan: &Plan) -> Result<()> {
    if plan.board_cores() >= CORES {
        return Ok(());
    }
    Err(Error::refused(
        "the board is too small for a suite",
        format!("it has {} cores, and the bench takes {CORES}", plan.board_cores()),
        "measure the system alone, without --suite",
    ))
}

/// What is particular to one run of the bench.
pub struct Composition<'s> {
    /// Mode of the neighbour.
    pub neighbour: &'s str,
    /// How much is measured.
    pub amounts: Amounts,
    /// Whether the floor is measured, on the dedicated core, instead of what its exits cost.
    pub floor: bool,
    /// APIC id of core 2.
    pub partner: u32,
}

/// The sections of core 0's windows, and the frame's length in ticks. Each start leaves the board's switch budget free.
fn windows(plan: &Plan) -> (String, u64) {
    let mut next = plan.switch_budget();
    let mut text = String::new();
    for (owner, microseconds) in LENGTHS {
        let length = (plan.tsc_hz() * microseconds / 1_000_000).max(plan.switch_budget() * 4);
        text.push_str(&format!(
            "[[{owner}.window]]\nstart = \"{next} ticks\"\nlength = \"{length} ticks\"\n"
        ));
        next += length + plan.switch_budget();
    }
    (text, next)
}

/// The period as an argument: a whole number of ticks that five does not divide.
fn period(tsc_hz: u64) -> String {
    let ticks = tsc_hz * PERIOD_NS / 1_000_000_000;
    let ticks = if ticks.is_multiple_of(5) { ticks + 1 } else { ticks };
    format!("{}ns", (ticks * 1_000_000_000).div_ceil(tsc_hz))
}
