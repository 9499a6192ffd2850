//! Guest images: from an ELF file to the flat bytes that the boot loader stages.
//!
//! An ELF file may come from anywhere and say anything: every figure in it is checked before it is used,
//! and nothing is allocated before its size is known to be within bounds.

use std::io::Read;
use std::path::Path;

use bulkhead_table::{PAGE_SIZE, Range};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::boot_info;
use crate::rules::Rule;
use crate::units::size_text;

/// Longest ELF file that is read: debug information included, far more than any control program.
const LONGEST_FILE: u64 = 512 << 20;

/// Longest flattened image; the hypervisor's range bounds it further.
pub(crate) const LONGEST_IMAGE: u64 = 256 << 20;

/// What the boot loader stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlatImage {
    /// From `load_at` on; the guest's memory outside is zero at start.
    pub bytes: Vec<u8>,
    /// Guest-physical address of the first byte.
    pub load_at: u64,
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// What the guest finds when it starts, where its boot protocol asks for more than every guest gets.
    pub boot_info: Option<BootInfo>,
}

/// Boot information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootInfo {
    /// Guest-physical address of the first byte.
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The image or the kernel.
    Image,
    /// The initial RAM disk.
    Ramdisk,
    /// The command line.
    CommandLine,
}

/// Why a file is not a guest image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub rule: Rule,
    pub message: String,
    pub remedy: String,
    pub about: About,
}

impl Refusal {
    pub(crate) fn new(rule: Rule, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { rule, message: message.into(), remedy: remedy.into(), about: About::Image }
    }

    pub(crate) fn about(self, about: About) -> Self {
        Self { about, ..self }
    }

    fn broken(message: impl Into<String>) -> Self {
        Self::new(
            Rule::ImageBroken,
            message,
            "build or copy the file again; `readelf -lh` shows what it says",
        )
    }
}

/// Reads an image file; the error is the cause in words.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    // Looked at before it is opened: to open a pipe waits for somebody who writes into it.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(format!("it is longer than {}", size_text(LONGEST_FILE)));
    }
    Ok(bytes)
}

/// A loadable segment.
pub(crate) struct Segment<'d> {
    pub physical: Range,
    pub virtual_start: u64,
    pub executable: bool,
    pub bytes: &'d [u8],
}

/// Where an image is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// As an ELF file says: by a virtual address, or by a physical one where no segment has that.
    Elf(u64),
    /// By a physical address.
    Physical(u64),
}

/// What a file brings: its loadable segments that take memory, ascending and disjoint, and its entry.
pub(crate) struct Parts<'d> {
    pub segments: Vec<Segment<'d>>,
    pub entry: Entry,
}

/// The flat image of an ELF file for a bare guest with `memory` bytes from guest-physical 0 on.
pub(crate) fn flatten(file: &[u8], memory: u64) -> Result<FlatImage, Refusal> {
    layout(&elf(file)?, memory, &Range { start: boot_info::ADDRESS, size: PAGE_SIZE })
}

/// Whether it is an ELF file at all.
pub(crate) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// What an ELF file brings.
pub(crate) fn elf(file: &[u8]) -> Result<Parts<'_>, Refusal> {
    if !is_elf(file) {
        return Err(Refusal::new(
            Rule::ImageNotElf,
            "the guest image is not an ELF file",
            "name the executable that the linker wrote; a raw binary has no addresses and no entry",
        ));
    }
    match file.get(4) {
        Some(&class) if class == elf::ELFCLASS64.0 => {
            parse::<elf::FileHeader64<Endianness>>(file, elf::EM_X86_64)
        }
        Some(&class) if class == elf::ELFCLASS32.0 => {
            parse::<elf::FileHeader32<Endianness>>(file, elf::EM_386)
        }
        _ => Err(Refusal::broken("the ELF file is neither of 64 nor of 32 bits")),
    }
}

fn parse<H: FileHeader<Endian = Endianness>>(
    file: &[u8],
    machine: elf::Machine,
) -> Result<Parts<'_>, Refusal> {
    let broken =
        |error: object::read::Error| Refusal::broken(format!("the ELF file is broken: {error}"));
    let header = H::parse(file).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != machine || endian != Endianness::Little {
        return Err(Refusal::new(
            Rule::ImageMachine,
            format!(
                "the guest image is for another processor (ELF machine {}, {} bits)",
                header.e_machine(endian).0,
                if header.is_type_64() { 64 } else { 32 }
            ),
            "build it as ELF64 for x86-64 (`x86_64-unknown-none`, `gcc -m64`), or as ELF32 for i386",
        ));
    }
    let headers = header.program_headers(endian, file).map_err(broken)?;
    static_only::<H>(header, endian, headers)?;
    let segments = segments::<H>(file, endian, headers)?;
    Ok(Parts { segments, entry: Entry::Elf(header.e_entry(endian).into()) })
}

fn static_only<H: FileHeader<Endian = Endianness>>(
    header: &H,
    endian: Endianness,
    headers: &[H::ProgramHeader],
) -> Result<(), Refusal> {
    let dynamic = headers
        .iter()
        .any(|header| matches!(header.p_type(endian), elf::PT_DYNAMIC | elf::PT_INTERP));
    if header.e_type(endian) == elf::ET_EXEC && !dynamic {
        return Ok(());
    }
    let (message, remedy) = match header.e_type(endian) {
        elf::ET_REL => ("the guest image is an object file, not linked yet", "link it, at 1 MiB"),
        _ => (
            "the guest image is not static: it wants to be relocated or loaded by a dynamic linker",
            "link it with fixed addresses: `-C relocation-model=static` for Rust, `-static -no-pie` for C",
        ),
    };
    Err(Refusal::new(Rule::ImageDynamic, message, remedy))
}

