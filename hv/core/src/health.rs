//! Health events: what went wrong with time, and who caused it. Told to the log as packets of their own.
//!
//! The health monitor (ARINC 653) gets each event with the offender named; nothing here stops anybody: a late window is an event,
//! never a panic and never drift, because every instant is computed from the epoch.

use bulkhead_table::{Owner, PartitionId};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// The switch into a window was not done at its declared start. `ticks`: how late it was.
    LateWindow,
    /// Windows passed whole before the core was free. `ticks`: how many.
    MissedWindows,
    /// Not of this version.
    Unknown(u8),
}

impl Incident {
    const fn code(self) -> u8 {
        match self {
            Self::LateWindow => 1,
            Self::MissedWindows => 2,
            Self::Unknown(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::LateWindow,
            2 => Self::MissedWindows,
            other => Self::Unknown(other),
        }
    }
}

/// Whose doing something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A partition.
    Partition(PartitionId),
    /// The hypervisor: its switch, its housekeeping, or the machine below it.
    Hypervisor,
}

/// No partition has this id: the table holds fewer.
const HYPERVISOR: u16 = u16::MAX;

impl Party {
    /// Of a window's owner.
    #[must_use]
    pub const fn of(owner: Option<Owner>) -> Self {
        match owner {
            Some(Owner::Partition(id)) => Self::Partition(id),
            Some(Owner::Housekeeping) | None => Self::Hypervisor,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Partition(id) => id,
            Self::Hypervisor => HYPERVISOR,
        }
    }

    /// The party of this number.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        if code == HYPERVISOR { Self::Hypervisor } else { Self::Partition(code) }
    }
}

/// Who is to blame for a switch that was not done in time: the owner of the window before, when it left the core later than half of
/// the switch budget behind its end; else the hypervisor, whose switch took too long. `left` and `end` are TSC values; `budget` is the
/// board's, in ticks, hygiene not counted.
#[must_use]
pub const fn offender(before: Option<Owner>, end: u64, left: u64, budget: u64) -> Party {
    if left.saturating_sub(end) > budget / 2 { Party::of(before) } else { Party::Hypervisor }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthEvent {
    /// What happened.
    pub incident: Incident,
    /// Whom it happened to.
    pub subject: Party,
    /// Who caused it.
    pub offender: Party,
    /// Number of the frame.
    pub frame: u64,
    /// As the incident says.
    pub ticks: u64,
}

/// Bytes of a [`HealthEvent`] on the wire.
pub const HEALTH_BYTES: usize = 24;

impl HealthEvent {
    /// As the payload of a packet.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEALTH_BYTES] {
        let mut bytes = [0; HEALTH_BYTES];
        bytes[0] = self.incident.code();
        bytes[2..4].copy_from_slice(&self.subject.code().to_le_bytes());
        bytes[4..6].copy_from_slice(&self.offender.code().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.frame.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ticks.to_le_bytes());
        bytes
    }

    /// From the payload of a packet; `None` when its length is not [`HEALTH_BYTES`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEALTH_BYTES] = bytes.try_into().ok()?;
        let [incident, _, s0, s1, o0, o1, _, _, rest @ ..] = *bytes;
        let (frame, ticks) = rest.split_at(8);
        Some(Self {
            incident: Incident::from_code(incident),
            subject: Party::from_code(u16::from_le_bytes([s0, s1])),
            offender: Party::from_code(u16::from_le_bytes([o0, o1])),
            frame: u64::from_le_bytes(frame.try_into().ok()?),
            ticks: u64::from_le_bytes(ticks.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_left_late_is_to_blame_and_else_the_switch() {
        let plc = Some(Owner::Partition(3));
        assert_eq!(offender(plc, 1_000, 1_600, 1_000), Party::Partition(3));
        assert_eq!(offender(plc, 1_000, 1_500, 1_000), Party::Hypervisor);
        assert_eq!(offender(plc, 1_000, 900, 1_000), Party::Hypervisor);
        assert_eq!(offender(Some(Owner::Housekeeping), 0, 9_000, 10), Party::Hypervisor);
        assert_eq!(offender(None, 0, 9_000, 10), Party::Hypervisor);
    }

    proptest! {
        #[test]
        fn an_event_survives_the_wire(
            code in any::<u8>(), subject in any::<u16>(), offender in any::<u16>(), frame in any::<u64>(), ticks in any::<u64>(),
        ) {
            let event = HealthEvent {
                incident: Incident::from_code(code),
                subject: Party::from_code(subject),
                offender: Party::from_code(offender),
                frame,
                ticks,
            };
            prop_assert_eq!(HealthEvent::from_bytes(&event.to_bytes()), Some(event));
        }

        #[test]
        fn other_lengths_are_no_event(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(HealthEvent::from_bytes(&bytes).is_some(), bytes.len() == HEALTH_BYTES);
        }
    }
}
