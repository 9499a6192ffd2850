//! Finds the instants at which a guest in windows got its core back, as exactly as instructions allow.
#![expect(unsafe_code, reason = "reads the clock in assembly")]

use core::arch::asm;

use crate::machine::tsc;

/// A time in which the guest did not have its core. TSC ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last reading before it.
    pub last: u64,
    /// The first reading behind it.
    pub first: u64,
}

/// Most instructions between the guest's first one behind a gap and the reading of the clock: where in the loop of
/// [`next_gap`] the guest was interrupted.
pub const LOOP: u64 = 5;

/// Reads the clock without a pause until two readings are `threshold` ticks apart or more, and returns the two. The gap must be
/// shorter than 2^32 ticks. Interrupts of the guest's own are taken meanwhile, as far as they are enabled.
#[inline(always)]
#[must_use]
pub fn next_gap(threshold: u32) -> Gap {
    let (last, first): (u32, u32);
    // SAFETY: changes registers only, and declares them.
    unsafe {
        asm!(
            "rdtsc",
            "2: mov {last:e}, eax",
            "rdtsc",
            "mov {apart:e}, eax",
            "sub {apart:e}, {last:e}",
            "cmp {apart:e}, {threshold:e}",
            "jb 2b",
            last = out(reg) last,
            apart = out(reg) _,
            threshold = in(reg) threshold,
            out("eax") first,
            out("edx") _,
            options(nomem, nostack),
        );
    }
    let now = tsc();
    // The readings are the lower halves of instants at most 2^32 ticks ago.
    let ago = |reading: u32| now - u64::from((now as u32).wrapping_sub(reading));
    let first_whole = ago(first);
    Gap { last: first_whole - u64::from(first.wrapping_sub(last)), first: first_whole }
}
