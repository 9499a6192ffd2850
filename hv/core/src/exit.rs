//! What follows from an exit: a pure function from what the guest did to what is done about it.
//!
//! The back end (VT-x now) reads an exit out of the hardware into an [`Exit`], [`handle`] decides with the
//! vCPU's own state and the policies of this crate, and the back end carries the [`Action`] out. Nothing
//! here knows a VMCS, so everything here is tested on the host.

use bulkhead_table::{PartitionId, PlanId, abi};
use hv_defs::exit::REASONS;

use crate::cpuid::{CpuidPolicy, Leaf};
use crate::ipi::Ipi;
use crate::msr::{self, CoreKind};
use crate::pc::{self, Outcome, Pc};
use crate::ring::Ring;
use crate::vapic::VirtualApic;

/// Bytes of one vCPU's console ring.
pub const CONSOLE_RING: usize = 8192;

/// The ring between a vCPU's console and the drain. Each vCPU has its own, because a ring has one producer.
pub type ConsoleRing = Ring<CONSOLE_RING>;

/// The general-purpose registers of a guest that an exit can be about, in the order in which the exit stub stores them, the last one
/// first. They are those that a call of the System V ABI may change, and RBX. So a decision cannot touch the others, and the stub
/// need not store them for the exits that software takes most. RSP is switched by the hardware.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Registers {
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
}

const _: () = assert!(size_of::<Registers>() == 10 * 8);

/// The other general-purpose registers, which calls preserve: stored only when more is to be done than to answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Preserved {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
}

const _: () = assert!(size_of::<Preserved>() == 5 * 8);

impl Registers {
    /// EDX:EAX as RDMSR, WRMSR and XSETBV use them.
    #[must_use]
    pub const fn edx_eax(&self) -> u64 {
        (self.rdx << 32) | (self.rax & 0xFFFF_FFFF)
    }

    /// Stores a value as RDMSR returns it: both halves zero-extended.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.rax = value & 0xFFFF_FFFF;
        self.rdx = value >> 32;
    }
}

/// What the guest did, or what happened to it, free of the vendor's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// CPUID; leaf in EAX, sub-leaf in ECX.
    Cpuid,
    /// VMCALL or VMMCALL; whether from privilege level 0.
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
    ReadTaskPriority,
    /// A move to CR0 or CR4 that touches bits which are not the guest's.
    WriteControl {
        /// 0 or 4.
        register: u8,
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
    /// An instruction that no partition has: VMX, SMX, MONITOR, MWAIT and their kind.
    Absent,
    /// RDPMC: no counter is granted.
    ReadCounter,
    /// An intercepted exception, with its error code where it has one.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code.
        error: Option<u32>,
    },
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

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// Port number.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub width: u8,
    /// IN rather than OUT.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
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

const INVALID_OPCODE: Event = Event::Exception { vector: 6, error: None };
const GENERAL_PROTECTION: Event = Event::Exception { vector: 13, error: Some(0) };

/// What the back end does about an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Step over the instruction and go on.
    Advance,
    /// Go on at the same instruction.
    Resume,
    /// Deliver an event instead of the instruction.
    Inject(Event),
    /// Load XCR0, then step over the instruction.
    SetXcr0(u64),
    /// Write a value that was checked to a machine's MSR, then step over.
    WriteMsr {
        /// MSR number.
        msr: u32,
        /// Checked value.
        value: u64,
    },
    /// Load CR0 with these bits (the guest sees them as it wrote them), then step over.
    SetCr0(u64),
    /// Load CR4 with this value, then step over.
    SetCr4(u64),
    /// The virtual APIC changed: step over, then look for a deliverable interrupt and the next deadline.
    ApicChanged,
    /// Send this interrupt to vCPUs of the partition, then as [`Self::ApicChanged`].
    Send(Ipi),
    /// Look at the clock: the window or the guest's timer may be due.
    Clock,
    /// Step over the call and answer it from the schedule of the core.
    Plan(PlanCall),
    /// Step over the call, whose result is in place, and give up the rest of the window.
    Rest(Rest),
    /// Give up the rest of the window, whose time does not suffice. The guest executes the same instruction again in its next one.
    NextWindow,
    /// The partition is done.
    Finish {
        /// The verdict that it gave.
        passed: bool,
    },
    /// The partition did what it may not, and is stopped.
    Stop(Violation),
    /// The partition switched itself off.
    Off,
    /// The partition starts again from its image.
    Restart,
}

