//! What is known of a system while it runs: each event of its log changes it, and screen and metrics show it.

use std::collections::{BTreeMap, VecDeque};

use hv_core::health::{Incident, Party};
use hv_core::wire::{Fate, Live, Stat, StatKey};

use crate::collect::fate_name;
use crate::decode::Event;
use crate::elf::hex;
use crate::incident;
use crate::lines::Measured;
use crate::manifest::Manifest;
use crate::screen::{Screen, lost_core};

/// Lines of the log that are kept for the screen.
const LINES: usize = 500;

/// Health events that are kept for the screen.
const EVENTS: usize = 200;

/// The system as it is known so far.
pub struct Model {
    /// The image's description, once it is known.
    pub manifest: Option<Manifest>,
    /// By partition id.
    pub partitions: BTreeMap<u16, Partition>,
    /// What went wrong with time, the latest last.
    pub health: VecDeque<(u64, String)>,
    /// How often each thing went wrong.
    pub incidents: BTreeMap<Offence, u64>,
    /// The log, the latest line last.
    pub lines: VecDeque<String>,
    /// GNU build id, as hexadecimal digits; empty before the greeting.
    pub build: String,
    /// Digest of the table, likewise.
    pub digest: String,
    /// Frequency of the time-stamp counter in hertz; 0 before it is known.
    pub tsc_hz: u64,
    /// Latest time-stamp counter that was heard.
    pub tsc: u64,
    /// Runs of bytes that were neither packet nor text.
    pub garbled: u64,
    /// Diagnostics that the hypervisor dropped.
    pub dropped: u64,
    /// Whether the system came to its orderly end.
    pub ended: bool,
    screen: Screen,
}

/// A kind of incident, whom it happened to, and who caused it; the latter two by their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offence {
    /// `late_window`, `missed_windows`, `machine_nmi`, `lost_core`.
    pub incident: String,
    /// A partition, or `hypervisor`.
    pub subject: String,
    /// A partition, or `hypervisor`.
    pub offender: String,
}

/// A partition as it is known so far.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    live: Option<Live>,
    last: Last,
    /// What its guest reported.
    pub measured: Measured,
}

/// The figures of the end, as far as they have come.
#[derive(Clone, Debug, Default)]
struct Last {
    fate: Option<u64>,
    exits: u64,
    denied: u64,
    windows: Option<u64>,
    late: u64,
    latest: Option<u64>,
}

impl Partition {
    /// Its fate, as reports name it; before it was told, `unknown`.
    #[must_use]
    pub fn fate(&self) -> String {
        let code = self.last.fate.or_else(|| self.live.map(|live| live.fate.code()));
        code.map_or_else(|| "unknown".to_string(), fate_name)
    }

    /// Whether it did not end as it should.
    #[must_use]
    pub fn went_wrong(&self) -> bool {
        let code = self.last.fate.or_else(|| self.live.map(|live| live.fate.code()));
        matches!(
            code.and_then(Fate::from_code),
            Some(Fate::Failed | Fate::Stopped | Fate::Refused | Fate::Lost)
        )
    }

    /// Exits so far; `None` where they are told at the end only.
    #[must_use]
    pub fn exits(&self) -> Option<u64> {
        self.counted(self.last.exits, |counts| counts.exits)
    }

    /// Accesses so far that the table does not grant; `None` as for [`Self::exits`].
    #[must_use]
    pub fn denied(&self) -> Option<u64> {
        self.counted(self.last.denied, |counts| counts.denied)
    }

    fn counted(&self, last: u64, live: impl Fn(hv_core::wire::LiveCounts) -> u64) -> Option<u64> {
        if self.last.fate.is_some() {
            return Some(last);
        }
        self.live?.counts.map(live)
    }

    /// Windows that it was given so far, and those that were late; `None` on a dedicated core.
    #[must_use]
    pub fn windows(&self) -> Option<(u64, u64)> {
        if self.last.fate.is_some() {
            return self.last.windows.map(|windows| (windows, self.last.late));
        }
        self.live.map(|live| (live.windows, live.late)).filter(|(windows, _)| *windows > 0)
    }

    /// Largest lateness of a window's entry in ticks; told at the end.
    #[must_use]
    pub const fn lateness_max(&self) -> Option<u64> {
        self.last.latest
    }

