//! The boot loader's Multiboot2 information, read without trust: any bytes give an answer, and none a panic.
//! Multiboot2 Specification 2.0, 3.6.

use bulkhead_table::Range;

/// Bytes of the information's own header, and of a tag's.
const HEADER: usize = 8;

/// Most bytes of information that are read. GRUB's has some kilobytes.
pub const LARGEST: u32 = 1 << 20;

/// Types of tags.
mod kind {
    pub const END: u32 = 0;
    pub const MODULE: u32 = 3;
    pub const MEMORY_MAP: u32 = 6;
    pub const FRAMEBUFFER: u32 = 8;
    pub const EFI_32: u32 = 11;
    pub const EFI_64: u32 = 12;
    pub const OLD_ACPI: u32 = 14;
    pub const NEW_ACPI: u32 = 15;
}

/// The information: the bytes that its header counts, or fewer.
#[derive(Clone, Copy, Debug)]
pub struct Information<'a>(&'a [u8]);

/// What a range of physical memory holds. ACPI 6.5 table 15.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// RAM that a system may use.
    Ram,
    /// ACPI's tables: RAM that may be used once they were read, and is not used here.
    AcpiTables,
    /// ACPI's storage, which firmware uses.
    AcpiStorage,
    /// RAM that does not work.
    Broken,
    /// Anything else.
    Reserved,
}

impl core::fmt::Display for Holds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Ram => "usable RAM",
            Self::AcpiTables => "ACPI tables",
            Self::AcpiStorage => "ACPI storage",
            Self::Broken => "broken RAM",
            Self::Reserved => "reserved memory",
        })
    }
}

/// An entry of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where.
    pub range: Range,
    /// What.
    pub holds: Holds,
}

/// A module as the boot loader placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
    /// Its command line, without what surrounds it; `None` where that is no text.
    pub name: Option<&'a str>,
}

/// The framebuffer that the boot loader set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address of the first pixel.
    pub address: u64,
    /// Bytes from one row of pixels to the next.
    pub pitch: u32,
    /// Pixels, or characters, in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits of a pixel.
    pub bits: u8,
    /// What a pixel is.
    pub pixels: Pixels,
}

/// What a pixel of a framebuffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// A colour by itself.
    Direct,
    /// A character: VGA text.
    Text,
    /// An index of a palette, or what no version of the specification names.
    Other,
}

impl<'a> Information<'a> {
    /// The information in these bytes. What its header counts beyond them is not there.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let length = number(bytes, 0, 4).and_then(|length| usize::try_from(length).ok());
        Self(length.and_then(|length| bytes.get(..length)).unwrap_or(bytes))
    }

    /// Whether its tags lead to the tag that ends them.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tags().any(|(kind, _)| kind == kind::END)
    }

    /// Type and body of each tag, to the first that does not fit.
    fn tags(&self) -> impl Iterator<Item = (u32, &'a [u8])> + Clone + use<'a> {
        const ALIGNMENT: usize = 8;
        let bytes = self.0;
        let mut at = Some(HEADER);
        core::iter::from_fn(move || {
            let from = at?;
            let kind = number(bytes, from, 4)? as u32;
            let size = number(bytes, from + 4, 4)? as usize;
            let end = from.checked_add(size)?;
            let body = bytes.get(from + HEADER..end)?;
            let ends = kind == kind::END;
            at = end.checked_next_multiple_of(ALIGNMENT).filter(|_| !ends);
            Some((kind, body))
        })
    }

    fn tag(&self, wanted: u32) -> Option<&'a [u8]> {
        self.tags().find(|(kind, _)| *kind == wanted).map(|(_, body)| body)
    }

    /// The entries of the memory map; none without a map.
    pub fn areas(&self) -> impl Iterator<Item = Area> + Clone + use<'a> {
        /// The size of an entry, and a version, stand before the entries.
        const ENTRIES: usize = 8;
        const LEAST: usize = 20;
        let map = self.tag(kind::MEMORY_MAP).unwrap_or_default();
        let size = number(map, 0, 4).map_or(0, |size| size as usize);
        let entries = map.get(ENTRIES..).filter(|_| size >= LEAST).unwrap_or_default();
        entries.chunks_exact(size.max(LEAST)).filter_map(area)
    }

    /// The modules, in the boot loader's order.
    pub fn modules(&self) -> impl Iterator<Item = Module<'a>> + use<'a> {
        const NAME: usize = 8;
        self.tags().filter(|(kind, _)| *kind == kind::MODULE).filter_map(|(_, body)| {
            let text = body.get(NAME..).unwrap_or_default();
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = core::str::from_utf8(text).ok().map(str::trim);
            Some(Module {
                start: number(body, 0, 4)? as u32,
                end: number(body, 4, 4)? as u32,
                name: name.filter(|name| !name.is_empty()),
            })
        })
    }

    /// The framebuffer; `None` where the boot loader says nothing of one.
    #[must_use]
    pub fn framebuffer(&self) -> Option<Framebuffer> {
        let body = self.tag(kind::FRAMEBUFFER)?;
        Some(Framebuffer {
            address: number(body, 0, 8)?,
            pitch: number(body, 8, 4)? as u32,
            width: number(body, 12, 4)? as u32,
            height: number(body, 16, 4)? as u32,
            bits: number(body, 20, 1)? as u8,
            pixels: match number(body, 21, 1)? {
                1 => Pixels::Direct,
                2 => Pixels::Text,
                _ => Pixels::Other,
            },
        })
    }

    /// Whether UEFI booted the machine.
    #[must_use]
    pub fn is_from_uefi(&self) -> bool {
        self.tags().any(|(kind, _)| matches!(kind, kind::EFI_32 | kind::EFI_64))
    }

    /// The copies of ACPI's root pointer: of ACPI 2.0, and of ACPI 1.0.
    #[must_use]
    pub fn root_pointers(&self) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        (self.tag(kind::NEW_ACPI), self.tag(kind::OLD_ACPI))
    }
}

