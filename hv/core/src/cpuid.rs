//! What CPUID tells a partition: a table built once at boot, and a look-up short enough for the exit path.
//!
//! A feature bit is offered only when the processor has it and the control behind it is enforced; all others read 0,
//! those of tomorrow's processors included. Each partition sees a package with one core and one thread.
//!
//! The two things that change while a guest runs, OSXSAVE and the size of the XSAVE area, are written into the table when
//! the guest changes them, which is rare, so that looking up need not ask.
//!
//! Leaves above the highest basic or extended one read all zeros. Intel's processors answer with the highest basic
//! leaf instead; software cannot rely on that, and zeros promise nothing.

use bulkhead_table::{PartitionId, Platform, abi};
use hv_defs::cpuid::{
    self as id, ExtendedEcx, ExtendedEdx, ExtendedState1Eax, Features1Ecx, Features1Edx,
    Features7Ebx, Features7Ecx, Features7Edx, Features7Sub1Eax, xcr0,
};

use crate::msr::CoreKind;

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

const ZERO: Leaf = Leaf { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/// What the table is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Local APIC id of the vCPU.
    pub apic_id: u32,
    /// Frequency of the TSC in kHz.
    pub tsc_khz: u32,
    /// Whose vCPU it is.
    pub partition: PartitionId,
    /// Its number within the partition.
    pub vcpu: u16,
    /// Number of the partition's vCPUs.
    pub vcpus: u16,
    /// Guest-physical address of its schedule page; 0 without one.
    pub schedule_page: u64,
    /// Kind of its core.
    pub kind: CoreKind,
    /// State components that XSETBV lets the guest enable.
    pub xcr0_allowed: u64,
    /// RDRAND and RDSEED run without an exit: their numbers are the core's own. See [`crate::errata::Processor::shares_random_numbers`].
    pub random_numbers: bool,
    /// Decides which hypervisor it sees, and whether it is told frequencies where operating systems look for them.
    pub platform: Platform,
}

/// State components that are described in leaf 0xD. PKRU waits until OSPKE, which mirrors CR4.PKE, is answered.
const XCR0_OFFERED: u64 = xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::AVX_512;

/// Not offered: what watches or steers the machine (MONITOR, VMX, SMX, EIST, TM2, SDBG, PDCM, DS, DCA).
const FEATURES_1_ECX: Features1Ecx = Features1Ecx::SSE3
    .union(Features1Ecx::PCLMULQDQ)
    .union(Features1Ecx::SSSE3)
    .union(Features1Ecx::CMPXCHG16B)
    .union(Features1Ecx::PCID)
    .union(Features1Ecx::SSE4_1)
    .union(Features1Ecx::SSE4_2)
    .union(Features1Ecx::X2APIC)
    .union(Features1Ecx::MOVBE)
    .union(Features1Ecx::POPCNT)
    .union(Features1Ecx::TSC_DEADLINE)
    .union(Features1Ecx::AES)
    .union(Features1Ecx::XSAVE)
    .union(Features1Ecx::RDRAND);

/// Not offered: MTRRs and machine-check banks are the hypervisor's, debug store and thermal control the board's; one
/// thread in the package, so no HTT.
const FEATURES_1_EDX: Features1Edx = Features1Edx::FPU
    .union(Features1Edx::VME)
    .union(Features1Edx::DE)
    .union(Features1Edx::PSE)
    .union(Features1Edx::TSC)
    .union(Features1Edx::MSR)
    .union(Features1Edx::PAE)
    .union(Features1Edx::CX8)
    .union(Features1Edx::APIC)
    .union(Features1Edx::SEP)
    .union(Features1Edx::PGE)
    .union(Features1Edx::CMOV)
    .union(Features1Edx::PAT)
    .union(Features1Edx::PSE_36)
    .union(Features1Edx::CLFSH)
    .union(Features1Edx::MMX)
    .union(Features1Edx::FXSR)
    .union(Features1Edx::SSE)
    .union(Features1Edx::SSE2)
    .union(Features1Edx::SELF_SNOOP);

/// Not offered: writes of TSC_ADJUST are intercepted; SGX, RDT and Processor Trace have MSRs that are not switched; HLE, RTM
/// and MPX are on their way out.
const FEATURES_7_EBX: Features7Ebx = Features7Ebx::FSGSBASE
    .union(Features7Ebx::BMI1)
    .union(Features7Ebx::FDP_EXCEPTION_ONLY)
    .union(Features7Ebx::SMEP)
    .union(Features7Ebx::BMI2)
    .union(Features7Ebx::ERMS)
    .union(Features7Ebx::INVPCID)
    .union(Features7Ebx::FPU_CS_DS_DEPRECATED)
    .union(Features7Ebx::RDSEED)
    .union(Features7Ebx::ADX)
    .union(Features7Ebx::SMAP)
    .union(Features7Ebx::CLFLUSHOPT)
    .union(Features7Ebx::CLWB)
    .union(Features7Ebx::SHA);

/// Not offered: PKU (see [`XCR0_OFFERED`]), PKS, CET, key locker, WAITPKG and bus-lock detection need state that is not switched;
/// LA57 needs a CR4 bit that is not the guest's.
const FEATURES_7_ECX: Features7Ecx = Features7Ecx::PREFETCHWT1
    .union(Features7Ecx::UMIP)
    .union(Features7Ecx::GFNI)
    .union(Features7Ecx::RDPID);

