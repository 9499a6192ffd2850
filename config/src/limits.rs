//! `[limits]`: what the bench holds its figures to. Nothing of it reaches the hypervisor.

use crate::cores::Role;
use crate::diagnostics::{Finding, Findings};
use crate::reader::ticks;
use crate::rules::Rule;
use crate::schema::{Limits, SystemFile};
use crate::source::{At, Place, Sources};
use crate::units::{Quantity, duration_text};

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// How late the timers of tasks on dedicated cores wake them.
    Timer,
    /// How far behind their declared starts windows begin, as the guest sees it.
    Window,
    /// Ticks of a switch between partitions.
    Switch,
    /// Exits a second in the measured spans on dedicated cores.
    ExitsPerSecond,
}

/// A limit of the system file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it is on.
    pub on: Limited,
    /// The key as the file has it: `timer.p99_999`.
    pub key: String,
    /// Which value of the distribution, as reports name it: `p99_999`, `max`. For single figures `max`.
    pub statistic: String,
    /// The most that passes: ticks, or a number.
    pub most: u64,
    /// Where the file sets it: `demo.toml:23`.
    pub place: String,
}

impl Limit {
    /// The most that passes, for people; `hz` is the clock's frequency.
    #[must_use]
    pub fn most_text(&self, hz: u64) -> String {
        match self.on {
            Limited::ExitsPerSecond => self.most.to_string(),
            _ => duration_text(self.most, hz),
        }
    }
}

/// All limits of a system in one line; `None` when there are none.
pub(crate) fn text(limits: &[Limit], hz: u64) -> Option<String> {
    let each: Vec<_> =
        limits.iter().map(|limit| format!("{} {}", limit.key, limit.most_text(hz))).collect();
    (!each.is_empty()).then(|| each.join(", "))
}

/// A limit as it is written, before its unit is looked at.
struct Written<'f> {
    on: Limited,
    key: String,
    statistic: &'static str,
    value: Value<'f>,
    place: Place,
}

enum Value<'f> {
    Time(&'f At<Quantity>),
    Number(u64),
}

/// Reads the limits, and refuses those on what the system does not have.
pub(crate) fn check<'r>(
    system: &SystemFile,
    roles: impl Iterator<Item = &'r Role<'r>>,
    hz: Option<u64>,
    sources: &Sources,
    findings: &mut Findings,
) -> Vec<Limit> {
    let Some(limits) = &system.limits else {
        return Vec::new();
    };
    let (mut dedicated, mut shared) = (false, false);
    for role in roles {
        dedicated |= matches!(role, Role::Dedicated(_));
        shared |= matches!(role, Role::Shared(_));
    }
    let written = written(limits);
    if limits.is_empty {
        let finding = Finding::new(
            Rule::LimitsEmpty,
            "`[limits]` limits nothing",
            "set a limit, such as `timer.max = \"5 us\"`, or take the section out",
        );
        findings.push(finding.at(limits.place, "empty"));
    }
    let mut out = Vec::new();
    for limit in written {
        let is_there = match limit.on {
            Limited::Timer | Limited::ExitsPerSecond => dedicated,
            Limited::Window | Limited::Switch => shared,
        };
        if !is_there {
            findings.push(on_nothing(&limit));
        }
        let most = match limit.value {
            Value::Number(number) => Some(number),
            Value::Time(time) => hz.and_then(|hz| ticks(time, &limit.key, hz, findings)),
        };
        out.extend(most.map(|most| Limit {
            on: limit.on,
            key: limit.key,
            statistic: limit.statistic.to_owned(),
            most,
            place: sources.name_and_line(limit.place),
        }));
    }
    out
}

/// Every limit that is set.
fn written(limits: &Limits) -> Vec<Written<'_>> {
    let mut out = Vec::new();
    let distributions =
        [(Limited::Timer, "timer", &limits.timer), (Limited::Window, "window", &limits.window)];
    for (on, name, of) in distributions {
        for (statistic, time) in of {
            let key = format!("{name}.{statistic}");
            out.push(Written { on, key, statistic, value: Value::Time(time), place: time.place });
        }
    }
    if let Some(time) = &limits.switch {
        let (key, value) = ("switch".to_owned(), Value::Time(time));
        out.push(Written { on: Limited::Switch, key, statistic: "max", value, place: time.place });
    }
    if let Some(number) = &limits.exits_per_second {
        out.push(Written {
            on: Limited::ExitsPerSecond,
            key: "exits_per_second".to_owned(),
            statistic: "max",
            value: Value::Number(number.value),
            place: number.place,
        });
    }
    out
}

fn on_nothing(limit: &Written<'_>) -> Finding {
    let (what, core) = match limit.on {
        Limited::Timer | Limited::ExitsPerSecond => ("dedicated", "a partition without windows"),
        Limited::Window | Limited::Switch => ("time-shared", "windows"),
    };
    Finding::new(
        Rule::LimitOnNothing,
        format!("`{}` limits what this system does not have: no core is {what}", limit.key),
        format!("take the limit out, or give a core {core}"),
    )
    .at(limit.place, "nothing measures it")
}
