//! The plans of a system: their names, the plans in which each window stands, and who is off in which.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_table::{MAX_PLANS, PartitionId, PlanId};

use crate::cores::{Role, windows_are_placed};
use crate::diagnostics::{Finding, Findings};
use crate::reader::{closest, list, shorten};
use crate::rules::Rule;
use crate::schema::{Partition, SystemFile, Window};
use crate::source::{At, Place};

/// Name of the plan of a file that names none.
const ONLY_PLAN: &str = "normal";

/// A list of plans as a file names them.
type Names = At<Vec<At<String>>>;

/// The plans, by the order of `[schedule] plans`.
pub(crate) struct Plans {
    /// Never empty; the system starts in the first.
    pub names: Vec<String>,
    /// Windows by their place: the plans in which each stands, ascending. What was refused is missing.
    windows: BTreeMap<Place, Vec<PlanId>>,
    /// Partitions whose lists of plans are all sound.
    sound: Vec<bool>,
    /// By partition: the plans in which it is off.
    off: Vec<BTreeSet<PlanId>>,
}

impl Plans {
    /// The plans in which a window stands.
    pub fn of(&self, window: &Window) -> &[PlanId] {
        self.windows.get(&window.place).map_or(&[], Vec::as_slice)
    }

    /// The plans by number.
    pub fn ids(&self) -> impl Iterator<Item = PlanId> + use<> {
        (0..self.names.len()).filter_map(|id| PlanId::try_from(id).ok())
    }

    /// ` in plan NAME` where there are several; nothing where there is only one.
    pub fn phrase(&self, plan: PlanId) -> String {
        match self.names.get(usize::from(plan)) {
            Some(name) if self.names.len() > 1 => format!(" in plan `{name}`"),
            _ => String::new(),
        }
    }
}

/// Checks every list of plans, and that each plan can come.
pub(crate) fn check(system: &SystemFile, findings: &mut Findings) -> Plans {
    let declared = system.schedule.as_ref().and_then(|schedule| schedule.plans.as_ref());
    let names = declared.map(|plans| plan_names(plans, findings));
    let names =
        names.filter(|names| !names.is_empty()).unwrap_or_else(|| vec![ONLY_PLAN.to_owned()]);
    let ids: BTreeMap<&str, PlanId> = names.iter().map(String::as_str).zip(0..).collect();
    let lists = Lists { ids: &ids, all: ids.values().copied().collect() };
    let mut plans = Plans {
        names: names.clone(),
        windows: BTreeMap::new(),
        sound: Vec::new(),
        off: Vec::new(),
    };
    for partition in &system.partitions {
        let off = lists.off(partition, findings);
        let mut sound = off.is_some();
        let off = off.unwrap_or_default();
        for window in partition.windows.iter().flat_map(|windows| &windows.value) {
            let stands = lists.window(window, &off, partition, findings);
            sound &= stands.is_some();
            plans.windows.insert(window.place, stands.unwrap_or_default());
        }
        plans.sound.push(sound);
        plans.off.push(off);
    }
    let housekeeping = system.housekeeping.iter().filter_map(|own| own.windows.as_ref());
    for window in housekeeping.flat_map(|windows| &windows.value) {
        let stands = match &window.plans {
            None => Some(lists.all.clone()),
            Some(written) => lists.resolve(written, findings),
        };
        plans.windows.insert(window.place, stands.into_iter().flatten().collect());
    }
    switch_rights(system, declared.filter(|_| names.len() > 1), findings);
    plans
}

fn plan_names(plans: &Names, findings: &mut Findings) -> Vec<String> {
    not_empty(plans, "name the plans, or take the key out: there is one then", findings);
    once(plans, findings);
    if let Some(first_too_many) = plans.value.get(MAX_PLANS) {
        let message = format!("the system has {} plans", plans.value.len());
        let finding = Finding::new(
            Rule::TooManyPlans,
            message,
            format!("name {MAX_PLANS} at most: the table holds no more"),
        );
        findings.push(finding.at(first_too_many.place, format!("number {}", MAX_PLANS + 1)));
    }
    let mut seen = BTreeSet::new();
    let names = plans.value.iter().map(|name| name.value.clone());
    names.filter(|name| seen.insert(name.clone())).collect()
}

fn not_empty(plans: &Names, remedy: &str, findings: &mut Findings) -> bool {
    if plans.value.is_empty() {
        let finding = Finding::new(Rule::PlanListEmpty, "a list of plans is empty", remedy);
        findings.push(finding.at(plans.place, "no plan in it"));
    }
    !plans.value.is_empty()
}

