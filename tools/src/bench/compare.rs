//! Holds figures against those of an earlier run.

use std::path::Path;

use serde::Deserialize;

use super::figures::{Figures, of_report};
use super::{Bench, SYSTEM};
use crate::error::{Error, Result};
use crate::paths;
use crate::report::Report;
use crate::screen::grouped;

/// Ticks by which two runs of one image differ where the emulator interleaves several processors: its step.
const STEP: u64 = 5;

/// One part in so many of the boot: its length follows the size of what is hashed and cleared.
const BOOT_PART: u64 = 50;

/// Figures as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Old {
    /// The emulator, and the suite; empty where one run was measured.
    pub origin: (String, String),
    /// The figures.
    pub figures: Figures,
}

/// What a file of figures may look like.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Bench { suite: String, emulator: String, figures: Figures },
    Report(Box<Report>),
}

/// Reads what `measure` wrote: a bench, its figures alone, or the report of one run.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn read(path: &Path) -> Result<Old> {
    let file: File = serde_json::from_slice(&paths::read(path)?).map_err(|cause| {
        Error::refused(
            format!("{} holds no figures", path.display()),
            cause.to_string(),
            "name a file that `bulkhead measure` wrote with --report or --baseline",
        )
    })?;
    Ok(match file {
        File::Bench { suite, emulator, figures } => Old { origin: (emulator, suite), figures },
        File::Report(report) => Old {
            origin: (report.emulator.clone(), String::new()),
            figures: of_report(SYSTEM, &report),
        },
    })
}

/// A figure that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// As it was; `None` when it is new.
    pub old: Option<u64>,
    /// As it is; `None` when it is gone.
    pub new: Option<u64>,
    /// By how much it may differ.
    pub slack: u64,
}

impl Change {
    /// Whether it is worse than it was, beyond what two runs of one image differ. A figure that is gone is worse: what it
    /// showed is not shown any more.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        match (self.old, self.new) {
            (Some(old), Some(new)) => new > old.saturating_add(self.slack),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn is_better(&self) -> bool {
        matches!((self.old, self.new), (Some(old), Some(new)) if new.saturating_add(self.slack) < old)
    }
}

/// How two sets of figures differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Figures that are not as they were, beyond what two runs of one image differ.
    pub changes: Vec<Change>,
    /// Figures that were compared.
    pub compared: usize,
}

/// Compares.
///
/// # Errors
/// The two were not measured alike.
pub fn compare(old: &Old, new: &Bench) -> Result<Comparison> {
    let (emulator, suite) = &old.origin;
    check_suite(old, &new.suite)?;
    if *emulator != new.emulator {
        return Err(unlike(
            format!("the old ones are of {emulator}, the new ones of {}", new.emulator),
            format!("measure both on the same; {} was measured there", told(suite)),
        ));
    }
    let names =
        old.figures.keys().chain(new.figures.keys().filter(|it| !old.figures.contains_key(*it)));
    let changes = names
        .map(|name| Change {
            name: name.clone(),
            old: old.figures.get(name).copied(),
            new: new.figures.get(name).copied(),
            slack: slack(name, old.figures.get(name).copied().unwrap_or(0), new.cpus),
        })
        .filter(|it| it.is_worse() || it.is_better() || it.old.is_none())
        .collect();
    Ok(Comparison { changes, compared: old.figures.len() })
}

/// Whether figures of this suite can be held against the old ones: known before anything is measured.
///
/// # Errors
/// They cannot.
pub fn check_suite(old: &Old, suite: &str) -> Result<()> {
    let (emulator, known) = &old.origin;
    if known == suite {
        return Ok(());
    }
    let remedy = match known.as_str() {
        "" => "leave --suite out".to_string(),
        known => format!("give --suite {known}"),
    };
    let cause =
        format!("the old ones are of {} on {emulator}, not of {}", told(known), told(suite));
    Err(unlike(cause, remedy))
}

fn told(suite: &str) -> String {
    if suite.is_empty() { "one run".to_string() } else { format!("suite {suite}") }
}

fn unlike(cause: String, remedy: String) -> Error {
    Error::refused("the figures cannot be compared", cause, remedy)
}

/// Figures that depend on where in its loop a guest is interrupted, which any change of code moves, and the ticks by which they may
/// differ: the ways into the handler of a timer in a window are 15 apart, and a timer that is due where its window ends comes at the
/// end of the switch's quiet zone or before it.
const LOOSE: [(&str, u64); 2] = [("/timer-in-window/", 20), ("/costs-shared/timer/", 150)];

