//! What follows from an exit, decision by decision, as the back end would ask for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use bulkhead_table::Platform;
use bulkhead_table::abi::{self, call, status, verdict};
use hv_core::cpuid::{CpuidPolicy, Facts, Leaf};
use hv_core::exit::access::{
    answer_read_msr, answer_read_msr_of_pc, answer_write_msr, answer_write_msr_of_pc,
};
use hv_core::exit::action::{GENERAL_PROTECTION, INVALID_OPCODE, REFUSE};
use hv_core::exit::{
    Action, Asked, ConsoleRing, Control, ControlLoad, ControlState, Counters, DENIALS, Denial,
    EXIT_KINDS, Event, Exit, ExitKind, Operation, Paging, PortAccess, Refusal, Registers, Request,
    ScheduleRights, VcpuState, Violation, WindowView, decide, xcr0_is_valid,
};
use hv_core::ipi::{Errand, Ipi, Kind as IpiKind, Peers, Targets};
use hv_core::msr::{CoreKind, MsrState};
use hv_core::pc::clock::WallClock;
use hv_core::pc::{Devices, Pc};
use hv_core::vapic::{ApicPage, VirtualApic};
use hv_core::wire::MAX_PAYLOAD;
use proptest::prelude::*;

const ID: u32 = 3;
const PARTITION: u16 = 7;
const STOP: Action = Action::ask(Request::Stop);
const XCR0_ALLOWED: u64 = 0b1110_0111;
const CR4_ALLOWED: u64 = 0x77_0FFF;

fn vcpu(kind: CoreKind) -> VcpuState {
    let peers = Peers::new(&[ID, ID + 1], 0);
    let facts = Facts {
        apic_id: ID,
        tsc_khz: 50_000,
        partition: PARTITION,
        vcpu: 0,
        vcpus: 1,
        schedule_page: 0,
        kind,
        xcr0_allowed: XCR0_ALLOWED,
        random_numbers: true,
        platform: Platform::Bare,
    };
    VcpuState {
        partition: PARTITION,
        kind,
        cpuid: CpuidPolicy::build(machine, &facts),
        xcr0_allowed: XCR0_ALLOWED,
        cr4_allowed: CR4_ALLOWED,
        msr: MsrState::new(peers),
        apic: VirtualApic::new(Box::leak(Box::new(ApicPage::new())), peers),
        window: None,
        rights: ScheduleRights::default(),
        pc: None,
        console: Box::leak(Box::new(ConsoleRing::new())),
        counters: Counters::new(),
        errand: Errand::NONE,
        violation: None,
        refusal: None,
    }
}

/// A processor with every feature and small state components.
fn machine(leaf: u32, _sub: u32) -> Leaf {
    match leaf {
        0xD => Leaf { eax: 64, ebx: 576, ecx: 0, edx: 0 },
        _ => Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 },
    }
}

/// The machine of the tests: its clock stands at 1234.
struct Tests(ControlState);

impl Default for Tests {
    /// A guest in 32-bit protected mode without paging.
    fn default() -> Self {
        Self(ControlState { cr0: 0x31, ..ControlState::default() })
    }
}

impl Asked for Tests {
    fn now(&self) -> u64 {
        1234
    }

    fn control_state(&self) -> ControlState {
        self.0
    }
}

fn dedicated() -> VcpuState {
    vcpu(CoreKind::Dedicated)
}

fn act(vcpu: &mut VcpuState, exit: Exit, registers: &mut Registers) -> Action {
    decide(&exit, registers, vcpu, &Tests::default())
}

fn denied(vcpu: &VcpuState, denial: Denial) -> u64 {
    assert_eq!(
        vcpu.counters.denied.iter().sum::<u64>(),
        vcpu.counters.denied[denial as usize],
        "only {denial:?}"
    );
    vcpu.counters.denied[denial as usize]
}

fn call(vcpu: &mut VcpuState, registers: &mut Registers) -> u64 {
    assert_eq!(act(vcpu, Exit::Hypercall { privileged: true }, registers), Action::ADVANCE);
    registers.rax
}

#[test]
fn cpuid_replaces_all_four_registers_whole() {
    let mut registers =
        Registers { rax: 0xFFFF_FFFF_4000_0001, rbx: !0, rcx: !0, rdx: !0, ..Default::default() };
    assert_eq!(act(&mut dedicated(), Exit::Cpuid, &mut registers), Action::ADVANCE);
    let expected =
        Registers { rax: u64::from(abi::VERSION), rbx: 7, rcx: 0, rdx: 0, ..Default::default() };
    assert_eq!(registers, expected);
}

