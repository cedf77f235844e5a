//! The rules of the scaler, without AWS: what is seen goes in, counts come out.

use std::cell::{Cell, RefCell};

use sheaf_api::wire::WorkerView;
use sheaf_aws::{End, EndCause};
use sheaf_core::{ChunkKey, Estimate, JobId, Priority};
use sheaf_scheduler::PolicyName;

use super::{
    plan::{Memory, Plan, plan},
    settings::ServicePool,
    *,
};

const NOW_MS: u64 = 1_800_000_000_000;
const BOOT_S: u64 = 60;

/// A grid with two services, as far as the scaler sees it, and an ECS that does what it is told.
struct World {
    settings: Capacity,
    now_ms: u64,
    work: Vec<OpenWork>,
    hints: Option<BTreeMap<Lane, u64>>,
    workers: Vec<WorkerView>,
    services: Vec<ServiceCounts>,
    memory: Memory,
}

fn pool(lane: Lane, price_per_hour: f64, machines_max: u32) -> ServicePool {
    ServicePool {
        service: format!("night-{lane}"),
        lane,
        slots: 1,
        price_per_hour,
        boot_p95_s: BOOT_S as f64,
        reclaims_per_hour: 1.0,
        machines_max,
    }
}

/// The open work of a job: so many chunks of a task each, that take so long.
fn job(number: u8, lane: Lane, chunks: u64, task_s: f64) -> OpenWork {
    OpenWork {
        job: JobId::from_bytes([number; 16]),
        function: "sleep@0123456789ab".to_owned(),
        lane,
        priority: Priority::Normal,
        deadline_ms: None,
        ordered: false,
        sealed: true,
        submitted: chunks,
        tasks: chunks,
        chunks,
        estimate: Estimate { tasks: 10, mean_us: task_s * 1e6, p95_us: task_s * 1e6 },
        task_ms: None,
    }
}

impl World {
    fn new(policy: PolicyName) -> Self {
        let pools = vec![pool(Lane::Spot, 0.015, 10), pool(Lane::OnDemand, 0.05, 3)];
        let services = pools.iter().map(|pool| ServiceCounts { name: pool.service.clone(), ..Default::default() });
        Self {
            services: services.collect(),
            settings: Capacity { cluster: "night".to_owned(), policy, grace_s: 60.0, drain_s: 300.0, pools },
            now_ms: NOW_MS,
            work: Vec::new(),
            hints: None,
            workers: Vec::new(),
            memory: Memory::default(),
        }
    }

    fn of_work(policy: PolicyName, work: OpenWork) -> Self {
        Self { work: vec![work], ..Self::new(policy) }
    }

    fn plan(&mut self) -> Plan {
        let (workers, services) = (self.workers.clone(), self.services.clone());
        let seen = Seen { now_ms: self.now_ms, work: &self.work, hints: self.hints.as_ref(), workers, services };
        plan(&self.settings, &seen, &mut self.memory)
    }

    /// Plans a round and carries it out; the counts of spot and on-demand.
    fn round(&mut self) -> [u32; 2] {
        let targets = self.plan().targets;
        let counts = [targets[0].target, targets[1].target];
        self.services.iter_mut().zip(counts).for_each(|(service, count)| service.desired = count);
        self.memory.carried_out();
        counts
    }

    fn later(&mut self, seconds: u64) -> &mut Self {
        self.now_ms += seconds * 1_000;
        for worker in &mut self.workers {
            worker.seen_at_ms = self.now_ms;
        }
        self
    }

    /// All containers that are asked for run and have joined.
    fn joined(&mut self) -> &mut Self {
        for (number, lanes) in [&[Lane::Spot][..], &[Lane::OnDemand, Lane::Spot]].into_iter().enumerate() {
            self.services[number].running = self.services[number].desired;
            let known = self.workers.iter().filter(|worker| worker.lanes == lanes).count();
            for count in known..self.services[number].desired as usize {
                self.workers.push(self.worker(&format!("wrk_{number}-{count}"), lanes));
            }
        }
        self
    }

