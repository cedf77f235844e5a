//! What became of a machine, for reports.

use serde::Serialize;
use sheaf_core::{Lane, WorkerId};
use sheaf_scheduler::Pool;

use crate::{event::Why, machine::Machine};

/// What became of a machine. Times are in seconds of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachineRecord {
    /// Its number.
    pub machine: u64,
    /// Its worker.
    pub worker: WorkerId,
    /// Its type.
    pub r#type: String,
    /// Its market.
    pub market: Lane,
    /// Tasks it could run at once.
    pub slots: u32,
    /// When it was asked for.
    pub requested_s: f64,
    /// When its worker had joined.
    pub up_s: Option<f64>,
    /// When it was gone.
    pub ended_s: Option<f64>,
    /// Why.
    pub why: Option<Why>,
    /// Seconds from the request to its end, boots and the time it was frozen included.
    pub held_s: f64,
    /// How often it was frozen.
    pub hibernations: u32,
    /// Seconds that it was frozen, which cost nothing.
    pub frozen_s: f64,
    /// Slot seconds from when it was up, those in which it was frozen left out.
    pub up_slot_s: f64,
    /// Slot seconds in which it ran something.
    pub busy_slot_s: f64,
    /// Seconds of second copies that were not needed.
    pub copies_lost_s: f64,
    /// The share of [`up_slot_s`](Self::up_slot_s) in which its slots ran something.
    pub utilisation: f64,
    /// Dollars.
    pub cost: f64,
}

impl MachineRecord {
    /// Of a machine of this pool, as it is now.
    pub(crate) fn of(machine: &Machine, pool: &Pool, now_s: f64) -> Self {
        let ended_s = machine.ended.map(|(at_s, _)| at_s);
        let until_s = ended_s.unwrap_or(now_s);
        let frozen_s = machine.frozen_s(now_s);
        let up_s = machine.up_s.map_or(0.0, |up_s| until_s - up_s - machine.frozen_up_s(now_s));
        let up_slot_s = up_s.max(0.0) * f64::from(pool.slots);
        Self {
            machine: machine.id,
            worker: machine.worker.clone(),
            r#type: pool.machine.clone(),
            market: pool.market,
            slots: pool.slots,
            requested_s: machine.requested_s,
            up_s: machine.up_s,
            ended_s,
            why: machine.ended.map(|(_, why)| why),
            held_s: until_s - machine.requested_s,
            hibernations: machine.hibernations,
            frozen_s,
            up_slot_s,
            busy_slot_s: machine.busy_slot_s,
            copies_lost_s: machine.copies_lost_s,
            utilisation: if up_slot_s > 0.0 { (machine.busy_slot_s / up_slot_s).min(1.0) } else { 0.0 },
            cost: machine.cost(pool, now_s),
        }
    }

    /// Seconds that it was paid for.
    pub fn paid_s(&self) -> f64 {
        self.held_s - self.frozen_s
    }
}
