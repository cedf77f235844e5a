//! Counts: what a job's chunks have come to.

use std::ops::{Add, AddAssign};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::Outcome;

/// A set of chunk numbers of one job: which ended, or which a reader has seen.
pub type ChunkSet = RoaringBitmap;

/// The outcomes of a chunk's tasks, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChunkTotals {
    /// Succeeded.
    pub succeeded: u32,
    /// Failed.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
    /// Expired.
    pub expired: u32,
    /// Quarantined.
    pub quarantined: u32,
}

/// The outcomes of a job's tasks, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Succeeded.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Expired.
    pub expired: u64,
    /// Quarantined.
    pub quarantined: u64,
}

impl Totals {
    /// Tasks with an outcome.
    pub const fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.expired + self.quarantined
    }

    /// Tasks with this outcome.
    pub const fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Succeeded => self.succeeded,
            Outcome::Failed => self.failed,
            Outcome::Cancelled => self.cancelled,
            Outcome::Expired => self.expired,
            Outcome::Quarantined => self.quarantined,
        }
    }
}

impl From<ChunkTotals> for Totals {
    fn from(chunk: ChunkTotals) -> Self {
        Self {
            succeeded: chunk.succeeded.into(),
            failed: chunk.failed.into(),
            cancelled: chunk.cancelled.into(),
            expired: chunk.expired.into(),
            quarantined: chunk.quarantined.into(),
        }
    }
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
            expired: self.expired + other.expired,
            quarantined: self.quarantined + other.quarantined,
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What is known of a job without reading its chunks: counts over those that the result step has taken in. It may lag
/// behind the chunks, never run ahead of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Chunks submitted.
    pub chunks_submitted: u64,
    /// Tasks submitted.
    pub tasks_submitted: u64,
    /// Chunks that are final.
    pub chunks_ended: u64,
    /// The outcomes in those.
    pub totals: Totals,
}
