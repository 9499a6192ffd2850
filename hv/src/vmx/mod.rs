//! The VT-x back end: VMX operation, VMCS set-up, entry and exit, and nothing that decides.
#![expect(unsafe_code, reason = "enters guests")]

pub mod controls;
mod entry;
mod exits;
mod guest;
mod instructions;
mod setup;

use hv_core::exit::{Event, Request};
use hv_core::msr::{self, CoreKind};
use hv_core::paging::{Format, LargePages};
use hv_defs::vmcs::field;

use crate::backend::{Backend, Handlers, Page, Refused, Settings, Setup};
use crate::cpu::instructions as machine;
use crate::switched;
use crate::vcpu::Vcpu;
pub use controls::missing_controls;

/// VT-x with EPT.
pub struct Vmx;

impl Backend for Vmx {
    fn enable(
        kind: CoreKind,
        region: &'static mut Page,
        maps: &'static mut [Page; 2],
    ) -> Result<(), Refused> {
        let [apic_on, apic_off] = maps;
        let apic_virtualization = controls::has_apic_virtualization();
        let speculation = switched::speculation_msrs();
        msr::bitmap(kind, apic_virtualization, speculation, &mut apic_on.0);
        msr::bitmap(kind, apic_virtualization, speculation, &mut apic_off.0);
        msr::close_self_ipi(&mut apic_off.0);
        setup::enable(region).map_err(|_| Refused)
    }

    fn settings(kind: CoreKind) -> Settings {
        let controls = controls::of(kind);
        Settings {
            timer_shift: controls::preemption_timer_shift(),
            controls: controls.processor,
            apic_virtualization: controls.has_virtual_interrupt_delivery(),
            random_numbers: !controls::intercepts_random_numbers(),
            cr4_possible: controls::cr4_possible(),
            nested: Format::Ept,
            largest: if controls::has_huge_ept_pages() {
                LargePages::Up1G
            } else {
                LargePages::Up2M
            },
        }
    }

    fn fill<H: Handlers>(
        vcpu: &Vcpu,
        block: &'static mut Page,
        setup: &Setup,
    ) -> Result<(), Refused> {
        setup::fill::<H>(vcpu, block, setup).map_err(|_| Refused)
    }

    fn flush_nested() {
        instructions::invept_all();
    }

    fn load(vcpu: &mut Vcpu) {
        guest::load(vcpu);
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

    #[inline(always)]
    fn inject(_: &mut Vcpu, event: Event) {
        guest::inject(event);
    }

    fn inject_interrupt(_: &mut Vcpu, vector: u8) {
        guest::inject_interrupt(vector);
    }

    fn injection_is_pending(_: &Vcpu) -> bool {
        guest::injection_is_pending()
    }

    fn accepts_interrupt(_: &Vcpu) -> bool {
        guest::accepts_interrupt()
    }

    fn accepts_nmi(_: &Vcpu) -> bool {
        guest::accepts_nmi()
    }

    fn wake(_: &mut Vcpu) {
        guest::wake();
    }

    fn ask_for_interrupt_window(vcpu: &mut Vcpu, ask: bool) {
        guest::ask_for_interrupt_window(vcpu, ask);
    }

    fn ask_for_nmi_window(vcpu: &mut Vcpu, ask: bool) {
        guest::ask_for_nmi_window(vcpu, ask);
    }

    #[inline(always)]
    fn tell_interrupt_status(vcpu: &mut Vcpu) {
        guest::tell_interrupt_status(vcpu);
    }

    #[inline(always)]
    fn arm(_: &mut Vcpu, count: u64) {
        guest::write_timer(count);
    }

    fn exit_soon() {
        guest::exit_at_once();
    }

    fn forget_exit_soon(_: &mut Vcpu) {
        guest::stop_timer();
    }

    fn start_up(vcpu: &mut Vcpu, vector: u8) {
        vcpu.reset_for_start_up();
        guest::ask_for_interrupt_window(vcpu, false);
        guest::ask_for_nmi_window(vcpu, false);
        setup::start_up(vector);
    }

    fn refresh(vcpu: &mut Vcpu) {
        vcpu.reset_for_restart();
        guest::ask_for_interrupt_window(vcpu, false);
        guest::ask_for_nmi_window(vcpu, false);
        setup::refresh(vcpu.start.entry);
    }

    fn end_interrupt() {
        // The exit acknowledged it. SDM 3C 25.7.1
        machine::end_of_interrupt();
    }

    fn instruction_pointer(_: &Vcpu) -> u64 {
        instructions::read(field::GUEST_RIP)
    }

    fn entry_error(_: &Vcpu) -> u64 {
        instructions::read(field::INSTRUCTION_ERROR)
    }
}
