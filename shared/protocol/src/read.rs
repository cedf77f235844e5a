//! Reading: where a job stands, and its results.

use sheaf_api::{
    ApiError, Code,
    wire::{ChunkHead, ChunkResult, GridView, JobFilter, JobView, LaneView, Page, ReadResults, ResultsPage},
};
use sheaf_core::{Chunk, ChunkKey, ChunkState, Job, JobId, Summary, TenantId, limits};

use crate::{
    ports::{BlobStore, Clock, Ports, StateStore},
    submit::job,
    write::retrying,
};

/// A job as it is shown by this grid, with its counts.
pub async fn view<P: Ports>(ports: &P, job: Job, grid: &GridView) -> Result<JobView, ApiError> {
    let summary = retrying(ports, || ports.state().summary(job.id)).await?;
    let estimate = ports.state().estimate(&job.options.functions[0]).await.or_expected(job.options.task_ms);
    let LaneView { slots, boot_ms } = grid.lane(job.options.lane);
    Ok(JobView { job, summary, estimate, slots, boot_ms })
}

/// Where a job stands; waits until more than `seen` chunks have ended or the job is over, at most `wait_ms`.
pub async fn progress<P: Ports>(
    ports: &P,
    tenant: &TenantId,
    id: JobId,
    seen: Option<u64>,
    wait_ms: u64,
    grid: &GridView,
) -> Result<JobView, ApiError> {
    let until_ms = ports.clock().now_ms() + wait_ms.min(limits::LONG_POLL_MS_MAX);
    loop {
        let view = view(ports, job(ports, tenant, id).await?, grid).await?;
        let now_ms = ports.clock().now_ms();
        let news = seen.is_none_or(|seen| view.summary.chunks_ended > seen) || view.job.state.ended_at_ms().is_some();
        if news || now_ms >= until_ms {
            return Ok(view);
        }
        let seen = seen.unwrap_or_default().max(view.summary.chunks_ended);
        ports.state().changed(id, seen, view.job.state.as_str(), until_ms - now_ms).await;
    }
}

/// Results of chunks that have ended and that the reader does not have. Costs two reads of the state store and one blob per
/// segment.
pub async fn results<P: Ports>(
    ports: &P,
    tenant: &TenantId,
    id: JobId,
    read: &ReadResults,
    grid: &GridView,
) -> Result<ResultsPage, ApiError> {
    let until_ms = ports.clock().now_ms() + read.wait_ms.min(limits::LONG_POLL_MS_MAX);
    let chunks_max = read.chunks_max.clamp(1, limits::RESULT_PAGE_CHUNKS_MAX);
    loop {
        let job = view(ports, job(ports, tenant, id).await?, grid).await?;
        let numbers = retrying(ports, || ports.state().ended(id, &read.have, chunks_max)).await?;
        let now_ms = ports.clock().now_ms();
        if !numbers.is_empty() {
            let chunks = chunk_results(ports, id, &numbers, read.with_packs).await?;
            return Ok(ResultsPage { job, chunks });
        }
        if job.job.state.ended_at_ms().is_some() || now_ms >= until_ms {
            return Ok(ResultsPage { job, chunks: Vec::new() });
        }
        let Summary { chunks_ended, .. } = job.summary;
        ports.state().changed(id, chunks_ended, job.job.state.as_str(), until_ms - now_ms).await;
    }
}

async fn chunk_results<P: Ports>(
    ports: &P,
    id: JobId,
    numbers: &[u32],
    with_packs: bool,
) -> Result<Vec<ChunkResult>, ApiError> {
    let keys: Vec<ChunkKey> = numbers.iter().map(|&number| ChunkKey { job: id, number }).collect();
    let found = retrying(ports, || ports.state().chunks(&keys)).await?;
    let mut chunks: Vec<Chunk> = Vec::with_capacity(found.len());
    let mut bytes = 0;
    for chunk in found.into_iter().flatten().filter(Chunk::is_final) {
        bytes += chunk.work.segments.iter().map(|segment| segment.bytes as usize).sum::<usize>();
        if !chunks.is_empty() && bytes > limits::RESULT_PAGE_BYTES_TARGET {
            break;
        }
        chunks.push(chunk);
    }
    let mut blobs: Vec<String> = Vec::new();
    for chunk in &chunks {
        blobs.extend(chunk.work.segments.iter().map(|segment| segment.key(&chunk.spec)));
        blobs.extend(with_packs.then(|| chunk.spec.pack_key()));
    }
    let mut found = blobs.iter().zip(ports.blobs().get(&blobs).await);
    let mut next = || {
        let (key, blob) = found.next().expect("one answer per key");
        blob?.ok_or_else(|| ApiError::new(Code::Internal, format!("{key} is named by its chunk and does not exist")))
    };
    let mut results = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        let segments = chunk.work.segments.iter().map(|_| next()).collect::<Result<_, _>>()?;
        let pack = with_packs.then(&mut next).transpose()?;
        results.push(ChunkResult { head: head(chunk), segments, pack });
    }
    Ok(results)
}

fn head(chunk: &Chunk) -> ChunkHead {
    let ended = match chunk.state {
        ChunkState::Ended { reason, .. } => Some(reason),
        ChunkState::Queued { .. } | ChunkState::Leased(_) | ChunkState::Done { .. } => None,
    };
    let (number, task_first, tasks) = (chunk.spec.key.number, chunk.spec.task_first, chunk.spec.tasks);
    ChunkHead { number, task_first, tasks, ended }
}

/// A page of a tenant's jobs, newest first.
pub async fn jobs<P: Ports>(
    ports: &P,
    tenant: &TenantId,
    mut filter: JobFilter,
    grid: &GridView,
) -> Result<Page<JobView>, ApiError> {
    filter.limit = filter.limit.clamp(1, limits::PAGE_ROWS_MAX);
    let jobs = retrying(ports, || ports.state().jobs(tenant, &filter)).await?;
    let next = (jobs.len() == filter.limit).then(|| jobs.last().map(|job| job.id.to_string())).flatten();
    let mut rows = Vec::with_capacity(jobs.len());
    for job in jobs {
        rows.push(view(ports, job, grid).await?);
    }
    Ok(Page { rows, next })
}
