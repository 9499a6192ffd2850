//! Firmware's ACPI tables, read without trust: any bytes give an answer, and none a panic. ACPI 6.5, 5.2.
//!
//! Operating systems tolerate flaws in tables that they do not need, and so does this reader. It skips an entry of the
//! root table that is null, that lies out of reach, or that leads to no table. Only the table that is asked for must be
//! whole: its signature, length and checksum are verified. Of several tables with one signature the first whole one
//! counts. The root table's own checksum is not verified, because each table that is used proves itself.

/// Bytes of the header that every table begins with.
const HEADER: u32 = 36;

/// Longest table that is read, in bytes. A MADT of 256 processors has 4 KiB.
const LONGEST: u32 = 1 << 20;

/// Longest root table that is walked, in bytes: 8,183 entries of 64 bits.
const LONGEST_ROOT: u32 = 64 << 10;

/// Physical memory as firmware filled it.
pub trait Physical {
    /// The byte at this address; `None` where nothing can be read.
    fn byte(&self, address: u64) -> Option<u8>;
}

/// The addresses that the boot loader's copies of the root pointer (RSDP) name; 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Of the XSDT, whose entries have 64 bits.
    pub extended: u64,
    /// Of the RSDT, whose entries have 32 bits, as pointers of both versions name it.
    pub plain: [u64; 2],
}

impl Roots {
    /// Out of the pointers that the boot loader copied: of ACPI 2.0 and of ACPI 1.0. Their checksums are not verified:
    /// a wrong address leads to no table. ACPI 6.5 table 5.3.
    #[must_use]
    pub fn of(new: Option<&[u8]>, old: Option<&[u8]>) -> Self {
        const RSDT: usize = 16;
        const XSDT: usize = 24;
        let plain = |pointer: Option<&[u8]>| number(pointer?, RSDT, 4);
        Self {
            extended: new.and_then(|pointer| number(pointer, XSDT, 8)).unwrap_or(0),
            plain: [plain(new).unwrap_or(0), plain(old).unwrap_or(0)],
        }
    }

    /// Whether no root table is named at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each root table that is named: its address, its signature, and the bytes of one entry. The newer one comes first.
    fn candidates(&self) -> impl Iterator<Item = (u64, [u8; 4], u32)> {
        let [first, second] = self.plain;
        [(self.extended, *b"XSDT", 8), (first, *b"RSDT", 4), (second, *b"RSDT", 4)]
            .into_iter()
            .filter(|(address, ..)| *address != 0)
    }
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// Why a table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No root table is named, or none of those that are named is one.
    Root,
    /// No entry leads to a table of this signature.
    Unnamed {
        /// Entries of the root tables.
        entries: u32,
        /// Of those, entries that lead to nothing that can be read.
        unreadable: u32,
    },
    /// The length of the table at this address is none.
    Length {
        /// Where the table begins.
        address: u64,
        /// What its header says, in bytes.
        length: u32,
    },
    /// The table at this address does not lie whole in memory that can be read.
    OutOfReach {
        /// Where the table begins.
        address: u64,
    },
    /// The checksum of the table at this address is wrong.
    Checksum {
        /// Where the table begins.
        address: u64,
    },
    /// The entries inside the table at this address do not add up to its length.
    Malformed {
        /// Where the table begins.
        address: u64,
    },
}

impl core::fmt::Display for Missing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Root => f.write_str("there is no root table (XSDT or RSDT)"),
            Self::Unnamed { entries, unreadable } => write!(
                f,
                "none of the root table's {entries} entries leads to one, and {unreadable} of them lead to nothing that can be read below 4 GiB"
            ),
            Self::Length { address, length } => {
                write!(f, "the one at {address:#x} gives its length as {length} bytes")
            }
            Self::OutOfReach { address } => {
                write!(f, "the one at {address:#x} does not end below 4 GiB")
            }
            Self::Checksum { address } => write!(f, "the one at {address:#x} has a wrong checksum"),
            Self::Malformed { address } => {
                write!(f, "the entries of the one at {address:#x} do not add up to its length")
            }
        }
    }
}

