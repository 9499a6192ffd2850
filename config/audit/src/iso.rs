//! Files of a disk image, which is an ISO 9660 file system with Rock Ridge names, as GRUB reads it.
//!
//! Written here because the readers that there are stop the program on a damaged image. It knows what such an
//! image has (ECMA-119; Rock Ridge's NM entries for names) and refuses the rest: files in several pieces,
//! interleaved files, names in several entries, and a second tree that the boot loader would prefer.

use crate::Unreadable;

/// Bytes of a sector: all that there is begins on one.
const SECTOR: usize = 2048;
/// Where the volume descriptors begin. ECMA-119 6.2.1: behind the system area.
const DESCRIPTORS: usize = 16;
/// Most volume descriptors that are looked at.
const MOST_DESCRIPTORS: usize = 16;

/// Types of a volume descriptor. ECMA-119 8.1.1.
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

/// The root's directory record within the primary descriptor. ECMA-119 8.4.
const ROOT: std::ops::Range<usize> = 156..190;

/// Fields of a directory record. ECMA-119 9.1.
const EXTENT: usize = 2;
const LENGTH: usize = 10;
const FLAGS: usize = 25;
const UNIT: usize = 26;
const GAP: usize = 27;
const NAME_LENGTH: usize = 32;
const NAME: usize = 33;

/// Flags of a directory record: it is a directory; the file goes on in another extent.
const DIRECTORY: u8 = 1 << 1;
const GOES_ON: u8 = 1 << 7;

/// An ISO 9660 image.
pub(crate) struct Disk<'i> {
    image: &'i [u8],
    root: Record<'i>,
}

/// An entry of a directory.
#[derive(Clone, Copy)]
struct Record<'i>(&'i [u8]);

impl<'i> Disk<'i> {
    /// Looks at the volume descriptors.
    pub fn open(image: &'i [u8]) -> Result<Self, Unreadable> {
        let mut root = None;
        for number in DESCRIPTORS..DESCRIPTORS + MOST_DESCRIPTORS {
            let sector = slice(image, number * SECTOR, SECTOR);
            let Some(sector) = sector.filter(|sector| sector.get(1..6) == Some(b"CD001")) else {
                break;
            };
            match sector.first() {
                Some(&PRIMARY) => root = sector.get(ROOT).map(Record),
                Some(&SUPPLEMENTARY) => {
                    return Err(Unreadable(
                        "the image has a second tree of files, which the audit does not read"
                            .to_owned(),
                    ));
                }
                Some(&TERMINATOR) => break,
                _ => {}
            }
        }
        match root {
            Some(root) => Ok(Self { image, root }),
            None => Err(Unreadable("the file is no disk image of `bulkhead build`".to_owned())),
        }
    }

    /// The bytes of the file at `path`, whose parts are separated by slashes.
    pub fn file(&self, path: &str) -> Result<&'i [u8], Unreadable> {
        let missing = || Unreadable(format!("the image has no file {path}"));
        let mut here = self.root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if here.flags() & DIRECTORY == 0 {
                return Err(missing());
            }
            here = self.entry(here, part.as_bytes()).ok_or_else(missing)?;
        }
        if here.flags() & DIRECTORY != 0 {
            return Err(missing());
        }
        self.content(here).ok_or_else(|| {
            Unreadable(format!("the file {path} of the image is cut off, or in pieces"))
        })
    }

    /// The entry of this name; its bytes are bounded, and each step goes forward.
    fn entry(&self, directory: Record<'i>, name: &[u8]) -> Option<Record<'i>> {
        let bytes = self.content(directory)?;
        bytes.chunks(SECTOR).flat_map(records).find(|record| record.name() == Some(name))
    }

    fn content(&self, record: Record<'i>) -> Option<&'i [u8]> {
        let in_one_piece =
            record.flags() & GOES_ON == 0 && record.byte(UNIT) == 0 && record.byte(GAP) == 0;
        let start = usize::try_from(record.long(EXTENT)?).ok()?.checked_mul(SECTOR)?;
        let length = usize::try_from(record.long(LENGTH)?).ok()?;
        slice(self.image, start, length).filter(|_| in_one_piece)
    }
}

/// The records of one sector of a directory: none crosses its end, and a zero fills the rest.
fn records(sector: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = sector;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.first()?);
        if length <= NAME {
            return None;
        }
        let (record, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(Record(record))
    })
}

impl<'i> Record<'i> {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn long(&self, at: usize) -> Option<u32> {
        slice(self.0, at, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn flags(&self) -> u8 {
        self.byte(FLAGS)
    }

    /// The Rock Ridge name: the one entry `NM` of the record's system use area.
    fn name(&self) -> Option<&'i [u8]> {
        // The area begins on an even byte behind the name of ISO 9660.
        let own = usize::from(self.byte(NAME_LENGTH));
        let mut rest = self.0.get((NAME + own).next_multiple_of(2)..)?;
        loop {
            let length = usize::from(*rest.get(2)?);
            let (entry, behind) = rest.split_at_checked(length.max(4))?;
            if entry.starts_with(b"NM") {
                // Flags: a name that goes on, or stands for `.` or `..`, is not looked for.
                return entry.get(5..).filter(|_| entry.get(4) == Some(&0));
            }
            rest = behind;
        }
    }
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Option<&[u8]> {
    bytes.get(start..start.checked_add(length)?)
}
