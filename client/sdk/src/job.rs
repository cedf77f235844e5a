//! A job that exists: from this process or another, running or over.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sheaf_api::{
    Api,
    wire::{EventView, JobView, Page, RetryJob, TaskView},
};
use sheaf_core::{JobId, TaskId};
use uuid::Uuid;

use crate::{
    error::GridError,
    function::{Decode, Function, decode_json, decode_raw},
    progress::{Board, Phase, Progress, is_over},
    results::Results,
    retry,
    transport::Transport,
};

/// A new job's id.
pub(crate) fn new_id() -> JobId {
    JobId::from_uuid(Uuid::now_v7())
}

/// A handle on a job. Cheap to clone; dropping it changes nothing.
#[derive(Clone)]
pub struct Job {
    api: Arc<Transport>,
    id: JobId,
    board: Arc<Board>,
}

impl Job {
    pub(crate) const fn new(api: Arc<Transport>, id: JobId, board: Arc<Board>) -> Self {
        Self { api, id, board }
    }

    /// Attaches to a job that the grid has.
    pub(crate) async fn attach(api: Arc<Transport>, id: JobId) -> Result<Self, GridError> {
        let view = retry::call(|| api.progress(id, None, 0)).await?;
        let board = Arc::new(Board::new(&view, Phase::Elsewhere));
        Ok(Self { api, id, board })
    }

    /// Its id.
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// What was asked, where it stands, and its counts.
    pub async fn info(&self) -> Result<JobView, GridError> {
        let view = retry::call(|| self.api.progress(self.id, None, 0)).await?;
        self.board.saw(&view);
        Ok(view)
    }

    /// Its results, read as JSON. Starts from the first, whoever has read them before; results are kept as long as the job.
    pub fn results<O: DeserializeOwned>(&self) -> Results<O> {
        self.results_by(decode_json)
    }

    /// Its results as bytes.
    pub fn results_raw(&self) -> Results<Bytes> {
        self.results_by(decode_raw)
    }

    /// Its results, read as those of a function.
    pub fn results_of<I, O>(&self, function: &Function<I, O>) -> Results<O> {
        self.results_by(function.decode)
    }

    fn results_by<O>(&self, decode: Decode<O>) -> Results<O> {
        Results::new(Arc::clone(&self.api), self.id, Arc::clone(&self.board), decode)
    }

    /// Watches it.
    pub fn progress(&self) -> Progress {
        Progress::new(Arc::clone(&self.api), self.id, Arc::clone(&self.board))
    }

    /// Waits until it is over, and gives its counts. An open job is not over before somebody seals or cancels it.
    pub async fn wait(&self) -> Result<JobView, GridError> {
        let mut view = self.info().await?;
        while !is_over(&view.job.state) {
            let seen = Some(view.summary.chunks_ended);
            view = retry::poll(|wait_ms| self.api.progress(self.id, seen, wait_ms)).await?;
            self.board.saw(&view);
        }
        Ok(view)
    }

    /// Cancels it. The wish is durable when this returns; afterwards no task starts later than a lease, and nothing that
    /// still runs becomes visible. Cancelling a cancelled job is harmless.
    pub async fn cancel(&self) -> Result<JobView, GridError> {
        let view = retry::call(|| self.api.cancel(self.id)).await?;
        self.board.saw(&view);
        Ok(view)
    }

    /// Runs what failed or was quarantined in it again, as a new job. Its own outcomes stay as they are.
    pub async fn retry_failed(&self) -> Result<Self, GridError> {
        let request = RetryJob { id: new_id() };
        let view = retry::call(|| self.api.retry(self.id, request.clone())).await?;
        let board = Arc::new(Board::new(&view, Phase::Elsewhere));
        Ok(Self { api: Arc::clone(&self.api), id: view.job.id, board })
    }

    /// Why a task is where it is, or failed: its state, attempts and what ended each.
    pub async fn explain(&self, task: TaskId) -> Result<TaskView, GridError> {
        Ok(retry::call(|| self.api.task(task)).await?)
    }

    /// What a task printed, all attempts together.
    pub async fn logs(&self, task: TaskId) -> Result<Bytes, GridError> {
        Ok(retry::call(|| self.api.logs(task)).await?)
    }

    /// A page of its history, from event number `from` on, oldest first.
    pub async fn events(&self, from: u64) -> Result<Page<EventView>, GridError> {
        Ok(retry::call(|| self.api.events(self.id, from)).await?)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({})", self.id)
    }
}
