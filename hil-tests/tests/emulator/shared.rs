//! Images and runs that several tests look at: each is made once, by the first that asks.

use std::sync::LazyLock;

use bulkhead::{BuiltImage, Run};
use hil_tests::bench;

/// The image of `partitions/demo.toml`.
pub static DEMO: LazyLock<BuiltImage> =
    LazyLock::new(|| bench::build(&bench::root().join("partitions/demo.toml"), "demo"));

/// Its run in Bochs.
pub static DEMO_RUN: LazyLock<Run> = LazyLock::new(|| bench::run(&DEMO.image));
