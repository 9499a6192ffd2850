//! The attacks of guests/attack, how each must end, and systems made of attackers and victims.

use std::path::PathBuf;

use bulkhead::decode::Event;
use bulkhead::{Report, Run};

use crate::checks;
use crate::systems::{Composer, changed_board};
use crate::time::Sharing;

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
pub const ATTACKS: [Attack; 36] = [
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
    attack("endless-debug-exceptions", End::Runs, None),
    // Its steps go over what is refused.
    attack("trap-flag", End::Passes, MSR),
    attack("int1-in-shadow", End::Passes, None),
    attack("ip-wrap", End::Passes, None),
    attack("page-sizes", End::Passes, None),
    attack("split-locks", End::Passes, None),
    attack("storm", End::Passes, None),
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
    system.write(name, &board(name, 8), HOUSEKEEPING, "4 s")
}

/// The board with more cores.
fn board(name: &str, cores: u32) -> PathBuf {
    const LAST: &str = "[[core]]\napic-id = 3\n";
    let more: String = (4..cores).map(|id| format!("[[core]]\napic-id = {id}\n")).collect();
    changed_board(
        name,
        &[
            ("name = \"bochs-skylake-x\"", &format!("name = \"bochs-skylake-x-{cores}\"")),
            (LAST, &format!("{LAST}{more}")),
        ],
    )
}

/// What the victims of [`system`] must not have noticed.
#[must_use]
pub fn check_victims(report: &Report) -> Vec<String> {
    check_bystanders(report, checks::SWITCH)
}

