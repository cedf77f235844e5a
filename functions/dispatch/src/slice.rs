//! The time that one invocation has.

use std::{sync::Arc, time::Duration};

use sheaf_api::run::{Call, Report};
use sheaf_core::{FailureKind, Manifest};
use sheaf_protocol::{Clock, Runner};

/// What is kept of an invocation's time to commit what is done, give back the rest and answer: at most this, and at most a
/// quarter. Source: a segment of 16 MiB into S3 and two writes into the table take a second or two; several tries of each
/// fit.
const COMMIT: Duration = Duration::from_secs(8);
/// No task is started in the last part of an invocation: at most this, and at most half.
const LAST_START: Duration = Duration::from_secs(15);
/// By how much a task's time is shorter than an invocation: at most this, and at most half. Source: the above, a child's
/// start (10 s), and claiming, reading and fetching a package before it.
const TASK_SHORTER: Duration = Duration::from_secs(60);

/// The time that one invocation has, and what it is used for. All times are Unix times in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// When it began.
    pub began_at_ms: u64,
    /// No task is started from then on.
    pub last_start_at_ms: u64,
    /// What still runs then is stopped.
    pub cut_at_ms: u64,
    /// How long a task may run, in ms, where no other invocation could give it more.
    pub task_ms_max: u64,
}

impl Slice {
    /// The slice from now to the Lambda's deadline.
    pub fn new(now_ms: u64, deadline_ms: u64) -> Self {
        let all_ms = deadline_ms.saturating_sub(now_ms);
        let part = |most: Duration, of: u64| (most.as_millis() as u64).min(all_ms / of);
        Self {
            began_at_ms: now_ms,
            last_start_at_ms: now_ms + all_ms - part(LAST_START, 2),
            cut_at_ms: now_ms + all_ms - part(COMMIT, 4),
            task_ms_max: (all_ms - part(TASK_SHORTER, 2)).max(1),
        }
    }

    /// How long tasks may be started, in ms.
    pub const fn work_ms(&self) -> u64 {
        self.last_start_at_ms - self.began_at_ms
    }

    /// Whether a call that begins now has all the time that a task can have here. Half of what is to spare is left for its
    /// process to start.
    const fn is_early(&self, now_ms: u64) -> bool {
        let spare_ms = (self.cut_at_ms - self.began_at_ms).saturating_sub(self.task_ms_max);
        now_ms <= self.began_at_ms + spare_ms / 2
    }
}

/// Runs calls in a slice.
#[derive(Debug)]
pub(crate) struct SliceRunner<R, C> {
    pub(crate) inner: Arc<R>,
    pub(crate) clock: C,
    pub(crate) slice: Slice,
    /// Whether there is nowhere else for tasks that are too long for a slice.
    pub(crate) is_last_resort: bool,
}

impl<R: Runner, C: Clock> Runner for SliceRunner<R, C> {
    fn slots(&self) -> usize {
        self.inner.slots()
    }

    fn can_run(&self, manifest: &Manifest) -> bool {
        self.inner.can_run(manifest)
    }

