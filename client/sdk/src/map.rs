//! Jobs of many tasks: what is asked of the job, and the items it is made of.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{Stream, future::BoxFuture};
use sheaf_api::{
    Api, Code,
    wire::{CreateJob, JobView},
};
use sheaf_core::{JobId, Lane, Priority, limits};

use crate::{
    batch::{Batch, Closing},
    error::{GridError, JournalError},
    feed::{self, Outlet},
    function::{Decode, Function},
    grid::Grid,
    job::new_id,
    journal::{Journal, Opening, Resume},
    progress::{Board, Phase},
    results::Results,
    retry,
    source::{FromIterator, FromStream, Source},
    transport::Transport,
};

/// What is asked of a job. Made by [`Grid::job`], ended by [`JobBuilder::map`] or [`JobBuilder::map_stream`].
#[derive(Debug, Clone)]
#[must_use = "a job begins with `map(…).start()`"]
pub struct JobBuilder {
    grid: Grid,
    request: CreateJob,
    id: Option<JobId>,
    deadline: Option<Duration>,
    journal: Option<PathBuf>,
    again: bool,
    chunk_tasks: Option<u32>,
    linger: Duration,
    compress: bool,
}

impl JobBuilder {
    pub(crate) fn new(grid: Grid, name: String) -> Self {
        let linger = grid.options().linger;
        let request = CreateJob { name, ..CreateJob::new(new_id(), Vec::new()) };
        Self {
            grid,
            request,
            id: None,
            deadline: None,
            journal: None,
            again: false,
            chunk_tasks: None,
            linger,
            compress: false,
        }
    }

    /// Tries a task up to so many times when its function reports an error. 1 (the default) to
    /// [`limits::TASK_ATTEMPTS_MAX`]; the grid checks. Lost machines are not counted.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.request.max_attempts = Some(attempts);
        self
    }

    /// Starts no task later than so long after the job's start; what has not started by then expires. One that cannot be kept, as
    /// far as is known of the function and the grid, is logged as a warning once all is submitted; see
    /// [`JobView::lateness`](crate::api::wire::JobView::lateness) of [`Job::info`](crate::Job::info).
    pub const fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Starts no task later than at this time.
    pub fn deadline_at(mut self, at: SystemTime) -> Self {
        self.deadline = None;
        self.request.deadline_ms = Some(unix_ms(at));
        self
    }

    /// How urgent it is; normal by default.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.request.priority = priority;
        self
    }

    /// Where it runs; short tasks' lane by default. A grid in one process has one lane only.
    pub const fn lane(mut self, lane: Lane) -> Self {
        self.request.lane = lane;
        self
    }

    /// Runs its tasks one after the other, in their order. At most [`limits::ORDERED_TASKS_MAX`] of them.
    pub const fn ordered(mut self) -> Self {
        self.request.ordered = true;
        self
    }

    /// Cancels the job once so many tasks have failed or were quarantined. At least 1.
    pub const fn fail_fast(mut self, failures: u64) -> Self {
        self.request.fail_fast = Some(failures);
        self
    }

    /// Says how long a task is expected to take, 1 ms at least: a hint, for the size of chunks until the function has been seen, and
    /// for how many machines a grid with machines holds.
    pub fn expect(mut self, task: Duration) -> Self {
        self.request.task_ms = Some(u64::try_from(task.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }

    /// Attaches a label, to find the job by. All labels together up to 4,096 bytes.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.labels.insert(name.into(), value.into());
        self
    }

    /// Keeps the job for so long after its end; 30 days by default.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.request.retention_ms = Some(retention.as_millis().try_into().unwrap_or(u64::MAX));
        self
    }

    /// Gives the job this id instead of a fresh one. Starting it twice with the same id, options and items is the same job.
    pub const fn id(mut self, id: JobId) -> Self {
        self.id = Some(id);
        self
    }

    /// Keeps a journal in this file, so that a run that was killed can be continued: start it again with the same journal,
    /// options and items. Items that were acknowledged are passed over, and results that the reader has dealt with are not
    /// given again (see [`Results::delivered`]).
    ///
    /// A journal belongs to one job for ever: when all of it was given, starting again gives nothing. Remove the file to
    /// run the items again.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// On a journal that was used before, gives the results that were dealt with again.
    pub const fn give_again(mut self) -> Self {
        self.again = true;
        self
    }

    /// Packs so many tasks into each chunk, 1 to [`limits::CHUNK_TASKS_MAX`], instead of as many as the function's run time
    /// suggests.
    pub fn chunk_tasks(mut self, tasks: u32) -> Self {
        self.chunk_tasks = Some(tasks.clamp(1, limits::CHUNK_TASKS_MAX));
        self
    }

    /// Sends a chunk so long after its first task at the latest, full or not. 5 ms by default.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Compresses packs with zstd where that saves something. Off by default: worth it when the way to the grid is slow or
    /// paid for by the byte.
    pub const fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// Makes a task of each item. The iterator runs on the runtime, a chunk at a time: it may compute, but if it blocks
    /// (on a file, a socket, a lock) give a stream to [`JobBuilder::map_stream`] instead.
    pub fn map<I, O, T>(self, function: &Function<I, O>, items: T) -> Map<O>
    where
        I: Send + 'static,
        T: IntoIterator<Item = I>,
        T::IntoIter: Send + 'static,
    {
        self.source(function, FromIterator::new(items.into_iter()))
    }

    /// Makes a task of each item of a stream, as they come.
    pub fn map_stream<I, O, S>(self, function: &Function<I, O>, items: S) -> Map<O>
    where
        I: Send + 'static,
        S: Stream<Item = I> + Send + 'static,
    {
        self.source(function, FromStream(Box::pin(items)))
    }

    fn source<I: Send + 'static, O>(mut self, function: &Function<I, O>, source: impl Source<I>) -> Map<O> {
        self.request.functions = vec![function.name().to_owned()];
        let encode = function.encode;
        let feed: Feed = Box::new(move |outlet, closing, resume| {
            Box::pin(feed::run(outlet, source, Batch::new(encode, closing), resume))
        });
        Map { builder: self, decode: function.decode, feed }
    }
}

