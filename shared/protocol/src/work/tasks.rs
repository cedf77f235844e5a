//! The open tasks of a chunk that is being run: which wait, which wait for another attempt, and what a failure means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sheaf_api::run::Failed;
use sheaf_core::{Chunk, Consequence, Failure, Mark, Tally, limits};

/// Work that one call should hold: long enough to make its overhead small, short enough to share a chunk between slots.
const CALL_US: f64 = 20_000.0;

pub(super) struct Tasks {
    waiting: VecDeque<u32>,
    /// Ready at (Unix, ms), task.
    delayed: BTreeSet<(u64, u32)>,
    /// Tasks of a batch that died, which are now run alone.
    alone: BTreeSet<u32>,
    tallies: BTreeMap<u32, Tally>,
    changed: BTreeSet<u32>,
    ordered: bool,
    attempts_max: u32,
    /// Mean run time of a task, once known.
    mean_us: Option<f64>,
}

/// How many tasks a call of a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// One, whose checkpoint is kept while it runs.
    One,
    /// As many as make a call worth its while.
    Some,
    /// All that wait: it is a batch function.
    All,
}

/// What becomes of a task whose attempt failed.
pub(super) enum Verdict {
    /// It has its outcome.
    Closed(Mark, Failure),
    /// It is tried again.
    Again,
}

impl Tasks {
    pub(super) fn of(chunk: &Chunk, ordered: bool, attempts_max: u32, mean_us: Option<f64>) -> Self {
        // Most chunks are begun with all of their tasks open.
        let mut waiting = VecDeque::with_capacity(chunk.spec.tasks as usize);
        waiting.extend(chunk.work.marks.open_tasks());
        Self {
            waiting,
            delayed: BTreeSet::new(),
            alone: BTreeSet::new(),
            tallies: chunk.work.tallies.clone(),
            changed: BTreeSet::new(),
            ordered,
            attempts_max,
            mean_us,
        }
    }

    /// Takes out the tasks that have been struck too often already, by deaths of whole workers.
    pub(super) fn take_condemned(&mut self) -> Vec<(u32, Failure)> {
        let struck = self.tallies.iter().filter(|(_, tally)| tally.strikes >= limits::STRIKES_MAX);
        let struck: Vec<(u32, Tally)> = struck.map(|(&task, &tally)| (task, tally)).collect();
        self.waiting.retain(|task| !struck.iter().any(|(other, _)| other == task));
        let failure = |tally: Tally| {
            let message = format!("the worker died under it {} times", tally.strikes);
            let failure = Failure::new(sheaf_core::FailureKind::WorkerDied, message);
            Failure { attempts: tally.attempts + u32::from(tally.strikes), ..failure }
        };
        struck.into_iter().map(|(task, tally)| (task, failure(tally))).collect()
    }

    /// The next tasks to run in one call: of one function, as `function_of` says, so many as `share_of` says of it, one if the
    /// chunk is isolated.
    pub(super) fn take(
        &mut self,
        now_ms: u64,
        isolated: bool,
        function_of: impl Fn(u32) -> u16,
        share_of: impl Fn(u16) -> Share,
    ) -> Option<Vec<u32>> {
        while let Some(&(ready_ms, task)) = self.delayed.first() {
            if ready_ms > now_ms {
                break;
            }
            self.delayed.pop_first();
            self.waiting.push_front(task);
        }
        if self.ordered && !self.delayed.is_empty() {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let function = function_of(first);
        let most = match share_of(function) {
            _ if isolated || self.alone.contains(&first) => 1,
            Share::One => 1,
            Share::Some => {
                self.mean_us.map_or(1, |mean_us| (CALL_US / mean_us.max(0.01)).clamp(1.0, 65_536.0) as usize)
            }
            Share::All => usize::MAX,
        };
        let mut tasks = Vec::with_capacity(most.min(self.waiting.len() + 1));
        tasks.push(first);
        while tasks.len() < most
            && let Some(&task) = self.waiting.front()
            && function_of(task) == function
            && !self.alone.contains(&task)
        {
            self.waiting.pop_front();
            tasks.push(task);
        }
        Some(tasks)
    }

    /// Takes out a task that runs already.
    pub(super) fn take_out(&mut self, task: u32) {
        self.waiting.retain(|waiting| *waiting != task);
    }

    /// How many calls the waiting tasks are worth.
    pub(super) fn calls_waiting(&self) -> usize {
        match self.mean_us {
            _ if self.waiting.is_empty() => 0,
            None => self.waiting.len(),
            Some(mean_us) => (self.waiting.len() as f64 * mean_us / CALL_US).ceil() as usize,
        }
    }

    /// When the next delayed task is ready (Unix, ms).
    pub(super) fn ready_at_ms(&self) -> Option<u64> {
        self.delayed.first().map(|(ready_ms, _)| *ready_ms)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.delayed.is_empty()
    }

    /// Takes in how long the tasks of a call took on average.
    pub(super) fn observe(&mut self, mean_us: f64) {
        let mean_us = mean_us.max(0.1);
        self.mean_us = Some(self.mean_us.map_or(mean_us, |before| 0.5 * (before + mean_us)));
    }

    /// Puts back tasks that a call did not start.
    pub(super) fn put_back(&mut self, tasks: impl DoubleEndedIterator<Item = u32>) {
        tasks.rev().for_each(|task| self.waiting.push_front(task));
    }

    /// Puts back tasks of a batch that died, to be run alone from now on.
    pub(super) fn put_back_alone(&mut self, tasks: impl DoubleEndedIterator<Item = u32> + Clone) {
        self.alone.extend(tasks.clone());
        self.put_back(tasks);
    }

    /// Decides on a failed attempt. `jitter` gives a number below its argument.
    pub(super) fn judge(&mut self, failed: &Failed, now_ms: u64, jitter: impl FnOnce(u64) -> u64) -> Verdict {
        let tally = self.tallies.entry(failed.task).or_default();
        let close = |mark, tally: Tally| {
            let attempts = tally.attempts + u32::from(tally.strikes);
            Verdict::Closed(mark, Failure { attempts, ..failed.failure.clone() }.capped())
        };
        match failed.failure.kind.consequence() {
            Consequence::Fail => {
                tally.attempts += 1;
                close(Mark::Failed, *tally)
            }
            Consequence::Strike => {
                tally.strikes = tally.strikes.saturating_add(1);
                if tally.strikes >= limits::STRIKES_MAX {
                    return close(Mark::Quarantined, *tally);
                }
                self.changed.insert(failed.task);
                self.alone.insert(failed.task);
                self.waiting.push_front(failed.task);
                Verdict::Again
            }
            Consequence::Retry => {
                tally.attempts += 1;
                if tally.attempts >= self.attempts_max {
                    return close(Mark::Failed, *tally);
                }
                let bound_ms = (limits::BACKOFF_BASE_MS << tally.attempts.min(16)).min(limits::BACKOFF_MAX_MS);
                self.changed.insert(failed.task);
                self.delayed.insert((now_ms + jitter(bound_ms), failed.task));
                Verdict::Again
            }
        }
    }

    /// Tallies that changed since they were last taken, of tasks that are still open.
    pub(super) fn take_changed(&mut self) -> Vec<(u32, Tally)> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .filter_map(|task| Some((task, *self.tallies.get(&task)?)))
            .collect()
    }
}
