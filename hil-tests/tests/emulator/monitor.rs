//! `bulkhead monitor` on a pseudo-terminal, fed by what a run in the emulator said; its metrics and its trace file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead::{paths, process};
use hil_tests::{
    bench,
    terminal::{self, Terminal},
};
use hv_core::health::{Incident, Party, What};
use hv_core::wire::{self, Kind, Packet};
use portable_pty::CommandBuilder;
use serde_json::Value;

use crate::shared::{COMMAND, DEMO, DEMO_RUN, PLANS};

/// Ticks by which the window in [`late_window`] is late.
const LATE: u64 = 1_234;

/// A health event as the hypervisor of the demo would send it.
fn late_window() -> Vec<u8> {
    let incident = Incident {
        what: What::LateWindow { ticks: LATE },
        subject: Party::Partition(1),
        offender: Party::Partition(2),
        frame: 77,
    };
    let id = bulkhead::elf::LogElf::load(&DEMO.elf).unwrap().build_id()[..4].try_into().unwrap();
    let payload = incident.to_bytes();
    let packet =
        Packet { kind: Kind::Incident, source: 0, build: id, tsc: 60_000_000, payload: &payload };
    wire::encode(&packet, &mut [0; wire::MAX_ENCODED]).unwrap().to_vec()
}

/// The demo's log in two: up to the first sixth of its packets' bytes, and the rest; cut between two packets.
fn halves() -> (&'static [u8], &'static [u8]) {
    let serial = &DEMO_RUN.serial;
    let (zeros, third) = (|at: &usize| serial[*at] == 0, serial.len() / 3);
    // Two zeros in a row end one packet and begin the next.
    let cut = (third..serial.len() - 1).find(|at| zeros(at) && zeros(&(at + 1))).unwrap() + 1;
    serial.split_at(cut)
}

fn command() -> CommandBuilder {
    let mut command = CommandBuilder::new(&*COMMAND);
    command.env("TERM", "xterm-256color");
    command.cwd(bench::root());
    command
}