fn once(plans: &Names, findings: &mut Findings) {
    for (first, again) in findings.comparisons.repeated(&plans.value, |plan| plan.value.as_str()) {
        let message = format!("the plan `{}` is named twice", shorten(&again.value));
        let finding = Finding::new(Rule::PlanTwice, message, "take one of them out");
        findings.push(finding.at(again.place, "again here").with(first.place, "first here"));
    }
}

/// What lists of plans are read against.
struct Lists<'p> {
    ids: &'p BTreeMap<&'p str, PlanId>,
    all: BTreeSet<PlanId>,
}

impl Lists<'_> {
    /// The plans that a list names; `None` when one is unknown or there is none.
    fn resolve(&self, plans: &Names, findings: &mut Findings) -> Option<BTreeSet<PlanId>> {
        once(plans, findings);
        if !not_empty(plans, "name a plan, or take the key out: it then counts in each", findings) {
            return None;
        }
        let ids: Vec<_> = plans.value.iter().map(|name| self.plan(name, findings)).collect();
        ids.into_iter().collect()
    }

    fn plan(&self, name: &At<String>, findings: &mut Findings) -> Option<PlanId> {
        if let Some(id) = self.ids.get(name.value.as_str()) {
            return Some(*id);
        }
        let known: Vec<_> = self.ids.keys().copied().collect();
        let remedy = match closest(&name.value, &known) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("name one of {}, or add it to `[schedule] plans`", list(&known)),
        };
        let message = format!("there is no plan `{}`", shorten(&name.value));
        let finding = Finding::new(Rule::PlanUnknown, message, remedy);
        findings.push(finding.at(name.place, "unknown plan"));
        None
    }

    /// The plans in which a partition is off; `None` when its list is not sound.
    fn off(&self, partition: &Partition, findings: &mut Findings) -> Option<BTreeSet<PlanId>> {
        let Some(written) = &partition.off_in else {
            return Some(BTreeSet::new());
        };
        let name = &partition.name.value;
        if partition.windows.is_none() {
            let finding = Finding::new(
                Rule::OffWithoutWindows,
                format!("`{name}` has its cores for itself and runs in every plan"),
                "take `off-in` out, or give the partition windows",
            );
            findings.push(finding.at(written.place, "does nothing"));
        }
        let off = self.resolve(written, findings)?;
        if off == self.all {
            let finding = Finding::new(
                Rule::AlwaysOff,
                format!("`{name}` is off in every plan"),
                "leave out a plan in which it runs, or take the partition out",
            );
            findings.push(finding.at(written.place, "names every plan"));
            return None;
        }
        Some(off)
    }

    /// The plans in which a window of a partition stands: those it names, else all in which the partition is on.
    fn window(
        &self,
        window: &Window,
        off: &BTreeSet<PlanId>,
        partition: &Partition,
        findings: &mut Findings,
    ) -> Option<Vec<PlanId>> {
        let Some(written) = &window.plans else {
            return Some(self.all.difference(off).copied().collect());
        };
        let named = self.resolve(written, findings)?;
        let conflict = written
            .value
            .iter()
            .find(|plan| self.ids.get(plan.value.as_str()).is_some_and(|plan| off.contains(plan)));
        if let (Some(plan), Some(off_in)) = (conflict, &partition.off_in) {
            let (name, plan_name) = (&partition.name.value, &plan.value);
            let finding = Finding::new(
                Rule::WindowWhileOff,
                format!("`{name}` has a window in plan `{plan_name}`, in which it is off"),
                "take the plan out of the window's list, or out of `off-in`",
            );
            findings.push(
                finding.at(plan.place, "has a window").with(off_in.place, "says that it is off"),
            );
        }
        Some(named.into_iter().collect())
    }
}

/// A right to switch needs another plan, and another plan needs somebody who may switch to it.
fn switch_rights(system: &SystemFile, several: Option<&Names>, findings: &mut Findings) {
    let mut may_switch = false;
    for partition in &system.partitions {
        let Some(right) = partition.may_switch_plan.as_ref().filter(|right| right.value) else {
            continue;
        };
        may_switch = true;
        if several.is_none() {
            let name = &partition.name.value;
            let finding = Finding::new(
                Rule::SwitchAlone,
                format!("`{name}` may switch to another plan, and there is one plan only"),
                "take `may-switch-plan` out, or name the plans: `[schedule] plans = [...]`",
            );
            findings.push(finding.at(right.place, "does nothing"));
        }
    }
    if let Some(plans) = several.filter(|_| !may_switch) {
        let finding = Finding::new(
            Rule::PlanUnreachable,
            "no partition may switch to any plan but the first",
            "give a partition the right (`may-switch-plan = true`), or name one plan only",
        );
        findings.push(finding.at(plans.place, "only the first of these ever runs"));
    }
}

