//! What a processor can do, under the names that a board file uses.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hv_core::errata::Processor;
use hv_defs::msr;

use crate::facts::{Core, Facts, Vmx};
use crate::left::LeftOut;
use crate::power;

/// An ability of the processor and what tells it.
#[derive(Clone, Copy, Debug)]
pub struct Ability {
    /// As the board file names it.
    pub name: &'static str,
    needed: Needed,
    source: Source,
}

/// When the hypervisor refuses a machine that lacks an ability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Never,
    Always,
    /// On a machine that has AMD-V.
    WithAmdV,
    /// Unless the board file vouches for the clock.
    UnlessVouched,
}

/// What tells an ability.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// A bit of CPUID.
    Bit { leaf: u32, register: usize, bit: u32 },
    /// What is known of the processor's errata.
    NoMultihit,
}

/// The processor is free of the iTLB multihit erratum (CVE-2018-12207): code may be mapped by large pages.
pub const NO_MULTIHIT: &str = "no-itlb-multihit";

/// The TSC runs at one rate in every state, by CPUID.
pub const INVARIANT_TSC: &str = "invariant-tsc";

/// VT-x and AMD-V in a board file.
const VT_X_NAME: &str = "vt-x";
const AMD_V_NAME: &str = "amd-v";
/// Named where there is neither.
const EITHER: &str = "vt-x or amd-v";

/// IA32_FEATURE_CONTROL: bit 0 locks it, bit 2 allows VMX outside SMX. SDM 3C 24.7.
pub const FEATURE_CONTROL: u32 = 0x3A;
const LOCKED: u64 = 1 << 0;
const VMX_ALLOWED: u64 = 1 << 2;

/// The bit of CPUID.1:ECX that tells VT-x.
const VMX: u32 = 1 << 5;

/// The CPUID leaf of AMD-V. APM 3 E.4.9.
const SVM: u32 = hv_defs::svm::CPUID_LEAF;

const ECX: usize = 2;
const EDX: usize = 3;
const EBX: usize = 1;

const fn of(name: &'static str, needed: Needed, leaf: u32, register: usize, bit: u32) -> Ability {
    Ability { name, needed, source: Source::Bit { leaf, register, bit } }
}

const fn needed(name: &'static str, leaf: u32, register: usize, bit: u32) -> Ability {
    of(name, Needed::Always, leaf, register, bit)
}

const fn useful(name: &'static str, leaf: u32, register: usize, bit: u32) -> Ability {
    of(name, Needed::Never, leaf, register, bit)
}

/// Abilities of the processor. SDM 2A, CPUID; APM 3 E.4; the last by IA32_ARCH_CAPABILITIES (SDM 4, table 2-2) and the model. Of the two
/// ways to run guests [`lacking`] wants one.
pub const PROCESSOR: &[Ability] = &[
    useful(VT_X_NAME, 1, ECX, 5),
    useful(AMD_V_NAME, 0x8000_0001, ECX, 2),
    needed("x2apic", 1, ECX, 21),
    useful("tsc-deadline", 1, ECX, 24),
    needed("xsave", 1, ECX, 26),
    of(INVARIANT_TSC, Needed::UnlessVouched, 0x8000_0007, EDX, 8),
    needed("no-execute", 0x8000_0001, EDX, 20),
    of("nested-paging", Needed::WithAmdV, SVM, EDX, 0),
    useful("next-rip", SVM, EDX, 3),
    useful("clean-bits", SVM, EDX, 5),
    useful("flush-by-asid", SVM, EDX, 6),
    useful("decode-assists", SVM, EDX, 7),
    useful("virtual-gif", SVM, EDX, 16),
    useful("virtual-nmi", SVM, EDX, 25),
    useful("avx", 1, ECX, 28),
    useful("avx2", 7, EBX, 5),
    useful("avx-512", 7, EBX, 16),
    useful("pages-of-1-gib", 0x8000_0001, EDX, 26),
    useful("branch-barrier", 7, EDX, 26),
    useful("l1d-flush", 7, EDX, 28),
    useful("buffer-clear", 7, EDX, 10),
    useful("hybrid-cores", 7, EDX, 15),
    Ability { name: NO_MULTIHIT, needed: Needed::Never, source: Source::NoMultihit },
];

/// What the hypervisor needs of a processor of which `has` tells the abilities, and that it lacks. `vouched`: the board file vouches for
/// the clock.
#[must_use]
pub fn lacking(has: impl Fn(&str) -> bool, vouched: bool) -> Vec<&'static str> {
    let amd_v = has(AMD_V_NAME);
    let either = (!amd_v && !has(VT_X_NAME)).then_some(EITHER);
    let needed = |needed| match needed {
        Needed::Never => false,
        Needed::Always => true,
        Needed::WithAmdV => amd_v,
        Needed::UnlessVouched => !vouched,
    };
    let missing = PROCESSOR.iter().filter(|ability| needed(ability.needed) && !has(ability.name));
    either.into_iter().chain(missing.map(|ability| ability.name)).collect()
}

