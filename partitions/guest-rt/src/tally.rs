//! Counts what went wrong, by name.

use core::fmt;

use bulkhead_table::abi::REPORT_PREFIX;

/// Names that are told apart; what comes with others is counted in the sum only.
const NAMES: usize = 64;

/// How often each of some named things happened.
#[derive(Clone, Debug)]
pub struct Tally {
    names: [(&'static str, u64); NAMES],
    sum: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { names: [("", 0); NAMES], sum: 0 }
    }

    /// Counts one. The name is not empty and has no spaces.
    pub fn note(&mut self, name: &'static str) {
        self.sum += 1;
        let place = self.names.iter_mut().find(|(known, _)| known.is_empty() || *known == name);
        if let Some((known, count)) = place {
            *known = name;
            *count += 1;
        }
    }

    /// Counts one unless it `holds`.
    pub fn must(&mut self, holds: bool, name: &'static str) {
        if !holds {
            self.note(name);
        }
    }

    /// How many in all.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The report lines: `value WHAT SUM times`, and `value WHAT:NAME COUNT times` for each name. `what` has no spaces.
    #[must_use]
    pub const fn report<'a>(&'a self, what: &'a str) -> Report<'a> {
        Report { tally: self, what }
    }
}

/// The report lines of a [`Tally`]; printed through [`fmt::Display`].
pub struct Report<'a> {
    tally: &'a Tally,
    what: &'a str,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, what } = self;
        writeln!(out, "{REPORT_PREFIX}value {what} {} times", tally.sum)?;
        for (name, count) in tally.names.iter().filter(|(name, _)| !name.is_empty()) {
            writeln!(out, "{REPORT_PREFIX}value {what}:{name} {count} times")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_and_told() {
        let mut tally = Tally::new();
        tally.note("cr2");
        tally.must(true, "dr6");
        tally.must(false, "xmm");
        tally.note("cr2");
        assert_eq!(
            std::format!("{}", tally.report("mismatches")),
            "@bulkhead value mismatches 3 times\n\
             @bulkhead value mismatches:cr2 2 times\n\
             @bulkhead value mismatches:xmm 1 times\n"
        );
    }

    #[test]
    fn more_names_than_places_are_in_the_sum() {
        let mut tally = Tally::new();
        let names: [std::string::String; NAMES + 5] =
            core::array::from_fn(|number| std::format!("n{number}"));
        for name in names {
            tally.note(name.leak());
        }
        assert_eq!(tally.sum(), NAMES as u64 + 5);
    }
}
