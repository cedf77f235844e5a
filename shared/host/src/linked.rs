//! Running handlers that are linked in.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures::FutureExt;
use parking_lot::Mutex;
use sheaf_api::{
    SegmentBuilder,
    run::{Call, Failed, Report},
};
use sheaf_core::{Failure, FailureKind};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    allowance::{Allowance, run_us},
    answer,
    handler::{Form, Handler, HandlerBatch, TaskContext},
    limits,
    threads::Threads,
};

/// Runs a call of a handler.
pub(crate) async fn run(call: Call, handler: &Handler, threads: &Threads, closing: &CancellationToken) -> Report {
    let call = Arc::new(call);
    match &handler.0 {
        Form::Async(form) => run_async(&call, |context, payload| form(context, payload), closing).await,
        Form::Sync(form) => {
            let form = Arc::clone(form);
            let job = move |call: &Call, shift: &Shift| run_list(call, shift, &*form);
            on_thread(call, 1, job, threads, closing).await
        }
        Form::Batch(form) => {
            let form = Arc::clone(form);
            let tasks = u32::try_from(call.tasks.len()).unwrap_or(u32::MAX);
            let job = move |call: &Call, shift: &Shift| run_batch(call, shift, &*form);
            on_thread(call, tasks, job, threads, closing).await
        }
    }
}

fn unanswered(failure: Failure) -> Report {
    Report { unanswered: Some(failure), ..Report::default() }
}

/// What a handler's thread and the call that waits for it share.
struct Shift {
    state: Mutex<State>,
    allowance: Allowance,
    stopped: Arc<AtomicBool>,
    threads: Threads,
}

struct State {
    report: Report,
    /// The task in hand, by its place in the call; all of a batch are in hand at once.
    at: usize,
    started: Instant,
    /// The thread is through.
    finished: bool,
    /// Nobody waits for the thread any more.
    left: bool,
}

impl Shift {
    /// Leaves the thread to itself; what it still does goes nowhere. Gives what there is so far.
    fn leave(&self, before: impl FnOnce(&mut State)) -> Report {
        self.stopped.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        if !state.finished && !state.left {
            before(&mut state);
            state.left = true;
            self.threads.leave();
        }
        std::mem::take(&mut state.report)
    }
}

/// Marks the thread as through, whatever happened on it.
struct Finish(Arc<Shift>);

impl Drop for Finish {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.finished = true;
        if state.left {
            self.0.threads.returned();
        }
    }
}

/// Leaves the thread when the call is dropped.
struct LeaveOnDrop(Arc<Shift>);

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        drop(self.0.leave(|_| ()));
    }
}

/// Runs a job on a thread and waits for it, as long as each of its steps of `tasks` tasks may take.
async fn on_thread(
    call: Arc<Call>,
    tasks: u32,
    job: impl FnOnce(&Call, &Shift) + Send + 'static,
    threads: &Threads,
    closing: &CancellationToken,
) -> Report {
    if threads.left() >= limits::THREADS_LEFT_MAX {
        let message = format!(
            "{} handler threads run on after their timeout, which is the limit; no more are started until some end",
            threads.left()
        );
        return unanswered(Failure::new(FailureKind::NotStarted, message));
    }
    let allowance = Allowance::of(&call);
    let state = State { report: Report::default(), at: 0, started: Instant::now(), finished: false, left: false };
    let stopped = Arc::new(AtomicBool::new(false));
    let shift = Arc::new(Shift { state: Mutex::new(state), allowance, stopped, threads: threads.clone() });
    let _leave = LeaveOnDrop(Arc::clone(&shift));
    let (sender, mut done) = oneshot::channel();
    let started = threads.run({
        let (finish, call) = (Finish(Arc::clone(&shift)), Arc::clone(&call));
        move || {
            job(&call, &finish.0);
            drop(finish);
            let _ = sender.send(());
        }
    });
    if let Err(error) = started {
        return unanswered(Failure::new(FailureKind::NotStarted, format!("no thread for the handler: {error}")));
    }
    loop {
        let until = allowance.until(shift.state.lock().started, tasks);
        tokio::select! {
            biased;
            _ = &mut done => return std::mem::take(&mut shift.state.lock().report),
            () = closing.cancelled() => return shift.leave(|_| ()),
            () = tokio::time::sleep_until(until.at.into()) => {}
        }
        let started = shift.state.lock().started;
        let until = allowance.until(started, tasks);
        if Instant::now() >= until.at {
            return shift.leave(|state| time_out(state, &call, tasks, until.passed()));
        }
    }
}

fn time_out(state: &mut State, call: &Call, tasks: u32, failure: Failure) {
    if tasks == 1 {
        let run_us = run_us(state.started, Instant::now());
        state.report.failures.push(Failed { task: call.tasks[state.at], failure, run_us });
    } else {
        state.report.unanswered = Some(failure);
    }
}

