//! The formatter: sections and keys in the order of the language, one way to write a quantity, every comment kept.
//!
//! It only moves and trims; what it writes is read again and held against what it read, so that a mistake of its own
//! cannot change a system.

use std::path::Path;

use toml_edit::{Decor, DocumentMut, Item, RawString, Table, Value};

use crate::diagnostics::{Diagnostics, Findings};
use crate::json_schema::FileKind;
use crate::language::{Form, Section};
use crate::parse::parse;
use crate::source::Sources;
use crate::units::{Dimension, Quantity};

/// A file, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formatted {
    /// As it is.
    pub before: String,
    /// As it should be.
    pub after: String,
}

/// Why a file was not formatted.
#[derive(Debug)]
pub enum FormatError {
    /// It cannot be read, or is no TOML: as `check` tells it.
    Rejected(Diagnostics),
    /// The formatter would have changed what it says; the cause in words. The file is to stay as it is.
    Unsafe(String),
}

/// Formats a system file, a board file, or a file that one of them includes.
///
/// # Errors
/// The file cannot be read or is no TOML, or the formatter fails its own check.
pub fn format_file(path: &Path) -> Result<Formatted, FormatError> {
    let before = readable(path).map_err(FormatError::Rejected)?;
    let after = format_text(&before)?;
    Ok(Formatted { before, after })
}

fn readable(path: &Path) -> Result<String, Diagnostics> {
    let mut sources = Sources::default();
    let mut findings = Findings::default();
    match sources.read(path) {
        Ok(file) => {
            let text = sources.get(file).map(|source| source.text.clone()).unwrap_or_default();
            if parse(file, &text, &mut findings).is_some() && !findings.has_errors() {
                return Ok(text);
            }
        }
        Err(unread) => findings.push(unread.finding(
            "",
            path,
            "name a system file or a board file, such as partitions/demo.toml",
        )),
    }
    Err(findings.resolve(&sources))
}

fn format_text(text: &str) -> Result<String, FormatError> {
    let unified = text.replace("\r\n", "\n");
    let (head, body) = unified.split_at(head_length(&unified));
    let parsed = |text: &str| {
        text.parse::<DocumentMut>().map_err(|error| FormatError::Unsafe(error.message().to_owned()))
    };
    let mut document = parsed(body)?;
    let section = kind_of(document.as_table()).section();
    let before = meaning(document.as_table(), Some(section));
    arrange(document.as_table_mut(), Some(section), &mut 0);
    dress_root(&mut document, section);
    let after = join(head, &document.to_string());
    if meaning(parsed(&after)?.as_table(), Some(section)) != before {
        return Err(FormatError::Unsafe("the result would say something else".to_owned()));
    }
    if comments(&after) != comments(&unified) {
        return Err(FormatError::Unsafe("the result would have other comments".to_owned()));
    }
    Ok(after)
}

/// The comment that heads the file: up to the last empty line, or directive for editors, before anything else.
fn head_length(text: &str) -> usize {
    let mut length = 0;
    let mut seen = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') {
            return length;
        }
        seen += line.len();
        if content.is_empty() || content.starts_with("#:") {
            length = seen;
        }
    }
    seen
}

fn join(head: &str, body: &str) -> String {
    let head = lines_of(&format!("{head}\n"), Gap::None);
    let body = body.trim_matches('\n');
    match (head.trim_end().is_empty(), body.is_empty()) {
        (true, _) => format!("{body}\n"),
        (false, true) => format!("{}\n", head.trim_end()),
        (false, false) => format!("{}\n\n{body}\n", head.trim_end()),
    }
}

/// A board file has more of the board's keys than of the system's.
fn kind_of(root: &Table) -> FileKind {
    let known =
        |kind: FileKind| root.iter().filter(|(name, _)| kind.section().key(name).is_some()).count();
    if known(FileKind::Board) > known(FileKind::System) {
        FileKind::Board
    } else {
        FileKind::System
    }
}

