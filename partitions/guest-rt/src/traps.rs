//! Debug exceptions where they hurt most, an instruction pointer that wraps, pages that change their size, and instructions that are slow for
//! everybody. For guests that test the hypervisor; feature `hostile`.
#![expect(unsafe_code, reason = "executes what it must not")]

use core::arch::{asm, global_asm};

use spin::Once;

use crate::hostile::{Fault, NamedAttempt, attempt, loop_for_ever};
use crate::interrupts::{Gates, fault_stack_top, load_gates, with_debug_on_fault_stack};

/// DR7 with nothing but its fixed bit.
const NO_BREAKPOINT: u64 = 0x400;
/// Breakpoint 0 on reads and writes of two bytes. SDM 3B 18.2.4.
const ON_TWO_BYTES: u64 = NO_BREAKPOINT | 1 | 0b0111 << 16;
/// Breakpoint 0 on writes of eight bytes.
const ON_WRITE: u64 = NO_BREAKPOINT | 1 | 0b1001 << 16;

/// An attempt whose last instruction runs with the trap flag up.
macro_rules! step {
    ($instruction:literal; $($operand:tt)*) => {
        attempt!(
            "pushfq", "or dword ptr [rsp], 0x100", "popfq", $instruction, "nop";
            $($operand)*
        )
    };
}
/// Attempts with the trap flag up, by what they step over: what the hypervisor answers, refuses or drops.
pub const UNDER_TRAP_FLAG: [NamedAttempt; 8] = [
    ("rdmsr", || step!("rdmsr"; in("ecx") 0x9B, out("eax") _, out("edx") _)),
    ("rdmsr of a constant", || step!("rdmsr"; in("ecx") 0x8B, out("eax") _, out("edx") _)),
    ("wrmsr", || step!("wrmsr"; in("ecx") 0x9B, in("eax") 0, in("edx") 0)),
    ("in", || step!("in al, dx"; in("dx") 0x71_u16, out("al") _)),
    ("outs", || step!("outsb"; in("dx") 0x71_u16, inout("rsi") 0x1000_u64 => _)),
    (
        "vmcall",
        || step!("771: vmcall\n.pushsection .hypercall_sites, \"a\"\n.quad 771b\n.popsection"; inout("rax") 0xFFFF_u64 => _),
    ),
    ("wbinvd", || step!("wbinvd"; )),
    ("mov cr4", || step!("mov cr4, {value}"; value = in(reg) 1_u64 << 13)),
];

/// INT1 right behind a MOV SS that reads where a breakpoint lies, with the trap flag up or not: three causes of a debug exception at once.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn int1_in_shadow(stepping: bool) -> Result<(), Fault> {
    let segment = 0_u16;
    let flags = if stepping { 0x102_u64 } else { 2 };
    let answer = attempt!(
        "mov dr0, {segment}", "mov dr7, {breakpoint}", "push {flags}", "popfq", "mov ss, [{segment}]", ".byte 0xF1";
        segment = in(reg) &raw const segment, breakpoint = in(reg) ON_TWO_BYTES, flags = in(reg) flags
    );
    // SAFETY: takes the breakpoint away.
    unsafe { asm!("mov dr7, {}", in(reg) NO_BREAKPOINT, options(nomem, nostack, preserves_flags)) };
    answer
}

global_asm!(
    ".section .text.traps, \"ax\"",
    ".balign 16",
    "guest_return_stub:",
    "iretq",
    // 64-bit code, called with the selectors' table at RDI, one that names the old table at RSI, and the address to jump to in RDX.
    ".balign 16",
    "guest_wrap:",
    "push rbx",
    "sgdt [rsi]",
    "lgdt [rdi]",
    "push 8",
    "push rdx",
    "retfq",
    ".balign 16",
    "guest_wrapped:",
    "lgdt [rsi]",
    "push 8",
    "lea rax, [rip + 2f]",
    "push rax",
    "retfq",
    "2: pop rbx",
    "ret",
);

unsafe extern "C" {
    static guest_return_stub: u8;
    static guest_wrapped: u8;
    fn guest_wrap(table: *const Pointer, old: *mut Pointer, to: u64);
}

/// Takes debug exceptions without end: a breakpoint lies where the processor pushes the frame of a debug exception. SDM 3B 18.3.1.
pub fn endless_debug_exceptions() -> ! {
    static GATES: Once<Gates> = Once::new();
    load_gates(GATES.call_once(|| with_debug_on_fault_stack(&raw const guest_return_stub as u64)));
    // SAFETY: each debug exception returns at once, where one returns at all.
    unsafe {
        asm!(
            "mov dr0, {address}",
            "mov dr7, {breakpoint}",
            ".byte 0xF1",
            address = in(reg) fault_stack_top() - 8,
            breakpoint = in(reg) ON_WRITE,
        );
    }
    loop_for_ever()
}

/// What LGDT and SGDT take.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Null, flat 32-bit code, 64-bit code.
static SEGMENTS: [u64; 3] = [0, 0x00CF_9B00_0000_FFFF, 0x00AF_9B00_0000_FFFF];

