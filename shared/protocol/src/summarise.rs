//! The result step: from changed chunks to counts, and from counts to jobs that are done.
//!
//! It is fed with chunks as they are after each write that matters (T1, T8, T9), by a table's stream or by the embedded
//! store's journal of changes: at least once each, in no certain order. Everything it does may be repeated.

use std::collections::BTreeMap;

use sheaf_core::{Chunk, ChunkState, Job, JobEvent, JobId, JobState};

use crate::{
    cancel,
    error::{JobWriteError, StoreError},
    ports::{Clock, Ports, StateStore, SummaryEntry},
    write::{retrying, write_job},
};

/// Takes in changed chunks. Costs one summary write per job among them, and one read of that job.
pub async fn summarise<P: Ports>(ports: &P, changed: &[Chunk]) -> Result<(), StoreError> {
    let mut jobs: BTreeMap<JobId, Vec<&Chunk>> = BTreeMap::new();
    for chunk in changed {
        jobs.entry(chunk.job()).or_default().push(chunk);
    }
    for (id, chunks) in jobs {
        let entries: Vec<SummaryEntry> = chunks.iter().copied().map(SummaryEntry::of).collect();
        let summary = retrying(ports, || ports.state().summarise(id, &entries)).await?;
        let Some(job) = retrying(ports, || ports.state().job(id)).await? else { continue };
        if let [function] = job.options.functions.as_slice() {
            for (tasks, mean_us, max_us) in chunks.iter().filter_map(|chunk| run_times(chunk)) {
                ports.state().observe(function, tasks, mean_us, max_us).await;
            }
        }
        let failed = summary.totals.failed + summary.totals.quarantined;
        let failed_fast = job.options.fail_fast.is_some_and(|limit| failed >= limit);
        if failed_fast && matches!(job.state, JobState::Open | JobState::Sealed { .. }) {
            cancel::wish(ports, job.id).await?;
            cancel::carry_out(ports, job.id).await?;
        } else if matches!(job.state, JobState::Cancelling { .. }) {
            if summary.chunks_ended >= summary.chunks_submitted {
                cancel::carry_out(ports, job.id).await?;
            }
        } else if chunks.iter().any(|chunk| chunk.is_final()) {
            close_if_complete(ports, job).await?;
        }
    }
    Ok(())
}

/// Tasks with a result, their mean and their largest run time; of a chunk that was just finished.
fn run_times(chunk: &Chunk) -> Option<(u64, f64, f64)> {
    if !matches!(chunk.state, ChunkState::Done { .. }) {
        return None;
    }
    let tasks: u64 = chunk.work.segments.iter().map(|segment| u64::from(segment.tasks)).sum();
    let run_us: u64 = chunk.work.segments.iter().map(|segment| segment.run_us).sum();
    let max_us = chunk.work.segments.iter().map(|segment| segment.run_us_max).max()?;
    (tasks > 0).then(|| (tasks, run_us as f64 / tasks as f64, f64::from(max_us)))
}

/// Closes a sealed job whose chunks are all final; answers the job as it is then. It is called after each of the two things that
/// can complete a job, its seal and the end of a chunk: whichever comes last sees both. If its author dies before it looks, the
/// sweeper does.
pub(crate) async fn close_if_complete<P: Ports>(ports: &P, job: Job) -> Result<Job, StoreError> {
    let JobState::Sealed { seal } = job.state else { return Ok(job) };
    let event = JobEvent::Complete { now_ms: ports.clock().now_ms() };
    let summary = retrying(ports, || ports.state().summary(job.id)).await?;
    if summary.chunks_ended < u64::from(seal.chunks) {
        return Ok(job);
    }
    match write_job(ports, job.id, event).await {
        Ok(closed) => Ok(closed),
        Err(JobWriteError::Store(error)) => Err(error),
        // Somebody else has cancelled or closed it meanwhile; the job as read is as good as any.
        Err(JobWriteError::Refused(_)) => Ok(retrying(ports, || ports.state().job(job.id)).await?.unwrap_or(job)),
    }
}
