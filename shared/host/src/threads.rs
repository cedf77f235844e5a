//! Threads for handlers that block or compute.
//!
//! Not the runtime's blocking pool: a handler that never returns would keep the whole process from ending there.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};

use crate::limits;

type Job = Box<dyn FnOnce() + Send>;

/// A pool that grows with what is submitted (the host's slots bound that) and shrinks when idle. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    left: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Threads {
    /// Runs a job on a thread of its own. An error is the system's refusal to make one.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut queue = self.shared.queue.lock();
        if queue.idle <= queue.jobs.len() {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new().name("sheaf-handler".into()).spawn(move || work(&shared))?;
        }
        queue.jobs.push_back(Box::new(job));
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Counts a thread whose job nobody waits for any more.
    pub(crate) fn leave(&self) {
        self.shared.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a thread has come to its end after all.
    pub(crate) fn returned(&self) {
        self.shared.left.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many such threads there are.
    pub(crate) fn left(&self) -> usize {
        self.shared.left.load(Ordering::Relaxed)
    }

    /// Ends idle threads now, and the others after their job.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            job();
            queue = shared.queue.lock();
            continue;
        }
        if queue.closed {
            return;
        }
        queue.idle += 1;
        let waited = shared.wake.wait_for(&mut queue, limits::THREAD_IDLE);
        queue.idle -= 1;
        if waited.timed_out() && queue.jobs.is_empty() {
            return;
        }
    }
}
