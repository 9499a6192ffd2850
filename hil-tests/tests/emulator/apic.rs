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

/// Where a processor that virtualizes the APIC falls behind the manual by itself, in a way that leaves the hypervisor no say.
const PROCESSOR_FAULTS: [(&str, &str); 1] = [(
    "switched-off-takes-nothing",
    "a write of SELF_IPI requests the interrupt without an exit, whatever the software enable says (SDM 3C 30.5)",
)];

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
    judge(&bench::build(&system(name), name), true);
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
    judge(&plant::build_faulty(&fault, &system(fault.name)), false);
}

fn judge(built: &BuiltImage, virtualized: bool) {
    let shared = bench::run(&built.image).report;
    checks::print(&shared);
    let mut complaints = checks::check_orderly_end(&shared);
    complaints.extend(checks::check_passed(&NATIVE, GUEST));
    complaints.extend(checks::check_passed(&shared, GUEST));
    complaints.extend(compare(&NATIVE, &shared, virtualized));
    checks::want_none(&complaints);
}

/// One complaint for each rule that the two saw differently and that is no fault of the emulator's.
fn compare(native: &Report, shared: &Report, virtualized: bool) -> Vec<String> {
    let (native, shared) = (cases(native), cases(shared));
    let names = |cases: &BTreeMap<String, u64>| {
        cases.keys().filter(|name| !name.ends_with(MANUAL)).cloned().collect::<Vec<_>>()
    };
    let mut complaints = Vec::new();
    if names(&native) != names(&shared) || native.is_empty() {
        complaints.push("the two runs tried different cases".to_string());
    }
    for name in names(&native) {
        let demanded =
            |cases: &BTreeMap<String, u64>| cases.get(&format!("{name}{MANUAL}")).copied();
        let seen = (native[&name], shared.get(&name).copied());
        let manual = demanded(&native).or(demanded(&shared)).unwrap_or(native[&name]);
        let fault = EMULATOR_FAULTS.iter().find(|(case, _)| *case == name);
        let by_processor = PROCESSOR_FAULTS.iter().find(|(case, _)| virtualized && *case == name);
        match fault {
            _ if by_processor.is_some() => {
                let why = by_processor.map_or("", |(_, why)| why);
                println!("  {name}: not as the manual says, by the processor: {why}");
            }
            Some((_, why)) if seen.1 == Some(manual) && seen.0 != manual => {
                println!("  {name}: the emulator saw {:#x}, not {manual:#x}: {why}", seen.0);
            }
            None if seen.1 == Some(seen.0) => {}
            _ => complaints.push(format!(
                "{name}: native {:#x}, under the hypervisor {:#x}, the manual demands {manual:#x}",
                seen.0,
                seen.1.unwrap_or(u64::MAX)
            )),
        }
    }
    complaints
}

fn cases(report: &Report) -> BTreeMap<String, u64> {
    let values = report.partition(GUEST).map(|it| it.values.as_slice()).unwrap_or_default();
    values.iter().map(|value| (value.name.clone(), value.value)).collect()
}
