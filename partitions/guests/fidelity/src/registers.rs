//! Every register but the general ones and the vectors: how it is read and written, and which values it may have.

use guest_rt::cpuid;
use guest_rt::hostile::{self, Fault};
use guest_rt::registers::{self as raw, Debug, Selector, Table};

use crate::random::Random;

/// One register.
pub struct Register {
    /// As a report names it.
    pub name: &'static str,
    kind: Kind,
    values: Values,
}

/// Where it is.
#[derive(Clone, Copy)]
enum Kind {
    Msr(u32),
    Selector(Selector),
    Limit(Table),
    Debug(Debug),
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Xcr0,
    Cr0,
}

/// Which values it may have.
#[derive(Clone, Copy)]
enum Values {
    /// These bits at random, the others as they are at the start.
    Bits(u64),
    /// Any canonical address.
    Canonical,
    /// A canonical address that this guest never touches.
    Untouched,
    /// A memory type in each byte; the first is that of the guest's own pages and stays.
    MemoryTypes,
    /// A null selector, or one of the data segment.
    DataSelector,
    /// A null selector.
    NullSelector,
    /// Some bytes more than at the start.
    Longer,
    /// Breakpoints of all kinds, switched on and off.
    Breakpoints,
    /// A set of components that the processor takes.
    Components,
    /// The root of one of two page tables, with the bits that do not count.
    PageTables,
}

const fn msr(name: &'static str, index: u32, values: Values) -> Register {
    Register { name, kind: Kind::Msr(index), values }
}

const fn selector(name: &'static str, which: Selector, values: Values) -> Register {
    Register { name, kind: Kind::Selector(which), values }
}

const fn debug(name: &'static str, which: Debug, values: Values) -> Register {
    Register { name, kind: Kind::Debug(which), values }
}

const LOW_32: Values = Values::Bits(0xFFFF_FFFF);
const ALL: Values = Values::Bits(u64::MAX);
/// EFER.SCE and EFER.NXE.
const EFER_BITS: u64 = 1 | 1 << 11;
/// CR0.MP, TS, WP, AM.
const CR0_BITS: u64 = 1 << 1 | 1 << 3 | 1 << 16 | 1 << 18;
/// CR4.VME, PVI, TSD, DE, PSE, PGE, PCE, UMIP, FSGSBASE. Not SMEP and SMAP: the guest's own pages are ring 3's too.
const CR4_BITS: u64 = 0x9F | 1 << 8 | 1 << 11 | 1 << 16;
/// Masked entries of the local vector table: vector and nothing else at random.
const VECTOR: Values = Values::Bits(0xFF);
const DR6_BITS: u64 = 0xE00F;

/// Every register, in the order in which they are written: a selector before the base that it would overwrite, breakpoints'
/// addresses before their switches, CR0 last because its TS bit closes the vectors.
pub static REGISTERS: [Register; 36] = [
    selector("ds", Selector::Ds, Values::DataSelector),
    selector("es", Selector::Es, Values::DataSelector),
    selector("fs", Selector::Fs, Values::DataSelector),
    selector("gs", Selector::Gs, Values::DataSelector),
    selector("ldtr", Selector::Ldtr, Values::NullSelector),
    Register { name: "gdtr-limit", kind: Kind::Limit(Table::Gdtr), values: Values::Longer },
    Register { name: "idtr-limit", kind: Kind::Limit(Table::Idtr), values: Values::Longer },
    msr("sysenter-cs", 0x174, LOW_32),
    msr("sysenter-esp", 0x175, Values::Canonical),
    msr("sysenter-eip", 0x176, Values::Canonical),
    msr("pat", 0x277, Values::MemoryTypes),
    msr("spec-ctrl", 0x48, Values::Bits(0b111)),
    msr("xss", 0xDA0, ALL),
    msr("efer", 0xC000_0080, Values::Bits(EFER_BITS)),
    msr("star", 0xC000_0081, ALL),
    msr("lstar", 0xC000_0082, Values::Canonical),
    msr("cstar", 0xC000_0083, Values::Canonical),
    msr("fmask", 0xC000_0084, LOW_32),
    msr("fs-base", 0xC000_0100, Values::Canonical),
    msr("gs-base", 0xC000_0101, Values::Canonical),
    msr("kernel-gs-base", 0xC000_0102, Values::Canonical),
    msr("tsc-aux", 0xC000_0103, LOW_32),
    msr("apic-lvt-lint0", 0x835, VECTOR),
    msr("apic-lvt-error", 0x837, VECTOR),
    msr("apic-divide", 0x83E, Values::Bits(0b1011)),
    debug("dr0", Debug::Dr0, Values::Untouched),
    debug("dr1", Debug::Dr1, Values::Untouched),
    debug("dr2", Debug::Dr2, Values::Untouched),
    debug("dr3", Debug::Dr3, Values::Untouched),
    debug("dr6", Debug::Dr6, Values::Bits(DR6_BITS)),
    debug("dr7", Debug::Dr7, Values::Breakpoints),
    Register { name: "cr2", kind: Kind::Cr2, values: ALL },
    Register { name: "cr3", kind: Kind::Cr3, values: Values::PageTables },
    Register { name: "cr4", kind: Kind::Cr4, values: Values::Bits(CR4_BITS) },
    Register { name: "cr8", kind: Kind::Cr8, values: Values::Bits(0xF) },
    Register { name: "xcr0", kind: Kind::Xcr0, values: Values::Components },
];

