//! The bench as one HTML page, which stands alone: style and pictures are inside, nothing is fetched, no script runs.

use bulkhead_config::page_head;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::limits::Plans;
use super::percentiles::{Distribution, PERCENTILES};
use super::suite::{self, IDLE};
use super::summary::{OPERATIONS, UNMEASURED, histogram, is_under_hypervisor, on_shared};
use super::systems::{COSTS, STOPPED};
use super::{Bench, FLOOR, NATIVE, NamedRun, SYSTEM, charts};
use crate::gantt;
use crate::report::{Histogram, Partition, Report};
use crate::screen::grouped;

/// What this page needs beyond the style of the system report.
const STYLE: &str = include_str!("page.css");

/// What an emulator cannot show, for every page.
const BLIND: &str = "An emulator whose clock counts instructions shows how many of them an exit, a switch or an interrupt takes, with no \
    noise. It cannot show caches, memory bandwidth, what the processor itself takes for an exit and an entry, frequency changes, idle states or \
    system-management interrupts: an exit and an entry cost no tick here. Those take a real board.";

/// The page.
#[must_use]
pub fn page(bench: &Bench, plans: &Plans) -> String {
    let title = format!("{} on {}: Bulkhead bench", bench.system, bench.board);
    let sections: Vec<(&str, &str, Markup)> = [
        ("limits", "Limits", limits(bench)),
        ("costs", "What exits cost", costs(bench)),
        ("latency", "Latency", latency(bench)),
        ("over-time", "Over time", over_time(bench)),
        ("exits", "Exits by reason", exits(bench)),
        ("ran", "What ran", ran(bench, plans)),
        ("runs", "Boot, switches, windows", runs(bench)),
    ]
    .into_iter()
    .filter_map(|(id, name, content)| Some((id, name, content?)))
    .collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (page_head(&title, STYLE))
            body {
                header {
                    p.kicker { "Bulkhead bench" }
                    h1 { (bench.system) }
                    p.lead { @if bench.suite.is_empty() { "the system alone" } @else { "suite " b { (bench.suite) } } ", on the board " b { (bench.board) } ", in " b { (bench.machine()) } }
                    p.ticks { b { (bench.ticks) } }
                    nav aria-label="Sections" { @for (id, name, _) in &sections { a href={ "#" (id) } { (name) } } }
                }
                main {
                    @for (id, name, content) in &sections {
                        section aria-labelledby=(id) { h2 id=(id) { (name) } (content) }
                    }
                    section aria-labelledby="blind" { h2 #blind { "What this does not show" } p { (BLIND) } }
                }
                footer { "Written by Bulkhead " (env!("CARGO_PKG_VERSION")) ", `bulkhead measure`. Every figure is of " (bench.machine()) "; " (bench.ticks) "." }
            }
        }
    };
    page.into_string()
}

fn limits(bench: &Bench) -> Option<Markup> {
    if bench.limits.is_empty() {
        return None;
    }
    Some(html! {
        div.scroll { table {
            caption { "Ticks; exits a second where the limit is on exits." }
            thead { tr { th { "limit" } th { "set in" } th.number { "at most" } th.number { "worst" } th { "" } th { "who, and what happened" } } }
            tbody { @for it in &bench.limits { tr {
                th scope="row" { code { (it.key) } }
                td.place { (it.place) }
                td.number { (grouped(it.most)) }
                td.number { @match it.worst { Some(worst) => (grouped(worst)), None => "-" } }
                td { @if it.kept { span.good { "kept" } } @else { span.bad { "not kept" } } }
                td { (it.told) }
            } } }
        } }
    })
}

/// One cell: the mean, with the extremes beside it.
fn cell(of: Option<&Histogram>) -> Markup {
    worst_cell(of.into_iter())
}

/// One cell for several runs: the largest of their means, with the extremes of all beside it.
fn worst_cell<'b>(of: impl Iterator<Item = &'b Histogram>) -> Markup {
    let each = of.map(|it| (Distribution::new(it).mean(), it.min, it.max));
    let worst = each.reduce(|sum, it| (sum.0.max(it.0), sum.1.min(it.1), sum.2.max(it.2)));
    html! { td.number { @match worst {
        Some((mean, least, most)) => { b { (grouped(mean)) } " " span.none { (grouped(least)) "\u{2013}" (grouped(most)) } }
        None => span.none { "-" },
    } } }
}

/// What the neighbours do, in one line.
fn told(neighbours: &[&NamedRun]) -> String {
    neighbours.iter().map(|run| suite::told(&run.name)).collect::<Vec<_>>().join(", ")
}

