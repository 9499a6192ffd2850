//! Systems in which `guests/edge` acts in the last ticks of its windows, each followed by a window of a victim's that must not notice.

use std::path::PathBuf;

use bulkhead::Report;

use crate::time::{self, Sharing};
use crate::{checks, systems};

/// Ticks before the end of a window over which operations are swept.
pub const SPAN: u64 = 1000;
/// Ticks between two of the instants.
pub const STEP: u64 = 23;
/// Instants of one operation.
pub const INSTANTS: u64 = SPAN.div_ceil(STEP);

/// Microseconds of an attacker's window: what is swept, and a switch for the gift of a window.
const ATTACK: u32 = 60;
/// Microseconds of a victim's window, and of the one that takes gifts.
const VICTIM: u32 = 30;
/// Microseconds of an attacker's window in which it starts again: clearing its memory takes most of one.
const LIFE: u32 = 2_000;
/// Microseconds of the housekeeping window.
const HOUSEKEEPING: u32 = 200;
/// Frames in which the guests boot, and those that sleeping costs.
const EXTRA: u64 = 300 + 3 * INSTANTS;

/// The victim on this core.
#[must_use]
pub fn victim(core: u32) -> String {
    time::jitter(core)
}

/// A system, and who is who in it.
pub struct Edge {
    system: Sharing,
    /// Partitions that attack.
    pub attackers: Vec<String>,
    /// Cores with a victim.
    victims: Vec<u32>,
    /// The frame in which the victims end.
    frames: u64,
}

impl Edge {
    /// With no attacker yet; the victims watch `frames` frames.
    #[must_use]
    pub fn new(frames: u64) -> Self {
        Self { system: Sharing::default(), attackers: vec![], victims: vec![], frames }
    }

    /// One vCPU, on both platforms: each of `acts` operations at each instant.
    #[must_use]
    pub fn alone(acts: u64) -> Self {
        let mut edge = Self::new(acts * INSTANTS + EXTRA);
        let arguments = format!("acts=all span={SPAN} step={STEP}");
        edge.system.partition("taker", "noise", "mode=loop", 0);
        edge.attacker("bare", &arguments, "donates-to = \"taker\"", &[0], ATTACK);
        edge.attacker("pc", &arguments, "platform = \"pc\"", &[0], ATTACK);
        edge.system.window("partition.taker", 0, VICTIM);
        for name in ["bare", "pc"] {
            edge.system.must_finish(name);
        }
        edge
    }

    /// One vCPU that does one operation at each instant.
    #[must_use]
    pub fn one(act: &str) -> Self {
        let mut edge = Self::new(INSTANTS + EXTRA);
        edge.attacker("bare", &format!("acts={act} span={SPAN} step={STEP}"), "", &[0], ATTACK);
        edge.system.must_finish("bare");
        edge
    }

    /// As many vCPUs as `cores`, of which `started` run beside the first and the others wait for their start: every interrupt command.
    #[must_use]
    pub fn many(acts: u64, cores: u32, started: u32) -> Self {
        let mut edge = Self::new(acts * INSTANTS + EXTRA);
        let cores: Vec<u32> = (0..cores).collect();
        let arguments = format!("acts=interrupts others={started} span={SPAN} step={STEP}");
        edge.attacker("many", &arguments, "", &cores, ATTACK);
        edge.system.must_finish("many");
        edge
    }

    /// Four cores, on each of which partitions end one by one: each does one of `ends` at its own instant.
    #[must_use]
    pub fn ends(ends: &[(&str, &str)], on_each_core: u32) -> Self {
        let mut edge = Self::new(EXTRA);
        let cores = (0..4).flat_map(|core| (0..on_each_core).map(move |place| (core, place)));
        for (number, (core, place)) in cores.enumerate() {
            let (act, lines) = ends[number % ends.len()];
            // 31 is prime to the number of ends: each is done early and late.
            let at = 3 + number * 31 % 620;
            let name = format!("{act}-{core}-{place}");
            edge.attacker(&name, &format!("acts={act} at={at}"), lines, &[core], ATTACK);
        }
        edge
    }

