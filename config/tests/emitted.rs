//! The emitted table is Rust that compiles against the contract, and says what the system says.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use bulkhead_config::ImageKind;
use bulkhead_table::{FORMAT, Hygiene, Owner, Role, Window};
use common::{Bzimage, Elf, toml_files};

/// What the compiler emits for `emitted/system.toml`, checked in, so that the Rust compiler checks it.
#[allow(clippy::unreadable_literal)]
mod table {
    include!("emitted/table.rs");
}

#[test]
fn the_table_says_what_the_system_says() {
    let table = &table::TABLE;
    assert_eq!((table.format, table.system, table.frame), (FORMAT, "everything", 100_000));
    assert_eq!((table::PARTITIONS, table::VCPUS, table::CORES), (3, 5, 4));
    assert_eq!((table.plans, table.log_windows), (&["normal", "maintenance"][..], true));
    let pages: usize = table.partitions.iter().map(|partition| partition.ept_pages).sum();
    assert_eq!(table::EPT_PAGES, pages);
    let cpus: Vec<_> = table.partitions.iter().map(|each| (each.cpus, each.first_vcpu)).collect();
    assert_eq!(cpus, [(&[2, 3][..], 0), (&[0, 1][..], 2), (&[0][..], 4)]);
    let shutdown = table.shutdown.unwrap();
    assert_eq!((shutdown.when_finished, shutdown.at_latest), (&[1_u16, 0][..], 500_000_000));
    let alone = &table.partitions[0];
    assert_eq!((alone.memory[0].host, alone.memory[0].size), (0x200_0000, 0x80_0000));
    assert_eq!((alone.image.load_at, alone.image.entry), (0x10_0000, 0x10_0000));
    assert_eq!(alone.image.size, 0x1004);
}

/// Before a window of housekeeping, and where the core stays with one partition: the switch budget of 20 us. Before the neighbour's
/// window, and before the first of a frame, which may come behind the neighbour's: 6 us of hygiene too.
#[test]
fn each_window_has_its_plan_and_its_budget() {
    let window = |start, length, budget, owner| Window { start, length, budget, owner };
    let (shared, neighbour) = (Owner::Partition(1), Owner::Partition(2));
    let housekeeping = Owner::Housekeeping;
    let Role::Shared(plans) = table::TABLE.cores[0].role else { panic!("core 0 is shared") };
    let normal = [
        window(1_500, 30_000, 1_300, shared),
        window(33_000, 40_000, 1_300, neighbour),
        window(75_000, 20_000, 1_000, housekeeping),
    ];
    let maintenance =
        [window(1_500, 30_000, 1_300, shared), window(75_000, 20_000, 1_000, housekeeping)];
    assert_eq!(plans, [&normal[..], &maintenance[..]]);
    let Role::Shared(plans) = table::TABLE.cores[1].role else { panic!("core 1 is shared") };
    assert_eq!(plans, [[window(10_000, 80_000, 1_000, shared)]; 2]);
    assert_eq!(table::TABLE.cores[2].role, Role::Dedicated(0));
    assert_eq!(table::TABLE.cores[3].role, Role::Dedicated(0));
}

#[test]
fn rights_donations_hygiene_and_schedule_pages_are_the_partitions_own() {
    let [alone, shared, neighbour] = table::TABLE.partitions else { panic!("three partitions") };
    assert_eq!((alone.schedule_at, shared.schedule_at), (0, 0xFEB0_0000));
    assert_eq!((alone.may_switch_plan, shared.may_switch_plan), (false, true));
    assert_eq!((alone.donates_to, neighbour.donates_to), (None, Some(&1)));
    let cleaned = Hygiene { l1d_flush: true, branch_barrier: true, buffer_clear: false };
    assert_eq!((shared.hygiene, neighbour.hygiene), (Hygiene::default(), cleaned));
    // The board does not say that it is free of the iTLB multihit erratum, so each 2 MiB of code take a table: 4 and 2. One table for the
    // pages' GiB, one for their 2 MiB: two more than for the memory.
    assert!(!table::TABLE.board.large_code_pages);
    assert_eq!((alone.ept_pages, shared.ept_pages), (3 + 4, 3 + 2 + 2));
}

#[test]
fn the_shipped_systems_compile_without_a_warning() {
    for (system, _) in toml_files("../partitions") {
        let images = tempfile::tempdir().unwrap();
        let requests = bulkhead_config::requests(&system).unwrap_or_else(|error| panic!("{error}"));
        for request in requests {
            assert!(request.path.is_absolute() && request.kind != ImageKind::Elf, "{request:?}");
            let bytes = match request.kind {
                ImageKind::Kernel => Bzimage::good().build(),
                ImageKind::Ramdisk => vec![7; 64],
                _ => Elf::good().build(),
            };
            std::fs::write(images.path().join(request.file_name()), bytes).unwrap();
        }
        let compiled = bulkhead_config::compile(&system, images.path())
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(compiled.warnings().is_empty(), "{}", compiled.warnings());
        assert!(compiled.report().contains(compiled.plan().system_name()));
    }
}
