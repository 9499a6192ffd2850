//! Operations on the guest of the current VMCS.
#![expect(unsafe_code, reason = "writes VMCS fields")]

use core::arch::asm;

use hv_core::exit::{ControlLoad, Event, Paging};
use hv_defs::vmcs::{entry_control, field, interruptibility, interruption, pin, processor};
use x86_64::registers::segmentation::{SS, Segment};

use super::instructions as vmx;
use crate::vcpu::{MsrMaps, Vcpu};

/// Makes the VMCS of a vCPU the current one.
pub fn load(vcpu: &Vcpu) {
    // SAFETY: the region is this vCPU's own, initialised at set-up, and active on this core only.
    let loaded = unsafe { vmx::vmptrld(vcpu.block) };
    if loaded.is_err() {
        vmptrld_refused();
    }
}

/// With another VMCS still current, another partition's memory would be entered: the core ends instead. No guest can cause it, because the
/// region is the hypervisor's own.
#[cold]
#[inline(never)]
fn vmptrld_refused() -> ! {
    panic!("VMPTRLD refused a VMCS that was filled")
}

/// Sets or clears interrupt-window exiting. SDM 3C 25.6.2.
pub fn ask_for_interrupt_window(vcpu: &mut Vcpu, ask: bool) {
    set_processor_control(vcpu, processor::INTERRUPT_WINDOW_EXITING, ask);
}

/// Sets or clears NMI-window exiting. SDM 3C 25.6.2.
pub fn ask_for_nmi_window(vcpu: &mut Vcpu, ask: bool) {
    set_processor_control(vcpu, processor::NMI_WINDOW_EXITING, ask);
}

fn set_processor_control(vcpu: &mut Vcpu, bit: u32, on: bool) {
    let wanted = if on { vcpu.controls | bit } else { vcpu.controls & !bit };
    if wanted != vcpu.controls {
        vcpu.controls = wanted;
        // SAFETY: only window-exiting bits change; both are allowed wherever virtual NMIs are. SDM 3C 25.6.2.
        unsafe { vmx::write(field::PROCESSOR_CONTROLS, u64::from(wanted)) };
    }
}

/// The delivery of `vector`, which is in service already, was interrupted: requests it again.
pub fn take_back(vcpu: &mut Vcpu, vector: u8) {
    vcpu.state.apic.withdraw(vector);
    if vcpu.apic_virtualization {
        tell_interrupt_status(vcpu);
    } else {
        ask_for_interrupt_window(vcpu, true);
    }
}

/// Tells a processor that delivers interrupts by itself what the virtual APIC raised since the last call: which vector is requested
/// and which is in service.
#[inline(always)]
pub fn tell_interrupt_status(vcpu: &mut Vcpu) {
    if vcpu.state.apic.is_enabled() != vcpu.apic_is_on {
        choose_msr_bitmap(vcpu);
    }
    if let Some(status) = vcpu.state.apic.take_changed_status() {
        // SAFETY: both bytes are what the virtual-APIC page says, as the processor itself keeps them. SDM 3C 25.4.2, 30.1.1.
        unsafe { vmx::write(field::GUEST_INTERRUPT_STATUS, u64::from(status)) };
    }
}

#[cold]
fn choose_msr_bitmap(vcpu: &mut Vcpu) {
    vcpu.apic_is_on = vcpu.state.apic.is_enabled();
    let MsrMaps { apic_on, apic_off } = vcpu.msr_maps;
    // SAFETY: both are static pages that the core filled by the policy. SDM 3C 25.6.9.
    unsafe { vmx::write(field::MSR_BITMAP, if vcpu.apic_is_on { apic_on } else { apic_off }) };
}

