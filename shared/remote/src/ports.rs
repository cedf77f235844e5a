//! The ports of a grid in another process.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use sheaf_api::{
    ApiError, Code,
    wire::{EventView, JobFilter, WorkerView},
};
use sheaf_core::{
    Chunk, ChunkKey, ChunkSet, Due, Estimate, FunctionName, FunctionRef, Job, JobEvent, JobId, Lane, Manifest, Owner,
    Summary, TenantId, WorkerId,
};
use sheaf_protocol::{
    BlobStore, ChunkQueue, Clock, Delivery, Hint, JobListing, Ports, Put, StateStore, StoreError, SummaryEntry, Write,
    WriteError, error::JobWriteError,
};
use sheaf_worker::{SystemClock, ThreadRng};

use crate::{
    calls::{Applied, Call, Handed, Joined, Json, Receiving},
    client::{Connection, Place, store_error},
};

/// Owners known to be gone that are remembered; any may be forgotten and is told again.
const GONE_MAX: usize = 1_024;

/// The ports of a grid that [`router`](crate::router) serves, as far as a worker uses them. What no worker does answers that
/// the store has stopped. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct RemotePorts {
    state: RemoteState,
    blobs: RemoteBlobs,
    queue: RemoteQueue,
    clock: RemoteClock,
}

impl RemotePorts {
    /// Joins the grid that is where `find` says. That is asked again whenever the grid cannot be reached.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the URL is not one, [`Code::Unavailable`] when nobody answers there for ten seconds,
    /// [`Code::Unauthorized`] when the token is wrong, [`Code::Conflict`] when the grid is of another version.
    pub async fn join(find: impl Fn() -> Option<Place> + Send + Sync + 'static) -> Result<Self, ApiError> {
        let connection = Connection::new(Arc::new(find))?;
        let joined = connection.call::<Joined>(Call::Join, &env!("CARGO_PKG_VERSION"));
        let Joined { now_ms } = joined.await.map_err(|error| match error.code {
            Code::NotFound => ApiError::new(Code::Conflict, "the grid there takes no workers")
                .with_hint("join a grid that `sheaf up` of this version serves"),
            _ => error,
        })?;
        let ahead_ms = now_ms as i64 - SystemClock.now_ms() as i64;
        Ok(Self {
            state: RemoteState { connection: connection.clone(), gone: Arc::default() },
            blobs: RemoteBlobs { connection: connection.clone() },
            queue: RemoteQueue { connection },
            clock: RemoteClock { ahead_ms },
        })
    }
}

impl Ports for RemotePorts {
    type State = RemoteState;
    type Blobs = RemoteBlobs;
    type Queue = RemoteQueue;
    type Clock = RemoteClock;
    type Rng = ThreadRng;

    fn state(&self) -> &RemoteState {
        &self.state
    }

    fn blobs(&self) -> &RemoteBlobs {
        &self.blobs
    }

    fn queue(&self) -> &RemoteQueue {
        &self.queue
    }

    fn clock(&self) -> &RemoteClock {
        &self.clock
    }

    fn rng(&self) -> &ThreadRng {
        &ThreadRng
    }
}

/// The grid's time, as this machine's clock showed it when the worker joined: the clocks of two machines may be far apart,
/// and leases are judged by the grid's.
#[derive(Debug, Clone, Copy)]
pub struct RemoteClock {
    ahead_ms: i64,
}

impl Clock for RemoteClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.ahead_ms)
    }

    async fn sleep_ms(&self, ms: u64) {
        SystemClock.sleep_ms(ms).await;
    }
}

/// The state store of a grid in another process.
#[derive(Debug, Clone)]
pub struct RemoteState {
    connection: Connection,
    /// Owners of which the grid said that they are gone.
    gone: Arc<Mutex<HashSet<Owner>>>,
}

impl RemoteState {
    fn note_gone(&self, chunk: &Chunk) {
        if let Some(lease) = chunk.lease() {
            let mut gone = self.gone.lock();
            if gone.len() >= GONE_MAX {
                gone.clear();
            }
            gone.insert(lease.attempt.owner.clone());
        }
    }
}

/// What no worker asks of a grid.
fn no_workers_call() -> StoreError {
    StoreError::Stopped { detail: "a worker does not do this".to_owned() }
}

