//! A vCPU: its registers, its VMCS and what the VMCS does not carry.
#![expect(unsafe_code, reason = "writes VMCS fields and switches machine registers")]

use core::arch::asm;

use hv_core::cpuid::SpeculationMsrs;
use hv_core::exit::{ControlLoad, Event, Paging, Preserved, Registers, VcpuState};
use hv_core::inbox::Inbox;
use hv_core::ipi::{BOOTSTRAP, Errand};
use hv_core::msr::CoreKind;
use hv_core::pace::TimerLead;
use hv_defs::cpuid::xcr0;
use hv_defs::msr;
use hv_defs::vmcs::{entry_control, field, interruptibility, interruption, pin, processor};
use x86_64::registers::control::{Cr2, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::{SS, Segment};

use super::controls::Controls;
use super::instructions as vmx;

/// One virtual processor. Lives at a fixed address: HOST_RSP of its VMCS points into it.
///
/// Its first page holds the guest's registers and is mapped on its own core only. The pages from [`STATE`] on hold nothing of the guest's,
/// and every core may read the counters in them.
#[repr(C, align(4096))]
pub struct Vcpu {
    /// The guest's registers that calls preserve, while more is done about an exit than to answer it; until then they are still in the
    /// machine. First: the stub counts on it.
    pub preserved: Preserved,
    /// The guest's other general-purpose registers while the hypervisor runs. Second: the stub counts on it.
    pub registers: Registers,
    /// Top of the hypervisor's stack on this vCPU's core, 16-byte aligned.
    pub host_stack: u64,
    /// Physical address of the VMCS.
    pub vmcs: u64,
    /// Index in the table of its core, which it never leaves.
    pub core: usize,
    /// TSC at which the hypervisor must look at the clock again: end of the window or the guest's
    /// timer, whichever comes first. Time-shared cores only.
    pub deadline: u64,
    /// TSC at which the running window ends. Time-shared cores only.
    pub window_end: u64,
    /// The preemption timer counts one for each 2^shift ticks.
    pub timer_shift: u32,
    /// Primary processor controls as they stand in the VMCS.
    processor_controls: u32,
    /// The processor answers for the virtual APIC and delivers its interrupts. Time-shared cores only.
    pub apic_virtualization: bool,
    /// Its core's MSR bitmaps.
    pub msr_bitmaps: MsrBitmaps,
    /// The one in the VMCS is that of an enabled APIC.
    apic_is_on: bool,
    /// Whether it runs.
    pub life: Life,
    /// What the partition's other vCPUs have for it.
    pub inbox: &'static Inbox,
    /// Its number within the partition.
    pub number: u32,
    /// How much earlier than the guest's timer the core looks up. Time-shared cores only.
    pub timer_lead: TimerLead,
    /// Frame before which its windows stay idle, because it sleeps. Time-shared cores only.
    pub sleeps_until: u64,
    /// Registers that neither the VMCS nor `registers` carries.
    switched: Switched,
    /// Figures of the windows that ran.
    pub windows: WindowFigures,
    /// An interrupt of a dedicated core that was acknowledged and not delivered yet.
    pub requeued: Option<u8>,
    /// TSC just before the first entry; 0 before that.
    pub first_entry: u64,
    /// TSC when the hypervisor decided to stop the partition for what this vCPU did; 0 while it did not.
    pub stopped_at: u64,
    /// What is left to do about the exit that was taken last.
    pub pending: Pending,
    start: Start,
    /// Number of the partition's restart for which it stopped last. Time-shared cores only.
    pub stopped_for: u32,
    /// Decisions are made from this. Last, and on pages of its own.
    pub state: VcpuState,
}

/// Bytes ahead of [`Vcpu::state`].
pub const STATE: usize = core::mem::offset_of!(Vcpu, state);

const _: () = assert!(STATE == 4096, "the guest's registers take one page");

/// Where the first vCPU of a partition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// Initial RBX: where the boot information lies.
    pub boot_info: u64,
}

/// What the quick half of an exit leaves to the other one, for which every register is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The exit is dealt with, but the window or the guest's timer ran out meanwhile.
    Nothing,
    /// All of it: nothing was done about the exit.
    Exit,
}

