//! The AMD-V back end: SVM operation, VMCB set-up, entry and exit, and nothing that decides.
//!
//! The hypervisor runs with GIF=0 behind an exit, and so until the next entry: interrupts and NMIs of the machine wait, and none is lost
//! (APM 2 15.17). An NMI or an interrupt that waits at VMRUN exits before the guest's first instruction. So a kick needs no more than the
//! NMI itself.
//!
//! A window is ended by the one-shot timer of the core's own local APIC, whose interrupt exits. It goes on counting while the hypervisor
//! runs.
#![expect(unsafe_code, reason = "enters guests")]

mod block;
mod entry;
mod exits;
mod fetch;
mod guest;
mod instructions;
mod setup;

use hv_core::exit::{Event, Request};
use hv_core::msr::{self, CoreKind};
use hv_core::paging::{Format, LargePages};
use hv_defs::vmcb::{event, save};

use crate::backend::{Backend, Handlers, Page, Refused, Settings, Setup};
use crate::cpu::apic;
use crate::switched;
use crate::vcpu::Vcpu;

/// AMD-V with nested paging.
pub struct Svm;

impl Backend for Svm {
    const TIMER_STANDS_STILL: bool = false;

    fn enable(
        kind: CoreKind,
        region: &'static mut [Page; 2],
        maps: &'static mut [Page; 2],
    ) -> Result<(), Refused> {
        msr::permission_map(kind, switched::speculation_msrs(), block::words_of(maps));
        setup::enable(region);
        if kind == CoreKind::Shared {
            apic::use_one_shot_timer();
            instructions::open_gif_to_interrupts();
        }
        Ok(())
    }

    fn settings(_: CoreKind) -> Settings {
        Settings {
            timer_shift: apic::timer_shift(),
            controls: 0,
            apic_virtualization: false,
            random_numbers: true,
            // The guest's CR4 is the machine's while it runs, and every bit that the processor lacks is refused by its own #GP. APM 2 3.1.3.
            cr4_possible: setup::cr4_possible(),
            nested: Format::Npt,
            largest: LargePages::Up1G,
        }
    }

    fn fill<H: Handlers>(
        vcpu: &mut Vcpu,
        block: &'static mut Page,
        setup: &Setup,
    ) -> Result<(), Refused> {
        setup::fill::<H>(vcpu, block, setup);
        Ok(())
    }

    fn flush_nested() {
        // Each block is new, and its first entry flushes its own translations.
    }

    fn load(vcpu: &mut Vcpu) {
        vcpu.switched.load(vcpu.state.xcr0_allowed);
    }

    unsafe fn enter(vcpu: *mut Vcpu) -> ! {
        // SAFETY: the caller's contract.
        unsafe { entry::enter(vcpu) }
    }

    #[inline(always)]
    fn finish(vcpu: &mut Vcpu) -> Request {
        exits::finish(vcpu)
    }

    fn inject(vcpu: &mut Vcpu, event: Event) {
        guest::inject(vcpu, event);
    }

    fn inject_interrupt(vcpu: &mut Vcpu, vector: u8) {
        guest::inject_interrupt(vcpu, vector);
    }

    fn injection_is_pending(vcpu: &Vcpu) -> bool {
        block::read(vcpu, hv_defs::vmcb::control::EVENT_INJECTION) & event::VALID != 0
    }

    fn accepts_interrupt(vcpu: &Vcpu) -> bool {
        guest::accepts_interrupt(vcpu)
    }

    fn accepts_nmi(vcpu: &Vcpu) -> bool {
        guest::accepts_nmi(vcpu)
    }

    fn wake(_: &mut Vcpu) {
        // An injection wakes a guest that halted: see `guest::leave_halt`.
    }

    fn ask_for_interrupt_window(vcpu: &mut Vcpu, ask: bool) {
        guest::ask_for_interrupt_window(vcpu, ask);
    }

    fn ask_for_nmi_window(vcpu: &mut Vcpu, ask: bool) {
        guest::ask_for_nmi_window(vcpu, ask);
    }

    fn tell_interrupt_status(_: &mut Vcpu) {
        // No processor of this back end delivers interrupts by itself.
    }

    fn arm(vcpu: &mut Vcpu, _: u64) {
        guest::arm(vcpu);
    }

    fn exit_soon() {
        // The NMI itself is still pending, and exits at VMRUN. APM 2 15.17
    }

    fn forget_exit_soon(_: &mut Vcpu) {}

    fn absorb_interrupts() {
        instructions::open_gif_to_interrupts();
    }

    fn listen() {
        instructions::open_gif();
    }

    fn start_up(vcpu: &mut Vcpu, vector: u8) {
        vcpu.reset_for_start_up();
        setup::start_up(vcpu, vector);
    }

    fn refresh(vcpu: &mut Vcpu) {
        vcpu.reset_for_restart();
        setup::refresh(vcpu);
    }

    fn end_interrupt() {
        // The handler of the hypervisor's IDT takes it, and ends it.
        instructions::open_gif_to_interrupts();
    }

    fn instruction_pointer(vcpu: &Vcpu) -> u64 {
        block::read(vcpu, save::RIP)
    }

    fn entry_error(vcpu: &Vcpu) -> u64 {
        block::read(vcpu, hv_defs::vmcb::control::EXIT_CODE)
    }
}
