//! The fuzz target of the audit, run on random damage to a sound image and to its hypervisor: bounded, and on the
//! stable compiler. `PROPTEST_CASES=100000` digs deeper; `config/README.md` says how the fuzzer itself is run.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "../../fuzz/bodies/audit.rs"]
mod body;
mod common;

use std::sync::OnceLock;

use common::Parts;
use proptest::prelude::*;

fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| Parts::good().image())
}

fn hypervisor() -> &'static [u8] {
    static ELF: OnceLock<Vec<u8>> = OnceLock::new();
    ELF.get_or_init(common::hypervisor)
}

/// Where bytes matter most: headers of the ELF file, and the read-only memory with the table.
fn place(length: usize) -> impl Strategy<Value = usize> {
    prop_oneof![0..512_usize, 0..length]
}

/// Numbers that are hard to count with.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0_u64..16,
        (0_u32..64).prop_map(|bit| 1 << bit),
        (0_u64..16).prop_map(|less| u64::MAX - less),
        // Addresses in the program: tables that lead to themselves.
        (0x10_0000_u64..0x10_8000).prop_map(|address| address & !7),
    ]
}

/// A place, a number, and how many of its bytes are written.
fn damage(length: usize) -> impl Strategy<Value = Vec<(usize, u64, usize)>> {
    prop::collection::vec((place(length), number(), 1_usize..=8), 1..12)
}

fn damaged(bytes: &[u8], damage: &[(usize, u64, usize)], keep: f64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, number, length) in damage {
        let end = (at + length).min(bytes.len());
        let start = (*at).min(end);
        bytes[start..end].copy_from_slice(&number.to_le_bytes()[..end - start]);
    }
    bytes.truncate((bytes.len() as f64 * keep) as usize);
    bytes
}

/// Most damage leaves the length alone.
fn keep() -> impl Strategy<Value = f64> {
    prop_oneof![9 => Just(1.0), 1 => 0.0..1.0]
}

proptest! {
    #[test]
    fn no_image_makes_the_audit_panic(damage in damage(image().len()), keep in keep()) {
        body::run(&damaged(image(), &damage, keep));
    }

    #[test]
    fn no_hypervisor_makes_the_audit_panic(damage in damage(hypervisor().len()), keep in keep()) {
        body::run(&damaged(hypervisor(), &damage, keep));
    }

    #[test]
    fn no_bytes_make_the_audit_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        body::run(&bytes);
    }
}

#[test]
fn an_image_that_is_cut_anywhere_is_told() {
    const SECTOR: usize = 2048;
    let whole = image();
    for length in (0..whole.len()).step_by(SECTOR) {
        let report = bulkhead_audit::audit_image(&whole[..length], None);
        assert!(!report.is_proven(), "{length} bytes of {} pass", whole.len());
    }
}
