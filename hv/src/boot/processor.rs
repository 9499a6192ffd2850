//! What a core must be able to do, held against the core that runs this.
#![expect(unsafe_code, reason = "reads and locks IA32_FEATURE_CONTROL")]

use core::arch::x86_64::__cpuid;

use bulkhead_table::Hygiene;
use hv_defs::cpuid;
use raw_cpuid::CpuId;
use x86_64::registers::model_specific::Msr;

use super::defects::Defects;
use super::{amd_v, power};
use crate::cpu;
use crate::table::TABLE;

/// How a processor runs guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel's.
    VtX,
    /// AMD's.
    AmdV,
}

impl Virtualization {
    /// What this processor has, by CPUID alone; firmware may have locked it off.
    pub fn found() -> Option<Self> {
        let cpuid = CpuId::new();
        if cpuid.get_feature_info().is_some_and(|info| info.has_vmx()) {
            return Some(Self::VtX);
        }
        let extended = cpuid.get_extended_processor_and_feature_identifiers();
        extended.is_some_and(|info| info.has_svm()).then_some(Self::AmdV)
    }

    /// Whose processors have it.
    const fn vendor(self) -> &'static str {
        match self {
            Self::VtX => "GenuineIntel",
            Self::AmdV => "AuthenticAMD",
        }
    }

    /// Names what of it the core that runs this lacks.
    fn missing(self, report: &mut dyn FnMut(&'static str)) {
        match self {
            Self::VtX => missing_vt_x(report),
            Self::AmdV => amd_v::missing(report),
        }
    }
}

/// SDM 3C 24.7: bit 0 locks the register, bit 2 allows VMX outside SMX.
const IA32_FEATURE_CONTROL: u32 = 0x3A;
const LOCKED: u64 = 1 << 0;
const VMX_ALLOWED: u64 = 1 << 2;

/// Without VT-x or AMD-V every other question is moot: this is told alone.
pub fn verify_virtualization(defects: &mut Defects) {
    if Virtualization::found().is_none() {
        defects.add_plainly(format_args!(
            "Bulkhead needs VT-x (CPUID.1:ECX.VMX) or AMD-V (CPUID.80000001H:ECX.SVM), and this processor has neither."
        ));
    }
}

/// Tells what the boot core lacks, and whether it is the one that the table means.
pub fn verify_boot_core(defects: &mut Defects) {
    verify_vendor(defects);
    let id = cpu::apic_id();
    missing_abilities(&mut |name| {
        defects.add(format_args!("the core with APIC id {id} lacks {name}"));
    });
    let declared = apic_id_of(super::BOOT_CORE);
    if declared != Some(id) {
        defects.add(format_args!(
            "it booted on the core with APIC id {id}, and the system's first core must be the boot core, but has APIC id {} in the board file; let the board file's first [[core]] be the boot core and let the system use it",
            declared.unwrap_or(u32::MAX)
        ));
    }
}

fn verify_vendor(defects: &mut Defects) {
    let cpuid = CpuId::new();
    let wanted = Virtualization::found().map(Virtualization::vendor);
    match (cpuid.get_vendor_info(), wanted) {
        (Some(vendor), Some(wanted)) if vendor.as_str() != wanted => defects.add(format_args!(
            "the processor's vendor is {}, and what it has to run guests is enforced on {wanted} only",
            vendor.as_str()
        )),
        (None, _) => defects.add(format_args!("the processor does not name its vendor")),
        _ => {}
    }
}

/// APIC id of a core, by its index in the table.
pub fn apic_id_of(core: usize) -> Option<u32> {
    let core = TABLE.cores.get(core)?;
    TABLE.board.apic_ids.get(usize::from(core.cpu)).copied()
}

