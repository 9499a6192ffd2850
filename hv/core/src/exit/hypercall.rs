//! Hypercalls: which are granted, and what they answer.

use bulkhead_table::{PlanId, abi};

use super::action::{Action, Request};
use super::counters::Denial;
use super::{Asked, Registers, VcpuState};

/// Decides a hypercall.
pub(super) fn hypercall(
    registers: &mut Registers,
    vcpu: &mut VcpuState,
    privileged: bool,
    machine: &impl Asked,
) -> Action {
    if answer_hypercall(registers, vcpu, privileged) {
        if registers.rax != 0 {
            vcpu.note_refusal(Denial::Hypercall, 0);
        }
        return Action::ADVANCE;
    }
    match registers.rax {
        abi::call::CONSOLE => registers.rax = console(registers, vcpu, machine.now()),
        abi::call::SPAN_BEGIN => {
            vcpu.counters.open_span();
            registers.rax = 0;
        }
        abi::call::SPAN_END => registers.rax = end_span(registers, vcpu),
        abi::call::FINISH => {
            let passed = registers.rbx == abi::verdict::PASS;
            return Action::ask(if passed { Request::Pass } else { Request::Fail });
        }
        _ => return schedule_call(registers, vcpu),
    }
    Action::ADVANCE
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
            (plans, Ok(plan)) if plan < plans => Ok(Request::SwitchPlan),
            _ => Err(abi::status::INVALID),
        },
        (abi::call::PLAN, _) => Ok(Request::TellPlan),
        (abi::call::YIELD, _) => Ok(Request::Yield),
        (abi::call::SLEEP_UNTIL_FRAME, _) => Ok(Request::Sleep),
        (abi::call::DONATE, _) if vcpu.rights.donates_to.is_some() => Ok(Request::Donate),
        (abi::call::DONATE, _) => Err(abi::status::DENIED),
        _ => Err(abi::status::UNKNOWN_CALL),
    };
    match granted {
        Ok(request) => {
            registers.rax = 0;
            Action::advance_and(request)
        }
        Err(status) => {
            vcpu.deny(Denial::Hypercall, 0);
            registers.rax = status;
            Action::ADVANCE
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
        vcpu.deny(Denial::Hypercall, 0);
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
        vcpu.deny(Denial::Hypercall, 0);
        return abi::status::DENIED;
    };
    registers.rbx = exits;
    0
}

fn window(registers: &mut Registers, vcpu: &mut VcpuState) -> u64 {
    let Some(window) = vcpu.window else {
        return refuse_call(vcpu, abi::status::DENIED);
    };
    registers.rbx = window.epoch;
    registers.rdi = window.frame;
    registers.rsi = window.start;
    registers.rdx = window.length;
    0
}
