//! Running again what failed: a new job of the failed and quarantined tasks of an old one. An outcome never changes.

use sheaf_api::{
    ApiError, Code, Pack, PackBuilder,
    wire::{ChunkAnswer, CreateJob, SubmitChunk},
};
use sheaf_core::{Chunk, Job, JobId, JobState, Mark, Origin, Seal, TenantId, limits};

use crate::{
    ports::{BlobStore, Clock, Ports, StateStore},
    submit, summarise,
    write::retrying,
};

/// Creates and fills the new job. Repeating it with the same new id gives the same job, whose packs are made from final
/// outcomes and so come out the same.
pub async fn retry<P: Ports>(ports: &P, tenant: &TenantId, old: JobId, new: JobId) -> Result<Job, ApiError> {
    let job = submit::job(ports, tenant, old).await?;
    if job.state.ended_at_ms().is_none() {
        return Err(ApiError::new(Code::Over, format!("{old} is still {}", job.state.as_str()))
            .with_hint("wait for it, or cancel it, before its failures are tried again"));
    }
    let summary = retrying(ports, || ports.state().summary(old)).await?;
    if summary.totals.failed + summary.totals.quarantined == 0 {
        return Err(ApiError::invalid(format!("nothing in {old} has failed")));
    }
    let created = create(ports, tenant, &job, new).await?;
    if created.state != JobState::Open {
        // An earlier call has filled and sealed it, and may have died before it saw that it is complete.
        return Ok(summarise::close_if_complete(ports, created).await?);
    }
    match fill(ports, tenant, &job, new).await {
        // Cancelled before it was full, by somebody or because too much of it failed: that is how it stands.
        Err(error) if error.code == Code::Over => submit::job(ports, tenant, new).await,
        filled => filled,
    }
}

/// Creates the new job, or finds the one that an earlier call of the same retry has created.
async fn create<P: Ports>(ports: &P, tenant: &TenantId, job: &Job, new: JobId) -> Result<Job, ApiError> {
    match submit::create(ports, tenant, &again(job, new, ports.clock().now_ms())).await {
        // Its options differ from those of an earlier call if the deadline has passed since.
        Err(error) if error.code == Code::Conflict => match submit::job(ports, tenant, new).await {
            Ok(found) if found.origin == Some(Origin::RetryOf { job: job.id }) => Ok(found),
            Ok(_) => Err(error),
            Err(error) => Err(error),
        },
        created => created,
    }
}

async fn fill<P: Ports>(ports: &P, tenant: &TenantId, job: &Job, new: JobId) -> Result<Job, ApiError> {
    let mut filler =
        Filler { builder: PackBuilder::new(), number: 0, first: 0, tasks_max: job.options.chunk_tasks_max() };
    let mut from = 0;
    loop {
        let chunks = retrying(ports, || ports.state().chunks_from(job.id, from, limits::WRITES_PER_CALL_MAX)).await?;
        let Some(last) = chunks.last() else { break };
        from = last.spec.key.number.saturating_add(1);
        for chunk in &chunks {
            filler.add(ports, tenant, new, chunk).await?;
        }
    }
    filler.flush(ports, tenant, new).await?;
    submit::seal(ports, tenant, new, Seal { chunks: filler.number, tasks: filler.first }).await
}

/// The same options, but for a deadline that is over.
fn again(job: &Job, id: JobId, now_ms: u64) -> CreateJob {
    let options = job.options.clone();
    let functions = options.functions.iter().map(ToString::to_string).collect();
    CreateJob {
        name: options.name,
        ordered: options.ordered,
        max_attempts: Some(options.max_attempts),
        deadline_ms: options.deadline_ms.filter(|&deadline_ms| deadline_ms > now_ms),
        fail_fast: options.fail_fast,
        task_ms: options.task_ms,
        priority: options.priority,
        lane: options.lane,
        retention_ms: Some(options.retention_ms),
        labels: options.labels,
        origin: Some(Origin::RetryOf { job: job.id }),
        ..CreateJob::new(id, functions)
    }
}

struct Filler {
    builder: PackBuilder,
    number: u32,
    first: u64,
    tasks_max: u32,
}

impl Filler {
    async fn add<P: Ports>(&mut self, ports: &P, tenant: &TenantId, job: JobId, chunk: &Chunk) -> Result<(), ApiError> {
        let failed = |task: &u32| matches!(chunk.work.marks.get(*task), Mark::Failed | Mark::Quarantined);
        let tasks: Vec<u32> = (0..chunk.spec.tasks).filter(failed).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        let keys = [chunk.spec.pack_key()];
        let get = || async { ports.blobs().get(&keys).await.pop().expect("one answer per key") };
        let bytes = retrying(ports, get).await?.ok_or_else(|| ApiError::not_found(&keys[0]))?;
        let pack = Pack::parse(bytes)?;
        for task in tasks {
            if self.builder.tasks() == self.tasks_max || self.builder.bytes() >= limits::PACK_BYTES_TARGET {
                self.flush(ports, tenant, job).await?;
            }
            self.builder.push_task(pack.payload(task), pack.function(task), pack.key(task))?;
        }
        Ok(())
    }

    async fn flush<P: Ports>(&mut self, ports: &P, tenant: &TenantId, job: JobId) -> Result<(), ApiError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let tasks = self.builder.tasks();
        let chunk = SubmitChunk { number: self.number, task_first: self.first, pack: self.builder.finish(true) };
        let (_, answers) = submit::submit(ports, tenant, job, vec![chunk]).await?;
        if let Some(ChunkAnswer::Refused { error }) = answers.into_iter().next() {
            return Err(error);
        }
        self.number += 1;
        self.first += u64::from(tasks);
        Ok(())
    }
}
