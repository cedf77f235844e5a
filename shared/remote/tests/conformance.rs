//! The ports of a grid keep their contracts over HTTP: what a worker calls goes over the wire, the rest to the grid itself.

mod support;

use bytes::Bytes;
use sheaf_api::wire::{EventView, JobFilter, WorkerView};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSet, Due, Estimate, FunctionName, FunctionRef, Job, JobEvent, JobId, Lane,
    Manifest, Summary, TenantId, WorkerId,
};
use sheaf_local::{LocalPorts, SystemClock, ThreadRng};
use sheaf_protocol::{
    BlobStore, ChunkQueue, Delivery, Hint, Ports, Put, StateStore, StoreError, SummaryEntry, Write, WriteError,
    error::JobWriteError,
};
use sheaf_remote::RemotePorts;

use support::Served;

/// A worker's ports where it has any, the grid's elsewhere.
#[derive(Clone)]
struct Both {
    grid: LocalPorts,
    worker: RemotePorts,
}

impl Ports for Both {
    type State = Self;
    type Blobs = Self;
    type Queue = Self;
    type Clock = SystemClock;
    type Rng = ThreadRng;

    fn state(&self) -> &Self {
        self
    }

    fn blobs(&self) -> &Self {
        self
    }

    fn queue(&self) -> &Self {
        self
    }

    fn clock(&self) -> &SystemClock {
        &SystemClock
    }

    fn rng(&self) -> &ThreadRng {
        &ThreadRng
    }
}

const fn is_workers(event: &ChunkEvent) -> bool {
    !matches!(event, ChunkEvent::Submit { .. } | ChunkEvent::Touch { .. })
}

impl StateStore for Both {
    async fn apply(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        if writes.iter().all(|write| is_workers(&write.event)) {
            self.worker.state().apply(writes).await
        } else {
            self.grid.state().apply(writes).await
        }
    }

    async fn chunks(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        self.worker.state().chunks(keys).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.worker.state().job(id).await
    }

    async fn function(&self, reference: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        self.worker.state().function(reference).await
    }

    async fn estimate(&self, function: &FunctionRef) -> Estimate {
        self.worker.state().estimate(function).await
    }

    async fn put_worker(&self, worker: WorkerView) {
        self.worker.state().put_worker(worker).await;
    }

    async fn remove_worker(&self, worker: &WorkerId) {
        self.worker.state().remove_worker(worker).await;
    }

    async fn create_job(&self, job: Job) -> Result<Job, StoreError> {
        self.grid.state().create_job(job).await
    }

    async fn apply_job(&self, id: JobId, event: JobEvent) -> Result<Job, JobWriteError> {
        self.grid.state().apply_job(id, event).await
    }

    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        self.grid.state().jobs(tenant, filter).await
    }

    async fn delete_job(&self, id: JobId) -> Result<(), StoreError> {
        self.grid.state().delete_job(id).await
    }

    async fn chunks_from(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<Chunk>, StoreError> {
        self.grid.state().chunks_from(job, from, limit).await
    }

    async fn due(
        &self,
        after: Option<(Due, ChunkKey)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        self.grid.state().due(after, until_ms, limit).await
    }

    async fn summarise(&self, job: JobId, entries: &[SummaryEntry]) -> Result<Summary, StoreError> {
        self.grid.state().summarise(job, entries).await
    }

    async fn summary(&self, job: JobId) -> Result<Summary, StoreError> {
        self.grid.state().summary(job).await
    }

    async fn ended(&self, job: JobId, have: &ChunkSet, limit: usize) -> Result<Vec<u32>, StoreError> {
        self.grid.state().ended(job, have, limit).await
    }

    async fn changed(&self, job: JobId, seen: u64, state: &'static str, wait_ms: u64) {
        self.grid.state().changed(job, seen, state, wait_ms).await;
    }

    async fn events(&self, job: JobId, from: u64, limit: usize) -> Result<Vec<EventView>, StoreError> {
        self.grid.state().events(job, from, limit).await
    }

    async fn put_function(&self, reference: &FunctionRef, manifest: &Manifest) -> Result<(), StoreError> {
        self.grid.state().put_function(reference, manifest).await
    }

    async fn newest(&self, name: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        self.grid.state().newest(name).await
    }

    async fn functions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        self.grid.state().functions().await
    }

    async fn observe(&self, function: &FunctionRef, tasks: u64, mean_us: f64, max_us: f64) {
        self.grid.state().observe(function, tasks, mean_us, max_us).await;
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        self.grid.state().workers().await
    }
}

impl BlobStore for Both {
    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Vec<Result<Put, StoreError>> {
        if blobs.iter().all(|(key, _)| key.starts_with("r/")) {
            self.worker.blobs().put(blobs).await
        } else {
            self.grid.blobs().put(blobs).await
        }
    }

    async fn get(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        if keys.iter().all(|key| key.starts_with("p/")) {
            self.worker.blobs().get(keys).await
        } else {
            self.grid.blobs().get(keys).await
        }
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        self.grid.blobs().delete_prefix(prefix).await
    }
}

impl ChunkQueue for Both {
    async fn send(&self, hints: Vec<Hint>, delay_ms: u64) {
        self.grid.queue().send(hints, delay_ms).await;
    }

    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        self.worker.queue().receive(lanes, max, wait_ms).await
    }

    async fn delete(&self, delivery: Delivery) {
        self.worker.queue().delete(delivery).await;
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        self.worker.queue().postpone(delivery, delay_ms).await;
    }

    async fn delay_ms(&self) -> u64 {
        self.grid.queue().delay_ms().await
    }
}

async fn fresh() -> (Both, Served) {
    let served = Served::start().await;
    (Both { grid: served.ports.clone(), worker: served.join().await }, served)
}

sheaf_conformance::conformance_tests!(super::fresh().await);