/// What a partition may ask about plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanCall {
    /// Another plan; it exists, and the partition may.
    Switch(PlanId),
    /// Which plan runs, and what became of the last request.
    Tell,
}

/// How a vCPU gives up the rest of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The core is idle until the next window.
    Idle,
    /// As [`Self::Idle`], and so are this vCPU's windows before this frame.
    UntilFrame(u64),
    /// This partition's vCPU on the core runs.
    Donated(PartitionId),
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

/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;

/// Kinds of denied access, as [`crate::wire::StatKey::Denied`] numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// An I/O port.
    Port = 0,
    /// An MSR.
    Msr = 1,
    /// An interrupt command or a local vector table entry.
    Interrupt = 2,
    /// Guest-physical memory.
    Memory = 3,
    /// A hypercall.
    Hypercall = 4,
    /// A control register.
    ControlRegister = 5,
    /// An instruction.
    Instruction = 6,
}

/// Number of kinds of denial.
pub const DENIALS: usize = 7;

impl Denial {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; DENIALS] = [
        Self::Port,
        Self::Msr,
        Self::Interrupt,
        Self::Memory,
        Self::Hypercall,
        Self::ControlRegister,
        Self::Instruction,
    ];

    /// The kind of this number, if it is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The basic reason of the exit that a hypercall is.
const HYPERCALL: u16 = hv_defs::exit::reason::VMCALL;

/// The counters of one vCPU.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Exits by basic reason.
    pub exits: [u64; REASONS],
    /// Denied accesses by [`Denial`].
    pub denied: [u64; DENIALS],
    /// [`Self::exits`] when the measured span was opened.
    span_base: [u64; REASONS],
    span_is_open: bool,
    /// Exits inside the last measured span by basic reason, the two calls that mark it left out.
    pub span: Option<[u64; REASONS]>,
}

impl Counters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            exits: [0; REASONS],
            denied: [0; DENIALS],
            span_base: [0; REASONS],
            span_is_open: false,
            span: None,
        }
    }

    /// Counts one exit.
    #[inline(always)]
    pub const fn count(&mut self, reason: u16) {
        // The mask keeps the index inside without a branch; reasons above 127 do not exist yet and would share a counter.
        let counter = &mut self.exits[reason as usize & (REASONS - 1)];
        *counter = counter.wrapping_add(1);
    }

    fn open_span(&mut self) {
        self.span_base = self.exits;
        self.span_is_open = true;
    }

    /// Closes the span and returns the number of exits in it; `None` when none was open.
    fn close_span(&mut self) -> Option<u64> {
        if !core::mem::take(&mut self.span_is_open) {
            return None;
        }
        let mut span = self.exits;
        for (count, base) in span.iter_mut().zip(&self.span_base) {
            *count = count.wrapping_sub(*base);
        }
        // One of them is the very call that closes it.
        let call = &mut span[usize::from(HYPERCALL)];
        *call = call.saturating_sub(1);
        self.span = Some(span);
        Some(span.iter().fold(0, |sum, count| sum.wrapping_add(*count)))
    }

    /// Adds what another vCPU of the same partition counted; an open span is left out.
    pub fn add(&mut self, other: &Self) {
        let add = |sums: &mut [u64], counts: &[u64]| {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.wrapping_add(*count);
            }
        };
        add(&mut self.exits, &other.exits);
        add(&mut self.denied, &other.denied);
        if let Some(span) = &other.span {
            add(self.span.get_or_insert([0; REASONS]), span);
        }
    }

    /// The kinds of access that were denied so far: bit by bit, in the order of [`Denial`].
    #[must_use]
    pub fn kinds_denied(&self) -> u8 {
        self.denied
            .iter()
            .enumerate()
            .fold(0, |kinds, (kind, count)| kinds | u8::from(*count > 0) << kind)
    }

    /// Counts one denied access.
    pub fn deny(&mut self, denial: Denial) {
        let counter = &mut self.denied[denial as usize];
        *counter = counter.wrapping_add(1);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
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
}

