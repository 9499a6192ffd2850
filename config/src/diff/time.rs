//! Time that somebody gains or loses: the frame, the plans, the windows of partitions and of housekeeping.

use bulkhead_table::{Owner, Window};

use super::{Both, Gravity, Side, partitions};
use crate::places::WindowKey;
use crate::plan::{Plan, PlannedRole};
use crate::source::Place;
use crate::units::duration_text;

pub(super) fn compare(both: &mut Both<'_>) {
    frame(both);
    plans(both);
    for partition in &both.old.plan.partitions {
        let ids = (
            partitions::find(&both.old, &partition.name),
            partitions::find(&both.new, &partition.name),
        );
        let (Some((before, _)), Some((now, _))) = ids else { continue };
        owner(both, &partition.name, (Owner::Partition(before), Owner::Partition(now)));
    }
    housekeeping(both);
}

/// A time on one of the two boards; clocks may differ, so it is compared without rounding.
#[derive(Clone, Copy)]
struct Span {
    ticks: u64,
    hz: u64,
}

impl Span {
    fn text(self) -> String {
        duration_text(self.ticks, self.hz)
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        u128::from(self.ticks) * u128::from(other.hz)
            == u128::from(other.ticks) * u128::from(self.hz)
    }
}

fn span(plan: &Plan, ticks: u64) -> Span {
    Span { ticks, hz: plan.tsc_hz() }
}

fn frame(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan, both.new.plan);
    let (before, now) = (span(old, old.frame()), span(new, new.frame()));
    if before != now {
        let text = |span: Span| if span.ticks == 0 { "none".to_owned() } else { span.text() };
        let sentence = format!("has another major frame: {} -> {}", text(before), text(now));
        both.tell(Gravity::Time, "schedule", sentence, &["schedule.frame", "schedule"]);
    }
}

fn plans(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan, both.new.plan);
    let paths = ["schedule.plans", "schedule"];
    for name in new.plans().iter().filter(|name| !old.plans().contains(name)) {
        let sentence = format!("has a new plan `{name}`: {}", plan_text(&both.new, name));
        both.tell(Gravity::Time, "schedule", sentence, &paths);
    }
    for name in old.plans().iter().filter(|name| !new.plans().contains(name)) {
        let sentence = format!("loses the plan `{name}`: {}", plan_text(&both.old, name));
        both.tell(Gravity::Time, "schedule", sentence, &paths);
    }
    let kept = |of: &Plan, other: &Plan| -> Vec<String> {
        of.plans().iter().filter(|name| other.plans().contains(name)).cloned().collect()
    };
    let starts = (old.plans().first(), new.plans().first());
    if let (Some(before), Some(now)) = starts
        && before != now
    {
        let sentence = format!("starts in another plan: `{before}` -> `{now}`");
        both.tell(Gravity::Time, "schedule", sentence, &paths);
    } else if kept(old, new) != kept(new, old) {
        let sentence = format!(
            "numbers its plans otherwise: {} -> {}",
            old.plans().join(", "),
            new.plans().join(", ")
        );
        both.tell(Gravity::Placement, "schedule", sentence, &paths);
    }
}

/// Who has how much time in a plan.
fn plan_text(side: &Side<'_>, name: &str) -> String {
    let plan = side.plan;
    let Some(index) = plan.plans().iter().position(|known| known == name) else {
        return String::new();
    };
    let mut parts = Vec::new();
    for core in plan.cores() {
        let mut owners: Vec<Owner> = Vec::new();
        for window in plan.windows_of(core.cpu, index) {
            if !owners.contains(&window.owner) {
                owners.push(window.owner);
            }
        }
        for owner in owners {
            let time = span(plan, plan.time_of(owner, core.cpu, index)).text();
            parts.push(format!("{} {time} on core {}", plan.owner_name(owner), core.cpu));
        }
    }
    if parts.is_empty() { "no windows".to_owned() } else { parts.join(", ") }
}

/// The windows of an owner that is in both systems, on the cores and in the plans that both have.
fn owner(both: &mut Both<'_>, name: &str, owners: (Owner, Owner)) {
    let (old, new) = (both.old.plan, both.new.plan);
    for core in &old.cores {
        let shared = |plan: &Plan| matches!(plan.role_of(core.cpu), Some(PlannedRole::Shared(_)));
        if !shared(old) || !shared(new) {
            continue;
        }
        for (before, plan) in old.plans().iter().enumerate() {
            let Some(now) = new.plans().iter().position(|other| other == plan) else { continue };
            windows(both, name, core.cpu, (owners.0, before), (owners.1, now));
        }
    }
}

fn owned(plan: &Plan, cpu: u16, (owner, index): (Owner, usize)) -> Vec<Window> {
    let windows = plan.windows_of(cpu, index).iter();
    windows.filter(|window| window.owner == owner).copied().collect()
}

