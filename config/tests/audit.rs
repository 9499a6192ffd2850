//! The audit holds what the compiler emits to account: every accepted file, random systems, random mistakes in them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;
#[path = "audit/literal.rs"]
mod literal;
#[path = "audit/random.rs"]
mod random;

use bulkhead_audit::model::Role;
use bulkhead_audit::{Report, audit_table};
use common::{Case, toml_files};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use random::Dice;

/// The audit of what a system compiles to; `None` when it is rejected.
fn audited(text: &str) -> Option<Report> {
    let compiled = Case::new("system.toml", text).compile().ok()?;
    Some(audit_table(&literal::table(&compiled.emit())))
}

fn dice() -> impl Strategy<Value = Dice> {
    prop::collection::vec(any::<u32>(), 100..200).prop_map(Dice::new)
}

#[test]
fn every_accepted_file_passes_the_audit() {
    for (path, text) in toml_files("tests/accept") {
        let report = audited(&text).unwrap();
        assert!(report.is_proven(), "{path:?}\n{:#?}", report.faults);
    }
}

fn accepted(name: &str) -> bulkhead_audit::model::System {
    let (_, text) =
        toml_files("tests/accept").into_iter().find(|(path, _)| path.ends_with(name)).unwrap();
    literal::table(&Case::new("system.toml", &text).compile().unwrap().emit())
}

fn long(info: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(info[at..at + 4].try_into().unwrap())
}

/// Where guests of other protocols find things, read out of the table as they do it.
#[test]
fn multiboot_and_pvh_start_by_their_own_protocol() {
    let table = accepted("protocols.toml");
    let [multiboot, pvh, plain] = &table.partitions[..] else { panic!("three partitions") };
    for other in [multiboot, pvh, plain] {
        assert_eq!((other.image.entry, other.boot_info_at), (0xE_0000, 0xE_0000));
        assert_eq!(&other.boot_info[0x3000..0x3008], b"RSD PTR ");
    }
    let registers =
        |of: &bulkhead_audit::model::Partition| [3, 8, 13].map(|at| long(&of.boot_info, at));
    assert_eq!(registers(multiboot), [0x2BAD_B002, 0xE_1000, 0x10_0000]);
    assert_eq!(registers(pvh), [0, 0xE_1000, 0x10_0010]);
    assert_eq!(registers(plain), [0x36D7_6289, 0xE_1000, 0x10_0000]);
    let info = &multiboot.boot_info[0x1000..];
    assert_eq!(long(info, 0) & 0x4D, 0x45, "memory, command line and map are there, no modules");
    assert_eq!((long(info, 4), long(info, 8)), (639, 7 << 10));
    assert_eq!((long(info, 16), long(info, 48)), (0xE_2000, 0xE_1100));
    assert_eq!((long(info, 44), long(info, 0x100)), (5 * 24, 20));
    assert_eq!(&multiboot.boot_info[0x2000..0x200E], b"console=0x3f8\0");
    let info = &pvh.boot_info[0x1000..];
    assert_eq!(
        (long(info, 0), long(info, 4), long(info, 12), long(info, 48)),
        (0x336E_C578, 1, 0, 5)
    );
    assert_eq!((long(info, 24), long(info, 32), long(info, 40)), (0xE_2000, 0xE_3000, 0xE_1100));
}

/// One without a header of ELF, with a RAM disk; one linked as NuttX is; one linked as Zephyr is, with two headers.
#[test]
fn other_forms_lie_where_their_files_say() {
    let table = accepted("protocol-forms.toml");
    let [raw, high, low] = &table.partitions[..] else { panic!("three partitions") };
    let registers =
        |of: &bulkhead_audit::model::Partition| [3, 8, 13].map(|at| long(&of.boot_info, at));
    assert_eq!(registers(raw), [0x2BAD_B002, 0xE_1000, 0x10_0020]);
    assert_eq!(
        (raw.image.load_at, raw.image.size),
        (0x10_0000, 0x3006),
        "its RAM disk is behind it"
    );
    let info = &raw.boot_info[0x1000..];
    assert_eq!((long(info, 0) & 8, long(info, 20), long(info, 24)), (8, 1, 0xE_1060));
    assert_eq!((long(info, 0x60), long(info, 0x64)), (0x10_3000, 0x10_3006));
    assert_eq!((registers(high), high.image.load_at), ([0x2BAD_B002, 0xE_1000, 0x10_0000], 0));
    assert_eq!((registers(low), low.image.load_at), ([0x36D7_6289, 0xE_1000, 0x1008], 0x1000));
}

