//! What CPUID says to a guest: a table that is built once and looked up with neither loop nor search.
//!
//! A whitelist: a feature is offered where the hypervisor enforces or switches what stands behind it, and
//! everything else reads as absent. A leaf above the highest one reads as zero (a processor would repeat its last basic leaf there,
//! which no software relies on).

use bulkhead_table::{PartitionId, abi};

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

/// What a partition's CPUID is made from, beside the machine's own.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// APIC id of its core.
    pub apic_id: u32,
    /// Declared TSC frequency in kHz.
    pub tsc_khz: u32,
    /// Its id.
    pub partition: PartitionId,
    /// Kind of its core.
    pub kind: CoreKind,
    /// XCR0 components that it may enable.
    pub xcr0_allowed: u64,
}

/// Where the answers of one leaf stand.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Index of sub-leaf 0 in the answers.
    first: u16,
    /// Number of sub-leaves that are not zero.
    count: u16,
    /// 0 where ECX is not looked at, all ones where it selects a sub-leaf.
    select: u32,
}

/// Leaves of one range (basic, hypervisor, extended) that can be answered.
const RANGE: usize = 32;
/// Four ranges, by the two highest bits of the leaf; the fourth stays empty.
const ROWS: usize = 4 * RANGE;
/// Power of two that holds every answer.
const ANSWERS: usize = 64;

/// Sub-leaves of leaf 4 at most: five levels of cache are more than there are.
const CACHES: u32 = 5;
/// Sub-leaves of leaf 0xD: up to the highest component that is ever offered (bit 7).
const COMPONENTS: u32 = 8;
/// The legacy area and the header of an XSAVE area, in bytes. SDM 1 13.4.
const XSAVE_BASE: u32 = 576;

/// CPUID of one partition.
#[derive(Clone, Debug)]
pub struct CpuidPolicy {
    rows: [Row; ROWS],
    answers: [Leaf; ANSWERS],
    used: usize,
}

const ABSENT: Row = Row {
    first: 0,
    count: 0,
    select: 0,
};

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1, SSE4.2, x2APIC, MOVBE, POPCNT, TSC-deadline, AES, XSAVE,
/// AVX, F16C, RDRAND. SDM 2A CPUID, table 3-10.
const FEATURES_1_ECX: u32 = bits(&[
    0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 28, 29, 30,
]);
const HYPERVISOR: u32 = 1 << 31;
const OSXSAVE: u32 = 1 << 27;
/// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE-36, CLFSH, MMX, FXSR, SSE, SSE2, SS. SDM 2A
/// table 3-11.
const FEATURES_1_EDX: u32 = bits(&[
    0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27,
]);
/// Leaf 6 EAX: the APIC timer always runs.
const FEATURES_6_EAX: u32 = bits(&[2]);
/// Leaf 7 EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA, and the AVX-512 family.
const FEATURES_7_EBX: u32 = bits(&[0, 3, 5, 7, 8, 9, 10, 18, 19, 20, 23, 24, 29]) | AVX_512_7_EBX;
const AVX_512_7_EBX: u32 = bits(&[16, 17, 21, 28, 30, 31]);
/// Leaf 7 ECX: UMIP, GFNI, VAES, VPCLMULQDQ, RDPID, and the AVX-512 family.
const FEATURES_7_ECX: u32 = bits(&[2, 8, 9, 10, 22]) | AVX_512_7_ECX;
const AVX_512_7_ECX: u32 = bits(&[1, 6, 11, 12, 14]);
/// Leaf 7 EDX: fast short REP MOV.
const FEATURES_7_EDX: u32 = bits(&[4]);
/// AVX's own bits: FMA, AVX, F16C in leaf 1 ECX; AVX2; VAES, VPCLMULQDQ.
const AVX_1_ECX: u32 = bits(&[12, 28, 29]);
const AVX_7_EBX: u32 = bits(&[5]);
const AVX_7_ECX: u32 = bits(&[9, 10]);
/// Leaf 0xD.1 EAX: XSAVEOPT, XSAVEC, XGETBV with ECX = 1. XSAVES is not: IA32_XSS is not switched.
const FEATURES_D1_EAX: u32 = bits(&[0, 1, 2]);
/// Leaf 0x80000001: LAHF, LZCNT, PREFETCHW; SYSCALL, NX, 1-GByte pages, RDTSCP, 64-bit mode.
const FEATURES_EXT_ECX: u32 = bits(&[0, 5, 8]);
const FEATURES_EXT_EDX: u32 = bits(&[11, 20, 26, 27, 29]);
/// Leaf 0x80000007 EDX: invariant TSC.
const FEATURES_EXT7_EDX: u32 = bits(&[8]);

