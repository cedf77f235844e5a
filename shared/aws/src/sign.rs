//! Signing HTTP requests for what AWS guards by itself: an HTTP API, or the URL of a function (SigV4).

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_s3::config::{Credentials, ProvideCredentials};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings},
    sign::v4::SigningParams,
};
use tokio::sync::{Mutex, OnceCell};

use crate::load_config;

/// Credentials are renewed so long before they run out: longer than any request takes.
const RENEWAL: Duration = Duration::from_secs(300);

/// Signs requests to one host with the credentials of this process, which are found as the AWS command line finds them
/// (environment, profile, single sign-on, role), kept, and renewed before they run out.
#[derive(Debug)]
pub struct Signer {
    service: &'static str,
    region: Option<String>,
    given: Option<SdkConfig>,
    config: OnceCell<SdkConfig>,
    credentials: Mutex<Option<Credentials>>,
}

/// A request that cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There are no credentials, or they cannot be renewed.
    #[error("there are no AWS credentials: {reason}")]
    Credentials {
        /// What the chain says.
        reason: String,
    },
    /// Neither the host nor the settings of this process say which region.
    #[error("the AWS region is not known")]
    Region,
    /// The request cannot be signed as it is.
    #[error("the request cannot be signed")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a signature adds to a request.
pub type SignatureHeaders = Vec<(String, String)>;

impl Signer {
    /// A signer for a host. Its name tells the service and the region of an HTTP API (`….execute-api.{region}.…`) and of a
    /// function (`….lambda-url.{region}.…`); for another name it is the HTTP API in the region of this process. Nothing is
    /// read or called yet.
    pub fn of_host(host: &str) -> Self {
        let (service, region) = match named(host, "lambda-url") {
            Some(region) => ("lambda", region),
            None => ("execute-api", named(host, "execute-api").unwrap_or_default()),
        };
        let region = (!region.is_empty() && region != "localhost").then_some(region);
        let (given, config, credentials) = Default::default();
        Self { service, region, given, config, credentials }
    }

    /// The same with a configuration of the SDK instead of that of this process.
    pub fn with_config(mut self, config: SdkConfig) -> Self {
        self.given = Some(config);
        self
    }

    /// The same for another service, such as `s3`.
    pub const fn for_service(mut self, service: &'static str) -> Self {
        self.service = service;
        self
    }

    /// The headers that make a request one of ours, as of now. `url` is absolute and as it is sent; `headers` are those that
    /// must not be changed on the way; `host` need not be among them.
    pub async fn sign(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<SignatureHeaders, SignError> {
        let config = match &self.given {
            Some(config) => config,
            None => self.config.get_or_init(load_config).await,
        };
        let region = self.region.clone().or(config.region().map(ToString::to_string)).ok_or(SignError::Region)?;
        let credentials = self.credentials(config).await?;
        self.signed_at(SystemTime::now(), &region, credentials, (method, url, headers, body))
    }

    fn signed_at(
        &self,
        time: SystemTime,
        region: &str,
        credentials: Credentials,
        (method, url, headers, body): (&str, &str, &[(&str, &str)], &[u8]),
    ) -> Result<SignatureHeaders, SignError> {
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            settings.payload_checksum_kind = aws_sigv4::http_request::PayloadChecksumKind::XAmzSha256;
            settings.percent_encoding_mode = aws_sigv4::http_request::PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = aws_sigv4::http_request::UriPathNormalizationMode::Disabled;
        }
        let params = SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(self.service)
            .time(time)
            .settings(settings)
            .build()
            .expect("all of them are set");
        let refuse = |error: aws_sigv4::http_request::SigningError| SignError::Request(error.into());
        let request = SignableRequest::new(method, url, headers.iter().copied(), SignableBody::Bytes(body));
        let request = request.map_err(refuse)?;
        let signed = aws_sigv4::http_request::sign(request, &params.into()).map_err(refuse)?;
        let (instructions, _) = signed.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The credentials of this process, renewed where they are about to run out. One caller at a time looks for them.
    async fn credentials(&self, config: &SdkConfig) -> Result<Credentials, SignError> {
        let mut kept = self.credentials.lock().await;
        let lasts =
            |credentials: &Credentials| credentials.expiry().is_none_or(|expiry| expiry > SystemTime::now() + RENEWAL);
        if let Some(credentials) = kept.as_ref().filter(|credentials| lasts(credentials)) {
            return Ok(credentials.clone());
        }
        let found = find_credentials(config).await.map_err(|reason| SignError::Credentials { reason })?;
        *kept = Some(found.clone());
        Ok(found)
    }
}

/// The credentials of a configuration, or why there are none.
pub(crate) async fn find_credentials(config: &SdkConfig) -> Result<Credentials, String> {
    let provider = config.credentials_provider().ok_or_else(|| "none are configured".to_owned())?;
    let found = provider.provide_credentials().await;
    found.map_err(|error| plainly(&error))
}

/// What happened, in words: an error and what lies behind it, each but its first line and what was said before.
pub(crate) fn plainly(error: &dyn std::error::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error.to_string();
        let said = said.lines().next().unwrap_or_default();
        // The SDK's own frame: what matters is behind it.
        let says_more = !said.is_empty() && said != "service error" && !words.iter().any(|word| word.contains(said));
        if says_more {
            words.push(said.to_owned());
        }
        next = error.source();
    }
    words.join(": ")
}

