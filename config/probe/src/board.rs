//! The board: what is concluded from the facts of a machine.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::abilities::{self, CacheAllocation};
use crate::acpi::{self, Dma, DmaRange, IoApic, Iommu, Madt, Override, Path, PmTimer};
use crate::facts::{Core, Facts};
use crate::memory::{Range, memory_and_reserved};
use crate::pci::{self, Address, Device};
use crate::power::{self, Found};
use crate::topology::{self, Cache};
use crate::{Clock, topology::Core as PlacedCore};

/// What a board is called until somebody names it.
pub const NAME: &str = "new-board";

/// An I/O APIC with its number of pins; `None` where it could not be read.
pub(crate) type Pins = Option<u32>;

/// An IOMMU, its devices found among those that answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedIommu {
    /// Address of its registers.
    pub registers: u64,
    /// PCI segment.
    pub segment: u16,
    /// It serves what no other one names.
    pub rest: bool,
    /// What it names.
    pub devices: Vec<Address>,
}

/// Memory that is neither the system's nor free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where.
    pub range: Range,
    /// `firmware`, `acpi-tables`, `acpi-storage`, `broken`, or `dma`: devices reach it for firmware's sake.
    pub kind: &'static str,
    /// The devices, for `dma`; none: all.
    pub devices: Vec<Address>,
}

/// A machine, as a board file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// Name of the board.
    pub name: String,
    /// The processor's own name for itself.
    pub processor: String,
    /// The time-stamp counter; `None` where it could not be measured.
    pub clock: Option<Clock>,
    /// Cores, the boot core first.
    pub cores: Vec<PlacedCore>,
    /// Caches of data.
    pub caches: Vec<Cache>,
    /// What the hypervisor could own of turbo, frequency and idle states.
    pub power: [Found; 3],
    /// RAM above 1 MiB.
    pub memory: Vec<Range>,
    /// What is neither RAM nor free.
    pub reserved: Vec<Reserved>,
    /// First I/O ports of the 16550s.
    pub uarts: Vec<u16>,
    /// The PM timer.
    pub pm_timer: Option<PmTimer>,
    /// Address of the HPET's registers.
    pub hpet: Option<u64>,
    /// I/O APICs.
    pub io_apics: Vec<(IoApic, Pins)>,
    /// Overrides of ISA interrupts.
    pub overrides: Vec<Override>,
    /// PCI functions.
    pub pci: Vec<Device>,
    /// IOMMUs.
    pub iommus: Vec<PlacedIommu>,
    /// Names of what the boot core can do.
    pub abilities: Vec<&'static str>,
    /// Names of what VT-x can do; `None` where that could not be read.
    pub vt_x: Option<Vec<&'static str>>,
    /// Caches that can be divided.
    pub cache_allocation: Vec<CacheAllocation>,
    /// What could not be read, or does not add up.
    pub notes: Vec<String>,
}

impl Board {
    /// The board of these facts, called `name`.
    #[must_use]
    pub fn conclude(name: &str, facts: &Facts) -> Self {
        let mut notes = facts.notes.clone();
        let nobody = Core::default();
        let boot = facts.cores.first().unwrap_or(&nobody);
        let madt = find_madt(facts, &mut notes);
        let (cores, caches) = cores(facts, &madt, &mut notes);
        let pci = devices(facts, &mut notes);
        let dma = find_dma(facts);
        let (memory, reserved) = memory_and_reserved(&facts.memory);
        let mut reserved: Vec<Reserved> = reserved
            .into_iter()
            .map(|(range, kind)| Reserved { range, kind: kind.name(), devices: Vec::new() })
            .collect();
        reserved.extend(dma.reserved.iter().filter_map(|range| dma_range(range, &pci, &mut notes)));
        let fadt = acpi::find(&facts.tables, b"FACP");
        Self {
            name: name.into(),
            processor: processor_name(boot),
            clock: facts.tsc_hz.filter(|hz| *hz > 0).map(|hz| Clock::conclude(hz, boot)),
            cores,
            caches,
            power: power::conclude(boot, &facts.power),
            memory,
            reserved,
            uarts: facts.uarts.clone(),
            pm_timer: fadt.and_then(acpi::pm_timer),
            hpet: acpi::find(&facts.tables, b"HPET").and_then(acpi::hpet),
            io_apics: madt
                .io_apics
                .iter()
                .map(|io_apic| (*io_apic, pins(facts, io_apic)))
                .collect(),
            overrides: madt.overrides,
            iommus: dma.iommus.iter().map(|iommu| placed(iommu, &pci, &mut notes)).collect(),
            pci,
            abilities: abilities::processor(boot),
            vt_x: abilities::vt_x(&facts.vmx),
            cache_allocation: abilities::cache_allocation(boot),
            notes,
        }
    }

