//! Guests that start by Multiboot 1, Multiboot2 or PVH: what is staged for them, and what they are handed.
//!
//! What they are handed lies where a PC has its firmware, so that all of low memory is theirs: Zephyr for x86-64 puts code at 0x1000,
//! NuttX at 0. Their RAM disk is the one module of the protocol, behind the image.

use bulkhead_table::{PAGE_SIZE, Range, pc};

use super::headers::{self, Addresses, Protocol, Wish};
use super::{Surroundings, acpi, memory_map, not_empty, not_encoded, pieces, trampoline};
use crate::boot_info;
use crate::image::{
    self, About, BootInfo, Entry, FlatImage, LONGEST_IMAGE, Parts, Refusal, Segment,
};
use crate::rules::Rule;
use crate::units::size_text;

/// Where the firmware of a PC is.
const FIRMWARE: Range = Range { start: pc::FIRMWARE, size: pc::HIGH - pc::FIRMWARE };

/// Where the information, the command line and the tables lie.
const PARAMETERS: u64 = pc::in_firmware(pc::PARAMETERS);
const COMMAND_LINE: u64 = pc::in_firmware(pc::COMMAND_LINE);
const TABLES: u64 = pc::in_firmware(pc::ACPI);

/// What EAX holds: Multiboot2 3.3, Multiboot 3.2. PVH says nothing of it.
const MULTIBOOT2_LOADER: u32 = 0x36D7_6289;
const MULTIBOOT1_LOADER: u32 = 0x2BAD_B002;
const NOTHING: u32 = 0;

/// Multiboot 3.3: which fields of the information are valid: memory, command line, memory map, name of the loader; and modules.
const VALID: u32 = 1 | 1 << 2 | 1 << 6 | 1 << 9;
const HAS_MODULES: u32 = 1 << 3;
const LOADER_NAME: &[u8] = b"Bulkhead\0";
/// Where in their page the module, the loader's name and the memory map of Multiboot 1 and of PVH lie.
const MODULE_AT: usize = 0x60;
const NAME_AT: usize = 0x80;
const MAP_AT: usize = 0x100;

/// What is staged for an image on a small PC: by the protocol that it carries a header or a note for; what says nothing is started as
/// Multiboot2 has it.
pub(crate) fn image(
    file: &[u8],
    ramdisk: Option<&[u8]>,
    around: &Surroundings<'_>,
) -> Result<FlatImage, Refusal> {
    let silent = Wish { protocol: Protocol::Multiboot2, entry: None, addresses: None };
    let wish = headers::wish(file)?;
    let parts = parts(file, wish.as_ref())?;
    let mut flat = image::layout(&parts, around.first_piece, &FIRMWARE)?;
    let module = match not_empty(ramdisk)? {
        Some(ramdisk) => Some(append(&mut flat, &parts, ramdisk, around.first_piece)?),
        None => None,
    };
    let (magic, parameters) = match wish.unwrap_or(silent).protocol {
        Protocol::Multiboot2 => (MULTIBOOT2_LOADER, multiboot2(module, around)),
        Protocol::Multiboot1 => (MULTIBOOT1_LOADER, multiboot1(module, around)),
        Protocol::Pvh => (NOTHING, pvh(module, around)),
    };
    // Below 3 GiB, as all that is staged.
    let code = trampoline::protected_mode(flat.entry as u32, magic, PARAMETERS as u32);
    let tables = acpi::tables(TABLES, &around.processors);
    let bytes = pieces(code.map_err(not_encoded)?, parameters, around.command_line, tables);
    let boot_info = Some(BootInfo { at: pc::FIRMWARE, bytes });
    Ok(FlatImage { entry: pc::FIRMWARE, boot_info, ..flat })
}

/// What the file brings, by its header of ELF or by the addresses in its Multiboot header.
fn parts<'d>(file: &'d [u8], wish: Option<&Wish>) -> Result<Parts<'d>, Refusal> {
    let (addresses, entry) = wish.map_or((None, None), |wish| (wish.addresses, wish.entry));
    match addresses {
        Some(addresses) => raw(file, &addresses, entry),
        None if wish.is_some() && !image::is_elf(file) => Err(Refusal::new(
            Rule::ImageNotElf,
            "the guest image is no ELF file, and its header does not say where it is to be loaded",
            "name the ELF file that the linker wrote, or put the addresses into the header (Multiboot: flag 16; Multiboot2: tags 2 and 3)",
        )),
        None => {
            let parts = image::elf(file)?;
            Ok(Parts { entry: entry.map_or(parts.entry, Entry::Physical), ..parts })
        }
    }
}

/// What a file brings whose Multiboot header says where it is to be loaded.
fn raw<'d>(
    file: &'d [u8],
    addresses: &Addresses,
    entry: Option<u64>,
) -> Result<Parts<'d>, Refusal> {
    let wrong = |message: String| {
        let remedy = "correct the addresses in its header, or name an ELF file";
        Err(Refusal::new(Rule::ImageBroken, message, remedy))
    };
    let Some(entry) = entry else {
        return wrong(
            "the header of the guest image says where it is loaded, and not where it is entered"
                .to_owned(),
        );
    };
    let all = (file.len() as u64).saturating_sub(addresses.from);
    let length = match addresses.load_end {
        0 => all,
        end => end.saturating_sub(addresses.load),
    };
    if length == 0 || length > all {
        return wrong(format!(
            "the header of the guest image has {length} bytes loaded from byte {} on, and the file has {all} there",
            addresses.from
        ));
    }
    let size = match addresses.bss_end {
        0 => length,
        end => end.saturating_sub(addresses.load),
    };
    if size < length {
        return wrong("the zeros in the header of the guest image end before its bytes".to_owned());
    }
    let bytes = file.get(addresses.from as usize..(addresses.from + length) as usize);
    let segment = Segment {
        physical: Range { start: addresses.load, size },
        virtual_start: addresses.load,
        executable: true,
        bytes: bytes.unwrap_or_default(),
    };
    Ok(Parts { segments: vec![segment], entry: Entry::Physical(entry) })
}