    fn worker(&self, id: &str, lanes: &[Lane]) -> WorkerView {
        WorkerView {
            id: id.parse().expect("an id"),
            host: "host".to_owned(),
            pid: None,
            lanes: lanes.to_vec(),
            slots: 1,
            holding: Vec::new(),
            copies: Vec::new(),
            draining: false,
            started_at_ms: self.now_ms,
            seen_at_ms: self.now_ms,
            tasks_ended: 0,
        }
    }

    /// So many of the workers hold a chunk of the job.
    fn hold(&mut self, number: u8, chunks: u32) -> &mut Self {
        let key = |chunk| ChunkKey { job: JobId::from_bytes([number; 16]), number: chunk };
        let free = self.workers.iter_mut().filter(|worker| worker.holding.is_empty());
        free.zip(0..chunks).for_each(|(worker, chunk)| worker.holding = vec![key(chunk)]);
        self
    }

    /// Everything is over.
    fn finish(&mut self) -> &mut Self {
        self.work.clear();
        self.workers.iter_mut().for_each(|worker| worker.holding.clear());
        self
    }
}

#[test]
fn work_starts_containers_and_its_end_takes_all_of_them_away() {
    // 1,200 s of work in 300 s.
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 10, 120.0));
    assert_eq!(world.round(), [4, 0]);
    assert_eq!(world.later(15).round(), [4, 0], "those that boot count");
    assert_eq!(world.later(45).joined().hold(1, 4).round(), [4, 0]);
    world.work[0].tasks = 4;
    world.work[0].chunks = 4;
    assert_eq!(world.later(120).round(), [4, 0], "all are busy");
    assert_eq!(world.finish().later(15).round(), [0, 0]);
}

#[test]
fn without_work_there_is_none_and_nobody_is_told() {
    let plan = World::new(PolicyName::Sheaf).plan();
    assert!(!plan.is_news && !plan.targets.iter().any(Target::changes), "{plan:?}");
    assert!(Scaled::of(&plan).is_zero());
}

#[test]
fn a_maximum_is_never_exceeded() {
    for policy in PolicyName::ALL {
        let mut world = World::of_work(*policy, job(1, Lane::Spot, 400, 120.0));
        world.work[0].deadline_ms = Some(NOW_MS + 700_000);
        let [spot, on_demand] = world.round();
        assert!(spot <= 10 && on_demand <= 3, "{policy}: {spot}, {on_demand}");
    }
}

#[test]
fn no_container_that_holds_chunks_is_taken_away() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 10, 120.0));
    world.round();
    world.later(30).joined().hold(1, 3);
    // Nobody knows of the job any more, as of one that is cancelled; three containers are still at it.
    world.work.clear();
    let plan = world.later(300).plan();
    assert!(plan.targets[0].target >= 3, "{plan:?}");
    // A policy that wants none at all is no reason either.
    world.settings.policy = PolicyName::Fixed;
    world.settings.pools[0].machines_max = 1;
    let plan = world.plan();
    assert_eq!((plan.targets[0].wanted, plan.targets[0].target), (1, 3));
    assert!(Scaled::of(&plan).is_held_back);
    world.finish();
    assert_eq!(world.round()[0], 1);
}

#[test]
fn what_has_not_joined_is_not_asked_for_when_the_work_is_gone() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 10, 120.0));
    assert_eq!(world.round(), [4, 0]);
    world.services[0].pending = 4;
    world.work.clear();
    assert_eq!(world.later(15).round(), [0, 0]);
}

#[test]
fn two_rounds_at_once_are_as_one() {
    for policy in PolicyName::ALL {
        let mut world = World::of_work(*policy, job(1, Lane::Spot, 10, 120.0));
        world.work[0].deadline_ms = Some(NOW_MS + 3_600_000);
        let first = world.plan();
        assert_eq!(world.plan().targets, first.targets, "{policy}: the same process");
        world.memory = Memory::default();
        assert_eq!(world.plan().targets, first.targets, "{policy}: another");
        let counts = world.round();
        // By its rule, one more each time while the queue is long.
        if *policy != PolicyName::Queue {
            assert_eq!(world.round(), counts, "{policy}: when it is carried out");
        }
    }
}

