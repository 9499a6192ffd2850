//! Hygiene at a switch: what each kind costs, that the cost lies ahead of the window, whatever lies between two guests, and that a
//! processor without it is refused.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

use bulkhead::run::RunOptions;
use bulkhead::{BuiltImage, Machine};
use hil_tests::plant::{self, Fault};
use hil_tests::{bench, checks, systems};

use crate::refusal::refused;

/// A processor of Bochs that has all three kinds; its Skylake-X has none.
const PROCESSOR: &str = "tigerlake";

/// One core for each kind, and one without.
const CORES: [&str; 4] = ["l1d-flush", "branch-barrier", "buffer-clear", ""];

/// Most ticks of the step that cleans, in the emulator, where the commands themselves cost one instruction each: it compares the
/// ways to them and says nothing of a real cache's flush. Seen: 40 to 45 with any one, 25 without.
const CLEAN: u64 = 60;

/// On each core a measuring partition that asks for one kind, and a neighbour.
fn system() -> PathBuf {
    let board = bench::folder("hygiene").join("board.toml");
    let text = format!(
        "include = [\"{}\"]\n[hygiene]\nl1d-flush = \"2 us\"\nbranch-barrier = \"2 us\"\nbuffer-clear = \"2 us\"\n",
        systems::board().display()
    );
    bench::sure("write the board", bulkhead::paths::write_if_changed(&board, text.as_bytes()));
    let mut text = "[system]\nname = \"hygiene\"\nboard = \"board.toml\"\n[schedule]\nframe = \"2 ms\"\n\
        [shutdown]\nwhen-finished = [\"plc-0\", \"plc-1\", \"plc-2\", \"plc-3\"]\nat-latest = \"10 s\"\n\
        [housekeeping]\ncore = 0\n[[housekeeping.window]]\nstart = \"1.8 ms\"\nlength = \"170 us\"\n"
        .to_string();
    for (core, kind) in CORES.into_iter().enumerate() {
        let wish =
            if kind.is_empty() { String::new() } else { format!("hygiene = [\"{kind}\"]\n") };
        write!(
            text,
            "[partition.plc-{core}]\nimage = \"@/guests/plc\"\nmemory = \"6 MiB\"\ncores = [{core}]\n{wish}\
             [[partition.plc-{core}.window]]\nstart = \"50 us\"\nlength = \"550 us\"\n\
             [partition.noise-{core}]\nimage = \"@/guests/noise\"\narguments = \"mode=exits\"\nmemory = \"6 MiB\"\ncores = [{core}]\n\
             [[partition.noise-{core}.window]]\nstart = \"650 us\"\nlength = \"1 ms\"\n"
        )
        .unwrap();
    }
    systems::write("hygiene", &text)
}

/// The image, which both tests run.
static IMAGE: LazyLock<BuiltImage> = LazyLock::new(|| bench::build(&system(), "hygiene"));

#[test]
fn hygiene_costs_what_is_measured_and_delays_no_window() {
    let run = bench::run_with(RunOptions {
        image: IMAGE.image.clone(),
        machine: Machine { model: Some(PROCESSOR.to_string()), ..Machine::default() },
        ..RunOptions::default()
    });
    checks::print(&run.report);
    let mut complaints = checks::check_end(&run.report);
    for core in 0..CORES.len() {
        complaints.extend(checks::check_plc(&run.report, &format!("plc-{core}")));
        complaints.extend(checks::check_windows(&run.report, &format!("noise-{core}")));
    }
    let clean = |core: usize| {
        let steps = &run.report.cores[core].switch_steps;
        steps.iter().find(|(step, _)| step == "clean").map_or(0, |(_, most)| *most)
    };
    let without = clean(3);
    for (core, kind) in CORES.into_iter().enumerate().take(3) {
        println!("  {kind}: {} ticks, without any {without}", clean(core));
        if clean(core) <= without || clean(core) > CLEAN {
            complaints.push(format!("{kind} took {} ticks, without any {without}", clean(core)));
        }
    }
    checks::want_none(&complaints);
}

