//! The fleet: machines, tasks and events. A [`Controller`] is told what happened and gives orders.

use std::collections::BTreeMap;

use sheaf_core::Lane;

pub use super::machines::{MachineState, PoolSpec, SimMachine};
pub use super::tasks::{Run, TaskSpec, TaskState};

use super::faults::{FaultKind, Faults};
use super::queue::Queue;
use crate::checkpoint::CheckpointCost;

/// What happened, as a controller is told.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A task arrived.
    Arrived(usize),
    /// A machine has booted.
    Ready(usize),
    /// A task has its outcome.
    Finished {
        /// The task.
        task: usize,
        /// The machine that committed it.
        machine: usize,
    },
    /// A machine froze, vanished, or did not end in time what it ran when it was drained, with the tasks it ran.
    Lost {
        /// The machine.
        machine: usize,
        /// The tasks, rolled back to their checkpoints.
        tasks: Vec<usize>,
    },
    /// A frozen machine is back, empty.
    Resumed(usize),
    /// A period is over.
    Tick,
}

/// Decides what the machines of a fleet do.
pub trait Controller {
    /// Seconds between two [`News::Tick`].
    fn period_s(&self) -> f64;
    /// Called with everything that happened at one instant.
    fn act(&mut self, fleet: &mut Fleet, news: &[News]);
    /// True when nothing more will be done, whatever is still open.
    fn gives_up(&self, _fleet: &Fleet) -> bool {
        false
    }
}

#[derive(Debug)]
enum Event {
    Arrive(usize),
    Ready(usize, u32),
    Finish(usize),
    Fail(usize, u32),
    Resume(usize, u32),
    Retire(usize, u32),
    Outage(usize),
    Return(usize),
    Tick,
}

/// What a fleet is made from.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// The pools.
    pub pools: Vec<PoolSpec>,
    /// The tasks.
    pub tasks: Vec<TaskSpec>,
    /// What goes wrong.
    pub faults: Faults,
    /// What a fault does.
    pub kind: FaultKind,
    /// What checkpoints cost.
    pub checkpoint: CheckpointCost,
    /// The seed of the faults.
    pub seed: u64,
    /// When to give up.
    pub until_s: f64,
    /// Spot machines at most, all pools together.
    pub spot_max: u32,
    /// On-demand machines at most, all pools together.
    pub on_demand_max: u32,
}

/// A fleet at an instant.
pub struct Fleet {
    /// Now.
    pub now_s: f64,
    /// The pools; launch failures are counted in them.
    pub pools: Vec<PoolSpec>,
    /// All machines there ever were.
    pub machines: Vec<SimMachine>,
    /// The tasks as given.
    pub specs: Vec<TaskSpec>,
    /// The tasks as they are.
    pub tasks: Vec<TaskState>,
    /// All runs there ever were.
    pub runs: Vec<Run>,
    /// Machines reclaimed, by pool.
    pub reclaims: Vec<u64>,
    /// Machine seconds that freezing, vanishing and ending wasted.
    pub lost_s: f64,
    /// Second copies started.
    pub hedges: u64,
    /// The machines that are not gone.
    live: Vec<usize>,
    open_tasks: usize,
    launched: Vec<u64>,
    /// The group each pool belongs to, and which groups are out.
    groups: Vec<usize>,
    out: Vec<bool>,
    outages: Vec<std::vec::IntoIter<(f64, f64)>>,
    returns_s: Vec<f64>,
    events: Queue<Event>,
    faults: Faults,
    kind: FaultKind,
    checkpoint: CheckpointCost,
    seed: u64,
    until_s: f64,
    spot_max: u32,
    on_demand_max: u32,
}

