//! Reading a job's results: pages from the grid, chunks out, as they end or in order.
//!
//! One page is fetched ahead while another is read. In order, chunks that came too early wait in a buffer of bounded size;
//! beyond it the reader only asks for the chunk that is next, and leaves the others where they are: in the grid.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use sheaf_api::{Api, wire::ReadResults};
use sheaf_core::{ChunkSet, JobId, JobState, limits};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    chunk_results::RawChunk,
    error::GridError,
    feed::joined,
    limits::{REORDER_BYTES_MAX, REORDER_CHUNKS_MAX},
    progress::{Board, is_over},
    retry,
    transport::Transport,
};

/// A checked page.
struct Fetched {
    chunks: Vec<RawChunk>,
    state: JobState,
    /// Chunks that the grid is known to have: numbers below are asked for by name, those above are not known of yet.
    chunks_known: u64,
}

/// Chunks that came before their turn.
#[derive(Default)]
struct Reorder {
    next: u32,
    early: BTreeMap<u32, RawChunk>,
    early_bytes: usize,
    chunks_known: u64,
    /// The first chunk behind those that the fetch under way asks for: the window as it was when it began.
    asked_end: u32,
}

pub(crate) struct Reader {
    api: Arc<Transport>,
    job: JobId,
    board: Arc<Board>,
    /// Chunks that were fetched, or that an earlier run has dealt with.
    have: ChunkSet,
    /// Chunks of which an earlier run has dealt with the first tasks.
    partly: HashMap<u32, u32>,
    queue: VecDeque<RawChunk>,
    reorder: Option<Reorder>,
    fetch: Option<AbortOnDropHandle<Result<Fetched, GridError>>>,
    ended: bool,
}

impl Reader {
    pub(crate) fn new(api: Arc<Transport>, job: JobId, board: Arc<Board>) -> Self {
        Self {
            api,
            job,
            board,
            have: ChunkSet::new(),
            partly: HashMap::new(),
            queue: VecDeque::new(),
            reorder: None,
            fetch: None,
            ended: false,
        }
    }

    /// Leaves out what an earlier run has dealt with: `tasks` of the chunk's tasks, from the first.
    pub(crate) fn leave_out(&mut self, number: u32, delivered: u32, tasks: u32) {
        if delivered >= tasks {
            self.have.insert(number);
        } else if delivered > 0 {
            self.partly.insert(number, delivered);
        }
    }

    pub(crate) fn put_in_order(&mut self) {
        if self.reorder.is_some() {
            return;
        }
        self.fetch = None;
        let mut reorder = Reorder::default();
        for chunk in self.queue.drain(..) {
            self.have.remove(chunk.head.number);
            reorder.keep(chunk);
        }
        self.reorder = Some(reorder);
    }

    /// The next chunk, and how many of its tasks were dealt with before.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(RawChunk, u32), GridError>>> {
        loop {
            if let Some(chunk) = self.pop() {
                self.fetch_ahead();
                let from = self.partly.remove(&chunk.head.number).unwrap_or(0);
                return Poll::Ready(Some(Ok((chunk, from))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let mut fetch = match self.fetch.take() {
                Some(fetch) => fetch,
                None => self.start_fetch(),
            };
            let fetched = match Pin::new(&mut fetch).poll(cx) {
                Poll::Pending => {
                    self.fetch = Some(fetch);
                    return Poll::Pending;
                }
                Poll::Ready(done) => joined(done),
            };
            match fetched {
                Ok(page) => self.take_in(page),
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn pop(&mut self) -> Option<RawChunk> {
        match &mut self.reorder {
            None => self.queue.pop_front(),
            Some(reorder) => reorder.pop(&self.have),
        }
    }

    /// As chunks end: always. In order: where the buffer runs low and the grid may have something for it, so that the
    /// fetch cannot outlast the turn of a chunk it does not ask for.
    fn fetch_ahead(&mut self) {
        let wanted = self.reorder.as_ref().is_none_or(|reorder| reorder.runs_low(&self.have));
        if wanted && !self.ended && self.fetch.is_none() {
            self.fetch = Some(self.start_fetch());
        }
    }

    fn start_fetch(&mut self) -> AbortOnDropHandle<Result<Fetched, GridError>> {
        let have = match &mut self.reorder {
            None => self.have.clone(),
            Some(reorder) => reorder.ask(&self.have),
        };
        let (api, job, board) = (Arc::clone(&self.api), self.job, Arc::clone(&self.board));
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                biased;
                page = fetch(&api, job, &board, have) => page,
                error = board.failed() => Err(error),
            }
        }))
    }

    fn take_in(&mut self, page: Fetched) {
        let (over, empty) = (is_over(&page.state), page.chunks.is_empty());
        match &mut self.reorder {
            None => {
                for chunk in page.chunks {
                    if self.have.insert(chunk.head.number) {
                        self.queue.push_back(chunk);
                    }
                }
                let all = match page.state {
                    JobState::Done { seal, .. } => self.have.len() >= u64::from(seal.chunks),
                    _ => false,
                };
                self.ended = all || (over && empty);
            }
            Some(reorder) => {
                reorder.chunks_known = reorder.chunks_known.max(page.chunks_known);
                for chunk in page.chunks {
                    if !self.have.contains(chunk.head.number) {
                        reorder.keep(chunk);
                    }
                }
                let done = match page.state {
                    JobState::Done { seal, .. } => Some(seal.chunks),
                    _ => None,
                };
                if over && empty {
                    self.ended = reorder.pass_gaps(&self.have);
                } else if done.is_some_and(|chunks| reorder.reaches(&self.have, chunks)) {
                    self.ended = true;
                }
            }
        }
    }
}

impl Reorder {
    /// The chunk whose turn it is, if it is here. Those that an earlier run has dealt with have no turn.
    fn pop(&mut self, have: &ChunkSet) -> Option<RawChunk> {
        while have.contains(self.next) {
            self.next += 1;
        }
        let chunk = self.early.remove(&self.next)?;
        self.next += 1;
        self.early_bytes -= chunk.bytes;
        Some(chunk)
    }

