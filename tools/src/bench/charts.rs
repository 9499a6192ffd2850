//! The pictures of the page, as SVG that takes its colours from the page's style.

use plotters::prelude::*;

use super::percentiles::{Distribution, PERCENTILES};
use crate::plot::{self, BARS, Drawn, INK, MARK, PALE};
use crate::report::Histogram;
use crate::screen::grouped;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 320;

/// Colours of lines, one after the other; told apart in light and in dark.
const LINES: [RGBColor; 7] = [
    BARS,
    RGBColor(196, 94, 10),
    RGBColor(60, 140, 70),
    RGBColor(158, 74, 164),
    RGBColor(176, 52, 72),
    RGBColor(104, 104, 190),
    RGBColor(20, 140, 130),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A distribution: of which run, of which partition.
#[derive(Clone, Copy, Debug)]
pub struct Line<'l> {
    /// Name of the run.
    pub run: &'l str,
    /// Name of the partition.
    pub partition: &'l str,
    /// What was measured.
    pub of: &'l Histogram,
}

/// Pixels that a line of the legend takes, and what stands around it.
const LEGEND_LINE: f64 = 16.0;
const LEGEND_EDGE: f64 = 22.0;
/// Pixels of the axes' plane, in height.
const PLANE: f64 = HEIGHT as f64 - 66.0;

/// Points of a curve.
type Curve = Vec<(f64, f64)>;

/// The curves, each once, with the names of all that have it: of the runs whose neighbour changes nothing one line is left.
fn curves(lines: &[Line<'_>]) -> Vec<(String, Curve)> {
    let mut found: Vec<(Curve, Vec<Line<'_>>)> = Vec::new();
    for line in lines {
        let points = curve(line.of);
        match found.iter_mut().find(|(known, _)| *known == points) {
            Some((_, who)) => who.push(*line),
            None => found.push((points, vec![*line])),
        }
    }
    found.into_iter().map(|(points, who)| (named(&who), points)).collect()
}

/// `system: motion; idle, all: timer`.
fn named(lines: &[Line<'_>]) -> String {
    let mut parts: Vec<(&str, String)> = Vec::new();
    for Line { run, partition, .. } in lines {
        match parts.iter_mut().find(|(name, _)| name == partition) {
            Some((_, runs)) => *runs = format!("{runs}, {run}"),
            None => parts.push((partition, (*run).to_string())),
        }
    }
    let parts: Vec<String> =
        parts.iter().map(|(partition, runs)| format!("{runs}: {partition}")).collect();
    parts.join("; ")
}

/// Where the vertical axis ends, so that no curve runs into a legend of so many lines: it takes a part of the plane, and the highest
/// point lies below.
fn top(most: f64, lines: usize) -> f64 {
    let legend = (lines as f64 * LEGEND_LINE + LEGEND_EDGE).min(PLANE * 0.8);
    most * PLANE / (PLANE - legend)
}

/// A histogram, its counts on a logarithmic scale.
#[must_use]
pub fn histogram(partition: &str, of: &Histogram) -> String {
    picture(HEIGHT, |area| plot::draw_panel(partition, of, area))
}

/// Percentiles of several distributions: the share of the samples that lie beyond on a logarithmic scale.
#[must_use]
pub fn percentiles(unit: &str, lines: &[Line<'_>]) -> String {
    let series = curves(lines);
    let most = series.iter().flat_map(|it| &it.1).map(|point| point.1).fold(10.0, f64::max);
    let last = PERCENTILES.len() as f64 - 0.5;
    picture(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(28)
            .x_label_area_size(42)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..last, 0.0..top(most, series.len()))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(PALE)
            .axis_style(INK)
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_labels(PERCENTILES.len() + 1)
            .x_label_formatter(&|x| tick(*x))
            .y_label_formatter(&|y| grouped(y.round() as u64))
            .x_desc("percentile")
            .y_desc(unit)
            .draw()?;
        for ((name, points), colour) in series.iter().zip(LINES.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 12).into_font().color(&INK))
            .draw()?;
        Ok(())
    })
}

/// The points of a percentile curve: from one percentile that the samples support to the next.
fn curve(of: &Histogram) -> Curve {
    let distribution = Distribution::new(of);
    let at = |(x, percentile)| Some((x, distribution.at(percentile)? as f64));
    (0_u8..).map(f64::from).zip(PERCENTILES).filter_map(at).collect()
}

fn tick(x: f64) -> String {
    let near = x.round();
    let is_one = (x - near).abs() < 0.01 && near >= 0.0;
    let name = is_one.then(|| PERCENTILES.get(near as usize)).flatten();
    name.map_or_else(String::new, |percentile| percentile.name.to_string())
}

/// How a latency went over time: the span from the smallest to the largest sample of each slice.
#[must_use]
pub fn over_time(unit: &str, of: &Histogram, tsc_hz: u64) -> String {
    let Some(first) = of.slices.first().map(|slice| slice.0) else {
        return String::new();
    };
    let seconds = |tsc: u64| tsc.saturating_sub(first) as f64 / tsc_hz.max(1) as f64;
    let end = of.slices.last().map_or(1.0, |slice| seconds(slice.0)).max(1e-6);
    let most = of.slices.iter().map(|slice| slice.2).max().unwrap_or(0).max(10) as f64;
    let width = end / of.slices.len().max(2) as f64;
    picture(220, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(28)
            .x_label_area_size(42)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end + width, 0.0..most * 1.15)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(PALE)
            .axis_style(INK)
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_label_formatter(&|x| format!("{x:.2}"))
            .y_label_formatter(&|y| grouped(y.round() as u64))
            .x_desc("seconds of the board's clock, from the first sample")
            .y_desc(unit)
            .draw()?;
        chart.draw_series(of.slices.iter().map(|(tsc, least, most)| {
            let from = seconds(*tsc);
            // A slice whose samples are all alike still shows.
            let (low, high) = (*least as f64, (*most as f64).max(*least as f64 + 0.15));
            Rectangle::new([(from, low), (from + width * 0.85, high)], BARS.filled())
        }))?;
        Ok(())
    })
}

