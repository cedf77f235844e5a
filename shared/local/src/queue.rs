//! Hints in memory: three priorities, fair between tenants and between the jobs of one, bounded.
//!
//! The queue is a cache over the index of open chunks. When it is full it drops hints and says so; whoever reads from it
//! then fills it again from the index ([`LocalQueue::wants_refill`]), so that a backlog of any size takes no more memory.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    ops::Bound,
    time::Duration,
};

use parking_lot::Mutex;
use sheaf_core::{ChunkKey, JobId, Lane, Priority, TenantId};
use sheaf_protocol::{ChunkQueue, Delivery, Hint, StoreError};
use tokio::{sync::Notify, time::Instant};

/// Hints kept; at about 200 bytes each.
const HINTS_MAX: usize = 65_536;
/// Below this many the queue is filled again.
const REFILL_BELOW: usize = HINTS_MAX / 4;
/// Bytes of packs that ride along; beyond it hints travel without.
const PACK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of 100 receives, so many look at each priority first.
const SHARES: [(Priority, u32); 3] = [(Priority::High, 90), (Priority::Normal, 9), (Priority::Low, 1)];

/// The queue of an embedded grid, whose workers serve every lane.
#[derive(Debug, Default)]
pub struct LocalQueue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: HashMap<Priority, Tenants>,
    later: BinaryHeap<Reverse<Later>>,
    hints: usize,
    pack_bytes: usize,
    turn: u32,
    overflowed: bool,
    /// How long the hint waited that was delivered last.
    delay: Duration,
}

/// The hints of one priority: a tenant has its turn, gives one hint, and goes to the back.
#[derive(Debug, Default)]
struct Tenants {
    jobs: HashMap<TenantId, Jobs>,
    turns: VecDeque<TenantId>,
}

/// The hints of one tenant. Every second one given is of the oldest job, so that jobs end in about the order they came; the
/// others go round, so that a small job need not wait for a large one.
#[derive(Debug, Default)]
struct Jobs {
    hints: BTreeMap<JobId, VecDeque<(Instant, Hint)>>,
    /// Whose turn was the last that went round.
    last: Option<JobId>,
    goes_round: bool,
}

#[derive(Debug)]
struct Later {
    at: Instant,
    key: ChunkKey,
    hint: Hint,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.key) == (other.at, other.key)
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.key).cmp(&(other.at, other.key))
    }
}

impl State {
    fn push(&mut self, mut hint: Hint, at: Option<Instant>) {
        if self.hints >= HINTS_MAX {
            self.overflowed = true;
            return;
        }
        let bytes = hint.pack.as_ref().map_or(0, |pack| pack.len());
        if self.pack_bytes + bytes > PACK_BYTES_MAX {
            hint.pack = None;
        } else {
            self.pack_bytes += bytes;
        }
        self.hints += 1;
        match at {
            Some(at) => self.later.push(Reverse(Later { at, key: hint.key, hint })),
            None => self.make_ready(hint, Instant::now()),
        }
    }

    fn make_ready(&mut self, hint: Hint, since: Instant) {
        let tenants = self.ready.entry(hint.priority).or_default();
        let jobs = tenants.jobs.entry(hint.tenant.clone()).or_default();
        if jobs.hints.is_empty() {
            tenants.turns.push_back(hint.tenant.clone());
        }
        jobs.hints.entry(hint.key.job).or_default().push_back((since, hint));
    }

    fn pop(&mut self, now: Instant) -> Option<Hint> {
        while self.later.peek().is_some_and(|Reverse(later)| later.at <= now) {
            let Reverse(later) = self.later.pop()?;
            self.make_ready(later.hint, later.at);
        }
        self.turn = (self.turn + 1) % 100;
        let mut turn = self.turn;
        let first = SHARES.iter().position(|(_, share)| {
            let mine = turn < *share;
            turn = turn.saturating_sub(*share);
            mine
        });
        let first = first.unwrap_or_default();
        let (since, hint) = (0..SHARES.len()).find_map(|i| {
            let (priority, _) = SHARES[(first + i) % SHARES.len()];
            self.ready.get_mut(&priority)?.pop()
        })?;
        self.delay = now.saturating_duration_since(since);
        self.hints -= 1;
        self.pack_bytes -= hint.pack.as_ref().map_or(0, |pack| pack.len());
        Some(hint)
    }
}

impl Tenants {
    fn pop(&mut self) -> Option<(Instant, Hint)> {
        let tenant = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&tenant)?;
        let hint = jobs.pop();
        if jobs.hints.is_empty() {
            self.jobs.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        hint
    }
}

