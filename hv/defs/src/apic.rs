//! The local APIC in x2APIC mode: MSR numbers and the layouts of its commands. SDM 3A 11.12.1, table 11-6.
#![expect(missing_docs, reason = "the names are the manual's own")]

/// The range of MSRs that belongs to the x2APIC.
pub const FIRST: u32 = 0x800;
pub const LAST: u32 = 0x8FF;

pub const ID: u32 = 0x802;
pub const VERSION: u32 = 0x803;
pub const TPR: u32 = 0x808;
pub const PPR: u32 = 0x80A;
pub const EOI: u32 = 0x80B;
pub const LDR: u32 = 0x80D;
pub const SVR: u32 = 0x80F;
/// First of eight.
pub const ISR: u32 = 0x810;
/// First of eight.
pub const TMR: u32 = 0x818;
/// First of eight.
pub const IRR: u32 = 0x820;
pub const ESR: u32 = 0x828;
pub const LVT_CMCI: u32 = 0x82F;
pub const ICR: u32 = 0x830;
pub const LVT_TIMER: u32 = 0x832;
pub const LVT_THERMAL: u32 = 0x833;
pub const LVT_PERFORMANCE: u32 = 0x834;
pub const LVT_LINT0: u32 = 0x835;
pub const LVT_LINT1: u32 = 0x836;
pub const LVT_ERROR: u32 = 0x837;
pub const INITIAL_COUNT: u32 = 0x838;
pub const CURRENT_COUNT: u32 = 0x839;
pub const DIVIDE_CONFIGURATION: u32 = 0x83E;
pub const SELF_IPI: u32 = 0x83F;

/// Delivery modes, bits 10:8 of the ICR and of LVT entries. SDM 3A 11.5.1, 11.6.1.
pub mod delivery {
    pub const SHIFT: u32 = 8;
    pub const MASK: u64 = 7 << SHIFT;
    pub const FIXED: u64 = 0 << SHIFT;
    pub const LOWEST_PRIORITY: u64 = 1 << SHIFT;
    pub const SMI: u64 = 2 << SHIFT;
    pub const NMI: u64 = 4 << SHIFT;
    pub const INIT: u64 = 5 << SHIFT;
    pub const START_UP: u64 = 6 << SHIFT;
    pub const EXTINT: u64 = 7 << SHIFT;
}

/// Bits of the interrupt command register in x2APIC mode. SDM 3A 11.12.9, figure 11-28.
pub mod icr {
    pub const VECTOR: u64 = 0xFF;
    pub const LOGICAL: u64 = 1 << 11;
    pub const ASSERT: u64 = 1 << 14;
    pub const LEVEL_TRIGGERED: u64 = 1 << 15;
    pub const SHORTHAND: u64 = 3 << 18;
    pub const SHORTHAND_SELF: u64 = 1 << 18;
    pub const SHORTHAND_ALL: u64 = 2 << 18;
    pub const SHORTHAND_OTHERS: u64 = 3 << 18;
    pub const DESTINATION_SHIFT: u32 = 32;
    /// Bits that hold nothing; writing a 1 to one raises #GP.
    pub const RESERVED: u64 = 0xFFF3_3000;
}

/// Bits of a local vector table entry. SDM 3A 11.5.1, figure 11-8.
pub mod lvt {
    pub const VECTOR: u64 = 0xFF;
    /// Read-only.
    pub const DELIVERY_STATUS: u64 = 1 << 12;
    pub const ACTIVE_LOW: u64 = 1 << 13;
    /// Read-only.
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL_TRIGGERED: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const TIMER_MODE: u64 = 3 << 17;
    pub const TIMER_DEADLINE: u64 = 2 << 17;
    pub const TIMER_MODE_RESERVED: u64 = 3 << 17;
}