#[test]
fn an_application_cannot_call_the_hypervisor() {
    for number in 0..=call::DONATE + 1 {
        let mut vcpu = dedicated();
        let mut registers = Registers { rax: number, ..Default::default() };
        let action = act(&mut vcpu, Exit::Hypercall { privileged: false }, &mut registers);
        assert_eq!((action, registers.rax), (Action::ADVANCE, status::DENIED));
        assert_eq!(denied(&vcpu, Denial::Hypercall), 1);
    }
}

#[test]
fn an_unknown_call_says_so() {
    let mut vcpu = dedicated();
    for number in [0, call::DONATE + 1, 1 << 32 | call::CONSOLE, u64::MAX] {
        let mut registers = Registers { rax: number, ..Default::default() };
        assert_eq!(self::call(&mut vcpu, &mut registers), status::UNKNOWN_CALL);
    }
    assert_eq!(denied(&vcpu, Denial::Hypercall), 4);
}

fn console(length: u64) -> Registers {
    let word = |n: u64| u64::from_le_bytes(core::array::from_fn(|i| (n * 8) as u8 + i as u8));
    Registers {
        rax: call::CONSOLE,
        rbx: length,
        rdi: word(0),
        rsi: word(1),
        rdx: word(2),
        r8: word(3),
        r9: word(4),
        r10: word(5),
        ..Default::default()
    }
}

#[test]
fn console_bytes_travel_in_order() {
    let mut vcpu = dedicated();
    for length in 1..=abi::CONSOLE_BYTES as u64 {
        assert_eq!(call(&mut vcpu, &mut console(length)), length);
        let mut payload = [0; MAX_PAYLOAD];
        let record = vcpu.console.pop(&mut payload).unwrap();
        assert_eq!(record.tsc, 1234);
        let expected: Vec<u8> = (0..length as u8).collect();
        assert_eq!(payload[..record.length], expected);
    }
    for length in [0, 49, u64::MAX] {
        assert_eq!(call(&mut vcpu, &mut console(length)), status::INVALID);
    }
    assert_eq!(denied(&vcpu, Denial::Hypercall), 3);
}

#[test]
fn a_full_console_pushes_back_and_loses_nothing() {
    let mut vcpu = dedicated();
    let mut taken = 0;
    let short = loop {
        match call(&mut vcpu, &mut console(48)) {
            48 => taken += 48,
            short => break short,
        }
    };
    assert_eq!(call(&mut vcpu, &mut console(48)), 0);
    let mut payload = [0; MAX_PAYLOAD];
    let mut popped = 0;
    while let Some(record) = vcpu.console.pop(&mut payload) {
        popped += record.length as u64;
    }
    assert_eq!(popped, taken + short);
    assert_eq!(vcpu.console.take_lost(), 0);
    assert_eq!(call(&mut vcpu, &mut console(48)), 48);
}

#[test]
fn a_span_counts_what_lies_between_its_calls() {
    let mut vcpu = dedicated();
    let mut end = Registers { rax: call::SPAN_END, ..Default::default() };
    assert_eq!(call(&mut vcpu, &mut end), status::DENIED, "none is open");
    for exits in [0, 1, 17] {
        vcpu.counters.count(ExitKind::Hypercall);
        assert_eq!(
            call(&mut vcpu, &mut Registers { rax: call::SPAN_BEGIN, ..Default::default() }),
            0
        );
        for number in 0..exits {
            vcpu.counters.count(ExitKind::ALL[number as usize % EXIT_KINDS]);
        }
        vcpu.counters.count(ExitKind::Hypercall);
        let mut end = Registers { rax: call::SPAN_END, ..Default::default() };
        assert_eq!((call(&mut vcpu, &mut end), end.rbx), (0, exits));
        assert_eq!(vcpu.counters.span.map(|span| span.iter().sum()), Some(exits));
    }
}

#[test]
fn the_console_takes_nothing_at_the_edge_of_a_window() {
    let mut vcpu = vcpu(CoreKind::Shared);
    // The tests' clock stands at 1234.
    for (end, taken) in [(1_243, 0), (1_244, 30)] {
        vcpu.window =
            Some(WindowView { epoch: 0, frame: 9_999, start: 0, length: end, end, quiet: 10 });
        let mut registers = Registers { rax: call::CONSOLE, rbx: 30, ..Default::default() };
        assert_eq!(call(&mut vcpu, &mut registers), taken);
    }
}