/// The place of a key in the language; unknown ones behind all others.
fn rank(section: Option<&Section>, name: &str) -> usize {
    let keys = section.map_or(&[][..], |section| section.keys);
    keys.iter().position(|key| key.name == name).unwrap_or(keys.len())
}

fn form(section: Option<&'static Section>, name: &str) -> Option<Form> {
    section.and_then(|section| section.key(name)).map(|key| key.form)
}

/// The section of the tables below a key, and whether their names are the user's.
const fn below(form: Option<Form>) -> (Option<&'static Section>, bool) {
    match form {
        Some(Form::Table(section) | Form::Tables(section)) => (Some(section), false),
        Some(Form::NamedTables(section)) => (Some(section), true),
        _ => (None, false),
    }
}

/// Orders the tables below `table` as the language does; those with names of the user's as the file does.
fn arrange(table: &mut Table, section: Option<&'static Section>, next: &mut isize) {
    table.set_position(Some(*next));
    *next += 1;
    table.sort_values_by(|one, _, other, _| {
        rank(section, one.get()).cmp(&rank(section, other.get()))
    });
    for name in ordered_names(table, section) {
        let (inner, named) = below(form(section, &name));
        match table.get_mut(&name) {
            Some(Item::Table(child)) if named => arrange_named(child, inner, next),
            Some(Item::Table(child)) => arrange(child, inner, next),
            Some(Item::ArrayOfTables(list)) => {
                list.iter_mut().for_each(|child| arrange(child, inner, next));
            }
            _ => {}
        }
    }
}

/// Tables by name keep their order: it numbers the partitions and places their memory.
fn arrange_named(table: &mut Table, section: Option<&'static Section>, next: &mut isize) {
    let mut own = *next;
    *next += 1;
    let mut has_value = false;
    for name in ordered_names(table, None) {
        match table.get_mut(&name) {
            Some(Item::Table(child)) => arrange(child, section, next),
            // A name below the header itself, `c = { .. }`, must not overtake the sections before that header.
            Some(Item::Value(_)) if !has_value => {
                has_value = true;
                own = *next;
                *next += 1;
            }
            _ => {}
        }
    }
    table.set_position(Some(own));
}

/// Names of the keys, by the language, else as the file has them.
fn ordered_names(table: &Table, section: Option<&'static Section>) -> Vec<String> {
    let mut names: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
    names.sort_by_key(|name| rank(section, name));
    names
}

/// Empty lines before a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// None.
    None,
    /// One where there are any.
    Kept,
    /// One.
    One,
}

fn dress_root(document: &mut DocumentMut, section: &'static Section) {
    let trailing = document.trailing().as_str().unwrap_or_default();
    let trailing = lines_of(&format!("{trailing}\n"), Gap::Kept);
    document.set_trailing(trailing);
    dress(document.as_table_mut(), Some(section));
    dress_below(document.as_table_mut(), Some(section));
}

fn dress_below(table: &mut Table, section: Option<&'static Section>) {
    for (name, item) in table.iter_mut() {
        let (inner, named) = below(form(section, name.get()));
        match item {
            Item::Table(child) if named => {
                dress_header(child, Gap::One);
                dress(child, None);
                for (_, item) in child.iter_mut() {
                    if let Item::Table(child) = item {
                        dress_section(child, inner, Gap::One);
                    }
                }
            }
            Item::Table(child) => dress_section(child, inner, Gap::One),
            Item::ArrayOfTables(list) => {
                for (position, child) in list.iter_mut().enumerate() {
                    let gap = if position == 0 { Gap::One } else { Gap::Kept };
                    dress_section(child, inner, gap);
                }
            }
            _ => {}
        }
    }
}

fn dress_section(table: &mut Table, section: Option<&'static Section>, gap: Gap) {
    dress_header(table, gap);
    dress(table, section);
    dress_below(table, section);
}

