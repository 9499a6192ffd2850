//! The audit holds what the compiler emits to account: every accepted file, random systems, random mistakes in them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;
#[path = "audit/literal.rs"]
mod literal;
#[path = "audit/random.rs"]
mod random;

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

/// Where guests of other protocols find things, read out of the table as they do it.
#[test]
fn multiboot_and_pvh_start_by_their_own_protocol() {
    let (_, text) = toml_files("tests/accept")
        .into_iter()
        .find(|(path, _)| path.ends_with("protocols.toml"))
        .unwrap();
    let compiled = Case::new("system.toml", &text).compile().unwrap();
    let table = literal::table(&compiled.emit());
    let [multiboot, pvh, plain] = &table.partitions[..] else { panic!("three partitions") };
    let long = |info: &[u8], at: usize| u32::from_le_bytes(info[at..at + 4].try_into().unwrap());
    let parameters = |of: &bulkhead_audit::model::Partition| of.boot_info[0x1000..].to_vec();
    for other in [multiboot, pvh] {
        assert_eq!((other.image.entry, other.boot_info_at), (0x1000, 0x1000));
    }
    let info = parameters(multiboot);
    assert_eq!(long(&info, 0) & 0x45, 0x45, "memory, command line and map are there");
    assert_eq!((long(&info, 4), long(&info, 8)), (639, 7 << 10));
    assert_eq!((long(&info, 16), long(&info, 48)), (0x3000, 0x2100));
    assert_eq!((long(&info, 44), long(&info, 0x100)), (5 * 24, 20));
    assert_eq!(&multiboot.boot_info[0x2000..0x200E], b"console=0x3f8\0");
    let info = parameters(pvh);
    assert_eq!((long(&info, 0), long(&info, 4), long(&info, 48)), (0x336E_C578, 1, 5));
    assert_eq!((long(&info, 24), long(&info, 32), long(&info, 40)), (0x3000, 0x4000, 0x2100));
    assert_eq!(
        (plain.image.entry, long(&plain.boot_info, 4)),
        (0x10_0000, 0),
        "Multiboot2 as ever"
    );
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
