//! What ACPI says: which cores there are, and where the PM timer is. Read on the boot tables, copied, then left.
#![expect(unsafe_code, reason = "gives the ACPI crate access to firmware's tables")]

use core::pin::Pin;
use core::ptr::NonNull;

use acpi::address::AddressSpace;
use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use bulkhead_table::MAX_CORES;
use heapless::Vec;

use super::defects::Defects;
use super::processor::apic_id_of;
use crate::cpu::apic;
use crate::table::TABLE;
use crate::text::say;

/// Processors that are kept: more than a table can name, since a board may have cores that no system uses.
const PROCESSORS: usize = 4 * MAX_CORES;

/// Addresses that the boot tables map.
const REACHABLE: usize = 1 << 32;

/// Where ACPI's root table lies.
#[derive(Clone, Copy, Debug)]
pub struct RootTable {
    /// 0: an RSDT of 32-bit addresses; else an XSDT.
    pub revision: u8,
    /// Physical address.
    pub address: usize,
}

/// The PM timer: a counter of 3.579545 MHz.
#[derive(Clone, Copy, Debug)]
pub struct PmTimer {
    /// I/O port.
    pub port: u16,
    /// Counts 32 bits, not 24.
    pub is_32_bits: bool,
}

/// What is kept of ACPI.
pub struct Firmware {
    processors: Vec<u32, PROCESSORS>,
    /// The timer to measure the TSC against.
    pub pm_timer: Option<PmTimer>,
}

/// Firmware's tables, identity-mapped.
#[derive(Clone, Copy)]
struct Identity;

impl AcpiHandler for Identity {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let reachable = physical_address.checked_add(size).is_some_and(|end| end <= REACHABLE);
        match NonNull::new(physical_address as *mut T) {
            // SAFETY: the boot tables map all of the first 4 GiB.
            Some(pointer) if reachable => unsafe {
                PhysicalMapping::new(physical_address, pointer, size, size, Self)
            },
            _ => panic!(
                "firmware's ACPI tables name {physical_address:#x}, where no table can be (below 4 GiB, not at 0)"
            ),
        }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}

impl Firmware {
    /// Reads the tables; `None`, with the defects told, when they cannot be read.
    pub fn read(root: Option<RootTable>, defects: &mut Defects) -> Option<Self> {
        let Some(root) = root else {
            defects.add(format_args!(
                "the boot loader handed over no valid ACPI root pointer (RSDP), so neither cores nor the PM timer can be found"
            ));
            return None;
        };
        // SAFETY: the boot loader's RSDP copy with a valid checksum gave the address.
        let tables = match unsafe { AcpiTables::from_rsdt(Identity, root.revision, root.address) } {
            Ok(tables) => tables,
            Err(error) => {
                defects.add(format_args!("firmware's ACPI root table cannot be read ({error:?})"));
                return None;
            }
        };
        Some(Self {
            processors: read_processors(&tables, defects),
            pm_timer: read_pm_timer(&tables),
        })
    }

    /// Tells each core of the table that firmware does not know.
    pub fn verify_cores(&self, defects: &mut Defects) {
        for (index, core) in TABLE.cores.iter().enumerate() {
            let Some(id) = apic_id_of(index) else {
                continue;
            };
            if !self.processors.contains(&id) {
                defects.add(format_args!(
                    "core {} has APIC id {id} in the board file, and firmware's MADT has no enabled processor with that id; it has {}",
                    core.cpu,
                    Ids(&self.processors)
                ));
            }
        }
    }
}

/// APIC ids as a list for a sentence.
struct Ids<'a>(&'a [u32]);

impl core::fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (index, id) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{id}")?;
        }
        Ok(())
    }
}

/// APIC ids of the enabled processors. Each I/O APIC on the way is silenced: what firmware left routed would reach a guest.
fn read_processors(tables: &AcpiTables<Identity>, defects: &mut Defects) -> Vec<u32, PROCESSORS> {
    const ENABLED: u32 = 1;
    let mut processors = Vec::new();
    let madt = match tables.find_table::<Madt>() {
        Ok(madt) => madt,
        Err(error) => {
            defects.add(format_args!("firmware's ACPI tables have no readable MADT ({error:?})"));
            return processors;
        }
    };
    if !is_well_formed(&madt) {
        defects.add(format_args!(
            "firmware's MADT is malformed: its entries do not add up to its length"
        ));
        return processors;
    }
    for entry in madt.get().entries() {
        if let MadtEntry::IoApic(io_apic) = entry {
            apic::mask_io_apic(io_apic.io_apic_address);
            continue;
        }
        let (id, flags) = match entry {
            MadtEntry::LocalApic(entry) => (u32::from(entry.apic_id), entry.flags),
            MadtEntry::LocalX2Apic(entry) => (entry.x2apic_id, entry.flags),
            _ => continue,
        };
        if flags & ENABLED != 0 && !processors.contains(&id) && processors.push(id).is_err() {
            say!(
                "Bulkhead: firmware names more than {PROCESSORS} processors; APIC id {id} is not seen."
            );
        }
    }
    processors
}

/// Whether each entry has a length and the last one ends with the table: the crate's iterator relies on both.
fn is_well_formed(madt: &PhysicalMapping<Identity, Madt>) -> bool {
    const HEADER: usize = 2;
    let start = madt.virtual_start().as_ptr() as *const u8;
    // SAFETY: the crate mapped the whole table and checked its checksum over this length.
    let bytes = unsafe { core::slice::from_raw_parts(start, madt.region_length()) };
    let mut rest = bytes.get(size_of::<Madt>()..).unwrap_or(&[0]);
    while let Some(length) = rest.get(1).map(|length| usize::from(*length)) {
        match rest.get(length..) {
            Some(next) if length >= HEADER => rest = next,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn read_pm_timer(tables: &AcpiTables<Identity>) -> Option<PmTimer> {
    let fadt = tables.find_table::<Fadt>().ok()?;
    let block = fadt.pm_timer_block().ok()??;
    if block.address_space != AddressSpace::SystemIo {
        return None;
    }
    let port = u16::try_from(block.address).ok()?;
    let flags = Pin::get_ref(fadt.get()).flags;
    Some(PmTimer { port, is_32_bits: flags.pm_timer_is_32_bit() })
}
