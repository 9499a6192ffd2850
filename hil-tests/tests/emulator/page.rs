//! The page of the bench in headless Chromium: no error on the console, every picture drawn, nothing cut off, nothing too faint to read.
//!
//! Pictures of it are left in `target/hil/page`, for a person to look at.

use bulkhead::bench::page::page;
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
    let file = bench::folder("page").join("bench.html");
    let text = page(&QUICK.bench, &QUICK.plans);
    paths::write(&file, text.as_bytes()).unwrap();
    for (name, width, dark) in
        [("light", WIDE, false), ("dark", WIDE, true), ("narrow", NARROW, false)]
    {
        let (seen, said) = browser::measure(&file, width, dark);
        println!("{name}: {} pictures, faintest {}", list(&seen).len(), seen["faintest"]);
        checks::want_none(&said);
        checks::want_none(&complaints(&seen, dark));
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
