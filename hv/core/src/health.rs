//! Incidents: what went wrong, to whom, and who caused it. One small binary record for all of them.
//!
//! The run loop makes an [`Incident`] where it happens and leaves it in a [`Queue`], in a few dozen instructions without formatting.
//! Housekeeping takes it out and sends it; the `bulkhead` command turns it into words. Nothing here stops anybody: a late window is an
//! incident, never a panic and never drift, because every instant is computed from the epoch.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bulkhead_table::{Owner, PartitionId};

use crate::exit::{Denial, Violation};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The switch into a window was not done at its declared start.
    LateWindow {
        /// How late it was.
        ticks: u64,
    },
    /// Windows passed whole before the core was free.
    MissedWindows {
        /// How many.
        count: u64,
    },
    /// A partition did what it may not, and is stopped.
    Violation {
        /// What it did.
        violation: Violation,
        /// Where its guest was.
        rip: u64,
    },
    /// A partition with the platform of a PC tried something of a kind for the first time that the table does not grant.
    Refusal {
        /// The kind.
        denial: Denial,
        /// Port or MSR number; 0 for the other kinds.
        detail: u64,
        /// Where its guest was.
        rip: u64,
    },
    /// A partition starts again.
    Restart {
        /// Number of the restart, from 1 on.
        number: u32,
        /// Its processor shut down by a triple fault.
        fault: bool,
    },
    /// A partition switched itself off.
    Off,
    /// Non-maskable interrupts that no partition owns came to a time-shared core from the machine, and were dropped.
    MachineNmi {
        /// How many.
        count: u64,
        /// Board CPU number of the core.
        cpu: u64,
    },
    /// The processor did not take the state of a vCPU, which is a defect of the hypervisor; its partition is stopped.
    EntryFailed {
        /// VM-instruction error, SDM 3D 31.4.
        error: u64,
    },
    /// Not of this version.
    Unknown(u8),
}

impl What {
    /// Whether it went wrong with time: somebody got less of it, or got it later, than the table says.
    #[must_use]
    pub const fn is_of_time(&self) -> bool {
        matches!(
            self,
            Self::LateWindow { .. }
                | Self::MissedWindows { .. }
                | Self::MachineNmi { .. }
                | Self::Unknown(_)
        )
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

/// How the time before a window was spent, in ticks, up to the instant when the switch into it was done.
///
/// The compiler keeps the board's switch budget and the declared cost of cleaning free between two windows. The budget has three
/// shares, one for each of the first three fields. While nobody exceeds a share, the switch is done in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// From the end of the window before to the instant when its guest was left for good: its last exit.
    pub overrun: u64,
    /// The hypervisor's own steps: deciding, saving, loading, cleaning.
    pub switch: u64,
    /// What was done for the next vCPU: its reset or start-up, the interrupts that came for it, its timer, its schedule page.
    pub arrival: u64,
    /// The board's switch budget.
    pub budget: u64,
    /// The declared cost of cleaning before this window.
    pub cleaning: u64,
}

/// The share of a switch budget that the last exit of the window before may take: a quarter.
#[must_use]
pub const fn last_exit_share(budget: u64) -> u64 {
    budget / 4
}

/// The share of what is done for the next vCPU: a third.
const fn arrival_share(budget: u64) -> u64 {
    budget / 3
}

impl Passage {
    /// Who is to blame for a switch that was not done in time: who exceeded a share by most. `before` ran last, `next` runs next.
    /// Nobody exceeds a share only where less than the budget was free: then the hypervisor is.
    #[must_use]
    pub fn offender(&self, before: Party, next: Party) -> Party {
        let (last_exit, arrival) = (last_exit_share(self.budget), arrival_share(self.budget));
        let own = (self.budget - last_exit - arrival).saturating_add(self.cleaning);
        let excess = [
            (self.switch.saturating_sub(own), Party::Hypervisor),
            (self.overrun.saturating_sub(last_exit), before),
            (self.arrival.saturating_sub(arrival), next),
        ];
        let worst = |one: (u64, Party), other: (u64, Party)| {
            if other.0 > one.0 { other } else { one }
        };
        excess.into_iter().fold((0, Party::Hypervisor), worst).1
    }
}

/// One incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What happened.
    pub what: What,
    /// Whom it happened to.
    pub subject: Party,
    /// Who caused it.
    pub offender: Party,
    /// Number of the frame; 0 in a system without frames.
    pub frame: u64,
}

/// Words of an [`Incident`] on its way.
const WORDS: usize = 4;

/// Bytes of an [`Incident`] on the wire.
pub const INCIDENT_BYTES: usize = WORDS * 8;

