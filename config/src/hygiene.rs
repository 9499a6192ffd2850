//! What is cleaned at a switch of partitions, and what it costs on this board.

use bulkhead_table::{Hygiene, Owner, PartitionId};

use crate::diagnostics::{Finding, Findings};
use crate::language::HYGIENE_WORDS;
use crate::reader::positive_ticks;
use crate::rules::Rule;
use crate::schema::{BoardFile, Partition, SystemFile};
use crate::source::{At, Place};

/// Costs in ticks, each `None` where the board declares none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HygieneCosts {
    /// Flush of the level-1 data cache.
    pub l1d_flush: Option<u64>,
    /// Indirect branch prediction barrier.
    pub branch_barrier: Option<u64>,
    /// Overwriting of internal buffers.
    pub buffer_clear: Option<u64>,
}

impl HygieneCosts {
    /// Ticks that `wanted` takes.
    #[must_use]
    pub fn of(self, wanted: Hygiene) -> u64 {
        let cost = |wanted: bool, cost: Option<u64>| if wanted { cost.unwrap_or(0) } else { 0 };
        cost(wanted.l1d_flush, self.l1d_flush)
            + cost(wanted.branch_barrier, self.branch_barrier)
            + cost(wanted.buffer_clear, self.buffer_clear)
    }
}

/// What the board declares, in ticks of its clock.
pub(crate) fn costs(board: &BoardFile, hz: u64, findings: &mut Findings) -> HygieneCosts {
    let Some(written) = &board.hygiene else {
        return HygieneCosts::default();
    };
    let mut ticks = |at: &Option<At<_>>, name| positive_ticks(at.as_ref()?, name, hz, findings);
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

/// What hygiene the switches between windows need.
pub(crate) struct Cleaning<'s> {
    /// By partition: what it asks for.
    pub wanted: &'s [Hygiene],
    /// By partition: who receives what it donates.
    pub receivers: &'s [Option<PartitionId>],
    pub costs: HygieneCosts,
}

impl Cleaning<'_> {
    /// Of the switch into a window of `owner` behind one of `before`. Whoever may have got the rest of that window
    /// donated may be the one who is left.
    pub fn between(&self, before: Owner, owner: Owner) -> u64 {
        let mut needed = self.of(owner);
        let mut left = Some(before);
        // Donations form no circle: as many steps as there are partitions are enough.
        for _ in 0..=self.receivers.len() {
            let Some(owner) = left else { break };
            needed = needed.or(self.of(owner));
            left = match owner {
                Owner::Partition(id) => {
                    self.receivers.get(usize::from(id)).copied().flatten().map(Owner::Partition)
                }
                Owner::Housekeeping => None,
            };
        }
        self.costs.of(needed)
    }

    fn of(&self, owner: Owner) -> Hygiene {
        match owner {
            Owner::Partition(id) => self.wanted.get(usize::from(id)).copied().unwrap_or_default(),
            Owner::Housekeeping => Hygiene::default(),
        }
    }
}