/// A page of 2 MiB: present, writable, for ring 3 too. SDM 3A 4.5.4.
const LARGE: u64 = 0x87;
const LARGE_BYTES: u64 = 2 << 20;

/// The entry of the page directory that maps the 2 MiB at `address`, below 4 GiB.
fn directory_entry(address: u64) -> *mut u64 {
    let root = (crate::hostile::read_cr3() & !0xFFF) as *const u64;
    // SAFETY: CR3 names the root that start.s built, mapped one to one: one table of the third level, and four directories.
    unsafe {
        let third = (root.read_volatile() & !0xFFF) as *const u64;
        let directory = third.add((address >> 30) as usize).read_volatile() & !0xFFF;
        (directory as *mut u64).add((address >> 21 & 511) as usize)
    }
}

/// Executes CPUID as 32-bit code in the last two bytes below 4 GiB, behind which the instruction pointer wraps to 0. Uses `region`, 2 MiB of
/// the guest's own, and the first bytes of its memory.
pub fn wrap_instruction_pointer(region: u64) {
    const LAST: u64 = (1 << 32) - 2;
    const CPUID: [u8; 2] = [0x0F, 0xA2];
    const FAR_JUMP: u8 = 0xEA;
    const CODE_64: u16 = 0x10;
    let pointer = Pointer { limit: 23, base: SEGMENTS.as_ptr() as u64 };
    let mut old = Pointer { limit: 0, base: 0 };
    let entry = directory_entry(LAST);
    // SAFETY: the region is the guest's own, and nothing of it lies at address 0 once the boot information was read. What is mapped below
    // 4 GiB meanwhile is nobody's. The code comes back by the jump that lies at 0, with the old tables.
    unsafe {
        let before = entry.read_volatile();
        entry.write_volatile(region | LARGE);
        asm!("invlpg [{}]", in(reg) LAST, options(nostack, preserves_flags));
        ((region + LARGE_BYTES - 2) as *mut [u8; 2]).write_volatile(CPUID);
        let zero: *mut u8 = core::ptr::without_provenance_mut(core::hint::black_box(0));
        asm!(
            "mov byte ptr [{zero}], {jump}",
            "mov dword ptr [{zero} + 1], {target:e}",
            "mov word ptr [{zero} + 5], {code}",
            zero = in(reg) zero,
            target = in(reg) &raw const guest_wrapped as u64,
            jump = const FAR_JUMP,
            code = const CODE_64,
            options(nostack, preserves_flags),
        );
        guest_wrap(&raw const pointer, &raw mut old, LAST);
        entry.write_volatile(before);
        asm!("invlpg [{}]", in(reg) LAST, options(nostack, preserves_flags));
    }
}

/// Maps `region`, 2 MiB of the guest's own, by one page and by 512 in turn, `times` often, and runs code there. Every other time the
/// processor is not told.
pub fn change_page_sizes(region: u64, times: u64) {
    const PRESENT: u64 = 7;
    const RETURN: u8 = 0xC3;
    #[repr(align(4096))]
    struct Table(core::cell::UnsafeCell<[u64; 512]>);
    // SAFETY: written before its address is used, by the one CPU that runs this.
    unsafe impl Sync for Table {}
    static SMALL: Table = Table(core::cell::UnsafeCell::new([0; 512]));
    let entry = directory_entry(region);
    // SAFETY: both ways of mapping translate alike, so code and data of the guest stay what they are; the region is its own.
    unsafe {
        SMALL
            .0
            .get()
            .write_volatile(core::array::from_fn(|page| (region + page as u64 * 4096) | PRESENT));
        (region as *mut u8).write_volatile(RETURN);
        let code: extern "C" fn() = core::mem::transmute(region as *const u8);
        for time in 0..times {
            let mapping =
                if time % 2 == 0 { SMALL.0.get() as u64 | PRESENT } else { region | LARGE };
            entry.write_volatile(mapping);
            if time % 4 < 2 {
                asm!("invlpg [{}]", in(reg) region, options(nostack, preserves_flags));
            }
            code();
        }
        entry.write_volatile(region | LARGE);
    }
}

/// Adds to eight bytes that lie in two cache lines, with the bus locked.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn split_lock() -> Result<(), Fault> {
    #[repr(align(64))]
    struct Lines([u8; 128]);
    let mut lines = Lines([0; 128]);
    let across = (&raw mut lines.0).cast::<u8>().wrapping_add(60);
    attempt!("lock add qword ptr [{across}], 1"; across = in(reg) across)
}

/// Asks for a random number, which some processors fetch from all cores' common source.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn random_number() -> Result<(), Fault> {
    attempt!("rdrand {number}"; number = out(reg) _)
}

/// Throws a cache line out of all caches.
///
/// # Errors
/// The [`Fault`] that answered.
pub fn flush_line(address: u64) -> Result<(), Fault> {
    attempt!("clflush [{address}]"; address = in(reg) address)
}
