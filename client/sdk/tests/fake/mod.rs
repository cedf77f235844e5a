//! A grid in memory that keeps the contract of the calls and otherwise does what a test wants: throttle, lose answers, be
//! slow, end chunks out of order, go away and come back with what it had accepted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sheaf::{
    Bytes,
    api::{
        Answer, Api, ApiError, Code, Pack, SegmentBuilder,
        wire::{
            ChunkAnswer, ChunkHead, ChunkResult, CreateJob, EventView, FunctionView, GridView, JobFilter, JobView,
            Page, PutFunction, ReadResults, ResultsPage, RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
        },
    },
    core::{
        Digest, EndReason, Estimate, Failure, FailureKind, FunctionKind, FunctionRef, Job, JobId, JobState, Manifest,
        Mark, Seal, Summary, TaskId, TenantId, Totals,
    },
};
use tokio::sync::watch;

/// What a function of the fake does.
type Body = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, Failure> + Send + Sync>;

/// How the grid misbehaves.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    /// The share of chunks that are throttled.
    pub(crate) throttle: f64,
    /// The share of submissions, seals and creations that are carried out but whose answer is lost.
    pub(crate) lose: f64,
    /// How long a submission takes.
    pub(crate) submit_takes: Duration,
    /// How long a chunk takes, at most; the order of their ends is random.
    pub(crate) chunk_takes: Duration,
    /// Chunks are not run before this is unset.
    pub(crate) hold: bool,
    /// The grid is away.
    pub(crate) away: bool,
    /// Submissions wait for this to be unset.
    pub(crate) stall: bool,
    /// Chunks whose number is refused for good.
    pub(crate) refuse: Option<(u32, Code)>,
    /// What the estimates say of a task.
    pub(crate) mean_us: f64,
    /// Tasks run at once.
    pub(crate) slots: u32,
    /// Segments that a chunk's results come in.
    pub(crate) segments: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            throttle: 0.0,
            lose: 0.0,
            submit_takes: Duration::ZERO,
            chunk_takes: Duration::ZERO,
            hold: false,
            away: false,
            stall: false,
            refuse: None,
            mean_us: 0.1,
            slots: 2,
            segments: 1,
        }
    }
}

/// A chunk, as it was submitted.
#[derive(Clone, Debug)]
pub(crate) struct FakeChunk {
    pub(crate) task_first: u64,
    pub(crate) pack: Pack,
    pub(crate) result: Option<ChunkResult>,
    failures: u64,
}

#[derive(Debug)]
struct FakeJob {
    job: Job,
    chunks: BTreeMap<u32, FakeChunk>,
}

impl FakeJob {
    fn summary(&self) -> Summary {
        let mut summary = Summary {
            chunks_submitted: self.chunks.len() as u64,
            tasks_submitted: self.chunks.values().map(|chunk| u64::from(chunk.pack.tasks())).sum(),
            ..Summary::default()
        };
        for chunk in self.chunks.values().filter(|chunk| chunk.result.is_some()) {
            let tasks = u64::from(chunk.pack.tasks());
            summary.chunks_ended += 1;
            summary.totals += match chunk.result.as_ref().and_then(|result| result.head.ended) {
                Some(_) => Totals { cancelled: tasks, ..Totals::default() },
                None => Totals { succeeded: tasks - chunk.failures, failed: chunk.failures, ..Totals::default() },
            };
        }
        summary
    }

    fn close_if_complete(&mut self) {
        let all_ended = self.chunks.values().all(|chunk| chunk.result.is_some());
        match self.job.state {
            JobState::Sealed { seal } if all_ended && self.chunks.len() as u32 == seal.chunks => {
                self.job.state = JobState::Done { seal, at_ms: 2 };
            }
            JobState::Cancelling { seal } if all_ended => self.job.state = JobState::Cancelled { seal, at_ms: 2 },
            _ => {}
        }
    }

    fn cancel(&mut self) {
        if matches!(self.job.state, JobState::Open | JobState::Sealed { .. }) {
            self.job.state = JobState::Cancelling { seal: self.job.state.seal() };
            for (number, chunk) in &mut self.chunks {
                chunk.result.get_or_insert_with(|| {
                    let head = head(*number, chunk.task_first, &chunk.pack, Some(EndReason::Cancelled));
                    ChunkResult { head, segments: Vec::new(), pack: None }
                });
            }
            self.close_if_complete();
        }
    }
}