#[test]
fn hygiene_that_the_processor_lacks_is_refused_by_name() {
    let run = bench::run_with(RunOptions { image: IMAGE.image.clone(), ..RunOptions::default() });
    for name in ["MD_CLEAR", "IBPB", "L1D_FLUSH"] {
        refused(&run, &[name]);
    }
}

/// Microseconds between two windows: the switch budget, and with it what a flush costs.
const SWITCH: u32 = 25;
const FLUSHED: u32 = SWITCH + 40;

/// A core's windows in their order: owner, microseconds ahead of it, length. Each is as early as the compiler allows.
type Line = &'static [(&'static str, u32, u32)];

/// What may lie between a guest that asks for a flush and its victim: housekeeping; a partition that sleeps; one that is stopped; one
/// that starts again; and a gift, made at once or with less time left than the flush takes.
const LINES: [Line; 4] = [
    &[
        ("partition.secret-0", FLUSHED, 400),
        ("housekeeping", SWITCH, 170),
        ("partition.victim-0", FLUSHED, 400),
    ],
    &[
        ("partition.secret-1", FLUSHED, 400),
        ("partition.sleeper-1", FLUSHED, 200),
        ("partition.victim-1", SWITCH, 400),
    ],
    &[
        ("partition.early-2", FLUSHED, 300),
        ("partition.victim-2", FLUSHED, 200),
        ("partition.late-2", FLUSHED, 200),
        ("partition.victim-2", FLUSHED, 200),
        ("partition.taker-2", FLUSHED, 200),
    ],
    &[
        ("partition.again-3", FLUSHED, 700),
        ("partition.stopped-3", FLUSHED, 200),
        ("partition.victim-3", FLUSHED, 400),
    ],
];

/// Each partition of [`LINES`]: its guest, that guest's arguments, and more lines of the system file.
const PARTITIONS: [(&str, &str, &str, &str); 12] = [
    ("secret-0", "noise", "mode=exits", FLUSH),
    ("victim-0", "noise", "mode=exits", ""),
    ("secret-1", "noise", "mode=exits", FLUSH),
    ("sleeper-1", "plans", "role=sleep rounds=1000", ""),
    ("victim-1", "noise", "mode=exits", ""),
    ("early-2", "plans", "role=give rounds=1000", "donates-to = \"taker-2\""),
    ("late-2", "plans", "role=give rounds=1000 left=35us", LATE),
    ("taker-2", "plans", "role=take rounds=50", FLUSH),
    ("victim-2", "noise", "mode=exits", ""),
    ("again-3", "pc", "end=fault", AGAIN),
    ("stopped-3", "attack", "mode=memory-outside", FLUSH),
    ("victim-3", "noise", "mode=exits", ""),
];

const FLUSH: &str = "hygiene = [\"l1d-flush\"]";
const LATE: &str = "donates-to = \"taker-2\"\nhygiene = [\"l1d-flush\"]";
const AGAIN: &str = "platform = \"pc\"\nhygiene = [\"l1d-flush\"]";

/// Fewest frames that a victim ran in. The run has 200 of 2 ms.
const FRAMES: u64 = 190;

/// Windows that `taker-2` was given.
const GIVEN: u64 = 50;

/// Fewest restarts of `again-3`. Seen: 3.
const RESTARTS: u64 = 2;

