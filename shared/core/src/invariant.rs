//! What must always hold, as functions: the same ones run in the simulator after every write, in tests over a whole
//! store, and, where cheap, in production.
//!
//! The numbers are those of ARCHITECTURE.md.

use std::collections::BTreeMap;

use crate::{Chunk, ChunkKey, ChunkState, Digest, Job, JobId, JobState, Mark, Outcome, Summary, summary::Totals};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {number} ({promise}) is broken by {object}: {detail}")]
pub struct Violation {
    /// Its number.
    pub number: u8,
    /// What it promises.
    pub promise: &'static str,
    /// The job or chunk.
    pub object: String,
    /// How.
    pub detail: String,
}

fn violation(number: u8, promise: &'static str, object: impl ToString, detail: impl Into<String>) -> Violation {
    Violation { number, promise, object: object.to_string(), detail: detail.into() }
}

/// A store's content at one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Its jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// Its chunks.
    pub chunks: BTreeMap<ChunkKey, Chunk>,
    /// Its summaries.
    pub summaries: BTreeMap<JobId, Summary>,
    /// Its blobs, by key, with their digests.
    pub blobs: BTreeMap<String, Digest>,
}

/// Checks one write: a chunk before (`None` for T1) and after. Costs one pass over its marks and segments.
pub fn check_write(before: Option<&Chunk>, after: &Chunk) -> Result<(), Violation> {
    check_chunk(after)?;
    before.map_or(Ok(()), |before| check_step(before, after))
}

/// What holds of a chunk by itself.
fn check_chunk(chunk: &Chunk) -> Result<(), Violation> {
    let (key, work) = (chunk.spec.key, &chunk.work);
    if work.marks.tasks() != chunk.spec.tasks {
        return Err(violation(1, "every task has one outcome", key, "it has marks of other tasks than its own"));
    }
    let ended = u64::from(chunk.spec.tasks - work.marks.count(Mark::Open));
    let stored: u64 = work.segments.iter().map(|segment| u64::from(segment.tasks)).sum();
    if ended != stored {
        let detail = format!("{ended} outcomes, {stored} in segments");
        return Err(violation(3, "every outcome lies in a segment", key, detail));
    }
    if work.segments.windows(2).any(|pair| (pair[0].epoch, pair[0].number) >= (pair[1].epoch, pair[1].number)) {
        return Err(violation(3, "committed segments stay", key, "two segments have one name, or changed places"));
    }
    let two_owners =
        work.segments.windows(2).any(|pair| pair[0].epoch == pair[1].epoch && pair[0].nonce != pair[1].nonce);
    if two_owners || work.segments.last().is_some_and(|segment| segment.epoch > chunk.epoch) {
        return Err(violation(5, "one attempt at most can commit", key, "a segment is of no attempt that held it"));
    }
    if matches!(chunk.state, ChunkState::Done { .. }) && !work.marks.is_closed() {
        return Err(violation(9, "done is said only when it is true", key, "tasks are open"));
    }
    for (&task, checkpoint) in &work.checkpoints {
        let is_open = task < work.marks.tasks() && work.marks.get(task) == Mark::Open;
        if !is_open || chunk.is_final() {
            return Err(violation(2, "outcomes never change", key, format!("task {task} has one, and a checkpoint")));
        }
        if checkpoint.epoch > chunk.epoch {
            let detail = format!("the checkpoint of task {task} is of no attempt that held it");
            return Err(violation(5, "one attempt at most can commit", key, detail));
        }
    }
    Ok(())
}

/// What holds between a chunk before a write and after it.
fn check_step(before: &Chunk, after: &Chunk) -> Result<(), Violation> {
    let key = after.spec.key;
    if before.is_final() && before != after {
        let detail = format!("{:?} became {:?}", before.state, after.state);
        return Err(violation(2, "final states never change", key, detail));
    }
    if before.spec != after.spec {
        return Err(violation(8, "same key and digest is one chunk", key, "what was submitted has changed"));
    }
    let changed = (0..before.spec.tasks).find(|&task| {
        let old = before.work.marks.get(task);
        old != Mark::Open && old != after.work.marks.get(task)
    });
    if let Some(task) = changed {
        return Err(violation(2, "outcomes never change", key, format!("task {task} had one")));
    }
    let (grown, moved) = (after.epoch.checked_sub(before.epoch), after.rv.checked_sub(before.rv));
    if !matches!((grown, moved), (Some(0), Some(0 | 1)) | (Some(1), Some(1))) {
        let detail = format!("epoch {} rv {} became epoch {} rv {}", before.epoch, before.rv, after.epoch, after.rv);
        return Err(violation(5, "epochs only grow", key, detail));
    }
    let Some(added) = after.work.segments.strip_prefix(before.work.segments.as_slice()) else {
        return Err(violation(3, "committed segments stay", key, "a segment is gone"));
    };
    let holder = before.lease().map(|lease| (lease.attempt.epoch, lease.attempt.owner.nonce));
    let replaced = after.work.checkpoints.iter().filter(|(task, now)| before.work.checkpoints.get(task) != Some(now));
    for (task, checkpoint) in replaced {
        if holder != Some((checkpoint.epoch, checkpoint.nonce)) {
            let detail = format!("the checkpoint of task {task} is not of the attempt that held it");
            return Err(violation(5, "one attempt at most can commit", key, detail));
        }
    }
    let mut kept = before.work.checkpoints.keys().filter(|task| after.work.marks.get(**task) == Mark::Open);
    if !after.is_final() && kept.any(|task| !after.work.checkpoints.contains_key(task)) {
        return Err(violation(3, "committed checkpoints stay", key, "an open task has lost its own"));
    }
    if added.iter().any(|segment| holder != Some((segment.epoch, segment.nonce))) {
        return Err(violation(
            5,
            "one attempt at most can commit",
            key,
            "a segment is not of the attempt that held it",
        ));
    }
    Ok(())
}