fn dress_header(table: &mut Table, gap: Gap) {
    let decor = table.decor_mut();
    let prefix = lines_of(raw(decor.prefix()), gap);
    decor.set_prefix(prefix);
    let comment = raw(decor.suffix()).trim().to_owned();
    decor.set_suffix(if comment.is_empty() { comment } else { format!(" {comment}") });
}

/// Spaces between a value and a comment behind it, at least.
const COMMENT_GAP: usize = 2;

/// Sets the keys of a section: one a line, comments behind them in one column.
fn dress(table: &mut Table, section: Option<&'static Section>) {
    let mut first = true;
    for (mut name, item) in table.iter_mut() {
        if item.is_table() && !item.as_table().is_some_and(Table::is_dotted)
            || item.is_array_of_tables()
        {
            continue;
        }
        let gap = if first { Gap::None } else { Gap::Kept };
        first = false;
        let form = form(section, name.get());
        match item {
            Item::Value(value) => {
                dress_key(name.leaf_decor_mut(), gap);
                dress_value(value, form);
            }
            Item::Table(dotted) => dress_dotted(dotted, gap),
            Item::None | Item::ArrayOfTables(_) => {}
        }
    }
    align_comments(table);
}

/// Keys such as `a.b = 1` keep their order and get their lines trimmed.
fn dress_dotted(table: &mut Table, gap: Gap) {
    for (position, (mut name, item)) in table.iter_mut().enumerate() {
        let gap = if position == 0 { gap } else { Gap::Kept };
        match item {
            Item::Value(value) => {
                dress_key(name.leaf_decor_mut(), gap);
                dress_value(value, None);
            }
            Item::Table(inner) => dress_dotted(inner, gap),
            Item::None | Item::ArrayOfTables(_) => {}
        }
    }
}

fn dress_key(decor: &mut Decor, gap: Gap) {
    let prefix = lines_of(raw(decor.prefix()), gap);
    decor.set_prefix(prefix);
    decor.set_suffix(" ");
}

fn dress_value(value: &mut Value, form: Option<Form>) {
    let comment = raw(value.decor().suffix()).trim().to_owned();
    if let Some(text) = value.as_str().and_then(|text| spaced(text, form)) {
        *value = Value::from(text);
    }
    if !value.to_string().contains('\n') {
        tidy(value, form);
    }
    let decor = value.decor_mut();
    decor.set_prefix(" ");
    decor.set_suffix(match comment.as_str() {
        "" => String::new(),
        comment => format!("{}{comment}", " ".repeat(COMMENT_GAP)),
    });
}

/// Lists and tables on one line: one blank behind each comma, and within braces.
fn tidy(value: &mut Value, of: Option<Form>) {
    match value {
        Value::Array(list) => {
            let (section, _) = below(of);
            list.iter_mut().for_each(|item| tidy(item, section.map(Form::Table)));
            list.fmt();
        }
        Value::InlineTable(table) => {
            let (section, named) = below(of);
            for (name, item) in table.iter_mut() {
                let inner =
                    if named { section.map(Form::Table) } else { form(section, name.get()) };
                if let Some(text) = item.as_str().and_then(|text| spaced(text, inner)) {
                    *item = Value::from(text);
                }
                tidy(item, inner);
            }
            table.fmt();
        }
        _ => {}
    }
}

/// A quantity with one blank between number and unit; `None` where nothing is to change.
fn spaced(text: &str, form: Option<Form>) -> Option<String> {
    Quantity::parse(text, dimension(form?)?).ok()?;
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')?;
    let (number, unit) = text.split_at(split);
    Some(format!("{number} {}", unit.trim()))
}

const fn dimension(form: Form) -> Option<Dimension> {
    match form {
        Form::Duration => Some(Dimension::Duration),
        Form::Size => Some(Dimension::Size),
        Form::Frequency => Some(Dimension::Frequency),
        Form::Percentage => Some(Dimension::Percentage),
        _ => None,
    }
}

