//! Which VMX controls the hypervisor needs, and how they meet what the processor allows.
//!
//! SDM 3D appendix A: a capability MSR has the bits that must be 1 in its low half and those that may be 1 in
//! its high half.

use hv_core::msr::CoreKind;
use hv_defs::vmcs::{entry_control, exit_control, pin, processor, secondary};
use x86_64::registers::model_specific::Msr;

/// The five control words of one kind of core.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    /// Pin-based controls.
    pub pin: u32,
    /// Primary processor-based controls.
    pub processor: u32,
    /// Secondary processor-based controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls.
    pub entry: u32,
}

impl Controls {
    /// Whether the processor delivers virtual interrupts by itself.
    pub const fn has_virtual_interrupt_delivery(&self) -> bool {
        self.secondary & secondary::VIRTUAL_INTERRUPT_DELIVERY != 0
    }
}

/// A control word: the capability MSR that rules it and the name to say when a bit is missing.
struct Word {
    capability: u32,
    needed: &'static [(u32, &'static str)],
}

const IA32_VMX_BASIC: u32 = 0x480;
const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48B;
const IA32_VMX_EPT_VPID_CAP: u32 = 0x48C;

// SDM 3C 25.6.1
const PIN: Word = Word {
    capability: 0x48D,
    needed: &[
        (pin::NMI_EXITING, "NMI exiting"),
        (pin::VIRTUAL_NMIS, "virtual NMIs"),
        (pin::PREEMPTION_TIMER, "VMX preemption timer"),
    ],
};
// SDM 3C 25.6.2
const PROCESSOR: Word = Word {
    capability: 0x48E,
    needed: &[
        (processor::MWAIT_EXITING, "MWAIT exiting"),
        (processor::MONITOR_EXITING, "MONITOR exiting"),
        (processor::RDPMC_EXITING, "RDPMC exiting"),
        (processor::IO_BITMAPS, "I/O bitmaps"),
        (processor::MSR_BITMAPS, "MSR bitmaps"),
        (processor::SECONDARY_CONTROLS, "secondary processor-based controls"),
    ],
};
// SDM 3C 25.6.2
const SECONDARY: Word = Word {
    capability: IA32_VMX_PROCBASED_CTLS2,
    needed: &[
        (secondary::EPT, "EPT"),
        (secondary::VPID, "VPID"),
        (secondary::UNRESTRICTED_GUEST, "unrestricted guest"),
        (secondary::WBINVD_EXITING, "WBINVD exiting"),
        (secondary::RDTSCP, "RDTSCP"),
        (secondary::INVPCID, "INVPCID"),
    ],
};
// SDM 3C 25.7.1
const EXIT: Word = Word {
    capability: 0x48F,
    needed: &[
        (exit_control::SAVE_DEBUG_CONTROLS, "save debug controls"),
        (exit_control::HOST_64_BIT, "64-bit host"),
        (exit_control::SAVE_PAT, "save IA32_PAT"),
        (exit_control::LOAD_PAT, "load IA32_PAT on exit"),
        (exit_control::SAVE_EFER, "save IA32_EFER"),
        (exit_control::LOAD_EFER, "load IA32_EFER on exit"),
    ],
};
// SDM 3C 25.8.1
const ENTRY: Word = Word {
    capability: 0x490,
    needed: &[
        (entry_control::LOAD_DEBUG_CONTROLS, "load debug controls"),
        (entry_control::LOAD_PAT, "load IA32_PAT on entry"),
        (entry_control::LOAD_EFER, "load IA32_EFER on entry"),
    ],
};

/// What only a time-shared core needs.
const SHARED_PIN: (u32, &str) = (pin::EXTERNAL_INTERRUPT_EXITING, "external-interrupt exiting");
const CR8_EXITING: u32 = processor::CR8_LOAD_EXITING | processor::CR8_STORE_EXITING;
/// APIC virtualization, all of it or none: registers in the virtual-APIC page, read and written without an exit, and interrupts
/// delivered by the processor. SDM 3C 30.1.
const APIC_VIRTUALIZATION: u32 = secondary::VIRTUALIZE_X2APIC_MODE
    | secondary::APIC_REGISTER_VIRTUALIZATION
    | secondary::VIRTUAL_INTERRUPT_DELIVERY;
const SHARED_EXIT: (u32, &str) =
    (exit_control::ACKNOWLEDGE_INTERRUPT, "acknowledge interrupt on exit");

/// EPT abilities: 4-level walk (6), write-back structures (14), 2-MByte pages (16), INVEPT (20), all-context
/// INVEPT (26), INVVPID (32), single-context INVVPID (41). SDM 3D A.10.
const EPT_ABILITIES: [(u64, &str); 7] = [
    (1 << 6, "EPT with a page walk of four levels"),
    (1 << 14, "EPT structures in write-back memory"),
    (1 << 16, "2-MByte EPT pages"),
    (1 << 20, "INVEPT"),
    (1 << 26, "INVEPT for all contexts"),
    (1 << 32, "INVVPID"),
    (1 << 41, "INVVPID for one context"),
];

