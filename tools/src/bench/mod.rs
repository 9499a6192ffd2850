//! The bench: measures a system and, with a suite, the board under it; holds the figures against limits and against earlier ones.

mod charts;
pub mod compare;
pub mod figures;
pub mod limits;
pub mod markdown;
pub mod page;
pub mod percentiles;
pub mod suite;
pub mod summary;
pub mod systems;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_config::Input;
use serde::{Deserialize, Serialize};

use crate::emulator::Machine;
use crate::error::Result;
use crate::image::{BuildOptions, BuiltImage, build_image, build_native};
use crate::paths;
use crate::report::{self, Histogram, Report};
use crate::run::{RunOptions, judge, judge_all_but, run_image};
use figures::Figures;
use limits::{Checked, Plans};
use suite::{IDLE, Suite};
use systems::{COSTS, Composition, STOPPED, TIMER};

/// Version of the layout of [`Bench`].
pub const FORMAT: u32 = 1;

/// Name of the run of the user's own system.
pub const SYSTEM: &str = "system";
/// Name of the run under a hypervisor that answers marked exits with nothing but the way back.
pub const FLOOR: &str = "floor";
/// Beginning of the names of runs without a hypervisor.
pub const NATIVE: &str = "native-";

/// Everything that a measurement gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// [`FORMAT`].
    pub format: u32,
    /// The suite; empty where the system was measured alone.
    pub suite: String,
    /// What a tick means.
    pub ticks: String,
    /// What it ran on.
    pub emulator: String,
    /// Model of its processor; empty on a rig, and where it was not told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub processor: String,
    /// What booted it: `bios` or `uefi`; empty where it was not told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub firmware: String,
    /// `[board] name`.
    pub board: String,
    /// `[system] name`.
    pub system: String,
    /// Logical processors of the board.
    pub cpus: usize,
    /// Every figure by its name; more is worse. Times in ticks.
    pub figures: Figures,
    /// What became of the limits of the system file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Checked>,
    /// The runs; left out of a baseline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<NamedRun>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedRun {
    /// [`SYSTEM`], a neighbour's mode, [`FLOOR`], or [`NATIVE`] and a partition.
    pub name: String,
    /// What it gave.
    pub report: Report,
}

impl Bench {
    /// The bench of a system's own run, on a board with so many processors.
    #[must_use]
    pub fn of_run(suite: &str, report: Report, cpus: usize) -> Self {
        let mut bench = Self {
            format: FORMAT,
            suite: suite.to_string(),
            ticks: report.ticks.clone(),
            emulator: report.emulator.clone(),
            processor: report.processor.clone(),
            firmware: report.firmware.clone(),
            board: report.board.clone(),
            system: report.system.clone(),
            cpus,
            ..Self::default()
        };
        bench.add(SYSTEM.to_string(), report);
        bench
    }

    /// What it was measured on, by its one name.
    #[must_use]
    pub fn machine(&self) -> String {
        report::machine_named(&self.emulator, &self.processor, &self.firmware)
    }

    /// As JSON, whole.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A structure of strings, numbers and string-keyed maps always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// As JSON without the runs: what a later measurement is held against.
    #[must_use]
    pub fn baseline(&self) -> String {
        Self { runs: Vec::new(), limits: Vec::new(), ..self.clone() }.to_json() + "\n"
    }

    /// The report of a run.
    #[must_use]
    pub fn run(&self, name: &str) -> Option<&Report> {
        self.runs.iter().find(|run| run.name == name).map(|run| &run.report)
    }

    /// The report of the user's own system.
    #[must_use]
    pub fn own(&self) -> Option<&Report> {
        self.run(SYSTEM)
    }

    fn add(&mut self, name: String, mut report: Report) {
        note_refused_memory(&mut report);
        self.figures.extend(figures::of_report(&name, &report));
        self.runs.push(NamedRun { name, report });
    }
}

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct BenchOptions {
    /// The system file.
    pub system: PathBuf,
    /// The board file that is taken instead of the one that the system names.
    pub board: Option<PathBuf>,
    /// How thoroughly; the system alone without one.
    pub suite: Option<Suite>,
    /// Folder for everything that is built; by default below cargo's target directory.
    pub work: Option<PathBuf>,
    /// The tree whose hypervisor is measured; by default the one of this command.
    pub tree: Option<PathBuf>,
    /// Wall-clock limit of each run.
    pub timeout: Option<Duration>,
    /// The emulated machine, which counts ticks exactly.
    pub machine: Machine,
    /// A rig file: measures on that board instead of in Bochs. No guest is run there without the hypervisor.
    pub rig: Option<PathBuf>,
    /// Shows no progress and no log.
    pub quiet: bool,
}

/// A measurement, and whether the user's system did what it has to.
pub struct Outcome {
    /// The measurement.
    pub bench: Bench,
    /// The plans of its runs.
    pub plans: Plans,
    /// As [`judge`] says it, and then whether the limits were kept.
    pub verdict: Result<()>,
}

/// Measures.
///
/// # Errors
/// Something does not build or run, a system of the bench does not do what it has to, the board is too small for a suite, or the
/// emulator's ticks say nothing.
pub fn measure(options: &BenchOptions) -> Result<Outcome> {
    options.machine.check()?;
    options.machine.check_exact()?;
    let mut progress = Progress::new(options);
    progress.next("the system");
    let own = options.build(options.system.clone(), options.work.clone());
    let built = build_image(&BuildOptions { board: options.board.clone(), ..own })?;
    let run = options.run(&built)?;
    let verdict = judge(&run, &built.manifest);
    let suite = options.suite.map_or("", Suite::name);
    let mut bench = Bench::of_run(suite, run.report, built.manifest.cores);
    let mut plans = Plans::from([(SYSTEM.to_string(), built.compiled.plan().clone())]);
    if let Some(suite) = options.suite {
        measure_board(options, suite, &built, &mut progress, &mut bench, &mut plans)?;
    }
    progress.done();
    bench.limits = limits::check(&bench, &plans);
    let verdict = verdict.and_then(|()| limits::judge(&bench.limits));
    Ok(Outcome { bench, plans, verdict })
}