const LATE_WINDOW: u8 = 1;
const MISSED_WINDOWS: u8 = 2;
const VIOLATION: u8 = 3;
const REFUSAL: u8 = 4;
const RESTART: u8 = 5;
const OFF: u8 = 6;
const ENTRY_FAILED: u8 = 7;
const MACHINE_NMI: u8 = 8;

/// Bits of the flags of [`Violation::Memory`] and [`What::Restart`].
const WRITE: u8 = 1;
const FETCH: u8 = 2;
const FAULT: u8 = 1;

/// The part of a record that depends on what happened: code, kind, flags, and two words.
type Body = (u8, u8, u8, u64, u64);

impl What {
    fn body(&self) -> Body {
        match *self {
            Self::LateWindow { ticks } => (LATE_WINDOW, 0, 0, ticks, 0),
            Self::MissedWindows { count } => (MISSED_WINDOWS, 0, 0, count, 0),
            Self::Violation { violation, rip } => {
                let (kind, flags, detail) = violation_body(violation);
                (VIOLATION, kind, flags, detail, rip)
            }
            // From 1 on, so that 0 is the kind of nothing.
            Self::Refusal { denial, detail, rip } => (REFUSAL, denial as u8 + 1, 0, detail, rip),
            Self::Restart { number, fault } => {
                (RESTART, 0, if fault { FAULT } else { 0 }, number.into(), 0)
            }
            Self::Off => (OFF, 0, 0, 0, 0),
            Self::EntryFailed { error } => (ENTRY_FAILED, 0, 0, error, 0),
            Self::MachineNmi { count, cpu } => (MACHINE_NMI, 0, 0, count, cpu),
            Self::Unknown(code) => (code, 0, 0, 0, 0),
        }
    }

    fn from_body((code, kind, flags, first, second): Body) -> Self {
        let known = match code {
            LATE_WINDOW => Some(Self::LateWindow { ticks: first }),
            MISSED_WINDOWS => Some(Self::MissedWindows { count: first }),
            VIOLATION => violation_from(kind, flags, first)
                .map(|violation| Self::Violation { violation, rip: second }),
            REFUSAL => kind
                .checked_sub(1)
                .and_then(|code| Denial::from_code(code.into()))
                .map(|denial| Self::Refusal { denial, detail: first, rip: second }),
            RESTART => Some(Self::Restart { number: first as u32, fault: flags & FAULT != 0 }),
            OFF => Some(Self::Off),
            ENTRY_FAILED => Some(Self::EntryFailed { error: first }),
            MACHINE_NMI => Some(Self::MachineNmi { count: first, cpu: second }),
            _ => None,
        };
        known.unwrap_or(Self::Unknown(code))
    }
}

/// Kind, flags and detail of a violation on the wire.
const fn violation_body(violation: Violation) -> (u8, u8, u64) {
    match violation {
        Violation::Memory { address, write, fetch } => {
            (1, if write { WRITE } else { 0 } | if fetch { FETCH } else { 0 }, address)
        }
        Violation::TripleFault => (2, 0, 0),
        Violation::TaskSwitch => (3, 0, 0),
        Violation::InvalidState => (4, 0, 0),
        Violation::PaePaging => (5, 0, 0),
        Violation::Reset => (6, 0, 0),
        Violation::MachineCheck => (7, 0, 0),
        Violation::Unknown(code) => (8, 0, code as u64),
    }
}

const fn violation_from(kind: u8, flags: u8, detail: u64) -> Option<Violation> {
    Some(match kind {
        1 => Violation::Memory {
            address: detail,
            write: flags & WRITE != 0,
            fetch: flags & FETCH != 0,
        },
        2 => Violation::TripleFault,
        3 => Violation::TaskSwitch,
        4 => Violation::InvalidState,
        5 => Violation::PaePaging,
        6 => Violation::Reset,
        7 => Violation::MachineCheck,
        8 => Violation::Unknown(detail as u32),
        _ => return None,
    })
}

impl Incident {
    /// Of a partition that did it to itself.
    #[must_use]
    pub const fn own(what: What, partition: PartitionId, frame: u64) -> Self {
        let party = Party::Partition(partition);
        Self { what, subject: party, offender: party, frame }
    }

    /// As words: code, kind, subject, offender and flags in the first, then the frame, then two that depend on the code.
    fn to_words(self) -> [u64; WORDS] {
        let (code, kind, flags, first, second) = self.what.body();
        let head = u64::from(code)
            | u64::from(kind) << 8
            | u64::from(self.subject.code()) << 16
            | u64::from(self.offender.code()) << 32
            | u64::from(flags) << 48;
        [head, self.frame, first, second]
    }

