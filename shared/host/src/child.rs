//! One process of a package: its start, the calls it runs, its end.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sheaf_api::run::Call;
use sheaf_core::{Failure, FailureKind};
use tokio::{
    process::{Child as Process, Command},
    sync::watch,
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    capture::LogPipe,
    checkpoint::{self, Watched},
    desk::{Desk, Phase},
    limits,
    package::Package,
    proc_table::ProcTable,
    process::{self, Group, KillOnDrop},
    run::Run,
    runtime_api,
    scratch::Scratch,
};

/// How a call ended on a child.
pub(crate) enum Ended {
    /// Nothing more is to be started; the child may be used again.
    Done,
    /// The child is gone, and what it had in hand is closed; the rest wants another one.
    Lost,
    /// The child never asked for work.
    NotStarted(Failure),
    /// The host is shutting down.
    Closing,
}

/// A running child. Dropping it kills its process group; the process is reaped, and its directory removed, by a task that
/// the host owns.
pub(crate) struct Child {
    group: Group,
    desk: Arc<Desk>,
    exit: watch::Receiver<Option<ExitStatus>>,
    started: Instant,
    ended: bool,
    /// Where its checkpoints lie, if it leaves any.
    dir: PathBuf,
    _package: Arc<Package>,
    _listener: AbortOnDropHandle<()>,
    _reader: AbortOnDropHandle<()>,
}

