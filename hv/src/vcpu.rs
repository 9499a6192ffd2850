//! A vCPU, the same for both vendors: its registers, what its control block does not carry, and the state that decisions are made from.

use hv_core::exit::{Preserved, Registers, VcpuState};
use hv_core::inbox::Inbox;
use hv_core::ipi::{BOOTSTRAP, Errand};
use hv_core::msr::CoreKind;
use hv_core::pace::TimerLead;
use hv_defs::cpuid::xcr0;

use crate::switched::{self, Switched};

/// One virtual processor. Lives at a fixed address: the exit stubs find it by its registers.
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
    /// Physical address of the processor's control block: a VMCS or a VMCB.
    pub block: u64,
    /// Physical address of the block from which VMLOAD restores the hypervisor's FS, GS, TR and LDTR. AMD-V only.
    pub host_block: u64,
    /// Address of the code that runs this vCPU. AMD-V only.
    pub run: u64,
    /// Called where the processor did not take the block; returns the vCPU to enter next.
    pub entry_failed: extern "C" fn(*mut Vcpu) -> *mut Vcpu,
    /// Index in the table of its core, which it never leaves.
    pub core: usize,
    /// TSC at which the hypervisor must look at the clock again: end of the window or the guest's
    /// timer, whichever comes first. Time-shared cores only.
    pub deadline: u64,
    /// TSC at which the running window ends. Time-shared cores only.
    pub window_end: u64,
    /// The timer that ends windows counts one for each 2^shift ticks.
    pub timer_shift: u32,
    /// Controls of the block that change, as they stand there. The back end's own.
    pub controls: u32,
    /// The processor answers for the virtual APIC and delivers its interrupts. Time-shared cores only.
    pub apic_virtualization: bool,
    /// Its core's MSR permission maps.
    pub msr_maps: MsrMaps,
    /// The one in the block is that of an enabled APIC.
    pub apic_is_on: bool,
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
    /// Registers that neither the block nor `registers` carries.
    pub switched: Switched,
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
    /// Where it starts.
    pub start: Start,
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
    /// It got that, with this vector, while it was not loaded.
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

/// What a vCPU is made from.
pub struct Parts {
    /// Physical address of its control block.
    pub block: u64,
    /// See [`Vcpu::host_block`].
    pub host_block: u64,
    /// See [`Vcpu::entry_failed`].
    pub entry_failed: extern "C" fn(*mut Vcpu) -> *mut Vcpu,
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
    /// See [`Vcpu::timer_shift`].
    pub timer_shift: u32,
    /// See [`Vcpu::controls`].
    pub controls: u32,
    /// See [`Vcpu::apic_virtualization`].
    pub apic_virtualization: bool,
    /// Where it starts, unless another vCPU starts it.
    pub start: Start,
    /// What the partition's other vCPUs have for it.
    pub inbox: &'static Inbox,
    /// Its core's MSR permission maps.
    pub msr_maps: MsrMaps,
}

/// Physical addresses of the MSR permission maps of a core.
#[derive(Clone, Copy, Debug)]
pub struct MsrMaps {
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
    pub fn new(parts: Parts) -> Self {
        let registers =
            Registers { rax: MULTIBOOT2_MAGIC, rbx: parts.start.boot_info, ..Registers::default() };
        let life = if parts.number as usize == BOOTSTRAP { Life::Runs } else { Life::AwaitsStart };
        Self {
            life,
            inbox: parts.inbox,
            msr_maps: parts.msr_maps,
            apic_is_on: true,
            preserved: Preserved::default(),
            registers,
            pending: Pending::Nothing,
            host_stack: parts.host_stack,
            block: parts.block,
            host_block: parts.host_block,
            run: 0,
            entry_failed: parts.entry_failed,
            core: parts.core,
            deadline: u64::MAX,
            window_end: u64::MAX,
            timer_shift: parts.timer_shift,
            controls: parts.controls,
            apic_virtualization: parts.apic_virtualization,
            state: parts.state,
            number: parts.number,
            timer_lead: TimerLead::new(parts.most_timer_lead),
            sleeps_until: 0,
            switched: Switched::new(switched::speculation_msrs().control),
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

    /// Just behind the register area, where the exit stubs store downwards from.
    pub fn behind_registers(&self) -> u64 {
        (&raw const self.registers as u64) + size_of::<Registers>() as u64
    }

    /// Whether its core is the partition's alone.
    #[inline(always)]
    pub fn is_dedicated(&self) -> bool {
        self.state.kind == CoreKind::Dedicated
    }

    /// A general-purpose register by its number in an instruction; `None` for RSP, which the control block has.
    pub const fn general_register(&self, number: u8) -> Option<u64> {
        let (registers, preserved) = (&self.registers, &self.preserved);
        Some(match number {
            0 => registers.rax,
            1 => registers.rcx,
            2 => registers.rdx,
            3 => registers.rbx,
            4 => return None,
            5 => preserved.rbp,
            6 => registers.rsi,
            7 => registers.rdi,
            8 => registers.r8,
            9 => registers.r9,
            10 => registers.r10,
            11 => registers.r11,
            12 => preserved.r12,
            13 => preserved.r13,
            14 => preserved.r14,
            _ => preserved.r15,
        })
    }

    /// The same, to be written.
    pub const fn general_register_mut(&mut self, number: u8) -> Option<&mut u64> {
        let (registers, preserved) = (&mut self.registers, &mut self.preserved);
        Some(match number {
            0 => &mut registers.rax,
            1 => &mut registers.rcx,
            2 => &mut registers.rdx,
            3 => &mut registers.rbx,
            4 => return None,
            5 => &mut preserved.rbp,
            6 => &mut registers.rsi,
            7 => &mut registers.rdi,
            8 => &mut registers.r8,
            9 => &mut registers.r9,
            10 => &mut registers.r10,
            11 => &mut registers.r11,
            12 => &mut preserved.r12,
            13 => &mut preserved.r13,
            14 => &mut preserved.r14,
            _ => &mut preserved.r15,
        })
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

    /// Saves what the control block does not carry, behind [`Self::take_speculation_control`].
    pub fn save_switched(&mut self) {
        let allowed = self.state.xcr0_allowed;
        self.switched.save(allowed);
    }

    /// Everything but the control block as behind INIT and a start-up interrupt. What INIT leaves alone (x87 and vector state, XCR0, most
    /// MSRs) stays. SDM 3A 9.1.1 table 9-1, 9.4.2, 11.4.4. The vCPU has its core.
    pub fn reset_for_start_up(&mut self) {
        self.life = Life::Runs;
        // EDX tells family, model and stepping.
        let signature = self.state.cpuid.lookup(1, 0).eax;
        self.preserved = Preserved::default();
        self.registers = Registers { rdx: u64::from(signature), ..Registers::default() };
        self.state.cpuid.set_osxsave(false);
        self.switched.reset_debug();
    }

    /// Everything but the control block as at its first start, with nothing of its life so far in it, but for its virtual APIC and whether it
    /// waits for its start-up interrupt. The vCPU has its core.
    pub fn reset_for_restart(&mut self) {
        self.life = Life::Runs;
        self.preserved = Preserved::default();
        self.registers =
            Registers { rax: MULTIBOOT2_MAGIC, rbx: self.start.boot_info, ..Registers::default() };
        self.state.cpuid.set_osxsave(false);
        self.state.cpuid.set_xcr0(xcr0::X87);
        self.requeued = None;
        self.state.errand = Errand::NONE;
        self.sleeps_until = 0;
        self.switched = Switched::new(self.switched.has_speculation_control());
        self.switched.load(self.state.xcr0_allowed);
    }
}
