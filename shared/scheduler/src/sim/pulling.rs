//! A [`Policy`] driving a simulated fleet whose workers take the next task themselves, as those of the grid do.
//!
//! At each event: free slots take waiting tasks, the policy is asked, its wants are launched and its drains carried
//! out, and free slots of machines that stay take the second copies it allows. What a reclaim rolls back waits again.

use std::collections::BTreeSet;

use sheaf_core::Lane;

use super::fleet::{Controller, Fleet, MachineState, News};
use crate::policies::measured_rate;
use crate::{Activity, Decision, Demand, Machine, Memory, Policy, Snapshot};

/// Which waiting task goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The longest: a bag is then done soonest.
    LongestFirst,
    /// The one that arrived first.
    FirstComeFirstServed,
}

/// What is believed of reclaims before any was seen: one an hour, as if seen for half an hour.
const PRIOR_PER_HOUR: f64 = 1.0;
const PRIOR_HOURS: f64 = 0.5;

/// The controller.
pub struct Pulling<'a> {
    policy: &'a dyn Policy,
    memory: Memory,
    order: Order,
    period_s: f64,
    /// What is the same in every demand: deadline, latency target, the budget as a whole, whether more can arrive.
    demand: Demand,
    /// The tasks that wait: sort key, then number.
    waiting: BTreeSet<(u64, usize)>,
    waiting_s: f64,
    arrived: u64,
    to_arrive: usize,
    every_s: Vec<Option<f64>>,
    /// The last answer.
    pub last: Decision,
    /// The first answer that called the deadline infeasible.
    pub infeasible: Option<Decision>,
    /// Decisions asked for.
    pub decisions: u64,
}

impl<'a> Pulling<'a> {
    /// A controller for a fleet with `tasks` tasks. `demand` carries the job's deadline, latency target and
    /// budget, and whether it is sealed once its last task arrived.
    pub fn new(policy: &'a dyn Policy, demand: Demand, order: Order, period_s: f64, tasks: usize) -> Self {
        Self {
            policy,
            memory: Memory::default(),
            order,
            period_s,
            demand,
            waiting: BTreeSet::new(),
            waiting_s: 0.0,
            arrived: 0,
            to_arrive: tasks,
            every_s: Vec::new(),
            last: Decision::default(),
            infeasible: None,
            decisions: 0,
        }
    }

    /// Seconds of `task` on a slot of speed 1: type 0's, or the first there is.
    fn work_s(fleet: &Fleet, task: usize) -> f64 {
        fleet.specs[task].runtime_s.iter().flatten().next().copied().unwrap_or(0.0)
    }

    fn left_s(fleet: &Fleet, task: usize) -> f64 {
        Self::work_s(fleet, task) * (1.0 - fleet.tasks[task].saved)
    }

    fn key(&self, fleet: &Fleet, task: usize) -> (u64, usize) {
        match self.order {
            // The bits of a positive number sort as it does; inverted, the longest comes first.
            Order::LongestFirst => (!Self::left_s(fleet, task).to_bits(), task),
            Order::FirstComeFirstServed => (fleet.specs[task].arrives_s.to_bits(), task),
        }
    }

    fn wait(&mut self, fleet: &Fleet, task: usize) {
        if self.waiting.insert(self.key(fleet, task)) {
            self.waiting_s += Self::left_s(fleet, task);
        }
    }

    /// Fills free slots with waiting tasks.
    fn dispatch(&mut self, fleet: &mut Fleet) {
        for machine in fleet.live().to_vec() {
            let pool = fleet.machines[machine].pool;
            let every_s = self.every_s.get(pool).copied().flatten();
            let mut passed_over = None;
            while fleet.free(machine).0 > 0 {
                let after = passed_over.map_or(self.waiting.first(), |key| {
                    self.waiting.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded)).next()
                });
                let Some(&(key, task)) = after else { break };
                let left_s = Self::left_s(fleet, task);
                if fleet.start(task, machine, every_s, 1.0) {
                    self.waiting.remove(&(key, task));
                    self.waiting_s -= left_s;
                } else {
                    passed_over = Some((key, task));
                }
            }
        }
    }

    fn snapshot(&mut self, fleet: &Fleet) -> Snapshot {
        let now_s = fleet.now_s;
        let live = fleet.live().iter();
        let machines =
            live.map(|&id| Machine { id: id as u64, pool: fleet.machines[id].pool, activity: activity(fleet, id) });
        let pools = fleet.pools.iter().enumerate().map(|(number, spec)| {
            let mut pool = spec.pool.clone();
            if pool.market == Lane::Spot {
                let hours = fleet.machine_s(|other| other == number) / 3600.0;
                pool.reclaims_per_hour = measured_rate(fleet.reclaims[number], hours, PRIOR_PER_HOUR, PRIOR_HOURS);
            }
            pool
        });
        let mut demand = Demand {
            waiting_tasks: self.waiting.len() as u64,
            arrived_tasks: self.arrived,
            waiting_s: self.waiting_s.max(0.0),
            sealed: self.demand.sealed && self.to_arrive == 0,
            budget_left: self.demand.budget_left.map(|budget| budget - fleet.cost()),
            ..self.demand.clone()
        };
        let (running, left) = running(fleet);
        demand.running_tasks = running;
        demand.uncommitted_s = demand.waiting_s + left.iter().map(|(_, left_s)| left_s).sum::<f64>();
        // Sorted by length, the first is the longest; of a stream, whose queue is short, all are looked at.
        let looked_at = if self.order == Order::LongestFirst { 1 } else { usize::MAX };
        let waiting = self.waiting.iter().take(looked_at).map(|&(_, task)| Self::left_s(fleet, task));
        demand.longest_s = waiting.chain(left.iter().map(|(_, left_s)| *left_s)).fold(0.0, f64::max);
        Snapshot { now_s, demands: vec![demand], pools: pools.collect(), machines: machines.collect() }
    }

    fn carry_out(&mut self, fleet: &mut Fleet, decision: Decision) {
        for drain in &decision.drains {
            let machine = drain.machine as usize;
            if fleet.machines[machine].runs.is_empty() {
                fleet.stop(machine);
            } else {
                fleet.drain(machine, drain.give_s);
            }
        }
        for want in &decision.wants {
            let of_pool = |machine: &&usize| {
                let machine = &fleet.machines[**machine];
                machine.pool == want.pool && machine.is_held() && !machine.draining
            };
            let held = fleet.live().iter().filter(of_pool).count();
            for _ in held..want.machines as usize {
                if fleet.launch(want.pool).is_none() {
                    break;
                }
            }
        }
        let copies = decision.hedges.iter().map(|hedge| hedge.copies).sum();
        hedge(fleet, copies);
        if !decision.infeasible.is_empty() && self.infeasible.is_none() {
            self.infeasible = Some(decision.clone());
        }
        self.every_s.clone_from(&decision.checkpoint_every_s);
        self.last = decision;
    }
}

