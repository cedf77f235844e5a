//! Checks of the state store's chunks.

use std::collections::BTreeMap;

use futures::future::join_all;
use sheaf_core::{
    Attempt, CheckpointRef, Chunk, ChunkEvent, ChunkKey, ChunkState, Digest, EndReason, Event, Refused, ReleaseReason,
};
use sheaf_protocol::{Ports, StateStore, Write, WriteError};

use crate::fixture::{NOW_MS, apply, checkpoint, claim, finish, job, job_id, spec, submit};

fn refused(answer: Result<Chunk, WriteError>) -> (Refused, Option<Chunk>) {
    match answer {
        Err(WriteError::Refused { reason, current }) => (reason, current.map(|chunk| *chunk)),
        other => panic!("not refused: {other:?}"),
    }
}

/// The same chunk again exists, another one of its number is a conflict, and neither changes it.
pub async fn submitting_again_is_the_same_chunk<P: Ports>(ports: P) {
    let spec = spec(job_id(), 0, 3);
    let first = apply(&ports, submit(&spec)).await.expect("accepted");
    assert_eq!(refused(apply(&ports, submit(&spec)).await), (Refused::Exists, Some(first.clone())));
    let mut other = spec.clone();
    other.digest = Digest::of(b"other");
    assert_eq!(refused(apply(&ports, submit(&other)).await).0, Refused::Conflict);
    assert_eq!(ports.state().chunks(&[spec.key]).await.expect("read"), [Some(first)]);
}

/// A refusal carries the chunk as it is.
pub async fn a_refusal_carries_the_chunk<P: Ports>(ports: P) {
    let spec = spec(job_id(), 0, 3);
    assert_eq!(refused(apply(&ports, claim(spec.key, 1)).await), (Refused::Absent, None));
    apply(&ports, submit(&spec)).await.expect("accepted");
    let claimed = apply(&ports, claim(spec.key, 1)).await.expect("claimed");
    assert_eq!(refused(apply(&ports, claim(spec.key, 2)).await), (Refused::Held, Some(claimed)));
}

/// Of many claims at once, one wins.
pub async fn one_claim_wins<P: Ports>(ports: P) {
    let job = job_id();
    for number in 0..10 {
        let spec = spec(job, number, 1);
        apply(&ports, submit(&spec)).await.expect("accepted");
        let claims = join_all((0..16).map(|nonce| apply(&ports, claim(spec.key, nonce)))).await;
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "one winner");
    }
}

/// Checkpoints are kept with T5 alone and with T7, live on in the next attempt, and end with their task.
pub async fn checkpoints_are_kept_while_their_task_is_open<P: Ports>(ports: P) {
    let spec = spec(job_id(), 0, 3);
    apply(&ports, submit(&spec)).await.expect("accepted");
    let held = apply(&ports, claim(spec.key, 1)).await.expect("claimed");
    let attempt = held.lease().expect("a claimed chunk").attempt.clone();
    let of = |task: u32, number| (task, checkpoint(&attempt, number));
    let (until_ms, now_ms) = (NOW_MS + 60_000, NOW_MS);
    let segment = |rv, checkpoints: &[(u32, CheckpointRef)]| {
        let (commit, tallies) = Default::default();
        let (attempt, checkpoints) = (attempt.clone(), checkpoints.iter().cloned().collect());
        Write { key: spec.key, event: ChunkEvent::Segment { attempt, rv, commit, tallies, checkpoints, until_ms } }
    };
    let kept = apply(&ports, segment(held.rv, &[of(0, 0), of(1, 1)])).await.expect("its owner writes");
    assert_eq!(kept.work.checkpoints, BTreeMap::from([of(0, 0), of(1, 1)]));
    let stranger = checkpoint(&Attempt { epoch: 9, ..attempt.clone() }, 2);
    assert_eq!(refused(apply(&ports, segment(kept.rv, &[(0, stranger)])).await).0, Refused::Fenced);
    let (commit, tallies) = Default::default();
    let (rv, checkpoints, not_before_ms, reason) = (kept.rv, [of(1, 3)].into(), NOW_MS, ReleaseReason::Drain);
    let attempt = attempt.clone();
    let release = ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason };
    let released = apply(&ports, Write { key: spec.key, event: release }).await.expect("its owner writes");
    assert_eq!(released.work.past[0].checkpointed_at_ms, Some(NOW_MS));
    let again = apply(&ports, claim(spec.key, 2)).await.expect("claimed");
    assert_eq!(again.work.checkpoints, BTreeMap::from([of(0, 0), of(1, 3)]));
    assert_eq!(ports.state().chunks(&[spec.key]).await.expect("read"), [Some(again.clone())]);
    let finished = apply(&ports, finish(&again)).await.expect("finished");
    assert!(finished.work.checkpoints.is_empty());
}

