//! Hygiene at a switch: what each kind costs, that the cost lies ahead of the window, and that a processor without it is refused.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

use bulkhead::BuiltImage;
use bulkhead::run::RunOptions;
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
        cpu_model: Some(PROCESSOR.to_string()),
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
