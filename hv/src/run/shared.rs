//! A time-shared core: windows at absolute deadlines, the virtual APIC, the switch between partitions.
//!
//! A switch does all its work ahead of the window: it saves and loads state, cleans what the table asks for, tells the guest its
//! time, settles timers as of the declared start, and only then waits for that instant. After the wait only the VM entry remains. Its
//! cost is constant.
#![expect(unsafe_code, reason = "reaches vCPUs of this core and arms the preemption timer")]

use bulkhead_table::abi::{self, SchedulePage};
use bulkhead_table::{Hygiene, Owner, PartitionId, PlanId, Window};
use hv_core::exit::{Request, WindowView};
use hv_core::health::{Incident, Party, Passage, What, last_exit_share};
use hv_core::hygiene::{Holder, gift_fits};
use hv_core::ipi::BOOTSTRAP;
use hv_core::pace;
use hv_core::schedule::{Cursor, NextWindows, PlanWord, Schedule, Slot, timer_value};
use hv_core::trace::{Trace, WindowRecord};
use hv_core::wire::{Fate, SwitchStep};

use super::cell::CoreCell;
use super::housekeeping::Course;
use super::partition::VcpuIndex;
use super::{housekeeping, hygiene, incidents, interrupts, module, partition, restart};
use crate::backend::Backend;
use crate::cpu::instructions as machine;
use crate::table::{CORES, PARTITIONS, TABLE};
use crate::vcpu::{Life, Vcpu};

/// Number of plans.
const PLANS: usize = TABLE.plans.len();

/// Most windows that a core has in a plan.
const WINDOWS: usize = {
    let mut most = 0;
    let mut core = 0;
    while core < CORES {
        if let bulkhead_table::Role::Shared(plans) = TABLE.cores[core].role {
            let mut plan = 0;
            while plan < plans.len() {
                if plans[plan].len() > most {
                    most = plans[plan].len();
                }
                plan += 1;
            }
        }
        core += 1;
    }
    most
};

/// Ticks before the end of a window in which nothing long is begun: as many as the switch's budget has for the last exit. The longest that a
/// guest can ask for, a console call of 48 bytes, takes some 530 ticks in the emulator. Begun a tick earlier than this, it ends within that
/// share.
const QUIET: u64 = last_exit_share(TABLE.board.switch_budget);

/// Windows that a core keeps for the log.
const TRACED: usize = if TABLE.log_windows { 256 } else { 0 };

/// What a time-shared core knows.
pub struct SharedCore {
    /// Index in the table.
    core: usize,
    schedule: Schedule<'static>,
    /// By partition: its vCPU on this core.
    vcpus: [Option<VcpuIndex>; PARTITIONS],
    next_windows: NextWindows<PLANS, WINDOWS, PARTITIONS>,
    cursor: Cursor,
    /// Whose state is in the machine.
    loaded: Option<VcpuIndex>,
    /// Which partition holds the core. That decides what a switch cleans, whoever's state is loaded.
    holder: Holder,
    /// The window that runs or ran last.
    running: Running,
    /// Most and fewest ticks that a switch took, waiting left out.
    pub switch_max: u64,
    /// See [`Self::switch_max`].
    pub switch_min: u64,
    /// Ticks of each step of the longest switch, in the order of [`SwitchStep::ALL`].
    pub steps: [u64; SwitchStep::ALL.len()],
}

/// A window as it really runs.
#[derive(Clone, Copy)]
struct Running {
    cursor: Cursor,
    word: PlanWord,
    slot: Slot,
    /// TSC just before the owner was entered.
    entered: u64,
    /// Who runs in it. Of a window in which nobody runs, the hypervisor.
    ran: Party,
    /// TSC when it was left for good; until then its start.
    left: u64,
    /// The time is the owner's gift to who runs.
    donated: bool,
}

/// A vCPU and the window that it gets.
struct Turn {
    id: PartitionId,
    index: VcpuIndex,
    slot: Slot,
    word: PlanWord,
    /// What the switch to it cleans.
    cleaning: Hygiene,
}

static CORES_STATE: [CoreCell<Option<SharedCore>>; CORES] = [const { CoreCell::new(None) }; CORES];
static TRACES: [CoreCell<Trace<TRACED>>; CORES] = [const { CoreCell::new(Trace::new()) }; CORES];