/// What follows a label in a host's name, if the label is there.
fn named(host: &str, label: &str) -> Option<String> {
    let mut labels = host.split('.').skip(1);
    labels.find(|found| *found == label)?;
    Some(labels.next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// `get-vanilla` of the test suite that AWS publishes for Signature Version 4: all but the headers we add is given there.
    #[test]
    fn a_signature_is_that_of_the_published_example() {
        let signer = Signer { service: "service", ..Signer::of_host("example.amazonaws.com") };
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, None, None, "test");
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160); // 2015-08-30T12:36:00Z
        let request: (_, _, &[(&str, &str)], &[u8]) = ("GET", "https://example.amazonaws.com/", &[], b"");
        let headers = signer.signed_at(time, "us-east-1", credentials, request).expect("signed");
        let authorization = headers.iter().find(|(name, _)| name == "authorization").expect("it is there");
        assert_eq!(
            authorization.1,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn the_host_tells_service_and_region() {
        let of = |host| {
            let Signer { service, region, .. } = Signer::of_host(host);
            (service, region)
        };
        assert_eq!(of("a1.execute-api.eu-west-1.amazonaws.com"), ("execute-api", Some("eu-west-1".into())));
        assert_eq!(of("a1.lambda-url.us-east-2.on.aws"), ("lambda", Some("us-east-2".into())));
        assert_eq!(of("grid.example"), ("execute-api", None));
        assert_eq!(of("a1.execute-api.localhost"), ("execute-api", None));
    }

    #[tokio::test]
    async fn a_session_is_part_of_the_signature_and_a_region_must_be_known() {
        let credentials = Credentials::new("AKID", "secret", Some("session".into()), None, "test");
        let config =
            SdkConfig::builder().credentials_provider(aws_sdk_s3::config::SharedCredentialsProvider::new(credentials));
        let signer = Signer::of_host("a1.execute-api.eu-west-1.amazonaws.com").with_config(config.build());
        let url = "https://a1.execute-api.eu-west-1.amazonaws.com/v1/grid?a=b%20c";
        let headers = signer.sign("PUT", url, &[("x-sheaf-body", "u/1")], b"x").await.expect("signed");
        let value = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!(value("x-amz-security-token"), Some("session"));
        let authorization = value("authorization").expect("a signature");
        assert!(authorization.contains("host;x-amz-date;x-amz-security-token;x-sheaf-body"), "{authorization}");

        let nowhere = Signer::of_host("grid.example").with_config(SdkConfig::builder().build());
        assert!(matches!(nowhere.sign("GET", "https://grid.example/", &[], b"").await, Err(SignError::Region)));
    }
}
