//! The first plan of HADS: the tasks with the most memory first, each to the machine that is done soonest and still in
//! time, else to a new spot machine whose type comes by weighted round-robin, else to a new on-demand machine.
//!
//! Spot machines have to be done by D_spot, before the deadline by a slack: the time in which a share of the tasks, one
//! for each on-demand machine there may be, runs again on the cheapest type.

use sheaf_core::Lane;

use super::round_robin::RoundRobin;
use super::{Bag, Queue};

/// A bag that cannot be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoPlan {
    /// A task fits no machine that may be started.
    #[error("no machine within the limits ends task {task} of job {job} in {deadline_s} s")]
    Deadline {
        /// The job.
        job: String,
        /// The task.
        task: String,
        /// The seconds there are.
        deadline_s: f64,
    },
    /// The environment has no type for the bag.
    #[error("no machine type in env.json runs every task of job {job}")]
    NoType {
        /// The job.
        job: String,
    },
}

/// D_spot: the time by which spot machines must be done.
pub fn spot_deadline_s(bag: &Bag, deadline_s: f64) -> Result<f64, NoPlan> {
    let kinds = (0..bag.env.instances.len()).filter(|&kind| bag.all_run_on(kind));
    let price = |kind: &usize| bag.price_per_hour(*kind, Lane::OnDemand);
    let cheapest = kinds.min_by(|a, b| price(a).total_cmp(&price(b)));
    let kind = cheapest.ok_or_else(|| NoPlan::NoType { job: bag.job.job_id.clone() })?;
    let mut tasks: Vec<usize> = (0..bag.len()).collect();
    let runtime_s = |task: usize| bag.runtime_s(task, kind).unwrap_or(f64::INFINITY);
    tasks.sort_by(|&a, &b| runtime_s(a).total_cmp(&runtime_s(b)));
    let share = tasks.len().div_ceil(bag.env.on_demand_max.max(1) as usize);
    let mut queue = Queue::new(bag, kind, Lane::OnDemand);
    for &task in &tasks[..share] {
        queue.insert(bag, task, 1.0);
    }
    Ok((deadline_s - queue.makespan_s).max(0.0))
}

/// The tasks of `bag`, most memory first, ties in the order of the file.
pub(super) fn by_memory(bag: &Bag) -> Vec<usize> {
    let mut tasks: Vec<usize> = (0..bag.len()).collect();
    tasks.sort_by(|&a, &b| bag.job.tasks[b].memory_mb.total_cmp(&bag.job.tasks[a].memory_mb));
    tasks
}

