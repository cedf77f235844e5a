//! Checks of the queue. Hints may come late, twice or never; a queue under test is not full and loses none.

use std::collections::BTreeSet;

use sheaf_core::{Lane, Priority};
use sheaf_protocol::{ChunkQueue, Clock, Delivery, Ports};

use crate::fixture::hint;

async fn receive<P: Ports>(ports: &P, max: usize, wait_ms: u64) -> Vec<Delivery> {
    ports.queue().receive(&[Lane::default()], max, wait_ms).await.expect("received")
}

async fn drain<P: Ports>(ports: &P, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let received = receive(ports, 10, 5_000).await;
        assert!(!received.is_empty(), "{} of {count} came", all.len());
        all.extend(received);
    }
    all
}

/// What is sent is delivered, and after its deletion not again.
pub async fn hints_are_delivered<P: Ports>(ports: P) {
    ports.queue().send((0..25).map(|number| hint(number, "default", Priority::Normal)).collect(), 0).await;
    let mut numbers = BTreeSet::new();
    for delivery in drain(&ports, 25).await {
        numbers.insert(delivery.hint.key.number);
        ports.queue().delete(delivery).await;
    }
    assert_eq!(numbers, (0..25).collect());
    assert!(receive(&ports, 10, 50).await.is_empty());
}

/// A delayed hint is delivered later, not sooner.
pub async fn a_delayed_hint_waits<P: Ports>(ports: P) {
    let sent_at_ms = ports.clock().now_ms();
    ports.queue().send(vec![hint(1, "default", Priority::Normal)], 1_000).await;
    assert!(receive(&ports, 10, 0).await.is_empty());
    drain(&ports, 1).await;
    assert!(ports.clock().now_ms() + 20 >= sent_at_ms + 1_000);
}

/// A postponed hint is delivered again.
pub async fn a_postponed_hint_comes_again<P: Ports>(ports: P) {
    ports.queue().send(vec![hint(1, "default", Priority::Normal)], 0).await;
    let delivery = drain(&ports, 1).await.remove(0);
    ports.queue().postpone(delivery, 1_000).await;
    assert!(receive(&ports, 10, 0).await.is_empty());
    assert_eq!(drain(&ports, 1).await[0].hint.key.number, 1);
}

/// Urgent hints mostly come first, and the others come nevertheless.
pub async fn urgent_hints_come_first_and_nothing_starves<P: Ports>(ports: P) {
    for (first, priority) in [(0, Priority::Low), (1_000, Priority::Normal), (2_000, Priority::High)] {
        ports.queue().send((0..500).map(|i| hint(first + i, "default", priority)).collect(), 0).await;
    }
    let first: Vec<Priority> =
        drain(&ports, 200).await.into_iter().take(200).map(|delivery| delivery.hint.priority).collect();
    let count = |priority| first.iter().filter(|found| **found == priority).count();
    assert!(count(Priority::High) >= 150, "{} of 200 are urgent", count(Priority::High));
    assert!(count(Priority::Normal) >= 5 && count(Priority::Low) >= 1, "{first:?}");
}

/// A tenant with few hints is not kept waiting by one with many.
pub async fn tenants_take_turns<P: Ports>(ports: P) {
    ports.queue().send((0..500).map(|i| hint(i, "noisy", Priority::Normal)).collect(), 0).await;
    ports.queue().send((1_000..1_005).map(|i| hint(i, "quiet", Priority::Normal)).collect(), 0).await;
    let first = drain(&ports, 20).await;
    assert_eq!(first.iter().filter(|delivery| delivery.hint.tenant.as_str() == "quiet").count(), 5);
}

/// An empty queue answers when the wait is over.
pub async fn an_empty_queue_answers_in_time<P: Ports>(ports: P) {
    let asked_at_ms = ports.clock().now_ms();
    assert!(receive(&ports, 10, 100).await.is_empty());
    let waited_ms = ports.clock().now_ms() - asked_at_ms;
    assert!((90..5_000).contains(&waited_ms), "{waited_ms} ms");
}
