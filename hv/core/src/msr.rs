//! Which model-specific registers a partition may touch, and what becomes of each access that exits.
//!
//! A whitelist in two stages: the bitmap lets through what can only affect the partition itself; of the rest, a few
//! are answered or checked here, and everything else is #GP(0), counted as denied.

use hv_defs::apic::{self, delivery, icr, lvt};
use hv_defs::msr::{self, apic_base, misc_enable};
use hv_defs::svm::msrpm;

use crate::cpuid::SpeculationMsrs;
use crate::ipi::{self, BOOTSTRAP, Ipi, Kind, Peers, Verdict};

/// IA32_TSC_DEADLINE: the machine's own on a dedicated core, the virtual APIC's on a time-shared one.
pub const TSC_DEADLINE: u32 = msr::TSC_DEADLINE;

/// The two kinds of core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreKind {
    /// One partition, with the machine's local APIC.
    Dedicated,
    /// Windows of several partitions, each with a virtual local APIC.
    Shared,
}

/// What the answers to MSR reads depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrState {
    /// The vCPU among those of its partition.
    pub peers: Peers,
    /// What its IA32_APIC_BASE says, the upper half of which is zero: worked out beforehand, because software asks often.
    apic_base: u32,
}

impl MsrState {
    /// The facts about this vCPU.
    #[must_use]
    pub const fn new(peers: Peers) -> Self {
        let bootstrap = if peers.own() == BOOTSTRAP { apic_base::BOOTSTRAP } else { 0 };
        let ready = apic_base::ADDRESS_RESET | apic_base::ENABLE | apic_base::X2APIC;
        Self { peers, apic_base: (ready | bootstrap) as u32 }
    }
}

/// What becomes of a write that exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAction {
    /// Write this checked value to the machine's register of the same number.
    Machine(u64),
    /// Send this interrupt.
    Send(Ipi),
    /// It changes nothing: go on.
    Drop,
    /// #GP(0).
    Deny,
}

/// Open for reading and writing on every core.
///
/// FS_BASE, GS_BASE, SYSENTER_*, PAT and EFER are in the VMCS, loaded and saved with each entry and exit; the others are
/// switched with the vCPU. EFER passes for writing because the processor itself makes the checks of a bare
/// machine (reserved bits, LME while paging is on), keeps LMA read-only, and with the unrestricted guest copies
/// LMA into the entry control "IA-32e mode guest" on each exit (SDM 3C 28.3.1): so the entry checks stay content.
const OPEN: [u32; 13] = [
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::PAT,
    msr::EFER,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::FMASK,
    msr::FS_BASE,
    msr::GS_BASE,
    msr::KERNEL_GS_BASE,
    msr::TSC_AUX,
];

/// Readable on a dedicated core: every register of the x2APIC that can be read, save CMCI, which goes with the
/// machine-check banks that no partition sees.
const fn apic_is_readable(number: u32) -> bool {
    matches!(
        number,
        apic::ID
            | apic::VERSION
            | apic::TPR
            | apic::PPR
            | apic::LDR
            | apic::SVR
            | apic::ISR..=0x827
            | apic::ESR
            | apic::ICR
            | apic::LVT_TIMER..=apic::CURRENT_COUNT
            | apic::DIVIDE_CONFIGURATION
    )
}

/// Whether this local vector table entry is the machine's on every core: no partition has its thermal sensors or its counters. Firmware may
/// have its own use for the thermal one.
const fn is_machine_entry(number: u32) -> bool {
    matches!(number, apic::LVT_THERMAL | apic::LVT_PERFORMANCE)
}

/// Whether a processor with APIC virtualization answers the read from the virtual-APIC page: all but the count of the
/// timer, which is worked out when it is asked for. SDM 3C 30.5.
const fn page_is_readable(number: u32) -> bool {
    apic_is_readable(number) && number != apic::CURRENT_COUNT
}

/// Whether such a processor carries the write out by itself. SDM 3C 30.5.
const fn page_is_writable(number: u32) -> bool {
    matches!(number, apic::TPR | apic::EOI | apic::SELF_IPI)
}

/// Writable without a check on a dedicated core: nothing in them reaches another core or changes how an interrupt is
/// delivered.
const fn apic_is_writable(number: u32) -> bool {
    matches!(
        number,
        apic::TPR
            | apic::EOI
            | apic::SVR
            | apic::ESR
            | apic::INITIAL_COUNT
            | apic::DIVIDE_CONFIGURATION
            | apic::SELF_IPI
    )
}

