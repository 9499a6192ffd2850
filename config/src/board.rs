//! Checks the board file: each part by itself, so that one mistake does not hide the others.

use bulkhead_board::abilities::NO_MULTIHIT;
use bulkhead_board::{CHIPSET_PORTS, POSSIBLE_CLOCKS};
use bulkhead_table::{HygieneCosts, MAX_CORES, PAGE_SIZE, Power, Range, Uart};

use crate::diagnostics::{Finding, Findings};
use crate::hygiene;
use crate::reader::{positive_ticks, ticks};
use crate::rules::Rule;
use crate::schema::{BoardFile, Extent};
use crate::serial;
use crate::source::{At, Place};
use crate::surroundings;
use crate::topology::{self, Topology};
use crate::units::size_text;

/// Where the hypervisor's ELF file is linked.
const HYPERVISOR_START: u64 = 0x10_0000;

/// Where the hypervisor's range ends at the latest.
const HYPERVISOR_END: u64 = 1 << 32;

/// Where the board's memory begins at the earliest.
const LOW_MEMORY_END: u64 = 1 << 20;

/// Ports of the two 8259s, which the hypervisor masks and keeps masked.
const INTERRUPT_CONTROLLERS: [(u64, u64); 2] = [(0x20, 0x21), (0xA0, 0xA1)];

/// Whether ports from `first` to `last` are another device's on every PC.
pub(crate) fn are_taken(first: u64, last: u64) -> bool {
    meet(first, last, &CHIPSET_PORTS)
}

/// Whether ports from `first` to `last` hold one of these.
fn meet(first: u64, last: u64, ports: &[(u64, u64)]) -> bool {
    ports.iter().any(|(begin, end)| *begin <= last && first <= *end)
}

/// The time-stamp counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub hz: u64,
    pub tolerance_ppm: u32,
    /// Whether the file vouches for one rate in every state.
    pub vouched: bool,
    pub skew: u64,
    pub switch_budget: u64,
}

/// What of the board is sound; `None` where it is not, which is then reported.
pub(crate) struct CheckedBoard {
    pub name: Option<String>,
    /// Frequency alone: enough to convert durations.
    pub hz: Option<u64>,
    /// Switch budget in ticks and where it is declared.
    pub switch_budget: Option<At<u64>>,
    pub clock: Option<Clock>,
    /// Largest difference between two cores' clocks, in ticks.
    pub skew: Option<At<u64>>,
    pub hygiene: HygieneCosts,
    pub apic_ids: Option<Vec<u32>>,
    pub topology: Topology,
    /// The list of the cores in the file.
    pub cores_place: Option<Place>,
    pub memory: Option<Vec<At<Range>>>,
    pub hypervisor: Option<At<Range>>,
    /// The serial port; `Some(None)` where the board has none.
    pub uart: Option<Option<Uart>>,
    /// Whether the abilities have `no-itlb-multihit`.
    pub large_code_pages: bool,
    pub power: Power,
    pub power_off: Option<Option<(u16, Vec<u8>)>>,
}

/// Checks all of it.
pub(crate) fn check(board: &BoardFile, findings: &mut Findings) -> CheckedBoard {
    let hz = frequency(board, findings);
    let switch_budget = hz.and_then(|hz| {
        let written = board.switch_budget.as_ref()?;
        let value = positive_ticks(written, "switch-budget", hz, findings)?;
        Some(At { value, place: written.place })
    });
    let skew = hz.and_then(|hz| {
        let written = board.skew.as_ref()?;
        let value = ticks(written, "skew", hz, findings)?;
        Some(At { value, place: written.place })
    });
    let tolerance_ppm = tolerance(board, findings);
    let memory = memory(board, findings);
    surroundings::check(board, memory.as_deref().unwrap_or_default(), findings);
    CheckedBoard {
        name: board.name.as_ref().map(|name| name.value.clone()),
        hz,
        clock: clock(board, hz, tolerance_ppm, skew.as_ref(), switch_budget.as_ref()),
        skew,
        hygiene: hz.map(|hz| hygiene::costs(board, hz, findings)).unwrap_or_default(),
        switch_budget,
        apic_ids: apic_ids(board, findings),
        topology: topology::check(board, findings),
        cores_place: board.cores.as_ref().map(|cores| cores.place),
        hypervisor: hypervisor(board, memory.as_deref(), findings),
        memory,
        uart: serial::check(board, findings),
        large_code_pages: surroundings::has_ability(board, NO_MULTIHIT),
        power: board.power,
        power_off: power_off(board, findings),
    }
}

