//! Proves what an operating system starts from on its small PC: boot parameters, memory map, ACPI tables, and where its kernel and
//! RAM disk lie.
//!
//! It reads them as the kernel does, from the address of the parameters on (Linux: Documentation/arch/x86/zero-page.rst, boot.rst).

use bulkhead_table::{PAGE_SIZE, Platform, Range, pc};

use crate::memory::covers;
use crate::model::{Partition, System};
use crate::proof::Proof;
use crate::rules::Rule;

/// Fields of the parameters.
const ACPI_ROOT: usize = 0x070;
const MAP_LENGTH: usize = 0x1E8;
const MAGIC: usize = 0x202;
const LOADER: usize = 0x210;
const CODE_START: usize = 0x214;
const RAMDISK: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const COMMAND_LINE: usize = 0x228;
const INIT_SIZE: usize = 0x260;
const MAP: usize = 0x2D0;
const MAP_ENTRY: usize = 20;
/// PVH: the magic number of its start information. In its page, and in Multiboot's, the memory map lies here.
const PVH_MAGIC: u32 = 0x336E_C578;
const OTHER_MAP: usize = 0x100;
const MOST_ENTRIES: usize = 128;
/// Offset of the 64-bit entry in a kernel.
const ENTRY: u64 = 0x200;
/// Multiboot: a command line and a memory map are there.
const MULTIBOOT_NEEDED: u32 = 1 << 2 | 1 << 6;
/// Kinds in the memory map: RAM, reserved, ACPI tables.
const RAM: u32 = 1;
const KINDS: [u32; 3] = [RAM, 2, 3];
/// ACPI 6.5, 5.2.5.3 and 5.2.6: lengths of the root pointer, of a table's header, of what precedes the entries of a MADT.
const POINTER: usize = 36;
const HEADER: usize = 36;
const MADT_HEADER: usize = 44;

/// Whether a partition starts by a boot protocol of its own: its first instruction is not one of its image.
pub(crate) fn starts_by_itself(partition: &Partition) -> bool {
    partition.platform == Platform::Pc
        && info_range(partition).contains(&one(partition.image.entry))
}

fn one(address: u64) -> Range {
    Range { start: address, size: 1 }
}

fn info_range(partition: &Partition) -> Range {
    Range { start: partition.boot_info_at, size: partition.boot_info.len() as u64 }
}

/// By which protocol a guest starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Linux,
    Pvh,
    Multiboot,
}

/// Proves all of it.
pub(crate) fn prove(system: &System, partition: &Partition, proof: &mut Proof) {
    let info = Info { partition };
    let fact = |proof: &mut Proof, rule, checked: Result<(), String>| {
        proof.fact(rule, checked.is_ok(), || {
            let party = partition.party();
            let wrong = checked.err().unwrap_or_default();
            (format!("{party} {wrong}"), vec![party])
        });
    };
    let map = info.memory_map();
    fact(proof, Rule::PcMemoryMap, map.as_ref().map(|_| ()).map_err(Clone::clone));
    // One mistake, one fault: what depends on a wrong map is held against the memory itself, or not at all.
    let (ram, known) = map.map_or_else(|_| (info.writable(), Vec::new()), |ram| (ram.clone(), ram));
    fact(proof, Rule::PcStart, info.start(&ram));
    let id = |cpu: &u16| system.board.apic_ids.get(usize::from(*cpu)).copied();
    let ids: Vec<u32> = partition.cpus.iter().filter_map(id).collect();
    fact(proof, Rule::PcTables, info.tables(&known, &ids));
}

/// A partition's boot information, read by guest-physical address.
struct Info<'p> {
    partition: &'p Partition,
}

