//! What follows from an exit, decision by decision, as the back end would ask for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use bulkhead_table::Platform;
use bulkhead_table::abi::{self, call, status, verdict};
use hv_core::cpuid::{CpuidPolicy, Facts, Leaf};
use hv_core::exit::{
    Action, ConsoleRing, Counters, DENIALS, Denial, Event, Exit, PlanCall, PortAccess, Registers,
    Rest, ScheduleRights, VcpuState, Violation, WindowView, answer_read_msr, answer_read_msr_of_pc,
    answer_write_msr, answer_write_msr_of_pc, handle, xcr0_is_valid,
};
use hv_core::ipi::{Ipi, Kind as IpiKind, Peers, Targets};
use hv_core::msr::{CoreKind, MsrState};
use hv_core::pc::clock::WallClock;
use hv_core::pc::{Devices, Pc};
use hv_core::vapic::{ApicPage, VirtualApic};
use hv_core::wire::MAX_PAYLOAD;
use proptest::prelude::*;

const ID: u32 = 3;
const PARTITION: u16 = 7;
const GENERAL_PROTECTION: Action = Action::Inject(Event::Exception { vector: 13, error: Some(0) });
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
    }
}

/// A processor with every feature and small state components.
fn machine(leaf: u32, _sub: u32) -> Leaf {
    match leaf {
        0xD => Leaf { eax: 64, ebx: 576, ecx: 0, edx: 0 },
        _ => Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 },
    }
}

fn dedicated() -> VcpuState {
    vcpu(CoreKind::Dedicated)
}

fn act(vcpu: &mut VcpuState, exit: Exit, registers: &mut Registers) -> Action {
    handle(&exit, registers, vcpu, || 1234)
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
    assert_eq!(act(vcpu, Exit::Hypercall { privileged: true }, registers), Action::Advance);
    registers.rax
}

