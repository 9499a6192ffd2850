//! VMCS field encodings (SDM 3D appendix B) and the bits of the VMX controls (SDM 3C 25.6-25.8).
#![expect(missing_docs, reason = "the names are the manual's own")]

/// Encodings of VMCS fields, as VMREAD and VMWRITE take them. SDM 3D appendix B.
pub mod field {
    // 16-bit control and guest state (B.1)
    pub const VPID: u32 = 0x0000;
    pub const GUEST_ES_SELECTOR: u32 = 0x0800;
    pub const GUEST_CS_SELECTOR: u32 = 0x0802;
    pub const GUEST_SS_SELECTOR: u32 = 0x0804;
    pub const GUEST_DS_SELECTOR: u32 = 0x0806;
    pub const GUEST_FS_SELECTOR: u32 = 0x0808;
    pub const GUEST_GS_SELECTOR: u32 = 0x080A;
    pub const GUEST_LDTR_SELECTOR: u32 = 0x080C;
    pub const GUEST_TR_SELECTOR: u32 = 0x080E;
    pub const GUEST_INTERRUPT_STATUS: u32 = 0x0810;
    // 16-bit host state
    pub const HOST_ES_SELECTOR: u32 = 0x0C00;
    pub const HOST_CS_SELECTOR: u32 = 0x0C02;
    pub const HOST_SS_SELECTOR: u32 = 0x0C04;
    pub const HOST_DS_SELECTOR: u32 = 0x0C06;
    pub const HOST_FS_SELECTOR: u32 = 0x0C08;
    pub const HOST_GS_SELECTOR: u32 = 0x0C0A;
    pub const HOST_TR_SELECTOR: u32 = 0x0C0C;
    // 64-bit control (B.2)
    pub const IO_BITMAP_A: u32 = 0x2000;
    pub const IO_BITMAP_B: u32 = 0x2002;
    pub const MSR_BITMAP: u32 = 0x2004;
    pub const VIRTUAL_APIC_ADDRESS: u32 = 0x2012;
    pub const EPT_POINTER: u32 = 0x201A;
    /// First of four, two apart.
    pub const EOI_EXIT_BITMAP: u32 = 0x201C;
    pub const XSS_EXITING_BITMAP: u32 = 0x202C;
    // 64-bit read-only
    pub const GUEST_PHYSICAL_ADDRESS: u32 = 0x2400;
    // 64-bit guest and host state
    pub const VMCS_LINK_POINTER: u32 = 0x2800;
    pub const GUEST_DEBUGCTL: u32 = 0x2802;
    pub const GUEST_PAT: u32 = 0x2804;
    pub const GUEST_EFER: u32 = 0x2806;
    pub const HOST_PAT: u32 = 0x2C00;
    pub const HOST_EFER: u32 = 0x2C02;
    // 32-bit control (B.3)
    pub const PIN_CONTROLS: u32 = 0x4000;
    pub const PROCESSOR_CONTROLS: u32 = 0x4002;
    pub const EXCEPTION_BITMAP: u32 = 0x4004;
    pub const PAGE_FAULT_MASK: u32 = 0x4006;
    pub const PAGE_FAULT_MATCH: u32 = 0x4008;
    pub const CR3_TARGET_COUNT: u32 = 0x400A;
    pub const EXIT_CONTROLS: u32 = 0x400C;
    pub const EXIT_MSR_STORE_COUNT: u32 = 0x400E;
    pub const EXIT_MSR_LOAD_COUNT: u32 = 0x4010;
    pub const ENTRY_CONTROLS: u32 = 0x4012;
    pub const ENTRY_MSR_LOAD_COUNT: u32 = 0x4014;
    pub const ENTRY_INTERRUPTION_INFO: u32 = 0x4016;
    pub const ENTRY_EXCEPTION_ERROR_CODE: u32 = 0x4018;
    pub const ENTRY_INSTRUCTION_LENGTH: u32 = 0x401A;
    pub const TPR_THRESHOLD: u32 = 0x401C;
    pub const SECONDARY_CONTROLS: u32 = 0x401E;
    // 32-bit read-only
    pub const INSTRUCTION_ERROR: u32 = 0x4400;
    pub const EXIT_REASON: u32 = 0x4402;
    pub const EXIT_INTERRUPTION_INFO: u32 = 0x4404;
    pub const EXIT_INTERRUPTION_ERROR_CODE: u32 = 0x4406;
    pub const IDT_VECTORING_INFO: u32 = 0x4408;
    pub const IDT_VECTORING_ERROR_CODE: u32 = 0x440A;
    pub const EXIT_INSTRUCTION_LENGTH: u32 = 0x440C;
    pub const EXIT_INSTRUCTION_INFO: u32 = 0x440E;
    // 32-bit guest and host state
    pub const GUEST_ES_LIMIT: u32 = 0x4800;
    pub const GUEST_CS_LIMIT: u32 = 0x4802;
    pub const GUEST_SS_LIMIT: u32 = 0x4804;
    pub const GUEST_DS_LIMIT: u32 = 0x4806;
    pub const GUEST_FS_LIMIT: u32 = 0x4808;
    pub const GUEST_GS_LIMIT: u32 = 0x480A;
    pub const GUEST_LDTR_LIMIT: u32 = 0x480C;
    pub const GUEST_TR_LIMIT: u32 = 0x480E;
    pub const GUEST_GDTR_LIMIT: u32 = 0x4810;
    pub const GUEST_IDTR_LIMIT: u32 = 0x4812;
    pub const GUEST_ES_RIGHTS: u32 = 0x4814;
    pub const GUEST_CS_RIGHTS: u32 = 0x4816;
    pub const GUEST_SS_RIGHTS: u32 = 0x4818;
    pub const GUEST_DS_RIGHTS: u32 = 0x481A;
    pub const GUEST_FS_RIGHTS: u32 = 0x481C;
    pub const GUEST_GS_RIGHTS: u32 = 0x481E;
    pub const GUEST_LDTR_RIGHTS: u32 = 0x4820;
    pub const GUEST_TR_RIGHTS: u32 = 0x4822;
    pub const GUEST_INTERRUPTIBILITY: u32 = 0x4824;
    pub const GUEST_ACTIVITY: u32 = 0x4826;
    pub const GUEST_SYSENTER_CS: u32 = 0x482A;
    pub const PREEMPTION_TIMER: u32 = 0x482E;
    pub const HOST_SYSENTER_CS: u32 = 0x4C00;
    // Natural-width control (B.4)
    pub const CR0_MASK: u32 = 0x6000;
    pub const CR4_MASK: u32 = 0x6002;
    pub const CR0_SHADOW: u32 = 0x6004;
    pub const CR4_SHADOW: u32 = 0x6006;
    // Natural-width read-only
    pub const EXIT_QUALIFICATION: u32 = 0x6400;
    pub const GUEST_LINEAR_ADDRESS: u32 = 0x640A;
    // Natural-width guest state
    pub const GUEST_CR0: u32 = 0x6800;
    pub const GUEST_CR3: u32 = 0x6802;
    pub const GUEST_CR4: u32 = 0x6804;
    pub const GUEST_ES_BASE: u32 = 0x6806;
    pub const GUEST_CS_BASE: u32 = 0x6808;
    pub const GUEST_SS_BASE: u32 = 0x680A;
    pub const GUEST_DS_BASE: u32 = 0x680C;
    pub const GUEST_FS_BASE: u32 = 0x680E;
    pub const GUEST_GS_BASE: u32 = 0x6810;
    pub const GUEST_LDTR_BASE: u32 = 0x6812;
    pub const GUEST_TR_BASE: u32 = 0x6814;
    pub const GUEST_GDTR_BASE: u32 = 0x6816;
    pub const GUEST_IDTR_BASE: u32 = 0x6818;
    pub const GUEST_DR7: u32 = 0x681A;
    pub const GUEST_RSP: u32 = 0x681C;
    pub const GUEST_RIP: u32 = 0x681E;
    pub const GUEST_RFLAGS: u32 = 0x6820;
    pub const GUEST_PENDING_DEBUG: u32 = 0x6822;
    pub const GUEST_SYSENTER_ESP: u32 = 0x6824;
    pub const GUEST_SYSENTER_EIP: u32 = 0x6826;
    // Natural-width host state
    pub const HOST_CR0: u32 = 0x6C00;
    pub const HOST_CR3: u32 = 0x6C02;
    pub const HOST_CR4: u32 = 0x6C04;
    pub const HOST_FS_BASE: u32 = 0x6C06;
    pub const HOST_GS_BASE: u32 = 0x6C08;
    pub const HOST_TR_BASE: u32 = 0x6C0A;
    pub const HOST_GDTR_BASE: u32 = 0x6C0C;
    pub const HOST_IDTR_BASE: u32 = 0x6C0E;
    pub const HOST_SYSENTER_ESP: u32 = 0x6C10;
    pub const HOST_SYSENTER_EIP: u32 = 0x6C12;
    pub const HOST_RSP: u32 = 0x6C14;
    pub const HOST_RIP: u32 = 0x6C16;
}

