//! What follows from an exit: from what the guest did to what is done about it. Hardware-free, so that the host tests all of it.
//!
//! The way of an exit: the back end reads it out of the processor into an [`Exit`]. [`decide`] answers with an [`Action`]: an
//! [`Operation`] that the back end carries out, and a [`Request`] to the run loop. No other enum repeats either.
//!
//! | Module | Decides | Asked |
//! |---|---|---|
//! | [`access`] | CPUID, MSRs, I/O ports | at such an instruction; its fast paths ahead of everything else |
//! | [`control`] | CR0, CR4, CR8, XCR0 | at a write that touches bits which are not the guest's |
//! | [`hypercall`] | calls to the hypervisor | at VMCALL or VMMCALL |
//! | [`counters`] | nothing: counts exits and denied accesses | behind each exit |

pub mod access;
pub mod action;
pub mod control;
pub mod counters;
pub mod hypercall;
mod registers;

use bulkhead_table::{PartitionId, PlanId};

pub use access::PortAccess;
pub use action::{Action, Event, Operation, Request, Violation};
pub use control::{Control, ControlLoad, ControlState, Paging, xcr0_is_valid};
pub use counters::{Counters, DENIALS, Denial, EXIT_KINDS, ExitKind};
pub use registers::{Preserved, Registers};

use crate::cpuid::CpuidPolicy;
use crate::ipi::Errand;
use crate::msr::{self, CoreKind};
use crate::pc::Pc;
use crate::ring::Ring;
use crate::vapic::VirtualApic;
use action::{GENERAL_PROTECTION, INVALID_OPCODE};

/// Bytes of one vCPU's console ring.
pub const CONSOLE_RING: usize = 8192;

/// The ring between a vCPU's console and the drain. Each vCPU has its own, because a ring has one producer.
pub type ConsoleRing = Ring<CONSOLE_RING>;

/// What the guest did, or what happened to it, free of the vendor's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// CPUID; leaf in EAX, sub-leaf in ECX.
    Cpuid,
    /// VMCALL or VMMCALL.
    Hypercall {
        /// The caller runs at privilege level 0.
        privileged: bool,
    },
    /// RDMSR; the number is in ECX.
    ReadMsr,
    /// WRMSR; the number is in ECX, the value in EDX:EAX.
    WriteMsr,
    /// IN or OUT.
    Port(PortAccess),
    /// XSETBV; register number in ECX, value in EDX:EAX.
    SetExtendedControl,
    /// A move to CR8; time-shared cores only.
    WriteTaskPriority(u64),
    /// A move from CR8; time-shared cores only.
    ReadTaskPriority {
        /// The general-purpose register that gets the value.
        register: u8,
    },
    /// A move to CR0 or CR4 that touches bits which are not the guest's.
    WriteControl {
        /// Which one.
        register: Control,
        /// What the guest would load.
        value: u64,
    },
    /// An access to guest-physical memory that the table does not grant.
    Memory {
        /// Guest-physical address.
        address: u64,
        /// A store.
        write: bool,
        /// An instruction fetch.
        fetch: bool,
    },
    /// WBINVD or INVD.
    CacheFlush,
    /// An instruction that no partition has: VMX, SVM, SMX, MONITOR, MWAIT and their kind.
    Absent,
    /// RDPMC: no counter is granted.
    ReadCounter,
    /// An intercepted exception that the guest gets, with its error code where it has one.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code.
        error: Option<u32>,
    },
    /// The debug exception, intercepted on its way to the guest.
    Debug,
    /// A machine check was raised while the guest ran.
    MachineCheck,
    /// A non-maskable interrupt arrived in the guest.
    Nmi,
    /// A maskable interrupt arrived in the guest; time-shared cores only.
    Interrupt,
    /// The guest wrote an illegal vector to SELF_IPI, which APIC virtualization leaves to us behind the instruction.
    SelfIpiWritten,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// The timer of the hypervisor ran out.
    Timer,
    /// INIT or a start-up IPI reached the core itself: no partition's ever does, so it came from outside.
    Reset,
    /// The guest shut its processor down by a third fault.
    TripleFault,
    /// A task switch, which VT-x leaves to software.
    TaskSwitch,
    /// The hardware refused the guest's state.
    InvalidState,
    /// Anything else, by the vendor's own number.
    Unknown(u32),
}

