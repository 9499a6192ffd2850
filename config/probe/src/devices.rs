//! PCI functions and the registers of the chipset, none on top of another.
//!
//! Where two claim the same bytes, one of them is wrong, or both are one device. RAM comes first, since firmware ran from it; then what
//! ACPI names, in a fixed order; then base address registers, those that are switched on before those that are not.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::acpi::{self, MemoryUart};
use crate::facts::{COM, Facts};
use crate::left::LeftOut;
use crate::memory::{self, Range};
use crate::pci::{self, Address, Chipset, Device, Space};

/// Ports of a 16550 and of the PM timer.
const UART_PORTS: u64 = 8;
const PM_TIMER_PORTS: u64 = 4;
/// Behind the last I/O port.
const PORTS_END: u64 = 0x1_0000;

/// The PCI functions that can be described, ascending.
pub(crate) fn functions(facts: &Facts, notes: &mut Vec<String>) -> Vec<Device> {
    let mut left = LeftOut::default();
    let mut devices: Vec<Device> = Vec::new();
    for function in &facts.pci {
        let (segment, bus, device, number) = function.address;
        let address = Address(segment, bus, device, number);
        match pci::decode(function) {
            Ok(device) => devices.push(device),
            Err(why) => left.add(format!("the PCI function {address}"), why),
        }
    }
    devices.sort_by_key(|device| device.address);
    devices.dedup_by(|again, first| {
        let same = again.address == first.address;
        if same {
            left.add(
                format!("the PCI function {}, told again,", again.address),
                "it is there once",
            );
        }
        same
    });
    let known: BTreeSet<Address> = devices.iter().map(|device| device.address).collect();
    devices.retain(|device| {
        let Address(segment, bus, number, _) = device.address;
        let whole = known.contains(&Address(segment, bus, number, 0));
        if !whole {
            left.add(
                format!("the PCI function {}", device.address),
                "its device has no function 0, as a virtual function of SR-IOV, which a board file does not describe",
            );
        }
        whole
    });
    for device in &devices {
        for (index, why) in &device.left_out {
            left.add(bar_name(device.address, *index), *why);
        }
    }
    left.tell(notes);
    roms(&devices, notes);
    segments(facts, notes);
    devices
}

fn bar_name(address: Address, index: u8) -> String {
    format!("base address register {index} of the PCI function {address}")
}

/// Expansion ROMs that are switched on decode addresses, and a board file has no key for them.
fn roms(devices: &[Device], notes: &mut Vec<String>) {
    let mut left = LeftOut::default();
    for device in devices {
        if let Some(address) = device.rom {
            left.add(
                format!("the expansion ROM of the PCI function {} at {address:#x}", device.address),
                "it is switched on, and a board file does not describe ROMs",
            );
        }
    }
    left.tell(notes);
}

/// Segments that firmware names and of which no function was seen.
fn segments(facts: &Facts, notes: &mut Vec<String>) {
    let told = acpi::find(&facts.tables, b"MCFG").map(acpi::segments).unwrap_or_default();
    let seen: BTreeSet<u16> = facts.pci.iter().map(|function| function.address.0).collect();
    let unseen: Vec<String> =
        told.iter().filter(|segment| !seen.contains(segment)).map(ToString::to_string).collect();
    if !unseen.is_empty() && !facts.pci.is_empty() {
        notes.push(format!(
            "firmware's MCFG names the PCI segments {}, of which no function was read: they are missing here. Linux reads them; the probe image reads segment 0",
            unseen.join(", ")
        ));
    }
}

/// The 16550s that the hypervisor can use, the best first: COM1 to COM4, then others by their ports.
pub(crate) fn uarts(facts: &Facts, notes: &mut Vec<String>) -> Vec<u16> {
    let mut left = LeftOut::default();
    let mut ports: Vec<u16> = Vec::new();
    for port in &facts.uarts {
        let end = u64::from(*port) + UART_PORTS;
        let subject = format!("the serial port at {port:#x}");
        if end > PORTS_END || meets_chipset(u64::from(*port), end) {
            left.add(subject, "its eight I/O ports are not all there, or are the chipset's own");
        } else if ports
            .iter()
            .any(|known| known != port && known.abs_diff(*port) < UART_PORTS as u16)
        {
            left.add(subject, "its I/O ports are another serial port's too");
        } else if !ports.contains(port) {
            ports.push(*port);
        }
    }
    // Of no rank is behind every rank: an unknown port is used where there is no other.
    ports.sort_by_key(|port| (COM.iter().position(|com| com == port).unwrap_or(COM.len()), *port));
    left.tell(notes);
    ports
}

