//! The HTML page: sound, self-contained, to scale, and safe against whatever a file says.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use bulkhead_config::{Plan, PlannedRole};
use common::{Case, many_partitions, plan_of};
use scraper::{ElementRef, Html, Selector};

const SYSTEM: &str = include_str!("seeing/line.toml");
const PLANS: &str = include_str!("seeing/plans.toml");
/// A picture this wide, in pixels, must be right within one of them.
const WIDTH: f64 = 1_600.0;

fn parsed(page: &str) -> Html {
    let document = Html::parse_document(page);
    assert!(document.errors.is_empty(), "{:?}", document.errors);
    document
}

fn all<'d>(within: ElementRef<'d>, selector: &str) -> Vec<ElementRef<'d>> {
    let selector = Selector::parse(selector).unwrap();
    within.select(&selector).collect()
}

fn percent(element: ElementRef<'_>, name: &str) -> f64 {
    element.attr(name).unwrap().strip_suffix('%').unwrap().parse().unwrap()
}

/// Start and width of the bars of a picture, in percent.
fn bars<'d>(picture: ElementRef<'d>) -> Vec<(f64, f64, ElementRef<'d>)> {
    let bars = all(picture, "svg > svg");
    bars.into_iter().map(|bar| (percent(bar, "x"), percent(bar, "width"), bar)).collect()
}

fn assert_close(found: f64, wanted: f64, what: &str) {
    let pixels = (found - wanted).abs() * WIDTH / 100.0;
    assert!(pixels < 1.0, "{what} is {found} %, and {wanted} % is to scale");
}

