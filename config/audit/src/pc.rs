//! Proves what an operating system starts from on its small PC: boot parameters, memory map, ACPI tables, and where its kernel and
//! RAM disk lie.
//!
//! It reads them as the kernel does, from the address of the parameters on (Linux: Documentation/arch/x86/zero-page.rst, boot.rst). By
//! which protocol another guest starts, and where, is taken from the code that is run first.

use bulkhead_table::{PAGE_SIZE, Platform, Range, pc};

use crate::guests::{self, TAG_ACPI_POINTER, TAG_COMMAND_LINE, TAG_MEMORY_MAP, TAG_MODULE};
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
/// PVH: the magic number and the version of its start information.
const PVH_MAGIC: u32 = 0x336E_C578;
const PVH_VERSION: u32 = 1;
const MOST_ENTRIES: usize = 128;
/// What EAX holds for a guest of Multiboot2 and of Multiboot.
const MULTIBOOT2_LOADER: u32 = 0x36D7_6289;
const MULTIBOOT_LOADER: u32 = 0x2BAD_B002;
/// Offset of the 64-bit entry in a kernel.
const ENTRY: u64 = 0x200;
/// Multiboot: a command line and a memory map are there; and modules.
const MULTIBOOT_NEEDED: u32 = 1 << 2 | 1 << 6;
const MULTIBOOT_MODULES: u32 = 1 << 3;
/// Most modules that are looked at.
const MOST_MODULES: usize = 8;
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

fn page_at(address: u64) -> Range {
    Range { start: address, size: PAGE_SIZE }
}

fn info_range(partition: &Partition) -> Range {
    Range { start: partition.boot_info_at, size: partition.boot_info.len() as u64 }
}

/// Whether its boot information is where a PC has its firmware.
pub(crate) fn is_in_firmware(partition: &Partition) -> bool {
    let firmware = Range { start: pc::FIRMWARE, size: pc::HIGH - pc::FIRMWARE };
    partition.platform == Platform::Pc && firmware.contains(&info_range(partition))
}

/// By which protocol a guest starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Linux,
    Multiboot2,
    Multiboot,
    Pvh,
}

/// What a guest is told, whatever the protocol.
struct Told {
    map: Vec<(Range, u32)>,
    /// Address of the command line; it ends with a zero.
    line: u64,
    /// Address of the root pointer of ACPI.
    root: u64,
    modules: Vec<Range>,
}

/// How a guest is entered that is no Linux: `cli; cld; mov eax, ..; mov ebx, ..; mov ecx, entry; jmp ecx`.
struct Handover {
    eax: u32,
    ebx: u32,
    entry: u64,
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

    /// Where the parameters lie: a page behind the code that is run first.
    fn parameters_at(&self) -> u64 {
        self.partition.boot_info_at.saturating_add(pc::PARAMETERS - pc::TRAMPOLINE)
    }

    fn parameters(&self) -> Result<&[u8], String> {
        let page = self.bytes(self.parameters_at(), PAGE_SIZE);
        page.ok_or_else(|| "has no boot parameters in its boot information".to_owned())
    }

    /// What the first code does, where it is that of a guest that is no Linux.
    fn handover(&self) -> Option<Handover> {
        let code = self.bytes(self.partition.image.entry, 19)?;
        let is_it = code.starts_with(b"\xFA\xFC\xB8")
            && (code[7], code[12]) == (0xBB, 0xB9)
            && code.ends_with(b"\xFF\xE1");
        is_it.then(|| Handover {
            eax: long(code, 3),
            ebx: long(code, 8),
            entry: long(code, 13).into(),
        })
    }

    /// The protocol by which it starts.
    fn form(&self, page: &[u8]) -> Result<Form, String> {
        match self.handover() {
            None if page.get(MAGIC..MAGIC + 4) == Some(b"HdrS") => Ok(Form::Linux),
            Some(Handover { eax: MULTIBOOT2_LOADER, .. }) => Ok(Form::Multiboot2),
            Some(Handover { eax: MULTIBOOT_LOADER, .. }) => Ok(Form::Multiboot),
            Some(_) if (long(page, 0), long(page, 4)) == (PVH_MAGIC, PVH_VERSION) => Ok(Form::Pvh),
            _ => Err("has no boot parameters of a protocol that is known".to_owned()),
        }
    }

    fn told(&self) -> Result<Told, String> {
        let page = self.parameters()?;
        match self.form(page)? {
            Form::Linux => Ok(Told {
                map: entries(
                    page.get(MAP..).unwrap_or_default(),
                    MAP_ENTRY,
                    0,
                    page[MAP_LENGTH].into(),
                ),
                line: long(page, COMMAND_LINE).into(),
                root: word(page, ACPI_ROOT),
                modules: Vec::new(),
            }),
            Form::Multiboot2 => self.told_by_multiboot2(page),
            Form::Multiboot if long(page, 0) & MULTIBOOT_NEEDED == MULTIBOOT_NEEDED => Ok(Told {
                map: entries(self.tail(long(page, 48).into()), 24, 4, long(page, 44) as usize / 24),
                line: long(page, 16).into(),
                // It has no field for it: a guest searches where a PC has it.
                root: pc::in_firmware(pc::ACPI),
                modules: self.modules(page)?,
            }),
            Form::Multiboot => Err("is told of no command line or of no memory map".to_owned()),
            Form::Pvh => Ok(Told {
                map: entries(self.tail(word(page, 40)), 24, 0, long(page, 48) as usize),
                line: word(page, 24),
                root: word(page, 32),
                modules: modules(self.tail(word(page, 16)), 32, long(page, 12), |entry| Range {
                    start: word(entry, 0),
                    size: word(entry, 8),
                })?,
            }),
        }
    }

