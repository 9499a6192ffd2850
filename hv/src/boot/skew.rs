//! How far another core's TSC is from the boot core's, bounded by a ping-pong through memory.
//!
//! In each round the other core's reading falls between two of the boot core's, so their difference lies in an
//! interval as wide as the round trip. All rounds' intervals hold at once; what is left of them tightens with each.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cpu;

/// Rounds of one measurement.
const ROUNDS: u32 = 64;

/// Readings of the shared word after which a partner is given up.
const PATIENCE: u32 = 10_000_000;

static PING: AtomicU32 = AtomicU32::new(0);
static PONG: AtomicU32 = AtomicU32::new(0);
static READING: AtomicU64 = AtomicU64::new(0);

/// Where the other core's TSC minus the boot core's lies, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// At least this.
    pub low: i64,
    /// At most this; below `low` when the two clocks do not even run alike.
    pub high: i64,
}

impl Skew {
    /// The middle of what is possible, without its sign.
    pub fn magnitude(&self) -> u64 {
        self.low.midpoint(self.high).unsigned_abs()
    }

    /// Whether the clocks may be within `allowed` ticks of each other, or certainly are not.
    pub fn is_within(&self, allowed: u64) -> bool {
        let allowed = i64::try_from(allowed).unwrap_or(i64::MAX);
        self.low <= self.high && self.low <= allowed && self.high >= -allowed
    }
}

fn wait_for(word: &AtomicU32, value: u32) -> bool {
    for _ in 0..PATIENCE {
        if word.load(Ordering::Acquire) == value {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// The boot core's side; the other core runs [`answer`]. `None` when it stops answering.
pub fn measure() -> Option<Skew> {
    let mut skew = Skew { low: i64::MIN, high: i64::MAX };
    for round in 1..=ROUNDS {
        let before = cpu::tsc();
        PING.store(round, Ordering::Release);
        if !wait_for(&PONG, round) {
            return None;
        }
        let after = cpu::tsc();
        let reading = READING.load(Ordering::Relaxed);
        skew.low = skew.low.max(reading.wrapping_sub(after) as i64);
        skew.high = skew.high.min(reading.wrapping_sub(before) as i64);
    }
    PING.store(0, Ordering::Release);
    PONG.store(0, Ordering::Release);
    Some(skew)
}

/// The other core's side; false when the boot core stops asking.
pub fn answer() -> bool {
    for round in 1..=ROUNDS {
        if !wait_for(&PING, round) {
            return false;
        }
        READING.store(cpu::tsc(), Ordering::Relaxed);
        PONG.store(round, Ordering::Release);
    }
    true
}