/// The state of time-shared core `core`.
///
/// # Safety
/// As [`CoreCell::get`].
pub unsafe fn state(core: usize) -> Option<&'static mut SharedCore> {
    // SAFETY: the caller's contract.
    CORES_STATE.get(core).and_then(|cell| unsafe { cell.get().as_mut() })
}

/// The windows that ran last on core `core`.
///
/// # Safety
/// As [`CoreCell::get`].
pub unsafe fn trace(core: usize) -> Option<&'static Trace<TRACED>> {
    // SAFETY: the caller's contract.
    TRACES.get(core).map(|cell| unsafe { &*cell.get() })
}

/// Starts the cyclic schedule on this core, and enters its first guest.
pub fn start<B: Backend>(
    core: usize,
    cpu: u16,
    epoch: u64,
    plans: &'static [&'static [Window]],
) -> ! {
    let schedule = Schedule { epoch, frame: TABLE.frame, plans };
    let word = module::plan_word();
    let cursor = schedule.first_not_ended(machine::tsc(), word);
    let nothing = Slot { start: epoch, end: epoch, owner: None, frame: 0 };
    let running = Running {
        cursor,
        word,
        slot: nothing,
        entered: epoch,
        ran: Party::Hypervisor,
        left: epoch,
        donated: false,
    };
    let Some(cell) = CORES_STATE.get(core) else {
        module::park();
    };
    // SAFETY: this core's own cell, filled once.
    let state = unsafe { cell.get() }.insert(SharedCore {
        core,
        schedule,
        vcpus: core::array::from_fn(|id| VcpuIndex::on_cpu(id as PartitionId, cpu)),
        next_windows: NextWindows::new(plans),
        cursor,
        loaded: None,
        holder: Holder::default(),
        running,
        switch_max: 0,
        switch_min: u64::MAX,
        steps: [0; SwitchStep::ALL.len()],
    });
    let slot = state.schedule.slot(cursor, word);
    state.run_until_guest::<B>(slot, word, machine::tsc());
    housekeeping::end_module()
}

impl SharedCore {
    /// Enters the guest of the next window in time, running housekeeping windows on the way. `since` is when the last guest was left.
    /// Returns when a housekeeping window found that the module is over.
    #[inline(always)]
    fn next_window<B: Backend>(&mut self, since: u64) {
        self.note_end(since);
        let (slot, word) = self.advance();
        self.run_until_guest::<B>(slot, word, since)
    }

    /// Goes on to the next window; returns it, and the word that says which plan it is of.
    #[inline(always)]
    fn advance(&mut self) -> (Slot, PlanWord) {
        let word = module::plan_word();
        let step = self.schedule.advance(self.cursor, machine::tsc(), word);
        self.note_missed(step.missed, word);
        self.cursor = step.cursor;
        (step.slot, word)
    }

    fn run_until_guest<B: Backend>(&mut self, mut slot: Slot, mut word: PlanWord, mut since: u64) {
        // Ends at the next window of a partition that can run; a core with none left serves its housekeeping windows for good.
        loop {
            // A core that drains the logs is the one that ends the module, so it never sees this.
            if module::is_stopping() {
                module::park();
            }
            match slot.owner {
                None => self.idle_until(&slot),
                Some(Owner::Housekeeping) => {
                    if self.keep_house(&slot, word) == Course::Over {
                        return;
                    }
                }
                Some(Owner::Partition(id)) => {
                    let cleaning = self.holder.pass_to(id, hygiene::asked_by);
                    let starts_again = restart::is_under_way(id);
                    if starts_again {
                        self.clean_unloaded(cleaning);
                        self.restart_in::<B>(id, &slot);
                    } else if let Some((index, vcpu)) = self.ready_for(id, &slot, word, &mut since)
                    {
                        let turn = Turn { id, index, slot, word, cleaning };
                        self.begin::<B>(vcpu, &turn, since);
                    } else {
                        self.clean_unloaded(cleaning);
                    }
                    self.idle_until(&slot);
                    if starts_again {
                        // Loading is the partition's own work: what it takes behind the window is its doing.
                        self.running.ran = Party::Partition(id);
                    }
                }
            }
            since = machine::tsc();
            (slot, word) = self.advance();
        }
    }

