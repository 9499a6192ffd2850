//! The cyclic schedule of a time-shared core: which window stands when, by absolute arithmetic, in which plan.
//!
//! Every instant is epoch + frame number × frame + offset, never a sum of what was measured, so nothing drifts. All plans have one
//! frame length, so a change of plan moves no instant: it only changes which windows a numbered frame has.
//! Nothing loops over frames: however long a core was away, it finds its place by one division.
//! All times are TSC ticks; arithmetic saturates at the end of the 64-bit counter.

use bulkhead_table::{Owner, PartitionId, PlanId, Window};

/// Which plan which frame has: one word, so that all cores can share it in one atomic.
///
/// It holds the plan, the frame from which it holds, and the plan before that. A request names the running frame plus
/// [`PLAN_LEAD`], and another one is refused until that frame has begun: whoever looks up a frame that can run now, or the one behind
/// it, finds the same answer before and after the word changes, so no core can miss the edge and none need wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanWord(u64);

/// Frames from the running one to the first of a new plan.
pub const PLAN_LEAD: u64 = 2;

/// A request for a plan came while an earlier one waits for its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanPending;

/// Bits of the frame number: 2^48 frames of 100 us are 890 years.
const FRAME_BITS: u32 = 48;
const PLAN_MASK: u64 = 0xFF;

const _: () = assert!(bulkhead_table::MAX_PLANS <= PLAN_MASK as usize + 1);

impl PlanWord {
    /// The first plan, since the start.
    pub const START: Self = Self(0);

    const fn new(plan: PlanId, before: PlanId, from: u64) -> Self {
        let plans = (plan as u64 & PLAN_MASK) << 8 | (before as u64 & PLAN_MASK);
        Self(plans << FRAME_BITS | (from & ((1 << FRAME_BITS) - 1)))
    }

    /// As it is stored in an atomic.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From an atomic.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The plan that was asked for last.
    #[must_use]
    pub const fn plan(self) -> PlanId {
        (self.0 >> (FRAME_BITS + 8) & PLAN_MASK) as PlanId
    }

    /// The plan before it.
    #[must_use]
    pub const fn before(self) -> PlanId {
        (self.0 >> FRAME_BITS & PLAN_MASK) as PlanId
    }

    /// The frame from which [`Self::plan`] holds.
    #[must_use]
    pub const fn from_frame(self) -> u64 {
        self.0 & ((1 << FRAME_BITS) - 1)
    }

    /// The plan of frame number `frame`.
    #[must_use]
    pub const fn in_frame(self, frame: u64) -> PlanId {
        if frame >= self.from_frame() { self.plan() } else { self.before() }
    }

    /// The word after a request for `plan` in frame `now`.
    ///
    /// # Errors
    /// [`PlanPending`] while the last request waits for its frame.
    pub const fn request(self, plan: PlanId, now: u64) -> Result<Self, PlanPending> {
        if now < self.from_frame() {
            return Err(PlanPending);
        }
        Ok(Self::new(plan, self.plan(), now.saturating_add(PLAN_LEAD)))
    }
}

/// The windows of one core and where they are anchored.
///
/// The compiler proved that the windows of each plan are ascending, disjoint, not empty and inside the frame.
#[derive(Clone, Copy, Debug)]
pub struct Schedule<'t> {
    /// TSC of the start of frame 0.
    pub epoch: u64,
    /// Length of the major frame; not 0.
    pub frame: u64,
    /// Windows of one frame, by plan.
    pub plans: &'t [&'t [Window]],
}

/// A window of a numbered frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Frame number since the epoch.
    pub frame: u64,
    /// Index into the windows of the frame's plan.
    pub index: usize,
}

/// A window in absolute time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// TSC of the first instant of guest time.
    pub start: u64,
    /// TSC of the first instant behind it.
    pub end: u64,
    /// Who runs; `None` in a frame whose plan has no window on this core, which is idle from `start` to `end`.
    pub owner: Option<Owner>,
    /// Frame number.
    pub frame: u64,
}

/// The way from one window to the next that can still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The window to run now.
    pub cursor: Cursor,
    /// The same in absolute time.
    pub slot: Slot,
    /// Windows between the two that had passed whole.
    pub missed: u64,
}

