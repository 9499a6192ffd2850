//! The rig's code against an emulator behind a pseudo-terminal: a board that hangs, a line that is cut and garbled, a switch that fails.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead::emulator::{self, Emulator, Firmware, Machine, Setup, bochs};
use bulkhead::run::{Exit, judge};
use bulkhead::{RunOptions, paths, rig, run_image};
use hil_tests::bench;
use portable_pty::{PtyPair, PtySize, native_pty_system};

use crate::shared::{DEMO, DEMO_RUN};

/// How often the board looks at its switch.
const LOOK: Duration = Duration::from_millis(20);

/// How long Bochs may take to the hypervisor's first word: five times what it takes on an idle machine. The dead board is waited for as
/// long.
const BANNER: &str = "banner = \"25 s\"";

/// What the board does when it is switched on.
enum Boot {
    /// Nothing.
    Dead,
    /// It says this and hangs.
    Says(Vec<u8>),
    /// It boots what was brought to it, in Bochs. One byte of its first packet arrives wrong, and the line is pulled out for a moment
    /// behind it.
    EmulatedOnABadLine,
}

/// A board behind a pseudo-terminal. The file `power` is its switch: it is on while that exists.
struct Board {
    folder: PathBuf,
    unplugged: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Board {
    /// A board that boots once for each of `boots`, and stays dead behind them.
    fn new(name: &str, boots: Vec<Boot>) -> Self {
        let folder = bench::folder(name);
        for stale in ["power", "tty", "boot.img"] {
            paths::remove_stale(&folder.join(stale)).unwrap();
        }
        let unplugged = Arc::new(AtomicBool::new(false));
        let mut wire = Wire::new(&folder);
        let (at, stop) = (folder.clone(), unplugged.clone());
        let thread = std::thread::spawn(move || {
            let mut boots = boots.into_iter();
            while !stop.load(Ordering::Relaxed) {
                if at.join("power").exists() {
                    let boot = boots.next().unwrap_or(Boot::Dead);
                    run_board(&at, &mut wire, &boot, &stop);
                }
                std::thread::sleep(LOOK);
            }
        });
        Self { folder, unplugged, thread: Some(thread) }
    }

    /// Its rig file; `changes` exchange lines of it.
    fn rig(&self, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = "[rig]\nname = \"bench\"\nboard = \"bochs-skylake-x\"\n\
             [serial]\ndevice = \"tty\"\n\
             [power]\non = [\"touch\", \"power\"]\noff = [\"rm\", \"-f\", \"power\"]\nwait = \"100 ms\"\ntimeout = \"2 s\"\n\
             [medium]\ncommand = [\"cp\", \"{image}\", \"boot.img\"]\n\
             [limits]\nbanner = \"2 s\"\nsilence = \"1 s\"\nattempts = 2\n"
            .to_string();
        for (old, new) in changes {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, new);
        }
        let path = self.folder.join("rig.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, changes: &[(&str, &str)]) -> bulkhead::Result<bulkhead::Run> {
        let image = self.image();
        let rig = Some(self.rig(changes));
        run_image(&RunOptions {
            image,
            rig,
            quiet: true,
            timeout: Some(bench::LIMIT),
            ..RunOptions::default()
        })
    }

    /// A copy of the demo's image, so that each board keeps its own log.
    fn image(&self) -> PathBuf {
        let name = self.folder.file_name().unwrap().to_str().unwrap();
        bench::copy(&DEMO, name)
    }

    fn log(&self) -> String {
        let name = self.folder.file_name().unwrap().to_str().unwrap();
        let log = rig::log_path(&self.folder.join(format!("{name}.img")));
        String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()
    }

    fn is_off(&self) -> bool {
        !self.folder.join("power").exists()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.unplugged.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// The serial line: the board's end of a pseudo-terminal, and a link by which the rig finds the other.
struct Wire {
    link: PathBuf,
    ends: Option<(PtyPair, Box<dyn Write + Send>)>,
}

impl Wire {
    fn new(folder: &Path) -> Self {
        let mut wire = Self { link: folder.join("tty"), ends: None };
        wire.plug();
        wire
    }

    fn plug(&mut self) {
        let pair = native_pty_system().openpty(PtySize::default()).unwrap();
        let writer = pair.master.take_writer().unwrap();
        paths::remove_stale(&self.link).unwrap();
        symlink(pair.master.tty_name().unwrap(), &self.link).unwrap();
        self.ends = Some((pair, writer));
    }

    fn unplug(&mut self) {
        self.ends = None;
    }

    fn say(&mut self, bytes: &[u8]) {
        if let Some((_, writer)) = &mut self.ends {
            writer.write_all(bytes).unwrap();
        }
    }
}

/// One boot, until the switch goes off.
fn run_board(folder: &Path, wire: &mut Wire, boot: &Boot, stop: &AtomicBool) {
    let mut emulator = match boot {
        Boot::Dead => None,
        Boot::Says(words) => {
            wire.say(words);
            None
        }
        Boot::EmulatedOnABadLine => Some(start(folder)),
    };
    let mut faults = Faults::default();
    while folder.join("power").exists() && !stop.load(Ordering::Relaxed) {
        if let Some(emulator) = &mut emulator {
            let bytes = emulator.read_serial().unwrap();
            faults.pass(wire, &bytes);
        }
        std::thread::sleep(LOOK);
    }
}

fn start(folder: &Path) -> Emulator {
    let manifest = &DEMO.manifest;
    let run = folder.join("bochs");
    paths::create(&run).unwrap();
    for stale in ["serial.log", "disk.img.lock"] {
        paths::remove_stale(&run.join(stale)).unwrap();
    }
    let setup = Setup {
        image: &folder.join("boot.img"),
        folder: &run,
        machine: &Machine::default(),
        cores: manifest.cores,
        megabytes: emulator::megabytes(manifest.memory_end, Firmware::Bios),
        two_way: false,
        serial_ticks: false,
        debugger: &[],
        qemu: &[],
    };
    bochs::start(&setup).unwrap()
}

/// What the bad line does, in its order.
#[derive(Default)]
struct Faults {
    /// Bytes since the first packet began; none before it.
    packets: Option<usize>,
    pulled_at: Option<Instant>,
    plugged_again: bool,
}

impl Faults {
    /// The byte of the first packet that arrives wrong.
    const GARBLED: usize = 30;
    /// Bytes behind the first packet's begin at which the line is pulled out.
    const PULLED: usize = 300;
    /// How long it stays so.
    const PAUSE: Duration = Duration::from_millis(600);

    fn pass(&mut self, wire: &mut Wire, bytes: &[u8]) {
        for &byte in bytes {
            self.packets = match self.packets {
                None if byte == 0 => Some(0),
                count => count.map(|count| count + 1),
            };
            let byte = if self.packets == Some(Self::GARBLED) { byte ^ 0x55 } else { byte };
            wire.say(&[byte]);
            if self.packets == Some(Self::PULLED) {
                wire.unplug();
                self.pulled_at = Some(Instant::now());
            }
        }
        if !self.plugged_again && self.pulled_at.is_some_and(|at| at.elapsed() >= Self::PAUSE) {
            self.plugged_again = true;
            wire.plug();
        }
    }
}

#[test]
fn rig_survives_a_board_that_hangs_and_a_line_that_is_cut_and_garbled() {
    let _permit = bench::permit();
    let board = Board::new("rig-bad-line", vec![Boot::Dead, Boot::EmulatedOnABadLine]);
    let run =
        board.run(&[("banner = \"2 s\"", BANNER), ("silence = \"1 s\"", "silence = \"20 s\"")]);
    let run = run.unwrap();
    assert!(board.is_off());
    assert_eq!((run.exit, run.report.complete), (Exit::PoweredOff, true));
    assert_eq!(run.report.emulator, "rig bench");
    assert!(run.report.ticks.contains("50000000 in a second"), "{}", run.report.ticks);
    assert!(run.report.log.garbled > 0);
    for partition in ["motion", "plc"] {
        assert_eq!(run.report.partition(partition).unwrap().fate, "passed");
    }
    let verdict = judge(&run, &DEMO.manifest).unwrap_err().to_string();
    assert!(verdict.contains("garbled"), "{verdict}");
    let log = board.log();
    for note in ["-- attempt 1 of 2 --", "-- attempt 2 of 2 --", "-- the line broke off --"] {
        assert!(log.contains(note), "{note} is missing in the kept log");
    }
}

#[test]
fn rig_says_in_bounded_time_that_a_board_never_comes_up() {
    let board = Board::new("rig-dead", vec![]);
    let began = Instant::now();
    let error = board.run(&[]).err().unwrap().to_string();
    assert!(began.elapsed() < Duration::from_secs(30), "took {:?}", began.elapsed());
    for words in [
        "did not come to an end in 2 attempts",
        "attempt 1 of 2: no word of the hypervisor within 2.0 s of power on",
        "attempt 2 of 2",
        ".rig.log",
    ] {
        assert!(error.contains(words), "{words} is missing in\n{error}");
    }
    assert!(board.is_off());
}

#[test]
fn rig_tells_a_board_that_falls_silent_from_one_that_starts_anew() {
    let serial = &DEMO_RUN.serial;
    // The text in front of the packets, and the first of them: the greeting.
    let zeros: Vec<usize> = (0..serial.len()).filter(|at| serial[*at] == 0).take(2).collect();
    let greeted = serial[..=zeros[1]].to_vec();
    let twice = [greeted.clone(), greeted.clone()].concat();
    let board = Board::new("rig-silent", vec![Boot::Says(greeted), Boot::Says(twice)]);
    let error = board.run(&[]).err().unwrap().to_string();
    assert!(error.contains("attempt 1 of 2: nothing came for 1.0 s"), "{error}");
    assert!(error.contains("attempt 2 of 2: the board started anew by itself"), "{error}");
}

#[test]
fn rig_names_the_command_that_fails_and_the_board_that_is_another() {
    let board = Board::new("rig-refused", vec![]);
    let broken =
        [("on = [\"touch\", \"power\"]", "on = [\"sh\", \"-c\", \"echo no relay >&2; exit 3\"]")];
    let error = board.run(&broken).err().unwrap().to_string();
    assert!(
        error.contains("cannot switch on the board of rig bench") && error.contains("no relay"),
        "{error}"
    );
    let hangs = [("on = [\"touch\", \"power\"]", "on = [\"sleep\", \"60\"]")];
    let error = board.run(&hangs).err().unwrap().to_string();
    assert!(error.contains("did not end within 2.0 s"), "{error}");
    let error = board.run(&[("bochs-skylake-x", "press-7")]).err().unwrap().to_string();
    assert!(error.contains("press-7 stands there"), "{error}");
    let error = board.run(&[("\"tty\"", "\"no-such-tty\"")]).err().unwrap().to_string();
    assert!(error.contains("no-such-tty") && error.contains("`device` of [serial]"), "{error}");
}
