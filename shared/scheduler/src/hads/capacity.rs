//! HADS as a policy that only says how many machines: for a grid whose workers take the next chunk themselves.

use sheaf_core::Lane;

use super::{Bag, NoPlan, cc, ils};
use crate::formats::env::{Env, Instance};
use crate::formats::job::{Job, Task};
use crate::policies::Held;
use crate::{Decision, Demand, Infeasible, Memory, Policy, PolicyName, Settings, Snapshot};

/// More tasks than this are planned as this many larger ones: the plan takes time that grows with their square.
const TASKS_PLANNED_MAX: u64 = 512;

/// `hads-cc` or `burst-hads` over a snapshot: plans the open tasks of the jobs with a deadline, each as long as their
/// mean, and wants the machines of that plan.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Which of the two.
    pub name: PolicyName,
    /// What it was told.
    pub settings: Settings,
}

impl Policy for Capacity {
    fn name(&self) -> PolicyName {
        self.name
    }

    fn decide(&self, snapshot: &Snapshot, _memory: &mut Memory) -> Decision {
        let mut decision = Decision { policy: self.name.to_string(), ..Decision::default() };
        let mut held = Held::new(snapshot);
        let mut planned = vec![0u32; snapshot.pools.len()];
        let env = environment(snapshot);
        for demand in snapshot.demands.iter().filter(|demand| demand.open_tasks() > 0) {
            let left_s = demand.deadline_at_s.map_or(f64::MAX, |at| at - snapshot.now_s);
            match self.plan(snapshot, &env, demand, left_s) {
                Ok(queues) => {
                    decision.reasons.push(format!("{}: planned on {} machines", demand.job, queues.len()));
                    queues.iter().for_each(|&pool| planned[pool] += 1);
                }
                Err(error) => {
                    decision.reasons.push(error.to_string());
                    let earliest_finish_at_s = f64::INFINITY;
                    decision.infeasible.push(Infeasible { job: demand.job.clone(), earliest_finish_at_s });
                }
            }
        }
        for (pool, &count) in planned.iter().enumerate() {
            held.add(pool, count.saturating_sub(held.wanted(pool)));
        }
        if snapshot.demands.iter().all(|demand| demand.waiting_tasks == 0) {
            for (machine, _) in held.idle() {
                held.drain(machine, self.settings.grace_s);
            }
        }
        (decision.wants, decision.drains) = held.answer();
        decision
    }
}

impl Capacity {
    /// The pool of each machine of the plan for `demand`.
    fn plan(&self, snapshot: &Snapshot, env: &Env, demand: &Demand, left_s: f64) -> Result<Vec<usize>, NoPlan> {
        let tasks = demand.open_tasks().min(TASKS_PLANNED_MAX);
        let task_s = demand.uncommitted_s / tasks as f64;
        let runtime_s = |pool: usize| (pool.to_string(), task_s / snapshot.pools[pool].speed);
        let runtime_s: Vec<_> =
            (0..snapshot.pools.len()).filter(|&p| snapshot.pools[p].speed > 0.0).map(runtime_s).collect();
        let task = |id| Task { id, memory_mb: 0.0, io: 0.0, command: String::new(), runtime_s: runtime_s.clone() };
        let tasks = (0..tasks).map(|number| task(number.to_string())).collect();
        let job = Job { job_id: demand.job.clone(), job_name: String::new(), tasks };
        let bag = Bag::new(job, env.clone()).map_err(|_| NoPlan::NoType { job: demand.job.clone() })?;
        let queues = match self.name {
            PolicyName::BurstHads => {
                let search = ils::Search { rounds: 10, tries: 10, ..ils::Search::default() };
                ils::plan(&bag, left_s, &search).or_else(|_| cc::plan(&bag, left_s, true))?
            }
            _ => cc::plan(&bag, left_s, true)?,
        };
        Ok(queues.iter().map(|queue| queue.kind).collect())
    }
}

/// The pools as an environment: each a type of its own, open on its own market.
fn environment(snapshot: &Snapshot) -> Env {
    let instances = snapshot.pools.iter().enumerate().map(|(number, pool)| {
        let max = |market| if pool.market == market { pool.machines_max } else { 0 };
        Instance {
            machine: number.to_string(),
            vcpu: pool.slots,
            memory_mb: f64::MAX,
            gflops: pool.rate(),
            // The slack is reckoned on the cheapest type on-demand, so spot pools must not be that.
            on_demand_price: if pool.market == Lane::OnDemand { pool.price_per_hour } else { f64::INFINITY },
            spot_price: pool.price_per_hour,
            on_demand_max: max(Lane::OnDemand),
            spot_max: max(Lane::Spot),
            baseline: None,
            credits_per_hour: 0.0,
        }
    });
    let instances: Vec<Instance> = instances.collect();
    let all = |max: fn(&Instance) -> u32| instances.iter().map(max).fold(0u32, u32::saturating_add);
    Env { on_demand_max: all(|i| i.on_demand_max), spot_max: all(|i| i.spot_max), instances }
}
