//! Parses one file as TOML, and tells what is wrong with it in the language's own words.

use std::ops::Range;

use toml::de::DeTable;

use crate::diagnostics::{Finding, Findings};
use crate::reader::shorten;
use crate::rules::Rule;
use crate::source::{FileId, Place};

/// Parses; reports every syntax error and returns `None` if there is one.
pub(crate) fn parse<'t>(
    file: FileId,
    text: &'t str,
    findings: &mut Findings,
) -> Option<DeTable<'t>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(document.into_inner());
    }
    // What follows a table header that is given twice collides key by key: told once.
    let mut twice: Range<usize> = 0..0;
    for error in errors {
        let span = visible(text, error.span().unwrap_or(0..0));
        let finding = if !error.message().starts_with("duplicate key") {
            syntax_finding(file, span, error.message())
        } else if twice.contains(&span.start) {
            continue;
        } else {
            if let Some((header, _)) = header_of(text, span.start) {
                twice = header.start..table_end(text, header.end);
            }
            duplicate_finding(file, text, document.get_ref(), span)
        };
        findings.push(finding);
    }
    None
}

fn syntax_finding(file: FileId, span: Range<usize>, message: &str) -> Finding {
    Finding::new(
        Rule::Syntax,
        format!("this is not TOML: {message}"),
        "mend the line; the rest of the file is looked at once it can be read",
    )
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
