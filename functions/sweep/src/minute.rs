//! One invocation: the minute until the next.
//!
//! Nothing is remembered from one to the next; what is due less often than every minute is decided by the clock. Two at once
//! do everything twice, which is harmless.
//!
//! # Cost
//! When no job is alive, an invocation is a query for that and a look at the 64 shards of the index of due chunks. While one
//! is, it looks four times, and a request per queue and up to 200 reads of chunks tell how long hints wait. Where containers are
//! scaled, each look also costs what [`Scaler::round`] does, and what [`work::open`] does while a job is alive.

use std::collections::BTreeMap;

use sheaf_api::wire::JobFilter;
use sheaf_core::{Lane, TenantId, limits};
use sheaf_protocol::{Clock, Ports, StateStore, StoreError, sweep};
use sheaf_telemetry::{Metrics, names};

use crate::{
    delay::{Informed, Waits, waits},
    recount::recount,
    scale::{Containers, Ecs, Scaled, Scaler},
    work,
};

/// From one invocation to the next.
const MINUTE_MS: u64 = 60_000;
/// Left of the invocation's time for saying what was done.
const MARGIN_MS: u64 = 3_000;
/// Chunks looked at in one round; the next one goes on.
const CHUNKS_MAX: usize = 10_000;
/// Every so many minutes, what the stream may have lost is looked for.
const RECOUNT_MINUTES: u64 = 5;
/// Every so many minutes, jobs past their retention are removed.
const RETENTION_MINUTES: u64 = 60;

/// What an invocation did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Minute {
    pub(crate) at_ms: u64,
    pub(crate) rounds: u64,
    pub(crate) looked_at: u64,
    pub(crate) hints: u64,
    pub(crate) expired: u64,
    pub(crate) recounted: u64,
    pub(crate) removed: u64,
    pub(crate) backed_off: u64,
    /// As seen in its first round, while a job was alive.
    pub(crate) waits: Option<Waits>,
    /// Seconds of work that containers have, by lane, as of then.
    pub(crate) work: BTreeMap<Lane, f64>,
    /// What its last round came to with the containers, or why it could not scale them.
    pub(crate) scaled: Result<Scaled, StoreError>,
}

impl Minute {
    fn new(at_ms: u64) -> Self {
        Self {
            at_ms,
            rounds: 0,
            looked_at: 0,
            hints: 0,
            expired: 0,
            recounted: 0,
            removed: 0,
            backed_off: 0,
            waits: None,
            work: BTreeMap::new(),
            scaled: Ok(Scaled::default()),
        }
    }

    fn is_idle(&self) -> bool {
        let has_containers = self.scaled.as_ref().is_ok_and(|scaled| !scaled.is_zero());
        self.waits.is_none() && self.looked_at + self.removed + self.backed_off == 0 && !has_containers
    }

    /// Its metrics, of a grid: none if it had nothing to do, which is not worth their price, month after month.
    pub(crate) fn metrics(&self, grid: &str) -> Vec<Metrics> {
        if self.is_idle() {
            return Vec::new();
        }
        let mut metrics = Metrics::new(grid, self.at_ms)
            .with_count(names::SWEEP_LOOKED_AT, self.looked_at)
            .with_count(names::SWEEP_HINTS, self.hints)
            .with_count(names::SWEEP_EXPIRED, self.expired)
            .with_count(names::SWEEP_RECOUNTED, self.recounted)
            .with_count(names::SWEEP_REMOVED, self.removed)
            .with_count(names::SWEEP_BACKED_OFF, self.backed_off);
        if let Some(waits) = self.waits {
            metrics = metrics
                .with(names::OLDEST_PENDING, waits.oldest_pending_ms as f64 / 1_000.0)
                .with_count(names::BACKLOG, waits.backlog);
        }
        let of_lane = |(lane, seconds): (&Lane, &f64)| {
            Metrics::new(grid, self.at_ms).of(names::LANE, lane.as_str()).with(names::WORK, *seconds)
        };
        let containers = |(lane, Containers { wanted, running }): (&Lane, &Containers)| {
            Metrics::new(grid, self.at_ms)
                .of(names::LANE, lane.as_str())
                .with_count(names::CONTAINERS_WANTED, (*wanted).into())
                .with_count(names::CONTAINERS_RUNNING, (*running).into())
        };
        let scaled = self.scaled.iter().flat_map(|scaled| &scaled.containers).map(containers);
        [metrics].into_iter().chain(self.work.iter().map(of_lane)).chain(scaled).collect()
    }
}