const HIGHEST_BASIC: u32 = 0xD;
const HIGHEST_EXTENDED: u32 = 0x8000_0008;
const XCR0_AVX: u64 = 1 << 2;
const XCR0_AVX_512: u64 = 0b111 << 5;

const fn bits(numbers: &[u32]) -> u32 {
    let (mut word, mut index) = (0, 0);
    while index < numbers.len() {
        word |= 1 << numbers[index];
        index += 1;
    }
    word
}

const fn row_of(leaf: u32) -> usize {
    (leaf >> 25 & 0x60 | leaf & 31) as usize
}

impl CpuidPolicy {
    /// Builds the table from the machine's CPUID (`host`, by leaf and sub-leaf) and the partition's facts.
    pub fn build(host: impl Fn(u32, u32) -> Leaf, facts: &Facts) -> Self {
        // Answer 0 is the zero that absent leaves share.
        let mut policy = Self {
            rows: [ABSENT; ROWS],
            answers: [Leaf::default(); ANSWERS],
            used: 1,
        };
        policy.add_basic(&host, facts);
        policy.add_topology(&host, facts);
        policy.add_extended_state(&host, facts);
        policy.add_hypervisor(facts);
        policy.add_extended(&host);
        policy.set_xcr0(1);
        policy
    }

    /// The answer to CPUID with EAX = `leaf` and ECX = `sub`.
    #[inline(always)]
    #[must_use]
    pub fn lookup(&self, leaf: u32, sub: u32) -> Leaf {
        // Leaves that differ from a row's own in the middle bits would alias it.
        const BETWEEN: u32 = 0x3FFF_FFE0;
        let row = self.rows[row_of(leaf) & (ROWS - 1)];
        let sub = sub & row.select;
        let present = leaf & BETWEEN == 0 && sub < u32::from(row.count);
        let index = if present {
            usize::from(row.first) + sub as usize
        } else {
            0
        };
        self.answers[index & (ANSWERS - 1)]
    }

    /// Follows the guest's CR4.OSXSAVE, which leaf 1 shows.
    pub fn set_osxsave(&mut self, on: bool) {
        if let Some(answer) = self.answer_mut(1, 0) {
            answer.ecx = if on {
                answer.ecx | OSXSAVE
            } else {
                answer.ecx & !OSXSAVE
            };
        }
    }

    /// Follows the guest's XCR0, which leaf 0xD shows as the size of the XSAVE area.
    pub fn set_xcr0(&mut self, xcr0: u64) {
        let (mut standard, mut compact) = (XSAVE_BASE, XSAVE_BASE);
        for component in (2..COMPONENTS).filter(|component| xcr0 >> component & 1 == 1) {
            let leaf = self.lookup(0xD, component);
            let aligned = leaf.ecx >> 1 & 1 == 1;
            standard = standard.max(leaf.ebx.saturating_add(leaf.eax));
            compact = if aligned {
                compact.next_multiple_of(64)
            } else {
                compact
            };
            compact = compact.saturating_add(leaf.eax);
        }
        if let Some(answer) = self.answer_mut(0xD, 0) {
            answer.ebx = standard;
        }
        if let Some(answer) = self.answer_mut(0xD, 1)
            && answer.eax & 2 != 0
        {
            answer.ebx = compact;
        }
    }

