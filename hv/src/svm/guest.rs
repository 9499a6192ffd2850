//! Operations on the guest of a block.
#![expect(unsafe_code, reason = "writes fields of the block")]

use hv_core::exit::{ControlLoad, Event, Paging};
use hv_defs::apic;
use hv_defs::svm::EFER_SVME;
use hv_defs::vmcb::{
    control, event, intercept1, interrupt_state, save, tlb_control, virtual_interrupt,
};
use x86_64::registers::model_specific::Msr;

use super::block;
use crate::cpu::instructions as machine;
use crate::vcpu::Vcpu;

/// RFLAGS.TF, RFLAGS.IF.
const TRAP_FLAG: u64 = 1 << 8;
const INTERRUPT_FLAG: u64 = 1 << 9;
/// DR6.BS.
const SINGLE_STEP: u64 = 1 << 14;
const EFER_LMA: u64 = 1 << 10;

/// What the back end keeps in [`Vcpu::controls`]: the guest is in its NMI handler; it is about to leave it, at an IRET; it wants an NMI; it
/// stands at a HLT.
const IN_NMI: u32 = 1 << 0;
const AT_IRET: u32 = 1 << 1;
const WANTS_NMI: u32 = 1 << 2;
const AT_HLT: u32 = 1 << 3;

fn set(vcpu: &Vcpu, field: hv_defs::vmcb::Field, value: u64) {
    // SAFETY: this file changes the guest's own state, and intercepts on top of those of `setup`; each value is argued at its call.
    unsafe { block::write(vcpu, field, value) };
}

/// Steps over the instruction that exited, which has `length` bytes where the processor does not say. APM 2 15.7.1.
#[inline(always)]
pub fn step_over(vcpu: &mut Vcpu, length: u64) {
    let next = block::read(vcpu, control::NEXT_RIP);
    let next = if next != 0 { next } else { block::read(vcpu, save::RIP) + length };
    advance_to(vcpu, next);
}

/// Goes on at `next`: ends the shadow of STI or MOV SS, and raises the single-step trap that the skipped instruction would have.
#[inline(always)]
pub fn advance_to(vcpu: &mut Vcpu, next: u64) {
    set(vcpu, save::RIP, next); // The processor ignores the upper half outside 64-bit code. APM 2 15.5.1
    set(vcpu, control::INTERRUPT_STATE, 0); // APM 2 15.21.5
    if block::read(vcpu, save::RFLAGS) & TRAP_FLAG != 0 {
        core::hint::cold_path();
        single_step(vcpu);
    }
}

/// Steps over the CPUID of the bench's floor measurement.
#[cfg(feature = "floor")]
pub fn advance(vcpu: &mut Vcpu) {
    const CPUID_LENGTH: u64 = 2;
    step_over(vcpu, CPUID_LENGTH);
}

fn single_step(vcpu: &mut Vcpu) {
    set(vcpu, save::DR6, block::read(vcpu, save::DR6) | SINGLE_STEP);
    inject(vcpu, Event::Exception { vector: 1, error: None });
}

/// CR0.PE.
const PROTECTION: u64 = 1;

/// Has the next entry deliver `event`. APM 2 15.20.
pub fn inject(vcpu: &mut Vcpu, what: Event) {
    let info = match what {
        Event::Exception { vector, error } => {
            // Real mode has no error codes.
            let error = error.filter(|_| block::read(vcpu, save::CR0) & PROTECTION != 0);
            let code = error.map_or(0, |code| {
                event::HAS_ERROR_CODE | u64::from(code) << event::ERROR_CODE_SHIFT
            });
            u64::from(vector) | event::EXCEPTION | code
        }
        Event::Nmi => {
            leave_halt(vcpu);
            block_nmis(vcpu);
            2 | event::NMI
        }
    };
    set(vcpu, control::EVENT_INJECTION, info | event::VALID);
}

/// Has the next entry deliver external interrupt `vector`. APM 2 15.20.
pub fn inject_interrupt(vcpu: &mut Vcpu, vector: u8) {
    leave_halt(vcpu);
    set(vcpu, control::EVENT_INJECTION, u64::from(vector) | event::INTERRUPT | event::VALID);
}

/// Behind each exit of the second half: a flush that was asked for is done, and an IRET that left an NMI handler was executed.
pub fn note_exit(vcpu: &mut Vcpu) {
    set(vcpu, control::TLB_CONTROL, u64::from(tlb_control::KEEP)); // APM 2 15.16.1
    if vcpu.controls & AT_IRET != 0 {
        vcpu.controls &= !(AT_IRET | IN_NMI);
    }
    vcpu.controls &= !AT_HLT;
}

/// The guest stands at a HLT, where it stays until an event comes.
pub fn halt(vcpu: &mut Vcpu) {
    vcpu.controls |= AT_HLT;
}

/// An event ends a HLT: the guest goes on behind it.
fn leave_halt(vcpu: &mut Vcpu) {
    if vcpu.controls & AT_HLT != 0 {
        vcpu.controls &= !AT_HLT;
        step_over(vcpu, 1);
    }
}

/// The guest takes an NMI: none more until it executes IRET, which exits. APM 2 15.9.
fn block_nmis(vcpu: &mut Vcpu) {
    vcpu.controls = vcpu.controls & !WANTS_NMI | IN_NMI;
    intercept(vcpu, intercept1::IRET, true);
}

