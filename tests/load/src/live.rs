//! What can be seen of a measurement while it runs.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::histogram::Times;

/// Counters that the clients move, and anybody may read.
#[derive(Debug, Default)]
pub struct Live {
    submitted: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    latency: Mutex<Times>,
}

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Tasks taken for submission so far.
    pub submitted: u64,
    /// Tasks that have come back.
    pub done: u64,
    /// Of those: not as they had to.
    pub failed: u64,
    /// Latency of the single tasks so far, in ms: median and 99th percentile, if there were any.
    pub latency_ms: Option<(f64, f64)>,
}

impl Live {
    /// Tasks are taken for submission.
    pub fn submitted(&self, tasks: u64) {
        self.submitted.fetch_add(tasks, Ordering::Relaxed);
    }

    /// Tasks have come back, some of them not as they had to.
    pub fn done(&self, tasks: u64, failed: u64) {
        self.done.fetch_add(tasks, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// A single task took so long.
    pub fn took(&self, latency: Duration) {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).add(latency);
    }

    /// How many tasks have come back.
    pub fn done_so_far(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let latency_ms = (latency.count() > 0).then(|| (latency.percentile_ms(50.0), latency.percentile_ms(99.0)));
        Standing {
            submitted: self.submitted.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            latency_ms,
        }
    }
}