#[test]
fn cpuid_replaces_all_four_registers_whole() {
    let mut registers =
        Registers { rax: 0xFFFF_FFFF_4000_0001, rbx: !0, rcx: !0, rdx: !0, ..Default::default() };
    assert_eq!(act(&mut dedicated(), Exit::Cpuid, &mut registers), Action::Advance);
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
        assert_eq!((action, registers.rax), (Action::Advance, status::DENIED));
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
        vcpu.counters.count(18);
        assert_eq!(
            call(&mut vcpu, &mut Registers { rax: call::SPAN_BEGIN, ..Default::default() }),
            0
        );
        for number in 0..exits {
            vcpu.counters.count(10 + (number % 40) as u16);
        }
        vcpu.counters.count(18);
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
    let sent = Action::Send(Ipi { targets: Targets::one(1), kind: IpiKind::Fixed(0x40) });
    // The tests' clock stands at 1234. Two vCPUs are judged within the quiet time; without an end there is always time.
    let window =
        |end| WindowView { epoch: 0, frame: 9_999, start: 0, length: end, end, quiet: 100 };
    for (ends, expected) in [(Some(1_333), Action::NextWindow), (Some(1_334), sent), (None, sent)] {
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
    for (number, rest) in
        [(call::YIELD, Rest::Idle), (call::SLEEP_UNTIL_FRAME, Rest::UntilFrame(9))]
    {
        assert_eq!(schedule_call(none, number, 9), (Action::Rest(rest), 0, 0));
    }
    assert_eq!(schedule_call(none, call::PLAN, 0), (Action::Plan(PlanCall::Tell), 0, 0));
    for number in [call::SWITCH_PLAN, call::DONATE] {
        assert_eq!(schedule_call(none, number, 0), (Action::Advance, status::DENIED, 1));
    }
}

#[test]
fn a_partition_with_rights_reaches_what_the_table_names_and_no_more() {
    let rights = ScheduleRights { plans: 2, donates_to: Some(5) };
    let switch = |plan| schedule_call(rights, call::SWITCH_PLAN, plan);
    assert_eq!(switch(1), (Action::Plan(PlanCall::Switch(1)), 0, 0));
    for plan in [2, 0x1_0000, u64::MAX] {
        assert_eq!(switch(plan), (Action::Advance, status::INVALID, 1));
    }
    let donated = Action::Rest(Rest::Donated(5));
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
    for (given, passed) in
        [(verdict::PASS, true), (verdict::FAIL, false), (2, false), (u64::MAX, false)]
    {
        let mut registers = Registers { rax: call::FINISH, rbx: given, ..Default::default() };
        let action = act(&mut dedicated(), Exit::Hypercall { privileged: true }, &mut registers);
        assert_eq!(action, Action::Finish { passed });
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
        Action::Advance => Ok(registers.edx_eax()),
        other => Err(other),
    }
}

#[test]
fn msrs_are_answered_checked_or_refused() {
    let mut vcpu = dedicated();
    assert_eq!(read(&mut vcpu, 0x1B), Ok(0xFEE0_0D00));
    assert_eq!(write(&mut vcpu, 0x1B, 0xFEE0_0D00), Action::Advance);
    let to_itself = u64::from(ID) << 32 | 1 << 14 | 0x40;
    assert_eq!(
        write(&mut vcpu, 0x830, to_itself),
        Action::WriteMsr { msr: 0x830, value: to_itself }
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
    assert_eq!(write(&mut vcpu, 0x83F, 0x55), Action::ApicChanged);
    assert_eq!(vcpu.apic.deliverable(), Some(0x55));
    assert_eq!(write(&mut vcpu, 0x832, 2 << 17 | 0x40), Action::ApicChanged);
    assert_eq!(write(&mut vcpu, 0x6E0, 9999), Action::ApicChanged);
    assert_eq!(read(&mut vcpu, 0x6E0), Ok(9999));
    assert_eq!(vcpu.apic.next_deadline(), Some(9999));
    assert_eq!(write(&mut vcpu, 0x830, 9 << 32 | 0x40), GENERAL_PROTECTION);
    assert_eq!(denied(&vcpu, Denial::Interrupt), 1);
}

#[test]
fn interrupts_to_the_partitions_other_vcpus_are_handed_on() {
    let other = u64::from(ID + 1) << 32;
    let send = |kind| Action::Send(Ipi { targets: Targets::one(1), kind });
    let mut shared = vcpu(CoreKind::Shared);
    assert_eq!(write(&mut shared, 0x830, other | 0x40), send(IpiKind::Fixed(0x40)));
    assert_eq!(write(&mut shared, 0x830, other | 5 << 8), send(IpiKind::Init));
    let mut dedicated = dedicated();
    assert_eq!(write(&mut dedicated, 0x830, other | 4 << 8), send(IpiKind::Nmi));
    assert_eq!(write(&mut dedicated, 0x830, other | 6 << 8 | 9), send(IpiKind::StartUp(9)));
    assert_eq!(denied(&shared, Denial::Interrupt) + denied(&dedicated, Denial::Interrupt), 0);
}

#[test]
fn a_self_ipi_that_the_processor_left_to_us_is_done_already() {
    let mut vcpu = vcpu(CoreKind::Shared);
    assert_eq!(act(&mut vcpu, Exit::SelfIpiWritten, &mut Registers::default()), Action::Clock);
}

#[test]
fn ports_are_an_empty_bus() {
    let mut vcpu = dedicated();
    let access =
        |width, input, string| Exit::Port(PortAccess { port: 0x3F8, width, input, string });
    let mut registers = Registers { rax: 0x1122_3344_5566_7788, ..Default::default() };
    assert_eq!(act(&mut vcpu, access(2, true, false), &mut registers), Action::Advance);
    assert_eq!(registers.rax, 0x1122_3344_5566_FFFF);
    assert_eq!(act(&mut vcpu, access(1, false, false), &mut registers), Action::Advance);
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
        let expected =
            if valid.contains(&value) { Action::SetXcr0(value) } else { GENERAL_PROTECTION };
        assert_eq!(action, expected);
    }
    let mut registers = Registers { rax: 1, rcx: 1, ..Default::default() };
    assert_eq!(act(&mut dedicated(), Exit::SetExtendedControl, &mut registers), GENERAL_PROTECTION);
}

fn control(vcpu: &mut VcpuState, register: u8, value: u64) -> Action {
    act(vcpu, Exit::WriteControl { register, value }, &mut Registers::default())
}

#[test]
fn caches_stay_the_hypervisors() {
    let mut vcpu = dedicated();
    assert_eq!(control(&mut vcpu, 0, 0x8000_0033), Action::SetCr0(0x8000_0033));
    assert_eq!(denied(&vcpu, Denial::ControlRegister), 0);
    assert_eq!(control(&mut vcpu, 0, 0xC000_0033), Action::SetCr0(0xC000_0033));
    assert_eq!(denied(&vcpu, Denial::ControlRegister), 1);
    for value in [0x8000_0000, 0x2000_0001, 1 << 32 | 1] {
        assert_eq!(control(&mut vcpu, 0, value), GENERAL_PROTECTION, "{value:#x}");
    }
}

#[test]
fn forbidden_bits_of_cr4_are_refused() {
    for bit in (0..64).filter(|bit| CR4_ALLOWED >> bit & 1 == 0) {
        let mut vcpu = dedicated();
        assert_eq!(control(&mut vcpu, 4, 1 << bit | 0x20), GENERAL_PROTECTION, "bit {bit}");
        assert_eq!(denied(&vcpu, Denial::ControlRegister), 1);
    }
}

#[test]
fn cpuid_follows_the_state_that_the_guest_sets() {
    let mut vcpu = dedicated();
    let osxsave = |vcpu: &VcpuState| vcpu.cpuid.lookup(1, 0).ecx >> 27 & 1;
    assert_eq!(osxsave(&vcpu), 0);
    assert_eq!(control(&mut vcpu, 4, 1 << 18 | 0x20), Action::SetCr4(1 << 18 | 0x20));
    assert_eq!(osxsave(&vcpu), 1);
    assert_eq!(control(&mut vcpu, 4, 1 << 18 | 1 << 13), GENERAL_PROTECTION);
    assert_eq!(osxsave(&vcpu), 1, "a refused write changes nothing");
    assert_eq!(control(&mut vcpu, 4, 0x20), Action::SetCr4(0x20));
    assert_eq!(osxsave(&vcpu), 0);
    let mut registers = Registers { rax: 0b111, ..Default::default() };
    assert_eq!(act(&mut vcpu, Exit::SetExtendedControl, &mut registers), Action::SetXcr0(0b111));
    assert_eq!(vcpu.cpuid.lookup(0xD, 0).ebx, 576 + 64);
}

#[test]
fn task_priority_moves_through_cr8() {
    let mut vcpu = vcpu(CoreKind::Shared);
    let set = |vcpu: &mut VcpuState, value| {
        act(vcpu, Exit::WriteTaskPriority(value), &mut Registers::default())
    };
    assert_eq!(set(&mut vcpu, 5), Action::ApicChanged);
    assert_eq!((vcpu.apic.tpr(), hv_core::exit::task_priority(&vcpu)), (0x50, 5));
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
        (Exit::Exception { vector: 18, error: None }, Violation::MachineCheck),
        (Exit::Unknown(77), Violation::Unknown(77)),
    ];
    for (exit, violation) in stops {
        assert_eq!(act(&mut dedicated(), exit, &mut Registers::default()), Action::Stop(violation));
    }
}

