//! A real board: the image brought to it, its power switched, its serial line heard, and a board that hangs tried again.
//!
//! A rig file names serial line, power switch and boot medium (`hil-tests/rigs/example.toml` has every key). A run on it ends in the
//! same [`Run`] as one in an emulator.

pub mod file;
pub mod line;
pub mod power;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::elf::LogElf;
use crate::error::{Error, Result};
use crate::flash::{FlashOptions, flash};
use crate::interrupt;
use crate::listen::{LastWord, Listener};
use crate::manifest::Manifest;
use crate::paths;
use crate::report::RanOn;
use crate::run::{self, Exit, Run, RunOptions, too_late};
use crate::talk::{Talk, Turn};
use line::{Heard, Line};

/// What the board's own firmware is called in reports: whether BIOS or UEFI, the rig does not know.
const FIRMWARE: &str = "the board's own firmware";

/// A rig, as its file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rig {
    /// The rig file.
    pub file: PathBuf,
    /// What reports call it.
    pub name: String,
    /// `[board] name` of the board that stands there.
    pub board: String,
    /// The line on which it is heard.
    pub serial: Serial,
    /// Its switch.
    pub power: Power,
    /// How images get to it.
    pub medium: Medium,
    /// When it counts as hung, and how often it is tried.
    pub limits: Limits,
}

/// A serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Such as `/dev/ttyUSB0`.
    pub device: PathBuf,
    /// Bits a second.
    pub baud: u32,
}

/// A power switch: commands, each a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Power {
    /// Switches on.
    pub on: Vec<String>,
    /// Switches off; also where it is off already.
    pub off: Vec<String>,
    /// Does both. Without it: off, wait, on.
    pub cycle: Option<Vec<String>>,
    /// How long the board stays off.
    pub wait: Duration,
    /// What each command may take.
    pub timeout: Duration,
}

/// How an image gets to the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// By a command in which [`file::IMAGE`] stands for the image's path.
    Command {
        /// Program and arguments.
        words: Vec<String>,
        /// What it may take.
        timeout: Duration,
    },
    /// By writing this device of the machine here.
    Flash(PathBuf),
}

/// When a board counts as hung, and how often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From power on to the hypervisor's first word.
    pub banner: Duration,
    /// Longest time without a byte behind that.
    pub silence: Duration,
    /// Boots in all.
    pub attempts: u32,
}

impl Rig {
    /// Reads a rig file.
    ///
    /// # Errors
    /// As [`file::load`].
    pub fn load(path: &Path) -> Result<Self> {
        file::load(path)
    }

    fn switch(&self, words: &[String], deed: &str, key: &str) -> Result<()> {
        power::run(&power::Job {
            words,
            folder: self.folder(),
            timeout: self.power.timeout,
            deed: &format!("{deed} of rig {}", self.name),
            key,
            may_be_interrupted: false,
        })
    }

    /// Where the commands run.
    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    fn off(&self) -> Result<()> {
        self.switch(&self.power.off, "cannot switch off the board", "power.off")
    }

    fn on(&self) -> Result<()> {
        self.switch(&self.power.on, "cannot switch on the board", "power.on")
    }

    fn cycle(&self) -> Result<()> {
        if let Some(cycle) = &self.power.cycle {
            return self.switch(cycle, "cannot power-cycle the board", "power.cycle");
        }
        self.off()?;
        std::thread::sleep(self.power.wait);
        self.on()
    }

    /// Brings the image to the board, which is off.
    fn bring(&self, image: &Path, quiet: bool) -> Result<()> {
        match &self.medium {
            Medium::Command { words, timeout } => {
                let image = image.display().to_string();
                let words: Vec<String> =
                    words.iter().map(|word| word.replace(file::IMAGE, &image)).collect();
                power::run(&power::Job {
                    words: &words,
                    folder: self.folder(),
                    timeout: *timeout,
                    deed: &format!("cannot bring the image to the board of rig {}", self.name),
                    key: "medium.command",
                    may_be_interrupted: true,
                })
            }
            Medium::Flash(device) => {
                let (image, device) = (image.to_path_buf(), device.clone());
                flash(&FlashOptions { image, device, yes: true, quiet })
            }
        }
    }

    fn check_board(&self, manifest: &Manifest) -> Result<()> {
        if manifest.board == self.board {
            return Ok(());
        }
        Err(Error::refused(
            format!("{} is not for the board of rig {}", manifest.system, self.name),
            format!("it was built for {}, and {} stands there", manifest.board, self.board),
            "name that board's file in `[system] board`, or correct `board` in the rig file",
        ))
    }
}

/// How one boot of the board went.
enum Outcome {
    /// It came to its last word.
    Ended(LastWord),
    /// It hangs, or was lost: why.
    Hung(String),
}

