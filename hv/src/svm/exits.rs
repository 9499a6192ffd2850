//! From the processor's account of an exit to a vendor-neutral [`Exit`], and from an [`Operation`] back to the block.
#![expect(unsafe_code, reason = "is entered by the exit stub")]

use hv_core::exit::access;
use hv_core::exit::{
    self, Asked, Control, ControlState, Exit, ExitKind, Operation, PortAccess, Request,
};
#[cfg(feature = "floor")]
use hv_core::msr::CoreKind;
use hv_defs::svm::{code, group, io_info, msr_info, page_fault_info};
use hv_defs::vmcb::{control, event, save};

use super::fetch::{self, Moved};
use super::{block, guest};
use crate::backend::Handlers;
use crate::cpu::instructions as machine;
use crate::vcpu::{Pending, Vcpu};

/// The first half of an exit: returns the vCPU, to be entered again, or null when the second half has more to do. RBP and R12 to R15 are
/// still the guest's.
pub extern "C" fn first_half<H: Handlers>(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: the stub passes the vCPU that just ran, which is this core's, and no other reference to it is alive.
    let vcpu = unsafe { &mut *vcpu };
    #[cfg(feature = "floor")]
    if H::KIND == CoreKind::Dedicated
        && vcpu.registers.rax == u64::from(bulkhead_table::abi::FLOOR_MARK)
    {
        guest::advance(vcpu);
        return vcpu;
    }
    match block::read(vcpu, control::EXIT_CODE) {
        code::CPUID => {
            vcpu.state.counters.count(ExitKind::Cpuid);
            if H::HAS_PC {
                access::cpuid_of_pc(&mut vcpu.registers, &vcpu.state);
            } else {
                access::cpuid(&mut vcpu.registers, &vcpu.state);
            }
            guest::step_over(vcpu, TWO_BYTES);
            H::enter_again(vcpu)
        }
        code::MSR => on_msr::<H>(vcpu),
        // The devices of a PC are the second half's, and so are refused hypercalls, of which the first is recorded.
        code::IO | code::VMMCALL if H::HAS_PC => leave_whole(vcpu),
        code::VMMCALL => on_hypercall::<H>(vcpu),
        code::IO => on_port::<H>(vcpu),
        _ => leave_whole(vcpu),
    }
}

/// Lengths of instructions, for processors without NRIPS. CPUID, RDMSR and WRMSR have two bytes, VMMCALL and XSETBV three. A redundant
/// prefix is not counted: RIP then points inside the guest's own instruction.
const TWO_BYTES: u64 = 2;
const THREE_BYTES: u64 = 3;

#[inline(never)]
fn on_msr<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let operation = if is_write(vcpu) {
        let (registers, state) = (&vcpu.registers, &mut vcpu.state);
        if H::HAS_PC {
            access::answer_write_msr_of_pc(H::KIND, registers, state)
        } else {
            access::answer_write_msr(H::KIND, registers, state)
        }
    } else if H::HAS_PC {
        access::answer_read_msr_of_pc(&mut vcpu.registers, &vcpu.state)
            .then_some(Operation::Advance)
    } else {
        access::answer_read_msr(H::KIND, &mut vcpu.registers, &mut vcpu.state)
    };
    match operation {
        Some(Operation::Advance) => guest::step_over(vcpu, TWO_BYTES),
        Some(Operation::WriteMsr { msr, value }) => {
            machine::write_checked_msr(msr, value);
            guest::step_over(vcpu, TWO_BYTES);
        }
        Some(Operation::Inject(event)) => guest::inject(vcpu, event),
        _ => return leave_whole(vcpu),
    }
    let kind = if is_write(vcpu) { ExitKind::WriteMsr } else { ExitKind::ReadMsr };
    vcpu.state.counters.count(kind);
    H::enter_again(vcpu)
}

