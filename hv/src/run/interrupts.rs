//! Interrupts between the vCPUs of a partition, and how they get into a guest.
//!
//! A sender leaves what it has in the target's inbox and never waits. If the target has to look now, its core is notified: a dedicated
//! core by an NMI, which exits; a time-shared core, where that very vCPU runs at the moment, by an interrupt of the
//! hypervisor's. A vCPU that does not run finds its inbox at its next window.
//!
//! At most one notification is on its way to a core: the sender that raises the core's flag sends it, and the receiver lowers the flag
//! before it looks. So an NMI on a dedicated core is ours if the flag is up, and the guest's own or the platform's otherwise; and
//! however much a partition sends, no more than one notification can reach a core behind the end of its window there.
//!
//! That one is a race: a sender in root mode, interrupts off, sees the target run and has a dozen instructions to go while the target's
//! window ends. The switch to the next window takes many times as long and ends by absorbing a notification that arrived
//! ([`begin_window`]). Should one arrive later still, it costs the next partition one exit, once for the edge.
#![expect(unsafe_code, reason = "takes a pending interrupt in root mode")]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bulkhead_table::{MAX_VCPUS, Partition, PartitionId};
use hv_core::inbox::{Inbox, News};
use hv_core::ipi::{Kind, Peers};
use hv_core::wire::Fate;

use super::{module, restart, shared};
use crate::backend::Backend;
use crate::cpu::apic;
use crate::cpu::instructions as machine;
use crate::table::{CORES, PARTITIONS, TABLE, VCPUS};
use crate::vcpu::{Life, Vcpu};

/// The vector of notifications on time-shared cores, whose machine APIC is the hypervisor's. Nothing but the exit looks at it.
const NOTIFICATION: u8 = 0xFC;

/// By vCPU of the table: what the others have for it.
static INBOXES: [Inbox; VCPUS] = [const { Inbox::new() }; VCPUS];
/// By core of the table: the vCPU that runs on it now, as its index plus one; 0 between windows. Time-shared cores only.
static RUNNING: [AtomicUsize; CORES] = [const { AtomicUsize::new(0) }; CORES];
/// By core of the table: a notification is on its way.
static NOTIFIED: [AtomicBool; CORES] = [const { AtomicBool::new(false) }; CORES];

/// By vCPU of the table: the index of its core.
static HOMES: [usize; VCPUS] = PLACES.0;
/// By vCPU of the table: its APIC id, which is that of its core.
static APIC_IDS: [u32; VCPUS] = PLACES.1;

const PLACES: ([usize; VCPUS], [u32; VCPUS]) = {
    let mut homes = [0; VCPUS];
    let mut ids = [0; VCPUS];
    let mut partition = 0;
    while partition < PARTITIONS {
        let cpus = TABLE.partitions[partition].cpus;
        let first = TABLE.partitions[partition].first_vcpu as usize;
        assert!(cpus.len() <= MAX_VCPUS, "a partition has more vCPUs than a set can hold");
        let mut vcpu = 0;
        while vcpu < cpus.len() {
            ids[first + vcpu] = TABLE.board.apic_ids[cpus[vcpu] as usize];
            homes[first + vcpu] = core_with(cpus[vcpu]);
            vcpu += 1;
        }
        partition += 1;
    }
    (homes, ids)
};

/// Index in the table of the core on which vCPU `index` of the table runs.
pub fn home(index: usize) -> Option<usize> {
    HOMES.get(index).copied()
}

/// Index in the table of the core with this board CPU number; a table without it does not compile.
const fn core_with(cpu: u16) -> usize {
    let mut core = 0;
    while TABLE.cores[core].cpu != cpu {
        core += 1;
    }
    core
}

/// vCPU number `own` of `partition`, as its APIC addresses the others.
pub fn peers(partition: &Partition, own: usize) -> Peers {
    let first = usize::from(partition.first_vcpu);
    let ids = APIC_IDS.get(first..first + partition.cpus.len()).unwrap_or_default();
    Peers::new(ids, own)
}

/// The inbox of vCPU number `own` of `partition`.
pub fn inbox(partition: &Partition, own: usize) -> Option<&'static Inbox> {
    INBOXES.get(usize::from(partition.first_vcpu) + own)
}

/// Index in the table of the first vCPU of a partition.
fn first_vcpu(id: PartitionId) -> usize {
    TABLE.partitions.get(usize::from(id)).map_or(0, |partition| usize::from(partition.first_vcpu))
}

/// Sends what the guest of `vcpu` asked for. Every target is a vCPU of its own partition.
pub fn send<B: Backend>(vcpu: &mut Vcpu) {
    if vcpu.is_dedicated() {
        send_from_dedicated::<B>(vcpu);
    } else {
        run_errand(vcpu);
    }
}

