//! The memory map out of /proc/iomem, for kernels that show no /sys/firmware/memmap.
//!
//! Lines are nested by their indentation, and a range of firmware's may stand inside any other: the kernel puts a `Reserved` below the bus
//! or the device that decodes it. What stands inside RAM and is firmware's own is no RAM. Other names are the kernel's and the devices'.

use bulkhead_board::facts::{MemoryKind, MemoryRange};

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// RAM, and what firmware keeps.
    pub ranges: Vec<MemoryRange>,
    /// What could not be read and why.
    pub notes: Vec<String>,
}

/// The kernel's words for the kinds of memory, in /sys/firmware/memmap too. Kernels write them in lower or upper case.
pub(super) fn kind_of(name: &str) -> MemoryKind {
    firmwares(name).unwrap_or(MemoryKind::Reserved)
}

/// The kind, where the word is one of the firmware's map and not a device's name.
fn firmwares(name: &str) -> Option<MemoryKind> {
    match name.trim().to_ascii_lowercase().as_str() {
        "system ram" => Some(MemoryKind::Usable),
        "acpi tables" => Some(MemoryKind::AcpiTables),
        "acpi non-volatile storage" => Some(MemoryKind::AcpiStorage),
        "unusable memory" => Some(MemoryKind::Broken),
        "reserved"
        | "unknown e820 type"
        | "persistent memory"
        | "persistent memory (legacy)"
        | "soft reserved" => Some(MemoryKind::Reserved),
        _ => None,
    }
}

/// Reads the file.
pub(super) fn read(text: &str) -> Map {
    let mut map = Map::default();
    let (mut hidden, mut malformed) = (0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let Some((start, end, name)) = fields(line) else {
            malformed += 1;
            continue;
        };
        let Some(kind) = firmwares(name) else { continue };
        if (start, end) == (0, 0) {
            hidden += 1;
            continue;
        }
        match end.checked_sub(start).and_then(|size| size.checked_add(1)) {
            Some(size) => map.ranges.push(MemoryRange { start, size, kind }),
            None => malformed += 1,
        }
    }
    if hidden > 0 {
        map.notes.push(format!(
            "/proc/iomem hides the addresses of {hidden} ranges, as it does from users without rights; run it as root"
        ));
    }
    if malformed > 0 {
        map.notes.push(format!("{malformed} lines of /proc/iomem could not be read"));
    }
    map
}

/// Start, last byte and name: `00100000-1ffeffff : System RAM`.
fn fields(line: &str) -> Option<(u64, u64, &str)> {
    let (place, name) = line.split_once(" : ")?;
    let (start, end) = place.trim().split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
    Some((number(start)?, number(end)?, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Vec<(u64, u64, MemoryKind)> {
        read(text).ranges.iter().map(|range| (range.start, range.size, range.kind)).collect()
    }

    #[test]
    fn firmwares_ranges_are_found_wherever_they_stand() {
        let text = "\
00000000-00000fff : Reserved
00001000-0009ffff : System RAM
000a0000-000fffff : reserved
  000f0000-000fffff : System ROM
00100000-6fffffff : System RAM
  01000000-01ffffff : Kernel code
  02000000-02ffffff : Reserved
7a041000-7a08cfff : Unknown E820 type
c0000000-cfffffff : PCI MMCONFIG 0000 [bus 00-ff]
  c0000000-cfffffff : Reserved
    c0000000-c0000fff : pnp 00:01
fe000000-fe0fffff : PCI Bus 0000:00
  fe000000-fe00ffff : 0000:00:1f.0
    fe000000-fe000fff : ACPI Tables
fee00000-fee00fff : Local APIC
  fee00000-fee00fff : RESERVED
100000000-1ffffffff : system ram
";
        use MemoryKind::{AcpiTables, Reserved, Usable};
        let wanted = [
            (0, 0x1000, Reserved),
            (0x1000, 0x9_F000, Usable),
            (0xA_0000, 0x6_0000, Reserved),
            (0x10_0000, 0x6FF0_0000, Usable),
            (0x200_0000, 0x100_0000, Reserved),
            (0x7A04_1000, 0x4_C000, Reserved),
            (0xC000_0000, 0x1000_0000, Reserved),
            (0xFE00_0000, 0x1000, AcpiTables),
            (0xFEE0_0000, 0x1000, Reserved),
            (0x1_0000_0000, 0x1_0000_0000, Usable),
        ];
        assert_eq!(ranges(text), wanted);
        assert_eq!(read(text).notes, [""; 0]);
    }

    #[test]
    fn what_is_hidden_or_malformed_is_told() {
        let map = read("00000000-00000000 : System RAM\n  00000000-00000000 : reserved\nx-y : z\n");
        assert_eq!(map.ranges, []);
        assert!(map.notes[0].contains("hides the addresses of 2 ranges"), "{:?}", map.notes);
        assert!(map.notes[1].contains("1 lines"), "{:?}", map.notes);
    }
}
