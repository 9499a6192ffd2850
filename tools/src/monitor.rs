//! `bulkhead monitor`: a running system on the terminal, live; the same figures as OpenMetrics text and as a trace file.
//!
//! A thread reads the log (of a board, a file, a FIFO, standard input, or of a run of its own) and hands on its events; the loop here
//! shows them. Without a terminal it prints plain lines, as `bulkhead log` does.

pub mod metrics;
pub mod model;
pub mod trace;
pub mod view;

use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::decode::Event;
use crate::emulator::Machine;
use crate::error::{Error, Result};
use crate::image::{BuildOptions, build_image};
use crate::log::{self, Reader};
use crate::manifest::Manifest;
use crate::provision::{self, Need};
use crate::run::{RunOptions, run_image};
use crate::screen::Screen;
use crate::source::Source;
use crate::{interrupt, paths};
use model::Model;
use trace::Trace;
use view::Status;

/// How often the screen is drawn while there is news, and the keys are looked at.
const BEAT: Duration = Duration::from_millis(100);

/// Beats that a run may take to switch its machine off: a minute, in which a rig's power command may run out of its time.
const BEATS_TO_END: usize = 600;

/// What to watch, and how.
#[derive(Clone, Debug, Default)]
pub struct MonitorOptions {
    /// A system file or an image, which is run; a serial port, a file, or a FIFO; standard input without one or for `-`.
    pub source: Option<PathBuf>,
    /// The board file that is taken instead of the one that the system names.
    pub board: Option<PathBuf>,
    /// The hypervisor's ELF that writes the log.
    pub elf: Option<PathBuf>,
    /// Baud rate of a serial port.
    pub baud: u32,
    /// The emulated machine that runs the system.
    pub machine: Machine,
    /// A rig file: the system runs on that board.
    pub rig: Option<PathBuf>,
    /// Where the figures are served as OpenMetrics text.
    pub metrics: Option<SocketAddr>,
    /// The trace file to write.
    pub trace: Option<PathBuf>,
    /// Prints plain lines on a terminal too.
    pub plain: bool,
}

/// What the reading thread hands on.
enum News {
    /// The image that speaks is this one.
    Image(Box<Manifest>),
    /// It said this.
    Event(Event),
}

/// The log's events as they come, and how they end.
struct Feed {
    news: Receiver<News>,
    thread: Option<JoinHandle<Result<()>>>,
    end: Option<Result<()>>,
    /// Whether a machine runs behind it, which is to be taken down.
    runs: bool,
}

/// Watches a system until its log ends (plain lines) or the user quits (screen).
///
/// # Errors
/// What the log or the run behind it fails with; a terminal that is none; an address or a file that cannot be had.
pub fn monitor(options: &MonitorOptions) -> Result<()> {
    interrupt::install();
    let trace = options.trace.as_deref().map(Trace::create).transpose()?;
    let model = Arc::new(Mutex::new(Model::new(None)));
    if let Some(address) = options.metrics {
        let bound = metrics::serve(address, model.clone())?;
        eprintln!("bulkhead: the figures are at http://{bound}/metrics");
    }
    let feed = open(options)?;
    let mut watcher = Watcher { model, trace, feed, lines: None };
    let watched =
        if on_screen(options) { watcher.screen(&named(options)) } else { watcher.lines() };
    watcher.close(watched)
}

/// Whether there is a terminal that can be drawn on.
fn on_screen(options: &MonitorOptions) -> bool {
    if options.plain || !stdout().is_terminal() {
        return false;
    }
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    if dumb {
        eprintln!(
            "bulkhead: this terminal (TERM is `dumb` or not set) cannot be drawn on; plain lines follow"
        );
    }
    !dumb
}

fn named(options: &MonitorOptions) -> String {
    options
        .source
        .as_ref()
        .map_or_else(|| "standard input".to_string(), |path| path.display().to_string())
}