    fn stat(&mut self, stat: &Stat) {
        let last = &mut self.last;
        match stat.key {
            StatKey::Fate => last.fate = Some(stat.value),
            StatKey::Exits => last.exits = last.exits.wrapping_add(stat.value),
            StatKey::Denied => last.denied = last.denied.wrapping_add(stat.value),
            StatKey::WindowsRun => {
                last.windows = Some(last.windows.unwrap_or(0).wrapping_add(stat.value));
            }
            StatKey::WindowsLate => last.late = last.late.wrapping_add(stat.value),
            StatKey::WindowLatenessMax => last.latest = last.latest.max(Some(stat.value)),
            _ => {}
        }
    }
}

impl Model {
    /// Nothing is known yet but what `manifest` says.
    #[must_use]
    pub fn new(manifest: Option<Manifest>) -> Self {
        let mut model = Self {
            manifest: None,
            partitions: BTreeMap::new(),
            health: VecDeque::new(),
            incidents: BTreeMap::new(),
            lines: VecDeque::new(),
            build: String::new(),
            digest: String::new(),
            tsc_hz: 0,
            tsc: 0,
            garbled: 0,
            dropped: 0,
            ended: false,
            screen: Screen::new(None, false).plain(),
        };
        if let Some(manifest) = manifest {
            model.image(manifest);
        }
        model
    }

    /// The image that runs is this one.
    pub fn image(&mut self, manifest: Manifest) {
        self.screen.name_partitions(&manifest);
        self.tsc_hz = manifest.tsc_hz;
        for id in (0..).take(manifest.partitions.len()) {
            self.partitions.entry(id).or_default();
        }
        self.manifest = Some(manifest);
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        if let Some(line) = self.screen.line(event) {
            push(&mut self.lines, line, LINES);
        }
        match event {
            Event::Hello { build, digest, tsc_hz, .. } => self.begin(build, digest, *tsc_hz),
            Event::Console { partition, tsc, line } => {
                self.tsc = self.tsc.max(*tsc);
                self.partition(u16::from(*partition)).measured.line(line);
            }
            Event::Log { tsc, .. } => self.tsc = self.tsc.max(*tsc),
            Event::Live { partition, tsc, live } => {
                self.tsc = self.tsc.max(*tsc);
                self.partition(u16::from(*partition)).live = Some(*live);
            }
            Event::Stat(stat) if of_a_partition(stat.key) => {
                self.partition(stat.subject).stat(stat);
            }
            Event::Incident { tsc, incident, .. } => self.incident(*tsc, incident),
            Event::Defect { cpu, tsc, words } => self.lost_core(*cpu, *tsc, words),
            Event::Lost { count, .. } => self.dropped += u64::from(*count),
            Event::Garbled { runs, .. } => self.garbled += runs,
            Event::End => self.ended = true,
            Event::Text(_)
            | Event::Stat(_)
            | Event::Exits { .. }
            | Event::Windows { .. }
            | Event::Typed(_)
            | Event::Diagnosis(_) => {}
        }
    }

    /// A system starts, perhaps not for the first time: what was known of the last start is over.
    fn begin(&mut self, build: &[u8], digest: &[u8], tsc_hz: u64) {
        (self.build, self.digest, self.tsc_hz) = (hex(build), hex(digest), tsc_hz);
        (self.tsc, self.ended) = (0, false);
        self.partitions.values_mut().for_each(|partition| *partition = Partition::default());
    }

    fn partition(&mut self, id: u16) -> &mut Partition {
        self.partitions.entry(id).or_default()
    }

    /// What a partition did to itself stands in the log, and shows in its fate and its counts.
    fn incident(&mut self, tsc: u64, it: &Incident) {
        self.tsc = self.tsc.max(tsc);
        if !it.what.is_of_time() {
            return;
        }
        let incident = incident::name(&it.what).replace(' ', "_");
        let (subject, offender) = (self.party(it.subject), self.party(it.offender));
        push(&mut self.health, (tsc, self.screen.incident(it)), EVENTS);
        *self.incidents.entry(Offence { incident, subject, offender }).or_default() += 1;
    }

    /// Shown as a health event, and counted as one: of and by the hypervisor, which answers for its cores.
    fn lost_core(&mut self, cpu: u8, tsc: u64, words: &str) {
        self.tsc = self.tsc.max(tsc);
        push(&mut self.health, (tsc, format!("cpu{cpu}: {}", lost_core(words))), EVENTS);
        let (subject, offender) = (self.party(Party::Hypervisor), self.party(Party::Hypervisor));
        let incident = "lost_core".to_string();
        *self.incidents.entry(Offence { incident, subject, offender }).or_default() += 1;
    }

