//! `sheaf plan`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use sheaf_api::Code;
use sheaf_scheduler::{
    PolicyName, Settings as Told,
    formats::map::PlanMap,
    hads::NoPlan,
    plan::{self, FleetRow, PlanTable},
    simulate::{self, BagRow, Entry},
};

use crate::{
    bags::{BagArgs, check_budget, parse_dollars, parse_policy, parse_seconds},
    commands::simulate::{Cores, FaultArgs},
    exit::Exit,
    output::{self, Printer, facts},
    problem::{Outcome, Problem},
    progress::Steps,
    settings::Settings,
    text,
};

/// Say which machines would do a bag of tasks by a deadline, and what they cost
///
/// No machine is started: it is a plan. With --scenario it is also put through faults, as `sheaf simulate` does.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    asked: PlanArgs,
    /// Dollars that the bag may cost at most. When they are spent, nothing more is started, and what runs is given two minutes
    #[arg(long, value_name = "DOLLARS", value_parser = parse_dollars, allow_hyphen_values = true)]
    budget: Option<f64>,
    /// Write the plan as a map.json: which task runs when on which core of which machine
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    #[command(flatten)]
    faults: FaultArgs,
}

/// What a plan is asked for.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub(super) bag: BagArgs,
    /// Seconds there are, or a time such as 45m
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(super) deadline: f64,
    /// Who plans: sheaf, hads-cc, burst-hads, fixed, or a rule for elastic workers
    #[arg(long, default_value = "sheaf", value_parser = parse_policy)]
    pub(super) policy: PolicyName,
}

impl PlanArgs {
    /// Plans a bag, which need not keep deadline and budget; if there is no plan at all, says what would help.
    pub(super) fn plan(&self, entry: &Entry, budget: Option<f64>) -> Outcome<(PlanTable, PlanMap)> {
        let told = Told::default();
        let plan = plan::plan(&entry.bag, self.deadline, budget, self.policy, &told);
        let (mut table, map) = plan.map_err(|no_plan| {
            let earliest_s = plan::earliest_finish_s(&entry.bag, self.deadline, self.policy, &told);
            refused(&entry.name, self.policy, &no_plan, earliest_s)
        })?;
        table.job.clone_from(&entry.name);
        Ok((table, map))
    }
}

/// A plan, and what faults make of it.
#[derive(Debug, Serialize)]
struct Planned {
    #[serde(flatten)]
    table: PlanTable,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    under_faults: Vec<BagRow>,
}

impl Plan {
    pub(crate) fn run(&self, settings: &Settings) -> Outcome {
        check_budget(self.budget, &[self.asked.policy])?;
        let entry = self.asked.bag.read_one()?;
        let (table, map) = self.asked.plan(&entry, self.budget)?;
        let whole = if table.over_budget { Some(self.asked.plan(&entry, None)?.0) } else { None };
        if let Some(path) = &self.map {
            write_map(path, &map)?;
        }
        let scenarios = self.faults.scenarios(&entry.bag.env)?;
        let mut under_faults = Vec::new();
        if !scenarios.is_empty() {
            let simulation = simulate::BagSimulation {
                deadline_s: self.asked.deadline,
                budget: self.budget,
                scenarios,
                policies: vec![self.asked.policy],
                ..self.faults.simulation()
            };
            let steps = Steps::new(settings);
            under_faults = simulate::bags(&[entry], &simulation, &Cores(&steps)).rows;
            under_faults.retain(|row| row.policy.is_some());
            steps.finish();
        }
        let planned = Planned { table, under_faults };
        Printer(settings.output).one(&planned, &planned.table.job, || describe(&planned, self.map.as_ref()))?;
        match whole {
            _ if planned.table.feasible => Ok(Exit::Succeeded),
            Some(whole) => Err(dear(&planned.table, &whole)),
            None => Err(late(&planned.table)),
        }
    }
}