impl VcpuState {
    /// Whether the window is about to end, so that an interrupt command is left to the next one: as if the core had been taken from the guest
    /// just before the instruction. Judging a command and sending it takes time with each vCPU of the partition; alone it is quick.
    #[inline]
    fn has_no_time_to_send(&self, now: u64) -> bool {
        let judging = self.msr.peers.judging();
        judging > 0
            && self
                .window
                .is_some_and(|window| now.saturating_add(judging.max(window.quiet)) > window.end)
    }
}

/// Decides. `now` is the TSC, asked for only where it is needed.
#[inline(always)]
pub fn handle(
    exit: &Exit,
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    now: impl FnOnce() -> u64,
) -> Action {
    match *exit {
        Exit::Cpuid if vcpu.pc.is_some() => {
            cpuid_of_pc(registers, vcpu);
            Action::Advance
        }
        Exit::Cpuid => {
            cpuid(registers, vcpu);
            Action::Advance
        }
        Exit::Hypercall { privileged } => hypercall(registers, vcpu, privileged, now),
        Exit::ReadMsr => read_msr(registers, vcpu, now),
        Exit::WriteMsr => write_msr(registers, vcpu, now),
        Exit::Port(access) => port(access, registers, vcpu, now),
        ref other => handle_rare(other, registers, vcpu),
    }
}

/// Answers CPUID in the guest's registers; the instruction is to be stepped over.
#[inline(always)]
pub fn cpuid(registers: &mut Registers, vcpu: &VcpuState) {
    set_leaf(registers, vcpu.cpuid.lookup(registers.rax as u32, registers.rcx as u32));
}

/// The same for a vCPU with the devices of a PC.
#[inline(always)]
pub fn cpuid_of_pc(registers: &mut Registers, vcpu: &VcpuState) {
    set_leaf(registers, vcpu.cpuid.lookup_of_pc(registers.rax as u32, registers.rcx as u32));
}

#[inline(always)]
const fn set_leaf(registers: &mut Registers, leaf: Leaf) {
    registers.rax = leaf.eax as u64;
    registers.rbx = leaf.ebx as u64;
    registers.rcx = leaf.ecx as u64;
    registers.rdx = leaf.edx as u64;
}

