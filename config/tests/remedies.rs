//! Remedies do not contradict each other: whoever follows them, one at a time, comes to an accepted system, or is told that there is none.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use bulkhead_config::{Diagnostic, Diagnostics, check_without_images};
use common::{Elf, segment};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// What a person can change after a remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// Start and size.
    hypervisor: (u64, u64),
    memory: Vec<(u64, u64)>,
    /// Memory of each partition.
    partitions: Vec<u64>,
}

impl State {
    fn system(&self) -> String {
        let mut text = String::from(
            "[system]\nname = \"x\"\nboard = \"board.toml\"\n[housekeeping]\ncore = 0\n",
        );
        for (number, size) in self.partitions.iter().enumerate() {
            let core = number + 1;
            writeln!(text, "[partition.p{number}]\nimage = \"big.elf\"\nmemory = \"{size} B\"\ncores = [{core}]").unwrap();
        }
        text
    }

    fn board(&self) -> String {
        let (start, size) = self.hypervisor;
        let mut text = format!(
            "[board]\nname = \"x\"\n[clock]\ntsc = \"1 GHz\"\ntolerance = \"0.1 %\"\nskew = \"1 us\"\nswitch-budget = \"20 us\"\n\
             [hypervisor]\nstart = \"{start:#x}\"\nsize = \"{size} B\"\n[serial]\nport = 0x3f8\nbaud = 115200\n"
        );
        for id in 0..4 {
            writeln!(text, "[[core]]\napic-id = {id}").unwrap();
        }
        for (start, size) in &self.memory {
            writeln!(text, "[[memory]]\nstart = \"{start:#x}\"\nsize = \"{size} B\"").unwrap();
        }
        text
    }

    fn check(&self, folder: &Path) -> Result<(), Diagnostics> {
        fs::write(folder.join("system.toml"), self.system()).unwrap();
        fs::write(folder.join("board.toml"), self.board()).unwrap();
        check_without_images(&folder.join("system.toml")).map(|_| ())
    }

    /// The state behind the remedy; `None` where it names nothing to write.
    fn follow(&self, told: &Diagnostic) -> Option<Self> {
        let mut next = self.clone();
        let (start, size) = (written(&told.remedy, "start"), written(&told.remedy, "size"));
        match told.code {
            "BH0204" | "BH0205" | "BH0209" => {
                next.hypervisor = (start.unwrap_or(self.hypervisor.0), size?);
            }
            "BH0210" => {
                let low = next.memory.iter_mut().find(|(start, _)| *start < MIB)?;
                *low = (start?, size?);
            }
            "BH0501" | "BH0502" | "BH0503" | "BH0504" => {
                let number: usize =
                    told.message.split("`p").nth(1)?.split('`').next()?.parse().ok()?;
                next.partitions[number] = plain_size(&told.remedy)?;
            }
            _ => return None,
        }
        Some(next)
    }
}

/// The value of a key in a remedy: `start = "0x100000"`.
fn written(remedy: &str, key: &str) -> Option<u64> {
    let text = remedy.split(&format!("`{key} = \"")).nth(1)?.split('"').next()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => bytes(text),
    }
}

/// The first size in a remedy that says what to write: `write 8 MiB or less here`.
fn plain_size(remedy: &str) -> Option<u64> {
    let words: Vec<&str> = remedy.split([' ', ',', ':']).collect();
    let at = words.iter().position(|word| bytes_of(word).is_some())?;
    bytes(&words.get(at.checked_sub(1)?..=at)?.join(" "))
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    number.parse::<u64>().ok()?.checked_mul(bytes_of(unit)?)
}

fn bytes_of(unit: &str) -> Option<u64> {
    let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    units.into_iter().find(|(name, _)| *name == unit).map(|(_, bytes)| bytes)
}

/// Words by which a remedy says that nothing written into the file would help.
const HOPELESS: [&str; 3] = ["choose another board", "nothing is left", "take it out"];

fn state() -> impl Strategy<Value = State> {
    let start = prop_oneof![3 => Just(MIB), 1 => Just(2 * MIB), 1 => Just(32 * MIB), 1 => Just(MIB / 2), 1 => Just(0x1000_0000_u64)];
    let size = prop_oneof![1_u64..64, Just(255), 200_u64..600, Just(4096), Just(8000)];
    // RAM from 1 MiB to a hole, and behind it.
    let hole = prop_oneof![2_u64..64, Just(256), 64_u64..512, Just(3072)];
    let low = prop_oneof![4 => Just(MIB), 1 => Just(MIB / 2), 1 => Just(4 * MIB)];
    let behind = proptest::collection::vec((1_u64..40, 1_u64..2000), 0..12);
    let partition = prop_oneof![
        3 => (1_u64..600).prop_map(|size| size * MIB),
        1 => (1_u64..5000).prop_map(|size| size * MIB),
        1 => 1_u64..20_000,
    ];
    let partitions = proptest::collection::vec(partition, 1..4);
    (start, size, low, hole, behind, partitions).prop_map(
        |(start, size, low, hole, behind, partitions)| {
            let mut end = (hole * MIB).max(low + MIB);
            let mut memory = vec![(low, end - low)];
            for (gap, size) in behind {
                memory.push((end + gap * MIB, size * MIB));
                end += (gap + size) * MIB;
            }
            State { hypervisor: (start, size * MIB), memory, partitions }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn remedies_lead_to_an_accepted_system(begun in state(), images in 1_usize..40) {
        let folder = tempfile::tempdir().unwrap();
        let mut elf = Elf::good();
        elf.segments[1] = segment(0x10_1000, &vec![1; images << 18], 1);
        elf.segments[1].memory_size = (images << 18) as u64;
        fs::write(folder.path().join("big.elf"), elf.build()).unwrap();
        let mut state = begun;
        let mut seen = BTreeSet::new();
        let mut way = String::new();
        while let Err(told) = state.check(folder.path()) {
            let told = told.list();
            let first = told.iter().find(|each| each.severity == "error").unwrap();
            writeln!(way, "{state:?}\n  {}: {} / {}", first.code, first.message, first.remedy).unwrap();
            prop_assert!(seen.insert(state.clone()), "in a circle:\n{}", way);
            if HOPELESS.iter().any(|words| first.remedy.contains(words)) {
                break;
            }
            // What a partition's image needs is no matter of the board's.
            if ["BH0606", "BH0607"].contains(&first.code) {
                break;
            }
            let next = state.follow(first);
            prop_assert!(next.is_some(), "nothing to write:\n{}", way);
            state = next.unwrap();
        }
    }
}
