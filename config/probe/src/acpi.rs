//! The ACPI tables that say where cores, interrupts, timers and IOMMUs are. ACPI Specification 6.5, 5.2; Intel VT-d
//! 4.1, 8; AMD I/O Virtualization 3.08, 5.2.
//!
//! The board's own decoders rather than the `acpi` crate's: that one reads through pointers, is `unsafe` to feed, and
//! knows neither DMAR nor IVRS.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{Entries, byte, half, long, word};

/// Bytes of the header that every table begins with.
pub const HEADER: usize = 36;

/// Signatures of the tables that are read here. The others are code, or of no use for a board file.
pub const WANTED: [&[u8; 4]; 8] =
    [b"APIC", b"FACP", b"HPET", b"DMAR", b"IVRS", b"MCFG", b"SPCR", b"DBG2"];

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its APIC id.
    pub id: u8,
    /// Address of its registers.
    pub address: u64,
    /// The global system interrupt of its first pin.
    pub first_interrupt: u32,
}

/// When an interrupt line asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// On a change.
    Edge,
    /// As long as it is asserted.
    Level,
}

impl Trigger {
    /// As the board file names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Level => "level",
        }
    }
}

/// Which level of an interrupt line is the asserted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// High.
    High,
    /// Low.
    Low,
}

impl Polarity {
    /// As the board file names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }
}

/// An ISA interrupt that arrives elsewhere, or otherwise, than by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// The ISA interrupt.
    pub irq: u8,
    /// The global system interrupt where it arrives.
    pub interrupt: u32,
    /// Edge or level.
    pub trigger: Trigger,
    /// High or low.
    pub polarity: Polarity,
}

/// What the MADT says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Madt {
    /// APIC ids of the enabled processors.
    pub processors: Vec<u32>,
    /// I/O APICs.
    pub io_apics: Vec<IoApic>,
    /// Overrides of ISA interrupts.
    pub overrides: Vec<Override>,
    /// What of it does not add up, each a sentence without its full stop.
    pub flaws: Vec<String>,
}

/// The power-management timer, of 3.579545 MHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Its I/O port.
    pub port: u16,
    /// 24 or 32.
    pub bits: u8,
}

/// A device as an IOMMU's tables name it: where to start, and the devices and functions on the way down the bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Segment.
    pub segment: u16,
    /// The bus where the path starts.
    pub bus: u8,
    /// (device, function) of each bridge on the way, and last of the device itself.
    pub steps: Vec<(u8, u8)>,
}

/// An IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// Address of its registers.
    pub registers: u64,
    /// PCI segment that it serves.
    pub segment: u16,
    /// It serves every device of the segment that no other one names.
    pub rest: bool,
    /// Devices that it names.
    pub devices: Vec<Path>,
}

/// Memory that firmware lets devices reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// The devices; none: all.
    pub devices: Vec<Path>,
}

/// What DMAR or IVRS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dma {
    /// IOMMUs.
    pub iommus: Vec<Iommu>,
    /// Memory that devices reach for firmware's sake.
    pub reserved: Vec<DmaRange>,
    /// What of it does not add up, each a sentence without its full stop.
    pub flaws: Vec<String>,
}

/// The table with this signature whose length and checksum hold; of several the first in the order of firmware's root table, which the
/// hypervisor and operating systems take too.
#[must_use]
pub fn find<'t>(tables: &'t [Vec<u8>], signature: &[u8; 4]) -> Option<&'t [u8]> {
    tables.iter().filter(|table| table.starts_with(signature)).find_map(|table| whole(table).ok())
}

/// The bytes of a table; what is wrong with it otherwise.
fn whole(table: &[u8]) -> Result<&[u8], &'static str> {
    let length = word(table, 4).ok_or("shorter than its header")? as usize;
    let whole = table.get(..length).ok_or("shorter than the length in its header")?;
    let sum = whole.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    match (whole.len() >= HEADER, sum) {
        (false, _) => Err("shorter than its header"),
        (true, 0) => Ok(whole),
        (true, _) => Err("damaged: its checksum is wrong"),
    }
}

