//! A whole grid in one process.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use sheaf_api::{
    Answer, Api, ApiError, Code,
    wire::{
        CreateJob, EventView, FunctionView, GridView, JobFilter, JobView, Page, PutFunction, ReadResults, ResultsPage,
        RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{ChunkKey, JobId, Lane, ReleaseReason, Seal, TaskId, TenantId, WorkerId, limits};
use sheaf_host::{Handlers, Host, HostOptions};
use sheaf_protocol::{
    ChunkQueue, Clock, Drain, Hint, Ports, Service, StateStore, Worker, WorkerOptions, cancel, summarise, sweep,
};
use sheaf_worker::{Crew, CrewOptions, HostRunner, StoredPackages, SystemClock};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    directory::{Directory, OpenError},
    give_back,
    ports::LocalPorts,
    queue::LocalQueue,
    store::LocalStore,
};

/// Leases in one process are renewed often: it costs next to nothing, and a cancelled task stops sooner.
const HEARTBEAT_MS: u64 = 1_000;
/// How long an idle worker waits for a hint at a time. One that comes wakes it at once, and so does being stopped.
const RECEIVE_MS: u64 = 10_000;
/// Chunks held at once while chunks are short, so that reading, running and committing overlap.
const SHORT_CHUNKS_MAX: usize = 32;
/// A chunk is short if it takes less.
const SHORT: Duration = Duration::from_millis(50);
/// Feed rows taken in at once.
const FEED_ROWS: usize = 64;
/// How often estimates are kept, the queue refilled and the worker shown.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// How often jobs past their retention are looked for.
const RETENTION: Duration = Duration::from_secs(3_600);
/// Chunks that one sweep looks at.
const SWEEP_CHUNKS_MAX: usize = 100_000;

/// Its own workers serve all lanes.
const LANES: [Lane; 3] = [Lane::Lambda, Lane::Spot, Lane::OnDemand];

/// How a grid is opened.
#[derive(Debug, Clone)]
pub struct GridOptions {
    /// Where it keeps everything; `None` for memory.
    pub directory: Option<PathBuf>,
    /// How many tasks run at once; 0 for none, to only look and submit.
    pub slots: usize,
    /// Whether an acknowledgement means that it would survive a power cut, rather than only the end of the process.
    pub durable: bool,
    /// How long running tasks are given when it is shut down.
    pub grace: Duration,
}

impl Default for GridOptions {
    fn default() -> Self {
        let slots = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { directory: None, slots, durable: true, grace: Duration::from_secs(10) }
    }
}

/// A grid in this process. Cloning shares it. It stops when [`Grid::shutdown`] is called; a process that just ends leaves
/// nothing in doubt: the next one to open the directory goes on.
#[derive(Debug, Clone)]
pub struct Grid {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    service: Service<LocalPorts>,
    host: Host,
    handlers: Handlers,
    crew: Arc<Crew<LocalPorts, HostRunner>>,
    options: GridOptions,
    drain: Arc<Drain>,
    /// The receiving loop, and the others, with what stops them.
    receivers: TaskTracker,
    loops: TaskTracker,
    stop: CancellationToken,
    started_at_ms: u64,
    /// Scratch of a grid in memory, removed with it.
    _scratch: Option<Scratch>,
    _directory: Option<Directory>,
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Grid {
    /// Opens a grid and starts it on the current Tokio runtime. What a process that was killed left behind goes on at once.
    pub async fn open(options: GridOptions) -> Result<Self, OpenError> {
        let opening = tokio::task::spawn_blocking(move || Self::open_store(options));
        let (options, directory, store) = opening.await.expect("opening a store does not panic")?;
        let worker_id = WorkerId::from_uuid(uuid::Uuid::now_v7());
        let scratch = match &directory {
            Some(directory) => directory.path.join("scratch"),
            None => std::env::temp_dir().join(format!("sheaf-{}-{}", std::process::id(), worker_id)),
        };
        let handlers = Handlers::new();
        let ports = LocalPorts::new(store.clone());
        let host = Host::open(
            HostOptions::builder()
                .scratch(scratch.clone())
                .slots(options.slots.max(1))
                .handlers(handlers.clone())
                .packages(Arc::new(StoredPackages(ports.clone())))
                .build(),
        )?;
        store.add_live(worker_id.clone());
        let drain = Arc::new(Drain::default());
        let worker_options = WorkerOptions { heartbeat_ms: HEARTBEAT_MS, ..WorkerOptions::new(worker_id) };
        let runner = Arc::new(HostRunner { host: host.clone(), handlers: handlers.clone() });
        let worker = Worker::new(ports.clone(), runner, worker_options, drain.clone());
        let crew_options = CrewOptions {
            lanes: LANES.to_vec(),
            held_max: options.slots + 1,
            held_short_max: SHORT_CHUNKS_MAX.max(2 * options.slots),
            short: SHORT,
            wait_ms: RECEIVE_MS,
        };
        let view = GridView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: if directory.is_some() { "disk" } else { "memory" }.to_owned(),
            directory: directory.as_ref().map(|directory| directory.path.display().to_string()),
            slots: options.slots as u32,
            lanes: BTreeMap::new(),
            durable: options.durable && directory.is_some(),
            syncs: None,
        };
        let inner = Arc::new(Inner {
            crew: Arc::new(Crew::new(ports.clone(), worker, drain.clone(), crew_options)),
            service: Service::new(ports, TenantId::default(), view),
            host,
            handlers,
            options,
            drain,
            receivers: TaskTracker::new(),
            loops: TaskTracker::new(),
            stop: CancellationToken::new(),
            started_at_ms: SystemClock.now_ms(),
            _scratch: directory.is_none().then(|| Scratch(scratch)),
            _directory: directory,
        });
        inner.start();
        Ok(Self { inner })
    }

