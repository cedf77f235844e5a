//! The chunk and its ten transitions.
//!
//! A [`Chunk`] is moved only by [`Chunk::apply`], a pure total function of the chunk as it is and a [`ChunkEvent`]. Every
//! backend makes each event one conditional write: the embedded store calls `apply` under its writer, DynamoDB states the
//! same condition as an expression. A refusal is a value: under at-least-once delivery they happen every minute.
//!
//! ```text
//!            T2 claim            T5 T6 T4 (its owner)
//!  T1 submit ┌──────────▶ Leased ◀──┐ T3 take over (another owner)
//!  ──▶ Queued             │  │  └───┘
//!        │  ◀── T7 release ┘  └────▶ T8 finish ──▶ Done
//!        └────────── T9 cancel, expire (from both) ──▶ Ended          T10 touch: the due time only
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ChunkKey, ChunkTotals, Digest, JobId, Lane, Mark, Marks, Outcome, Priority, TenantId, WorkerId, limits};

/// What is fixed about a chunk when it is submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSpec {
    /// Which chunk.
    pub key: ChunkKey,
    /// The job's tenant.
    pub tenant: TenantId,
    /// How many tasks: 1 to [`limits::CHUNK_TASKS_MAX`], in an ordered job to [`limits::ORDERED_TASKS_MAX`].
    pub tasks: u32,
    /// Position of the first task in the job, as the submitter counts.
    pub task_first: u64,
    /// Digest of the pack.
    pub digest: Digest,
    /// Size of the pack.
    pub pack_bytes: u32,
    /// Where it may run.
    pub lane: Lane,
    /// How urgent it is.
    pub priority: Priority,
    /// No task starts after this time (Unix, ms).
    pub deadline_ms: Option<u64>,
    /// When it was submitted (Unix, ms).
    pub submitted_at_ms: u64,
}

impl ChunkSpec {
    /// The key of its payload blob.
    pub fn pack_key(&self) -> String {
        format!("p/{}/{}/{}", self.tenant, self.key.job, self.key.number)
    }

    /// Whether another submission under the same key asks for the same: the same pack at the same place of the job. Then
    /// the chunk exists; otherwise it is a conflict.
    pub fn is_resubmitted_by(&self, other: &Self) -> bool {
        self.digest == other.digest && self.task_first == other.task_first
    }
}

/// Who holds a lease: a worker, and a random nonce drawn for this one claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The worker.
    pub worker: WorkerId,
    /// Unique to the claim.
    pub nonce: u64,
}

/// One lease of a chunk; the fence that every write of its owner carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Grows by one with each claim.
    pub epoch: u32,
    /// Who.
    pub owner: Owner,
}

/// A held lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub attempt: Attempt,
    /// Since when (Unix, ms).
    pub since_ms: u64,
    /// Until when, unless renewed (Unix, ms).
    pub until_ms: u64,
    /// In isolation: the task that runs now, so that a death of the worker convicts nobody else.
    pub marker: Option<u32>,
}

/// Where a chunk stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkState {
    /// Waits for a worker; not before the given time (Unix, ms; 0 for at once).
    Queued {
        /// The earliest claim.
        not_before_ms: u64,
    },
    /// A worker holds it.
    Leased(Lease),
    /// Every task has its outcome. Final.
    Done {
        /// Who finished it.
        attempt: Attempt,
        /// Since when that attempt held it (Unix, ms).
        since_ms: u64,
        /// When (Unix, ms).
        at_ms: u64,
    },
    /// Cancelled or expired: committed outcomes stand, open tasks have become what the reason says. Final.
    Ended {
        /// Why.
        reason: EndReason,
        /// When (Unix, ms).
        at_ms: u64,
    },
}

/// Why a chunk ended before its tasks did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its job was cancelled.
    Cancelled,
    /// Its deadline passed.
    Expired,
}

impl EndReason {
    /// The outcome of the tasks that were open.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Cancelled => Outcome::Cancelled,
            Self::Expired => Outcome::Expired,
        }
    }
}

