//! Composes systems of time-shared cores, and judges what their windows show: when they start, what they lose, how far they overrun,
//! and that this grows with nothing.
//!
//! Ticks are instructions of the emulator. What follows from them is said where the bounds stand.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bulkhead::Report;
use bulkhead::report::Partition;

use crate::{checks, systems};

/// Most ticks from the declared start of a window to the guest's first look at the clock: what the project aims at. Seen: 45 to 60.
pub const START: u64 = 150;

/// Most ticks between the earliest and the latest start: what the project aims at. Seen: 5 to 15.
pub const SPREAD: u64 = 100;

/// Most ticks of a window that the guest does not have, at its start and its end together. The aim is 1 % of 100,000, the length of
/// the long one; the short ones have 1,500, and lose no more. Seen: 45 to 60.
pub const LOST: u64 = 100;

/// Most ticks that the guest runs on behind the end of its window: the way of the exit that ends it, which comes out of the switch
/// budget. Seen: 40, and 55 where the guest has a timer.
pub const OVERRUN: u64 = 75;

/// How far the latest starts of two runs, of two halves of a run or of two cores may be apart: where in its loop the guest was
/// interrupted (5), and the clock's step at each of the two ends.
pub const SAME: u64 = 15;

/// Microseconds between two windows: the switch budget of [`systems::board`].
const GAP: u32 = 25;
/// Microseconds of a neighbour's window before each window that is measured.
const NEIGHBOUR: u32 = 40;
/// Microseconds of a short measured window.
const SHORT: u32 = 30;
/// Microseconds of the long measured window: 100,000 ticks.
const LONG: u32 = 2_000;
/// Microseconds of the housekeeping window.
const HOUSEKEEPING: u32 = 400;

/// Windows of a measuring partition in each frame: one behind each of [`WORST`].
pub const PLACES: usize = WORST.len();

/// Everything that `guests/noise` can do before the edge of its window.
pub const WORST: [&str; 15] = [
    "all", "idle", "loop", "exits", "vmcall", "memory", "movsb", "cli", "hlt", "pause", "wbinvd",
    "ports", "ipi", "cr3", "xsave",
];

/// A system of time-shared cores, window behind window on each.
#[derive(Default)]
pub struct Sharing {
    text: String,
    finish: Vec<String>,
    /// Microseconds at which the next window of a core may start.
    next: BTreeMap<u32, u32>,
    /// Microseconds of the housekeeping window.
    housekeeping: Option<u32>,
}

impl Sharing {
    /// Adds a partition on this core; its windows are to follow.
    pub fn partition(&mut self, name: &str, guest: &str, arguments: &str, core: u32) {
        self.spread(name, guest, arguments, &[core]);
    }

    /// Adds a partition with a vCPU on each of these cores; its windows are to follow.
    pub fn spread(&mut self, name: &str, guest: &str, arguments: &str, cores: &[u32]) {
        let _always_fits = write!(
            self.text,
            "[partition.{name}]\nimage = \"@/guests/{guest}\"\narguments = \"{arguments}\"\n\
             memory = \"6 MiB\"\ncores = {cores:?}\n"
        );
    }

    /// Says more about the partition that was added last, in the language of system files.
    pub fn with(&mut self, lines: &str) {
        self.text.push_str(lines);
        self.text.push('\n');
    }

    /// Adds a window of a partition with several cores, the next on this one.
    pub fn window_on(&mut self, owner: &str, core: u32, length: u32) {
        self.window(owner, core, length);
        self.with(&format!("core = {core}"));
    }

    /// Adds a window of this many microseconds, the next on its core.
    pub fn window(&mut self, owner: &str, core: u32, length: u32) {
        let next = self.next.entry(core).or_insert(GAP);
        let _always_fits = write!(
            self.text,
            "[[{owner}.window]]\nstart = \"{next} us\"\nlength = \"{length} us\"\n"
        );
        *next += length + GAP;
    }

    /// The run waits for this partition's end.
    pub fn must_finish(&mut self, name: &str) {
        self.finish.push(format!("\"{name}\""));
    }

