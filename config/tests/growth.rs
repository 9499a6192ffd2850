//! The checks grow with the system and no faster: counted in comparisons, which repeat exactly, not in time.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use common::scale::{CORES_EACH, Scaled};

/// Comparisons of the checks for a system of so many partitions.
fn comparisons(partitions: usize) -> u64 {
    let scaled = Scaled::new(partitions).unwrap();
    let plan = match bulkhead_config::check_without_images(&scaled.system) {
        Ok(plan) => plan,
        Err(found) => panic!("{partitions} partitions\n{found}"),
    };
    assert_eq!(plan.partitions().len(), partitions);
    assert_eq!(plan.board_cores(), partitions * CORES_EACH);
    plan.comparisons()
}

#[test]
fn twice_the_system_takes_little_more_than_twice_the_comparisons() {
    let counts: Vec<_> = [8, 16, 32, 64].into_iter().map(comparisons).collect();
    println!("comparisons for 8, 16, 32 and 64 partitions: {counts:?}");
    for pair in counts.windows(2) {
        // Sorting adds a logarithm; pairs of everything would be four times as many.
        assert!(pair[1] * 10 <= pair[0] * 25, "{counts:?}");
    }
}

#[test]
fn the_largest_system_takes_a_few_comparisons_a_claim() {
    // 256 cores, 384 claims on them, 257 windows, 64 memories, 64 names: under four comparisons for each.
    assert!(comparisons(64) < 4_000, "{}", comparisons(64));
}
