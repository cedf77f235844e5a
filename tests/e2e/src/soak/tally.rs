//! What has happened, counted.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Violations printed; more are only counted.
const PRINTED_MAX: u64 = 50;

/// The counts of a soak. Shared by everybody.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tasks acknowledged.
    pub(crate) tasks: AtomicU64,
    /// Results read and found right, each read counted.
    pub(crate) results: AtomicU64,
    /// Jobs that were followed to their end.
    pub(crate) jobs: AtomicU64,
    /// Of these, cancelled on purpose.
    pub(crate) cancelled: AtomicU64,
    /// Kills of the grid.
    pub(crate) grid_kills: AtomicU64,
    /// Kills of clients.
    pub(crate) client_kills: AtomicU64,
    /// Results that a killed client was given again, as it must expect.
    pub(crate) given_again: AtomicU64,
    /// Tasks that were quarantined since the grid died under them three times: their one outcome, if a rare one.
    pub(crate) quarantined: AtomicU64,
    /// Tasks acknowledged that have no outcome, or another result than they should.
    pub(crate) losses: AtomicU64,
    /// Tasks seen to end twice.
    pub(crate) duplicates: AtomicU64,
    /// Other promises broken.
    pub(crate) violations: AtomicU64,
    recoveries: Mutex<Vec<Duration>>,
}

impl Tally {
    fn report(&self, counter: &AtomicU64, what: &str) {
        counter.fetch_add(1, Relaxed);
        if self.failures() <= PRINTED_MAX {
            println!("FAILURE: {what}");
        }
    }

    fn failures(&self) -> u64 {
        self.losses.load(Relaxed) + self.duplicates.load(Relaxed) + self.violations.load(Relaxed)
    }

    /// Something acknowledged is not there, or not as it was.
    pub(crate) fn loss(&self, what: &str) {
        self.report(&self.losses, what);
    }

    /// A task was seen to end twice.
    pub(crate) fn duplicate(&self, what: &str) {
        self.report(&self.duplicates, what);
    }

    /// Any other promise was broken.
    pub(crate) fn violation(&self, what: &str) {
        self.report(&self.violations, what);
    }

    /// A client could not go on. Clients ask only for jobs whose creation was acknowledged.
    pub(crate) fn gave_up(&self, why: &str) {
        let is_gone = why.contains("no such thing");
        self.report(if is_gone { &self.losses } else { &self.violations }, &format!("a client gave up: {why}"));
    }

    /// The grid answered again after so long.
    pub(crate) fn recovered(&self, after: Duration) {
        self.recoveries().push(after);
    }

    fn recoveries(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.recoveries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether anything was wrong.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures() > 0
    }

    /// How long the grid was away, from its death to its next answer.
    pub(crate) fn recovery(&self) -> String {
        let mut all = self.recoveries().clone();
        all.sort_unstable();
        match all.as_slice() {
            [] => "none".to_owned(),
            all => format!(
                "{} ms median, {} ms at most, of {}",
                all[all.len() / 2].as_millis(),
                all[all.len() - 1].as_millis(),
                all.len()
            ),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        write!(
            f,
            "{} tasks, {} results checked, {} jobs ({} cancelled), {} kills of the grid, {} of clients, {} given again, {} \
             quarantined; {} lost, {} visible duplicates, {} other violations",
            of(&self.tasks),
            of(&self.results),
            of(&self.jobs),
            of(&self.cancelled),
            of(&self.grid_kills),
            of(&self.client_kills),
            of(&self.given_again),
            of(&self.quarantined),
            of(&self.losses),
            of(&self.duplicates),
            of(&self.violations)
        )
    }
}