/// What does not add up among the tables themselves, each a sentence without its full stop.
#[must_use]
pub fn flaws(tables: &[Vec<u8>]) -> Vec<String> {
    let mut flaws = Vec::new();
    for signature in WANTED {
        let name = signature.escape_ascii();
        let same = tables.iter().filter(|table| table.starts_with(signature));
        let read: Vec<_> = same.map(|table| whole(table)).collect();
        for flaw in read.iter().filter_map(|table| table.err()) {
            flaws.push(format!(
                "an ACPI table {name} is {flaw}. It is not used; a newer firmware may mend it"
            ));
        }
        let good = read.iter().filter(|table| table.is_ok()).count();
        if good > 1 {
            flaws.push(format!(
                "firmware has {good} ACPI tables {name}. The first in its root table counts, as for operating systems"
            ));
        }
    }
    let known = |table: &&Vec<u8>| WANTED.iter().any(|signature| table.starts_with(*signature));
    let unknown = tables.iter().filter(|table| !known(table)).count();
    if unknown > 0 {
        flaws.push(format!("{unknown} ACPI tables have a signature that is not read here"));
    }
    flaws
}

/// Reads the entries of a table; what does not add up is told.
fn each_entry(
    table: &[u8],
    name: &str,
    (start, least): (usize, usize),
    length: fn(&[u8]) -> Option<usize>,
    flaws: &mut Vec<String>,
    mut read: impl FnMut(&[u8]) -> Option<()>,
) {
    let mut entries = Entries::new(table.get(start..).unwrap_or_default(), least, length);
    let short = entries.by_ref().filter(|entry| read(entry).is_none()).count();
    if short > 0 {
        flaws.push(format!("{short} entries of the ACPI table {name} are malformed and left out"));
    }
    if let rest @ 1.. = entries.rest().len() {
        flaws.push(format!(
            "the entries of the ACPI table {name} do not add up to its length: its last {rest} bytes are left out"
        ));
    }
}

/// Reads a MADT.
#[must_use]
pub fn madt(table: &[u8]) -> Madt {
    let mut madt = Madt::default();
    let mut flaws = Vec::new();
    let length = |entry: &[u8]| byte(entry, 1).map(usize::from);
    each_entry(table, "APIC", (44, 2), length, &mut flaws, |entry| madt_entry(entry, &mut madt));
    let before = madt.processors.len();
    madt.processors.retain(|id| *id != NOBODY);
    if madt.processors.len() < before {
        flaws.push(
            "the ACPI table APIC has enabled processors with the id 255, or 0xffffffff, which stand for none: they are left out".into(),
        );
    }
    Madt { flaws, ..madt }
}

/// An APIC id that no processor has: a message to it reaches all. ACPI 6.5, 5.2.12.2 and 5.2.12.12.
pub(crate) const NOBODY: u32 = u32::MAX;

fn madt_entry(entry: &[u8], madt: &mut Madt) -> Option<()> {
    const ENABLED: u32 = 1;
    match byte(entry, 0)? {
        0 if word(entry, 4)? & ENABLED != 0 => {
            let id = byte(entry, 3)?;
            add(&mut madt.processors, if id == u8::MAX { NOBODY } else { u32::from(id) });
        }
        9 if word(entry, 8)? & ENABLED != 0 => add(&mut madt.processors, word(entry, 4)?),
        1 => madt.io_apics.push(IoApic {
            id: byte(entry, 2)?,
            address: u64::from(word(entry, 4)?),
            first_interrupt: word(entry, 8)?,
        }),
        2 => {
            let flags = half(entry, 8)?;
            // "Conforms to the bus" is edge and high on ISA, which is the only bus there.
            let polarity = if flags & 3 == 3 { Polarity::Low } else { Polarity::High };
            let trigger = if flags >> 2 & 3 == 3 { Trigger::Level } else { Trigger::Edge };
            let (irq, interrupt) = (byte(entry, 3)?, word(entry, 4)?);
            madt.overrides.push(Override { irq, interrupt, trigger, polarity });
        }
        _ => {}
    }
    Some(())
}

/// A processor may stand in both the old and the new kind of entry.
fn add(processors: &mut Vec<u32>, id: u32) {
    if !processors.contains(&id) {
        processors.push(id);
    }
}

/// The PM timer of a FADT; `None` where it has none at an I/O port. As the hypervisor reads it at boot: the extended block counts where it
/// has an address, and a block of another length than 4 is no timer. ACPI 6.5, table 5.9.
#[must_use]
pub fn pm_timer(fadt: &[u8]) -> Option<PmTimer> {
    const WIDE: u32 = 1 << 8;
    const IN_PORT_SPACE: u8 = 1;
    const BYTES: u8 = 4;
    let bits = if word(fadt, 112)? & WIDE != 0 { 32 } else { 24 };
    let extended = long(fadt, 212).filter(|address| *address != 0);
    let (space, port) = match extended {
        Some(address) => (byte(fadt, 208)?, address),
        None => (IN_PORT_SPACE, u64::from(word(fadt, 76)?)),
    };
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    (byte(fadt, 91)? == BYTES && space == IN_PORT_SPACE).then_some(PmTimer { port, bits })
}

