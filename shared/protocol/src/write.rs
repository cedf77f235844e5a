//! Writing through a store that may throttle, and whose answers may be lost.

use sheaf_core::{Chunk, ChunkEvent, ChunkKey, JobEvent, JobId, JobRefused};

use crate::{
    error::{JobWriteError, StoreError, WriteError},
    ports::{Clock, Ports, Rng, StateStore, Write},
};

/// How often a write is tried again, and with which pauses: 50 ms doubled up to 2 s, full jitter; about 8 s in all, well
/// within a lease.
const TRIES_MAX: u32 = 9;
const PAUSE_BASE_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;

pub(crate) async fn pause<P: Ports>(ports: &P, tries: u32, at_least_ms: u64) {
    let bound_ms = (PAUSE_BASE_MS << tries.min(16)).min(PAUSE_MAX_MS);
    ports.clock().sleep_ms(at_least_ms + ports.rng().below(bound_ms)).await;
}

/// The pause that an error asks for, or `None` if trying again is useless.
pub(crate) const fn retry_after_ms(error: &StoreError) -> Option<u64> {
    match error {
        StoreError::Throttled { retry_after_ms } => Some(*retry_after_ms),
        StoreError::Unknown { .. } => Some(0),
        StoreError::Stopped { .. } | StoreError::Damaged { .. } => None,
    }
}

/// Runs an idempotent store call again while its error says that this may help.
pub(crate) async fn retrying<P, T, F, Fut>(ports: &P, mut call: F) -> Result<T, StoreError>
where
    P: Ports,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => match retry_after_ms(&error) {
                Some(at_least_ms) if tries < TRIES_MAX => pause(ports, tries, at_least_ms).await,
                _ => return Err(error),
            },
        }
    }
}

/// Applies events to chunks, each until it is known whether it was applied. A refusal by a chunk that shows the event is
/// the event's own success, whose answer was lost.
pub(crate) async fn write_all<P: Ports>(ports: &P, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
    let mut answers: Vec<Option<Result<Chunk, WriteError>>> = vec![None; writes.len()];
    let mut open: Vec<usize> = (0..writes.len()).collect();
    let mut tries = 0;
    while !open.is_empty() {
        tries += 1;
        let batch = open.iter().map(|&i| writes[i].clone()).collect();
        let mut at_least_ms = 0;
        let mut again = Vec::new();
        for (i, answer) in open.iter().copied().zip(ports.state().apply(batch).await) {
            let pause_ms = match &answer {
                Err(WriteError::Store(error)) if tries < TRIES_MAX => retry_after_ms(error),
                _ => None,
            };
            if let Some(pause_ms) = pause_ms {
                at_least_ms = at_least_ms.max(pause_ms);
                again.push(i);
            }
            answers[i] = Some(own_success(&writes[i].event, answer));
        }
        open = again;
        if !open.is_empty() {
            pause(ports, tries, at_least_ms).await;
        }
    }
    answers.into_iter().map(|answer| answer.expect("the first round answers every write")).collect()
}

fn own_success(event: &ChunkEvent, answer: Result<Chunk, WriteError>) -> Result<Chunk, WriteError> {
    match answer {
        Err(WriteError::Refused { current: Some(current), .. })
            if !matches!(event, ChunkEvent::Submit { .. }) && event.landed_in(&current) =>
        {
            Ok(*current)
        }
        other => other,
    }
}

/// Applies one event, as [`write_all`].
pub(crate) async fn write<P: Ports>(ports: &P, key: ChunkKey, event: ChunkEvent) -> Result<Chunk, WriteError> {
    write_all(ports, vec![Write { key, event }]).await.pop().expect("one answer per write")
}

/// Applies an event to a job until it is known whether it was applied; that it is so already is a success.
pub(crate) async fn write_job<P: Ports>(
    ports: &P,
    id: JobId,
    event: JobEvent,
) -> Result<sheaf_core::Job, JobWriteError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match ports.state().apply_job(id, event).await {
            Err(JobWriteError::Store(error)) if tries < TRIES_MAX => match retry_after_ms(&error) {
                Some(at_least_ms) => pause(ports, tries, at_least_ms).await,
                None => return Err(error.into()),
            },
            Err(JobWriteError::Refused(JobRefused::Already)) => {
                let job = retrying(ports, || ports.state().job(id)).await?;
                return job.ok_or(JobWriteError::Refused(JobRefused::Absent));
            }
            answer => return answer,
        }
    }
}