/// Starts what writes the log, or opens it.
fn open(options: &MonitorOptions) -> Result<Feed> {
    let source = options.source.as_deref().filter(|path| *path != Path::new("-"));
    let image = match source {
        Some(path) if paths::is_system(source) => Some(build(path, options)?),
        Some(path) if Manifest::path(path).is_file() => Some(path.to_path_buf()),
        _ => None,
    };
    match image {
        _ if options.board.is_some() && !paths::is_system(source) => {
            Err(paths::no_other_board(named(options)))
        }
        Some(image) => run(image, options),
        None if options.rig.is_some() => Err(Error::refused(
            "cannot watch this on a rig",
            format!("{} is neither a system file nor an image with its IMAGE.json", named(options)),
            "give a system file, or leave --rig out and give the board's serial port",
        )),
        None if options.machine != Machine::default() => Err(Error::refused(
            format!("cannot watch this in {}", options.machine.target.name()),
            format!("{} is neither a system file nor an image with its IMAGE.json", named(options)),
            "give a system file, or leave --target, --firmware and --cpu-model out",
        )),
        None => listen(source, options),
    }
}

fn build(system: &Path, options: &MonitorOptions) -> Result<PathBuf> {
    let need = if options.rig.is_some() { Need::Build } else { options.machine.target.need() };
    provision::ensure(need, false)?;
    let build = BuildOptions {
        system: system.to_path_buf(),
        board: options.board.clone(),
        ..BuildOptions::default()
    };
    Ok(build_image(&build)?.image)
}

/// Runs an image and watches it.
fn run(image: PathBuf, options: &MonitorOptions) -> Result<Feed> {
    let manifest = Manifest::load(&image)?;
    let (send, news) = channel();
    let _heard = send.send(News::Image(Box::new(manifest)));
    let (watch, events) = channel();
    let run = RunOptions {
        image,
        quiet: true,
        machine: options.machine.clone(),
        rig: options.rig.clone(),
        watch: Some(watch),
        // Whoever watches ends it; a system may run for ever.
        timeout: Some(Duration::MAX),
        ..RunOptions::default()
    };
    let thread = std::thread::spawn(move || {
        let forward = std::thread::spawn(move || hand_on(&events, &send));
        let outcome = run_image(&run).map(|_| ());
        // The last sender of events is in there: without it the forwarding ends.
        drop(run);
        let _ended = forward.join();
        outcome
    });
    Ok(Feed { news, thread: Some(thread), end: None, runs: true })
}

fn hand_on(events: &Receiver<Event>, send: &Sender<News>) {
    for event in events {
        if send.send(News::Event(event)).is_err() {
            return;
        }
    }
}

/// Listens to a log that somebody else writes.
fn listen(source: Option<&Path>, options: &MonitorOptions) -> Result<Feed> {
    let (send, news) = channel();
    let mut source = Source::open(source, options.baud)?;
    let elf = options.elf.clone();
    let thread = std::thread::spawn(move || {
        let mut listener = Listener(send);
        log::read(&mut source, elf.as_deref(), &mut listener)
            .and_then(|heard| log::judge(heard.diagnosis))
    });
    Ok(Feed { news, thread: Some(thread), end: None, runs: false })
}

struct Listener(Sender<News>);

impl Reader for Listener {
    fn image(&mut self, manifest: Manifest) {
        let _gone = self.0.send(News::Image(Box::new(manifest)));
    }

    fn no_image(&mut self) {
        self.event(Event::Text(format!("bulkhead: {}", log::NO_IMAGE)));
    }

    fn event(&mut self, event: Event) {
        let _gone = self.0.send(News::Event(event));
    }
}

impl Feed {
    /// The next news, if some comes within `patience`; notes the end.
    fn next(&mut self, patience: Duration) -> Option<News> {
        match self.news.recv_timeout(patience) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.note_end();
                None
            }
        }
    }

    fn note_end(&mut self) {
        if let Some(thread) = self.thread.take() {
            let defect = || {
                Error::failed(
                    "the log's reader ended",
                    "a defect of this command",
                    "please report it",
                )
            };
            self.end = Some(thread.join().unwrap_or_else(|_| Err(defect())));
        }
    }
}

/// Takes news from the feed to screen, metrics and trace.
struct Watcher {
    model: metrics::Shared,
    trace: Option<Trace>,
    feed: Feed,
    /// Where plain lines go; none while the screen is drawn.
    lines: Option<Screen>,
}

