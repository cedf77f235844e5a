//! Taking a chunk: T2, or T3 when its owner is gone.

use sheaf_core::{Chunk, ChunkEvent, ChunkKey, ChunkState, EndReason, Evidence, Lease, Owner, Refused, limits};

use super::Worker;
use crate::{
    error::WriteError,
    ports::{Clock, Ports, Runner, StateStore},
    write::write,
};

pub(super) enum Claim {
    /// The chunk is this worker's.
    Mine { chunk: Box<Chunk> },
    /// It is final or gone: the hint has served its purpose.
    Over,
    /// Another worker holds it; try again when its lease could lapse.
    Held { chunk: Box<Chunk>, delay_ms: u64 },
    /// Try again after a while.
    Postpone { delay_ms: u64 },
}

impl<P: Ports, R: Runner> Worker<P, R> {
    pub(super) async fn claim(&self, key: ChunkKey) -> Claim {
        let now_ms = self.ports.clock().now_ms();
        let owner = Owner { worker: self.options.id.clone(), nonce: self.nonce() };
        let until_ms = now_ms + self.options.lease_ms;
        let claimed = write(&self.ports, key, ChunkEvent::Claim { owner: owner.clone(), now_ms, until_ms }).await;
        let (reason, current) = match claimed {
            Ok(chunk) => return Claim::Mine { chunk: Box::new(chunk) },
            Err(WriteError::Store(_)) => return Claim::Postpone { delay_ms: self.options.heartbeat_ms },
            Err(WriteError::Refused { reason, current }) => (reason, current),
        };
        match (reason, current) {
            (Refused::PastDeadline, Some(chunk)) => self.expire(&chunk, now_ms).await,
            (_, Some(chunk)) => match &chunk.state {
                ChunkState::Done { .. } | ChunkState::Ended { .. } => Claim::Over,
                ChunkState::Queued { not_before_ms } => {
                    Claim::Postpone { delay_ms: not_before_ms.saturating_sub(now_ms).max(1) }
                }
                ChunkState::Leased(lease) => self.take_over(&chunk, lease, owner, now_ms).await,
            },
            (_, None) => Claim::Over,
        }
    }

    async fn expire(&self, chunk: &Chunk, now_ms: u64) -> Claim {
        match write(&self.ports, chunk.spec.key, ChunkEvent::End { reason: EndReason::Expired, now_ms }).await {
            Ok(_) | Err(WriteError::Refused { reason: Refused::Final | Refused::Absent, .. }) => Claim::Over,
            Err(_) => Claim::Postpone { delay_ms: self.options.heartbeat_ms },
        }
    }

    /// A duplicate of a chunk that is held is postponed until its lease could lapse, never deleted.
    async fn take_over(&self, chunk: &Chunk, lease: &Lease, owner: Owner, now_ms: u64) -> Claim {
        let over_ms = lease.until_ms + limits::CLOCK_MARGIN_MS + 1;
        let evidence = if self.ports.state().owner_is_gone(&lease.attempt.owner) {
            Evidence::OwnerGone
        } else if now_ms >= over_ms {
            Evidence::LeaseOver
        } else {
            return Claim::Held { chunk: Box::new(chunk.clone()), delay_ms: over_ms - now_ms };
        };
        let event = ChunkEvent::TakeOver {
            owner,
            seen: lease.attempt.clone(),
            seen_until_ms: lease.until_ms,
            evidence,
            now_ms,
            until_ms: now_ms + self.options.lease_ms,
        };
        match write(&self.ports, chunk.spec.key, event).await {
            Ok(chunk) => {
                tracing::info!(chunk = %chunk.spec.key, from = %lease.attempt.owner.worker, "took over a chunk");
                Claim::Mine { chunk: Box::new(chunk) }
            }
            Err(WriteError::Refused { reason: Refused::Final | Refused::Absent, .. }) => Claim::Over,
            Err(WriteError::Refused { reason: Refused::PastDeadline, .. }) => self.expire(chunk, now_ms).await,
            // Another was faster.
            Err(WriteError::Refused { .. }) => Claim::Postpone { delay_ms: self.options.lease_ms },
            Err(WriteError::Store(_)) => Claim::Postpone { delay_ms: self.options.heartbeat_ms },
        }
    }
}
