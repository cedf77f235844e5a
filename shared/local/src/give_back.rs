//! Giving back in another's name.
//!
//! T7 is its owner's: the fence is the attempt. Whoever has seen the owner's process end is the only one who can still act
//! for it, and may: nobody else writes as that attempt any more.

use sheaf_core::{ChunkEvent, ChunkKey, ReleaseReason, WorkerId, limits};
use sheaf_protocol::{ChunkQueue, Clock, Hint, Ports, StateStore, StoreError, Write, WriteError};

/// Times that all chunks are looked at: a last write of the worker may still be on its way when its process has ended.
const PASSES_MAX: usize = 5;

/// Gives back every chunk that a worker holds, whose process is certainly gone. Costs reading all open chunks, once more than
/// there is something to give back.
pub(crate) async fn held_by<P: Ports>(
    ports: &P,
    worker: &WorkerId,
    reason: ReleaseReason,
) -> Result<Vec<ChunkKey>, StoreError> {
    let mut given = Vec::new();
    for _ in 0..PASSES_MAX {
        if !pass(ports, worker, reason, &mut given).await? {
            break;
        }
    }
    ports.state().remove_worker(worker).await;
    Ok(given)
}

/// Looks at all open chunks once; whether the worker held one.
async fn pass<P: Ports>(
    ports: &P,
    worker: &WorkerId,
    reason: ReleaseReason,
    given: &mut Vec<ChunkKey>,
) -> Result<bool, StoreError> {
    let (mut after, mut any) = (None, false);
    loop {
        let due = ports.state().due(after, u64::MAX - 1, limits::PAGE_ROWS_MAX).await?;
        let Some(last) = due.last() else { return Ok(any) };
        after = Some(*last);
        let keys: Vec<ChunkKey> = due.iter().map(|(_, key)| *key).collect();
        let chunks = ports.state().chunks(&keys).await?;
        let now_ms = ports.clock().now_ms();
        let held = chunks.into_iter().flatten().filter_map(|chunk| {
            let attempt = chunk.lease().filter(|lease| lease.attempt.owner.worker == *worker)?.attempt.clone();
            // What it had not committed, checkpoints included, is its own affair.
            let (commit, tallies, checkpoints) = Default::default();
            let (rv, not_before_ms) = (chunk.rv, now_ms);
            let event =
                ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason };
            Some((chunk, event))
        });
        for (chunk, event) in held {
            any = true;
            let key = chunk.spec.key;
            match ports.state().apply(vec![Write { key, event }]).await.pop().expect("one answer per write") {
                Ok(_) => given.push(key),
                // It has moved on: cancelled, expired, or by a write that was still on its way.
                Err(WriteError::Refused { .. }) => continue,
                Err(WriteError::Store(error)) => return Err(error),
            }
            let (tenant, lane, priority) = (chunk.spec.tenant, chunk.spec.lane, chunk.spec.priority);
            ports.queue().send(vec![Hint { key, tenant, lane, priority, pack: None, hedge: false }], 0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use sheaf_conformance::fixture;
    use sheaf_core::{ChunkState, Lane};

    use super::*;
    use crate::{LocalPorts, LocalStore};

    #[tokio::test]
    async fn what_a_worker_held_is_free_again_and_nobody_is_charged() {
        let ports = LocalPorts::new(LocalStore::memory().expect("opened"));
        let job = fixture::job_id();
        let specs = [fixture::spec(job, 0, 2), fixture::spec(job, 1, 1)];
        for spec in &specs {
            fixture::apply(&ports, fixture::submit(spec)).await.expect("submitted");
        }
        fixture::apply(&ports, fixture::claim(specs[0].key, 1)).await.expect("claimed");
        let stranger = "wrk_stranger".parse().expect("an id");
        assert_eq!(held_by(&ports, &stranger, ReleaseReason::Reclaimed).await.expect("done"), []);
        let worker = "wrk_conformance".parse().expect("an id");
        assert_eq!(held_by(&ports, &worker, ReleaseReason::Reclaimed).await.expect("done"), [specs[0].key]);
        assert_eq!(held_by(&ports, &worker, ReleaseReason::Reclaimed).await.expect("done"), []);
        let chunk = ports.state().chunks(&[specs[0].key]).await.expect("read").pop().flatten().expect("it is there");
        assert!(matches!(chunk.state, ChunkState::Queued { .. }), "{chunk:?}");
        assert_eq!((chunk.work.crashes, chunk.work.past[0].released), (0, Some(ReleaseReason::Reclaimed)));
        let hints = ports.queue().receive(&[Lane::default()], 10, 0).await.expect("received");
        assert_eq!(hints.iter().map(|delivery| delivery.hint.key).collect::<Vec<_>>(), [specs[0].key]);
    }
}
