//! What a policy is shown of a grid on AWS.
//!
//! A service of ECS is a pool, and its containers are machines. Those that have joined say themselves what they hold; of the
//! others ECS knows how many there are. A chunk goes to one container whatever its number of tasks, so what waits is counted in
//! slots that it can fill.

use std::{cmp::Reverse, collections::BTreeMap};

use sheaf_api::wire::WorkerView;
use sheaf_aws::ServiceCounts;
use sheaf_core::{JobId, Lane, WorkerId, limits};
use sheaf_scheduler::{Activity, Demand, Estimate, Machine, Snapshot, policies::backing_off};

use super::{
    reclaims::Reclaims,
    settings::{Capacity, ServicePool},
    shortage::Shortage,
};
use crate::work::OpenWork;

/// A container of which nothing was heard for so long is not there: three heartbeats are missing.
const SILENT_MS: u64 = 3 * limits::HEARTBEAT_MS + limits::CLOCK_MARGIN_MS;
/// The name of the demand that stands for chunks which dispatch has handed on.
const HANDED_ON: &str = "handed on by dispatch";
/// The name of the demand that stands for jobs that nobody has submitted yet.
const TO_COME: &str = "to come";

/// What was seen at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'a> {
    pub(crate) now_ms: u64,
    /// Open work of the lanes of containers.
    pub(crate) work: &'a [OpenWork],
    /// Hints that nobody has received, by lane, if they were counted just now.
    pub(crate) hints: Option<&'a BTreeMap<Lane, u64>>,
    pub(crate) workers: Vec<WorkerView>,
    /// How the services stand, in the order of the pools.
    pub(crate) services: Vec<ServiceCounts>,
}

/// What the snapshots before have left. Without it, containers are as old as they are and not as they were last busy, and what
/// waits has arrived only now if there are no containers for it.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// What had come by the last round that was carried out.
    come: Option<Come>,
    /// What has come by this one.
    seen: Come,
    /// When containers last held a chunk.
    active_at_ms: BTreeMap<WorkerId, u64>,
    shortages: Vec<Shortage>,
    pub(super) reclaims: Reclaims,
    /// Chunks handed on that waited when hints were counted last. An older count beside newer work would be of chunks that have
    /// been received since.
    handed_on: u64,
}

/// What has come so far.
#[derive(Debug, Clone, Default)]
struct Come {
    /// Tasks submitted, by job.
    submitted: BTreeMap<JobId, u64>,
    /// Chunks handed on that wait.
    handed_on: u64,
}

/// How a pool's containers stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Standing {
    /// Those that have joined and are not being stopped.
    joined: Vec<Activity>,
    /// Those that are being stopped, by the slots that they still use.
    draining: Vec<u32>,
    /// Of them all that are not being stopped, those that hold chunks.
    pub(crate) holding: u32,
    /// Those that will join, as far as is known.
    starting: u32,
    /// Those that have a place, have not joined, and are not relied on any more.
    pub(crate) late: u32,
}

/// What a policy is shown, and how each pool stands. Costs nothing but time.
pub(crate) fn snapshot(settings: &Capacity, seen: &Seen<'_>, traces: &mut Traces) -> (Snapshot, Vec<Standing>) {
    let alive: Vec<&WorkerView> = heard_of(seen).collect();
    traces.note_activity(&alive, seen.now_ms);
    traces.shortages.resize_with(settings.pools.len(), Shortage::default);
    let now_s = seen.now_ms as f64 / 1e3;
    let demands = demands(settings, seen, &alive, traces);
    let (mut pools, mut standings) = (Vec::new(), Vec::new());
    for (number, (of, counts)) in settings.pools.iter().zip(&seen.services).enumerate() {
        let mut pool = of.pool();
        pool.reclaims_per_hour = traces.reclaims.per_hour(number, pool.reclaims_per_hour, seen.now_ms);
        let mut standing = heard(of, counts, &alive, traces);
        let shortage = &mut traces.shortages[number];
        shortage.note(counts.desired, standing.there(), pool.boot_p95_s, seen.now_ms);
        shortage.tell(counts, &mut pool, seen.now_ms);
        let is_open = |demand: &Demand| demand.open_tasks() > 0 && demand.lane.is_some_and(|lane| of.takes(lane));
        standing.wait(counts, demands.iter().any(is_open), !backing_off(&pool, now_s));
        standings.push(standing);
        pools.push(pool);
    }
    let machines = machines(&standings, now_s);
    (Snapshot { now_s, demands, pools, machines }, standings)
}