impl StateStore for RemoteState {
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let job = self.connection.call::<Option<Json<Job>>>(Call::Job, &id).await;
        Ok(job.map_err(|error| store_error(Call::Job, error))?.map(|Json(job)| job))
    }

    async fn apply(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        let count = writes.len();
        let asked: Vec<_> = writes.into_iter().map(|Write { key, event }| (key, event)).collect();
        let answers = self.connection.call::<Vec<Applied>>(Call::Apply, &asked).await;
        let answers = answers.map_err(|error| store_error(Call::Apply, error)).and_then(|answers| {
            let all = answers.len() == count;
            let short = || StoreError::Unknown { detail: format!("{} answers for {count} writes", answers.len()) };
            if all { Ok(answers) } else { Err(short()) }
        });
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => return vec![Err(error.into()); count],
        };
        let answer = |applied| match applied {
            Applied::Yes(chunk) => Ok(*chunk),
            Applied::Refused { reason, current, owner_is_gone } => {
                if let Some(chunk) = current.as_deref().filter(|_| owner_is_gone) {
                    self.note_gone(chunk);
                }
                Err(WriteError::Refused { reason, current })
            }
        };
        answers.into_iter().map(answer).collect()
    }

    async fn chunks(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        self.connection.call(Call::Chunks, &keys).await.map_err(|error| store_error(Call::Chunks, error))
    }

    async fn function(&self, reference: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        let manifest = self.connection.call::<Option<Json<Manifest>>>(Call::Function, reference).await;
        Ok(manifest.map_err(|error| store_error(Call::Function, error))?.map(|Json(manifest)| manifest))
    }

    async fn estimate(&self, function: &FunctionRef) -> Estimate {
        let estimate = self.connection.call::<Json<Estimate>>(Call::Estimate, function).await;
        estimate.map(|Json(estimate)| estimate).unwrap_or_default()
    }

    async fn put_worker(&self, worker: WorkerView) {
        if let Err(error) = self.connection.call::<()>(Call::Alive, &Json(worker)).await {
            tracing::warn!(%error, "could not say that this worker is alive");
        }
    }

    async fn remove_worker(&self, worker: &WorkerId) {
        if let Err(error) = self.connection.call::<()>(Call::Leave, worker).await {
            tracing::warn!(%error, "could not say good-bye");
        }
    }

    fn owner_is_gone(&self, owner: &Owner) -> bool {
        self.gone.lock().contains(owner)
    }

    async fn create_job(&self, _job: Job) -> Result<Job, StoreError> {
        Err(no_workers_call())
    }

    async fn apply_job(&self, _id: JobId, _event: JobEvent) -> Result<Job, JobWriteError> {
        Err(no_workers_call().into())
    }

    async fn jobs(&self, _tenant: &TenantId, _filter: &JobFilter) -> Result<JobListing, StoreError> {
        Err(no_workers_call())
    }

    async fn delete_job(&self, _id: JobId) -> Result<(), StoreError> {
        Err(no_workers_call())
    }

    async fn chunks_from(&self, _job: JobId, _from: u32, _limit: usize) -> Result<Vec<Chunk>, StoreError> {
        Err(no_workers_call())
    }

    async fn due(
        &self,
        _after: Option<(Due, ChunkKey)>,
        _until_ms: u64,
        _limit: usize,
    ) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        Err(no_workers_call())
    }

    async fn summarise(&self, _job: JobId, _entries: &[SummaryEntry]) -> Result<Summary, StoreError> {
        Err(no_workers_call())
    }

    async fn summary(&self, _job: JobId) -> Result<Summary, StoreError> {
        Err(no_workers_call())
    }

    async fn ended(&self, _job: JobId, _have: &ChunkSet, _limit: usize) -> Result<Vec<u32>, StoreError> {
        Err(no_workers_call())
    }

    /// May return early, and does.
    async fn changed(&self, _job: JobId, _seen: u64, _state: &'static str, _wait_ms: u64) {}

    async fn events(&self, _job: JobId, _from: u64, _limit: usize) -> Result<Vec<EventView>, StoreError> {
        Err(no_workers_call())
    }

    async fn put_function(&self, _reference: &FunctionRef, _manifest: &Manifest) -> Result<(), StoreError> {
        Err(no_workers_call())
    }

    async fn newest(&self, _name: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        Err(no_workers_call())
    }

    async fn functions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        Err(no_workers_call())
    }

    /// The result step does this, where the results are.
    async fn observe(&self, _function: &FunctionRef, _tasks: u64, _mean_us: f64, _max_us: f64) {}

    async fn workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        Err(no_workers_call())
    }
}

/// The blobs of a grid in another process: payloads and packages to read, results to put.
#[derive(Debug, Clone)]
pub struct RemoteBlobs {
    connection: Connection,
}

impl BlobStore for RemoteBlobs {
    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Vec<Result<Put, StoreError>> {
        let count = blobs.len();
        match self.connection.call::<Vec<bool>>(Call::Put, &blobs).await {
            Ok(created) if created.len() == count => {
                let put = |created| if created { Put::Created } else { Put::Exists };
                created.into_iter().map(|created| Ok(put(created))).collect()
            }
            Ok(created) => {
                let detail = format!("{} answers for {count} blobs", created.len());
                vec![Err(StoreError::Unknown { detail }); count]
            }
            Err(error) => vec![Err(store_error(Call::Put, error)); count],
        }
    }

    async fn get(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(match self.connection.bytes(Call::Get, key, Duration::ZERO).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.code == Code::NotFound => Ok(None),
                Err(error) => Err(store_error(Call::Get, error)),
            });
        }
        found
    }

    async fn delete_prefix(&self, _prefix: &str) -> Result<(), StoreError> {
        Err(no_workers_call())
    }
}

/// The queue of a grid in another process.
#[derive(Debug, Clone)]
pub struct RemoteQueue {
    connection: Connection,
}

impl ChunkQueue for RemoteQueue {
    /// No worker sends hints of its own.
    async fn send(&self, _hints: Vec<Hint>, _delay_ms: u64) {}

    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        let asked = Receiving { lanes: lanes.to_vec(), max: max.try_into().unwrap_or(u32::MAX), wait_ms };
        let wait = Duration::from_millis(wait_ms);
        let handed = self.connection.call_waiting::<Vec<Handed>>(Call::Receive, &asked, wait).await;
        let handed = handed.map_err(|error| store_error(Call::Receive, error))?;
        Ok(handed.into_iter().map(|hint| Delivery { hint: hint.into(), receipt: String::new() }).collect())
    }

    async fn delete(&self, delivery: Delivery) {
        let hint = Handed { pack: None, ..delivery.hint.into() };
        // One that is not deleted is handed out again, and found to be over.
        let _ = self.connection.call::<()>(Call::Delete, &hint).await;
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        let hint = Handed { pack: None, ..delivery.hint.into() };
        // The sweeper finds what is lost.
        let _ = self.connection.call::<()>(Call::Postpone, &(hint, delay_ms)).await;
    }

    /// Of the sweeper's interest only.
    async fn delay_ms(&self) -> u64 {
        0
    }
}
