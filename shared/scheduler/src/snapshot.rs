//! What a policy sees: open work, the pools machines can come from, and the machines held. Plain numbers, no clock.

use serde::{Deserialize, Serialize};
use sheaf_core::{Lane, Priority};

use crate::Estimate;

/// Everything a policy may look at, at one instant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Now, in seconds since any fixed instant. Every `_at_s` below counts from the same instant.
    pub now_s: f64,
    /// The open work, one entry per job and lane.
    pub demands: Vec<Demand>,
    /// Where machines can come from. A pool is named by its place in this list.
    pub pools: Vec<Pool>,
    /// The machines held, in any state but gone.
    pub machines: Vec<Machine>,
}

/// The open work of one job on one lane. Seconds are seconds on a slot of speed 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Demand {
    /// The job, for the decision record.
    pub job: String,
    /// The function most of the work is of, for the decision record.
    pub function: String,
    /// The lane the submitter asked for; none leaves the choice to the policy.
    pub lane: Option<Lane>,
    /// How urgent the job is.
    pub priority: Priority,
    /// Tasks that wait for a slot.
    pub waiting_tasks: u64,
    /// Tasks that arrived since the decision before, of the waiting ones.
    pub arrived_tasks: u64,
    /// Tasks that run now.
    pub running_tasks: u64,
    /// Work in the tasks that wait.
    pub waiting_s: f64,
    /// Work in every task without a committed outcome, as it would be done again from its last checkpoint: waiting and
    /// running, on machines that can be taken away too. What a deadline is guarded with.
    pub uncommitted_s: f64,
    /// The longest single task among them: what no number of machines makes shorter.
    pub longest_s: f64,
    /// When every task must have an outcome.
    pub deadline_at_s: Option<f64>,
    /// How long a task may wait for a slot.
    pub latency_s: Option<f64>,
    /// Dollars that may still be spent on the job; at 0 and below, nothing more is started for it.
    pub budget_left: Option<f64>,
    /// True when no more tasks can arrive: idle machines then have nothing to wait for.
    pub sealed: bool,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            job: String::new(),
            function: String::new(),
            lane: None,
            priority: Priority::Normal,
            waiting_tasks: 0,
            arrived_tasks: 0,
            running_tasks: 0,
            waiting_s: 0.0,
            uncommitted_s: 0.0,
            longest_s: 0.0,
            deadline_at_s: None,
            latency_s: None,
            budget_left: None,
            sealed: false,
        }
    }
}

impl Demand {
    /// The demand of `waiting` and `running` tasks of one function, from its estimate. A running task counts as
    /// uncommitted in full: its machine may vanish.
    pub fn of_tasks(job: &str, function: &str, waiting: u64, running: u64, estimate: &Estimate) -> Self {
        Self {
            job: job.to_owned(),
            function: function.to_owned(),
            waiting_tasks: waiting,
            running_tasks: running,
            waiting_s: estimate.work_s(waiting),
            uncommitted_s: estimate.work_s(waiting + running),
            longest_s: if waiting + running == 0 { 0.0 } else { estimate.longest_s() },
            ..Self::default()
        }
    }

    /// Tasks without an outcome.
    pub fn open_tasks(&self) -> u64 {
        self.waiting_tasks + self.running_tasks
    }
}

/// A place machines come from: a machine type in a zone on a market.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// The machine type, like `c4.large`; for Lambda, its memory size.
    pub machine: String,
    /// The zone. Machines of one type and zone tend to be reclaimed together.
    pub zone: String,
    /// The market: spot, on-demand, or Lambda, where a "machine" is one concurrent invocation.
    pub market: Lane,
    /// Tasks a machine runs at a time.
    pub slots: u32,
    /// Work seconds one slot does in a second.
    pub speed: f64,
    /// Dollars an hour for one machine.
    pub price_per_hour: f64,
    /// Seconds from the wish to a ready machine, 95th percentile.
    pub boot_p95_s: f64,
    /// Reclaims an hour and machine, as measured on our own machines. See [`crate::policies::measured_rate`].
    pub reclaims_per_hour: f64,
    /// Launches that failed in a row, for lack of capacity or otherwise.
    pub failures: u32,
    /// When the last of them failed.
    pub failed_at_s: f64,
    /// The most machines that may be held here.
    pub machines_max: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            machine: String::new(),
            zone: String::new(),
            market: Lane::Spot,
            slots: 1,
            speed: 1.0,
            price_per_hour: 0.0,
            boot_p95_s: 0.0,
            reclaims_per_hour: 0.0,
            failures: 0,
            failed_at_s: 0.0,
            machines_max: 0,
        }
    }
}

impl Pool {
    /// Work seconds a machine of this pool does in a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.slots) * self.speed
    }

    /// Dollars for one work second, on a machine that is busy.
    pub fn price_per_work_s(&self) -> f64 {
        self.price_per_hour / 3600.0 / self.rate().max(f64::MIN_POSITIVE)
    }
}

/// A machine that is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name, unique in the snapshot.
    pub id: u64,
    /// Its pool, by place in [`Snapshot::pools`].
    pub pool: usize,
    /// What it does.
    pub activity: Activity,
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Activity {
    /// It was asked for and is not ready.
    Booting {
        /// When it was asked for.
        since_s: f64,
    },
    /// It is ready and holds no lease.
    Idle {
        /// Since when.
        since_s: f64,
    },
    /// It holds at least one lease.
    Leased {
        /// Slots in use.
        slots: u32,
    },
    /// It was told to end and still holds leases.
    Draining {
        /// Slots still in use.
        slots: u32,
    },
    /// Its provider has frozen it; it may come back.
    Hibernated {
        /// Since when.
        since_s: f64,
    },
}

impl Activity {
    /// True when it works, or will without anybody doing anything: what counts towards what is wanted.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Booting { .. } | Self::Idle { .. } | Self::Leased { .. })
    }
}
