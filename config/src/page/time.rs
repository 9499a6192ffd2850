//! The pictures of time: each plan over its major frame, all cores to one scale, and the same in figures.

use bulkhead_table::{Owner, Window};
use maud::{Markup, html};

use super::Seen;
use super::paint::{Bar, Paint, chip, grouped, number, numbered_chip, percent, share, share_text};
use crate::places::WindowKey;
use crate::plan::PlannedRole;
use crate::units::duration_text;
use crate::view::{Segment, Use};

/// With more cores than this, the lanes are drawn lower.
const MANY_LANES: usize = 12;

/// The whole section.
pub(super) fn section(seen: &Seen<'_>) -> Markup {
    let plan = seen.plan;
    html! {
        section aria-labelledby="time" {
            h2 #time { "Time" }
            (introduction(seen))
            @for (index, name) in plan.plans().iter().enumerate() {
                h3 { "Plan " code { (name) } @if index == 0 && plan.plans().len() > 1 { ", at start" } }
                (gantt(seen, index, name))
                @if plan.frame() > 0 { (windows(seen, index, name)) }
            }
        }
    }
}

fn introduction(seen: &Seen<'_>) -> Markup {
    let plan = seen.plan;
    if plan.frame() == 0 {
        return html! { p { "No core is time-shared: each that is used belongs to one partition, or to housekeeping, at every instant." } };
    }
    html! {
        p {
            "The windows of a time-shared core repeat after the major frame of "
            b { (seen.duration(plan.frame())) } " (" (grouped(plan.frame())) " ticks). Each starts at an instant of the clock, however long the one before it ran. Before each lies the time for the switch into it, cleaning included."
            @if plan.log_windows { " Each window that ran is logged." }
        }
    }
}

fn gantt(seen: &Seen<'_>, index: usize, name: &str) -> Markup {
    let plan = seen.plan;
    let many = plan.cores().len() > MANY_LANES;
    html! {
        figure {
            (legend(seen))
            div.scroll {
                div.lanes.many[many] role="group" aria-label={ "Plan " (name) ", one lane for each core" } {
                    @if plan.frame() > 0 { (axis(seen)) }
                    @for core in plan.cores() { (lane(seen, core.cpu, &core.role, index, many)) }
                }
            }
            figcaption { (caption(seen)) }
        }
    }
}

/// The colours, and the numbers that stand for names on narrow bars.
fn legend(seen: &Seen<'_>) -> Markup {
    let other = |class| Paint { class, style: None };
    html! {
        ul.legend {
            @for (_, id) in seen.plan.partitions().iter().zip(0_u16..) {
                li { (numbered_chip(seen.plan, id)) }
            }
            li { (chip(&other("machine"), "housekeeping")) }
            @if seen.plan.frame() > 0 {
                li { (chip(&other("switch"), "kept free for the switch")) }
                li { (chip(&other("slack"), "slack: nobody runs")) }
            }
        }
    }
}

fn caption(seen: &Seen<'_>) -> String {
    let idle: Vec<String> = (0..seen.plan.board_cores())
        .filter(|cpu| u16::try_from(*cpu).is_ok_and(|cpu| seen.plan.role_of(cpu).is_none()))
        .map(|cpu| cpu.to_string())
        .collect();
    let idle = match idle.as_slice() {
        [] => "Every core of the board is used.".to_owned(),
        [one] => format!("Core {one} of the board is never started."),
        many => {
            format!("{} cores of the board are never started: {}.", many.len(), many.join(", "))
        }
    };
    format!("To scale: the width is one major frame. {idle}")
}

/// The scale above the lanes.
fn axis(seen: &Seen<'_>) -> Markup {
    html! {
        span.name {}
        svg.axis aria-hidden="true" {
            @for (at, label) in marks(seen.plan.frame(), seen.plan.tsc_hz()) {
                @let anchor = if at == 0.0 { "start" } else if at > 97.0 { "end" } else { "middle" };
                text x=(percent(at)) y="10" text-anchor=(anchor) { (label) }
                line x1=(percent(at)) x2=(percent(at)) y1="15" y2="22" {}
            }
        }
        span.rest {}
    }
}

