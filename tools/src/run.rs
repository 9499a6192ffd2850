//! Runs an image: in an emulator, whose serial port and end it follows, or on a board by its rig.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::decode::Event;
use crate::elf::LogElf;
use crate::emulator::{self, Emulator, Ending, Machine, Setup, qemu};
use crate::error::{Error, Result};
use crate::listen::{Audience, Listener};
use crate::manifest::Manifest;
use crate::report::{RanOn, Report};
use crate::rig::{self, Rig};
use crate::talk::{Talk, Turn};
use crate::{interrupt, paths};

/// Wall-clock time that a run may take unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// How often the serial port is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The image; its sidecars lie beside it.
    pub image: PathBuf,
    /// The emulated machine.
    pub machine: Machine,
    /// Logical processors of the emulated machine; by default as many as the board has.
    pub cores: Option<usize>,
    /// Wall-clock limit; by default [`DEFAULT_TIMEOUT`].
    pub timeout: Option<Duration>,
    /// Where to write a picture of the screen at the end, as PNG (QEMU only).
    pub screenshot: Option<PathBuf>,
    /// Folder for the run's files; by default a new one beside the image, removed after a good run.
    pub folder: Option<PathBuf>,
    /// Shows no progress and no log.
    pub quiet: bool,
    /// A rig file: the image runs on that board, and what is said above of emulators does not hold.
    pub rig: Option<PathBuf>,
    /// Gets every event as it comes.
    pub watch: Option<Sender<Event>>,
    /// Shows the console of this partition alone, as it is, and sends it what is typed (Bochs, or a rig).
    pub console: Option<String>,
    /// Lines that are typed to partitions, in this order for each: name and line. Each waits for a prompt (Bochs, or a rig).
    pub typed: Vec<(String, String)>,
    /// Notes in Bochs' log at which tick each byte went to the serial port: a guest without the hypervisor tells no time.
    pub serial_ticks: bool,
    /// Commands that Bochs' debugger carries out before the machine runs on its own.
    pub debugger: Vec<String>,
}

impl RunOptions {
    /// Who hears of the run.
    #[must_use]
    pub fn audience(&self) -> Audience {
        let quiet = self.quiet || self.console.is_some();
        Audience { quiet, watch: self.watch.clone() }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The machine switched itself off.
    PoweredOff,
    /// The machine said its last word and stood still: a refusal, or a board without a way to switch off.
    Halted,
}

/// A run that has ended.
pub struct Run {
    /// How.
    pub exit: Exit,
    /// What was measured.
    pub report: Report,
    /// Everything that came over the serial port, as it came.
    pub serial: Vec<u8>,
    /// The same, decoded.
    pub events: Vec<Event>,
    /// The incidents among them, in words.
    pub incidents: Vec<String>,
    /// What was to be typed and was not, in sentences.
    pub untyped: Vec<String>,
}

impl Run {
    /// Lines of plain text: what was said before the log ran, and refusals.
    pub fn text(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Text(line) => Some(line.as_str()),
            _ => None,
        })
    }

    /// Messages of the hypervisor, then its incidents.
    pub fn log_lines(&self) -> impl Iterator<Item = &str> {
        let messages = self.events.iter().filter_map(|event| match event {
            Event::Log { message, .. } => Some(message.as_str()),
            _ => None,
        });
        messages.chain(self.incidents.iter().map(String::as_str))
    }
}

