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
mod module;
pub mod partition;
mod pc;
pub mod percpu;
mod restart;
mod shared;
mod window;

use core::marker::PhantomData;

use bulkhead_table::{Core, Owner, PartitionId, Range, Role, Window};
use hv_core::exit::{Request, Violation};
use hv_core::msr::CoreKind;
use hv_core::wire::Fate;

use crate::backend::{Backend, Handlers, SecondHalf};
use crate::boot::Machine;
use crate::cpu::stacks::{STACKS, Stacks};
use crate::cpu::{instructions as machine, machine_check};
use crate::table::TABLE;

use crate::vcpu::{Life, Vcpu};
use partition::VcpuIndex;

/// Where every core of the table goes once the board is verified; `core` indexes the table's cores.
pub fn core_main<B: Backend>(core: usize, machine: &'static Machine) -> ! {
    percpu::set_core_index(core);
    let Some(&Core { cpu, role }) = TABLE.cores.get(core) else {
        module::park();
    };
    match role {
        Role::Dedicated(id) => run_dedicated::<B>(core, cpu, id, machine),
        Role::Shared(plans) => run_shared::<B>(core, cpu, plans, machine),
        Role::Housekeeping => {
            module::wait_for_epoch();
            housekeeping::run()
        }
    }
}

fn run_dedicated<B: Backend>(
    core: usize,
    cpu: u16,
    id: PartitionId,
    machine: &'static Machine,
) -> ! {
    prepare::<B>(core, cpu, CoreKind::Dedicated, &[id], machine);
    let epoch = module::wait_for_epoch();
    if module::fate(usize::from(id)) != Fate::Running {
        module::park();
    }
    let own = VcpuIndex::on_cpu(id, cpu);
    // SAFETY: the vCPU is this core's alone.
    let Some(vcpu) = own.and_then(|index| unsafe { partition::vcpu(index) }) else {
        module::park();
    };
    B::load(vcpu);
    module::expect_kicks();
    machine::wait_until(epoch);
    interrupts::await_first_start::<B>(vcpu);
    partition::note_first_entry(vcpu);
    // SAFETY: the VMCS was just loaded and filled by `prepare`; the host stack is this core's.
    unsafe { B::enter(vcpu) }
}

fn run_shared<B: Backend>(
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
    prepare::<B>(core, cpu, CoreKind::Shared, &ids, machine);
    let epoch = module::wait_for_epoch();
    shared::start::<B>(core, cpu, epoch, plans)
}

/// Switches virtualization on and makes the core's partitions. One that cannot be made is refused by name; the others run.
fn prepare<B: Backend>(
    core: usize,
    cpu: u16,
    kind: CoreKind,
    ids: &[PartitionId],
    machine: &'static Machine,
) {
    let Some(host_stack) = stack_top(core) else {
        module::park();
    };
    let enabled = partition::enable_core::<B>(core, kind);
    let place = partition::Place { core, cpu, host_stack, entry_failed: entry_failed::<B> };
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
        let made = enabled.and_then(|()| make_partition::<B>(kind, *id, &image, &place));
        if let Err(why) = made {
            module::end(*id, Fate::Refused);
            defmt::error!("partition {=str} is refused: {}", partition.name, why);
        }
    }
}

