//! The Lambda that sweeps: started every minute, it looks every 15 seconds while there is a job that is not over.

mod delay;
mod minute;
mod recount;

use sheaf_aws::{AwsPorts, Backlog};
use sheaf_lambda::{Error, Event, Invocation, Settings, run, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start();
    let settings = Settings::from_env()?;
    let ports = AwsPorts::connect(&settings.aws).await;
    let backlog = Backlog::connect(&settings.aws.queues).await;
    run(async |Invocation { event, remaining_ms }| match event {
        Event::Schedule(_) => {
            let swept = minute::sweep(&ports, async || backlog.hints().await, remaining_ms).await?;
            swept.metrics(&settings.grid).print();
            Ok(serde_json::Value::Null)
        }
        other => Err(other.unexpected().into()),
    })
    .await
}