/// Whether `number` belongs to the x2APIC.
#[must_use]
#[inline(always)]
pub const fn is_x2apic(number: u32) -> bool {
    number >= apic::FIRST && number <= apic::LAST
}

/// Whether a register of this number is the virtual APIC's on a core of this kind.
#[must_use]
#[inline(always)]
pub const fn is_virtual(kind: CoreKind, number: u32) -> bool {
    matches!(kind, CoreKind::Shared) && (is_x2apic(number) || number == TSC_DEADLINE)
}

/// Word of the bitmap page and bit in it, for reads; writes lie 256 words further. SDM 3C 25.6.9.
const fn place(number: u32) -> Option<(usize, u64)> {
    let base = match number {
        0..=0x1FFF => 0,
        0xC000_0000..=0xC000_1FFF => 128,
        _ => return None,
    };
    let offset = (number & 0x1FFF) as usize;
    Some((base + offset / 64, 1 << (offset % 64)))
}

const WRITES: usize = 256;

fn open(map: &mut [u64; 512], number: u32, read: bool, write: bool) {
    let Some((word, bit)) = place(number) else {
        return;
    };
    if read && let Some(word) = map.get_mut(word) {
        *word &= !bit;
    }
    if write && let Some(word) = map.get_mut(word + WRITES) {
        *word &= !bit;
    }
}

/// Tells each MSR that a guest of a core of this kind may touch without an exit: number, reads, writes. `apic_virtualization` says that every
/// vCPU of the core runs with the processor's "virtualize x2APIC mode", register virtualization and virtual-interrupt delivery: an open
/// register of the x2APIC is then the virtual-APIC page's; without them it would be the machine's. Of `speculation` the control register is
/// switched with the vCPU, and the two commands act on nothing but the core, which is the guest's while it runs.
fn opened(
    kind: CoreKind,
    apic_virtualization: bool,
    speculation: SpeculationMsrs,
    open: &mut impl FnMut(u32, bool, bool),
) {
    for number in OPEN {
        open(number, true, true);
    }
    open(msr::SPEC_CTRL, speculation.control, speculation.control);
    open(msr::PRED_CMD, false, speculation.barrier);
    open(msr::FLUSH_CMD, false, speculation.l1d_flush);
    open(msr::TIME_STAMP_COUNTER, true, false);
    let registers = apic::FIRST..=apic::LAST;
    match kind {
        CoreKind::Dedicated => {
            open(TSC_DEADLINE, true, true);
            let is_readable = |n| apic_is_readable(n) && !is_machine_entry(n);
            registers.for_each(|n| open(n, is_readable(n), apic_is_writable(n)));
        }
        CoreKind::Shared if apic_virtualization => {
            registers.for_each(|n| open(n, page_is_readable(n), page_is_writable(n)));
        }
        CoreKind::Shared => {}
    }
}

/// Fills the MSR bitmap of VT-x for a core of this kind: a set bit exits. An MSR outside the two ranges of the bitmap
/// always exits (SDM 3C 26.1.3).
///
/// While a guest has its APIC disabled, [`close_self_ipi`] has to be applied too.
pub fn bitmap(
    kind: CoreKind,
    apic_virtualization: bool,
    speculation: SpeculationMsrs,
    map: &mut [u64; 512],
) {
    *map = [u64::MAX; 512];
    opened(kind, apic_virtualization, speculation, &mut |number, read, write| {
        open(map, number, read, write);
    });
}

/// Fills the MSR permission map of AMD-V for a core of this kind: a set bit exits. EFER stays closed, because VMRUN wants SVME set in it,
/// which no guest may see. APM 2 15.11.
pub fn permission_map(kind: CoreKind, speculation: SpeculationMsrs, map: &mut [u64; 1024]) {
    *map = [u64::MAX; 1024];
    opened(kind, false, speculation, &mut |number, read, write| {
        if number == msr::EFER || number == TSC_DEADLINE {
            return;
        }
        let Some((word, shift)) = permission_place(number) else {
            return;
        };
        let read = if read { u64::from(msrpm::READ) } else { 0 };
        let write = if write { u64::from(msrpm::WRITE) } else { 0 };
        let bits = (read | write) << shift;
        if let Some(word) = map.get_mut(word) {
            *word &= !bits;
        }
    });
}

