//! A worker over ports in memory is told to stop: what has ended is kept, what has not is given back, and nobody is charged.

mod support;

use std::{
    collections::BTreeMap,
    future::pending,
    path::Path,
    time::{Duration, Instant},
};

use sheaf_api::{
    Api,
    wire::{GridView, TaskView},
};
use sheaf_core::{Chunk, ChunkState, Lane, Mark, ReleaseReason, TaskId, TenantId, WorkerId};
use sheaf_local::{LocalPorts, LocalStore, SystemClock};
use sheaf_protocol::{Clock, Ports, Service, StateStore, WorkerOptions};
use sheaf_worker::{Ended, Notice, Options, Signal, run};
use sheaf_worker_container::watch_ec2;
use support::{Machine, chunks, submit, wait_for};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

struct Grid {
    service: Service<LocalPorts>,
    scratch: tempfile::TempDir,
}

impl Grid {
    fn new() -> Self {
        let ports = LocalPorts::new(LocalStore::memory().expect("memory"));
        let view = GridView {
            version: String::new(),
            backend: "memory".into(),
            directory: None,
            slots: 2,
            durable: false,
            lanes: BTreeMap::new(),
            syncs: None,
        };
        let scratch = tempfile::tempdir().expect("a directory");
        Self { service: Service::new(ports, TenantId::default(), view), scratch }
    }

    fn ports(&self) -> &LocalPorts {
        self.service.ports()
    }

    fn work(&self, slots: usize, idle: Option<Duration>) -> (mpsc::Sender<Notice>, JoinHandle<Ended>) {
        let options = Options {
            worker: WorkerOptions::new(WorkerId::from_uuid(uuid::Uuid::now_v7())),
            host: "here".to_owned(),
            lanes: vec![Lane::Spot],
            slots,
            scratch: self.scratch.path().join("scratch"),
            stop: Duration::from_secs(110),
            idle,
        };
        let (notices, noticed) = mpsc::channel(4);
        let ports = self.ports().clone();
        let working =
            tokio::spawn(
                async move { run(ports, options, noticed, None, pending(), |_| ()).await.expect("it starts") },
            );
        (notices, working)
    }

    async fn explain(&self, task: TaskId) -> TaskView {
        self.service.task(task).await.expect("it is known")
    }
}

/// A script that says so when it starts, and then takes its time.
fn slow(started: &Path) -> String {
    format!("echo >>{}; sleep 300", started.display())
}

async fn started(path: &Path) {
    let looking = async {
        while !path.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), looking).await.expect("it starts");
}

/// From the metadata service to the queue: with 25 s to go, everything is over well before them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_taken_away_gives_back_what_runs_and_keeps_what_has_ended() {
    let (grid, machine) = (Grid::new(), Machine::start());
    let mark = grid.scratch.path().join("started");
    let keys =
        submit(&grid.service, &[vec!["echo quick".to_owned(), slow(&mark)], vec!["echo alone".to_owned()]]).await;
    let (notices, working) = grid.work(2, None);
    let watching = tokio::spawn(watch_ec2(machine.url.clone(), SystemClock.now_ms(), notices));
    started(&mark).await;
    let is_done = |chunks: &[Chunk]| matches!(chunks[1].state, ChunkState::Done { .. });
    wait_for(grid.ports(), &keys, "the quick one is done", is_done).await;
    let workers = grid.ports().state().workers().await.expect("they can be listed");
    assert!(matches!(workers.as_slice(), [worker] if worker.host == "here" && !worker.draining), "{workers:?}");
    // A token is good for six hours; the service may also be restarted.
    machine.put("tokens/expire", "").await;
    let noticed = Instant::now();
    machine.put("notice", r#"{"action":"terminate","in_s":25}"#).await;
    let ended = timeout(Duration::from_secs(60), working).await.expect("it ends").expect("it does not panic");
    assert_eq!(ended, Ended::Drained);
    assert!(noticed.elapsed() < Duration::from_secs(25), "before its machine goes, not after {:?}", noticed.elapsed());

    let found = chunks(grid.ports(), &keys).await;
    assert!(matches!(found[0].state, ChunkState::Queued { .. }), "{:?}", found[0]);
    assert_eq!([0, 1].map(|task| found[0].work.marks.get(task)), [Mark::Succeeded, Mark::Open]);
    assert!(found[0].work.crashes == 0 && found[0].work.tallies.is_empty(), "{:?}", found[0].work);
    let view = grid.explain(TaskId { chunk: keys[0], index: 1 }).await;
    assert_eq!(view.past.last().and_then(|past| past.released), Some(ReleaseReason::Reclaimed));
    assert_eq!((view.attempts, view.strikes, view.crashes), (0, 0, 0));
    assert_eq!(grid.ports().state().workers().await.expect("they can be listed"), [], "it has said good-bye");
    watching.abort();

    // Another worker goes on where this one was.
    let (_notices, working) = grid.work(2, None);
    wait_for(grid.ports(), &keys, "it is claimed again", |chunks| matches!(chunks[0].state, ChunkState::Leased(_)))
        .await;
    working.abort();
}

