//! Cancelling a job.
//!
//! Two steps, so that it survives anything: first the wish is made durable on the job, from when on no chunk of it is
//! started; then every chunk goes through T9. The sweeper carries out wishes whose author died in between.

use sheaf_core::{ChunkEvent, EndReason, Job, JobEvent, JobId, JobState, limits};

use crate::{
    error::{JobWriteError, StoreError, WriteError},
    ports::{Clock, Ports, StateStore, Write},
    write::{retrying, write_all, write_job},
};

/// Makes the wish to cancel durable. A job that is over stays as it is. One conditional write.
pub async fn wish<P: Ports>(ports: &P, id: JobId) -> Result<(), StoreError> {
    match write_job(ports, id, JobEvent::Cancel).await {
        Ok(_) | Err(JobWriteError::Refused(_)) => Ok(()),
        Err(JobWriteError::Store(error)) => Err(error),
    }
}

/// Ends every chunk of a job that is being cancelled and, once its summary counts them all, the job: who reads that it is
/// over finds all of its outcomes, but for a chunk that was being submitted at that moment: whoever claims that one ends it as
/// cancelled. Costs a read and, per open chunk, one conditional write; may be stopped and repeated.
pub async fn carry_out<P: Ports>(ports: &P, id: JobId) -> Result<Option<Job>, StoreError> {
    let Some(job) = retrying(ports, || ports.state().job(id)).await? else { return Ok(None) };
    if !matches!(job.state, JobState::Cancelling { .. }) {
        return Ok(Some(job));
    }
    let chunks = end_chunks(ports, id).await?;
    let summary = retrying(ports, || ports.state().summary(id)).await?;
    if summary.chunks_ended < chunks {
        return Ok(Some(job));
    }
    let complete = JobEvent::CancelComplete { now_ms: ports.clock().now_ms() };
    match write_job(ports, id, complete).await {
        Ok(job) => Ok(Some(job)),
        Err(JobWriteError::Store(error)) => Err(error),
        Err(JobWriteError::Refused(_)) => retrying(ports, || ports.state().job(id)).await,
    }
}

/// T9 for every open chunk of a job; answers how many chunks it has.
async fn end_chunks<P: Ports>(ports: &P, id: JobId) -> Result<u64, StoreError> {
    let (mut from, mut count) = (0, 0);
    loop {
        let chunks = retrying(ports, || ports.state().chunks_from(id, from, limits::WRITES_PER_CALL_MAX)).await?;
        let Some(last) = chunks.last() else { return Ok(count) };
        from = last.spec.key.number.saturating_add(1);
        count += chunks.len() as u64;
        let now_ms = ports.clock().now_ms();
        let open = chunks.iter().filter(|chunk| !chunk.is_final());
        let writes = open.map(|chunk| Write {
            key: chunk.spec.key,
            event: ChunkEvent::End { reason: EndReason::Cancelled, now_ms },
        });
        for answer in write_all(ports, writes.collect()).await {
            if let Err(WriteError::Store(error)) = answer {
                return Err(error);
            }
        }
    }
}
