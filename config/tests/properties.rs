//! Properties: valid systems compile to disjoint windows and memory; no text and no ELF file makes it panic.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::fmt::Write;

use bulkhead_config::{Plan, PlannedRole};
use bulkhead_table::Range;
use common::{Case, Elf};
use proptest::prelude::*;

/// Ticks of the test board's switch budget.
const BUDGET: u64 = 1_000;
const HYPERVISOR: Range = Range { start: 0x10_0000, size: 31 << 20 };
const BOARD: Range = Range { start: 0x10_0000, size: 510 << 20 };

/// A partition of a random system: pages of memory, and windows as (gap behind the budget, length) in ticks.
#[derive(Clone, Debug)]
struct Wish {
    pages: u64,
    windows: Vec<(u64, u64)>,
}

fn wish(windows: std::ops::Range<usize>) -> impl Strategy<Value = Wish> {
    let window = (0_u64..500, BUDGET + 1..5_000);
    (512_u64..20_000, prop::collection::vec(window, windows))
        .prop_map(|(pages, windows)| Wish { pages, windows })
}

/// Up to five partitions that share core 0, interleaved with housekeeping, and up to three dedicated ones.
fn system() -> impl Strategy<Value = String> {
    let shared = prop::collection::vec(wish(1..4), 0..5);
    let dedicated = prop::collection::vec(wish(0..1), 0..4);
    (shared, dedicated)
        .prop_filter("a partition", |(shared, dedicated)| shared.len() + dedicated.len() > 0)
        .prop_map(|(shared, dedicated)| text(&shared, &dedicated))
}

fn text(shared: &[Wish], dedicated: &[Wish]) -> String {
    let mut body = String::new();
    let mut now = 0;
    let mut window = |body: &mut String, owner: &str, gap: u64, length: u64| {
        now += BUDGET + gap;
        writeln!(body, "[[{owner}.window]]\nstart = \"{now} ticks\"").unwrap();
        writeln!(body, "length = \"{length} ticks\"").unwrap();
        now += length;
    };
    body.push_str("[housekeeping]\ncore = 0\n");
    window(&mut body, "housekeeping", 0, 2_000);
    for (index, wish) in shared.iter().enumerate() {
        partition(&mut body, &format!("shared-{index}"), wish, 0);
        for (gap, length) in &wish.windows {
            window(&mut body, &format!("partition.shared-{index}"), *gap, *length);
        }
    }
    for (index, wish) in dedicated.iter().enumerate() {
        partition(&mut body, &format!("alone-{index}"), wish, index + 1);
    }
    format!(
        "[system]\nname = \"random\"\nboard = \"boards/bochs-skylake-x.toml\"\n[schedule]\nframe = \"{now} ticks\"\n{body}"
    )
}

fn partition(body: &mut String, name: &str, wish: &Wish, core: usize) {
    let size = wish.pages * 4;
    writeln!(body, "[partition.{name}]\nimage = \"good.elf\"").unwrap();
    writeln!(body, "memory = \"{size} KiB\"\ncores = [{core}]").unwrap();
}

fn windows_are_apart(plan: &Plan) {
    for core in plan.cores() {
        let PlannedRole::Shared(plans) = &core.role else {
            continue;
        };
        let [windows] = plans.as_slice() else { panic!("one plan") };
        let mut free_from = 0;
        for (position, window) in windows.iter().enumerate() {
            assert!(position == 0 || window.start >= free_from + BUDGET);
            free_from = window.start + window.length;
        }
        assert!(free_from <= plan.frame());
        assert!(windows[0].start + plan.frame() >= free_from + BUDGET);
    }
}

fn memory_is_disjoint(plan: &Plan) {
    let ranges: Vec<_> = plan
        .partitions()
        .iter()
        .flat_map(|partition| &partition.regions)
        .map(|region| Range { start: region.host, size: region.size })
        .collect();
    for (position, range) in ranges.iter().enumerate() {
        assert!(range.start.is_multiple_of(2 << 20));
        assert!(BOARD.contains(range) && !HYPERVISOR.overlaps(range));
        assert!(ranges[..position].iter().all(|earlier| !earlier.overlaps(range)));
    }
}

/// Compiles whatever it is; an error is never empty.
fn compiles_or_says_why(case: &Case) -> bool {
    match case.compile() {
        Ok(compiled) => {
            windows_are_apart(compiled.plan());
            memory_is_disjoint(compiled.plan());
            true
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            assert!(!diagnostics.render(true).is_empty() && !diagnostics.to_json().is_empty());
            false
        }
    }
}

/// A change of a text or file: where (as a fraction of its length), how much goes, what comes.
type Mutation = (f64, usize, Vec<u8>);

fn mutation(bytes: impl Strategy<Value = u8>, most: usize) -> impl Strategy<Value = Mutation> {
    (0.0..1.0, 0..most, prop::collection::vec(bytes, 0..most))
}

fn mutate(bytes: &mut Vec<u8>, (at, gone, new): &Mutation) {
    let start = (bytes.len() as f64 * at) as usize;
    let end = (start + gone).min(bytes.len());
    bytes.splice(start..end, new.iter().copied());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn valid_systems_compile(text in system()) {
        let case = Case::new("system.toml", &text);
        let compiled = case.compile();
        if let Err(error) = &compiled {
            prop_assert!(false, "{}\n{}", text, error);
        }
        prop_assert!(compiles_or_says_why(&case));
    }

    #[test]
    fn broken_texts_say_why(
        text in system(),
        mutations in prop::collection::vec(mutation(prop::sample::select(
            b"abz019 .\"'[]{}=#\n\t-_xMi\xC3\xB5".as_slice()), 6), 1..8),
        in_board: bool,
    ) {
        let case = Case::new("system.toml", &text);
        let board = case.folder.path().join("boards/bochs-skylake-x.toml");
        let target = if in_board { &board } else { &case.system };
        let mut bytes = std::fs::read(target).unwrap();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        std::fs::write(target, bytes).unwrap();
        if in_board {
            // A changed board may allow more: only that nothing panics and an error is not empty.
            let empty = case.compile().err().is_some_and(|diagnostics| diagnostics.is_empty());
            prop_assert!(!empty);
        } else {
            compiles_or_says_why(&case);
        }
    }

    #[test]
    fn broken_elf_files_say_why(
        mutations in prop::collection::vec((0_usize..200, any::<u64>(), 1_usize..8), 1..6),
    ) {
        let case = Case::new(
            "system.toml",
            &text(&[], &[Wish { pages: 2048, windows: Vec::new() }]),
        );
        let mut bytes = Elf::good().build();
        for (at, value, length) in mutations {
            let end = (at + length).min(bytes.len());
            bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
        }
        std::fs::write(case.folder.path().join("good.elf"), bytes).unwrap();
        compiles_or_says_why(&case);
    }
}
