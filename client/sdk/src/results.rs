//! The results of a job, one by one or a chunk at a time.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::Stream;
use sheaf_core::JobId;

use crate::{
    chunk_results::{ChunkResults, TaskResult},
    error::GridError,
    function::Decode,
    job::Job,
    journal::{Journal, Resume},
    progress::{Board, Progress},
    reader::Reader,
    transport::Transport,
};

/// The results of a job: as tasks end, or with [`Results::in_order`] in the order of submission. Each task once. A task's
/// failure is an item; a failure of the grid is an error and ends the stream, and [`crate::Grid::attach`] reads on.
///
/// The stream ends when the job is over and every result was given. Dropping it cancels nothing: submitting goes on in the
/// background and the results stay in the grid.
pub struct Results<O> {
    api: Arc<Transport>,
    job: JobId,
    board: Arc<Board>,
    journal: Option<Arc<Journal>>,
    reader: Reader,
    decode: Decode<O>,
    /// The chunk being given task by task, and the next task of it.
    current: Option<(ChunkResults<O>, u32)>,
    /// A chunk that was given as a whole and not asked beyond: its number and tasks.
    given: Option<(u32, u32)>,
}

impl<O> Results<O> {
    pub(crate) fn new(api: Arc<Transport>, job: JobId, board: Arc<Board>, decode: Decode<O>) -> Self {
        let reader = Reader::new(Arc::clone(&api), job, Arc::clone(&board));
        Self { api, job, board, journal: None, reader, decode, current: None, given: None }
    }

    /// Keeps track in a journal of what was given, and leaves out what earlier runs were given unless all is asked for again.
    pub(crate) fn with_journal(mut self, journal: Option<Arc<Journal>>, resume: &Resume, again: bool) -> Self {
        self.journal = journal;
        for (number, chunk) in resume.chunks.iter().enumerate() {
            if !again {
                self.reader.leave_out(number as u32, chunk.delivered, chunk.tasks);
            }
        }
        self
    }

    /// Gives results in the order of submission. Chunks that end early wait: at most 64 of them or 64 MiB here, the others
    /// in the grid.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.reader.put_in_order();
        self
    }

    /// The job's id: what [`crate::Grid::attach`] wants, in this process or another.
    pub const fn job_id(&self) -> JobId {
        self.job
    }

    /// The job, for everything else that can be asked of it.
    pub fn job(&self) -> Job {
        Job::new(Arc::clone(&self.api), self.job, Arc::clone(&self.board))
    }

    /// Watches the job.
    pub fn progress(&self) -> Progress {
        Progress::new(Arc::clone(&self.api), self.job, Arc::clone(&self.board))
    }

    /// Cancels the job: see [`Job::cancel`]. The stream then gives what had ended, the rest as cancelled, and ends.
    pub async fn cancel(&self) -> Result<(), GridError> {
        self.job().cancel().await.map(drop)
    }

    /// Waits until every item was taken, every chunk acknowledged and the job sealed, or until the job is known to be
    /// cancelled. Reading meanwhile is not needed.
    pub async fn submitted(&self) -> Result<(), GridError> {
        self.board.fed().await
    }

    /// The next result; `None` when all were given. Safe to drop: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<TaskResult<O>, GridError>> {
        if let Some(result) = self.at_hand() {
            return Some(Ok(result));
        }
        std::future::poll_fn(|cx| self.poll_task(cx)).await
    }

    /// The next whole chunk; `None` when all were given. After some tasks of a chunk were given by [`Results::next`], the
    /// rest of it comes first. The fastest way to read.
    pub async fn next_chunk(&mut self) -> Option<Result<ChunkResults<O>, GridError>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Says that everything given so far was dealt with, also the part of a chunk, and makes that durable in the journal:
    /// a resumed run goes on behind it. Without a journal it does nothing.
    ///
    /// A whole chunk counts as dealt with once the reader asks for what comes after it, without being told; so a run that is
    /// killed gives at most one chunk's results twice.
    pub async fn delivered(&mut self) -> Result<(), GridError> {
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        self.deal_with_given()?;
        if let Some((chunk, next)) = &self.current {
            journal.delivered(chunk.number(), *next)?;
        }
        Journal::sync(journal).await
    }

    /// The hot path: the next task of the chunk at hand.
    #[inline]
    fn at_hand(&mut self) -> Option<TaskResult<O>> {
        let (chunk, next) = self.current.as_mut()?;
        if *next >= chunk.tasks() {
            return None;
        }
        let result = chunk.position(*next);
        *next += 1;
        Some(result)
    }

    fn poll_task(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<TaskResult<O>, GridError>>> {
        loop {
            if let Some(result) = self.at_hand() {
                return Poll::Ready(Some(Ok(result)));
            }
            match ready!(self.poll_chunk(cx)) {
                Some(Ok(chunk)) => {
                    self.given = None;
                    let from = chunk.from();
                    self.current = Some((chunk, from));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ChunkResults<O>, GridError>>> {
        if let Err(error) = self.deal_with_given() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some((chunk, next)) = self.current.take() {
            if next < chunk.tasks() {
                let rest = chunk.rest(next);
                self.given = Some((rest.number(), rest.tasks()));
                return Poll::Ready(Some(Ok(rest)));
            }
            self.given = Some((chunk.number(), chunk.tasks()));
            if let Err(error) = self.deal_with_given() {
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(match ready!(self.reader.poll_chunk(cx)) {
            Some(Ok((chunk, from))) => {
                self.given = Some((chunk.head.number, chunk.head.tasks));
                Some(Ok(ChunkResults::new(Arc::new(chunk), from, self.decode)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    /// The reader asks for more: what it was given is dealt with.
    fn deal_with_given(&mut self) -> Result<(), GridError> {
        match (self.given.take(), &self.journal) {
            (Some((number, tasks)), Some(journal)) => journal.delivered(number, tasks),
            _ => Ok(()),
        }
    }
}

impl<O> Stream for Results<O> {
    type Item = Result<TaskResult<O>, GridError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_task(cx)
    }
}

impl<O> fmt::Debug for Results<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results({})", self.job)
    }
}
