//! A crew over ports in memory: how much it takes, when it stops, and that what waits at a closed gate comes back.

mod fixture;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fixture::{chunks, ports, submitted};
use sheaf_api::run::{Call, Report};
use sheaf_core::{ChunkKey, ChunkState, Lane, ReleaseReason, WorkerId};
use sheaf_local::LocalPorts;
use sheaf_protocol::{ChunkQueue, Delivery, Drain, Hint, Ports, Runner, StoreError, Worker, WorkerOptions};
use sheaf_worker::{Counts, Crew, CrewOptions, Gate};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Answers each call when it is let; counts those that run.
#[derive(Clone)]
struct Held {
    slots: usize,
    running: Arc<AtomicUsize>,
    let_go: Arc<Semaphore>,
}

impl Held {
    fn new(slots: usize) -> Self {
        Self { slots, running: Arc::default(), let_go: Arc::new(Semaphore::new(0)) }
    }
}

impl Runner for Held {
    fn slots(&self) -> usize {
        self.slots
    }

    async fn run(&self, call: Call) -> Report {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.let_go.acquire().await.expect("it is not closed").forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        let mut report = Report::default();
        for task in call.tasks {
            report.answers.succeeded(task, b"", 1).expect("an answer that fits");
        }
        report
    }
}

/// The ports of a grid in memory, whose queue does not answer for a while.
#[derive(Clone)]
struct Silent {
    ports: LocalPorts,
    queue: Arc<SilentQueue>,
}

struct SilentQueue {
    ports: LocalPorts,
    refusals: AtomicU32,
}

impl ChunkQueue for SilentQueue {
    async fn send(&self, hints: Vec<Hint>, delay_ms: u64) {
        self.ports.queue().send(hints, delay_ms).await;
    }

    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        let refusal = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match refusal {
            Ok(_) => Err(StoreError::Unknown { detail: "it is silent".to_owned() }),
            Err(_) => self.ports.queue().receive(lanes, max, wait_ms).await,
        }
    }

    async fn delete(&self, delivery: Delivery) {
        self.ports.queue().delete(delivery).await;
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        self.ports.queue().postpone(delivery, delay_ms).await;
    }

    async fn delay_ms(&self) -> u64 {
        0
    }
}

impl Ports for Silent {
    type State = <LocalPorts as Ports>::State;
    type Blobs = <LocalPorts as Ports>::Blobs;
    type Queue = SilentQueue;
    type Clock = <LocalPorts as Ports>::Clock;
    type Rng = <LocalPorts as Ports>::Rng;

    fn state(&self) -> &Self::State {
        self.ports.state()
    }

    fn blobs(&self) -> &Self::Blobs {
        self.ports.blobs()
    }

    fn queue(&self) -> &SilentQueue {
        &self.queue
    }

    fn clock(&self) -> &Self::Clock {
        self.ports.clock()
    }

    fn rng(&self) -> &Self::Rng {
        self.ports.rng()
    }
}

fn crew<P: Ports, R: Runner>(ports: &P, runner: Arc<R>, held_max: usize, short: Duration) -> Arc<Crew<P, R>> {
    let drain = Arc::new(Drain::default());
    let options = WorkerOptions::new(WorkerId::from_uuid(uuid::Uuid::now_v7()));
    let worker = Worker::new(ports.clone(), runner, options, drain.clone());
    let lanes = vec![Lane::Lambda];
    let options = CrewOptions { lanes, held_max, held_short_max: 2 * held_max, short, wait_ms: 1_000 };
    Arc::new(Crew::new(ports.clone(), worker, drain, options))
}

async fn count<P: Ports>(ports: &P, keys: &[ChunkKey], is: impl Fn(&ChunkState) -> bool) -> usize {
    chunks(ports, keys).await.iter().filter(|chunk| is(&chunk.state)).count()
}

async fn wait_for(what: &str, is: impl AsyncFn() -> bool) {
    let looking = async {
        while !is().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), looking).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn is_leased(state: &ChunkState) -> bool {
    matches!(state, ChunkState::Leased(_))
}

