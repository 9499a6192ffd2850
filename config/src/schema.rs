//! What a system and a board say, with places, before anything is checked across keys.
//!
//! A value that could not be read is `None` and already reported; the checks go on with the rest, so that
//! all mistakes are told at once.

use bulkhead_table::Power;

use crate::diagnostics::{Finding, Findings};
use crate::documents::Documents;
use crate::language as lang;
use crate::reader::{Reader, View};
use crate::rules::Rule;
use crate::source::{At, Place};
use crate::surroundings::{self, Surroundings};
use crate::units::{Dimension, Quantity};

/// A system file.
pub(crate) struct SystemFile {
    pub name: Option<At<String>>,
    pub board: Option<At<String>>,
    pub schedule: Option<Schedule>,
    pub shutdown: Option<Shutdown>,
    /// `[log] windows`.
    pub log_windows: Option<At<bool>>,
    pub limits: Option<Limits>,
    pub housekeeping: Option<Housekeeping>,
    pub partitions: Vec<Partition>,
    /// Where a section is missed, or the system's name stands.
    pub place: Place,
}

/// `[schedule]`.
pub(crate) struct Schedule {
    pub frame: Option<At<Quantity>>,
    pub plans: Option<At<Vec<At<String>>>>,
    pub place: Place,
}

/// `[shutdown]`.
pub(crate) struct Shutdown {
    pub when_finished: Option<At<Vec<At<String>>>>,
    pub at_latest: Option<At<Quantity>>,
}

