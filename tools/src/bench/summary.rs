//! A bench for people: one screen.

use super::limits::Checked;
use super::percentiles::{Distribution, PERCENTILES};
use super::suite::IDLE;
use super::systems::{COSTS, COSTS_SHARED, STOPPED, TIMER, WINDOWS};
use super::{Bench, FLOOR, NATIVE, SYSTEM};
use crate::report::{Histogram, Report};
use crate::screen::grouped;
use crate::table::grid;

/// What is measured, as the guest reports it, and as people read it.
pub const OPERATIONS: [(&str, &str); 24] = [
    ("rdtsc-pair", "the pair of clock readings alone"),
    ("cpuid-0", "CPUID, leaf 0"),
    ("cpuid-1", "CPUID, leaf 1"),
    ("cpuid-7", "CPUID, leaf 7"),
    ("cpuid-d", "CPUID, leaf 0xD"),
    ("cpuid-unknown", "CPUID, unknown leaf"),
    ("vmcall", "VMCALL, unknown call"),
    ("rdmsr", "RDMSR, answered"),
    ("rdmsr-refused", "RDMSR, refused (guest's handler included)"),
    ("wrmsr", "WRMSR, answered"),
    ("wrmsr-checked", "WRMSR, checked and carried out"),
    ("wrmsr-refused", "WRMSR, refused (guest's handler included)"),
    ("exception-own", "#GP of the guest's own, to its handler and back"),
    ("port-refused", "port, refused"),
    ("memory-refused", "memory of nobody's, to the decision to stop"),
    ("ipi-own", "interrupt to the own vCPU, to its handler"),
    ("ipi-other", "interrupt to a spinning vCPU, to its handler"),
    ("nmi-other", "NMI to a spinning vCPU (by a kick)"),
    ("nmi-arrives", "of that, to the last instruction of the other vCPU"),
    ("nmi-exit", "of that, its exit and the way into its handler"),
    ("timer", "timer behind its deadline"),
    ("timer-exit", "what a timer takes of the running code"),
    ("timer-past", "timer armed for the past, to its handler"),
    ("window-end", "end of a window, to the timer's exit"),
];

/// What is not measured yet, and why; every table says so.
pub const UNMEASURED: (&str, &str) =
    ("interrupt of a device", "not measured: no device can be given to a partition yet");

/// A histogram of a run.
#[must_use]
pub fn histogram<'b>(
    bench: &'b Bench,
    run: &str,
    partition: &str,
    name: &str,
) -> Option<&'b Histogram> {
    bench.run(run)?.partition(partition)?.histogram(name)
}

/// What an operation costs on the shared core of a run: as the cost guest measured it, or where that ends a partition, another.
#[must_use]
pub fn on_shared<'b>(bench: &'b Bench, run: &str, name: &str) -> Option<&'b Histogram> {
    let of = |partition| histogram(bench, run, partition, name);
    of(COSTS_SHARED).or_else(|| of(STOPPED))
}

/// The whole bench of a suite as text.
#[must_use]
pub fn render(bench: &Bench) -> String {
    let mut out = format!(
        "\n{}, suite {}, on {} ({})\n{}\n",
        bench.system,
        bench.suite,
        bench.board,
        bench.machine(),
        bench.ticks
    );
    out.push_str(&costs(bench));
    out.push_str(&latencies(bench));
    out.push_str(&runs(bench));
    out.push_str(&limits(&bench.limits));
    out
}

