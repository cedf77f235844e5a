//! The local store: the state store and the blob store in one, over an engine.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sheaf_api::wire::{EventView, JobFilter, WorkerView};
use sheaf_core::{
    Chunk, ChunkKey, ChunkSet, Due, Estimate, FunctionName, FunctionRef, Job, JobEvent, JobId, Manifest, Owner,
    Summary, TenantId, WorkerId, limits,
};
use sheaf_protocol::{BlobStore, Put, StateStore, StoreError, SummaryEntry, Write, WriteError, error::JobWriteError};
use tokio::sync::{oneshot, watch};

use crate::{
    engine::{Engine, EngineError, Row, SMALL_BYTES_MAX, Scan, Space, behind, disk::DiskEngine, memory::MemoryEngine},
    keys::{self, Thing},
    summaries::Summaries,
    writer::{self, Request, Requests},
};

/// A worker not heard of for this long is no longer listed.
const WORKER_FORGOTTEN_MS: u64 = 60_000;

pub(crate) fn stopped(error: EngineError) -> StoreError {
    StoreError::Stopped { detail: error.0 }
}

/// What the writer and the readers share.
pub(crate) struct Shared {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) summaries: Summaries,
    /// Jobs that are not over. The writer puts them here before they are committed, which is harmless: nobody acts on a
    /// job's state but by writes that come behind it.
    pub(crate) jobs: RwLock<HashMap<JobId, Job>>,
    /// Grows with each change of a job or summary.
    pub(crate) changes: watch::Sender<u64>,
    /// The next number of the feed.
    pub(crate) feed: watch::Sender<u64>,
    /// Whether there are submissions that were written and not synced: set before they are answered.
    pub(crate) unsettled: AtomicBool,
    /// Why nothing is written any more.
    pub(crate) failed: watch::Sender<Option<String>>,
}

impl Shared {
    pub(crate) fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        if let Some(job) = self.jobs.read().get(&id) {
            return Ok(Some(job.clone()));
        }
        let row = self.engine.get(Space::Things, &keys::job(id)).map_err(stopped)?;
        row.map(|row| keys::decode_json(&row, "a job")).transpose()
    }

    /// Whether it has not stopped.
    fn goes_on(&self) -> Result<(), StoreError> {
        self.failed.borrow().clone().map_or(Ok(()), |detail| Err(StoreError::Stopped { detail }))
    }

    fn put_small(&self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        self.goes_on()?;
        let created = self.engine.put_blob(key, bytes).map_err(stopped)?;
        Ok(if created { Put::Created } else { Put::Exists })
    }

    pub(crate) fn chunk(&self, key: ChunkKey) -> Result<Option<Chunk>, StoreError> {
        let row = self.engine.get(Space::Chunks, &keys::chunk(key)).map_err(stopped)?;
        row.map(|row| keys::decode_chunk(&row)).transpose()
    }
}

/// Jobs, chunks and blobs, in memory or on disk. Cloning shares it.
#[derive(Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
    requests: Requests,
    writer: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    estimates: Arc<Mutex<HashMap<FunctionRef, Estimate>>>,
    /// Those that the writer has not been handed yet as they are.
    estimates_changed: Arc<Mutex<HashSet<FunctionRef>>>,
    workers: Arc<Mutex<HashMap<WorkerId, WorkerView>>>,
    live: Arc<RwLock<HashSet<WorkerId>>>,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalStore")
    }
}

/// What the feed tells.
pub(crate) struct Changed {
    /// The chunks, as they are now.
    pub(crate) chunks: Vec<Chunk>,
    /// How many rows of the feed told of them.
    pub(crate) rows: u64,
    /// The number behind the last of those rows, or what was asked for if there was none.
    pub(crate) next: u64,
}

impl LocalStore {
    /// A store in memory: fast, and gone with the process.
    pub fn memory() -> Result<Self, StoreError> {
        Self::over(Box::<MemoryEngine>::default())
    }