impl<'t> Schedule<'t> {
    /// The windows of frame number `frame`.
    #[must_use]
    pub fn windows(&self, frame: u64, word: PlanWord) -> &'t [Window] {
        self.plans.get(usize::from(word.in_frame(frame))).copied().unwrap_or_default()
    }

    /// Number of the frame that runs at `now`; 0 before the epoch.
    #[must_use]
    pub fn frame_at(&self, now: u64) -> u64 {
        now.saturating_sub(self.epoch).checked_div(self.frame).unwrap_or(0)
    }

    /// TSC of the start of frame number `frame`.
    #[must_use]
    pub const fn frame_start(&self, frame: u64) -> u64 {
        self.epoch.saturating_add(self.frame.saturating_mul(frame))
    }

    /// The window at `cursor`. Where the plan of its frame has no such window, the whole frame is idle.
    #[must_use]
    pub fn slot(&self, cursor: Cursor, word: PlanWord) -> Slot {
        let base = self.frame_start(cursor.frame);
        let Some(window) = self.windows(cursor.frame, word).get(cursor.index) else {
            let end = base.saturating_add(self.frame);
            return Slot { start: base, end, owner: None, frame: cursor.frame };
        };
        let start = base.saturating_add(window.start);
        Slot {
            start,
            end: start.saturating_add(window.length),
            owner: Some(window.owner),
            frame: cursor.frame,
        }
    }

    /// The window behind `cursor`, passed or not.
    #[must_use]
    pub fn next(&self, cursor: Cursor, word: PlanWord) -> Cursor {
        let index = cursor.index.saturating_add(1);
        if index < self.windows(cursor.frame, word).len() {
            Cursor { frame: cursor.frame, index }
        } else {
            Cursor { frame: cursor.frame.saturating_add(1), index: 0 }
        }
    }

    /// The first window that ends after `now`: the running one, or the next to come. In a frame without windows, that frame.
    #[must_use]
    pub fn first_not_ended(&self, now: u64, word: PlanWord) -> Cursor {
        let frame = self.frame_at(now);
        let offset =
            now.saturating_sub(self.epoch).saturating_sub(frame.saturating_mul(self.frame));
        let windows = self.windows(frame, word);
        if windows.is_empty() {
            return Cursor { frame, index: 0 };
        }
        let ends_later = |window: &Window| window.start.saturating_add(window.length) > offset;
        match windows.iter().position(ends_later) {
            Some(index) => Cursor { frame, index },
            None => Cursor { frame: frame.saturating_add(1), index: 0 },
        }
    }

    /// The first window behind `cursor` that has not passed whole at `now`, and how many had.
    #[must_use]
    pub fn advance(&self, cursor: Cursor, now: u64, word: PlanWord) -> Step {
        let next = self.next(cursor, word);
        let slot = self.slot(next, word);
        if slot.end > now {
            Step { cursor: next, slot, missed: 0 }
        } else {
            self.skip(next, now, word)
        }
    }

    /// The first window from `next` on that has not passed whole; `next` has.
    #[cold]
    fn skip(&self, next: Cursor, now: u64, word: PlanWord) -> Step {
        let target = self.first_not_ended(now, word).max(next);
        let missed = self.ordinal(target, word).saturating_sub(self.ordinal(next, word));
        Step { cursor: target, slot: self.slot(target, word), missed }
    }

    /// Number of windows from the epoch to `cursor`, had the plans never been others than the word's two.
    fn ordinal(&self, cursor: Cursor, word: PlanWord) -> u64 {
        let count = |plan: PlanId| {
            self.plans.get(usize::from(plan)).map_or(0, |windows| windows.len() as u64)
        };
        let edge = word.from_frame().min(cursor.frame);
        let before = edge.saturating_mul(count(word.before()));
        let since = (cursor.frame - edge).saturating_mul(count(word.plan()));
        before.saturating_add(since).saturating_add(cursor.index as u64)
    }
}

/// No such window.
const NONE: u8 = u8::MAX;

const _: () = assert!(bulkhead_table::MAX_WINDOWS < NONE as usize);

/// Where the owner of each window has its next one: found once, so that a switch searches nothing. `P` plans, at most `W`
/// windows each, `N` partitions.
pub struct NextWindows<const P: usize, const W: usize, const N: usize> {
    /// By plan and window: the owner's next window in the same frame.
    later: [[u8; W]; P],
    /// By plan and partition: its first window in a frame.
    first: [[u8; N]; P],
}

