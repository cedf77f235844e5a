//! The state store in one DynamoDB table.
//!
//! | transition | request | write units, chunk of up to 1 KB | of those, of the index of due chunks |
//! |---|---|---|---|
//! | T1 submit | put if absent | 2 | 1 |
//! | T2 claim | update | 1 | none within 25 s of the submission; else 2, as the due time moves |
//! | T3 take over | update | 3 | 2 |
//! | T4 heartbeat | update | 1 | |
//! | T5 segment, T6 mark | update | 1 | |
//! | T7 release | update | 3 | 2 |
//! | T8 finish, T9 end | update | 2 | 1 |
//! | T10 touch | update | 3 | 2 |
//!
//! Submit, claim and finish are 5 write units a chunk, 7 in a backlog, whether it holds one task or 1,024 (whose marks are 256 bytes); the
//! summary adds 0.03 for each of the two times the result step hears of it in a batch. T9 by a process that has not seen the
//! chunk costs a read before. A refused condition costs the write unit that the write would have cost, and brings the chunk
//! as it is.

mod chunks;
mod history;
pub(crate) mod item;
mod jobs;
mod merge;
mod seen;
mod sums;
mod table;
mod things;
mod transition;
mod update;

#[cfg(test)]
mod tests;

use std::{sync::atomic::AtomicBool, time::Duration};

use aws_config::SdkConfig;
use sheaf_api::wire::{EventView, JobFilter, WorkerView};
use sheaf_core::{
    Chunk, ChunkKey, ChunkSet, Due, Estimate, FunctionName, FunctionRef, Job, JobEvent, JobId, Manifest, Summary,
    TenantId, WorkerId,
};
use sheaf_protocol::{Clock, StateStore, StoreError, SummaryEntry, Write, WriteError, error::JobWriteError};
use tokio::time::Instant;

use crate::SystemClock;

/// Who waits for a change looks for it this often at first, and half as often each time, down to every
/// [`LOOK_MS_MAX`].
const LOOK_MS_MIN: u64 = 100;
const LOOK_MS_MAX: u64 = 2_000;

fn now_ms() -> u64 {
    SystemClock.now_ms()
}

/// Jobs, chunks and the rest in one table (see [`crate::schema`]).
#[derive(Debug)]
pub struct AwsState {
    table: table::Table,
    seen: seen::Seen,
    beginnings: sums::Beginnings,
    estimates: things::Estimates,
    /// Whether the last claim that was stated wrongly had to move the due time: a guess for the next one.
    claims_move_due: AtomicBool,
}

impl AwsState {
    /// The state in a table, which must exist. Nothing is called yet.
    pub fn new(config: &SdkConfig, table: &str) -> Self {
        let (seen, beginnings, estimates, claims_move_due) = Default::default();
        Self { table: table::Table::new(config, table), seen, beginnings, estimates, claims_move_due }
    }
}

impl StateStore for AwsState {
    async fn create_job(&self, job: Job) -> Result<Job, StoreError> {
        self.put_job(job).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.stored_job(id).await?.map(|stored| stored.job))
    }

    async fn apply_job(&self, id: JobId, event: JobEvent) -> Result<Job, JobWriteError> {
        self.move_job(id, event).await
    }

    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        self.list_jobs(tenant, filter).await
    }

    async fn delete_job(&self, id: JobId) -> Result<(), StoreError> {
        self.forget_job(id).await
    }

    async fn apply(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        self.apply_all(writes).await
    }

    async fn chunks(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        self.read_all(keys).await
    }

    async fn chunks_from(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<Chunk>, StoreError> {
        self.read_from(job, from, limit).await
    }

    async fn due(
        &self,
        after: Option<(Due, ChunkKey)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        self.read_due(after, until_ms, limit).await
    }

    async fn summarise(&self, job: JobId, entries: &[SummaryEntry]) -> Result<Summary, StoreError> {
        Ok(self.add_to_sums(job, entries).await?.summary)
    }

    async fn summary(&self, job: JobId) -> Result<Summary, StoreError> {
        Ok(self.tally(job).await?.summary)
    }

    async fn ended(&self, job: JobId, have: &ChunkSet, limit: usize) -> Result<Vec<u32>, StoreError> {
        let tally = self.tally(job).await?;
        Ok((&tally.ended - have).iter().take(limit).collect())
    }

    /// Looks again and again: a table wakes nobody.
    async fn changed(&self, job: JobId, seen: u64, state: &'static str, wait_ms: u64) {
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let mut pause_ms = LOOK_MS_MIN;
        loop {
            let moved = match (self.job(job).await, self.summary(job).await) {
                (Ok(Some(job)), Ok(summary)) => summary.chunks_ended > seen || job.state.as_str() != state,
                _ => true,
            };
            let next = Instant::now() + Duration::from_millis(pause_ms);
            if moved || Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(next.min(until)).await;
            pause_ms = (2 * pause_ms).min(LOOK_MS_MAX);
        }
    }

    async fn events(&self, job: JobId, from: u64, limit: usize) -> Result<Vec<EventView>, StoreError> {
        self.history(job, from, limit).await
    }

    async fn put_function(&self, reference: &FunctionRef, manifest: &Manifest) -> Result<(), StoreError> {
        self.keep_function(reference, manifest).await
    }

    async fn function(&self, reference: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        self.manifest(reference).await
    }

    async fn newest(&self, name: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        self.newest_version(name).await
    }

    async fn functions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        self.newest_versions().await
    }

    async fn estimate(&self, function: &FunctionRef) -> Estimate {
        self.known_estimate(function).await
    }

    async fn observe(&self, function: &FunctionRef, tasks: u64, mean_us: f64, max_us: f64) {
        self.take_in(function, tasks, mean_us, max_us).await;
    }

    async fn put_worker(&self, worker: WorkerView) {
        self.keep_worker(&worker).await;
    }

    async fn remove_worker(&self, worker: &WorkerId) {
        self.forget_worker(worker).await;
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        self.recent_workers().await
    }
}
