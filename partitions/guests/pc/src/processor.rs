//! What the processor tells an operating system of where it runs.

use guest_rt::cpuid;
use guest_rt::hostile::{read_msr, write_msr};

const APIC_BASE: u32 = 0x1B;
const LVT_LINT0: u32 = 0x835;
/// An entry that delivers what a legacy interrupt controller says (ExtINT), unmasked.
const EXTINT: u64 = 0x700;
const MASKED: u64 = 1 << 16;

pub fn sees_kvm() -> bool {
    let base = cpuid(0x4000_0000, 0);
    let signature = [base.ebx, base.ecx, base.edx];
    let features = cpuid(0x4000_0001, 0);
    signature == [0x4B4D_564B, 0x564B_4D56, 0x4D] && (features.eax, features.edx) == (0x82, 1)
}

/// Leaf 0x15, by which nobody has to measure, and our own leaf say the same.
pub fn knows_its_frequency() -> bool {
    let (ratio, own) = (cpuid(0x15, 0), cpuid(0x4000_0110, 0));
    let told = u64::from(ratio.ecx) * u64::from(ratio.ebx) / u64::from(ratio.eax.max(1));
    cpuid(0, 0).eax >= 0x16 && told / 1000 == u64::from(own.eax) && told > 0
}

pub fn is_in_x2apic_mode() -> bool {
    read_msr(APIC_BASE).is_ok_and(|base| base & 0xC00 == 0xC00)
}

pub fn opens_lint0() -> bool {
    write_msr(LVT_LINT0, EXTINT).is_ok() && read_msr(LVT_LINT0) == Ok(EXTINT | MASKED)
}
