//! Comparisons between claims, counted: rules about pairs go through here, and a test shows that none of them
//! looks at every pair.

/// How often one claim was held against another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparisons(u64);

impl Comparisons {
    /// So many were made.
    pub const fn made(self) -> u64 {
        self.0
    }

    /// Counts comparisons that a check makes by itself.
    pub const fn add(&mut self, count: usize) {
        self.0 += count as u64;
    }

    /// Sorts ascending by `key`; what is equal keeps its order.
    pub fn sort<T, K: Ord>(&mut self, items: &mut [T], key: impl Fn(&T) -> K) {
        items.sort_by(|one, other| {
            self.0 += 1;
            key(one).cmp(&key(other))
        });
    }

    /// Each item whose key an earlier one has, behind the first that has it. Sorts: n log n comparisons.
    pub fn repeated<'i, T, K: Ord>(
        &mut self,
        items: impl IntoIterator<Item = &'i T>,
        key: impl Fn(&'i T) -> K,
    ) -> Vec<(&'i T, &'i T)> {
        let mut sorted: Vec<&T> = items.into_iter().collect();
        self.sort(&mut sorted, |item| key(*item));
        self.add(sorted.len());
        sorted
            .chunk_by(|one, other| key(one) == key(other))
            .filter_map(<[&T]>::split_first)
            .flat_map(|(first, again)| again.iter().map(move |again| (*first, *again)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repetition_names_the_first() {
        let items = [(3, 'a'), (1, 'b'), (3, 'c'), (2, 'd'), (3, 'e')];
        let mut comparisons = Comparisons::default();
        let pairs = comparisons.repeated(&items, |item| item.0);
        assert_eq!(pairs, [(&(3, 'a'), &(3, 'c')), (&(3, 'a'), &(3, 'e'))]);
        assert!(comparisons.made() >= 5);
    }
}
