//! What follows from an exit: an operation on the machine, and what the run loop is asked for behind it.

use crate::exit::control::ControlLoad;

/// What is done about an exit: first the back end's part, then the run loop's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// The back end carries this out.
    pub operation: Operation,
    /// The run loop does this behind it.
    pub request: Request,
}

impl Action {
    /// Step over the instruction and go on.
    pub const ADVANCE: Self = Self::only(Operation::Advance);
    /// Look at the clock and the virtual APIC, and go on at the same instruction.
    pub const CLOCK: Self = Self::ask(Request::Clock);
    /// The virtual APIC changed: step over the instruction, then look for a deliverable interrupt and the next deadline.
    pub const APIC_CHANGED: Self = Self::advance_and(Request::Clock);

    /// Only the back end has to act.
    #[must_use]
    pub const fn only(operation: Operation) -> Self {
        Self { operation, request: Request::Enter }
    }

    /// Only the run loop has to act.
    #[must_use]
    pub const fn ask(request: Request) -> Self {
        Self { operation: Operation::Stay, request }
    }

    /// Step over the instruction, then ask the run loop.
    #[must_use]
    pub const fn advance_and(request: Request) -> Self {
        Self { operation: Operation::Advance, request }
    }
}

/// An operation on the machine, carried out by the back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing: the guest goes on at the same instruction.
    Stay,
    /// Step over the instruction.
    Advance,
    /// Deliver an event instead of the instruction.
    Inject(Event),
    /// Deliver the debug exception that was intercepted, with what the processor does beside the delivery.
    ForwardDebug,
    /// Load XCR0, then step over the instruction.
    LoadXcr0(u64),
    /// Write a checked value to an MSR of the machine, then step over.
    WriteMsr {
        /// MSR number.
        msr: u32,
        /// Checked value.
        value: u64,
    },
    /// Load CR0, then step over.
    LoadCr0(ControlLoad),
    /// Load CR4 with this value, then step over.
    LoadCr4(u64),
    /// Load a general-purpose register of the guest, then step over.
    LoadRegister {
        /// Its number in an instruction.
        register: u8,
        /// What it gets.
        value: u64,
    },
}

/// What the run loop is asked for. One byte, which is handed on in a register: an argument stands in the guest's registers or in the
/// [`super::VcpuState`], as each says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Enter the same guest again; nothing that concerns time or interrupts changed.
    Enter,
    /// Look at the clock and the virtual APIC before the entry.
    Clock,
    /// Carry out the interrupt command in [`super::VcpuState::errand`], then as [`Self::Clock`].
    Send,
    /// A maskable interrupt of the machine arrived.
    Interrupt,
    /// An NMI arrived: a kick, or the machine's.
    Nmi,
    /// Request the plan in RBX; it exists, and the partition may.
    SwitchPlan,
    /// Tell which plan runs, and what became of the last request.
    TellPlan,
    /// Give up the rest of the window: the core is idle until the next one.
    Yield,
    /// As [`Self::Yield`], and so are this vCPU's windows before the frame in RBX.
    Sleep,
    /// Give the rest of the window to [`super::ScheduleRights::donates_to`].
    Donate,
    /// The partition is done, with the verdict pass.
    Pass,
    /// The partition is done, with the verdict fail.
    Fail,
    /// The partition did what it may not, and is stopped: [`super::VcpuState::violation`].
    Stop,
    /// The partition switched itself off.
    Off,
    /// The partition starts again from its image, by its reset register.
    Restart,
    /// The partition starts again from its image, by a triple fault.
    RestartByFault,
}

/// An event for the guest's IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A hardware exception.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code, for the vectors that have one.
        error: Option<u32>,
    },
    /// The guest's own NMI.
    Nmi,
}

/// Why a partition is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Touched guest-physical memory outside its own.
    Memory {
        /// Guest-physical address.
        address: u64,
        /// A store.
        write: bool,
        /// An instruction fetch.
        fetch: bool,
    },
    /// Three faults in a row: on a bare machine this resets the processor.
    TripleFault,
    /// Used hardware task switching.
    TaskSwitch,
    /// Reached a state that the hardware cannot enter.
    InvalidState,
    /// Changed paging and cache control at once in legacy PAE mode, which is not carried out.
    PaePaging,
    /// A reset signal reached its core from outside.
    Reset,
    /// A machine check was raised while it ran.
    MachineCheck,
    /// An exit that nobody knows.
    Unknown(u32),
}

/// #UD.
pub const INVALID_OPCODE: Action =
    Action::only(Operation::Inject(Event::Exception { vector: 6, error: None }));
/// #GP(0).
pub const REFUSE: Operation = Operation::Inject(Event::Exception { vector: 13, error: Some(0) });
/// The same, with nothing else to do.
pub const GENERAL_PROTECTION: Action = Action::only(REFUSE);
