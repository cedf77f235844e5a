//! A write that an author is about to make, small enough to be part of a state; and the event that it stands for.

use std::collections::BTreeMap;

use sheaf_core::{
    Attempt, ChunkEvent, Commit, Digest, EndReason, Evidence, Mark, Marks, Owner, ReleaseReason, SegmentRef, WorkerId,
    limits,
};

use super::{TASKS, store::Store, time};

/// A set of tasks of one chunk.
pub(crate) type Tasks = u8;

/// What an owner's write carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fence {
    pub(crate) epoch: u32,
    pub(crate) nonce: u64,
    pub(crate) rv: u64,
}

/// The results of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) tasks: Tasks,
    pub(crate) quarantined: Tasks,
}

/// A write: what, and what its author's clock said when it decided to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ask {
    pub(crate) chunk: u8,
    pub(crate) at_ms: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    Submit,
    Claim { nonce: u64 },
    TakeOver { nonce: u64, seen_epoch: u32, seen_nonce: u64, seen_until_ms: u64, evidence: Evidence },
    Heartbeat { fence: Fence },
    Segment { fence: Fence, part: Part },
    Mark { fence: Fence, task: u32 },
    Release { fence: Fence, part: Option<Part> },
    Finish { fence: Fence, part: Option<Part> },
    End { reason: EndReason },
    Touch { seen_due_ms: u64, due_ms: u64 },
}

impl Ask {
    pub(crate) const fn new(chunk: u8, what: What) -> Self {
        Self { chunk, at_ms: time::NOW_MS, what }
    }

    /// Of writes that no later decision depends on the time of, it is not kept how old they are.
    pub(crate) const fn age(&mut self) {
        match &mut self.what {
            What::TakeOver { seen_until_ms, .. } => {
                time::age(seen_until_ms);
                time::age(&mut self.at_ms);
            }
            What::Touch { seen_due_ms, due_ms } => {
                time::age(seen_due_ms);
                time::age(due_ms);
            }
            What::Submit
            | What::Claim { .. }
            | What::Heartbeat { .. }
            | What::Segment { .. }
            | What::Release { .. }
            | What::End { reason: EndReason::Expired } => time::age(&mut self.at_ms),
            What::Mark { .. } | What::Finish { .. } | What::End { reason: EndReason::Cancelled } => {}
        }
    }

    /// The nonce that it needs to be told from all others.
    pub(crate) const fn nonce(&self) -> Option<u64> {
        match self.what {
            What::Claim { nonce } | What::TakeOver { nonce, .. } => Some(nonce),
            What::Heartbeat { fence }
            | What::Segment { fence, .. }
            | What::Mark { fence, .. }
            | What::Release { fence, .. }
            | What::Finish { fence, .. } => Some(fence.nonce),
            What::Submit | What::End { .. } | What::Touch { .. } => None,
        }
    }

    pub(crate) fn event(&self, store: &Store) -> ChunkEvent {
        let now_ms = self.at_ms;
        let until_ms = now_ms + limits::LEASE_MS;
        match self.what {
            What::Submit => ChunkEvent::Submit { spec: Box::new(store.spec(self.chunk, now_ms)) },
            What::Claim { nonce } => ChunkEvent::Claim { owner: owner(nonce), now_ms, until_ms },
            What::TakeOver { nonce, seen_epoch, seen_nonce, seen_until_ms, evidence } => ChunkEvent::TakeOver {
                owner: owner(nonce),
                seen: Attempt { epoch: seen_epoch, owner: owner(seen_nonce) },
                seen_until_ms,
                evidence,
                now_ms,
                until_ms,
            },
            What::Heartbeat { fence } => ChunkEvent::Heartbeat { attempt: fence.attempt(), until_ms },
            What::Segment { fence, part } => ChunkEvent::Segment {
                attempt: fence.attempt(),
                rv: fence.rv,
                commit: Some(part.commit(fence)),
                tallies: Vec::new(),
                checkpoints: BTreeMap::new(),
                until_ms,
            },
            What::Mark { fence, task } => ChunkEvent::Mark { attempt: fence.attempt(), rv: fence.rv, task },
            What::Release { fence, part } => ChunkEvent::Release {
                attempt: fence.attempt(),
                rv: fence.rv,
                commit: part.map(|part| part.commit(fence)),
                tallies: Vec::new(),
                checkpoints: BTreeMap::new(),
                now_ms,
                not_before_ms: now_ms,
                reason: ReleaseReason::Drain,
            },
            What::Finish { fence, part } => ChunkEvent::Finish {
                attempt: fence.attempt(),
                rv: fence.rv,
                commit: part.map(|part| part.commit(fence)),
                now_ms,
            },
            What::End { reason } => ChunkEvent::End { reason, now_ms },
            What::Touch { seen_due_ms, due_ms } => ChunkEvent::Touch { seen_due_ms, due_ms },
        }
    }
}

/// The owner of a claim. All have the same worker's id, as the slots of one worker do: only the nonce tells them apart.
pub(crate) fn owner(nonce: u64) -> Owner {
    static WORKER: std::sync::LazyLock<WorkerId> =
        std::sync::LazyLock::new(|| "wrk_any".parse().expect("a worker's id"));
    Owner { worker: WORKER.clone(), nonce }
}

impl Fence {
    pub(crate) fn attempt(self) -> Attempt {
        Attempt { epoch: self.epoch, owner: owner(self.nonce) }
    }
}

impl Part {
    /// Its outcomes. The function is one that answers differently when it is run again, so that a second outcome shows.
    fn marks(self, epoch: u32) -> Marks {
        let mut marks = Marks::open(TASKS);
        for task in members(self.tasks) {
            let mark = match (self.quarantined & 1 << task, epoch % 2) {
                (0, 1) => Mark::Succeeded,
                (0, _) => Mark::Failed,
                _ => Mark::Quarantined,
            };
            marks.set(task, mark);
        }
        marks
    }

    pub(crate) fn segment(self, epoch: u32, nonce: u64) -> SegmentRef {
        SegmentRef {
            epoch,
            nonce,
            number: self.number,
            digest: Digest::of(self.marks(epoch).bits()),
            bytes: 1,
            tasks: self.tasks.count_ones(),
            run_us: 1,
            run_us_max: 1,
            has_logs: false,
        }
    }

    fn commit(self, fence: Fence) -> Commit {
        Commit { marks: self.marks(fence.epoch), segment: self.segment(fence.epoch, fence.nonce) }
    }
}

pub(crate) fn members(tasks: Tasks) -> impl Iterator<Item = u32> {
    (0..TASKS).filter(move |task| tasks & 1 << task != 0)
}
