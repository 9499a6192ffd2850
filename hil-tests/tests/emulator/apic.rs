//! The virtual local APIC does what a real one does: the same guest tries every rule on the bare machine and in windows of a shared
//! core, and both must have seen the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use bulkhead::{BuiltImage, Report};
use hil_tests::plant::{self, Fault};
use hil_tests::time::Sharing;
use hil_tests::{bench, checks, systems};

/// The guest, and the partition that it is.
const GUEST: &str = "apic-conformance";

/// Where the emulator's APIC is known to be wrong: the case, and what is wrong. There the hypervisor must do what the manual
/// says, and the emulator something else: an exception that is none is an error too.
const EMULATOR_FAULTS: [(&str, &str); 23] = [
    ("logical-id-follows-the-id", "its logical id reads 0 in x2APIC mode"),
    ("command-to-own-logical-id", "so a logical destination reaches nobody"),
    ("to-other-by-logical-id", "the same"),
    ("command-reads-back", "a command in x2APIC mode leaves the register with the BIOS's last one"),
    ("illegal-vector-by-self-ipi", "it notes the vector as received only"),
    ("illegal-vector-by-command", "the same"),
    ("error-interrupts", "it notes errors and raises no interrupt for them"),
    ("switched-off-takes-nothing", "it takes fixed interrupts while it is switched off"),
    ("deadline-reads-zero-behind-it", "a deadline that has fired still reads"),
    ("timer-entry-status-is-read-only", "the delivery status is stored as written"),
    ("reserved-0x830-0x2000", RESERVED),
    ("reserved-0x830-0x10000", RESERVED),
    ("reserved-0x830-0x100000", RESERVED),
    ("reserved-0x832-0x10100", RESERVED),
    ("reserved-0x832-0x70000", RESERVED),
    ("reserved-0x832-0x110000", RESERVED),
    ("reserved-0x833-0x12000", RESERVED),
    ("reserved-0x834-0x18000", RESERVED),
    ("reserved-0x835-0x30000", RESERVED),
    ("reserved-0x837-0x10100", RESERVED),
    ("reserved-0x83e-0x4", RESERVED),
    ("reserved-0x83e-0x10", RESERVED),
    ("reserved-0x83f-0x100", RESERVED),
];
const RESERVED: &str = "it takes a reserved bit without #GP";

/// Most ticks of a switch: one resets the vCPU that gets a start-up interrupt. Seen: 1,505.
const SWITCH: u64 = 1_600;

/// Suffix of a line that says what the manual demands, where that is not what was seen.
const MANUAL: &str = ":manual";

/// The guest on cores 0 and 1, beside a neighbour on each, in windows that do not coincide.
fn system(name: &str) -> PathBuf {
    let mut system = Sharing::default();
    system.spread(GUEST, GUEST, "other=1", &[0, 1]);
    for (core, windows) in [(0, [140, 60]), (1, [60, 170])] {
        let neighbour = format!("noise-{core}");
        system.partition(&neighbour, "noise", "mode=all", core);
        system.window_on(&format!("partition.{GUEST}"), core, windows[0]);
        system.window(&format!("partition.{neighbour}"), core, windows[1]);
    }
    system.must_finish(GUEST);
    system.write(name, &systems::board(), "60 s")
}

/// The guest on the bare machine, run once.
static NATIVE: LazyLock<Report> = LazyLock::new(|| {
    let name = "apic-native";
    bench::run(&bench::build_alone(&system(name), name, GUEST).image).report
});

#[test]
fn apic_conformance_is_the_same_without_a_hypervisor() {
    let name = "apic-shared";
    judge(&bench::build(&system(name), name));
}

/// The same on a processor that virtualizes no APIC: this hypervisor believes that it has none such.
#[test]
fn apic_conformance_is_the_same_without_apic_virtualization() {
    let fault = Fault {
        name: "apic-by-exits",
        changes: &[(
            "hv/src/vmx/controls.rs",
            "SECONDARY.allowed() & APIC_VIRTUALIZATION == APIC_VIRTUALIZATION",
            "SECONDARY.allowed() & APIC_VIRTUALIZATION == 0",
        )],
    };
    judge(&plant::build_faulty(&fault, &system(fault.name)));
}

/// A processor that delivers by itself takes SELF_IPI even while the APIC is off: the hypervisor closes that register then, and a defect
/// that leaves it open is seen.
#[test]
fn planted_self_ipi_open_while_the_apic_is_off() {
    let fault = Fault {
        name: "fault-self-ipi",
        changes: &[("hv/src/vmx/mod.rs", "msr::close_self_ipi(&mut apic_off.0);", "")],
    };
    let complaints = complaints(&plant::build_faulty(&fault, &system(fault.name)));
    let text = complaints.join("\n");
    assert!(text.contains("switched-off-takes-nothing"), "the fault was not seen:\n{text}");
}

fn judge(built: &BuiltImage) {
    checks::want_none(&complaints(built));
}

fn complaints(built: &BuiltImage) -> Vec<String> {
    let shared = bench::run(&built.image).report;
    checks::print(&shared);
    let mut complaints = checks::check_orderly_end(&shared, SWITCH);
    complaints.extend(checks::check_passed(&NATIVE, GUEST));
    complaints.extend(checks::check_passed(&shared, GUEST));
    complaints.extend(compare(&NATIVE, &shared));
    complaints
}

/// One complaint for each rule that the two saw differently and that is no fault of the emulator's.
fn compare(native: &Report, shared: &Report) -> Vec<String> {
    let (native, shared) = (cases(native), cases(shared));
    let names = |cases: &BTreeMap<String, u64>| {
        cases.keys().filter(|name| !name.ends_with(MANUAL)).cloned().collect::<Vec<_>>()
    };
    let mut complaints = Vec::new();
    if names(&native) != names(&shared) || native.is_empty() {
        complaints.push("the two runs tried different cases".to_string());
    }
    for (name, _) in EMULATOR_FAULTS {
        if !native.contains_key(name) {
            complaints.push(format!("{name} is excused and is no case of the guest's"));
        }
    }
    for name in names(&native) {
        let demanded =
            |cases: &BTreeMap<String, u64>| cases.get(&format!("{name}{MANUAL}")).copied();
        let (alone, under) = (native[&name], shared.get(&name).copied().unwrap_or(u64::MAX));
        // A run says what the manual demands where it saw something else.
        let manual = demanded(&native).or(demanded(&shared)).unwrap_or(alone);
        match EMULATOR_FAULTS.iter().find(|(case, _)| *case == name) {
            Some((_, why)) if under == manual && alone != manual => {
                println!("  {name}: the emulator saw {alone:#x}, not {manual:#x}: {why}");
            }
            None if under == manual && alone == manual => {}
            _ => complaints.push(format!(
                "{name}: native {alone:#x}, under the hypervisor {under:#x}, the manual demands {manual:#x}"
            )),
        }
    }
    complaints
}

fn cases(report: &Report) -> BTreeMap<String, u64> {
    let values = report.partition(GUEST).map(|it| it.values.as_slice()).unwrap_or_default();
    values.iter().map(|value| (value.name.clone(), value.value)).collect()
}