/// Not offered: ARCH_CAPABILITIES, CORE_CAPABILITIES, user interrupts and architectural LBRs have MSRs that are not switched; AMX has
/// state that is not switched. Speculation control is: its one register with state, IA32_SPEC_CTRL, changes hands with the vCPU.
const FEATURES_7_EDX: Features7Edx = Features7Edx::FAST_SHORT_REP_MOV
    .union(Features7Edx::MD_CLEAR)
    .union(Features7Edx::SERIALIZE)
    .union(Features7Edx::SPEC_CTRL)
    .union(Features7Edx::STIBP)
    .union(Features7Edx::L1D_FLUSH)
    .union(Features7Edx::SSBD);

/// What a processor can do against speculation that shows in MSRs, as leaf 7 says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeculationMsrs {
    /// IA32_SPEC_CTRL, which holds state.
    pub control: bool,
    /// IA32_PRED_CMD, a command.
    pub barrier: bool,
    /// IA32_FLUSH_CMD, a command.
    pub l1d_flush: bool,
}

impl SpeculationMsrs {
    /// From EDX of leaf 7, sub-leaf 0. SDM 4, table 2-2.
    #[must_use]
    pub const fn from_leaf(edx: u32) -> Self {
        let features = Features7Edx::from_bits_truncate(edx);
        let control = Features7Edx::SPEC_CTRL.union(Features7Edx::STIBP).union(Features7Edx::SSBD);
        Self {
            control: features.intersects(control),
            barrier: features.contains(Features7Edx::SPEC_CTRL),
            l1d_flush: features.contains(Features7Edx::L1D_FLUSH),
        }
    }
}

const FEATURES_7_1_EAX: Features7Sub1Eax = Features7Sub1Eax::FAST_ZERO_REP_MOV
    .union(Features7Sub1Eax::FAST_SHORT_REP_STO)
    .union(Features7Sub1Eax::FAST_SHORT_REP_CMP);

/// Feature bits that need AVX state.
const AVX_1_ECX: Features1Ecx =
    Features1Ecx::AVX.union(Features1Ecx::FMA).union(Features1Ecx::F16C);
const AVX_7_ECX: Features7Ecx = Features7Ecx::VAES.union(Features7Ecx::VPCLMULQDQ);
const AVX_7_1_EAX: Features7Sub1Eax = Features7Sub1Eax::AVX_VNNI.union(Features7Sub1Eax::AVX_IFMA);

/// Feature bits that need AVX-512 state.
const AVX_512_7_EBX: Features7Ebx = Features7Ebx::AVX512F
    .union(Features7Ebx::AVX512DQ)
    .union(Features7Ebx::AVX512_IFMA)
    .union(Features7Ebx::AVX512CD)
    .union(Features7Ebx::AVX512BW)
    .union(Features7Ebx::AVX512VL);
const AVX_512_7_ECX: Features7Ecx = Features7Ecx::AVX512_VBMI
    .union(Features7Ecx::AVX512_VBMI2)
    .union(Features7Ecx::AVX512_VNNI)
    .union(Features7Ecx::AVX512_BITALG)
    .union(Features7Ecx::AVX512_VPOPCNTDQ);
const AVX_512_7_EDX: Features7Edx = Features7Edx::AVX512_4VNNIW
    .union(Features7Edx::AVX512_4FMAPS)
    .union(Features7Edx::AVX512_VP2INTERSECT)
    .union(Features7Edx::AVX512_FP16);

const EXTENDED_ECX: ExtendedEcx =
    ExtendedEcx::LAHF_64.union(ExtendedEcx::LZCNT).union(ExtendedEcx::PREFETCHW);
const EXTENDED_EDX: ExtendedEdx = ExtendedEdx::SYSCALL
    .union(ExtendedEdx::NX)
    .union(ExtendedEdx::PAGE_1G)
    .union(ExtendedEdx::RDTSCP)
    .union(ExtendedEdx::LONG_MODE);

/// Not XSAVES and XFD: XSS and XFD are not switched. Not XSAVEC: without supervisor states it spares some bytes and no time, and the
/// emulator's (Bochs up to 2.7; mended in January 2024) stores the AVX state 160 bytes ahead of where XRSTOR looks for it, so that
/// a system that switches tasks with it loses their wide registers.
const EXTENDED_STATE_1_EAX: ExtendedState1Eax =
    ExtendedState1Eax::XSAVEOPT.union(ExtendedState1Eax::XGETBV_1);

/// Leaves 0 to 0x1F of four ranges: basic, hypervisor, extended, and one that no CPUID of ours shows.
const LEAVES: usize = 128;
/// Where every leaf outside these ranges is looked up: the last leaf of the range that is never shown. It reads zeros.
const NOBODYS: usize = LEAVES - 1;
const _: () = assert!(slot(OWN_OF_PC | 0x1F) == NOBODYS && abi::CPUID_TIMING & 0x1F < 0x1F);
/// Answers in all, a power of two. The basic leaves take at most 26, the hypervisor's 6, the extended ones 8.
const ANSWERS: usize = 64;
/// Highest basic leaf told: what lies beyond it is the machine's (SGX, Processor Trace, RDT, AMX) or says nothing to a partition of one core.
const HIGHEST_BASIC: u32 = 0xD;
/// The same for a [`Platform::Pc`], whose system learns two frequencies beyond.
const HIGHEST_BASIC_OF_PC: u32 = id::PROCESSOR_FREQUENCY;
const HIGHEST_EXTENDED: u32 = 0x8000_0008;
/// Cache levels told in leaf 4 at most.
const CACHES: u32 = 6;
/// Sub-leaves of leaf 0xD: up to the highest component that is offered.
const COMPONENTS: usize = 8;
/// Legacy area and header of an XSAVE area. SDM 1 13.4.
const XSAVE_FIXED: u32 = 576;

