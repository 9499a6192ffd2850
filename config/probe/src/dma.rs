//! IOMMUs and what devices reach for firmware's sake, with the functions that answer.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::acpi::{self, Dma, DmaRange, Iommu, Path};
use crate::board::{PlacedIommu, Reserved};
use crate::devices::Taken;
use crate::facts::Facts;
use crate::left::LeftOut;
use crate::memory::{self, Range};
use crate::pci::{Address, Chipset, Device};

/// The first page of an IOMMU's registers.
const IOMMU_BYTES: u64 = 0x1000;
/// The table names ranges in whole pages. VT-d 4.1, 8.4.
const PAGE: u64 = 4096;

/// Intel's table, else AMD's.
pub(crate) fn read(facts: &Facts) -> Dma {
    let intel = acpi::find(&facts.tables, b"DMAR").map(acpi::dmar);
    let amd = || acpi::find(&facts.tables, b"IVRS").map(acpi::ivrs);
    intel.or_else(amd).unwrap_or_default()
}

/// The ranges that firmware lets devices reach.
pub(crate) fn ranges(dma: &Dma, devices: &[Device], notes: &mut Vec<String>) -> Vec<Reserved> {
    let mut left = LeftOut::default();
    let mut ranges = Vec::new();
    for range in &dma.reserved {
        let subject = format!("the DMA range at {:#x}", range.start);
        match sound(range) {
            Ok(place) => {
                let devices = resolve_all(&range.devices, devices, &subject, notes);
                ranges.push(Reserved { range: place, kind: "dma", devices });
            }
            Err(why) => left.add(subject, why),
        }
    }
    left.tell(notes);
    ranges
}

fn sound(range: &DmaRange) -> Result<Range, &'static str> {
    let place = memory::range(range.start, range.size)?;
    if range.size < PAGE {
        return Err("it is smaller than a page, which is the least that can be given to a device");
    }
    Ok(place)
}

/// The IOMMUs, each function with one of them.
pub(crate) fn iommus(
    dma: &Dma,
    devices: &[Device],
    ram: &[Range],
    registers: &mut Taken,
    notes: &mut Vec<String>,
) -> Vec<PlacedIommu> {
    let mut left = LeftOut::default();
    let (mut served, mut rests) = (BTreeSet::new(), BTreeSet::new());
    let mut placed = Vec::new();
    for iommu in &dma.iommus {
        let subject = format!("the IOMMU at {:#x}", iommu.registers);
        if let Err(why) = registers.take(iommu.registers, IOMMU_BYTES, Chipset::Iommu, ram) {
            left.add(subject, why);
            continue;
        }
        let named = resolve_all(&iommu.devices, devices, &subject, notes);
        let rest = iommu.rest && rests.insert(iommu.segment);
        if rest != iommu.rest {
            left.add(format!("the rest of segment {} for {subject}", iommu.segment), SERVED);
        }
        let mut own = Vec::new();
        for address in named {
            if served.insert(address) {
                own.push(address);
            } else {
                left.add(format!("the PCI function {address} for {subject}"), SERVED);
            }
        }
        let Iommu { registers, segment, .. } = *iommu;
        placed.push(PlacedIommu { registers, segment, rest, devices: own });
    }
    left.tell(notes);
    placed
}

const SERVED: &str = "an IOMMU before it in firmware's table serves it";

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
