//! Feeding a job: items in, acknowledged chunks out, then the seal.
//!
//! One task per job fills chunks in a tight loop and starts submissions; each of those is a task of its own. What is
//! bounded: bytes not acknowledged (the budget), chunks that wait for a submission, submissions under way. Nothing is
//! locked or sent per item.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use futures::future::BoxFuture;
use sheaf_api::{Api, ApiError, Code};
use sheaf_core::{JobId, Seal, limits};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    task::{JoinError, JoinSet},
};

use crate::{
    batch::{Batch, Closed},
    budget::Budget,
    error::{GridError, JournalError},
    journal::{Journal, Recorded, Resume},
    limits::{CHUNKS_READY_MAX, PROBE_WAIT_MS, SUBMISSIONS_MAX},
    map::unix_ms,
    progress::{Board, Known as BoardView, Phase, Waiting},
    retry,
    sizing::{self, Known},
    source::{Filled, Source},
    submission::{Budgeted, Submitted, group, submit},
    transport::Transport,
};

/// What a feed needs besides its items.
pub(crate) struct Outlet {
    pub(crate) api: Arc<Transport>,
    pub(crate) job: JobId,
    pub(crate) board: Arc<Board>,
    pub(crate) budget: Budget,
    pub(crate) journal: Option<Arc<Journal>>,
    /// A chunk size that the user chose.
    pub(crate) chunk_tasks: Option<u32>,
    pub(crate) ordered: bool,
}

impl Outlet {
    /// Fixes the job's size, unless it was cancelled in the meantime and needs none.
    async fn seal(&self, seal: Seal, recorded: bool) -> Result<(), GridError> {
        let Self { api, job, board, journal, .. } = self;
        if let Some(journal) = journal
            && !recorded
        {
            journal.sealing(seal)?;
            Journal::sync(Arc::clone(journal)).await?;
        }
        match retry::call(|| api.seal(*job, seal)).await {
            Ok(view) => {
                if let Some((deadline_ms, end_ms)) = view.lateness(unix_ms(SystemTime::now())) {
                    let tasks = view.summary.tasks_submitted;
                    tracing::warn!(%job, tasks, deadline_ms, end_ms, "the deadline cannot be kept: it ends later at the earliest");
                }
                board.saw(&view);
            }
            Err(error) if error.code == Code::Over => {}
            Err(error) => return Err(error.into()),
        }
        let tasks = seal.tasks;
        board.update(|known| {
            known.total = Some(tasks);
            known.submitted = known.submitted.max(tasks);
            known.acknowledged = known.acknowledged.max(tasks);
        });
        Ok(())
    }
}

/// Feeds a job to its end and says on its board how that went.
pub(crate) async fn run<I: Send + 'static>(outlet: Outlet, source: impl Source<I>, batch: Batch<I>, resume: Resume) {
    let stopped = Stopped(Arc::clone(&outlet.board));
    let board = Arc::clone(&outlet.board);
    let phase = match Feed::new(outlet, source, batch, resume).run().await {
        Ok(()) => Phase::Fed,
        Err(error) => Phase::Failed(Arc::new(error)),
    };
    board.update(|known| (known.phase, known.waiting) = (phase, None));
    drop(stopped);
}

/// Tells those who wait for a feed that was dropped, or whose iterator panicked, that nothing more will come.
struct Stopped(Arc<Board>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.update(|known| {
            if matches!(known.phase, Phase::Feeding) {
                known.phase = Phase::Failed(Arc::new(GridError::Closed { what: "all items were submitted".into() }));
            }
        });
    }
}

struct Feed<I, S> {
    outlet: Outlet,
    known: watch::Receiver<BoardView>,
    source: S,
    batch: Batch<I>,
    recorded: VecDeque<Recorded>,
    recorded_chunks: u32,
    sealing: Option<Seal>,
    ready: VecDeque<Budgeted>,
    blocked: Option<Blocked>,
    in_flight: JoinSet<Result<Submitted, GridError>>,
    probes_max: u64,
    ended: bool,
    over: bool,
}

/// A chunk that waits for the budget.
struct Blocked {
    chunk: Option<Closed>,
    permit: BoxFuture<'static, OwnedSemaphorePermit>,
}