#[test]
fn a_command_at_the_edge_of_a_window_is_left_to_the_next_one() {
    const ICR: u32 = 0x830;
    let command = u64::from(ID + 1) << 32 | 1 << 14 | 0x40;
    let sent = Action::advance_and(Request::Send);
    // The tests' clock stands at 1234. Two vCPUs are judged within the quiet time; without an end there is always time.
    let window =
        |end| WindowView { epoch: 0, frame: 9_999, start: 0, length: end, end, quiet: 100 };
    for (ends, expected) in
        [(Some(1_333), Action::ask(Request::Yield)), (Some(1_334), sent), (None, sent)]
    {
        let mut vcpu = vcpu(CoreKind::Shared);
        vcpu.window = ends.map(window);
        assert_eq!(write(&mut vcpu, ICR, command), expected, "{ends:?}");
        let stored = if expected == sent { command } else { 0 };
        assert_eq!(read(&mut vcpu, ICR), Ok(stored), "nothing is done of what is left");
    }
}

#[test]
fn only_a_time_shared_partition_has_a_window() {
    let mut registers = Registers { rax: call::WINDOW, ..Default::default() };
    assert_eq!(call(&mut dedicated(), &mut registers), status::DENIED);
    let mut vcpu = vcpu(CoreKind::Shared);
    vcpu.window =
        Some(WindowView { epoch: 1, frame: 2, start: 3, length: 4, end: 99_999, quiet: 10 });
    let mut registers = Registers { rax: call::WINDOW, ..Default::default() };
    assert_eq!(call(&mut vcpu, &mut registers), 0);
    assert_eq!([registers.rbx, registers.rdi, registers.rsi, registers.rdx], [1, 2, 3, 4]);
}

/// What follows from a call about the schedule by a vCPU with these rights.
fn schedule_call(rights: ScheduleRights, number: u64, argument: u64) -> (Action, u64, u64) {
    let mut vcpu = vcpu(CoreKind::Shared);
    vcpu.window =
        Some(WindowView { epoch: 1, frame: 2, start: 3, length: 4, end: 99_999, quiet: 10 });
    vcpu.rights = rights;
    let mut registers = Registers { rax: number, rbx: argument, ..Default::default() };
    let action = act(&mut vcpu, Exit::Hypercall { privileged: true }, &mut registers);
    (action, registers.rax, vcpu.counters.denied[Denial::Hypercall as usize])
}

#[test]
fn a_partition_without_rights_may_rest_and_ask_and_no_more() {
    let none = ScheduleRights::default();
    for (number, rest) in [(call::YIELD, Request::Yield), (call::SLEEP_UNTIL_FRAME, Request::Sleep)]
    {
        assert_eq!(schedule_call(none, number, 9), (Action::advance_and(rest), 0, 0));
    }
    assert_eq!(schedule_call(none, call::PLAN, 0), (Action::advance_and(Request::TellPlan), 0, 0));
    for number in [call::SWITCH_PLAN, call::DONATE] {
        assert_eq!(schedule_call(none, number, 0), (Action::ADVANCE, status::DENIED, 1));
    }
}

#[test]
fn a_partition_with_rights_reaches_what_the_table_names_and_no_more() {
    let rights = ScheduleRights { plans: 2, donates_to: Some(5) };
    let switch = |plan| schedule_call(rights, call::SWITCH_PLAN, plan);
    assert_eq!(switch(1), (Action::advance_and(Request::SwitchPlan), 0, 0));
    for plan in [2, 0x1_0000, u64::MAX] {
        assert_eq!(switch(plan), (Action::ADVANCE, status::INVALID, 1));
    }
    let donated = Action::advance_and(Request::Donate);
    assert_eq!(schedule_call(rights, call::DONATE, 0), (donated, 0, 0));
}

#[test]
fn a_dedicated_core_has_no_schedule_to_ask_about() {
    for number in call::SWITCH_PLAN..=call::DONATE {
        let mut registers = Registers { rax: number, ..Default::default() };
        assert_eq!(call(&mut dedicated(), &mut registers), status::DENIED);
    }
}

#[test]
fn only_the_verdict_pass_passes() {
    let fail = Request::Fail;
    for (given, request) in
        [(verdict::PASS, Request::Pass), (verdict::FAIL, fail), (2, fail), (u64::MAX, fail)]
    {
        let mut registers = Registers { rax: call::FINISH, rbx: given, ..Default::default() };
        let action = act(&mut dedicated(), Exit::Hypercall { privileged: true }, &mut registers);
        assert_eq!(action, Action::ask(request));
    }
}

fn write(vcpu: &mut VcpuState, msr: u32, value: u64) -> Action {
    let mut registers = Registers {
        rcx: u64::from(msr),
        rax: value | 0xABCD << 32,
        rdx: value >> 32 | 0xABCD << 32,
        ..Default::default()
    };
    act(vcpu, Exit::WriteMsr, &mut registers)
}

