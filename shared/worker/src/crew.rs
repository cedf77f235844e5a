//! The loop that receives hints and works them off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sheaf_core::{Lane, limits};
use sheaf_protocol::{ChunkQueue, Clock, Delivery, Drain, Ports, Rng, Runner, Worker, work::Worked};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The first pause after a queue that did not answer, doubled each time, up to the longest.
const UNANSWERED_MS: u64 = 250;
const UNANSWERED_MS_MAX: u64 = 30_000;

/// How many chunks a worker takes, and from where.
#[derive(Debug, Clone)]
pub struct CrewOptions {
    /// The lanes it serves.
    pub lanes: Vec<Lane>,
    /// Chunks held at once. A chunk is leased from the moment it is taken, so that one which has to wait for its turn is kept
    /// from other workers.
    pub held_max: usize,
    /// Chunks held at once while they are short, so that reading, running and committing overlap.
    pub held_short_max: usize,
    /// Chunks are short while they take less than this on average.
    pub short: Duration,
    /// The longest that one receive waits.
    pub wait_ms: u64,
}

/// What became of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Chunks that were finished.
    pub finished: u64,
    /// Chunks that were given back.
    pub released: u64,
    /// Chunks that turned out to be no longer its own.
    pub fenced: u64,
    /// Hints whose chunk was over, or not to be had at the time.
    pub orphans: u64,
}

/// A worker that takes what its queue has for it, as many chunks at once as suits their length.
#[derive(Debug)]
pub struct Crew<P, R> {
    ports: P,
    worker: Worker<P, R>,
    drain: Arc<Drain>,
    options: CrewOptions,
    receiving: CancellationToken,
    chunks: TaskTracker,
    chunk_done: Notify,
    /// Hints being worked off now.
    held: AtomicUsize,
    /// How long a chunk takes on average, in µs.
    chunk_us: AtomicU64,
    /// When a chunk of its own ended last, in ms since its start.
    worked_at_ms: AtomicU64,
    started: Instant,
    counts: Mutex<Counts>,
}

impl<P: Ports, R: Runner> Crew<P, R> {
    /// A crew that takes nothing yet. `drain` is the worker's.
    pub fn new(ports: P, worker: Worker<P, R>, drain: Arc<Drain>, options: CrewOptions) -> Self {
        // Chunks are not short until they were seen to be.
        let chunk_us = AtomicU64::new(options.short.as_micros() as u64);
        let (receiving, chunks, chunk_done, held, worked_at_ms, counts) = Default::default();
        let started = Instant::now();
        Self {
            ports,
            worker,
            drain,
            options,
            receiving,
            chunks,
            chunk_done,
            held,
            chunk_us,
            worked_at_ms,
            started,
            counts,
        }
    }

    /// The worker.
    pub const fn worker(&self) -> &Worker<P, R> {
        &self.worker
    }

    /// When it has to be over, once it is draining.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// For how long it has had no chunk of its own. Hints that turned out to be somebody else's do not count.
    pub fn idle(&self) -> Duration {
        if !self.worker.holding().is_empty() {
            return Duration::ZERO;
        }
        self.started.elapsed().saturating_sub(Duration::from_millis(self.worked_at_ms.load(Ordering::Relaxed)))
    }

    /// What became of the hints it has worked off since this was asked last.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.counts.lock())
    }

    /// Receives hints and works them off until it is [stopped](Self::stop) or drains. Before each receive it waits for
    /// `before`. Chunks it has taken go on; see [`ended`](Self::ended).
    pub async fn receive<F: Future<Output = ()>>(self: &Arc<Self>, before: impl Fn() -> F) {
        self.receiving.run_until_cancelled(self.receive_all(before)).await;
    }

    async fn receive_all<F: Future<Output = ()>>(self: &Arc<Self>, before: impl Fn() -> F) {
        let mut unanswered = 0_u32;
        while self.drain.until_ms().is_none() {
            let room = self.held_max().saturating_sub(self.held.load(Ordering::Relaxed));
            if room == 0 {
                let wait = Duration::from_millis(self.options.wait_ms);
                let _ = tokio::time::timeout(wait, self.chunk_done.notified()).await;
                continue;
            }
            before().await;
            let max = room.min(limits::QUEUE_BATCH_MAX);
            match self.ports.queue().receive(&self.options.lanes, max, self.options.wait_ms).await {
                Ok(received) => {
                    unanswered = 0;
                    received.into_iter().for_each(|delivery| self.take(delivery));
                }
                Err(error) => {
                    let most_ms = (UNANSWERED_MS << unanswered.min(16)).min(UNANSWERED_MS_MAX);
                    unanswered += 1;
                    tracing::warn!(%error, unanswered, "the queue did not answer");
                    let pause_ms = most_ms / 2 + self.ports.rng().below(most_ms / 2);
                    self.ports.clock().sleep_ms(pause_ms).await;
                }
            }
        }
    }

    fn held_max(&self) -> usize {
        let options = &self.options;
        let short = u128::from(self.chunk_us.load(Ordering::Relaxed)) < options.short.as_micros();
        if short { options.held_short_max } else { options.held_max }
    }

    fn take(self: &Arc<Self>, delivery: Delivery) {
        self.held.fetch_add(1, Ordering::Relaxed);
        let crew = self.clone();
        self.chunks.spawn(async move {
            let started = Instant::now();
            let chunk = delivery.hint.key;
            let worked = crew.worker.work(delivery).await;
            crew.note(worked, started.elapsed());
            tracing::debug!(%chunk, ?worked, "worked off a hint");
            crew.held.fetch_sub(1, Ordering::Relaxed);
            crew.chunk_done.notify_one();
        });
    }

    fn note(&self, worked: Worked, took: Duration) {
        if matches!(worked, Worked::Finished { .. }) {
            let before = self.chunk_us.load(Ordering::Relaxed);
            self.chunk_us.store(before - before / 8 + took.as_micros() as u64 / 8, Ordering::Relaxed);
        }
        let mut counts = self.counts.lock();
        match worked {
            Worked::Finished { .. } => counts.finished += 1,
            Worked::Released => counts.released += 1,
            Worked::Fenced => counts.fenced += 1,
            Worked::Over | Worked::Postponed => {
                counts.orphans += 1;
                return;
            }
        }
        drop(counts);
        self.worked_at_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Takes no more chunks.
    pub fn stop(&self) {
        self.receiving.cancel();
    }

    /// Waits until the chunks it took have ended or were given back. To be called when [`receive`](Self::receive) has
    /// returned, which until then may take more.
    pub async fn ended(&self) {
        self.chunks.close();
        self.chunks.wait().await;
    }
}
