//! The handle on a grid: where everything starts.

use std::{fmt, future::Future, sync::Arc};

use sheaf_api::{
    Api, ApiError,
    wire::{FunctionView, GridView, JobFilter, JobView, Page, PutFunction, WorkerView},
};
use sheaf_core::JobId;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    budget::Budget,
    connect::ClientOptions,
    error::{GridError, ItemError},
    function::Function,
    job::Job,
    map::JobBuilder,
    retry,
    ticket::Ticket,
    ticket_job::{self, Request, TicketJobOptions, TicketJobs},
    transport::Transport,
};

/// A handle on a grid. Cloning shares it: its connections, its byte budget and the jobs behind its tickets.
///
/// Dropping it cancels nothing. What it was submitting goes on for as long as the runtime lives; [`Grid::close`] waits
/// for it.
#[derive(Clone)]
pub struct Grid {
    inner: Arc<Inner>,
}

struct Inner {
    /// For callers of the calls as they are.
    api: Transport,
    /// For what this crate wraps, which repeats calls itself.
    once: Arc<Transport>,
    options: ClientOptions,
    budget: Budget,
    ticket_jobs: TicketJobs,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Grid {
    pub(crate) fn new(api: Transport, options: ClientOptions) -> Self {
        let budget = Budget::new(options.unacknowledged_bytes);
        let once = Arc::new(api.once());
        let (ticket_jobs, tasks, closing) = (TicketJobs::default(), TaskTracker::new(), CancellationToken::new());
        Self { inner: Arc::new(Inner { api, once, options, budget, ticket_jobs, tasks, closing }) }
    }

    /// A handle on a grid behind any implementation of the calls: another transport, or a double in tests.
    pub fn over(api: impl Api) -> Self {
        Self::new(Transport::other(api), ClientOptions::default())
    }

    /// The calls as they are, for what this crate does not wrap. See [`Transport::once`] for callers that repeat them.
    pub fn api(&self) -> &Transport {
        &self.inner.api
    }

    pub(crate) fn api_shared(&self) -> Arc<Transport> {
        Arc::clone(&self.inner.once)
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    pub(crate) fn budget(&self) -> Budget {
        self.inner.budget.clone()
    }

    /// Runs something that [`Self::close`] waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    /// Begins a job. The name is for people and need not be unique.
    pub fn job(&self, name: impl Into<String>) -> JobBuilder {
        JobBuilder::new(self.clone(), name.into())
    }

    /// Attaches to a job that the grid has, from this process or another, running or over.
    pub async fn attach(&self, id: JobId) -> Result<Job, GridError> {
        Job::attach(self.api_shared(), id).await
    }

    /// Submits one task. When this returns, the task is durable and will end in an outcome whatever crashes; the ticket
    /// gives its result.
    ///
    /// All tickets of a handle for one function share a job, named `tickets of` and the function. Tasks that are submitted
    /// while others are on their way travel together: many concurrent calls are cheap, one after the other costs a round
    /// trip each. For many items at once [`JobBuilder::map`] is the better way. The job is sealed by [`Grid::close`], or
    /// when the last clone of the handle is dropped and the runtime lives on long enough.
    ///
    /// Waits while the handle's budget of unacknowledged bytes is spent. When the future is dropped, the task may have been
    /// submitted.
    pub async fn submit<I, O>(&self, function: &Function<I, O>, item: I) -> Result<Ticket<O>, GridError> {
        let mut buffer = Vec::new();
        let payload = (function.encode)(&item, &mut buffer).map_err(refused)?;
        let mut payload = payload.to_vec();
        if payload.len() > sheaf_core::limits::TASK_BYTES_MAX {
            let (what, found, limit) =
                ("payload bytes", payload.len() as u64, sheaf_core::limits::TASK_BYTES_MAX as u64);
            return Err(ApiError::from(sheaf_api::FormatError::Limit { what, found, limit }).into());
        }
        let name = function.name_shared();
        let closed = || GridError::Closed { what: "the task was submitted".into() };
        loop {
            if self.inner.closing.is_cancelled() {
                return Err(closed());
            }
            let permit = self.budget().take(payload.len()).await;
            let (accepted, place) = oneshot::channel();
            let job = self.inner.ticket_jobs.get(&name, |requests| {
                let options = TicketJobOptions {
                    api: self.api_shared(),
                    function: Arc::clone(&name),
                    linger: self.inner.options.linger,
                    closing: self.inner.closing.clone(),
                };
                self.spawn(ticket_job::run(options, requests));
            });
            // It may have been closed while this waited for the budget.
            let job = job.ok_or_else(closed)?;
            match job.send(Request { payload, permit, accepted }).await {
                Ok(()) => {
                    let place = place.await.map_err(|_| closed())??;
                    return Ok(Ticket::new(place.id, place.settled, function.decode));
                }
                // It had just stopped taking requests; another one begins.
                Err(unsent) => payload = unsent.0.payload,
            }
        }
    }

    /// What grid this is.
    pub async fn info(&self) -> Result<GridView, GridError> {
        Ok(retry::call(|| self.inner.once.grid()).await?)
    }

    /// Lists jobs, newest first.
    pub async fn jobs(&self, filter: JobFilter) -> Result<Page<JobView>, GridError> {
        Ok(retry::call(|| self.inner.once.jobs(filter.clone())).await?)
    }

    /// Declares a function. Repeating it with the same manifest is the same version.
    pub async fn put_function(&self, request: PutFunction) -> Result<FunctionView, GridError> {
        Ok(retry::call(|| self.inner.once.put_function(request.clone())).await?)
    }

    /// A function's newest version by `name`, or a certain one by `name@version`.
    pub async fn function(&self, name: &str) -> Result<FunctionView, GridError> {
        Ok(retry::call(|| self.inner.once.function(name)).await?)
    }

    /// The newest version of every function, by name.
    pub async fn functions(&self) -> Result<Page<FunctionView>, GridError> {
        Ok(retry::call(|| self.inner.once.functions()).await?)
    }

    /// The workers heard of lately.
    pub async fn workers(&self) -> Result<Page<WorkerView>, GridError> {
        Ok(retry::call(|| self.inner.once.workers()).await?)
    }

    /// Waits until everything given to this handle is submitted and sealed, and closes it. An embedded grid is shut down:
    /// running tasks end or are given back, and the next process to open its directory goes on.
    ///
    /// Does not wait for results; tickets that have none yet say so. An iterator or stream without an end keeps it waiting:
    /// cancel its job first.
    pub async fn close(self) {
        self.inner.closing.cancel();
        self.inner.ticket_jobs.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        #[cfg(feature = "embedded")]
        if let Transport::Embedded(grid) = &self.inner.api {
            grid.shutdown().await;
        }
    }
}

fn refused(error: ItemError) -> GridError {
    match error {
        ItemError::Format(error) => ApiError::from(error).into(),
        ItemError::Json(error) => ApiError::invalid(format!("the item cannot be written as JSON: {error}")).into(),
    }
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grid({:?})", self.inner.api)
    }
}