fn handle_rare(exit: &Exit, registers: &Registers, vcpu: &mut VcpuState) -> Action {
    match *exit {
        Exit::SetExtendedControl => set_xcr0(registers, vcpu),
        Exit::WriteTaskPriority(value) => write_task_priority(value, vcpu),
        Exit::WriteControl { register, value } => write_control(register, value, vcpu),
        Exit::Memory { address, write, fetch } => {
            vcpu.counters.deny(Denial::Memory);
            Action::Stop(Violation::Memory { address, write, fetch })
        }
        Exit::CacheFlush => {
            // The machine's caches are coherent and not the guest's to drop; to skip is what a guest cannot tell apart.
            vcpu.counters.deny(Denial::Instruction);
            Action::Advance
        }
        Exit::Absent => {
            vcpu.counters.deny(Denial::Instruction);
            Action::Inject(INVALID_OPCODE)
        }
        Exit::ReadCounter => {
            vcpu.counters.deny(Denial::Instruction);
            Action::Inject(GENERAL_PROTECTION)
        }
        Exit::Exception { vector: 18, .. } => Action::Stop(Violation::MachineCheck),
        Exit::Exception { vector, error } => Action::Inject(Event::Exception { vector, error }),
        Exit::SelfIpiWritten => {
            vcpu.apic.self_ipi_written();
            Action::Clock
        }
        Exit::Nmi | Exit::NmiWindow => Action::Inject(Event::Nmi),
        Exit::Interrupt | Exit::InterruptWindow | Exit::Timer => Action::Clock,
        Exit::Reset => Action::Stop(Violation::Reset),
        // What resets a processor resets a PC.
        Exit::TripleFault if vcpu.pc.is_some() => Action::Restart,
        Exit::TripleFault => Action::Stop(Violation::TripleFault),
        Exit::TaskSwitch => Action::Stop(Violation::TaskSwitch),
        Exit::InvalidState => Action::Stop(Violation::InvalidState),
        Exit::Unknown(code) => Action::Stop(Violation::Unknown(code)),
        Exit::ReadTaskPriority
        | Exit::Cpuid
        | Exit::Hypercall { .. }
        | Exit::ReadMsr
        | Exit::WriteMsr
        | Exit::Port(_) => Action::Resume,
    }
}

/// Reads CR8 of a time-shared core; the back end knows into which register.
#[must_use]
pub fn task_priority(vcpu: &VcpuState) -> u64 {
    u64::from(vcpu.apic.tpr() >> 4)
}

fn write_task_priority(value: u64, vcpu: &mut VcpuState) -> Action {
    if value > 15 {
        return Action::Inject(GENERAL_PROTECTION);
    }
    vcpu.apic.set_tpr((value as u8) << 4);
    Action::ApicChanged
}

fn set_xcr0(registers: &Registers, vcpu: &mut VcpuState) -> Action {
    let value = registers.edx_eax();
    if registers.rcx as u32 != 0 || !xcr0_is_valid(value, vcpu.xcr0_allowed) {
        vcpu.counters.deny(Denial::ControlRegister);
        return Action::Inject(GENERAL_PROTECTION);
    }
    vcpu.cpuid.set_xcr0(value);
    Action::SetXcr0(value)
}

/// The rules of SDM 1 13.3: x87 always, AVX needs SSE, the three AVX-512 components together and with AVX,
/// the two MPX components together.
#[must_use]
pub const fn xcr0_is_valid(value: u64, allowed: u64) -> bool {
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const BOUNDS: u64 = 0b11 << 3;
    const AVX_512: u64 = 0b111 << 5;
    let avx_512 = value & AVX_512;
    let bounds = value & BOUNDS;
    value & 1 == 1
        && value & !allowed == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (avx_512 == 0 || (avx_512 == AVX_512 && value & AVX != 0))
        && (bounds == 0 || bounds == BOUNDS)
}

fn write_control(register: u8, value: u64, vcpu: &mut VcpuState) -> Action {
    const CR0_VALID: u64 = 0xE005_003F;
    const CR0_PG: u64 = 1 << 31;
    const CR0_PE: u64 = 1;
    const CR0_CD: u64 = 1 << 30;
    const CR0_NW: u64 = 1 << 29;
    match register {
        0 => {
            let bad = value >> 32 != 0
                || (value & CR0_PG != 0 && value & CR0_PE == 0)
                || (value & CR0_NW != 0 && value & CR0_CD == 0);
            if bad {
                return Action::Inject(GENERAL_PROTECTION);
            }
            // Cache control is the hypervisor's: the guest sees the bits that it wrote, the machine never does.
            if value & (CR0_CD | CR0_NW) != 0 {
                vcpu.counters.deny(Denial::ControlRegister);
            }
            Action::SetCr0(value & CR0_VALID)
        }
        _ if value & !vcpu.cr4_allowed != 0 => {
            vcpu.counters.deny(Denial::ControlRegister);
            Action::Inject(GENERAL_PROTECTION)
        }
        _ => {
            // OSXSAVE exits although the guest may set it, because CPUID shows it: so CPUID itself need not look.
            vcpu.cpuid.set_osxsave(value & CR4_OSXSAVE != 0);
            Action::SetCr4(value)
        }
    }
}

