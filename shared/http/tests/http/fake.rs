//! A grid of a few maps: echoes every task at once, and fails those whose payload is `"fail"`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sheaf_api::{
    Answer, Api, ApiError, Code, Pack, SegmentBuilder,
    stream::manifest_json,
    wire::{
        CheckpointView, ChunkAnswer, ChunkHead, ChunkResult, CreateJob, EventView, FunctionView, GridView, JobFilter,
        JobView, Page, PutFunction, ReadResults, ResultsPage, RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{
    ChunkKey, Digest, Estimate, Event, Failure, FailureKind, FunctionRef, Job, JobId, JobState, Lane, Mark, Outcome,
    PastAttempt, ReleaseReason, Seal, Summary, TaskId,
};
use tokio::sync::watch;

pub(crate) struct Fake {
    jobs: Mutex<BTreeMap<JobId, FakeJob>>,
    functions: Mutex<BTreeMap<String, FunctionView>>,
    changes: watch::Sender<u64>,
    /// Errors that the next calls of `grid` and `submit` give, first one first. `Unknown` ones happen all the same.
    pub(crate) errors: Mutex<Vec<ApiError>>,
    pub(crate) submits: AtomicUsize,
    hold_grid: Mutex<Duration>,
}

struct FakeJob {
    view: JobView,
    chunks: BTreeMap<u32, (u64, Pack)>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            functions: Mutex::default(),
            changes: watch::Sender::new(0),
            errors: Mutex::default(),
            submits: AtomicUsize::new(0),
            hold_grid: Mutex::default(),
        }
    }
}

pub(crate) const ESTIMATE: Estimate = Estimate { tasks: 3, mean_us: 1.5, p95_us: 2.5 };

pub(crate) fn task_view(id: TaskId) -> TaskView {
    TaskView {
        id,
        key: Some("k".into()),
        function: "echo@0123456789ab".parse().unwrap(),
        outcome: Some(Outcome::Failed),
        why: "it failed".into(),
        chunk_state: "done".into(),
        worker: Some("wrk_1".parse().unwrap()),
        submitted_at_ms: 1,
        ended_at_ms: Some(2),
        run_us: Some(3),
        attempts: 1,
        strikes: 0,
        crashes: 0,
        past: vec![PastAttempt {
            epoch: 1,
            worker: "wrk_1".parse().unwrap(),
            since_ms: 1,
            until_ms: 2,
            released: Some(ReleaseReason::Drain),
            checkpointed_at_ms: Some(1),
        }],
        checkpoint: Some(CheckpointView { epoch: 1, bytes: 5, at_ms: 1, run_ms: 6 }),
        lost_ms: Some(1),
        failure: Some(full_failure()),
        result_bytes: Some(4),
        estimate: ESTIMATE,
    }
}

pub(crate) fn full_failure() -> Failure {
    let failure = Failure::new(FailureKind::Error, "told to").with_type("Told");
    Failure { stack: vec!["main".into()], stderr: "oh".into(), attempts: 1, ..failure }
}

pub(crate) fn worker_view() -> WorkerView {
    WorkerView {
        id: "wrk_1".parse().unwrap(),
        host: "here".into(),
        pid: Some(4711),
        lanes: vec![Lane::Lambda],
        slots: 2,
        holding: vec![ChunkKey { job: JobId::from_bytes([1; 16]), number: 0 }],
        copies: vec![ChunkKey { job: JobId::from_bytes([1; 16]), number: 0 }],
        draining: false,
        started_at_ms: 1,
        seen_at_ms: 2,
        tasks_ended: 3,
    }
}

impl Fake {
    fn with<T>(&self, job: JobId, act: impl FnOnce(&mut FakeJob) -> Answer<T>) -> Answer<T> {
        let mut jobs = self.jobs.lock().unwrap();
        let found = jobs.get_mut(&job).ok_or_else(|| ApiError::not_found(job))?;
        let done = act(found);
        self.changes.send_modify(|changes| *changes += 1);
        done
    }

    /// Repeats a look until it gives something or the time is over, then the last look.
    async fn wait<T>(&self, wait_ms: u64, look: impl Fn() -> Answer<(bool, T)>) -> Answer<T> {
        let until = tokio::time::Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let mut changes = self.changes.subscribe();
            let (is_news, seen) = look()?;
            if is_news || tokio::time::timeout_at(until, changes.changed()).await.is_err() {
                return Ok(seen);
            }
        }
    }

    /// Lets `grid` take so long.
    pub(crate) fn hold_grid(&self, hold: Duration) {
        *self.hold_grid.lock().unwrap() = hold;
    }

    fn error(&self) -> Option<ApiError> {
        let mut errors = self.errors.lock().unwrap();
        (!errors.is_empty()).then(|| errors.remove(0))
    }
}

