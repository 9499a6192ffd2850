//! The cyclic schedule of a time-shared core: which window stands when, by absolute arithmetic.
//!
//! Every instant is epoch + frame number × frame + offset, never a sum of what was measured, so nothing drifts.
//! Nothing loops over frames: however long a core was away, it finds its place by one division.
//! All times are TSC ticks; arithmetic saturates at the end of the 64-bit counter.

use bulkhead_table::{Owner, Window};

/// The windows of one core and where they are anchored.
///
/// The compiler proved that the windows are ascending, disjoint, not empty and inside the frame.
#[derive(Clone, Copy, Debug)]
pub struct Schedule<'t> {
    /// TSC of the start of frame 0.
    pub epoch: u64,
    /// Length of the major frame; not 0.
    pub frame: u64,
    /// Windows of one frame.
    pub windows: &'t [Window],
}

/// A window of a numbered frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Frame number since the epoch.
    pub frame: u64,
    /// Index into the windows.
    pub index: usize,
}

/// A window in absolute time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// TSC of the first instant of guest time.
    pub start: u64,
    /// TSC of the first instant behind it.
    pub end: u64,
    /// Who runs.
    pub owner: Owner,
    /// Frame number.
    pub frame: u64,
}

/// The way from one window to the next that can still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The window to run now.
    pub cursor: Cursor,
    /// Windows between the two that had passed whole.
    pub missed: u64,
}

impl Schedule<'_> {
    /// The window at `cursor`. A cursor beyond the windows stands at the end of time and is housekeeping's.
    #[must_use]
    pub fn slot(&self, cursor: Cursor) -> Slot {
        let Some(window) = self.windows.get(cursor.index) else {
            return Slot {
                start: u64::MAX,
                end: u64::MAX,
                owner: Owner::Housekeeping,
                frame: cursor.frame,
            };
        };
        let base = self.epoch.saturating_add(self.frame.saturating_mul(cursor.frame));
        let start = base.saturating_add(window.start);
        Slot {
            start,
            end: start.saturating_add(window.length),
            owner: window.owner,
            frame: cursor.frame,
        }
    }

    /// The window behind `cursor`, passed or not.
    #[must_use]
    pub const fn next(&self, cursor: Cursor) -> Cursor {
        let index = cursor.index.saturating_add(1);
        if index < self.windows.len() {
            Cursor { frame: cursor.frame, index }
        } else {
            Cursor { frame: cursor.frame.saturating_add(1), index: 0 }
        }
    }

    /// The first window that ends after `now`: the running one, or the next to come.
    #[must_use]
    pub fn first_not_ended(&self, now: u64) -> Cursor {
        let since = now.saturating_sub(self.epoch);
        let frame = since.checked_div(self.frame).unwrap_or(0);
        let offset = since - frame * self.frame;
        let ends_later = |window: &Window| window.start.saturating_add(window.length) > offset;
        match self.windows.iter().position(ends_later) {
            Some(index) => Cursor { frame, index },
            None => Cursor { frame: frame.saturating_add(1), index: 0 },
        }
    }

    /// The first window behind `cursor` that has not passed whole at `now`, and how many had.
    #[must_use]
    pub fn advance(&self, cursor: Cursor, now: u64) -> Step {
        let next = self.next(cursor);
        if self.slot(next).end > now {
            return Step { cursor: next, missed: 0 };
        }
        let target = self.first_not_ended(now).max(next);
        let missed = self.ordinal(target).saturating_sub(self.ordinal(next));
        Step { cursor: target, missed }
    }

    /// Number of windows from the epoch to `cursor`.
    fn ordinal(&self, cursor: Cursor) -> u64 {
        cursor.frame.saturating_mul(self.windows.len() as u64).saturating_add(cursor.index as u64)
    }
}