fn costs(bench: &Bench) -> Option<Markup> {
    bench.run(IDLE)?;
    let native = format!("{NATIVE}{COSTS}");
    let floor = histogram(bench, FLOOR, COSTS, "floor");
    let neighbours: Vec<&NamedRun> = bench
        .runs
        .iter()
        .filter(|run| run.name != SYSTEM && run.name != IDLE && is_under_hypervisor(&run.name))
        .collect();
    Some(html! {
        p { "Ticks as the guest sees them, the pair of clock readings around each included: the mean, and the extremes behind it. The " b { "floor" } " is an exit and the way back with nothing in between."
            @if !neighbours.is_empty() { " The last two columns are beside neighbours: the mean of the worst run, and the extremes of all. A run each: " (told(&neighbours)) "." } }
        div.scroll { table {
            thead { tr { th { "" } th.number { "dedicated core" } th.number { "shared core" } th.number { "no hypervisor" }
                @if !neighbours.is_empty() { th.number { "dedicated, beside" } th.number { "shared, beside" } } } }
            tbody {
                @for (name, words) in OPERATIONS { tr {
                    th scope="row" { (words) }
                    (cell(histogram(bench, IDLE, COSTS, name)))
                    (cell(on_shared(bench, IDLE, name)))
                    (cell(histogram(bench, &native, COSTS, name)))
                    @if !neighbours.is_empty() {
                        (worst_cell(neighbours.iter().filter_map(|run| histogram(bench, &run.name, COSTS, name))))
                        (worst_cell(neighbours.iter().filter_map(|run| on_shared(bench, &run.name, name))))
                    }
                } }
                tr { th scope="row" { "the floor" } (cell(floor)) td.number { span.none { "-" } } td.number { span.none { "-" } } @if !neighbours.is_empty() { td {} td {} } }
                tr { th scope="row" { (UNMEASURED.0) } td colspan="5" { (UNMEASURED.1) } }
            }
        } }
        (cost_bars(bench, floor))
    })
}

/// Means as bars, with the floor as a line.
fn cost_bars(bench: &Bench, floor: Option<&Histogram>) -> Markup {
    const ROW: u64 = 34;
    const LEFT: u64 = 330;
    const WIDTH: u64 = 960;
    let mean = |of: &Histogram| Distribution::new(of).mean();
    let bars: Vec<(&str, Option<u64>, Option<u64>)> = OPERATIONS
        .iter()
        .map(|(name, words)| {
            let dedicated = histogram(bench, IDLE, COSTS, name).map(mean);
            (*words, dedicated, on_shared(bench, IDLE, name).map(mean))
        })
        .collect();
    let most = bars.iter().filter_map(|it| it.1.max(it.2)).max().unwrap_or(1).max(1);
    let width = |ticks: u64| ticks * (WIDTH - LEFT - 60) / most;
    let height = ROW * bars.len() as u64 + 26;
    html! {
        figure {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (height) } role="img" aria-label="Mean costs as bars" {
                @for ((words, dedicated, shared), row) in bars.iter().zip(0_u64..) {
                    text.word x=(LEFT - 10) y=(row * ROW + 19) { (words) }
                    @for (ticks, class, offset) in [(dedicated, "one", 4), (shared, "two", 16)] {
                        @if let Some(ticks) = ticks {
                            rect class=(class) x=(LEFT) y=(row * ROW + offset) width=(width(*ticks).max(1)) height="11" {}
                            text.value x=(LEFT + width(*ticks) + 5) y=(row * ROW + offset + 9) { (grouped(*ticks)) }
                        }
                    }
                }
                @if let Some(floor) = floor.map(mean) {
                    line.floor x1=(LEFT + width(floor)) x2=(LEFT + width(floor)) y1="0" y2=(height - 18) {}
                    text.value x=(LEFT + width(floor) + 4) y=(height - 6) { "floor " (grouped(floor)) }
                }
            }
            figcaption { span.key.one {} "dedicated core" span.key.two {} "time-shared core" " \u{00b7} means in ticks of " (bench.emulator) }
        }
    }
}

/// The latencies of a run: partition and histogram.
fn latencies(run: &NamedRun) -> impl Iterator<Item = (&Partition, &Histogram)> {
    let of = run.report.partitions.iter();
    let of = of.filter(|it| !it.name.starts_with(COSTS) && it.name != STOPPED);
    of.flat_map(|it| it.histograms.iter().filter(|h| h.count > 0).map(move |h| (it, h)))
}

