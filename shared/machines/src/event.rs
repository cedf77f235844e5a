//! What happens to machines, as it is told and written down.

use serde::Serialize;
use sheaf_core::{ChunkKey, Lane, WorkerId};
use sheaf_scheduler::Decision;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When, in seconds of the plan since the fleet began.
    pub at_s: f64,
    /// When (Unix, ms).
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum What {
    /// The policy answered something else than the last time.
    Decided {
        /// Its answer, with the reasons.
        decision: Decision,
    },
    /// A machine was asked for, and boots.
    Requested {
        /// Its number.
        machine: u64,
        /// Its type.
        r#type: String,
        /// Its market.
        market: Lane,
    },
    /// There was no capacity; the pool is left alone for a while.
    Refused {
        /// The type.
        r#type: String,
        /// The market.
        market: Lane,
        /// Refusals in a row.
        failures: u32,
    },
    /// A machine has booted, and its worker has joined the grid.
    Up {
        /// Its number.
        machine: u64,
        /// Its worker.
        worker: WorkerId,
    },
    /// A machine holds leases again.
    Busy {
        /// Its number.
        machine: u64,
        /// Tasks it runs.
        tasks: u32,
    },
    /// A machine holds none any more.
    Idle {
        /// Its number.
        machine: u64,
    },
    /// The provider said that it takes a machine away.
    Noticed {
        /// Its number.
        machine: u64,
        /// When it is gone, in seconds of the plan.
        gone_at_s: f64,
    },
    /// A machine was told to end, as it is wanted no longer.
    Draining {
        /// Its number.
        machine: u64,
        /// Until when what it runs may go on, in seconds of the plan.
        until_s: f64,
    },
    /// A machine is gone.
    Ended {
        /// Its number.
        machine: u64,
        /// Why.
        why: Why,
        /// What it still held, given back in its name.
        given_back: Vec<ChunkKey>,
    },
}

/// Why a machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was wanted no longer.
    Drained,
    /// Its provider took it away.
    Reclaimed,
    /// Its process ended by itself, which no machine's should.
    Failed,
    /// The work is over.
    Over,
}

impl Why {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Reclaimed => "reclaimed",
            Self::Failed => "failed",
            Self::Over => "over",
        }
    }
}