/// What to load into the VMX preemption timer at `now` so that it runs out at `deadline` or before, aiming
/// `lead` ticks early.
///
/// The timer counts each change of TSC bit `shift` (SDM 3C 26.5.1, D.6), so rounding down never aims late. It has 32
/// bits: a longer wait is cut, and the caller looks at the clock and arms it again.
#[must_use]
#[inline(always)]
pub const fn timer_value(now: u64, deadline: u64, shift: u32, lead: u64) -> u32 {
    let left = deadline.saturating_sub(now).saturating_sub(lead) >> (shift & 63);
    if left > u32::MAX as u64 { u32::MAX } else { left as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const A: Owner = Owner::Partition(0);
    const B: Owner = Owner::Partition(1);

    fn demo(windows: &[Window]) -> Schedule<'_> {
        Schedule { epoch: 1000, frame: 100, windows }
    }

    const WINDOWS: [Window; 2] = [
        Window { start: 10, length: 30, budget: 5, owner: A },
        Window { start: 50, length: 40, budget: 5, owner: B },
    ];

    #[test]
    fn windows_stand_at_their_absolute_places() {
        let schedule = demo(&WINDOWS);
        let at = |frame, index| schedule.slot(Cursor { frame, index });
        assert_eq!(at(0, 0), Slot { start: 1010, end: 1040, owner: A, frame: 0 });
        assert_eq!(at(2, 1), Slot { start: 1250, end: 1290, owner: B, frame: 2 });
        let late = at(1_000_000, 0);
        assert_eq!(late.start, 1000 + 1_000_000 * 100 + 10);
        assert_eq!(schedule.next(Cursor { frame: 0, index: 1 }), Cursor { frame: 1, index: 0 });
    }

    #[test]
    fn the_first_window_not_ended_is_found_at_each_edge() {
        let schedule = demo(&WINDOWS);
        for (now, frame, index) in [
            (0, 0, 0),
            (1000, 0, 0),
            (1010, 0, 0),
            (1039, 0, 0),
            (1040, 0, 1),
            (1089, 0, 1),
            (1090, 1, 0),
            (1100, 1, 0),
            (1000 + 100 * 7 + 40, 7, 1),
        ] {
            assert_eq!(schedule.first_not_ended(now), Cursor { frame, index }, "{now}");
        }
    }

    #[test]
    fn a_late_core_skips_what_passed_and_counts_it() {
        let schedule = demo(&WINDOWS);
        let from = Cursor { frame: 0, index: 0 };
        let step = |now| schedule.advance(from, now);
        assert_eq!(step(1040), Step { cursor: Cursor { frame: 0, index: 1 }, missed: 0 });
        assert_eq!(step(1089), Step { cursor: Cursor { frame: 0, index: 1 }, missed: 0 });
        assert_eq!(step(1090), Step { cursor: Cursor { frame: 1, index: 0 }, missed: 1 });
        assert_eq!(
            step(1000 + 100 * 1000),
            Step { cursor: Cursor { frame: 1000, index: 0 }, missed: 1999 }
        );
    }

    #[test]
    fn a_single_window_follows_itself() {
        let one = [Window { start: 0, length: 100, budget: 0, owner: A }];
        let schedule = demo(&one);
        let step = schedule.advance(Cursor::default(), 1100);
        assert_eq!(step, Step { cursor: Cursor { frame: 1, index: 0 }, missed: 0 });
    }

    #[test]
    fn no_windows_and_no_frame_do_not_panic() {
        let schedule = Schedule { epoch: 5, frame: 0, windows: &[] };
        assert_eq!(schedule.slot(schedule.first_not_ended(77)).end, u64::MAX);
        assert_eq!(schedule.advance(Cursor::default(), u64::MAX).cursor.index, 0);
    }

    #[test]
    fn the_schedule_never_goes_back_even_at_the_end_of_the_counter() {
        let schedule = Schedule { epoch: u64::MAX - 10, frame: 100, windows: &WINDOWS };
        let from = Cursor { frame: 5, index: 0 };
        assert_eq!(schedule.advance(from, u64::MAX).cursor, schedule.next(from));
    }

    #[test]
    fn the_timer_is_cut_to_its_width_and_never_negative() {
        assert_eq!(timer_value(100, 100, 0, 0), 0);
        assert_eq!(timer_value(101, 100, 0, 0), 0);
        assert_eq!(timer_value(100, 130, 0, 24), 6);
        assert_eq!(timer_value(100, 130, 0, 99), 0);
        assert_eq!(timer_value(100, 163, 5, 0), 1);
        assert_eq!(timer_value(0, u64::MAX, 5, 0), u32::MAX);
    }

    fn windows() -> impl Strategy<Value = (u64, Vec<Window>)> {
        let pieces = proptest::collection::vec((0_u64..50, 1_u64..500), 1..8);
        (pieces, 0_u64..100).prop_map(|(pieces, tail)| {
            let mut next = 0;
            let mut list = Vec::new();
            for (number, (gap, length)) in pieces.into_iter().enumerate() {
                list.push(Window {
                    start: next + gap,
                    length,
                    budget: gap,
                    owner: Owner::Partition(number as u16),
                });
                next += gap + length;
            }
            (next + tail, list)
        })
    }

    proptest! {
        #[test]
        fn each_instant_has_the_owner_of_the_file(
            (frame, list) in windows(), epoch in 0_u64..1 << 40, number in 0_u64..1 << 20, offset in any::<u64>(),
        ) {
            let schedule = Schedule { epoch, frame, windows: &list };
            let offset = offset % frame;
            let now = epoch + number * frame + offset;
            let owners: Vec<_> = list.iter().filter(|w| w.start <= offset && offset < w.start + w.length).collect();
            prop_assert!(owners.len() <= 1);
            let slot = schedule.slot(schedule.first_not_ended(now));
            prop_assert!(slot.end > now);
            let running = (slot.start <= now).then_some(slot.owner);
            prop_assert_eq!(running, owners.first().map(|w| w.owner));
        }

        #[test]
        fn walking_is_the_same_as_jumping((frame, list) in windows(), epoch in 0_u64..1 << 40, away in 0_u64..20_000) {
            let schedule = Schedule { epoch, frame, windows: &list };
            let from = Cursor { frame: 3, index: list.len() - 1 };
            let now = schedule.slot(from).end + away;
            let mut walked = schedule.next(from);
            let mut missed = 0;
            while schedule.slot(walked).end <= now {
                walked = schedule.next(walked);
                missed += 1;
            }
            prop_assert_eq!(schedule.advance(from, now), Step { cursor: walked, missed });
        }

        #[test]
        fn windows_keep_their_length_and_order_for_ever((frame, list) in windows(), epoch in 0_u64..1 << 40) {
            let schedule = Schedule { epoch, frame, windows: &list };
            let mut cursor = Cursor { frame: 1_000_000, index: 0 };
            for window in list.iter().chain(&list) {
                let slot = schedule.slot(cursor);
                prop_assert_eq!(slot.end - slot.start, window.length);
                prop_assert_eq!(slot.start, epoch + slot.frame * frame + window.start);
                let next = schedule.next(cursor);
                prop_assert!(schedule.slot(next).start >= slot.end);
                cursor = next;
            }
        }

        #[test]
        fn nothing_panics_at_the_end_of_time(
            epoch in any::<u64>(), frame in any::<u64>(), start in any::<u64>(), length in any::<u64>(),
            number in any::<u64>(), index in any::<usize>(), now in any::<u64>(),
        ) {
            let list = [Window { start, length, budget: 0, owner: A }, Window { start: length, length: start, budget: 0, owner: B }];
            let schedule = Schedule { epoch, frame, windows: &list };
            let cursor = Cursor { frame: number, index };
            let _ = (schedule.slot(cursor), schedule.next(cursor), schedule.first_not_ended(now));
            prop_assert!(schedule.advance(cursor, now).cursor >= schedule.next(cursor));
        }

        #[test]
        fn the_timer_never_aims_late(now in any::<u64>(), wait in any::<u64>(), shift in 0_u32..32, lead in 0_u64..10_000) {
            let deadline = now.saturating_add(wait);
            let value = u64::from(timer_value(now, deadline, shift, lead));
            // It runs out at the value-th change of TSC bit `shift`.
            let fires = ((u128::from(now) >> shift) + u128::from(value)) << shift;
            prop_assert!(value == 0 || fires <= u128::from(deadline));
        }
    }
}
