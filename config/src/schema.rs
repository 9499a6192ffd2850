//! What a system file and a board file say, with places, before anything is checked across keys.
//!
//! A value that could not be read is `None` and already reported; the checks go on with the rest, so that
//! all mistakes are told at once.

use toml::de::DeTable;

use crate::diagnostics::{Finding, Findings};
use crate::language as lang;
use crate::reader::{Reader, View};
use crate::rules::Rule;
use crate::source::{At, FileId, Place, Sources};
use crate::units::{Dimension, Quantity};

/// A system file.
pub(crate) struct SystemFile {
    pub name: Option<At<String>>,
    pub board: Option<At<String>>,
    pub schedule: Option<Schedule>,
    pub shutdown: Option<Shutdown>,
    pub housekeeping: Option<Housekeeping>,
    pub partitions: Vec<Partition>,
    /// Where a section is missed, or the system's name stands.
    pub place: Place,
}

/// `[schedule]`.
pub(crate) struct Schedule {
    pub frame: Option<At<Quantity>>,
    pub place: Place,
}

/// `[shutdown]`.
pub(crate) struct Shutdown {
    pub when_finished: Option<At<Vec<At<String>>>>,
    pub at_latest: Option<At<Quantity>>,
}

/// `[housekeeping]`.
pub(crate) struct Housekeeping {
    pub core: Option<At<u64>>,
    pub windows: Option<At<Vec<Window>>>,
}

/// `[partition.NAME]`.
pub(crate) struct Partition {
    pub name: At<String>,
    pub image: Option<At<String>>,
    pub arguments: Option<At<String>>,
    pub memory: Option<At<u64>>,
    pub cores: Option<At<Vec<At<u64>>>>,
    pub windows: Option<At<Vec<Window>>>,
}

/// A window.
pub(crate) struct Window {
    pub start: Option<At<Quantity>>,
    pub length: Option<At<Quantity>>,
    pub place: Place,
}

/// A board file.
pub(crate) struct BoardFile {
    pub name: Option<At<String>>,
    pub tsc: Option<At<u64>>,
    pub tolerance_ppm: Option<At<u64>>,
    pub skew: Option<At<Quantity>>,
    pub switch_budget: Option<At<Quantity>>,
    pub hypervisor: Option<Extent>,
    pub serial_port: Option<At<u64>>,
    pub baud: Option<At<u64>>,
    pub power_off: Option<PowerOff>,
    pub cores: Option<At<Vec<Option<At<u64>>>>>,
    pub memory: Option<At<Vec<Extent>>>,
}

/// A start and a size.
pub(crate) struct Extent {
    pub start: Option<At<u64>>,
    pub size: Option<At<u64>>,
}

/// `[power-off]`.
pub(crate) struct PowerOff {
    pub port: Option<At<u64>>,
    pub bytes: Option<At<String>>,
}

/// Largest x2APIC id but the broadcast.
const MOST_APIC_ID: u64 = u32::MAX as u64 - 1;
/// Largest core number that is worth a look; which exist is checked against the board.
const MOST_CORE: u64 = u16::MAX as u64;
const MOST_PORT: u64 = u16::MAX as u64;

/// Reads a system file; `None` when it is no TOML.
pub(crate) fn read_system(
    file: FileId,
    sources: &Sources,
    findings: &mut Findings,
) -> Option<SystemFile> {
    let text = &sources.get(file)?.text;
    let document = parse(file, text, findings)?;
    let start = Place::new(file, 0..first_line(text));
    let mut reader = Reader::new(file, findings);
    let root = reader.view(&lang::SYSTEM_FILE, &document, start);
    let system = reader.table(&root, "system", &lang::SYSTEM);
    let schedule = reader.table(&root, "schedule", &lang::SCHEDULE);
    let shutdown = reader.table(&root, "shutdown", &lang::SHUTDOWN);
    let housekeeping = reader.table(&root, "housekeeping", &lang::HOUSEKEEPING);
    let partitions = reader.named_tables(&root, "partition", &lang::PARTITION);
    let place = system.as_ref().map_or(start, |view| view.place);
    Some(SystemFile {
        name: system.as_ref().and_then(|view| reader.name(view, "name")),
        board: system.as_ref().and_then(|view| reader.text(view, "board")),
        schedule: schedule
            .map(|view| Schedule { frame: reader.duration(&view, "frame"), place: view.place }),
        shutdown: shutdown.map(|view| Shutdown {
            when_finished: reader.texts(&view, "when-finished"),
            at_latest: reader.duration(&view, "at-latest"),
        }),
        housekeeping: housekeeping.map(|view| Housekeeping {
            core: reader.number(&view, "core", MOST_CORE),
            windows: windows(&mut reader, &view),
        }),
        partitions: partitions
            .into_iter()
            .map(|(name, view)| partition(&mut reader, name, &view))
            .collect(),
        place,
    })
}