fn port(
    access: PortAccess,
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    now: impl FnOnce() -> u64,
) -> Action {
    if let Some(pc) = vcpu.pc {
        match pc.access(access, &mut registers.rax, now()) {
            Outcome::Done => return Action::Advance,
            Outcome::Off => return Action::Off,
            Outcome::Restart => return Action::Restart,
            Outcome::Absent => {}
        }
    }
    if answer_port(access, registers, vcpu) {
        return Action::Advance;
    }
    vcpu.counters.deny(Denial::Port);
    Action::Inject(GENERAL_PROTECTION)
}

/// Answers IN and OUT where no device is; false, with nothing done, for the string instructions, which are refused.
#[inline(always)]
pub fn answer_port(access: PortAccess, registers: &mut Registers, vcpu: &mut VcpuState) -> bool {
    if access.string {
        return false;
    }
    vcpu.counters.deny(Denial::Port);
    if access.input {
        registers.rax = crate::port::absent(registers.rax, access.width);
    }
    true
}

fn read_msr(registers: &mut Registers, vcpu: &mut VcpuState, now: impl FnOnce() -> u64) -> Action {
    if let Some(action) = answer_read_msr(vcpu.kind, registers, vcpu) {
        return action;
    }
    match vcpu.apic.read(registers.rcx as u32, now()) {
        Ok(value) => {
            registers.set_edx_eax(value);
            Action::Advance
        }
        Err(_) => refuse_read(vcpu),
    }
}

/// Answers RDMSR of a register with one value for ever, and refuses it; `None`, with nothing done, for what only the virtual APIC can
/// tell. `kind` is the vCPU's, which the caller knows beforehand.
#[inline(always)]
pub fn answer_read_msr(
    kind: CoreKind,
    registers: &mut Registers,
    vcpu: &mut VcpuState,
) -> Option<Action> {
    let number = registers.rcx as u32;
    if let Some(value) = msr::constant(kind, number, &vcpu.msr) {
        registers.set_edx_eax(value);
        return Some(Action::Advance);
    }
    (!msr::is_virtual(kind, number)).then(|| refuse_read(vcpu))
}

/// Answers RDMSR of a register with one value for ever, for a vCPU with the devices of a PC; false, with nothing done, for any other:
/// what is refused there is told behind [`handle`].
#[inline(always)]
pub fn answer_read_msr_of_pc(registers: &mut Registers, vcpu: &VcpuState) -> bool {
    let number = registers.rcx as u32;
    let wired = pc::msr::read(number).filter(|_| vcpu.kind == CoreKind::Dedicated);
    let value = wired.or_else(|| msr::constant(vcpu.kind, number, &vcpu.msr));
    if let Some(value) = value {
        registers.set_edx_eax(value);
    }
    value.is_some()
}

#[inline(always)]
fn refuse_read(vcpu: &mut VcpuState) -> Action {
    vcpu.counters.deny(Denial::Msr);
    Action::Inject(GENERAL_PROTECTION)
}

/// Decides WRMSR as [`handle`] does, in a few instructions, where that takes no more; else `None`, with nothing done. `kind` is the
/// vCPU's, which the caller knows beforehand.
#[inline(always)]
pub fn answer_write_msr(
    kind: CoreKind,
    registers: &Registers,
    vcpu: &mut VcpuState,
) -> Option<Action> {
    let number = registers.rcx as u32;
    match write_outright(kind, number, registers.edx_eax(), vcpu)? {
        msr::WriteAction::Machine(value) => Some(Action::WriteMsr { msr: number, value }),
        msr::WriteAction::Drop => Some(Action::Advance),
        msr::WriteAction::Deny => Some(refuse_msr(vcpu, number)),
        msr::WriteAction::Send(_) => None,
    }
}