impl Info<'_> {
    fn bytes(&self, at: u64, length: u64) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.partition.boot_info_at)?).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        self.partition.boot_info.get(start..end)
    }

    fn parameters(&self) -> Result<&[u8], String> {
        let page = self.bytes(pc::PARAMETERS, PAGE_SIZE);
        page.ok_or_else(|| "has no boot parameters in its boot information".to_owned())
    }

    /// The ranges that the memory map calls RAM.
    fn memory_map(&self) -> Result<Vec<Range>, String> {
        let page = self.parameters()?;
        let (entries, count) = entries(page);
        if !(1..=MOST_ENTRIES).contains(&count) {
            return Err(format!("has a memory map of {count} entries"));
        }
        let memory = self.writable();
        let (mut ram, mut end) = (Vec::new(), 0);
        for (range, kind) in entries.take(count) {
            let at = range.start;
            if range.size == 0 || at < end || at.checked_add(range.size).is_none() {
                return Err(format!(
                    "has a memory map whose entry at {at:#x} is not behind the one before it"
                ));
            }
            end = range.end();
            if !KINDS.contains(&kind) {
                return Err(format!("has a memory map whose entry at {at:#x} has the kind {kind}"));
            }
            if kind == RAM && !covers(&memory, &range) {
                return Err(format!("is told of RAM at {at:#x}-{end:#x} that it has not"));
            }
            if kind == RAM {
                ram.push(range);
            }
        }
        Ok(ram)
    }

    fn writable(&self) -> Vec<Range> {
        let writable = self.partition.memory.iter().filter(|region| region.rights.write);
        writable.map(|region| Range { start: region.guest, size: region.size }).collect()
    }

    /// Kernel, RAM disk and boot information: in RAM, and apart.
    fn start(&self, ram: &[Range]) -> Result<(), String> {
        let page = self.parameters()?;
        if form(page) != Form::Linux {
            return self.other_start(page);
        }
        if page[LOADER] == 0 {
            return Err("is told of no boot loader".to_owned());
        }
        let image = Range { start: self.partition.image.load_at, size: self.partition.image.size };
        let kernel =
            Range { start: long(page, CODE_START).into(), size: long(page, INIT_SIZE).into() };
        let disk =
            Range { start: long(page, RAMDISK).into(), size: long(page, RAMDISK_SIZE).into() };
        let own = self.own();
        if !image.contains(&one(kernel.start.saturating_add(ENTRY))) {
            return Err(format!(
                "enters its kernel at {:#x}, where nothing is loaded",
                kernel.start + ENTRY
            ));
        }
        if disk.size > 0 && !image.contains(&disk) {
            return Err(format!("is told of a RAM disk at {:#x} where none is loaded", disk.start));
        }
        let pieces = [(kernel, "kernel"), (disk, "RAM disk"), (own, "boot information")];
        let pieces = pieces.iter().filter(|(range, _)| range.size > 0);
        for (index, (range, what)) in pieces.clone().enumerate() {
            if range != &own && !covers(ram, range) {
                return Err(format!(
                    "has a {what} at {:#x}-{:#x} that is not in RAM",
                    range.start,
                    range.end()
                ));
            }
            if let Some((_, other)) =
                pieces.clone().skip(index + 1).find(|(other, _)| other.overlaps(range))
            {
                return Err(format!("has a {what} at {:#x} that covers its {other}", range.start));
            }
        }
        self.command_line(long(page, COMMAND_LINE).into())
    }

    /// The boot information, and the page tables that its code builds.
    fn own(&self) -> Range {
        let start = self.partition.boot_info_at;
        let end = pc::PAGE_TABLES_END.max(info_range(self.partition).end());
        Range { start, size: end.saturating_sub(start) }
    }

    /// What starts by PVH or Multiboot: one of the two, its image off the boot information, its words where they are said to be.
    fn other_start(&self, page: &[u8]) -> Result<(), String> {
        let image = Range { start: self.partition.image.load_at, size: self.partition.image.size };
        let (line, map) = match form(page) {
            Form::Pvh if long(page, 4) == 1 => (word(page, 24), word(page, 40)),
            Form::Multiboot if long(page, 0) & MULTIBOOT_NEEDED == MULTIBOOT_NEEDED => {
                (long(page, 16).into(), long(page, 48).into())
            }
            _ => return Err("has no boot parameters of a protocol that is known".to_owned()),
        };
        if map != pc::PARAMETERS + OTHER_MAP as u64 {
            return Err(format!("is told of a memory map at {map:#x}, where none is"));
        }
        if image.overlaps(&self.own()) {
            return Err("has an image that covers its boot information".to_owned());
        }
        self.command_line(line)
    }

    fn command_line(&self, at: u64) -> Result<(), String> {
        let behind = info_range(self.partition).end().saturating_sub(at);
        let line = self.bytes(at, behind).unwrap_or_default();
        match line.iter().position(|byte| *byte == 0) {
            Some(end) if line[..end].iter().all(|byte| (b' '..=b'~').contains(byte)) => Ok(()),
            _ => {
                Err("has a command line that is not printable text with a zero behind it"
                    .to_owned())
            }
        }
    }

    /// The ACPI tables, from the root pointer on.
    fn tables(&self, ram: &[Range], ids: &[u32]) -> Result<(), String> {
        let page = self.parameters()?;
        let root = match form(page) {
            Form::Linux => word(page, ACPI_ROOT),
            Form::Pvh => word(page, 32),
            // It has no field for it.
            Form::Multiboot => pc::ACPI,
        };
        let pointer = self.whole(root, POINTER as u64, ram)?;
        if !pointer.starts_with(b"RSD PTR ") || sum(&pointer[..20]) != 0 {
            return Err("has no root pointer of ACPI where it looks for it".to_owned());
        }
        let root = self.table(word(pointer, 24), b"XSDT", ram)?;
        let entries = root[HEADER..].chunks_exact(8).map(|entry| word(entry, 0));
        let mut found = (0, 0);
        for address in entries {
            let signature = self.bytes(address, 4).unwrap_or_default();
            match signature {
                b"FACP" => {
                    let fixed = self.table(address, b"FACP", ram)?;
                    let dsdt = fixed.get(140..148).map(|bytes| word(bytes, 0)).unwrap_or_default();
                    self.table(dsdt, b"DSDT", ram)?;
                    found.0 += 1;
                }
                b"APIC" => {
                    named(self.table(address, b"APIC", ram)?, ids)?;
                    found.1 += 1;
                }
                _ => return Err(format!("has an ACPI table at {address:#x} of another kind")),
            }
        }
        if found != (1, 1) {
            return Err("has not one FADT and one MADT".to_owned());
        }
        Ok(())
    }

    /// A table with this signature.
    fn table(&self, at: u64, signature: &[u8; 4], ram: &[Range]) -> Result<&[u8], String> {
        let header = self.bytes(at, HEADER as u64).filter(|header| header.starts_with(signature));
        let name = || String::from_utf8_lossy(signature).into_owned();
        let header = header.ok_or_else(|| format!("has no ACPI table {} at {at:#x}", name()))?;
        let length = u64::from(long(header, 4)).max(HEADER as u64);
        self.whole(at, length, ram)
    }

    /// Bytes of the boot information, outside RAM, whose sum is zero.
    fn whole(&self, at: u64, length: u64, ram: &[Range]) -> Result<&[u8], String> {
        let range = Range { start: at, size: length };
        let bytes = self.bytes(at, length).filter(|bytes| sum(bytes) == 0);
        let bytes = bytes.ok_or_else(|| {
            format!("has an ACPI table at {at:#x} that is cut off or has another checksum")
        })?;
        if ram.iter().any(|ram| ram.overlaps(&range)) {
            return Err(format!("has an ACPI table at {at:#x} that its memory map calls RAM"));
        }
        Ok(bytes)
    }
}