fn read(vcpu: &mut VcpuState, msr: u32) -> Result<u64, Action> {
    let mut registers = Registers { rcx: u64::from(msr), rax: !0, rdx: !0, ..Default::default() };
    match act(vcpu, Exit::ReadMsr, &mut registers) {
        Action::ADVANCE => Ok(registers.edx_eax()),
        other => Err(other),
    }
}

#[test]
fn msrs_are_answered_checked_or_refused() {
    let mut vcpu = dedicated();
    assert_eq!(read(&mut vcpu, 0x1B), Ok(0xFEE0_0D00));
    assert_eq!(write(&mut vcpu, 0x1B, 0xFEE0_0D00), Action::ADVANCE);
    let to_itself = u64::from(ID) << 32 | 1 << 14 | 0x40;
    assert_eq!(
        write(&mut vcpu, 0x830, to_itself),
        Action::only(Operation::WriteMsr { msr: 0x830, value: to_itself })
    );
    assert_eq!(denied(&vcpu, Denial::Msr), 0);
    assert_eq!(write(&mut vcpu, 0x10, 0), GENERAL_PROTECTION);
    assert_eq!(read(&mut vcpu, 0x3A), Err(GENERAL_PROTECTION));
    assert_eq!(denied(&vcpu, Denial::Msr), 2);
    let mut vcpu = dedicated();
    assert_eq!(write(&mut vcpu, 0x830, 1 << 32 | 0x40), GENERAL_PROTECTION);
    assert_eq!(write(&mut vcpu, 0x835, 2 << 8), GENERAL_PROTECTION);
    assert_eq!(denied(&vcpu, Denial::Interrupt), 2);
}

#[test]
fn a_time_shared_core_has_a_virtual_apic_and_no_other() {
    let mut vcpu = vcpu(CoreKind::Shared);
    assert_eq!(read(&mut vcpu, 0x802), Ok(u64::from(ID)));
    assert_eq!(write(&mut vcpu, 0x83F, 0x55), Action::APIC_CHANGED);
    assert_eq!(vcpu.apic.deliverable(), Some(0x55));
    assert_eq!(write(&mut vcpu, 0x832, 2 << 17 | 0x40), Action::APIC_CHANGED);
    assert_eq!(write(&mut vcpu, 0x6E0, 9999), Action::APIC_CHANGED);
    assert_eq!(read(&mut vcpu, 0x6E0), Ok(9999));
    assert_eq!(vcpu.apic.next_deadline(), Some(9999));
    assert_eq!(write(&mut vcpu, 0x830, 9 << 32 | 0x40), GENERAL_PROTECTION);
    assert_eq!(denied(&vcpu, Denial::Interrupt), 1);
}

#[test]
fn interrupts_to_the_partitions_other_vcpus_are_handed_on() {
    let other = u64::from(ID + 1) << 32;
    let commands = [
        (0x40, IpiKind::Fixed(0x40)),
        (4 << 8, IpiKind::Nmi),
        (5 << 8, IpiKind::Init),
        (6 << 8 | 9, IpiKind::StartUp(9)),
    ];
    for (command, kind) in commands {
        for core in [CoreKind::Shared, CoreKind::Dedicated] {
            let mut vcpu = vcpu(core);
            let action = write(&mut vcpu, 0x830, other | command);
            if core == CoreKind::Dedicated && command == 0x40 {
                let checked = Operation::WriteMsr { msr: 0x830, value: other | 1 << 14 | 0x40 };
                assert_eq!(action, Action::only(checked), "the machine's own APIC sends it");
                continue;
            }
            assert_eq!(action, Action::advance_and(Request::Send));
            assert_eq!(vcpu.errand, Errand::of(Ipi { targets: Targets::one(1), kind }));
            assert_eq!(denied(&vcpu, Denial::Interrupt), 0);
        }
    }
}

#[test]
fn a_self_ipi_that_the_processor_left_to_us_is_done_already() {
    let mut vcpu = vcpu(CoreKind::Shared);
    assert_eq!(act(&mut vcpu, Exit::SelfIpiWritten, &mut Registers::default()), Action::CLOCK);
}

#[test]
fn ports_are_an_empty_bus() {
    let mut vcpu = dedicated();
    let access =
        |width, input, string| Exit::Port(PortAccess { port: 0x3F8, width, input, string });
    let mut registers = Registers { rax: 0x1122_3344_5566_7788, ..Default::default() };
    assert_eq!(act(&mut vcpu, access(2, true, false), &mut registers), Action::ADVANCE);
    assert_eq!(registers.rax, 0x1122_3344_5566_FFFF);
    assert_eq!(act(&mut vcpu, access(1, false, false), &mut registers), Action::ADVANCE);
    assert_eq!(registers.rax, 0x1122_3344_5566_FFFF);
    assert_eq!(act(&mut vcpu, access(1, true, true), &mut registers), GENERAL_PROTECTION);
    assert_eq!(denied(&vcpu, Denial::Port), 3);
}

