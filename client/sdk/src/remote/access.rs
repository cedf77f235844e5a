//! How a request proves who makes it.

use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use sheaf_api::{Answer, ApiError};

use super::Request;

/// How requests to a grid prove who makes them.
#[derive(Clone)]
pub(super) enum Access {
    /// Not at all.
    Open,
    /// By the grid's token.
    Token(HeaderValue),
    /// By a signature with the AWS credentials of this process.
    #[cfg(feature = "aws")]
    Signed(std::sync::Arc<sheaf_aws::Signer>),
}

/// The feature that a URL needs and this build lacks. A grid behind `https://` is asked with a token if there is one, else with
/// signatures.
pub(crate) fn missing_feature(url: &str, token: &str) -> Option<&'static str> {
    let url = Url::parse(url).ok()?;
    if token.is_empty() && is_signed(&url) && !cfg!(feature = "aws") {
        Some("aws")
    } else if url.scheme() == "https" && !cfg!(feature = "https") {
        Some("https")
    } else {
        None
    }
}

/// Whether requests without a token are to be signed: those to an API of AWS, and to whatever else has no token of its own
/// behind TLS, as an API under a name of the user's.
fn is_signed(base: &Url) -> bool {
    let of_aws = |host: &str| host.split('.').skip(1).any(|label| matches!(label, "execute-api" | "lambda-url"));
    base.scheme() == "https" || base.host_str().is_some_and(of_aws)
}

impl Access {
    pub(super) fn new(base: &Url, token: &str) -> Answer<Self> {
        match token {
            "" if is_signed(base) => Self::signed(base),
            "" => Ok(Self::Open),
            token => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| ApiError::invalid("the token holds characters that no token has"))?;
                value.set_sensitive(true);
                Ok(Self::Token(value))
            }
        }
    }

    #[cfg(feature = "aws")]
    #[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
    fn signed(base: &Url) -> Answer<Self> {
        let signer = sheaf_aws::Signer::of_host(base.host_str().unwrap_or_default());
        Ok(Self::Signed(std::sync::Arc::new(signer)))
    }

    #[cfg(not(feature = "aws"))]
    fn signed(base: &Url) -> Answer<Self> {
        let message =
            format!("requests to {base} without a token are signed, which takes the feature `aws` of sheaf-sdk");
        Err(ApiError::invalid(message).with_hint("build it with that feature, or give the grid's token"))
    }

    /// Whether an API of AWS is asked, which ends requests on its own account.
    pub(super) const fn is_of_aws(&self) -> bool {
        match self {
            Self::Open | Self::Token(_) => false,
            #[cfg(feature = "aws")]
            Self::Signed(_) => true,
        }
    }

    /// The headers that prove it; `reference` is the value of a header that is part of the request.
    #[cfg_attr(not(feature = "aws"), expect(unused_variables, reason = "they are what is signed"))]
    pub(super) async fn headers(&self, request: &Request, url: &Url, reference: Option<&str>) -> Answer<HeaderMap> {
        let mut headers = HeaderMap::new();
        match self {
            Self::Open => {}
            Self::Token(token) => drop(headers.insert(AUTHORIZATION, token.clone())),
            #[cfg(feature = "aws")]
            Self::Signed(signer) => {
                let body = if reference.is_some() { &[][..] } else { &request.body[..] };
                let named: Vec<(&str, &str)> = reference.map(|name| (super::BODY_HEADER, name)).into_iter().collect();
                let signed = signer.sign(request.method.as_str(), url.as_str(), &named, body).await;
                for (name, value) in signed.map_err(unsigned)? {
                    let unsendable = || ApiError::invalid("the signature of a request cannot be sent");
                    let name: reqwest::header::HeaderName = name.parse().map_err(|_| unsendable())?;
                    let mut value: HeaderValue = value.parse().map_err(|_| unsendable())?;
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
            }
        }
        Ok(headers)
    }
}

#[cfg(feature = "aws")]
fn unsigned(error: sheaf_aws::SignError) -> ApiError {
    use sheaf_aws::SignError;
    let hint = match &error {
        SignError::Credentials { .. } => {
            "log in as for the AWS command line (a profile, environment variables, `aws sso login`), or give the grid's token"
        }
        SignError::Region => "set AWS_REGION, or a region in the profile",
        SignError::Request(_) => "is the address of the grid one?",
    };
    ApiError::new(sheaf_api::Code::Forbidden, error.to_string()).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_needs_is_named() {
        let (https, aws) = (cfg!(feature = "https"), cfg!(feature = "aws"));
        let missing = |url: &str, token: &str| missing_feature(url, token);
        assert_eq!(missing("http://127.0.0.1:1", ""), None);
        assert_eq!(missing("https://grid.example", "token"), (!https).then_some("https"));
        assert_eq!(missing("https://grid.example", ""), (!aws).then_some("aws"));
        for url in ["http://a1.execute-api.localhost:1", "https://a1.lambda-url.eu-west-1.on.aws"] {
            assert_eq!(missing(url, ""), (!aws).then_some("aws"), "{url}");
        }
        assert_eq!(missing("http://execute-api.example", ""), None, "a host of that name is not AWS's");
        assert_eq!(super::super::Remote::new("https://grid.example", "token").is_ok(), https);
        assert_eq!(super::super::Remote::new("https://grid.example", "").is_ok(), aws);
    }
}

#[cfg(all(test, feature = "loopback"))]
mod signed_tests {
    use std::sync::Arc;

    use sheaf_aws::{Signer, loopback};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{super::Remote, Access};
    use sheaf_api::Api;

    /// What a grid behind an HTTP API sees of a call.
    async fn request() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("more"));
            }
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}").await.expect("written");
            String::from_utf8(head).expect("text")
        });
        let config = loopback::config("http://127.0.0.1:1", "123456789012").await;
        let signer = Signer::of_host("a1.execute-api.eu-west-1.amazonaws.com").with_config(config);
        let remote = Remote::new(&url, "").expect("a URL").with_retry_ms_max(0);
        let remote = Remote { access: Access::Signed(Arc::new(signer)), ..remote };
        remote.progress(sheaf_core::JobId::from_bytes([1; 16]), Some(1), 5_000).await.expect_err("it is refused");
        seen.await.expect("it does not panic")
    }

    #[tokio::test]
    async fn a_call_is_signed() {
        let head = request().await;
        assert!(
            head.starts_with("GET /v1/jobs/job_01010101010101010101010101010101/progress?seen=1&wait_ms=5000 "),
            "{head}"
        );
        let authorization = head.lines().find(|line| line.starts_with("authorization: ")).expect("signed");
        assert!(authorization.contains("Credential=123456789012/"), "{authorization}");
        assert!(authorization.contains("/eu-west-1/execute-api/aws4_request"), "{authorization}");
        assert!(head.contains("x-amz-date: "), "{head}");
    }
}