/// An ability of VT-x: a bit of a capability register, and Linux' name for it.
#[derive(Clone, Copy, Debug)]
pub struct VmxAbility {
    /// As the board file names it.
    pub name: &'static str,
    /// Whether the hypervisor refuses a machine without it.
    pub needed: bool,
    register: u32,
    bit: u32,
    linux: &'static str,
}

/// IA32_VMX_PINBASED_CTLS, PROCBASED_CTLS, PROCBASED_CTLS2 and EPT_VPID_CAP. SDM 3D A. The three first have what may
/// be set in their high half.
const PIN: u32 = 0x481;
const PRIMARY: u32 = 0x482;
const SECONDARY: u32 = 0x48B;
const EPT_VPID: u32 = 0x48C;

/// The bit of [`PRIMARY`] that says whether the registers behind it exist.
const HAS_SECONDARY: u64 = 1 << 63;

/// Whether a core has VT-x, and so the registers that go with it.
#[must_use]
pub fn has_vmx(core: Option<&Core>) -> bool {
    core.is_some_and(|core| core.leaf(1, 0)[ECX] & VMX != 0)
}

/// The VMX capability registers and IA32_ARCH_CAPABILITIES, which tell the abilities, with their values. `read` reads one, where it can; it is asked for none that
/// the processor lacks: `boot` is the boot core, as it answered.
pub fn vmx_registers(boot: Option<&Core>, read: impl Fn(u32) -> Option<u64>) -> Vec<(u32, u64)> {
    let read = |register: u32| Some((register, read(register)?));
    if !has_vmx(boot) {
        return Vec::new();
    }
    let mut known: Vec<_> = [PIN, PRIMARY].into_iter().filter_map(read).collect();
    if known.iter().any(|(register, value)| *register == PRIMARY && value & HAS_SECONDARY != 0) {
        known.extend([SECONDARY, EPT_VPID].into_iter().filter_map(read));
    }
    if boot.is_some_and(|core| Processor::has_capabilities(core.leaf(7, 0)[EDX])) {
        known.extend(read(msr::ARCH_CAPABILITIES));
    }
    known
}

const fn control(
    name: &'static str,
    needed: bool,
    register: u32,
    bit: u32,
    linux: &'static str,
) -> VmxAbility {
    VmxAbility { name, needed, register, bit: 32 + bit, linux }
}

const fn paging(name: &'static str, needed: bool, bit: u32, linux: &'static str) -> VmxAbility {
    VmxAbility { name, needed, register: EPT_VPID, bit, linux }
}

/// Abilities of VT-x: those that both the registers and Linux tell. The hypervisor needs more, which every processor
/// with these has; it verifies all of them at boot.
pub const VT_X: &[VmxAbility] = &[
    control("virtual-nmis", true, PIN, 5, "vnmi"),
    control("preemption-timer", true, PIN, 6, "preemption_timer"),
    control("posted-interrupts", false, PIN, 7, "posted_intr"),
    control("tpr-shadow", false, PRIMARY, 21, "vtpr"),
    control("monitor-trap", false, PRIMARY, 27, "mtf"),
    control("ept", true, SECONDARY, 1, "ept"),
    control("vpid", true, SECONDARY, 5, "vpid"),
    control("unrestricted-guest", true, SECONDARY, 7, "unrestricted_guest"),
    control("apic-access-virtualization", false, SECONDARY, 0, "vapic"),
    control("apic-register-virtualization", false, SECONDARY, 8, "vapic_reg"),
    control("virtual-interrupt-delivery", false, SECONDARY, 9, "vid"),
    control("pause-loop-exiting", false, SECONDARY, 10, "ple"),
    control("vmcs-shadowing", false, SECONDARY, 14, "shadow_vmcs"),
    control("page-modification-log", false, SECONDARY, 17, "pml"),
    control("tsc-scaling", false, SECONDARY, 25, "tsc_scaling"),
    paging("ept-execute-only", false, 0, "ept_x_only"),
    paging("ept-pages-of-1-gib", false, 17, "ept_1gb"),
    paging("ept-accessed-dirty", false, 21, "ept_ad"),
    paging("invvpid", true, 32, "invvpid"),
];

