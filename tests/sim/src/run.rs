//! One run: a seed, a plan drawn from it, the world it makes, and whether everything held.

use std::sync::Arc;

use sheaf_core::{ChunkKey, JobId, JobState, Outcome, invariant, limits};
use sheaf_protocol::sweep;

use crate::{
    audit::Counts,
    bug::Bug,
    client::{Actor, Waiting},
    cloud::{Cloud, SHARDS},
    executor::{START_MS, Sim, WORLD},
    faults::Weather,
    grid::Grid,
    plan::{Plan, SAVING, Size, reference, stranger},
    ports::Role,
    runner::Deed,
};

/// Polls after which a small run is taken for a livelock.
const POLLS_MAX: u64 = 20_000_000;
/// When faults have stopped, everything must be over within this time besides the work that is left, in ms: a lease and its
/// margin (35 s), the visibility of a message (30 s), the age at which a hint is taken for lost (60 s), two sweeps (30 s), what
/// the index and the stream lag behind (30 s each), and what clocks are off (twice 20 s), rounded up.
const QUIET_MS_MAX: u64 = 5 * 60_000;
/// The same where tasks kill workers: five may still die under each, and each death is found by a lease that runs out.
const QUIET_GUILTY_MS_MAX: u64 = 30 * 60_000;
/// Of the runs that ended well, this share goes on until every job is past its retention and forgotten.
const FORGETTING: f64 = 0.3;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How large.
    pub size: Size,
    /// What may go wrong; drawn if not given.
    pub weather: Option<Weather>,
    /// Guards that are missing.
    pub bugs: Vec<Bug>,
    /// Whether promises that need every layer are checked: not when a layer is off on purpose.
    pub strict: bool,
    /// Whether the trace is printed.
    pub print: bool,
}

impl Options {
    /// Small runs of drawn weather, with nothing missing.
    pub const fn small() -> Self {
        Self { size: Size::Small, weather: None, bugs: Vec::new(), strict: true, print: false }
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its weather.
    pub weather: Weather,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// What was counted.
    pub counts: Counts,
    /// How long it took after the faults stopped until everything was over, in ms of virtual time.
    pub quiet_ms: u64,
    /// Whether some task was meant to fail or kill.
    pub guilty: bool,
    /// Virtual time in all, in ms.
    pub lasted_ms: u64,
    /// Digest of its trace.
    pub trace: u64,
}

/// Runs a seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let mut rng = fastrand::Rng::with_seed(seed);
    let plan = Plan::draw(options.size, options.weather, &mut rng);
    let mut cloud = Cloud::default();
    cloud.bugs.clone_from(&options.bugs);
    cloud.audit.strict = options.strict;
    cloud.audit.may_crash = plan.weather == Weather::Rough || plan.has(Deed::Poison);
    cloud.audit.skew_ms = plan.faults.skew_ms;
    cloud.stormy = true;
    for manifest in &plan.functions {
        cloud.functions.insert(manifest.name.to_string(), (reference(manifest), manifest.clone()));
    }
    let sim = Sim::new(rng.u64(..), cloud, options.print);
    let mut run = Run { sim: sim.clone(), plan, waiting: Waiting::default(), quiet_ms: 0 };
    run.start();
    run.weather_out();
    run.check();
    if options.size == Size::Small && sim.happens(FORGETTING) {
        run.forget();
    }
    let (violations, counts) =
        sim.cloud(|cloud| (std::mem::take(&mut cloud.audit.violations), cloud.audit.counts.clone()));
    let report = Report {
        seed,
        weather: run.plan.weather,
        violations,
        counts,
        quiet_ms: run.quiet_ms,
        guilty: run.plan.is_guilty(),
        lasted_ms: sim.now_ms() - START_MS,
        trace: sim.trace(),
    };
    sim.clear();
    report
}

struct Run {
    sim: Sim,
    plan: Plan,
    waiting: Waiting,
    quiet_ms: u64,
}

