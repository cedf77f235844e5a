//! Creating jobs, submitting chunks to them, and sealing them.

use sheaf_api::{
    ApiError, Code,
    wire::{ChunkAnswer, CreateJob, SubmitChunk},
};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSpec, ChunkState, Digest, FunctionRef, Job, JobEvent, JobId, JobRefused,
    JobState, Refused, Seal, TenantId, limits,
};

use crate::{
    error::{JobWriteError, WriteError},
    functions,
    ports::{BlobStore, ChunkQueue, Clock, Hint, Ports, Put, StateStore, Write},
    summarise,
    write::{retrying, write_all, write_job},
};

/// Creates a job. Repeating it with the same request answers the same job; with another, a conflict. One conditional
/// write.
pub async fn create<P: Ports>(ports: &P, tenant: &TenantId, request: &CreateJob) -> Result<Job, ApiError> {
    let mut references = Vec::with_capacity(request.functions.len());
    let mut ordered = false;
    for name in &request.functions {
        let (reference, manifest) = functions::resolve(ports, name).await?;
        ordered |= manifest.ordered;
        references.push(reference);
    }
    let options = request.options(references, ordered);
    options.check().map_err(|reason| ApiError::invalid(format!("{}: {reason}", request.id)))?;
    let options_digest = Digest::of(&serde_json::to_vec(request).expect("plain structs become JSON"));
    let job = Job {
        id: request.id,
        tenant: tenant.clone(),
        options,
        options_digest,
        origin: request.origin.clone(),
        created_at_ms: ports.clock().now_ms(),
        state: JobState::Open,
    };
    let stored = retrying(ports, || ports.state().create_job(job.clone())).await?;
    if stored.options_digest != options_digest || stored.tenant != *tenant {
        return Err(ApiError::new(Code::Conflict, format!("{} exists with other options", request.id))
            .with_hint("every job needs an id of its own; `sheaf job info` shows what has this one"));
    }
    Ok(stored)
}

/// Reads a job of a tenant.
pub async fn job<P: Ports>(ports: &P, tenant: &TenantId, id: JobId) -> Result<Job, ApiError> {
    let job = retrying(ports, || ports.state().job(id)).await?;
    job.filter(|job| job.tenant == *tenant).ok_or_else(|| {
        ApiError::not_found(id)
            .with_hint("`sheaf job list --all` shows the jobs of this grid; ended ones are kept 30 days")
    })
}

/// Submits chunks: payload, then T1, then a hint, and then the wait for both to be durable, in which a chunk may begin. Answers
/// one result per chunk, in their order; `Accepted` and `Exists` mean durable. Costs one blob, one conditional write and a
/// tenth of a queue call per chunk.
pub async fn submit<P: Ports>(
    ports: &P,
    tenant: &TenantId,
    id: JobId,
    chunks: Vec<SubmitChunk>,
) -> Result<(Job, Vec<ChunkAnswer>), ApiError> {
    if chunks.len() > limits::WRITES_PER_CALL_MAX {
        let message = format!("{} chunks in one call, the limit is {}", chunks.len(), limits::WRITES_PER_CALL_MAX);
        return Err(ApiError::new(Code::TooLarge, message));
    }
    let job = job(ports, tenant, id).await?;
    let mut answers: Vec<Option<ChunkAnswer>> =
        chunks.iter().map(|chunk| check(&job, chunk).err().map(|error| ChunkAnswer::Refused { error })).collect();

    let now_ms = ports.clock().now_ms();
    let specs: Vec<ChunkSpec> = chunks.iter().map(|chunk| spec(&job, chunk, now_ms)).collect();
    let sent: Vec<usize> = (0..chunks.len()).filter(|&i| answers[i].is_none()).collect();
    store_packs(ports, &chunks, &specs, &sent, &mut answers).await;

    let sent: Vec<usize> = sent.into_iter().filter(|&i| answers[i].is_none()).collect();
    let writes = sent
        .iter()
        .map(|&i| Write { key: specs[i].key, event: ChunkEvent::Submit { spec: Box::new(specs[i].clone()) } });
    let written = write_all(ports, writes.collect()).await;
    let mut hints = Vec::with_capacity(sent.len());
    for (&i, result) in sent.iter().zip(written) {
        if is_waiting(&result) {
            hints.push(hint(&specs[i], Some(chunks[i].pack.bytes().clone())));
        }
        answers[i] = Some(answer(&specs[i], result));
    }
    ports.queue().send(hints, 0).await;
    let settled = if sent.is_empty() { Ok(()) } else { retrying(ports, || ports.state().settle()).await };
    let settle = |answer: ChunkAnswer| match (&settled, answer) {
        (Err(error), ChunkAnswer::Accepted | ChunkAnswer::Exists) => {
            ChunkAnswer::Refused { error: error.clone().into() }
        }
        (_, answer) => answer,
    };
    let answers = answers.into_iter().map(|answer| settle(answer.expect("checked, stored or written"))).collect();
    Ok((job, answers))
}

