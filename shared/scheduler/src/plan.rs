//! What `sheaf plan` prints, and the map.json it writes.

use serde::Serialize;
use sheaf_core::Lane;

use crate::formats::map::{PlanMap, PlannedMachine, market_word};
use crate::hads::{Bag, NoPlan, Queue, cc, cost_and_makespan, ils};
use crate::sim::bags::{BagRun, Player, first_decision};
use crate::sim::fleet::Fleet;
use crate::{Decision, PolicyName, Settings};

/// A plan as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanTable {
    /// The job.
    pub job: String,
    /// The policy.
    pub policy: PolicyName,
    /// Seconds there are.
    pub deadline_s: f64,
    /// Dollars it may cost.
    pub budget: Option<f64>,
    /// True when it costs more than that, or would: see [`tasks_left`](Self::tasks_left).
    pub over_budget: bool,
    /// Tasks that are left when the budget is spent.
    pub tasks_left: u64,
    /// When the last task ends, if nothing goes wrong.
    pub makespan_s: f64,
    /// Dollars, if nothing goes wrong.
    pub cost: f64,
    /// Seconds between makespan and deadline.
    pub slack_s: f64,
    /// By when spot machines must be done, for the HADS policies.
    pub spot_deadline_s: Option<f64>,
    /// The machines, by type and market.
    pub fleet: Vec<FleetRow>,
    /// Why, for policies that say so; first, if the deadline or the budget cannot be kept, that.
    pub reasons: Vec<String>,
    /// True when deadline and budget can be kept.
    pub feasible: bool,
    /// The earliest finish that can be promised, where the deadline cannot.
    pub earliest_finish_s: Option<f64>,
}

/// The machines of one type and market in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetRow {
    /// The type.
    pub machine: String,
    /// `preemptible` or `on-demand`.
    pub market: String,
    /// How many.
    pub count: u32,
}

/// Plans `bag` under `policy`: the HADS policies by their own plans, which leave boots out; the others by simulating
/// them without faults, boots included. `budget` is for policies that [keep budgets](PolicyName::keeps_budgets).
pub fn plan(
    bag: &Bag,
    deadline_s: f64,
    budget: Option<f64>,
    policy: PolicyName,
    settings: &Settings,
) -> Result<(PlanTable, PlanMap), NoPlan> {
    match policy {
        PolicyName::HadsCc => placed(bag, deadline_s, policy, &cc::plan(bag, deadline_s, true)?),
        PolicyName::BurstHads => placed(bag, deadline_s, policy, &ils::plan(bag, deadline_s, &ils::Search::default())?),
        _ => simulated(bag, &BagRun { budget, ..run_of(deadline_s, settings) }, policy),
    }
}

/// The shortest deadline, to the second, that `policy` can plan or promise, for one that is too short; none where no
/// deadline is long enough, or `deadline_s` itself can be promised.
pub fn earliest_finish_s(bag: &Bag, deadline_s: f64, policy: PolicyName, settings: &Settings) -> Option<f64> {
    match policy {
        PolicyName::HadsCc => shortest_planned_s(bag, |at_s| cc::plan(bag, at_s, true).is_ok()),
        PolicyName::BurstHads => shortest_planned_s(bag, |at_s| ils::first(bag, at_s).is_ok()),
        _ => promised_s(&first_decision(bag, &run_of(deadline_s, settings), policy)),
    }
}

/// By halving: what HADS can plan in some time it can plan in more.
fn shortest_planned_s(bag: &Bag, fits: impl Fn(f64) -> bool) -> Option<f64> {
    // One machine after the other, and the slack that is kept free: more time helps nobody.
    let slowest_s =
        |task: usize| (0..bag.env.instances.len()).filter_map(|kind| bag.runtime_s(task, kind)).fold(0.0, f64::max);
    let (mut short_s, mut long_s) = (0.0, (4.0 * (0..bag.len()).map(slowest_s).sum::<f64>()).ceil());
    if !fits(long_s) {
        return None;
    }
    while long_s - short_s > 1.0 {
        let middle_s = f64::midpoint(short_s, long_s).floor();
        if fits(middle_s) { long_s = middle_s } else { short_s = middle_s }
    }
    Some(long_s)
}

fn promised_s(decision: &Decision) -> Option<f64> {
    decision.infeasible.first().map(|infeasible| infeasible.earliest_finish_at_s).filter(|at_s| at_s.is_finite())
}

fn run_of(deadline_s: f64, settings: &Settings) -> BagRun {
    BagRun { settings: settings.clone(), ..BagRun::calm(deadline_s) }
}

