//! A time-shared core: windows at absolute deadlines, the virtual APIC, the switch between partitions.
#![expect(unsafe_code, reason = "reaches vCPUs of this core and arms the preemption timer")]

use bulkhead_table::{Owner, PartitionId, Window};
use hv_core::exit::WindowView;
use hv_core::schedule::{Cursor, Schedule, Slot, timer_value};
use hv_core::wire::Fate;
use hv_defs::vmcs::field;

use super::cell::CoreCell;
use super::housekeeping::Course;
use super::partition::VcpuIndex;
use super::{Then, housekeeping, machine, module, partition};
use crate::table::{CORES, TABLE};
use crate::vmx::instructions as vmx;
use crate::vmx::vcpu::{self, Vcpu};

/// What a time-shared core knows.
pub struct SharedCore {
    /// Board CPU number.
    cpu: u16,
    schedule: Schedule<'static>,
    cursor: Cursor,
    /// Whose state is in the machine.
    loaded: Option<PartitionId>,
    /// Most and fewest ticks that a switch took, waiting left out.
    pub switch_max: u64,
    /// See [`Self::switch_max`].
    pub switch_min: u64,
}

static CORES_STATE: [CoreCell<Option<SharedCore>>; CORES] = [const { CoreCell::new(None) }; CORES];

/// The state of time-shared core `core`.
///
/// # Safety
/// As [`CoreCell::get`].
pub unsafe fn state(core: usize) -> Option<&'static mut SharedCore> {
    // SAFETY: the caller's contract.
    CORES_STATE.get(core).and_then(|cell| unsafe { cell.get().as_mut() })
}

/// Starts the cyclic schedule on this core; returns the first vCPU to enter.
pub fn start(core: usize, cpu: u16, epoch: u64, plans: &'static [&'static [Window]]) -> *mut Vcpu {
    let windows = plans.first().copied().unwrap_or_default();
    let schedule = Schedule { epoch, frame: TABLE.frame, windows };
    let cursor = schedule.first_not_ended(machine::tsc());
    let state =
        SharedCore { cpu, schedule, cursor, loaded: None, switch_max: 0, switch_min: u64::MAX };
    let Some(cell) = CORES_STATE.get(core) else {
        module::park();
    };
    // SAFETY: this core's own cell, filled once.
    let state = unsafe { cell.get() }.insert(state);
    let first = state.run_until_guest(machine::tsc());
    first.unwrap_or_else(|| housekeeping::end_module())
}

impl SharedCore {
    /// Goes to the next window in time and returns its vCPU, running housekeeping windows on the way.
    /// `since` is when the last guest was left. `None` when a housekeeping window found that the module is over.
    pub fn next_window(&mut self, since: u64) -> Option<*mut Vcpu> {
        let now = machine::tsc();
        let step = self.schedule.advance(self.cursor, now);
        self.note_missed(step.missed);
        self.cursor = step.cursor;
        self.run_until_guest(since)
    }

    fn run_until_guest(&mut self, mut since: u64) -> Option<*mut Vcpu> {
        // Ends at the next window of a partition that can run; a core with none left serves its housekeeping windows for good.
        loop {
            // A core that drains the logs is the one that ends the module, so it never sees this.
            if module::is_stopping() {
                module::park();
            }
            let slot = self.schedule.slot(self.cursor);
            match slot.owner {
                Owner::Housekeeping => {
                    machine::wait_until(slot.start);
                    if housekeeping::run_until(slot.end) == Course::Over {
                        return None;
                    }
                }
                Owner::Partition(id) => {
                    if let Some(vcpu) = self.runnable(id) {
                        return Some(self.begin(vcpu, id, &slot, since));
                    }
                    machine::wait_until(slot.end);
                }
            }
            since = machine::tsc();
            let step = self.schedule.advance(self.cursor, since);
            self.note_missed(step.missed);
            self.cursor = step.cursor;
        }
    }