    /// Two partitions that start themselves again for ever, each life at another instant.
    #[must_use]
    pub fn restarts(frames: u64) -> Self {
        let mut edge = Self::new(frames);
        for act in ["reset", "triple-fault"] {
            let arguments = format!("acts={act} life=1 span={SPAN}");
            edge.attacker(act, &arguments, "platform = \"pc\"", &[0], LIFE);
        }
        edge
    }

    /// Adds an attacker with a vCPU on each of `cores`, a window there of `length` microseconds, and behind it one of the victim's on the
    /// first two of them.
    fn attacker(&mut self, name: &str, arguments: &str, lines: &str, cores: &[u32], length: u32) {
        self.system.spread(name, "edge", arguments, cores);
        if !lines.is_empty() {
            self.system.with(lines);
        }
        let owner = format!("partition.{name}");
        for core in cores {
            match cores {
                [_] => self.system.window(&owner, *core, length),
                _ => self.system.window_on(&owner, *core, length),
            }
        }
        for core in cores.iter().take(2) {
            self.victim_on(*core);
        }
        self.attackers.push(name.into());
    }

    fn victim_on(&mut self, core: u32) {
        let name = victim(core);
        if !self.victims.contains(&core) {
            self.victims.push(core);
            let arguments = format!("until-frame={}", self.frames);
            self.system.partition(&name, "jitter", &arguments, core);
            self.system.must_finish(&name);
        }
        self.system.window(&format!("partition.{name}"), core, VICTIM);
    }

    /// Writes the system.
    ///
    /// # Panics
    /// The file system says no.
    #[must_use]
    pub fn write(
        mut self,
        name: &str,
        board: &std::path::Path,
        at_latest: &str,
    ) -> (PathBuf, Judge) {
        self.system.housekeeping(HOUSEKEEPING);
        let Self { system, attackers, victims, frames } = self;
        (system.write(name, board, at_latest), Judge { attackers, victims, frames })
    }
}

/// What must hold behind a run.
pub struct Judge {
    attackers: Vec<String>,
    victims: Vec<u32>,
    frames: u64,
}

impl Judge {
    /// What the victims noticed, and every late window and health event of anybody's.
    #[must_use]
    pub fn check(&self, report: &Report) -> Vec<String> {
        let mut complaints = checks::check_end(report);
        for core in &self.victims {
            // Some dozens of frames pass before the guest has booted in its short windows.
            complaints.extend(time::check_jitter(report, &victim(*core), self.frames / 2));
            complaints.extend(checks::check_windows(report, &victim(*core)));
        }
        for attacker in &self.attackers {
            complaints.extend(checks::check_windows(report, attacker));
        }
        complaints
    }

    /// How each attacker ended, where all must end as `fate` says.
    #[must_use]
    pub fn check_fates(&self, report: &Report, fate: impl Fn(&str) -> &'static str) -> Vec<String> {
        let one = |name: &String| checks::check_fate(report, name, fate(name));
        self.attackers.iter().flat_map(one).collect()
    }
}

/// The board with this many cores.
///
/// # Panics
/// The file system says no.
#[must_use]
pub fn board(name: &str, cores: u32) -> PathBuf {
    const CORES: &str = "[[core]]\napic-id = 0\n[[core]]\napic-id = 1\n[[core]]\napic-id = 2\n\
                         [[core]]\napic-id = 3\n";
    let ids: String = (0..cores).map(|id| format!("[[core]]\napic-id = {id}\n")).collect();
    let named = format!("name = \"bochs-skylake-x-{cores}\"");
    systems::changed_board(name, &[("name = \"bochs-skylake-x\"", &named), (CORES, &ids)])
}
