//! The ports: what the steps need of the outside. Each has a contract; `tests/conformance` checks it over every backend.

use std::future::Future;

use bytes::Bytes;
use sheaf_api::{
    run::{Call, Report},
    wire::{EventView, JobFilter, WorkerView},
};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSet, ChunkTotals, Due, Estimate, FunctionName, FunctionRef, Job, JobEvent, JobId,
    Lane, Manifest, Owner, Priority, Summary, TenantId,
};

use crate::error::{JobWriteError, StoreError, WriteError};

/// One write of a chunk.
#[derive(Debug, Clone)]
pub struct Write {
    /// The chunk.
    pub key: ChunkKey,
    /// The event to apply.
    pub event: ChunkEvent,
}

/// What the result step adds to a job's summary for one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummaryEntry {
    /// The chunk's number.
    pub number: u32,
    /// Its tasks.
    pub tasks: u32,
    /// Its outcomes, once it is final.
    pub ended: Option<ChunkTotals>,
}

impl SummaryEntry {
    /// What is to be counted of a chunk as it is.
    pub fn of(chunk: &Chunk) -> Self {
        let ended = chunk.is_final().then(|| chunk.totals());
        Self { number: chunk.spec.key.number, tasks: chunk.spec.tasks, ended }
    }
}

/// A page of jobs.
pub type JobListing = Vec<Job>;