fn latency(bench: &Bench) -> Option<Markup> {
    let runs: Vec<&NamedRun> = bench.runs.iter().filter(|run| run.name != FLOOR).collect();
    let mut names: Vec<&str> = Vec::new();
    for (_, of) in runs.iter().flat_map(|run| latencies(run)) {
        if !names.contains(&of.name.as_str()) {
            names.push(&of.name);
        }
    }
    if names.is_empty() {
        return None;
    }
    Some(html! {
        div.scroll { table {
            caption { "Ticks. A percentile that no sample lies beyond is left out: there are too few samples." }
            thead { tr { th { "run" } th { "partition" } th { "measured" } th.number { "samples" } th.number { "min" }
                @for it in PERCENTILES { th.number { (it.name) } } th.number { "max" } th.number { "exits in span" } } }
            tbody { @for run in &runs { @for (partition, of) in latencies(run) { (latency_row(run, partition, of)) } } }
        } }
        @for name in &names {
            h3 { code { (name) } }
            figure {
                (PreEscaped(charts::percentiles("ticks", &lines(&runs, name))))
                figcaption { "Percentiles of " code { (name) } ": how late at most, for all but one sample in two, ten, a hundred, and so on. " (bench.emulator) ", ticks are instructions." }
            }
            @for (run, partition, of) in pictured(&runs, name) {
                figure { (PreEscaped(charts::histogram(&format!("run {run}, {partition}"), of))) }
            }
        }
    })
}

fn latency_row(run: &NamedRun, partition: &Partition, of: &Histogram) -> Markup {
    let distribution = Distribution::new(of);
    html! { tr {
        td { (run.name) }
        th scope="row" { (partition.name) }
        td { code { (of.name) } }
        td.number { (grouped(of.count)) }
        td.number { (grouped(of.min)) }
        @for it in PERCENTILES { td.number { @match distribution.at(it) { Some(value) => (grouped(value)), None => span.none { "-" } } } }
        td.number { b { (grouped(of.max)) } }
        td.number { @match partition.span_exits { Some(exits) => (grouped(exits)), None => span.none { "-" } } }
    } }
}

/// Every distribution of this name, called by its run and partition.
fn lines<'b>(runs: &[&'b NamedRun], name: &str) -> Vec<charts::Line<'b>> {
    let all = runs.iter().flat_map(|run| latencies(run).map(move |it| (run.name.as_str(), it)));
    all.filter(|(_, (_, of))| of.name == name)
        .map(|(run, (partition, of))| charts::Line { run, partition: &partition.name, of })
        .collect()
}

/// The distributions that are drawn: the first, and the one with the largest maximum.
fn pictured<'b>(runs: &[&'b NamedRun], name: &str) -> Vec<(&'b str, &'b str, &'b Histogram)> {
    let all = runs.iter().flat_map(|run| {
        latencies(run).map(move |(partition, of)| (run.name.as_str(), partition.name.as_str(), of))
    });
    let all: Vec<_> = all.filter(|(.., of)| of.name == name).collect();
    let worst = (0..all.len()).rev().max_by_key(|index| all[*index].2.max);
    let chosen = (0..all.len()).filter(|index| *index == 0 || Some(*index) == worst);
    chosen.map(|index| all[index]).collect()
}

fn over_time(bench: &Bench) -> Option<Markup> {
    let all: Vec<_> = bench
        .runs
        .iter()
        .flat_map(|run| latencies(run).map(move |(partition, of)| (run, partition, of)))
        .filter(|(.., of)| !of.slices.is_empty())
        .collect();
    if all.is_empty() {
        return None;
    }
    Some(html! {
        p { "Each bar spans from the smallest to the largest latency in its slice of the run: what grows or comes in bursts shows here." }
        @for (run, partition, of) in all {
            h3 { "run " (run.name) ", " (partition.name) ": " code { (of.name) } }
            figure { (PreEscaped(charts::over_time("ticks", of, run.report.boot.tsc_declared_hz))) }
        }
    })
}