/// Round instants of the frame, in percent of it, four to ten of them.
fn marks(frame: u64, hz: u64) -> Vec<(f64, String)> {
    let nanoseconds = frame as f64 * 1e9 / hz.max(1) as f64;
    let rough = nanoseconds / 8.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough).max(f64::MIN_POSITIVE);
    let (unit, name) = match step {
        step if step >= 1e8 => (1e9, "s"),
        step if step >= 1e5 => (1e6, "ms"),
        step if step >= 100.0 => (1e3, "us"),
        _ => (1.0, "ns"),
    };
    let count = (nanoseconds / step + 1e-9).floor().min(20.0) as u32;
    (0..=count)
        .map(|mark| {
            let at = f64::from(mark) * step;
            let value = (at / unit * 1000.0).round() / 1000.0;
            let label = if mark == 0 { "0".to_owned() } else { format!("{value} {name}") };
            (100.0 * at / nanoseconds, label)
        })
        .collect()
}

fn lane(seen: &Seen<'_>, cpu: u16, role: &PlannedRole, plan: usize, many: bool) -> Markup {
    let height = if many { 22 } else { 36 };
    let vertical = if many { (1, 20) } else { (3, 30) };
    let whole = |paint: Paint, name: &str| {
        let title = format!("{name}: the whole of core {cpu}");
        Bar { from: 0.0, width: 100.0, vertical, paint, title, labels: &[name] }.draw()
    };
    let (bars, rest, spoken) = match role {
        PlannedRole::Dedicated(id) => {
            let name = seen.plan.name_of(*id);
            let spoken = format!("Core {cpu}: dedicated to {name}");
            (whole(Paint::partition(*id), name), "dedicated".to_owned(), spoken)
        }
        PlannedRole::Housekeeping => {
            let spoken = format!("Core {cpu}: housekeeping");
            let paint = Paint::owner(Owner::Housekeeping);
            (whole(paint, "housekeeping"), "housekeeping".to_owned(), spoken)
        }
        PlannedRole::Shared(_) => {
            let segments = seen.plan.segments(cpu, plan);
            let spoken = format!("Core {cpu}: {}", spoken(seen, &segments));
            (shared_bars(seen, &segments, vertical), rest(seen, &segments), spoken)
        }
    };
    html! {
        span.name { "core " (cpu) }
        svg.lane height=(height) role="img" aria-label=(spoken) data-core=(cpu) { (bars) }
        span.rest { (rest) }
    }
}

fn shared_bars(seen: &Seen<'_>, segments: &[Segment], vertical: (u32, u32)) -> Markup {
    let frame = seen.plan.frame();
    html! {
        @for segment in segments {
            @let title = seen.segment_title(segment);
            @let name = segment_name(seen, segment);
            @let number = segment_number(segment);
            @let paint = segment_paint(segment);
            (Bar {
                from: share(segment.start, frame),
                width: share(segment.length, frame),
                vertical,
                paint,
                title,
                labels: &[name, number.as_str()],
            }.draw())
        }
    }
}

fn segment_paint(segment: &Segment) -> Paint {
    match segment.use_of_it {
        Use::Window(owner) => Paint::owner(owner),
        Use::Switch(_) => Paint { class: "switch", style: None },
        Use::Slack => Paint { class: "slack", style: None },
    }
}

/// What is written on a part of the frame that is wide enough.
fn segment_name<'s>(seen: &Seen<'s>, segment: &Segment) -> &'s str {
    match segment.use_of_it {
        Use::Window(owner) => seen.plan.owner_name(owner),
        Use::Switch(_) | Use::Slack => "",
    }
}

/// What is written on one that is not.
fn segment_number(segment: &Segment) -> String {
    match segment.use_of_it {
        Use::Window(Owner::Partition(id)) => number(id),
        _ => String::new(),
    }
}