    /// The store of a directory, created if there is none. The caller holds the directory's lock. Unless `durable`, an
    /// acknowledgement means that the operating system has the bytes, not the disk.
    pub fn disk(directory: &Path, durable: bool) -> Result<Self, StoreError> {
        Self::over(Box::new(DiskEngine::open(directory, durable).map_err(stopped)?))
    }

    fn over(engine: Box<dyn Engine>) -> Result<Self, StoreError> {
        let end = |backwards| {
            let row = engine
                .scan(Space::Feed, Scan { backwards, ..Scan::new(&[], &[u8::MAX; 9], 1) })
                .map(|mut rows| rows.pop());
            row.map(|row| row.and_then(|(key, _)| key.try_into().ok()).map(u64::from_be_bytes)).map_err(stopped)
        };
        // No number comes a second time: where nothing is left to count on from, the time is ahead of any count.
        let feed = match (end(false)?, end(true)?) {
            (Some(first), Some(last)) => first..last + 1,
            _ => {
                let now_us = now_us();
                now_us..now_us
            }
        };
        let mut estimates = HashMap::new();
        for (key, row) in all(&*engine, Thing::Estimate)? {
            if let Some(reference) = text(&key[1..]).and_then(|text| text.parse().ok()) {
                estimates.insert(reference, keys::decode_json(&row, "an estimate")?);
            }
        }
        let shared = Arc::new(Shared {
            engine,
            summaries: Summaries::default(),
            jobs: RwLock::default(),
            changes: watch::Sender::new(0),
            feed: watch::Sender::new(feed.end),
            unsettled: AtomicBool::new(false),
            failed: watch::Sender::new(None),
        });
        for (key, _) in all(&*shared.engine, Thing::Alive)? {
            if let Some(id) = key[1..].try_into().ok().map(JobId::from_bytes)
                && let Some(job) = shared.job(id)?
            {
                shared.jobs.write().insert(id, job);
            }
        }
        let (requests, writer) = writer::start(shared.clone(), feed);
        Ok(Self {
            shared,
            requests,
            writer: Arc::new(Mutex::new(Some(writer))),
            estimates: Arc::new(Mutex::new(estimates)),
            estimates_changed: Arc::default(),
            workers: Arc::default(),
            live: Arc::default(),
        })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let closed = || StoreError::Stopped { detail: "it was closed".to_owned() };
        let (reply, answer) = oneshot::channel();
        if !self.requests.send(request(reply)).await {
            return Err(closed());
        }
        answer.await.map_err(|_| closed())
    }

    /// Waits until the feed goes beyond `seen`; answers how far it goes.
    pub(crate) async fn feed_beyond(&self, seen: u64) -> u64 {
        let mut feed = self.shared.feed.subscribe();
        let beyond = feed.wait_for(|next| *next > seen).await.map(|next| *next);
        beyond.unwrap_or(seen)
    }

    /// The changes from a feed number on.
    pub(crate) fn changed(&self, from: u64, limit: usize) -> Result<Changed, StoreError> {
        let rows = self
            .shared
            .engine
            .scan(Space::Feed, Scan::new(&from.to_be_bytes(), &[u8::MAX; 9], limit))
            .map_err(stopped)?;
        let mut keys = Vec::new();
        let mut next = from;
        for (key, row) in &rows {
            keys.extend(keys::decode_keys(row)?);
            next = key.as_slice().try_into().map_or(next, |key| u64::from_be_bytes(key) + 1);
        }
        keys.sort_unstable();
        keys.dedup();
        let chunks = keys.into_iter().filter_map(|key| self.shared.chunk(key).transpose());
        let chunks = chunks.collect::<Result<_, _>>()?;
        Ok(Changed { chunks, rows: rows.len() as u64, next })
    }

    /// Says that the changes below a feed number were taken in.
    pub(crate) async fn feed_taken(&self, until: u64) {
        self.requests.send(Request::FeedTaken { until }).await;
    }

