//! Hygiene: what the hypervisor cleans at a switch fits into the time that the compiler keeps, whoever sleeps, gives or changes the plan.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;
#[path = "audit/random.rs"]
#[allow(dead_code, reason = "the audit's test also makes mistakes in them")]
mod random;

use bulkhead_config::{Plan, PlannedRole};
use bulkhead_table::{Hygiene, Owner, PartitionId, Window};
use common::Case;
use hv_core::hygiene::{Holder, holders_behind};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use random::Dice;

/// Frames that a core is followed for.
const FRAMES: usize = 12;

fn dice() -> impl Strategy<Value = Dice> {
    prop::collection::vec(any::<u32>(), 100..400).prop_map(Dice::new)
}

/// Follows one core as the hypervisor does, in plans that change at random; returns the cleanings that took time.
fn follow(plan: &Plan, plans: &[Vec<Window>], dice: &mut Dice) -> usize {
    let asks = |id: PartitionId| plan.partitions()[usize::from(id)].hygiene;
    let receiver = |id: PartitionId| plan.partitions()[usize::from(id)].donates_to;
    let mut holder = Holder::default();
    let mut cleanings = 0;
    for _ in 0..FRAMES {
        for window in &plans[dice.roll(plans.len())] {
            let Owner::Partition(id) = window.owner else {
                assert_eq!(window.budget, plan.switch_budget(), "nothing is cleaned there");
                continue;
            };
            let cleaning = holder.pass_to(id, asks);
            let needed = plan.switch_budget() + plan.hygiene_costs().of(cleaning);
            assert!(needed <= window.budget, "{needed} ticks for {cleaning:?} before {window:?}");
            cleanings += usize::from(cleaning != Hygiene::NONE);
            // A partition that sleeps or was stopped gives nothing; one that runs may give on and on.
            for id in holders_behind(id, receiver).skip(1).take(dice.roll(3)) {
                let _within_the_window = holder.pass_to(id, asks);
            }
        }
    }
    cleanings
}

/// Follows each core of a random system.
fn follow_all(system: Dice, mut course: Dice) -> usize {
    let case = Case::new("system.toml", &random::system(system));
    let compiled = case.compile().unwrap();
    let plan = compiled.plan();
    let cores = plan.cores().iter();
    cores
        .map(|core| match &core.role {
            PlannedRole::Shared(plans) => follow(plan, plans, &mut course),
            _ => 0,
        })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_cleaning_fits_the_time_before_its_window(system in dice(), course in dice()) {
        let _cleanings = follow_all(system, course);
    }
}

/// The property is about something.
#[test]
fn random_systems_are_cleaned_somewhere() {
    let mut runner = TestRunner::deterministic();
    let mut roll = || dice().new_tree(&mut runner).unwrap().current();
    let cleanings: usize = (0..20).map(|_| follow_all(roll(), roll())).sum();
    assert!(cleanings > 100, "{cleanings}");
}
