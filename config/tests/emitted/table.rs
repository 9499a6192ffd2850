// The static table of the system `everything`, written by bulkhead-config from system.toml. Edit that file, not this one.

/// How many partitions the table has.
pub const PARTITIONS: usize = 3usize;
/// How many vCPUs all partitions have together.
pub const VCPUS: usize = 5usize;
/// How many cores the system uses.
pub const CORES: usize = 4usize;
/// Pages that the nested page tables of all partitions take together.
pub const EPT_PAGES: usize = 21usize;
/// The system, as proven at build time.
pub static TABLE: ::bulkhead_table::PartitionTable = ::bulkhead_table::PartitionTable {
    format: 7,
    system: "everything",
    digest: [
        39, 102, 88, 182, 244, 131, 225, 14, 97, 246, 204, 192, 150, 192, 10, 215, 187,
        231, 16, 81, 36, 251, 80, 182, 53, 100, 0, 38, 176, 187, 169, 12,
    ],
    board: ::bulkhead_table::Board {
        name: "bochs-skylake-x",
        apic_ids: &[0, 1, 2, 3],
        memory: &[
            ::bulkhead_table::Range {
                start: 0x100000,
                size: 0x1fe00000,
            },
        ],
        tsc_hz: 50000000,
        tsc_tolerance_ppm: 1000,
        tsc_vouched: false,
        tsc_skew: 5,
        switch_budget: 1000,
        hygiene: ::bulkhead_table::HygieneCosts {
            l1d_flush: 250,
            branch_barrier: 50,
            buffer_clear: 100,
        },
        uart: Some(
            &::bulkhead_table::Uart {
                base: 0x3f8,
                in_memory: false,
                stride: 1,
                width: 1,
                clock: 1843200,
                baud: 115200,
            },
        ),
        log_memory: ::bulkhead_table::Range {
            start: 0x0,
            size: 0x0,
        },
        large_code_pages: false,
        power: ::bulkhead_table::Power {
            turbo_off: false,
            base_frequency: false,
            c1_only: false,
        },
        power_off: Some(
            &::bulkhead_table::PowerOff {
                port: 0x8900,
                bytes: b"Shutdown",
            },
        ),
    },
    hypervisor: ::bulkhead_table::Range {
        start: 0x100000,
        size: 0x1f00000,
    },
    partitions: &[
        ::bulkhead_table::Partition {
            name: "alone",
            place: "system.toml:25",
            cpus: &[2, 3],
            first_vcpu: 0,
            platform: ::bulkhead_table::Platform::Bare,
            image: ::bulkhead_table::Image {
                size: 4100,
                digest: [
                    230, 78, 37, 55, 163, 179, 30, 149, 138, 81, 168, 225, 178, 58, 251,
                    95, 46, 96, 83, 220, 9, 73, 169, 203, 209, 69, 6, 12, 74, 51, 20, 22,
                ],
                load_at: 0x100000,
                entry: 0x100000,
            },
            memory: &[
                ::bulkhead_table::Region {
                    guest: 0x0,
                    host: 0x2000000,
                    size: 0x800000,
                    rights: ::bulkhead_table::Rights {
                        read: true,
                        write: true,
                        execute: true,
                    },
                },
            ],
            ept_pages: 7,
            boot_info: b"h\0\0\0\0\0\0\0\x01\0\0\0\x15\0\0\0period=100us\0\0\0\0\x02\0\0\0\x11\0\0\0Bulkhead\0\0\0\0\0\0\0\0\x06\0\0\0(\0\0\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0",
            boot_info_at: 0x1000,
            schedule_at: 0x0,
            may_switch_plan: false,
            donates_to: None,
            hygiene: ::bulkhead_table::Hygiene {
                l1d_flush: false,
                branch_barrier: false,
                buffer_clear: false,
            },
        },
        ::bulkhead_table::Partition {
            name: "shared",
            place: "system.toml:31",
            cpus: &[0, 1],
            first_vcpu: 2,
            platform: ::bulkhead_table::Platform::Bare,
            image: ::bulkhead_table::Image {
                size: 4100,
                digest: [
                    230, 78, 37, 55, 163, 179, 30, 149, 138, 81, 168, 225, 178, 58, 251,
                    95, 46, 96, 83, 220, 9, 73, 169, 203, 209, 69, 6, 12, 74, 51, 20, 22,
                ],
                load_at: 0x100000,
                entry: 0x100000,
            },
            memory: &[
                ::bulkhead_table::Region {
                    guest: 0x0,
                    host: 0x2800000,
                    size: 0x400000,
                    rights: ::bulkhead_table::Rights {
                        read: true,
                        write: true,
                        execute: true,
                    },
                },
            ],
            ept_pages: 7,
            boot_info: b"x\0\0\0\0\0\0\0\x01\0\0\0\t\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x11\0\0\0Bulkhead\0\0\0\0\0\0\0\0\x06\0\0\0@\0\0\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0@\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\xB0\xFE\0\0\0\0\0 \0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0",
            boot_info_at: 0x1000,
            schedule_at: 0xfeb00000,
            may_switch_plan: true,
            donates_to: None,
            hygiene: ::bulkhead_table::Hygiene {
                l1d_flush: false,
                branch_barrier: false,
                buffer_clear: false,
            },
        },
        ::bulkhead_table::Partition {
            name: "neighbour",
            place: "system.toml:47",
            cpus: &[0],
            first_vcpu: 4,
            platform: ::bulkhead_table::Platform::Bare,
            image: ::bulkhead_table::Image {
                size: 4100,
                digest: [
                    230, 78, 37, 55, 163, 179, 30, 149, 138, 81, 168, 225, 178, 58, 251,
                    95, 46, 96, 83, 220, 9, 73, 169, 203, 209, 69, 6, 12, 74, 51, 20, 22,
                ],
                load_at: 0x100000,
                entry: 0x100000,
            },
            memory: &[
                ::bulkhead_table::Region {
                    guest: 0x0,
                    host: 0x2c00000,
                    size: 0x201000,
                    rights: ::bulkhead_table::Rights {
                        read: true,
                        write: true,
                        execute: true,
                    },
                },
            ],
            ept_pages: 7,
            boot_info: b"x\0\0\0\0\0\0\0\x01\0\0\0\t\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x11\0\0\0Bulkhead\0\0\0\0\0\0\0\0\x06\0\0\0@\0\0\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10 \0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\xB0\xFE\0\0\0\0\0\x10\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0",
            boot_info_at: 0x1000,
            schedule_at: 0xfeb00000,
            may_switch_plan: false,
            donates_to: Some(&1),
            hygiene: ::bulkhead_table::Hygiene {
                l1d_flush: true,
                branch_barrier: true,
                buffer_clear: false,
            },
        },
    ],
    cores: &[
        ::bulkhead_table::Core {
            cpu: 0,
            role: ::bulkhead_table::Role::Shared(
                &[
                    &[
                        ::bulkhead_table::Window {
                            start: 1500,
                            length: 30000,
                            budget: 1300,
                            owner: ::bulkhead_table::Owner::Partition(1),
                        },
                        ::bulkhead_table::Window {
                            start: 33000,
                            length: 40000,
                            budget: 1300,
                            owner: ::bulkhead_table::Owner::Partition(2),
                        },
                        ::bulkhead_table::Window {
                            start: 75000,
                            length: 20000,
                            budget: 1000,
                            owner: ::bulkhead_table::Owner::Housekeeping,
                        },
                    ],
                    &[
                        ::bulkhead_table::Window {
                            start: 1500,
                            length: 30000,
                            budget: 1300,
                            owner: ::bulkhead_table::Owner::Partition(1),
                        },
                        ::bulkhead_table::Window {
                            start: 75000,
                            length: 20000,
                            budget: 1000,
                            owner: ::bulkhead_table::Owner::Housekeeping,
                        },
                    ],
                ],
            ),
        },
        ::bulkhead_table::Core {
            cpu: 1,
            role: ::bulkhead_table::Role::Shared(
                &[
                    &[
                        ::bulkhead_table::Window {
                            start: 10000,
                            length: 80000,
                            budget: 1000,
                            owner: ::bulkhead_table::Owner::Partition(1),
                        },
                    ],
                    &[
                        ::bulkhead_table::Window {
                            start: 10000,
                            length: 80000,
                            budget: 1000,
                            owner: ::bulkhead_table::Owner::Partition(1),
                        },
                    ],
                ],
            ),
        },
        ::bulkhead_table::Core {
            cpu: 2,
            role: ::bulkhead_table::Role::Dedicated(0),
        },
        ::bulkhead_table::Core {
            cpu: 3,
            role: ::bulkhead_table::Role::Dedicated(0),
        },
    ],
    frame: 100000,
    plans: &["normal", "maintenance"],
    log_windows: true,
    shutdown: Some(
        &::bulkhead_table::Shutdown {
            when_finished: &[1, 0],
            at_latest: 500000000,
        },
    ),
};
