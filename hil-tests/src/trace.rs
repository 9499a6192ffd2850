//! What the log says that ran, held against the plan: where, when, who, and that nothing is missing.

use std::collections::BTreeMap;

use bulkhead::report::RanWindow;
use bulkhead::{Report, gantt};
use bulkhead_config::{Plan, PlannedPartition, PlannedRole};
use bulkhead_table::{Owner, Window};

/// Most ticks from the end of a window to the instant when its owner was left: an exit that was under way, and the one that ends
/// the window. Seen: 240, behind a call about plans; 385 while the console still took a few bytes at the edge.
const LEFT: u64 = 300;

/// Windows that a core keeps for the log.
const KEPT: usize = 256;

/// Each frame has one plan on all cores; whoever ran, did so within a declared window of its own, or of one who donates to it and had it
/// before; within what the log kept every window has run. An owner may be absent for so many windows in a row as `sleepers` says
/// of it, and for good once it has passed.
#[must_use]
pub fn check_trace(report: &Report, plan: &Plan, sleepers: &[(&str, usize)]) -> Vec<String> {
    let judge = Judge { report, plan, sleepers };
    let cores = plan.cores().iter().filter(|core| matches!(core.role, PlannedRole::Shared(_)));
    let mut complaints = judge.frames();
    for core in cores {
        let records: Vec<&RanWindow> =
            report.trace.iter().filter(|ran| ran.cpu == core.cpu).collect();
        if records.is_empty() {
            complaints.push(format!("the log tells of no window on core {}", core.cpu));
        }
        complaints.extend(judge.records(&records));
        complaints.extend(judge.missing(core.cpu, &records));
        complaints.extend(judge.counted(core.cpu, &records));
    }
    complaints
}

struct Judge<'a> {
    report: &'a Report,
    plan: &'a Plan,
    sleepers: &'a [(&'a str, usize)],
}

