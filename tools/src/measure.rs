//! Builds, runs and measures a system; the demo is this with the tour's system and fixed places.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;
use crate::image::{BuildOptions, build_image};
use crate::manifest::Manifest;
use crate::provision::{self, Need};
use crate::run::{RunOptions, judge, run_image};
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
    /// The system file.
    pub system: PathBuf,
    /// Where the report goes, as JSON.
    pub report: Option<PathBuf>,
    /// Where the picture goes, as SVG.
    pub plot: Option<PathBuf>,
    /// Where the picture of what ran on the time-shared cores goes, as SVG.
    pub gantt: Option<PathBuf>,
    /// How figures are printed.
    pub format: Format,
    /// Wall-clock limit of the run.
    pub timeout: Option<Duration>,
    /// A rig file: measures on that board instead of in Bochs.
    pub rig: Option<PathBuf>,
}

/// Measures a system in Bochs, or on the board of a rig.
///
/// # Errors
/// It does not build or run, or a partition did not do what it has to. The report is written all the same
/// when the run came to its end.
pub fn measure(options: &MeasureOptions) -> Result<()> {
    let quiet = options.format == Format::Json;
    let need = if options.rig.is_some() { Need::Build } else { Need::Bochs };
    provision::ensure(need, quiet)?;
    let build = BuildOptions { system: options.system.clone(), quiet, ..BuildOptions::default() };
    let built = build_image(&build)?;
    let run = run_image(&RunOptions {
        image: built.image,
        timeout: options.timeout,
        rig: options.rig.clone(),
        quiet,
        ..RunOptions::default()
    })?;
    match options.format {
        Format::Human => print!("{}", table::render(&run.report)),
        Format::Json => println!("{}", run.report.to_json()),
    }
    if let Some(path) = &options.report {
        paths::write(path, run.report.to_json().as_bytes())?;
    }
    if let Some(path) = &options.plot {
        plot::write(&run.report, path)?;
    }
    if let Some(path) = &options.gantt {
        gantt::write(&run.report, &compile::plan(&options.system)?, path)?;
    }
    judge(&run, &built.manifest)
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
        system,
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
