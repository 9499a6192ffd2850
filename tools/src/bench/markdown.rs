//! The table of figures of the README, from figures alone: so it cannot say anything that the baseline does not.

use super::Bench;
use super::suite::IDLE;
use super::summary::{OPERATIONS, UNMEASURED};
use super::systems::{COSTS, COSTS_SHARED, STOPPED, TIMER, WINDOWS};
use crate::screen::grouped;

/// Between these lines of a page stands what [`render`] gives.
pub const MARKS: Marks =
    ("<!-- figures, written from hil-tests/baselines: begin -->\n", "<!-- figures: end -->");

/// The line before what is written by a program into a page, and the line behind it.
pub type Marks = (&'static str, &'static str);

/// Figures of a distribution that the table shows.
const LATENCIES: [(&str, &str, &str, &str); 5] = [
    ("timer on a dedicated core, idle neighbour", IDLE, TIMER, "wakeup"),
    ("the same beside a neighbour that does everything", "all", TIMER, "wakeup"),
    ("the same guest with no hypervisor", "native-timer", TIMER, "wakeup"),
    ("window behind its declared start, beside that neighbour", "all", WINDOWS, "window-start"),
    ("timer within a window, beside that neighbour", "all", WINDOWS, "timer-in-window"),
];

/// The tables, as Markdown.
#[must_use]
pub fn render(bench: &Bench) -> String {
    format!(
        "On {} ({} cores), suite `{}`; **{}**.\n\n{}\n{}",
        bench.emulator,
        bench.cpus,
        bench.suite,
        bench.ticks,
        costs(bench),
        latencies(bench)
    )
}

fn told(bench: &Bench, name: &str) -> String {
    bench.figures.get(name).map_or_else(|| "-".to_string(), |value| grouped(*value))
}

fn costs(bench: &Bench) -> String {
    let mut out = "| What it takes, mean | Dedicated core | Shared core | No hypervisor |\n| --- | --- | --- | --- |\n".to_string();
    for (name, words) in OPERATIONS {
        let of = |run: &str, partition: &str| format!("{run}/{partition}/{name}/mean");
        let stopped = of(IDLE, STOPPED);
        let shared =
            if bench.figures.contains_key(&stopped) { stopped } else { of(IDLE, COSTS_SHARED) };
        out.push_str(&format!(
            "| {words} | {} | {} | {} |\n",
            told(bench, &of(IDLE, COSTS)),
            told(bench, &shared),
            told(bench, &of("native-costs", COSTS))
        ));
    }
    let floor = told(bench, &format!("floor/{COSTS}/floor/mean"));
    out.push_str(&format!(
        "| the floor: an exit and the way back, nothing between | {floor} | | |\n"
    ));
    let (what, why) = UNMEASURED;
    out.push_str(&format!("| {what} | {why} | | |\n"));
    out
}

fn latencies(bench: &Bench) -> String {
    let mut out = "| Latency | min | median | p99.9 | p99.999 | max |\n| --- | --- | --- | --- | --- | --- |\n".to_string();
    for (words, run, partition, name) in LATENCIES {
        let of = |key: &str| told(bench, &format!("{run}/{partition}/{name}/{key}"));
        out.push_str(&format!(
            "| {words} | {} | {} | {} | {} | {} |\n",
            of("min"),
            of("median"),
            of("p99_9"),
            of("p99_999"),
            of("max")
        ));
    }
    let exits = told(bench, &format!("all/{TIMER}/span-exits"));
    let [least, most] = ["min", "max"].map(|key| told(bench, &format!("all/core-0/switch/{key}")));
    let boot = told(bench, "system/boot/to-last-partition");
    out.push_str(&format!(
        "\nExits while the timer was measured: {exits}. A switch of partitions takes {least} to {most}, ahead of the window. The hypervisor's first \
         instruction to the last partition of `{}`: {boot}.\n",
        bench.system
    ));
    out
}

/// A page with `tables` between these marks; `None` when it has none.
#[must_use]
pub fn put_in(page: &str, (begin, end): Marks, tables: &str) -> Option<String> {
    let from = page.find(begin)? + begin.len();
    let to = from + page.get(from..)?.find(end)?;
    Some(format!("{}{tables}{}", page.get(..from)?, page.get(to..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_in_the_table_and_the_table_in_the_page() {
        let figures = [("idle/costs/vmcall/mean", 80), ("floor/costs/floor/mean", 55)];
        let figures = figures.map(|(name, value)| (name.to_string(), value)).into();
        let bench = Bench { emulator: "bochs 2.7".into(), figures, ..Bench::default() };
        let tables = render(&bench);
        for part in ["| VMCALL, unknown call | 80 | - | - |", "nothing between | 55 |", "bochs 2.7"]
        {
            assert!(tables.contains(part), "{part}: {tables}");
        }
        let (begin, end) = MARKS;
        let page = format!("before\n{begin}old\n{end}\nafter\n");
        let written = put_in(&page, MARKS, &tables).unwrap();
        assert!(written.starts_with("before") && written.ends_with("after\n"));
        assert!(written.contains("VMCALL") && !written.contains("old"));
        assert_eq!(put_in(&written, MARKS, &tables), Some(written.clone()));
        assert_eq!(put_in("no marks", MARKS, &tables), None);
    }
}
