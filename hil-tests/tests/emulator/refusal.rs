//! A machine that differs from the table is refused by name, and no partition starts.

use bulkhead::manifest::Manifest;
use bulkhead::run::Exit;
use bulkhead::{Firmware, Machine, Run, RunOptions, Target};
use hil_tests::{bench, picture, systems};

use crate::shared::DEMO;

/// Fewest lit pixels of a screen with some lines of text, in thousandths. Seen: 15 by BIOS, 7 by UEFI (a larger screen).
const LIT: usize = 5;

/// On the machine that counts instructions.
#[test]
fn refusal_without_virtualization_by_bios() {
    refused_without_virtualization(Target::Qemu, Firmware::Bios);
}

/// By the clock of the host: with counted instructions this firmware takes minutes.
#[test]
fn refusal_without_virtualization_by_uefi() {
    refused_without_virtualization(Target::QemuFast, Firmware::Uefi);
}

fn refused_without_virtualization(target: Target, firmware: Firmware) {
    let picture = bench::folder("refusal").join(format!("{}.png", firmware.name()));
    let run = bench::run_with(RunOptions {
        image: DEMO.image.clone(),
        machine: Machine::chosen(Some(target), firmware, Some("EPYC,+x2apic,-svm".into())),
        screenshot: Some(picture.clone()),
        ..RunOptions::default()
    });
    let sentences: Vec<&str> = run.text().filter(|line| line.contains("VT-x")).collect();
    println!("{}: {sentences:?}", run.report.machine());
    assert_eq!(sentences.len(), 1, "one sentence names what is missing");
    assert!(sentences[0].starts_with("Bulkhead needs VT-x (CPUID.1:ECX.VMX) or AMD-V"));
    nothing_started(&run);
    let lit = picture::lit_thousandths(&picture);
    println!("{}: {lit} thousandths of the pixels are lit", picture.display());
    assert!(lit >= LIT, "the screen is blank");
}

#[test]
fn refusal_of_a_missing_core() {
    let run = bench::run_with(RunOptions {
        image: DEMO.image.clone(),
        cores: Some(1),
        ..RunOptions::default()
    });
    refused(&run, &["core 1"]);
}

#[test]
fn refusal_of_missing_memory() {
    let image = bench::copy(&DEMO, "refusal-memory");
    // The emulated machine gets 48 MiB, and the last partition lies behind them.
    let manifest = Manifest { memory_end: 47 << 20, ..DEMO.manifest.clone() };
    manifest.save(&image).unwrap();
    let run = bench::run(&image);
    let nothing = "from 0x3000000 on the boot loader's memory map has nothing";
    refused(&run, &["partition noise's memory", nothing, "[[memory]]"]);
}

#[test]
fn refusal_of_another_clock() {
    let board =
        systems::changed_board("refusal-clock", &[("tsc = \"50 MHz\"", "tsc = \"60 MHz\"")]);
    let board = format!("board = \"{}\"", board.display());
    let system = systems::changed(
        "demo",
        "refusal-clock",
        &[("board = \"@/boards/bochs-skylake-x.toml\"", &board)],
    );
    let run = bench::run(&bench::build(&system, "refusal-clock").image);
    refused(&run, &["declares 60000000 Hz", "[clock] tsc"]);
}

/// The emulated processor has no turbo to switch off, no frequency to hold and no C1E: a board file that asks for them is not this board's.
/// Bochs 2.7 answers zero for an MSR that its processor does not have; 3.0 faults, as a board does.
#[test]
fn refusal_of_power_states_that_are_not_there() {
    let owned = [
        ("turbo = \"firmware\"", "turbo = \"off\""),
        ("frequency = \"firmware\"", "frequency = \"base\""),
        ("idle = \"firmware\"", "idle = \"c1\""),
    ];
    let board = systems::changed_board("refusal-power", &owned);
    let board = format!("board = \"{}\"", board.display());
    let changes = [("board = \"@/boards/bochs-skylake-x.toml\"", board.as_str())];
    let system = systems::changed("demo", "refusal-power", &changes);
    let image = bench::build(&system, "refusal-power").image;
    for target in [Target::Bochs, Target::Bochs3] {
        let machine = Machine::chosen(Some(target), Firmware::Bios, None);
        let run = bench::run_on(machine, &image);
        refused(&run, &["APIC id 0", "`turbo = \"off\"`", "[power]"]);
        refused(&run, &["APIC id 0", "`frequency = \"base\"`", "[power]"]);
        refused(&run, &["APIC id 0", "`idle = \"c1\"`", "[power]"]);
    }
}

/// The emulated processor may have the iTLB multihit erratum: it has no register to deny it, and its model is none of those without. A board
/// file that denies it would have code mapped by large pages.
#[test]
fn refusal_of_an_erratum_denied_wrongly() {
    let denied = [("\"pages-of-1-gib\"]", "\"pages-of-1-gib\", \"no-itlb-multihit\"]")];
    let board = systems::changed_board("refusal-erratum", &denied);
    let board = format!("board = \"{}\"", board.display());
    let changes = [("board = \"@/boards/bochs-skylake-x.toml\"", board.as_str())];
    let system = systems::changed("demo", "refusal-erratum", &changes);
    let run = bench::run(&bench::build(&system, "refusal-erratum").image);
    refused(&run, &["APIC id 0", "`no-itlb-multihit`", "[abilities]"]);
}

/// A sentence refuses the board and contains all of `words`.
pub fn refused(run: &Run, words: &[&str]) {
    let sentences: Vec<&str> =
        run.text().filter(|line| line.starts_with("Bulkhead refuses this board:")).collect();
    println!("{sentences:?}");
    let named = sentences.iter().any(|sentence| words.iter().all(|word| sentence.contains(word)));
    assert!(named, "no sentence says {words:?}: {sentences:?}");
    nothing_started(run);
}

fn nothing_started(run: &Run) {
    assert_eq!(run.exit, Exit::Halted);
    let last = run.text().last().unwrap_or_default();
    assert!(last.starts_with("Bulkhead halts"), "said last: {last}");
    assert!(run.report.partitions.iter().all(|partition| partition.first_entry.is_none()));
    assert!(run.report.partitions.iter().all(|partition| partition.fate == "unknown"));
}