/// A committed part of a chunk's results: a blob that was durable before the chunk named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// The attempt that wrote it.
    pub epoch: u32,
    /// That attempt's nonce.
    pub nonce: u64,
    /// Counts the segments of that attempt, from 0.
    pub number: u32,
    /// Digest of the segment's bytes.
    pub digest: Digest,
    /// Size of the segment.
    pub bytes: u32,
    /// Tasks in it.
    pub tasks: u32,
    /// Run time of those tasks together, in µs.
    pub run_us: u64,
    /// The longest of their run times, in µs.
    pub run_us_max: u32,
    /// Whether the tasks of the segment printed anything, so that there is a blob of logs beside it.
    pub has_logs: bool,
}

impl SegmentRef {
    /// The key of its blob. It names the attempt, so that a zombie can never overwrite anything.
    pub fn key(&self, spec: &ChunkSpec) -> String {
        self.key_under("r", spec)
    }

    /// The key of the logs beside it.
    pub fn logs_key(&self, spec: &ChunkSpec) -> String {
        self.key_under("l", spec)
    }

    fn key_under(&self, prefix: &str, spec: &ChunkSpec) -> String {
        let ChunkKey { job, number } = spec.key;
        format!("{prefix}/{}/{job}/{number}/{}-{:016x}-{}", spec.tenant, self.epoch, self.nonce, self.number)
    }
}

/// A committed checkpoint of an open task: a blob that was durable before the chunk named it, from which the task's next
/// attempt goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// The attempt that wrote it.
    pub epoch: u32,
    /// That attempt's nonce.
    pub nonce: u64,
    /// Counts the checkpoints of that attempt, from 0.
    pub number: u32,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its size, at most [`limits::CHECKPOINT_BYTES_MAX`].
    pub bytes: u32,
    /// When it was stored (the worker's clock, Unix, ms).
    pub at_ms: u64,
    /// The run time that it holds, in ms: of the attempt that wrote it, and of those whose checkpoints that one went on from.
    pub run_ms: u64,
}

impl CheckpointRef {
    /// The key of its blob. It names the attempt, so that a zombie can never overwrite anything, and is no prefix of
    /// another's, so that it can be deleted alone.
    pub fn key(&self, spec: &ChunkSpec, task: u32) -> String {
        format!("{}{}-{:016x}-{:08x}", Self::keys_of(spec, task), self.epoch, self.nonce, self.number)
    }

    /// What the keys of all checkpoints of a task begin with.
    pub fn keys_of(spec: &ChunkSpec, task: u32) -> String {
        let ChunkKey { job, number } = spec.key;
        format!("k/{}/{job}/{number}/{task}/", spec.tenant)
    }
}

/// How often a task that is still open was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Attempts that ended in a user error.
    pub attempts: u32,
    /// Deaths under it.
    pub strikes: u8,
}

/// An attempt that is over without having finished the chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastAttempt {
    /// Its epoch.
    pub epoch: u32,
    /// The worker.
    pub worker: WorkerId,
    /// When it claimed (Unix, ms).
    pub since_ms: u64,
    /// When it was over (Unix, ms); for a lost worker, when another took over.
    pub until_ms: u64,
    /// How it ended: for a reason that is charged to nobody; or not (`None`), because its worker was lost or the chunk was
    /// ended under it (then [`ChunkState::Ended`] has the same time).
    pub released: Option<ReleaseReason>,
    /// When it stored the last checkpoint of a task that it left open (Unix, ms); `None` if it stored none.
    #[serde(default)]
    pub checkpointed_at_ms: Option<u64>,
}

impl PastAttempt {
    /// How long it ran since its last checkpoint, or at all if there is none, in ms: what of its time is lost to the tasks
    /// that it left open.
    pub fn lost_ms(&self) -> u64 {
        self.until_ms.saturating_sub(self.checkpointed_at_ms.unwrap_or(self.since_ms))
    }
}

/// Why an attempt ended before its chunk did. None of them counts as a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// A task failed and waits for its next attempt.
    BackOff,
    /// The worker was told to stop.
    Drain,
    /// The machine is about to be taken away by its provider.
    Reclaimed,
    /// The worker cannot run it now: a store or a package could not be reached.
    Unavailable,
    /// It did not: a second copy of its last open task ended first, and took the chunk over with the outcome at hand.
    Outrun,
}

