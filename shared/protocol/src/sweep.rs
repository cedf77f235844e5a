//! The sweeper: finds what fell through. It sends hints again, closes deadlines, brings on jobs whose authors died and removes
//! what is past its time; it changes no chunk but by T9 and T10. It may run anywhere, any number of times at once.

use sheaf_api::wire::JobFilter;
use sheaf_core::{Chunk, ChunkEvent, ChunkKey, ChunkState, EndReason, Job, JobState, TenantId, limits};

use crate::{
    cancel,
    error::StoreError,
    ports::{BlobStore, ChunkQueue, Clock, Ports, StateStore, Write},
    submit::hint,
    summarise,
    write::{retrying, write_all},
};

/// Chunks looked at in one page.
const PAGE: usize = limits::WRITES_PER_CALL_MAX;
/// Jobs removed in one sweep; the next one goes on.
const REMOVE_MAX: usize = 10_000;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Chunks that were due.
    pub looked_at: u64,
    /// Hints sent again.
    pub hints: u64,
    /// Chunks whose deadline was over.
    pub expired: u64,
}

/// Looks at every chunk that is due, at most `chunks_max` of them. Costs a read per chunk and one conditional write per
/// chunk that is still open.
pub async fn chunks<P: Ports>(ports: &P, chunks_max: usize) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    let (now_ms, delay_ms) = (ports.clock().now_ms(), ports.queue().delay_ms().await);
    let mut after = None;
    while (swept.looked_at as usize) < chunks_max {
        let due = retrying(ports, || ports.state().due(after, now_ms, PAGE)).await?;
        let Some(last) = due.last() else { break };
        after = Some(*last);
        let keys: Vec<_> = due.iter().map(|(_, key)| *key).collect();
        swept.looked_at += keys.len() as u64;
        // One that is due no more was looked at by another sweep since the index was read, or the index is late.
        let is_due = |chunk: &Chunk| chunk.due().is_some_and(|due_ms| due_ms <= now_ms);
        let open: Vec<Chunk> = readable(ports, &keys).await?.into_iter().filter(is_due).collect();
        let writes: Vec<Write> =
            open.iter().map(|chunk| Write { key: chunk.spec.key, event: verdict(chunk, now_ms, delay_ms) }).collect();
        let mut hints = Vec::new();
        for ((chunk, write), answer) in open.iter().zip(&writes).zip(write_all(ports, writes.clone()).await) {
            match (&write.event, answer) {
                (ChunkEvent::End { .. }, Ok(_)) => swept.expired += 1,
                (ChunkEvent::Touch { .. }, Ok(after)) if wants_hint(chunk, now_ms, delay_ms) => {
                    hints.push(hint(&after.spec, None))
                }
                _ => {}
            }
        }
        swept.hints += hints.len() as u64;
        ports.queue().send(hints, 0).await;
    }
    Ok(swept)
}