fn head(number: u32, task_first: u64, pack: &Pack, ended: Option<EndReason>) -> ChunkHead {
    ChunkHead { number, task_first, tasks: pack.tasks(), ended }
}

struct State {
    jobs: HashMap<JobId, FakeJob>,
    functions: HashMap<String, Body>,
    estimate: Estimate,
    rng: StdRng,
    /// Calls, by name.
    calls: HashMap<&'static str, u64>,
    /// How many tasks each function call saw.
    runs: u64,
    created: u64,
    /// Bytes of payloads in calls that are not answered yet, and the most of them that there ever were.
    in_flight: (usize, usize),
}

/// The grid. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    manners: watch::Sender<Manners>,
    news: watch::Sender<u64>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::seeded(1)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        let state = State {
            jobs: HashMap::new(),
            functions: HashMap::new(),
            estimate: Estimate::default(),
            rng: StdRng::seed_from_u64(seed),
            calls: HashMap::new(),
            runs: 0,
            created: 1_000,
            in_flight: (0, 0),
        };
        let fake = Self {
            state: Arc::new(Mutex::new(state)),
            manners: watch::channel(Manners::default()).0,
            news: watch::channel(0).0,
        };
        fake.with_function("echo", |payload| Ok(payload.to_vec()))
    }

    pub(crate) fn with_function(
        self,
        name: &str,
        body: impl Fn(&[u8]) -> Result<Vec<u8>, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.lock().functions.insert(name.into(), Arc::new(body));
        self
    }

    /// Changes how it behaves, from now on.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manners)) -> &Self {
        self.manners.send_modify(change);
        self
    }

    /// Pretends to know the function already.
    pub(crate) fn knows(&self, mean_us: f64) -> &Self {
        self.behave(|manners| manners.mean_us = mean_us);
        self.lock().estimate = Estimate { tasks: 100, mean_us, p95_us: mean_us };
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding it")
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    /// The chunks of a job, by number.
    pub(crate) fn chunks(&self, job: JobId) -> BTreeMap<u32, FakeChunk> {
        self.lock().jobs.get(&job).map(|job| job.chunks.clone()).unwrap_or_default()
    }

    pub(crate) fn job_state(&self, job: JobId) -> Option<JobState> {
        self.lock().jobs.get(&job).map(|job| job.job.state)
    }

    pub(crate) fn jobs_created(&self) -> Vec<JobId> {
        self.lock().jobs.keys().copied().collect()
    }

    pub(crate) fn calls(&self, name: &str) -> u64 {
        self.lock().calls.get(name).copied().unwrap_or_default()
    }

    /// Tasks that were run.
    pub(crate) fn runs(&self) -> u64 {
        self.lock().runs
    }

    /// The most bytes of payloads that were in unanswered calls.
    pub(crate) fn in_flight_bytes_max(&self) -> usize {
        self.lock().in_flight.1
    }

    /// Forgets a chunk, as if it had never been submitted.
    pub(crate) fn forget_chunk(&self, job: JobId, number: u32) {
        if let Some(job) = self.lock().jobs.get_mut(&job) {
            job.chunks.remove(&number);
        }
    }

    /// Opens a sealed or ended job again, to replay an earlier moment of it.
    pub(crate) fn reopen(&self, job: JobId) {
        if let Some(job) = self.lock().jobs.get_mut(&job) {
            job.job.state = JobState::Open;
        }
    }

    pub(crate) fn forget_job(&self, job: JobId) {
        self.lock().jobs.remove(&job);
    }

    fn called(&self, name: &'static str) -> Answer<()> {
        *self.lock().calls.entry(name).or_default() += 1;
        if self.manners.borrow().away {
            return Err(ApiError::new(Code::Unavailable, "the grid is away"));
        }
        Ok(())
    }

    /// Whether an answer gets lost; the grid being gone by the time of the answer loses it, too.
    fn answer<T>(&self, answer: T) -> Answer<T> {
        let (lose, away) = (self.manners.borrow().lose, self.manners.borrow().away);
        if away || self.lock().rng.random_bool(lose) {
            return Err(ApiError::new(Code::Unknown, "the answer was lost"));
        }
        Ok(answer)
    }

    fn view(&self, id: JobId) -> Answer<JobView> {
        let slots = self.manners.borrow().slots;
        let state = self.lock();
        let job = state.jobs.get(&id).ok_or_else(|| ApiError::not_found(id))?;
        Ok(JobView { job: job.job.clone(), summary: job.summary(), estimate: state.estimate, slots, boot_ms: 0 })
    }

    async fn until(&self, ready: impl Fn(&Manners) -> bool) {
        let mut manners = self.manners.subscribe();
        manners.wait_for(|manners| ready(manners)).await.expect("the fake keeps the sender");
    }

    /// What a call gives that waits, unless the grid goes away meanwhile.
    async fn unless_it_goes<T>(&self, waiting: impl Future<Output = T>) -> Answer<T> {
        tokio::select! {
            biased;
            () = self.until(|manners| manners.away) => Err(ApiError::new(Code::Unknown, "the answer was lost")),
            answer = waiting => Ok(answer),
        }
    }

    fn accept(&self, id: JobId, chunk: &SubmitChunk) -> ChunkAnswer {
        let refuse = |error| ChunkAnswer::Refused { error };
        let (throttle, refused) = {
            let manners = self.manners.borrow();
            (manners.throttle, manners.refuse)
        };
        let mut state = self.lock();
        if state.rng.random_bool(throttle) {
            return refuse(ApiError::new(Code::Throttled, "too many at once").with_retry_after_ms(20));
        }
        if let Some((number, code)) = refused
            && number == chunk.number
        {
            return refuse(ApiError::new(code, "this one not"));
        }
        let Some(job) = state.jobs.get_mut(&id) else { return refuse(ApiError::not_found(id)) };
        if let Some(there) = job.chunks.get(&chunk.number) {
            let same = there.pack.digest() == chunk.pack.digest() && there.task_first == chunk.task_first;
            return if same {
                ChunkAnswer::Exists
            } else {
                refuse(ApiError::new(Code::Conflict, format!("{id}/{} was submitted before", chunk.number)))
            };
        }
        match job.job.state {
            JobState::Open => {}
            JobState::Sealed { seal } | JobState::Done { seal, .. } if chunk.number < seal.chunks => {}
            _ => return refuse(ApiError::new(Code::Over, format!("{id} is over"))),
        }
        let fake = FakeChunk { task_first: chunk.task_first, pack: chunk.pack.clone(), result: None, failures: 0 };
        job.chunks.insert(chunk.number, fake);
        drop(state);
        self.start(id, chunk.number);
        ChunkAnswer::Accepted
    }

    fn start(&self, id: JobId, number: u32) {
        let fake = self.clone();
        tokio::spawn(async move {
            let takes = fake.manners.borrow().chunk_takes;
            let share: f64 = fake.lock().rng.random();
            tokio::time::sleep(takes.mul_f64(share)).await;
            fake.until(|manners| !manners.hold).await;
            fake.run(id, number);
        });
    }

    /// Runs a chunk, unless it has ended.
    pub(crate) fn run(&self, id: JobId, number: u32) {
        let (mean_us, segments) = {
            let manners = self.manners.borrow();
            (manners.mean_us, manners.segments)
        };
        {
            let mut state = self.lock();
            let Some(job) = state.jobs.get(&id) else { return };
            let function = job.job.options.functions[0].name.to_string();
            let Some(chunk) = job.chunks.get(&number).filter(|chunk| chunk.result.is_none()) else { return };
            let (task_first, pack) = (chunk.task_first, chunk.pack.clone());
            let body = state.functions[&function].clone();
            let (result, failures) = run(&body, number, task_first, &pack, segments);
            let tasks = pack.tasks();
            state.runs += u64::from(tasks);
            state.estimate.observe(tasks.into(), mean_us, mean_us);
            let job = state.jobs.get_mut(&id).expect("it was there");
            let chunk = job.chunks.get_mut(&number).expect("it was there");
            (chunk.result, chunk.failures) = (Some(result), failures);
            let failed: u64 = job.chunks.values().map(|chunk| chunk.failures).sum();
            if job.job.options.fail_fast.is_some_and(|most| failed >= most) {
                job.cancel();
            }
            job.close_if_complete();
        }
        self.tell();
    }
}