fn partition(reader: &mut Reader<'_>, name: At<String>, view: &View<'_>) -> Partition {
    if name.value == RESERVED_NAME {
        let message = format!("a partition cannot be called `{RESERVED_NAME}`");
        let finding = Finding::new(Rule::BadName, message, "give it another name");
        reader.report(finding.at(name.place, "the hypervisor's own"));
    } else {
        reader.check_name(&name);
    }
    Partition {
        image: reader.text(view, "image"),
        arguments: reader.text(view, "arguments"),
        memory: reader.whole(view, "memory", Dimension::Size),
        cores: reader.numbers(view, "cores", MOST_CORE),
        windows: windows(reader, view),
        name,
    }
}

/// In reports and messages this names the hypervisor's own windows.
const RESERVED_NAME: &str = "housekeeping";

fn windows(reader: &mut Reader<'_>, view: &View<'_>) -> Option<At<Vec<Window>>> {
    let tables = reader.tables(view, "window", &lang::WINDOW)?;
    let windows = tables
        .value
        .into_iter()
        .map(|view| Window {
            start: reader.duration(&view, "start"),
            length: reader.duration(&view, "length"),
            place: view.place,
        })
        .collect();
    Some(At { value: windows, place: tables.place })
}

/// Reads a board file; `None` when it is no TOML.
pub(crate) fn read_board(
    file: FileId,
    sources: &Sources,
    findings: &mut Findings,
) -> Option<BoardFile> {
    let text = &sources.get(file)?.text;
    let document = parse(file, text, findings)?;
    let start = Place::new(file, 0..first_line(text));
    let mut reader = Reader::new(file, findings);
    let root = reader.view(&lang::BOARD_FILE, &document, start);
    let board = reader.table(&root, "board", &lang::BOARD);
    let clock = reader.table(&root, "clock", &lang::CLOCK);
    let hypervisor = reader.table(&root, "hypervisor", &lang::HYPERVISOR);
    let serial = reader.table(&root, "serial", &lang::SERIAL);
    let power_off = reader.table(&root, "power-off", &lang::POWER_OFF);
    let cores = reader.tables(&root, "core", &lang::CORE);
    let memory = reader.tables(&root, "memory", &lang::MEMORY);
    Some(BoardFile {
        name: board.as_ref().and_then(|view| reader.name(view, "name")),
        tsc: clock.as_ref().and_then(|view| reader.whole(view, "tsc", Dimension::Frequency)),
        tolerance_ppm: clock
            .as_ref()
            .and_then(|view| reader.whole(view, "tolerance", Dimension::Percentage)),
        skew: clock.as_ref().and_then(|view| reader.duration(view, "skew")),
        switch_budget: clock.as_ref().and_then(|view| reader.duration(view, "switch-budget")),
        hypervisor: hypervisor.map(|view| extent(&mut reader, &view)),
        serial_port: serial.as_ref().and_then(|view| reader.number(view, "port", MOST_PORT)),
        baud: serial.as_ref().and_then(|view| reader.number(view, "baud", u32::MAX.into())),
        power_off: power_off.map(|view| PowerOff {
            port: reader.number(&view, "port", MOST_PORT),
            bytes: reader.text(&view, "bytes"),
        }),
        cores: cores.map(|list| At {
            value: list
                .value
                .iter()
                .map(|view| reader.number(view, "apic-id", MOST_APIC_ID))
                .collect(),
            place: list.place,
        }),
        memory: memory.map(|list| At {
            value: list.value.iter().map(|view| extent(&mut reader, view)).collect(),
            place: list.place,
        }),
    })
}

/// Highest host-physical address that the table and the page tables can carry.
const MOST_ADDRESS: u64 = (1 << 48) - 1;

fn extent(reader: &mut Reader<'_>, view: &View<'_>) -> Extent {
    Extent {
        start: reader.number(view, "start", MOST_ADDRESS),
        size: reader.whole(view, "size", Dimension::Size),
    }
}

/// Parses; reports every syntax error and returns `None` if there is one.
fn parse<'t>(file: FileId, text: &'t str, findings: &mut Findings) -> Option<DeTable<'t>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(document.into_inner());
    }
    // What follows a table header that is given twice collides key by key: told once.
    let mut twice: std::ops::Range<usize> = 0..0;
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

fn syntax_finding(file: FileId, span: std::ops::Range<usize>, message: &str) -> Finding {
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
    span: std::ops::Range<usize>,
) -> Finding {
    let name = text.get(span.clone()).unwrap_or_default();
    let (again, first) = match header_of(text, span.start) {
        Some((header, first)) => (header, first),
        None => (span.clone(), first_key(document, name, span.start)),
    };
    let finding = Finding::new(
        Rule::DuplicateName,
        format!("`{}` is given twice", crate::reader::shorten(name)),
        "take one of them out, or give it another name",
    )
    .at(Place::new(file, again), "again here");
    match first {
        Some(first) => finding.with(Place::new(file, first), "first here"),
        None => finding,
    }
}

/// When the byte stands in a table header `[a.b]`: the header, and the first line that reads the same before it.
fn header_of(
    text: &str,
    at: usize,
) -> Option<(std::ops::Range<usize>, Option<std::ops::Range<usize>>)> {
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
fn visible(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
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
fn first_key(table: &DeTable<'_>, name: &str, before: usize) -> Option<std::ops::Range<usize>> {
    let mut found: Option<std::ops::Range<usize>> = None;
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

fn first_line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}
