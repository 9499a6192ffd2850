//! Builds, runs and measures a system; the demo is this with the tour's system and fixed places.

use std::path::{Path, PathBuf};

use crate::bench::limits::Plans;
use crate::bench::{self, Bench, BenchOptions, Outcome, compare, page, summary, systems};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::provision::{self, Need};
use crate::rig::Rig;
use crate::run::judge;
use crate::{compile, gantt, paths, plot, table};

/// How figures are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs, on standard output.
    Json,
}

/// What to measure, and where the figures go.
#[derive(Clone, Debug, Default)]
pub struct MeasureOptions {
    /// The system, and how thoroughly it is measured.
    pub bench: BenchOptions,
    /// Where the report goes, as JSON.
    pub report: Option<PathBuf>,
    /// Where the figures alone go, as JSON.
    pub baseline: Option<PathBuf>,
    /// Earlier figures, which these are held against.
    pub compare: Option<PathBuf>,
    /// Where the page goes, as HTML.
    pub html: Option<PathBuf>,
    /// Where the picture goes, as SVG.
    pub plot: Option<PathBuf>,
    /// Where the picture of what ran on the time-shared cores goes, as SVG.
    pub gantt: Option<PathBuf>,
    /// How figures are printed.
    pub format: Format,
}

/// Measures a system in Bochs or on the board of a rig, and with a suite the board under it.
///
/// # Errors
/// It does not build or run, a partition did not do what it has to, or a figure is worse than an earlier one. Everything is written
/// all the same when the run came to its end.
pub fn measure(options: &MeasureOptions) -> Result<()> {
    let old = look_ahead(options)?;
    let quiet = options.format == Format::Json;
    let emulated = options.bench.machine.target.need();
    let need = if options.bench.rig.is_some() { Need::Build } else { emulated };
    provision::ensure(need, quiet)?;
    let Outcome { bench, plans, verdict } = bench::measure(&options.bench)?;
    show(options, &bench);
    write(options, &bench, &plans)?;
    let Some((path, old)) = old else { return verdict };
    let comparison = compare::compare(&old, &bench)?;
    eprint!("{}", comparison.render());
    both(verdict, comparison.judge(path))
}

/// What can be said before minutes of measuring is said at once. Returns the earlier figures with their path.
fn look_ahead(options: &MeasureOptions) -> Result<Option<(&Path, compare::Old)>> {
    let plan = compile::plan_for(options.bench.input(), options.format)?;
    if let Some(rig) = &options.bench.rig {
        Rig::load(rig)?;
    }
    if options.bench.suite.is_some() {
        systems::check_board(&plan)?;
    }
    if let Some(path) = options.gantt.as_deref().filter(|_| !plan.logs_windows()) {
        return Err(Error::refused(
            format!("nothing would be drawn in {}", path.display()),
            "the system does not keep what ran",
            "add `[log]` with `windows = true` to the system file",
        ));
    }
    let MeasureOptions { report, baseline, html, plot, gantt, .. } = options;
    for path in [report, baseline, html, plot, gantt].into_iter().flatten() {
        paths::can_write(path)?;
    }
    let Some(path) = options.compare.as_deref() else { return Ok(None) };
    let old = compare::read(path)?;
    compare::check_suite(&old, options.bench.suite.map_or("", |suite| suite.name()))?;
    Ok(Some((path, old)))
}

/// Both verdicts, where both are bad.
fn both(one: Result<()>, other: Result<()>) -> Result<()> {
    match (one, other) {
        (Err(Error::Verdict(one)), Err(Error::Verdict(other))) => {
            Err(Error::Verdict(format!("{one}\n{other}")))
        }
        (one, other) => one.and(other),
    }
}

fn show(options: &MeasureOptions, bench: &Bench) {
    let report = bench.own().cloned().unwrap_or_default();
    match (options.format, options.bench.suite) {
        (Format::Human, None) => {
            print!("{}{}", table::render(&report), summary::limits(&bench.limits));
        }
        (Format::Human, Some(_)) => print!("{}", summary::render(bench)),
        (Format::Json, None) => println!("{}", report.to_json()),
        (Format::Json, Some(_)) => println!("{}", bench.to_json()),
    }
}

fn write(options: &MeasureOptions, bench: &Bench, plans: &Plans) -> Result<()> {
    let report = bench.own().cloned().unwrap_or_default();
    if let Some(path) = &options.report {
        let json = if options.bench.suite.is_some() { bench.to_json() } else { report.to_json() };
        paths::write(path, json.as_bytes())?;
    }
    if let Some(path) = &options.baseline {
        paths::write(path, bench.baseline().as_bytes())?;
    }
    if let Some(path) = &options.html {
        paths::write(path, page::page(bench, plans).as_bytes())?;
    }
    if let Some(path) = &options.plot {
        plot::write(&report, path)?;
    }
    if let Some(path) = &options.gantt {
        gantt::write(&report, &compile::plan(options.bench.input())?, path)?;
    }
    Ok(())
}