    /// A window of a partition that starts again: its vCPU here stops, or its memory is loaded. All of it ends before the window does, and
    /// what takes a part of a switch is begun only with the time of a whole one left.
    fn restart_in<B: Backend>(&mut self, id: PartitionId, slot: &Slot) {
        let index = self.vcpus.get(usize::from(id)).copied().flatten();
        // SAFETY: the vCPU is this core's, by its CPU number; no other reference to it is alive between windows.
        let Some((index, vcpu)) =
            index.and_then(|index| Some((index, unsafe { partition::vcpu(index) }?)))
        else {
            return;
        };
        machine::wait_until(slot.start);
        let last = slot.end.saturating_sub(TABLE.board.switch_budget).max(slot.start + 1);
        let is_first = vcpu.state.msr.peers.own() == BOOTSTRAP;
        if is_first && restart::load_until(vcpu, last) && machine::tsc() < last {
            self.put_in::<B>(index, vcpu, Hygiene::NONE, machine::tsc());
            restart::start::<B>(vcpu);
        } else if !is_first && !restart::has_stopped(vcpu) && machine::tsc() < last {
            self.put_in::<B>(index, vcpu, Hygiene::NONE, machine::tsc());
            restart::stop::<B>(vcpu);
        }
    }

    /// Nobody runs in this window.
    fn idle_until(&mut self, slot: &Slot) {
        let left = machine::wait_until(slot.end);
        let running = &mut self.running;
        (running.slot, running.ran, running.left) = (*slot, Party::Hypervisor, left);
    }

    fn keep_house(&mut self, slot: &Slot, word: PlanWord) -> Course {
        let entered = machine::wait_until(slot.start);
        let course = housekeeping::run_until(slot.end);
        self.running = Running {
            cursor: self.cursor,
            word,
            slot: *slot,
            entered,
            ran: Party::Hypervisor,
            left: slot.start,
            donated: false,
        };
        self.note_end(machine::tsc());
        course
    }

    /// The vCPU of a partition on this core, when it can run in this frame.
    fn runnable(&self, id: PartitionId, frame: u64) -> Option<(VcpuIndex, &'static mut Vcpu)> {
        self.awake(id, frame)
            .filter(|(_, vcpu)| vcpu.life != Life::AwaitsStart && !restart::is_asked(id))
    }

    /// The same, or one that waits for its start-up interrupt.
    #[inline(always)]
    fn awake(&self, id: PartitionId, frame: u64) -> Option<(VcpuIndex, &'static mut Vcpu)> {
        if module::fate(usize::from(id)) != Fate::Running {
            return None;
        }
        let index = (*self.vcpus.get(usize::from(id))?)?;
        // SAFETY: the vCPU is this core's, by its CPU number.
        let vcpu = unsafe { partition::vcpu(index) }?;
        (vcpu.sleeps_until <= frame).then_some((index, vcpu))
    }

    /// The vCPU of a partition for its window. One that waits for its start-up interrupt can get that until the switch into the
    /// window begins, which moves `since`.
    #[inline(always)]
    fn ready_for(
        &self,
        id: PartitionId,
        slot: &Slot,
        word: PlanWord,
        since: &mut u64,
    ) -> Option<(VcpuIndex, &'static mut Vcpu)> {
        let (index, vcpu) = self.awake(id, slot.frame)?;
        if vcpu.life == Life::AwaitsStart {
            let switch = slot.start.saturating_sub(self.budget(self.cursor, word));
            if !interrupts::await_start_until(vcpu, switch) {
                return None;
            }
            *since = machine::tsc();
        }
        Some((index, vcpu))
    }

    /// The switch: everything that can be done ahead of the window, then its start. After the wait only the VM entry remains. Its cost is
    /// constant, because no frame of a caller is left between the two.
    fn begin<B: Backend>(&mut self, vcpu: &'static mut Vcpu, turn: &Turn, since: u64) -> ! {
        let before = self.before();
        let decided = machine::tsc();
        let [saved, loaded, cleaned] = self.put_in::<B>(turn.index, vcpu, turn.cleaning, decided);
        self.give::<B>(vcpu, turn, false);
        vcpu.windows.run += 1;
        partition::note_first_entry(vcpu);
        let told = machine::tsc();
        settle_at_start::<B>(vcpu, turn.slot.start);
        let ready = machine::tsc();
        self.note_switch(&[since, decided, saved, loaded, cleaned, told, ready]);
        if ready > turn.slot.start {
            self.note_late(vcpu, turn, before, [since, cleaned, ready]);
            let now = machine::tsc();
            settle_at_start::<B>(vcpu, now);
            self.running.entered = now;
        } else {
            self.running.entered = machine::wait_until(turn.slot.start);
        }
        enter::<B>(vcpu)
    }

