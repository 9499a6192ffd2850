//! The way into a guest and back: stubs without state but the vCPU that they are given.
//!
//! As under VT-x an exit has two halves. The first saves the caller-saved registers and RBX only. FS, GS, TR, LDTR and the registers of
//! system calls are still the guest's meanwhile: the first half touches none of them, and GIF=0 keeps every handler away that would. The
//! second half saves the rest, stores those registers and loads the host's.
#![expect(unsafe_code, reason = "the stubs switch stacks and execute VMRUN")]

use core::arch::naked_asm;
use core::mem::offset_of;

use hv_core::exit::{Preserved, Registers};
use hv_defs::vmcb::save;

use super::exits::first_half;
use crate::backend::{Handlers, SecondHalf};
use crate::vcpu::Vcpu;

const HOST_STACK: usize = offset_of!(Vcpu, host_stack);
const BLOCK: usize = offset_of!(Vcpu, block);
const HOST_BLOCK: usize = offset_of!(Vcpu, host_block);
const RUN: usize = offset_of!(Vcpu, run);
const REGISTERS: usize = offset_of!(Vcpu, registers);
const RAX: usize = offset_of!(Registers, rax);
const _: () = assert!(offset_of!(Vcpu, preserved) == 0 && REGISTERS == size_of::<Preserved>());

/// Loads the registers from RSP on, enters, and comes back with them stored. RAX holds the block before and behind. Then RDI is the vCPU,
/// on the host's stack.
///
/// RAX of the guest lives in the block while it runs. IF=1 lets the machine's interrupts exit from a guest whose own are masked apart
/// (APM 2 15.21.1); GIF=0 keeps the host from taking them.
macro_rules! run_guest {
    () => {
        "mov rcx, [rsp + {rax}]
         mov [rax + {guest_rax}], rcx
         pop r11
         pop r10
         pop r9
         pop r8
         pop rdi
         pop rsi
         pop rbx
         pop rdx
         pop rcx
         sti
         vmrun rax
         cli
         push rcx
         push rdx
         push rbx
         push rsi
         push rdi
         push r8
         push r9
         push r10
         push r11
         mov rcx, [rax + {guest_rax}]
         mov [rsp + {rax}], rcx
         lea rdi, [rsp - {registers}]
         mov rsp, [rdi + {host_stack}]"
    };
}

/// Runs a vCPU whose exits go to `H`, for as long as the first half answers them. RSP points at the registers, RAX holds the block, and what
/// VMLOAD loads is loaded.
///
/// # Safety
/// Only [`enter`] jumps here.
#[unsafe(naked)]
unsafe extern "C" fn run<H: Handlers>() -> ! {
    naked_asm!(
        "2:",
        run_guest!(),
        "push rdi",
        "push rdi",
        "call {first}",
        "pop rdi",
        "pop rdi",
        "test rax, rax",
        "jz 3f",
        "lea rsp, [rax + {registers}]",
        "mov rax, [rax + {block}]",
        "jmp 2b",
        "3:",
        "mov rax, [rdi + {block}]",
        "vmsave rax",
        "mov rax, [rdi + {host_block}]",
        "vmload rax",
        "lea rsp, [rdi + {registers}]",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rsp, [rdi + {host_stack}]",
        "call {second}",
        "mov rdi, rax",
        "jmp {enter}",
        rax = const RAX,
        guest_rax = const save::RAX.offset,
        registers = const REGISTERS,
        host_stack = const HOST_STACK,
        block = const BLOCK,
        host_block = const HOST_BLOCK,
        first = sym first_half::<H>,
        second = sym <H::Second as SecondHalf>::run,
        enter = sym enter,
    )
}

/// Where a vCPU whose exits go to `H` is run.
pub fn runner<H: Handlers>() -> u64 {
    run::<H> as *const () as u64
}

/// Leaves whatever ran on this stack for good and enters `vcpu`.
///
/// # Safety
/// The vCPU's block is complete, and its host stack is this core's own.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(vcpu: *mut Vcpu) -> ! {
    naked_asm!(
        "clgi",
        "mov rsp, rdi",
        "mov rcx, [rdi + {run}]",
        "mov rax, [rdi + {block}]",
        "vmload rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "jmp rcx",
        run = const RUN,
        block = const BLOCK,
    )
}
