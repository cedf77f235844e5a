//! The byte budget: how much may be sent and not yet acknowledged, by all jobs of one handle together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes, handed out first come, first served.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: u32,
    left: Arc<Semaphore>,
}

impl Budget {
    /// A budget of so many bytes, at least one, at most 4 GiB.
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        Self { bytes, left: Arc::new(Semaphore::new(bytes as usize)) }
    }

    /// What a request of so many bytes takes: something larger than the whole budget takes all of it, and so goes alone.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }

    /// Takes bytes if they are left.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.left).try_acquire_many_owned(self.share(bytes)).ok()
    }

    /// Waits until bytes are left, and takes them.
    pub(crate) async fn take(self, bytes: usize) -> OwnedSemaphorePermit {
        let share = self.share(bytes);
        self.left.acquire_many_owned(share).await.expect("the semaphore is never closed")
    }

    /// Bytes that are out.
    pub(crate) fn taken(&self) -> usize {
        (self.bytes as usize).saturating_sub(self.left.available_permits())
    }
}