#[test]
fn extended_states_come_in_whole_families() {
    let valid = [0b1, 0b11, 0b111, 0b1110_0111];
    for value in 0..0x400 {
        assert_eq!(xcr0_is_valid(value, XCR0_ALLOWED), valid.contains(&value), "{value:#b}");
        let mut registers = Registers { rax: value, ..Default::default() };
        let action = act(&mut dedicated(), Exit::SetExtendedControl, &mut registers);
        let expected = if valid.contains(&value) {
            Action::only(Operation::LoadXcr0(value))
        } else {
            GENERAL_PROTECTION
        };
        assert_eq!(action, expected);
    }
    let mut registers = Registers { rax: 1, rcx: 1, ..Default::default() };
    assert_eq!(act(&mut dedicated(), Exit::SetExtendedControl, &mut registers), GENERAL_PROTECTION);
}

/// Writes a control register of a guest in 32-bit protected mode without paging.
fn control(vcpu: &mut VcpuState, register: Control, value: u64) -> Action {
    act(vcpu, Exit::WriteControl { register, value }, &mut Registers::default())
}

fn control_in(vcpu: &mut VcpuState, register: Control, value: u64, state: ControlState) -> Action {
    let exit = Exit::WriteControl { register, value };
    decide(&exit, &mut Registers::default(), vcpu, &Tests(state))
}

const fn load_cr0(cr0: u32, paging: Paging) -> Action {
    Action::only(Operation::LoadCr0(ControlLoad { cr0, paging }))
}

const PAGING: u64 = 0x8000_0000;
const PAE: u64 = 1 << 5;
const PCIDE: u64 = 1 << 17;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
/// The guest is in 64-bit code.
const LONG: ControlState =
    ControlState { cr0: 0x8000_0031, cr3: 0, cr4: PAE, efer: LME | LMA, code_64: true };

#[test]
fn caches_stay_the_hypervisors() {
    let mut vcpu = dedicated();
    let (cr0, without) = (Control::Cr0, 0x8000_0033);
    assert_eq!(control(&mut vcpu, cr0, without), load_cr0(without as u32, Paging::Turned));
    assert_eq!(denied(&vcpu, Denial::ControlRegister), 0);
    assert_eq!(control(&mut vcpu, cr0, 0xC000_0033), load_cr0(0xC000_0033, Paging::Turned));
    assert_eq!(denied(&vcpu, Denial::ControlRegister), 1);
    for value in [0x8000_0000, 0x2000_0001, 1 << 32 | 1] {
        assert_eq!(control(&mut vcpu, cr0, value), GENERAL_PROTECTION, "{value:#x}");
    }
}

#[test]
fn paging_turns_on_and_off_as_the_manual_says() {
    let long = |cr0, cr4, efer| ControlState { cr0, cr3: 0, cr4, efer, code_64: false };
    let enabled = LME | LMA;
    let cases = [
        // Into IA-32e mode: with PAE only.
        (0x8000_0031, long(0x31, PAE, LME), load_cr0(0x8000_0031, Paging::EntersLong)),
        (0x8000_0031, long(0x31, 0, LME), GENERAL_PROTECTION),
        // Out of it: not from 64-bit code, and not with PCIDE.
        (0x31, LONG, GENERAL_PROTECTION),
        (0x31, long(0x8000_0031, PAE | PCIDE, enabled), GENERAL_PROTECTION),
        (0x31, long(0x8000_0031, PAE, enabled), load_cr0(0x31, Paging::LeavesLong)),
        // Nothing about paging changes.
        (0x8000_0033, LONG, load_cr0(0x8000_0033, Paging::Same)),
        // Paging of 32 bits.
        (0x8000_0031, long(0x31, 0, 0), load_cr0(0x8000_0031, Paging::Turned)),
        (0x8000_0031, long(0x31, PAE, 0), STOP),
    ];
    for (value, state, expected) in cases {
        let action = control_in(&mut dedicated(), Control::Cr0, value, state);
        assert_eq!(action, expected, "{value:#x} in {state:x?}");
    }
}

