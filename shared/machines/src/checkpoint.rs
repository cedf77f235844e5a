//! How often checkpoints pay, asked before the work begins.

use sheaf_scheduler::{Demand, Memory, Policy, Snapshot};

use crate::fleet::{FleetSpec, PRIOR_PER_HOUR};

impl FleetSpec {
    /// Seconds of the plan between two checkpoints that a policy thinks best for the pool that needs them most, while all
    /// that is known of reclaims is what is believed of them beforehand. `None` if it says nothing of checkpoints, or no pool
    /// loses machines.
    pub fn checkpoint_every_s(&self, policy: &dyn Policy) -> Option<f64> {
        let work_s: f64 = self.tasks_s.iter().sum();
        let demand = Demand {
            job: self.job.clone(),
            waiting_tasks: self.tasks_s.len() as u64,
            waiting_s: work_s,
            uncommitted_s: work_s,
            longest_s: self.tasks_s.iter().copied().fold(0.0, f64::max),
            deadline_at_s: Some(self.deadline_s),
            sealed: true,
            ..Demand::default()
        };
        let mut pools: Vec<_> = self.pools.iter().map(|spec| spec.pool.clone()).collect();
        pools.iter_mut().for_each(|pool| pool.reclaims_per_hour = PRIOR_PER_HOUR);
        let snapshot = Snapshot { now_s: 0.0, demands: vec![demand], pools, machines: Vec::new() };
        let every_s = policy.decide(&snapshot, &mut Memory::default()).checkpoint_every_s;
        every_s.into_iter().flatten().min_by(f64::total_cmp)
    }
}
