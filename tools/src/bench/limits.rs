//! Holds a bench to the `[limits]` of the system file, and tells what happened when one was broken.

use std::collections::BTreeMap;

use bulkhead_config::{Limit, Limited, Plan, PlannedRole};
use bulkhead_table::{Owner, Window};
use serde::{Deserialize, Serialize};

use super::percentiles::{Distribution, Percentile};
use super::summary::is_under_hypervisor;
use super::{Bench, NamedRun, SYSTEM};
use crate::error::{Error, Result};
use crate::report::{Histogram, Partition, RanWindow, Report};
use crate::screen::grouped;

/// The plans of the runs, by their names.
pub type Plans = BTreeMap<String, Plan>;

/// What became of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// As the file has it: `timer.p99_999`.
    pub key: String,
    /// Where the file sets it.
    pub place: String,
    /// The most that passes: ticks, or exits a second.
    pub most: u64,
    /// The worst that was measured; absent where nothing measured it.
    pub worst: Option<u64>,
    /// Whether it was measured and kept.
    pub kept: bool,
    /// Who was worst, and what happened when it was broken; why nothing measured it.
    pub told: String,
}

/// One measurement that a limit is on.
struct Seen<'b> {
    run: &'b NamedRun,
    /// Whose it is; nobody's for a core.
    who: String,
    /// The value; or why there is none.
    value: std::result::Result<u64, String>,
    histogram: Option<&'b Histogram>,
}

/// Checks every limit of `plan`, which is the plan of the user's own system.
#[must_use]
pub fn check(bench: &Bench, plans: &Plans) -> Vec<Checked> {
    let Some(plan) = plans.get(SYSTEM) else {
        return Vec::new();
    };
    plan.limits().iter().map(|limit| check_one(limit, bench, plans)).collect()
}

/// Fails when a limit was not kept.
///
/// # Errors
/// A sentence for each.
pub fn judge(checked: &[Checked]) -> Result<()> {
    let broken: Vec<String> = checked
        .iter()
        .filter(|it| !it.kept)
        .map(|it| format!("limit {} ({}) is not kept: {}", it.key, it.place, it.told))
        .collect();
    if broken.is_empty() { Ok(()) } else { Err(Error::Verdict(broken.join("\n"))) }
}

fn check_one(limit: &Limit, bench: &Bench, plans: &Plans) -> Checked {
    let runs = bench.runs.iter().filter(|run| is_under_hypervisor(&run.name));
    let seen: Vec<Seen<'_>> = runs.flat_map(|run| measurements(limit, run)).collect();
    let worst = seen
        .iter()
        .filter_map(|it| it.value.as_ref().ok().map(|value| (*value, it)))
        .max_by_key(|(value, _)| *value);
    let (kept, told) = match worst {
        Some((value, it)) if value > limit.most => (false, broken(limit, value, it, plans)),
        Some((value, it)) => {
            (true, format!("at worst {}, {} in run {}", grouped(value), it.who, it.run.name))
        }
        None => (false, unmeasured(limit, &seen)),
    };
    Checked {
        key: limit.key.clone(),
        place: limit.place.clone(),
        most: limit.most,
        worst: worst.map(|(value, _)| value),
        kept,
        told,
    }
}

fn measurements<'b>(limit: &Limit, run: &'b NamedRun) -> Vec<Seen<'b>> {
    let report = &run.report;
    let partitions =
        |kind: &'static str| report.partitions.iter().filter(move |it| it.kind == kind);
    match limit.on {
        Limited::Timer => {
            partitions("dedicated").filter_map(|it| value_of(limit, run, it, "wakeup")).collect()
        }
        Limited::Window => {
            partitions("shared").filter_map(|it| value_of(limit, run, it, "window-start")).collect()
        }
        Limited::Switch => report
            .cores
            .iter()
            .filter_map(|core| Some((core.cpu, core.switch_max?)))
            .map(|(cpu, most)| Seen {
                run,
                who: format!("core {cpu}"),
                value: Ok(most),
                histogram: None,
            })
            .collect(),
        Limited::ExitsPerSecond => partitions("dedicated")
            .filter_map(|partition| {
                let value = exits_per_second(partition, report)?;
                Some(Seen { run, who: partition.name.clone(), value, histogram: None })
            })
            .collect(),
    }
}

fn value_of<'b>(
    limit: &Limit,
    run: &'b NamedRun,
    partition: &'b Partition,
    name: &str,
) -> Option<Seen<'b>> {
    let histogram = partition.histogram(name).filter(|it| it.count > 0)?;
    let value = match Percentile::of_key(&limit.statistic) {
        None => Ok(histogram.max),
        Some(percentile) => Distribution::new(histogram).at(percentile).ok_or_else(|| {
            format!(
                "{} of {} are too few for {}, which takes {}",
                grouped(histogram.count),
                partition.name,
                percentile.name,
                grouped(percentile.beyond)
            )
        }),
    };
    Some(Seen { run, who: partition.name.clone(), value, histogram: Some(histogram) })
}