    async fn run(&self, mut call: Call) -> Report {
        if !self.is_last_resort || !self.slice.is_early(self.clock.now_ms()) {
            return self.inner.run(call).await;
        }
        let is_batch = call.manifest.batch && call.tasks.len() > 1;
        if is_batch && call.epoch > 1 {
            call.tasks.truncate(1);
        }
        let is_cut = call.manifest.timeout_ms > self.slice.task_ms_max && !(is_batch && call.tasks.len() > 1);
        if !is_cut {
            return self.inner.run(call).await;
        }
        call.manifest = Arc::new(Manifest { timeout_ms: self.slice.task_ms_max, ..(*call.manifest).clone() });
        let mut report = self.inner.run(call).await;
        let failures = report.failures.iter_mut().map(|failed| &mut failed.failure).chain(&mut report.unanswered);
        for failure in failures.filter(|failure| failure.kind == FailureKind::TimedOut) {
            failure.message = format!(
                "{}. No task can run for longer than {} ms on this grid: its Lambda for tasks ends sooner than the function's \
                 timeout, and it has no containers for long tasks. Turn those on, or make the task shorter",
                failure.message, self.slice.task_ms_max
            );
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use parking_lot::Mutex;
    use sheaf_api::{PackBuilder, run::Failed};
    use sheaf_core::{ChunkKey, Failure, FunctionKind, JobId};

    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[derive(Clone, Default)]
    struct At(Arc<AtomicU64>);

    impl Clock for At {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        async fn sleep_ms(&self, _: u64) {}
    }

    /// Lets every task time out, and notes the timeout and the number of tasks of each call.
    #[derive(Default)]
    struct Slow(Mutex<Vec<(u64, usize)>>);

    impl Runner for Slow {
        fn slots(&self) -> usize {
            1
        }

        async fn run(&self, call: Call) -> Report {
            self.0.lock().push((call.manifest.timeout_ms, call.tasks.len()));
            let failed = |&task: &u32| {
                let failure = Failure::new(FailureKind::TimedOut, "stopped");
                Failed { task, failure, run_us: 0 }
            };
            Report { failures: call.tasks.iter().map(failed).collect(), ..Report::default() }
        }
    }

    /// What a runner in a Lambda of 15 minutes makes of a call.
    async fn ran(change: impl FnOnce(&mut Manifest), epoch: u32, at_ms: u64, last: bool) -> ((u64, usize), Report) {
        let (inner, slice) = (Arc::new(Slow::default()), Slice::new(0, 15 * MINUTE_MS));
        let clock = At(Arc::new(AtomicU64::new(at_ms)));
        let runner = SliceRunner { inner: inner.clone(), clock, slice, is_last_resort: last };
        let kind = FunctionKind::Handler { revision: String::new() };
        let mut manifest = Manifest::new("f".parse().expect("a name"), kind);
        change(&mut manifest);
        let mut pack = PackBuilder::new();
        (0..3).for_each(|_| pack.push(b"1").expect("a payload"));
        let report = runner.run(Call {
            tenant: Default::default(),
            function: manifest.reference(b""),
            manifest: Arc::new(manifest),
            chunk: ChunkKey { job: JobId::from_bytes([7; 16]), number: 0 },
            epoch,
            pack: pack.finish(false),
            tasks: vec![0, 1, 2],
            deadline_ms: None,
            budget: None,
            stop_on_failure: false,
            checkpoint: None,
        });
        let report = report.await;
        (inner.0.lock().pop().expect("called"), report)
    }

    #[test]
    fn an_invocation_has_its_parts() {
        let slice = Slice::new(1_000, 901_000);
        let parts = (slice.last_start_at_ms, slice.cut_at_ms, slice.task_ms_max);
        assert_eq!(parts, (886_000, 893_000, 840_000));
        for deadline_ms in [0, 1_000, 1_001, 1_007, 5_000, 61_000] {
            let slice = Slice::new(1_000, deadline_ms);
            assert!(1_000 <= slice.last_start_at_ms && slice.last_start_at_ms <= slice.cut_at_ms, "{slice:?}");
            assert!(slice.cut_at_ms <= deadline_ms.max(1_000), "{slice:?}");
        }
    }

    #[tokio::test]
    async fn a_task_that_no_slice_suffices_for_fails_and_says_why() {
        let long = |manifest: &mut Manifest| manifest.timeout_ms = 60 * MINUTE_MS;
        let ((timeout_ms, _), report) = ran(long, 1, 5_000, true).await;
        assert_eq!(timeout_ms, 14 * MINUTE_MS);
        let message = &report.failures[0].failure.message;
        assert!(message.contains("840000 ms") && message.contains("containers"), "{message}");
    }

    #[tokio::test]
    async fn timeouts_are_the_manifests_where_they_can_be() {
        let long = |manifest: &mut Manifest| manifest.timeout_ms = 60 * MINUTE_MS;
        let ((late_ms, _), _) = ran(long, 1, MINUTE_MS, true).await;
        assert_eq!(late_ms, 60 * MINUTE_MS, "what begins late has another slice");
        let ((elsewhere_ms, _), _) = ran(long, 1, 0, false).await;
        assert_eq!(elsewhere_ms, 60 * MINUTE_MS, "there are containers");
        let ((short_ms, _), report) = ran(|manifest| manifest.timeout_ms = 5, 1, 0, true).await;
        assert_eq!((short_ms, &*report.failures[0].failure.message), (5, "stopped"));
    }

    #[tokio::test]
    async fn a_batch_that_was_tried_before_begins_with_one_task() {
        let batch = |manifest: &mut Manifest| (manifest.batch, manifest.timeout_ms) = (true, 60 * MINUTE_MS);
        assert_eq!(ran(batch, 1, 0, true).await.0, (60 * MINUTE_MS, 3));
        assert_eq!(ran(batch, 2, 0, true).await.0, (14 * MINUTE_MS, 1));
        assert_eq!(ran(batch, 2, MINUTE_MS, true).await.0.1, 3);
    }
}
