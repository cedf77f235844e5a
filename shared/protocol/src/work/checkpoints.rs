//! Checkpoints: restored before a task runs, stored while it does, named by the chunk with the next T5 or T7.
//!
//! A call of a function that writes checkpoints has one task. Its future stores what the function has written, so that a large
//! checkpoint holds up no heartbeat; only its reference goes through the run, which writes the chunk. A checkpoint is a help
//! and never a condition: one that cannot be stored or restored costs the work that it holds, not the task.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    future::{Either, select},
    pin_mut,
};
use parking_lot::Mutex;
use sheaf_api::{
    checkpoint::{Checkpoint, Written},
    run::{Call, Report},
};
use sheaf_core::{Attempt, CheckpointRef, Chunk, ChunkSpec, Digest, limits};

use super::run::LOOK_MS;
use crate::{
    ports::{BlobStore, Clock, Ports, Runner},
    write::retrying,
};

/// The checkpoints of one attempt.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    asked: AtomicBool,
    numbers: AtomicU32,
    /// Stored, and not yet named by the chunk.
    stored: Mutex<BTreeMap<u32, CheckpointRef>>,
}

impl Checkpoints {
    /// Asks every task that runs for a last checkpoint, after which it ends.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether there are any that the chunk does not name.
    pub(super) fn is_empty(&self) -> bool {
        self.stored.lock().is_empty()
    }

    /// Takes those that the chunk is to name: of open tasks, and no more than it has room for.
    pub(super) fn take(&self, chunk: &Chunk) -> BTreeMap<u32, CheckpointRef> {
        fitting(std::mem::take(&mut *self.stored.lock()), chunk)
    }
}

fn fitting(mut stored: BTreeMap<u32, CheckpointRef>, chunk: &Chunk) -> BTreeMap<u32, CheckpointRef> {
    let named = &chunk.work.checkpoints;
    let mut room = limits::CHECKPOINTS_MAX.saturating_sub(named.len());
    stored.retain(|task, _| {
        let is_new = !named.contains_key(task);
        let fits = !is_new || room > 0;
        room -= usize::from(is_new && fits);
        fits
    });
    stored
}

/// One task of a function that writes checkpoints, in one attempt.
pub(super) struct Task<'a, P> {
    pub(super) ports: &'a P,
    pub(super) all: Arc<Checkpoints>,
    pub(super) spec: ChunkSpec,
    pub(super) attempt: Attempt,
    pub(super) task: u32,
    /// The last committed one.
    pub(super) last: Option<CheckpointRef>,
}

impl<P: Ports> Task<'_, P> {
    /// Runs a call of this task. When a last checkpoint was asked for, a call without a result is as if it had not been
    /// started, however it ended: the function was told to stop.
    pub(super) async fn run<R: Runner>(self, runner: &R, call: Call) -> Report {
        let (checkpoint, held_ms) = restore(self.ports, &self.spec, self.task, self.last.as_ref()).await;
        let every_ms = call.manifest.checkpoint_every_ms.unwrap_or_default();
        let mut next_ms = self.ports.clock().now_ms() + every_ms;
        let call = Call { checkpoint: Some(checkpoint.clone()), ..call };
        let running = runner.run(call);
        pin_mut!(running);
        let mut report = loop {
            let look = self.ports.clock().sleep_ms(LOOK_MS);
            pin_mut!(look);
            if let Either::Left((report, _)) = select(running.as_mut(), look).await {
                break report;
            }
            if self.all.asked.load(Ordering::Acquire) {
                checkpoint.ask();
            }
            let now_ms = self.ports.clock().now_ms();
            if now_ms < next_ms && !checkpoint.is_asked() {
                continue;
            }
            let Some(written) = checkpoint.take() else { continue };
            next_ms = now_ms + every_ms;
            let storing = self.store(written, held_ms);
            pin_mut!(storing);
            if let Either::Left((report, storing)) = select(running.as_mut(), storing).await {
                storing.await;
                break report;
            }
        };
        if report.answers.is_empty() {
            if let Some(written) = checkpoint.take() {
                self.store(written, held_ms).await;
            }
            if checkpoint.is_asked() {
                report.failures.clear();
                report.unanswered = None;
            }
        }
        report
    }

    async fn store(&self, written: Written, held_ms: u64) {
        let Written { bytes, run_ms } = written;
        let reference = CheckpointRef {
            epoch: self.attempt.epoch,
            nonce: self.attempt.owner.nonce,
            number: self.all.numbers.fetch_add(1, Ordering::Relaxed),
            digest: Digest::of(&bytes),
            bytes: bytes.len() as u32,
            at_ms: self.ports.clock().now_ms(),
            run_ms: held_ms + run_ms,
        };
        let blob = vec![(reference.key(&self.spec, self.task), bytes)];
        let put = || async { self.ports.blobs().put(blob.clone()).await.pop().expect("one answer per blob") };
        match retrying(self.ports, put).await {
            Ok(_) => drop(self.all.stored.lock().insert(self.task, reference)),
            Err(error) => {
                let (chunk, task) = (self.spec.key, self.task);
                tracing::warn!(%chunk, task, %error, "a checkpoint could not be stored; the one before it stays");
            }
        }
    }
}

