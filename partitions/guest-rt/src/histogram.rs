//! A histogram of one-tick bins with exact extremes, and its report lines.

use core::fmt;

use bulkhead_table::abi::REPORT_PREFIX;

/// Number of one-tick bins: values from 0 to `BINS - 1`.
pub const BINS: usize = 4096;

/// Counts values, in ticks. Values of [`BINS`] and more are counted together; the extremes are exact in
/// any case. Recording allocates nothing and takes constant time.
#[derive(Clone)]
pub struct Histogram {
    bins: [u32; BINS],
    overflow: u64,
    count: u64,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self { bins: [0; BINS], overflow: 0, count: 0, min: u64::MAX, max: 0 }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        let bin = usize::try_from(value).ok().and_then(|index| self.bins.get_mut(index));
        match bin {
            Some(bin) => *bin = bin.saturating_add(1),
            None => self.overflow += 1,
        }
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Number of values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Number of values that lie beyond the bins.
    #[must_use]
    pub const fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Smallest value; 0 when there is none.
    #[must_use]
    pub const fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// Largest value; 0 when there is none.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that at least `per_mille` thousandths of all values do not exceed; 0 when there
    /// is none. A quantile that lies beyond the bins reads as [`Self::max`], its upper bound.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (value, count) in (0..).zip(self.bins) {
            seen += u64::from(count);
            if seen >= rank {
                return value;
            }
        }
        self.max
    }

    /// Middle value.
    #[must_use]
    pub fn median(&self) -> u64 {
        self.quantile(500)
    }

    /// The report lines (see [`bulkhead_table::abi`]) of this histogram under `name`, which has no spaces.
    /// Values beyond the bins are said in a line `value NAME-overflow N samples`.
    #[must_use]
    pub const fn report<'a>(&'a self, name: &'a str) -> Report<'a> {
        Report { histogram: self, name }
    }
}

/// The report lines of a [`Histogram`]; printed through [`fmt::Display`].
pub struct Report<'a> {
    histogram: &'a Histogram,
    name: &'a str,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histogram, name } = self;
        writeln!(
            out,
            "{REPORT_PREFIX}histogram {name} ticks count={} min={} median={} p99_9={} max={}",
            histogram.count(),
            histogram.min(),
            histogram.median(),
            histogram.quantile(999),
            histogram.max(),
        )?;
        for (value, count) in histogram.bins.iter().enumerate().filter(|(_, count)| **count != 0) {
            writeln!(out, "{REPORT_PREFIX}bin {name} {value} {count}")?;
        }
        if histogram.overflow() != 0 {
            writeln!(out, "{REPORT_PREFIX}value {name}-overflow {} samples", histogram.overflow())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn an_empty_one_reads_zero() {
        let empty = Histogram::new();
        assert_eq!((empty.count(), empty.min(), empty.median(), empty.max()), (0, 0, 0, 0));
        assert_eq!(empty.quantile(999), 0);
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let ramp = of(1..=1000);
        assert_eq!(
            (ramp.min(), ramp.median(), ramp.quantile(999), ramp.max()),
            (1, 500, 999, 1000)
        );
        assert_eq!(ramp.quantile(1000), 1000);
        assert_eq!(ramp.quantile(0), 1);
    }

    #[test]
    fn one_outlier_in_a_thousand_is_not_the_p99_9_but_the_max() {
        let mut histogram = of((0..999).map(|_| 3));
        histogram.record(70);
        assert_eq!((histogram.median(), histogram.quantile(999), histogram.max()), (3, 3, 70));
        histogram.record(71);
        assert_eq!(histogram.quantile(999), 70);
    }

    #[test]
    fn beyond_the_bins_the_extremes_stay_exact() {
        let histogram = of([4095, 4096, 1_000_000]);
        assert_eq!((histogram.overflow(), histogram.min(), histogram.max()), (2, 4095, 1_000_000));
        assert_eq!(histogram.median(), 1_000_000);
    }

    #[test]
    fn report_lines() {
        let text = std::format!("{}", of([3, 3, 5, 9_000]).report("wakeup"));
        assert_eq!(
            text,
            "@bulkhead histogram wakeup ticks count=4 min=3 median=3 p99_9=9000 max=9000\n\
             @bulkhead bin wakeup 3 2\n\
             @bulkhead bin wakeup 5 1\n\
             @bulkhead value wakeup-overflow 1 samples\n"
        );
    }
}