/// A table whose length and checksum hold.
pub struct Table<'m, M> {
    memory: &'m M,
    address: u64,
    length: u32,
}

impl<M> Clone for Table<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Table<'_, M> {}

impl<'m, M: Physical> Table<'m, M> {
    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// A little-endian number of `size` bytes at this offset; `None` behind its end.
    fn number(&self, offset: u32, size: u32) -> Option<u64> {
        (offset.checked_add(size)? <= self.length).then_some(())?;
        read(self.memory, self.address.checked_add(offset.into())?, size)
    }

    /// The table here, if it has this signature; otherwise `None`. The second `None` stands for what no entry may lead to.
    fn at(memory: &'m M, address: u64, signature: [u8; 4]) -> Option<Result<Self, Missing>> {
        let found = read(memory, address, 4)?.to_le_bytes();
        (address != 0 && found.starts_with(&signature)).then(|| Self::proven(memory, address))
    }

    fn proven(memory: &'m M, address: u64) -> Result<Self, Missing> {
        let out_of_reach = Missing::OutOfReach { address };
        let length = header_length(memory, address).ok_or(out_of_reach)?;
        if !(HEADER..=LONGEST).contains(&length) {
            return Err(Missing::Length { address, length });
        }
        let mut sum = 0_u8;
        for offset in 0..u64::from(length) {
            let byte = address.checked_add(offset).and_then(|at| memory.byte(at));
            sum = sum.wrapping_add(byte.ok_or(out_of_reach)?);
        }
        if sum != 0 {
            return Err(Missing::Checksum { address });
        }
        Ok(Self { memory, address, length })
    }
}

fn read<M: Physical>(memory: &M, address: u64, size: u32) -> Option<u64> {
    let mut value = 0;
    for offset in (0..u64::from(size)).rev() {
        value = value << 8 | u64::from(memory.byte(address.checked_add(offset)?)?);
    }
    Some(value)
}

fn header_length<M: Physical>(memory: &M, address: u64) -> Option<u32> {
    const LENGTH: u64 = 4;
    read(memory, address.checked_add(LENGTH)?, 4).map(|length| length as u32)
}

/// What a search came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Entries of the root tables.
    pub entries: u32,
    /// Entries that are null or lead to nothing that can be read.
    pub unreadable: u32,
    /// Tables of the wanted signature that are damaged, or stand behind the one that is used.
    pub others: u32,
}

/// The table with this signature, and what was skipped on the way to it.
///
/// # Errors
/// There is no whole one: why the first that was found is none.
pub fn find<'m, M: Physical>(
    memory: &'m M,
    roots: &Roots,
    signature: [u8; 4],
) -> Result<(Table<'m, M>, Skipped), Missing> {
    let mut damaged = None;
    let mut total: Option<Skipped> = None;
    for (root, kind, width) in roots.candidates() {
        let Some(length) = root_length(memory, root, kind) else { continue };
        let mut skipped = Skipped::default();
        let mut found = None;
        for offset in (HEADER..length).step_by(width as usize) {
            if offset + width > length {
                break;
            }
            skipped.entries += 1;
            let entry = root.checked_add(offset.into()).and_then(|at| read(memory, at, width));
            match entry.map(|address| (address, Table::at(memory, address, signature))) {
                Some((_, Some(Ok(table)))) if found.is_none() => found = Some(table),
                // The same table again is no second one.
                Some((address, Some(Ok(_)))) => {
                    let same = found.is_some_and(|table| table.address == address);
                    skipped.others += u32::from(!same);
                }
                Some((_, Some(Err(why)))) => {
                    skipped.others += 1;
                    damaged = damaged.or(Some(why));
                }
                Some((address, None)) => {
                    skipped.unreadable += u32::from(!is_readable(memory, address));
                }
                None => skipped.unreadable += 1,
            }
        }
        if let Some(table) = found {
            return Ok((table, skipped));
        }
        total = total.or(Some(skipped));
    }
    let unnamed = |Skipped { entries, unreadable, .. }| Missing::Unnamed { entries, unreadable };
    Err(damaged.or(total.map(unnamed)).unwrap_or(Missing::Root))
}

