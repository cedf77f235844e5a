//! How fast packs and segments are written and read: `cargo bench -p sheaf-api`.

mod cases;

use std::time::Duration;

use criterion::{Criterion, Throughput};

fn main() {
    let short = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    let mut criterion = short.configure_from_args();
    let mut group = criterion.benchmark_group(format!("{} tasks of {} bytes", cases::TASKS, cases::TASK_BYTES));
    group.throughput(Throughput::Elements(cases::TASKS.into()));
    for (name, mut case) in cases::formats() {
        group.bench_function(name, |bencher| bencher.iter(&mut case));
    }
    group.finish();
    criterion.final_summary();
}