#[test]
fn cr4_changes_as_the_manual_says() {
    let load = |value| Action::only(Operation::LoadCr4(value));
    let legacy = ControlState { cr0: PAGING | 0x31, cr4: 0, ..Default::default() };
    let cases = [
        (PAE | PCIDE, LONG, load(PAE | PCIDE)),
        (PAE | PCIDE, ControlState { cr3: 5, ..LONG }, GENERAL_PROTECTION),
        (0, LONG, GENERAL_PROTECTION),
        (PCIDE, legacy, GENERAL_PROTECTION),
        (PAE, legacy, STOP),
        (1 << 7, legacy, load(1 << 7)),
    ];
    for (value, state, expected) in cases {
        let mut vcpu = dedicated();
        vcpu.cr4_allowed |= PCIDE;
        let action = control_in(&mut vcpu, Control::Cr4, value, state);
        assert_eq!(action, expected, "{value:#x} in {state:x?}");
    }
    let mut vcpu = dedicated();
    let refused = control_in(&mut vcpu, Control::Cr4, 1 << 18, LONG);
    assert_eq!((refused, vcpu.cpuid.lookup(1, 0).ecx >> 27 & 1), (GENERAL_PROTECTION, 0));
}

#[test]
fn forbidden_bits_of_cr4_are_refused() {
    for bit in (0..64).filter(|bit| CR4_ALLOWED >> bit & 1 == 0) {
        let mut vcpu = dedicated();
        assert_eq!(
            control(&mut vcpu, Control::Cr4, 1 << bit | 0x20),
            GENERAL_PROTECTION,
            "bit {bit}"
        );
        assert_eq!(denied(&vcpu, Denial::ControlRegister), 1);
    }
}

#[test]
fn cpuid_follows_the_state_that_the_guest_sets() {
    let mut vcpu = dedicated();
    let osxsave = |vcpu: &VcpuState| vcpu.cpuid.lookup(1, 0).ecx >> 27 & 1;
    assert_eq!(osxsave(&vcpu), 0);
    assert_eq!(
        control(&mut vcpu, Control::Cr4, 1 << 18 | 0x20),
        Action::only(Operation::LoadCr4(1 << 18 | 0x20))
    );
    assert_eq!(osxsave(&vcpu), 1);
    assert_eq!(control(&mut vcpu, Control::Cr4, 1 << 18 | 1 << 13), GENERAL_PROTECTION);
    assert_eq!(osxsave(&vcpu), 1, "a refused write changes nothing");
    assert_eq!(control(&mut vcpu, Control::Cr4, 0x20), Action::only(Operation::LoadCr4(0x20)));
    assert_eq!(osxsave(&vcpu), 0);
    let mut registers = Registers { rax: 0b111, ..Default::default() };
    assert_eq!(
        act(&mut vcpu, Exit::SetExtendedControl, &mut registers),
        Action::only(Operation::LoadXcr0(0b111))
    );
    assert_eq!(vcpu.cpuid.lookup(0xD, 0).ebx, 576 + 64);
}

#[test]
fn task_priority_moves_through_cr8() {
    let mut vcpu = vcpu(CoreKind::Shared);
    let set = |vcpu: &mut VcpuState, value| {
        act(vcpu, Exit::WriteTaskPriority(value), &mut Registers::default())
    };
    assert_eq!(set(&mut vcpu, 5), Action::APIC_CHANGED);
    let read = act(&mut vcpu, Exit::ReadTaskPriority { register: 13 }, &mut Registers::default());
    let load = Operation::LoadRegister { register: 13, value: 5 };
    assert_eq!((vcpu.apic.tpr(), read), (0x50, Action::only(load)));
    assert_eq!(set(&mut vcpu, 16), GENERAL_PROTECTION);
    assert_eq!(vcpu.apic.tpr(), 0x50);
}

#[test]
fn what_a_partition_may_not_do_stops_it_by_name() {
    let memory = Exit::Memory { address: 0xFEE0_0000, write: true, fetch: false };
    let stops = [
        (memory, Violation::Memory { address: 0xFEE0_0000, write: true, fetch: false }),
        (Exit::TripleFault, Violation::TripleFault),
        (Exit::TaskSwitch, Violation::TaskSwitch),
        (Exit::InvalidState, Violation::InvalidState),
        (Exit::Reset, Violation::Reset),
        (Exit::MachineCheck, Violation::MachineCheck),
        (Exit::Unknown(77), Violation::Unknown(77)),
    ];
    for (exit, violation) in stops {
        let mut vcpu = dedicated();
        assert_eq!(act(&mut vcpu, exit, &mut Registers::default()), STOP);
        assert_eq!(vcpu.violation, Some(violation));
    }
}

