//! The Lambda for tasks: fed with hints by SQS, it runs their chunks.

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use aws_lambda_events::event::sqs::SqsEvent;
use sheaf_api::cost::Step;
use sheaf_aws::{AwsPorts, LambdaInvoker, SystemClock};
use sheaf_dispatch::{DispatchOptions, Dispatcher};
use sheaf_host::HostError;
use sheaf_lambda::{Aws, Error, Event, Invocation, Settings, run, start};
use sheaf_protocol::Clock;

/// The only place where a Lambda may write. Its size is what infra/terraform gives it.
const SCRATCH: &str = "/tmp/sheaf";
/// Memory that comes with one core. Source: the developer guide of Lambda.
const CORE_MB: usize = 1_769;

#[tokio::main]
async fn main() -> Result<(), Error> {
    start();
    let settings = Settings::from_env()?;
    let aws = Aws::load().await;
    let config = aws.of(Step::Dispatch);
    let (ports, invoker) = (AwsPorts::over(&config, &settings.aws), Arc::new(LambdaInvoker::over(&aws.of(Step::Run))));
    let open = |scratch: String| {
        let options = DispatchOptions {
            grid: settings.grid.clone(),
            scratch: scratch.into(),
            slots: slots(|name| std::env::var(name).ok(), available_parallelism().map_or(1, NonZero::get)),
            has_containers: settings.spot,
            invoker: invoker.clone(),
        };
        Dispatcher::open(&ports, options)
    };
    let dispatcher = match open(SCRATCH.to_owned()) {
        // A Lambda has this place for itself; on a machine that plays Lambda others may have it.
        Err(HostError::InUse { .. }) => open(format!("{SCRATCH}-{}", std::process::id())),
        opened => opened,
    }?;
    run(&aws, async |Invocation { event, remaining_ms }| match event {
        Event::Sqs(event) => {
            let deadline_ms = SystemClock.now_ms() + remaining_ms;
            let event: SqsEvent = serde_json::from_value(event)?;
            Ok(serde_json::to_value(dispatcher.handle(event, deadline_ms).await)?)
        }
        other => Err(other.unexpected().into()),
    })
    .await
}

/// How many calls run at once: what `SHEAF_SLOTS_LAMBDA` says, or the cores that the Lambda's memory pays for. It sees more of
/// them than it may use.
fn slots(variable: impl Fn(&str) -> Option<String>, cores_seen: usize) -> usize {
    let number = |name| variable(name).and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
    let paid_for = || number("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").map_or(cores_seen, |mb| (mb + CORE_MB / 2) / CORE_MB);
    number("SHEAF_SLOTS_LAMBDA").unwrap_or_else(|| paid_for().clamp(1, cores_seen.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_what_is_said_or_paid_for() {
        let with = |variables: &[(&str, &str)], cores| {
            let find =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
            slots(find, cores)
        };
        let memory = |mb| with(&[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mb)], 6);
        assert_eq!(["128", "1769", "2048", "3538", "10240"].map(memory), [1, 1, 1, 2, 6]);
        assert_eq!(with(&[("SHEAF_SLOTS_LAMBDA", "9"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")], 2), 9);
        assert_eq!([with(&[("SHEAF_SLOTS_LAMBDA", "0")], 2), with(&[], 4), with(&[], 0)], [2, 4, 1]);
    }
}