/// The chunks among these that are there and can be read. One that cannot is said, and keeps nobody from the others.
pub async fn readable<P: Ports>(ports: &P, keys: &[ChunkKey]) -> Result<Vec<Chunk>, StoreError> {
    match retrying(ports, || ports.state().chunks(keys)).await {
        Ok(found) => return Ok(found.into_iter().flatten().collect()),
        Err(StoreError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        match retrying(ports, || ports.state().chunks(std::slice::from_ref(key))).await {
            Ok(chunk) => found.extend(chunk.into_iter().flatten()),
            Err(error @ StoreError::Damaged { .. }) => tracing::error!(chunk = %key, %error, "not swept"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn verdict(chunk: &Chunk, now_ms: u64, delay_ms: u64) -> ChunkEvent {
    if chunk.spec.deadline_ms.is_some_and(|deadline_ms| now_ms >= deadline_ms) {
        return ChunkEvent::End { reason: EndReason::Expired, now_ms };
    }
    let patience_ms = patience_ms(delay_ms);
    let look_again_ms = match &chunk.state {
        ChunkState::Leased(lease) if !wants_hint(chunk, now_ms, delay_ms) => {
            lease.until_ms + limits::CLOCK_MARGIN_MS + 1
        }
        ChunkState::Queued { not_before_ms } => (*not_before_ms).max(now_ms) + patience_ms,
        ChunkState::Leased(_) | ChunkState::Done { .. } | ChunkState::Ended { .. } => now_ms + patience_ms,
    };
    let due_ms = chunk.spec.deadline_ms.map_or(look_again_ms, |deadline_ms| look_again_ms.min(deadline_ms));
    ChunkEvent::Touch { seen_due_ms: chunk.due_ms, due_ms }
}

/// A hint is taken for lost when it is older than this: a minute, and 1.25 times as old as hints get at present. Otherwise
/// every chunk of a long backlog would be sent again and again.
fn patience_ms(delay_ms: u64) -> u64 {
    limits::HINT_AGE_MS.max(delay_ms + delay_ms / 4)
}

/// Whether a worker could take the chunk now, and its hint must be lost.
fn wants_hint(chunk: &Chunk, now_ms: u64, delay_ms: u64) -> bool {
    match &chunk.state {
        ChunkState::Queued { not_before_ms } => {
            let queued_at_ms = chunk.work.past.last().map_or(chunk.spec.submitted_at_ms, |past| past.until_ms);
            now_ms >= queued_at_ms.max(*not_before_ms) + patience_ms(delay_ms)
        }
        ChunkState::Leased(lease) => now_ms > lease.until_ms + limits::CLOCK_MARGIN_MS,
        ChunkState::Done { .. } | ChunkState::Ended { .. } => false,
    }
}

/// Brings the jobs of a tenant on whose authors died half-way: carries out their cancellations, and closes those that were
/// sealed when all their chunks had ended already. Costs a read of the summary per sealed job.
pub async fn jobs<P: Ports>(ports: &P, tenant: &TenantId) -> Result<(), StoreError> {
    let mut pages = Pages::new(true);
    while let Some(jobs) = pages.next(ports, tenant).await? {
        for job in jobs {
            let id = job.id;
            let brought_on = match job.state {
                JobState::Sealed { .. } => summarise::close_if_complete(ports, job).await.map(drop),
                JobState::Cancelling { .. } => cancel::carry_out(ports, id).await.map(drop),
                JobState::Open | JobState::Done { .. } | JobState::Cancelled { .. } => Ok(()),
            };
            match brought_on {
                Err(error @ StoreError::Damaged { .. }) => tracing::error!(job = %id, %error, "not brought on"),
                brought_on => brought_on?,
            }
        }
    }
    Ok(())
}

/// Takes in all chunks of the jobs of a tenant that are not over, whether or not it was told of their changes: for whoever
/// cannot be sure that he was. Costs a read of each of those chunks.
pub async fn recount<P: Ports>(ports: &P, tenant: &TenantId) -> Result<(), StoreError> {
    let mut pages = Pages::new(true);
    while let Some(jobs) = pages.next(ports, tenant).await? {
        for job in jobs {
            let mut from = 0;
            loop {
                let read = || ports.state().chunks_from(job.id, from, limits::WRITES_PER_CALL_MAX);
                let chunks = retrying(ports, read).await?;
                let Some(last) = chunks.last() else { break };
                from = last.spec.key.number.saturating_add(1);
                summarise::summarise(ports, &chunks).await?;
            }
        }
    }
    Ok(())
}

/// Removes the jobs of a tenant that are past their retention; answers how many.
pub async fn retention<P: Ports>(ports: &P, tenant: &TenantId) -> Result<u64, StoreError> {
    let now_ms = ports.clock().now_ms();
    let is_past = |job: &Job| {
        let ended_at_ms = job.state.ended_at_ms();
        ended_at_ms.is_some_and(|at_ms| now_ms >= at_ms.saturating_add(job.options.retention_ms))
    };
    // A page begins where the one before ended, so nothing is removed before all pages are read.
    let mut pages = Pages::new(false);
    let mut past = Vec::new();
    while let Some(jobs) = pages.next(ports, tenant).await?
        && past.len() < REMOVE_MAX
    {
        past.extend(jobs.into_iter().filter(is_past));
    }
    for job in &past {
        remove(ports, job).await?;
    }
    Ok(past.len() as u64)
}

/// Pages through a tenant's jobs.
#[derive(Debug)]
pub struct Pages {
    filter: JobFilter,
}

impl Pages {
    /// From the newest job on; `alive`: only of those that are not over.
    pub fn new(alive: bool) -> Self {
        Self { filter: JobFilter { alive, limit: limits::PAGE_ROWS_MAX, ..JobFilter::default() } }
    }

    /// The next page, until there is none.
    pub async fn next<P: Ports>(&mut self, ports: &P, tenant: &TenantId) -> Result<Option<Vec<Job>>, StoreError> {
        let jobs = retrying(ports, || ports.state().jobs(tenant, &self.filter)).await?;
        let Some(last) = jobs.last() else { return Ok(None) };
        self.filter.before = Some(last.id);
        Ok(Some(jobs))
    }
}

/// Removes a job that is over: first its bytes, then the rows that name them.
pub async fn remove<P: Ports>(ports: &P, job: &Job) -> Result<(), StoreError> {
    for prefix in ["p", "r", "l", "k"] {
        let prefix = format!("{prefix}/{}/{}/", job.tenant, job.id);
        retrying(ports, || ports.blobs().delete_prefix(&prefix)).await?;
    }
    retrying(ports, || ports.state().delete_job(job.id)).await
}
