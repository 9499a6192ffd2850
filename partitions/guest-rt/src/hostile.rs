//! Instructions that a well-behaved guest has no use for: attempts at what is not the guest's, with the exception
//! that answers them returned as a value. For guests that test the hypervisor; feature `hostile`.
//!
//! These functions are safe to call in the sense that the machine defines what happens, but with the
//! wrong value a guest destroys itself: that is what they are for, and the hypervisor has to contain it.
#![expect(unsafe_code, reason = "executes what it must not")]

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::apic;
use crate::interrupts::{FAULT, RECOVERY, RETRY_FOR_EVER, user_segments};

pub use crate::apic::IpiKind;

/// #UD, invalid opcode.
pub const INVALID_OPCODE: u8 = 6;
/// #GP, general protection.
pub const GENERAL_PROTECTION: u8 = 13;

/// The exception that answered an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its vector.
    pub vector: u8,
    /// Its error code; 0 when it has none.
    pub error: u32,
}

/// Executes instructions of which an exception skips the rest; `Result<(), Fault>`.
macro_rules! attempt {
    ($($instruction:literal),+ $(; $($operand:tt)*)?) => {{
        $crate::interrupts::FAULT.store(0, core::sync::atomic::Ordering::Relaxed);
        // SAFETY: the exception handler resumes behind the instructions with every register as it was. What they do
        // to the machine is what the caller of this module asks for.
        unsafe {
            core::arch::asm!(
                "lea {resume}, [rip + 99f]",
                "mov [rip + {recovery}], {resume}",
                $($instruction,)+
                "99: mov qword ptr [rip + {recovery}], 0",
                resume = out(reg) _,
                recovery = sym $crate::interrupts::RECOVERY,
                $($($operand)*)?
            );
        }
        $crate::hostile::answer()
    }};
}
pub(crate) use attempt;

/// What the last attempt met.
pub(crate) fn answer() -> Result<(), Fault> {
    match FAULT.load(Ordering::Relaxed) {
        0 => Ok(()),
        fault => Err(Fault { vector: (fault >> 32) as u8, error: fault as u32 }),
    }
}

/// Reads an MSR.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn read_msr(index: u32) -> Result<u64, Fault> {
    let (low, high): (u32, u32);
    attempt!("rdmsr"; in("ecx") index, inout("eax") 0 => low, inout("edx") 0 => high)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Writes an MSR.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_msr(index: u32, value: u64) -> Result<(), Fault> {
    attempt!("wrmsr"; in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// Sends an inter-processor interrupt.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn send_ipi(target: u32, kind: IpiKind) -> Result<(), Fault> {
    write_interrupt_command(apic::command(target, kind))
}

/// Writes the raw interrupt command register.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_interrupt_command(value: u64) -> Result<(), Fault> {
    write_msr(0x830, value)
}

/// Width of an access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Double,
}

impl Width {
    /// What a read of this width gives where nothing answers.
    #[must_use]
    pub const fn all_ones(self) -> u32 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Double => 0xFFFF_FFFF,
        }
    }
}

/// Reads an I/O port.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn port_in(port: u16, width: Width) -> Result<u32, Fault> {
    let value: u32;
    match width {
        Width::Byte => attempt!("in al, dx"; in("dx") port, inout("eax") 0 => value),
        Width::Word => attempt!("in ax, dx"; in("dx") port, inout("eax") 0 => value),
        Width::Double => attempt!("in eax, dx"; in("dx") port, inout("eax") 0 => value),
    }?;
    Ok(value)
}

/// Writes an I/O port.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn port_out(port: u16, width: Width, value: u32) -> Result<(), Fault> {
    match width {
        Width::Byte => attempt!("out dx, al"; in("dx") port, in("eax") value),
        Width::Word => attempt!("out dx, ax"; in("dx") port, in("eax") value),
        Width::Double => attempt!("out dx, eax"; in("dx") port, in("eax") value),
    }
}

/// Writes one byte of its own to an I/O port by a string instruction.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn port_out_string(port: u16) -> Result<(), Fault> {
    static BYTE: u8 = 0;
    attempt!("outsb"; in("dx") port, inout("rsi") &raw const BYTE => _)
}

/// Reads a performance counter.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn read_counter() -> Result<(), Fault> {
    attempt!("rdpmc"; in("ecx") 0, out("eax") _, out("edx") _)
}

/// Executes an opcode that is undefined for ever.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn undefined() -> Result<(), Fault> {
    attempt!("ud2")
}

/// Ends the partition by the one call for it, without a verdict on the console. Where there is no hypervisor, halts.
pub fn finish() -> ! {
    crate::guest::finish_silently(true)
}

/// Reads CR0.
#[must_use]
pub fn read_cr0() -> u64 {
    x86_64::registers::control::Cr0::read_raw()
}

/// Writes CR0.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_cr0(value: u64) -> Result<(), Fault> {
    attempt!("mov cr0, {value}"; value = in(reg) value)
}

