//! The shipped figures hold to the committed baseline. And a comparison is worth something: a slow-down of 50 ticks, a hidden exit
//! and a lost window are each caught.
//!
//! A change that makes a figure worse says so by writing the baseline again, with the README's table of figures:
//! `BULKHEAD_BLESS=1 cargo test -p hil-tests --test emulator baseline_holds`.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use bulkhead::bench::compare::{self, Comparison, Old};
use bulkhead::bench::{Bench, markdown};
use bulkhead::paths;
use bulkhead::{Firmware, Machine, RunOptions, Target};
use hil_tests::bench::BLESS;
use hil_tests::plant::{self, Fault};
use hil_tests::{bench, checks, systems};

use crate::shared::QUICK;

/// What an exit may take at most, mean ticks, on both kinds of core, idle and beside the neighbour that does everything: the project's
/// aims, which no new baseline moves.
const AIMS: [(&str, u64); 11] = [
    ("cpuid-0", 90),
    ("cpuid-1", 90),
    ("cpuid-7", 90),
    ("cpuid-d", 90),
    ("cpuid-unknown", 90),
    ("vmcall", 80),
    ("rdmsr", 80),
    ("wrmsr", 90),
    ("wrmsr-checked", 90),
    (REFUSED, 90),
    ("port-refused", 90),
];

/// The same on a dedicated core alone. A timer for the past takes what it takes without a hypervisor.
const DEDICATED_AIMS: [(&str, u64); 3] = [("ipi-own", 100), ("ipi-other", 165), ("timer-past", 10)];

/// A refused WRMSR, of which the guest's own handler is no part of the exit.
const REFUSED: &str = "wrmsr-refused";

fn baseline() -> PathBuf {
    bench::root().join("hil-tests/baselines/demo-quick.json")
}

#[test]
fn baseline_holds() {
    let outcome = &*QUICK;
    bench::sure("the demo", outcome.verdict.as_ref());
    checks::want_none(&missed_aims(&outcome.bench));
    if bench::writes_again() {
        let text = outcome.bench.baseline();
        bench::sure("write the baseline", paths::write(&baseline(), text.as_bytes()));
        bench::sure("write the README", paths::write(&readme(), tabled(&outcome.bench).as_bytes()));
        return;
    }
    let old = bench::sure("read the baseline", compare::read(&baseline()));
    let comparison = bench::sure("compare", compare::compare(&old, &outcome.bench));
    println!("{}", comparison.render());
    if let Err(worse) = comparison.judge(&baseline()) {
        panic!(
            "{worse}\nif that is meant, run this test once with {BLESS}=1 and commit what it writes"
        );
    }
}

/// One complaint for each aim that is missed or was not measured.
fn missed_aims(bench: &Bench) -> Vec<String> {
    let places = ["idle/costs", "idle/costs-shared", "all/costs", "all/costs-shared"];
    let aims = places.into_iter().flat_map(|place| {
        let dedicated = if place.ends_with("costs") { DEDICATED_AIMS.as_slice() } else { &[] };
        AIMS.iter().chain(dedicated).map(move |(operation, aim)| (place, *operation, *aim))
    });
    aims.filter_map(|(place, operation, aim)| {
        let ticks = taken(bench, place, operation);
        let kept = ticks.is_some_and(|ticks| ticks <= aim);
        (!kept).then(|| format!("{place}/{operation}/mean is {ticks:?}, the aim is {aim}"))
    })
    .collect()
}

/// Mean ticks of an operation there, the pair of clock readings included; without what the guest's own handler takes where that was
/// measured too. `None` where it was not measured.
fn taken(bench: &Bench, place: &str, operation: &str) -> Option<u64> {
    let mean = |name| bench.figures.get(&format!("{place}/{name}/mean")).copied();
    let ticks = mean(operation)?;
    if operation != REFUSED {
        return Some(ticks);
    }
    (ticks + mean("rdtsc-pair")?).checked_sub(mean("exception-own")?)
}

#[test]
fn baseline_is_red_where_an_aim_is_missed() {
    let text = systems::read(&baseline());
    let mut bench: Bench = serde_json::from_str(&text).unwrap();
    assert_eq!(missed_aims(&bench), Vec::<String>::new());
    bench.figures.insert("all/costs-shared/vmcall/mean".into(), 81);
    bench.figures.remove("idle/costs/cpuid-d/mean");
    bench.figures.insert("idle/costs/ipi-own/mean".into(), 101);
    for (name, ticks) in [("wrmsr-refused", 149), ("exception-own", 61), ("rdtsc-pair", 3)] {
        bench.figures.insert(format!("idle/costs-shared/{name}/mean"), ticks);
    }
    let missed = missed_aims(&bench);
    assert_eq!(
        missed,
        [
            "idle/costs/cpuid-d/mean is None, the aim is 90",
            "idle/costs/ipi-own/mean is Some(101), the aim is 100",
            "idle/costs-shared/wrmsr-refused/mean is Some(91), the aim is 90",
            "all/costs-shared/vmcall/mean is Some(81), the aim is 80"
        ]
    );
}

fn readme() -> PathBuf {
    bench::root().join("README.md")
}

/// The README with the table of these figures.
fn tabled(bench: &Bench) -> String {
    markdown::put_in(&systems::read(&readme()), markdown::MARKS, &markdown::render(bench))
        .expect("the README has the marks of its table of figures")
}

#[test]
fn baseline_is_what_the_readme_says() {
    let text = systems::read(&baseline());
    let bench: Bench = serde_json::from_str(&text).unwrap();
    assert_eq!(tabled(&bench), systems::read(&readme()), "run `baseline_holds` with {BLESS}=1");
}