#[test]
fn a_deadline_is_guarded_on_demand_before_it_is_too_late() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 2, 600.0));
    world.work[0].deadline_ms = Some(NOW_MS + 3_600_000);
    let [spot, on_demand] = world.round();
    assert!(spot > 0 && on_demand == 0, "{spot}, {on_demand}");
    world.later(60).joined().hold(1, 2);
    assert_eq!(world.later(60).round()[1], 0, "there is time");
    // The two on spot do 1,200 s of work, whose longest task takes 600 s, in 1,260 s if a boot comes between; 15 s are kept free.
    world.now_ms = NOW_MS + 3_600_000 - 1_275_000;
    assert_eq!(world.later(0).round()[1], 0, "spot would still be in time");
    let plan = world.later(15).plan();
    assert_eq!((plan.targets[1].target, plan.decision.infeasible), (3, vec![]), "two would be too few in a round");
}

#[test]
fn what_the_submitter_expects_counts_first() {
    let deadline_ms = |world: &World| Some(world.now_ms + 3_600_000);
    let expected = |task_ms| {
        let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 4, 1.0));
        (world.work[0].deadline_ms, world.work[0].task_ms) = (deadline_ms(&world), task_ms);
        world.plan().decision.infeasible.len()
    };
    assert_eq!((expected(None), expected(Some(7_200_000))), (0, 1), "two hours do not fit into one");
}

#[test]
fn a_pool_without_capacity_is_left_alone_and_others_are_asked() {
    let mut world = World::of_work(PolicyName::MinimizeWorkers, job(1, Lane::Spot, 2, 600.0));
    assert_eq!(world.round(), [2, 0]);
    world.services[0].refused_at_ms = vec![world.now_ms + 5_000];
    assert_eq!(world.later(15).round()[0], 0, "what could not be placed is not asked for");
    assert!(world.round()[1] > 0, "some are started elsewhere");

    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 2, 600.0));
    world.work[0].deadline_ms = Some(NOW_MS + 1_300_000);
    assert_eq!(world.round(), [2, 0]);
    world.services[0].refused_at_ms = vec![world.now_ms + 5_000];
    let [spot, on_demand] = world.later(15).round();
    assert!(spot == 0 && on_demand > 0, "{spot}, {on_demand}");
    // Without a deadline it waits, and asks again.
    world.work[0].deadline_ms = None;
    world.services[1].desired = 0;
    assert_eq!(world.round(), [0, 0]);
    assert!(world.later(15).round()[0] > 0);
}

#[test]
fn what_comes_late_is_not_relied_on_and_not_called_back() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 10, 120.0));
    assert_eq!((world.round(), world.round()), ([4, 0], [4, 0]));
    // Three have a place, one has none.
    world.services[0].pending = 3;
    assert_eq!(world.later(BOOT_S).round(), [4, 0]);
    let plan = world.later(1).plan();
    assert_eq!((plan.targets[0].wanted, plan.targets[0].target), (0, 3));
}

#[test]
fn work_on_demand_gets_containers_whatever_the_policy() {
    for policy in PolicyName::ALL {
        let mut world = World::of_work(*policy, job(1, Lane::OnDemand, 2, 120.0));
        world.work[0].deadline_ms = Some(NOW_MS + 3_600_000);
        assert!(world.round()[1] > 0, "{policy}");
    }
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::OnDemand, 2, 120.0));
    assert_eq!(world.round(), [0, 1], "and no spot container, which would not take it");
}

#[test]
fn a_chunk_is_for_one_container_however_many_tasks_it_has() {
    let mut work = job(1, Lane::Spot, 1, 10.0);
    (work.tasks, work.submitted) = (1_000, 1_000);
    let mut world = World::of_work(PolicyName::Sheaf, work);
    assert_eq!(world.round(), [1, 0]);
    world.work[0].chunks = 5;
    assert_eq!(world.round(), [5, 0]);
    world.settings.pools[0].slots = 2;
    world.settings.pools[1].slots = 2;
    world.services[0].desired = 0;
    world.work[0].ordered = true;
    assert_eq!(world.round(), [3, 0], "one after the other: two chunks to a container of two slots");
}

