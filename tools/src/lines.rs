//! Reads the report lines that guests print (`@bulkhead ...`, see `bulkhead_table::abi`).

use std::collections::BTreeMap;

use bulkhead_table::abi::REPORT_PREFIX;

use crate::report::{Histogram, Value, Verdict};

/// What one guest has reported so far.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Histograms in the order of their first line.
    pub histograms: Vec<Histogram>,
    /// Figures in order.
    pub values: Vec<Value>,
    /// The verdict, once given.
    pub verdict: Option<Verdict>,
    /// Report lines that do not read as one.
    pub defects: Vec<String>,
}

impl Measured {
    /// Takes a console line; returns whether it was a report line.
    pub fn line(&mut self, line: &str) -> bool {
        let Some(rest) = line.trim_start().strip_prefix(REPORT_PREFIX) else {
            return false;
        };
        if self.read(rest).is_none() {
            self.defects.push(line.to_string());
        }
        true
    }

    fn read(&mut self, rest: &str) -> Option<()> {
        let (kind, rest) = rest.split_once(' ')?;
        match kind {
            "histogram" => self.histograms.push(histogram(rest)?),
            "bin" => self.bin(rest)?,
            "slice" => self.slice(rest)?,
            "worst" => self.worst(rest)?,
            "value" => self.values.push(value(rest)?),
            "verdict" => return self.verdict(verdict(rest)?),
            _ => return None,
        }
        Some(())
    }

    /// A guest judges itself once. Of two verdicts the one that fails stays, and the second is a defect.
    fn verdict(&mut self, verdict: Verdict) -> Option<()> {
        let is_first = self.verdict.is_none();
        if is_first || !verdict.pass {
            self.verdict = Some(verdict);
        }
        is_first.then_some(())
    }

    fn bin(&mut self, rest: &str) -> Option<()> {
        let [name, value, count] = words(rest)?;
        let (value, count) = (value.parse().ok()?, count.parse().ok()?);
        self.latest(name)?.bins.push((value, count));
        Some(())
    }

    fn slice(&mut self, rest: &str) -> Option<()> {
        let [name, since, least, most] = words(rest)?;
        let slice = (since.parse().ok()?, least.parse().ok()?, most.parse().ok()?);
        self.latest(name)?.slices.push(slice);
        Some(())
    }

    fn worst(&mut self, rest: &str) -> Option<()> {
        let [name, value, tsc] = words(rest)?;
        let (value, tsc): (u64, u64) = (value.parse().ok()?, tsc.parse().ok()?);
        let histogram = self.latest(name)?;
        histogram.worst_at = (value == histogram.max).then_some(tsc);
        Some(())
    }

    /// The histogram of this name that was reported last.
    fn latest(&mut self, name: &str) -> Option<&mut Histogram> {
        self.histograms.iter_mut().rfind(|h| h.name == name)
    }
}

fn histogram(rest: &str) -> Option<Histogram> {
    let mut words = rest.split_whitespace();
    let (name, unit) = (words.next()?.to_string(), words.next()?.to_string());
    let figures: BTreeMap<&str, u64> = words
        .map(|word| word.split_once('=').and_then(|(key, text)| Some((key, text.parse().ok()?))))
        .collect::<Option<_>>()?;
    let figure = |key: &str| figures.get(key).copied();
    Some(Histogram {
        name,
        unit,
        count: figure("count")?,
        min: figure("min")?,
        median: figure("median")?,
        p99_9: figure("p99_9")?,
        max: figure("max")?,
        bins: vec![],
        worst_at: None,
        slices: vec![],
    })
}

fn value(rest: &str) -> Option<Value> {
    let [name, value, unit] = words(rest)?;
    Some(Value { name: name.into(), value: value.parse().ok()?, unit: unit.into() })
}

fn verdict(rest: &str) -> Option<Verdict> {
    let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let pass = match word {
        "pass" => true,
        "fail" => false,
        _ => return None,
    };
    Some(Verdict { pass, text: text.trim().to_string() })
}

fn words<const N: usize>(rest: &str) -> Option<[&str; N]> {
    rest.split_whitespace().collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_report_is_read() {
        let mut measured = Measured::default();
        for line in [
            "@bulkhead histogram latency ticks count=3 min=4 median=5 p99_9=9 max=9",
            "@bulkhead bin latency 4 1",
            "@bulkhead bin latency 5 1",
            "@bulkhead bin latency 9 1",
            "@bulkhead slice latency 1000 4 5",
            "@bulkhead worst latency 9 1200",
            "@bulkhead value cpuid 97 ticks",
            "@bulkhead verdict pass all in time",
        ] {
            assert!(measured.line(line));
        }
        assert!(!measured.line("hello"));
        let histogram = &measured.histograms[0];
        assert_eq!((histogram.count, histogram.max), (3, 9));
        assert_eq!(histogram.bins, [(4, 1), (5, 1), (9, 1)]);
        assert_eq!((&histogram.slices[..], histogram.worst_at), (&[(1000, 4, 5)][..], Some(1200)));
        assert_eq!(measured.values[0].value, 97);
        assert_eq!(measured.verdict, Some(Verdict { pass: true, text: "all in time".into() }));
        assert!(measured.defects.is_empty());
    }

    #[test]
    fn a_verdict_that_failed_stays() {
        for (first, second) in [("pass", "fail"), ("fail", "pass")] {
            let mut measured = Measured::default();
            measured.line(&format!("@bulkhead verdict {first} one"));
            measured.line(&format!("@bulkhead verdict {second} two"));
            assert!(!measured.verdict.unwrap().pass);
            assert_eq!(measured.defects.len(), 1);
        }
    }

    #[test]
    fn defects_are_kept() {
        let mut measured = Measured::default();
        for line in [
            "@bulkhead bin nowhere 1 1",
            "@bulkhead verdict maybe",
            "@bulkhead histogram x ticks count=1",
            "@bulkhead value a b c",
            "@bulkhead news of a later version",
        ] {
            assert!(measured.line(line));
        }
        assert_eq!(measured.defects.len(), 5);
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "@bulkhead (histogram|bin|slice|worst|value|verdict|x) .{0,60}") {
            prop_assert!(Measured::default().line(&line));
        }
    }
}