/// Address of the registers of an HPET, where they lie in memory. 0 is what firmware wrote, and no address.
#[must_use]
pub fn hpet(table: &[u8]) -> Option<u64> {
    const IN_MEMORY: u8 = 0;
    let address = long(table, 44)?;
    (byte(table, 40)? == IN_MEMORY).then_some(address)
}

/// Reads a DMAR (Intel).
#[must_use]
pub fn dmar(table: &[u8]) -> Dma {
    let (mut dma, mut flaws) = (Dma::default(), Vec::new());
    let length = |entry: &[u8]| half(entry, 2).map(usize::from);
    each_entry(table, "DMAR", (48, 4), length, &mut flaws, |entry| dmar_entry(entry, &mut dma));
    Dma { flaws, ..dma }
}

fn dmar_entry(entry: &[u8], dma: &mut Dma) -> Option<()> {
    const REST: u8 = 1;
    match half(entry, 0)? {
        0 => dma.iommus.push(Iommu {
            registers: long(entry, 8)?,
            segment: half(entry, 6)?,
            rest: byte(entry, 4)? & REST != 0,
            devices: scopes(entry.get(16..)?, half(entry, 6)?),
        }),
        1 => {
            let (start, last) = (long(entry, 8)?, long(entry, 16)?);
            let size = last.checked_sub(start)?.checked_add(1)?;
            let devices = scopes(entry.get(24..)?, half(entry, 6)?);
            dma.reserved.push(DmaRange { start, size, devices });
        }
        _ => {}
    }
    Some(())
}

/// Device scopes: endpoints and bridges; I/O APICs and HPETs have their interrupts remapped and own no memory.
fn scopes(bytes: &[u8], segment: u16) -> Vec<Path> {
    const ENDPOINT: u8 = 1;
    const BRIDGE: u8 = 2;
    Entries::new(bytes, 6, |entry| byte(entry, 1).map(usize::from))
        .filter(|entry| matches!(byte(entry, 0), Some(ENDPOINT | BRIDGE)))
        .filter_map(|entry| {
            let steps = entry.get(6..)?.chunks_exact(2).filter_map(|step| match step {
                [device, function] => Some((*device, *function)),
                _ => None,
            });
            let steps: Vec<_> = steps.collect();
            let bus = byte(entry, 5)?;
            (!steps.is_empty()).then_some(Path { segment, bus, steps })
        })
        .collect()
}

/// A 16550 whose registers lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUart {
    /// Its first register.
    pub address: u64,
    /// Bytes from one register to the next: 1 or 4.
    pub stride: u8,
    /// Bits of an access: 8 or 32.
    pub width: u8,
}

/// Interfaces that are 16550s: full, 16450, and one with parameters. Debug Port Table 2, table 3.
const SERIAL_KINDS: [u16; 3] = [0, 1, 0x12];

/// The serial port in memory that an SPCR names. Serial Port Console Redirection Table 1.10.
#[must_use]
pub fn console(spcr: &[u8]) -> Option<MemoryUart> {
    let kind = u16::from(byte(spcr, 36)?);
    SERIAL_KINDS.contains(&kind).then(|| memory_uart(spcr.get(40..)?)).flatten()
}

/// The serial ports in memory that a DBG2 names.
#[must_use]
pub fn debug_ports(table: &[u8]) -> Vec<MemoryUart> {
    const SERIAL: u16 = 0x8000;
    let start = word(table, 36).and_then(|start| usize::try_from(start).ok());
    let body = start.and_then(|start| table.get(start..)).unwrap_or_default();
    Entries::new(body, 22, |entry| half(entry, 1).map(usize::from))
        .filter_map(|entry| {
            let is_16550 = half(entry, 12)? == SERIAL && SERIAL_KINDS.contains(&half(entry, 14)?);
            let place = usize::from(half(entry, 18)?);
            is_16550.then(|| memory_uart(entry.get(place..)?)).flatten()
        })
        .collect()
}