impl Fleet {
    /// A fleet without machines at time 0.
    pub fn new(spec: FleetSpec) -> Self {
        let mut names: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut groups = Vec::new();
        for pool in &spec.pools {
            let next = names.len();
            groups.push(*names.entry((pool.pool.zone.clone(), pool.pool.machine.clone())).or_insert(next));
        }
        let mut outages = vec![Vec::new(); names.len()];
        for ((zone, machine), group) in &names {
            outages[*group] = spec.faults.outages(spec.seed, *group, zone, machine, spec.until_s);
        }
        let mut events = Queue::new();
        for (task, of) in spec.tasks.iter().enumerate() {
            events.push(of.arrives_s, Event::Arrive(task));
        }
        let pools = spec.pools.len();
        let mut fleet = Self {
            now_s: 0.0,
            machines: Vec::new(),
            tasks: vec![TaskState::default(); spec.tasks.len()],
            runs: Vec::new(),
            reclaims: vec![0; pools],
            lost_s: 0.0,
            hedges: 0,
            live: Vec::new(),
            open_tasks: spec.tasks.len(),
            launched: vec![0; pools],
            out: vec![false; names.len()],
            returns_s: vec![0.0; names.len()],
            outages: outages.into_iter().map(Vec::into_iter).collect(),
            groups,
            events,
            pools: spec.pools,
            specs: spec.tasks,
            faults: spec.faults,
            kind: spec.kind,
            checkpoint: spec.checkpoint,
            seed: spec.seed,
            until_s: spec.until_s,
            spot_max: spec.spot_max,
            on_demand_max: spec.on_demand_max,
        };
        (0..fleet.out.len()).for_each(|group| fleet.next_outage(group));
        fleet
    }

    /// Runs until every task has its outcome, time is up or the controller gives up, then ends all machines.
    pub fn run(&mut self, controller: &mut impl Controller) {
        self.events.push(0.0, Event::Tick);
        while self.open_tasks > 0 {
            let Some((at_s, event)) = self.events.pop() else { break };
            if at_s > self.until_s {
                break;
            }
            self.now_s = at_s;
            let mut news = Vec::new();
            self.happen(event, controller.period_s(), &mut news);
            while self.events.next_at_s() == Some(at_s) {
                let Some((_, event)) = self.events.pop() else { break };
                self.happen(event, controller.period_s(), &mut news);
            }
            if !news.is_empty() {
                controller.act(self, &news);
                if controller.gives_up(self) {
                    break;
                }
            }
        }
        for machine in self.live.clone() {
            self.stop(machine);
        }
    }

    /// The machines that are not gone, oldest first.
    pub fn live(&self) -> &[usize] {
        &self.live
    }

    /// Asks for a machine of `pool`; none when its cap is reached or it has no capacity, which is noted in the pool.
    pub fn launch(&mut self, pool: usize) -> Option<usize> {
        let held = self.live.iter().filter(|&&machine| self.machines[machine].pool == pool).count();
        if held >= self.pools[pool].pool.machines_max as usize {
            return None;
        }
        let market = self.pools[pool].pool.market;
        let spot = market == Lane::Spot;
        let of_market = |&&machine: &&usize| self.pools[self.machines[machine].pool].pool.market == market;
        let most = if spot { self.spot_max } else { self.on_demand_max };
        if self.live.iter().filter(of_market).count() >= most as usize {
            return None;
        }
        if spot && self.out[self.groups[pool]] {
            self.pools[pool].pool.failures += 1;
            self.pools[pool].pool.failed_at_s = self.now_s;
            return None;
        }
        self.pools[pool].pool.failures = 0;
        let clock = self.faults.clock(self.seed, pool, self.launched[pool]).filter(|_| spot);
        self.launched[pool] += 1;
        let machine = self.machines.len();
        self.machines.push(SimMachine::new(pool, self.now_s, clock));
        self.live.push(machine);
        self.events.push(self.now_s + self.pools[pool].boot_s, Event::Ready(machine, 0));
        self.arm(machine);
        Some(machine)
    }

    /// Ends a machine at once; what it runs is rolled back and given back by the next controller that looks.
    pub fn stop(&mut self, machine: usize) -> Vec<usize> {
        let tasks = self.drop_runs(machine);
        self.machines[machine].stop_paying(self.now_s);
        self.machines[machine].state = MachineState::Gone;
        self.live.retain(|&other| other != machine);
        tasks
    }

    /// Tells a machine to take nothing more, and to end in `give_s` with whatever it runs then.
    pub fn drain(&mut self, machine: usize, give_s: f64) {
        let of = &mut self.machines[machine];
        if !std::mem::replace(&mut of.draining, true) {
            self.events.push(self.now_s + give_s, Event::Retire(machine, of.life));
        }
    }

    /// Slots of a ready machine that are free, and the memory left.
    pub fn free(&self, machine: usize) -> (u32, f64) {
        let of = &self.machines[machine];
        if of.state != MachineState::Up || of.draining {
            return (0, 0.0);
        }
        let pool = &self.pools[of.pool];
        let used: f64 = of.runs.iter().map(|&run| self.specs[self.runs[run].task].memory_mb).sum();
        (pool.pool.slots.saturating_sub(of.runs.len() as u32), pool.memory_mb - used)
    }