    fn open_store(options: GridOptions) -> Result<(GridOptions, Option<Directory>, LocalStore), OpenError> {
        let directory = options.directory.as_deref().map(Directory::open).transpose()?;
        let store = match &directory {
            Some(directory) => LocalStore::disk(&directory.path, options.durable),
            None => LocalStore::memory(),
        };
        let path = options.directory.clone().unwrap_or_default();
        let store = store.map_err(|source| OpenError::Store { directory: path, source })?;
        Ok((options, directory, store))
    }

    /// The Rust functions it can call; more may be added at any time.
    pub fn handlers(&self) -> &Handlers {
        &self.inner.handlers
    }

    /// The ports it runs on, for tests and tools.
    pub fn ports(&self) -> &LocalPorts {
        self.inner.service.ports()
    }

    /// Makes the queue hold what it has dropped or never had, if it has room. To be called before remote workers receive
    /// from [its ports](Self::ports): its own do so by themselves, and there may be none.
    pub async fn refill_queue(&self) {
        self.inner.refill_if_asked().await;
    }

    /// Gives back, in the name of a remote worker whose process is certainly gone, what it held: to whoever started that
    /// process and has seen it end. Its chunks are in the queue again at once, with all it had committed, and nobody is
    /// charged for the reason given. Answers which they were. Repeating it is harmless.
    ///
    /// # Errors
    /// The store does not answer. What is then still held goes to others when its lease has run out.
    pub async fn give_back(&self, worker: &WorkerId, reason: ReleaseReason) -> Answer<Vec<ChunkKey>> {
        Ok(give_back::held_by(self.ports(), worker, reason).await?)
    }

    /// Waits until the store has stopped because a write failed; answers why. Waits for ever otherwise.
    pub async fn failed(&self) -> String {
        let mut failed = self.ports().store().failed();
        match failed.wait_for(Option::is_some).await {
            Ok(detail) => detail.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops: takes no more chunks, lets running tasks end within the grace given at opening, gives back the rest, stops
    /// every function, and makes all durable. Calling it again waits for the same.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        let until_ms = SystemClock.now_ms() + inner.options.grace.as_millis() as u64;
        if inner.drain.until_ms().is_none() {
            inner.drain.start(until_ms, ReleaseReason::Drain);
        }
        inner.crew.stop();
        inner.receivers.close();
        inner.receivers.wait().await;
        inner.crew.ended().await;
        inner.stop.cancel();
        inner.loops.close();
        inner.loops.wait().await;
        inner.host.shutdown().await;
        let store = self.ports().store();
        store.keep_estimates().await;
        if let Err(error) = store.sync().await {
            tracing::error!(%error, "the last sync failed; everything acknowledged before is safe");
        }
    }
}

impl Inner {
    fn ports(&self) -> &LocalPorts {
        self.service.ports()
    }

    fn queue(&self) -> &LocalQueue {
        self.ports().queue()
    }

    fn start(self: &Arc<Self>) {
        self.queue().ask_refill();
        let inner = || self.clone();
        self.loops.spawn(until(self.stop.clone(), inner().take_in_feed()));
        self.loops.spawn(until(self.stop.clone(), inner().keep_house()));
        self.loops.spawn(until(self.stop.clone(), inner().sweep()));
        self.loops.spawn(until(self.stop.clone(), inner().forget()));
        if self.options.slots > 0 {
            self.receivers.spawn(inner().receive());
        }
    }

