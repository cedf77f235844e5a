//! What keeps house: the result step (`shared/protocol/src/summarise.rs`) and the sweeper (`shared/protocol/src/sweep.rs`).

use sheaf_core::{Chunk, ChunkState, EndReason, JobEvent, JobState, limits};

use super::{
    Bug, Fate, Grid, JobTold, Protocol, Untold,
    ask::{Ask, What},
    cancel::Carry,
    time::NOW_MS,
};

/// What the result step does next, with the change that it takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Summariser {
    Idle,
    /// Reads the job; and whether the summary counted every submitted chunk as ended.
    ReadJob {
        change: (u8, bool),
        all_ended: bool,
    },
    ReadSummary {
        change: (u8, bool),
        chunks: u64,
    },
    Complete {
        change: (u8, bool),
    },
    Carry {
        change: (u8, bool),
        carry: Carry,
    },
}

/// What the sweeper does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sweeper {
    Idle,
    /// T9 or T10 for a chunk that was due; and whether it wants a hint.
    Write {
        ask: Ask,
        wants_hint: bool,
    },
    Send(u8),
    Carry(Carry),
}

impl Grid {
    /// Takes a change in: the summary first.
    pub(crate) fn take_in(&mut self, at: &Protocol, change: (u8, bool)) {
        let summary = self.store.summarise(at.bug, change.0, change.1);
        let all_ended = summary.chunks_ended >= summary.chunks_submitted;
        self.summariser = Summariser::ReadJob { change, all_ended };
    }

    pub(crate) fn summarise(&mut self, at: &Protocol, fate: Fate) {
        // A change counts as taken in when the step is through with it; one that dies before takes it in again.
        let through = |grid: &mut Self, change| {
            grid.store.feed.remove(&change);
            Summariser::Idle
        };
        self.summariser = match self.summariser {
            Summariser::Idle => return,
            Summariser::ReadJob { change, all_ended } => match self.store.job.state {
                JobState::Cancelling { .. } if all_ended => Summariser::Carry { change, carry: Carry::ReadJob },
                JobState::Sealed { seal } if change.1 => Summariser::ReadSummary { change, chunks: seal.chunks.into() },
                _ => through(self, change),
            },
            Summariser::ReadSummary { change, chunks } => {
                if self.store.tally.summary().chunks_ended < chunks && at.bug != Some(Bug::DoneUncounted) {
                    through(self, change)
                } else {
                    Summariser::Complete { change }
                }
            }
            Summariser::Complete { change } => match self.write_job(&JobEvent::Complete { now_ms: NOW_MS }, fate) {
                JobTold::AnswerLost => return,
                JobTold::GaveUp => Summariser::Idle,
                JobTold::Applied | JobTold::Refused => through(self, change),
            },
            Summariser::Carry { change, carry } => match self.carry(at, carry, fate) {
                Some(carry) => Summariser::Carry { change, carry },
                None if matches!(fate, Fate::GivesUp { .. }) => Summariser::Idle,
                None => through(self, change),
            },
        };
    }

    /// Looks at a chunk that is due.
    pub(crate) fn look(&mut self, at: &Protocol, number: u8) {
        let Some(chunk) = self.store.chunk(number).filter(|chunk| !chunk.is_final()) else { return };
        let ask = Ask::new(number, verdict(chunk));
        let wants_hint = wants_hint(chunk) && at.bug != Some(Bug::SweeperSendsNothing);
        self.sweeper = Sweeper::Write { ask, wants_hint };
    }

    pub(crate) fn sweep(&mut self, at: &Protocol, fate: Fate) {
        self.sweeper = match self.sweeper {
            Sweeper::Idle => return,
            Sweeper::Write { ask, wants_hint } => match self.write(at, ask, fate) {
                None => return,
                Some(Ok(_)) if wants_hint && matches!(ask.what, What::Touch { .. }) => Sweeper::Send(ask.chunk),
                Some(Ok(_) | Err(Untold::Refused(..) | Untold::GaveUp)) => Sweeper::Idle,
            },
            Sweeper::Send(chunk) => {
                self.send(at, chunk);
                Sweeper::Idle
            }
            Sweeper::Carry(carry) => self.carry(at, carry, fate).map_or(Sweeper::Idle, Sweeper::Carry),
        };
    }
}

/// `sweep::verdict`, with a queue without delay.
fn verdict(chunk: &Chunk) -> What {
    if chunk.spec.deadline_ms.is_some_and(|deadline_ms| NOW_MS >= deadline_ms) {
        return What::End { reason: EndReason::Expired };
    }
    let look_again_ms = match &chunk.state {
        ChunkState::Leased(lease) if !wants_hint(chunk) => lease.until_ms + limits::CLOCK_MARGIN_MS + 1,
        ChunkState::Queued { not_before_ms } => (*not_before_ms).max(NOW_MS) + limits::HINT_AGE_MS,
        ChunkState::Leased(_) | ChunkState::Done { .. } | ChunkState::Ended { .. } => NOW_MS + limits::HINT_AGE_MS,
    };
    let due_ms = chunk.spec.deadline_ms.map_or(look_again_ms, |deadline_ms| look_again_ms.min(deadline_ms));
    What::Touch { seen_due_ms: chunk.due_ms, due_ms }
}

/// `sweep::wants_hint`, likewise.
fn wants_hint(chunk: &Chunk) -> bool {
    match &chunk.state {
        ChunkState::Queued { not_before_ms } => {
            let queued_at_ms = chunk.work.past.last().map_or(chunk.spec.submitted_at_ms, |past| past.until_ms);
            NOW_MS >= queued_at_ms.max(*not_before_ms) + limits::HINT_AGE_MS
        }
        ChunkState::Leased(lease) => NOW_MS > lease.until_ms + limits::CLOCK_MARGIN_MS,
        ChunkState::Done { .. } | ChunkState::Ended { .. } => false,
    }
}
