//! Errors of the SDK, sorted by the one question that matters: could the request have been carried out?

use std::error::Error;

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};
use sheaf_protocol::StoreError;

/// When to ask a throttled service again, at the earliest; the steps add their jitter.
const RETRY_AFTER_MS: u64 = 100;
/// When to ask again after credentials ran out: the SDK fetches new ones meanwhile.
const CREDENTIALS_AFTER_MS: u64 = 1_000;
/// Of an error's text, so much is kept.
const DETAIL_BYTES_MAX: usize = 500;

/// Codes with which AWS services say that they are asked too often, or that another write is under way. None of these
/// requests was carried out. Source: the error references of DynamoDB, SQS and S3, and the retry classifier of the SDK.
const THROTTLED: [&str; 17] = [
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "KMSThrottlingException",
    "LimitExceededException",
    "OperationAborted",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionConflictException",
];

/// Codes of credentials that ran out. They are refused before anything is done.
const CREDENTIALS: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];

/// Codes of requests that came in too slowly. A service may have acted on what it had.
const TOO_SLOW: [&str; 2] = ["RequestTimeout", "RequestTimeoutException"];

/// What an answered error means, by its code and the HTTP status. Codes are fields of the services' protocols; their texts
/// are never looked at.
fn answered(code: Option<&str>, status: u16, detail: String) -> StoreError {
    let is_one_of = |codes: &[&str]| code.is_some_and(|code| codes.contains(&code));
    if is_one_of(&THROTTLED) || status == 429 {
        StoreError::Throttled { retry_after_ms: RETRY_AFTER_MS }
    } else if is_one_of(&CREDENTIALS) {
        StoreError::Throttled { retry_after_ms: CREDENTIALS_AFTER_MS }
    } else if status >= 500 || is_one_of(&TOO_SLOW) {
        StoreError::Unknown { detail }
    } else {
        // Refused for what it is: no such table, no permission, malformed. The same request will not do better.
        StoreError::Stopped { detail }
    }
}

/// What a failed call means.
pub(crate) fn store_error<E>(error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let mut detail = DisplayErrorContext(&error).to_string();
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
    match &error {
        // Never sent.
        SdkError::ConstructionFailure(_) => StoreError::Stopped { detail },
        SdkError::ServiceError(answer) => answered(answer.err().code(), answer.raw().status().as_u16(), detail),
        // A connection that could not be made looks like one that broke after the request was sent.
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            StoreError::Unknown { detail }
        }
        // The SDK may add kinds; of those nothing is known.
        _ => StoreError::Unknown { detail },
    }
}

/// What is stored and cannot be read.
pub(crate) fn damaged(object: impl ToString, detail: impl ToString) -> StoreError {
    StoreError::Damaged { object: object.to_string(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{
        config::http::HttpResponse,
        error::{ConnectorError, ErrorMetadata, SdkError},
        operation::put_item::PutItemError,
        types::error::{InternalServerError, ProvisionedThroughputExceededException},
    };
    use aws_sdk_s3::primitives::SdkBody;
    use sheaf_api::WriteOutcome;

    use super::*;

    fn answer(status: u16, error: PutItemError) -> StoreError {
        let status = status.try_into().expect("a status");
        store_error(SdkError::service_error(error, HttpResponse::new(status, SdkBody::empty())))
    }

    fn coded(status: u16, code: &str) -> WriteOutcome {
        answer(status, PutItemError::generic(ErrorMetadata::builder().code(code).build())).outcome()
    }

    #[test]
    fn throttled_requests_were_not_carried_out() {
        for code in THROTTLED.iter().chain(&CREDENTIALS) {
            for status in [400, 409, 503] {
                assert_eq!(coded(status, code), WriteOutcome::NotApplied, "{code}");
            }
        }
        assert_eq!(coded(429, "Whatever"), WriteOutcome::NotApplied);
        let meta = ErrorMetadata::builder().code("ProvisionedThroughputExceededException").build();
        let modelled = ProvisionedThroughputExceededException::builder().meta(meta).build();
        let error = answer(400, PutItemError::ProvisionedThroughputExceededException(modelled));
        assert_eq!(error, StoreError::Throttled { retry_after_ms: RETRY_AFTER_MS });
    }

    #[test]
    fn of_failures_behind_the_request_nothing_is_known() {
        let internal = InternalServerError::builder().build();
        assert_eq!(answer(500, PutItemError::InternalServerError(internal)).outcome(), WriteOutcome::Unknown);
        assert_eq!(coded(503, "ServiceUnavailable"), WriteOutcome::Unknown);
        TOO_SLOW.iter().for_each(|code| assert_eq!(coded(400, code), WriteOutcome::Unknown));
        let lost: [SdkError<PutItemError, HttpResponse>; 4] = [
            SdkError::timeout_error("too late"),
            SdkError::dispatch_failure(ConnectorError::io("broken".into())),
            SdkError::dispatch_failure(ConnectorError::timeout("too late".into())),
            SdkError::response_error(
                "not DynamoDB",
                HttpResponse::new(200.try_into().expect("a status"), SdkBody::empty()),
            ),
        ];
        for error in lost {
            assert_eq!(store_error(error).outcome(), WriteOutcome::Unknown);
        }
    }

    #[test]
    fn what_is_wrong_in_itself_is_final() {
        for (status, code) in [
            (400, "ValidationException"),
            (400, "ResourceNotFoundException"),
            (403, "AccessDenied"),
            (404, "NoSuchBucket"),
        ] {
            assert_eq!(coded(status, code), WriteOutcome::Final, "{code}");
        }
        let unbuilt: SdkError<PutItemError, HttpResponse> = SdkError::construction_failure("no table");
        assert_eq!(store_error(unbuilt).outcome(), WriteOutcome::Final);
    }
}
