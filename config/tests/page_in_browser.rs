//! The HTML page in headless Chromium: drawn to scale, nothing cut off, nothing too faint to read.
//!
//! A copy of the page gets a script that measures what the browser laid out; the page itself has none. Screenshots
//! are left in cargo's target folder, for a person to look at.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_config::Plan;
use common::many_partitions;
use scraper::{Html, Selector};
use serde::Deserialize;

/// Widths of a desk and of a narrow window, in pixels. Chromium makes no window narrower than 500.
const WIDE: u32 = 1_280;
const NARROW: u32 = 500;
const TALL: u32 = 2_400;

/// Least contrast of ordinary text by WCAG 2.2, level AA.
const LEAST_CONTRAST: f64 = 4.5;

/// Runs in the copy: what is where, and how well it stands out.
const MEASURE: &str = r#"<script>
const box = e => { const r = e.getBoundingClientRect(); return { left: r.left, right: r.right, top: r.top, bottom: r.bottom }; };
const light = c => { const v = c.map(x => { x /= 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; }); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
const parts = c => c.match(/[\d.]+/g).map(Number);
const contrast = (a, b) => { const l = [light(a), light(b)].sort((x, y) => y - x); return (l[0] + 0.05) / (l[1] + 0.05); };
const paper = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const pictures = [...document.querySelectorAll('svg.lane, svg.map')].map(p => ({
  kind: p.classList.contains('lane') ? 'lane' : 'map', place: box(p),
  bars: [...p.querySelectorAll(':scope > svg')].map(b => {
    const rect = b.querySelector('rect'), text = b.querySelector('text');
    const fill = parts(getComputedStyle(rect).fill.startsWith('url') ? 'rgb(255, 255, 255)' : getComputedStyle(rect).fill);
    return { title: b.querySelector('title').textContent, place: box(rect), fill: fill.slice(0, 3), label: text && box(text),
      contrast: text ? contrast(parts(getComputedStyle(text).fill), fill) : 21 };
  }) }));
let faintest = { contrast: 21, text: '' };
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let n; (n = walk.nextNode());) {
  const e = n.parentElement;
  if (!n.data.trim() || e.closest('svg, script')) continue;
  const c = contrast(parts(getComputedStyle(e).color), paper(e));
  if (c < faintest.contrast) faintest = { contrast: c, text: n.data };
}
const measured = { width: innerWidth, content: document.documentElement.scrollWidth, paper: parts(getComputedStyle(document.body).backgroundColor), faintest, pictures };
const out = document.createElement('pre'); out.id = 'measured'; out.textContent = JSON.stringify(measured); document.body.append(out);
</script>"#;

#[derive(Deserialize)]
struct Measured {
    width: f64,
    content: f64,
    paper: Vec<f64>,
    faintest: Faintest,
    pictures: Vec<Picture>,
}

#[derive(Deserialize)]
struct Faintest {
    contrast: f64,
    text: String,
}

#[derive(Deserialize)]
struct Picture {
    kind: String,
    place: Rectangle,
    bars: Vec<Bar>,
}