    /// Says that a worker of this process is alive.
    pub(crate) fn add_live(&self, worker: WorkerId) {
        self.live.write().insert(worker);
    }

    /// Why the store has stopped, once it has.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// How often a commit has waited for the disk so far; `None` in memory.
    pub(crate) fn syncs(&self) -> Option<u64> {
        self.shared.engine.syncs()
    }

    /// Hands the estimates that have changed since the last time to the writer; how many those are. A grid without work
    /// writes nothing.
    pub(crate) async fn keep_estimates(&self) -> usize {
        let changed = std::mem::take(&mut *self.estimates_changed.lock());
        let with_estimate = |reference: FunctionRef| {
            let estimate = self.estimates.lock().get(&reference).copied().unwrap_or_default();
            (reference, estimate)
        };
        let estimates: Vec<_> = changed.into_iter().map(with_estimate).collect();
        let count = estimates.len();
        if count == 0 {
            return 0;
        }
        self.requests.send(Request::PutEstimates { estimates }).await;
        count
    }

    /// Makes everything durable.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.ask(|reply| Request::Sync { reply }).await?
    }

    /// Everything in the store, for checking invariants over it. Reads all of it, blobs included.
    pub fn world(&self) -> Result<sheaf_core::invariant::World, StoreError> {
        let mut world = sheaf_core::invariant::World::default();
        for (_, row) in all(&*self.shared.engine, Thing::Job)? {
            let job: Job = keys::decode_json(&row, "a job")?;
            let tally = self.shared.summaries.of(&*self.shared.engine, job.id)?;
            world.summaries.insert(job.id, tally.lock().summary);
            world.jobs.insert(job.id, job);
        }
        let engine = &self.shared.engine;
        for (_, row) in engine.scan(Space::Chunks, Scan::new(&[], &[u8::MAX; 64], usize::MAX)).map_err(stopped)? {
            let chunk = keys::decode_chunk(&row)?;
            let segments = chunk.work.segments.iter().map(|segment| segment.key(&chunk.spec));
            let checkpoints =
                chunk.work.checkpoints.iter().map(|(&task, checkpoint)| checkpoint.key(&chunk.spec, task));
            for key in segments.chain(checkpoints).chain([chunk.spec.pack_key()]) {
                if let Some(bytes) = engine.blob(&key).map_err(stopped)? {
                    world.blobs.insert(key, sheaf_core::Digest::of(&bytes));
                }
            }
            world.chunks.insert(chunk.spec.key, chunk);
        }
        Ok(world)
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        // The last clone waits for the writer, so that the engine is closed when the store is gone.
        if Arc::strong_count(&self.writer) == 1 {
            self.requests.close();
            if let Some(writer) = self.writer.lock().take() {
                let _ = writer.join();
            }
        }
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn all(engine: &dyn Engine, thing: Thing) -> Result<Vec<Row>, StoreError> {
    let prefix = thing.key(&[]);
    engine.scan(Space::Things, Scan::new(&prefix, &behind(&prefix), usize::MAX)).map_err(stopped)
}

impl StateStore for LocalStore {
    async fn create_job(&self, job: Job) -> Result<Job, StoreError> {
        self.ask(|reply| Request::CreateJob { job: Box::new(job), reply }).await?
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.shared.job(id)
    }

    async fn apply_job(&self, id: JobId, event: JobEvent) -> Result<Job, JobWriteError> {
        self.ask(|reply| Request::ApplyJob { id, event, reply }).await?
    }

    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        let fits = |job: &Job| {
            job.tenant == *tenant
                && (!filter.alive || job.state.ended_at_ms().is_none())
                && filter.name.as_ref().is_none_or(|name| job.options.name == *name)
        };
        let prefix = Thing::Created.key(&[]);
        let mut to = match filter.before {
            None => behind(&prefix),
            Some(before) => match self.shared.job(before)? {
                Some(job) => keys::created(job.created_at_ms, job.id),
                None => return Ok(Vec::new()),
            },
        };
        let mut jobs = Vec::new();
        while jobs.len() < filter.limit {
            let scan = Scan { backwards: true, ..Scan::new(&prefix, &to, limits::PAGE_ROWS_MAX) };
            let rows = self.shared.engine.scan(Space::Things, scan).map_err(stopped)?;
            for (key, _) in &rows {
                let id = key.last_chunk::<16>().map(|id| JobId::from_bytes(*id));
                if let Some(id) = id
                    && let Some(job) = self.shared.job(id)?
                    && fits(&job)
                    && jobs.len() < filter.limit
                {
                    jobs.push(job);
                }
            }
            match rows.into_iter().next_back() {
                Some((key, _)) => to = key,
                None => break,
            }
        }
        Ok(jobs)
    }

    async fn delete_job(&self, id: JobId) -> Result<(), StoreError> {
        self.ask(|reply| Request::DeleteJob { id, reply }).await?
    }

    async fn apply(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let count = writes.len();
        match self.ask(|reply| Request::Apply { writes, reply }).await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error.into()); count],
        }
    }

    async fn settle(&self) -> Result<(), StoreError> {
        // Also what is durable is not acknowledged by a store that has stopped.
        self.shared.goes_on()?;
        if !self.shared.unsettled.load(Ordering::Acquire) {
            return Ok(());
        }
        self.ask(|reply| Request::Settle { reply }).await?
    }

    async fn chunks(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        keys.iter().map(|key| self.shared.chunk(*key)).collect()
    }

    async fn chunks_from(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<Chunk>, StoreError> {
        let (from, to) = (keys::chunk(ChunkKey { job, number: from }), behind(job.as_bytes()));
        let rows = self.shared.engine.scan(Space::Chunks, Scan::new(&from, &to, limit)).map_err(stopped)?;
        rows.iter().map(|(_, row)| keys::decode_chunk(row)).collect()
    }

    async fn due(
        &self,
        after: Option<(Due, ChunkKey)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        let from = after.map_or_else(Vec::new, |(due, key)| [keys::due(due, key).as_slice(), &[0]].concat());
        let to = until_ms.saturating_add(1).to_be_bytes();
        let rows = self.shared.engine.scan(Space::Due, Scan::new(&from, &to, limit)).map_err(stopped)?;
        Ok(rows.iter().filter_map(|(key, _)| keys::parse_due(key)).collect())
    }

    async fn summarise(&self, job: JobId, entries: &[SummaryEntry]) -> Result<Summary, StoreError> {
        self.ask(|reply| Request::Summarise { job, entries: entries.to_vec(), reply }).await?
    }

    async fn summary(&self, job: JobId) -> Result<Summary, StoreError> {
        Ok(self.shared.summaries.of(&*self.shared.engine, job)?.lock().summary)
    }

    async fn ended(&self, job: JobId, have: &ChunkSet, limit: usize) -> Result<Vec<u32>, StoreError> {
        Ok(self.shared.summaries.of(&*self.shared.engine, job)?.lock().ended(have, limit))
    }

    async fn changed(&self, job: JobId, seen: u64, state: &'static str, wait_ms: u64) {
        let mut changes = self.shared.changes.subscribe();
        let news = async {
            loop {
                changes.borrow_and_update();
                let moved = match (self.shared.job(job), self.summary(job).await) {
                    (Ok(Some(job)), Ok(summary)) => summary.chunks_ended > seen || job.state.as_str() != state,
                    _ => true,
                };
                if moved || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), news).await;
    }

    async fn events(&self, job: JobId, from: u64, limit: usize) -> Result<Vec<EventView>, StoreError> {
        let (from, to) = (keys::event(job, from), behind(job.as_bytes()));
        let rows = self.shared.engine.scan(Space::Events, Scan::new(&from, &to, limit)).map_err(stopped)?;
        rows.iter().map(|(_, row)| keys::decode_json(row, "an event")).collect()
    }

    async fn put_function(&self, reference: &FunctionRef, manifest: &Manifest) -> Result<(), StoreError> {
        let (reference, manifest) = (reference.clone(), Box::new(manifest.clone()));
        self.ask(|reply| Request::PutFunction { reference, manifest, reply }).await?
    }

    async fn function(&self, reference: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        let row = self.shared.engine.get(Space::Things, &keys::function(reference)).map_err(stopped)?;
        row.map(|row| keys::decode_json(&row, "a function")).transpose()
    }

    async fn newest(&self, name: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        let row = self.shared.engine.get(Space::Things, &keys::newest(name)).map_err(stopped)?;
        Ok(row.and_then(|row| text(&row)?.parse().ok()))
    }

    async fn functions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        let rows = all(&*self.shared.engine, Thing::Newest)?;
        Ok(rows.iter().filter_map(|(_, row)| text(row)?.parse().ok()).collect())
    }

    async fn estimate(&self, function: &FunctionRef) -> Estimate {
        self.estimates.lock().get(function).copied().unwrap_or_default()
    }

    async fn observe(&self, function: &FunctionRef, tasks: u64, mean_us: f64, max_us: f64) {
        self.estimates.lock().entry(function.clone()).or_default().observe(tasks, mean_us, max_us);
        self.estimates_changed.lock().insert(function.clone());
    }

    async fn put_worker(&self, worker: WorkerView) {
        self.workers.lock().insert(worker.id.clone(), worker);
    }

    async fn remove_worker(&self, worker: &WorkerId) {
        self.workers.lock().remove(worker);
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        let mut workers = self.workers.lock();
        let latest_ms = workers.values().map(|worker| worker.seen_at_ms).max().unwrap_or_default();
        workers.retain(|_, worker| worker.seen_at_ms + WORKER_FORGOTTEN_MS >= latest_ms);
        let mut listed: Vec<WorkerView> = workers.values().cloned().collect();
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(listed)
    }

    /// This process holds the store's lock, so whatever other process had it is gone, with its own workers. Remote workers
    /// are not: they outlive the process that serves them.
    fn owner_is_gone(&self, owner: &Owner) -> bool {
        !owner.worker.is_remote() && !self.live.read().contains(&owner.worker)
    }
}

