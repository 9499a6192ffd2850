//! The way into a guest and back: stubs without state but the vCPU that they are given.
//!
//! An exit has two halves. The first, a function of the System V ABI, gives back RBP and R12 to R15 as it found them: they are not
//! stored for it. It deals with what software does most, and returns the vCPU to enter again, or null when there is more to do. Then the
//! rest of the registers is stored, and the second half returns the vCPU to enter next, whichever it is. RBX is stored although
//! calls preserve it, because CPUID answers in it.
//!
//! Both halves are other functions for each kind of core, and for vCPUs with the devices of a PC, so that none asks for it.
#![expect(unsafe_code, reason = "the stubs switch stacks and execute VMRESUME")]

use core::arch::naked_asm;
use core::mem::offset_of;

use super::exits::first_half;
use crate::backend::{Handlers, SecondHalf};
use crate::vcpu::Vcpu;
use hv_core::exit::{Preserved, Registers};
use hv_defs::vmcs::field;

/// Where the stubs find the hypervisor's stack, counted from the vCPU.
const HOST_STACK: usize = offset_of!(Vcpu, host_stack);
const REGISTERS: usize = offset_of!(Vcpu, registers);
const REGISTERS_LENGTH: usize = size_of::<Registers>();
const _: () = assert!(offset_of!(Vcpu, preserved) == 0 && REGISTERS == size_of::<Preserved>());

/// Restores the registers from RSP on and enters.
///
/// VMRESUME fails on a VMCS that was not launched yet (SDM 3D 31.4, error 5), and VMLAUNCH is tried then: so the shortest way
/// needs no flag.
macro_rules! restore_and_enter {
    () => {
        "pop r11
         pop r10
         pop r9
         pop r8
         pop rdi
         pop rsi
         pop rbx
         pop rdx
         pop rcx
         pop rax
         vmresume"
    };
}

/// The second half of an exit. The VMCS says which vCPU ran: its registers are stored down to where RSP is put.
///
/// # Safety
/// Only an exit stub jumps here, with RBP and R12 to R15 as the guest left them.
#[unsafe(naked)]
unsafe extern "C" fn second_half<S: SecondHalf>() -> ! {
    naked_asm!(
        "mov eax, {host_rsp}",
        "vmread rax, rax",
        "lea rsp, [rax - {registers_length}]",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rdi, rsp",
        "mov rsp, [rdi + {host_stack}]",
        "call {second}",
        "mov rdi, rax",
        "jmp {enter}",
        host_rsp = const field::HOST_RSP,
        registers_length = const REGISTERS_LENGTH,
        host_stack = const HOST_STACK,
        second = sym S::run,
        enter = sym enter,
    )
}

/// Where the processor lands on an exit: RSP points just behind the vCPU's register area, so that pushing the registers stores
/// them there.
///
/// # Safety
/// Only the processor jumps here, with HOST_RSP as `Vcpu::behind_registers` gives it.
#[unsafe(naked)]
unsafe extern "C" fn on_exit<H: Handlers>() -> ! {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "lea rdi, [rsp - {registers}]",
        "mov rsp, [rdi + {host_stack}]",
        "call {first}",
        "test rax, rax",
        "jz {second}",
        "lea rsp, [rax + {registers}]",
        restore_and_enter!(),
        "jmp {launch}",
        registers = const REGISTERS,
        host_stack = const HOST_STACK,
        first = sym first_half::<H>,
        second = sym second_half::<H::Second>,
        launch = sym launch,
    )
}

/// HOST_RIP of the vCPUs whose exits go to `H`.
pub fn exit_stub<H: Handlers>() -> u64 {
    on_exit::<H> as *const () as u64
}

/// Leaves whatever ran on this stack for good and enters `vcpu`.
///
/// # Safety
/// The vCPU's VMCS is current and complete, and its host stack is this core's own.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(vcpu: *mut Vcpu) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        restore_and_enter!(),
        "jmp {launch}",
        launch = sym launch,
    )
}

/// Behind a VMRESUME that failed: launches a VMCS that was not launched yet. RAX is saved in its own slot while the error is
/// read. What fails otherwise is a defect of ours, and ends the vCPU, not the core.
///
/// # Safety
/// Only code behind a failed VMRESUME jumps here, with the registers as the guest is to find them and RSP behind the register area.
#[unsafe(naked)]
unsafe extern "C" fn launch() -> ! {
    naked_asm!(
        "push rax",
        "mov eax, {instruction_error}",
        "vmread rax, rax",
        "cmp eax, {not_launched}",
        "pop rax",
        "jne 2f",
        "vmlaunch",
        "2:",
        "lea rdi, [rsp - {behind_registers}]",
        "mov rsp, [rdi + {host_stack}]",
        "call [rdi + {failed}]",
        "mov rdi, rax",
        "jmp {enter}",
        instruction_error = const field::INSTRUCTION_ERROR,
        not_launched = const NOT_LAUNCHED,
        behind_registers = const REGISTERS + REGISTERS_LENGTH,
        host_stack = const HOST_STACK,
        failed = const offset_of!(Vcpu, entry_failed),
        enter = sym enter,
    )
}

/// VM-instruction error of a VMRESUME with a VMCS that was not launched. SDM 3D 31.4.
const NOT_LAUNCHED: u32 = 5;