#[test]
fn what_dispatch_has_handed_on_gets_a_container() {
    let mut world = World::new(PolicyName::Sheaf);
    world.hints = Some([(Lane::Spot, 2), (Lane::Lambda, 50)].into());
    assert_eq!(world.round(), [1, 0]);
    // Hints of chunks that are known of are no further work.
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 10, 120.0));
    world.hints = Some([(Lane::Spot, 10)].into());
    assert_eq!(world.round(), [4, 0]);
    // Nor are those that have been received since they were counted.
    world.hints = None;
    (world.work[0].chunks, world.work[0].tasks) = (5, 5);
    world.services[0].desired = 0;
    assert_eq!(world.round(), [2, 0]);
}

#[test]
fn workers_that_are_no_containers_are_not_replaced_by_any() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 1, 120.0));
    for number in 0..5 {
        let worker = world.worker(&format!("wrk_mine-{number}"), &[Lane::Spot]);
        world.workers.push(worker);
    }
    assert_eq!(world.hold(1, 1).round(), [1, 0], "it is not relied on that they stay");
    world.services[0].desired = 0;
    assert_eq!(world.finish().round(), [0, 0]);
}

#[test]
fn one_that_is_silent_or_leaves_is_not_there() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 1, 120.0));
    assert_eq!(world.round(), [1, 0]);
    world.joined().hold(1, 1);
    world.now_ms += 60_000;
    world.work.clear();
    assert_eq!(world.plan().targets[0].target, 0, "nothing was heard for a minute");
    world.later(0);
    assert_eq!(world.plan().targets[0].target, 1);
    world.workers[0].draining = true;
    assert_eq!(world.plan().targets[0].target, 1, "what it gives back needs another");
    world.finish();
    assert_eq!(world.plan().targets[0].target, 0);
}

#[test]
fn idle_containers_stay_while_more_is_to_be_expected() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 1, 5.0));
    world.round();
    world.joined();
    // A job of a task every ten seconds.
    for number in 2..20 {
        world.work = vec![job(number, Lane::Spot, 1, 5.0)];
        world.later(5).hold(number, 1).round();
        assert_eq!(world.finish().later(5).round(), [1, 0], "job {number}");
    }
    let mut stayed_s = 0;
    while world.later(15).round() != [0, 0] {
        stayed_s += 15;
    }
    assert!(stayed_s <= BOOT_S, "it stayed for {stayed_s} s");
}

#[test]
fn news_are_told_once() {
    let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 10, 120.0));
    assert!(world.plan().is_news);
    world.round();
    let plan = world.plan();
    assert!(!plan.is_news && !plan.targets.iter().any(Target::changes));
}

/// An ECS whose containers are as given, or that refuses to tell of them.
#[derive(Default)]
struct Told {
    containers: Vec<Container>,
    is_broken: Cell<bool>,
    /// The services that were asked about.
    asked: RefCell<Vec<String>>,
}

impl Ecs for &Told {
    async fn describe(&self, _: &[String]) -> Result<Vec<ServiceCounts>, StoreError> {
        Ok(Vec::new())
    }

    async fn set_desired(&self, _: &str, _: u32) -> Result<(), StoreError> {
        Ok(())
    }

    async fn containers(&self, name: &str) -> Result<Vec<Container>, StoreError> {
        self.asked.borrow_mut().push(name.to_owned());
        if self.is_broken.get() {
            return Err(StoreError::Stopped { detail: "not allowed".to_owned() });
        }
        Ok(self.containers.clone())
    }
}

/// Containers that have run for an hour, so many of which were taken away just now.
fn containers(number: u64, reclaimed: u64) -> Vec<Container> {
    let of = |id: u64| Container {
        id: id.to_string(),
        began_at_ms: Some(NOW_MS - 3_600_000),
        end: (id < reclaimed).then_some(End { at_ms: NOW_MS, cause: EndCause::Reclaimed }),
    };
    (0..number).map(of).collect()
}