fn spoken(seen: &Seen<'_>, segments: &[Segment]) -> String {
    let windows = segments.iter().filter(|segment| matches!(segment.use_of_it, Use::Window(_)));
    let titles: Vec<String> = windows.map(|segment| seen.segment_title(segment)).collect();
    titles.join("; ")
}

/// How the frame of a core is spent, in one line.
fn rest(seen: &Seen<'_>, segments: &[Segment]) -> String {
    let sum = |wanted: fn(&Use) -> bool| -> u64 {
        segments.iter().filter(|part| wanted(&part.use_of_it)).map(|part| part.length).sum()
    };
    let frame = seen.plan.frame();
    format!(
        "windows {}, slack {}",
        share_text(sum(|part| matches!(part, Use::Window(_))), frame),
        share_text(sum(|part| matches!(part, Use::Slack)), frame)
    )
}

/// All windows of a plan, in figures.
fn windows(seen: &Seen<'_>, index: usize, name: &str) -> Markup {
    let plan = seen.plan;
    html! {
        div.scroll { table {
            caption { "Windows of the plan " code { (name) } ", as the hypervisor keeps them: ticks from the start of the frame" }
            thead { tr {
                th scope="col" { "core" } th scope="col" { "owner" }
                th.number scope="col" { "from" } th.number scope="col" { "to" } th.number scope="col" { "length" }
                th.number scope="col" { "of the frame" } th.number scope="col" { "start in ticks" } th.number scope="col" { "ticks" }
                th.number scope="col" { "free before it" } th scope="col" { "line" }
            } }
            tbody {
                @for core in plan.cores() { @for window in plan.windows_of(core.cpu, index) {
                    (window_row(seen, core.cpu, window, name))
                } }
            }
        } }
    }
}

fn window_row(seen: &Seen<'_>, cpu: u16, window: &Window, name: &str) -> Markup {
    let plan = seen.plan;
    let owner = plan.owner_name(window.owner);
    let section = match window.owner {
        Owner::Partition(_) => format!("partition.{owner}"),
        Owner::Housekeeping => owner.to_owned(),
    };
    let key = WindowKey { start: window.start, hz: plan.tsc_hz(), cpu, plan: name };
    html! {
        tr {
            td.number { (cpu) }
            th scope="row" { (chip(&Paint::owner(window.owner), owner)) }
            td.number { (seen.duration(window.start)) }
            td.number { (seen.duration(window.start + window.length)) }
            td.number { (seen.duration(window.length)) }
            td.number { (share_text(window.length, plan.frame())) }
            td.number { (grouped(window.start)) }
            td.number { (grouped(window.length)) }
            td.number { (seen.duration(window.budget)) }
            td.place { (seen.line(seen.places.window(&section, key))) }
        }
    }
}

impl Seen<'_> {
    /// A number of ticks for a person.
    pub(super) fn duration(&self, ticks: u64) -> String {
        match ticks {
            0 => "0".to_owned(),
            ticks => duration_text(ticks, self.plan.tsc_hz()),
        }
    }

    fn segment_title(&self, segment: &Segment) -> String {
        let what = match segment.use_of_it {
            Use::Window(owner) => self.plan.owner_name(owner).to_owned(),
            Use::Switch(owner) => format!("switch to {}", self.plan.owner_name(owner)),
            Use::Slack => "slack".to_owned(),
        };
        format!(
            "{what}: {} to {} ({})",
            self.duration(segment.start),
            self.duration(segment.start + segment.length),
            share_text(segment.length, self.plan.frame())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside_the_frame() {
        for (frame, hz) in
            [(100_000, 50_000_000), (1, 1_000_000), (7_919, 2_399_999_999), (1 << 50, 1_000_000)]
        {
            let marks = marks(frame, hz);
            assert!((5..=11).contains(&marks.len()), "{frame}: {marks:?}");
            assert!(marks.iter().all(|(at, _)| (0.0..=100.0001).contains(at)), "{marks:?}");
        }
        let labels: Vec<String> =
            marks(100_000, 50_000_000).into_iter().map(|mark| mark.1).collect();
        assert_eq!(labels, ["0", "0.5 ms", "1 ms", "1.5 ms", "2 ms"]);
    }
}
