//! How fast a group of chunks is committed: packs put, then chunks submitted, as the writer does for every call of a client.
//! `cargo bench -p sheaf-local`. On disk it is the disk that is timed: compare runs on one machine only.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Bencher, Criterion, Throughput};
use sheaf_api::PackBuilder;
use sheaf_core::{ChunkEvent, ChunkKey, ChunkSpec, Digest, JobId, Lane, Priority, TenantId};
use sheaf_local::LocalStore;
use sheaf_protocol::{BlobStore, Put, StateStore, Write};
use tokio::runtime::Runtime;

/// Chunks that are committed together.
const CHUNKS: u32 = 16;
/// Tasks of a chunk, of 64 bytes each.
const TASKS: u32 = 1_000;
/// Groups after which a store is thrown away, so that none grows without a bound.
const GROUPS_MAX: u64 = 64;

fn main() {
    let short = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let mut criterion = short.sample_size(20).configure_from_args();
    let mut group = criterion.benchmark_group("16 chunks of 1,000 tasks of 64 bytes committed");
    group.throughput(Throughput::Elements((CHUNKS * TASKS).into()));
    let store = |store: Result<LocalStore, _>| store.expect("a store in an empty directory");
    group.bench_function("in memory", |bencher| time(bencher, |_| store(LocalStore::memory())));
    group.bench_function("on disk, not synced", |bencher| time(bencher, |path| store(LocalStore::disk(path, false))));
    group.bench_function("on disk, durable", |bencher| time(bencher, |path| store(LocalStore::disk(path, true))));
    group.finish();
    criterion.final_summary();
}

fn time(bencher: &mut Bencher<'_>, open: impl Fn(&Path) -> LocalStore) {
    let runtime = Runtime::new().expect("a runtime");
    let pack = pack();
    bencher.iter_custom(|groups| {
        let mut taken = Duration::ZERO;
        for begin in (0..groups).step_by(GROUPS_MAX as usize) {
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            let store = open(directory.path());
            let started = Instant::now();
            for group in begin..groups.min(begin + GROUPS_MAX) {
                runtime.block_on(commit(&store, group as u32 * CHUNKS, &pack));
            }
            taken += started.elapsed();
        }
        taken
    });
}

fn pack() -> Bytes {
    let mut builder = PackBuilder::new();
    (0..TASKS).for_each(|_| builder.push(&[7; 64]).expect("a small payload"));
    builder.finish(false).bytes().clone()
}

/// Puts the packs of a group, and submits its chunks.
async fn commit(store: &LocalStore, first: u32, pack: &Bytes) {
    let specs: Vec<ChunkSpec> = (first..first + CHUNKS).map(|number| spec(number, pack)).collect();
    let packs = specs.iter().map(|spec| (spec.pack_key(), pack.clone())).collect();
    let put = store.put(packs).await;
    assert!(put.into_iter().all(|put| put == Ok(Put::Created)), "a new pack");
    let submit = |spec: ChunkSpec| Write { key: spec.key, event: ChunkEvent::Submit { spec: Box::new(spec) } };
    let written = store.apply(specs.into_iter().map(submit).collect()).await;
    assert!(written.iter().all(Result::is_ok), "a new chunk");
}

fn spec(number: u32, pack: &Bytes) -> ChunkSpec {
    ChunkSpec {
        key: ChunkKey { job: JobId::from_bytes([7; 16]), number },
        tenant: TenantId::default(),
        tasks: TASKS,
        task_first: u64::from(number) * u64::from(TASKS),
        digest: Digest::of(&[]),
        pack_bytes: pack.len() as u32,
        lane: Lane::Lambda,
        priority: Priority::Normal,
        deadline_ms: None,
        submitted_at_ms: 0,
    }
}