/// The same, where a switch may take this many ticks.
fn check_bystanders(report: &Report, switch: u64) -> Vec<String> {
    let mut complaints = checks::check_orderly_end(report, switch);
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

/// Attacks by several lives, on both kinds of core beside the two victims of [`system`]: partitions that restart with every interrupt
/// pending, then those that reset their second CPU so.
pub const LIVES: [&str; 7] =
    ["d-restart-0", "d-restart-1", "d-restart-2", "d-restart-3", "s-restart", "d-init", "s-init"];

/// Most ticks of a switch there: one resets the vCPU that gets a start-up interrupt, or that starts again.
const RESET_SWITCH: u64 = 1_800;

/// Fewest restarts of [`LIVES`]' first five within a run.
const RESTARTS: [u64; 5] = [12, 12, 12, 12, 2];
/// The ways in which interrupts are hidden, one for each of the first four, as the guest prints them.
const HIDDEN: [&str; 4] = ["No", "SwitchedOff", "ByPriority", "InService"];

/// A system of [`LIVES`]. It ends once both victims and the two that reset a CPU are through.
///
/// # Panics
/// The file system says no.
#[must_use]
pub fn lives(name: &str) -> PathBuf {
    let mut system = Sharing::default();
    let [dedicated @ .., s_restart, d_init, s_init] = LIVES;
    system.partition("motion", "latency", "period=100020ns samples=2000", 1);
    system.partition("plc", "plc", "windows=150", 0);
    let mut restart = |partition: &str, core: u32, hidden: u32| {
        system.partition(
            partition,
            "attack",
            &format!("mode=pending-restart hidden={hidden}"),
            core,
        );
        system.with("platform = \"pc\"");
    };
    for (partition, hidden) in dedicated.iter().zip(0..) {
        restart(partition, 2 + hidden, hidden);
    }
    restart(s_restart, 0, 3);
    for (partition, cores) in [(d_init, [6, 7]), (s_init, [0, 8])] {
        let arguments = format!("mode=pending-init other={}", cores[1]);
        system.spread(partition, "attack", &arguments, &cores);
    }
    system.window("partition.plc", 0, VICTIM_WINDOW);
    system.window(&format!("partition.{s_restart}"), 0, ATTACK_WINDOW);
    for core in [0, 8] {
        system.window_on(&format!("partition.{s_init}"), core, ATTACK_WINDOW);
    }
    for partition in ["motion", "plc", d_init, s_init] {
        system.must_finish(partition);
    }
    system.housekeeping(HOUSEKEEPING);
    system.write(name, &board(name, 9), "4 s")
}

/// What is wrong with a run of [`lives`]: the victims noticed nothing, the first five go on restarting, and nobody saw an interrupt of a former
/// life.
#[must_use]
pub fn check_lives(run: &Run) -> Vec<String> {
    let mut complaints = check_bystanders(&run.report, RESET_SWITCH);
    for (partition, least) in LIVES.into_iter().zip(RESTARTS) {
        complaints.extend(checks::check_fate(&run.report, partition, End::Runs.fate()));
        let restarts = run.report.partition(partition).and_then(|it| it.restarts).unwrap_or(0);
        if restarts < least {
            complaints.push(format!("{partition} restarted {restarts} times only"));
        }
    }
    for hidden in HIDDEN {
        let line = format!("attack: hidden {hidden}");
        let told = |event: &Event| matches!(event, Event::Console { line: it, .. } if *it == line);
        if !run.events.iter().any(told) {
            complaints.push(format!("no life hid its interrupts so: {hidden}"));
        }
    }
    for partition in LIVES.into_iter().skip(RESTARTS.len()) {
        complaints.extend(checks::check_fate(&run.report, partition, End::Passes.fate()));
    }
    complaints
}

/// Partitions of [`races`] of which one vCPU leaves the partition's memory and another says at about the same time that all is well.
pub const FINISHES: [&str; 3] = ["d-finish-at-once", "d-finish-later", "s-finish"];
/// Those of which one vCPU switches the partition off and another restarts it.
pub const OFFS: [&str; 2] = ["d-off", "s-off"];

/// Ticks by which the verdict comes later than the violation in the second of [`FINISHES`]: about what the hypervisor takes to explain it.
const LATER: u64 = 600;

/// A system of partitions whose two vCPUs end them in two ways at once, on both kinds of core.
///
/// # Panics
/// The file system says no.
#[must_use]
pub fn races(name: &str) -> PathBuf {
    let mut system = Sharing::default();
    let [at_once, later, s_finish] = FINISHES;
    let [d_off, s_off] = OFFS;
    let mut race = |partition, mode: &str, lead: u64, cores: [u32; 2]| {
        let arguments = format!("mode={mode} other={} lead={lead}", cores[1]);
        system.spread(partition, "attack", &arguments, &cores);
        if mode == "race-restart" {
            system.with("platform = \"pc\"");
        }
    };
    race(at_once, "race-finish", 0, [1, 2]);
    race(later, "race-finish", LATER, [3, 4]);
    race(d_off, "race-restart", 0, [5, 6]);
    race(s_finish, "race-finish", 0, [0, 7]);
    race(s_off, "race-restart", 0, [0, 7]);
    system.partition("plc", "plc", "windows=50", 0);
    // The windows of a partition coincide on both cores, or nobody would race.
    for partition in [s_finish, s_off] {
        for core in [0, 7] {
            system.window_on(&format!("partition.{partition}"), core, ATTACK_WINDOW);
        }
    }
    system.window("partition.plc", 0, VICTIM_WINDOW);
    for partition in FINISHES.into_iter().chain(OFFS).chain(["plc"]) {
        system.must_finish(partition);
    }
    system.housekeeping(HOUSEKEEPING);
    system.write(name, &board(name, 8), "10 s")
}

/// What is wrong with how [`races`] ended: a partition has one fate, which is what the log tells of it.
#[must_use]
pub fn check_races(run: &Run) -> Vec<String> {
    let mut complaints = checks::check_orderly_end(&run.report, RESET_SWITCH);
    complaints.extend(checks::check_passed(&run.report, "plc"));
    let told = |partition: &str, words: &str| {
        let name = format!("partition {partition} ");
        run.log_lines().filter(|line| line.contains(&name) && line.contains(words)).count()
    };
    for partition in FINISHES {
        let end = if told(partition, "is stopped") > 0 { End::Stopped } else { End::Passes };
        complaints.extend(checks::check_fate(&run.report, partition, end.fate()));
    }
    for partition in OFFS {
        complaints.extend(checks::check_fate(&run.report, partition, "off"));
        let times = told(partition, "switched itself off");
        if times != 1 {
            complaints
                .push(format!("{partition} is told {times} times to have switched itself off"));
        }
    }
    complaints
}
