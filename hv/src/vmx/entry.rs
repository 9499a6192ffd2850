//! The way into a guest and back: one stub, no state but the vCPU that it is given.
#![expect(unsafe_code, reason = "the stub switches stacks and executes VMRESUME")]

use core::arch::naked_asm;
use core::mem::offset_of;

use super::vcpu::Vcpu;
use hv_core::exit::Registers;
use hv_defs::vmcs::field;

/// Where the stub finds the hypervisor's stack, counted from the vCPU's registers.
const HOST_STACK: usize = offset_of!(Vcpu, host_stack);
const AFTER_REGISTERS: usize = size_of::<Registers>();
const _: () = assert!(offset_of!(Vcpu, registers) == 0);

/// Where the processor lands on an exit: RSP points just behind the vCPU's register area, so that
/// pushing the registers stores them there. The handler returns the vCPU to enter next.
///
/// VMRESUME fails on a VMCS that was not launched yet (SDM 3D 31.4, error 5), and VMLAUNCH is tried then: so the shortest way
/// needs no flag. RAX is saved in its own slot while the error is read. What fails otherwise is a defect of ours, and ends the
/// vCPU, not the core.
///
/// # Safety
/// Only the processor jumps here, with HOST_RSP as `Vcpu::host_rsp` gives it.
#[unsafe(naked)]
pub unsafe extern "C" fn exit_stub() -> ! {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rdi, rsp",
        "mov rsp, [rdi + {host_stack}]",
        "call {handler}",
        ".globl bulkhead_enter_vcpu_in_rax",
        "bulkhead_enter_vcpu_in_rax:",
        "mov rsp, rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "vmresume",
        "push rax",
        "mov eax, {instruction_error}",
        "vmread rax, rax",
        "cmp eax, {not_launched}",
        "pop rax",
        "jne 2f",
        "vmlaunch",
        "2:",
        "lea rdi, [rsp - {after_registers}]",
        "mov rsp, [rdi + {host_stack}]",
        "call {failed}",
        "jmp bulkhead_enter_vcpu_in_rax",
        host_stack = const HOST_STACK,
        after_registers = const AFTER_REGISTERS,
        instruction_error = const field::INSTRUCTION_ERROR,
        not_launched = const NOT_LAUNCHED,
        handler = sym crate::run::on_exit,
        failed = sym crate::run::entry_failed,
    )
}

/// VM-instruction error of a VMRESUME with a VMCS that was not launched. SDM 3D 31.4.
const NOT_LAUNCHED: u32 = 5;

/// Leaves the boot path for good and enters `vcpu` as if an exit of it had just been handled.
///
/// # Safety
/// The vCPU's VMCS is current and complete, and its host stack is this core's own.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(vcpu: *mut Vcpu) -> ! {
    naked_asm!("mov rax, rdi", "jmp bulkhead_enter_vcpu_in_rax")
}