/// The core is the partition's alone, so that nobody waits for it.
fn send_from_dedicated<B: Backend>(vcpu: &mut Vcpu) {
    let mut own = false;
    // Ends: each round takes a target out.
    while let Some((target, kind)) = vcpu.state.errand.take() {
        own |= target == vcpu.state.msr.peers.own();
        match kind {
            Kind::Fixed(vector) => machine::send_fixed(vcpu.state.msr.peers.id(target), vector),
            kind => post(vcpu, target, kind),
        }
    }
    if own {
        take_news::<B>(vcpu);
    }
}

/// Gets on with what `vcpu`, of a time-shared core, has to send, one target after the other while its window has the time. What is left keeps
/// until its next window. A time-shared core looks into its own inbox on the way back to the guest.
pub fn run_errand(vcpu: &mut Vcpu) {
    let last = vcpu.window_end.saturating_sub(shared::LEAST_SETTLING);
    // Ends: each round takes a target out.
    while machine::tsc() < last
        && let Some((target, kind)) = vcpu.state.errand.take()
    {
        post(vcpu, target, kind);
    }
}

/// Leaves an interrupt in the inbox of vCPU `target` of the partition, and has its core look there.
fn post(vcpu: &Vcpu, target: usize, kind: Kind) {
    let index = first_vcpu(vcpu.state.partition) + target;
    if let Some(inbox) = INBOXES.get(index) {
        inbox.post(kind);
    }
    if target != vcpu.state.msr.peers.own() {
        notify(index, vcpu.is_dedicated());
    }
}

/// Has the core of vCPU `index` of the table look into that vCPU's inbox, if it has to look before its next window. The total
/// order (`SeqCst`) goes with `Inbox::post`: either this sees the target run, or the target sees the post.
fn notify(index: usize, dedicated: bool) {
    let (Some(home), Some(apic_id)) = (HOMES.get(index), APIC_IDS.get(index)) else {
        return;
    };
    let (Some(running), Some(notified)) = (RUNNING.get(*home), NOTIFIED.get(*home)) else {
        return;
    };
    if !dedicated && running.load(Ordering::SeqCst) != index + 1 {
        return;
    }
    if notified.swap(true, Ordering::SeqCst) {
        return;
    }
    if dedicated {
        machine::send_nmi(*apic_id);
    } else {
        machine::send_fixed(*apic_id, NOTIFICATION);
    }
}

/// The partition of `vcpu` is over, or starts again: the cores of its other vCPUs, as far as they run it now, see that at once. From a time-shared
/// core only as many are told as its window has time for: the others see it at the start of their next window.
pub fn tell_the_others(vcpu: &Vcpu) {
    let own = vcpu.state.msr.peers.own();
    let first = first_vcpu(vcpu.state.partition);
    // Without an end on a dedicated core, where it is `u64::MAX`.
    let last = vcpu.window_end.saturating_sub(shared::LEAST_SETTLING);
    for other in (0..vcpu.state.msr.peers.count()).filter(|other| *other != own) {
        notify(first + other, vcpu.is_dedicated());
        if machine::tsc() >= last {
            return;
        }
    }
}

/// The partition with this id is over, because core `lost` of the table is: the same for the vCPUs on its other cores.
pub fn tell_all_but(lost: usize, id: PartitionId, dedicated: bool) {
    let count = TABLE.partitions.get(usize::from(id)).map_or(0, |partition| partition.cpus.len());
    let first = first_vcpu(id);
    for index in (first..first + count).filter(|index| HOMES.get(*index) != Some(&lost)) {
        notify(index, dedicated);
    }
}

/// Drops what the vCPUs of `partition` have for each other: none of them runs.
pub fn forget(partition: &Partition) {
    let first = usize::from(partition.first_vcpu);
    for inbox in INBOXES.iter().skip(first).take(partition.cpus.len()) {
        let _gone = inbox.drain();
    }
}

/// Whether the partition of `vcpu` is over, by the doing of another of its vCPUs.
pub fn is_over(vcpu: &Vcpu) -> bool {
    module::fate(usize::from(vcpu.state.partition)) != Fate::Running
}

/// Whether a notification came to this core, `core` of the table, since the last call: what it announces is to be looked at behind this.
pub fn take_notification(core: usize) -> bool {
    NOTIFIED.get(core).is_some_and(|notified| notified.swap(false, Ordering::SeqCst))
}

/// `vcpu` runs on this time-shared core, `core` of the table, from now on. A notification that was meant for the vCPU before it is absorbed here, in the
/// switch's time.
pub fn begin_window(core: usize, vcpu: &Vcpu) {
    if NOTIFIED.get(core).is_some_and(|notified| notified.load(Ordering::Relaxed)) {
        // SAFETY: the switch holds no lock; the handler of every vector from 32 on only ends the interrupt. One instruction runs
        // between STI and CLI, because the first behind STI still runs without interrupts. SDM 3A 7.8.1.
        unsafe {
            core::arch::asm!("sti", "nop", "nop", "cli", options(nomem, nostack));
        }
        take_notification(core);
    }
    if let Some(running) = RUNNING.get(core) {
        let index = first_vcpu(vcpu.state.partition) + vcpu.state.msr.peers.own();
        running.store(index + 1, Ordering::SeqCst);
    }
}

