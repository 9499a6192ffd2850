//! One line of progress for each thing that takes long: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A thing under way. Says that it began, and at the end how long it took.
pub struct Step {
    bar: ProgressBar,
    began: Instant,
    shown: bool,
    what: String,
}

impl Step {
    /// Begins a step; `quiet` shows nothing (tests, JSON output).
    #[must_use]
    pub fn begin(what: impl Into<String>, quiet: bool) -> Self {
        let what = what.into();
        let shown = !quiet;
        let bar = if shown && std::io::stderr().is_terminal() {
            spinner(&what)
        } else {
            if shown {
                eprintln!("   {what} ...");
            }
            ProgressBar::hidden()
        };
        Self { bar, began: Instant::now(), shown, what }
    }

    /// The step is done.
    pub fn done(self) {
        self.bar.finish_and_clear();
        if self.shown {
            eprintln!(" ✓ {} ({:.1} s)", self.what, self.began.elapsed().as_secs_f64());
        }
    }

    /// The step ends without a line of its own: what follows says how it went.
    pub fn clear(self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over `bytes` bytes.
#[must_use]
pub fn bytes_bar(what: &str, bytes: u64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        " {msg} {bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what.to_string())
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_string());
    if let Ok(style) = ProgressStyle::with_template(" {spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
