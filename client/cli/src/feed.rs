//! Submitting the tasks of an input as a job.

use std::time::Duration;

use sheaf_api::{
    Api, ApiError, Code, PackBuilder, WriteOutcome,
    wire::{ChunkAnswer, JobView, SubmitChunk},
};
use sheaf_core::{Estimate, JobId, Seal, limits};

use tokio::sync::mpsc;

use crate::{
    input::{Input, Task},
    problem::{Outcome, Problem},
    text,
};

/// Tasks that are read ahead of being packed.
const TASKS_AHEAD: usize = 4_096;
/// Packs sent in one call, at most.
const CALL_BYTES_TARGET: usize = 8 << 20;
/// Times that a refused chunk is sent again. Source: with the pauses below, about two minutes.
const REPEATS_MAX: u32 = 60;
const PAUSE_MS: u64 = 200;
const PAUSE_MS_MAX: u64 = 2_000;
/// Chunks that the tasks so far would make for each slot: how evenly work is spread while nothing is known of it.
const CHUNKS_PER_SLOT: u64 = 8;
/// A chunk of less work than this costs more than it spreads.
const CHUNK_WORK_US_MIN: f64 = 5_000.0;

/// A job id of now.
pub(crate) fn job_id() -> JobId {
    JobId::from_uuid(uuid::Uuid::now_v7())
}

/// Submits all tasks of an input to a new job, and seals it. `chunk_tasks` fixes how many travel together. The input is read in
/// a thread of its own, and what has come is sent also while more is waited for.
pub(crate) async fn feed(api: &impl Api, view: &JobView, input: Input, chunk_tasks: Option<u32>) -> Outcome<JobView> {
    let job = view.job.id;
    let (sender, mut tasks) = mpsc::channel(TASKS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(input, &sender));
    let mut feeder = Feeder {
        api,
        job,
        seal: Seal { chunks: 0, tasks: 0 },
        builder: PackBuilder::new(),
        closed: Vec::new(),
        closed_bytes: 0,
        estimate: view.estimate,
        slots: u64::from(view.slots.max(1)),
        tasks_max: view.job.options.chunk_tasks_max(),
        chunk_tasks,
        ordered: view.job.options.ordered,
    };
    let mut fed = feeder.run(&mut tasks).await;
    drop(tasks);
    // A read from a terminal or pipe cannot be interrupted; it is waited for only where it has ended.
    if let Ok(true) = fed
        && let Err(problem) = reading.await.unwrap_or(Ok(()))
    {
        fed = Err(problem);
    }
    match fed {
        Ok(true) => {
            let sealed = api.seal(job, feeder.seal).await?;
            lateness(&sealed).into_iter().for_each(|late| eprintln!("{late}"));
            Ok(sealed)
        }
        Ok(false) => Ok(api.progress(job, None, 0).await?),
        Err(problem) => {
            // What was accepted would run on without the rest; half a job is of no use to anybody.
            let cancelled = api.cancel(job).await.is_ok();
            let became = if cancelled { "was cancelled" } else { "could not be cancelled either" };
            Err(Problem::new(Code::Invalid, format!("the tasks could not all be submitted, so {job} {became}"))
                .with_code("submission")
                .with_source(problem))
        }
    }
}

/// What there is to say of a deadline that cannot be kept.
fn lateness(view: &JobView) -> Option<String> {
    let (deadline_ms, end_ms) = view.lateness(text::now_ms())?;
    let tasks = view.summary.tasks_submitted.saturating_sub(view.summary.totals.ended());
    Some(format!(
        "the deadline {} cannot be kept: {} of about {} end at {} at the earliest, on {}; what has not started by the deadline \
         expires",
        text::time(deadline_ms),
        text::counted(tasks, "task"),
        text::duration_us(view.estimate.mean_us as u64),
        text::time(end_ms),
        text::counted(view.slots.into(), "slot"),
    ))
}

/// Reads an input to its end, or until nobody wants more of it.
fn read(mut input: Input, to: &mpsc::Sender<Task>) -> Outcome<()> {
    while let Some(task) = input.next_task()? {
        if to.blocking_send(task).is_err() {
            break;
        }
    }
    Ok(())
}

struct Feeder<'a, A> {
    api: &'a A,
    job: JobId,
    seal: Seal,
    builder: PackBuilder,
    closed: Vec<SubmitChunk>,
    closed_bytes: usize,
    estimate: Estimate,
    slots: u64,
    tasks_max: u32,
    chunk_tasks: Option<u32>,
    ordered: bool,
}

