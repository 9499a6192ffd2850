//! Whatever `bulkhead probe` writes, the compiler accepts; or the probe says why not, by the compiler's own codes.
//!
//! The facts of whole machines are changed line by line and byte by byte. `PROPTEST_CASES=100000` digs deeper.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_board::{Board, Facts};
use bulkhead_config::check_without_images;
use common::Elf;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tempfile::TempDir;

/// Cases where nobody asks for more.
const CASES: u32 = 4_000;

/// The smallest system: one partition and housekeeping on the boot core. Its windows are longer than any switch budget.
const SYSTEM: &str = "
[system]
name = \"smallest\"
board = \"board.toml\"
[schedule]
frame = \"50000000 ticks\"
[housekeeping]
core = 0
[[housekeeping.window]]
start = \"10000000 ticks\"
length = \"10000000 ticks\"
[partition.a]
image = \"good.elf\"
memory = \"2 MiB\"
cores = [0]
[[partition.a.window]]
start = \"30000000 ticks\"
length = \"10000000 ticks\"
";

/// What the compiler looks at once the board is sound: it may tell these, or something else first.
const LATER: [&str; 2] = ["BH0205", "BH0503"];

/// A folder with the smallest system, on whichever board is written there.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("good.elf"), Elf::good().build()).unwrap();
        fs::write(folder.path().join("system.toml"), SYSTEM).unwrap();
        Self { folder }
    }

    /// The codes under which the compiler refuses the board, and its words.
    fn refused(&self, board: &str) -> (BTreeSet<&'static str>, String) {
        fs::write(self.folder.path().join("board.toml"), board).unwrap();
        match check_without_images(&self.folder.path().join("system.toml")) {
            Ok(_) => (BTreeSet::new(), String::new()),
            Err(told) => {
                let errors = told.list().into_iter().filter(|each| each.severity == "error");
                (errors.map(|each| each.code).collect(), told.render(false))
            }
        }
    }

    /// What the probe says of these facts and the compiler does not, or the other way round.
    fn difference(&self, facts: &Facts) -> Option<String> {
        let board = Board::conclude("probed", facts);
        let announced: BTreeSet<_> = board.refusals().iter().map(|refusal| refusal.code).collect();
        let (refused, words) = self.refused(&board.to_toml("in a test"));
        let at_once = |codes: &BTreeSet<&'static str>| {
            codes.iter().copied().filter(|code| !LATER.contains(code)).collect::<Vec<_>>()
        };
        let same = at_once(&announced) == at_once(&refused)
            && refused.is_subset(&announced)
            && refused.is_empty() == announced.is_empty();
        (!same).then(|| format!("the probe announces {announced:?}; the compiler:\n{words}"))
    }
}

/// The facts of every machine in the tree.
fn machines() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = ["tests/facts", "../hil-tests/facts"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "facts"))
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Numbers at which something ends.
const EDGES: [u64; 28] = [
    0,
    1,
    2,
    7,
    8,
    0xF,
    0x10,
    0x20,
    0xFF,
    0x100,
    0x3F8,
    0xFFF,
    0x1000,
    0xFFFF,
    0x1_0000,
    0xF_FFFF,
    0x10_0000,
    0x20_0000,
    0x80_0000,
    0x200_0000,
    0x3FFF_FFFF,
    0x8000_0000,
    0xFEC0_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0xFFFF_FFFF_FFFF,
    0x1_0000_0000_0000,
    u64::MAX,
];

/// A change of the facts. Numbers choose what there is, whatever there is.
#[derive(Clone, Debug)]
enum Change {
    /// A number of a line becomes an edge.
    Edge(usize, usize, usize),
    /// A number of a line becomes one of another line.
    Copied(usize, usize, usize, usize),
    /// A line is there twice, the second time elsewhere.
    Twice(usize, usize),
    /// A line is gone.
    Gone(usize),
    /// Two lines change places.
    Swapped(usize, usize),
    /// A byte of a table, or of configuration space. The checksum is put right, mostly.
    Byte(usize, usize, u8, bool),
    /// A piece of a table is there twice, as an entry that firmware repeats.
    Piece(usize, usize, usize),
    /// A line of another machine.
    Foreign(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    prop_oneof![
        4 => (at(), at(), at()).prop_map(|(line, word, edge)| Change::Edge(line, word, edge)),
        2 => (at(), at(), at(), at()).prop_map(|(a, b, c, d)| Change::Copied(a, b, c, d)),
        2 => (at(), at()).prop_map(|(line, to)| Change::Twice(line, to)),
        1 => at().prop_map(Change::Gone),
        1 => (at(), at()).prop_map(|(one, other)| Change::Swapped(one, other)),
        6 => (at(), at(), byte(), prop::bool::weighted(0.9))
            .prop_map(|(line, place, byte, sound)| Change::Byte(line, place, byte, sound)),
        2 => (at(), at(), 1_usize..40).prop_map(|(line, place, size)| Change::Piece(line, place, size)),
        1 => (at(), at()).prop_map(|(machine, line)| Change::Foreign(machine, line)),
    ]
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(vec![0, 1, 2, 3, 4, 8, 0x10, 0x1F, 0x80, 0xFF]), any::<u8>()]
}