fn capability(msr: u32) -> u64 {
    #[expect(unsafe_code, reason = "reading a capability MSR")]
    // SAFETY: the VMX capability MSRs exist when CPUID reports VMX, and PROCBASED_CTLS2 and EPT_VPID_CAP
    // are read only where the primary word allows secondary controls; reading has no effect.
    unsafe {
        Msr::new(msr).read()
    }
}

impl Word {
    fn allowed(&self) -> u32 {
        (capability(self.capability) >> 32) as u32
    }

    fn needed_bits(&self) -> u32 {
        self.needed.iter().fold(0, |bits, (bit, _)| bits | bit)
    }

    /// The needed bits plus `more`, plus those that the processor insists on.
    fn settle(&self, more: u32) -> u32 {
        self.needed_bits() | more | capability(self.capability) as u32
    }

    fn missing(&self, report: &mut dyn FnMut(&'static str)) {
        let allowed = self.allowed();
        for (bit, name) in self.needed {
            if allowed & bit == 0 {
                report(name);
            }
        }
    }
}

/// Names each VT-x ability that the hypervisor needs and this core lacks. Call only where CPUID
/// reports VMX.
pub fn missing_controls(report: &mut dyn FnMut(&'static str)) {
    // SDM 3D A.1: bit 55 says that the TRUE capability MSRs exist, which let the defaults be cleared.
    if capability(IA32_VMX_BASIC) & (1 << 55) == 0 {
        report("TRUE VMX capability MSRs");
        return;
    }
    PIN.missing(report);
    PROCESSOR.missing(report);
    EXIT.missing(report);
    ENTRY.missing(report);
    if PIN.allowed() & SHARED_PIN.0 == 0 {
        report(SHARED_PIN.1);
    }
    if EXIT.allowed() & SHARED_EXIT.0 == 0 {
        report(SHARED_EXIT.1);
    }
    if PROCESSOR.allowed() & processor::SECONDARY_CONTROLS == 0 {
        return;
    }
    SECONDARY.missing(report);
    let abilities = capability(IA32_VMX_EPT_VPID_CAP);
    for (bit, name) in EPT_ABILITIES {
        if abilities & bit == 0 {
            report(name);
        }
    }
}

/// Whether this core walks EPT pages of 1 GiB. SDM 3D A.10: bit 17.
pub fn has_huge_ept_pages() -> bool {
    capability(IA32_VMX_EPT_VPID_CAP) & (1 << 17) != 0
}

/// The revision that each VMX region starts with. SDM 3D A.1.
pub fn revision() -> u32 {
    capability(IA32_VMX_BASIC) as u32 & 0x7FFF_FFFF
}

/// By how much the preemption timer counts slower than the TSC: one tick each 2^n. SDM 3D A.6.
pub fn preemption_timer_shift() -> u32 {
    const IA32_VMX_MISC: u32 = 0x485;
    (capability(IA32_VMX_MISC) & 0x1F) as u32
}

/// Whether RDRAND and RDSEED exit here, and are told to be absent: the processor's cores share their random numbers (SRBDS), or its
/// microcode holds the other cores up for each.
pub fn intercepts_random_numbers() -> bool {
    random_number_exits() != 0
}

fn random_number_exits() -> u32 {
    let wanted = secondary::RDRAND_EXITING | secondary::RDSEED_EXITING;
    if crate::cpu::errata().shares_random_numbers() { wanted & SECONDARY.allowed() } else { 0 }
}

/// Controls of a core of this kind.
pub fn of(kind: CoreKind) -> Controls {
    match kind {
        CoreKind::Dedicated => dedicated(),
        CoreKind::Shared => shared(has_apic_virtualization()),
    }
}

/// CR4 bits that the processor lets be set in VMX operation. SDM 3D A.8.
pub fn cr4_possible() -> u64 {
    const IA32_VMX_CR4_FIXED1: u32 = 0x489;
    capability(IA32_VMX_CR4_FIXED1)
}

/// Controls of a dedicated core: no external-interrupt exiting, no HLT exiting, the preemption timer off
/// until a kick turns it on.
fn dedicated() -> Controls {
    Controls {
        pin: PIN.settle(0) & !pin::PREEMPTION_TIMER,
        processor: PROCESSOR.settle(0),
        secondary: SECONDARY.settle(random_number_exits()),
        exit: EXIT.settle(0),
        entry: ENTRY.settle(0),
    }
}

/// Whether this core virtualizes the APIC of a time-shared vCPU: the TPR shadow, which the other controls need (SDM 3C
/// 27.2.1.1), and those.
pub fn has_apic_virtualization() -> bool {
    PROCESSOR.allowed() & processor::TPR_SHADOW != 0
        && SECONDARY.allowed() & APIC_VIRTUALIZATION == APIC_VIRTUALIZATION
}

/// Controls of a time-shared core. Without APIC virtualization each access to the APIC exits, CR8 included.
fn shared(apic_virtualization: bool) -> Controls {
    let (processor, secondary) = if apic_virtualization {
        (processor::TPR_SHADOW, APIC_VIRTUALIZATION)
    } else {
        (CR8_EXITING, 0)
    };
    Controls {
        pin: PIN.settle(SHARED_PIN.0),
        processor: PROCESSOR.settle(processor),
        secondary: SECONDARY.settle(secondary | random_number_exits()),
        exit: EXIT.settle(SHARED_EXIT.0),
        entry: ENTRY.settle(0),
    }
}