/// Whether a vCPU runs. SDM 3A 9.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs whenever it has its core.
    Runs,
    /// It was reset, or not started yet, and waits for its start-up interrupt.
    AwaitsStart,
    /// It got that, with this vector, while its VMCS was not loaded.
    StartsAt(u8),
}

/// Figures of the windows of one partition.
#[derive(Clone, Copy, Debug)]
pub struct WindowFigures {
    /// Windows that ran.
    pub run: u64,
    /// Windows that were missed whole, or into which the switch was not done at the declared start.
    pub late: u64,
    /// Largest lateness of an entry, in ticks.
    pub latest: u64,
    /// Smallest lateness of an entry, in ticks.
    pub earliest: u64,
    /// Timer interrupts that came due outside the windows.
    pub timers_outside: u64,
}

/// MSRs that the guest may write and the VMCS does not carry: KERNEL_GS_BASE, STAR, LSTAR, CSTAR, FMASK, TSC_AUX.
const SWITCHED_MSRS: [u32; 6] =
    [0xC000_0102, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0103];

/// Bytes of the XSAVE area: what x87, SSE, AVX and AVX-512 take in the standard format (SDM 1 13.5). A processor that wants more gets
/// the first two only: see [`xcr0_allowed`].
const XSAVE_BYTES: usize = 2688;

/// An XSAVE area. SDM 1 13.4.
#[repr(C, align(64))]
struct XsaveArea([u8; XSAVE_BYTES]);

struct Switched {
    /// IA32_SPEC_CTRL, where the processor has it.
    speculation: Option<u64>,
    msrs: [u64; SWITCHED_MSRS.len()],
    debug: [u64; 4],
    dr6: u64,
    cr2: u64,
    xcr0: u64,
    xsave: XsaveArea,
}

/// What a vCPU is made from.
pub struct Parts {
    /// Physical address of its VMCS region.
    pub vmcs: u64,
    /// Index in the table of its core.
    pub core: usize,
    /// Most ticks by which its core looks up earlier than its timer.
    pub most_timer_lead: u64,
    /// Top of its core's stack.
    pub host_stack: u64,
    /// Its decisions' state.
    pub state: VcpuState,
    /// Its number within the partition.
    pub number: u32,
    /// Where it starts, unless another vCPU starts it.
    pub start: Start,
    /// What the partition's other vCPUs have for it.
    pub inbox: &'static Inbox,
    /// Its core's MSR bitmaps.
    pub msr_bitmaps: MsrBitmaps,
}

/// Physical addresses of the MSR bitmaps of a core.
#[derive(Clone, Copy, Debug)]
pub struct MsrBitmaps {
    /// While the guest has its APIC enabled; a dedicated core's only one.
    pub apic_on: u64,
    /// While it has not: SELF_IPI exits.
    pub apic_off: u64,
}

/// EAX of a guest's start: it is started the Multiboot2 way.
const MULTIBOOT2_MAGIC: u64 = 0x36D7_6289;

impl Vcpu {
    /// A vCPU at its first instruction, with every register defined and nothing of a former owner in it. All but the bootstrap vCPU
    /// wait to be started by another.
    pub fn new(parts: Parts, controls: &Controls) -> Self {
        let registers =
            Registers { rax: MULTIBOOT2_MAGIC, rbx: parts.start.boot_info, ..Registers::default() };
        let life = if parts.number as usize == BOOTSTRAP { Life::Runs } else { Life::AwaitsStart };
        Self {
            life,
            inbox: parts.inbox,
            msr_bitmaps: parts.msr_bitmaps,
            apic_is_on: true,
            preserved: Preserved::default(),
            registers,
            pending: Pending::Nothing,
            host_stack: parts.host_stack,
            vmcs: parts.vmcs,
            core: parts.core,
            deadline: u64::MAX,
            window_end: u64::MAX,
            timer_shift: super::controls::preemption_timer_shift(),
            processor_controls: controls.processor,
            apic_virtualization: controls.has_virtual_interrupt_delivery(),
            state: parts.state,
            number: parts.number,
            timer_lead: TimerLead::new(parts.most_timer_lead),
            sleeps_until: 0,
            switched: Switched::new(speculation_msrs().control),
            windows: WindowFigures {
                run: 0,
                late: 0,
                latest: 0,
                earliest: u64::MAX,
                timers_outside: 0,
            },
            requeued: None,
            first_entry: 0,
            start: parts.start,
            stopped_for: 0,
            stopped_at: 0,
        }
    }

