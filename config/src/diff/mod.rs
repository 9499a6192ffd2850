//! What a change of a system means, in words: who gains or loses what. For an auditor, before it goes to a plant.
//!
//! Two proven plans are compared, not two texts: what is written otherwise and means the same is no change.

mod machine;
mod partitions;
mod time;

use std::fmt::Write;

use serde::Serialize;

use crate::diagnostics::Location;
use crate::places::Places;
use crate::plan::Plan;
use crate::source::Place;

/// How much a change concerns who answers for the plant, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gravity {
    /// A partition comes or goes, or may reach more or less: cores, memory, rights.
    Access,
    /// Somebody gets more, less or other time.
    Time,
    /// Something else runs: another image, other arguments.
    Program,
    /// The machine under it is another: board facts, the hypervisor's own resources.
    Machine,
    /// When the system ends by itself.
    End,
    /// Nobody gains or loses: memory lies elsewhere, a name or an order changes.
    Placement,
}

impl Gravity {
    const fn heading(self) -> &'static str {
        match self {
            Self::Access => "Who may reach what",
            Self::Time => "Time",
            Self::Program => "What runs",
            Self::Machine => "The machine",
            Self::End => "The end of the system",
            Self::Placement => "Nobody gains or loses",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How much it matters.
    pub gravity: Gravity,
    /// Whom it concerns: the name of a partition, `housekeeping`, `hypervisor`, `board`, `schedule`, `shutdown`,
    /// `log` or `system`.
    pub subject: String,
    /// What changes; with the subject before it, a sentence.
    pub sentence: String,
    /// The line that said so before; null where none did.
    pub old: Option<Location>,
    /// The line that says so now; null where none does.
    pub new: Option<Location>,
}

/// What lies between two systems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whether the files are the same, byte for byte.
    pub identical: bool,
    /// The changes, the gravest first.
    pub changes: Vec<Change>,
}

/// What changes from `old` to `new`.
#[must_use]
pub fn diff(old: &Plan, new: &Plan) -> Difference {
    let mut both = Both { old: Side::of(old), new: Side::of(new), changes: Vec::new() };
    partitions::compare(&mut both);
    time::compare(&mut both);
    machine::compare(&mut both);
    let mut changes = both.changes;
    // Stable: within a gravity, the order of the files.
    changes.sort_by_key(|change| change.gravity);
    Difference { identical: same_texts(old, new), changes }
}

fn same_texts(old: &Plan, new: &Plan) -> bool {
    let texts = |plan: &Plan| plan.texts.iter().map(|s| s.text.clone()).collect::<Vec<_>>();
    texts(old) == texts(new)
}

impl Difference {
    /// Whether nothing changes for anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// For a terminal: under a heading for each gravity, subject, change and lines. Ends in a line feed.
    #[must_use]
    pub fn render(&self) -> String {
        if self.is_empty() {
            return match self.identical {
                true => "Nothing changes: the files are the same, byte for byte.\n".to_owned(),
                false => {
                    "Nothing changes: only comments, formatting or the way of writing differ.\n"
                        .to_owned()
                }
            };
        }
        let mut out = String::new();
        let width = self.changes.iter().map(|change| change.subject.len()).max().unwrap_or(0);
        for group in self.changes.chunk_by(|one, next| one.gravity == next.gravity) {
            let heading = group.first().map_or("", |change| change.gravity.heading());
            let gap = if out.is_empty() { "" } else { "\n" };
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{gap}{heading}");
            for change in group {
                let _ = writeln!(out, "  {:width$}  {}", change.subject, change.sentence);
                let _ = writeln!(out, "  {:width$}    {}", "", change.lines());
            }
        }
        out
    }

    /// For a program: `identical`, and `changes` with the fields of [`Change`].
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }
}

impl Change {
    /// `old.toml:12 -> new.toml:14`.
    fn lines(&self) -> String {
        let shown = |location: &Option<Location>, none: &str| {
            location
                .as_ref()
                .map_or_else(|| none.to_owned(), |at| format!("{}:{}", at.file, at.line))
        };
        format!("{} -> {}", shown(&self.old, "no line"), shown(&self.new, "no line"))
    }
}

/// One of the two systems.
struct Side<'p> {
    plan: &'p Plan,
    places: Places<'p>,
}

impl<'p> Side<'p> {
    fn of(plan: &'p Plan) -> Self {
        Self { plan, places: Places::of(&plan.texts) }
    }

    /// Where the first of these keys is written.
    fn place(&self, paths: &[&str]) -> Option<Place> {
        paths.iter().find_map(|path| self.places.value(path))
    }

    fn location(&self, place: Option<Place>) -> Option<Location> {
        self.plan.texts.location(place?, "")
    }
}

/// The two systems, and what was found to differ.
struct Both<'p> {
    old: Side<'p>,
    new: Side<'p>,
    changes: Vec<Change>,
}

impl Both<'_> {
    /// A change whose lines are those of the first of `paths` that a file has.
    fn tell(&mut self, gravity: Gravity, subject: &str, sentence: String, paths: &[&str]) {
        let (old, new) = (self.old.place(paths), self.new.place(paths));
        self.tell_at(gravity, subject, sentence, (old, new));
    }

    fn tell_at(
        &mut self,
        gravity: Gravity,
        subject: &str,
        sentence: String,
        (old, new): (Option<Place>, Option<Place>),
    ) {
        let (old, new) = (self.old.location(old), self.new.location(new));
        let subject = subject.to_owned();
        self.changes.push(Change { gravity, subject, sentence, old, new });
    }
}
