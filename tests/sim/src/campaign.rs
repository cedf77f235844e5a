//! Very many seeds, on all cores.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    audit::Counts,
    run::{Options, Report, run},
};

/// What must have happened somewhere in a campaign of thousands of seeds, or it has shown nothing.
pub const SOMETIMES: &[&str] = &[
    "T1 submit",
    "T2 claim",
    "T3 take over",
    "T4 heartbeat",
    "T5 segment",
    "T6 mark",
    "T7 release",
    "T8 finish",
    "T9 end",
    "T10 touch",
    "answers lost",
    "attempts fenced off",
    "attempts outrun by a copy",
    "batches failed in part",
    "checkpoints asked for",
    "checkpoints stored",
    "chunk submitted again",
    "clients gone for good",
    "clients killed",
    "conflicts tried",
    "duplicates postponed",
    "executions of a fenced attempt",
    "expired receipts",
    "hints sent again",
    "invocations doubled",
    "job cancelled",
    "job done",
    "jobs forgotten",
    "jobs tried again",
    "late commit refused",
    "late heartbeat refused",
    "late write refused",
    "machines gone without notice",
    "machines reclaimed with notice",
    "messages doubled",
    "messages lost",
    "own write recognised",
    "processes killed",
    "processes paused",
    "queue purged",
    "replies lost",
    "requests lost",
    "store full",
    "second copies run",
    "strangers refused",
    "stream records doubled",
    "stream records read again",
    "tasks quarantined",
    "tasks resumed",
    "throttled",
    "upload events doubled",
    "upload events lost",
    "workers killed by their task",
    "writes late",
];

/// What came of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Campaign {
    /// Seeds run.
    pub seeds: u64,
    /// The first run that broke a promise.
    pub broken: Option<Report>,
    /// Everything that was counted, summed.
    pub counts: Counts,
    /// The longest time to quiescence after the faults, in ms of virtual time, and its seed: of runs whose tasks are all
    /// innocent, and of the others.
    pub quiet_ms_max: [(u64, u64); 2],
    /// Virtual time in all, in ms.
    pub lasted_ms: u64,
    /// Time it took.
    pub took: Duration,
}

impl Campaign {
    /// Runs seeds from `first` on, as many as asked or until the time is over, on all processors; stops at the first that
    /// breaks a promise.
    pub fn of(first: u64, seeds: u64, limit: Option<Duration>, options: &Options) -> Self {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (next, stop, started) = (AtomicU64::new(first), AtomicBool::new(false), Instant::now());
        let end = first.saturating_add(seeds);
        let sum = Mutex::new(Self::default());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| started.elapsed() < limit) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            return;
                        }
                        let report = run(seed, options);
                        if !report.violations.is_empty() {
                            stop.store(true, Ordering::Relaxed);
                        }
                        sum.lock().take(report);
                    }
                });
            }
        });
        Self { took: started.elapsed(), ..sum.into_inner() }
    }

    fn take(&mut self, report: Report) {
        self.seeds += 1;
        self.counts.merge(&report.counts);
        let longest = &mut self.quiet_ms_max[usize::from(report.guilty)];
        *longest = (*longest).max((report.quiet_ms, report.seed));
        self.lasted_ms += report.lasted_ms;
        // The lowest seed, so that two campaigns over the same seeds tell the same.
        let is_first = self.broken.as_ref().is_none_or(|broken| report.seed < broken.seed);
        if !report.violations.is_empty() && is_first {
            self.broken = Some(report);
        }
    }

    /// Executions per task of those that neither fail nor kill.
    pub fn executions_per_task(&self) -> f64 {
        self.counts.of("their executions") as f64 / self.counts.of("innocent tasks run").max(1) as f64
    }

    /// What should have happened somewhere and did not.
    pub fn never(&self) -> Vec<&'static str> {
        SOMETIMES.iter().copied().filter(|what| self.counts.of(what) == 0).collect()
    }

    /// The figures, for people.
    pub fn figures(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let count = |what| self.counts.of(what);
        format!(
            "{} seeds in {seconds:.1} s ({:.0}/s), {:.0} hours of virtual time; {} tasks, {} executions, {:.3} per innocent task; \
             {} processes killed, {} workers killed by their task, {} machines reclaimed, {} pauses; {} answers lost, {} requests \
             lost, {} writes late ({} of them refused), {} messages lost, {} doubled; {} takeovers, {} late commits refused; \
             longest time to quiescence {:.0} s (seed {}), with tasks that fail or kill {:.0} s (seed {})",
            self.seeds,
            self.seeds as f64 / seconds.max(1e-9),
            self.lasted_ms as f64 / 3.6e6,
            count("tasks"),
            count("executions"),
            self.executions_per_task(),
            count("processes killed"),
            count("workers killed by their task"),
            count("machines reclaimed with notice") + count("machines gone without notice"),
            count("processes paused"),
            count("answers lost"),
            count("requests lost"),
            count("writes late"),
            count("late write refused"),
            count("messages lost"),
            count("messages doubled"),
            count("T3 take over"),
            count("late commit refused"),
            self.quiet_ms_max[0].0 as f64 / 1_000.0,
            self.quiet_ms_max[0].1,
            self.quiet_ms_max[1].0 as f64 / 1_000.0,
            self.quiet_ms_max[1].1,
        )
    }
}
