//! The table's stream: from records to summaries, and from jobs that are over to those who wait for that.
//!
//! # Delivery
//! Records come at least once, those of one item in order, in batches of one shard. Everything here may be repeated. What could
//! not be done is answered with the place of its record, and Lambda brings everything from there on again, for as long as the
//! stream has it (24 hours).
//!
//! # What blocks a shard
//! Whatever may yet succeed: a busy or broken table, a queue of uploads that cannot be reached (a result file that nobody asks
//! for would never be written). What can never succeed does not: a record, a job or a summary that cannot be read is logged
//! with its key, counted and passed over, and so is an event that the bus refuses for good. The sweeper recounts the chunks of
//! jobs that are not over, so that what was passed over is found once it can be read.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sheaf_aws::{
    Notifier,
    notify::is_uploaded,
    stream::{Change, StreamRecord},
};
use sheaf_core::{Chunk, ChunkState, Job, JobId, Outcome, Totals};
use sheaf_protocol::{Clock, Ports, StateStore, StoreError, summarise};
use sheaf_telemetry::{Metrics, names};

/// Notifications that are under way at once.
const CONCURRENT_MAX: usize = 8;

/// The result step behind a stream.
pub(crate) struct Stream<P> {
    ports: P,
    notifier: Notifier,
    grid: String,
}

/// What came of an event.
pub(crate) struct Taken {
    /// For Lambda: the place from where on it is to bring the records again, if any.
    pub(crate) answer: Value,
    /// Of the records before that.
    pub(crate) metrics: Vec<Metrics>,
}

/// What a batch says. Indexes are those of its records.
#[derive(Default)]
struct News {
    chunks: Vec<(usize, Chunk)>,
    over: Vec<(usize, Job)>,
}

/// What was given up.
#[derive(Debug, Default, Clone, Copy)]
struct Lost {
    poison: u64,
    notifications: u64,
}

impl<P: Ports> Stream<P> {
    pub(crate) fn new(ports: P, notifier: Notifier, grid: &str) -> Self {
        Self { ports, notifier, grid: grid.to_owned() }
    }

    /// Takes in an event's records.
    pub(crate) async fn take(&self, event: &Value) -> Taken {
        let records = StreamRecord::all(event);
        let mut lost = Lost::default();
        let news = read(&records, &mut lost);
        let uncounted = self.summarise(&news.chunks, &mut lost).await;
        let untold = self.notify(&news.over, &mut lost).await;
        let failed = [uncounted, untold].into_iter().flatten().min();
        let done = failed.unwrap_or(records.len());
        let chunks = news.chunks.iter().filter(|(i, _)| *i < done).map(|(_, chunk)| chunk);
        let metrics = metrics(&self.grid, self.ports.clock().now_ms(), chunks, lost);
        let failures: Vec<Value> =
            failed.iter().map(|i| json!({"itemIdentifier": records[*i].sequence_number()})).collect();
        Taken { answer: json!({ "batchItemFailures": failures }), metrics }
    }

