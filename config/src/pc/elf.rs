//! Which protocol an ELF file wants to be started by: the header or note that it carries for it.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

/// How a guest is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// As the hypervisor starts every guest; also what says nothing.
    Multiboot2,
    /// Multiboot specification 0.6.96.
    Multiboot1,
    /// Xen's PVH, at this physical address in 32-bit mode (xen/include/public/elfnote.h, arch-x86/hvm/start_info.h).
    Pvh(u64),
}

/// Magic numbers of the headers, and how far into a file a loader looks for them: Multiboot2 3.1.1, Multiboot 3.1.1.
const MULTIBOOT2: u32 = 0xE852_50D6;
const MULTIBOOT2_WITHIN: usize = 32 << 10;
const MULTIBOOT1: u32 = 0x1BAD_B002;
const MULTIBOOT1_WITHIN: usize = 8 << 10;

/// The owner and the type of the note with PVH's entry: XEN_ELFNOTE_PHYS32_ENTRY.
const NOTE_OWNER: &[u8] = b"Xen";
const NOTE_TYPE: u32 = 18;

/// The protocol of a file. Where it carries several, the first of Multiboot2, PVH, Multiboot.
pub(crate) fn protocol(file: &[u8]) -> Protocol {
    if header(file, MULTIBOOT2, MULTIBOOT2_WITHIN, 8, 4) {
        return Protocol::Multiboot2;
    }
    let wide = file.get(4).copied() == Some(elf::ELFCLASS64.0);
    let entry = if wide {
        note::<elf::FileHeader64<Endianness>>(file)
    } else {
        note::<elf::FileHeader32<Endianness>>(file)
    };
    match entry {
        Some(entry) => Protocol::Pvh(entry),
        None if header(file, MULTIBOOT1, MULTIBOOT1_WITHIN, 4, 3) => Protocol::Multiboot1,
        None => Protocol::Multiboot2,
    }
}

/// Whether a header of so many words, whose sum is zero, lies at a multiple of `step`.
fn header(file: &[u8], magic: u32, within: usize, step: usize, words: usize) -> bool {
    let long = |at: usize| file.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let sound = |at: usize| {
        let all: Option<Vec<u32>> = (0..words).map(|word| long(at + 4 * word)).collect();
        all.is_some_and(|all| {
            all.first() == Some(&magic)
                && all.iter().fold(0_u32, |sum, word| sum.wrapping_add(*word)) == 0
        })
    };
    (0..within.min(file.len())).step_by(step).any(sound)
}

fn note<H: FileHeader<Endian = Endianness>>(file: &[u8]) -> Option<u64> {
    let header = H::parse(file).ok()?;
    let endian = header.endian().ok()?;
    for header in header.program_headers(endian, file).ok()? {
        let Ok(Some(mut notes)) = header.notes(endian, file) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == NOTE_OWNER && note.n_type(endian).0 == NOTE_TYPE {
                return address(note.desc());
            }
        }
    }
    None
}

/// An address of four or eight bytes.
fn address(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(u32::from_le_bytes).map(u64::from),
        8 => bytes.try_into().ok().map(u64::from_le_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_count_with_their_checksum_only() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let one: Vec<u8> = words(&[0, 0, MULTIBOOT1, 3, 0_u32.wrapping_sub(MULTIBOOT1 + 3)]);
        assert_eq!(protocol(&one), Protocol::Multiboot1);
        assert!(!header(&words(&[MULTIBOOT1, 3, 0]), MULTIBOOT1, 64, 4, 3));
        let sum = 0_u32.wrapping_sub(MULTIBOOT2.wrapping_add(24));
        let two: Vec<u8> = words(&[0, 0, MULTIBOOT2, 0, 24, sum]);
        assert_eq!(protocol(&[two, one].concat()), Protocol::Multiboot2);
        assert_eq!(protocol(b""), Protocol::Multiboot2);
    }
}
