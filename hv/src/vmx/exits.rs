//! From the processor's account of an exit to a vendor-neutral [`Exit`], and from an [`Action`] back to fields.

use hv_core::exit::{self, Action, Event, Exit, PlanCall, PortAccess, Rest, Violation};
use hv_core::ipi::Ipi;
use hv_core::msr::CoreKind;
use hv_defs::exit::reason;
use hv_defs::vmcs::{field, interruption};

use super::instructions as vmx;
use super::vcpu::{self, Interrupted, Pending, Vcpu};
use crate::run::machine;

/// What the run loop has to do after an exit was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Enter the same guest again; nothing that concerns time or interrupts changed.
    Enter,
    /// Look at the clock and the virtual APIC before entering again.
    Clock,
    /// Send this interrupt to vCPUs of the partition, then as [`Self::Clock`].
    Send(Ipi),
    /// A maskable interrupt of the machine was taken from the APIC and has to be ended.
    EndInterrupt,
    /// The guest got an NMI that no partition can have sent, unless it was our kick.
    Nmi,
    /// Answer a call about plans.
    Plan(PlanCall),
    /// The guest gave up the rest of its window.
    Rest(Rest),
    /// The partition is done.
    Finish {
        /// Its verdict.
        passed: bool,
    },
    /// The partition did what it may not.
    Stop(Violation),
    /// The partition switched itself off.
    Off,
    /// The partition starts again.
    Restart {
        /// By a triple fault.
        fault: bool,
    },
}

/// Bit 31 of the exit reason: the entry failed. SDM 3C 25.9.1.
const ENTRY_FAILURE: u32 = 1 << 31;

/// The reason of the exit that the current VMCS describes, with the flags.
#[inline(always)]
pub fn reason_with_flags() -> u32 {
    vmx::read(field::EXIT_REASON) as u32
}

/// The reasons of the exits that software takes most, with no flag set: bits 16 and up carry flags, and an entry failure has its own
/// numbers and is never one of these.
pub mod frequent {
    use hv_defs::exit::reason;

    /// CPUID.
    pub const CPUID: u32 = reason::CPUID as u32;
    /// VMCALL.
    pub const VMCALL: u32 = reason::VMCALL as u32;
    /// RDMSR.
    pub const RDMSR: u32 = reason::RDMSR as u32;
    /// WRMSR.
    pub const WRMSR: u32 = reason::WRMSR as u32;
    /// IN, OUT and the string instructions.
    pub const IO_INSTRUCTION: u32 = reason::IO_INSTRUCTION as u32;
}

/// Answers CPUID.
#[inline(always)]
pub fn answer_cpuid(vcpu: &mut Vcpu) {
    vcpu.state.counters.count(reason::CPUID);
    exit::cpuid(&mut vcpu.registers, &vcpu.state);
    vcpu::advance();
}

/// The same for a vCPU with the devices of a PC.
#[inline(always)]
pub fn answer_cpuid_of_pc(vcpu: &mut Vcpu) {
    vcpu.state.counters.count(reason::CPUID);
    exit::cpuid_of_pc(&mut vcpu.registers, &vcpu.state);
    vcpu::advance();
}

/// Answers a hypercall, if an answer is all that it takes; else returns false, with nothing done.
#[inline(always)]
pub fn answer_hypercall(vcpu: &mut Vcpu) -> bool {
    let privileged = guest_privilege() == 0;
    let answered = exit::answer_hypercall(&mut vcpu.registers, &mut vcpu.state, privileged);
    close(vcpu, answered, reason::VMCALL)
}

/// The same for RDMSR. `kind` is the vCPU's.
#[inline(always)]
pub fn answer_read_msr(vcpu: &mut Vcpu, kind: CoreKind) -> bool {
    let action = exit::answer_read_msr(kind, &mut vcpu.registers, &mut vcpu.state);
    close_with(vcpu, action, reason::RDMSR)
}

/// The same for WRMSR, which may have to be carried out on this core. `kind` is the vCPU's.
#[inline(always)]
pub fn answer_write_msr(vcpu: &mut Vcpu, kind: CoreKind) -> bool {
    let action = exit::answer_write_msr(kind, &vcpu.registers, &mut vcpu.state);
    close_with(vcpu, action, reason::WRMSR)
}

