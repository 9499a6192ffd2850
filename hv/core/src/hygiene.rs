//! Hygiene: what is cleaned when a core passes from one partition to another, and how long that may take.
//!
//! A core has a *holder*: the partition whose window came last, or the one that received the rest of that window. At the
//! switch into a window of another partition the core passes to that one, and what either of the two asks for is cleaned.
//! The compiler budgets by [`longest`], the hypervisor cleans by [`Holder`], and both call [`between`].
//!
//! - The core passes whether or not the new holder runs: it may sleep, be stopped, be refused, wait for its start, or start
//!   again. So the cleaning of a switch depends on the schedule alone, and its time is kept where it is spent. A rule that
//!   cleaned at the next guest that really runs would need, before every window, the time for the dirtiest partition of the core.
//! - A housekeeping window and an idle frame pass the core to nobody. The hypervisor can read every partition anyway, so nothing
//!   is gained by cleaning ahead of it. The cleaning behind it also covers what housekeeping itself left in the caches.
//! - A partition that follows itself is not cleaned from itself.
//!
//! Whoever runs is the holder. So between two guests of different partitions the core passed away from the first, and
//! passed to the second: what both ask for was cleaned in between.

use bulkhead_table::{Hygiene, HygieneCosts, MAX_PARTITIONS, PartitionId};

/// What is cleaned when a core passes from one partition to another. `asks` says what a partition asks for.
#[must_use]
pub fn between(
    holder: PartitionId,
    next: PartitionId,
    asks: impl Fn(PartitionId) -> Hygiene,
) -> Hygiene {
    if holder == next { Hygiene::NONE } else { asks(holder).or(asks(next)) }
}

/// Who holds a core. Nobody before its first window: no guest ran there, so nothing is cleaned for the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder(Option<PartitionId>);

impl Holder {
    /// What is to be cleaned before `next` can hold the core.
    #[must_use]
    pub fn cleaning_for(self, next: PartitionId, asks: impl Fn(PartitionId) -> Hygiene) -> Hygiene {
        self.0.map_or(Hygiene::NONE, |holder| between(holder, next, asks))
    }

    /// The core passes to `next`; returns what is to be cleaned at this switch.
    #[must_use]
    pub fn pass_to(&mut self, next: PartitionId, asks: impl Fn(PartitionId) -> Hygiene) -> Hygiene {
        let cleaning = self.cleaning_for(next, asks);
        self.0 = Some(next);
        cleaning
    }
}

/// Whoever may hold a core at the end of a window of `owner`: the owner, who may have given the rest to its receiver, who may
/// have given it on.
pub fn holders_behind(
    owner: PartitionId,
    receiver: impl Fn(PartitionId) -> Option<PartitionId>,
) -> impl Iterator<Item = PartitionId> {
    // Donations form no circle; the bound also ends a walk through a file in which they do.
    core::iter::successors(Some(owner), move |id| receiver(*id)).take(MAX_PARTITIONS)
}

/// Most ticks that the cleaning takes at the switch into a window of `next`, where the last window of a partition was one of
/// `before`, and from whom the core then passes. The compiler keeps them free before that window, beside the board's switch budget.
#[must_use]
pub fn longest(
    before: PartitionId,
    next: PartitionId,
    asks: impl Fn(PartitionId) -> Hygiene,
    receiver: impl Fn(PartitionId) -> Option<PartitionId>,
    costs: &HygieneCosts,
) -> (u64, PartitionId) {
    let cost = |holder| (costs.of(between(holder, next, &asks)), holder);
    holders_behind(before, receiver).map(cost).max().unwrap_or((0, before))
}

