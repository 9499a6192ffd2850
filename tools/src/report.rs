//! The report of a run: what is written as JSON and read by tests. `README.md` beside this room documents it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::elf::Sizes;
use crate::screen::grouped;

/// Version of the report's layout; a field that changes its meaning raises it.
pub const FORMAT: u32 = 2;

/// What one tick is where the run took place, in one sentence.
pub const EMULATED_TICKS: &str = "ticks are instructions of the emulator, not microseconds: \
    they compare hypervisors with no noise and say nothing of caches or of real time";

/// The same where ticks say nothing.
pub const FAST_TICKS: &str = "the emulator ran in its fast mode: no figure of time says anything";

/// Everything that is known of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// What a tick means in this report.
    pub ticks: String,
    /// What it ran on: `bochs 2.7`, `bochs-fast 3.0`, `qemu 10.0.2`, `rig NAME`.
    pub emulator: String,
    /// Model of the processor, as the emulator names it; empty on a rig.
    #[serde(default)]
    pub processor: String,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// Whether ticks can be believed: false in an emulator's fast mode, where no figure of time says anything.
    #[serde(default = "believed")]
    pub exact: bool,
    /// `[system] name`.
    pub system: String,
    /// `[board] name`.
    pub board: String,
    /// SHA-256 over everything the table was made from, as hexadecimal digits; empty for a native run.
    pub digest: String,
    /// GNU build id of the hypervisor, as hexadecimal digits; empty for a native run.
    pub build_id: String,
    /// The partition that booted alone, without the hypervisor; absent in an ordinary run.
    pub native: Option<String>,
    /// Whether the hypervisor said that all was drained before the machine went down.
    pub complete: bool,
    /// By key of the board file's `[power]`: what the hypervisor set it to, or `firmware`.
    #[serde(default)]
    pub power: BTreeMap<String, String>,
    /// System-management interrupts that came while it ran; absent where the processor does not count them.
    #[serde(default)]
    pub smis: Option<u64>,
    /// The partitions, in the order of the system file.
    pub partitions: Vec<Partition>,
    /// Boot and clock.
    pub boot: Boot,
    /// The cores that the hypervisor told figures of.
    pub cores: Vec<Core>,
    /// Cores that were lost to a defect of the hypervisor or of the machine, in the order of the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_cores: Vec<LostCore>,
    /// What went wrong with time, in the order of the log.
    pub health: Vec<Health>,
    /// The last windows of each core, where the system file asks for them with `[log] windows`; oldest first, core by core.
    pub trace: Vec<RanWindow>,
    /// The serial log.
    pub log: Log,
    /// What the image weighs.
    pub size: Size,
    /// Lines of Rust per room of the tree, without blank lines, comments and tests; empty outside the tree.
    pub lines_of_code: BTreeMap<String, u64>,
}

/// Reports of before there was a fast mode are exact.
const fn believed() -> bool {
    true
}

/// What a run took place on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RanOn {
    /// As [`Report::emulator`].
    pub emulator: String,
    /// As [`Report::processor`].
    pub processor: String,
    /// As [`Report::firmware`].
    pub firmware: String,
    /// As [`Report::exact`].
    pub exact: bool,
}

/// One partition's run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// `[partition.NAME]`.
    pub name: String,
    /// Where the system file declares it: `demo.toml:23`.
    pub place: String,
    /// Board CPU numbers, one for each vCPU.
    pub cpus: Vec<u16>,
    /// `dedicated` or `shared`.
    pub kind: String,
    /// `running`, `passed`, `failed`, `stopped`, `refused`, `off` (it switched itself off), `lost` (with a core); `unknown` when the log did
    /// not say.
    pub fate: String,
    /// The guest's own verdict.
    pub verdict: Option<Verdict>,
    /// Exits over the partition's life by kind ([`hv_core::exit::ExitKind`]).
    pub exits: BTreeMap<String, u64>,
    /// The same on the way: what it had taken when it was looked at, about once a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits_over_time: Vec<ExitsAt>,
    /// Exits inside the measured span (the two calls that mark it left out); absent without a span.
    pub span_exits: Option<u64>,
    /// Exits inside the measured span by kind; empty when there were none.
    pub span_exits_by_reason: BTreeMap<String, u64>,
    /// Windows; absent on a dedicated core.
    pub windows: Option<Windows>,
    /// Accesses that the table does not grant, by kind.
    pub denied: BTreeMap<String, u64>,
    /// How often it started again; absent of a partition that cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
    /// Bytes that the partition sent through its serial port without asking whether there was room, and that were lost.
    #[serde(default)]
    pub console_lost: u64,
    /// Time-stamp counter just before its first entry.
    pub first_entry: Option<u64>,
    /// Time-stamp counter when the hypervisor decided to stop it; absent where it did not.
    #[serde(default)]
    pub stopped_at: Option<u64>,
    /// Ticks from the hypervisor's first instruction to the partition's first entry.
    pub entry_after_boot: Option<u64>,
    /// What the guest measured.
    pub histograms: Vec<Histogram>,
    /// Single figures that the guest measured.
    pub values: Vec<Value>,
}

