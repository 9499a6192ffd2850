//! What each core has of its own: stacks, descriptor tables, exception handlers, local APIC.

pub mod apic;
mod descriptors;
mod exceptions;
pub mod guarded;
pub mod instructions;
pub mod machine_check;
pub mod stacks;

use hv_core::errata::Processor;
use hv_defs::msr;
use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

/// Loads descriptor tables of the core with this index in the table: from here on an exception is told by name.
pub fn load_descriptors(core: usize) {
    descriptors::load(core);
    exceptions::load();
    take_machine_checks();
}

/// Without CR4.MCE a machine check is not an exception but a reset of the board. SDM 3B 16.
fn take_machine_checks() {
    #[expect(unsafe_code, reason = "writes CR4")]
    // SAFETY: the handler is in place, on a stack of its own.
    unsafe {
        Cr4::update(|flags| flags.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION));
    }
}

/// This core's APIC id, as the processor says it: 32 bits where it knows them.
pub fn apic_id() -> u32 {
    let cpuid = CpuId::new();
    let extended = cpuid.get_extended_topology_info().and_then(|mut levels| levels.next());
    match extended {
        Some(level) => level.x2apic_id(),
        None => cpuid.get_feature_info().map_or(0, |info| u32::from(info.initial_local_apic_id())),
    }
}

/// What this core says of its errata. SDM 4, table 2-2.
pub fn errata() -> Processor {
    let leaf_7_edx = core::arch::x86_64::__cpuid_count(7, 0).edx;
    let capabilities = if Processor::has_capabilities(leaf_7_edx) {
        #[expect(unsafe_code, reason = "reads an MSR")]
        // SAFETY: CPUID.7:EDX.29 says that the register is there; reading has no effect.
        unsafe {
            Msr::new(msr::ARCH_CAPABILITIES).read()
        }
    } else {
        0
    };
    let signature = core::arch::x86_64::__cpuid(1).eax;
    Processor { signature, leaf_7_edx, capabilities }
}

/// The time-stamp counter, read after all earlier instructions and before all later ones.
pub fn tsc() -> u64 {
    #[expect(unsafe_code, reason = "RDTSC and LFENCE have no safe form")]
    // SAFETY: both only order and read.
    unsafe {
        core::arch::asm!("lfence", options(nostack, nomem, preserves_flags));
        let now = core::arch::x86_64::_rdtsc();
        core::arch::asm!("lfence", options(nostack, nomem, preserves_flags));
        now
    }
}

/// Stops this core for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
