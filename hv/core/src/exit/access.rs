//! Accesses to ports, MSRs and CPUID leaves.
//!
//! The `answer_*` functions are the fast paths: they decide as the whole rules do, or do nothing. `tests/exit.rs` holds both together.

use super::action::{Action, GENERAL_PROTECTION, Operation, REFUSE, Request};
use super::counters::Denial;
use super::{Asked, Registers, VcpuState};
use crate::cpuid::Leaf;
use crate::ipi::{Errand, Ipi};
use crate::msr::{self, CoreKind};
use crate::pc::{self, Outcome};
use crate::vapic;

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

/// CPUID on either platform.
pub(super) fn cpuid_whole(registers: &mut Registers, vcpu: &VcpuState) -> Action {
    if vcpu.pc.is_some() {
        cpuid_of_pc(registers, vcpu)
    } else {
        cpuid(registers, vcpu)
    }
    Action::ADVANCE
}

/// IN and OUT: a device of the PC, or an empty bus.
pub(super) fn port(
    access: PortAccess,
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    machine: &impl Asked,
) -> Action {
    if let Some(pc) = vcpu.pc {
        match pc.access(access, &mut registers.rax, machine.now()) {
            Outcome::Done => return Action::ADVANCE,
            Outcome::Off => return Action::ask(Request::Off),
            Outcome::Restart => return Action::ask(Request::Restart),
            Outcome::Absent => {}
        }
    }
    vcpu.note_refusal(Denial::Port, access.port.into());
    if answer_port(access, registers, vcpu) {
        return Action::ADVANCE;
    }
    vcpu.counters.deny(Denial::Port);
    GENERAL_PROTECTION
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

/// RDMSR.
pub(super) fn read_msr(
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    machine: &impl Asked,
) -> Action {
    let number = registers.rcx as u32;
    if let Some(operation) = answer_read_msr(vcpu.kind, registers, vcpu) {
        if operation == REFUSE {
            vcpu.note_refusal(Denial::Msr, number);
        }
        return Action::only(operation);
    }
    match vcpu.apic.read(number, machine.now()) {
        Ok(value) => {
            registers.set_edx_eax(value);
            Action::ADVANCE
        }
        Err(_) => {
            vcpu.deny(Denial::Msr, number);
            GENERAL_PROTECTION
        }
    }
}

/// Handles RDMSR of constant and denied MSRs. Returns `None`, with nothing done, where the virtual APIC has to decide. `kind` is the
/// vCPU's, which the caller knows beforehand.
#[inline(always)]
pub fn answer_read_msr(
    kind: CoreKind,
    registers: &mut Registers,
    vcpu: &mut VcpuState,
) -> Option<Operation> {
    let number = registers.rcx as u32;
    if let Some(value) = msr::constant(kind, number, &vcpu.msr) {
        registers.set_edx_eax(value);
        return Some(Operation::Advance);
    }
    if msr::is_virtual(kind, number) {
        return None;
    }
    vcpu.counters.deny(Denial::Msr);
    Some(REFUSE)
}

/// Handles RDMSR of constant MSRs for a vCPU with the devices of a PC. Returns false, with nothing done, for any other: a refusal there
/// is recorded, which takes the whole rules.
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

/// Handles WRMSR where a few instructions suffice. Returns `None`, with nothing done, elsewhere. `kind` is the vCPU's, which the caller
/// knows beforehand.
#[inline(always)]
pub fn answer_write_msr(
    kind: CoreKind,
    registers: &Registers,
    vcpu: &mut VcpuState,
) -> Option<Operation> {
    let number = registers.rcx as u32;
    match write_outright(kind, number, registers.edx_eax(), vcpu)? {
        msr::WriteAction::Machine(value) => Some(Operation::WriteMsr { msr: number, value }),
        msr::WriteAction::Drop => Some(Operation::Advance),
        msr::WriteAction::Deny => {
            vcpu.counters.deny(write_denial(number));
            Some(REFUSE)
        }
        msr::WriteAction::Send(_) => None,
    }
}

/// The same for a vCPU with the devices of a PC, without refusals: each is recorded, which takes the whole rules.
#[inline(always)]
pub fn answer_write_msr_of_pc(
    kind: CoreKind,
    registers: &Registers,
    vcpu: &mut VcpuState,
) -> Option<Operation> {
    let number = registers.rcx as u32;
    let value = pc::msr::as_wired(number, registers.edx_eax());
    match write_outright(kind, number, value, vcpu)? {
        msr::WriteAction::Machine(value) => Some(Operation::WriteMsr { msr: number, value }),
        msr::WriteAction::Drop => Some(Operation::Advance),
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

/// WRMSR.
#[inline(always)]
pub(super) fn write_msr(
    registers: &Registers,
    vcpu: &mut VcpuState,
    machine: &impl Asked,
) -> Action {
    let number = registers.rcx as u32;
    let mut value = registers.edx_eax();
    if number == hv_defs::apic::ICR && vcpu.kind == CoreKind::Shared {
        return write_command(value, vcpu, machine);
    }
    if vcpu.pc.is_some() {
        if vcpu.kind == CoreKind::Dedicated && pc::msr::is_idle_write(number, value) {
            return Action::ADVANCE;
        }
        value = pc::msr::as_wired(number, value);
    }
    if msr::is_virtual(vcpu.kind, number) {
        return write_virtual(number, value, vcpu, machine);
    }
    match msr::write(vcpu.kind, number, value, &vcpu.msr) {
        msr::WriteAction::Machine(value) => {
            Action::only(Operation::WriteMsr { msr: number, value })
        }
        msr::WriteAction::Send(ipi) => send(ipi, vcpu),
        msr::WriteAction::Drop => Action::ADVANCE,
        msr::WriteAction::Deny => refuse_write(vcpu, number),
    }
}

/// WRMSR of a register that the virtual APIC has.
#[inline(always)]
fn write_virtual(number: u32, value: u64, vcpu: &mut VcpuState, machine: &impl Asked) -> Action {
    if vcpu.apic.write_plain(number, value) {
        return Action::ADVANCE;
    }
    let outcome = vcpu.apic.write(number, value, machine.now());
    after_virtual(outcome, number, vcpu)
}

/// An interrupt command on a time-shared core.
#[inline(always)]
fn write_command(value: u64, vcpu: &mut VcpuState, machine: &impl Asked) -> Action {
    if vcpu.has_no_time_to_send(machine) {
        // The guest executes the same instruction again in its next window.
        return Action::ask(Request::Yield);
    }
    let outcome = vcpu.apic.write_command(value);
    after_virtual(outcome, hv_defs::apic::ICR, vcpu)
}

#[inline(always)]
fn after_virtual(
    outcome: Result<Option<Ipi>, vapic::Fault>,
    number: u32,
    vcpu: &mut VcpuState,
) -> Action {
    match outcome {
        Ok(Some(ipi)) => send(ipi, vcpu),
        Ok(None) => Action::APIC_CHANGED,
        Err(_) => refuse_write(vcpu, number),
    }
}

const fn send(ipi: Ipi, vcpu: &mut VcpuState) -> Action {
    vcpu.errand = Errand::of(ipi);
    Action::advance_and(Request::Send)
}

const fn write_denial(number: u32) -> Denial {
    if msr::is_x2apic(number) { Denial::Interrupt } else { Denial::Msr }
}

fn refuse_write(vcpu: &mut VcpuState, number: u32) -> Action {
    vcpu.deny(write_denial(number), number);
    GENERAL_PROTECTION
}
