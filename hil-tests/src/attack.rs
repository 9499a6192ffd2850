//! The attacks of guests/attack, how each must end, and systems made of attackers and victims.

use std::path::PathBuf;

use bulkhead::Report;

use crate::checks;
use crate::systems::{Composer, changed_board};

/// How an attacker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It saw the refusal and says so.
    Passes,
    /// The hypervisor stops it.
    Stopped,
    /// It goes on for ever, and nobody cares.
    Runs,
}

impl End {
    /// As the report names it.
    #[must_use]
    pub const fn fate(self) -> &'static str {
        match self {
            Self::Passes => "passed",
            Self::Stopped => "stopped",
            Self::Runs => "running",
        }
    }
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Argument `mode` of guests/attack.
    pub mode: &'static str,
    /// How it must end on a dedicated core.
    pub end: End,
    /// How it must end on a time-shared core; `None` where it is not tried.
    pub shared: Option<End>,
    /// The kind of denied access that must be counted, as the report names it.
    pub denied: Option<&'static str>,
}

const fn attack(mode: &'static str, end: End, denied: Option<&'static str>) -> Attack {
    Attack { mode, end, shared: Some(end), denied }
}

const INTERRUPT: Option<&str> = Some("ICR or LVT write");
const MSR: Option<&str> = Some("MSR");
const CONTROL: Option<&str> = Some("control register");
const INSTRUCTION: Option<&str> = Some("instruction");
const MEMORY: Option<&str> = Some("memory");

/// Every attack.
pub const ATTACKS: [Attack; 29] = [
    attack("icr-init", End::Passes, INTERRUPT),
    attack("icr-nmi", End::Passes, INTERRUPT),
    attack("icr-smi", End::Passes, INTERRUPT),
    attack("icr-startup", End::Passes, INTERRUPT),
    attack("icr-logical", End::Passes, INTERRUPT),
    attack("icr-allbutself", End::Passes, INTERRUPT),
    attack("lvt-smi", End::Passes, INTERRUPT),
    attack("lvt-init", End::Passes, INTERRUPT),
    attack("lvt-extint", End::Passes, INTERRUPT),
    attack("apic-off", End::Passes, MSR),
    attack("apic-leave-x2apic", End::Passes, MSR),
    attack("tsc-write", End::Passes, MSR),
    attack("msr-sweep", End::Passes, MSR),
    attack("cpuid-sweep", End::Passes, None),
    attack("cr0-cd", End::Passes, CONTROL),
    attack("cr4-vmxe", End::Passes, CONTROL),
    attack("vmx-instructions", End::Passes, INSTRUCTION),
    attack("vmcall-from-ring3", End::Passes, Some("hypercall")),
    attack("memory-outside", End::Stopped, MEMORY),
    attack("memory-write-outside", End::Stopped, MEMORY),
    // There is a page on a time-shared core only.
    Attack { shared: Some(End::Stopped), ..attack("schedule-page-write", End::Passes, None) },
    attack("xsetbv-bad", End::Passes, None),
    attack("mov-dr", End::Passes, None),
    attack("wbinvd", End::Passes, INSTRUCTION),
    attack("triple-fault", End::Stopped, None),
    attack("real-mode-fault", End::Stopped, MSR),
    attack("endless-exceptions", End::Runs, None),
    attack("endless-loop", End::Runs, None),
    // 393,216 exits: in a window they would take seconds of emulated time. In the demo, `noise` does the like there.
    Attack { shared: None, ..attack("port-sweep", End::Passes, Some("port")) },
];

/// Attacks in one run: the board has eight cores, of which the victims have two.
pub const A_RUN: usize = 6;

impl Attack {
    /// The partition that tries it on a dedicated core.
    #[must_use]
    pub fn on_dedicated(&self) -> String {
        format!("d-{}", self.mode)
    }

    /// The partition that tries it on the shared core.
    #[must_use]
    pub fn on_shared(&self) -> String {
        format!("s-{}", self.mode)
    }

    /// What is wrong with how it ended on both kinds of core, and with what was counted as denied.
    #[must_use]
    pub fn check(&self, report: &Report) -> Vec<String> {
        let mut complaints = self.check_one(report, &self.on_dedicated(), self.end);
        if let Some(end) = self.shared {
            complaints.extend(self.check_one(report, &self.on_shared(), end));
        }
        complaints
    }

    fn check_one(&self, report: &Report, partition: &str, end: End) -> Vec<String> {
        let mut complaints = checks::check_fate(report, partition, end.fate());
        let counted = |kind| report.partition(partition)?.denied.get(kind).copied();
        if let Some(kind) = self.denied
            && counted(kind).unwrap_or(0) == 0
        {
            complaints.push(format!("{partition}: no denied {kind} was counted"));
        }
        complaints
    }
}

/// Microseconds of an attacker's window.
const ATTACK_WINDOW: u32 = 400;
/// Microseconds of the victim's window.
const VICTIM_WINDOW: u32 = 400;
/// Microseconds of the housekeeping window.
const HOUSEKEEPING: u32 = 600;

/// A system of these attacks (at most [`A_RUN`]) and the two victims. It ends once both victims and every attacker that
/// ends are through.
///
/// # Panics
/// The file system says no.
#[must_use]
pub fn system(name: &str, attacks: &[Attack]) -> PathBuf {
    let mut system = Composer::default();
    // 100.02 us are 5,001 ticks: the deadlines visit every place of the clock's step.
    system.dedicated("motion", "latency", "period=100020ns samples=2000");
    system.shared("plc", "plc", "windows=50", VICTIM_WINDOW);
    system.must_finish("motion");
    system.must_finish("plc");
    for attack in attacks {
        let arguments = format!("mode={}", attack.mode);
        let mut partitions = vec![attack.on_dedicated()];
        system.dedicated(&attack.on_dedicated(), "attack", &arguments);
        if attack.shared.is_some() {
            system.shared(&attack.on_shared(), "attack", &arguments, ATTACK_WINDOW);
            partitions.push(attack.on_shared());
        }
        if attack.end != End::Runs {
            partitions.iter().for_each(|partition| system.must_finish(partition));
        }
    }
    system.write(name, &board(name), HOUSEKEEPING, "4 s")
}

/// The board with eight cores.
fn board(name: &str) -> PathBuf {
    const LAST: &str = "[[core]]\napic-id = 3\n";
    let more: String = (4..8).map(|id| format!("[[core]]\napic-id = {id}\n")).collect();
    changed_board(
        name,
        &[
            ("name = \"bochs-skylake-x\"", "name = \"bochs-skylake-x-8\""),
            (LAST, &format!("{LAST}{more}")),
        ],
    )
}

/// What the victims of [`system`] must not have noticed.
#[must_use]
pub fn check_victims(report: &Report) -> Vec<String> {
    let mut complaints = checks::check_end(report);
    complaints.extend(checks::check_passed(report, "motion"));
    complaints.extend(checks::check_plc(report, "plc"));
    for partition in report.partitions.iter().filter(|partition| partition.kind == "shared") {
        complaints.extend(checks::check_windows(report, &partition.name));
    }
    let Some(motion) = report.partition("motion") else {
        return complaints;
    };
    if motion.span_exits != Some(0) {
        complaints.push(format!("motion took {:?} exits in its span", motion.span_exits));
    }
    let latest = motion.histogram("wakeup").map_or(u64::MAX, |wakeup| wakeup.max);
    if latest > checks::WAKEUP {
        complaints.push(format!("motion woke up {latest} ticks late"));
    }
    complaints
}
