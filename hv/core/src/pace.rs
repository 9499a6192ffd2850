//! Durations of the run loop in ticks, derived from what the board file declares: a tick is 20 ns on the emulator and a third of a
//! nanosecond on a PC.

/// Ticks that settling and the entry behind it take at least, of a switch budget: 2 us of the emulator's 25.
#[must_use]
pub const fn least_settling(budget: u64) -> u64 {
    budget / 25 * 2 + budget % 25 * 2 / 25
}

/// A core looks up for a guest's timer this much earlier at most: half of what the board allows for a whole switch.
#[must_use]
pub const fn most_timer_lead(budget: u64) -> u64 {
    budget / 2
}

/// Ticks between the moment when the last core is ready and the epoch (400 us): enough for every core to leave its waiting loop.
#[must_use]
pub const fn epoch_lead(tsc_hz: u64) -> u64 {
    tsc_hz / 2_500
}

/// Ticks between two kicks of a core that did not park yet (10 ms).
#[must_use]
pub const fn kick_interval(tsc_hz: u64) -> u64 {
    tsc_hz / 100
}

/// Timers after which what the work took before is forgotten.
const ROUND: u32 = 64;

/// How much earlier than a guest's timer its core looks up: by the most that the work ahead of a timer took lately, as it is on this
/// machine. Lately means the last 64 to 128 timers. So a core is early enough for what happens now and then, and one outlier (a
/// system-management interrupt) costs the guest no more than these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerLead {
    lead: u64,
    most: u64,
    /// The most in the round that runs.
    newest: u64,
    /// The most in the round before.
    older: u64,
    /// Timers of the round that runs.
    seen: u32,
    /// What was noted and not yet taken in; 0 for nothing.
    noted: u64,
}

impl TimerLead {
    /// Before any timer was seen: as much as is allowed.
    #[must_use]
    pub const fn new(most: u64) -> Self {
        Self { lead: most, most, newest: 0, older: 0, seen: 0, noted: 0 }
    }

    /// Ticks ahead of a timer at which the core looks up.
    #[must_use]
    #[inline(always)]
    pub const fn ticks(&self) -> u64 {
        self.lead
    }

    /// The work ahead of a timer took `work` ticks. Only keeps the number: this runs between the work and the timer's instant, where
    /// whatever it takes makes the timer late.
    #[inline(always)]
    pub const fn note(&mut self, work: u64) {
        self.noted = work;
    }

    /// Takes in what was noted last. Belongs at the beginning of the work ahead of the next timer, which counts it then.
    pub fn take_in(&mut self) {
        let work = core::mem::take(&mut self.noted);
        if work == 0 {
            return;
        }
        self.newest = self.newest.max(work.min(self.most));
        self.lead = self.newest.max(self.older);
        self.seen += 1;
        if self.seen == ROUND {
            (self.older, self.newest, self.seen) = (self.newest, 0, 0);
        }
    }
}

/// By how much a timer counts slower than the TSC, as a power of two that it does not exceed: `counts` of it took `ticks`. So a deadline that
/// is divided by that power never comes late. Ahead of the deadline the core looks at the clock once more. A 64th more is taken for the
/// time of the measurement itself.
#[must_use]
pub const fn timer_shift(counts: u64, ticks: u64) -> u32 {
    let mut shift = 0;
    // Ends: the bound doubles in each round.
    while shift < 32 && ticks > (counts + counts / 64) << shift {
        shift += 1;
    }
    shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn on_the_emulator_they_are_what_was_measured_there() {
        let (hz, budget) = (50_000_000, 1250);
        assert_eq!((least_settling(budget), most_timer_lead(budget)), (100, 625));
        assert_eq!((epoch_lead(hz), kick_interval(hz)), (20_000, 500_000));
    }

    #[test]
    fn one_outlier_is_forgotten() {
        let mut lead = TimerLead::new(625);
        assert_eq!(lead.ticks(), 625, "nothing seen");
        lead.take_in();
        assert_eq!(lead.ticks(), 625, "nothing noted");
        let mut saw = |work| {
            lead.note(work);
            lead.take_in();
            lead.ticks()
        };
        assert_eq!(saw(300), 300);
        assert_eq!(saw(1_000_000), 625, "never more than is allowed");
        assert_eq!((0..2 * ROUND).map(|_| saw(310)).last(), Some(310));
    }

    proptest! {
        #[test]
        fn times_scale_with_clock_and_budget(mhz in 1..6_000_u64, budget in 1..10_000_000_u64, by in 2..100_u64) {
            let hz = mhz * 1_000_000;
            prop_assert_eq!(epoch_lead(hz) * by, epoch_lead(hz * by));
            prop_assert_eq!(kick_interval(hz) * by, kick_interval(hz * by));
            let near = |one: u64, other: u64| one.abs_diff(other) <= by;
            prop_assert!(near(least_settling(budget) * by, least_settling(budget * by)));
            prop_assert!(near(most_timer_lead(budget) * by, most_timer_lead(budget * by)));
            // What is begun at the latest instant ends within the budget's share for the last exit.
            prop_assert!(least_settling(budget) <= crate::health::last_exit_share(budget));
        }

        #[test]
        fn the_lead_is_the_most_of_the_last_rounds(works in proptest::collection::vec(1..2_000_u64, 1..400)) {
            let mut lead = TimerLead::new(625);
            for (number, work) in works.iter().enumerate() {
                lead.note(*work);
                lead.take_in();
                let most = |count: usize| {
                    let lately = works[..=number].iter().rev().take(count);
                    lately.map(|work| (*work).min(625)).max().unwrap()
                };
                prop_assert!(lead.ticks() >= most(ROUND as usize), "early enough for what happened lately");
                prop_assert!(lead.ticks() <= most(2 * ROUND as usize), "and no earlier than for that");
            }
        }
    }

    #[test]
    fn a_slower_timer_is_never_taken_for_a_faster_one() {
        assert_eq!([timer_shift(10_000, 10_000), timer_shift(10_000, 10_090)], [0, 0]);
        // 100 MHz beside 3 GHz: 30 ticks a count, of which 32 are taken.
        assert_eq!([timer_shift(10_000, 300_000), timer_shift(10_000, 320_900)], [5, 5]);
        assert_eq!(timer_shift(10_000, 11_300), 1);
        assert_eq!(timer_shift(1, u64::MAX), 32);
    }
}