fn dear_system(name: &str) -> PathBuf {
    let board = bench::folder(name).join("board.toml");
    let text = format!(
        "include = [\"{}\"]\n[hygiene]\nl1d-flush = \"40 us\"\n",
        systems::board().display()
    );
    bench::sure("write the board", bulkhead::paths::write_if_changed(&board, text.as_bytes()));
    let mut text = format!(
        "[system]\nname = \"{name}\"\nboard = \"board.toml\"\n[schedule]\nframe = \"2 ms\"\n\
         [shutdown]\nwhen-finished = [\"secret-0\"]\nat-latest = \"400 ms\"\n[housekeeping]\ncore = 0\n"
    );
    for (partition, guest, arguments, more) in PARTITIONS {
        let core = partition.rsplit('-').next().unwrap();
        write!(
            text,
            "[partition.{partition}]\nimage = \"@/guests/{guest}\"\narguments = \"{arguments}\"\n\
             memory = \"6 MiB\"\ncores = [{core}]\n{more}\n"
        )
        .unwrap();
    }
    for line in LINES {
        let mut start = 0;
        for (owner, gap, length) in line {
            start += gap;
            write!(text, "[[{owner}.window]]\nstart = \"{start} us\"\nlength = \"{length} us\"\n")
                .unwrap();
            start += length;
        }
    }
    systems::write(name, &text)
}

/// The complaints about the victims' windows, where a flush takes the 40 us that the board declares: in the emulator by itself it
/// takes nothing.
fn complaints_where_a_flush_is_dear(
    name: &'static str,
    changes: &'static [(&'static str, &'static str, &'static str)],
) -> Vec<String> {
    let system = dear_system(name);
    let image = plant::build_faulty(&Fault { name, changes }, &system).image;
    let run = bench::run_with(RunOptions {
        image,
        machine: Machine { model: Some(PROCESSOR.to_string()), ..Machine::default() },
        ..RunOptions::default()
    });
    let report = &run.report;
    checks::print(report);
    // A switch with its flush: 2,000 ticks more.
    let mut complaints = checks::check_orderly_end(report, checks::SWITCH + 2_100);
    for (partition, ..) in PARTITIONS {
        complaints.extend(checks::check_windows(report, partition));
    }
    for victim in ["victim-0", "victim-1", "victim-2", "victim-3"] {
        let run = report.partition(victim).and_then(|it| it.windows).map_or(0, |it| it.run);
        if run < FRAMES {
            complaints.push(format!("{victim} had {run} windows"));
        }
    }
    let taker = report.partition("taker-2");
    let given = taker.and_then(|taker| taker.value("windows-given"));
    if given != Some(GIVEN) {
        complaints.push(format!("the receiver was given {given:?} windows"));
    }
    complaints.extend(checks::check_fate(report, "stopped-3", "stopped"));
    let restarts = report.partition("again-3").and_then(|it| it.restarts);
    if restarts < Some(RESTARTS) {
        complaints.push(format!("again-3 started {restarts:?} times again"));
    }
    complaints
}

/// The cleaning as it would be on a processor on which it takes as long as the board file declares.
const DEAR: (&str, &str, &str) = (
    "hv/src/run/hygiene.rs",
    "fn clean_some(what: Hygiene) {",
    "fn clean_some(what: Hygiene) {
    let until = crate::cpu::instructions::tsc() + 2_000;
    while crate::cpu::instructions::tsc() < until {}",
);

#[test]
fn hygiene_that_takes_what_the_board_declares_delays_no_window() {
    checks::want_none(&complaints_where_a_flush_is_dear("hygiene-dear", &[DEAR]));
}

/// The rule before this one: a partition that does not run is passed over, and the flush lands in the switch to the next one that does.
#[test]
fn hygiene_planted_where_the_next_guest_runs() {
    const LAZY: (&str, &str, &str) = (
        "hv/src/run/shared.rs",
        "let cleaning = self.holder.pass_to(id, hygiene::asked_by);
                    let starts_again",
        "let runs = self.runnable(id, slot.frame).is_some();
                    let cleaning = match runs {
                        true => self.holder.pass_to(id, hygiene::asked_by),
                        false => Hygiene::NONE,
                    };
                    let starts_again",
    );
    let complaints = complaints_where_a_flush_is_dear("hygiene-lazy", &[DEAR, LAZY]);
    println!("complaints: {complaints:#?}");
    let late = complaints.iter().any(|one| one.contains("windows of victim-1 were late"));
    assert!(late, "nobody noticed a flush in a switch that has no time for it");
}
