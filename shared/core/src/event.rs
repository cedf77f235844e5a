//! What happened, for people: one enum that feeds the journal, the CLI, reports and metrics.
//!
//! Events are derived from the writes themselves ([`Event::of_chunk`], [`Event::of_job`]), by whoever applies them, so that
//! the journal can neither miss a transition nor invent one.

use serde::{Deserialize, Serialize};

use crate::{
    CheckpointRef, Chunk, ChunkEvent, ChunkState, EndReason, Evidence, JobEvent, ReleaseReason, Seal, WorkerId,
    summary::ChunkTotals,
};

/// One thing that happened to a job or one of its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The job was created.
    JobCreated,
    /// The job was sealed.
    JobSealed {
        /// Its size.
        seal: Seal,
    },
    /// Cancelling began.
    JobCancelling,
    /// Every chunk of the cancelled job is final.
    JobCancelled,
    /// Every chunk is final.
    JobDone,
    /// T1.
    ChunkSubmitted {
        /// Which chunk.
        chunk: u32,
        /// Its tasks.
        tasks: u32,
    },
    /// T2 or T3.
    ChunkClaimed {
        /// Which chunk.
        chunk: u32,
        /// The attempt.
        epoch: u32,
        /// By whom.
        worker: WorkerId,
        /// Whether it was taken over from a worker that is gone.
        taken_over: bool,
        /// How many of its tasks go on from a checkpoint of an earlier attempt.
        #[serde(default, skip_serializing_if = "is_zero")]
        resumed: u32,
    },
    /// T5.
    SegmentCommitted {
        /// Which chunk.
        chunk: u32,
        /// The attempt.
        epoch: u32,
        /// Outcomes of the chunk so far.
        totals: ChunkTotals,
    },
    /// T5 or T7: a checkpoint of a task was committed with it.
    CheckpointStored {
        /// Which chunk.
        chunk: u32,
        /// Which task of it.
        task: u32,
        /// The attempt.
        epoch: u32,
        /// Its size.
        bytes: u32,
        /// The run time that it holds, in ms, with that of the attempts before.
        run_ms: u64,
    },
    /// T6.
    TaskIsolated {
        /// Which chunk.
        chunk: u32,
        /// Which task of it.
        task: u32,
    },
    /// T7.
    ChunkReleased {
        /// Which chunk.
        chunk: u32,
        /// The attempt.
        epoch: u32,
        /// Why.
        reason: ReleaseReason,
        /// The earliest next claim (Unix, ms).
        not_before_ms: u64,
    },
    /// T8.
    ChunkFinished {
        /// Which chunk.
        chunk: u32,
        /// The attempt.
        epoch: u32,
        /// By whom.
        worker: WorkerId,
        /// Since when that attempt held it (Unix, ms).
        since_ms: u64,
        /// Outcomes of the chunk.
        totals: ChunkTotals,
    },
    /// T9.
    ChunkEnded {
        /// Which chunk.
        chunk: u32,
        /// Why.
        reason: EndReason,
        /// Outcomes of the chunk.
        totals: ChunkTotals,
    },
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Event {
    /// The events that a chunk's write amounts to, given the chunk after it: its checkpoints, then the write itself, unless
    /// it is no news (heartbeats, sweep touches, a write of checkpoints alone). An attempt that was outrun by a second copy is
    /// released, and then the chunk is claimed.
    pub fn of_chunk<'a>(write: &'a ChunkEvent, after: &'a Chunk) -> impl Iterator<Item = Self> + 'a {
        let checkpoints = match write {
            ChunkEvent::Segment { checkpoints, .. } | ChunkEvent::Release { checkpoints, .. } => Some(checkpoints),
            ChunkEvent::Submit { .. }
            | ChunkEvent::Claim { .. }
            | ChunkEvent::TakeOver { .. }
            | ChunkEvent::Heartbeat { .. }
            | ChunkEvent::Mark { .. }
            | ChunkEvent::Finish { .. }
            | ChunkEvent::End { .. }
            | ChunkEvent::Touch { .. } => None,
        };
        let (chunk, epoch) = (after.spec.key.number, after.epoch);
        let stored = checkpoints.into_iter().flatten().map(move |(task, CheckpointRef { bytes, run_ms, .. })| {
            Self::CheckpointStored { chunk, task: *task, epoch, bytes: *bytes, run_ms: *run_ms }
        });
        let outrun = matches!(write, ChunkEvent::TakeOver { evidence: Evidence::Outrun, .. });
        let outrun = outrun.then(|| Self::outrun(chunk, epoch.saturating_sub(1)));
        stored.chain(outrun).chain(Self::of_write(write, after))
    }

    /// The attempt of that epoch was slower than a second copy.
    const fn outrun(chunk: u32, epoch: u32) -> Self {
        Self::ChunkReleased { chunk, epoch, reason: ReleaseReason::Outrun, not_before_ms: 0 }
    }

    fn of_write(write: &ChunkEvent, after: &Chunk) -> Option<Self> {
        let (chunk, epoch) = (after.spec.key.number, after.epoch);
        let resumed = after.work.checkpoints.len() as u32;
        Some(match write {
            ChunkEvent::Submit { .. } => Self::ChunkSubmitted { chunk, tasks: after.spec.tasks },
            ChunkEvent::Claim { owner, .. } => {
                Self::ChunkClaimed { chunk, epoch, worker: owner.worker.clone(), taken_over: false, resumed }
            }
            ChunkEvent::TakeOver { owner, evidence, .. } => {
                let taken_over = *evidence != Evidence::Outrun;
                Self::ChunkClaimed { chunk, epoch, worker: owner.worker.clone(), taken_over, resumed }
            }
            ChunkEvent::Heartbeat { .. } | ChunkEvent::Touch { .. } | ChunkEvent::Segment { commit: None, .. } => {
                return None;
            }
            ChunkEvent::Segment { .. } => Self::SegmentCommitted { chunk, epoch, totals: after.totals() },
            ChunkEvent::Mark { task, .. } => Self::TaskIsolated { chunk, task: *task },
            ChunkEvent::Release { reason, not_before_ms, .. } => {
                Self::ChunkReleased { chunk, epoch, reason: *reason, not_before_ms: *not_before_ms }
            }
            ChunkEvent::Finish { attempt, .. } => {
                let since_ms = match after.state {
                    ChunkState::Done { since_ms, .. } => since_ms,
                    ChunkState::Queued { .. } | ChunkState::Leased(_) | ChunkState::Ended { .. } => 0,
                };
                let worker = attempt.owner.worker.clone();
                Self::ChunkFinished { chunk, epoch, worker, since_ms, totals: after.totals() }
            }
            ChunkEvent::End { reason, .. } => Self::ChunkEnded { chunk, reason: *reason, totals: after.totals() },
        })
    }

    /// The event that a job's write amounts to.
    pub const fn of_job(write: &JobEvent) -> Self {
        match write {
            JobEvent::Seal { seal } => Self::JobSealed { seal: *seal },
            JobEvent::Cancel => Self::JobCancelling,
            JobEvent::CancelComplete { .. } => Self::JobCancelled,
            JobEvent::Complete { .. } => Self::JobDone,
        }
    }
}