/// What has been achieved and suffered so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The outcomes committed.
    pub marks: Marks,
    /// Where their results lie.
    pub segments: Vec<SegmentRef>,
    /// Workers that died holding the chunk.
    pub crashes: u8,
    /// Tallies of tasks that have one.
    pub tallies: BTreeMap<u32, Tally>,
    /// Attempts that are over, oldest first, at most [`limits::PAST_ATTEMPTS_MAX`].
    pub past: Vec<PastAttempt>,
    /// The last checkpoints of open tasks, at most [`limits::CHECKPOINTS_MAX`].
    pub checkpoints: BTreeMap<u32, CheckpointRef>,
}

/// [`Work`] as stores wrote it in their first version, before there were checkpoints.
#[derive(Debug, Deserialize)]
pub struct WorkV1 {
    marks: Marks,
    segments: Vec<SegmentRef>,
    crashes: u8,
    tallies: BTreeMap<u32, Tally>,
    past: Vec<PastAttemptV1>,
}

#[derive(Debug, Deserialize)]
struct PastAttemptV1 {
    epoch: u32,
    worker: WorkerId,
    since_ms: u64,
    until_ms: u64,
    released: Option<ReleaseReason>,
}

impl From<WorkV1> for Work {
    fn from(WorkV1 { marks, segments, crashes, tallies, past }: WorkV1) -> Self {
        let past = past.into_iter().map(|PastAttemptV1 { epoch, worker, since_ms, until_ms, released }| PastAttempt {
            epoch,
            worker,
            since_ms,
            until_ms,
            released,
            checkpointed_at_ms: None,
        });
        Self { marks, segments, crashes, tallies, past: past.collect(), checkpoints: BTreeMap::new() }
    }
}

/// A chunk: consecutive tasks of a job that travel, are leased and are committed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// What was submitted.
    pub spec: ChunkSpec,
    /// Where it stands.
    pub state: ChunkState,
    /// What was done.
    pub work: Work,
    /// The epoch of the last claim; 0 before the first.
    pub epoch: u32,
    /// Grows by one with each write but heartbeats and sweep touches.
    pub rv: u64,
    /// When the sweeper should look at it (Unix, ms); kept when the chunk is final, and then without meaning.
    pub due_ms: u64,
}

/// When a chunk is next due for the sweeper (Unix, ms): the order of the index of open chunks.
pub type Due = u64;

/// Why a worker may take over a held chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// Its lease and the clock margin are over.
    LeaseOver,
    /// The owner's process is known to be gone: it held the exclusive lock of the store that this process holds now.
    OwnerGone,
    /// The taker has run a second copy of the only open task to its end, and commits next. The owner lives, and is charged
    /// with nothing: the fence tells it to stop.
    Outrun,
}

/// Results to be committed with a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The outcomes that the segment adds; open for all other tasks.
    pub marks: Marks,
    /// The segment, whose bytes are durable already.
    pub segment: SegmentRef,
}

/// The writes. Each names what its author has seen, and carries the time and randomness it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkEvent {
    /// T1. The chunk is accepted.
    Submit {
        /// The chunk.
        spec: Box<ChunkSpec>,
    },
    /// T2. A worker takes a queued chunk.
    Claim {
        /// Who.
        owner: Owner,
        /// The worker's clock (Unix, ms).
        now_ms: u64,
        /// Until when, unless renewed (Unix, ms).
        until_ms: u64,
    },
    /// T3. A worker takes a chunk whose owner is gone, or slower than its own second copy.
    TakeOver {
        /// Who.
        owner: Owner,
        /// The attempt that it follows, as seen.
        seen: Attempt,
        /// The end of its lease, as seen.
        seen_until_ms: u64,
        /// How it is known.
        evidence: Evidence,
        /// The worker's clock (Unix, ms).
        now_ms: u64,
        /// Until when, unless renewed (Unix, ms).
        until_ms: u64,
    },
    /// T4. The owner renews its lease. Repeating it is harmless.
    Heartbeat {
        /// The owner.
        attempt: Attempt,
        /// Until when (Unix, ms).
        until_ms: u64,
    },
    /// T5. The owner commits results, checkpoints or both, and goes on.
    Segment {
        /// The owner.
        attempt: Attempt,
        /// `rv` before this write.
        rv: u64,
        /// Results, if there are any.
        commit: Option<Commit>,
        /// New tallies of open tasks.
        tallies: Vec<(u32, Tally)>,
        /// New checkpoints of open tasks, durable already; each replaces the task's last.
        checkpoints: BTreeMap<u32, CheckpointRef>,
        /// The lease, renewed (Unix, ms).
        until_ms: u64,
    },
    /// T6. In isolation, the owner says which task it is about to run.
    Mark {
        /// The owner.
        attempt: Attempt,
        /// `rv` before this write.
        rv: u64,
        /// The task.
        task: u32,
    },
    /// T7. The owner gives the chunk back.
    Release {
        /// The owner.
        attempt: Attempt,
        /// `rv` before this write.
        rv: u64,
        /// Results so far.
        commit: Option<Commit>,
        /// New tallies of open tasks.
        tallies: Vec<(u32, Tally)>,
        /// New checkpoints of open tasks, durable already; each replaces the task's last.
        checkpoints: BTreeMap<u32, CheckpointRef>,
        /// The owner's clock (Unix, ms).
        now_ms: u64,
        /// The earliest next claim (Unix, ms).
        not_before_ms: u64,
        /// Why.
        reason: ReleaseReason,
    },
    /// T8. The owner commits the last results; every task is closed.
    Finish {
        /// The owner.
        attempt: Attempt,
        /// `rv` before this write.
        rv: u64,
        /// The last results, unless all were committed before.
        commit: Option<Commit>,
        /// The owner's clock (Unix, ms).
        now_ms: u64,
    },
    /// T9. The job is cancelled, or the deadline is over.
    End {
        /// Which of them.
        reason: EndReason,
        /// The author's clock (Unix, ms).
        now_ms: u64,
    },
    /// T10. The sweeper has looked and will look again later.
    Touch {
        /// The due time as seen.
        seen_due_ms: Due,
        /// The next.
        due_ms: Due,
    },
}