/// Whether a chunk wants a hint: it is new, or it was submitted before by somebody who may have died before sending one.
fn is_waiting(result: &Result<Chunk, WriteError>) -> bool {
    let chunk = match result {
        Ok(chunk) => Some(chunk),
        Err(WriteError::Refused { reason: Refused::Exists, current }) => current.as_deref(),
        Err(WriteError::Refused { .. } | WriteError::Store(_)) => None,
    };
    chunk.is_some_and(|chunk| matches!(chunk.state, ChunkState::Queued { .. }))
}

/// The hint for a chunk; its pack rides along where it is small enough for a queue message.
pub(crate) fn hint(spec: &ChunkSpec, pack: Option<bytes::Bytes>) -> Hint {
    let (key, tenant) = (spec.key, spec.tenant.clone());
    Hint { key, tenant, lane: spec.lane, priority: spec.priority, pack, hedge: false }
}

fn spec(job: &Job, chunk: &SubmitChunk, now_ms: u64) -> ChunkSpec {
    ChunkSpec {
        key: ChunkKey { job: job.id, number: chunk.number },
        tenant: job.tenant.clone(),
        tasks: chunk.pack.tasks(),
        task_first: chunk.task_first,
        digest: chunk.pack.digest(),
        pack_bytes: chunk.pack.bytes().len() as u32,
        lane: job.options.lane,
        priority: job.options.priority,
        deadline_ms: job.options.deadline_ms,
        submitted_at_ms: now_ms,
    }
}

/// What makes a chunk unacceptable whatever the store says.
fn check(job: &Job, chunk: &SubmitChunk) -> Result<(), ApiError> {
    let key = ChunkKey { job: job.id, number: chunk.number };
    let (tasks, tasks_max) = (chunk.pack.tasks(), job.options.chunk_tasks_max());
    if tasks == 0 {
        return Err(ApiError::invalid(format!("{key} holds no task")));
    }
    if tasks > tasks_max {
        return Err(ApiError::new(Code::TooLarge, format!("{key} holds {tasks} tasks, the limit is {tasks_max}")));
    }
    if job.options.ordered && chunk.number != 0 {
        return Err(ApiError::invalid(format!("{key}: an ordered job is one chunk, number 0"))
            .with_hint(format!("an ordered job holds at most {} tasks", limits::ORDERED_TASKS_MAX)));
    }
    if chunk.number >= limits::JOB_CHUNKS_MAX {
        return Err(ApiError::new(
            Code::TooLarge,
            format!("{key}: a job has at most {} chunks", limits::JOB_CHUNKS_MAX),
        ));
    }
    let functions = job.options.functions.len();
    if let Some(task) = (0..tasks).find(|&task| usize::from(chunk.pack.function(task)) >= functions) {
        let index = chunk.pack.function(task);
        return Err(ApiError::invalid(format!("{key}/{task} names function {index}, the job has {functions}")));
    }
    match job.state {
        JobState::Open => Ok(()),
        JobState::Sealed { seal } | JobState::Done { seal, .. } if chunk.number < seal.chunks => Ok(()),
        JobState::Sealed { seal } | JobState::Done { seal, .. } => {
            Err(ApiError::new(Code::Over, format!("{key}: the job was sealed with {} chunks", seal.chunks)))
        }
        JobState::Cancelling { .. } | JobState::Cancelled { .. } => {
            Err(ApiError::new(Code::Over, format!("{key}: the job is cancelled")))
        }
    }
}