/// The line of the facts that a number means. The leaves of the cores are most lines: two in three times it is another one.
fn pick(lines: &[String], number: usize) -> usize {
    let others: Vec<usize> =
        (0..lines.len()).filter(|at| !lines[*at].starts_with("leaf")).collect();
    match others.get(number / 3 % others.len().max(1)) {
        Some(other) if !number.is_multiple_of(3) => *other,
        _ => number / 3 % lines.len(),
    }
}

/// The bytes at the end of a line, where it has some.
fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let kind = line.split(' ').next()?;
    let digits = ["table", "pci"].contains(&kind).then(|| line.rsplit(' ').next()).flatten()?;
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn with_bytes(line: &str, bytes: &[u8]) -> String {
    let (front, _) = line.rsplit_once(' ').unwrap();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{front} {digits}")
}

/// Puts length and checksum of a table right.
fn make_sound(line: &mut String) {
    let Some(mut bytes) = line.starts_with("table").then(|| bytes_of(line)).flatten() else {
        return;
    };
    if bytes.len() >= 36 {
        let length = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[9] = 0;
        bytes[9] = 0_u8.wrapping_sub(bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte)));
        *line = with_bytes(line, &bytes);
    }
}

fn apply(lines: &mut Vec<String>, change: &Change, machines: &[(PathBuf, String)]) {
    if lines.is_empty() {
        return;
    }
    match *change {
        Change::Edge(line, word, edge) => {
            let line = pick(lines, line);
            replace_word(&mut lines[line], word, &format!("{:x}", EDGES[edge % EDGES.len()]));
        }
        Change::Copied(line, word, from, which) => {
            let (line, from) = (pick(lines, line), pick(lines, from));
            let words: Vec<&str> = lines[from].split(' ').skip(1).collect();
            if let Some(number) = words.get(which % words.len().max(1)) {
                let number = (*number).to_string();
                replace_word(&mut lines[line], word, &number);
            }
        }
        Change::Twice(line, to) => {
            let again = lines[pick(lines, line)].clone();
            lines.insert(to % (lines.len() + 1), again);
        }
        Change::Gone(line) => {
            lines.remove(pick(lines, line));
        }
        Change::Swapped(one, other) => {
            let (one, other) = (pick(lines, one), pick(lines, other));
            lines.swap(one, other);
        }
        Change::Byte(line, place, byte, sound) => {
            let tables: Vec<usize> =
                (0..lines.len()).filter(|at| bytes_of(&lines[*at]).is_some()).collect();
            let Some(line) = tables.get(line % tables.len().max(1)) else { return };
            let mut bytes = bytes_of(&lines[*line]).unwrap();
            // Of configuration space the header says most.
            let most = if lines[*line].starts_with("pci") { 64 } else { bytes.len() };
            if let Some(old) = bytes.get_mut(place % most.max(1)) {
                *old = byte;
                lines[*line] = with_bytes(&lines[*line], &bytes);
            }
            if sound {
                make_sound(&mut lines[*line]);
            }
        }
        Change::Piece(line, place, size) => {
            let tables: Vec<usize> =
                (0..lines.len()).filter(|at| lines[*at].starts_with("table")).collect();
            let Some(line) = tables.get(line % tables.len().max(1)) else { return };
            let mut bytes = bytes_of(&lines[*line]).unwrap_or_default();
            let start = place % bytes.len().max(1);
            let piece: Vec<u8> = bytes.iter().skip(start).take(size).copied().collect();
            let end = bytes.len().min(start + size);
            bytes.splice(end..end, piece);
            lines[*line] = with_bytes(&lines[*line], &bytes);
            make_sound(&mut lines[*line]);
        }
        Change::Foreign(machine, line) => {
            let (_, text) = &machines[machine % machines.len()];
            let foreign: Vec<String> = text.lines().map(str::to_string).collect();
            lines.push(foreign[pick(&foreign, line)].clone());
        }
    }
}

