//! Checks the windows of time-shared cores, in ticks.

use std::collections::BTreeMap;

use bulkhead_table::{Owner, Window};

use crate::board::CheckedBoard;
use crate::cores::Role;
use crate::diagnostics::{Finding, Findings};
use crate::reader::{positive_ticks, ticks};
use crate::rules::Rule;
use crate::schema::{self, SystemFile};
use crate::source::{At, Place};
use crate::units::duration_text;

/// The frame and the windows of each time-shared core, ascending.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Ticks; 0 without time-shared cores.
    pub frame: u64,
    pub windows: BTreeMap<u64, Vec<Window>>,
}

/// What the checks of windows share.
struct Clockwork {
    hz: u64,
    budget: At<u64>,
    frame: Option<At<u64>>,
}

/// The schedule, sound if no finding was added.
pub(crate) fn check(
    system: &SystemFile,
    roles: &BTreeMap<u64, Role<'_>>,
    board: Option<&CheckedBoard>,
    findings: &mut Findings,
) -> Schedule {
    frame_and_windows_agree(system, findings);
    let Some(board) = board else {
        return Schedule::default();
    };
    let (Some(hz), Some(budget)) = (board.hz, board.switch_budget.clone()) else {
        return Schedule::default();
    };
    let frame = system.schedule.as_ref().and_then(|schedule| {
        let written = schedule.frame.as_ref()?;
        let value = positive_ticks(written, "frame", hz, findings)?;
        Some(At { value, place: written.place })
    });
    let clockwork = Clockwork { hz, budget, frame };
    let mut schedule = Schedule {
        frame: clockwork.frame.as_ref().map_or(0, |frame| frame.value),
        windows: BTreeMap::new(),
    };
    for (core, role) in roles {
        if let Role::Shared(owners) = role {
            let windows = clockwork.core(system, owners, findings);
            schedule.windows.insert(*core, windows);
        }
    }
    schedule
}

fn frame_and_windows_agree(system: &SystemFile, findings: &mut Findings) {
    let of_partitions = system.partitions.iter().filter_map(|p| p.windows.as_ref());
    let of_housekeeping = system.housekeeping.iter().filter_map(|h| h.windows.as_ref());
    let first = of_partitions.chain(of_housekeeping).find_map(|list| list.value.first());
    match (&system.schedule, first) {
        (Some(schedule), None) => findings.push(
            Finding::new(
                Rule::FrameWithoutWindows,
                "there is a major frame, and nothing has a window in it",
                "take `[schedule]` out, or give the partitions of a core windows",
            )
            .at(schedule.place, "divides nothing"),
        ),
        (None, Some(window)) => findings.push(
            Finding::new(
                Rule::WindowsWithoutFrame,
                "there are windows, and no major frame after which they repeat",
                "add `[schedule]` with `frame = \"2 ms\"`, or whatever your shortest period needs",
            )
            .at(window.place, "repeats after what?"),
        ),
        _ => {}
    }
}

/// A window with its place and its owner's name.
struct Placed<'s> {
    window: Window,
    place: Place,
    name: &'s str,
}

impl Placed<'_> {
    fn end(&self) -> u64 {
        self.window.start + self.window.length
    }
}

impl Clockwork {
    fn core(
        &self,
        system: &SystemFile,
        owners: &[(Owner, &[schema::Window])],
        findings: &mut Findings,
    ) -> Vec<Window> {
        let mut placed = Vec::new();
        for (owner, windows) in owners {
            let name = owner_name(system, *owner);
            placed.extend(windows.iter().filter_map(|window| {
                let window_in_ticks = self.window(window, *owner, findings)?;
                Some(Placed { window: window_in_ticks, place: window.place, name })
            }));
        }
        findings.comparisons.sort(&mut placed, |placed| (placed.window.start, placed.place));
        self.inside_frame(&placed, findings);
        self.apart(&placed, findings);
        self.apart_across_the_edge(&placed, findings);
        self.long_enough(&placed, findings);
        placed.iter().map(|placed| placed.window).collect()
    }

    fn window(
        &self,
        window: &schema::Window,
        owner: Owner,
        findings: &mut Findings,
    ) -> Option<Window> {
        let start = window.start.as_ref().and_then(|at| ticks(at, "start", self.hz, findings));
        let length =
            window.length.as_ref().and_then(|at| positive_ticks(at, "length", self.hz, findings));
        Some(Window { start: start?, length: length?, budget: self.budget.value, owner })
    }

