//! The machine under the partitions: board facts, the hypervisor's own resources, names, and the end of the system.

use bulkhead_table::Range;

use super::{Both, Gravity, Side};
use crate::hygiene::{BRANCH_BARRIER, BUFFER_CLEAR, L1D_FLUSH};
use crate::limits;
use crate::plan::Plan;
use crate::surroundings::{self, Entry};
use crate::topology::{Cache, Position};
use crate::units::{duration_text, size_text};
use crate::view::serial_text;

pub(super) fn compare(both: &mut Both<'_>) {
    names(both);
    board_cores(both);
    topology(both);
    board_memory(both);
    clock(both);
    hygiene(both);
    surroundings(both);
    power(both);
    own(both);
    log(both);
    limits(both);
    shutdown(both);
}

/// A fact of the board and the keys that state it.
struct Fact<'f> {
    subject: &'f str,
    what: &'f str,
    before: String,
    now: String,
    paths: &'f [&'f str],
}

/// Tells a fact if it changed.
fn fact(both: &mut Both<'_>, fact: &Fact<'_>) {
    if fact.before != fact.now {
        let sentence = format!("{}: {} -> {}", fact.what, fact.before, fact.now);
        both.tell(Gravity::Machine, fact.subject, sentence, fact.paths);
    }
}

fn names(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan, both.new.plan);
    let renamed = [
        ("system", old.system_name(), new.system_name(), ["system.name"]),
        ("board", old.board_name(), new.board_name(), ["board.name"]),
    ];
    for (subject, before, now, paths) in renamed {
        if before != now {
            let sentence = format!("is called otherwise: {before} -> {now}");
            both.tell(Gravity::Placement, subject, sentence, &paths);
        }
    }
}

fn board_cores(both: &mut Both<'_>) {
    let text = |plan: &Plan| {
        let ids = &plan.board.apic_ids;
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        format!("{} with the APIC ids {}", ids.len(), ids.join(", "))
    };
    let (before, now) = (text(both.old.plan), text(both.new.plan));
    fact(both, &Fact { subject: "board", what: "has other cores", before, now, paths: &["core"] });
}

/// Which threads share a core, and which cores a cache.
fn topology(both: &mut Both<'_>) {
    let positions = |plan: &Plan| {
        let text = |position: &Position| {
            format!("{}.{}.{}", position.package, position.core, position.thread)
        };
        list(plan.positions().iter().map(text))
    };
    let caches = |plan: &Plan| {
        let text = |cache: &Cache| {
            let cores = list(cache.cores.iter().map(u16::to_string));
            format!("level {} of {} for {cores}", cache.level, size_text(cache.size))
        };
        let mut texts: Vec<String> = plan.caches().map(text).collect();
        texts.sort();
        list(texts.into_iter())
    };
    let (old, new) = (both.old.plan, both.new.plan);
    let facts = [
        ("has its cores elsewhere (package.core.thread)", positions(old), positions(new), "core"),
        ("has other caches", caches(old), caches(new), "cache"),
    ];
    for (what, before, now, path) in facts {
        fact(both, &Fact { subject: "board", what, before, now, paths: &[path] });
    }
}

fn list(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "not said".to_owned() } else { texts.join(", ") }
}

fn board_memory(both: &mut Both<'_>) {
    let text = |plan: &Plan| {
        let ranges = plan.board.memory.iter();
        ranges.map(range_text).collect::<Vec<_>>().join(", ")
    };
    let (before, now) = (text(both.old.plan), text(both.new.plan));
    fact(both, &Fact { subject: "board", what: "has other RAM", before, now, paths: &["memory"] });
}

fn range_text(range: &Range) -> String {
    format!("{} from {:#x}", size_text(range.size), range.start)
}

