//! Turns the events of a run into its report.

use std::collections::BTreeMap;

use hv_core::exit::{Denial, ExitKind};
use hv_core::health::{Incident, Party, What};
use hv_core::trace::WindowRecord;
use hv_core::wire::{Fate, POWER, Stat, StatKey, SwitchStep};

use crate::decode::{Counts, Event};
use crate::elf::hex;
use crate::incident;
use crate::lines::Measured;
use crate::manifest::Manifest;
use crate::report::{
    Boot, Core, EMULATED_TICKS, ExitsAt, FAST_TICKS, FORMAT, Health, Log, LostCore, Partition,
    RanOn, RanWindow, Report, Size, Windows,
};

/// Most contradictions that are kept: the first ones tell enough.
const MOST_CONTRADICTIONS: usize = 20;

/// Collects one run.
pub struct Collector<'m> {
    manifest: &'m Manifest,
    measured: BTreeMap<u16, Measured>,
    stats: Vec<Stat>,
    health: Vec<Health>,
    trace: Vec<RanWindow>,
    exits: BTreeMap<u16, Vec<ExitsAt>>,
    lost_cores: Vec<LostCore>,
    digest: String,
    build_id: String,
    complete: bool,
    /// What was said twice or too late: see [`Log::contradictions`].
    contradictions: Vec<String>,
}

impl<'m> Collector<'m> {
    /// For a run of the image that `manifest` describes.
    #[must_use]
    pub const fn new(manifest: &'m Manifest) -> Self {
        Self {
            manifest,
            measured: BTreeMap::new(),
            stats: Vec::new(),
            health: Vec::new(),
            trace: Vec::new(),
            exits: BTreeMap::new(),
            lost_cores: Vec::new(),
            digest: String::new(),
            build_id: String::new(),
            complete: false,
            contradictions: Vec::new(),
        }
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        self.hold_against_the_rest(event);
        match event {
            Event::Console { partition, line, .. } => self.line(u16::from(*partition), line),
            // Without a hypervisor the guest writes to the port itself.
            Event::Text(line) => {
                if let Some(id) = self.native_id() {
                    self.line(id, line);
                }
            }
            Event::Hello { build, digest, .. } => {
                self.build_id = hex(build);
                self.digest = hex(digest);
            }
            Event::Stat(stat) => self.stats.push(*stat),
            Event::Incident { cpu, tsc, incident } => self.health(*cpu, *tsc, incident),
            Event::Windows { cpu, records } => self.windows_ran(*cpu, records),
            Event::End => self.complete = true,
            Event::Defect { cpu, tsc, words } => self.lost_cores.push(LostCore {
                cpu: u16::from(*cpu),
                tsc: *tsc,
                words: words.clone(),
            }),
            Event::Exits { partition, tsc, counts } => {
                let named = counts.iter().map(|(reason, n)| (exit_name((*reason).into()), *n));
                let at = ExitsAt { tsc: *tsc, exits: named.collect() };
                self.exits.entry((*partition).into()).or_default().push(at);
            }
            // What holds in the end is told once more, and whole.
            Event::Live { .. } => {}
            Event::Log { .. }
            | Event::Lost { .. }
            | Event::Garbled { .. }
            | Event::Typed(_)
            | Event::Diagnosis(_) => {}
        }
    }

    /// The hypervisor greets once, tells each figure once, and says nothing behind its last word. A log that does otherwise is of several
    /// runs, or forged.
    fn hold_against_the_rest(&mut self, event: &Event) {
        let again = match event {
            Event::Hello { .. } if !self.build_id.is_empty() => {
                Some("the hypervisor greeted again: the machine started anew".to_string())
            }
            Event::Stat(stat) => self.told_before(stat),
            _ => None,
        };
        let is_ours =
            !matches!(event, Event::Text(_) | Event::Garbled { .. } | Event::Diagnosis(_));
        let too_late = (self.complete && is_ours)
            .then(|| "the log goes on behind the hypervisor's last word".to_string());
        for sentence in again.into_iter().chain(too_late) {
            if self.contradictions.len() < MOST_CONTRADICTIONS
                && !self.contradictions.contains(&sentence)
            {
                self.contradictions.push(sentence);
            }
        }
    }

