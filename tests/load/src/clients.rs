//! The clients: what each asks for, and what it finds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sheaf::{Bytes, ChunkResults, Grid, GridError, JobId, TaskError, TaskResult, core::ChunkKey};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    disk::Probe,
    error::LoadError,
    function::TaskFunction,
    histogram::Times,
    live::Live,
    scenario::{Clients, Load, Scenario},
    verify::{Answer, Verdict, Verifier},
    work::Doing,
};

/// Jobs of one client that are under way together.
const JOBS_AT_ONCE: usize = 16;
/// Tasks that are due and wait for the client to get to them. Their latency counts all the same.
const DUE_MAX: usize = 100_000;
/// Tasks of one client's open loop under way; it falls behind when there are more.
const UNDER_WAY_MAX: usize = 200_000;
/// Tasks of a closed loop between two looks at what the disk needs: in the same minute, with the same neighbours at work.
const TASKS_PER_PROBE: u64 = 8;
/// Chunks of which one client remembers when they came back.
const CHUNKS_SEEN_MAX: usize = 20_000;

/// What one client needs.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its way to the grid.
    pub grid: Grid,
    /// The function it calls.
    pub function: TaskFunction,
    /// The scenario.
    pub scenario: Arc<Scenario>,
    /// Which of the scenario's groups it belongs to.
    pub group: usize,
    /// The number of its first task.
    pub first: u64,
    /// Its own seed.
    pub seed: u64,
    /// The counters it moves.
    pub live: Arc<Live>,
    /// What times the disk between its tasks, if anything does.
    pub(crate) probe: Option<Arc<Probe>>,
}

/// When a chunk came back, and what its tasks came to.
#[derive(Debug, Clone, Copy)]
pub struct ChunkSeen {
    /// Unix time, µs.
    pub at_us: u64,
    /// How long its tasks ran together.
    pub run_us: u64,
    /// Tasks seen of it.
    pub tasks: u32,
}

/// What a client finds.
#[derive(Debug, Default)]
pub struct Found {
    /// How its results were.
    pub verdict: Verdict,
    /// From when a task was due to its result in the client's hands. Of single tasks only.
    pub latency: Times,
    /// From when a task was due to when its submission began. Of single tasks only.
    pub late: Times,
    /// From when a submission began to its durable acknowledgement. Of single tasks only.
    pub submit: Times,
    /// How long tasks ran.
    pub run: Times,
    /// How long all of them ran together.
    pub run_us: u64,
    /// Its jobs.
    pub jobs: BTreeSet<JobId>,
    /// When chunks came back.
    pub chunks: HashMap<ChunkKey, ChunkSeen>,
    /// When its tasks came back, since the start: of batches, per chunk.
    pub ended: Vec<(Duration, u64)>,
}

impl Found {
    /// Takes in what another client found.
    pub fn merge(&mut self, other: Self) {
        self.verdict.merge(other.verdict);
        self.latency.merge(&other.latency);
        self.late.merge(&other.late);
        self.submit.merge(&other.submit);
        self.run.merge(&other.run);
        self.run_us += other.run_us;
        self.jobs.extend(other.jobs);
        self.chunks.extend(other.chunks);
        self.ended.extend(other.ended);
    }

    fn ran(&mut self, run: Duration) {
        self.run.add(run);
        self.run_us += run.as_micros() as u64;
    }

    fn saw(&mut self, chunk: ChunkKey, run: Duration) {
        let room = self.chunks.len() < CHUNKS_SEEN_MAX;
        if !room && !self.chunks.contains_key(&chunk) {
            return;
        }
        let seen = self.chunks.entry(chunk).or_insert(ChunkSeen { at_us: unix_us(), run_us: 0, tasks: 0 });
        seen.run_us += run.as_micros() as u64;
        seen.tasks += 1;
    }
}

