//! Why a task is where it is, and what it printed.

use bytes::{BufMut, Bytes, BytesMut};
use sheaf_api::{
    ApiError, Code, Pack, Segment,
    wire::{CheckpointView, TaskView},
};
use sheaf_core::{
    Chunk, ChunkState, Failure, Outcome, PastAttempt, ReleaseReason, SegmentRef, TaskId, TenantId, limits,
};

use crate::{
    ports::{BlobStore, Clock, Ports, StateStore},
    submit::{function_of, job},
    write::retrying,
};

async fn chunk_of<P: Ports>(ports: &P, task: TaskId) -> Result<Chunk, ApiError> {
    let keys = [task.chunk];
    let chunk = retrying(ports, || ports.state().chunks(&keys)).await?.pop().flatten();
    let chunk = chunk.ok_or_else(|| ApiError::not_found(task))?;
    if task.index >= chunk.spec.tasks {
        let tasks = chunk.spec.tasks;
        return Err(ApiError::not_found(task).with_hint(format!("{} holds tasks 0 to {}", task.chunk, tasks - 1)));
    }
    Ok(chunk)
}

async fn blob<P: Ports>(ports: &P, key: String) -> Result<Option<Bytes>, ApiError> {
    let keys = [key];
    let get = || async { ports.blobs().get(&keys).await.pop().expect("one answer per key") };
    Ok(retrying(ports, get).await?)
}

/// Explains a task: one read of its job and chunk, its pack, and segments until the one that holds it.
pub async fn task<P: Ports>(ports: &P, tenant: &TenantId, id: TaskId) -> Result<TaskView, ApiError> {
    let job = job(ports, tenant, id.chunk.job).await?;
    let chunk = chunk_of(ports, id).await?;
    let pack = match blob(ports, chunk.spec.pack_key()).await? {
        Some(bytes) => Pack::parse(bytes)?,
        None => {
            let key = chunk.spec.pack_key();
            return Err(ApiError::new(Code::Internal, format!("{key} is named by its chunk and does not exist")));
        }
    };
    let function = function_of(&job, pack.function(id.index)).clone();
    let mut view = TaskView {
        id,
        key: Some(pack.key(id.index).to_owned()).filter(|key| !key.is_empty()),
        estimate: ports.state().estimate(&function).await,
        function,
        outcome: chunk.outcome(id.index),
        why: String::new(),
        chunk_state: state_word(&chunk).to_owned(),
        worker: None,
        submitted_at_ms: chunk.spec.submitted_at_ms,
        ended_at_ms: None,
        run_us: None,
        attempts: 0,
        strikes: 0,
        crashes: chunk.work.crashes,
        past: chunk.work.past.clone(),
        checkpoint: chunk.work.checkpoints.get(&id.index).map(|of| CheckpointView {
            epoch: of.epoch,
            bytes: of.bytes,
            at_ms: of.at_ms,
            run_ms: of.run_ms,
        }),
        lost_ms: lost_ms(&chunk),
        failure: None,
        result_bytes: None,
    };
    match &chunk.state {
        ChunkState::Leased(lease) => view.worker = Some(lease.attempt.owner.worker.clone()),
        ChunkState::Done { attempt, at_ms, .. } => {
            view.worker = Some(attempt.owner.worker.clone());
            view.ended_at_ms = Some(*at_ms);
        }
        ChunkState::Ended { at_ms, .. } => view.ended_at_ms = Some(*at_ms),
        ChunkState::Queued { .. } => {}
    }
    if let Some(tally) = chunk.work.tallies.get(&id.index) {
        (view.attempts, view.strikes) = (tally.attempts, tally.strikes);
    }
    if let Some((segment, _)) = find(ports, &chunk, id.index).await? {
        let entry = segment.find(id.index).ok_or_else(|| ApiError::not_found(id))?;
        view.run_us = Some(entry.run_us);
        if view.outcome == Some(Outcome::Succeeded) {
            view.result_bytes = Some(entry.answer.len() as u64);
        } else {
            let failure = entry.failure()?;
            view.attempts = failure.attempts;
            view.failure = Some(failure);
        }
    }
    view.why = why(&view, &chunk, ports.clock().now_ms());
    Ok(view)
}

/// Run time of earlier attempts that no checkpoint holds, of a chunk that has had any.
fn lost_ms(chunk: &Chunk) -> Option<u64> {
    let past = &chunk.work.past;
    let has_any = !chunk.work.checkpoints.is_empty() || past.iter().any(|past| past.checkpointed_at_ms.is_some());
    has_any.then(|| past.iter().map(PastAttempt::lost_ms).sum())
}