    /// Adds a core that `jitter-CORE` shares with these neighbours. It has [`PLACES`] windows in a frame, each just behind one of a
    /// neighbour's, who take turns; the first is long.
    pub fn measured_core(&mut self, core: u32, arguments: &str, neighbours: &[&str]) {
        let jitter = jitter(core);
        self.partition(&jitter, "jitter", arguments, core);
        self.must_finish(&jitter);
        let name = |mode: &str| format!("{mode}-{core}");
        for mode in neighbours {
            self.partition(&name(mode), "noise", &format!("mode={mode}"), core);
        }
        for (place, mode) in neighbours.iter().cycle().take(PLACES).enumerate() {
            self.window(&format!("partition.{}", name(mode)), core, NEIGHBOUR);
            let length = if place == 0 { LONG } else { SHORT };
            self.window(&format!("partition.{jitter}"), core, length);
        }
    }

    /// Gives the housekeeping window, on core 0, this many microseconds.
    pub const fn housekeeping(&mut self, length: u32) {
        self.housekeeping = Some(length);
    }

    /// Writes the system: what was added, and housekeeping on core 0.
    ///
    /// # Panics
    /// The file system says no.
    #[must_use]
    pub fn write(mut self, name: &str, board: &Path, at_latest: &str) -> PathBuf {
        self.window("housekeeping", 0, self.housekeeping.unwrap_or(HOUSEKEEPING));
        let frame = self.next.values().copied().max().unwrap_or(0);
        let head = format!(
            "# Written by the judge.\n[system]\nname = \"{name}\"\nboard = \"{}\"\n\
             [schedule]\nframe = \"{frame} us\"\n\
             [shutdown]\nwhen-finished = [{}]\nat-latest = \"{at_latest}\"\n\
             [housekeeping]\ncore = 0\n",
            board.display(),
            self.finish.join(", "),
        );
        systems::write(name, &(head + &self.text))
    }
}

/// The partition of [`Sharing::measured_core`] that measures.
#[must_use]
pub fn jitter(core: u32) -> String {
    format!("jitter-{core}")
}

/// The windows of one measuring partition: `at_least` of them, each in its bounds, and the latest of the second half of the run no
/// later than that of the first.
#[must_use]
pub fn check_jitter(report: &Report, name: &str, at_least: u64) -> Vec<String> {
    let mut complaints = checks::check_passed(report, name);
    let Some(partition) = report.partition(name) else {
        return complaints;
    };
    let mut must = |holds: bool, complaint: String| {
        if !holds {
            complaints.push(format!("{name}: {complaint}"));
        }
    };
    for counted in ["windows-skipped", "windows-early", "windows-moved"] {
        let count = partition.value(counted);
        must(count == Some(0), format!("{counted} {count:?}"));
    }
    let (Some(starts), Some(lost)) =
        (partition.histogram("window-start"), partition.histogram("window-lost"))
    else {
        must(false, "nothing was measured".into());
        return complaints;
    };
    must(starts.count >= at_least, format!("{} windows, fewer than {at_least}", starts.count));
    must(starts.max <= START, format!("a window started {} ticks late", starts.max));
    let spread = starts.max - starts.min;
    must(spread <= SPREAD, format!("starts are {spread} ticks apart"));
    must(lost.max <= LOST, format!("{} ticks of a window were lost", lost.max));
    let overrun = partition.value("overrun-max").unwrap_or(u64::MAX);
    must(overrun <= OVERRUN, format!("it ran {overrun} ticks behind the end of a window"));
    let half = |which: &str| partition.value(which).unwrap_or(u64::MAX);
    let (first, second) = (half("first-half-max"), half("second-half-max"));
    must(
        second <= first.saturating_add(SAME),
        format!("the latest start grew from {first} to {second} ticks"),
    );
    complaints
}

/// Two measuring partitions whose latest starts must be the same within [`SAME`], whatever else runs beside them.
#[must_use]
pub fn check_no_growth(few: (&Report, &str), many: (&Report, &str)) -> Vec<String> {
    let latest = |(report, name): (&Report, &str)| {
        report.partition(name)?.histogram("window-start").map(|starts| starts.max)
    };
    match (latest(few), latest(many)) {
        (Some(one), Some(other)) if one.abs_diff(other) <= SAME => Vec::new(),
        (one, other) => {
            vec![format!("latest starts of {} and {}: {one:?} and {other:?}", few.1, many.1)]
        }
    }
}

/// What a measuring partition saw, for a test to print: its figures, and the latest start behind each neighbour.
#[must_use]
pub fn line(partition: &Partition) -> String {
    let figures: String =
        partition.values.iter().map(|it| format!(" {}={}", it.name, it.value)).collect();
    format!("{}:{figures}", partition.name)
}
