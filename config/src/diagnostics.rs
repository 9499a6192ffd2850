//! What is wrong, where, and what to do: collected all at once, shown to a person or to a program.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

use crate::compare::Comparisons;
use crate::rules::{Rule, Severity};
use crate::source::{Place, Sources};

/// A place and what is to be said there.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub place: Place,
    pub text: String,
}

/// A broken rule, as the checks find it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub rule: Rule,
    pub message: String,
    pub primary: Option<Label>,
    pub second: Option<Label>,
    pub remedy: String,
}

impl Finding {
    /// A finding without a place; `message` and `remedy` are sentences without a full stop.
    pub fn new(rule: Rule, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { rule, message: message.into(), primary: None, second: None, remedy: remedy.into() }
    }

    /// Where it is wrong.
    pub fn at(mut self, place: Place, text: impl Into<String>) -> Self {
        self.primary = Some(Label { place, text: text.into() });
        self
    }

    /// What it conflicts with.
    pub fn with(mut self, place: Place, text: impl Into<String>) -> Self {
        self.second = Some(Label { place, text: text.into() });
        self
    }
}

/// Collects findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    /// What the search for them cost.
    pub comparisons: Comparisons,
    /// A rule that nobody asks about.
    without: Option<Rule>,
}

impl Findings {
    /// Collects what breaks any rule but this one.
    pub fn without(rule: Rule) -> Self {
        Self { without: Some(rule), ..Self::default() }
    }

    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        if self.without != Some(finding.rule) {
            self.list.push(finding);
        }
    }

    /// Whether anything refuses the system.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.rule.severity() == Severity::Error)
    }

    /// All of them, resolved and in the order of the places.
    pub fn resolve(mut self, sources: &Sources) -> Diagnostics {
        self.list.sort_by_key(|finding| (finding.primary.as_ref().map(|l| l.place), finding.rule));
        Diagnostics { sources: sources.clone(), findings: self.list }
    }
}

/// A place, as a person or a program reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file, relative to the current directory where it lies beneath.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Line of the last character.
    pub end_line: usize,
    /// Column behind the last character.
    pub end_column: usize,
    /// Offset of the first byte in the file.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
    /// What is to be said about the place; may be empty.
    pub label: String,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code, such as `BH0301`.
    pub code: &'static str,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where; absent when a file could not be read at all.
    pub primary: Option<Location>,
    /// What it conflicts with, maybe in another file.
    pub second: Option<Location>,
    /// What to do.
    pub remedy: String,
}

/// All that is wrong with a system.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    sources: Sources,
    findings: Vec<Finding>,
}

impl Diagnostics {
    /// Each of them, in the order of files and lines.
    #[must_use]
    pub fn list(&self) -> Vec<Diagnostic> {
        self.findings.iter().map(|finding| self.resolved(finding)).collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// Every text file that was read, for `cargo::rerun-if-changed`.
    #[must_use]
    pub fn sources(&self) -> Vec<PathBuf> {
        self.sources.paths()
    }

    /// For a terminal: each with the lines it is about. Ends in a line feed unless empty.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for finding in &self.findings {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&renderer.render(&[self.group(finding)]));
            out.push('\n');
        }
        out
    }

    /// For a program: `{"diagnostics": [...]}` with the fields of [`Diagnostic`].
    #[must_use]
    pub fn to_json(&self) -> String {
        let value = serde_json::json!({ "diagnostics": self.list() });
        format!("{value:#}\n")
    }

    fn resolved(&self, finding: &Finding) -> Diagnostic {
        Diagnostic {
            code: finding.rule.code(),
            severity: finding.rule.severity().word(),
            message: finding.message.clone(),
            primary: finding.primary.as_ref().and_then(|label| self.location(label)),
            second: finding.second.as_ref().and_then(|label| self.location(label)),
            remedy: finding.remedy.clone(),
        }
    }

    fn location(&self, label: &Label) -> Option<Location> {
        self.sources.location(label.place, &label.text)
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> Group<'a> {
        let level = match finding.rule.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(finding.message.as_str()).id(finding.rule.code());
        let mut group = Group::with_title(title);
        for snippet in self.snippets(finding) {
            group = group.element(snippet);
        }
        group.element(Level::HELP.message(finding.remedy.as_str()))
    }

    /// One snippet when both places are in one file, else one each.
    fn snippets<'a>(
        &'a self,
        finding: &'a Finding,
    ) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let mut snippets: Vec<Snippet<'a, _>> = Vec::new();
        let labels = [
            (AnnotationKind::Primary, finding.primary.as_ref()),
            (AnnotationKind::Context, finding.second.as_ref()),
        ];
        let mut last = None;
        for (kind, label) in labels {
            let Some(label) = label else { continue };
            let Some(source) = self.sources.get(label.place.file) else {
                continue;
            };
            // Only the lines from the first place to the last of the file: a snippet is searched from its begin, and
            // there may be as many findings as lines.
            let others = labels.iter().filter_map(|(_, label)| *label).map(|label| label.place);
            let places = others.filter(|other| other.file == label.place.file);
            let lines = source.lines_around(places);
            let span = label.place.start - lines.start..label.place.end - lines.start;
            let annotation = kind.span(span).label(label.text.as_str());
            let snippet = match snippets.pop() {
                Some(snippet) if last == Some(label.place.file) => snippet,
                other => {
                    snippets.extend(other);
                    let (line, _) = source.line_column(lines.start);
                    let text = source.text.get(lines).unwrap_or_default();
                    Snippet::source(text).line_start(line).path(source.shown())
                }
            };
            last = Some(label.place.file);
            snippets.push(snippet.annotation(annotation));
        }
        snippets
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
