//! The virtual machine control block of AMD-V: where each field lies, and its bits. APM 2 appendix B, tables B-1 and B-2.
//!
//! The block is one page. The hypervisor reads and writes it as memory, so each field has an offset and a width.
#![expect(missing_docs, reason = "the names are the manual's own")]

/// A field: its first byte, counted from the start of the block, and its width in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// First byte.
    pub offset: u16,
    /// Bytes.
    pub width: u8,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $offset:literal, $width:literal;)*) => {
        $($(#[$doc])* pub const $name: super::Field = super::Field { offset: $offset, width: $width };)*
        /// All of them, in the order of the manual.
        pub const ALL: &[(&str, super::Field)] = &[$((stringify!($name), $name)),*];
    };
}

/// The control area, bytes 0 to 3FFh. APM 2 table B-1.
pub mod control {
    fields! {
        /// Bits of CR numbers: reads in the lower half, writes in the upper one.
        INTERCEPT_CR = 0x000, 4;
        /// The same of debug registers.
        INTERCEPT_DR = 0x004, 4;
        /// One bit for each of the vectors 0 to 31.
        INTERCEPT_EXCEPTIONS = 0x008, 4;
        /// [`intercept1`](super::intercept1).
        INTERCEPT_1 = 0x00C, 4;
        /// [`intercept2`](super::intercept2).
        INTERCEPT_2 = 0x010, 4;
        /// [`intercept3`](super::intercept3).
        INTERCEPT_3 = 0x014, 4;
        PAUSE_FILTER_THRESHOLD = 0x03C, 2;
        PAUSE_FILTER_COUNT = 0x03E, 2;
        /// Physical address of the I/O permission map.
        IOPM_BASE = 0x040, 8;
        /// Physical address of the MSR permission map.
        MSRPM_BASE = 0x048, 8;
        TSC_OFFSET = 0x050, 8;
        /// Address space identifier of the guest; 0 is the host's, and VMRUN refuses it.
        GUEST_ASID = 0x058, 4;
        /// [`tlb_control`](super::tlb_control).
        TLB_CONTROL = 0x05C, 1;
        /// [`virtual_interrupt`](super::virtual_interrupt).
        VIRTUAL_INTERRUPT = 0x060, 8;
        /// [`interrupt_state`](super::interrupt_state).
        INTERRUPT_STATE = 0x068, 8;
        /// [`svm::code`](crate::svm::code).
        EXIT_CODE = 0x070, 8;
        EXIT_INFO_1 = 0x078, 8;
        EXIT_INFO_2 = 0x080, 8;
        /// The event whose delivery was under way: [`event`](super::event).
        EXIT_INTERRUPT_INFO = 0x088, 8;
        /// [`nested`](super::nested).
        NESTED_CONTROL = 0x090, 8;
        AVIC_APIC_BAR = 0x098, 8;
        GHCB = 0x0A0, 8;
        /// The event that VMRUN delivers first: [`event`](super::event).
        EVENT_INJECTION = 0x0A8, 8;
        /// Physical address of the nested page tables' root.
        NESTED_CR3 = 0x0B0, 8;
        /// [`virtualization`](super::virtualization).
        VIRTUALIZATION = 0x0B8, 8;
        /// [`clean`](super::clean).
        CLEAN_BITS = 0x0C0, 4;
        /// Address of the next instruction; stays 0 without [`SvmFeatures::NRIPS`](crate::svm::SvmFeatures::NRIPS).
        NEXT_RIP = 0x0C8, 8;
        /// How many of the bytes behind it were fetched; 0 without
        /// [`SvmFeatures::DECODE_ASSISTS`](crate::svm::SvmFeatures::DECODE_ASSISTS).
        BYTES_FETCHED = 0x0D0, 1;
        INSTRUCTION_BYTES = 0x0D1, 15;
        AVIC_BACKING_PAGE = 0x0E0, 8;
        AVIC_LOGICAL_TABLE = 0x0F0, 8;
        AVIC_PHYSICAL_TABLE = 0x0F8, 8;
        VMSA = 0x108, 8;
        BUS_LOCK_COUNTER = 0x120, 2;
        /// Never touched by the processor: the host's own.
        HOST_USE = 0x3E0, 32;
    }
}

/// The state save area, from byte 400h on. APM 2 table B-2, whose offsets begin at this area.
pub mod save {
    fields! {
        ES = 0x400, 16;
        CS = 0x410, 16;
        SS = 0x420, 16;
        DS = 0x430, 16;
        /// VMLOAD and VMSAVE move it, not VMRUN (APM 2 15.5.2). The same holds for GS, LDTR, TR, [`KERNEL_GS_BASE`], [`STAR`] to
        /// [`SFMASK`], and [`SYSENTER_CS`] to [`SYSENTER_EIP`].
        FS = 0x440, 16;
        GS = 0x450, 16;
        GDTR = 0x460, 16;
        LDTR = 0x470, 16;
        IDTR = 0x480, 16;
        TR = 0x490, 16;
        CPL = 0x4CB, 1;
        EFER = 0x4D0, 8;
        CR4 = 0x548, 8;
        CR3 = 0x550, 8;
        CR0 = 0x558, 8;
        DR7 = 0x560, 8;
        DR6 = 0x568, 8;
        RFLAGS = 0x570, 8;
        RIP = 0x578, 8;
        RSP = 0x5D8, 8;
        S_CET = 0x5E0, 8;
        SSP = 0x5E8, 8;
        INTERRUPT_SSP_TABLE = 0x5F0, 8;
        RAX = 0x5F8, 8;
        STAR = 0x600, 8;
        LSTAR = 0x608, 8;
        CSTAR = 0x610, 8;
        SFMASK = 0x618, 8;
        KERNEL_GS_BASE = 0x620, 8;
        SYSENTER_CS = 0x628, 8;
        SYSENTER_ESP = 0x630, 8;
        SYSENTER_EIP = 0x638, 8;
        CR2 = 0x640, 8;
        /// The guest's PAT; used with nested paging only (APM 2 15.25.2).
        GUEST_PAT = 0x668, 8;
        DEBUGCTL = 0x670, 8;
        LAST_BRANCH_FROM = 0x678, 8;
        LAST_BRANCH_TO = 0x680, 8;
        LAST_EXCEPTION_FROM = 0x688, 8;
        LAST_EXCEPTION_TO = 0x690, 8;
        /// Used with [`SvmFeatures::SPEC_CTRL`](crate::svm::SvmFeatures::SPEC_CTRL) only.
        SPEC_CTRL = 0x6E0, 8;
    }
}

/// Where the parts of a segment register lie in its 16 bytes. APM 2 table B-2.
pub mod segment {
    /// 2 bytes.
    pub const SELECTOR: u16 = 0;
    /// 2 bytes: [`attribute`](super::attribute).
    pub const ATTRIBUTES: u16 = 2;
    /// 4 bytes. Of GDTR and IDTR the lower 2 count.
    pub const LIMIT: u16 = 4;
    /// 8 bytes.
    pub const BASE: u16 = 8;
}

/// Attributes of a segment: bits 55:52 and 47:40 of its descriptor, with nothing between them. APM 2 15.5.1, table B-2.
pub mod attribute {
    pub const TYPE: u16 = 0xF;
    /// Code or data, not a system segment.
    pub const S: u16 = 1 << 4;
    pub const DPL_SHIFT: u32 = 5;
    pub const DPL: u16 = 3 << DPL_SHIFT;
    pub const PRESENT: u16 = 1 << 7;
    pub const AVL: u16 = 1 << 8;
    pub const LONG: u16 = 1 << 9;
    pub const DEFAULT_32: u16 = 1 << 10;
    pub const GRANULAR: u16 = 1 << 11;

    /// Present, DPL 0, code, execute/read, accessed, 64-bit.
    pub const CODE_64: u16 = PRESENT | S | LONG | GRANULAR | 0xB;
    /// Present, DPL 0, code, execute/read, accessed, 32-bit, granular.
    pub const CODE_32: u16 = PRESENT | S | DEFAULT_32 | GRANULAR | 0xB;
    /// Present, DPL 0, data, read/write, accessed, 32-bit, granular.
    pub const DATA_32: u16 = PRESENT | S | DEFAULT_32 | GRANULAR | 0x3;
    /// Present, DPL 0, code, execute/read, accessed, 16-bit.
    pub const CODE_16: u16 = PRESENT | S | 0xB;
    /// Present, DPL 0, data, read/write, accessed, 16-bit.
    pub const DATA_16: u16 = PRESENT | S | 0x3;
    /// Present LDT.
    pub const LDT: u16 = PRESENT | 0x2;
    /// Present, busy 32-bit TSS.
    pub const BUSY_TSS: u16 = PRESENT | 0xB;
}

/// Intercepts at 00Ch. APM 2 table B-1, 15.9.
pub mod intercept1 {
    pub const INTR: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 1;
    pub const SMI: u32 = 1 << 2;
    pub const INIT: u32 = 1 << 3;
    /// Before a virtual interrupt is taken: the interrupt window.
    pub const VINTR: u32 = 1 << 4;
    /// CR0 writes that change more than TS and MP.
    pub const CR0_SELECTIVE: u32 = 1 << 5;
    pub const IDTR_READ: u32 = 1 << 6;
    pub const GDTR_READ: u32 = 1 << 7;
    pub const LDTR_READ: u32 = 1 << 8;
    pub const TR_READ: u32 = 1 << 9;
    pub const IDTR_WRITE: u32 = 1 << 10;
    pub const GDTR_WRITE: u32 = 1 << 11;
    pub const LDTR_WRITE: u32 = 1 << 12;
    pub const TR_WRITE: u32 = 1 << 13;
    pub const RDTSC: u32 = 1 << 14;
    pub const RDPMC: u32 = 1 << 15;
    pub const PUSHF: u32 = 1 << 16;
    pub const POPF: u32 = 1 << 17;
    pub const CPUID: u32 = 1 << 18;
    pub const RSM: u32 = 1 << 19;
    pub const IRET: u32 = 1 << 20;
    pub const SOFTWARE_INTERRUPT: u32 = 1 << 21;
    pub const INVD: u32 = 1 << 22;
    pub const PAUSE: u32 = 1 << 23;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPG: u32 = 1 << 25;
    pub const INVLPGA: u32 = 1 << 26;
    /// Port accesses that the I/O permission map names.
    pub const IO: u32 = 1 << 27;
    /// MSR accesses that the MSR permission map names.
    pub const MSR: u32 = 1 << 28;
    pub const TASK_SWITCH: u32 = 1 << 29;
    pub const FERR_FREEZE: u32 = 1 << 30;
    /// Triple faults.
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Intercepts at 010h. APM 2 table B-1.
pub mod intercept2 {
    /// VMRUN refuses a guest without it.
    pub const VMRUN: u32 = 1 << 0;
    pub const VMMCALL: u32 = 1 << 1;
    pub const VMLOAD: u32 = 1 << 2;
    pub const VMSAVE: u32 = 1 << 3;
    pub const STGI: u32 = 1 << 4;
    pub const CLGI: u32 = 1 << 5;
    pub const SKINIT: u32 = 1 << 6;
    pub const RDTSCP: u32 = 1 << 7;
    pub const ICEBP: u32 = 1 << 8;
    pub const WBINVD: u32 = 1 << 9;
    pub const MONITOR: u32 = 1 << 10;
    pub const MWAIT: u32 = 1 << 11;
    pub const MWAIT_ARMED: u32 = 1 << 12;
    pub const XSETBV: u32 = 1 << 13;
    pub const RDPRU: u32 = 1 << 14;
    /// Behind the instruction, as are the writes of CR0 to CR15 in bits 31:16.
    pub const EFER_WRITE_TRAP: u32 = 1 << 15;
    pub const CR_WRITE_TRAP_SHIFT: u32 = 16;
}

/// Intercepts at 014h. APM 2 table B-1.
pub mod intercept3 {
    pub const INVLPGB: u32 = 1 << 0;
    pub const INVLPGB_ILLEGAL: u32 = 1 << 1;
    pub const INVPCID: u32 = 1 << 2;
    pub const MCOMMIT: u32 = 1 << 3;
    pub const TLBSYNC: u32 = 1 << 4;
    pub const BUS_LOCK: u32 = 1 << 5;
    pub const IDLE_HLT: u32 = 1 << 6;
}

/// Values of TLB_CONTROL. APM 2 15.16.1, table 15-9.
pub mod tlb_control {
    pub const KEEP: u8 = 0;
    /// All entries of all address spaces, the host's included.
    pub const FLUSH_ALL: u8 = 1;
    /// Needs [`SvmFeatures::FLUSH_BY_ASID`](crate::svm::SvmFeatures::FLUSH_BY_ASID), as the next one.
    pub const FLUSH_GUEST: u8 = 3;
    pub const FLUSH_GUEST_NON_GLOBAL: u8 = 7;
}

/// The virtual interrupt at 060h. APM 2 15.21, table B-1.
pub mod virtual_interrupt {
    pub const TPR: u64 = 0xFF;
    /// A virtual interrupt is pending.
    pub const IRQ: u64 = 1 << 8;
    pub const GIF: u64 = 1 << 9;
    pub const NMI_PENDING: u64 = 1 << 11;
    pub const NMI_MASKED: u64 = 1 << 12;
    pub const PRIORITY_SHIFT: u32 = 16;
    pub const PRIORITY: u64 = 0xF << PRIORITY_SHIFT;
    /// The priority of the virtual interrupt is not held against [`TPR`].
    pub const IGNORE_TPR: u64 = 1 << 20;
    /// The guest's IF masks virtual interrupts only; the host's IF at VMRUN masks physical ones. APM 2 15.21.1.
    pub const MASKING: u64 = 1 << 24;
    pub const GIF_ENABLE: u64 = 1 << 25;
    pub const NMI_ENABLE: u64 = 1 << 26;
    pub const X2AVIC_ENABLE: u64 = 1 << 30;
    pub const AVIC_ENABLE: u64 = 1 << 31;
    pub const VECTOR_SHIFT: u32 = 32;
    pub const VECTOR: u64 = 0xFF << VECTOR_SHIFT;
}

/// The interrupt state at 068h. APM 2 15.21.5.
pub mod interrupt_state {
    /// The guest is behind an STI or a MOV SS: cleared where RIP is advanced by software.
    pub const SHADOW: u64 = 1 << 0;
    /// The guest's IF, where it runs with virtual interrupts masked apart.
    pub const INTERRUPT_MASK: u64 = 1 << 1;
}

/// Events in EVENTINJ and EXITINTINFO. APM 2 15.20, figure 15-4, table 15-10.
pub mod event {
    pub const VECTOR: u64 = 0xFF;
    pub const TYPE_SHIFT: u32 = 8;
    pub const TYPE: u64 = 7 << TYPE_SHIFT;
    /// External or virtual interrupt; ignores the guest's IF.
    pub const INTERRUPT: u64 = 0 << TYPE_SHIFT;
    pub const NMI: u64 = 2 << TYPE_SHIFT;
    pub const EXCEPTION: u64 = 3 << TYPE_SHIFT;
    pub const SOFTWARE_INTERRUPT: u64 = 4 << TYPE_SHIFT;
    pub const HAS_ERROR_CODE: u64 = 1 << 11;
    /// Where it is clear, the other bits say nothing.
    pub const VALID: u64 = 1 << 31;
    pub const ERROR_CODE_SHIFT: u32 = 32;
}

/// The nested control at 090h. APM 2 15.25.3, table B-1.
pub mod nested {
    /// Nested paging.
    pub const PAGING: u64 = 1 << 0;
    pub const SEV: u64 = 1 << 1;
    pub const SEV_ES: u64 = 1 << 2;
    /// Guest-mode execute trap.
    pub const GMET: u64 = 1 << 3;
    pub const SUPERVISOR_SHADOW_STACK: u64 = 1 << 4;
    pub const TRANSPARENT_ENCRYPTION: u64 = 1 << 5;
    pub const READ_ONLY_PAGE_TABLES: u64 = 1 << 6;
}

/// The field at 0B8h. APM 2 15.23, 15.33.1.
pub mod virtualization {
    pub const LAST_BRANCH: u64 = 1 << 0;
    /// VMLOAD and VMSAVE of the guest's own.
    pub const VMLOAD_VMSAVE: u64 = 1 << 1;
}

/// Clean bits: a set one promises that these fields are as they were at the last VMRUN of this block on this core. APM 2 15.15.3.
pub mod clean {
    /// Intercepts, TSC offset, pause filter.
    pub const INTERCEPTS: u32 = 1 << 0;
    /// Addresses of both permission maps. What the maps hold is read at each access.
    pub const PERMISSION_MAPS: u32 = 1 << 1;
    pub const ASID: u32 = 1 << 2;
    /// [`virtual_interrupt`](super::virtual_interrupt).
    pub const VIRTUAL_INTERRUPT: u32 = 1 << 3;
    /// Nested control, nested CR3, the guest's PAT.
    pub const NESTED_PAGING: u32 = 1 << 4;
    /// CR0, CR3, CR4, EFER.
    pub const CONTROL_REGISTERS: u32 = 1 << 5;
    /// DR6 and DR7.
    pub const DEBUG_REGISTERS: u32 = 1 << 6;
    /// GDTR and IDTR.
    pub const DESCRIPTOR_TABLES: u32 = 1 << 7;
    /// CS, DS, SS, ES and CPL.
    pub const SEGMENTS: u32 = 1 << 8;
    pub const CR2: u32 = 1 << 9;
    /// DEBUGCTL and the records of branches.
    pub const LAST_BRANCH: u32 = 1 << 10;
    pub const AVIC: u32 = 1 << 11;
    /// Control-flow enforcement.
    pub const CET: u32 = 1 << 12;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// End of the control area and of what this file names of the save area.
    const CONTROL_END: usize = 0x400;
    const SAVE_END: usize = 0x700;

    /// Widths of fields and of the gaps between them, as table B-1 lists its rows: `None` is a reserved row.
    const CONTROL_ROWS: &[(Option<&str>, usize)] = &[
        (Some("INTERCEPT_CR"), 4),
        (Some("INTERCEPT_DR"), 4),
        (Some("INTERCEPT_EXCEPTIONS"), 4),
        (Some("INTERCEPT_1"), 4),
        (Some("INTERCEPT_2"), 4),
        (Some("INTERCEPT_3"), 4),
        (None, 36),
        (Some("PAUSE_FILTER_THRESHOLD"), 2),
        (Some("PAUSE_FILTER_COUNT"), 2),
        (Some("IOPM_BASE"), 8),
        (Some("MSRPM_BASE"), 8),
        (Some("TSC_OFFSET"), 8),
        (Some("GUEST_ASID"), 4),
        (Some("TLB_CONTROL"), 1),
        (None, 3),
        (Some("VIRTUAL_INTERRUPT"), 8),
        (Some("INTERRUPT_STATE"), 8),
        (Some("EXIT_CODE"), 8),
        (Some("EXIT_INFO_1"), 8),
        (Some("EXIT_INFO_2"), 8),
        (Some("EXIT_INTERRUPT_INFO"), 8),
        (Some("NESTED_CONTROL"), 8),
        (Some("AVIC_APIC_BAR"), 8),
        (Some("GHCB"), 8),
        (Some("EVENT_INJECTION"), 8),
        (Some("NESTED_CR3"), 8),
        (Some("VIRTUALIZATION"), 8),
        (Some("CLEAN_BITS"), 4),
        (None, 4),
        (Some("NEXT_RIP"), 8),
        (Some("BYTES_FETCHED"), 1),
        (Some("INSTRUCTION_BYTES"), 15),
        (Some("AVIC_BACKING_PAGE"), 8),
        (None, 8),
        (Some("AVIC_LOGICAL_TABLE"), 8),
        (Some("AVIC_PHYSICAL_TABLE"), 8),
        (None, 8),
        (Some("VMSA"), 8),
        (None, 16),
        (Some("BUS_LOCK_COUNTER"), 2),
        (None, 702),
        (Some("HOST_USE"), 32),
    ];

    /// The same of table B-2.
    const SAVE_ROWS: &[(Option<&str>, usize)] = &[
        (Some("ES"), 16),
        (Some("CS"), 16),
        (Some("SS"), 16),
        (Some("DS"), 16),
        (Some("FS"), 16),
        (Some("GS"), 16),
        (Some("GDTR"), 16),
        (Some("LDTR"), 16),
        (Some("IDTR"), 16),
        (Some("TR"), 16),
        (None, 43),
        (Some("CPL"), 1),
        (None, 4),
        (Some("EFER"), 8),
        (None, 112),
        (Some("CR4"), 8),
        (Some("CR3"), 8),
        (Some("CR0"), 8),
        (Some("DR7"), 8),
        (Some("DR6"), 8),
        (Some("RFLAGS"), 8),
        (Some("RIP"), 8),
        (None, 88),
        (Some("RSP"), 8),
        (Some("S_CET"), 8),
        (Some("SSP"), 8),
        (Some("INTERRUPT_SSP_TABLE"), 8),
        (Some("RAX"), 8),
        (Some("STAR"), 8),
        (Some("LSTAR"), 8),
        (Some("CSTAR"), 8),
        (Some("SFMASK"), 8),
        (Some("KERNEL_GS_BASE"), 8),
        (Some("SYSENTER_CS"), 8),
        (Some("SYSENTER_ESP"), 8),
        (Some("SYSENTER_EIP"), 8),
        (Some("CR2"), 8),
        (None, 32),
        (Some("GUEST_PAT"), 8),
        (Some("DEBUGCTL"), 8),
        (Some("LAST_BRANCH_FROM"), 8),
        (Some("LAST_BRANCH_TO"), 8),
        (Some("LAST_EXCEPTION_FROM"), 8),
        (Some("LAST_EXCEPTION_TO"), 8),
        (None, 72),
        (Some("SPEC_CTRL"), 8),
        (None, 24),
    ];

    /// Holds the fields against the rows of a table, which lie one behind the other from `start` to `end`.
    fn compare(fields: &[(&str, Field)], rows: &[(Option<&str>, usize)], start: usize, end: usize) {
        let mut fields = fields.iter();
        let mut at = start;
        for (name, width) in rows {
            if let Some(name) = name {
                let expected = Field { offset: at as u16, width: *width as u8 };
                assert_eq!(fields.next(), Some(&(*name, expected)));
            }
            at += width;
        }
        assert_eq!((fields.next(), at), (None, end));
    }

    #[test]
    fn each_field_lies_where_the_rows_before_it_end() {
        compare(control::ALL, CONTROL_ROWS, 0, CONTROL_END);
        compare(save::ALL, SAVE_ROWS, CONTROL_END, SAVE_END);
    }

    #[test]
    fn attributes_are_a_descriptors_bits_without_the_gap() {
        // Bits 55:40 of the descriptors that every flat system has; 51:48 between them are the limit's.
        let of_descriptor = |high: u32| (high >> 8 & 0xFF | high >> 12 & 0xF00) as u16;
        assert_eq!(of_descriptor(0x00AF_9B00), attribute::CODE_64);
        assert_eq!(of_descriptor(0x00CF_9B00), attribute::CODE_32);
        assert_eq!(of_descriptor(0x00CF_9300), attribute::DATA_32);
        assert_eq!(of_descriptor(0x0000_9B00), attribute::CODE_16);
        assert_eq!(of_descriptor(0x0000_8B00), attribute::BUSY_TSS);
        assert_eq!(of_descriptor(0x0000_8200), attribute::LDT);
    }

    #[test]
    fn an_event_is_encoded_as_the_manual_shows() {
        // #GP(0) and INT 51h.
        assert_eq!(event::VALID | event::HAS_ERROR_CODE | event::EXCEPTION | 13, 0x8000_0B0D);
        assert_eq!(event::VALID | event::SOFTWARE_INTERRUPT | 0x51, 0x8000_0451);
    }
}