fn clock(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan, both.new.plan);
    let (before, now) = (old.board.clock, new.board.clock);
    let megahertz = |hz: u64| format!("{} MHz", hz as f64 / 1e6);
    let parts = |ppm: u32| format!("{} %", f64::from(ppm) / 1e4);
    let facts = [
        ("has another clock", megahertz(before.hz), megahertz(now.hz), ["clock.tsc"]),
        (
            "accepts another deviation of its clock",
            parts(before.tolerance_ppm),
            parts(now.tolerance_ppm),
            ["clock.tolerance"],
        ),
        (
            "vouches for its clock otherwise",
            before.vouched.to_string(),
            now.vouched.to_string(),
            ["clock.vouched"],
        ),
        (
            "accepts clocks of two cores further or less far apart",
            duration_text(before.skew, before.hz),
            duration_text(now.skew, now.hz),
            ["clock.skew"],
        ),
        (
            "takes another time for a switch",
            duration_text(before.switch_budget, before.hz),
            duration_text(now.switch_budget, now.hz),
            ["clock.switch-budget"],
        ),
    ];
    for (what, before, now, paths) in facts {
        fact(both, &Fact { subject: "board", what, before, now, paths: &paths });
    }
}

/// What cleaning at a switch takes on the board.
fn hygiene(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan, both.new.plan);
    let (before, now) = (old.board.hygiene, new.board.hygiene);
    let costs = [
        (L1D_FLUSH, before.l1d_flush, now.l1d_flush),
        (BRANCH_BARRIER, before.branch_barrier, now.branch_barrier),
        (BUFFER_CLEAR, before.buffer_clear, now.buffer_clear),
    ];
    for (name, before, now) in costs {
        let text = |ticks, hz| match ticks {
            0 => "not offered".to_owned(),
            ticks => duration_text(ticks, hz),
        };
        let what = format!("takes another time for {name}");
        let (before, now) = (text(before, old.tsc_hz()), text(now, new.tsc_hz()));
        let path = format!("hygiene.{name}");
        let paths = [path.as_str(), "hygiene"];
        fact(both, &Fact { subject: "board", what: &what, before, now, paths: &paths });
    }
}

/// What the board file says around the cores: memory that firmware keeps, abilities, timers, interrupts, devices.
fn surroundings(both: &mut Both<'_>) {
    let entries = |side: &Side<'_>| surroundings::entries(&side.places.board());
    let (old, new) = (entries(&both.old), entries(&both.new));
    let named = |entries: &[Entry], name: &str| entries.iter().position(|one| one.name == name);
    for before in &old {
        let Some(now) = named(&new, &before.name).and_then(|index| new.get(index)) else {
            let sentence = format!("describes {} no longer", before.name);
            both.tell_at(Gravity::Machine, "board", sentence, (Some(before.place), None));
            continue;
        };
        let changes = said_otherwise(before, now);
        if !changes.is_empty() {
            let sentence = format!("describes {} otherwise: {}", before.name, changes.join("; "));
            let places = (Some(before.place), Some(now.place));
            both.tell_at(Gravity::Machine, "board", sentence, places);
        }
    }
    for now in new.iter().filter(|now| named(&old, &now.name).is_none()) {
        let sentence = format!("describes {} anew", now.name);
        both.tell_at(Gravity::Machine, "board", sentence, (None, Some(now.place)));
    }
}

/// `id 8086:7113 -> 8086:7114`; of a list only what it loses and gains.
fn said_otherwise(before: &Entry, now: &Entry) -> Vec<String> {
    let of = |entry: &Entry, key: &str| {
        let found = entry.said.iter().find(|(name, _)| *name == key);
        found.map_or_else(Vec::new, |(_, texts)| texts.clone())
    };
    let mut keys: Vec<&str> = before.said.iter().map(|(key, _)| *key).collect();
    keys.extend(now.said.iter().map(|(key, _)| *key).filter(|key| of(before, key).is_empty()));
    let mut changes = Vec::new();
    for key in keys {
        let (earlier, later) = (of(before, key), of(now, key));
        let only = |of: &[String], other: &[String]| {
            of.iter().filter(|text| !other.contains(text)).cloned().collect::<Vec<_>>().join(", ")
        };
        let (lost, gained) = (only(&earlier, &later), only(&later, &earlier));
        let some = |text: String| if text.is_empty() { "not said".to_owned() } else { text };
        match (earlier.len(), later.len()) {
            _ if lost.is_empty() && gained.is_empty() && earlier.len() == later.len() => {}
            (0 | 1, 0 | 1) => changes.push(format!("{key} {} -> {}", some(lost), some(gained))),
            _ if gained.is_empty() => changes.push(format!("{key} without {}", some(lost))),
            _ if lost.is_empty() => changes.push(format!("{key} with {gained} too")),
            _ => changes.push(format!("{key} with {gained} instead of {lost}")),
        }
    }
    changes
}

