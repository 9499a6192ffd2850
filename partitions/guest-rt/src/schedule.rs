//! A partition's own schedule, and the arithmetic on it.

/// A window of a partition on a time-shared core. All in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// TSC at which frame 0 began.
    pub epoch: u64,
    /// Length of the major frame.
    pub frame: u64,
    /// Start of the window, from the start of its frame.
    pub start: u64,
    /// Length of the window.
    pub length: u64,
}

impl Window {
    /// TSC at which the window of frame number `frame` should start.
    #[must_use]
    pub const fn start_in(&self, frame: u64) -> u64 {
        self.epoch + frame * self.frame + self.start
    }

    /// Number of the frame whose window should start nearest to `tsc`: so a start ahead of its time is told from a
    /// late one. Needs a frame that is not zero.
    #[must_use]
    pub const fn nearest_frame(&self, tsc: u64) -> u64 {
        let since_first = tsc.saturating_sub(self.start_in(0));
        (since_first + self.frame / 2) / self.frame
    }

    /// Ticks of a frame that are not this window's.
    #[must_use]
    pub const fn away(&self) -> u64 {
        self.frame.saturating_sub(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window =
        Window { epoch: 1_000_000, frame: 100_000, start: 30_000, length: 29_000 };

    #[test]
    fn starts_are_counted_from_the_epoch() {
        assert_eq!(WINDOW.start_in(0), 1_030_000);
        assert_eq!(WINDOW.start_in(7), 1_730_000);
        assert_eq!(WINDOW.away(), 71_000);
    }

    #[test]
    fn a_late_and_an_early_start_belong_to_the_same_frame() {
        for offset in [0, 24, 49_999] {
            assert_eq!(WINDOW.nearest_frame(WINDOW.start_in(7) + offset), 7, "{offset} late");
            assert_eq!(WINDOW.nearest_frame(WINDOW.start_in(7) - offset), 7, "{offset} early");
        }
        assert_eq!(WINDOW.nearest_frame(WINDOW.start_in(7) + 50_000), 8);
    }

    #[test]
    fn before_the_first_window_it_is_frame_zero() {
        assert_eq!(WINDOW.nearest_frame(0), 0);
    }
}
