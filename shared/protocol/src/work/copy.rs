//! A second copy of a task that another worker runs, for when a deadline leaves no time to wait for that one.
//!
//! The copy runs without a lease, so it can write nothing: no result, no checkpoint. When it has come to a good end, its worker
//! takes the chunk over with the outcome at hand (T3) and commits it (T8), as any owner does; the slower attempt is fenced off by
//! that and stops. When the owner dies or gives back first, the copy's worker claims the chunk like anybody else, and the copy
//! becomes its attempt. A copy that fails is dropped: the owner goes on, and is charged with what happens to it alone.
//!
//! Only the last open task of a chunk is copied, and none that has killed anything. A hint for a copy is deleted before the copy
//! begins, so a task that kills what runs it costs at most one worker more for each such hint.
//!
//! # Cost
//! A read of the chunk with each heartbeat while it runs, and what a claim and a commit cost if it wins.

use std::future::{Future, ready};

use bytes::Bytes;
use futures::{
    future::{Either, select},
    pin_mut,
};
use sheaf_api::run::{Call, Report};
use sheaf_core::{Chunk, ChunkEvent, ChunkState, Evidence, Lane, Lease, Owner, limits};

use super::{
    Worked, Worker, checkpoints,
    claim::Claim,
    copies::Copying,
    run::{LOOK_MS, Prepared, Run},
};
use crate::{
    ports::{ChunkQueue, Clock, Hint, Ports, Runner, StateStore},
    write::write,
};

/// How often a worker tries to take a chunk whose outcome it has at hand, while its owner renews the lease or commits.
const TRIES_MAX: usize = 5;

/// Asks for a second copy of the last open task of each of these chunks that is held, by machines that nobody takes away. One
/// send, and what the copies cost.
pub async fn hedge<P: Ports>(ports: &P, chunks: &[Chunk]) {
    let held = chunks.iter().filter(|chunk| chunk.lease().is_some());
    let hint = |chunk: &Chunk| Hint { lane: Lane::OnDemand, hedge: true, ..crate::submit::hint(&chunk.spec, None) };
    ports.queue().send(held.map(hint).collect(), 0).await;
}

/// A task that is copied.
struct Copied<'a> {
    task: u32,
    pack: Bytes,
    copying: Copying<'a>,
}

impl<P: Ports, R: Runner> Worker<P, R> {
    /// The task of a held chunk that may be copied here.
    pub(super) fn copyable(&self, chunk: &Chunk, lease: &Lease) -> Option<u32> {
        let task = chunk.only_open()?;
        let harmless = chunk.work.crashes == 0 && chunk.work.tallies.get(&task).is_none_or(|tally| tally.strikes == 0);
        let elsewhere = lease.attempt.owner.worker != self.options.id;
        let runs_here = self.holding.lock().contains_key(&chunk.spec.key);
        (harmless && elsewhere && !runs_here && self.drain.until_ms().is_none()).then_some(task)
    }

    /// Runs a copy of a task of a chunk that another worker holds, until either of them has ended.
    pub(super) async fn copy(&self, chunk: &Chunk, task: u32, inline: Option<Bytes>) -> Worked {
        let Ok(prepared) = self.prepare(chunk, inline).await else { return Worked::Over };
        let Some(call) = self.call_of_copy(chunk, &prepared, task).await else { return Worked::Over };
        tracing::info!(chunk = %chunk.spec.key, task, "a second copy is run");
        let copying = self.copies.begin(chunk.spec.key);
        let copied = Copied { task, pack: prepared.pack.bytes().clone(), copying };
        let running = self.runner.run(call);
        pin_mut!(running);
        loop {
            let look = self.ports.clock().sleep_ms(self.options.heartbeat_ms);
            pin_mut!(look);
            if let Either::Left((report, _)) = select(running.as_mut(), look).await {
                return self.outrun(chunk, copied, report).await;
            }
            if self.drain.until_ms().is_some() {
                return Worked::Over;
            }
            // Where the store does not answer, the next look tells.
            let Ok(mut now) = self.ports.state().chunks(&[chunk.spec.key]).await else { continue };
            let Some(chunk) = now.pop().flatten().filter(|chunk| !chunk.is_final()) else { return Worked::Over };
            if self.is_held(&chunk) {
                continue;
            }
            match self.claim(chunk.spec.key).await {
                Claim::Mine { chunk } => return self.adopt(*chunk, copied, running).await,
                Claim::Over => return Worked::Over,
                Claim::Held { .. } | Claim::Postpone { .. } => {}
            }
        }
    }

