//! Registers that ordinary guests leave alone: filling them, running with them, finding them again. For guests that test
//! whether a partition switch keeps them.
#![expect(unsafe_code, reason = "reads and writes privileged registers")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use crate::hostile::{Fault, attempt};

global_asm!(include_str!("spin.s"));

/// The general registers and the flags, as spin.s loads and stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct General {
    pub rax: u64,
    pub rbx: u64,
    /// Rounds of the loop; not 0. Reads 0 behind it.
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub extended: [u64; 8],
    pub rflags: u64,
}

const _: () = assert!(offset_of!(General, rflags) == 128);

/// What the loop of [`spin`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing that exits.
    Plain,
    /// PAUSE.
    Pause,
    /// A write to port 0x80, which exits under a hypervisor.
    Port,
    /// STI, CLI: interrupts are enabled, and none can come.
    Shadow,
}

unsafe extern "C" {
    fn guest_spin_plain(general: *const General) -> *const General;
    fn guest_spin_pause(general: *const General) -> *const General;
    fn guest_spin_port(general: *const General) -> *const General;
    fn guest_spin_shadow(general: *const General) -> *const General;
}

/// Bytes of the stack that [`stack`] points into.
const STACK_BYTES: usize = 4096;

/// Loads the registers, runs the loop, and returns what the registers held behind it. RFLAGS must not have TF set; with IF set, or
/// with [`Body::Shadow`], RSP must be one of [`stack`]'s, in case an interrupt comes after all.
#[must_use]
pub fn spin(body: Body, general: &General) -> General {
    // SAFETY: the loops touch no memory but their own variables, restore the registers that the calling convention keeps, and return a
    // pointer to a static image.
    unsafe {
        *match body {
            Body::Plain => guest_spin_plain(general),
            Body::Pause => guest_spin_pause(general),
            Body::Port => guest_spin_port(general),
            Body::Shadow => guest_spin_shadow(general),
        }
    }
}

/// A stack pointer for [`spin`] that an interrupt can run on, chosen by `seed`.
#[must_use]
pub fn stack(seed: u64) -> u64 {
    #[repr(align(16))]
    struct Stack(#[expect(dead_code, reason = "only its address is used")] [u8; STACK_BYTES]);
    // Written by the CPU only, so it must not lie in read-only memory.
    static mut STACK: Stack = Stack([0; STACK_BYTES]);
    let top = &raw const STACK as u64 + STACK_BYTES as u64;
    top - (seed % 64) * 16
}

/// Reads CR2.
#[must_use]
pub fn read_cr2() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}

/// Writes CR2.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_cr2(value: u64) -> Result<(), Fault> {
    attempt!("mov cr2, {value}"; value = in(reg) value)
}

/// Reads CR8.
#[must_use]
pub fn read_cr8() -> u64 {
    let value;
    // SAFETY: reading the task priority changes nothing.
    unsafe { asm!("mov {}, cr8", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes CR8.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_cr8(value: u64) -> Result<(), Fault> {
    attempt!("mov cr8, {value}"; value = in(reg) value)
}

/// Reads XCR0. Needs CR4.OSXSAVE.
#[must_use]
pub fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing; without OSXSAVE the exception ends the guest.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// A debug register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Debug {
    Dr0,
    Dr1,
    Dr2,
    Dr3,
    Dr6,
    Dr7,
}

/// Reads a debug register.
#[must_use]
pub fn read_debug(register: Debug) -> u64 {
    let value;
    // SAFETY: reading changes nothing while DR7.GD is clear, which only a guest itself sets.
    unsafe {
        match register {
            Debug::Dr0 => asm!("mov {}, dr0", out(reg) value, options(nomem, nostack)),
            Debug::Dr1 => asm!("mov {}, dr1", out(reg) value, options(nomem, nostack)),
            Debug::Dr2 => asm!("mov {}, dr2", out(reg) value, options(nomem, nostack)),
            Debug::Dr3 => asm!("mov {}, dr3", out(reg) value, options(nomem, nostack)),
            Debug::Dr6 => asm!("mov {}, dr6", out(reg) value, options(nomem, nostack)),
            Debug::Dr7 => asm!("mov {}, dr7", out(reg) value, options(nomem, nostack)),
        }
    }
    value
}

/// Writes a debug register.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_debug(register: Debug, value: u64) -> Result<(), Fault> {
    match register {
        Debug::Dr0 => attempt!("mov dr0, {value}"; value = in(reg) value),
        Debug::Dr1 => attempt!("mov dr1, {value}"; value = in(reg) value),
        Debug::Dr2 => attempt!("mov dr2, {value}"; value = in(reg) value),
        Debug::Dr3 => attempt!("mov dr3, {value}"; value = in(reg) value),
        Debug::Dr6 => attempt!("mov dr6, {value}"; value = in(reg) value),
        Debug::Dr7 => attempt!("mov dr7, {value}"; value = in(reg) value),
    }
}

/// A segment register whose selector means nothing to 64-bit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Selector {
    Ds,
    Es,
    Fs,
    Gs,
    Ldtr,
}

