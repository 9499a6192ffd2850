//! The page of the bench in headless Chromium: no error on the console, every picture drawn, nothing cut off, nothing too faint to read;
//! with `--long` of the suite `full` too, whose neighbours change nothing.
//!
//! Pictures of it are left in `target/hil/page`, for a person to look at.

use bulkhead::bench::page::page;
use bulkhead::bench::suite::{IDLE, Suite};
use bulkhead::bench::{Bench, BenchOptions, Outcome, measure};
use bulkhead::paths;
use hil_tests::{bench, browser, checks};
use serde_json::Value;

use crate::shared::QUICK;

/// Widths of a desk and of a narrow window, in pixels.
const WIDE: u32 = 1_280;
const NARROW: u32 = 500;

/// Least contrast of ordinary text by WCAG 2.2, level AA.
const LEAST_CONTRAST: f64 = 4.5;

/// Pictures of the suite `quick` at least: costs as bars, percentiles and two histograms of each of three latencies, how two of them
/// went over time in the run of the system and in those of the bench, and what ran in two.
const LEAST_PICTURES: usize = 14;

#[test]
fn page_of_the_bench_in_a_browser() {
    look_at("page", &QUICK);
}

/// Beside each kind of neighbour the dedicated core has its latencies, the shared one its windows, and an exit its cost.
#[test]
#[ignore = "eleven runs take minutes; `cargo verify --long` runs it"]
fn long_full_suite_and_its_page() {
    let options = BenchOptions {
        system: bench::root().join("partitions/demo.toml"),
        suite: Some(Suite::Full),
        work: Some(bench::folder("full")),
        timeout: Some(bench::LIMIT),
        quiet: true,
        ..BenchOptions::default()
    };
    let permit = bench::permit();
    let outcome = bench::sure("measure", measure(&options));
    drop(permit);
    bench::sure("the demo", outcome.verdict.as_ref());
    let found: Vec<String> =
        Suite::Full.neighbours().iter().flat_map(|it| disturbed(&outcome.bench, it)).collect();
    checks::want_none(&found);
    look_at("page-full", &outcome);
}

/// What a neighbour disturbs, one complaint each.
fn disturbed(bench: &Bench, neighbour: &str) -> Vec<String> {
    let figure = |run: &str, name: &str| bench.figures.get(&format!("{run}/{name}")).copied();
    let cost = |name: &str| figure(IDLE, name).map(|idle| idle + checks::SAME);
    let bounds = [
        ("timer/span-exits", Some(0)),
        ("timer/wakeup/max", Some(checks::WAKEUP)),
        ("windows/windows-late", Some(0)),
        ("windows/window-start/max", Some(checks::WINDOW_START)),
        ("core-0/switch/max", Some(checks::SWITCH)),
        ("costs/cpuid-7/mean", cost("costs/cpuid-7/mean")),
        ("costs-shared/cpuid-7/mean", cost("costs-shared/cpuid-7/mean")),
    ];
    let of = |(name, most): &(&str, Option<u64>)| {
        let is = figure(neighbour, name);
        let kept = is.zip(*most).is_some_and(|(is, most)| is <= most);
        (!kept).then(|| format!("{name} beside {neighbour} is {is:?}, at most {most:?}"))
    };
    bounds.iter().filter_map(of).collect()
}

/// Shows the page of a measurement in light, dark, and narrow.
fn look_at(folder: &str, outcome: &Outcome) {
    let file = bench::folder(folder).join("bench.html");
    let text = page(&outcome.bench, &outcome.plans);
    paths::write(&file, text.as_bytes()).unwrap();
    for (name, width, dark) in
        [("light", WIDE, false), ("dark", WIDE, true), ("narrow", NARROW, false)]
    {
        let (seen, said) = browser::measure(&file, width, dark);
        println!("{name}: {} pictures, faintest {}", list(&seen).len(), seen["faintest"]);
        checks::want_none(&said);
        checks::want_none(&complaints(&seen, dark));
        // A narrow window may have to scroll a table; a desk's has room for each.
        assert!(width < WIDE || seen["hidden"] == 0, "{} tables are cut off", seen["hidden"]);
        browser::screenshot(&file, &file.with_file_name(format!("{name}.png")), width, dark);
    }
}

fn list(seen: &Value) -> &[Value] {
    seen["pictures"].as_array().map_or(&[], Vec::as_slice)
}

/// What is wrong with a page.
fn complaints(seen: &Value, dark: bool) -> Vec<String> {
    let number = |value: &Value| value.as_f64().unwrap_or(-1.0);
    let mut complaints = Vec::new();
    let mut want = |holds: bool, what: String| {
        if !holds {
            complaints.push(what);
        }
    };
    want(
        number(&seen["content"]) <= number(&seen["width"]),
        format!("it scrolls sideways: {}", seen["content"]),
    );
    want((number(&seen["paper"]) < 0.2) == dark, format!("paper of luminance {}", seen["paper"]));
    want(
        number(&seen["faintest"]) >= LEAST_CONTRAST,
        format!("`{}` has a contrast of {}", seen["faint"], seen["faintest"]),
    );
    want(list(seen).len() >= LEAST_PICTURES, format!("{} pictures", list(seen).len()));
    for picture in list(seen) {
        let drawn = number(&picture["width"]) > 200.0
            && number(&picture["height"]) > 50.0
            && number(&picture["shapes"]) >= 3.0
            && number(&picture["words"]) >= 2.0;
        want(drawn, format!("a picture is not drawn: {picture}"));
        let cut = picture["cut"].as_array().map_or(0, Vec::len);
        want(cut == 0, format!("words are cut off in a picture: {}", picture["cut"]));
    }
    complaints
}

/// What is broken must be seen: a page with an error, without its pictures, in faint ink, and too wide.
#[test]
fn page_that_is_broken_is_noticed() {
    let file = bench::folder("page").join("broken.html");
    let broken = "<!doctype html><html><body style='background: #fff; width: 3000px'><p style='color: #ccc'>faint</p>\
                  <figure><svg width='9' height='9'><text x='5' y='5'>too long</text></svg></figure><script>nobody.has(this)</script></body></html>";
    paths::write(&file, broken.as_bytes()).unwrap();
    let (seen, said) = browser::measure(&file, WIDE, false);
    assert!(said.iter().any(|line| line.contains("nobody is not defined")), "{said:?}");
    let found = complaints(&seen, true).join("\n");
    for part in ["scrolls sideways", "paper", "`\"faint\"`", "1 pictures", "not drawn", "cut off"] {
        assert!(found.contains(part), "{part} is missing in: {found}");
    }
}
