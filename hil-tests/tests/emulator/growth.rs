//! What an exit and a switch cost does not grow: with partitions, with cores, with windows.
//!
//! The smallest system and the largest are always run; with `cargo verify --long` those between them too, one dimension at a time.

use std::fmt::Write;

use bulkhead::Report;
use hil_tests::{bench, checks, systems};

/// How far two systems may be apart, in ticks: for a cost two steps of the clock. For the longest switch what a larger system meets
/// and a smaller one does not; seen: 65. A search through the windows, at two instructions each, would take 250 more.
const SAME_COST: u64 = 10;
const SAME_SWITCH: u64 = 100;

/// Microseconds between two windows: the switch budget of the board.
const GAP: usize = 25;
/// Microseconds of a window.
const WINDOW: usize = 60;
/// Microseconds of the housekeeping window.
const HOUSEKEEPING: usize = 400;

/// The size of a system.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// On the shared core.
    partitions: usize,
    /// Of the board; all but core 0 are dedicated.
    cores: usize,
    /// On the shared core in a frame, besides that of housekeeping; 128 in all is the most that a core can have.
    windows: usize,
}

/// With two, so that there is a switch from one partition to another.
const SMALLEST: Size = Size { partitions: 2, cores: 2, windows: 2 };
const LARGEST: Size = Size { partitions: 25, cores: 8, windows: 127 };

/// Between them, one dimension at a time. 25 on the shared core and 7 on dedicated ones are 32 partitions.
const BETWEEN: [Size; 6] = [
    Size { partitions: 8, windows: 8, ..SMALLEST },
    Size { partitions: 30, windows: 30, ..SMALLEST },
    Size { cores: 4, ..SMALLEST },
    Size { cores: 8, ..SMALLEST },
    Size { windows: 16, ..SMALLEST },
    Size { windows: 127, ..SMALLEST },
];

/// What was seen: ticks.
#[derive(Clone, Copy, Debug)]
struct Costs {
    dedicated: u64,
    shared: u64,
    switch: u64,
}

#[test]
fn growth_costs_nothing() {
    let least = measure(SMALLEST);
    let between: &[Size] = if bench::is_long() { &BETWEEN } else { &[] };
    let mut complaints = Vec::new();
    for size in between.iter().chain([&LARGEST]) {
        let costs = measure(*size);
        let figures = [
            ("CPUID on a dedicated core", least.dedicated, costs.dedicated, SAME_COST),
            ("CPUID on a shared core", least.shared, costs.shared, SAME_COST),
            ("the longest switch", least.switch, costs.switch, SAME_SWITCH),
        ];
        for (what, few, many, allowed) in figures {
            if many > few + allowed {
                complaints.push(format!("{what} grew from {few} to {many} ticks with {size:?}"));
            }
        }
    }
    checks::want_none(&complaints);
}

fn measure(size: Size) -> Costs {
    let Size { partitions, cores, windows } = size;
    let name = format!("growth-{partitions}-{cores}-{windows}");
    let image = bench::build(&system(&name, size), &name).image;
    let report = bench::run(&image).report;
    let mut complaints = checks::check_end(&report);
    complaints.extend(["costs-0", "costs-1"].map(|it| checks::check_passed(&report, it)).concat());
    checks::want_none(&complaints);
    let switch = report.cores.iter().filter_map(|core| core.switch_max).max();
    let costs = Costs {
        dedicated: cpuid(&report, "costs-1"),
        shared: cpuid(&report, "costs-0"),
        switch: switch.unwrap_or(0),
    };
    println!("{size:?}: {costs:?}");
    costs
}

/// The median CPUID of a partition.
fn cpuid(report: &Report, name: &str) -> u64 {
    report.partition(name).unwrap().histogram("cpuid-7").unwrap().median
}

/// On core 0 `costs-0` and idle partitions, whose windows take turns; on each other core a partition of its own, of which `costs-1`
/// measures and the others run for ever.
fn system(name: &str, size: Size) -> std::path::PathBuf {
    let mut text = format!(
        "[system]\nname = \"growth\"\nboard = \"{}\"\n[schedule]\nframe = \"{} us\"\n\
         [shutdown]\nwhen-finished = [\"costs-0\", \"costs-1\"]\nat-latest = \"20 s\"\n[housekeeping]\ncore = 0\n\
         [[housekeeping.window]]\nstart = \"{GAP} us\"\nlength = \"{HOUSEKEEPING} us\"\n",
        board(name, size.cores).display(),
        GAP + HOUSEKEEPING + size.windows * (GAP + WINDOW) + GAP
    );
    for partition in 0..size.partitions {
        let (called, guest) = if partition == 0 {
            ("costs-0".to_string(), "bench\"\narguments = \"runs=60")
        } else {
            (format!("idle-{partition}"), "noise\"\narguments = \"mode=idle")
        };
        partition_with(&mut text, &called, guest, 0);
        for window in (partition..size.windows).step_by(size.partitions) {
            let start = 2 * GAP + HOUSEKEEPING + window * (GAP + WINDOW);
            write!(
                text,
                "[[partition.{called}.window]]\nstart = \"{start} us\"\nlength = \"{WINDOW} us\"\n"
            )
            .unwrap();
        }
    }
    partition_with(&mut text, "costs-1", "bench\"\narguments = \"runs=200", 1);
    for core in 2..size.cores {
        partition_with(
            &mut text,
            &format!("loop-{core}"),
            "noise\"\narguments = \"mode=loop",
            core,
        );
    }
    systems::write(name, &text)
}

fn partition_with(text: &mut String, name: &str, guest: &str, core: usize) {
    write!(
        text,
        "[partition.{name}]\nimage = \"@/guests/{guest}\"\nmemory = \"4 MiB\"\ncores = [{core}]\n"
    )
    .unwrap();
}

/// The project's board with so many cores.
fn board(name: &str, cores: usize) -> std::path::PathBuf {
    const SHIPPED: &str = "[[core]]\napic-id = 1\n[[core]]\napic-id = 2\n[[core]]\napic-id = 3\n";
    let wanted: String = (1..cores).map(|id| format!("[[core]]\napic-id = {id}\n")).collect();
    systems::changed_board(name, &[(SHIPPED, &wanted)])
}
