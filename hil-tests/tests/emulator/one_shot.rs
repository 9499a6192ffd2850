//! Timers of guests on processors without the TSC-deadline mode: alone, and under the hypervisor.

use bulkhead::report::{Histogram, Report};
use bulkhead::run::Exit;
use bulkhead::{BuiltImage, Firmware, Machine, Target};
use hil_tests::{bench, checks, systems};

use crate::shared::DEMO;

/// A processor of Intel's without that mode, and one of AMD's.
const INTEL: &str = "corei7_skylake_x,-tsc_deadline";
const AMD: &str = "ryzen,+x2apic";

/// Most ticks that a timer comes late, the arming of the count included. Seen: 27 in QEMU, 25 to 29 in Bochs.
const LATE: u64 = 35;
/// Most ticks between the earliest and the latest: a step of an emulator with several processors.
const SPREAD: u64 = 5;

fn machine(target: Target, model: &str) -> Machine {
    Machine::chosen(Some(target), Firmware::Bios, Some(model.into()))
}

/// `motion` of the demo alone, with these arguments.
fn alone(name: &str, arguments: &str) -> BuiltImage {
    let line = format!("arguments = \"{arguments}\"");
    let shipped = "arguments = \"period=99980ns samples=20000\"";
    let system = systems::changed("demo", name, &[(shipped, &line)]);
    bench::build_alone(&system, name, "motion")
}

fn wakeup(report: &Report) -> Histogram {
    checks::want_none(&checks::check_passed(report, "motion"));
    report.partition("motion").unwrap().histogram("wakeup").unwrap().clone()
}

/// No sample is early, and all are equally late.
fn judge(report: &Report) {
    checks::print(report);
    let wakeup = wakeup(report);
    let (least, most) = (wakeup.min, wakeup.max);
    println!("{}: {least} to {most} ticks late", report.machine());
    assert!(most <= LATE && most - least <= SPREAD, "{least} to {most} ticks late");
}

#[test]
fn one_shot_timers_are_exact_without_a_hypervisor() {
    let built = alone("one-shot-alone", "period=99980ns samples=2000");
    for machine in [
        Machine::chosen(Some(Target::Qemu), Firmware::Bios, None),
        machine(Target::Bochs3, AMD),
        machine(Target::Bochs3, INTEL),
    ] {
        judge(&bench::run_on(machine, &built.image).report);
    }
}

/// The register holds 32 bits, and a tick of the board is 20 ns: each sample takes more than one count.
#[test]
fn one_shot_timers_reach_beyond_their_register() {
    let built = alone("one-shot-long", "period=100s samples=2");
    let machine = Machine::chosen(Some(Target::Qemu), Firmware::Bios, None);
    judge(&bench::run_on(machine, &built.image).report);
}

/// On a dedicated core with the machine's own timer, on a shared one with the virtual APIC's.
#[test]
fn one_shot_timers_serve_under_the_hypervisor() {
    let run = bench::run_on(machine(Target::Bochs3, INTEL), &DEMO.image);
    let report = &run.report;
    judge(report);
    assert_eq!(run.exit, Exit::PoweredOff);
    checks::want_none(&checks::check_end(report));
    let motion = report.partition("motion").unwrap();
    assert_eq!((motion.span_exits, motion.value("missed")), (Some(0), Some(0)));
    checks::want_none(&checks::check_passed(report, "plc"));
    let plc = report.partition("plc").unwrap();
    assert_eq!(plc.value("timers-missed"), Some(0));
}