/// Where the answers of a leaf are.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Index {
    /// All ones when the leaf has sub-leaves, else 0: then every sub-leaf is the same.
    mask: u32,
    /// Sub-leaves that exist; 0: the leaf reads zeros.
    count: u16,
    /// Index of the answer of sub-leaf 0.
    first: u16,
}

const ABSENT: Index = Index { mask: 0, count: 0, first: 0 };

/// CPUID as one partition sees it.
#[derive(Clone, Debug)]
pub struct CpuidPolicy {
    index: [Index; LEAVES],
    answers: [Leaf; ANSWERS],
    used: u16,
    /// Bytes of the XSAVE area by [`extent`]: worked out once, because XSETBV may exit just before the end of a window.
    area_sizes: [u32; EXTENTS.len()],
}

/// The values of XCR0 that a guest can have, each with all that the one before it has. SDM 1 13.3.
const EXTENTS: [u64; 4] = [
    xcr0::X87,
    xcr0::X87 | xcr0::SSE,
    xcr0::X87 | xcr0::SSE | xcr0::AVX,
    xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::AVX_512,
];

/// Which of [`EXTENTS`] a valid value of XCR0 is.
const fn extent(xcr0: u64) -> usize {
    match xcr0 {
        _ if xcr0 & xcr0::AVX_512 != 0 => 3,
        _ if xcr0 & xcr0::AVX != 0 => 2,
        _ if xcr0 & xcr0::SSE != 0 => 1,
        _ => 0,
    }
}

/// Where the hypervisor's own leaves of a [`Platform::Pc`] are kept, beside KVM's: in the range that is never shown.
const OWN_OF_PC: u32 = 0xC000_0000;
/// The bits that say in which block of leaves a leaf is.
const OWN_RANGE: u32 = 0xFFFF_FF00;
/// KVM's only leaf behind its base.
const KVM_FEATURES: u32 = abi::CPUID_BASE + 1;

/// Place of a leaf in the index. Rotating brings the range (bits 31:30) to the bottom; whatever sets a bit
/// between the range and bit 4 lands beyond the index.
#[inline(always)]
const fn slot(leaf: u32) -> usize {
    leaf.rotate_left(2) as usize
}

impl CpuidPolicy {
    /// Builds the table, for a vCPU at its start: CR4.OSXSAVE clear, XCR0 = 1. `host` is CPUID of this core: leaf and sub-leaf to
    /// registers.
    #[must_use]
    pub fn build(host: impl Fn(u32, u32) -> Leaf, facts: &Facts) -> Self {
        let mut policy = Self {
            index: [ABSENT; LEAVES],
            answers: [ZERO; ANSWERS],
            used: 0,
            area_sizes: [XSAVE_FIXED; EXTENTS.len()],
        };
        policy.add_basic(&host, facts);
        policy.add_extended_state(&host, facts);
        match facts.platform {
            Platform::Bare => policy.add_hypervisor(abi::CPUID_BASE, facts),
            Platform::Pc => {
                policy.add_kvm();
                policy.add_frequencies(facts);
                policy.add_hypervisor(OWN_OF_PC, facts);
            }
        }
        policy.add_extended(&host);
        policy
    }

    /// The answer to CPUID with EAX = `leaf` and ECX = `sub`.
    #[must_use]
    #[inline(always)]
    pub fn lookup(&self, leaf: u32, sub: u32) -> Leaf {
        // A minimum, not a comparison: a branch could be predicted wrongly, and a leaf of the guest's choice would then lead the processor
        // anywhere in our memory (Spectre v1). A minimum compiles to a conditional move.
        let index = &self.index[slot(leaf).min(NOBODYS)];
        let sub = sub & index.mask;
        if sub >= u32::from(index.count) {
            return ZERO;
        }
        self.answers[(usize::from(index.first) + sub as usize) % ANSWERS]
    }

    /// The same for a [`Platform::Pc`], where the hypervisor's own leaves lie elsewhere.
    #[must_use]
    pub fn lookup_of_pc(&self, leaf: u32, sub: u32) -> Leaf {
        match leaf & OWN_RANGE {
            abi::CPUID_BASE_OF_PC => self.lookup(OWN_OF_PC | leaf & !OWN_RANGE, sub),
            OWN_OF_PC => ZERO,
            _ => self.lookup(leaf, sub),
        }
    }

    /// Follows the guest's CR4.OSXSAVE, which leaf 1 mirrors.
    pub fn set_osxsave(&mut self, on: bool) {
        if let Some(answer) = self.answer_mut(id::FEATURES, 0) {
            let mut ecx = Features1Ecx::from_bits_retain(answer.ecx);
            ecx.set(Features1Ecx::OSXSAVE, on);
            answer.ecx = ecx.bits();
        }
    }

    /// Follows the guest's XCR0, for which leaf 0xD gives the size of the XSAVE area.
    pub fn set_xcr0(&mut self, xcr0: u64) {
        let size = self.area_sizes[extent(xcr0)];
        if let Some(answer) = self.answer_mut(id::EXTENDED_STATE, 0) {
            answer.ebx = size;
        }
    }

    fn answer_mut(&mut self, leaf: u32, sub: u16) -> Option<&mut Leaf> {
        let index = self.index.get(slot(leaf)).filter(|index| sub < index.count)?;
        self.answers.get_mut(usize::from(index.first + sub))
    }

    /// Adds the answers of a leaf; more than one makes it a leaf with sub-leaves.
    fn add(&mut self, leaf: u32, answers: &[Leaf]) {
        self.add_indexed(leaf, answers, answers.len() > 1);
    }