impl Blocked {
    /// Waits for the budget; for ever if there is nothing to wait for.
    async fn budgeted(blocked: &mut Option<Self>) -> Budgeted {
        let Some(Self { chunk, permit }) = blocked else { return std::future::pending().await };
        let permit = permit.await;
        Budgeted { chunk: chunk.take().expect("a chunk is taken once: the caller forgets it then"), permit }
    }
}

impl<I: Send + 'static, S: Source<I>> Feed<I, S> {
    fn new(outlet: Outlet, source: S, batch: Batch<I>, resume: Resume) -> Self {
        let complete = resume.chunks.iter().all(|chunk| chunk.acknowledged);
        let sealing = resume.sealing.filter(|seal| complete && seal.chunks as usize == resume.chunks.len());
        let probes_max = outlet.board.read(|known| sizing::probes(known.slots));
        Self {
            known: outlet.board.subscribe(),
            outlet,
            source,
            batch,
            recorded_chunks: resume.chunks.len() as u32,
            recorded: resume.chunks.into(),
            sealing,
            ready: VecDeque::new(),
            blocked: None,
            in_flight: JoinSet::new(),
            probes_max,
            ended: false,
            over: false,
        }
    }

    async fn run(mut self) -> Result<(), GridError> {
        let seal = match self.sealing {
            Some(seal) => seal,
            None => {
                self.feed().await?;
                Seal { chunks: self.batch.number(), tasks: self.batch.index() }
            }
        };
        if self.over { Ok(()) } else { self.outlet.seal(seal, self.sealing.is_some()).await }
    }

    async fn feed(&mut self) -> Result<(), GridError> {
        loop {
            self.dispatch()?;
            let idle = self.ready.is_empty() && self.blocked.is_none() && self.in_flight.is_empty();
            if self.over || (self.ended && idle) {
                return Ok(());
            }
            if !self.ended && self.batch.is_empty() {
                self.begin_chunk().await?;
            }
            let room = self.blocked.is_none() && self.ready.len() < CHUNKS_READY_MAX;
            let probing = room && !self.ended && self.must_probe();
            if !room {
                let bytes = self.outlet.budget.taken();
                self.outlet.board.wait_for(Some(Waiting::Acknowledgement { bytes }));
            } else if probing {
                self.outlet.board.wait_for(Some(Waiting::Estimate));
            }
            tokio::select! {
                biased;
                () = cancelled(&mut self.known) => self.over = true,
                Some(done) = self.in_flight.join_next() => self.finished(done)?,
                budgeted = Blocked::budgeted(&mut self.blocked) => {
                    self.blocked = None;
                    self.outlet.board.wait_for(None);
                    self.ready.push_back(budgeted);
                }
                estimated = estimate(&self.outlet), if probing => {
                    estimated?;
                    self.probes_max = self.probes_max.saturating_mul(2);
                    self.outlet.board.wait_for(None);
                }
                filled = self.source.fill(&mut self.batch), if room && !probing && !self.ended => {
                    self.filled(filled?)?;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Passes over what an earlier run has had acknowledged, and sets the size of the next chunk.
    async fn begin_chunk(&mut self) -> Result<(), GridError> {
        while let Some(chunk) = self.recorded.front().copied() {
            if !chunk.acknowledged {
                self.batch.repeat_tasks(chunk.tasks);
                return Ok(());
            }
            let found = self.source.skip(chunk.tasks).await;
            if found < chunk.tasks {
                return Err(self.other_items(chunk.tasks, found));
            }
            self.recorded.pop_front();
            self.batch.skip(chunk.tasks);
            let tasks = u64::from(chunk.tasks);
            self.outlet.board.update(|known| {
                known.submitted += tasks;
                known.acknowledged += tasks;
            });
            tokio::task::yield_now().await;
        }
        if self.batch.number() == limits::JOB_CHUNKS_MAX {
            let message = format!("{} has {} chunks, the most a job may have", self.outlet.job, limits::JOB_CHUNKS_MAX);
            return Err(ApiError::new(Code::TooLarge, message).into());
        }
        let remaining = self.source.remaining();
        let total = remaining.map(|remaining| self.batch.index() + remaining);
        let (estimate, slots) = self.outlet.board.read(|known| (known.estimate, known.slots));
        let chosen = self.outlet.chunk_tasks;
        self.batch.limit_tasks(chosen.unwrap_or_else(|| sizing::chunk_tasks(Known { estimate, slots, remaining })));
        if self.outlet.board.read(|known| known.total) != total {
            self.outlet.board.update(|known| known.total = total);
        }
        Ok(())
    }

    fn other_items(&self, expected: u32, found: u32) -> GridError {
        let (job, chunk) = (self.outlet.job, self.batch.number());
        let journal = self.outlet.journal.as_ref().expect("only a journal records chunks");
        journal.error(JournalError::OtherItems { job, chunk, expected, found })
    }

    /// Whether the next chunk would be one more guess at an unknown function.
    fn must_probe(&self) -> bool {
        let guessing = !self.outlet.ordered && self.outlet.chunk_tasks.is_none() && self.recorded.is_empty();
        guessing
            && u64::from(self.batch.number()) >= self.probes_max
            && self.source.remaining() != Some(0)
            && self.outlet.board.read(|known| known.estimate.tasks == 0)
    }

    fn filled(&mut self, filled: Filled) -> Result<(), GridError> {
        if filled == Filled::End {
            self.ended = true;
            if let Some(chunk) = self.recorded.front()
                && self.batch.tasks() < chunk.tasks
            {
                return Err(self.other_items(chunk.tasks, self.batch.tasks()));
            }
            if self.batch.is_empty() {
                return Ok(());
            }
        }
        self.recorded.pop_front();
        let chunk = self.batch.close();
        self.outlet.board.update(|known| known.submitted += u64::from(chunk.pack.tasks()));
        match self.outlet.budget.try_take(chunk.bytes()) {
            Some(permit) => self.ready.push_back(Budgeted { chunk, permit }),
            None => {
                let permit = Box::pin(self.outlet.budget.clone().take(chunk.bytes()));
                self.blocked = Some(Blocked { chunk: Some(chunk), permit });
            }
        }
        Ok(())
    }

    /// Starts submissions, while there is something to send and fewer than [`SUBMISSIONS_MAX`] are under way.
    fn dispatch(&mut self) -> Result<(), GridError> {
        while !self.over && !self.ready.is_empty() && self.in_flight.len() < SUBMISSIONS_MAX {
            let chunks = group(self.ready.iter().map(|ready| ready.chunk.bytes()));
            let chunks: Vec<Budgeted> = self.ready.drain(..chunks).collect();
            let Outlet { api, job, journal, board, .. } = &self.outlet;
            if let Some(journal) = journal {
                let new = chunks.iter().filter(|ready| ready.chunk.number >= self.recorded_chunks);
                journal.chunks(new.map(|Budgeted { chunk, .. }| (chunk.number, chunk.pack.tasks())))?;
            }
            self.in_flight.spawn(submit(Arc::clone(api), *job, chunks, journal.clone(), Arc::clone(board)));
        }
        Ok(())
    }

    fn finished(&mut self, done: Result<Result<Submitted, GridError>, JoinError>) -> Result<(), GridError> {
        match joined(done)? {
            Submitted::All => {}
            Submitted::Over => self.over = true,
        }
        Ok(())
    }
}

/// The result of a task of ours, with its panic, if it had one, continued here.
pub(crate) fn joined<T>(done: Result<Result<T, GridError>, JoinError>) -> Result<T, GridError> {
    match done {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(GridError::Closed { what: "the grid had answered".into() }),
        },
    }
}

/// Waits until it is known here that the job was cancelled. An idle stream would never learn it otherwise.
async fn cancelled(known: &mut watch::Receiver<BoardView>) {
    if known.wait_for(|known| known.state.is_cancelled()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Asks the grid how long the function takes, waiting a little for a first task to have ended.
async fn estimate(outlet: &Outlet) -> Result<(), GridError> {
    let Outlet { api, job, board, .. } = outlet;
    let seen = board.read(|known| known.summary.chunks_ended);
    let view = retry::call(|| api.progress(*job, Some(seen), PROBE_WAIT_MS)).await?;
    board.saw(&view);
    Ok(())
}