/// A call that is not answered yet; its caller may drop it at any await.
struct InFlight<'a> {
    fake: &'a Fake,
    bytes: usize,
}

impl<'a> InFlight<'a> {
    fn new(fake: &'a Fake, bytes: usize) -> Self {
        let (now, most) = &mut fake.lock().in_flight;
        *now += bytes;
        *most = (*most).max(*now);
        Self { fake, bytes }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.fake.lock().in_flight.0 -= self.bytes;
    }
}

fn run(body: &Body, number: u32, task_first: u64, pack: &Pack, segments: u32) -> (ChunkResult, u64) {
    let mut failures = 0;
    let mut builders = vec![SegmentBuilder::new(); segments as usize];
    for task in 0..pack.tasks() {
        let builder = &mut builders[(task % segments) as usize];
        match body(pack.payload(task)) {
            Ok(result) => builder.succeeded(task, &result, 1),
            Err(failure) => {
                failures += 1;
                let mark = if failure.kind == FailureKind::WorkerDied { Mark::Quarantined } else { Mark::Failed };
                builder.failed(task, mark, &failure, 1)
            }
        }
        .expect("small results");
    }
    let segments = builders.iter_mut().filter(|builder| !builder.is_empty()).map(|builder| builder.finish(false));
    (ChunkResult { head: head(number, task_first, pack, None), segments: segments.collect(), pack: None }, failures)
}

