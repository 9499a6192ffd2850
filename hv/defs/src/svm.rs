//! AMD-V: exit codes and their names, what an exit tells, registers, CPUID bits, permission maps. APM 2 chapter 15 and appendix C.
#![expect(missing_docs, reason = "the names are the manual's own")]

use bitflags::bitflags;

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// Exit codes. APM 2 appendix C, table C-1.
        pub mod code {
            $(#[doc = $text] pub const $name: u64 = $code;)*
        }

        /// The name of an exit code that stands for one thing alone; `None` for the groups (see [`name`]) and the unknown.
        const fn own_name(code: u64) -> Option<&'static str> {
            match code {
                $($code => Some($text),)*
                _ => None,
            }
        }

        #[cfg(test)]
        const ALL: &[(u64, &str)] = &[$(($code, $text)),*];
    };
}

codes! {
    INTR = 0x60, "external interrupt";
    NMI = 0x61, "NMI";
    SMI = 0x62, "SMI";
    INIT = 0x63, "INIT signal";
    VINTR = 0x64, "interrupt window";
    CR0_SELECTIVE_WRITE = 0x65, "selective CR0 write";
    IDTR_READ = 0x66, "SIDT";
    GDTR_READ = 0x67, "SGDT";
    LDTR_READ = 0x68, "SLDT";
    TR_READ = 0x69, "STR";
    IDTR_WRITE = 0x6A, "LIDT";
    GDTR_WRITE = 0x6B, "LGDT";
    LDTR_WRITE = 0x6C, "LLDT";
    TR_WRITE = 0x6D, "LTR";
    RDTSC = 0x6E, "RDTSC";
    RDPMC = 0x6F, "RDPMC";
    PUSHF = 0x70, "PUSHF";
    POPF = 0x71, "POPF";
    CPUID = 0x72, "CPUID";
    RSM = 0x73, "RSM";
    IRET = 0x74, "IRET";
    SOFTWARE_INTERRUPT = 0x75, "INT n";
    INVD = 0x76, "INVD";
    PAUSE = 0x77, "PAUSE";
    HLT = 0x78, "HLT";
    INVLPG = 0x79, "INVLPG";
    INVLPGA = 0x7A, "INVLPGA";
    IO = 0x7B, "I/O instruction";
    MSR = 0x7C, "RDMSR or WRMSR";
    TASK_SWITCH = 0x7D, "task switch";
    FERR_FREEZE = 0x7E, "FERR freeze";
    SHUTDOWN = 0x7F, "triple fault";
    VMRUN = 0x80, "VMRUN";
    VMMCALL = 0x81, "VMMCALL";
    VMLOAD = 0x82, "VMLOAD";
    VMSAVE = 0x83, "VMSAVE";
    STGI = 0x84, "STGI";
    CLGI = 0x85, "CLGI";
    SKINIT = 0x86, "SKINIT";
    RDTSCP = 0x87, "RDTSCP";
    ICEBP = 0x88, "ICEBP";
    WBINVD = 0x89, "WBINVD";
    MONITOR = 0x8A, "MONITOR";
    MWAIT = 0x8B, "MWAIT";
    MWAIT_ARMED = 0x8C, "MWAIT with an armed monitor";
    XSETBV = 0x8D, "XSETBV";
    RDPRU = 0x8E, "RDPRU";
    EFER_WRITE_TRAP = 0x8F, "behind an EFER write";
    INVLPGB = 0xA0, "INVLPGB";
    INVLPGB_ILLEGAL = 0xA1, "illegal INVLPGB";
    INVPCID = 0xA2, "INVPCID";
    MCOMMIT = 0xA3, "MCOMMIT";
    TLBSYNC = 0xA4, "TLBSYNC";
    BUS_LOCK = 0xA5, "bus lock";
    IDLE_HLT = 0xA6, "HLT with nothing pending";
    NESTED_PAGE_FAULT = 0x400, "nested page fault";
    AVIC_INCOMPLETE_IPI = 0x401, "AVIC: incomplete IPI";
    AVIC_NO_ACCELERATION = 0x402, "AVIC: access without acceleration";
    VMGEXIT = 0x403, "VMGEXIT";
    INVALID_PMC = 0xFFFF_FFFF_FFFF_FFFC, "entry failure: performance counters";
    IDLE_REQUIRED = 0xFFFF_FFFF_FFFF_FFFD, "entry failure: the sibling thread must be idle";
    BUSY = 0xFFFF_FFFF_FFFF_FFFE, "entry failure: VMSA in use";
    INVALID = 0xFFFF_FFFF_FFFF_FFFF, "entry failure: invalid guest state";
}

/// First codes of groups with one code for each register or vector. APM 2 table C-1.
pub mod group {
    /// 16 codes, by register; the same for the next three.
    pub const CR_READ: u64 = 0x00;
    pub const CR_WRITE: u64 = 0x10;
    pub const DR_READ: u64 = 0x20;
    pub const DR_WRITE: u64 = 0x30;
    /// 32 codes, by vector.
    pub const EXCEPTION: u64 = 0x40;
    /// 16 codes, by register.
    pub const CR_WRITE_TRAP: u64 = 0x90;
}

