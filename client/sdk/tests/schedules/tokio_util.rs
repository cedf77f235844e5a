//! The three things of tokio-util that the SDK uses, over shuttle's tokio: the real ones wait in ways it does not see.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};

/// The planted bug: whoever waits for tracked tasks is not woken when one ends.
pub static WAKE_UPS_ARE_LOST: AtomicBool = AtomicBool::new(false);

/// As `tokio_util::sync::CancellationToken`.
#[derive(Clone)]
pub struct CancellationToken(Arc<watch::Sender<bool>>);

impl CancellationToken {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    pub async fn cancelled(&self) {
        let mut cancelled = self.0.subscribe();
        cancelled.wait_for(|cancelled| *cancelled).await.expect("this holds the sender");
    }
}

/// As `tokio_util::task::TaskTracker`.
#[derive(Clone)]
pub struct TaskTracker(Arc<watch::Sender<Tracked>>);

#[derive(Default)]
struct Tracked {
    running: usize,
    closed: bool,
}

impl TaskTracker {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(Tracked::default()).0))
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.0.send_modify(|tracked| tracked.running += 1);
        let running = Running(Arc::clone(&self.0));
        tokio::spawn(async move {
            let _running = running;
            task.await;
        })
    }

    pub fn close(&self) {
        self.0.send_modify(|tracked| tracked.closed = true);
    }

    pub async fn wait(&self) {
        let mut tracked = self.0.subscribe();
        tracked.wait_for(|tracked| tracked.closed && tracked.running == 0).await.expect("this holds the sender");
    }
}

struct Running(Arc<watch::Sender<Tracked>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_if_modified(|tracked| {
            tracked.running -= 1;
            !WAKE_UPS_ARE_LOST.load(Ordering::Relaxed)
        });
    }
}

/// As `tokio_util::task::AbortOnDropHandle`.
#[derive(Debug)]
pub struct AbortOnDropHandle<T>(JoinHandle<T>);

impl<T> AbortOnDropHandle<T> {
    pub fn new(task: JoinHandle<T>) -> Self {
        Self(task)
    }
}

impl<T> Future for AbortOnDropHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDropHandle<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