/// Puts the comments behind the values of a section into one column.
fn align_comments(table: &mut Table) {
    let width = |name: &str, value: &Value| {
        let bare = value.clone().decorated("", "").to_string();
        (!bare.contains('\n')).then(|| name.chars().count() + bare.chars().count())
    };
    let commented = |value: &Value| !raw(value.decor().suffix()).trim().is_empty();
    let widest = table
        .iter()
        .filter_map(|(name, item)| Some((name, item.as_value().filter(|value| commented(value))?)))
        .filter_map(|(name, value)| width(name, value))
        .max();
    let Some(widest) = widest else { return };
    for (name, item) in table.iter_mut() {
        let Item::Value(value) = item else { continue };
        let comment = raw(value.decor().suffix()).trim().to_owned();
        let Some(own) = width(name.get(), value).filter(|_| !comment.is_empty()) else { continue };
        let gap = " ".repeat(widest.saturating_sub(own) + COMMENT_GAP);
        value.decor_mut().set_suffix(format!("{gap}{comment}"));
    }
}

fn raw(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// The comments before a piece, each on a line of its own, with at most one empty line in a row. What stands behind
/// the last line feed is the indentation of the piece, and falls away.
fn lines_of(text: &str, gap: Gap) -> String {
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut lines: Vec<&str> = Vec::new();
    for line in complete.split('\n').map(str::trim) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    let began_empty = text.trim_start_matches([' ', '\t']).starts_with('\n');
    let wanted = gap == Gap::One || gap == Gap::Kept && began_empty;
    let mut out = if wanted { "\n".to_owned() } else { String::new() };
    lines.iter().for_each(|line| out.extend([line, "\n"]));
    out
}

/// What stands behind the first `#` of each line that has one, in some order and without blanks.
fn comments(text: &str) -> Vec<String> {
    let tails = text.lines().filter_map(|line| line.split_once('#'));
    let mut tails: Vec<String> =
        tails.map(|(_, tail)| tail.split_whitespace().collect::<String>()).collect();
    tails.sort();
    tails
}

/// What a document says, quantities without blanks: what must be the same before and after.
fn meaning(table: &Table, section: Option<&'static Section>) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for (name, item) in table.iter() {
        say(name, item, form(section, name), &mut said);
    }
    said.sort();
    said
}

fn say(path: &str, item: &Item, of: Option<Form>, said: &mut Vec<(String, String)>) {
    let (section, named) = below(of);
    let inner = |name: &str| if named { section.map(Form::Table) } else { form(section, name) };
    if let Some(table) = item.as_table_like() {
        said.push((path.to_owned(), "table".to_owned()));
        for (position, (name, item)) in table.iter().enumerate() {
            if named {
                said.push((format!("{path} {position}"), name.to_owned()));
            }
            say(&format!("{path}.{name}"), item, inner(name), said);
        }
    } else if let Some(tables) = item.as_array_of_tables() {
        for (position, table) in tables.iter().enumerate() {
            let item = Item::Table(table.clone());
            say(&format!("{path}[{position}]"), &item, section.map(Form::Table), said);
        }
    } else if let Some(list) = item.as_array() {
        said.push((path.to_owned(), format!("list of {}", list.len())));
        for (position, value) in list.iter().enumerate() {
            let item = Item::Value(value.clone());
            say(&format!("{path}[{position}]"), &item, section.map(Form::Table), said);
        }
    } else if let Some(value) = item.as_value() {
        said.push((path.to_owned(), plain(value, of)));
    }
}

fn plain(value: &Value, of: Option<Form>) -> String {
    match value.as_str() {
        Some(text) if of.and_then(dimension).is_some() => text.replace([' ', '\t'], ""),
        Some(text) => format!("{text:?}"),
        None => value.clone().decorated("", "").to_string(),
    }
}
