//! What is cleaned at a switch of partitions, and what it costs on this board.

use std::collections::BTreeSet;

use bulkhead_table::{Hygiene, HygieneCosts, Owner, PartitionId, Window};
use hv_core::hygiene::{holders_behind, longest};

use crate::diagnostics::{Finding, Findings};
use crate::language::HYGIENE_WORDS;
use crate::reader::positive_ticks;
use crate::rules::Rule;
use crate::schema::{BoardFile, Partition, SystemFile};
use crate::source::{At, Place};

/// What the board declares, in ticks of its clock.
pub(crate) fn costs(board: &BoardFile, hz: u64, findings: &mut Findings) -> HygieneCosts {
    let Some(written) = &board.hygiene else {
        return HygieneCosts::default();
    };
    // A cost that is declared is positive: 0 stands for none.
    let mut ticks = |at: &Option<At<_>>, name| {
        at.as_ref().and_then(|at| positive_ticks(at, name, hz, findings)).unwrap_or(0)
    };
    HygieneCosts {
        l1d_flush: ticks(&written.l1d_flush, L1D_FLUSH),
        branch_barrier: ticks(&written.branch_barrier, BRANCH_BARRIER),
        buffer_clear: ticks(&written.buffer_clear, BUFFER_CLEAR),
    }
}

/// As files write it, in a partition's list and as keys of the board.
pub(crate) const L1D_FLUSH: &str = "l1d-flush";
pub(crate) const BRANCH_BARRIER: &str = "branch-barrier";
pub(crate) const BUFFER_CLEAR: &str = "buffer-clear";

/// By partition: what it asks for.
pub(crate) fn check(
    system: &SystemFile,
    board: Option<&BoardFile>,
    findings: &mut Findings,
) -> Vec<Hygiene> {
    system
        .partitions
        .iter()
        .map(|partition| {
            if let Some(written) = &partition.hygiene {
                only_in_windows(partition, written.place, findings);
                for word in &written.value {
                    has_a_cost(&partition.name.value, word, board, findings);
                }
            }
            wanted(partition)
        })
        .collect()
}

fn wanted(partition: &Partition) -> Hygiene {
    let words = partition.hygiene.iter().flat_map(|words| &words.value);
    words.fold(Hygiene::default(), |wanted, word| match word.value.as_str() {
        L1D_FLUSH => Hygiene { l1d_flush: true, ..wanted },
        BRANCH_BARRIER => Hygiene { branch_barrier: true, ..wanted },
        BUFFER_CLEAR => Hygiene { buffer_clear: true, ..wanted },
        // Any other word has been refused by the reader.
        _ => wanted,
    })
}

fn only_in_windows(partition: &Partition, place: Place, findings: &mut Findings) {
    if partition.windows.is_some() {
        return;
    }
    let finding = Finding::new(
        Rule::HygieneDedicated,
        format!("`{}` has its cores for itself: nothing is switched there", partition.name.value),
        "take `hygiene` out, or give the partition windows",
    );
    findings.push(finding.at(place, "does nothing"));
}

fn has_a_cost(name: &str, word: &At<String>, board: Option<&BoardFile>, findings: &mut Findings) {
    let Some(board) = board else { return };
    if !HYGIENE_WORDS.contains(&word.value.as_str()) {
        return;
    }
    let declared = board.hygiene.as_ref().is_some_and(|costs| {
        let cost = match word.value.as_str() {
            L1D_FLUSH => &costs.l1d_flush,
            BRANCH_BARRIER => &costs.branch_barrier,
            BUFFER_CLEAR => &costs.buffer_clear,
            _ => return true,
        };
        cost.is_some()
    });
    if declared {
        return;
    }
    let what = &word.value;
    let finding = Finding::new(
        Rule::HygieneWithoutCost,
        format!("`{name}` asks for `{what}`, and the board does not say what that costs"),
        format!("measure it on the board and declare it in the board file: `[hygiene]` with `{what} = \"5 us\"`, or whatever it takes"),
    )
    .at(word.place, "takes how long?");
    findings.push(match board.hygiene.as_ref().map(|costs| costs.place) {
        Some(place) => finding.with(place, "not among these"),
        None => finding,
    });
}

/// What hygiene the switches between windows need, by the rule that the hypervisor cleans by.
pub(crate) struct Cleaning<'s> {
    /// By partition: what it asks for.
    pub wanted: &'s [Hygiene],
    /// By partition: who receives what it donates.
    pub receivers: &'s [Option<PartitionId>],
    pub costs: HygieneCosts,
}

impl Cleaning<'_> {
    /// Most ticks of cleaning at the switch into a window of `next`, where the last window of a partition before it is one of any of
    /// `before`, and from whom the core then passes. `None` where nothing is cleaned.
    pub fn longest(&self, before: &[PartitionId], next: PartitionId) -> Option<(u64, PartitionId)> {
        let asks = |id: PartitionId| self.wanted.get(usize::from(id)).copied().unwrap_or_default();
        let receiver = |id: PartitionId| self.receivers.get(usize::from(id)).copied().flatten();
        let dearest = |before: &PartitionId| longest(*before, next, asks, receiver, &self.costs);
        before.iter().map(dearest).max().filter(|(ticks, _)| *ticks > 0)
    }
}

/// The partition that owns the last window of these that is not housekeeping's: in housekeeping's the core passes to nobody.
pub(crate) fn last_partition(
    mut owners: impl DoubleEndedIterator<Item = Owner>,
) -> Option<PartitionId> {
    owners.rfind(|owner| *owner != Owner::Housekeeping).and_then(partition)
}

fn partition(owner: Owner) -> Option<PartitionId> {
    match owner {
        Owner::Partition(id) => Some(id),
        Owner::Housekeeping => None,
    }
}

/// The partitions that may hold a core at the switch into the window `index` of `plan`: the owner of the last window before it and
/// whoever it donates to; before the first partition of a frame, of the last window of any plan.
pub(crate) fn holders_before(
    plans: &[Vec<Window>],
    (plan, index): (usize, usize),
    receiver: impl Fn(PartitionId) -> Option<PartitionId>,
) -> BTreeSet<PartitionId> {
    let owners = |windows: &[Window]| last_partition(windows.iter().map(|window| window.owner));
    let earlier = plans.get(plan).and_then(|windows| owners(windows.get(..index)?));
    let before: Vec<_> = match earlier {
        Some(id) => vec![id],
        None => plans.iter().filter_map(|windows| owners(windows)).collect(),
    };
    before.into_iter().flat_map(|id| holders_behind(id, &receiver)).collect()
}
