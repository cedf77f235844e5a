//! Hints in memory: by lane, in three priorities, fair between tenants and between the jobs of one, bounded; for any number of
//! receivers.
//!
//! The queue is a cache over the index of open chunks. When it is full it drops hints and says so; whoever reads from it
//! then fills it again from the index ([`LocalQueue::wants_refill`]), so that a backlog of any size takes no more memory.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
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
/// Bytes of packs that ride along; beyond it hints travel without, until there are so few again.
const PACK_BYTES_MAX: usize = 64 * 1024 * 1024;
const PACK_BYTES_FEW: usize = PACK_BYTES_MAX / 4;
/// Of 100 receives, so many look at each priority first.
const SHARES: [(Priority, u32); 3] = [(Priority::High, 90), (Priority::Normal, 9), (Priority::Low, 1)];

/// The queue of an embedded grid: of its own workers, who serve every lane, and of remote ones.
#[derive(Debug, Default)]
pub struct LocalQueue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: HashMap<(Lane, Priority), Tenants>,
    later: BinaryHeap<Reverse<Later>>,
    hints: usize,
    pack_bytes: usize,
    /// No packs ride along for now. A pack keeps alive what it came with, the whole body of a request: were each that finds a
    /// little room taken, it would be another body's, and a long queue would hold all that was ever sent.
    packs_full: bool,
    turn: u32,
    overflowed: bool,
    /// Hints that were given out and have not come back.
    out: HashMap<ChunkKey, Out>,
    /// How long the hint waited that was delivered last.
    delay: Duration,
}

/// The hints of one priority: a tenant has its turn, gives one hint, and goes to the back.
#[derive(Debug, Default)]
struct Tenants {
    jobs: HashMap<TenantId, Jobs>,
    turns: VecDeque<TenantId>,
}

/// The hints of one tenant, a line for each job. Next is the job that workers have spent the least time on, so that a small
/// job does not wait for a large one however long its chunks are; the time of the oldest counts as if it were as many jobs as
/// all others together, so that jobs end in about the order they came.
#[derive(Debug, Default)]
struct Jobs {
    lines: BTreeMap<JobId, Line>,
    /// All lines by what was spent.
    order: BTreeSet<(Duration, JobId)>,
    /// What had been spent on the job that was next last: where a new line begins.
    spent: Duration,
}

/// The hints of one job.
#[derive(Debug, Default)]
struct Line {
    hints: VecDeque<(Instant, Hint)>,
    spent: Duration,
    /// How long its last chunk took.
    chunk: Duration,
}

/// A hint that somebody works off.
#[derive(Debug)]
struct Out {
    since: Instant,
    /// What its job was charged for it when it was given out.
    charged: Duration,
    /// What of its time counts.
    share: u32,
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
        self.packs_full = match self.packs_full {
            true => self.pack_bytes > PACK_BYTES_FEW,
            false => self.pack_bytes + bytes > PACK_BYTES_MAX,
        };
        if self.packs_full {
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
        let tenants = self.ready.entry((hint.lane, hint.priority)).or_default();
        let jobs = tenants.jobs.entry(hint.tenant.clone()).or_default();
        if jobs.lines.is_empty() {
            tenants.turns.push_back(hint.tenant.clone());
        }
        jobs.push(hint, since);
    }

    /// The next hint of one of these lanes. Lanes take turns in being looked at first.
    fn pop(&mut self, lanes: &[Lane], now: Instant) -> Option<Hint> {
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
        let (since, hint, charged, share) = (0..SHARES.len()).find_map(|i| {
            let (priority, _) = SHARES[(first + i) % SHARES.len()];
            let mut lanes = lanes.iter().cycle().skip(self.turn as usize % lanes.len().max(1)).take(lanes.len());
            lanes.find_map(|lane| self.ready.get_mut(&(*lane, priority))?.pop())
        })?;
        if self.out.len() >= HINTS_MAX {
            // Of workers that are gone, or that hold more than anybody can: what is forgotten is not charged.
            self.out.clear();
        }
        // A second copy is charged to nobody: its chunk's own hint is out already.
        if !hint.hedge {
            self.out.insert(hint.key, Out { since: now, charged, share });
        }
        self.delay = now.saturating_duration_since(since);
        self.hints -= 1;
        self.pack_bytes -= hint.pack.as_ref().map_or(0, |pack| pack.len());
        Some(hint)
    }

    /// A hint was worked off: its job is charged for the time that took.
    fn back(&mut self, hint: &Hint, now: Instant) {
        let Some(out) = (!hint.hedge).then(|| self.out.remove(&hint.key)).flatten() else { return };
        let jobs =
            self.ready.get_mut(&(hint.lane, hint.priority)).and_then(|tenants| tenants.jobs.get_mut(&hint.tenant));
        if let Some(jobs) = jobs {
            jobs.charge(hint.key.job, now.saturating_duration_since(out.since), &out);
        }
    }
}