    /// The same for the rest of another's window: at once, and with no start to be late for.
    fn begin_donated<B: Backend>(&mut self, vcpu: &'static mut Vcpu, turn: &Turn) -> ! {
        self.put_in::<B>(turn.index, vcpu, turn.cleaning, machine::tsc());
        self.give::<B>(vcpu, turn, true);
        partition::note_first_entry(vcpu);
        let now = machine::tsc();
        settle_at_start::<B>(vcpu, now);
        self.running.entered = now;
        enter::<B>(vcpu)
    }

    /// Puts the state of `vcpu` into the machine, in place of another's, and cleans. Begun at `begun`; returns when the other's was
    /// saved, this one's loaded, and the core cleaned.
    fn put_in<B: Backend>(
        &mut self,
        index: VcpuIndex,
        vcpu: &mut Vcpu,
        cleaning: Hygiene,
        begun: u64,
    ) -> [u64; 3] {
        if self.loaded == Some(index) {
            vcpu.give_speculation_control();
            // It held the core since it was loaded, so this is nothing.
            hygiene::clean(cleaning);
            return [begun; 3];
        }
        self.save_loaded();
        let saved = machine::tsc();
        B::load(vcpu);
        let loaded = machine::tsc();
        hygiene::clean(cleaning);
        self.loaded = Some(index);
        [saved, loaded, machine::tsc()]
    }

    /// Cleans at a switch to a partition that does not run: its vCPU sleeps, is stopped, waits for its start or starts again. The
    /// registers of the guest before go to memory first, so that nothing touches them after the cleaning.
    fn clean_unloaded(&mut self, cleaning: Hygiene) {
        if cleaning.is_any() {
            self.save_loaded();
            hygiene::clean(cleaning);
        }
    }

    #[inline(always)]
    fn save_loaded(&mut self) {
        if let Some(index) = self.loaded.take()
            // SAFETY: only vCPUs of this core are ever loaded here, and the reference ends with this function.
            && let Some(previous) = unsafe { partition::vcpu(index) }
        {
            previous.save_switched();
        }
    }

    /// Gives a vCPU its window and tells its guest.
    #[inline(always)]
    fn give<B: Backend>(&mut self, vcpu: &mut Vcpu, turn: &Turn, donated: bool) {
        let slot = turn.slot;
        vcpu.window_end = slot.end;
        vcpu.state.window = Some(WindowView {
            epoch: self.schedule.epoch,
            frame: self.schedule.frame,
            start: slot.start - self.schedule.frame_start(slot.frame),
            length: slot.end - slot.start,
            end: slot.end,
            quiet: QUIET,
        });
        if let Life::StartsAt(vector) = vcpu.life {
            B::start_up(vcpu, vector);
        }
        interrupts::begin_window::<B>(self.core, vcpu);
        // The latest instant that settling calls outside: a timer due since then is due in the window.
        if vcpu.state.apic.next_deadline().is_some_and(|due| due < slot.start) {
            vcpu.windows.timers_outside += 1;
        }
        self.running = Running {
            cursor: self.cursor,
            word: turn.word,
            slot,
            entered: slot.start,
            ran: Party::Partition(turn.id),
            left: slot.start,
            donated,
        };
        self.tell(vcpu, turn, donated);
    }

    #[inline(always)]
    fn tell(&self, vcpu: &Vcpu, turn: &Turn, donated: bool) {
        let Some(page) = turn.index.schedule_page() else {
            return;
        };
        let next = self.next_windows.after(self.cursor, turn.word, turn.id);
        let next = next.map(|cursor| self.schedule.slot(cursor, turn.word));
        let plan = u32::from(turn.word.in_frame(turn.slot.frame));
        page.tell(&SchedulePage {
            version: abi::VERSION,
            vcpu: vcpu.number,
            sequence: 0,
            epoch: self.schedule.epoch,
            frame_length: self.schedule.frame,
            frame: turn.slot.frame,
            window_start: turn.slot.start,
            window_end: turn.slot.end,
            next_start: next.map_or(u64::MAX, |slot| slot.start),
            next_end: next.map_or(u64::MAX, |slot| slot.end),
            plan,
            next_plan: u32::from(turn.word.plan()),
            plan_from: turn.word.from_frame(),
            late: vcpu.windows.late,
            timers_outside: vcpu.windows.timers_outside,
            donated: u64::from(donated),
        });
    }