fn reference(name: &str) -> FunctionRef {
    let full = if name.contains('@') { name.to_owned() } else { format!("{name}@000000000000") };
    full.parse().expect("a function name")
}

impl Api for Fake {
    async fn grid(&self) -> Answer<GridView> {
        self.called("grid")?;
        let slots = self.manners.borrow().slots;
        Ok(GridView {
            version: "0".into(),
            backend: "fake".into(),
            directory: None,
            slots,
            durable: true,
            lanes: BTreeMap::new(),
            syncs: None,
        })
    }

    async fn create_job(&self, request: CreateJob) -> Answer<JobView> {
        self.called("create_job")?;
        let digest = Digest::of(&serde_json::to_vec(&request).expect("JSON"));
        {
            let mut state = self.lock();
            if let Some(there) = state.jobs.get(&request.id) {
                if there.job.options_digest != digest {
                    return Err(ApiError::new(Code::Conflict, format!("{} exists with other options", request.id)));
                }
            } else {
                let functions = request.functions.iter().map(|name| reference(name)).collect();
                state.created += 1;
                let job = Job {
                    id: request.id,
                    tenant: TenantId::default(),
                    options: request.options(functions, false),
                    options_digest: digest,
                    origin: None,
                    created_at_ms: state.created,
                    state: JobState::Open,
                };
                state.jobs.insert(request.id, FakeJob { job, chunks: BTreeMap::new() });
            }
        }
        self.answer(self.view(request.id)?)
    }

    async fn submit(&self, job: JobId, chunks: Vec<SubmitChunk>) -> Answer<SubmitReply> {
        self.called("submit")?;
        assert!((1..=sheaf::core::limits::WRITES_PER_CALL_MAX).contains(&chunks.len()), "{} chunks", chunks.len());
        let packs = chunks.iter().map(|chunk| &chunk.pack);
        let bytes: usize = packs.flat_map(|pack| (0..pack.tasks()).map(|task| pack.payload(task).len())).sum();
        let _in_flight = InFlight::new(self, bytes);
        let takes = self.manners.borrow().submit_takes;
        tokio::time::sleep(takes).await;
        self.until(|manners| !manners.stall).await;
        let answers = chunks.iter().map(|chunk| self.accept(job, chunk)).collect();
        let (slots, estimate) = (self.manners.borrow().slots, self.lock().estimate);
        self.answer(SubmitReply { answers, estimate, slots })
    }

    async fn seal(&self, id: JobId, seal: Seal) -> Answer<JobView> {
        self.called("seal")?;
        {
            let mut state = self.lock();
            let job = state.jobs.get_mut(&id).ok_or_else(|| ApiError::not_found(id))?;
            match job.job.state {
                JobState::Open => job.job.state = JobState::Sealed { seal },
                JobState::Sealed { seal: old } | JobState::Done { seal: old, .. } if old == seal => {}
                JobState::Sealed { .. } | JobState::Done { .. } => {
                    return Err(ApiError::new(Code::Conflict, "sealed with another size"));
                }
                _ => return Err(ApiError::new(Code::Over, "cancelled")),
            }
            job.close_if_complete();
        }
        self.tell();
        self.answer(self.view(id)?)
    }

