//! A machine that differs from the table is refused by name, and no partition starts.

use bulkhead::manifest::Manifest;
use bulkhead::run::Exit;
use bulkhead::{Firmware, Run, RunOptions, Target};
use hil_tests::{bench, picture, systems};

use crate::shared::DEMO;

/// Fewest lit pixels of a screen with some lines of text, in thousandths. Seen: 15 by BIOS, 7 by UEFI (a larger screen).
const LIT: usize = 5;

#[test]
fn refusal_without_vtx_by_bios() {
    refused_without_vtx(Firmware::Bios);
}

#[test]
fn refusal_without_vtx_by_uefi() {
    refused_without_vtx(Firmware::Uefi);
}

fn refused_without_vtx(firmware: Firmware) {
    let picture = bench::folder("refusal").join(format!("{}.png", firmware.name()));
    let run = bench::run_with(RunOptions {
        image: DEMO.image.clone(),
        target: Target::Qemu,
        firmware,
        screenshot: Some(picture.clone()),
        ..RunOptions::default()
    });
    let sentences: Vec<&str> = run.text().filter(|line| line.contains("VT-x")).collect();
    println!("{firmware:?}: {sentences:?}");
    assert_eq!(sentences.len(), 1, "one sentence names what is missing");
    assert!(sentences[0].starts_with("Bulkhead needs VT-x"));
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
    let manifest = Manifest { memory_end: 256 << 20, ..DEMO.manifest.clone() };
    manifest.save(&image).unwrap();
    let run = bench::run(&image);
    refused(&run, &["memory", "[[memory]]"]);
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
