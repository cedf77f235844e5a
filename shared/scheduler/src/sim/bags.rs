//! Bags with a deadline, under any policy.

use serde::{Deserialize, Serialize};
use sheaf_core::Lane;

use super::faults::{FaultKind, Faults};
use super::fleet::{Fleet, FleetSpec, PoolSpec, TaskSpec};
use super::pulling::{Order, Pulling};
use crate::checkpoint::CheckpointCost;
use crate::hads::control::Hads;
use crate::hads::{Bag, Queue, cc, ils};
use crate::{Demand, PolicyName, Pool, Settings};

/// Seconds a machine boots: env.json does not say. A minute is what EC2's larger Linux images take.
pub const BOOT_S: f64 = 60.0;
/// A run that is not done after this many deadlines is given up.
const GIVE_UP_AFTER: f64 = 10.0;

/// What a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BagRun {
    /// Seconds there are.
    pub deadline_s: f64,
    /// Dollars it may cost, for policies that [keep budgets](PolicyName::keeps_budgets).
    #[serde(default)]
    pub budget: Option<f64>,
    /// Seconds a machine boots.
    pub boot_s: f64,
    /// What goes wrong.
    pub faults: Faults,
    /// What a fault does.
    pub kind: FaultKind,
    /// The seed of the faults.
    pub seed: u64,
    /// What the policy is told.
    pub settings: Settings,
    /// What checkpoints cost.
    pub checkpoint: CheckpointCost,
}

impl BagRun {
    /// A run without faults.
    pub fn calm(deadline_s: f64) -> Self {
        Self {
            deadline_s,
            budget: None,
            boot_s: BOOT_S,
            faults: Faults::None,
            kind: FaultKind::Hibernate,
            seed: 0,
            settings: Settings::default(),
            checkpoint: CheckpointCost::default(),
        }
    }