/// By how much two runs of one image, or of two of which neither is slower, may differ.
fn slack(name: &str, old: u64, cpus: usize) -> u64 {
    if let Some((_, ticks)) = LOOSE.iter().find(|(part, _)| name.contains(part)) {
        return *ticks;
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    match last {
        "to-last-partition" => old / BOOT_PART,
        "min" | "median" | "mean" | "max" | "p90" | "p99" | "p99_9" | "p99_99" | "p99_999"
            if cpus > 1 =>
        {
            STEP
        }
        // Counts, and the ticks of a machine with one processor.
        _ => 0,
    }
}

impl Comparison {
    /// Figures that are worse.
    pub fn worse(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_worse())
    }

    /// As a table, what is worse first; one line when nothing changed.
    #[must_use]
    pub fn render(&self) -> String {
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by_key(|change| !change.is_worse());
        if changes.is_empty() {
            return format!("\n  {} figures are as they were\n", grouped(self.compared as u64));
        }
        let mut rows = vec![["", "figure", "was", "is", "allowed"].map(str::to_string).to_vec()];
        let told = |value: Option<u64>| value.map_or_else(|| "-".to_string(), grouped);
        for change in &changes {
            let word = if change.is_worse() {
                "worse"
            } else if change.old.is_none() {
                "new"
            } else {
                "better"
            };
            let name = change.name.clone();
            let slack = format!("+{}", change.slack);
            rows.push(vec![word.into(), name, told(change.old), told(change.new), slack]);
        }
        format!(
            "\n{}  {} of {} figures are worse\n",
            crate::table::grid(&rows),
            self.worse().count(),
            grouped(self.compared as u64)
        )
    }

    /// Fails when something is worse.
    ///
    /// # Errors
    /// It names how many.
    pub fn judge(&self, old: &Path) -> Result<()> {
        match self.worse().count() {
            0 => Ok(()),
            count => Err(Error::Verdict(format!(
                "{count} figures are worse than in {}; the table above names them",
                old.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(figures: &[(&str, u64)]) -> Bench {
        let figures = figures.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        Bench { cpus: 4, figures, ..Bench::default() }
    }

    fn old(figures: &[(&str, u64)]) -> Old {
        Old { figures: bench(figures).figures, ..Old::default() }
    }

    fn worse(was: &[(&str, u64)], is: &[(&str, u64)]) -> Vec<String> {
        let comparison = compare(&old(was), &bench(is)).unwrap();
        comparison.worse().map(|change| change.name.clone()).collect()
    }

    #[test]
    fn a_step_of_the_clock_is_no_change_and_more_is() {
        assert!(worse(&[("a/b/cpuid/mean", 90)], &[("a/b/cpuid/mean", 95)]).is_empty());
        assert_eq!(worse(&[("a/b/cpuid/mean", 90)], &[("a/b/cpuid/mean", 96)]), ["a/b/cpuid/mean"]);
        assert!(worse(&[("a/b/cpuid/mean", 90)], &[("a/b/cpuid/mean", 40)]).is_empty());
    }

    #[test]
    fn where_a_loop_is_interrupted_is_no_change() {
        let name = "all/windows/timer-in-window/median";
        assert!(worse(&[(name, 75)], &[(name, 90)]).is_empty());
        assert_eq!(worse(&[(name, 75)], &[(name, 125)]), [name]);
    }

    #[test]
    fn one_exit_and_one_lost_window_are_worse() {
        for name in ["a/motion/span-exits", "a/plc/windows-late", "a/plc/windows-skipped"] {
            assert_eq!(worse(&[(name, 0)], &[(name, 1)]), [name]);
        }
    }

    #[test]
    fn a_figure_that_is_gone_is_worse_and_a_new_one_is_not() {
        assert_eq!(worse(&[("a/x/max", 1)], &[]), ["a/x/max"]);
        let comparison = compare(&old(&[]), &bench(&[("a/x/max", 1)])).unwrap();
        assert_eq!(comparison.worse().count(), 0);
        assert!(comparison.render().contains("new"), "{}", comparison.render());
    }

    #[test]
    fn what_was_measured_otherwise_is_refused() {
        let other = Bench { suite: "full".into(), ..bench(&[]) };
        let error = compare(&old(&[]), &other).unwrap_err().to_string();
        assert!(error.contains("suite full") && error.contains("leave --suite out"), "{error}");
        let quick = Old { origin: (String::new(), "quick".into()), ..old(&[]) };
        let error = check_suite(&quick, "").unwrap_err().to_string();
        assert!(error.contains("suite quick") && error.contains("give --suite quick"), "{error}");
        let other = Bench { emulator: "bochs 2.8".into(), ..bench(&[]) };
        let error = compare(&old(&[]), &other).unwrap_err().to_string();
        assert!(error.contains("bochs 2.8"), "{error}");
    }

    #[test]
    fn a_report_of_one_run_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.json");
        let report = Report { emulator: "bochs 2.7".into(), ..Report::default() };
        std::fs::write(&path, report.to_json()).unwrap();
        assert_eq!(read(&path).unwrap().origin, ("bochs 2.7".into(), String::new()));
        let bench = Bench { emulator: "e".into(), suite: "quick".into(), ..bench(&[("a/b", 3)]) };
        std::fs::write(&path, bench.baseline()).unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!(read_back.figures, bench.figures);
        assert_eq!(read_back.origin, ("e".into(), "quick".into()));
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("holds no figures"));
    }
}
