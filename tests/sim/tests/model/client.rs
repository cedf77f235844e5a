//! The client: submits each chunk and seals the job, as `shared/protocol/src/submit.rs`. One that dies begins again, with the
//! same job.

use sheaf_core::{ChunkState, JobEvent, JobState, Refused, Seal};

use super::{
    Bug, Fate, Grid, JobTold, Protocol, TASKS, Untold,
    ask::{Ask, What},
    time::NOW_MS,
};

/// What the client, or the step on its behalf, does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Client {
    /// Reads the job and puts the pack.
    Put(u8),
    /// T1.
    Submit(Ask),
    /// Sends the hint.
    Hint(u8),
    /// Seals the job.
    Seal,
    /// Reads the summary, lest all chunks have ended already.
    ReadSummary,
    /// Closes the job.
    Complete,
    Over,
}

impl Grid {
    pub(crate) fn submit(&mut self, at: &Protocol, fate: Fate) {
        let last = at.bounds.chunks - 1;
        let after = |chunk| if chunk == last { Client::Seal } else { Client::Put(chunk + 1) };
        self.client = match self.client {
            Client::Put(chunk) => {
                let takes = match self.store.job.state {
                    JobState::Open => true,
                    JobState::Sealed { seal } | JobState::Done { seal, .. } => u32::from(chunk) < seal.chunks,
                    JobState::Cancelling { .. } | JobState::Cancelled { .. } => false,
                };
                // The planted bug is put right with the hint.
                if takes && at.bug != Some(Bug::PackAfterSubmit) {
                    self.store.packs.insert(chunk);
                }
                if takes && at.bug == Some(Bug::AcknowledgedBeforeSubmit) {
                    self.acknowledged |= 1 << chunk;
                }
                if takes { Client::Submit(Ask::new(chunk, What::Submit)) } else { Client::Over }
            }
            Client::Submit(ask) => {
                let current = match self.write(at, ask, fate) {
                    None => return,
                    Some(Ok(chunk)) => Some(chunk),
                    Some(Err(Untold::Refused(Refused::Exists, current))) => current,
                    Some(Err(Untold::Refused(..))) => None,
                    Some(Err(Untold::GaveUp)) => return self.client = Client::Put(ask.chunk),
                };
                self.acknowledged |= 1 << ask.chunk;
                let waits = current.is_some_and(|chunk| matches!(chunk.state, ChunkState::Queued { .. }));
                if waits { Client::Hint(ask.chunk) } else { after(ask.chunk) }
            }
            Client::Hint(chunk) => {
                self.store.packs.insert(chunk);
                self.send(at, chunk);
                after(chunk)
            }
            Client::Seal => {
                let chunks = u32::from(at.bounds.chunks);
                let seal = Seal { chunks, tasks: u64::from(chunks) * u64::from(TASKS) };
                match self.write_job(&JobEvent::Seal { seal }, fate) {
                    JobTold::AnswerLost | JobTold::GaveUp => Client::Seal,
                    JobTold::Refused => Client::Over,
                    JobTold::Applied if at.bug == Some(Bug::SealDoesNotLook) => Client::Over,
                    JobTold::Applied => match self.store.job.state {
                        JobState::Sealed { .. } => Client::ReadSummary,
                        _ => Client::Over,
                    },
                }
            }
            Client::ReadSummary => {
                let ended = self.store.tally.summary().chunks_ended >= u64::from(at.bounds.chunks);
                if ended { Client::Complete } else { Client::Over }
            }
            Client::Complete => match self.write_job(&JobEvent::Complete { now_ms: NOW_MS }, fate) {
                JobTold::AnswerLost => Client::Complete,
                // The seal is answered with an error, and is asked for again.
                JobTold::GaveUp => Client::Seal,
                JobTold::Applied | JobTold::Refused => Client::Over,
            },
            Client::Over => return,
        };
    }
}
