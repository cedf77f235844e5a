//! Where a job stands: one board per job that whoever learns something writes on, and the handle that people read.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use sheaf_api::{Api, wire::JobView};
use sheaf_core::{Estimate, JobId, JobState, Summary, Totals};
use tokio::{sync::watch, time::Instant};

use crate::{
    error::GridError,
    limits::{PROGRESS_MS, RATE_WINDOW_MS},
    retry,
    transport::Transport,
};

/// What submitting waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// The budget of unacknowledged bytes is spent.
    Acknowledgement {
        /// Bytes sent and not acknowledged.
        bytes: usize,
    },
    /// The grid asked to come back later.
    Throttled {
        /// What it said.
        message: String,
    },
    /// The grid cannot be reached, or cannot do it now.
    Unavailable {
        /// What was said of it.
        message: String,
    },
    /// The first tasks of an unknown function are out; how long they take decides how many travel together.
    Estimate,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledgement { bytes } => {
                write!(f, "waiting for {:.1} MiB to be acknowledged", *bytes as f64 / f64::from(1 << 20))
            }
            Self::Throttled { message } => write!(f, "the grid asked to come back later: {message}"),
            Self::Unavailable { message } => write!(f, "trying again: {message}"),
            Self::Estimate => f.write_str("waiting for the first tasks, to see how long they take"),
        }
    }
}

/// How far the submission is.
#[derive(Debug, Clone, Default)]
pub(crate) enum Phase {
    /// It is somebody else's, or was before.
    #[default]
    Elsewhere,
    /// It goes on in this process.
    Feeding,
    /// It is over: the job is sealed, or was cancelled meanwhile.
    Fed,
    /// It cannot go on.
    Failed(Arc<GridError>),
}

/// All that is known of a job here.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) phase: Phase,
    pub(crate) total: Option<u64>,
    pub(crate) submitted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) state: JobState,
    pub(crate) summary: Summary,
    pub(crate) estimate: Estimate,
    pub(crate) slots: u32,
}

impl Known {
    /// Takes in an estimate, unless it knows less.
    pub(crate) const fn estimated(&mut self, estimate: Estimate, slots: u32) {
        if estimate.tasks >= self.estimate.tasks {
            (self.estimate, self.slots) = (estimate, slots);
        }
    }
}

/// The board of a job.
#[derive(Debug)]
pub(crate) struct Board {
    known: watch::Sender<Known>,
}

/// Whether nothing of a job can change any more.
pub(crate) const fn is_over(state: &JobState) -> bool {
    match state {
        JobState::Done { .. } | JobState::Cancelled { .. } => true,
        JobState::Open | JobState::Sealed { .. } | JobState::Cancelling { .. } => false,
    }
}

