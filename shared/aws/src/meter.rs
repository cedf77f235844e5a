//! Counting what is asked of AWS: requests, bytes, and the units that DynamoDB and SQS bill.
//!
//! A [`Meter`] wraps the HTTP client of an [`SdkConfig`], so that it counts for every client that is made of this
//! configuration, whoever makes it, and counts *tries*, as AWS bills them, those included that the SDK makes by itself or
//! that are given up. The SDK has no interceptors in an `SdkConfig`, and those of single clients would be forgotten for the
//! next one.
//!
//! # Units of DynamoDB
//! The table is asked to say what each call consumed, indexes included, and is believed. Where it says nothing, as AWS does
//! when a condition fails, the unit count follows from the sizes in request and answer:
//! - a write costs a unit per KB of the larger of the item before and after, one at least, whether or not its condition held;
//!   a batch, a unit per entry;
//! - a write that was done costs a unit more for each index that the item enters or leaves, and two for each in which its
//!   place changes: an update is taken to do so when it names the index's keys;
//! - a read costs a unit per 4 KB, one at least; of each item in a batch, of all together in a query; half if it need not be
//!   consistent.
//!
//! # In a deployed grid
//! Its Lambdas and containers count when their log filter asks for it, as with `SHEAF_LOG=info,sheaf_requests=debug`, and log
//! what each invocation asked for ([`Meter::log`]).
//!
//! # What it does not see
//! What Lambda asks for its functions' sake (polling queues), and what clients do with presigned addresses.

mod weigh;

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    config::http::{HttpRequest, HttpResponse},
    primitives::{ByteStream, SdkBody},
};
use aws_smithy_http_client::{
    Builder, ConnectorBuilder,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    connector_metadata::ConnectorMetadata,
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sheaf_api::cost::{Item, Report, Step, Usage};

use weigh::Call;

/// The message of the event that tells what an invocation asked of AWS.
pub const LOGGED: &str = "requests to AWS";

fn is_logged() -> bool {
    tracing::enabled!(target: "sheaf_requests", tracing::Level::DEBUG)
}

/// By step, service and operation.
type Operations = BTreeMap<(Step, String, String), Counts>;

/// Counts requests by step, service and operation. Cloning shares the counts.
#[derive(Clone, Default)]
pub struct Meter {
    counts: Arc<Mutex<Operations>>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("operations", &self.counts.lock().len()).finish()
    }
}

/// What was asked of one operation of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Tries, each of which is billed.
    pub attempts: u64,
    /// Tries that were answered with what was asked for.
    pub succeeded: u64,
    /// Tries that were refused for what they asked, failed conditions among them.
    pub refused: u64,
    /// Tries that were refused because there were too many.
    pub throttled: u64,
    /// Tries that the service failed to serve. The rest was never answered.
    pub failed: u64,
    /// Bytes of bodies sent.
    pub request_bytes: u64,
    /// Bytes of bodies received.
    pub response_bytes: u64,
    /// What SQS and EventBridge bill: one per 64 KB of a try. Of other services the tries.
    pub billed: u64,
    /// Write request units of DynamoDB.
    pub write_units: f64,
    /// Read request units of DynamoDB.
    pub read_units: f64,
}

/// An operation and what was asked of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What for.
    pub step: Step,
    /// The service, as requests to it are signed: `dynamodb`, `sqs`, `s3`…
    pub service: String,
    /// The operation, such as `UpdateItem`.
    pub operation: String,
    /// How much.
    #[serde(flatten)]
    pub counts: Counts,
}

/// All that was asked, by step, service and operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// A row each.
    pub rows: Vec<Row>,
}

impl Meter {
    /// The configuration with this meter around its HTTP client: what is asked with it counts for a step.
    pub fn attach(&self, config: &SdkConfig, step: Step) -> SdkConfig {
        let inner = config.http_client().unwrap_or_else(usual_client);
        let metered = Metered { inner, meter: self.clone(), step };
        config.to_builder().http_client(metered).build()
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { rows: rows(self.counts.lock().clone()) }
    }

    /// What was counted since the last drain.
    pub fn drain(&self) -> Vec<Row> {
        rows(std::mem::take(&mut *self.counts.lock()))
    }

    /// The same, if what is counted is going to be logged; else the configuration as it is.
    pub fn attach_logged(&self, config: &SdkConfig, step: Step) -> SdkConfig {
        if is_logged() { self.attach(config, step) } else { config.clone() }
    }

    /// Logs what was counted since the last drain as one event, [`LOGGED`], whose field `rows` is JSON.
    pub fn log(&self) {
        if is_logged() {
            let rows = serde_json::to_string(&self.drain()).unwrap_or_default();
            tracing::debug!(target: "sheaf_requests", rows, "requests to AWS");
        }
    }

