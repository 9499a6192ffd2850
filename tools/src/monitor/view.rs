//! The screen: partitions, latencies, health events and the log of a running system, as far as the terminal has room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, List, ListItem, Paragraph, Row, Table};

use super::model::{Model, Partition};
use crate::screen::grouped;

/// A terminal smaller than this shows one line and no figures.
const SMALLEST: (u16, u16) = (24, 6);

/// From this width on the table of partitions has all its columns.
const WIDE: u16 = 72;

/// Lines of health events that are shown at most.
const EVENTS: usize = 4;

const PLAIN: Style = Style::new();
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().fg(Color::DarkGray);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green);
const WARNING: Style = Style::new().fg(Color::Yellow);

/// How the stream stands, for the last line.
pub struct Status<'s> {
    /// Where the log comes from.
    pub source: &'s str,
    /// `None` while it comes; else how it ended.
    pub end: Option<std::result::Result<(), String>>,
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, model: &Model, status: &Status<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new("bulkhead: no room"), area);
        return;
    }
    let latencies = latency_rows(model);
    let heights = heights(area.height, model, latencies.len());
    let [title, partitions, latency, health, log, foot] = Layout::vertical(heights).areas(area);
    frame.render_widget(Paragraph::new(headline(model)), title);
    frame.render_widget(partition_table(model, area.width), partitions);
    frame.render_widget(latency_table(latencies), latency);
    frame.render_widget(health_list(model, health), health);
    frame.render_widget(log_list(model, log), log);
    frame.render_widget(Paragraph::new(footline(status)), foot);
}

/// Title, partitions, latencies, health, log, foot. What has nothing to show gives its room to the log; when there is little, the log
/// goes first.
fn heights(height: u16, model: &Model, latencies: usize) -> [Constraint; 6] {
    let mut left = height.saturating_sub(2);
    let mut take = |wanted: usize| {
        let given = u16::try_from(wanted).unwrap_or(u16::MAX).min(left);
        left -= given;
        Constraint::Length(given)
    };
    let partitions = take(model.partitions.len().max(1) + 2);
    let health = take(if model.health.is_empty() { 0 } else { model.health.len().min(EVENTS) + 1 });
    let latency = take(if latencies == 0 { 0 } else { latencies + 2 });
    [
        Constraint::Length(1),
        partitions,
        latency,
        health,
        Constraint::Length(left),
        Constraint::Length(1),
    ]
}

fn headline(model: &Model) -> Line<'static> {
    let what = match &model.manifest {
        Some(manifest) => format!("{} on {}", manifest.system, manifest.board),
        None => "an unknown image".to_string(),
    };
    let build = model.build.get(..8).map(|build| format!("  build {build}")).unwrap_or_default();
    let clock = match model.seconds() {
        Some(seconds) if model.tsc > 0 => format!("  at {seconds:.3} s of its clock"),
        _ => "  not up yet".to_string(),
    };
    let mut spans = vec![
        Span::styled("bulkhead ", HEAD.fg(Color::Cyan)),
        Span::styled(what, HEAD),
        Span::styled(build, FAINT),
        Span::styled(clock, PLAIN),
    ];
    if model.garbled + model.dropped > 0 {
        let lost =
            format!("  {} garbled, {} dropped", grouped(model.garbled), grouped(model.dropped));
        spans.push(Span::styled(lost, WARNING));
    }
    Line::from(spans)
}

fn block(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).border_style(FAINT).title(Span::styled(title, HEAD))
}

fn partition_table(model: &Model, width: u16) -> Table<'static> {
    let wide = width >= WIDE;
    let mut head = vec!["partition", "fate", "exits", "windows", "late"];
    let mut widths = vec![
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Length(11),
        Constraint::Length(6),
    ];
    if wide {
        head.extend(["lateness", "denied", "core"]);
        widths.extend([Constraint::Length(9), Constraint::Length(10), Constraint::Length(12)]);
    }
    let rows = model.partitions.iter().map(|(id, partition)| row(model, *id, partition, wide));
    Table::new(rows, widths)
        .header(Row::new(head.into_iter().map(right_but_first())).style(FAINT))
        .block(block(" partitions "))
        .column_spacing(1)
}

/// Figures stand to the right, names to the left.
fn right_but_first() -> impl FnMut(&'static str) -> Cell<'static> {
    |word| match word {
        "partition" | "fate" | "core" | "measured" | "unit" => Cell::new(word),
        _ => figure(word.to_string()),
    }
}

fn figure(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).right_aligned())
}