/// Pin-based VM-execution controls. SDM 3C 25.6.1, table 25-5.
pub mod pin {
    pub const EXTERNAL_INTERRUPT_EXITING: u32 = 1 << 0;
    pub const NMI_EXITING: u32 = 1 << 3;
    pub const VIRTUAL_NMIS: u32 = 1 << 5;
    pub const PREEMPTION_TIMER: u32 = 1 << 6;
}

/// Primary processor-based VM-execution controls. SDM 3C 25.6.2, table 25-6.
pub mod processor {
    pub const INTERRUPT_WINDOW_EXITING: u32 = 1 << 2;
    pub const HLT_EXITING: u32 = 1 << 7;
    pub const MWAIT_EXITING: u32 = 1 << 10;
    pub const RDPMC_EXITING: u32 = 1 << 11;
    pub const CR3_LOAD_EXITING: u32 = 1 << 15;
    pub const CR3_STORE_EXITING: u32 = 1 << 16;
    pub const CR8_LOAD_EXITING: u32 = 1 << 19;
    pub const CR8_STORE_EXITING: u32 = 1 << 20;
    pub const TPR_SHADOW: u32 = 1 << 21;
    pub const NMI_WINDOW_EXITING: u32 = 1 << 22;
    pub const UNCONDITIONAL_IO_EXITING: u32 = 1 << 24;
    pub const IO_BITMAPS: u32 = 1 << 25;
    pub const MSR_BITMAPS: u32 = 1 << 28;
    pub const MONITOR_EXITING: u32 = 1 << 29;
    pub const SECONDARY_CONTROLS: u32 = 1 << 31;
}

