//! The timer in its three modes.
//!
//! Nothing here measures how late an interrupt is: in a window of a shared core that is not the timer's affair. It must come, not
//! before its time, and not twice.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::{on_interrupt, tsc};

use crate::Needs::{Both, CurrentCount, Deadline};
use crate::access::{
    CURRENT_COUNT, DIVIDE, DIVIDE_BY_1, ESR, INITIAL_COUNT, LVT_TIMER, MASKED, TSC_DEADLINE, read,
    write,
};
use crate::interrupts::take_pending;
use crate::{Case, case};

const VECTOR: u8 = 0x81;
const ONE_SHOT: u64 = VECTOR as u64;
const PERIODIC: u64 = 1 << 17 | VECTOR as u64;
const DEADLINE: u64 = 2 << 17 | VECTOR as u64;
/// Ticks from arming to the interrupt.
const SOON: u64 = 3_000;
/// Ticks in which an interrupt that is to come has come, windows of others included. Also the time from arming to the interrupt where the
/// guest goes on to stop the timer: another's window between the two must not let it come first.
const LONG: u64 = 500_000;
/// Ticks in which one that must not come would have come: some of [`SOON`].
const QUIET: u64 = 4 * SOON;
/// The same for one that was armed for [`LONG`].
const QUIET_LONG: u64 = 2 * LONG;
/// Divide configurations, in the order of the divisors 2, 4, .. 128, 1. SDM 3A figure 11-10.
const ENCODINGS: [u64; 8] = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, DIVIDE_BY_1];

/// Interrupts of the timer.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// TSC at the first.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// The rules.
pub const CASES: &[Case] = &[
    case("one-shot-comes", || comes(ONE_SHOT, arm_count), 1),
    case("one-shot-is-not-early", || not_early(ONE_SHOT, arm_count), 1),
    case("one-shot-comes-once", || comes_once(ONE_SHOT, arm_count), 1),
    case("one-shot-ends-at-zero", one_shot_ends, 0).with(CurrentCount),
    case("initial-count-is-kept", initial_is_kept, SOON),
    case("current-count-falls", current_falls, 1).with(CurrentCount),
    case("zero-stops", zero_stops, 0).with(CurrentCount),
    case("masked-one-shot-is-quiet", || quiet(MASKED | ONE_SHOT, arm_count), 0),
    case("masked-one-shot-counts", masked_counts, 1).with(CurrentCount),
    case("periodic-comes-again", periodic_comes_again, 1),
    case("periodic-starts-over", periodic_starts_over, 1).with(CurrentCount),
    case("periodic-stops", periodic_stops, 0),
    case("deadline-comes", || comes(DEADLINE, arm_deadline), 1).with(Deadline),
    case("deadline-is-not-early", || not_early(DEADLINE, arm_deadline), 1).with(Deadline),
    case("deadline-comes-once", || comes_once(DEADLINE, arm_deadline), 1).with(Deadline),
    case("deadline-reads-back", deadline_reads_back, 1).with(Deadline),
    case("deadline-reads-zero-behind-it", deadline_reads_zero, 0).with(Deadline),
    case("deadline-that-has-passed-comes", deadline_passed, 1).with(Deadline),
    case("deadline-of-zero-disarms", deadline_disarms, 0).with(Deadline),
    case("masked-deadline-is-quiet", || quiet(MASKED | DEADLINE, arm_deadline), 0).with(Deadline),
    case("deadline-ignored-in-one-shot", || quiet(ONE_SHOT, arm_deadline), 0).with(Deadline),
    case("deadline-reads-zero-in-one-shot", deadline_in_one_shot, 0).with(Deadline),
    case("count-ignored-in-deadline", || quiet(DEADLINE, arm_count), 0).with(Deadline),
    case("current-count-reads-zero-in-deadline", current_in_deadline, 0).with(Both),
    case("deadline-to-one-shot-disarms", || changed(DEADLINE, arm_deadline, ONE_SHOT), 0)
        .with(Deadline),
    case("one-shot-to-deadline-disarms", || changed(ONE_SHOT, arm_count, DEADLINE), 0)
        .with(Deadline),
    case("divisors", divisors, u64::from_le_bytes([2, 4, 8, 16, 32, 64, 128, 1]))
        .with(CurrentCount),
    case("illegal-vector-of-an-entry", illegal_vector, 0x40),
];

fn start(entry: u64) {
    on_interrupt(VECTOR, |came| {
        if COUNT.fetch_add(1, Ordering::Relaxed) == 0 {
            FIRST.store(came, Ordering::Relaxed);
        }
    });
    COUNT.store(0, Ordering::Relaxed);
    write(LVT_TIMER, entry);
}

/// Lets the timer run for so many ticks, or until it has come so often.
fn run(ticks: u64, until: u64) -> u64 {
    let end = tsc() + ticks;
    while tsc() < end && COUNT.load(Ordering::Relaxed) < until {
        take_pending();
    }
    COUNT.load(Ordering::Relaxed)
}

/// Arms a timer for so many ticks; returns the instant before which nothing may come.
type Arm = fn(u64) -> u64;

fn arm_count(ticks: u64) -> u64 {
    let now = tsc();
    write(INITIAL_COUNT, ticks);
    now + ticks
}

