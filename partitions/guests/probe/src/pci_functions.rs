//! Finds PCI functions by configuration mechanism 1, which every PC has, and sizes what they decode. Segment 0 only:
//! more of them are reached by memory alone, and a PC has one.

use alloc::vec::Vec;

use bulkhead_board::facts::PciFunction;
use bulkhead_board::pci::{bar_count, bar_size, is_64_bit};
use guest_rt::probe::physical::{bar_mask, pci_read};

const NOBODY: u32 = u32::MAX;
const MULTI_FUNCTION: u8 = 0x80;

/// Every function of every bus.
pub fn read() -> Vec<PciFunction> {
    let mut found = Vec::new();
    for bus in 0..=u8::MAX {
        for device in 0..32 {
            if pci_read(bus, device, 0, 0) == NOBODY {
                continue;
            }
            let several = header(bus, device, 0) & MULTI_FUNCTION != 0;
            let functions = if several { 0..8 } else { 0..1 };
            found.extend(
                functions
                    .filter(|function| pci_read(bus, device, *function, 0) != NOBODY)
                    .map(|function| read_function(bus, device, function)),
            );
        }
    }
    found
}

fn header(bus: u8, device: u8, function: u8) -> u8 {
    (pci_read(bus, device, function, 0x0C) >> 16) as u8
}

fn read_function(bus: u8, device: u8, function: u8) -> PciFunction {
    let config = (0..=u8::MAX)
        .step_by(4)
        .flat_map(|offset| pci_read(bus, device, function, offset).to_le_bytes())
        .collect();
    PciFunction {
        address: (0, bus, device, function),
        config,
        bar_sizes: bar_sizes(bus, device, function),
    }
}

fn bar_sizes(bus: u8, device: u8, function: u8) -> [u64; 6] {
    let mut sizes = [0; 6];
    let count = bar_count(header(bus, device, function));
    let mut index = 0;
    while index < count {
        let low = bar_mask(bus, device, function, index as u8);
        let wide = is_64_bit(low) && index + 1 < count;
        let high = if wide { bar_mask(bus, device, function, index as u8 + 1) } else { 0 };
        if let Some(size) = sizes.get_mut(index) {
            *size = bar_size(low, high);
        }
        index += 1 + usize::from(wide);
    }
    sizes
}
