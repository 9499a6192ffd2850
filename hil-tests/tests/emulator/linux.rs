//! Debian's real-time kernel, as it is: in a partition beside a control loop, and natively on the same emulator with the same command
//! line. Unpacking a kernel alone takes 3.7 G ticks, so both are long runs.

use std::time::Duration;

use bulkhead::decode::Event;
use bulkhead::{Run, RunOptions, linux};
use hil_tests::{bench, checks, systems};

/// What runs instead of the shell: 500 samples at 500 Hz, in nanoseconds of the kernel's clock; of its histogram, the buckets that are not empty.
const PROGRAM: &str =
    "-- cyclictest -t -m -p 98 -N -i 2000 -l 500 -q -h 400000 | grep -v ^[0-9]*[[:space:]0]*$";

/// What the kernel is told in both runs, so that they are one workload. The emulator's CPUID says 3.5 GHz where 50 MHz pass; and natively the
/// kernel neither trusts the deadline timer of this processor's microcode nor uses XSAVE, whose sizes in CPUID contradict each other.
const COMMAND_LINE: &str = "console=ttyS0,115200 nokaslr tsc=reliable tsc_early_khz=50000 lapic=notscdeadline lpj=200000 no_timer_check nowatchdog mitigations=off noxsave";

/// Wall-clock time that a boot may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// The shipped system with a program instead of the shell.
fn system(name: &str) -> std::path::PathBuf {
    bench::sure("get Debian's kernels", linux::kernels(None, true));
    let old = "console=ttyS0 nokaslr mitigations=off nowatchdog noxsave";
    systems::changed("linux-rt", name, &[(old, &format!("{COMMAND_LINE} {PROGRAM}"))])
}

fn run(image: std::path::PathBuf) -> Run {
    bench::run_with(RunOptions { image, timeout: Some(LIMIT), ..RunOptions::default() })
}

/// Lines that Linux said, in a partition or natively.
fn lines(run: &Run) -> impl Iterator<Item = &str> {
    run.events.iter().filter_map(|event| match event {
        Event::Console { line, .. } | Event::Text(line) => Some(line.as_str()),
        _ => None,
    })
}

/// The line with which the first program says what it runs on: kernel, processors, timer, frequency.
fn machine(run: &Run) -> String {
    let line = lines(run).find(|line| line.starts_with("init: Linux"));
    let line = line.unwrap_or_else(|| panic!("Linux never came to its first program"));
    line.split(", clock").next().unwrap_or(line).to_owned()
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

/// The kernel finds the same machine, finishes its program, switches itself off, and its neighbour takes no exit.
#[test]
fn long_linux_runs_a_program_and_switches_itself_off() {
    let test = "long_linux_runs_a_program_and_switches_itself_off";
    if !bench::takes_long(test, "two boots of Linux in an emulator take many minutes") {
        return;
    }
    let system = system("linux-program");
    let guest = run(bench::build(&system, "linux-program").image);
    checks::print(&guest.report);
    checks::want_none(&checks::check_fate(&guest.report, "linux", "off"));
    checks::want_none(&checks::check_fate(&guest.report, "motion", "passed"));
    assert_eq!(guest.report.partition("motion").unwrap().span_exits, Some(0));
    let native = run(bench::build_alone(&system, "linux-native", "linux").image);
    assert_eq!(machine(&guest), machine(&native), "two workloads, not one");
    for (name, run) in [("in a partition", &guest), ("natively", &native)] {
        let found = latencies(run);
        let [median, most] = [500, 990].map(|part| percentile(&found, part));
        let last = found.last().map_or(0, |(latency, _)| *latency);
        println!("cyclictest {name}: median {median}, p99 {most}, max {last} of the kernel's ns");
    }
}
