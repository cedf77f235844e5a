//! What may still be started in a call, and how long it may run.

use std::time::{Duration, Instant, SystemTime};

use sheaf_api::run::{Call, Report};
use sheaf_core::{Failure, FailureKind, limits};

/// The bounds of one call, on this process's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    began: Instant,
    began_unix_ms: u64,
    timeout: Duration,
    deadline: Option<Instant>,
    ends: Option<Instant>,
    stop_on_failure: bool,
}

/// Until when something may run, and why no longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    started: Instant,
    pub(crate) at: Instant,
    by_deadline: bool,
}

impl Allowance {
    pub(crate) fn of(call: &Call) -> Self {
        let began = Instant::now();
        let began_unix_ms = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
        // A deadline further off than any timeout is none.
        let left_ms =
            |deadline_ms: u64| deadline_ms.saturating_sub(began_unix_ms).min(2 * limits::FUNCTION_TIMEOUT_MS_MAX);
        Self {
            began,
            began_unix_ms,
            timeout: Duration::from_millis(call.manifest.timeout_ms.clamp(1, limits::FUNCTION_TIMEOUT_MS_MAX)),
            deadline: call.deadline_ms.map(|deadline_ms| began + Duration::from_millis(left_ms(deadline_ms))),
            ends: call.budget.and_then(|budget| began.checked_add(budget)),
            stop_on_failure: call.stop_on_failure,
        }
    }

    /// Whether a task may start now, after `begun` others: neither deadline nor budget have passed, no
    /// task failed that the others must wait for, and the report is not
    /// so large that it should be committed first. The first task does not care for the budget: a call whose child takes
    /// longer to start than it has would never get anywhere.
    pub(crate) fn may_start(&self, now: Instant, begun: usize, report: &Report) -> bool {
        self.is_open(now)
            && (!self.stop_on_failure || report.failures.is_empty())
            && (begun == 0 || self.ends.is_none_or(|ends| now < ends))
            && report.answers.bytes() + report.logs.bytes() < limits::SEGMENT_BYTES_TARGET
    }

    /// Whether the deadline is still to come.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// Until when `tasks` tasks that start now may run.
    pub(crate) fn until(&self, now: Instant, tasks: u32) -> Until {
        let at =
            now + self.timeout.saturating_mul(tasks.max(1)).min(Duration::from_millis(limits::FUNCTION_TIMEOUT_MS_MAX));
        match self.deadline {
            Some(deadline) if deadline < at => Until { started: now, at: deadline, by_deadline: true },
            _ => Until { started: now, at, by_deadline: false },
        }
    }

    /// A moment as Unix time in ms.
    pub(crate) fn unix_ms(&self, at: Instant) -> u64 {
        self.began_unix_ms + at.saturating_duration_since(self.began).as_millis() as u64
    }
}

impl Until {
    /// The failure of a task that ran beyond this.
    pub(crate) fn passed(&self) -> Failure {
        let ms = self.at.saturating_duration_since(self.started).as_millis();
        let message = if self.by_deadline {
            format!("stopped after {ms} ms, at its job's deadline")
        } else {
            format!("stopped after {ms} ms, its timeout")
        };
        Failure::new(FailureKind::TimedOut, message)
    }
}

/// The time between two moments in µs, as reports hold it.
pub(crate) fn run_us(started: Instant, ended: Instant) -> u32 {
    u32::try_from(ended.saturating_duration_since(started).as_micros()).unwrap_or(u32::MAX)
}
