//! Debian's kernels, as they are: two of them in one system, typed to and switched off; and, as long runs, the real-time kernel's latency
//! beside that of the same kernel without a hypervisor, and a Linux that reboots for ever beside loops that do not notice.
//!
//! Unpacking a kernel alone takes 3.7 G ticks.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use bulkhead::decode::Event;
use bulkhead::emulator::bochs;
use bulkhead::{Run, RunOptions, linux};
use hil_tests::{bench, checks, systems};

/// Wall-clock time that a boot may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// Exits by I/O of a Linux whose console is a page: probing of a PC's devices. One that boots with its console on the serial port takes
/// some 50,000.
const PROBING: u64 = 1_000;

/// The result of fetching Debian's kernels. Shared by all tests.
static KERNELS: LazyLock<Result<Vec<PathBuf>, String>> =
    LazyLock::new(|| linux::kernels(None, true).map_err(|error| error.to_string()));

fn run(image: PathBuf) -> Run {
    run_with(RunOptions { image, ..RunOptions::default() })
}

fn run_with(options: RunOptions) -> Run {
    bench::run_with(RunOptions { timeout: Some(LIMIT), ..options })
}

/// Lines that Linux said, in a partition or natively.
fn lines(run: &Run) -> impl Iterator<Item = &str> {
    run.events.iter().filter_map(|event| match event {
        Event::Console { line, .. } | Event::Text(line) => Some(line.trim_end_matches('\r')),
        _ => None,
    })
}

/// The shipped system: each Linux shows a prompt, takes a command and switches itself off; nobody beside them notices.
#[test]
#[cfg_attr(no_kernels, ignore = "Debian's kernels could not be fetched")]
fn two_linuxes_take_commands_and_switch_themselves_off() {
    bench::sure("get Debian's kernels", KERNELS.as_ref());
    let system = bench::root().join("partitions/linux-rt.toml");
    let typed = [
        ("linux", "grep -c ^processor /proc/cpuinfo"),
        ("linux", "echo answer $((6*7))"),
        ("linux", "poweroff -f"),
        ("office", "echo answer $((5*5))"),
        ("office", "poweroff -f"),
    ];
    let image = bench::build(&system, "linux-rt").image;
    let typed = typed.map(|(name, line)| (name.to_string(), line.to_string())).to_vec();
    let run = run_with(RunOptions { image, typed, ..RunOptions::default() });
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));
    for answer in ["2", "answer 42", "answer 25"] {
        assert!(lines(&run).any(|line| line == answer), "nobody answered {answer}");
    }
    for name in ["linux", "office"] {
        checks::want_none(&checks::check_fate(report, name, "off"));
        assert_eq!(report.partition(name).unwrap().console_lost, 0);
    }
    checks::want_none(&checks::check_passed(report, "motion"));
    checks::want_none(&checks::check_passed(report, "plc"));
    let motion = report.partition("motion").unwrap();
    assert_eq!(motion.span_exits, Some(0));
    assert!(motion.histogram("wakeup").unwrap().max <= checks::WAKEUP);
    for name in ["plc", "guard", "office"] {
        checks::want_none(&checks::check_windows(report, name));
    }
    let office = report.partition("office").unwrap();
    let ports = office.exits.get("I/O port").copied().unwrap_or(0);
    assert!(ports <= PROBING, "a console that needs no exit, and {ports} exits");
}

/// The line with which the first program says what it runs on: kernel, processors, timer, frequency, clock.
fn machine(run: &Run) -> String {
    let line = lines(run).find(|line| line.starts_with("init: Linux"));
    let line = line.unwrap_or_else(|| panic!("Linux never came to its first program"));
    line.split(", up").next().unwrap_or(line).to_owned()
}

/// Latencies in nanoseconds of the kernel's clock, from the histogram of cyclictest: bucket and count, summed over its threads.
fn latencies(run: &Run) -> Vec<(u64, u64)> {
    let bucket = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        let latency = words.next()?.ok()?;
        let counts: Vec<u64> = words.collect::<Result<_, _>>().ok()?;
        Some((latency, counts.iter().sum())).filter(|_| !counts.is_empty())
    };
    let found: Vec<_> = lines(run).filter_map(bucket).filter(|(_, count)| *count > 0).collect();
    assert!(!found.is_empty(), "cyclictest left no histogram");
    found
}