impl Tenants {
    fn pop(&mut self) -> Option<(Instant, Hint, Duration, u32)> {
        let tenant = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&tenant)?;
        let hint = jobs.pop();
        if jobs.lines.is_empty() {
            self.jobs.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        hint
    }
}

impl Jobs {
    fn push(&mut self, hint: Hint, since: Instant) {
        let job = hint.key.job;
        let line = self.lines.entry(job).or_insert_with(|| {
            self.order.insert((self.spent, job));
            Line { spent: self.spent, ..Line::default() }
        });
        line.hints.push_back((since, hint));
    }

    /// The next hint, with since when it waits, what its job was charged for it, and what of its time counts.
    fn pop(&mut self) -> Option<(Instant, Hint, Duration, u32)> {
        let (spent, job) = self.order.pop_first()?;
        self.spent = spent;
        let is_oldest = self.lines.first_key_value().is_some_and(|(oldest, _)| *oldest == job);
        let share = if is_oldest { self.lines.len().saturating_sub(1).max(1) as u32 } else { 1 };
        let line = self.lines.get_mut(&job)?;
        let (since, hint) = line.hints.pop_front()?;
        // As much as the last one took, until it is known.
        let charged = line.chunk / share;
        line.spent += charged;
        if line.hints.is_empty() {
            self.lines.remove(&job);
        } else {
            self.order.insert((line.spent, job));
        }
        Some((since, hint, charged, share))
    }