/// Now (Unix, µs).
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn answer(outcome: &Result<impl AsRef<[u8]>, TaskError>, judge: impl FnOnce(Answer<'_>) -> bool) -> bool {
    match outcome {
        Ok(result) => judge(Answer::Result(result.as_ref())),
        Err(TaskError::Failed(failure)) => judge(Answer::Failed(&failure.message)),
        Err(other) => judge(Answer::Other(&other.to_string())),
    }
}

impl Client {
    fn clients(&self) -> &Clients {
        &self.scenario.clients[self.group]
    }

    fn verifier(&self, first: u64) -> Verifier {
        Verifier::new(self.clients().mix.clone(), self.scenario.seed, first)
    }

    /// Asks for all that it has to ask for, and waits for all of it.
    pub async fn run(self, start: Instant) -> Result<Found, LoadError> {
        match self.clients().load {
            Load::Batch { tasks } => self.batch(tasks, start).await,
            Load::Closed { tasks, at_once } => self.closed(tasks, at_once, start).await,
            Load::Open { arrivals, seconds } => {
                let schedule = arrivals.schedule(Duration::from_secs_f64(seconds), self.seed);
                self.open(schedule, start).await
            }
        }
    }

    async fn batch(self, tasks: u64, start: Instant) -> Result<Found, LoadError> {
        let jobs = u64::from(self.clients().jobs);
        let mut found = Found::default();
        let mut running = JoinSet::new();
        for job in 0..jobs {
            let (from, to) = (tasks * job / jobs, tasks * (job + 1) / jobs);
            if running.len() >= JOBS_AT_ONCE {
                found.merge(joined(running.join_next().await)?.unwrap_or_default());
            }
            running.spawn(self.clone().job(self.first + from, to - from, start));
        }
        while let Some(of_one) = joined(running.join_next().await)? {
            found.merge(of_one);
        }
        Ok(found)
    }

    async fn job(self, first: u64, tasks: u64, start: Instant) -> Result<Found, LoadError> {
        let (mix, seed, live) = (self.clients().mix.clone(), self.scenario.seed, Arc::clone(&self.live));
        let timed = mix.doing != Doing::Nothing;
        let payloads = (first..first + tasks).map(move |number| {
            live.submitted(1);
            mix.task(seed, number).payload(number)
        });
        let mut builder = self.grid.job(format!("bench {} {}", self.scenario.name, self.clients().name));
        if let Some(tasks) = self.clients().chunk_tasks {
            builder = builder.chunk_tasks(tasks);
        }
        let mut verifier = self.verifier(first);
        verifier.submitted(tasks);
        let mut results = builder.map(&self.function, payloads).start().await?;
        let mut found = Found::default();
        found.jobs.insert(results.job_id());
        while let Some(chunk) = results.next_chunk().await {
            let chunk = chunk?;
            let key = ChunkKey { job: results.job_id(), number: chunk.number() };
            let wrong = if timed {
                take_timed(&chunk, key, &mut verifier, &mut found)
            } else {
                found.saw(key, Duration::ZERO);
                chunk.raw().filter(|(index, outcome)| !answer(outcome, |answer| verifier.take(*index, answer))).count()
                    as u64
            };
            self.live.done(chunk.len() as u64, wrong);
            found.ended.push((start.elapsed(), chunk.len() as u64));
        }
        let totals = results.job().info().await?.summary.totals;
        let mut verdict = verifier.finish();
        let expected = (verdict.submitted - verdict.failed_as_asked, verdict.failed_as_asked);
        if verdict.is_right() && (totals.succeeded, totals.ended() - totals.succeeded) != expected {
            verdict.miscounted += 1;
            verdict.note(|| format!("{} counts {totals:?}, and {expected:?} succeeded and failed", results.job_id()));
        }
        found.verdict = verdict;
        Ok(found)
    }

    async fn closed(self, tasks: u64, at_once: u32, start: Instant) -> Result<Found, LoadError> {
        let single = Arc::new(Single::new(&self, start));
        single.submitted(tasks);
        let next = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        for _ in 0..at_once {
            let (single, next) = (Arc::clone(&single), Arc::clone(&next));
            running.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= tasks {
                        return Ok(());
                    }
                    // Due when the one before has come back: in a closed loop nothing is ever late.
                    single.call(index, Instant::now()).await?;
                    if index % TASKS_PER_PROBE == 0 {
                        single.probe().await?;
                    }
                }
            });
        }
        while joined(running.join_next().await)?.is_some() {}
        Ok(single.finish())
    }

    async fn open(
        self,
        schedule: impl Iterator<Item = Duration> + Send + 'static,
        start: Instant,
    ) -> Result<Found, LoadError> {
        let single = Arc::new(Single::new(&self, start));
        let (due, mut dues) = mpsc::channel(DUE_MAX);
        // A thread of its own: the runtime's clock has a resolution of a millisecond, and its threads may be busy.
        let clock = std::thread::spawn(move || {
            for (index, after) in schedule.enumerate() {
                let at = start + after;
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if due.blocking_send((index as u64, at)).is_err() {
                    return;
                }
            }
        });
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                due = dues.recv(), if running.len() < UNDER_WAY_MAX => {
                    let Some((index, at)) = due else { break };
                    single.submitted(index + 1);
                    let single = Arc::clone(&single);
                    running.spawn(async move { single.call(index, at).await });
                }
                Some(ended) = running.join_next() => drop(joined(Some(ended))?),
            }
        }
        clock.join().expect("the clock does not panic");
        while joined(running.join_next().await)?.is_some() {}
        Ok(single.finish())
    }
}

