//! The queue: SQS's standard kind, which promises at-least-once and little else.

use sheaf_core::Lane;
use sheaf_protocol::{ChunkQueue, Delivery, Hint, StoreError};

use crate::{bug::Bug, cloud::Message, executor::Sim, ports::SimPorts};

/// How long a received message is hidden, in ms.
const VISIBILITY_MS: u64 = 30_000;
/// The longest that SQS hides a message, in ms: 12 hours.
const VISIBILITY_MS_MAX: u64 = 12 * 3_600 * 1_000;
/// The longest that SQS delays a message, in ms: 15 minutes.
const DELAY_MS_MAX: u64 = 15 * 60 * 1_000;
/// How often a long poll looks, in ms.
const POLL_MS: u64 = 1_000;

impl SimPorts {
    fn enqueue(&self, hint: Hint, delay_ms: u64) {
        let twice = u64::from(self.strikes(self.faults().message_twice));
        let is_lost = self.strikes(self.faults().message_lost);
        for copy in 0..=twice {
            if is_lost && copy == 0 {
                self.sim().cloud(|cloud| cloud.audit.counts.one("messages lost"));
                continue;
            }
            let late_ms =
                if self.strikes(self.faults().message_late) { self.sim().between(0, DELAY_MS_MAX) } else { 0 };
            let mut hint = hint.clone();
            if hint.pack.is_some() && self.strikes(self.faults().wrong_pack) {
                hint.pack = Some(bytes::Bytes::from_static(b"not this pack"));
            }
            let jitter_ms = self.sim().between(0, 50);
            self.sim().cloud(|cloud| {
                let (id, sent_at_ms) = (cloud.number(), self.sim().now_ms());
                let visible_at_ms = sent_at_ms + delay_ms.min(DELAY_MS_MAX) + late_ms + jitter_ms;
                cloud.messages.insert(id, Message { id, hint, visible_at_ms, receipt: 0, sent_at_ms });
                cloud.audit.counts.one("messages sent");
                if copy > 0 {
                    cloud.audit.counts.one("messages doubled");
                }
            });
        }
    }

    /// Takes a message off the queue for the holder of its newest receipt.
    fn with_receipt(&self, delivery: &Delivery, change: impl FnOnce(&Sim, &mut Message)) {
        let Some((id, receipt)) = delivery.receipt.split_once(' ') else { return };
        let (Ok(id), Ok(receipt)) = (id.parse::<u64>(), receipt.parse::<u64>()) else { return };
        self.sim().cloud(|cloud| match cloud.messages.get_mut(&id) {
            Some(message) if message.receipt == receipt => change(self.sim(), message),
            Some(_) => cloud.audit.counts.one("expired receipts"),
            None => {}
        });
    }
}

impl ChunkQueue for SimPorts {
    async fn send(&self, hints: Vec<Hint>, delay_ms: u64) {
        if hints.is_empty() {
            return;
        }
        let ports = self.clone();
        let fate = self.fate();
        // Failures are not reported: the sweeper finds what was not sent.
        let _ = self.send("send hints", fate, |_, _| ()).await.map(|()| {
            for hint in hints {
                ports.enqueue(hint, delay_ms);
            }
        });
    }

    async fn receive(&self, lanes: &[Lane], max: usize, wait_ms: u64) -> Result<Vec<Delivery>, StoreError> {
        let until_ms = self.sim().now_ms() + wait_ms;
        self.read("receive", |_, _| ()).await?;
        if self.strikes(self.faults().receive_empty) {
            self.sim().sleep_ms(wait_ms).await;
            return Ok(Vec::new());
        }
        loop {
            let now_ms = self.sim().now_ms();
            let found: Vec<u64> = self.sim().cloud(|cloud| {
                let is_visible = |message: &&Message| {
                    message.visible_at_ms <= now_ms && (lanes.is_empty() || lanes.contains(&message.hint.lane))
                };
                cloud.messages.values().filter(is_visible).map(|message| message.id).take(64).collect()
            });
            if !found.is_empty() {
                let mut found = found;
                self.sim().draw(|rng| rng.shuffle(&mut found));
                found.truncate(max);
                return Ok(self.sim().cloud(|cloud| {
                    let mut deliveries = Vec::with_capacity(found.len());
                    for id in found {
                        let receipt = cloud.number();
                        let Some(message) = cloud.messages.get_mut(&id) else { continue };
                        // How long it waited says something only when it is received for the first time.
                        if message.receipt == 0 {
                            cloud.delay_ms = now_ms.saturating_sub(message.sent_at_ms);
                        }
                        message.receipt = receipt;
                        message.visible_at_ms = now_ms + VISIBILITY_MS;
                        let hint = message.hint.clone();
                        deliveries.push(Delivery { hint, receipt: format!("{id} {receipt}") });
                    }
                    deliveries
                }));
            }
            if now_ms >= until_ms {
                return Ok(Vec::new());
            }
            self.sim().sleep_ms(POLL_MS.min(until_ms - now_ms)).await;
        }
    }

    async fn delete(&self, delivery: Delivery) {
        let fate = self.fate();
        if self.send("delete hint", fate, |_, _| ()).await.is_err() || self.strikes(self.faults().delete_ignored) {
            return;
        }
        let key = delivery.hint.key;
        self.sim().cloud(|cloud| {
            let chunk = cloud.chunks.get(&key).cloned();
            if !delivery.hint.hedge {
                cloud.audit.message_deleted(key, chunk.as_ref());
            }
            if let Some((id, _)) = delivery.receipt.split_once(' ')
                && let Ok(id) = id.parse::<u64>()
            {
                cloud.messages.remove(&id);
            }
        });
    }

    async fn postpone(&self, delivery: Delivery, delay_ms: u64) {
        if self.sim().cloud(|cloud| cloud.has(Bug::DuplicateDeleted)) {
            return self.delete(delivery).await;
        }
        let fate = self.fate();
        if self.send("postpone hint", fate, |_, _| ()).await.is_err() {
            return;
        }
        self.sim().cloud(|cloud| cloud.audit.counts.one("hints postponed"));
        self.with_receipt(&delivery, |sim, message| {
            message.visible_at_ms = sim.now_ms() + delay_ms.min(VISIBILITY_MS_MAX);
        });
    }

    async fn delay_ms(&self) -> u64 {
        // The age of the oldest message that nobody has received, as the queue's metric tells, or what the last one had.
        let now_ms = self.sim().now_ms();
        self.sim().cloud(|cloud| {
            let waiting =
                cloud.messages.values().find(|message| message.receipt == 0 && message.visible_at_ms <= now_ms);
            waiting.map_or(0, |message| (now_ms - message.sent_at_ms).max(cloud.delay_ms))
        })
    }
}
