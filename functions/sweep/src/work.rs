//! How much work containers have before them, by which their number is chosen (`infra/terraform/modules/workers/scaling.tf`).
//!
//! It is the tasks that have no outcome yet, in flight included, each taken to last as long as its function's tasks have so far.
//! Of a function that nobody knows, nothing is told: the messages of its queues, which count for a second each, start the first
//! container, and its first tasks tell the rest. A job of several functions is taken to be of its first one.
//!
//! Costs, for each job of these lanes that is not over, a read of its summary and one of its function's estimate a minute.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use sheaf_core::{Job, Lane, TenantId};
use sheaf_protocol::{Ports, StateStore, StoreError, sweep::Pages};

/// Jobs looked at at once.
const CONCURRENT_MAX: usize = 16;
/// The lanes of containers.
const LANES: [Lane; 2] = [Lane::Spot, Lane::OnDemand];

/// Seconds of work by lane; nothing of a lane without a job that is not over.
pub(crate) async fn work<P: Ports>(ports: &P, tenant: &TenantId) -> Result<BTreeMap<Lane, f64>, StoreError> {
    let (mut pages, mut work) = (Pages::new(true), BTreeMap::new());
    while let Some(jobs) = pages.next(ports, tenant).await? {
        let jobs = jobs.iter().filter(|job| LANES.contains(&job.options.lane));
        let seconds = stream::iter(jobs).map(async |job| (job.options.lane, seconds(ports, job).await));
        for (lane, seconds) in seconds.buffer_unordered(CONCURRENT_MAX).collect::<Vec<_>>().await {
            match seconds {
                Ok(seconds) => *work.entry(lane).or_default() += seconds,
                Err(error @ StoreError::Damaged { .. }) => tracing::error!(%error, "a job's work is not counted"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(work)
}

async fn seconds<P: Ports>(ports: &P, job: &Job) -> Result<f64, StoreError> {
    let summary = ports.state().summary(job.id).await?;
    let Some(function) = job.options.functions.first() else { return Ok(0.0) };
    let open = summary.tasks_submitted.saturating_sub(summary.totals.ended());
    Ok(open as f64 * ports.state().estimate(function).await.mean_us / 1e6)
}
