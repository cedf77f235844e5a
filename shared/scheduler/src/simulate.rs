//! What `sheaf simulate` prints: bags under policies in scenarios over many seeds, and streams on elastic workers.
//!
//! Each cell of a table is a simulation of its own, so whoever has several cores hands in an [`Executor`] that uses them:
//! there are no threads here.

use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointCost;
use crate::formats::arrivals::Arrival;
use crate::formats::spot::Outage;
use crate::hads::{Bag, NoPlan};
use crate::sim::bags::{BOOT_S, BagOutcome, BagRun, Player};
use crate::sim::elastic::{self, StreamOutcome, StreamRun};
use crate::sim::faults::{FaultKind, FaultMode, Faults};
use crate::sim::fit::Fitted;
use crate::sim::published::{self, Published, published_share};
use crate::{PolicyName, Settings};

/// Does the same with each of many things.
pub trait Executor {
    /// What `work` gives for each of `items`, in their order.
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync + Send) -> Vec<R>;
}

/// One after the other.
#[derive(Debug, Clone, Copy)]
pub struct InTurn;

impl Executor for InTurn {
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
        items.iter().map(work).collect()
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Scenario {
    /// Nothing.
    Calm,
    /// Poisson processes.
    Expected {
        /// k_h: faults expected until the deadline.
        faults: f64,
        /// k_r: returns expected until the deadline.
        resumes: f64,
        /// Whom faults hit.
        mode: FaultMode,
    },
    /// A spot trace, as it was: the same for every seed.
    Trace {
        /// What it is called.
        name: String,
        /// The trace.
        outages: Vec<Outage>,
    },
    /// Traces of the kind of one, another for each seed.
    Like {
        /// What the one is called.
        name: String,
        /// What is known of its kind.
        fitted: Fitted,
    },
}

impl Scenario {
    /// No faults, then each pair of `expected` in each mode.
    pub fn grid(expected: &[(f64, f64)], modes: &[FaultMode]) -> Vec<Self> {
        let in_mode = |mode| expected.iter().map(move |&(faults, resumes)| Self::Expected { faults, resumes, mode });
        std::iter::once(Self::Calm).chain(modes.iter().copied().flat_map(in_mode)).collect()
    }

    fn faults(&self, seed: u64, deadline_s: f64) -> Faults {
        match self {
            Self::Calm => Faults::None,
            Self::Expected { faults, resumes, mode } => Faults::expected((*faults, *resumes), deadline_s, *mode),
            Self::Trace { outages, .. } => Faults::Trace(outages.clone()),
            Self::Like { fitted, .. } => Faults::Trace(fitted.generate(seed, deadline_s)),
        }
    }

    /// Whether seeds make a difference.
    const fn is_random(&self) -> bool {
        matches!(self, Self::Expected { .. } | Self::Like { .. })
    }
}

/// A bag in a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it is called there; the name of a published bag brings the published figures beside its own.
    pub name: String,
    /// The bag.
    pub bag: Bag,
}

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct BagSimulation {
    /// Seconds there are.
    pub deadline_s: f64,
    /// Dollars a run may cost, for policies that [keep budgets](PolicyName::keeps_budgets).
    pub budget: Option<f64>,
    /// Seconds a machine boots.
    pub boot_s: f64,
    /// What goes wrong.
    pub scenarios: Vec<Scenario>,
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
            budget: None,
            boot_s: BOOT_S,
            scenarios: Scenario::grid(&published::SCENARIOS, &[FaultMode::Together, FaultMode::Each]),
            kind: FaultKind::Hibernate,
            seeds: 30,
            policies: vec![PolicyName::HadsCc, PolicyName::BurstHads, PolicyName::Sheaf],
            settings: Settings::default(),
            checkpoint: CheckpointCost::default(),
        }
    }
}