/// Why a write was not applied. It never will be: the author goes by the chunk as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// T1 for a chunk that exists as the same one: submitting it again changes nothing.
    #[error("it exists already")]
    Exists,
    /// T1 for a chunk that exists with another pack, or at another place of the job.
    #[error("another chunk has this number")]
    Conflict,
    /// There is no such chunk.
    #[error("no such chunk")]
    Absent,
    /// It is done, cancelled or expired.
    #[error("it is final")]
    Final,
    /// Another attempt holds it.
    #[error("another attempt holds it")]
    Held,
    /// Nobody holds it.
    #[error("nobody holds it")]
    NotHeld,
    /// The author's attempt is not the one that holds it: it was fenced off.
    #[error("this attempt no longer holds it")]
    Fenced,
    /// It has moved on since the author looked.
    #[error("it has changed since it was read")]
    Stale,
    /// It may not be claimed yet.
    #[error("it may not be claimed yet")]
    TooEarly,
    /// Its deadline is over.
    #[error("its deadline is over")]
    PastDeadline,
    /// Its deadline is not over, or it has none.
    #[error("its deadline is not over")]
    NotExpired,
    /// The event would change a committed outcome, or names tasks that there are not.
    #[error("it would change an outcome")]
    OutcomeChange,
    /// T8 while tasks are open; T3 of a second copy unless exactly one is.
    #[error("tasks are still open")]
    TasksOpen,
    /// T5 while it holds as many segments as it may; T7 and T8 may still add one, so that it can end.
    #[error("it has too many segments")]
    TooManySegments,
    /// T5 or T7 with checkpoints of more tasks than a chunk may have.
    #[error("it has too many checkpoints")]
    TooManyCheckpoints,
}

impl Chunk {
    /// The chunk that T1 creates.
    fn submitted(spec: ChunkSpec) -> Self {
        let due_ms = due(&spec, spec.submitted_at_ms.saturating_add(limits::HINT_AGE_MS));
        Self {
            state: ChunkState::Queued { not_before_ms: 0 },
            work: Work {
                marks: Marks::open(spec.tasks),
                segments: Vec::new(),
                crashes: 0,
                tallies: BTreeMap::new(),
                past: Vec::new(),
                checkpoints: BTreeMap::new(),
            },
            epoch: 0,
            rv: 1,
            due_ms,
            spec,
        }
    }