/// Donated time makes nobody run who is off: the receiver is on wherever the donor is.
pub(crate) fn receivers_are_on(
    system: &SystemFile,
    receivers: &[Option<PartitionId>],
    plans: &Plans,
    findings: &mut Findings,
) {
    let off = |id: usize| plans.off.get(id);
    for ((donor, receiver), number) in system.partitions.iter().zip(receivers).zip(0..) {
        let Some(receiver) = receiver.map(usize::from) else { continue };
        let (Some(written), Some(partition)) = (&donor.donates_to, system.partitions.get(receiver))
        else {
            continue;
        };
        let (Some(idle), Some(donor_off)) = (off(receiver), off(number)) else { continue };
        let Some(plan) = idle.difference(donor_off).next() else { continue };
        let plan_name = plans.names.get(usize::from(*plan)).map_or("", String::as_str);
        let finding = Finding::new(
            Rule::ReceiverOff,
            format!(
                "`{}` donates to `{}`, which is off in plan `{plan_name}`",
                donor.name.value, partition.name.value
            ),
            "name a receiver that is on wherever the donor is: who is off does not run in donated time either",
        )
        .at(written.place, "the receiver");
        findings.push(match &partition.off_in {
            Some(off_in) => finding.with(off_in.place, "off here"),
            None => finding,
        });
    }
}

/// Each partition of a time-shared core has a window there in each plan, or says that it is off; housekeeping has one in
/// each plan; and so each core has one.
pub(crate) fn covered(
    system: &SystemFile,
    roles: &BTreeMap<u64, Role<'_>>,
    plans: &Plans,
    findings: &mut Findings,
) {
    for (core, role) in roles {
        let Role::Shared(shares) = role else { continue };
        let mut on = BTreeSet::new();
        for share in shares {
            let stands: BTreeSet<PlanId> =
                share.windows.iter().flat_map(|window| plans.of(window)).copied().collect();
            match share.partition() {
                Some(id) => partition_covered(system, *core, id, &stands, plans, findings),
                None => housekeeping_covered(share.place, &stands, plans, findings),
            }
            on.extend(stands);
        }
        let reported = shares.iter().any(|share| match share.partition() {
            Some(id) => plans.sound.get(usize::from(id)) != Some(&true) || share.windows.is_empty(),
            None => true,
        });
        for plan in plans.ids().filter(|plan| !on.contains(plan) && !reported) {
            let finding = Finding::new(
                Rule::CoreWithoutWindow,
                format!("core {core} has no window{}", plans.phrase(plan)),
                "give a partition a window there, or housekeeping: a core whose plan is empty would not notice the next change of plan",
            );
            let place = shares.first().map_or(system.place, |share| share.place);
            findings.push(finding.at(place, "everybody on this core is off"));
        }
    }
}

fn partition_covered(
    system: &SystemFile,
    core: u64,
    id: u16,
    stands: &BTreeSet<PlanId>,
    plans: &Plans,
    findings: &mut Findings,
) {
    let number = usize::from(id);
    let (Some(partition), Some(off)) = (system.partitions.get(number), plans.off.get(number))
    else {
        return;
    };
    let Some(windows) = partition.windows.as_ref().filter(|windows| !windows.value.is_empty())
    else {
        return;
    };
    if plans.sound.get(number) != Some(&true) || !windows_are_placed(partition) {
        return;
    }
    let name = &partition.name.value;
    for plan in plans.ids().filter(|plan| !stands.contains(plan) && !off.contains(plan)) {
        let plan_name = plans.names.get(usize::from(plan)).map_or("", String::as_str);
        let finding = Finding::new(
            Rule::WindowMissing,
            format!("`{name}` has no window on core {core}{}", plans.phrase(plan)),
            format!(
                "give it one there, or say that the partition is off: `off-in = [\"{plan_name}\"]`"
            ),
        );
        findings.push(finding.at(partition.name.place, "runs in windows").with(
            windows.value.first().map_or(windows.place, |window| window.place),
            "its windows begin here",
        ));
    }
}

fn housekeeping_covered(
    place: Place,
    stands: &BTreeSet<PlanId>,
    plans: &Plans,
    findings: &mut Findings,
) {
    for plan in plans.ids().filter(|plan| !stands.is_empty() && !stands.contains(plan)) {
        let finding = Finding::new(
            Rule::HousekeepingOff,
            format!("nobody drains the logs{}", plans.phrase(plan)),
            "give housekeeping a window in each plan; a window without `plans` stands in all of them",
        );
        findings.push(finding.at(place, "housekeeping's core"));
    }
}