    async fn receive(self: Arc<Self>) {
        self.crew.receive(|| self.refill_if_asked()).await;
    }

    async fn refill_if_asked(&self) {
        if self.queue().wants_refill() {
            self.refill().await;
        }
    }

    /// Fills the queue from the index of open chunks, whose hints it has dropped or never had.
    async fn refill(&self) {
        let mut after = None;
        loop {
            let room = self.queue().room();
            if room < limits::PAGE_ROWS_MAX {
                self.queue().ask_refill();
                return;
            }
            let Ok(due) = self.ports().state().due(after, u64::MAX - 1, limits::PAGE_ROWS_MAX).await else { return };
            let Some(last) = due.last() else { return };
            after = Some(*last);
            let keys: Vec<_> = due.iter().map(|(_, key)| *key).collect();
            let Ok(chunks) = self.ports().state().chunks(&keys).await else { return };
            let held = self.crew.worker().holding();
            let hints =
                chunks.into_iter().flatten().filter(|chunk| !chunk.is_final() && !held.contains(&chunk.spec.key));
            let hints = hints.map(|chunk| Hint {
                key: chunk.spec.key,
                tenant: chunk.spec.tenant,
                lane: chunk.spec.lane,
                priority: chunk.spec.priority,
                pack: None,
                hedge: false,
            });
            self.queue().send(hints.collect(), 0).await;
        }
    }

    /// The result step's loop: takes in changed chunks as the store feeds them. What an earlier process was told of and did
    /// not take in is looked for among the chunks themselves, as is what the feed may have lost.
    async fn take_in_feed(self: Arc<Self>) {
        let store = self.ports().store();
        let mut next = 0;
        loop {
            let end = store.feed_beyond(next).await;
            let taken = match store.changed(next, FEED_ROWS) {
                Ok(changed) => {
                    let from = next;
                    // Fewer rows than asked for are all there are.
                    next = if changed.rows < FEED_ROWS as u64 { end.max(changed.next) } else { changed.next };
                    let mut taken = summarise::summarise(self.ports(), &changed.chunks).await;
                    if from > 0 && changed.rows != next - from {
                        tracing::warn!(from, next, rows = changed.rows, "the feed has a gap");
                    }
                    if taken.is_ok() && changed.rows != next - from {
                        taken = sweep::recount(self.ports(), &TenantId::default()).await;
                    }
                    taken
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => store.feed_taken(next).await,
                Err(error) => {
                    tracing::error!(%error, "the result step has stopped");
                    return;
                }
            }
        }
    }

    async fn keep_house(self: Arc<Self>) {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        loop {
            self.ports()
                .state()
                .put_worker(WorkerView {
                    id: self.crew.worker().id().clone(),
                    host: host.clone(),
                    pid: Some(std::process::id()),
                    lanes: LANES.to_vec(),
                    slots: self.options.slots as u32,
                    holding: self.crew.worker().holding(),
                    copies: self.crew.worker().copies(),
                    draining: self.drain.until_ms().is_some(),
                    started_at_ms: self.started_at_ms,
                    seen_at_ms: SystemClock.now_ms(),
                    tasks_ended: self.crew.worker().tasks_ended(),
                })
                .await;
            self.service.set_slots(self.slots_there_are().await);
            self.ports().store().keep_estimates().await;
            tokio::time::sleep(HOUSEKEEPING).await;
        }
    }

    /// Slots of all workers that take tasks, also of those in other processes.
    async fn slots_there_are(&self) -> u32 {
        let workers = self.ports().state().workers().await.unwrap_or_default();
        workers.iter().filter(|worker| !worker.draining).map(|worker| worker.slots).sum()
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            if let Err(error) = sweep::chunks(self.ports(), SWEEP_CHUNKS_MAX).await {
                tracing::error!(%error, "the sweeper could not look at the chunks that are due");
            }
            if let Err(error) = sweep::jobs(self.ports(), &TenantId::default()).await {
                tracing::error!(%error, "the sweeper could not bring a job on");
            }
            tokio::time::sleep(Duration::from_millis(limits::SWEEP_MS)).await;
        }
    }

    async fn forget(self: Arc<Self>) {
        loop {
            if let Err(error) = sweep::retention(self.ports(), &TenantId::default()).await {
                tracing::error!(%error, "the sweeper could not remove a job past its retention");
            }
            tokio::time::sleep(RETENTION).await;
        }
    }
}

/// Runs a loop until it is told to stop.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}

impl Api for Grid {
    async fn grid(&self) -> Answer<GridView> {
        let view = self.inner.service.grid().await?;
        Ok(GridView { syncs: self.ports().store().syncs(), ..view })
    }

