//! By which protocol a file wants to be started: the headers and the note that it carries for that, and what they demand.
//!
//! The file may come from anywhere and say anything: each figure in it is checked before it is used.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::image::Refusal;
use crate::rules::Rule;

/// How a guest is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Multiboot2 specification 2.0.
    Multiboot2,
    /// Multiboot specification 0.6.96.
    Multiboot1,
    /// Xen's PVH (xen/include/public/elfnote.h, arch-x86/hvm/start_info.h).
    Pvh,
}

/// What a header or a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub protocol: Protocol,
    /// Physical address of the entry; `None`: the ELF file's.
    pub entry: Option<u64>,
    /// Where the file is to be loaded; `None`: as the ELF file says.
    pub addresses: Option<Addresses>,
}

/// Where a file is to be loaded that needs no header of ELF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The first byte of the file that is loaded.
    pub from: u64,
    /// Its physical address.
    pub load: u64,
    /// Behind the last; 0: all of the file.
    pub load_end: u64,
    /// Behind the zeros that follow; 0: there are none.
    pub bss_end: u64,
}

impl Addresses {
    /// Of a header at this byte of the file, which says where it itself, the first byte, and the ends lie. `None` where no file can
    /// be loaded so.
    fn new(at: usize, [header, load, load_end, bss_end]: [u32; 4]) -> Option<Self> {
        let (at, header) = (at as u64, u64::from(header));
        let load = if load == FROM_THE_BEGINNING { header.checked_sub(at)? } else { load.into() };
        let from = at.checked_sub(header.checked_sub(load)?)?;
        Some(Self { from, load, load_end: load_end.into(), bss_end: bss_end.into() })
    }
}

/// Magic numbers of the headers, and how far into a file a loader looks for them: Multiboot2 3.1.1, Multiboot 3.1.1.
const MULTIBOOT2: u32 = 0xE852_50D6;
const MULTIBOOT2_WITHIN: usize = 32 << 10;
const MULTIBOOT1: u32 = 0x1BAD_B002;
const MULTIBOOT1_WITHIN: usize = 8 << 10;

/// Multiboot 3.1.2: page-aligned modules and a memory map cost nothing; a video mode there is not; of the other flags that must be
/// understood there is none; the addresses are valid.
const VIDEO: u32 = 1 << 2;
const MUST_BE_UNDERSTOOD: u32 = 0xFFFF;
const KNOWN: u32 = 0b111;
const HAS_ADDRESSES: u32 = 1 << 16;

/// Multiboot2 3.1.3 to 3.1.13: kinds of tags, and the flag of one that a loader may leave alone.
mod tag {
    pub(super) const END: u16 = 0;
    pub(super) const INFORMATION: u16 = 1;
    pub(super) const ADDRESSES: u16 = 2;
    pub(super) const ENTRY: u16 = 3;
    pub(super) const CONSOLE: u16 = 4;
    pub(super) const FRAMEBUFFER: u16 = 5;
    pub(super) const MODULES: u16 = 6;
    pub(super) const EFI_SERVICES: u16 = 7;
    pub(super) const EFI_ENTRIES: [u16; 2] = [8, 9];
    pub(super) const RELOCATABLE: u16 = 10;
    pub(super) const OPTIONAL: u16 = 1;
}

/// Last kind of information that the Multiboot2 specification knows. What is known and not there is left out, as the
/// specification has it.
const LAST_INFORMATION: u32 = 21;
/// Console flags, Multiboot2 3.1.9: one must be there.
const CONSOLE_REQUIRED: u32 = 1;
/// Multiboot2 3.1.5: the file is loaded from its first byte on.
const FROM_THE_BEGINNING: u32 = u32::MAX;

/// The owner and the type of the note with PVH's entry: XEN_ELFNOTE_PHYS32_ENTRY.
const NOTE_OWNER: &[u8] = b"Xen";
const NOTE_TYPE: u32 = 18;

/// What a file wishes; `None` where it says nothing. Where it carries several, the first of Multiboot2, PVH, Multiboot.
///
/// # Errors
/// It demands what there is not, or is broken.
pub(crate) fn wish(file: &[u8]) -> Result<Option<Wish>, Refusal> {
    if let Some(wish) = multiboot2(file)? {
        return Ok(Some(wish));
    }
    match pvh(file)? {
        Some(wish) => Ok(Some(wish)),
        None => multiboot1(file),
    }
}

