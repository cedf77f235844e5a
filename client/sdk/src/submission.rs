//! One submission: some chunks on their way until each is durable.

use std::sync::Arc;

use sheaf_api::{
    Api, ApiError, Code,
    wire::{ChunkAnswer, SubmitChunk},
};
use sheaf_core::{JobId, limits};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    batch::Closed,
    error::GridError,
    journal::Journal,
    limits::SUBMISSION_BYTES_TARGET,
    progress::{Board, Waiting},
    retry::Patience,
    transport::Transport,
};

/// A chunk with its part of the byte budget, given back when it is acknowledged.
#[derive(Debug)]
pub(crate) struct Budgeted {
    pub(crate) chunk: Closed,
    #[expect(dead_code, reason = "held, not read: dropping it gives the bytes back")]
    pub(crate) permit: OwnedSemaphorePermit,
}

/// How many of the waiting chunks go into the next call: in order, up to a bound on chunks and one on bytes.
pub(crate) fn group(bytes: impl IntoIterator<Item = usize>) -> usize {
    let mut total = 0;
    let mut chunks = 0;
    for bytes in bytes.into_iter().take(limits::WRITES_PER_CALL_MAX) {
        if chunks > 0 && total + bytes > SUBMISSION_BYTES_TARGET {
            break;
        }
        total += bytes;
        chunks += 1;
    }
    chunks
}

/// How a submission ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// Every chunk is durable.
    All,
    /// The job takes no more: it was cancelled.
    Over,
}

/// Sends chunks until each is durable. Repeats what was throttled or whose answer was lost: the number of a chunk is its
/// idempotency key.
pub(crate) async fn submit(
    api: Arc<Transport>,
    job: JobId,
    mut chunks: Vec<Budgeted>,
    journal: Option<Arc<Journal>>,
    board: Arc<Board>,
) -> Result<Submitted, GridError> {
    if let Some(journal) = &journal {
        Journal::sync(Arc::clone(journal)).await?;
    }
    let mut patience = Patience::new();
    loop {
        let request = chunks.iter().map(|Budgeted { chunk, .. }| SubmitChunk {
            number: chunk.number,
            task_first: chunk.task_first,
            pack: chunk.pack.clone(),
        });
        let before = chunks.len();
        let error = match api.submit(job, request.collect()).await {
            Ok(reply) => {
                board.update(|known| known.estimated(reply.estimate, reply.slots));
                settle(&mut chunks, reply.answers, journal.as_deref(), &board)?
            }
            Err(error) => Some(error),
        };
        let Some(error) = error else {
            board.wait_for(None);
            return Ok(Submitted::All);
        };
        if error.code == Code::Over {
            return Ok(Submitted::Over);
        }
        if chunks.len() < before {
            patience.renew();
        }
        let reason = waiting(&error);
        let pause = patience.pause(error)?;
        board.wait_for(Some(reason));
        tokio::time::sleep(pause).await;
    }
}

/// Takes out the chunks that are durable. Gives the weightiest reason why some are left, if any are.
fn settle(
    chunks: &mut Vec<Budgeted>,
    answers: Vec<ChunkAnswer>,
    journal: Option<&Journal>,
    board: &Board,
) -> Result<Option<ApiError>, GridError> {
    let mut answers = answers.into_iter();
    let mut worst: Option<ApiError> = None;
    let (mut durable, mut tasks) = (Vec::with_capacity(chunks.len()), 0);
    chunks.retain(|Budgeted { chunk, .. }| {
        let error = match answers.next() {
            Some(ChunkAnswer::Accepted | ChunkAnswer::Exists) => {
                durable.push(chunk.number);
                tasks += u64::from(chunk.pack.tasks());
                return false;
            }
            Some(ChunkAnswer::Refused { error }) => error,
            None => ApiError::new(Code::Unknown, format!("the grid gave no answer on chunk {}", chunk.number)),
        };
        if worst.as_ref().is_none_or(|worst| worst.may_pass() && !error.may_pass()) {
            worst = Some(error);
        }
        true
    });
    board.update(|known| known.acknowledged += tasks);
    if let Some(journal) = journal {
        journal.acknowledged(durable)?;
    }
    Ok(worst)
}

fn waiting(error: &ApiError) -> Waiting {
    let message = error.message.clone();
    if error.code == Code::Throttled { Waiting::Throttled { message } } else { Waiting::Unavailable { message } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_by_chunks_and_bytes() {
        assert_eq!(group([]), 0);
        assert_eq!(group(vec![1; 500]), limits::WRITES_PER_CALL_MAX);
        assert_eq!(group(vec![limits::PACK_BYTES_TARGET; 500]), SUBMISSION_BYTES_TARGET / limits::PACK_BYTES_TARGET);
        assert_eq!(group([limits::PACK_BYTES_MAX, 1]), 1, "one chunk goes, however large");
    }
}