/// An answer is all that such a hypercall takes, or it is left whole.
#[inline(never)]
fn on_hypercall<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let privileged = is_privileged(vcpu);
    if !exit::hypercall::answer_hypercall(&mut vcpu.registers, &mut vcpu.state, privileged) {
        return leave_whole(vcpu);
    }
    vcpu.state.counters.count(ExitKind::Hypercall);
    guest::step_over(vcpu, THREE_BYTES);
    H::enter_again(vcpu)
}

#[inline(never)]
fn on_port<H: Handlers>(vcpu: &mut Vcpu) -> *mut Vcpu {
    let access = port_access(vcpu);
    if !access::answer_port(access, &mut vcpu.registers, &mut vcpu.state) {
        return leave_whole(vcpu);
    }
    vcpu.state.counters.count(ExitKind::Port);
    guest::advance_to(vcpu, block::read(vcpu, control::EXIT_INFO_2));
    H::enter_again(vcpu)
}

/// Nothing was done about the exit: it is the second half's.
#[inline(always)]
fn leave_whole(vcpu: &mut Vcpu) -> *mut Vcpu {
    vcpu.pending = Pending::Exit;
    core::ptr::null_mut()
}

fn is_write(vcpu: &Vcpu) -> bool {
    block::read(vcpu, control::EXIT_INFO_1) == msr_info::WRITE
}

fn is_privileged(vcpu: &Vcpu) -> bool {
    block::read(vcpu, save::CPL) == 0
}

/// APM 2 15.10.2.
fn port_access(vcpu: &Vcpu) -> PortAccess {
    let info = block::read(vcpu, control::EXIT_INFO_1);
    let width = match info & (io_info::SIZE_8 | io_info::SIZE_16 | io_info::SIZE_32) {
        io_info::SIZE_8 => 1,
        io_info::SIZE_16 => 2,
        _ => 4,
    };
    PortAccess {
        port: (info >> io_info::PORT_SHIFT) as u16,
        width,
        input: info & io_info::IN != 0,
        string: info & io_info::STRING != 0,
    }
}

/// The second half of an exit: reads it, decides, carries the decision out, and returns what is left to the run loop.
#[inline(always)]
pub fn finish(vcpu: &mut Vcpu) -> Request {
    match core::mem::replace(&mut vcpu.pending, Pending::Nothing) {
        Pending::Nothing => Request::Clock,
        Pending::Exit => read_and_deal(vcpu),
    }
}

/// Reads an exit and deals with it. In each arm the exit is a constant, so the compiler keeps only that arm of [`exit::decide`].
#[inline(always)]
fn read_and_deal(vcpu: &mut Vcpu) -> Request {
    guest::note_exit(vcpu);
    match block::read(vcpu, control::EXIT_CODE) {
        code::INTR => deal_with(vcpu, &Exit::Interrupt, 0),
        code::MSR if is_write(vcpu) => deal_with(vcpu, &Exit::WriteMsr, TWO_BYTES),
        code::HLT => {
            guest::halt(vcpu);
            deal_with(vcpu, &Exit::Halt, 0)
        }
        // The handler of the hypervisor's own IDT notes it: it is taken there, for the run loop to find.
        code::NMI => {
            vcpu.state.counters.count(ExitKind::Nmi);
            super::instructions::open_gif();
            Request::Enter
        }
        rare => deal_with_rare(vcpu, rare),
    }
}