/// Who owns frequency, turbo and idle states.
fn power(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan.board.power, both.new.plan.board.power);
    let facts = [
        ("has its turbo otherwise", "off", old.turbo_off, new.turbo_off, "power.turbo"),
        (
            "has its frequency otherwise",
            "held",
            old.base_frequency,
            new.base_frequency,
            "power.frequency",
        ),
        ("has its idle states otherwise", "C1 only", old.c1_only, new.c1_only, "power.idle"),
    ];
    for (what, ours, before, now, path) in facts {
        let text = |own: bool| if own { ours } else { "as firmware left it" }.to_owned();
        let (before, now) = (text(before), text(now));
        fact(both, &Fact { subject: "board", what, before, now, paths: &[path, "power"] });
    }
}

fn log(both: &mut Both<'_>) {
    let text = |plan: &Plan| if plan.log_windows { "yes" } else { "no" }.to_owned();
    let (before, now) = (text(both.old.plan), text(both.new.plan));
    let paths = ["log.windows", "log"];
    fact(
        both,
        &Fact { subject: "log", what: "tells each window that ran", before, now, paths: &paths },
    );
}

fn limits(both: &mut Both<'_>) {
    let text = |plan: &Plan| {
        limits::text(&plan.limits, plan.tsc_hz()).unwrap_or_else(|| "none".to_owned())
    };
    let (before, now) = (text(both.old.plan), text(both.new.plan));
    let what = "are others, to which the bench holds its figures";
    fact(both, &Fact { subject: "limits", what, before, now, paths: &["limits"] });
}

/// What the hypervisor keeps for itself.
fn own(both: &mut Both<'_>) {
    let (old, new) = (&both.old.plan.board, &both.new.plan.board);
    let off = |off: &Option<(u16, Vec<u8>)>| match off {
        None => "none, it halts".to_owned(),
        Some((port, bytes)) => format!("{} to port {port:#x}", bytes.escape_ascii()),
    };
    let facts = [
        (
            "keeps other memory",
            range_text(&old.hypervisor),
            range_text(&new.hypervisor),
            "hypervisor",
        ),
        ("logs through another line", serial_text(old.uart), serial_text(new.uart), "serial"),
        ("switches off otherwise", off(&old.power_off), off(&new.power_off), "power-off"),
    ];
    for (what, before, now, path) in facts {
        fact(both, &Fact { subject: "hypervisor", what, before, now, paths: &[path] });
    }
}

fn shutdown(both: &mut Both<'_>) {
    let names = |plan: &Plan| {
        let mut names: Vec<String> =
            plan.when_finished().iter().map(|id| plan.name_of(*id).to_owned()).collect();
        names.sort();
        match names.is_empty() {
            true => "never by itself".to_owned(),
            false => format!("with {}", names.join(", ")),
        }
    };
    let latest = |plan: &Plan| match plan.at_latest() {
        Some(ticks) => format!("after {}", duration_text(ticks, plan.tsc_hz())),
        None => "no limit".to_owned(),
    };
    let (old, new) = (both.old.plan, both.new.plan);
    let facts = [
        ("comes otherwise", names(old), names(new), "shutdown.when-finished"),
        ("comes at another time at the latest", latest(old), latest(new), "shutdown.at-latest"),
    ];
    for (what, before, now, path) in facts {
        if before != now {
            let sentence = format!("{what}: {before} -> {now}");
            both.tell(Gravity::End, "shutdown", sentence, &[path, "shutdown"]);
        }
    }
}
