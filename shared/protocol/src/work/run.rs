//! Running a claimed chunk.

use std::{
    collections::BTreeMap,
    future::{Future, Ready},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    future::{Either, select},
    pin_mut,
    stream::{FuturesUnordered, StreamExt},
};
use sheaf_api::{
    Pack,
    run::{Call, Failed, Report},
};
use sheaf_core::{
    Attempt, Chunk, ChunkEvent, Digest, EndReason, Failure, FailureKind, FunctionRef, Job, Manifest, Mark, PastAttempt,
    Refused, ReleaseReason, limits,
};

use super::{
    Worked, Worker,
    checkpoints::{self, Checkpoints, Task},
    commit::{Pending, attempt_of},
    tasks::{Share, Tasks, Verdict},
};
use crate::{
    error::{StoreError, WriteError},
    ports::{BlobStore, Clock, Ports, Rng, Runner, StateStore, Write},
    write::{retrying, write},
};

/// A call that was meant to be short starts no further task after this time.
const CALL_BUDGET: Duration = Duration::from_millis(100);
/// How often a running chunk looks whether it should drain, and a task whether it has written a checkpoint.
pub(super) const LOOK_MS: u64 = 500;
/// The first pause before a chunk is tried again that could not be prepared; doubled each time, up to the longest.
const UNAVAILABLE_MS: u64 = 250;
const UNAVAILABLE_MS_MAX: u64 = 30_000;

/// What a chunk needs to run.
pub(super) struct Prepared {
    pub(super) job: Job,
    pub(super) pack: Pack,
    /// By index in the job's list; `None` for a function that is gone.
    pub(super) manifests: Vec<Option<Arc<Manifest>>>,
}

pub(super) enum NotPrepared {
    Cancelled,
    Unavailable(String),
}

/// The tasks of a call, and what it came to.
type Ran = (Vec<u32>, Report);

/// The attempt cannot go on: fenced off, cancelled, or its store is gone.
struct Lost;

impl<P: Ports, R: Runner> Worker<P, R> {
    pub(super) async fn run(&self, chunk: Chunk, inline: Option<Bytes>) -> Worked {
        let key = chunk.spec.key;
        match self.prepare(&chunk, inline).await {
            Ok(prepared) => {
                let estimate = self.ports.state().estimate(&prepared.job.options.functions[0]).await;
                let single = prepared.job.options.functions.len() == 1;
                let mean_us = (single && estimate.tasks > 0).then_some(estimate.mean_us);
                Run::new(self, chunk, prepared, mean_us).go().await
            }
            Err(NotPrepared::Cancelled) => {
                let now_ms = self.ports.clock().now_ms();
                match write(&self.ports, key, ChunkEvent::End { reason: EndReason::Cancelled, now_ms }).await {
                    Ok(_) | Err(WriteError::Refused { reason: Refused::Final | Refused::Absent, .. }) => Worked::Over,
                    // The chunk may be open, and its hint is still needed.
                    Err(_) => Worked::Fenced,
                }
            }
            Err(NotPrepared::Unavailable(detail)) => {
                tracing::warn!(chunk = %key, detail, "a claimed chunk cannot be prepared; it is given back");
                let now_ms = self.ports.clock().now_ms();
                let is_unavailable = |past: &&PastAttempt| past.released == Some(ReleaseReason::Unavailable);
                let times = chunk.work.past.iter().rev().take_while(is_unavailable).count();
                let pause_ms = (UNAVAILABLE_MS << times.min(16)).min(UNAVAILABLE_MS_MAX);
                let release = ChunkEvent::Release {
                    attempt: attempt_of(&chunk),
                    rv: chunk.rv,
                    commit: None,
                    tallies: Vec::new(),
                    checkpoints: BTreeMap::new(),
                    now_ms,
                    not_before_ms: now_ms + pause_ms,
                    reason: ReleaseReason::Unavailable,
                };
                let _ = write(&self.ports, key, release).await;
                Worked::Released
            }
        }
    }