/// What became of each limit; nothing where there are none.
#[must_use]
pub fn limits(checked: &[Checked]) -> String {
    let line = |it: &Checked| {
        let word = if it.kept { "kept" } else { "NOT KEPT" };
        format!("  limit {} <= {} ({}): {word}, {}\n", it.key, grouped(it.most), it.place, it.told)
    };
    let lines: String = checked.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// `min / mean / max`, or a dash.
fn three(histogram: Option<&Histogram>) -> String {
    histogram.map_or_else(
        || "-".to_string(),
        |it| {
            let mean = Distribution::new(it).mean();
            format!("{} / {} / {}", grouped(it.min), grouped(mean), grouped(it.max))
        },
    )
}

fn costs(bench: &Bench) -> String {
    let head = ["ticks: min / mean / max", "dedicated core", "shared core", "no hypervisor"];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let native = format!("{NATIVE}{COSTS}");
    for (name, words) in OPERATIONS {
        rows.push(vec![
            words.to_string(),
            three(histogram(bench, IDLE, COSTS, name)),
            three(on_shared(bench, IDLE, name)),
            three(histogram(bench, &native, COSTS, name)),
        ]);
    }
    rows.push(vec![
        "the floor: an exit and the way back".to_string(),
        three(histogram(bench, FLOOR, COSTS, "floor")),
        "-".to_string(),
        "-".to_string(),
    ]);
    let (what, why) = UNMEASURED;
    format!("\n{}  {what}: {why}\n", grid(&rows))
}

fn latencies(bench: &Bench) -> String {
    let mut head = vec![
        "ticks".to_string(),
        "neighbour".to_string(),
        "samples".to_string(),
        "min".to_string(),
    ];
    head.extend(PERCENTILES.iter().map(|it| it.name.to_string()));
    head.extend(["max".to_string(), "exits".to_string()]);
    let mut rows = vec![head];
    let native = format!("{NATIVE}{TIMER}");
    for run in bench.runs.iter().filter(|run| is_latency_run(&run.name)) {
        rows.extend(latency_row("timer, dedicated core", &run.name, &run.report, TIMER, "wakeup"));
    }
    if let Some(report) = bench.run(&native) {
        rows.extend(latency_row("timer, no hypervisor", "-", report, TIMER, "wakeup"));
    }
    for (words, name) in [
        ("window behind its start", "window-start"),
        ("timer in a window, shared core", "timer-in-window"),
    ] {
        for run in bench.runs.iter().filter(|run| is_latency_run(&run.name)) {
            rows.extend(latency_row(words, &run.name, &run.report, WINDOWS, name));
        }
    }
    format!(
        "\n{}  (a percentile that no sample lies beyond is a dash: there are too few samples)\n",
        grid(&rows)
    )
}

/// Whether a run is one of the bench beside a neighbour.
#[must_use]
pub fn is_latency_run(name: &str) -> bool {
    name != SYSTEM && is_under_hypervisor(name)
}

/// Whether a run is one under the hypervisor as it ships.
#[must_use]
pub fn is_under_hypervisor(name: &str) -> bool {
    name != FLOOR && !name.starts_with(NATIVE)
}

fn latency_row(
    words: &str,
    neighbour: &str,
    report: &Report,
    partition: &str,
    name: &str,
) -> Option<Vec<String>> {
    let partition = report.partition(partition)?;
    let histogram = partition.histogram(name)?;
    let distribution = Distribution::new(histogram);
    let mut row = vec![
        words.to_string(),
        neighbour.to_string(),
        grouped(histogram.count),
        grouped(histogram.min),
    ];
    let told = |value: Option<u64>| value.map_or_else(|| "-".to_string(), grouped);
    row.extend(PERCENTILES.iter().map(|it| told(distribution.at(*it))));
    row.push(grouped(histogram.max));
    row.push(told(partition.span_exits));
    Some(row)
}

fn runs(bench: &Bench) -> String {
    let head =
        ["run", "boot to last partition", "switch", "windows", "late", "management interrupts"];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    for run in bench.runs.iter().filter(|run| run.report.native.is_none()) {
        let report = &run.report;
        let windows = report.partitions.iter().filter_map(|it| it.windows);
        let (count, late) = windows.fold((0, 0), |sum, it| (sum.0 + it.run, sum.1 + it.late));
        let switches = report.cores.iter().filter_map(|core| core.switch_min.zip(core.switch_max));
        let switch = switches.reduce(|sum, it| (sum.0.min(it.0), sum.1.max(it.1)));
        rows.push(vec![
            run.name.clone(),
            report.boot.to_last_partition.map_or_else(|| "-".to_string(), grouped),
            switch.map_or_else(
                || "-".to_string(),
                |(least, most)| format!("{}..{}", grouped(least), grouped(most)),
            ),
            grouped(count),
            grouped(late),
            report.smis_told(),
        ]);
    }
    let power = bench.own().map(Report::power_told).filter(|told| !told.is_empty());
    let power = power.map(|told| format!("  power: {told}\n")).unwrap_or_default();
    format!("\n{}{power}", grid(&rows))
}
