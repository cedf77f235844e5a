//! The first plan of Burst-HADS: an iterated local search over spot machines that weighs cost against makespan, and
//! some burstable machines beside them that run a task at their baseline and save up credits to help with later.

use sheaf_core::Lane;

use super::cc::{self, NoPlan};
use super::{Bag, Queue, cost_and_makespan};
use crate::rng::Rng;

/// What the search is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Weight of the cost in dollars against the makespan as a share of D_spot. 0.5.
    pub alpha: f64,
    /// Burstable machines for each other machine, rounded up. 0.2.
    pub burstable_share: f64,
    /// Rounds of the search. 100.
    pub rounds: u32,
    /// Tries in each neighbourhood a round. 100.
    pub tries: u32,
    /// Share of the tasks the widest neighbourhood moves. 0.1.
    pub moved_share: f64,
    /// Its randomness.
    pub seed: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self { alpha: 0.5, burstable_share: 0.2, rounds: 100, tries: 100, moved_share: 0.1, seed: 1 }
    }
}

/// Rounds without a better plan before D_spot is relaxed, and by how much.
const STALE_ROUNDS: u32 = 20;
const RELAXED_BY: f64 = 1.25;

/// A plan as the search sees it: the machine of each task.
#[derive(Debug, Clone)]
struct Plan {
    machine_of: Vec<usize>,
    fitness: f64,
}

struct Searching<'a> {
    bag: &'a Bag,
    search: &'a Search,
    rng: Rng,
    /// The machines opened so far, whether tasks are left on them or not.
    machines: Vec<(usize, Lane)>,
    spot_s: f64,
    relaxed_s: f64,
    deadline_s: f64,
}

/// The plan that the search begins with. Where the spot machines that the limits allow are too few, some tasks begin on-demand.
pub fn first(bag: &Bag, deadline_s: f64) -> Result<Vec<Queue>, NoPlan> {
    cc::plan(bag, deadline_s, false).or_else(|_| cc::plan(bag, deadline_s, true))
}

/// The plan: machines with their tasks, those on burstable machines stretched to the baseline.
pub fn plan(bag: &Bag, deadline_s: f64, search: &Search) -> Result<Vec<Queue>, NoPlan> {
    let spot_s = cc::spot_deadline_s(bag, deadline_s)?;
    let first = first(bag, deadline_s)?;
    let mut machine_of = vec![0; bag.len()];
    for (machine, queue) in first.iter().enumerate() {
        queue.tasks.iter().for_each(|&task| machine_of[task] = machine);
    }
    let machines = first.iter().map(|queue| (queue.kind, queue.market)).collect();
    let rng = Rng::stream(search.seed, "ils", 0);
    let mut searching = Searching { bag, search, rng, machines, spot_s, relaxed_s: spot_s, deadline_s };
    let best = searching.run(machine_of);
    let mut queues = searching.queues(&best.machine_of);
    queues.retain(|queue| !queue.tasks.is_empty());
    add_burstable(bag, &mut queues, spot_s, deadline_s, search.burstable_share);
    Ok(queues)
}

