//! MSR policy: which a guest reaches without an exit, and what is done about the others.
//!
//! A whitelist: what is not named here gets #GP(0), as on a processor that lacks the MSR. On a dedicated core the
//! local APIC is the guest's own, except where a write could reach another core or ask for an SMI, INIT or ExtINT.

pub use crate::vapic::TSC_DEADLINE;

/// Kinds of core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreKind {
    /// One partition owns the core and its local APIC.
    Dedicated,
    /// Partitions take turns; the local APIC is virtual.
    Shared,
}

/// What reads of intercepted MSRs are answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrState {
    /// Id of the core's local APIC.
    pub apic_id: u32,
    /// Whether the vCPU is its partition's boot processor.
    pub bootstrap: bool,
}

/// The access is refused: #GP(0), counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied;

/// What is done about an intercepted write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAction {
    /// Write this value to the machine's MSR of the same number: it has no reserved bit set, and stays on the core.
    Machine(u64),
    /// Accept and forget: the write asks for what is so already.
    Drop,
    /// Refuse.
    Deny,
}

/// What is done about an interrupt command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcrVerdict {
    /// It stays within the partition.
    Pass,
    /// It would leave the partition, or is of a delivery mode that no partition may send.
    Deny,
}

const IA32_TSC: u32 = 0x10;
const IA32_PLATFORM_ID: u32 = 0x17;
const IA32_APIC_BASE: u32 = 0x1B;
const IA32_BIOS_SIGN_ID: u32 = 0x8B;
const IA32_MISC_ENABLE: u32 = 0x1A0;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8FF;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_ERROR: u32 = 0x837;

/// IA32_MISC_ENABLE as a guest reads it: fast strings on; branch trace and PEBS unavailable. SDM 4 table 2-2.
const MISC_ENABLE: u64 = 1 | 1 << 11 | 1 << 12;