#[test]
fn instructions_that_no_partition_has_are_refused_and_counted() {
    let refused = [
        (Exit::Absent, INVALID_OPCODE),
        (Exit::ReadCounter, GENERAL_PROTECTION),
        (Exit::CacheFlush, Action::ADVANCE),
    ];
    for (exit, action) in refused {
        let mut vcpu = dedicated();
        assert_eq!(act(&mut vcpu, exit, &mut Registers::default()), action);
        assert_eq!(denied(&vcpu, Denial::Instruction), 1);
    }
    let alignment = Exit::Exception { vector: 17, error: Some(0) };
    let again = Action::only(Operation::Inject(Event::Exception { vector: 17, error: Some(0) }));
    assert_eq!(act(&mut dedicated(), alignment, &mut Registers::default()), again);
}

proptest! {
    /// The quick half of an exit decides as the whole does, or does nothing at all.
    #[test]
    fn quick_answers_about_msrs_are_the_whole_ones(
        number in prop_oneof![0x800_u32..0x840, 0_u32..0x2000, any::<u32>()], noise: u64, shift in 0_u32..64, to_itself: bool, shared: bool,
    ) {
        let kind = if shared { CoreKind::Shared } else { CoreKind::Dedicated };
        let (mut quick, mut whole) = (vcpu(kind), vcpu(kind));
        let value = noise >> shift | if to_itself { u64::from(ID) << 32 } else { 0 };
        let with = Registers { rcx: u64::from(number), rax: value, rdx: value >> 32, ..Default::default() };
        let (mut registers, mut same) = (with, with);
        let operation = answer_write_msr(kind, &registers, &mut quick);
        if let Some(operation) = operation {
            prop_assert_eq!(Action::only(operation), act(&mut whole, Exit::WriteMsr, &mut same));
        }
        prop_assert_eq!(quick.counters.denied, whole.counters.denied);
        let operation = answer_read_msr(kind, &mut registers, &mut quick);
        if let Some(operation) = operation {
            prop_assert_eq!(Action::only(operation), act(&mut whole, Exit::ReadMsr, &mut same));
        }
        prop_assert_eq!((registers, quick.counters.denied), (same, whole.counters.denied));
        for register in 0x800..0x840 {
            prop_assert_eq!(quick.apic.read(register, 0), whole.apic.read(register, 0));
        }
    }

    /// The same for a PC, but for what is refused: that is left to the whole, behind which it is told.
    #[test]
    fn quick_answers_about_msrs_of_a_pc_are_the_whole_ones(
        number in prop_oneof![0x82F_u32..0x838, 0x800_u32..0x840, any::<u32>()], noise: u64, shift in 0_u32..64, shared: bool,
    ) {
        let kind = if shared { CoreKind::Shared } else { CoreKind::Dedicated };
        let made = || VcpuState { pc: pc().pc, ..vcpu(kind) };
        let (mut quick, mut whole) = (made(), made());
        let value = noise >> shift;
        let mut registers = Registers { rcx: u64::from(number), rax: value, rdx: value >> 32, ..Default::default() };
        let operation = answer_write_msr_of_pc(kind, &registers, &mut quick);
        prop_assert_eq!(quick.counters.denied, [0; DENIALS]);
        if let Some(operation) = operation {
            prop_assert_eq!(Action::only(operation), act(&mut whole, Exit::WriteMsr, &mut registers));
        }
        for register in 0x800..0x840 {
            prop_assert_eq!(quick.apic.read(register, 0), whole.apic.read(register, 0));
        }
    }

    #[test]
    fn a_pc_may_open_the_pin_of_an_interrupt_controller_that_it_does_not_have(rest in 0_u64..0x100, shared: bool) {
        let kind = if shared { CoreKind::Shared } else { CoreKind::Dedicated };
        let mut vcpu = VcpuState { pc: pc().pc, ..vcpu(kind) };
        let action = write(&mut vcpu, 0x835, 7 << 8 | rest);
        let masked = Action::only(Operation::WriteMsr { msr: 0x835, value: 0x1_0700 | rest });
        prop_assert_eq!(action, if shared { Action::APIC_CHANGED } else { masked });
        prop_assert_eq!(vcpu.counters.denied, [0; DENIALS]);
    }

    /// Whatever a guest holds in its registers, a decision is made, and at most one denial counted.
    #[test]
    fn no_registers_make_a_decision_panic(
        rax: u64, rbx: u64, rcx: u64, rdx: u64, small in 0_u64..8, shared: bool, privileged: bool, register in prop_oneof![Just(Control::Cr0), Just(Control::Cr4)],
        msr in prop_oneof![0x800_u64..0x840, 0_u64..0x2000, any::<u64>()],
    ) {
        let mut vcpu = vcpu(if shared { CoreKind::Shared } else { CoreKind::Dedicated });
        let with = |rax, rcx| Registers { rax, rbx, rcx, rdx, ..Default::default() };
        let exits = [
            (Exit::Cpuid, with(rax, rcx)),
            (Exit::Hypercall { privileged }, with(small, rcx)),
            (Exit::ReadMsr, with(rax, msr)),
            (Exit::WriteMsr, with(rax, msr)),
            (Exit::SetExtendedControl, with(rax, small)),
            (Exit::WriteControl { register, value: rax }, with(rax, rcx)),
            (Exit::WriteTaskPriority(rax), with(rax, rcx)),
        ];
        for (exit, mut registers) in exits {
            let before: [u64; DENIALS] = vcpu.counters.denied;
            let _action = act(&mut vcpu, exit, &mut registers);
            let after: u64 = vcpu.counters.denied.iter().zip(before).map(|(after, before)| after - before).sum();
            prop_assert!(after <= 1);
        }
    }

    #[test]
    fn valid_extended_states_stay_inside_the_allowed(value: u64, allowed: u64) {
        if xcr0_is_valid(value, allowed) {
            prop_assert_eq!(value & !allowed, 0);
            prop_assert_eq!(value & 1, 1);
        }
    }
}