/// Checks a whole store.
pub fn check_world(world: &World) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (key, chunk) in &world.chunks {
        if *key != chunk.spec.key {
            broken.push(violation(
                8,
                "same key and digest is one chunk",
                key,
                format!("{} lies there", chunk.spec.key),
            ));
        }
        broken.extend(check_chunk(chunk).err());
        broken.extend(check_blobs(world, chunk));
    }
    broken.extend(world.jobs.values().flat_map(|job| check_job(world, job)));
    broken
}

/// Invariant 3: every committed segment and checkpoint exists with its recorded hash; and so does every payload.
fn check_blobs(world: &World, chunk: &Chunk) -> Vec<Violation> {
    let key = chunk.spec.key;
    let segments = chunk.work.segments.iter().map(|segment| (segment.key(&chunk.spec), segment.digest));
    let checkpoints = chunk.work.checkpoints.iter();
    let checkpoints = checkpoints.map(|(&task, checkpoint)| (checkpoint.key(&chunk.spec, task), checkpoint.digest));
    let blobs = segments.chain(checkpoints).chain([(chunk.spec.pack_key(), chunk.spec.digest)]);
    let wrong = |(blob, digest): (String, Digest)| match world.blobs.get(&blob) {
        Some(found) if *found == digest => None,
        Some(_) => Some(format!("{blob} holds other bytes")),
        None => Some(format!("{blob} is not there")),
    };
    let promise = "what a chunk names exists with its hash";
    blobs.filter_map(wrong).map(|detail| violation(3, promise, key, detail)).collect()
}

/// Invariants 1, 9 and 13: a job's chunks are of its tenant; its summary counts no more than there is; and once it is done
/// it has all its chunks, all final, and its summary counts exactly their outcomes.
fn check_job(world: &World, job: &Job) -> Vec<Violation> {
    let all = ChunkKey { job: job.id, number: 0 }..=ChunkKey { job: job.id, number: u32::MAX };
    let chunks: Vec<&Chunk> = world.chunks.range(all).map(|(_, chunk)| chunk).collect();
    let mut broken = Vec::new();
    if let Some(chunk) = chunks.iter().find(|chunk| chunk.spec.tenant != job.tenant) {
        let detail = format!("chunk {} is of tenant {}", chunk.spec.key.number, chunk.spec.tenant);
        broken.push(violation(13, "no tenant can see another's keys", job.id, detail));
    }
    let ended = || chunks.iter().filter(|chunk| chunk.is_final());
    let totals = ended().fold(Totals::default(), |sum, chunk| sum + chunk.totals().into());
    let summary = world.summaries.get(&job.id).copied().unwrap_or_default();
    let ahead = summary.chunks_submitted > chunks.len() as u64
        || summary.chunks_ended > ended().count() as u64
        || Outcome::ALL.iter().any(|&outcome| summary.totals.of(outcome) > totals.of(outcome));
    if ahead {
        broken.push(violation(9, "counts are of what is", job.id, "the summary is ahead of the chunks"));
    }
    let JobState::Done { seal, .. } = job.state else { return broken };
    let complete = chunks.len() == seal.chunks as usize
        && (0..).zip(&chunks).all(|(number, chunk)| chunk.spec.key.number == number && chunk.is_final());
    if !complete {
        let detail = format!("{} chunks, {} of them final; {} were sealed", chunks.len(), ended().count(), seal.chunks);
        broken.push(violation(9, "done is said only when it is true", job.id, detail));
    }
    if totals.ended() != seal.tasks {
        let detail = format!("{} outcomes for {} tasks", totals.ended(), seal.tasks);
        broken.push(violation(1, "every task has one outcome", job.id, detail));
    }
    if summary.totals != totals {
        broken.push(violation(9, "counts are of what is", job.id, "the summary differs from the chunks"));
    }
    broken
}
