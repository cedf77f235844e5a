//! The host: opens its directory, gives each call to what runs its kind, and ends everything.

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sheaf_api::{
    invoke::Invoker,
    run::{Call, Report},
};
use sheaf_core::{Digest, Failure, FailureKind, FunctionKind};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    NoPackages, PackageSource,
    child::{Child, Ended},
    command,
    handler::Handlers,
    invoke, linked,
    package::{PackageError, Packages},
    pool::Pool,
    proc_table::ProcTable,
    run::Run,
    scratch::Scratch,
    threads::Threads,
};

/// What a host is made of.
#[derive(bon::Builder)]
pub struct HostOptions {
    /// Its directory: packages, the scratch directories of children, records of what runs. One host at a time may have it
    /// open. It should lie on a local file system.
    #[builder(into)]
    scratch: PathBuf,
    /// How many calls run at once, and how many children are kept at most; further calls wait. At least 1. Default: 1.
    #[builder(default = 1)]
    slots: usize,
    /// The functions that are linked in. Default: none.
    #[builder(default)]
    handlers: Handlers,
    /// Where the zips of packages come from. Default: [`NoPackages`].
    #[builder(default = Arc::new(NoPackages))]
    packages: Arc<dyn PackageSource>,
    /// Who invokes Lambda functions by their ARN. Default: nobody; such a function cannot be started then.
    invoker: Option<Arc<dyn Invoker>>,
    /// How long a child is kept warm without a call. Default: 60 s.
    #[builder(default = Duration::from_secs(60))]
    idle: Duration,
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scratch, slots, handlers, packages: _, invoker: _, idle } = self;
        let mut debug = f.debug_struct("HostOptions");
        debug.field("scratch", scratch).field("slots", slots).field("handlers", handlers).field("idle", idle);
        debug.finish_non_exhaustive()
    }
}

/// Why a host could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its directory cannot be made, read or cleaned up.
    #[error("scratch directory {}", path.display())]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another host has the directory open.
    #[error("scratch directory {} is in use by another worker", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Runs functions. Cloning shares it; when the last clone is dropped its children are killed.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) scratch: Scratch,
    pub(crate) table: ProcTable,
    pub(crate) closing: CancellationToken,
    slots: usize,
    free: Semaphore,
    handlers: Handlers,
    packages: Packages,
    pub(crate) invoker: Option<Arc<dyn Invoker>>,
    pool: Pool,
    threads: Threads,
    tracker: TaskTracker,
    idle: Duration,
}

impl Host {
    /// Opens a host, ending processes and removing directories that one which was killed left behind. Does disk I/O on the
    /// calling thread; needs a Tokio runtime with I/O and time, on which the children are watched.
    pub fn open(options: HostOptions) -> Result<Self, HostError> {
        let HostOptions { scratch: path, slots, handlers, packages, invoker, idle } = options;
        let slots = slots.max(1);
        let tracker = TaskTracker::new();
        let scratch = Scratch::open(&path, tracker.clone())?;
        let packages = Packages::open(scratch.packages(), packages);
        let packages = packages.map_err(|source| HostError::Scratch { path, source })?;
        let shared = Arc::new(Shared {
            scratch,
            table: ProcTable::default(),
            closing: CancellationToken::new(),
            slots,
            free: Semaphore::new(slots),
            handlers,
            packages,
            invoker,
            pool: Pool::new(slots),
            threads: Threads::default(),
            tracker,
            idle,
        });
        shared.tracker.spawn(stop_idle(Arc::downgrade(&shared), shared.closing.clone(), idle));
        Ok(Self(shared))
    }

    /// How many calls run at once.
    pub fn slots(&self) -> usize {
        self.0.slots
    }

    /// How many warm children wait for a call.
    pub fn idle_children(&self) -> usize {
        self.0.pool.idle()
    }

    /// Runs a call, waiting for a free slot first. See the [crate's page](crate) for what each kind of function is given
    /// and may answer.
    ///
    /// Every task of the call is answered, failed, or in no list of the report: then it was not started, because the
    /// budget or the deadline had passed, enough results wait to be committed, or the host is shutting down; unless
    /// [`Report::unanswered`] tells why those tasks have no answer. The first task is started whatever the budget is.
    ///
    /// Dropping the future kills the process that it runs on, and loses what it had answered.
    pub async fn call(&self, call: Call) -> Report {
        let span = tracing::debug_span!(
            "call",
            job = %call.chunk.job, chunk = call.chunk.number, attempt = call.epoch,
            function = %call.function, tasks = call.tasks.len(),
        );
        let ran = async {
            let report = self.run(call).await;
            tracing::debug!(
                answers = report.answers.tasks(),
                failures = report.failures.len(),
                unanswered = report.unanswered.as_ref().map(|failure| failure.kind.as_str()),
            );
            report
        };
        // Boxed, so that a worker's own future stays small.
        Box::pin(ran.instrument(span)).await
    }