pub(super) fn write_map(path: &std::path::Path, map: &PlanMap) -> Outcome<()> {
    let text = format!("{:#}\n", map.to_json());
    std::fs::write(path, text).map_err(|error| Problem::file("written", path, error))
}

/// There is no plan to show.
fn refused(job: &str, policy: PolicyName, no_plan: &NoPlan, earliest_s: Option<f64>) -> Problem {
    let problem =
        Problem::new(Code::Invalid, format!("{policy} has no plan for {job}: {no_plan}")).with_code("infeasible");
    problem.with_hint(match (no_plan, earliest_s) {
        (NoPlan::Deadline { .. }, Some(at_s)) => {
            format!("the earliest finish it can plan is {at_s:.0} s: give --deadline {at_s:.0}, or raise the limits in env.json")
        }
        (NoPlan::Deadline { task, .. }, None) => {
            format!("no deadline is long enough: compare the memory of task {task} and its machine types with env.json, and look at its limits")
        }
        (NoPlan::NoType { .. }, _) => {
            "give every task a run time on one machine type that env.json has, or take --policy sheaf".to_owned()
        }
    })
}

/// The plan that was shown does not keep the deadline.
fn late(table: &PlanTable) -> Problem {
    let message = format!("{} cannot be promised by {:.0} s under {}", table.job, table.deadline_s, table.policy);
    let problem = Problem::new(Code::Invalid, message).with_code("infeasible");
    problem.with_hint(match table.earliest_finish_s {
        Some(at_s) => format!("give --deadline {:.0}, or raise the limits in env.json", at_s.ceil()),
        None => "raise the limits in env.json, or take another policy".to_owned(),
    })
}

/// The plan that was shown does not keep the budget.
fn dear(table: &PlanTable, whole: &PlanTable) -> Problem {
    let budget = table.budget.unwrap_or_default();
    let message = format!("{} cannot be done for ${budget:.5} under {}", table.job, table.policy);
    let in_time = if whole.feasible { "in time" } else { "and not surely in time" };
    Problem::new(Code::Invalid, message)
        .with_code("infeasible")
        .with_hint(format!("without a budget it is done for ${:.5}, {in_time}", whole.cost))
}

/// What a budget comes to: how many tasks are left when it is spent, if any are.
pub(super) fn budget_kept(budget: Option<f64>, cost: f64, tasks_left: u64) -> String {
    let Some(budget) = budget else { return String::new() };
    let kept = match tasks_left {
        _ if cost <= budget => "kept".to_owned(),
        0 => "exceeded".to_owned(),
        left => format!("spent with {} left", text::counted(left, "task")),
    };
    format!("${budget:.5}, {kept}")
}

fn describe(planned: &Planned, map: Option<&PathBuf>) -> String {
    let table = &planned.table;
    let seconds = |seconds: f64| format!("{seconds:.0} s");
    let machines = |row: &FleetRow| {
        let market = if row.market == "preemptible" { "spot" } else { &row.market };
        format!("{} × {} {market}", row.count, row.machine)
    };
    let fleet: Vec<_> = table.fleet.iter().map(machines).collect();
    let mut shown = facts(&[
        ("job", table.job.clone()),
        ("policy", table.policy.to_string()),
        ("deadline", seconds(table.deadline_s)),
        ("makespan", seconds(table.makespan_s)),
        ("slack", seconds(table.slack_s)),
        ("cost", format!("${:.5}", table.cost)),
        ("budget", budget_kept(table.budget, table.cost, table.tasks_left)),
        ("fleet", fleet.join(", ")),
        ("spot until", table.spot_deadline_s.map(seconds).unwrap_or_default()),
        ("map", map.map(|path| path.display().to_string()).unwrap_or_default()),
    ]);
    for reason in &table.reasons {
        shown += &format!("  {reason}\n");
    }
    if !planned.under_faults.is_empty() {
        shown += &format!("\n{}\n", output::table(&planned.under_faults));
    }
    shown
}