    /// From the payload of a packet; `None` when its length is not [`INCIDENT_BYTES`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let [head, frame, first, second] = *<&[[u8; 8]; WORDS]>::try_from(words).ok()?;
        let [code, kind, s0, s1, o0, o1, flags, _] = head;
        let [frame, first, second] = [frame, first, second].map(u64::from_le_bytes);
        Some(Self {
            what: What::from_body((code, kind, flags, first, second)),
            subject: Party::from_code(u16::from_le_bytes([s0, s1])),
            offender: Party::from_code(u16::from_le_bytes([o0, o1])),
            frame,
        })
    }

    /// As the payload of a packet.
    #[must_use]
    pub fn to_bytes(self) -> [u8; INCIDENT_BYTES] {
        to_bytes(self.to_words())
    }
}

fn to_bytes(words: [u64; WORDS]) -> [u8; INCIDENT_BYTES] {
    let mut bytes = [0; INCIDENT_BYTES];
    for (piece, word) in bytes.chunks_exact_mut(8).zip(words) {
        piece.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// An incident that waits to be told: the TSC when it was recorded, and its words.
struct Slot([AtomicU64; 1 + WORDS]);

/// Incidents of one core on their way to housekeeping: at most `N`, a power of two. One core records, one core takes, and neither waits.
/// One that finds no room is dropped and counted.
pub struct Queue<const N: usize> {
    /// Incidents ever recorded, wrapping. Written by the producer only.
    head: AtomicUsize,
    /// Incidents ever taken, wrapping. Written by the consumer only.
    tail: AtomicUsize,
    lost: AtomicU32,
    slots: [Slot; N],
}

impl<const N: usize> Queue<N> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "positions are masked") };
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            lost: AtomicU32::new(0),
            slots: [const { Slot([const { AtomicU64::new(0) }; 1 + WORDS]) }; N],
        }
    }

    /// Producer: keeps an incident that was seen at `tsc`. Takes the same few instructions whatever happened.
    pub fn record(&self, tsc: u64, incident: Incident) {
        let head = self.head.load(Ordering::Relaxed);
        // Acquire: the consumer has read what is about to be overwritten.
        if head.wrapping_sub(self.tail.load(Ordering::Acquire)) >= N {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Slot([when, words @ ..]) = &self.slots[head & (N - 1)];
        when.store(tsc, Ordering::Relaxed);
        for (place, word) in words.iter().zip(incident.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
        // Release: whoever sees the new head sees the words.
        self.head.store(head.wrapping_add(1), Ordering::Release);
    }

    /// Consumer: takes the oldest incident out, as the TSC when it was seen and the payload of its packet.
    pub fn take(&self) -> Option<(u64, [u8; INCIDENT_BYTES])> {
        let tail = self.tail.load(Ordering::Relaxed);
        if self.head.load(Ordering::Acquire) == tail {
            return None;
        }
        let Slot([when, words @ ..]) = &self.slots[tail & (N - 1)];
        let tsc = when.load(Ordering::Relaxed);
        let words = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        // Release: the producer may overwrite the slot from here on.
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some((tsc, to_bytes(words)))
    }

    /// Consumer: how many were dropped since the last call.
    pub fn take_lost(&self) -> u32 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Queue<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BUDGET: u64 = 1250;
    const BEFORE: Party = Party::Partition(1);
    const NEXT: Party = Party::Partition(2);

    fn passage(overrun: u64, switch: u64, arrival: u64) -> Passage {
        Passage { overrun, switch, arrival, budget: BUDGET, cleaning: 0 }
    }

    #[test]
    fn who_exceeds_a_share_is_to_blame() {
        let offender = |it: Passage| it.offender(BEFORE, NEXT);
        // A quarter, five twelfths and a third: 312, 522 and 416.
        assert_eq!(offender(passage(800, 475, 360)), BEFORE, "it left late");
        assert_eq!(offender(passage(400, 475, 400)), BEFORE, "less than half of the budget late");
        assert_eq!(offender(passage(100, 900, 360)), Party::Hypervisor, "its steps took long");
        assert_eq!(offender(passage(100, 475, 900)), NEXT, "it had much to take");
        assert_eq!(offender(passage(500, 700, 900)), NEXT, "who exceeds it by most");
        assert_eq!(offender(passage(0, 0, 0)), Party::Hypervisor, "nobody: then it is ours");
        let cleaned = Passage { cleaning: 500, ..passage(320, 1000, 0) };
        assert_eq!(offender(cleaned), BEFORE, "cleaning that was declared is nobody's fault");
    }

    /// A window of the generated sequences: the gap in front of it, its length, who owns it, and how long each part took.
    #[derive(Clone, Copy, Debug)]
    struct Turn {
        spare: u64,
        length: u64,
        owner: u16,
        overrun: u64,
        switch: u64,
        arrival: u64,
        cleaning: u64,
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let own = BUDGET - last_exit_share(BUDGET) - arrival_share(BUDGET);
        let fair = (0..=last_exit_share(BUDGET), 0..=own, 0..=arrival_share(BUDGET));
        let place = (0..3_000_u64, 3_000..9_000_u64, 0..4_u16, 0..500_u64);
        (place, fair).prop_map(|((spare, length, owner, cleaning), (overrun, switch, arrival))| {
            Turn { spare, length, owner, overrun, switch, arrival, cleaning }
        })
    }

    /// Runs the sequence by absolute instants, and returns each late window with who is blamed for it.
    fn late(turns: &[Turn]) -> Vec<(usize, Party)> {
        let (mut end, mut left, mut before) = (0, 0, Party::Hypervisor);
        let mut late = Vec::new();
        for (number, turn) in turns.iter().enumerate() {
            let start = end + BUDGET + turn.cleaning + turn.spare;
            let passage = Passage {
                overrun: left - end,
                switch: turn.switch,
                arrival: turn.arrival,
                budget: BUDGET,
                cleaning: turn.cleaning,
            };
            let ready = left + turn.switch + turn.arrival;
            let owner = Party::Partition(turn.owner);
            if ready > start {
                late.push((number, passage.offender(before, owner)));
            }
            end = start + turn.length;
            left = end.max(ready) + turn.overrun;
            before = owner;
        }
        late
    }

    proptest! {
        #[test]
        fn within_their_shares_nobody_is_late(turns in proptest::collection::vec(turn(), 1..40)) {
            prop_assert_eq!(late(&turns), []);
        }

        #[test]
        fn the_offender_is_whose_work_made_the_window_late(
            turns in proptest::collection::vec(turn(), 3..40), at in any::<proptest::sample::Index>(), whose in 0..3, by in 3_000..5_000_u64,
        ) {
            let mut turns = turns;
            let at = at.index(turns.len() - 1);
            // The fault is planted around the window behind `at`.
            let next = at + 1;
            turns[next].spare = 0;
            let culprit = match whose {
                0 => { turns[at].overrun += by; Party::Partition(turns[at].owner) }
                1 => { turns[next].switch += by; Party::Hypervisor }
                _ => { turns[next].arrival += by; Party::Partition(turns[next].owner) }
            };
            let blamed = late(&turns);
            prop_assert_eq!(blamed.first(), Some(&(next, culprit)));
        }

        #[test]
        fn an_incident_survives_the_wire(
            code in 0..12_u8, kind in 0..10_u8, flags in 0..4_u8, subject in any::<u16>(), offender in any::<u16>(),
            frame in any::<u64>(), first in any::<u32>(), second in any::<u64>(),
        ) {
            let what = What::from_body((code, kind, flags, first.into(), second));
            let incident = Incident {
                what,
                subject: Party::from_code(subject),
                offender: Party::from_code(offender),
                frame,
            };
            prop_assert_eq!(Incident::from_bytes(&incident.to_bytes()), Some(incident));
        }

        #[test]
        fn other_lengths_are_no_incident(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Incident::from_bytes(&bytes).is_some(), bytes.len() == INCIDENT_BYTES);
        }

        #[test]
        fn a_queue_keeps_the_first_and_counts_the_rest(steps in proptest::collection::vec(any::<bool>(), 0..80)) {
            let queue = Queue::<4>::new();
            let (mut kept, mut next, mut lost) = (std::collections::VecDeque::new(), 0, 0);
            for records in steps {
                if records {
                    let incident = Incident::own(What::MissedWindows { count: next }, 7, next);
                    queue.record(next, incident);
                    if kept.len() < 4 { kept.push_back((next, incident.to_bytes())) } else { lost += 1 }
                    next += 1;
                } else {
                    prop_assert_eq!(queue.take(), kept.pop_front());
                }
            }
            prop_assert_eq!(queue.take_lost(), lost);
            prop_assert_eq!(queue.take_lost(), 0);
        }
    }

    #[test]
    fn every_violation_and_every_refusal_survives_the_wire() {
        let violations = [
            Violation::Memory { address: 9, write: true, fetch: false },
            Violation::Memory { address: 9, write: false, fetch: true },
            Violation::TripleFault,
            Violation::TaskSwitch,
            Violation::InvalidState,
            Violation::PaePaging,
            Violation::Reset,
            Violation::MachineCheck,
            Violation::Unknown(77),
        ];
        let denials = (0..).map_while(Denial::from_code);
        let whats = violations
            .map(|violation| What::Violation { violation, rip: 5 })
            .into_iter()
            .chain(denials.map(|denial| What::Refusal { denial, detail: 0x60, rip: 5 }));
        let mut count = 0;
        for what in whats {
            let incident = Incident::own(what, 3, 11);
            assert_eq!(Incident::from_bytes(&incident.to_bytes()), Some(incident));
            count += 1;
        }
        assert_eq!(count, violations.len() + crate::exit::DENIALS);
    }
}
