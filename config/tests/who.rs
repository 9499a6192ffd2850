//! What `who` answers: each kind of question, whose it is and whose not, and questions that nobody understands.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::fmt::Write;
use std::sync::LazyLock;

use bulkhead_config::Plan;
use common::Case;
use proptest::prelude::*;

const SYSTEM: &str = include_str!("seeing/line.toml");

/// The plan of [`SYSTEM`], made once for a thousand questions.
static LINE: LazyLock<Plan> = LazyLock::new(|| plan(&Case::new("line.toml", SYSTEM)));

fn plan(case: &Case) -> Plan {
    bulkhead_config::check_without_images(&case.system).unwrap()
}

/// Question and answer about the test system, one after the other.
fn answers(questions: &[&str]) -> String {
    answers_about(SYSTEM, questions)
}

fn answers_about(system: &str, questions: &[&str]) -> String {
    let case = Case::new("line.toml", system);
    let plan = plan(&case);
    let mut out = String::new();
    for question in questions {
        let answer = match plan.who(question) {
            Ok(answer) => answer.render(false),
            Err(error) => format!("refused: {}\n  {}\n", error.cause, error.remedy),
        };
        writeln!(out, "? {question}\n{}", case.neutral(&answer)).unwrap();
    }
    out
}

#[test]
fn addresses() {
    insta::assert_snapshot!(answers(&[
        "0x2100000",
        "34 MiB",
        "0x100000",
        "0x1ffffff",
        "0x9f000",
        "0xfee00000",
        "0x10000000",
        "plc:0x1000",
        "noise: 0x20ffff",
        "noise:0x210000",
        "motion:0xfee00030",
    ]));
}

#[test]
fn cores_and_instants() {
    insta::assert_snapshot!(answers(&[
        "core 0",
        "core 1",
        "core 3",
        "core 4",
        "at 350 us",
        "at 5 us core 0",
        "at 1.995 ms core 0",
        "at 1.57 ms core 0 plan normal",
        "at 1.9 ms core 0",
        "at 1.05 ms core 0",
        "at 10.35 ms core 0",
        "at 1000 ticks core 1",
    ]));
}

#[test]
fn owners_ports_interrupts_devices() {
    insta::assert_snapshot!(answers(&[
        "plc",
        "partition motion",
        "housekeeping",
        "hypervisor",
        "port 0x3f9",
        "port 0x8900",
        "port 0x20",
        "port 0xcf8",
        "port 0x60",
        "port 65536",
        "irq 4",
        "vector 0x30",
        "pci 00:1f.2",
        "pci 0000:00:1f.2",
    ]));
}

#[test]
fn questions_that_are_none() {
    insta::assert_snapshot!(answers(&[
        "",
        "plcc",
        "prot 3",
        "port x",
        "core",
        "pci 00:20.0",
        "at",
        "at 3 parsecs",
        "at 3 us in plc",
        "at 3 us plan nrmal",
        "nobody:0x0",
        "0xg",
        "0xffffffffffffffffff",
    ]));
}

#[test]
fn plans_several_cores_rights_and_neighbours() {
    insta::assert_snapshot!(answers_about(
        include_str!("seeing/plans.toml"),
        &[
            "plc",
            "noise",
            "core 1",
            "at 700 us core 0",
            "at 20 us core 0 plan maintenance",
            "at 525 us core 0 plan normal",
            "at 100 us core 1 plan maintenance",
            "at 100 us plan mantenance",
            "plc:0xfeb00000",
            "plc:0xfeb01234",
            "plc:0xfeb02000",
        ]
    ));
    let siblings = include_str!("accept/accepted-sibling.toml");
    insta::assert_snapshot!(answers_about(siblings, &["core 2"]));
}

#[test]
fn a_program_reads_who_and_where() {
    let case = Case::new("line.toml", SYSTEM);
    let answer = plan(&case).who("at 350 us").unwrap().to_json();
    let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let replies = value["replies"].as_array().unwrap();
    assert_eq!(replies.len(), 2, "one for each core in use");
    assert_eq!(
        (&replies[0]["verdict"], &replies[0]["owner"]),
        (&"partition".into(), &"plc".into())
    );
    let line = SYSTEM.lines().position(|line| line == "[[partition.plc.window]]").unwrap() + 1;
    assert_eq!(replies[0]["places"][0]["line"], line);
}

proptest! {
    #[test]
    fn each_byte_and_instant_has_one_answer(address: u64, ticks in 0_u64..1 << 40, words in ".{0,24}") {
        for question in [format!("{address:#x}"), format!("plc:{address:#x}"), format!("at {ticks} ticks core 0")] {
            let answer = LINE.who(&question).unwrap();
            prop_assert_eq!(answer.to_json().matches("\"verdict\"").count(), 1);
        }
        let _ = LINE.who(&words);
    }
}

/// What an image keeps for its log says of each address what `who` says of it.
#[test]
fn what_a_partition_finds_is_what_who_says() {
    let case = Case::new("line.toml", SYSTEM);
    let plan = plan(&case);
    for (id, partition) in (0..).zip(plan.partitions()) {
        let found = plan.found_by(id);
        let (last, own) = found.split_last().unwrap();
        assert!(own.is_sorted_by_key(|it| it.start), "{}: ascending", partition.name);
        for (it, inside) in own.iter().flat_map(|it| [(it, it.start), (it, it.end - 1)]) {
            let told = plan.who(&format!("{}:{inside:#x}", partition.name)).unwrap().to_json();
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            let reply = &told["replies"][0];
            assert_eq!(reply["verdict"], it.verdict.word(), "{} at {inside:#x}", partition.name);
            let line = it.line.as_ref().unwrap();
            assert!(line.ends_with(&format!(":{}", reply["places"][0]["line"])), "{line}: {reply}");
        }
        let end = partition.regions.last().map_or(0, |last| last.guest + last.size);
        assert_eq!((last.start, last.verdict), (end, bulkhead_config::Verdict::Nobody));
    }
}