    fn add_indexed(&mut self, leaf: u32, answers: &[Leaf], indexed: bool) {
        let first = usize::from(self.used);
        let room = self.answers.get_mut(first..first + answers.len());
        if let (Some(room), Some(index)) = (room, self.index.get_mut(slot(leaf))) {
            room.copy_from_slice(answers);
            let mask = if indexed { u32::MAX } else { 0 };
            *index = Index { mask, count: answers.len() as u16, first: self.used };
            self.used += answers.len() as u16;
        }
    }

    fn add_basic(&mut self, host: &impl Fn(u32, u32) -> Leaf, facts: &Facts) {
        let base = host(0, 0);
        let highest = match facts.platform {
            Platform::Bare => base.eax.min(HIGHEST_BASIC),
            Platform::Pc => HIGHEST_BASIC_OF_PC,
        };
        self.add(0, &[Leaf { eax: highest, ..base }]);
        self.add(id::FEATURES, &[features(host(id::FEATURES, 0), facts)]);
        self.add(id::CACHE_DESCRIPTORS, &[host(id::CACHE_DESCRIPTORS, 0)]);
        self.add_caches(host);
        let arat = host(id::THERMAL_AND_POWER, 0).eax & id::ARAT;
        self.add(id::THERMAL_AND_POWER, &[Leaf { eax: arat, ..ZERO }]);
        let more = host(id::EXTENDED_FEATURES, 0);
        let second = if more.eax == 0 { ZERO } else { host(id::EXTENDED_FEATURES, 1) };
        self.add(id::EXTENDED_FEATURES, &extended_features(more, second, facts));
        if id::TOPOLOGY <= base.eax {
            self.add(id::TOPOLOGY, &topology(facts.apic_id));
        }
    }

    /// Leaf 4 without the fields that say who shares a cache: to the guest, nobody does.
    fn add_caches(&mut self, host: &impl Fn(u32, u32) -> Leaf) {
        const TYPE: u32 = 0x1F;
        const SHARING: u32 = 0xFFFF_C000;
        let mut caches = [ZERO; CACHES as usize];
        let mut count = 0;
        for (sub, cache) in (0..CACHES).zip(&mut caches) {
            let found = host(id::CACHE_PARAMETERS, sub);
            if found.eax & TYPE == 0 {
                break;
            }
            *cache = Leaf { eax: found.eax & !SHARING, ..found };
            count += 1;
        }
        self.add_indexed(id::CACHE_PARAMETERS, caches.get(..count).unwrap_or_default(), true);
    }

    fn add_extended_state(&mut self, host: &impl Fn(u32, u32) -> Leaf, facts: &Facts) {
        let offered = facts.xcr0_allowed & XCR0_OFFERED;
        if host(id::FEATURES, 0).ecx & Features1Ecx::XSAVE.bits() == 0 {
            return;
        }
        let mut answers = [ZERO; COMPONENTS];
        for (component, answer) in (0_u32..).zip(&mut answers).skip(2) {
            if offered & (1 << component) != 0 {
                let found = host(id::EXTENDED_STATE, component);
                *answer = Leaf { ecx: found.ecx & id::STATE_ALIGNED, edx: 0, ..found };
            }
        }
        let largest = area_size(&answers, offered);
        answers[0] = Leaf {
            eax: offered as u32,
            ebx: XSAVE_FIXED,
            ecx: largest,
            edx: (offered >> 32) as u32,
        };
        let forms = host(id::EXTENDED_STATE, 1).eax & EXTENDED_STATE_1_EAX.bits();
        answers[1] = Leaf { eax: forms, ..ZERO };
        self.area_sizes = EXTENTS.map(|xcr0| area_size(&answers, xcr0 & offered));
        self.add(id::EXTENDED_STATE, &answers);
        self.set_xcr0(xcr0::X87);
    }

    /// Says KVM, which an operating system knows, for what that has it do: stay in x2APIC mode, keep to fair spinlocks (the vCPUs
    /// have their cores, so that nobody waits for one that does not run), and write to no port for a pause. Linux,
    /// Documentation/virt/kvm/x86/cpuid.rst.
    fn add_kvm(&mut self) {
        const NO_DELAY: u32 = 1 << 1;
        const UNHALT: u32 = 1 << 7;
        const REALTIME: u32 = 1;
        self.add(
            abi::CPUID_BASE,
            &[Leaf { eax: KVM_FEATURES, ebx: 0x4B4D_564B, ecx: 0x564B_4D56, edx: 0x0000_004D }],
        );
        self.add(KVM_FEATURES, &[Leaf { eax: NO_DELAY | UNHALT, edx: REALTIME, ..ZERO }]);
    }

    /// The frequency of TSC and APIC timer (SDM 2A CPUID, leaves 0x15 and 0x16), so that nobody measures it against a timer that is not
    /// there. A crystal too fast for its register is told as half as fast.
    fn add_frequencies(&mut self, facts: &Facts) {
        let hz = u64::from(facts.tsc_khz) * 1000;
        let (crystal, ratio) = match u32::try_from(hz) {
            Ok(crystal) => (crystal, 1),
            Err(_) => ((hz / 2).min(u64::from(u32::MAX)) as u32, 2),
        };
        self.add(id::TSC_RATIO, &[Leaf { eax: 1, ebx: ratio, ecx: crystal, edx: 0 }]);
        let mhz = facts.tsc_khz / 1000;
        self.add(id::PROCESSOR_FREQUENCY, &[Leaf { eax: mhz, ebx: mhz, ecx: mhz, edx: 0 }]);
    }