    /// HOST_RSP of this vCPU: just behind the register area.
    pub fn host_rsp(&self) -> u64 {
        (&raw const self.registers as u64) + size_of::<Registers>() as u64
    }

    /// Whether its core is the partition's alone.
    #[inline(always)]
    pub fn is_dedicated(&self) -> bool {
        self.state.kind == CoreKind::Dedicated
    }

    /// Sets or clears interrupt-window exiting. SDM 3C 25.6.2.
    pub fn ask_for_interrupt_window(&mut self, ask: bool) {
        self.set_processor_control(processor::INTERRUPT_WINDOW_EXITING, ask);
    }

    /// Sets or clears NMI-window exiting. SDM 3C 25.6.2.
    pub fn ask_for_nmi_window(&mut self, ask: bool) {
        self.set_processor_control(processor::NMI_WINDOW_EXITING, ask);
    }

    fn set_processor_control(&mut self, bit: u32, on: bool) {
        let wanted =
            if on { self.processor_controls | bit } else { self.processor_controls & !bit };
        if wanted != self.processor_controls {
            self.processor_controls = wanted;
            // SAFETY: only window-exiting bits change; both are allowed wherever virtual NMIs are. SDM 3C 25.6.2.
            unsafe { vmx::write(field::PROCESSOR_CONTROLS, u64::from(wanted)) };
        }
    }

    /// The delivery of `vector`, which is in service already, was interrupted: requests it again.
    pub fn take_back(&mut self, vector: u8) {
        self.state.apic.withdraw(vector);
        if self.apic_virtualization {
            self.tell_interrupt_status();
        } else {
            self.ask_for_interrupt_window(true);
        }
    }

    /// Tells a processor that delivers interrupts by itself what the virtual APIC raised since the last call: which vector is requested
    /// and which is in service.
    #[inline(always)]
    pub fn tell_interrupt_status(&mut self) {
        if self.state.apic.is_enabled() != self.apic_is_on {
            self.choose_msr_bitmap();
        }
        if let Some(status) = self.state.apic.take_changed_status() {
            // SAFETY: both bytes are what the virtual-APIC page says, as the processor itself keeps them. SDM 3C 25.4.2, 30.1.1.
            unsafe { vmx::write(field::GUEST_INTERRUPT_STATUS, u64::from(status)) };
        }
    }

    #[cold]
    fn choose_msr_bitmap(&mut self) {
        self.apic_is_on = self.state.apic.is_enabled();
        let MsrBitmaps { apic_on, apic_off } = self.msr_bitmaps;
        // SAFETY: both are static pages that the core filled by the policy. SDM 3C 25.6.9.
        unsafe { vmx::write(field::MSR_BITMAP, if self.apic_is_on { apic_on } else { apic_off }) };
    }

    /// Takes IA32_SPEC_CTRL from the guest, at the end of its window: with the guest's restrictions (IBRS, SSBD) in force, the switch and what
    /// the hypervisor does until the next window would be slower by the guest's choice.
    pub fn take_speculation_control(&mut self) {
        self.switched.take_speculation_control();
    }

    /// Gives it back, where the same vCPU has the next window.
    pub fn give_speculation_control(&self) {
        self.switched.load_speculation_control();
    }

    /// Saves what the VMCS does not carry, behind [`Self::take_speculation_control`].
    pub fn save_switched(&mut self) {
        let allowed = self.state.xcr0_allowed;
        self.switched.save(allowed);
    }

    /// Loads what the VMCS does not carry, and the VMCS, before this vCPU's window.
    pub fn load(&mut self) {
        // SAFETY: the region is this vCPU's own, initialised at set-up, and active on this core only.
        let loaded = unsafe { vmx::vmptrld(self.vmcs) };
        if loaded.is_err() {
            vmptrld_refused();
        }
        let allowed = self.state.xcr0_allowed;
        self.switched.load(allowed);
    }

