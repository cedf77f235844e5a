//! Clients: they submit, read and check what they read; some die, some cancel, some have no business here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sheaf_api::{
    Api, ApiError, Code, PackBuilder, Segment, WriteOutcome,
    wire::{ChunkAnswer, ReadResults, ResultsPage, RetryJob, SubmitChunk},
};
use sheaf_core::{ChunkKey, ChunkSet, EndReason, JobId, JobState, Mark, Outcome, Seal, TenantId};

use crate::{
    executor::{ProcessId, WORLD},
    grid::Grid,
    plan::{Client, JobPlan, stranger},
    ports::Role,
};

/// Chunks that a client submits in one call.
const CHUNKS_PER_CALL: usize = 4;

/// Whoever must come to an end before the run has: counted while it acts.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Leaves {
        self.0.fetch_add(1, Ordering::Relaxed);
        Leaves(self.0.clone())
    }
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a client goes no further with its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The job is over, or takes no more.
    Over,
    /// The client itself is no more.
    Gone,
}

/// One client at one job.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) grid: Grid,
    pub(crate) plan: Arc<JobPlan>,
    pub(crate) waiting: Waiting,
}

impl Actor {
    /// Everybody who has to do with the job.
    pub(crate) fn start(self) {
        let sim = self.grid.sim.clone();
        let leaves = self.waiting.enter();
        sim.spawn(WORLD, async move {
            let sim = self.grid.sim.clone();
            sim.sleep_ms(self.plan.starts_ms).await;
            if self.plan.client == Client::Upload(0) {
                // Nobody ever hears of the file, and nothing may come of that.
                self.grid.count("upload events lost");
                return;
            }
            if let Some(cancelled_ms) = self.plan.cancelled_ms {
                let (leaves, actor) = (self.waiting.enter(), self.clone());
                sim.spawn(WORLD, async move {
                    actor.grid.sim.sleep_ms(cancelled_ms).await;
                    actor.cancel().await;
                    drop(leaves);
                });
            }
            if self.plan.contested {
                sim.spawn(WORLD, self.clone().contest());
            }
            if self.plan.pried {
                sim.spawn(WORLD, self.clone().pry());
            }
            if self.plan.retried {
                let (leaves, actor) = (self.waiting.enter(), self.clone());
                sim.spawn(WORLD, async move {
                    actor.retry().await;
                    drop(leaves);
                });
            }
            if let Client::Upload(events) = self.plan.client {
                for _ in 1..events {
                    let actor = self.clone();
                    sim.spawn(WORLD, async move {
                        actor.grid.sim.sleep_ms(actor.grid.sim.between(0, 30_000)).await;
                        actor.grid.count("upload events doubled");
                        actor.live(false).await;
                    });
                }
            }
            self.live(true).await;
            drop(leaves);
        });
    }

    /// The client's life: each time it is killed it starts again, and goes on by its journal: the job's id.
    async fn live(&self, reads: bool) {
        loop {
            let (process, _) = self.grid.process("client", Role::Service);
            let (actor, done) = (self.clone(), Arc::<AtomicUsize>::default());
            let finished = done.clone();
            let exited = self.grid.sim.exited(process);
            self.grid.sim.spawn(process, async move {
                let submitted = actor.submit_all(process).await;
                if reads && submitted != Err(Stopped::Gone) {
                    actor.read_all(actor.plan.id, Some(process)).await;
                }
                finished.store(1, Ordering::Relaxed);
                let sim = actor.grid.sim.clone();
                sim.after(0, move |sim| sim.kill(process));
            });
            exited.await;
            if done.load(Ordering::Relaxed) == 1 {
                return;
            }
            self.grid.count("clients started again");
            self.grid.sim.sleep_ms(self.grid.sim.between(100, 10_000)).await;
        }
    }

    /// What may befall a client between two calls.
    async fn breathe(&self, process: Option<ProcessId>) {
        if let Some(process) = process
            && self.grid.strikes(self.grid.faults.crash * 3.0)
        {
            self.grid.count("clients killed");
            self.grid.sim.after(0, move |sim| sim.kill(process));
            std::future::pending::<()>().await;
        }
        self.grid.sim.sleep(self.grid.sim.between(100, 20_000)).await;
    }

