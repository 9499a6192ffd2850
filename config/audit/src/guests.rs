//! Proves what each guest starts with: its image, its entry, its boot information.

use bulkhead_table::{Range, Region};

use crate::memory::{covers, guest_ranges, schedule_range};
use crate::model::{Partition, System};
use crate::pc;
use crate::proof::{Party, Proof};
use crate::rules::Rule;

/// Multiboot2 specification 2.0, section 3.6: tags of the boot information.
const TAG_END: u32 = 0;
pub(crate) const TAG_COMMAND_LINE: u32 = 1;
pub(crate) const TAG_MODULE: u32 = 3;
pub(crate) const TAG_MEMORY_MAP: u32 = 6;
pub(crate) const TAG_ACPI_POINTER: u32 = 15;
/// An entry of the memory map, and the types of one that is usable RAM and one that is not.
const MEMORY_ENTRY: u32 = 24;
const AVAILABLE: u32 = 1;
const RESERVED: u32 = 2;

/// Proves all of it.
pub(crate) fn prove(system: &System, proof: &mut Proof) {
    for partition in &system.partitions {
        image(partition, proof);
        entry(partition, proof);
        boot_info_place(partition, proof);
        if pc::starts_by_itself(partition) {
            pc::prove(system, partition, proof);
        } else {
            boot_info(partition, proof);
        }
    }
}

/// Where the image lies; `None` when that is no range.
fn image_range(partition: &Partition) -> Option<Range> {
    let range = Range { start: partition.image.load_at, size: partition.image.size };
    range.start.checked_add(range.size).filter(|_| range.size > 0).map(|_| range)
}

fn image(partition: &Partition, proof: &mut Proof) {
    let inside =
        image_range(partition).is_some_and(|range| covers(&guest_ranges(partition), &range));
    proof.fact(Rule::ImagePlace, inside, || {
        let (party, image) = (partition.party(), &partition.image);
        let message = format!(
            "the image of {party}, {} bytes at {:#x}, is empty or not in its memory",
            image.size, image.load_at
        );
        (message, vec![party])
    });
}

fn entry(partition: &Partition, proof: &mut Proof) {
    let entry = Range { start: partition.image.entry, size: 1 };
    let within =
        |region: &&Region| Range { start: region.guest, size: region.size }.contains(&entry);
    let executable = partition.memory.iter().find(within).is_some_and(|found| found.rights.execute);
    let loaded = image_range(partition).is_some_and(|range| range.contains(&entry));
    let brought = loaded || pc::starts_by_itself(partition);
    proof.fact(Rule::Entry, executable && brought, || {
        let party = partition.party();
        let message = format!(
            "the entry {:#x} of {party} is not in its image, or not in memory that may be executed",
            entry.start
        );
        (message, vec![party])
    });
}

fn boot_info_place(partition: &Partition, proof: &mut Proof) {
    let start = partition.boot_info_at;
    let range = Range { start, size: partition.boot_info.len() as u64 };
    let inside = start.checked_add(range.size).is_some()
        && start.is_multiple_of(8)
        && covers(&guest_ranges(partition), &range);
    let party = partition.party();
    proof.fact(Rule::BootInfoPlace, inside, || {
        let message = format!(
            "the boot information of {party}, {} bytes at {start:#x}, is not in its memory on a bound of 8",
            range.size
        );
        (message, vec![party.clone()])
    });
    // Where a PC has its firmware, nothing but zeros of the image may lie below: that is held against the module itself.
    let clash = !pc::is_in_firmware(partition)
        && image_range(partition).is_some_and(|image| image.overlaps(&range));
    proof.fact(Rule::BootInfoPlace, !clash, || {
        let of = |what: &str| Party { name: format!("{what} of {}", party.name), ..party.clone() };
        let parties = vec![of("boot information"), of("image")];
        let message =
            format!("guest-physical {start:#x} belongs to {} and to {}", parties[0], parties[1]);
        (message, parties)
    });
}

fn boot_info(partition: &Partition, proof: &mut Proof) {
    let wrong = parse(&partition.boot_info).and_then(|info| info.check(partition)).err();
    proof.fact(Rule::BootInfoForm, wrong.is_none(), || {
        let party = partition.party();
        let wrong = wrong.unwrap_or_default();
        (format!("the boot information of {party} {wrong}"), vec![party])
    });
}

