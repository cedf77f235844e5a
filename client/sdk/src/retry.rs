//! When to try again: the one place of the client that repeats a call. Reads [`ApiError::outcome`], never text.
//!
//! Every write of the grid may be repeated, so that a lost answer is simply asked for again.

use std::{future::Future, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use sheaf_api::{ApiError, Code, WriteOutcome};
use sheaf_core::limits::LONG_POLL_MS_MAX;
use tokio::time::Instant;

use crate::limits;

/// How patient a caller still is.
pub(crate) struct Patience {
    limit: Duration,
    follows_throttling: bool,
    pauses: ExponentialBackoff,
    failing_since: Option<Instant>,
    /// Some answer was lost: whatever comes last, it may have happened.
    may_have_happened: bool,
}

impl Patience {
    /// The patience of a job: a grid that throttles is followed for as long as it does, other errors that may pass are
    /// retried for [`limits::RETRY_FOR_MS`] in a row.
    pub(crate) fn new() -> Self {
        Self { follows_throttling: true, ..Self::of(Duration::from_millis(limits::RETRY_FOR_MS)) }
    }

    /// The patience of one call: so long from its first failure on, whatever it is.
    pub(crate) fn of(limit: Duration) -> Self {
        Self { limit, follows_throttling: false, pauses: pauses(), failing_since: None, may_have_happened: false }
    }

    /// Something worked: the next error is the first one, but for what it may have left behind.
    pub(crate) fn renew(&mut self) {
        (self.pauses, self.failing_since) = (pauses(), None);
    }

    /// How long to wait before the next try, or the error to give when there is none.
    pub(crate) fn pause(&mut self, error: ApiError) -> Result<Duration, ApiError> {
        self.may_have_happened |= error.outcome() == WriteOutcome::Unknown;
        self.next_pause(&error).ok_or_else(|| self.verdict(error))
    }

    /// An error that says "not applied" says nothing of the tries before.
    fn verdict(&self, error: ApiError) -> ApiError {
        if self.may_have_happened && error.outcome() == WriteOutcome::NotApplied {
            let message = format!("an earlier answer was lost, and now {}", error.message);
            return ApiError { code: Code::Unknown, message, ..error };
        }
        error
    }

    fn next_pause(&mut self, error: &ApiError) -> Option<Duration> {
        if !error.may_pass() {
            return None;
        }
        let left = if self.follows_throttling && error.code == Code::Throttled {
            self.failing_since = None;
            Duration::MAX
        } else {
            let since = *self.failing_since.get_or_insert_with(Instant::now);
            self.limit.saturating_sub(since.elapsed())
        };
        let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0).min(limits::RETRY_AFTER_MS_MAX));
        // A pause beyond what is left is not worth waiting for.
        let worth_it = asked < left;
        let next = self.pauses.next().unwrap_or(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX));
        worth_it.then(|| asked.max(next).min(left))
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(limits::RETRY_PAUSE_MS_MIN))
        .with_max_delay(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Calls until it works, cannot work, or the patience of a job ends. Safe to drop at any await.
pub(crate) async fn call<T, F>(attempt: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    call_with(Patience::new(), attempt).await
}

/// Calls something that waits for news, given how long to wait. Only the first try waits: where a grid is restarted again and
/// again, an answer that was lost while waiting would be lost in the same way each time, and patience with it. What comes back
/// at once from a later try is an answer, and the caller may wait anew.
pub(crate) async fn poll<T, F>(mut attempt: impl FnMut(u64) -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut wait_ms = LONG_POLL_MS_MAX;
    call(|| attempt(std::mem::take(&mut wait_ms))).await
}

/// As [`call`], with a patience of one's own.
pub(crate) async fn call_with<T, F>(mut patience: Patience, mut attempt: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    loop {
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let (code, message) = (error.code.as_str(), error.message.clone());
        let pause = patience.pause(error)?;
        tracing::debug!(message, code, pause_ms = pause.as_millis() as u64, "called again");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn giving_up_says_what_may_have_happened() {
        let refuse = |first: Code, then: Code| {
            let mut codes = std::iter::once(first).chain(std::iter::repeat(then));
            call(move || {
                let code = codes.next().unwrap_or(then);
                async move { Err::<(), _>(ApiError::new(code, "no")) }
            })
        };
        let started = Instant::now();
        let error = refuse(Code::Unavailable, Code::Unavailable).await.expect_err("it never works");
        assert_eq!(error.outcome(), WriteOutcome::NotApplied);
        assert!(started.elapsed() >= Duration::from_millis(limits::RETRY_FOR_MS));
        let error = refuse(Code::Unknown, Code::Unavailable).await.expect_err("it never works");
        assert_eq!(error.outcome(), WriteOutcome::Unknown);
        let error = refuse(Code::Unknown, Code::Conflict).await.expect_err("it never works");
        assert_eq!((error.code, error.outcome()), (Code::Conflict, WriteOutcome::Final));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_patience_is_made_once_and_a_job_follows_a_grid_that_throttles() {
        let tries = std::cell::Cell::new(0);
        let attempt = |code| {
            tries.set(tries.get() + 1);
            std::future::ready(if tries.get() < 100 { Err(ApiError::new(code, "no")) } else { Ok(()) })
        };
        let error = call_with(Patience::of(Duration::ZERO), || attempt(Code::Throttled)).await.expect_err("it is told");
        assert_eq!((error.code, tries.take()), (Code::Throttled, 1));
        let error = call(|| attempt(Code::Stopped)).await.expect_err("it stays stopped");
        assert_eq!((error.code, tries.take()), (Code::Stopped, 1));
        let started = Instant::now();
        assert_eq!(call(|| attempt(Code::Throttled)).await, Ok(()));
        assert!(started.elapsed() > 2 * Duration::from_millis(limits::RETRY_FOR_MS));
    }
}