/// A recommendation is no emergency: the task that runs ends, the next one of its chunk is somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_may_be_taken_away_ends_what_runs() {
    let grid = Grid::new();
    let mark = grid.scratch.path().join("started");
    let first = format!("echo >>{}; sleep 2; echo ended", mark.display());
    let keys = submit(&grid.service, &[vec![first, "sleep 300".to_owned()]]).await;
    let (notices, working) = grid.work(1, None);
    started(&mark).await;
    notices.send(Notice::Rebalance).await.expect("it listens");
    let ended = timeout(Duration::from_secs(60), working).await.expect("it ends").expect("it does not panic");
    assert_eq!(ended, Ended::Drained);
    let found = chunks(grid.ports(), &keys).await;
    assert!(matches!(found[0].state, ChunkState::Queued { .. }), "{:?}", found[0]);
    assert_eq!([0, 1].map(|task| found[0].work.marks.get(task)), [Mark::Succeeded, Mark::Open]);
    assert_eq!(found[0].work.past.last().and_then(|past| past.released), Some(ReleaseReason::Reclaimed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_with_a_time_bounds_one_without() {
    let grid = Grid::new();
    let mark = grid.scratch.path().join("started");
    let keys = submit(&grid.service, &[vec![slow(&mark)]]).await;
    let (notices, working) = grid.work(1, None);
    started(&mark).await;
    notices.send(Notice::Rebalance).await.expect("it listens");
    wait_for(grid.ports(), &keys, "it still runs", |chunks| matches!(chunks[0].state, ChunkState::Leased(_))).await;
    notices.send(Notice::Reclaim { at_ms: Some(SystemClock.now_ms()) }).await.expect("it listens");
    let ended = timeout(Duration::from_secs(60), working).await.expect("it ends").expect("it does not panic");
    assert_eq!(ended, Ended::Drained);
    let found = chunks(grid.ports(), &keys).await;
    assert!(matches!(found[0].state, ChunkState::Queued { .. }), "{:?}", found[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let grid = Grid::new();
    let mark = grid.scratch.path().join("started");
    submit(&grid.service, &[vec![slow(&mark)]]).await;
    let (notices, working) = grid.work(1, None);
    started(&mark).await;
    // One that follows a notice is still the first.
    notices.send(Notice::Rebalance).await.expect("it listens");
    notices.send(Notice::Signal(Signal::Terminate)).await.expect("it listens");
    sleep(Duration::from_secs(1)).await;
    assert!(!working.is_finished(), "what runs is given time");
    notices.send(Notice::Signal(Signal::Interrupt)).await.expect("it listens");
    let ended = timeout(Duration::from_secs(30), working).await.expect("it ends").expect("it does not panic");
    assert_eq!(ended, Ended::Dropped(Signal::Interrupt));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_it_has_been_idle_and_not_before() {
    let grid = Grid::new();
    let keys = submit(&grid.service, &[vec!["sleep 4".to_owned()]]).await;
    let (_notices, working) = grid.work(1, Some(Duration::from_secs(2)));
    let ended = timeout(Duration::from_secs(60), working).await.expect("it ends").expect("it does not panic");
    assert_eq!(ended, Ended::Drained);
    let found = chunks(grid.ports(), &keys).await;
    assert!(matches!(found[0].state, ChunkState::Done { .. }), "{:?}", found[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_metadata_service_none_is_asked_for_long() {
    let (notices, mut noticed) = mpsc::channel(1);
    let watching = watch_ec2("http://127.0.0.1:1".to_owned(), 0, notices);
    timeout(Duration::from_secs(120), watching).await.expect("it gives up");
    assert_eq!(noticed.recv().await, None);
}

/// A worker that stopped for a recommendation is started again on the same machine: it must not stop for it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recommendation_from_before_it_started_is_not_heeded() {
    let machine = Machine::start();
    machine.put("rebalance", "").await;
    let (notices, mut noticed) = mpsc::channel(4);
    let later_ms = SystemClock.now_ms() + 3_600_000;
    let watching = tokio::spawn(watch_ec2(machine.url.clone(), later_ms, notices));
    while machine.looks().await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    machine.put("notice", r#"{"action":"stop","in_s":100}"#).await;
    let first = timeout(Duration::from_secs(60), noticed.recv()).await.expect("it looks again");
    assert!(matches!(first, Some(Notice::Reclaim { at_ms: Some(_) })), "{first:?}");
    watching.abort();
}
