//! What the windows showed, and what follows from it. All times in ticks.

use guest_rt::{Histogram, Verdict, Window, print, report_value, window};

/// Windows of a frame that are told apart.
const PLACES: usize = 32;
/// Frames in which the guest learns where its windows lie. A window elsewhere later on is one that moved.
const LEARNING: u64 = 2;

/// The window that runs now.
#[derive(Clone, Copy)]
pub struct Running {
    window: Window,
    /// Number of its frame.
    pub frame: u64,
}

impl Running {
    /// The window that runs now, of which `came` is the guest's first instant; `None` where there are no windows.
    pub fn at(came: u64) -> Option<Self> {
        let window = window()?;
        Some(Self { window, frame: window.nearest_frame(came) })
    }

    /// Its declared start.
    const fn start(&self) -> u64 {
        self.window.start_in(self.frame)
    }

    /// Its declared end.
    pub const fn end(&self) -> u64 {
        self.start() + self.window.length
    }
}

/// The windows that start at one offset in their frames.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    /// Frame of the last one.
    frame: u64,
    latest: u64,
}

/// Everything that was measured.
pub struct Seen {
    starts: Histogram,
    /// Of each window, what the guest did not have of it: at its start and at its end.
    lost: Histogram,
    lost_at_start: Option<u64>,
    /// Most that the guest ran behind the end of a window.
    overrun: u64,
    places: [Option<Place>; PLACES],
    /// Latest start in the first and in the second half of the run.
    halves: [u64; 2],
    /// The first window and the last.
    ends: Option<(Running, Running)>,
    /// Windows that did not come.
    skipped: u64,
    /// Windows that started before their time.
    early: u64,
    /// Windows where there was none at first, or of another epoch or frame.
    moved: u64,
}

impl Seen {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            starts: Histogram::new(),
            lost: Histogram::new(),
            lost_at_start: None,
            overrun: 0,
            places: [None; PLACES],
            halves: [0; 2],
            ends: None,
            skipped: 0,
            early: 0,
            moved: 0,
        }
    }

    /// Windows of which start and end were measured.
    pub const fn measured(&self) -> u64 {
        self.lost.count()
    }

    /// A window's first instant was `came`.
    pub fn note_start(&mut self, came: u64, running: &Running, second_half: bool) {
        let (first, _) = *self.ends.get_or_insert((*running, *running));
        self.ends = Some((first, *running));
        let grid = |it: &Window| (it.epoch, it.frame);
        if grid(&first.window) != grid(&running.window) {
            self.moved += 1;
        }
        self.early += u64::from(came < running.start());
        let late = came.saturating_sub(running.start());
        self.starts.record(late);
        self.lost_at_start = Some(late);
        let half = &mut self.halves[usize::from(second_half)];
        *half = (*half).max(late);
        self.note_place(running, late, running.frame <= first.frame + LEARNING);
    }

    fn note_place(&mut self, running: &Running, late: u64, learning: bool) {
        let start = running.window.start;
        let here = |place: &Option<Place>| place.is_none_or(|place| place.start == start);
        let Some(place) = self.places.iter_mut().find(|place| here(place)) else {
            self.moved += 1;
            return;
        };
        if let Some(place) = place {
            self.skipped += (running.frame - place.frame).saturating_sub(1);
            place.frame = running.frame;
            place.latest = place.latest.max(late);
            return;
        }
        self.moved += u64::from(!learning);
        *place = Some(Place { start, frame: running.frame, latest: late });
    }

    /// The last reading before the gap that ended the window was `last`.
    pub fn note_end(&mut self, last: u64, running: &Running) {
        self.overrun = self.overrun.max(last.saturating_sub(running.end()));
        if let Some(at_start) = self.lost_at_start.take() {
            self.lost.record(at_start + running.end().saturating_sub(last));
        }
    }

    /// Prints the report lines.
    pub fn report(&self) {
        print!("{}{}", self.starts.report("window-start"), self.lost.report("window-lost"));
        report_value!("windows-skipped", self.skipped, "windows");
        report_value!("windows-early", self.early, "windows");
        report_value!("windows-moved", self.moved, "windows");
        report_value!("overrun-max", self.overrun, "ticks");
        report_value!("first-half-max", self.halves[0], "ticks");
        report_value!("second-half-max", self.halves[1], "ticks");
        for place in self.places.iter().flatten() {
            report_value!(format_args!("start-at-{}-max", place.start), place.latest, "ticks");
        }
        if let Some((first, last)) = &self.ends {
            report_value!("epoch", last.window.epoch, "ticks");
            report_value!("first-frame", first.frame, "frames");
            report_value!("last-frame", last.frame, "frames");
        }
    }

    /// Whether the windows were where and when they should be. How late they may start is for the reader to say.
    pub const fn judge(&self) -> Verdict {
        if self.skipped != 0 {
            Verdict::fail("a frame passed without the window")
        } else if self.early != 0 {
            Verdict::fail("a window started before its time")
        } else if self.moved != 0 {
            Verdict::fail("a window left its place in the frame")
        } else {
            Verdict::pass("every window was in its place")
        }
    }
}
