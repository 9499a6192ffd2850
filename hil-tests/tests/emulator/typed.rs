//! Long lines typed into three partitions at once: every byte arrives once, in order, where it was meant to.

use std::time::Duration;

use bulkhead::RunOptions;
use bulkhead::decode::Event;
use hil_tests::{bench, checks};

const PARTITIONS: [&str; 3] = ["port", "page", "slow"];

/// Wall-clock time that it may take: each of some two hundred frames waits for its answer, and the emulator for its turn on a busy machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// What is typed to a partition. Control characters and others that mean something on a line are among it.
fn lines(partition: &str) -> [String; 3] {
    let alphabet: String = ('!'..='~').collect();
    [
        format!("echo {partition} {alphabet}{alphabet}"),
        format!("{partition} \u{1}\u{10}\u{11}\u{13} \u{e4}\u{20ac} {alphabet}"),
        format!("{partition} {}", "0123456789".repeat(12)),
    ]
}

#[test]
fn long_lines_reach_three_partitions_at_once() {
    let system = bench::root().join("hil-tests/systems/typed.toml");
    let image = bench::build(&system, "typed").image;
    let typed = PARTITIONS
        .iter()
        .flat_map(|name| lines(name).map(|line| ((*name).to_string(), line)))
        .collect();
    let run =
        bench::run_with(RunOptions { image, typed, timeout: Some(LIMIT), ..RunOptions::default() });
    let report = &run.report;
    checks::print(report);
    assert_eq!(run.untyped, Vec::<String>::new());
    checks::want_none(&checks::check_end(report));
    checks::want_none(&checks::check_windows(report, "slow"));
    for (id, name) in (0_u8..).zip(PARTITIONS) {
        checks::want_none(&checks::check_fate(report, name, "passed"));
        let typed = lines(name);
        let bytes: usize = typed.iter().map(String::len).sum();
        assert_eq!(report.partition(name).unwrap().value("typed"), Some(bytes as u64), "{name}");
        let got = run.events.iter().filter_map(|event| match event {
            Event::Console { partition, line, .. } if *partition == id => {
                line.split_once("got ").map(|(_, line)| line.to_string())
            }
            _ => None,
        });
        // Lines for people have no control characters.
        let shown = typed.map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>());
        assert_eq!(got.collect::<Vec<_>>(), shown, "{name}");
    }
}
