//! The ports of an embedded grid, together.

use std::sync::Arc;

use sheaf_protocol::Ports;
use sheaf_worker::{SystemClock, ThreadRng};

use crate::{queue::LocalQueue, store::LocalStore};

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
