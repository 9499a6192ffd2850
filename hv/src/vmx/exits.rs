//! From the processor's account of an exit to a vendor-neutral [`Exit`], and from an [`Operation`] back to fields.
#![expect(unsafe_code, reason = "is entered by the exit stubs, and RSP lives in the VMCS")]

use hv_core::exit::access;
use hv_core::exit::{
    self, Asked, Control, ControlState, Exit, ExitKind, Operation, PortAccess, Request,
};
#[cfg(feature = "floor")]
use hv_core::msr::CoreKind;
use hv_defs::exit::reason;
use hv_defs::vmcs::{field, interruption};

use super::guest::{self, Interrupted};
use super::instructions as vmx;
use crate::backend::Handlers;
use crate::cpu::instructions as machine;
use crate::vcpu::{Pending, Vcpu};

/// Bit 31 of the exit reason: the entry failed. SDM 3C 25.9.1.
const ENTRY_FAILURE: u32 = 1 << 31;

/// The reason of the exit that the current VMCS describes, with the flags.
#[inline(always)]
fn reason_with_flags() -> u32 {
    vmx::read(field::EXIT_REASON) as u32
}

/// The reasons of the exits that software takes most, with no flag set: bits 16 and up carry flags, and an entry failure has its own
/// numbers and is never one of these.
mod frequent {
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

/// The first half of an exit: returns the vCPU, to be entered again, or null when the second half has more to do. RBP and R12 to R15 are
/// still the guest's.
///
/// Each of the exits that software takes most has a function of its own, to which this one jumps. So the way of each is a straight
/// line without a stack frame.
pub extern "C" fn first_half<H: Handlers>(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: the stub passes the vCPU that just ran, which is this core's, and no other reference to it is alive.
    let vcpu = unsafe { &mut *vcpu };
    #[cfg(feature = "floor")]
    if H::KIND == CoreKind::Dedicated
        && vcpu.registers.rax == u64::from(bulkhead_table::abi::FLOOR_MARK)
    {
        guest::advance();
        return vcpu;
    }
    match reason_with_flags() {
        frequent::CPUID => {
            vcpu.state.counters.count(ExitKind::Cpuid);
            if H::HAS_PC {
                access::cpuid_of_pc(&mut vcpu.registers, &vcpu.state);
            } else {
                access::cpuid(&mut vcpu.registers, &vcpu.state);
            }
            guest::advance();
            H::enter_again(vcpu)
        }
        frequent::RDMSR => on_read_msr::<H>(vcpu),
        frequent::WRMSR => on_write_msr::<H>(vcpu),
        // The devices of a PC are the second half's, and so are refused hypercalls, of which the first is recorded.
        frequent::IO_INSTRUCTION | frequent::VMCALL if H::HAS_PC => leave_whole(vcpu),
        frequent::VMCALL => on_hypercall::<H>(vcpu),
        frequent::IO_INSTRUCTION => on_port::<H>(vcpu),
        _ => leave_whole(vcpu),
    }
}

/// An answer is all that such a hypercall takes, or it is left whole.
#[inline(never)]
fn on_hypercall<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let privileged = guest_privilege() == 0;
    let answered =
        exit::hypercall::answer_hypercall(&mut vcpu.registers, &mut vcpu.state, privileged);
    again_if::<H>(close(vcpu, answered, ExitKind::Hypercall), vcpu)
}

#[inline(never)]
fn on_read_msr<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let (registers, state) = (&mut vcpu.registers, &mut vcpu.state);
    let answered = if H::HAS_PC {
        let answered = access::answer_read_msr_of_pc(registers, state);
        close(vcpu, answered, ExitKind::ReadMsr)
    } else {
        let operation = access::answer_read_msr(H::KIND, registers, state);
        close_with(vcpu, operation, ExitKind::ReadMsr)
    };
    again_if::<H>(answered, vcpu)
}