fn windows(both: &mut Both<'_>, name: &str, cpu: u16, before: (Owner, usize), now: (Owner, usize)) {
    let (old, new) = (both.old.plan, both.new.plan);
    let (earlier, later) = (owned(old, cpu, before), owned(new, cpu, now));
    if earlier.is_empty() && later.is_empty() {
        return;
    }
    let on_core = |plan: &Plan, owner: Owner| match owner {
        Owner::Partition(id) => plan.cores_of(id).contains(&cpu),
        Owner::Housekeeping => true,
    };
    // A core that is gained or lost says it all.
    if !on_core(old, before.0) || !on_core(new, now.0) {
        return;
    }
    let total = |plan: &Plan, windows: &[Window]| {
        span(plan, windows.iter().map(|window| window.length).sum())
    };
    let (time_before, time_now) = (total(old, &earlier), total(new, &later));
    let frames = (span(old, old.frame()), span(new, new.frame()));
    let sentence = if time_before != time_now {
        gain(both, cpu, (time_before, time_now))
    } else if frames.0 != frames.1 {
        share(cpu, (time_before, frames.0), (time_now, frames.1))
    } else if moved(both, &earlier, &later) {
        let list = |plan, windows: &[Window]| list(plan, windows);
        format!(
            "has its windows elsewhere on core {cpu}: {} -> {}",
            list(old, &earlier),
            list(new, &later)
        )
    } else {
        return;
    };
    let plan = old.plans().get(before.1).map_or("", String::as_str);
    let sentence = match old.plans().len().max(new.plans().len()) {
        1 => sentence,
        _ => format!("in the plan `{plan}` {sentence}"),
    };
    let places = (
        changed(&both.old, name, (cpu, plan), &earlier, &both.new, &later),
        changed(&both.new, name, (cpu, plan), &later, &both.old, &earlier),
    );
    both.tell_at(Gravity::Time, name, sentence, places);
}

fn gain(both: &Both<'_>, cpu: u16, (before, now): (Span, Span)) -> String {
    let share = |span: Span, frame: u64| 100.0 * span.ticks as f64 / frame.max(1) as f64;
    let grows = u128::from(now.ticks) * u128::from(before.hz)
        > u128::from(before.ticks) * u128::from(now.hz);
    let verb = if grows { "gains" } else { "loses" };
    let amount = match before.hz == now.hz {
        true => format!("{} ", Span { ticks: now.ticks.abs_diff(before.ticks), hz: now.hz }.text()),
        false => "time ".to_owned(),
    };
    format!(
        "{verb} {amount}of each frame on core {cpu}: {} ({:.1} %) -> {} ({:.1} %)",
        before.text(),
        share(before, both.old.plan.frame()),
        now.text(),
        share(now, both.new.plan.frame())
    )
}

/// The same time of each frame, and another frame.
fn share(cpu: u16, before: (Span, Span), now: (Span, Span)) -> String {
    let of = |(time, frame): (Span, Span)| 100.0 * time.ticks as f64 / frame.ticks.max(1) as f64;
    let text =
        |both: (Span, Span)| format!("{} of {} ({:.1} %)", both.0.text(), both.1.text(), of(both));
    let verb = if of(now) > of(before) { "gains" } else { "loses" };
    format!("{verb} a share of core {cpu}: {} -> {}", text(before), text(now))
}

/// Whether windows of the same length in all differ in place.
fn moved(both: &Both<'_>, earlier: &[Window], later: &[Window]) -> bool {
    let same = |one: &Window, other: &Window| same_window(both.old.plan, one, both.new.plan, other);
    earlier.len() != later.len() || !earlier.iter().zip(later).all(|(one, other)| same(one, other))
}

fn same_window(old: &Plan, one: &Window, new: &Plan, other: &Window) -> bool {
    span(old, one.start) == span(new, other.start)
        && span(old, one.length) == span(new, other.length)
}

/// `20 us to 620 us, 1 ms to 1.2 ms`.
fn list(plan: &Plan, windows: &[Window]) -> String {
    let text = |ticks| span(plan, ticks).text();
    let each = windows
        .iter()
        .map(|window| format!("{} to {}", text(window.start), text(window.start + window.length)));
    each.collect::<Vec<_>>().join(", ")
}

/// The line of the first window of `mine` that the other side does not have; else that of the first.
fn changed(
    side: &Side<'_>,
    name: &str,
    (cpu, plan): (u16, &str),
    mine: &[Window],
    other: &Side<'_>,
    others: &[Window],
) -> Option<Place> {
    let unlike = |window: &&Window| {
        !others.iter().any(|theirs| same_window(side.plan, window, other.plan, theirs))
    };
    let window = mine.iter().find(unlike).or(mine.first());
    let section = section(name);
    let found = window.and_then(|window| {
        let key = WindowKey { start: window.start, hz: side.plan.tsc_hz(), cpu, plan };
        side.places.window(&section, key)
    });
    found.or_else(|| side.places.value(&section))
}

fn section(name: &str) -> String {
    match name {
        "housekeeping" => name.to_owned(),
        _ => format!("partition.{name}"),
    }
}

/// Who drains the logs, where: it is no partition, and owns a core or windows all the same.
fn housekeeping(both: &mut Both<'_>) {
    let (before, now) = (housekeeping_cores(both.old.plan), housekeeping_cores(both.new.plan));
    if before != now {
        let text = |cores: &[(u16, bool)]| -> String {
            let each = cores.iter().map(|(cpu, whole)| match whole {
                true => format!("the whole of core {cpu}"),
                false => format!("windows on core {cpu}"),
            });
            each.collect::<Vec<_>>().join(", ")
        };
        let sentence = format!("runs elsewhere: {} -> {}", text(&before), text(&now));
        both.tell(
            Gravity::Access,
            "housekeeping",
            sentence,
            &["housekeeping.core", "housekeeping"],
        );
        return;
    }
    owner(both, "housekeeping", (Owner::Housekeeping, Owner::Housekeeping));
}

/// Cores on which housekeeping runs, and whether it has the whole core.
fn housekeeping_cores(plan: &Plan) -> Vec<(u16, bool)> {
    let on = |core: &crate::plan::PlannedCore| match &core.role {
        PlannedRole::Housekeeping => Some((core.cpu, true)),
        PlannedRole::Shared(plans) => plans
            .iter()
            .flatten()
            .any(|window| window.owner == Owner::Housekeeping)
            .then_some((core.cpu, false)),
        PlannedRole::Dedicated(_) => None,
    };
    plan.cores.iter().filter_map(on).collect()
}