    /// Counts chunks, all jobs in one call; answers the first record whose chunk was not counted and may be yet.
    async fn summarise(&self, chunks: &[(usize, Chunk)], lost: &mut Lost) -> Option<usize> {
        let (first, _) = chunks.first()?;
        let changed: Vec<Chunk> = chunks.iter().map(|(_, chunk)| chunk.clone()).collect();
        match summarise::summarise(&self.ports, &changed).await {
            Ok(()) => return None,
            Err(error @ (StoreError::Throttled { .. } | StoreError::Unknown { .. })) => {
                tracing::warn!(%error, chunks = chunks.len(), "not summarised; comes again");
                return Some(*first);
            }
            Err(StoreError::Stopped { .. } | StoreError::Damaged { .. }) => {}
        }
        // It may be one job that cannot be counted; the others are.
        let mut jobs: BTreeMap<JobId, (usize, Vec<Chunk>)> = BTreeMap::new();
        for (i, chunk) in chunks {
            jobs.entry(chunk.job()).or_insert((*i, Vec::new())).1.push(chunk.clone());
        }
        let mut failed = None;
        for (job, (first, changed)) in jobs {
            match summarise::summarise(&self.ports, &changed).await {
                Ok(()) => {}
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(%job, %error, chunks = changed.len(), "a job cannot be summarised; passed over");
                    lost.poison += 1;
                }
                Err(error) => {
                    tracing::error!(%job, %error, chunks = changed.len(), "not summarised; comes again");
                    failed = Some(failed.map_or(first, |earliest: usize| earliest.min(first)));
                }
            }
        }
        failed
    }

    /// Tells of jobs that are over; answers the first record of one that was not told of and may be yet.
    async fn notify(&self, over: &[(usize, Job)], lost: &mut Lost) -> Option<usize> {
        let told = stream::iter(over).map(|(i, job)| async move { (*i, self.notify_one(job).await) });
        let told: Vec<_> = told.buffer_unordered(CONCURRENT_MAX).collect().await;
        lost.notifications += told.iter().filter(|(_, told)| matches!(told, Told::GivenUp)).count() as u64;
        told.iter().filter(|(_, told)| matches!(told, Told::Again)).map(|(i, _)| *i).min()
    }

    async fn notify_one(&self, job: &Job) -> Told {
        if is_uploaded(job)
            && let Err(error) = self.notifier.collect(job.id).await
        {
            tracing::error!(job = %job.id, %error, "results of an uploaded job were not asked for; comes again");
            return Told::Again;
        }
        if !self.notifier.has_bus() {
            return Told::All;
        }
        let told = match self.ports.state().summary(job.id).await {
            Ok(summary) => self.notifier.ended(job, &summary).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => Told::All,
            Err(error @ (StoreError::Throttled { .. } | StoreError::Unknown { .. })) => {
                tracing::warn!(job = %job.id, %error, "an event was not put on the bus; comes again");
                Told::Again
            }
            Err(error @ (StoreError::Stopped { .. } | StoreError::Damaged { .. })) => {
                tracing::error!(job = %job.id, %error, "an event cannot be put on the bus; given up");
                Told::GivenUp
            }
        }
    }
}

/// What became of a notification.
enum Told {
    All,
    Again,
    GivenUp,
}

/// Sorts out what is news. A record that cannot be read is passed over: it would be the same the next time.
fn read(records: &[StreamRecord<'_>], lost: &mut Lost) -> News {
    let mut news = News::default();
    for (i, record) in records.iter().enumerate() {
        match record.change() {
            Ok(Change::Chunk(chunk)) => news.chunks.push((i, *chunk)),
            // Nothing is written to a job that is over, so this is the write that ended it.
            Ok(Change::Job(job)) if job.state.ended_at_ms().is_some() => news.over.push((i, *job)),
            Ok(Change::Job(_) | Change::Other) => {}
            Err(error) => {
                tracing::error!(key = record.key(), sequence = record.sequence_number(), %error, "a record was passed over");
                lost.poison += 1;
            }
        }
    }
    news
}

/// The metrics of a batch: a line for each outcome, as a line has one set of dimensions, and one for the rest.
fn metrics<'a>(grid: &str, now_ms: u64, chunks: impl Iterator<Item = &'a Chunk>, lost: Lost) -> Vec<Metrics> {
    let mut totals = Totals::default();
    let mut rest = Metrics::new(grid, now_ms);
    let seconds = |from_ms: u64, to_ms: u64| to_ms.saturating_sub(from_ms) as f64 / 1_000.0;
    let (mut finished, mut ended) = (0, 0);
    for chunk in chunks.filter(|chunk| chunk.is_final()) {
        totals += chunk.totals().into();
        if let ChunkState::Done { since_ms, at_ms, .. } = chunk.state {
            finished += 1;
            rest = rest.with(names::CHUNK_DURATION, seconds(since_ms, at_ms));
            rest = rest.with(names::EXECUTIONS_PER_TASK, f64::from(chunk.epoch));
            // Of a chunk that was claimed several times, the last claim says nothing of the queue.
            if chunk.epoch == 1 {
                rest = rest.with(names::QUEUE_DELAY, seconds(chunk.spec.submitted_at_ms, since_ms));
            }
        } else {
            ended += 1;
        }
    }
    let counts = [
        (names::CHUNKS_FINISHED, finished),
        (names::CHUNKS_ENDED, ended),
        (names::STREAM_POISON, lost.poison),
        (names::NOTIFICATIONS_LOST, lost.notifications),
    ];
    for (metric, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        rest = rest.with_count(metric, count);
    }
    let outcomes = Outcome::ALL.into_iter().filter(|outcome| totals.of(*outcome) > 0).map(|outcome| {
        let of = Metrics::new(grid, now_ms).of(names::OUTCOME, names::outcome(outcome));
        of.with_count(names::TASKS, totals.of(outcome))
    });
    outcomes.chain([rest]).collect()
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