impl Plan {
    fn has(&self, deed: Deed) -> bool {
        self.jobs.iter().flat_map(|job| job.chunks.iter().flatten()).any(|errand| errand.deed == deed)
    }

    fn is_guilty(&self) -> bool {
        self.jobs.iter().flat_map(|job| job.chunks.iter().flatten()).any(|errand| errand.deed != Deed::Succeed)
    }

    /// Work in all, in ms, as if every task were tried six times and hung each time it can.
    fn work_ms(&self) -> u64 {
        let errands = self.jobs.iter().flat_map(|job| job.chunks.iter().flatten());
        let one = |errand: &crate::runner::Errand| {
            let hangs = if errand.deed == Deed::Hang { 20_000 } else { 0 };
            let tries = if errand.deed == Deed::Succeed { 3 } else { 6 };
            tries * (u64::from(errand.us) / 1_000 + hangs)
        };
        errands.map(one).sum()
    }
}

impl Run {
    fn start(&self) {
        let grid = Grid { sim: self.sim.clone(), faults: Arc::new(self.plan.faults.clone()) };
        for (number, pool) in self.plan.pools.iter().enumerate() {
            self.sim.spawn(WORLD, grid.clone().pool(*pool, number));
        }
        let mut tenants: Vec<_> = self.plan.jobs.iter().map(|job| job.tenant.clone()).chain([stranger()]).collect();
        tenants.sort();
        tenants.dedup();
        self.sim.spawn(WORLD, grid.clone().sweeper(tenants));
        (0..SHARDS).for_each(|shard| self.sim.spawn(WORLD, grid.clone().results(shard)));
        self.sim.spawn(WORLD, grid.clone().purge());
        self.sim.spawn(WORLD, grid.clone().hedge());
        for plan in &self.plan.jobs {
            let plan = Arc::new(plan.clone());
            Actor { grid: grid.clone(), plan, waiting: self.waiting.clone() }.start();
        }
    }

    /// Lets faults happen, then lets the world come to rest.
    fn weather_out(&mut self) {
        let sim = self.sim.clone();
        let is_broken = || sim.cloud(|cloud| !cloud.audit.violations.is_empty());
        let storm_until_ms = START_MS + self.plan.storm_ms;
        let mut lives = sim.run(POLLS_MAX, || sim.now_ms() >= storm_until_ms || is_broken());
        sim.cloud(|cloud| {
            cloud.stormy = false;
            cloud.full_until_ms = 0;
        });
        let quiet_ms = if self.plan.is_guilty() { QUIET_GUILTY_MS_MAX } else { QUIET_MS_MAX };
        let most_ms = quiet_ms + self.plan.work_ms();
        let until_ms = sim.now_ms() + most_ms;
        // Looked at once a second: it is not free.
        let mut looked_ms = 0;
        let mut is_quiet = || {
            if sim.now_ms() < looked_ms + 1_000 {
                return false;
            }
            looked_ms = sim.now_ms();
            self.waiting.left() == 0 && sim.cloud(|cloud| cloud.unsettled().is_none())
        };
        while lives && !is_broken() && sim.now_ms() < until_ms && !is_quiet() {
            let next_ms = sim.now_ms() + 1_000;
            lives = sim.run(POLLS_MAX, || sim.now_ms() >= next_ms || is_broken());
        }
        self.quiet_ms = sim.now_ms().saturating_sub(storm_until_ms);
        if !is_broken() {
            let (left, unsettled) = (self.waiting.left(), sim.cloud(|cloud| cloud.unsettled()));
            if !lives || left > 0 || unsettled.is_some() {
                let what = unsettled.unwrap_or_else(|| "everything is settled".to_owned());
                let polls = sim.polls();
                sim.cloud(|cloud| {
                    cloud.audit.unkept(format!(
                        "invariant 7: {} ms after the faults stopped, {left} actors still wait ({polls} polls): {what}",
                        self.quiet_ms
                    ));
                });
            }
        }
        // What was late must have come by now, and change nothing.
        let later_ms = sim.now_ms() + 65_000;
        sim.run(POLLS_MAX, || sim.now_ms() >= later_ms || is_broken());
    }