fn is_done(state: &ChunkState) -> bool {
    matches!(state, ChunkState::Done { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_no_more_chunks_than_it_may() {
    let (ports, runner) = (ports(), Held::new(8));
    let keys = submitted(&ports, 12, 1).await;
    let crew = crew(&ports, Arc::new(runner.clone()), 3, Duration::ZERO);
    let receiving = tokio::spawn({
        let crew = crew.clone();
        async move { crew.receive(|| std::future::ready(())).await }
    });
    for done in 0..4 {
        wait_for("three are held", async || count(&ports, &keys, is_leased).await == 3).await;
        // A fourth would have come by now.
        sleep(Duration::from_millis(50)).await;
        assert_eq!(count(&ports, &keys, is_leased).await, 3, "after {done} rounds");
        assert_eq!(crew.idle(), Duration::ZERO);
        runner.let_go.add_permits(3);
        wait_for("they end", async || count(&ports, &keys, is_done).await == 3 * (done + 1)).await;
    }
    crew.stop();
    receiving.await.expect("it returns");
    crew.ended().await;
    assert!(crew.idle() < Duration::from_secs(30), "counted from the last chunk");
    assert_eq!(crew.take_counts(), Counts { finished: 12, ..Counts::default() });
    assert_eq!(crew.take_counts(), Counts::default());
}

/// Once chunks were seen to be short, as many are held as that allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_short_chunks_ahead() {
    let (ports, runner) = (ports(), Held::new(8));
    let first = submitted(&ports, 20, 1).await;
    let crew = crew(&ports, Arc::new(runner.clone()), 3, Duration::from_secs(3_600));
    let receiving = tokio::spawn({
        let crew = crew.clone();
        async move { crew.receive(|| std::future::ready(())).await }
    });
    runner.let_go.add_permits(20);
    wait_for("they end", async || count(&ports, &first, is_done).await == 20).await;
    let second = submitted(&ports, 20, 1).await;
    wait_for("six are held", async || count(&ports, &second, is_leased).await == 6).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(count(&ports, &second, is_leased).await, 6);
    runner.let_go.add_permits(20);
    wait_for("they end", async || count(&ports, &second, is_done).await == 20).await;
    crew.stop();
    receiving.await.expect("it returns");
    crew.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_does_not_answer_is_asked_again_after_a_while() {
    let ports = ports();
    let queue = Arc::new(SilentQueue { ports: ports.clone(), refusals: AtomicU32::new(3) });
    let ports = Silent { ports, queue };
    let keys = submitted(&ports, 1, 1).await;
    let runner = Held::new(1);
    runner.let_go.add_permits(1);
    let (crew, asked) = (crew(&ports, Arc::new(runner), 1, Duration::ZERO), Arc::new(AtomicU32::new(0)));
    let started = std::time::Instant::now();
    let receiving = tokio::spawn({
        let (crew, asked) = (crew.clone(), asked.clone());
        async move {
            let before = async || _ = asked.fetch_add(1, Ordering::SeqCst);
            crew.receive(before).await;
        }
    });
    wait_for("it ends", async || count(&ports, &keys, is_done).await == 1).await;
    // At least half of 250, 500 and 1,000 ms.
    assert!(started.elapsed() >= Duration::from_millis(875), "{:?}", started.elapsed());
    assert!(asked.load(Ordering::SeqCst) >= 4, "the hook is asked before each receive");
    crew.stop();
    receiving.await.expect("it returns");
    crew.ended().await;
}

/// What runs goes on; what waits for a slot is given back at once, though there is all the time in the world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_at_a_gate_that_closes_is_given_back_at_once() {
    let (ports, runner) = (ports(), Held::new(1));
    let keys = submitted(&ports, 3, 1).await;
    let gate = Arc::new(Gate::new(runner.clone()));
    let crew = crew(&ports, gate.clone(), 3, Duration::ZERO);
    let receiving = tokio::spawn({
        let crew = crew.clone();
        async move { crew.receive(|| std::future::ready(())).await }
    });
    wait_for("all are held", async || count(&ports, &keys, is_leased).await == 3).await;
    wait_for("one runs", async || runner.running.load(Ordering::SeqCst) == 1).await;
    crew.stop();
    crew.drain().start(u64::MAX, ReleaseReason::Reclaimed);
    gate.close();
    let is_queued = |state: &ChunkState| matches!(state, ChunkState::Queued { .. });
    wait_for("two are given back", async || count(&ports, &keys, is_queued).await == 2).await;
    assert_eq!(runner.running.load(Ordering::SeqCst), 1, "nothing was started in their place");
    runner.let_go.add_permits(1);
    receiving.await.expect("it returns");
    crew.ended().await;
    assert_eq!(crew.take_counts(), Counts { finished: 1, released: 2, ..Counts::default() });
    let chunks = chunks(&ports, &keys).await;
    assert_eq!(chunks.iter().filter(|chunk| is_done(&chunk.state)).count(), 1);
    for chunk in chunks.iter().filter(|chunk| !is_done(&chunk.state)) {
        assert_eq!(chunk.work.past.last().and_then(|past| past.released), Some(ReleaseReason::Reclaimed));
        assert!(chunk.work.crashes == 0 && chunk.work.tallies.is_empty(), "{chunk:?}");
    }
}
