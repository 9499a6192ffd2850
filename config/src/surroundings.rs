//! What stands around the cores of a board: timers, interrupts, devices, IOMMUs, abilities. Read here, checked in
//! `check`. `bulkhead probe` writes these sections; a board file may leave them out.

mod check;

use bulkhead_board::abilities::{PROCESSOR, VT_X};
use bulkhead_board::acpi::{Polarity, Trigger};
use bulkhead_board::facts::MemoryKind;
use bulkhead_board::pci::{Address, Space};

use crate::diagnostics::{Finding, Findings};
use crate::language as lang;
use crate::reader::{Reader, View, shorten};
use crate::rules::Rule;
use crate::schema::{BoardFile, Extent, MOST_ADDRESS, MOST_PORT, extent};
use crate::source::{At, Place};
use crate::units::Dimension;

pub(crate) use check::{check, pins, ports, registers};

/// Everything around the cores, as the file says it.
pub(crate) struct Surroundings {
    pub pm_timer: Option<At<u64>>,
    /// Where `[timers]` stands and has no `pm-timer`.
    pub no_pm_timer: Option<Place>,
    pub hpet: Option<At<u64>>,
    pub io_apics: Vec<IoApic>,
    pub overrides: Vec<Override>,
    pub functions: Vec<Function>,
    pub reserved: Vec<Reserved>,
    pub iommus: Vec<Iommu>,
    pub abilities: Option<Abilities>,
    pub cache_allocation: Vec<At<u64>>,
}

/// `[[io-apic]]`.
pub(crate) struct IoApic {
    pub address: Option<At<u64>>,
    pub first_interrupt: Option<At<u64>>,
    pub pins: Option<At<u64>>,
}

/// `[[override]]`.
pub(crate) struct Override {
    pub irq: Option<At<u64>>,
    pub interrupt: Option<At<u64>>,
}

/// `[[pci]]`.
pub(crate) struct Function {
    pub address: Option<At<Address>>,
    pub msi: Option<At<u64>>,
    pub msi_x: Option<At<u64>>,
    /// Class, subclass and interface, 24 bits; `None` where it is not well written.
    pub class: Option<u32>,
    pub bars: Vec<Bar>,
}

/// `[[pci.bar]]`.
pub(crate) struct Bar {
    pub index: Option<At<u64>>,
    pub in_memory: Option<bool>,
    pub start: Option<At<u64>>,
    pub size: Option<At<u64>>,
}

/// `[[reserved]]`.
pub(crate) struct Reserved {
    pub start: Option<At<u64>>,
    pub size: Option<At<u64>>,
    pub kind: Option<At<String>>,
    pub devices: Option<At<Vec<At<Address>>>>,
}

/// `[[iommu]]`.
pub(crate) struct Iommu {
    pub registers: Option<At<u64>>,
    pub segment: Option<At<u64>>,
    pub rest: Option<At<bool>>,
    pub devices: Vec<At<Address>>,
}

/// `[abilities]`.
pub(crate) struct Abilities {
    pub processor: Option<At<Vec<At<String>>>>,
    pub vt_x: Option<At<Vec<At<String>>>>,
}

/// The kind of reserved memory that devices reach.
pub(crate) const DMA: &str = "dma";

/// Largest numbers of what ACPI and PCI can name.
const MOST_APIC_ID: u64 = u8::MAX as u64;
const MOST_INTERRUPT: u64 = u32::MAX as u64 >> 1;
const MOST_PINS: u64 = 256;
const MOST_IRQ: u64 = 15;
const MOST_SEGMENT: u64 = u16::MAX as u64;
/// Beyond what a function can have, so that a rule of its own tells why.
const MOST_COUNTED: u64 = u16::MAX as u64;

/// Reads all of it.
pub(crate) fn read(reader: &mut Reader<'_>, root: &View<'_>) -> Surroundings {
    let timers = reader.table(root, "timers", &lang::TIMERS);
    let abilities = reader.table(root, "abilities", &lang::ABILITIES);
    let pm_timer = timers.as_ref().and_then(|view| reader.number(view, "pm-timer", MOST_PORT));
    if let Some(view) = &timers {
        pm_timer_bits(reader, view);
    }
    let no_pm_timer = timers.as_ref().filter(|view| !view.has("pm-timer")).map(|view| view.place);
    Surroundings {
        pm_timer,
        no_pm_timer,
        hpet: timers.as_ref().and_then(|view| reader.number(view, "hpet", MOST_ADDRESS)),
        io_apics: each(reader, root, "io-apic", &lang::IO_APIC, io_apic),
        overrides: each(reader, root, "override", &lang::OVERRIDE, overridden),
        functions: each(reader, root, "pci", &lang::PCI, function),
        reserved: each(reader, root, "reserved", &lang::RESERVED, reserved),
        iommus: each(reader, root, "iommu", &lang::IOMMU, iommu),
        abilities: abilities.map(|view| read_abilities(reader, &view)),
        cache_allocation: cache_allocation(reader, root),
    }
}

