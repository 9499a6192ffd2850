//! The guest `boot` in the forms in which guests of other worlds come: ELF files of 32 and of 64 bits, and files without a header of ELF,
//! with headers of Multiboot 1 and 2 or a note of PVH.

use std::path::PathBuf;

use bulkhead::{guests, paths};
use bulkhead_config::{ImageKind, ImageRequest};

use crate::bench::{folder, root, sure};

/// A file to be made of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A header of Multiboot2, in an ELF file of so many bits.
    Multiboot2(u8),
    /// A header of Multiboot 1 with these flags.
    Multiboot1(u8, u32),
    /// A note of PVH.
    Pvh(u8),
    /// A header of Multiboot2 that says where the file is loaded; there is none of ELF.
    RawMultiboot2,
    /// The same with Multiboot 1.
    RawMultiboot1,
}

/// A piece of the guest's memory.
struct Segment {
    at: u64,
    bytes: Vec<u8>,
    memory: u64,
    flags: u32,
}

const LOAD: u32 = 1;
const NOTE: u32 = 4;
const MULTIBOOT1: u32 = 0x1BAD_B002;
const MULTIBOOT2: u32 = 0xE852_50D6;
/// Flag of Multiboot 1: addresses follow.
const HAS_ADDRESSES: u32 = 1 << 16;
/// What stands in the guest where another header may be written, and up to where; guest-rt's start.s leaves the room.
const ROOM: &[u8] = b"room for a header";
const ROOM_END: usize = 64;
/// A page of low memory that some forms bring bytes for, as kernels do that start other processors from there.
const LOW: u64 = 0x1000;

/// The guest, as it was built.
pub struct Guest {
    segments: Vec<Segment>,
    entry: u64,
    /// Where in the first segment there is room for a header.
    room: usize,
}

impl Guest {
    /// Builds it.
    ///
    /// # Panics
    /// It does not build, or is not as guest-rt makes guests.
    #[must_use]
    pub fn build() -> Self {
        let path = root().join("partitions/guests/boot");
        let request = ImageRequest { partition: "boot".into(), path, kind: ImageKind::Cargo };
        let images = folder("protocols");
        sure("boot", guests::build_all(std::slice::from_ref(&request), &images, true));
        Self::read(&sure("boot", paths::read(&images.join(request.file_name()))))
    }

    /// Reads an ELF file of 64 bits.
    fn read(file: &[u8]) -> Self {
        let word = |at: usize| number(&file[at..at + 8]);
        let table = word(32) as usize;
        let count = usize::from(file[56]);
        let segment = |index: usize| {
            let at = table + 56 * index;
            let (from, length) = (word(at + 8) as usize, word(at + 32) as usize);
            let bytes = file[from..from + length].to_vec();
            let flags = number(&file[at + 4..at + 8]) as u32;
            Segment { at: word(at + 24), bytes, memory: word(at + 40), flags }
        };
        let segments: Vec<Segment> = (0..count).map(segment).collect();
        let found = segments[0].bytes.windows(ROOM.len()).position(|bytes| bytes == ROOM);
        let Some(room) = found else { panic!("the guest has no room for a header") };
        Self { segments, entry: word(24), room }
    }

    /// Writes it in this form into the folder `name`, and gives the file's name.
    ///
    /// # Panics
    /// The file system says no.
    #[must_use]
    pub fn write(&self, name: &str, partition: &str, form: Form) -> PathBuf {
        let path = folder(name).join(format!("{partition}.bin"));
        sure(partition, paths::write_if_changed(&path, &self.file(form)));
        path
    }