/// Exits a second in the measured span, rounded up; `None` without a span.
fn exits_per_second(
    partition: &Partition,
    report: &Report,
) -> Option<std::result::Result<u64, String>> {
    let exits = partition.span_exits?;
    let span = partition.value("span").filter(|ticks| *ticks > 0);
    Some(match (exits, span) {
        (0, _) => Ok(0),
        (_, Some(ticks)) => Ok(exits.saturating_mul(report.boot.tsc_declared_hz).div_ceil(ticks)),
        (_, None) => Err(format!(
            "{} took {exits} exits in its span and did not report how long that is (value `span`)",
            partition.name
        )),
    })
}

fn unmeasured(limit: &Limit, seen: &[Seen<'_>]) -> String {
    if let Some(why) = seen.iter().find_map(|it| it.value.as_ref().err()) {
        return format!("nothing measured it: {why}; take more samples, or use --suite");
    }
    let source = match limit.on {
        Limited::Timer => "no partition on a dedicated core reported a histogram `wakeup`",
        Limited::Window => "no partition in windows reported a histogram `window-start`",
        Limited::Switch => "no core switched",
        Limited::ExitsPerSecond => "no partition on a dedicated core measured a span",
    };
    format!("nothing measured it: {source}; use --suite, whose guests do")
}

fn broken(limit: &Limit, value: u64, seen: &Seen<'_>, plans: &Plans) -> String {
    let most = grouped(limit.most);
    let mut out = format!(
        "{} in run {} has {}, the limit is {most}",
        seen.who,
        seen.run.name,
        grouped(value)
    );
    let report = &seen.run.report;
    if let Some(histogram) = seen.histogram {
        let above = Distribution::new(histogram).above(limit.most);
        let (above, count) = (grouped(above), grouped(histogram.count));
        out.push_str(&format!("; {above} of {count} samples are above it"));
        if let Some(at) = histogram.worst_at {
            let context = context(report, plans.get(&seen.run.name), at);
            out.push_str(&format!("; the worst, {}, came {context}", grouped(histogram.max)));
        }
    } else if let Some(partition) = report.partition(&seen.who) {
        let reasons = partition.span_exits_by_reason.iter();
        let reasons: Vec<_> = reasons.map(|(why, count)| format!("{why} {count}")).collect();
        out.push_str(&format!("; exits in its span: {}", reasons.join(", ")));
    } else if let Some(core) =
        report.cores.iter().find(|core| seen.who == format!("core {}", core.cpu))
    {
        let steps = core.switch_steps.iter();
        let steps: Vec<_> = steps.map(|(step, most)| format!("{step} {most}")).collect();
        out.push_str(&format!("; the steps of its longest switch: {}", steps.join(", ")));
    }
    out
}

/// When that was, what the plan has on the time-shared cores at that instant, and what went wrong with time in that frame.
fn context(report: &Report, plan: Option<&Plan>, at: u64) -> String {
    let mut out = format!("at TSC {}", grouped(at));
    let (Some(plan), Some(epoch)) = (plan, report.boot.epoch) else {
        return out;
    };
    let Some(since) = at.checked_sub(epoch).filter(|_| plan.frame() > 0) else {
        return out;
    };
    let (frame, offset) = (since / plan.frame(), since % plan.frame());
    out.push_str(&format!(", {} ticks into frame {}", grouped(offset), grouped(frame)));
    for core in plan.cores() {
        if let PlannedRole::Shared(plans) = &core.role {
            let windows = plans.first().map_or(&[][..], Vec::as_slice);
            let had =
                ran_on(report, core.cpu, at).unwrap_or_else(|| planned(plan, windows, offset));
            out.push_str(&format!(", when core {} {had}", core.cpu));
        }
    }
    for health in report.health.iter().filter(|it| it.frame == frame) {
        out.push_str(&format!("; {} on core {} in that frame", health.incident, health.cpu));
    }
    out
}

/// Who really ran on a core at that instant, and who before; `None` where the run did not keep that.
fn ran_on(report: &Report, cpu: u16, at: u64) -> Option<String> {
    let who = |it: &RanWindow| it.ran.clone().unwrap_or_else(|| "housekeeping".to_string());
    let begun = report.trace.iter().filter(|it| it.cpu == cpu && it.entered <= at);
    let begun: Vec<&RanWindow> = begun.collect();
    match begun[..] {
        [.., before, now] if at < now.left => {
            Some(format!("ran {}, {} before it", who(now), who(before)))
        }
        _ => None,
    }
}

/// Whose window it is so far into the frame, by the plan that the system starts with, and whose was before.
fn planned(plan: &Plan, windows: &[Window], offset: u64) -> String {
    // Ahead of the first window of a frame comes the last one of the frame before.
    let begun = windows.iter().rposition(|it| it.start <= offset).or(windows.len().checked_sub(1));
    let Some(begun) = begun else {
        return "had no window".to_string();
    };
    let at = |index: usize| owner(plan, windows[index % windows.len()].owner);
    let it = &windows[begun];
    if (it.start..it.start + it.length).contains(&offset) {
        return format!("had {}, {} before it", at(begun), at(begun + windows.len() - 1));
    }
    format!("was between {} and {}", at(begun), at(begun + 1))
}

fn owner(plan: &Plan, owner: Owner) -> &str {
    match owner {
        Owner::Housekeeping => "housekeeping",
        Owner::Partition(id) => {
            plan.partitions().get(usize::from(id)).map_or("?", |it| it.name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Boot, Core, Value};

    /// The plan of a system with these lines in `[limits]`.
    fn plans(limits: &str) -> Plans {
        let folder = tempfile::tempdir().unwrap();
        let root = crate::paths::root().unwrap().join("partitions");
        let text = std::fs::read_to_string(root.join("demo.toml")).unwrap();
        let text = text
            .replace("[housekeeping]", &format!("[limits]\n{limits}\n[housekeeping]"))
            .replace("\"guests/", &format!("\"{}/guests/", root.display()))
            .replace("\"boards/", &format!("\"{}/boards/", root.display()));
        let path = folder.path().join("demo.toml");
        std::fs::write(&path, text).unwrap();
        [(SYSTEM.to_string(), crate::compile::plan(&path).unwrap())].into()
    }

    fn bench(exits: u64) -> Bench {
        let motion = Partition {
            name: "motion".into(),
            kind: "dedicated".into(),
            span_exits: Some(exits),
            span_exits_by_reason: [("CPUID".to_string(), exits)].into(),
            values: vec![Value { name: "span".into(), value: 50_000_000, unit: "ticks".into() }],
            histograms: vec![Histogram {
                name: "wakeup".into(),
                count: 20_000,
                max: 700,
                bins: vec![(2, 19_999), (700, 1)],
                worst_at: Some(1_000_000 + 3 * 100_000 + 40_000),
                ..Histogram::default()
            }],
            ..Partition::default()
        };
        let report = Report {
            partitions: vec![motion],
            boot: Boot { epoch: Some(1_000_000), tsc_declared_hz: 50_000_000, ..Boot::default() },
            cores: vec![Core { cpu: 0, switch_max: Some(900), ..Core::default() }],
            ..Report::default()
        };
        Bench { runs: vec![NamedRun { name: SYSTEM.into(), report }], ..Bench::default() }
    }

    fn one(limits: &str, exits: u64) -> Checked {
        check(&bench(exits), &plans(limits)).remove(0)
    }

    #[test]
    fn a_kept_limit_names_the_worst() {
        let kept = one("timer.p99_9 = \"5 us\"", 0);
        assert!(kept.kept && kept.worst == Some(2), "{kept:?}");
        assert!(one("switch = \"18 us\"", 0).kept);
        assert!(one("exits_per_second = 0", 0).kept);
    }

    #[test]
    fn a_broken_limit_tells_when_and_beside_whom() {
        let broken = one("timer.max = \"5 us\"", 0);
        assert!(!broken.kept);
        for part in [
            "700",
            "250",
            "1 of 20,000",
            "40,000 ticks into frame 3",
            "core 0 had noise, plc before it",
        ] {
            assert!(broken.told.contains(part), "{part}: {}", broken.told);
        }
        let exits = one("exits_per_second = 2", 3);
        assert!(!exits.kept && exits.told.contains("CPUID 3"), "{}", exits.told);
        assert!(judge(&[exits]).unwrap_err().to_string().contains("exits_per_second"));
    }

    #[test]
    fn who_ran_is_told_as_it_ran_or_by_the_plan() {
        let ran = |who: Option<&str>, entered, left| RanWindow {
            cpu: 0,
            ran: who.map(str::to_string),
            entered,
            left,
            ..RanWindow::default()
        };
        let trace = vec![ran(Some("plc"), 10, 20), ran(None, 30, 40), ran(Some("noise"), 50, 60)];
        let report = Report { trace, ..Report::default() };
        assert_eq!(ran_on(&report, 0, 35).as_deref(), Some("ran housekeeping, plc before it"));
        assert_eq!(ran_on(&report, 0, 50).as_deref(), Some("ran noise, housekeeping before it"));
        for unknown in [(0, 15), (0, 45), (0, 60), (1, 35)] {
            assert_eq!(ran_on(&report, unknown.0, unknown.1), None, "{unknown:?}");
        }
        let plans = plans("exits_per_second = 0");
        let plan = &plans[SYSTEM];
        let PlannedRole::Shared(windows) = &plan.cores()[0].role else { panic!("not shared") };
        let at = |microseconds: u64| planned(plan, &windows[0], microseconds * 50);
        assert_eq!(at(25), "had plc, housekeeping before it");
        assert_eq!(at(630), "was between plc and noise");
        assert_eq!(at(5), "was between housekeeping and plc");
        assert_eq!(at(1990), "was between housekeeping and plc");
        assert_eq!(planned(plan, &[], 5), "had no window");
    }

    #[test]
    fn what_nothing_measured_is_not_kept() {
        let few = one("timer.p99_999 = \"5 us\"", 0);
        assert!(!few.kept && few.told.contains("too few for p99.999"), "{}", few.told);
        let none = one("window.max = \"5 us\"", 0);
        assert!(!none.kept && none.told.contains("window-start"), "{}", none.told);
    }
}