/// Runs an image to its end, in an emulator or on the board of a rig.
///
/// # Errors
/// No sidecars, no emulator, a crash or a hang of the emulated machine, the time limit, an interrupt. With a rig, as [`rig::run`].
pub fn run_image(options: &RunOptions) -> Result<Run> {
    interrupt::install();
    let image = paths::absolute(&options.image)?;
    let manifest = Manifest::load(&image)?;
    let elf = match manifest.native {
        Some(_) => None,
        None => Some(LogElf::load(&Manifest::elf_path(&image))?),
    };
    if let Some(file) = &options.rig {
        return rig::run(&Rig::load(file)?, &image, &manifest, elf.as_ref(), options);
    }
    let folder = options.folder.clone().unwrap_or_else(|| fresh_folder(&image));
    paths::remove_stale(&folder)?;
    paths::create(&folder)?;
    let setup = Setup {
        image: &image,
        folder: &folder,
        machine: &options.machine,
        cores: options.cores.unwrap_or(manifest.cores),
        megabytes: emulator::megabytes(manifest.memory_end, options.machine.firmware),
        two_way: options.console.is_some() || !options.typed.is_empty(),
        serial_ticks: options.serial_ticks,
        debugger: &options.debugger,
        qemu: &[],
    };
    let talk = open_talk(options, &manifest)?;
    let mut session = Session::start(options, &setup, &manifest, elf.as_ref(), talk)?;
    let exit = session.follow(options)?;
    let Session { emulator, listener, talk, .. } = session;
    let machine = &options.machine;
    let mut run = listener.finish(
        exit,
        &RanOn {
            emulator: emulator.version(),
            processor: machine.processor().to_string(),
            firmware: machine.firmware.name().to_string(),
            exact: machine.target.is_exact(),
        },
    );
    run.untyped = talk.untyped(&manifest);
    if options.folder.is_none() {
        paths::remove_stale(&folder)?;
    }
    Ok(run)
}

/// The consoles that are shown or typed at.
fn open_talk(options: &RunOptions, manifest: &Manifest) -> Result<Talk> {
    let wanted =
        options.console.as_deref().or(options.typed.first().map(|(name, _)| name.as_str()));
    if let Some(name) = wanted.filter(|_| !options.machine.target.is_bochs()) {
        return Err(Error::refused(
            format!("cannot open the console of {name}"),
            "of the emulators only Bochs has a serial line that goes both ways here",
            "leave --console and --type out, or run it in Bochs or on a rig",
        ));
    }
    Talk::open(options, manifest)
}

/// A folder that no other run of this or another process uses.
fn fresh_folder(image: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    paths::beside(image, &format!(".run-{}-{number}", std::process::id()))
}

/// A run in an emulator, under way.
struct Session<'a> {
    emulator: Emulator,
    monitor: Option<qemu::Monitor>,
    listener: Listener<'a>,
    talk: Talk,
}

impl<'a> Session<'a> {
    fn start(
        options: &RunOptions,
        setup: &Setup<'_>,
        manifest: &'a Manifest,
        elf: Option<&'a LogElf>,
        talk: Talk,
    ) -> Result<Self> {
        let (emulator, monitor) = emulator::start(setup)?;
        let boot = format!("booting in {} ({} cores)", setup.machine, setup.cores);
        let mut listener = Listener::new(manifest, elf, boot, &options.audience());
        talk.tap(&mut listener);
        Ok(Self { emulator, monitor, listener, talk })
    }

    /// Hands on what partitions said, and sends what was typed; whether the user leaves.
    fn talk(&mut self) -> Result<bool> {
        match self.talk.turn(&mut self.listener)? {
            Turn::Leave => Ok(true),
            Turn::Send(bytes) => self.emulator.write_serial(&bytes).map(|()| false),
        }
    }

