//! Queues that lose things, and what an operator does to them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use sheaf_api::wire::JobFilter;
use sheaf_aws::schema;
use sheaf_core::{Job, Lane, Priority, TenantId, limits};
use sheaf_protocol::{Ports, StateStore};

use crate::{deployed::Deployed, jobs};

const PATIENCE: Duration = Duration::from_secs(300);
/// More than can be under way when their hints are thrown away.
const TASKS: u32 = 600;
/// So many hints are lost at least.
const LOST_MIN: u64 = 100;

/// All jobs of the grid.
pub(crate) async fn jobs(grid: &Deployed) -> anyhow::Result<Vec<Job>> {
    let filter = JobFilter { limit: limits::PAGE_ROWS_MAX, ..JobFilter::default() };
    Ok(grid.ports.state().jobs(&TenantId::default(), &filter).await?)
}

/// Loses every hint that waits, in the middle of a job.
pub(crate) async fn purged(grid: &Deployed) -> anyhow::Result<String> {
    let job = jobs::sleepers(grid, TASKS, 500, 1).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let queue = schema::queue_name(&grid.settings.queues, Lane::Lambda, Priority::Normal);
    let lost = sheaf_aws::operate::waiting(&queue).await?;
    sheaf_aws::operate::purge(&queue).await?;
    let purged = Instant::now();
    ensure!(lost >= LOST_MIN, "only {lost} hints were there to be lost");
    let ended = grid.ports.state().summary(job).await?.totals.ended();
    let totals = grid.wait(job, PATIENCE).await?;
    ensure!(totals.succeeded == u64::from(TASKS), "{totals:?}");
    let seconds = purged.elapsed().as_secs_f64();
    Ok(format!(
        "{ended} of {TASKS} were done when about {lost} hints were lost; the sweeper sent them again, and all was done in {seconds:.0} s"
    ))
}

/// Sends a message to a queue of the grid.
pub(crate) async fn send(grid: &Deployed, queue: &str, body: &str) -> anyhow::Result<()> {
    Ok(sheaf_aws::operate::send(&format!("{}-{queue}", grid.settings.queues), body).await?)
}

/// Waits until nothing of a queue waits or is in flight.
pub(crate) async fn drained(grid: &Deployed, queue: &str, at_most: Duration) -> anyhow::Result<()> {
    let (name, started) = (format!("{}-{queue}", grid.settings.queues), Instant::now());
    while sheaf_aws::operate::messages(&name).await? > 0 {
        ensure!(started.elapsed() < at_most, "{name} was not empty after {} s", at_most.as_secs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// The event that S3 sends of an object, and whether it is that of the upload itself: without versions, only S3 knows what
/// tells one upload of a key from the next.
pub(crate) async fn upload_event(grid: &Deployed, key: &str) -> anyhow::Result<(String, bool)> {
    let (version, tag, size) = sheaf_aws::operate::version_of(&grid.settings.bucket, key).await?;
    let mut object = json!({ "key": key, "size": size, "eTag": tag, "sequencer": "00E2E0000000000001" });
    if let Some(version) = &version {
        object["versionId"] = json!(version);
    }
    let event = json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": { "bucket": { "name": grid.settings.bucket }, "object": object },
    }] });
    Ok((event.to_string(), version.is_some()))
}