/// A dedicated core's vCPU with the devices of a PC.
fn pc() -> VcpuState {
    let clock = WallClock { unix: 0, at: 0, hz: 1 };
    let devices = Box::leak(Box::new(Devices::new()));
    VcpuState { pc: Some(Pc { devices, clock }), ..dedicated() }
}

fn byte(port: u16, input: bool) -> Exit {
    Exit::Port(PortAccess { port, width: 1, input, string: false })
}

#[test]
fn a_pc_has_devices_and_a_bare_partition_has_none() {
    let mut registers = Registers { rax: 0x1100, ..Default::default() };
    let line_status = byte(0x3FD, true);
    assert_eq!(act(&mut pc(), line_status, &mut registers), Action::ADVANCE);
    assert_eq!(registers.rax, 0x1160, "the transmitter is empty");
    let mut bare = dedicated();
    assert_eq!(act(&mut bare, line_status, &mut registers), Action::ADVANCE);
    assert_eq!((registers.rax, denied(&bare, Denial::Port)), (0x11FF, 1));
}

#[test]
fn a_device_that_a_pc_lacks_reads_as_absent_and_is_counted() {
    let mut vcpu = pc();
    let mut registers = Registers { rax: 0, ..Default::default() };
    assert_eq!(act(&mut vcpu, byte(0x64, true), &mut registers), Action::ADVANCE);
    assert_eq!((registers.rax, denied(&vcpu, Denial::Port)), (0xFF, 1));
    let string = Exit::Port(PortAccess { port: 0x3F8, width: 1, input: false, string: true });
    assert_eq!(act(&mut vcpu, string, &mut registers), GENERAL_PROTECTION);
    assert_eq!(denied(&vcpu, Denial::Port), 2);
    assert_eq!(vcpu.refusal, Some(Refusal { denial: Denial::Port, detail: 0x3F8 }));
    let mut bare = dedicated();
    act(&mut bare, string, &mut registers);
    assert_eq!(bare.refusal, None, "nobody takes it there");
}

#[test]
fn a_pc_ends_and_restarts_itself_and_a_bare_partition_cannot() {
    let off = |rax| Registers { rax, ..Default::default() };
    for (port, value, request) in [(0x600, 0x34, Request::Off), (0x604, 1, Request::Restart)] {
        assert_eq!(act(&mut pc(), byte(port, false), &mut off(value)), Action::ask(request));
        assert_eq!(act(&mut dedicated(), byte(port, false), &mut off(value)), Action::ADVANCE);
    }
    assert_eq!(
        act(&mut pc(), Exit::TripleFault, &mut off(0)),
        Action::ask(Request::RestartByFault)
    );
}

#[test]
fn a_pc_is_told_of_the_machine_check_entry_and_a_bare_partition_is_not() {
    let mut registers = Registers { rcx: 0x82F, ..Default::default() };
    assert!(answer_read_msr_of_pc(&mut registers, &pc()));
    assert_eq!(registers.rax, 0x1_0000);
    let shared = VcpuState { pc: pc().pc, ..vcpu(CoreKind::Shared) };
    assert!(!answer_read_msr_of_pc(&mut registers, &shared), "the virtual APIC has no such entry");
    let answer = answer_read_msr(CoreKind::Dedicated, &mut registers, &mut dedicated());
    assert_eq!(answer, Some(REFUSE));
}