    /// One consistent read of the job, the pack, and the manifests.
    pub(super) async fn prepare(&self, chunk: &Chunk, inline: Option<Bytes>) -> Result<Prepared, NotPrepared> {
        let unavailable = |error: StoreError| NotPrepared::Unavailable(error.to_string());
        let job = retrying(&self.ports, || self.ports.state().job(chunk.job())).await.map_err(unavailable)?;
        let job = job.filter(|job| !job.state.is_cancelled()).ok_or(NotPrepared::Cancelled)?;
        let inline = inline.filter(|pack| Digest::of(pack) == chunk.spec.digest);
        let bytes = match inline {
            Some(bytes) => bytes,
            None => {
                let keys = [chunk.spec.pack_key()];
                let get = || async { self.ports.blobs().get(&keys).await.pop().expect("one answer per key") };
                let found = retrying(&self.ports, get).await.map_err(unavailable)?;
                found.ok_or_else(|| NotPrepared::Unavailable(format!("{} does not exist", keys[0])))?
            }
        };
        let pack = Pack::parse(bytes).map_err(|error| NotPrepared::Unavailable(error.to_string()))?;
        if pack.tasks() != chunk.spec.tasks {
            return Err(NotPrepared::Unavailable(format!("its pack holds {} tasks", pack.tasks())));
        }
        let mut manifests = Vec::with_capacity(job.options.functions.len());
        for function in &job.options.functions {
            let manifest = self.manifest(function).await;
            let manifest = manifest.map_err(|error| NotPrepared::Unavailable(error.to_string()))?;
            if manifest.as_ref().is_some_and(|manifest| !self.runner.can_run(manifest)) {
                return Err(NotPrepared::Unavailable(format!("{function} cannot be run here at present")));
            }
            manifests.push(manifest);
        }
        Ok(Prepared { job, pack, manifests })
    }
}

pub(super) struct Run<'a, P, R> {
    worker: &'a Worker<P, R>,
    chunk: Chunk,
    attempt: Attempt,
    job: Job,
    pack: Pack,
    manifests: Vec<Option<Arc<Manifest>>>,
    tasks: Tasks,
    pending: Pending,
    checkpoints: Arc<Checkpoints>,
    heartbeat_at_ms: u64,
    commit_at_ms: u64,
    /// When running tasks are asked for a last checkpoint, once the worker has been told to stop.
    ask_at_ms: Option<u64>,
}

impl<'a, P: Ports, R: Runner> Run<'a, P, R> {
    pub(super) fn new(worker: &'a Worker<P, R>, chunk: Chunk, prepared: Prepared, mean_us: Option<f64>) -> Self {
        let Prepared { job, pack, manifests } = prepared;
        let tasks = Tasks::of(&chunk, job.options.ordered, job.options.max_attempts, mean_us);
        let attempt = attempt_of(&chunk);
        let now_ms = worker.ports.clock().now_ms();
        Self {
            heartbeat_at_ms: now_ms + worker.options.heartbeat_ms,
            commit_at_ms: now_ms + worker.options.segment_ms,
            pending: Pending::default(),
            checkpoints: Arc::default(),
            ask_at_ms: None,
            worker,
            chunk,
            attempt,
            job,
            pack,
            manifests,
            tasks,
        }
    }

    fn now_ms(&self) -> u64 {
        self.worker.ports.clock().now_ms()
    }

    fn is_past_deadline(&self, now_ms: u64) -> bool {
        self.chunk.spec.deadline_ms.is_some_and(|deadline_ms| now_ms >= deadline_ms)
    }

    async fn go(mut self) -> Worked {
        self.run_all(None::<Ready<Ran>>).await.unwrap_or(Worked::Fenced)
    }

    /// As [`Self::go`], with a task that runs already.
    pub(super) async fn go_on(mut self, task: u32, running: impl Future<Output = Ran>) -> Worked {
        self.tasks.take_out(task);
        self.run_all(Some(running)).await.unwrap_or(Worked::Fenced)
    }