fn clock(
    board: &BoardFile,
    hz: Option<u64>,
    tolerance_ppm: Option<u32>,
    skew: Option<&At<u64>>,
    switch_budget: Option<&At<u64>>,
) -> Option<Clock> {
    Some(Clock {
        hz: hz?,
        tolerance_ppm: tolerance_ppm?,
        vouched: board.vouched.as_ref().is_some_and(|written| written.value),
        skew: skew?.value,
        switch_budget: switch_budget?.value,
    })
}

fn frequency(board: &BoardFile, findings: &mut Findings) -> Option<u64> {
    let tsc = board.tsc.as_ref()?;
    if POSSIBLE_CLOCKS.contains(&tsc.value) {
        return Some(tsc.value);
    }
    let finding = Finding::new(
        Rule::BadNumber,
        "`tsc` is not the frequency of a time-stamp counter",
        "write a frequency from 1 MHz to 100 GHz, as measured on the board",
    );
    findings.push(finding.at(tsc.place, "out of range"));
    None
}

fn tolerance(board: &BoardFile, findings: &mut Findings) -> Option<u32> {
    let tolerance = board.tolerance_ppm.as_ref()?;
    if tolerance.value == 0 {
        let finding = Finding::new(
            Rule::ZeroTolerance,
            "a `tolerance` of nothing refuses every machine",
            "write what the board's data sheet allows, such as \"0.1 %\": no measurement is exact",
        );
        findings.push(finding.at(tolerance.place, "nothing"));
        return None;
    }
    if tolerance.value < 1_000_000 {
        return u32::try_from(tolerance.value).ok();
    }
    let finding = Finding::new(
        Rule::BadNumber,
        "a `tolerance` of 100 % or more accepts any clock",
        "write what the board's data sheet allows, such as \"0.1 %\"",
    );
    findings.push(finding.at(tolerance.place, "out of range"));
    None
}

fn apic_ids(board: &BoardFile, findings: &mut Findings) -> Option<Vec<u32>> {
    let cores = board.cores.as_ref()?;
    if cores.value.is_empty() || cores.value.len() > MAX_CORES {
        let message = format!("the board has {} cores", cores.value.len());
        let remedy = format!("name 1 to {MAX_CORES} cores: the table holds no more");
        let finding = Finding::new(Rule::TooManyCores, message, remedy);
        findings.push(finding.at(cores.place, format!("1 to {MAX_CORES} are possible")));
        return None;
    }
    let written = cores.value.iter().filter_map(|core| core.apic_id.as_ref());
    for (first, again) in findings.comparisons.repeated(written, |id| id.value) {
        let finding = Finding::new(
            Rule::DuplicateApicId,
            format!("two cores have the APIC id {}", again.value),
            "give each core the id that the firmware's MADT shows for it",
        );
        findings.push(finding.at(again.place, "again here").with(first.place, "first here"));
    }
    let ids: Option<Vec<u32>> =
        cores.value.iter().map(|core| u32::try_from(core.apic_id.as_ref()?.value).ok()).collect();
    // A duplicate still counts as a core: the checks of the system go on with the right number.
    ids
}

