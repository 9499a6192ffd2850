//! The board: what is concluded from the facts of a machine.

use alloc::string::String;
use alloc::vec::Vec;

use crate::abilities::{self, CacheAllocation};
use crate::acpi::{self, Madt, MemoryUart, Override, PmTimer};
use crate::devices::{self, Taken};
use crate::facts::{Core, Facts};
use crate::interrupts::{self, PlacedIoApic};
use crate::left::LeftOut;
use crate::memory::{self, Range};
use crate::pci::{Address, Chipset, Device};
use crate::power::{self, Found};
use crate::topology::{Cache, Core as PlacedCore};
use crate::{Clock, cores, dma, refusals};

/// What a board is called until somebody names it.
pub const NAME: &str = "new-board";

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
    /// Package, core and thread of the cores are known.
    pub placed: bool,
    /// Caches of data.
    pub caches: Vec<Cache>,
    /// What the hypervisor could own of turbo, frequency and idle states.
    pub power: [Found; 3],
    /// RAM from 1 MiB on that firmware is not likely to move.
    pub memory: Vec<Range>,
    /// What is neither RAM nor free.
    pub reserved: Vec<Reserved>,
    /// First I/O ports of the 16550s, the one for the log first.
    pub uarts: Vec<u16>,
    /// The 16550 in memory for the log, where none answers at an I/O port.
    pub memory_uart: Option<MemoryUart>,
    /// Firmware's FADT could be read, which names the PM timer.
    pub fadt_read: bool,
    /// The PM timer.
    pub pm_timer: Option<PmTimer>,
    /// Address of the HPET's registers.
    pub hpet: Option<u64>,
    /// I/O APICs.
    pub io_apics: Vec<PlacedIoApic>,
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
        notes.extend(acpi::flaws(&facts.tables));
        let nobody = Core::default();
        let boot = facts.cores.first().unwrap_or(&nobody);
        let madt = find_madt(facts, &mut notes);
        let cores = cores::conclude(facts, &madt, &mut notes);
        if cores.cores.len() > 1 && !memory::has_start_page(&facts.memory) {
            notes.push("the memory map shows no RAM below 640 KiB, where the other cores are started: the hypervisor refuses a system of several cores then".into());
        }
        let mut pci = devices::functions(facts, &mut notes);
        let dma = dma::read(facts);
        notes.extend(dma.flaws.iter().cloned());
        let dma_ranges = dma::ranges(&dma, &pci, &mut notes);
        let taken: Vec<Range> = dma_ranges.iter().map(|reserved| reserved.range).collect();
        let memory = memory::conclude(&facts.memory, &taken, facts.firmware);
        notes.extend(memory.notes);
        let uarts = devices::uarts(facts, &mut notes);
        let fadt = acpi::find(&facts.tables, b"FACP");
        if fadt.is_none() {
            notes.push("no valid ACPI table FACP (FADT): whether there is a PM timer is not known, so [timers] is left out; the hypervisor refuses a machine without PM timer".into());
        }
        let (ports, pm_timer) = devices::ports(&uarts, fadt.and_then(acpi::pm_timer), &mut notes);
        let mut registers = Taken::new();
        let io_apics = interrupts::io_apics(facts, &madt, &memory.ram, &mut registers, &mut notes);
        let hpet = hpet(facts, &memory.ram, &mut registers, &mut notes);
        let iommus = dma::iommus(&dma, &pci, &memory.ram, &mut registers, &mut notes);
        let memory_uart = match uarts.as_slice() {
            [] => devices::memory_uart(facts, &pci, &memory.ram, &mut registers, &mut notes),
            _ => None,
        };
        if uarts.is_empty() && memory_uart.is_none() {
            notes.push("no 16550 was found, neither at an I/O port nor in memory: the hypervisor's log goes to the screen and to memory alone. Where the board has a serial port, switch it on in the firmware's set-up and probe again".into());
        }
        devices::settle(&mut pci, &memory.ram, &registers, &ports, &mut notes);
        let reserved = memory.reserved.into_iter();
        let reserved = reserved.map(|(range, kind)| Reserved {
            range,
            kind: kind.name(),
            devices: Vec::new(),
        });
        Self {
            name: name.into(),
            processor: processor_name(boot),
            clock: clock(facts, boot, &mut notes),
            cores: cores.cores,
            placed: cores.placed,
            caches: cores.caches,
            power: power::conclude(boot, &facts.power),
            memory: memory.usable,
            reserved: reserved.chain(dma_ranges).collect(),
            uarts,
            memory_uart,
            fadt_read: fadt.is_some(),
            pm_timer,
            hpet,
            overrides: interrupts::overrides(&madt, &io_apics, &mut notes),
            io_apics,
            pci,
            iommus,
            abilities: abilities::conclude(facts, &mut notes),
            vt_x: abilities::vt_x(&facts.vmx),
            cache_allocation: abilities::cache_allocation(boot, &mut notes),
            notes,
        }
    }

    /// Abilities that the hypervisor needs and that this machine lacks, as far as it could be read.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        let processor = abilities::lacking(|name| self.abilities.contains(&name), false);
        let vt_x = self.vt_x.iter().flat_map(|known| {
            abilities::VT_X
                .iter()
                .filter(|ability| ability.needed && !known.contains(&ability.name))
                .map(|ability| ability.name)
        });
        processor.into_iter().chain(vt_x).collect()
    }

    /// Why the compiler refuses this board, each with the remedy; empty where it accepts it.
    #[must_use]
    pub fn refusals(&self) -> Vec<refusals::Refusal> {
        refusals::of(self)
    }
}

fn find_madt(facts: &Facts, notes: &mut Vec<String>) -> Madt {
    let Some(table) = acpi::find(&facts.tables, b"APIC") else {
        notes.push("no valid ACPI table APIC (MADT): cores that did not answer, and I/O APICs, are missing, and the hypervisor refuses a machine without".into());
        return Madt::default();
    };
    let madt = acpi::madt(table);
    notes.extend(madt.flaws.iter().cloned());
    madt
}

fn clock(facts: &Facts, boot: &Core, notes: &mut Vec<String>) -> Option<Clock> {
    let hz = facts.tsc_hz?;
    let clock = Clock::conclude(hz, boot);
    if clock.is_none() {
        notes
            .push(alloc::format!("the time-stamp counter was measured at {hz} Hz, which none has"));
    }
    clock
}

fn hpet(
    facts: &Facts,
    ram: &[Range],
    registers: &mut Taken,
    notes: &mut Vec<String>,
) -> Option<u64> {
    const BYTES: u64 = 0x400;
    let address = acpi::find(&facts.tables, b"HPET").and_then(acpi::hpet)?;
    let mut left = LeftOut::default();
    let taken = registers.take(address, BYTES, Chipset::Hpet, ram);
    if let Err(why) = taken {
        left.add(alloc::format!("the HPET at {address:#x}"), why);
    }
    left.tell(notes);
    taken.ok().map(|()| address)
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