fn area(entry: &[u8]) -> Option<Area> {
    let holds = match number(entry, 16, 4)? {
        1 => Holds::Ram,
        3 => Holds::AcpiTables,
        4 => Holds::AcpiStorage,
        5 => Holds::Broken,
        _ => Holds::Reserved,
    };
    let range = Range { start: number(entry, 0, 8)?, size: number(entry, 8, 8)? };
    (range.size > 0).then_some(Area { range, holds })
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Information of these tags, and the one that ends them.
    pub(crate) fn information(tags: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = std::vec![0; HEADER];
        for (kind, body) in tags.iter().chain([&(kind::END, Vec::new())]) {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(((HEADER + body.len()) as u32).to_le_bytes());
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(8), 0xEE);
        }
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// A memory map's tag of these entries, each of `size` bytes.
    pub(crate) fn map(entries: &[(u64, u64, u32)], size: usize) -> (u32, Vec<u8>) {
        let mut body: Vec<u8> = [(size as u32).to_le_bytes(), [0; 4]].concat();
        for (start, length, kind) in entries {
            let end = body.len() + size;
            body.extend(start.to_le_bytes().into_iter().chain(length.to_le_bytes()));
            body.extend(kind.to_le_bytes());
            body.resize(end, 0);
        }
        (kind::MEMORY_MAP, body)
    }

    fn module(start: u32, end: u32, name: &[u8]) -> (u32, Vec<u8>) {
        let body = [&start.to_le_bytes()[..], &end.to_le_bytes(), name].concat();
        (kind::MODULE, body)
    }

    #[test]
    fn tags_are_read() {
        let mut framebuffer = 0x8000_0000_u64.to_le_bytes().to_vec();
        for field in [4096_u32, 1024, 768] {
            framebuffer.extend(field.to_le_bytes());
        }
        framebuffer.extend([32, 1]);
        let bytes = information(&[
            module(0x20_0000, 0x20_1000, b" motion \0"),
            module(5, 6, b"\xFF\0"),
            map(&[(0, 0x9_F000, 1), (7, 0, 1), (0xE_0000, 0x1000, 3)], 24),
            (kind::FRAMEBUFFER, framebuffer),
            (kind::NEW_ACPI, b"RSD PTR ".to_vec()),
            (kind::EFI_64, std::vec![0; 8]),
        ]);
        let information = Information::new(&bytes);
        assert!(information.is_whole() && information.is_from_uefi());
        let modules: Vec<_> = information.modules().collect();
        assert_eq!(modules[0], Module { start: 0x20_0000, end: 0x20_1000, name: Some("motion") });
        assert_eq!((modules.len(), modules[1].name), (2, None));
        let areas: Vec<_> = information.areas().collect();
        let tables = Range { start: 0xE_0000, size: 0x1000 };
        assert_eq!(areas.len(), 2);
        assert_eq!(areas[1], Area { range: tables, holds: Holds::AcpiTables });
        assert_eq!(information.framebuffer().map(|frame| frame.pixels), Some(Pixels::Direct));
        assert_eq!(information.root_pointers(), (Some(&b"RSD PTR "[..]), None));
    }

    #[test]
    fn entries_of_the_map_may_be_longer_than_today() {
        let bytes = information(&[map(&[(0, 1, 1), (2, 3, 2)], 40)]);
        let starts = Information::new(&bytes).areas().map(|area| area.range.start);
        assert!(starts.eq([0, 2]));
        let bytes = information(&[map(&[(0, 1, 1)], 20)]);
        assert_eq!(Information::new(&bytes).areas().count(), 1);
    }

    #[test]
    fn what_is_cut_is_not_whole() {
        let bytes = information(&[map(&[(0, 1, 1)], 24)]);
        assert!(Information::new(&bytes).is_whole());
        for length in 0..bytes.len() - 8 {
            assert!(!Information::new(&bytes[..length]).is_whole(), "{length}");
        }
        let mut absurd = bytes.clone();
        absurd[12..16].copy_from_slice(&[0xFF; 4]);
        assert!(!Information::new(&absurd).is_whole());
        absurd[12..16].copy_from_slice(&[0; 4]);
        assert!(!Information::new(&absurd).is_whole());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let information = Information::new(&bytes);
            let _answers = (information.is_whole(), information.is_from_uefi());
            let _counts = (information.areas().count(), information.modules().count());
            let _more = (information.framebuffer(), information.root_pointers());
        }

        #[test]
        fn damaged_information_is_answered(
            damage in proptest::collection::vec((0_usize..200, any::<u8>()), 1..6),
        ) {
            let tags = [module(1, 2, b"a\0"), map(&[(0, 1, 1), (2, 3, 2)], 24), (8, std::vec![1; 22])];
            let mut bytes = information(&tags);
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let information = Information::new(&bytes);
            let _answers = (information.is_whole(), information.framebuffer());
            let _counts = (information.areas().count(), information.modules().count());
        }
    }
}
