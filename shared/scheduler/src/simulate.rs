//! What `sheaf simulate` prints: jobs × scenarios × policies over many seeds, and streams on elastic workers.

use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointCost;
use crate::formats::arrivals::Arrival;
use crate::hads::{Bag, NoPlan};
use crate::sim::bags::{BOOT_S, BagOutcome, BagRun, Player};
use crate::sim::elastic::{self, StreamOutcome, StreamRun};
use crate::sim::faults::{FaultKind, FaultMode};
use crate::sim::published;
use crate::{PolicyName, Settings};

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BagSimulation {
    /// Seconds there are.
    pub deadline_s: f64,
    /// Seconds a machine boots.
    pub boot_s: f64,
    /// Faults and returns expected until the deadline, one pair a scenario.
    pub scenarios: Vec<(f64, f64)>,
    /// Whom faults hit.
    pub modes: Vec<FaultMode>,
    /// What a fault does.
    pub kind: FaultKind,
    /// Seeds: 1 to this one.
    pub seeds: u64,
    /// The policies.
    pub policies: Vec<PolicyName>,
    /// What they are told.
    pub settings: Settings,
    /// What checkpoints cost.
    pub checkpoint: CheckpointCost,
}

impl Default for BagSimulation {
    fn default() -> Self {
        Self {
            deadline_s: published::DEADLINE_S,
            boot_s: BOOT_S,
            scenarios: published::SCENARIOS.to_vec(),
            modes: vec![FaultMode::Together, FaultMode::Each],
            kind: FaultKind::Hibernate,
            seeds: 30,
            policies: vec![PolicyName::HadsCc, PolicyName::BurstHads, PolicyName::Sheaf],
            settings: Settings::default(),
            checkpoint: CheckpointCost::default(),
        }
    }
}

/// One job, scenario, mode and policy: means over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BagRow {
    /// The job.
    pub job: String,
    /// Whom faults hit.
    pub mode: FaultMode,
    /// Faults and returns expected until the deadline.
    pub scenario: (f64, f64),
    /// The policy; none for on-demand machines only.
    pub policy: Option<PolicyName>,
    /// Runs.
    pub runs: u64,
    /// Mean dollars.
    pub cost: f64,
    /// Those as a share of the job's cost on on-demand machines only.
    pub of_on_demand: f64,
    /// Mean makespan.
    pub makespan_s: f64,
    /// The longest one.
    pub makespan_max_s: f64,
    /// Mean machines reclaimed.
    pub reclaims: f64,
    /// Mean machine seconds lost to reclaims and second copies.
    pub wasted_s: f64,
    /// Mean machines started on spot and on-demand.
    pub machines: (f64, f64),
    /// Runs that missed the deadline.
    pub misses: u64,
}

/// Runs `bags` through `simulation`. Rows come by job, mode and scenario, on-demand only first and then the policies.
pub fn bags(bags: &[Bag], simulation: &BagSimulation) -> Result<Vec<BagRow>, NoPlan> {
    let mut rows = Vec::new();
    for bag in bags {
        let calm = BagRun {
            boot_s: simulation.boot_s,
            kind: simulation.kind,
            settings: simulation.settings.clone(),
            checkpoint: simulation.checkpoint,
            ..BagRun::calm(simulation.deadline_s)
        };
        let (on_demand, _) = Player::new(bag, None, simulation.deadline_s)?.run(&calm);
        let name = &bag.job.job_id;
        rows.push(row(name, FaultMode::Each, (0.0, 0.0), None, &[on_demand], on_demand.cost));
        let players = simulation.policies.iter().map(|&name| Player::new(bag, Some(name), simulation.deadline_s));
        let players = players.collect::<Result<Vec<_>, _>>()?;
        for &mode in &simulation.modes {
            for &scenario in &simulation.scenarios {
                let faults = published::faults(scenario, mode, simulation.deadline_s);
                for (player, &policy) in players.iter().zip(&simulation.policies) {
                    let run = |seed| player.run(&BagRun { seed, faults: faults.clone(), ..calm.clone() }).0;
                    let outcomes: Vec<BagOutcome> = (1..=simulation.seeds).map(run).collect();
                    rows.push(row(name, mode, scenario, Some(policy), &outcomes, on_demand.cost));
                }
            }
        }
    }
    Ok(rows)
}

fn row(
    job: &str,
    mode: FaultMode,
    scenario: (f64, f64),
    policy: Option<PolicyName>,
    outcomes: &[BagOutcome],
    on_demand: f64,
) -> BagRow {
    let mean = |of: fn(&BagOutcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64;
    let cost = mean(|outcome| outcome.cost);
    BagRow {
        job: job.to_owned(),
        mode,
        scenario,
        policy,
        runs: outcomes.len() as u64,
        cost,
        of_on_demand: cost / on_demand,
        makespan_s: mean(|outcome| outcome.makespan_s),
        makespan_max_s: outcomes.iter().map(|outcome| outcome.makespan_s).fold(0.0, f64::max),
        reclaims: mean(|outcome| outcome.reclaims as f64),
        wasted_s: mean(|outcome| outcome.wasted_s),
        machines: (mean(|outcome| f64::from(outcome.machines.0)), mean(|outcome| f64::from(outcome.machines.1))),
        misses: outcomes.iter().filter(|outcome| outcome.late_tasks > 0).count() as u64,
    }
}

/// One policy on a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamRow {
    /// The policy.
    pub policy: PolicyName,
    /// Workers at most.
    pub workers_max: u32,
    /// The latency target, for `sheaf`.
    pub latency_s: Option<f64>,
    /// What came of it.
    pub outcome: StreamOutcome,
}

/// Runs `trace` under each policy and each cap on the workers: the frontier of waiting against worker seconds.
pub fn stream(trace: &[Arrival], policies: &[PolicyName], caps: &[u32], run: &StreamRun) -> Vec<StreamRow> {
    let runs = policies.iter().flat_map(|&policy| caps.iter().map(move |&workers_max| (policy, workers_max)));
    let row = |(policy, workers_max): (PolicyName, u32)| {
        let settings = Settings { workers_max, ..run.settings.clone() };
        let outcome = elastic::run(trace, policy, &StreamRun { settings, ..run.clone() });
        StreamRow { policy, workers_max, latency_s: run.latency_s, outcome }
    };
    runs.map(row).collect()
}