impl Exit {
    /// The counter that it goes to.
    #[must_use]
    pub const fn kind(&self) -> ExitKind {
        match self {
            Self::Cpuid => ExitKind::Cpuid,
            Self::Hypercall { .. } => ExitKind::Hypercall,
            Self::ReadMsr => ExitKind::ReadMsr,
            Self::WriteMsr => ExitKind::WriteMsr,
            Self::Port(_) => ExitKind::Port,
            Self::SetExtendedControl => ExitKind::ExtendedControl,
            Self::WriteTaskPriority(_)
            | Self::ReadTaskPriority { .. }
            | Self::WriteControl { .. } => ExitKind::ControlRegister,
            Self::Memory { .. } => ExitKind::Memory,
            Self::CacheFlush => ExitKind::CacheFlush,
            Self::Absent => ExitKind::Absent,
            Self::ReadCounter => ExitKind::ReadCounter,
            Self::Exception { .. } | Self::Debug | Self::MachineCheck => ExitKind::Exception,
            Self::Nmi => ExitKind::Nmi,
            Self::Interrupt => ExitKind::Interrupt,
            Self::SelfIpiWritten => ExitKind::SelfIpi,
            Self::InterruptWindow => ExitKind::InterruptWindow,
            Self::NmiWindow => ExitKind::NmiWindow,
            Self::Timer => ExitKind::Timer,
            Self::Reset => ExitKind::Reset,
            Self::TripleFault => ExitKind::TripleFault,
            Self::TaskSwitch => ExitKind::TaskSwitch,
            Self::InvalidState => ExitKind::InvalidState,
            Self::Unknown(_) => ExitKind::Unknown,
        }
    }
}

/// What a partition may know of its running window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowView {
    /// TSC of the epoch.
    pub epoch: u64,
    /// Ticks of the major frame.
    pub frame: u64,
    /// Start within the frame, in ticks.
    pub start: u64,
    /// Length in ticks.
    pub length: u64,
    /// TSC behind its last instant.
    pub end: u64,
    /// Ticks before its end in which nothing long is begun: the next window's switch must not wait for it.
    pub quiet: u64,
}

impl WindowView {
    /// Whether the end is so near at `now` that nothing long may begin.
    const fn is_ending(&self, now: u64) -> bool {
        now.saturating_add(self.quiet) > self.end
    }
}

/// What a partition may do to the schedule, as the table says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduleRights {
    /// Number of plans that it may ask for; 0 without the right.
    pub plans: PlanId,
    /// Who receives what it donates.
    pub donates_to: Option<PartitionId>,
}

/// The state of a vCPU that decisions are made from. It takes whole pages, because every core may read the counters in it, and none of the
/// guest's registers are to lie beside them.
#[repr(align(4096))]
pub struct VcpuState {
    /// Whose it is.
    pub partition: PartitionId,
    /// Kind of its core.
    pub kind: CoreKind,
    /// What CPUID says.
    pub cpuid: CpuidPolicy,
    /// State components that XCR0 may enable.
    pub xcr0_allowed: u64,
    /// CR4 bits that the guest may set.
    pub cr4_allowed: u64,
    /// Facts behind MSR reads.
    pub msr: msr::MsrState,
    /// The virtual local APIC of a time-shared core; unused on a dedicated one.
    pub apic: VirtualApic,
    /// The running window; `None` on a dedicated core.
    pub window: Option<WindowView>,
    /// What it may do to the schedule.
    pub rights: ScheduleRights,
    /// The devices of a small PC, where it has them.
    pub pc: Option<Pc>,
    /// Where the console goes.
    pub console: &'static ConsoleRing,
    /// Counters.
    pub counters: Counters,
    /// What is left of its last interrupt command.
    pub errand: Errand,
    /// Why its partition is stopped, where it is by this vCPU.
    pub violation: Option<Violation>,
    /// The refusal of the exit that is being dealt with; of a PC partition only, which is told of each kind once.
    pub refusal: Option<Refusal>,
}

/// A refused access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub denial: Denial,
    /// The port or MSR number; 0 for other kinds.
    pub detail: u32,
}

