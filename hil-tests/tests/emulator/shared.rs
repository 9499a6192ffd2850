//! Images and runs that several tests look at: each is made once, by the first that asks.

use std::path::PathBuf;
use std::sync::LazyLock;

use bulkhead::{BuiltImage, Run, probe};
use hil_tests::bench;

/// The image of `partitions/demo.toml`.
pub static DEMO: LazyLock<BuiltImage> =
    LazyLock::new(|| bench::build(&bench::root().join("partitions/demo.toml"), "demo"));

/// Its run in Bochs.
pub static DEMO_RUN: LazyLock<Run> = LazyLock::new(|| bench::run(&DEMO.image));

/// The probe image.
pub static PROBE: LazyLock<PathBuf> = LazyLock::new(|| {
    let image = bench::folder("probe").join("probe.img");
    bench::sure("build the probe", probe::build(&image, true));
    image
});
