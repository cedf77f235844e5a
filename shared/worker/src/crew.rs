//! The loop that receives hints and works them off.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sheaf_core::{JobId, Lane, limits};
use sheaf_protocol::{ChunkQueue, Clock, Delivery, Drain, Ports, Rng, Runner, Worker, work::Worked};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The first pause after a queue that did not answer, doubled each time, up to the longest.
const UNANSWERED_MS: u64 = 250;
const UNANSWERED_MS_MAX: u64 = 30_000;
/// Jobs whose pace is remembered while none of their chunks is held.
const JOBS_MAX: usize = 1_024;

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
    /// Chunks are short while they take less than this on average, all together and those of each job that one is held of: a
    /// long job's chunks are not taken ahead because another's are short.
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

/// How long chunks take, as moving means.
#[derive(Debug)]
struct Pace {
    chunk: Duration,
    jobs: HashMap<JobId, JobPace>,
}

#[derive(Debug, Default)]
struct JobPace {
    /// Hints that are being worked off.
    held: usize,
    /// `None` until one of its chunks has ended.
    chunk: Option<Duration>,
}

impl Pace {
    fn begin(&mut self, job: JobId) {
        if self.jobs.len() >= JOBS_MAX {
            self.jobs.retain(|_, pace| pace.held > 0);
        }
        self.jobs.entry(job).or_default().held += 1;
    }

    /// Takes in how long a chunk took, if it was finished.
    fn end(&mut self, job: JobId, took: Option<Duration>) {
        let Some(pace) = self.jobs.get_mut(&job) else { return };
        pace.held = pace.held.saturating_sub(1);
        if let Some(took) = took {
            self.chunk = moved(self.chunk, took);
            pace.chunk = Some(pace.chunk.map_or(took, |mean| moved(mean, took)));
        }
    }

    fn is_shorter_than(&self, short: Duration) -> bool {
        let is_long = |pace: &JobPace| pace.held > 0 && pace.chunk.is_some_and(|chunk| chunk >= short);
        self.chunk < short && !self.jobs.values().any(is_long)
    }
}

fn moved(mean: Duration, by: Duration) -> Duration {
    mean - mean / 8 + by / 8
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
    pace: Mutex<Pace>,
    /// When a chunk of its own ended last, in ms since its start.
    worked_at_ms: AtomicU64,
    started: Instant,
    counts: Mutex<Counts>,
}

impl<P: Ports, R: Runner> Crew<P, R> {
    /// A crew that takes nothing yet. `drain` is the worker's.
    pub fn new(ports: P, worker: Worker<P, R>, drain: Arc<Drain>, options: CrewOptions) -> Self {
        // Chunks are not short until they were seen to be.
        let pace = Mutex::new(Pace { chunk: options.short, jobs: HashMap::new() });
        let (receiving, chunks, chunk_done, held, worked_at_ms, counts) = Default::default();
        let started = Instant::now();
        Self { ports, worker, drain, options, receiving, chunks, chunk_done, held, pace, worked_at_ms, started, counts }
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
        if self.pace.lock().is_shorter_than(options.short) { options.held_short_max } else { options.held_max }
    }

    fn take(self: &Arc<Self>, delivery: Delivery) {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.pace.lock().begin(delivery.hint.key.job);
        let crew = self.clone();
        self.chunks.spawn(async move {
            let started = Instant::now();
            let chunk = delivery.hint.key;
            let worked = crew.worker.work(delivery).await;
            crew.pace.lock().end(chunk.job, matches!(worked, Worked::Finished { .. }).then(|| started.elapsed()));
            crew.note(worked);
            tracing::debug!(%chunk, ?worked, "worked off a hint");
            crew.held.fetch_sub(1, Ordering::Relaxed);
            crew.chunk_done.notify_one();
        });
    }

    fn note(&self, worked: Worked) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn chunks_are_short_once_they_were_seen_to_be_and_none_of_a_long_job_is_held() {
        let [small, large] = [1, 2].map(|job| JobId::from_bytes([job; 16]));
        let mut pace = Pace { chunk: SHORT, jobs: HashMap::new() };
        pace.begin(small);
        assert!(!pace.is_shorter_than(SHORT));
        pace.end(small, Some(Duration::from_millis(1)));
        assert!(pace.is_shorter_than(SHORT));
        pace.begin(large);
        assert!(pace.is_shorter_than(SHORT), "nothing is known of the other yet");
        pace.end(large, Some(Duration::from_millis(60)));
        for _ in 0..100 {
            pace.begin(small);
            pace.end(small, Some(Duration::from_millis(1)));
        }
        assert!(pace.is_shorter_than(SHORT), "the other has none at the time");
        pace.begin(large);
        assert!(!pace.is_shorter_than(SHORT));
        // What was not finished says nothing.
        pace.end(large, None);
        assert!(pace.is_shorter_than(SHORT));
    }

    #[test]
    fn jobs_that_have_gone_are_forgotten() {
        let mut pace = Pace { chunk: SHORT, jobs: HashMap::new() };
        pace.begin(JobId::from_bytes([0xff; 16]));
        for job in 0..3 * JOBS_MAX as u128 {
            let job = JobId::from_bytes(job.to_be_bytes());
            pace.begin(job);
            pace.end(job, Some(SHORT));
        }
        assert!(pace.jobs.len() <= JOBS_MAX + 1 && pace.jobs[&JobId::from_bytes([0xff; 16])].held == 1);
    }
}