/// What the board file of an accepted system says around its cores.
pub(crate) fn of(root: &View<'_>) -> Surroundings {
    let mut told = Findings::default();
    read(&mut Reader::new(&mut told), root)
}

/// One table of these sections, as two boards are compared by it.
pub(crate) struct Entry {
    /// Its header, and for one of several what it is known by: `[[pci]] 0000:00:1f.2`.
    pub name: String,
    /// Its keys and what they say.
    pub said: Vec<(&'static str, Vec<String>)>,
    pub place: Place,
}

/// Every table around the cores, in the order of the language.
pub(crate) fn entries(root: &View<'_>) -> Vec<Entry> {
    const AROUND: [&str; 8] = [
        "reserved",
        "abilities",
        "cache-allocation",
        "timers",
        "io-apic",
        "override",
        "pci",
        "iommu",
    ];
    let keys = lang::BOARD_FILE.keys.iter().filter(|key| AROUND.contains(&key.name));
    keys.flat_map(|key| {
        root.tables_of(key).into_iter().map(|view| {
            let said = view.said();
            let known_by = said.first().filter(|_| matches!(key.form, lang::Form::Tables(_)));
            let known_by = known_by.map(|(_, texts)| texts.join(" "));
            let name = [key.form.example().to_owned()].into_iter().chain(known_by);
            Entry { name: name.collect::<Vec<_>>().join(" "), said, place: view.place }
        })
    })
    .collect()
}

fn each<T>(
    reader: &mut Reader<'_>,
    view: &View<'_>,
    name: &str,
    section: &'static lang::Section,
    one: fn(&mut Reader<'_>, &View<'_>) -> T,
) -> Vec<T> {
    let views = reader.tables(view, name, section).map_or_else(Vec::new, |list| list.value);
    views.iter().map(|view| one(reader, view)).collect()
}

/// Only its two widths exist.
fn pm_timer_bits(reader: &mut Reader<'_>, view: &View<'_>) {
    if let Some(bits) = reader.number(view, "pm-timer-bits", 32)
        && bits.value != 24
        && bits.value != 32
    {
        let message = format!("a PM timer does not count {} bits", bits.value);
        let finding =
            Finding::new(Rule::BadNumber, message, "write 24 or 32, as firmware's FADT says");
        reader.report(finding.at(bits.place, "24 or 32"));
    }
}

fn io_apic(reader: &mut Reader<'_>, view: &View<'_>) -> IoApic {
    // Its id has no rule beyond its range: IDs of I/O APICs and of cores may repeat each other.
    let _in_range = reader.number(view, "id", MOST_APIC_ID);
    let pins = reader.number(view, "pins", MOST_PINS);
    if let Some(none) = pins.as_ref().filter(|pins| pins.value == 0) {
        let finding = Finding::new(
            Rule::BadNumber,
            "an I/O APIC without pins",
            "write how many interrupts arrive there, 24 most of the time: `bulkhead probe` shows it",
        );
        reader.report(finding.at(none.place, "none"));
    }
    IoApic {
        address: reader.number(view, "address", MOST_ADDRESS),
        first_interrupt: reader.number(view, "first-interrupt", MOST_INTERRUPT),
        pins: pins.filter(|pins| pins.value > 0),
    }
}

fn overridden(reader: &mut Reader<'_>, view: &View<'_>) -> Override {
    let triggers = [Trigger::Edge, Trigger::Level].map(Trigger::name);
    let polarities = [Polarity::High, Polarity::Low].map(Polarity::name);
    // Known words are all that can be held against: what the line needs is the device's matter.
    let _known =
        (reader.word(view, "trigger", &triggers), reader.word(view, "polarity", &polarities));
    Override {
        irq: reader.number(view, "irq", MOST_IRQ),
        interrupt: reader.number(view, "interrupt", MOST_INTERRUPT),
    }
}

fn function(reader: &mut Reader<'_>, view: &View<'_>) -> Function {
    notation(reader, view, "id", &[4, 4], "8086:2922");
    let class = notation(reader, view, "class", &[6], "010601");
    let address = reader.text(view, "address");
    Function {
        address: address.and_then(|text| pci_address(reader, &text)),
        msi: reader.number(view, "msi", MOST_COUNTED),
        msi_x: reader.number(view, "msi-x", MOST_COUNTED),
        class: class.and_then(|text| digits_of(&text, 6)),
        bars: each(reader, view, "bar", &lang::PCI_BAR, bar),
    }
}

fn bar(reader: &mut Reader<'_>, view: &View<'_>) -> Bar {
    let spaces = [Space::Memory, Space::Ports].map(Space::name);
    let space = reader.word(view, "space", &spaces);
    Bar {
        index: reader.number(view, "index", MOST_COUNTED),
        in_memory: space.map(|space| space.value == Space::Memory.name()),
        start: reader.number(view, "start", MOST_ADDRESS),
        size: reader.whole(view, "size", Dimension::Size),
    }
}

fn reserved(reader: &mut Reader<'_>, view: &View<'_>) -> Reserved {
    let firmwares = MemoryKind::ALL.into_iter().filter(|kind| kind.is_firmwares());
    let kinds: Vec<_> = firmwares.map(MemoryKind::name).chain([DMA]).collect();
    let Extent { start, size } = extent(reader, view);
    Reserved {
        start,
        size,
        kind: reader.word(view, "kind", &kinds),
        devices: functions(reader, view),
    }
}

fn iommu(reader: &mut Reader<'_>, view: &View<'_>) -> Iommu {
    Iommu {
        registers: reader.number(view, "registers", MOST_ADDRESS),
        segment: reader.number(view, "segment", MOST_SEGMENT),
        rest: reader.flag(view, "rest"),
        devices: functions(reader, view).map_or_else(Vec::new, |list| list.value),
    }
}

fn read_abilities(reader: &mut Reader<'_>, view: &View<'_>) -> Abilities {
    Abilities {
        processor: reader.words(view, "processor", &processor_words()),
        vt_x: reader.words(view, "vt-x", &vt_x_words()),
    }
}

/// Whether the board file names this ability of the processor.
pub(crate) fn has_ability(board: &BoardFile, name: &str) -> bool {
    let abilities = board.surroundings.abilities.as_ref();
    let names = abilities.and_then(|abilities| abilities.processor.as_ref());
    names.is_some_and(|names| names.value.iter().any(|word| word.value == name))
}

/// What `[abilities] processor` may name.
fn processor_words() -> Vec<&'static str> {
    PROCESSOR.iter().map(|ability| ability.name).collect()
}