/// The image of `systems/bench.toml` with the hypervisor as it is.
static SMALL: LazyLock<PathBuf> = LazyLock::new(|| bench::build(&small(), "bench-small").image);

/// Its figures.
static SOUND: LazyLock<Old> = LazyLock::new(|| {
    let bench = Bench::of_run("", bench::run(&SMALL).report, 4);
    Old { origin: (bench.emulator, bench.suite), figures: bench.figures }
});

fn small() -> PathBuf {
    bench::root().join("hil-tests/systems/bench.toml")
}

/// What an exit costs, and when timers and windows come, is the same in another version of the emulator.
#[test]
fn baseline_is_the_same_in_another_emulator() {
    let machine = Machine::chosen(Some(Target::Bochs3), Firmware::Bios, None);
    let bench = Bench::of_run("", bench::run_on(machine, &SMALL).report, 4);
    // Ordinarily figures of two emulators are not compared: these are to be equal.
    let origin = (bench.emulator.clone(), String::new());
    let old = Old { origin, figures: SOUND.figures.clone() };
    let comparison = bench::sure("compare", compare::compare(&old, &bench));
    println!("{} beside {}:\n{}", bench.machine(), SOUND.origin.0, comparison.render());
    assert!(comparison.compared > 100, "only {} figures were compared", comparison.compared);
    assert_eq!(comparison.changes, [], "a figure differs between the emulators");
}

/// How the figures compare under a faulty hypervisor.
fn with(fault: &Fault) -> Comparison {
    let run = bench::run(&plant::build_faulty(fault, &small()).image);
    let comparison =
        bench::sure("compare", compare::compare(&SOUND, &Bench::of_run("", run.report, 4)));
    println!("{}", comparison.render());
    comparison
}

/// Every one of these figures is worse.
fn want_worse(comparison: &Comparison, names: &[&str]) {
    for name in names {
        let caught = comparison.worse().any(|change| change.name == *name);
        assert!(caught, "nobody noticed: {name}");
    }
}

/// Ten instructions that do nothing, spelled out: a loop would be unrolled as the compiler likes.
macro_rules! ten_pauses {
    () => {
        "core::hint::spin_loop(); core::hint::spin_loop(); core::hint::spin_loop(); core::hint::spin_loop();
         core::hint::spin_loop(); core::hint::spin_loop(); core::hint::spin_loop(); core::hint::spin_loop();
         core::hint::spin_loop(); core::hint::spin_loop(); "
    };
}

#[test]
fn baseline_catches_a_slow_down_of_fifty_ticks() {
    let fault = Fault {
        name: "fault-slow",
        changes: &[(
            "hv/src/vmx/exits.rs",
            "match reason_with_flags() {",
            concat!(
                ten_pauses!(),
                ten_pauses!(),
                ten_pauses!(),
                ten_pauses!(),
                ten_pauses!(),
                "match reason_with_flags() {"
            ),
        )],
    };
    let names = ["cpuid-0", "vmcall", "rdmsr", "wrmsr", "port-refused"];
    let names = names.map(|name| format!("system/costs/{name}/mean"));
    let comparison = with(&fault);
    want_worse(&comparison, &names.each_ref().map(String::as_str));
}

#[test]
fn baseline_catches_a_hidden_exit() {
    let fault = Fault {
        name: "fault-hidden-exit",
        changes: &[
            (
                "hv/src/vmx/controls.rs",
                "processor: PROCESSOR.settle(0)",
                "processor: PROCESSOR.settle(processor::HLT_EXITING)",
            ),
            (
                "hv/src/vmx/exits.rs",
                "match reason_with_flags() {",
                "match reason_with_flags() {
                 12 => { vcpu.state.counters.count(ExitKind::Unknown); guest::advance(); vcpu }",
            ),
        ],
    };
    want_worse(&with(&fault), &["system/motion/span-exits"]);
}

#[test]
fn baseline_catches_a_lost_window() {
    let fault = Fault {
        name: "fault-lost-window",
        changes: &[(
            "hv/src/run/shared.rs",
            "match slot.owner {",
            "if slot.frame % 50 == 49 { slot.owner = None; }
             match slot.owner {",
        )],
    };
    want_worse(&with(&fault), &["system/plc/windows-skipped"]);
}

/// A million samples of a dedicated core at 50 kHz, on a machine of two cores, so that the emulator is quick.
#[test]
fn baseline_of_a_million_samples_without_an_exit() {
    let name = "million";
    let board =
        systems::changed_board(name, &[("[[core]]\napic-id = 2\n[[core]]\napic-id = 3\n", "")]);
    let text = format!(
        "[system]\nname = \"{name}\"\nboard = \"{}\"\n[shutdown]\nwhen-finished = [\"motion\"]\n[housekeeping]\ncore = 0\n\
         [limits]\ntimer.p99_999 = \"1 us\"\nexits_per_second = 0\n\
         [partition.motion]\nimage = \"@/guests/latency\"\narguments = \"period=19980ns samples=1000000\"\nmemory = \"8 MiB\"\ncores = [1]\n",
        board.display()
    );
    let image = bench::build(&systems::write(name, &text), name).image;
    let timeout = Some(Duration::from_secs(600));
    let run = bench::run_with(RunOptions { image, timeout, ..RunOptions::default() });
    checks::print(&run.report);
    checks::want_none(&checks::check_passed(&run.report, "motion"));
    let motion = run.report.partition("motion").unwrap();
    let wakeup = motion.histogram("wakeup").unwrap();
    assert_eq!((motion.span_exits, wakeup.count), (Some(0), 1_000_000));
    assert!(wakeup.max <= checks::WAKEUP, "a wake-up took {} ticks", wakeup.max);
}