    /// The chunk after an event, or why the event does not apply. `current` is `None` for a chunk that does not exist.
    pub fn apply(current: Option<&Self>, event: &ChunkEvent) -> Result<Self, Refused> {
        match (current, event) {
            (None, ChunkEvent::Submit { spec }) => Ok(Self::submitted(spec.as_ref().clone())),
            (Some(chunk), ChunkEvent::Submit { spec }) => Err(chunk.submitted_again(spec)),
            (None, _) => Err(Refused::Absent),
            (Some(chunk), event) => match &chunk.state {
                ChunkState::Queued { not_before_ms } => chunk.apply_queued(*not_before_ms, event),
                ChunkState::Leased(lease) => chunk.apply_leased(lease, event),
                ChunkState::Done { .. } | ChunkState::Ended { .. } => Err(Refused::Final),
            },
        }
    }

    fn submitted_again(&self, spec: &ChunkSpec) -> Refused {
        if self.spec.is_resubmitted_by(spec) { Refused::Exists } else { Refused::Conflict }
    }

    fn apply_queued(&self, not_before_ms: u64, event: &ChunkEvent) -> Result<Self, Refused> {
        match event {
            ChunkEvent::Claim { owner, now_ms, until_ms } => {
                if *now_ms < not_before_ms {
                    return Err(Refused::TooEarly);
                }
                self.claimed(owner, *now_ms, *until_ms)
            }
            ChunkEvent::End { reason, now_ms } => self.ended(*reason, *now_ms),
            ChunkEvent::Touch { seen_due_ms, due_ms } => self.touched(*seen_due_ms, *due_ms),
            ChunkEvent::Submit { spec } => Err(self.submitted_again(spec)),
            ChunkEvent::TakeOver { .. }
            | ChunkEvent::Heartbeat { .. }
            | ChunkEvent::Segment { .. }
            | ChunkEvent::Mark { .. }
            | ChunkEvent::Release { .. }
            | ChunkEvent::Finish { .. } => Err(Refused::NotHeld),
        }
    }