/// The same for a vCPU with the devices of a PC, but for what is refused: that is told behind [`handle`].
#[inline(always)]
pub fn answer_write_msr_of_pc(
    kind: CoreKind,
    registers: &Registers,
    vcpu: &mut VcpuState,
) -> Option<Action> {
    let number = registers.rcx as u32;
    let value = pc::msr::as_wired(number, registers.edx_eax());
    match write_outright(kind, number, value, vcpu)? {
        msr::WriteAction::Machine(value) => Some(Action::WriteMsr { msr: number, value }),
        msr::WriteAction::Drop => Some(Action::Advance),
        msr::WriteAction::Deny | msr::WriteAction::Send(_) => None,
    }
}

#[inline(always)]
fn write_outright(
    kind: CoreKind,
    number: u32,
    value: u64,
    vcpu: &mut VcpuState,
) -> Option<msr::WriteAction> {
    if kind == CoreKind::Shared && vcpu.apic.write_plain(number, value) {
        return Some(msr::WriteAction::Drop);
    }
    msr::write_outright(kind, number, value, &vcpu.msr)
}

fn write_msr(registers: &Registers, vcpu: &mut VcpuState, now: impl FnOnce() -> u64) -> Action {
    let number = registers.rcx as u32;
    let mut value = registers.edx_eax();
    if vcpu.pc.is_some() {
        if vcpu.kind == CoreKind::Dedicated && pc::msr::is_idle_write(number, value) {
            return Action::Advance;
        }
        value = pc::msr::as_wired(number, value);
    }
    if msr::is_virtual(vcpu.kind, number) {
        if vcpu.apic.write_plain(number, value) {
            return Action::Advance;
        }
        let now = now();
        if number == hv_defs::apic::ICR && vcpu.has_no_time_to_send(now) {
            return Action::NextWindow;
        }
        return match vcpu.apic.write(number, value, now) {
            Ok(Some(ipi)) => Action::Send(ipi),
            Ok(None) => Action::ApicChanged,
            Err(_) => refuse_msr(vcpu, number),
        };
    }
    match msr::write(vcpu.kind, number, value, &vcpu.msr) {
        msr::WriteAction::Machine(value) => Action::WriteMsr { msr: number, value },
        msr::WriteAction::Send(ipi) => Action::Send(ipi),
        msr::WriteAction::Drop => Action::Advance,
        msr::WriteAction::Deny => refuse_msr(vcpu, number),
    }
}

#[inline(always)]
fn refuse_msr(vcpu: &mut VcpuState, number: u32) -> Action {
    let denial = if msr::is_x2apic(number) { Denial::Interrupt } else { Denial::Msr };
    vcpu.counters.deny(denial);
    Action::Inject(GENERAL_PROTECTION)
}

fn hypercall(
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    privileged: bool,
    now: impl FnOnce() -> u64,
) -> Action {
    if answer_hypercall(registers, vcpu, privileged) {
        return Action::Advance;
    }
    match registers.rax {
        abi::call::CONSOLE => registers.rax = console(registers, vcpu, now()),
        abi::call::SPAN_BEGIN => {
            vcpu.counters.open_span();
            registers.rax = 0;
        }
        abi::call::SPAN_END => registers.rax = end_span(registers, vcpu),
        abi::call::FINISH => {
            return Action::Finish { passed: registers.rbx == abi::verdict::PASS };
        }
        _ => return schedule_call(registers, vcpu),
    }
    Action::Advance
}

/// Answers a hypercall that only tells something, or is refused; false, with nothing done, for one that does something.
#[inline(always)]
pub fn answer_hypercall(registers: &mut Registers, vcpu: &mut VcpuState, privileged: bool) -> bool {
    registers.rax = match registers.rax {
        _ if !privileged => refuse_call(vcpu, abi::status::DENIED),
        abi::call::WINDOW => window(registers, vcpu),
        abi::call::CONSOLE..=abi::call::DONATE => return false,
        _ => refuse_call(vcpu, abi::status::UNKNOWN_CALL),
    };
    true
}