/// Open for reads and writes on both kinds of core, because the VMCS or the switch carries them: SYSENTER_CS, _ESP, _EIP,
/// PAT, EFER, STAR, LSTAR, CSTAR, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX. EFER may be open because the processor itself
/// checks a guest's write, and entry and exit load and save it.
const OPEN: [u32; 13] = [
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

/// x2APIC registers that a dedicated core's guest reads without an exit. SDM 3A table 11-6.
const APIC_READ: [(u32, u32); 11] = [
    (0x802, 0x803),
    (0x808, 0x808),
    (0x80A, 0x80A),
    (0x80D, 0x80D),
    (0x80F, 0x80F),
    (0x810, 0x827),
    (0x828, 0x828),
    (0x830, 0x830),
    (0x832, 0x837),
    (0x838, 0x839),
    (0x83E, 0x83E),
];

/// x2APIC registers that it writes without an exit: TPR, EOI, SVR, ESR, initial count, divide, SELF IPI. All act on its own core
/// alone.
const APIC_WRITE: [u32; 7] = [0x808, 0x80B, 0x80F, 0x828, 0x838, 0x83E, 0x83F];

/// Words of one of the four quarters of the bitmap.
const QUARTER: usize = 128;
const READ: usize = 0;
const WRITE: usize = 2 * QUARTER;

/// Fills the MSR bitmap of one kind of core: a set bit exits. SDM 3C 25.6.9: read-low, read-high,
/// write-low, write-high, 1 KByte each.
pub fn bitmap(kind: CoreKind, map: &mut [u64; 512]) {
    map.fill(u64::MAX);
    for msr in OPEN {
        open(map, READ, msr);
        open(map, WRITE, msr);
    }
    open(map, READ, IA32_TSC);
    if kind == CoreKind::Dedicated {
        for (first, last) in APIC_READ {
            for msr in first..=last {
                open(map, READ, msr);
            }
        }
        for msr in APIC_WRITE {
            open(map, WRITE, msr);
        }
        open(map, READ, TSC_DEADLINE);
        open(map, WRITE, TSC_DEADLINE);
    }
}

fn open(map: &mut [u64; 512], direction: usize, msr: u32) {
    let high = if msr >= 0xC000_0000 { QUARTER } else { 0 };
    let bit = (msr & 0x1FFF) as usize;
    if let Some(word) = map.get_mut(direction + high + bit / 64) {
        *word &= !(1 << (bit % 64));
    }
}

/// Whether `msr` is in the range of the x2APIC.
#[must_use]
pub const fn is_x2apic(msr: u32) -> bool {
    msr >= X2APIC_FIRST && msr <= X2APIC_LAST
}

/// Answers an intercepted RDMSR (of a time-shared core's x2APIC registers, [`crate::vapic`] does).
///
/// # Errors
/// [`Denied`] for every MSR that a partition does not have.
pub fn read(_kind: CoreKind, msr: u32, state: &MsrState) -> Result<u64, Denied> {
    match msr {
        IA32_APIC_BASE => Ok(apic_base(state)),
        IA32_MISC_ENABLE => Ok(MISC_ENABLE),
        // A guest reads its microcode revision and platform before it trusts errata lists; 0 means 'none loaded'.
        IA32_BIOS_SIGN_ID | IA32_PLATFORM_ID => Ok(0),
        _ => Err(Denied),
    }
}

/// Decides an intercepted WRMSR.
#[must_use]
pub fn write(kind: CoreKind, msr: u32, value: u64, state: &MsrState) -> WriteAction {
    match (kind, msr) {
        // The mode that the APIC is in already; any other would take it from under the hypervisor.
        (_, IA32_APIC_BASE) if value == apic_base(state) => WriteAction::Drop,
        (_, IA32_MISC_ENABLE) if value == MISC_ENABLE => WriteAction::Drop,
        // The protocol that reads the microcode revision writes 0 first. SDM 3A 10.11.7.1.
        (_, IA32_BIOS_SIGN_ID) if value == 0 => WriteAction::Drop,
        (CoreKind::Dedicated, ICR) => match icr(value, state.apic_id) {
            IcrVerdict::Pass => WriteAction::Machine(value),
            IcrVerdict::Deny => WriteAction::Deny,
        },
        (CoreKind::Dedicated, LVT_TIMER..=LVT_ERROR) => lvt(msr, value),
        _ => WriteAction::Deny,
    }
}

/// x2APIC mode, globally enabled, at the architectural address. SDM 3A 11.12.1.
const fn apic_base(state: &MsrState) -> u64 {
    const ENABLED: u64 = 1 << 11;
    const X2APIC: u64 = 1 << 10;
    const BOOTSTRAP: u64 = 1 << 8;
    0xFEE0_0000 | ENABLED | X2APIC | if state.bootstrap { BOOTSTRAP } else { 0 }
}

/// Decides an interrupt command of the core with APIC id `own`: fixed interrupts to itself, by number or by shorthand, and an
/// NMI to itself by number (it exits, is told from our kick by the kick's flag, and is injected). SDM 3A 11.6.1, 11.12.9.
#[must_use]
pub const fn icr(value: u64, own: u32) -> IcrVerdict {
    const RESERVED: u64 = 0xFFF3_3000;
    const FIXED: u64 = 0;
    const NMI: u64 = 4;
    let delivery = value >> 8 & 7;
    let logical = value >> 11 & 1 == 1;
    let shorthand = value >> 18 & 3;
    let by_number = shorthand == 0 && !logical && (value >> 32) as u32 == own;
    let by_shorthand = shorthand == 1;
    let stays = (delivery == FIXED && (by_number || by_shorthand)) || (delivery == NMI && by_number);
    if value & RESERVED == 0 && stays { IcrVerdict::Pass } else { IcrVerdict::Deny }
}

/// Decides a write of a local-vector-table entry: fixed delivery alone, no reserved bit. SDM 3A 11.5.1.
#[must_use]
pub const fn lvt(msr: u32, value: u64) -> WriteAction {
    const MASK: u64 = 1 << 16;
    const VECTOR: u64 = 0xFF;
    const DELIVERY_STATUS: u64 = 1 << 12;
    const TIMER_MODE: u64 = 3 << 17;
    /// Polarity and trigger mode of the pins.
    const PIN: u64 = 1 << 13 | 1 << 15;
    let allowed = match msr {
        LVT_TIMER if value & TIMER_MODE != TIMER_MODE => MASK | VECTOR | TIMER_MODE,
        0x835 | 0x836 => MASK | VECTOR | PIN,
        LVT_TIMER..=LVT_ERROR => MASK | VECTOR,
        _ => 0,
    };
    if allowed != 0 && value & !(allowed | DELIVERY_STATUS) == 0 {
        WriteAction::Machine(value & allowed)
    } else {
        WriteAction::Deny
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATE: MsrState = MsrState { apic_id: 5, bootstrap: true };

    fn exits(map: &[u64; 512], write: bool, msr: u32) -> bool {
        let bit = (msr & 0x1FFF) as usize;
        let quarter = if msr >= 0xC000_0000 { QUARTER } else { 0 };
        map[if write { WRITE } else { READ } + quarter + bit / 64] >> (bit % 64) & 1 == 1
    }

    #[test]
    fn the_bitmap_opens_what_the_recipe_says_and_nothing_else() {
        let mut map = [0; 512];
        bitmap(CoreKind::Dedicated, &mut map);
        for msr in [0x808, 0x80B, 0x83F, 0x6E0, 0xC000_0080, 0xC000_0102] {
            assert!(!exits(&map, true, msr), "{msr:#x}");
        }
        for msr in [0x10, 0x1B, 0x3B, 0x82F, 0x830, 0x832, 0x835, 0x837, 0x1A0, 0x38F, 0xDA0] {
            assert!(exits(&map, true, msr), "{msr:#x}");
        }
        assert!(!exits(&map, false, 0x10) && !exits(&map, false, 0x832));
        let opened: u32 = map.iter().map(|word| word.count_zeros()).sum();
        assert_eq!(opened, 13 * 2 + 1 + (2 + 1 + 1 + 1 + 1 + 24 + 1 + 1 + 6 + 2 + 1) + 7 + 2);
    }

    #[test]
    fn a_shared_core_opens_no_apic_register() {
        let mut map = [0; 512];
        bitmap(CoreKind::Shared, &mut map);
        for msr in (0x800..0x900).chain([TSC_DEADLINE]) {
            assert!(exits(&map, true, msr) && exits(&map, false, msr), "{msr:#x}");
        }
    }

    #[test]
    fn interrupt_commands_stay_on_the_core() {
        let to = |id: u64| id << 32;
        for (value, verdict) in [
            (to(5) | 0x40, IcrVerdict::Pass),
            (to(5) | 0x40 | 1 << 14, IcrVerdict::Pass),
            (0x40 | 1 << 18, IcrVerdict::Pass),
            (to(5) | 4 << 8, IcrVerdict::Pass),
            (to(4) | 0x40, IcrVerdict::Deny),
            (to(0xFFFF_FFFF) | 0x40, IcrVerdict::Deny),
            (to(5) | 2 << 8, IcrVerdict::Deny),
            (to(5) | 5 << 8, IcrVerdict::Deny),
            (to(5) | 6 << 8, IcrVerdict::Deny),
            (to(5) | 7 << 8, IcrVerdict::Deny),
            (to(5) | 1 << 8, IcrVerdict::Deny),
            (to(1) | 0x40 | 1 << 11, IcrVerdict::Deny),
            (0x40 | 2 << 18, IcrVerdict::Deny),
            (0x40 | 3 << 18, IcrVerdict::Deny),
            (to(5) | 0x40 | 1 << 20, IcrVerdict::Deny),
        ] {
            assert_eq!(icr(value, 5), verdict, "{value:#x}");
        }
    }

    #[test]
    fn local_vector_table_entries_keep_to_fixed_delivery() {
        assert_eq!(lvt(0x832, 0x4_0040), WriteAction::Machine(0x4_0040));
        assert_eq!(lvt(0x832, 0x6_0040), WriteAction::Deny);
        assert_eq!(lvt(0x835, 0x1_0000), WriteAction::Machine(0x1_0000));
        for delivery in 1..8_u64 {
            assert_eq!(lvt(0x835, 0x40 | delivery << 8), WriteAction::Deny, "{delivery}");
            assert_eq!(lvt(0x833, 0x40 | delivery << 8), WriteAction::Deny, "{delivery}");
        }
    }

    #[test]
    fn the_apic_stays_as_it_is() {
        let base = read(CoreKind::Dedicated, IA32_APIC_BASE, &STATE).unwrap();
        assert_eq!(base, 0xFEE0_0D00);
        assert_eq!(write(CoreKind::Dedicated, IA32_APIC_BASE, base, &STATE), WriteAction::Drop);
        for other in [0, base & !(1 << 11), base & !(1 << 10), base + 0x1000] {
            assert_eq!(write(CoreKind::Shared, IA32_APIC_BASE, other, &STATE), WriteAction::Deny);
        }
    }

    proptest! {
        /// Whatever passes to the machine has its destination here and a mode that stays here.
        #[test]
        fn nothing_that_passes_leaves(value: u64, own: u32) {
            if icr(value, own) == IcrVerdict::Pass {
                prop_assert!(matches!(value >> 8 & 7, 0 | 4));
                prop_assert!(value >> 18 & 3 == 1 || (value >> 32) as u32 == own);
                prop_assert_eq!(value & 0xFFF3_3000, 0);
            }
        }

        #[test]
        fn unnamed_msrs_are_absent(msr: u32, value: u64) {
            let named = [IA32_APIC_BASE, IA32_MISC_ENABLE, IA32_BIOS_SIGN_ID, IA32_PLATFORM_ID];
            prop_assume!(!named.contains(&msr) && !is_x2apic(msr));
            prop_assert_eq!(read(CoreKind::Dedicated, msr, &STATE), Err(Denied));
            prop_assert_eq!(write(CoreKind::Dedicated, msr, value, &STATE), WriteAction::Deny);
        }
    }
}