/// Puts the packs. One that is there already is the same pack sent again, or a conflict.
async fn store_packs<P: Ports>(
    ports: &P,
    chunks: &[SubmitChunk],
    specs: &[ChunkSpec],
    sent: &[usize],
    answers: &mut [Option<ChunkAnswer>],
) {
    let blobs = || sent.iter().map(|&i| (specs[i].pack_key(), chunks[i].pack.bytes().clone())).collect::<Vec<_>>();
    for (&i, put) in sent.iter().zip(ports.blobs().put(blobs()).await) {
        let put = match put {
            Err(error) if crate::write::retry_after_ms(&error).is_some() => {
                let blob = || (specs[i].pack_key(), chunks[i].pack.bytes().clone());
                retrying(ports, || async { ports.blobs().put(vec![blob()]).await.pop().expect("one answer per blob") })
                    .await
            }
            other => other,
        };
        let refused = match put {
            Ok(Put::Created) => None,
            Ok(Put::Exists) => conflict(ports, &specs[i]).await.err(),
            Err(error) => Some(error.into()),
        };
        answers[i] = refused.map(|error| ChunkAnswer::Refused { error });
    }
}

async fn conflict<P: Ports>(ports: &P, spec: &ChunkSpec) -> Result<(), ApiError> {
    let keys = [spec.pack_key()];
    let stored =
        retrying(ports, || async { ports.blobs().get(&keys).await.pop().expect("one answer per key") }).await?;
    match stored {
        Some(stored) if Digest::of(&stored) == spec.digest => Ok(()),
        _ => Err(conflicting(spec)),
    }
}

fn conflicting(spec: &ChunkSpec) -> ApiError {
    ApiError::new(Code::Conflict, format!("{} was submitted before with other tasks", spec.key))
        .with_hint("a client that resumes a job must give the same tasks in the same order")
}

fn answer(spec: &ChunkSpec, result: Result<Chunk, WriteError>) -> ChunkAnswer {
    let error = match result {
        Ok(_) => return ChunkAnswer::Accepted,
        Err(WriteError::Refused { reason: Refused::Exists, .. }) => return ChunkAnswer::Exists,
        Err(WriteError::Refused { reason: Refused::Final, current: Some(current) })
            if current.spec.digest == spec.digest =>
        {
            return ChunkAnswer::Exists;
        }
        Err(WriteError::Refused { .. }) => conflicting(spec),
        Err(WriteError::Store(error)) => error.into(),
    };
    ChunkAnswer::Refused { error }
}

/// Fixes a job's size. Repeating it with the same size is harmless. A read of the summary and one conditional write, and a
/// second one if every chunk has ended already.
pub async fn seal<P: Ports>(ports: &P, tenant: &TenantId, id: JobId, seal: Seal) -> Result<Job, ApiError> {
    job(ports, tenant, id).await?;
    if seal.chunks > limits::JOB_CHUNKS_MAX || u64::from(seal.chunks) > seal.tasks {
        return Err(ApiError::invalid(format!("{id} cannot hold {} tasks in {} chunks", seal.tasks, seal.chunks)));
    }
    let beyond = retrying(ports, || ports.state().chunks_from(id, seal.chunks, 1)).await?;
    if let Some(chunk) = beyond.first() {
        let key = chunk.spec.key;
        return Err(ApiError::new(
            Code::Conflict,
            format!("{id} cannot be sealed with {} chunks: it has {key}", seal.chunks),
        ));
    }
    // The summary may lag; when it has all chunks, it knows better than a client that has miscounted.
    let summary = retrying(ports, || ports.state().summary(id)).await?;
    if summary.chunks_submitted == u64::from(seal.chunks) && summary.tasks_submitted != seal.tasks {
        let (chunks, tasks) = (summary.chunks_submitted, summary.tasks_submitted);
        let message = format!("{id} cannot be sealed with {} tasks: its {chunks} chunks hold {tasks}", seal.tasks);
        return Err(ApiError::new(Code::Conflict, message));
    }
    let sealed = match write_job(ports, id, JobEvent::Seal { seal }).await {
        Ok(job) => job,
        Err(JobWriteError::Store(error)) => return Err(error.into()),
        Err(JobWriteError::Refused(refused)) => return Err(refused_job(id, refused)),
    };
    Ok(summarise::close_if_complete(ports, sealed).await?)
}

pub(crate) fn refused_job(id: JobId, refused: JobRefused) -> ApiError {
    let code = match refused {
        JobRefused::Absent => Code::NotFound,
        JobRefused::OtherSeal => Code::Conflict,
        JobRefused::Already | JobRefused::Over | JobRefused::Open => Code::Over,
    };
    ApiError::new(code, format!("{id}: {refused}"))
}

/// The functions of a job, for whoever needs the names only.
pub fn function_of(job: &Job, index: u16) -> &FunctionRef {
    let functions = &job.options.functions;
    functions.get(usize::from(index)).unwrap_or(&functions[0])
}
