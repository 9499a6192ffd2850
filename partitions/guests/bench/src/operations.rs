//! What is measured: each operation by the name under which it is reported.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bulkhead_table::abi::FLOOR_MARK;
use guest_rt::apic::{self, APIC_BASE, COMMAND, IpiKind, LVT_ERROR, LVT_MASKED};
use guest_rt::hostile::{self, read_msr, write_msr};
use guest_rt::{
    Alarm, Deadline, Machine, Wait, disable_interrupts, enable_interrupts, on_interrupt, on_nmi,
    round_trip, timer, tsc,
};

/// A leaf that no CPU and no hypervisor of today defines.
const UNKNOWN_LEAF: u32 = 0x4FFF_0000;
/// A call number that the hypervisor does not define.
const UNKNOWN_CALL: u32 = 0x7FFF_FFFF;
/// An MSR that takes a zero and changes nothing.
const DEBUG_CONTROL: u32 = 0x1D9;
/// An MSR that no guest may touch: IA32_SMM_MONITOR_CTL.
const REFUSED_MSR: u32 = 0x9B;

/// The vector of interrupts from vCPU to vCPU, and of the timer.
const VECTOR: u8 = 0x41;
const TIMER_VECTOR: u8 = 0x42;
/// How far ahead the timer is armed, and how long an interrupt is waited for, in ticks.
const AHEAD: u64 = 500;
const PATIENCE: u64 = 10_000_000;

/// TSC at which the last interrupt's handler read the clock; 0: it did not come yet.
static CAME: AtomicU64 = AtomicU64::new(0);
/// Lower half of the TSC as the interrupted code read it last, on this core and on the partner's, and as it had when the interrupt came.
static LAST: AtomicU32 = AtomicU32::new(0);
static PARTNERS_LAST: AtomicU32 = AtomicU32::new(0);
static BEFORE: AtomicU32 = AtomicU32::new(0);
/// APIC id of the second core.
static PARTNER: AtomicU32 = AtomicU32::new(0);

/// Where an operation exists.
#[derive(Clone, Copy)]
enum Where {
    Everywhere,
    /// Natively it is another thing, or none.
    UnderHypervisor,
    /// Where a try shows it: something refuses what is to be refused, or the register is there.
    Tried(fn() -> bool),
    /// With a second core.
    WithPartner,
}

/// Something that is measured.
pub struct Operation {
    /// As it is reported.
    pub name: &'static str,
    /// Runs it once and returns its ticks; `None` when an interrupt did not come.
    pub measure: fn() -> Option<u64>,
    here: Where,
}

const fn of(name: &'static str, here: Where, measure: fn() -> Option<u64>) -> Operation {
    Operation { name, measure, here }
}

use Where::{Everywhere, Tried, UnderHypervisor, WithPartner};

/// Under a hypervisor that is built to show the floor.
pub const FLOOR: &[Operation] = &[
    of("rdtsc-pair", Everywhere, || Some(round_trip::nothing())),
    of("floor", Everywhere, || Some(round_trip::cpuid(FLOOR_MARK))),
];

/// Everything but the floor.
pub const ALL: &[Operation] = &[
    of("rdtsc-pair", Everywhere, || Some(round_trip::nothing())),
    of("cpuid-0", Everywhere, || Some(round_trip::cpuid(0))),
    of("cpuid-1", Everywhere, || Some(round_trip::cpuid(1))),
    of("cpuid-7", Everywhere, || Some(round_trip::cpuid(7))),
    of("cpuid-d", Everywhere, || Some(round_trip::cpuid(0xD))),
    of("cpuid-unknown", Everywhere, || Some(round_trip::cpuid(UNKNOWN_LEAF))),
    of("vmcall", UnderHypervisor, || Some(round_trip::vmcall(UNKNOWN_CALL))),
    of("rdmsr", Everywhere, || Some(round_trip::read_msr(APIC_BASE))),
    of("rdmsr-refused", Tried(|| read_msr(REFUSED_MSR).is_err()), || {
        Some(round_trip::refused_msr(REFUSED_MSR))
    }),
    of("wrmsr", Tried(|| write_msr(DEBUG_CONTROL, 0).is_ok()), || {
        Some(round_trip::write_msr(DEBUG_CONTROL, 0))
    }),
    of("wrmsr-checked", Everywhere, || Some(round_trip::write_msr(LVT_ERROR, LVT_MASKED as u32))),
    of("wrmsr-refused", Tried(|| write_msr(REFUSED_MSR, 0).is_err()), || {
        Some(round_trip::refused_write(REFUSED_MSR))
    }),
    of("exception-own", Everywhere, || Some(round_trip::own_exception())),
    of("port-refused", Everywhere, || Some(round_trip::port_in())),
    of("ipi-own", Everywhere, || send(guest_rt::apic_id(), IpiKind::Fixed(VECTOR))),
    of("ipi-other", WithPartner, || send(PARTNER.load(Ordering::Relaxed), IpiKind::Fixed(VECTOR))),
    of("nmi-other", WithPartner, || send(PARTNER.load(Ordering::Relaxed), IpiKind::Nmi)),
    of("nmi-arrives", WithPartner, || kick().map(|kick| kick.arrives)),
    of("nmi-exit", WithPartner, || kick().map(|kick| kick.exit)),
    of("timer", Everywhere, timer),
    of("timer-exit", Everywhere, timer_exit),
    of("timer-past", Everywhere, timer_past),
];

