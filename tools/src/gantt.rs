//! Draws what really ran on the time-shared cores, from the log, over the plan: one row for each core, as SVG.
//!
//! The declared windows stand behind as pale boxes with their owners' names; what ran stands in front, from the instant when it was
//! entered to the one when it was left. A window that began late or overran sticks out of its box.

use std::collections::BTreeSet;
use std::path::Path;

use bulkhead_config::{Plan, PlannedRole};
use bulkhead_table::{Owner, Window};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::plot::{Drawn, INK, PALE};
use crate::report::{RanWindow, Report};
use crate::screen::grouped;

const WIDTH: u32 = 1280;
const HEADER: u32 = 70;
const FOOTER: u32 = 84;
const ROW: u32 = 92;
const LEFT: i32 = 90;
const RIGHT: i32 = 30;
const EDGE: RGBColor = RGBColor(144, 164, 174);
const HOUSE: RGBColor = RGBColor(120, 130, 136);
/// By partition, round and round; dark enough for white letters.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 105, 148),
    RGBColor(173, 71, 0),
    RGBColor(46, 110, 54),
    RGBColor(126, 42, 130),
    RGBColor(158, 32, 52),
    RGBColor(84, 84, 160),
    RGBColor(0, 112, 104),
    RGBColor(121, 85, 30),
];

/// Most frames in one picture.
const MOST_FRAMES: u64 = 6;

/// Pixels that a letter of a label takes.
const LETTER: i32 = 7;

/// Writes the picture to `path`.
///
/// # Errors
/// The log told of no window, or the file cannot be written.
pub fn write(report: &Report, plan: &Plan, path: &Path) -> Result<()> {
    let Some(frames) = frames(report) else {
        return Err(Error::refused(
            format!("no picture was written to {}", path.display()),
            "the log tells of no window that ran",
            "add `[log]` with `windows = true` to the system file, give a partition windows, and let the run come to its end",
        ));
    };
    let picture = Picture { report, plan, frames };
    let size = picture.size();
    let area = SVGBackend::new(path, size).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| picture.draw(&area));
    drawn.map_err(|cause| {
        Error::failed(
            format!("cannot write {}", path.display()),
            cause,
            "check the folder and its rights",
        )
    })
}

/// The picture as text, on no ground of its own; `None` where the log told of no window, or what it told cannot be drawn.
#[must_use]
pub fn svg(report: &Report, plan: &Plan) -> Option<String> {
    let picture = Picture { report, plan, frames: frames(report)? };
    let mut text = String::new();
    picture.draw(&SVGBackend::with_string(&mut text, picture.size()).into_drawing_area()).ok()?;
    Some(text)
}

/// The declared window that `ran` was, as the plan has it; none when there is no such window.
#[must_use]
pub fn declared(plan: &Plan, ran: &RanWindow) -> Option<Window> {
    let core = plan.cores().iter().find(|core| core.cpu == ran.cpu)?;
    let PlannedRole::Shared(plans) = &core.role else { return None };
    plans.get(usize::from(ran.plan))?.get(usize::from(ran.window)).copied()
}

/// The frames to show, first and last: those around the last change of plan, else the last ones. Each is kept by every core.
fn frames(report: &Report) -> Option<(u64, u64)> {
    let cores: BTreeSet<u16> = report.trace.iter().map(|ran| ran.cpu).collect();
    let of = |cpu: u16| report.trace.iter().filter(move |ran| ran.cpu == cpu).map(|ran| ran.frame);
    // The oldest frame of a core may have lost its first windows.
    let first = cores.iter().filter_map(|cpu| of(*cpu).min()).max()?;
    let last = cores.iter().filter_map(|cpu| of(*cpu).max()).min()?;
    let first = if first < last && first > 0 { first + 1 } else { first };
    let last = last.max(first);
    let change = report
        .trace
        .windows(2)
        .filter(|pair| pair[0].cpu == pair[1].cpu && pair[0].plan != pair[1].plan)
        .map(|pair| pair[1].frame)
        .filter(|frame| (first..=last).contains(frame))
        .max();
    let end = change.map_or(last, |frame| last.min(frame + MOST_FRAMES / 2 - 1));
    Some((first.max((end + 1).saturating_sub(MOST_FRAMES)), end))
}