/// `[limits]`.
pub(crate) struct Limits {
    /// Limits on a distribution, each with the name of its value.
    pub timer: Vec<(&'static str, At<Quantity>)>,
    pub window: Vec<(&'static str, At<Quantity>)>,
    pub switch: Option<At<Quantity>>,
    pub exits_per_second: Option<At<u64>>,
    /// Whether it has no key at all.
    pub is_empty: bool,
    pub place: Place,
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
    pub kernel: Option<At<String>>,
    pub initrd: Option<At<String>>,
    pub cmdline: Option<At<String>>,
    pub platform: Option<At<String>>,
    pub memory: Option<At<u64>>,
    pub cores: Option<At<Vec<At<u64>>>>,
    pub windows: Option<At<Vec<Window>>>,
    pub off_in: Option<At<Vec<At<String>>>>,
    pub may_switch_plan: Option<At<bool>>,
    pub donates_to: Option<At<String>>,
    pub hygiene: Option<At<Vec<At<String>>>>,
    /// `accept-smt-sibling`.
    pub accepted: Option<At<Vec<At<String>>>>,
}

/// A window.
pub(crate) struct Window {
    pub start: Option<At<Quantity>>,
    pub length: Option<At<Quantity>>,
    pub core: Option<At<u64>>,
    pub plans: Option<At<Vec<At<String>>>>,
    pub place: Place,
}

/// A board file.
pub(crate) struct BoardFile {
    pub name: Option<At<String>>,
    pub tsc: Option<At<u64>>,
    pub tolerance_ppm: Option<At<u64>>,
    pub vouched: Option<At<bool>>,
    pub skew: Option<At<Quantity>>,
    pub switch_budget: Option<At<Quantity>>,
    pub hypervisor: Option<Extent>,
    pub serial: Option<Serial>,
    pub power_off: Option<PowerOff>,
    pub power: Power,
    pub hygiene: Option<HygieneCosts>,
    pub cores: Option<At<Vec<CoreEntry>>>,
    pub caches: Option<At<Vec<CacheEntry>>>,
    pub memory: Option<At<Vec<Extent>>>,
    pub surroundings: Surroundings,
}

/// `[serial]`.
pub(crate) struct Serial {
    pub port: Option<At<u64>>,
    pub address: Option<At<u64>>,
    pub stride: Option<At<u64>>,
    pub width: Option<At<u64>>,
    pub clock: Option<At<u64>>,
    pub baud: Option<At<u64>>,
    /// Whether each of the keys is well written or not there.
    pub sound: bool,
    pub place: Place,
}

/// `[[core]]`.
pub(crate) struct CoreEntry {
    pub apic_id: Option<At<u64>>,
    pub package: Option<At<u64>>,
    pub core: Option<At<u64>>,
    pub thread: Option<At<u64>>,
    /// How many of the three keys before are there, well written or not.
    pub keys_of_position: usize,
    pub place: Place,
}

/// `[[cache]]`.
pub(crate) struct CacheEntry {
    pub level: Option<At<u64>>,
    pub size: Option<At<u64>>,
    pub cores: Option<At<Vec<At<u64>>>>,
    pub place: Place,
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

/// `[hygiene]` of a board.
pub(crate) struct HygieneCosts {
    pub l1d_flush: Option<At<Quantity>>,
    pub branch_barrier: Option<At<Quantity>>,
    pub buffer_clear: Option<At<Quantity>>,
    pub place: Place,
}

/// Largest x2APIC id but the broadcast.
const MOST_APIC_ID: u64 = u32::MAX as u64 - 1;
/// Largest core number that is worth a look; which exist is checked against the board.
const MOST_CORE: u64 = u16::MAX as u64;
pub(crate) const MOST_PORT: u64 = u16::MAX as u64;

/// Reads a system file and what it includes.
pub(crate) fn read_system(documents: &Documents<'_>, findings: &mut Findings) -> SystemFile {
    let mut reader = Reader::new(findings);
    let root = reader.root(&lang::SYSTEM_FILE, documents);
    let system = reader.table(&root, "system", &lang::SYSTEM);
    let schedule = reader.table(&root, "schedule", &lang::SCHEDULE);
    let shutdown = reader.table(&root, "shutdown", &lang::SHUTDOWN);
    let log = reader.table(&root, "log", &lang::LOG);
    let limits = reader.table(&root, "limits", &lang::LIMITS);
    let housekeeping = reader.table(&root, "housekeeping", &lang::HOUSEKEEPING);
    let partitions = reader.named_tables(&root, "partition", &lang::PARTITION);
    let place = system.as_ref().map_or(documents.place, |view| view.place);
    SystemFile {
        name: system.as_ref().and_then(|view| reader.name(view, "name")),
        board: system.as_ref().and_then(|view| reader.text(view, "board")),
        schedule: schedule.map(|view| Schedule {
            frame: reader.duration(&view, "frame"),
            plans: reader.names(&view, "plans"),
            place: view.place,
        }),
        log_windows: log.and_then(|view| reader.flag(&view, "windows")),
        limits: limits.map(|view| read_limits(&mut reader, &view)),
        shutdown: shutdown.map(|view| Shutdown {
            when_finished: reader.texts(&view, "when-finished"),
            at_latest: reader.duration(&view, "at-latest"),
        }),
        housekeeping: housekeeping.map(|view| Housekeeping {
            core: reader.number(&view, "core", MOST_CORE),
            windows: windows(&mut reader, &view, RESERVED_NAME, &lang::HOUSEKEEPING_WINDOW),
        }),
        partitions: partitions
            .into_iter()
            .map(|(name, view)| partition(&mut reader, name, &view))
            .collect(),
        place,
    }
}

fn read_limits(reader: &mut Reader<'_>, view: &View<'_>) -> Limits {
    let mut distribution = |name, section: &'static lang::Section| {
        let Some(view) = reader.table(view, name, section) else {
            return Vec::new();
        };
        let keys = section.keys.iter();
        keys.filter_map(|key| Some((key.name, reader.duration(&view, key.name)?))).collect()
    };
    Limits {
        timer: distribution("timer", &lang::LIMITS_TIMER),
        window: distribution("window", &lang::LIMITS_WINDOW),
        switch: reader.duration(view, "switch"),
        exits_per_second: reader.number(view, "exits_per_second", u32::MAX.into()),
        is_empty: view.is_empty(),
        place: view.place,
    }
}

fn partition(reader: &mut Reader<'_>, name: At<String>, view: &View<'_>) -> Partition {
    if RESERVED_NAMES.contains(&name.value.as_str()) {
        let message = format!("a partition cannot be called `{}`", name.value);
        let remedy =
            "give it another name: logs, reports and `bulkhead who` call the hypervisor so";
        let finding = Finding::new(Rule::BadName, message, remedy);
        reader.report(finding.at(name.place, "the hypervisor's own"));
    } else {
        reader.check_name(&name);
    }
    Partition {
        image: reader.text(view, "image"),
        arguments: reader.text(view, "arguments"),
        kernel: reader.text(view, "kernel"),
        initrd: reader.text(view, "initrd"),
        cmdline: reader.text(view, "cmdline"),
        platform: reader.word(view, "platform", lang::PLATFORM_WORDS),
        memory: reader.whole(view, "memory", Dimension::Size),
        cores: reader.numbers(view, "cores", MOST_CORE),
        windows: windows(reader, view, &name.value, &lang::WINDOW),
        off_in: reader.texts(view, "off-in"),
        may_switch_plan: reader.flag(view, "may-switch-plan"),
        donates_to: reader.text(view, "donates-to"),
        hygiene: reader.words(view, "hygiene", lang::HYGIENE_WORDS),
        accepted: reader.full_texts(view, "accept-smt-sibling"),
        name,
    }
}

/// In reports and messages this names the hypervisor's own windows.
const RESERVED_NAME: &str = "housekeeping";

/// What reports, logs and questions call the hypervisor and its parts: no partition's name.
pub(crate) const RESERVED_NAMES: &[&str] = &[RESERVED_NAME, "hypervisor", "bulkhead", "boot"];

/// `None` where the key is not there. What cannot be read counts as windows all the same: only its own mistake is told.
fn windows(
    reader: &mut Reader<'_>,
    view: &View<'_>,
    owner: &str,
    section: &'static lang::Section,
) -> Option<At<Vec<Window>>> {
    if !view.has("window") {
        return None;
    }
    let nothing = At { value: Vec::new(), place: view.place };
    let tables = reader.tables(view, "window", section).unwrap_or(nothing);
    if view.is_empty_list("window") {
        let finding = Finding::new(
            Rule::NoWindow,
            format!("the list of windows of `{owner}` is empty"),
            "add a window, or take the key out: the core is then dedicated",
        );
        reader.report(finding.at(tables.place, "no window in it"));
    }
    let windows = tables
        .value
        .into_iter()
        .map(|view| Window {
            start: reader.duration(&view, "start"),
            length: reader.duration(&view, "length"),
            core: reader.number(&view, "core", MOST_CORE),
            plans: reader.texts(&view, "plans"),
            place: view.place,
        })
        .collect();
    Some(At { value: windows, place: tables.place })
}

/// Reads a board file and what it includes.
pub(crate) fn read_board(documents: &Documents<'_>, findings: &mut Findings) -> BoardFile {
    let mut reader = Reader::new(findings);
    let root = reader.root(&lang::BOARD_FILE, documents);
    let board = reader.table(&root, "board", &lang::BOARD);
    let clock = reader.table(&root, "clock", &lang::CLOCK);
    let hypervisor = reader.table(&root, "hypervisor", &lang::HYPERVISOR);
    let serial = reader.table(&root, "serial", &lang::SERIAL);
    let power_off = reader.table(&root, "power-off", &lang::POWER_OFF);
    let power = reader.table(&root, "power", &lang::POWER);
    let hygiene = reader.table(&root, "hygiene", &lang::HYGIENE);
    let cores = reader.tables(&root, "core", &lang::CORE);
    let caches = reader.tables(&root, "cache", &lang::CACHE);
    let memory = reader.tables(&root, "memory", &lang::MEMORY);
    BoardFile {
        name: board.as_ref().and_then(|view| reader.name(view, "name")),
        tsc: clock.as_ref().and_then(|view| reader.whole(view, "tsc", Dimension::Frequency)),
        tolerance_ppm: clock
            .as_ref()
            .and_then(|view| reader.whole(view, "tolerance", Dimension::Percentage)),
        vouched: clock.as_ref().and_then(|view| reader.flag(view, "vouched")),
        skew: clock.as_ref().and_then(|view| reader.duration(view, "skew")),
        switch_budget: clock.as_ref().and_then(|view| reader.duration(view, "switch-budget")),
        hypervisor: hypervisor.map(|view| extent(&mut reader, &view)),
        serial: serial.map(|view| read_serial(&mut reader, &view)),
        power_off: power_off.map(|view| PowerOff {
            port: reader.number(&view, "port", MOST_PORT),
            bytes: reader.text(&view, "bytes"),
        }),
        power: power.map(|view| read_power(&mut reader, &view)).unwrap_or_default(),
        hygiene: hygiene.map(|view| HygieneCosts {
            l1d_flush: reader.duration(&view, "l1d-flush"),
            branch_barrier: reader.duration(&view, "branch-barrier"),
            buffer_clear: reader.duration(&view, "buffer-clear"),
            place: view.place,
        }),
        cores: cores.map(|list| At {
            value: list.value.iter().map(|view| core(&mut reader, view)).collect(),
            place: list.place,
        }),
        caches: caches.map(|list| At {
            value: list.value.iter().map(|view| cache(&mut reader, view)).collect(),
            place: list.place,
        }),
        memory: memory.map(|list| At {
            value: list.value.iter().map(|view| extent(&mut reader, view)).collect(),
            place: list.place,
        }),
        surroundings: surroundings::read(&mut reader, &root),
    }
}

fn read_power(reader: &mut Reader<'_>, view: &View<'_>) -> Power {
    // A word that nobody knows has been reported: what it stands for is of no account then.
    let mut ours = |name, word: &str| {
        reader
            .word(view, name, &[word, lang::FIRMWARE])
            .is_some_and(|written| written.value == word)
    };
    Power {
        turbo_off: ours("turbo", "off"),
        base_frequency: ours("frequency", "base"),
        c1_only: ours("idle", "c1"),
    }
}

fn read_serial(reader: &mut Reader<'_>, view: &View<'_>) -> Serial {
    let serial = Serial {
        port: reader.number(view, "port", MOST_PORT),
        address: reader.number(view, "address", MOST_ADDRESS),
        stride: reader.number(view, "stride", u8::MAX.into()),
        width: reader.number(view, "width", u8::MAX.into()),
        clock: reader.whole(view, "clock", Dimension::Frequency),
        baud: reader.number(view, "baud", u32::MAX.into()),
        sound: false,
        place: view.place,
    };
    let Serial { port, address, stride, width, clock, baud, .. } = &serial;
    let keys = [
        ("port", port),
        ("address", address),
        ("stride", stride),
        ("width", width),
        ("clock", clock),
        ("baud", baud),
    ];
    let sound = keys.iter().all(|(key, value)| value.is_some() == view.has(key)) && baud.is_some();
    Serial { sound, ..serial }
}

fn core(reader: &mut Reader<'_>, view: &View<'_>) -> CoreEntry {
    let mut position = |name| reader.number(view, name, u32::MAX.into());
    CoreEntry {
        package: position("package"),
        core: position("core"),
        thread: position("thread"),
        apic_id: reader.number(view, "apic-id", MOST_APIC_ID),
        keys_of_position: ["package", "core", "thread"].iter().filter(|key| view.has(key)).count(),
        place: view.place,
    }
}

fn cache(reader: &mut Reader<'_>, view: &View<'_>) -> CacheEntry {
    CacheEntry {
        level: reader.number(view, "level", u8::MAX.into()),
        size: reader.whole(view, "size", Dimension::Size),
        cores: reader.numbers(view, "cores", MOST_CORE),
        place: view.place,
    }
}

/// Highest host-physical address that the table and the page tables can carry.
pub(crate) const MOST_ADDRESS: u64 = (1 << 48) - 1;

/// The whole range can be addressed.
pub(crate) fn extent(reader: &mut Reader<'_>, view: &View<'_>) -> Extent {
    let start = reader.number(view, "start", MOST_ADDRESS);
    let size = reader.whole(view, "size", Dimension::Size);
    let (Some(first), Some(length)) = (&start, &size) else { return Extent { start, size } };
    if first.value.saturating_add(length.value) <= MOST_ADDRESS + 1 {
        return Extent { start, size };
    }
    let finding = Finding::new(
        Rule::BadNumber,
        "a range ends behind the last address",
        format!(
            "make it end at {:#x} or before: processors have 48 bits of address here",
            MOST_ADDRESS + 1
        ),
    );
    reader.report(finding.at(length.place, "too large").with(first.place, "its first byte"));
    Extent { start, size: None }
}