/// The same for a vCPU with the devices of a PC.
#[inline(always)]
pub fn answer_read_msr_of_pc(vcpu: &mut Vcpu) -> bool {
    let answered = exit::answer_read_msr_of_pc(&mut vcpu.registers, &vcpu.state);
    close(vcpu, answered, reason::RDMSR)
}

/// The same for WRMSR.
#[inline(always)]
pub fn answer_write_msr_of_pc(vcpu: &mut Vcpu, kind: CoreKind) -> bool {
    let action = exit::answer_write_msr_of_pc(kind, &vcpu.registers, &mut vcpu.state);
    close_with(vcpu, action, reason::WRMSR)
}

/// The same for IN and OUT.
#[inline(always)]
pub fn answer_port(vcpu: &mut Vcpu) -> bool {
    let answered = exit::answer_port(port_access(), &mut vcpu.registers, &mut vcpu.state);
    close(vcpu, answered, reason::IO_INSTRUCTION)
}

/// An exit that is answered is counted here, by a number that the compiler knows; another by the second half.
#[inline(always)]
fn close(vcpu: &mut Vcpu, answered: bool, reason: u16) -> bool {
    if answered {
        vcpu.state.counters.count(reason);
        vcpu::advance();
    }
    answered
}

/// As [`close`], for an access to an MSR: does what was decided about it; `None` was not answered.
#[inline(always)]
fn close_with(vcpu: &mut Vcpu, action: Option<Action>, reason: u16) -> bool {
    match action {
        Some(Action::Advance) => vcpu::advance(),
        Some(Action::WriteMsr { msr, value }) => {
            machine::write_checked_msr(msr, value);
            vcpu::advance();
        }
        Some(Action::Inject(event)) => vcpu::inject(event),
        _ => return false,
    }
    vcpu.state.counters.count(reason);
    true
}

/// The second half of an exit.
#[inline(always)]
pub fn finish(vcpu: &mut Vcpu) -> Next {
    match core::mem::replace(&mut vcpu.pending, Pending::Nothing) {
        Pending::Nothing => Next::Clock,
        Pending::Exit => {
            let raw = reason_with_flags();
            vcpu.state.counters.count(raw as u16);
            decide(vcpu, raw)
        }
    }
}

#[inline(always)]
fn decide(vcpu: &mut Vcpu, raw: u32) -> Next {
    if raw == frequent::WRMSR {
        // An instruction of the guest: no delivery of an event is interrupted by it.
        let action =
            exit::handle(&Exit::WriteMsr, &mut vcpu.registers, &mut vcpu.state, machine::tsc);
        return act(vcpu, action);
    }
    if raw & ENTRY_FAILURE != 0 && vcpu::wrap_instruction_pointer() {
        return Next::Enter;
    }
    let exit = decode(vcpu, raw);
    keep_interrupted(vcpu);
    match exit {
        Exit::Exception { vector, .. } if vector == DEBUG_EXCEPTION => {
            machine::raise_debug_status(vmx::read(field::EXIT_QUALIFICATION));
            vcpu::forward_debug();
            if is_int1() {
                vcpu::inject_int1();
                return Next::Enter;
            }
        }
        Exit::Nmi => {
            vcpu::unblock_nmis();
            return Next::Nmi;
        }
        Exit::Interrupt => return Next::EndInterrupt,
        Exit::NmiWindow => {
            vcpu.ask_for_nmi_window(false);
            vcpu::inject(Event::Nmi);
            return Next::Enter;
        }
        Exit::ReadTaskPriority => {
            let value = exit::task_priority(&vcpu.state);
            let register = control_access() >> 8 & 0xF;
            write_register(vcpu, register, value);
            vcpu::advance();
            return Next::Enter;
        }
        Exit::Timer => return Next::Clock,
        _ => {}
    }
    let action = exit::handle(&exit, &mut vcpu.registers, &mut vcpu.state, machine::tsc);
    act(vcpu, action)
}

