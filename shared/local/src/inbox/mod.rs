//! A watched folder: every file dropped into it becomes a job, and its results appear in another folder.
//!
//! # When a file is taken
//! Dotfiles, `*~`, `*.tmp`, `*.part` and their like are never looked at, nor are folders and symbolic links. Any other file is
//! taken when its size and time have not changed for a quiet time (500 ms) and nobody has it open for writing. Who has is seen
//! on Linux only, and only for processes that the grid's user may inspect. A file that stops in the middle all the same is
//! looked at once more after a grace period (2 s); then it has an error report, but stays where it is: once it changes,
//! it is taken again. The sure way to drop a file is to write it under a name that is not looked at, and to rename it.
//!
//! # Which job it becomes
//! The job's id is made of the file's name, inode, modification time and size. So a grid that is killed goes on with the same
//! jobs when it is started again, and a file that is dropped again is a new job, whose results take the place of the old ones
//! in one step when they are complete. A file that is moved back out of `processed` unchanged is the same file: it has the same
//! results, and nothing runs again until its job is forgotten; `touch` makes it a new one.
//!
//! # Where everything goes
//! | what | where |
//! |---|---|
//! | results of `a.json` | `outbox/a.txt` |
//! | why `a.json` is refused, with line and column | `outbox/a.error.json`; removed by the next good file of that stem |
//! | results of a second file of the stem, `a.csv` | `outbox/a.csv.txt`, then and ever after |
//! | a file that has its results | `processed/a.json`, or `a.json.1` and so on if there is one |
//! | a file that was refused | `processed/failed/a.json`, likewise; one that stops in the middle stays in the inbox |
//!
//! Nothing is ever deleted but error reports that are no longer true. A file that changed while it was run is not moved: it is
//! taken again. If it was replaced, the results of the first are written and then those of the second; if it was written to
//! in place, the first job is cancelled. One that was removed has its results all the same.
//!
//! # Several files
//! Up to four are worked on at once, in the order of their arrival (by modification time for those that are there at the
//! start). A bad file holds up nobody, nor does a huge one: see [`FileOptions::backlog_ms`]. Trouble that is not the file's
//! fault (a grid that is full, a disk that is) postpones it, from 1 s up to a minute at a time, under the same job.

mod event;
mod folder;
mod names;
mod take;
mod waiting;
mod watch;
mod writers;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sheaf_api::Api;
use tokio::{
    sync::Notify,
    task::{self, JoinError, JoinSet, spawn_blocking},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use event::InboxEvent;

use sheaf_files::FileOptions;
use take::{Desk, Folders, Outcome};
use waiting::{Candidate, Verdict, Waiting};

/// Files worked on at once.
const FILES_MAX: usize = 4;
/// How often the folder is looked at if the system does not tell of changes.
const POLL_UNWATCHED: Duration = Duration::from_secs(1);
/// The shortest pause between two looks, and how many times longer than the look itself it is at least.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOK_SHARE: u32 = 10;
/// Files looked up at once among what processes have open.
const CANDIDATES_MAX: usize = 64;

/// Which folders are watched, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxOptions {
    /// Where files are dropped.
    pub inbox: PathBuf,
    /// Where results go.
    pub outbox: PathBuf,
    /// Where files go that are done; on the same file system as the inbox.
    pub processed: PathBuf,
    /// How often the folder is looked at even if nothing seems to happen in it; every 2 s by default.
    pub poll: Duration,
    /// How long a file must not have changed before it is taken; 500 ms by default.
    pub quiet: Duration,
    /// How much longer a file is waited for that stops in the middle; 2 s by default.
    pub grace: Duration,
    /// How files are run.
    pub file: FileOptions,
}

impl InboxOptions {
    /// These folders, with `processed` beside the inbox, and defaults for the rest.
    pub fn new(inbox: impl Into<PathBuf>, outbox: impl Into<PathBuf>) -> Self {
        let inbox = inbox.into();
        Self {
            processed: inbox.with_file_name("processed"),
            inbox,
            outbox: outbox.into(),
            poll: Duration::from_secs(2),
            quiet: Duration::from_millis(500),
            grace: Duration::from_secs(2),
            file: FileOptions::default(),
        }
    }
}

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// A folder cannot be made or read.
    #[error("the folder {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Results or finished files would be dropped files again.
    #[error("{} cannot be both the inbox and where files go that are done", path.display())]
    Same {
        /// The folder.
        path: PathBuf,
    },
}

/// A watched folder.
pub struct Inbox<A> {
    api: Arc<A>,
    folders: Folders,
    files: FileOptions,
    poll: Duration,
    quiet: Duration,
    grace: Duration,
    on_event: Box<dyn Fn(&InboxEvent) + Send + Sync>,
}

impl<A: Api> Inbox<A> {
    /// Makes the folders, whose files will run on this grid. Nothing is taken before [`Inbox::run`].
    ///
    /// # Errors
    /// [`InboxError`]
    pub async fn open(api: Arc<A>, options: InboxOptions) -> Result<Self, InboxError> {
        let InboxOptions { inbox, outbox, processed, poll, quiet, grace, file: files } = options;
        let folders = Folders { failed: processed.join("failed"), inbox, outbox, processed };
        let made = folders.clone();
        spawn_blocking(move || make(&made)).await.expect("making folders does not panic")?;
        Ok(Self { api, folders, files, poll, quiet, grace, on_event: Box::new(|_| ()) })
    }

