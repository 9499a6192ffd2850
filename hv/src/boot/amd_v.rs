//! What a core with AMD-V must be able to do. APM 2 15.4, 15.30.
#![expect(unsafe_code, reason = "reads VM_CR")]

use core::arch::x86_64::__cpuid;

use hv_defs::svm::{self, SvmFeatures, vm_cr};
use x86_64::registers::model_specific::Msr;

/// Address space identifiers at least: the host's, which is 0, and one for guests.
const LEAST_ASIDS: u32 = 2;

/// Names what of AMD-V the core that runs this lacks. It has AMD-V.
pub fn missing(report: &mut dyn FnMut(&'static str)) {
    let leaf = __cpuid(svm::CPUID_LEAF);
    let features = SvmFeatures::from_bits_retain(leaf.edx);
    let mut need = |present: bool, name: &'static str| {
        if !present {
            report(name);
        }
    };
    // SAFETY: the register exists where CPUID reports AMD-V, and reading it changes nothing.
    let control = unsafe { Msr::new(svm::msr::VM_CR).read() };
    need(
        control & vm_cr::SVM_DISABLED == 0,
        "AMD-V because the firmware locked it off (VM_CR.SVMDIS); switch SVM Mode on in the firmware's set-up",
    );
    need(features.contains(SvmFeatures::NESTED_PAGING), "nested paging (CPUID.8000000AH:EDX.0)");
    need(leaf.ebx >= LEAST_ASIDS, "address space identifiers for guests (CPUID.8000000AH:EBX)");
    need(false, "a back end for AMD-V, which this build of the hypervisor has not yet");
}