    /// The vCPU of a partition that still runs.
    fn runnable(&self, id: PartitionId) -> Option<&'static mut Vcpu> {
        if module::fate(usize::from(id)) != Fate::Running {
            return None;
        }
        let index = VcpuIndex::on_cpu(id, self.cpu)?;
        // SAFETY: the vCPU is this core's, by its CPU number.
        unsafe { partition::vcpu(index) }
    }

    fn begin(
        &mut self,
        vcpu: &'static mut Vcpu,
        id: PartitionId,
        slot: &Slot,
        since: u64,
    ) -> *mut Vcpu {
        if self.loaded != Some(id) {
            self.save_loaded();
            vcpu.load();
            self.loaded = Some(id);
        }
        vcpu.window_end = slot.end;
        vcpu.state.window = Some(WindowView {
            epoch: self.schedule.epoch,
            frame: self.schedule.frame,
            start: slot.start - self.schedule.epoch - slot.frame * self.schedule.frame,
            length: slot.end - slot.start,
        });
        vcpu.windows.run += 1;
        let ready = machine::tsc();
        machine::wait_until(slot.start);
        partition::note_first_entry(vcpu);
        settle(vcpu);
        self.note_start(vcpu, slot, ready - since);
        vcpu
    }

    fn save_loaded(&mut self) {
        let Some(id) = self.loaded.take() else {
            return;
        };
        // SAFETY: only vCPUs of this core are ever loaded here, and the reference ends with this line.
        if let Some(index) = VcpuIndex::on_cpu(id, self.cpu)
            && let Some(previous) = unsafe { partition::vcpu(index) }
        {
            previous.save_switched();
        }
    }

    fn note_start(&mut self, vcpu: &mut Vcpu, slot: &Slot, switch: u64) {
        let now = machine::tsc();
        let lateness = now - slot.start;
        let figures = &mut vcpu.windows;
        figures.latest = figures.latest.max(lateness);
        figures.earliest = figures.earliest.min(lateness);
        if lateness > TABLE.board.switch_budget {
            figures.late += 1;
        }
        self.switch_max = self.switch_max.max(switch);
        self.switch_min = self.switch_min.min(switch);
    }

    /// Counts windows that passed whole while the core was not free, one by one as their owners' late windows. At most
    /// one frame's worth is told apart; beyond it only the count of the log grows.
    fn note_missed(&mut self, missed: u64) {
        if missed == 0 {
            return;
        }
        defmt::warn!("{=u64} windows passed before this core was free", missed);
        let windows = self.schedule.windows;
        for back in 0..missed.min(windows.len() as u64) {
            let index = (self.cursor.index + 1 + back as usize) % windows.len();
            if let Some(Window { owner: Owner::Partition(id), .. }) = windows.get(index)
                && let Some(vcpu) = self.runnable(*id)
            {
                vcpu.windows.late += 1;
            }
        }
    }
}

/// After an exit that changed nothing but the time that it took: arms the timer anew, which stood still since the exit. False when
/// it is time for [`clock`] instead.
#[inline(always)]
pub fn rearm(vcpu: &Vcpu) -> bool {
    let now = machine::tsc();
    let in_time = now < vcpu.deadline;
    if in_time {
        arm(vcpu, now);
    }
    in_time
}

#[inline(always)]
fn arm(vcpu: &Vcpu, now: u64) {
    let value = timer_value(now, vcpu.deadline, vcpu.timer_shift, NO_LEAD);
    // SAFETY: any 32-bit value is valid; an early exit only looks at the clock again. SDM 3C 26.5.1.
    unsafe { vmx::write(field::PREEMPTION_TIMER, u64::from(value)) };
}

/// Nothing is aimed early: what an exit costs comes out of the switch budget behind the window.
const NO_LEAD: u64 = 0;

/// Looks at the clock: ends the window when it is over or the module ends, else settles timer and interrupts.
#[inline(never)]
pub fn clock(vcpu: &mut Vcpu) -> Then {
    let now = machine::tsc();
    if now >= vcpu.window_end || module::is_stopping() {
        return Then::Leave(now);
    }
    settle(vcpu);
    Then::Same
}

/// Goes from the guest that was left at `since` to the next window. The caller holds no reference to a vCPU.
pub fn leave(since: u64) -> *mut Vcpu {
    let core = super::percpu::core_index().unwrap_or(0);
    // SAFETY: this core's own state; each entry to the hypervisor starts here anew, and the reference ends with this line.
    let next = match unsafe { state(core) } {
        Some(state) => state.next_window(since),
        None => module::park(),
    };
    next.unwrap_or_else(|| housekeeping::end_module())
}

/// Moves a due timer into the virtual APIC, hands the guest what it can take, and arms the preemption timer.
fn settle(vcpu: &mut Vcpu) {
    vcpu.state.apic.expire(machine::tsc());
    deliver(vcpu);
    let guest_timer = vcpu.state.apic.next_deadline().unwrap_or(u64::MAX);
    vcpu.deadline = vcpu.window_end.min(guest_timer);
    // Last, and by a fresh look: the timer stands still until the entry.
    arm(vcpu, machine::tsc());
}

fn deliver(vcpu: &mut Vcpu) {
    let Some(vector) = vcpu.state.apic.deliverable() else {
        vcpu.ask_for_interrupt_window(false);
        return;
    };
    if vcpu::injection_is_pending() || !vcpu::accepts_interrupt() {
        vcpu.ask_for_interrupt_window(true);
        return;
    }
    vcpu.state.apic.acknowledge(vector);
    vcpu::inject_interrupt(vector);
    // Another may wait behind it; it is looked at when the guest ends this one, which exits.
    vcpu.ask_for_interrupt_window(false);
}