    fn party(&self, party: Party) -> String {
        match party {
            Party::Partition(id) => self.name(id),
            Party::Hypervisor => "hypervisor".to_string(),
        }
    }

    /// The name of partition `id`.
    #[must_use]
    pub fn name(&self, id: u16) -> String {
        self.manifest
            .as_ref()
            .map_or_else(|| format!("partition {id}"), |manifest| manifest.partition_name(id))
    }

    /// How long the board has run when it was last heard, in seconds of its own clock; `None` before its frequency is known.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        (self.tsc_hz > 0).then(|| self.tsc as f64 / self.tsc_hz as f64)
    }
}

/// Whether the subject of a figure is a partition.
const fn of_a_partition(key: StatKey) -> bool {
    matches!(
        key,
        StatKey::Fate
            | StatKey::Exits
            | StatKey::Denied
            | StatKey::WindowsRun
            | StatKey::WindowsLate
            | StatKey::WindowLatenessMax
    )
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
pub(super) mod tests {
    use hv_core::health::What;
    use hv_core::wire::LiveCounts;

    use super::*;
    use crate::manifest::Place;

    /// A system of two partitions of which much is known.
    pub fn model() -> Model {
        let place = |name: &str, cpu, shared| Place {
            name: name.into(),
            place: String::new(),
            cpus: vec![cpu],
            shared,
            ..Place::default()
        };
        let mut model = Model::new(Some(Manifest {
            system: "demo".into(),
            board: "bochs".into(),
            tsc_hz: 50_000_000,
            partitions: vec![place("motion", 1, false), place("plc \"two\"", 0, true)],
            ..Manifest::default()
        }));
        for event in events() {
            model.event(&event);
        }
        model
    }

    fn events() -> Vec<Event> {
        let console = |line: &str| Event::Console { partition: 0, tsc: 9_000, line: line.into() };
        let counts = Some(LiveCounts { exits: 834, denied: 2 });
        vec![
            Event::Hello {
                build: vec![0xC0; 20],
                digest: vec![1; 32],
                tsc_hz: 50_000_000,
                typed: None,
            },
            Event::Live {
                partition: 0,
                tsc: 5_000,
                live: Live { fate: Fate::Running, counts: None, windows: 0, late: 0 },
            },
            Event::Live {
                partition: 1,
                tsc: 6_000,
                live: Live { fate: Fate::Passed, counts, windows: 205, late: 1 },
            },
            console("@bulkhead histogram wakeup ticks count=20 min=0 median=2 p99_9=4 max=4"),
            console("@bulkhead bin wakeup 0 5"),
            Event::Incident {
                cpu: 0,
                tsc: 25_000_000,
                incident: Incident {
                    what: What::LateWindow { ticks: 1_234 },
                    subject: Party::Partition(1),
                    offender: Party::Hypervisor,
                    frame: 7,
                },
            },
            Event::Garbled { runs: 1, bytes: 7, cause: "not a packet".into() },
        ]
    }

    #[test]
    fn live_figures_stand_until_those_of_the_end_come() {
        let mut model = model();
        let plc = &model.partitions[&1];
        assert_eq!(
            (plc.exits(), plc.denied(), plc.windows()),
            (Some(834), Some(2), Some((205, 1)))
        );
        assert_eq!((plc.fate().as_str(), model.partitions[&0].exits()), ("passed", None));
        let stat = |key, subject, detail, value| Event::Stat(Stat { key, subject, detail, value });
        model.event(&stat(StatKey::Fate, 0, 0, 1));
        model.event(&stat(StatKey::Exits, 0, 10, 20));
        model.event(&stat(StatKey::Exits, 0, 12, 2));
        let motion = &model.partitions[&0];
        assert_eq!((motion.exits(), motion.windows(), motion.denied()), (Some(22), None, Some(0)));
        assert_eq!(model.seconds(), Some(0.5));
    }

    #[test]
    fn a_second_start_forgets_the_first() {
        let mut model = model();
        model.event(&Event::Hello {
            build: vec![1; 20],
            digest: vec![1; 32],
            tsc_hz: 1,
            typed: None,
        });
        assert_eq!(model.partitions[&1].exits(), None);
        assert_eq!(model.incidents.values().sum::<u64>(), 1, "what went wrong is kept");
    }

    #[test]
    fn the_log_has_its_bounds() {
        let mut model = model();
        for _ in 0..3 * LINES {
            model.event(&Event::Text("again".into()));
        }
        assert_eq!(model.lines.len(), LINES);
    }
}