fn row(model: &Model, id: u16, partition: &Partition, wide: bool) -> Row<'static> {
    let number = |figure: Option<u64>| figure.map_or_else(|| "at end".to_string(), grouped);
    let fate = partition.fate();
    let fate_style = match fate.as_str() {
        "passed" | "off" => GOOD,
        _ if partition.went_wrong() => BAD,
        _ => PLAIN,
    };
    let (windows, late) = partition.windows().map_or_else(
        || ("-".to_string(), figure("-".to_string())),
        |(windows, late)| {
            let style = if late > 0 { BAD } else { PLAIN };
            (grouped(windows), figure(grouped(late)).style(style))
        },
    );
    let mut cells = vec![
        Cell::new(Span::styled(model.name(id), HEAD)),
        Cell::new(Span::styled(fate, fate_style)),
        figure(number(partition.exits())),
        figure(windows),
        late,
    ];
    if wide {
        let lateness = partition
            .lateness_max()
            .map_or_else(|| "-".to_string(), |l| format!("<= {}", grouped(l)));
        cells.extend([
            figure(lateness),
            figure(number(partition.denied())),
            Cell::new(place(model, id)),
        ]);
    }
    Row::new(cells)
}

fn place(model: &Model, id: u16) -> String {
    let place =
        model.manifest.as_ref().and_then(|manifest| manifest.partitions.get(usize::from(id)));
    place.map_or_else(String::new, |place| {
        let cpus: Vec<String> = place.cpus.iter().map(ToString::to_string).collect();
        format!("{} {}", cpus.join(","), if place.shared { "shared" } else { "dedicated" })
    })
}

fn latency_rows(model: &Model) -> Vec<[String; 8]> {
    let mut rows = Vec::new();
    for (id, partition) in &model.partitions {
        rows.extend(partition.measured.histograms.iter().map(|h| {
            let figures = [h.count, h.min, h.median, h.p99_9, h.max].map(grouped);
            let [count, min, median, p99_9, max] = figures;
            [model.name(*id), h.name.clone(), h.unit.clone(), count, min, median, p99_9, max]
        }));
    }
    rows
}

fn latency_table(rows: Vec<[String; 8]>) -> Table<'static> {
    let head = ["partition", "measured", "unit", "samples", "min", "median", "p99.9", "max"];
    let widths = [2, 3, 1, 2, 1, 1, 1, 1].map(Constraint::Fill);
    let rows = rows.into_iter().map(|[partition, name, unit, rest @ ..]| {
        let mut cells =
            vec![Cell::new(Span::styled(partition, HEAD)), Cell::new(name), Cell::new(unit)];
        cells.extend(rest.map(figure));
        Row::new(cells)
    });
    Table::new(rows, widths)
        .header(Row::new(head.into_iter().map(right_but_first())).style(FAINT))
        .block(block(" latency "))
        .column_spacing(1)
}

fn health_list(model: &Model, area: Rect) -> List<'static> {
    let room = usize::from(area.height.saturating_sub(1));
    let latest = model.health.iter().rev().take(room).rev();
    let items = latest.map(|(tsc, words)| {
        let at = Span::styled(format!("{:>16} ", grouped(*tsc)), FAINT);
        ListItem::new(Line::from(vec![at, Span::styled(words.clone(), WARNING)]))
    });
    let count: u64 = model.incidents.values().sum();
    let plural = if count == 1 { "" } else { "s" };
    let title = format!(" health: {} event{plural} ", grouped(count));
    let frame = Block::new().borders(Borders::TOP).border_style(FAINT);
    List::new(items).block(frame.title(Span::styled(title, BAD)))
}

fn log_list(model: &Model, area: Rect) -> List<'static> {
    let room = usize::from(area.height.saturating_sub(1));
    let latest = model.lines.iter().rev().take(room).rev();
    List::new(latest.map(|line| ListItem::new(line.clone()))).block(block(" log "))
}

fn footline(status: &Status<'_>) -> Line<'static> {
    let state = match &status.end {
        None => Span::styled("listening", GOOD),
        Some(Ok(())) => Span::styled("ended", HEAD),
        Some(Err(error)) => Span::styled(error.lines().next().unwrap_or_default().to_string(), BAD),
    };
    Line::from(vec![
        Span::styled(" q ", Style::new().add_modifier(Modifier::REVERSED)),
        Span::styled(" quits  ", PLAIN),
        state,
        Span::styled(format!("  {}", status.source), FAINT),
    ])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::monitor::model::tests::model;

    fn drawn(width: u16, height: u16, model: &Model) -> String {
        let status = Status { source: "/dev/ttyUSB0", end: None };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, &status)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn all_that_is_known_is_on_the_screen() {
        let screen = drawn(100, 30, &model());
        for words in [
            "demo on bochs",
            "motion",
            "at end",
            "passed",
            "834",
            "205",
            "wakeup",
            "1,234 ticks late",
            "1 garbled",
            "listening",
        ] {
            assert!(screen.contains(words), "{words} is missing in\n{screen}");
        }
    }

    #[test]
    fn no_size_makes_drawing_panic() {
        let model = model();
        for width in (1..140).step_by(7) {
            for height in 1..40 {
                drawn(width, height, &model);
            }
        }
        assert!(drawn(10, 3, &model).contains("bulkhead"));
    }

    #[test]
    fn a_narrow_screen_keeps_the_figures_that_matter() {
        let screen = drawn(56, 12, &model());
        for words in ["motion", "running", "834", "205"] {
            assert!(screen.contains(words), "{words} is missing in\n{screen}");
        }
    }
}
