//! The IDT, shared by all cores: an exception in the hypervisor is a defect and ends the core with a sentence; an NMI is
//! handed to the run loop; an interrupt is forgotten.
//!
//! The local APIC delivers the vectors 16 to 255 (SDM 3A 11.5.2), so exceptions and interrupts share 16 to 31. The gates of those ask which
//! of the two came.
#![expect(unsafe_code, reason = "installs handlers by address and reads what the processor pushed")]

use core::arch::global_asm;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::registers::segmentation::{CS, Segment};
use x86_64::structures::DescriptorTablePointer;

use super::descriptors::{DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK, NMI_STACK};
use super::guarded;
use super::stacks::guards;
use crate::memory::PAGE;

// One stub of 16 bytes for each vector: those without an error code push a zero in its place (SDM 3A 6.13).
// The common part builds what `Frame` describes. Handlers that return keep every register that Rust may change.
global_asm!(
    // The nine registers that a call of the System V ABI may change. Neither macro changes a flag.
    ".macro save_scratch_registers",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    ".endm",
    ".macro restore_scratch_registers",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    ".endm",
    ".balign 16",
    ".global exception_stubs",
    "exception_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    ".if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)",
    "push 0",
    ".endif",
    "push vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    "exception_common:",
    "cld",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {on_exception}",
    "ud2",
    "nmi_stub:",
    "push offset {on_nmi}",
    "jmp call_and_return",
    "discard_stub:",
    "push offset {on_discarded}",
    "jmp call_and_return",
    // One stub of 16 bytes for each vector that exceptions and interrupts share. The common part calls `is_interrupt` with the address of
    // the vector, above which lies what the processor pushed. An interrupt is over then. An exception goes on to its ordinary stub, with the
    // stack as the processor left it.
    ".balign 16",
    "shared_stubs:",
    ".set vector, 16",
    ".rept 16",
    ".balign 16",
    "push vector",
    "jmp shared_common",
    ".set vector, vector + 1",
    ".endr",
    "shared_common:",
    "cld",
    "push rbp",
    "save_scratch_registers",
    "mov rbp, rsp",
    "lea rdi, [rbp + 10 * 8]",
    "and rsp, -16",
    "call {is_interrupt}",
    "mov rsp, rbp",
    "test al, al",
    "restore_scratch_registers",
    "pop rbp",
    "jz 2f",
    "add rsp, 8",
    "iretq",
    // The vector on the stack becomes the address of the stub, and RAX keeps its value.
    "2: xchg rax, [rsp]",
    "shl eax, 4",
    "add rax, offset exception_stubs",
    "xchg rax, [rsp]",
    "ret",
    // The address of the handler lies where the interrupted RBP is kept; it is called with an aligned stack.
    "call_and_return:",
    "cld",
    "xchg rbp, [rsp]",
    "save_scratch_registers",
    "mov rax, rbp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call rax",
    "mov rsp, rbp",
    "restore_scratch_registers",
    "pop rbp",
    "iretq",
    on_exception = sym on_exception,
    on_nmi = sym on_nmi,
    on_discarded = sym super::apic::end_of_interrupt,
    is_interrupt = sym is_interrupt,
);

unsafe extern "C" {
    static exception_stubs: [[u8; 16]; 32];
    static nmi_stub: u8;
    static discard_stub: u8;
    static shared_stubs: [[u8; 16]; SHARED_VECTORS];
}

/// What lies on the stack when `on_exception` is called. SDM 3A 6.14.2.
#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const NMI: u8 = 2;
const DOUBLE_FAULT: u8 = 8;
const STACK_FAULT: u8 = 12;
const PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;
const MACHINE_CHECK: u8 = 18;
/// Vectors from here on are interrupts only. The hypervisor lets one in to discard it, and never else.
const FIRST_INTERRUPT: u8 = 32;
/// The first vector that the local APIC delivers. SDM 3A 11.5.2.
const FIRST_SHARED: u8 = 16;
/// Vectors that exceptions and interrupts share.
const SHARED_VECTORS: usize = (FIRST_INTERRUPT - FIRST_SHARED) as usize;

/// SDM 3A table 6-1.
const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack-segment fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 floating-point error",
    "alignment check",
    "machine check",
    "SIMD floating-point error",
    "virtualization",
    "control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved",
];

