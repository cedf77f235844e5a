//! What HADS does while a bag runs: its plan first; then work stealing by machines that idle or come back, migration
//! of what a frozen or vanished machine had, and allocation cycles, at whose ends idle machines are given up.
//!
//! Where the authors' program departs from their papers we follow the papers: a spot machine takes a migrated task only
//! if enough time is left to run its longest task again on a new machine. Estimates know what checkpoints have saved,
//! and tasks that no machine ends in time go where they end soonest.

use std::cmp::Reverse;

use sheaf_core::Lane;

use super::{Bag, Queue};
use crate::sim::fleet::{Controller, Fleet, MachineState, News};

/// Seconds between two looks at the machines, as in the authors' program.
const PERIOD_S: f64 = 5.0;
/// An allocation cycle: idle machines are kept until the end of one. 900 s, as in the papers.
const CYCLE_S: f64 = 900.0;
/// An idle machine ends when its cycle does within this time.
const CYCLE_END_S: f64 = 10.0;

/// A machine and the tasks placed on it that have not started, in order.
#[derive(Debug)]
struct Placed {
    machine: usize,
    waiting: Vec<usize>,
}

/// The controller.
pub struct Hads<'a> {
    bag: &'a Bag,
    plan: &'a [Queue],
    deadline_s: f64,
    /// True for Burst-HADS.
    bursts: bool,
    placed: Vec<Placed>,
    begun: bool,
}

/// The pool of type `kind` on `market`, as [`crate::sim::bags::pools`] lays them out.
fn pool_of(kind: usize, market: Lane) -> usize {
    2 * kind + usize::from(market == Lane::OnDemand)
}

impl<'a> Hads<'a> {
    /// A controller that starts from `plan`; `bursts` for Burst-HADS.
    pub fn new(bag: &'a Bag, plan: &'a [Queue], deadline_s: f64, bursts: bool) -> Self {
        Self { bag, plan, deadline_s, bursts, placed: Vec::new(), begun: false }
    }

    fn begin(&mut self, fleet: &mut Fleet) {
        self.begun = true;
        let mut homeless = Vec::new();
        for queue in self.plan {
            let mut entries: Vec<_> = queue.cores.iter().flatten().copied().collect();
            entries.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
            let waiting: Vec<usize> = entries.iter().map(|entry| entry.task).collect();
            match fleet.launch(pool_of(queue.kind, queue.market)) {
                Some(machine) => self.placed.push(Placed { machine, waiting }),
                None => homeless.extend(waiting),
            }
        }
        self.migrate(fleet, homeless);
    }

    fn market(fleet: &Fleet, machine: usize) -> Lane {
        fleet.pools[fleet.machines[machine].pool].pool.market
    }

    fn baseline(fleet: &Fleet, machine: usize) -> Option<f64> {
        fleet.pools[fleet.machines[machine].pool].burstable.map(|(baseline, _)| baseline)
    }

    fn stretch(fleet: &Fleet, machine: usize) -> f64 {
        Self::baseline(fleet, machine).map_or(1.0, |baseline| 1.0 / baseline)
    }

    fn left_s(fleet: &Fleet, task: usize, machine: usize) -> f64 {
        fleet.runtime_s(task, machine).map_or(f64::INFINITY, |s| s * (1.0 - fleet.tasks[task].saved))
    }