/// One job, scenario and policy: means over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BagRow {
    /// The job.
    pub job: String,
    /// The policy; none for on-demand machines only.
    pub policy: Option<PolicyName>,
    /// Whom faults hit, in a scenario of expected faults.
    pub mode: Option<FaultMode>,
    /// Faults and returns expected until the deadline.
    pub scenario: Option<(f64, f64)>,
    /// The spot trace, where faults come from one.
    pub trace: Option<String>,
    /// Runs.
    pub runs: u64,
    /// Mean dollars.
    pub cost: f64,
    /// Those as a share of the job's cost on on-demand machines only; none where these cannot be in time.
    pub of_on_demand: Option<f64>,
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
    /// Dollars and makespan published for this job and policy without faults.
    pub published: Option<(f64, f64)>,
}

/// A policy that cannot plan a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The job.
    pub job: String,
    /// The policy; none for on-demand machines only.
    pub policy: Option<PolicyName>,
    /// Why.
    pub because: String,
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BagTable {
    /// By job: on-demand only, then policy by policy, each in the order of the scenarios.
    pub rows: Vec<BagRow>,
    /// What could not be planned.
    pub refused: Vec<Refusal>,
}

/// A job under a policy.
struct Entrant<'a> {
    job: &'a str,
    policy: Option<PolicyName>,
    player: Player<'a>,
}

/// Runs `entries` through `simulation`.
pub fn bags(entries: &[Entry], simulation: &BagSimulation, executor: &impl Executor) -> BagTable {
    let policies = || std::iter::once(None).chain(simulation.policies.iter().copied().map(Some));
    let pairs: Vec<_> = entries.iter().flat_map(|entry| policies().map(move |policy| (entry, policy))).collect();
    let players = executor.map(&pairs, |(entry, policy)| Player::new(&entry.bag, *policy, simulation.deadline_s));
    let (mut entrants, mut refused) = (Vec::new(), Vec::new());
    for ((entry, policy), player) in pairs.into_iter().zip(players) {
        match player {
            Ok(player) => entrants.push(Entrant { job: &entry.name, policy, player }),
            Err(no_plan) => refused.push(refusal(&entry.name, policy, &no_plan)),
        }
    }
    // What is on-demand only has nothing to lose to faults.
    let cells =
        |entrant: &&Entrant| if entrant.policy.is_none() { &[Scenario::Calm][..] } else { &simulation.scenarios };
    let cells: Vec<_> = entrants.iter().flat_map(|e| cells(&e).iter().map(move |scenario| (e, scenario))).collect();
    let mut rows = executor.map(&cells, |(entrant, scenario)| row(entrant, scenario, simulation));
    let on_demand: Vec<_> = rows.iter().filter(|r| r.policy.is_none()).map(|r| (r.job.clone(), r.cost)).collect();
    for row in &mut rows {
        row.of_on_demand = on_demand.iter().find(|(job, _)| *job == row.job).map(|(_, cost)| row.cost / cost);
    }
    BagTable { rows, refused }
}

fn refusal(job: &str, policy: Option<PolicyName>, no_plan: &NoPlan) -> Refusal {
    Refusal { job: job.to_owned(), policy, because: no_plan.to_string() }
}

