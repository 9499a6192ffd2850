//! The fuzz target of the compiler's front, run on random changes of its seeds: bounded, and on the stable compiler.
//! `PROPTEST_CASES=100000` digs deeper; `config/README.md` says how the fuzzer itself is run.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "../fuzz/bodies/toml.rs"]
mod body;

use std::path::Path;

use proptest::prelude::*;

/// Words that the language knows, and what breaks a reader.
const PIECES: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"\"",
    b"'",
    b"=",
    b",",
    b".",
    b"\n",
    b"\0",
    b"#",
    b"{",
    b"}",
    b"-",
    b"0",
    b"9",
    b"_",
    b"0x",
    b" ticks\"",
    b"18446744073709551615",
    b"-1",
    b"1e9",
    b"\xC3\xB5",
    b"\xFF",
    b"core = 0",
    b"plans = []",
    b"plans = [\"normal\"]",
    b"off-in = [\"normal\"]",
    b"cores = [0, 1, 2]",
    b"donates-to = \"plc\"",
    b"include = [\"system.toml\"]",
    b"include = [\"shared.toml\"]",
    b"[schedule]\n",
    b"[partition.plc]\n",
    b"[[partition.noise.window]]\n",
    b"hygiene = [\"l1d-flush\"]",
    b"[hygiene]\nl1d-flush = \"5 us\"\n",
];

/// The seeds of the target, the shipped systems, and a board behind one of them.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read(folder.join(path)).unwrap();
    let board = read("../partitions/boards/bochs-skylake-x.toml");
    let everything = read("fuzz/seeds/toml/everything.toml");
    vec![
        read("fuzz/seeds/toml/smallest.toml"),
        [everything.as_slice(), b"\0", &board, b"\0# shared\n"].concat(),
        everything,
        read("../partitions/demo.toml"),
        read("../partitions/press-line.toml"),
    ]
}

fn change() -> impl Strategy<Value = (f64, usize, Vec<u8>)> {
    let new = prop_oneof![
        prop::sample::select(PIECES).prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    (0.0..1.0, 0_usize..24, new)
}

#[test]
fn every_seed_is_read() {
    seeds().iter().for_each(|seed| body::run(seed));
}

proptest! {
    #[test]
    fn no_text_makes_the_front_panic(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec(change(), 1..12),
    ) {
        let mut bytes = seed;
        for (at, gone, new) in changes {
            let start = (bytes.len() as f64 * at) as usize;
            let end = (start + gone).min(bytes.len());
            bytes.splice(start..end, new);
        }
        body::run(&bytes);
    }
}
