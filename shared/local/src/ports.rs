//! The ports of an embedded grid, together.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sheaf_protocol::{Clock, Ports, Rng};

use crate::{queue::LocalQueue, store::LocalStore};

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The thread's random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadRng;

impl Rng for ThreadRng {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// Store, queue, clock and randomness of one process.
#[derive(Debug, Clone)]
pub struct LocalPorts {
    store: LocalStore,
    queue: Arc<LocalQueue>,
}

impl LocalPorts {
    /// The ports over a store, with a queue of their own.
    pub fn new(store: LocalStore) -> Self {
        Self { store, queue: Arc::default() }
    }

    /// The store.
    pub const fn store(&self) -> &LocalStore {
        &self.store
    }
}

impl Ports for LocalPorts {
    type State = LocalStore;
    type Blobs = LocalStore;
    type Queue = LocalQueue;
    type Clock = SystemClock;
    type Rng = ThreadRng;

    fn state(&self) -> &LocalStore {
        &self.store
    }

    fn blobs(&self) -> &LocalStore {
        &self.store
    }

    fn queue(&self) -> &LocalQueue {
        &self.queue
    }

    fn clock(&self) -> &SystemClock {
        &SystemClock
    }

    fn rng(&self) -> &ThreadRng {
        &ThreadRng
    }
}
