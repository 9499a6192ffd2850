//! Proves the time of the table: plans, windows, the switch budget, the log's share, donations, hygiene.

use bulkhead_table::{Hygiene, MAX_PLANS, MAX_WINDOWS, Owner, PartitionId, Window};

use crate::claims::unique;
use crate::model::{Core, Partition, Role, System};
use crate::proof::{Party, Proof};
use crate::rules::Rule;

/// Proves all of it.
pub(crate) fn prove(system: &System, proof: &mut Proof) {
    plans(system, proof);
    for core in &system.cores {
        for (plan, windows) in core.plans().iter().enumerate() {
            let line = Line { system, core, plan, windows };
            line.inside_frame(proof);
            line.apart(proof);
            line.edge(proof);
        }
    }
    housekeeping(system, proof);
    donations(system, proof);
    hygiene(system, proof);
}

fn plan_name(system: &System, plan: usize) -> String {
    match system.plans.get(plan) {
        Some(name) => format!("plan {name}"),
        None => format!("plan number {plan}, which there is not"),
    }
}

fn plans(system: &System, proof: &mut Proof) {
    let count = system.plans.len();
    proof.fact(Rule::Plan, (1..=MAX_PLANS).contains(&count), || {
        (format!("the table has {count} plans, and may have 1 to {MAX_PLANS}"), Vec::new())
    });
    let named = (0_usize..).zip(&system.plans);
    let party = |number| Party::thing(format!("plan number {number}"));
    unique(proof, Rule::Plan, "the name", named.map(|(number, name)| (name, party(number))));
    for core in system.cores.iter().filter(|core| matches!(core.role, Role::Shared(_))) {
        let lists = core.plans().len();
        proof.fact(Rule::Plan, lists == count, || {
            let message = format!("core {} has windows for {lists} plans of {count}", core.cpu);
            (message, vec![Party::thing(format!("core {}", core.cpu))])
        });
        let longest = core.plans().iter().map(Vec::len).max().unwrap_or(0);
        proof.fact(Rule::Plan, longest <= MAX_WINDOWS, || {
            let message = format!(
                "core {} has {longest} windows in a plan, of {MAX_WINDOWS} at most",
                core.cpu
            );
            (message, vec![Party::thing(format!("core {}", core.cpu))])
        });
    }
}

/// The windows of one core in one plan.
struct Line<'s> {
    system: &'s System,
    core: &'s Core,
    plan: usize,
    windows: &'s [Window],
}

fn end(window: &Window) -> u64 {
    window.start.saturating_add(window.length)
}

impl Line<'_> {
    fn place(&self) -> String {
        format!("core {}, {}", self.core.cpu, plan_name(self.system, self.plan))
    }

    fn party(&self, window: &Window) -> Party {
        self.system.owner(window.owner)
    }

    fn inside_frame(&self, proof: &mut Proof) {
        for window in self.windows {
            let behind = window.start.checked_add(window.length);
            let inside =
                window.length > 0 && behind.is_some_and(|behind| behind <= self.system.frame);
            proof.fact(Rule::InsideFrame, inside, || {
                let party = self.party(window);
                let message = format!(
                    "the window of {party} on {}, from tick {} for {}, is empty or leaves the frame of {} ticks",
                    self.place(),
                    window.start,
                    window.length,
                    self.system.frame
                );
                (message, vec![party])
            });
            let least = self.system.board.switch_budget;
            proof.fact(Rule::SwitchBudget, window.budget >= least, || {
                let party = self.party(window);
                let message = format!(
                    "the window of {party} at tick {} on {} is given {} ticks for the switch, and the board needs {least}",
                    window.start,
                    self.place(),
                    window.budget
                );
                (message, vec![party])
            });
        }
    }

    fn apart(&self, proof: &mut Proof) {
        for pair in self.windows.windows(2) {
            let [before, window] = pair else { continue };
            let gap = window.start.checked_sub(end(before));
            proof.fact(Rule::WindowsApart, gap.is_some(), || {
                let parties = vec![self.party(before), self.party(window)];
                let message = format!(
                    "ticks {}-{} on {} belong to {} and to {}",
                    window.start,
                    end(before).min(end(window)),
                    self.place(),
                    parties[0],
                    parties[1]
                );
                (message, parties)
            });
            if let Some(gap) = gap {
                self.budget_is_free(before, window, gap, proof);
            }
        }
    }

    /// From the last window of this plan's frame to the first of the next frame, in whatever plan that runs.
    fn edge(&self, proof: &mut Proof) {
        let Some(last) = self.windows.last() else { return };
        for next in self.core.plans() {
            let Some(first) = next.first() else { continue };
            let left = self.system.frame.saturating_sub(end(last));
            self.budget_is_free(last, first, left.saturating_add(first.start), proof);
        }
    }

    /// The switch from partition `from` to the owner of a window, `next`.
    fn cleaning_fits(
        &self,
        from: PartitionId,
        next: PartitionId,
        window: &Window,
        proof: &mut Proof,
    ) {
        let wanted = |id: PartitionId| {
            self.system.partitions.get(usize::from(id)).map_or([false; 3], |it| kinds(it.hygiene))
        };
        let (left, entered) = (wanted(from), wanted(next));
        let costs = &self.system.board.hygiene;
        let costs = [costs.l1d_flush, costs.branch_barrier, costs.buffer_clear];
        let cleaned = costs.iter().enumerate().filter(|(kind, _)| left[*kind] || entered[*kind]);
        let cleaning = if from == next {
            0
        } else {
            cleaned.map(|(_, cost)| cost).fold(0, |sum: u64, cost| sum.saturating_add(*cost))
        };
        let needed = self.system.board.switch_budget.saturating_add(cleaning);
        proof.fact(Rule::Hygiene, window.budget >= needed, || {
            let parties = vec![self.system.party(from), self.system.party(next)];
            let message = format!(
                "the switch from {} to {} on {}, at tick {}, needs {needed} ticks with its cleaning, and {} are kept",
                parties[0],
                parties[1],
                self.place(),
                window.start,
                window.budget
            );
            (message, parties)
        });
    }

    fn budget_is_free(&self, before: &Window, window: &Window, gap: u64, proof: &mut Proof) {
        proof.fact(Rule::SwitchBudget, gap >= window.budget, || {
            let parties = vec![self.party(before), self.party(window)];
            let message = format!(
                "{gap} ticks lie between the windows of {} and {} on {}, at tick {}, and the switch may take {}",
                parties[0],
                parties[1],
                self.place(),
                window.start,
                window.budget
            );
            (message, parties)
        });
    }
}