    /// Follows the machine to its end.
    fn follow(&mut self, options: &RunOptions) -> Result<Exit> {
        let limit = limit(options);
        let began = Instant::now();
        loop {
            // Asked before reading: what was written before the end is then read for certain.
            let ended = self.emulator.ended()?;
            let bytes = self.emulator.read_serial()?;
            self.listener.hear(&bytes)?;
            let left = self.talk()?;
            if let Some(status) = ended {
                return self.judge_end(status);
            }
            if self.listener.ended().is_some() {
                self.picture(options)?;
                self.emulator.kill();
                return Ok(Exit::Halted);
            }
            if interrupt::requested() || left {
                self.emulator.kill();
                return Err(Error::Interrupted(format!(
                    "{} was ended; its files are beside the image",
                    self.emulator.name()
                )));
            }
            if began.elapsed() >= limit {
                return Err(self.too_late(limit, options));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The emulator ended by itself: whether that was the machine switching itself off.
    fn judge_end(&mut self, status: ExitStatus) -> Result<Exit> {
        match self.emulator.ending(status) {
            Ending::PoweredOff => Ok(Exit::PoweredOff),
            Ending::Broken(words) => Err(Error::failed(
                format!("{} ended before the machine switched itself off", self.emulator.name()),
                words.unwrap_or_else(|| "it did not say why".to_string()),
                format!(
                    "look at {} and at what the machine said last: {}",
                    self.emulator.log().display(),
                    self.listener.latest()
                ),
            )),
        }
    }

    fn too_late(&mut self, limit: Duration, options: &RunOptions) -> Error {
        let pictured =
            self.picture(options).err().map(|error| format!("; {error}")).unwrap_or_default();
        self.emulator.kill();
        too_late(limit, &format!("{}{pictured}", self.listener.latest()))
    }

    fn picture(&self, options: &RunOptions) -> Result<()> {
        match (&options.screenshot, &self.monitor) {
            (None, _) => Ok(()),
            (Some(path), Some(monitor)) => monitor.screenshot(path),
            (Some(_), None) => Err(Error::refused(
                "cannot take a picture of the screen",
                "Bochs runs without one here",
                "use --target qemu",
            )),
        }
    }
}

/// How long a run may take. Who sits at a console ends it.
pub(crate) fn limit(options: &RunOptions) -> Duration {
    let default = if options.console.is_some() { Duration::MAX } else { DEFAULT_TIMEOUT };
    options.timeout.unwrap_or(default)
}

/// A machine that goes on talking and does not end.
pub(crate) fn too_late(limit: Duration, latest: &str) -> Error {
    Error::failed(
        format!("the machine did not end within {} s", limit.as_secs()),
        format!("it said last: {latest}"),
        "give it more time with --timeout, or look at its log",
    )
}

/// Fails when a partition did not do what it has to, or when the run did not come to its end.
///
/// # Errors
/// [`Error::Verdict`] with a sentence for each.
pub fn judge(run: &Run, manifest: &Manifest) -> Result<()> {
    judge_all_but("", run, manifest)
}

/// As [`judge`], where the partition `offender` is there to be stopped by the hypervisor.
///
/// # Errors
/// As [`judge`], or it was not stopped.
pub fn judge_all_but(offender: &str, run: &Run, manifest: &Manifest) -> Result<()> {
    if !run.report.complete {
        let last = run.text().last().unwrap_or("nothing");
        let last = run.report.log.diagnosis.as_deref().unwrap_or(last);
        return Err(Error::Verdict(format!(
            "the system did not come to its orderly end; it said last: {last}"
        )));
    }
    let mut sentences = run.untyped.clone();
    if run.report.log.garbled > 0 {
        let cause = run.report.log.diagnosis.as_deref().unwrap_or("a few bytes were changed");
        sentences.push(format!(
            "{} packets of the log were garbled, so figures may be missing: {cause}",
            run.report.log.garbled
        ));
    }
    for contradiction in &run.report.log.contradictions {
        sentences.push(format!("the log contradicts itself: {contradiction}"));
    }
    sentences.extend(run.report.lost_cores.iter().map(|lost| {
        format!(
            "core {} was lost to a defect of the hypervisor or of the machine: {}; please report it",
            lost.cpu, lost.words
        )
    }));
    for partition in &run.report.partitions {
        let alone = manifest.native.as_ref().is_some_and(|name| *name != partition.name);
        let must = manifest.native.is_none() && manifest.when_finished.contains(&partition.name);
        let late = partition.windows.filter(|windows| run.report.exact && windows.late > 0);
        if let Some(windows) = late {
            sentences.push(format!(
                "{} of {} windows of {} ({}) were late: missed whole, or the switch was not done at their declared start",
                windows.late, windows.run, partition.name, partition.place
            ));
        }
        let unfinished = must && !partition.has_ended_well();
        let wrong = if partition.name == offender {
            partition.fate != "stopped"
        } else {
            partition.went_wrong() || unfinished
        };
        if alone || !wrong {
            continue;
        }
        let words = partition.verdict.as_ref().map(|v| format!(": {}", v.text)).unwrap_or_default();
        let ended = fate(&partition.fate);
        sentences
            .push(format!("partition {} ({}) {ended}{words}", partition.name, partition.place));
    }
    if sentences.is_empty() { Ok(()) } else { Err(Error::Verdict(sentences.join("\n"))) }
}

fn fate(word: &str) -> String {
    match word {
        "running" => "had not finished when the system ended".to_string(),
        "stopped" => "was stopped by the hypervisor".to_string(),
        "refused" => "was refused: its image is not the one that was proven".to_string(),
        "lost" => "was lost with a core".to_string(),
        "unknown" => "left no word of how it ended".to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{LostCore, Partition, Verdict};

    fn run(fate: &str, pass: Option<bool>, complete: bool) -> Run {
        let verdict = pass.map(|pass| Verdict { pass, text: "late".into() });
        let partition =
            Partition { name: "motion".into(), fate: fate.into(), verdict, ..Partition::default() };
        let report =
            Report { partitions: vec![partition], complete, exact: true, ..Report::default() };
        Run {
            exit: Exit::PoweredOff,
            report,
            serial: vec![],
            events: vec![],
            incidents: vec![],
            untyped: vec![],
        }
    }

    fn manifest(must_finish: bool) -> Manifest {
        let when_finished = if must_finish { vec!["motion".to_string()] } else { vec![] };
        Manifest { when_finished, ..Manifest::default() }
    }

    #[test]
    fn what_must_finish_must_pass() {
        judge(&run("passed", Some(true), true), &manifest(true)).unwrap();
        judge(&run("running", None, true), &manifest(false)).unwrap();
        judge(&run("off", None, true), &manifest(true)).unwrap();
        for (fate, pass) in
            [("running", None), ("failed", Some(false)), ("stopped", None), ("unknown", None)]
        {
            let error = judge(&run(fate, pass, true), &manifest(true)).unwrap_err();
            assert!(error.to_string().contains("motion"), "{error}");
        }
    }

    #[test]
    fn a_lost_core_counts_whoever_ran_there() {
        let mut run = run("passed", Some(true), true);
        let words = "no way (a.rs:7)".to_string();
        run.report.lost_cores = vec![LostCore { cpu: 3, tsc: 1, words }];
        let error = judge(&run, &manifest(true)).unwrap_err().to_string();
        assert!(error.contains("core 3 was lost") && error.contains("a.rs:7"), "{error}");
    }

    #[test]
    fn a_neighbour_that_went_wrong_counts_too() {
        for fate in ["failed", "stopped", "refused", "lost"] {
            assert!(judge(&run(fate, None, true), &manifest(false)).is_err(), "{fate}");
        }
    }

    #[test]
    fn a_log_that_contradicts_itself_proves_nothing() {
        let mut run = run("passed", Some(true), true);
        run.report.log.contradictions = vec!["Fate was told twice".to_string()];
        let error = judge(&run, &manifest(true)).unwrap_err();
        assert!(error.to_string().contains("contradicts itself: Fate was told twice"), "{error}");
    }

    #[test]
    fn what_was_not_typed_is_told() {
        let mut run = run("passed", Some(true), true);
        run.untyped = vec!["not all was typed to office: it showed no prompt".into()];
        let error = judge(&run, &manifest(true)).unwrap_err();
        assert!(error.to_string().contains("not all was typed to office"), "{error}");
    }

    #[test]
    fn a_run_without_an_end_is_no_success() {
        let error = judge(&run("passed", Some(true), false), &manifest(true)).unwrap_err();
        assert!(error.to_string().contains("orderly end"));
    }

    #[test]
    fn folders_of_runs_differ() {
        let image = Path::new("/x/demo.img");
        assert_ne!(fresh_folder(image), fresh_folder(image));
    }
}