/// A range made of whole pages; reports one that is not.
fn range(extent: &Extent, findings: &mut Findings) -> Option<At<Range>> {
    let (start, size) = (extent.start.as_ref()?, extent.size.as_ref()?);
    let page = size_text(PAGE_SIZE);
    let mut refuse = |place, message: &str| {
        let remedy = format!("write a multiple of {page} ({PAGE_SIZE:#x})");
        let finding = Finding::new(Rule::BoardMemoryUnaligned, message, remedy);
        findings.push(finding.at(place, format!("pages have {page}")));
    };
    let aligned = start.value.is_multiple_of(PAGE_SIZE);
    if !aligned {
        refuse(start.place, "a memory range does not start at a page");
    }
    let whole = size.value != 0 && size.value.is_multiple_of(PAGE_SIZE);
    if !whole {
        refuse(size.place, "the size of a memory range is not one page or more, in whole pages");
    }
    let range = Range { start: start.value, size: size.value };
    (aligned && whole).then_some(At { value: range, place: start.place })
}

fn memory(board: &BoardFile, findings: &mut Findings) -> Option<Vec<At<Range>>> {
    let written = board.memory.as_ref()?;
    if written.value.is_empty() {
        let remedy = "add a section `[[memory]]` for each range of usable RAM";
        let finding = Finding::new(Rule::MissingKey, "the board has no memory", remedy);
        findings.push(finding.at(written.place, "empty"));
    }
    let ranges: Vec<_> = written.value.iter().map(|extent| range(extent, findings)).collect();
    let ranges: Vec<_> = ranges.into_iter().collect::<Option<_>>()?;
    let mut sound = !ranges.is_empty();
    if let Some(low) = ranges.iter().find(|range| range.value.start < LOW_MEMORY_END) {
        let finding = Finding::new(
            Rule::BoardMemoryLow,
            format!("a memory range of the board starts at {:#x}, below 1 MiB", low.value.start),
            low_memory_remedy(&low.value),
        );
        findings.push(finding.at(low.place, "not to be given away"));
        sound = false;
    }
    findings.comparisons.add(ranges.len());
    for pair in ranges.windows(2) {
        let [earlier, later] = pair else { continue };
        if later.value.start < earlier.value.end() {
            sound = false;
            let message = format!(
                "the memory range from {:#x} begins before the one before it ends",
                later.value.start
            );
            let remedy = order_remedy(&earlier.value, &later.value);
            let finding = Finding::new(Rule::BoardMemoryOrder, message, remedy);
            findings.push(
                finding.at(later.place, "this range").with(earlier.place, "the one before it"),
            );
        }
    }
    sound.then_some(ranges)
}

/// What is left of a range that begins below 1 MiB.
fn low_memory_remedy(range: &Range) -> String {
    const WHY: &str = "below lie firmware data and the page where cores start";
    match range.end().checked_sub(LOW_MEMORY_END).filter(|size| *size > 0) {
        Some(size) => format!(
            "write `start = \"{LOW_MEMORY_END:#x}\"` and `size = \"{}\"`, so that it ends where it did: {WHY}",
            size_text(size)
        ),
        None => format!("take it out: {WHY}"),
    }
}

/// What to do about two ranges of which the later one in the file begins before the other ends.
fn order_remedy(earlier: &Range, later: &Range) -> String {
    if !earlier.overlaps(later) {
        return "list the ranges in ascending order: move this one in front of the other"
            .to_owned();
    }
    let (start, end) = (earlier.start.min(later.start), earlier.end().max(later.end()));
    format!(
        "write one range instead of the two, `start = \"{start:#x}\"` and `size = \"{}\"`, or correct one of them",
        size_text(end - start)
    )
}

fn hypervisor(
    board: &BoardFile,
    memory: Option<&[At<Range>]>,
    findings: &mut Findings,
) -> Option<At<Range>> {
    let own = range(board.hypervisor.as_ref()?, findings)?;
    // One remedy for both rules: with a place of its own for each, following one would break the other.
    let remedy = memory.map(|memory| hypervisor_remedy(memory, own.value.size));
    linked_there(&own, remedy.as_deref(), findings);
    if memory?.iter().any(|range| range.value.contains(&own.value)) {
        return Some(own);
    }
    let message = format!(
        "the hypervisor's range {:#x} to {:#x} is not inside one memory range of the board",
        own.value.start,
        own.value.end()
    );
    let finding = Finding::new(Rule::HypervisorOutside, message, remedy?)
        .at(own.place, "reaches where there is no RAM");
    findings.push(match memory?.iter().find(|range| range.value.overlaps(&own.value)) {
        Some(near) => {
            finding.with(near.place, format!("this range ends at {:#x}", near.value.end()))
        }
        None => finding,
    });
    None
}