/// The protocol that a file needs a PC for: the one that it carries a header or note for and no header of Multiboot2.
pub(crate) fn needs_pc(file: &[u8]) -> Option<&'static str> {
    if find(file, MULTIBOOT2, MULTIBOOT2_WITHIN, 8, 4).is_some() {
        return None;
    }
    let is_pvh = pvh(file).is_ok_and(|wish| wish.is_some());
    let is_multiboot = find(file, MULTIBOOT1, MULTIBOOT1_WITHIN, 4, 3).is_some();
    is_pvh.then_some("PVH").or_else(|| is_multiboot.then_some("Multiboot 1"))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// Where a header of so many words, whose sum is zero, lies at a multiple of `step`.
fn find(file: &[u8], magic: u32, within: usize, step: usize, words: usize) -> Option<usize> {
    let sound = |at: &usize| {
        let all: Option<Vec<u32>> = (0..words).map(|word| long(file, at + 4 * word)).collect();
        all.is_some_and(|all| {
            all.first() == Some(&magic)
                && all.iter().fold(0_u32, |sum, word| sum.wrapping_add(*word)) == 0
        })
    };
    (0..within.min(file.len())).step_by(step).find(sound)
}

fn broken(message: impl Into<String>) -> Refusal {
    Refusal::new(
        Rule::ImageBroken,
        message,
        "build or copy the file again; `readelf -n` and `objdump -s` show what it says",
    )
}

fn demands(what: &str, remedy: &str) -> Refusal {
    Refusal::new(
        Rule::ImageDemands,
        format!("the header of the guest image demands {what}"),
        remedy,
    )
}

fn nowhere() -> Refusal {
    broken("the addresses in the header of the guest image put its first byte before the file's")
}

const NO_SCREEN: &str = "build the guest for a serial console, without a display: the console of a PC partition is its 16550";

fn multiboot1(file: &[u8]) -> Result<Option<Wish>, Refusal> {
    let Some(at) = find(file, MULTIBOOT1, MULTIBOOT1_WITHIN, 4, 3) else { return Ok(None) };
    let cut = || broken("the Multiboot header is cut off");
    let word = |index: usize| long(file, at + 4 * index).ok_or_else(cut);
    let flags = word(1)?;
    if flags & VIDEO != 0 {
        return Err(demands("a video mode (Multiboot, flag 2)", NO_SCREEN));
    }
    let unknown = flags & MUST_BE_UNDERSTOOD & !KNOWN;
    if unknown != 0 {
        return Err(demands(
            &format!("what no specification names (Multiboot, flags {unknown:#x})"),
            "clear these flags: a loader must refuse what it does not understand",
        ));
    }
    let mut wish = Wish { protocol: Protocol::Multiboot1, entry: None, addresses: None };
    if flags & HAS_ADDRESSES != 0 {
        wish.entry = Some(word(7)?.into());
        let said = [word(3)?, word(4)?, word(5)?, word(6)?];
        wish.addresses = Some(Addresses::new(at, said).ok_or_else(nowhere)?);
    }
    Ok(Some(wish))
}

fn multiboot2(file: &[u8]) -> Result<Option<Wish>, Refusal> {
    let Some(at) = find(file, MULTIBOOT2, MULTIBOOT2_WITHIN, 8, 4) else { return Ok(None) };
    let cut = || broken("the Multiboot2 header is cut off");
    if long(file, at + 4) != Some(0) {
        return Err(demands(
            "another processor (Multiboot2, architecture)",
            "build the guest for i386 or x86-64",
        ));
    }
    let length = long(file, at + 8).ok_or_else(cut)? as usize;
    let header = file.get(at..at.saturating_add(length)).ok_or_else(cut)?;
    let mut wish = Wish { protocol: Protocol::Multiboot2, entry: None, addresses: None };
    let mut next = 16;
    loop {
        let kind = half(header, next).ok_or_else(cut)?;
        let optional = half(header, next + 2).ok_or_else(cut)? & tag::OPTIONAL != 0;
        let size = long(header, next + 4).ok_or_else(cut)? as usize;
        let content = header.get(next + 8..next.saturating_add(size)).ok_or_else(cut)?;
        if kind == tag::END {
            return Ok(Some(wish));
        }
        take_tag(&mut wish, kind, optional, content, at).ok_or_else(cut)??;
        next = (next + size).next_multiple_of(8);
    }
}

