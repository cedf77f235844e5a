//! How long hints wait at present, for a process that receives none.
//!
//! The sweeper takes a hint for lost when it is older than hints get. SQS tells how many wait and not for how long, so the
//! wait is seen in the table: in the chunks that were claimed lately, each of which says when it was submitted and when it was
//! claimed. Without this, every chunk of a backlog of an hour would be sent again every minute.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sheaf_core::{Chunk, ChunkKey, ChunkState, Due, JobId, Lane, limits};
use sheaf_protocol::{ChunkQueue, Delivery, Hint, Ports, StateStore, StoreError, sweep};

/// Chunks looked at for each of the two questions.
const SAMPLE: usize = limits::WRITES_PER_CALL_MAX;
/// A claim is of lately for this long.
const LATELY_MS: u64 = 10_000;
/// While hints wait and no claim is seen, none is taken for lost before it is as old as the oldest chunk seen, or this old. So
/// a backlog that nobody works on is sent again four times an hour at most, and what is lost is found in the end.
const UNSEEN_MS_MAX: u64 = 15 * 60_000;

/// What was seen of the queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// How long hints wait.
    pub(crate) delay_ms: u64,
    /// How long the oldest chunk has been waiting, of those that are due for the sweeper.
    pub(crate) oldest_pending_ms: u64,
    /// Hints that nobody has received.
    pub(crate) backlog: u64,
}

/// Looks how long hints wait, given how many do. Costs a page of the index of due chunks and its chunks, twice that while
/// there is a backlog.
pub(crate) async fn waits<P: Ports>(ports: &P, backlog: u64, now_ms: u64) -> Result<Waits, StoreError> {
    let overdue = sample(ports, 0, now_ms).await?;
    let oldest_pending_ms = overdue.iter().filter_map(|chunk| pending_ms(chunk, now_ms)).max().unwrap_or_default();
    let mut waits = Waits { delay_ms: 0, oldest_pending_ms, backlog };
    if backlog > 0 {
        // A claim that has to move its due time moves it here.
        let lapse_ms = now_ms + limits::LEASE_MS + limits::CLOCK_MARGIN_MS;
        let held = sample(ports, lapse_ms - LATELY_MS, lapse_ms).await?;
        let claims = held.iter().filter_map(|chunk| claimed_after_ms(chunk, now_ms)).max();
        waits.delay_ms = claims.unwrap_or(oldest_pending_ms.min(UNSEEN_MS_MAX));
    }
    Ok(waits)
}

async fn sample<P: Ports>(ports: &P, from_ms: Due, until_ms: Due) -> Result<Vec<Chunk>, StoreError> {
    let after = (from_ms, ChunkKey { job: JobId::from_bytes([0; 16]), number: 0 });
    let rows = ports.state().due(Some(after), until_ms, SAMPLE).await?;
    let keys: Vec<ChunkKey> = rows.into_iter().map(|(_, key)| key).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    sweep::readable(ports, &keys).await
}

/// How long a queued chunk could have been claimed and was not.
fn pending_ms(chunk: &Chunk, now_ms: u64) -> Option<u64> {
    let ChunkState::Queued { not_before_ms } = chunk.state else { return None };
    let queued_at_ms = chunk.work.past.last().map_or(chunk.spec.submitted_at_ms, |past| past.until_ms);
    Some(now_ms.saturating_sub(queued_at_ms.max(not_before_ms)))
}

/// How long a chunk had waited for its first claim, if that was lately. Later claims may have waited for a back-off.
fn claimed_after_ms(chunk: &Chunk, now_ms: u64) -> Option<u64> {
    let since_ms = chunk.lease().filter(|_| chunk.epoch == 1)?.since_ms;
    (since_ms + LATELY_MS + limits::CLOCK_MARGIN_MS >= now_ms)
        .then(|| since_ms.saturating_sub(chunk.spec.submitted_at_ms))
}

/// Ports whose queue says the wait that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Informed<P> {
    ports: P,
    queue: Arc<InformedQueue<P>>,
}

#[derive(Debug)]
pub(crate) struct InformedQueue<P> {
    ports: P,
    delay_ms: AtomicU64,
}

impl<P: Ports> Informed<P> {
    /// The ports, whose hints do not wait as far as is known.
    pub(crate) fn new(ports: &P) -> Self {
        let queue = InformedQueue { ports: ports.clone(), delay_ms: AtomicU64::new(0) };
        Self { ports: ports.clone(), queue: Arc::new(queue) }
    }

    /// Keeps the wait that was seen.
    pub(crate) fn keep(&self, waits: Waits) {
        self.queue.delay_ms.store(waits.delay_ms, Ordering::Relaxed);
    }
}

impl<P: Ports> Ports for Informed<P> {
    type State = P::State;
    type Blobs = P::Blobs;
    type Queue = InformedQueue<P>;
    type Clock = P::Clock;
    type Rng = P::Rng;

    fn state(&self) -> &P::State {
        self.ports.state()
    }

    fn blobs(&self) -> &P::Blobs {
        self.ports.blobs()
    }

    fn queue(&self) -> &InformedQueue<P> {
        &self.queue
    }

    fn clock(&self) -> &P::Clock {
        self.ports.clock()
    }

    fn rng(&self) -> &P::Rng {
        self.ports.rng()
    }
}

impl<P: Ports> ChunkQueue for InformedQueue<P> {
    async fn send(&self, hints: Vec<Hint>, delay_ms: u64) {
        self.ports.queue().send(hints, delay_ms).await;
    }

    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        self.ports.queue().receive(lanes, max, wait_ms).await
    }

    async fn delete(&self, delivery: Delivery) {
        self.ports.queue().delete(delivery).await;
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        self.ports.queue().postpone(delivery, delay_ms).await;
    }

    async fn delay_ms(&self) -> u64 {
        self.delay_ms.load(Ordering::Relaxed)
    }
}