#[inline(never)]
fn deal_with_rare(vcpu: &mut Vcpu, reason: u64) -> Request {
    match reason {
        code::CPUID => deal_with(vcpu, &Exit::Cpuid, TWO_BYTES),
        code::VMMCALL => {
            let privileged = is_privileged(vcpu);
            deal_with(vcpu, &Exit::Hypercall { privileged }, THREE_BYTES)
        }
        code::MSR => deal_with(vcpu, &Exit::ReadMsr, TWO_BYTES),
        code::IO => deal_with(vcpu, &Exit::Port(port_access(vcpu)), 0),
        code::SHUTDOWN => deal_with(vcpu, &Exit::TripleFault, 0),
        code::INIT => deal_with(vcpu, &Exit::Reset, 0),
        code::VINTR => deal_with(vcpu, &Exit::InterruptWindow, 0),
        // The guest returns from its NMI handler: the next one is let in behind that.
        code::IRET => {
            vcpu.state.counters.count(ExitKind::NmiWindow);
            guest::return_from_nmi(vcpu);
            Request::Enter
        }
        code::TASK_SWITCH => {
            keep_interrupted(vcpu);
            deal_with(vcpu, &Exit::TaskSwitch, 0)
        }
        code::INVD | code::WBINVD => deal_with(vcpu, &Exit::CacheFlush, TWO_BYTES),
        code::RDPMC => deal_with(vcpu, &Exit::ReadCounter, 0),
        code::XSETBV => deal_with(vcpu, &Exit::SetExtendedControl, THREE_BYTES),
        code::NESTED_PAGE_FAULT => deal_with_violation(vcpu),
        code::CR0_SELECTIVE_WRITE => deal_with_control(vcpu, 0, true),
        code::INVALID => deal_with(vcpu, &Exit::InvalidState, 0),
        code::VMRUN
        | code::VMLOAD
        | code::VMSAVE
        | code::STGI
        | code::CLGI
        | code::SKINIT
        | code::INVLPGA
        | code::MONITOR
        | code::MWAIT
        | code::MWAIT_ARMED
        | code::RDPRU => deal_with(vcpu, &Exit::Absent, 0),
        CR_READ..CR_WRITE => deal_with_control(vcpu, reason - CR_READ, false),
        CR_WRITE..DR_READ => deal_with_control(vcpu, reason - CR_WRITE, true),
        EXCEPTIONS..=LAST_EXCEPTION => deal_with_exception(vcpu, (reason - EXCEPTIONS) as u8),
        _ => deal_with(vcpu, &Exit::Unknown(reason as u32), 0),
    }
}

const CR_READ: u64 = group::CR_READ;
const CR_WRITE: u64 = group::CR_WRITE;
const DR_READ: u64 = group::DR_READ;
const EXCEPTIONS: u64 = group::EXCEPTION;
const LAST_EXCEPTION: u64 = EXCEPTIONS + 31;

/// `length` is that of the instruction, where the decision steps over one and the processor does not say.
#[inline(always)]
fn deal_with(vcpu: &mut Vcpu, exit: &Exit, length: u64) -> Request {
    vcpu.state.counters.count(exit.kind());
    let asked = Block(vcpu.block);
    let action = exit::decide(exit, &mut vcpu.registers, &mut vcpu.state, &asked);
    carry_out(vcpu, action.operation, length);
    action.request
}

/// The guest's block, by its address, and the machine, as decisions ask them.
struct Block(u64);

impl Asked for Block {
    #[inline(always)]
    fn now(&self) -> u64 {
        machine::tsc()
    }

    fn control_state(&self) -> ControlState {
        block::control_state(self.0)
    }
}

#[inline(always)]
fn carry_out(vcpu: &mut Vcpu, operation: Operation, length: u64) {
    match operation {
        Operation::Stay => return,
        Operation::Inject(event) => return guest::inject(vcpu, event),
        Operation::ForwardDebug => return guest::forward_debug(vcpu),
        Operation::Advance => {}
        Operation::LoadXcr0(value) => vcpu.switched.set_xcr0(value),
        Operation::WriteMsr { msr, value } => machine::write_checked_msr(msr, value),
        Operation::LoadCr0(load) => guest::load_cr0(vcpu, &load),
        Operation::LoadCr4(value) => guest::load_cr4(vcpu, value),
        Operation::LoadEfer(value) => guest::load_efer(vcpu, value),
        Operation::LoadRegister { register, value } => write_register(vcpu, register, value),
    }
    if block::read(vcpu, control::EXIT_CODE) == code::IO {
        guest::advance_to(vcpu, block::read(vcpu, control::EXIT_INFO_2));
    } else {
        guest::step_over(vcpu, length);
    }
}