/// Whether the rest of a window, `left` ticks, can be given to another partition: the switch with its cleaning must end inside
/// the window, or the next one would be late.
#[must_use]
pub const fn gift_fits(left: u64, switch_budget: u64, cleaning: u64) -> bool {
    left > switch_budget.saturating_add(cleaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const FLUSH: Hygiene = Hygiene { l1d_flush: true, ..Hygiene::NONE };
    const BARRIER: Hygiene = Hygiene { branch_barrier: true, ..Hygiene::NONE };
    const COSTS: HygieneCosts =
        HygieneCosts { l1d_flush: 2_000, branch_barrier: 100, buffer_clear: 30 };

    /// Partition 0 asks for a flush, 1 for a barrier, the others for nothing.
    fn asks(id: PartitionId) -> Hygiene {
        [FLUSH, BARRIER].get(usize::from(id)).copied().unwrap_or(Hygiene::NONE)
    }

    #[test]
    fn both_sides_of_a_switch_are_cleaned_and_nothing_within_a_partition() {
        assert_eq!(between(0, 1, asks), FLUSH.or(BARRIER));
        assert_eq!((between(0, 2, asks), between(2, 0, asks)), (FLUSH, FLUSH));
        assert_eq!((between(0, 0, asks), between(2, 3, asks)), (Hygiene::NONE, Hygiene::NONE));
    }

    #[test]
    fn the_first_holder_finds_a_core_on_which_nobody_ran() {
        let mut holder = Holder::default();
        assert_eq!(holder.pass_to(0, asks), Hygiene::NONE);
        assert_eq!(holder.cleaning_for(2, asks), FLUSH);
        assert_eq!(holder.pass_to(2, asks), FLUSH);
        assert_eq!(holder.pass_to(3, asks), Hygiene::NONE, "cleaned already");
    }

    #[test]
    fn who_may_have_received_the_time_counts() {
        let receiver = |id| (id > 0).then(|| id - 1);
        assert_eq!(holders_behind(3, receiver).collect::<Vec<_>>(), [3, 2, 1, 0]);
        assert_eq!(longest(3, 4, asks, receiver, &COSTS), (2_000, 0));
        assert_eq!(longest(3, 4, asks, |_| None, &COSTS), (0, 3));
        // Of a chain one partition holds the core, not all of them.
        assert_eq!(longest(1, 4, asks, receiver, &COSTS), (2_000, 0));
        // The receiver keeps the core for its own window; the donor passes it on.
        assert_eq!(longest(2, 1, asks, receiver, &COSTS), (2_100, 0));
    }

    #[test]
    fn a_circle_of_donations_ends() {
        assert_eq!(holders_behind(0, |id| Some(1 - id)).count(), MAX_PARTITIONS);
    }

    #[test]
    fn a_gift_holds_its_own_switch_and_cleaning() {
        assert!(gift_fits(3_001, 1_000, 2_000));
        assert!(!gift_fits(3_000, 1_000, 2_000));
        assert!(!gift_fits(u64::MAX, u64::MAX, 1));
    }

    const MOST: usize = 5;

    fn hygiene() -> impl Strategy<Value = Hygiene> {
        any::<[bool; 3]>().prop_map(|[l1d_flush, branch_barrier, buffer_clear]| Hygiene {
            l1d_flush,
            branch_barrier,
            buffer_clear,
        })
    }

    fn contains(all: Hygiene, part: Hygiene) -> bool {
        all.or(part) == all
    }

    proptest! {
        /// The promise itself, by a ledger that knows nothing of holders: when a guest runs behind another's, all that either asks for
        /// was cleaned since the other ran. And no switch takes longer than the compiler keeps free, gifts within their window included.
        #[test]
        fn no_guest_finds_traces_of_another_and_each_switch_fits_its_budget(
            wanted in prop::collection::vec(hygiene(), MOST),
            receivers in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), MOST),
            // Of each window: its owner, whether that runs, and how often the rest is given on.
            events in prop::collection::vec((0..MOST as PartitionId, any::<bool>(), 0_usize..4), 1..60),
        ) {
            let asks = |id: PartitionId| wanted[usize::from(id)];
            // Each donates to one with a smaller number: no circle.
            let receiver = |id: PartitionId| {
                let chosen = receivers[usize::from(id)].as_ref()?;
                (id > 0).then(|| chosen.index(usize::from(id)) as PartitionId)
            };
            let mut holder = Holder::default();
            // By partition that ran: what was cleaned since.
            let mut since: Vec<Option<Hygiene>> = std::vec![None; MOST];
            let mut run = |id: PartitionId, cleaning: Hygiene, runs: bool| {
                for cleaned in since.iter_mut().flatten() {
                    *cleaned = cleaned.or(cleaning);
                }
                if !runs {
                    return true;
                }
                let others = since.iter().enumerate().filter(|(other, _)| *other != usize::from(id));
                let clean = others.filter_map(|(other, cleaned)| Some((other, (*cleaned)?))).all(
                    |(other, cleaned)| contains(cleaned, wanted[other].or(asks(id))),
                );
                since[usize::from(id)] = Some(Hygiene::NONE);
                clean
            };
            let mut before = None;
            for (owner, runs, gifts) in events {
                let cleaning = holder.pass_to(owner, asks);
                let kept =
                    before.map_or(0, |before| longest(before, owner, asks, receiver, &COSTS).0);
                prop_assert!(COSTS.of(cleaning) <= kept);
                prop_assert!(run(owner, cleaning, runs));
                // Only who runs can give.
                for id in holders_behind(owner, receiver).skip(1).take(if runs { gifts } else { 0 }) {
                    let cleaning = holder.pass_to(id, asks);
                    prop_assert!(run(id, cleaning, true));
                }
                before = Some(owner);
            }
        }
    }
}
