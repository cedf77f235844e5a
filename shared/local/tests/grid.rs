//! A grid in one process, through its calls: submitted tasks end in outcomes and are read back.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::time::Duration;

use sheaf_api::{
    Api, PackBuilder, Segment,
    wire::{ChunkAnswer, CreateJob, PutFunction, ReadResults, SubmitChunk},
};
use sheaf_core::{Failure, FailureKind, FunctionKind, JobId, JobState, Manifest, Mark, Seal, invariant};
use sheaf_local::{Grid, GridOptions, Handler};
use sheaf_protocol::{Ports, StateStore};

fn job_id() -> JobId {
    JobId::from_uuid(uuid::Uuid::now_v7())
}

async fn open(directory: Option<&std::path::Path>) -> Grid {
    let options = GridOptions { directory: directory.map(Into::into), slots: 2, ..GridOptions::default() };
    let grid = Grid::open(options).await.expect("a grid opens");
    let echo = Handler::new(|_, payload, out| {
        out.extend_from_slice(payload);
        Ok(())
    });
    let odd = Handler::new(|_, payload, out| {
        if payload.len() % 2 == 1 {
            return Err(Failure::new(FailureKind::Error, "odd"));
        }
        out.extend_from_slice(payload);
        Ok(())
    });
    for (name, handler) in [("echo", echo), ("odd", odd)] {
        grid.handlers().insert(name.parse().unwrap(), "", handler);
        let manifest = Manifest::new(name.parse().unwrap(), FunctionKind::Handler { revision: String::new() });
        grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
    }
    grid
}

async fn submit(grid: &Grid, function: &str, chunks: u32, tasks: u32) -> JobId {
    let id = job_id();
    grid.create_job(CreateJob::new(id, vec![function.to_owned()])).await.unwrap();
    let mut builder = PackBuilder::new();
    for number in 0..chunks {
        for task in 0..tasks {
            builder.push(format!("{number}-{task}").as_bytes()).unwrap();
        }
        let chunk = SubmitChunk { number, task_first: u64::from(number * tasks), pack: builder.finish(false) };
        let reply = grid.submit(id, vec![chunk.clone(), chunk]).await.unwrap();
        assert_eq!(reply.answers[0], ChunkAnswer::Accepted);
        assert_eq!(reply.answers[1], ChunkAnswer::Exists);
    }
    grid.seal(id, Seal { chunks, tasks: u64::from(chunks * tasks) }).await.unwrap();
    id
}

async fn read_all(grid: &Grid, id: JobId) -> Vec<(u32, u32, Mark, Vec<u8>)> {
    let mut read = ReadResults { wait_ms: 5_000, chunks_max: 7, ..ReadResults::default() };
    let mut all = Vec::new();
    loop {
        let page = grid.results(id, read.clone()).await.unwrap();
        if page.chunks.is_empty() && page.job.job.state.ended_at_ms().is_some() {
            return all;
        }
        for chunk in page.chunks {
            assert!(read.have.insert(chunk.head.number));
            for segment in chunk.segments {
                let segment = Segment::parse(segment).unwrap();
                all.extend(
                    segment.entries().map(|entry| (chunk.head.number, entry.task, entry.mark, entry.answer.to_vec())),
                );
            }
        }
    }
}

async fn check_world(grid: &Grid) {
    let world = grid.ports().store().world().unwrap();
    assert_eq!(invariant::check_world(&world), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_ends_in_one_outcome_in_memory_and_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    for path in [None, Some(directory.path())] {
        let grid = open(path).await;
        let id = submit(&grid, "echo", 20, 50).await;
        let mut all = read_all(&grid, id).await;
        all.sort_by_key(|(chunk, task, ..)| (*chunk, *task));
        assert_eq!(all.len(), 1_000);
        for (chunk, task, mark, answer) in all {
            assert_eq!((mark, answer), (Mark::Succeeded, format!("{chunk}-{task}").into_bytes()));
        }
        let view = grid.progress(id, None, 0).await.unwrap();
        assert!(matches!(view.job.state, JobState::Done { .. }));
        assert_eq!((view.summary.totals.succeeded, view.summary.tasks_submitted), (1_000, 1_000));
        check_world(&grid).await;
        grid.shutdown().await;
    }
}

/// A submission is acknowledged when it was synced, though its chunk may begin before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_submission_was_synced() {
    let directory = tempfile::tempdir().unwrap();
    let options = GridOptions { directory: Some(directory.path().into()), slots: 0, ..GridOptions::default() };
    let grid = Grid::open(options).await.expect("a grid opens");
    let manifest = Manifest::new("idle".parse().unwrap(), FunctionKind::Handler { revision: String::new() });
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
    let id = job_id();
    grid.create_job(CreateJob::new(id, vec!["idle".to_owned()])).await.unwrap();
    for number in 0..20 {
        let mut builder = PackBuilder::new();
        builder.push(b"small").unwrap();
        let before = grid.grid().await.unwrap().syncs.unwrap();
        let chunk = SubmitChunk { number, task_first: u64::from(number), pack: builder.finish(false) };
        let reply = grid.submit(id, vec![chunk]).await.unwrap();
        assert_eq!(reply.answers, [ChunkAnswer::Accepted]);
        assert_eq!(grid.grid().await.unwrap().syncs.unwrap() - before, 1, "chunk {number}");
    }
    grid.shutdown().await;
}