fn heard_of<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = &'a WorkerView> {
    seen.workers.iter().filter(|worker| worker.seen_at_ms + SILENT_MS >= seen.now_ms)
}

/// The containers of a pool that were heard of.
fn heard(pool: &ServicePool, counts: &ServiceCounts, alive: &[&WorkerView], traces: &Traces) -> Standing {
    let of_pool = alive.iter().filter(|worker| pool.has(&worker.lanes));
    let (draining, mut live): (Vec<&WorkerView>, Vec<&WorkerView>) = of_pool.partition(|worker| worker.draining);
    let in_use = |worker: &WorkerView| worker.slots.min(u32::try_from(worker.holding.len()).unwrap_or(u32::MAX));
    let holding = live.iter().filter(|worker| !worker.holding.is_empty()).count() as u32;
    // Workers that somebody has started elsewhere may be on these lanes too; the service has no more than run.
    live.sort_by_key(|worker| (Reverse(worker.seen_at_ms), &worker.id));
    live.truncate(counts.running as usize);
    let activity = |worker: &WorkerView| match in_use(worker) {
        0 => Activity::Idle { since_s: traces.idle_since_ms(worker) as f64 / 1e3 },
        slots => Activity::Leased { slots },
    };
    let joined = live.into_iter().map(activity).collect();
    Standing { joined, draining: draining.into_iter().map(in_use).collect(), holding, starting: 0, late: 0 }
}

impl Standing {
    /// Containers that are there, whatever becomes of them.
    fn there(&self) -> u32 {
        (self.joined.len() + self.draining.len()) as u32
    }

    /// Takes in those that are not there yet: if there is work for them, and if they can be relied on.
    fn wait(&mut self, counts: &ServiceCounts, is_open: bool, is_reliable: bool) {
        let placed = (counts.running + counts.pending).min(counts.desired);
        (self.starting, self.late) = match (is_open, is_reliable) {
            (true, true) => (counts.desired.saturating_sub(self.there()), 0),
            (true, false) => (0, placed.saturating_sub(self.there())),
            (false, _) => (0, 0),
        };
    }
}

fn machines(standings: &[Standing], now_s: f64) -> Vec<Machine> {
    let mut machines = Vec::new();
    for (pool, standing) in standings.iter().enumerate() {
        let joined = standing.joined.iter().copied();
        let starting = (0..standing.starting).map(|_| Activity::Booting { since_s: now_s });
        let draining = standing.draining.iter().map(|&slots| Activity::Draining { slots });
        for activity in joined.chain(starting).chain(draining) {
            machines.push(Machine { id: machines.len() as u64, pool, activity });
        }
    }
    machines
}