    /// `instants`: the last exit, then the end of each step.
    #[inline(always)]
    fn note_switch(&mut self, instants: &[u64; SwitchStep::ALL.len() + 1]) {
        let [first, .., last] = *instants;
        let switch = last - first;
        self.switch_min = self.switch_min.min(switch);
        if switch > self.switch_max {
            self.switch_max = switch;
            for (step, pair) in self.steps.iter_mut().zip(instants.windows(2)) {
                *step = pair[1] - pair[0];
            }
        }
    }

    /// The running window is over, for whatever reason, at `left`: the guest's restrictions of speculation go first of all; then come its
    /// figures and its record. Done here and not at its start, where they would delay the guest.
    #[inline(always)]
    fn note_end(&mut self, left: u64) {
        self.running.left = left;
        let running = &self.running;
        if let (Party::Partition(_), Some(index)) = (running.ran, self.loaded)
            // SAFETY: a vCPU of this core; the caller holds no reference to one, and this one ends here.
            && let Some(vcpu) = unsafe { partition::vcpu(index) }
        {
            vcpu.take_speculation_control();
            if !running.donated {
                let lateness = running.entered.saturating_sub(running.slot.start);
                vcpu.windows.latest = vcpu.windows.latest.max(lateness);
                vcpu.windows.earliest = vcpu.windows.earliest.min(lateness);
            }
        }
        self.record(left);
    }

    fn record(&self, left: u64) {
        if TRACED == 0 {
            return;
        }
        let running = &self.running;
        if let Some(cell) = TRACES.get(self.core) {
            // SAFETY: this core's own trace; the reference ends with the statement.
            unsafe { cell.get() }.record(WindowRecord {
                frame: running.slot.frame,
                entered: running.entered,
                left,
                plan: running.word.in_frame(running.slot.frame),
                window: running.cursor.index as u16,
                ran: running.ran,
            });
        }
    }

    /// The switch into a window was not done at its declared start.
    #[cold]
    fn note_late(
        &mut self,
        vcpu: &mut Vcpu,
        turn: &Turn,
        (before, overrun): (Party, u64),
        [since, cleaned, ready]: [u64; 3],
    ) {
        vcpu.windows.late += 1;
        let ticks = ready - turn.slot.start;
        let (switch, arrival) = (cleaned - since, ready - cleaned);
        let passage = self.passage(overrun, switch, arrival, (self.cursor, turn.word));
        let subject = Party::Partition(turn.id);
        incidents::record(Incident {
            what: What::LateWindow { ticks },
            subject,
            offender: passage.offender(before, subject),
            frame: turn.slot.frame,
        });
    }

    /// Counts windows that passed whole while the core was not free, one by one as their owners' late windows. At most
    /// one frame's worth is told apart; beyond it only the count of the event grows.
    #[inline(always)]
    fn note_missed(&mut self, missed: u64, word: PlanWord) {
        if missed > 0 {
            self.blame_for_missed(missed, word);
        }
    }

    #[cold]
    fn blame_for_missed(&mut self, missed: u64, word: PlanWord) {
        let (before, overrun) = self.before();
        let switch = machine::tsc().saturating_sub(self.running.left);
        let mut passed = self.schedule.next(self.cursor, word);
        let passage = self.passage(overrun, switch, 0, (passed, word));
        for _ in 0..missed.min(WINDOWS as u64) {
            let slot = self.schedule.slot(passed, word);
            if let Some(Owner::Partition(id)) = slot.owner
                && let Some((_, vcpu)) = self.runnable(id, slot.frame)
            {
                vcpu.windows.late += 1;
            }
            passed = self.schedule.next(passed, word);
        }
        incidents::record(Incident {
            what: What::MissedWindows { count: missed },
            subject: Party::Hypervisor,
            offender: passage.offender(before, Party::Hypervisor),
            frame: self.cursor.frame,
        });
    }

    /// Who ran last, and for how many ticks behind the end of its window.
    const fn before(&self) -> (Party, u64) {
        let Running { ran, left, slot, .. } = &self.running;
        (*ran, left.saturating_sub(slot.end))
    }

