//! Images and runs that several tests look at: each is made once, by the first that asks.

use std::path::PathBuf;
use std::sync::LazyLock;

use bulkhead::bench::suite::Suite;
use bulkhead::bench::{BenchOptions, Outcome, measure};
use bulkhead::{BuiltImage, Run, guests, probe, process};
use hil_tests::bench;

/// The image of `partitions/demo.toml`.
pub static DEMO: LazyLock<BuiltImage> =
    LazyLock::new(|| bench::build(&bench::root().join("partitions/demo.toml"), "demo"));

/// Its run in Bochs.
pub static DEMO_RUN: LazyLock<Run> = LazyLock::new(|| bench::run(&DEMO.image));

/// What the bench measures on the demo's board, suite `quick`.
pub static QUICK: LazyLock<Outcome> = LazyLock::new(|| {
    let _permit = bench::permit();
    let options = BenchOptions {
        system: bench::root().join("partitions/demo.toml"),
        suite: Some(Suite::Quick),
        work: Some(bench::folder("baseline")),
        timeout: Some(bench::LIMIT),
        quiet: true,
        ..BenchOptions::default()
    };
    bench::sure("measure", measure(&options))
});

/// The image of `systems/plans.toml`, which tells the windows that ran, and its run.
pub static PLANS: LazyLock<(BuiltImage, Run)> = LazyLock::new(|| {
    let built = bench::build(&bench::root().join("hil-tests/systems/plans.toml"), "plans");
    let run = bench::run(&built.image);
    (built, run)
});

/// The image of `systems/pc.toml`, with the platform of a PC on both kinds of core.
pub static PC: LazyLock<BuiltImage> =
    LazyLock::new(|| bench::build(&bench::root().join("hil-tests/systems/pc.toml"), "pc"));

/// The probe image.
pub static PROBE: LazyLock<PathBuf> = LazyLock::new(|| {
    let image = bench::folder("probe").join("probe.img");
    bench::sure("build the probe", probe::build(&image, true));
    image
});

/// The `bulkhead` command, built once.
pub static COMMAND: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--package", "bulkhead", "--message-format=json"])
        .current_dir(bench::root());
    let messages = process::run(&mut cargo, "the command does not build", "mend it").unwrap();
    guests::executable(&messages).unwrap()
});