    fn told_before(&self, stat: &Stat) -> Option<String> {
        let key = |stat: &Stat| (stat.key, stat.subject, stat.detail);
        let before = self.stats.iter().find(|before| key(before) == key(stat))?;
        Some(format!(
            "{:?} of {}, {} was told twice: {} and {}",
            stat.key, stat.subject, stat.detail, before.value, stat.value
        ))
    }

    /// Whether a native guest has given its verdict: nothing follows that line.
    #[must_use]
    pub fn native_is_over(&self) -> bool {
        self.native_id()
            .is_some_and(|id| self.measured.get(&id).is_some_and(|m| m.verdict.is_some()))
    }

    /// Report lines that did not read as such, with the partition's name.
    #[must_use]
    pub fn defects(&self) -> Vec<String> {
        let quote =
            |id: &u16, line: &String| format!("{}: {line}", self.manifest.partition_name(*id));
        self.measured
            .iter()
            .flat_map(|(id, m)| m.defects.iter().map(move |d| quote(id, d)))
            .collect()
    }

    /// The report of a run on that machine.
    #[must_use]
    pub fn report(&self, machine: &RanOn, counts: Counts) -> Report {
        let manifest = self.manifest;
        let partitions: Vec<Partition> =
            (0..).take(manifest.partitions.len()).map(|id| self.partition(id)).collect();
        let boot = self.boot(&partitions);
        Report {
            format: FORMAT,
            ticks: if machine.exact { EMULATED_TICKS } else { FAST_TICKS }.to_string(),
            emulator: machine.emulator.clone(),
            processor: machine.processor.clone(),
            firmware: machine.firmware.clone(),
            exact: machine.exact,
            system: manifest.system.clone(),
            board: manifest.board.clone(),
            digest: self.digest.clone(),
            build_id: self.build_id.clone(),
            native: manifest.native.clone(),
            complete: self.complete || self.native_is_over(),
            power: self.all(StatKey::Power, 0).filter_map(power).collect(),
            smis: self.one(StatKey::Smis, 0),
            partitions,
            boot,
            cores: self.cores(),
            lost_cores: self.lost_cores.clone(),
            health: self.health.clone(),
            trace: self.trace.clone(),
            log: Log {
                packets: counts.packets,
                garbled: counts.garbled,
                lost: counts.lost,
                contradictions: self.contradictions.clone(),
                diagnosis: None,
            },
            size: Size {
                image: manifest.image_size,
                hypervisor: manifest.hypervisor,
                per_cpu: self.one(StatKey::PerCpuBytes, 0),
            },
            lines_of_code: BTreeMap::new(),
        }
    }

    /// What went wrong with time. What a partition did to itself shows in its fate and its counts.
    fn health(&mut self, cpu: u8, tsc: u64, incident: &Incident) {
        let ticks = match incident.what {
            What::LateWindow { ticks } => ticks,
            What::MissedWindows { count } | What::MachineNmi { count, .. } => count,
            What::Unknown(_) => 0,
            _ => return,
        };
        self.health.push(Health {
            tsc,
            cpu: u16::from(cpu),
            incident: incident::name(&incident.what),
            subject: self.party(incident.subject),
            offender: self.party(incident.offender),
            frame: incident.frame,
            ticks,
        });
    }

    fn windows_ran(&mut self, cpu: u8, records: &[WindowRecord]) {
        let manifest = self.manifest;
        self.trace.extend(records.iter().map(|record| RanWindow {
            cpu: u16::from(cpu),
            frame: record.frame,
            plan: record.plan,
            window: record.window,
            ran: party(manifest, record.ran),
            entered: record.entered,
            left: record.left,
        }));
    }

    fn party(&self, of: Party) -> Option<String> {
        party(self.manifest, of)
    }

