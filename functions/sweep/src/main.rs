//! The Lambda that sweeps: started every minute, it looks every 15 seconds while there is a job that is not over.

mod delay;
mod minute;
mod recount;
mod work;

use sheaf_api::cost::Step;
use sheaf_aws::{AwsPorts, Backlog};
use sheaf_lambda::{Aws, Error, Event, Invocation, Settings, run, start};
use sheaf_telemetry::Metrics;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start();
    let settings = Settings::from_env()?;
    let aws = Aws::load().await;
    let config = aws.of(Step::Sweep);
    let ports = AwsPorts::over(&config, &settings.aws);
    let backlog = Backlog::over(&config, &settings.aws.queues);
    run(&aws, async |Invocation { event, remaining_ms }| match event {
        Event::Schedule(_) => {
            let swept = minute::sweep(&ports, async || backlog.hints().await, remaining_ms).await?;
            swept.metrics(&settings.grid).iter().for_each(Metrics::print);
            Ok(serde_json::Value::Null)
        }
        other => Err(other.unexpected().into()),
    })
    .await
}