#[inline(always)]
fn act(vcpu: &mut Vcpu, action: Action) -> Next {
    match action {
        Action::Advance => vcpu::advance(),
        Action::Resume => {}
        Action::Inject(event) => vcpu::inject(event),
        Action::SetXcr0(value) => {
            vcpu.set_xcr0(value);
            vcpu::advance();
        }
        Action::WriteMsr { msr, value } => {
            machine::write_checked_msr(msr, value);
            vcpu::advance();
        }
        Action::SetCr0(value) => return settle_control(vcpu::set_cr0(value)),
        Action::SetCr4(value) => return settle_control(vcpu::set_cr4(value)),
        Action::ApicChanged => {
            vcpu::advance();
            return Next::Clock;
        }
        Action::Send(ipi) => {
            vcpu::advance();
            return Next::Send(ipi);
        }
        Action::Clock => return Next::Clock,
        Action::Plan(call) => {
            vcpu::advance();
            return Next::Plan(call);
        }
        Action::Rest(rest) => {
            vcpu::advance();
            return Next::Rest(rest);
        }
        Action::NextWindow => return Next::Rest(Rest::Idle),
        Action::Finish { passed } => return Next::Finish { passed },
        Action::Stop(violation) => return Next::Stop(violation),
        Action::Off => return Next::Off,
        Action::Restart => {
            return Next::Restart { fault: reason_with_flags() as u16 == reason::TRIPLE_FAULT };
        }
    }
    Next::Enter
}

fn settle_control(outcome: Result<(), Option<Event>>) -> Next {
    match outcome {
        Ok(()) => vcpu::advance(),
        Err(Some(event)) => vcpu::inject(event),
        Err(None) => return Next::Stop(Violation::PaePaging),
    }
    Next::Enter
}

/// The guest's privilege level is the DPL of SS. SDM 3C 25.4.1.
#[inline(always)]
fn guest_privilege() -> u64 {
    vmx::read(field::GUEST_SS_RIGHTS) >> 5 & 3
}

/// SDM 3C 28.2.1, table 28-5.
#[inline(always)]
fn port_access() -> PortAccess {
    let qualification = vmx::read(field::EXIT_QUALIFICATION);
    PortAccess {
        port: (qualification >> 16) as u16,
        width: (qualification & 7) as u8 + 1,
        input: qualification & (1 << 3) != 0,
        string: qualification & (1 << 4) != 0,
    }
}

/// An event whose delivery this exit interrupted is kept for later; so is the blocking that a faulting IRET lost. SDM 3C 28.2.3, 28.2.4.
fn keep_interrupted(vcpu: &mut Vcpu) {
    const DOUBLE_FAULT: u32 = 8;
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    if info & interruption::VALID != 0
        && info & interruption::NMI_UNBLOCKING != 0
        && info & 0xFF != DOUBLE_FAULT
    {
        vcpu::block_nmis(true);
    }
    match vcpu::interrupted_event() {
        Some(Interrupted::Nmi) => {
            vcpu::block_nmis(false);
            vcpu.ask_for_nmi_window(true);
        }
        Some(Interrupted::Interrupt(vector)) if vcpu.is_dedicated() => {
            vcpu.requeued = Some(vector);
            vcpu.ask_for_interrupt_window(true);
        }
        Some(Interrupted::Interrupt(vector)) => vcpu.take_back(vector),
        None => {}
    }
}

/// Whether the intercepted debug exception is INT1's. SDM 3C 25.9.2.
fn is_int1() -> bool {
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    info & interruption::TYPE_MASK == interruption::PRIVILEGED_SOFTWARE_EXCEPTION
}

