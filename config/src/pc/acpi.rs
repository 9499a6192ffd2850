//! The ACPI tables of the small PC: which processors there are, and how to start it again and to switch it off. There is no
//! other firmware, and no hardware that the tables do not name: hardware-reduced ACPI (ACPI 6.5, section 4.1).

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Name, ONE, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use bulkhead_table::pc;

const MAKER: [u8; 6] = *b"BULKHD";
const MODEL: [u8; 8] = *b"BULKHEAD";
const REVISION: u32 = 1;

/// Length of the header of a table, and the revisions of those that are built by it: ACPI 6.5, table 5.4 and section 5.2.
const HEADER: u32 = 36;
const DSDT_REVISION: u8 = 2;
const MADT_REVISION: u8 = 5;

/// Physical address of the local APICs: SDM 3A 11.4.1.
const LOCAL_APIC: u32 = 0xFEE0_0000;

/// Entries of the MADT: a local APIC with an id of eight bits (ACPI 6.5, 5.2.12.2), one with an id of 32 (5.2.12.12).
const APIC_ENTRY: [u8; 2] = [0, 8];
const X2APIC_ENTRY: [u8; 2] = [9, 16];
const ENABLED: u32 = 1;
/// From here on an id needs the longer entry.
const LONG_IDS: u32 = 255;

/// "VGA not present", "PCIe ASPM controls": bits of IAPC_BOOT_ARCH, ACPI 6.5, table 5.10. No legacy devices, no keyboard
/// controller; the real-time clock is there, for its "not present" is clear.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 4;

/// Ports of the console, and of the real-time clock.
const CONSOLE_PORTS: u8 = 8;
const CLOCK_PORTS: u8 = 2;

/// The tables as they lie from address `at` on, the root pointer first. `processors` are the ids of the partition's local APICs, by vCPU.
pub(crate) fn tables(at: u64, processors: &[u32]) -> Vec<u8> {
    let mut out = Tables { at, bytes: vec![0; Rsdp::len().next_multiple_of(ALIGNMENT)] };
    let dsdt = out.add(&differentiated());
    let fadt = out.add(&fixed(dsdt));
    let madt = out.add(&interrupts(processors));
    let mut root = XSDT::new(MAKER, MODEL, REVISION);
    root.add_entry(fadt);
    root.add_entry(madt);
    let root = out.add(&root);
    let mut pointer = Vec::new();
    Rsdp::new(MAKER, root).to_aml_bytes(&mut pointer);
    out.bytes.splice(..pointer.len(), pointer);
    out.bytes
}

/// The root pointer of [`tables`].
pub(crate) fn pointer(at: u64, processors: &[u32]) -> Vec<u8> {
    let mut tables = tables(at, processors);
    tables.truncate(Rsdp::len());
    tables
}

/// Each table begins on such a bound.
const ALIGNMENT: usize = 16;

struct Tables {
    at: u64,
    bytes: Vec<u8>,
}

