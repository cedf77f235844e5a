//! The state store and the blob store: DynamoDB and S3 as they are on a bad day.

use bytes::Bytes;
use futures::future::join_all;
use sheaf_api::wire::{EventView, JobFilter, WorkerView};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSet, Due, Estimate, FunctionName, FunctionRef, Job, JobEvent, JobId, JobState,
    Manifest, Summary, TenantId, WorkerId,
};
use sheaf_protocol::{BlobStore, Put, StateStore, StoreError, SummaryEntry, Write, WriteError, error::JobWriteError};

use crate::{
    bug::Bug,
    plan::stranger,
    ports::{Fate, Role, SimPorts},
};

impl SimPorts {
    async fn apply_one(&self, write: Write, fate: Fate) -> Result<Chunk, WriteError> {
        let (faults, process, is_worker) = (self.shared_faults(), self.process(), self.role() == Role::Worker);
        if matches!(write.event, ChunkEvent::Submit { .. })
            && self.strikes(0.1)
            && self.sim().cloud(|cloud| cloud.has(Bug::SubmitNotDurable))
        {
            let chunk = Chunk::apply(None, &write.event).expect("nothing is refused where nothing is");
            return Ok(chunk);
        }
        let what = write.event.transition();
        self.send(what, fate, move |sim, cloud| {
            let (index_at_ms, stream_at_ms) = Self::lags(sim, &faults);
            let applied = cloud.apply(&write, sim.now_ms(), index_at_ms, stream_at_ms);
            if fate == Fate::Late && applied.is_err() {
                cloud.audit.counts.one("late write refused");
            }
            if let (Ok(_), ChunkEvent::Claim { owner, .. } | ChunkEvent::TakeOver { owner, .. }) =
                (&applied, &write.event)
            {
                cloud.audit.holders.insert(owner.nonce, process);
            }
            sim.note(process, "applied", || {
                let now = match &applied {
                    Ok(chunk) => format!("{:?} epoch {} rv {}", chunk.state, chunk.epoch, chunk.rv),
                    Err(error) => format!("{error}"),
                };
                format!("{what} {}: {now}", write.key.number)
            });
            let blind = is_worker && cloud.has(Bug::DeadlineUnseen);
            applied.map(|mut chunk| {
                chunk.spec.deadline_ms = chunk.spec.deadline_ms.filter(|_| !blind);
                chunk
            })
        })
        .await?
    }
}

impl StateStore for SimPorts {
    async fn create_job(&self, job: Job) -> Result<Job, StoreError> {
        self.write("create job", move |_, cloud| cloud.jobs.entry(job.id).or_insert(job).clone()).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let (is_worker, is_stranger) = (self.role() == Role::Worker, self.role() == Role::Stranger);
        self.read("read job", move |_, cloud| {
            let mut job = cloud.jobs.get(&id).cloned();
            if let Some(job) = &mut job
                && is_worker
                && cloud.has(Bug::JobNotReadAfterClaim)
            {
                job.state = JobState::Open;
            }
            if let Some(job) = &mut job
                && is_stranger
                && cloud.has(Bug::TenantIgnored)
            {
                job.tenant = stranger();
            }
            job
        })
        .await
    }

