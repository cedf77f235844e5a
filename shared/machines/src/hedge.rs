//! Second copies of tasks on machines that may be taken away, where the policy has machines to spare that stay.
//!
//! A copy holds no lease, so a policy sees its machine idle, as it was when the copy was asked for. In the figures that machine is
//! busy, and the time of a copy that was not needed is lost.

use sheaf_core::Lane;

use crate::{
    event::What,
    fleet::{Fleet, Grid, TaskNow},
    machine::State,
};

/// An attempt of which a second copy was asked for: its task, and since when it runs (Unix, ms).
pub(crate) type Hedged = (usize, u64);

/// A second copy that a machine runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningCopy {
    /// Its task.
    task: usize,
    /// Since when it was seen, in seconds of the plan.
    since_s: f64,
}

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

    /// Looks which second copies have begun and which have ended. Asks for nothing while there can be none.
    pub(crate) async fn note_copies(&mut self, now_s: f64, grid: &impl Grid) {
        if self.hedged.is_empty() && self.machines.iter().all(|machine| machine.copies.is_empty()) {
            return;
        }
        let Some(now) = grid.copies().await else { return };
        for number in 0..self.machines.len() {
            let machine = &mut self.machines[number];
            if machine.state == State::Gone {
                continue;
            }
            let ours = now.iter().filter(|(worker, _)| *worker == machine.worker);
            let tasks: Vec<usize> = ours.map(|(_, task)| *task).collect();
            let ended: Vec<RunningCopy> = machine.copies.extract_if(.., |copy| !tasks.contains(&copy.task)).collect();
            for task in tasks {
                if machine.copies.iter().all(|copy| copy.task != task) {
                    machine.copies.push(RunningCopy { task, since_s: now_s });
                }
            }
            self.end_copies(number, ended, now_s, grid).await;
        }
    }

    /// Tells of copies that have ended. One whose worker then has its task, or has brought it to its outcome, was of use.
    pub(crate) async fn end_copies(&mut self, number: usize, ended: Vec<RunningCopy>, now_s: f64, grid: &impl Grid) {
        for RunningCopy { task, since_s } in ended {
            let counts = grid.owner(task).await.as_ref() == Some(&self.machines[number].worker);
            let machine = &mut self.machines[number];
            let ran_s = now_s - since_s;
            if !counts {
                machine.copies_lost_s += ran_s;
            }
            let machine = machine.id;
            self.tell(What::Copied { machine, task, ran_s, counts });
        }
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