/// Ports that every PC's chipset decodes itself, first and last: DMA, interrupt controllers, timer, keyboard, clock and NMI mask, DMA pages
/// and port 0x92, interrupt controllers, DMA, PCI configuration.
pub const CHIPSET_PORTS: [(u64, u64); 9] = [
    (0x00, 0x1F),
    (0x20, 0x21),
    (0x40, 0x43),
    (0x60, 0x64),
    (0x70, 0x77),
    (0x80, 0x9F),
    (0xA0, 0xA1),
    (0xC0, 0xDF),
    (0xCF8, 0xCFF),
];

fn meets_chipset(start: u64, end: u64) -> bool {
    CHIPSET_PORTS.iter().any(|(first, last)| *first < end && start <= *last)
}

/// Registers of a 16550.
const UART_REGISTERS: u64 = 8;
/// Where the hypervisor reaches registers before it makes its own page tables.
const REACHABLE: u64 = 1 << 32;

/// The 16550 in memory that the hypervisor can use where none answers at an I/O port: the one that firmware's console uses (SPCR, DBG2), else
/// the first PCI function that is a serial port and switched on.
pub(crate) fn memory_uart(
    facts: &Facts,
    devices: &[Device],
    ram: &[Range],
    registers: &mut Taken,
    notes: &mut Vec<String>,
) -> Option<MemoryUart> {
    let mut left = LeftOut::default();
    let console = acpi::find(&facts.tables, b"SPCR").and_then(acpi::console);
    let debug = acpi::find(&facts.tables, b"DBG2").map(acpi::debug_ports).unwrap_or_default();
    let told = console.into_iter().chain(debug);
    let found = told.chain(devices.iter().filter_map(of_function)).find(|uart| {
        let MemoryUart { address, stride, .. } = *uart;
        let bytes = UART_REGISTERS * u64::from(stride);
        let fits = if !address.is_multiple_of(u64::from(stride)) {
            Err("its address is no multiple of the distance of its registers")
        } else if address.saturating_add(bytes) > REACHABLE {
            Err("it lies above 4 GiB, where the hypervisor does not reach it")
        } else {
            registers.take(address, bytes, Chipset::SerialPort, ram)
        };
        fits.map_err(|why| left.add(format!("the serial port in memory at {address:#x}"), why))
            .is_ok()
    });
    left.tell(notes);
    found
}

/// A PCI function that is a serial port with its registers in memory, switched on. Those of Intel's chipsets have registers of 32 bits, four
/// bytes apart; others have bytes.
fn of_function(device: &Device) -> Option<MemoryUart> {
    const INTEL: u16 = 0x8086;
    let is_serial = Chipset::SerialPort.is_of_class(device.class) && device.decodes.0;
    let (stride, width) = if device.id.0 == INTEL { (4, 32) } else { (1, 8) };
    let room = |bar: &&pci::Bar| {
        bar.space == Space::Memory && bar.size >= UART_REGISTERS * u64::from(stride)
    };
    let bar = device.bars.iter().find(room).filter(|_| is_serial)?;
    Some(MemoryUart { address: bar.start, stride, width })
}

/// Addresses that are given away already, and whose they are.
pub(crate) struct Taken {
    claims: Vec<(Range, Chipset)>,
}

impl Taken {
    pub fn new() -> Self {
        Self { claims: Vec::new() }
    }

