//! The fleet: machines, and the loop that asks the policy and carries out what it says.

use std::{
    future::Future,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sheaf_core::{ChunkKey, Lane, ReleaseReason, WorkerId};
use sheaf_scheduler::{
    Decision, Demand, Machine as Held, Memory, Policy, Settings, Snapshot,
    policies::{backing_off, measured_rate},
    sim::{
        faults::{FaultKind, Faults},
        fleet::PoolSpec,
    },
};
use sheaf_worker::Notice;
use tokio::{process::Child, time::Instant};

use crate::{
    event::{Event, What, Why},
    faults::Fates,
    hedge::{Hedged, lanes},
    machine::{Machine, State},
    record::MachineRecord,
};

/// How often machines and work are looked at, unless looking takes more than a tenth of that.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_SHARE: u32 = 10;
/// How long a worker that was told to end may take beyond its time, before it is killed: what giving back may take.
const GIVE_BACK: Duration = Duration::from_secs(15);
/// How long all machines together are given to end once the work is over.
const CLOSING: Duration = Duration::from_secs(5);
/// What is believed of reclaims before any was seen: one an hour, as if seen for half an hour.
pub(crate) const PRIOR_PER_HOUR: f64 = 1.0;
const PRIOR_HOURS: f64 = 0.5;

/// What a fleet is made from.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// Where machines come from.
    pub pools: Vec<PoolSpec>,
    /// Spot machines at most, all pools together.
    pub spot_max: u32,
    /// On-demand machines at most, all pools together.
    pub on_demand_max: u32,
    /// When spot machines are taken away.
    pub faults: Faults,
    /// The seed of that.
    pub seed: u64,
    /// What that does to a machine.
    pub fault: FaultKind,
    /// By pool, seconds from the notice to the end of a machine that is taken away; 0, as where there is no number, for an
    /// end without notice. Hibernation comes without one: it begins when it is told.
    pub notice_s: Vec<f64>,
    /// Seconds of the plan that pass in a second here; above 0.
    pub time_scale: f64,
    /// What the policy was told: how often it is asked, and the grace.
    pub settings: Settings,
    /// Name of the job, for the decisions.
    pub job: String,
    /// Seconds that each task of the job is expected to take on a slot of speed 1, in the order of [`Grid::look`].
    pub tasks_s: Vec<f64>,
    /// When every task must have an outcome.
    pub deadline_s: f64,
    /// Dollars that the machines may cost, for policies that [keep budgets](sheaf_scheduler::PolicyName::keeps_budgets).
    pub budget: Option<f64>,
}

/// The budget is spent, the last machine has ended, and there is work left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Dollars that the machines were allowed to cost.
    pub budget: f64,
    /// Dollars that they have cost.
    pub cost: f64,
    /// Tasks without an outcome.
    pub tasks_left: usize,
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskNow {
    /// It waits for a worker.
    Waiting,
    /// A worker holds it.
    Running {
        /// Who.
        worker: WorkerId,
        /// Since when (Unix, ms).
        since_ms: u64,
    },
    /// It has its outcome.
    Over,
}

/// A worker process to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The id it has to go by.
    pub worker: WorkerId,
    /// The name of the machine it stands for.
    pub host: String,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Where it takes them from.
    pub lanes: &'static [Lane],
}

/// The grid that machines work for.
pub trait Grid {
    /// Starts a worker of the grid in a process of its own, which makes a session of its own, so that whatever it starts can be
    /// found when its machine is taken away. It reads [notices](Notice) from its stdin, takes its end for
    /// that of its parent, and writes a line to its stdout once it has joined.
    fn start(&self, launch: &Launch) -> io::Result<Child>;

    /// How each task of the job stands; none if the grid does not say at present.
    fn look(&self) -> impl Future<Output = Option<Vec<TaskNow>>> + Send;

    /// Gives back what a worker holds, whose process has ended or is frozen; answers what that was.
    fn give_back(&self, worker: &WorkerId, reason: ReleaseReason) -> impl Future<Output = Vec<ChunkKey>> + Send;

    /// Asks for second copies of tasks, by their places in [`Self::look`], of workers that take the lane `on-demand`.
    fn hedge(&self, tasks: &[usize]) -> impl Future<Output = ()> + Send;

    /// The second copies that workers run, by the places of their tasks in [`Self::look`]; none if the grid does not say at
    /// present.
    fn copies(&self) -> impl Future<Output = Option<Vec<(WorkerId, usize)>>> + Send;