fn demands(settings: &Capacity, seen: &Seen<'_>, alive: &[&WorkerView], traces: &mut Traces) -> Vec<Demand> {
    let mut held: BTreeMap<JobId, u64> = BTreeMap::new();
    let containers = alive.iter().filter(|worker| settings.pools.iter().any(|pool| pool.has(&worker.lanes)));
    containers.flat_map(|worker| &worker.holding).for_each(|chunk| *held.entry(chunk.job).or_default() += 1);
    let (mut demands, mut waiting_on_spot) = (Vec::with_capacity(seen.work.len() + 2), 0);
    let before = traces.come.clone();
    let is_new = before.is_none() && seen.services.iter().all(|service| service.desired == 0);
    let before = before.unwrap_or_default();
    let arrived = |now: u64, before: u64| if traces.come.is_some() || is_new { now.saturating_sub(before) } else { 0 };
    let mut come = Come::default();
    for work in seen.work {
        let held = held.remove(&work.job).unwrap_or_default().min(work.chunks);
        if work.lane == Lane::Spot {
            waiting_on_spot += work.chunks - held;
        }
        let arrived = arrived(work.submitted, before.submitted.get(&work.job).copied().unwrap_or_default());
        come.submitted.insert(work.job, work.submitted);
        let slots = settings.pools.iter().filter(|pool| pool.takes(work.lane)).map(|pool| pool.slots).min();
        demands.push(demand(work, held, arrived, slots.unwrap_or(1)));
    }
    // What is left is of other jobs: dispatch has found their chunks to be too long for it.
    if let Some(hints) = seen.hints {
        traces.handed_on = hints.get(&Lane::Spot).copied().unwrap_or_default().saturating_sub(waiting_on_spot);
    }
    let waiting = traces.handed_on;
    let running = held.values().sum();
    if waiting + running > 0 {
        let handed_on = Demand::of_tasks(HANDED_ON, "", waiting, running, &Estimate::default());
        let arrived_tasks = arrived(waiting, before.handed_on);
        demands.push(Demand { lane: Some(Lane::Spot), arrived_tasks, sealed: true, ..handed_on });
    }
    come.handed_on = waiting;
    traces.seen = come;
    // A grid never knows that nothing more will come, whatever its jobs say.
    demands.push(Demand { job: TO_COME.to_owned(), lane: Some(Lane::Spot), ..Demand::default() });
    demands
}

/// The demand of a job of which so many chunks are held, and so many tasks are new.
fn demand(work: &OpenWork, held: u64, arrived: u64, slots: u32) -> Demand {
    let estimate = work.estimate();
    let chunk_tasks = work.tasks.div_ceil(work.chunks.max(1));
    let fills = if work.ordered { 1 } else { chunk_tasks.clamp(1, slots.into()) };
    let waiting = work.chunks - held;
    let all_s = estimate.work_s(work.tasks);
    let of_chunks = |chunks: u64| all_s * chunks as f64 / work.chunks.max(1) as f64;
    // What no number of containers makes shorter: a task, and a chunk on the slots of one.
    let chunk_s = estimate.work_s(chunk_tasks) / fills as f64;
    Demand {
        job: work.job.to_string(),
        function: work.function.clone(),
        lane: Some(work.lane),
        priority: work.priority,
        waiting_tasks: waiting * fills,
        // Also those that found a container at once: it is for them that idle ones are kept.
        arrived_tasks: arrived.div_ceil(chunk_tasks.max(1)) * fills,
        running_tasks: held * fills,
        waiting_s: of_chunks(waiting),
        uncommitted_s: all_s,
        longest_s: if work.chunks == 0 { 0.0 } else { estimate.longest_s().max(chunk_s) },
        deadline_at_s: work.deadline_ms.map(|at_ms| at_ms as f64 / 1e3),
        sealed: work.sealed,
        ..Demand::default()
    }
}

impl Traces {
    /// The round was carried out: what it has seen come has been seen to.
    pub(crate) fn carried_out(&mut self) {
        self.come = Some(std::mem::take(&mut self.seen));
    }

    fn note_activity(&mut self, alive: &[&WorkerView], now_ms: u64) {
        self.active_at_ms.retain(|id, _| alive.iter().any(|worker| worker.id == *id));
        for worker in alive.iter().filter(|worker| !worker.holding.is_empty()) {
            self.active_at_ms.insert(worker.id.clone(), now_ms);
        }
    }

    /// Since when a worker that holds nothing is idle, as far as is known.
    fn idle_since_ms(&self, worker: &WorkerView) -> u64 {
        self.active_at_ms.get(&worker.id).copied().unwrap_or_default().max(worker.started_at_ms)
    }
}
