//! Functions, their estimates, and workers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use sheaf_api::wire::WorkerView;
use sheaf_core::{Estimate, FunctionName, FunctionRef, Manifest, TenantId, WorkerId};
use sheaf_protocol::StoreError;

use super::{
    AwsState,
    item::{self, Item, Reader, key},
};
use crate::schema::{TTL, WORKERS, thing as at};

/// A worker not heard of for this long is no longer listed.
const WORKER_FORGOTTEN_MS: u64 = 60_000;
/// After this long, the table forgets a worker by itself.
const WORKER_KEPT_S: u64 = 24 * 3600;
/// An estimate is written at most this often, and read again when it is older.
const ESTIMATE_AGE: Duration = Duration::from_secs(5);
/// Functions whose estimates are remembered.
const ESTIMATES_MAX: usize = 1_024;

/// Before and behind all sort keys.
const ALL: (&str, &str) = (" ", "~");

/// Estimates as this process knows them. Others see them once they are written.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    known: Mutex<HashMap<FunctionRef, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    estimate: Estimate,
    at: Instant,
}

impl Estimates {
    fn recent(&self, function: &FunctionRef) -> Option<Estimate> {
        self.known.lock().get(function).filter(|known| known.at.elapsed() < ESTIMATE_AGE).map(|known| known.estimate)
    }

    fn keep(&self, function: &FunctionRef, estimate: Estimate, at: Instant) {
        let mut known = self.known.lock();
        if known.len() >= ESTIMATES_MAX && !known.contains_key(function) {
            known.clear();
        }
        known.insert(function.clone(), Known { estimate, at });
    }
}

/// The port names no tenant: a grid's functions belong to its default one.
fn partition(kind: char) -> String {
    format!("{kind}#{}", TenantId::default())
}

fn function_key(reference: &FunctionRef) -> Item {
    key(partition('F'), reference.to_string())
}

fn estimate_key(reference: &FunctionRef) -> Item {
    key(partition('E'), reference.to_string())
}

fn with_json(mut item: Item, value: &impl Serialize) -> Item {
    let json = serde_json::to_string(value).expect("plain structs become JSON");
    item.insert(at::JSON.to_owned(), item::text(json));
    item
}

fn newest_of(item: &Item) -> Result<FunctionRef, StoreError> {
    let read = Reader { item, object: "function" };
    read.text(at::NEWEST)?.parse().map_err(|_| read.bad(at::NEWEST))
}

impl AwsState {
    /// The manifest goes first, so that the newest version is always there to be read.
    pub(super) async fn keep_function(&self, reference: &FunctionRef, manifest: &Manifest) -> Result<(), StoreError> {
        self.table.put(with_json(function_key(reference), manifest)).await?;
        let mut newest = key(partition('N'), reference.name.as_str());
        newest.insert(at::NEWEST.to_owned(), item::text(reference.to_string()));
        self.table.put(newest).await
    }

    pub(super) async fn manifest(&self, reference: &FunctionRef) -> Result<Option<Manifest>, StoreError> {
        let item = self.table.get(function_key(reference)).await?;
        item.map(|item| Reader { item: &item, object: "function" }.json(at::JSON)).transpose()
    }

    pub(super) async fn newest_version(&self, name: &FunctionName) -> Result<Option<FunctionRef>, StoreError> {
        let item = self.table.get(key(partition('N'), name.as_str())).await?;
        item.as_ref().map(newest_of).transpose()
    }

    pub(super) async fn newest_versions(&self) -> Result<Vec<FunctionRef>, StoreError> {
        self.table.query_all(&partition('N'), ALL).await?.iter().map(newest_of).collect()
    }

    /// Reads it at most every few seconds.
    pub(super) async fn known_estimate(&self, function: &FunctionRef) -> Estimate {
        if let Some(estimate) = self.estimates.recent(function) {
            return estimate;
        }
        let item = self.table.get(estimate_key(function)).await;
        let read = |item: Item| Reader { item: &item, object: "estimate" }.json(at::JSON);
        match item.and_then(|item| item.map(read).transpose()) {
            Ok(estimate) => {
                let estimate = estimate.unwrap_or_default();
                self.estimates.keep(function, estimate, Instant::now());
                estimate
            }
            Err(error) => {
                tracing::debug!(%function, %error, "no estimate");
                Estimate::default()
            }
        }
    }

    /// Observations are taken in here at once, and written every few seconds; what is lost between is lost.
    pub(super) async fn take_in(&self, function: &FunctionRef, tasks: u64, mean_us: f64, max_us: f64) {
        let known = self.estimates.known.lock().get(function).copied();
        let (mut estimate, read_at) = match known {
            Some(Known { estimate, at }) => (estimate, at),
            None => (self.known_estimate(function).await, Instant::now() - ESTIMATE_AGE),
        };
        estimate.observe(tasks, mean_us, max_us);
        if read_at.elapsed() < ESTIMATE_AGE {
            self.estimates.keep(function, estimate, read_at);
            return;
        }
        self.estimates.keep(function, estimate, Instant::now());
        if let Err(error) = self.table.put(with_json(estimate_key(function), &estimate)).await {
            tracing::debug!(%function, %error, "an estimate was not written");
        }
    }

    pub(super) async fn keep_worker(&self, worker: &WorkerView) {
        let mut item = with_json(key(WORKERS, worker.id.as_str()), worker);
        item.insert(TTL.to_owned(), item::number(worker.seen_at_ms / 1_000 + WORKER_KEPT_S));
        if let Err(error) = self.table.put(item).await {
            tracing::debug!(worker = %worker.id, %error, "a heartbeat was not written");
        }
    }

    pub(super) async fn forget_worker(&self, worker: &WorkerId) {
        if let Err(error) = self.table.delete(key(WORKERS, worker.as_str())).await {
            tracing::debug!(%worker, %error, "a worker was not removed");
        }
    }

    pub(super) async fn recent_workers(&self) -> Result<Vec<WorkerView>, StoreError> {
        let items = self.table.query_all(WORKERS, ALL).await?;
        let workers = items.iter().map(|item| Reader { item, object: "worker" }.json(at::JSON));
        let mut workers: Vec<WorkerView> = workers.collect::<Result<_, _>>()?;
        let latest_ms = workers.iter().map(|worker| worker.seen_at_ms).max().unwrap_or_default();
        workers.retain(|worker| worker.seen_at_ms + WORKER_FORGOTTEN_MS >= latest_ms);
        Ok(workers)
    }
}
