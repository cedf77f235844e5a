//! The work step: from a hint to committed outcomes.
//!
//! `claim` decides whether the hinted chunk may be taken and takes it; `run` runs its open tasks through a
//! [`Runner`](crate::Runner) and renews the lease; `commit` makes results durable and then visible. A worker that dies at any
//! await leaves a lease that runs out. `copy` runs a second copy of what another worker holds, where a hint asks for one.

mod checkpoints;
mod claim;
mod commit;
mod copies;
mod copy;
mod run;
mod tasks;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sheaf_api::ApiError;
use sheaf_core::{ChunkKey, FunctionRef, Manifest, ReleaseReason, WorkerId, limits};

use crate::{
    ports::{ChunkQueue, Clock, Delivery, Ports, Rng, Runner, StateStore},
    write::retrying,
};
use claim::Claim;
use copies::Copies;
pub use copy::hedge;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its id.
    pub id: WorkerId,
    /// Length of a lease; [`limits::LEASE_MS`].
    pub lease_ms: u64,
    /// Pause between renewals; [`limits::HEARTBEAT_MS`].
    pub heartbeat_ms: u64,
    /// Results are committed at least this often; [`limits::SEGMENT_MS`].
    pub segment_ms: u64,
}

impl WorkerOptions {
    /// The usual ones.
    pub const fn new(id: WorkerId) -> Self {
        let (lease_ms, heartbeat_ms) = (limits::LEASE_MS, limits::HEARTBEAT_MS);
        Self { id, lease_ms, heartbeat_ms, segment_ms: limits::SEGMENT_MS }
    }
}

/// What became of a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worked {
    /// The chunk was brought to its end here; so many tasks got their outcome.
    Finished {
        /// The tasks.
        tasks: u32,
    },
    /// The chunk was final already, or is gone.
    Over,
    /// Not now: held by another, too early, or the store did not answer. The hint was postponed.
    Postponed,
    /// The chunk was given back.
    Released,
    /// The attempt was fenced off, or its chunk cancelled, while it ran; what it had not committed is void.
    Fenced,
}

/// When a worker is asked to stop: it takes no more, and gives back by this time what it cannot finish.
#[derive(Debug, Default)]
pub struct Drain {
    /// 0: not draining. Otherwise when the last task must have stopped (Unix, ms).
    until_ms: AtomicU64,
    reason: Mutex<Option<ReleaseReason>>,
}

impl Drain {
    /// Starts draining.
    pub fn start(&self, until_ms: u64, reason: ReleaseReason) {
        *self.reason.lock() = Some(reason);
        self.until_ms.store(until_ms.max(1), Ordering::Release);
    }

    /// When draining has to be over, once it has started.
    pub fn until_ms(&self) -> Option<u64> {
        match self.until_ms.load(Ordering::Acquire) {
            0 => None,
            until_ms => Some(until_ms),
        }
    }

    fn reason(&self) -> ReleaseReason {
        self.reason.lock().unwrap_or(ReleaseReason::Drain)
    }
}

/// A process that claims chunks and runs functions. One value serves any number of chunks at once.
#[derive(Debug)]
pub struct Worker<P, R> {
    ports: P,
    runner: Arc<R>,
    options: WorkerOptions,
    drain: Arc<Drain>,
    manifests: Mutex<BTreeMap<FunctionRef, Arc<Manifest>>>,
    holding: Mutex<BTreeMap<ChunkKey, u64>>,
    copies: Copies,
    tasks_ended: AtomicU64,
}

/// Manifests that a worker remembers; a manifest never changes, so any may be forgotten and read again.
const MANIFESTS_MAX: usize = 1_024;

impl<P: Ports, R: Runner> Worker<P, R> {
    /// A worker over these ports and this runner.
    pub fn new(ports: P, runner: Arc<R>, options: WorkerOptions, drain: Arc<Drain>) -> Self {
        let (manifests, holding, copies, tasks_ended) = Default::default();
        Self { ports, runner, options, drain, manifests, holding, copies, tasks_ended }
    }

    /// The worker's id.
    pub const fn id(&self) -> &WorkerId {
        &self.options.id
    }

    /// The chunks it holds, those of which it runs second copies included.
    pub fn holding(&self) -> Vec<ChunkKey> {
        self.holding.lock().keys().copied().collect()
    }