type SyncForm = dyn Fn(&TaskContext, &[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync;

/// All tasks of a call, one after the other, on this thread. Per task: one look at the clock, one short lock, no allocation.
fn run_list(call: &Call, shift: &Shift, handler: &SyncForm) {
    let mut context = TaskContext::of(call, Arc::clone(&shift.stopped));
    let mut result = Vec::new();
    let limit = call.manifest.output_bytes_max;
    {
        let mut state = shift.state.lock();
        state.started = Instant::now();
        if !shift.allowance.may_start(state.started, 0, &state.report) {
            return;
        }
        state.report.answers.reserve(call.tasks.len());
    }
    for (at, &task) in call.tasks.iter().enumerate() {
        context.task.index = task;
        result.clear();
        let answer = catch_unwind(AssertUnwindSafe(|| handler(&context, call.pack.payload(task), &mut result)));
        let now = Instant::now();
        let mut state = shift.state.lock();
        if state.left {
            return;
        }
        let ran_us = run_us(state.started, now);
        let State { report, .. } = &mut *state;
        let kept = match answer {
            Ok(Ok(())) => keep(&mut report.answers, task, &result, ran_us, limit),
            Ok(Err(failure)) => Err(failure),
            Err(panic) => Err(panicked(&*panic)),
        };
        if let Err(failure) = kept {
            report.failures.push(Failed { task, failure: failure.capped(), run_us: ran_us });
        }
        if !shift.allowance.may_start(now, at + 1, report) {
            return;
        }
        (state.at, state.started) = (at + 1, now);
    }
}

fn keep(answers: &mut SegmentBuilder, task: u32, result: &[u8], run_us: u32, limit: u64) -> Result<(), Failure> {
    if result.len() as u64 > limit {
        return Err(answer::too_large(Some(result.len() as u64), limit));
    }
    answers
        .succeeded(task, result, run_us)
        .map_err(|error| Failure::new(FailureKind::OutputTooLarge, error.to_string()))
}

fn run_batch(
    call: &Call,
    shift: &Shift,
    handler: &(dyn Fn(&mut HandlerBatch<'_>) -> Result<(), Failure> + Send + Sync),
) {
    let context = TaskContext::of(call, Arc::clone(&shift.stopped));
    let mut batch = HandlerBatch::new(&context, &call.tasks, call.manifest.output_bytes_max);
    {
        let mut state = shift.state.lock();
        state.started = Instant::now();
        if !shift.allowance.may_start(state.started, 0, &state.report) {
            return;
        }
    }
    let result = catch_unwind(AssertUnwindSafe(|| handler(&mut batch)));
    let mut state = shift.state.lock();
    if state.left {
        return;
    }
    let open: Vec<u32> = batch.open().collect();
    let fail_open = |batch: &mut HandlerBatch<'_>, failure: Failure| {
        open.iter().for_each(|&task| batch.fail(task, failure.clone()));
    };
    match result {
        Ok(Ok(())) => fail_open(
            &mut batch,
            Failure::new(FailureKind::BadAnswer, "the handler did not answer this task of its batch"),
        ),
        Ok(Err(failure)) => fail_open(&mut batch, failure),
        Err(panic) if !open.is_empty() => state.report.unanswered = Some(panicked(&*panic)),
        Err(_) => {}
    }
    state.report.answers = batch.answers;
    state.report.failures = batch.failures;
}

async fn run_async<F>(
    call: &Call,
    handler: impl Fn(TaskContext, bytes::Bytes) -> F,
    closing: &CancellationToken,
) -> Report
where
    F: Future<Output = Result<bytes::Bytes, Failure>> + Send,
{
    let allowance = Allowance::of(call);
    let mut report = Report::default();
    let stopped = Arc::new(AtomicBool::new(false));
    let _stop = StopOnDrop(Arc::clone(&stopped));
    let mut context = TaskContext::of(call, stopped);
    for (at, &task) in call.tasks.iter().enumerate() {
        let started = Instant::now();
        if !allowance.may_start(started, at, &report) {
            break;
        }
        context.task.index = task;
        let until = allowance.until(started, 1);
        let answer =
            AssertUnwindSafe(async { handler(context.clone(), call.pack.payload_bytes(task)).await }).catch_unwind();
        let answer = tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|panic| Err(panicked(&*panic))),
            () = closing.cancelled() => break,
            () = tokio::time::sleep_until(until.at.into()) => Err(until.passed()),
        };
        let ran_us = run_us(started, Instant::now());
        let limit = call.manifest.output_bytes_max;
        let kept = answer.and_then(|result| keep(&mut report.answers, task, &result, ran_us, limit));
        if let Err(failure) = kept {
            report.failures.push(Failed { task, failure: failure.capped(), run_us: ran_us });
        }
    }
    report
}

/// Tells what a handler started elsewhere that nobody waits any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::new(FailureKind::Panic, text.unwrap_or("panicked with something that is no text"))
}