impl Tables {
    /// Adds a table and gives its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let address = self.at + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

/// The FADT: ACPI 6.5, section 5.2.9.
fn fixed(dsdt: u64) -> impl Aml {
    let mut table = FADTBuilder::new(MAKER, MODEL, REVISION).dsdt_64(dsdt);
    for flag in [
        Flags::Wbinvd,
        Flags::PwrButton,
        Flags::SlpButton,
        Flags::ResetRegSup,
        Flags::Headless,
        // x2APIC ids are physical ones: interrupts by logical destination are not offered.
        Flags::ForceApicPhysicalDestinationMode,
        Flags::HwReducedAcpi,
    ] {
        table = table.flag(flag);
    }
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    table.reset_reg = port(pc::RESET);
    table.reset_value = pc::RESET_VALUE;
    table.sleep_control_reg = port(pc::SLEEP_CONTROL);
    table.sleep_status_reg = port(pc::SLEEP_STATUS);
    table.finalize()
}

/// The MADT: ACPI 6.5, section 5.2.12. No I/O APIC and no legacy interrupt controllers.
fn interrupts(processors: &[u32]) -> Sdt {
    let mut body = Vec::new();
    body.extend(LOCAL_APIC.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    for (id, unit) in processors.iter().zip(0_u32..) {
        match u8::try_from(*id) {
            Ok(short) if *id < LONG_IDS => {
                // There are no more than 64 vCPUs: the unit's number has room.
                body.extend([APIC_ENTRY[0], APIC_ENTRY[1], unit as u8, short]);
                body.extend(ENABLED.to_le_bytes());
            }
            _ => {
                body.extend([X2APIC_ENTRY[0], X2APIC_ENTRY[1], 0, 0]);
                [*id, ENABLED, unit].iter().for_each(|word| body.extend(word.to_le_bytes()));
            }
        }
    }
    table(*b"APIC", MADT_REVISION, &body)
}

/// The DSDT: how soft-off is called, the console and the real-time clock. None of the two has an interrupt: a kernel polls the one and
/// takes the other without its alarm.
fn differentiated() -> Sdt {
    let off = pc::SOFT_OFF;
    let soft_off = Name::new(Path::new("_S5_"), &Package::new(vec![&off, &off, &ZERO, &ZERO]));
    let identity = Name::new(Path::new("_HID"), &EISAName::new("PNP0501"));
    let number = Name::new(Path::new("_UID"), &ONE);
    let ports = IO::new(pc::CONSOLE, pc::CONSOLE, 1, CONSOLE_PORTS);
    let resources = Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&ports]));
    let console = Device::new(Path::new("COM1"), vec![&identity, &number, &resources]);
    let clock_identity = Name::new(Path::new("_HID"), &EISAName::new("PNP0B00"));
    let clock_ports = IO::new(pc::CLOCK, pc::CLOCK, 1, CLOCK_PORTS);
    let clock_resources = Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&clock_ports]));
    let clock = Device::new(Path::new("RTC_"), vec![&clock_identity, &clock_resources]);
    let mut body = Vec::new();
    soft_off.to_aml_bytes(&mut body);
    Scope::new(Path::new("_SB_"), vec![&console, &clock]).to_aml_bytes(&mut body);
    table(*b"DSDT", DSDT_REVISION, &body)
}

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut table = Sdt::new(signature, HEADER, revision, MAKER, MODEL, REVISION);
    table.append_slice(body);
    table
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use bulkhead_table::{MAX_VCPUS, PAGE_SIZE};

    use super::*;

    fn long(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table of this signature, found as a guest finds it.
    fn found(tables: &[u8], signature: &[u8; 4]) -> Vec<u8> {
        assert_eq!(&tables[..8], b"RSD PTR ");
        assert_eq!((tables[15], sum(&tables[..20]), sum(&tables[..36])), (2, 0, 0));
        let at = |address: u64| {
            let start = (address - pc::ACPI) as usize;
            let length = long(tables, start + 4) as usize;
            let table = tables[start..start + length].to_vec();
            assert_eq!(sum(&table), 0, "{:?}", &table[..4]);
            table
        };
        let root = at(word(tables, 24));
        assert_eq!(&root[..4], b"XSDT");
        let mut entries = root[36..].chunks_exact(8).map(|entry| at(word(entry, 0)));
        if signature == b"DSDT" {
            let fadt = entries.find(|table| table.starts_with(b"FACP")).unwrap();
            return at(word(&fadt, 140));
        }
        entries.find(|table| table.starts_with(signature)).unwrap()
    }

    #[test]
    fn the_fixed_table_says_how_to_reset_and_to_switch_off() {
        let fadt = found(&tables(pc::ACPI, &[1]), b"FACP");
        assert_eq!((fadt.len(), fadt[8]), (276, 6));
        let flags = long(&fadt, 112);
        assert_eq!(flags >> 20 & 1, 1, "hardware-reduced");
        assert_eq!(flags >> 10 & 1, 1, "the reset register is there");
        let register = |at: usize| (fadt[at], fadt[at + 1], word(&fadt, at + 4));
        assert_eq!((register(116), fadt[128]), ((1, 8, 0x604), 1));
        assert_eq!((register(244), register(256)), ((1, 8, 0x600), (1, 8, 0x601)));
        // No legacy devices, no keyboard controller, no video; but a real-time clock.
        assert_eq!(u16::from_le_bytes([fadt[109], fadt[110]]) & 0b10_0111, 0b100);
    }

    #[test]
    fn each_processor_is_named_by_its_apic_id_and_nothing_else_is() {
        let madt = found(&tables(pc::ACPI, &[3, 254, 255, 0x1_0000]), b"APIC");
        assert_eq!((long(&madt, 36), long(&madt, 40)), (0xFEE0_0000, 0));
        let entries = [
            [0, 8, 0, 3, 1, 0, 0, 0].to_vec(),
            [0, 8, 1, 254, 1, 0, 0, 0].to_vec(),
            [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0].to_vec(),
            [9, 16, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0].to_vec(),
        ];
        assert_eq!(madt[44..], entries.concat());
    }

    /// ACPI 6.5, chapter 20: the bytes of the two objects.
    #[test]
    fn soft_off_and_the_console_are_in_the_namespace() {
        let dsdt = found(&tables(pc::ACPI, &[1]), b"DSDT");
        let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|piece| piece == bytes);
        assert!(has(b"\x08_S5_\x12\x08\x04\x0A\x05\x0A\x05\x00\x00"), "{dsdt:x?}");
        assert!(has(b"\x5B\x82") && has(b"COM1\x08_HID\x0C\x41\xD0\x05\x01"), "{dsdt:x?}");
        assert!(has(b"RTC_\x08_HID\x0C\x41\xD0\x0B\x00"), "{dsdt:x?}");
        assert!(has(b"\x47\x01\x70\x00\x70\x00\x01\x02\x79"), "{dsdt:x?}");
        assert!(has(b"\x47\x01\xF8\x03\xF8\x03\x01\x08\x79"), "{dsdt:x?}");
    }

    #[test]
    fn the_most_processors_fit_the_page() {
        let most: Vec<u32> = (0..MAX_VCPUS as u32).map(|id| 0x1000 + id).collect();
        assert!(tables(pc::ACPI, &most).len() as u64 <= PAGE_SIZE);
    }
}
