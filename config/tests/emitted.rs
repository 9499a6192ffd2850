//! The emitted table is Rust that compiles against the contract, and says what the system says.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::path::Path;

use bulkhead_config::ImageKind;
use bulkhead_table::{FORMAT, Owner, Role, Window};
use common::Elf;

/// What the compiler emits for `emitted/system.toml`, checked in, so that the Rust compiler checks it.
#[allow(clippy::unreadable_literal)]
mod table {
    include!("emitted/table.rs");
}

#[test]
fn the_table_says_what_the_system_says() {
    let table = &table::TABLE;
    assert_eq!((table.format, table.system, table.frame), (FORMAT, "everything", 100_000));
    assert_eq!((table::PARTITIONS, table::VCPUS, table::CORES), (3, 3, 2));
    assert_eq!((table.plans, table.partitions[2].first_vcpu), (&["normal"][..], 2));
    let pages: usize = table.partitions.iter().map(|partition| partition.ept_pages).sum();
    assert_eq!(table::EPT_PAGES, pages);
    const WINDOWS: &[Window] = &[
        Window { start: 1_000, length: 30_000, budget: 1_000, owner: Owner::Partition(1) },
        Window { start: 32_000, length: 40_000, budget: 1_000, owner: Owner::Partition(2) },
        Window { start: 75_000, length: 20_000, budget: 1_000, owner: Owner::Housekeeping },
    ];
    assert_eq!(table.cores[0].role, Role::Shared(&[WINDOWS]));
    assert_eq!(table.cores[1].role, Role::Dedicated(0));
    let shutdown = table.shutdown.unwrap();
    assert_eq!((shutdown.when_finished, shutdown.at_latest), (&[1_u16, 0][..], 500_000_000));
    let alone = &table.partitions[0];
    assert_eq!((alone.memory[0].host, alone.memory[0].size), (0x200_0000, 0x80_0000));
    assert_eq!((alone.image.load_at, alone.image.entry), (0x10_0000, 0x10_0000));
    assert_eq!(alone.image.size, 0x1004);
}

#[test]
fn the_shipped_systems_compile_without_a_warning() {
    for name in ["demo", "press-line"] {
        let system =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../partitions/{name}.toml"));
        let images = tempfile::tempdir().unwrap();
        let requests = bulkhead_config::requests(&system).unwrap_or_else(|error| panic!("{error}"));
        for request in requests {
            assert!(request.path.is_absolute() && request.kind != ImageKind::Elf, "{request:?}");
            let target = images.path().join(format!("{}.elf", request.partition));
            std::fs::write(target, Elf::good().build()).unwrap();
        }
        let compiled = bulkhead_config::compile(&system, images.path())
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(compiled.warnings().is_empty(), "{}", compiled.warnings());
        assert!(compiled.report().contains(name));
    }
}
