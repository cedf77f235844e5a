//! Lambda functions invoked by their ARN, for the host's functions of that kind.

use aws_config::{Region, SdkConfig, retry::RetryConfig};
use aws_sdk_lambda::{
    Client,
    config::{Config, StalledStreamProtectionConfig, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    operation::invoke::InvokeError,
    primitives::Blob,
    types::LogType,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sheaf_api::invoke::{Invocation, Invoked, Invoker, Invoking, NotInvoked};
use sheaf_protocol::StoreError;

use crate::fault::store_error;

/// Codes of functions that could not be started now and may be soon. Source: the API reference of `Invoke`; most of these
/// come with the status 502, which from anything else would leave open whether the function ran.
const NOT_READY: [&str; 6] = [
    "CodeArtifactUserPendingException",
    "EC2ThrottledException",
    "ENINotReadyException",
    "ResourceConflictException",
    "ResourceNotReadyException",
    "SnapStartNotReadyException",
];

/// Invokes Lambda functions, in whatever region their ARN says, with the rights of this process.
#[derive(Debug, Clone)]
pub struct LambdaInvoker {
    client: Client,
}

impl LambdaInvoker {
    /// An invoker with a configuration of the SDK. Nothing is called yet. What it sends is user code's to run: the SDK repeats
    /// nothing by itself. An answer may take as long as the function does, which the caller bounds.
    pub fn over(config: &SdkConfig) -> Self {
        let config = aws_sdk_lambda::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self { client: Client::from_conf(config) }
    }

    async fn ask(&self, invocation: Invocation) -> Result<Invoked, NotInvoked> {
        let Invocation { arn, event, context } = invocation;
        let region = region_of(&arn).map(|region| Region::new(region.to_owned()));
        let invoke = self.client.invoke().function_name(arn).log_type(LogType::Tail).payload(Blob::new(event));
        let invoke = invoke.client_context(BASE64_STANDARD.encode(context)).customize();
        let answer = invoke.config_override(Config::builder().region(region)).send().await.map_err(not_invoked)?;
        let log = answer.log_result.and_then(|log| BASE64_STANDARD.decode(log).ok());
        Ok(Invoked {
            failed: answer.function_error.is_some(),
            payload: answer.payload.map(Blob::into_inner).unwrap_or_default().into(),
            log: log.unwrap_or_default().into(),
        })
    }
}

impl Invoker for LambdaInvoker {
    fn invoke(&self, invocation: Invocation) -> Invoking<'_> {
        Box::pin(self.ask(invocation))
    }
}

/// The region in an ARN: `arn:aws:lambda:REGION:…`.
fn region_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(3).filter(|region| !region.is_empty())
}

fn not_invoked(error: SdkError<InvokeError, HttpResponse>) -> NotInvoked {
    let code = error.code().map(str::to_owned);
    let said = error.message().map(|message| match &code {
        Some(code) => format!("{code}: {message}"),
        None => message.to_owned(),
    });
    let is_ready = !code.is_some_and(|code| NOT_READY.contains(&code.as_str()));
    match store_error(error) {
        StoreError::Throttled { .. } => NotInvoked::Throttled(said.unwrap_or_default()),
        _ if !is_ready => NotInvoked::Throttled(said.unwrap_or_default()),
        StoreError::Stopped { detail } => NotInvoked::Refused(said.unwrap_or(detail)),
        StoreError::Unknown { detail } => NotInvoked::Lost(said.unwrap_or(detail)),
        other => NotInvoked::Lost(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::{config::http::HttpResponse, error::ErrorMetadata, primitives::SdkBody};

    use super::*;

    fn answered(status: u16, code: &str) -> NotInvoked {
        let error = InvokeError::generic(ErrorMetadata::builder().code(code).message("why").build());
        let status = status.try_into().expect("a status");
        not_invoked(SdkError::service_error(error, HttpResponse::new(status, SdkBody::empty())))
    }

    #[test]
    fn refusals_are_told_apart() {
        for (status, code) in [(429, "TooManyRequestsException"), (502, "EC2ThrottledException")] {
            assert_eq!(answered(status, code), NotInvoked::Throttled(format!("{code}: why")));
        }
        assert!(matches!(answered(409, "ResourceConflictException"), NotInvoked::Throttled(_)));
        for (status, code) in [(404, "ResourceNotFoundException"), (403, "AccessDeniedException")] {
            assert_eq!(answered(status, code), NotInvoked::Refused(format!("{code}: why")));
        }
        assert!(matches!(answered(500, "ServiceException"), NotInvoked::Lost(_)));
        assert!(matches!(not_invoked(SdkError::timeout_error("too late")), NotInvoked::Lost(_)));
    }

    #[test]
    fn the_region_is_the_functions_own() {
        assert_eq!(region_of("arn:aws:lambda:eu-west-1:000000000000:function:f:live"), Some("eu-west-1"));
        assert_eq!(region_of("arn:aws"), None);
    }
}