/// What the boot information says, as far as a guest relies on it.
#[derive(Default)]
struct BootInfo {
    command_lines: usize,
    maps: usize,
    available: Vec<Range>,
    reserved: Vec<Range>,
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// The ranges of a tag with a memory map, and their kinds.
pub(crate) fn memory_map(content: &[u8]) -> Result<Vec<(Range, u32)>, String> {
    let entries = content.get(8..).unwrap_or_default();
    let whole = entries.len().is_multiple_of(MEMORY_ENTRY as usize);
    if long(content, 0) != Some(MEMORY_ENTRY) || long(content, 4) != Some(0) || !whole {
        return Err("has a memory map of another form".to_owned());
    }
    let entry = |entry: &[u8]| {
        let range = Range { start: word(entry, 0)?, size: word(entry, 8)? };
        Some((range, long(entry, 16)?))
    };
    Ok(entries.chunks_exact(MEMORY_ENTRY as usize).filter_map(entry).collect())
}

/// A tag of Multiboot2 information.
pub(crate) struct Tag<'i> {
    pub kind: u32,
    /// Byte of the information where its content begins.
    pub at: usize,
    pub content: &'i [u8],
}

/// The tags of Multiboot2 information, the last one left out.
pub(crate) fn tags(bytes: &[u8]) -> Result<Vec<Tag<'_>>, String> {
    let cut = || "ends in the middle of a tag".to_owned();
    if long(bytes, 0) != u32::try_from(bytes.len()).ok() || long(bytes, 4) != Some(0) {
        return Err("does not begin with its length".to_owned());
    }
    let mut tags = Vec::new();
    let mut at = 8;
    loop {
        let kind = long(bytes, at).ok_or_else(cut)?;
        let size =
            long(bytes, at + 4).and_then(|size| usize::try_from(size).ok()).ok_or_else(cut)?;
        let behind = at.checked_add(size).filter(|_| size >= 8).ok_or_else(cut)?;
        let content = bytes.get(at + 8..behind).ok_or_else(cut)?;
        match kind {
            TAG_END if behind == bytes.len() => return Ok(tags),
            TAG_END => return Err("goes on behind its last tag".to_owned()),
            _ => tags.push(Tag { kind, at: at + 8, content }),
        }
        at = behind.next_multiple_of(8);
    }
}

fn parse(bytes: &[u8]) -> Result<BootInfo, String> {
    let mut info = BootInfo::default();
    for tag in tags(bytes)? {
        match tag.kind {
            TAG_COMMAND_LINE => info.command_line(tag.content)?,
            TAG_MEMORY_MAP => info.memory_map(tag.content)?,
            _ => {}
        }
    }
    Ok(info)
}

impl BootInfo {
    fn command_line(&mut self, content: &[u8]) -> Result<(), String> {
        self.command_lines += 1;
        match content.split_last() {
            Some((0, line)) if line.iter().all(|byte| (b' '..=b'~').contains(byte)) => Ok(()),
            _ => {
                Err("has a command line that is not printable text with a zero behind it"
                    .to_owned())
            }
        }
    }

    fn memory_map(&mut self, content: &[u8]) -> Result<(), String> {
        self.maps += 1;
        for (range, kind) in memory_map(content)? {
            match kind {
                AVAILABLE => self.available.push(range),
                RESERVED => self.reserved.push(range),
                _ => return Err("has a memory map with an entry of another kind".to_owned()),
            }
        }
        Ok(())
    }

    fn check(&self, partition: &Partition) -> Result<(), String> {
        if self.command_lines != 1 || self.maps != 1 {
            return Err(format!(
                "has {} command lines and {} memory maps, not one of each",
                self.command_lines, self.maps
            ));
        }
        let writable = partition.memory.iter().filter(|region| region.rights.write);
        let memory: Vec<Range> =
            writable.map(|region| Range { start: region.guest, size: region.size }).collect();
        let pages = schedule_range(partition);
        let reserved = if partition.schedule_at > 0 { vec![pages] } else { Vec::new() };
        if self.available != memory {
            return Err("states other memory than the partition has".to_owned());
        }
        if self.reserved != reserved {
            return Err("does not keep the schedule pages free, and them alone".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_boot_information_is_no_danger() {
        let good: Vec<u8> = [16_u32, 0, 0, 8].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(parse(&good).is_ok());
        for at in 0..good.len() {
            for value in [0, 1, 7, 0x7F, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _either = parse(&bytes).is_ok();
            }
            assert!(parse(&good[..at]).is_err());
        }
    }
}
