//! The queue in a Lambda that an event source mapping feeds, and how long received hints stay hidden.

use std::time::Duration;

use sheaf_aws::{AwsPorts, AwsQueue, loopback};
use sheaf_conformance::fixture::hint;
use sheaf_core::{Lane, Priority};
use sheaf_protocol::{ChunkQueue, Delivery, Ports};

/// A hint that was sent and received.
async fn received(queue: &AwsQueue) -> Delivery {
    queue.send(vec![hint(0, "default", Priority::High)], 0).await;
    let mut received = queue.receive(&[Lane::Lambda], 10, 5_000).await.expect("received");
    assert_eq!(received.len(), 1);
    received.remove(0)
}

async fn waits(ports: &AwsPorts, wait_ms: u64) -> usize {
    ports.queue().receive(&[Lane::Lambda], 10, wait_ms).await.expect("received").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lambda_deletes_and_the_function_postpones() {
    let ports = match loopback::fresh().await {
        Ok(ports) => ports,
        Err(reason) => return loopback::skipped(reason),
    };
    let (received, events) = (received(ports.queue()).await, ports.for_events());
    events.queue().delete(received.clone()).await;
    events.queue().postpone(received, 0).await;
    assert_eq!(waits(&ports, 5_000).await, 1, "it was not deleted, and comes again when it was to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_hints_are_kept_hidden_until_they_are_not_held() {
    let ports = match loopback::fresh().await {
        Ok(ports) => ports,
        Err(reason) => return loopback::skipped(reason),
    };
    let events = ports.for_events();
    let received = received(ports.queue()).await;
    // As if it was to come again soon.
    events.queue().postpone(received.clone(), 4_000).await;
    events.queue().hold(&received);
    let _ = tokio::time::timeout(Duration::from_secs(2), events.queue().keep_hidden()).await;
    assert_eq!(waits(&ports, 6_000).await, 0, "it is kept hidden");
    events.queue().postpone(received, 0).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), events.queue().keep_hidden()).await;
    assert_eq!(waits(&ports, 5_000).await, 1, "and no longer, once it is postponed");
}

#[tokio::test]
async fn queues_are_known_by_their_arn() {
    let config = loopback::config("http://127.0.0.1:9", "test").await;
    let queue = AwsQueue::new(&config, "my-grid");
    for lane in sheaf_aws::schema::LANES {
        for priority in Priority::ALL {
            let arn = format!("arn:aws-us-gov:sqs:eu-west-1:123456789012:my-grid-{lane}-{priority}");
            assert_eq!(queue.queue_of(&arn), Some((lane, priority)));
        }
    }
    for arn in
        ["", "my-grid-spot-high", "arn:aws:sqs:eu-west-1:1:my-grid-uploads", "arn:aws:sqs:eu-west-1:1:grid-spot-high"]
    {
        assert_eq!(queue.queue_of(arn), None, "{arn}");
    }
}