    fn count(&self, step: Step, call: &Call, add: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock();
        add(counts.entry((step, call.service.clone(), call.operation.clone())).or_default());
    }
}

fn rows(counts: Operations) -> Vec<Row> {
    let row = |((step, service, operation), counts)| Row { step, service, operation, counts };
    counts.into_iter().map(row).collect()
}

impl Snapshot {
    /// As what is billed. Requests of services without a known price are left out.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for Row { step, service, operation, counts } in &self.rows {
            let mut add = |item, count: f64| usage.add(*step, item, count);
            let (attempts, billed) = (counts.attempts as f64, counts.billed as f64);
            match (service.as_str(), operation.as_str()) {
                ("dynamodb", _) => {
                    add(Item::DynamodbRequest, attempts);
                    add(Item::DynamodbWriteUnit, counts.write_units);
                    add(Item::DynamodbReadUnit, counts.read_units);
                }
                ("sqs", _) => add(Item::SqsRequest, billed),
                ("events", _) => add(Item::Event, billed),
                ("lambda", "Invoke") => add(Item::LambdaRequest, attempts),
                ("s3", operation) => {
                    let is = |verbs: &[&str]| verbs.iter().any(|verb| operation.starts_with(verb));
                    let item = match operation {
                        _ if is(&["Get", "Head"]) => Item::S3Get,
                        _ if is(&["Delete", "Abort"]) => Item::S3Delete,
                        _ => Item::S3Put,
                    };
                    add(item, attempts);
                }
                _ => {}
            }
        }
        usage
    }

    /// Bytes sent and received, by step.
    pub fn bytes(&self) -> Vec<(Step, u64, u64)> {
        self.rows.iter().map(|row| (row.step, row.counts.request_bytes, row.counts.response_bytes)).collect()
    }

    /// Per thousand and per million of so many tasks, at the list prices that this build was made with.
    pub fn report(&self, tasks: u64) -> Report {
        Report::new(&self.usage(), &self.bytes(), &sheaf_api::cost::Prices::built_in(), tasks)
    }
}

/// The client that the SDK would use: HTTPS by rustls, proxies as the environment says.
fn usual_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

/// An HTTP client that tells a meter what passes through it.
#[derive(Debug)]
struct Metered {
    inner: SharedHttpClient,
    meter: Meter,
    step: Step,
}

impl HttpClient for Metered {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(MeteredConnector { inner, meter: self.meter.clone(), step: self.step })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

#[derive(Debug)]
struct MeteredConnector {
    inner: SharedHttpConnector,
    meter: Meter,
    step: Step,
}

impl HttpConnector for MeteredConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = Call::of(&request);
        // Counted before it is sent: whoever gives it up half-way pays for it, too.
        self.meter.count(self.step, &call, |counts| {
            counts.attempts += 1;
            counts.request_bytes += call.bytes;
            counts.billed += call.billed;
        });
        let (answer, meter, step) = (self.inner.call(request), self.meter.clone(), self.step);
        HttpConnectorFuture::new(async move {
            let mut response = answer.await?;
            let (bytes, body) = if call.wants_answer() {
                let body = read(&mut response).await?;
                (body.len() as u64, body)
            } else {
                (length(&response), bytes::Bytes::new())
            };
            let weight = call.weigh(response.status().as_u16(), &body);
            meter.count(step, &call, |counts| {
                counts.response_bytes += bytes;
                counts.billed += weight.billed;
                counts.write_units += weight.write_units;
                counts.read_units += weight.read_units;
                *match weight.became {
                    weigh::Became::Succeeded => &mut counts.succeeded,
                    weigh::Became::Refused => &mut counts.refused,
                    weigh::Became::Throttled => &mut counts.throttled,
                    weigh::Became::Failed => &mut counts.failed,
                } += 1;
            });
            Ok(response)
        })
    }
}

/// Reads an answer's body, and leaves it to be read again.
async fn read(response: &mut HttpResponse) -> Result<bytes::Bytes, ConnectorError> {
    let body = std::mem::replace(response.body_mut(), SdkBody::taken());
    let read = ByteStream::new(body).collect().await.map_err(|error| ConnectorError::io(error.into()))?;
    let bytes = read.into_bytes();
    *response.body_mut() = SdkBody::from(bytes.clone());
    Ok(bytes)
}

/// The length of a body that is left alone, as far as it is said.
fn length(response: &HttpResponse) -> u64 {
    let said = response.headers().get("content-length").and_then(|length| length.parse().ok());
    said.or_else(|| response.body().content_length()).unwrap_or_default()
}