    /// What the time before the window at this cursor was spent on.
    fn passage(
        &self,
        overrun: u64,
        switch: u64,
        arrival: u64,
        (cursor, word): (Cursor, PlanWord),
    ) -> Passage {
        let budget = TABLE.board.switch_budget;
        let cleaning = self.budget(cursor, word).saturating_sub(budget);
        Passage { overrun, switch, arrival, budget, cleaning }
    }

    fn budget(&self, cursor: Cursor, word: PlanWord) -> u64 {
        let windows = self.schedule.windows(cursor.frame, word);
        windows.get(cursor.index).map_or(0, |window| window.budget)
    }

    /// The running vCPU gave the rest of its window to partition `id` at `since`.
    fn donate<B: Backend>(&mut self, id: PartitionId, since: u64) {
        let (slot, word) = (self.running.slot, self.running.word);
        let time_left = slot.end.saturating_sub(since);
        let cost = TABLE.board.hygiene.of(self.holder.cleaning_for(id, hygiene::asked_by));
        match self.runnable(id, slot.frame) {
            Some((index, vcpu)) if gift_fits(time_left, TABLE.board.switch_budget, cost) => {
                self.note_end(since);
                let cleaning = self.holder.pass_to(id, hygiene::asked_by);
                self.begin_donated::<B>(vcpu, &Turn { id, index, slot, word, cleaning })
            }
            _ => self.next_window::<B>(since),
        }
    }
}

/// After an exit that changed nothing but the time that it took: arms the timer anew, which stood still since the exit. False when
/// it is time for [`clock`] instead.
#[inline(always)]
pub fn rearm<B: Backend>(vcpu: &mut Vcpu) -> bool {
    let now = machine::tsc();
    let in_time = now < vcpu.deadline;
    if in_time && B::TIMER_STANDS_STILL {
        // `settle` keeps the deadline so near that this fits the timer.
        B::arm(vcpu, (vcpu.deadline - now) >> (vcpu.timer_shift & 63));
    }
    in_time
}

/// As [`settle`], for the first entry of a window. Where the vCPU was reset meanwhile, or has a command of its last window to finish, the core
/// looks up before the guest's first instruction. SDM 3C 26.5.1: a timer of 0 exits before any.
fn settle_at_start<B: Backend>(vcpu: &mut Vcpu, instant: u64) {
    settle::<B>(vcpu, instant);
    if vcpu.life != Life::Runs || !vcpu.state.errand.is_done() {
        vcpu.deadline = instant;
        arm::<B>(vcpu, instant);
    }
}

fn arm<B: Backend>(vcpu: &mut Vcpu, now: u64) {
    B::arm(vcpu, u64::from(timer_value(now, vcpu.deadline, vcpu.timer_shift, NO_LEAD)));
}

/// Most ticks ahead that the core looks up again: what a 32-bit timer holds whatever its shift.
const MOST_AHEAD: u64 = u32::MAX as u64;

/// Nothing is aimed early: what an exit costs comes out of the switch budget behind the window.
const NO_LEAD: u64 = 0;

/// Looks at the clock: settles timer and interrupts, unless the window is over or the module ends. Returns the TSC when the window has to
/// be left.
#[inline(never)]
pub fn clock<B: Backend>(vcpu: &mut Vcpu) -> Option<u64> {
    if !vcpu.state.errand.is_done() {
        interrupts::run_errand(vcpu);
    }
    let now = machine::tsc();
    // What came for the vCPU keeps until its next window, where the switch has the time for it.
    let needed = if vcpu.inbox.has_news() { QUIET } else { LEAST_SETTLING };
    if now.saturating_add(needed) >= vcpu.window_end || module::is_stopping() {
        return Some(now);
    }
    settle_now::<B>(vcpu, now);
    if vcpu.life == Life::Runs { None } else { Some(machine::tsc()) }
}

/// The guest halted: waits until something may wake it, or its window ends. The clock is looked at behind this.
pub fn await_event(vcpu: &Vcpu) {
    let due = vcpu.state.apic.next_deadline().unwrap_or(u64::MAX);
    let until = due.min(vcpu.window_end.saturating_sub(LEAST_SETTLING));
    while machine::tsc() < until && !vcpu.inbox.has_news() && !module::is_stopping() {
        core::hint::spin_loop();
    }
}