    /// The hypervisor's own leaves, from `base` on.
    fn add_hypervisor(&mut self, base: u32, facts: &Facts) {
        let own = |leaf: u32| leaf - abi::CPUID_BASE + base;
        let told = if base == abi::CPUID_BASE { base } else { abi::CPUID_BASE_OF_PC };
        let [b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = abi::CPUID_SIGNATURE;
        self.add(
            base,
            &[Leaf {
                eax: abi::CPUID_TIMING - abi::CPUID_BASE + told,
                ebx: u32::from_le_bytes([b0, b1, b2, b3]),
                ecx: u32::from_le_bytes([c0, c1, c2, c3]),
                edx: u32::from_le_bytes([d0, d1, d2, d3]),
            }],
        );
        // The virtual APIC's timer counts the TSC; the machine's APIC clock was not measured.
        let (kind, apic_khz) = match facts.kind {
            CoreKind::Dedicated => (abi::core_kind::DEDICATED, 0),
            CoreKind::Shared => (abi::core_kind::SHARED, facts.tsc_khz),
        };
        let partition = u32::from(facts.partition);
        self.add(
            own(abi::CPUID_INTERFACE),
            &[Leaf { eax: abi::VERSION, ebx: partition, ecx: kind, edx: 0 }],
        );
        self.add(
            own(abi::CPUID_VCPU),
            &[Leaf {
                eax: u32::from(facts.vcpu),
                ebx: u32::from(facts.vcpus),
                ecx: facts.schedule_page as u32,
                edx: (facts.schedule_page >> 32) as u32,
            }],
        );
        self.add(own(abi::CPUID_TIMING), &[Leaf { eax: facts.tsc_khz, ebx: apic_khz, ..ZERO }]);
    }

    fn add_extended(&mut self, host: &impl Fn(u32, u32) -> Leaf) {
        const VIRTUAL_BITS: u32 = 48;
        let base = host(id::EXTENDED_BASE, 0);
        let highest = base.eax.min(HIGHEST_EXTENDED);
        self.add(id::EXTENDED_BASE, &[Leaf { eax: highest, ..ZERO }]);
        let found = host(id::EXTENDED_FEATURES_AMD, 0);
        self.add(
            id::EXTENDED_FEATURES_AMD,
            &[Leaf {
                ecx: found.ecx & EXTENDED_ECX.bits(),
                edx: found.edx & EXTENDED_EDX.bits(),
                ..ZERO
            }],
        );
        for leaf in id::BRAND..id::BRAND + 3 {
            self.add(leaf, &[host(leaf, 0)]);
        }
        self.add(id::L2_CACHE, &[Leaf { ecx: host(id::L2_CACHE, 0).ecx, ..ZERO }]);
        let invariant = host(id::INVARIANT_TSC, 0).edx & id::TSC_IS_INVARIANT;
        self.add(id::INVARIANT_TSC, &[Leaf { edx: invariant, ..ZERO }]);
        let sizes = host(id::ADDRESS_SIZES, 0).eax;
        let virtual_bits = (sizes >> 8 & 0xFF).min(VIRTUAL_BITS);
        self.add(id::ADDRESS_SIZES, &[Leaf { eax: sizes & 0xFF | virtual_bits << 8, ..ZERO }]);
    }
}

const fn has_avx(facts: &Facts) -> bool {
    facts.xcr0_allowed & xcr0::AVX != 0
}

const fn has_avx_512(facts: &Facts) -> bool {
    has_avx(facts) && facts.xcr0_allowed & xcr0::AVX_512 == xcr0::AVX_512
}

fn features(found: Leaf, facts: &Facts) -> Leaf {
    const BRAND_AND_CLFLUSH: u32 = 0xFFFF;
    const ONE_THREAD: u32 = 1 << 16;
    let mut ecx = FEATURES_1_ECX;
    ecx.set(AVX_1_ECX, has_avx(facts));
    ecx.set(Features1Ecx::RDRAND, facts.random_numbers);
    Leaf {
        eax: found.eax,
        ebx: found.ebx & BRAND_AND_CLFLUSH | ONE_THREAD | facts.apic_id << 24,
        ecx: found.ecx & ecx.bits() | Features1Ecx::HYPERVISOR.bits(),
        edx: found.edx & FEATURES_1_EDX.bits(),
    }
}

fn extended_features(found: Leaf, second: Leaf, facts: &Facts) -> [Leaf; 2] {
    let (avx, avx_512) = (has_avx(facts), has_avx_512(facts));
    let (mut ebx, mut ecx, mut edx) = (FEATURES_7_EBX, FEATURES_7_ECX, FEATURES_7_EDX);
    ebx.set(Features7Ebx::RDSEED, facts.random_numbers);
    let mut eax = FEATURES_7_1_EAX;
    ebx.set(Features7Ebx::AVX2, avx);
    ecx.set(AVX_7_ECX, avx);
    eax.set(AVX_7_1_EAX, avx);
    ebx.set(AVX_512_7_EBX, avx_512);
    ecx.set(AVX_512_7_ECX, avx_512);
    edx.set(AVX_512_7_EDX, avx_512);
    eax.set(Features7Sub1Eax::AVX512_BF16, avx_512);
    [
        Leaf {
            eax: found.eax.min(1),
            ebx: found.ebx & ebx.bits(),
            ecx: found.ecx & ecx.bits(),
            edx: found.edx & edx.bits(),
        },
        Leaf { eax: second.eax & eax.bits(), ..ZERO },
    ]
}

/// One thread, one core; a sub-leaf of type "invalid" ends the list.
fn topology(apic_id: u32) -> [Leaf; 3] {
    let level = |ebx, ecx| Leaf { eax: 0, ebx, ecx, edx: apic_id };
    [level(1, id::LEVEL_THREAD), level(1, 1 | id::LEVEL_CORE), level(0, 2)]
}

/// Bytes of the XSAVE area with the components `enabled` of those described in `components`. SDM 1 13.4.2.
fn area_size(components: &[Leaf], enabled: u64) -> u32 {
    let ends = components.iter().enumerate().skip(2).map(|(number, component)| {
        let is_on = enabled >> number & 1 != 0;
        if is_on { component.ebx.saturating_add(component.eax) } else { 0 }
    });
    ends.fold(XSAVE_FIXED, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FACTS: Facts = Facts {
        apic_id: 3,
        tsc_khz: 50_000,
        partition: 7,
        vcpu: 1,
        vcpus: 2,
        schedule_page: 0x1_FEDF_1000,
        kind: CoreKind::Shared,
        xcr0_allowed: 0b1110_0111,
        random_numbers: true,
        platform: Platform::Bare,
    };
    /// A processor that has every bit, with Skylake-X's XSAVE layout and two caches.
    fn everything(leaf: u32, sub: u32) -> Leaf {
        let all = Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 };
        let state = |eax, ebx, ecx| Leaf { eax, ebx, ecx, edx: !0 };
        match (leaf, sub) {
            (0, _) => Leaf { eax: 0x20, ..all },
            (1, _) => Leaf { eax: 0x0005_0654, ..all },
            (4, 0..2) => Leaf { eax: 0xFC00_4121, ..all },
            (4, _) => ZERO,
            (7, 0) => Leaf { eax: 2, ..all },
            (0x8000_0000, _) => Leaf { eax: 0x8000_0020, ..all },
            (0x8000_0008, _) => Leaf { eax: 0x0030_392E, ..all },
            (0xD, 2) => state(256, 576, 0),
            (0xD, 5) => state(64, 1088, 0),
            (0xD, 6) => state(512, 1152, 2),
            (0xD, 7) => state(1024, 1664, 2),
            (0xD, 9) => state(8, 2688, 0),
            _ => all,
        }
    }

    fn policy(facts: &Facts) -> CpuidPolicy {
        CpuidPolicy::build(everything, facts)
    }

    fn see(leaf: u32, sub: u32) -> Leaf {
        policy(&FACTS).lookup(leaf, sub)
    }

    #[test]
    fn it_fits_and_is_small() {
        assert!(usize::from(policy(&FACTS).used) <= ANSWERS);
        assert!(size_of::<CpuidPolicy>() <= 2088);
    }

    #[test]
    fn the_identity_is_the_hosts_with_fewer_leaves() {
        assert_eq!(see(0, 0), Leaf { eax: 0xD, ..everything(0, 0) });
        assert_eq!(see(0, 55), see(0, 0), "no sub-leaves");
        assert_eq!(see(0x8000_0000, 0), Leaf { eax: 0x8000_0008, ..ZERO });
        assert_eq!(see(0x8000_0003, 0), everything(0x8000_0003, 0));
        assert_eq!(see(0x8000_0008, 0), Leaf { eax: 0x302E, ..ZERO });
        assert_eq!(see(0x8000_0007, 0), Leaf { edx: 1 << 8, ..ZERO });
    }

    #[test]
    fn leaf_1_shows_one_thread_and_what_is_enforced() {
        let leaf = see(1, 0);
        assert_eq!(leaf.eax, 0x0005_0654);
        assert_eq!(leaf.ebx, 0x0301_FFFF);
        for (hidden, name) in [
            (2, "DTES64"),
            (3, "MONITOR"),
            (4, "DS-CPL"),
            (5, "VMX"),
            (6, "SMX"),
            (7, "EIST"),
            (8, "TM2"),
            (10, "CNXT-ID"),
            (11, "SDBG"),
            (14, "xTPR"),
            (15, "PDCM"),
            (16, "reserved"),
            (18, "DCA"),
            (27, "OSXSAVE while CR4 lacks it"),
        ] {
            assert_eq!(leaf.ecx >> hidden & 1, 0, "{name}");
        }
        for (offered, name) in [
            (12, "FMA"),
            (17, "PCID"),
            (21, "x2APIC"),
            (24, "TSC deadline"),
            (25, "AES"),
            (26, "XSAVE"),
            (28, "AVX"),
            (30, "RDRAND"),
            (31, "hypervisor"),
        ] {
            assert_eq!(leaf.ecx >> offered & 1, 1, "{name}");
        }
        for hidden in [7, 10, 12, 14, 18, 20, 21, 22, 28, 29, 30, 31] {
            assert_eq!(leaf.edx >> hidden & 1, 0, "EDX bit {hidden}");
        }
        assert_eq!(leaf.edx, 0x0F8B_AB7F);
    }

    const PC: Facts = Facts { platform: Platform::Pc, ..FACTS };

    #[test]
    fn a_pc_sees_kvm_and_is_told_its_frequencies() {
        let policy = policy(&PC);
        let see = |leaf| policy.lookup_of_pc(leaf, 0);
        assert!(usize::from(policy.used) <= ANSWERS);
        assert_eq!(see(0).eax, 0x16);
        let base = see(0x4000_0000);
        let signature = [base.ebx, base.ecx, base.edx].map(u32::to_le_bytes).concat();
        assert_eq!((base.eax, signature.as_slice()), (0x4000_0001, &b"KVMKVMKVM\0\0\0"[..]));
        assert_eq!(see(0x4000_0001), Leaf { eax: 1 << 1 | 1 << 7, ebx: 0, ecx: 0, edx: 1 });
        assert_eq!(see(0x4000_0002), ZERO);
        assert_eq!(see(0x4000_0010), ZERO);
        assert_eq!(see(0x15), Leaf { eax: 1, ebx: 1, ecx: 50_000_000, edx: 0 });
        assert_eq!(see(0x16), Leaf { eax: 50, ebx: 50, ecx: 50, edx: 0 });
        for leaf in (0xE..0x15).chain([0x17, 0x1F]) {
            assert_eq!(see(leaf), ZERO, "{leaf:#x}");
        }
        let fast = CpuidPolicy::build(everything, &Facts { tsc_khz: 5_000_000, ..PC });
        assert_eq!(fast.lookup_of_pc(0x15, 0), Leaf { eax: 1, ebx: 2, ecx: 2_500_000_000, edx: 0 });
        assert_eq!(see(1), see_bare(1), "nothing else differs");
    }

    #[test]
    fn a_pc_finds_our_own_leaves_behind_kvms() {
        let policy = policy(&PC);
        let see = |leaf| policy.lookup_of_pc(leaf, 0);
        for leaf in [0x4000_0001, 0x4000_0002, 0x4000_0010, 0x4000_0003, 0x4000_001F] {
            assert_eq!(see(leaf + 0x100), see_bare(leaf), "{leaf:#x}");
        }
        assert_eq!(see(0x4000_0100), Leaf { eax: 0x4000_0110, ..see_bare(0x4000_0000) });
        for leaf in [0x4000_0120, 0x4000_01FF, 0x4000_0200, 0xC000_0000, 0xC000_0001, 0xC000_0010] {
            assert_eq!(see(leaf), ZERO, "{leaf:#x}");
        }
    }

    fn see_bare(leaf: u32) -> Leaf {
        see(leaf, 0)
    }

    #[test]
    fn osxsave_follows_cr4() {
        let mut policy = policy(&FACTS);
        policy.set_osxsave(true);
        assert_eq!(policy.lookup(1, 0), Leaf { ecx: see(1, 0).ecx | 1 << 27, ..see(1, 0) });
        policy.set_osxsave(false);
        assert_eq!(policy.lookup(1, 0), see(1, 0));
    }

    #[test]
    fn leaf_7_is_a_whitelist() {
        assert_eq!(
            see(7, 0),
            Leaf { eax: 1, ebx: 0xF1BF_27E9, ecx: 0x0040_5F47, edx: 0x9C80_451C }
        );
        assert_eq!(see(7, 1), Leaf { eax: 0x0080_1C30, ..ZERO });
        assert_eq!(see(7, 2), ZERO);
        assert_eq!(see(7, u32::MAX), ZERO);
    }

    #[test]
    fn random_numbers_that_cores_share_are_not_offered() {
        let without = policy(&Facts { random_numbers: false, ..FACTS });
        assert_eq!(see(1, 0).ecx ^ without.lookup(1, 0).ecx, 1 << 30);
        assert_eq!(see(7, 0).ebx ^ without.lookup(7, 0).ebx, 1 << 18);
    }

    /// What the masks in front of the tables must not change, for every leaf around their ends.
    #[test]
    fn a_leaf_beyond_the_index_reads_zero() {
        let policy = policy(&FACTS);
        let beyond = (0x20..0x4000_0000).step_by(0x3FFF).chain(0x20..0x400);
        for leaf in beyond.flat_map(|leaf| (0..4_u32).map(move |range| leaf | range << 30)) {
            assert_eq!(policy.lookup(leaf, 0), ZERO, "{leaf:#x}");
        }
        assert_eq!(policy.lookup(0xC000_001F, 0), ZERO);
    }

    #[test]
    fn without_avx_state_nothing_of_avx_is_offered() {
        let leaf = |allowed, leaf, sub| {
            policy(&Facts { xcr0_allowed: allowed, ..FACTS }).lookup(leaf, sub)
        };
        assert_eq!(leaf(0b11, 1, 0).ecx & (1 << 12 | 1 << 28 | 1 << 29), 0);
        assert_eq!(leaf(0b11, 7, 0).ebx & (1 << 5 | 0xD023_0000), 0);
        assert_eq!(leaf(0b11, 7, 0).ecx & 0x5E42, 0);
        assert_eq!(leaf(0b11, 7, 0).edx & 0x0080_010C, 0);
        assert_eq!(leaf(0b11, 7, 1).eax, 0x1C00);
        let avx = leaf(0b111, 7, 0);
        assert_eq!(avx.ebx & (1 << 5 | 0xD023_0000), 1 << 5);
        assert_eq!(avx.ecx & 0x5E42, 1 << 9 | 1 << 10);
        assert_eq!(leaf(0b111, 0xD, 0).eax, 0b111);
        assert_eq!(leaf(0b111, 0xD, 5), ZERO);
    }

    #[test]
    fn the_machines_counters_caps_and_clocks_stay_hidden() {
        for leaf in [
            3,
            5,
            8,
            9,
            0xA,
            0xC,
            0xE,
            0xF,
            0x10,
            0x11,
            0x12,
            0x13,
            0x14,
            0x15,
            0x16,
            0x17,
            0x18,
            0x19,
            0x1A,
            0x1B,
            0x1C,
            0x1D,
            0x1E,
            0x1F,
            0x20,
            0x21,
            0x8000_0005,
            0x8000_0009,
            0x8000_001F,
        ] {
            assert_eq!(see(leaf, 0), ZERO, "{leaf:#x}");
        }
        assert_eq!(see(6, 0), Leaf { eax: 4, ..ZERO });
    }

    #[test]
    fn the_topology_is_one_core() {
        assert_eq!(see(0xB, 0), Leaf { eax: 0, ebx: 1, ecx: 0x100, edx: 3 });
        assert_eq!(see(0xB, 1), Leaf { eax: 0, ebx: 1, ecx: 0x201, edx: 3 });
        assert_eq!(see(0xB, 2), Leaf { eax: 0, ebx: 0, ecx: 2, edx: 3 });
        assert_eq!(see(0xB, 3), ZERO);
        assert_eq!(see(4, 1), Leaf { eax: 0x121, ..everything(4, 1) });
        assert_eq!(see(4, 2), ZERO);
    }

    #[test]
    fn the_size_of_the_extended_state_follows_xcr0() {
        let see = |sub, xcr0| {
            let mut policy = policy(&FACTS);
            policy.set_xcr0(xcr0);
            policy.lookup(0xD, sub)
        };
        for (xcr0, size) in [(0b1, 576), (0b11, 576), (0b111, 832), (0b1110_0111, 2688)] {
            assert_eq!(see(0, xcr0).ebx, size);
            assert_eq!(
                see(1, xcr0),
                Leaf { eax: 5, ..ZERO },
                "XSAVEOPT and XGETBV: nothing compacts"
            );
        }
        assert_eq!(see(0, 1), Leaf { eax: 0xE7, ebx: 576, ecx: 2688, edx: 0 });
        assert_eq!(see(2, 1), Leaf { eax: 256, ebx: 576, ecx: 0, edx: 0 });
        assert_eq!(see(7, 1), Leaf { eax: 1024, ebx: 1664, ecx: 2, edx: 0 });
        for sub in [3, 4, 8, 9, 62, 1 << 31] {
            assert_eq!(see(sub, 1), ZERO, "{sub}");
        }
    }

    #[test]
    fn a_guest_finds_the_hypervisor() {
        let base = see(abi::CPUID_BASE, 0);
        assert_eq!(base.eax, 0x4000_0010);
        let text = [base.ebx, base.ecx, base.edx].map(u32::to_le_bytes).concat();
        assert_eq!(text, abi::CPUID_SIGNATURE);
        assert_eq!(see(abi::CPUID_INTERFACE, 0), Leaf { eax: 2, ebx: 7, ecx: 1, edx: 0 });
        let vcpu = Leaf { eax: 1, ebx: 2, ecx: 0xFEDF_1000, edx: 1 };
        assert_eq!(see(abi::CPUID_VCPU, 0), vcpu);
        assert_eq!(see(abi::CPUID_TIMING, 0), Leaf { eax: 50_000, ebx: 50_000, ..ZERO });
        let dedicated = policy(&Facts { kind: CoreKind::Dedicated, ..FACTS });
        assert_eq!(dedicated.lookup(abi::CPUID_TIMING, 0).ebx, 0);
        assert_eq!(dedicated.lookup(abi::CPUID_INTERFACE, 0).ecx, 0);
    }

    #[test]
    fn a_host_with_little_offers_little() {
        let bare = |leaf: u32, _: u32| match leaf {
            0 => Leaf { eax: 7, ..ZERO },
            0x8000_0000 => Leaf { eax: 0x8000_0008, ..ZERO },
            _ => ZERO,
        };
        let policy = CpuidPolicy::build(bare, &FACTS);
        assert_eq!(policy.lookup(0, 0).eax, 7);
        assert_eq!(policy.lookup(1, 0).ecx, 1 << 31);
        assert_eq!(policy.lookup(0xB, 0), ZERO);
        assert_eq!(policy.lookup(0xD, 0), ZERO);
    }

    #[test]
    fn this_very_host_keeps_within_itself() {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let host = |leaf, sub| {
                let found = core::arch::x86_64::__cpuid_count(leaf, sub);
                Leaf { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
            };
            let policy = CpuidPolicy::build(host, &FACTS);
            assert_eq!(policy.lookup(1, 0).edx & !host(1, 0).edx, 0);
            assert_eq!(policy.lookup(7, 0).ebx & !host(7, 0).ebx, 0);
        }
    }

    proptest! {
        #[test]
        fn leaves_outside_the_ranges_read_zero(leaf in any::<u32>(), sub in any::<u32>(), near in 0_u32..0x40, range in 0_u32..4) {
            for leaf in [leaf, near | range << 30, near << 5 | range << 30] {
                let known = matches!(leaf, 0..=0xD | 0x4000_0000..=0x4000_0010 | 0x8000_0000..=0x8000_0008);
                let answer = see(leaf, sub);
                prop_assert!(known || answer == ZERO, "{leaf:#x} {sub:#x} {answer:x?}");
            }
        }

        #[test]
        fn no_host_makes_it_panic(seed in any::<u64>(), highest in 0_u32..0x30, leaf in 0_u32..0x20, sub in 0_u32..20, allowed in any::<u64>()) {
            let noise = |leaf: u32, sub: u32| {
                let word = |n: u64| (seed ^ u64::from(leaf) << 32 ^ u64::from(sub) << 8 ^ n)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) as u32;
                Leaf { eax: if leaf == 0 { highest } else { word(1) }, ebx: word(2), ecx: word(3), edx: word(4) }
            };
            let mut policy = CpuidPolicy::build(noise, &Facts { xcr0_allowed: allowed, ..FACTS });
            policy.set_xcr0(allowed);
            policy.set_osxsave(true);
            policy.set_osxsave(false);
            let answer = policy.lookup(leaf, sub);
            if leaf == 1 {
                prop_assert_eq!(answer.edx & !noise(1, 0).edx, 0);
            }
        }
    }
}
