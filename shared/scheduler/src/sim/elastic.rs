//! Streams of requests on elastic workers, under any policy.

use serde::{Deserialize, Serialize};
use sheaf_core::Lane;

use super::faults::{FaultKind, Faults};
use super::fleet::{Fleet, FleetSpec, PoolSpec, TaskSpec};
use super::pulling::{Order, Pulling};
use crate::checkpoint::CheckpointCost;
use crate::formats::arrivals::{Arrival, ServiceModel};
use crate::{Demand, PolicyName, Pool, Settings};

/// What a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamRun {
    /// Seconds a worker boots. 17.9, as measured for DaCirco's virtual machines.
    pub boot_s: f64,
    /// Dollars an hour for a worker.
    pub price_per_hour: f64,
    /// How long requests take where the trace does not say.
    pub service: ServiceModel,
    /// How long `sheaf` may let a request wait.
    pub latency_s: Option<f64>,
    /// What the policy is told; `workers_max` is the cap of the pool, whatever the policy.
    pub settings: Settings,
}

impl Default for StreamRun {
    fn default() -> Self {
        let settings = Settings { period_s: 1.0, ..Settings::default() };
        Self { boot_s: 17.9, price_per_hour: 0.1, service: ServiceModel::default(), latency_s: None, settings }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StreamOutcome {
    /// Requests with an outcome.
    pub requests: u64,
    /// Mean seconds from arrival to start.
    pub wait_mean_s: f64,
    /// Their 95th percentile: the value that 95 % of the requests do not exceed.
    pub wait_p95_s: f64,
    /// The longest.
    pub wait_max_s: f64,
    /// Seconds workers were held, boots included.
    pub worker_s: f64,
    /// The share of those in which they worked.
    pub utilisation: f64,
    /// Workers started.
    pub workers: u32,
    /// Dollars.
    pub cost: f64,
}

/// Runs `trace` under `policy`, first come first served.
pub fn run(trace: &[Arrival], policy: PolicyName, run: &StreamRun) -> StreamOutcome {
    let mut at_s = 0.0;
    let tasks = trace.iter().map(|arrival| {
        at_s += arrival.delay_s;
        TaskSpec { arrives_s: at_s, memory_mb: 0.0, runtime_s: vec![Some(run.service.service_s(arrival))] }
    });
    let tasks: Vec<TaskSpec> = tasks.collect();
    let work_s: f64 = tasks.iter().filter_map(|task| task.runtime_s[0]).sum();
    let pool = Pool {
        machine: "worker".to_owned(),
        market: Lane::OnDemand,
        price_per_hour: run.price_per_hour,
        boot_p95_s: run.boot_s,
        machines_max: run.settings.workers_max,
        ..Pool::default()
    };
    let policy = run.settings.policy(policy);
    let demand = Demand { job: "stream".to_owned(), latency_s: run.latency_s, ..Demand::default() };
    let mut pulling = Pulling::new(&*policy, demand, Order::FirstComeFirstServed, run.settings.period_s, tasks.len());
    let mut fleet = Fleet::new(FleetSpec {
        pools: vec![PoolSpec { pool, kind: 0, boot_s: run.boot_s, memory_mb: f64::MAX, burstable: None }],
        until_s: (at_s + work_s) * 10.0 + 3600.0,
        tasks,
        faults: Faults::None,
        kind: FaultKind::Terminate,
        checkpoint: CheckpointCost::default(),
        seed: 0,
        spot_max: u32::MAX,
        on_demand_max: u32::MAX,
    });
    fleet.run(&mut pulling);
    outcome(&fleet, work_s)
}

fn outcome(fleet: &Fleet, work_s: f64) -> StreamOutcome {
    let wait_s = |(state, spec): (&super::fleet::TaskState, &TaskSpec)| Some(state.started_at_s? - spec.arrives_s);
    let mut waits: Vec<f64> = fleet.tasks.iter().zip(&fleet.specs).filter_map(wait_s).collect();
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits.get(((waits.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    let worker_s = fleet.machine_s(|_| true);
    StreamOutcome {
        requests: fleet.tasks.iter().filter(|task| task.done_at_s.is_some()).count() as u64,
        wait_mean_s: waits.iter().sum::<f64>() / waits.len().max(1) as f64,
        wait_p95_s: at(0.95).unwrap_or(0.0),
        wait_max_s: waits.last().copied().unwrap_or(0.0),
        worker_s,
        utilisation: if worker_s > 0.0 { work_s / worker_s } else { 0.0 },
        workers: fleet.machines.len() as u32,
        cost: fleet.cost(),
    }
}