    fn apply_leased(&self, lease: &Lease, event: &ChunkEvent) -> Result<Self, Refused> {
        match event {
            ChunkEvent::Submit { spec } => Err(self.submitted_again(spec)),
            ChunkEvent::Claim { .. } => Err(Refused::Held),
            ChunkEvent::TakeOver { owner, seen, seen_until_ms, evidence, now_ms, until_ms } => {
                if lease.attempt != *seen || lease.until_ms != *seen_until_ms {
                    return Err(Refused::Stale);
                }
                let mut after = self.clone();
                match evidence {
                    Evidence::LeaseOver if *now_ms <= lease.until_ms.saturating_add(limits::CLOCK_MARGIN_MS) => {
                        return Err(Refused::Held);
                    }
                    Evidence::Outrun if self.only_open().is_none() => return Err(Refused::TasksOpen),
                    Evidence::LeaseOver | Evidence::OwnerGone => {
                        after.strike(lease);
                        after.remember(lease, *now_ms, None);
                    }
                    Evidence::Outrun => after.remember(lease, *now_ms, Some(ReleaseReason::Outrun)),
                }
                after.claimed(owner, *now_ms, *until_ms)
            }
            ChunkEvent::Heartbeat { attempt, until_ms } => {
                if lease.attempt != *attempt {
                    return Err(Refused::Fenced);
                }
                let mut after = self.clone();
                after.state = ChunkState::Leased(Lease { until_ms: lease.until_ms.max(*until_ms), ..lease.clone() });
                Ok(after)
            }
            ChunkEvent::Segment { attempt, rv, commit, tallies, checkpoints, until_ms } => {
                let mut after = self.owned(lease, attempt, *rv)?;
                if commit.is_some() && self.work.segments.len() >= limits::SEGMENTS_MAX {
                    return Err(Refused::TooManySegments);
                }
                after.commit(lease, commit.as_ref(), tallies, checkpoints)?;
                let until_ms = lease.until_ms.max(*until_ms);
                // The marked task may still run while others' results are committed.
                let marker = lease.marker.filter(|&task| after.work.marks.get(task) == Mark::Open);
                after.state = ChunkState::Leased(Lease { until_ms, marker, ..lease.clone() });
                Ok(after)
            }
            ChunkEvent::Mark { attempt, rv, task } => {
                let mut after = self.owned(lease, attempt, *rv)?;
                if *task >= self.spec.tasks || self.work.marks.get(*task) != Mark::Open {
                    return Err(Refused::OutcomeChange);
                }
                after.state = ChunkState::Leased(Lease { marker: Some(*task), ..lease.clone() });
                Ok(after)
            }
            ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason } => {
                let mut after = self.owned(lease, attempt, *rv)?;
                after.commit(lease, commit.as_ref(), tallies, checkpoints)?;
                after.remember(lease, *now_ms, Some(*reason));
                after.state = ChunkState::Queued { not_before_ms: *not_before_ms };
                let claimable_ms = (*now_ms).max(*not_before_ms);
                after.due_ms = due(&self.spec, claimable_ms.saturating_add(limits::HINT_AGE_MS));
                Ok(after)
            }
            ChunkEvent::Finish { attempt, rv, commit, now_ms } => {
                let mut after = self.owned(lease, attempt, *rv)?;
                after.commit(lease, commit.as_ref(), &[], &BTreeMap::new())?;
                if !after.work.marks.is_closed() {
                    return Err(Refused::TasksOpen);
                }
                let (attempt, since_ms) = (lease.attempt.clone(), lease.since_ms);
                after.state = ChunkState::Done { attempt, since_ms, at_ms: *now_ms };
                Ok(after)
            }
            ChunkEvent::End { reason, now_ms } => {
                let mut after = self.clone();
                after.remember(lease, *now_ms, None);
                after.ended(*reason, *now_ms)
            }
            ChunkEvent::Touch { seen_due_ms, due_ms } => self.touched(*seen_due_ms, *due_ms),
        }
    }

    fn claimed(&self, owner: &Owner, now_ms: u64, until_ms: u64) -> Result<Self, Refused> {
        if self.spec.deadline_ms.is_some_and(|deadline_ms| now_ms >= deadline_ms) {
            return Err(Refused::PastDeadline);
        }
        let mut after = self.clone();
        after.epoch += 1;
        after.rv += 1;
        let attempt = Attempt { epoch: after.epoch, owner: owner.clone() };
        after.state = ChunkState::Leased(Lease { attempt, since_ms: now_ms, until_ms, marker: None });
        let (lapses_ms, latest_ms) = due_of_lease(until_ms);
        let due_ms = if (lapses_ms..=latest_ms).contains(&self.due_ms) { self.due_ms } else { lapses_ms };
        after.due_ms = due(&self.spec, due_ms);
        Ok(after)
    }

    fn owned(&self, lease: &Lease, attempt: &Attempt, rv: u64) -> Result<Self, Refused> {
        if lease.attempt != *attempt {
            return Err(Refused::Fenced);
        }
        if self.rv != rv {
            return Err(Refused::Stale);
        }
        Ok(Self { rv: rv + 1, ..self.clone() })
    }

    fn commit(
        &mut self,
        lease: &Lease,
        commit: Option<&Commit>,
        tallies: &[(u32, Tally)],
        checkpoints: &BTreeMap<u32, CheckpointRef>,
    ) -> Result<(), Refused> {
        let holder = (lease.attempt.epoch, lease.attempt.owner.nonce);
        if checkpoints.values().any(|checkpoint| (checkpoint.epoch, checkpoint.nonce) != holder) {
            return Err(Refused::Fenced);
        }
        if let Some(Commit { marks, segment }) = commit {
            if (segment.epoch, segment.nonce) != holder {
                return Err(Refused::Fenced);
            }
            self.work.marks = self.work.marks.merged(marks).ok_or(Refused::OutcomeChange)?;
            self.work.segments.push(segment.clone());
        }
        self.work.tallies.extend(tallies.iter().copied());
        self.work.checkpoints.extend(checkpoints.iter().map(|(&task, checkpoint)| (task, checkpoint.clone())));
        let marks = &self.work.marks;
        let is_open = |task: u32| task < marks.tasks() && marks.get(task) == Mark::Open;
        self.work.tallies.retain(|&task, _| is_open(task));
        self.work.checkpoints.retain(|&task, _| is_open(task));
        if self.work.checkpoints.len() > limits::CHECKPOINTS_MAX {
            return Err(Refused::TooManyCheckpoints);
        }
        Ok(())
    }

    /// Charges the death of a worker to the chunk, and to a task where it is known which one ran.
    fn strike(&mut self, lease: &Lease) {
        self.work.crashes = self.work.crashes.saturating_add(1);
        if let Some(task) = lease.marker.or(self.only_open()) {
            let tally = self.work.tallies.entry(task).or_default();
            tally.strikes = tally.strikes.saturating_add(1);
        }
    }

    fn remember(&mut self, lease: &Lease, until_ms: u64, released: Option<ReleaseReason>) {
        let Attempt { epoch, owner } = &lease.attempt;
        if self.work.past.len() >= limits::PAST_ATTEMPTS_MAX {
            self.work.past.remove(0);
        }
        let (worker, since_ms) = (owner.worker.clone(), lease.since_ms);
        let own = self.work.checkpoints.values().filter(|checkpoint| checkpoint.epoch == *epoch);
        let checkpointed_at_ms = own.map(|checkpoint| checkpoint.at_ms).max();
        self.work.past.push(PastAttempt { epoch: *epoch, worker, since_ms, until_ms, released, checkpointed_at_ms });
    }

    fn ended(&self, reason: EndReason, now_ms: u64) -> Result<Self, Refused> {
        if reason == EndReason::Expired && self.spec.deadline_ms.is_none_or(|deadline_ms| now_ms < deadline_ms) {
            return Err(Refused::NotExpired);
        }
        let work = Work { checkpoints: BTreeMap::new(), ..self.work.clone() };
        Ok(Self { state: ChunkState::Ended { reason, at_ms: now_ms }, rv: self.rv + 1, work, ..self.clone() })
    }

    fn touched(&self, seen_due_ms: Due, due_ms: Due) -> Result<Self, Refused> {
        if self.due_ms != seen_due_ms {
            return Err(Refused::Stale);
        }
        Ok(Self { due_ms, ..self.clone() })
    }

    /// Whether nothing can change it any more.
    pub const fn is_final(&self) -> bool {
        matches!(self.state, ChunkState::Done { .. } | ChunkState::Ended { .. })
    }

    /// When the sweeper should look at it; `None` when it is final.
    pub const fn due(&self) -> Option<Due> {
        if self.is_final() { None } else { Some(self.due_ms) }
    }

    /// The lease, while it is held.
    pub const fn lease(&self) -> Option<&Lease> {
        match &self.state {
            ChunkState::Leased(lease) => Some(lease),
            ChunkState::Queued { .. } | ChunkState::Done { .. } | ChunkState::Ended { .. } => None,
        }
    }

    /// Whether its tasks must run one at a time behind a marker, because workers have died under it.
    pub const fn is_isolated(&self) -> bool {
        self.work.crashes >= limits::CRASHES_BEFORE_ISOLATION
    }

    /// The open task, where there is exactly one.
    pub fn only_open(&self) -> Option<u32> {
        let mut open = self.work.marks.open_tasks();
        open.next().filter(|_| open.next().is_none())
    }

    /// The outcome of a task; `None` while it is open, or if there is no such task.
    pub fn outcome(&self, task: u32) -> Option<Outcome> {
        if task >= self.spec.tasks {
            return None;
        }
        let open = match self.state {
            ChunkState::Ended { reason, .. } => Some(reason.outcome()),
            ChunkState::Queued { .. } | ChunkState::Leased(_) | ChunkState::Done { .. } => None,
        };
        self.work.marks.get(task).outcome().or(open)
    }

    /// The outcomes so far, counted.
    pub fn totals(&self) -> ChunkTotals {
        let marks = &self.work.marks;
        let open = marks.count(Mark::Open);
        let (cancelled, expired) = match self.state {
            ChunkState::Ended { reason: EndReason::Cancelled, .. } => (open, 0),
            ChunkState::Ended { reason: EndReason::Expired, .. } => (0, open),
            ChunkState::Queued { .. } | ChunkState::Leased(_) | ChunkState::Done { .. } => (0, 0),
        };
        ChunkTotals {
            succeeded: marks.count(Mark::Succeeded),
            failed: marks.count(Mark::Failed),
            cancelled,
            expired,
            quarantined: marks.count(Mark::Quarantined),
        }
    }

    /// The job.
    pub const fn job(&self) -> JobId {
        self.spec.key.job
    }
}