    /// Tells of everything that happens, as it happens. What is called must not block for long.
    #[must_use]
    pub fn on_event(mut self, on_event: impl Fn(&InboxEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Box::new(on_event);
        self
    }

    /// Works on what is dropped until it is stopped. Files being worked on are then left where they are, and the next run
    /// goes on with them.
    pub async fn run(self, stop: CancellationToken) {
        let Self { api, folders, files, mut poll, quiet, grace, on_event } = self;
        let wake = Arc::new(Notify::new());
        let watcher = watch::watch(&folders.inbox, wake.clone());
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the inbox is looked at every second, as it cannot be watched");
            on_event(&InboxEvent::Unwatched { reason: error.to_string() });
            poll = poll.min(POLL_UNWATCHED);
        }
        let mut clerk = Clerk {
            desk: Arc::new(Desk { api, folders, options: files, names: Arc::default(), on_event }),
            waiting: Waiting::new(quiet, grace),
            tasks: JoinSet::new(),
            in_hand: HashMap::new(),
            look_at: Instant::now(),
            may_look_at: Instant::now(),
            poll,
        };
        clerk.work(&stop, &wake).await;
        clerk.tasks.shutdown().await;
    }
}

fn make(folders: &Folders) -> Result<(), InboxError> {
    let Folders { inbox, outbox, processed, failed } = folders;
    let fail = |path: &Path, source| InboxError::Folder { path: path.to_owned(), source };
    let mut real = Vec::new();
    for folder in [inbox, outbox, processed, failed] {
        let made = std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize());
        real.push(made.map_err(|source| fail(folder, source))?);
    }
    if real[1..].contains(&real[0]) {
        return Err(InboxError::Same { path: inbox.clone() });
    }
    Ok(())
}

/// Looks at the folder and hands out files.
struct Clerk<A> {
    desk: Arc<Desk<A>>,
    waiting: Waiting,
    tasks: JoinSet<Outcome>,
    in_hand: HashMap<task::Id, OsString>,
    look_at: Instant,
    may_look_at: Instant,
    poll: Duration,
}

impl<A: Api> Clerk<A> {
    async fn work(&mut self, stop: &CancellationToken, wake: &Notify) {
        while !stop.is_cancelled() {
            if Instant::now() >= self.look_at {
                self.look().await;
            }
            self.hand_out().await;
            let ready_at = self.waiting.ready_at(Instant::now()).filter(|_| self.tasks.len() < FILES_MAX);
            let until = ready_at.map_or(self.look_at, |ready_at| ready_at.min(self.look_at));
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(done) = self.tasks.join_next_with_id() => self.finish(done),
                () = wake.notified() => self.look_at = self.look_at.min(self.may_look_at.max(Instant::now())),
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    async fn look(&mut self) {
        let started = Instant::now();
        let inbox = self.desk.folders.inbox.clone();
        let found = spawn_blocking(move || folder::look(&inbox)).await.expect("reading a folder does not panic");
        let now = Instant::now();
        match found {
            Ok(found) => self.waiting.observe(found, now),
            Err(error) => {
                tracing::warn!(%error, "the inbox cannot be read");
                (self.desk.on_event)(&InboxEvent::Unreadable { reason: error.to_string() });
            }
        }
        self.may_look_at = now + LOOK_PAUSE.max(now.duration_since(started) * LOOK_SHARE);
        self.plan_look(now);
    }

    fn plan_look(&mut self, now: Instant) {
        let quiet_at = self.waiting.look_at().unwrap_or(now + self.poll);
        self.look_at = quiet_at.min(now + self.poll).max(self.may_look_at);
    }

    /// Starts as many files as may be worked on at once.
    async fn hand_out(&mut self) {
        if self.tasks.len() >= FILES_MAX {
            return;
        }
        let mut ready = self.waiting.ready(Instant::now());
        ready.truncate(CANDIDATES_MAX);
        if ready.is_empty() {
            return;
        }
        let files: HashSet<_> = ready.iter().map(|candidate| candidate.stamp.file()).collect();
        let writing = spawn_blocking(move || writers::open_for_writing(&files));
        let writing = writing.await.expect("looking at processes does not panic");
        for candidate in ready {
            if writing.contains(&candidate.stamp.file()) {
                self.waiting.put_off(&candidate.name, Instant::now());
            } else if self.tasks.len() < FILES_MAX {
                self.start(candidate);
            }
        }
    }

    fn start(&mut self, candidate: Candidate) {
        self.waiting.take(&candidate);
        let name = candidate.name.clone();
        let task = self.tasks.spawn(self.desk.clone().take(candidate));
        self.in_hand.insert(task.id(), name);
    }

    fn finish(&mut self, done: Result<(task::Id, Outcome), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(format!("a defect: {error}"))),
        };
        let Some(name) = self.in_hand.remove(&id) else { return };
        let (verdict, reason) = match outcome {
            Ok(verdict) => (verdict, None),
            Err(reason) => (Verdict::Trouble, Some(reason)),
        };
        let now = Instant::now();
        let again_in = self.waiting.finish(&name, verdict, now);
        if let Some(reason) = reason {
            let file = name.to_string_lossy().into_owned();
            tracing::warn!(file, reason, "a dropped file is postponed");
            (self.desk.on_event)(&InboxEvent::Postponed { file, reason, again_in });
        }
        self.plan_look(now);
    }
}