/// Word of the permission map, and the lower of the two bits in it. APM 2 15.11.
fn permission_place(number: u32) -> Option<(usize, u32)> {
    let range = |(first, _): &&(u32, usize)| number.wrapping_sub(*first) < msrpm::RANGE;
    let (first, at) = msrpm::RANGES.iter().find(range)?;
    let bit = (number - first) * 2;
    Some((at / 8 + bit as usize / 64, bit % 64))
}

/// Has writes of SELF_IPI exit.
pub fn close_self_ipi(map: &mut [u64; 512]) {
    if let Some((word, bit)) = place(apic::SELF_IPI)
        && let Some(word) = map.get_mut(word + WRITES)
    {
        *word |= bit;
    }
}

/// Bits of EFER that a guest may set: SCE, LME, NXE. LMA follows from LME and CR0.PG. APM 2 3.1.7.
const EFER_OFFERED: u64 = 1 | EFER_LME | 1 << 11;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// What a write of EFER loads, where it exits; `None` where the guest gets #GP(0). `old` is the register as the guest reads it. APM 2
/// 3.1.7: LME does not change while paging is on.
#[must_use]
pub const fn efer(value: u64, old: u64, paging: bool) -> Option<u64> {
    if value & !(EFER_OFFERED | EFER_LMA) != 0 || (paging && (value ^ old) & EFER_LME != 0) {
        return None;
    }
    Some(value & !EFER_LMA | old & EFER_LMA)
}

/// String instructions are fast; neither BTS nor PEBS is there; everything else is off.
const MISC_ENABLE_VALUE: u64 =
    misc_enable::FAST_STRINGS | misc_enable::BTS_UNAVAILABLE | misc_enable::PEBS_UNAVAILABLE;

/// Registers that answer with one value for ever; writing that value back is allowed. Reads of all others that exit are refused, but for
/// the virtual APIC's of a time-shared core.
#[inline(always)]
pub(crate) const fn constant(kind: CoreKind, number: u32, state: &MsrState) -> Option<u64> {
    match number {
        msr::APIC_BASE => Some(state.apic_base as u64),
        msr::MISC_ENABLE => Some(MISC_ENABLE_VALUE),
        // A guest reads its microcode revision, behind a write of 0 (SDM 3A 10.11.7.1), and its platform before it trusts a
        // list of errata. Both are the board's: 0 says that no microcode was loaded.
        msr::BIOS_SIGN_ID | msr::PLATFORM_ID => Some(0),
        // No branch records, no single-stepping on branches.
        msr::DEBUGCTL => Some(0),
        apic::LVT_THERMAL | apic::LVT_PERFORMANCE if matches!(kind, CoreKind::Dedicated) => {
            Some(lvt::MASKED)
        }
        _ => None,
    }
}

/// Decides a write that exited. The x2APIC and TSC_DEADLINE of a time-shared core are the virtual APIC's and denied here.
#[must_use]
#[inline]
pub fn write(kind: CoreKind, number: u32, value: u64, state: &MsrState) -> WriteAction {
    if matches!(kind, CoreKind::Dedicated) {
        if number == apic::ICR {
            return match ipi::judge(value, &state.peers) {
                Verdict::Send(ipi) => command(ipi, &state.peers),
                Verdict::Nothing => WriteAction::Drop,
                Verdict::Deny => WriteAction::Deny,
            };
        }
        if is_machine_entry(number) {
            return machine_entry(number, value);
        }
        if (apic::LVT_TIMER..=apic::LVT_ERROR).contains(&number) {
            return match local_vector(number, value) {
                Some(value) => WriteAction::Machine(value),
                None => WriteAction::Deny,
            };
        }
    }
    match constant(kind, number, state) {
        Some(same) if same == value => WriteAction::Drop,
        _ => WriteAction::Deny,
    }
}

/// Decides as [`write()`] does, in a few instructions, what software writes most; `None` where it takes [`write()`] to tell, and for the
/// registers of a time-shared core's virtual APIC.
#[must_use]
#[inline(always)]
pub(crate) fn write_outright(
    kind: CoreKind,
    number: u32,
    value: u64,
    state: &MsrState,
) -> Option<WriteAction> {
    if matches!(kind, CoreKind::Dedicated) {
        if number == apic::ICR {
            let target = ipi::outright(value, &state.peers)?;
            return Some(WriteAction::Machine(fixed_command(target, value as u8)));
        }
        if let Some(judged) = judged_bits(number) {
            return (value & judged == 0).then_some(WriteAction::Machine(value));
        }
        if is_machine_entry(number) {
            return Some(machine_entry(number, value));
        }
    }
    match constant(kind, number, state) {
        Some(same) if same == value => Some(WriteAction::Drop),
        None if is_virtual(kind, number) => None,
        _ => Some(WriteAction::Deny),
    }
}