#[derive(Deserialize)]
struct Bar {
    title: String,
    place: Rectangle,
    fill: Vec<f64>,
    label: Option<Rectangle>,
    contrast: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Rectangle {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// A page in a folder of its own, with the copy that measures itself.
struct Shown {
    folder: tempfile::TempDir,
}

impl Shown {
    fn new(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let page = plan.page();
        let measuring = page.replace("</body>", &format!("{MEASURE}</body>"));
        assert_ne!(page, measuring);
        fs::write(folder.path().join("page.html"), page).unwrap();
        fs::write(folder.path().join("measuring.html"), measuring).unwrap();
        Self { folder }
    }

    fn measure(&self, width: u32, dark: bool) -> Measured {
        let dom = self.browse("measuring.html", width, dark, &["--dump-dom"]);
        let document = Html::parse_document(&dom);
        let selector = Selector::parse("#measured").unwrap();
        let text: String = document.select(&selector).next().unwrap().text().collect();
        serde_json::from_str(&text).unwrap()
    }

    /// Leaves `<name>.png` in the target folder.
    fn screenshot(&self, name: &str, width: u32, dark: bool) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
        self.browse("page.html", width, dark, &[&format!("--screenshot={}", path.display())]);
        path
    }

    fn browse(&self, file: &str, width: u32, dark: bool, action: &[&str]) -> String {
        let profile = tempfile::tempdir().unwrap();
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--force-device-scale-factor=1"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={width},{TALL}"))
            .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
            .args(action)
            .arg(format!("file://{}", self.folder.path().join(file).display()))
            .output()
            .expect("the page is judged in Chromium, which `cargo verify` installs: apt-get install chromium");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// One after the other, from edge to edge of the picture, within a pixel.
fn tiled(picture: &Picture) {
    let mut now = picture.place.left;
    for bar in &picture.bars {
        assert!((bar.place.left - now).abs() < 1.0, "{} begins at {now}", bar.title);
        assert!(bar.place.bottom - bar.place.top >= 15.0, "{} is too flat to see", bar.title);
        now = bar.place.right;
    }
    assert!((picture.place.right - now).abs() < 1.0, "the last bar ends at the edge");
}

fn labels_fit(picture: &Picture) {
    for bar in &picture.bars {
        if let Some(label) = bar.label {
            let inside = label.left >= bar.place.left && label.right <= bar.place.right;
            assert!(
                inside,
                "the label of `{}` is cut off: {label:?} in {:?}",
                bar.title, bar.place
            );
        }
        assert!(bar.contrast >= LEAST_CONTRAST, "the label of `{}` is too faint", bar.title);
    }
}

fn judge(measured: &Measured) {
    assert!(measured.content <= measured.width, "the page scrolls sideways: {}", measured.content);
    let Faintest { contrast, text } = &measured.faintest;
    assert!(*contrast >= LEAST_CONTRAST, "`{text}` has a contrast of {contrast:.1}");
    for kind in ["lane", "map"] {
        assert!(measured.pictures.iter().any(|picture| picture.kind == kind));
    }
    for picture in &measured.pictures {
        tiled(picture);
        labels_fit(picture);
    }
}

fn shipped(name: &str) -> Plan {
    let path = Path::new("../partitions").join(name);
    bulkhead_config::check_without_images(&path).unwrap()
}

#[test]
fn the_shipped_systems_are_to_scale_and_readable() {
    for name in ["demo", "press-line"] {
        let shown = Shown::new(&shipped(&format!("{name}.toml")));
        for (width, dark) in [(WIDE, false), (WIDE, true), (NARROW, false)] {
            let measured = shown.measure(width, dark);
            let is_dark = measured.paper.iter().take(3).sum::<f64>() < 300.0;
            assert_eq!(is_dark, dark, "the page follows the reader's setting");
            judge(&measured);
        }
    }
}

#[test]
fn a_system_with_sixty_four_partitions_is_to_scale_and_readable() {
    let plan = many_partitions();
    let shown = Shown::new(&plan);
    judge(&shown.measure(WIDE, false));
    judge(&shown.measure(NARROW, true));
    shown.screenshot("sixty-four", WIDE, false);
}

/// The colour of a pixel.
fn pixel(image: &[u8], width: usize, x: f64, y: f64) -> Vec<f64> {
    let at = (y as usize * width + x as usize) * 3;
    image[at..at + 3].iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn a_screenshot_shows_each_bar_in_its_colour() {
    let shown = Shown::new(&shipped("demo.toml"));
    let measured = shown.measure(WIDE, false);
    let file = fs::File::open(shown.screenshot("demo", WIDE, false)).unwrap();
    shown.screenshot("demo-dark", WIDE, true);
    let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().unwrap();
    let mut image = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut image).unwrap();
    assert_eq!((info.width, info.color_type), (WIDE, png::ColorType::Rgb));
    let mut seen = 0;
    let bars = measured.pictures.iter().flat_map(|picture| &picture.bars);
    for bar in bars
        .filter(|bar| bar.place.right - bar.place.left > 12.0 && !bar.title.starts_with("switch"))
    {
        let found = pixel(&image, WIDE as usize, bar.place.left + 4.0, bar.place.top + 4.0);
        let near = found.iter().zip(&bar.fill).all(|(found, wanted)| (found - wanted).abs() <= 2.0);
        assert!(near, "{} is {found:?} and not {:?}", bar.title, bar.fill);
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} bars were wide enough to look at");
}