#[test]
fn instructions_that_no_partition_has_are_refused_and_counted() {
    let refused = [
        (Exit::Absent, Action::Inject(Event::Exception { vector: 6, error: None })),
        (Exit::ReadCounter, GENERAL_PROTECTION),
        (Exit::CacheFlush, Action::Advance),
    ];
    for (exit, action) in refused {
        let mut vcpu = dedicated();
        assert_eq!(act(&mut vcpu, exit, &mut Registers::default()), action);
        assert_eq!(denied(&vcpu, Denial::Instruction), 1);
    }
    let alignment = Exit::Exception { vector: 17, error: Some(0) };
    let again = Action::Inject(Event::Exception { vector: 17, error: Some(0) });
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
        let action = answer_write_msr(kind, &registers, &mut quick);
        if let Some(action) = action {
            prop_assert_eq!(action, act(&mut whole, Exit::WriteMsr, &mut same));
        }
        prop_assert_eq!(quick.counters.denied, whole.counters.denied);
        let action = answer_read_msr(kind, &mut registers, &mut quick);
        if let Some(action) = action {
            prop_assert_eq!(action, act(&mut whole, Exit::ReadMsr, &mut same));
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
        let action = answer_write_msr_of_pc(kind, &registers, &mut quick);
        prop_assert_eq!(quick.counters.kinds_denied(), 0);
        if let Some(action) = action {
            prop_assert_eq!(action, act(&mut whole, Exit::WriteMsr, &mut registers));
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
        let masked = Action::WriteMsr { msr: 0x835, value: 0x1_0700 | rest };
        prop_assert_eq!(action, if shared { Action::ApicChanged } else { masked });
        prop_assert_eq!(vcpu.counters.kinds_denied(), 0);
    }

    /// Whatever a guest holds in its registers, a decision is made, and at most one denial counted.
    #[test]
    fn no_registers_make_a_decision_panic(
        rax: u64, rbx: u64, rcx: u64, rdx: u64, small in 0_u64..8, shared: bool, privileged: bool, register in prop_oneof![Just(0_u8), Just(4)],
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
    assert_eq!(act(&mut pc(), line_status, &mut registers), Action::Advance);
    assert_eq!(registers.rax, 0x1160, "the transmitter is empty");
    let mut bare = dedicated();
    assert_eq!(act(&mut bare, line_status, &mut registers), Action::Advance);
    assert_eq!((registers.rax, denied(&bare, Denial::Port)), (0x11FF, 1));
}

#[test]
fn a_device_that_a_pc_lacks_reads_as_absent_and_is_counted() {
    let mut vcpu = pc();
    let mut registers = Registers { rax: 0, ..Default::default() };
    assert_eq!(act(&mut vcpu, byte(0x64, true), &mut registers), Action::Advance);
    assert_eq!((registers.rax, denied(&vcpu, Denial::Port)), (0xFF, 1));
    let string = Exit::Port(PortAccess { port: 0x3F8, width: 1, input: false, string: true });
    assert_eq!(act(&mut vcpu, string, &mut registers), GENERAL_PROTECTION);
    assert_eq!(denied(&vcpu, Denial::Port), 2);
}

#[test]
fn a_pc_ends_and_restarts_itself_and_a_bare_partition_cannot() {
    let off = |rax| Registers { rax, ..Default::default() };
    for (port, value, action) in [(0x600, 0x34, Action::Off), (0x604, 1, Action::Restart)] {
        assert_eq!(act(&mut pc(), byte(port, false), &mut off(value)), action);
        assert_eq!(act(&mut dedicated(), byte(port, false), &mut off(value)), Action::Advance);
    }
    assert_eq!(act(&mut pc(), Exit::TripleFault, &mut off(0)), Action::Restart);
}

#[test]
fn a_pc_is_told_of_the_machine_check_entry_and_a_bare_partition_is_not() {
    let mut registers = Registers { rcx: 0x82F, ..Default::default() };
    assert!(answer_read_msr_of_pc(&mut registers, &pc()));
    assert_eq!(registers.rax, 0x1_0000);
    let shared = VcpuState { pc: pc().pc, ..vcpu(CoreKind::Shared) };
    assert!(!answer_read_msr_of_pc(&mut registers, &shared), "the virtual APIC has no such entry");
    let answer = answer_read_msr(CoreKind::Dedicated, &mut registers, &mut dedicated());
    assert_eq!(answer, Some(GENERAL_PROTECTION));
}