/// One bar after the other from edge to edge: none overlaps another, and nothing is left out.
fn assert_tiled(bars: &[(f64, f64, ElementRef<'_>)], what: &str) {
    let mut now = 0.0;
    for (from, width, _) in bars {
        assert_close(*from, now, what);
        now = from + width;
    }
    assert_close(now, 100.0, what);
}

fn title(bar: ElementRef<'_>) -> String {
    all(bar, "title").first().unwrap().text().collect()
}

#[test]
fn it_stands_alone() {
    let plan = plan_of(SYSTEM);
    let page = plan.page();
    let document = parsed(&page);
    for fetching in
        ["http:", "https:", "@import", "src=", "<link", "<script", "<iframe", "javascript:"]
    {
        assert!(!page.contains(fetching), "{fetching}");
    }
    assert_eq!(page.matches("url(").count(), page.matches("url(#hatch)").count());
    let root = document.root_element();
    assert_eq!(root.attr("lang"), Some("en"));
    assert_eq!(
        all(root, "title").first().unwrap().text().collect::<String>(),
        "line on bochs-skylake-x: Bulkhead report"
    );
    for link in all(root, "nav a") {
        assert_eq!(all(root, link.attr("href").unwrap()).len(), 1, "{:?}", link.attr("href"));
    }
    for picture in all(root, "svg[role=img]") {
        assert!(picture.attr("aria-label").is_some_and(|label| label.len() > 5));
    }
    assert!(page == plan.page(), "the same files give the same page");
}

#[test]
fn time_is_to_scale_on_each_core() {
    for text in [SYSTEM, PLANS] {
        cores_are_to_scale(&plan_of(text));
    }
}

fn cores_are_to_scale(plan: &Plan) {
    let page = plan.page();
    let document = parsed(&page);
    for core in plan.cores() {
        let lane = format!("svg[data-core='{}']", core.cpu);
        let lanes = all(document.root_element(), &lane);
        assert_eq!(lanes.len(), plan.plans().len());
        let PlannedRole::Shared(windows) = &core.role else {
            assert_eq!(bars(lanes[0]).len(), 1);
            continue;
        };
        for (lane, windows) in lanes.into_iter().zip(windows) {
            assert_tiled(&bars(lane), "a part of the frame");
            let owned: Vec<_> = bars(lane)
                .into_iter()
                .filter(|(_, _, bar)| ["part", "machine"].contains(&bar.attr("class").unwrap()))
                .collect();
            assert_eq!(owned.len(), windows.len());
            for ((from, width, bar), window) in owned.into_iter().zip(windows) {
                let scale = 100.0 / plan.frame() as f64;
                assert_close(from, window.start as f64 * scale, &title(bar));
                assert_close(width, window.length as f64 * scale, &title(bar));
            }
        }
    }
}

#[test]
fn memory_is_to_scale_and_all_there() {
    for plan in [plan_of(SYSTEM), many_partitions()] {
        let page = plan.page();
        let document = parsed(&page);
        let maps = all(document.root_element(), "svg.map");
        assert_eq!(maps.len(), 2, "the whole and the magnified part");
        for map in &maps {
            assert_tiled(&bars(*map), "a piece of memory");
            let number = |name: &str| map.attr(name).unwrap().parse::<u64>().unwrap();
            let (start, size) = (number("data-start"), number("data-size"));
            for partition in plan.partitions() {
                let wanted = format!("{}: ", partition.name);
                let drawn = bars(*map).into_iter().find(|bar| title(bar.2).starts_with(&wanted));
                let (from, width, _) = drawn.unwrap();
                let scale = 100.0 / size as f64;
                let region = partition.regions[0];
                assert_close(from, (region.host - start) as f64 * scale, &wanted);
                assert_close(width, region.size as f64 * scale, &wanted);
            }
        }
    }
}

#[test]
fn the_matrix_has_a_row_for_each_owner() {
    for plan in [plan_of(SYSTEM), many_partitions()] {
        let page = plan.page();
        let document = parsed(&page);
        let rows = all(document.root_element(), "table.matrix tbody tr");
        assert_eq!(rows.len(), plan.partitions().len() + 1);
        for (row, partition) in rows.iter().zip(plan.partitions()) {
            let words: String = row.text().collect();
            assert!(words.contains(&partition.name), "{words}");
            assert!(words.contains(&partition.place), "{words}");
            assert!(words.contains("none"), "interrupts and devices: {words}");
        }
    }
}

#[test]
fn what_a_file_says_is_text() {
    let hostile = "</code><script>alert(1)</script><img src=x onerror=alert(1)>&amp;";
    let text = SYSTEM.replace("period=100us <b>&\\\"quoted\\\"", hostile);
    let case = Case::new("<i>'&\u{1b}[31m.toml", &text);
    let plan = bulkhead_config::check_without_images(&case.system).unwrap();
    let page = plan.page();
    let document = parsed(&page);
    let root = document.root_element();
    for forbidden in ["script", "img", "i"] {
        assert!(all(root, forbidden).is_empty(), "{forbidden}");
    }
    assert!(!page.contains('\u{1b}'));
    let codes: Vec<String> =
        all(root, "td code").iter().map(|code| code.text().collect()).collect();
    assert!(codes.iter().any(|code| code == hostile), "{codes:?}");
}

#[test]
fn a_built_system_shows_its_digests() {
    let case = Case::new("line.toml", SYSTEM);
    let compiled = case.compile().unwrap();
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let page = compiled.page();
    assert!(page.contains(&hex(&compiled.digest())));
    assert!(compiled.modules().iter().all(|module| page.contains(&hex(&module.digest))));
    assert!(!compiled.plan().page().contains(&hex(&compiled.digest())));
}

#[test]
fn rights_and_cleaning_are_shown() {
    let page = plan_of(PLANS).page();
    let document = parsed(&page);
    let rows = all(
        document.root_element(),
        "section[aria-labelledby=ownership] table:not(.matrix) tbody tr",
    );
    let words: Vec<String> =
        rows.iter().map(|row| row.text().collect::<Vec<_>>().join("|")).collect();
    assert_eq!(words, ["plc|yes|no|no|no", "noise|no|plc|l1d-flush|no"]);
}

#[test]
fn warnings_are_shown() {
    let text =
        SYSTEM.replace("length = \"600 us\"", "length = \"20 us\"").replace("2112 KiB", "4 MiB");
    let page = plan_of(&text).page();
    assert!(page.contains("BH0901") && page.contains("1 warning"));
    parsed(&page);
}
