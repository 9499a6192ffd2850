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