/// The name of an exit code, as reports print it; `None` for one that this table lacks.
#[must_use]
pub const fn name(code: u64) -> Option<&'static str> {
    match code {
        0x00..=0x0F => Some("control-register read"),
        0x10..=0x1F => Some("control-register write"),
        0x20..=0x2F => Some("debug-register read"),
        0x30..=0x3F => Some("debug-register write"),
        0x40..=0x5F => Some("exception"),
        0x90..=0x9F => Some("behind a control-register write"),
        _ => own_name(code),
    }
}

/// EXITINFO1 of [`code::IO`]. APM 2 15.10.2, figure 15-2. EXITINFO2 is the address of the next instruction.
pub mod io_info {
    pub const IN: u64 = 1 << 0;
    pub const STRING: u64 = 1 << 2;
    pub const REPEATED: u64 = 1 << 3;
    pub const SIZE_8: u64 = 1 << 4;
    pub const SIZE_16: u64 = 1 << 5;
    pub const SIZE_32: u64 = 1 << 6;
    pub const ADDRESS_16: u64 = 1 << 7;
    pub const ADDRESS_32: u64 = 1 << 8;
    pub const ADDRESS_64: u64 = 1 << 9;
    pub const SEGMENT_SHIFT: u32 = 10;
    pub const SEGMENT: u64 = 7 << SEGMENT_SHIFT;
    pub const PORT_SHIFT: u32 = 16;
}

/// EXITINFO1 of [`code::MSR`]. APM 2 15.11.
pub mod msr_info {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
}

/// EXITINFO1 of [`code::NESTED_PAGE_FAULT`]. APM 2 15.25.6. EXITINFO2 is the guest-physical address.
pub mod page_fault_info {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    /// Set at each one: the nested tables are walked as a user's.
    pub const USER: u64 = 1 << 2;
    pub const RESERVED_BIT: u64 = 1 << 3;
    pub const FETCH: u64 = 1 << 4;
    /// While the address of the access itself was translated.
    pub const FINAL_ADDRESS: u64 = 1 << 32;
    /// While an entry of the guest's own page tables was.
    pub const GUEST_TABLE: u64 = 1 << 33;
}

/// EXITINFO1 of control-register codes, with [`SvmFeatures::DECODE_ASSISTS`]. APM 2 15.8.1.
pub mod register_info {
    /// The general register.
    pub const REGISTER: u64 = 0xF;
    /// A MOV; other instructions that change the register leave it clear.
    pub const MOV: u64 = 1 << 63;
}

/// EXITINFO2 of [`code::TASK_SWITCH`]. APM 2 15.14.1.
pub mod task_switch_info {
    pub const IRET: u64 = 1 << 36;
    pub const JUMP: u64 = 1 << 38;
    pub const HAS_ERROR_CODE: u64 = 1 << 44;
}

/// Registers. APM 2 15.30, appendix A.
pub mod msr {
    pub const VM_CR: u32 = 0xC001_0114;
    pub const IGNNE: u32 = 0xC001_0115;
    pub const SMM_CTL: u32 = 0xC001_0116;
    /// Physical address of the page in which VMRUN keeps the host's state.
    pub const VM_HSAVE_PA: u32 = 0xC001_0117;
    pub const SVM_KEY: u32 = 0xC001_0118;
    pub const TSC_RATIO: u32 = 0xC000_0104;
    pub const SYSCFG: u32 = 0xC001_0010;
    pub const HWCR: u32 = 0xC001_0015;
}

/// Bits of [`msr::VM_CR`]. APM 2 15.30.1.
pub mod vm_cr {
    pub const DISABLE_DEBUG_PORT: u64 = 1 << 0;
    /// INIT becomes the exception #SX, with error code 1. APM 2 15.21.8, 15.28.
    pub const REDIRECT_INIT: u64 = 1 << 1;
    pub const DISABLE_A20: u64 = 1 << 2;
    /// [`SVM_DISABLED`] and this bit are read-only until reset, or until [`msr::SVM_KEY`](super::msr::SVM_KEY) is written.
    pub const LOCK: u64 = 1 << 3;
    /// EFER.SVME cannot be set.
    pub const SVM_DISABLED: u64 = 1 << 4;
}

/// The bit of EFER that allows VMRUN. APM 2 3.1.7, 15.4.
pub const EFER_SVME: u64 = 1 << 12;

/// CPUID leaf of AMD-V: EAX 7:0 is its revision, EBX the number of address space identifiers, EDX [`SvmFeatures`]. APM 3
/// E.4.9.
pub const CPUID_LEAF: u32 = 0x8000_000A;