/// The bench's own systems, on the board of the user's.
fn measure_board(
    options: &BenchOptions,
    suite: Suite,
    own: &BuiltImage,
    progress: &mut Progress,
    bench: &mut Bench,
    plans: &mut Plans,
) -> Result<()> {
    let maker = Maker { options, suite, work: &own.work, plan: own.compiled.plan() };
    for neighbour in suite.neighbours() {
        progress.next(&format!("the bench beside a neighbour: {}", suite::told(neighbour)));
        let built = build_image(&maker.system(neighbour, false)?)?;
        bench.add((*neighbour).to_string(), maker.run(&built)?);
        plans.insert((*neighbour).to_string(), built.compiled.plan().clone());
        if *neighbour == IDLE && options.rig.is_none() {
            for partition in [COSTS, TIMER] {
                progress.next(&format!("{partition} without the hypervisor"));
                let native = build_native(&maker.system(neighbour, false)?, partition)?;
                bench.add(format!("{NATIVE}{partition}"), maker.run(&native)?);
            }
        }
    }
    progress.next("the floor");
    let floor = build_image(&maker.system(IDLE, true)?)?;
    bench.add(FLOOR.to_string(), maker.run(&floor)?);
    Ok(())
}

impl BenchOptions {
    /// The system that is measured, and its board.
    #[must_use]
    pub fn input(&self) -> Input<'_> {
        Input { system: &self.system, board: self.board.as_deref() }
    }

    fn build(&self, system: PathBuf, work: Option<PathBuf>) -> BuildOptions {
        let tree = self.tree.clone();
        BuildOptions { system, work, tree, quiet: self.quiet, ..BuildOptions::default() }
    }

    fn run(&self, built: &BuiltImage) -> Result<crate::Run> {
        run_image(&RunOptions {
            image: built.image.clone(),
            machine: self.machine.clone(),
            timeout: self.timeout.or_else(|| self.suite.and_then(Suite::limit)),
            rig: self.rig.clone(),
            quiet: self.quiet,
            ..RunOptions::default()
        })
    }
}

/// Says which of the runs of a suite is under way, and how long each took.
struct Progress {
    /// How many there are; nothing is said where that is none.
    runs: usize,
    begun: usize,
    since: Instant,
}

impl Progress {
    fn new(options: &BenchOptions) -> Self {
        let suite = options.suite.filter(|_| !options.quiet);
        let runs = suite.map_or(0, |suite| suite.runs(options.rig.is_none()));
        Self { runs, begun: 0, since: Instant::now() }
    }

    fn next(&mut self, what: &str) {
        self.done();
        self.begun += 1;
        if self.runs > 0 {
            eprintln!("run {} of {}: {what}", self.begun, self.runs);
        }
    }

    fn done(&mut self) {
        if self.runs > 0 && self.begun > 0 {
            let seconds = self.since.elapsed().as_secs_f64();
            eprintln!("run {} of {} took {seconds:.0} s", self.begun, self.runs);
        }
        self.since = Instant::now();
    }
}

/// Writes and runs the bench's systems.
struct Maker<'m> {
    options: &'m BenchOptions,
    suite: Suite,
    work: &'m Path,
    plan: &'m bulkhead_config::Plan,
}

impl Maker<'_> {
    /// Writes a system file and says how it is built.
    fn system(&self, neighbour: &str, floor: bool) -> Result<BuildOptions> {
        let name = if floor { FLOOR } else { neighbour };
        let work = self.work.join(format!("bench-{name}"));
        paths::create(&work)?;
        let file = work.join("bench.toml");
        // Counted from the file, so that it, and the digest in the table, is the same wherever the tree lies.
        let board = paths::relative(&paths::absolute(self.plan.board_file())?, &work);
        let guests =
            paths::relative(&paths::absolute(&paths::root()?)?.join("partitions/guests"), &work);
        let mut amounts = self.suite.amounts();
        if floor {
            // Nothing but the floor is looked at.
            (amounts.samples, amounts.windows) = (100, 10);
        }
        let partner = self.plan.apic_ids().get(2).copied().unwrap_or_default();
        let composition = Composition { neighbour, amounts, floor, partner };
        let text = systems::text(self.plan, &board, &guests, &composition)?;
        paths::write_if_changed(&file, text.as_bytes())?;
        Ok(BuildOptions { floor, ..self.options.build(file, Some(work)) })
    }

    /// Runs what has to end well.
    fn run(&self, built: &BuiltImage) -> Result<Report> {
        let run = self.options.run(built)?;
        judge_all_but(STOPPED, &run, &built.manifest)?;
        Ok(run.report)
    }
}

/// What an access to memory that nobody gave takes until the hypervisor decided: the guest told when it would try, and the hypervisor when
/// that was.
fn note_refused_memory(report: &mut Report) {
    for partition in &mut report.partitions {
        let Some((stopped, at)) = partition.stopped_at.zip(partition.value("touches-at")) else {
            continue;
        };
        let ticks = stopped.saturating_sub(at);
        partition.histograms.push(Histogram {
            name: "memory-refused".to_string(),
            unit: "ticks".to_string(),
            count: 1,
            min: ticks,
            median: ticks,
            p99_9: ticks,
            max: ticks,
            bins: vec![(ticks, 1)],
            ..Histogram::default()
        });
    }
}
