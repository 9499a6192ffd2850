//! Each core's own loop: enter a guest, take its exit, let `hv_core` decide, act.
//!
//! Nothing here allocates, locks, formats, or waits for another core between the epoch and the end of the run.
#![expect(unsafe_code, reason = "enters guests")]

pub mod cell;
pub mod defect;
mod housekeeping;
mod hygiene;
mod incidents;
mod interrupts;
pub mod machine;
mod module;
pub mod partition;
mod pc;
pub mod percpu;
mod restart;
mod shared;
mod window;

use bulkhead_table::{Core, Owner, PartitionId, Role, Window};
use hv_core::exit::{Request, Violation};
use hv_core::msr::CoreKind;
use hv_core::wire::Fate;

use crate::boot::Machine;
use crate::cpu::machine_check;
use crate::cpu::stacks::{STACKS, Stacks};
use crate::table::TABLE;
use crate::vmx::entry;
use crate::vmx::exits::{self, frequent};
use crate::vmx::vcpu::{self, Life, Pending, Vcpu};
use partition::VcpuIndex;

/// Where every core of the table goes once the board is verified; `core` indexes the table's cores.
pub fn core_main(core: usize, machine: &'static Machine) -> ! {
    percpu::set_core_index(core);
    let Some(&Core { cpu, role }) = TABLE.cores.get(core) else {
        module::park();
    };
    match role {
        Role::Dedicated(id) => run_dedicated(core, cpu, id, machine),
        Role::Shared(plans) => run_shared(core, cpu, plans, machine),
        Role::Housekeeping => {
            module::wait_for_epoch();
            housekeeping::run()
        }
    }
}

fn run_dedicated(core: usize, cpu: u16, id: PartitionId, machine: &'static Machine) -> ! {
    prepare(core, cpu, CoreKind::Dedicated, &[id], machine);
    let epoch = module::wait_for_epoch();
    if module::fate(usize::from(id)) != Fate::Running {
        module::park();
    }
    let own = VcpuIndex::on_cpu(id, cpu);
    // SAFETY: the vCPU is this core's alone.
    let Some(vcpu) = own.and_then(|index| unsafe { partition::vcpu(index) }) else {
        module::park();
    };
    vcpu.load();
    module::expect_kicks();
    machine::wait_until(epoch);
    interrupts::await_first_start(vcpu);
    partition::note_first_entry(vcpu);
    // SAFETY: the VMCS was just loaded and filled by `prepare`; the host stack is this core's.
    unsafe { entry::enter(vcpu) }
}

fn run_shared(
    core: usize,
    cpu: u16,
    plans: &'static [&'static [Window]],
    machine: &'static Machine,
) -> ! {
    let mut ids = heapless::Vec::<PartitionId, { crate::table::PARTITIONS }>::new();
    for window in plans.iter().copied().flatten() {
        if let Owner::Partition(id) = window.owner
            && !ids.contains(&id)
        {
            // Cannot be full: ids are distinct and there are no more partitions than that.
            let _fits = ids.push(id);
        }
    }
    prepare(core, cpu, CoreKind::Shared, &ids, machine);
    let epoch = module::wait_for_epoch();
    shared::start(core, cpu, epoch, plans)
}

/// Enters VMX operation and makes the core's partitions. One that cannot be made is refused by name; the others run.
fn prepare(core: usize, cpu: u16, kind: CoreKind, ids: &[PartitionId], machine: &'static Machine) {
    let Some(host_stack) = stack_top(core) else {
        module::park();
    };
    let enabled = partition::enable_core(core, kind);
    let place = partition::Place { core, cpu, kind, host_stack };
    for id in ids {
        let Some(partition) = TABLE.partitions.get(usize::from(*id)) else {
            continue;
        };
        let Some(image) = machine.image(*id) else {
            module::end(*id, Fate::Refused);
            defmt::error!(
                "partition {=str} ({=str}) is refused: its image is missing or is not the one that was proven; build the disk image again",
                partition.name,
                partition.place
            );
            continue;
        };
        let made = enabled.and_then(|()| partition::make(*id, &image, &place));
        if let Err(why) = made {
            module::end(*id, Fate::Refused);
            defmt::error!("partition {=str} is refused: {}", partition.name, why);
        }
    }
}

/// Where exits find their stack: the whole of the core's own, because nobody ever returns to the frames that led to the first entry.
fn stack_top(core: usize) -> Option<u64> {
    STACKS.get(core).map(Stacks::main_top)
}

