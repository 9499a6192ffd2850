//! The files that a system or a board is made of: its own, and before it everything that it includes.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::diagnostics::{Finding, Findings};
use crate::language::Section;
use crate::parse::parse;
use crate::reader::{Part, Reader, View};
use crate::rules::Rule;
use crate::source::{At, FileId, Place, Sources, shown};
use crate::suggest::with_near_path;

/// The parsed files, in the order in which their sections count.
pub(crate) struct Documents<'t> {
    tables: Vec<(FileId, DeTable<'t>)>,
    /// First line of the file that includes the others: where something is missed that none of them has.
    pub place: Place,
}

impl<'t> Documents<'t> {
    /// Parses `files`, of which `main` includes the others; `None` when one of them is no TOML.
    pub fn parse(
        main: FileId,
        files: &[FileId],
        sources: &'t Sources,
        findings: &mut Findings,
    ) -> Option<Self> {
        let parsed: Vec<_> = files
            .iter()
            .map(|file| Some((*file, parse(*file, &sources.get(*file)?.text, findings)?)))
            .collect();
        let tables = parsed.into_iter().collect::<Option<_>>()?;
        Some(Self { tables, place: first_line(main, sources) })
    }

    /// The root tables of all files.
    pub fn parts(&self) -> Vec<Part<'_>> {
        self.tables.iter().map(|(file, table)| Part { file: *file, table }).collect()
    }
}

/// Reads everything that `main` includes, and what that includes in turn. The files come in the order in which their
/// sections count: what is included before what includes it. `None` when a file is missing, or included wrongly.
pub(crate) fn collect(
    main: FileId,
    section: &'static Section,
    sources: &mut Sources,
    findings: &mut Findings,
) -> Option<Vec<FileId>> {
    let mut walk = Walk { section, known: Vec::new(), order: Vec::new(), sound: true };
    let path = real(&sources.get(main)?.path);
    walk.known.push(Known { path, include: first_line(main, sources) });
    let mut open = vec![walk.open(main, 0, sources, findings)];
    while let Some(top) = open.last_mut() {
        match top.wanted.next() {
            Some(name) => {
                let ancestors: Vec<usize> = open.iter().map(|file| file.known).collect();
                open.extend(walk.enter(&name, &ancestors, sources, findings));
            }
            None => walk.order.extend(open.pop().map(|done| done.file)),
        }
    }
    walk.sound.then_some(walk.order)
}

/// A file that was seen, and where it was included; for the first one its own first line.
struct Known {
    /// Without links and detours, so that one file has one path.
    path: PathBuf,
    include: Place,
}

/// A file whose includes are being followed.
struct Open {
    file: FileId,
    /// Index into [`Walk::known`].
    known: usize,
    wanted: std::vec::IntoIter<At<String>>,
}

struct Walk {
    section: &'static Section,
    known: Vec<Known>,
    order: Vec<FileId>,
    sound: bool,
}

impl Walk {
    /// What a file includes. A file that is no TOML includes nothing here; the parser tells why.
    fn open(&self, file: FileId, known: usize, sources: &Sources, findings: &mut Findings) -> Open {
        let text = sources.get(file).map_or("", |source| source.text.as_str());
        let wanted = match DeTable::parse_recoverable(text) {
            (document, errors) if errors.is_empty() => {
                let part = Part { file, table: document.get_ref() };
                let view = View::unchecked(self.section, part, first_line(file, sources));
                Reader::new(findings).texts(&view, "include").map(|list| list.value)
            }
            _ => None,
        };
        Open { file, known, wanted: wanted.unwrap_or_default().into_iter() }
    }

    fn enter(
        &mut self,
        name: &At<String>,
        ancestors: &[usize],
        sources: &mut Sources,
        findings: &mut Findings,
    ) -> Option<Open> {
        let path = sources.beside(name.place.file, &name.value);
        let real_path = real(&path);
        if let Some(seen) = self.known.iter().position(|known| known.path == real_path) {
            findings.push(included_again(name, self.known.get(seen)?, ancestors.contains(&seen)));
            self.sound = false;
            return None;
        }
        match sources.read(&path) {
            Ok(file) => {
                self.known.push(Known { path: real_path, include: name.place });
                Some(self.open(file, self.known.len() - 1, sources, findings))
            }
            Err(cause) => {
                let finding = Finding::new(
                    Rule::Unreadable,
                    format!("the included file {} cannot be read: {cause}", shown(&path)),
                    with_near_path(
                        &name.value,
                        &path,
                        "name a file by its path from the folder of the file that includes it",
                    ),
                );
                findings.push(finding.at(name.place, "included here"));
                self.sound = false;
                None
            }
        }
    }
}

fn included_again(name: &At<String>, known: &Known, is_ancestor: bool) -> Finding {
    let file = &name.value;
    if is_ancestor {
        Finding::new(
            Rule::IncludeCycle,
            format!("`{file}` includes itself, directly or by way of others"),
            "take this one out: the file is read already",
        )
        .at(name.place, "closes the circle")
        .with(known.include, "the circle begins here")
    } else {
        Finding::new(
            Rule::IncludeTwice,
            format!("`{file}` is included twice"),
            "take one of them out: its sections are there once for all files",
        )
        .at(name.place, "again here")
        .with(known.include, "first here")
    }
}

/// The path without links and detours; as it is where there is no such file.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn first_line(file: FileId, sources: &Sources) -> Place {
    let text = sources.get(file).map_or("", |source| source.text.as_str());
    Place::new(file, 0..text.find('\n').unwrap_or(text.len()))
}