    /// Starts as a processor does behind INIT and a start-up interrupt: in real mode at `vector` times 4096. What INIT leaves alone (x87
    /// and vector state, XCR0, most MSRs) stays. SDM 3A 9.1.1 table 9-1, 9.4.2, 11.4.4. The VMCS is current.
    pub fn start_up(&mut self, vector: u8) {
        self.life = Life::Runs;
        // EDX tells family, model and stepping.
        let signature = self.state.cpuid.lookup(1, 0).eax;
        self.preserved = Preserved::default();
        self.registers = Registers { rdx: u64::from(signature), ..Registers::default() };
        self.state.cpuid.set_osxsave(false);
        self.switched.reset_debug();
        self.ask_for_interrupt_window(false);
        self.ask_for_nmi_window(false);
        super::setup::start_up(vector);
    }

    /// Puts it into the state of its first start, with nothing of its life so far in it, but for its virtual APIC and whether it waits for
    /// its start-up interrupt. The VMCS is current, and the vCPU has its core.
    pub fn refresh(&mut self) {
        self.life = Life::Runs;
        self.preserved = Preserved::default();
        self.registers =
            Registers { rax: MULTIBOOT2_MAGIC, rbx: self.start.boot_info, ..Registers::default() };
        self.state.cpuid.set_osxsave(false);
        self.state.cpuid.set_xcr0(xcr0::X87);
        self.requeued = None;
        self.state.errand = Errand::NONE;
        self.sleeps_until = 0;
        self.switched = Switched::new(self.switched.speculation.is_some());
        self.switched.load(self.state.xcr0_allowed);
        self.ask_for_interrupt_window(false);
        self.ask_for_nmi_window(false);
        super::setup::refresh(self.start.entry);
    }

    /// Notes the XCR0 that the guest runs with from now on, and loads it.
    pub fn set_xcr0(&mut self, value: u64) {
        self.switched.xcr0 = value;
        write_xcr0(value);
    }
}

impl Switched {
    const fn new(has_speculation_control: bool) -> Self {
        let mut xsave = XsaveArea([0; XSAVE_BYTES]);
        // MXCSR's reset value (SDM 1 11.6.4) in the legacy area; the header stays zero, so XRSTOR gives every
        // component its initial state.
        xsave.0[24] = 0x80;
        xsave.0[25] = 0x1F;
        Self {
            speculation: if has_speculation_control { Some(0) } else { None },
            msrs: [0; SWITCHED_MSRS.len()],
            debug: [0; 4],
            dr6: DR6_RESET,
            cr2: 0,
            xcr0: 1,
            xsave,
        }
    }

    fn save(&mut self, xcr0_allowed: u64) {
        for (slot, number) in self.msrs.iter_mut().zip(SWITCHED_MSRS) {
            // SAFETY: architectural MSRs of every 64-bit processor with RDTSCP; reading has no effect.
            *slot = unsafe { Msr::new(number).read() };
        }
        // SAFETY: reading debug registers and CR2 has no effect; DR7 is 0x400 since the exit (SDM 3C 28.5.1), so none traps.
        unsafe {
            asm!("mov {}, dr0", out(reg) self.debug[0], options(nomem, nostack));
            asm!("mov {}, dr1", out(reg) self.debug[1], options(nomem, nostack));
            asm!("mov {}, dr2", out(reg) self.debug[2], options(nomem, nostack));
            asm!("mov {}, dr3", out(reg) self.debug[3], options(nomem, nostack));
            asm!("mov {}, dr6", out(reg) self.dr6, options(nomem, nostack));
        }
        self.cr2 = Cr2::read_raw();
        write_xcr0(xcr0_allowed);
        // SAFETY: the area is 64-byte aligned and larger than the allowed components need, which
        // `xsave_fits` checked at set-up.
        unsafe {
            asm!("xsave64 [{}]", in(reg) self.xsave.0.as_mut_ptr(),
                 in("eax") xcr0_allowed as u32, in("edx") (xcr0_allowed >> 32) as u32,
                 options(nostack));
        }
    }

    /// Debug registers and CR2 as INIT leaves them, in the machine: the vCPU has its core.
    fn reset_debug(&mut self) {
        self.debug = [0; 4];
        self.dr6 = DR6_RESET;
        self.cr2 = 0;
        self.load_debug();
    }