impl Child {
    /// Starts a package's `bootstrap`. It is ready when it asks for work.
    pub(crate) async fn start(
        call: &Call,
        handler: &str,
        package: Arc<Package>,
        scratch: &Scratch,
        tracker: &TaskTracker,
    ) -> Result<Self, Failure> {
        let not_started = |what: &str, error: io::Error| {
            Failure::new(FailureKind::NotStarted, format!("{what} of function {}: {error}", call.function))
        };
        let (listener, address) = runtime_api::bind().await.map_err(|error| not_started("the listener", error))?;
        let (log, stdout, stderr) = LogPipe::new().map_err(|error| not_started("the log pipe", error))?;
        let mut dir = scratch.dir().map_err(|error| not_started("the scratch directory", error))?;

        let mut command = process::command(&package.dir.join("bootstrap"), call, dir.path(), &package.dir);
        command.env("AWS_LAMBDA_RUNTIME_API", address.to_string()).env("_HANDLER", handler);
        command.env("LAMBDA_TASK_ROOT", &package.dir).env("LAMBDA_RUNTIME_DIR", &package.dir);
        command.env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/sheaf/{}", call.function.name));
        command.env("AWS_LAMBDA_LOG_STREAM_NAME", &*call.function.version);
        command.envs(&call.manifest.env);
        let checkpoint = checkpoint::path(call, dir.path());
        command.envs(checkpoint.iter().map(|path| (checkpoint::VARIABLE, path)));
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let started = Instant::now();
        let mut process = spawn(&mut command).await.map_err(|error| not_started("bootstrap", explain(error)))?;
        // It holds the writing ends of the log pipe, which must end with the child.
        drop(command);
        let group = Group::new(process.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
        let mut guard = KillOnDrop::new(group);
        if let Err(error) = scratch.record(&dir, group.leader()) {
            return Err(not_started("the record", error));
        }
        tracing::debug!(function = %call.function, pid = group.leader(), "child started");

        let home = dir.path().to_owned();
        let (exit_sender, exit) = watch::channel(None);
        tracker.spawn(async move {
            let status = process.wait().await.unwrap_or_else(|_| ExitStatus::from_raw(0));
            if guard.reaped() {
                dir.release();
            }
            tracing::debug!(pid = group.leader(), %status, "child ended");
            exit_sender.send_replace(Some(status));
            drop(dir);
        });
        let desk = Arc::new(Desk::new(Arc::clone(&log), checkpoint));
        let listener = AbortOnDropHandle::new(tokio::spawn(runtime_api::serve(listener, Arc::clone(&desk))));
        let reader = log.spawn_reader();
        let (_package, _listener, _reader) = (package, listener, reader);
        Ok(Self { group, desk, exit, started, ended: false, dir: home, _package, _listener, _reader })
    }

    /// Whether it can take another call.
    pub(crate) fn is_usable(&self) -> bool {
        !self.ended && self.exit.borrow().is_none() && self.desk.is_usable()
    }

    /// Runs a call until it is done or the child is lost, and gives it back. Dropping the future loses the call; the child
    /// is then to be dropped too.
    pub(crate) async fn run(&mut self, mut run: Run, table: &ProcTable, closing: &CancellationToken) -> (Run, Ended) {
        let call = Arc::clone(&run.call);
        let mut watched = match Watched::start(&call, &self.dir).await {
            Ok(watched) => watched,
            Err(error) => {
                let failure = Failure::new(FailureKind::NotStarted, format!("the checkpoint: {error}"));
                run.report.unanswered = Some(failure.clone());
                return (run, self.not_started(failure));
            }
        };
        self.desk.put(run);
        let ended = self.watch(&call, table, closing, &mut watched).await;
        if let Some(watched) = watched {
            watched.end().await;
        }
        let mut run = self.desk.take().unwrap_or_else(|| Run::new(call));
        if let Ended::NotStarted(failure) = &ended {
            run.report.unanswered = Some(failure.clone());
        }
        (run, ended)
    }

    async fn watch(
        &mut self,
        call: &Call,
        table: &ProcTable,
        closing: &CancellationToken,
        watched: &mut Option<Watched>,
    ) -> Ended {
        let pause = limits::SAMPLE.min(Duration::from_millis(call.manifest.timeout_ms.max(1)));
        let mut exit = self.exit.clone();
        loop {
            tokio::select! {
                biased;
                () = self.desk.turn.notified() => {}
                () = ended(&mut exit) => return self.exited().await,
                () = closing.cancelled() => return Ended::Closing,
                () = tokio::time::sleep(pause) => {
                    self.look_at_memory(call, table);
                    // One that has ended is not signalled: its id may be another's soon.
                    if let Some(watched) = watched
                        && self.exit.borrow().is_none()
                        && watched.look(self.group).await
                    {
                        // Its last checkpoint is in; what it has in hand is not answered.
                        return self.lose();
                    }
                }
            }
            let now = Instant::now();
            match self.desk.phase() {
                Phase::Done => return Ended::Done,
                Phase::Spoiled => return self.lose(),
                Phase::InitFailed(failure) => {
                    return Ended::NotStarted(Failure { stderr: self.desk.printed(), ..failure }.capped());
                }
                Phase::Starting if now > self.started + limits::INIT => {
                    let message = format!("did not ask for work within {} s of its start", limits::INIT.as_secs());
                    return self.not_started(Failure::new(FailureKind::NotStarted, message));
                }
                Phase::Between { since } if now > since + limits::RETURN => {
                    tracing::warn!(function = %call.function, "a child did not come back after an answer; starting another");
                    return self.lose();
                }
                Phase::Working { serial, until } if now >= until.at => {
                    if self.desk.fail(Some(serial), || until.passed()) {
                        return self.lose();
                    }
                }
                Phase::Starting | Phase::Between { .. } | Phase::Working { .. } => {}
            }
        }
    }

    fn look_at_memory(&self, call: &Call, table: &ProcTable) {
        let limit = call.manifest.memory_bytes_max;
        let resident = table.resident_bytes(self.group.leader());
        if resident <= limit {
            return;
        }
        match self.desk.phase() {
            Phase::Working { serial, .. } => {
                self.desk.fail(Some(serial), || process::out_of_memory(resident, limit));
                self.desk.spoil();
            }
            Phase::Starting => {
                let failure = process::out_of_memory(resident, limit);
                let message = format!("{} before it was ready", failure.message);
                let _ = self.desk.init_failed(Failure { message, kind: FailureKind::NotStarted, ..failure });
            }
            // Nobody's fault, but it would be the next task's.
            Phase::Between { .. } | Phase::Done => self.desk.spoil(),
            Phase::InitFailed(_) | Phase::Spoiled => {}
        }
    }

    /// The process has ended by itself. An answer that it sent before may still be on its way through the listener.
    async fn exited(&mut self) -> Ended {
        self.ended = true;
        let until = Instant::now() + limits::LAST_ANSWER;
        let mut idle_looks = 0;
        while matches!(self.desk.phase(), Phase::Working { .. }) && Instant::now() < until && idle_looks < 2 {
            idle_looks = if self.desk.connections() == 0 { idle_looks + 1 } else { 0 };
            tokio::time::sleep(limits::LAST_ANSWER / 20).await;
        }
        let status = self.exit.borrow().unwrap_or_default();
        self.desk.fail(None, || process::ended(status, "the function's process"));
        match self.desk.phase() {
            Phase::Done => Ended::Done,
            Phase::InitFailed(failure) => {
                Ended::NotStarted(Failure { stderr: self.desk.printed(), ..failure }.capped())
            }
            Phase::Starting => {
                let failure = process::ended(status, "the function's process");
                let message =
                    format!("{} before it asked for work", failure.message.replace(" and without an answer", ""));
                self.not_started(Failure::new(FailureKind::NotStarted, message))
            }
            Phase::Between { .. } | Phase::Spoiled | Phase::Working { .. } => Ended::Lost,
        }
    }

    fn lose(&mut self) -> Ended {
        self.kill();
        Ended::Lost
    }

    fn not_started(&mut self, failure: Failure) -> Ended {
        self.kill();
        Ended::NotStarted(Failure { stderr: self.desk.printed(), ..failure }.capped())
    }

    fn kill(&mut self) {
        if !self.ended && self.exit.borrow().is_none() {
            self.group.kill_all(&crate::proc_table::scan());
        }
        self.ended = true;
    }

    /// Ends it in good order: SIGTERM, and SIGKILL to those that still live after [`limits::TERM`].
    pub(crate) async fn stop(mut self) {
        if self.exit.borrow().is_none() {
            self.group.signal(Signal::TERM);
            let _ = timeout(limits::TERM, ended(&mut self.exit)).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until the process has been reaped.
async fn ended(exit: &mut watch::Receiver<Option<ExitStatus>>) {
    // An error means that the task which reaps is gone, and with it the runtime.
    let _ = exit.wait_for(Option::is_some).await;
}

/// Starts a program that may have been written a moment ago. Another thread that is just starting something shares the
/// descriptor it was written with until its own program runs, and for so long the file counts as busy.
async fn spawn(command: &mut Command) -> io::Result<Process> {
    for _ in 0..limits::BUSY_LOOKS_MAX {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => tokio::time::sleep(limits::BUSY).await,
            spawned => return spawned,
        }
    }
    command.spawn()
}

/// What the plain text of an error does not say.
fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "the interpreter that its first line names does not exist")
        }
        _ if error.raw_os_error() == Some(8) => {
            io::Error::new(error.kind(), "neither a program for this machine nor a script with a #! line")
        }
        _ => error,
    }
}
