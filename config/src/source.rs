//! The files that were read, and places in them.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::diagnostics::Location;

/// Longest system or board file that is read, in bytes; a longer one is a mistake, not a system.
const LONGEST: u64 = 1 << 20;

/// Index into [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The path as messages show it: relative to the current directory where it lies beneath.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// `path` as messages show it.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
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

    /// Reads a text file; the error is the cause in words.
    pub fn read(&mut self, path: &Path) -> Result<FileId, String> {
        let text = match &self.given {
            Some(files) => files.get(path).cloned().ok_or_else(|| "there is none".to_owned())?,
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

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
}