fn is_readable<M: Physical>(memory: &M, address: u64) -> bool {
    address != 0 && read(memory, address, 4).is_some()
}

/// Bytes of the root table here; `None` where none is.
fn root_length<M: Physical>(memory: &M, address: u64, kind: [u8; 4]) -> Option<u32> {
    let found = read(memory, address, 4)?.to_le_bytes();
    let length = header_length(memory, address)?;
    (found.starts_with(&kind) && (HEADER..=LONGEST_ROOT).contains(&length)).then_some(length)
}

/// What an entry of the MADT says, as far as boot needs it. ACPI 6.5, 5.2.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// An enabled processor with this APIC id.
    Processor(u32),
    /// An I/O APIC whose registers begin at this physical address.
    IoApic(u32),
}

/// The entries of a MADT that boot needs. Use [`madt`].
pub struct Entries<'m, M> {
    table: Table<'m, M>,
    next: u32,
}

/// A MADT's entries.
///
/// # Errors
/// Its entries do not add up to its length: what stands behind the wrong one is not known. A rest that is shorter than an
/// entry's header, or zero throughout, is padding.
pub fn madt<M: Physical>(table: Table<'_, M>) -> Result<Entries<'_, M>, Missing> {
    /// The entries begin behind the address of the local APIC and the flags.
    const FIRST: u32 = HEADER + 8;
    let mut at = FIRST;
    while at < table.length {
        match entry(&table, at) {
            Some((_, length)) => at += length,
            None if is_padding(&table, at) => break,
            None => return Err(Missing::Malformed { address: table.address }),
        }
    }
    Ok(Entries { table, next: FIRST })
}

/// Kind and length of the entry at this offset; `None` where no entry is.
fn entry<M: Physical>(table: &Table<'_, M>, at: u32) -> Option<(u8, u32)> {
    const LEAST: u32 = 2;
    let kind = table.number(at, 1)? as u8;
    let length = table.number(at + 1, 1)? as u32;
    (length >= LEAST && length <= table.length - at).then_some((kind, length))
}

fn is_padding<M: Physical>(table: &Table<'_, M>, from: u32) -> bool {
    from + 1 >= table.length || (from..table.length).all(|at| table.number(at, 1) == Some(0))
}

impl<M: Physical> Entries<'_, M> {
    /// What the entry at this offset says; `None` where it is of another kind, too short, or disabled.
    fn read(&self, at: u32, (kind, length): (u8, u32)) -> Option<Interrupts> {
        const ENABLED: u64 = 1;
        let field = |offset: u32, size: u32| {
            (offset + size <= length).then(|| self.table.number(at + offset, size)).flatten()
        };
        match kind {
            0 if field(4, 4)? & ENABLED != 0 => Some(Interrupts::Processor(field(3, 1)? as u32)),
            9 if field(8, 4)? & ENABLED != 0 => Some(Interrupts::Processor(field(4, 4)? as u32)),
            1 => Some(Interrupts::IoApic(field(4, 4)? as u32)),
            _ => None,
        }
    }
}

impl<M: Physical> Iterator for Entries<'_, M> {
    type Item = Interrupts;

    fn next(&mut self) -> Option<Interrupts> {
        loop {
            let at = self.next;
            let found = entry(&self.table, at)?;
            self.next += found.1;
            if let Some(said) = self.read(at, found) {
                return Some(said);
            }
        }
    }
}

/// The power-management timer, a counter of 3.579545 MHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// I/O port.
    pub port: u16,
    /// Counts 32 bits, not 24.
    pub is_32_bits: bool,
}