/// Steps over the instruction that exited. Ends the blocking that STI or MOV SS asked for one
/// instruction, and raises the single-step trap that the skipped instruction would have (SDM 3C 27.3.1.5).
#[inline(always)]
pub fn advance() {
    let next = vmx::read(field::GUEST_RIP) + vmx::read(field::EXIT_INSTRUCTION_LENGTH);
    // SAFETY: RIP only moves by the length that the processor reported. SDM 3C 25.4.1.
    unsafe { vmx::write(field::GUEST_RIP, next) };
    const BLOCKED: u64 =
        (interruptibility::BLOCKED_BY_STI | interruptibility::BLOCKED_BY_MOV_SS) as u64;
    let blocked = vmx::read(field::GUEST_INTERRUPTIBILITY);
    if blocked & BLOCKED != 0 {
        // SAFETY: clears two bits that the processor itself clears behind an instruction. SDM 3C 25.4.2.
        unsafe { vmx::write(field::GUEST_INTERRUPTIBILITY, blocked & !BLOCKED) };
    }
    if vmx::read(field::GUEST_RFLAGS) & TRAP_FLAG != 0 {
        core::hint::cold_path();
        pend_single_step();
    }
}

/// Mends the instruction pointer behind an entry that failed; returns whether that was the cause. Outside 64-bit code the pointer has 32 bits
/// and wraps. [`advance`] lets it grow beyond them behind the last instruction below 4 GiB, because a check there would cost every exit.
/// The entry refuses the value. SDM 3C 27.3.1.4.
pub fn wrap_instruction_pointer() -> bool {
    let rip = vmx::read(field::GUEST_RIP);
    let wraps = rip >> 32 != 0 && !is_64_bit();
    if wraps {
        // SAFETY: the value fits 32 bits, as the entry wants it for this code. SDM 3C 27.3.1.4.
        unsafe { vmx::write(field::GUEST_RIP, rip & 0xFFFF_FFFF) };
    }
    wraps
}

/// RFLAGS.TF.
const TRAP_FLAG: u64 = 1 << 8;

/// In line, because a call would cost each caller a stack frame.
#[inline(always)]
fn pend_single_step() {
    const SINGLE_STEP: u64 = 1 << 14;
    let pending = vmx::read(field::GUEST_PENDING_DEBUG);
    // SAFETY: BS with RFLAGS.TF set is a valid guest state. SDM 3C 25.4.2, 27.3.1.5.
    unsafe { vmx::write(field::GUEST_PENDING_DEBUG, pending | SINGLE_STEP) };
}

/// CR0.PE.
const PROTECTION: u64 = 1;

/// Has the next entry deliver `event`. SDM 3C 25.8.3.
#[inline(always)]
pub fn inject(event: Event) {
    let info = match event {
        Event::Exception { vector, error } => {
            // Real mode has no error codes, and an entry with one fails. SDM 3C 27.2.1.3.
            let error = error.filter(|_| vmx::read(field::GUEST_CR0) & PROTECTION != 0);
            if let Some(error) = error {
                // SAFETY: the error code belongs to the vector that is delivered. SDM 3C 25.8.3.
                unsafe { vmx::write(field::ENTRY_EXCEPTION_ERROR_CODE, u64::from(error)) };
            }
            let code = if error.is_some() { interruption::DELIVER_ERROR_CODE } else { 0 };
            u32::from(vector) | interruption::HARDWARE_EXCEPTION | code
        }
        Event::Nmi => 2 | interruption::NMI,
    };
    write_entry_info(info);
}

/// Has the next entry deliver external interrupt `vector`.
pub fn inject_interrupt(vector: u8) {
    write_entry_info(u32::from(vector) | interruption::EXTERNAL);
}

#[inline(always)]
fn write_entry_info(info: u32) {
    // SAFETY: vector and type agree, as the callers build them. SDM 3C 25.8.3.
    unsafe { vmx::write(field::ENTRY_INTERRUPTION_INFO, u64::from(info | interruption::VALID)) };
}

/// Completes a debug exception that was intercepted on its way to the guest: DR7.GD is cleared as the processor would
/// have (SDM 3B 18.2.4), and a single step whose flag is still up stays pending where entry demands it (SDM 3C 27.3.1.5).
pub fn forward_debug() {
    const GENERAL_DETECT: u64 = 1 << 13;
    const SHADOWED: u64 =
        (interruptibility::BLOCKED_BY_STI | interruptibility::BLOCKED_BY_MOV_SS) as u64;
    let dr7 = vmx::read(field::GUEST_DR7);
    // SAFETY: clears one bit of the guest's own register. SDM 3C 25.4.1.
    unsafe { vmx::write(field::GUEST_DR7, dr7 & !GENERAL_DETECT) };
    if vmx::read(field::GUEST_RFLAGS) & TRAP_FLAG != 0
        && vmx::read(field::GUEST_INTERRUPTIBILITY) & SHADOWED != 0
    {
        pend_single_step();
    }
}