/// What a tag says; `None` where it is too short to say it.
fn take_tag(
    wish: &mut Wish,
    kind: u16,
    optional: bool,
    content: &[u8],
    header_at: usize,
) -> Option<Result<(), Refusal>> {
    let word = |index: usize| long(content, 4 * index);
    let refused = match kind {
        tag::ADDRESSES => {
            wish.addresses = Addresses::new(header_at, [word(0)?, word(1)?, word(2)?, word(3)?]);
            wish.addresses.is_none().then(nowhere)
        }
        tag::ENTRY => {
            wish.entry = Some(word(0)?.into());
            None
        }
        tag::MODULES | tag::RELOCATABLE => None,
        kind if tag::EFI_ENTRIES.contains(&kind) || optional => None,
        tag::INFORMATION => {
            let mut wanted = content.chunks_exact(4).filter_map(|kind| long(kind, 0));
            let unknown = wanted.find(|kind| *kind > LAST_INFORMATION);
            unknown.map(|kind| {
                demands(
                    &format!("information of the unknown kind {kind} (Multiboot2)"),
                    "mark the request as optional, or take it out",
                )
            })
        }
        tag::CONSOLE if word(0)? & CONSOLE_REQUIRED == 0 => None,
        tag::CONSOLE => Some(demands("a console of text (Multiboot2)", NO_SCREEN)),
        tag::FRAMEBUFFER => Some(demands("a framebuffer (Multiboot2)", NO_SCREEN)),
        tag::EFI_SERVICES => Some(demands(
            "the boot services of EFI (Multiboot2)",
            "build the guest for a machine with BIOS: a partition has no EFI",
        )),
        _ => Some(demands(
            &format!("what no specification names (Multiboot2, tag {kind})"),
            "mark the tag as optional, or take it out",
        )),
    };
    Some(refused.map_or(Ok(()), Err))
}

/// The wish of a note of PVH.
fn pvh(file: &[u8]) -> Result<Option<Wish>, Refusal> {
    let wide = file.get(4).copied() == Some(elf::ELFCLASS64.0);
    let found = if wide {
        note::<elf::FileHeader64<Endianness>>(file)
    } else {
        note::<elf::FileHeader32<Endianness>>(file)
    };
    let Some(address) = found else { return Ok(None) };
    let entry = match address.len() {
        4 => address.try_into().ok().map(u32::from_le_bytes).map(u64::from),
        8 => address.try_into().ok().map(u64::from_le_bytes),
        _ => None,
    };
    let wrong = || {
        broken(format!("the note with the entry for PVH has {} bytes, not 4 or 8", address.len()))
    };
    let entry = Some(entry.ok_or_else(wrong)?);
    Ok(Some(Wish { protocol: Protocol::Pvh, entry, addresses: None }))
}