/// A write may have to be carried out on this core.
#[inline(never)]
fn on_write_msr<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let (registers, state) = (&vcpu.registers, &mut vcpu.state);
    let operation = if H::HAS_PC {
        access::answer_write_msr_of_pc(H::KIND, registers, state)
    } else {
        access::answer_write_msr(H::KIND, registers, state)
    };
    again_if::<H>(close_with(vcpu, operation, ExitKind::WriteMsr), vcpu)
}

#[inline(never)]
fn on_port<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let answered = access::answer_port(port_access(), &mut vcpu.registers, &mut vcpu.state);
    again_if::<H>(close(vcpu, answered, ExitKind::Port), vcpu)
}

#[inline(always)]
fn again_if<H: Handlers>(answered: bool, vcpu: &mut Vcpu) -> *mut Vcpu {
    if answered { H::enter_again(vcpu) } else { leave_whole(vcpu) }
}

/// Nothing was done about the exit: it is the second half's.
#[inline(always)]
fn leave_whole(vcpu: &mut Vcpu) -> *mut Vcpu {
    vcpu.pending = Pending::Exit;
    core::ptr::null_mut()
}

/// An exit that is answered is counted here, by a number that the compiler knows; another by the second half.
#[inline(always)]
fn close(vcpu: &mut Vcpu, answered: bool, kind: ExitKind) -> bool {
    if answered {
        vcpu.state.counters.count(kind);
        guest::advance();
    }
    answered
}

/// As [`close`], for an access to an MSR: does what was decided about it; `None` was not answered.
#[inline(always)]
fn close_with(vcpu: &mut Vcpu, operation: Option<Operation>, kind: ExitKind) -> bool {
    match operation {
        Some(Operation::Advance) => guest::advance(),
        Some(Operation::WriteMsr { msr, value }) => {
            machine::write_checked_msr(msr, value);
            guest::advance();
        }
        Some(Operation::Inject(event)) => guest::inject(event),
        _ => return false,
    }
    vcpu.state.counters.count(kind);
    true
}

/// The second half of an exit: reads it, decides, carries the decision out, and returns what is left to the run loop.
#[inline(always)]
pub fn finish(vcpu: &mut Vcpu) -> Request {
    match core::mem::replace(&mut vcpu.pending, Pending::Nothing) {
        Pending::Nothing => Request::Clock,
        Pending::Exit => read_and_deal(vcpu),
    }
}

/// Reads an exit and deals with it, the most frequent exits first. In each arm the exit is a constant, so the compiler keeps only that arm
/// of [`exit::decide`].
#[inline(always)]
fn read_and_deal(vcpu: &mut Vcpu) -> Request {
    let raw = reason_with_flags();
    if raw == frequent::WRMSR {
        return deal_with(vcpu, &Exit::WriteMsr);
    }
    if raw & ENTRY_FAILURE != 0 {
        return deal_with_failure(vcpu, raw as u16);
    }
    match raw as u16 {
        reason::PREEMPTION_TIMER => deal_with(vcpu, &Exit::Timer),
        reason::EXTERNAL_INTERRUPT => deal_with(vcpu, &Exit::Interrupt),
        reason::EXCEPTION_OR_NMI if is_nmi() => {
            guest::unblock_nmis();
            deal_with(vcpu, &Exit::Nmi)
        }
        reason::EPT_VIOLATION => deal_with_violation(vcpu),
        rare => deal_with_rare(vcpu, rare),
    }
}