impl Operation {
    /// Whether it can be measured here.
    pub fn is_possible(&self, machine: Machine, partner: bool) -> bool {
        match self.here {
            Everywhere => true,
            UnderHypervisor => machine != Machine::Native,
            Tried(is_so) => is_so(),
            WithPartner => partner,
        }
    }

    /// Sets up the handlers that it needs.
    pub fn prepare(&self) {
        on_interrupt(VECTOR, |came| note(came, &LAST));
        on_nmi(|| note(tsc(), &PARTNERS_LAST));
        // Routes the timer to its vector; it does not run out.
        Alarm::new(TIMER_VECTOR, note_own).set(u64::MAX);
    }
}

/// Of an interrupt that came at `came`: when, and what the interrupted code had read last.
fn note(came: u64, last: &AtomicU32) {
    BEFORE.store(last.load(Ordering::Relaxed), Ordering::Relaxed);
    CAME.store(came, Ordering::Release);
}

fn note_own(came: u64) {
    note(came, &LAST);
}

/// Ticks from the last reading of the interrupted code to the handler. Call it once [`CAME`] is set.
fn interruption() -> u64 {
    let came = CAME.load(Ordering::Acquire) as u32;
    u64::from(came.wrapping_sub(BEFORE.load(Ordering::Relaxed)))
}

/// What an NMI to the partner took.
struct Kick {
    /// From the sender to the partner's last instruction.
    arrives: u64,
    /// From there to the partner's handler.
    exit: u64,
}

fn kick() -> Option<Kick> {
    let whole = send(PARTNER.load(Ordering::Relaxed), IpiKind::Nmi)?;
    let exit = interruption();
    // The partner's reading may be a step of the clock older than the sender's.
    Some(Kick { arrives: whole.saturating_sub(exit), exit })
}

/// Interrupts a vCPU that spins, and returns the ticks to its handler's first look at the clock.
fn send(target: u32, kind: IpiKind) -> Option<u64> {
    let command = apic::command(target, kind);
    await_interrupt(|| round_trip::write_msr_from(COMMAND, command))
}

/// How late a timer is that was armed for an instant to come.
fn timer() -> Option<u64> {
    let instant = tsc() + AHEAD;
    Some(Deadline::new(Wait::Spinning).wait(instant).wrapping_sub(instant))
}

/// What a timer that comes takes from the code that runs: from its last instruction to the handler.
fn timer_exit() -> Option<u64> {
    CAME.store(0, Ordering::Release);
    let alarm = Alarm::new(TIMER_VECTOR, note_own);
    enable_interrupts();
    // To set it takes an exit where the APIC is virtual, and the loop must have begun by then.
    alarm.set(tsc() + 4 * AHEAD);
    round_trip::note_until(&LAST, &CAME);
    disable_interrupts();
    Some(interruption())
}

/// From arming the timer for an instant that has passed to its handler.
fn timer_past() -> Option<u64> {
    // The alarm is set for later, and would take this for one that comes too early.
    timer::stop();
    let (register, value) = timer::soonest();
    await_interrupt(|| round_trip::write_msr_from(register, u64::from(value)))
}

/// Triggers an interrupt and spins until it came. `trigger` returns when it did so.
fn await_interrupt(trigger: impl Fn() -> u64) -> Option<u64> {
    CAME.store(0, Ordering::Release);
    enable_interrupts();
    let from = trigger();
    let mut came = 0;
    while came == 0 && tsc() < from + PATIENCE {
        came = CAME.load(Ordering::Acquire);
    }
    disable_interrupts();
    // Where one processor stands while another runs, patience may end with both looks at once.
    if came == 0 {
        came = CAME.load(Ordering::Acquire);
    }
    came.checked_sub(from)
}

/// The second core of the partition.
pub mod partner {
    use super::{
        AtomicU32, AtomicU64, Ordering, PARTNER, PARTNERS_LAST, enable_interrupts, hostile,
        round_trip,
    };

    /// The x2APIC's spurious interrupt register, and its value with the APIC switched on.
    const SPURIOUS: u32 = 0x80F;
    const SWITCHED_ON: u64 = 0x1FF;

    static READY: AtomicU32 = AtomicU32::new(0);
    /// What the partner waits for.
    static NEVER: AtomicU64 = AtomicU64::new(0);

    /// Starts it; returns whether it takes interrupts now.
    pub fn start(id: u32, tsc_khz: u64) -> bool {
        PARTNER.store(id, Ordering::Relaxed);
        if !guest_rt::start_cpu(id, tsc_khz, spin) {
            return false;
        }
        while READY.load(Ordering::Acquire) == 0 {
            core::hint::spin_loop();
        }
        true
    }

    /// Spins with interrupts on, for ever. One that is refused would show: the first interrupt would not come.
    fn spin(_: u32) {
        let _ = hostile::write_msr(SPURIOUS, SWITCHED_ON);
        enable_interrupts();
        READY.store(1, Ordering::Release);
        loop {
            round_trip::note_until(&PARTNERS_LAST, &NEVER);
        }
    }
}