    fn file(&self, form: Form) -> Vec<u8> {
        let mut first = self.segments[0].bytes.clone();
        match form {
            Form::Multiboot2(bits) => self.elf(&first, bits, false, None),
            Form::Multiboot1(bits, flags) => {
                first[..4].fill(0);
                put(&mut first, self.room, &summed(&[MULTIBOOT1, flags], &[]));
                self.elf(&first, bits, true, None)
            }
            Form::Pvh(bits) => {
                first[..4].fill(0);
                let address = &self.entry.to_le_bytes()[..usize::from(bits / 8)];
                let note = [&longs(&[4, address.len() as u32, 18]), &b"Xen\0"[..], address];
                self.elf(&first, bits, false, Some(note.concat()))
            }
            Form::RawMultiboot1 => {
                first[..4].fill(0);
                let header = self.segments[0].at as u32 + self.room as u32;
                let said = [header, self.begin(), self.end(), self.bss_end(), self.entry as u32];
                put(&mut first, self.room, &summed(&[MULTIBOOT1, HAS_ADDRESSES | 2], &said));
                self.flat(first)
            }
            Form::RawMultiboot2 => {
                let said = [self.begin(), self.begin(), self.end(), self.bss_end()];
                // Tags of kind 2 and 3, padded, and the last.
                let tags = [&[2, 24], &said[..], &[3, 12, self.entry as u32, 0], &[0, 8]].concat();
                let length = 16 + 4 * tags.len() as u32;
                put(&mut first, 0, &summed(&[MULTIBOOT2, 0, length], &tags));
                assert!(length as usize <= ROOM_END);
                self.flat(first)
            }
        }
    }

    fn begin(&self) -> u32 {
        self.segments[0].at as u32
    }

    fn end(&self) -> u32 {
        self.segments.last().map_or(0, |last| last.at + last.bytes.len() as u64) as u32
    }

    fn bss_end(&self) -> u32 {
        self.segments.last().map_or(0, |last| last.at + last.memory) as u32
    }

    /// All segments as they lie in memory, the first with these bytes.
    fn flat(&self, first: Vec<u8>) -> Vec<u8> {
        let mut file = first;
        for segment in &self.segments[1..] {
            file.resize((segment.at - self.segments[0].at) as usize, 0);
            file.extend(&segment.bytes);
        }
        file
    }

    /// An ELF file; `low` puts a piece into low memory.
    fn elf(&self, first: &[u8], bits: u8, low: bool, note: Option<Vec<u8>>) -> Vec<u8> {
        let wide = bits == 64;
        let mut pieces: Vec<(u32, u64, &[u8], u64, u32)> = Vec::new();
        if low {
            pieces.push((LOAD, LOW, &[0xF4; 16], 16, 5));
        }
        for (index, segment) in self.segments.iter().enumerate() {
            let bytes = if index == 0 { first } else { &segment.bytes };
            pieces.push((LOAD, segment.at, bytes, segment.memory, segment.flags));
        }
        pieces.extend(note.as_deref().map(|note| (NOTE, 0, note, 0, 4)));
        let (header, entry) = if wide { (64_u64, 56_u64) } else { (52, 32) };
        let word = |value: u64| value.to_le_bytes()[..usize::from(bits / 8)].to_vec();
        let mut out = vec![0x7F, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
        out.resize(16, 0);
        let machine: u16 = if wide { 62 } else { 3 };
        out.extend([2, machine, 1, 0].map(u16::to_le_bytes).concat());
        out.extend([word(self.entry), word(header), word(0)].concat());
        let counts = [0, 0, header as u16, entry as u16, pieces.len() as u16, 0, 0, 0];
        out.extend(counts.map(u16::to_le_bytes).concat());
        // The headers of Multiboot are looked for at multiples of 8.
        let mut from = (header + entry * pieces.len() as u64).next_multiple_of(16);
        for (kind, at, bytes, memory, flags) in &pieces {
            out.extend(kind.to_le_bytes());
            out.extend(if wide { flags.to_le_bytes().to_vec() } else { Vec::new() });
            out.extend([from, *at, *at, bytes.len() as u64, *memory].map(word).concat());
            out.extend(if wide { Vec::new() } else { flags.to_le_bytes().to_vec() });
            out.extend(word(4));
            from += (bytes.len() as u64).next_multiple_of(16);
        }
        for (_, _, bytes, _, _) in &pieces {
            out.resize(out.len().next_multiple_of(16), 0);
            out.extend(*bytes);
        }
        out
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn longs(longs: &[u32]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// Words, the one that brings their sum to zero, and what follows.
fn summed(words: &[u32], behind: &[u32]) -> Vec<u8> {
    let sum = words.iter().fold(0_u32, |sum, word| sum.wrapping_sub(*word));
    longs(&[words, &[sum], behind].concat())
}

fn put(bytes: &mut [u8], at: usize, piece: &[u8]) {
    bytes[at..at + piece.len()].copy_from_slice(piece);
}
