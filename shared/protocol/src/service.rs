//! The calls of the grid, answered by the steps.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sheaf_api::{
    Answer, Api,
    wire::{
        CreateJob, EventView, FunctionView, GridView, JobFilter, JobView, Page, PutFunction, ReadResults, ResultsPage,
        RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{JobId, Seal, TaskId, TenantId, limits};

use crate::{
    cancel, explain, functions,
    ports::{Ports, StateStore},
    read, retry, submit,
    write::retrying,
};

/// The grid as its clients see it, for one tenant.
#[derive(Debug, Clone)]
pub struct Service<P> {
    ports: P,
    tenant: TenantId,
    /// What the grid says of itself now.
    grid: Arc<Mutex<Arc<GridView>>>,
}

impl<P: Ports> Service<P> {
    /// The service over these ports; `grid` is what it says of itself.
    pub fn new(ports: P, tenant: TenantId, grid: GridView) -> Self {
        Self { ports, tenant, grid: Arc::new(Mutex::new(Arc::new(grid))) }
    }

    /// The ports.
    pub const fn ports(&self) -> &P {
        &self.ports
    }

    /// Takes note of how many tasks the grid runs at once now, where machines of other people join and leave it.
    pub fn set_slots(&self, slots: u32) {
        let mut grid = self.grid.lock().unwrap_or_else(PoisonError::into_inner);
        if grid.slots != slots {
            Arc::make_mut(&mut grid).slots = slots;
        }
    }

    fn view(&self) -> Arc<GridView> {
        self.grid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<P: Ports> Api for Service<P> {
    async fn grid(&self) -> Answer<GridView> {
        Ok(GridView::clone(&self.view()))
    }

    async fn create_job(&self, request: CreateJob) -> Answer<JobView> {
        let job = submit::create(&self.ports, &self.tenant, &request).await?;
        read::view(&self.ports, job, &self.view()).await
    }

    async fn submit(&self, job: JobId, chunks: Vec<SubmitChunk>) -> Answer<SubmitReply> {
        let (job, answers) = submit::submit(&self.ports, &self.tenant, job, chunks).await?;
        let estimate = self.ports.state().estimate(&job.options.functions[0]).await.or_expected(job.options.task_ms);
        Ok(SubmitReply { answers, estimate, slots: self.view().lane(job.options.lane).slots })
    }

    async fn seal(&self, job: JobId, seal: Seal) -> Answer<JobView> {
        let job = submit::seal(&self.ports, &self.tenant, job, seal).await?;
        read::view(&self.ports, job, &self.view()).await
    }

    async fn progress(&self, job: JobId, seen: Option<u64>, wait_ms: u64) -> Answer<JobView> {
        read::progress(&self.ports, &self.tenant, job, seen, wait_ms, &self.view()).await
    }

    async fn results(&self, job: JobId, read: ReadResults) -> Answer<ResultsPage> {
        read::results(&self.ports, &self.tenant, job, &read, &self.view()).await
    }

    async fn cancel(&self, job: JobId) -> Answer<JobView> {
        submit::job(&self.ports, &self.tenant, job).await?;
        cancel::wish(&self.ports, job).await?;
        cancel::carry_out(&self.ports, job).await?;
        read::progress(&self.ports, &self.tenant, job, None, 0, &self.view()).await
    }

    async fn retry(&self, job: JobId, request: RetryJob) -> Answer<JobView> {
        let job = retry::retry(&self.ports, &self.tenant, job, request.id).await?;
        read::view(&self.ports, job, &self.view()).await
    }

    async fn jobs(&self, filter: JobFilter) -> Answer<Page<JobView>> {
        read::jobs(&self.ports, &self.tenant, filter, &self.view()).await
    }

    async fn task(&self, task: TaskId) -> Answer<TaskView> {
        explain::task(&self.ports, &self.tenant, task).await
    }

    async fn logs(&self, task: TaskId) -> Answer<Bytes> {
        explain::logs(&self.ports, &self.tenant, task).await
    }

    async fn events(&self, job: JobId, from: u64) -> Answer<Page<EventView>> {
        submit::job(&self.ports, &self.tenant, job).await?;
        let rows = retrying(&self.ports, || self.ports.state().events(job, from, limits::PAGE_ROWS_MAX)).await?;
        let full = rows.len() >= limits::PAGE_ROWS_MAX;
        let next = rows.last().filter(|_| full).map(|event| (event.number + 1).to_string());
        Ok(Page { rows, next })
    }

    async fn put_function(&self, request: PutFunction) -> Answer<FunctionView> {
        functions::put(&self.ports, request).await
    }

    async fn function(&self, name: &str) -> Answer<FunctionView> {
        functions::view(&self.ports, name).await
    }

    async fn functions(&self) -> Answer<Page<FunctionView>> {
        Ok(Page { rows: functions::list(&self.ports).await?, next: None })
    }

    async fn workers(&self) -> Answer<Page<WorkerView>> {
        let rows = retrying(&self.ports, || self.ports.state().workers()).await?;
        Ok(Page { rows, next: None })
    }
}