fn take_timed(chunk: &ChunkResults<Bytes>, key: ChunkKey, verifier: &mut Verifier, found: &mut Found) -> u64 {
    let mut wrong = 0;
    for TaskResult { index, outcome, run, .. } in chunk.iter() {
        wrong += u64::from(!answer(&outcome, |answer| verifier.take(index, answer)));
        found.ran(run);
        found.saw(key, run);
    }
    wrong
}

/// What a task of ours came to; one that panicked passes its panic on.
fn joined<T>(joined: Option<Result<Result<T, LoadError>, tokio::task::JoinError>>) -> Result<Option<T>, LoadError> {
    match joined {
        None => Ok(None),
        Some(Ok(found)) => found.map(Some),
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Err(_)) => Err(GridError::Closed { what: "the measurement was over".into() }.into()),
    }
}

/// Single tasks of one client, each with a ticket.
struct Single {
    client: Client,
    start: Instant,
    state: Mutex<(Verifier, Found)>,
}

impl Single {
    fn new(client: &Client, start: Instant) -> Self {
        let state = Mutex::new((client.verifier(client.first), Found::default()));
        Self { client: client.clone(), start, state }
    }

    fn submitted(&self, tasks: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.submitted(tasks);
    }

    /// Submits a task, waits for its result, and notes how it went since it was due.
    async fn call(&self, index: u64, due: Instant) -> Result<(), LoadError> {
        let Client { grid, function, first, scenario, live, .. } = &self.client;
        let number = first + index;
        let payload = self.client.clients().mix.task(scenario.seed, number).payload(number);
        live.submitted(1);
        let began = Instant::now();
        let ticket = grid.submit(function, payload).await?;
        let acknowledged = Instant::now();
        let TaskResult { id, outcome, run, .. } = ticket.await?;
        let ended = Instant::now();
        let right = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (verifier, found) = &mut *state;
            found.latency.add(ended - due);
            found.late.add(began - due);
            found.submit.add(acknowledged - began);
            found.ran(run);
            found.saw(id.chunk, run);
            found.jobs.insert(id.chunk.job);
            found.ended.push((ended - self.start, 1));
            answer(&outcome, |answer| verifier.take(index, answer))
        };
        live.took(ended - due);
        live.done(1, u64::from(!right));
        Ok(())
    }

    /// Times the disk once, as the grid's writer would wait for it: on a thread of its own.
    async fn probe(&self) -> Result<(), LoadError> {
        let Some(probe) = self.client.probe.clone() else { return Ok(()) };
        let looked = tokio::task::spawn_blocking(move || probe.look()).await;
        looked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn finish(self: Arc<Self>) -> Found {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (verifier, found) = &mut *state;
        let verifier = std::mem::replace(verifier, self.client.verifier(self.client.first));
        Found { verdict: verifier.finish(), ..std::mem::take(found) }
    }
}
