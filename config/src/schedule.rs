//! Checks the windows of time-shared cores, plan by plan, in ticks.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_table::{MAX_WINDOWS, Owner, PartitionId, PlanId, Window};

use crate::board::CheckedBoard;
use crate::cores::{Role, Share};
use crate::diagnostics::{Finding, Findings};
use crate::hygiene::{Cleaning, last_partition};
use crate::plans::Plans;
use crate::reader::{positive_ticks, ticks};
use crate::rules::Rule;
use crate::schema::{self, SystemFile};
use crate::source::{At, Place};
use crate::units::duration_text;

/// The frame and the windows of each time-shared core, by plan, ascending.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Ticks; 0 without time-shared cores.
    pub frame: u64,
    pub windows: BTreeMap<u64, Vec<Vec<Window>>>,
}

/// What the checks of windows share.
struct Clockwork<'c> {
    hz: u64,
    budget: At<u64>,
    frame: Option<At<u64>>,
    plans: &'c Plans,
    cleaning: &'c Cleaning<'c>,
    /// Pairs of places that were told of in an earlier plan.
    told: BTreeSet<(Rule, Place, Place)>,
}

/// The schedule, sound if no finding was added.
pub(crate) fn check(
    system: &SystemFile,
    roles: &BTreeMap<u64, Role<'_>>,
    board: Option<&CheckedBoard>,
    plans: &Plans,
    cleaning: &Cleaning<'_>,
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
    if let Some(frame) = frame.as_ref().filter(|_| plans.names.len() > 1) {
        skew_within_frame(frame, board, findings);
    }
    let mut clockwork = Clockwork { hz, budget, frame, plans, cleaning, told: BTreeSet::new() };
    let mut schedule = Schedule {
        frame: clockwork.frame.as_ref().map_or(0, |frame| frame.value),
        windows: BTreeMap::new(),
    };
    for (core, role) in roles {
        if let Role::Shared(shares) = role {
            let windows = clockwork.core(system, shares, findings);
            schedule.windows.insert(*core, windows);
        }
    }
    schedule
}

/// A change of plan names a frame two ahead: cores may disagree about the running one, but by one at most.
fn skew_within_frame(frame: &At<u64>, board: &CheckedBoard, findings: &mut Findings) {
    let Some(skew) = board.skew.as_ref().filter(|skew| skew.value >= frame.value) else {
        return;
    };
    let finding = Finding::new(
        Rule::SkewBeyondFrame,
        "the clocks of two cores may differ by a whole major frame, and a change of plan counts frames",
        "make the frame longer than the board's `skew`, or name one plan only",
    );
    findings.push(finding.at(frame.place, "not longer than the skew").with(skew.place, "the skew"));
}

fn frame_and_windows_agree(system: &SystemFile, findings: &mut Findings) {
    let of_partitions = system.partitions.iter().filter_map(|p| p.windows.as_ref());
    let of_housekeeping = system.housekeeping.iter().filter_map(|h| h.windows.as_ref());
    let mut lists = of_partitions.chain(of_housekeeping).peekable();
    let any = lists.peek().is_some();
    match (&system.schedule, lists.find_map(|list| list.value.first())) {
        (Some(schedule), None) if !any => findings.push(
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
#[derive(Clone)]
struct Placed<'s> {
    window: Window,
    place: Place,
    name: &'s str,
    /// From whom the core passes where that takes longest to clean; `None` where nothing is cleaned.
    cleaned_from: Option<&'s str>,
}

impl Placed<'_> {
    fn end(&self) -> u64 {
        self.window.start + self.window.length
    }
}

/// A window in ticks and the plans in which it stands.
struct Standing<'s> {
    placed: Placed<'s>,
    plans: &'s [PlanId],
}