#[inline(never)]
fn deal_with_rare(vcpu: &mut Vcpu, reason: u16) -> Request {
    match reason {
        reason::CPUID => deal_with(vcpu, &Exit::Cpuid),
        reason::VMCALL => deal_with(vcpu, &Exit::Hypercall { privileged: guest_privilege() == 0 }),
        reason::RDMSR => deal_with(vcpu, &Exit::ReadMsr),
        reason::IO_INSTRUCTION => deal_with(vcpu, &Exit::Port(port_access())),
        reason::EXCEPTION_OR_NMI => deal_with_exception(vcpu),
        reason::TRIPLE_FAULT => deal_with(vcpu, &Exit::TripleFault),
        reason::INIT_SIGNAL | reason::STARTUP_IPI => deal_with(vcpu, &Exit::Reset),
        // Of the registers that the guest writes without an exit, only SELF_IPI can have one behind it. SDM 3C 30.4.3.2, 30.5.
        reason::APIC_WRITE => deal_with(vcpu, &Exit::SelfIpiWritten),
        reason::INTERRUPT_WINDOW => deal_with(vcpu, &Exit::InterruptWindow),
        reason::NMI_WINDOW => {
            guest::ask_for_nmi_window(vcpu, false);
            deal_with(vcpu, &Exit::NmiWindow)
        }
        reason::TASK_SWITCH => {
            keep_interrupted(vcpu);
            deal_with(vcpu, &Exit::TaskSwitch)
        }
        reason::INVD | reason::WBINVD => deal_with(vcpu, &Exit::CacheFlush),
        reason::RDPMC => deal_with(vcpu, &Exit::ReadCounter),
        reason::CONTROL_REGISTER => deal_with_control(vcpu),
        reason::XSETBV => deal_with(vcpu, &Exit::SetExtendedControl),
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
        | reason::ENCLS => deal_with(vcpu, &Exit::Absent),
        _ => deal_with(vcpu, &Exit::Unknown(u32::from(reason))),
    }
}

/// An entry that failed. SDM 3C 27.8.
fn deal_with_failure(vcpu: &mut Vcpu, reason: u16) -> Request {
    if reason == reason::MACHINE_CHECK {
        return deal_with(vcpu, &Exit::MachineCheck);
    }
    if guest::wrap_instruction_pointer() {
        vcpu.state.counters.count(ExitKind::InvalidState);
        return Request::Enter;
    }
    deal_with(vcpu, &Exit::InvalidState)
}

#[inline(always)]
fn deal_with(vcpu: &mut Vcpu, exit: &Exit) -> Request {
    vcpu.state.counters.count(exit.kind());
    let action = exit::decide(exit, &mut vcpu.registers, &mut vcpu.state, &Vmcs);
    carry_out(vcpu, action.operation);
    action.request
}

/// The current VMCS and the machine, as decisions ask them.
struct Vmcs;

impl Asked for Vmcs {
    #[inline(always)]
    fn now(&self) -> u64 {
        machine::tsc()
    }

    fn control_state(&self) -> ControlState {
        ControlState {
            cr0: vmx::read(field::GUEST_CR0),
            cr3: vmx::read(field::GUEST_CR3),
            cr4: vmx::read(field::GUEST_CR4),
            efer: vmx::read(field::GUEST_EFER),
            code_64: guest::is_64_bit(),
        }
    }
}

#[inline(always)]
fn carry_out(vcpu: &mut Vcpu, operation: Operation) {
    match operation {
        Operation::Stay => return,
        Operation::Inject(event) => return guest::inject(event),
        Operation::ForwardDebug => return forward_debug(),
        Operation::Advance => {}
        Operation::LoadXcr0(value) => vcpu.switched.set_xcr0(value),
        Operation::WriteMsr { msr, value } => machine::write_checked_msr(msr, value),
        Operation::LoadCr0(load) => guest::load_cr0(&load),
        Operation::LoadCr4(value) => guest::load_cr4(value),
        // It never exits here: the processor switches it.
        Operation::LoadEfer(_) => return,
        Operation::LoadRegister { register, value } => write_register(vcpu, register, value),
    }
    guest::advance();
}