    fn charge(&mut self, job: JobId, took: Duration, out: &Out) {
        // A job without hints is charged for nothing: it begins anew where the others are.
        let Some(line) = self.lines.get_mut(&job) else { return };
        self.order.remove(&(line.spent, job));
        line.chunk = took;
        line.spent = (line.spent + took / out.share).saturating_sub(out.charged);
        self.order.insert((line.spent, job));
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
        // Whoever is woken may serve other lanes, so all are.
        self.arrived.notify_waiters();
    }

    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        let until = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            // Before the look: what arrives behind it wakes this receiver all the same.
            let arrived = self.arrived.notified();
            let next_at = {
                let mut state = self.state.lock();
                let now = Instant::now();
                let hints: Vec<Hint> = std::iter::from_fn(|| state.pop(lanes, now)).take(max).collect();
                if !hints.is_empty() || now >= until {
                    let delivery = |hint| Delivery { hint, receipt: String::new() };
                    return Ok(hints.into_iter().map(delivery).collect());
                }
                state.later.peek().map_or(until, |Reverse(later)| later.at.min(until))
            };
            let _ = tokio::time::timeout_at(next_at, arrived).await;
        }
    }

    /// A received hint has left the queue already.
    async fn delete(&self, delivery: Delivery) {
        self.state.lock().back(&delivery.hint, Instant::now());
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        self.state.lock().back(&delivery.hint, Instant::now());
        self.send(vec![delivery.hint], delay_ms).await;
    }

    /// The longest that a hint at the head of its line has waited, or that the last one delivered had.
    async fn delay_ms(&self) -> u64 {
        let state = self.state.lock();
        let jobs = state.ready.values().flat_map(|tenants| tenants.jobs.values());
        let heads = jobs.flat_map(|jobs| jobs.lines.values()).filter_map(|line| line.hints.front());
        let longest =
            heads.map(|(since, _)| since.elapsed()).max().map_or(Duration::ZERO, |head| head.max(state.delay));
        longest.as_millis() as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn hint(job: u8, number: u32) -> Hint {
        let key = ChunkKey { job: JobId::from_bytes([job; 16]), number };
        Hint {
            key,
            tenant: TenantId::default(),
            lane: Lane::Lambda,
            priority: Priority::Normal,
            pack: None,
            hedge: false,
        }
    }

    async fn next(queue: &LocalQueue, max: usize) -> Vec<Delivery> {
        queue.receive(&[Lane::Lambda], max, 0).await.unwrap()
    }

    fn order(deliveries: &[Delivery]) -> Vec<(u8, u32)> {
        deliveries.iter().map(|delivery| (delivery.hint.key.job.as_bytes()[0], delivery.hint.key.number)).collect()
    }

    #[tokio::test]
    async fn one_job_alone_is_in_order() {
        let queue = LocalQueue::default();
        queue.send((0..5).map(|number| hint(7, number)).collect(), 0).await;
        assert_eq!(order(&next(&queue, 10).await), [0, 1, 2, 3, 4].map(|number| (7, number)));
        assert_eq!(order(&next(&queue, 10).await), []);
    }

    #[tokio::test]
    async fn packs_ride_along_until_there_are_too_many_and_again_when_there_are_few() {
        let queue = LocalQueue::default();
        let mib = |number| Hint { pack: Some(vec![0; 1 << 20].into()), ..hint(1, number) };
        let with_packs = |deliveries: &[Delivery]| deliveries.iter().filter(|it| it.hint.pack.is_some()).count();
        queue.send((0..100).map(mib).collect(), 0).await;
        assert_eq!(with_packs(&next(&queue, 10).await), 10, "the first of them");
        queue.send((100..120).map(mib).collect(), 0).await;
        assert_eq!(with_packs(&next(&queue, 60).await), 54, "the first 64, and none that came into the room of ten");
        queue.send((120..130).map(mib).collect(), 0).await;
        assert_eq!(with_packs(&next(&queue, 100).await), 10, "those that came when nearly all was gone");
        queue.send(vec![Hint { pack: Some(vec![0; PACK_BYTES_MAX + 1].into()), ..hint(1, 130) }, mib(131)], 0).await;
        assert_eq!(with_packs(&next(&queue, 100).await), 1, "one that is too large keeps no other out");
    }

    /// Works hints off one after the other, those of job 1 in so many seconds and all others in one; gives their order.
    async fn worked_off(queue: &LocalQueue, count: usize, seconds: u64) -> Vec<u8> {
        let mut jobs = Vec::new();
        while jobs.len() < count {
            let delivery = next(queue, 1).await.remove(0);
            let job = delivery.hint.key.job.as_bytes()[0];
            tokio::time::advance(Duration::from_secs(if job == 1 { seconds } else { 1 })).await;
            jobs.push(job);
            queue.delete(delivery).await;
        }
        jobs
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_job_does_not_wait_for_a_large_one() {
        let queue = LocalQueue::default();
        queue.send((0..1_000).map(|number| hint(1, number)).collect(), 0).await;
        worked_off(&queue, 10, 60).await;
        for round in 0..20 {
            queue.send((2..12).map(|job| hint(job, round)).collect(), 0).await;
            let order = worked_off(&queue, 11, 60).await;
            let waited = order.iter().rposition(|job| *job > 1).unwrap();
            assert!(waited <= 10, "round {round}: {order:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_what_jobs_share_and_the_oldest_has_half_of_it() {
        let queue = LocalQueue::default();
        queue.send((1..=4).flat_map(|job| (0..400).map(move |number| hint(job, number))).collect(), 0).await;
        // Chunks of job 1 take ten times as long.
        let order = worked_off(&queue, 330, 10).await;
        let count = |job| order.iter().filter(|other| **other == job).count();
        let (oldest_s, others_s) = (10 * count(1), count(2) + count(3) + count(4));
        assert!(oldest_s.abs_diff(others_s) <= 40, "{oldest_s} s and {others_s} s");
        assert!(count(2).abs_diff(count(4)) <= 20, "{} and {}", count(2), count(4));
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_are_alike_end_in_their_order() {
        let queue = LocalQueue::default();
        queue.send((1..=3).rev().flat_map(|job| (0..100).map(move |number| hint(job, number))).collect(), 0).await;
        let order = worked_off(&queue, 300, 1).await;
        let last = |job| order.iter().rposition(|other| *other == job).unwrap();
        assert!(last(1) < last(2) && last(2) < last(3), "{} {} {}", last(1), last(2), last(3));
    }

    fn in_lane(number: u32, lane: Lane) -> Hint {
        Hint { lane, ..hint(7, number) }
    }

    async fn numbers(queue: &LocalQueue, lanes: &[Lane], wait_ms: u64) -> Vec<u32> {
        let received = queue.receive(lanes, 10, wait_ms).await.expect("a queue in memory answers");
        received.iter().map(|delivery| delivery.hint.key.number).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_gets_what_is_for_its_lanes() {
        let queue = LocalQueue::default();
        let lanes = [Lane::Spot, Lane::OnDemand, Lane::Lambda, Lane::Spot];
        queue.send((0..).zip(lanes).map(|(number, lane)| in_lane(number, lane)).collect(), 0).await;
        assert_eq!(numbers(&queue, &[Lane::Spot], 0).await, [0, 3]);
        assert_eq!(numbers(&queue, &[Lane::Spot], 0).await, [0; 0]);
        assert_eq!(numbers(&queue, &[Lane::OnDemand, Lane::Lambda], 0).await.len(), 2);
    }

    /// The one who is woken first serves another lane: the wake-up must reach the other, too.
    #[tokio::test(start_paused = true)]
    async fn every_receiver_that_waits_is_woken() {
        let queue = Arc::new(LocalQueue::default());
        let wait = |lane: Lane| {
            let queue = queue.clone();
            tokio::spawn(async move { (numbers(&queue, &[lane], 60_000).await, Instant::now()) })
        };
        let started = Instant::now();
        let (spot, on_demand) = (wait(Lane::Spot), wait(Lane::OnDemand));
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.send(vec![in_lane(0, Lane::OnDemand)], 0).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.send(vec![in_lane(1, Lane::Spot)], 0).await;
        let (spot, on_demand) = (spot.await.expect("it ends"), on_demand.await.expect("it ends"));
        assert_eq!((on_demand.0, (on_demand.1 - started).as_secs()), (vec![0], 1));
        assert_eq!((spot.0, (spot.1 - started).as_secs()), (vec![1], 2));
    }
}