    async fn run_all(&mut self, running: Option<impl Future<Output = Ran>>) -> Result<Worked, Lost> {
        let worker = self.worker;
        for (task, failure) in self.tasks.take_condemned() {
            self.close(task, Mark::Quarantined, &failure, 0);
        }
        let mut calls: FuturesUnordered<_> = running.into_iter().map(Either::Left).collect();
        loop {
            let drain_until_ms = worker.drain.until_ms();
            let now_ms = self.now_ms();
            let expired = self.is_past_deadline(now_ms);
            if drain_until_ms.is_some_and(|until_ms| now_ms >= until_ms) {
                drop(calls);
                return self.release(worker.drain.reason(), now_ms).await;
            }
            if let Some(until_ms) = drain_until_ms {
                let left_ms = until_ms - now_ms;
                let ask_at_ms = self.ask_at_ms.get_or_insert(until_ms - limits::CHECKPOINT_ASK_MS.min(left_ms / 2));
                if now_ms >= *ask_at_ms {
                    self.checkpoints.ask();
                }
            }
            if drain_until_ms.is_none() && !expired {
                while calls.len() < self.width(calls.len()) {
                    let Some(call) = self.next_call(now_ms).await? else { break };
                    let (tasks, task) = (call.tasks.clone(), self.checkpointed(&call));
                    calls.push(Either::Right(async move {
                        let report = match task {
                            // Boxed, so that calls of other functions stay small.
                            Some(task) => Box::pin(task.run(&*worker.runner, call)).await,
                            None => worker.runner.run(call).await,
                        };
                        (tasks, report)
                    }));
                }
            }
            if calls.is_empty() {
                if self.tasks.is_empty() {
                    return self.finish().await;
                }
                if expired {
                    return self.expire(now_ms).await;
                }
                if drain_until_ms.is_some() {
                    return self.release(worker.drain.reason(), now_ms).await;
                }
                let ready_at_ms = self.tasks.ready_at_ms().unwrap_or(now_ms);
                if ready_at_ms > now_ms + limits::BACKOFF_HELD_MS_MAX {
                    return self.release(ReleaseReason::BackOff, ready_at_ms).await;
                }
                worker.ports.clock().sleep_ms(ready_at_ms.saturating_sub(now_ms)).await;
            } else {
                let wake_at_ms = self.heartbeat_at_ms.min(self.commit_at_ms).min(now_ms + LOOK_MS);
                let timer = worker.ports.clock().sleep_ms(wake_at_ms.saturating_sub(now_ms));
                pin_mut!(timer);
                if let Either::Left((Some((tasks, report)), _)) = select(calls.next(), timer).await {
                    self.absorb(&tasks, report);
                }
            }
            self.keep_up(!calls.is_empty()).await?;
        }
    }

    /// How many calls may run at once: one where order or isolation asks for it, else as many as the tasks are worth.
    fn width(&self, running: usize) -> usize {
        if self.job.options.ordered || self.chunk.is_isolated() {
            1
        } else {
            (running + self.tasks.calls_waiting().max(1)).min(self.worker.runner.slots())
        }
    }

    /// The next call, marked if the chunk is isolated.
    async fn next_call(&mut self, now_ms: u64) -> Result<Option<Call>, Lost> {
        let isolated = self.chunk.is_isolated();
        loop {
            let (pack, manifests) = (&self.pack, &self.manifests);
            let manifest_of = |function: u16| manifests.get(usize::from(function)).and_then(Option::as_ref);
            let share_of = |function| match manifest_of(function) {
                Some(manifest) if manifest.batch => Share::All,
                Some(manifest) if manifest.checkpoint_every_ms.is_some() => Share::One,
                _ => Share::Some,
            };
            let Some(tasks) = self.tasks.take(now_ms, isolated, |task| pack.function(task), share_of) else {
                return Ok(None);
            };
            let index = pack.function(tasks[0]);
            let function = crate::submit::function_of(&self.job, index).clone();
            let Some(manifest) = manifest_of(index).cloned() else {
                self.refuse(&tasks, &function);
                continue;
            };
            if isolated && self.chunk.spec.tasks > 1 {
                // The next task may be the one that kills its worker: what the others have achieved is not lost with it.
                if self.has_room() {
                    self.commit(now_ms).await?;
                }
                let (attempt, rv, task) = (self.attempt.clone(), self.chunk.rv, tasks[0]);
                self.write(ChunkEvent::Mark { attempt, rv, task }).await?;
            }
            return Ok(Some(Call {
                tenant: self.chunk.spec.tenant.clone(),
                function,
                manifest,
                chunk: self.chunk.spec.key,
                epoch: self.attempt.epoch,
                pack: self.pack.clone(),
                budget: (tasks.len() > 1).then_some(CALL_BUDGET),
                tasks,
                deadline_ms: self.chunk.spec.deadline_ms,
                stop_on_failure: self.job.options.ordered,
                checkpoint: None,
            }));
        }
    }

