//! What was proven, and what was not: the report of an audit.

use std::fmt;

use serde::Serialize;

use crate::rules::Rule;

/// An owner of something, as a fault names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    /// `partition plc`, `the hypervisor`.
    pub name: String,
    /// Where the system file declares it, `demo.toml:35`; absent for what no line declares.
    pub place: Option<String>,
}

impl Party {
    /// Something that no line of the system file declares.
    pub(crate) fn thing(name: impl Into<String>) -> Self {
        Self { name: name.into(), place: None }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A fact that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Stable code of the rule, such as `AU21`.
    pub code: &'static str,
    /// What must hold.
    pub rule: &'static str,
    /// What is there instead; names the parties.
    pub message: String,
    /// Whom it concerns: both, where two own one thing.
    pub parties: Vec<Party>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault[{}]: {}\n  rule: {}", self.code, self.message, self.rule)
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Facts that hold.
    pub facts: usize,
    /// Partitions of the table.
    pub partitions: usize,
    /// Cores of the table.
    pub cores: usize,
    /// Windows of all cores in all plans.
    pub windows: usize,
    /// Facts that do not hold, in the order of the codes.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether all was proven.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.faults.is_empty()
    }

    /// `132 facts proven over 3 partitions, 2 cores, 3 windows`.
    #[must_use]
    pub fn summary(&self) -> String {
        let proven = format!(
            "{} proven over {}, {}, {}",
            counted(self.facts, "fact"),
            counted(self.partitions, "partition"),
            counted(self.cores, "core"),
            counted(self.windows, "window")
        );
        match self.faults.len() {
            0 => proven,
            faults => format!("{}; {proven}", counted(faults, "fault")),
        }
    }

    /// The report as one JSON object: `proven`, and the fields of [`Report`] and [`Fault`].
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "proven": self.is_proven(),
            "facts": self.facts,
            "partitions": self.partitions,
            "cores": self.cores,
            "windows": self.windows,
            "faults": self.faults,
        })
        .to_string()
    }
}

fn counted(count: usize, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// A proof under way.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    facts: usize,
    faults: Vec<(Rule, Fault)>,
}

impl Proof {
    /// Counts a fact that holds, or keeps what `otherwise` says of one that does not: a sentence, and the parties.
    pub fn fact(
        &mut self,
        rule: Rule,
        holds: bool,
        otherwise: impl FnOnce() -> (String, Vec<Party>),
    ) {
        if holds {
            self.facts += 1;
            return;
        }
        let (message, parties) = otherwise();
        let fault = Fault { code: rule.code(), rule: rule.statement(), message, parties };
        self.faults.push((rule, fault));
    }

    /// The report, without the counts of what there is.
    pub fn close(mut self) -> Report {
        self.faults.sort_by_key(|(rule, _)| *rule);
        let faults = self.faults.into_iter().map(|(_, fault)| fault).collect();
        Report { facts: self.facts, faults, ..Report::default() }
    }
}
