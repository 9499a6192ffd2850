//! What the run loop asks of a processor's virtualization. VT-x implements it in `vmx`; a back end names nothing of the run loop.
//!
//! Two directions. Downwards, the run loop calls the operations of [`Backend`]. Upwards, an exit reaches the run loop through the
//! [`Handlers`] that the run loop handed down when it made the vCPU.
#![expect(unsafe_code, reason = "an entry is a promise about what is loaded")]

use hv_core::exit::{Event, Request};
use hv_core::msr::CoreKind;
use hv_core::paging::{Format, LargePages};

use crate::vcpu::Vcpu;

/// A page that the processor reads and writes behind our back: control blocks, save areas, permission maps.
#[repr(C, align(4096))]
pub struct Page(pub [u64; 512]);

/// The processor refused a control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What runs behind an exit of one kind of vCPU. Each kind has exit code of its own, so that none asks for it.
pub trait Handlers {
    /// Kind of the core.
    const KIND: CoreKind;
    /// The vCPU has the devices of a PC.
    const HAS_PC: bool;
    /// What follows where the answer is not all.
    type Second: SecondHalf;

    /// The exit was answered. Returns the vCPU, to be entered again, or null when the second half has to look at the clock.
    fn enter_again(vcpu: &mut Vcpu) -> *mut Vcpu;
}

/// The second half of an exit, the same for both kinds of core.
pub trait SecondHalf {
    /// Returns the vCPU to enter next. Every register of the guest is stored.
    extern "C" fn run(vcpu: *mut Vcpu) -> *mut Vcpu;
}

/// What a vCPU of this core is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// See [`Vcpu::timer_shift`].
    pub timer_shift: u32,
    /// See [`Vcpu::controls`].
    pub controls: u32,
    /// See [`Vcpu::apic_virtualization`].
    pub apic_virtualization: bool,
    /// RDRAND and RDSEED do not exit.
    pub random_numbers: bool,
    /// CR4 bits that the processor lets a guest set.
    pub cr4_possible: u64,
    /// Format of the nested page tables.
    pub nested: Format,
    /// Largest pages of the nested page tables.
    pub largest: LargePages,
}

/// What the control block of a vCPU names, and where its guest starts.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Physical address of the root of the partition's nested page tables.
    pub nested_root: u64,
    /// Physical address of the map of I/O ports: three pages, every bit set.
    pub port_map: u64,
    /// Tag of the guest's translations: not 0, unique in the machine.
    pub tag: u16,
    /// Guest-physical address of the first instruction.
    pub entry: u64,
}

/// The operations. Those on a vCPU want it loaded on this core, unless they say otherwise.
pub trait Backend: 'static {
    /// Switches virtualization on, on this core, and fills the MSR permission maps of a core of this kind. `region` is the core's own for
    /// ever.
    ///
    /// # Errors
    /// [`Refused`] when the processor refuses.
    fn enable(
        kind: CoreKind,
        region: &'static mut Page,
        maps: &'static mut [Page; 2],
    ) -> Result<(), Refused>;

    /// What vCPUs on this core are made with, where it is of this kind.
    fn settings(kind: CoreKind) -> Settings;

    /// Fills the control block of a vCPU whose exits go to `H`.
    ///
    /// # Errors
    /// [`Refused`] when the processor refuses.
    fn fill<H: Handlers>(
        vcpu: &Vcpu,
        block: &'static mut Page,
        setup: &Setup,
    ) -> Result<(), Refused>;

    /// Drops all cached translations of nested page tables on this core.
    fn flush_nested();

    /// Loads a vCPU: its control block, and what that does not carry.
    fn load(vcpu: &mut Vcpu);

    /// Leaves whatever ran on this stack for good and enters `vcpu`.
    ///
    /// # Safety
    /// The vCPU is loaded and complete, and its host stack is this core's own.
    unsafe fn enter(vcpu: *mut Vcpu) -> !;

    /// The second half of an exit: reads it, decides, carries the decision out, and returns what is left to the run loop.
    fn finish(vcpu: &mut Vcpu) -> Request;

    /// Has the next entry deliver `event`.
    fn inject(vcpu: &mut Vcpu, event: Event);

    /// Has the next entry deliver interrupt `vector`.
    fn inject_interrupt(vcpu: &mut Vcpu, vector: u8);

    /// Whether the next entry delivers an event already.
    fn injection_is_pending(vcpu: &Vcpu) -> bool;

    /// Whether the guest takes a maskable interrupt now.
    fn accepts_interrupt(vcpu: &Vcpu) -> bool;

    /// Whether the guest takes an NMI now.
    fn accepts_nmi(vcpu: &Vcpu) -> bool;

    /// The next entry finds the guest running, if it had halted.
    fn wake(vcpu: &mut Vcpu);

    /// Has the guest exit, or not, as soon as it can take an interrupt.
    fn ask_for_interrupt_window(vcpu: &mut Vcpu, ask: bool);

    /// The same for an NMI.
    fn ask_for_nmi_window(vcpu: &mut Vcpu, ask: bool);

    /// Tells a processor that delivers interrupts by itself what the virtual APIC raised since the last call.
    fn tell_interrupt_status(vcpu: &mut Vcpu);

    /// Has the guest exit when the timer, of [`Vcpu::timer_shift`], has counted `count`. A time-shared core's timer stands still while the
    /// hypervisor runs.
    fn arm(vcpu: &mut Vcpu, count: u64);

    /// Has the next entry on this dedicated core exit at once. Called from the NMI handler, between an exit and the entry.
    fn exit_soon();

    /// Takes [`Self::exit_soon`] back.
    fn forget_exit_soon(vcpu: &mut Vcpu);

    /// The vCPU begins as behind INIT and a start-up interrupt with `vector`: real mode, at that page.
    fn start_up(vcpu: &mut Vcpu, vector: u8);

    /// The vCPU begins as at its first start.
    fn refresh(vcpu: &mut Vcpu);

    /// Takes the interrupt of the machine that made the guest exit from the local APIC.
    fn end_interrupt();

    /// RIP of the guest.
    fn instruction_pointer(vcpu: &Vcpu) -> u64;

    /// The processor's number of why it did not take a control block.
    fn entry_error(vcpu: &Vcpu) -> u64;
}