/// What has ended is committed while the rest of its chunk runs, though nothing of it waits any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_task_does_not_hold_back_its_neighbours() {
    let grid = open(None).await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let slow = Handler::new(move |_, payload, out| {
        if payload.ends_with(b"-1") {
            let _ = released.lock().unwrap().recv();
        }
        out.extend_from_slice(payload);
        Ok(())
    });
    grid.handlers().insert("slow".parse().unwrap(), "", slow);
    let manifest = Manifest::new("slow".parse().unwrap(), FunctionKind::Handler { revision: String::new() });
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
    let id = submit(&grid, "slow", 1, 2).await;
    let committed = async {
        loop {
            let key = sheaf_core::ChunkKey { job: id, number: 0 };
            let chunk = grid.ports().state().chunks(&[key]).await.unwrap().remove(0).unwrap();
            if chunk.work.marks.get(0) == Mark::Succeeded {
                return chunk;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let chunk = tokio::time::timeout(Duration::from_secs(60), committed).await.expect("the first task is committed");
    assert!(chunk.lease().is_some() && chunk.work.marks.get(1) == Mark::Open, "{chunk:?}");
    release.send(()).unwrap();
    assert_eq!(read_all(&grid, id).await.len(), 2);
    check_world(&grid).await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_kept_and_tried_again_as_a_new_job() {
    let grid = open(None).await;
    let id = submit(&grid, "odd", 2, 20).await;
    let all = read_all(&grid, id).await;
    let failed = all.iter().filter(|(_, _, mark, _)| *mark == Mark::Failed).count();
    assert_eq!((all.len(), failed), (40, 20));
    let view = grid.progress(id, None, 0).await.unwrap();
    assert_eq!((view.summary.totals.succeeded, view.summary.totals.failed), (20, 20));

    let again = job_id();
    grid.retry(id, sheaf_api::wire::RetryJob { id: again }).await.unwrap();
    let all = read_all(&grid, again).await;
    assert_eq!(all.len(), 20);
    check_world(&grid).await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let id = {
        let options = GridOptions { directory: Some(directory.path().into()), slots: 0, ..GridOptions::default() };
        let grid = Grid::open(options).await.unwrap();
        let manifest = Manifest::new("echo".parse().unwrap(), FunctionKind::Handler { revision: String::new() });
        grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
        let id = submit(&grid, "echo", 5, 10).await;
        grid.shutdown().await;
        id
    };
    let grid = tokio::time::timeout(Duration::from_secs(10), open(Some(directory.path()))).await.unwrap();
    assert_eq!(read_all(&grid, id).await.len(), 50);
    check_world(&grid).await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_opened_by_one_grid_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let grid = open(Some(directory.path())).await;
    let second = Grid::open(GridOptions { directory: Some(directory.path().into()), ..GridOptions::default() }).await;
    let message = second.unwrap_err().to_string();
    assert!(message.contains("in use by process"), "{message}");
    grid.shutdown().await;
}

/// Adds a handler and declares it.
async fn declare(grid: &Grid, name: &str, handler: Handler) {
    grid.handlers().insert(name.parse().unwrap(), "", handler);
    let manifest = Manifest::new(name.parse().unwrap(), FunctionKind::Handler { revision: String::new() });
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
}

/// A handler that sleeps in small steps, until told to stop, and then echoes.
fn sleeper(ms: u64) -> Handler {
    Handler::new(move |context, payload, out| {
        for _ in 0..ms / 10 {
            if context.is_stopped() {
                return Err(Failure::new(FailureKind::Error, "stopped"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        out.extend_from_slice(payload);
        Ok(())
    })
}

async fn wait_over(grid: &Grid, id: JobId) -> sheaf_api::wire::JobView {
    let mut view = grid.progress(id, None, 0).await.unwrap();
    while view.job.state.ended_at_ms().is_none() {
        view = grid.progress(id, Some(view.summary.chunks_ended), 1_000).await.unwrap();
    }
    view
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_stops_and_every_task_has_an_outcome() {
    let grid = open(None).await;
    declare(&grid, "sleep", sleeper(60_000)).await;
    let id = submit(&grid, "sleep", 10, 5).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = std::time::Instant::now();
    grid.cancel(id).await.unwrap();
    let view = wait_over(&grid, id).await;
    assert!(matches!(view.job.state, JobState::Cancelled { .. }), "{:?}", view.job.state);
    assert_eq!(view.summary.totals.cancelled, 50);
    assert_eq!(grid.cancel(id).await.unwrap().job.state, view.job.state);
    check_world(&grid).await;
    grid.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(20), "its tasks were stopped, not waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_starts_after_the_deadline() {
    let grid = open(None).await;
    declare(&grid, "sleep", sleeper(300)).await;
    let id = job_id();
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut request = CreateJob::new(id, vec!["sleep".to_owned()]);
    request.deadline_ms = Some(now_ms + 700);
    grid.create_job(request).await.unwrap();
    let mut builder = PackBuilder::new();
    (0..20).for_each(|_| builder.push(b"x").unwrap());
    let chunk = SubmitChunk { number: 0, task_first: 0, pack: builder.finish(false) };
    grid.submit(id, vec![chunk]).await.unwrap();
    grid.seal(id, Seal { chunks: 1, tasks: 20 }).await.unwrap();
    let view = wait_over(&grid, id).await;
    let totals = view.summary.totals;
    assert_eq!(totals.ended(), 20);
    assert!((2..=6).contains(&totals.succeeded) && totals.expired == 20 - totals.succeeded, "{totals:?}");
    check_world(&grid).await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_errors_are_tried_again_as_the_job_says() {
    let tries: std::sync::Arc<std::sync::Mutex<std::collections::BTreeMap<Vec<u8>, u32>>> = Default::default();
    let grid = open(None).await;
    let counted = tries.clone();
    let flaky = Handler::new(move |_, payload, out| {
        let mut tries = counted.lock().unwrap();
        let count = tries.entry(payload.to_vec()).or_default();
        *count += 1;
        if *count < 3 {
            return Err(Failure::new(FailureKind::Error, "not yet"));
        }
        out.extend_from_slice(payload);
        Ok(())
    });
    declare(&grid, "flaky", flaky).await;
    for (attempts, outcome) in [(3, Mark::Succeeded), (2, Mark::Failed)] {
        tries.lock().unwrap().clear();
        let id = job_id();
        let request = CreateJob { max_attempts: Some(attempts), ..CreateJob::new(id, vec!["flaky".to_owned()]) };
        grid.create_job(request).await.unwrap();
        let mut builder = PackBuilder::new();
        (0..10_u8).for_each(|i| builder.push(&[i]).unwrap());
        let chunk = SubmitChunk { number: 0, task_first: 0, pack: builder.finish(false) };
        grid.submit(id, vec![chunk]).await.unwrap();
        grid.seal(id, Seal { chunks: 1, tasks: 10 }).await.unwrap();
        let all = read_all(&grid, id).await;
        assert!(all.len() == 10 && all.iter().all(|(_, _, mark, _)| *mark == outcome), "{all:?}");
        assert!(tries.lock().unwrap().values().all(|count| *count == attempts));
    }
    check_world(&grid).await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_fast_is_cancelled() {
    let grid = open(None).await;
    declare(&grid, "no", Handler::new(|_, _, _| Err(Failure::new(FailureKind::Error, "no")))).await;
    declare(&grid, "sleep", sleeper(100)).await;
    let id = job_id();
    let request = CreateJob { fail_fast: Some(3), ..CreateJob::new(id, vec!["sleep".to_owned(), "no".to_owned()]) };
    grid.create_job(request).await.unwrap();
    let mut builder = PackBuilder::new();
    for number in 0..100 {
        builder.push_task(b"x", u16::from(number % 10 == 0), "").unwrap();
        let chunk = SubmitChunk { number, task_first: u64::from(number), pack: builder.finish(false) };
        grid.submit(id, vec![chunk]).await.unwrap();
    }
    grid.seal(id, Seal { chunks: 100, tasks: 100 }).await.unwrap();
    let view = wait_over(&grid, id).await;
    assert!(matches!(view.job.state, JobState::Cancelled { .. }));
    let totals = view.summary.totals;
    assert!(totals.failed >= 3 && totals.cancelled > 0 && totals.ended() == 100, "{totals:?}");
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_grid_gives_back_its_chunks_and_nobody_is_charged() {
    let directory = tempfile::tempdir().unwrap();
    let options = GridOptions {
        directory: Some(directory.path().into()),
        slots: 2,
        grace: Duration::from_millis(300),
        ..GridOptions::default()
    };
    let grid = Grid::open(options.clone()).await.unwrap();
    declare(&grid, "sleep", sleeper(60_000)).await;
    let id = submit(&grid, "sleep", 2, 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    grid.shutdown().await;
    drop(grid);

    let grid = Grid::open(options).await.unwrap();
    declare(&grid, "sleep", sleeper(10)).await;
    assert_eq!(read_all(&grid, id).await.len(), 4);
    let world = grid.ports().store().world().unwrap();
    assert_eq!(invariant::check_world(&world), []);
    for chunk in world.chunks.values() {
        assert_eq!(chunk.work.crashes, 0);
        // Until the function is linked in again, it cannot be run.
        let given_back = |past: &sheaf_core::PastAttempt| {
            use sheaf_core::ReleaseReason::{Drain, Unavailable};
            matches!(past.released, Some(Drain | Unavailable))
        };
        assert!(chunk.work.past.iter().all(given_back), "{:?}", chunk.work.past);
    }
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_job_runs_in_order_failures_included() {
    let ran: std::sync::Arc<std::sync::Mutex<Vec<u32>>> = Default::default();
    let grid = open(None).await;
    let seen = ran.clone();
    let note = Handler::new(move |context, _, _| {
        seen.lock().unwrap().push(context.task.index);
        if context.task.index % 7 == 3 { Err(Failure::new(FailureKind::Error, "seventh")) } else { Ok(()) }
    });
    declare(&grid, "note", note).await;
    let id = job_id();
    let request = CreateJob { ordered: true, max_attempts: Some(2), ..CreateJob::new(id, vec!["note".to_owned()]) };
    grid.create_job(request).await.unwrap();
    let mut builder = PackBuilder::new();
    (0..50).for_each(|_| builder.push(b"").unwrap());
    let chunk = SubmitChunk { number: 0, task_first: 0, pack: builder.finish(false) };
    let beyond = SubmitChunk { number: 1, task_first: 50, ..chunk.clone() };
    let answers = grid.submit(id, vec![chunk, beyond]).await.unwrap().answers;
    assert!(matches!(answers.as_slice(), [ChunkAnswer::Accepted, ChunkAnswer::Refused { .. }]), "{answers:?}");
    grid.seal(id, Seal { chunks: 1, tasks: 50 }).await.unwrap();
    assert_eq!(read_all(&grid, id).await.len(), 50);
    let expected: Vec<u32> = (0..50).flat_map(|i| if i % 7 == 3 { vec![i, i] } else { vec![i] }).collect();
    assert_eq!(*ran.lock().unwrap(), expected);
    grid.shutdown().await;
}

/// After a restart the chunks are there before the program has linked its handlers in: they wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_wait_for_a_handler_to_be_linked_in() {
    let grid = open(None).await;
    let manifest = Manifest::new("late".parse().unwrap(), FunctionKind::Handler { revision: String::new() });
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
    let id = submit(&grid, "late", 3, 3).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let task = sheaf_core::TaskId { chunk: sheaf_core::ChunkKey { job: id, number: 0 }, index: 0 };
    let view = grid.task(task).await.unwrap();
    assert!(view.outcome.is_none() && view.why.contains("no worker could run late@"), "{}", view.why);
    declare(&grid, "late", sleeper(10)).await;
    assert_eq!(read_all(&grid, id).await.len(), 9);
    grid.shutdown().await;
}

/// A disk grid runs commands: its scratch directory lives as long as it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_on_a_disk_grid() {
    let directory = tempfile::tempdir().unwrap();
    let grid = open(Some(directory.path())).await;
    let argv = vec!["cat".to_owned()];
    let manifest = Manifest::new("cat".parse().unwrap(), FunctionKind::Command { argv });
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
    let id = submit(&grid, "cat", 2, 2).await;
    let mut answers: Vec<Vec<u8>> = read_all(&grid, id).await.into_iter().map(|(.., answer)| answer).collect();
    answers.sort();
    assert_eq!(answers, [&b"0-0"[..], b"0-1", b"1-0", b"1-1"]);
    grid.shutdown().await;
}
