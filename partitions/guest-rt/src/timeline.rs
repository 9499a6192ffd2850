//! How a measurement went over time: the extremes of each slice of it, and when the largest value came.

use core::fmt;

use bulkhead_table::abi::REPORT_PREFIX;

/// Slices into which a measurement is cut at most.
pub const SLICES: u64 = 60;

/// Extremes over time of a known number of samples. Recording takes constant time.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Samples of one slice.
    width: u64,
    samples: u64,
    /// TSC of the first sample of each slice, its smallest and its largest value.
    slices: [(u64, u64, u64); SLICES as usize],
    /// The largest value and its TSC.
    worst: (u64, u64),
}

impl Timeline {
    /// For so many samples; later ones count to the last slice.
    #[must_use]
    pub const fn new(samples: u64) -> Self {
        let width = samples.div_ceil(SLICES);
        Self {
            width: if width == 0 { 1 } else { width },
            samples: 0,
            slices: [(0, u64::MAX, 0); SLICES as usize],
            worst: (0, 0),
        }
    }

    /// Takes the next sample: `value`, which came at `tsc`.
    pub fn record(&mut self, value: u64, tsc: u64) {
        let slice = (self.samples / self.width).min(SLICES - 1);
        if let Some((since, least, most)) = self.slices.get_mut(slice as usize) {
            if *least > *most {
                *since = tsc;
            }
            *least = value.min(*least);
            *most = value.max(*most);
        }
        if self.samples == 0 || value > self.worst.0 {
            self.worst = (value, tsc);
        }
        self.samples += 1;
    }

    /// The report lines (see [`bulkhead_table::abi`]) of the histogram `name`, which has been reported before.
    #[must_use]
    pub const fn report<'a>(&'a self, name: &'a str) -> Report<'a> {
        Report { timeline: self, name }
    }
}

/// The report lines of a [`Timeline`]; printed through [`fmt::Display`].
pub struct Report<'a> {
    timeline: &'a Timeline,
    name: &'a str,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, name } = self;
        let seen = timeline.slices.iter().filter(|(_, least, most)| least <= most);
        for (since, least, most) in seen {
            writeln!(out, "{REPORT_PREFIX}slice {name} {since} {least} {most}")?;
        }
        let (value, tsc) = timeline.worst;
        writeln!(out, "{REPORT_PREFIX}worst {name} {value} {tsc}")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn slices_hold_their_extremes_and_the_worst_its_time() {
        let mut timeline = Timeline::new(120);
        for sample in 0..120 {
            timeline.record(sample % 7, 1000 + sample);
        }
        let text = timeline.report("wakeup").to_string();
        let lines: std::vec::Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 61);
        assert_eq!(lines[0], "@bulkhead slice wakeup 1000 0 1");
        assert_eq!(lines[3], "@bulkhead slice wakeup 1006 0 6");
        assert_eq!(lines[60], "@bulkhead worst wakeup 6 1006");
    }

    #[test]
    fn more_samples_than_were_said_count_to_the_last_slice() {
        let mut timeline = Timeline::new(0);
        (0..100).for_each(|value| timeline.record(value, value));
        let text = timeline.report("x").to_string();
        assert!(text.contains("slice x 59 59 99\n"), "{text}");
    }
}
