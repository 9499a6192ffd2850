//! ACPI tables out of an emulator's memory, as its BIOS wrote them. A firmware that has none gets them from here.

/// A piece of memory.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its first address.
    pub start: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its signature, with a number behind it from the second of a kind on: `SSDT`, `SSDT2`.
    pub name: String,
    /// The whole table.
    pub bytes: Vec<u8>,
}

/// The pointer that everything starts from lies on a multiple of this (ACPI 6.5, 5.2.5.1).
const POINTER_STEP: usize = 16;
/// Its signature, and where it holds the address of the list of tables (ACPI 6.5, 5.2.5.3).
const POINTER: &[u8] = b"RSD PTR ";
const POINTER_TO_LIST: u64 = 16;

/// Length of a table's header, and where it says the table's length (ACPI 6.5, 5.2.6).
const HEADER: usize = 36;
const LENGTH: u64 = 4;

/// Where the fixed table points to the first of the machine's own code (ACPI 6.5, 5.2.9).
const FIXED: &str = "FACP";
const FIXED_TO_CODE: u64 = 40;

/// Most tables that are believed: pointers in damaged memory may lead in a circle.
const MOST: usize = 64;

/// Longest table that is believed: what is longer was not written by a BIOS.
const LONGEST: u32 = 1 << 20;

/// All tables that the pointer in one of the pieces leads to.
///
/// # Errors
/// There is no pointer, or it leads out of the pieces or to a damaged table. The words say which.
pub fn tables(memory: &[Piece]) -> Result<Vec<Table>, String> {
    let memory = Memory { pieces: memory };
    let pointer = memory.pointer().ok_or("the BIOS left no pointer to ACPI tables")?;
    let list = memory.table(memory.long(pointer + POINTER_TO_LIST)?)?;
    let mut found: Vec<Table> = Vec::new();
    let mut addresses: Vec<u64> =
        list.bytes[HEADER..].chunks_exact(4).map(|word| u64::from(little(word))).collect();
    while let Some(address) = addresses.pop() {
        let mut table = memory.table(address)?;
        if table.name == FIXED {
            addresses.push(memory.long(address + FIXED_TO_CODE)?);
        }
        let earlier = found.iter().filter(|it| it.bytes[..4] == table.bytes[..4]).count();
        if earlier > 0 {
            table.name = format!("{}{}", table.name, earlier + 1);
        }
        found.push(table);
        if found.len() > MOST {
            return Err(format!("there are more than {MOST} tables"));
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

struct Memory<'m> {
    pieces: &'m [Piece],
}

impl Memory<'_> {
    fn bytes(&self, start: u64, length: usize) -> Result<&[u8], String> {
        let within = |piece: &'_ Piece| {
            let from = usize::try_from(start.checked_sub(piece.start)?).ok()?;
            Some(from..from.checked_add(length)?)
        };
        let found = self.pieces.iter().find_map(|piece| piece.bytes.get(within(piece)?));
        found.ok_or_else(|| format!("{length} bytes at {start:#x} were not read"))
    }

    fn long(&self, at: u64) -> Result<u64, String> {
        self.bytes(at, 4).map(|word| u64::from(little(word)))
    }

    /// The address of the pointer, which has a good checksum.
    fn pointer(&self) -> Option<u64> {
        self.pieces.iter().find_map(|piece| {
            let steps = (0..piece.bytes.len()).step_by(POINTER_STEP);
            let good = |at: &usize| {
                let bytes = piece.bytes.get(*at..*at + 20);
                bytes.is_some_and(|bytes| bytes.starts_with(POINTER) && sum(bytes) == 0)
            };
            steps.into_iter().find(good).map(|at| piece.start + at as u64)
        })
    }

    fn table(&self, at: u64) -> Result<Table, String> {
        let length = little(self.bytes(at + LENGTH, 4)?);
        if !(HEADER as u32..=LONGEST).contains(&length) {
            return Err(format!("the table at {at:#x} says that it is {length} bytes long"));
        }
        let bytes = self.bytes(at, length as usize)?;
        let name = String::from_utf8_lossy(&bytes[..4]).into_owned();
        if sum(bytes) != 0 || !name.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("the table at {at:#x} is damaged"));
        }
        Ok(Table { name, bytes: bytes.to_vec() })
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn little(word: &[u8]) -> u32 {
    word.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with this content, its length and checksum right.
    fn table(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = name.to_vec();
        bytes.extend((HEADER as u32 + content.len() as u32).to_le_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(content);
        bytes[9] = bytes[9].wrapping_sub(sum(&bytes));
        bytes
    }

    const TOP: u64 = 0x1ff_0000;

    /// A pointer at 32 of the first piece, and a second piece with a list of a fixed table, its code, and two tables of one kind.
    fn memory() -> Vec<Piece> {
        let code = table(b"DSDT", b"code");
        let fixed = table(b"FACP", &[0, 0, 0, 0, 0, 2, 0xff, 1]);
        let more = table(b"SSDT", b"more");
        let list: Vec<u8> = [0x1ff_0100_u32, 0x1ff_0300, 0x1ff_0400]
            .iter()
            .flat_map(|it| it.to_le_bytes())
            .collect();
        let mut top = vec![0; 0x1000];
        for (at, bytes) in [
            (0, table(b"RSDT", &list)),
            (0x100, fixed),
            (0x200, code),
            (0x300, more.clone()),
            (0x400, more),
        ] {
            top[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let mut low = vec![0; 64];
        low[32..40].copy_from_slice(POINTER);
        low[48..52].copy_from_slice(&(TOP as u32).to_le_bytes());
        low[40] = 0_u8.wrapping_sub(sum(&low[32..52]));
        vec![Piece { start: 0xe_0000, bytes: low }, Piece { start: TOP, bytes: top }]
    }

    #[test]
    fn every_table_is_found_once() {
        let found = tables(&memory()).unwrap();
        let names: Vec<&str> = found.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["DSDT", "FACP", "SSDT", "SSDT2"]);
        assert_eq!(&found[0].bytes[HEADER..], b"code");
    }

    #[test]
    fn damage_is_told() {
        let mut no_pointer = memory();
        no_pointer[0].bytes[33] = 0;
        assert!(tables(&no_pointer).unwrap_err().contains("no pointer"));
        let mut damaged = memory();
        damaged[1].bytes[0x100 + HEADER + 7] ^= 1;
        assert!(tables(&damaged).unwrap_err().contains("0x1ff0100 is damaged"));
        let mut short = memory();
        short[1].bytes[0x200 + 4] = 3;
        assert!(tables(&short).unwrap_err().contains("0x1ff0200 says that it is 3 bytes"));
        let mut cut = memory();
        cut[1].bytes.truncate(0x300);
        assert!(tables(&cut).unwrap_err().contains("were not read"));
        assert!(tables(&[]).is_err());
    }

    #[test]
    fn no_memory_makes_it_panic() {
        let whole = memory();
        for at in 0..0x500 {
            for value in [0, 0xff] {
                let mut memory = whole.clone();
                memory[1].bytes[at] = value;
                let _told = tables(&memory);
            }
        }
    }
}