/// Sweeps until the next invocation is due or this one's time is nearly over, given how many hints wait in the queues and who
/// scales the containers, if somebody does. A busy table ends it at once: whatever else is under way comes first, and the next
/// minute is soon enough.
pub(crate) async fn sweep<P, B, E>(
    ports: &P,
    backlog: B,
    scaler: Option<&Scaler<E>>,
    remaining_ms: u64,
) -> Result<Minute, StoreError>
where
    P: Ports,
    B: AsyncFn() -> Result<BTreeMap<Lane, u64>, StoreError>,
    E: Ecs,
{
    let began_ms = ports.clock().now_ms();
    let until_ms = began_ms + remaining_ms.saturating_sub(MARGIN_MS);
    let mut minute = Minute::new(began_ms);
    let rounds = rounds(ports, &backlog, scaler, until_ms, &mut minute);
    // Every step may be stopped at any await; what is left is found by the next invocation.
    let worked = tokio::select! {
        biased;
        worked = rounds => worked,
        () = ports.clock().sleep_ms(until_ms - began_ms) => {
            tracing::warn!("the time was too short; the next invocation goes on");
            Ok(())
        }
    };
    match worked {
        Ok(()) => {}
        Err(StoreError::Throttled { .. }) => {
            minute.backed_off += 1;
            tracing::warn!("a service is busy; the sweeper makes way until the next invocation");
        }
        Err(error) => return Err(error),
    }
    tracing::info!(?minute, "swept");
    Ok(minute)
}

async fn rounds<P, B, E>(
    ports: &P,
    backlog: &B,
    scaler: Option<&Scaler<E>>,
    until_ms: u64,
    minute: &mut Minute,
) -> Result<(), StoreError>
where
    P: Ports,
    B: AsyncFn() -> Result<BTreeMap<Lane, u64>, StoreError>,
    E: Ecs,
{
    let (tenant, began_ms) = (TenantId::default(), minute.at_ms);
    let ports = Informed::new(ports);
    for number in 0..MINUTE_MS / limits::SWEEP_MS {
        let begins_ms = began_ms + number * limits::SWEEP_MS;
        let now_ms = ports.clock().now_ms();
        if begins_ms >= until_ms {
            break;
        }
        ports.clock().sleep_ms(begins_ms.saturating_sub(now_ms)).await;
        let filter = JobFilter { alive: true, limit: 1, ..JobFilter::default() };
        let is_alive = !ports.state().jobs(&tenant, &filter).await?.is_empty();
        // What waits is counted once a minute; while no job is alive, nothing does.
        let mut counted = (!is_alive).then(BTreeMap::new);
        if is_alive && minute.waits.is_none() {
            let hints = counted.insert(backlog().await?);
            let waits = waits(&ports, hints.values().sum(), ports.clock().now_ms()).await?;
            ports.keep(waits);
            minute.waits = Some(waits);
        }
        look_at_work(&ports, scaler, is_alive, counted.as_ref(), minute).await?;
        // Also when no job is alive: a chunk that was submitted while its job was cancelled is left to its deadline.
        let swept = readable(sweep::chunks(&ports, CHUNKS_MAX).await)?;
        minute.rounds += 1;
        minute.looked_at += swept.looked_at;
        minute.hints += swept.hints;
        minute.expired += swept.expired;
        if is_alive {
            readable(sweep::jobs(&ports, &tenant).await)?;
            if number == 0 && is_turn(began_ms, RECOUNT_MINUTES) {
                minute.recounted += readable(recount(&ports, &tenant, ports.clock().now_ms()).await)?;
            }
        } else if !minute.scaled.as_ref().is_ok_and(|scaled| scaled.is_held_back) {
            break;
        }
    }
    // Last, as it may take all the time there is; what is left of it then is gone an hour later.
    if is_turn(began_ms, RETENTION_MINUTES) {
        minute.removed += readable(sweep::retention(&ports, &tenant).await)?;
    }
    Ok(())
}

/// Reads the open work: once a minute for people, in every round for the scaler, who also takes containers away when no job is
/// alive. `counted` are the hints that wait, if they were counted just now.
async fn look_at_work<P: Ports, E: Ecs>(
    ports: &P,
    scaler: Option<&Scaler<E>>,
    is_alive: bool,
    counted: Option<&BTreeMap<Lane, u64>>,
    minute: &mut Minute,
) -> Result<(), StoreError> {
    let is_first = is_alive && counted.is_some();
    let is_asked = is_first || is_alive && scaler.is_some();
    let work = if is_asked { work::open(ports, &TenantId::default()).await? } else { Vec::new() };
    if is_first {
        minute.work = work::seconds(&work);
    }
    let Some(scaler) = scaler else { return Ok(()) };
    minute.scaled = scaler.round(ports, &work, counted).await.inspect_err(|error| {
        tracing::warn!(%error, "the containers were not scaled; the next round does it");
    });
    Ok(())
}

/// What cannot be read is said, and keeps nothing else from being done.
fn readable<T: Default>(swept: Result<T, StoreError>) -> Result<T, StoreError> {
    match swept {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, "not swept");
            Ok(T::default())
        }
        swept => swept,
    }
}

/// Whether something that is done every so many minutes is done in this one.
fn is_turn(at_ms: u64, minutes: u64) -> bool {
    (at_ms / MINUTE_MS).is_multiple_of(minutes)
}

#[cfg(test)]
#[path = "minute_tests.rs"]
mod tests;
