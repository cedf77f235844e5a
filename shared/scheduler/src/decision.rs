//! What a policy answers: how many machines of which pool, which to end, and why.

use serde::{Deserialize, Deserializer, Serialize};
use sheaf_core::Lane;

/// The answer to one snapshot. Carrying it out twice is carrying it out once: wants are totals, not differences.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// The policy that answered.
    pub policy: String,
    /// Machines wanted in total per pool, only pools that want any. Fewer than are held means: start no more; the
    /// surplus ends through `drains` only.
    pub wants: Vec<Want>,
    /// Machines to end.
    pub drains: Vec<Drain>,
    /// Jobs whose running tasks may be started a second time.
    pub hedges: Vec<Hedge>,
    /// Where jobs run that left the choice open.
    pub lanes: Vec<LaneChoice>,
    /// Jobs that cannot meet their deadline any more.
    pub infeasible: Vec<Infeasible>,
    /// Seconds of work between two checkpoints, per pool of the snapshot; none where checkpoints do not pay.
    pub checkpoint_every_s: Vec<Option<f64>>,
    /// Why, in sentences and numbers, most important first.
    pub reasons: Vec<String>,
}

impl Decision {
    /// The machines wanted of pool `pool`.
    pub fn wanted(&self, pool: usize) -> u32 {
        self.wants.iter().find(|want| want.pool == pool).map_or(0, |want| want.machines)
    }
}

/// Machines wanted of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The pool, by its place in the snapshot.
    pub pool: usize,
    /// How many machines, those held included; never above the pool's cap.
    pub machines: u32,
}

/// A machine to end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// The machine.
    pub machine: u64,
    /// How long it may go on with what it has leased. 0 for one that holds nothing; at least twice the grace otherwise.
    pub give_s: f64,
}

/// Leave to run tasks twice. The fence makes it free of risk: one attempt commits, the other is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hedge {
    /// The job.
    pub job: String,
    /// Second copies at most, on machines that cannot be taken away, longest remaining task first.
    pub copies: u64,
}

/// The lane a job should run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneChoice {
    /// The job.
    pub job: String,
    /// The lane.
    pub lane: Lane,
    /// Why.
    pub because: String,
}

/// A deadline that cannot be met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Infeasible {
    /// The job.
    pub job: String,
    /// The earliest instant by which all of it can be promised, with every on-demand machine the caps allow.
    /// Infinite where there is no such machine; null in JSON, which has no such number.
    #[serde(deserialize_with = "number_or_infinite")]
    pub earliest_finish_at_s: f64,
}

fn number_or_infinite<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}