/// Between when and when the sweeper should look at a chunk whose lease ends at `until_ms`. A claim leaves a due time that
/// lies there as it is: an index entry that does not move is not written. It is a net behind the queue, which delivers the
/// hint of a dead worker's chunk again by itself, so it may be as much later as a hint may be late.
pub const fn due_of_lease(until_ms: u64) -> (Due, Due) {
    let lapses_ms = until_ms.saturating_add(limits::CLOCK_MARGIN_MS);
    (lapses_ms, lapses_ms.saturating_add(limits::HINT_AGE_MS))
}

fn due(spec: &ChunkSpec, at_ms: u64) -> Due {
    spec.deadline_ms.map_or(at_ms, |deadline_ms| at_ms.min(deadline_ms))
}

impl ChunkEvent {
    /// Whether a chunk, read back after this event's own answer was lost or refused, shows that the event had been
    /// applied. This is how a lost answer is told from a lost write. `false` does not exclude it: others may have moved the
    /// chunk on since; then its author holds it no more.
    pub fn landed_in(&self, chunk: &Chunk) -> bool {
        let held_by = |attempt: &Attempt| chunk.lease().is_some_and(|lease| lease.attempt == *attempt);
        let is_next = |rv: u64| rv.checked_add(1) == Some(chunk.rv);
        let last = chunk.work.segments.last();
        let holds = |commit: &Option<Commit>| commit.as_ref().is_none_or(|commit| last == Some(&commit.segment));
        let is_closed = |task: u32| task >= chunk.spec.tasks || chunk.work.marks.get(task) != Mark::Open;
        let keeps = |checkpoints: &BTreeMap<u32, CheckpointRef>| {
            let mut all = checkpoints.iter();
            all.all(|(task, mine)| is_closed(*task) || chunk.work.checkpoints.get(task) == Some(mine))
        };
        match self {
            Self::Submit { spec } => chunk.spec.is_resubmitted_by(spec),
            Self::Claim { owner, .. } | Self::TakeOver { owner, .. } => {
                chunk.lease().is_some_and(|lease| lease.attempt.owner == *owner)
            }
            Self::Heartbeat { attempt, until_ms } => {
                held_by(attempt) && chunk.lease().is_some_and(|lease| lease.until_ms >= *until_ms)
            }
            Self::Segment { attempt, rv, commit, checkpoints, .. } => {
                held_by(attempt) && is_next(*rv) && holds(commit) && keeps(checkpoints)
            }
            Self::Mark { attempt, rv, task } => {
                held_by(attempt) && is_next(*rv) && chunk.lease().is_some_and(|lease| lease.marker == Some(*task))
            }
            Self::Release { attempt, rv, commit, checkpoints, not_before_ms: mine, .. } => {
                matches!(chunk.state, ChunkState::Queued { not_before_ms } if not_before_ms == *mine)
                    && chunk.epoch == attempt.epoch
                    && is_next(*rv)
                    && holds(commit)
                    && keeps(checkpoints)
            }
            Self::Finish { attempt: mine, commit, .. } => {
                matches!(&chunk.state, ChunkState::Done { attempt, .. } if attempt == mine) && holds(commit)
            }
            Self::End { reason: mine, .. } => {
                matches!(&chunk.state, ChunkState::Ended { reason, .. } if reason == mine)
            }
            Self::Touch { due_ms, .. } => chunk.due_ms == *due_ms,
        }
    }