fn decode(vcpu: &Vcpu, raw: u32) -> Exit {
    if raw & ENTRY_FAILURE != 0 {
        return match raw as u16 {
            reason::MACHINE_CHECK => {
                Exit::Exception { vector: MACHINE_CHECK_EXCEPTION, error: None }
            }
            _ => Exit::InvalidState,
        };
    }
    match raw as u16 {
        reason::VMCALL => Exit::Hypercall { privileged: guest_privilege() == 0 },
        reason::RDMSR => Exit::ReadMsr,
        reason::IO_INSTRUCTION => Exit::Port(port_access()),
        reason::PREEMPTION_TIMER => Exit::Timer,
        reason::EXCEPTION_OR_NMI => decode_exception(),
        reason::EXTERNAL_INTERRUPT => Exit::Interrupt,
        reason::TRIPLE_FAULT => Exit::TripleFault,
        reason::INIT_SIGNAL | reason::STARTUP_IPI => Exit::Reset,
        // Of the registers that the guest writes without an exit, only SELF_IPI can have one behind it. SDM 3C 30.4.3.2, 30.5.
        reason::APIC_WRITE => Exit::SelfIpiWritten,
        reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        reason::NMI_WINDOW => Exit::NmiWindow,
        reason::TASK_SWITCH => Exit::TaskSwitch,
        reason::INVD | reason::WBINVD => Exit::CacheFlush,
        reason::RDPMC => Exit::ReadCounter,
        reason::CONTROL_REGISTER => decode_control(vcpu),
        reason::EPT_VIOLATION => decode_violation(),
        reason::XSETBV => Exit::SetExtendedControl,
        reason::GETSEC
        | reason::MONITOR
        | reason::MWAIT
        | reason::VMCLEAR
        | reason::VMLAUNCH
        | reason::VMPTRLD
        | reason::VMPTRST
        | reason::VMREAD
        | reason::VMRESUME
        | reason::VMWRITE
        | reason::VMXOFF
        | reason::VMXON
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC
        | reason::RDRAND
        | reason::RDSEED
        | reason::ENCLS => Exit::Absent,
        _ => Exit::Unknown(raw),
    }
}

/// SDM 3C 25.9.2.
fn decode_exception() -> Exit {
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    if info & interruption::TYPE_MASK == interruption::NMI {
        return Exit::Nmi;
    }
    let vector = info as u8;
    let error = (info & interruption::DELIVER_ERROR_CODE != 0)
        .then(|| vmx::read(field::EXIT_INTERRUPTION_ERROR_CODE) as u32);
    Exit::Exception { vector, error }
}

const DEBUG_EXCEPTION: u8 = 1;
const MACHINE_CHECK_EXCEPTION: u8 = 18;

/// SDM 3C 28.2.1, table 28-7.
fn decode_violation() -> Exit {
    let qualification = vmx::read(field::EXIT_QUALIFICATION);
    Exit::Memory {
        address: vmx::read(field::GUEST_PHYSICAL_ADDRESS),
        write: qualification & (1 << 1) != 0,
        fetch: qualification & (1 << 2) != 0,
    }
}

fn control_access() -> u64 {
    vmx::read(field::EXIT_QUALIFICATION)
}

/// SDM 3C 28.2.1, table 28-3. CLTS and LMSW never exit: the bits that they can change are the guest's.
fn decode_control(vcpu: &Vcpu) -> Exit {
    let access = control_access();
    let register = (access & 0xF) as u8;
    let source = || {
        let value = read_register(vcpu, access >> 8 & 0xF);
        // Outside 64-bit code the move takes 32 bits, whatever the upper half of the register holds.
        if vcpu::is_64_bit() { value } else { value & 0xFFFF_FFFF }
    };
    match (access >> 4 & 3, register) {
        (0, 8) => Exit::WriteTaskPriority(source()),
        (0, _) => Exit::WriteControl { register, value: source() },
        (1, 8) => Exit::ReadTaskPriority,
        _ => Exit::Unknown(u32::from(reason::CONTROL_REGISTER)),
    }
}

const RSP: u64 = 4;

/// A general-purpose register by its number in an instruction.
fn read_register(vcpu: &Vcpu, number: u64) -> u64 {
    let (registers, preserved) = (&vcpu.registers, &vcpu.preserved);
    match number {
        0 => registers.rax,
        1 => registers.rcx,
        2 => registers.rdx,
        3 => registers.rbx,
        RSP => vmx::read(field::GUEST_RSP),
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
    }
}

fn write_register(vcpu: &mut Vcpu, number: u64, value: u64) {
    let (registers, preserved) = (&mut vcpu.registers, &mut vcpu.preserved);
    let place = match number {
        0 => &mut registers.rax,
        1 => &mut registers.rcx,
        2 => &mut registers.rdx,
        3 => &mut registers.rbx,
        RSP => {
            #[expect(unsafe_code, reason = "RSP lives in the VMCS")]
            // SAFETY: the guest asked for this very load of its own stack pointer.
            unsafe {
                vmx::write(field::GUEST_RSP, value);
            }
            return;
        }
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
    };
    *place = value;
}