/// What follows an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The same vCPU is entered again.
    Same,
    /// Its window is over: the next one comes. Holds the TSC when that was seen. Time-shared cores only.
    Leave(u64),
    /// It gave the rest of its window to this partition, at this TSC. Time-shared cores only.
    Donate(PartitionId, u64),
}

/// The first half of an exit of a dedicated core. Called by the exit stub; see [`first_half`].
pub extern "C" fn on_dedicated_exit(vcpu: *mut Vcpu) -> *mut Vcpu {
    #[cfg(feature = "floor")]
    // SAFETY: the stub passes the vCPU that just ran, which is this core's.
    if unsafe { (*vcpu).registers.rax } == u64::from(bulkhead_table::abi::FLOOR_MARK) {
        vcpu::advance();
        return vcpu;
    }
    // SAFETY: the stub passes the vCPU that just ran, which is this core's, and no other reference to it is alive.
    first_half::<DEDICATED, BARE>(unsafe { &mut *vcpu })
}

/// The same for a time-shared core.
pub extern "C" fn on_shared_exit(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in `on_dedicated_exit`.
    first_half::<SHARED, BARE>(unsafe { &mut *vcpu })
}

/// The same for a vCPU of a dedicated core with the devices of a PC.
pub extern "C" fn on_dedicated_pc_exit(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in `on_dedicated_exit`.
    first_half::<DEDICATED, PC>(unsafe { &mut *vcpu })
}

/// The same for one of a time-shared core.
pub extern "C" fn on_shared_pc_exit(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in `on_dedicated_exit`.
    first_half::<SHARED, PC>(unsafe { &mut *vcpu })
}

/// Kinds of core, as the compiler tells them apart.
const DEDICATED: bool = false;
const SHARED: bool = true;
/// Platforms, in the same way.
const BARE: bool = false;
const PC: bool = true;

const fn kind<const KIND: bool>() -> CoreKind {
    if KIND == DEDICATED { CoreKind::Dedicated } else { CoreKind::Shared }
}

/// Returns the vCPU, to be entered again, or null when [`on_long_exit`] has more to do. RBP and R12 to R15 are still the guest's.
///
/// Each of the exits that software takes most has a function of its own, which this one jumps to: so the way of each is a straight
/// line without a stack frame.
#[inline(always)]
fn first_half<const KIND: bool, const PLATFORM: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    match exits::reason_with_flags() {
        frequent::CPUID if PLATFORM == PC => {
            exits::answer_cpuid_of_pc(vcpu);
            enter_again::<KIND>(vcpu)
        }
        frequent::RDMSR if PLATFORM == PC => on_read_msr_of_pc::<KIND>(vcpu),
        frequent::WRMSR if PLATFORM == PC => on_write_msr_of_pc::<KIND>(vcpu),
        // Its devices are the second half's, and so are refused hypercalls, of which the first is recorded.
        frequent::IO_INSTRUCTION | frequent::VMCALL if PLATFORM == PC => leave_whole(vcpu),
        frequent::CPUID => {
            exits::answer_cpuid(vcpu);
            enter_again::<KIND>(vcpu)
        }
        frequent::VMCALL => on_hypercall::<KIND>(vcpu),
        frequent::RDMSR => on_read_msr::<KIND>(vcpu),
        frequent::WRMSR => on_write_msr::<KIND>(vcpu),
        frequent::IO_INSTRUCTION => on_port::<KIND>(vcpu),
        _ => leave_whole(vcpu),
    }
}

#[inline(never)]
fn on_hypercall<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if exits::answer_hypercall(vcpu) { enter_again::<KIND>(vcpu) } else { leave_whole(vcpu) }
}

#[inline(never)]
fn on_read_msr<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if exits::answer_read_msr(vcpu, kind::<KIND>()) {
        enter_again::<KIND>(vcpu)
    } else {
        leave_whole(vcpu)
    }
}

#[inline(never)]
fn on_write_msr<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if exits::answer_write_msr(vcpu, kind::<KIND>()) {
        enter_again::<KIND>(vcpu)
    } else {
        leave_whole(vcpu)
    }
}

#[inline(never)]
fn on_read_msr_of_pc<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if exits::answer_read_msr_of_pc(vcpu) { enter_again::<KIND>(vcpu) } else { leave_whole(vcpu) }
}

#[inline(never)]
fn on_write_msr_of_pc<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if exits::answer_write_msr_of_pc(vcpu, kind::<KIND>()) {
        enter_again::<KIND>(vcpu)
    } else {
        leave_whole(vcpu)
    }
}

#[inline(never)]
fn on_port<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if exits::answer_port(vcpu) { enter_again::<KIND>(vcpu) } else { leave_whole(vcpu) }
}