impl Ability {
    /// Whether a core has it. `vmx` holds IA32_ARCH_CAPABILITIES where that could be read.
    fn is_of(&self, core: &Core, vmx: &Vmx) -> bool {
        match self.source {
            Source::Bit { leaf, register, bit } => {
                core.leaf(leaf, 0).get(register).is_some_and(|value| value >> bit & 1 != 0)
            }
            Source::NoMultihit => {
                power::is_amd(core)
                    || power::is_intel(core) && !errata(core, vmx).may_have_multihit()
            }
        }
    }
}

/// The names of what every core can do: a partition may run on any of them. VT-x counts only where the hypervisor can use it.
#[must_use]
pub fn conclude(facts: &Facts, notes: &mut Vec<String>) -> Vec<&'static str> {
    let boot = facts.cores.first();
    let mut names = Vec::new();
    for ability in
        PROCESSOR.iter().filter(|ability| boot.is_some_and(|core| ability.is_of(core, &facts.vmx)))
    {
        let without = facts.cores.iter().filter(|core| !ability.is_of(core, &facts.vmx)).count();
        if without > 0 {
            let what = ability.name;
            notes.push(format!(
                "{without} cores lack `{what}`, which the boot core has: it is left out"
            ));
        } else {
            names.push(ability.name);
        }
    }
    if names.contains(&VT_X_NAME)
        && let Some(why) = unusable(facts)
    {
        notes.push(format!("the processor has VT-x, and the hypervisor cannot use it: {why}"));
        names.retain(|name| *name != VT_X_NAME);
    }
    names
}

/// Why the hypervisor cannot use the VT-x that CPUID shows, with the remedy.
fn unusable(facts: &Facts) -> Option<String> {
    let boot = facts.cores.first()?;
    if !power::is_intel(boot) {
        return Some(
            "its vendor is not GenuineIntel. Choose a board with a processor of Intel's or AMD's"
                .into(),
        );
    }
    let locked = |value: &&u64| **value & LOCKED != 0 && **value & VMX_ALLOWED == 0;
    let value = facts.feature_control.iter().find(locked)?;
    Some(format!(
        "firmware locked it off (IA32_FEATURE_CONTROL is {value:#x}). Switch \"Intel Virtualization Technology\" (VT-x, VMX) on in the firmware's set-up and probe again"
    ))
}

/// What the processor says of its errata.
fn errata(core: &Core, vmx: &Vmx) -> Processor {
    let registers = match vmx {
        Vmx::Registers(registers) => registers.as_slice(),
        Vmx::Unknown | Vmx::LinuxFlags(_) => &[],
    };
    let told = registers.iter().find(|(register, _)| *register == msr::ARCH_CAPABILITIES);
    Processor {
        signature: core.leaf(1, 0)[0],
        leaf_7_edx: core.leaf(7, 0)[EDX],
        capabilities: told.map_or(0, |(_, value)| *value),
    }
}

/// The names of what VT-x can do; `None` when nothing of it could be read.
#[must_use]
pub fn vt_x(vmx: &Vmx) -> Option<Vec<&'static str>> {
    let has = |ability: &&VmxAbility| match vmx {
        Vmx::Unknown => false,
        Vmx::Registers(registers) => registers.iter().any(|(register, value)| {
            *register == ability.register && value >> ability.bit & 1 != 0
        }),
        Vmx::LinuxFlags(flags) => flags.iter().any(|flag| flag == ability.linux),
    };
    match vmx {
        Vmx::Unknown => None,
        Vmx::Registers(registers) if registers.is_empty() => None,
        Vmx::LinuxFlags(flags) if flags.is_empty() => None,
        _ => Some(VT_X.iter().filter(has).map(|ability| ability.name).collect()),
    }
}

/// How a cache can be divided among classes of service. SDM 3B 18.19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheAllocation {
    /// Level of the cache: 2 or 3.
    pub level: u8,
    /// Parts that a class can be given.
    pub ways: u32,
    /// Classes.
    pub classes: u32,
}

/// Most classes that a board file counts.
const MOST_CLASSES: u32 = u16::MAX as u32;