impl Clockwork<'_> {
    /// The windows of a core by plan.
    fn core(
        &mut self,
        system: &SystemFile,
        shares: &[Share<'_>],
        findings: &mut Findings,
    ) -> Vec<Vec<Window>> {
        let mut standing = Vec::new();
        for share in shares {
            let name = owner_name(system, share.owner);
            for window in &share.windows {
                if let Some(in_ticks) = self.window(window, share.owner, findings) {
                    let placed =
                        Placed { window: in_ticks, place: window.place, name, cleaned_from: None };
                    standing.push(Standing { placed, plans: self.plans.of(window) });
                }
            }
        }
        findings.comparisons.sort(&mut standing, |one| (one.placed.window.start, one.placed.place));
        self.inside_frame(&standing, findings);
        let mut by_plan: Vec<Vec<Placed<'_>>> = self.plans.ids().map(|_| Vec::new()).collect();
        for one in &standing {
            for plan in one.plans {
                if let Some(windows) = by_plan.get_mut(usize::from(*plan)) {
                    windows.push(one.placed.clone());
                }
            }
        }
        self.budgets(system, &mut by_plan);
        for (plan, placed) in self.plans.ids().zip(&by_plan) {
            self.not_too_many(plan, placed, findings);
            self.apart(plan, placed, findings);
            self.long_enough(placed, findings);
        }
        self.apart_across_the_edge(&by_plan, findings);
        by_plan.iter().map(|placed| placed.iter().map(|one| one.window).collect()).collect()
    }

    /// The time before each window: the board's switch budget, and before a partition's the cleaning behind whoever may hold the core.
    fn budgets<'s>(&self, system: &'s SystemFile, by_plan: &mut [Vec<Placed<'s>>]) {
        let owners =
            |placed: &[Placed<'_>]| last_partition(placed.iter().map(|one| one.window.owner));
        let lasts: BTreeSet<PartitionId> =
            by_plan.iter().filter_map(|placed| owners(placed)).collect();
        for placed in by_plan {
            let mut before: Vec<_> = lasts.iter().copied().collect();
            for one in placed {
                let Owner::Partition(next) = one.window.owner else { continue };
                if let Some((ticks, from)) = self.cleaning.longest(&before, next) {
                    one.window.budget = self.budget.value.saturating_add(ticks);
                    one.cleaned_from = Some(owner_name(system, Owner::Partition(from)));
                }
                before = vec![next];
            }
        }
    }

    fn not_too_many(&self, plan: PlanId, placed: &[Placed<'_>], findings: &mut Findings) {
        let Some(first_too_many) = placed.get(MAX_WINDOWS) else { return };
        let finding = Finding::new(
            Rule::TooManyWindows,
            format!("a core has {} windows{}", placed.len(), self.plans.phrase(plan)),
            format!(
                "the table holds {MAX_WINDOWS} for a core in one plan: join some, or make the frame shorter"
            ),
        );
        let label = format!("number {} by its start", MAX_WINDOWS + 1);
        findings.push(finding.at(first_too_many.place, label));
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

    fn inside_frame(&self, standing: &[Standing<'_>], findings: &mut Findings) {
        let Some(frame) = &self.frame else { return };
        let windows = standing.iter().map(|one| &one.placed);
        for window in windows.filter(|window| window.end() > frame.value) {
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

    /// Whether this pair is told of for the first time, of all plans.
    fn first_told(&mut self, rule: Rule, one: Place, other: Place) -> bool {
        self.told.insert((rule, one, other))
    }

    /// Each window against the one before it that ends last.
    fn apart(&mut self, plan: PlanId, placed: &[Placed<'_>], findings: &mut Findings) {
        let mut before: Option<&Placed<'_>> = None;
        findings.comparisons.add(placed.len());
        for window in placed {
            if let Some(before) = before
                && window.window.start < before.end().saturating_add(window.window.budget)
                && self.first_told(Rule::WindowsOverlap, window.place, before.place)
            {
                findings.push(self.too_close(plan, before, window));
            }
            if before.is_none_or(|before| before.end() < window.end()) {
                before = Some(window);
            }
        }
    }

    fn too_close(&self, plan: PlanId, before: &Placed<'_>, window: &Placed<'_>) -> Finding {
        let overlap = window.window.start < before.end();
        let phrase = self.plans.phrase(plan);
        let message = if overlap {
            format!("a window of `{}` starts inside one of `{}`{phrase}", window.name, before.name)
        } else {
            format!(
                "the switch into a window of `{}` has no time{phrase}: {} before its start are to be free",
                window.name,
                self.text(window.window.budget)
            )
        };
        let earliest = self.text(before.end().saturating_add(window.window.budget));
        let budget = self.budget_text(window);
        Finding::new(
            Rule::WindowsOverlap,
            message,
            format!("start it at {earliest} or later (the other's end and {budget}), or shorten the other"),
        )
        .at(window.place, format!("starts at {}", self.text(window.window.start)))
        .with(before.place, format!("ends at {}", self.text(before.end())))
    }

    /// The time before a window, and what it is made of.
    fn budget_text(&self, window: &Placed<'_>) -> String {
        let board = self.text(self.budget.value);
        match window.cleaned_from {
            None => format!("the board's switch budget of {board}"),
            Some(from) => format!(
                "the board's switch budget of {board} and {} of hygiene, as the core passes from `{from}`",
                self.text(window.window.budget.saturating_sub(self.budget.value))
            ),
        }
    }

    /// The first window of a frame against the last of the frame before, which may have been one of another plan.
    fn apart_across_the_edge(&mut self, by_plan: &[Vec<Placed<'_>>], findings: &mut Findings) {
        let lasts: Vec<_> =
            by_plan.iter().map(|placed| placed.iter().max_by_key(|one| one.end())).collect();
        for (into, placed) in self.plans.ids().zip(by_plan) {
            findings.comparisons.add(lasts.len());
            for (from, last) in self.plans.ids().zip(&lasts) {
                if let (Some(first), Some(last)) = (placed.first(), last)
                    && let Some(finding) = self.edge((from, last), (into, first))
                    && self.first_told(Rule::WindowsOverlap, first.place, last.place)
                {
                    findings.push(finding);
                }
            }
        }
    }

    fn edge(
        &self,
        (from, last): (PlanId, &Placed<'_>),
        (into, first): (PlanId, &Placed<'_>),
    ) -> Option<Finding> {
        let frame = self.frame.as_ref()?;
        let free = (first.window.start + frame.value).saturating_sub(last.end());
        if last.end() > frame.value || free >= first.window.budget {
            return None;
        }
        let budget = self.budget_text(first);
        let missing = self.text(first.window.budget - free);
        let frames = if from == into {
            format!(
                "from the last window of a frame to the first of the next{}",
                self.plans.phrase(into)
            )
        } else {
            format!(
                "from the last window of a frame{} to the first of the next{}",
                self.plans.phrase(from),
                self.plans.phrase(into)
            )
        };
        let finding = Finding::new(
            Rule::WindowsOverlap,
            format!("{frames}, {missing} are missing for the switch"),
            format!("start the first window later, or end the last one earlier, by {missing} in all: {budget} is to lie between them"),
        )
        .at(first.place, format!("starts {} into the frame", self.text(first.window.start)));
        let left = match frame.value - last.end() {
            0 => "ends with the frame".to_owned(),
            left => format!("ends {} before the end of the frame", self.text(left)),
        };
        Some(if first.place == last.place { finding } else { finding.with(last.place, left) })
    }

    fn long_enough(&mut self, placed: &[Placed<'_>], findings: &mut Findings) {
        for window in placed.iter().filter(|one| one.window.length <= one.window.budget) {
            let (rule, what, budget) = if window.window.length < self.budget.value {
                (Rule::WindowBelowBudget, "shorter than a switch", self.budget.value)
            } else {
                (Rule::ShortWindow, "no longer than the switch into it", window.window.budget)
            };
            if !self.first_told(rule, window.place, window.place) {
                continue;
            }
            let finding = Finding::new(
                rule,
                format!("a window of `{}` is {what}", window.name),
                "join it with another window of the same owner, or make it longer",
            );
            let budget = self.text(budget);
            findings.push(
                finding
                    .at(window.place, format!("{} long", self.text(window.window.length)))
                    .with(self.budget.place, format!("the switch takes up to {budget}")),
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
