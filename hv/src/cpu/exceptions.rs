//! The IDT, shared by all cores: an exception in the hypervisor is a defect and ends the core with a sentence; an NMI is
//! handed to the run loop; an interrupt is forgotten.
#![expect(unsafe_code, reason = "installs handlers by address and reads what the processor pushed")]

use core::arch::global_asm;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::{Entry, InterruptDescriptorTable};

use super::descriptors::{DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK, NMI_STACK};
use super::guarded;
use super::stacks::guards;
use crate::memory::PAGE;

// One stub of 16 bytes for each vector: those without an error code push a zero in its place (SDM 3A 6.13).
// The common part builds what `Frame` describes. Handlers that return keep every register that Rust may change.
global_asm!(
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
    // The address of the handler lies where the interrupted RBP is kept; it is called with an aligned stack.
    "call_and_return:",
    "cld",
    "xchg rbp, [rsp]",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "mov rax, rbp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call rax",
    "mov rsp, rbp",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "pop rbp",
    "iretq",
    on_exception = sym on_exception,
    on_nmi = sym on_nmi,
    on_discarded = sym super::apic::end_of_interrupt,
);

unsafe extern "C" {
    static exception_stubs: [[u8; 16]; 32];
    static nmi_stub: u8;
    static discard_stub: u8;
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

const PAGE_FAULT: u64 = 14;
/// Vectors from here on are interrupts. The hypervisor never lets one in, except to discard it at boot.
const FIRST_INTERRUPT: u8 = 32;

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
    let cause = if frame.vector == PAGE_FAULT && is_guarded(Cr2::read_raw()) {
        ": its stack overflowed"
    } else {
        ""
    };
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

/// Whether `address` lies in a guard page.
fn is_guarded(address: u64) -> bool {
    guards().any(|guard| address & !(PAGE - 1) == guard)
}

extern "C" fn on_nmi() {
    crate::run::nmi();
}

static IDT: Once<InterruptDescriptorTable> = Once::new();

fn set<F>(entry: &mut Entry<F>, vector: usize, stack: Option<u16>) {
    let stub = &raw const exception_stubs as u64 + vector as u64 * 16;
    // SAFETY: each stub takes its vector's stack frame and never returns; the stacks are in every core's task state.
    unsafe {
        let options = entry.set_handler_addr(VirtAddr::new(stub));
        if let Some(stack) = stack {
            options.set_stack_index(stack);
        }
    }
}

fn build() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    set(&mut idt.divide_error, 0, None);
    set(&mut idt.debug, 1, None);
    set(&mut idt.breakpoint, 3, None);
    set(&mut idt.overflow, 4, None);
    set(&mut idt.bound_range_exceeded, 5, None);
    set(&mut idt.invalid_opcode, 6, None);
    set(&mut idt.device_not_available, 7, None);
    set(&mut idt.double_fault, 8, Some(DOUBLE_FAULT_STACK));
    set(&mut idt.invalid_tss, 10, None);
    set(&mut idt.segment_not_present, 11, None);
    set(&mut idt.stack_segment_fault, 12, Some(DOUBLE_FAULT_STACK));
    set(&mut idt.page_fault, 14, Some(DOUBLE_FAULT_STACK));
    set(&mut idt.x87_floating_point, 16, None);
    set(&mut idt.alignment_check, 17, None);
    set(&mut idt.machine_check, 18, Some(MACHINE_CHECK_STACK));
    set(&mut idt.simd_floating_point, 19, None);
    set(&mut idt.virtualization, 20, None);
    set(&mut idt.cp_protection_exception, 21, None);
    set(&mut idt.hv_injection_exception, 28, None);
    set(&mut idt.vmm_communication_exception, 29, None);
    set(&mut idt.security_exception, 30, None);
    // SAFETY: both stubs of interrupts save what Rust may change and end in IRET, which also unblocks NMIs; the one of #GP changes no
    // register, and what it does not catch goes to the ordinary stub.
    unsafe {
        idt.non_maskable_interrupt
            .set_handler_addr(VirtAddr::new(&raw const nmi_stub as u64))
            .set_stack_index(NMI_STACK);
        idt.general_protection_fault.set_handler_addr(VirtAddr::new(guarded::protection_handler()));
        for entry in idt.slice_mut(FIRST_INTERRUPT..=u8::MAX) {
            entry.set_handler_addr(VirtAddr::new(&raw const discard_stub as u64));
        }
    }
    idt
}

/// Loads the IDT on this core. `load_descriptors` has loaded the GDT that the gates name.
pub fn load() {
    IDT.call_once(build).load();
}