    fn native_id(&self) -> Option<u16> {
        let name = self.manifest.native.as_ref()?;
        let at = self.manifest.partitions.iter().position(|partition| partition.name == *name)?;
        u16::try_from(at).ok()
    }

    fn line(&mut self, id: u16, line: &str) {
        self.measured.entry(id).or_default().line(line);
    }

    fn one(&self, key: StatKey, subject: u16) -> Option<u64> {
        self.all(key, subject).next().map(|stat| stat.value)
    }

    fn all(&self, key: StatKey, subject: u16) -> impl Iterator<Item = &Stat> {
        self.stats.iter().filter(move |stat| stat.key == key && stat.subject == subject)
    }

    fn partition(&self, id: u16) -> Partition {
        let place = &self.manifest.partitions[usize::from(id)];
        let measured = self.measured.get(&id).cloned().unwrap_or_default();
        let by_reason = |key| {
            let nonzero = self.all(key, id).filter(|stat| stat.value > 0);
            nonzero.map(|stat| (exit_name(stat.detail), stat.value)).collect()
        };
        let first_entry = self.one(StatKey::FirstEntry, id).filter(|tsc| *tsc > 0);
        let span: Vec<u64> = self.all(StatKey::SpanExits, id).map(|stat| stat.value).collect();
        Partition {
            name: place.name.clone(),
            place: place.place.clone(),
            cpus: place.cpus.clone(),
            kind: if place.shared { "shared" } else { "dedicated" }.to_string(),
            fate: self.fate(id, &measured),
            exits: by_reason(StatKey::Exits),
            exits_over_time: self.exits.get(&id).cloned().unwrap_or_default(),
            span_exits: (!span.is_empty()).then(|| span.iter().sum()),
            span_exits_by_reason: by_reason(StatKey::SpanExits),
            windows: self.windows(id),
            denied: self
                .all(StatKey::Denied, id)
                .filter(|stat| stat.value > 0)
                .map(|stat| (denied_name(stat.detail), stat.value))
                .collect(),
            restarts: self.one(StatKey::Restarts, id),
            console_lost: self.all(StatKey::ConsoleLost, id).map(|stat| stat.value).sum(),
            first_entry,
            stopped_at: self.one(StatKey::StoppedAt, id),
            entry_after_boot: self.since_boot(first_entry),
            verdict: measured.verdict,
            histograms: measured.histograms,
            values: measured.values,
        }
    }

    fn fate(&self, id: u16, measured: &Measured) -> String {
        if let Some(code) = self.one(StatKey::Fate, id) {
            return fate_name(code);
        }
        match &measured.verdict {
            Some(verdict) if self.native_id() == Some(id) && verdict.pass => "passed",
            Some(_) if self.native_id() == Some(id) => "failed",
            _ => "unknown",
        }
        .to_string()
    }

    fn windows(&self, id: u16) -> Option<Windows> {
        let of_each_vcpu = |key| self.all(key, id).map(|stat| stat.value);
        Some(Windows {
            run: of_each_vcpu(StatKey::WindowsRun).reduce(|sum, run| sum + run)?,
            late: of_each_vcpu(StatKey::WindowsLate).sum(),
            lateness_min: of_each_vcpu(StatKey::WindowLatenessMin).min(),
            lateness_max: of_each_vcpu(StatKey::WindowLatenessMax).max(),
        })
    }

    fn since_boot(&self, tsc: Option<u64>) -> Option<u64> {
        tsc?.checked_sub(self.one(StatKey::HypervisorEntry, 0)?)
    }

    fn boot(&self, partitions: &[Partition]) -> Boot {
        Boot {
            hypervisor_entry: self.one(StatKey::HypervisorEntry, 0),
            epoch: self.one(StatKey::Epoch, 0),
            to_last_partition: partitions.iter().filter_map(|p| p.entry_after_boot).max(),
            tsc_declared_hz: self.manifest.tsc_hz,
            tsc_measured_hz: self.one(StatKey::TscHz, 0),
            tsc_skew: self.one(StatKey::TscSkew, 0),
        }
    }