/// The loadable segments.
fn segments<'d, H: FileHeader<Endian = Endianness>>(
    file: &'d [u8],
    endian: Endianness,
    headers: &[H::ProgramHeader],
) -> Result<Vec<Segment<'d>>, Refusal> {
    let mut segments = Vec::new();
    for header in headers.iter().filter(|header| header.p_type(endian) == elf::PT_LOAD) {
        let physical =
            Range { start: header.p_paddr(endian).into(), size: header.p_memsz(endian).into() };
        let bytes = header
            .data(endian, file)
            .map_err(|()| Refusal::broken("a segment of the ELF file lies outside the file"))?;
        if bytes.len() as u64 > physical.size {
            return Err(Refusal::broken(
                "a segment of the ELF file is longer in the file than in memory",
            ));
        }
        if physical.start.checked_add(physical.size).is_none() {
            return Err(Refusal::broken("a segment of the ELF file ends behind the last address"));
        }
        if physical.size > 0 {
            segments.push(Segment {
                physical,
                virtual_start: header.p_vaddr(endian).into(),
                executable: header.p_flags(endian).0 & elf::PF_X.0 != 0,
                bytes,
            });
        }
    }
    segments.sort_by_key(|segment| segment.physical.start);
    let overlap = |pair: &[Segment<'_>]| matches!(pair, [a, b] if a.physical.overlaps(&b.physical));
    if segments.windows(2).any(overlap) {
        return Err(Refusal::broken(
            "two segments of the ELF file take the same physical addresses",
        ));
    }
    Ok(segments)
}

/// The flat image in `memory` bytes from guest-physical 0 on; the boot information goes to `kept`.
pub(crate) fn layout(parts: &Parts<'_>, memory: u64, kept: &Range) -> Result<FlatImage, Refusal> {
    let segments = &parts.segments;
    inside_memory(segments, memory)?;
    off_the_boot_info(segments, kept)?;
    let filled = || segments.iter().filter(|segment| !segment.bytes.is_empty());
    let (Some(first), Some(last)) = (filled().next(), filled().next_back()) else {
        return Err(Refusal::broken("the ELF file has nothing to load: no segment holds bytes"));
    };
    let load_at = first.physical.start;
    let size = last.physical.start + last.bytes.len() as u64 - load_at;
    if size > LONGEST_IMAGE {
        return Err(Refusal::new(
            Rule::ImageDoesNotFit,
            format!("the guest image is {} long once its gaps are filled", size_text(size)),
            format!("link its segments closer together: {} is the most", size_text(LONGEST_IMAGE)),
        ));
    }
    let entry = physical_entry(segments, parts.entry)?;
    let mut bytes = Vec::with_capacity(size as usize);
    for segment in filled() {
        bytes.resize((segment.physical.start - load_at) as usize, 0);
        bytes.extend_from_slice(segment.bytes);
    }
    Ok(FlatImage { bytes, load_at, entry, boot_info: None })
}

fn inside_memory(segments: &[Segment<'_>], memory: u64) -> Result<(), Refusal> {
    let Some(end) = segments.last().map(|last| last.physical.end()) else {
        return Ok(());
    };
    if end <= memory {
        return Ok(());
    }
    Err(Refusal::new(
        Rule::ImageDoesNotFit,
        format!(
            "the guest image ends at {end:#x}, and the partition's memory of {} at {memory:#x}",
            size_text(memory)
        ),
        match end.checked_next_multiple_of(1 << 20).filter(|enough| *enough <= 3 << 30) {
            Some(enough) => format!(
                "give it memory of {} or more, or make the image smaller",
                size_text(enough)
            ),
            None => "link it to low physical addresses, such as 1 MiB".to_owned(),
        },
    ))
}

fn off_the_boot_info(segments: &[Segment<'_>], kept: &Range) -> Result<(), Refusal> {
    if segments.iter().all(|segment| !segment.physical.overlaps(kept)) {
        return Ok(());
    }
    let (start, end) = (kept.start, kept.end());
    Err(Refusal::new(
        Rule::ImageOnBootInfo,
        format!("the guest image covers {start:#x} to {end:#x}, where the boot information goes"),
        "link it at 1 MiB, as guest-rt's linker script does",
    ))
}

/// The physical address of an entry, which must lie in what is loaded. That of an ELF file is a virtual address; kernels that switch
/// paging on themselves often put the physical one there.
fn physical_entry(segments: &[Segment<'_>], entry: Entry) -> Result<u64, Refusal> {
    let by = |start: &dyn Fn(&Segment<'_>) -> u64, entry: u64| {
        segments.iter().find_map(|segment| {
            let offset = entry.checked_sub(start(segment))?;
            (offset < segment.bytes.len() as u64).then_some((segment, offset))
        })
    };
    let physically = |entry: u64| by(&|segment| segment.physical.start, entry);
    let (found, entry) = match entry {
        Entry::Physical(entry) => (physically(entry), entry),
        Entry::Elf(entry) => {
            let virtually = by(&|segment| segment.virtual_start, entry);
            (virtually.or_else(|| physically(entry)), entry)
        }
    };
    match found {
        None => Err(Refusal::new(
            Rule::ImageEntryOutside,
            format!("the entry {entry:#x} of the guest image is not within its loaded bytes"),
            "name the entry in the linker script (`ENTRY(start)`), and keep its section",
        )),
        Some((segment, _)) if !segment.executable => Err(Refusal::new(
            Rule::ImageEntryData,
            format!("the entry {entry:#x} of the guest image lies in a segment of data"),
            "name the entry in the linker script (`ENTRY(start)`), and put it into a section of code",
        )),
        Some((segment, offset)) => Ok(segment.physical.start + offset),
    }
}