    /// The number of the transition, as the documentation and the tests name it.
    pub const fn transition(&self) -> &'static str {
        match self {
            Self::Submit { .. } => "T1 submit",
            Self::Claim { .. } => "T2 claim",
            Self::TakeOver { .. } => "T3 take over",
            Self::Heartbeat { .. } => "T4 heartbeat",
            Self::Segment { .. } => "T5 segment",
            Self::Mark { .. } => "T6 mark",
            Self::Release { .. } => "T7 release",
            Self::Finish { .. } => "T8 finish",
            Self::End { .. } => "T9 end",
            Self::Touch { .. } => "T10 touch",
        }
    }

    /// Whether whoever made this write may act on it only once it is durable. Claims, heartbeats, marks and touches need
    /// only be ordered before what follows them: losing the last of them in a power cut leaves a chunk that is claimed
    /// again under another nonce, while the process that held it is gone with the machine.
    pub const fn needs_durability(&self) -> bool {
        match self {
            Self::Submit { .. }
            | Self::Segment { .. }
            | Self::Release { .. }
            | Self::Finish { .. }
            | Self::End { .. } => true,
            Self::Claim { .. }
            | Self::TakeOver { .. }
            | Self::Heartbeat { .. }
            | Self::Mark { .. }
            | Self::Touch { .. } => false,
        }
    }
}