/// Nobody runs on this time-shared core until the next [`begin_window`].
pub fn end_window(core: usize) {
    if let Some(running) = RUNNING.get(core) {
        running.store(0, Ordering::SeqCst);
    }
}

/// Takes what came for `vcpu`, whose VMCS is current, and hands the guest what it can take now.
pub fn deliver<B: Backend>(vcpu: &mut Vcpu) {
    if vcpu.inbox.has_news() {
        take_news::<B>(vcpu);
    }
    if vcpu.apic_virtualization {
        // The entry evaluates priorities and delivers. SDM 3C 27.3.2.5, 30.2.
        B::tell_interrupt_status(vcpu);
        // It also ends a HLT that the guest was left in, by the manual; the emulator's entry does not.
        if vcpu.state.apic.deliverable().is_some() && B::accepts_interrupt(vcpu) {
            B::wake(vcpu);
        }
    } else {
        inject_deliverable::<B>(vcpu);
    }
}

fn inject_deliverable<B: Backend>(vcpu: &mut Vcpu) {
    let Some(vector) = vcpu.state.apic.deliverable() else {
        B::ask_for_interrupt_window(vcpu, false);
        return;
    };
    if B::injection_is_pending(vcpu) || !B::accepts_interrupt(vcpu) {
        B::ask_for_interrupt_window(vcpu, true);
        return;
    }
    vcpu.state.apic.acknowledge(vector);
    B::inject_interrupt(vcpu, vector);
    // Another may wait behind it; it is looked at when the guest ends this one, which exits.
    B::ask_for_interrupt_window(vcpu, false);
}

/// Empties the inbox of `vcpu`, whose VMCS is current. Behind an INIT without a start-up a dedicated core waits here for that; a
/// time-shared one leaves the window, as `vcpu.life` tells it to.
#[cold]
pub fn take_news<B: Backend>(vcpu: &mut Vcpu) {
    let news = vcpu.inbox.drain();
    if news.init {
        reset(vcpu);
    } else {
        vcpu.state.apic.accept_all(news.requests);
        if news.nmi {
            offer_nmi::<B>(vcpu);
        }
    }
    start_if_asked::<B>(vcpu, &news);
    if vcpu.life != Life::Runs && vcpu.is_dedicated() {
        await_start::<B>(vcpu);
    }
}

/// What INIT does beyond the registers that the start-up sets.
fn reset(vcpu: &mut Vcpu) {
    vcpu.life = Life::AwaitsStart;
    vcpu.requeued = None;
    if vcpu.is_dedicated() {
        apic::reset();
    } else {
        vcpu.state.apic.reset();
    }
}

/// A vCPU that runs ignores a start-up interrupt. SDM 3A 9.4.3.
fn start_if_asked<B: Backend>(vcpu: &mut Vcpu, news: &News) {
    if let (Life::AwaitsStart, Some(vector)) = (vcpu.life, news.start_up) {
        B::start_up(vcpu, vector);
    }
}

/// Gives the guest an NMI, now or as soon as it takes one.
pub fn offer_nmi<B: Backend>(vcpu: &mut Vcpu) {
    if B::accepts_nmi(vcpu) && !B::injection_is_pending(vcpu) {
        B::inject(vcpu, hv_core::exit::Event::Nmi);
    } else {
        B::ask_for_nmi_window(vcpu, true);
    }
}

/// The first wait of a vCPU that another one starts.
pub fn await_first_start<B: Backend>(vcpu: &mut Vcpu) {
    if vcpu.life == Life::AwaitsStart {
        apic::reset();
        await_start::<B>(vcpu);
    }
}

/// A dedicated core whose vCPU waits for its start-up interrupt sits here; the core is its partition's alone. The inbox is looked at
/// behind a notification only: an NMI that came after the start would else be taken for the guest's own.
pub fn await_start<B: Backend>(vcpu: &mut Vcpu) {
    while vcpu.life == Life::AwaitsStart {
        if module::is_stopping() || is_over(vcpu) {
            module::park();
        }
        if restart::is_asked(vcpu.state.partition) {
            restart::carry_out::<B>(vcpu);
        }
        if module::take_root_nmi(vcpu.core) {
            B::forget_exit_soon(vcpu);
            if take_notification(vcpu.core) {
                let news = vcpu.inbox.drain();
                start_if_asked::<B>(vcpu, &news);
            }
        }
        core::hint::spin_loop();
    }
}

/// Lets a vCPU of a time-shared core that waits for its start-up interrupt get that until `instant`; returns whether it has.
pub fn await_start_until(vcpu: &mut Vcpu, instant: u64) -> bool {
    while machine::tsc() < instant && !module::is_stopping() {
        if vcpu.inbox.has_news()
            && let Some(vector) = vcpu.inbox.drain().start_up
        {
            vcpu.life = Life::StartsAt(vector);
            return true;
        }
        core::hint::spin_loop();
    }
    false
}