    /// Whether an owner holds a chunk who may be alive.
    fn is_held(&self, chunk: &Chunk) -> bool {
        let over_ms = |lease: &Lease| lease.until_ms.saturating_add(limits::CLOCK_MARGIN_MS);
        chunk.lease().is_some_and(|lease| self.ports.clock().now_ms() <= over_ms(lease))
    }

    /// The call of a copy: of no attempt, and from the last checkpoint if there is one.
    async fn call_of_copy(&self, chunk: &Chunk, prepared: &Prepared, task: u32) -> Option<Call> {
        let index = prepared.pack.function(task);
        let manifest = prepared.manifests.get(usize::from(index)).cloned().flatten()?;
        let last = chunk.work.checkpoints.get(&task);
        let checkpoint = match manifest.checkpoint_every_ms {
            Some(_) => Some(checkpoints::restore(&self.ports, &chunk.spec, task, last).await.0),
            None => None,
        };
        Some(Call {
            tenant: chunk.spec.tenant.clone(),
            function: crate::submit::function_of(&prepared.job, index).clone(),
            manifest,
            chunk: chunk.spec.key,
            epoch: 0,
            pack: prepared.pack.clone(),
            budget: None,
            tasks: vec![task],
            deadline_ms: chunk.spec.deadline_ms,
            stop_on_failure: false,
            checkpoint,
        })
    }

    /// Takes the chunk with the outcome of its task at hand, if that is a good one and nobody else was faster.
    async fn outrun(&self, chunk: &Chunk, copied: Copied<'_>, report: Report) -> Worked {
        if report.answers.is_empty() {
            tracing::info!(chunk = %chunk.spec.key, task = copied.task, "a second copy has failed; its owner goes on");
            return Worked::Over;
        }
        for _ in 0..TRIES_MAX {
            match self.claim(chunk.spec.key).await {
                Claim::Mine { chunk } => return self.adopt(*chunk, copied, ready(report)).await,
                Claim::Over => return Worked::Over,
                Claim::Held { chunk, .. } => {
                    if let Some(chunk) = self.take_from_living(&chunk).await {
                        return self.adopt(chunk, copied, ready(report)).await;
                    }
                }
                Claim::Postpone { .. } => {}
            }
            self.ports.clock().sleep_ms(LOOK_MS).await;
        }
        Worked::Over
    }

    /// T3 with the outcome of the only open task at hand.
    async fn take_from_living(&self, chunk: &Chunk) -> Option<Chunk> {
        let ChunkState::Leased(lease) = &chunk.state else { return None };
        let now_ms = self.ports.clock().now_ms();
        let event = ChunkEvent::TakeOver {
            owner: Owner { worker: self.options.id.clone(), nonce: self.nonce() },
            seen: lease.attempt.clone(),
            seen_until_ms: lease.until_ms,
            evidence: Evidence::Outrun,
            now_ms,
            until_ms: now_ms + self.options.lease_ms,
        };
        let taken = write(&self.ports, chunk.spec.key, event).await;
        taken.inspect_err(|error| tracing::debug!(chunk = %chunk.spec.key, %error, "its owner moved it on")).ok()
    }

    /// Goes on with a copy as the attempt that this worker now has.
    async fn adopt(&self, chunk: Chunk, copied: Copied<'_>, running: impl Future<Output = Report>) -> Worked {
        let Copied { task, pack, copying } = copied;
        // From here on it has a lease.
        drop(copying);
        match self.prepare(&chunk, Some(pack.clone())).await {
            Ok(prepared) if chunk.only_open() == Some(task) && !chunk.is_isolated() => {
                let running = async { (vec![task], running.await) };
                Box::pin(Run::new(self, chunk, prepared, None).go_on(task, running)).await
            }
            _ => self.run(chunk, Some(pack)).await,
        }
    }
}