#[inline(always)]
fn refuse_call(vcpu: &mut VcpuState, status: u64) -> u64 {
    vcpu.counters.deny(Denial::Hypercall);
    status
}

/// Calls about the schedule: what the table does not grant is denied here, what it grants is done by the core.
#[inline(never)]
fn schedule_call(registers: &mut Registers, vcpu: &mut VcpuState) -> Action {
    let argument = registers.rbx;
    let granted = match (registers.rax, vcpu.window) {
        (_, None) => Err(abi::status::DENIED),
        (abi::call::SWITCH_PLAN, _) => match (vcpu.rights.plans, PlanId::try_from(argument)) {
            (0, _) => Err(abi::status::DENIED),
            (plans, Ok(plan)) if plan < plans => Ok(Action::Plan(PlanCall::Switch(plan))),
            _ => Err(abi::status::INVALID),
        },
        (abi::call::PLAN, _) => Ok(Action::Plan(PlanCall::Tell)),
        (abi::call::YIELD, _) => Ok(Action::Rest(Rest::Idle)),
        (abi::call::SLEEP_UNTIL_FRAME, _) => Ok(Action::Rest(Rest::UntilFrame(argument))),
        (abi::call::DONATE, _) => {
            vcpu.rights.donates_to.map(Rest::Donated).map(Action::Rest).ok_or(abi::status::DENIED)
        }
        _ => Err(abi::status::UNKNOWN_CALL),
    };
    match granted {
        Ok(action) => {
            registers.rax = 0;
            action
        }
        Err(status) => {
            vcpu.counters.deny(Denial::Hypercall);
            registers.rax = status;
            Action::Advance
        }
    }
}

/// Takes as many of the bytes as the ring has room for; the guest sends the rest again. Copying is the longest thing that a guest can ask
/// for: where the end of its window is near it gets none of it done, and asks again until its next window. Every window is longer than
/// that: the compiler takes none that is shorter than a switch.
fn console(registers: &Registers, vcpu: &mut VcpuState, now: u64) -> u64 {
    let Some(length) = usize::try_from(registers.rbx)
        .ok()
        .filter(|length| (1..=abi::CONSOLE_BYTES).contains(length))
    else {
        vcpu.counters.deny(Denial::Hypercall);
        return abi::status::INVALID;
    };
    if vcpu.window.is_some_and(|window| window.is_ending(now)) {
        return 0;
    }
    let words =
        [registers.rdi, registers.rsi, registers.rdx, registers.r8, registers.r9, registers.r10];
    let mut bytes = [0_u8; abi::CONSOLE_BYTES];
    for (piece, word) in bytes.chunks_exact_mut(8).zip(words) {
        piece.copy_from_slice(&word.to_le_bytes());
    }
    let taken = length.min(vcpu.console.free());
    let stored = taken > 0 && vcpu.console.write(0, now, bytes.get(..taken).unwrap_or_default());
    if stored { taken as u64 } else { 0 }
}

fn end_span(registers: &mut Registers, vcpu: &mut VcpuState) -> u64 {
    let Some(exits) = vcpu.counters.close_span() else {
        vcpu.counters.deny(Denial::Hypercall);
        return abi::status::DENIED;
    };
    registers.rbx = exits;
    0
}

fn window(registers: &mut Registers, vcpu: &mut VcpuState) -> u64 {
    let Some(window) = vcpu.window else {
        vcpu.counters.deny(Denial::Hypercall);
        return abi::status::DENIED;
    };
    registers.rbx = window.epoch;
    registers.rdi = window.frame;
    registers.rsi = window.start;
    registers.rdx = window.length;
    0
}
