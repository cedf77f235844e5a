//! Bags with a deadline: jobs × policies × scenarios × seeds.

use sheaf_scheduler::{
    PolicyName,
    sim::faults::FaultMode,
    simulate::{self, BagRow, BagSimulation, BagTable, MeanRow, Scenario},
};

use super::{Cores, Simulate, write_csv};
use crate::{
    bags::{check_budget, nothing_to_do},
    exit::Exit,
    output::{Format, Printer, Row},
    problem::Outcome,
    progress::Steps,
    settings::Settings,
};

const fn policy(policy: Option<PolicyName>) -> &'static str {
    match policy {
        Some(policy) => policy.as_str(),
        None => "on-demand",
    }
}

const fn mode(mode: FaultMode) -> &'static str {
    match mode {
        FaultMode::Together => "together",
        FaultMode::Each => "each",
    }
}

/// What went wrong in a row.
fn faults(row: &BagRow) -> String {
    match (&row.trace, row.mode, row.scenario) {
        (Some(trace), ..) => trace.clone(),
        (None, Some(of), Some((faults, resumes))) => format!("{} ({faults},{resumes})", mode(of)),
        _ => "none".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

impl Row for BagRow {
    const COLUMNS: &'static [&'static str] = &[
        "JOB",
        "POLICY",
        "FAULTS",
        ">COST $",
        ">OF ON-DEMAND",
        ">MAKESPAN S",
        ">LONGEST S",
        ">RECLAIMS",
        ">WASTED S",
        ">SPOT",
        ">ON-DEMAND",
        ">MISSES",
        "PUBLISHED",
    ];

    fn id(&self) -> String {
        self.job.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.job.clone(),
            policy(self.policy).to_owned(),
            faults(self),
            format!("{:.4}", self.cost),
            self.of_on_demand.map(percent).unwrap_or_default(),
            format!("{:.0}", self.makespan_s),
            format!("{:.0}", self.makespan_max_s),
            format!("{:.1}", self.reclaims),
            format!("{:.0}", self.wasted_s),
            format!("{:.1}", self.machines.0),
            format!("{:.1}", self.machines.1),
            format!("{} of {}", self.misses, self.runs),
            self.published.map(|(cost, makespan_s)| format!("${cost} in {makespan_s} s")).unwrap_or_default(),
        ]
    }
}

impl Row for MeanRow {
    const COLUMNS: &'static [&'static str] = &["POLICY", "FAULTS", ">CELLS", ">OF ON-DEMAND", ">PUBLISHED", ">MISSES"];

    fn id(&self) -> String {
        self.policy.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.policy.to_string(),
            self.mode.map_or("traces", mode).to_owned(),
            self.cells.to_string(),
            percent(self.of_on_demand),
            self.published.map(percent).unwrap_or_default(),
            format!("{} of {}", self.misses, self.runs),
        ]
    }
}

pub(super) fn run(arguments: &Simulate, settings: &Settings) -> Outcome {
    let entries = arguments.bag.read()?;
    let Some(first) = entries.first() else { return Err(nothing_to_do()) };
    let mut scenarios = arguments.faults.scenarios(&first.bag.env)?;
    if scenarios.is_empty() {
        scenarios = arguments.faults.published();
    } else {
        scenarios.insert(0, Scenario::Calm);
    }
    let (deadline_s, budget) = (arguments.deadline, arguments.budget);
    let mut simulation = BagSimulation { deadline_s, budget, scenarios, ..arguments.faults.simulation() };
    if !arguments.policy.is_empty() {
        simulation.policies = arguments.policy.clone();
    }
    check_budget(budget, &simulation.policies)?;
    let steps = Steps::new(settings);
    let table = simulate::bags(&entries, &simulation, &Cores(&steps));
    steps.finish();
    if let Some(path) = &arguments.csv {
        write_csv(path, &HEADING, table.rows.iter().map(csv_row))?;
    }
    print(&table, settings)
}

fn print(table: &BagTable, settings: &Settings) -> Outcome {
    let printer = Printer(settings.output);
    printer.list(&table.rows)?;
    let means = simulate::means(&table.rows);
    if printer.0 == Format::Table && !means.is_empty() {
        println!("\nMean over the cells with faults:");
        printer.list(&means)?;
    }
    for refusal in &table.refused {
        eprintln!("{} has no plan for {}: {}", policy(refusal.policy), refusal.job, refusal.because);
    }
    // What was asked for and has no row at all was not done.
    Ok(if table.refused.iter().any(|refusal| refusal.policy.is_some()) { Exit::Failed } else { Exit::Succeeded })
}

const HEADING: [&str; 16] = [
    "job",
    "policy",
    "mode",
    "faults_expected",
    "returns_expected",
    "trace",
    "runs",
    "cost_usd",
    "of_on_demand",
    "makespan_s",
    "makespan_max_s",
    "reclaims",
    "wasted_s",
    "spot_machines",
    "on_demand_machines",
    "misses",
];

fn csv_row(row: &BagRow) -> Vec<String> {
    let of = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    vec![
        row.job.clone(),
        policy(row.policy).to_owned(),
        row.mode.map(mode).unwrap_or_default().to_owned(),
        of(row.scenario.map(|pair| pair.0)),
        of(row.scenario.map(|pair| pair.1)),
        row.trace.clone().unwrap_or_default(),
        row.runs.to_string(),
        row.cost.to_string(),
        of(row.of_on_demand),
        row.makespan_s.to_string(),
        row.makespan_max_s.to_string(),
        row.reclaims.to_string(),
        row.wasted_s.to_string(),
        row.machines.0.to_string(),
        row.machines.1.to_string(),
        row.misses.to_string(),
    ]
}