fn placed(bag: &Bag, deadline_s: f64, policy: PolicyName, queues: &[Queue]) -> Result<(PlanTable, PlanMap), NoPlan> {
    let (cost, makespan_s) = cost_and_makespan(bag, queues);
    let machines = queues.iter().map(|queue| {
        let entry = |e: &crate::hads::queue::Entry| (bag.job.tasks[e.task].id.clone(), e.start_s, e.end_s);
        PlannedMachine {
            machine: bag.env.instances[queue.kind].machine.clone(),
            market: queue.market,
            price_per_hour: bag.price_per_hour(queue.kind, queue.market),
            cores: queue.cores.iter().map(|core| core.iter().map(entry).collect()).collect(),
        }
    });
    let map = map_of(bag, deadline_s, policy, (cost, makespan_s), machines.collect());
    let spot_deadline_s = Some(cc::spot_deadline_s(bag, deadline_s)?);
    Ok((PlanTable { spot_deadline_s, ..table_of(&map, policy) }, map))
}

fn simulated(bag: &Bag, run: &BagRun, policy: PolicyName) -> Result<(PlanTable, PlanMap), NoPlan> {
    let deadline_s = run.deadline_s;
    let (outcome, fleet) = Player::new(bag, Some(policy), deadline_s)?.run(run);
    let machines = (0..fleet.machines.len()).map(|machine| planned(bag, &fleet, machine));
    let map = map_of(bag, deadline_s, policy, (outcome.cost, outcome.makespan_s), machines.collect());
    let decision = first_decision(bag, run, policy);
    let earliest_finish_s = promised_s(&decision);
    let late = (!decision.infeasible.is_empty()).then(|| {
        let most = earliest_finish_s.map(|at_s| format!("the earliest finish that can is {at_s:.0} s"));
        let most = most.unwrap_or_else(|| "there is no on-demand machine to promise anything with".to_owned());
        format!("{deadline_s:.0} s cannot be promised; {most}")
    });
    let budget = run.budget.filter(|_| policy.keeps_budgets());
    let dear = budget.filter(|budget| outcome.cost > *budget).map(|budget| match outcome.open_tasks {
        0 => format!("it costs ${:.5}, more than ${budget:.5}", outcome.cost),
        left => format!("${budget:.5} are spent with {left} of {} tasks left", bag.len()),
    });
    let over_budget = dear.is_some();
    let feasible = late.is_none() && !over_budget && outcome.late_tasks == 0;
    let reasons = late.into_iter().chain(dear).chain(decision.reasons).collect();
    let tasks_left = outcome.open_tasks;
    let table = table_of(&map, policy);
    Ok((PlanTable { budget, over_budget, tasks_left, reasons, feasible, earliest_finish_s, ..table }, map))
}

/// What one machine of a simulated fleet ran, put on cores in the order of the starts.
fn planned(bag: &Bag, fleet: &Fleet, machine: usize) -> PlannedMachine {
    let of = &fleet.machines[machine];
    let pool = &fleet.pools[of.pool].pool;
    let mut cores: Vec<Vec<(String, f64, f64)>> = vec![Vec::new(); pool.slots as usize];
    // What the end of the budget cuts short is not planned.
    let is_whole = |task: usize| fleet.tasks[task].done_at_s.is_some();
    for run in fleet.runs.iter().filter(|run| run.machine == machine && is_whole(run.task)) {
        let (start_s, end_s) = (run.started_s - of.launched_s, run.ends_s - of.launched_s);
        let free = |core: &&mut Vec<(String, f64, f64)>| core.last().is_none_or(|(_, _, end)| *end <= start_s + 1e-6);
        if let Some(core) = cores.iter_mut().find(free) {
            core.push((bag.job.tasks[run.task].id.clone(), start_s, end_s));
        }
    }
    PlannedMachine { machine: pool.machine.clone(), market: pool.market, price_per_hour: pool.price_per_hour, cores }
}

fn map_of(
    bag: &Bag,
    deadline_s: f64,
    policy: PolicyName,
    (cost, makespan_s): (f64, f64),
    machines: Vec<PlannedMachine>,
) -> PlanMap {
    let (job_id, job_name) = (bag.job.job_id.clone(), bag.job.job_name.clone());
    PlanMap { job_id, job_name, scheduler: policy.to_string(), makespan_s, cost, deadline_s, machines }
}

fn table_of(map: &PlanMap, policy: PolicyName) -> PlanTable {
    let mut fleet: Vec<FleetRow> = Vec::new();
    for market in [Lane::Spot, Lane::OnDemand] {
        for planned in map.machines.iter().filter(|planned| planned.market == market) {
            let (machine, market) = (planned.machine.clone(), market_word(market).to_owned());
            match fleet.iter_mut().find(|row| row.machine == machine && row.market == market) {
                Some(row) => row.count += 1,
                None => fleet.push(FleetRow { machine, market, count: 1 }),
            }
        }
    }
    PlanTable {
        job: map.job_id.clone(),
        policy,
        deadline_s: map.deadline_s,
        budget: None,
        over_budget: false,
        tasks_left: 0,
        makespan_s: map.makespan_s,
        cost: map.cost,
        slack_s: map.deadline_s - map.makespan_s,
        spot_deadline_s: None,
        fleet,
        reasons: Vec::new(),
        feasible: map.makespan_s <= map.deadline_s,
        earliest_finish_s: None,
    }
}
