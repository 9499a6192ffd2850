//! PCI configuration space: who a function is, what it decodes, how it interrupts. PCI Local Bus Specification 3.0, 6.

use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{byte, half, word};
use crate::facts::PciFunction;

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
    /// Base address registers that have a size, and that firmware left without an address.
    pub unplaced: Vec<u8>,
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

/// Reads a function; `None` when its first bytes say that nothing answers there.
#[must_use]
pub fn decode(function: &PciFunction) -> Option<Device> {
    let config = function.config.as_slice();
    let id = (half(config, 0)?, half(config, 2)?);
    if id.0 == 0xFFFF {
        return None;
    }
    let header = byte(config, 0x0E)? & 0x7F;
    let (segment, bus, device, number) = function.address;
    let (bars, unplaced) = bars(config, header, &function.bar_sizes);
    let (msi, msi_x) = interrupts(config);
    Some(Device {
        address: Address(segment, bus, device, number),
        id,
        class: word(config, 8)? >> 8,
        bars,
        unplaced,
        msi,
        msi_x,
        secondary_bus: (header == HEADER_BRIDGE).then(|| byte(config, 0x19)).flatten(),
    })
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

fn bars(config: &[u8], header: u8, sizes: &[u64; 6]) -> (Vec<Bar>, Vec<u8>) {
    let (mut placed, mut unplaced) = (Vec::new(), Vec::new());
    let mut index = 0;
    while index < bar_count(header) {
        let low = word(config, 0x10 + 4 * index).unwrap_or(0);
        let wide = is_64_bit(low);
        let size = sizes.get(index).copied().unwrap_or(0);
        let high = if wide { word(config, 0x14 + 4 * index).unwrap_or(0) } else { 0 };
        let (space, start) = match low & 1 {
            0 => (Space::Memory, u64::from(high) << 32 | u64::from(low & !0xF)),
            _ => (Space::Ports, u64::from(low & 0xFFFC)),
        };
        let number = index as u8;
        match (size, start) {
            (0, _) => {}
            (_, 0) => unplaced.push(number),
            _ => placed.push(Bar { index: number, space, start, size }),
        }
        index += 1 + usize::from(wide);
    }
    (placed, unplaced)
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
            CAPABILITY_MSI => msi = 1 << (control >> 1 & 7).min(5),
            CAPABILITY_MSI_X => msi_x = (control & 0x7FF) + 1,
            _ => {}
        }
        at = next & !3;
    }
    (msi, msi_x)
}