/// Makes the vCPU of partition `id`, with the way of its exits.
fn make_partition<B: Backend>(
    kind: CoreKind,
    id: PartitionId,
    image: &Range,
    place: &partition::Place,
) -> Result<(), partition::Unready> {
    match (kind, pc::place(id).is_some()) {
        (CoreKind::Dedicated, false) => {
            partition::make::<B, Way<B, false, false>>(id, image, place)
        }
        (CoreKind::Dedicated, true) => partition::make::<B, Way<B, false, true>>(id, image, place),
        (CoreKind::Shared, false) => partition::make::<B, Way<B, true, false>>(id, image, place),
        (CoreKind::Shared, true) => partition::make::<B, Way<B, true, true>>(id, image, place),
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

/// What runs behind the exits of one kind of vCPU.
struct Way<B, const SHARED: bool, const PC: bool>(PhantomData<B>);

impl<B: Backend, const SHARED: bool, const PC: bool> Handlers for Way<B, SHARED, PC> {
    const KIND: CoreKind = if SHARED { CoreKind::Shared } else { CoreKind::Dedicated };
    const HAS_PC: bool = PC;
    type Second = Long<B, PC>;

    /// The same guest goes on, unless its time is over.
    #[inline(always)]
    fn enter_again(vcpu: &mut Vcpu) -> *mut Vcpu {
        if !SHARED || shared::rearm::<B>(vcpu) { vcpu } else { core::ptr::null_mut() }
    }
}

/// The second half of an exit. Of a vCPU with the devices of a PC, each kind of refusal is recorded once.
struct Long<B, const PC: bool>(PhantomData<B>);

impl<B: Backend, const PC: bool> SecondHalf for Long<B, PC> {
    extern "C" fn run(vcpu: *mut Vcpu) -> *mut Vcpu {
        // SAFETY: the stub passes the vCPU that just ran, which is this core's, and no other reference to it is alive. This one ends before a
        // switch begins, which may reach the same vCPU again.
        go_on::<B>(vcpu, after_exit::<B, PC>(unsafe { &mut *vcpu }))
    }
}

/// In line, as [`after_exit`] is: what is handed on between the two then stays in registers.
#[inline(always)]
fn go_on<B: Backend>(vcpu: *mut Vcpu, then: Then) -> *mut Vcpu {
    match then {
        Then::Same => vcpu,
        // SAFETY: the vCPU that just ran is this core's; the reads make no reference that outlives them.
        Then::Leave(since) => shared::leave::<B>(unsafe { (*vcpu).core }, since),
        // SAFETY: as above.
        Then::Donate(id, since) => shared::donate::<B>(unsafe { (*vcpu).core }, id, since),
    }
}

#[inline(always)]
fn after_exit<B: Backend, const PC: bool>(vcpu: &mut Vcpu) -> Then {
    let request = B::finish(vcpu);
    // Before the timer is armed anew, so that the time that it takes is the guest's own.
    if PC {
        pc::note_refusal::<B>(vcpu);
    }
    match request {
        Request::Enter if goes_on::<B>(vcpu) => Then::Same,
        Request::Enter | Request::Clock if !vcpu.is_dedicated() => look_at_clock::<B>(vcpu),
        request => on_rare::<B>(vcpu, request),
    }
}

/// Whether nothing waits for this core. A dedicated core looks here too, because its timer of 0 is not enough: the delivery of an injected
/// exception can fault before the timer exits, over and over (a #DB whose handler's stack has a breakpoint).
#[inline(always)]
fn goes_on<B: Backend>(vcpu: &mut Vcpu) -> bool {
    if vcpu.is_dedicated() { !module::has_root_nmi(vcpu.core) } else { shared::rearm::<B>(vcpu) }
}

/// As [`shared::clock`].
#[inline(always)]
fn look_at_clock<B: Backend>(vcpu: &mut Vcpu) -> Then {
    shared::clock::<B>(vcpu).map_or(Then::Same, Then::Leave)
}

#[cold]
fn on_rare<B: Backend>(vcpu: &mut Vcpu, request: Request) -> Then {
    match request {
        Request::Send => interrupts::send::<B>(vcpu),
        Request::Interrupt => {
            B::end_interrupt();
            if interrupts::take_notification(vcpu.core)
                && (interrupts::is_over(vcpu) || restart::is_asked(vcpu.state.partition))
            {
                return Then::Leave(machine::tsc());
            }
        }
        Request::SwitchPlan | Request::TellPlan => {
            shared::answer(vcpu, request);
            // Neither a timer nor an interrupt is any other than before.
            if shared::rearm::<B>(vcpu) {
                return Then::Same;
            }
        }
        Request::Yield => return Then::Leave(machine::tsc()),
        Request::Sleep => return sleep::<B>(vcpu),
        Request::Donate => {
            let now = machine::tsc();
            return vcpu
                .state
                .rights
                .donates_to
                .map_or(Then::Leave(now), |id| Then::Donate(id, now));
        }
        Request::Nmi => take_nmi::<B>(vcpu),
        Request::Pass => return end_partition(vcpu, Fate::Passed, |_| {}),
        Request::Fail => return end_partition(vcpu, Fate::Failed, |_| {}),
        Request::Stop => return stop::<B>(vcpu),
        Request::Off => {
            return end_partition(vcpu, Fate::Off, |vcpu| incidents::off(vcpu.state.partition));
        }
        Request::Restart => return start_again::<B>(vcpu, false),
        Request::RestartByFault => return start_again::<B>(vcpu, true),
        Request::Enter | Request::Clock => {}
    }
    if !vcpu.is_dedicated() {
        return look_at_clock::<B>(vcpu);
    }
    if module::is_stopping() {
        module::park();
    }
    if request == Request::Clock || module::has_root_nmi(vcpu.core) {
        take_what_waits::<B>(vcpu);
    }
    Then::Same
}

/// The guest sleeps until the frame in RBX. A frame that has come already is no reason to leave.
fn sleep<B: Backend>(vcpu: &mut Vcpu) -> Then {
    let (now, frame) = (machine::tsc(), vcpu.registers.rbx);
    if frame <= module::frame_at(now) {
        return look_at_clock::<B>(vcpu);
    }
    vcpu.sleeps_until = frame;
    Then::Leave(now)
}

/// The partition did what it may not.
fn stop<B: Backend>(vcpu: &mut Vcpu) -> Then {
    let now = machine::tsc();
    let violation = vcpu.state.violation;
    if violation == Some(Violation::MachineCheck) {
        machine_check::end();
    }
    end_partition(vcpu, Fate::Stopped, |vcpu| {
        vcpu.stopped_at = now;
        if let Some(violation) = violation {
            incidents::violation(vcpu.state.partition, violation, B::instruction_pointer(vcpu));
        }
    })
}

/// A dedicated core looks up for two reasons: an NMI that came while the hypervisor ran, and an interrupt whose delivery an exit
/// interrupted.
fn take_what_waits<B: Backend>(vcpu: &mut Vcpu) {
    B::forget_exit_soon(vcpu);
    if module::take_root_nmi(vcpu.core) {
        take_nmi::<B>(vcpu);
    }
    if let Some(vector) = vcpu.requeued
        && !B::injection_is_pending(vcpu)
        && B::accepts_interrupt(vcpu)
    {
        vcpu.requeued = None;
        B::ask_for_interrupt_window(vcpu, false);
        B::inject_interrupt(vcpu, vector);
    }
}

/// An NMI in a guest is our kick: the module ends, or something is in the inbox; or one from the machine. A dedicated guest gets that. On a
/// time-shared core nobody owns it: it is dropped, and the housekeeping tells it as a health event.
fn take_nmi<B: Backend>(vcpu: &mut Vcpu) {
    if module::is_stopping() {
        return;
    }
    if !vcpu.is_dedicated() {
        module::note_machine_nmi();
    } else if !interrupts::take_notification(vcpu.core) {
        interrupts::offer_nmi::<B>(vcpu);
    } else if interrupts::is_over(vcpu) {
        module::park();
    } else if restart::is_asked(vcpu.state.partition) {
        carry_out_restart::<B>(vcpu);
    } else {
        interrupts::take_news::<B>(vcpu);
    }
}

/// The partition of `vcpu` starts again. A time-shared core sees to it in the partition's next windows.
fn start_again<B: Backend>(vcpu: &mut Vcpu, fault: bool) -> Then {
    restart::ask(vcpu, fault);
    if !vcpu.is_dedicated() {
        return Then::Leave(machine::tsc());
    }
    carry_out_restart::<B>(vcpu);
    Then::Same
}

fn carry_out_restart<B: Backend>(vcpu: &mut Vcpu) {
    restart::carry_out::<B>(vcpu);
    if vcpu.life != Life::Runs {
        interrupts::await_start::<B>(vcpu);
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

/// The processor did not take the control block of `vcpu`: a defect of ours, which ends that partition and nobody else. Returns the vCPU to enter
/// next. Called by the entry stub.
extern "C" fn entry_failed<B: Backend>(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: as in [`Long`].
    let vcpu = unsafe { &mut *vcpu };
    let then = end_partition(vcpu, Fate::Stopped, |vcpu| {
        incidents::entry_failed(vcpu.state.partition, B::entry_error(vcpu));
    });
    match then {
        Then::Leave(since) => shared::leave::<B>(vcpu.core, since),
        Then::Same | Then::Donate(..) => module::park(),
    }
}

/// The NMI handler of the hypervisor, in root mode: the guest's next entry exits at once, so that neither a kick nor a platform's NMI
/// is lost. A dedicated core without a current VMCS has nobody to hand it to; a time-shared core never has.
pub fn nmi<B: Backend>() {
    if module::may_be_kicked() {
        module::note_root_nmi();
        B::exit_soon();
    } else if percpu::core_index().and_then(|core| TABLE.cores.get(core)).is_some_and(is_shared) {
        module::note_machine_nmi();
    }
}

fn is_shared(core: &Core) -> bool {
    matches!(core.role, Role::Shared(_))
}
