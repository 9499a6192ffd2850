//! Builds, runs and measures a system; the demo is this with the tour's system and fixed places.

use std::path::{Path, PathBuf};

use crate::bench::limits::Plans;
use crate::bench::{self, Bench, BenchOptions, Outcome, compare, page, summary};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::provision::{self, Need};
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
    let quiet = options.format == Format::Json;
    let need = if options.bench.rig.is_some() { Need::Build } else { Need::Bochs };
    provision::ensure(need, quiet)?;
    // Before minutes of measuring: a wrong file is told at once.
    let old = options.compare.as_deref().map(|path| Ok((path, compare::read(path)?)));
    let old = old.transpose()?;
    let Outcome { bench, plans, verdict } = bench::measure(&options.bench)?;
    show(options, &bench);
    write(options, &bench, &plans)?;
    if let Some((path, old)) = old {
        let comparison = compare::compare(&old, &bench)?;
        eprint!("{}", comparison.render());
        comparison.judge(path)?;
    }
    verdict
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
        gantt::write(&report, &compile::plan(&options.bench.system)?, path)?;
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