    /// When each core of a machine is free, its waiting tasks done, and when each of those ends.
    fn outlook(&self, fleet: &Fleet, at: usize) -> (Vec<f64>, Vec<f64>) {
        let Placed { machine, waiting } = &self.placed[at];
        let of = &fleet.machines[*machine];
        let spec = &fleet.pools[of.pool];
        let ready_s = if of.state == MachineState::Booting { of.since_s + spec.boot_s } else { fleet.now_s };
        let mut cores = vec![ready_s.max(fleet.now_s); spec.pool.slots as usize];
        for (core, &run) in cores.iter_mut().zip(&of.runs) {
            *core = fleet.runs[run].ends_s;
        }
        let stretch = Self::stretch(fleet, *machine);
        let mut ends = Vec::with_capacity(waiting.len());
        for &task in waiting {
            if let Some(core) = cores.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                *core += Self::left_s(fleet, task, *machine) * stretch;
                ends.push(*core);
            }
        }
        (cores, ends)
    }

    /// When `task` would end on a machine.
    fn ends_s(&self, fleet: &Fleet, at: usize, task: usize) -> f64 {
        let machine = self.placed[at].machine;
        let free_s = self.outlook(fleet, at).0.into_iter().fold(f64::INFINITY, f64::min);
        free_s + Self::left_s(fleet, task, machine) * Self::stretch(fleet, machine)
    }

    /// True when a machine ends `task` in time: on spot, early enough to run its longest task again elsewhere.
    fn in_time(&self, fleet: &Fleet, at: usize, task: usize) -> bool {
        let machine = self.placed[at].machine;
        let again_s = if Self::market(fleet, machine) == Lane::Spot {
            let running = fleet.machines[machine].runs.iter().map(|&run| fleet.runs[run].task);
            let tasks = running.chain(self.placed[at].waiting.iter().copied()).chain([task]);
            let longest_s = tasks.filter_map(|task| fleet.runtime_s(task, machine)).fold(0.0, f64::max);
            longest_s + fleet.pools[fleet.machines[machine].pool].boot_s
        } else {
            0.0
        };
        self.ends_s(fleet, at, task) + again_s < self.deadline_s
    }

    /// The machines in some state, those on spot first: HADS would rather use what is cheap.
    fn machines(&self, fleet: &Fleet, idle: bool) -> Vec<usize> {
        let fits = |at: &usize| {
            let of = &fleet.machines[self.placed[*at].machine];
            let has_work = !of.runs.is_empty() || !self.placed[*at].waiting.is_empty();
            let regular = Self::baseline(fleet, self.placed[*at].machine).is_none();
            regular && if idle { of.state == MachineState::Up && !has_work } else { of.is_held() && has_work }
        };
        let mut machines: Vec<usize> = (0..self.placed.len()).filter(fits).collect();
        machines.sort_by_key(|&at| Reverse(Self::market(fleet, self.placed[at].machine) == Lane::Spot));
        machines
    }

    /// Finds a new place for tasks that lost theirs.
    fn migrate(&mut self, fleet: &mut Fleet, tasks: Vec<usize>) {
        let tasks: Vec<usize> = tasks.into_iter().filter(|&task| !self.burst(fleet, task)).collect();
        let mut left = Vec::new();
        let idle = self.machines(fleet, true);
        let working = self.machines(fleet, false);
        for task in tasks {
            let all = idle.iter().chain(&working);
            match all.copied().find(|&at| self.in_time(fleet, at, task)) {
                Some(at) => self.placed[at].waiting.push(task),
                None => left.push(task),
            }
        }
        self.back_up(fleet, left);
    }

    /// Burst-HADS: an idle burstable machine with enough credits runs the task at full speed.
    fn burst(&mut self, fleet: &mut Fleet, task: usize) -> bool {
        if !self.bursts {
            return false;
        }
        for at in 0..self.placed.len() {
            let machine = self.placed[at].machine;
            if Self::baseline(fleet, machine).is_none() || fleet.free(machine).0 == 0 {
                continue;
            }
            let left_s = Self::left_s(fleet, task, machine);
            let credits = left_s / 60.0;
            if fleet.now_s + left_s < self.deadline_s
                && fleet.credits(machine) >= credits
                && fleet.start(task, machine, None, 1.0)
            {
                fleet.spend_credits(machine, credits);
                return true;
            }
        }
        false
    }

    /// The backup plan: new on-demand machines, each filled as far as it is in time before another is started.
    fn back_up(&mut self, fleet: &mut Fleet, tasks: Vec<usize>) {
        let mut kinds = self.bag.regular(Lane::OnDemand);
        let price = |kind: &usize| self.bag.price_per_hour(*kind, Lane::OnDemand);
        kinds.sort_by(|a, b| price(a).total_cmp(&price(b)));
        let mut new: Vec<usize> = Vec::new();
        for task in tasks {
            let mut by_end: Vec<(f64, usize)> = new.iter().map(|&at| (self.ends_s(fleet, at, task), at)).collect();
            by_end.sort_by(|a, b| a.0.total_cmp(&b.0));
            let in_time = by_end.iter().find(|(ends_s, _)| *ends_s < self.deadline_s);
            if let Some(&(_, at)) = in_time {
                self.placed[at].waiting.push(task);
                continue;
            }
            // One that is in time if there is one, else any there may still be.
            let runs = |kind: &usize, late: bool| {
                let whole_s = self.bag.runtime_s(task, *kind)? * (1.0 - fleet.tasks[task].saved);
                let boot_s = fleet.pools[pool_of(*kind, Lane::OnDemand)].boot_s;
                (late || fleet.now_s + boot_s + whole_s < self.deadline_s).then_some(*kind)
            };
            let early: Vec<usize> = kinds.iter().filter_map(|kind| runs(kind, false)).collect();
            let any: Vec<usize> = kinds.iter().filter_map(|kind| runs(kind, true)).collect();
            let started = early.into_iter().chain(any).find_map(|kind| fleet.launch(pool_of(kind, Lane::OnDemand)));
            if let Some(machine) = started {
                new.push(self.placed.len());
                self.placed.push(Placed { machine, waiting: vec![task] });
            } else {
                self.place_anywhere(fleet, task);
            }
        }
    }

    /// No machine is in time and none can be started: the one that ends the task soonest, a frozen one at worst.
    fn place_anywhere(&mut self, fleet: &Fleet, task: usize) {
        let rank = |at: &usize| {
            let of = &fleet.machines[self.placed[*at].machine];
            (!of.is_held(), self.ends_s(fleet, *at, task))
        };
        let there =
            (0..self.placed.len()).filter(|&at| fleet.machines[self.placed[at].machine].state != MachineState::Gone);
        let best = there.map(|at| (rank(&at), at)).min_by(|a, b| a.0.0.cmp(&b.0.0).then(a.0.1.total_cmp(&b.0.1)));
        if let Some((_, at)) = best {
            self.placed[at].waiting.push(task);
        }
    }

    /// The end of the allocation cycle a machine is in.
    fn cycle_ends_s(&self, fleet: &Fleet, at: usize) -> f64 {
        let paid_s = fleet.machines[self.placed[at].machine].paid_s(fleet.now_s);
        fleet.now_s + CYCLE_S - paid_s.rem_euclid(CYCLE_S)
    }

    /// An idle machine takes waiting tasks that others would end in a later cycle. A burstable one takes one, at its
    /// baseline.
    fn steal(&mut self, fleet: &Fleet, thief: usize) {
        let burstable = Self::baseline(fleet, self.placed[thief].machine).is_some();
        for victim in self.machines(fleet, false) {
            if victim == thief {
                continue;
            }
            let later_s = self.cycle_ends_s(fleet, victim);
            let (_, ends) = self.outlook(fleet, victim);
            let late = self.placed[victim].waiting.iter().zip(ends).filter(|(_, ends_s)| *ends_s >= later_s);
            for task in late.map(|(&task, _)| task).collect::<Vec<_>>() {
                if self.in_time(fleet, thief, task) {
                    self.placed[victim].waiting.retain(|&other| other != task);
                    self.placed[thief].waiting.push(task);
                    if burstable {
                        return;
                    }
                }
            }
        }
    }

    fn start_waiting(&mut self, fleet: &mut Fleet) {
        for at in 0..self.placed.len() {
            let machine = self.placed[at].machine;
            let spot = Self::market(fleet, machine) == Lane::Spot;
            // As many checkpoints as the budget pays for, where they can be of use.
            let every_s = spot.then_some(1.0);
            let stretch = Self::stretch(fleet, machine);
            let mut next = 0;
            while next < self.placed[at].waiting.len() && fleet.free(machine).0 > 0 {
                if fleet.start(self.placed[at].waiting[next], machine, every_s, stretch) {
                    self.placed[at].waiting.remove(next);
                } else {
                    next += 1;
                }
            }
        }
    }

    /// Looks after machines without work.
    fn idle(&mut self, fleet: &mut Fleet) {
        for at in 0..self.placed.len() {
            let machine = self.placed[at].machine;
            let of = &fleet.machines[machine];
            if of.state != MachineState::Up || !of.runs.is_empty() || !self.placed[at].waiting.is_empty() {
                continue;
            }
            let working = self.machines(fleet, false);
            let spot_works = working.iter().any(|&at| Self::market(fleet, self.placed[at].machine) == Lane::Spot);
            let burstable = Self::baseline(fleet, machine).is_some();
            if !spot_works || (!burstable && self.cycle_ends_s(fleet, at) - fleet.now_s < CYCLE_END_S) {
                fleet.stop(machine);
            } else {
                self.steal(fleet, at);
            }
        }
    }
}

impl Controller for Hads<'_> {
    fn period_s(&self) -> f64 {
        PERIOD_S
    }

    fn act(&mut self, fleet: &mut Fleet, news: &[News]) {
        if !self.begun {
            // Tasks of a bag arrive at time 0, together with the first tick.
            self.begin(fleet);
        }
        let mut looked = false;
        for item in news {
            match item {
                News::Lost { machine, tasks } => {
                    let mut affected = tasks.clone();
                    if let Some(placed) = self.placed.iter_mut().find(|placed| placed.machine == *machine) {
                        affected.append(&mut placed.waiting);
                    }
                    self.migrate(fleet, affected);
                }
                News::Resumed(machine) => {
                    if let Some(at) = self.placed.iter().position(|placed| placed.machine == *machine) {
                        self.steal(fleet, at);
                    }
                }
                News::Tick => looked = true,
                News::Arrived(_) | News::Ready(_) | News::Finished { .. } => {}
            }
        }
        self.start_waiting(fleet);
        if looked {
            self.idle(fleet);
            self.start_waiting(fleet);
        }
    }
}
