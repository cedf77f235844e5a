//! How much work containers have before them, by which their number is chosen (see [`crate::scale`]).
//!
//! It is the tasks that have no outcome yet, in flight included, each taken to last as long as its submitter expects, else as its
//! function's tasks have so far, and half a minute where nobody knows. A job of several functions is taken to be of its first one.
//!
//! Costs, for each job of these lanes that is not over, a read of its summary and one of its function's estimate.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use sheaf_core::{Estimate, Job, JobId, JobState, Lane, Priority, TenantId};
use sheaf_protocol::{Ports, StateStore, StoreError, sweep::Pages};

/// Jobs looked at at once.
const CONCURRENT_MAX: usize = 16;
/// The lanes of containers.
const LANES: [Lane; 2] = [Lane::Spot, Lane::OnDemand];

/// The open work of one job of a lane of containers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenWork {
    pub(crate) job: JobId,
    /// The function that all of it is taken to be of.
    pub(crate) function: String,
    pub(crate) lane: Lane,
    pub(crate) priority: Priority,
    pub(crate) deadline_ms: Option<u64>,
    /// Whether its tasks run one after the other.
    pub(crate) ordered: bool,
    /// Whether no more tasks can come.
    pub(crate) sealed: bool,
    /// Tasks submitted so far.
    pub(crate) submitted: u64,
    /// Tasks of chunks that are not over.
    pub(crate) tasks: u64,
    /// Chunks that are not over.
    pub(crate) chunks: u64,
    pub(crate) estimate: Estimate,
    /// What its submitter expects a task to take.
    pub(crate) task_ms: Option<u64>,
}

impl OpenWork {
    /// What is known of how long its tasks take.
    pub(crate) fn estimate(&self) -> sheaf_scheduler::Estimate {
        let seen = |us: f64| (self.estimate.tasks > 0).then_some(us / 1e6);
        sheaf_scheduler::Estimate {
            hint_s: self.task_ms.map(|task_ms| task_ms as f64 / 1e3),
            mean_s: seen(self.estimate.mean_us),
            p95_s: seen(self.estimate.p95_us),
        }
    }
}

/// The open work of all jobs of these lanes that are not over. A job that cannot be read is logged, and left out.
pub(crate) async fn open<P: Ports>(ports: &P, tenant: &TenantId) -> Result<Vec<OpenWork>, StoreError> {
    let (mut pages, mut open) = (Pages::new(true), Vec::new());
    while let Some(jobs) = pages.next(ports, tenant).await? {
        // What is being cancelled is not run any more.
        let runs = |job: &&Job| !matches!(job.state, JobState::Cancelling { .. }) && LANES.contains(&job.options.lane);
        let jobs = stream::iter(jobs.iter().filter(runs)).map(|job| of(ports, job));
        for work in jobs.buffer_unordered(CONCURRENT_MAX).collect::<Vec<_>>().await {
            match work {
                Ok(work) => open.extend(work),
                Err(error @ StoreError::Damaged { .. }) => tracing::error!(%error, "a job's work is not counted"),
                Err(error) => return Err(error),
            }
        }
    }
    // Whatever came back first: the same jobs are the same list.
    open.sort_unstable_by_key(|work| work.job);
    Ok(open)
}

async fn of<P: Ports>(ports: &P, job: &Job) -> Result<Option<OpenWork>, StoreError> {
    let summary = ports.state().summary(job.id).await?;
    let Some(function) = job.options.functions.first() else { return Ok(None) };
    let options = &job.options;
    Ok(Some(OpenWork {
        job: job.id,
        function: function.to_string(),
        lane: options.lane,
        priority: options.priority,
        deadline_ms: options.deadline_ms,
        ordered: options.ordered,
        sealed: job.state.seal().is_some(),
        submitted: summary.tasks_submitted,
        tasks: summary.tasks_submitted.saturating_sub(summary.totals.ended()),
        chunks: summary.chunks_submitted.saturating_sub(summary.chunks_ended),
        estimate: ports.state().estimate(function).await,
        task_ms: options.task_ms,
    }))
}

/// Seconds of work by lane; nothing of a lane without a job that is not over.
pub(crate) fn seconds(open: &[OpenWork]) -> BTreeMap<Lane, f64> {
    let mut seconds = BTreeMap::new();
    for work in open {
        *seconds.entry(work.lane).or_default() += work.estimate().work_s(work.tasks);
    }
    seconds
}