fn row(entrant: &Entrant, scenario: &Scenario, simulation: &BagSimulation) -> BagRow {
    let run = |seed| {
        let run = BagRun {
            deadline_s: simulation.deadline_s,
            budget: simulation.budget,
            boot_s: simulation.boot_s,
            faults: scenario.faults(seed, simulation.deadline_s),
            kind: simulation.kind,
            seed,
            settings: simulation.settings.clone(),
            checkpoint: simulation.checkpoint,
        };
        entrant.player.run(&run).0
    };
    let seeds = if scenario.is_random() { simulation.seeds } else { 1 };
    let outcomes: Vec<BagOutcome> = (1..=seeds).map(run).collect();
    let mean = |of: fn(&BagOutcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64;
    let (mode, expected, trace) = match scenario {
        Scenario::Calm => (None, None, None),
        Scenario::Expected { faults, resumes, mode } => (Some(*mode), Some((*faults, *resumes)), None),
        Scenario::Trace { name, .. } => (None, None, Some(name.clone())),
        Scenario::Like { name, .. } => (None, None, Some(format!("like {name}"))),
    };
    let published = Published::find(entrant.job).filter(|_| *scenario == Scenario::Calm);
    BagRow {
        job: entrant.job.to_owned(),
        policy: entrant.policy,
        mode,
        scenario: expected,
        trace,
        runs: outcomes.len() as u64,
        cost: mean(|outcome| outcome.cost),
        of_on_demand: None,
        makespan_s: mean(|outcome| outcome.makespan_s),
        makespan_max_s: outcomes.iter().map(|outcome| outcome.makespan_s).fold(0.0, f64::max),
        reclaims: mean(|outcome| outcome.reclaims as f64),
        wasted_s: mean(|outcome| outcome.wasted_s),
        machines: (mean(|outcome| f64::from(outcome.machines.0)), mean(|outcome| f64::from(outcome.machines.1))),
        misses: outcomes.iter().filter(|outcome| outcome.late_tasks > 0).count() as u64,
        published: published.and_then(|published| published.of(entrant.policy)),
    }
}

/// One policy over all cells with faults of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanRow {
    /// The policy.
    pub policy: PolicyName,
    /// Whom faults hit; none for traces.
    pub mode: Option<FaultMode>,
    /// The cells.
    pub cells: u64,
    /// The mean of their shares of on-demand.
    pub of_on_demand: f64,
    /// The mean that was published, over the four published bags; none beside other bags and scenarios.
    pub published: Option<f64>,
    /// Runs.
    pub runs: u64,
    /// Runs that missed the deadline.
    pub misses: u64,
}

/// Means over the cells with faults: by policy, and by whom faults hit, traces last.
pub fn means(rows: &[BagRow]) -> Vec<MeanRow> {
    let mut groups: Vec<(PolicyName, Option<FaultMode>, Vec<&BagRow>)> = Vec::new();
    for row in rows.iter().filter(|row| row.scenario.is_some() || row.trace.is_some()) {
        let Some(policy) = row.policy else { continue };
        match groups.iter_mut().find(|(name, mode, _)| (*name, *mode) == (policy, row.mode)) {
            Some((_, _, cells)) => cells.push(row),
            None => groups.push((policy, row.mode, vec![row])),
        }
    }
    let mean = |(policy, mode, cells): (PolicyName, Option<FaultMode>, Vec<&BagRow>)| {
        let shares: Vec<f64> = cells.iter().filter_map(|row| row.of_on_demand).collect();
        let is_theirs = |row: &&BagRow| {
            Published::find(&row.job).is_some() && row.scenario.is_some_and(|of| published::SCENARIOS.contains(&of))
        };
        let of_papers = cells.iter().all(is_theirs);
        MeanRow {
            policy,
            mode,
            cells: cells.len() as u64,
            of_on_demand: shares.iter().sum::<f64>() / shares.len().max(1) as f64,
            published: published_share(policy).filter(|_| of_papers),
            runs: cells.iter().map(|row| row.runs).sum(),
            misses: cells.iter().map(|row| row.misses).sum(),
        }
    };
    groups.into_iter().map(mean).collect()
}

/// Which policies to put a stream through, and what each is told in turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// The policies.
    pub policies: Vec<PolicyName>,
    /// Workers at most.
    pub workers_max: Vec<u32>,
    /// Seconds an idle worker stays, for `grace-period`; where `adaptive-grace` starts.
    pub grace_s: Vec<f64>,
    /// Waiting requests from which `queue` starts a worker.
    pub queue_threshold: Vec<u64>,
    /// Idle workers that `reserve` keeps.
    pub reserve: Vec<u32>,
    /// Latency targets of `sheaf`.
    pub latency_s: Vec<f64>,
}