    fn cores(&self) -> Vec<Core> {
        let keys = [StatKey::SwitchMin, StatKey::SwitchMax, StatKey::LogLost];
        let mut cpus: Vec<u16> =
            self.stats.iter().filter(|s| keys.contains(&s.key)).map(|s| s.subject).collect();
        cpus.sort_unstable();
        cpus.dedup();
        let core = |cpu| Core {
            cpu,
            switch_min: self.one(StatKey::SwitchMin, cpu),
            switch_max: self.one(StatKey::SwitchMax, cpu),
            switch_steps: self.all(StatKey::SwitchStep, cpu).map(step).collect(),
            log_lost: self.one(StatKey::LogLost, cpu).unwrap_or(0),
        };
        cpus.into_iter().map(core).collect()
    }
}

/// The name of a partition; none for the hypervisor.
fn party(manifest: &Manifest, party: Party) -> Option<String> {
    match party {
        Party::Partition(id) => Some(manifest.partition_name(id)),
        Party::Hypervisor => None,
    }
}

/// A key of `[power]` and who owns it.
fn power(stat: &Stat) -> Option<(String, String)> {
    let (key, ours) = POWER.get(usize::try_from(stat.detail).ok()?)?;
    let owner = if stat.value == 0 { "firmware" } else { ours };
    Some(((*key).to_string(), owner.to_string()))
}

/// A step of a switch and its ticks.
fn step(stat: &Stat) -> (String, u64) {
    let step = usize::try_from(stat.detail).ok().and_then(|number| SwitchStep::ALL.get(number));
    let name = step.map_or_else(|| format!("step {}", stat.detail), |step| step.name().to_string());
    (name, stat.value)
}

fn exit_name(detail: u32) -> String {
    ExitKind::from_code(detail)
        .map_or_else(|| format!("kind {detail}"), |kind| kind.name().to_string())
}

fn denied_name(detail: u32) -> String {
    Denial::from_code(detail)
        .map_or_else(|| format!("kind {detail}"), |denial| denial.name().to_string())
}