/// The debug exception goes on to the guest. DR6 gets its causes, which an intercepted exception leaves out. SDM 3C 28.2.1.
fn forward_debug() {
    machine::raise_debug_status(vmx::read(field::EXIT_QUALIFICATION));
    guest::forward_debug();
    if is_int1() {
        guest::inject_int1();
    } else {
        guest::inject(exit::Event::Exception { vector: DEBUG_EXCEPTION, error: None });
    }
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
///
/// Only exceptions, EPT violations and task switches can come in the midst of a delivery. SDM 3C 25.9.3.
fn keep_interrupted(vcpu: &mut Vcpu) {
    const DOUBLE_FAULT: u32 = 8;
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    if info & interruption::VALID != 0
        && info & interruption::NMI_UNBLOCKING != 0
        && info & 0xFF != DOUBLE_FAULT
    {
        guest::block_nmis(true);
    }
    match guest::interrupted_event() {
        Some(Interrupted::Nmi) => {
            guest::block_nmis(false);
            guest::ask_for_nmi_window(vcpu, true);
        }
        Some(Interrupted::Interrupt(vector)) if vcpu.is_dedicated() => {
            vcpu.requeued = Some(vector);
            guest::ask_for_interrupt_window(vcpu, true);
        }
        Some(Interrupted::Interrupt(vector)) => guest::take_back(vcpu, vector),
        None => {}
    }
}

/// Whether the intercepted debug exception is INT1's. SDM 3C 25.9.2.
fn is_int1() -> bool {
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    info & interruption::TYPE_MASK == interruption::PRIVILEGED_SOFTWARE_EXCEPTION
}

/// Whether the exception or NMI is an NMI. SDM 3C 25.9.2.
fn is_nmi() -> bool {
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    info & interruption::TYPE_MASK == interruption::NMI
}

/// SDM 3C 25.9.2.
fn deal_with_exception(vcpu: &mut Vcpu) -> Request {
    keep_interrupted(vcpu);
    let info = vmx::read(field::EXIT_INTERRUPTION_INFO) as u32;
    match info as u8 {
        DEBUG_EXCEPTION => deal_with(vcpu, &Exit::Debug),
        MACHINE_CHECK_EXCEPTION => deal_with(vcpu, &Exit::MachineCheck),
        vector => {
            let error = (info & interruption::DELIVER_ERROR_CODE != 0)
                .then(|| vmx::read(field::EXIT_INTERRUPTION_ERROR_CODE) as u32);
            deal_with(vcpu, &Exit::Exception { vector, error })
        }
    }
}

const DEBUG_EXCEPTION: u8 = 1;
const MACHINE_CHECK_EXCEPTION: u8 = 18;

/// SDM 3C 28.2.1, table 28-7.
fn deal_with_violation(vcpu: &mut Vcpu) -> Request {
    keep_interrupted(vcpu);
    let qualification = vmx::read(field::EXIT_QUALIFICATION);
    let exit = Exit::Memory {
        address: vmx::read(field::GUEST_PHYSICAL_ADDRESS),
        write: qualification & (1 << 1) != 0,
        fetch: qualification & (1 << 2) != 0,
    };
    deal_with(vcpu, &exit)
}

/// SDM 3C 28.2.1, table 28-3. CLTS and LMSW never exit: the bits that they can change are the guest's.
fn deal_with_control(vcpu: &mut Vcpu) -> Request {
    let access = vmx::read(field::EXIT_QUALIFICATION);
    let register = (access >> 8 & 0xF) as u8;
    let value = read_register(vcpu, register);
    // Outside 64-bit code the move takes 32 bits, whatever the upper half of the register holds.
    let value = if guest::is_64_bit() { value } else { value & 0xFFFF_FFFF };
    match (access >> 4 & 3, access & 0xF) {
        (0, 0) => deal_with(vcpu, &Exit::WriteControl { register: Control::Cr0, value }),
        (0, 4) => deal_with(vcpu, &Exit::WriteControl { register: Control::Cr4, value }),
        (0, 8) => deal_with(vcpu, &Exit::WriteTaskPriority(value)),
        (1, 8) => deal_with(vcpu, &Exit::ReadTaskPriority { register }),
        _ => deal_with(vcpu, &Exit::Unknown(u32::from(reason::CONTROL_REGISTER))),
    }
}

/// A general-purpose register by its number in an instruction.
fn read_register(vcpu: &Vcpu, number: u8) -> u64 {
    vcpu.general_register(number).unwrap_or_else(|| vmx::read(field::GUEST_RSP))
}

fn write_register(vcpu: &mut Vcpu, number: u8, value: u64) {
    match vcpu.general_register_mut(number) {
        Some(place) => *place = value,
        // SAFETY: the guest asked for this very load of its own stack pointer.
        None => unsafe { vmx::write(field::GUEST_RSP, value) },
    }
}
