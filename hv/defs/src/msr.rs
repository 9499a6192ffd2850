//! Numbers of model-specific registers and a few of their bits. SDM 4 chapter 2, table 2-2.
#![expect(missing_docs, reason = "the names are the manual's own")]

pub const TIME_STAMP_COUNTER: u32 = 0x10;
pub const PLATFORM_ID: u32 = 0x17;
pub const APIC_BASE: u32 = 0x1B;
/// How many system-management interrupts this processor took, in its lower half. SDM 4 chapter 2, in the tables of the families that have
/// it.
pub const SMI_COUNT: u32 = 0x34;
pub const SPEC_CTRL: u32 = 0x48;
pub const PRED_CMD: u32 = 0x49;
pub const BIOS_SIGN_ID: u32 = 0x8B;
/// Not architectural; the same on all cores of Intel's since Nehalem.
pub const PLATFORM_INFO: u32 = 0xCE;
pub const ARCH_CAPABILITIES: u32 = 0x10A;
pub const FLUSH_CMD: u32 = 0x10B;
pub const SYSENTER_CS: u32 = 0x174;
pub const SYSENTER_ESP: u32 = 0x175;
pub const SYSENTER_EIP: u32 = 0x176;
pub const MCG_STATUS: u32 = 0x17A;
pub const PERF_CTL: u32 = 0x199;
pub const MISC_ENABLE: u32 = 0x1A0;
pub const DEBUGCTL: u32 = 0x1D9;
/// As [`PLATFORM_INFO`].
pub const POWER_CTL: u32 = 0x1FC;
pub const PAT: u32 = 0x277;
pub const TSC_DEADLINE: u32 = 0x6E0;
pub const PM_ENABLE: u32 = 0x770;
pub const HWP_CAPABILITIES: u32 = 0x771;
pub const HWP_REQUEST: u32 = 0x774;
/// The first of those that no processor will ever have.
pub const NOBODYS: u32 = 0x4000_0000;
pub const EFER: u32 = 0xC000_0080;
pub const STAR: u32 = 0xC000_0081;
pub const LSTAR: u32 = 0xC000_0082;
pub const CSTAR: u32 = 0xC000_0083;
pub const FMASK: u32 = 0xC000_0084;
pub const FS_BASE: u32 = 0xC000_0100;
pub const GS_BASE: u32 = 0xC000_0101;
pub const KERNEL_GS_BASE: u32 = 0xC000_0102;
pub const TSC_AUX: u32 = 0xC000_0103;

/// Bits of [`APIC_BASE`]. SDM 3A 11.4.4, 11.12.1.
pub mod apic_base {
    pub const BOOTSTRAP: u64 = 1 << 8;
    pub const X2APIC: u64 = 1 << 10;
    pub const ENABLE: u64 = 1 << 11;
    pub const ADDRESS_RESET: u64 = 0xFEE0_0000;
}

/// Bits of [`MISC_ENABLE`].
pub mod misc_enable {
    pub const FAST_STRINGS: u64 = 1 << 0;
    /// Branch trace storage is not there.
    pub const BTS_UNAVAILABLE: u64 = 1 << 11;
    /// Processor event based sampling is not there.
    pub const PEBS_UNAVAILABLE: u64 = 1 << 12;
}

/// Bits of [`MCG_STATUS`]. SDM 3B 16.3.1.2.
pub mod mcg_status {
    /// A machine check was raised and not ended yet.
    pub const IN_PROGRESS: u64 = 1 << 2;
}