/// Ticks that settling and the entry behind it take at least. A guest whose window ends sooner would not run an instruction more: it is left
/// at once, and the next window's switch begins that much earlier.
pub const LEAST_SETTLING: u64 = pace::least_settling(TABLE.board.switch_budget);

/// Settles for an entry now, or at the instant of a guest timer that is due in a moment: the core looks up that much earlier (see
/// [`pace::TimerLead`]), does its work ahead and waits the rest out, so that the interrupt comes when the guest asked for it.
fn settle_now<B: Backend>(vcpu: &mut Vcpu, now: u64) {
    vcpu.timer_lead.take_in();
    let due = vcpu.state.apic.next_deadline().unwrap_or(u64::MAX);
    let lead = vcpu.timer_lead.ticks();
    let looked_up = due.saturating_sub(lead);
    let soon = now.saturating_add(lead);
    let instant = if due <= soon && due < vcpu.window_end { due.max(now) } else { now };
    settle::<B>(vcpu, instant);
    let ready = machine::tsc();
    if due <= soon && due.saturating_add(MOST_TIMER_LEAD) > now {
        vcpu.timer_lead.note(ready.saturating_sub(looked_up));
    }
    if ready < instant {
        machine::wait_until(instant);
        return;
    }
    // Again, and by a fresh look: the timer stands still until the entry.
    arm::<B>(vcpu, machine::tsc());
}

/// See [`pace::most_timer_lead`].
pub const MOST_TIMER_LEAD: u64 = pace::most_timer_lead(TABLE.board.switch_budget);

/// Goes from the guest that was left at `since` to the next window. `core` is this core's index in the table; the caller holds no reference
/// to a vCPU.
#[inline(never)]
pub fn leave<B: Backend>(core: usize, since: u64) -> ! {
    interrupts::end_window(core);
    // SAFETY: this core's own state. The reference ends with this line, or its frames are never returned to.
    match unsafe { state(core) } {
        Some(state) => state.next_window::<B>(since),
        None => module::park(),
    }
    housekeeping::end_module()
}

/// Enters a vCPU. No frame of the stack is returned to: the next exit begins at its top.
fn enter<B: Backend>(vcpu: &'static mut Vcpu) -> ! {
    // SAFETY: the switch loaded the VMCS of this vCPU; the host stack is this core's.
    unsafe { B::enter(vcpu) }
}

/// As [`leave`], for a guest that gave the rest of its window to partition `id`.
#[inline(never)]
pub fn donate<B: Backend>(core: usize, id: PartitionId, since: u64) -> ! {
    interrupts::end_window(core);
    // SAFETY: as in `leave`.
    match unsafe { state(core) } {
        Some(state) => state.donate::<B>(id, since),
        None => module::park(),
    }
    housekeeping::end_module()
}

/// Answers a call about plans: [`Request::SwitchPlan`], and any other is a question.
pub fn answer(vcpu: &mut Vcpu, request: Request) {
    let now = module::frame_at(machine::tsc());
    let registers = &mut vcpu.registers;
    if request == Request::SwitchPlan {
        match module::request_plan(registers.rbx as PlanId, now) {
            Some(from) => (registers.rax, registers.rbx) = (0, from),
            None => registers.rax = abi::status::BUSY,
        }
        return;
    }
    let word = module::plan_word();
    registers.rax = 0;
    registers.rbx = u64::from(word.in_frame(now));
    registers.rdi = u64::from(word.plan());
    registers.rsi = word.from_frame();
    registers.rdx = now;
}

/// Moves timers that are due at `instant` into the virtual APIC, hands the guest what it can take, and arms the preemption timer
/// for an entry at that instant.
fn settle<B: Backend>(vcpu: &mut Vcpu, instant: u64) {
    vcpu.state.apic.expire(instant);
    interrupts::deliver::<B>(vcpu);
    // A timer that is due behind the window is not looked up for: ahead of it nothing could be done, and the core would exit over and
    // over until the end.
    let end = vcpu.window_end;
    let due = vcpu.state.apic.next_deadline().filter(|due| *due < end);
    let next = due.map_or(end, |due| due.saturating_sub(vcpu.timer_lead.ticks()));
    vcpu.deadline = next.min(instant.saturating_add(MOST_AHEAD));
    arm::<B>(vcpu, instant);
}
