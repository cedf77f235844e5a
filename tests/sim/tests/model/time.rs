//! Time that passes by a lease at a time.
//!
//! The clock stands still: when time passes, everything that was noted becomes older instead, down to a floor below which
//! it no longer matters how old it is. So time has no end and yet few values.

use sheaf_core::{Chunk, ChunkState, Lease, limits};

/// A step of time: just long enough that whoever could renew a lease and did not, can have lost it.
pub(crate) const STEP_MS: u64 = limits::LEASE_MS + limits::CLOCK_MARGIN_MS + 1;
/// What the clock says. A hint is taken for lost after at most two steps, so nothing asks how much older a thing is.
pub(crate) const NOW_MS: u64 = 2 * STEP_MS;

const _: () = assert!(limits::HINT_AGE_MS <= 2 * STEP_MS);

pub(crate) const fn age(ms: &mut u64) {
    *ms = ms.saturating_sub(STEP_MS);
}

pub(crate) fn age_chunk(chunk: &mut Chunk) {
    let Chunk { spec, state, work, epoch: _, rv: _, due_ms } = chunk;
    age(&mut spec.submitted_at_ms);
    spec.deadline_ms.iter_mut().for_each(age);
    age(due_ms);
    match state {
        ChunkState::Queued { not_before_ms } => age(not_before_ms),
        ChunkState::Leased(Lease { attempt: _, since_ms, until_ms, marker: _ }) => {
            age(since_ms);
            age(until_ms);
        }
        ChunkState::Done { attempt: _, since_ms, at_ms } => {
            age(since_ms);
            age(at_ms);
        }
        ChunkState::Ended { reason: _, at_ms } => age(at_ms),
    }
    for past in &mut work.past {
        age(&mut past.since_ms);
        age(&mut past.until_ms);
    }
}
