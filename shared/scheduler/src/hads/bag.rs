//! A job and the machine types it may run on, resolved against each other.

use sheaf_core::Lane;

use crate::formats::FormatError;
use crate::formats::env::Env;
use crate::formats::job::Job;

/// A bag of tasks with the machine types there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Bag {
    /// The tasks.
    pub job: Job,
    /// The types.
    pub env: Env,
    /// Seconds by task and type, NaN where a task has no run time on a type.
    runtime_s: Vec<f64>,
}

impl Bag {
    /// Resolves `job` against `env`. Each task needs a run time on at least one of the types.
    pub fn new(job: Job, env: Env) -> Result<Self, FormatError> {
        let types = env.instances.len();
        let mut runtime_s = vec![f64::NAN; job.tasks.len() * types];
        for (number, task) in job.tasks.iter().enumerate() {
            let mut any = false;
            for (machine, seconds) in &task.runtime_s {
                if let Some(kind) = env.find(machine) {
                    runtime_s[number * types + kind] = *seconds;
                    any = true;
                }
            }
            if !any {
                let place = format!("tasks.{}.runtime", task.id);
                return Err(FormatError::new(place, "expected a machine type that env.json has"));
            }
        }
        Ok(Self { job, env, runtime_s })
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.job.tasks.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.job.tasks.is_empty()
    }

    /// Seconds `task` takes on type `kind`, if it runs there.
    pub fn runtime_s(&self, task: usize, kind: usize) -> Option<f64> {
        Some(self.runtime_s[task * self.env.instances.len() + kind]).filter(|seconds| !seconds.is_nan())
    }

    /// True when every task runs on type `kind`.
    pub fn all_run_on(&self, kind: usize) -> bool {
        (0..self.len()).all(|task| self.runtime_s(task, kind).is_some())
    }

    /// Dollars an hour for type `kind`.
    pub fn price_per_hour(&self, kind: usize, market: Lane) -> f64 {
        let instance = &self.env.instances[kind];
        if market == Lane::Spot { instance.spot_price } else { instance.on_demand_price }
    }

    /// The types without burstable ones that are open on `market`, in the order of the file.
    pub fn regular(&self, market: Lane) -> Vec<usize> {
        let kinds = 0..self.env.instances.len();
        let open = |kind: &usize| self.env.instances[*kind].baseline.is_none() && self.limit(*kind, market) > 0;
        kinds.filter(open).collect()
    }

    /// The burstable types, always on-demand.
    pub fn burstable(&self) -> Vec<usize> {
        let kinds = 0..self.env.instances.len();
        let open = |kind: &usize| self.env.instances[*kind].baseline.is_some() && self.limit(*kind, Lane::OnDemand) > 0;
        kinds.filter(open).collect()
    }

    /// Machines of type `kind` at most on `market`.
    pub fn limit(&self, kind: usize, market: Lane) -> u32 {
        let instance = &self.env.instances[kind];
        if market == Lane::Spot { instance.spot_max } else { instance.on_demand_max }
    }
}
