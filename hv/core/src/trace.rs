//! What really ran: the last windows of a core, kept for the log, as a flight recorder keeps its last minutes.

use bulkhead_table::PlanId;

use crate::health::Party;

/// A window that ran, with the instants of its real beginning and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// Number of the frame.
    pub frame: u64,
    /// TSC just before the owner was entered.
    pub entered: u64,
    /// TSC when the owner was left for good: not later than the declared end, or overrun.
    pub left: u64,
    /// Plan of the frame.
    pub plan: PlanId,
    /// Index of the window in the core's list of that plan.
    pub window: u16,
    /// Who ran: the owner, or who received the time.
    pub ran: Party,
}

/// Bytes of a [`WindowRecord`] on the wire.
pub const RECORD_BYTES: usize = 30;

impl WindowRecord {
    /// As a part of a packet's payload.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..8].copy_from_slice(&self.frame.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.entered.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.left.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.plan.to_le_bytes());
        bytes[26..28].copy_from_slice(&self.window.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.ran.code().to_le_bytes());
        bytes
    }

    /// From the wire; `None` when the length is not [`RECORD_BYTES`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            frame: long(0)?,
            entered: long(8)?,
            left: long(16)?,
            plan: short(24)?,
            window: short(26)?,
            ran: Party::from_code(short(28)?),
        })
    }
}

/// The last `N` windows of a core; `N` may be 0, and then nothing is kept.
pub struct Trace<const N: usize> {
    records: [WindowRecord; N],
    /// Windows ever recorded.
    count: usize,
}

impl<const N: usize> Trace<N> {
    /// Nothing ran yet.
    #[must_use]
    pub const fn new() -> Self {
        const NOTHING: WindowRecord = WindowRecord {
            frame: 0,
            entered: 0,
            left: 0,
            plan: 0,
            window: 0,
            ran: Party::Hypervisor,
        };
        Self { records: [NOTHING; N], count: 0 }
    }

    /// Keeps a window, in place of the oldest.
    #[inline]
    pub const fn record(&mut self, record: WindowRecord) {
        if N > 0 {
            self.records[self.count % N] = record;
            self.count = self.count.wrapping_add(1);
        }
    }

    /// The kept windows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &WindowRecord> {
        let kept = self.count.min(N);
        let oldest = if N == 0 { 0 } else { (self.count - kept) % N };
        let (newer, older) = self.records.split_at(oldest.min(N));
        older.iter().chain(newer).take(kept)
    }
}

impl<const N: usize> Default for Trace<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn record(frame: u64) -> WindowRecord {
        WindowRecord { frame, entered: 1, left: 2, plan: 3, window: 4, ran: Party::Partition(5) }
    }

    proptest! {
        #[test]
        fn the_last_ones_are_kept_in_order(count in 0_u64..20) {
            let mut trace = Trace::<7>::new();
            (0..count).for_each(|frame| trace.record(record(frame)));
            let kept: Vec<_> = trace.iter().map(|record| record.frame).collect();
            prop_assert_eq!(kept, (count.saturating_sub(7)..count).collect::<Vec<_>>());
        }

        #[test]
        fn a_record_survives_the_wire(
            frame in any::<u64>(), entered in any::<u64>(), left in any::<u64>(), plan in any::<u16>(),
            window in any::<u16>(), ran in any::<u16>(),
        ) {
            let record = WindowRecord { frame, entered, left, plan, window, ran: Party::from_code(ran) };
            prop_assert_eq!(WindowRecord::from_bytes(&record.to_bytes()), Some(record));
        }
    }

    #[test]
    fn a_trace_of_nothing_keeps_nothing() {
        let mut trace = Trace::<0>::new();
        trace.record(record(1));
        assert_eq!(trace.iter().count(), 0);
    }
}