/// What `[abilities] vt-x` may name.
fn vt_x_words() -> Vec<&'static str> {
    VT_X.iter().map(|ability| ability.name).collect()
}

/// The level of each cache that can be divided.
fn cache_allocation(reader: &mut Reader<'_>, root: &View<'_>) -> Vec<At<u64>> {
    let level = |reader: &mut Reader<'_>, view: &View<'_>| {
        for key in ["ways", "classes"] {
            if let Some(count) = reader.number(view, key, MOST_COUNTED)
                && count.value == 0
            {
                let message = format!("`{key}` is zero");
                let remedy = "write what CPUID leaf 0x10 says, or take the section out";
                let finding = Finding::new(Rule::BadNumber, message, remedy);
                reader.report(finding.at(count.place, "nothing to divide"));
            }
        }
        reader.number(view, "level", MOST_COUNTED)
    };
    each(reader, root, "cache-allocation", &lang::CACHE_ALLOCATION, level)
        .into_iter()
        .flatten()
        .collect()
}

/// The list `devices`.
fn functions(reader: &mut Reader<'_>, view: &View<'_>) -> Option<At<Vec<At<Address>>>> {
    let list = reader.full_texts(view, "devices")?;
    let found = list.value.iter().filter_map(|text| pci_address(reader, text)).collect();
    Some(At { value: found, place: list.place })
}

/// `0000:00:1f.2`.
fn pci_address(reader: &mut Reader<'_>, text: &At<String>) -> Option<At<Address>> {
    let address = parse_address(&text.value);
    if address.is_none() {
        bad_notation(reader, text, "0000:00:1f.2");
    }
    Some(At { value: address?, place: text.place })
}

fn parse_address(text: &str) -> Option<Address> {
    let (segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let small = |text, digits, most| digits_of(text, digits).filter(|value| *value <= most);
    let (segment, bus) = (small(segment, 4, 0xFFFF)?, small(bus, 2, 0xFF)?);
    let (device, function) = (small(device, 2, 31)?, small(function, 1, 7)?);
    Some(Address(segment as u16, bus as u8, device as u8, function as u8))
}

/// Exactly so many lower-case hexadecimal digits.
fn digits_of(text: &str, digits: usize) -> Option<u32> {
    let good = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let plain = text.len() == digits && text.chars().all(good);
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Numbers of so many hexadecimal digits each, with colons between them; `None`, told, where the text is none.
fn notation(
    reader: &mut Reader<'_>,
    view: &View<'_>,
    name: &str,
    digits: &[usize],
    example: &str,
) -> Option<String> {
    let text = reader.text(view, name)?;
    let parts: Vec<_> = text.value.split(':').collect();
    let good = parts.len() == digits.len()
        && parts.iter().zip(digits).all(|(part, digits)| digits_of(part, *digits).is_some());
    if !good {
        bad_notation(reader, &text, example);
    }
    good.then_some(text.value)
}

fn bad_notation(reader: &mut Reader<'_>, text: &At<String>, example: &str) {
    let message = format!("`{}` is not written as `{example}` is", shorten(&text.value));
    let most = if example.contains('.') { "; a device is 1f at most, a function 7" } else { "" };
    let remedy = format!("write lower-case hexadecimal digits, as many as in \"{example}\"{most}");
    reader.report(
        Finding::new(Rule::PciNotation, message, remedy).at(text.place, "not of this form"),
    );
}