    fn check(&self) {
        self.sim.cloud(|cloud| {
            if !cloud.audit.violations.is_empty() {
                return;
            }
            let world = cloud.world(None);
            invariant::check_world(&world).iter().for_each(|violation| cloud.audit.broken(violation));
            cloud.audit.check_poison();
            for chunk in world.chunks.values() {
                cloud.audit.check_final(chunk);
            }
            let lost: Vec<ChunkKey> =
                cloud.audit.acknowledged.iter().filter(|key| !world.chunks.contains_key(key)).copied().collect();
            for key in lost {
                cloud.audit.violated(format!("invariant 14: {key} was accepted and is not there"));
            }
            cloud.check_outcomes();
            cloud.check_runs(self.plan.weather, self.plan.has(Deed::Poison));
        });
        if self.plan.weather == Weather::Calm && !self.sim.cloud(|cloud| cloud.audit.may_crash) {
            let (sent, chunks) =
                self.sim.cloud(|cloud| (cloud.audit.counts.of("hints sent again"), cloud.chunks.len() as u64));
            if sent * 2 > chunks {
                let what =
                    format!("invariant 12: the sweeper sent {sent} hints again for {chunks} chunks in calm weather");
                self.sim.cloud(|cloud| cloud.audit.unkept(what));
            }
        }
    }
}

impl Run {
    /// Lets retention pass and the table's own expiry remove chunks one by one, while the sweeper removes whole jobs.
    fn forget(&self) {
        let sim = self.sim.clone();
        let is_broken = || sim.cloud(|cloud| !cloud.audit.violations.is_empty());
        if is_broken() {
            return;
        }
        let over_ms = sim.now_ms() + limits::HINT_AGE_MS;
        sim.run(POLLS_MAX, || sim.now_ms() >= over_ms);
        let over: Vec<JobId> = sim.cloud(|cloud| {
            let over = cloud.jobs.values().filter(|job| job.state.ended_at_ms().is_some());
            over.map(|job| job.id).collect()
        });
        let grid = Grid { sim: sim.clone(), faults: Arc::new(self.plan.faults.clone()) };
        let tenants: Vec<_> = self.plan.jobs.iter().map(|job| job.tenant.clone()).collect();
        for stormy in [true, false] {
            sim.cloud(|cloud| cloud.stormy = stormy);
            for _ in 0..2 {
                let (grid, tenants) = (grid.clone(), tenants.clone());
                sim.spawn(WORLD, async move {
                    for _ in 0..3 {
                        let tenants = tenants.clone();
                        grid.invoke("forget", Role::Step, 60_000, |ports| async move {
                            for tenant in &tenants {
                                // A call that fails is made again by the next sweep.
                                let _ = sweep::retention(&ports, tenant).await;
                            }
                        })
                        .await;
                        grid.sim.sleep_ms(grid.sim.between(1_000, 30_000)).await;
                    }
                });
            }
            let until_ms = sim.now_ms() + 300_000;
            let expired: Vec<ChunkKey> = sim.cloud(|cloud| {
                let keys = over.iter().flat_map(|job| cloud.chunks_of(*job)).map(|chunk| chunk.spec.key);
                keys.filter(|key| key.number % 3 == 0).collect()
            });
            for key in expired {
                let us = sim.between(0, 60_000_000);
                sim.after(us, move |sim| sim.cloud(|cloud| drop(cloud.chunks.remove(&key))));
            }
            sim.run(POLLS_MAX, || sim.now_ms() >= until_ms || is_broken());
        }
        sim.cloud(|cloud| {
            for job in over {
                let rows = cloud.chunks_of(job).count();
                let blobs = cloud.blobs.keys().filter(|key| key.contains(&job.to_string())).count();
                let is_there = cloud.jobs.contains_key(&job) || cloud.tallies.contains_key(&job);
                if is_there || rows + blobs > 0 {
                    cloud.audit.unkept(format!(
                        "{job} is past its retention, and {rows} chunks and {blobs} blobs of it are left"
                    ));
                }
                cloud.audit.counts.one("jobs forgotten");
            }
        });
    }
}

