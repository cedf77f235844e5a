//! Second copies: of two workers that run one task, the faster gives its outcome, and nobody is charged.

mod fixture;

use std::{sync::Arc, time::Duration};

use sheaf_api::run::{Call, Failed, Report};
use sheaf_core::{Chunk, ChunkKey, ChunkState, Failure, FailureKind, Lane, ReleaseReason, TenantId, WorkerId};
use sheaf_local::LocalPorts;
use sheaf_protocol::{
    ChunkQueue, Drain, Hint, Ports, Runner, Worker, WorkerOptions,
    work::{Worked, hedge},
};
use tokio::{sync::Semaphore, task::JoinHandle};

/// Answers each call when it is let, with its worker's name or a failure; tells when it is dropped.
struct Slow {
    name: &'static str,
    fails: bool,
    started: Semaphore,
    let_go: Semaphore,
    stopped: Semaphore,
}

struct Stopping<'a>(&'a Semaphore);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl Runner for Slow {
    fn slots(&self) -> usize {
        1
    }

    async fn run(&self, call: Call) -> Report {
        let _stopping = Stopping(&self.stopped);
        self.started.add_permits(1);
        self.let_go.acquire().await.expect("it is not closed").forget();
        let mut report = Report::default();
        if self.fails {
            let failure = Failure::new(FailureKind::Error, "it fails here");
            report.failures.push(Failed { task: call.tasks[0], failure, run_us: 1 });
        } else {
            report.answers.succeeded(call.tasks[0], self.name.as_bytes(), 1).expect("it fits");
        }
        report
    }
}

/// A worker that heartbeats often, so that it soon knows where it stands.
struct Member {
    worker: Arc<Worker<LocalPorts, Slow>>,
    runner: Arc<Slow>,
    drain: Arc<Drain>,
    ports: LocalPorts,
    lane: Lane,
}

impl Member {
    fn new(ports: &LocalPorts, name: &'static str, lane: Lane, fails: bool) -> Self {
        let [started, let_go, stopped] = [(); 3].map(|()| Semaphore::new(0));
        let runner = Arc::new(Slow { name, fails, started, let_go, stopped });
        let drain = Arc::<Drain>::default();
        // Of those in other processes a store in memory does not know whether they are gone.
        let id: WorkerId = format!("wrk_remote-{name}").parse().expect("a worker id");
        let options = WorkerOptions { lease_ms: 2_000, heartbeat_ms: 50, ..WorkerOptions::new(id) };
        let worker = Arc::new(Worker::new(ports.clone(), runner.clone(), options, drain.clone()));
        Self { worker, runner, drain, ports: ports.clone(), lane }
    }

    /// Receives a hint of its lane and works it off.
    fn work(&self) -> JoinHandle<Worked> {
        let (worker, ports, lane) = (self.worker.clone(), self.ports.clone(), self.lane);
        tokio::spawn(async move {
            let delivery = ports.queue().receive(&[lane], 1, 10_000).await.expect("a queue").pop().expect("a hint");
            worker.work(delivery).await
        })
    }

    async fn has_started(&self) {
        self.runner.started.acquire().await.expect("it is not closed").forget();
    }
}

/// A job of one task, held by the first worker, of which the second runs a copy.
struct Race {
    ports: LocalPorts,
    key: ChunkKey,
    owner: Member,
    copier: Member,
    owning: JoinHandle<Worked>,
    copying: JoinHandle<Worked>,
}

impl Race {
    async fn started(copy_fails: bool) -> Self {
        let ports = fixture::ports();
        let key = fixture::submitted(&ports, 1, 1).await[0];
        let owner = Member::new(&ports, "owner", Lane::Lambda, false);
        let copier = Member::new(&ports, "copier", Lane::OnDemand, copy_fails);
        let owning = owner.work();
        owner.has_started().await;
        hedge(&ports, &[chunk(&ports, key).await]).await;
        let copying = copier.work();
        copier.has_started().await;
        Self { ports, key, owner, copier, owning, copying }
    }