fn accept(job: &mut FakeJob, chunk: SubmitChunk) -> ChunkAnswer {
    if let Some((_, pack)) = job.chunks.get(&chunk.number) {
        if pack.digest() == chunk.pack.digest() {
            return ChunkAnswer::Exists;
        }
        return ChunkAnswer::Refused { error: ApiError::new(Code::Conflict, "another chunk has this number") };
    }
    let failed = (0..chunk.pack.tasks()).filter(|i| chunk.pack.payload(*i) == b"\"fail\"").count() as u64;
    let summary = &mut job.view.summary;
    summary.chunks_submitted += 1;
    summary.chunks_ended += 1;
    summary.tasks_submitted += u64::from(chunk.pack.tasks());
    summary.totals.failed += failed;
    summary.totals.succeeded += u64::from(chunk.pack.tasks()) - failed;
    job.chunks.insert(chunk.number, (chunk.task_first, chunk.pack));
    ChunkAnswer::Accepted
}

fn result(number: u32, task_first: u64, pack: &Pack, with_packs: bool) -> ChunkResult {
    let mut segment = SegmentBuilder::new();
    for task in 0..pack.tasks() {
        match pack.payload(task) {
            b"\"fail\"" => segment.failed(task, Mark::Failed, &full_failure(), 1).unwrap(),
            payload => segment.succeeded(task, payload, 1).unwrap(),
        }
    }
    ChunkResult {
        head: ChunkHead { number, task_first, tasks: pack.tasks(), ended: None },
        segments: vec![segment.finish(true)],
        pack: with_packs.then(|| pack.bytes().clone()),
    }
}

impl Api for Fake {
    async fn grid(&self) -> Answer<GridView> {
        let hold = *self.hold_grid.lock().unwrap();
        tokio::time::sleep(hold).await;
        if let Some(error) = self.error() {
            return Err(error);
        }
        let (version, backend) = ("0".into(), "memory".into());
        Ok(GridView {
            version,
            backend,
            directory: Some("/somewhere".into()),
            slots: 2,
            durable: false,
            lanes: BTreeMap::new(),
            syncs: None,
        })
    }

    async fn create_job(&self, request: CreateJob) -> Answer<JobView> {
        let functions = request.functions.iter().map(|name| format!("{name}@0123456789ab").parse().unwrap());
        let options = request.options(functions.collect::<Vec<FunctionRef>>(), false);
        options.check().map_err(ApiError::invalid)?;
        let job = Job {
            id: request.id,
            tenant: Default::default(),
            options_digest: Digest::of(&serde_json::to_vec(&options).unwrap()),
            options,
            origin: request.origin,
            created_at_ms: 1,
            state: JobState::Open,
        };
        let mut jobs = self.jobs.lock().unwrap();
        if let Some(old) = jobs.get(&request.id) {
            let conflict = || ApiError::new(Code::Conflict, format!("{} has other options", request.id));
            return (old.view.job.options == job.options).then(|| old.view.clone()).ok_or_else(conflict);
        }
        let view = JobView { job, summary: Summary::default(), estimate: ESTIMATE, slots: 2, boot_ms: 3 };
        jobs.insert(request.id, FakeJob { view: view.clone(), chunks: BTreeMap::new() });
        Ok(view)
    }

    async fn submit(&self, job: JobId, chunks: Vec<SubmitChunk>) -> Answer<SubmitReply> {
        self.submits.fetch_add(1, Ordering::SeqCst);
        let error = self.error();
        if let Some(error) = error.clone().filter(|error| error.code != Code::Unknown) {
            return Err(error);
        }
        let answers = self.with(job, |job| Ok(chunks.into_iter().map(|chunk| accept(job, chunk)).collect()))?;
        error.map_or(Ok(SubmitReply { answers, estimate: ESTIMATE, slots: 2 }), Err)
    }

    async fn seal(&self, job: JobId, seal: Seal) -> Answer<JobView> {
        self.with(job, |job| {
            job.view.job.state = JobState::Done { seal, at_ms: 2 };
            Ok(job.view.clone())
        })
    }

