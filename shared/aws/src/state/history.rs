//! A job's history, told from what its items say of their past.
//!
//! Nothing is written for it: a job and its chunks remember when each state began. It therefore tells every submission, claim,
//! release and end, the last 16 attempts of a chunk, the last checkpoints of open tasks, and no heartbeats, commits of
//! segments and isolated tasks. Reading it costs a read of all chunks of the job.
//!
//! An event's number is its time and, for events of one millisecond, the order that they must have had, so that numbers stay
//! the same as the history grows: 42 bits of Unix time in ms, 6 bits of order, 16 bits of the chunk's number.

use sheaf_api::wire::EventView;
use sheaf_core::{Chunk, ChunkState, Event, JobId, JobState, PastAttempt, limits};
use sheaf_protocol::StoreError;

use super::{AwsState, jobs::Stored};

const CREATED: u64 = 0;
const SEALED: u64 = 1;
const SUBMITTED: u64 = 2;
/// The order of attempt 1's claim; its release comes next, then attempt 2's claim.
const CLAIMED: u64 = 3;
const CHUNK_OVER: u64 = 61;
const CANCELLING: u64 = 62;
const JOB_OVER: u64 = 63;

fn view(job: JobId, at_ms: u64, order: u64, chunk: u32, event: Event) -> EventView {
    let number = at_ms << 22 | order << 16 | u64::from(chunk as u16);
    EventView { number, at_ms, job, event }
}

const fn claimed(epoch: u32) -> u64 {
    CLAIMED + (epoch as u64 * 2) % (CHUNK_OVER - CLAIMED)
}

fn of_job(stored: &Stored) -> Vec<EventView> {
    let job = &stored.job;
    let mut told = vec![view(job.id, job.created_at_ms, CREATED, 0, Event::JobCreated)];
    if let (Some(at_ms), Some(seal)) = (stored.sealed_at_ms, job.state.seal()) {
        told.push(view(job.id, at_ms, SEALED, 0, Event::JobSealed { seal }));
    }
    if let Some(at_ms) = stored.cancelling_at_ms {
        told.push(view(job.id, at_ms, CANCELLING, 0, Event::JobCancelling));
    }
    match job.state {
        JobState::Open | JobState::Sealed { .. } | JobState::Cancelling { .. } => {}
        JobState::Cancelled { at_ms, .. } => told.push(view(job.id, at_ms, JOB_OVER, 0, Event::JobCancelled)),
        JobState::Done { at_ms, .. } => told.push(view(job.id, at_ms, JOB_OVER, 0, Event::JobDone)),
    }
    told
}

fn of_chunk(chunk: &Chunk) -> Vec<EventView> {
    let (job, number) = (chunk.job(), chunk.spec.key.number);
    let event = |at_ms, order, event| view(job, at_ms, order, number, event);
    let claim = |epoch: u32, worker: &sheaf_core::WorkerId, since_ms| {
        let before = chunk.work.past.iter().find(|past| past.epoch + 1 == epoch);
        let taken_over = before.is_some_and(|past| past.released.is_none());
        let earlier = chunk.work.checkpoints.values().filter(|of| epoch == chunk.epoch && of.epoch < epoch);
        let resumed = earlier.count() as u32;
        let told = Event::ChunkClaimed { chunk: number, epoch, worker: worker.clone(), taken_over, resumed };
        event(since_ms, claimed(epoch), told)
    };
    let submitted = Event::ChunkSubmitted { chunk: number, tasks: chunk.spec.tasks };
    let mut told = vec![event(chunk.spec.submitted_at_ms, SUBMITTED, submitted)];
    for (&task, of) in &chunk.work.checkpoints {
        let (epoch, bytes, run_ms) = (of.epoch, of.bytes, of.run_ms);
        let stored = Event::CheckpointStored { chunk: number, task, epoch, bytes, run_ms };
        told.push(event(of.at_ms, claimed(epoch), stored));
    }
    for PastAttempt { epoch, worker, since_ms, until_ms, released, checkpointed_at_ms: _ } in &chunk.work.past {
        told.push(claim(*epoch, worker, *since_ms));
        if let Some(reason) = *released {
            let not_before_ms = match chunk.state {
                ChunkState::Queued { not_before_ms } if *epoch == chunk.epoch => not_before_ms,
                _ => *until_ms,
            };
            let told_as = Event::ChunkReleased { chunk: number, epoch: *epoch, reason, not_before_ms };
            told.push(event(*until_ms, claimed(*epoch) + 1, told_as));
        }
    }
    match &chunk.state {
        ChunkState::Queued { .. } => {}
        ChunkState::Leased(lease) => told.push(claim(chunk.epoch, &lease.attempt.owner.worker, lease.since_ms)),
        ChunkState::Done { attempt, since_ms, at_ms } => {
            let (worker, since_ms) = (attempt.owner.worker.clone(), *since_ms);
            told.push(claim(chunk.epoch, &worker, since_ms));
            let (epoch, totals) = (chunk.epoch, chunk.totals());
            let finished = Event::ChunkFinished { chunk: number, epoch, worker, since_ms, totals };
            told.push(event(*at_ms, CHUNK_OVER, finished));
        }
        ChunkState::Ended { reason, at_ms } => {
            let ended = Event::ChunkEnded { chunk: number, reason: *reason, totals: chunk.totals() };
            told.push(event(*at_ms, CHUNK_OVER, ended));
        }
    }
    told
}

/// How many of these events, which are sorted, make a page. Events of one number, which chunks 65,536 apart may have in the
/// same millisecond, stay together, as the next page begins behind the last one's number.
fn page_len(told: &[EventView], limit: usize) -> usize {
    let Some(last) = told.get(limit.wrapping_sub(1)) else { return told.len().min(limit) };
    limit + told[limit..].iter().take_while(|event| event.number == last.number).count()
}

impl AwsState {
    pub(super) async fn history(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<EventView>, StoreError> {
        let Some(job) = self.stored_job(id).await? else { return Ok(Vec::new()) };
        let mut told = of_job(&job);
        let mut next = Some(0);
        while let Some(number) = next {
            let chunks = self.read_from(id, number, limits::PAGE_ROWS_MAX).await?;
            next = chunks.last().and_then(|last| last.spec.key.number.checked_add(1));
            told.extend(chunks.iter().flat_map(of_chunk));
            // However long the history, no more than the page and one read of chunks is held.
            told.retain(|event| event.number >= from);
            told.sort_by_key(|event| event.number);
            told.truncate(page_len(&told, limit));
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_number_are_on_one_page() {
        let submitted = |chunk| {
            let event = Event::ChunkSubmitted { chunk, tasks: 1 };
            view(JobId::from_bytes([1; 16]), 5, SUBMITTED, chunk, event)
        };
        let told = [0, 1, 1 + (1 << 16), 1 + (2 << 16), 2].map(submitted);
        let lens = [0, 1, 2, 3, 4, 5, 6].map(|limit| page_len(&told, limit));
        assert_eq!(lens, [0, 1, 4, 4, 4, 5, 5]);
    }
}
