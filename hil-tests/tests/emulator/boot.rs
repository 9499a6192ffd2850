//! Guests of other worlds start by their own protocols, in the forms in which they come, and find what they were promised; each goes
//! down to real mode and back. A control loop beside them does not notice.

use std::fmt::Write;

use bulkhead::paths;
use hil_tests::protocols::{Form, Guest};
use hil_tests::{bench, checks, systems};

/// Partitions, what they expect, their memory, and whether they get a RAM disk. The first ones have cores of their own, the others windows of one core. Headers
/// of Multiboot 1 have the flags of Zephyr (2) and of NuttX (3).
const GUESTS: [(&str, Form, &str, u64, bool); 7] = [
    ("pvh64", Form::Pvh(64), "pvh", 8, true),
    ("raw1", Form::RawMultiboot1, "multiboot1", 8, false),
    ("one32", Form::Multiboot1(32, 2), "multiboot1", 8, true),
    ("one64", Form::Multiboot1(64, 3), "multiboot1", 12, false),
    ("two32", Form::Multiboot2(32), "multiboot2", 8, true),
    ("raw2", Form::RawMultiboot2, "multiboot2", 8, false),
    ("pvh32", Form::Pvh(32), "pvh", 8, false),
];

/// How many of them have cores of their own.
const DEDICATED: usize = 2;

const SYSTEM: &str = r#"[system]
name = "protocols"
board = "@/boards/bochs-skylake-x.toml"

[schedule]
frame = "5 ms"

[shutdown]
when-finished = ["motion", "pvh64", "raw1", "one32", "one64", "two32", "raw2", "pvh32"]
at-latest = "3 s"

[housekeeping]
core = 0

[[housekeeping.window]]
start = "4 ms"
length = "980 us"

[partition.motion]
image = "@/guests/latency"
arguments = "samples=3000"
memory = "8 MiB"
cores = [1]
"#;

fn system() -> std::path::PathBuf {
    let guest = Guest::build();
    let disk = bench::folder("protocols").join("module");
    bench::sure("module", paths::write_if_changed(&disk, b"a module"));
    let mut text = SYSTEM.to_owned();
    for (index, (name, form, by, memory, module)) in GUESTS.into_iter().enumerate() {
        let file = guest.write("protocols", name, form);
        let core = if index < DEDICATED { index + 2 } else { 0 };
        let argument = if module { " module" } else { "" };
        let _ = write!(
            text,
            "\n[partition.{name}]\nimage = \"{}\"\nplatform = \"pc\"\narguments = \"by={by} memory={memory}{argument}\"\nmemory = \"{memory} MiB\"\ncores = [{core}]\n",
            file.display()
        );
        if module {
            let _ = writeln!(text, "initrd = \"{}\"", disk.display());
        }
        if core == 0 {
            let start = 25 + 700 * (index - DEDICATED);
            let _ = writeln!(
                text,
                "\n[[partition.{name}.window]]\nstart = \"{start} us\"\nlength = \"600 us\""
            );
        }
    }
    systems::write("protocols", &text)
}

#[test]
fn guests_of_other_protocols_find_what_they_were_promised() {
    let run = bench::run(&bench::build(&system(), "protocols").image);
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));
    for (name, ..) in GUESTS {
        checks::want_none(&checks::check_passed(report, name));
        assert_eq!(report.partition(name).unwrap().value("checks-failed"), Some(0));
    }
    let motion = report.partition("motion").unwrap();
    assert_eq!((motion.fate.as_str(), motion.span_exits), ("passed", Some(0)));
}

/// One partition with 4 GiB, on a board with 7.
const LARGE: &str = r#"[system]
name = "large"
board = "board.toml"

[shutdown]
when-finished = ["large"]
at-latest = "60 s"

[housekeeping]
core = 0

[partition.large]
image = "@/guests/boot"
platform = "pc"
arguments = "memory=4096 walk=16777216"
memory = "4 GiB"
cores = [1]
"#;

/// Pages that are 16 MiB apart in 3 GiB and in 1 GiB.
const PAGES: u64 = 192 + 64;

/// This emulator keeps 2 GiB in memory and moves what is beyond through a file, as which a VMCS that is current is lost: so the guest touches
/// few pages after the hypervisor cleared all of them, and is alone.
#[test]
#[ignore = "4 GiB in an emulator that keeps 2 take minutes; `cargo verify --long` runs it"]
fn long_four_gibibytes_are_there_and_nothing_between_three_and_four() {
    let high = "size = \"3070 MiB\"\n\n[[memory]]\nstart = \"0x100000000\"\nsize = \"3 GiB\"";
    let firmware = ("start = \"0x1fff0000\"", "start = \"0xbfff0000\"");
    let _board = systems::changed_board("large", &[("size = \"510 MiB\"", high), firmware]);
    let system = systems::write("large", LARGE);
    let run = bench::run(&bench::build(&system, "large").image);
    let report = &run.report;
    checks::print(report);
    let large = report.partition("large").unwrap();
    let value = |name| large.value(name).unwrap();
    println!("its first entry: {:?} ticks, cleared before that", large.first_entry);
    let wrong = ["checks-failed", "pages-lost", "pages-not-zero-at-start"].map(value);
    assert_eq!((value("pages"), wrong), (PAGES, [0; 3]));
    assert_eq!(
        (large.fate.as_str(), large.value("hole")),
        ("stopped", None),
        "at 3 GiB is nothing"
    );
}
