//! Inter-processor interrupts: which vCPUs of the sender's own partition a command reaches, and by what.
//!
//! The virtual machine of a partition has the partition's vCPUs and no other processors. A command that names a
//! processor outside of it, or that reaches nobody, is denied whole; "all" and "all but self" mean the partition's vCPUs.
//! SDM 3A 11.6 (commands), 11.12.9 and 11.12.10 (x2APIC mode).

use bulkhead_table::MAX_VCPUS;
use hv_defs::apic::{delivery, icr};

/// Vectors below this are reserved for exceptions. SDM 3A 11.5.2.
pub const FIRST_LEGAL_VECTOR: u8 = 16;

/// A set of vCPUs of one partition, by their numbers in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets(u64);

const _: () = assert!(MAX_VCPUS <= u64::BITS as usize);

impl Targets {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// The set of one vCPU; a number from [`MAX_VCPUS`] on is nobody's.
    #[must_use]
    pub const fn one(vcpu: usize) -> Self {
        Self(if vcpu < MAX_VCPUS { 1 << vcpu } else { 0 })
    }

    /// The vCPUs 0 to `count` - 1.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        Self(if count < MAX_VCPUS { (1 << count) - 1 } else { u64::MAX })
    }

    /// Whether there is nobody in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `vcpu` is in it.
    #[must_use]
    pub const fn contains(self, vcpu: usize) -> bool {
        self.0 & Self::one(vcpu).0 != 0
    }

    /// These without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The only member, if there is exactly one.
    #[must_use]
    pub const fn only(self) -> Option<usize> {
        if self.0.is_power_of_two() { Some(self.0.trailing_zeros() as usize) } else { None }
    }
}

impl Iterator for Targets {
    type Item = usize;

    /// Takes the lowest member out.
    fn next(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let lowest = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(lowest)
    }
}

/// What an inter-processor interrupt does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary interrupt with this vector.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Resets the processor, which then waits for its start-up interrupt.
    Init,
    /// Starts a processor that waits, in real mode at this number times 4096. SDM 3A 11.4.4.
    StartUp(u8),
}

/// A command that is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// Whom it reaches. Never empty.
    pub targets: Targets,
    /// What it does.
    pub kind: Kind,
}

/// What a vCPU of a time-shared core has still to do for others of its partition, one after the other, as its window has time for it.
///
/// The vCPU executes no instruction before it is done. So commands reach each target in the order in which they were given, and none is
/// lost: what is left at the end of a window is done at the start of the vCPU's next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errand {
    targets: Targets,
    kind: Kind,
}

impl Errand {
    /// Nothing to do.
    pub const NONE: Self = Self { targets: Targets::NONE, kind: Kind::Nmi };

    /// To carry out a command.
    #[must_use]
    pub const fn of(ipi: Ipi) -> Self {
        Self { targets: ipi.targets, kind: ipi.kind }
    }

    /// Whether nothing is left.
    #[must_use]
    #[inline(always)]
    pub const fn is_done(&self) -> bool {
        self.targets.is_empty()
    }

    /// Takes the next target out, with what it gets.
    pub fn take(&mut self) -> Option<(usize, Kind)> {
        Some((self.targets.next()?, self.kind))
    }
}

/// What becomes of an interrupt command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this.
    Send(Ipi),
    /// A legal command that changes nothing.
    Nothing,
    /// #GP(0), counted.
    Deny,
}

/// The vCPUs of one partition, as the APIC of one of them addresses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers {
    /// APIC ids by vCPU number; no two are equal.
    ids: &'static [u32],
    own: usize,
    own_id: u32,
}

/// The vCPU that a partition starts with, as firmware's bootstrap processor is on a bare machine.
pub const BOOTSTRAP: usize = 0;

impl Peers {
    /// A vCPU with number `own` among those with these APIC ids.
    #[must_use]
    pub const fn new(ids: &'static [u32], own: usize) -> Self {
        let own_id = if own < ids.len() { ids[own] } else { 0 };
        Self { ids, own, own_id }
    }