fn replace_word(line: &mut String, word: usize, new: &str) {
    let mut words: Vec<String> = line.split(' ').map(str::to_string).collect();
    let count = words.len() - 1;
    if count > 0 {
        words[1 + word % count] = new.to_string();
        *line = words.join(" ");
    }
}

#[test]
fn the_machines_in_the_tree_are_accepted_or_the_probe_says_why_not() {
    let bench = Bench::new();
    for (path, text) in machines() {
        let facts = Facts::parse(&text).unwrap();
        assert_eq!(bench.difference(&facts), None, "{}", path.display());
    }
}

/// An ACPI table with this body, its length and checksum right.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.resize(36, 0);
    table.extend(body);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = 0_u8.wrapping_sub(sum);
    table
}

/// The first machine in the tree, changed.
fn changed(change: impl FnOnce(&mut Facts)) -> Facts {
    let (_, text) =
        machines().into_iter().find(|(path, _)| path.ends_with("hybrid-cores.facts")).unwrap();
    let mut facts = Facts::parse(&text).unwrap();
    change(&mut facts);
    facts
}

/// With these entries behind those of its MADT.
fn with_madt(entries: &[&[u8]]) -> Facts {
    changed(|facts| {
        let madt = facts.tables.iter_mut().find(|table| table.starts_with(b"APIC")).unwrap();
        let body = [&madt[36..], &entries.concat()].concat();
        *madt = table(b"APIC", &body);
    })
}

/// With these structures in its DMAR.
fn with_dmar(structures: &[&[u8]]) -> Facts {
    changed(|facts| {
        facts.tables.retain(|table| !table.starts_with(b"DMAR"));
        facts.tables.push(table(b"DMAR", &[&[0; 12], structures.concat().as_slice()].concat()));
    })
}

fn drhd(registers: u64) -> Vec<u8> {
    [&[0, 0, 16, 0, 1, 0, 0, 0], registers.to_le_bytes().as_slice()].concat()
}

fn io_apic(id: u8, address: u32, first: u32) -> Vec<u8> {
    let parts = [[1, 12, id, 0], address.to_le_bytes(), first.to_le_bytes()];
    parts.concat()
}

/// A PCI function of this class, whose first base address register decodes `size` bytes or ports; its low half is `bar`.
fn function(device: u8, class: u32, bar: u32, size: u64) -> bulkhead_board::facts::PciFunction {
    let mut config = vec![0; 256];
    config[..4].copy_from_slice(&[0x86, 0x80, 1, 2]);
    config[4] = 3;
    config[8..12].copy_from_slice(&(class << 8).to_le_bytes());
    config[0x10..0x14].copy_from_slice(&bar.to_le_bytes());
    let address = (0, 0, device, 0);
    bulkhead_board::facts::PciFunction { address, config, bar_sizes: [size, 0, 0, 0, 0, 0] }
}

