//! The files that were read, and places in them.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::diagnostics::{Finding, Location};
use crate::rules::Rule;

/// Longest system or board file that is read, in bytes; a longer one is a mistake, not a system.
const LONGEST: u64 = 1 << 20;

/// Index into [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(usize);

/// A run of bytes in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which file.
    pub file: FileId,
    /// First byte.
    pub start: usize,
    /// Byte behind the last.
    pub end: usize,
}

impl Place {
    /// The place of `span` in `file`.
    pub fn new(file: FileId, span: Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// One file, whole.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As it was opened.
    pub path: PathBuf,
    /// Its bytes, which are UTF-8.
    pub text: String,
    /// Where each line begins: with many places, none of them scans the file.
    lines: Vec<usize>,
}

impl Source {
    /// Line and column of a byte, both counted from 1; a column counts characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|begin| *begin <= offset);
        let begin = line.checked_sub(1).and_then(|index| self.lines.get(index)).copied();
        let before = self.text.get(begin.unwrap_or(0)..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// The bytes of the lines from the first to the last of these places, and of one more.
    pub fn lines_around(&self, places: impl Iterator<Item = Place>) -> Range<usize> {
        let (mut start, mut end) = (self.text.len(), 0);
        for place in places {
            start = start.min(place.start);
            end = end.max(place.end);
        }
        let first = self.lines.partition_point(|begin| *begin <= start).saturating_sub(1);
        let behind = self.lines.partition_point(|begin| *begin <= end) + 1;
        let begin = |line: usize| self.lines.get(line).copied().unwrap_or(self.text.len());
        begin(first)..begin(behind)
    }

    /// The path as messages show it: relative to the current directory where it lies beneath.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// `path` as messages show it.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(&here).unwrap_or(path);
    if path.as_os_str().is_empty() { ".".to_owned() } else { plain(&path.display().to_string()) }
}

/// A text that a file holds, as one line of a message can show it.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// All files that were read, in the order of reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    read: Vec<Source>,
    /// Every file that there is, when none is to be taken from a disk.
    given: Option<BTreeMap<PathBuf, String>>,
}

impl Sources {
    /// Nothing read yet, and no other files than these.
    pub fn given(files: BTreeMap<PathBuf, String>) -> Self {
        Self { read: Vec::new(), given: Some(files) }
    }

    /// Whether there is a file at `path`.
    pub fn is_file(&self, path: &Path) -> bool {
        match &self.given {
            Some(files) => files.contains_key(path),
            None => path.is_file(),
        }
    }

    /// Reads a text file.
    pub fn read(&mut self, path: &Path) -> Result<FileId, Unread> {
        let text = match &self.given {
            Some(files) => {
                files.get(path).cloned().ok_or_else(|| Unread::because("there is none"))?
            }
            None => read_text(path)?,
        };
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        self.read.push(Source { path: path.to_owned(), text, lines });
        Ok(FileId(self.read.len() - 1))
    }

    /// `relative` as seen from the folder of `file`.
    pub fn beside(&self, file: FileId, relative: &str) -> PathBuf {
        let folder = self.get(file).and_then(|source| source.path.parent());
        folder.unwrap_or(Path::new("")).join(relative)
    }

    /// The file of this id.
    pub fn get(&self, id: FileId) -> Option<&Source> {
        self.read.get(id.0)
    }

    /// Paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.read.iter().map(|source| source.path.clone()).collect()
    }

    /// All files.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.read.iter()
    }

    /// A place for a person or a program, with what is to be said there.
    pub fn location(&self, place: Place, label: &str) -> Option<Location> {
        let source = self.get(place.file)?;
        let (line, column) = source.line_column(place.start);
        let (end_line, end_column) = source.line_column(place.end);
        Some(Location {
            file: source.shown(),
            line,
            column,
            end_line,
            end_column,
            start: place.start,
            end: place.end,
            label: label.to_owned(),
        })
    }

    /// All files with their ids, in the order of reading.
    pub fn ids(&self) -> impl Iterator<Item = (FileId, &Source)> {
        self.read.iter().enumerate().map(|(index, source)| (FileId(index), source))
    }

    /// The text at a place.
    pub fn text_at(&self, place: Place) -> Option<&str> {
        self.get(place.file)?.text.get(place.start..place.end)
    }

    /// `demo.toml:23`: file name and line, as the hypervisor's messages quote it.
    pub fn name_and_line(&self, place: Place) -> String {
        let Some(source) = self.get(place.file) else {
            return String::new();
        };
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}:{}", source.line_column(place.start).0)
    }
}

/// Why a file cannot be read as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// In words.
    pub cause: String,
    /// What to do about it, where that is not to name another file.
    pub remedy: Option<&'static str>,
}

impl Unread {
    /// As a finding about `what`, which may name a place too.
    pub fn finding(&self, what: &str, path: &Path, remedy: impl Into<String>) -> Finding {
        let message = format!("{what}{} cannot be read: {}", shown(path), self.cause);
        let remedy = self.remedy.map_or_else(|| remedy.into(), str::to_owned);
        Finding::new(Rule::Unreadable, message, remedy)
    }

    fn because(cause: impl ToString) -> Self {
        Self { cause: cause.to_string(), remedy: None }
    }
}

fn read_text(path: &Path) -> Result<String, Unread> {
    // Looked at before it is opened: to open a pipe waits for somebody who writes into it.
    if !std::fs::metadata(path).map_err(Unread::because)?.is_file() {
        return Err(Unread::because("it is not a file"));
    }
    let file = std::fs::File::open(path).map_err(Unread::because)?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(Unread::because)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Unread {
            cause: format!("it is longer than {LONGEST} bytes"),
            remedy: Some("name a text file, or divide it and `include` the parts"),
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        not_utf8(error.as_bytes(), valid)
    })
}

/// `valid` bytes are UTF-8, the next is not.
fn not_utf8(bytes: &[u8], valid: usize) -> Unread {
    let before = bytes.get(..valid).unwrap_or_default();
    let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column =
        String::from_utf8_lossy(before.get(begin..).unwrap_or_default()).chars().count() + 1;
    let wide = matches!(bytes, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]);
    Unread {
        cause: if wide {
            "it is UTF-16".to_owned()
        } else {
            format!("line {line}, column {column} is not UTF-8")
        },
        remedy: Some("name a text file, and save it as UTF-8: TOML has no other encoding"),
    }
}
