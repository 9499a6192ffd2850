//! Firmware whose tables have flaws that operating systems tolerate boots all the same; where a table that is needed is
//! damaged, the board is refused with a remedy. The flaws are put into memory by the emulator's debugger.

use std::sync::LazyLock;

use bulkhead::manifest::Manifest;
use bulkhead::{BuiltImage, Run, RunOptions};
use hil_tests::{bench, checks, systems};

use crate::refusal::refused;

const SYSTEM: &str = r#"[system]
name = "firmware"
board = "@/boards/bochs-skylake-x.toml"

[shutdown]
when-finished = ["motion"]
at-latest = "3 s"

[housekeeping]
core = 0

[partition.motion]
image = "@/guests/latency"
arguments = "samples=200"
memory = "8 MiB"
cores = [1]
"#;

static IMAGE: LazyLock<BuiltImage> =
    LazyLock::new(|| bench::build(&systems::write("firmware", SYSTEM), "firmware"));

/// Where the emulated BIOS puts its tables on this board, seen in its memory.
const RSDT: u64 = 0x1FFF_0000;
const FADT: u64 = 0x1FFF_0034;
const MADT: u64 = 0x1FFF_0F98;

/// Room behind its tables, in the memory that it keeps for them.
const ROOM: u64 = 0x1FFF_4000;

/// An unused place of the extended BIOS data area, where boot loaders look for a root pointer first.
const POINTER: u64 = 0x9_FFA0;

/// Debugger commands that change memory once firmware is done, before the boot loader runs.
struct Changes(Vec<String>);

impl Changes {
    fn new() -> Self {
        Self(["pb 0x7c00", "c"].map(String::from).to_vec())
    }

    /// Puts these bytes there; a last word that is not full is filled with zeros.
    fn put(mut self, address: u64, bytes: &[u8]) -> Self {
        for (at, word) in (address..).step_by(4).zip(bytes.chunks(4)) {
            let value = word.iter().rev().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
            self.0.push(format!("setpmem {at:#x} 4 {value:#x}"));
        }
        self
    }

    /// A table with a header, whose checksum is right.
    fn table(self, address: u64, signature: &[u8; 4], body: &[u8]) -> Self {
        self.put(address, &table(signature, body))
    }

    fn run(mut self) -> Run {
        self.0.push("bpd 1".into());
        let options =
            RunOptions { image: IMAGE.image.clone(), debugger: self.0, ..RunOptions::default() };
        bench::run_with(options)
    }
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 36 + body.len()];
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(signature);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[36..].copy_from_slice(body);
    bytes[9] = complement(&bytes);
    bytes
}

/// What makes the sum of the bytes zero.
fn complement(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

fn entries_32(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| (*entry as u32).to_le_bytes()).collect()
}

fn entries_64(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// The partition ran and passed, and the boot said which entries it passed over.
fn ran(run: &Run, note: &str) {
    let notes: Vec<&str> = run.text().filter(|line| line.contains("ACPI")).collect();
    println!("{notes:#?}");
    checks::want_none(&checks::check_passed(&run.report, "motion"));
    assert!(notes.iter().any(|line| line.contains(note)), "nobody said: {note}");
}

#[test]
fn firmware_may_name_tables_that_are_none() {
    let damaged = ROOM;
    let endless = ROOM + 0x100;
    let mut second = table(b"APIC", &[0; 20]);
    second[9] ^= 1;
    let entries =
        [0, endless, damaged, FADT, 0xE000_0000, u64::from(u32::MAX), 0x100, MADT, MADT, 0];
    let run = Changes::new()
        .put(damaged, &second)
        .put(endless, b"SSDT\xFF\xFF\xFF\xFF")
        // The entries take the place of the FADT, which moves.
        .put(ROOM + 0x400, &fadt())
        .table(
            RSDT,
            b"RSDT",
            &entries_32(&entries.map(|at| if at == FADT { ROOM + 0x400 } else { at })),
        )
        .run();
    ran(&run, "of the ACPI root table's 10 entries 3 lead to nothing");
}

/// A FADT as the emulated firmware's own, as far as it matters: the PM timer's port.
fn fadt() -> Vec<u8> {
    const PORT: usize = 76 - 36;
    let mut body = [0; 116 - 36];
    body[PORT..PORT + 4].copy_from_slice(&0xB008_u32.to_le_bytes());
    table(b"FACP", &body)
}

#[test]
fn firmware_may_name_tables_above_four_gibibytes() {
    let entries = [0, 0x1_2345_6000, u64::MAX, FADT, 1 << 40, MADT];
    let mut pointer = [0; 36];
    pointer[..8].copy_from_slice(b"RSD PTR ");
    pointer[15] = 2;
    pointer[20] = 36;
    pointer[24..32].copy_from_slice(&ROOM.to_le_bytes());
    pointer[8] = complement(&pointer[..20]);
    pointer[32] = complement(&pointer);
    let run =
        Changes::new().table(ROOM, b"XSDT", &entries_64(&entries)).put(POINTER, &pointer).run();
    ran(&run, "of the ACPI root table's 6 entries 4 lead to nothing");
}

/// Less RAM than the board file has, and none missing where something lies.
#[test]
fn firmware_may_leave_less_ram_than_the_board_file_has() {
    let image = bench::copy(&IMAGE, "firmware-memory");
    let manifest = Manifest { memory_end: 255 << 20, ..IMAGE.manifest.clone() };
    manifest.save(&image).unwrap();
    let run = bench::run(&image);
    checks::want_none(&checks::check_passed(&run.report, "motion"));
    let note = "board file's memory 0x100000-0x1ff00000 is not all RAM here: from 0xfff0000 on";
    assert!(run.text().any(|line| line.contains(note) && line.contains("ACPI tables")));
}

#[test]
fn firmware_without_a_whole_madt_is_refused() {
    // The revision's byte, with which the checksum is wrong.
    let run = Changes::new().put(MADT + 8, &[9]).run();
    refused(&run, &["MADT", "checksum", "update the firmware"]);
}

#[test]
fn firmware_without_a_fadt_is_refused() {
    let run = Changes::new().table(RSDT, b"RSDT", &entries_32(&[0, MADT, 0, 0])).run();
    refused(&run, &["FADT", "none of the root table's 4 entries", "update the firmware"]);
}