impl Judge<'_> {
    /// One plan in each frame.
    fn frames(&self) -> Vec<String> {
        let plans = self.plans();
        let other = |ran: &&RanWindow| plans.get(&ran.frame) != Some(&ran.plan);
        let split = self.report.trace.iter().filter(other);
        split.map(|ran| format!("a frame with two plans: {ran:?}")).collect()
    }

    /// By frame, the plan that the log shows first.
    fn plans(&self) -> BTreeMap<u64, u16> {
        let mut plans = BTreeMap::new();
        for ran in &self.report.trace {
            plans.entry(ran.frame).or_insert(ran.plan);
        }
        plans
    }

    /// What each record of a core says, in their order.
    fn records(&self, records: &[&RanWindow]) -> Vec<String> {
        let before = std::iter::once(None).chain(records.iter().copied().map(Some));
        let pairs = before.zip(records.iter().copied());
        pairs.flat_map(|(before, ran)| self.record(before, ran)).collect()
    }

    fn record(&self, before: Option<&RanWindow>, ran: &RanWindow) -> Vec<String> {
        let Some(window) = gantt::declared(self.plan, ran) else {
            return vec![format!("there is no such window: {ran:?}")];
        };
        let epoch = self.report.boot.epoch.unwrap_or(0);
        let start = epoch + ran.frame * self.plan.frame() + window.start;
        let end = start + window.length;
        let mut complaints = Vec::new();
        if ran.entered < start || ran.left > end + LEFT {
            complaints.push(format!("not in {start} to {end}: {ran:?}"));
        }
        if before.is_some_and(|before| before.left > ran.entered) {
            complaints.push(format!("two at once: {before:?} and {ran:?}"));
        }
        if ran.ran.as_deref() != self.owner(&window) && !self.is_gift(before, ran, &window) {
            let owner = self.owner(&window).unwrap_or("housekeeping");
            complaints.push(format!("this is a window of {owner}: {ran:?}"));
        }
        complaints
    }

    /// Name of a window's owner; `None`: housekeeping.
    fn owner(&self, window: &Window) -> Option<&str> {
        self.owning(window).map(|partition| partition.name.as_str())
    }

    fn owning(&self, window: &Window) -> Option<&PlannedPartition> {
        match window.owner {
            Owner::Housekeeping => None,
            Owner::Partition(id) => self.plan.partitions().get(usize::from(id)),
        }
    }

    /// Whether the owner, who had the window before, may have given it to who ran.
    fn is_gift(&self, before: Option<&RanWindow>, ran: &RanWindow, window: &Window) -> bool {
        let receiver = self.owning(window).and_then(|owner| owner.donates_to);
        let receiver = receiver.and_then(|id| self.plan.partitions().get(usize::from(id)));
        let had = |before: &RanWindow| {
            place(before) == place(ran) && before.ran.as_deref() == self.owner(window)
        };
        receiver.is_some_and(|to| Some(to.name.as_str()) == ran.ran.as_deref())
            && before.is_some_and(had)
    }

    /// Windows between a core's first record and its last in which nobody ran and somebody should have.
    fn missing(&self, cpu: u16, records: &[&RanWindow]) -> Vec<String> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Vec::new();
        };
        let plans = self.plans();
        let mut absent: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        let mut complaints = Vec::new();
        for frame in first.frame..=last.frame {
            let plan = plans.get(&frame).copied().unwrap_or(0);
            for (number, window) in self.windows(cpu, plan).iter().enumerate() {
                let here = (frame, number);
                if here < place(first) || here > place(last) {
                    continue;
                }
                let owner = self.owner(window);
                let row = absent.entry(owner).or_default();
                if records.iter().all(|ran| place(ran) != here) {
                    *row += 1;
                    continue;
                }
                if *row > self.may_miss(owner) {
                    let owner = owner.unwrap_or("housekeeping");
                    complaints.push(format!(
                        "core {cpu}: {owner} had none of {row} windows before {here:?}"
                    ));
                }
                *row = 0;
            }
        }
        let gone = absent.into_iter().filter(|(owner, row)| *row > 0 && !self.has_passed(*owner));
        complaints.extend(gone.map(|(owner, row)| {
            let owner = owner.unwrap_or("housekeeping");
            format!("core {cpu}: {owner} had none of the last {row} windows")
        }));
        complaints
    }

    fn windows(&self, cpu: u16, plan: u16) -> &[Window] {
        let core = self.plan.cores().iter().find(|core| core.cpu == cpu);
        match core.map(|core| &core.role) {
            Some(PlannedRole::Shared(plans)) => {
                plans.get(usize::from(plan)).map_or(&[], Vec::as_slice)
            }
            _ => &[],
        }
    }

    fn may_miss(&self, owner: Option<&str>) -> usize {
        let sleeper = self.sleepers.iter().find(|(name, _)| Some(*name) == owner);
        sleeper.map_or(0, |(_, most)| *most)
    }

    fn has_passed(&self, owner: Option<&str>) -> bool {
        let partition = owner.and_then(|name| self.report.partition(name));
        partition.is_some_and(|partition| partition.fate == "passed")
    }

    /// Where the log kept everything of a core: as many windows as the hypervisor counted. The one in which the run ends may lack.
    fn counted(&self, cpu: u16, records: &[&RanWindow]) -> Vec<String> {
        if records.len() >= KEPT {
            return Vec::new();
        }
        let owners = self.report.partitions.iter().filter(|partition| partition.cpus == [cpu]);
        let compare = |partition: &bulkhead::report::Partition| {
            let own = |ran: &&&RanWindow| {
                let window = gantt::declared(self.plan, ran);
                let owner = window.as_ref().and_then(|window| self.owner(window));
                owner == Some(partition.name.as_str()) && ran.ran.as_deref() == owner
            };
            let told = records.iter().filter(own).count() as u64;
            let run = partition.windows.map_or(0, |windows| windows.run);
            (run != told && run != told + 1).then(|| {
                let name = &partition.name;
                format!("the log tells of {told} windows of {name}, which had {run}")
            })
        };
        owners.filter_map(compare).collect()
    }
}

