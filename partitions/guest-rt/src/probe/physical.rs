//! Physical memory below 4 GiB, I/O ports, PCI configuration space and MSRs of the bare machine.
#![expect(unsafe_code, reason = "reads and writes the machine's own registers")]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::asm;

use crate::machine;

/// Behind the last byte that start.s maps.
pub const REACHABLE: u64 = 1 << 32;

/// Copies bytes of physical memory; `None` where they are not all mapped.
#[must_use]
pub fn read(address: u64, length: usize) -> Option<Vec<u8>> {
    let end = address.checked_add(length as u64)?;
    if address == 0 || end > REACHABLE {
        return None;
    }
    // SAFETY: mapped one to one, and read once, bytewise; what no device answers reads as ones.
    let byte = |at: u64| unsafe { (at as *const u8).read_volatile() };
    Some((address..end).map(byte).collect())
}

/// Reads a register of 32 bits; `None` where none can be: out of reach, or not on a bound of 4 bytes.
#[must_use]
pub fn read_register(address: u64) -> Option<u32> {
    let good = address != 0 && address.is_multiple_of(4) && address <= REACHABLE - 4;
    // SAFETY: mapped one to one, aligned; the caller names a register whose reading has no effect.
    good.then(|| unsafe { (address as *const u32).read_volatile() })
}

/// Writes a register of 32 bits.
///
/// # Safety
/// The address is a register of a device that touches no memory of this program when it is written so.
pub(super) unsafe fn write_register(address: u64, value: u32) {
    if address != 0 && address.is_multiple_of(4) && address <= REACHABLE - 4 {
        // SAFETY: mapped one to one and aligned; the rest is promised by the caller.
        unsafe { (address as *mut u32).write_volatile(value) };
    }
}

/// The number of pins of the I/O APIC whose registers begin here; `None` where none answers.
#[must_use]
pub fn io_apic_pins(address: u64) -> Option<u32> {
    const VERSION: u32 = 1;
    const WINDOW: u64 = 0x10;
    // SAFETY: firmware's MADT says that an I/O APIC's selector is there; selecting a register has no other effect.
    unsafe { write_register(address, VERSION) };
    let version = read_register(address.checked_add(WINDOW)?)?;
    (version != u32::MAX).then_some((version >> 16 & 0xFF) + 1)
}

/// Reads an I/O port of 32 bits.
#[must_use]
pub fn port_in_32(port: u16) -> u32 {
    let value;
    // SAFETY: the ports that the probe reads (PM timer, PCI configuration) touch no memory.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
    }
    value
}

fn port_out_32(port: u16, value: u32) {
    // SAFETY: only PCI's address and data ports are written here; see `pci_write` for what follows from that.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags));
    }
}

/// Whether a 16550 answers at this port: its scratch register keeps what is written.
#[must_use]
pub fn has_uart(port: u16) -> bool {
    const SCRATCH: u16 = 7;
    [0x5A, 0xA5].into_iter().all(|mark| {
        machine::port_out(port + SCRATCH, mark);
        machine::port_in(port + SCRATCH) == mark
    })
}

/// PCI's configuration mechanism 1: address and data.
const PCI_ADDRESS: u16 = 0xCF8;
const PCI_DATA: u16 = 0xCFC;

fn select(bus: u8, device: u8, function: u8, offset: u8) {
    let place = u32::from(bus) << 16 | u32::from(device & 31) << 11 | u32::from(function & 7) << 8;
    port_out_32(PCI_ADDRESS, 1 << 31 | place | u32::from(offset & !3));
}

/// Reads 32 bits of a function's configuration space; all ones where nothing answers.
#[must_use]
pub fn pci_read(bus: u8, device: u8, function: u8, offset: u8) -> u32 {
    select(bus, device, function, offset);
    port_in_32(PCI_DATA)
}

/// Writes 32 bits of a function's configuration space.
///
/// # Safety
/// It does not let the function decode addresses where this program's memory lies, nor write memory by itself.
pub(super) unsafe fn pci_write(bus: u8, device: u8, function: u8, offset: u8, value: u32) {
    select(bus, device, function, offset);
    port_out_32(PCI_DATA, value);
}

/// What a base address register reads after all ones were written to it. The function decodes nothing meanwhile, and
/// is left as it was.
#[must_use]
pub fn bar_mask(bus: u8, device: u8, function: u8, index: u8) -> u32 {
    const COMMAND: u8 = 4;
    const DECODES: u32 = 0b11;
    let offset = 0x10 + 4 * index;
    let command = pci_read(bus, device, function, COMMAND);
    let before = pci_read(bus, device, function, offset);
    // The upper half is status, whose bits are cleared by ones: zeros leave it.
    let quiet = command & 0xFFFF & !DECODES;
    // SAFETY: with decoding off, the address in the register means nothing; both are put back. Only this core runs.
    unsafe {
        pci_write(bus, device, function, COMMAND, quiet);
        pci_write(bus, device, function, offset, u32::MAX);
        let mask = pci_read(bus, device, function, offset);
        pci_write(bus, device, function, offset, before);
        pci_write(bus, device, function, COMMAND, command & 0xFFFF);
        mask
    }
}

/// Reads an MSR of which the caller knows that it exists; an exception ends the probe otherwise.
#[must_use]
pub fn read_msr(index: u32) -> u64 {
    machine::read_msr(index)
}
