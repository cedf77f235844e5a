//! The Lambda that sweeps: started every minute, it looks every 15 seconds while there is a job that is not over. In the same
//! rounds it says how many containers there shall be.

mod delay;
mod minute;
mod recount;
mod scale;
mod work;

use sheaf_api::cost::Step;
use sheaf_aws::{AwsPorts, Backlog, Services};
use sheaf_lambda::{Aws, Error, Event, Invocation, Settings, run, start};
use sheaf_protocol::StoreError;
use sheaf_telemetry::Metrics;

use crate::scale::{Capacity, Scaler};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start();
    let settings = Settings::from_env()?;
    let capacity = Capacity::from_env()?;
    let aws = Aws::load().await;
    let config = aws.of(Step::Sweep);
    let ports = AwsPorts::over(&config, &settings.aws);
    let backlog = Backlog::over(&config, &settings.aws.queues);
    let scaler = capacity.map(|capacity| {
        let services = Services::over(&config, &capacity.cluster);
        Scaler::new(capacity, services)
    });
    run(&aws, async |Invocation { event, remaining_ms }| match event {
        Event::Schedule(_) => {
            let hints = async || backlog.hints().await;
            let swept = minute::sweep(&ports, hints, scaler.as_ref(), remaining_ms).await?;
            swept.metrics(&settings.grid).iter().for_each(Metrics::print);
            match swept.scaled {
                // Said and alarmed of like any failure, but only when all else is done.
                Err(error) if !matches!(error, StoreError::Throttled { .. }) => {
                    Err(format!("the containers could not be scaled: {error}").into())
                }
                _ => Ok(serde_json::Value::Null),
            }
        }
        other => Err(other.unexpected().into()),
    })
    .await
}