/// What the note with PVH's entry holds.
fn note<H: FileHeader<Endian = Endianness>>(file: &[u8]) -> Option<&[u8]> {
    let header = H::parse(file).ok()?;
    let endian = header.endian().ok()?;
    for header in header.program_headers(endian, file).ok()? {
        let Ok(Some(mut notes)) = header.notes(endian, file) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == NOTE_OWNER && note.n_type(endian).0 == NOTE_TYPE {
                return Some(note.desc());
            }
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A Multiboot header with these flags, and what follows it.
    fn one(flags: u32, behind: &[u32]) -> Vec<u8> {
        let sum = 0_u32.wrapping_sub(MULTIBOOT1.wrapping_add(flags));
        words(&[&[0, 0, MULTIBOOT1, flags, sum], behind].concat())
    }

    /// A Multiboot2 header with these tags: kind, flags, content.
    fn two(tags: &[(u16, u16, &[u32])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, flags, content) in tags.iter().chain([&(0, 0, &[][..])]) {
            body.extend(kind.to_le_bytes());
            body.extend(flags.to_le_bytes());
            body.extend((8 + 4 * content.len() as u32).to_le_bytes());
            body.extend(words(content));
            body.resize(body.len().next_multiple_of(8), 0);
        }
        let length = 16 + body.len() as u32;
        let sum = 0_u32.wrapping_sub(MULTIBOOT2.wrapping_add(length));
        [words(&[0, 0, MULTIBOOT2, 0, length, sum]), body].concat()
    }

    fn protocol(file: &[u8]) -> Option<Protocol> {
        wish(file).unwrap().map(|wish| wish.protocol)
    }

    #[test]
    fn headers_count_with_their_checksum_only() {
        assert_eq!(protocol(&one(3, &[])), Some(Protocol::Multiboot1));
        assert_eq!(protocol(&words(&[MULTIBOOT1, 3, 0])), None);
        assert_eq!(protocol(&[two(&[]), one(3, &[])].concat()), Some(Protocol::Multiboot2));
        assert_eq!(protocol(b""), None);
        assert_eq!(
            (needs_pc(&one(0, &[])), needs_pc(&two(&[])), needs_pc(b"")),
            (Some("Multiboot 1"), None, None)
        );
    }

    #[test]
    fn addresses_are_those_of_the_header() {
        // The header is at byte 8 of the file, and 4 bytes behind what is loaded first.
        let (header, load) = ((1 << 20) + 4, 1 << 20);
        let addresses = Addresses { from: 4, load: 1 << 20, load_end: 3, bss_end: 4 };
        for file in [
            one(HAS_ADDRESSES, &[header, load, 3, 4, 5]),
            two(&[(2, 0, &[header, load, 3, 4]), (3, 0, &[5])]),
        ] {
            let found = wish(&file).unwrap().unwrap();
            assert_eq!((found.addresses, found.entry), (Some(addresses), Some(5)));
        }
        let whole = wish(&two(&[(2, 0, &[1 << 20, u32::MAX, 0, 0])])).unwrap().unwrap();
        let addresses = whole.addresses.unwrap();
        assert_eq!((addresses.from, addresses.load), (0, (1 << 20) - 8));
        for wrong in [[load, header], [header + 9, load]] {
            let file = one(HAS_ADDRESSES, &[wrong[0], wrong[1], 0, 0, 0]);
            assert_eq!(wish(&file).unwrap_err().rule, Rule::ImageBroken);
        }
        assert_eq!(wish(&one(HAS_ADDRESSES, &[1, 2])).unwrap_err().rule, Rule::ImageBroken);
        assert_eq!(wish(&two(&[(2, 0, &[1, 2])])).unwrap_err().rule, Rule::ImageBroken);
    }

    /// Framebuffer and console of the second are as NuttX writes them, the request for information too.
    #[test]
    fn what_there_is_not_is_refused_unless_it_is_optional() {
        let refused = |file: Vec<u8>| wish(&file).err().map(|refusal| refusal.rule);
        let demands = Some(Rule::ImageDemands);
        for (flags, expected) in
            [(0, None), (3, None), (7, demands), (8, demands), (3 | 1 << 20, None)]
        {
            assert_eq!(refused(one(flags, &[])), expected, "{flags:#x}");
        }
        let cases: [(u16, &[u32]); 5] =
            [(1, &[99]), (4, &[1]), (5, &[1024, 768, 32, 0]), (7, &[]), (77, &[])];
        for (kind, content) in cases {
            assert_eq!(refused(two(&[(kind, 0, content)])), demands, "{kind}");
            assert_eq!(refused(two(&[(kind, 1, content)])), None, "{kind}");
        }
        assert_eq!(
            refused(two(&[(1, 0, &[12, 8, 14, 15]), (4, 0, &[2]), (6, 0, &[]), (9, 0, &[0])])),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_header_makes_the_reader_panic(
            tags in prop::collection::vec((0_u16..12, 0_u16..2, prop::collection::vec(any::<u32>(), 0..6)), 0..5),
            changes in prop::collection::vec((24_usize..64, any::<u8>()), 0..4),
            cut in 0_usize..80,
        ) {
            let tags: Vec<_> = tags.iter().map(|(kind, flags, content)| (*kind, *flags, &content[..])).collect();
            let mut file = two(&tags);
            let end = file.len();
            changes.iter().filter(|(at, _)| *at < end).for_each(|(at, byte)| file[*at] = *byte);
            let _either = wish(&file).is_ok();
            let _either = wish(&file[..cut.min(end)]).is_ok();
        }
    }
}
