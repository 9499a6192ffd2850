//! A second opinion: another version of the emulator, and another firmware, give the same verdicts and figures of the same image.

use std::time::Duration;

use bulkhead::run::Exit;
use bulkhead::{Firmware, Machine, RunOptions, Target};
use hil_tests::{bench, checks};

use crate::shared::{DEMO, DEMO_RUN};

/// OVMF and two boot loaders take a billion ticks before the hypervisor speaks: a minute on an idle machine.
const LIMIT: Duration = Duration::from_secs(900);

/// The image that boots by BIOS in Bochs 2.7 boots by UEFI in Bochs 3.0, under VT-x. Seen: medians 2 ticks apart, least
/// and most 5.
#[test]
fn second_opinion_of_the_demo_by_uefi() {
    let run = bench::run_with(RunOptions {
        image: DEMO.image.clone(),
        machine: Machine::chosen(None, Firmware::Uefi, None),
        timeout: Some(LIMIT),
        ..RunOptions::default()
    });
    let report = &run.report;
    println!("{} beside {}", report.machine(), DEMO_RUN.report.machine());
    checks::print(report);
    assert_eq!(run.exit, Exit::PoweredOff);
    let (emulator, own) = (report.emulator.as_str(), DEMO_RUN.report.emulator.as_str());
    assert!(emulator.starts_with("bochs 3") && own.starts_with("bochs 2"), "one is no second");
    assert_eq!(report.firmware, "uefi");
    checks::want_none(&checks::check_demo(report));
    checks::want_none(&checks::check_same_outcome(&DEMO_RUN.report, report));
}

/// The fast mode runs the same system to its end. Its guests judge time and fail, since nothing of time is right there; the hypervisor
/// keeps to its rules all the same.
#[test]
fn second_opinion_in_the_fast_mode_says_nothing_of_time() {
    let machine = Machine::chosen(Some(Target::Bochs3Fast), Firmware::Bios, None);
    let run = bench::run_on(machine, &DEMO.image);
    let report = &run.report;
    println!("{}: {}", report.machine(), report.ticks);
    checks::print(report);
    assert_eq!((run.exit, report.complete, report.exact), (Exit::PoweredOff, true, false));
    assert!(report.emulator.starts_with("bochs-fast 3"), "{}", report.emulator);
    assert_eq!(report.partition("motion").unwrap().span_exits, Some(0));
}
