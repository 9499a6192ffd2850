//! The TSC's frequency, measured against the PM timer and held against the board file.
#![expect(unsafe_code, reason = "reads the PM timer's port")]

use hv_core::acpi::PmTimer;
use x86_64::instructions::port::Port;

use super::defects::Defects;
use crate::cpu;
use crate::table::TABLE;

/// ACPI 4.8.3.3.
const PM_TIMER_HZ: u64 = 3_579_545;

/// PM timer ticks of one measurement: 20 ms.
const SPAN: u32 = 71_591;

/// Readings without change after which the timer is taken for dead: far longer than the 280 ns between two ticks.
const PATIENCE: u32 = 100_000;

/// Readings of one measurement at most: a timer this slow is not a PM timer.
const READINGS: u32 = 50_000_000;

/// A measured clock.
pub struct Clock {
    /// Ticks a second.
    pub tsc_hz: u64,
    /// What it was measured against.
    timer: PmTimer,
}

impl Clock {
    /// Ticks in this many microseconds.
    pub const fn microseconds(&self, count: u64) -> u64 {
        self.tsc_hz / 1_000_000 * count
    }

    /// Waits this many microseconds.
    pub fn wait(&self, microseconds: u64) {
        let until = cpu::tsc() + self.microseconds(microseconds);
        while cpu::tsc() < until {
            core::hint::spin_loop();
        }
    }
}

/// Measures the TSC and tells a difference from the board file; `None`, told as a defect, when it cannot be measured.
pub fn verify(timer: PmTimer, defects: &mut Defects) -> Option<Clock> {
    let Some(tsc_hz) = measure(timer) else {
        defects.add(format_args!(
            "the PM timer at I/O port {:#x}, by firmware's FADT, stands still or counts no time, so the TSC cannot be measured; update the firmware, or reset its set-up to defaults",
            timer.port
        ));
        return None;
    };
    let (declared, tolerance) = (TABLE.board.tsc_hz, TABLE.board.tsc_tolerance_ppm);
    if tsc_hz.abs_diff(declared) > allowed() {
        defects.add(format_args!(
            "the TSC runs at {tsc_hz} Hz by the PM timer, and the board file declares {declared} Hz within {tolerance} ppm; correct [clock] tsc"
        ));
    }
    Some(Clock { tsc_hz, timer })
}

/// Measures a clock that the board file vouches for once more, with all cores running: its rate must still be the same.
pub fn verify_vouched(clock: &Clock, defects: &mut Defects) {
    if !TABLE.board.tsc_vouched {
        return;
    }
    let (first, again) = (clock.tsc_hz, measure(clock.timer).unwrap_or_default());
    if first.abs_diff(again) > allowed() {
        defects.add(format_args!(
            "the TSC ran at {first} Hz by the PM timer, and with all cores running at {again} Hz, so it is not the clock of one rate that the board file vouches for; take `vouched` out of [clock], and choose another board"
        ));
    }
}

/// Largest deviation of a measurement, in hertz.
fn allowed() -> u64 {
    let (declared, tolerance) = (TABLE.board.tsc_hz, TABLE.board.tsc_tolerance_ppm);
    (u128::from(declared) * u128::from(tolerance) / 1_000_000) as u64
}

fn read(timer: PmTimer) -> u32 {
    // SAFETY: firmware's FADT gives this port to the PM timer; reading it has no effect.
    unsafe { Port::<u32>::new(timer.port).read() }
}

/// Width of the counter, as a mask: it wraps after 4.7 s, or 20 minutes.
const fn mask(timer: PmTimer) -> u32 {
    if timer.is_32_bits { u32::MAX } else { 0xFF_FFFF }
}

/// Waits for the counter's next step and returns it with the TSC at that instant; `None` when it stands still.
fn edge(timer: PmTimer) -> Option<(u32, u64)> {
    let before = read(timer);
    for _ in 0..PATIENCE {
        let now = read(timer);
        if now != before {
            return Some((now, cpu::tsc()));
        }
    }
    None
}

/// TSC ticks a second, between two steps of the timer about 20 ms apart.
fn measure(timer: PmTimer) -> Option<u64> {
    let (begun, begun_tsc) = edge(timer)?;
    let elapsed = |now: u32| now.wrapping_sub(begun) & mask(timer);
    let mut readings = 0;
    while elapsed(read(timer)) < SPAN {
        readings += 1;
        if readings > READINGS {
            return None;
        }
    }
    let (ended, ended_tsc) = edge(timer)?;
    let ticks = u128::from(ended_tsc.wrapping_sub(begun_tsc));
    // What is no timer may read as it did at the beginning.
    let hz = (ticks * u128::from(PM_TIMER_HZ)).checked_div(elapsed(ended).into())?;
    u64::try_from(hz).ok()
}