/// CR0, which is written last and put back first.
pub const CR0: Register = Register { name: "cr0", kind: Kind::Cr0, values: Values::Bits(CR0_BITS) };

impl Register {
    /// Its value.
    ///
    /// # Errors
    /// The [`Fault`] that answered.
    pub fn read(&self) -> Result<u64, Fault> {
        Ok(match self.kind {
            Kind::Msr(index) => hostile::read_msr(index)?,
            Kind::Selector(which) => raw::read_selector(which),
            Kind::Limit(which) => raw::read_limit(which),
            Kind::Debug(which) => raw::read_debug(which),
            Kind::Cr2 => raw::read_cr2(),
            Kind::Cr3 => hostile::read_cr3(),
            Kind::Cr4 => hostile::read_cr4(),
            Kind::Cr8 => raw::read_cr8(),
            Kind::Xcr0 => raw::read_xcr0(),
            Kind::Cr0 => hostile::read_cr0(),
        })
    }

    /// Gives it a value.
    ///
    /// # Errors
    /// The [`Fault`] that answered.
    pub fn write(&self, value: u64) -> Result<(), Fault> {
        match self.kind {
            Kind::Msr(index) => hostile::write_msr(index, value),
            Kind::Selector(which) => raw::write_selector(which, value),
            Kind::Limit(which) => {
                raw::write_limit(which, value as u16);
                Ok(())
            }
            Kind::Debug(which) => raw::write_debug(which, value),
            Kind::Cr2 => raw::write_cr2(value),
            Kind::Cr3 => hostile::write_cr3(value),
            Kind::Cr4 => hostile::write_cr4(value),
            Kind::Cr8 => raw::write_cr8(value),
            Kind::Xcr0 => hostile::write_extended_control(0, value),
            Kind::Cr0 => hostile::write_cr0(value),
        }
    }

    /// Whether this machine has it: CPUID offers what not every machine has, and where it does, a refusal is a fault.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        match self.name {
            "spec-ctrl" => speculation_control() != 0,
            "xss" => cpuid(0xD, 1).eax & 1 << 3 != 0,
            _ => true,
        }
    }

    /// A value that it takes; `start` is what it held at the guest's start.
    #[must_use]
    pub fn pattern(&self, random: &mut Random, start: u64) -> u64 {
        match self.values {
            Values::Bits(bits) => {
                let bits = bits & self.allowed();
                start & !bits | random.next() & bits
            }
            Values::Canonical => random.canonical(),
            // Above the lower half, of which the page tables map the first 4 GiB. Aligned for a breakpoint of any length.
            Values::Untouched => 0xFFFF_9000_0000_0000 | random.below(1 << 40) & !7,
            Values::MemoryTypes => memory_types(random),
            Values::DataSelector => match random.below(2) {
                0 => random.below(4),
                _ => raw::data_selector() & !3 | random.below(4),
            },
            Values::NullSelector => random.below(4),
            Values::Longer => start + random.below(256),
            Values::Breakpoints => breakpoints(random),
            Values::Components => components(random, start),
            Values::PageTables => {
                let root = match random.below(2) {
                    0 => start,
                    _ => hostile::second_page_tables(),
                };
                root | random.below(4) << 3 // write-through and cache disable, for the tables alone
            }
        }
    }

    /// Bits that only some machines have.
    fn allowed(&self) -> u64 {
        match self.name {
            "spec-ctrl" => speculation_control(),
            "xss" => {
                let found = cpuid(0xD, 1);
                u64::from(found.edx) << 32 | u64::from(found.ecx)
            }
            "cr4" => control_bits(),
            _ => u64::MAX,
        }
    }
}

/// Bits of CR4 that CPUID offers.
fn control_bits() -> u64 {
    let features = cpuid(7, 0);
    let umip = u64::from(features.ecx >> 2 & 1) << 11;
    let fs_gs_base = u64::from(features.ebx & 1) << 16;
    !(1 << 11 | 1 << 16) | umip | fs_gs_base
}

/// Bits of SPEC_CTRL that CPUID offers: IBRS, STIBP, SSBD.
fn speculation_control() -> u64 {
    let features = cpuid(7, 0).edx;
    u64::from(features >> 26 & 1 | (features >> 27 & 1) << 1 | (features >> 31 & 1) << 2)
}

fn memory_types(random: &mut Random) -> u64 {
    const TYPES: [u64; 6] = [0, 1, 4, 5, 6, 7];
    const WRITE_BACK: u64 = 6;
    let others = (1..8).fold(0, |all, byte| {
        let choice = random.below(TYPES.len() as u64) as usize;
        all | TYPES[choice] << (byte * 8)
    });
    others | WRITE_BACK
}

fn breakpoints(random: &mut Random) -> u64 {
    const RESERVED_ONE: u64 = 1 << 10;
    // Kind and length: execution of one byte; stores, loads and stores of any length.
    let choices = [0b0000, 0b0001, 0b0101, 0b1001, 0b1101, 0b0011, 0b0111, 0b1011, 0b1111];
    let kinds = (0..4).fold(0, |all, number| {
        let choice = random.below(choices.len() as u64) as usize;
        all | choices[choice] << (16 + number * 4)
    });
    kinds | RESERVED_ONE | random.below(1 << 10)
}

/// With or without AVX and AVX-512, as far as `start` has them.
fn components(random: &mut Random, start: u64) -> u64 {
    const CHOICES: [u64; 4] = [0b1, 0b11, 0b111, 0b1110_0111];
    CHOICES[random.below(4) as usize] & start | 1
}