/// Has the next entry deliver the debug exception of INT1, which returns behind that instruction. SDM 3C 25.8.3.
pub fn inject_int1() {
    let length = vmx::read(field::EXIT_INSTRUCTION_LENGTH);
    // SAFETY: the length is the one that the processor reported for this very instruction.
    unsafe { vmx::write(field::ENTRY_INSTRUCTION_LENGTH, length) };
    write_entry_info(1 | interruption::PRIVILEGED_SOFTWARE_EXCEPTION);
}

/// The event that the exit interrupted on its way to the guest, if it was an interrupt or an NMI. SDM 3C 25.9.3.
pub fn interrupted_event() -> Option<Interrupted> {
    let info = vmx::read(field::IDT_VECTORING_INFO) as u32;
    if info & interruption::VALID == 0 {
        return None;
    }
    match info & interruption::TYPE_MASK {
        interruption::EXTERNAL => Some(Interrupted::Interrupt(info as u8)),
        interruption::NMI => Some(Interrupted::Nmi),
        _ => None,
    }
}

/// An event whose delivery an exit interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// A maskable interrupt, acknowledged already.
    Interrupt(u8),
    /// An NMI.
    Nmi,
}

/// The guest's NMI was not delivered, or its IRET faulted: sets whether NMIs are blocked in it. SDM 3C 25.4.2.
pub fn block_nmis(block: bool) {
    let state = vmx::read(field::GUEST_INTERRUPTIBILITY);
    let bit = u64::from(interruptibility::BLOCKED_BY_NMI);
    let state = if block { state | bit } else { state & !bit };
    // SAFETY: a bit of the guest's own state that entry accepts either way with virtual NMIs. SDM 3C 25.4.2.
    unsafe { vmx::write(field::GUEST_INTERRUPTIBILITY, state) };
}

/// Turns the preemption timer of a dedicated core off again, behind [`exit_at_once`].
pub fn stop_timer() {
    let controls = vmx::read(field::PIN_CONTROLS) & !u64::from(pin::PREEMPTION_TIMER);
    // SAFETY: a dedicated core runs without the timer, which is what the control says. SDM 3C 25.6.1.
    unsafe { vmx::write(field::PIN_CONTROLS, controls) };
}

/// Whether the next entry delivers an event already.
pub fn injection_is_pending() -> bool {
    vmx::read(field::ENTRY_INTERRUPTION_INFO) & u64::from(interruption::VALID) != 0
}

/// Whether the guest takes a maskable interrupt now: IF set, no shadow. SDM 3C 25.4.2.
pub fn accepts_interrupt() -> bool {
    const INTERRUPT_FLAG: u64 = 1 << 9;
    const BLOCKED: u64 =
        (interruptibility::BLOCKED_BY_STI | interruptibility::BLOCKED_BY_MOV_SS) as u64;
    vmx::read(field::GUEST_RFLAGS) & INTERRUPT_FLAG != 0
        && vmx::read(field::GUEST_INTERRUPTIBILITY) & BLOCKED == 0
}

/// The next entry finds the guest running, if it had halted. SDM 3C 25.4.2.
pub fn wake() {
    const ACTIVE: u64 = 0;
    // SAFETY: a guest that takes an interrupt is active behind it anyway; the active state is valid with any other guest state.
    unsafe { vmx::write(field::GUEST_ACTIVITY, ACTIVE) };
}

/// Whether the guest takes an NMI now.
pub fn accepts_nmi() -> bool {
    const BLOCKED: u64 = (interruptibility::BLOCKED_BY_STI
        | interruptibility::BLOCKED_BY_MOV_SS
        | interruptibility::BLOCKED_BY_NMI) as u64;
    vmx::read(field::GUEST_INTERRUPTIBILITY) & BLOCKED == 0
}

