//! The ACPI tables that say where cores, interrupts, timers and IOMMUs are. ACPI Specification 6.5, 5.2; Intel VT-d
//! 4.1, 8; AMD I/O Virtualization 3.08, 5.2.
//!
//! The board's own decoders rather than the `acpi` crate's: that one reads through pointers, is `unsafe` to feed, and
//! knows neither DMAR nor IVRS.

use alloc::vec::Vec;

use crate::bytes::{byte, entries, half, long, word};

/// Bytes of the header that every table begins with.
pub const HEADER: usize = 36;

/// Signatures of the tables that are read here. The others are code, or of no use for a board file.
pub const WANTED: [&[u8; 4]; 5] = [b"APIC", b"FACP", b"HPET", b"DMAR", b"IVRS"];

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
}

/// The table with this signature whose length and checksum hold.
#[must_use]
pub fn find<'t>(tables: &'t [Vec<u8>], signature: &[u8; 4]) -> Option<&'t [u8]> {
    tables.iter().map(Vec::as_slice).find_map(|table| {
        let whole = table.get(..word(table, 4)? as usize)?;
        let sum = whole.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        (whole.starts_with(signature) && whole.len() >= HEADER && sum == 0).then_some(whole)
    })
}

/// Reads a MADT.
#[must_use]
pub fn madt(table: &[u8]) -> Madt {
    const ENTRIES: usize = 44;
    let mut madt = Madt::default();
    let body = table.get(ENTRIES..).unwrap_or_default();
    for entry in entries(body, 2, |entry| byte(entry, 1).map(usize::from)) {
        // An entry that is shorter than its type wants is left out.
        let _read_or_left_out = madt_entry(entry, &mut madt);
    }
    madt
}

fn madt_entry(entry: &[u8], madt: &mut Madt) -> Option<()> {
    const ENABLED: u32 = 1;
    match byte(entry, 0)? {
        0 if word(entry, 4)? & ENABLED != 0 => {
            add(&mut madt.processors, u32::from(byte(entry, 3)?))
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

/// The PM timer of a FADT; `None` where it has none at an I/O port.
#[must_use]
pub fn pm_timer(fadt: &[u8]) -> Option<PmTimer> {
    const WIDE: u32 = 1 << 8;
    const IN_PORT_SPACE: u8 = 1;
    let bits = if word(fadt, 112)? & WIDE != 0 { 32 } else { 24 };
    let extended = (byte(fadt, 208) == Some(IN_PORT_SPACE)).then(|| long(fadt, 212)).flatten();
    let port = extended.filter(|port| *port != 0).or_else(|| word(fadt, 76).map(u64::from))?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(PmTimer { port, bits })
}

/// Address of the registers of an HPET, where they lie in memory.
#[must_use]
pub fn hpet(table: &[u8]) -> Option<u64> {
    const IN_MEMORY: u8 = 0;
    let address = long(table, 44)?;
    (byte(table, 40)? == IN_MEMORY && address != 0).then_some(address)
}

/// Reads a DMAR (Intel).
#[must_use]
pub fn dmar(table: &[u8]) -> Dma {
    const ENTRIES: usize = 48;
    let mut dma = Dma::default();
    let body = table.get(ENTRIES..).unwrap_or_default();
    for entry in entries(body, 4, |entry| half(entry, 2).map(usize::from)) {
        let _read_or_left_out = dmar_entry(entry, &mut dma);
    }
    dma
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
    entries(bytes, 6, |entry| byte(entry, 1).map(usize::from))
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

/// Reads an IVRS (AMD).
#[must_use]
pub fn ivrs(table: &[u8]) -> Dma {
    const ENTRIES: usize = 48;
    let mut dma = Dma::default();
    let body = table.get(ENTRIES..).unwrap_or_default();
    for entry in entries(body, 4, |entry| half(entry, 2).map(usize::from)) {
        let _read_or_left_out = ivrs_entry(entry, &mut dma);
    }
    dma
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
    const SELECT: u8 = 2;
    const RANGE_START: u8 = 3;
    const RANGE_END: u8 = 4;
    let (mut rest, mut devices, mut from) = (false, Vec::new(), None);
    // The two highest bits of its type give the length of an entry: 4, 8, 16 or 32.
    for entry in entries(bytes, 4, |entry| byte(entry, 0).map(|kind| 4 << (kind >> 6))) {
        let (Some(kind), Some(id)) = (byte(entry, 0), half(entry, 1)) else { break };
        match kind {
            ALL => rest = true,
            SELECT => devices.push(path_of(segment, id)),
            RANGE_START => from = Some(id),
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
