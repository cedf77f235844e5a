//! The loop of a Lambda.

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use sheaf_protocol::Clock;
use sheaf_telemetry::Format;

use crate::{Aws, Event};

/// Any error: that of a failed invocation, which its source may repeat.
pub use lambda_runtime::Error;

/// One invocation.
#[derive(Debug)]
pub struct Invocation {
    /// What it is about.
    pub event: Event,
    /// What is left of the time that the function may take.
    pub remaining_ms: u64,
}

/// Sets up the logs: the first thing a main does, before it reads its settings.
pub fn start() {
    let label = |name| std::env::var(name).unwrap_or_default();
    let (grid, function) = (label("SHEAF_GRID"), label("AWS_LAMBDA_FUNCTION_NAME"));
    sheaf_telemetry::init(Format::Json, &[("grid", &grid), ("function", &function)]);
}

/// Answers invocations, one after the other, for as long as Lambda keeps this process. An error fails the invocation, which
/// its source may then repeat; it is logged, and the loop goes on. So is what was asked of AWS, if anybody wants to know.
pub async fn run(aws: &Aws, handler: impl AsyncFn(Invocation) -> Result<Value, Error>) -> Result<(), Error> {
    let handler = &handler;
    lambda_runtime::run(service_fn(async move |LambdaEvent { payload, context }: LambdaEvent<Value>| {
        let remaining_ms = context.deadline.saturating_sub(sheaf_aws::SystemClock.now_ms());
        let event = Event::of(payload);
        let kind = event.kind();
        // Boxed, as its future is that of everything this function does.
        let answer = Box::pin(handler(Invocation { event, remaining_ms })).await;
        aws.log();
        answer.inspect_err(|error| tracing::error!(error, kind, "the invocation failed"))
    }))
    .await
}