/// The protocol whose parameters these are.
fn form(page: &[u8]) -> Form {
    match (page.get(MAGIC..MAGIC + 4) == Some(b"HdrS"), long(page, 0)) {
        (true, _) => Form::Linux,
        (false, PVH_MAGIC) => Form::Pvh,
        (false, _) => Form::Multiboot,
    }
}

/// The entries of the memory map, and how many of them count.
fn entries(page: &[u8]) -> (impl Iterator<Item = (Range, u32)>, usize) {
    let (start, size, first, count) = match form(page) {
        Form::Linux => (MAP, MAP_ENTRY, 0, usize::from(page[MAP_LENGTH])),
        Form::Pvh => (OTHER_MAP, 24, 0, long(page, 48) as usize),
        Form::Multiboot => (OTHER_MAP, 24, 4, long(page, 44) as usize / 24),
    };
    let entry = move |entry: &[u8]| {
        (Range { start: word(entry, first), size: word(entry, first + 8) }, long(entry, first + 16))
    };
    (page[start..].chunks_exact(size).map(entry), count)
}

/// Whether a MADT names the local APICs with these ids and nothing else.
fn named(madt: &[u8], ids: &[u32]) -> Result<(), String> {
    let mut found = Vec::new();
    let mut rest = madt.get(MADT_HEADER..).unwrap_or_default();
    while let [kind, length, ..] = *rest {
        let Some((entry, behind)) = rest.split_at_checked(length.into()) else { break };
        match (kind, length) {
            (0, 8) if long(entry, 4) == 1 => found.push(u32::from(entry[3])),
            (9, 16) if long(entry, 8) == 1 => found.push(long(entry, 4)),
            _ => return Err(format!("has an entry of kind {kind} in its MADT")),
        }
        rest = behind;
    }
    if found != ids || !rest.is_empty() {
        return Err(format!("has a MADT that names the APICs {found:?}, and cores with {ids:?}"));
    }
    Ok(())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn long(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map_or(0, u32::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
    field.map_or(0, u64::from_le_bytes)
}
