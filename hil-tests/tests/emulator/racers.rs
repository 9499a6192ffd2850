//! Two vCPUs of one partition race on its consoles and its end, and say what has the shape of the hypervisor's own records. What comes out is
//! their console, and nothing else.

use std::collections::BTreeMap;

use bulkhead::Run;
use bulkhead::decode::Event;
use hil_tests::{bench, checks};

/// Rounds of the two partitions: each vCPU says one line by hypercall and sends one through the serial port in each.
const ROUNDS: [(u8, usize); 2] = [(1, 40), (2, 15)];

#[test]
fn racing_vcpus_speak_for_nobody_else() {
    let system = bench::root().join("hil-tests/systems/racers.toml");
    let run = bench::run(&bench::build(&system, "racers").image);
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));
    checks::want_none(&checks::check_passed(report, "plc"));
    checks::want_none(&checks::check_windows(report, "plc"));
    for name in ["dedicated", "shared"] {
        checks::want_none(&checks::check_fate(report, name, "passed"));
        assert_eq!(report.partition(name).unwrap().console_lost, 0, "{name}");
    }
    assert!(report.health.is_empty(), "nobody was late: {:?}", report.health);
    for (partition, rounds) in ROUNDS {
        check_lines(&run, partition, rounds);
    }
    let speakers = run.events.iter().filter_map(|event| match event {
        Event::Console { partition, .. } => Some(*partition),
        _ => None,
    });
    assert!(speakers.into_iter().all(|partition| partition < 3), "only partitions that there are");
}

/// Every line of each vCPU is whole and in order. Bytes that both send through the one serial port may mix, and none is lost.
fn check_lines(run: &Run, partition: u8, rounds: usize) {
    let lines = run.events.iter().filter_map(|event| match event {
        Event::Console { partition: from, line, .. } if *from == partition => Some(line.as_str()),
        _ => None,
    });
    let mut next = BTreeMap::from([(0, 0), (1, 0)]);
    let mut forged = 0;
    let mut sent = String::new();
    for line in lines {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("racer") => {
                let vcpu: usize = words.next().unwrap().parse().unwrap();
                let round = next.get_mut(&vcpu).unwrap();
                let expected = format!(
                    "racer {vcpu} round {round}: a line that takes more than one call to say, told by {vcpu}"
                );
                assert_eq!(line, expected);
                *round += 1;
            }
            Some("@bulkhead") => {}
            _ if line.chars().any(char::is_alphabetic) => sent.push_str(line),
            _ => forged += 1,
        }
    }
    assert_eq!(next, BTreeMap::from([(0, rounds), (1, rounds)]), "partition {partition}");
    assert!(forged > 0, "what looks like records is in the console");
    let count = |letter| sent.matches(letter).count();
    assert_eq!((count('z'), count(',')), (rounds, rounds), "each sends its letter once a round");
}