/// A PC's memory goes on at 4 GiB, on bounds of 1 GiB, and its map says so.
#[test]
fn memory_of_several_gibibytes_has_a_hole() {
    const GIB: u64 = 1 << 30;
    let table = accepted("several-gib.toml");
    let [large, bare] = &table.partitions[..] else { panic!("two partitions") };
    let pieces = |of: &bulkhead_audit::model::Partition| -> Vec<(u64, u64, u64)> {
        of.memory.iter().map(|region| (region.guest, region.host, region.size)).collect()
    };
    assert_eq!(pieces(large), [(0, GIB, 3 * GIB), (4 * GIB, 4 * GIB, GIB / 2)]);
    assert_eq!(pieces(bare), [(0, 5 * GIB, 3 * GIB)]);
    let info = &large.boot_info[0x1000..];
    assert_eq!(info[0x1E8], 7);
    let entry = |index: usize| {
        let at = 0x2D0 + 20 * index;
        let word = |at: usize| u64::from_le_bytes(info[at..at + 8].try_into().unwrap());
        (word(at), word(at + 8), info[at + 16])
    };
    let high = [entry(4), entry(5), entry(6)];
    let wanted =
        [(1 << 20, 3 * GIB - (1 << 20), 1), (0xFEB0_0000, 0x1000, 2), (4 * GIB, GIB / 2, 1)];
    assert_eq!(high, wanted);
}

/// What a guest is told is held against what is there.
#[test]
fn no_wrong_word_to_a_guest_passes_the_audit() {
    let wrong: [(&str, usize, usize, u32, &str); 11] = [
        ("protocols.toml", 0, 3, 7, "AU45 AU46 AU47"),
        ("protocols.toml", 0, 8, 0xE_2000, "AU45"),
        ("protocols.toml", 0, 13, 0x10_2000, "AU45"),
        ("protocols.toml", 0, 0x1000, 0x40, "AU45 AU46 AU47"),
        ("protocols.toml", 0, 0x1010, 0xF_0000, "AU45"),
        ("protocols.toml", 1, 0x1004, 2, "AU45 AU46 AU47"),
        ("protocols.toml", 1, 0x1020, 0xE_3004, "AU47"),
        ("protocols.toml", 2, 0x1000, 0x2000, "AU45 AU46 AU47"),
        ("protocol-forms.toml", 0, 0x1064, 0x10_4000, "AU45"),
        ("protocol-forms.toml", 0, 0x1014, 2000, "AU45 AU46 AU47"),
        // The last entry of the memory map, above 4 GiB, is a page longer than the memory.
        ("several-gib.toml", 0, 0x1350, 0x2000_1000, "AU46"),
    ];
    for (file, partition, at, word, rules) in wrong {
        let mut table = accepted(file);
        assert!(bulkhead_audit::audit_table(&table).is_proven());
        table.partitions[partition].boot_info[at..at + 4].copy_from_slice(&word.to_le_bytes());
        let report = bulkhead_audit::audit_table(&table);
        let found: Vec<_> = report.faults.iter().map(|fault| fault.code).collect();
        assert_eq!(found.join(" "), rules, "{file} {partition} {at:#x}");
    }
}

#[test]
fn no_rejecting_file_that_compiles_with_a_warning_fails_the_audit() {
    for (path, text) in toml_files("tests/reject") {
        let Some(report) = audited(&text) else { continue };
        assert!(report.is_proven(), "{path:?}\n{:#?}", report.faults);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_systems_compile_and_pass_the_audit(dice in dice()) {
        let text = random::system(dice);
        let case = Case::new("system.toml", &text);
        let compiled = case.compile();
        prop_assert!(compiled.is_ok(), "{}\n{}", text, compiled.unwrap_err());
        let report = audit_table(&literal::table(&compiled.unwrap().emit()));
        prop_assert!(report.is_proven(), "{}\n{:#?}", text, report.faults);
    }

    /// Compiler and audit count the time for a switch alike, to the tick.
    #[test]
    fn a_tick_less_before_a_window_is_a_fault(dice in dice(), which in any::<prop::sample::Index>()) {
        let case = Case::new("system.toml", &random::system(dice));
        let mut table = literal::table(&case.compile().unwrap().emit());
        let mut windows: Vec<_> = table
            .cores
            .iter_mut()
            .filter_map(|core| match &mut core.role {
                Role::Shared(plans) => Some(plans.iter_mut().flatten()),
                _ => None,
            })
            .flatten()
            .collect();
        let count = windows.len();
        windows[which.index(count)].budget -= 1;
        let report = audit_table(&table);
        let codes: Vec<_> = report.faults.iter().map(|fault| fault.code).collect();
        prop_assert!(codes.iter().any(|code| ["AU34", "AU37"].contains(code)), "{:?}", codes);
    }

    #[test]
    fn a_mistake_in_one_is_rejected_or_passes_the_audit(
        dice in dice(),
        mistake in prop::collection::vec(any::<u32>(), 4..8),
    ) {
        let text = random::mistaken(&random::system(dice), Dice::new(mistake));
        if let Some(report) = audited(&text) {
            prop_assert!(report.is_proven(), "{}\n{:#?}", text, report.faults);
        }
    }
}

#[test]
fn random_systems_have_of_everything() {
    let mut runner = TestRunner::deterministic();
    let mut text = || random::system(dice().new_tree(&mut runner).unwrap().current());
    let texts: Vec<String> = (0..60).map(|_| text()).collect();
    for wanted in
        ["plans = [", "off-in", "donates-to", "hygiene", "core = 1", "[shutdown]", "[log]"]
    {
        assert!(texts.iter().any(|text| text.contains(wanted)), "never {wanted}");
    }
}
