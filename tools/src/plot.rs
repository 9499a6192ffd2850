//! Draws the histograms of a report as one SVG picture, a panel for each distribution.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::report::{Histogram, Report};
use crate::screen::grouped;

const WIDTH: u32 = 960;
const PANEL: u32 = 300;
const HEADER: u32 = 64;
/// Words and axes.
pub(crate) const INK: RGBColor = RGBColor(38, 50, 56);
/// The mesh.
pub(crate) const PALE: RGBColor = RGBColor(236, 239, 241);
/// Bars.
pub(crate) const BARS: RGBColor = RGBColor(0, 105, 148);
/// Marks on them.
pub(crate) const MARK: RGBColor = RGBColor(198, 40, 40);

/// Bars that a panel shows at most; narrower bins are put together.
const MOST_BARS: u64 = 240;

/// Writes the picture to `path`.
///
/// # Errors
/// The report has no histogram, or the file cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let panels: Vec<(&str, &Histogram)> = report
        .partitions
        .iter()
        .flat_map(|partition| partition.histograms.iter().map(|h| (partition.name.as_str(), h)))
        .filter(|(_, histogram)| !histogram.bins.is_empty())
        .collect();
    if panels.is_empty() {
        return Err(Error::refused(
            format!("no picture was written to {}", path.display()),
            "no partition reported a histogram",
            "run a guest that measures, such as partitions/guests/latency",
        ));
    }
    let draw = draw(report, &panels, path);
    draw.map_err(|cause| {
        Error::failed(
            format!("cannot write {}", path.display()),
            cause,
            "check the folder and its rights",
        )
    })
}

/// A picture, or what its library says against it.
pub(crate) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(report: &Report, panels: &[(&str, &Histogram)], path: &Path) -> Drawn {
    let height = HEADER + PANEL * u32::try_from(panels.len())?;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let (header, body) = area.split_vertically(HEADER);
    title(report, &header)?;
    for ((partition, histogram), panel) in panels.iter().zip(body.split_evenly((panels.len(), 1))) {
        draw_panel(partition, histogram, &panel)?;
    }
    area.present()?;
    Ok(())
}

fn title(report: &Report, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
    let head = ("sans-serif", 22).into_font().color(&INK);
    let small = ("sans-serif", 13).into_font().color(&INK);
    let text = match &report.native {
        Some(partition) => format!("{}: {partition} without the hypervisor", report.system),
        None => format!("Bulkhead: {} on {}", report.system, report.board),
    };
    area.draw(&Text::new(text, (20, 12), head))?;
    let ticks = format!("{} · {}", report.machine(), report.ticks);
    area.draw(&Text::new(ticks, (20, 42), small))?;
    Ok(())
}

/// Draws one histogram, its counts on a logarithmic scale.
pub(crate) fn draw_panel(
    partition: &str,
    h: &Histogram,
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Drawn {
    let bars = bars(h);
    let (low, high) = range(h);
    let most = bars.iter().map(|bar| bar.2).max().unwrap_or(1) as f64;
    let caption = format!(
        "{partition}: {} · {} samples · min {} · median {} · p99.9 {} · max {}",
        h.name,
        grouped(h.count),
        grouped(h.min),
        grouped(h.median),
        grouped(h.p99_9),
        grouped(h.max)
    );
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 15).into_font().color(&INK))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d(low..high, (0.5..most * 6.0).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(PALE)
        .axis_style(INK)
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .x_label_formatter(&|x| grouped(x.max(0.0).round() as u64))
        .y_label_formatter(&|y| grouped(y.round() as u64))
        .x_desc(h.unit.clone())
        .y_desc("samples (log)")
        .draw()?;
    chart.draw_series(bars.iter().map(|(from, to, count)| {
        let corners = [(*from as f64 - 0.4, 0.5), (*to as f64 + 0.4, *count as f64)];
        Rectangle::new(corners, BARS.filled())
    }))?;
    let label = ("sans-serif", 12).into_font().color(&MARK);
    for (x, name, height) in [(h.p99_9, "p99.9", 5.0), (h.max, "max", 2.8)] {
        let line = vec![(x as f64, 0.5), (x as f64, most * 6.0)];
        chart.draw_series([PathElement::new(line, MARK.mix(0.7).stroke_width(1))])?;
        let beside = x as f64 + (high - low) * 0.004;
        chart.draw_series([Text::new(name, (beside, most * height), label.clone())])?;
    }
    Ok(())
}

/// The values that a panel spans: at least ten, so that every mark on its axis is a whole number.
fn range(h: &Histogram) -> (f64, f64) {
    let span = (h.max.saturating_sub(h.min) as f64).max(10.0);
    let room = 1.0 + span * 0.03;
    let middle = h.min as f64 + (h.max.saturating_sub(h.min) as f64) / 2.0;
    let low = (middle - span / 2.0).max(0.0);
    (low - room, low + span + room)
}

/// Bins as bars: first value, last value, samples. Neighbours are put together when there are too many.
fn bars(h: &Histogram) -> Vec<(u64, u64, u64)> {
    let width = (h.max.saturating_sub(h.min) / MOST_BARS).max(1);
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for (value, count) in &h.bins {
        match out.last_mut() {
            Some(bar) if value.saturating_sub(bar.0) < width => {
                bar.1 = *value;
                bar.2 = bar.2.saturating_add(*count);
            }
            _ => out.push((*value, *value, *count)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Partition;

    fn with(histograms: Vec<Histogram>) -> Report {
        let partition = Partition { name: "motion".into(), histograms, ..Partition::default() };
        Report { system: "demo".into(), partitions: vec![partition], ..Report::default() }
    }

    fn histogram(bins: Vec<(u64, u64)>) -> Histogram {
        Histogram {
            name: "latency".into(),
            unit: "ticks".into(),
            count: bins.iter().map(|bin| bin.1).sum(),
            min: bins.first().map_or(0, |bin| bin.0),
            median: bins[bins.len() / 2].0,
            p99_9: bins.last().map_or(0, |bin| bin.0),
            max: bins.last().map_or(0, |bin| bin.0),
            bins,
            ..Histogram::default()
        }
    }

    #[test]
    fn every_panel_is_in_the_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency.svg");
        let one = histogram(vec![(5, 100)]);
        let wide = histogram((0..5000).map(|value| (value, value + 1)).collect());
        let zero = histogram(vec![(0, 1)]);
        write(&with(vec![one, wide, zero]), &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("motion: latency").count(), 3);
    }

    #[test]
    fn no_histogram_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(&with(vec![]), &folder.path().join("x.svg")).unwrap_err();
        assert!(error.to_string().contains("no partition reported a histogram"));
    }

    #[test]
    fn bars_keep_every_sample() {
        let wide = histogram((0..5000).map(|value| (value, 2)).collect());
        let bars = bars(&wide);
        assert!(bars.len() as u64 <= MOST_BARS + 12, "{}", bars.len());
        assert_eq!(bars.iter().map(|bar| bar.2).sum::<u64>(), 10_000);
    }
}