/// Each flaw of firmware: facts with it, what the notes say of it, and the codes under which the board is refused all the same.
fn flaws() -> Vec<(&'static str, Facts, &'static str)> {
    let last_io_apic = io_apic(9, 0xFEC1_0000, 128);
    let eights: Vec<Vec<u8>> = (0..4)
        .map(|n| io_apic(10 + n, 0xFEC2_0000 + 0x1000 * u32::from(n), 200 + 8 * u32::from(n)))
        .collect();
    let eights: Vec<&[u8]> = eights.iter().map(Vec::as_slice).collect();
    let over =
        |irq: u8, interrupt: u8, flags: u8| vec![2, 10, 0, irq, interrupt, 0, 0, 0, flags, 0];
    let mut damaged = table(b"HPET", &[0; 20]);
    damaged[40] ^= 1;
    vec![
        ("I/O APICs of 8 pins", with_madt(&eights), ""),
        (
            "I/O APICs at one interrupt",
            with_madt(&[&last_io_apic, &io_apic(3, 0xFEC3_0000, 128)]),
            "another I/O APIC begins with the same interrupt",
        ),
        ("an I/O APIC at 0", with_madt(&[&io_apic(3, 0, 128)]), "firmware gives it the address 0"),
        ("an I/O APIC in RAM", with_madt(&[&io_apic(3, 0x20_0000, 128)]), "on top of RAM"),
        ("more pins than room", with_madt(&[&io_apic(3, 0xFEC3_0000, 100)]), "has 120 pins"),
        (
            "ids of nobody",
            with_madt(&[
                &[0, 8, 1, 255, 1, 0, 0, 0],
                &[9, 16, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0],
            ]),
            "which stand for none",
        ),
        (
            "a bogus core",
            with_madt(&[&[0, 8, 1, 200, 1, 0, 0, 0]]),
            "the core with APIC id 200 is left out",
        ),
        ("an override twice", with_madt(&[&over(9, 9, 13), &over(9, 9, 13)]), "gives it twice"),
        ("two overrides", with_madt(&[&over(9, 9, 13), &over(9, 10, 13)]), "another one before it"),
        ("an override to no pin", with_madt(&[&over(9, 250, 13)]), "no I/O APIC has this pin"),
        (
            "an override of no ISA interrupt",
            with_madt(&[&over(99, 9, 13)]),
            "no such ISA interrupt",
        ),
        ("a MADT that does not add up", with_madt(&[&[1, 99]]), "do not add up to its length"),
        (
            "two IOMMUs at 0",
            with_dmar(&[&drhd(0), &drhd(0)]),
            "the IOMMU at 0x0, the IOMMU at 0x0 are left out",
        ),
        (
            "two IOMMUs at one place",
            with_dmar(&[&drhd(0xFED9_0000), &drhd(0xFED9_0000)]),
            "on top of another device",
        ),
        (
            "two IOMMUs for the rest",
            with_dmar(&[&drhd(0xFED9_0000), &drhd(0xFED9_1000)]),
            "the rest of segment 0",
        ),
        (
            "a reserved byte at 0",
            with_dmar(&[&[&[1, 0, 24, 0, 0, 0, 0, 0], [0_u8; 16].as_slice()].concat()]),
            "smaller than a page",
        ),
        ("a damaged table", changed(|facts| facts.tables.push(damaged)), "its checksum is wrong"),
        (
            "two MADTs",
            changed(|facts| facts.tables.push(table(b"APIC", &[0; 8]))),
            "has 2 ACPI tables APIC",
        ),
        (
            "a serial port and its own register",
            changed(|facts| {
                facts.uarts = vec![0x30A0];
                facts.pci = vec![function(0, 0x06_0000, 0, 0), function(22, 0x07_0002, 0x30A1, 8)];
            }),
            "",
        ),
        (
            "a disk on the serial port",
            changed(|facts| {
                facts.pci = vec![function(0, 0x06_0000, 0, 0), function(22, 0x01_0180, 0x3F9, 8)];
            }),
            "base address register 0 of the PCI function 0000:00:16.0 is left out",
        ),
        (
            "a function without function 0",
            changed(|facts| {
                let mut only = function(3, 0x02_0000, 0, 0);
                only.address.3 = 1;
                facts.pci = vec![only];
            }),
            "has no function 0",
        ),
        (
            "a function that cannot be read",
            changed(|facts| {
                facts.pci.push(bulkhead_board::facts::PciFunction {
                    address: (0, 0, 9, 0),
                    ..Default::default()
                });
            }),
            "could not be read",
        ),
        (
            "no serial port",
            changed(|facts| facts.uarts.clear()),
            "switch it on in the firmware's set-up",
        ),
        ("RAM that devices reach", changed(|_| {}), "is left out of the RAM"),
        (
            "a serial port on the chipset",
            changed(|facts| facts.uarts.insert(0, 0x60)),
            "the serial port at 0x60 is left out",
        ),
    ]
}

/// What firmware says wrongly is a note, never a silent fact, and never a board that is refused.
#[test]
fn flaws_of_firmware_are_told_and_harm_nothing() {
    let bench = Bench::new();
    for (name, facts, note) in flaws() {
        let board = Board::conclude("probed", &facts);
        assert_eq!(bench.difference(&facts), None, "{name}");
        assert_eq!(board.refusals(), [], "{name}");
        let told = bulkhead_board::told(&board.to_toml("in a test")).join("\n");
        assert!(told.contains(note), "{name}: {told}");
    }
}

/// An SPCR with a 16550 at this place: space, bits of a register, access size, address.
fn spcr(space: u8, bits: u8, access: u8, address: u64) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend([space, bits, 0, access]);
    body.extend(address.to_le_bytes());
    body.resize(44, 0);
    table(b"SPCR", &body)
}

