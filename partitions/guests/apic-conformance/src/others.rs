//! Interrupts between CPUs: bringing another one up, and what reaches whom.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::{
    apic_id, arrivals, disable_interrupts, enable_interrupts, halt, on_interrupt, start_cpu, tsc,
};

use crate::access::{
    ESR, ICR, INITIAL_COUNT, LVT_ERROR, LVT_LINT0, LVT_TIMER, SVR, SVR_START, TPR, read, write,
};
use crate::interrupts::{ASSERT, LOGICAL, NMI, TO_ALL, TO_OTHERS, TO_SELF, logical, to};
use crate::{Case, case};

const VECTOR: u8 = 0xB1;
/// By this one the other CPU answers.
const ANSWER: u8 = 0xB2;
/// Ticks in which what is to come has come, windows of others included.
const LONG: u64 = 2_000_000;
/// Ticks in which what must not come would have come.
const QUIET: u64 = 300_000;

/// APIC id of the other CPU.
static OTHER: AtomicU64 = AtomicU64::new(0);
/// Frequency of the time-stamp counter, in kHz.
static CLOCK: AtomicU64 = AtomicU64::new(0);
/// Interrupts that this CPU took.
static HERE: AtomicU64 = AtomicU64::new(0);
/// Interrupts that the other CPU took.
static THERE: AtomicU64 = AtomicU64::new(0);
/// NMIs that the other CPU took.
static NMIS_THERE: AtomicU64 = AtomicU64::new(0);
/// What the other CPU's registers held when it arrived.
static FOUND: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];
/// The registers of [`FOUND`] and what INIT leaves in them. SDM 3A 11.4.7.3.
const AFTER_INIT: [(u32, u64); 7] = [
    (TPR, 0),
    (SVR, 0xFF),
    (ESR, 0),
    (LVT_TIMER, 0x1_0000),
    (LVT_LINT0, 0x1_0000),
    (LVT_ERROR, 0x1_0000),
    (INITIAL_COUNT, 0),
];

/// Says which CPU is the other one, and how fast the clock goes by which it is started.
pub fn set_up(other: u64, tsc_khz: u64) {
    OTHER.store(other, Ordering::Relaxed);
    CLOCK.store(tsc_khz, Ordering::Relaxed);
    on_interrupt(VECTOR, |_| count());
    on_interrupt(ANSWER, |_| {
        HERE.fetch_add(1, Ordering::Relaxed);
    });
}

/// Whether this is the other CPU.
pub fn is_other() -> bool {
    u64::from(apic_id()) == OTHER.load(Ordering::Relaxed)
}

/// Counts an NMI of the other CPU.
pub fn count_nmi() {
    NMIS_THERE.fetch_add(1, Ordering::Relaxed);
}

fn count() {
    let counter = if is_other() { &THERE } else { &HERE };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the other CPU does: it tells what it found, and takes interrupts for ever.
fn main_of_other(_: u32) {
    for (found, (register, _)) in FOUND.iter().zip(AFTER_INIT) {
        found.store(read(register), Ordering::Relaxed);
    }
    write(SVR, SVR_START);
    READY.store(1, Ordering::Release);
    enable_interrupts();
    loop {
        halt();
        if ASKED.swap(0, Ordering::AcqRel) == 1 {
            write(ICR, to(FIRST.load(Ordering::Relaxed) as u32) | ASSERT | u64::from(ANSWER));
        }
    }
}

/// The other CPU takes interrupts.
static READY: AtomicU64 = AtomicU64::new(0);
/// The other CPU is to answer.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// APIC id of the first CPU.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// The rules. The first brings the other CPU up for all that follow.
pub const CASES: &[Case] = &[
    case("other-starts", start, 1),
    case("other-is-as-init-leaves-it", as_init_leaves_it, 0x7F),
    case("to-other", || reaches(to(other())), THERE_ALONE),
    case("to-other-by-logical-id", || reaches(logical(other()) | LOGICAL), THERE_ALONE),
    case("to-all", || reaches(TO_ALL), BOTH),
    case("to-all-but-self", || reaches(TO_OTHERS), THERE_ALONE),
    case("to-self-alone", || reaches(TO_SELF), HERE_ALONE),
    case("nmi-to-other", nmi_to_other, 1),
    case("other-answers", other_answers, 1),
    case("start-up-of-a-running-one-is-ignored", start_up_again, 0),
    case("init-stops-it", init_stops, 0),
    case("other-starts-again", start, 1),
    case("and-takes-interrupts-again", || reaches(to(other())), THERE_ALONE),
];

const HERE_ALONE: u64 = 0x10;
const THERE_ALONE: u64 = 0x01;
const BOTH: u64 = 0x11;

fn other() -> u32 {
    OTHER.load(Ordering::Relaxed) as u32
}

/// Lets this CPU take interrupts until something holds, or the ticks are over; returns whether it holds.
fn wait(ticks: u64, holds: impl Fn() -> bool) -> bool {
    let end = tsc() + ticks;
    while tsc() < end && !holds() {
        enable_interrupts();
        core::hint::spin_loop();
        disable_interrupts();
    }
    holds()
}

fn start() -> u64 {
    FIRST.store(u64::from(apic_id()), Ordering::Relaxed);
    READY.store(0, Ordering::Relaxed);
    let arrived = start_cpu(other(), CLOCK.load(Ordering::Relaxed), main_of_other);
    u64::from(arrived && wait(LONG, || READY.load(Ordering::Acquire) == 1))
}

/// One bit for each register that holds what it should.
fn as_init_leaves_it() -> u64 {
    let right = |(place, (found, (_, expected))): (usize, (&AtomicU64, (u32, u64)))| {
        u64::from(found.load(Ordering::Relaxed) == expected) << place
    };
    FOUND.iter().zip(AFTER_INIT).enumerate().map(right).sum()
}

/// Whom a command reaches: how often this CPU, and how often the other.
fn reaches(destination: u64) -> u64 {
    HERE.store(0, Ordering::Relaxed);
    THERE.store(0, Ordering::Relaxed);
    let refused = write(ICR, destination | ASSERT | u64::from(VECTOR));
    if refused != 0 {
        return refused << 32;
    }
    wait(QUIET, || false);
    HERE.load(Ordering::Relaxed) << 4 | THERE.load(Ordering::Relaxed)
}

fn nmi_to_other() -> u64 {
    NMIS_THERE.store(0, Ordering::Relaxed);
    let refused = write(ICR, to(other()) | NMI);
    wait(QUIET, || false);
    refused << 32 | NMIS_THERE.load(Ordering::Relaxed)
}

fn other_answers() -> u64 {
    HERE.store(0, Ordering::Relaxed);
    ASKED.store(1, Ordering::Release);
    write(ICR, to(other()) | ASSERT | u64::from(VECTOR));
    wait(LONG, || HERE.load(Ordering::Relaxed) != 0);
    HERE.load(Ordering::Relaxed)
}

/// A start-up interrupt without INIT before it. SDM 3A 9.4.3.
fn start_up_again() -> u64 {
    const START_UP: u64 = ASSERT | 6 << 8 | 8;
    let before = arrivals();
    write(ICR, to(other()) | START_UP);
    wait(QUIET, || false);
    arrivals() - before
}

/// Behind INIT the other CPU takes nothing until it is started.
fn init_stops() -> u64 {
    const INIT: u64 = ASSERT | 5 << 8;
    write(ICR, to(other()) | INIT);
    wait(QUIET, || false);
    reaches(to(other()))
}