impl Watcher {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that comes within one beat; returns whether something did.
    fn take(&mut self) -> Result<bool> {
        let mut some = false;
        // No more than so much before the next look at the keys, however fast it comes.
        for _ in 0..10_000 {
            let patience = if some { Duration::ZERO } else { BEAT };
            match self.feed.next(patience) {
                Some(News::Image(manifest)) => {
                    if let Some(lines) = &mut self.lines {
                        lines.name_partitions(&manifest);
                    }
                    self.model().image(*manifest);
                }
                Some(News::Event(event)) => self.event(&event)?,
                None => break,
            }
            some = true;
        }
        Ok(some)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        if let Some(lines) = &self.lines {
            lines.show(event);
        }
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.event(event);
        match &mut self.trace {
            Some(trace) => trace.event(event, &model),
            None => Ok(()),
        }
    }

    /// Prints lines until the log ends.
    fn lines(&mut self) -> Result<()> {
        self.lines = Some(Screen::new(None, false));
        while self.feed.end.is_none() && !interrupt::requested() {
            self.take()?;
        }
        Ok(())
    }

    /// Draws until the user quits.
    fn screen(&mut self, source: &str) -> Result<()> {
        let mut terminal = ratatui::try_init().map_err(|cause| no_screen(&cause))?;
        let watched = self.draw_on(&mut terminal, source);
        ratatui::try_restore().map_err(|cause| no_screen(&cause))?;
        watched
    }

    fn draw_on(&mut self, terminal: &mut DefaultTerminal, source: &str) -> Result<()> {
        self.draw(terminal, source)?;
        while !interrupt::requested() {
            let ended = self.feed.end.is_some();
            let some = if ended { false } else { self.take()? };
            match keys(if ended { BEAT } else { Duration::ZERO })? {
                Key::Quit => return Ok(()),
                Key::Redraw => self.draw(terminal, source)?,
                Key::None if some || self.feed.end.is_some() != ended => {
                    self.draw(terminal, source)?
                }
                Key::None => {}
            }
        }
        Ok(())
    }

    fn draw(&self, terminal: &mut DefaultTerminal, source: &str) -> Result<()> {
        let end =
            self.feed.end.as_ref().map(|end| end.as_ref().copied().map_err(ToString::to_string));
        let status = Status { source, end };
        let model = self.model();
        terminal
            .draw(|frame| view::draw(frame, &model, &status))
            .map_err(|cause| no_screen(&cause))?;
        Ok(())
    }

    /// Ends the run behind it and the trace file; what the log ended with is what the command ends with.
    fn close(mut self, watched: Result<()>) -> Result<()> {
        interrupt::request();
        if self.feed.runs && self.feed.end.is_none() {
            self.end_run();
        }
        if let Some(trace) = self.trace.take() {
            trace.finish(&self.model())?;
        }
        watched?;
        // Quitting ends the run that was watched, which is no failure.
        match self.feed.end {
            Some(Err(Error::Interrupted(_))) | None => Ok(()),
            Some(end) => end,
        }
    }

    /// Waits for a run to take its machine down. A reader that waits for bytes from elsewhere is left to the end of the command.
    fn end_run(&mut self) {
        for _ in 0..BEATS_TO_END {
            let ended = self.feed.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if ended {
                self.feed.note_end();
                return;
            }
            std::thread::sleep(BEAT);
        }
    }
}

/// What the user wants.
enum Key {
    Quit,
    Redraw,
    None,
}

/// Looks at the keys for as long as `patience`. The library is asked only while the terminal is there: of one that hung up it reads
/// nothing for ever.
fn keys(patience: Duration) -> Result<Key> {
    let lost = |cause: std::io::Error| no_screen(&cause);
    wait_for_input(patience)?;
    if !event::poll(Duration::ZERO).map_err(lost)? {
        return Ok(Key::None);
    }
    Ok(match event::read().map_err(lost)? {
        Input::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
            _ => Key::None,
        },
        Input::Resize(..) => Key::Redraw,
        _ => Key::None,
    })
}

/// Waits until the terminal has something to read, at most for `patience`; a change of its size ends the wait too.
fn wait_for_input(patience: Duration) -> Result<()> {
    const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);
    let screen = std::io::stdout();
    let mut look = [PollFd::new(&screen, PollFlags::IN)];
    let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    match poll(&mut look, Some(&patience)) {
        Ok(_) if look[0].revents().intersects(GONE) => {
            Err(no_screen(&std::io::Error::other("the terminal is gone")))
        }
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(cause) => Err(no_screen(&cause.into())),
    }
}

fn no_screen(cause: &std::io::Error) -> Error {
    Error::failed(
        "cannot draw on this terminal",
        cause,
        "give --plain for plain lines, or run it on another terminal",
    )
}