/// What is true: jobs, chunks, summaries, functions, workers.
///
/// # Atomicity
/// Each write of a chunk or job is atomic and conditional: it happens exactly when [`Chunk::apply`] or [`Job::apply`] says
/// so of the item as it is, and what it answers is the item after it. Several writes in one call are independent of each
/// other.
///
/// # Ordering
/// Reads of single jobs and chunks, and of summaries, are consistent: they show every write that was answered before. The
/// index of due chunks and the listing of jobs may lag.
///
/// # Durability
/// A write that [`ChunkEvent::needs_durability`] (and every write of a job) is answered once it would survive a power cut,
/// together with all blobs whose puts were answered before it was issued; a T1 at the latest once [`Self::settle`] was. Other
/// writes are answered once they are ordered before what follows.
///
/// # Limits
/// At most [`sheaf_core::limits::WRITES_PER_CALL_MAX`] writes a call; pages of at most
/// [`sheaf_core::limits::PAGE_ROWS_MAX`].
pub trait StateStore: Send + Sync + 'static {
    /// Creates a job unless its id is taken; answers the job that has the id.
    fn create_job(&self, job: Job) -> impl Future<Output = Result<Job, StoreError>> + Send;

    /// Reads a job.
    fn job(&self, id: JobId) -> impl Future<Output = Result<Option<Job>, StoreError>> + Send;

    /// Applies an event to a job.
    fn apply_job(&self, id: JobId, event: JobEvent) -> impl Future<Output = Result<Job, JobWriteError>> + Send;

    /// Lists a tenant's jobs, newest first.
    fn jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
    ) -> impl Future<Output = Result<JobListing, StoreError>> + Send;

    /// Forgets a job that is over, with its chunks, summary and history. Repeating it is harmless.
    fn delete_job(&self, id: JobId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Applies events to chunks; answers one result per write, in their order.
    fn apply(&self, writes: Vec<Write>) -> impl Future<Output = Vec<Result<Chunk, WriteError>>> + Send;

    /// Answers once every T1 that was answered before would survive a power cut. In between its chunk can be worked on already,
    /// so that one wait for a disk serves a task's submission and its result.
    fn settle(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Reads chunks; answers one per key, in their order.
    fn chunks(&self, keys: &[ChunkKey]) -> impl Future<Output = Result<Vec<Option<Chunk>>, StoreError>> + Send;

    /// Reads the chunks of a job from a number on, in order, at most `limit`.
    fn chunks_from(
        &self,
        job: JobId,
        from: u32,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Chunk>, StoreError>> + Send;

    /// Chunks whose due time is at most `until_ms`, earliest first, behind the position `after`, at most `limit`. An index
    /// that may lag: never decide by it.
    fn due(
        &self,
        after: Option<(Due, ChunkKey)>,
        until_ms: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Due, ChunkKey)>, StoreError>> + Send;

    /// Adds entries to a job's summary; answers the summary after it. An entry that was added before changes nothing, so
    /// that repeating a call is harmless.
    fn summarise(
        &self,
        job: JobId,
        entries: &[SummaryEntry],
    ) -> impl Future<Output = Result<Summary, StoreError>> + Send;

    /// Reads a job's summary.
    fn summary(&self, job: JobId) -> impl Future<Output = Result<Summary, StoreError>> + Send;

    /// Numbers of chunks in a job's summary that have ended and are not in `have`, lowest first, at most `limit`.
    fn ended(
        &self,
        job: JobId,
        have: &ChunkSet,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<u32>, StoreError>> + Send;

    /// Returns when more than `seen` chunks have ended or the job's state has changed from `state`, or after `wait_ms`,
    /// whichever is first. May return early.
    fn changed(&self, job: JobId, seen: u64, state: &'static str, wait_ms: u64) -> impl Future<Output = ()> + Send;

    /// A job's history from event number `from` on, oldest first, at most `limit`, and what has the same number as the last.
    fn events(
        &self,
        job: JobId,
        from: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<EventView>, StoreError>> + Send;

    /// Stores a version of a function and makes it the newest of its name. Repeating it is harmless.
    fn put_function(
        &self,
        reference: &FunctionRef,
        manifest: &Manifest,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads a version of a function.
    fn function(&self, reference: &FunctionRef) -> impl Future<Output = Result<Option<Manifest>, StoreError>> + Send;

    /// The newest version of a function.
    fn newest(&self, name: &FunctionName) -> impl Future<Output = Result<Option<FunctionRef>, StoreError>> + Send;

    /// The newest versions of all functions, by name.
    fn functions(&self) -> impl Future<Output = Result<Vec<FunctionRef>, StoreError>> + Send;

    /// How long a function takes. An estimate may be lost; nothing depends on it.
    fn estimate(&self, function: &FunctionRef) -> impl Future<Output = Estimate> + Send;

    /// Takes in what was seen of a function: tasks, their mean and their largest run time.
    fn observe(&self, function: &FunctionRef, tasks: u64, mean_us: f64, max_us: f64)
    -> impl Future<Output = ()> + Send;

    /// Says that a worker is alive. For people and the scheduler, never for correctness.
    fn put_worker(&self, worker: WorkerView) -> impl Future<Output = ()> + Send;

    /// Forgets a worker that has left.
    fn remove_worker(&self, worker: &sheaf_core::WorkerId) -> impl Future<Output = ()> + Send;

    /// The workers heard of lately.
    fn workers(&self) -> impl Future<Output = Result<Vec<WorkerView>, StoreError>> + Send;

    /// Whether the owner's process is certainly gone, whatever its lease says: only a store that one process locks can
    /// know.
    fn owner_is_gone(&self, owner: &Owner) -> bool {
        let _ = owner;
        false
    }
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The blob is there now.
    Created,
    /// There was one of this name; it was left as it is.
    Exists,
}

/// Bytes by name, written once.
///
/// # Atomicity
/// A put happens wholly or not at all, and only if there is no blob of the name. Of several at once, one creates it.
///
/// # Durability
/// A put that was answered is durable at the latest with the next durable write of the state store that is issued after
/// the answer.
///
/// # Limits
/// One blob holds at most [`sheaf_core::limits::PACK_BYTES_MAX`] plus its frame, or a function's package.
pub trait BlobStore: Send + Sync + 'static {
    /// Puts blobs, unless they exist; answers one result per blob, in their order.
    fn put(&self, blobs: Vec<(String, Bytes)>) -> impl Future<Output = Vec<Result<Put, StoreError>>> + Send;

    /// Gets blobs; answers one per key, in their order.
    fn get(&self, keys: &[String]) -> impl Future<Output = Vec<Result<Option<Bytes>, StoreError>>> + Send;

    /// Deletes every blob whose key starts with a prefix. Repeating it is harmless.
    fn delete_prefix(&self, prefix: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A hint that a chunk may be claimed.
#[derive(Debug, Clone)]
pub struct Hint {
    /// The chunk.
    pub key: ChunkKey,
    /// The message group: queues are fair between tenants.
    pub tenant: TenantId,
    /// Which queue.
    pub lane: Lane,
    /// Which queue.
    pub priority: Priority,
    /// The pack, as a cache; the queue may drop it.
    pub pack: Option<Bytes>,
    /// Whether a second copy is wanted if another worker holds the chunk: then whoever receives the hint runs one, once. Such a
    /// hint comes besides the chunk's own, and losing it costs no more than the copy.
    pub hedge: bool,
}

/// A hint that was received.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The hint.
    pub hint: Hint,
    /// What to delete or postpone it by.
    pub receipt: String,
}

/// Hints, in no certain order.
///
/// # Delivery
/// A hint may be delivered late, twice, out of order or never; a received one is delivered again after the queue's
/// visibility timeout unless it is deleted, if the queue is one that keeps what it delivers. The sweeper sends again what
/// was lost.
///
/// # Limits
/// A queue may drop a hint's pack at any time, and hints when it is full.
pub trait ChunkQueue: Send + Sync + 'static {
    /// Sends hints; each may be delivered after `delay_ms`. Failures are not reported: a lost hint is normal.
    fn send(&self, hints: Vec<Hint>, delay_ms: u64) -> impl Future<Output = ()> + Send;

    /// Receives up to `max` hints from some lanes, waiting up to `wait_ms` for the first.
    fn receive(
        &self,
        lanes: &[Lane],
        max: usize,
        wait_ms: u64,
    ) -> impl Future<Output = Result<Vec<Delivery>, StoreError>> + Send;

    /// Deletes a received hint: its chunk is final, or gone.
    fn delete(&self, delivery: Delivery) -> impl Future<Output = ()> + Send;

    /// Makes a received hint be delivered again after a time.
    fn postpone(&self, delivery: Delivery, delay_ms: u64) -> impl Future<Output = ()> + Send;

    /// How long hints wait at present before they are delivered, as far as known.
    fn delay_ms(&self) -> impl Future<Output = u64> + Send;
}

/// Time.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in ms. May jump.
    fn now_ms(&self) -> u64;

    /// Waits.
    fn sleep_ms(&self, ms: u64) -> impl Future<Output = ()> + Send;
}

/// Randomness, for nonces and jitter.
pub trait Rng: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// A number below `bound`, or 0 for a bound of 0.
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }
}

/// Whatever runs functions.
pub trait Runner: Send + Sync + 'static {
    /// How many calls it runs at once; further ones wait in it.
    fn slots(&self) -> usize;

    /// Whether it could run a function at present. A chunk of one that it cannot is given back and waits.
    fn can_run(&self, manifest: &Manifest) -> bool {
        let _ = manifest;
        true
    }

    /// Runs a call. Dropping the future stops what it runs.
    fn run(&self, call: Call) -> impl Future<Output = Report> + Send;
}

/// All ports of one grid. Cloning is cheap: it shares them.
pub trait Ports: Clone + Send + Sync + 'static {
    /// Its state store.
    type State: StateStore;
    /// Its blobs.
    type Blobs: BlobStore;
    /// Its queue.
    type Queue: ChunkQueue;
    /// Its clock.
    type Clock: Clock;
    /// Its randomness.
    type Rng: Rng;

    /// The state store.
    fn state(&self) -> &Self::State;
    /// The blobs.
    fn blobs(&self) -> &Self::Blobs;
    /// The queue.
    fn queue(&self) -> &Self::Queue;
    /// The clock.
    fn clock(&self) -> &Self::Clock;
    /// The randomness.
    fn rng(&self) -> &Self::Rng;
}