/// The exit is answered: the same guest goes on, unless its time is over.
#[inline(always)]
fn enter_again<const KIND: bool>(vcpu: &mut Vcpu) -> *mut Vcpu {
    if KIND == DEDICATED || shared::rearm(vcpu) { vcpu } else { core::ptr::null_mut() }
}

/// Nothing was done about the exit: it is the second half's.
#[inline(always)]
fn leave_whole(vcpu: &mut Vcpu) -> *mut Vcpu {
    vcpu.pending = Pending::Exit;
    core::ptr::null_mut()
}

/// The second half of an exit: returns the vCPU to enter next. Called by the exit stub, once all registers of the guest are stored.
pub extern "C" fn on_long_exit(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in `on_dedicated_exit`. The reference ends before a switch begins, which may reach the same vCPU again.
    go_on(vcpu, after_exit::<BARE>(unsafe { &mut *vcpu }))
}

/// The same for a vCPU with the devices of a PC, of which is told once what it tries and does not get.
pub extern "C" fn on_long_pc_exit(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in `on_long_exit`.
    go_on(vcpu, after_exit::<PC>(unsafe { &mut *vcpu }))
}

/// In line in both second halves, as [`after_exit`] is: what is handed on between the two then stays in registers.
#[inline(always)]
fn go_on(vcpu: *mut Vcpu, then: Then) -> *mut Vcpu {
    match then {
        Then::Same => vcpu,
        // SAFETY: the vCPU that just ran is this core's; the reads make no reference that outlives them.
        Then::Leave(since) => shared::leave(unsafe { (*vcpu).core }, since),
        // SAFETY: as above.
        Then::Donate(id, since) => shared::donate(unsafe { (*vcpu).core }, id, since),
    }
}

#[inline(always)]
fn after_exit<const PLATFORM: bool>(vcpu: &mut Vcpu) -> Then {
    let request = exits::finish(vcpu);
    // Before the timer is armed anew, so that the time that it takes is the guest's own.
    if PLATFORM == PC {
        pc::note_refusal(vcpu);
    }
    match request {
        Request::Enter if goes_on(vcpu) => Then::Same,
        Request::Enter | Request::Clock if !vcpu.is_dedicated() => look_at_clock(vcpu),
        request => on_rare(vcpu, request),
    }
}

/// Whether nothing waits for this core. A dedicated core looks here too, because its timer of 0 is not enough: the delivery of an injected
/// exception can fault before the timer exits, over and over (a #DB whose handler's stack has a breakpoint).
#[inline(always)]
fn goes_on(vcpu: &Vcpu) -> bool {
    if vcpu.is_dedicated() { !module::has_root_nmi(vcpu.core) } else { shared::rearm(vcpu) }
}

/// As [`shared::clock`].
#[inline(always)]
fn look_at_clock(vcpu: &mut Vcpu) -> Then {
    shared::clock(vcpu).map_or(Then::Same, Then::Leave)
}

#[cold]
fn on_rare(vcpu: &mut Vcpu, request: Request) -> Then {
    match request {
        Request::Send => interrupts::send(vcpu),
        Request::Interrupt => {
            machine::end_of_interrupt();
            if interrupts::take_notification(vcpu.core)
                && (interrupts::is_over(vcpu) || restart::is_asked(vcpu.state.partition))
            {
                return Then::Leave(machine::tsc());
            }
        }
        Request::SwitchPlan | Request::TellPlan => {
            shared::answer(vcpu, request);
            // Neither a timer nor an interrupt is any other than before.
            if shared::rearm(vcpu) {
                return Then::Same;
            }
        }
        Request::Yield => return Then::Leave(machine::tsc()),
        Request::Sleep => return sleep(vcpu),
        Request::Donate => {
            let now = machine::tsc();
            return vcpu
                .state
                .rights
                .donates_to
                .map_or(Then::Leave(now), |id| Then::Donate(id, now));
        }
        Request::Nmi => take_nmi(vcpu),
        Request::Pass => return end_partition(vcpu, Fate::Passed, |_| {}),
        Request::Fail => return end_partition(vcpu, Fate::Failed, |_| {}),
        Request::Stop => return stop(vcpu),
        Request::Off => {
            return end_partition(vcpu, Fate::Off, |vcpu| incidents::off(vcpu.state.partition));
        }
        Request::Restart => return start_again(vcpu, false),
        Request::RestartByFault => return start_again(vcpu, true),
        Request::Enter | Request::Clock => {}
    }
    if !vcpu.is_dedicated() {
        return look_at_clock(vcpu);
    }
    if module::is_stopping() {
        module::park();
    }
    if request == Request::Clock || module::has_root_nmi(vcpu.core) {
        take_what_waits(vcpu);
    }
    Then::Same
}

