//! The open job behind the tickets of one function.
//!
//! All tickets of a handle for one function share a job, so that a busy client's tasks travel in chunks like any others. A
//! task goes at once when nothing is under way, and otherwise with those that came until a submission is free, the chunk is
//! full or its oldest task has lingered long enough. One reader resolves the tickets.
//!
//! The job is sealed when the handle is closed or dropped, after [`limits::TICKET_CHUNKS_MAX`] chunks, and when something
//! went wrong with it; the next ticket then begins another.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sheaf_api::{
    Api, ApiError, Code, PackBuilder,
    wire::{CreateJob, ReadResults, ResultsPage},
};
use sheaf_core::{ChunkKey, ChunkSet, JobId, Seal, TaskId, limits as grid_limits};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    batch::Closed,
    chunk_results::RawChunk,
    error::GridError,
    feed::joined,
    job::new_id,
    limits::{self, SUBMISSION_BYTES_TARGET, SUBMISSIONS_MAX, TICKETS_QUEUED_MAX},
    progress::{Board, Phase, is_over},
    retry,
    sizing::{self, Known},
    submission::{Budgeted, Submitted, submit},
    ticket::Settled,
    transport::Transport,
};

/// A task that wants a place.
pub(crate) struct Request {
    pub(crate) payload: Vec<u8>,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) accepted: oneshot::Sender<Result<Accepted, GridError>>,
}

/// A task's place, and where its result will arrive.
pub(crate) struct Accepted {
    pub(crate) id: TaskId,
    pub(crate) settled: oneshot::Receiver<Settled>,
}

/// The jobs behind a handle's tickets, by function.
#[derive(Debug, Default)]
pub(crate) struct TicketJobs {
    open: Mutex<OpenJobs>,
}

#[derive(Debug, Default)]
struct OpenJobs {
    /// No more of them begin: whoever waits for all of them to end would wait for ever.
    closed: bool,
    by_function: HashMap<Arc<str>, mpsc::Sender<Request>>,
}

impl TicketJobs {
    /// The way to a function's job; `start` begins one if there is none that takes requests. `None` once closed.
    pub(crate) fn get(
        &self,
        function: &Arc<str>,
        start: impl FnOnce(mpsc::Receiver<Request>),
    ) -> Option<mpsc::Sender<Request>> {
        let mut open = self.open.lock();
        if open.closed {
            return None;
        }
        if let Some(job) = open.by_function.get(function).filter(|job| !job.is_closed()) {
            return Some(job.clone());
        }
        let (job, requests) = mpsc::channel(TICKETS_QUEUED_MAX);
        open.by_function.insert(Arc::clone(function), job.clone());
        start(requests);
        Some(job)
    }

    /// Lets all of them finish, and none begin.
    pub(crate) fn close(&self) {
        let mut open = self.open.lock();
        open.closed = true;
        open.by_function.clear();
    }
}

/// What such a job needs.
pub(crate) struct TicketJobOptions {
    pub(crate) api: Arc<Transport>,
    pub(crate) function: Arc<str>,
    pub(crate) linger: Duration,
    /// Cancelled when results are waited for no longer.
    pub(crate) closing: CancellationToken,
}

/// Runs such a job until nobody asks any more and every ticket is settled.
pub(crate) async fn run(options: TicketJobOptions, mut requests: mpsc::Receiver<Request>) {
    let name = format!("tickets of {}", options.function);
    let request = CreateJob { name, ..CreateJob::new(new_id(), vec![options.function.to_string()]) };
    match retry::call(|| options.api.create_job(request.clone())).await {
        Ok(view) => {
            let board = Arc::new(Board::new(&view, Phase::Elsewhere));
            TicketJob::new(options, view.job.id, board, requests).run().await;
        }
        Err(error) => {
            requests.close();
            while let Some(request) = requests.recv().await {
                let _ = request.accepted.send(Err(error.clone().into()));
            }
        }
    }
}

type Page = Result<(ResultsPage, Vec<RawChunk>), GridError>;

/// What came of one submission: its chunks, unless they are all durable.
type Sent = Result<(), (Vec<u32>, GridError)>;

struct TicketJob {
    options: TicketJobOptions,
    job: JobId,
    board: Arc<Board>,
    requests: mpsc::Receiver<Request>,
    /// Nobody asks any more, or nobody may.
    closed: bool,
    /// A chunk was not accepted: its number is missing, and the job cannot be sealed.
    broken: bool,
    /// The grid says that the job is over.
    over: bool,
    queue: VecDeque<Request>,
    queued_since: Instant,
    builder: PackBuilder,
    number: u32,
    task_first: u64,
    in_flight: JoinSet<Sent>,
    waiting: HashMap<u32, Vec<oneshot::Sender<Settled>>>,
    have: ChunkSet,
    page: Option<AbortOnDropHandle<Page>>,
}