    /// Takes bytes or ports for a part of the chipset; the reason where they cannot be its own.
    pub fn take(
        &mut self,
        start: u64,
        size: u64,
        what: Chipset,
        ram: &[Range],
    ) -> Result<(), &'static str> {
        let range = memory::range(start, size)?;
        if start == 0 {
            return Err("firmware gives it the address 0");
        }
        if range.size() < size {
            return Err("it ends behind the last address that a board file names");
        }
        if ram.iter().any(|ram| ram.overlaps(&range)) {
            return Err("firmware puts it on top of RAM");
        }
        if self.claims.iter().any(|(taken, _)| taken.overlaps(&range)) {
            return Err("firmware puts it on top of another device");
        }
        self.claims.push((range, what));
        Ok(())
    }
}

/// Takes the ports of serial ports and PM timer: the first serial port, and the timer where it lies elsewhere.
pub(crate) fn ports(
    uarts: &[u16],
    pm_timer: Option<acpi::PmTimer>,
    notes: &mut Vec<String>,
) -> (Taken, Option<acpi::PmTimer>) {
    let mut taken = Taken::new();
    let mut left = LeftOut::default();
    if let Some(port) = uarts.first() {
        // The first claim of all meets no other.
        let _free = taken.take(u64::from(*port), UART_PORTS, Chipset::SerialPort, &[]);
    }
    let pm_timer = pm_timer.filter(|timer| {
        let start = u64::from(timer.port);
        let fits = match taken.take(start, PM_TIMER_PORTS, Chipset::PmTimer, &[]) {
            Ok(()) if start + PM_TIMER_PORTS <= PORTS_END => Ok(()),
            Ok(()) => Err("it ends behind the last I/O port"),
            Err(why) => Err(why),
        };
        fits.map_err(|why| left.add(format!("the PM timer at {start:#x}"), why)).is_ok()
    });
    left.tell(notes);
    (taken, pm_timer)
}

/// Leaves out the base address registers that lie on RAM, on the chipset, or on one another.
pub(crate) fn settle(
    devices: &mut [Device],
    ram: &[Range],
    registers: &Taken,
    ports: &Taken,
    notes: &mut Vec<String>,
) {
    let mut left = LeftOut::default();
    let mut order: Vec<(bool, Address, usize)> = Vec::new();
    for device in devices.iter() {
        for (index, bar) in device.bars.iter().enumerate() {
            let decodes = match bar.space {
                Space::Memory => device.decodes.0,
                Space::Ports => device.decodes.1,
            };
            order.push((!decodes, device.address, index));
        }
    }
    order.sort_unstable();
    let (mut in_memory, mut in_ports) = (Vec::new(), Vec::new());
    let mut refused: BTreeSet<(Address, u8)> = BTreeSet::new();
    for (_, address, index) in order {
        let Some(device) = devices.iter().find(|device| device.address == address) else {
            continue;
        };
        let Some(bar) = device.bars.get(index) else { continue };
        let range = Range { start: bar.start, end: bar.start.saturating_add(bar.size) };
        let (chipset, bars, ram) = match bar.space {
            Space::Memory => (registers, &mut in_memory, ram),
            Space::Ports => (ports, &mut in_ports, &[][..]),
        };
        match refusal(&range, device.class, ram, chipset, bars) {
            None => bars.push(range),
            Some(why) => {
                left.add(bar_name(address, bar.index), why);
                refused.insert((address, bar.index));
            }
        }
    }
    for device in devices {
        let address = device.address;
        device.bars.retain(|bar| !refused.contains(&(address, bar.index)));
    }
    left.tell(notes);
}

fn refusal(
    range: &Range,
    class: u32,
    ram: &[Range],
    chipset: &Taken,
    bars: &[Range],
) -> Option<&'static str> {
    let foreign = |(taken, what): &&(Range, Chipset)| {
        taken.overlaps(range) && !(what.is_of_class(class) && range.contains(taken))
    };
    if ram.iter().any(|ram| ram.overlaps(range)) {
        Some("it lies on top of RAM")
    } else if chipset.claims.iter().any(|claim| foreign(&claim)) {
        Some(
            "what it decodes is described already, as a part of the chipset that ACPI names or as the serial port",
        )
    } else if bars.iter().any(|other| other.overlaps(range)) {
        Some("it lies on top of another base address register")
    } else {
        None
    }
}
