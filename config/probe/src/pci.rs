//! PCI configuration space: who a function is, what it decodes, how it interrupts. PCI Local Bus Specification 3.0, 6.

use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{byte, half, word};
use crate::facts::PciFunction;
use crate::memory::HIGHEST;

/// Segment, bus, device and function, written `0000:00:1f.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub u16, pub u8, pub u8, pub u8);

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(segment, bus, device, function) = self;
        write!(out, "{segment:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

/// Where a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory.
    Memory,
    /// I/O ports.
    Ports,
}

impl Space {
    /// As the board file names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Ports => "ports",
        }
    }
}

/// A base address register that decodes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which register, from 0; one of 64 bits takes the next one too.
    pub index: u8,
    /// Memory or ports.
    pub space: Space,
    /// First address or port.
    pub start: u64,
    /// Bytes or ports.
    pub size: u64,
}

/// What of the chipset may show itself as a PCI function, so that ACPI and a base address register name the same registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chipset {
    /// The serial port of the log.
    SerialPort,
    /// The PM timer.
    PmTimer,
    /// An I/O APIC.
    IoApic,
    /// The HPET.
    Hpet,
    /// An IOMMU.
    Iommu,
}

impl Chipset {
    /// Whether a function of this class (24 bits) is one. PCI Code and ID Assignment 1.11, 1.8 and 1.9.
    #[must_use]
    pub const fn is_of_class(self, class: u32) -> bool {
        match self {
            Self::SerialPort => class >> 8 == 0x07_00,
            Self::PmTimer => false,
            Self::IoApic => matches!(class, 0x08_00_10 | 0x08_00_20),
            Self::Hpet => class >> 8 == 0x08_03,
            Self::Iommu => class >> 8 == 0x08_06,
        }
    }
}

/// A function as the board file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where it sits.
    pub address: Address,
    /// Vendor and device id.
    pub id: (u16, u16),
    /// Class, subclass and programming interface, 24 bits.
    pub class: u32,
    /// What it decodes.
    pub bars: Vec<Bar>,
    /// Base address registers that decode something which cannot be described, and why: `reason` goes on after "is left out: ".
    pub left_out: Vec<(u8, &'static str)>,
    /// Memory and I/O ports are decoded: bits 1 and 0 of its command register.
    pub decodes: (bool, bool),
    /// Address of its expansion ROM, where that is switched on.
    pub rom: Option<u32>,
    /// MSI vectors that it can raise; 0 without MSI.
    pub msi: u16,
    /// MSI-X table entries; 0 without MSI-X.
    pub msi_x: u16,
    /// The bus behind it, where it is a bridge.
    pub secondary_bus: Option<u8>,
}

/// A header with six base address registers, one with two (a bridge).
const HEADER_DEVICE: u8 = 0;
const HEADER_BRIDGE: u8 = 1;

const CAPABILITY_MSI: u8 = 0x05;
const CAPABILITY_MSI_X: u8 = 0x11;

/// More capabilities do not fit the 192 bytes behind the header: a longer list is a loop.
const MOST_CAPABILITIES: usize = 48;

/// Reads a function; why not, where it cannot be described. The reason goes on after "is left out: ".
///
/// # Errors
/// Its address is none, its first bytes could not be read, or say that nothing answers there.
pub fn decode(function: &PciFunction) -> Result<Device, &'static str> {
    const SHORT: &str = "its configuration space could not be read";
    const COMMAND_MEMORY: u16 = 1 << 1;
    const COMMAND_PORTS: u16 = 1 << 0;
    let config = function.config.as_slice();
    let (segment, bus, device, number) = function.address;
    if device > 31 || number > 7 {
        return Err("no PCI function has this number");
    }
    let id = (half(config, 0).ok_or(SHORT)?, half(config, 2).ok_or(SHORT)?);
    if id.0 == 0xFFFF {
        return Err("nothing answers there");
    }
    let header = byte(config, 0x0E).ok_or(SHORT)? & 0x7F;
    let command = half(config, 4).ok_or(SHORT)?;
    let (bars, left_out) = bars(config, header, &function.bar_sizes);
    let (msi, msi_x) = interrupts(config);
    Ok(Device {
        address: Address(segment, bus, device, number),
        id,
        class: word(config, 8).ok_or(SHORT)? >> 8,
        bars,
        left_out,
        decodes: (command & COMMAND_MEMORY != 0, command & COMMAND_PORTS != 0),
        rom: rom(config, header),
        msi,
        msi_x,
        secondary_bus: (header == HEADER_BRIDGE).then(|| byte(config, 0x19)).flatten(),
    })
}

/// Address of an expansion ROM that is switched on. PCI 3.0, 6.2.5.2.
fn rom(config: &[u8], header: u8) -> Option<u32> {
    const ENABLED: u32 = 1;
    let register = match header {
        HEADER_DEVICE => 0x30,
        HEADER_BRIDGE => 0x38,
        _ => return None,
    };
    let value = word(config, register).filter(|value| *value != u32::MAX)?;
    (value & ENABLED != 0 && value >> 11 != 0).then_some(value & !0x7FF)
}