extern "C" fn on_exception(frame: &Frame) -> ! {
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("unknown");
    let cause = if frame.vector == u64::from(PAGE_FAULT) && is_guarded(Cr2::read_raw()) {
        ": its stack overflowed"
    } else {
        ""
    };
    if frame.vector == u64::from(MACHINE_CHECK) {
        super::machine_check::end();
    }
    panic!(
        "exception {} ({name}) at RIP {:#x}, error code {:#x}, CR2 {:#x}, RSP {:#x}, RFLAGS {:#x}, CS {:#x}, SS {:#x}{cause}",
        frame.vector,
        frame.rip,
        frame.error_code,
        Cr2::read_raw(),
        frame.rsp,
        frame.rflags,
        frame.cs,
        frame.ss
    )
}

/// Whether the vector at the top of `stack`, one of those that exceptions share, came as an interrupt; if so, it is ended. Above the vector
/// lies what the processor pushed.
///
/// Both signs of an interrupt are needed:
/// - It comes only where interrupts are on. The third word tells: RFLAGS, since an interrupt pushes no error code. Of an exception with
///   an error code it is CS, in which that bit is clear.
/// - The local APIC has it in service.
///
/// A machine check with the same vector in service is still told by its own flag.
extern "C" fn is_interrupt(stack: &[u64; 4]) -> bool {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let [vector, _, _, flags] = *stack;
    flags & INTERRUPTS_ON != 0
        && !(vector == u64::from(MACHINE_CHECK) && super::machine_check::is_in_progress())
        && super::apic::take_in_service(vector)
}

/// Whether `address` lies in a guard page.
fn is_guarded(address: u64) -> bool {
    guards().any(|guard| address & !(PAGE - 1) == guard)
}

extern "C" fn on_nmi() {
    crate::on_nmi();
}

static IDT: Once<[Gate; VECTORS]> = Once::new();
const VECTORS: usize = 256;

/// An interrupt gate of 64-bit mode. SDM 3A 6.14.1, figure 6-8.
#[repr(C, align(16))]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// Leads to `stub`, on interrupt stack `stack` of the core's task state or on the current one. `code` is the segment that it runs in.
    const fn new(stub: u64, stack: Option<u16>, code: u16) -> Self {
        /// Present, an interrupt gate: interrupts are off behind it.
        const OPTIONS: u64 = 0x8E << 40;
        // The field counts from 1; 0 says that the stack is not switched.
        let stack = match stack {
            Some(stack) => stack as u64 + 1,
            None => 0,
        };
        let (lower, middle) = (stub & 0xFFFF, stub >> 16 & 0xFFFF);
        Self {
            low: lower | (code as u64) << 16 | stack << 32 | OPTIONS | middle << 48,
            high: stub >> 32,
        }
    }
}

/// The code that the gate of `vector` leads to, and its interrupt stack.
fn target(vector: u8) -> (u64, Option<u16>) {
    const STUB: u64 = 16;
    let stub = match vector {
        NMI => &raw const nmi_stub as u64,
        PROTECTION => guarded::protection_handler(),
        ..FIRST_SHARED => &raw const exception_stubs as u64 + u64::from(vector) * STUB,
        FIRST_SHARED..FIRST_INTERRUPT => {
            &raw const shared_stubs as u64 + u64::from(vector - FIRST_SHARED) * STUB
        }
        FIRST_INTERRUPT.. => &raw const discard_stub as u64,
    };
    let stack = match vector {
        NMI => Some(NMI_STACK),
        DOUBLE_FAULT | STACK_FAULT | PAGE_FAULT => Some(DOUBLE_FAULT_STACK),
        MACHINE_CHECK => Some(MACHINE_CHECK_STACK),
        _ => None,
    };
    (stub, stack)
}

/// Loads the IDT on this core. `load_descriptors` has loaded the GDT that the gates name, which has the same code segment on every core.
pub fn load() {
    let gates = IDT.call_once(|| {
        let code = CS::get_reg().0;
        core::array::from_fn(|vector| {
            let (stub, stack) = target(vector as u8);
            Gate::new(stub, stack, code)
        })
    });
    let limit = (size_of::<[Gate; VECTORS]>() - 1) as u16;
    let pointer = DescriptorTablePointer { limit, base: VirtAddr::from_ptr(gates.as_ptr()) };
    // SAFETY: the table lives for ever, and its stacks are in every core's task state. Each stub takes what its vector pushes: those of
    // exceptions do not return; those of interrupts save what Rust may change and end in IRET, which also unblocks NMIs; the one of #GP
    // changes no register, and what it does not catch goes to the ordinary stub.
    unsafe { lidt(&pointer) };
}
