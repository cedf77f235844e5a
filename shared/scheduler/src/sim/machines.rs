//! Machines in the simulator: what they cost, and the credits burstable ones save up.

use crate::Pool;
use crate::sim::faults::MachineClock;

/// A pool to simulate.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// What policies see of it.
    pub pool: Pool,
    /// Its machine type, by place in the tasks' run times.
    pub kind: usize,
    /// Seconds a machine boots.
    pub boot_s: f64,
    /// Megabytes a machine has for tasks.
    pub memory_mb: f64,
    /// For a burstable type, the share of a vCPU it may use for ever and the credits it earns an hour.
    pub burstable: Option<(f64, f64)>,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    /// Starting.
    Booting,
    /// Ready.
    Up,
    /// Frozen.
    Hibernated,
    /// Ended or reclaimed.
    Gone,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct SimMachine {
    /// Its pool.
    pub pool: usize,
    /// What it does.
    pub state: MachineState,
    /// Since when it does that, or since when it is idle.
    pub since_s: f64,
    /// True once it was told to take nothing more.
    pub draining: bool,
    /// Its runs, by number.
    pub runs: Vec<usize>,
    /// When it was asked for.
    pub launched_s: f64,
    /// Seconds paid so far, but for the stretch since `paid_from_s`.
    pub(super) paid_s: f64,
    pub(super) paid_from_s: Option<f64>,
    /// True when it had booted before it froze.
    pub(super) booted: bool,
    pub(super) clock: Option<MachineClock>,
    pub(super) credits: f64,
    pub(super) credits_at_s: f64,
    /// How often it froze or came back: an event for an earlier life is void.
    pub(super) life: u32,
}

impl SimMachine {
    pub(super) fn new(pool: usize, now_s: f64, clock: Option<MachineClock>) -> Self {
        Self {
            pool,
            state: MachineState::Booting,
            since_s: now_s,
            draining: false,
            runs: Vec::new(),
            launched_s: now_s,
            paid_s: 0.0,
            paid_from_s: Some(now_s),
            booted: false,
            clock,
            credits: 0.0,
            credits_at_s: now_s,
            life: 0,
        }
    }

    /// True while it works or will: booting or ready.
    pub fn is_held(&self) -> bool {
        matches!(self.state, MachineState::Booting | MachineState::Up)
    }

    /// Seconds paid until `now_s`.
    pub fn paid_s(&self, now_s: f64) -> f64 {
        self.paid_s + self.paid_from_s.map_or(0.0, |from_s| now_s - from_s)
    }

    pub(super) fn stop_paying(&mut self, now_s: f64) {
        self.paid_s = self.paid_s(now_s);
        self.paid_from_s = None;
    }
}