    fn told_by_multiboot2(&self, page: &[u8]) -> Result<Told, String> {
        let info = page.get(..long(page, 0) as usize);
        let tags = guests::tags(info.ok_or("has boot parameters that end behind their page")?)?;
        let of = |kind| {
            let mut found = tags.iter().filter(move |tag| tag.kind == kind);
            let first = found.next().filter(|_| found.next().is_none());
            first.ok_or_else(|| format!("has not one Multiboot2 tag of kind {kind}"))
        };
        let root = pc::in_firmware(pc::ACPI);
        let pointer = of(TAG_ACPI_POINTER)?.content;
        if self.bytes(root, POINTER as u64) != Some(pointer) {
            return Err("is told of a root pointer of ACPI that is not its own".to_owned());
        }
        let module = |tag: &guests::Tag<'_>| {
            let [start, end] = [0, 4].map(|at| u64::from(long(tag.content, at)));
            Range { start, size: end.saturating_sub(start) }
        };
        Ok(Told {
            map: guests::memory_map(of(TAG_MEMORY_MAP)?.content)?,
            line: self.parameters_at() + of(TAG_COMMAND_LINE)?.at as u64,
            root,
            modules: tags.iter().filter(|tag| tag.kind == TAG_MODULE).map(module).collect(),
        })
    }

    /// The modules of Multiboot.
    fn modules(&self, page: &[u8]) -> Result<Vec<Range>, String> {
        if long(page, 0) & MULTIBOOT_MODULES == 0 {
            return Ok(Vec::new());
        }
        modules(self.tail(long(page, 24).into()), 16, long(page, 20), |entry| {
            let [start, end] = [0, 4].map(|at| u64::from(long(entry, at)));
            Range { start, size: end.saturating_sub(start) }
        })
    }

    /// All of the boot information from an address on.
    fn tail(&self, at: u64) -> &[u8] {
        let behind = info_range(self.partition).end().saturating_sub(at);
        self.bytes(at, behind).unwrap_or_default()
    }

    /// The ranges that the memory map calls RAM.
    fn memory_map(&self) -> Result<Vec<Range>, String> {
        let entries = self.told()?.map;
        if !(1..=MOST_ENTRIES).contains(&entries.len()) {
            return Err(format!("has a memory map of {} entries", entries.len()));
        }
        let memory = self.writable();
        let (mut ram, mut end) = (Vec::new(), 0);
        for (range, kind) in entries {
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
            if kind == RAM && range.overlaps(&page_at(pc::CONSOLE_PAGE)) {
                return Err(format!(
                    "is told that its console page at {:#x} is RAM",
                    pc::CONSOLE_PAGE
                ));
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
        if let Some(handover) = self.handover() {
            return self.other_start(&handover);
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

    /// What starts by another protocol: in its image, told of its own parameters, its modules loaded.
    fn other_start(&self, handover: &Handover) -> Result<(), String> {
        let told = self.told()?;
        let image = Range { start: self.partition.image.load_at, size: self.partition.image.size };
        if !image.contains(&one(handover.entry)) {
            return Err(format!("is entered at {:#x}, where nothing is loaded", handover.entry));
        }
        if u64::from(handover.ebx) != self.parameters_at() {
            return Err(format!("is told of parameters at {:#x}, where none are", handover.ebx));
        }
        let lost = told.modules.iter().find(|module| module.size == 0 || !image.contains(module));
        if let Some(module) = lost {
            return Err(format!("is told of a module at {:#x} where none is loaded", module.start));
        }
        self.command_line(told.line)
    }

    fn command_line(&self, at: u64) -> Result<(), String> {
        let line = self.tail(at);
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
        let pointer = self.whole(self.told()?.root, POINTER as u64, ram)?;
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

/// The first entries of a memory map: how long each is, and where in it the range begins, with the kind behind it.
fn entries(map: &[u8], length: usize, first: usize, count: usize) -> Vec<(Range, u32)> {
    let entry = |entry: &[u8]| {
        (Range { start: word(entry, first), size: word(entry, first + 8) }, long(entry, first + 16))
    };
    map.chunks_exact(length).map(entry).take(count.min(MOST_ENTRIES + 1)).collect()
}

/// The modules of a list: how long each entry is, how many there are, and what an entry says.
fn modules(
    list: &[u8],
    length: usize,
    count: u32,
    range: impl Fn(&[u8]) -> Range,
) -> Result<Vec<Range>, String> {
    let count = count as usize;
    if count > MOST_MODULES || list.len() < count * length {
        return Err(format!("is told of {count} modules that are not listed"));
    }
    Ok(list.chunks_exact(length).take(count).map(range).collect())
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