impl Controller for Pulling<'_> {
    fn period_s(&self) -> f64 {
        self.period_s
    }

    /// The budget is spent and the last machine has ended: nothing starts another.
    fn gives_up(&self, fleet: &Fleet) -> bool {
        self.demand.budget_left.is_some_and(|budget| fleet.live().is_empty() && fleet.cost() >= budget)
    }

    fn act(&mut self, fleet: &mut Fleet, news: &[News]) {
        for item in news {
            match item {
                News::Arrived(task) => {
                    self.arrived += 1;
                    self.to_arrive -= 1;
                    self.wait(fleet, *task);
                }
                News::Lost { tasks, .. } => {
                    let orphans = |task: &&usize| fleet.tasks[**task].runs.is_empty();
                    tasks.iter().filter(orphans).for_each(|&task| self.wait(fleet, task));
                }
                News::Finished { machine, .. } => {
                    let of = &fleet.machines[*machine];
                    if of.draining && of.runs.is_empty() && of.state == MachineState::Up {
                        fleet.stop(*machine);
                    }
                }
                News::Ready(_) | News::Resumed(_) | News::Tick => {}
            }
        }
        self.dispatch(fleet);
        // A machine that took its next task changes nothing a policy would act on before the period is over.
        let only_finished = news.iter().all(|item| matches!(item, News::Finished { .. } | News::Ready(_)));
        let idle = fleet.live().iter().any(|&machine| matches!(activity(fleet, machine), Activity::Idle { .. }));
        if only_finished && !idle {
            return;
        }
        let snapshot = self.snapshot(fleet);
        let decision = self.policy.decide(&snapshot, &mut self.memory);
        self.decisions += 1;
        self.arrived = 0;
        self.carry_out(fleet, decision);
    }
}

fn activity(fleet: &Fleet, machine: usize) -> Activity {
    let of = &fleet.machines[machine];
    let slots = of.runs.len() as u32;
    match of.state {
        MachineState::Booting => Activity::Booting { since_s: of.since_s },
        MachineState::Hibernated | MachineState::Gone => Activity::Hibernated { since_s: of.since_s },
        MachineState::Up if of.draining => Activity::Draining { slots },
        MachineState::Up if slots > 0 => Activity::Leased { slots },
        MachineState::Up => Activity::Idle { since_s: of.since_s },
    }
}

/// Tasks that run, and the work left in each: from its checkpoint if its machine can vanish, else what is left to run.
fn running(fleet: &Fleet) -> (u64, Vec<(usize, f64)>) {
    let mut left: Vec<(usize, f64)> = Vec::new();
    for &machine in fleet.live() {
        let pool = &fleet.pools[fleet.machines[machine].pool].pool;
        for &run in &fleet.machines[machine].runs {
            let run = &fleet.runs[run];
            let redo_s = Pulling::left_s(fleet, run.task);
            let left_s = if pool.market == Lane::Spot {
                // What the checkpoints written so far would save.
                redo_s * (1.0 - run.saved(fleet.now_s)) / (1.0 - fleet.tasks[run.task].saved).max(1e-9)
            } else {
                ((run.ends_s - fleet.now_s) * pool.speed).min(redo_s)
            };
            left.push((run.task, left_s));
        }
    }
    // Of two copies, the one with less left counts.
    left.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    left.dedup_by_key(|(task, _)| *task);
    (left.len() as u64, left)
}

/// Starts up to `copies` second copies of tasks that only run where they can be lost, longest remaining first.
fn hedge(fleet: &mut Fleet, copies: u64) {
    if copies == 0 {
        return;
    }
    let stays = |fleet: &Fleet, machine: usize| fleet.pools[fleet.machines[machine].pool].pool.market == Lane::OnDemand;
    let (_, mut left) = running(fleet);
    left.retain(|(task, _)| fleet.tasks[*task].runs.iter().all(|&run| !stays(fleet, fleet.runs[run].machine)));
    left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    left.truncate(copies as usize);
    let mut left = left.into_iter().peekable();
    for machine in fleet.live().to_vec() {
        while stays(fleet, machine) && fleet.free(machine).0 > 0 {
            let Some((task, _)) = left.next() else { return };
            // The copy starts from what the first one has saved by now.
            let saved = fleet.tasks[task].runs.iter().map(|&run| fleet.runs[run].saved(fleet.now_s));
            let saved = saved.fold(fleet.tasks[task].saved, f64::max);
            fleet.tasks[task].saved = saved;
            fleet.start(task, machine, None, 1.0);
        }
    }
}
