//! A report for people: tables of partitions and latencies, and each histogram as bars of text.

use crate::report::{Histogram, Partition, Report};
use crate::screen::grouped;

/// Rows that a histogram of text takes at most; narrower bins are put together.
const ROWS: u64 = 16;

/// Characters of the longest bar.
const BAR: usize = 46;

/// The whole report as text, with a histogram of text for each distribution.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    out.push_str(&heading(report));
    out.push_str(&partitions(report));
    out.push_str(&exits(report));
    out.push_str(&latencies(report));
    out.push_str(&values(report));
    out.push_str(&system(report));
    for partition in &report.partitions {
        for histogram in &partition.histograms {
            out.push_str(&bars(&partition.name, histogram));
        }
    }
    out
}

fn heading(report: &Report) -> String {
    let native = match &report.native {
        Some(partition) => format!(", {partition} alone without the hypervisor"),
        None => String::new(),
    };
    format!(
        "\n{} on {} ({}){native}\n{}\n",
        report.system,
        report.board,
        report.machine(),
        report.ticks
    )
}

fn partitions(report: &Report) -> String {
    let mut rows = vec![row(&[
        "partition",
        "core",
        "fate",
        "exits",
        "in span",
        "windows",
        "late",
        "lateness",
        "denied",
    ])];
    for partition in &report.partitions {
        rows.push(partition_row(partition));
    }
    let notes: String = report
        .partitions
        .iter()
        .filter_map(|p| p.verdict.as_ref().map(|v| format!("  {}: {}\n", p.name, v.text)))
        .collect();
    let restarts: String = report
        .partitions
        .iter()
        .filter_map(|p| {
            Some(format!("  {} started again: {}\n", p.name, p.restarts.filter(|n| *n > 0)?))
        })
        .collect();
    let lost: String = report
        .partitions
        .iter()
        .filter(|p| p.console_lost > 0)
        .map(|p| format!("  {}: {} console bytes lost\n", p.name, p.console_lost))
        .collect();
    format!("\n{}{notes}{restarts}{lost}", grid(&rows))
}