/// What a task goes on from whose last committed checkpoint this is, and the run time in it.
pub(super) async fn restore<P: Ports>(
    ports: &P,
    spec: &ChunkSpec,
    task: u32,
    last: Option<&CheckpointRef>,
) -> (Arc<Checkpoint>, u64) {
    let Some(last) = last else { return (Arc::default(), 0) };
    match read(ports, last, last.key(spec, task)).await {
        Ok(bytes) => (Arc::new(Checkpoint::new(Some(bytes))), last.run_ms),
        Err(detail) => {
            let (chunk, epoch) = (spec.key, last.epoch);
            tracing::warn!(%chunk, task, epoch, detail, "a checkpoint cannot be restored; the task starts anew");
            let checkpoint = Checkpoint::default();
            checkpoint.note(&format!("the checkpoint of attempt {epoch} {detail}; the task starts anew"));
            (Arc::new(checkpoint), 0)
        }
    }
}

async fn read<P: Ports>(ports: &P, checkpoint: &CheckpointRef, key: String) -> Result<Bytes, String> {
    let keys = [key];
    let get = || async { ports.blobs().get(&keys).await.pop().expect("one answer per key") };
    let found = retrying(ports, get).await.map_err(|error| format!("cannot be read: {error}"))?;
    let bytes = found.ok_or("is not there any more")?;
    if Digest::of(&bytes) == checkpoint.digest { Ok(bytes) } else { Err("is damaged".to_owned()) }
}

/// Deletes what a write has left without a name: checkpoints that were replaced, and all those of tasks that are closed. Once
/// each: what stays behind goes with the job.
pub(super) async fn delete_unnamed<P: Ports>(ports: &P, before: &Chunk, after: &Chunk) {
    for (&task, old) in &before.work.checkpoints {
        let prefix = match after.work.checkpoints.get(&task) {
            Some(new) if new == old => continue,
            Some(_) => old.key(&before.spec, task),
            None => CheckpointRef::keys_of(&before.spec, task),
        };
        if let Err(error) = ports.blobs().delete_prefix(&prefix).await {
            tracing::debug!(prefix, %error, "a checkpoint is left until its job is removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use sheaf_core::{ChunkEvent, ChunkKey, JobId, Lane, Owner, Priority};

    use super::*;

    /// A chunk of more tasks than may have a checkpoint, held, of which all that may but one have.
    fn crowded() -> Chunk {
        let spec = ChunkSpec {
            key: ChunkKey { job: JobId::from_bytes([7; 16]), number: 0 },
            tenant: Default::default(),
            tasks: 2 * limits::CHECKPOINTS_MAX as u32,
            task_first: 0,
            digest: Digest::of(b"pack"),
            pack_bytes: 1,
            lane: Lane::default(),
            priority: Priority::Normal,
            deadline_ms: None,
            submitted_at_ms: 0,
        };
        let owner = Owner { worker: "wrk_a".parse().expect("a worker id"), nonce: 1 };
        let submitted = Chunk::apply(None, &ChunkEvent::Submit { spec: Box::new(spec) }).expect("T1");
        let claim = ChunkEvent::Claim { owner: owner.clone(), now_ms: 0, until_ms: 9 };
        let held = Chunk::apply(Some(&submitted), &claim).expect("T2");
        let checkpoints = (1..limits::CHECKPOINTS_MAX as u32).map(|task| (task, reference(task))).collect();
        let (attempt, rv) = (Attempt { epoch: 1, owner }, held.rv);
        let (commit, tallies) = Default::default();
        let stored = ChunkEvent::Segment { attempt, rv, commit, tallies, checkpoints, until_ms: 9 };
        Chunk::apply(Some(&held), &stored).expect("T5")
    }

    fn reference(number: u32) -> CheckpointRef {
        CheckpointRef { epoch: 1, nonce: 1, number, digest: Digest::of(b"c"), bytes: 1, at_ms: 5, run_ms: 5 }
    }

    /// What the chunk has no room for is not named, rather than the write refused: the task goes on without.
    #[test]
    fn no_more_are_taken_than_the_chunk_has_room_for() {
        let beyond = limits::CHECKPOINTS_MAX as u32;
        let stored = [5, beyond, beyond + 1, beyond + 2].map(|task| (task, reference(1_000)));
        let taken: Vec<u32> = fitting(stored.into(), &crowded()).into_keys().collect();
        assert_eq!(taken, [5, beyond], "one that replaces another, and one more");
    }

    /// The key of one checkpoint is no prefix of another's: deleting the one must leave the other.
    #[test]
    fn no_key_is_the_beginning_of_another() {
        let spec = crowded().spec;
        let keys: Vec<String> =
            (0..300).flat_map(|n| [reference(n).key(&spec, 1), reference(n).key(&spec, 11)]).collect();
        for key in &keys {
            assert_eq!(keys.iter().filter(|other| other.starts_with(key.as_str())).count(), 1, "{key}");
        }
    }
}