/// The latency that so many in a thousand samples do not exceed.
fn percentile(latencies: &[(u64, u64)], thousandths: u64) -> u64 {
    let all: u64 = latencies.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    let reached = latencies.iter().find(|(_, count)| {
        below += count;
        below * 1000 >= all * thousandths
    });
    reached.map_or(0, |(latency, _)| *latency)
}

/// Words for the kernel in both runs, so that they are one workload. The emulator's CPUID says 3.5 GHz where 50 MHz pass; and natively the
/// kernel neither trusts the deadline timer of this processor's microcode nor uses XSAVE, whose sizes in CPUID contradict each other.
/// No console: an open serial port without an interrupt is polled, 143 exits a second.
const COMMAND_LINE: &str = "earlyprintk=ttyS0,115200 nokaslr tsc=reliable tsc_early_khz=50000 lapic=notscdeadline lpj=200000 no_timer_check nowatchdog mitigations=off noxsave";

/// Said first of all by the code that unpacks the kernel, and by the first program.
const FIRST_WORDS: &str = "KASLR disabled";
const MARK: &str = "mark";

/// What runs instead of the shell: 100,000 samples, one each 257 us, in nanoseconds of the kernel's clock; of the histogram, the buckets
/// that are not empty. The interval shares no factor with the kernel's tick of 4 ms: samples meet it in every phase, and not in the one in
/// which the program happened to start. The serial port is open before and behind it only.
const PROGRAM: &str = "-- cat /tmp/machine > /dev/ttyS0; echo mark > /dev/ttyS0; \
     cyclictest -t1 -m -p 98 -N -i 257 -l 100000 -q -h 400000 > /tmp/found; \
     grep -v ^[0-9]*[[:space:]0]*$ /tmp/found > /dev/ttyS0";

/// Hundredths that a percentile may be above the same kernel's without a hypervisor.
const COST: u64 = 2;
/// The same for the ticks from a kernel's start to its first program.
const BOOT_COST: u64 = 10;

/// A control loop, and Linux with `words` on core 2 or more.
fn beside_motion(name: &str, samples: u64, words: &str, cores: &str) -> PathBuf {
    bench::sure("get Debian's kernels", KERNELS.as_ref());
    let text = format!(
        "[system]\nname = \"{name}\"\nboard = \"@/boards/bochs-skylake-x.toml\"\n[schedule]\nframe = \"2 ms\"\n\
         [shutdown]\nwhen-finished = [\"motion\"]\n[housekeeping]\ncore = 0\n\
         [[housekeeping.window]]\nstart = \"1 ms\"\nlength = \"900 us\"\n\
         [partition.motion]\nimage = \"@/guests/latency\"\narguments = \"period=99980ns samples={samples}\"\n\
         memory = \"8 MiB\"\ncores = [1]\n\
         [partition.plc]\nimage = \"@/guests/plc\"\narguments = \"windows={}\"\nmemory = \"8 MiB\"\ncores = [0]\n\
         [[partition.plc.window]]\nstart = \"25 us\"\nlength = \"600 us\"\n\
         [partition.linux]\nkernel = \"@/linux/vmlinuz-rt\"\ninitrd = \"@/linux/initrd-rt\"\n\
         cmdline = \"{words}\"\nmemory = \"192 MiB\"\ncores = {cores}\n",
        samples / 25
    );
    systems::write(name, &text)
}

/// Whether `much` is not more than so many hundredths above `base`.
const fn within(base: u64, much: u64, hundredths: u64) -> bool {
    much * 100 <= base * (100 + hundredths)
}