/// The name of a fate's number, as the report has it.
#[must_use]
pub fn fate_name(code: u64) -> String {
    match Fate::from_code(code) {
        Some(Fate::Running) => "running".to_string(),
        Some(Fate::Passed) => "passed".to_string(),
        Some(Fate::Failed) => "failed".to_string(),
        Some(Fate::Stopped) => "stopped".to_string(),
        Some(Fate::Refused) => "refused".to_string(),
        Some(Fate::Off) => "off".to_string(),
        Some(Fate::Lost) => "lost".to_string(),
        None => format!("fate {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Place;

    fn manifest() -> Manifest {
        let place = |name: &str, cpu, shared| Place {
            name: name.into(),
            place: format!("demo.toml:{cpu}"),
            cpus: vec![cpu],
            shared,
            ..Place::default()
        };
        Manifest {
            system: "demo".into(),
            partitions: vec![place("motion", 1, false), place("plc", 0, true)],
            ..Manifest::default()
        }
    }

    fn stat(key: StatKey, subject: u16, detail: u32, value: u64) -> Event {
        Event::Stat(Stat { key, subject, detail, value })
    }

    fn console(partition: u8, line: &str) -> Event {
        Event::Console { partition, tsc: 1, line: line.into() }
    }

    #[test]
    fn figures_find_their_partition() {
        let manifest = manifest();
        let mut collector = Collector::new(&manifest);
        for event in [
            stat(StatKey::Exits, 0, 0, 5),
            stat(StatKey::Exits, 0, 2, 0),
            stat(StatKey::Exits, 1, 900, 2),
            stat(StatKey::SpanExits, 0, 0, 0),
            stat(StatKey::WindowsRun, 1, 0, 30),
            stat(StatKey::WindowsRun, 1, 1, 20),
            stat(StatKey::WindowsLate, 1, 0, 1),
            stat(StatKey::WindowLatenessMax, 1, 0, 30),
            stat(StatKey::Denied, 1, 1, 4),
            stat(StatKey::Fate, 0, 0, 1),
            stat(StatKey::Fate, 1, 0, 3),
            stat(StatKey::HypervisorEntry, 0, 0, 1000),
            stat(StatKey::FirstEntry, 0, 0, 1500),
            stat(StatKey::FirstEntry, 1, 0, 1700),
            stat(StatKey::StoppedAt, 1, 0, 2000),
            stat(StatKey::SwitchMax, 0, 0, 400),
            console(0, "@bulkhead value cpuid 97 ticks"),
            Event::Exits { partition: 0, tsc: 900, counts: vec![(0, 4)] },
            Event::Defect { cpu: 1, tsc: 1800, words: "no way (a.rs:7)".into() },
            Event::End,
        ] {
            collector.event(&event);
        }
        let report = collector.report(&RanOn::default(), Counts::default());
        let motion = report.partition("motion").unwrap();
        assert_eq!(motion.exits, BTreeMap::from([("CPUID".to_string(), 5)]));
        assert_eq!(motion.exits_over_time[0].exits, BTreeMap::from([("CPUID".to_string(), 4)]));
        assert_eq!(motion.span_exits, Some(0));
        assert_eq!((motion.fate.as_str(), motion.windows), ("passed", None));
        assert_eq!((motion.entry_after_boot, motion.value("cpuid")), (Some(500), Some(97)));
        let plc = report.partition("plc").unwrap();
        assert_eq!(plc.exits, BTreeMap::from([("kind 900".to_string(), 2)]));
        assert_eq!((plc.span_exits, plc.stopped_at), (None, Some(2000)));
        let windows = plc.windows.unwrap();
        assert_eq!((windows.run, windows.late, windows.lateness_max), (50, 1, Some(30)));
        assert_eq!(plc.denied, BTreeMap::from([("MSR".to_string(), 4)]));
        assert_eq!(report.boot.to_last_partition, Some(700));
        let lost = LostCore { cpu: 1, tsc: 1800, words: "no way (a.rs:7)".into() };
        assert_eq!(report.lost_cores, [lost]);
        assert_eq!(report.cores, [Core { cpu: 0, switch_max: Some(400), ..Core::default() }]);
        assert!(report.complete && plc.went_wrong() && !motion.went_wrong());
    }

    #[test]
    fn what_is_told_twice_is_flagged_and_the_first_stays() {
        let manifest = manifest();
        let mut collector = Collector::new(&manifest);
        let hello = || Event::Hello { build: vec![1], digest: vec![2], tsc_hz: 3, typed: None };
        for event in [
            hello(),
            stat(StatKey::Fate, 0, 0, 2),
            stat(StatKey::Fate, 1, 0, 1),
            stat(StatKey::Fate, 0, 0, 1),
            Event::End,
        ] {
            collector.event(&event);
        }
        let report = collector.report(&RanOn::default(), Counts::default());
        assert_eq!(report.log.contradictions, ["Fate of 0, 0 was told twice: 2 and 1"]);
        assert_eq!(report.partition("motion").unwrap().fate, "failed");
        (0..2 * MOST_CONTRADICTIONS as u16)
            .for_each(|id| collector.event(&stat(StatKey::Restarts, id / 2, 0, id.into())));
        collector.event(&hello());
        collector.event(&Event::Text("GRUB".into()));
        let told = collector.report(&RanOn::default(), Counts::default()).log.contradictions;
        assert_eq!(told.len(), MOST_CONTRADICTIONS);
        assert!(told[1].contains("behind the hypervisor's last word"), "{told:?}");
    }

    #[test]
    fn a_native_run_reads_plain_text() {
        let manifest = Manifest { native: Some("plc".into()), ..manifest() };
        let mut collector = Collector::new(&manifest);
        assert!(!collector.native_is_over());
        collector.event(&Event::Text("@bulkhead verdict pass fine".into()));
        assert!(collector.native_is_over());
        let report = collector.report(&RanOn::default(), Counts::default());
        assert_eq!(report.partition("plc").unwrap().fate, "passed");
        assert!(report.complete);
    }
}