fn housekeeping(system: &System, proof: &mut Proof) {
    if system.cores.iter().any(|core| core.role == Role::Housekeeping) {
        proof.fact(Rule::Housekeeping, true, || (String::new(), Vec::new()));
        return;
    }
    for plan in 0..system.plans.len() {
        let drains = |core: &Core| {
            let windows = core.plans().get(plan).map_or(&[][..], Vec::as_slice);
            windows.iter().any(|window| window.owner == Owner::Housekeeping)
        };
        proof.fact(Rule::Housekeeping, system.cores.iter().any(drains), || {
            (format!("nobody drains the logs in {}", plan_name(system, plan)), Vec::new())
        });
    }
}

fn donations(system: &System, proof: &mut Proof) {
    for (id, partition) in (0_u16..).zip(&system.partitions) {
        let Some(receiver) = partition.donates_to else { continue };
        let found = system.partitions.get(usize::from(receiver)).filter(|_| receiver != id);
        let runs_there = |cpu: &u16, other: &Partition| {
            let core = system.core(*cpu);
            let shared = core.is_some_and(|core| matches!(core.role, Role::Shared(_)));
            shared && other.cpus.contains(cpu)
        };
        let meets =
            found.is_some_and(|other| partition.cpus.iter().all(|cpu| runs_there(cpu, other)));
        let parties = || vec![partition.party(), system.party(receiver)];
        proof.fact(Rule::Donation, meets, || {
            let parties = parties();
            let message = format!(
                "{} donates to {}, which is not on each of its time-shared cores",
                parties[0], parties[1]
            );
            (message, parties)
        });
        proof.fact(Rule::Donation, ends(system, id), || {
            let parties = parties();
            let message =
                format!("what {} donates to {} comes back to who had it", parties[0], parties[1]);
            (message, parties)
        });
    }
}

/// Whether what a partition donates comes to rest: each step of a way without a circle is another partition.
fn ends(system: &System, donor: PartitionId) -> bool {
    let next = |id: &PartitionId| system.partitions.get(usize::from(*id))?.donates_to;
    std::iter::successors(Some(donor), next).take(system.partitions.len() + 1).count()
        <= system.partitions.len()
}

/// What is cleaned at a switch has a cost and a place in time. Followed here by hand, window by window, without the rule that
/// the compiler and the hypervisor share.
fn hygiene(system: &System, proof: &mut Proof) {
    for (id, partition) in (0_u16..).zip(&system.partitions) {
        let kinds = kinds(partition.hygiene);
        let costs = &system.board.hygiene;
        let priced =
            [costs.l1d_flush, costs.branch_barrier, costs.buffer_clear].map(|cost| cost > 0);
        proof.fact(Rule::Hygiene, (0..3).all(|kind| !kinds[kind] || priced[kind]), || {
            let party = partition.party();
            (format!("{party} asks for hygiene of which the board declares no cost"), vec![party])
        });
        let alone = |core: &Core| core.role == Role::Dedicated(id);
        let switched = !system.cores.iter().any(alone) || kinds == [false; 3];
        proof.fact(Rule::Hygiene, switched, || {
            let party = partition.party();
            (format!("{party} asks for hygiene on a core where nothing is switched"), vec![party])
        });
    }
    system.cores.iter().for_each(|core| hygiene_of_core(system, core, proof));
}

/// Of each partition's window: the budget, against the dearest switch from any partition that may have the core then.
fn hygiene_of_core(system: &System, core: &Core, proof: &mut Proof) {
    let last_of = |windows: &Vec<Window>| windows.iter().rev().find_map(partition_of);
    let last_of_any: Vec<PartitionId> = core.plans().iter().filter_map(last_of).collect();
    for (plan, windows) in core.plans().iter().enumerate() {
        let line = Line { system, core, plan, windows };
        let mut before = last_of_any.clone();
        for window in windows {
            // In a window of housekeeping the core stays with whom it was.
            let Some(next) = partition_of(window) else { continue };
            for from in before.iter().flat_map(|from| ways(system, *from)) {
                line.cleaning_fits(from, next, window, proof);
            }
            before = vec![next];
        }
    }
}

fn partition_of(window: &Window) -> Option<PartitionId> {
    match window.owner {
        Owner::Partition(id) => Some(id),
        Owner::Housekeeping => None,
    }
}

/// Flush, barrier, clearing.
fn kinds(hygiene: Hygiene) -> [bool; 3] {
    [hygiene.l1d_flush, hygiene.branch_barrier, hygiene.buffer_clear]
}

/// A partition and whoever may have received what it donates.
fn ways(system: &System, from: PartitionId) -> Vec<PartitionId> {
    let mut ways = vec![from];
    while let Some(receiver) = ways
        .last()
        .and_then(|id| system.partitions.get(usize::from(*id))?.donates_to)
        .filter(|receiver| !ways.contains(receiver))
    {
        ways.push(receiver);
    }
    ways
}
