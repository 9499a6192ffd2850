//! The hypervisor as an ELF file: its segments, its entry, the note that leads to its table.

use bulkhead_table::{Range, note};
use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::Unreadable;

/// A loaded piece of the program.
#[derive(Debug)]
pub(crate) struct Segment<'e> {
    /// Physical addresses that it takes.
    pub range: Range,
    /// Virtual address of its first byte.
    pub virtual_start: u64,
    /// Its first bytes; the rest of the range is zero.
    pub bytes: &'e [u8],
    /// Whether the program may write to it.
    pub write: bool,
    /// Whether the program may execute it.
    pub execute: bool,
}

/// A statically linked program.
#[derive(Debug)]
pub(crate) struct Program<'e> {
    /// Virtual address of its first instruction.
    pub entry: u64,
    /// What it loads, in the order of the file.
    pub segments: Vec<Segment<'e>>,
    /// The description of the note that leads to the table.
    pub description: &'e [u8],
}

type Header = FileHeader64<LittleEndian>;

impl<'e> Program<'e> {
    /// Reads an ELF file.
    pub fn read(file: &'e [u8]) -> Result<Self, Unreadable> {
        let broken = |cause: object::Error| Unreadable(format!("it is no ELF file: {cause}"));
        let header = Header::parse(file).map_err(broken)?;
        let endian = header.endian().map_err(broken)?;
        let headers = header.program_headers(endian, file).map_err(broken)?;
        let loaded = headers.iter().filter(|header| header.p_type(endian) == elf::PT_LOAD);
        let segments = loaded.map(|header| segment(header, file)).collect::<Result<_, _>>()?;
        let found = headers.iter().find_map(|header| description(header, file));
        let Some(description) = found else {
            return Err(Unreadable("it has no note that leads to a table".to_owned()));
        };
        Ok(Self { entry: header.e_entry(endian), segments, description })
    }

    /// `length` bytes at the virtual address `start`, of a segment that the program cannot write to.
    pub fn constant(&self, start: u64, length: u64) -> Result<&'e [u8], Unreadable> {
        let inside = |segment: &Segment<'e>| {
            let first = usize::try_from(start.checked_sub(segment.virtual_start)?).ok()?;
            let behind = first.checked_add(usize::try_from(length).ok()?)?;
            (!segment.write).then(|| segment.bytes.get(first..behind))?
        };
        self.segments.iter().find_map(inside).ok_or_else(|| {
            Unreadable(format!(
                "its table leads to {length} bytes at {start:#x}, which are not in a read-only segment"
            ))
        })
    }

    /// First byte behind all that is loaded, on a page bound.
    pub fn end(&self) -> u64 {
        let last = self.segments.iter().map(|segment| segment.range.end()).max().unwrap_or(0);
        last.checked_next_multiple_of(bulkhead_table::PAGE_SIZE).unwrap_or(u64::MAX)
    }
}

fn segment<'e>(
    header: &ProgramHeader64<LittleEndian>,
    file: &'e [u8],
) -> Result<Segment<'e>, Unreadable> {
    let range = Range { start: header.p_paddr(LittleEndian), size: header.p_memsz(LittleEndian) };
    let bytes = header
        .data(LittleEndian, file)
        .map_err(|()| Unreadable("a segment lies outside the file".to_owned()))?;
    if bytes.len() as u64 > range.size || range.start.checked_add(range.size).is_none() {
        return Err(Unreadable(format!("the segment at {:#x} has no sound length", range.start)));
    }
    let flags = header.p_flags(LittleEndian);
    Ok(Segment {
        range,
        virtual_start: header.p_vaddr(LittleEndian),
        bytes,
        write: flags.contains(elf::PF_W),
        execute: flags.contains(elf::PF_X),
    })
}

/// The description of our note, if this header leads to it.
fn description<'e>(header: &ProgramHeader64<LittleEndian>, file: &'e [u8]) -> Option<&'e [u8]> {
    let mut notes = header.notes(LittleEndian, file).ok().flatten()?;
    while let Ok(Some(found)) = notes.next() {
        let ours = found.name() == note::OWNER.strip_suffix(b"\0").unwrap_or(note::OWNER);
        if ours && found.n_type(LittleEndian) == elf::NoteType(note::KIND) {
            return Some(found.desc());
        }
    }
    None
}
