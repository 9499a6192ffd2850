//! A guest image whose bytes changed after the build: the audit sees it; that partition is refused by name, the others
//! run.

use bulkhead::audit::audit;
use bulkhead::measure::Format;
use bulkhead::paths;
use hil_tests::{bench, checks};

use crate::shared::DEMO;

#[test]
fn tampered_guest_is_refused_and_the_others_run() {
    let image = bench::copy(&DEMO, "tampered");
    let module = DEMO.compiled.modules().iter().find(|module| module.name == "plc").unwrap();
    flip_a_byte(&image, &module.bytes);
    let seen = audit(&image, Format::Human).unwrap_err().to_string();
    assert!(seen.contains("fault[AU07]") && seen.contains("partition plc"), "{seen}");
    let run = bench::run(&image);
    let report = &run.report;
    checks::print(report);
    checks::want_none(&checks::check_end(report));
    checks::want_none(&checks::check_fate(report, "plc", "refused"));
    checks::want_none(&checks::check_motion(report));
    checks::want_none(&checks::check_fate(report, "noise", "running"));
    checks::want_none(&checks::check_windows(report, "noise"));
    let told: Vec<&str> = run
        .text()
        .chain(run.log_lines())
        .filter(|line| line.contains("plc") && line.contains("refused"))
        .collect();
    println!("{told:?}");
    assert!(!told.is_empty(), "nobody says that plc is refused");
    assert_eq!(report.partition("plc").unwrap().first_entry, None);
}

/// Changes one bit in the middle of `module`, where it lies in the image.
fn flip_a_byte(image: &std::path::Path, module: &[u8]) {
    let mut bytes = paths::read(image).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - module.len()).filter(|at| bytes[*at..].starts_with(module)).collect();
    let [at] = places[..] else {
        panic!("the module lies at {places:?} in the image, not in one place");
    };
    bytes[at + module.len() / 2] ^= 1;
    paths::write(image, &bytes).unwrap();
}