impl BlobStore for LocalStore {
    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Vec<Result<Put, StoreError>> {
        // Small ones need not wake the writer: what a single task waits for is threads that wake each other.
        if blobs.iter().all(|(_, bytes)| bytes.len() < SMALL_BYTES_MAX) {
            return blobs.iter().map(|(key, bytes)| self.shared.put_small(key, bytes)).collect();
        }
        let count = blobs.len();
        match self.ask(|reply| Request::PutBlobs { blobs, reply }).await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); count],
        }
    }

    async fn get(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        keys.iter().map(|key| self.shared.engine.blob(key).map_err(stopped)).collect()
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Request::RemoveBlobs { prefix, reply }).await?
    }
}

#[cfg(test)]
mod tests {
    use sheaf_core::{ChunkEvent, ChunkSpec, Digest, EndReason, Lane, Priority};

    use crate::engine::Batch;

    use super::*;

    /// An engine with a defect.
    #[derive(Default)]
    struct Defective(MemoryEngine);

    impl Engine for Defective {
        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
            self.0.get(space, key)
        }

        fn scan(&self, space: Space, scan: Scan<'_>) -> Result<Vec<Row>, EngineError> {
            self.0.scan(space, scan)
        }

        fn put_blob(&self, key: &str, bytes: &Bytes) -> Result<bool, EngineError> {
            self.0.put_blob(key, bytes)
        }

