//! A task that was interrupted goes on from its checkpoint: through a whole grid, with real processes.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{path::Path, time::Duration};

use sheaf_api::{
    Api, PackBuilder, Segment,
    wire::{CreateJob, PutFunction, ReadResults, SubmitChunk},
};
use sheaf_core::{ChunkKey, Event, FunctionKind, JobId, Manifest, Seal, TaskId, invariant};
use sheaf_local::{Grid, GridOptions};
use sheaf_protocol::{BlobStore, Ports};

/// Counts until there is a file `go`, and then tells from where it began.
const COUNT: &str = r#"
    n=0; [ -e "$SHEAF_CHECKPOINT" ] && n=$(cat "$SHEAF_CHECKPOINT"); from=$n
    trap 'echo $n > "$SHEAF_CHECKPOINT.new"; mv "$SHEAF_CHECKPOINT.new" "$SHEAF_CHECKPOINT"' USR1
    while [ ! -e "$0/go" ]; do n=$((n + 1)); : > "$0/counts"; sleep 0.02; done
    echo "$from"
"#;

async fn open(directory: &Path) -> Grid {
    let grace = Duration::from_secs(10);
    let options = GridOptions { directory: Some(directory.into()), slots: 1, grace, ..GridOptions::default() };
    Grid::open(options).await.unwrap()
}

async fn submit(grid: &Grid, directory: &Path, checkpoint_every_ms: Option<u64>) -> JobId {
    let directory = directory.to_str().unwrap();
    let argv = ["sh", "-c", COUNT, directory].map(str::to_owned).to_vec();
    let kind = FunctionKind::Command { argv };
    let manifest = Manifest { checkpoint_every_ms, ..Manifest::new("count".parse().unwrap(), kind) };
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
    let id = JobId::from_uuid(uuid::Uuid::now_v7());
    grid.create_job(CreateJob::new(id, vec!["count".to_owned()])).await.unwrap();
    let mut pack = PackBuilder::new();
    pack.push(b"").unwrap();
    grid.submit(id, vec![SubmitChunk { number: 0, task_first: 0, pack: pack.finish(false) }]).await.unwrap();
    grid.seal(id, Seal { chunks: 1, tasks: 1 }).await.unwrap();
    id
}

async fn appears(path: &Path) {
    for _ in 0..6_000 {
        if path.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} does not appear", path.display());
}

/// From where the last attempt counted.
async fn result(grid: &Grid, id: JobId) -> u64 {
    loop {
        let page = grid.results(id, ReadResults { wait_ms: 5_000, ..ReadResults::default() }).await.unwrap();
        if let Some(chunk) = page.chunks.into_iter().next() {
            let segment = Segment::parse(chunk.segments.into_iter().next().unwrap()).unwrap();
            let answer = segment.entries().next().unwrap().answer;
            return std::str::from_utf8(answer).unwrap().trim().parse().unwrap();
        }
    }
}

async fn events(grid: &Grid, id: JobId) -> Vec<Event> {
    grid.events(id, 0).await.unwrap().rows.into_iter().map(|view| view.event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_that_stops_asks_for_a_checkpoint_and_the_next_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (data, counts) = (directory.path().join("data"), directory.path().join("counts"));
    let grid = open(&data).await;
    let id = submit(&grid, directory.path(), Some(3_600_000)).await;
    appears(&counts).await;
    grid.shutdown().await;
    drop(grid);

    let grid = open(&data).await;
    std::fs::remove_file(&counts).unwrap();
    appears(&counts).await;
    let task = TaskId { chunk: ChunkKey { job: id, number: 0 }, index: 0 };
    let view = grid.task(task).await.unwrap();
    let checkpoint = view.checkpoint.expect("it is told");
    assert_eq!(checkpoint.epoch, 1);
    assert!(view.why.contains("going on from the checkpoint of attempt 1"), "{}", view.why);
    let past = &view.past[0];
    assert_eq!(past.checkpointed_at_ms, Some(checkpoint.at_ms));
    assert!(past.lost_ms() < past.until_ms - past.since_ms, "{past:?}");
    assert_eq!(view.lost_ms, Some(past.lost_ms()));
    let world = grid.ports().store().world().unwrap();
    assert_eq!(invariant::check_world(&world), []);
    let nonce = world.chunks[&task.chunk].work.checkpoints[&0].nonce;

    std::fs::write(directory.path().join("go"), "").unwrap();
    assert!(result(&grid, id).await > 0, "it has gone on");
    let events = events(&grid, id).await;
    assert!(
        events.iter().any(|event| matches!(event, Event::CheckpointStored { epoch: 1, task: 0, .. })),
        "{events:?}"
    );
    assert!(events.iter().any(|event| matches!(event, Event::ChunkClaimed { epoch: 2, resumed: 1, .. })), "{events:?}");
    let view = grid.task(task).await.unwrap();
    assert_eq!((view.checkpoint, view.lost_ms), (None, Some(view.past[0].lost_ms())));
    let key = format!("k/default/{id}/0/0/1-{nonce:016x}-00000000");
    // Deleted behind the write that ended the task; the grid's own time limit is the test's.
    while grid.ports().blobs().get(std::slice::from_ref(&key)).await.pop().unwrap().unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    grid.shutdown().await;
}

/// It is never sent the signal, and starts anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_without_checkpoints_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (data, counts) = (directory.path().join("data"), directory.path().join("counts"));
    let options =
        GridOptions { directory: Some(data.clone()), grace: Duration::from_secs(1), ..GridOptions::default() };
    let grid = Grid::open(options).await.unwrap();
    let id = submit(&grid, directory.path(), None).await;
    appears(&counts).await;
    grid.shutdown().await;
    drop(grid);
    std::fs::write(directory.path().join("go"), "").unwrap();
    let grid = open(&data).await;
    assert_eq!(result(&grid, id).await, 0);
    let task = TaskId { chunk: ChunkKey { job: id, number: 0 }, index: 0 };
    let view = grid.task(task).await.unwrap();
    assert_eq!((view.lost_ms, view.past[0].checkpointed_at_ms), (None, None));
    grid.shutdown().await;
}

/// A checkpoint whose bytes are gone costs the work in it, not the task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_checkpoint_is_started_without() {
    let directory = tempfile::tempdir().unwrap();
    let (data, counts) = (directory.path().join("data"), directory.path().join("counts"));
    let grid = open(&data).await;
    let id = submit(&grid, directory.path(), Some(3_600_000)).await;
    appears(&counts).await;
    grid.shutdown().await;
    drop(grid);
    std::fs::write(directory.path().join("go"), "").unwrap();
    let grid =
        Grid::open(GridOptions { directory: Some(data.clone()), slots: 0, ..GridOptions::default() }).await.unwrap();
    grid.ports().blobs().delete_prefix(&format!("k/default/{id}/")).await.unwrap();
    grid.shutdown().await;
    drop(grid);
    let grid = open(&data).await;
    assert_eq!(result(&grid, id).await, 0);
    let task = TaskId { chunk: ChunkKey { job: id, number: 0 }, index: 0 };
    let log = grid.logs(task).await.unwrap();
    let log = std::str::from_utf8(&log).unwrap();
    assert!(log.contains("the checkpoint of attempt 1 is not there any more; the task starts anew"), "{log}");
    grid.shutdown().await;
}