    fn window(&self) -> u32 {
        if self.early_bytes >= REORDER_BYTES_MAX { 1 } else { REORDER_CHUNKS_MAX }
    }

    /// Keeps a chunk for later, if it lies in the window and was not kept already.
    fn keep(&mut self, chunk: RawChunk) {
        let number = chunk.head.number;
        if number < self.next || number - self.next >= self.window() {
            return;
        }
        let bytes = chunk.bytes;
        if self.early.insert(number, chunk).is_none() {
            self.early_bytes += bytes;
        }
    }

    fn end(&self) -> u32 {
        self.next.saturating_add(self.window())
    }

    /// What to tell the grid that we have, so that it sends only chunks of the window that are not here.
    fn ask(&mut self, delivered: &ChunkSet) -> ChunkSet {
        self.asked_end = self.end();
        let mut have = delivered.clone();
        have.insert_range(..self.next);
        have.extend(self.early.keys());
        let known = u32::try_from(self.chunks_known).unwrap_or(u32::MAX);
        if self.asked_end < known {
            have.insert_range(self.asked_end..known);
        }
        have
    }

    /// Whether fewer than half of the window are here, and at least one chunk of it is neither here nor dealt with.
    fn runs_low(&self, have: &ChunkSet) -> bool {
        let window = self.window();
        window > 1
            && self.early.len() < window as usize / 2
            && (self.next..self.end()).any(|number| !self.early.contains_key(&number) && !have.contains(number))
    }

    /// The job is over and the grid has nothing more of what was asked for: what is missing there does not exist, as
    /// happens to a job that was cancelled while it was submitted. Gives whether that is all.
    fn pass_gaps(&mut self, have: &ChunkSet) -> bool {
        let last = have.max().map_or(0, |last| u64::from(last) + 1).max(self.chunks_known);
        let early = self.early.first_key_value().map(|(&number, _)| number);
        self.next = self.next.max(early.map_or(self.asked_end, |early| early.min(self.asked_end)));
        early.is_none() && u64::from(self.next) >= last
    }

    /// Whether every chunk of a job of so many was given or is here.
    fn reaches(&self, have: &ChunkSet, chunks: u32) -> bool {
        let mut left = self.next..chunks;
        left.len() <= self.early.len() + have.len() as usize
            && left.all(|number| self.early.contains_key(&number) || have.contains(number))
    }
}

async fn fetch(api: &Transport, job: JobId, board: &Board, have: ChunkSet) -> Result<Fetched, GridError> {
    let read = |wait_ms| ReadResults {
        have: have.clone(),
        wait_ms,
        chunks_max: limits::RESULT_PAGE_CHUNKS_MAX,
        with_packs: false,
    };
    let page = retry::poll(|wait_ms| api.results(job, read(wait_ms))).await?;
    board.saw(&page.job);
    let state = page.job.job.state;
    let sealed = state.seal().map_or(0, |seal| u64::from(seal.chunks));
    let highest = page.chunks.iter().map(|chunk| u64::from(chunk.head.number) + 1).max();
    let chunks_known = sealed.max(page.job.summary.chunks_submitted).max(highest.unwrap_or(0));
    let chunks = page.chunks.into_iter().map(|chunk| RawChunk::parse(job, chunk)).collect::<Result<_, _>>();
    let chunks = chunks.map_err(|source| GridError::Damaged { job, source })?;
    Ok(Fetched { chunks, state, chunks_known })
}
