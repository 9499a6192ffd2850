//! The files that a system or a board is made of: its own, and before it everything that it includes.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::diagnostics::{Finding, Findings};
use crate::language::{BOARD_FILE, INCLUDE, SYSTEM_FILE, Section};
use crate::parse::parse;
use crate::reader::{Part, Reader, View};
use crate::rules::Rule;
use crate::source::{At, FileId, Place, Sources};
use crate::suggest::with_near_path;

/// The parsed files, in the order in which their sections count.
pub(crate) struct Documents<'t> {
    tables: Vec<(FileId, DeTable<'t>)>,
    /// First line of the file that includes the others: where something is missed that none of them has.
    pub place: Place,
    /// Whether every file is there and could be read. Where one is not, the others are looked at one key at a time:
    /// what they lack may stand in it.
    pub complete: bool,
}

impl<'t> Documents<'t> {
    /// Parses `files`, of which `main` includes the others.
    pub fn parse(
        main: FileId,
        files: &Files,
        sources: &'t Sources,
        findings: &mut Findings,
    ) -> Self {
        let mut parsed = |file: &FileId| {
            let table = parse(*file, &sources.get(*file)?.text, findings)?;
            of_its_kind(*file, &table, files.section, findings).then_some((*file, table))
        };
        let tables: Vec<_> = files.order.iter().filter_map(&mut parsed).collect();
        let complete = files.all_there && tables.len() == files.order.len();
        Self { tables, place: first_line(main, sources), complete }
    }

    /// The root tables of all files.
    pub fn parts(&self) -> Vec<Part<'_>> {
        self.tables.iter().map(|(file, table)| Part { file: *file, table }).collect()
    }
}

/// A file and everything that it includes.
pub(crate) struct Files {
    section: &'static Section,
    /// In the order in which their sections count: what is included before what includes it.
    order: Vec<FileId>,
    /// Whether none is missing, or included wrongly.
    all_there: bool,
}

/// Reports a board file where a system file is wanted, and the other way round: a file none of whose sections is one of
/// `section`, and one of whose is of the other kind. Told once, and not section by section.
fn of_its_kind(
    file: FileId,
    table: &DeTable<'_>,
    section: &'static Section,
    findings: &mut Findings,
) -> bool {
    let (wanted, other, remedy) = if *section == SYSTEM_FILE {
        ("system", &BOARD_FILE, "name the system file: its `[system]` names the board file")
    } else {
        ("board", &SYSTEM_FILE, "name a board file, such as boards/bochs-skylake-x.toml")
    };
    let names = || table.keys().filter(|key| key.get_ref() != INCLUDE.name);
    let aliens = names().filter(|key| other.key(key.get_ref()).is_some());
    let alien = aliens.min_by_key(|key| key.span().start);
    let Some(alien) = alien.filter(|_| names().all(|key| section.key(key.get_ref()).is_none()))
    else {
        return true;
    };
    let message = format!("this belongs to {}, and a {wanted} file is wanted here", other.header);
    let finding = Finding::new(Rule::WrongKind, message, remedy);
    let place = Place::new(file, alien.span());
    findings.push(finding.at(place, format!("a section of {}", other.header)));
    false
}

/// Reads everything that `main` includes, and what that includes in turn.
pub(crate) fn collect(
    main: FileId,
    section: &'static Section,
    sources: &mut Sources,
    findings: &mut Findings,
) -> Files {
    let mut walk = Walk { section, known: Vec::new(), order: Vec::new(), sound: true };
    let path = sources.get(main).map_or_else(PathBuf::new, |source| real(&source.path));
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
    Files { section, order: walk.order, all_there: walk.sound }
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
    /// What a file includes. A file that is no TOML includes nothing here; the parser tells why. So does a file that
    /// includes by no list of paths.
    fn open(
        &mut self,
        file: FileId,
        known: usize,
        sources: &Sources,
        findings: &mut Findings,
    ) -> Open {
        let text = sources.get(file).map_or("", |source| source.text.as_str());
        let mut wanted = Vec::new();
        if let Some(table) = parse(file, text, &mut Findings::default()) {
            let part = Part { file, table: &table };
            let view = View::unchecked(self.section, part, first_line(file, sources));
            match Reader::new(findings).full_texts(&view, INCLUDE.name) {
                Some(list) => wanted = list.value,
                None => self.sound &= !view.has(INCLUDE.name),
            }
        }
        Open { file, known, wanted: wanted.into_iter() }
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
            Err(unread) => {
                let remedy = with_near_path(
                    &name.value,
                    &path,
                    "name a file by its path from the folder of the file that includes it",
                );
                let finding = unread.finding("the included file ", &path, remedy);
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