/// The guest sleeps until the frame in RBX. A frame that has come already is no reason to leave.
fn sleep(vcpu: &mut Vcpu) -> Then {
    let (now, frame) = (machine::tsc(), vcpu.registers.rbx);
    if frame <= module::frame_at(now) {
        return look_at_clock(vcpu);
    }
    vcpu.sleeps_until = frame;
    Then::Leave(now)
}

/// The partition did what it may not.
fn stop(vcpu: &mut Vcpu) -> Then {
    let now = machine::tsc();
    let violation = vcpu.state.violation;
    if violation == Some(Violation::MachineCheck) {
        machine_check::end();
    }
    end_partition(vcpu, Fate::Stopped, |vcpu| {
        vcpu.stopped_at = now;
        if let Some(violation) = violation {
            incidents::violation(vcpu.state.partition, violation);
        }
    })
}

/// A dedicated core looks up for two reasons: an NMI that came while the hypervisor ran, and an interrupt whose delivery an exit
/// interrupted.
fn take_what_waits(vcpu: &mut Vcpu) {
    vcpu::stop_timer();
    if module::take_root_nmi(vcpu.core) {
        take_nmi(vcpu);
    }
    if let Some(vector) = vcpu.requeued
        && !vcpu::injection_is_pending()
        && vcpu::accepts_interrupt()
    {
        vcpu.requeued = None;
        vcpu.ask_for_interrupt_window(false);
        vcpu::inject_interrupt(vector);
    }
}

/// An NMI in a guest is our kick: the module ends, or something is in the inbox; or one from the machine. A dedicated guest gets that. On a
/// time-shared core nobody owns it: it is dropped, and the housekeeping tells it as a health event.
fn take_nmi(vcpu: &mut Vcpu) {
    if module::is_stopping() {
        return;
    }
    if !vcpu.is_dedicated() {
        module::note_machine_nmi();
    } else if !interrupts::take_notification(vcpu.core) {
        interrupts::offer_nmi(vcpu);
    } else if interrupts::is_over(vcpu) {
        module::park();
    } else if restart::is_asked(vcpu.state.partition) {
        carry_out_restart(vcpu);
    } else {
        interrupts::take_news(vcpu);
    }
}

/// The partition of `vcpu` starts again. A time-shared core sees to it in the partition's next windows.
fn start_again(vcpu: &mut Vcpu, fault: bool) -> Then {
    restart::ask(vcpu, fault);
    if !vcpu.is_dedicated() {
        return Then::Leave(machine::tsc());
    }
    carry_out_restart(vcpu);
    Then::Same
}

fn carry_out_restart(vcpu: &mut Vcpu) {
    restart::carry_out(vcpu);
    if vcpu.life != Life::Runs {
        interrupts::await_start(vcpu);
    }
}

/// Ends the partition of `vcpu`. Where another vCPU of it was first, `words` stay unsaid: one cause is told, and it is the one that counts.
fn end_partition(vcpu: &mut Vcpu, fate: Fate, words: impl FnOnce(&mut Vcpu)) -> Then {
    if module::end(vcpu.state.partition, fate) {
        words(vcpu);
        interrupts::tell_the_others(vcpu);
    }
    if vcpu.is_dedicated() {
        module::park();
    }
    Then::Leave(machine::tsc())
}

/// The processor did not take the VMCS of `vcpu`: a defect of ours, which ends that partition and nobody else. Returns the vCPU to enter
/// next. Called by the entry stub.
pub extern "C" fn entry_failed(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in `on_dedicated_exit`.
    let vcpu = unsafe { &mut *vcpu };
    let then = end_partition(vcpu, Fate::Stopped, |vcpu| {
        incidents::entry_failed(vcpu.state.partition);
    });
    match then {
        Then::Leave(since) => shared::leave(vcpu.core, since),
        Then::Same | Then::Donate(..) => module::park(),
    }
}

/// The NMI handler of the hypervisor, in root mode: the guest's next entry exits at once, so that neither a kick nor a platform's NMI
/// is lost. A dedicated core without a current VMCS has nobody to hand it to; a time-shared core never has.
pub fn nmi() {
    if module::may_be_kicked() {
        module::note_root_nmi();
        vcpu::exit_at_once();
    } else if percpu::core_index().and_then(|core| TABLE.cores.get(core)).is_some_and(is_shared) {
        module::note_machine_nmi();
    }
}

fn is_shared(core: &Core) -> bool {
    matches!(core.role, Role::Shared(_))
}
