//! Hints in SQS: a standard queue per lane and priority, the tenant as the message group, so that queues are fair.
//!
//! # Order of the priorities
//! A receive asks one queue. Of a hundred hints received while all have some, 90 are urgent, 9 normal and 1 low; a queue that
//! is empty leaves its share to the others. When all are empty, all are waited for at once, and the first that has something
//! ends the wait. The waits that are given up then may have taken messages at that very moment: those come again after
//! their visibility timeout, as any hint may be late.
//!
//! # How long a received hint is hidden
//! For as long as its chunk's lease would last, and a margin: a worker that dies is noticed as soon as another could take
//! over. Who holds a hint for longer polls [`AwsQueue::keep_hidden`] beside its work. Who does not loses nothing: the hint comes
//! again, finds its chunk held, and is postponed.
//!
//! # In a Lambda that an event source mapping feeds
//! Lambda receives, and it deletes what the function does not report as failed. [`AwsQueue::for_events`] is the queue for
//! there: it deletes nothing itself, and what it postpones must be reported as failed. The queue's own visibility timeout has to
//! outlast the function (AWS demands it), which is far too long a silence after a crash; so a function shows its queue what
//! it was given ([`AwsQueue::hold`]) and polls [`AwsQueue::keep_hidden`], which shortens it.
//!
//! # Cost
//! One request per 10 hints sent, received and, singly, deleted or postponed. An idle receive of 20 s costs two per queue.
//! One per 10 hints of a queue and 10 s to keep them hidden, the first of them, for events, at once.

use std::{
    collections::HashMap,
    convert::Infallible,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::{
    Client,
    config::Builder,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, Message, MessageSystemAttributeName, SendMessageBatchRequestEntry,
    },
};
use futures::{StreamExt, future::select_all, stream};
use parking_lot::Mutex;
use sheaf_core::{Lane, Priority, limits};
use sheaf_protocol::{ChunkQueue, Delivery, Hint, StoreError};
use tokio::time::Instant;

use crate::{
    fault::store_error,
    message,
    schema::{LANES, queue_name},
};

/// Tries of the SDK, the first included.
const TRIES_MAX: u32 = 3;
/// Bytes in one batch. Source: `SendMessageBatch`.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches of one call that are sent at once.
const CONCURRENT_MAX: usize = 8;
/// The longest that a message is delayed when it is sent. Source: SQS. A hint that comes earlier than wished is postponed by
/// whoever finds its chunk not ready.
const DELAY_S_MAX: u64 = 900;
/// The longest that a received message is kept hidden. Source: SQS, 12 hours from its reception.
const HIDDEN_S_MAX: u64 = 12 * 3600 - 60;
/// A received hint is hidden for this long, again and again while it is held. Source: a lease, the margin after which it may be
/// taken over, and a second for rounding.
const HELD_S: u64 = (limits::LEASE_MS + limits::CLOCK_MARGIN_MS) / 1_000 + 1;
/// The pause between two renewals. Source: as often as the lease is renewed, so that none of the two lasts much longer.
const RENEW: Duration = Duration::from_millis(limits::HEARTBEAT_MS);
/// The longest that a receive waits. Source: SQS.
const WAIT_S_MAX: u64 = 20;
/// A call that is not answered in this time is given up: the longest wait, and as long as any other call may take.
const ANSWER_S_MAX: u64 = WAIT_S_MAX + 10;
/// How long a wait that was seen is taken for the present one.
const DELAY_SEEN: Duration = Duration::from_secs(60);
/// Waits beyond this are said to be this long. A sweeper that believed more would hardly send again what was lost.
const DELAY_MS_MAX: u64 = 12 * 3600 * 1000;

/// Hundredths of a hint that a priority may have for each hint that is received, and how many must have come together before
/// its queue is asked.
const SHARES: [(Priority, i64, i64); 2] = [(Priority::Low, 1, 100), (Priority::Normal, 9, 500)];

/// The queues of one grid.
#[derive(Debug)]
pub struct AwsQueue {
    client: Client,
    prefix: String,
    urls: Mutex<HashMap<(Lane, Priority), String>>,
    /// Whether Lambda receives and deletes.
    by_events: bool,
    /// Receipts of hints that are neither deleted nor postponed yet.
    held: Mutex<HashMap<String, (Lane, Priority)>>,
    credit: Mutex<Credit>,
    /// How long hints waited lately, and when that was seen.
    delay: Mutex<Option<(u64, Instant)>>,
}