/// Secondary processor-based VM-execution controls. SDM 3C 25.6.2, table 25-7.
pub mod secondary {
    pub const EPT: u32 = 1 << 1;
    pub const RDTSCP: u32 = 1 << 3;
    pub const VIRTUALIZE_X2APIC_MODE: u32 = 1 << 4;
    pub const VPID: u32 = 1 << 5;
    pub const WBINVD_EXITING: u32 = 1 << 6;
    pub const UNRESTRICTED_GUEST: u32 = 1 << 7;
    pub const APIC_REGISTER_VIRTUALIZATION: u32 = 1 << 8;
    pub const VIRTUAL_INTERRUPT_DELIVERY: u32 = 1 << 9;
    pub const RDRAND_EXITING: u32 = 1 << 11;
    pub const INVPCID: u32 = 1 << 12;
    pub const RDSEED_EXITING: u32 = 1 << 16;
    pub const XSAVES: u32 = 1 << 20;
}

/// VM-exit controls. SDM 3C 25.7.1, table 25-13.
pub mod exit_control {
    pub const SAVE_DEBUG_CONTROLS: u32 = 1 << 2;
    pub const HOST_64_BIT: u32 = 1 << 9;
    pub const ACKNOWLEDGE_INTERRUPT: u32 = 1 << 15;
    pub const SAVE_PAT: u32 = 1 << 18;
    pub const LOAD_PAT: u32 = 1 << 19;
    pub const SAVE_EFER: u32 = 1 << 20;
    pub const LOAD_EFER: u32 = 1 << 21;
}

/// VM-entry controls. SDM 3C 25.8.1, table 25-15.
pub mod entry_control {
    pub const LOAD_DEBUG_CONTROLS: u32 = 1 << 2;
    pub const IA32E_GUEST: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 14;
    pub const LOAD_EFER: u32 = 1 << 15;
}

/// Interruption-information fields (entry, exit, IDT vectoring). SDM 3C 25.8.3, table 25-17.
pub mod interruption {
    pub const TYPE_SHIFT: u32 = 8;
    pub const TYPE_MASK: u32 = 7 << TYPE_SHIFT;
    pub const EXTERNAL: u32 = 0 << TYPE_SHIFT;
    pub const NMI: u32 = 2 << TYPE_SHIFT;
    pub const HARDWARE_EXCEPTION: u32 = 3 << TYPE_SHIFT;
    pub const SOFTWARE_INTERRUPT: u32 = 4 << TYPE_SHIFT;
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: u32 = 5 << TYPE_SHIFT;
    pub const SOFTWARE_EXCEPTION: u32 = 6 << TYPE_SHIFT;
    pub const DELIVER_ERROR_CODE: u32 = 1 << 11;
    pub const NMI_UNBLOCKING: u32 = 1 << 12;
    pub const VALID: u32 = 1 << 31;
}

/// Guest interruptibility state. SDM 3C 25.4.2, table 25-3.
pub mod interruptibility {
    pub const BLOCKED_BY_STI: u32 = 1 << 0;
    pub const BLOCKED_BY_MOV_SS: u32 = 1 << 1;
    pub const BLOCKED_BY_NMI: u32 = 1 << 3;
}

/// Access rights of a guest segment. SDM 3C 25.4.1, table 25-2.
pub mod rights {
    /// Present, DPL 0, code, execute/read, accessed, 32-bit, 4-KByte granular.
    pub const CODE_32: u32 = 0xC09B;
    /// Present, DPL 0, data, read/write, accessed, 32-bit, 4-KByte granular.
    pub const DATA_32: u32 = 0xC093;
    /// Present, DPL 0, code, execute/read, accessed, 16-bit.
    pub const CODE_16: u32 = 0x9B;
    /// Present, DPL 0, data, read/write, accessed, 16-bit.
    pub const DATA_16: u32 = 0x93;
    /// Present LDT.
    pub const LDT: u32 = 0x82;
    /// Present, busy 32-bit TSS.
    pub const BUSY_TSS: u32 = 0x8B;
    pub const UNUSABLE: u32 = 1 << 16;
}

/// EPT pointer: 4-level walk, write-back paging structures. SDM 3C 25.6.11, table 25-9.
pub const EPTP_WRITE_BACK_4_LEVELS: u64 = 6 | (3 << 3);
