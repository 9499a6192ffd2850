//! What a histogram of a guest says: mean and percentiles, as far as its samples go.

use hdrhistogram::Histogram as Hdr;

use crate::report::Histogram;

/// A share of the samples, as reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentile {
    /// As keys of reports and limits have it: `p99_9`.
    pub key: &'static str,
    /// As people read it: `p99.9`.
    pub name: &'static str,
    /// One sample in so many lies beyond it.
    pub beyond: u64,
}

/// The percentiles that are told, ascending.
pub const PERCENTILES: [Percentile; 6] = [
    Percentile { key: "median", name: "median", beyond: 2 },
    Percentile { key: "p90", name: "p90", beyond: 10 },
    Percentile { key: "p99", name: "p99", beyond: 100 },
    Percentile { key: "p99_9", name: "p99.9", beyond: 1_000 },
    Percentile { key: "p99_99", name: "p99.99", beyond: 10_000 },
    Percentile { key: "p99_999", name: "p99.999", beyond: 100_000 },
];

impl Percentile {
    /// The percentile of this key.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        PERCENTILES.into_iter().find(|percentile| percentile.key == key)
    }

    /// Whether so many samples support it: at least one lies beyond it. With fewer it would be the largest sample under another name.
    #[must_use]
    pub const fn is_supported(self, samples: u64) -> bool {
        samples >= self.beyond
    }

    const fn quantile(self) -> f64 {
        1.0 - 1.0 / self.beyond as f64
    }
}

/// The distribution of a histogram.
pub struct Distribution {
    values: Hdr<u64>,
    /// Exact, where a bin of the histogram is wider than one.
    max: u64,
}

impl Distribution {
    /// Of the guest's bins; samples beyond its last bin count at its largest value, their upper bound.
    #[must_use]
    pub fn new(histogram: &Histogram) -> Self {
        // Four significant digits: values below 20,000 ticks are exact.
        let mut values = Hdr::new_with_bounds(1, histogram.max.max(2), 4)
            .expect("a highest value of 2 or more and four digits are within the crate's bounds");
        for (value, count) in &histogram.bins {
            values.saturating_record_n(*value, *count);
        }
        let counted: u64 = histogram.bins.iter().map(|bin| bin.1).sum();
        values.saturating_record_n(histogram.max, histogram.count.saturating_sub(counted));
        Self { values, max: histogram.max }
    }

    /// The mean, rounded.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.values.mean().round() as u64
    }

    /// The smallest value that the percentile's share of the samples does not exceed; `None` when there are too few samples.
    #[must_use]
    pub fn at(&self, percentile: Percentile) -> Option<u64> {
        percentile
            .is_supported(self.values.len())
            .then(|| self.values.value_at_quantile(percentile.quantile()).min(self.max))
    }

    /// How many samples exceed `value`.
    #[must_use]
    pub fn above(&self, value: u64) -> u64 {
        let beyond = self.values.iter_recorded().filter(|it| it.value_iterated_to() > value);
        beyond.map(|it| it.count_at_value()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bins: Vec<(u64, u64)>, more: u64, max: u64) -> Distribution {
        let count = bins.iter().map(|bin| bin.1).sum::<u64>() + more;
        Distribution::new(&Histogram { count, max, bins, ..Histogram::default() })
    }

    #[test]
    fn percentiles_are_exact_and_only_those_that_the_samples_support() {
        let ramp = of((0..1000).map(|value| (value, 1)).collect(), 0, 999);
        let at = |key| ramp.at(Percentile::of_key(key).unwrap());
        assert_eq!(ramp.mean(), 500);
        assert_eq!((at("median"), at("p99"), at("p99_9")), (Some(499), Some(989), Some(998)));
        assert_eq!((at("p99_99"), at("p99_999")), (None, None));
        assert_eq!(ramp.above(990), 9);
    }

    #[test]
    fn samples_beyond_the_bins_count_at_the_largest() {
        let few = of(vec![(0, 99_998)], 2, 70_000);
        assert_eq!(few.at(Percentile::of_key("p99_999").unwrap()), Some(70_000));
        assert_eq!(few.above(4_095), 2);
    }

    #[test]
    fn nothing_is_no_percentile() {
        let none = of(vec![], 0, 0);
        assert_eq!((none.at(PERCENTILES[0]), none.mean()), (None, 0));
    }
}