impl Board {
    pub(crate) fn new(view: &JobView, phase: Phase) -> Self {
        let known = Known {
            phase,
            total: None,
            submitted: 0,
            acknowledged: 0,
            waiting: None,
            state: view.job.state,
            summary: view.summary,
            estimate: view.estimate,
            slots: view.slots,
        };
        Self { known: watch::channel(known).0 }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Known)) {
        self.known.send_modify(change);
    }

    /// Takes in what the grid said. Answers overtake each other; an older one changes nothing.
    pub(crate) fn saw(&self, view: &JobView) {
        self.known.send_if_modified(|known| {
            let older = view.summary.chunks_ended < known.summary.chunks_ended
                || (is_over(&known.state) && !is_over(&view.job.state));
            let same = view.summary == known.summary && view.job.state == known.state;
            if older || (same && view.estimate == known.estimate && view.slots == known.slots) {
                return false;
            }
            (known.state, known.summary) = (view.job.state, view.summary);
            known.estimated(view.estimate, view.slots);
            true
        });
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.known.borrow())
    }

    pub(crate) fn wait_for(&self, waiting: Option<Waiting>) {
        self.known.send_if_modified(|known| {
            let changed = known.waiting != waiting;
            known.waiting = waiting;
            changed
        });
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Waits until the submission cannot go on, and why. Waits for ever otherwise.
    pub(crate) async fn failed(&self) -> GridError {
        let mut known = self.subscribe();
        loop {
            if let Phase::Failed(error) = &known.borrow_and_update().phase {
                return GridError::clone(error);
            }
            if known.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the submission is over, here or elsewhere.
    pub(crate) async fn fed(&self) -> Result<(), GridError> {
        let mut known = self.subscribe();
        loop {
            match &known.borrow_and_update().phase {
                Phase::Failed(error) => return Err(GridError::clone(error)),
                Phase::Fed | Phase::Elsewhere => return Ok(()),
                Phase::Feeding => {}
            }
            if known.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Where a job stands at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Counts {
    /// Tasks it will have, where that is known: its size once sealed, or what the iterator promised.
    pub total: Option<u64>,
    /// Tasks that were packed to be sent.
    pub submitted: u64,
    /// Tasks that the grid has acknowledged: each ends in an outcome, whatever crashes.
    pub acknowledged: u64,
    /// Tasks that have ended, by outcome.
    pub totals: Totals,
    /// Tasks ended per second, over the last five.
    pub rate_per_s: f64,
    /// What submitting waits for right now.
    pub waiting: Option<Waiting>,
    /// Where the job stands.
    pub state: JobState,
    /// How long its function takes, as far as known.
    pub estimate: Estimate,
    /// How many tasks the grid runs at once.
    pub slots: u32,
}

impl Counts {
    /// Tasks that have ended.
    pub const fn ended(&self) -> u64 {
        self.totals.ended()
    }

    /// Whether nothing can change any more.
    pub const fn is_over(&self) -> bool {
        is_over(&self.state)
    }

    /// How long the rest takes at the rate of now, where both are known.
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.ended()) as f64;
        (self.rate_per_s > 0.0).then(|| Duration::try_from_secs_f64(left / self.rate_per_s).ok()).flatten()
    }
}

/// Watches a job. Cheap to keep; asks the grid only inside [`Progress::changed`].
#[derive(Debug)]
pub struct Progress {
    api: Arc<Transport>,
    job: JobId,
    board: Arc<Board>,
    known: watch::Receiver<Known>,
    rate: Rate,
    told_at: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(api: Arc<Transport>, job: JobId, board: Arc<Board>) -> Self {
        let known = board.subscribe();
        let rate = Rate::default();
        Self { api, job, board, known, rate, told_at: None }
    }

    /// What is known here, without asking the grid.
    pub fn now(&mut self) -> Counts {
        let known = self.known.borrow_and_update().clone();
        let sealed = known.state.seal().map(|seal| seal.tasks);
        let ended = known.summary.totals.ended();
        Counts {
            total: sealed.or(known.total),
            submitted: known.submitted.max(known.summary.tasks_submitted),
            acknowledged: known.acknowledged.max(known.summary.tasks_submitted),
            totals: known.summary.totals,
            rate_per_s: self.rate.take(Instant::now(), ended),
            waiting: known.waiting,
            state: known.state,
            estimate: known.estimate,
            slots: known.slots,
        }
    }

    /// Waits for news, at most four times a second, and gives the counts. Returns at once when the job is over. Gives an
    /// error when the grid cannot be asked, or when submitting cannot go on.
    pub async fn changed(&mut self) -> Result<Counts, GridError> {
        if let Some(told_at) = self.told_at {
            tokio::time::sleep_until(told_at + Duration::from_millis(PROGRESS_MS)).await;
        }
        let (seen, over) = self.board.read(|known| (known.summary.chunks_ended, is_over(&known.state)));
        if !over {
            let (api, job) = (&self.api, self.job);
            tokio::select! {
                view = retry::poll(|wait_ms| api.progress(job, Some(seen), wait_ms)) => self.board.saw(&view?),
                changed = self.known.changed() => {
                    debug_assert!(changed.is_ok(), "this handle keeps the board");
                    // What was learnt is what was submitted; what has ended meanwhile, only the grid knows.
                    self.board.saw(&retry::call(|| api.progress(job, None, 0)).await?);
                }
            }
        }
        if let Phase::Failed(error) = &self.known.borrow().phase {
            return Err(GridError::clone(error));
        }
        self.told_at = Some(Instant::now());
        Ok(self.now())
    }
}

/// A rate over the last [`RATE_WINDOW_MS`].
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn take(&mut self, now: Instant, count: u64) -> f64 {
        let window = Duration::from_millis(RATE_WINDOW_MS);
        while self.samples.len() > 1 && now - self.samples[1].0 >= window {
            self.samples.pop_front();
        }
        let spaced = |&(at, _): &(Instant, u64)| now - at >= Duration::from_millis(PROGRESS_MS / 2);
        if self.samples.back().is_none_or(spaced) {
            self.samples.push_back((now, count));
        }
        let (since, before) = self.samples[0];
        let seconds = (now - since).as_secs_f64();
        if seconds > 0.0 { count.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_looks_back_five_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.take(Instant::now(), 0), 0.0);
        for second in 1..=20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            let count = if second <= 10 { second * 100 } else { 1_000 + (second - 10) * 10 };
            let found = rate.take(Instant::now(), count);
            match second {
                1..=10 => assert!((found - 100.0).abs() < 1.0, "{found} at {second}"),
                16.. => assert!((found - 10.0).abs() < 1.0, "{found} at {second}"),
                _ => {}
            }
        }
        assert!(rate.samples.len() < 50);
    }

    #[test]
    fn waiting_speaks() {
        let waiting = Waiting::Acknowledgement { bytes: 64 << 20 };
        assert_eq!(waiting.to_string(), "waiting for 64.0 MiB to be acknowledged");
    }
}