    /// Abilities that the hypervisor needs and that this machine lacks, as far as it could be read.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        let processor = abilities::PROCESSOR
            .iter()
            .filter(|ability| ability.needed && !self.abilities.contains(&ability.name))
            .map(|ability| ability.name);
        let vt_x = self.vt_x.iter().flat_map(|known| {
            abilities::VT_X
                .iter()
                .filter(|ability| ability.needed && !known.contains(&ability.name))
                .map(|ability| ability.name)
        });
        processor.chain(vt_x).collect()
    }
}

fn find_madt(facts: &Facts, notes: &mut Vec<String>) -> Madt {
    let Some(table) = acpi::find(&facts.tables, b"APIC") else {
        notes.push("no valid ACPI table APIC (MADT): cores that did not answer, and I/O APICs, are missing".into());
        return Madt::default();
    };
    acpi::madt(table)
}

fn find_dma(facts: &Facts) -> Dma {
    let intel = acpi::find(&facts.tables, b"DMAR").map(acpi::dmar);
    let amd = || acpi::find(&facts.tables, b"IVRS").map(acpi::ivrs);
    intel.or_else(amd).unwrap_or_default()
}

/// The boot core, then the others in the order of the MADT; behind them those that answered and stand in no MADT.
fn cores(facts: &Facts, madt: &Madt, notes: &mut Vec<String>) -> (Vec<PlacedCore>, Vec<Cache>) {
    let Some(boot) = facts.cores.first() else {
        notes.push("no core answered".into());
        return (Vec::new(), Vec::new());
    };
    let answered: Vec<u32> = facts.cores.iter().map(topology::apic_id).collect();
    let mut ids: Vec<u32> = answered.iter().take(1).copied().collect();
    for id in madt.processors.iter().chain(&answered) {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    let mut known = Vec::new();
    for id in ids {
        let own = answered.iter().position(|other| *other == id).and_then(|at| facts.cores.get(at));
        if own.is_none() {
            notes.push(format!(
                "the core with APIC id {id} did not answer: its place is concluded from the boot core's CPUID"
            ));
        }
        known.push((id, own.unwrap_or(boot)));
    }
    let cores = known.iter().map(|(id, facts)| topology::place(*id, facts)).collect();
    (cores, topology::caches(&known))
}

fn devices(facts: &Facts, notes: &mut Vec<String>) -> Vec<Device> {
    let mut devices: Vec<Device> = facts.pci.iter().filter_map(pci::decode).collect();
    devices.sort_by_key(|device| device.address);
    devices.dedup_by_key(|device| device.address);
    for device in &devices {
        for index in &device.unplaced {
            notes.push(format!(
                "PCI function {}: base address register {index} has a size and no address; firmware left it out",
                device.address
            ));
        }
    }
    devices
}

fn pins(facts: &Facts, io_apic: &IoApic) -> Pins {
    facts.io_apics.iter().find(|known| known.address == io_apic.address).map(|known| known.pins)
}

/// The device at the end of a path, where one answers.
fn resolve(path: &Path, devices: &[Device]) -> Option<Address> {
    let mut bus = path.bus;
    let (last, bridges) = path.steps.split_last()?;
    let at = |bus, (device, function)| Address(path.segment, bus, device, function);
    let find = |address| devices.iter().find(|device| device.address == address);
    for step in bridges {
        bus = find(at(bus, *step))?.secondary_bus?;
    }
    find(at(bus, *last)).map(|device| device.address)
}

/// The devices that answer; the number of the others is told.
fn resolve_all(
    paths: &[Path],
    devices: &[Device],
    what: &str,
    notes: &mut Vec<String>,
) -> Vec<Address> {
    let mut found: Vec<Address> = paths.iter().filter_map(|path| resolve(path, devices)).collect();
    if found.len() < paths.len() {
        let silent = paths.len() - found.len();
        notes.push(format!("{what} names {silent} PCI functions that do not answer"));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn placed(iommu: &Iommu, devices: &[Device], notes: &mut Vec<String>) -> PlacedIommu {
    let Iommu { registers, segment, rest, devices: paths } = iommu;
    let what = format!("the IOMMU at {registers:#x}");
    let devices = resolve_all(paths, devices, &what, notes);
    PlacedIommu { registers: *registers, segment: *segment, rest: *rest, devices }
}

fn dma_range(range: &DmaRange, devices: &[Device], notes: &mut Vec<String>) -> Option<Reserved> {
    let what = format!("the DMA range at {:#x}", range.start);
    let end = range.start.checked_add(range.size)?;
    let known = resolve_all(&range.devices, devices, &what, notes);
    Some(Reserved { range: Range { start: range.start, end }, kind: "dma", devices: known })
}

/// The brand string, or the vendor of a processor without one.
fn processor_name(core: &Core) -> String {
    let [_, b, c, d] = core.leaf(0, 0);
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004).flat_map(|leaf| core.leaf(leaf, 0)).collect();
    let text = |words: &[u32]| -> String {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(char::from).filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
    };
    let name = text(&brand);
    let name = if name.trim().is_empty() { text(&[b, d, c]) } else { name };
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}