    /// Seconds all of `task` takes on `machine` at full speed.
    pub fn runtime_s(&self, task: usize, machine: usize) -> Option<f64> {
        self.specs[task].runtime_s[self.pools[self.machines[machine].pool].kind]
    }

    /// Starts `task` on `machine`; false when it does not fit there or is done. `stretch` is how many times as long as
    /// usual it takes.
    pub fn start(&mut self, task: usize, machine: usize, every_s: Option<f64>, stretch: f64) -> bool {
        let (slots, memory_mb) = self.free(machine);
        let Some(whole_s) = self.runtime_s(task, machine) else { return false };
        let state = &self.tasks[task];
        if slots == 0 || self.specs[task].memory_mb > memory_mb || !state.arrived || state.done_at_s.is_some() {
            return false;
        }
        let (saved, hedge) = (state.saved, !state.runs.is_empty());
        self.settle_credits(machine);
        let progress = (saved, whole_s * stretch, self.specs[task].memory_mb);
        let run = Run::new((task, machine), self.now_s, progress, every_s, &self.checkpoint);
        let number = self.runs.len();
        self.events.push(run.ends_s, Event::Finish(number));
        self.runs.push(run);
        self.hedges += u64::from(hedge);
        self.tasks[task].runs.push(number);
        self.tasks[task].started_at_s.get_or_insert(self.now_s);
        self.machines[machine].runs.push(number);
        true
    }

    /// CPU credits `machine` has saved up.
    pub fn credits(&mut self, machine: usize) -> f64 {
        self.settle_credits(machine);
        self.machines[machine].credits
    }

    /// Spends credits of `machine`.
    pub fn spend_credits(&mut self, machine: usize, credits: f64) {
        self.settle_credits(machine);
        self.machines[machine].credits -= credits;
    }

    /// Dollars until now.
    pub fn cost(&self) -> f64 {
        let price = |machine: &SimMachine| self.pools[machine.pool].pool.price_per_hour / 3600.0;
        self.machines.iter().map(|machine| machine.paid_s(self.now_s) * price(machine)).sum()
    }

    /// Machine seconds paid until now, on pools `of` picks.
    pub fn machine_s(&self, of: impl Fn(usize) -> bool) -> f64 {
        let machines = self.machines.iter().filter(|machine| of(machine.pool));
        machines.map(|machine| machine.paid_s(self.now_s)).sum()
    }

    /// Tasks without an outcome.
    pub fn open_tasks(&self) -> usize {
        self.open_tasks
    }

    fn happen(&mut self, event: Event, period_s: f64, news: &mut Vec<News>) {
        match event {
            Event::Arrive(task) => {
                self.tasks[task].arrived = true;
                news.push(News::Arrived(task));
            }
            Event::Ready(machine, life) => {
                let of = &mut self.machines[machine];
                if of.state == MachineState::Booting && of.life == life {
                    (of.state, of.since_s, of.booted) = (MachineState::Up, self.now_s, true);
                    news.push(News::Ready(machine));
                }
            }
            Event::Finish(run) => self.finish(run, news),
            Event::Fail(machine, life) => {
                if self.machines[machine].is_held() && self.machines[machine].life == life {
                    self.fail(machine, news);
                    let back_s = self.machines[machine].clock.as_mut().map_or(f64::INFINITY, |c| c.resumes_after_s());
                    if self.machines[machine].state == MachineState::Hibernated {
                        self.events.push(self.now_s + back_s, Event::Resume(machine, self.machines[machine].life));
                    }
                }
            }
            Event::Resume(machine, life) => {
                if self.machines[machine].life == life {
                    self.resume(machine, news);
                }
            }
            Event::Retire(machine, life) => {
                let of = &self.machines[machine];
                if of.is_held() && of.draining && of.life == life {
                    let tasks = self.stop(machine);
                    news.push(News::Lost { machine, tasks });
                }
            }
            Event::Outage(group) => {
                self.out[group] = true;
                let hit = |&machine: &usize| self.is_spot_of(machine, group) && self.machines[machine].is_held();
                for machine in self.live.iter().copied().filter(hit).collect::<Vec<_>>() {
                    self.fail(machine, news);
                }
                self.events.push(self.returns_s[group], Event::Return(group));
            }
            Event::Return(group) => {
                self.out[group] = false;
                for machine in self.live.clone() {
                    if self.is_spot_of(machine, group) {
                        self.resume(machine, news);
                    }
                }
                self.next_outage(group);
            }
            Event::Tick => {
                self.events.push(self.now_s + period_s, Event::Tick);
                news.push(News::Tick);
            }
        }
    }