struct Picture<'r> {
    report: &'r Report,
    plan: &'r Plan,
    frames: (u64, u64),
}

impl Picture<'_> {
    /// The time-shared cores and their windows by plan.
    fn cores(&self) -> impl Iterator<Item = (u16, &[Vec<Window>])> {
        self.plan.cores().iter().filter_map(|core| match &core.role {
            PlannedRole::Shared(plans) => Some((core.cpu, plans.as_slice())),
            _ => None,
        })
    }

    /// Width and height in pixels.
    fn size(&self) -> (u32, u32) {
        (WIDTH, HEADER + FOOTER + ROW * self.cores().map(|_| 1).sum::<u32>())
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        self.title(area)?;
        let mut top = HEADER as i32;
        for (cpu, plans) in self.cores() {
            self.row(area, top, cpu, plans)?;
            top += ROW as i32;
        }
        self.axis(area, top)?;
        area.present()?;
        Ok(())
    }

    fn title(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        let (first, last) = self.frames;
        let head = ("sans-serif", 22).into_font().color(&INK);
        let small = ("sans-serif", 13).into_font().color(&INK);
        let text = format!(
            "{}: what ran in frames {} to {}",
            self.report.system,
            grouped(first),
            grouped(last)
        );
        area.draw(&Text::new(text, (20, 12), head))?;
        let note = format!(
            "pale: the plan · coloured: from the first instant to the last, as the log tells · {} · frame {} ticks",
            self.report.machine(),
            grouped(self.plan.frame())
        );
        area.draw(&Text::new(note, (20, 42), small))?;
        Ok(())
    }

    fn row(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        top: i32,
        cpu: u16,
        plans: &[Vec<Window>],
    ) -> Drawn {
        let name = ("sans-serif", 14).into_font().color(&INK);
        area.draw(&Text::new(format!("core {cpu}"), (20, top + 34), name))?;
        for frame in self.frames.0..=self.frames.1 {
            let windows =
                plans.get(usize::from(self.plan_of(frame))).map_or(&[][..], Vec::as_slice);
            for window in windows {
                self.declared(area, top, frame, window)?;
            }
        }
        let shown = self.frames.0..=self.frames.1;
        let of_core = |ran: &&RanWindow| ran.cpu == cpu && shown.contains(&ran.frame);
        for ran in self.report.trace.iter().filter(of_core) {
            self.ran(area, top, ran)?;
        }
        Ok(())
    }

    /// The plan that the log shows for a frame.
    fn plan_of(&self, frame: u64) -> u16 {
        let before = self.report.trace.iter().filter(|ran| ran.frame <= frame);
        before.max_by_key(|ran| ran.frame).map_or(0, |ran| ran.plan)
    }

    fn declared(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        top: i32,
        frame: u64,
        window: &Window,
    ) -> Drawn {
        let start = self.instant(frame, window.start);
        let (from, to) = (self.x(start), self.x(start + window.length));
        let corners = [(from, top + 8), (to, top + 72)];
        area.draw(&Rectangle::new(corners, PALE.filled()))?;
        area.draw(&Rectangle::new(corners, EDGE.stroke_width(1)))?;
        let name = self.owner(window.owner);
        label(area, name, (from + 3, top + 10), to - from, &INK)
    }

    fn ran(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, top: i32, ran: &RanWindow) -> Drawn {
        let (from, to) = (self.x(ran.entered), self.x(ran.left).max(self.x(ran.entered) + 1));
        let id = ran.ran.as_ref().and_then(|name| {
            self.plan.partitions().iter().position(|partition| partition.name == *name)
        });
        let colour = id.map_or(HOUSE, |id| COLOURS[id % COLOURS.len()]);
        area.draw(&Rectangle::new([(from, top + 30), (to, top + 66)], colour.filled()))?;
        let name = ran.ran.as_deref().unwrap_or("housekeeping");
        label(area, name, (from + 3, top + 42), to - from, &WHITE)
    }

    fn owner(&self, owner: Owner) -> &str {
        match owner {
            Owner::Housekeeping => "housekeeping",
            Owner::Partition(id) => self
                .plan
                .partitions()
                .get(usize::from(id))
                .map_or("?", |partition| partition.name.as_str()),
        }
    }

    fn axis(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, bottom: i32) -> Drawn {
        let small = ("sans-serif", 12).into_font().color(&INK);
        for frame in self.frames.0..=self.frames.1 + 1 {
            let x = self.x(self.instant(frame, 0));
            let line = vec![(x, HEADER as i32), (x, bottom + 6)];
            area.draw(&PathElement::new(line, EDGE.stroke_width(1)))?;
            if frame <= self.frames.1 {
                let plan = self.plan.plans().get(usize::from(self.plan_of(frame)));
                let plan = plan.map_or("?", String::as_str);
                let text = format!("frame {} · plan {plan}", grouped(frame));
                area.draw(&Text::new(text, (x + 4, bottom + 8), small.clone()))?;
            }
        }
        let note = format!("{}; the way from window to window is white", self.report.ticks);
        area.draw(&Text::new(note, (20, bottom + 32), small))?;
        self.legend(area, bottom + 56)
    }

    /// The colour of each partition that ran, and of housekeeping.
    fn legend(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, top: i32) -> Drawn {
        let ran: BTreeSet<&str> =
            self.report.trace.iter().filter_map(|ran| ran.ran.as_deref()).collect();
        let partitions = self.plan.partitions().iter().enumerate();
        let named = partitions
            .map(|(id, partition)| (partition.name.as_str(), COLOURS[id % COLOURS.len()]))
            .filter(|(name, _)| ran.contains(name));
        let mut x = 20;
        for (name, colour) in named.chain([("housekeeping", HOUSE)]) {
            area.draw(&Rectangle::new([(x, top), (x + 12, top + 12)], colour.filled()))?;
            let text = ("sans-serif", 12).into_font().color(&INK);
            area.draw(&Text::new(name.to_string(), (x + 17, top), text))?;
            x += 36 + LETTER * i32::try_from(name.len())?;
        }
        Ok(())
    }

    /// TSC of an offset within a frame.
    fn instant(&self, frame: u64, offset: u64) -> u64 {
        let epoch = self.report.boot.epoch.unwrap_or(0);
        epoch.saturating_add(frame.saturating_mul(self.plan.frame())).saturating_add(offset)
    }

    fn x(&self, tsc: u64) -> i32 {
        let begin = self.instant(self.frames.0, 0);
        let length = (self.frames.1 + 1 - self.frames.0).saturating_mul(self.plan.frame()).max(1);
        let share = tsc.saturating_sub(begin) as f64 / length as f64;
        let width = f64::from(WIDTH as i32 - LEFT - RIGHT);
        LEFT + (share.min(1.0) * width).round() as i32
    }
}