/// Exits of a partition up to an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitsAt {
    /// Time-stamp counter.
    pub tsc: u64,
    /// By kind.
    pub exits: BTreeMap<String, u64>,
}

impl ExitsAt {
    /// Exits per second by kind since `earlier`, rounded up; kinds without any are left out. `hz` is the clock's frequency.
    #[must_use]
    pub fn per_second_since(&self, earlier: &Self, hz: u64) -> BTreeMap<String, u64> {
        let ticks = u128::from(self.tsc.saturating_sub(earlier.tsc).max(1));
        let rate = |(reason, count): (&String, &u64)| {
            let more = count.saturating_sub(earlier.exits.get(reason).copied().unwrap_or(0));
            let rate = (u128::from(more) * u128::from(hz)).div_ceil(ticks);
            (more > 0).then(|| (reason.clone(), u64::try_from(rate).unwrap_or(u64::MAX)))
        };
        self.exits.iter().filter_map(rate).collect()
    }
}

/// How a guest judged itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether all it promised to show held.
    pub pass: bool,
    /// Its words.
    pub text: String,
}

/// Windows of one partition. Lateness is in ticks behind the declared start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Windows that ran.
    pub run: u64,
    /// Windows that were missed whole, or into which the switch was not done at the declared start.
    pub late: u64,
    /// Smallest lateness of an entry.
    pub lateness_min: Option<u64>,
    /// Largest lateness of an entry.
    pub lateness_max: Option<u64>,
}

/// A measured distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Name that the guest gave it.
    pub name: String,
    /// Unit of all values.
    pub unit: String,
    /// Number of samples.
    pub count: u64,
    /// Smallest sample.
    pub min: u64,
    /// Half of the samples are not above it.
    pub median: u64,
    /// 99.9 % of the samples are not above it.
    pub p99_9: u64,
    /// Largest sample.
    pub max: u64,
    /// Value and number of samples of each bin that is not empty, ascending.
    pub bins: Vec<(u64, u64)>,
    /// Time-stamp counter when the largest sample came; absent where the guest did not say.
    #[serde(default)]
    pub worst_at: Option<u64>,
    /// Over time: from which time-stamp counter on, smallest and largest sample; empty where the guest did not say.
    #[serde(default)]
    pub slices: Vec<(u64, u64, u64)>,
}

/// A single figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Name that the guest gave it.
    pub name: String,
    /// The figure.
    pub value: u64,
    /// Its unit.
    pub unit: String,
}

/// Boot and clock of the whole system. Ticks, unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Time-stamp counter at the hypervisor's first instruction.
    pub hypervisor_entry: Option<u64>,
    /// Time-stamp counter at the epoch of all frames.
    pub epoch: Option<u64>,
    /// Ticks from the hypervisor's first instruction to the first entry of the last partition.
    pub to_last_partition: Option<u64>,
    /// Declared frequency of the time-stamp counter, in hertz.
    pub tsc_declared_hz: u64,
    /// Frequency measured at boot, in hertz.
    pub tsc_measured_hz: Option<u64>,
    /// Largest difference between two cores' time-stamp counters.
    pub tsc_skew: Option<u64>,
}

/// Figures of one core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// Board CPU number.
    pub cpu: u16,
    /// Fewest ticks of a partition switch, waiting left out; absent where nothing is switched.
    pub switch_min: Option<u64>,
    /// Most ticks of a partition switch.
    pub switch_max: Option<u64>,
    /// Ticks of each step of the longest switch, in their order: `decide`, `save`, `load`, `clean`, `tell`, `settle`; empty where nothing is
    /// switched.
    pub switch_steps: Vec<(String, u64)>,
    /// Diagnostics that were dropped because the ring was full.
    pub log_lost: u64,
}

/// A core that was lost to a defect of the hypervisor or of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCore {
    /// Board CPU number.
    pub cpu: u16,
    /// Time-stamp counter when it was lost.
    pub tsc: u64,
    /// Its last words: what was wrong, and where the hypervisor found that.
    pub words: String,
}

/// Something that went wrong with time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Time-stamp counter when it was seen.
    pub tsc: u64,
    /// Board CPU number.
    pub cpu: u16,
    /// `late window`, `missed windows` or `NMI of the machine`.
    pub incident: String,
    /// The partition that it happened to; absent when it is no single one.
    pub subject: Option<String>,
    /// The partition that caused it; absent when it was the hypervisor.
    pub offender: Option<String>,
    /// Number of the frame.
    pub frame: u64,
    /// How late, in ticks; how many windows were missed; or how many NMIs came.
    pub ticks: u64,
}