fn arm_deadline(ticks: u64) -> u64 {
    let due = tsc() + ticks;
    write(TSC_DEADLINE, due);
    due
}

fn comes(entry: u64, arm: Arm) -> u64 {
    start(entry);
    arm(SOON);
    run(LONG, 1)
}

fn not_early(entry: u64, arm: Arm) -> u64 {
    start(entry);
    let due = arm(SOON);
    run(LONG, 1);
    u64::from(FIRST.load(Ordering::Relaxed) >= due)
}

fn comes_once(entry: u64, arm: Arm) -> u64 {
    comes(entry, arm);
    run(QUIET, u64::MAX)
}

fn quiet(entry: u64, arm: Arm) -> u64 {
    start(entry);
    arm(SOON);
    let came = run(QUIET, u64::MAX);
    write(LVT_TIMER, entry & !MASKED);
    came + run(QUIET, u64::MAX)
}

fn changed(entry: u64, arm: Arm, other: u64) -> u64 {
    start(entry);
    arm(LONG);
    write(LVT_TIMER, other);
    run(QUIET_LONG, u64::MAX)
}

fn one_shot_ends() -> u64 {
    comes(ONE_SHOT, arm_count);
    read(CURRENT_COUNT)
}

fn initial_is_kept() -> u64 {
    start(MASKED | ONE_SHOT);
    arm_count(SOON);
    read(INITIAL_COUNT)
}

fn current_falls() -> u64 {
    start(MASKED | ONE_SHOT);
    write(INITIAL_COUNT, LONG);
    let first = read(CURRENT_COUNT);
    let second = read(CURRENT_COUNT);
    u64::from(first <= LONG && second < first)
}

fn zero_stops() -> u64 {
    start(ONE_SHOT);
    arm_count(LONG);
    write(INITIAL_COUNT, 0);
    run(QUIET_LONG, u64::MAX) + read(CURRENT_COUNT)
}

fn masked_counts() -> u64 {
    start(MASKED | ONE_SHOT);
    write(INITIAL_COUNT, SOON);
    run(QUIET, u64::MAX);
    u64::from(read(CURRENT_COUNT) == 0)
}

fn periodic_comes_again() -> u64 {
    start(PERIODIC);
    write(INITIAL_COUNT, SOON);
    u64::from(run(4 * LONG, 3) >= 3)
}

fn periodic_starts_over() -> u64 {
    start(MASKED | PERIODIC);
    write(INITIAL_COUNT, SOON);
    run(QUIET, u64::MAX);
    let left = read(CURRENT_COUNT);
    u64::from(left > 0 && left <= SOON)
}

fn periodic_stops() -> u64 {
    start(PERIODIC);
    write(INITIAL_COUNT, SOON);
    run(LONG, 1);
    write(INITIAL_COUNT, 0);
    take_pending();
    let before = COUNT.load(Ordering::Relaxed);
    run(QUIET, u64::MAX) - before
}

fn deadline_reads_back() -> u64 {
    start(DEADLINE);
    let due = tsc() + LONG;
    write(TSC_DEADLINE, due);
    let found = read(TSC_DEADLINE);
    write(TSC_DEADLINE, 0);
    u64::from(found == due)
}

fn deadline_reads_zero() -> u64 {
    comes(DEADLINE, arm_deadline);
    read(TSC_DEADLINE)
}

fn deadline_passed() -> u64 {
    start(DEADLINE);
    write(TSC_DEADLINE, tsc() - SOON);
    run(LONG, 1)
}

fn deadline_disarms() -> u64 {
    start(DEADLINE);
    arm_deadline(LONG);
    write(TSC_DEADLINE, 0);
    run(QUIET_LONG, u64::MAX)
}

fn deadline_in_one_shot() -> u64 {
    start(ONE_SHOT);
    arm_deadline(SOON);
    read(TSC_DEADLINE)
}

fn current_in_deadline() -> u64 {
    start(DEADLINE);
    write(INITIAL_COUNT, SOON);
    read(CURRENT_COUNT)
}

/// The measured divisors, one in each byte.
fn divisors() -> u64 {
    let mut measured = [0; 8];
    for (encoding, measured) in ENCODINGS.into_iter().zip(&mut measured) {
        *measured = divisor(encoding) as u8;
    }
    u64::from_le_bytes(measured)
}

/// Ticks of the clock by ticks of the count, rounded.
fn divisor(encoding: u64) -> u64 {
    const MEASURED: u64 = 64_000;
    start(MASKED | ONE_SHOT);
    write(DIVIDE, encoding);
    write(INITIAL_COUNT, 0xFFFF_FFFF);
    let (began, first) = clock_and_count();
    while tsc() < began + MEASURED {}
    let (ended, second) = clock_and_count();
    let counted = first.saturating_sub(second).max(1);
    (ended - began + counted / 2) / counted
}

/// The clock and the count at one instant: readings that something came between are taken again.
fn clock_and_count() -> (u64, u64) {
    const TOGETHER: u64 = 500;
    loop {
        let before = tsc();
        let count = read(CURRENT_COUNT);
        if tsc() - before < TOGETHER {
            return (before, count);
        }
    }
}

fn illegal_vector() -> u64 {
    start(5);
    write(INITIAL_COUNT, SOON);
    run(QUIET, u64::MAX);
    write(ESR, 0);
    read(ESR)
}
