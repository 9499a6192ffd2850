//! A board file without `[serial]` boots all the same: its log is read from memory, and the end from the screen.

use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead::elf::LogElf;
use bulkhead::emulator::{self, Firmware, Machine, Setup, bochs};
use bulkhead::listen::{Audience, Listener};
use bulkhead::manifest::Manifest;
use bulkhead::report::RanOn;
use bulkhead::run::Exit;
use bulkhead::{BuiltImage, Run, memory_log, paths};
use hil_tests::{bench, checks, systems};

/// Where the board's hypervisor keeps its log: the last 512 KiB of its range.
const LOG: u64 = 0x200_0000 - bulkhead_table::LOG_MEMORY;

/// VGA text, 80 columns and 25 rows of two bytes.
const VGA: (u64, usize) = (0xB_8000, 80 * 25 * 2);

/// Writes to the word that tells the end that are waited for: those of firmware and of the beginning, and the last one.
const STOPS: usize = 40;

/// How often the copies of memory are looked at.
const LOOK: Duration = Duration::from_millis(200);

fn system() -> BuiltImage {
    let serial = "[serial]\n# COM1 carries the log, and the consoles of all partitions.\nport = 0x3f8\nbaud = 115200\n\n";
    let board = systems::changed_board("no-serial", &[(serial, "")]);
    let board = format!("board = \"{}\"", board.display());
    let changes = [
        ("board = \"@/boards/bochs-skylake-x.toml\"", board.as_str()),
        ("samples=20000", "samples=2000"),
    ];
    bench::build(&systems::changed("demo", "no-serial", &changes), "no-serial")
}

/// Runs the image until its log says that it ended, and returns copies of the log's memory and of the screen. The emulator's debugger
/// makes them at each write to the word that tells the end.
fn run(built: &BuiltImage) -> (Vec<u8>, Vec<u8>) {
    let folder = bench::folder("no-serial").join("bochs");
    paths::remove_stale(&folder).unwrap();
    paths::create(&folder).unwrap();
    let (log, screen) = (folder.join("log.bin"), folder.join("screen.bin"));
    let copy = |path: &Path, start: u64, size: usize| {
        format!("writemem \"{}\" {start:#x} {size:#x}", path.display())
    };
    let mut commands = vec![format!("watch w {:#x} 1", LOG + hv_core::memory_log::ENDED as u64)];
    for _ in 0..STOPS {
        commands.push("c".into());
        commands.push(copy(&screen, VGA.0, VGA.1));
        commands.push(copy(&log, LOG, bulkhead_table::LOG_MEMORY as usize));
    }
    let setup = Setup {
        image: &built.image,
        folder: &folder,
        machine: &Machine::default(),
        cores: built.manifest.cores,
        megabytes: emulator::megabytes(built.manifest.memory_end, Firmware::Bios),
        two_way: false,
        serial_ticks: false,
        debugger: &commands,
        qemu: &[],
    };
    let _permit = bench::permit();
    let began = Instant::now();
    let mut emulator = bochs::start(&setup).unwrap();
    loop {
        let bytes = std::fs::read(&log).unwrap_or_default();
        if memory_log::find(&bytes).last().is_some_and(|kept| kept.header.ended) {
            return (bytes, std::fs::read(&screen).unwrap());
        }
        let over = emulator.ended().unwrap().is_some() || began.elapsed() > bench::LIMIT;
        assert!(!over, "no end in the log; look at {}", emulator.log().display());
        std::thread::sleep(LOOK);
    }
}

/// The log as `bulkhead log` reads it.
fn heard(built: &BuiltImage, memory: &[u8]) -> Run {
    let elf = LogElf::load(&Manifest::elf_path(&built.image)).unwrap();
    let audience = Audience { quiet: true, watch: None };
    let mut listener = Listener::new(&built.manifest, Some(&elf), "reading".into(), &audience);
    let kept = memory_log::find(memory);
    listener.hear(&kept.last().unwrap().bytes).unwrap();
    let machine = RanOn {
        emulator: "memory".into(),
        processor: bochs::MODEL.into(),
        firmware: "bios".into(),
        exact: true,
    };
    listener.finish(Exit::PoweredOff, &machine)
}

#[test]
fn no_serial_port_and_all_is_told_by_screen_and_memory() {
    let built = system();
    let (memory, screen) = run(&built);
    let rows: Vec<String> = screen
        .chunks(160)
        .map(|row| row.iter().step_by(2).map(|byte| char::from(*byte)).collect::<String>())
        .collect();
    let shown: Vec<&str> = rows.iter().map(|row| row.trim_end_matches(['\0', ' '])).collect();
    println!("{}", shown.join("\n"));
    for words in ["partition motion (", "partition plc ("] {
        let line = shown.iter().find(|line| line.contains(words)).unwrap();
        assert!(line.contains("passed"), "{line}");
    }
    let run = heard(&built, &memory);
    checks::print(&run.report);
    assert!(run.text().any(|line| line.starts_with("Bulkhead 0")), "the first line is kept");
    for partition in ["motion", "plc"] {
        checks::want_none(&checks::check_passed(&run.report, partition));
    }
    let motion = run.report.partition("motion").unwrap();
    let windows = run.report.partition("plc").unwrap().windows.unwrap();
    assert!(run.report.complete && motion.span_exits == Some(0));
    assert_eq!((windows.late, run.report.log.garbled), (0, 0));
}
