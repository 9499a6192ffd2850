//! What a core of the hypervisor can reach: no partition's memory, no image that waits, no registers of a guest that runs elsewhere.
//!
//! Read out of the very tables of each core, by a walk that is planted into the hypervisor behind the epoch.

use hil_tests::plant::{self, Fault};
use hil_tests::{bench, systems};

/// Tells each range of physical memory that the tables of this core map, then whose memory lies where.
const WALK: &str = r#"
pub fn tell_mapped(core: usize) {
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
    let (root, _) = Cr3::read();
    let table = |entry: u64| unsafe { &*((entry & ADDRESS) as *const [u64; 512]) };
    let mut range = (0, 0);
    let mut tell = |start: u64, size: u64| {
        if start != range.1 {
            if range.1 != 0 {
                defmt::info!("core {=usize} maps {=u64:#x} to {=u64:#x}", core, range.0, range.1);
            }
            range = (start, start);
        }
        range.1 += size;
    };
    for upper in table(root.start_address().as_u64()).iter().filter(|entry| **entry & 1 != 0) {
        for huge in table(*upper).iter().filter(|entry| **entry & 1 != 0) {
            for large in table(*huge).iter().filter(|entry| **entry & 1 != 0) {
                if *large & 1 << 7 != 0 {
                    tell(*large & ADDRESS, 2 << 20);
                    continue;
                }
                for small in table(*large).iter().filter(|entry| **entry & 1 != 0) {
                    tell(*small & ADDRESS, 4096);
                }
            }
        }
    }
    tell(0, 0);
    for partition in TABLE.partitions {
        for region in partition.memory {
            let end = region.host + region.size;
            defmt::info!("secret of nobody at {=u64:#x} to {=u64:#x}", region.host, end);
        }
    }
    let staging = staging();
    defmt::info!("secret of nobody at {=u64:#x} to {=u64:#x}", staging.start, staging.end());
    for (home, pages) in crate::run::partition::vcpu_pages().private {
        defmt::info!("secret of {=usize} at {=u64:#x} to {=u64:#x}", home, pages.start, pages.end());
    }
}

/// Switches this core, with this index"#;

const MEMORY: &str = "hv/src/memory.rs";
const RUN: &str = "hv/src/run/mod.rs";

const ERRATA: &str = "hv/core/src/errata.rs";

/// The walk on each core of the demo, once all are ready. The emulated processor is taken to be free of the iTLB multihit erratum besides, so
/// that code in large pages, which no other test boots, is run too.
const WALKS: [(&str, &str, &str); 4] = [
    (ERRATA, "FREE_OF_MULTIHIT: [u32; 9] = [0x37,", "FREE_OF_MULTIHIT: [u32; 10] = [0x55, 0x37,"),
    (MEMORY, "/// Switches this core, with this index", WALK),
    (
        RUN,
        "    if module::fate(usize::from(id)) != Fate::Running {\n        module::park();\n    }\n    let own",
        "    crate::memory::tell_mapped(core);\n    let own",
    ),
    (
        RUN,
        "shared::start::<B>(core, cpu, epoch, plans)",
        "crate::memory::tell_mapped(core);\n    shared::start::<B>(core, cpu, epoch, plans)",
    ),
];

#[test]
fn mapping_of_each_core_has_no_secret_of_another() {
    let secrets = seen(&Fault { name: "mapping", changes: &WALKS });
    assert!(secrets.is_empty(), "{secrets:#?}");
}

/// The walk sees what is mapped: with a neighbour's memory in the tables of all cores, and the registers of all vCPUs.
#[test]
fn planted_mapping_of_a_neighbour() {
    const CHANGES: [(&str, &str, &str); 6] = [
        WALKS[0],
        WALKS[1],
        WALKS[2],
        WALKS[3],
        (
            MEMORY,
            "    plan.add_image(vcpus.counters);",
            "    plan.add_image(vcpus.counters);
             let neighbour = TABLE.partitions[0].memory[0];
             plan.add(neighbour.host, neighbour.host + PAGE, READ_WRITE, Memory::WriteBack);",
        ),
        (MEMORY, "every || *of == core", "true || every || *of == core"),
    ];
    let secrets = seen(&Fault { name: "fault-mapping", changes: &CHANGES });
    println!("{secrets:#?}");
    for core in [0, 1] {
        let of = |whose: &str| format!("core {core} reaches a secret of {whose}");
        let others = 1 - core;
        for wanted in [of("nobody"), of(&others.to_string())] {
            assert!(
                secrets.iter().any(|secret| secret.starts_with(&wanted)),
                "nobody saw: {wanted}"
            );
        }
    }
}

/// What each core of the demo reaches and must not.
fn seen(fault: &Fault) -> Vec<String> {
    let sound = [("\"pages-of-1-gib\"]", "\"pages-of-1-gib\", \"no-itlb-multihit\"]")];
    let board = systems::changed_board(fault.name, &sound);
    let board = format!("board = \"{}\"", board.display());
    let changes = [
        ("board = \"@/boards/bochs-skylake-x.toml\"", board.as_str()),
        ("samples=20000", "samples=400"),
    ];
    let system = systems::changed("demo", fault.name, &changes);
    let run = bench::run(&plant::build_faulty(fault, &system).image);
    for name in ["motion", "plc"] {
        let partition = run.report.partitions.iter().find(|partition| partition.name == name);
        assert_eq!(partition.unwrap().fate, "passed", "{name}");
    }
    let (mut mapped, mut secrets) = (Vec::new(), Vec::new());
    for line in run.log_lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["core", core, "maps", start, "to", end] => mapped.push((core, range(start, end))),
            ["secret", "of", whose, "at", start, "to", end] => {
                secrets.push((whose, range(start, end)));
            }
            _ => {}
        }
    }
    for core in ["0", "1"] {
        let own = mapped.iter().filter(|(of, _)| *of == core);
        println!(
            "core {core} maps {:x?}",
            own.clone().map(|(_, range)| *range).collect::<Vec<_>>()
        );
        assert!(own.count() >= 4, "core {core} told too little");
        assert!(secrets.iter().any(|(whose, _)| *whose == core), "no vCPU of core {core}");
    }
    assert!(secrets.iter().any(|(whose, _)| *whose == "nobody"));
    secrets.sort_unstable();
    secrets.dedup();
    let mut reached = Vec::new();
    for (core, (from, to)) in &mapped {
        for (whose, (start, end)) in &secrets {
            if whose != core && from < end && start < to {
                reached.push(format!("core {core} reaches a secret of {whose} at {start:#x}"));
            }
        }
    }
    reached
}

fn range(start: &str, end: &str) -> (u64, u64) {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    (number(start), number(end))
}
