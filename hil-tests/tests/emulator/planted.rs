//! Planted faults: each must turn a check red, and for its own reason. Otherwise the check is worth nothing.

use bulkhead::Report;
use hil_tests::plant::{self, Fault};
use hil_tests::time::{self, Sharing};
use hil_tests::{attack, bench, checks, systems};

#[test]
fn planted_interrupt_commands_pass_unchecked() {
    let fault = Fault {
        name: "fault-icr",
        changes: &[(
            "hv/core/src/msr.rs",
            "Verdict::Deny => WriteAction::Deny",
            "Verdict::Deny => WriteAction::Machine(value)",
        )],
    };
    let attacks: Vec<_> =
        attack::ATTACKS.into_iter().filter(|attack| attack.mode == "icr-nmi").collect();
    let system = attack::system(fault.name, &attacks);
    let report = bench::run(&plant::build_faulty(&fault, &system).image).report;
    let mut complaints = attack::check_victims(&report);
    complaints.extend(attacks[0].check(&report));
    want(&complaints, "no denied ICR or LVT write was counted");
    want(&complaints, "motion is failed");
}

#[test]
fn planted_lock_shared_with_the_real_time_core() {
    let fault = Fault {
        name: "fault-lock",
        changes: &[
            (
                "hv/src/serial.rs",
                "static PORT: Mutex<",
                "pub static SHARED: Mutex<()> = Mutex::new(());\nstatic PORT: Mutex<",
            ),
            (
                "hv/src/run/housekeeping.rs",
                "fn transmit(&mut self) {",
                "fn transmit(&mut self) { let _held = crate::serial::SHARED.lock();",
            ),
            (
                "hv/src/vmx/controls.rs",
                "processor: PROCESSOR.settle(0)",
                "processor: PROCESSOR.settle(processor::HLT_EXITING)",
            ),
            (
                "hv/src/vmx/exits.rs",
                "match reason_with_flags() {",
                "match reason_with_flags() {
                 12 => { drop(crate::serial::SHARED.lock()); vcpu.state.counters.count(ExitKind::Unknown); guest::advance(); vcpu }",
            ),
        ],
    };
    want(&demo_with(&fault), "exits in its span");
}

#[test]
fn planted_log_call_that_blocks() {
    let fault = Fault {
        name: "fault-log",
        changes: &[(
            "hv/src/vmx/exits.rs",
            "frequent::IO_INSTRUCTION => ",
            "frequent::IO_INSTRUCTION if { crate::serial::write_text(\"a port was denied\\r\\n\");
                 crate::serial::wait_until_sent(); true } => ",
        )],
    };
    let complaints = demo_with(&fault);
    want(&complaints, "windows of plc were late");
    want(&complaints, "late window of plc, by noise");
}

