//! How long `check` takes as a system grows to 64 partitions, 256 cores and 1 TiB: less than 100 ms, and linearly.
#![allow(
    missing_docs,
    reason = "the macros of the benchmark write functions without documentation"
)]

use bulkhead_config::check_without_images;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[path = "../tests/common/scale.rs"]
mod scale;

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check");
    for partitions in [4, 8, 16, 32, 64] {
        let Ok(scaled) = scale::Scaled::new(partitions) else {
            eprintln!("cannot write the system: is the temporary folder full?");
            return;
        };
        if let Err(found) = check_without_images(&scaled.system) {
            eprintln!("the generated system is rejected\n{found}");
            return;
        }
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(partitions),
            &scaled,
            |bencher, scaled| {
                bencher.iter(|| check_without_images(&scaled.system));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, check);
criterion_main!(benches);