/// The segment that holds a task, if its outcome is committed.
async fn find<'a, P: Ports>(
    ports: &P,
    chunk: &'a Chunk,
    task: u32,
) -> Result<Option<(Segment, &'a SegmentRef)>, ApiError> {
    if chunk.work.marks.get(task).outcome().is_none() {
        return Ok(None);
    }
    for segment in &chunk.work.segments {
        if let Some(bytes) = blob(ports, segment.key(&chunk.spec)).await? {
            let parsed = Segment::parse(bytes)?;
            if parsed.find(task).is_some() {
                return Ok(Some((parsed, segment)));
            }
        }
    }
    Ok(None)
}

const fn state_word(chunk: &Chunk) -> &'static str {
    match chunk.state {
        ChunkState::Queued { .. } => "queued",
        ChunkState::Leased(_) => "running",
        ChunkState::Done { .. } => "done",
        ChunkState::Ended { reason: sheaf_core::EndReason::Cancelled, .. } => "cancelled",
        ChunkState::Ended { reason: sheaf_core::EndReason::Expired, .. } => "expired",
    }
}

fn why(view: &TaskView, chunk: &Chunk, now_ms: u64) -> String {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    match (&view.outcome, &view.failure, &chunk.state) {
        (Some(Outcome::Succeeded), _, _) => {
            let run = view.run_us.map(|us| format!(" in {:.3} ms", f64::from(us) / 1_000.0)).unwrap_or_default();
            format!("it succeeded{run}; its result has {} bytes", view.result_bytes.unwrap_or_default())
        }
        (Some(Outcome::Quarantined), Some(failure), _) => format!(
            "running it was fatal {} times, so it is not tried again; the last time: {}",
            limits::STRIKES_MAX,
            describe(failure)
        ),
        (Some(_), Some(failure), _) => {
            format!("it failed after {} attempt{}: {}", failure.attempts, plural(failure.attempts), describe(failure))
        }
        (Some(Outcome::Cancelled), _, _) => "its job was cancelled before it was committed".to_owned(),
        (Some(Outcome::Expired), _, _) => "its deadline passed before it was committed".to_owned(),
        (_, _, ChunkState::Queued { .. })
            if chunk.work.past.last().is_some_and(|past| past.released == Some(ReleaseReason::Unavailable)) =>
        {
            let function = &view.function;
            format!(
                "no worker could run {function} so far: its package or the store was out of reach, or, for a Rust handler, the program that links it does not run"
            )
        }
        (_, _, ChunkState::Queued { not_before_ms }) if *not_before_ms > now_ms => {
            let wait = seconds(not_before_ms - now_ms);
            format!("it waits {wait:.1} s before its next attempt, after {} failed", view.attempts)
        }
        (_, _, ChunkState::Queued { .. }) => {
            let wait = seconds(now_ms.saturating_sub(chunk.spec.submitted_at_ms));
            format!("it waits for a free worker, {wait:.1} s after it was submitted")
        }
        (_, _, ChunkState::Leased(lease)) => {
            let since = seconds(now_ms.saturating_sub(lease.since_ms));
            let left = lease.until_ms as i64 - now_ms as i64;
            if left < 0 {
                format!(
                    "its worker {} was last heard of too long ago; another one takes over soon",
                    lease.attempt.owner.worker
                )
            } else {
                let resumed = view.checkpoint.filter(|of| of.epoch < lease.attempt.epoch).map(|of| {
                    format!(", going on from the checkpoint of attempt {} after {:.1} s", of.epoch, seconds(of.run_ms))
                });
                let resumed = resumed.unwrap_or_default();
                format!("its chunk has been running on {} for {since:.1} s{resumed}", lease.attempt.owner.worker)
            }
        }
        (outcome, _, _) => format!("it is {}", outcome.map_or("open", Outcome::as_str)),
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn describe(failure: &Failure) -> String {
    let name = if failure.error_type.is_empty() { failure.kind.as_str() } else { &failure.error_type };
    let line = failure.message.lines().next().unwrap_or_default();
    format!("{}: {name}: {line}", failure.kind).replacen(&format!("{name}: {name}: "), &format!("{name}: "), 1)
}

/// What a task printed, in all attempts that were committed; and the stderr kept with its failure.
pub async fn logs<P: Ports>(ports: &P, tenant: &TenantId, id: TaskId) -> Result<Bytes, ApiError> {
    job(ports, tenant, id.chunk.job).await?;
    let chunk = chunk_of(ports, id).await?;
    let mut out = BytesMut::new();
    for segment in chunk.work.segments.iter().filter(|segment| segment.has_logs) {
        if let Some(bytes) = blob(ports, segment.logs_key(&chunk.spec)).await? {
            let logs = Segment::parse(bytes)?;
            if let Some(entry) = logs.find(id.index) {
                out.put_slice(entry.answer);
            }
        }
    }
    if out.is_empty()
        && let Some((segment, _)) = find(ports, &chunk, id.index).await?
        && let Some(entry) = segment.find(id.index)
        && entry.mark != sheaf_core::Mark::Succeeded
    {
        out.put_slice(entry.failure()?.stderr.as_bytes());
    }
    Ok(out.freeze())
}