impl VcpuState {
    /// Counts a denied access, and keeps what it was where the vCPU has the devices of a PC.
    fn deny(&mut self, denial: Denial, detail: u32) {
        self.counters.deny(denial);
        self.note_refusal(denial, detail);
    }

    #[inline(always)]
    fn note_refusal(&mut self, denial: Denial, detail: u32) {
        if self.pc.is_some() {
            self.refusal = Some(Refusal { denial, detail });
        }
    }

    /// Whether the window is about to end, so that an interrupt command is left to the next one: as if the core had been taken from the guest
    /// just before the instruction. Judging a command and sending it takes time with each vCPU of the partition; alone it is quick.
    #[inline]
    fn has_no_time_to_send(&self, machine: &impl Asked) -> bool {
        let judging = self.msr.peers.judging();
        judging > 0
            && self.window.is_some_and(|window| {
                machine.now().saturating_add(judging.max(window.quiet)) > window.end
            })
    }
}

/// What a decision asks the machine, each only where it is needed.
pub trait Asked {
    /// The TSC.
    fn now(&self) -> u64;
    /// The guest's control registers.
    fn control_state(&self) -> ControlState;
}

/// Decides about an exit.
#[inline(always)]
pub fn decide(
    exit: &Exit,
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    machine: &impl Asked,
) -> Action {
    match *exit {
        Exit::Cpuid => access::cpuid_whole(registers, vcpu),
        Exit::Hypercall { privileged } => {
            hypercall::hypercall(registers, vcpu, privileged, machine)
        }
        Exit::ReadMsr => access::read_msr(registers, vcpu, machine),
        Exit::WriteMsr => access::write_msr(registers, vcpu, machine),
        Exit::Port(access) => access::port(access, registers, vcpu, machine),
        Exit::Interrupt => Action::ask(Request::Interrupt),
        Exit::InterruptWindow | Exit::Timer => Action::CLOCK,
        Exit::Nmi => Action::ask(Request::Nmi),
        Exit::NmiWindow => Action::only(Operation::Inject(Event::Nmi)),
        Exit::SetExtendedControl => control::write_extended(registers, vcpu),
        Exit::WriteTaskPriority(value) => control::write_task_priority(value, vcpu),
        Exit::ReadTaskPriority { register } => control::read_task_priority(register, vcpu),
        Exit::WriteControl { register, value } => {
            control::write(register, value, &machine.control_state(), vcpu)
        }
        Exit::Memory { address, write, fetch } => {
            vcpu.deny(Denial::Memory, 0);
            stop(vcpu, Violation::Memory { address, write, fetch })
        }
        Exit::CacheFlush => {
            // The machine's caches are coherent and not the guest's to drop. A guest cannot tell that its flush was skipped.
            vcpu.deny(Denial::Instruction, 0);
            Action::ADVANCE
        }
        Exit::Absent => {
            vcpu.deny(Denial::Instruction, 0);
            INVALID_OPCODE
        }
        Exit::ReadCounter => {
            vcpu.deny(Denial::Instruction, 0);
            GENERAL_PROTECTION
        }
        Exit::Exception { vector, error } => {
            Action::only(Operation::Inject(Event::Exception { vector, error }))
        }
        Exit::Debug => Action::only(Operation::ForwardDebug),
        Exit::MachineCheck => stop(vcpu, Violation::MachineCheck),
        Exit::SelfIpiWritten => {
            vcpu.apic.self_ipi_written();
            Action::CLOCK
        }
        Exit::Reset => stop(vcpu, Violation::Reset),
        // A triple fault resets a processor, and with it a PC.
        Exit::TripleFault if vcpu.pc.is_some() => Action::ask(Request::RestartByFault),
        Exit::TripleFault => stop(vcpu, Violation::TripleFault),
        Exit::TaskSwitch => stop(vcpu, Violation::TaskSwitch),
        Exit::InvalidState => stop(vcpu, Violation::InvalidState),
        Exit::Unknown(code) => stop(vcpu, Violation::Unknown(code)),
    }
}

pub(crate) const fn stop(vcpu: &mut VcpuState, violation: Violation) -> Action {
    vcpu.violation = Some(violation);
    Action::ask(Request::Stop)
}
