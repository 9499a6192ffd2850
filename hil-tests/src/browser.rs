//! What headless Chromium makes of a page: a copy of it gets a script that measures what was laid out; the page itself has none.

use std::path::Path;
use std::process::{Command, Output};

use bulkhead::paths;
use serde_json::Value;

use crate::bench::sure;

/// Runs in the copy. What it says stands in the document's title, which a dump begins with.
const MEASURE: &str = r#"<script>
const parts = c => (c.match(/[\d.]+/g) || []).map(Number);
const light = c => { const v = c.map(x => { x /= 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; }); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
const contrast = (a, b) => { const l = [light(a), light(b)].sort((x, y) => y - x); return (l[0] + 0.05) / (l[1] + 0.05); };
const paper = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length == 3 || c[3] > 0) return c; } return [255, 255, 255]; };
let faintest = 21, faint = '';
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let n; (n = walk.nextNode());) {
  const e = n.parentElement;
  if (!n.data.trim() || e.closest('script, title, .wide-picture svg')) continue;
  const style = getComputedStyle(e), c = contrast(parts(e.closest('svg') ? style.fill : style.color).slice(0, 3), paper(e).slice(0, 3));
  if (c < faintest) { faintest = c; faint = n.data.replace(/[^\w .]/g, '?'); }
}
const pictures = [...document.querySelectorAll('figure svg')].map(p => { const r = p.getBoundingClientRect();
  return { width: r.width, height: r.height, shapes: p.querySelectorAll('rect, path, polyline, polygon, line, circle').length, words: p.querySelectorAll('text').length,
    cut: [...p.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect(); return b.left < r.left - 1 || b.right > r.right + 1; }).map(t => t.textContent.replace(/[^\w .]/g, '?')) }; });
document.title = 'measured ' + JSON.stringify({ width: innerWidth, content: document.documentElement.scrollWidth,
  hidden: [...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth + 1).length,
  paper: light(parts(getComputedStyle(document.body).backgroundColor)), faintest, faint, pictures });
</script>"#;

/// Pixels that a page is shown in at most before it scrolls.
const TALL: u32 = 2_400;

/// Shows the page at this width and returns what the script saw, and what the browser's console said.
///
/// # Panics
/// There is no Chromium, or it says nothing.
#[must_use]
pub fn measure(page: &Path, width: u32, dark: bool) -> (Value, Vec<String>) {
    let text = crate::systems::read(page).replace("</body>", &format!("{MEASURE}</body>"));
    let copy = page.with_extension("measuring.html");
    sure("write the copy", paths::write(&copy, text.as_bytes()));
    let output = browse(&copy, width, dark, "--dump-dom");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = dom.split_once("<title>measured ").and_then(|(_, rest)| rest.split_once("</title>"));
    let Some((told, _)) = told else { panic!("the browser shows nothing: {dom:.200}") };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_string);
    (sure("read what was measured", serde_json::from_str(told)), errors.collect())
}

/// Takes a picture of the page.
///
/// # Panics
/// There is no Chromium.
pub fn screenshot(page: &Path, picture: &Path, width: u32, dark: bool) {
    let _output = browse(page, width, dark, &format!("--screenshot={}", picture.display()));
}

fn browse(page: &Path, width: u32, dark: bool, action: &str) -> Output {
    let profile = crate::bench::folder("browser").join(format!("{width}-{dark}"));
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--force-device-scale-factor=1", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={width},{TALL}"))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(action)
        .arg(format!("file://{}", page.display()))
        .output();
    let output = sure("run chromium, which `cargo verify` installs", output);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