/// What CPUID leaf 0x10 says of the caches of level 3 and 2.
#[must_use]
pub fn cache_allocation(core: &Core, notes: &mut Vec<String>) -> Vec<CacheAllocation> {
    const DIVIDES_CACHES: u32 = 1 << 15;
    if core.leaf(7, 0)[1] & DIVIDES_CACHES == 0 {
        return Vec::new();
    }
    let offered = core.leaf(0x10, 0)[1];
    let mut left = LeftOut::default();
    let allocations = [(2, 2), (3, 1)]
        .into_iter()
        .filter(|(_, sub)| offered >> sub & 1 != 0)
        .map(|(level, sub)| {
            let [shape, _, _, classes] = core.leaf(0x10, sub);
            CacheAllocation { level, ways: (shape & 0x1F) + 1, classes: (classes & 0xFFFF) + 1 }
        })
        .filter(|allocation| {
            let possible = allocation.classes <= MOST_CLASSES;
            if !possible {
                let subject = format!("the allocation of caches of level {}", allocation.level);
                left.add(subject, "CPUID.10H claims more classes than a board file counts");
            }
            possible
        })
        .collect();
    left.tell(notes);
    allocations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Leaf;
    use std::cell::RefCell;

    /// The registers that are asked for, where the second has this value.
    fn asked(ecx: u32, primary: u64) -> Vec<u32> {
        let leaf = Leaf { leaf: 1, sub: 0, registers: [0, 0, ecx, 0] };
        let core = Core { leaves: [leaf].into() };
        let asked = RefCell::new(Vec::new());
        let known = vmx_registers(Some(&core), |register| {
            asked.borrow_mut().push(register);
            Some(if register == PRIMARY { primary } else { 0 })
        });
        let asked = asked.into_inner();
        assert_eq!(known.iter().map(|(register, _)| *register).collect::<Vec<_>>(), asked);
        asked
    }

    #[test]
    fn no_register_is_asked_for_that_the_processor_lacks() {
        assert_eq!(asked(0, HAS_SECONDARY), [0; 0]);
        assert_eq!(asked(VMX, 0), [PIN, PRIMARY]);
        assert_eq!(asked(VMX, HAS_SECONDARY), [PIN, PRIMARY, SECONDARY, EPT_VPID]);
        assert_eq!(vmx_registers(None, |_| Some(0)), []);
    }

    #[test]
    fn one_way_to_run_guests_is_enough_and_each_wants_its_own() {
        let common = ["x2apic", "xsave", "invariant-tsc", "no-execute"];
        let lacks = |more: &[&str], vouched| {
            lacking(|name| common.contains(&name) || more.contains(&name), vouched)
        };
        assert_eq!(lacks(&[], false), [EITHER]);
        assert_eq!(lacks(&["vt-x"], false), [""; 0]);
        assert_eq!(lacks(&["amd-v"], false), ["nested-paging"]);
        assert_eq!(lacks(&["amd-v", "nested-paging"], false), [""; 0]);
        assert_eq!(lacking(|name| name == "vt-x", true), ["x2apic", "xsave", "no-execute"]);
        assert!(lacking(|name| name == "vt-x", false).contains(&"invariant-tsc"));
    }

    /// A core of this vendor, signature and leaf 7.
    fn core(vendor: [u32; 3], signature: u32, leaf_7_edx: u32) -> Core {
        let leaf = |leaf, registers| Leaf { leaf, sub: 0, registers };
        let [ebx, edx, ecx] = vendor;
        let leaves = [
            leaf(0, [0x16, ebx, ecx, edx]),
            leaf(1, [signature, 0, VMX, 0]),
            leaf(7, [0, 0, 0, leaf_7_edx]),
        ];
        Core { leaves: leaves.into() }
    }

    #[test]
    fn the_erratum_is_denied_only_where_register_or_model_say_so() {
        const INTEL: [u32; 3] = [0x756E_6547, 0x4965_6E69, 0x6C65_746E];
        const AMD: [u32; 3] = [0x6874_7541, 0x6974_6E65, 0x444D_4163];
        const HAS_REGISTER: u32 = 1 << 29;
        let told = |core: &Core, vmx: Vmx| {
            let facts = Facts { cores: [core.clone()].into(), vmx, ..Facts::default() };
            conclude(&facts, &mut Vec::new()).contains(&NO_MULTIHIT)
        };
        let free = |core: &Core, value: Option<u64>| {
            let registers = vmx_registers(Some(core), |register| {
                if register == msr::ARCH_CAPABILITIES { value } else { Some(0) }
            });
            told(core, Vmx::Registers(registers))
        };
        let (skylake, apollo_lake) = (0x0005_06E3, 0x0005_06C9);
        assert!(!free(&core(INTEL, skylake, 0), Some(1 << 6)), "the register is not there");
        assert!(!free(&core(INTEL, skylake, HAS_REGISTER), Some(0)));
        assert!(!free(&core(INTEL, skylake, HAS_REGISTER), None), "it could not be read");
        assert!(free(&core(INTEL, skylake, HAS_REGISTER), Some(1 << 6)));
        assert!(free(&core(INTEL, apollo_lake, 0), None));
        assert!(free(&core(AMD, skylake, 0), None), "no processor of AMD's has it");
        const OTHER: [u32; 3] = [0x7265_6854, 0x6E69_6175, 0x7561_6854];
        assert!(!free(&core(OTHER, apollo_lake, 0), None), "model numbers are each vendor's own");
        assert!(!told(&core(INTEL, skylake, 0), Vmx::Unknown));
    }
}