/// How many base address registers a header of this type has.
#[must_use]
pub const fn bar_count(header: u8) -> usize {
    match header & 0x7F {
        HEADER_DEVICE => 6,
        HEADER_BRIDGE => 2,
        _ => 0,
    }
}

/// What the base address registers decode, and those that cannot be described with the reason.
fn bars(config: &[u8], header: u8, sizes: &[u64; 6]) -> (Vec<Bar>, Vec<(u8, &'static str)>) {
    let (mut placed, mut left_out) = (Vec::new(), Vec::new());
    let count = bar_count(header);
    let mut index = 0;
    while index < count {
        let low = word(config, 0x10 + 4 * index).unwrap_or(0);
        let wide = is_64_bit(low);
        let size = sizes.get(index).copied().unwrap_or(0);
        if size != 0 {
            let high = if wide { word(config, 0x14 + 4 * index).unwrap_or(0) } else { 0 };
            let last = wide && index + 1 == count;
            match bar(index as u8, low, high, size, last) {
                Ok(bar) => placed.push(bar),
                Err(why) => left_out.push((index as u8, why)),
            }
        }
        index += 1 + usize::from(wide);
    }
    (placed, left_out)
}

/// A base address register, out of its two halves and its size. `last`: it has no second half.
fn bar(index: u8, low: u32, high: u32, size: u64, last: bool) -> Result<Bar, &'static str> {
    const RESERVED_KIND: u32 = 0b110;
    const HIGHEST_PORT: u64 = 0x1_0000;
    let (space, start, end) = match low & 1 {
        0 => (Space::Memory, u64::from(high) << 32 | u64::from(low & !0xF), HIGHEST),
        _ => (Space::Ports, u64::from(low & !0b11), HIGHEST_PORT),
    };
    let reserved = space == Space::Memory && low & RESERVED_KIND == RESERVED_KIND;
    match start.checked_add(size) {
        _ if reserved || last => Err("its kind is none that PCI knows"),
        _ if start == 0 => Err("it has a size and no address; firmware left it out"),
        _ if !size.is_power_of_two() => Err("its size is no power of two"),
        _ if !start.is_multiple_of(size) => Err("its address is no multiple of its size"),
        Some(behind) if behind <= end => Ok(Bar { index, space, start, size }),
        _ => Err("it ends behind the last address, or the last I/O port, that there is"),
    }
}

/// Whether a base address register with this low half takes the next one for its high half.
#[must_use]
pub const fn is_64_bit(low: u32) -> bool {
    low & 0b111 == 0b100
}

/// The size of what a base address register decodes, from what it reads after all ones were written to it: its low
/// half, and its high half where it has one.
#[must_use]
pub const fn bar_size(low: u32, high: u32) -> u64 {
    if low & 1 != 0 {
        // The upper half of a port register may be hard-wired to zero.
        let mask = low & 0xFFFC;
        return if mask == 0 { 0 } else { (!mask & 0xFFFF) as u64 + 1 };
    }
    let (wide, low_mask) = (is_64_bit(low), low & !0xF);
    let mask = if wide { (high as u64) << 32 | low_mask as u64 } else { low_mask as u64 };
    let reach = if wide { u64::MAX } else { u32::MAX as u64 };
    if mask == 0 { 0 } else { (!mask & reach).wrapping_add(1) }
}

/// The exponent of the number of MSI vectors; 16, with which nothing is shifted, where it is reserved. PCI 3.0, 6.8.1.3.
fn control_vectors(control: u16) -> u32 {
    const MOST: u32 = 5;
    const RESERVED: u32 = 16;
    let exponent = u32::from(control >> 1 & 7);
    if exponent > MOST { RESERVED } else { exponent }
}

/// MSI vectors and MSI-X table entries.
fn interrupts(config: &[u8]) -> (u16, u16) {
    const STATUS_HAS_LIST: u16 = 1 << 4;
    let (mut msi, mut msi_x) = (0, 0);
    if half(config, 6).unwrap_or(0) & STATUS_HAS_LIST == 0 {
        return (0, 0);
    }
    let mut at = byte(config, 0x34).unwrap_or(0) & !3;
    for _ in 0..MOST_CAPABILITIES {
        let place = usize::from(at);
        let (Some(kind), Some(next), true) =
            (byte(config, place), byte(config, place + 1), place >= 0x40)
        else {
            break;
        };
        let control = half(config, place + 2).unwrap_or(0);
        match kind {
            // The two highest values are reserved: such a function has no MSI that could be described.
            CAPABILITY_MSI => msi = 1_u16.checked_shl(control_vectors(control)).unwrap_or(0),
            CAPABILITY_MSI_X => msi_x = (control & 0x7FF) + 1,
            _ => {}
        }
        at = next & !3;
    }
    (msi, msi_x)
}