    async fn progress(&self, job: JobId, seen: Option<u64>, wait_ms: u64) -> Answer<JobView> {
        self.wait(wait_ms, || {
            let jobs = self.jobs.lock().unwrap();
            let view = &jobs.get(&job).ok_or_else(|| ApiError::not_found(job))?.view;
            let is_over = view.job.state.ended_at_ms().is_some();
            Ok((is_over || seen.is_none_or(|seen| view.summary.chunks_ended > seen), view.clone()))
        })
        .await
    }

    async fn results(&self, job: JobId, read: ReadResults) -> Answer<ResultsPage> {
        self.wait(read.wait_ms, || {
            let jobs = self.jobs.lock().unwrap();
            let job = jobs.get(&job).ok_or_else(|| ApiError::not_found(job))?;
            let new = job.chunks.iter().filter(|(number, _)| !read.have.contains(**number)).take(read.chunks_max);
            let chunks: Vec<_> = new.map(|(n, (first, pack))| result(*n, *first, pack, read.with_packs)).collect();
            let is_over = job.view.job.state.ended_at_ms().is_some();
            Ok((is_over || !chunks.is_empty(), ResultsPage { job: job.view.clone(), chunks }))
        })
        .await
    }

    async fn cancel(&self, job: JobId) -> Answer<JobView> {
        self.with(job, |job| {
            job.view.job.state = match job.view.job.state {
                JobState::Open | JobState::Sealed { .. } => JobState::Cancelling { seal: None },
                JobState::Done { .. } => return Err(ApiError::new(Code::Over, "the job is over")),
                _ => JobState::Cancelled { seal: None, at_ms: 2 },
            };
            Ok(job.view.clone())
        })
    }

    async fn retry(&self, job: JobId, request: RetryJob) -> Answer<JobView> {
        let functions = self.with(job, |job| Ok(job.view.job.options.functions.clone()))?;
        let names = functions.iter().map(|function| function.name.to_string()).collect();
        let origin = Some(sheaf_core::Origin::RetryOf { job });
        self.create_job(CreateJob { origin, ..CreateJob::new(request.id, names) }).await
    }

    async fn jobs(&self, filter: JobFilter) -> Answer<Page<JobView>> {
        let jobs = self.jobs.lock().unwrap();
        let rows = jobs.values().rev().map(|job| job.view.clone()).filter(|view| {
            (!filter.alive || view.job.state.ended_at_ms().is_none())
                && filter.before.is_none_or(|before| view.job.id < before)
                && filter.name.as_ref().is_none_or(|name| *name == view.job.options.name)
        });
        let rows: Vec<_> = rows.take(filter.limit).collect();
        let next = rows.last().map(|view| view.job.id.to_string());
        Ok(Page { rows, next })
    }

    async fn task(&self, task: TaskId) -> Answer<TaskView> {
        self.with(task.chunk.job, |_| Ok(task_view(task)))
    }

    async fn logs(&self, task: TaskId) -> Answer<Bytes> {
        self.with(task.chunk.job, |_| Ok(Bytes::from_static(b"line\n\xff")))
    }

    async fn events(&self, job: JobId, from: u64) -> Answer<Page<EventView>> {
        let event = EventView { number: from, at_ms: 1, job, event: Event::JobCreated };
        self.with(job, |_| Ok(Page { rows: vec![event], next: Some("5".into()) }))
    }

    async fn put_function(&self, request: PutFunction) -> Answer<FunctionView> {
        request.manifest.check().map_err(|error| ApiError::invalid(error.to_string()))?;
        let reference = request.manifest.reference(&manifest_json(&request.manifest));
        let view = FunctionView { reference, manifest: request.manifest, estimate: ESTIMATE };
        self.functions.lock().unwrap().insert(view.manifest.name.to_string(), view.clone());
        Ok(view)
    }

    async fn function(&self, name: &str) -> Answer<FunctionView> {
        self.functions.lock().unwrap().get(name).cloned().ok_or_else(|| ApiError::not_found(name))
    }

    async fn functions(&self) -> Answer<Page<FunctionView>> {
        Ok(Page { rows: self.functions.lock().unwrap().values().cloned().collect(), next: None })
    }

    async fn workers(&self) -> Answer<Page<WorkerView>> {
        Ok(Page { rows: vec![worker_view()], next: None })
    }
}