/// The first plan. `on_demand` false leaves the on-demand market out, as Burst-HADS does.
pub fn plan(bag: &Bag, deadline_s: f64, on_demand: bool) -> Result<Vec<Queue>, NoPlan> {
    let spot_s = spot_deadline_s(bag, deadline_s)?;
    let spot = bag.regular(Lane::Spot);
    let ranked: Vec<_> = spot.iter().map(|&kind| (kind, bag.env.instances[kind].rank())).collect();
    let mut turns = RoundRobin::by_rank(&ranked);
    let mut stable = if on_demand { bag.regular(Lane::OnDemand) } else { Vec::new() };
    stable.sort_by(|&a, &b| bag.price_per_hour(a, Lane::OnDemand).total_cmp(&bag.price_per_hour(b, Lane::OnDemand)));
    // HADS counts a type's machines over both markets.
    let mut held = vec![0u32; bag.env.instances.len()];
    let mut queues: Vec<Queue> = Vec::new();
    let limit_s = |market: Lane| if market == Lane::Spot { spot_s } else { deadline_s };
    for task in by_memory(bag) {
        queues.sort_by(|a, b| a.makespan_s.total_cmp(&b.makespan_s));
        let in_time = |queue: &Queue| {
            queue.prospect(bag, task, 1.0).is_some_and(|(_, entry)| entry.end_s < limit_s(queue.market))
        };
        if let Some(queue) = queues.iter_mut().find(|queue| in_time(queue)) {
            queue.insert(bag, task, 1.0);
            continue;
        }
        // Each refusal moves the round on, as published: what comes next depends on it.
        let mut opened = None;
        for turn in 0..spot.len() + stable.len() {
            let offer = match turn.checked_sub(spot.len()) {
                None => turns.next().map(|kind| (kind, Lane::Spot)),
                Some(next) => Some((stable[next], Lane::OnDemand)),
            };
            let Some((kind, market)) = offer else { continue };
            let queue = Queue::new(bag, kind, market);
            if held[kind] < bag.limit(kind, market) && in_time(&queue) {
                opened = Some(queue);
                break;
            }
        }
        let Some(mut queue) = opened else {
            let (job, task) = (bag.job.job_id.clone(), bag.job.tasks[task].id.clone());
            return Err(NoPlan::Deadline { job, task, deadline_s });
        };
        queue.insert(bag, task, 1.0);
        held[queue.kind] += 1;
        queues.push(queue);
    }
    Ok(queues)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::env::Env;
    use crate::formats::job::Job;

    /// Two types of one core: `slow` costs 1 on spot and 3 on-demand, `fast` 2 and 6, twice as fast. Tasks of 100 s on
    /// the slow one.
    fn bag(tasks: usize, spot_max: u32) -> Bag {
        let tasks: serde_json::Map<_, _> = (0..tasks)
            .map(|i| (i.to_string(), serde_json::json!({"memory": 1, "runtime": {"slow": 100, "fast": 50}})))
            .collect();
        let job = serde_json::json!({"job_id": "b", "tasks": tasks}).to_string();
        let kind = |gflops: f64, on_demand: f64, spot: f64| {
            serde_json::json!({"vcpu": 1, "memory": 1, "gflops": gflops, "prices": {"on-demand": on_demand,
                "preemptible": spot}, "restrictions": {"limits": {"on-demand": 3, "preemptible": spot_max}}})
        };
        let env = serde_json::json!({"instances": {"fast": kind(6.0, 6.0, 2.0), "slow": kind(2.0, 3.0, 1.0)},
            "global_limits": {"ec2": {"on-demand": 4, "preemptible": 4}}})
        .to_string();
        Bag::new(Job::parse(&job).unwrap(), Env::parse(&env).unwrap()).unwrap()
    }

    #[test]
    fn the_slack_is_a_share_of_the_tasks_on_the_cheapest_type() {
        // 8 tasks over 4 on-demand machines are 2 each: 200 s on the slow type.
        assert_eq!(spot_deadline_s(&bag(8, 4), 1000.0), Ok(800.0));
        assert_eq!(spot_deadline_s(&bag(9, 4), 1000.0), Ok(700.0));
    }

    #[test]
    fn spot_is_filled_to_its_deadline_before_another_machine_is_opened() {
        // D_spot is 450 − 200 = 250: four tasks end on `fast` before it, then two on the second `fast` of its three
        // turns; both tasks of the slack of 8 on 4 machines count.
        let queues = plan(&bag(8, 4), 450.0, true).unwrap();
        let shape: Vec<_> = queues.iter().map(|q| (q.kind, q.market, q.tasks.len(), q.makespan_s)).collect();
        assert_eq!(shape, [(0, Lane::Spot, 4, 200.0), (0, Lane::Spot, 4, 200.0)]);
        let (cost, makespan_s) = crate::hads::cost_and_makespan(&bag(8, 4), &queues);
        assert_eq!((cost, makespan_s), (2.0 * 200.0 * 2.0 / 3600.0, 200.0));
    }

    #[test]
    fn where_spot_is_closed_on_demand_takes_over_cheapest_first() {
        let queues = plan(&bag(8, 0), 450.0, true).unwrap();
        let shape: Vec<_> = queues.iter().map(|q| (q.kind, q.market, q.tasks.len())).collect();
        assert_eq!(shape, [(1, Lane::OnDemand, 4), (1, Lane::OnDemand, 4)]);
        let refused = plan(&bag(8, 0), 90.0, true).unwrap_err().to_string();
        assert_eq!(refused, "no machine within the limits ends task 3 of job b in 90 s");
    }
}