/// Reads CR4.
#[must_use]
pub fn read_cr4() -> u64 {
    x86_64::registers::control::Cr4::read_raw()
}

/// Writes CR4.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_cr4(value: u64) -> Result<(), Fault> {
    attempt!("mov cr4, {value}"; value = in(reg) value)
}

/// Writes an extended control register (XCR0 is 0). Needs CR4.OSXSAVE (bit 18).
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_extended_control(index: u32, value: u64) -> Result<(), Fault> {
    attempt!("xsetbv"; in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// Writes `value` to DR0 to DR3 and returns them as read back.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn exchange_debug_addresses(value: [u64; 4]) -> Result<[u64; 4], Fault> {
    let [mut a, mut b, mut c, mut d] = value;
    attempt!(
        "mov dr0, {a}", "mov dr1, {b}", "mov dr2, {c}", "mov dr3, {d}",
        "mov {a}, dr0", "mov {b}, dr1", "mov {c}, dr2", "mov {d}, dr3";
        a = inout(reg) a, b = inout(reg) b, c = inout(reg) c, d = inout(reg) d
    )?;
    Ok([a, b, c, d])
}

/// Writes back and invalidates the caches.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_back_caches() -> Result<(), Fault> {
    attempt!("wbinvd")
}

/// Reads eight bytes of memory.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn read_memory(address: u64) -> Result<u64, Fault> {
    let value: u64;
    attempt!("mov {value}, [{address}]"; address = in(reg) address, value = inout(reg) 0_u64 => value)?;
    Ok(value)
}

/// Writes eight bytes of memory, the guest's own included.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_memory(address: u64, value: u64) -> Result<(), Fault> {
    attempt!("mov [{address}], {value}"; address = in(reg) address, value = in(reg) value)
}

/// Writes `bytes` (a multiple of eight) of memory from `address` on, as fast as one instruction can.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn fill_memory(address: u64, bytes: u64, value: u64) -> Result<(), Fault> {
    attempt!("rep stosq"; inout("rdi") address => _, inout("rcx") bytes / 8 => _, in("rax") value)
}

/// Copies `bytes` of memory, in one instruction that moves them one at a time.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn copy_memory(to: u64, from: u64, bytes: u64) -> Result<(), Fault> {
    attempt!("rep movsb"; inout("rdi") to => _, inout("rsi") from => _, inout("rcx") bytes => _)
}

/// Ends the partition at once, without a word: judged as passed.
pub fn finish_at_once() -> ! {
    crate::guest::finish_silently(true)
}

/// Makes a hypercall that does not exist. Natively there is no hypercall at all.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn unknown_hypercall() -> Result<(), Fault> {
    attempt!("771: vmcall\n.pushsection .hypercall_sites, \"a\"\n.quad 771b\n.popsection"; inout("rax") 0xFFFF_u64 => _)
}

/// Says bytes on the console as they are, and waits while there is no room. Any vCPU may.
pub fn say(bytes: &[u8]) {
    crate::console::hypervisor_write(bytes);
}

/// Ends the partition without a line. Any vCPU may.
pub fn end(passed: bool) -> ! {
    crate::guest::finish_silently(passed)
}

/// Reads CR3.
#[must_use]
pub fn read_cr3() -> u64 {
    let (frame, flags) = x86_64::registers::control::Cr3::read_raw();
    frame.start_address().as_u64() | u64::from(flags)
}

/// Writes CR3.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn write_cr3(value: u64) -> Result<(), Fault> {
    attempt!("mov cr3, {value}"; value = in(reg) value)
}

/// A second root of the page tables, which maps the same.
pub fn second_page_tables() -> u64 {
    #[repr(align(4096))]
    struct Root(core::cell::UnsafeCell<[u64; 512]>);
    // SAFETY: written before its address is loaded into CR3, with the same entries each time, by whichever CPU.
    unsafe impl Sync for Root {}
    static ROOT: Root = Root(core::cell::UnsafeCell::new([0; 512]));
    let target = ROOT.0.get();
    let source = (read_cr3() & !0xFFF) as *const [u64; 512];
    if source != target.cast_const() {
        // SAFETY: CR3 names the root that start.s built, mapped one to one; the target is static and nobody holds a reference to it.
        unsafe { target.write_volatile(source.read_volatile()) };
    }
    target as u64
}

/// Maps what lies between 4 GiB and `end`, rounded up to whole GiB, one to one by pages of 1 GiB, which the processor must have.
pub fn map_up_to(end: u64) {
    /// Present, writable, for ring 3 too, a page by itself: SDM 3A 4.5.4.
    const LARGE: u64 = 0x87;
    let root = (read_cr3() & !0xFFF) as *const u64;
    // SAFETY: CR3 names the root that start.s built, and its first entry the one table of the third level; both are mapped one to one.
    // Entries that were empty are filled: nothing that is translated changes.
    unsafe {
        let third = (root.read_volatile() & !0xFFF) as *mut u64;
        for gibibyte in 4..end.div_ceil(1 << 30).min(512) {
            third.add(gibibyte as usize).write_volatile(gibibyte << 30 | LARGE);
        }
    }
}

