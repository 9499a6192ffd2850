//! What ACPI says: which cores there are, and where the PM timer is. Read on the boot tables, then left.
#![expect(unsafe_code, reason = "reads firmware's tables where they lie")]

use bulkhead_table::Range;
use hv_core::acpi::{self, Interrupts, Missing, Physical, PmTimer, Roots, Skipped, Table};
use hv_core::memory_map::MemoryMap;
use hv_core::multiboot::Area;

use super::defects::Defects;
use super::info::REACHABLE;
use super::processor::apic_id_of;
use crate::cpu::apic;
use crate::table::TABLE;
use crate::text::say;

/// Firmware's tables, identity-mapped by the boot tables.
#[derive(Clone, Copy)]
pub struct Identity;

impl Physical for Identity {
    fn byte(&self, address: u64) -> Option<u8> {
        let good = address != 0 && address < REACHABLE;
        // SAFETY: the boot tables map all of the first 4 GiB with all rights. The read is of one byte and volatile, so it
        // is sound whatever answers there; an address that nothing answers reads as ones.
        good.then(|| unsafe { (address as *const u8).read_volatile() })
    }
}

static MEMORY: Identity = Identity;

/// A table of firmware that is whole.
type Whole = Table<'static, Identity>;

/// The tables that are needed; each that is missing was told as a defect.
pub struct Firmware {
    madt: Option<Whole>,
    fadt: Option<Whole>,
}

impl Firmware {
    /// Looks for the tables and tells each that is missing. Every I/O APIC is silenced: what firmware left routed would
    /// reach a guest.
    pub fn read<A: Iterator<Item = Area> + Clone>(
        roots: &Roots,
        memory: &MemoryMap<A>,
        defects: &mut Defects,
    ) -> Self {
        if roots.is_empty() {
            defects.add(format_args!(
                "the boot loader handed over no ACPI root pointer (RSDP), so neither cores nor the PM timer can be found; switch ACPI on in the firmware's set-up, or boot by another boot loader"
            ));
            return Self { madt: None, fadt: None };
        }
        let madt = find(roots, *b"APIC", "MADT, which lists the processors", defects);
        let madt = madt.filter(|table| match acpi::madt(*table) {
            Ok(entries) => {
                silence_io_apics(entries, memory);
                true
            }
            Err(why) => {
                tell_missing("MADT, which lists the processors", why, defects);
                false
            }
        });
        Self { madt, fadt: find(roots, *b"FACP", "FADT, which names the PM timer", defects) }
    }

    /// The timer to measure the TSC against. `None`, told as a defect, where there is none.
    pub fn pm_timer(&self, defects: &mut Defects) -> Option<PmTimer> {
        let timer = acpi::pm_timer(self.fadt.as_ref()?);
        if timer.is_none() {
            defects.add(format_args!(
                "firmware's FADT names no PM timer at an I/O port, against which the TSC could be measured"
            ));
        }
        timer
    }

    /// Tells each core of the table that firmware does not know.
    pub fn verify_cores(&self, defects: &mut Defects) {
        let Some(madt) = self.madt else {
            return;
        };
        for (index, core) in TABLE.cores.iter().enumerate() {
            let Some(id) = apic_id_of(index) else {
                continue;
            };
            if !processors(madt).any(|known| known == id) {
                defects.add(format_args!(
                    "core {} has APIC id {id} in the board file, and firmware's MADT has no enabled processor with that id; it has {}",
                    core.cpu,
                    Ids(madt)
                ));
            }
        }
    }
}

/// The whole table with this signature; `None`, told as a defect, where there is none.
fn find(
    roots: &Roots,
    signature: [u8; 4],
    name: &'static str,
    defects: &mut Defects,
) -> Option<Whole> {
    match acpi::find(&MEMORY, roots, signature) {
        Ok((table, skipped)) => {
            note_skipped(&table, skipped, name);
            Some(table)
        }
        Err(why) => {
            tell_missing(name, why, defects);
            None
        }
    }
}

fn tell_missing(name: &'static str, why: Missing, defects: &mut Defects) {
    defects.add(format_args!(
        "firmware has no usable {name}: {why}; update the firmware, or reset its set-up to defaults"
    ));
}

/// Says which flaws were passed over. Operating systems pass over them too.
fn note_skipped(table: &Whole, skipped: Skipped, name: &'static str) {
    if skipped.unreadable > 0 || skipped.others > 0 {
        say!(
            "Bulkhead: firmware's {name}, is the table at {:#x}; of the ACPI root table's {} entries {} lead to nothing that can be read, and {} to another such table, which is not used.",
            table.address(),
            skipped.entries,
            skipped.unreadable,
            skipped.others
        );
    }
}

/// APIC ids of the enabled processors; one may come twice.
fn processors(madt: Whole) -> impl Iterator<Item = u32> {
    acpi::madt(madt).into_iter().flatten().filter_map(|entry| match entry {
        Interrupts::Processor(id) => Some(id),
        Interrupts::IoApic(_) => None,
    })
}

/// APIC ids as a list for a sentence.
struct Ids(Whole);

impl core::fmt::Display for Ids {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (index, id) in processors(self.0).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{id}")?;
        }
        Ok(())
    }
}

/// Masks every pin of each I/O APIC. An address where none can be is said and left alone.
fn silence_io_apics<A: Iterator<Item = Area> + Clone>(
    entries: impl Iterator<Item = Interrupts>,
    memory: &MemoryMap<A>,
) {
    for entry in entries {
        let Interrupts::IoApic(address) = entry else {
            continue;
        };
        let registers = Range { start: address.into(), size: apic::IO_APIC_SIZE };
        let possible = address != 0
            && registers.start.is_multiple_of(apic::IO_APIC_ALIGNMENT)
            && registers.end() <= REACHABLE
            && !memory.touches_ram(&registers);
        if !(possible && apic::mask_io_apic(address)) {
            say!(
                "Bulkhead: firmware's MADT names an I/O APIC at {address:#x}, where none answers; it is left alone."
            );
        }
    }
}
