//! How a partition ended, decided once, whichever of its vCPUs ends it first.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::wire::Fate;

/// The fate of one partition. Any core may read it, and any vCPU of the partition may end it.
///
/// The first cause wins, and no later one replaces it, however grave: from the first one on the partition is over, and what its other vCPUs
/// do until their cores see that is no part of its run. So a report never contradicts the log, in which only the winner explains itself.
/// An access that is denied behind the end is still counted as such.
#[derive(Debug, Default)]
pub struct FateCell(AtomicU8);

impl FateCell {
    /// Of a partition that runs.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(Fate::Running.code() as u8))
    }

    /// How the partition stands.
    #[must_use]
    pub fn get(&self) -> Fate {
        let code = self.0.load(Ordering::SeqCst);
        // Only `end` writes, and it writes codes of fates.
        Fate::from_code(u64::from(code)).unwrap_or(Fate::Stopped)
    }

    /// Ends the partition as `fate` says, unless it is over already; returns whether this call did. `SeqCst` puts it into one order with
    /// requests for a restart: one that came behind the end sees the end.
    pub fn end(&self, fate: Fate) -> bool {
        let running = Fate::Running.code() as u8;
        self.0
            .compare_exchange(running, fate.code() as u8, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Barrier;
    use std::thread;

    const ENDS: [Fate; 6] =
        [Fate::Passed, Fate::Failed, Fate::Stopped, Fate::Refused, Fate::Off, Fate::Lost];

    proptest! {
        /// Each way in which the calls of several vCPUs can follow one another: an exchange is one step.
        #[test]
        fn the_first_cause_wins(causes in proptest::collection::vec(0..ENDS.len(), 1..6)) {
            let cell = FateCell::new();
            prop_assert_eq!(cell.get(), Fate::Running);
            for (place, cause) in causes.iter().enumerate() {
                prop_assert_eq!(cell.end(ENDS[*cause]), place == 0);
                prop_assert_eq!(cell.get(), ENDS[causes[0]]);
            }
        }
    }

    /// Several vCPUs end the partition at once: exactly one is told that it did, and its cause is what everybody reads from then on.
    #[test]
    fn one_of_many_ends_the_partition() {
        const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
        for _ in 0..ROUNDS {
            let (cell, barrier) = (FateCell::new(), Barrier::new(3));
            let winners: std::vec::Vec<_> = thread::scope(|scope| {
                let racers = [Fate::Stopped, Fate::Passed, Fate::Off].map(|fate| {
                    let (cell, barrier) = (&cell, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        cell.end(fate).then_some(fate)
                    })
                });
                racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(winners, [cell.get()]);
        }
    }
}