fn cpus(partition: &Partition) -> String {
    partition.cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn partition_row(partition: &Partition) -> Vec<String> {
    let dash = || "-".to_string();
    let window = |pick: &dyn Fn(&crate::report::Windows) -> String| {
        partition.windows.as_ref().map_or_else(dash, pick)
    };
    vec![
        partition.name.clone(),
        format!("{} {}", cpus(partition), partition.kind),
        partition.fate.clone(),
        grouped(partition.exits_total()),
        partition.span_exits.map_or_else(dash, grouped),
        window(&|w| grouped(w.run)),
        window(&|w| grouped(w.late)),
        window(&|w| match (w.lateness_min, w.lateness_max) {
            (Some(min), Some(max)) => format!("{}..{}", grouped(min), grouped(max)),
            _ => "-".to_string(),
        }),
        grouped(partition.denied.values().sum()),
    ]
}

/// Exits of each reason over the partition's life, and per second: in the quietest, the middle and the busiest of the intervals of about a
/// second in which it was looked at.
fn exits(report: &Report) -> String {
    let mut rows =
        vec![row(&["partition", "exit", "in all", "per second: least", "median", "most"])];
    let hz = report.boot.tsc_measured_hz.unwrap_or(report.boot.tsc_declared_hz);
    for partition in &report.partitions {
        let pairs = partition.exits_over_time.windows(2);
        let rates: Vec<_> = pairs.map(|pair| pair[1].per_second_since(&pair[0], hz)).collect();
        for (reason, count) in &partition.exits {
            let mut each: Vec<u64> =
                rates.iter().map(|rates| rates.get(reason).copied().unwrap_or(0)).collect();
            each.sort_unstable();
            let at =
                |place: usize| each.get(place).map_or_else(|| "-".to_string(), |n| grouped(*n));
            rows.push(vec![
                partition.name.clone(),
                reason.clone(),
                grouped(*count),
                at(0),
                at(each.len() / 2),
                at(each.len().saturating_sub(1)),
            ]);
        }
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", grid(&rows)) }
}

fn latencies(report: &Report) -> String {
    let mut rows =
        vec![row(&["partition", "measured", "unit", "samples", "min", "median", "p99.9", "max"])];
    for partition in &report.partitions {
        for h in &partition.histograms {
            rows.push(vec![
                partition.name.clone(),
                h.name.clone(),
                h.unit.clone(),
                grouped(h.count),
                grouped(h.min),
                grouped(h.median),
                grouped(h.p99_9),
                grouped(h.max),
            ]);
        }
    }
    if rows.len() == 1 {
        "\nno partition reported a latency\n".to_string()
    } else {
        format!("\n{}", grid(&rows))
    }
}

fn values(report: &Report) -> String {
    let mut rows = vec![row(&["partition", "figure", "value", "unit"])];
    for partition in &report.partitions {
        for value in &partition.values {
            rows.push(vec![
                partition.name.clone(),
                value.name.clone(),
                grouped(value.value),
                value.unit.clone(),
            ]);
        }
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", grid(&rows)) }
}

fn system(report: &Report) -> String {
    let mut out = String::from("\n");
    let mut line = |name: &str, text: String| out.push_str(&format!("  {name:24} {text}\n"));
    if let Some(ticks) = report.boot.to_last_partition {
        line("boot to last partition", format!("{} ticks", grouped(ticks)));
    }
    for core in &report.cores {
        if let (Some(min), Some(max)) = (core.switch_min, core.switch_max) {
            let steps: Vec<_> = core
                .switch_steps
                .iter()
                .map(|(step, most)| format!("{step} {}", grouped(*most)))
                .collect();
            let text = match steps.is_empty() {
                true => format!("{}..{} ticks", grouped(min), grouped(max)),
                false => format!(
                    "{}..{} ticks; the longest: {}",
                    grouped(min),
                    grouped(max),
                    steps.join(", ")
                ),
            };
            line(&format!("switch on core {}", core.cpu), text);
        }
    }
    if let Some(hz) = report.boot.tsc_measured_hz {
        let declared = grouped(report.boot.tsc_declared_hz);
        line("TSC measured", format!("{} Hz, declared {declared} Hz", grouped(hz)));
    }
    if let Some(skew) = report.boot.tsc_skew {
        line("TSC skew between cores", format!("{} ticks", grouped(skew)));
        line("power", report.power_told());
        line("management interrupts", report.smis_told());
    }
    let hypervisor = report.size.hypervisor;
    if hypervisor.text > 0 {
        let text = format!(
            "text {}, data {}, bss {} bytes",
            grouped(hypervisor.text),
            grouped(hypervisor.data),
            grouped(hypervisor.bss)
        );
        line("hypervisor", text);
    }
    if let Some(bytes) = report.size.per_cpu {
        line("memory of one core", format!("{} bytes", grouped(bytes)));
    }
    line("image", format!("{} bytes", grouped(report.size.image)));
    if !report.lines_of_code.is_empty() {
        let rooms: Vec<String> = report
            .lines_of_code
            .iter()
            .map(|(room, lines)| format!("{room} {}", grouped(*lines)))
            .collect();
        line("lines of code", rooms.join(", "));
    }
    let log = &report.log;
    line(
        "log",
        format!("{} packets, {} garbled, {} dropped", grouped(log.packets), log.garbled, log.lost),
    );
    out
}

/// A histogram as horizontal bars; their length is logarithmic, so that a single outlier still shows.
fn bars(partition: &str, histogram: &Histogram) -> String {
    let rows = group(&histogram.bins, ROWS);
    let most = rows.iter().map(|row| row.2).max().unwrap_or(0);
    let labels: Vec<String> = rows.iter().map(|(low, high, _)| range(*low, *high)).collect();
    let width = labels.iter().map(String::len).max().unwrap_or(0);
    let mut out = format!(
        "\n{partition}: {} in {} ({} samples; bars are logarithmic)\n",
        histogram.name,
        histogram.unit,
        grouped(histogram.count)
    );
    for (label, (.., count)) in labels.iter().zip(&rows) {
        let bar = "█".repeat(bar_length(*count, most));
        out.push_str(&format!("  {label:>width$} {bar} {}\n", grouped(*count)));
    }
    out
}

fn range(low: u64, high: u64) -> String {
    if low == high { grouped(low) } else { format!("{}..{}", grouped(low), grouped(high)) }
}

fn bar_length(count: u64, most: u64) -> usize {
    if count == 0 {
        return 0;
    }
    let share = (count as f64 + 1.0).ln() / (most as f64 + 1.0).ln();
    ((share * BAR as f64).round() as usize).max(1)
}

/// Puts bins together into at most `rows` of equal width: lowest value, highest value, samples. Empty rows
/// are left out.
fn group(bins: &[(u64, u64)], rows: u64) -> Vec<(u64, u64, u64)> {
    let (Some(first), Some(last)) = (bins.first(), bins.last()) else {
        return vec![];
    };
    let width = last.0.saturating_sub(first.0) / rows + 1;
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for (value, count) in bins {
        let low = first.0 + value.saturating_sub(first.0) / width * width;
        match out.last_mut() {
            Some(row) if row.0 == low => row.2 = row.2.saturating_add(*count),
            _ => out.push((low, low.saturating_add(width - 1), *count)),
        }
    }
    out
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_string()).collect()
}

/// Rows as columns of even width: words to the left, numbers to the right. Every row has as many cells as the first.
#[must_use]
pub fn grid(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> =
        (0..columns).map(|column| rows.iter().skip(1).all(|row| is_number(&row[column]))).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).zip(&numeric).map(|((cell, width), right)| {
            if *right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(&format!("  {}\n", line.trim_end()));
    }
    out
}

fn is_number(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Value, Windows};

    fn report() -> Report {
        Report {
            system: "demo".into(),
            board: "bochs".into(),
            partitions: vec![
                Partition {
                    name: "motion".into(),
                    fate: "passed".into(),
                    exits: [("CPUID".to_string(), 4321)].into(),
                    span_exits: Some(0),
                    histograms: vec![Histogram {
                        name: "latency".into(),
                        unit: "ticks".into(),
                        count: 20_001,
                        min: 10,
                        median: 12,
                        p99_9: 13,
                        max: 900,
                        bins: vec![(10, 5000), (12, 15_000), (900, 1)],
                        ..Histogram::default()
                    }],
                    ..Partition::default()
                },
                Partition {
                    name: "plc".into(),
                    windows: Some(Windows {
                        run: 500,
                        late: 0,
                        lateness_min: Some(3),
                        lateness_max: Some(24),
                    }),
                    values: vec![Value { name: "cpuid".into(), value: 97, unit: "ticks".into() }],
                    ..Partition::default()
                },
            ],
            ..Report::default()
        }
    }

    #[test]
    fn all_figures_are_in_the_text() {
        let text = render(&report());
        for part in [
            "motion",
            "CPUID",
            "4,321",
            "20,001",
            "900",
            "3..24",
            "cpuid",
            "97",
            "passed",
            "0 garbled",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn an_outlier_has_a_bar_of_its_own() {
        let text = bars("motion", &report().partitions[0].histograms[0]);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains('█')).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[1].trim_end().ends_with("█ 1"), "{text}");
    }

    #[test]
    fn groups_keep_every_sample() {
        let bins: Vec<(u64, u64)> = (0..1000).map(|value| (value * 7, value)).collect();
        let rows = group(&bins, ROWS);
        assert!(rows.len() as u64 <= ROWS);
        assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), (0..1000).sum::<u64>());
        assert_eq!(group(&[], ROWS), []);
        assert_eq!(group(&[(u64::MAX, 1)], ROWS), [(u64::MAX, u64::MAX, 1)]);
    }
}
