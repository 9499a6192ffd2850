//! CPUID leaves and feature bits. SDM 2A, CPUID, table 3-8 and the feature tables behind it.
#![expect(missing_docs, reason = "the names are the manual's own")]

use bitflags::bitflags;

pub const FEATURES: u32 = 1;
pub const CACHE_DESCRIPTORS: u32 = 2;
pub const CACHE_PARAMETERS: u32 = 4;
pub const THERMAL_AND_POWER: u32 = 6;
pub const EXTENDED_FEATURES: u32 = 7;
pub const TOPOLOGY: u32 = 0xB;
pub const TSC_RATIO: u32 = 0x15;
pub const PROCESSOR_FREQUENCY: u32 = 0x16;
pub const EXTENDED_STATE: u32 = 0xD;
pub const TOPOLOGY_V2: u32 = 0x1F;
pub const EXTENDED_BASE: u32 = 0x8000_0000;
pub const EXTENDED_FEATURES_AMD: u32 = 0x8000_0001;
pub const BRAND: u32 = 0x8000_0002;
pub const L2_CACHE: u32 = 0x8000_0006;
pub const INVARIANT_TSC: u32 = 0x8000_0007;
pub const ADDRESS_SIZES: u32 = 0x8000_0008;

bitflags! {
    /// Leaf 1, ECX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features1Ecx: u32 {
        const SSE3 = 1 << 0;
        const PCLMULQDQ = 1 << 1;
        const DTES64 = 1 << 2;
        const MONITOR = 1 << 3;
        const DS_CPL = 1 << 4;
        const VMX = 1 << 5;
        const SMX = 1 << 6;
        const EIST = 1 << 7;
        const TM2 = 1 << 8;
        const SSSE3 = 1 << 9;
        const SDBG = 1 << 11;
        const FMA = 1 << 12;
        const CMPXCHG16B = 1 << 13;
        const PDCM = 1 << 15;
        const PCID = 1 << 17;
        const DCA = 1 << 18;
        const SSE4_1 = 1 << 19;
        const SSE4_2 = 1 << 20;
        const X2APIC = 1 << 21;
        const MOVBE = 1 << 22;
        const POPCNT = 1 << 23;
        const TSC_DEADLINE = 1 << 24;
        const AES = 1 << 25;
        const XSAVE = 1 << 26;
        const OSXSAVE = 1 << 27;
        const AVX = 1 << 28;
        const F16C = 1 << 29;
        const RDRAND = 1 << 30;
        const HYPERVISOR = 1 << 31;
    }

    /// Leaf 1, EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features1Edx: u32 {
        const FPU = 1 << 0;
        const VME = 1 << 1;
        const DE = 1 << 2;
        const PSE = 1 << 3;
        const TSC = 1 << 4;
        const MSR = 1 << 5;
        const PAE = 1 << 6;
        const MCE = 1 << 7;
        const CX8 = 1 << 8;
        const APIC = 1 << 9;
        const SEP = 1 << 11;
        const MTRR = 1 << 12;
        const PGE = 1 << 13;
        const MCA = 1 << 14;
        const CMOV = 1 << 15;
        const PAT = 1 << 16;
        const PSE_36 = 1 << 17;
        const CLFSH = 1 << 19;
        const DS = 1 << 21;
        const ACPI = 1 << 22;
        const MMX = 1 << 23;
        const FXSR = 1 << 24;
        const SSE = 1 << 25;
        const SSE2 = 1 << 26;
        const SELF_SNOOP = 1 << 27;
        const HTT = 1 << 28;
        const TM = 1 << 29;
        const PBE = 1 << 31;
    }

    /// Leaf 7, sub-leaf 0, EBX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features7Ebx: u32 {
        const FSGSBASE = 1 << 0;
        const TSC_ADJUST = 1 << 1;
        const SGX = 1 << 2;
        const BMI1 = 1 << 3;
        const HLE = 1 << 4;
        const AVX2 = 1 << 5;
        const FDP_EXCEPTION_ONLY = 1 << 6;
        const SMEP = 1 << 7;
        const BMI2 = 1 << 8;
        const ERMS = 1 << 9;
        const INVPCID = 1 << 10;
        const RTM = 1 << 11;
        const RDT_MONITORING = 1 << 12;
        const FPU_CS_DS_DEPRECATED = 1 << 13;
        const MPX = 1 << 14;
        const RDT_ALLOCATION = 1 << 15;
        const AVX512F = 1 << 16;
        const AVX512DQ = 1 << 17;
        const RDSEED = 1 << 18;
        const ADX = 1 << 19;
        const SMAP = 1 << 20;
        const AVX512_IFMA = 1 << 21;
        const CLFLUSHOPT = 1 << 23;
        const CLWB = 1 << 24;
        const PROCESSOR_TRACE = 1 << 25;
        const AVX512CD = 1 << 28;
        const SHA = 1 << 29;
        const AVX512BW = 1 << 30;
        const AVX512VL = 1 << 31;
    }

    /// Leaf 7, sub-leaf 0, ECX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features7Ecx: u32 {
        const PREFETCHWT1 = 1 << 0;
        const AVX512_VBMI = 1 << 1;
        const UMIP = 1 << 2;
        const PKU = 1 << 3;
        const OSPKE = 1 << 4;
        const WAITPKG = 1 << 5;
        const AVX512_VBMI2 = 1 << 6;
        const CET_SHADOW_STACKS = 1 << 7;
        const GFNI = 1 << 8;
        const VAES = 1 << 9;
        const VPCLMULQDQ = 1 << 10;
        const AVX512_VNNI = 1 << 11;
        const AVX512_BITALG = 1 << 12;
        const TME = 1 << 13;
        const AVX512_VPOPCNTDQ = 1 << 14;
        const LA57 = 1 << 16;
        const RDPID = 1 << 22;
        const KEY_LOCKER = 1 << 23;
        const BUS_LOCK_DETECT = 1 << 24;
        const ENQCMD = 1 << 29;
        const SGX_LAUNCH_CONTROL = 1 << 30;
        const PKS = 1 << 31;
    }

    /// Leaf 7, sub-leaf 0, EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features7Edx: u32 {
        const AVX512_4VNNIW = 1 << 2;
        const AVX512_4FMAPS = 1 << 3;
        const FAST_SHORT_REP_MOV = 1 << 4;
        const UINTR = 1 << 5;
        const AVX512_VP2INTERSECT = 1 << 8;
        const MD_CLEAR = 1 << 10;
        const SERIALIZE = 1 << 14;
        const HYBRID = 1 << 15;
        const TSX_LOAD_TRACKING = 1 << 16;
        const PCONFIG = 1 << 18;
        const ARCH_LBR = 1 << 19;
        const CET_IBT = 1 << 20;
        const AMX_BF16 = 1 << 22;
        const AVX512_FP16 = 1 << 23;
        const AMX_TILE = 1 << 24;
        const AMX_INT8 = 1 << 25;
        const SPEC_CTRL = 1 << 26;
        const STIBP = 1 << 27;
        const L1D_FLUSH = 1 << 28;
        const ARCH_CAPABILITIES = 1 << 29;
        const CORE_CAPABILITIES = 1 << 30;
        const SSBD = 1 << 31;
    }

    /// Leaf 7, sub-leaf 1, EAX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features7Sub1Eax: u32 {
        const AVX_VNNI = 1 << 4;
        const AVX512_BF16 = 1 << 5;
        const FAST_ZERO_REP_MOV = 1 << 10;
        const FAST_SHORT_REP_STO = 1 << 11;
        const FAST_SHORT_REP_CMP = 1 << 12;
        const AVX_IFMA = 1 << 23;
    }

    /// Leaf 0xD, sub-leaf 1, EAX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExtendedState1Eax: u32 {
        const XSAVEOPT = 1 << 0;
        const XSAVEC = 1 << 1;
        const XGETBV_1 = 1 << 2;
        const XSAVES = 1 << 3;
        const XFD = 1 << 4;
    }

    /// Leaf 0x8000_0001, ECX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExtendedEcx: u32 {
        const LAHF_64 = 1 << 0;
        const SVM = 1 << 2;
        const LZCNT = 1 << 5;
        const PREFETCHW = 1 << 8;
    }

    /// Leaf 0x8000_0001, EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExtendedEdx: u32 {
        const SYSCALL = 1 << 11;
        const NX = 1 << 20;
        const PAGE_1G = 1 << 26;
        const RDTSCP = 1 << 27;
        const LONG_MODE = 1 << 29;
    }
}

/// Leaf 6, EAX: the APIC timer runs in every sleep state.
pub const ARAT: u32 = 1 << 2;
/// Leaf 0x8000_0007, EDX: the TSC runs at one rate in every state.
pub const TSC_IS_INVARIANT: u32 = 1 << 8;
/// Leaf 0xB and 0x1F, ECX: level types, at their place.
pub const LEVEL_THREAD: u32 = 1 << 8;
pub const LEVEL_CORE: u32 = 2 << 8;
/// Leaf 0xD, sub-leaf n, ECX: in compacted form the component starts on a 64-byte boundary.
pub const STATE_ALIGNED: u32 = 1 << 1;

/// Components of XCR0. SDM 1 13.1.
pub mod xcr0 {
    pub const X87: u64 = 1 << 0;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    pub const AVX_512: u64 = 7 << 5;
}