/// Draws into a string. What cannot be drawn is no picture: nothing is written to a file that could fail.
fn picture(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?))
    };
    match drawn {
        Ok(()) => themed(&svg),
        Err(why) => format!("<p>this picture cannot be drawn: {why}</p>"),
    }
}

/// Puts the page's colours in the place of the fixed ones.
#[must_use]
pub fn themed(svg: &str) -> String {
    let to =
        [(INK, "--ink"), (PALE, "--line"), (BARS, "--bars"), (MARK, "--mark"), (WHITE, "--sheet")];
    let text = to.iter().fold(svg.to_string(), |svg, (colour, name)| {
        let fixed = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
        svg.replace(&fixed, &format!("var({name})"))
    });
    // Within HTML an SVG element stands without a declaration of its own.
    text.find("<svg").map_or(String::new(), |at| text[at..].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_the_pages() {
        let of = Histogram { count: 2, max: 5, bins: vec![(1, 1), (5, 1)], ..Histogram::default() };
        let svg = histogram("motion", &of);
        assert!(
            svg.starts_with("<svg") && svg.contains("var(--ink)") && svg.contains("var(--bars)")
        );
        assert!(!svg.contains("#263238"), "a fixed colour is left");
    }

    #[test]
    fn curves_end_where_the_samples_do() {
        let of = Histogram { count: 100, max: 9, bins: vec![(9, 100)], ..Histogram::default() };
        assert_eq!(curve(&of).len(), 3);
        assert_eq!((tick(2.0), tick(2.5)), ("p99".to_string(), String::new()));
    }

    #[test]
    fn curves_that_are_alike_are_one() {
        let of =
            |max| Histogram { count: 100, max, bins: vec![(max, 100)], ..Histogram::default() };
        let (low, high) = (of(4), of(9));
        let line = |run, partition, of| Line { run, partition, of };
        let lines = [
            line("system", "motion", &low),
            line("idle", "timer", &low),
            line("native", "timer", &high),
            line("all", "timer", &low),
        ];
        let names: Vec<String> = curves(&lines).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["system: motion; idle, all: timer", "native: timer"]);
    }

    #[test]
    fn the_legend_stands_above_the_curves() {
        for lines in 1..9 {
            let highest = PLANE * (1.0 - 100.0 / top(100.0, lines));
            assert!(highest >= lines as f64 * LEGEND_LINE, "{lines}: {highest}");
        }
    }
}