    /// Asks until there is an answer, or none that helps.
    async fn until_answered<T: Send + 'static, F>(
        &self,
        process: Option<ProcessId>,
        call: impl Fn(sheaf_protocol::Service<crate::ports::SimPorts>) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        loop {
            self.breathe(process).await;
            match self.grid.call(&self.plan.tenant, Role::Service, &call).await {
                Err(error) if error.outcome() != WriteOutcome::Final => {
                    let pause_ms = error.retry_after_ms.unwrap_or_default() + self.grid.sim.between(50, 2_000);
                    self.grid.sim.sleep_ms(pause_ms).await;
                }
                answer => return answer,
            }
        }
    }

    async fn submit_all(&self, process: ProcessId) -> Result<(), Stopped> {
        let plan = self.plan.clone();
        let created = self
            .until_answered(Some(process), |service| {
                let request = plan.request.clone();
                async move { service.create_job(request).await }
            })
            .await;
        if let Err(error) = created {
            self.complain("cannot be created", &error);
            return Err(Stopped::Over);
        }
        let mut open: Vec<usize> = (0..plan.chunks.len()).collect();
        if let Client::Mortal(chunks) = plan.client {
            open.truncate(chunks as usize);
        }
        while !open.is_empty() {
            let taken = open.len().min(CHUNKS_PER_CALL);
            let numbers: Vec<usize> = open.drain(..taken).collect();
            let chunks: Vec<SubmitChunk> = numbers.iter().map(|&number| plan.chunk(number)).collect();
            let id = plan.id;
            let answer = self
                .until_answered(Some(process), |service| {
                    let chunks = chunks.clone();
                    async move { service.submit(id, chunks).await }
                })
                .await;
            let reply = match answer {
                Ok(reply) => reply,
                Err(error) => {
                    self.complain("cannot be submitted to", &error);
                    return Err(Stopped::Over);
                }
            };
            if reply.answers.len() != numbers.len() {
                self.violated(format!("invariant 16: {} answers for {} chunks", reply.answers.len(), numbers.len()));
            }
            for (number, answer) in numbers.into_iter().zip(reply.answers) {
                let key = ChunkKey { job: id, number: number as u32 };
                match answer {
                    ChunkAnswer::Accepted | ChunkAnswer::Exists => {
                        self.grid.sim.cloud(|cloud| {
                            cloud.audit.acknowledged.insert(key);
                            if !cloud.chunks.contains_key(&key) {
                                cloud.audit.violated(format!("invariant 14: {key} was accepted and is not there"));
                            }
                        });
                    }
                    ChunkAnswer::Refused { error } if error.code == Code::Over => return Err(Stopped::Over),
                    ChunkAnswer::Refused { error } if error.outcome() == WriteOutcome::Final => {
                        self.complain(&format!("refuses chunk {number}"), &error);
                        return Err(Stopped::Over);
                    }
                    ChunkAnswer::Refused { .. } => open.push(number),
                }
            }
        }
        if let Client::Mortal(chunks) = plan.client {
            self.grid.count("clients gone for good");
            let (id, seal) = (plan.id, plan.seal());
            if chunks == seal.chunks && self.grid.sim.happens(0.5) {
                // The last that is heard of it is that it seals its job.
                let sealed =
                    self.grid.call(&plan.tenant, Role::Service, |service| async move { service.seal(id, seal).await });
                drop(sealed.await);
            }
            return Err(Stopped::Gone);
        }
        let (id, seal) = (plan.id, plan.seal());
        let sealed = self.until_answered(Some(process), |service| async move { service.seal(id, seal).await }).await;
        match sealed {
            Ok(view) if view.job.state.seal() == Some(seal) || view.job.state.is_cancelled() => Ok(()),
            Ok(view) => {
                self.violated(format!("{id} was sealed with {seal:?} and is {:?}", view.job.state));
                Err(Stopped::Over)
            }
            Err(error) if error.code == Code::Over => Err(Stopped::Over),
            Err(error) => {
                self.complain("cannot be sealed", &error);
                Err(Stopped::Over)
            }
        }
    }

    /// Reads until the job is over and everything was read, and checks it.
    async fn read_all(&self, job: JobId, process: Option<ProcessId>) {
        let mut have = ChunkSet::new();
        loop {
            let read = ReadResults { have: have.clone(), wait_ms: 20_000, chunks_max: 8, with_packs: false };
            let page = self
                .until_answered(process, |service| {
                    let read = read.clone();
                    async move { service.results(job, read).await }
                })
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    self.complain("cannot be read", &error);
                    return;
                }
            };
            let is_empty = page.chunks.is_empty();
            self.take(job, &page, &mut have);
            match page.job.job.state {
                JobState::Done { seal, .. } if is_empty => {
                    if have.len() != u64::from(seal.chunks) {
                        self.violated(format!(
                            "invariant 9: {job} is done with {} chunks read of {seal:?}",
                            have.len()
                        ));
                    }
                    return;
                }
                JobState::Cancelled { .. } if is_empty => {
                    let missed = self.grid.sim.cloud(|cloud| {
                        let results = cloud.chunks_of(job).filter(|chunk| !chunk.work.segments.is_empty());
                        results.map(|chunk| chunk.spec.key).find(|key| !have.contains(key.number))
                    });
                    if let Some(key) = missed {
                        self.unkept(format!(
                            "invariant 4: {job} is cancelled and all is read but the results of {key}"
                        ));
                    }
                    return;
                }
                _ => {}
            }
        }
    }

    /// Checks a page: every result is right, and no outcome differs from what somebody has seen before.
    fn take(&self, job: JobId, page: &ResultsPage, have: &mut ChunkSet) {
        for chunk in &page.chunks {
            let key = ChunkKey { job, number: chunk.head.number };
            let open = match chunk.head.ended {
                Some(EndReason::Cancelled) => Some(Outcome::Cancelled),
                Some(EndReason::Expired) => Some(Outcome::Expired),
                None => None,
            };
            let mut outcomes: Vec<Option<Outcome>> = vec![open; chunk.head.tasks as usize];
            for segment in &chunk.segments {
                let segment = Segment::parse(segment.clone()).expect("a committed segment is one");
                for entry in segment.entries() {
                    let errand = self.grid.sim.cloud(|cloud| cloud.errand(key, entry.task));
                    if entry.mark == Mark::Succeeded && errand.is_none_or(|errand| errand.result() != entry.answer) {
                        self.violated(format!("invariant 3: the result of {key}/{} is not its own", entry.task));
                    }
                    let slot = &mut outcomes[entry.task as usize];
                    if slot.is_some() && *slot != open {
                        self.violated(format!("invariant 1: {key}/{} has two results", entry.task));
                    }
                    *slot = entry.mark.outcome();
                }
            }
            if outcomes.contains(&None) {
                self.violated(format!("invariant 1: {key} has ended and a task has no outcome"));
            }
            if !have.insert(key.number) {
                self.violated(format!("{key} was read twice"));
            }
            self.grid.sim.cloud(|cloud| {
                cloud.audit.counts.one("chunks read");
                let seen = cloud.visible.entry(key).or_insert_with(|| outcomes.clone());
                if *seen != outcomes {
                    cloud.audit.violated(format!("invariant 2: what was seen of {key} has changed"));
                }
            });
        }
    }

    async fn cancel(&self) {
        let job = self.plan.id;
        loop {
            let answer = self.until_answered(None, |service| async move { service.cancel(job).await }).await;
            match answer {
                Ok(view) if view.job.state.ended_at_ms().is_some() => {
                    let now_ms = self.grid.sim.now_ms();
                    if matches!(view.job.state, JobState::Cancelled { .. }) {
                        self.grid.sim.cloud(|cloud| cloud.audit.cancelled.insert(job, now_ms));
                    }
                    return;
                }
                // Not created yet, or not carried out yet.
                Err(error) if error.code != Code::NotFound => return self.complain("cannot be cancelled", &error),
                Err(_) | Ok(_) => self.grid.sim.sleep_ms(2_000).await,
            }
        }
    }

    /// Tries what failed again, once the job is over.
    async fn retry(&self) {
        let (job, sim) = (self.plan.id, &self.grid.sim);
        if matches!(self.plan.client, Client::Mortal(_)) {
            return;
        }
        while !sim.cloud(|cloud| cloud.jobs.get(&job).is_some_and(|job| job.state.ended_at_ms().is_some())) {
            sim.sleep_ms(5_000).await;
        }
        let mut id = [0; 16];
        sim.draw(|rng| rng.fill(&mut id));
        let id = JobId::from_bytes(id);
        match self.until_answered(None, |service| async move { service.retry(job, RetryJob { id }).await }).await {
            Ok(view) => {
                self.grid.count("jobs tried again");
                let failed = sim.cloud(|cloud| cloud.totals(job));
                if view.job.state.seal().is_some_and(|seal| seal.tasks != failed.failed + failed.quarantined) {
                    self.violated(format!("{id} tries {:?} of {job} again, which had {failed:?}", view.job.state));
                }
                self.read_all(id, None).await;
            }
            Err(error) if error.code == Code::Invalid => {}
            Err(error) => self.complain("cannot be tried again", &error),
        }
    }

    /// Submits something else under the number of a chunk that was accepted, and seals the job with another size.
    async fn contest(self) {
        let (job, sim) = (self.plan.id, self.grid.sim.clone());
        let key = ChunkKey { job, number: 0 };
        let is_there = |cloud: &mut crate::cloud::Cloud| {
            cloud.audit.acknowledged.contains(&key)
                && cloud.jobs.get(&job).is_some_and(|job| job.state.seal().is_some())
        };
        while !sim.cloud(is_there) {
            if !self.grid.stormy() {
                return;
            }
            sim.sleep_ms(500).await;
        }
        let mut builder = PackBuilder::new();
        builder.push(b"other").expect("a few bytes fit a pack");
        let other = SubmitChunk { number: 0, task_first: 0, pack: builder.finish(false) };
        let submitted = self
            .until_answered(None, |service| {
                let chunks = vec![other.clone()];
                async move { service.submit(job, chunks).await }
            })
            .await;
        let taken = submitted.is_ok_and(|reply| {
            reply.answers.iter().any(|answer| matches!(answer, ChunkAnswer::Accepted | ChunkAnswer::Exists))
        });
        if taken {
            self.violated(format!("invariant 8: {key} was accepted with other tasks than before"));
        }
        let seal = Seal { chunks: self.plan.seal().chunks + 7, tasks: self.plan.seal().tasks + 7 };
        let sealed = self.until_answered(None, |service| async move { service.seal(job, seal).await }).await;
        if sealed.is_ok_and(|view| view.job.state.seal() == Some(seal)) {
            self.violated(format!("{job} was sealed a second time with another size"));
        }
        let seal = Seal { tasks: self.plan.seal().tasks + 1, ..self.plan.seal() };
        let sealed = self.until_answered(None, |service| async move { service.seal(job, seal).await }).await;
        if sealed.is_ok_and(|view| view.job.state.seal() == Some(seal)) {
            self.violated(format!("{job} was sealed a second time with more tasks"));
        }
        self.grid.count("conflicts tried");
    }

    /// Reads and cancels somebody else's job.
    async fn pry(self) {
        let (job, tenant): (JobId, TenantId) = (self.plan.id, stranger());
        self.grid.sim.sleep_ms(20_000).await;
        for _ in 0..3 {
            let read =
                self.grid
                    .call(&tenant, Role::Stranger, |service| async move {
                        service.results(job, ReadResults::default()).await
                    })
                    .await;
            let cancelled =
                self.grid.call(&tenant, Role::Stranger, |service| async move { service.cancel(job).await }).await;
            if read.is_ok() || cancelled.is_ok() {
                self.violated(format!("invariant 13: a stranger was shown {job}"));
            }
            self.grid.count("strangers refused");
        }
    }

    fn violated(&self, what: String) {
        self.grid.sim.cloud(|cloud| cloud.audit.violated(what));
    }

    fn unkept(&self, what: String) {
        self.grid.sim.cloud(|cloud| cloud.audit.unkept(what));
    }

    fn complain(&self, what: &str, error: &ApiError) {
        self.violated(format!("{} {what}: {error}", self.plan.id));
    }
}