#[test]
fn planted_windows_counted_from_the_one_before() {
    let fault = Fault {
        name: "fault-relative",
        changes: &[(
            SHARED,
            "match slot.owner {",
            "// Each window is put as much later as the one before it began behind its instant.
             static LATE: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
             let late = self.running.entered.saturating_sub(self.running.slot.start);
             let late = LATE.fetch_add(late, core::sync::atomic::Ordering::Relaxed) + late;
             slot.start += late;
             slot.end += late;
             match slot.owner {",
        )],
    };
    want(&jitter_with(&fault), "windows-moved Some");
}

#[test]
fn planted_log_call_in_the_switch() {
    let fault = Fault {
        name: "fault-switch-log",
        changes: &[(
            SHARED,
            "self.running.entered = machine::wait_until(turn.slot.start);",
            "self.running.entered = machine::wait_until(turn.slot.start);
             defmt::info!(\"a window of partition {=u16} in frame {=u64}\", turn.id, turn.slot.frame);",
        )],
    };
    want(&jitter_with(&fault), "a window started");
}

#[test]
fn planted_lock_in_the_switch() {
    let fault = Fault {
        name: "fault-switch-lock",
        changes: &[
            (
                "hv/src/serial.rs",
                "static PORT: Mutex<",
                "pub static SHARED: Mutex<()> = Mutex::new(());\nstatic PORT: Mutex<",
            ),
            (
                SHARED,
                "let before = self.before();\n        let decided",
                "let held = crate::serial::SHARED.lock();
                 let before = self.before();\n        let decided",
            ),
            (
                SHARED,
                "let ready = machine::tsc();\n        self.note_switch",
                "drop(held);
                 let ready = machine::tsc();\n        self.note_switch",
            ),
        ],
    };
    want(&jitter_with(&fault), "a window started");
}

#[test]
fn planted_register_that_a_switch_forgets() {
    let fault = Fault {
        name: "fault-cr2",
        changes: &[("hv/src/switched.rs", "self.cr2 = Cr2::read_raw();", "")],
    };
    let system = crate::fidelity::system(fault.name, 200);
    let report = bench::run(&plant::build_faulty(&fault, &system).image).report;
    want(&crate::fidelity::check(&report, "one"), "mismatches:cr2");
}

/// Where the hypervisor answers hypercalls.
const EXITS: &str = "hv/src/vmx/exits.rs";
const HYPERCALL: &str = "let privileged = guest_privilege() == 0;\n    let answered";

/// A panic that a guest can reach, on a dedicated core: that core is lost and named, and costs the others nothing.
#[test]
fn planted_panic_on_a_dedicated_core() {
    let fault = Fault {
        name: "fault-panic-dedicated",
        changes: &[(
            EXITS,
            HYPERCALL,
            "if vcpu.state.counters.exits[ExitKind::Hypercall as usize] > 100 && vcpu.core == 2 { panic!(\"planted\") }
             let privileged = guest_privilege() == 0;
    let answered",
        )],
    };
    let report = lose_a_core(&fault, 2);
    checks::want_none(&checks::check_fate(&report, "shared", "running"));
    let lost = report.partition("lonely").unwrap();
    assert_eq!(lost.fate, "lost");
    assert!(lost.exits_total() > 100, "the figures up to the loss are told");
}

/// The same on a time-shared core that keeps no house: every partition with a window there is lost, its vCPUs on other cores included.
#[test]
fn planted_panic_on_a_shared_core() {
    let fault = Fault {
        name: "fault-panic-shared",
        changes: &[(
            EXITS,
            HYPERCALL,
            "if vcpu.state.counters.exits[ExitKind::Hypercall as usize] > 100 && vcpu.core == 3 { panic!(\"planted\") }
             let privileged = guest_privilege() == 0;
    let answered",
        )],
    };
    let report = lose_a_core(&fault, 3);
    checks::want_none(&checks::check_fate(&report, "lonely", "running"));
    for partition in ["shared", "neighbour"] {
        assert_eq!(report.partition(partition).unwrap().fate, "lost", "{partition}");
    }
    let windows = report.partition("shared").unwrap().windows.unwrap();
    assert!(windows.run > 0, "the figures up to the loss are told");
}

/// Runs a system in which this core panics: the run comes to its orderly end, `run` names the core, and the partitions on other cores did not
/// notice.
fn lose_a_core(fault: &Fault, cpu: u16) -> Report {
    let mut system = Sharing::default();
    system.partition("motion", "latency", "period=100020ns samples=2000", 1);
    system.partition("plc", "plc", "windows=100", 0);
    system.partition("lonely", "noise", "mode=vmcall", 2);
    // Its second vCPU waits on core 3 for its start, which never comes.
    system.spread("shared", "noise", "mode=loop", &[0, 3]);
    system.partition("neighbour", "noise", "mode=vmcall", 3);
    system.window("partition.plc", 0, 400);
    system.window_on("partition.shared", 0, 100);
    system.window_on("partition.shared", 3, 300);
    system.window("partition.neighbour", 3, 300);
    for partition in ["motion", "plc"] {
        system.must_finish(partition);
    }
    let system = system.write(fault.name, &systems::board(), "4 s");
    let built = plant::build_faulty(fault, &system);
    let run = bench::run(&built.image);
    checks::print(&run.report);
    assert!(run.report.complete, "the run comes to its orderly end");
    let verdict = bulkhead::run::judge(&run, &built.manifest).unwrap_err().to_string();
    assert!(verdict.contains(&format!("core {cpu} was lost")), "{verdict}");
    assert!(verdict.contains("planted (hv/src/vmx/exits.rs"), "{verdict}");
    checks::want_none(&checks::check_passed(&run.report, "motion"));
    checks::want_none(&checks::check_plc(&run.report, "plc"));
    assert_eq!(run.report.partition("motion").unwrap().span_exits, Some(0));
    run.report
}

/// The last of several ends of a partition counts, and each says that it did it.
#[test]
fn planted_fate_of_the_last_cause() {
    let fault = Fault {
        name: "fault-fate",
        changes: &[(
            "hv/core/src/fate.rs",
            "self.0
            .compare_exchange(running, fate.code() as u8, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()",
            "self.0.store(fate.code() as u8, Ordering::SeqCst);
        running != u8::MAX",
        )],
    };
    let run = bench::run(&plant::build_faulty(&fault, &attack::races(fault.name)).image);
    let complaints = attack::check_races(&run);
    println!("{complaints:#?}");
    assert!(!complaints.is_empty(), "nobody noticed that the log and the verdict differ");
}

/// Where the switch between partitions is.
const SHARED: &str = "hv/src/run/shared.rs";

/// The complaints about two measured cores under a faulty hypervisor. They measure fewer windows than `jitter.rs` does: a fault shows soon.
fn jitter_with(fault: &Fault) -> Vec<String> {
    let mut system = Sharing::default();
    for core in [0, 1] {
        system.measured_core(core, "windows=600", &["exits"]);
    }
    let system = system.write(fault.name, &systems::board(), "2 s");
    let report = bench::run(&plant::build_faulty(fault, &system).image).report;
    checks::print(&report);
    let mut complaints = Vec::new();
    for core in [0, 1] {
        complaints.extend(time::check_jitter(&report, &time::jitter(core), 600));
    }
    complaints
}

/// The complaints about the demo under a faulty hypervisor. The run is a short one, about which there is a complaint
/// anyhow: what counts is the fault's own.
fn demo_with(fault: &Fault) -> Vec<String> {
    let system = systems::changed("demo", fault.name, &[("samples=20000", "samples=4000")]);
    let run = bench::run(&plant::build_faulty(fault, &system).image);
    checks::print(&run.report);
    checks::check_demo(&run.report)
}

/// A complaint that contains `words`.
fn want(complaints: &[String], words: &str) {
    println!("complaints: {complaints:#?}");
    assert!(
        complaints.iter().any(|complaint| complaint.contains(words)),
        "nobody noticed: {words}"
    );
}
