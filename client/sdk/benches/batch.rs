//! How fast items become packs: `cargo bench -p sheaf-sdk --bench batch`.
//!
//! The SDK's batcher is private; it is compiled once more, into this program.

#![allow(dead_code, reason = "a part of the SDK, of which only batching is timed")]

#[path = "../src/batch.rs"]
mod batch;

/// What the batcher finds in the SDK under these names.
mod error {
    pub(crate) use sheaf::{GridError, ItemError};
}
mod function {
    pub(crate) type Encode<I> = for<'a> fn(&'a I, &'a mut Vec<u8>) -> Result<&'a [u8], sheaf::ItemError>;
}

use std::{hint::black_box, time::Duration};

use batch::{Batch, Closing};
use criterion::{Criterion, Throughput};

/// Tasks of a chunk.
const TASKS: u32 = 1_000;

fn main() {
    let short = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    let mut criterion = short.configure_from_args();
    let mut group = criterion.benchmark_group("a chunk of 1,000 items batched");
    group.throughput(Throughput::Elements(TASKS.into()));
    let mut raw = batcher(|item: &[u8; 64], _| Ok(item));
    group.bench_function("64 bytes as they are", |bencher| bencher.iter(|| fill(&mut raw, &[7; 64])));
    let mut json = batcher(|item: &(u64, f64), scratch| {
        scratch.clear();
        serde_json::to_writer(&mut *scratch, item).expect("numbers can be written");
        Ok(scratch)
    });
    group.bench_function("two numbers as JSON", |bencher| bencher.iter(|| fill(&mut json, &(1_234_567, 0.02))));
    group.finish();
    criterion.final_summary();
}

fn batcher<I>(encode: function::Encode<I>) -> Batch<I> {
    let mut batch = Batch::new(encode, Closing { linger: Duration::ZERO, compress: false, ordered: false });
    batch.limit_tasks(TASKS);
    batch
}

fn fill<I>(batch: &mut Batch<I>, item: &I) {
    while !batch.is_full() {
        batch.push(black_box(item)).expect("a small item");
    }
    black_box(batch.close());
}
