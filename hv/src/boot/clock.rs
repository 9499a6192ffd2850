//! The TSC's frequency, measured against the PM timer and held against the board file.
#![expect(unsafe_code, reason = "reads the PM timer's port")]

use x86_64::instructions::port::Port;

use super::defects::Defects;
use super::firmware::{Firmware, PmTimer};
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
pub fn verify(firmware: &Firmware, defects: &mut Defects) -> Option<Clock> {
    let Some(timer) = firmware.pm_timer else {
        defects.add(format_args!(
            "firmware's FADT names no PM timer at an I/O port, against which the TSC could be measured"
        ));
        return None;
    };
    let Some(tsc_hz) = timer.measure() else {
        defects.add(format_args!(
            "the PM timer at I/O port {:#x} stands still, so the TSC cannot be measured",
            timer.port
        ));
        return None;
    };
    let (declared, tolerance) = (TABLE.board.tsc_hz, u64::from(TABLE.board.tsc_tolerance_ppm));
    let allowed = (u128::from(declared) * u128::from(tolerance) / 1_000_000) as u64;
    if tsc_hz.abs_diff(declared) > allowed {
        defects.add(format_args!(
            "the TSC runs at {tsc_hz} Hz by the PM timer, and the board file declares {declared} Hz within {tolerance} ppm; correct [clock] tsc"
        ));
    }
    Some(Clock { tsc_hz })
}

impl PmTimer {
    fn read(&self) -> u32 {
        // SAFETY: firmware's FADT gives this port to the PM timer; reading it has no effect.
        unsafe { Port::<u32>::new(self.port).read() }
    }

    /// Width of the counter, as a mask: it wraps after 4.7 s, or 20 minutes.
    const fn mask(&self) -> u32 {
        if self.is_32_bits { u32::MAX } else { 0xFF_FFFF }
    }

    /// Waits for the counter's next step and returns it with the TSC at that instant; `None` when it stands still.
    fn edge(&self) -> Option<(u32, u64)> {
        let before = self.read();
        for _ in 0..PATIENCE {
            let now = self.read();
            if now != before {
                return Some((now, cpu::tsc()));
            }
        }
        None
    }

    /// TSC ticks a second, between two steps of the timer about 20 ms apart.
    fn measure(&self) -> Option<u64> {
        let (begun, begun_tsc) = self.edge()?;
        let elapsed = |now: u32| now.wrapping_sub(begun) & self.mask();
        let mut readings = 0;
        while elapsed(self.read()) < SPAN {
            readings += 1;
            if readings > READINGS {
                return None;
            }
        }
        let (ended, ended_tsc) = self.edge()?;
        let ticks = u128::from(ended_tsc.wrapping_sub(begun_tsc));
        u64::try_from(ticks * u128::from(PM_TIMER_HZ) / u128::from(elapsed(ended))).ok()
    }
}
