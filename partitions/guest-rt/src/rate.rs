//! How fast the APIC timer counts beside the TSC: from a measurement to counts for a span of ticks.

/// Counts whose length in ticks is measured.
pub const SPAN: u32 = 1 << 20;

/// Ticks by which that length may be measured wrongly: a step of either clock at both ends, and an emulator's step.
const ERROR: u64 = 128;

/// Counts of the APIC timer a tick of the TSC, in units of 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// One count a tick.
    pub const SAME: Self = Self(1 << 32);

    /// The rate of a timer that took this many ticks for [`SPAN`] counts; `None` for none that a timer can have.
    ///
    /// A length within [`ERROR`] of whole ticks a count is taken for these. Any other one is taken [`ERROR`] shorter: a timer that is
    /// set by it comes at most twice that late in each span, and never early.
    #[must_use]
    pub fn measured(ticks: u64) -> Option<Self> {
        let span = u64::from(SPAN);
        let whole = ticks.checked_add(span / 2)? / span * span;
        let ticks = if whole > 0 && ticks.abs_diff(whole) <= ERROR {
            whole
        } else {
            ticks.checked_sub(ERROR).filter(|ticks| *ticks > 0)?
        };
        Some(Self((span << 32).div_ceil(ticks)))
    }

    /// The rate in units of 2^-32 counts a tick, for a place in memory.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The rate that [`to_bits`](Self::to_bits) gave.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Counts that last at least so many ticks: at least one, as zero disarms, and as many as the register holds where more are wanted.
    #[inline(always)]
    #[must_use]
    pub fn counts(self, ticks: u64) -> u32 {
        let exact = u128::from(ticks) * u128::from(self.0);
        let up = (exact + u128::from(u32::MAX)) >> 32;
        up.clamp(1, u128::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    const TICKS: u64 = SPAN as u64;

    #[test]
    fn a_timer_that_counts_ticks_is_exact() {
        for error in [0, 10, ERROR] {
            assert_eq!(Rate::measured(TICKS + error).unwrap(), Rate::SAME);
            assert_eq!(Rate::measured(TICKS - error).unwrap(), Rate::SAME);
        }
        for ticks in [1, 2, 5_000, u64::from(u32::MAX)] {
            assert_eq!(u64::from(Rate::SAME.counts(ticks)), ticks);
        }
    }

    #[test]
    fn whole_ticks_a_count_are_late_by_less_than_two_counts() {
        let rate = Rate::measured(34 * TICKS - 60).unwrap();
        for ticks in [1, 33, 34, 35, 68, 3_400_000, 34 << 26] {
            let real = 34 * u64::from(rate.counts(ticks));
            assert!((ticks..ticks + 68).contains(&real), "{ticks} ticks became {real}");
        }
    }

    #[test]
    fn any_other_rate_is_late_and_not_early() {
        // 34.5 ticks a count, measured as wrongly as can be.
        let length = |counts: u32| u64::from(counts) * 69 / 2;
        for error in [-(ERROR as i64), 0, ERROR as i64] {
            let rate = Rate::measured((69 * TICKS / 2).checked_add_signed(error).unwrap()).unwrap();
            for ticks in [1, 1_000, 345_000, 34_500_000] {
                let real = length(rate.counts(ticks));
                let span = 69 * TICKS / 2;
                let most = ticks + 2 * ERROR * ticks.div_ceil(span) + 35;
                assert!((ticks..=most).contains(&real), "{ticks} ticks became {real}");
            }
        }
    }

    #[test]
    fn the_register_is_neither_zero_nor_overrun() {
        assert_eq!(Rate::SAME.counts(0), 1);
        assert_eq!(Rate::SAME.counts(u64::MAX), u32::MAX);
        let fast = Rate::measured(TICKS / 4).unwrap();
        assert_eq!(fast.counts(u64::MAX), u32::MAX);
        assert!(fast.counts(100) >= 400);
    }

    #[test]
    fn no_timer_counts_in_no_time() {
        assert_eq!(Rate::measured(0), None);
        assert_eq!(Rate::measured(ERROR), None);
        assert_eq!(Rate::measured(u64::MAX), None);
    }

    #[test]
    fn a_rate_is_kept_as_bits() {
        let rate = Rate::measured(7 * TICKS).unwrap();
        assert_eq!(Rate::from_bits(rate.to_bits()), rate);
    }
}
