//! The net behind the table's stream: chunks that have ended and that their job's summary does not count.
//!
//! The stream keeps a record for 24 hours, and a record that cannot be read is passed over. A job that lost the end of a chunk
//! so would never be done. Nothing remembers for how long a summary has not moved, and nothing needs to: whether the end of a
//! chunk was lost is seen in the chunk. Of each job that is not over, the lowest chunk that its summary does not count as ended
//! is read. If that one ended minutes ago, its record was lost or is very late, and the chunks behind it are read too; if it
//! is open, as it is in every job that goes its way, that is all. A lost chunk behind an open one is found once it is the lowest
//! that is missing, and that it becomes, since every chunk ends: no job waits for a lost record for ever, which
//! is what this is for.
//!
//! Costs, for each job that is not over, a read of its summary and one of a chunk: two or three read units every five minutes.

use futures::{StreamExt, stream};
use sheaf_core::{Chunk, ChunkKey, ChunkSet, ChunkState, Job, TenantId, limits};
use sheaf_protocol::{Ports, StateStore, StoreError, summarise, sweep::Pages};

/// The stream has told of a chunk's end after this time, if all is well; it usually has within a second.
pub(crate) const TOLD_MS: u64 = 5 * 60_000;
/// Jobs looked at at once.
const CONCURRENT_MAX: usize = 16;
/// Chunks read at once.
const PAGE: usize = limits::WRITES_PER_CALL_MAX;

/// Looks at all jobs of a tenant that are not over; answers how many ended chunks their summaries did not count. A job that
/// cannot be read or counted is logged, and holds up no other.
pub(crate) async fn recount<P: Ports>(ports: &P, tenant: &TenantId, now_ms: u64) -> Result<u64, StoreError> {
    let (mut pages, mut found) = (Pages::new(true), 0);
    while let Some(jobs) = pages.next(ports, tenant).await? {
        let recounts = stream::iter(&jobs).map(|job| async move { (job.id, recount_job(ports, job, now_ms).await) });
        for (job, recounted) in recounts.buffer_unordered(CONCURRENT_MAX).collect::<Vec<_>>().await {
            match recounted {
                Ok(0) => {}
                Ok(chunks) => {
                    tracing::warn!(%job, chunks, "ended chunks were missing in the summary");
                    found += chunks;
                }
                Err(error @ StoreError::Throttled { .. }) => return Err(error),
                Err(error) => tracing::error!(%job, %error, "not recounted"),
            }
        }
    }
    Ok(found)
}

async fn recount_job<P: Ports>(ports: &P, job: &Job, now_ms: u64) -> Result<u64, StoreError> {
    let end = job.state.seal().map_or(limits::JOB_CHUNKS_MAX, |seal| seal.chunks);
    let counted: ChunkSet = ports.state().ended(job.id, &ChunkSet::new(), usize::MAX).await?.into_iter().collect();
    let mut missing =
        (0..end).filter(|number| !counted.contains(*number)).map(|number| ChunkKey { job: job.id, number });
    let mut recounted = 0;
    let Some(lowest) = missing.next() else { return Ok(0) };
    let mut page = vec![lowest];
    loop {
        let chunks = ports.state().chunks(&page).await?;
        let lost: Vec<Chunk> = chunks.into_iter().flatten().filter(|chunk| ended_before(chunk, now_ms)).collect();
        if lost.is_empty() {
            return Ok(recounted);
        }
        summarise::summarise(ports, &lost).await?;
        recounted += lost.len() as u64;
        page = missing.by_ref().take(PAGE).collect();
        if page.is_empty() {
            return Ok(recounted);
        }
    }
}

/// Whether a chunk ended so long ago that its record must have come.
fn ended_before(chunk: &Chunk, now_ms: u64) -> bool {
    match chunk.state {
        ChunkState::Done { at_ms, .. } | ChunkState::Ended { at_ms, .. } => now_ms >= at_ms.saturating_add(TOLD_MS),
        ChunkState::Queued { .. } | ChunkState::Leased(_) => false,
    }
}