    /// The worker that holds a task, or that has brought it to its outcome.
    fn owner(&self, task: usize) -> impl Future<Output = Option<WorkerId>> + Send;

    /// Hears that everything of a worker has ended for good: what it left behind is nobody's any more.
    fn ended(&self, _worker: &WorkerId) {}
}

/// Machines that work for a grid, as many as a policy wants.
pub struct Fleet<'a> {
    pub(crate) spec: FleetSpec,
    policy: Box<dyn Policy + Send + Sync>,
    memory: Memory,
    pub(crate) fates: Fates,
    pub(crate) machines: Vec<Machine>,
    /// Machines taken away, by pool.
    reclaims: Vec<u64>,
    started: Instant,
    looked_s: f64,
    /// When the policy is asked next.
    pub(crate) decide_s: f64,
    pub(crate) decided: Decision,
    waiting_before: u64,
    /// Attempts of which second copies were asked for.
    pub(crate) hedged: Vec<Hedged>,
    tell: Box<dyn FnMut(&Event) + Send + 'a>,
}

impl<'a> Fleet<'a> {
    /// A fleet without machines, whose time begins now. `tell` hears of everything that happens.
    pub fn new(spec: FleetSpec, policy: Box<dyn Policy + Send + Sync>, tell: impl FnMut(&Event) + Send + 'a) -> Self {
        // Nobody waits ten times as long as there is time.
        let fates = Fates::new(spec.faults.clone(), spec.seed, &spec.pools, spec.deadline_s * 10.0);
        let reclaims = vec![0; spec.pools.len()];
        let (memory, machines, looked_s, decide_s, decided, waiting_before) = Default::default();
        Self {
            spec,
            policy,
            memory,
            fates,
            machines,
            reclaims,
            started: Instant::now(),
            looked_s,
            decide_s,
            decided,
            waiting_before,
            hedged: Vec::new(),
            tell: Box::new(tell),
        }
    }

    /// Drives the machines for as long as it is polled, or until the budget is [spent](Spent). Dropping it between two looks leaves
    /// them as they are.
    pub async fn run(&mut self, grid: &impl Grid) -> Spent {
        loop {
            let began = Instant::now();
            if let Some(spent) = self.step(grid).await {
                return spent;
            }
            tokio::time::sleep(LOOK.max(began.elapsed() * LOOK_SHARE)).await;
        }
    }

    /// Ends all machines: the work is over, or nobody wants it any more.
    pub async fn close(&mut self, grid: &impl Grid) {
        let until_ms = now_ms();
        for machine in self.machines.iter_mut().filter(|machine| machine.state != State::Gone) {
            machine.tell(Notice::Drain { until_ms }).await;
        }
        let patience = Instant::now() + CLOSING;
        for number in 0..self.machines.len() {
            while self.machines[number].has_process()
                && !matches!(self.machines[number].state, State::Gone | State::Hibernated { .. })
                && !self.machines[number].has_ended()
                && Instant::now() < patience
            {
                tokio::time::sleep(LOOK).await;
            }
            if self.machines[number].state != State::Gone {
                self.end(number, Why::Over, grid).await;
            }
        }
    }

    /// What became of each machine so far.
    pub fn records(&self) -> Vec<MachineRecord> {
        let now_s = self.now_s();
        let record = |machine: &Machine| MachineRecord::of(machine, &self.spec.pools[machine.pool].pool, now_s);
        self.machines.iter().map(record).collect()
    }

    /// Dollars that all machines have cost so far.
    fn cost(&self) -> f64 {
        let now_s = self.now_s();
        self.machines.iter().map(|machine| machine.cost(&self.spec.pools[machine.pool].pool, now_s)).sum()
    }

