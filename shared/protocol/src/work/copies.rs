//! The second copies that a worker runs, for whoever tells how it stands.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use sheaf_core::ChunkKey;

/// The chunks of which a worker runs second copies, and whether they have changed since somebody last looked.
#[derive(Debug, Default)]
pub(super) struct Copies {
    chunks: Mutex<BTreeSet<ChunkKey>>,
    has_changed: AtomicBool,
    waker: AtomicWaker,
}

/// A copy that runs; it ends with this.
#[derive(Debug)]
pub(super) struct Copying<'a> {
    copies: &'a Copies,
    key: ChunkKey,
}

impl Copies {
    pub(super) fn begin(&self, key: ChunkKey) -> Copying<'_> {
        self.chunks.lock().insert(key);
        self.tell();
        Copying { copies: self, key }
    }

    pub(super) fn now(&self) -> Vec<ChunkKey> {
        self.chunks.lock().iter().copied().collect()
    }

    /// Waits until a copy has begun or ended since the last time that this has answered. Of several who wait, one hears it.
    pub(super) async fn changed(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.has_changed.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn tell(&self) {
        self.has_changed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.copies.chunks.lock().remove(&self.key);
        self.copies.tell();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use sheaf_core::JobId;

    use super::*;

    /// The locks of this crate may be those of shuttle.
    #[test]
    fn each_beginning_and_end_is_heard_of() {
        shuttle::check_random(beginnings_and_ends, 1);
    }

    fn beginnings_and_ends() {
        let (copies, key) = (Copies::default(), |number| ChunkKey { job: JobId::from_bytes([1; 16]), number });
        let heard = || copies.changed().now_or_never().is_some();
        assert!(!heard());
        let first = copies.begin(key(1));
        let second = copies.begin(key(2));
        assert!(heard() && !heard(), "both at once");
        assert_eq!(copies.now(), [key(1), key(2)]);
        drop(first);
        assert!(heard());
        assert_eq!(copies.now(), [key(2)]);
        drop(second);
        assert!(heard() && copies.now().is_empty());
    }
}
