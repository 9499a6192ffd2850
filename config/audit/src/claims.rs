//! One owner for each: the heart of the audit, the same for memory, ports and pages of a guest.

use bulkhead_table::Range;

use crate::proof::{Party, Proof};
use crate::rules::Rule;

/// A range of something, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// What is claimed.
    pub range: Range,
    /// By whom.
    pub party: Party,
}

impl Claim {
    /// A claim of `party`.
    pub fn new(range: Range, party: Party) -> Self {
        Self { range, party }
    }
}

/// Proves that no two claims share anything; `what` names the kind of thing. A fact for each claim.
///
/// The claims are taken in ascending order. One that begins before the furthest end of those before it
/// shares something with the claim that reaches so far; so each that conflicts is told, with one it conflicts with.
pub(crate) fn apart(proof: &mut Proof, rule: Rule, what: &str, mut claims: Vec<Claim>) {
    claims.retain(|claim| claim.range.size > 0);
    claims.sort_by_key(|claim| (claim.range.start, claim.range.size));
    let mut furthest: Option<Claim> = None;
    for claim in claims {
        let clash = furthest.as_ref().filter(|other| other.range.overlaps(&claim.range));
        proof.fact(rule, clash.is_none(), || {
            let other = clash.unwrap_or(&claim);
            let shared = shared(&other.range, &claim.range);
            let message = format!(
                "{what} {:#x}-{:#x} belongs to {} and to {}",
                shared.start,
                shared.end(),
                other.party,
                claim.party
            );
            (message, vec![other.party.clone(), claim.party.clone()])
        });
        if furthest.as_ref().is_none_or(|other| claim.range.end() > other.range.end()) {
            furthest = Some(claim);
        }
    }
}

fn shared(one: &Range, other: &Range) -> Range {
    let start = one.start.max(other.start);
    Range { start, size: one.end().min(other.end()).saturating_sub(start) }
}

/// Proves that each name or number is there once; `what` names the kind. A fact for each.
pub(crate) fn unique<T: Ord + std::fmt::Display>(
    proof: &mut Proof,
    rule: Rule,
    what: &str,
    all: impl IntoIterator<Item = (T, Party)>,
) {
    let mut seen = std::collections::BTreeMap::new();
    for (each, party) in all {
        let earlier = seen.get(&each).cloned();
        proof.fact(rule, earlier.is_none(), || {
            let parties: Vec<Party> = earlier.into_iter().chain([party.clone()]).collect();
            let names: Vec<String> = parties.iter().map(ToString::to_string).collect();
            (format!("{what} {each} belongs to {}", names.join(" and to ")), parties)
        });
        seen.entry(each).or_insert(party);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(ranges: &[(u64, u64)]) -> (usize, usize) {
        let mut proof = Proof::default();
        let claims = ranges.iter().enumerate().map(|(number, (start, size))| {
            Claim::new(Range { start: *start, size: *size }, Party::thing(number.to_string()))
        });
        apart(&mut proof, Rule::HostPage, "memory", claims.collect());
        let report = proof.close();
        (report.facts, report.faults.len())
    }

    #[test]
    fn neighbours_are_apart_and_one_shared_unit_is_not() {
        assert_eq!(faults(&[(0, 4), (4, 4), (8, 1)]), (3, 0));
        assert_eq!(faults(&[(0, 5), (4, 4), (8, 1)]), (2, 1));
    }

    #[test]
    fn all_inside_a_large_one_are_told() {
        assert_eq!(faults(&[(0, 100), (4, 4), (50, 4), (99, 1)]), (1, 3));
    }

    #[test]
    fn the_end_of_all_numbers_is_no_danger() {
        assert_eq!(faults(&[(u64::MAX - 1, 1), (u64::MAX, u64::MAX)]), (2, 0));
        assert_eq!(faults(&[(u64::MAX - 1, u64::MAX), (u64::MAX - 1, 1)]), (1, 1));
    }
}
