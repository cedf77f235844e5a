//! Jobs, chunks and hints to check with.

use sheaf_core::{
    Attempt, CheckpointRef, Chunk, ChunkEvent, ChunkKey, ChunkSpec, Commit, Digest, Job, JobId, JobOptions, JobState,
    Lane, Mark, Marks, Owner, Priority, SegmentRef, TenantId,
};
use sheaf_protocol::{Hint, Ports, StateStore, Write, WriteError};

/// A time to count from (Unix, ms).
pub const NOW_MS: u64 = 1_800_000_000_000;

/// An id that no other check has.
pub fn job_id() -> JobId {
    JobId::from_uuid(uuid::Uuid::now_v7())
}

/// A job of one function.
pub fn job(id: JobId, created_at_ms: u64) -> Job {
    let options = JobOptions::new(vec!["echo@0123456789ab".parse().expect("a function version")]);
    let (tenant, state) = (TenantId::default(), JobState::Open);
    Job { id, tenant, options, options_digest: Digest::of(b""), origin: None, created_at_ms, state }
}

/// A chunk of some tasks.
pub fn spec(job: JobId, number: u32, tasks: u32) -> ChunkSpec {
    ChunkSpec {
        key: ChunkKey { job, number },
        tenant: TenantId::default(),
        tasks,
        task_first: 0,
        digest: Digest::of(&number.to_le_bytes()),
        pack_bytes: 0,
        lane: Lane::default(),
        priority: Priority::default(),
        deadline_ms: None,
        submitted_at_ms: NOW_MS,
    }
}

/// T1 of a chunk.
pub fn submit(spec: &ChunkSpec) -> Write {
    Write { key: spec.key, event: ChunkEvent::Submit { spec: Box::new(spec.clone()) } }
}

/// T2 of a chunk, by an owner told apart by its nonce.
pub fn claim(key: ChunkKey, nonce: u64) -> Write {
    let owner = Owner { worker: "wrk_conformance".parse().expect("a worker id"), nonce };
    Write { key, event: ChunkEvent::Claim { owner, now_ms: NOW_MS, until_ms: NOW_MS + 30_000 } }
}

/// A checkpoint of an attempt, stored at [`NOW_MS`].
pub fn checkpoint(attempt: &Attempt, number: u32) -> CheckpointRef {
    let (epoch, nonce) = (attempt.epoch, attempt.owner.nonce);
    let digest = Digest::of(&number.to_le_bytes());
    CheckpointRef { epoch, nonce, number, digest, bytes: 4, at_ms: NOW_MS, run_ms: 1_000 }
}

/// T8 of a claimed chunk, all of whose tasks succeeded.
pub fn finish(chunk: &Chunk) -> Write {
    let attempt: Attempt = chunk.lease().expect("a claimed chunk").attempt.clone();
    let mut marks = Marks::open(chunk.spec.tasks);
    (0..chunk.spec.tasks).for_each(|task| marks.set(task, Mark::Succeeded));
    let segment = SegmentRef {
        epoch: attempt.epoch,
        nonce: attempt.owner.nonce,
        number: 0,
        digest: Digest::of(b"segment"),
        bytes: 7,
        tasks: chunk.spec.tasks,
        run_us: 0,
        run_us_max: 0,
        has_logs: false,
    };
    let commit = Some(Commit { marks, segment });
    Write { key: chunk.spec.key, event: ChunkEvent::Finish { attempt, rv: chunk.rv, commit, now_ms: NOW_MS } }
}

/// Applies one write.
pub async fn apply<P: Ports>(ports: &P, write: Write) -> Result<Chunk, WriteError> {
    ports.state().apply(vec![write]).await.pop().expect("one answer per write")
}

/// A hint.
pub fn hint(number: u32, tenant: &str, priority: Priority) -> Hint {
    let key = ChunkKey { job: JobId::from_bytes([7; 16]), number };
    Hint { key, tenant: tenant.parse().expect("a tenant"), lane: Lane::default(), priority, pack: None, hedge: false }
}
