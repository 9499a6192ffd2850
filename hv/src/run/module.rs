//! The module as a whole (ARINC 653: everything on one machine): who is done, when it ends, and how all cores learn of it.
//!
//! All state is atomic words that any core may read at any time; no core ever waits for another, except at the two ends of a run:
//! before the epoch and after the last window.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bulkhead_table::{Owner, PartitionId, PlanId, Role};
use hv_core::fate::FateCell;
use hv_core::pace;
use hv_core::schedule::PlanWord;
use hv_core::wire::Fate;

use super::percpu;
use crate::cpu::instructions as machine;
use crate::table::{CORES, PARTITIONS, TABLE};

static FATES: [FateCell; PARTITIONS] = [const { FateCell::new() }; PARTITIONS];
/// By core: an NMI may be answered by an early exit, because a VMCS is current.
static MAY_BE_KICKED: [AtomicBool; CORES] = [const { AtomicBool::new(false) }; CORES];
/// By core: an NMI came in root mode and waits for the next exit.
static ROOT_NMI: [AtomicBool; CORES] = [const { AtomicBool::new(false) }; CORES];
/// By core: NMIs of the machine that came to a time-shared core since the housekeeping looked. No partition there owns one.
static MACHINE_NMIS: [AtomicU32; CORES] = [const { AtomicU32::new(0) }; CORES];
static STOPPING: AtomicBool = AtomicBool::new(false);
static READY: AtomicUsize = AtomicUsize::new(0);
static PARKED: AtomicUsize = AtomicUsize::new(0);
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// Which plan which frame has, on all cores.
static PLAN: AtomicU64 = AtomicU64::new(PlanWord::START.to_bits());

/// See [`pace::epoch_lead`].
const EPOCH_LEAD: u64 = pace::epoch_lead(TABLE.board.tsc_hz);

/// How `partition` stands.
pub fn fate(partition: usize) -> Fate {
    FATES.get(partition).map_or(Fate::Stopped, FateCell::get)
}

/// Ends `partition` as `fate` says, unless it is over already; returns whether this call did.
pub fn end(partition: PartitionId, fate: Fate) -> bool {
    FATES.get(usize::from(partition)).is_some_and(|cell| cell.end(fate))
}

/// Index in the table of the core that keeps house, and so owns the serial port once the partitions run.
pub const KEEPER: usize = {
    let mut core = 0;
    while core < CORES && !keeps_house(&TABLE.cores[core].role) {
        core += 1;
    }
    assert!(core < CORES, "a core keeps house");
    core
};

const fn keeps_house(role: &Role) -> bool {
    let Role::Shared(plans) = role else {
        return matches!(role, Role::Housekeeping);
    };
    let mut plan = 0;
    while plan < plans.len() {
        let mut window = 0;
        while window < plans[plan].len() {
            if matches!(plans[plan][window].owner, Owner::Housekeeping) {
                return true;
            }
            window += 1;
        }
        plan += 1;
    }
    false
}

/// Waits for every core to be ready and returns the epoch of all frames, which the last one to come sets.
pub fn wait_for_epoch() -> u64 {
    if READY.fetch_add(1, Ordering::AcqRel) + 1 == CORES {
        EPOCH.store(machine::tsc() + EPOCH_LEAD, Ordering::Release);
    }
    loop {
        let epoch = EPOCH.load(Ordering::Acquire);
        if epoch != 0 {
            return epoch;
        }
        core::hint::spin_loop();
    }
}

/// TSC of the epoch; 0 before it is set.
pub fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// Number of the frame that runs at `now`.
pub fn frame_at(now: u64) -> u64 {
    now.saturating_sub(epoch()).checked_div(TABLE.frame).unwrap_or(0)
}

/// Which plan which frame has.
#[inline]
pub fn plan_word() -> PlanWord {
    PlanWord::from_bits(PLAN.load(Ordering::Acquire))
}

/// Asks for `plan` in frame `now`; returns the frame from which it holds on all cores. `None` while another request waits for its
/// frame, or when one came at this very moment from another core: one try, so that nobody waits.
pub fn request_plan(plan: PlanId, now: u64) -> Option<u64> {
    let word = plan_word();
    let asked = word.request(plan, now).ok()?;
    PLAN.compare_exchange(word.to_bits(), asked.to_bits(), Ordering::AcqRel, Ordering::Acquire)
        .ok()
        .map(|_| asked.from_frame())
}

/// Whether the module is ending.
#[inline]
pub fn is_stopping() -> bool {
    STOPPING.load(Ordering::Acquire)
}

/// Whether the table says that the module ends now.
pub fn is_over(now: u64) -> bool {
    let Some(shutdown) = TABLE.shutdown else {
        return false;
    };
    let out_of_time = shutdown.at_latest != 0 && now >= epoch().saturating_add(shutdown.at_latest);
    let all_finished =
        shutdown.when_finished.iter().all(|id| fate(usize::from(*id)) != Fate::Running);
    out_of_time || all_finished
}

fn own(flags: &'static [AtomicBool; CORES]) -> Option<&'static AtomicBool> {
    flags.get(percpu::core_index()?)
}

/// This dedicated core has a VMCS from now on.
pub fn expect_kicks() {
    if let Some(flag) = own(&MAY_BE_KICKED) {
        flag.store(true, Ordering::Relaxed);
    }
}

/// Whether this core has a VMCS whose next entry can be cut short.
pub fn may_be_kicked() -> bool {
    own(&MAY_BE_KICKED).is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Notes an NMI that came while the hypervisor ran on this core.
pub fn note_root_nmi() {
    if let Some(flag) = own(&ROOT_NMI) {
        flag.store(true, Ordering::Relaxed);
    }
}

/// Whether one came to this core, which has this index in the table, since the last call.
pub fn take_root_nmi(core: usize) -> bool {
    ROOT_NMI.get(core).is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
}

/// Whether an NMI waits for this core, which has this index in the table.
#[inline(always)]
pub fn has_root_nmi(core: usize) -> bool {
    ROOT_NMI.get(core).is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Counts an NMI of the machine that came to this time-shared core.
pub fn note_machine_nmi() {
    if let Some(count) = percpu::core_index().and_then(|core| MACHINE_NMIS.get(core)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// NMIs of the machine that came to time-shared core `core` since the last call. Any core may ask.
pub fn take_machine_nmis(core: usize) -> u32 {
    MACHINE_NMIS.get(core).map_or(0, |count| match count.load(Ordering::Relaxed) {
        0 => 0,
        _ => count.swap(0, Ordering::Relaxed),
    })
}

/// Tells every core that the module ends.
pub fn stop() {
    STOPPING.store(true, Ordering::Release);
}

/// Ends this core's part: it touches nothing shared from here on.
pub fn park() -> ! {
    if let Some(flag) = own(&MAY_BE_KICKED) {
        flag.store(false, Ordering::Relaxed);
    }
    PARKED.fetch_add(1, Ordering::AcqRel);
    machine::halt_for_ever()
}

/// How many cores are parked.
pub fn parked() -> usize {
    PARKED.load(Ordering::Acquire)
}