#[test]
fn a_serial_port_in_memory_is_taken_where_none_is_at_an_io_port() {
    let bench = Bench::new();
    let bridge = || function(0, 0x06_0000, 0, 0);
    let intels = || function(24, 0x07_0002, 0xD152_6000, 0x1000);
    let mut card = intels();
    card.config[0] = 0x87;
    let lines = |address: &str, stride, width| {
        format!(
            "[serial]\naddress = \"{address}\"\nstride = {stride}\nwidth = {width}\nbaud = 115200\n"
        )
    };
    for (name, tables, pci, wanted) in [
        (
            "firmware's console",
            vec![spcr(0, 32, 3, 0xFE03_2000)],
            Vec::new(),
            lines("0xfe032000", 4, 32),
        ),
        (
            "a PCI function of Intel's",
            Vec::new(),
            vec![bridge(), intels()],
            lines("0xd1526000", 4, 32),
        ),
        (
            "a console above 4 GiB, and a card",
            vec![spcr(0, 8, 1, 1 << 33)],
            vec![bridge(), card],
            lines("0xd1526000", 1, 8),
        ),
        ("a console at an I/O port", vec![spcr(1, 8, 1, 0x3F8)], Vec::new(), String::new()),
    ] {
        let facts = changed(|facts| {
            facts.uarts.clear();
            facts.tables.extend(tables);
            facts.pci = pci;
        });
        assert_eq!(bench.difference(&facts), None, "{name}");
        let text = Board::conclude("probed", &facts).to_toml("in a test");
        let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let plain = plain.join("\n");
        assert!(plain.contains(&wanted), "{name}: {plain}");
        assert_eq!(plain.contains("[serial]"), !wanted.is_empty(), "{name}");
    }
    // A port at which nothing but bytes is written goes before.
    let facts = changed(|facts| facts.tables.push(spcr(0, 32, 3, 0xFE03_2000)));
    assert_eq!(Board::conclude("probed", &facts).memory_uart, None);
}

/// What the hypervisor demands at boot and the machine lacks is told by the probe, with the remedy, and refused by the compiler.
#[test]
fn what_boot_demands_is_told_before() {
    let bench = Bench::new();
    for (name, facts, code, word) in [
        (
            "VT-x locked off",
            changed(|facts| facts.feature_control = vec![5, 1]),
            "BH0236",
            "Intel Virtualization Technology",
        ),
        ("no clock", changed(|facts| facts.tsc_hz = None), "BH0104", "time-stamp counter"),
        (
            "a core without x2APIC",
            changed(|facts| {
                let leaf = facts.cores[7].leaves.iter_mut().find(|leaf| leaf.leaf == 1).unwrap();
                leaf.registers[2] &= !(1 << 21);
            }),
            "BH0236",
            "1 cores lack `x2apic`",
        ),
        (
            "no PM timer",
            changed(|facts| facts.tables.push(table(b"FACP", &[0; 208]))),
            "BH0238",
            "PM timer",
        ),
        (
            "another maker",
            changed(|facts| {
                for core in &mut facts.cores {
                    core.leaves[0].registers[1] ^= 1;
                }
            }),
            "BH0236",
            "vendor is not GenuineIntel",
        ),
        (
            "no RAM at 1 MiB",
            changed(|facts| facts.memory.retain(|range| range.start > 1 << 20)),
            "BH0204",
            "linked at 1 MiB",
        ),
    ] {
        let text = Board::conclude("probed", &facts).to_toml("in a test");
        let told = bulkhead_board::told(&text).join("\n");
        assert!(
            told.contains(&format!("Refused ({code})")) && told.contains(word),
            "{name}: {told}"
        );
        let (refused, words) = bench.refused(&text);
        assert!(refused.contains(code), "{name}: {words}");
    }
}

#[test]
fn what_the_probe_writes_the_compiler_accepts_or_the_probe_says_why_not() {
    let machines = machines();
    let bench = Bench::new();
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(CASES),
        failure_persistence: None,
        max_global_rejects: u32::MAX,
        ..Config::default()
    };
    // The same cases on every run.
    let dice = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let case = (0..machines.len(), prop::collection::vec(change(), 1..6));
    let outcome = TestRunner::new_with_rng(config, dice).run(&case, |(machine, changes)| {
        let mut lines: Vec<String> = machines[machine].1.lines().map(str::to_string).collect();
        changes.iter().for_each(|change| apply(&mut lines, change, &machines));
        let Ok(facts) = Facts::parse(&lines.join("\n")) else {
            return Err(TestCaseError::reject("no facts any more"));
        };
        match bench.difference(&facts) {
            None => Ok(()),
            Some(difference) => Err(TestCaseError::fail(difference)),
        }
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
