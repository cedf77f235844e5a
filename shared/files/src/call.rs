//! Calls that are repeated while the grid says that this may help.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use sheaf_api::{Answer, ApiError};

use crate::FileError;

/// First pause, longest pause and number of tries: over a minute in all, and the longest time that a hint to try again
/// later is believed.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const TRIES_MAX: usize = 20;
const RETRY_AFTER_MS_MAX: u64 = 30_000;

/// Calls until it works, cannot work, or patience ends. Every call of the grid may be repeated.
pub(crate) async fn call<T, F>(doing: &'static str, attempt: impl FnMut() -> F) -> Result<T, FileError>
where
    F: Future<Output = Answer<T>>,
{
    let pauses = ExponentialBuilder::new()
        .with_min_delay(PAUSE)
        .with_max_delay(PAUSE_MAX)
        .with_max_times(TRIES_MAX)
        .with_jitter();
    attempt
        .retry(pauses)
        .when(ApiError::may_pass)
        .adjust(|error: &ApiError, pause| {
            let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MS_MAX));
            pause.map(|pause| pause.max(asked))
        })
        .await
        .map_err(|source| FileError::Call { doing, source })
}