/// Names each ability that the core which runs this lacks.
pub fn missing_abilities(report: &mut dyn FnMut(&'static str)) {
    let cpuid = CpuId::new();
    let info = cpuid.get_feature_info();
    let has = |test: fn(&raw_cpuid::FeatureInfo) -> bool| info.as_ref().is_some_and(test);
    let mut need = |present: bool, name: &'static str| {
        if !present {
            report(name);
        }
    };
    need(has(|info| info.has_x2apic()), "x2APIC (CPUID.1:ECX.x2APIC)");
    need(has(|info| info.has_xsave()), "XSAVE (CPUID.1:ECX.XSAVE)");
    need(
        TABLE.board.tsc_vouched
            || cpuid.get_advanced_power_mgmt_info().is_some_and(|info| info.has_invariant_tsc()),
        "an invariant TSC (CPUID.80000007H:EDX.8), on which all time is built; where it is known to be one all the same, write `vouched = true` in the board file's [clock]",
    );
    need(
        cpuid
            .get_extended_processor_and_feature_identifiers()
            .is_some_and(|info| info.has_execute_disable()),
        "no-execute pages (CPUID.80000001H:EDX.NX); switch them on in the firmware's set-up",
    );
    missing_hygiene(&mut need);
    let virtualization = Virtualization::found();
    // Only Intel's processors have it.
    need(
        !TABLE.board.large_code_pages
            || virtualization == Some(Virtualization::AmdV)
            || !cpu::errata().may_have_multihit(),
        "freedom from the iTLB multihit erratum (IA32_ARCH_CAPABILITIES.IF_PSCHANGE_MC_NO); take `no-itlb-multihit` out of the board file's [abilities]: code is then mapped by pages of 4 KiB",
    );
    power::take_over(&mut need);
    match virtualization {
        Some(found) => found.missing(report),
        None => report("VT-x (CPUID.1:ECX.VMX) and AMD-V (CPUID.80000001H:ECX.SVM)"),
    }
}

/// Names what of VT-x the core that runs this lacks. It has VT-x.
fn missing_vt_x(report: &mut dyn FnMut(&'static str)) {
    if !unlock_vmx() {
        report(
            "VT-x because the firmware locked it off (IA32_FEATURE_CONTROL); switch Intel Virtualization Technology on in the firmware's set-up",
        );
    }
    crate::vmx::missing_controls(report);
}

/// What the table's partitions want cleaned between them, and the processor cannot. SDM 2A CPUID leaf 7, EDX; a bit is looked at only
/// where a partition asks.
fn missing_hygiene(need: &mut dyn FnMut(bool, &'static str)) {
    let mut wanted = Hygiene::default();
    for partition in TABLE.partitions {
        wanted = wanted.or(partition.hygiene);
    }
    let edx = core::arch::x86_64::__cpuid_count(7, 0).edx;
    let has = |bit: u32| edx & (1 << bit) != 0;
    need(
        !wanted.buffer_clear || has(10),
        "MD_CLEAR (CPUID.7:EDX.10), which `hygiene = [\"buffer-clear\"]` needs",
    );
    need(
        !wanted.branch_barrier || has(26) || has_amd_ibpb(),
        "IBPB (CPUID.7:EDX.26, or CPUID.80000008H:EBX.12), which `hygiene = [\"branch-barrier\"]` needs",
    );
    need(
        !wanted.l1d_flush || has(28),
        "L1D_FLUSH (CPUID.7:EDX.28), which `hygiene = [\"l1d-flush\"]` needs",
    );
}

/// Whether IA32_PRED_CMD is there as AMD announces it. APM 3 E.4.7.
fn has_amd_ibpb() -> bool {
    const IBPB: u32 = 1 << 12;
    let has_leaf = __cpuid(cpuid::EXTENDED_BASE).eax >= cpuid::ADDRESS_SIZES;
    has_leaf && __cpuid(cpuid::ADDRESS_SIZES).ebx & IBPB != 0
}

/// Allows VMX on this core where firmware left that open; false when firmware locked it off.
fn unlock_vmx() -> bool {
    let mut control = Msr::new(IA32_FEATURE_CONTROL);
    // SAFETY: the register exists where CPUID reports VMX, and is written only while unlocked.
    unsafe {
        let value = control.read();
        if value & LOCKED == 0 {
            control.write(value | LOCKED | VMX_ALLOWED);
        }
        control.read() & (LOCKED | VMX_ALLOWED) == LOCKED | VMX_ALLOWED
    }
}
