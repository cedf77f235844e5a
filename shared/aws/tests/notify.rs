//! Who waits for a job's end is told: over a bus, and by the queue of uploads.

use aws_config::SdkConfig;
use aws_sdk_eventbridge::types::Target;
use sheaf_aws::{
    Backlog, Notifier, Settings,
    loopback::{fresh_account, ports, skipped},
    notify::{loopback, uploads_queue},
};
use sheaf_conformance::fixture;
use sheaf_core::{JobId, JobState, Lane, Priority, Seal, Summary};
use sheaf_protocol::{ChunkQueue, Ports};

/// A bus whose events of ours come into the queue of uploads, which is as good as any.
async fn bus(config: &SdkConfig, settings: &Settings) -> &'static str {
    loopback::create_queue(config, &settings.queues).await;
    let queues = aws_sdk_sqs::Client::new(config);
    let found = queues.get_queue_url().queue_name(uploads_queue(&settings.queues)).send().await.expect("a queue");
    let wanted = aws_sdk_sqs::types::QueueAttributeName::QueueArn;
    let ask = queues.get_queue_attributes().set_queue_url(found.queue_url).attribute_names(wanted.clone());
    let answer = ask.send().await.expect("its attributes");
    let arn = &answer.attributes().expect("its attributes")[&wanted];
    let events = aws_sdk_eventbridge::Client::new(config);
    events.create_event_bus().name("grid").send().await.expect("a bus");
    let pattern = r#"{"source": ["sheaf"], "detail-type": ["Job ended"]}"#;
    let rule = events.put_rule().name("ended").event_bus_name("grid").event_pattern(pattern);
    rule.send().await.expect("a rule");
    let target = Target::builder().id("queue").arn(arn).build().expect("id and ARN are set");
    events.put_targets().rule("ended").event_bus_name("grid").targets(target).send().await.expect("a target");
    "grid"
}

#[tokio::test]
async fn the_bus_is_told_of_a_jobs_end() {
    let (config, settings) = match fresh_account().await {
        Ok(fresh) => fresh,
        Err(reason) => return skipped(reason),
    };
    let bus = bus(&config, &settings).await;
    let mut job = fixture::job(JobId::from_bytes([7; 16]), 1);
    job.state = JobState::Done { seal: Seal { chunks: 1, tasks: 2 }, at_ms: 1_800_000_000_000 };

    let silent = Notifier::over(&config, &settings.queues, None);
    silent.ended(&job, &Summary::default()).await.expect("nobody is told");
    let notifier = Notifier::over(&config, &settings.queues, Some(bus));
    notifier.ended(&job, &Summary::default()).await.expect("told");
    let told = loopback::received(&config, &settings.queues).await;
    let [event] = told.as_slice() else { panic!("one event: {told:?}") };
    let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
    assert_eq!((&event["source"], &event["detail-type"]), (&"sheaf".into(), &"Job ended".into()));
    assert_eq!(event["detail"]["job"], serde_json::json!(job.id));
    assert_eq!((&event["detail"]["state"], &event["detail"]["tasks"]), (&"done".into(), &2.into()));
}

#[tokio::test]
async fn hints_that_wait_are_counted() {
    let (config, settings) = match fresh_account().await {
        Ok(fresh) => fresh,
        Err(reason) => return skipped(reason),
    };
    let ports = ports(&config, &settings).await;
    let backlog = Backlog::over(&config, &settings.queues);
    let lanes = async || backlog.hints().await.map(Vec::from_iter);
    assert_eq!(lanes().await, Ok(vec![(Lane::Lambda, 0), (Lane::Spot, 0), (Lane::OnDemand, 0)]));
    let hints = (0..25).map(|number| fixture::hint(number, "default", Priority::ALL[number as usize % 3]));
    ports.queue().send(hints.collect(), 0).await;
    assert_eq!(lanes().await, Ok(vec![(Lane::Lambda, 25), (Lane::Spot, 0), (Lane::OnDemand, 0)]));
}