impl World {
    /// Counts what ECS tells, with so many containers on spot and on demand.
    async fn count(&mut self, ecs: &Told, running: [u32; 2]) -> &mut Self {
        for (service, running) in self.services.iter_mut().zip(running) {
            (service.desired, service.running) = (running, running);
        }
        let scaler =
            Scaler { settings: self.settings.clone(), ecs, memory: Mutex::new(std::mem::take(&mut self.memory)) };
        scaler.count_reclaims(&self.services, self.now_ms).await;
        self.memory = scaler.memory.into_inner().expect("no panic");
        self
    }

    /// Reclaims an hour of spot and on demand, as a policy is shown them.
    fn reclaims_per_hour(&mut self) -> [f64; 2] {
        let shown = self
            .settings
            .pools
            .iter()
            .enumerate()
            .map(|(number, pool)| self.memory.reclaims().per_hour(number, pool.reclaims_per_hour, self.now_ms));
        shown.collect::<Vec<_>>().try_into().expect("two pools")
    }
}

#[tokio::test]
async fn reclaims_are_looked_for_once_a_minute_while_there_are_containers_on_spot() {
    let (mut world, ecs) = (World::new(PolicyName::Sheaf), Told::default());
    world.count(&ecs, [0, 3]).await;
    assert_eq!(ecs.asked.borrow().len(), 0, "there are none on spot");
    for _ in 0..8 {
        world.count(&ecs, [1, 3]).await.later(15);
    }
    assert_eq!(*ecs.asked.borrow(), ["night-spot", "night-spot"], "twice in two minutes");
}

#[tokio::test]
async fn the_policy_is_shown_the_measured_rate() {
    // 6,000 s of work that has time: how wide it is spread follows from the reclaims alone.
    let spread = async |containers: Vec<Container>| {
        let mut world = World::of_work(PolicyName::Sheaf, job(1, Lane::Spot, 60, 100.0));
        (world.settings.pools[0].machines_max, world.work[0].deadline_ms) = (100, Some(NOW_MS + 1_000_000_000));
        let ecs = Told { containers, ..Told::default() };
        world.count(&ecs, [1, 0]).await;
        (world.reclaims_per_hour(), world.plan().targets[0].wanted)
    };
    let (as_told, told) = spread(Vec::new()).await;
    let (calm_rate, calm) = spread(containers(9, 0)).await;
    let (rough_rate, rough) = spread(containers(4, 4)).await;
    assert_eq!((as_told, calm_rate, rough_rate), ([1.0, 1.0], [0.1, 1.0], [1.0, 1.0]));
    assert!(calm < told && told == rough, "{calm}, {told}, {rough}");
}

#[tokio::test]
async fn another_scaler_measures_the_same() {
    let ecs = Told { containers: containers(5, 2), ..Told::default() };
    let (mut one, mut other) = (World::new(PolicyName::Sheaf), World::new(PolicyName::Sheaf));
    one.count(&ecs, [3, 0]).await.later(60).count(&ecs, [3, 0]).await;
    other.later(60).count(&ecs, [3, 0]).await;
    assert_eq!(one.reclaims_per_hour(), other.reclaims_per_hour());
    assert!(one.reclaims_per_hour()[0] < 0.6, "two in six hours and a prior of one: {:?}", one.reclaims_per_hour());
}

#[tokio::test]
async fn an_ecs_that_does_not_tell_leaves_what_is_known() {
    let (mut world, ecs) = (World::new(PolicyName::Sheaf), Told { containers: containers(9, 0), ..Told::default() });
    ecs.is_broken.set(true);
    assert_eq!(world.count(&ecs, [9, 0]).await.reclaims_per_hour()[0], 1.0, "as told");
    ecs.is_broken.set(false);
    assert_eq!(world.later(60).count(&ecs, [9, 0]).await.reclaims_per_hour()[0], 0.1);
    ecs.is_broken.set(true);
    assert_eq!(world.later(60).count(&ecs, [9, 0]).await.reclaims_per_hour()[0], 0.1);
    assert_eq!(ecs.asked.borrow().len(), 3, "it is asked again, once a minute");
}