    fn budget_for(&self, policy: PolicyName) -> Option<f64> {
        self.budget.filter(|_| policy.keeps_budgets())
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BagOutcome {
    /// Dollars.
    pub cost: f64,
    /// When the last task had its outcome.
    pub makespan_s: f64,
    /// Tasks without an outcome at the deadline.
    pub late_tasks: u64,
    /// Tasks without an outcome at the end: the budget was spent, or the run was given up.
    #[serde(default)]
    pub open_tasks: u64,
    /// Machines reclaimed.
    pub reclaims: u64,
    /// Machine seconds lost to reclaims and second copies.
    pub wasted_s: f64,
    /// Second copies started.
    pub hedges: u64,
    /// Machines started on spot and on-demand.
    pub machines: (u32, u32),
}

/// A bag ready to be run under one policy again and again: the plans of HADS are made once, as its users do.
pub enum Player<'a> {
    /// A policy whose workers take the next task.
    Pulling(&'a Bag, PolicyName),
    /// A policy that places every task, with its first plan.
    Placing(&'a Bag, PolicyName, Vec<Queue>),
    /// On-demand machines only, placed as HADS does: what costs are compared with.
    OnDemand(&'a Bag, Vec<Queue>),
}

impl<'a> Player<'a> {
    /// A player of `bag` under `policy`; no policy is on-demand only.
    pub fn new(bag: &'a Bag, policy: Option<PolicyName>, deadline_s: f64) -> Result<Self, cc::NoPlan> {
        Ok(match policy {
            None => Self::OnDemand(bag, on_demand_plan(bag, deadline_s)?),
            Some(name @ PolicyName::HadsCc) => Self::Placing(bag, name, cc::plan(bag, deadline_s, true)?),
            Some(name @ PolicyName::BurstHads) => {
                Self::Placing(bag, name, ils::plan(bag, deadline_s, &ils::Search::default())?)
            }
            Some(name) => Self::Pulling(bag, name),
        })
    }

    /// One run, with the fleet as it ended.
    pub fn run(&self, run: &BagRun) -> (BagOutcome, Fleet) {
        let (Self::Pulling(bag, _) | Self::Placing(bag, ..) | Self::OnDemand(bag, _)) = self;
        let mut fleet = Fleet::new(FleetSpec {
            pools: pools(bag, run.boot_s, !matches!(self, Self::Pulling(..))),
            spot_max: bag.env.spot_max,
            on_demand_max: bag.env.on_demand_max,
            tasks: tasks(bag),
            faults: run.faults.clone(),
            kind: run.kind,
            checkpoint: run.checkpoint,
            seed: run.seed,
            until_s: run.deadline_s * GIVE_UP_AFTER,
        });
        match self {
            Self::Pulling(bag, name) => {
                let policy = run.settings.policy(*name);
                let demand = Demand {
                    job: bag.job.job_id.clone(),
                    deadline_at_s: Some(run.deadline_s),
                    budget_left: run.budget_for(*name),
                    sealed: true,
                    ..Demand::default()
                };
                let period_s = run.settings.period_s;
                let mut pulling = Pulling::new(&*policy, demand, Order::LongestFirst, period_s, bag.len());
                fleet.run(&mut pulling);
            }
            Self::Placing(bag, name, plan) => {
                fleet.run(&mut Hads::new(bag, plan, run.deadline_s, *name == PolicyName::BurstHads));
            }
            Self::OnDemand(bag, plan) => fleet.run(&mut Hads::new(bag, plan, run.deadline_s, false)),
        }
        (outcome(&fleet, run.deadline_s), fleet)
    }
}

fn outcome(fleet: &Fleet, deadline_s: f64) -> BagOutcome {
    let done = |task: &super::fleet::TaskState| task.done_at_s.unwrap_or(f64::INFINITY);
    let ends = fleet.tasks.iter().map(done).filter(|end| end.is_finite());
    let count = |market| fleet.machines.iter().filter(|m| fleet.pools[m.pool].pool.market == market).count() as u32;
    BagOutcome {
        cost: fleet.cost(),
        makespan_s: ends.fold(0.0, f64::max),
        open_tasks: fleet.open_tasks() as u64,
        late_tasks: fleet.tasks.iter().filter(|task| done(task) > deadline_s).count() as u64,
        reclaims: fleet.reclaims.iter().sum(),
        wasted_s: fleet.lost_s,
        hedges: fleet.hedges,
        machines: (count(Lane::Spot), count(Lane::OnDemand)),
    }
}

/// The cheapest plan on on-demand machines that is in time with a boot: each number of machines is tried, cheapest
/// types first.
fn on_demand_plan(bag: &Bag, deadline_s: f64) -> Result<Vec<Queue>, cc::NoPlan> {
    let mut kinds = bag.regular(Lane::OnDemand);
    let per_core = |kind: &usize| {
        let work: f64 = (0..bag.len()).filter_map(|task| bag.runtime_s(task, *kind)).sum();
        bag.price_per_hour(*kind, Lane::OnDemand) / f64::from(bag.env.instances[*kind].vcpu) * work
    };
    kinds.sort_by(|a, b| per_core(a).total_cmp(&per_core(b)));
    let machines: Vec<usize> =
        kinds.iter().flat_map(|&kind| (0..bag.limit(kind, Lane::OnDemand)).map(move |_| kind)).collect();
    let mut tasks: Vec<usize> = (0..bag.len()).collect();
    let longest = |task: usize| bag.runtime_s(task, kinds.first().copied().unwrap_or(0)).unwrap_or(0.0);
    tasks.sort_by(|&a, &b| longest(b).total_cmp(&longest(a)));
    let mut best: Option<(f64, Vec<Queue>)> = None;
    for count in 1..=machines.len() {
        let mut queues: Vec<Queue> = machines[..count].iter().map(|&k| Queue::new(bag, k, Lane::OnDemand)).collect();
        for &task in &tasks {
            let end = |q: &Queue| q.prospect(bag, task, 1.0).map_or(f64::INFINITY, |(_, entry)| entry.end_s);
            if let Some(queue) = queues.iter_mut().min_by(|a, b| end(a).total_cmp(&end(b))) {
                queue.insert(bag, task, 1.0);
            }
        }
        let in_time = queues.iter().all(|queue| queue.makespan_s + BOOT_S < deadline_s);
        let boots: f64 = queues.iter().map(|q| bag.price_per_hour(q.kind, q.market) * BOOT_S / 3600.0).sum();
        let cost = boots + queues.iter().map(|queue| queue.cost(bag)).sum::<f64>();
        if in_time && best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, queues));
        }
    }
    let refused = || cc::NoPlan::Deadline { job: bag.job.job_id.clone(), task: "any".to_owned(), deadline_s };
    best.map(|(_, queues)| queues).ok_or_else(refused)
}

/// A spot and an on-demand pool for each type, spot first: pool `2k` and `2k + 1` are of type `k`. Without `burstable`,
/// burstable types are closed: at their baseline they are no place for a worker that takes whatever comes next.
pub fn pools(bag: &Bag, boot_s: f64, burstable: bool) -> Vec<PoolSpec> {
    let whole = |kind: usize| (0..bag.len()).filter_map(|task| bag.runtime_s(task, kind)).sum::<f64>();
    let of_first: f64 = (0..bag.len()).filter_map(|task| first_runtime_s(bag, task)).sum();
    let each = bag.env.instances.iter().enumerate().flat_map(|(kind, instance)| {
        [Lane::Spot, Lane::OnDemand].map(|market| PoolSpec {
            pool: Pool {
                machine: instance.machine.clone(),
                zone: String::new(),
                market,
                slots: instance.vcpu,
                speed: if whole(kind) > 0.0 { of_first / whole(kind) } else { 0.0 },
                price_per_hour: bag.price_per_hour(kind, market),
                boot_p95_s: boot_s,
                machines_max: if instance.baseline.is_none() || burstable { bag.limit(kind, market) } else { 0 },
                ..Pool::default()
            },
            kind,
            boot_s,
            memory_mb: instance.memory_mb,
            burstable: instance.baseline.map(|baseline| (baseline, instance.credits_per_hour)),
        })
    });
    each.collect()
}

/// Seconds of `task` on the first type it runs on, which stands for speed 1.
fn first_runtime_s(bag: &Bag, task: usize) -> Option<f64> {
    (0..bag.env.instances.len()).find_map(|kind| bag.runtime_s(task, kind))
}

fn tasks(bag: &Bag) -> Vec<TaskSpec> {
    let spec = |task: usize| TaskSpec {
        arrives_s: 0.0,
        memory_mb: bag.job.tasks[task].memory_mb,
        runtime_s: (0..bag.env.instances.len()).map(|kind| bag.runtime_s(task, kind)).collect(),
    };
    (0..bag.len()).map(spec).collect()
}

/// What `policy` says when `run` begins: whether the deadline can be kept, and why it wants what it wants.
pub fn first_decision(bag: &Bag, run: &BagRun, policy: PolicyName) -> crate::Decision {
    let seconds = |task: usize| first_runtime_s(bag, task).unwrap_or(0.0);
    let work_s: f64 = (0..bag.len()).map(seconds).sum();
    let demand = Demand {
        job: bag.job.job_id.clone(),
        waiting_tasks: bag.len() as u64,
        arrived_tasks: bag.len() as u64,
        waiting_s: work_s,
        uncommitted_s: work_s,
        longest_s: (0..bag.len()).map(seconds).fold(0.0, f64::max),
        deadline_at_s: Some(run.deadline_s),
        budget_left: run.budget_for(policy),
        sealed: true,
        ..Demand::default()
    };
    let pools = pools(bag, run.boot_s, false).into_iter().map(|spec| spec.pool).collect();
    let snapshot = crate::Snapshot { demands: vec![demand], pools, ..crate::Snapshot::default() };
    run.settings.policy(policy).decide(&snapshot, &mut crate::Memory::default())
}