type Feed = Box<dyn FnOnce(Outlet, Closing, Resume) -> BoxFuture<'static, ()> + Send>;

/// A job with its items, not yet begun.
#[must_use = "nothing happens before `start`"]
pub struct Map<O> {
    builder: JobBuilder,
    decode: Decode<O>,
    feed: Feed,
}

impl<O> fmt::Debug for Map<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Map").field(&self.builder).finish()
    }
}

impl<O> Map<O> {
    /// Creates the job and begins to submit its items in the background. Read the results to learn what becomes of them;
    /// submitting goes on whether they are read or not, bounded by the handle's byte budget.
    ///
    /// Fails if the journal cannot be used or the grid does not take the job; what goes wrong later comes out of the
    /// results.
    pub async fn start(self) -> Result<Results<O>, GridError> {
        let Self { builder, decode, feed } = self;
        let JobBuilder { grid, mut request, id, deadline, journal, again, chunk_tasks, linger, compress } = builder;
        if let Some(id) = id {
            request.id = id;
        }
        if let Some(deadline) = deadline {
            request.deadline_ms = Some(unix_ms(SystemTime::now() + deadline));
        }
        let opening = Opening { request, compress };
        let (journal, Opening { request, compress }, resume) = match journal {
            Some(path) => open_journal(path, opening, id).await?,
            None => (None, opening, Resume::default()),
        };
        let api = grid.api_shared();
        let board = create(&api, &request, journal.as_deref(), &resume).await?;
        let ordered = board.ordered;
        let board = Arc::new(board.board);
        let outlet = Outlet {
            api: Arc::clone(&api),
            job: request.id,
            board: Arc::clone(&board),
            budget: grid.budget(),
            journal: journal.clone(),
            chunk_tasks,
            ordered,
        };
        let results = Results::new(api, request.id, board, decode).with_journal(journal, &resume, again);
        grid.spawn(feed(outlet, Closing { linger, compress, ordered }, resume));
        Ok(results)
    }
}

async fn open_journal(
    path: PathBuf,
    opening: Opening,
    id: Option<JobId>,
) -> Result<(Option<Arc<Journal>>, Opening, Resume), GridError> {
    let opened = tokio::task::spawn_blocking(move || Journal::open(&path, opening, id));
    let closed = |_| GridError::Closed { what: "the journal was opened".into() };
    let (journal, opening, resume) = opened.await.map_err(closed)??;
    Ok((Some(Arc::new(journal)), opening, resume))
}

struct Created {
    board: Board,
    ordered: bool,
}

async fn create(
    api: &Transport,
    request: &CreateJob,
    journal: Option<&Journal>,
    resume: &Resume,
) -> Result<Created, GridError> {
    let view = match (journal, resume.created_at_ms) {
        (Some(journal), Some(created_at_ms)) => resumed(api, request.id, journal, created_at_ms).await?,
        (journal, _) => {
            let view = retry::call(|| api.create_job(request.clone())).await?;
            journal.map_or(Ok(()), |journal| journal.created(view.job.created_at_ms))?;
            view
        }
    };
    Ok(Created { board: Board::new(&view, Phase::Feeding), ordered: view.job.options.ordered })
}

/// The job of an earlier run, which must be the one that the journal speaks of: a grid that lost its data, or kept the job
/// no longer, has another or none.
async fn resumed(api: &Transport, id: JobId, journal: &Journal, created_at_ms: u64) -> Result<JobView, GridError> {
    match retry::call(|| api.progress(id, None, 0)).await {
        Ok(view) if view.job.created_at_ms == created_at_ms => Ok(view),
        Ok(_) => Err(journal.error(JournalError::JobLost { job: id })),
        Err(error) if error.code == Code::NotFound => Err(journal.error(JournalError::JobLost { job: id })),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
