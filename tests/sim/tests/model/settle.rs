//! That it comes to an end: from every state, when no more fault happens and everybody goes on, the job is over and every
//! task has its outcome.

use std::sync::PoisonError;

use sheaf_core::JobState;
use stateright::Model as _;

use super::{Action, Actor, Fate, Faults, Grid, Protocol, cancel::Canceller, hash_of, house::Summariser, worker::Step};

/// Steps after which a run is taken for endless.
const STEPS_MAX: usize = 1_000;

impl Protocol {
    /// Follows the one fair run that time passes in only when nobody has anything to do, up to a state that is known.
    pub(crate) fn settles(&self, from: &Grid) -> bool {
        let mut faults = Faults::NONE;
        if self.bounds.sweeps == 0 {
            faults.sweeps = 0;
        }
        let mut grid = Grid { faults, ..from.clone() };
        grid.store.note = None;
        let mut run = Vec::new();
        while grid.store.broken.is_empty() && run.len() < STEPS_MAX {
            let hash = hash_of(&grid);
            let known = self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash);
            if !known {
                run.push(hash);
            }
            let next = if known { None } else { self.forced(&grid).and_then(|action| self.after(&grid, action)) };
            match next {
                Some(mut next) if hash_of(&next) != hash => {
                    next.store.note = None;
                    grid = next;
                }
                _ if known || grid.is_settled() => {
                    self.settled.lock().unwrap_or_else(PoisonError::into_inner).extend(run);
                    return true;
                }
                _ => return false,
            }
        }
        // A state that breaks another promise is not held against this one.
        !from.store.broken.is_empty()
    }

    /// What happens next in that run.
    fn forced(&self, grid: &Grid) -> Option<Action> {
        if let Some(actor) = grid.actors().find(|&actor| !grid.is_idle(actor)) {
            return Some(Action::Step(actor, Fate::Answered));
        }
        let mut actions = Vec::new();
        self.actions(grid, &mut actions);
        let useful = |action: &Action| match action {
            Action::Receive { .. } | Action::TakeIn(_) | Action::Look(_) | Action::LandGhost => true,
            Action::SweepCancelled => grid.cancel_is_due(),
            Action::TimePasses => true,
            Action::Step(..)
            | Action::Cancel
            | Action::Heartbeat(_)
            | Action::CommitSome(_)
            | Action::Drain(_)
            | Action::Copy { .. }
            | Action::Crash { .. } => false,
        };
        actions.into_iter().find(useful)
    }
}

impl Faults {
    const NONE: Self =
        Self { crashes: 0, duplicates: 0, lost: 0, ghosts: 0, drains: 0, copies: 0, steps: u8::MAX, sweeps: u8::MAX };
}

impl Grid {
    /// Whether carrying out the cancellation now would do anything.
    fn cancel_is_due(&self) -> bool {
        let chunks = self.store.all().count() as u64;
        self.store.open().count() > 0 || self.store.tally.summary().chunks_ended >= chunks
    }

    fn is_settled(&self) -> bool {
        let acknowledged = self.store.numbers().filter(|chunk| self.acknowledged & 1 << chunk != 0);
        let all_ended = self.store.open().count() == 0;
        let all_counted = self.store.tally.summary().chunks_ended == self.store.all().count() as u64;
        self.store.is_over()
            && all_ended
            && all_counted
            && acknowledged.into_iter().all(|chunk| self.store.chunk(chunk).is_some())
            && self.hints.is_empty()
            && self.store.feed.is_empty()
            && self.is_idle(Actor::Client)
            && matches!(self.canceller, Canceller::Idle | Canceller::Over)
            && self.summariser == Summariser::Idle
            && self.workers.iter().all(|worker| worker.step == Step::Idle)
            && !matches!(self.store.job.state, JobState::Cancelling { .. })
    }
}