impl<A: Api> Feeder<'_, A> {
    /// Whether all was taken; not if the job was cancelled meanwhile.
    async fn run(&mut self, tasks: &mut mpsc::Receiver<Task>) -> Outcome<bool> {
        let mut wanted = self.wanted();
        while let Some(task) = self.next(tasks).await? {
            self.builder.push_task(&task.payload, 0, &task.key)?;
            self.seal.tasks += 1;
            let full =
                self.builder.tasks() >= wanted || (!self.ordered && self.builder.bytes() >= limits::PACK_BYTES_TARGET);
            if full {
                self.close();
                if !self.send_if_due().await? {
                    return Ok(false);
                }
                wanted = self.wanted();
            }
        }
        if !self.builder.is_empty() {
            self.close();
        }
        self.send().await
    }

    /// The next task. What has come before it is sent if it takes long to come.
    async fn next(&mut self, tasks: &mut mpsc::Receiver<Task>) -> Outcome<Option<Task>> {
        if let Ok(task) = tasks.try_recv() {
            return Ok(Some(task));
        }
        let waits = (!self.builder.is_empty() || !self.closed.is_empty()) && !self.ordered;
        if waits {
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(limits::LINGER_MS_DEFAULT), tasks.recv()).await
            {
                return Ok(next);
            }
            if !self.builder.is_empty() {
                self.close();
            }
            if !self.send().await? {
                return Ok(None);
            }
        }
        Ok(tasks.recv().await)
    }

    /// Tasks for the next chunk: a share of those so far while nothing is known of the function, ten seconds of work once it
    /// is, all of them in a job that is ordered.
    fn wanted(&self) -> u32 {
        if self.ordered {
            return u32::MAX;
        }
        if let Some(fixed) = self.chunk_tasks {
            return fixed.clamp(1, self.tasks_max);
        }
        let share = self.seal.tasks / (CHUNKS_PER_SLOT * self.slots);
        let known = self.estimate.tasks > 0 && self.estimate.mean_us.is_finite();
        let tasks = if known {
            let mean_us = self.estimate.mean_us.max(1.0);
            let most = limits::CHUNK_WORK_MS_TARGET as f64 * 1_000.0 / mean_us;
            (share as f64).max(CHUNK_WORK_US_MIN / mean_us).min(most) as u64
        } else {
            share
        };
        tasks.clamp(1, self.tasks_max.into()) as u32
    }

    fn close(&mut self) {
        let tasks = u64::from(self.builder.tasks());
        let pack = self.builder.finish(true);
        self.closed_bytes += pack.bytes().len();
        self.closed.push(SubmitChunk { number: self.seal.chunks, task_first: self.seal.tasks - tasks, pack });
        self.seal.chunks += 1;
    }

    async fn send_if_due(&mut self) -> Outcome<bool> {
        let due = self.closed.len() >= limits::WRITES_PER_CALL_MAX || self.closed_bytes >= CALL_BYTES_TARGET;
        if due { self.send().await } else { Ok(true) }
    }

    /// Sends what is closed until all of it is durable.
    async fn send(&mut self) -> Outcome<bool> {
        let mut chunks = std::mem::take(&mut self.closed);
        self.closed_bytes = 0;
        let mut repeats = 0;
        while !chunks.is_empty() {
            let reply = self.api.submit(self.job, chunks.clone()).await?;
            self.estimate = reply.estimate;
            let mut answers = reply.answers.into_iter();
            let mut refused = None;
            chunks.retain(|_| match answers.next() {
                Some(ChunkAnswer::Accepted | ChunkAnswer::Exists) => false,
                Some(ChunkAnswer::Refused { error }) => {
                    refused = Some(error);
                    true
                }
                None => {
                    refused = Some(ApiError::new(Code::Unknown, "the grid did not answer on every chunk"));
                    true
                }
            });
            let Some(error) = refused else { continue };
            if error.code == Code::Over {
                return Ok(false);
            }
            repeats += 1;
            if error.outcome() == WriteOutcome::Final || repeats > REPEATS_MAX {
                return Err(error.into());
            }
            let pause_ms = error.retry_after_ms.unwrap_or(PAUSE_MS).min(PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        Ok(true)
    }
}