/// A write to an entry that is the machine's: one that masks it asks for what the guest sees already, and any other is denied.
const fn machine_entry(number: u32, value: u64) -> WriteAction {
    match local_vector(number, value) {
        Some(value) if value & lvt::MASKED != 0 => WriteAction::Drop,
        _ => WriteAction::Deny,
    }
}

/// How a dedicated core carries an interrupt command out. A fixed interrupt to one vCPU goes to the machine's ICR in its plainest
/// form: physical destination, edge-triggered. So the machine's own table of logical ids decides nothing, and trigger mode and level,
/// which mean nothing for a fixed interrupt (SDM 3A 11.6.1), are not passed on. An NMI is never the machine's here: it would
/// be carried out in root mode, and a target could not tell it from a kick of the hypervisor's.
fn command(ipi: Ipi, peers: &Peers) -> WriteAction {
    match (ipi.kind, ipi.targets.only()) {
        (Kind::Fixed(vector), Some(target)) => {
            WriteAction::Machine(fixed_command(peers.id(target), vector))
        }
        _ => WriteAction::Send(ipi),
    }
}

/// The interrupt command for a fixed interrupt to the processor with this APIC id. SDM 3A 11.12.9.
#[must_use]
pub const fn fixed_command(apic_id: u32, vector: u8) -> u64 {
    (apic_id as u64) << icr::DESTINATION_SHIFT | icr::ASSERT | vector as u64
}

/// The bits of this local vector table entry that have to be judged by [`local_vector`]; `None` for another register, and for an entry that
/// is the machine's. The others may be set in any combination, and are written as they are: the vector and the mask, that a pin delivers
/// an NMI, how a pin signals, and the TSC-deadline mode of the timer.
#[inline(always)]
pub(crate) fn judged_bits(number: u32) -> Option<u64> {
    const TIMER: u64 = !(FREE | lvt::TIMER_DEADLINE);
    if number == apic::LVT_TIMER { Some(TIMER) } else { judged_pin_bits(number) }
}

/// Bits of an entry that a guest may set in any combination.
const FREE: u64 = lvt::VECTOR | lvt::MASKED;

/// The same for the entries behind the timer's: LINT0, LINT1 and the error's.
#[inline(always)]
pub(crate) fn judged_pin_bits(number: u32) -> Option<u64> {
    const PIN: u64 = !(FREE | delivery::NMI | lvt::ACTIVE_LOW | lvt::LEVEL_TRIGGERED);
    /// By the last two bits of the number: the entries are 0x835 to 0x837.
    const JUDGED: [u64; 4] = [u64::MAX, PIN, PIN, !FREE];
    const _: () = assert!(apic::LVT_LINT0 % 4 == 1 && apic::LVT_ERROR - apic::LVT_LINT0 == 2);
    // The index is masked, not only compared: behind a branch that is predicted wrongly the guest would choose what is read (Spectre v1).
    let entry = (apic::LVT_LINT0..=apic::LVT_ERROR).contains(&number);
    entry.then(|| JUDGED[number as usize % 4])
}