/// Whether the guest executes 64-bit code: the width of its moves to control registers.
pub fn is_64_bit() -> bool {
    const LONG_CODE: u64 = 1 << 13;
    vmx::read(field::GUEST_EFER) & EFER_LMA != 0
        && vmx::read(field::GUEST_CS_RIGHTS) & LONG_CODE != 0
}

/// Loads CR0, checked: the guest reads it as it wrote it. SDM 3C 25.6.6 (mask and shadow).
pub fn load_cr0(load: &ControlLoad) {
    const NOT_THE_GUESTS: u64 = (1 << 30) | (1 << 29);
    const NUMERIC_ERROR: u64 = 1 << 5;
    match load.paging {
        Paging::EntersLong => set_long_mode(true),
        Paging::LeavesLong => set_long_mode(false),
        Paging::Same | Paging::Turned => {}
    }
    let cr0 = u64::from(load.cr0);
    // SAFETY: CD and NW stay clear, NE stays set as VMX demands (SDM 3D A.7); the rest is the guest's own. SDM 3C 25.4.1, 25.6.6.
    unsafe {
        vmx::write(field::GUEST_CR0, (cr0 & !NOT_THE_GUESTS) | NUMERIC_ERROR);
        vmx::write(field::CR0_SHADOW, cr0);
    }
    if load.paging != Paging::Same {
        // The guest's own write would have flushed its translations.
        vmx::invvpid(vmx::read(field::VPID) as u16);
    }
}

/// Loads CR4, checked. SDM 3C 25.6.6 (mask and shadow).
pub fn load_cr4(value: u64) {
    // SAFETY: only bits that the policy allows, and those that the hypervisor holds and the shadow hides. SDM 3C 25.4.1, 25.6.6.
    unsafe {
        vmx::write(field::GUEST_CR4, value | super::setup::CR4_HELD);
        vmx::write(field::CR4_SHADOW, value);
    }
    // The guest's own write would have flushed its translations.
    vmx::invvpid(vmx::read(field::VPID) as u16);
}

const EFER_LMA: u64 = 1 << 10;

/// Has the guest enter or leave IA-32e mode.
fn set_long_mode(on: bool) {
    const GUEST_64_BIT: u64 = entry_control::IA32E_GUEST as u64;
    let (efer, entry) = (vmx::read(field::GUEST_EFER), vmx::read(field::ENTRY_CONTROLS));
    let (efer, entry) = if on {
        (efer | EFER_LMA, entry | GUEST_64_BIT)
    } else {
        (efer & !EFER_LMA, entry & !GUEST_64_BIT)
    };
    // SAFETY: EFER.LMA and the entry control agree, as SDM 3C 27.3.1.1 demands.
    unsafe {
        vmx::write(field::GUEST_EFER, efer);
        vmx::write(field::ENTRY_CONTROLS, entry);
    }
}

/// Loads the preemption timer.
#[inline(always)]
pub fn write_timer(value: u64) {
    // SAFETY: any 32-bit value is valid; an early exit only looks at the clock again. SDM 3C 26.5.1.
    unsafe { vmx::write(field::PREEMPTION_TIMER, value) };
}

/// Makes the next entry exit at once: the preemption timer on, at zero. Called from the NMI handler
/// in root mode, so that a kick that arrives between an exit and the entry is not lost.
pub fn exit_at_once() {
    let controls = vmx::read(field::PIN_CONTROLS) | u64::from(pin::PREEMPTION_TIMER);
    // SAFETY: the preemption timer was verified at boot; a zero value only makes the guest exit before its next instruction. SDM 3C 26.5.1.
    unsafe {
        vmx::write(field::PIN_CONTROLS, controls);
        vmx::write(field::PREEMPTION_TIMER, 0);
    }
}

/// Ends the blocking of NMIs that an NMI exit leaves behind: only an IRET does. SDM 3C 28.2.
pub fn unblock_nmis() {
    // SAFETY: the frame returns to the next instruction with the same stack, flags and code segment.
    unsafe {
        asm!(
            "mov {scratch}, rsp",
            "push {ss}",
            "push {scratch}",
            "pushfq",
            "mov {scratch:e}, cs",
            "push {scratch}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "iretq",
            "2:",
            scratch = out(reg) _,
            ss = in(reg) u64::from(SS::get_reg().0),
        );
    }
}