/// Out of a Generic Address Structure: an access of 32 bits means that the registers are as far apart. ACPI 6.5, 5.2.3.2.
fn memory_uart(place: &[u8]) -> Option<MemoryUart> {
    const IN_MEMORY: u8 = 0;
    const DOUBLE_WORD: u8 = 3;
    let (space, bits, access) = (byte(place, 0)?, byte(place, 1)?, byte(place, 3)?);
    let wide = access == DOUBLE_WORD || (access == 0 && bits == 32);
    let (stride, width) = if wide { (4, 32) } else { (1, 8) };
    (space == IN_MEMORY).then_some(MemoryUart { address: long(place, 4)?, stride, width })
}

/// The segments whose configuration space an MCFG places in memory. PCI Firmware Specification 3.3, 4.1.2.
#[must_use]
pub fn segments(mcfg: &[u8]) -> Vec<u16> {
    const ENTRIES: usize = 44;
    const ENTRY: usize = 16;
    let entries = mcfg.get(ENTRIES..).unwrap_or_default().chunks_exact(ENTRY);
    let mut segments: Vec<u16> = entries.filter_map(|entry| half(entry, 8)).collect();
    segments.sort_unstable();
    segments.dedup();
    segments
}

/// Reads an IVRS (AMD).
#[must_use]
pub fn ivrs(table: &[u8]) -> Dma {
    let (mut dma, mut flaws) = (Dma::default(), Vec::new());
    let length = |entry: &[u8]| half(entry, 2).map(usize::from);
    each_entry(table, "IVRS", (48, 4), length, &mut flaws, |entry| ivrs_entry(entry, &mut dma));
    Dma { flaws, ..dma }
}

fn ivrs_entry(entry: &[u8], dma: &mut Dma) -> Option<()> {
    match byte(entry, 0)? {
        // The same IOMMU may stand there in an old and in a newer form: the first is enough for its place.
        kind @ (0x10 | 0x11 | 0x40) => {
            let (registers, segment) = (long(entry, 8)?, half(entry, 16)?);
            if dma.iommus.iter().any(|known| known.registers == registers) {
                return Some(());
            }
            let start = if kind == 0x10 { 24 } else { 40 };
            let (rest, devices) = ivhd_devices(entry.get(start..)?, segment);
            dma.iommus.push(Iommu { registers, segment, rest, devices });
        }
        kind @ 0x20..=0x22 => {
            let (start, size) = (long(entry, 16)?, long(entry, 24)?);
            let one = |id: u16| path_of(0, id);
            let devices = match kind {
                0x20 => Vec::new(),
                0x21 => alloc::vec![one(half(entry, 4)?)],
                _ => (half(entry, 4)?..=half(entry, 6)?).map(one).collect(),
            };
            dma.reserved.push(DmaRange { start, size, devices });
        }
        _ => {}
    }
    Some(())
}

/// Whether an IOMMU serves all that nobody names, and the devices that it does name.
fn ivhd_devices(bytes: &[u8], segment: u16) -> (bool, Vec<Path>) {
    const ALL: u8 = 1;
    // With an alias, or with more settings, a device is selected all the same.
    const SELECT: [u8; 3] = [2, 0x42, 0x46];
    const RANGE_START: [u8; 3] = [3, 0x43, 0x47];
    const RANGE_END: u8 = 4;
    let (mut rest, mut devices, mut from) = (false, Vec::new(), None);
    // The two highest bits of its type give the length of an entry: 4, 8, 16 or 32.
    for entry in Entries::new(bytes, 4, |entry| byte(entry, 0).map(|kind| 4 << (kind >> 6))) {
        let (Some(kind), Some(id)) = (byte(entry, 0), half(entry, 1)) else { break };
        match kind {
            ALL => rest = true,
            kind if SELECT.contains(&kind) => devices.push(path_of(segment, id)),
            kind if RANGE_START.contains(&kind) => from = Some(id),
            RANGE_END => {
                if let Some(first) = from.take() {
                    // A range over everything is the way in which most firmware says "all".
                    rest |= (first, id) == (0, 0xFFFF) || id >> 8 != first >> 8;
                    if id >> 8 == first >> 8 {
                        devices.extend((first..=id).map(|id| path_of(segment, id)));
                    }
                }
            }
            _ => {}
        }
    }
    (rest, devices)
}

fn path_of(segment: u16, id: u16) -> Path {
    let [function, bus] = id.to_le_bytes();
    Path { segment, bus, steps: alloc::vec![(function >> 3, function & 7)] }
}