/// Most bytes that the hypervisor's range can have on this board: it starts where it is linked, in one range of RAM. `None` where no RAM is there.
pub(crate) fn hypervisor_room(memory: impl IntoIterator<Item = Range>) -> Option<u64> {
    let mut holding = memory
        .into_iter()
        .filter(|range| range.start <= HYPERVISOR_START && HYPERVISOR_START < range.end());
    holding.next().map(|range| range.end().min(HYPERVISOR_END) - HYPERVISOR_START)
}

/// Where the hypervisor's range can lie on this board, at `wanted` bytes or at fewer.
fn hypervisor_remedy(memory: &[At<Range>], wanted: u64) -> String {
    match hypervisor_room(memory.iter().map(|at| at.value)) {
        Some(room) => format!(
            "write `start = \"{HYPERVISOR_START:#x}\"`, where it is linked, and `size = \"{}\"` or less: the RAM there has {}",
            size_text(wanted.min(room)),
            size_text(room)
        ),
        None => format!(
            "the board has no RAM at {HYPERVISOR_START:#x}, where the hypervisor is linked: it cannot run there; correct [[memory]], or choose another board"
        ),
    }
}

/// The hypervisor's ELF file is loaded where it is linked, and addresses itself with 32 bits at first.
fn linked_there(own: &At<Range>, remedy: Option<&str>, findings: &mut Findings) {
    let (start, end) = (own.value.start, own.value.end());
    let message = if start != HYPERVISOR_START {
        format!("the hypervisor's range starts at {start:#x}")
    } else if end > HYPERVISOR_END {
        format!("the hypervisor's range ends at {end:#x}, and it starts with 32-bit addresses")
    } else {
        return;
    };
    let alone = format!(
        "write `start = \"{HYPERVISOR_START:#x}\"`, where it is linked, and `size = \"{}\"` or less: it ends below 4 GiB",
        size_text(own.value.size.min(HYPERVISOR_END - HYPERVISOR_START))
    );
    let remedy = remedy.map_or(alone, str::to_owned);
    let finding = Finding::new(Rule::HypervisorStart, message, remedy);
    findings.push(finding.at(own.place, "not where it is linked"));
}

fn power_off(board: &BoardFile, findings: &mut Findings) -> Option<Option<(u16, Vec<u8>)>> {
    let Some(power_off) = board.power_off.as_ref() else {
        return Some(None);
    };
    let (port, bytes) = (power_off.port.as_ref()?, power_off.bytes.as_ref()?);
    if bytes.value.is_empty() {
        let finding = Finding::new(
            Rule::PowerOffEmpty,
            "the power-off text is empty",
            "write the bytes that the board wants, or take the section out: the machine then halts",
        );
        findings.push(finding.at(bytes.place, "nothing to write"));
        return None;
    }
    if meet(port.value, port.value, &INTERRUPT_CONTROLLERS) {
        let finding = Finding::new(
            Rule::PowerOffPort,
            format!("the power-off port {:#x} is an interrupt controller's", port.value),
            "write the port that switches the board off; the hypervisor keeps the interrupt controllers masked",
        );
        findings.push(finding.at(port.place, "the hypervisor's own"));
        return None;
    }
    let serial = board.serial.as_ref().and_then(|serial| serial.port.as_ref());
    if let Some(serial) = serial.filter(|serial| {
        meet(port.value, port.value, &[(serial.value, serial.value + Uart::REGISTERS - 1)])
    }) {
        let finding = Finding::new(
            Rule::PowerOffPort,
            format!("the power-off port {:#x} is one of the serial port's", port.value),
            "write the port that switches the board off: these bytes would end up in the log",
        );
        findings.push(finding.at(port.place, "the log's").with(serial.place, "its first port"));
        return None;
    }
    Some(Some((u16::try_from(port.value).ok()?, bytes.value.as_bytes().to_vec())))
}