/// Runs for ever in one instruction.
pub fn loop_for_ever() -> ! {
    // SAFETY: touches nothing.
    unsafe { asm!("2: jmp 2b", options(noreturn, nomem, nostack)) }
}

/// Shuts this CPU down: an exception with no table to handle it.
pub fn triple_fault() -> ! {
    let nothing = [0_u64; 2];
    // SAFETY: does not return.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const nothing, options(noreturn)) }
}

/// A descriptor table with one flat 32-bit code segment (selector 8), and its address as LGDT takes it.
#[repr(C, align(16))]
struct OneSegment {
    null: u64,
    code: u64,
}

static ONE_SEGMENT: OneSegment = OneSegment { null: 0, code: 0x00CF_9B00_0000_FFFF };

/// Leaves 64-bit mode for real mode, with no interrupt table, and reads an MSR that is refused there: the exception of an
/// instruction that the hypervisor answers, in the one mode that has no error codes.
pub fn real_mode_fault() -> ! {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: *const OneSegment,
    }
    let segments = Pointer { limit: 15, base: &raw const ONE_SEGMENT };
    let nothing = [0_u64; 2];
    // SAFETY: does not return; nothing of this guest runs behind it.
    unsafe {
        asm!(
            "cli",
            "lgdt [{segments}]",
            "lidt [{nothing}]",
            "push 8",
            "lea rax, [rip + 2f]",
            "push rax",
            "retfq",
            ".code32",
            "2:",
            "mov eax, cr0",
            "and eax, 0x7FFFFFFF",
            "mov cr0, eax",
            "and eax, 0xFFFFFFFE",
            "mov cr0, eax",
            "mov ecx, 0x9B",
            "rdmsr",
            "3: jmp 3b",
            ".code64",
            segments = in(reg) &raw const segments,
            nothing = in(reg) &raw const nothing,
            options(noreturn),
        )
    }
}

/// Takes the same exception again and again, for ever.
pub fn endless_exceptions() -> ! {
    RECOVERY.store(RETRY_FOR_EVER, Ordering::Relaxed);
    // SAFETY: the handler returns to the same instruction.
    unsafe { asm!("ud2", options(noreturn)) }
}

unsafe extern "C" {
    fn guest_ring3_vmcall(number: u64, code: u64, data: u64) -> u64;
}

/// Makes a hypercall from ring 3 and returns its RAX.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn vmcall_from_ring3(number: u64) -> Result<u64, Fault> {
    let Some(segments) = user_segments() else {
        return Err(Fault { vector: GENERAL_PROTECTION, error: 0 });
    };
    FAULT.store(0, Ordering::Relaxed);
    // SAFETY: ring 3 runs the two instructions of vectors.s and comes back by its gate.
    let returned =
        unsafe { guest_ring3_vmcall(number, u64::from(segments.code), u64::from(segments.data)) };
    RECOVERY.store(0, Ordering::Relaxed);
    answer().map(|()| returned)
}

/// An attempt, by its mnemonic.
pub type NamedAttempt = (&'static str, fn() -> Result<(), Fault>);

/// Every instruction of VMX that a guest without nested virtualization must find invalid (#UD).
pub const VMX_INSTRUCTIONS: [NamedAttempt; 12] = [
    ("vmxon", || with_operand(|operand| attempt!("vmxon [{operand}]"; operand = in(reg) operand))),
    ("vmclear", || {
        with_operand(|operand| attempt!("vmclear [{operand}]"; operand = in(reg) operand))
    }),
    ("vmptrld", || {
        with_operand(|operand| attempt!("vmptrld [{operand}]"; operand = in(reg) operand))
    }),
    ("vmptrst", || {
        with_operand(|operand| attempt!("vmptrst [{operand}]"; operand = in(reg) operand))
    }),
    ("vmlaunch", || attempt!("vmlaunch")),
    ("vmresume", || attempt!("vmresume")),
    ("vmxoff", || attempt!("vmxoff")),
    ("vmread", || attempt!("vmread {a}, {b}"; a = inout(reg) 0_u64 => _, b = in(reg) 0x4402_u64)),
    ("vmwrite", || attempt!("vmwrite {a}, {b}"; a = in(reg) 0x681E_u64, b = in(reg) 0_u64)),
    ("invept", || {
        with_operand(
            |operand| attempt!("invept {kind}, [{operand}]"; kind = in(reg) 2_u64, operand = in(reg) operand),
        )
    }),
    ("invvpid", || {
        with_operand(
            |operand| attempt!("invvpid {kind}, [{operand}]"; kind = in(reg) 2_u64, operand = in(reg) operand),
        )
    }),
    ("vmfunc", || attempt!("vmfunc"; in("eax") 0, in("ecx") 0)),
];

/// Hands a memory operand that names a physical page to an attempt.
fn with_operand(attempt: impl FnOnce(*mut [u64; 2]) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut operand = [0x20_0000, 0];
    attempt(&raw mut operand)
}