impl Searching<'_> {
    fn run(&mut self, machine_of: Vec<usize>) -> Plan {
        let mut plan = self.rated(machine_of);
        let (mut best, mut global) = (plan.clone(), plan.clone());
        let mut stale = 0;
        for _ in 0..self.search.rounds {
            plan = self.open_machine(plan);
            if stale > STALE_ROUNDS {
                self.relaxed_s *= RELAXED_BY;
                stale = 0;
            }
            for _ in 0..self.search.tries {
                plan = self.swap_two(plan);
                plan = self.move_to_one(plan, 2);
                let moved = (self.search.moved_share * self.bag.len() as f64) as usize;
                plan = self.move_to_one(plan, moved);
            }
            stale += 1;
            if plan.fitness < best.fitness {
                best = plan.clone();
                stale = 0;
                let (cost, makespan_s) = cost_and_makespan(self.bag, &self.queues(&best.machine_of));
                if self.weigh(cost, makespan_s / self.spot_s) < global.fitness {
                    global = best.clone();
                }
            }
        }
        global
    }

    fn weigh(&self, cost: f64, makespan: f64) -> f64 {
        self.search.alpha * cost + (1.0 - self.search.alpha) * makespan
    }

    fn queues(&self, machine_of: &[usize]) -> Vec<Queue> {
        let mut queues: Vec<Queue> = self.machines.iter().map(|&(kind, m)| Queue::new(self.bag, kind, m)).collect();
        for (task, &machine) in machine_of.iter().enumerate() {
            queues[machine].insert(self.bag, task, 1.0);
        }
        queues
    }

    fn rated(&self, machine_of: Vec<usize>) -> Plan {
        let runs = |(task, machine): (usize, &usize)| self.bag.runtime_s(task, self.machines[*machine].0).is_some();
        if !machine_of.iter().enumerate().all(runs) {
            return Plan { machine_of, fitness: f64::INFINITY };
        }
        let queues = self.queues(&machine_of);
        let is_late = |queue: &Queue| {
            let until_s = if queue.market == Lane::Spot { self.relaxed_s } else { self.deadline_s };
            queue.makespan_s > until_s
        };
        let late = queues.iter().any(is_late);
        let (cost, makespan_s) = cost_and_makespan(self.bag, &queues);
        let fitness = if late { f64::INFINITY } else { self.weigh(cost, makespan_s / self.relaxed_s) };
        Plan { machine_of, fitness }
    }

    fn better(&self, plan: Plan, machine_of: Vec<usize>) -> Plan {
        let other = self.rated(machine_of);
        if other.fitness < plan.fitness { other } else { plan }
    }

    fn swap_two(&mut self, plan: Plan) -> Plan {
        let (one, other) = (self.rng.below(self.bag.len()), self.rng.below(self.bag.len()));
        let mut machine_of = plan.machine_of.clone();
        machine_of.swap(one, other);
        self.better(plan, machine_of)
    }

    fn move_to_one(&mut self, plan: Plan, tasks: usize) -> Plan {
        let machine = self.rng.below(self.machines.len());
        let mut machine_of = plan.machine_of.clone();
        for _ in 0..tasks {
            machine_of[self.rng.below(self.bag.len())] = machine;
        }
        self.better(plan, machine_of)
    }

    /// The perturbation: a new spot machine of any type takes two tasks, if the limits and the fitness allow it.
    fn open_machine(&mut self, plan: Plan) -> Plan {
        let kinds = self.bag.regular(Lane::Spot);
        if kinds.is_empty() {
            return plan;
        }
        let kind = kinds[self.rng.below(kinds.len())];
        let held = self.machines.iter().filter(|(other, _)| *other == kind).count();
        let all = self.machines.len();
        if held >= self.bag.limit(kind, Lane::Spot) as usize || all >= self.bag.env.spot_max as usize {
            return plan;
        }
        self.machines.push((kind, Lane::Spot));
        let mut machine_of = plan.machine_of.clone();
        for _ in 0..2 {
            machine_of[self.rng.below(self.bag.len())] = all;
        }
        self.better(plan, machine_of)
    }
}

/// Opens burstable machines; each takes a task, first those that spot machines would end after D_spot, then the last
/// ones of the longest queues. Where the baseline is too slow for the deadline, none is opened.
fn add_burstable(bag: &Bag, queues: &mut Vec<Queue>, spot_s: f64, deadline_s: f64, share: f64) {
    let mut late = Vec::new();
    for queue in queues.iter_mut() {
        while queue.makespan_s > spot_s {
            late.extend(queue.pop());
        }
    }
    let wanted = ((share * queues.len() as f64).ceil() as usize).max(late.len());
    for kind in bag.burstable() {
        let stretch = 1.0 / bag.env.instances[kind].baseline.unwrap_or(1.0);
        for _ in 0..bag.limit(kind, Lane::OnDemand) {
            if queues.iter().filter(|queue| bag.env.instances[queue.kind].baseline.is_some()).count() >= wanted {
                break;
            }
            let mut burstable = Queue::new(bag, kind, Lane::OnDemand);
            let longest = (0..queues.len())
                .filter(|&q| bag.env.instances[queues[q].kind].baseline.is_none() && queues[q].tasks.len() > 1)
                .max_by(|&a, &b| queues[a].makespan_s.total_cmp(&queues[b].makespan_s));
            let from_late = late.pop();
            let Some(task) = from_late.or_else(|| longest.and_then(|q| queues[q].tasks.last().copied())) else { break };
            let in_time = burstable.prospect(bag, task, stretch).is_some_and(|(_, entry)| entry.end_s < deadline_s);
            if !in_time {
                late.extend(from_late);
                break;
            }
            if from_late.is_none()
                && let Some(longest) = longest
            {
                queues[longest].pop();
            }
            burstable.insert(bag, task, stretch);
            queues.push(burstable);
        }
    }
    // What found no burstable machine goes back to where it ends first.
    for task in late {
        let end = |queue: &Queue| queue.prospect(bag, task, 1.0).map_or(f64::INFINITY, |(_, entry)| entry.end_s);
        let regular = queues.iter_mut().filter(|queue| bag.env.instances[queue.kind].baseline.is_none());
        if let Some(queue) = regular.min_by(|a, b| end(a).total_cmp(&end(b))) {
            queue.insert(bag, task, 1.0);
        }
    }
}
