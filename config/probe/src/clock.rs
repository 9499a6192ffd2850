//! The time-stamp counter: what was measured, what CPUID claims, and what a board file should say.

use alloc::format;
use alloc::string::String;

use crate::facts::Core;

/// Frequencies that a person reads are tried from the roundest on.
const ROUND: [u64; 6] = [100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000];

/// A round figure this near to what was measured is taken for what the maker meant, in parts per million: a
/// measurement against the PM timer is no better, since its own crystal is not.
const NEAR_PPM: u64 = 100;

/// Frequencies that a board file may give its time-stamp counter, in hertz.
pub const POSSIBLE: core::ops::RangeInclusive<u64> = 1_000_000..=100_000_000_000;

/// The time-stamp counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// As it was measured, in hertz.
    pub measured: u64,
    /// For the board file, in hertz.
    pub written: u64,
    /// Why that, as comments.
    pub reason: String,
}

impl Clock {
    /// What the board file should say of a counter that was measured at this frequency on this core; `None` for a frequency that no counter
    /// has.
    #[must_use]
    pub fn conclude(measured: u64, core: &Core) -> Option<Self> {
        if !POSSIBLE.contains(&measured) {
            return None;
        }
        let claimed = claimed(core);
        let near = |hz: u64| hz.abs_diff(measured) <= measured / 1_000_000 * NEAR_PPM;
        let (written, why) = match claimed {
            Some(hz) if near(hz) && hz.is_multiple_of(1_000) && POSSIBLE.contains(&hz) => {
                (hz, "it is what CPUID.15H says")
            }
            _ => (
                round(measured),
                "the roundest figure within 100 ppm, so that most times are whole ticks",
            ),
        };
        let claim = match claimed {
            Some(hz) if near(hz) => format!("CPUID.15H claims {hz} Hz, which agrees."),
            Some(hz) => format!("CPUID.15H claims {hz} Hz, which is wrong here."),
            None => String::from("CPUID.15H claims nothing."),
        };
        Some(Self {
            measured,
            written,
            reason: format!("Measured: {measured} Hz. Written is {why}.\n{claim}"),
        })
    }

    /// The written frequency with its unit.
    #[must_use]
    pub fn text(&self) -> String {
        for (unit, name) in [(1_000_000_000, "GHz"), (1_000_000, "MHz"), (1_000, "kHz")] {
            let (whole, rest) = (self.written / unit, self.written % unit);
            if whole > 0 && rest.is_multiple_of(unit / 1_000) {
                let fraction = format!("{:03}", rest / (unit / 1_000));
                let fraction = fraction.trim_end_matches('0');
                let point = if fraction.is_empty() { "" } else { "." };
                return format!("{whole}{point}{fraction} {name}");
            }
        }
        format!("{} Hz", self.written)
    }

    /// A duration in the board file's units: microseconds or nanoseconds where that is a whole number of ticks.
    #[must_use]
    pub fn duration(&self, nanoseconds: u64) -> String {
        let exact = u128::from(self.written) * u128::from(nanoseconds);
        match (exact.is_multiple_of(1_000_000_000), nanoseconds.is_multiple_of(1_000)) {
            (true, true) => format!("{} us", nanoseconds / 1_000),
            (true, false) => format!("{nanoseconds} ns"),
            _ => format!("{} ticks", exact.div_ceil(1_000_000_000)),
        }
    }
}

fn round(measured: u64) -> u64 {
    let nearest = |unit: u64| measured.saturating_add(unit / 2) / unit * unit;
    let near = |hz: &u64| {
        POSSIBLE.contains(hz) && hz.abs_diff(measured) <= measured / 1_000_000 * NEAR_PPM
    };
    ROUND.into_iter().map(nearest).find(near).unwrap_or(measured)
}

/// The frequency that CPUID claims: leaf 0x15 with its crystal, or with the base frequency of leaf 0x16 where the
/// crystal is not told. SDM 3B 19.7.3.
#[must_use]
pub fn claimed(core: &Core) -> Option<u64> {
    let [denominator, numerator, crystal, _] = core.leaf(0x15, 0).map(u64::from);
    if denominator == 0 || numerator == 0 {
        return None;
    }
    let base_mhz = u64::from(core.leaf(0x16, 0)[0] & 0xFFFF);
    match (crystal, base_mhz) {
        (0, 0) => None,
        (0, mhz) => Some(mhz * 1_000_000),
        _ => Some(crystal * numerator / denominator),
    }
}
