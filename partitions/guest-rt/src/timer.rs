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

/// Where the timer's LVT entry points now; 0: masked.
static VECTOR: AtomicU8 = AtomicU8::new(0);
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

fn measure() -> Option<Rate> {
    route(DEADLINE_VECTOR);
    let shortest = |counts| (0..MEASUREMENTS).map(|_| ticks_of(counts)).min();
    let (short, long) = (shortest(SHORT)?, shortest(SHORT + SPAN)?);
    // SAFETY: masking a source of interrupts is harmless.
    unsafe { write_msr(LVT_TIMER, LVT_MASKED) };
    VECTOR.store(0, Ordering::Relaxed);
    Rate::measured(long.checked_sub(short)?)
}

/// Ticks from arming the timer with so many counts to its interrupt.
fn ticks_of(counts: u32) -> u64 {
    let began = tsc();
    // SAFETY: the timer's vector is the one that is waited for.
    unsafe { write_msr(INITIAL_COUNT, u64::from(counts)) };
    wait_spinning() - began
}

/// Lets the timer raise `vector`. Writes the register only on a change, so that a measured path stays free of it.
#[inline(always)]
pub(crate) fn route(vector: u8) {
    if VECTOR.load(Ordering::Relaxed) != vector {
        let mode = if COUNTS.load(Ordering::Relaxed) { 0 } else { TSC_DEADLINE_MODE };
        // SAFETY: every vector has a handler.
        unsafe { write_msr(LVT_TIMER, mode | u64::from(vector)) };
        VECTOR.store(vector, Ordering::Relaxed);
    }
}

/// Arms the timer for the TSC value `deadline`; 0 disarms it. A deadline that has passed fires at once.
#[inline(always)]
pub(crate) fn arm(deadline: u64) {
    if COUNTS.load(Ordering::Relaxed) {
        arm_count(deadline);
    } else {
        // SAFETY: every vector has a handler.
        unsafe { write_msr(TSC_DEADLINE, deadline) };
    }
}

#[inline(never)]
fn arm_count(deadline: u64) {
    DUE.store(deadline, Ordering::Relaxed);
    let rate = Rate::from_bits(RATE.load(Ordering::Relaxed));
    let count = match deadline {
        0 => 0,
        due => rate.counts(due.saturating_sub(tsc())),
    };
    // SAFETY: every vector has a handler.
    unsafe { write_msr(INITIAL_COUNT, u64::from(count)) };
}

/// Whether the timer came at `tsc` ahead of the instant for which it is set.
#[inline(always)]
pub(crate) fn is_early(tsc: u64) -> bool {
    tsc < DUE.load(Ordering::Relaxed)
}

/// Sets the timer again when it raised `vector` too early, at `tsc`; returns whether it did.
#[inline(always)]
pub(crate) fn goes_on(vector: u32, tsc: u64) -> bool {
    let early = is_early(tsc) && vector == u32::from(VECTOR.load(Ordering::Relaxed));
    if early {
        arm_count(DUE.load(Ordering::Relaxed));
    }
    early
}

/// The register, and its value, that let the timer come as soon as it can.
#[must_use]
pub fn soonest() -> (u32, u32) {
    if COUNTS.load(Ordering::Relaxed) { (INITIAL_COUNT, 1) } else { (TSC_DEADLINE, 1) }
}
