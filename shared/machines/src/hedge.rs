//! Second copies of tasks on machines that may be taken away, where the policy has machines to spare that stay.

use sheaf_core::Lane;

use crate::{
    event::What,
    fleet::{Fleet, Grid, TaskNow},
};

/// An attempt of which a second copy was asked for: its task, and since when it runs (Unix, ms).
pub(crate) type Hedged = (usize, u64);

impl Fleet<'_> {
    /// Asks for as many copies as the policy wants, of what would end last, one of an attempt.
    pub(crate) async fn hedge(&mut self, tasks: &[TaskNow], now_ms: u64, grid: &impl Grid) {
        let wanted: u64 = self.decided.hedges.iter().map(|hedge| hedge.copies).sum();
        let mut attempts = self.exposed(tasks, now_ms);
        self.hedged.retain(|hedged| attempts.iter().any(|(attempt, _)| attempt == hedged));
        attempts.retain(|(attempt, _)| !self.hedged.contains(attempt));
        attempts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        attempts.truncate((wanted as usize).saturating_sub(self.hedged.len()));
        if attempts.is_empty() {
            return;
        }
        let numbers: Vec<usize> = attempts.iter().map(|((task, _), _)| *task).collect();
        grid.hedge(&numbers).await;
        self.hedged.extend(attempts.into_iter().map(|(attempt, _)| attempt));
        self.tell(What::Hedged { tasks: numbers });
    }

    /// The attempts that run where they may be taken away, each with the seconds of the plan that it has left.
    fn exposed(&self, tasks: &[TaskNow], now_ms: u64) -> Vec<(Hedged, f64)> {
        let running = tasks.iter().enumerate().filter_map(|(number, task)| match task {
            TaskNow::Running { worker, since_ms } if !self.stays(worker) => Some((number, *since_ms)),
            TaskNow::Running { .. } | TaskNow::Waiting | TaskNow::Over => None,
        });
        let left_s = |(number, since_ms): Hedged| {
            let ran_s = now_ms.saturating_sub(since_ms) as f64 / 1e3 * self.spec.time_scale;
            self.spec.tasks_s.get(number).copied().unwrap_or_default() - ran_s
        };
        running.map(|attempt| (attempt, left_s(attempt))).collect()
    }
}

/// The lanes that a machine of a market takes tasks from: second copies come by that of machines that stay.
pub(crate) fn lanes(market: Lane) -> &'static [Lane] {
    match market {
        Lane::OnDemand => &[Lane::OnDemand, Lane::Spot],
        Lane::Spot | Lane::Lambda => &[Lane::Spot],
    }
}