/// Runs an image on the board of `rig`, and leaves that switched off. The whole log of all attempts is kept beside the image, in
/// `IMAGE.rig.log`.
///
/// # Errors
/// The image is for another board; a command of the rig fails; the board hangs in every attempt; it does not end in time; what it says
/// is of another build.
pub fn run(
    rig: &Rig,
    image: &Path,
    manifest: &Manifest,
    elf: Option<&LogElf>,
    options: &RunOptions,
) -> Result<Run> {
    rig.check_board(manifest)?;
    let log = log_path(image);
    let mut talk = Talk::open(options, manifest)?;
    let mut line = Line::open(&rig.serial, &log)?;
    rig.off()?;
    rig.bring(image, options.quiet)?;
    std::thread::sleep(rig.power.wait);
    let result = try_often(rig, &mut line, &mut talk, manifest, elf, options);
    // The run has its result already; a board that stays on is worth a word and no more.
    if let Err(error) = rig.off() {
        options.audience().tell(&error.to_string());
    }
    result
}

/// Where the whole log of a run on a rig is kept.
#[must_use]
pub fn log_path(image: &Path) -> PathBuf {
    paths::beside(image, ".rig.log")
}

fn try_often(
    rig: &Rig,
    line: &mut Line,
    talk: &mut Talk,
    manifest: &Manifest,
    elf: Option<&LogElf>,
    options: &RunOptions,
) -> Result<Run> {
    let attempts = rig.limits.attempts;
    let mut reasons = Vec::new();
    for attempt in 1..=attempts {
        line.note(&format!("attempt {attempt} of {attempts}"))?;
        line.drop_old();
        if attempt == 1 {
            rig.on()?
        } else {
            rig.cycle()?
        }
        let boot = format!("booting {} (attempt {attempt} of {attempts})", rig.name);
        let mut listener = Listener::new(manifest, elf, boot, &options.audience());
        talk.begin_again(options, manifest)?;
        talk.tap(&mut listener);
        match follow(rig, line, &mut listener, talk, options)? {
            Outcome::Ended(word) => {
                let board = RanOn {
                    emulator: format!("rig {}", rig.name),
                    processor: String::new(),
                    firmware: FIRMWARE.to_string(),
                    exact: true,
                };
                let mut run = listener.finish(exit(word), &board);
                run.report.ticks = ticks(manifest.tsc_hz);
                run.untyped = talk.untyped(manifest);
                return Ok(run);
            }
            Outcome::Hung(why) => {
                listener.give_up();
                let latest = listener.diagnosis().unwrap_or_else(|| listener.latest());
                let said =
                    format!("attempt {attempt} of {attempts}: {why}; it said last: {latest}");
                options.audience().tell(&said);
                reasons.push(said);
            }
        }
    }
    Err(Error::failed(
        format!("the board of rig {} did not come to an end in {attempts} attempts", rig.name),
        reasons.join("\n          "),
        format!(
            "look at the whole log, {}; check power, boot medium and serial line by hand",
            line.log().display()
        ),
    ))
}

const fn exit(word: LastWord) -> Exit {
    match word {
        LastWord::Orderly => Exit::PoweredOff,
        LastWord::Refusal => Exit::Halted,
    }
}

/// What a tick is on a board.
fn ticks(hz: u64) -> String {
    format!(
        "ticks are those of the board's time-stamp counter, {hz} in a second as its board file declares"
    )
}

/// Follows one boot.
fn follow(
    rig: &Rig,
    line: &mut Line,
    listener: &mut Listener<'_>,
    talk: &mut Talk,
    options: &RunOptions,
) -> Result<Outcome> {
    let limit = run::limit(options);
    let began = Instant::now();
    loop {
        let heard = line.listen()?;
        let broken = match heard {
            Heard::Bytes(bytes) => {
                listener.hear(&bytes)?;
                None
            }
            Heard::BrokeOff(cause) => Some(cause),
        };
        let (broken, left) = match (broken, talk.turn(listener)?) {
            (None, Turn::Send(bytes)) => (line.send(&bytes), false),
            (broken, turn) => (broken, turn == Turn::Leave),
        };
        if let Some(cause) = broken {
            line.note("the line broke off")?;
            let said = format!("the serial line broke off ({cause}); it is opened again");
            options.audience().tell(&said);
        }
        if let Some(word) = listener.ended() {
            return Ok(Outcome::Ended(word));
        }
        if interrupt::requested() || left {
            return Err(Error::Interrupted(format!(
                "the board of rig {} is switched off",
                rig.name
            )));
        }
        if let Some(why) = hung(rig, listener, began.elapsed()) {
            return Ok(Outcome::Hung(why));
        }
        if began.elapsed() >= limit {
            return Err(too_late(limit, &listener.latest()));
        }
    }
}

/// Why the board counts as hung, if it does.
fn hung(rig: &Rig, listener: &Listener<'_>, since_power: Duration) -> Option<String> {
    let Limits { banner, silence, .. } = rig.limits;
    if listener.starts() > 1 {
        return Some("the board started anew by itself".to_string());
    }
    if !listener.is_up() {
        let late =
            format!("no word of the hypervisor within {:.1} s of power on", banner.as_secs_f64());
        return (since_power >= banner).then_some(late);
    }
    let quiet = format!("nothing came for {:.1} s", silence.as_secs_f64());
    (listener.quiet_for() >= silence).then_some(quiet)
}