#[test]
fn monitor_shows_a_running_system_on_a_terminal() {
    let folder = bench::folder("monitor");
    let fifo = folder.join("line");
    paths::remove_stale(&fifo).unwrap();
    process::run(Command::new("mkfifo").arg(&fifo), "mkfifo", "look").unwrap();
    let mut command = command();
    command.args(["monitor", "--metrics", "127.0.0.1:0", "--elf"]);
    command.args([DEMO.elf.as_os_str(), "line".as_ref()]);
    // By its short name, which stands in the picture.
    command.cwd(&folder);
    let mut terminal = Terminal::start(command, 34, 110);
    // Opening blocks until the monitor listens.
    let mut line = File::options().write(true).open(&fifo).unwrap();
    let (first, rest) = halves();
    line.write_all(first).unwrap();
    terminal.wait_for(&[
        "demo on bochs-skylake-x",
        "motion",
        "plc",
        "noise",
        "running",
        "dedicated",
    ]);
    assert!(!terminal.screen().contents().contains("at end"), "{}", terminal.screen().contents());
    assert!(!terminal.screen().contents().contains("health:"));

    line.write_all(&late_window()).unwrap();
    terminal.wait_for(&["health: 1 event", "1,234 ticks late"]);
    let url = terminal.output();
    let address = url.split("http://").nth(1).unwrap().split("/metrics").next().unwrap();
    let answer = ask(address);
    assert!(answer.contains("application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    let late =
        r#"bulkhead_health_events_total{incident="late_window",subject="plc",offender="noise"} 1"#;
    assert!(answer.contains(late), "{answer}");

    for (rows, columns) in [(12, 50), (5, 20), (2, 9), (34, 110)] {
        terminal.resize(rows, columns);
        std::thread::sleep(Duration::from_millis(150));
    }
    terminal.wait_for(&["demo on bochs-skylake-x", "motion"]);
    line.write_all(rest).unwrap();
    drop(line);
    // How often noise ran follows the last instants of the run; the monitor shows what the report says.
    let noise = DEMO_RUN.report.partition("noise").and_then(|it| it.windows).unwrap();
    let windows = bulkhead::screen::grouped(noise.run);
    terminal.wait_for(&["passed", "wakeup", "20,000", &windows, "ended"]);
    let picture = terminal::svg(&terminal.screen());
    paths::write(&folder.join("monitor.svg"), picture.as_bytes()).unwrap();
    if bench::writes_again() {
        paths::write(&bench::root().join("tools/monitor.svg"), picture.as_bytes()).unwrap();
    }

    terminal.press("q");
    assert_eq!(terminal.end(), 0);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!terminal.screen().alternate_screen(), "the terminal is not as it was");
    assert!(!terminal.screen().hide_cursor(), "the cursor is gone");
}

/// A window that is closed takes the monitor with it, whatever became of the signal that goes with that.
#[test]
fn monitor_ends_with_its_terminal() {
    let folder = bench::folder("monitor-closed");
    let log = folder.join("log");
    paths::write(&log, halves().0).unwrap();
    let mut command = CommandBuilder::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command.arg(&*COMMAND);
    command.args(["monitor", "--elf"]);
    command.args([DEMO.elf.as_os_str(), log.as_os_str()]);
    command.env("TERM", "xterm-256color");
    command.cwd(bench::root());
    assert_ne!(terminal::close_under(command), 0);
}

/// Asks for the figures.
fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn monitor_prints_plain_lines_where_it_cannot_draw() {
    let log = bench::folder("monitor").join("saved.log");
    paths::write(&log, &DEMO_RUN.serial).unwrap();
    let plain = monitor(&log, &DEMO.elf, &[]).output().unwrap();
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(plain.status.success() && text.contains("  motion │ @bulkhead verdict pass"), "{text}");
    assert!(!text.contains('\u{1b}'), "there are escape sequences in a file");

    let mut dumb = command();
    dumb.env("TERM", "dumb");
    dumb.args(["monitor".as_ref(), "--elf".as_ref(), DEMO.elf.as_os_str(), log.as_os_str()]);
    let mut terminal = Terminal::start(dumb, 60, 200);
    assert_eq!(terminal.end(), 0);
    assert!(terminal.output().contains("plain lines follow"), "{}", terminal.output());

    // A reader that goes away at once.
    let mut closed = monitor(&log, &DEMO.elf, &[]).stdout(Stdio::piped()).spawn().unwrap();
    drop(closed.stdout.take());
    assert!(closed.wait().unwrap().success());
}

#[test]
fn monitor_refuses_what_it_cannot_have() {
    let nowhere = monitor(Path::new("/no/such/port"), &DEMO.elf, &[]).output().unwrap();
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/no/such/port"));
    let log = bench::folder("monitor").join("empty.log");
    paths::write(&log, b"").unwrap();
    let elsewhere = monitor(&log, &DEMO.elf, &["--metrics", "203.0.113.1:9"]).output().unwrap();
    let words = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert_eq!(elsewhere.status.code(), Some(2), "{words}");
    assert!(words.contains("cannot serve metrics on 203.0.113.1:9"), "{words}");
}

#[test]
fn monitor_writes_a_trace_with_every_window_once() {
    let (built, run) = &*PLANS;
    let folder = bench::folder("monitor");
    let (log, trace) = (folder.join("plans.log"), folder.join("trace.json"));
    paths::write(&log, &run.serial).unwrap();
    let options = ["--trace", trace.to_str().unwrap()];
    assert!(monitor(&log, &built.elf, &options).stdout(Stdio::null()).status().unwrap().success());
    let file: Value = serde_json::from_slice(&fs::read(&trace).unwrap()).unwrap();
    let events = file["traceEvents"].as_array().unwrap();
    let slices: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    let number = |value: &Value| value.as_u64().unwrap();
    let told: BTreeSet<(u64, u64, u64, String)> = slices
        .iter()
        .map(|slice| {
            let args = &slice["args"];
            let name = slice["name"].as_str().unwrap().to_string();
            (number(&slice["tid"]), number(&args["entered"]), number(&args["left"]), name)
        })
        .collect();
    let ran: BTreeSet<(u64, u64, u64, String)> = run
        .report
        .trace
        .iter()
        .map(|window| {
            let name = window.ran.clone().unwrap_or_else(|| "hypervisor".to_string());
            (u64::from(window.cpu), window.entered, window.left, name)
        })
        .collect();
    assert!(!ran.is_empty());
    assert_eq!(slices.len(), ran.len(), "a window is there twice");
    assert_eq!(told, ran);
    for slice in slices {
        let (ticks, at) =
            (number(&slice["args"]["left"]) - number(&slice["args"]["entered"]), &slice["dur"]);
        assert!((at.as_f64().unwrap() - ticks as f64 / 50.0).abs() < 0.001, "{slice}");
    }
}

/// Exits of a dedicated core are told while it runs, by another core, and at no exit of its own.
#[test]
fn monitor_counts_exits_of_a_dedicated_core_live() {
    let folder = bench::folder("monitor");
    let (log, trace) = (folder.join("live.log"), folder.join("live.json"));
    paths::write(&log, &DEMO_RUN.serial).unwrap();
    let options = ["--trace", trace.to_str().unwrap()];
    assert!(monitor(&log, &DEMO.elf, &options).stdout(Stdio::null()).status().unwrap().success());
    let file: Value = serde_json::from_slice(&fs::read(&trace).unwrap()).unwrap();
    let counters = file["traceEvents"].as_array().unwrap().iter();
    let told: Vec<u64> = counters
        .filter(|event| event["ph"] == "C" && event["name"] == "exits of motion")
        .map(|event| event["args"]["exits"].as_u64().unwrap())
        .collect();
    println!("exits of motion, as told live: {told:?}");
    let motion = DEMO_RUN.report.partition("motion").unwrap();
    assert!(told.len() >= 10 && told.is_sorted(), "{told:?}");
    // It prints what it measured at the end; before that it measures, and takes none.
    assert!(told[0] > 0 && told[9] == told[1], "{told:?}");
    assert!(told.last().unwrap() <= &motion.exits_total(), "{told:?}");
}

fn monitor(log: &Path, elf: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(&*COMMAND);
    command.arg("monitor").arg(log).arg("--elf").arg(elf).args(options).stdin(Stdio::null());
    command.current_dir(bench::root());
    command
}
