//! `bulkhead probe`: the probe image says the boards that ship, by BIOS and by UEFI, and says of one machine what
//! Linux says of it.

use std::time::Duration;

use bulkhead::probe::{self, Machine};
use bulkhead::{Firmware, Target, paths};
use hil_tests::boards::{Ram, differences, facts, read_board};
use hil_tests::{bench, linux, picture};

use crate::shared::PROBE;

/// Fewest lit pixels of a screen with the summary on it, in thousandths.
const LIT: usize = 5;

/// Runs the probe image.
fn probed(name: &str, machine: &Machine, screenshot: bool) -> String {
    let folder = bench::folder(name);
    let shown = folder.join("screen.png");
    let screenshot = screenshot.then_some(shown.as_path());
    let _permit = bench::permit();
    bench::sure(name, probe::run(&PROBE, machine, &folder.join("run"), screenshot)).board
}

/// In all that both say: the file that ships was written by hand, and leaves out that each of the four cores is a package
/// of its own.
#[test]
fn probe_of_bochs_says_the_board_that_ships() {
    let mut found = facts(&probed("probe-bochs", &Machine::bochs(), false));
    let shipped = facts(&read_board("bochs-skylake-x"));
    assert!(found.remove("cache").is_some());
    for core in found.get_mut("core").and_then(|cores| cores.as_array_mut()).into_iter().flatten() {
        core.as_table_mut().expect("a core is a table").retain(|key, _| key == "apic-id");
    }
    assert_eq!(differences(&shipped, &found, Ram::Within), [] as [&str; 0]);
}

#[test]
fn probe_of_q35_says_the_board_that_ships() {
    let found = facts(&probed("probe-q35", &Machine::qemu(), true));
    let shipped = facts(&read_board("qemu-q35"));
    assert_eq!(differences(&shipped, &found, Ram::Same), [] as [&str; 0]);
    let lit = picture::lit_thousandths(&bench::folder("probe-q35").join("screen.png"));
    assert!(lit >= LIT, "the screen is blank");
}

#[test]
fn probe_of_epyc_says_the_board_that_ships() {
    let found = facts(&probed("probe-epyc", &Machine::epyc(), false));
    let shipped = facts(&read_board("qemu-epyc"));
    assert_eq!(differences(&shipped, &found, Ram::Same), [] as [&str; 0]);
}

/// The other machine with AMD-V: every core comes up, and says what it can do.
#[test]
fn probe_of_ryzen_finds_amd_v_on_all_cores() {
    let model = Some("ryzen,+x2apic".to_string());
    let emulated = bulkhead::Machine::chosen(Some(Target::Bochs3), Firmware::Bios, model);
    let found = facts(&probed("probe-ryzen", &Machine { emulated, ..Machine::bochs() }, false));
    assert_eq!(found["core"].as_array().map(Vec::len), Some(4));
    let abilities = found["abilities"]["processor"].as_array().unwrap();
    for ability in ["amd-v", "x2apic", "nested-paging", "next-rip", "no-itlb-multihit"] {
        assert!(abilities.contains(&ability.into()), "no {ability} in {abilities:?}");
    }
    assert!(!abilities.contains(&"tsc-deadline".into()));
}

/// Firmware of another kind lays out memory and devices in its own way; the hardware is the same. By the clock of the host: with
/// counted instructions this firmware takes minutes.
#[test]
fn probe_by_uefi_finds_the_same_hardware() {
    let mut machine = Machine::of(Target::QemuFast);
    machine.emulated.firmware = Firmware::Uefi;
    let mut found = facts(&probed("probe-uefi", &machine, true));
    let mut shipped = facts(&read_board("qemu-q35"));
    for board in [&mut found, &mut shipped] {
        board.retain(|key, _| {
            !["clock", "memory", "reserved", "pci", "iommu"].contains(&key.as_str())
        });
    }
    assert_eq!(differences(&shipped, &found, Ram::Same), [] as [&str; 0]);
    let lit = picture::lit_thousandths(&bench::folder("probe-uefi").join("screen.png"));
    assert!(lit >= LIT, "the screen is blank");
}

const SCRIPT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
# The kernel refines what it knows of the TSC a second after it starts.
/bin/busybox sleep 2
echo '@bulkhead linux begin'
/bin/bulkhead probe
echo '@bulkhead linux end'
/bin/busybox sleep 1000
";

/// One machine, looked at in both ways. Linux takes most of a minute in an emulator, and its kernel is fetched.
///
/// The clock is left out: with `-icount`, which makes the clock of the shipped board file repeat, Linux waits for ever
/// for its second core, and without it the counter is the host's.
#[test]
#[ignore = "Linux boots slowly in an emulator; `cargo verify --long` runs it"]
fn long_probe_by_linux_and_on_the_bare_machine_agree() {
    let mut by_linux = facts(&by_linux("probe-linux"));
    let mut bare = facts(&probed("probe-beside-linux", &Machine::of(Target::QemuFast), false));
    for board in [&mut by_linux, &mut bare] {
        assert!(board.remove("clock").is_some_and(|clock| clock.get("tsc").is_some()));
    }
    assert_eq!(differences(&bare, &by_linux, Ram::Same), [] as [&str; 0]);
}

/// The same comparison without a boot: `qemu-q35-linux.facts` is what `bulkhead probe --facts` wrote on that Linux.
#[test]
fn probe_concludes_the_same_from_what_linux_once_read() {
    let recorded = bench::root().join("hil-tests/facts/qemu-q35-linux.facts");
    let board = probe::board_file(&probe::Source::Facts(recorded), probe::NAME);
    let mut found = facts(&bench::sure("conclude", board));
    let mut shipped = facts(&read_board("qemu-q35"));
    for board in [&mut found, &mut shipped] {
        board.remove("clock");
    }
    assert_eq!(differences(&shipped, &found, Ram::Same), [] as [&str; 0]);
}

/// The board file that Linux makes of the machine of `qemu-q35.toml`.
fn by_linux(name: &str) -> String {
    let linux = linux::with_script(name, SCRIPT);
    let folder = bench::folder(name);
    let mut machine = Machine::of(Target::QemuFast);
    machine.timeout = Duration::from_secs(600);
    machine.qemu.extend([
        "-kernel".to_string(),
        linux.kernel.display().to_string(),
        "-initrd".to_string(),
        linux.initramfs.display().to_string(),
        "-append".to_string(),
        "console=ttyS0,115200 quiet loglevel=1 mitigations=off".to_string(),
    ]);
    let over = |text: &str| text.contains("@bulkhead linux end");
    let _permit = bench::permit();
    let run = folder.join("run");
    // The same disk, so that the machine is the same; the kernel comes past it.
    let log = bench::sure(name, probe::capture(&PROBE, &machine, &run, None, &over));
    let (_, rest) = log.split_once("@bulkhead linux begin").expect("Linux ran the command");
    let (board, _) = rest.split_once("@bulkhead linux end").expect("and came to its end");
    bench::sure("keep the board file", paths::write(&folder.join("board.toml"), board.as_bytes()));
    board.replace('\r', "")
}
