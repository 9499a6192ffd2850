//! Measures the time-stamp counter against the PM timer.

use alloc::string::String;
use alloc::vec::Vec;

use bulkhead_board::acpi::{self, PmTimer};
use guest_rt::probe::physical::port_in_32;
use guest_rt::tsc;

/// ACPI 4.8.3.3.
const PM_TIMER_HZ: u64 = 3_579_545;
/// PM timer ticks of one measurement, about 200 ms: an error of one tick at each end is 3 ppm.
const SPAN: u32 = 715_909;
/// Readings without change after which the timer is taken for dead.
const PATIENCE: u32 = 100_000;
/// Readings of one measurement at most: a timer this slow is not a PM timer.
const READINGS: u32 = 500_000_000;

/// Hertz; `None`, with a note, where it cannot be measured.
pub fn measure(tables: &[Vec<u8>], notes: &mut Vec<String>) -> Option<u64> {
    let Some(timer) = acpi::find(tables, b"FACP").and_then(acpi::pm_timer) else {
        notes.push("no PM timer at an I/O port, against which the TSC could be measured".into());
        return None;
    };
    let hz = measure_by(timer);
    if hz.is_none() {
        notes.push("the PM timer stands still, so the TSC could not be measured".into());
    }
    hz
}

fn measure_by(timer: PmTimer) -> Option<u64> {
    let mask = if timer.bits == 32 { u32::MAX } else { 0xFF_FFFF };
    let (begun, begun_tsc) = edge(timer)?;
    let elapsed = |now: u32| now.wrapping_sub(begun) & mask;
    let mut readings = 0;
    while elapsed(port_in_32(timer.port)) < SPAN {
        readings += 1;
        if readings > READINGS {
            return None;
        }
    }
    let (ended, ended_tsc) = edge(timer)?;
    let ticks = u128::from(ended_tsc.wrapping_sub(begun_tsc));
    u64::try_from(ticks * u128::from(PM_TIMER_HZ) / u128::from(elapsed(ended))).ok()
}

/// Waits for the timer's next step and returns it with the TSC at that instant.
fn edge(timer: PmTimer) -> Option<(u32, u64)> {
    let before = port_in_32(timer.port);
    (0..PATIENCE).find_map(|_| {
        let now = port_in_32(timer.port);
        (now != before).then(|| (now, tsc()))
    })
}