/// Judges a value for a local vector table entry and returns what to write; `None` is denied.
///
/// Reserved bits are denied, because the write is carried out in root mode and its #GP would be ours; read-only bits
/// are left out. A live entry delivers fixed interrupts, and LINT0 and LINT1 also NMIs: such an NMI exits, the kick flag is not set, and it
/// is injected as the guest's own; at worst a guest storms its own core. SMI, INIT and ExtINT reach beyond the guest and are taken only while they are masked (Linux parks LINT0 as
/// a masked ExtINT), because unmasking is a write that comes here again.
pub(crate) const fn local_vector(number: u32, value: u64) -> Option<u64> {
    let pins = matches!(number, apic::LVT_LINT0 | apic::LVT_LINT1);
    let allowed = match number {
        apic::LVT_TIMER => lvt::VECTOR | lvt::MASKED | lvt::TIMER_MODE,
        apic::LVT_ERROR => lvt::VECTOR | lvt::MASKED,
        apic::LVT_THERMAL | apic::LVT_PERFORMANCE => lvt::VECTOR | lvt::MASKED | delivery::MASK,
        _ => lvt::VECTOR | lvt::MASKED | delivery::MASK | lvt::ACTIVE_LOW | lvt::LEVEL_TRIGGERED,
    };
    let read_only = lvt::DELIVERY_STATUS | if pins { lvt::REMOTE_IRR } else { 0 };
    let value = value & !read_only;
    if value & !allowed != 0
        || (number == apic::LVT_TIMER && value & lvt::TIMER_MODE == lvt::TIMER_MODE_RESERVED)
    {
        return None;
    }
    let masked = value & lvt::MASKED != 0;
    let fine = match value & delivery::MASK {
        delivery::FIXED | delivery::NMI => true,
        delivery::SMI => masked,
        delivery::INIT | delivery::EXTINT => masked && pins,
        _ => false,
    };
    if fine { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// The only vCPU of a partition.
    const STATE: MsrState = MsrState::new(Peers::new(&[5], 0));
    /// The second of three vCPUs.
    const SECOND: MsrState = MsrState::new(Peers::new(&[2, 5, 0x13], 1));
    const D: CoreKind = CoreKind::Dedicated;
    const S: CoreKind = CoreKind::Shared;

    fn exits(map: &[u64; 512], number: u32, write: bool) -> bool {
        let (word, bit) = place(number).unwrap();
        map[word + if write { WRITES } else { 0 }] & bit != 0
    }

    fn opened(kind: CoreKind, write: bool) -> Vec<u32> {
        opened_with(kind, false, write)
    }

    fn opened_with(kind: CoreKind, apic_virtualization: bool, write: bool) -> Vec<u32> {
        let mut map = [0; 512];
        bitmap(kind, apic_virtualization, SpeculationMsrs::default(), &mut map);
        (0..0x2000)
            .chain(0xC000_0000..0xC000_2000)
            .filter(|number| !exits(&map, *number, write))
            .collect()
    }

    #[test]
    fn speculation_control_is_open_where_the_processor_has_it() {
        const ALL: SpeculationMsrs = SpeculationMsrs::from_leaf(u32::MAX);
        for kind in [D, S] {
            let mut map = [0; 512];
            bitmap(kind, false, ALL, &mut map);
            let open = |number| (!exits(&map, number, false), !exits(&map, number, true));
            assert_eq!(open(msr::SPEC_CTRL), (true, true));
            assert_eq!((open(msr::PRED_CMD), open(msr::FLUSH_CMD)), ((false, true), (false, true)));
            bitmap(kind, false, SpeculationMsrs::from_leaf(1 << 28), &mut map);
            let open = |number| (!exits(&map, number, false), !exits(&map, number, true));
            assert_eq!(
                (open(msr::SPEC_CTRL), open(msr::FLUSH_CMD)),
                ((false, false), (false, true))
            );
        }
    }

    #[test]
    fn exactly_the_listed_registers_are_open_on_a_shared_core() {
        let both = [
            0x174,
            0x175,
            0x176,
            0x277,
            0xC000_0080,
            0xC000_0081,
            0xC000_0082,
            0xC000_0083,
            0xC000_0084,
            0xC000_0100,
            0xC000_0101,
            0xC000_0102,
            0xC000_0103,
        ];
        assert_eq!(opened(S, true), both);
        assert_eq!(opened(S, false), [&[0x10], &both[..]].concat());
    }

    #[test]
    fn a_dedicated_core_adds_its_apic_and_nothing_else() {
        let more = |write| {
            let shared = opened(S, write);
            opened(D, write).into_iter().filter(|n| !shared.contains(n)).collect::<Vec<_>>()
        };
        assert_eq!(more(true), [0x6E0, 0x808, 0x80B, 0x80F, 0x828, 0x838, 0x83E, 0x83F]);
        let read: Vec<u32> = [0x6E0, 0x802, 0x803, 0x808, 0x80A, 0x80D, 0x80F]
            .into_iter()
            .chain(0x810..=0x828)
            .chain([0x830, 0x832])
            .chain(0x835..=0x839)
            .chain([0x83E])
            .collect();
        assert_eq!(more(false), read);
    }

    #[test]
    fn apic_virtualization_opens_what_the_page_answers_and_the_processor_carries_out() {
        let more = |write| {
            let plain = opened(S, write);
            let with = opened_with(S, true, write);
            assert!(plain.iter().all(|number| with.contains(number)));
            with.into_iter().filter(|n| !plain.contains(n)).collect::<Vec<_>>()
        };
        assert_eq!(more(true), [0x808, 0x80B, 0x83F]);
        let read: Vec<u32> = [0x802, 0x803, 0x808, 0x80A, 0x80D, 0x80F]
            .into_iter()
            .chain(0x810..=0x828)
            .chain([0x830])
            .chain(0x832..=0x838)
            .chain([0x83E])
            .collect();
        assert_eq!(more(false), read, "neither the current count nor the deadline");
        assert_eq!(
            opened_with(D, true, true),
            opened(D, true),
            "a dedicated core has the real one"
        );
    }

    #[test]
    fn self_ipi_is_closed_while_the_apic_is_disabled() {
        let mut map = [0; 512];
        bitmap(S, true, SpeculationMsrs::default(), &mut map);
        assert!(!exits(&map, apic::SELF_IPI, true));
        close_self_ipi(&mut map);
        assert!(exits(&map, apic::SELF_IPI, true) && !exits(&map, apic::EOI, true));
    }

    #[test]
    fn the_bitmap_has_the_manuals_four_quarters() {
        let mut map = [0; 512];
        bitmap(S, false, SpeculationMsrs::default(), &mut map);
        assert_eq!(map[0], !(1 << 0x10), "read, low");
        assert_eq!(map[128 + 2], !0b1_1111, "read, high: EFER to FMASK");
        assert_eq!(map[256], u64::MAX, "write, low: the TSC is closed");
        assert_eq!(map[384 + 4], !0b1111, "write, high: FS_BASE to TSC_AUX");
    }

    #[test]
    fn the_apic_base_can_be_read_and_not_changed() {
        assert_eq!(constant(D, 0x1B, &STATE), Some(0xFEE0_0D00));
        assert_eq!(constant(D, 0x1B, &SECOND), Some(0xFEE0_0C00));
        assert_eq!(write(D, 0x1B, 0xFEE0_0D00, &STATE), WriteAction::Drop);
        for value in [0, 0xFEE0_0900, 0xFEE0_0100, 0xFEE0_1D00, 0xFEE0_0C00] {
            assert_eq!(write(D, 0x1B, value, &STATE), WriteAction::Deny, "{value:#x}");
        }
    }

    #[test]
    fn constants_take_their_own_value_back() {
        for (number, value) in [(0x1A0, 0x1801), (0x8B, 0), (0x17, 0), (0x1D9, 0)] {
            assert_eq!(constant(S, number, &STATE), Some(value));
            assert_eq!(write(S, number, value, &STATE), WriteAction::Drop);
            assert_eq!(write(S, number, value ^ 1, &STATE), WriteAction::Deny);
        }
    }

    #[test]
    fn a_fixed_interrupt_to_one_vcpu_goes_to_the_machine_in_its_plainest_form() {
        let own = 5_u64 << 32;
        let plain = WriteAction::Machine(own | 1 << 14 | 0x40);
        for command in [
            own | 0x40,
            own | 1 << 14 | 0x40,
            own | 3 << 14 | 0x40,
            1 << 18 | 0x40,
            7 << 32 | 1 << 18 | 0x40,
            0x20 << 32 | 1 << 11 | 0x40,
        ] {
            assert_eq!(write(D, 0x830, command, &STATE), plain, "{command:#x}");
            assert_eq!(write(D, 0x830, command, &SECOND), plain, "{command:#x}");
        }
        let third = WriteAction::Machine(0x13 << 32 | 1 << 14 | 0x40);
        for command in [0x13 << 32 | 0x40, 0x1_0008 << 32 | 1 << 11 | 0x40] {
            assert_eq!(write(D, 0x830, command, &SECOND), third);
            assert_eq!(write(D, 0x830, command, &STATE), WriteAction::Deny);
        }
    }

    #[test]
    fn everything_else_that_stays_inside_is_ours_to_send() {
        let sent = |command| match write(D, 0x830, command, &SECOND) {
            WriteAction::Send(ipi) => Some((ipi.targets.collect::<Vec<_>>(), ipi.kind)),
            _ => None,
        };
        assert_eq!(sent(3 << 18 | 0x40), Some((vec![0, 2], Kind::Fixed(0x40))));
        assert_eq!(sent(2 << 32 | 4 << 8), Some((vec![0], Kind::Nmi)));
        assert_eq!(sent(5 << 32 | 4 << 8), Some((vec![1], Kind::Nmi)), "to itself");
        assert_eq!(sent(0x13 << 32 | 5 << 8), Some((vec![2], Kind::Init)));
        assert_eq!(sent(0x13 << 32 | 6 << 8 | 9), Some((vec![2], Kind::StartUp(9))));
        let deassert = 0x13 << 32 | 1 << 15 | 5 << 8;
        assert_eq!(write(D, 0x830, deassert, &SECOND), WriteAction::Drop);
        assert_eq!(write(D, 0x830, 3 << 32 | 4 << 8, &SECOND), WriteAction::Deny);
    }

    #[test]
    fn a_time_shared_core_never_writes_the_machines_apic() {
        for (number, value) in
            [(0x830, 5 << 32 | 0x40), (0x830, 1 << 18 | 0x40), (0x832, 0x20), (0x835, 0x30)]
        {
            assert!(matches!(write(D, number, value, &STATE), WriteAction::Machine(_)));
            assert_eq!(write(S, number, value, &STATE), WriteAction::Deny);
        }
    }

    #[test]
    fn local_vectors_keep_to_modes_that_stay_inside() {
        let to = |number, value| write(D, number, value, &STATE);
        for mode in 0..3 {
            assert_eq!(to(0x832, mode << 17 | 0x20), WriteAction::Machine(mode << 17 | 0x20));
        }
        assert_eq!(to(0x832, 3 << 17 | 0x20), WriteAction::Deny);
        assert_eq!(to(0x832, 4 << 8), WriteAction::Deny, "the timer has no delivery mode");
        assert_eq!(to(0x837, 0x1_00FE), WriteAction::Machine(0x1_00FE));
        for number in [0x835, 0x836] {
            assert_eq!(to(number, 4 << 8), WriteAction::Machine(4 << 8));
            assert_eq!(to(number, 2 << 8), WriteAction::Deny, "SMI");
            assert_eq!(to(number, 5 << 8), WriteAction::Deny, "INIT");
            assert_eq!(to(number, 7 << 8), WriteAction::Deny, "ExtINT");
            assert_eq!(to(number, 1 << 12 | 0x30), WriteAction::Machine(0x30), "read-only bits");
            assert_eq!(to(number, 1 << 32 | 0x30), WriteAction::Deny);
        }
        assert_eq!(to(0x835, 1 << 16 | 7 << 8), WriteAction::Machine(1 << 16 | 7 << 8));
        assert_eq!(to(0x835, 1 << 14 | 0xA0FF), WriteAction::Machine(0xA0FF));
        assert_eq!(to(0x82F, 0x1_0000), WriteAction::Deny, "no machine-check banks, no CMCI");
    }

    #[test]
    fn the_thermal_and_the_performance_entry_are_the_machines() {
        for number in [0x833, 0x834] {
            assert_eq!(constant(D, number, &STATE), Some(1 << 16));
            assert_eq!(constant(S, number, &STATE), None, "the virtual APIC has them");
            for masked in [1 << 16, 1 << 16 | 0x61, 1 << 16 | 4 << 8, 1 << 16 | 1 << 12] {
                assert_eq!(write(D, number, masked, &STATE), WriteAction::Drop, "{masked:#x}");
            }
            for bad in [0, 0x61, 4 << 8, 2 << 8, 1 << 16 | 7 << 8, 1 << 16 | 1 << 13, 1 << 32] {
                assert_eq!(write(D, number, bad, &STATE), WriteAction::Deny, "{bad:#x}");
            }
        }
    }

    const VECTORS: [u64; 5] = [0, 0xF, 0x10, 0x40, 0xFF];

    /// Three vCPUs, each as the sender.
    fn senders() -> impl Iterator<Item = MsrState> {
        (0..3).map(|own| MsrState::new(Peers::new(&[2, 5, 0x13], own)))
    }

    /// Whether it is decided outright; if so, as by the whole rules.
    fn is_outright(kind: CoreKind, number: u32, value: u64, state: &MsrState) -> bool {
        let outright = write_outright(kind, number, value, state);
        if let Some(action) = outright {
            assert_eq!(
                action,
                write(kind, number, value, state),
                "{kind:?} {number:#x} {value:#x}"
            );
        }
        outright.is_some()
    }

    #[test]
    fn every_kind_of_command_is_decided_outright_as_by_the_whole_rules() {
        let destinations = [0, 2, 3, 5, 0x13, 0x4, 0x20, 0x24, 0x1_0008, u32::MAX];
        for (state, vector) in senders().flat_map(|state| VECTORS.map(|vector| (state, vector))) {
            let own = state.peers.own_id();
            for bits in 0..1_u64 << 12 {
                for destination in destinations {
                    let command = u64::from(destination) << 32 | bits << 8 | vector;
                    let outright = is_outright(D, 0x830, command, &state);
                    // Bits 15 and 14, trigger mode and level, mean nothing for a fixed interrupt.
                    let to_itself =
                        bits & !0xC0 == 0 && destination == own || bits & !0xC8 == 1 << 10;
                    assert!(outright || !to_itself, "{command:#x} takes long");
                }
            }
        }
    }

    #[test]
    fn a_destination_is_known_outright_by_all_of_its_bits() {
        for (state, bit) in senders().flat_map(|state| (0..32).map(move |bit| (state, bit))) {
            for destination in [2, 5, 0x13].map(|id| u64::from(id ^ 1_u32 << bit) << 32) {
                for command in [0x40, 1 << 14 | 0x40, 1 << 11 | 0x40, 1 << 18 | 0x40] {
                    is_outright(D, 0x830, destination | command, &state);
                }
            }
        }
    }

    #[test]
    fn every_local_vector_is_decided_outright_as_by_the_whole_rules() {
        for number in 0x832..=0x837 {
            let values = (0..1_u64 << 12).flat_map(|bits| VECTORS.map(|vector| bits << 8 | vector));
            for value in values {
                let outright = is_outright(D, number, value, &STATE);
                let is_ordinary = value & !0x1_00FF == 0;
                assert!(outright || !is_ordinary, "{value:#x} to {number:#x} takes long");
            }
            assert!(is_outright(D, 0x832, 2 << 17 | 0x20, &STATE), "TSC-deadline mode");
            for bit in 0..64 {
                is_outright(D, number, 1 << bit, &STATE);
            }
        }
    }

    #[test]
    fn constants_and_unknown_registers_are_decided_outright() {
        for (kind, state) in senders().flat_map(|state| [(D, state), (S, state)]) {
            for number in (0..0x800).chain(0x840..0x8FF).chain(0xC000_0000..0xC000_0200) {
                let virtual_apic = is_virtual(kind, number);
                let value = constant(kind, number, &state).unwrap_or(0);
                for value in [0, 1, value, value ^ 1, value | 1 << 32, u64::MAX] {
                    assert_eq!(is_outright(kind, number, value, &state), !virtual_apic);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_decided_outright_is_what_the_whole_rules_say(
            number in prop_oneof![0x800_u32..0x840, 0_u32..0x2000, any::<u32>()], value: u64, low: u32, own in 0_usize..3, dedicated: bool,
        ) {
            let state = MsrState::new(Peers::new(&[2, 5, 0x13], own));
            let kind = if dedicated { D } else { S };
            let to_itself = u64::from(state.peers.own_id()) << 32;
            for value in [value, u64::from(low), to_itself | u64::from(low), to_itself | value & 0xFFFF] {
                is_outright(kind, number, value, &state);
            }
        }

        #[test]
        fn nothing_but_the_apic_of_a_dedicated_core_reaches_the_machine(number in 0_u32..0x1000, value in any::<u64>()) {
            prop_assert!(!matches!(write(S, number, value, &STATE), WriteAction::Machine(_)));
            if let WriteAction::Machine(_) = write(D, number, value, &STATE) {
                prop_assert!([0x830, 0x832, 0x835, 0x836, 0x837].contains(&number));
            }
        }

        #[test]
        fn what_reaches_the_machine_stays_in_the_partition(value in any::<u64>(), bits in any::<[u8; 6]>(), own in 0_u32..256) {
            // Mostly hostile noise, and often something close to a valid command.
            let near = u64::from(bits[0]) | u64::from(bits[1] & 0xF) << 8 | u64::from(bits[2] & 0xF) << 16 | u64::from(bits[3] % 8) << 32;
            for value in [value, near, value & 0xFFFF_FFFF | u64::from(own) << 32] {
                if let WriteAction::Machine(value) = write(D, 0x830, value, &SECOND) {
                    prop_assert!([2, 5, 0x13].contains(&(value >> 32)));
                    prop_assert_eq!(value & 0xFFFF_FF00, 1 << 14);
                }
                for number in 0x832..=0x837 {
                    if let Some(value) = local_vector(number, value) && value & lvt::MASKED == 0 {
                        prop_assert!([delivery::FIXED, delivery::NMI].contains(&(value & delivery::MASK)));
                    }
                }
            }
        }

        #[test]
        fn unknown_registers_are_denied(number in any::<u32>(), value in any::<u64>()) {
            if constant(S, number, &STATE).is_none() {
                prop_assert_eq!(write(S, number, value, &STATE), WriteAction::Deny);
            }
        }
    }
}
