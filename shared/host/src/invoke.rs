//! Functions that run elsewhere: Lambda functions invoked by their ARN.

use std::{sync::Arc, time::Instant};

use backon::{ExponentialBuilder, Retryable};
use sheaf_api::{
    invoke::{Invocation, Invoked, Invoker, NotInvoked},
    run::{Call, Report},
};
use sheaf_core::{Failure, FailureKind, TaskId};
use tokio::time::timeout_at;

use crate::{
    allowance::{Allowance, run_us},
    answer, batch, capture,
    host::{Shared, not_started},
    limits,
    run::Run,
    runtime_api::write_context,
};

/// Runs a call of a function that is invoked by its ARN.
pub(crate) async fn run(call: Arc<Call>, arn: &str, host: &Shared) -> Report {
    let Some(invoker) = &host.invoker else {
        return not_started("this grid cannot invoke Lambda functions".into());
    };
    let mut run = Run::new(Arc::clone(&call));
    while !run.is_over(Instant::now()) {
        let rest = &call.tasks[run.begun..];
        let next = match call.manifest.batch {
            true => batch::encode(&call.pack, rest, limits::BATCH_BYTES_MAX),
            false => batch::single(&call.pack, rest[0]),
        };
        run.begun += next.taken;
        next.refused.into_iter().for_each(|(task, failure)| run.fail(task, failure, 0));
        let Some(&first) = next.tasks.first() else { continue };
        if next.body.len() > limits::BATCH_BYTES_MAX {
            let message = format!("the event is {} bytes, Lambda takes {}", next.body.len(), limits::BATCH_BYTES_MAX);
            run.fail(first, Failure::new(FailureKind::Error, message), 0);
            continue;
        }
        let invocation = Invocation { arn: arn.to_owned(), event: next.body, context: context(&call, first) };
        let asked = tokio::select! {
            biased;
            () = host.closing.cancelled() => break,
            asked = ask(invoker.as_ref(), &invocation, run.allowance, next.tasks.len() as u32) => asked,
        };
        let Some((answered, us)) = asked else { break };
        if !close(&mut run, &next.tasks, answered, us) {
            break;
        }
    }
    run.report
}

/// The client context of a call's task.
fn context(call: &Call, index: u32) -> String {
    let task = TaskId { chunk: call.chunk, index };
    let with = |key| {
        let mut text = String::new();
        write_context(&mut text, call.epoch, task, key, None).expect("a string takes what is written to it");
        text
    };
    let whole = with(call.pack.key(index));
    if whole.len() <= limits::CONTEXT_BYTES_MAX { whole } else { with("") }
}

/// Invokes, once more and once more while that is throttled; `None` if it was for too long. Each try has the whole timeout.
async fn ask(
    invoker: &dyn Invoker,
    invocation: &Invocation,
    allowance: Allowance,
    tasks: u32,
) -> Option<(Result<Invoked, Failure>, u32)> {
    let once = || async {
        let started = Instant::now();
        let until = allowance.until(started, tasks);
        let answered = match timeout_at(until.at.into(), invoker.invoke(invocation.clone())).await {
            Err(_) => Err(until.passed()),
            Ok(Ok(invoked)) => Ok(invoked),
            Ok(Err(NotInvoked::Throttled(detail))) => return Err(detail),
            Ok(Err(NotInvoked::Refused(detail))) => Err(Failure::new(FailureKind::NotStarted, detail)),
            Ok(Err(NotInvoked::Lost(detail))) => {
                Err(Failure::new(FailureKind::BadAnswer, format!("the answer was lost: {detail}")))
            }
        };
        let us = run_us(started, Instant::now());
        Ok((answered, us / tasks.max(1)))
    };
    let pauses = ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(limits::THROTTLED)
        .with_max_delay(limits::THROTTLED_MAX)
        .with_total_delay(Some(limits::THROTTLED_TOTAL))
        .without_max_times();
    let asked = once.retry(pauses).when(|_: &String| allowance.is_open(Instant::now())).await;
    asked.inspect_err(|detail| tracing::warn!(arn = invocation.arn, detail, "invocations are throttled")).ok()
}

/// Writes down what came of an invocation; false if the rest of the call should not be tried.
fn close(run: &mut Run, tasks: &[u32], answered: Result<Invoked, Failure>, us: u32) -> bool {
    let answered = answered.and_then(|invoked| {
        if !invoked.log.is_empty() {
            // A log that finds no room is dropped: the answers matter more.
            let _ = run.report.logs.succeeded(tasks[0], &invoked.log, us);
        }
        if invoked.failed { Err(failure(&invoked)) } else { Ok(invoked.payload) }
    });
    match answered {
        Ok(payload) if run.call.manifest.batch => run.close_batch(tasks, &payload, us),
        Ok(payload) => {
            let call = Arc::clone(&run.call);
            if let Err(failure) = answer::keep(&call.manifest, &mut run.report.answers, tasks[0], &payload, us) {
                run.fail(tasks[0], failure, us);
            }
        }
        // No task of this call ran, nor would another; or nobody knows which one of the batch is guilty.
        Err(failure) if run.call.manifest.batch || failure.kind == FailureKind::NotStarted => {
            run.report.unanswered = Some(failure);
            return false;
        }
        Err(failure) => run.fail(tasks[0], failure, us),
    }
    true
}

/// An error as Lambda tells it. Its own words for what went wrong around the function are in the type of the error.
fn failure(invoked: &Invoked) -> Failure {
    let failure = answer::error(FailureKind::Error, &invoked.payload, None);
    let kind = match failure.error_type.as_str() {
        "Sandbox.Timedout" => FailureKind::TimedOut,
        "Runtime.ExitError" => FailureKind::Exited,
        "Function.ResponseSizeTooLarge" => FailureKind::OutputTooLarge,
        _ => FailureKind::Error,
    };
    Failure { kind, stderr: capture::text(&invoked.log), ..failure }.capped()
}