    fn answer_mut(&mut self, leaf: u32, sub: u32) -> Option<&mut Leaf> {
        let row = self.rows.get(row_of(leaf))?;
        (sub < u32::from(row.count)).then_some(())?;
        self.answers.get_mut(usize::from(row.first) + sub as usize)
    }

    fn add(&mut self, leaf: u32, answer: Leaf) {
        self.add_all(leaf, 0, &[answer]);
    }

    fn add_indexed(&mut self, leaf: u32, answers: &[Leaf]) {
        self.add_all(leaf, u32::MAX, answers);
    }

    /// The number of answers is bounded by the constants above; a test fills the table from a machine with all of them.
    fn add_all(&mut self, leaf: u32, select: u32, answers: &[Leaf]) {
        let end = self.used + answers.len();
        if let (Some(row), Some(place)) = (
            self.rows.get_mut(row_of(leaf)),
            self.answers.get_mut(self.used..end),
        ) {
            place.copy_from_slice(answers);
            *row = Row {
                first: self.used as u16,
                count: answers.len() as u16,
                select,
            };
            self.used = end;
        }
    }

    fn add_basic(&mut self, host: &impl Fn(u32, u32) -> Leaf, facts: &Facts) {
        let highest = host(0, 0);
        self.add(
            0,
            Leaf {
                eax: highest.eax.min(HIGHEST_BASIC),
                ..highest
            },
        );
        let avx = facts.xcr0_allowed & XCR0_AVX != 0;
        let avx_512 = facts.xcr0_allowed & XCR0_AVX_512 == XCR0_AVX_512;
        let leaf = host(1, 0);
        const CLFLUSH_SIZE: u32 = 0xFF00;
        self.add(
            1,
            Leaf {
                eax: leaf.eax,
                ebx: leaf.ebx & CLFLUSH_SIZE | 1 << 16 | facts.apic_id << 24,
                ecx: without(leaf.ecx & FEATURES_1_ECX, AVX_1_ECX, avx) | HYPERVISOR,
                edx: leaf.edx & FEATURES_1_EDX,
            },
        );
        self.add(2, host(2, 0));
        self.add(
            6,
            Leaf {
                eax: host(6, 0).eax & FEATURES_6_EAX,
                ..Leaf::default()
            },
        );
        let leaf = host(7, 0);
        let ebx = without(leaf.ebx & FEATURES_7_EBX, AVX_7_EBX, avx);
        let ecx = without(leaf.ecx & FEATURES_7_ECX, AVX_7_ECX, avx);
        let answer = Leaf {
            eax: 0,
            ebx: without(ebx, AVX_512_7_EBX, avx_512),
            ecx: without(ecx, AVX_512_7_ECX, avx_512),
            edx: leaf.edx & FEATURES_7_EDX,
        };
        self.add_indexed(7, &[answer]);
    }

    /// One package with one core with one thread: leaves 4 and 0xB.
    fn add_topology(&mut self, host: &impl Fn(u32, u32) -> Leaf, facts: &Facts) {
        /// Leaf 4 EAX without the numbers of sharing threads and of cores.
        const CACHE_KIND: u32 = 0x3FFF;
        let mut caches = [Leaf::default(); CACHES as usize];
        let mut count = 0;
        for (sub, place) in (0..CACHES).zip(&mut caches) {
            let leaf = host(4, sub);
            if leaf.eax & 0x1F == 0 {
                break;
            }
            *place = Leaf {
                eax: leaf.eax & CACHE_KIND,
                ..leaf
            };
            count += 1;
        }
        self.add_indexed(4, caches.get(..count).unwrap_or_default());
        let level = |ebx, ecx| Leaf {
            eax: 0,
            ebx,
            ecx,
            edx: facts.apic_id,
        };
        self.add_indexed(0xB, &[level(1, 1 << 8), level(1, 2 << 8 | 1), level(0, 2)]);
    }

