//! Which errata an Intel processor may have, by what it says of itself.
//!
//! A processor that says nothing is taken to have the erratum: a new one sets a bit, and an old one never will. `hv/README.md` lists
//! all errata that the hypervisor handles, with those that need no question.

/// What a processor says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// CPUID.1:EAX.
    pub signature: u32,
    /// CPUID.(EAX=7,ECX=0):EDX.
    pub leaf_7_edx: u32,
    /// IA32_ARCH_CAPABILITIES; 0 where the processor has no such register.
    pub capabilities: u64,
}

/// CPUID.7:EDX: IA32_ARCH_CAPABILITIES is there. SDM 2A, CPUID.
const HAS_CAPABILITIES: u32 = 1 << 29;
/// CPUID.7:EDX: microcode guards the random numbers (IA32_MCU_OPT_CTRL.RNGDS_MITG_DIS is there), so the processor has SRBDS.
const GUARDS_RANDOM_NUMBERS: u32 = 1 << 9;
/// IA32_ARCH_CAPABILITIES: a change of the page size of running code raises no machine check. SDM 4, table 2-2.
const IF_PSCHANGE_MC_NO: u64 = 1 << 6;

/// Models of family 6 without the erratum that have no register to say so: Silvermont, Airmont, Goldmont and Goldmont Plus.
const FREE_OF_MULTIHIT: [u32; 9] = [0x37, 0x4A, 0x4D, 0x4C, 0x5A, 0x75, 0x5C, 0x5F, 0x7A];

/// Models of family 6 with SRBDS, whether or not their microcode guards them: Ivy Bridge, Haswell, Broadwell, Skylake and Kaby Lake of the
/// client kind, and those that came after with the same core.
const WITH_SRBDS: [u32; 12] =
    [0x3A, 0x3C, 0x45, 0x46, 0x3D, 0x47, 0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6];

impl Processor {
    /// Whether [`Self::capabilities`] can be read.
    #[must_use]
    pub const fn has_capabilities(leaf_7_edx: u32) -> bool {
        leaf_7_edx & HAS_CAPABILITIES != 0
    }

    /// iTLB multihit (CVE-2018-12207): code that changes the size of its own page, while the nested tables map it by a large page, may
    /// stop the machine with a machine check.
    #[must_use]
    pub const fn may_have_multihit(&self) -> bool {
        self.capabilities & IF_PSCHANGE_MC_NO == 0 && !self.is_model(&FREE_OF_MULTIHIT)
    }

    /// SRBDS (CVE-2020-0543): random numbers pass through a buffer that all cores share. Another core can read them; where microcode
    /// prevents that, each RDRAND holds the other cores up.
    #[must_use]
    pub const fn shares_random_numbers(&self) -> bool {
        self.leaf_7_edx & GUARDS_RANDOM_NUMBERS != 0 || self.is_model(&WITH_SRBDS)
    }

    /// SDM 2A, CPUID.1:EAX: family 6 and one of these models.
    const fn is_model(&self, models: &[u32]) -> bool {
        let family = self.signature >> 8 & 0xF;
        let model = self.signature >> 4 & 0xF | self.signature >> 12 & 0xF0;
        let mut index = 0;
        while index < models.len() {
            if models[index] == model {
                return family == 6;
            }
            index += 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKYLAKE_X: Processor =
        Processor { signature: 0x0005_0654, leaf_7_edx: 0, capabilities: 0 };

    #[test]
    fn a_processor_that_says_nothing_may_have_multihit() {
        assert!(SKYLAKE_X.may_have_multihit());
        assert!(Processor::default().may_have_multihit());
        let told = Processor { capabilities: 1 << 6, ..SKYLAKE_X };
        assert!(!told.may_have_multihit());
        let other_bits = Processor { capabilities: !(1 << 6), ..SKYLAKE_X };
        assert!(other_bits.may_have_multihit());
    }

    #[test]
    fn models_that_cannot_say_it_are_known() {
        let of = |signature| Processor { signature, ..Processor::default() };
        // Apollo Lake, Denverton, Bay Trail.
        for signature in [0x0005_06C9, 0x0005_06F1, 0x0003_0678] {
            assert!(!of(signature).may_have_multihit(), "{signature:#x}");
        }
        // The same model number in another family.
        assert!(of(0x0005_0FC9).may_have_multihit());
    }

    #[test]
    fn random_numbers_are_shared_where_microcode_guards_them_and_on_known_models() {
        assert!(!SKYLAKE_X.shares_random_numbers());
        assert!(Processor { leaf_7_edx: 1 << 9, ..SKYLAKE_X }.shares_random_numbers());
        // i5-7500.
        assert!(Processor { signature: 0x0009_06E9, ..SKYLAKE_X }.shares_random_numbers());
        assert!(Processor::has_capabilities(1 << 29) && !Processor::has_capabilities(!(1 << 29)));
    }
}