/// What the hypervisor costs: the real-time kernel's latencies in a partition beside the same kernel's without one, and the ticks from its
/// start to its first program.
#[test]
#[ignore = "two boots of Linux in an emulator take many minutes; `cargo verify --long` runs it"]
fn long_linux_latency_is_that_without_a_hypervisor() {
    let words = format!("{COMMAND_LINE} {PROGRAM}");
    let system = beside_motion("linux-latency", 20_000, &words, "[2]");
    let text = systems::read(&system).replace("[\"motion\"]", "[\"motion\", \"linux\"]");
    let system = systems::write("linux-latency", &text);
    let image = bench::build(&system, "linux-latency").image;
    let guest = run_with(RunOptions { image, cores: Some(3), ..RunOptions::default() });
    checks::print(&guest.report);
    checks::want_none(&checks::check_fate(&guest.report, "linux", "off"));
    checks::want_none(&checks::check_passed(&guest.report, "motion"));
    assert_eq!(guest.report.partition("motion").unwrap().span_exits, Some(0));

    let image = bench::build_alone(&system, "linux-native", "linux").image;
    let folder = bench::folder("linux-native").join("run");
    let options = RunOptions {
        image,
        folder: Some(folder.clone()),
        serial_ticks: true,
        ..RunOptions::default()
    };
    let native = run_with(options);
    let log = systems::read(&folder.join("bochs.log"));
    assert_eq!(machine(&guest), machine(&native), "two workloads, not one");

    let mut complaints = Vec::new();
    let found = [&guest, &native].map(latencies);
    for part in [500, 900, 990, 999, 1000] {
        let [in_partition, alone] = found.each_ref().map(|found| percentile(found, part));
        let words = format!(
            "{part} of 1000 samples: {in_partition} ns in a partition, {alone} ns without a hypervisor"
        );
        println!("{words}");
        if part < 1000 && !within(alone, in_partition, COST) {
            complaints.push(words);
        }
    }
    let [in_partition, alone] = [boot_ticks(&guest), native_boot_ticks(&log)];
    let words = format!(
        "start to first program: {in_partition} ticks in a partition, {alone} without a hypervisor"
    );
    println!("{words}");
    if !within(alone, in_partition, BOOT_COST) {
        complaints.push(words);
    }
    let rates = steady(&guest);
    println!("while it measured, exits per second: {rates:?}");
    if !rates.is_empty() {
        complaints.push(format!("exits while it measured: {rates:?}"));
    }
    checks::want_none(&complaints);
}

/// TSC of the first line of Linux that starts with `words`.
fn said_at(run: &Run, words: &str) -> u64 {
    let found = run.events.iter().find_map(|event| match event {
        Event::Console { tsc, line, .. } if line.starts_with(words) => Some(*tsc),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("Linux never said {words}"))
}

/// Ticks from the partition's first entry to the mark.
fn boot_ticks(guest: &Run) -> u64 {
    let entered = guest.report.partition("linux").and_then(|linux| linux.first_entry);
    said_at(guest, MARK) - entered.expect("Linux was entered")
}

/// The same without a hypervisor, by the emulator's log: from the first words of the kernel's own code.
fn native_boot_ticks(log: &str) -> u64 {
    let marks = [FIRST_WORDS, "mark\r\n"].map(|words| bochs::sent_at(log, words));
    let [Some(first), Some(mark)] = marks else { panic!("the log has no marks: {marks:?}") };
    mark - first
}

/// Exits per second by reason while it measured: in the second quarter, behind the start of its program, whose loader asks CPUID, and
/// ahead of its end.
fn steady(guest: &Run) -> Vec<(String, u64)> {
    let mark = said_at(guest, MARK);
    let linux = guest.report.partition("linux").unwrap();
    let measured: Vec<_> = linux.exits_over_time.iter().filter(|at| at.tsc > mark).collect();
    let quarter = measured.len() / 4;
    assert!(quarter >= 2, "it was looked at {} times", measured.len());
    let [from, to] = [quarter, 2 * quarter].map(|place| measured[place]);
    to.per_second_since(from, guest.report.boot.tsc_declared_hz).into_iter().collect()
}

/// A Linux that starts anew for ever, on two processors: the loops beside it take no exit and miss nothing.
#[test]
#[ignore = "three boots of Linux in an emulator take many minutes; `cargo verify --long` runs it"]
fn long_linux_reboots_for_ever_unnoticed() {
    const REBOOTS: u64 = 2;
    let words = "nokaslr mitigations=off nowatchdog -- reboot -f";
    let system = beside_motion("linux-reboots", 2_900_000, words, "[2, 3]");
    let report = run(bench::build(&system, "linux-reboots").image).report;
    checks::print(&report);
    let linux = report.partition("linux").unwrap();
    assert!(linux.restarts >= Some(REBOOTS), "{:?} restarts", linux.restarts);
    checks::want_none(&checks::check_passed(&report, "motion"));
    checks::want_none(&checks::check_passed(&report, "plc"));
    checks::want_none(&checks::check_windows(&report, "plc"));
    let motion = report.partition("motion").unwrap();
    assert_eq!(motion.span_exits, Some(0));
    assert!(motion.histogram("wakeup").unwrap().max <= checks::WAKEUP);
}