    fn add_extended_state(&mut self, host: &impl Fn(u32, u32) -> Leaf, facts: &Facts) {
        let allowed = facts.xcr0_allowed;
        let mut answers = [Leaf::default(); COMPONENTS as usize];
        let mut largest = XSAVE_BASE;
        for (component, place) in (0..COMPONENTS).zip(&mut answers).skip(2) {
            if allowed >> component & 1 == 1 {
                *place = Leaf {
                    edx: 0,
                    ..host(0xD, component)
                };
                largest = largest.max(place.ebx.saturating_add(place.eax));
            }
        }
        answers[0] = Leaf {
            eax: allowed as u32,
            ebx: XSAVE_BASE,
            ecx: largest,
            edx: (allowed >> 32) as u32,
        };
        answers[1] = Leaf {
            eax: host(0xD, 1).eax & FEATURES_D1_EAX,
            ..Leaf::default()
        };
        self.add_indexed(0xD, &answers);
    }

    fn add_hypervisor(&mut self, facts: &Facts) {
        let [b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = abi::CPUID_SIGNATURE;
        self.add(
            abi::CPUID_BASE,
            Leaf {
                eax: abi::CPUID_TIMING,
                ebx: u32::from_le_bytes([b0, b1, b2, b3]),
                ecx: u32::from_le_bytes([c0, c1, c2, c3]),
                edx: u32::from_le_bytes([d0, d1, d2, d3]),
            },
        );
        let kind = match facts.kind {
            CoreKind::Dedicated => abi::core_kind::DEDICATED,
            CoreKind::Shared => abi::core_kind::SHARED,
        };
        self.add(
            abi::CPUID_INTERFACE,
            Leaf {
                eax: abi::VERSION,
                ebx: u32::from(facts.partition),
                ecx: kind,
                edx: 0,
            },
        );
        // The virtual timer of a time-shared core counts TSC ticks; the frequency of a real one is not known.
        let timer_khz = if facts.kind == CoreKind::Shared {
            facts.tsc_khz
        } else {
            0
        };
        self.add(
            abi::CPUID_TIMING,
            Leaf {
                eax: facts.tsc_khz,
                ebx: timer_khz,
                ..Leaf::default()
            },
        );
    }

    fn add_extended(&mut self, host: &impl Fn(u32, u32) -> Leaf) {
        let highest = host(0x8000_0000, 0)
            .eax
            .clamp(0x8000_0000, HIGHEST_EXTENDED);
        self.add(
            0x8000_0000,
            Leaf {
                eax: highest,
                ..Leaf::default()
            },
        );
        for leaf in 0x8000_0001..=highest {
            let found = host(leaf, 0);
            let answer = match leaf {
                0x8000_0001 => Leaf {
                    ecx: found.ecx & FEATURES_EXT_ECX,
                    edx: found.edx & FEATURES_EXT_EDX,
                    ..Leaf::default()
                },
                // The brand string and the second-level cache.
                0x8000_0002..=0x8000_0004 | 0x8000_0006 => found,
                0x8000_0007 => Leaf {
                    edx: found.edx & FEATURES_EXT7_EDX,
                    ..Leaf::default()
                },
                // Physical and linear address widths.
                0x8000_0008 => Leaf {
                    eax: found.eax & 0xFFFF,
                    ..Leaf::default()
                },
                _ => Leaf::default(),
            };
            self.add(leaf, answer);
        }
    }
}

const fn without(word: u32, bits: u32, keep: bool) -> u32 {
    if keep { word } else { word & !bits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A machine that has everything: every bit of every leaf set, and caches without end.
    fn everything(leaf: u32, sub: u32) -> Leaf {
        match (leaf, sub) {
            (0, _) => Leaf {
                eax: 0x20,
                ebx: 1,
                ecx: 2,
                edx: 3,
            },
            (0x8000_0000, _) => Leaf {
                eax: 0x8000_0021,
                ..Leaf::default()
            },
            (0xD, 2) => Leaf {
                eax: 256,
                ebx: 576,
                ecx: 0,
                edx: 0,
            },
            (0xD, 5) => Leaf {
                eax: 64,
                ebx: 1088,
                ecx: 0,
                edx: 0,
            },
            (0xD, 6) => Leaf {
                eax: 512,
                ebx: 1152,
                ecx: 0,
                edx: 0,
            },
            (0xD, 7) => Leaf {
                eax: 1024,
                ebx: 1664,
                ecx: 0,
                edx: 0,
            },
            _ => Leaf {
                eax: u32::MAX,
                ebx: u32::MAX,
                ecx: u32::MAX,
                edx: u32::MAX,
            },
        }
    }

    fn facts() -> Facts {
        Facts {
            apic_id: 3,
            tsc_khz: 50_000,
            partition: 7,
            kind: CoreKind::Dedicated,
            xcr0_allowed: 0xE7,
        }
    }

    fn policy() -> CpuidPolicy {
        CpuidPolicy::build(everything, &facts())
    }

    #[test]
    fn the_fullest_machine_fits_the_table() {
        let policy = policy();
        assert!(policy.used <= ANSWERS);
        assert_ne!(policy.lookup(HIGHEST_EXTENDED, 0), Leaf::default());
        assert_eq!(policy.rows.iter().filter(|row| row.count > 0).count(), 20);
    }

    #[test]
    fn what_is_not_enforced_is_not_offered() {
        let policy = policy();
        let leaf = policy.lookup(1, 0);
        for (bit, name) in [
            (3, "MONITOR"),
            (5, "VMX"),
            (6, "SMX"),
            (15, "PDCM"),
            (27, "OSXSAVE"),
        ] {
            assert_eq!(leaf.ecx >> bit & 1, 0, "{name}");
        }
        for (bit, name) in [
            (7, "MCE"),
            (12, "MTRR"),
            (14, "MCA"),
            (28, "HTT"),
            (29, "TM"),
        ] {
            assert_eq!(leaf.edx >> bit & 1, 0, "{name}");
        }
        let leaf = policy.lookup(7, 0);
        for (bit, name) in [
            (1, "TSC_ADJUST"),
            (2, "SGX"),
            (4, "HLE"),
            (11, "RTM"),
            (12, "RDT-M"),
            (15, "RDT-A"),
            (25, "PT"),
        ] {
            assert_eq!(leaf.ebx >> bit & 1, 0, "{name}");
        }
        for (bit, name) in [
            (3, "PKU"),
            (5, "WAITPKG"),
            (7, "CET"),
            (16, "LA57"),
            (31, "PKS"),
        ] {
            assert_eq!(leaf.ecx >> bit & 1, 0, "{name}");
        }
        assert_eq!(policy.lookup(0xD, 1).eax & 8, 0, "XSAVES");
        for leaf in [
            3,
            5,
            9,
            0xA,
            0xC,
            0xE,
            0x10,
            0x14,
            0x15,
            0x16,
            0x1F,
            0x8000_0009,
        ] {
            assert_eq!(policy.lookup(leaf, 0), Leaf::default(), "{leaf:#x}");
        }
    }

    #[test]
    fn a_guest_sees_one_core_and_its_own_id() {
        let policy = policy();
        assert_eq!(policy.lookup(1, 0).ebx >> 16, 3 << 8 | 1);
        assert_eq!(policy.lookup(4, 0).eax >> 14, 0);
        assert_eq!(policy.lookup(0xB, 0).edx, 3);
        assert_eq!(policy.lookup(0xB, 1).ecx, 2 << 8 | 1);
    }

    #[test]
    fn live_bits_follow_the_guest() {
        let mut policy = policy();
        assert_eq!(policy.lookup(0xD, 0).ebx, 576);
        assert_eq!(policy.lookup(0xD, 0).ecx, 2688);
        policy.set_xcr0(0b111);
        assert_eq!(policy.lookup(0xD, 0).ebx, 832);
        policy.set_xcr0(0xE7);
        assert_eq!(policy.lookup(0xD, 0).ebx, 2688);
        assert_eq!(policy.lookup(0xD, 1).ebx, 576 + 256 + 64 + 512 + 1024);
        policy.set_osxsave(true);
        assert_ne!(policy.lookup(1, 0).ecx & OSXSAVE, 0);
        policy.set_osxsave(false);
        assert_eq!(policy.lookup(1, 0).ecx & OSXSAVE, 0);
    }

    #[test]
    fn without_avx_its_whole_family_is_absent() {
        let policy = CpuidPolicy::build(
            everything,
            &Facts {
                xcr0_allowed: 0b11,
                ..facts()
            },
        );
        assert_eq!(policy.lookup(1, 0).ecx & AVX_1_ECX, 0);
        assert_eq!(policy.lookup(7, 0).ebx & (AVX_7_EBX | AVX_512_7_EBX), 0);
        assert_eq!(policy.lookup(0xD, 2), Leaf::default());
    }

    #[test]
    fn the_hypervisor_introduces_itself() {
        let policy = policy();
        assert_eq!(
            policy.lookup(abi::CPUID_BASE, 0).ebx.to_le_bytes(),
            *b"Bulk"
        );
        assert_eq!(policy.lookup(abi::CPUID_INTERFACE, 0).ebx, 7);
        assert_eq!(policy.lookup(abi::CPUID_TIMING, 0).eax, 50_000);
    }

    #[test]
    fn leaves_without_sub_leaves_ignore_ecx() {
        let policy = policy();
        assert_eq!(policy.lookup(1, 99), policy.lookup(1, 0));
        assert_eq!(policy.lookup(7, 1), Leaf::default());
    }

    #[test]
    fn whatever_is_offered_is_on_the_list() {
        use hv_defs::cpuid::{
            Features1Ecx as C, Features1Edx as D, Features7Ebx as B7, Features7Ecx as C7,
            Features7Edx as D7,
        };
        let policy = policy();
        let leaf = policy.lookup(1, 0);
        let hidden = C::DTES64
            | C::MONITOR
            | C::DS_CPL
            | C::VMX
            | C::SMX
            | C::EIST
            | C::TM2
            | C::SDBG
            | C::PDCM
            | C::DCA
            | C::OSXSAVE;
        assert_eq!(C::from_bits_retain(leaf.ecx) & hidden, C::empty());
        assert!(
            C::from_bits_retain(leaf.ecx)
                .contains(C::X2APIC | C::TSC_DEADLINE | C::XSAVE | C::AVX | C::AES | C::HYPERVISOR)
        );
        let hidden = D::MCE | D::MTRR | D::MCA | D::DS | D::ACPI | D::HTT | D::TM | D::PBE;
        assert_eq!(D::from_bits_retain(leaf.edx) & hidden, D::empty());
        assert_eq!(leaf.edx, 0x0F8B_AB7F, "no unnamed bit either");
        let leaf = policy.lookup(7, 0);
        let hidden = B7::TSC_ADJUST
            | B7::SGX
            | B7::HLE
            | B7::RTM
            | B7::RDT_MONITORING
            | B7::MPX
            | B7::RDT_ALLOCATION
            | B7::PROCESSOR_TRACE;
        assert_eq!(B7::from_bits_retain(leaf.ebx) & hidden, B7::empty());
        assert!(
            B7::from_bits_retain(leaf.ebx)
                .contains(B7::AVX2 | B7::AVX512F | B7::AVX512VL | B7::INVPCID | B7::SMEP)
        );
        let hidden = C7::PKU
            | C7::OSPKE
            | C7::WAITPKG
            | C7::CET_SHADOW_STACKS
            | C7::TME
            | C7::LA57
            | C7::KEY_LOCKER
            | C7::BUS_LOCK_DETECT
            | C7::ENQCMD
            | C7::SGX_LAUNCH_CONTROL
            | C7::PKS;
        assert_eq!(C7::from_bits_retain(leaf.ecx) & hidden, C7::empty());
        assert_eq!(
            D7::from_bits_retain(leaf.edx),
            D7::FAST_SHORT_REP_MOV,
            "no speculation control, AMX, CET, UINTR"
        );
    }

    #[test]
    fn without_avx_512_state_avx_stays() {
        let policy = CpuidPolicy::build(
            everything,
            &Facts {
                xcr0_allowed: 0b111,
                ..facts()
            },
        );
        let leaf = policy.lookup(7, 0);
        assert_eq!(leaf.ebx & (AVX_7_EBX | AVX_512_7_EBX), AVX_7_EBX);
        assert_eq!(leaf.ecx & (AVX_7_ECX | AVX_512_7_ECX), AVX_7_ECX);
        assert_eq!(
            policy.lookup(0xD, 0),
            Leaf {
                eax: 0b111,
                ebx: 576,
                ecx: 832,
                edx: 0
            }
        );
        assert_eq!(policy.lookup(0xD, 5), Leaf::default());
    }

    #[test]
    fn aligned_components_start_on_64_bytes_in_compacted_form() {
        let aligned = |leaf: u32, sub: u32| match (leaf, sub) {
            (0xD, 6 | 7) => Leaf {
                ecx: 2,
                ..everything(leaf, sub)
            },
            (0xD, 5) => Leaf {
                eax: 72,
                ..everything(leaf, sub)
            },
            _ => everything(leaf, sub),
        };
        let mut policy = CpuidPolicy::build(aligned, &facts());
        policy.set_xcr0(0xE7);
        // 576 + 256 + 72 = 904, up to 960, + 512 = 1472, + 1024.
        assert_eq!(policy.lookup(0xD, 1).ebx, 2496);
    }

    #[test]
    fn sub_leaves_end_where_they_end() {
        let policy = policy();
        for (leaf, sub) in [
            (4, CACHES),
            (7, u32::MAX),
            (0xB, 3),
            (0xD, 3),
            (0xD, 8),
            (0xD, 62),
            (0xD, 1 << 31),
        ] {
            assert_eq!(policy.lookup(leaf, sub), Leaf::default(), "{leaf:#x}.{sub}");
        }
        assert_eq!(
            policy.lookup(0xB, 2),
            Leaf {
                eax: 0,
                ebx: 0,
                ecx: 2,
                edx: 3
            }
        );
    }

    #[test]
    fn a_poor_machine_offers_little() {
        let poor = |leaf: u32, _: u32| match leaf {
            0 => Leaf {
                eax: 7,
                ..Leaf::default()
            },
            0x8000_0000 => Leaf {
                eax: 0x8000_0004,
                ..Leaf::default()
            },
            _ => Leaf::default(),
        };
        let policy = CpuidPolicy::build(poor, &facts());
        assert_eq!(policy.lookup(0, 0).eax, 7);
        assert_eq!(policy.lookup(1, 0).ecx, HYPERVISOR);
        assert_eq!(policy.lookup(0x8000_0008, 0), Leaf::default());
    }

    proptest! {
        #[test]
        fn no_leaf_aliases_another(leaf: u32, sub: u32) {
            let policy = policy();
            let known = matches!(leaf, 0..=0xD | 0x4000_0000..=0x4000_0010 | 0x8000_0000..=0x8000_0008);
            prop_assume!(!known);
            prop_assert_eq!(policy.lookup(leaf, sub), Leaf::default());
        }
    }
}