impl Cloud {
    /// What is not over yet, if anything: a job that must end, or an accepted chunk of one that nobody will seal.
    fn unsettled(&self) -> Option<String> {
        self.jobs.values().find_map(|job| {
            let open = self.chunks_of(job.id).find(|chunk| !chunk.is_final());
            let settled = match job.state {
                JobState::Open => open.is_none(),
                JobState::Sealed { .. } | JobState::Cancelling { .. } => false,
                JobState::Cancelled { .. } | JobState::Done { .. } => open.is_none(),
            };
            let shown = || {
                let open = open.map(|chunk| format!(" with chunk {} {:?}", chunk.spec.key.number, chunk.state));
                format!("{} is {:?}{}", job.id, job.state, open.unwrap_or_default())
            };
            (!settled).then(shown)
        })
    }

    /// That every task ended as its errand must.
    fn check_outcomes(&mut self) {
        let mut wrong = Vec::new();
        for (key, chunk) in &self.chunks {
            let Some(pack) = self.pack(*key) else {
                wrong.push(format!("invariant 3: {key} has no pack"));
                continue;
            };
            for task in 0..chunk.spec.tasks {
                let Some(outcome) = chunk.outcome(task) else {
                    if self.audit.strict {
                        wrong.push(format!("invariant 1: {key}/{task} has no outcome"));
                    }
                    continue;
                };
                let deed = crate::runner::Errand::parse(pack.payload(task)).deed;
                let is_possible = match (outcome, deed) {
                    (Outcome::Cancelled | Outcome::Expired, _) => true,
                    // Whether it was guilty is checked where it is convicted.
                    (Outcome::Quarantined, _) => true,
                    (Outcome::Succeeded, Deed::Succeed | Deed::Flaky(_) | Deed::DieAtFirst(_)) => true,
                    (Outcome::Succeeded, Deed::Fail | Deed::Poison | Deed::Die | Deed::Hang) => false,
                    (Outcome::Failed, Deed::Fail | Deed::Flaky(_) | Deed::Hang) => true,
                    (Outcome::Failed, Deed::Succeed | Deed::Poison | Deed::Die | Deed::DieAtFirst(_)) => false,
                };
                if !is_possible {
                    wrong.push(format!("{key}/{task} is {outcome}, and it was to {deed:?}"));
                }
            }
        }
        self.audit.violations.extend(wrong);
    }

    /// How often innocent tasks ran: exactly once where nobody dies.
    fn check_runs(&mut self, weather: Weather, poisoned: bool) {
        let mut wrong = Vec::new();
        let (mut tasks, mut runs) = (0, 0);
        for (key, truth) in &self.audit.chunks {
            let Some(pack) = self.pack(*key) else { continue };
            let deeds: Vec<Deed> =
                (0..pack.tasks()).map(|task| crate::runner::Errand::parse(pack.payload(task)).deed).collect();
            let is_guilty = deeds.iter().any(|deed| !matches!(deed, Deed::Succeed));
            // Those that save may be ended for a last checkpoint, and go on.
            let saves = self.jobs.get(&key.job).is_some_and(|job| job.options.functions[0].name.as_str() == SAVING);
            if is_guilty || saves {
                continue;
            }
            for (task, &times) in truth.runs.iter().enumerate().filter(|(_, times)| **times > 0) {
                tasks += 1;
                runs += u64::from(times);
                if times > 1 && weather != Weather::Rough && !self.audit.may_crash && self.audit.strict {
                    wrong.push(format!("invariant 10: {key}/{task} ran {times} times, and nobody has died"));
                }
            }
        }
        // Where a task kills its workers, what else they hold runs again for no fault of the grid's.
        if !poisoned {
            self.audit.counts.add("innocent tasks run", tasks);
            self.audit.counts.add("their executions", runs);
        }
        self.audit.violations.extend(wrong);
    }
}