    async fn progress(&self, job: JobId, seen: Option<u64>, wait_ms: u64) -> Answer<JobView> {
        self.called("progress")?;
        let mut news = self.news.subscribe();
        let wait = async {
            loop {
                let view = self.view(job)?;
                if seen.is_none_or(|seen| view.summary.chunks_ended > seen) || view.job.state.ended_at_ms().is_some() {
                    return Ok(view);
                }
                news.changed().await.expect("the fake keeps the sender");
            }
        };
        match self.unless_it_goes(tokio::time::timeout(Duration::from_millis(wait_ms), wait)).await? {
            Ok(view) => view,
            Err(_) => self.view(job),
        }
    }

    async fn results(&self, id: JobId, read: ReadResults) -> Answer<ResultsPage> {
        self.called("results")?;
        let mut news = self.news.subscribe();
        let page = || {
            let job = self.view(id)?;
            let mut state = self.lock();
            let chunks = &state.jobs[&id].chunks;
            let ended = chunks.iter().filter(|(number, _)| !read.have.contains(**number));
            let mut chunks: Vec<ChunkResult> = ended.filter_map(|(_, chunk)| chunk.result.clone()).collect();
            chunks.shuffle(&mut state.rng);
            chunks.truncate(read.chunks_max.clamp(1, 64));
            Ok(ResultsPage { job, chunks })
        };
        let wait = async {
            loop {
                let page: ResultsPage = page()?;
                if !page.chunks.is_empty() || page.job.job.state.ended_at_ms().is_some() {
                    return Ok(page);
                }
                news.changed().await.expect("the fake keeps the sender");
            }
        };
        match self.unless_it_goes(tokio::time::timeout(Duration::from_millis(read.wait_ms), wait)).await? {
            Ok(page) => page,
            Err(_) => page(),
        }
    }

    async fn cancel(&self, id: JobId) -> Answer<JobView> {
        self.called("cancel")?;
        {
            let mut state = self.lock();
            state.jobs.get_mut(&id).ok_or_else(|| ApiError::not_found(id))?.cancel();
        }
        self.tell();
        self.view(id)
    }

    async fn retry(&self, id: JobId, request: RetryJob) -> Answer<JobView> {
        self.called("retry")?;
        {
            let mut state = self.lock();
            let old = state.jobs.get(&id).ok_or_else(|| ApiError::not_found(id))?;
            let job = Job { id: request.id, state: JobState::Open, ..old.job.clone() };
            state.jobs.entry(request.id).or_insert(FakeJob { job, chunks: BTreeMap::new() });
        }
        self.view(request.id)
    }

    async fn jobs(&self, _filter: JobFilter) -> Answer<Page<JobView>> {
        self.called("jobs")?;
        let rows = self.jobs_created().into_iter().map(|id| self.view(id)).collect::<Answer<_>>()?;
        Ok(Page { rows, next: None })
    }

    async fn task(&self, task: TaskId) -> Answer<TaskView> {
        self.called("task")?;
        Ok(TaskView {
            id: task,
            key: None,
            function: reference("echo"),
            outcome: None,
            why: "because".into(),
            chunk_state: "queued".into(),
            worker: None,
            submitted_at_ms: 1,
            ended_at_ms: None,
            run_us: None,
            attempts: 0,
            strikes: 0,
            crashes: 0,
            past: Vec::new(),
            checkpoint: None,
            lost_ms: None,
            failure: None,
            result_bytes: None,
            estimate: Estimate::default(),
        })
    }

    async fn logs(&self, task: TaskId) -> Answer<Bytes> {
        self.called("logs")?;
        Ok(format!("logs of {task}").into())
    }

    async fn events(&self, _job: JobId, _from: u64) -> Answer<Page<EventView>> {
        self.called("events")?;
        Ok(Page { rows: Vec::new(), next: None })
    }

    async fn put_function(&self, request: PutFunction) -> Answer<FunctionView> {
        self.called("put_function")?;
        let PutFunction { manifest, .. } = request;
        Ok(FunctionView { reference: reference(manifest.name.as_str()), manifest, estimate: Estimate::default() })
    }

    async fn function(&self, name: &str) -> Answer<FunctionView> {
        self.called("function")?;
        let reference = reference(name);
        let manifest = Manifest::new(reference.name.clone(), FunctionKind::Handler { revision: String::new() });
        Ok(FunctionView { reference, manifest, estimate: Estimate::default() })
    }

    async fn functions(&self) -> Answer<Page<FunctionView>> {
        Ok(Page { rows: Vec::new(), next: None })
    }

    async fn workers(&self) -> Answer<Page<WorkerView>> {
        Ok(Page { rows: Vec::new(), next: None })
    }
}