    /// How many vCPUs the partition has.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.ids.len()
    }

    /// The vCPU's own number in its partition.
    #[must_use]
    pub const fn own(&self) -> usize {
        self.own
    }

    /// The vCPU's own APIC id; 0 for a number that no vCPU has.
    #[must_use]
    pub const fn own_id(&self) -> u32 {
        self.own_id
    }

    /// The APIC id of a vCPU of the partition; 0 for a number that no vCPU has.
    #[must_use]
    pub fn id(&self, vcpu: usize) -> u32 {
        self.ids.get(vcpu).copied().unwrap_or(0)
    }

    /// Ticks that [`judge`] takes at most; 0 where the vCPU is alone.
    #[must_use]
    #[inline]
    pub const fn judging(&self) -> u64 {
        /// Instructions for each vCPU.
        const EACH: u64 = 12;
        if self.ids.len() <= 1 { 0 } else { self.ids.len() as u64 * EACH }
    }

    fn all(&self) -> Targets {
        Targets::first(self.ids.len())
    }

    /// The vCPU with this physical id.
    fn physical(&self, id: u32) -> Targets {
        self.ids.iter().position(|other| *other == id).map_or(Targets::NONE, Targets::one)
    }

    /// The vCPUs that a logical destination names: cluster in the upper half, one bit for each member in the lower.
    /// Nobody when a bit names a processor outside the partition. SDM 3A 11.12.10.1.
    fn logical(&self, destination: u32) -> Targets {
        let mut found = Targets::NONE;
        let mut named = 0;
        for (vcpu, id) in self.ids.iter().enumerate() {
            let address = logical_id(*id);
            if address >> 16 == destination >> 16 && address & destination & 0xFFFF != 0 {
                found = found.with(Targets::one(vcpu));
                named |= address & 0xFFFF;
            }
        }
        if named == destination & 0xFFFF { found } else { Targets::NONE }
    }
}

/// The logical id of a processor in x2APIC mode. SDM 3A 11.12.10.2.
#[must_use]
pub const fn logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}

/// The processor to which a command sends a fixed interrupt, where the command says so outright: by a physical id of the partition's,
/// which is most often its own, or as "self". `None` where it takes [`judge`] to tell.
///
/// The broadcast destination is no processor's id, so it is never taken for one.
#[must_use]
#[inline(always)]
pub(crate) fn outright(command: u64, peers: &Peers) -> Option<u32> {
    const KIND: u64 = icr::RESERVED | delivery::MASK | icr::SHORTHAND;
    const WITH_DESTINATION: u64 = KIND | icr::LOGICAL;
    if command & WITH_DESTINATION == delivery::FIXED {
        let destination = (command >> icr::DESTINATION_SHIFT) as u32;
        let known = destination == peers.own_id || peers.ids.contains(&destination);
        return known.then_some(destination);
    }
    (command & KIND == icr::SHORTHAND_SELF | delivery::FIXED).then_some(peers.own_id)
}

