//! The Lambda of writes: the HTTP API, every route of it, and files that were uploaded.
//!
//! Both come from the same package: `{grid}-submit` is invoked by the HTTP API, `{grid}-upload` by the queue of uploads.

mod upload;

use sheaf_api::cost::Step;
use sheaf_lambda::{Aws, Error, Event, Http, Invocation, Settings, run, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start();
    let settings = Settings::from_env()?;
    let aws = Aws::load().await;
    let config = aws.of(Step::Submit);
    let http = Http::on_aws(&settings, &config);
    run(&aws, async |Invocation { event, remaining_ms }| match event {
        Event::Http(event) => Ok(http.answer(event, remaining_ms).await),
        Event::Sqs(event) => upload::handle(&settings, &config, event, remaining_ms).await,
        other => Err(other.unexpected().into()),
    })
    .await
}
