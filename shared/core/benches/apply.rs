//! How long a chunk's state steps take: `cargo bench -p sheaf-core`.

mod cases;

use std::time::Duration;

use criterion::{Criterion, Throughput};

fn main() {
    let short = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    let mut criterion = short.configure_from_args();
    let mut group = criterion.benchmark_group("state step of a chunk of 1,000 tasks");
    group.throughput(Throughput::Elements(cases::TASKS.into()));
    for (name, mut step) in cases::steps() {
        group.bench_function(name, |bencher| bencher.iter(&mut step));
    }
    group.finish();
    criterion.final_summary();
}
