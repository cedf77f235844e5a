//! The calls of the grid, in one place: implemented by the steps (`sheaf-protocol`) and by the HTTP client of the SDK,
//! and served by the router (`sheaf-http`), so that code written against one works against all.

use std::future::Future;

use bytes::Bytes;
use sheaf_core::{JobId, Seal, TaskId};

use crate::{
    ApiError,
    wire::{
        CreateJob, EventView, FunctionView, GridView, JobFilter, JobView, Page, PutFunction, ReadResults, ResultsPage,
        RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
    },
};

/// What a call gives.
pub type Answer<T> = Result<T, ApiError>;

/// The calls. Every write may be repeated: it answers the same and happens once.
pub trait Api: Send + Sync + 'static {
    /// Says what grid this is.
    fn grid(&self) -> impl Future<Output = Answer<GridView>> + Send;

    /// Creates a job. Repeating it with the same id and options answers the same job.
    fn create_job(&self, request: CreateJob) -> impl Future<Output = Answer<JobView>> + Send;

    /// Submits up to [`sheaf_core::limits::WRITES_PER_CALL_MAX`] chunks. `Accepted` and `Exists` mean durable. Costs one
    /// blob and one conditional write per chunk, and one hint per chunk that may be lost.
    fn submit(&self, job: JobId, chunks: Vec<SubmitChunk>) -> impl Future<Output = Answer<SubmitReply>> + Send;

    /// Fixes a job's size; only then can it be done.
    fn seal(&self, job: JobId, seal: Seal) -> impl Future<Output = Answer<JobView>> + Send;

    /// Where a job stands. Waits up to `wait_ms` for something to have changed since `seen` chunks had ended.
    fn progress(&self, job: JobId, seen: Option<u64>, wait_ms: u64) -> impl Future<Output = Answer<JobView>> + Send;

    /// Results of chunks that have ended and that the reader does not have. Never the same chunk twice in one page, and
    /// never a chunk whose results may still change.
    fn results(&self, job: JobId, read: ReadResults) -> impl Future<Output = Answer<ResultsPage>> + Send;

    /// Cancels a job. The wish is durable when this answers; the job's state says whether it is carried out.
    fn cancel(&self, job: JobId) -> impl Future<Output = Answer<JobView>> + Send;

    /// Runs what failed in a job that is over again, as a new job.
    fn retry(&self, job: JobId, request: RetryJob) -> impl Future<Output = Answer<JobView>> + Send;

    /// Lists jobs, newest first.
    fn jobs(&self, filter: JobFilter) -> impl Future<Output = Answer<Page<JobView>>> + Send;

    /// Explains a task.
    fn task(&self, task: TaskId) -> impl Future<Output = Answer<TaskView>> + Send;

    /// What a task printed, all attempts together; empty when nothing is kept.
    fn logs(&self, task: TaskId) -> impl Future<Output = Answer<Bytes>> + Send;

    /// A job's history from event number `from` on, oldest first, at most a page.
    fn events(&self, job: JobId, from: u64) -> impl Future<Output = Answer<Page<EventView>>> + Send;

    /// Declares a function.
    fn put_function(&self, request: PutFunction) -> impl Future<Output = Answer<FunctionView>> + Send;

    /// A function, by `name` (its newest version) or `name@version`.
    fn function(&self, name: &str) -> impl Future<Output = Answer<FunctionView>> + Send;

    /// Lists the newest version of every function, by name.
    fn functions(&self) -> impl Future<Output = Answer<Page<FunctionView>>> + Send;

    /// Lists the workers heard of lately.
    fn workers(&self) -> impl Future<Output = Answer<Page<WorkerView>>> + Send;
}