/// A window as it really ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanWindow {
    /// Board CPU number.
    pub cpu: u16,
    /// Number of the frame.
    pub frame: u64,
    /// Plan of the frame, by its place in the file.
    pub plan: u16,
    /// The window, by its place among the core's windows in that plan.
    pub window: u16,
    /// The partition that ran; absent for housekeeping.
    pub ran: Option<String>,
    /// Time-stamp counter just before it was entered.
    pub entered: u64,
    /// Time-stamp counter when it was left.
    pub left: u64,
}

/// The serial log as it was decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Whole packets.
    pub packets: u64,
    /// Runs of bytes that were neither packet nor text.
    pub garbled: u64,
    /// Diagnostics that the hypervisor said it dropped.
    pub lost: u64,
    /// What the hypervisor says once and the log says again or otherwise, in words. Such a log proves nothing.
    #[serde(default)]
    pub contradictions: Vec<String>,
    /// What is wrong with the line, and the remedy; absent while nothing much is.
    #[serde(default)]
    pub diagnosis: Option<String>,
}

/// What the image weighs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// The bootable image with GRUB and guests.
    pub image: u64,
    /// The hypervisor.
    pub hypervisor: Sizes,
    /// Memory of one core: stacks, rings, VMX regions.
    pub per_cpu: Option<u64>,
}

/// A machine's one name: emulator with version, processor, firmware; what is not known is left out.
#[must_use]
pub fn machine_named(emulator: &str, processor: &str, firmware: &str) -> String {
    let parts = [emulator, processor, firmware];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

impl Report {
    /// What it ran on, by its one name.
    #[must_use]
    pub fn machine(&self) -> String {
        machine_named(&self.emulator, &self.processor, &self.firmware)
    }

    /// Who owns frequency, turbo and idle states, in words.
    #[must_use]
    pub fn power_told(&self) -> String {
        let told: Vec<_> = self.power.iter().map(|(key, set)| format!("{key} {set}")).collect();
        told.join(", ")
    }

    /// What is known of system-management interrupts, in words.
    #[must_use]
    pub fn smis_told(&self) -> String {
        match self.smis {
            None => "not countable here".to_string(),
            Some(0) => "none".to_string(),
            Some(count) => format!(
                "WARNING: {}; what each took is in the figures, and no partition could prevent it",
                grouped(count)
            ),
        }
    }
    /// The partition of this name.
    #[must_use]
    pub fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name == name)
    }

    /// As JSON for people and programs.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A structure of strings, numbers and string-keyed maps always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Partition {
    /// Exits over its life.
    #[must_use]
    pub fn exits_total(&self) -> u64 {
        self.exits.values().sum()
    }

    /// The histogram of this name.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Option<&Histogram> {
        self.histograms.iter().find(|histogram| histogram.name == name)
    }

    /// The figure of this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<u64> {
        self.values.iter().find(|value| value.name == name).map(|value| value.value)
    }

    /// Whether it ended as it should: it passed, or switched itself off as an operating system does.
    #[must_use]
    pub fn has_ended_well(&self) -> bool {
        matches!(self.fate.as_str(), "passed" | "off")
    }

    /// Whether it did not do what it should: ended in any other way than well, left no word of its end, or judged itself so.
    #[must_use]
    pub fn went_wrong(&self) -> bool {
        !(self.fate == "running" || self.has_ended_well())
            || self.verdict.as_ref().is_some_and(|verdict| !verdict.pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_back() {
        let report = Report {
            format: FORMAT,
            partitions: vec![Partition {
                name: "motion".into(),
                span_exits: Some(0),
                histograms: vec![Histogram { bins: vec![(3, 9)], ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(serde_json::from_str::<Report>(&report.to_json()).unwrap(), report);
    }

    #[test]
    fn exits_per_second_are_those_of_the_time_between() {
        let at = |tsc, cpuid, io| ExitsAt {
            tsc,
            exits: [("CPUID".to_string(), cpuid), ("I/O".to_string(), io)].into(),
        };
        let rates = at(1500, 12, 40).per_second_since(&at(1000, 11, 40), 1000);
        assert_eq!(rates, [("CPUID".to_string(), 2)].into(), "one in half a second");
        assert_eq!(
            at(9, 1, 0).per_second_since(&at(9, 0, 0), 50),
            [("CPUID".to_string(), 50)].into()
        );
    }

    #[test]
    fn a_failed_verdict_counts_as_wrong() {
        let verdict = Some(Verdict { pass: false, text: String::new() });
        assert!(Partition { fate: "running".into(), verdict, ..Default::default() }.went_wrong());
        assert!(!Partition { fate: "running".into(), ..Default::default() }.went_wrong());
        assert!(Partition { fate: "stopped".into(), ..Default::default() }.went_wrong());
    }
}