    /// Of those, the chunks of which it runs second copies, without a lease.
    pub fn copies(&self) -> Vec<ChunkKey> {
        self.copies.now()
    }

    /// Waits until a second copy has begun or ended since the last time that this has answered. For one who waits.
    pub async fn copies_changed(&self) {
        self.copies.changed().await;
    }

    /// Tasks it has brought to an outcome.
    pub fn tasks_ended(&self) -> u64 {
        self.tasks_ended.load(Ordering::Relaxed)
    }

    /// Works off one hint: claims its chunk, runs it, commits, and deletes or postpones the hint.
    pub async fn work(&self, delivery: Delivery) -> Worked {
        let key = delivery.hint.key;
        let queue = self.ports.queue();
        let worked = match self.claim(key).await {
            Claim::Over => Worked::Over,
            Claim::Held { chunk, delay_ms } => {
                let copyable = chunk.lease().filter(|_| delivery.hint.hedge);
                let Some(task) = copyable.and_then(|lease| self.copyable(&chunk, lease)) else {
                    queue.postpone(delivery, delay_ms).await;
                    return Worked::Postponed;
                };
                let inline = delivery.hint.pack.clone();
                // The owner has a hint of its own. Whoever dies under the copy must not draw the next one in.
                queue.delete(delivery).await;
                // Boxed, so that work without copies stays small.
                return self.copied(key, Box::pin(self.copy(&chunk, task, inline))).await;
            }
            Claim::Postpone { delay_ms } => {
                queue.postpone(delivery, delay_ms).await;
                return Worked::Postponed;
            }
            Claim::Mine { chunk } => {
                self.holding.lock().insert(key, self.ports.clock().now_ms());
                let _held = Held { worker: self, key };
                self.run(*chunk, delivery.hint.pack.clone()).await
            }
        };
        match worked {
            Worked::Finished { tasks } => {
                self.tasks_ended.fetch_add(tasks.into(), Ordering::Relaxed);
                queue.delete(delivery).await;
            }
            Worked::Over => queue.delete(delivery).await,
            Worked::Released | Worked::Postponed => {
                let delay_ms = self.delay_of(key).await;
                queue.postpone(delivery, delay_ms).await;
            }
            // Whoever fenced it off has its own hint, or the chunk is final: the next delivery tells.
            Worked::Fenced => queue.postpone(delivery, self.options.lease_ms).await,
        }
        worked
    }

    /// Runs a copy, which counts as held.
    async fn copied(&self, key: ChunkKey, copy: impl Future<Output = Worked>) -> Worked {
        self.holding.lock().insert(key, self.ports.clock().now_ms());
        let _held = Held { worker: self, key };
        let worked = copy.await;
        if let Worked::Finished { tasks } = worked {
            self.tasks_ended.fetch_add(tasks.into(), Ordering::Relaxed);
        }
        worked
    }

    /// How long until a released chunk may be claimed.
    async fn delay_of(&self, key: ChunkKey) -> u64 {
        let now_ms = self.ports.clock().now_ms();
        match self.ports.state().chunks(&[key]).await.as_deref() {
            Ok([Some(chunk)]) => match chunk.state {
                sheaf_core::ChunkState::Queued { not_before_ms } => not_before_ms.saturating_sub(now_ms),
                _ => self.options.lease_ms,
            },
            _ => self.options.heartbeat_ms,
        }
    }

    async fn manifest(&self, function: &FunctionRef) -> Result<Option<Arc<Manifest>>, ApiError> {
        if let Some(manifest) = self.manifests.lock().get(function) {
            return Ok(Some(manifest.clone()));
        }
        let Some(manifest) = retrying(&self.ports, || self.ports.state().function(function)).await? else {
            return Ok(None);
        };
        let manifest = Arc::new(manifest);
        let mut manifests = self.manifests.lock();
        if manifests.len() >= MANIFESTS_MAX {
            manifests.clear();
        }
        manifests.insert(function.clone(), manifest.clone());
        Ok(Some(manifest))
    }

    fn nonce(&self) -> u64 {
        self.ports.rng().next_u64()
    }
}

/// Takes a chunk off the list of those held, however the step ends.
struct Held<'a, P, R> {
    worker: &'a Worker<P, R>,
    key: ChunkKey,
}

impl<P, R> Drop for Held<'_, P, R> {
    fn drop(&mut self) {
        self.worker.holding.lock().remove(&self.key);
    }
}