        fn blob(&self, key: &str) -> Result<Option<Bytes>, EngineError> {
            self.0.blob(key)
        }

        fn remove_blobs(&self, prefix: &str) -> Result<bool, EngineError> {
            self.0.remove_blobs(prefix)
        }

        fn commit(&self, _batch: Batch, _durable: bool) -> Result<(), EngineError> {
            panic!("planted");
        }

        fn holds_back(&self) -> bool {
            self.0.holds_back()
        }

        fn waits(&self) -> bool {
            self.0.waits()
        }

        fn syncs(&self) -> Option<u64> {
            self.0.syncs()
        }
    }

    /// A chunk with a pack of so many bytes, put and submitted.
    async fn submit(store: &LocalStore, number: u32, pack_bytes: usize) -> Chunk {
        let pack = Bytes::from(vec![number as u8; pack_bytes]);
        let spec = ChunkSpec {
            key: ChunkKey { job: JobId::from_bytes([7; 16]), number },
            tenant: TenantId::default(),
            tasks: 1,
            task_first: u64::from(number),
            digest: Digest::of(&pack),
            pack_bytes: pack_bytes as u32,
            lane: Lane::default(),
            priority: Priority::default(),
            deadline_ms: None,
            submitted_at_ms: 0,
        };
        store.put(vec![(spec.pack_key(), pack)]).await.remove(0).expect("put");
        let write = Write { key: spec.key, event: ChunkEvent::Submit { spec: Box::new(spec) } };
        store.apply(vec![write]).await.remove(0).expect("submitted")
    }

    /// A small submission waits for the disk when it settles, and not again for what was synced meanwhile.
    #[tokio::test]
    async fn a_submission_is_synced_when_it_settles() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = LocalStore::disk(directory.path(), true).expect("opened");
        let syncs = || store.syncs().expect("there is a disk");
        let mut seen = vec![syncs()];
        submit(&store, 0, 10).await;
        seen.push(syncs());
        store.settle().await.expect("settled");
        seen.push(syncs());
        store.settle().await.expect("there is nothing left to settle");
        seen.push(syncs());
        let steps: Vec<u64> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(steps, [0, 1, 0]);
        let before = syncs();
        submit(&store, 1, SMALL_BYTES_MAX).await;
        assert_eq!(syncs() - before, 2, "a volume and the rows: it is not put off");

        let chunk = submit(&store, 2, 10).await;
        let before = syncs();
        let end = ChunkEvent::End { reason: EndReason::Cancelled, now_ms: 1 };
        let ends = vec![Write { key: chunk.spec.key, event: end }];
        let (settled, ended) = tokio::join!(store.settle(), store.apply(ends));
        assert!(settled.is_ok() && ended[0].is_ok());
        assert_eq!(syncs() - before, 1, "one for both");
    }

    #[tokio::test]
    async fn only_estimates_that_have_changed_are_written() {
        let store = LocalStore::memory().expect("opened");
        let (one, other): (FunctionRef, FunctionRef) =
            ("price@000000000001".parse().expect("a reference"), "risk@000000000001".parse().expect("a reference"));
        store.observe(&one, 10, 5.0, 9.0).await;
        store.observe(&other, 10, 5.0, 9.0).await;
        assert_eq!((store.keep_estimates().await, store.keep_estimates().await), (2, 0));
        store.observe(&other, 10, 5.0, 9.0).await;
        assert_eq!((store.keep_estimates().await, store.keep_estimates().await), (1, 0));
    }

    /// Nobody waits for a writer that has panicked, whether he asked before or after.
    #[tokio::test]
    async fn a_writer_that_panics_stops_the_store() {
        let store = LocalStore::over(Box::<Defective>::default()).expect("opened");
        let puts = store.put(vec![("p/a".to_owned(), Bytes::from_static(b"a"))]);
        let (synced, _, again) = tokio::join!(store.sync(), puts, store.sync());
        assert!(matches!((synced, again), (Err(StoreError::Stopped { .. }), Err(StoreError::Stopped { .. }))));
        assert!(matches!(store.sync().await, Err(StoreError::Stopped { .. })));
        assert!(store.failed().borrow().is_some());
    }
}
