//! What an exit and a switch cost does not grow: with partitions, with cores, with windows; and the README's table of it.
//!
//! The smallest systems and the largest are always run, and held to the committed figures too; with `cargo verify --long` those between
//! them as well. `BULKHEAD_BLESS=1 cargo test -p hil-tests --test emulator growth_costs` runs all of them, and writes the figures and
//! the README's table again.

use std::fmt::Write;
use std::path::PathBuf;

use bulkhead::bench::markdown;
use bulkhead::paths;
use hil_tests::bench::BLESS;
use hil_tests::growth::{
    ALL, DEDICATED, Growth, LARGEST, MARKS, Row, SHARED, SMALLEST, Size, YARDSTICK,
};
use hil_tests::{bench, checks, systems};

/// Microseconds between two windows: the switch budget of the board.
const GAP: usize = 25;
/// Microseconds of a window.
const WINDOW: usize = 60;
/// Microseconds of the housekeeping window.
const HOUSEKEEPING: usize = 400;

fn baseline() -> PathBuf {
    bench::root().join("hil-tests/baselines/growth.json")
}

fn readme() -> PathBuf {
    bench::root().join("README.md")
}

/// The figures as they are committed.
fn committed() -> Growth {
    bench::sure("read the figures", serde_json::from_str(&systems::read(&baseline())))
}

/// The README with the table of these figures.
fn tabled(growth: &Growth) -> String {
    markdown::put_in(&systems::read(&readme()), MARKS, &growth.table())
        .expect("the README has the marks of its table of growth")
}

#[test]
fn growth_is_what_the_readme_says() {
    let growth = committed();
    let sizes: Vec<Size> = growth.rows.iter().map(|row| row.size).collect();
    assert_eq!(sizes, ALL);
    checks::want_none(&growth.grown());
    assert_eq!(tabled(&growth), systems::read(&readme()), "run `growth_costs` with {BLESS}=1");
}

#[test]
fn growth_costs_nothing() {
    let every = bench::is_long() || bench::writes_again();
    let sizes: &[Size] = if every { &ALL } else { &[SMALLEST, YARDSTICK, LARGEST] };
    let growth = measure(sizes);
    println!("{}", growth.table());
    checks::want_none(&growth.grown());
    if bench::writes_again() {
        bench::sure("write the figures", paths::write(&baseline(), growth.to_json().as_bytes()));
        bench::sure("write the README", paths::write(&readme(), tabled(&growth).as_bytes()));
        return;
    }
    let worse = growth.worse_than(&committed());
    if !worse.is_empty() {
        println!("if that is meant, run this test once with {BLESS}=1 and commit what it writes");
    }
    checks::want_none(&worse);
}

fn measure(sizes: &[Size]) -> Growth {
    let mut growth = Growth { emulator: String::new(), ticks: String::new(), rows: Vec::new() };
    for size in sizes {
        let name = format!("growth-{}-{}-{}", size.partitions, size.cores, size.windows);
        let image = bench::build(&system(&name, *size), &name).image;
        let report = bench::run(&image).report;
        let mut complaints = checks::check_end(&report);
        complaints.extend(finishing(*size).iter().flat_map(|it| checks::check_passed(&report, it)));
        checks::want_none(&complaints);
        growth.rows.push(Row::new(*size, &report));
        println!("{:?}", growth.rows.last());
        (growth.emulator, growth.ticks) = (report.emulator, report.ticks);
    }
    growth
}

/// Who measures, and so ends.
fn finishing(size: Size) -> &'static [&'static str] {
    if size.cores > 1 { &[SHARED, DEDICATED] } else { &[SHARED] }
}

/// On core 0 `costs-0` and idle partitions, whose windows take turns; on each other core a partition of its own, of which `costs-1`
/// measures and the others run for ever.
fn system(name: &str, size: Size) -> PathBuf {
    let mut text = format!(
        "[system]\nname = \"growth\"\nboard = \"{}\"\n[schedule]\nframe = \"{} us\"\n\
         [shutdown]\nwhen-finished = {:?}\nat-latest = \"20 s\"\n[housekeeping]\ncore = 0\n\
         [[housekeeping.window]]\nstart = \"{GAP} us\"\nlength = \"{HOUSEKEEPING} us\"\n",
        board(name, size.cores).display(),
        GAP + HOUSEKEEPING + size.windows * (GAP + WINDOW) + GAP,
        finishing(size)
    );
    for partition in 0..size.partitions {
        let (called, guest) = if partition == 0 {
            (SHARED.to_string(), "bench\"\narguments = \"runs=60")
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
    if size.cores > 1 {
        partition_with(&mut text, DEDICATED, "bench\"\narguments = \"runs=200", 1);
    }
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
fn board(name: &str, cores: usize) -> PathBuf {
    const SHIPPED: &str = "[[core]]\napic-id = 1\n[[core]]\napic-id = 2\n[[core]]\napic-id = 3\n";
    let wanted: String = (1..cores).map(|id| format!("[[core]]\napic-id = {id}\n")).collect();
    systems::changed_board(name, &[(SHIPPED, &wanted)])
}