/// Judges the value that a vCPU writes to its interrupt command register.
///
/// - Reserved bits and reserved delivery modes are denied; lowest priority is reserved in x2APIC mode (SDM 3A 11.12.9, figure
///   11-28), and SMI and ExtINT reach beyond a partition.
/// - "Self" and "all including self" go with fixed interrupts only (SDM 3A 11.6.1, table 11-3); the broadcast destination
///   has the same reach and the same rule.
/// - An INIT that reaches the bootstrap vCPU would start firmware on a bare machine. A partition has none: denied.
/// - An INIT "level de-assert" changes nothing on any processor that knows VT-x (SDM 3A 11.6.1): accepted, not sent.
#[must_use]
#[inline]
pub fn judge(command: u64, peers: &Peers) -> Verdict {
    const BROADCAST: u32 = u32::MAX;
    if command & icr::RESERVED != 0 {
        return Verdict::Deny;
    }
    let destination = (command >> icr::DESTINATION_SHIFT) as u32;
    let (targets, holds_self) = match command & icr::SHORTHAND {
        0 if destination == BROADCAST => (peers.all(), true),
        0 if command & icr::LOGICAL != 0 => (peers.logical(destination), false),
        0 => (peers.physical(destination), false),
        icr::SHORTHAND_SELF => (Targets::one(peers.own), true),
        icr::SHORTHAND_ALL => (peers.all(), true),
        _ => (peers.all().without(Targets::one(peers.own)), false),
    };
    let kind = match command & delivery::MASK {
        delivery::FIXED => Kind::Fixed(command as u8),
        _ if holds_self => return Verdict::Deny,
        delivery::NMI => Kind::Nmi,
        delivery::INIT => Kind::Init,
        delivery::START_UP => Kind::StartUp(command as u8),
        _ => return Verdict::Deny,
    };
    let resets_bootstrap = kind == Kind::Init && targets.contains(BOOTSTRAP);
    if targets.is_empty() || resets_bootstrap {
        return Verdict::Deny;
    }
    let deasserts = command & (icr::LEVEL_TRIGGERED | icr::ASSERT) == icr::LEVEL_TRIGGERED;
    if kind == Kind::Init && deasserts {
        return Verdict::Nothing;
    }
    Verdict::Send(Ipi { targets, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Three vCPUs in two clusters; the sender is number 1.
    const IDS: [u32; 3] = [2, 5, 0x13];
    const PEERS: Peers = Peers::new(&IDS, 1);
    const NMI: u64 = 4 << 8;
    const INIT: u64 = 5 << 8;
    const START_UP: u64 = 6 << 8;
    const LOGICAL: u64 = 1 << 11;

    fn to(destination: u32) -> u64 {
        u64::from(destination) << 32 | 1 << 14
    }

    fn sent(command: u64) -> Option<(Vec<usize>, Kind)> {
        match judge(command, &PEERS) {
            Verdict::Send(ipi) => Some((ipi.targets.collect(), ipi.kind)),
            Verdict::Nothing | Verdict::Deny => None,
        }
    }

    #[test]
    fn physical_destinations_reach_one_vcpu() {
        assert_eq!(sent(to(2) | 0x40), Some((vec![0], Kind::Fixed(0x40))));
        assert_eq!(sent(to(5) | 0x41), Some((vec![1], Kind::Fixed(0x41))), "itself");
        assert_eq!(sent(to(0x13) | NMI), Some((vec![2], Kind::Nmi)));
        assert_eq!(sent(to(5) | NMI), Some((vec![1], Kind::Nmi)), "an NMI to itself");
        assert_eq!(sent(to(0x13) | INIT), Some((vec![2], Kind::Init)));
        assert_eq!(sent(to(0x13) | START_UP | 9), Some((vec![2], Kind::StartUp(9))));
    }

    #[test]
    fn logical_destinations_reach_the_members_of_a_cluster() {
        assert_eq!(sent(to(0x24) | LOGICAL | 0x40), Some((vec![0, 1], Kind::Fixed(0x40))));
        assert_eq!(sent(to(0x1_0008) | LOGICAL | 0x40), Some((vec![2], Kind::Fixed(0x40))));
        assert_eq!(sent(to(0x20) | LOGICAL | NMI), Some((vec![1], Kind::Nmi)));
    }

    #[test]
    fn a_logical_destination_with_a_stranger_in_it_is_denied_whole() {
        for destination in [0x25, 0xFFFF, 0x1_0018, 0x2_0004, 0, 0xFFFF_0000] {
            assert_eq!(judge(to(destination) | LOGICAL | 0x40, &PEERS), Verdict::Deny);
        }
    }

    #[test]
    fn shorthands_and_the_broadcast_mean_the_partition() {
        let shorthand = |code: u64| code << 18 | 1 << 14 | 0x40;
        assert_eq!(sent(shorthand(1)), Some((vec![1], Kind::Fixed(0x40))));
        assert_eq!(sent(shorthand(2)), Some((vec![0, 1, 2], Kind::Fixed(0x40))));
        assert_eq!(sent(shorthand(3)), Some((vec![0, 2], Kind::Fixed(0x40))));
        assert_eq!(sent(to(u32::MAX) | 0x40), Some((vec![0, 1, 2], Kind::Fixed(0x40))));
        assert_eq!(sent(to(u32::MAX) | LOGICAL | 0x40), Some((vec![0, 1, 2], Kind::Fixed(0x40))));
        assert_eq!(sent(3 << 18 | NMI), Some((vec![0, 2], Kind::Nmi)));
        assert_eq!(sent(7 << 32 | shorthand(1)), Some((vec![1], Kind::Fixed(0x40))));
    }

    #[test]
    fn what_may_not_be_combined_is_denied() {
        for (command, why) in [
            (1 << 18 | NMI, "NMI to self by shorthand"),
            (2 << 18 | NMI, "NMI to all"),
            (to(u32::MAX) | NMI, "NMI by broadcast"),
            (1 << 18 | INIT, "INIT to self by shorthand"),
            (2 << 18 | START_UP, "start-up to all"),
            (to(2) | 1 << 8 | 0x40, "lowest priority"),
            (to(2) | 2 << 8, "SMI"),
            (to(2) | 3 << 8, "reserved mode"),
            (to(2) | 7 << 8, "ExtINT"),
            (to(2) | 1 << 12 | 0x40, "reserved bit 12"),
            (to(2) | 1 << 13 | 0x40, "reserved bit 13"),
            (to(2) | 1 << 16 | 0x40, "reserved bit 16"),
            (to(2) | 1 << 20 | 0x40, "reserved bit 20"),
            (to(3) | 0x40, "another partition's core"),
            (to(2) | INIT, "INIT to the bootstrap vCPU"),
            (3 << 18 | INIT, "INIT to all others, the bootstrap vCPU among them"),
        ] {
            assert_eq!(judge(command, &PEERS), Verdict::Deny, "{why}");
        }
    }

    #[test]
    fn with_nobody_else_all_but_self_is_denied() {
        let alone = Peers::new(&[7], 0);
        assert_eq!(judge(3 << 18 | 0x40, &alone), Verdict::Deny);
        assert!(matches!(judge(2 << 18 | 0x40, &alone), Verdict::Send(_)));
    }

    #[test]
    fn an_init_deassert_changes_nothing() {
        let deassert = 0x13 << 32 | 1 << 15 | INIT;
        assert_eq!(judge(deassert, &PEERS), Verdict::Nothing);
        assert_eq!(judge(3 << 32 | 1 << 15 | INIT, &PEERS), Verdict::Deny, "not even elsewhere");
        assert!(matches!(judge(deassert | 1 << 14, &PEERS), Verdict::Send(_)));
    }

    #[test]
    fn an_errand_reaches_each_target_once_however_often_it_is_interrupted() {
        let ipi = Ipi { targets: Targets::first(64), kind: Kind::Fixed(0x40) };
        let mut errand = Errand::of(ipi);
        let mut reached = Vec::new();
        // Windows with time for one target, for seven, for none.
        for time in [1, 7, 0, 40, 100] {
            for _ in 0..time {
                reached.extend(errand.take());
            }
        }
        assert!(errand.is_done() && Errand::NONE.is_done());
        assert_eq!(reached, ipi.targets.map(|target| (target, ipi.kind)).collect::<Vec<_>>());
    }

    #[test]
    fn the_set_counts_to_sixty_four() {
        assert_eq!(Targets::first(64).count(), 64);
        assert_eq!(Targets::first(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(Targets::one(63).only(), Some(63));
        assert_eq!(Targets::first(2).only(), None);
        assert!(Targets::one(64).is_empty());
    }

    proptest! {
        #[test]
        fn nobody_outside_is_ever_reached(noise in any::<u64>(), low in any::<u32>(), destination in 0_u32..32, own in 0_usize..3) {
            let peers = Peers::new(&IDS, own);
            for command in [noise, u64::from(low & 0xC_CFFF) | u64::from(destination) << 32] {
                if let Verdict::Send(ipi) = judge(command, &peers) {
                    prop_assert!(!ipi.targets.is_empty());
                    prop_assert!(ipi.targets.without(Targets::first(IDS.len())).is_empty());
                    if command & (0xF << 16 | LOGICAL) == 0 && command >> 32 != u64::from(u32::MAX) {
                        let only = ipi.targets.only().map(|vcpu| IDS[vcpu]);
                        prop_assert_eq!(only, Some((command >> 32) as u32));
                    }
                }
            }
        }
    }
}
