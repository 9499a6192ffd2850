//! Parses one file as TOML, and tells what is wrong with it in the language's own words.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::DeTable;

use crate::diagnostics::{Finding, Findings};
use crate::reader::shorten;
use crate::rules::Rule;
use crate::source::{FileId, Place};

/// Parses; reports every syntax error and returns `None` if there is one. What is given twice is reported too, and the
/// first of it counts, so that the rest of the file is looked at.
pub(crate) fn parse<'t>(
    file: FileId,
    text: &'t str,
    findings: &mut Findings,
) -> Option<DeTable<'t>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    // What follows a table header that is given twice collides key by key: told once.
    let mut twice: Range<usize> = 0..0;
    // And so does what follows a slip on its line.
    let mut slips = Slips::default();
    let mut duplicates = 0;
    for error in errors {
        let span = visible(text, error.span().unwrap_or(0..0));
        if !error.message().starts_with("duplicate key") {
            if slips.is_next(text, span.start) {
                findings.push(syntax_finding(file, text, span, error.message()));
            }
            continue;
        }
        if twice.contains(&span.start) {
            continue;
        }
        if let Some((header, _)) = header_of(text, span.start) {
            twice = header.start..table_end(text, header.end);
        }
        if let Some(finding) = other_brackets(file, text, document.get_ref(), span.start) {
            // Which of the two the document holds now is nobody's wish.
            findings.push(finding);
            slips.count += 1;
        } else if duplicates < MOST_DUPLICATES {
            findings.push(duplicate_finding(file, text, document.get_ref(), span));
            duplicates += 1;
        }
    }
    (slips.count == 0).then(|| document.into_inner())
}

/// Most slips that are told of one file: with more it is no TOML at all.
const MOST_SLIPS: usize = 20;

/// Most keys and headers that are told to be there twice: with more, the file was pasted into itself.
const MOST_DUPLICATES: usize = 100;

/// The syntax errors of a file: one of each line. The parser does not tell them in the order of the lines.
#[derive(Default)]
struct Slips {
    count: usize,
    /// Where the lines begin that have one.
    lines: BTreeSet<usize>,
}

impl Slips {
    /// Counts a slip at this byte, and says whether it is to be told.
    fn is_next(&mut self, text: &str, at: usize) -> bool {
        let line = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
        if !self.lines.insert(line) {
            return false;
        }
        self.count += 1;
        self.count <= MOST_SLIPS
    }
}

fn syntax_finding(file: FileId, text: &str, span: Range<usize>, message: &str) -> Finding {
    let written = shorten(text.get(span.clone()).unwrap_or_default());
    let remedy = if message.starts_with("string values must be quoted") {
        format!(
            "write it in straight quotes, as \"{}\"",
            written.trim_matches(['“', '”', '„', '\''])
        )
    } else if message.starts_with("carriage return must be followed") {
        "save the file with the line ends of Linux or of Windows".to_owned()
    } else {
        "mend the line; the rest of the file is looked at once it can be read".to_owned()
    };
    Finding::new(Rule::Syntax, format!("this is not TOML: {message}"), remedy)
        .at(Place::new(file, span), "")
}

fn duplicate_finding(
    file: FileId,
    text: &str,
    document: &DeTable<'_>,
    span: Range<usize>,
) -> Finding {
    let name = text.get(span.clone()).unwrap_or_default();
    let (again, first) = match header_of(text, span.start) {
        Some((header, first)) => (header, first),
        None => (span.clone(), first_key(document, name, span.start)),
    };
    let finding = Finding::new(
        Rule::DuplicateName,
        format!("`{}` is given twice", shorten(name)),
        "take one of them out, or give it another name",
    )
    .at(Place::new(file, again), "again here");
    match first {
        Some(first) => finding.with(Place::new(file, first), "first here"),
        None => finding,
    }
}

/// What is wrong where the byte stands in a header with single brackets for what is a list before it, or the other way
/// round.
fn other_brackets(file: FileId, text: &str, document: &DeTable<'_>, at: usize) -> Option<Finding> {
    let (header, None) = header_of(text, at)? else { return None };
    let line = text.get(header.clone())?;
    let is_list = line.starts_with("[[");
    let path = line.trim_start_matches('[').split(']').next()?.trim();
    let other = if is_list { format!("[{path}]") } else { format!("[[{path}]]") };
    let before = text.get(..header.start)?;
    let first = match before.find(&other) {
        Some(start) => start..start + other.len(),
        None if is_list => document.get_key_value(path)?.0.span(),
        None => return None,
    };
    let (what, remedy) = if is_list {
        (
            "a list of sections, and before one",
            "write it with single brackets, as the other is; or take it out".to_owned(),
        )
    } else {
        (
            "one section, and before a list of them",
            format!("write it with double brackets: `[[{path}]]`"),
        )
    };
    let message = format!("`{}` is here {what}", shorten(path));
    let finding = Finding::new(Rule::DuplicateName, message, remedy);
    Some(finding.at(Place::new(file, header), "here").with(Place::new(file, first), "before"))
}

/// When the byte stands in a table header `[a.b]`: the header, and the first line that reads the same before it.
fn header_of(text: &str, at: usize) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..)?.lines().next()?.trim_end();
    if !line.starts_with('[') {
        return None;
    }
    let before = text.get(..start)?;
    let mut offset = 0;
    let first = before.split_inclusive('\n').find_map(|earlier| {
        let begin = offset;
        offset += earlier.len();
        (earlier.trim_end() == line).then_some(begin..begin + line.len())
    });
    Some((start..start + line.len(), first))
}

/// Where the table ends whose header ends at `header_end`.
fn table_end(text: &str, header_end: usize) -> usize {
    let rest = text.get(header_end..).unwrap_or_default();
    rest.find("\n[").map_or(text.len(), |next| header_end + next)
}

/// A span that shows: an empty one takes the character that follows on its line, else the one before it.
fn visible(text: &str, span: Range<usize>) -> Range<usize> {
    if !span.is_empty() {
        return span;
    }
    let (before, after) = text.split_at_checked(span.start).unwrap_or((text, ""));
    match (after.chars().next(), before.chars().next_back()) {
        (Some(next), _) if next != '\n' => span.start..span.start + next.len_utf8(),
        (_, Some(last)) => before.len() - last.len_utf8()..before.len(),
        (Some(_), None) => 0..1,
        (None, None) => 0..0,
    }
}

/// The nearest place before `before` where a key of this name is set, in any table.
fn first_key(table: &DeTable<'_>, name: &str, before: usize) -> Option<Range<usize>> {
    let mut found: Option<Range<usize>> = None;
    let mut pending = vec![table];
    while let Some(table) = pending.pop() {
        for (key, value) in table {
            let nearer = found.as_ref().is_none_or(|span| span.start < key.span().start);
            if key.get_ref() == name && key.span().start < before && nearer {
                found = Some(key.span());
            }
            pending.extend(value.get_ref().as_table());
            let items = value.get_ref().as_array();
            pending.extend(items.into_iter().flatten().filter_map(|v| v.get_ref().as_table()));
        }
    }
    found
}
