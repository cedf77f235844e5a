//! Commands: a process per task, without a shell.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Instant,
};

use sheaf_api::run::{Call, Failed, Report};
use sheaf_core::{Failure, FailureKind, ResultForm};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
};

use crate::{
    allowance::{Allowance, Until, run_us},
    answer,
    capture::{self, Tail},
    checkpoint::{self, Watched},
    host::Shared,
    limits,
    placeholder::Template,
    process::{self, Group, KillOnDrop},
};

/// Why a command was stopped before its end.
enum Stopped {
    Failed(Failure),
    /// Its last checkpoint is in.
    Checkpointed,
    Closing,
}

/// Runs a call of a command.
pub(crate) async fn run(call: &Call, argv: &[String], host: &Shared) -> Report {
    let mut report = Report::default();
    let template = match Template::parse(argv, call.checkpoint.is_some()) {
        Ok(template) => template,
        Err(failure) => {
            let failed = |&task: &u32| Failed { task, failure: failure.clone(), run_us: 0 };
            let fail = if call.stop_on_failure { 1 } else { call.tasks.len() };
            report.failures = call.tasks.iter().take(fail).map(failed).collect();
            return report;
        }
    };
    let allowance = Allowance::of(call);
    let mut programs = Programs::of(call);
    for (at, &task) in call.tasks.iter().enumerate() {
        let started = Instant::now();
        if host.closing.is_cancelled() || !allowance.may_start(started, at, &report) {
            break;
        }
        let mut tail = Tail::default();
        let until = allowance.until(started, 1);
        let result = run_task(call, task, &template, &mut programs, until, &mut tail, host).await;
        let ran_us = run_us(started, Instant::now());
        if let Some(checkpoint) = &call.checkpoint {
            tail.push(checkpoint.take_notes().as_bytes());
        }
        let log = tail.take();
        let kept = match result {
            Ok(result) => answer::keep(&call.manifest, &mut report.answers, task, &result, ran_us),
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::Checkpointed | Stopped::Closing) => break,
        };
        if !log.is_empty() {
            // A log that finds no room is dropped: the answers matter more.
            let _ = report.logs.succeeded(task, &log, ran_us);
        }
        if let Err(failure) = kept {
            let failure = Failure { stderr: capture::text(&log), ..failure }.capped();
            report.failures.push(Failed { task, failure, run_us: ran_us });
        }
    }
    report
}

/// Where programs lie, looked up once per name.
struct Programs<'a> {
    path: &'a str,
    last: Option<(OsString, PathBuf)>,
}

impl<'a> Programs<'a> {
    fn of(call: &'a Call) -> Self {
        Self { path: call.manifest.env.get("PATH").map_or(limits::PATH, String::as_str), last: None }
    }

    fn find(&mut self, program: OsString) -> Result<PathBuf, Failure> {
        if let Some((name, path)) = &self.last
            && *name == program
        {
            return Ok(path.clone());
        }
        let shown = program.to_string_lossy();
        let Some(found) = process::find(&shown, self.path) else {
            let message = format!("program {shown:?} is not in PATH ({})", self.path);
            return Err(Failure::new(FailureKind::NotStarted, message));
        };
        self.last = Some((program, found.clone()));
        Ok(found)
    }
}