    fn is_spot_of(&self, machine: usize, group: usize) -> bool {
        let pool = self.machines[machine].pool;
        self.groups[pool] == group && self.pools[pool].pool.market == Lane::Spot
    }

    fn next_outage(&mut self, group: usize) {
        if let Some((down_s, up_s)) = self.outages[group].next() {
            self.returns_s[group] = up_s;
            self.events.push(down_s, Event::Outage(group));
        }
    }

    /// Sets the clock of a machine that fails on its own.
    fn arm(&mut self, machine: usize) {
        let life = self.machines[machine].life;
        if let Some(clock) = &mut self.machines[machine].clock {
            let after_s = clock.fails_after_s();
            self.events.push(self.now_s + after_s, Event::Fail(machine, life));
        }
    }

    fn fail(&mut self, machine: usize, news: &mut Vec<News>) {
        self.reclaims[self.machines[machine].pool] += 1;
        let tasks = self.drop_runs(machine);
        let of = &mut self.machines[machine];
        of.stop_paying(self.now_s);
        (of.since_s, of.life, of.draining) = (self.now_s, of.life + 1, false);
        match self.kind {
            FaultKind::Hibernate => of.state = MachineState::Hibernated,
            FaultKind::Terminate => {
                of.state = MachineState::Gone;
                self.live.retain(|&other| other != machine);
            }
        }
        news.push(News::Lost { machine, tasks });
    }

    fn resume(&mut self, machine: usize, news: &mut Vec<News>) {
        let of = &mut self.machines[machine];
        if of.state != MachineState::Hibernated {
            return;
        }
        (of.since_s, of.life, of.paid_from_s) = (self.now_s, of.life + 1, Some(self.now_s));
        if of.booted {
            of.state = MachineState::Up;
            news.push(News::Resumed(machine));
        } else {
            of.state = MachineState::Booting;
            self.events.push(self.now_s + self.pools[of.pool].boot_s, Event::Ready(machine, of.life));
        }
        self.arm(machine);
    }

    fn finish(&mut self, run: usize, news: &mut Vec<News>) {
        if !self.runs[run].alive {
            return;
        }
        let (task, machine) = (self.runs[run].task, self.runs[run].machine);
        // The fence: whichever copy is first commits, and the others are told to stop.
        assert!(self.tasks[task].done_at_s.is_none(), "task {task} has one outcome");
        self.tasks[task].done_at_s = Some(self.now_s);
        self.open_tasks -= 1;
        for copy in std::mem::take(&mut self.tasks[task].runs) {
            self.runs[copy].alive = false;
            let on = self.runs[copy].machine;
            self.settle_credits(on);
            self.machines[on].runs.retain(|&other| other != copy);
            if self.machines[on].runs.is_empty() {
                self.machines[on].since_s = self.now_s;
            }
            if copy != run {
                self.lost_s += self.now_s - self.runs[copy].started_s;
            }
        }
        news.push(News::Finished { task, machine });
    }

    /// Ends the runs of a machine, with what their checkpoints hold kept.
    fn drop_runs(&mut self, machine: usize) -> Vec<usize> {
        self.settle_credits(machine);
        let mut tasks = Vec::new();
        for run in std::mem::take(&mut self.machines[machine].runs) {
            let of = &mut self.runs[run];
            of.alive = false;
            self.lost_s += of.lost_s(self.now_s);
            let state = &mut self.tasks[of.task];
            state.saved = state.saved.max(of.saved(self.now_s));
            state.runs.retain(|&other| other != run);
            tasks.push(of.task);
        }
        tasks
    }

    /// Earns what a burstable machine earned since it was last looked at, less for the cores in use.
    fn settle_credits(&mut self, machine: usize) {
        let of = &mut self.machines[machine];
        let pool = &self.pools[of.pool];
        if let (Some((_, per_hour)), MachineState::Up) = (pool.burstable, of.state) {
            let idle = 1.0 - of.runs.len() as f64 / f64::from(pool.pool.slots.max(1));
            of.credits += (self.now_s - of.credits_at_s) / 3600.0 * per_hour * idle;
        }
        of.credits_at_s = self.now_s;
    }
}
