//! Carrying out a cancellation, as `shared/protocol/src/cancel.rs`: whoever does it may die at any point, and several may do
//! it at once.

use sheaf_core::{EndReason, JobEvent, JobState};

use super::{
    Bug, Fate, Grid, Protocol,
    ask::{Ask, What},
    time::NOW_MS,
};

/// What the author does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Carry {
    ReadJob,
    ReadChunks,
    /// T9 for the first of some chunks, as read then; and how many chunks there were in all.
    End {
        chunks: u8,
        count: u64,
    },
    ReadSummary {
        count: u64,
    },
    Complete,
}

/// Who cancels the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Canceller {
    Idle,
    /// Makes the wish durable.
    Wish,
    Carry(Carry),
    Over,
}

impl Carry {
    pub(crate) fn ask(self) -> Option<Ask> {
        match self {
            Self::End { chunks, .. } => {
                Some(Ask::new(chunks.trailing_zeros() as u8, What::End { reason: EndReason::Cancelled }))
            }
            Self::ReadJob | Self::ReadChunks | Self::ReadSummary { .. } | Self::Complete => None,
        }
    }

    pub(crate) const fn writes(self) -> bool {
        matches!(self, Self::End { .. } | Self::Complete)
    }
}

impl Grid {
    /// One step of `carry_out`; answers the next.
    pub(crate) fn carry(&mut self, at: &Protocol, step: Carry, fate: Fate) -> Option<Carry> {
        match step {
            Carry::ReadJob => match self.store.job.state {
                JobState::Cancelling { .. } if at.bug == Some(Bug::CancelCompleteEarly) => Some(Carry::Complete),
                JobState::Cancelling { .. } => Some(Carry::ReadChunks),
                _ => None,
            },
            Carry::ReadChunks => {
                let count = self.store.all().count() as u64;
                let chunks = self.store.open().map(|chunk| 1 << chunk.spec.key.number).sum();
                Some(Carry::after_ends(chunks, count))
            }
            Carry::End { chunks, count } => {
                let ask = step.ask().expect("T9 is a write");
                match self.write(at, ask, fate) {
                    None => Some(step),
                    Some(Err(super::Untold::GaveUp)) => None,
                    Some(_) => Some(Carry::after_ends(chunks & (chunks - 1), count)),
                }
            }
            Carry::ReadSummary { count } => {
                (self.store.tally.summary().chunks_ended >= count).then_some(Carry::Complete)
            }
            Carry::Complete => {
                let complete = JobEvent::CancelComplete { now_ms: NOW_MS };
                (self.write_job(&complete, fate) == super::JobTold::AnswerLost).then_some(step)
            }
        }
    }

    pub(crate) fn cancel(&mut self, at: &Protocol, fate: Fate) {
        self.canceller = match self.canceller {
            Canceller::Wish => match self.write_job(&JobEvent::Cancel, fate) {
                super::JobTold::AnswerLost => Canceller::Wish,
                super::JobTold::GaveUp => Canceller::Over,
                super::JobTold::Applied | super::JobTold::Refused => Canceller::Carry(Carry::ReadJob),
            },
            Canceller::Carry(step) => self.carry(at, step, fate).map_or(Canceller::Over, Canceller::Carry),
            Canceller::Idle | Canceller::Over => return,
        };
    }
}

impl Carry {
    const fn after_ends(chunks: u8, count: u64) -> Self {
        if chunks == 0 { Self::ReadSummary { count } } else { Self::End { chunks, count } }
    }
}
