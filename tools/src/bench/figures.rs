//! From a report to figures: names and numbers that a later run can be held against.
//!
//! A name is a path: run, what it is about, what was measured. In all of them more is worse; what is neither better nor worse is no
//! figure.

use std::collections::BTreeMap;

use super::FLOOR;
use super::percentiles::{Distribution, PERCENTILES};
use super::systems::COSTS;
use crate::report::{Histogram, Partition, Report};

/// Figures by name. Times are in ticks.
pub type Figures = BTreeMap<String, u64>;

/// Units of what a guest counts only when something went wrong, or costs time.
const COUNTED: [&str; 4] = ["exits", "samples", "timers", "windows"];

/// The figures of one run, which is called `run`.
#[must_use]
pub fn of_report(run: &str, report: &Report) -> Figures {
    let mut figures = Figures::new();
    for partition in report.partitions.iter().filter(|it| is_present(report, it)) {
        of_partition(&format!("{run}/{}", partition.name), partition, &mut figures);
    }
    if run == FLOOR {
        // What else runs there is too short to say anything.
        figures.retain(|name, _| name.starts_with(&format!("{FLOOR}/{COSTS}/")));
        return figures;
    }
    for core in &report.cores {
        let mut switch = |key: &str, ticks: Option<u64>| {
            if let Some(ticks) = ticks {
                figures.insert(format!("{run}/core-{}/switch/{key}", core.cpu), ticks);
            }
        };
        switch("min", core.switch_min);
        switch("max", core.switch_max);
    }
    if let Some(ticks) = report.boot.to_last_partition {
        figures.insert(format!("{run}/boot/to-last-partition"), ticks);
    }
    figures
}

/// In a native run there is but one partition.
fn is_present(report: &Report, partition: &Partition) -> bool {
    report.native.as_ref().is_none_or(|name| *name == partition.name)
}

fn of_partition(path: &str, partition: &Partition, figures: &mut Figures) {
    for histogram in partition.histograms.iter().filter(|it| it.count > 0) {
        of_histogram(&format!("{path}/{}", histogram.name), histogram, figures);
    }
    let counts = partition.values.iter().filter(|value| COUNTED.contains(&value.unit.as_str()));
    for value in counts {
        figures.insert(format!("{path}/{}", value.name), value.value);
    }
    if let Some(exits) = partition.span_exits {
        figures.insert(format!("{path}/span-exits"), exits);
    }
    if let Some(windows) = partition.windows {
        figures.insert(format!("{path}/windows-late"), windows.late);
        if let Some(most) = windows.lateness_max {
            figures.insert(format!("{path}/entry-late/max"), most);
        }
    }
}

fn of_histogram(path: &str, histogram: &Histogram, figures: &mut Figures) {
    let distribution = Distribution::new(histogram);
    for percentile in PERCENTILES {
        if let Some(value) = distribution.at(percentile) {
            figures.insert(format!("{path}/{}", percentile.key), value);
        }
    }
    figures.insert(format!("{path}/min"), histogram.min);
    figures.insert(format!("{path}/mean"), distribution.mean());
    figures.insert(format!("{path}/max"), histogram.max);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Boot, Core, Value, Windows};

    #[test]
    fn a_report_becomes_paths_and_numbers() {
        let value =
            |name: &str, unit: &str| Value { name: name.into(), value: 7, unit: unit.into() };
        let report = Report {
            partitions: vec![Partition {
                name: "plc".into(),
                span_exits: Some(3),
                windows: Some(Windows { lateness_max: Some(5), late: 1, ..Windows::default() }),
                histograms: vec![Histogram {
                    name: "start".into(),
                    count: 3,
                    min: 1,
                    max: 4,
                    bins: vec![(1, 1), (4, 2)],
                    ..Histogram::default()
                }],
                values: vec![value("missed", "samples"), value("epoch", "ticks")],
                ..Partition::default()
            }],
            cores: vec![Core { cpu: 0, switch_max: Some(900), ..Core::default() }],
            boot: Boot { to_last_partition: Some(12), ..Boot::default() },
            ..Report::default()
        };
        let names = [
            ("x/boot/to-last-partition", 12),
            ("x/core-0/switch/max", 900),
            ("x/plc/entry-late/max", 5),
            ("x/plc/missed", 7),
            ("x/plc/span-exits", 3),
            ("x/plc/start/max", 4),
            ("x/plc/start/mean", 3),
            ("x/plc/start/median", 4),
            ("x/plc/start/min", 1),
            ("x/plc/windows-late", 1),
        ];
        let wanted: Figures = names.map(|(name, value)| (name.to_string(), value)).into();
        assert_eq!(of_report("x", &report), wanted);
    }

    #[test]
    fn a_native_run_has_one_partition() {
        let partition = |name: &str| Partition {
            name: name.into(),
            span_exits: Some(0),
            ..Partition::default()
        };
        let report = Report {
            native: Some("motion".into()),
            partitions: vec![partition("motion"), partition("plc")],
            ..Report::default()
        };
        let figures = of_report("native", &report);
        assert_eq!(figures.into_keys().collect::<Vec<_>>(), ["native/motion/span-exits"]);
    }
}