    async fn outcome(&self) -> (Chunk, String) {
        let chunk = chunk(&self.ports, self.key).await;
        assert!(matches!(chunk.state, ChunkState::Done { .. }), "{chunk:?}");
        assert!(chunk.work.crashes == 0 && chunk.work.tallies.is_empty(), "{chunk:?}");
        let ChunkState::Done { attempt, .. } = &chunk.state else { panic!("{chunk:?}") };
        let by = attempt.owner.worker.to_string();
        (chunk, by)
    }
}

async fn chunk(ports: &LocalPorts, key: ChunkKey) -> Chunk {
    fixture::chunks(ports, &[key]).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_faster_of_two_gives_the_outcome_and_the_other_stops() {
    let mut race = Race::started(false).await;
    race.copier.runner.let_go.add_permits(1);
    assert!(matches!((&mut race.copying).await.expect("it ends"), Worked::Finished { tasks: 1 }));
    // The owner never gets its answer: it is told by its next heartbeat, and its child is stopped.
    assert_eq!((&mut race.owning).await.expect("it ends"), Worked::Fenced);
    race.owner.runner.stopped.acquire().await.expect("it is not closed").forget();
    let (chunk, by) = race.outcome().await;
    assert_eq!(by, "wrk_remote-copier");
    assert_eq!(chunk.work.past.last().and_then(|past| past.released), Some(ReleaseReason::Outrun));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_faster_stops_the_copy() {
    let mut race = Race::started(false).await;
    race.owner.runner.let_go.add_permits(1);
    assert!(matches!((&mut race.owning).await.expect("it ends"), Worked::Finished { tasks: 1 }));
    assert_eq!((&mut race.copying).await.expect("it ends"), Worked::Over);
    race.copier.runner.stopped.acquire().await.expect("it is not closed").forget();
    let (chunk, by) = race.outcome().await;
    assert_eq!((by.as_str(), chunk.work.past.len()), ("wrk_remote-owner", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_fails_costs_nobody_anything() {
    let mut race = Race::started(true).await;
    race.copier.runner.let_go.add_permits(1);
    assert_eq!((&mut race.copying).await.expect("it ends"), Worked::Over);
    race.owner.runner.let_go.add_permits(1);
    assert!(matches!((&mut race.owning).await.expect("it ends"), Worked::Finished { tasks: 1 }));
    assert_eq!(race.outcome().await.1, "wrk_remote-owner");
}

/// What the copy has done is not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_becomes_the_attempt_when_its_owner_gives_back() {
    let mut race = Race::started(false).await;
    race.owner.drain.start(1, ReleaseReason::Reclaimed);
    assert_eq!((&mut race.owning).await.expect("it ends"), Worked::Released);
    let held_by_copier = async {
        loop {
            let chunk = chunk(&race.ports, race.key).await;
            if chunk.lease().is_some_and(|lease| lease.attempt.owner.worker.as_str() == "wrk_remote-copier") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held_by_copier).await.expect("it is claimed");
    race.copier.runner.let_go.add_permits(1);
    assert!(matches!((&mut race.copying).await.expect("it ends"), Worked::Finished { tasks: 1 }));
    assert_eq!(race.copier.runner.started.available_permits(), 0, "it was not started a second time");
    let (chunk, by) = race.outcome().await;
    assert_eq!((by.as_str(), chunk.work.past.len()), ("wrk_remote-copier", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_copies_nothing_that_it_holds_itself() {
    let ports = fixture::ports();
    let key = fixture::submitted(&ports, 1, 1).await[0];
    let owner = Member::new(&ports, "owner", Lane::Lambda, false);
    let mut owning = owner.work();
    owner.has_started().await;
    let held = chunk(&ports, key).await;
    let hint = Hint {
        key,
        tenant: TenantId::default(),
        lane: Lane::Lambda,
        priority: held.spec.priority,
        pack: None,
        hedge: true,
    };
    ports.queue().send(vec![hint], 0).await;
    assert_eq!(owner.work().await.expect("it ends"), Worked::Postponed);
    owner.runner.let_go.add_permits(1);
    assert!(matches!((&mut owning).await.expect("it ends"), Worked::Finished { tasks: 1 }));
}
