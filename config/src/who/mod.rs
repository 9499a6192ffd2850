//! Who owns an address, a port, an interrupt, a device, a core or an instant, and which line says so.

mod query;
mod reply;

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str,
};
use bulkhead_table::PartitionId;
use serde_json::json;

use crate::diagnostics::{Label, Location};
use crate::plan::Plan;
use crate::source::Sources;

pub use query::FORMS;

/// A question that cannot be answered as it is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// What is wrong with it.
    pub cause: String,
    /// How to put it.
    pub remedy: String,
}

impl QueryError {
    fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

/// Whether somebody has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A partition has it.
    Partition,
    /// The hypervisor keeps it for itself, or for draining the logs.
    Hypervisor,
    /// The board has it, and nobody is given it.
    Nobody,
    /// The board does not have it, as far as its file says.
    Outside,
}

impl Verdict {
    /// As programs read it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Hypervisor => "hypervisor",
            Self::Nobody => "nobody",
            Self::Outside => "outside",
        }
    }
}

/// What is said about one thing that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub verdict: Verdict,
    /// The partition that has it.
    pub owner: Option<String>,
    /// The answer in one sentence, without a full stop.
    pub sentence: String,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// The lines that say so.
    pub labels: Vec<Label>,
}

/// The answer: one reply, or one for each core and plan that an instant falls on.
#[derive(Clone, Debug)]
pub struct Answer {
    sources: Sources,
    query: String,
    replies: Vec<Reply>,
}

/// What a partition finds from one guest-physical address to another, and the line that says so. Kept with an image, so that the log can
/// say it of an address that a guest touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// First address. Of the last one, where the memory ends.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Whether it is something of the partition's.
    pub verdict: Verdict,
    /// What is to be known of it, as `bulkhead who` says it.
    pub note: String,
    /// `file:line` of the key that rules it; `None` where the file leaves it to the default.
    pub line: Option<String>,
}

impl Plan {
    /// All that a partition finds in its guest-physical memory, ascending. The last one stands for every address that no other one holds.
    #[must_use]
    pub fn found_by(&self, id: PartitionId) -> Vec<Found> {
        let Some(partition) = self.partitions.get(usize::from(id)) else {
            return Vec::new();
        };
        let memory = partition.regions.iter().map(|region| (region.guest, region.size));
        let pages = partition.schedule.iter().map(|pages| (pages.start, pages.size));
        let mut found: Vec<Found> =
            memory.chain(pages).map(|(start, size)| self.found(id, start, start + size)).collect();
        found.sort_by_key(|it| it.start);
        let end = partition.regions.last().map_or(0, |last| last.guest + last.size);
        let outside = found.last().map_or(0, |last| last.end);
        found.push(Found { start: end, ..self.found(id, outside, u64::MAX) });
        found
    }

    fn found(&self, id: PartitionId, start: u64, end: u64) -> Found {
        let reply = reply::replies(self, query::Query::Guest(id, start)).into_iter().next();
        let (verdict, note) = reply.as_ref().map_or((Verdict::Nobody, String::new()), |reply| {
            (reply.verdict, reply.notes.first().cloned().unwrap_or_default())
        });
        let label = reply.as_ref().and_then(|reply| reply.labels.first());
        let location = label.and_then(|label| self.texts.location(label.place, &label.text));
        let line = location.map(|at| format!("{}:{}", at.file, at.line));
        Found { start, end, verdict, note, line }
    }

    /// Who owns what `query` names, in one of the [`FORMS`].
    ///
    /// # Errors
    /// The question is not understood, or names a partition or a plan that is not there.
    pub fn who(&self, query: &str) -> Result<Answer, QueryError> {
        let replies = reply::replies(self, query::Query::parse(query, self)?);
        Ok(Answer { sources: self.texts.clone(), query: query.trim().to_owned(), replies })
    }
}

impl Answer {
    /// For a terminal: each reply with the lines that say so. Ends in a line feed.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let groups = self.replies.iter().map(|reply| renderer.render(&[self.group(reply)]));
        groups.collect::<Vec<_>>().join("\n\n") + "\n"
    }

    /// For a program: `query` and `replies`, each with `verdict`, `owner`, `sentence`, `notes` and `places`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let replies: Vec<_> = self.replies.iter().map(|reply| self.reply_json(reply)).collect();
        format!("{:#}\n", json!({ "query": self.query, "replies": replies }))
    }

    fn reply_json(&self, reply: &Reply) -> serde_json::Value {
        let location = |label: &Label| self.sources.location(label.place, &label.text);
        let places: Vec<Location> = reply.labels.iter().filter_map(location).collect();
        json!({
            "verdict": reply.verdict.word(),
            "owner": reply.owner,
            "sentence": reply.sentence,
            "notes": reply.notes,
            "places": places,
        })
    }

    fn group<'a>(&'a self, reply: &'a Reply) -> Group<'a> {
        let title = Level::INFO.with_name(Some("who")).primary_title(reply.sentence.as_str());
        let mut group = Group::with_title(title);
        for snippet in self.snippets(reply) {
            group = group.element(snippet);
        }
        for note in &reply.notes {
            group = group.element(Level::NOTE.message(normalize_untrusted_str(note)));
        }
        group
    }

    /// One snippet a file, in the order in which the files are first named.
    fn snippets<'a>(&'a self, reply: &'a Reply) -> Vec<Snippet<'a, Annotation<'a>>> {
        let mut files = Vec::new();
        for label in &reply.labels {
            if !files.contains(&label.place.file) {
                files.push(label.place.file);
            }
        }
        let snippet = |file| {
            let source = self.sources.get(file)?;
            let labels = reply.labels.iter().filter(move |label| label.place.file == file);
            let annotations = labels.map(|label| {
                let span = label.place.start..label.place.end;
                AnnotationKind::Primary.span(span).label(label.text.as_str())
            });
            Some(
                Snippet::source(source.text.as_str()).path(source.shown()).annotations(annotations),
            )
        };
        files.into_iter().filter_map(snippet).collect()
    }
}
