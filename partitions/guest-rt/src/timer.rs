//! The local APIC's timer, set to instants of the TSC: in TSC-deadline mode, or in one-shot mode on a processor that lacks it, as AMD's.
//!
//! In one-shot mode the timer counts at a rate of its own, with divisor 1 (APM 2 16.4.1). Under Bulkhead a time-shared core's counts are
//! TSC ticks, by [`abi::CPUID_TIMING`]. Elsewhere the rate is measured once, by interrupts: the current count is never read, which aborts
//! QEMU when it counts instructions. What comes too early, as after the longest count, is set again.
#![expect(unsafe_code, reason = "writes the timer's registers")]

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bulkhead_table::abi;

use crate::apic::{LVT_MASKED, LVT_TIMER, TSC_DEADLINE};
use crate::deadline::wait_spinning;
use crate::guest::{own_leaf, under_hypervisor};
use crate::interrupts::DEADLINE_VECTOR;
use crate::machine::{cpuid, tsc, write_msr};
use crate::rate::{Rate, SPAN};

/// The initial count; a write arms the timer.
pub const INITIAL_COUNT: u32 = 0x838;
const DIVIDE: u32 = 0x83E;
const DIVIDE_BY_1: u64 = 0b1011;

/// In the timer's entry of the local vector table: TSC-deadline mode.
const TSC_DEADLINE_MODE: u64 = 2 << 17;

/// Bit of CPUID.1:ECX.
const HAS_TSC_DEADLINE: u32 = 1 << 24;

/// Counts of the shorter measurement, which shows what the interrupt itself takes.
const SHORT: u32 = 64;
/// Measurements of each length: the shortest counts, as nothing shortens one.
const MEASUREMENTS: usize = 4;

/// In TSC-deadline mode, where the timer's LVT entry points; 0: masked. So in one-shot mode no vector is ever the one.
static VECTOR: AtomicU8 = AtomicU8::new(0);
/// The same in one-shot mode.
static COUNTS_FOR: AtomicU8 = AtomicU8::new(0);
/// Whether the timer is in one-shot mode.
static COUNTS: AtomicBool = AtomicBool::new(false);
/// Bits of the timer's [`Rate`].
static RATE: AtomicU64 = AtomicU64::new(Rate::SAME.to_bits());
/// In one-shot mode the instant for which the timer is set; 0: none.
static DUE: AtomicU64 = AtomicU64::new(0);

/// Chooses the mode, and measures the timer's rate where it counts. Interrupts are off, and every vector has a handler.
pub(crate) fn set_up() -> Result<(), &'static str> {
    if cpuid(1, 0).ecx & HAS_TSC_DEADLINE != 0 {
        return Ok(());
    }
    COUNTS.store(true, Ordering::Relaxed);
    // SAFETY: the timer is masked.
    unsafe { write_msr(DIVIDE, DIVIDE_BY_1) };
    if counts_ticks() {
        return Ok(());
    }
    let rate = measure().ok_or("this CPU's APIC timer does not count")?;
    RATE.store(rate.to_bits(), Ordering::Relaxed);
    Ok(())
}

/// Whether the hypervisor says that the timer's clock is the TSC.
fn counts_ticks() -> bool {
    under_hypervisor() && {
        let timing = cpuid(own_leaf(abi::CPUID_TIMING), 0);
        timing.ebx != 0 && timing.ebx == timing.eax
    }
}

#[inline(never)]
fn measure() -> Option<Rate> {
    // SAFETY: the vector has a handler.
    unsafe { write_msr(LVT_TIMER, u64::from(DEADLINE_VECTOR)) };
    let (short, long) = (shortest(SHORT), shortest(SHORT + SPAN));
    // SAFETY: masking a source of interrupts is harmless.
    unsafe { write_msr(LVT_TIMER, LVT_MASKED) };
    Rate::measured(long.checked_sub(short)?)
}

/// Ticks from arming the timer with so many counts to its interrupt, at the least.
#[inline(never)]
fn shortest(counts: u32) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..MEASUREMENTS {
        let began = tsc();
        // SAFETY: the timer's vector is the one that is waited for.
        unsafe { write_msr(INITIAL_COUNT, u64::from(counts)) };
        least = least.min(wait_spinning() - began);
    }
    least
}

/// Whether the timer is in one-shot mode.
pub(crate) fn counts() -> bool {
    COUNTS.load(Ordering::Relaxed)
}

/// Sets the timer to raise `vector` at the TSC value `deadline`, at once where that has passed. False in one-shot mode, where
/// [`count`] does it. The vector is written only on a change, so that a measured path stays free of it.
#[inline(always)]
#[must_use]
pub(crate) fn set(vector: u8, deadline: u64) -> bool {
    if VECTOR.load(Ordering::Relaxed) != vector && !route(vector) {
        return false;
    }
    // SAFETY: every vector has a handler.
    unsafe { write_msr(TSC_DEADLINE, deadline) };
    true
}

/// Lets the timer raise `vector` from now on, in either mode.
pub(crate) fn prepare(vector: u8) {
    if VECTOR.load(Ordering::Relaxed) != vector && !route(vector) {
        route_counts(vector);
    }
}

/// Lets the timer raise `vector` in TSC-deadline mode; false in the other one.
#[inline(never)]
fn route(vector: u8) -> bool {
    if counts() {
        return false;
    }
    // SAFETY: every vector has a handler.
    unsafe { write_msr(LVT_TIMER, TSC_DEADLINE_MODE | u64::from(vector)) };
    VECTOR.store(vector, Ordering::Relaxed);
    true
}

/// Lets the timer raise `vector` in one-shot mode.
fn route_counts(vector: u8) {
    if COUNTS_FOR.swap(vector, Ordering::Relaxed) != vector {
        // SAFETY: every vector has a handler.
        unsafe { write_msr(LVT_TIMER, u64::from(vector)) };
    }
}

/// Sets the timer in one-shot mode to raise `vector` at the TSC value `deadline`, or at the longest count's end where that is earlier.
#[inline(never)]
pub(crate) fn count(vector: u8, deadline: u64) {
    route_counts(vector);
    DUE.store(deadline, Ordering::Relaxed);
    let rate = Rate::from_bits(RATE.load(Ordering::Relaxed));
    let count = rate.counts(deadline.saturating_sub(tsc()));
    // SAFETY: every vector has a handler.
    unsafe { write_msr(INITIAL_COUNT, u64::from(count)) };
}

/// Sets the timer again when it came at `tsc`, ahead of the instant that [`count`] was given; returns whether it did.
pub(crate) fn goes_on(tsc: u64) -> bool {
    let due = DUE.load(Ordering::Relaxed);
    let early = tsc < due;
    if early {
        count(COUNTS_FOR.load(Ordering::Relaxed), due);
    }
    early
}

/// Stops the timer, and forgets for when it was set.
pub fn stop() {
    DUE.store(0, Ordering::Relaxed);
    let register = if counts() { INITIAL_COUNT } else { TSC_DEADLINE };
    // SAFETY: a timer that is stopped raises nothing.
    unsafe { write_msr(register, 0) };
}

/// The register, and its value, that let the timer come as soon as it can.
#[must_use]
pub fn soonest() -> (u32, u32) {
    if counts() { (INITIAL_COUNT, 1) } else { (TSC_DEADLINE, 1) }
}