/// The PM timer of a FADT; `None` where it has none at an I/O port. The 64-bit field counts first. ACPI 6.5 table 5.9.
#[must_use]
pub fn pm_timer<M: Physical>(fadt: &Table<'_, M>) -> Option<PmTimer> {
    const PORT: u32 = 76;
    const FLAGS: u32 = 112;
    const WIDE: u64 = 1 << 8;
    /// The generic address of the timer: its space, width, offset and access size, then the address.
    const EXTENDED: u32 = 208;
    const IN_PORT_SPACE: u64 = 1;
    let is_port = fadt.number(EXTENDED, 1) == Some(IN_PORT_SPACE);
    let extended = fadt.number(EXTENDED + 4, 8).filter(|port| is_port && *port != 0);
    let port = extended.or_else(|| fadt.number(PORT, 4))?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(PmTimer { port, is_32_bits: fadt.number(FLAGS, 4)? & WIDE != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Memory whose first byte lies at this address.
    struct Ram(u64, Vec<u8>);

    impl Physical for Ram {
        fn byte(&self, address: u64) -> Option<u8> {
            self.1.get(usize::try_from(address.checked_sub(self.0)?).ok()?).copied()
        }
    }

    const START: u64 = 0x1FFF_0000;
    const MADT: u64 = START + 0x400;
    const FADT: u64 = START + 0x800;

    impl Ram {
        /// An RSDT with these entries, and behind it a whole MADT and a whole FADT.
        fn with(entries: &[u32]) -> Self {
            let mut ram = Self(START, std::vec![0; 0x1000]);
            let body: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            ram.put(START, b"RSDT", &body);
            ram.put(MADT, b"APIC", &MADT_BODY);
            let mut fadt = [0; 208];
            fadt[40..44].copy_from_slice(&0xB008_u32.to_le_bytes());
            ram.put(FADT, b"FACP", &fadt);
            ram
        }

        fn put(&mut self, address: u64, signature: &[u8; 4], body: &[u8]) {
            let at = (address - self.0) as usize;
            let length = HEADER as usize + body.len();
            let table = &mut self.1[at..at + length];
            table.fill(0);
            table[..4].copy_from_slice(signature);
            table[4..8].copy_from_slice(&(length as u32).to_le_bytes());
            table[HEADER as usize..].copy_from_slice(body);
            let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            table[9] = sum.wrapping_neg();
        }

        fn set(&mut self, address: u64, byte: u8) {
            self.1[(address - self.0) as usize] = byte;
        }

        fn find(&self, signature: &[u8; 4]) -> Result<(u64, Skipped), Missing> {
            let roots = Roots { extended: 0, plain: [0, START] };
            find(self, &roots, *signature).map(|(table, skipped)| (table.address, skipped))
        }

        fn processors(&self) -> Result<Vec<Interrupts>, Missing> {
            let roots = Roots { extended: 0, plain: [START, 0] };
            Ok(madt(find(self, &roots, *b"APIC")?.0)?.collect())
        }
    }

    /// Local APIC 3 enabled, local APIC 4 disabled, an I/O APIC, an x2APIC of id 0x100 enabled, an entry of another kind.
    const MADT_BODY: [u8; 8 + 8 + 8 + 12 + 16 + 10] = [
        0, 0, 0xE0, 0xFE, 1, 0, 0, 0, //
        0, 8, 0, 3, 1, 0, 0, 0, //
        0, 8, 1, 4, 0, 0, 0, 0, //
        1, 12, 4, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0, //
        9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, //
        2, 10, 0, 0, 2, 0, 0, 0, 0, 0,
    ];

    const READ: [Interrupts; 3] =
        [Interrupts::Processor(3), Interrupts::IoApic(0xFEC0_0000), Interrupts::Processor(0x100)];

    #[test]
    fn whole_tables_are_found_and_read() {
        let ram = Ram::with(&[FADT as u32, MADT as u32]);
        assert_eq!(ram.processors().unwrap(), READ);
        let roots = Roots { extended: 0, plain: [START, 0] };
        let (fadt, skipped) = find(&ram, &roots, *b"FACP").unwrap();
        assert_eq!(pm_timer(&fadt), Some(PmTimer { port: 0xB008, is_32_bits: false }));
        assert_eq!(skipped, Skipped { entries: 2, unreadable: 0, others: 0 });
    }

    #[test]
    fn entries_that_lead_nowhere_are_skipped() {
        // Null, far beyond the memory, at the last address, at bytes that are no table.
        let ram = Ram::with(&[0, 0xFEE0_0000, u32::MAX, START as u32 + 0xF00, MADT as u32]);
        let skipped = Skipped { entries: 5, unreadable: 3, others: 0 };
        assert_eq!(ram.find(b"APIC"), Ok((MADT, skipped)));
    }

    #[test]
    fn damaged_tables_that_nobody_needs_are_skipped() {
        let mut ram = Ram::with(&[FADT as u32, MADT as u32]);
        ram.set(FADT + 5, 0xFF);
        assert!(ram.processors().is_ok());
        assert_eq!(ram.find(b"FACP"), Err(Missing::OutOfReach { address: FADT }));
        ram.set(FADT + 7, 0xFF);
        assert!(matches!(ram.find(b"FACP"), Err(Missing::Length { address: FADT, .. })));
    }

    #[test]
    fn of_several_tables_the_first_whole_one_counts() {
        let other = START + 0xC00;
        let mut ram = Ram::with(&[other as u32, MADT as u32, MADT as u32, other as u32]);
        ram.put(other, b"APIC", &MADT_BODY[..16]);
        let skipped = Skipped { entries: 4, unreadable: 0, others: 2 };
        assert_eq!(ram.find(b"APIC"), Ok((other, skipped)));
        ram.set(other + 40, 0x55);
        let skipped = Skipped { entries: 4, unreadable: 0, others: 2 };
        assert_eq!(ram.find(b"APIC"), Ok((MADT, skipped)));
        ram.set(MADT + 40, 0x55);
        assert_eq!(ram.find(b"APIC"), Err(Missing::Checksum { address: other }));
    }

    #[test]
    fn where_the_extended_root_fails_the_plain_one_serves() {
        let ram = Ram::with(&[MADT as u32]);
        for extended in [1 << 40, START, START + 0x900, u64::MAX] {
            let roots = Roots { extended, plain: [0, START] };
            assert!(find(&ram, &roots, *b"APIC").is_ok(), "{extended:#x}");
        }
        assert_eq!(find(&ram, &Roots::default(), *b"APIC").err(), Some(Missing::Root));
    }

    #[test]
    fn an_extended_root_may_name_tables_out_of_reach() {
        let mut ram = Ram::with(&[]);
        let entries = [0, 1_u64 << 32, u64::MAX, MADT];
        let body: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        ram.put(START + 0xD00, b"XSDT", &body);
        let roots = Roots { extended: START + 0xD00, plain: [START, START] };
        let (table, skipped) = find(&ram, &roots, *b"APIC").unwrap();
        assert_eq!((table.address, skipped.unreadable), (MADT, 3));
        let missing = Missing::Unnamed { entries: 4, unreadable: 3 };
        assert_eq!(find(&ram, &roots, *b"FACP").err(), Some(missing));
    }

    #[test]
    fn a_root_of_absurd_length_is_none() {
        let mut ram = Ram::with(&[MADT as u32]);
        ram.set(START + 7, 0xFF);
        assert_eq!(ram.find(b"APIC"), Err(Missing::Root));
        let mut ram = Ram::with(&[MADT as u32]);
        ram.set(START + 4, 8);
        assert_eq!(ram.find(b"APIC"), Err(Missing::Root));
    }

    #[test]
    fn entries_of_a_madt_that_do_not_add_up_are_malformed() {
        let mut ram = Ram::with(&[MADT as u32]);
        for (length, good) in [(0, false), (1, false), (200, false), (10, true)] {
            let mut body = MADT_BODY;
            body[53] = length;
            ram.put(MADT, b"APIC", &body);
            let malformed = Missing::Malformed { address: MADT };
            assert_eq!(ram.processors().err(), (!good).then_some(malformed), "{length}");
        }
        let padded: Vec<u8> = MADT_BODY.into_iter().chain([0; 3]).collect();
        ram.put(MADT, b"APIC", &padded);
        assert_eq!(ram.processors().unwrap(), READ);
    }

    #[test]
    fn a_pointer_names_its_root_tables() {
        let mut pointer = [0; 36];
        pointer[16..20].copy_from_slice(&7_u32.to_le_bytes());
        pointer[24..32].copy_from_slice(&(9_u64 << 32).to_le_bytes());
        let both = Roots { extended: 9 << 32, plain: [7, 7] };
        assert_eq!(Roots::of(Some(&pointer), Some(&pointer[..20])), both);
        assert_eq!(Roots::of(None, Some(&pointer[..20])), Roots { extended: 0, plain: [0, 7] });
        assert!(Roots::of(Some(&pointer[..15]), None).is_empty());
    }

    #[test]
    fn the_extended_pm_timer_counts_first() {
        let timer = |space: u8, extended: u64, plain: u32, length: usize| {
            let mut body = [0; 208];
            body[40..44].copy_from_slice(&plain.to_le_bytes());
            body[77] = 1;
            body[172] = space;
            body[176..184].copy_from_slice(&extended.to_le_bytes());
            let mut ram = Ram::with(&[FADT as u32]);
            ram.put(FADT, b"FACP", &body[..length]);
            let roots = Roots { extended: 0, plain: [START, 0] };
            pm_timer(&find(&ram, &roots, *b"FACP").unwrap().0).map(|timer| timer.port)
        };
        assert_eq!(timer(1, 0x408, 0x508, 208), Some(0x408));
        assert_eq!(timer(0, 0x408, 0x508, 208), Some(0x508));
        assert_eq!(timer(1, 0, 0x508, 208), Some(0x508));
        assert_eq!(timer(1, 0x408, 0x508, 80), Some(0x508));
        assert_eq!(timer(1, 0x1_0000, 0, 208), None);
        assert_eq!(timer(0, 0, 0, 208), None);
        assert_eq!(timer(0, 0, 0x508, 76), None);
    }

    proptest! {
        /// Whatever stands in memory, the reader answers, and never by a table that is none.
        #[test]
        fn any_bytes_are_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..2048),
            roots in any::<[u64; 3]>(),
            near in any::<[bool; 3]>(),
        ) {
            let ram = Ram(START, bytes);
            let place = |index: usize| if near[index] { START + roots[index] % 64 } else { roots[index] };
            let roots = Roots { extended: place(0), plain: [place(1), place(2)] };
            for signature in [*b"APIC", *b"FACP"] {
                if let Ok((table, _)) = find(&ram, &roots, signature) {
                    let _answers = (madt(table).map(Iterator::count), pm_timer(&table));
                }
            }
        }

        /// Damage in sound tables: bytes of root, MADT and FADT are replaced, and lengths made to fit or not.
        #[test]
        fn damaged_tables_are_answered(
            entries in proptest::collection::vec(prop_oneof![
                Just(MADT as u32), Just(FADT as u32), Just(0), any::<u32>(),
                (START as u32..START as u32 + 0x1100),
            ], 0..20),
            damage in proptest::collection::vec((0_usize..0x900, any::<u8>()), 0..8),
            repaired in any::<bool>(),
        ) {
            let mut ram = Ram::with(&entries);
            for (at, byte) in damage {
                ram.1[at] = byte;
            }
            if repaired {
                let body = ram.1[0x424..0x424 + MADT_BODY.len()].to_vec();
                ram.put(MADT, b"APIC", &body);
            }
            let roots = Roots { extended: START, plain: [START, 0] };
            for signature in [*b"APIC", *b"FACP"] {
                if let Ok((table, skipped)) = find(&ram, &roots, signature) {
                    prop_assert!(skipped.unreadable + skipped.others < skipped.entries);
                    let _answers = (madt(table).map(Iterator::count), pm_timer(&table));
                }
            }
        }
    }
}