bitflags! {
    /// Leaf 0x8000_000A, EDX. APM 3 E.4.9.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SvmFeatures: u32 {
        const NESTED_PAGING = 1 << 0;
        const LAST_BRANCH = 1 << 1;
        const SVM_LOCK = 1 << 2;
        const NRIPS = 1 << 3;
        const TSC_RATIO = 1 << 4;
        const CLEAN_BITS = 1 << 5;
        const FLUSH_BY_ASID = 1 << 6;
        const DECODE_ASSISTS = 1 << 7;
        const PMC = 1 << 8;
        const PAUSE_FILTER = 1 << 10;
        const PAUSE_FILTER_THRESHOLD = 1 << 12;
        const AVIC = 1 << 13;
        const VMLOAD_VMSAVE = 1 << 15;
        const VIRTUAL_GIF = 1 << 16;
        const GMET = 1 << 17;
        const X2AVIC = 1 << 18;
        const SUPERVISOR_SHADOW_STACK = 1 << 19;
        const SPEC_CTRL = 1 << 20;
        const READ_ONLY_PAGE_TABLES = 1 << 21;
        const HOST_MACHINE_CHECK = 1 << 23;
        const TLB_INSTRUCTIONS = 1 << 24;
        const VIRTUAL_NMI = 1 << 25;
        const IBS = 1 << 26;
        const EXTENDED_LVT = 1 << 27;
        const VMCB_ADDRESS_CHECK = 1 << 28;
        const BUS_LOCK_THRESHOLD = 1 << 29;
        const IDLE_HLT = 1 << 30;
    }
}

/// The I/O permission map: one bit a port, set where an access exits; three more for accesses that begin at the last ports. APM 2
/// 15.10.1.
pub mod iopm {
    pub const BYTES: usize = 3 * 4096;
}

/// The MSR permission map: two bits an MSR, read and write, in three ranges of 2 KiB. Other MSRs always exit. APM 2 15.11.
pub mod msrpm {
    pub const BYTES: usize = 2 * 4096;
    pub const READ: u8 = 1;
    pub const WRITE: u8 = 2;
    /// MSRs in a range.
    pub const RANGE: u32 = 0x2000;
    /// First MSR of each range, and the first byte of its bits.
    pub const RANGES: [(u32, usize); 3] = [(0, 0), (0xC000_0000, 0x800), (0xC001_0000, 0x1000)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_and_each_name_is_there_once() {
        for (index, (code, text)) in ALL.iter().enumerate() {
            assert_eq!(name(*code), Some(*text), "{code:#x} is in a group too");
            for (other, words) in &ALL[..index] {
                assert!(code != other && text != words, "{code:#x} {text}, {other:#x} {words}");
            }
        }
    }

    #[test]
    fn codes_without_a_meaning_have_no_name() {
        for code in [0xA7, 0x3FF, 0x404, u64::MAX - 4] {
            assert_eq!(name(code), None, "{code:#x}");
        }
    }

    #[test]
    fn groups_begin_where_their_names_do() {
        let groups = [
            (group::CR_READ, 16),
            (group::CR_WRITE, 16),
            (group::DR_READ, 16),
            (group::DR_WRITE, 16),
            (group::EXCEPTION, 32),
            (group::CR_WRITE_TRAP, 16),
        ];
        for (first, count) in groups {
            let own = name(first);
            assert!(own.is_some());
            assert!((first..first + count).all(|code| name(code) == own), "{first:#x}");
            assert_ne!(name(first + count), own);
            assert_ne!(first.checked_sub(1).and_then(name), own);
        }
    }

    /// An intercept's code is 60h, 80h or A0h and the number of its bit. APM 2 15.9, table C-1.
    #[test]
    fn intercepts_stand_in_the_order_of_their_codes() {
        use crate::vmcb::{intercept1, intercept2, intercept3};
        let code_of = |first: u64, bit: u32| first + u64::from(bit.trailing_zeros());
        assert_eq!(code_of(0x60, intercept1::VINTR), code::VINTR);
        assert_eq!(code_of(0x60, intercept1::CPUID), code::CPUID);
        assert_eq!(code_of(0x60, intercept1::HLT), code::HLT);
        assert_eq!(code_of(0x60, intercept1::MSR), code::MSR);
        assert_eq!(code_of(0x60, intercept1::SHUTDOWN), code::SHUTDOWN);
        assert_eq!(code_of(0x80, intercept2::VMMCALL), code::VMMCALL);
        assert_eq!(code_of(0x80, intercept2::WBINVD), code::WBINVD);
        assert_eq!(code_of(0x80, intercept2::XSETBV), code::XSETBV);
        assert_eq!(code_of(0x80, intercept2::EFER_WRITE_TRAP), code::EFER_WRITE_TRAP);
        assert_eq!(1 << intercept2::CR_WRITE_TRAP_SHIFT, intercept2::EFER_WRITE_TRAP << 1);
        assert_eq!(code_of(0xA0, intercept3::INVPCID), code::INVPCID);
        assert_eq!(code_of(0xA0, intercept3::IDLE_HLT), code::IDLE_HLT);
    }

    #[test]
    fn the_map_of_msrs_has_room_for_its_ranges() {
        for pair in msrpm::RANGES.windows(2) {
            let [(first, at), (next, behind)] = [pair[0], pair[1]];
            assert!(first + msrpm::RANGE <= next);
            assert_eq!(behind - at, msrpm::RANGE as usize / 4);
        }
        let (_, last) = msrpm::RANGES[2];
        assert!(last + msrpm::RANGE as usize / 4 <= msrpm::BYTES);
    }
}
