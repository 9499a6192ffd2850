//! What is left out of a board file, gathered by reason: a person reads one sentence for each reason.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

/// Subjects that a sentence names; of the others it gives the number.
const NAMED: usize = 4;

/// Notes about what was left out.
#[derive(Default)]
pub(crate) struct LeftOut {
    /// Reason and subjects, in the order in which the reasons were met.
    reasons: Vec<(String, Vec<String>)>,
}

impl LeftOut {
    /// Adds a subject. `reason` goes on after "is left out: ".
    pub fn add(&mut self, subject: impl Display, reason: impl Into<String>) {
        let (subject, reason) = (subject.to_string(), reason.into());
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, subjects)) => subjects.push(subject),
            None => self.reasons.push((reason, alloc::vec![subject])),
        }
    }

    /// A sentence for each reason, without its full stop.
    pub fn tell(self, notes: &mut Vec<String>) {
        for (reason, subjects) in self.reasons {
            let (named, others) = subjects.split_at(subjects.len().min(NAMED));
            let mut list = named.join(", ");
            if !others.is_empty() {
                list += &format!(" and {} others", others.len());
            }
            let verb = if subjects.len() == 1 { "is" } else { "are" };
            notes.push(format!("{list} {verb} left out: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_with_its_subjects() {
        let mut left = LeftOut::default();
        left.add("a", "it is broken");
        (0..6).for_each(|number| left.add(number, "it is a number"));
        let mut notes = Vec::new();
        left.tell(&mut notes);
        let wanted =
            ["a is left out: it is broken", "0, 1, 2, 3 and 2 others are left out: it is a number"];
        assert_eq!(notes, wanted);
    }
}
