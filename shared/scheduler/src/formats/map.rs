//! map.json: which task runs when on which core of which machine, as HADS writes it.

use serde_json::{Map, Value, json};
use sheaf_core::Lane;

/// One machine of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMachine {
    /// Its type.
    pub machine: String,
    /// Its market: spot or on-demand.
    pub market: Lane,
    /// Dollars an hour.
    pub price_per_hour: f64,
    /// The tasks of each core: id, start and end in seconds from the machine's start, in order.
    pub cores: Vec<Vec<(String, f64, f64)>>,
}

/// A plan to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanMap {
    /// The job.
    pub job_id: String,
    /// Its name.
    pub job_name: String,
    /// The policy that planned.
    pub scheduler: String,
    /// When the last task ends.
    pub makespan_s: f64,
    /// Dollars.
    pub cost: f64,
    /// Seconds there are.
    pub deadline_s: f64,
    /// The machines.
    pub machines: Vec<PlannedMachine>,
}

/// The word HADS has for a market.
pub(crate) fn market_word(market: Lane) -> &'static str {
    match market {
        Lane::Spot => "preemptible",
        Lane::OnDemand => "on-demand",
        Lane::Lambda => "lambda",
    }
}

impl PlanMap {
    /// The plan as a map.json. Machines are called `id0`, `id1` and so on.
    pub fn to_json(&self) -> Value {
        let instances = self.machines.iter().enumerate().map(|(number, machine)| {
            let cores = machine.cores.iter().enumerate().map(|(core, tasks)| {
                let tasks = tasks.iter().map(|(id, start, end)| (id.clone(), json!({"start": start, "end": end})));
                (format!("vcpu_{core}"), Value::Object(tasks.collect()))
            });
            let fields = json!({"type": machine.machine, "market": market_word(machine.market),
                "price": machine.price_per_hour, "map": cores.collect::<Map<_, _>>()});
            (format!("id{number}"), fields)
        });
        json!({"job_id": self.job_id, "job_name": self.job_name, "scheduler": self.scheduler,
            "expected_makespan": self.makespan_s, "expected_cost": self.cost, "deadline": self.deadline_s,
            "instances": instances.collect::<Map<_, _>>()})
    }
}