/// The tour: everything from a bare machine to a latency table.
///
/// # Errors
/// As [`measure`].
pub fn demo() -> Result<()> {
    let system = paths::root()?.join("partitions/demo.toml");
    let folder = paths::work("demo")?;
    paths::create(&folder)?;
    let (report, picture) = (folder.join("report.json"), folder.join("latency.svg"));
    println!("Bulkhead demo: partitions/demo.toml under VT-x on an emulated industrial PC\n");
    measure(&MeasureOptions {
        bench: BenchOptions { system, ..BenchOptions::default() },
        report: Some(report.clone()),
        plot: Some(picture.clone()),
        ..MeasureOptions::default()
    })?;
    println!("\nreport:   {}\npicture:  {}", shown(&report), shown(&picture));
    println!("next:     read partitions/demo.toml, change a window, and run `cargo demo` again");
    Ok(())
}

/// A path as short as it can be named from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// Prints or writes the report of a run that `bulkhead run` made.
///
/// # Errors
/// The report cannot be written, or a partition did not do what it has to.
pub fn close(run: &crate::run::Run, image: &Path, report: Option<&Path>) -> Result<()> {
    // A machine that refused has said why; a table of blanks would bury it.
    if run.report.complete {
        print!("{}", table::render(&run.report));
    }
    if let Some(path) = report {
        paths::write(path, run.report.to_json().as_bytes())?;
        println!("\nreport:   {}", shown(path));
    }
    judge(run, &Manifest::load(image)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::Suite;

    fn shipped(name: &str) -> PathBuf {
        paths::root().unwrap().join(name)
    }

    fn options() -> MeasureOptions {
        let bench =
            BenchOptions { system: shipped("partitions/demo.toml"), ..BenchOptions::default() };
        MeasureOptions { bench, ..MeasureOptions::default() }
    }

    #[track_caller]
    fn refused(options: &MeasureOptions, part: &str) -> Error {
        let error = look_ahead(options).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(part), "{part} is missing in: {error}");
        error
    }

    #[test]
    fn what_is_wrong_is_told_before_anything_is_measured() {
        look_ahead(&options()).unwrap();
        let mut missing = options();
        missing.bench.system = "no-such.toml".into();
        assert_eq!(refused(&missing, "no-such.toml").exit_code(), 2);
        let nowhere = || Some(PathBuf::from("/no/such/folder/file"));
        refused(&MeasureOptions { report: nowhere(), ..options() }, "cannot write /no/such");
        refused(&MeasureOptions { html: nowhere(), ..options() }, "cannot write /no/such");
        refused(&MeasureOptions { compare: nowhere(), ..options() }, "cannot read /no/such");
        refused(&MeasureOptions { gantt: nowhere(), ..options() }, "`windows = true`");
        let baseline = Some(shipped("hil-tests/baselines/demo-quick.json"));
        refused(&MeasureOptions { compare: baseline, ..options() }, "give --suite quick");
        let mut rig = options();
        rig.bench.rig = nowhere();
        refused(&rig, "cannot find /no/such");
    }

    #[test]
    fn a_board_that_is_too_small_for_a_suite_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(shipped(name)).unwrap();
        let cores = "[[core]]\napic-id = 2\n[[core]]\napic-id = 3\n";
        let board = read("partitions/boards/bochs-skylake-x.toml");
        assert!(board.contains(cores));
        std::fs::write(folder.path().join("board.toml"), board.replace(cores, "")).unwrap();
        let guests = shipped("partitions/guests").display().to_string();
        let system = read("partitions/demo.toml")
            .replace("\"boards/bochs-skylake-x.toml", "\"board.toml")
            .replace("\"guests/", &format!("\"{guests}/"));
        let file = folder.path().join("small.toml");
        std::fs::write(&file, system).unwrap();
        let mut small = options();
        small.bench.system = file;
        look_ahead(&small).unwrap();
        small.bench.suite = Some(Suite::Quick);
        refused(&small, "it has 2 cores, and the bench takes 4");
    }

    #[test]
    fn looking_whether_a_file_can_be_written_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        std::fs::write(&old, "kept").unwrap();
        look_ahead(&MeasureOptions {
            report: Some(new.clone()),
            html: Some(old.clone()),
            ..options()
        })
        .unwrap();
        assert!(!new.exists());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "kept");
        refused(
            &MeasureOptions { report: Some(folder.path().into()), ..options() },
            "cannot write",
        );
    }

    #[test]
    fn both_verdicts_are_told() {
        let bad = |text: &str| Err(Error::Verdict(text.to_string()));
        let error = both(bad("a limit"), bad("a figure")).unwrap_err().to_string();
        assert!(error.contains("a limit") && error.contains("a figure"), "{error}");
        assert!(both(Ok(()), bad("a figure")).is_err() && both(bad("a limit"), Ok(())).is_err());
        both(Ok(()), Ok(())).unwrap();
    }
}
