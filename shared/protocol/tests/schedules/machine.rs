//! The ports of a small grid in memory: a store that throttles and loses answers, a clock that the schedule drives.

use std::{
    collections::BTreeMap,
    future::{Future, pending, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use bytes::Bytes;
use sheaf_api::{
    Pack, PackBuilder,
    run::{Call, Report},
    wire::{EventView, JobFilter, WorkerView},
};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSet, ChunkSpec, Due, Estimate, FunctionKind, FunctionName, FunctionRef, Job,
    JobEvent, JobId, JobOptions, JobState, Lane, Manifest, Summary, TenantId, WorkerId, invariant,
};
use shuttle::{
    future::yield_now,
    rand::{Rng as _, thread_rng},
};

use crate::{
    error::{JobWriteError, StoreError, WriteError},
    ports::{
        BlobStore, ChunkQueue, Clock, Delivery, Hint, JobListing, Ports, Put, Rng, Runner, StateStore, SummaryEntry,
        Write,
    },
};

const CHUNKS: u32 = 2;
const TASKS: u32 = 3;

/// A number below `bound`, of the schedule's own choosing.
pub(crate) fn choose(bound: usize) -> usize {
    thread_rng().gen_range(0..bound)
}

/// Lets others go on, up to so many times.
pub(crate) async fn idle(bound: usize) {
    for _ in 0..choose(bound) {
        yield_now().await;
    }
}

/// All ports, and what is behind them.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Shared>);

struct Shared {
    job: Job,
    manifest: Manifest,
    state: Mutex<State>,
    now_ms: AtomicU64,
    running: AtomicUsize,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<ChunkKey, Chunk>,
    blobs: BTreeMap<String, Bytes>,
    /// Ready at (ms), which chunk.
    hints: Vec<(u64, ChunkKey)>,
    sleepers: Vec<(u64, Waker)>,
}

impl Machine {
    /// A grid with a job of some chunks.
    pub(crate) fn new() -> Self {
        let kind = FunctionKind::Handler { revision: String::new() };
        let manifest = Manifest::new("f".parse().expect("a name"), kind);
        let function: FunctionRef = "f@0123456789ab".parse().expect("a version");
        let job = Job {
            id: JobId::from_bytes([7; 16]),
            tenant: TenantId::default(),
            options: JobOptions::new(vec![function]),
            options_digest: sheaf_core::Digest::of(b"options"),
            origin: None,
            created_at_ms: 1,
            state: JobState::Open,
        };
        let mut state = State::default();
        for number in 0..CHUNKS {
            let pack = pack();
            let key = ChunkKey { job: job.id, number };
            let spec = ChunkSpec {
                key,
                tenant: job.tenant.clone(),
                tasks: TASKS,
                task_first: u64::from(number * TASKS),
                digest: pack.digest(),
                pack_bytes: pack.bytes().len() as u32,
                lane: Lane::default(),
                priority: job.options.priority,
                deadline_ms: None,
                submitted_at_ms: 1,
            };
            state.blobs.insert(spec.pack_key(), pack.bytes().clone());
            let submit = ChunkEvent::Submit { spec: Box::new(spec) };
            state.chunks.insert(key, Chunk::apply(None, &submit).expect("there is none"));
            state.hints.push((0, key));
        }
        let (state, now_ms, running) = (Mutex::new(state), AtomicU64::new(1_000), AtomicUsize::new(0));
        Self(Arc::new(Shared { job, manifest, state, now_ms, running, stopped: AtomicBool::new(false) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics while holding it")
    }

    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        self.state().chunks.values().cloned().collect()
    }

    fn is_over(&self) -> bool {
        self.state().chunks.values().all(Chunk::is_final)
    }

    /// Calls that are under way.
    pub(crate) fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }

    /// Time passes, now and then by up to so much, until it is stopped.
    pub(crate) async fn tick(self, ms_max: usize) {
        while !self.0.stopped.load(Ordering::Relaxed) {
            yield_now().await;
            self.pass(choose(ms_max) as u64);
        }
    }

    /// Stops the time.
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    fn pass(&self, ms: u64) {
        let now_ms = self.0.now_ms.fetch_add(ms, Ordering::Relaxed) + ms;
        let (woken, asleep) = self.state().sleepers.drain(..).partition(|(until_ms, _)| *until_ms <= now_ms);
        self.state().sleepers = asleep;
        let woken: Vec<(u64, Waker)> = woken;
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The next hint that is ready; none once all chunks are final.
    pub(crate) async fn receive(&self) -> Option<Delivery> {
        loop {
            if self.is_over() {
                return None;
            }
            let now_ms = self.now_ms();
            let ready = {
                let mut state = self.state();
                let ready = state.hints.iter().position(|(at_ms, _)| *at_ms <= now_ms);
                ready.map(|at| state.hints.swap_remove(at).1)
            };
            match ready {
                Some(key) => return Some(Delivery { hint: self.hint(key), receipt: String::new() }),
                None => self.sleep_ms(500).await,
            }
        }
    }

    fn hint(&self, key: ChunkKey) -> Hint {
        let options = &self.0.job.options;
        Hint {
            key,
            tenant: self.0.job.tenant.clone(),
            lane: options.lane,
            priority: options.priority,
            pack: None,
            hedge: false,
        }
    }

    /// What a queue or a sweeper does about hints whose receiver is gone.
    pub(crate) fn deliver_all_again(&self) {
        let mut state = self.state();
        let keys: Vec<_> = state.chunks.keys().copied().collect();
        state.hints = keys.into_iter().map(|key| (0, key)).collect();
    }

    /// One in so many calls fails.
    fn fails(&self) -> bool {
        choose(10) == 0
    }
}

fn pack() -> Pack {
    let mut builder = PackBuilder::new();
    (0..TASKS).for_each(|_| builder.push(b"1").expect("within limits"));
    builder.finish(false)
}

fn lost() -> StoreError {
    StoreError::Unknown { detail: "the answer was lost".into() }
}

impl Ports for Machine {
    type State = Self;
    type Blobs = Self;
    type Queue = Self;
    type Clock = Self;
    type Rng = Self;

    fn state(&self) -> &Self {
        self
    }
    fn blobs(&self) -> &Self {
        self
    }
    fn queue(&self) -> &Self {
        self
    }
    fn clock(&self) -> &Self {
        self
    }
    fn rng(&self) -> &Self {
        self
    }
}

impl Clock for Machine {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.load(Ordering::Relaxed)
    }

    async fn sleep_ms(&self, ms: u64) {
        let until_ms = self.now_ms() + ms;
        poll_fn(|cx| {
            if self.now_ms() >= until_ms {
                return Poll::Ready(());
            }
            Machine::state(self).sleepers.push((until_ms, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Rng for Machine {
    fn next_u64(&self) -> u64 {
        thread_rng().r#gen()
    }
}

impl BlobStore for Machine {
    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Vec<Result<Put, StoreError>> {
        yield_now().await;
        let put = |(key, bytes)| {
            if self.fails() {
                return Err(lost());
            }
            let before = Machine::state(self).blobs.insert(key, bytes);
            Ok(if before.is_some() { Put::Exists } else { Put::Created })
        };
        blobs.into_iter().map(put).collect()
    }

    async fn get(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        yield_now().await;
        keys.iter().map(|key| Ok(Machine::state(self).blobs.get(key).cloned())).collect()
    }

    async fn delete_prefix(&self, _: &str) -> Result<(), StoreError> {
        unreachable!("workers delete nothing")
    }
}

impl ChunkQueue for Machine {
    async fn send(&self, _: Vec<Hint>, _: u64) {
        unreachable!("workers send nothing")
    }

    async fn receive(&self, _: &[Lane], _: usize, _: u64) -> Result<Vec<Delivery>, StoreError> {
        unreachable!("the test receives")
    }

    async fn delete(&self, _: Delivery) {
        yield_now().await;
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        yield_now().await;
        let at_ms = self.now_ms() + delay_ms;
        Machine::state(self).hints.push((at_ms, delivery.hint.key));
    }

    async fn delay_ms(&self) -> u64 {
        0
    }
}

impl Machine {
    fn apply(&self, Write { key, event }: Write) -> Result<Chunk, WriteError> {
        if self.fails() {
            return Err(StoreError::Throttled { retry_after_ms: 10 }.into());
        }
        let mut state = self.state();
        let before = state.chunks.get(&key);
        let applied = Chunk::apply(before, &event);
        let refused = |reason| WriteError::Refused { reason, current: before.cloned().map(Box::new) };
        let after = applied.map_err(refused)?;
        invariant::check_write(before, &after).expect("an invariant");
        state.chunks.insert(key, after.clone());
        drop(state);
        if self.fails() { Err(lost().into()) } else { Ok(after) }
    }
}

impl StateStore for Machine {
    async fn job(&self, _: JobId) -> Result<Option<Job>, StoreError> {
        yield_now().await;
        Ok(Some(self.0.job.clone()))
    }

    async fn apply(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        yield_now().await;
        let applied = writes.into_iter().map(|write| Machine::apply(self, write)).collect();
        yield_now().await;
        applied
    }

    async fn chunks(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        yield_now().await;
        Ok(keys.iter().map(|key| Machine::state(self).chunks.get(key).cloned()).collect())
    }

    async fn function(&self, _: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        yield_now().await;
        Ok(Some(self.0.manifest.clone()))
    }

    async fn estimate(&self, _: &FunctionRef) -> Estimate {
        Estimate::default()
    }

    async fn create_job(&self, _: Job) -> Result<Job, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn apply_job(&self, _: JobId, _: JobEvent) -> Result<Job, JobWriteError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn jobs(&self, _: &TenantId, _: &JobFilter) -> Result<JobListing, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn delete_job(&self, _: JobId) -> Result<(), StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn chunks_from(&self, _: JobId, _: u32, _: usize) -> Result<Vec<Chunk>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn due(&self, _: Option<(Due, ChunkKey)>, _: u64, _: usize) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn summarise(&self, _: JobId, _: &[SummaryEntry]) -> Result<Summary, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn summary(&self, _: JobId) -> Result<Summary, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn ended(&self, _: JobId, _: &ChunkSet, _: usize) -> Result<Vec<u32>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn changed(&self, _: JobId, _: u64, _: &'static str, _: u64) {
        unreachable!("workers ask for no more than the above")
    }
    async fn events(&self, _: JobId, _: u64, _: usize) -> Result<Vec<EventView>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn put_function(&self, _: &FunctionRef, _: &Manifest) -> Result<(), StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn newest(&self, _: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn functions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
    async fn observe(&self, _: &FunctionRef, _: u64, _: f64, _: f64) {
        unreachable!("workers ask for no more than the above")
    }
    async fn put_worker(&self, _: WorkerView) {
        unreachable!("workers ask for no more than the above")
    }
    async fn remove_worker(&self, _: &WorkerId) {
        unreachable!("workers ask for no more than the above")
    }
    async fn workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        unreachable!("workers ask for no more than the above")
    }
}

/// Runs functions for one worker.
pub(crate) struct RunnerOf {
    pub(crate) machine: Machine,
    /// Its functions never end.
    pub(crate) hangs: bool,
}

/// A call that is under way, until its future is done or dropped.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Runner for RunnerOf {
    fn slots(&self) -> usize {
        2
    }

    async fn run(&self, call: Call) -> Report {
        self.machine.0.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(&self.machine.0.running);
        if self.hangs {
            return pending().await;
        }
        self.machine.sleep_ms(choose(15_000) as u64).await;
        let mut report = Report::default();
        for task in call.tasks {
            report.answers.succeeded(task, b"1", 1).expect("within limits");
        }
        report
    }
}