    async fn run(&self, call: Call) -> Report {
        let shared = &*self.0;
        let slot = tokio::select! {
            biased;
            () = shared.closing.cancelled() => None,
            slot = shared.free.acquire() => slot.ok(),
        };
        if slot.is_none() || call.tasks.is_empty() {
            return Report::default();
        }
        if let Some(&task) = call.tasks.iter().find(|&&task| task >= call.pack.tasks()) {
            return not_started(format!("there is no task {task} in a pack of {}", call.pack.tasks()));
        }
        if call.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.is_asked()) {
            return Report::default();
        }
        let manifest = Arc::clone(&call.manifest);
        match &manifest.kind {
            FunctionKind::Package { digest, handler } => shared.run_package(Arc::new(call), *digest, handler).await,
            FunctionKind::Command { argv } => command::run(&call, argv, shared).await,
            FunctionKind::Lambda { arn } => invoke::run(Arc::new(call), arn, shared).await,
            FunctionKind::Handler { revision } => match shared.handlers.get(&manifest.name, revision) {
                Some(handler) => linked::run(call, &handler, &shared.threads, &shared.closing).await,
                None if revision.is_empty() => {
                    not_started(format!("no handler {} is linked into this grid", manifest.name))
                }
                None => {
                    let name = &manifest.name;
                    not_started(format!("no handler {name} of revision {revision:?} is linked into this grid"))
                }
            },
        }
    }

    /// Ends everything: calls in progress give what they have, children get SIGTERM and, if they still live after 2 s,
    /// SIGKILL. Returns when all are reaped and their directories gone. Later calls start nothing. Calling it again waits
    /// for the same.
    pub async fn shutdown(&self) {
        let shared = &*self.0;
        shared.closing.cancel();
        shared.stop(shared.pool.close());
        shared.threads.close();
        // Calls in progress hold a slot until they have handed their child over.
        let slots = u32::try_from(shared.slots).unwrap_or(u32::MAX);
        drop(shared.free.acquire_many(slots).await);
        shared.tracker.close();
        shared.tracker.wait().await;
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("slots", &self.0.slots).finish_non_exhaustive()
    }
}

impl Shared {
    async fn run_package(&self, call: Arc<Call>, digest: Digest, handler: &str) -> Report {
        let package = match self.packages.get(digest).await {
            Ok(package) => package,
            Err(error) => return not_started(with_source(&error)),
        };
        let (mut place, gone) = self.pool.take(&call);
        self.stop(gone);
        let mut run = Run::new(Arc::clone(&call));
        while !run.is_over(Instant::now()) && !self.closing.is_cancelled() {
            let child = match place.child.take() {
                Some(child) => child,
                None => match Child::start(&call, handler, Arc::clone(&package), &self.scratch, &self.tracker).await {
                    Ok(child) => child,
                    Err(failure) => {
                        run.report.unanswered = Some(failure);
                        break;
                    }
                },
            };
            let child = place.child.insert(child);
            let (back, ended) = child.run(run, &self.table, &self.closing).await;
            run = back;
            match ended {
                Ended::Done => break,
                Ended::Lost => place.child = None,
                Ended::NotStarted(_) => {
                    place.child = None;
                    break;
                }
                Ended::Closing => {
                    self.stop(place.child.take().into_iter().collect());
                    break;
                }
            }
        }
        place.give_back(&call);
        run.report
    }

    /// Ends children in good order, in the background.
    fn stop(&self, children: Vec<Child>) {
        for child in children {
            self.tracker.spawn(child.stop());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closing.cancel();
        self.threads.close();
    }
}

/// Stops children that have been idle for too long, until the host is gone.
async fn stop_idle(host: std::sync::Weak<Shared>, closing: CancellationToken, idle: Duration) {
    let pause = (idle / 4).clamp(Duration::from_millis(20), Duration::from_secs(5));
    while closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let Some(host) = host.upgrade() else { return };
        host.stop(host.pool.take_idle(host.idle));
    }
}

pub(crate) fn not_started(message: String) -> Report {
    Report { unanswered: Some(Failure::new(FailureKind::NotStarted, message)), ..Report::default() }
}

fn with_source(error: &PackageError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