/// Puts the RAM disk behind the image and its zeros, on a page, and says where.
fn append(
    flat: &mut FlatImage,
    parts: &Parts<'_>,
    ramdisk: &[u8],
    memory: u64,
) -> Result<Range, Refusal> {
    let end = parts.segments.last().map_or(0, |last| last.physical.end());
    let start = end.next_multiple_of(PAGE_SIZE).max(pc::HIGH);
    let module = Range { start, size: ramdisk.len() as u64 };
    let most = memory.min(flat.load_at.saturating_add(LONGEST_IMAGE));
    if module.end() > most {
        let refusal = Refusal::new(
            Rule::RamdiskDoesNotFit,
            format!(
                "the initial RAM disk of {} does not fit the partition's memory of {} behind the image, which ends at {end:#x}",
                size_text(module.size),
                size_text(memory)
            ),
            format!(
                "give it memory of {} or more, or make it smaller; {} are the most",
                size_text(module.end().next_multiple_of(2 << 20)),
                size_text(LONGEST_IMAGE)
            ),
        );
        return Err(refusal.about(About::Ramdisk));
    }
    flat.bytes.resize((start - flat.load_at) as usize, 0);
    flat.bytes.extend_from_slice(ramdisk);
    Ok(module)
}

/// KiB of RAM below 640 KiB and from 1 MiB on, up to the first hole.
fn lower_and_upper(around: &Surroundings<'_>) -> [u32; 2] {
    let end = around.memory.min(pc::RAM_END);
    [(pc::LOW_END >> 10) as u32, (end.saturating_sub(pc::HIGH) >> 10) as u32]
}

/// The information of Multiboot2, section 3.6.
fn multiboot2(module: Option<Range>, around: &Surroundings<'_>) -> Vec<u8> {
    let map: Vec<_> = memory_map(around, TABLES)
        .into_iter()
        .map(|(range, kind)| (range.start, range.size, kind))
        .collect();
    let pointer: Vec<u8> = acpi::pointer(TABLES, &around.processors);
    let mut tags = vec![
        (boot_info::TAG_BASIC_MEMORY, lower_and_upper(around).map(u32::to_le_bytes).concat()),
        (boot_info::TAG_ACPI_POINTER, pointer),
    ];
    tags.extend(module.map(|module| {
        let [start, end] = [module.start, module.end()].map(|at| (at as u32).to_le_bytes());
        (boot_info::TAG_MODULE, [&start[..], &end, b"\0"].concat())
    }));
    boot_info::build_with(around.command_line, &map, &tags)
}

/// The information of Multiboot 1, section 3.3.
fn multiboot1(module: Option<Range>, around: &Surroundings<'_>) -> Vec<u8> {
    let mut map = Vec::new();
    for (range, kind) in memory_map(around, TABLES) {
        map.extend(20_u32.to_le_bytes());
        map.extend([range.start, range.size].map(u64::to_le_bytes).concat());
        map.extend(kind.to_le_bytes());
    }
    let mut page = vec![0; MAP_AT];
    let mut put = |at: usize, value: u64| {
        page[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    };
    let [lower, upper] = lower_and_upper(around);
    put(0, (VALID | if module.is_some() { HAS_MODULES } else { 0 }).into());
    put(4, lower.into());
    put(8, upper.into());
    put(16, COMMAND_LINE);
    if let Some(module) = module {
        put(20, 1);
        put(24, PARAMETERS + MODULE_AT as u64);
        put(MODULE_AT, module.start);
        put(MODULE_AT + 4, module.end());
    }
    put(44, map.len() as u64);
    put(48, PARAMETERS + MAP_AT as u64);
    put(64, PARAMETERS + NAME_AT as u64);
    page[NAME_AT..NAME_AT + LOADER_NAME.len()].copy_from_slice(LOADER_NAME);
    page.extend(map);
    page
}

/// The start information of PVH, version 1: xen/include/public/arch-x86/hvm/start_info.h.
fn pvh(module: Option<Range>, around: &Surroundings<'_>) -> Vec<u8> {
    const MAGIC: u32 = 0x336E_C578;
    let map = memory_map(around, TABLES);
    let modules = u32::from(module.is_some());
    let modules_at = module.map_or(0, |_| PARAMETERS + MODULE_AT as u64);
    let mut page = [MAGIC, 1, 0, modules].map(u32::to_le_bytes).concat();
    let addresses = [modules_at, COMMAND_LINE, TABLES, PARAMETERS + MAP_AT as u64];
    page.extend(addresses.map(u64::to_le_bytes).concat());
    page.extend([map.len() as u32, 0].map(u32::to_le_bytes).concat());
    page.resize(MODULE_AT, 0);
    page.extend(module.map_or([0; 2], |at| [at.start, at.size]).map(u64::to_le_bytes).concat());
    page.resize(MAP_AT, 0);
    for (range, kind) in map {
        page.extend([range.start, range.size].map(u64::to_le_bytes).concat());
        page.extend([kind, 0].map(u32::to_le_bytes).concat());
    }
    page
}
