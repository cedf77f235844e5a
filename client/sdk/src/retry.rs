//! When to try again. Reads [`ApiError::outcome`] and codes, never text.
//!
//! Every write of the grid may be repeated, so that a lost answer is simply asked for again.

use std::{future::Future, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use sheaf_api::{ApiError, Code, WriteOutcome};
use tokio::time::Instant;

use crate::limits;

/// Whether an error may pass.
pub(crate) const fn may_pass(error: &ApiError) -> bool {
    match error.code {
        Code::Throttled | Code::Unavailable | Code::Unknown => true,
        Code::Invalid
        | Code::TooLarge
        | Code::NotFound
        | Code::Conflict
        | Code::Over
        | Code::Unauthorized
        | Code::Forbidden
        | Code::Stopped
        | Code::Internal => false,
    }
}

/// How patient a caller still is. A grid that throttles is followed for as long as it does; errors without that word are
/// retried for [`limits::RETRY_FOR_MS`] in a row.
pub(crate) struct Patience {
    pauses: ExponentialBackoff,
    failing_since: Option<Instant>,
    /// Some answer was lost: whatever comes last, it may have happened.
    may_have_happened: bool,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { pauses: pauses(), failing_since: None, may_have_happened: false }
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
        if !may_pass(error) {
            return None;
        }
        if error.code == Code::Throttled {
            self.failing_since = None;
        } else {
            let since = *self.failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= Duration::from_millis(limits::RETRY_FOR_MS) {
                return None;
            }
        }
        let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0).min(limits::RETRY_AFTER_MS_MAX));
        Some(asked.max(self.pauses.next().unwrap_or(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX))))
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

/// Calls until it works, cannot work, or patience ends. Safe to drop at any await.
pub(crate) async fn call<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut patience = Patience::new();
    loop {
        match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => tokio::time::sleep(patience.pause(error)?).await,
        }
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
}
