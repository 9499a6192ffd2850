//! From raw facts of a machine to its board file.
//!
//! Two programs look at a machine: `bulkhead probe` on Linux, and the probe image on the bare machine. Both only
//! gather [`Facts`]: CPUID leaves, the firmware's memory map, ACPI tables as bytes, PCI configuration space as bytes.
//! Everything that is *concluded* from them is concluded here, by the same lines, so that the two can differ only
//! in what they could see. [`Board::conclude`] does it, and [`Board::to_toml`] writes the board file.
//!
//! Firmware's bytes are not trusted: every read is bounded, what does not add up is left out and told as a comment in
//! the board file, and nothing panics.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abilities;
pub mod acpi;
mod board;
mod bytes;
mod clock;
mod cores;
mod devices;
mod dma;
pub mod facts;
mod interrupts;
mod left;
pub mod log;
pub mod memory;
pub mod pci;
pub mod power;
mod refusals;
mod summary;
mod toml;
pub mod topology;

pub use board::{Board, NAME, PlacedIommu, Reserved};
pub use clock::{Clock, POSSIBLE as POSSIBLE_CLOCKS};
pub use devices::CHIPSET_PORTS;
pub use facts::Facts;
pub use interrupts::PlacedIoApic;
pub use memory::Range;
pub use refusals::{HYPERVISOR_RESERVE, Refusal};
pub use toml::told;