    async fn create_job(&self, request: CreateJob) -> Answer<JobView> {
        self.inner.service.create_job(request).await
    }

    /// Goes on when the caller stops waiting: a chunk that was accepted gets its hint at once, not from the sweeper.
    async fn submit(&self, job: JobId, chunks: Vec<SubmitChunk>) -> Answer<SubmitReply> {
        let service = self.inner.service.clone();
        let submitting = self.inner.loops.spawn(async move { service.submit(job, chunks).await });
        submitting
            .await
            .unwrap_or_else(|_| Err(ApiError::new(Code::Unknown, format!("{job}: the submission was cut off"))))
    }

    async fn seal(&self, job: JobId, seal: Seal) -> Answer<JobView> {
        self.inner.service.seal(job, seal).await
    }

    async fn progress(&self, job: JobId, seen: Option<u64>, wait_ms: u64) -> Answer<JobView> {
        self.inner.service.progress(job, seen, wait_ms).await
    }

    async fn results(&self, job: JobId, read: ReadResults) -> Answer<ResultsPage> {
        self.inner.service.results(job, read).await
    }

    /// A cancelled job's chunks are ended in the background: the wish is what is waited for.
    async fn cancel(&self, job: JobId) -> Answer<JobView> {
        let view = self.inner.service.progress(job, None, 0).await?;
        cancel::wish(self.ports(), view.job.id).await?;
        let inner = self.inner.clone();
        self.inner.loops.spawn(async move {
            if let Err(error) = cancel::carry_out(inner.ports(), job).await {
                tracing::warn!(%job, %error, "a cancellation is left to the sweeper");
            }
        });
        self.inner.service.progress(job, Some(view.summary.chunks_ended), 200).await
    }

    async fn retry(&self, job: JobId, request: RetryJob) -> Answer<JobView> {
        self.inner.service.retry(job, request).await
    }

    async fn jobs(&self, filter: JobFilter) -> Answer<Page<JobView>> {
        self.inner.service.jobs(filter).await
    }

    async fn task(&self, task: TaskId) -> Answer<TaskView> {
        self.inner.service.task(task).await
    }

    async fn logs(&self, task: TaskId) -> Answer<Bytes> {
        self.inner.service.logs(task).await
    }

    async fn events(&self, job: JobId, from: u64) -> Answer<Page<EventView>> {
        self.inner.service.events(job, from).await
    }

    async fn put_function(&self, request: PutFunction) -> Answer<FunctionView> {
        self.inner.service.put_function(request).await
    }

    async fn function(&self, name: &str) -> Answer<FunctionView> {
        self.inner.service.function(name).await
    }

    async fn functions(&self) -> Answer<Page<FunctionView>> {
        self.inner.service.functions().await
    }

    async fn workers(&self) -> Answer<Page<WorkerView>> {
        self.inner.service.workers().await
    }
}

#[cfg(test)]
mod tests {
    use sheaf_conformance::fixture;
    use sheaf_core::{JobEvent, JobState};

    use super::*;

    /// Whatever became of the feed: a grid that is opened counts every chunk that has ended.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lost_feed_is_made_up_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = || GridOptions { directory: Some(directory.path().to_owned()), ..GridOptions::default() };
        // A format and a lock, as a grid makes them.
        Grid::open(options()).await.expect("opened").shutdown().await;
        let id = fixture::job_id();
        {
            let ports = LocalPorts::new(LocalStore::disk(directory.path(), true).expect("opened"));
            let now_ms = SystemClock.now_ms();
            ports.state().create_job(fixture::job(id, now_ms)).await.expect("created");
            let spec = fixture::spec(id, 0, 3);
            fixture::apply(&ports, fixture::submit(&spec)).await.expect("submitted");
            let held = fixture::apply(&ports, fixture::claim(spec.key, 1)).await.expect("claimed");
            fixture::apply(&ports, fixture::finish(&held)).await.expect("finished");
            let seal = Seal { chunks: 1, tasks: 3 };
            ports.state().apply_job(id, JobEvent::Seal { seal }).await.expect("sealed");
            let store = ports.store();
            let end = store.feed_beyond(0).await;
            store.feed_taken(end).await;
            store.sync().await.expect("synced");
        }
        let grid = Grid::open(options()).await.expect("opened");
        let view = Api::progress(&grid, id, Some(0), 20_000).await.expect("it is there");
        assert_eq!((view.summary.chunks_ended, view.summary.totals.succeeded), (1, 3));
        let view = Api::progress(&grid, id, Some(1), 20_000).await.expect("it is there");
        assert!(matches!(view.job.state, JobState::Done { .. }), "{:?}", view.job.state);
        grid.shutdown().await;
    }
}
