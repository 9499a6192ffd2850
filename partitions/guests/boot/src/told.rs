//! What the information of each protocol says, read field by field.

use guest_rt::hostile::read_memory;

/// A piece of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl Range {
    /// Behind the last byte.
    pub const fn end(self) -> u64 {
        self.start + self.size
    }
}

/// What a guest was told.
pub struct Told {
    /// KiB below 640 KiB and above 1 MiB, where the protocol has that.
    pub lower_and_upper: Option<[u64; 2]>,
    /// Address of the command line.
    pub line: u64,
    /// Address of the root pointer of ACPI.
    pub acpi: u64,
    /// The one module.
    pub module: Option<Range>,
    /// Where the memory map is, how many entries it has, how long each is, and where in it the range begins.
    map: [u64; 4],
}

const RAM: u64 = 1;

impl Told {
    /// The memory map: ranges and their kinds.
    pub fn map(&self) -> impl Iterator<Item = (Range, u64)> {
        let [at, count, length, first] = self.map;
        (0..count)
            .map(move |index| at + index * length + first)
            .map(|at| (Range { start: word(at), size: word(at + 8) }, long(at + 16)))
    }

    /// The ranges of RAM.
    pub fn ram(&self) -> impl Iterator<Item = Range> {
        self.map().filter(|(_, kind)| *kind == RAM).map(|(range, _)| range)
    }
}

pub fn word(address: u64) -> u64 {
    read_memory(address).unwrap_or(0)
}

pub fn long(address: u64) -> u64 {
    word(address) & 0xFFFF_FFFF
}

/// Multiboot 3.3. It has no field for ACPI: a guest searches where a PC has it.
pub fn by_multiboot1(at: u64) -> Told {
    let flags = long(at);
    let module = |list: u64| Range { start: long(list), size: long(list + 4) - long(list) };
    let has_module = flags & 8 != 0 && long(at + 20) == 1;
    Told {
        lower_and_upper: Some([if flags & 1 != 0 { long(at + 4) } else { 0 }, long(at + 8)]),
        line: if flags & 4 != 0 { long(at + 16) } else { 0 },
        acpi: crate::tables::found_by_searching().unwrap_or(0),
        module: has_module.then(|| module(long(at + 24))),
        map: if flags & 0x40 != 0 { [long(at + 48), long(at + 44) / 24, 24, 4] } else { [0; 4] },
    }
}

/// xen/include/public/arch-x86/hvm/start_info.h.
pub fn by_pvh(at: u64) -> Told {
    let module = |list: u64| Range { start: word(list), size: word(list + 8) };
    let has_map = long(at + 4) >= 1;
    Told {
        lower_and_upper: None,
        line: word(at + 24),
        acpi: word(at + 32),
        module: (long(at + 12) == 1).then(|| module(word(at + 16))),
        map: if has_map { [word(at + 40), long(at + 48), 24, 0] } else { [0; 4] },
    }
}

/// Multiboot2 3.6.
pub fn by_multiboot2(at: u64) -> Told {
    let mut told = Told { lower_and_upper: None, line: 0, acpi: 0, module: None, map: [0; 4] };
    let (end, mut tag) = (at + long(at), at + 8);
    while tag < end {
        let (kind, size, content) = (long(tag), long(tag + 4), tag + 8);
        match kind {
            1 => told.line = content,
            3 => {
                let (start, end) = (long(content), long(content + 4));
                told.module = Some(Range { start, size: end - start });
            }
            4 => told.lower_and_upper = Some([long(content), long(content + 4)]),
            6 => told.map = [content + 8, (size - 16) / 24, 24, 0],
            // A copy: the tables are found by what it says, and it itself is where it was copied from.
            15 => {
                let searched = crate::tables::found_by_searching();
                let same = |from: u64| {
                    (0..32)
                        .step_by(8)
                        .all(|word_at| word(from + word_at) == word(content + word_at))
                };
                told.acpi = searched.filter(|from| same(*from)).unwrap_or(0);
            }
            _ => {}
        }
        tag += size.next_multiple_of(8);
    }
    told
}