    /// Seconds of the plan since the fleet began.
    pub fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * self.spec.time_scale
    }

    /// So many seconds of the plan, here.
    fn here(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds / self.spec.time_scale).clamp(0.0, 1e9))
    }

    /// A time of the plan as Unix time in ms.
    fn at_ms(&self, at_s: f64) -> u64 {
        now_ms() + self.here(at_s - self.now_s()).as_millis() as u64
    }

    pub(crate) fn tell(&mut self, what: What) {
        let event = Event { at_s: self.now_s(), at_ms: now_ms(), what };
        (self.tell)(&event);
    }

    async fn step(&mut self, grid: &impl Grid) -> Option<Spent> {
        for number in 0..self.machines.len() {
            self.advance(number, grid).await;
        }
        let tasks = grid.look().await?;
        let now_s = self.now_s();
        self.note_copies(now_s, grid).await;
        self.note_busy(&tasks, now_s);
        if now_s >= self.decide_s {
            self.decide(&tasks, now_s);
            self.decide_s = now_s + self.spec.settings.period_s;
            let decision = self.decided.clone();
            self.carry_out(&decision, now_s, grid).await;
            self.hedge(&tasks, now_ms(), grid).await;
        }
        let spent = self.spent(&tasks)?;
        self.tell(What::Spent { budget: spent.budget, cost: spent.cost, tasks_left: spent.tasks_left });
        Some(spent)
    }

    /// Whether the budget is spent, with work left that nobody does.
    fn spent(&self, tasks: &[TaskNow]) -> Option<Spent> {
        let budget = self.spec.budget?;
        if self.machines.iter().any(|machine| machine.state != State::Gone) {
            return None;
        }
        let cost = self.cost();
        let tasks_left = tasks.iter().filter(|task| **task != TaskNow::Over).count();
        (cost >= budget && tasks_left > 0).then_some(Spent { budget, cost, tasks_left })
    }

    /// Brings one machine on: boots it, tells it of its end, takes it away.
    async fn advance(&mut self, number: usize, grid: &impl Grid) {
        let now_s = self.now_s();
        let machine = &mut self.machines[number];
        if machine.state == State::Gone {
            return;
        }
        if machine.has_ended() {
            let why = match machine.state {
                State::Noticed { .. } => Why::Reclaimed,
                State::Draining { .. } => Why::Drained,
                State::Booting { .. } | State::Joining | State::Up => Why::Failed,
                State::Hibernated { .. } | State::Gone => Why::Failed,
            };
            return self.end(number, why, grid).await;
        }
        match machine.state {
            State::Noticed { gone_s } if now_s >= gone_s => return self.end(number, Why::Reclaimed, grid).await,
            State::Draining { kill_s } if now_s >= kill_s => return self.end(number, Why::Drained, grid).await,
            State::Hibernated { resumes_s, .. } => return self.look_at_frozen(number, resumes_s, grid).await,
            State::Noticed { .. } => return,
            State::Booting { .. } | State::Joining | State::Up | State::Draining { .. } | State::Gone => {}
        }
        if now_s >= machine.fate.fails_s {
            self.reclaims[machine.pool] += 1;
            let hibernates = self.spec.fault == FaultKind::Hibernate;
            // One that is wanted no longer is not worth freezing: it would wake only to end.
            if hibernates && !matches!(machine.state, State::Draining { .. }) {
                return self.hibernate(number, grid).await;
            }
            // A machine that has not joined has nothing to give back.
            let notice_s = self.spec.notice_s.get(machine.pool).copied().unwrap_or_default();
            if hibernates || notice_s <= 0.0 || !machine.has_joined() {
                return self.end(number, Why::Reclaimed, grid).await;
            }
            let gone_s = machine.fate.fails_s.max(now_s) + notice_s;
            let (id, at_ms) = (machine.id, self.at_ms(gone_s));
            let machine = &mut self.machines[number];
            machine.state = State::Noticed { gone_s };
            machine.tell(Notice::Reclaim { at_ms: Some(at_ms) }).await;
            return self.tell(What::Noticed { machine: id, gone_at_s: gone_s });
        }
        match machine.state {
            State::Booting { ready_s } if now_s >= ready_s => self.boot(number, grid).await,
            State::Joining if machine.has_joined() => {
                (machine.state, machine.up_s, machine.idle_since_s) = (State::Up, Some(now_s), now_s);
                let (machine, worker) = (machine.id, machine.worker.clone());
                self.tell(What::Up { machine, worker });
            }
            _ => {}
        }
    }

    async fn boot(&mut self, number: usize, grid: &impl Grid) {
        let machine = &mut self.machines[number];
        let pool = &self.spec.pools[machine.pool].pool;
        let market = pool.market.as_str();
        let host = format!("{} {market} {}", pool.machine, machine.id);
        let (worker, lanes) = (machine.worker.clone(), lanes(pool.market));
        let launch = Launch { worker, host, slots: pool.slots, lanes };
        match grid.start(&launch) {
            Ok(child) => machine.boot(child),
            Err(error) => {
                tracing::error!(machine = machine.id, %error, "a worker could not be started");
                self.end(number, Why::Failed, grid).await;
            }
        }
    }

    /// Sees to the end of a machine: it is killed if it still runs, and what it held is given back in its name. A process that
    /// ended by itself may have been killed by what it ran: its leases run out, and its chunks are charged with a death.
    pub(crate) async fn end(&mut self, number: usize, why: Why, grid: &impl Grid) {
        let machine = &mut self.machines[number];
        if let Err(error) = machine.kill().await {
            tracing::warn!(machine = machine.id, %error, "a machine could not be killed");
        }
        let now_s = self.started.elapsed().as_secs_f64() * self.spec.time_scale;
        machine.gone(now_s, why);
        let copies = std::mem::take(&mut machine.copies);
        let (id, worker, busy_slot_s) = (machine.id, machine.worker.clone(), Some(machine.busy_slot_s));
        let reason = if why == Why::Reclaimed { ReleaseReason::Reclaimed } else { ReleaseReason::Drain };
        let given_back = match why {
            Why::Failed => Vec::new(),
            Why::Drained | Why::Reclaimed | Why::Over => grid.give_back(&worker, reason).await,
        };
        self.end_copies(number, copies, now_s, grid).await;
        grid.ended(&worker);
        // Whoever was told so by the last decision is asked again.
        self.decide_s = 0.0;
        self.tell(What::Ended { machine: id, why, given_back, busy_slot_s });
    }

    /// Notes which machines run what, second copies included, and for how long they did since the last look.
    fn note_busy(&mut self, tasks: &[TaskNow], now_s: f64) {
        let since_s = now_s - self.looked_s;
        self.looked_s = now_s;
        let mut told = Vec::new();
        for machine in self.machines.iter_mut().filter(|machine| machine.state != State::Gone) {
            let holds = |task: &&TaskNow| matches!(task, TaskNow::Running { worker, .. } if *worker == machine.worker);
            let held = tasks.iter().filter(holds).count() as u32;
            if matches!(machine.state, State::Hibernated { .. }) {
                // It runs nothing, whatever it holds.
                (machine.busy, machine.runs) = (held, 0);
                continue;
            }
            let slots = self.spec.pools[machine.pool].pool.slots;
            machine.busy_slot_s += since_s * f64::from(machine.runs.min(slots));
            let runs = held + machine.copies.len() as u32;
            match (machine.runs, runs) {
                (0, 1..) => told.push(What::Busy { machine: machine.id, tasks: runs }),
                (1.., 0) => {
                    machine.idle_since_s = now_s;
                    told.push(What::Idle { machine: machine.id });
                }
                _ => {}
            }
            (machine.busy, machine.runs) = (held, runs);
        }
        told.into_iter().for_each(|what| self.tell(what));
    }

    fn decide(&mut self, tasks: &[TaskNow], now_s: f64) {
        let snapshot = self.snapshot(tasks, now_s);
        let decision = self.policy.decide(&snapshot, &mut self.memory);
        self.waiting_before = snapshot.demands[0].waiting_tasks;
        let news = (&decision.wants, &decision.drains) != (&self.decided.wants, &self.decided.drains);
        self.decided = decision;
        if news {
            let pools = self.spec.pools.iter().map(|spec| format!("{} {}", spec.pool.machine, spec.pool.market));
            let (decision, pools) = (self.decided.clone(), pools.collect());
            self.tell(What::Decided { decision, pools });
        }
    }

    /// What the policy sees.
    fn snapshot(&self, tasks: &[TaskNow], now_s: f64) -> Snapshot {
        let machines = self.machines.iter().filter_map(|machine| {
            let activity = machine.activity()?;
            Some(Held { id: machine.id, pool: machine.pool, activity })
        });
        let held_s = |number: usize| {
            let of_pool = self.machines.iter().filter(move |machine| machine.pool == number);
            of_pool.map(|machine| machine.paid_s(now_s)).sum::<f64>()
        };
        let pools = self.spec.pools.iter().enumerate().map(|(number, spec)| {
            let mut pool = spec.pool.clone();
            if pool.market == Lane::Spot {
                let hours = held_s(number) / 3600.0;
                pool.reclaims_per_hour = measured_rate(self.reclaims[number], hours, PRIOR_PER_HOUR, PRIOR_HOURS);
            }
            pool
        });
        Snapshot { now_s, demands: vec![self.demand(tasks)], pools: pools.collect(), machines: machines.collect() }
    }

    fn demand(&self, tasks: &[TaskNow]) -> Demand {
        let mut demand = Demand {
            job: self.spec.job.clone(),
            deadline_at_s: Some(self.spec.deadline_s),
            budget_left: self.spec.budget.map(|budget| budget - self.cost()),
            sealed: true,
            ..Demand::default()
        };
        let now_ms = now_ms();
        for (task, work_s) in tasks.iter().zip(self.spec.tasks_s.iter().copied()) {
            let left_s = match task {
                TaskNow::Over => continue,
                TaskNow::Waiting => {
                    demand.waiting_tasks += 1;
                    demand.waiting_s += work_s;
                    work_s
                }
                TaskNow::Running { worker, since_ms } => {
                    demand.running_tasks += 1;
                    let ran_s = now_ms.saturating_sub(*since_ms) as f64 / 1e3 * self.spec.time_scale;
                    // What can be taken away may have to be done again from the start.
                    if self.stays(worker) { (work_s - ran_s).max(0.0) } else { work_s }
                }
            };
            demand.uncommitted_s += left_s;
            demand.longest_s = demand.longest_s.max(left_s);
        }
        // All of a bag arrives at once.
        demand.arrived_tasks = demand.waiting_tasks.saturating_sub(self.waiting_before);
        demand
    }

    /// Whether nobody takes away the machine of a worker.
    pub(crate) fn stays(&self, worker: &WorkerId) -> bool {
        let machine = self.machines.iter().find(|machine| machine.worker == *worker);
        machine.is_some_and(|machine| self.spec.pools[machine.pool].pool.market == Lane::OnDemand)
    }

    async fn carry_out(&mut self, decision: &Decision, now_s: f64, grid: &impl Grid) {
        for drain in &decision.drains {
            self.drain(drain.machine, drain.give_s, now_s, grid).await;
        }
        for want in &decision.wants {
            let of_pool = |machine: &&Machine| machine.pool == want.pool && machine.counts();
            let held = self.machines.iter().filter(of_pool).count();
            for _ in held..want.machines as usize {
                if !self.launch(want.pool, now_s) {
                    break;
                }
            }
        }
    }

    /// Tells a machine to end. One that holds leases is given twice the grace at least, whatever was said, and killed only
    /// when it has not ended long after that. One that is frozen holds nothing, and hears nothing.
    async fn drain(&mut self, id: u64, give_s: f64, now_s: f64, grid: &impl Grid) {
        let Some(number) = self.machines.iter().position(|machine| machine.id == id) else { return };
        // What it takes now, before it hears of it, counts as well.
        let until_s = now_s + give_s.max(2.0 * self.spec.settings.grace_s);
        let (until_ms, margin_s) = (self.at_ms(until_s), GIVE_BACK.as_secs_f64() * self.spec.time_scale);
        let machine = &mut self.machines[number];
        if matches!(machine.state, State::Hibernated { .. }) {
            return self.end(number, Why::Drained, grid).await;
        }
        if !machine.counts() {
            return;
        }
        machine.state = State::Draining { kill_s: if machine.has_process() { until_s + margin_s } else { now_s } };
        machine.tell(Notice::Drain { until_ms }).await;
        self.tell(What::Draining { machine: id, until_s });
    }

    /// Asks for a machine. False if there can be none at present.
    fn launch(&mut self, number: usize, now_s: f64) -> bool {
        let pool = &self.spec.pools[number].pool;
        let (market, r#type) = (pool.market, pool.machine.clone());
        let (slots, price_per_hour) = (pool.slots, pool.price_per_hour);
        let held = |of_pool: bool| {
            let live = self.machines.iter().filter(|machine| machine.state != State::Gone);
            let counted = live.filter(|machine| {
                if of_pool { machine.pool == number } else { self.spec.pools[machine.pool].pool.market == market }
            });
            counted.count()
        };
        let most = if market == Lane::Spot { self.spec.spot_max } else { self.spec.on_demand_max };
        if backing_off(pool, now_s) || held(true) >= pool.machines_max as usize || held(false) >= most as usize {
            return false;
        }
        let Some(fate) = self.fates.launch(number, market, now_s) else {
            let pool = &mut self.spec.pools[number].pool;
            (pool.failures, pool.failed_at_s) = (pool.failures + 1, now_s);
            let failures = pool.failures;
            self.tell(What::Refused { r#type, market, failures });
            return false;
        };
        self.spec.pools[number].pool.failures = 0;
        let id = self.machines.len() as u64;
        self.machines.push(Machine::new(id, number, now_s, self.spec.pools[number].boot_s, fate));
        self.tell(What::Requested { machine: id, r#type, market, slots, price_per_hour });
        true
    }
}

impl std::fmt::Debug for Fleet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("machines", &self.machines).finish_non_exhaustive()
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