/// Waits for a page; for ever if none is under way.
async fn next_page(page: &mut Option<AbortOnDropHandle<Page>>) -> Result<(ResultsPage, Vec<RawChunk>), GridError> {
    match page {
        Some(page) => joined(page.await),
        None => std::future::pending().await,
    }
}

impl TicketJob {
    fn new(options: TicketJobOptions, job: JobId, board: Arc<Board>, requests: mpsc::Receiver<Request>) -> Self {
        Self {
            options,
            job,
            board,
            requests,
            closed: false,
            broken: false,
            over: false,
            queue: VecDeque::new(),
            queued_since: Instant::now(),
            builder: PackBuilder::new(),
            number: 0,
            task_first: 0,
            in_flight: JoinSet::new(),
            waiting: HashMap::new(),
            have: ChunkSet::new(),
            page: None,
        }
    }

    async fn run(mut self) {
        while !(self.closed && self.queue.is_empty() && self.in_flight.is_empty()) {
            self.send();
            self.read();
            let room = !self.closed && self.queue.len() < TICKETS_QUEUED_MAX;
            let timed = !self.queue.is_empty() && self.in_flight.len() < SUBMISSIONS_MAX;
            tokio::select! {
                Some(sent) = self.in_flight.join_next() => {
                    self.sent(sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
                }
                page = next_page(&mut self.page) => self.take_in(page),
                request = self.requests.recv(), if room => self.asked(request),
                () = tokio::time::sleep_until(self.queued_since + self.options.linger), if timed => {}
            }
        }
        self.seal().await;
        let closing = self.options.closing.clone();
        tokio::select! {
            () = self.settle_rest() => {}
            () = closing.cancelled() => {}
        }
    }

    fn asked(&mut self, request: Option<Request>) {
        let Some(request) = request else {
            self.closed = true;
            return;
        };
        if self.queue.is_empty() {
            self.queued_since = Instant::now();
        }
        self.queue.push_back(request);
        while self.queue.len() < TICKETS_QUEUED_MAX
            && let Ok(request) = self.requests.try_recv()
        {
            self.queue.push_back(request);
        }
    }

    /// Takes no more requests; those already made are still served, by this job if they can be.
    fn retire(&mut self) {
        self.requests.close();
    }

    /// How many tasks the next chunk holds: an even share of those that wait, as nothing is known of later ones.
    fn chunk_tasks(&self, remaining: Option<u64>) -> usize {
        let (estimate, slots) = self.board.read(|known| (known.estimate, known.slots));
        sizing::chunk_tasks(Known { estimate, slots, remaining }) as usize
    }

    fn is_due(&self) -> bool {
        self.in_flight.is_empty()
            || self.closed
            || self.queue.len() >= self.chunk_tasks(None)
            || self.queued_since.elapsed() >= self.options.linger
    }

    fn send(&mut self) {
        while !self.queue.is_empty() && self.in_flight.len() < SUBMISSIONS_MAX && self.is_due() {
            let (chunks, replies) = self.pack();
            let submitted = submit(Arc::clone(&self.options.api), self.job, chunks, None, Arc::clone(&self.board));
            let job = self.job;
            self.in_flight.spawn(async move {
                let error = match submitted.await {
                    Ok(Submitted::All) => {
                        replies.into_iter().for_each(Reply::accept);
                        return Ok(());
                    }
                    Ok(Submitted::Over) => {
                        ApiError::new(Code::Over, format!("{job}, the job behind tickets, was cancelled")).into()
                    }
                    Err(error) => error,
                };
                let mut numbers: Vec<u32> = replies.iter().map(|reply| reply.id.chunk.number).collect();
                numbers.dedup();
                replies.into_iter().for_each(|reply| drop(reply.accepted.send(Err(error.clone()))));
                Err((numbers, error))
            });
        }
    }

    /// Makes chunks of what waits, as many as one submission takes.
    fn pack(&mut self) -> (Vec<Budgeted>, Vec<Reply>) {
        let chunk_tasks = self.chunk_tasks(Some(self.queue.len() as u64));
        let (mut chunks, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
        while chunks.len() < grid_limits::WRITES_PER_CALL_MAX && bytes < SUBMISSION_BYTES_TARGET {
            let Some(chunk) = self.pack_chunk(chunk_tasks, &mut replies) else { break };
            bytes += chunk.chunk.bytes();
            chunks.push(chunk);
        }
        if self.number >= limits::TICKET_CHUNKS_MAX {
            self.retire();
        }
        (chunks, replies)
    }

    fn pack_chunk(&mut self, tasks_max: usize, replies: &mut Vec<Reply>) -> Option<Budgeted> {
        let chunk = ChunkKey { job: self.job, number: self.number };
        let mut budget: Option<OwnedSemaphorePermit> = None;
        let mut waiting = Vec::new();
        while waiting.len() < tasks_max && self.builder.bytes() < grid_limits::PACK_BYTES_TARGET {
            let Some(Request { payload, permit, accepted }) = self.queue.pop_front() else { break };
            if let Err(error) = self.builder.push(&payload) {
                let _ = accepted.send(Err(ApiError::from(error).into()));
                continue;
            }
            match &mut budget {
                Some(budget) => budget.merge(permit),
                None => budget = Some(permit),
            }
            let (settle, settled) = oneshot::channel();
            replies.push(Reply { id: TaskId { chunk, index: waiting.len() as u32 }, accepted, settled });
            waiting.push(settle);
        }
        let permit = budget?;
        let chunk = Closed { number: self.number, task_first: self.task_first, pack: self.builder.finish(false) };
        self.number += 1;
        self.task_first += waiting.len() as u64;
        self.waiting.insert(chunk.number, waiting);
        Some(Budgeted { chunk, permit })
    }

    fn sent(&mut self, sent: Sent) {
        let Err((numbers, error)) = sent else { return };
        tracing::warn!(job = %self.job, %error, "tickets were not accepted");
        for number in numbers {
            self.waiting.remove(&number);
        }
        self.broken = true;
        self.retire();
    }

    /// Starts to read results, if any are waited for.
    fn read(&mut self) {
        if self.page.is_some() || self.waiting.is_empty() || self.over {
            return;
        }
        let (api, job, board, have) =
            (Arc::clone(&self.options.api), self.job, Arc::clone(&self.board), self.have.clone());
        self.page = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let read = |wait_ms| ReadResults {
                have: have.clone(),
                wait_ms,
                chunks_max: grid_limits::RESULT_PAGE_CHUNKS_MAX,
                with_packs: false,
            };
            let mut page = retry::poll(|wait_ms| api.results(job, read(wait_ms))).await?;
            board.saw(&page.job);
            let chunks = std::mem::take(&mut page.chunks).into_iter().map(|chunk| RawChunk::parse(job, chunk));
            let chunks = chunks.collect::<Result<_, _>>().map_err(|source| GridError::Damaged { job, source })?;
            Ok((page, chunks))
        })));
    }

    fn take_in(&mut self, page: Page) {
        self.page = None;
        match page {
            Ok((page, chunks)) => {
                self.over = chunks.is_empty() && is_over(&page.job.job.state);
                for chunk in chunks {
                    let number = chunk.head.number;
                    self.have.insert(number);
                    let chunk = Arc::new(chunk);
                    let waiting = self.waiting.remove(&number).unwrap_or_default();
                    for (task, settle) in (0..chunk.head.tasks).zip(waiting) {
                        let _ = settle.send(Ok((Arc::clone(&chunk), task)));
                    }
                }
                if self.over {
                    self.retire();
                }
            }
            Err(error) => {
                for settle in self.waiting.drain().flat_map(|(_, waiting)| waiting) {
                    let _ = settle.send(Err(error.clone()));
                }
                self.retire();
            }
        }
    }

    /// A job of which a chunk is missing stays open: sealing it is impossible, and cancelling it would end what was accepted.
    async fn seal(&self) {
        let (api, job) = (&self.options.api, self.job);
        if self.broken {
            return;
        }
        let seal = Seal { chunks: self.number, tasks: self.task_first };
        if let Err(error) = retry::call(|| api.seal(job, seal)).await {
            tracing::warn!(%job, %error, "the job behind tickets was not sealed");
        }
    }

    async fn settle_rest(mut self) {
        while !self.waiting.is_empty() && !self.over {
            self.waiting.retain(|_, waiting| waiting.iter().any(|settle| !settle.is_closed()));
            self.read();
            if self.page.is_none() {
                break;
            }
            let page = next_page(&mut self.page).await;
            self.take_in(page);
        }
    }
}

/// Whom to tell that a task was accepted.
struct Reply {
    id: TaskId,
    accepted: oneshot::Sender<Result<Accepted, GridError>>,
    settled: oneshot::Receiver<Settled>,
}

impl Reply {
    fn accept(self) {
        let _ = self.accepted.send(Ok(Accepted { id: self.id, settled: self.settled }));
    }
}