impl<const P: usize, const W: usize, const N: usize> NextWindows<P, W, N> {
    /// From the windows of one core, by plan.
    #[must_use]
    pub fn new(plans: &[&[Window]]) -> Self {
        let mut next = Self { later: [[NONE; W]; P], first: [[NONE; N]; P] };
        let rows = next.later.iter_mut().zip(&mut next.first);
        for (windows, (later, first)) in plans.iter().zip(rows) {
            // From the last to the first: `first` holds the earliest seen so far.
            for (index, window) in windows.iter().enumerate().rev() {
                if let Owner::Partition(id) = window.owner
                    && let Some(seen) = first.get_mut(usize::from(id))
                    && let Some(slot) = later.get_mut(index)
                {
                    *slot = *seen;
                    *seen = index as u8;
                }
            }
        }
        next
    }

    /// The next window of partition `id`, which owns the one at `cursor`; `None` when the plan of the next frame has none.
    #[must_use]
    pub fn after(&self, cursor: Cursor, word: PlanWord, id: PartitionId) -> Option<Cursor> {
        let row = self.later.get(usize::from(word.in_frame(cursor.frame)))?;
        let later = *row.get(cursor.index)?;
        if later != NONE {
            return Some(Cursor { frame: cursor.frame, index: usize::from(later) });
        }
        let frame = cursor.frame.saturating_add(1);
        let row = self.first.get(usize::from(word.in_frame(frame)))?;
        let first = *row.get(usize::from(id))?;
        (first != NONE).then_some(Cursor { frame, index: usize::from(first) })
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
    const START: PlanWord = PlanWord::START;

    const fn window(start: u64, length: u64, owner: Owner) -> Window {
        Window { start, length, budget: 5, owner }
    }

    const WINDOWS: [Window; 2] = [window(10, 30, A), window(50, 40, B)];
    const OTHER: [Window; 1] = [window(5, 90, B)];

    fn demo<'t>(plans: &'t [&'t [Window]]) -> Schedule<'t> {
        Schedule { epoch: 1000, frame: 100, plans }
    }

    #[test]
    fn windows_stand_at_their_absolute_places() {
        let schedule = demo(&[&WINDOWS]);
        let at = |frame, index| schedule.slot(Cursor { frame, index }, START);
        assert_eq!(at(0, 0), Slot { start: 1010, end: 1040, owner: Some(A), frame: 0 });
        assert_eq!(at(2, 1), Slot { start: 1250, end: 1290, owner: Some(B), frame: 2 });
        let late = at(1_000_000, 0);
        assert_eq!(late.start, 1000 + 1_000_000 * 100 + 10);
        let next = schedule.next(Cursor { frame: 0, index: 1 }, START);
        assert_eq!(next, Cursor { frame: 1, index: 0 });
    }

    #[test]
    fn the_first_window_not_ended_is_found_at_each_edge() {
        let schedule = demo(&[&WINDOWS]);
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
            assert_eq!(schedule.first_not_ended(now, START), Cursor { frame, index }, "{now}");
        }
    }

    #[test]
    fn a_late_core_skips_what_passed_and_counts_it() {
        let schedule = demo(&[&WINDOWS]);
        let from = Cursor { frame: 0, index: 0 };
        let step = |now| {
            let step = schedule.advance(from, now, START);
            assert_eq!(step.slot, schedule.slot(step.cursor, START));
            (step.cursor.frame, step.cursor.index, step.missed)
        };
        assert_eq!(step(1040), (0, 1, 0));
        assert_eq!(step(1089), (0, 1, 0));
        assert_eq!(step(1090), (1, 0, 1));
        assert_eq!(step(1000 + 100 * 1000), (1000, 0, 1999));
    }

    #[test]
    fn windows_that_pass_across_a_change_of_plan_are_counted_by_their_own_plans() {
        let schedule = demo(&[&WINDOWS, &OTHER]);
        let word = START.request(1, 0).unwrap();
        // Frames 0 and 1 have two windows each, frames 2 to 9 one each.
        let step = schedule.advance(Cursor { frame: 0, index: 0 }, 1000 + 10 * 100, word);
        assert_eq!((step.cursor, step.missed), (Cursor { frame: 10, index: 0 }, 3 + 8));
    }

    #[test]
    fn a_single_window_follows_itself() {
        let one = [window(0, 100, A)];
        let plans: [&[Window]; 1] = [&one];
        let step = demo(&plans).advance(Cursor::default(), 1100, START);
        assert_eq!((step.cursor, step.missed), (Cursor { frame: 1, index: 0 }, 0));
    }

    #[test]
    fn a_frame_without_windows_is_idle_as_a_whole() {
        let schedule = demo(&[&WINDOWS, &[]]);
        let word = START.request(1, 0).unwrap();
        let cursor = schedule.next(Cursor { frame: 1, index: 1 }, word);
        let idle = Slot { start: 1200, end: 1300, owner: None, frame: 2 };
        assert_eq!((cursor, schedule.slot(cursor, word)), (Cursor { frame: 2, index: 0 }, idle));
        assert_eq!(schedule.first_not_ended(1250, word), Cursor { frame: 2, index: 0 });
        assert_eq!(schedule.next(cursor, word), Cursor { frame: 3, index: 0 });
    }

    #[test]
    fn no_plan_and_no_frame_do_not_panic() {
        let schedule = Schedule { epoch: 5, frame: 0, plans: &[] };
        assert_eq!(schedule.slot(schedule.first_not_ended(77, START), START).owner, None);
        assert_eq!(schedule.advance(Cursor::default(), u64::MAX, START).cursor.index, 0);
    }

    #[test]
    fn the_schedule_never_goes_back_even_at_the_end_of_the_counter() {
        let schedule = Schedule { epoch: u64::MAX - 10, frame: 100, plans: &[&WINDOWS] };
        let from = Cursor { frame: 5, index: 0 };
        assert_eq!(schedule.advance(from, u64::MAX, START).cursor, schedule.next(from, START));
    }

    #[test]
    fn a_request_takes_effect_two_frames_on_and_the_next_must_wait_for_it() {
        let word = START.request(3, 7).unwrap();
        assert_eq!((word.plan(), word.before(), word.from_frame()), (3, 0, 9));
        assert_eq!([7, 8, 9, 10].map(|frame| word.in_frame(frame)), [0, 0, 3, 3]);
        assert_eq!(word.request(1, 8), Err(PlanPending));
        let back = word.request(1, 9).unwrap();
        assert_eq!([9, 10, 11].map(|frame| back.in_frame(frame)), [3, 3, 1]);
        assert_eq!(PlanWord::from_bits(back.to_bits()), back);
        assert_eq!(START.in_frame(0), 0);
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

    /// Windows of one plan within `frame` ticks, as (gap, length) pairs cut to what fits.
    fn cut(frame: u64, pieces: &[(u64, u64)]) -> Vec<Window> {
        let mut next = 0;
        let mut list = Vec::new();
        for (number, (gap, length)) in pieces.iter().enumerate() {
            let start = next + gap;
            if start + length > frame {
                break;
            }
            list.push(window(start, *length, Owner::Partition(number as u16)));
            next = start + length;
        }
        list
    }

    /// A frame and one to four plans, some without any window.
    fn plans() -> impl Strategy<Value = (u64, Vec<Vec<Window>>)> {
        let pieces = proptest::collection::vec((0_u64..50, 1_u64..500), 0..8);
        (200_u64..2_000, proptest::collection::vec(pieces, 1..5)).prop_map(|(frame, plans)| {
            let lists: Vec<_> = plans.iter().map(|pieces| cut(frame, pieces)).collect();
            (frame, lists)
        })
    }

    fn borrowed(plans: &[Vec<Window>]) -> Vec<&[Window]> {
        plans.iter().map(Vec::as_slice).collect()
    }

    /// A word as a chain of requests leaves it.
    fn word(requests: &[(u16, u64)], plans: usize) -> PlanWord {
        requests.iter().fold(PlanWord::START, |word, (plan, wait)| {
            word.request(plan % plans as u16, word.from_frame() + wait).unwrap()
        })
    }

    fn requests() -> impl Strategy<Value = Vec<(u16, u64)>> {
        proptest::collection::vec((any::<u16>(), 0_u64..20), 0..4)
    }

    proptest! {
        #[test]
        fn each_instant_has_the_one_owner_of_the_file(
            (frame, lists) in plans(), requests in requests(), epoch in 0_u64..1 << 40, number in 0_u64..100,
            offset in any::<u64>(),
        ) {
            let plans = borrowed(&lists);
            let schedule = Schedule { epoch, frame, plans: &plans };
            let word = word(&requests, plans.len());
            let offset = offset % frame;
            let now = epoch + number * frame + offset;
            let list = &lists[usize::from(word.in_frame(number))];
            let owners: Vec<_> = list.iter().filter(|w| w.start <= offset && offset < w.start + w.length).collect();
            prop_assert!(owners.len() <= 1);
            let slot = schedule.slot(schedule.first_not_ended(now, word), word);
            prop_assert!(slot.end > now);
            let running = if slot.start <= now { slot.owner } else { None };
            prop_assert_eq!(running, owners.first().map(|w| w.owner));
        }

        #[test]
        fn walking_is_the_same_as_jumping(
            (frame, lists) in plans(), requests in requests(), epoch in 0_u64..1 << 40, away in 0_u64..20_000,
        ) {
            let plans = borrowed(&lists);
            let schedule = Schedule { epoch, frame, plans: &plans };
            let word = word(&requests, plans.len());
            let from = Cursor { frame: 3, index: schedule.windows(3, word).len().saturating_sub(1) };
            let now = schedule.slot(from, word).end + away;
            let mut walked = schedule.next(from, word);
            let mut missed = 0;
            while schedule.slot(walked, word).end <= now {
                missed += u64::from(schedule.slot(walked, word).owner.is_some());
                walked = schedule.next(walked, word);
            }
            let slot = schedule.slot(walked, word);
            prop_assert_eq!(schedule.advance(from, now, word), Step { cursor: walked, slot, missed });
        }

        #[test]
        fn every_window_gets_its_declared_time_to_the_tick_for_ever(
            (frame, lists) in plans(), requests in requests(), epoch in 0_u64..1 << 40, first in 0_u64..1 << 30,
        ) {
            let plans = borrowed(&lists);
            let schedule = Schedule { epoch, frame, plans: &plans };
            let word = word(&requests, plans.len());
            let mut cursor = Cursor { frame: first, index: 0 };
            let mut free_from = 0;
            while cursor.frame < first + 6 {
                let slot = schedule.slot(cursor, word);
                prop_assert!(slot.start >= free_from);
                if let Some(declared) = schedule.windows(cursor.frame, word).get(cursor.index) {
                    prop_assert_eq!(slot.end - slot.start, declared.length);
                    prop_assert_eq!(slot.start, epoch + slot.frame * frame + declared.start);
                }
                free_from = slot.end;
                cursor = schedule.next(cursor, word);
            }
        }

        #[test]
        fn the_next_window_of_an_owner_is_the_one_that_walking_finds(
            (frame, lists) in plans(), owners in proptest::collection::vec(0_u16..3, 8), requests in requests(), start in 0_u64..20,
        ) {
            let lists: Vec<Vec<Window>> = lists
                .iter()
                .map(|list| list.iter().zip(&owners).map(|(w, id)| Window { owner: Owner::Partition(*id), ..*w }).collect())
                .collect();
            let plans = borrowed(&lists);
            let schedule = Schedule { epoch: 0, frame, plans: &plans };
            let word = word(&requests, plans.len());
            let next = NextWindows::<4, 8, 3>::new(&plans);
            for (index, window) in schedule.windows(start, word).iter().enumerate() {
                let from = Cursor { frame: start, index };
                let mut walked = schedule.next(from, word);
                while walked.frame <= start + 1 && schedule.slot(walked, word).owner != Some(window.owner) {
                    walked = schedule.next(walked, word);
                }
                let expected = (walked.frame <= start + 1).then_some(walked);
                let Owner::Partition(id) = window.owner else { unreachable!() };
                prop_assert_eq!(next.after(from, word, id), expected);
            }
        }

        /// The word as it is before and after a request gives the same answer for every frame that a core can be looking up: the
        /// running one and the one behind it. And no frame has windows of two plans.
        #[test]
        fn a_plan_switch_splits_no_frame_and_no_core_can_miss_it(
            requests in requests(), asked in 0_u16..4, now in 0_u64..200,
        ) {
            let before = word(&requests, 4);
            let Ok(after) = before.request(asked, now) else {
                prop_assert!(now < before.from_frame());
                return Ok(());
            };
            for frame in [now, now + 1] {
                prop_assert_eq!(after.in_frame(frame), before.in_frame(frame));
            }
            prop_assert!((now + 2..now + 9).all(|frame| after.in_frame(frame) == asked));
        }

        #[test]
        fn nothing_panics_at_the_end_of_time(
            epoch in any::<u64>(), frame in any::<u64>(), start in any::<u64>(), length in any::<u64>(),
            number in any::<u64>(), index in any::<usize>(), now in any::<u64>(), bits in any::<u64>(),
        ) {
            let list = [window(start, length, A), window(length, start, B)];
            let plans: [&[Window]; 2] = [&list, &[]];
            let schedule = Schedule { epoch, frame, plans: &plans };
            let word = PlanWord::from_bits(bits);
            let cursor = Cursor { frame: number, index };
            let _ = (schedule.slot(cursor, word), schedule.next(cursor, word), schedule.first_not_ended(now, word));
            let _ = word.request(3, now);
            prop_assert!(schedule.advance(cursor, now, word).cursor >= schedule.next(cursor, word));
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