    /// The task of a call whose function writes checkpoints.
    fn checkpointed(&self, call: &Call) -> Option<Task<'a, P>> {
        call.manifest.checkpoint_every_ms?;
        let task = *call.tasks.first()?;
        Some(Task {
            ports: &self.worker.ports,
            all: self.checkpoints.clone(),
            spec: self.chunk.spec.clone(),
            attempt: self.attempt.clone(),
            task,
            last: self.chunk.work.checkpoints.get(&task).cloned(),
        })
    }

    fn refuse(&mut self, tasks: &[u32], function: &FunctionRef) {
        let failure = Failure::new(FailureKind::UnknownFunction, format!("there is no function {function} any more"));
        for &task in tasks {
            self.close(task, Mark::Failed, &failure, 0);
        }
    }

    fn close(&mut self, task: u32, mark: Mark, failure: &Failure, run_us: u32) {
        let capped = self.pending.answers.failed(task, mark, failure, run_us);
        capped.expect("a failure is capped far below the size of a segment, which is committed before it is full");
    }

    /// Takes in what a call of these tasks came to.
    fn absorb(&mut self, tasks: &[u32], mut report: Report) {
        let answered = report.answers.tasks() as usize + report.failures.len();
        if !report.answers.is_empty() {
            self.tasks.observe(report.answers.run_us().0);
        }
        if answered < tasks.len() {
            let marks = report.answers.marks(self.chunk.spec.tasks);
            let is_open = |task: &u32| {
                marks.as_ref().is_none_or(|marks| marks.get(*task) == Mark::Open)
                    && !report.failures.iter().any(|failed| failed.task == *task)
            };
            let rest: Vec<u32> = tasks.iter().copied().filter(is_open).collect();
            match report.unanswered.take() {
                Some(failure) if rest.len() == 1 || failure.kind == FailureKind::NotStarted => {
                    let failed = |&task: &u32| Failed { task, failure: failure.clone(), run_us: 0 };
                    report.failures.extend(rest.iter().map(failed));
                }
                Some(_) => self.tasks.put_back_alone(rest.into_iter()),
                None => self.tasks.put_back(rest.into_iter()),
            }
        }
        let fits = "a report holds at most the results of one chunk, which the host bounds";
        self.pending.answers.append(&mut report.answers).expect(fits);
        self.pending.logs.append(&mut report.logs).expect(fits);
        let (now_ms, rng) = (self.now_ms(), self.worker.ports.rng());
        for failed in report.failures.into_iter().rev() {
            if failed.failure.kind == FailureKind::TimedOut && self.is_past_deadline(now_ms) {
                // Stopped for the deadline's sake: it expires with the rest.
                self.tasks.put_back(std::iter::once(failed.task));
                continue;
            }
            match self.tasks.judge(&failed, now_ms, |bound| rng.below(bound)) {
                Verdict::Closed(mark, failure) => self.close(failed.task, mark, &failure, failed.run_us),
                Verdict::Again => {
                    tracing::debug!(chunk = %self.chunk.spec.key, task = failed.task, kind = %failed.failure.kind, "a task is tried again")
                }
            }
        }
    }

    /// Commits what is due to be committed, unless the chunk is about to be finished with it; else renews the lease when that
    /// is due.
    async fn keep_up(&mut self, is_running: bool) -> Result<(), Lost> {
        let now_ms = self.now_ms();
        let full = self.pending.answers.bytes() >= limits::SEGMENT_BYTES_TARGET;
        let goes_on = is_running || !self.tasks.is_empty();
        if (now_ms >= self.commit_at_ms || full) && goes_on && self.has_room() {
            self.commit(now_ms).await?;
        } else if !self.checkpoints.is_empty() && goes_on {
            self.progress(now_ms, None).await?;
        }
        if now_ms >= self.commit_at_ms {
            self.commit_at_ms = now_ms + self.worker.options.segment_ms;
        }
        if now_ms >= self.heartbeat_at_ms {
            self.renew(now_ms, now_ms + self.worker.options.lease_ms).await?;
        }
        Ok(())
    }

    /// Whether another segment leaves room for the two that the chunk may need to end.
    fn has_room(&self) -> bool {
        self.chunk.work.segments.len() + 2 < limits::SEGMENTS_MAX
    }

    /// T5 for what is pending, if there is any.
    async fn commit(&mut self, now_ms: u64) -> Result<(), Lost> {
        let commit = self.store().await?;
        self.progress(now_ms, commit).await
    }

    /// T5 for these results and the checkpoints that are stored, if there are any.
    async fn progress(&mut self, now_ms: u64, commit: Option<sheaf_core::Commit>) -> Result<(), Lost> {
        let checkpoints = self.checkpoints.take(&self.chunk);
        if commit.is_none() && checkpoints.is_empty() {
            return Ok(());
        }
        let (attempt, rv, tallies) = (self.attempt.clone(), self.chunk.rv, self.tasks.take_changed());
        let until_ms = now_ms + self.worker.options.lease_ms;
        self.write(ChunkEvent::Segment { attempt, rv, commit, tallies, checkpoints, until_ms }).await?;
        self.heartbeat_at_ms = now_ms + self.worker.options.heartbeat_ms;
        Ok(())
    }

    /// T4. A store that does not answer is asked again a second later; a worker that cannot renew stops by its own clock.
    async fn renew(&mut self, now_ms: u64, until_ms: u64) -> Result<(), Lost> {
        let event = ChunkEvent::Heartbeat { attempt: self.attempt.clone(), until_ms };
        let write = Write { key: self.chunk.spec.key, event };
        match self.worker.ports.state().apply(vec![write]).await.pop().expect("one answer per write") {
            Ok(chunk) => {
                self.chunk = chunk;
                self.heartbeat_at_ms = now_ms + self.worker.options.heartbeat_ms;
                Ok(())
            }
            Err(WriteError::Refused { .. }) => Err(Lost),
            Err(WriteError::Store(_)) => {
                let lease_until_ms = self.chunk.lease().map_or(0, |lease| lease.until_ms);
                self.heartbeat_at_ms = now_ms + 1_000;
                if now_ms + 1_000 >= lease_until_ms { Err(Lost) } else { Ok(()) }
            }
        }
    }

    async fn store(&mut self) -> Result<Option<sheaf_core::Commit>, Lost> {
        self.pending.store(&self.worker.ports, &self.chunk.spec, &self.attempt).await.map_err(|error| {
            tracing::warn!(chunk = %self.chunk.spec.key, %error, "results could not be stored; the attempt is given up");
            Lost
        })
    }

    async fn write(&mut self, event: ChunkEvent) -> Result<(), Lost> {
        let transition = event.transition();
        match write(&self.worker.ports, self.chunk.spec.key, event).await {
            Ok(chunk) => {
                let before = std::mem::replace(&mut self.chunk, chunk);
                checkpoints::delete_unnamed(&self.worker.ports, &before, &self.chunk).await;
                Ok(())
            }
            Err(error) => {
                tracing::info!(chunk = %self.chunk.spec.key, transition, %error, "the attempt is over");
                Err(Lost)
            }
        }
    }

    async fn finish(&mut self) -> Result<Worked, Lost> {
        let commit = self.store().await?;
        let tasks = commit.as_ref().map_or(0, |commit| commit.segment.tasks);
        let (attempt, rv, now_ms) = (self.attempt.clone(), self.chunk.rv, self.now_ms());
        self.write(ChunkEvent::Finish { attempt, rv, commit, now_ms }).await?;
        Ok(Worked::Finished { tasks })
    }

    async fn release(&mut self, reason: ReleaseReason, not_before_ms: u64) -> Result<Worked, Lost> {
        let commit = self.store().await?;
        let (attempt, rv, now_ms) = (self.attempt.clone(), self.chunk.rv, self.now_ms());
        let (tallies, checkpoints) = (self.tasks.take_changed(), self.checkpoints.take(&self.chunk));
        let release = ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason };
        self.write(release).await?;
        Ok(Worked::Released)
    }

    /// The deadline passed while tasks were waiting: what is done is kept, the rest expires.
    async fn expire(&mut self, now_ms: u64) -> Result<Worked, Lost> {
        self.commit(now_ms).await?;
        self.write(ChunkEvent::End { reason: EndReason::Expired, now_ms }).await?;
        Ok(Worked::Over)
    }
}