    fn load_speculation_control(&self) {
        if let Some(value) = self.speculation {
            // SAFETY: the processor has the register, and the value was read from it, or is 0, as after reset.
            unsafe { Msr::new(msr::SPEC_CTRL).write(value) };
        }
    }

    /// Keeps the guest's value and writes 0, as after reset.
    fn take_speculation_control(&mut self) {
        if let Some(value) = &mut self.speculation {
            let mut control = Msr::new(msr::SPEC_CTRL);
            // SAFETY: the processor has the register, as `new` was told; 0 restricts nothing.
            unsafe {
                *value = control.read();
                control.write(0);
            }
        }
    }

    fn load_debug(&self) {
        // SAFETY: the hypervisor sets no breakpoint (DR7 is 0x400 in root mode), so the addresses are inert until the guest runs.
        unsafe {
            asm!("mov dr0, {}", in(reg) self.debug[0], options(nomem, nostack));
            asm!("mov dr1, {}", in(reg) self.debug[1], options(nomem, nostack));
            asm!("mov dr2, {}", in(reg) self.debug[2], options(nomem, nostack));
            asm!("mov dr3, {}", in(reg) self.debug[3], options(nomem, nostack));
            asm!("mov dr6, {}", in(reg) self.dr6, options(nomem, nostack));
            asm!("mov cr2, {}", in(reg) self.cr2, options(nomem, nostack));
        }
    }

    fn load(&mut self, xcr0_allowed: u64) {
        self.load_speculation_control();
        for (value, number) in self.msrs.iter().zip(SWITCHED_MSRS) {
            // SAFETY: each value was read from the same MSR, or is 0, which all six accept; the hypervisor uses none of them.
            unsafe { Msr::new(number).write(*value) };
        }
        self.load_debug();
        write_xcr0(xcr0_allowed);
        // SAFETY: the area came from XSAVE with the same components, or is the clean area of `new`; the hypervisor is soft-float, so no
        // vector register of its own is lost.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) self.xsave.0.as_ptr(),
                 in("eax") xcr0_allowed as u32, in("edx") (xcr0_allowed >> 32) as u32,
                 options(nostack));
        }
        write_xcr0(self.xcr0);
    }
}

/// With another VMCS still current, another partition's memory would be entered: the core ends instead. No guest can cause it, because the
/// region is the hypervisor's own.
#[cold]
#[inline(never)]
fn vmptrld_refused() -> ! {
    panic!("VMPTRLD refused a VMCS that was filled")
}

/// DR6 after reset. SDM 3B 18.2.3.
const DR6_RESET: u64 = 0xFFFF_0FF0;

fn write_xcr0(value: u64) {
    // SAFETY: the value is the allowed mask, or was checked by `hv_core::exit::xcr0_is_valid`; the hypervisor uses no vector register.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nomem, nostack));
    }
}

/// The MSRs that this processor has against speculation.
pub fn speculation_msrs() -> SpeculationMsrs {
    SpeculationMsrs::from_leaf(core::arch::x86_64::__cpuid_count(7, 0).edx)
}

/// Prepares a core for the guests' extended states: CR4.OSXSAVE on.
pub fn prepare_extended_state() {
    // SAFETY: XSAVE was verified at boot; the bit only makes XSETBV and XSAVE usable.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE)) };
}

/// XCR0 components that guests may use here: x87, SSE, AVX, AVX-512, as far as the processor has them and
/// they fit the area.
pub fn xcr0_allowed() -> u64 {
    const OFFERED: u64 = 0b1110_0111;
    let leaf = core::arch::x86_64::__cpuid_count(0xD, 0);
    let supported = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & OFFERED;
    if xsave_fits(supported) { supported } else { supported & 0b11 }
}

fn xsave_fits(components: u64) -> bool {
    (2..63).filter(|bit| components & (1 << bit) != 0).all(|bit| {
        let leaf = core::arch::x86_64::__cpuid_count(0xD, bit);
        u64::from(leaf.eax) + u64::from(leaf.ebx) <= XSAVE_BYTES as u64
    })
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