/// The guest is about to execute the IRET of its NMI handler.
pub fn return_from_nmi(vcpu: &mut Vcpu) {
    intercept(vcpu, intercept1::IRET, false);
    vcpu.controls |= AT_IRET;
    if vcpu.controls & WANTS_NMI != 0 {
        // The core looks again behind the IRET, as soon as the guest takes interrupts.
        request_window(vcpu);
    }
}

/// The delivery of an NMI was interrupted: it is asked for again.
pub fn nmi_was_interrupted(vcpu: &mut Vcpu) {
    intercept(vcpu, intercept1::IRET, false);
    vcpu.controls &= !(IN_NMI | AT_IRET);
    vcpu.controls |= WANTS_NMI;
}

/// Sets or clears an intercept at 00Ch. APM 2 table B-1.
fn intercept(vcpu: &Vcpu, bit: u32, on: bool) {
    let was = block::read(vcpu, control::INTERCEPT_1);
    let bit = u64::from(bit);
    set(vcpu, control::INTERCEPT_1, if on { was | bit } else { was & !bit });
}

/// Has the guest exit, or not, as soon as it can take an interrupt: a virtual interrupt of the highest priority is pending, and intercepted.
/// APM 2 15.21.4.
pub fn ask_for_interrupt_window(vcpu: &mut Vcpu, ask: bool) {
    if ask {
        request_window(vcpu);
    } else {
        let was = block::read(vcpu, control::VIRTUAL_INTERRUPT);
        set(vcpu, control::VIRTUAL_INTERRUPT, was & !virtual_interrupt::IRQ);
    }
}

fn request_window(vcpu: &Vcpu) {
    let was = block::read(vcpu, control::VIRTUAL_INTERRUPT);
    let pending = virtual_interrupt::IRQ | virtual_interrupt::IGNORE_TPR;
    set(vcpu, control::VIRTUAL_INTERRUPT, was | pending);
}

/// Has the guest get an NMI as soon as it takes one, or not.
pub fn ask_for_nmi_window(vcpu: &mut Vcpu, ask: bool) {
    if ask {
        vcpu.controls |= WANTS_NMI;
    } else {
        vcpu.controls &= !WANTS_NMI;
    }
}

/// Whether the guest takes a maskable interrupt now: IF set, no shadow.
pub fn accepts_interrupt(vcpu: &Vcpu) -> bool {
    block::read(vcpu, save::RFLAGS) & INTERRUPT_FLAG != 0
        && block::read(vcpu, control::INTERRUPT_STATE) & interrupt_state::SHADOW == 0
}

/// Whether the guest takes an NMI now.
pub fn accepts_nmi(vcpu: &Vcpu) -> bool {
    vcpu.controls & (IN_NMI | AT_IRET) == 0
        && block::read(vcpu, control::INTERRUPT_STATE) & interrupt_state::SHADOW == 0
}

/// Starts the core's timer, so that the guest exits at [`Vcpu::deadline`] at the latest.
pub fn arm(vcpu: &Vcpu) {
    let left = vcpu.deadline.saturating_sub(machine::tsc());
    // A count of 0 would stop it.
    let count = (left >> (vcpu.timer_shift & 63)).clamp(1, u64::from(u32::MAX));
    // SAFETY: the timer of a time-shared core's APIC is the hypervisor's; any 32-bit count is valid. SDM 3A 11.5.4.
    unsafe { Msr::new(apic::INITIAL_COUNT).write(count) };
}

/// Whether the guest executes 64-bit code.
pub fn is_64_bit(vcpu: &Vcpu) -> bool {
    block::control_state(vcpu.block).code_64
}

/// Loads CR0, checked. CD and NW stay clear: see [`super::setup`].
pub fn load_cr0(vcpu: &mut Vcpu, load: &ControlLoad) {
    const NOT_THE_GUESTS: u64 = (1 << 30) | (1 << 29);
    const EXTENSION_TYPE: u64 = 1 << 4;
    let efer = block::read(vcpu, save::EFER);
    match load.paging {
        Paging::EntersLong => set(vcpu, save::EFER, efer | EFER_LMA),
        Paging::LeavesLong => set(vcpu, save::EFER, efer & !EFER_LMA),
        Paging::Same | Paging::Turned => {}
    }
    set(vcpu, save::CR0, u64::from(load.cr0) & !NOT_THE_GUESTS | EXTENSION_TYPE);
    if load.paging != Paging::Same {
        flush(vcpu);
    }
}

/// Loads CR4, checked.
pub fn load_cr4(vcpu: &mut Vcpu, value: u64) {
    set(vcpu, save::CR4, value);
    flush(vcpu);
}

/// Loads EFER, checked. SVME stays set: VMRUN refuses a guest without it. APM 2 15.5.1.
pub fn load_efer(vcpu: &mut Vcpu, value: u64) {
    set(vcpu, save::EFER, value | EFER_SVME);
    flush(vcpu);
}

/// Drops the guest's translations at the next entry. APM 2 15.16.1.
pub fn flush(vcpu: &Vcpu) {
    set(vcpu, control::TLB_CONTROL, u64::from(tlb_control::FLUSH_ALL));
}

/// The debug exception goes on to the guest. The block has DR6 and DR7 as the processor set them ahead of the intercept. APM 2 15.12.2.
pub fn forward_debug(vcpu: &mut Vcpu) {
    inject(vcpu, Event::Exception { vector: 1, error: None });
}