/// What each of [`SHARES`] has saved up, in hundredths of a hint.
#[derive(Debug, Default)]
struct Credit([i64; SHARES.len()]);

impl Credit {
    /// The priorities in the order in which they are asked, each with how many hints at most.
    fn turn(&self, max: usize) -> Vec<(Priority, usize)> {
        let mut order: Vec<(Priority, usize)> = Priority::ALL.map(|priority| (priority, max)).to_vec();
        let earned = SHARES.iter().zip(self.0).find(|((_, _, enough), saved)| saved >= enough);
        if let Some((&(priority, ..), saved)) = earned {
            order.insert(0, (priority, max.min((saved / 100) as usize)));
        }
        order
    }

    /// Takes account of an answer: what was received earns the others their share, what was served is paid for, and a queue
    /// that had nothing loses what it had saved.
    fn received(&mut self, from: Priority, count: usize) {
        for ((priority, share, enough), saved) in SHARES.iter().zip(&mut self.0) {
            *saved = match (*priority == from, count) {
                (true, 0) => 0,
                (true, count) => (*saved - (100 - share) * count as i64).max(0),
                (false, count) => (*saved + share * count as i64).min(10 * enough),
            };
        }
    }
}

impl AwsQueue {
    /// The queues whose names begin so (see [`crate::schema::queue_name`]). They must exist; nothing is called yet.
    pub fn new(config: &SdkConfig, prefix: &str) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(TRIES_MAX);
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(ANSWER_S_MAX)).build();
        let builder = Builder::from(config).retry_config(retries).timeout_config(timeouts);
        let client = Client::from_conf(builder.build());
        Self::over(client, prefix.to_owned(), false)
    }

    fn over(client: Client, prefix: String, by_events: bool) -> Self {
        let (urls, held, credit, delay) = Default::default();
        Self { client, prefix, urls, by_events, held, credit, delay }
    }

    /// The same queues as a Lambda sees them that an event source mapping feeds: a deletion costs nothing and does nothing, as
    /// Lambda deletes what is not reported as failed; what was postponed must be reported.
    pub fn for_events(&self) -> Self {
        Self::over(self.client.clone(), self.prefix.clone(), true)
    }

    /// Which of the queues has this ARN, if one has.
    pub fn queue_of(&self, arn: &str) -> Option<(Lane, Priority)> {
        let name = arn.rsplit_once(':')?.1;
        let queues = LANES.into_iter().flat_map(|lane| Priority::ALL.map(|priority| (lane, priority)));
        queues.into_iter().find(|(lane, priority)| queue_name(&self.prefix, *lane, *priority) == name)
    }

    /// Takes a hint, which Lambda has received, as held from now on, until it is deleted or postponed.
    pub fn hold(&self, delivery: &Delivery) {
        self.held.lock().insert(delivery.receipt.clone(), (delivery.hint.lane, delivery.hint.priority));
    }

    /// Keeps hidden what is held, for as long as this is polled; begins at once. Best effort: a hint that it fails to keep comes
    /// again, which costs a request and does no harm. One that is postponed while a renewal is under way may come a little
    /// later than it was to.
    pub async fn keep_hidden(&self) -> Infallible {
        loop {
            self.hide().await;
            tokio::time::sleep(RENEW).await;
        }
    }

    async fn hide(&self) {
        let mut queues: HashMap<(Lane, Priority), Vec<String>> = HashMap::new();
        for (receipt, queue) in &*self.held.lock() {
            queues.entry(*queue).or_default().push(receipt.clone());
        }
        let batches = queues.iter().flat_map(|(queue, receipts)| {
            receipts.chunks(limits::QUEUE_BATCH_MAX).map(|batch| self.hide_batch(*queue, batch))
        });
        stream::iter(batches).buffer_unordered(CONCURRENT_MAX).collect::<Vec<()>>().await;
    }

    async fn hide_batch(&self, (lane, priority): (Lane, Priority), receipts: &[String]) {
        let Ok(url) = self.url(lane, priority).await else { return };
        let mut change = self.client.change_message_visibility_batch().queue_url(url);
        for (id, receipt) in receipts.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(HELD_S as i32);
            change = change.entries(entry.build().expect("id and receipt are set"));
        }
        match change.send().await.map_err(store_error) {
            Ok(answer) => {
                // Received by somebody else meanwhile, deleted, or hidden for as long as SQS allows: it is no longer ours.
                let lost = answer.failed().iter().filter(|failed| failed.sender_fault());
                let lost = lost.filter_map(|failed| receipts.get(failed.id().parse::<usize>().ok()?));
                let mut held = self.held.lock();
                for receipt in lost {
                    held.remove(receipt);
                }
            }
            Err(error) => tracing::debug!(%lane, %priority, %error, "held hints were not kept hidden"),
        }
    }

    async fn url(&self, lane: Lane, priority: Priority) -> Result<String, StoreError> {
        if let Some(url) = self.urls.lock().get(&(lane, priority)) {
            return Ok(url.clone());
        }
        let name = queue_name(&self.prefix, lane, priority);
        let found = self.client.get_queue_url().queue_name(&name).send().await.map_err(store_error)?;
        let url = found.queue_url.ok_or_else(|| StoreError::Unknown { detail: format!("{name} has no URL") })?;
        self.urls.lock().insert((lane, priority), url.clone());
        Ok(url)
    }

    /// Sends a batch; what SQS does not take is sent once more, and then dropped.
    async fn send_batch(&self, lane: Lane, priority: Priority, batch: Vec<SendMessageBatchRequestEntry>) {
        let mut open = batch;
        for tries in 1..=2 {
            let sent = match self.url(lane, priority).await {
                Ok(url) => {
                    let send = self.client.send_message_batch().queue_url(url).set_entries(Some(open.clone()));
                    send.send().await.map_err(store_error)
                }
                Err(error) => Err(error),
            };
            match sent {
                Ok(answer) => open.retain(|entry| answer.failed().iter().any(|failed| failed.id() == entry.id())),
                Err(error) => tracing::debug!(%lane, %priority, tries, %error, "hints were not sent"),
            }
            if open.is_empty() {
                return;
            }
        }
        tracing::warn!(%lane, %priority, count = open.len(), "hints were dropped; the sweeper sends them again");
    }

    async fn receive_from(
        &self,
        lane: Lane,
        priority: Priority,
        max: usize,
        wait_s: u64,
    ) -> Result<Vec<Delivery>, StoreError> {
        let url = self.url(lane, priority).await?;
        let receive = self
            .client
            .receive_message()
            .queue_url(&url)
            .max_number_of_messages(max.clamp(1, limits::QUEUE_BATCH_MAX) as i32)
            .wait_time_seconds(wait_s as i32)
            .visibility_timeout(HELD_S as i32)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp);
        let messages = receive.send().await.map_err(store_error)?.messages.unwrap_or_default();
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            match delivery(&message, lane, priority) {
                Some((delivery, waited_ms)) => {
                    waited_ms.into_iter().for_each(|waited_ms| self.note_delay(waited_ms));
                    self.hold(&delivery);
                    deliveries.push(delivery);
                }
                None => {
                    tracing::warn!(%lane, %priority, "deleted a message that is no hint");
                    self.remove(&url, message.receipt_handle().unwrap_or_default()).await;
                }
            }
        }
        self.credit.lock().received(priority, deliveries.len());
        Ok(deliveries)
    }

    /// Asks the queues in turn, without waiting.
    async fn receive_now(&self, lanes: &[Lane], max: usize) -> Result<Vec<Delivery>, StoreError> {
        let turn = self.credit.lock().turn(max);
        for (priority, max) in turn {
            for lane in lanes {
                let received = self.receive_from(*lane, priority, max, 0).await?;
                if !received.is_empty() {
                    return Ok(received);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Waits for all queues at once, until the first has something.
    async fn receive_later(&self, lanes: &[Lane], max: usize, wait_s: u64) -> Result<Vec<Delivery>, StoreError> {
        let queues = lanes.iter().flat_map(|lane| Priority::ALL.map(|priority| (*lane, priority)));
        let mut waits: Vec<_> =
            queues.map(|(lane, priority)| Box::pin(self.receive_from(lane, priority, max, wait_s))).collect();
        while !waits.is_empty() {
            let (received, _, others) = select_all(waits).await;
            let received = received?;
            if !received.is_empty() {
                return Ok(received);
            }
            waits = others;
        }
        Ok(Vec::new())
    }

    fn note_delay(&self, waited_ms: u64) {
        let mut delay = self.delay.lock();
        let longest = delay.filter(|(longest_ms, at)| *longest_ms > waited_ms && at.elapsed() < DELAY_SEEN);
        if longest.is_none() {
            *delay = Some((waited_ms, Instant::now()));
        }
    }

    async fn remove(&self, url: &str, receipt: &str) {
        let delete = self.client.delete_message().queue_url(url).receipt_handle(receipt);
        if let Err(error) = delete.send().await.map_err(store_error) {
            tracing::debug!(%error, "a hint was not deleted and comes again");
        }
    }
}

/// A message as a delivery, and how long it waited beyond its delay if this is its first.
fn delivery(message: &Message, lane: Lane, priority: Priority) -> Option<(Delivery, Option<u64>)> {
    let (hint, delay_ms) = message::decode(message.body()?, lane, priority)?;
    let receipt = message.receipt_handle()?.to_owned();
    let attribute = |name| {
        message.attributes().and_then(|attributes| attributes.get(&name)).and_then(|text| text.parse::<u64>().ok())
    };
    let is_first = attribute(MessageSystemAttributeName::ApproximateReceiveCount) == Some(1);
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    let waited_ms = attribute(MessageSystemAttributeName::SentTimestamp).filter(|_| is_first).map(|sent_at_ms| {
        // Both times are of SQS's clock, where it says them.
        let first_at_ms = attribute(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp);
        first_at_ms.unwrap_or_else(now_ms).saturating_sub(sent_at_ms).saturating_sub(delay_ms)
    });
    Some((Delivery { hint, receipt }, waited_ms))
}

/// Hints as batches of entries: of one queue each, of at most 10 and of at most 1 MiB.
fn batches(hints: &[Hint], delay_ms: u64) -> Vec<(Lane, Priority, Vec<SendMessageBatchRequestEntry>)> {
    let delay_s = delay_ms.div_ceil(1_000).min(DELAY_S_MAX);
    let mut batches: Vec<(Lane, Priority, Vec<SendMessageBatchRequestEntry>)> = Vec::new();
    let mut last: HashMap<(Lane, Priority), (usize, usize)> = HashMap::new();
    for hint in hints {
        let body = message::encode(hint, delay_s * 1_000);
        let bytes_of_it = body.len() + hint.tenant.as_str().len();
        let (at, bytes) = last.entry((hint.lane, hint.priority)).or_insert((usize::MAX, 0));
        let fits = batches.get(*at).is_some_and(|(_, _, entries)| {
            entries.len() < limits::QUEUE_BATCH_MAX && *bytes + bytes_of_it <= BATCH_BYTES_MAX
        });
        if !fits {
            (*at, *bytes) = (batches.len(), 0);
            batches.push((hint.lane, hint.priority, Vec::new()));
        }
        *bytes += bytes_of_it;
        let entries = &mut batches[*at].2;
        let entry = SendMessageBatchRequestEntry::builder()
            .id(entries.len().to_string())
            .message_body(body)
            .message_group_id(hint.tenant.as_str())
            .set_delay_seconds((delay_s > 0).then_some(delay_s as i32));
        entries.push(entry.build().expect("id and body are set"));
    }
    batches
}

impl ChunkQueue for AwsQueue {
    /// A delay is rounded up to seconds and cut to 15 minutes.
    async fn send(&self, hints: Vec<Hint>, delay_ms: u64) {
        let sends =
            batches(&hints, delay_ms).into_iter().map(|(lane, priority, batch)| self.send_batch(lane, priority, batch));
        stream::iter(sends).buffer_unordered(CONCURRENT_MAX).collect::<Vec<()>>().await;
    }

    /// Answers at most 10. Waits of less than a second end with a second look, as SQS waits for whole seconds.
    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        let until = Instant::now() + Duration::from_millis(wait_ms);
        if lanes.is_empty() || max == 0 {
            tokio::time::sleep_until(until).await;
            return Ok(Vec::new());
        }
        let mut received = self.receive_now(lanes, max).await?;
        while received.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match left.as_secs().min(WAIT_S_MAX) {
                0 if left.is_zero() => break,
                0 => {
                    tokio::time::sleep_until(until).await;
                    return self.receive_now(lanes, max).await;
                }
                wait_s => received = self.receive_later(lanes, max, wait_s).await?,
            }
        }
        Ok(received)
    }

    async fn delete(&self, delivery: Delivery) {
        self.held.lock().remove(&delivery.receipt);
        if self.by_events {
            return;
        }
        if let Ok(url) = self.url(delivery.hint.lane, delivery.hint.priority).await {
            self.remove(&url, &delivery.receipt).await;
        }
    }

    /// A delay is rounded up to seconds and cut to 12 hours.
    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        self.held.lock().remove(&delivery.receipt);
        let Ok(url) = self.url(delivery.hint.lane, delivery.hint.priority).await else { return };
        let hidden_s = delay_ms.div_ceil(1_000).min(HIDDEN_S_MAX);
        let change = self
            .client
            .change_message_visibility()
            .queue_url(url)
            .receipt_handle(delivery.receipt)
            .visibility_timeout(hidden_s as i32);
        if let Err(error) = change.send().await.map_err(store_error) {
            tracing::debug!(%error, "a hint was not postponed and comes again by itself");
        }
    }

    /// The longest wait of the hints that this process received within the last minute; 0 if it received none.
    async fn delay_ms(&self) -> u64 {
        let delay = *self.delay.lock();
        delay.filter(|(_, at)| at.elapsed() < DELAY_SEEN).map_or(0, |(delay_ms, _)| delay_ms.min(DELAY_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sheaf_conformance::fixture::hint;

    use super::*;

    /// What is received of 1,000 hints when these priorities have some.
    fn shares(full: &[Priority], max: usize) -> HashMap<Priority, usize> {
        let (mut credit, mut got, mut total) = (Credit::default(), HashMap::new(), 0);
        while total < 1_000 {
            for (priority, max) in credit.turn(max) {
                let count = if full.contains(&priority) { max } else { 0 };
                credit.received(priority, count);
                *got.entry(priority).or_default() += count;
                total += count;
                if count > 0 {
                    break;
                }
            }
        }
        got
    }

    #[test]
    fn priorities_share_90_to_9_to_1() {
        for max in [1, 3, 10] {
            let got = shares(&Priority::ALL, max);
            assert!((880..=920).contains(&got[&Priority::High]), "{max}: {got:?}");
            assert!((70..=110).contains(&got[&Priority::Normal]), "{max}: {got:?}");
            assert!((5..=20).contains(&got[&Priority::Low]), "{max}: {got:?}");
        }
        let got = shares(&[Priority::Low], 10);
        assert!(got[&Priority::Low] >= 1_000, "an empty queue leaves its share to the others");
    }

    #[test]
    fn batches_hold_10_of_one_queue() {
        let hints: Vec<Hint> =
            (0..45).map(|i| hint(i, "default", if i % 2 == 0 { Priority::High } else { Priority::Low })).collect();
        let batches = batches(&hints, 0);
        let sizes: Vec<usize> = batches.iter().map(|(_, _, entries)| entries.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 45);
        assert_eq!(sizes.iter().filter(|size| **size == 10).count(), 4);
        for (_, _, entries) in &batches {
            let ids: std::collections::BTreeSet<&str> = entries.iter().map(|entry| entry.id()).collect();
            assert_eq!(ids.len(), entries.len());
        }
    }

    #[test]
    fn batches_hold_a_mebibyte() {
        let mut hints: Vec<Hint> = (0..20).map(|i| hint(i, "default", Priority::High)).collect();
        hints.iter_mut().for_each(|hint| hint.pack = Some(Bytes::from(vec![7; limits::INLINE_PACK_BYTES_MAX - 500])));
        for (_, _, entries) in batches(&hints, 0) {
            assert!(entries.iter().map(|entry| entry.message_body().len()).sum::<usize>() <= BATCH_BYTES_MAX);
        }
    }

    #[test]
    fn delays_are_whole_seconds_that_sqs_takes() {
        let delay_s = |delay_ms| batches(&[hint(0, "default", Priority::High)], delay_ms)[0].2[0].delay_seconds();
        assert_eq!([0, 1, 1_000, 1_001, 9_000_000].map(delay_s), [None, Some(1), Some(1), Some(2), Some(900)]);
    }
}
