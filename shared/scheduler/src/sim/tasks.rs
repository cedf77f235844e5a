//! Tasks in the simulator: how far they are, and what of it survives.

use crate::checkpoint::CheckpointCost;

/// A task to simulate.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// When it arrives.
    pub arrives_s: f64,
    /// Megabytes it holds while it runs, and a checkpoint writes.
    pub memory_mb: f64,
    /// Seconds it runs on each machine type, none where it does not.
    pub runtime_s: Vec<Option<f64>>,
}

/// Where a task is.
#[derive(Debug, Clone, Default)]
pub struct TaskState {
    /// True once it arrived.
    pub arrived: bool,
    /// The share of it that the last checkpoint holds.
    pub saved: f64,
    /// When it was first started.
    pub started_at_s: Option<f64>,
    /// When its outcome was committed.
    pub done_at_s: Option<f64>,
    /// The runs of it that are under way, by number.
    pub runs: Vec<usize>,
}

/// One attempt at a task on a machine.
#[derive(Debug, Clone)]
pub struct Run {
    /// The task.
    pub task: usize,
    /// The machine.
    pub machine: usize,
    /// When it started.
    pub started_s: f64,
    /// When it ends if nothing happens.
    pub ends_s: f64,
    /// The share of the task that was done before.
    from: f64,
    /// Seconds the whole task takes here.
    whole_s: f64,
    /// Work seconds between two checkpoints.
    every_s: Option<f64>,
    dump_s: f64,
    /// How many checkpoints it writes.
    dumps: u32,
    /// True while it is under way.
    pub alive: bool,
}

impl Run {
    /// A run of a task of which `from` is done, on a machine where all of it takes `whole_s`, with checkpoints about
    /// every `wish_s` of work.
    pub(super) fn new(
        (task, machine): (usize, usize),
        now_s: f64,
        (from, whole_s, memory_mb): (f64, f64, f64),
        wish_s: Option<f64>,
        cost: &CheckpointCost,
    ) -> Self {
        let work_s = (1.0 - from) * whole_s;
        let every_s = wish_s.and_then(|wish_s| cost.spacing_s(work_s, memory_mb, wish_s));
        let dumps = every_s.map_or(0, |every_s| (work_s / every_s).round() as u32 - 1);
        let dump_s = cost.dump_s(memory_mb);
        let ends_s = now_s + work_s + f64::from(dumps) * dump_s;
        Self { task, machine, started_s: now_s, ends_s, from, whole_s, every_s, dump_s, dumps, alive: true }
    }

    /// The share of the task that its last checkpoint holds at `now_s`.
    pub(super) fn saved(&self, now_s: f64) -> f64 {
        let Some(every_s) = self.every_s else { return self.from };
        let written = (((now_s - self.started_s) / (every_s + self.dump_s)).floor()).clamp(0.0, f64::from(self.dumps));
        self.from + written * every_s / self.whole_s
    }

    /// Work seconds that are lost if it ends at `now_s` without an outcome.
    pub(super) fn lost_s(&self, now_s: f64) -> f64 {
        (now_s - self.started_s - (self.saved(now_s) - self.from) * self.whole_s).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_cost_time_and_keep_work() {
        // 10 MB dump in 13.39 s, and 10 % of 300 s pay for two: at 100 and 200 s of work.
        let run = Run::new((0, 0), 1000.0, (0.0, 300.0, 10.0), Some(50.0), &CheckpointCost::default());
        assert!((run.ends_s - 1326.78).abs() < 1e-9);
        assert_eq!(run.saved(1113.0), 0.0, "the dump is not finished");
        assert!((run.saved(1114.0) - 1.0 / 3.0).abs() < 1e-9);
        assert!((run.saved(1320.0) - 2.0 / 3.0).abs() < 1e-9);
        assert!((run.lost_s(1114.0) - 14.0).abs() < 1e-9, "the dump, and what was done since");
        let again = Run::new((0, 0), 0.0, (2.0 / 3.0, 300.0, 10.0), Some(50.0), &CheckpointCost::default());
        assert!((again.ends_s - 100.0).abs() < 1e-9);
        assert!((again.saved(99.0) - 2.0 / 3.0).abs() < 1e-9);
    }
}