/// A label, cut to what fits; none where not even three letters do.
fn label(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    name: &str,
    place: (i32, i32),
    width: i32,
    colour: &RGBColor,
) -> Drawn {
    let room = usize::try_from((width - 6) / LETTER).unwrap_or(0);
    if room >= 3 {
        let cut: String = name.chars().take(room).collect();
        area.draw(&Text::new(cut, place, ("sans-serif", 12).into_font().color(colour)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(cpu: u16, frame: u64, plan: u16) -> RanWindow {
        RanWindow { cpu, frame, plan, ..RanWindow::default() }
    }

    fn report(trace: Vec<RanWindow>) -> Report {
        Report { trace, ..Report::default() }
    }

    #[test]
    fn without_windows_there_is_no_picture() {
        assert_eq!(frames(&report(Vec::new())), None);
    }

    #[test]
    fn the_last_frames_that_all_cores_kept_are_shown() {
        let kept = |cpu, range: std::ops::Range<u64>| range.map(move |frame| ran(cpu, frame, 0));
        let trace = kept(0, 10..40).chain(kept(1, 30..38)).collect();
        assert_eq!(frames(&report(trace)), Some((32, 37)));
        let few = kept(0, 0..3).collect();
        assert_eq!(frames(&report(few)), Some((0, 2)));
    }

    #[test]
    fn a_change_of_plan_stands_in_the_middle() {
        let trace = (0..100).map(|frame| ran(0, frame, u16::from(frame >= 50))).collect();
        assert_eq!(frames(&report(trace)), Some((47, 52)));
    }
}
