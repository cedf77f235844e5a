//! What keeps a worker that is about to stop from starting more.

use sheaf_api::run::{Call, Report};
use sheaf_core::Manifest;
use sheaf_protocol::Runner;
use tokio::sync::Semaphore;

/// A runner that can be closed: calls that run go on, those that wait for a slot come back as if they were not started, so that
/// their chunks can be given back at once instead of when time is up.
#[derive(Debug)]
pub struct Gate<R> {
    runner: R,
    free: Semaphore,
}

impl<R: Runner> Gate<R> {
    /// An open gate before this runner.
    pub fn new(runner: R) -> Self {
        Self { free: Semaphore::new(runner.slots()), runner }
    }

    /// Lets no more calls through.
    pub fn close(&self) {
        self.free.close();
    }
}

impl<R: Runner> Runner for Gate<R> {
    fn slots(&self) -> usize {
        self.runner.slots()
    }

    fn can_run(&self, manifest: &Manifest) -> bool {
        self.runner.can_run(manifest)
    }

    async fn run(&self, call: Call) -> Report {
        match self.free.acquire().await {
            Ok(_slot) => self.runner.run(call).await,
            // It is closed.
            Err(_) => Report::default(),
        }
    }
}
