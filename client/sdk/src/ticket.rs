//! Single tasks: a ticket for each that was accepted.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use sheaf_core::TaskId;
use tokio::sync::oneshot;

use crate::{
    chunk_results::{RawChunk, TaskResult},
    error::GridError,
    function::Decode,
};

/// What becomes of a task: its chunk's results, and which of them is its own.
pub(crate) type Settled = Result<(Arc<RawChunk>, u32), GridError>;

/// A task that the grid has accepted durably. Awaiting it gives its result: a [`TaskResult`] whose outcome is the
/// function's, or a [`GridError`].
///
/// Dropping it cancels nothing. Its id survives the process: [`crate::Grid::attach`] to the job and `explain` the task.
#[must_use = "the task runs without being awaited, but nobody learns its result"]
pub struct Ticket<O> {
    id: TaskId,
    settled: oneshot::Receiver<Settled>,
    decode: Decode<O>,
}

impl<O> Ticket<O> {
    pub(crate) const fn new(id: TaskId, settled: oneshot::Receiver<Settled>, decode: Decode<O>) -> Self {
        Self { id, settled, decode }
    }

    /// The task's id.
    pub const fn id(&self) -> TaskId {
        self.id
    }
}

impl<O> Future for Ticket<O> {
    type Output = Result<TaskResult<O>, GridError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let settled = ready!(Pin::new(&mut self.settled).poll(cx));
        let what = || format!("{} had a result", self.id).into();
        let settled = settled.unwrap_or_else(|_| Err(GridError::Closed { what: what() }));
        Poll::Ready(settled.map(|(chunk, task)| chunk.task(task, self.decode)))
    }
}

impl<O> fmt::Debug for Ticket<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.id)
    }
}