    async fn apply_job(&self, id: JobId, event: JobEvent) -> Result<Job, JobWriteError> {
        let process = self.process();
        let applied = self
            .write("write job", move |sim, cloud| {
                let applied = cloud.apply_job(id, &event);
                sim.note(process, "job", || format!("{event:?}: {:?}", applied.as_ref().map(|job| job.state)));
                applied
            })
            .await?;
        applied.map_err(JobWriteError::Refused)
    }

    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        let (tenant, filter, lag_ms) = (tenant.clone(), filter.clone(), self.faults().index_lag_ms);
        self.read("list jobs", move |sim, cloud| {
            let newest_ms = sim.now_ms().saturating_sub(lag_ms);
            let mut jobs: Vec<&Job> = cloud.jobs.values().filter(|job| job.tenant == tenant).collect();
            jobs.sort_by_key(|job| std::cmp::Reverse((job.created_at_ms, job.id)));
            let before = filter.before.and_then(|before| cloud.jobs.get(&before));
            let fits = |job: &&Job| {
                before.is_none_or(|before| (job.created_at_ms, job.id) < (before.created_at_ms, before.id))
                    && (!filter.alive || job.state.ended_at_ms().is_none())
                    // The listing lags: a young job is not on it yet.
                    && (lag_ms == 0 || job.created_at_ms <= newest_ms)
            };
            jobs.into_iter().filter(fits).take(filter.limit).cloned().collect()
        })
        .await
    }

    async fn delete_job(&self, id: JobId) -> Result<(), StoreError> {
        self.write("delete job", move |_, cloud| {
            let keys: Vec<ChunkKey> = cloud.chunks_of(id).map(|chunk| chunk.spec.key).collect();
            keys.iter().for_each(|key| drop(cloud.chunks.remove(key)));
            cloud.tallies.remove(&id);
            cloud.jobs.remove(&id);
        })
        .await
    }

    async fn apply(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        // Each write of a call has its own fate; the call has one answer.
        let fates: Vec<Fate> = writes.iter().map(|_| self.fate()).collect();
        if fates.len() > 1 && fates.iter().any(|fate| *fate != fates[0]) {
            self.sim().cloud(|cloud| cloud.audit.counts.one("batches failed in part"));
        }
        join_all(writes.into_iter().zip(fates).map(|(write, fate)| self.apply_one(write, fate))).await
    }

    async fn chunks(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        let keys = keys.to_vec();
        self.read("read chunks", move |_, cloud| keys.iter().map(|key| cloud.chunks.get(key).cloned()).collect()).await
    }

    async fn chunks_from(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<Chunk>, StoreError> {
        self.read("read chunks", move |_, cloud| {
            cloud.chunks_of(job).skip_while(|chunk| chunk.spec.key.number < from).take(limit).cloned().collect()
        })
        .await
    }

    async fn due(
        &self,
        after: Option<(Due, ChunkKey)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        self.read("read due", move |sim, cloud| {
            cloud.catch_up(sim.now_ms());
            let mut due: Vec<(Due, ChunkKey)> = match after {
                Some(after) => {
                    cloud.index.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)).copied().collect()
                }
                None => cloud.index.iter().copied().collect(),
            };
            due.retain(|(due_ms, _)| *due_ms <= until_ms);
            due.truncate(limit);
            due
        })
        .await
    }

    async fn summarise(&self, job: JobId, entries: &[SummaryEntry]) -> Result<Summary, StoreError> {
        let entries = entries.to_vec();
        self.write("summarise", move |_, cloud| cloud.summarise(job, &entries)).await
    }

    async fn summary(&self, job: JobId) -> Result<Summary, StoreError> {
        self.read("read summary", move |_, cloud| cloud.summary(job)).await
    }

    async fn ended(&self, job: JobId, have: &ChunkSet, limit: usize) -> Result<Vec<u32>, StoreError> {
        let have = have.clone();
        self.read("read ended", move |_, cloud| {
            let ended = cloud.tallies.get(&job).map(|tally| &tally.ended - &have).unwrap_or_default();
            ended.iter().take(limit).collect()
        })
        .await
    }

    async fn changed(&self, job: JobId, seen: u64, state: &'static str, wait_ms: u64) {
        let until_ms = self.sim().now_ms() + wait_ms;
        loop {
            let moved = self.sim().cloud(|cloud| {
                let is_other = |job: &Job| job.state.as_str() != state;
                cloud.summary(job).chunks_ended > seen || cloud.jobs.get(&job).is_none_or(is_other)
            });
            let now_ms = self.sim().now_ms();
            if moved || now_ms >= until_ms {
                return;
            }
            self.sim().sleep_ms((until_ms - now_ms).min(2_000)).await;
        }
    }

    async fn events(&self, _job: JobId, _from: u64, _limit: usize) -> Result<Vec<EventView>, StoreError> {
        Ok(Vec::new())
    }

    async fn put_function(&self, reference: &FunctionRef, manifest: &Manifest) -> Result<(), StoreError> {
        let (reference, manifest) = (reference.clone(), manifest.clone());
        self.write("put function", move |_, cloud| {
            cloud.functions.insert(manifest.name.to_string(), (reference, manifest));
        })
        .await
    }

    async fn function(&self, reference: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        let reference = reference.clone();
        self.read("read function", move |_, cloud| {
            let mut found = cloud.functions.values().filter(|(stored, _)| *stored == reference);
            found.next().map(|(_, manifest)| manifest.clone())
        })
        .await
    }

    async fn newest(&self, name: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        let name = name.to_string();
        self.read("read newest", move |_, cloud| cloud.functions.get(&name).map(|(reference, _)| reference.clone()))
            .await
    }

    async fn functions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        self.read("list functions", |_, cloud| {
            cloud.functions.values().map(|(reference, _)| reference.clone()).collect()
        })
        .await
    }

    async fn estimate(&self, function: &FunctionRef) -> Estimate {
        self.sim().cloud(|cloud| cloud.estimates.get(&function.to_string()).copied().unwrap_or_default())
    }

    async fn observe(&self, function: &FunctionRef, tasks: u64, mean_us: f64, max_us: f64) {
        let function = function.to_string();
        self.sim().cloud(|cloud| cloud.estimates.entry(function).or_default().observe(tasks, mean_us, max_us));
    }

    async fn put_worker(&self, _worker: WorkerView) {}

    async fn remove_worker(&self, _worker: &WorkerId) {}

    async fn workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        Ok(Vec::new())
    }
}

impl BlobStore for SimPorts {
    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Vec<Result<Put, StoreError>> {
        let puts = blobs.into_iter().map(|(key, bytes)| async move {
            let is_lost = self.strikes(0.2);
            self.write("put blob", move |_, cloud| cloud.put(key, bytes, is_lost)).await
        });
        join_all(puts).await
    }

    async fn get(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let gets = keys.iter().map(|key| {
            let key = key.clone();
            self.read("get blob", move |_, cloud| {
                let key = cloud.blob_key(&key);
                cloud.blobs.get(&key).map(|(bytes, _)| bytes.clone())
            })
        });
        join_all(gets).await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let prefix = prefix.to_owned();
        self.write("delete blobs", move |_, cloud| cloud.delete_prefix(&prefix)).await
    }
}