/// APM 2 15.25.6.
fn deal_with_violation(vcpu: &mut Vcpu) -> Request {
    keep_interrupted(vcpu);
    let info = block::read(vcpu, control::EXIT_INFO_1);
    let exit = Exit::Memory {
        address: block::read(vcpu, control::EXIT_INFO_2),
        write: info & page_fault_info::WRITE != 0,
        fetch: info & page_fault_info::FETCH != 0,
    };
    deal_with(vcpu, &exit, 0)
}

const DEBUG_EXCEPTION: u8 = 1;
const MACHINE_CHECK_EXCEPTION: u8 = 18;
const ALIGNMENT_EXCEPTION: u8 = 17;

/// APM 2 15.12.
fn deal_with_exception(vcpu: &mut Vcpu, vector: u8) -> Request {
    keep_interrupted(vcpu);
    match vector {
        DEBUG_EXCEPTION => deal_with(vcpu, &Exit::Debug, 0),
        MACHINE_CHECK_EXCEPTION => deal_with(vcpu, &Exit::MachineCheck, 0),
        _ => {
            let error = (vector == ALIGNMENT_EXCEPTION)
                .then(|| block::read(vcpu, control::EXIT_INFO_1) as u32);
            deal_with(vcpu, &Exit::Exception { vector, error }, 0)
        }
    }
}

/// An access to a control register. Without decode assists the instruction is read from the guest's memory; where that cannot be, the
/// partition is stopped.
fn deal_with_control(vcpu: &mut Vcpu, number: u64, write: bool) -> Request {
    let Some(moved) = fetch::control_move(vcpu) else {
        return deal_with(vcpu, &Exit::Unknown(number as u32), 0);
    };
    let Moved { register, length, is_lmsw } = moved;
    let mut value = read_register(vcpu, register);
    if !guest::is_64_bit(vcpu) {
        // Outside 64-bit code the move takes 32 bits, whatever the upper half of the register holds.
        value &= 0xFFFF_FFFF;
    }
    if is_lmsw {
        value = lmsw(block::read(vcpu, save::CR0), value);
    }
    let length = u64::from(length);
    match (write, number) {
        (true, 0) => deal_with(vcpu, &Exit::WriteControl { register: Control::Cr0, value }, length),
        (true, 4) => deal_with(vcpu, &Exit::WriteControl { register: Control::Cr4, value }, length),
        (true, 8) => deal_with(vcpu, &Exit::WriteTaskPriority(value), length),
        (false, 8) => deal_with(vcpu, &Exit::ReadTaskPriority { register }, length),
        _ => deal_with(vcpu, &Exit::Unknown(number as u32), 0),
    }
}

/// CR0 behind LMSW: the lower four bits are replaced, and PE is not cleared. APM 3, LMSW.
const fn lmsw(cr0: u64, value: u64) -> u64 {
    cr0 & !0xE | value & 0xF
}

/// An event whose delivery this exit interrupted is kept for later. APM 2 15.7.2.
fn keep_interrupted(vcpu: &mut Vcpu) {
    let info = block::read(vcpu, control::EXIT_INTERRUPT_INFO);
    if info & event::VALID == 0 {
        return;
    }
    let vector = (info & event::VECTOR) as u8;
    match info & event::TYPE {
        event::NMI => guest::nmi_was_interrupted(vcpu),
        event::INTERRUPT if vcpu.is_dedicated() => {
            vcpu.requeued = Some(vector);
            guest::ask_for_interrupt_window(vcpu, true);
        }
        event::INTERRUPT => {
            vcpu.state.apic.withdraw(vector);
            guest::ask_for_interrupt_window(vcpu, true);
        }
        _ => {}
    }
}

/// A general-purpose register by its number in an instruction.
fn read_register(vcpu: &Vcpu, number: u8) -> u64 {
    vcpu.general_register(number).unwrap_or_else(|| block::read(vcpu, save::RSP))
}

fn write_register(vcpu: &mut Vcpu, number: u8, value: u64) {
    match vcpu.general_register_mut(number) {
        Some(place) => *place = value,
        // SAFETY: the guest asked for this very load of its own stack pointer.
        None => unsafe { block::write(vcpu, save::RSP, value) },
    }
}