    fn inside_frame(&self, placed: &[Placed<'_>], findings: &mut Findings) {
        let Some(frame) = &self.frame else { return };
        for window in placed.iter().filter(|window| window.end() > frame.value) {
            let over = self.text(window.end() - frame.value);
            let message =
                format!("a window of `{}` ends {over} behind the major frame", window.name);
            let remedy = "shorten the window, start it earlier, or make the frame longer";
            findings.push(
                Finding::new(Rule::WindowOutsideFrame, message, remedy)
                    .at(window.place, format!("ends at {}", self.text(window.end())))
                    .with(frame.place, format!("the frame ends at {}", self.text(frame.value))),
            );
        }
    }

    /// Each window against the one before it that ends last.
    fn apart(&self, placed: &[Placed<'_>], findings: &mut Findings) {
        let mut before: Option<&Placed<'_>> = None;
        findings.comparisons.add(placed.len());
        for window in placed {
            if let Some(before) = before
                && window.window.start < before.end() + self.budget.value
            {
                findings.push(self.too_close(before, window));
            }
            if before.is_none_or(|before| before.end() < window.end()) {
                before = Some(window);
            }
        }
    }

    fn too_close(&self, before: &Placed<'_>, window: &Placed<'_>) -> Finding {
        let overlap = window.window.start < before.end();
        let budget = self.text(self.budget.value);
        let message = if overlap {
            format!("a window of `{}` starts inside one of `{}`", window.name, before.name)
        } else {
            format!(
                "the switch into a window of `{}` has no time: {budget} before its start are to be free",
                window.name
            )
        };
        let earliest = self.text(before.end() + self.budget.value);
        Finding::new(
            Rule::WindowsOverlap,
            message,
            format!("start it at {earliest} or later (the other's end and the board's switch budget of {budget}), or shorten the other"),
        )
        .at(window.place, format!("starts at {}", self.text(window.window.start)))
        .with(before.place, format!("ends at {}", self.text(before.end())))
    }

    /// The first window of a frame against the last of the frame before.
    fn apart_across_the_edge(&self, placed: &[Placed<'_>], findings: &mut Findings) {
        let Some(frame) = &self.frame else { return };
        let (Some(first), Some(last)) =
            (placed.first(), placed.iter().max_by_key(|window| window.end()))
        else {
            return;
        };
        let free = (first.window.start + frame.value).saturating_sub(last.end());
        if last.end() > frame.value || free >= self.budget.value {
            return;
        }
        let budget = self.text(self.budget.value);
        let missing = self.text(self.budget.value - free);
        let finding = Finding::new(
            Rule::WindowsOverlap,
            format!("from the last window of a frame to the first of the next, {missing} are missing for the switch"),
            format!("start the first window later, or end the last one earlier, by {missing} in all: the board's switch budget of {budget} is to lie between them"),
        )
        .at(first.place, format!("starts {} into the frame", self.text(first.window.start)));
        let left = match frame.value - last.end() {
            0 => "ends with the frame".to_owned(),
            left => format!("ends {} before the end of the frame", self.text(left)),
        };
        findings.push(if first.place == last.place {
            finding
        } else {
            finding.with(last.place, left)
        });
    }

    fn long_enough(&self, placed: &[Placed<'_>], findings: &mut Findings) {
        for window in placed.iter().filter(|window| window.window.length <= self.budget.value) {
            let budget = self.text(self.budget.value);
            let finding = Finding::new(
                Rule::ShortWindow,
                format!("a window of `{}` is no longer than the switch into it", window.name),
                "join it with another window of the same owner, or make it longer",
            );
            findings.push(
                finding
                    .at(window.place, format!("{} long", self.text(window.window.length)))
                    .with(self.budget.place, format!("the switch budget is {budget}")),
            );
        }
    }

    fn text(&self, ticks: u64) -> String {
        duration_text(ticks, self.hz)
    }
}

fn owner_name(system: &SystemFile, owner: Owner) -> &str {
    match owner {
        Owner::Housekeeping => "housekeeping",
        Owner::Partition(id) => {
            system.partitions.get(usize::from(id)).map_or("", |p| p.name.value.as_str())
        }
    }
}
