//! A program on a pseudo-terminal: what its screen shows, keys for it, and a picture of it for a README.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::bench::sure;

/// Longest time that a screen may take to show what is asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program on a terminal of its own.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Seen>>,
}

/// What came out of the program.
struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts a program on a terminal of `rows` by `columns`.
    ///
    /// # Panics
    /// There is no pseudo-terminal, or no such program.
    #[must_use]
    pub fn start(command: CommandBuilder, rows: u16, columns: u16) -> Self {
        let pair = sure("open a terminal", native_pty_system().openpty(size(rows, columns)));
        let child = sure("start the program", pair.slave.spawn_command(command));
        let mut reader = sure("read the terminal", pair.master.try_clone_reader());
        let writer = sure("write to the terminal", pair.master.take_writer());
        let parser = vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0);
        let seen = Arc::new(Mutex::new(Seen { parser, bytes: Vec::new() }));
        let share = seen.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal whose program has ended reads as an error.
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                let mut seen = share.lock().unwrap_or_else(PoisonError::into_inner);
                seen.parser.process(&piece[..count]);
                seen.bytes.extend(&piece[..count]);
            }
        });
        Self { master: pair.master, writer, child, seen }
    }

    /// Presses a key.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn press(&mut self, key: &str) {
        let pressed = self.writer.write_all(key.as_bytes()).and_then(|()| self.writer.flush());
        sure("press a key", pressed);
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.look(|seen| {
            seen.parser.screen_mut().set_size(at_least_one(rows), at_least_one(columns))
        });
        sure("resize the terminal", self.master.resize(size(rows, columns)));
    }

    fn look<T>(&self, at: impl FnOnce(&mut Seen) -> T) -> T {
        at(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the screen shows now.
    #[must_use]
    pub fn screen(&self) -> vt100::Screen {
        self.look(|seen| seen.parser.screen().clone())
    }

    /// All that came out, as text.
    #[must_use]
    pub fn output(&self) -> String {
        self.look(|seen| String::from_utf8_lossy(&seen.bytes).into_owned())
    }

    /// Waits until the screen shows all of `words`.
    ///
    /// # Panics
    /// It does not in time.
    pub fn wait_for(&self, words: &[&str]) {
        let began = Instant::now();
        loop {
            let text = self.screen().contents();
            let missing = words.iter().find(|word| !text.contains(**word));
            let Some(missing) = missing else { return };
            assert!(
                began.elapsed() < PATIENCE,
                "`{missing}` never showed up on the screen:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the program; returns its exit code.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn end(&mut self) -> u32 {
        await_end(&mut *self.child)
    }
}

fn await_end(child: &mut dyn Child) -> u32 {
    let began = Instant::now();
    loop {
        if let Some(status) = sure("wait for the program", child.try_wait()) {
            return status.exit_code();
        }
        if began.elapsed() > PATIENCE {
            let _gone = child.kill();
            panic!("the program does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a program on a small terminal, closes that under it after a while, as one closes a window, and returns its exit code.
///
/// # Panics
/// There is no pseudo-terminal, no such program, or it does not end.
#[must_use]
pub fn close_under(command: CommandBuilder) -> u32 {
    let pair = sure("open a terminal", native_pty_system().openpty(size(5, 20)));
    let mut child = sure("start the program", pair.slave.spawn_command(command));
    drop(pair.slave);
    std::thread::sleep(Duration::from_secs(1));
    assert!(sure("look at the program", child.try_wait()).is_none(), "it ended before");
    drop(pair.master);
    await_end(&mut *child)
}

/// A screen has a row and a column.
fn at_least_one(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap_or(NonZero::<u16>::MIN)
}

const fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

/// Width and height of a character in the picture.
const CELL: (f64, f64) = (8.4, 18.0);

/// The screen as an SVG picture, with a monospaced font and the colours of a dark terminal.
#[must_use]
pub fn svg(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let (width, height) = (f64::from(columns) * CELL.0 + 24.0, f64::from(rows) * CELL.1 + 24.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <title>bulkhead monitor</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#14181d\"/>\n"
    );
    for row in 0..rows {
        let y = f64::from(row) * CELL.1 + 26.0;
        for (column, style, text) in runs(screen, row, columns) {
            let x = f64::from(column) * CELL.0 + 12.0;
            let length = text.chars().count() as f64 * CELL.0;
            if style.inverse {
                let top = y - 14.0;
                let _ = writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"18\" fill=\"#d8dee6\"/>"
                );
            }
            let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
            let fill = if style.inverse { "#14181d" } else { style.colour };
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\"{weight} textLength=\"{length:.1}\" \
                 lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{text}</text>"
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

#[derive(Clone, Copy, PartialEq)]
struct Style {
    colour: &'static str,
    bold: bool,
    inverse: bool,
}

/// The texts of a row: column, style and characters of each; blanks between them are left out.
fn runs(screen: &vt100::Screen, row: u16, columns: u16) -> Vec<(u16, Style, String)> {
    let mut runs: Vec<(u16, Style, String)> = Vec::new();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column) else { continue };
        let style =
            Style { colour: colour(cell.fgcolor()), bold: cell.bold(), inverse: cell.inverse() };
        let text = if cell.has_contents() { cell.contents() } else { " " };
        match runs.last_mut() {
            Some((_, last, run)) if *last == style => run.push_str(text),
            _ => runs.push((column, style, text.to_string())),
        }
    }
    for (column, style, run) in &mut runs {
        if !style.inverse {
            let blanks = run.len() - run.trim_start().len();
            *column += u16::try_from(blanks).unwrap_or(0);
            *run = run.trim().to_string();
        }
    }
    runs.retain(|(_, _, run)| !run.is_empty());
    runs
}

const fn colour(colour: vt100::Color) -> &'static str {
    match colour {
        vt100::Color::Idx(1 | 9) => "#ff7b72",
        vt100::Color::Idx(2 | 10) => "#7ee787",
        vt100::Color::Idx(3 | 11) => "#e3b341",
        vt100::Color::Idx(4 | 6 | 12 | 14) => "#79c0ff",
        vt100::Color::Idx(8) => "#8b949e",
        _ => "#d8dee6",
    }
}