async fn run_task(
    call: &Call,
    task: u32,
    template: &Template,
    programs: &mut Programs<'_>,
    until: Until,
    tail: &mut Tail,
    host: &Shared,
) -> Result<Vec<u8>, Stopped> {
    let failed = |what: &str, error: std::io::Error| {
        Stopped::Failed(Failure::new(FailureKind::NotStarted, format!("{what}: {error}")))
    };
    let mut dir = host.scratch.dir().map_err(|error| failed("the scratch directory", error))?;
    let checkpoint = checkpoint::path(call, dir.path());
    let payload = call.pack.payload_bytes(task);
    let mut arguments = template.fill(&payload, checkpoint.as_deref()).map_err(Stopped::Failed)?.into_iter();
    let program = programs.find(arguments.next().unwrap_or_default()).map_err(Stopped::Failed)?;
    let mut command = process::command(&program, call, dir.path(), dir.path());
    command.args(arguments);
    command.env("SHEAF_TASK", format!("{}/{task}", call.chunk)).env("SHEAF_EPOCH", call.epoch.to_string());
    command.envs(&call.manifest.env).envs(checkpoint.map(|path| (checkpoint::VARIABLE, path)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let has_stdin = template.is_plain() && !payload.is_empty();
    command.stdin(if has_stdin { Stdio::piped() } else { Stdio::null() });
    let mut watched = Watched::start(call, dir.path()).await.map_err(|error| failed("the checkpoint", error))?;
    let process = command.spawn().map_err(|error| Stopped::Failed(not_spawned(&program, &error)))?;
    let group = Group::new(process.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
    let guard = KillOnDrop::new(group);
    host.scratch.record(&dir, group.leader()).map_err(|error| failed("the record", error))?;

    let mut running = Running::new(process, guard, group, &payload);
    let status = running.finish(call, until, tail, host, &mut watched).await;
    let succeeded = status.as_ref().is_ok_and(ExitStatus::success);
    if let Some(watched) = watched.filter(|_| !succeeded) {
        watched.end().await;
    }
    let status = status?;
    let mut result = std::mem::take(&mut running.result);
    if running.ended_alone {
        dir.release();
    }
    drop((running, dir));
    if !status.success() {
        return Err(Stopped::Failed(exit_failure(status, tail)));
    }
    if call.manifest.result == ResultForm::Text && result.last() == Some(&b'\n') {
        result.pop();
    }
    Ok(result)
}

/// A started command and its pipes.
struct Running<'a> {
    // First to be dropped: the group must be killed while its leader is not yet reaped.
    guard: KillOnDrop,
    process: Child,
    group: Group,
    stdin: Option<(ChildStdin, &'a [u8])>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    result: Vec<u8>,
    /// It has ended, and nobody of its group was left then.
    ended_alone: bool,
}

impl<'a> Running<'a> {
    fn new(mut process: Child, guard: KillOnDrop, group: Group, payload: &'a [u8]) -> Self {
        let stdin = process.stdin.take().map(|stdin| (stdin, payload));
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        Self { guard, process, group, stdin, stdout, stderr, result: Vec::new(), ended_alone: false }
    }

    /// Feeds and reads the process until it has ended and its pipes are empty.
    async fn finish(
        &mut self,
        call: &Call,
        until: Until,
        tail: &mut Tail,
        host: &Shared,
        watched: &mut Option<Watched>,
    ) -> Result<ExitStatus, Stopped> {
        let limit = call.manifest.output_bytes_max;
        let mut status: Option<(ExitStatus, Instant)> = None;
        let mut look = Instant::now() + limits::SAMPLE;
        let mut errors = [0; 8192];
        loop {
            let wake = match status {
                Some((_, ended)) => ended + limits::LAST_OUTPUT,
                None => look.min(until.at),
            };
            tokio::select! {
                read = read_some(&mut self.stdout, &mut self.result), if self.stdout.is_some() => {
                    if !read {
                        self.stdout = None;
                    } else if self.result.len() as u64 > limit {
                        return Err(Stopped::Failed(answer::too_large(None, limit)));
                    }
                }
                read = read_tail(&mut self.stderr, &mut errors), if self.stderr.is_some() => match read {
                    0 => self.stderr = None,
                    bytes => tail.push(&errors[..bytes]),
                },
                open = write_some(&mut self.stdin), if self.stdin.is_some() => {
                    if !open {
                        self.stdin = None;
                    }
                }
                ended = self.process.wait(), if status.is_none() => {
                    self.ended_alone = self.guard.reaped();
                    self.stdin = None;
                    status = Some((ended.unwrap_or_default(), Instant::now()));
                }
                () = host.closing.cancelled() => return Err(Stopped::Closing),
                () = tokio::time::sleep_until(wake.into()) => match status {
                    // Somebody who left the group holds the pipes; what is here is what there is.
                    Some((status, _)) => return Ok(status),
                    None => {
                        self.look(call, until, host)?;
                        if let Some(watched) = watched
                            && watched.look(self.group).await
                        {
                            return Err(Stopped::Checkpointed);
                        }
                        look = Instant::now() + limits::SAMPLE;
                    }
                }
            }
            if let Some((status, _)) = status
                && self.stdout.is_none()
                && self.stderr.is_none()
            {
                return Ok(status);
            }
        }
    }

    fn look(&self, call: &Call, until: Until, host: &Shared) -> Result<(), Stopped> {
        if Instant::now() >= until.at {
            return Err(Stopped::Failed(until.passed()));
        }
        let (resident, limit) = (host.table.resident_bytes(self.group.leader()), call.manifest.memory_bytes_max);
        if resident > limit { Err(Stopped::Failed(process::out_of_memory(resident, limit))) } else { Ok(()) }
    }
}

/// Appends what is there; false at the end.
async fn read_some(stdout: &mut Option<ChildStdout>, result: &mut Vec<u8>) -> bool {
    let Some(stdout) = stdout else { return false };
    if result.capacity() - result.len() < 4096 {
        result.reserve(4096);
    }
    matches!(stdout.read_buf(result).await, Ok(1..))
}

/// Reads what is there; 0 at the end.
async fn read_tail(stderr: &mut Option<ChildStderr>, buffer: &mut [u8]) -> usize {
    let Some(stderr) = stderr else { return 0 };
    stderr.read(buffer).await.unwrap_or(0)
}

/// Writes what fits; false when nothing is left, or nobody reads it.
async fn write_some(stdin: &mut Option<(ChildStdin, &[u8])>) -> bool {
    let Some((stdin, payload)) = stdin else { return false };
    match stdin.write(payload).await {
        Ok(written @ 1..) => {
            *payload = &payload[written..];
            !payload.is_empty()
        }
        Ok(0) | Err(_) => false,
    }
}

fn exit_failure(status: ExitStatus, tail: &Tail) -> Failure {
    let Some(code) = status.code() else { return process::ended(status, "the command") };
    let message = match tail.last_line() {
        Some(line) => format!("exit code {code}: {line}"),
        None => format!("exit code {code}"),
    };
    Failure::new(FailureKind::Error, message).with_type("ExitCode")
}

fn not_spawned(program: &Path, error: &std::io::Error) -> Failure {
    let program = program.display();
    match error.raw_os_error() {
        // E2BIG: no other worker could do better.
        Some(7) => {
            Failure::new(FailureKind::Error, format!("the arguments of {program} are longer than the system allows"))
        }
        Some(8) => Failure::new(
            FailureKind::NotStarted,
            format!("program {program} is neither a program for this machine nor a script with a #! line"),
        ),
        _ => Failure::new(FailureKind::NotStarted, format!("program {program} could not be started: {error}")),
    }
}