fn exits(bench: &Bench) -> Option<Markup> {
    let all: Vec<(&NamedRun, &Partition)> = bench
        .runs
        .iter()
        .filter(|run| is_under_hypervisor(&run.name))
        .flat_map(|run| run.report.partitions.iter().map(move |it| (run, it)))
        .filter(|(_, partition)| partition.exits_total() > 0)
        .collect();
    if all.is_empty() {
        return None;
    }
    let most = all.iter().flat_map(|it| it.1.exits.values()).max().copied().unwrap_or(1);
    Some(html! {
        p { "Over each partition's whole life, its boot and its report included; bars are logarithmic. What was measured without a single exit says so above, in its span." }
        div.scroll { table.exits {
            thead { tr { th { "run" } th { "partition" } th { "core" } th { "reason" } th.number { "exits" } th {} } }
            tbody { @for (run, partition) in all { @for ((reason, count), index) in partition.exits.iter().zip(0..) { tr {
                td { @if index == 0 { (run.name) } }
                th scope="row" { @if index == 0 { (partition.name) } }
                td.none { @if index == 0 { (partition.kind) } }
                td { (reason) }
                td.number { (grouped(*count)) }
                td.strip-cell { svg.bar aria-hidden="true" { rect.one width={ (share(*count, most)) "%" } height="100%" {} } }
            } } } }
        } }
    })
}

/// Length of a logarithmic bar in percent.
fn share(count: u64, most: u64) -> u64 {
    let part = (count as f64 + 1.0).ln() / (most as f64 + 1.0).ln();
    (part * 100.0).round() as u64
}

fn ran(bench: &Bench, plans: &Plans) -> Option<Markup> {
    let pictures: Vec<(&str, String)> = bench
        .runs
        .iter()
        .filter_map(|run| {
            let svg = gantt::svg(&run.report, plans.get(&run.name)?)?;
            Some((run.name.as_str(), charts::themed(&svg)))
        })
        .collect();
    if pictures.is_empty() {
        return None;
    }
    Some(html! { @for (run, svg) in pictures {
        h3 { "run " (run) }
        figure.wide-picture { (PreEscaped(svg)) }
    } })
}

fn runs(bench: &Bench) -> Option<Markup> {
    let ticks = |value: Option<u64>| value.map_or_else(|| "-".to_string(), grouped);
    let power = bench.own().map(Report::power_told).filter(|told| !told.is_empty());
    Some(html! {
        @if let Some(told) = power { p { "Frequency, turbo and idle states, as the board file's " code { "[power]" } " says: " b { (told) } "; " code { "firmware" } " is as firmware left it." } }
        div.scroll { table {
            caption { "Ticks. Lateness is the entry behind the declared start of a window." }
            thead { tr { th { "run" } th.number { "boot to the last partition" } th { "switches" } th { "partition" } th.number { "windows" } th.number { "late" } th.number { "entered behind" } th { "system-management interrupts" } } }
            tbody { @for run in bench.runs.iter().filter(|run| run.report.native.is_none()) {
                @let shared: Vec<_> = run.report.partitions.iter().filter_map(|it| Some((it, it.windows?))).collect();
                tr {
                    th scope="row" { (run.name) }
                    td.number { (ticks(run.report.boot.to_last_partition)) }
                    td { @for core in run.report.cores.iter().filter(|core| core.switch_max.is_some()) {
                        "core " (core.cpu) ": " (ticks(core.switch_min)) "\u{2013}" (ticks(core.switch_max)) " " } }
                    td {} td {} td {} td {}
                    td { @if run.report.smis.is_some_and(|count| count > 0) { span.bad { (run.report.smis_told()) } } @else { (run.report.smis_told()) } }
                }
                @for (partition, windows) in shared { tr {
                    td {} td {} td {}
                    td { (partition.name) }
                    td.number { (grouped(windows.run)) }
                    td.number { (grouped(windows.late)) }
                    td.number { (ticks(windows.lateness_min)) "\u{2013}" (ticks(windows.lateness_max)) }
                    td {}
                } }
            } }
        } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_says_what_a_tick_is() {
        let of = Histogram {
            name: "wakeup".into(),
            count: 2,
            max: 5,
            bins: vec![(1, 1), (5, 1)],
            slices: vec![(10, 1, 5)],
            ..Histogram::default()
        };
        let motion = Partition {
            name: "<motion>".into(),
            histograms: vec![of],
            exits: [("CPUID".to_string(), 3)].into(),
            ..Partition::default()
        };
        let report = Report { partitions: vec![motion], ..Report::default() };
        let bench = Bench {
            ticks: crate::report::EMULATED_TICKS.into(),
            emulator: "bochs 2.7".into(),
            runs: vec![NamedRun { name: SYSTEM.into(), report }],
            ..Bench::default()
        };
        let page = page(&bench, &Plans::new());
        for part in ["not microseconds", "bochs 2.7", "&lt;motion&gt;", "wakeup", "CPUID", "<svg"] {
            assert!(page.contains(part), "{part} is missing");
        }
        for foreign in ["<script", "src=", "@import", "url(http", "<motion>"] {
            assert!(!page.contains(foreign), "{foreign} is in the page");
        }
    }
}
