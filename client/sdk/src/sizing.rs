//! How many tasks a chunk should hold.
//!
//! Enough that the chunk costs little beside its work, few enough that no straggler sits behind a big one: work of
//! [`limits::CHUNK_WORK_MS_TARGET`] while the queue is long, an even share of what is left near the end, and single tasks
//! while nothing is known.

use sheaf_core::{Estimate, limits};

use crate::limits::{CHUNK_WORK_US_MIN, CHUNKS_PER_SLOT, PROBES_MIN, TASK_US_MIN};

/// What is known when a chunk is begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// How long the function takes.
    pub(crate) estimate: Estimate,
    /// How many tasks the grid runs at once.
    pub(crate) slots: u32,
    /// How many tasks are still to come, this chunk's included, where that is known.
    pub(crate) remaining: Option<u64>,
}

/// Tasks for the next chunk: 1 to [`limits::CHUNK_TASKS_MAX`].
pub(crate) fn chunk_tasks(known: Known) -> u32 {
    if known.estimate.tasks == 0 {
        return 1;
    }
    // A mean that is no number compares as false everywhere, and `max` makes it the minimum.
    let mean_us = known.estimate.mean_us.max(TASK_US_MIN);
    let full = limits::CHUNK_WORK_MS_TARGET as f64 * 1_000.0 / mean_us;
    let tasks = known.remaining.map_or(full, |remaining| {
        let shares = u64::from(known.slots.max(1)) * CHUNKS_PER_SLOT;
        let share = remaining.div_ceil(shares) as f64;
        full.min(share.max(CHUNK_WORK_US_MIN / mean_us))
    });
    (tasks as u32).clamp(1, limits::CHUNK_TASKS_MAX)
}

/// How many single tasks of an unknown function go out before its estimate is waited for.
pub(crate) fn probes(slots: u32) -> u64 {
    (u64::from(slots) * CHUNKS_PER_SLOT).max(PROBES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(mean_us: f64, slots: u32, remaining: Option<u64>) -> u32 {
        chunk_tasks(Known { estimate: Estimate { tasks: 10, mean_us, p95_us: mean_us }, slots, remaining })
    }

    #[test]
    fn nothing_known_is_one_at_a_time() {
        let estimate = Estimate::default();
        assert_eq!(chunk_tasks(Known { estimate, slots: 2, remaining: Some(1_000_000) }), 1);
    }

    #[test]
    fn long_queues_get_ten_seconds_of_work() {
        assert_eq!(tasks(1_000_000.0, 2, None), 10);
        assert_eq!(tasks(100_000.0, 2, None), 100);
        assert_eq!(tasks(600e6, 2, None), 1, "ten-minute tasks travel alone");
        assert_eq!(tasks(0.0, 2, None), 1_024, "tiny tasks fill a chunk");
        assert_eq!(tasks(f64::NAN, 2, None), 1_024);
    }

    #[test]
    fn the_end_of_a_job_is_spread_over_the_slots() {
        assert_eq!(tasks(100_000.0, 2, Some(10_000)), 100);
        assert_eq!(tasks(100_000.0, 2, Some(80)), 10);
        assert_eq!(tasks(100_000.0, 2, Some(8)), 1);
        assert_eq!(tasks(100_000.0, 2, Some(1)), 1);
    }

    #[test]
    fn but_not_below_five_milliseconds_of_work() {
        assert_eq!(tasks(0.1, 2, Some(100)), 1_024);
        assert_eq!(tasks(100.0, 2, Some(80)), 50);
    }
}