/// Frame and number of the window.
fn place(ran: &RanWindow) -> (u64, usize) {
    (ran.frame, usize::from(ran.window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead::report::{Boot, Partition, Windows};

    const EPOCH: u64 = 1_000;
    const FRAMES: u64 = 6;

    fn plan() -> Plan {
        let system = crate::bench::root().join("hil-tests/systems/plans.toml");
        bulkhead::compile::plan(&system).unwrap()
    }

    /// A run in which every window ran as declared, in the first plan.
    fn whole(plan: &Plan) -> Report {
        let mut report =
            Report { boot: Boot { epoch: Some(EPOCH), ..Boot::default() }, ..Report::default() };
        for core in plan.cores() {
            let PlannedRole::Shared(plans) = &core.role else { continue };
            for frame in 0..FRAMES {
                for (number, window) in plans[0].iter().enumerate() {
                    let entered = EPOCH + frame * plan.frame() + window.start;
                    let ran = match window.owner {
                        Owner::Housekeeping => None,
                        Owner::Partition(id) => {
                            Some(plan.partitions()[usize::from(id)].name.clone())
                        }
                    };
                    report.trace.push(RanWindow {
                        cpu: core.cpu,
                        frame,
                        window: number as u16,
                        ran,
                        entered,
                        left: entered + window.length,
                        ..RanWindow::default()
                    });
                }
            }
        }
        for partition in plan.partitions() {
            report.partitions.push(Partition {
                name: partition.name.clone(),
                cpus: partition.cpus.clone(),
                fate: "running".into(),
                windows: Some(Windows { run: FRAMES, ..Windows::default() }),
                ..Partition::default()
            });
        }
        report
    }

    /// Where the window of this owner in this frame stands in the trace.
    fn at(report: &Report, owner: &str, frame: u64) -> usize {
        let here = |ran: &RanWindow| ran.frame == frame && ran.ran.as_deref() == Some(owner);
        report.trace.iter().position(here).unwrap()
    }

    fn complaints(change: impl FnOnce(&mut Report)) -> String {
        let plan = plan();
        let mut report = whole(&plan);
        change(&mut report);
        check_trace(&report, &plan, &[("sleep", 2)]).join("\n")
    }

    #[test]
    fn a_run_as_declared_has_no_complaint() {
        assert_eq!(complaints(|_| ()), "");
    }

    #[test]
    fn another_who_runs_is_seen() {
        let seen = complaints(|report| {
            let place = at(report, "watch-one", 2);
            report.trace[place].ran = Some("take".into());
        });
        assert!(seen.contains("this is a window of watch-one"), "{seen}");
        let seen = complaints(|report| {
            let place = at(report, "ask", 2);
            report.trace[place].ran = None;
        });
        assert!(seen.contains("this is a window of ask"), "{seen}");
    }

    /// `give` may give to `take`, once it had the window itself, and to nobody else.
    #[test]
    fn a_gift_is_none_without_its_giver() {
        let give = |receiver: &'static str, given: bool| {
            complaints(move |report| {
                let place = at(report, "give", 2);
                let middle = report.trace[place].entered + 500;
                let gift = RanWindow {
                    ran: Some(receiver.into()),
                    entered: middle,
                    ..report.trace[place].clone()
                };
                report.trace[place].left = middle;
                if given {
                    report.trace.insert(place + 1, gift);
                } else {
                    report.trace[place] = gift;
                }
            })
        };
        assert_eq!(give("take", true), "");
        assert!(give("watch-one", true).contains("this is a window of give"));
        assert!(give("take", false).contains("this is a window of give"));
    }

    #[test]
    fn a_window_that_lacks_is_seen() {
        let without = |owner: &'static str, frames: std::ops::Range<u64>, passed: bool| {
            complaints(move |report| {
                for frame in frames.clone() {
                    let place = at(report, owner, frame);
                    report.trace.remove(place);
                }
                let partition = report.partitions.iter_mut().find(|it| it.name == owner).unwrap();
                partition.windows.as_mut().unwrap().run -= frames.end - frames.start;
                if passed {
                    partition.fate = "passed".into();
                }
            })
        };
        assert!(without("watch-two", 2..3, true).contains("watch-two had none of 1 windows"));
        assert_eq!(without("sleep", 2..4, false), "");
        assert!(without("sleep", 1..4, false).contains("sleep had none of 3 windows"));
        assert_eq!(without("ask", 3..FRAMES, true), "");
        assert!(without("ask", 3..FRAMES, false).contains("ask had none of the last 3 windows"));
    }

    #[test]
    fn a_record_that_lacks_is_seen() {
        let seen = complaints(|report| report.partitions[0].windows.as_mut().unwrap().run += 2);
        assert!(seen.contains("the log tells of 6 windows of ask, which had 8"), "{seen}");
    }

    #[test]
    fn times_and_plans_are_held_against_the_file() {
        let late = |change: fn(&mut RanWindow)| {
            complaints(move |report| {
                let place = at(report, "watch-one", 3);
                change(&mut report.trace[place]);
            })
        };
        assert!(late(|ran| ran.entered -= 1).contains("not in"));
        assert_eq!(late(|ran| ran.left += LEFT), "");
        assert!(late(|ran| ran.left += LEFT + 1).contains("not in"));
        assert!(late(|ran| ran.left += 5_000).contains("two at once"));
        assert!(late(|ran| ran.plan = 1).contains("a frame with two plans"));
        assert!(late(|ran| ran.window = 9).contains("there is no such window"));
    }

    #[test]
    fn a_silent_core_is_seen() {
        let seen = complaints(|report| report.trace.retain(|ran| ran.cpu != 2));
        assert!(seen.contains("no window on core 2"), "{seen}");
    }
}
