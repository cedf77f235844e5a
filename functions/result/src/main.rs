//! The Lambda of results: summaries from the table's stream, and the HTTP API's reads.

mod stream;

use sheaf_api::cost::Step;
use sheaf_aws::{AwsPorts, Notifier};
use sheaf_lambda::{Aws, Error, Event, Http, Invocation, Settings, run, start};
use sheaf_telemetry::Metrics;
use stream::Stream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start();
    let settings = Settings::from_env()?;
    let aws = Aws::load().await;
    let http = Http::on_aws(&settings, &aws.of(Step::Read));
    let config = aws.of(Step::Result);
    let notifier = Notifier::over(&config, &settings.aws.queues, settings.event_bus.as_deref());
    let stream = Stream::new(AwsPorts::over(&config, &settings.aws), notifier, &settings.grid);
    run(&aws, async |Invocation { event, remaining_ms }| match event {
        Event::Stream(event) => {
            let taken = stream.take(&event).await;
            taken.metrics.iter().for_each(Metrics::print);
            Ok(taken.answer)
        }
        Event::Http(event) => Ok(http.answer(event, remaining_ms).await),
        other => Err(other.unexpected().into()),
    })
    .await
}
