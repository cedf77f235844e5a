//! Each transition as one conditional update.
//!
//! Claims, heartbeats and touches are stated without knowing the item. All others follow from the chunk as it was last seen:
//! [`Chunk::apply`] says what it becomes, the update sets what differs, and the condition is that nothing it depends on has
//! changed since. `rv` grows with every write but heartbeats and touches, so that equal `rv` means an equal chunk but for the
//! end of its lease and its due time; those two have conditions of their own where a transition depends on them.

use sheaf_core::{Attempt, Chunk, ChunkEvent, ChunkKey, Due, Owner, due_of_lease};

use super::{
    item::{self, LEASED, QUEUED, number, text},
    update::Update,
};
use crate::schema::{self, DUE, chunk as at};

/// The update for an event that can be stated without having seen the chunk.
///
/// A refused one may still be possible: a claim so close to the deadline that its due time would be the deadline, one that has
/// to move the due time where it was thought not to or the other way round (`claim_moves_due`), or a heartbeat that would
/// shorten the lease and so changes nothing.
pub(crate) fn unseen(key: ChunkKey, event: &ChunkEvent, claim_moves_due: bool) -> Option<Update> {
    match event {
        ChunkEvent::Claim { owner, now_ms, until_ms } => Some(claim(key, owner, *now_ms, *until_ms, claim_moves_due)),
        ChunkEvent::Heartbeat { attempt, until_ms } => {
            let mut update = Update::default();
            update.set(at::UNTIL, number(until_ms));
            only_if_mine(&mut update, attempt);
            update.only_if(at::UNTIL, "<=", number(until_ms));
            Some(update)
        }
        ChunkEvent::Touch { seen_due_ms, due_ms } => {
            let row = |due_ms: Due| item::binary(schema::due_row(due_ms, key));
            let mut update = Update::default();
            update.set(DUE.sort, row(*due_ms));
            update.only_if_one_of(at::STATE, [text(QUEUED), text(LEASED)]);
            update.only_if(DUE.sort, "=", row(*seen_due_ms));
            Some(update)
        }
        ChunkEvent::Submit { .. }
        | ChunkEvent::TakeOver { .. }
        | ChunkEvent::Segment { .. }
        | ChunkEvent::Mark { .. }
        | ChunkEvent::Release { .. }
        | ChunkEvent::Finish { .. }
        | ChunkEvent::End { .. } => None,
    }
}

fn claim(key: ChunkKey, owner: &Owner, now_ms: u64, until_ms: u64, moves_due: bool) -> Update {
    let (lapses_ms, latest_ms) = due_of_lease(until_ms);
    let row = |due_ms: Due| item::binary(schema::due_row(due_ms, key));
    let mut update = Update::default();
    if moves_due {
        update.set(DUE.sort, row(lapses_ms)).only_if_outside(DUE.sort, row(lapses_ms), row(latest_ms));
    } else {
        update.only_if(DUE.sort, ">=", row(lapses_ms)).only_if(DUE.sort, "<=", row(latest_ms));
    }
    let due_ms = if moves_due { lapses_ms } else { latest_ms };
    update
        .set(at::STATE, text(LEASED))
        .set(at::WORKER, text(owner.worker.as_str()))
        .set(at::NONCE, number(owner.nonce))
        .set(at::SINCE, number(now_ms))
        .set(at::UNTIL, number(until_ms))
        .remove(at::NOT_BEFORE)
        .add(at::EPOCH, number(1))
        .add(at::REVISION, number(1))
        .only_if(at::STATE, "=", text(QUEUED))
        .only_if(at::NOT_BEFORE, "<=", number(now_ms))
        // A later deadline than that is neither over nor the due time.
        .only_if_absent_or(at::DEADLINE, ">=", number(due_ms.max(now_ms.saturating_add(1))));
    update
}

fn only_if_mine(update: &mut Update, attempt: &Attempt) {
    update
        .only_if(at::STATE, "=", text(LEASED))
        .only_if(at::EPOCH, "=", number(attempt.epoch))
        .only_if(at::WORKER, "=", text(attempt.owner.worker.as_str()))
        .only_if(at::NONCE, "=", number(attempt.owner.nonce));
}

/// The update that makes of the chunk as `seen` the chunk `after` an event, and fails if that is not what the event would do
/// to the chunk as it is. `None` if nothing changes.
pub(crate) fn seen(seen: &Chunk, event: &ChunkEvent, after: &Chunk) -> Option<Update> {
    let (old, new) = (item::attributes(seen), item::attributes(after));
    let mut update = Update::default();
    for (name, value) in &new {
        // A release sets the due time, whatever the sweeper has made of it meanwhile.
        if old.get(name) != Some(value) || (*name == DUE.sort && sets_due(event)) {
            update.set(name, value.clone());
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        update.remove(name);
    }
    update.expression()?;
    update.only_if(at::REVISION, "=", number(seen.rv));
    match event {
        ChunkEvent::Heartbeat { attempt, .. }
        | ChunkEvent::Segment { attempt, .. }
        | ChunkEvent::Mark { attempt, .. }
        | ChunkEvent::Release { attempt, .. }
        | ChunkEvent::Finish { attempt, .. } => only_if_mine(&mut update, attempt),
        ChunkEvent::Submit { .. }
        | ChunkEvent::Claim { .. }
        | ChunkEvent::TakeOver { .. }
        | ChunkEvent::End { .. }
        | ChunkEvent::Touch { .. } => {
            update.only_if(at::STATE, "=", text(item::state_word(&seen.state)));
        }
    }
    match event {
        ChunkEvent::TakeOver { seen_until_ms, .. } => {
            update.only_if(at::UNTIL, "=", number(seen_until_ms));
            update.only_if(DUE.sort, "=", item::binary(schema::due_row(seen.due_ms, seen.spec.key)));
        }
        ChunkEvent::Touch { seen_due_ms, .. } => {
            update.only_if(DUE.sort, "=", item::binary(schema::due_row(*seen_due_ms, seen.spec.key)));
        }
        // Whether it moves the due time depends on that.
        ChunkEvent::Claim { .. } => {
            update.only_if(DUE.sort, "=", item::binary(schema::due_row(seen.due_ms, seen.spec.key)));
        }
        // A lease never shrinks. Where the update leaves its end alone, it lies behind the wanted one already.
        ChunkEvent::Heartbeat { until_ms, .. } | ChunkEvent::Segment { until_ms, .. }
            if old.get(at::UNTIL) != new.get(at::UNTIL) =>
        {
            update.only_if(at::UNTIL, "<=", number(until_ms));
        }
        ChunkEvent::Heartbeat { .. }
        | ChunkEvent::Segment { .. }
        | ChunkEvent::Submit { .. }
        | ChunkEvent::Mark { .. }
        | ChunkEvent::Release { .. }
        | ChunkEvent::Finish { .. }
        | ChunkEvent::End { .. } => {}
    }
    Some(update)
}

const fn sets_due(event: &ChunkEvent) -> bool {
    match event {
        ChunkEvent::Submit { .. } | ChunkEvent::Release { .. } | ChunkEvent::Touch { .. } => true,
        ChunkEvent::Claim { .. }
        | ChunkEvent::TakeOver { .. }
        | ChunkEvent::Heartbeat { .. }
        | ChunkEvent::Segment { .. }
        | ChunkEvent::Mark { .. }
        | ChunkEvent::Finish { .. }
        | ChunkEvent::End { .. } => false,
    }
}