/// Writes in one call are independent and answered in their order; later ones see earlier ones.
pub async fn writes_in_a_call_are_independent<P: Ports>(ports: P) {
    let job = job_id();
    let specs = [spec(job, 0, 1), spec(job, 1, 1)];
    let writes = vec![submit(&specs[0]), claim(ChunkKey { job, number: 9 }, 1), submit(&specs[1])];
    let answers = ports.state().apply(writes).await;
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok(), "{answers:?}");
    let keys = [specs[1].key, ChunkKey { job, number: 5 }, specs[0].key];
    let found = ports.state().chunks(&keys).await.expect("read");
    let numbers: Vec<Option<u32>> =
        found.iter().map(|chunk| chunk.as_ref().map(|chunk| chunk.spec.key.number)).collect();
    assert_eq!(numbers, [Some(1), None, Some(0)]);
}

/// The index of due chunks follows submit, claim, touch and finish.
pub async fn due_follows_the_chunk<P: Ports>(ports: P) {
    let spec = spec(job_id(), 0, 1);
    let due = async || ports.state().due(None, u64::MAX - 1, 10).await.expect("read");
    let mine = async || due().await.into_iter().filter(|(_, key)| *key == spec.key).collect::<Vec<_>>();
    let chunk = apply(&ports, submit(&spec)).await.expect("accepted");
    assert_eq!(mine().await, [(chunk.due_ms, spec.key)]);
    assert_eq!(ports.state().due(None, chunk.due_ms - 1, 10).await.expect("read"), []);
    assert_eq!(ports.state().due(Some((chunk.due_ms, spec.key)), u64::MAX - 1, 10).await.expect("read"), []);
    let touch = |seen_due_ms, due_ms| Write { key: spec.key, event: ChunkEvent::Touch { seen_due_ms, due_ms } };
    assert_eq!(refused(apply(&ports, touch(1, 2)).await).0, Refused::Stale);
    apply(&ports, touch(chunk.due_ms, NOW_MS + 5)).await.expect("touched");
    assert_eq!(mine().await, [(NOW_MS + 5, spec.key)]);
    let chunk = apply(&ports, claim(spec.key, 1)).await.expect("claimed");
    assert_eq!(mine().await, [(chunk.due_ms, spec.key)]);
    apply(&ports, finish(&chunk)).await.expect("finished");
    assert_eq!(mine().await, []);
}

/// A job's chunks are read in order, in pages, and no other job's.
pub async fn chunks_come_in_order_and_pages<P: Ports>(ports: P) {
    let (job, other) = (job_id(), job_id());
    for number in [300, 2, 0, 1, 70_000] {
        apply(&ports, submit(&spec(job, number, 1))).await.expect("accepted");
        apply(&ports, submit(&spec(other, number, 1))).await.expect("accepted");
    }
    let numbers = async |from, limit| {
        let chunks = ports.state().chunks_from(job, from, limit).await.expect("read");
        assert!(chunks.iter().all(|chunk| chunk.job() == job));
        chunks.iter().map(|chunk| chunk.spec.key.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0, 3).await, [0, 1, 2]);
    assert_eq!(numbers(3, 3).await, [300, 70_000]);
    assert_eq!(numbers(70_001, 3).await, [0_u32; 0]);
}

/// What is final stays; an attempt that was fenced off commits nothing.
pub async fn a_fenced_attempt_commits_nothing<P: Ports>(ports: P) {
    let spec = spec(job_id(), 0, 2);
    apply(&ports, submit(&spec)).await.expect("accepted");
    let mine = apply(&ports, claim(spec.key, 1)).await.expect("claimed");
    let end = ChunkEvent::End { reason: EndReason::Cancelled, now_ms: NOW_MS };
    let ended = apply(&ports, Write { key: spec.key, event: end }).await.expect("cancelled");
    assert!(matches!(ended.state, ChunkState::Ended { reason: EndReason::Cancelled, .. }));
    assert_eq!(refused(apply(&ports, finish(&mine)).await), (Refused::Final, Some(ended.clone())));
    assert_eq!(ports.state().chunks(&[spec.key]).await.expect("read"), [Some(ended)]);
}

/// A job's history tells its writes in order, in pages.
pub async fn history_is_kept_in_order<P: Ports>(ports: P) {
    let id = job_id();
    ports.state().create_job(job(id, NOW_MS)).await.expect("created");
    let spec = spec(id, 0, 1);
    apply(&ports, submit(&spec)).await.expect("accepted");
    let chunk = apply(&ports, claim(spec.key, 1)).await.expect("claimed");
    apply(&ports, finish(&chunk)).await.expect("finished");
    let events = ports.state().events(id, 0, 100).await.expect("read");
    let told: Vec<&Event> = events.iter().map(|event| &event.event).collect();
    assert!(
        matches!(
            told.as_slice(),
            [Event::JobCreated, Event::ChunkSubmitted { .. }, Event::ChunkClaimed { .. }, Event::ChunkFinished { .. }]
        ),
        "{told:?}"
    );
    assert!(events.windows(2).all(|pair| pair[0].number < pair[1].number));
    let rest = ports.state().events(id, events[1].number + 1, 1).await.expect("read");
    assert_eq!(rest, [events[2].clone()]);
}