/// Reads a selector.
#[must_use]
pub fn read_selector(register: Selector) -> u64 {
    let value: u64;
    // SAFETY: reading changes nothing.
    unsafe {
        match register {
            Selector::Ds => asm!("mov {:e}, ds", out(reg) value, options(nomem, nostack)),
            Selector::Es => asm!("mov {:e}, es", out(reg) value, options(nomem, nostack)),
            Selector::Fs => asm!("mov {:e}, fs", out(reg) value, options(nomem, nostack)),
            Selector::Gs => asm!("mov {:e}, gs", out(reg) value, options(nomem, nostack)),
            Selector::Ldtr => asm!("sldt {:e}", out(reg) value, options(nomem, nostack)),
        }
    }
    value & 0xFFFF
}

/// Writes a selector. FS and GS get the base of the segment with it.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_selector(register: Selector, value: u64) -> Result<(), Fault> {
    match register {
        Selector::Ds => attempt!("mov ds, {value:e}"; value = in(reg) value),
        Selector::Es => attempt!("mov es, {value:e}"; value = in(reg) value),
        Selector::Fs => attempt!("mov fs, {value:e}"; value = in(reg) value),
        Selector::Gs => attempt!("mov gs, {value:e}"; value = in(reg) value),
        Selector::Ldtr => attempt!("lldt {value:x}"; value = in(reg) value),
    }
}

/// A register that points to a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Table {
    Gdtr,
    Idtr,
}

#[derive(Clone, Copy)]
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

fn read_table(register: Table) -> TablePointer {
    let mut pointer = TablePointer { limit: 0, base: 0 };
    // SAFETY: stores ten bytes into a variable of that layout.
    unsafe {
        match register {
            Table::Gdtr => asm!("sgdt [{}]", in(reg) &raw mut pointer, options(nostack)),
            Table::Idtr => asm!("sidt [{}]", in(reg) &raw mut pointer, options(nostack)),
        }
    }
    pointer
}

/// Reads the limit of a descriptor table.
#[must_use]
pub fn read_limit(register: Table) -> u64 {
    u64::from(read_table(register).limit)
}

/// Writes the limit of a descriptor table and leaves its base. Not below what it is at the guest's start: the table must hold what is
/// in use.
pub fn write_limit(register: Table, limit: u16) {
    let pointer = TablePointer { limit, ..read_table(register) };
    // SAFETY: the same table; behind its end lies memory of the guest that no selector or vector names.
    unsafe {
        match register {
            Table::Gdtr => asm!("lgdt [{}]", in(reg) &raw const pointer, options(nostack)),
            Table::Idtr => asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)),
        }
    }
}

/// A selector of a data segment that ring 0 may load too.
#[must_use]
pub fn data_selector() -> u64 {
    crate::interrupts::user_segments().map_or(0, |segments| u64::from(segments.data))
}