impl Jobs {
    fn pop(&mut self) -> Option<(Instant, Hint)> {
        let oldest = *self.hints.first_key_value()?.0;
        let job = match self.last {
            Some(last) if self.goes_round => {
                let next = self.hints.range((Bound::Excluded(last), Bound::Unbounded)).next();
                next.map_or(oldest, |(job, _)| *job)
            }
            _ => oldest,
        };
        if self.goes_round || self.last.is_none() {
            self.last = Some(job);
        }
        self.goes_round = !self.goes_round;
        let hints = self.hints.get_mut(&job)?;
        let hint = hints.pop_front();
        if hints.is_empty() {
            self.hints.remove(&job);
        }
        hint
    }
}

impl LocalQueue {
    /// Whether hints were dropped since the last refill and there is room again. Asking takes the wish back.
    pub(crate) fn wants_refill(&self) -> bool {
        let mut state = self.state.lock();
        let wants = state.overflowed && state.hints < REFILL_BELOW;
        if wants {
            state.overflowed = false;
        }
        wants
    }

    /// Makes the next [`LocalQueue::wants_refill`] say yes: there may be chunks that no hint has been sent for.
    pub(crate) fn ask_refill(&self) {
        self.state.lock().overflowed = true;
    }

    /// How many more hints it takes before it is full.
    pub(crate) fn room(&self) -> usize {
        HINTS_MAX.saturating_sub(self.state.lock().hints)
    }
}

impl ChunkQueue for LocalQueue {
    async fn send(&self, hints: Vec<Hint>, delay_ms: u64) {
        if hints.is_empty() {
            return;
        }
        let at = (delay_ms > 0).then(|| Instant::now() + Duration::from_millis(delay_ms));
        {
            let mut state = self.state.lock();
            hints.into_iter().for_each(|hint| state.push(hint, at));
        }
        self.arrived.notify_one();
    }

    async fn receive(&self, _lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        let until = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let next_at = {
                let mut state = self.state.lock();
                let now = Instant::now();
                let hints: Vec<Hint> = std::iter::from_fn(|| state.pop(now)).take(max).collect();
                if !hints.is_empty() || now >= until {
                    let delivery = |hint| Delivery { hint, receipt: String::new() };
                    return Ok(hints.into_iter().map(delivery).collect());
                }
                state.later.peek().map_or(until, |Reverse(later)| later.at.min(until))
            };
            let _ = tokio::time::timeout_at(next_at, self.arrived.notified()).await;
        }
    }

    /// A received hint has left the queue already.
    async fn delete(&self, _delivery: Delivery) {}

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        self.send(vec![delivery.hint], delay_ms).await;
    }

    /// The longest that a hint at the head of its line has waited, or that the last one delivered had.
    async fn delay_ms(&self) -> u64 {
        let state = self.state.lock();
        let jobs = state.ready.values().flat_map(|tenants| tenants.jobs.values());
        let heads = jobs.flat_map(|jobs| jobs.hints.values()).filter_map(|hints| hints.front());
        let longest =
            heads.map(|(since, _)| since.elapsed()).max().map_or(Duration::ZERO, |head| head.max(state.delay));
        longest.as_millis() as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn hint(job: u8, number: u32) -> Hint {
        let key = ChunkKey { job: JobId::from_bytes([job; 16]), number };
        Hint { key, tenant: TenantId::default(), lane: Lane::Lambda, priority: Priority::Normal, pack: None }
    }

    async fn order(queue: &LocalQueue) -> Vec<(u8, u32)> {
        let received = queue.receive(&[Lane::Lambda], usize::MAX, 0).await.unwrap();
        received.iter().map(|delivery| (delivery.hint.key.job.as_bytes()[0], delivery.hint.key.number)).collect()
    }

    #[tokio::test]
    async fn the_oldest_job_has_every_second_turn_and_the_others_go_round() {
        let queue = LocalQueue::default();
        queue.send((0..6).map(|number| hint(1, number)).collect(), 0).await;
        queue.send((0..2).flat_map(|number| [hint(3, number), hint(2, number)]).collect(), 0).await;
        let expected = [(1, 0), (2, 0), (1, 1), (3, 0), (1, 2), (1, 3), (1, 4), (2, 1), (1, 5), (3, 1)];
        assert_eq!(order(&queue).await, expected);
        assert_eq!(order(&queue).await, []);
        // One job alone is in order.
        queue.send((0..5).map(|number| hint(7, number)).collect(), 0).await;
        assert_eq!(order(&queue).await, [0, 1, 2, 3, 4].map(|number| (7, number)));
    }

    #[tokio::test]
    async fn a_small_job_does_not_wait_for_a_large_one() {
        let queue = LocalQueue::default();
        queue.send((0..10_000).map(|number| hint(1, number)).collect(), 0).await;
        queue.send((2..12).map(|job| hint(job, 0)).collect(), 0).await;
        let order = order(&queue).await;
        let last = order.iter().rposition(|(job, _)| *job > 1).unwrap();
        assert!(order.len() == 10_010 && last < 30, "the last small job was number {last}");
    }
}