impl Default for Sweep {
    fn default() -> Self {
        use PolicyName::{AdaptiveGrace, GracePeriod, MinimizeWorkers, Queue, Reserve, Sheaf};
        Self {
            policies: vec![MinimizeWorkers, GracePeriod, AdaptiveGrace, Reserve, Queue, Sheaf],
            workers_max: vec![3, 5, 8, 12, 25],
            grace_s: vec![30.0, 60.0, 120.0, 300.0],
            queue_threshold: vec![2, 9],
            reserve: vec![1, 2],
            latency_s: vec![1.0, 20.0, 120.0],
        }
    }
}

/// What a policy was told besides the cap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name among the [`Settings`], or `latency_s`.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// One policy on a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamRow {
    /// The policy.
    pub policy: PolicyName,
    /// Workers at most.
    pub workers_max: u32,
    /// What else it was told.
    pub parameter: Option<Parameter>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: StreamOutcome,
    /// True when no other row has both a shorter mean wait and fewer worker seconds.
    pub on_frontier: bool,
}

impl Sweep {
    /// Each policy with each of its parameters and each cap, in that order.
    fn cells(&self, run: &StreamRun) -> Vec<(PolicyName, Option<Parameter>, StreamRun)> {
        let mut cells = Vec::new();
        for &policy in &self.policies {
            for (parameter, told) in self.parameters(policy, run) {
                let capped = self.workers_max.iter().map(|&workers_max| {
                    let settings = Settings { workers_max, ..told.settings.clone() };
                    (policy, parameter.clone(), StreamRun { settings, ..told.clone() })
                });
                cells.extend(capped);
            }
        }
        cells
    }

    fn parameters(&self, policy: PolicyName, run: &StreamRun) -> Vec<(Option<Parameter>, StreamRun)> {
        type Tell = fn(&mut StreamRun, f64);
        let (name, values, tell): (_, Vec<f64>, Tell) = match policy {
            PolicyName::GracePeriod | PolicyName::AdaptiveGrace => {
                ("grace_s", self.grace_s.clone(), |run, value| run.settings.grace_s = value)
            }
            PolicyName::Queue => {
                let values = self.queue_threshold.iter().map(|&value| value as f64).collect();
                ("queue_threshold", values, |run, value| run.settings.queue_threshold = value as u64)
            }
            PolicyName::Reserve => {
                let values = self.reserve.iter().map(|&value| f64::from(value)).collect();
                ("reserve", values, |run, value| run.settings.reserve = value as u32)
            }
            PolicyName::Sheaf => ("latency_s", self.latency_s.clone(), |run, value| run.latency_s = Some(value)),
            PolicyName::Fixed | PolicyName::MinimizeWorkers | PolicyName::HadsCc | PolicyName::BurstHads => {
                return vec![(None, run.clone())];
            }
        };
        let told = values.into_iter().map(|value| {
            let mut told = run.clone();
            tell(&mut told, value);
            (Some(Parameter { name: name.to_owned(), value }), told)
        });
        told.collect()
    }
}

/// Runs `trace` under each policy, parameter and cap: the curve of waiting against worker seconds.
pub fn stream(trace: &[Arrival], sweep: &Sweep, run: &StreamRun, executor: &impl Executor) -> Vec<StreamRow> {
    let cells = sweep.cells(run);
    let outcomes = executor.map(&cells, |(policy, _, run)| elastic::run(trace, *policy, run));
    let beaten = |by: &StreamOutcome, one: &StreamOutcome| {
        let (by, one) = ((by.wait_mean_s, by.worker_s), (one.wait_mean_s, one.worker_s));
        by.0 <= one.0 && by.1 <= one.1 && by != one
    };
    let on_frontier = |one: &StreamOutcome| !outcomes.iter().any(|by| beaten(by, one));
    let rows = cells.into_iter().zip(&outcomes).map(|((policy, parameter, run), outcome)| StreamRow {
        policy,
        workers_max: run.settings.workers_max,
        parameter,
        outcome: *outcome,
        on_frontier: on_frontier(outcome),
    });
    rows.collect()
}
