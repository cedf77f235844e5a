//! Looking at a deployed grid with the rights of its user: what is there, what answers, and what to do about the rest.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef},
    error::ProvideErrorMetadata,
    primitives::{DateTime, DateTimeFormat},
    types::{StreamViewType, TableDescription, TableStatus, TimeToLiveStatus},
};
use aws_sdk_sqs::types::QueueAttributeName;
use futures::future::join_all;
use parking_lot::Mutex;
use sheaf_core::Priority;

use super::Described;
use crate::{
    schema::{INDEXES, LANES, TTL, queue_name},
    sign::{find_credentials, plainly},
};

/// Clocks that differ by more are worth a word, and by much more are refused. Source: AWS takes signatures of five minutes
/// before and after.
const SKEW_WARN: Duration = Duration::from_secs(30);
const SKEW_FAIL: Duration = Duration::from_secs(300);
/// Of an error's text, so much is shown.
const CAUSE_CHARS_MAX: usize = 300;

/// The functions of a grid that are invoked by queues or by the table's stream.
const TRIGGERED: [&str; 3] = ["dispatch", "upload", "result"];

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Ok,
    /// It works, or cannot be told with these rights.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, health: Health, found: impl Into<String>, hint: &str) -> Self {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Self { name, health, found: found.into(), hint }
    }

    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Health::Ok, found, "")
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(name, Health::Warn, found, hint)
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(name, Health::Fail, found, hint)
    }
}

/// Looks at the grid of a name: credentials, clock, table, description, bucket, queues, triggers. Reads only; some thirty
/// requests.
pub async fn check(config: &SdkConfig, name: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    let credentials = check_credentials(config).await;
    let usable = credentials.health != Health::Fail;
    checks.push(credentials);
    if !usable {
        return checks;
    }
    let date = Date::default();
    let table = Client::new(config).describe_table().table_name(name).customize().interceptor(date.clone());
    let table = table.send().await.map(|answer| answer.table);
    checks.push(clock(&date));
    match table {
        Ok(table) => {
            let table = table.unwrap_or_else(|| TableDescription::builder().build());
            checks.push(state_of_table(name, &table));
            checks.push(stream(&table));
            checks.push(time_to_live(config, name).await);
        }
        Err(error) if is_refused(error.code()) => checks.push(not_told("table", "dynamodb:DescribeTable")),
        Err(error) => {
            let found = format!("{name} cannot be described: {}", cause(&error));
            checks.push(Check::fail("table", found, "is this the grid's name, and this its region and account?"));
        }
    }
    match Described::find(config, name).await {
        Ok(described) => {
            let api = described.api.as_deref().unwrap_or("no API");
            let Described { bucket, queues, .. } = &described;
            checks.push(Check::ok("description", format!("bucket {bucket}, queues {queues}-…, {api}")));
            checks.push(bucket_of(config, bucket).await);
            checks.extend(queues_of(config, queues).await);
            checks.push(triggers(config, name).await);
        }
        Err(error) => {
            let hint = "infra/terraform writes it; to read it takes dynamodb:GetItem on the table";
            checks.push(Check::fail("description", shortened(error.to_string()), hint));
        }
    }
    checks
}

/// Looks for region and credentials.
pub async fn check_credentials(config: &SdkConfig) -> Check {
    let name = "credentials";
    let Some(region) = config.region() else {
        return Check::fail(name, "no region is set", "set AWS_REGION, or a region in the profile");
    };
    match find_credentials(config).await {
        Ok(credentials) => {
            let key = credentials.access_key_id();
            let end = key.get(key.len().saturating_sub(4)..).unwrap_or_default();
            let until = credentials.expiry().map(|expiry| match expiry.duration_since(SystemTime::now()) {
                Ok(left) => format!(", for {} min more", left.as_secs() / 60),
                Err(_) => ", run out".to_owned(),
            });
            Check::ok(name, format!("access key …{end}{}, region {region}", until.unwrap_or_default()))
        }
        Err(reason) => {
            let hint = "log in as for the AWS command line: a profile, environment variables, or `aws sso login`";
            Check::fail(name, shortened(format!("none: {reason}")), hint)
        }
    }
}

/// The date of an answer, whether it was a success or not.
#[derive(Debug, Clone, Default)]
struct Date(Arc<Mutex<Option<(SystemTime, SystemTime)>>>);

impl Intercept for Date {
    fn name(&self) -> &'static str {
        "Date"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), aws_sdk_dynamodb::error::BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(theirs) = date.and_then(|date| SystemTime::try_from(date).ok()) {
            *self.0.lock() = Some((theirs, SystemTime::now()));
        }
        Ok(())
    }
}

fn clock(date: &Date) -> Check {
    let name = "clock";
    let Some((theirs, ours)) = *date.0.lock() else {
        return Check::warn(name, "cannot be told: there was no dated answer", "");
    };
    let (behind, apart) = match theirs.duration_since(ours) {
        Ok(apart) => ("behind", apart),
        Err(error) => ("ahead of", error.duration()),
    };
    let found = format!("{} s {behind} AWS", apart.as_secs());
    match apart {
        apart if apart >= SKEW_FAIL => {
            Check::fail(name, found, "set the clock: AWS refuses what is signed at another time")
        }
        apart if apart >= SKEW_WARN => Check::warn(name, found, "set the clock: AWS refuses signatures 300 s off"),
        _ => Check::ok(name, "as AWS's"),
    }
}

fn state_of_table(name: &str, table: &TableDescription) -> Check {
    let has = |wanted: &str| table.global_secondary_indexes().iter().any(|index| index.index_name() == Some(wanted));
    let missing: Vec<&str> = INDEXES.iter().map(|index| index.name).filter(|index| !has(index)).collect();
    let hint = "apply infra/terraform, and wait until the table is active";
    match table.table_status() {
        Some(TableStatus::Active | TableStatus::Updating) if missing.is_empty() => {
            Check::ok("table", format!("{name} is active, with its indexes"))
        }
        Some(TableStatus::Active | TableStatus::Updating) => {
            Check::fail("table", format!("{name} lacks the indexes {}", missing.join(", ")), hint)
        }
        status => {
            let status = status.map_or("in no known state", TableStatus::as_str);
            Check::fail("table", format!("{name} is {status}"), hint)
        }
    }
}

/// Without it nothing tells the result step.
fn stream(table: &TableDescription) -> Check {
    let (name, hint) = ("stream", "apply infra/terraform: without the stream no job is ever done");
    match table.stream_specification() {
        Some(stream) if stream.stream_enabled() => match stream.stream_view_type() {
            Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages) => Check::ok(name, "on, with new images"),
            _ => Check::fail(name, "on, without new images", hint),
        },
        _ => Check::fail(name, "off", hint),
    }
}

async fn time_to_live(config: &SdkConfig, table: &str) -> Check {
    let name = "expiry";
    let answer = Client::new(config).describe_time_to_live().table_name(table).send().await;
    let hint = "apply infra/terraform: workers that have died are listed until their items expire";
    match answer {
        Ok(answer) => {
            let live = answer.time_to_live_description();
            let on =
                |status: &TimeToLiveStatus| matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling);
            let ours = live
                .is_some_and(|live| live.attribute_name() == Some(TTL) && live.time_to_live_status().is_some_and(on));
            if ours { Check::ok(name, format!("items expire by {TTL}")) } else { Check::warn(name, "off", hint) }
        }
        Err(error) if is_refused(error.code()) => not_told(name, "dynamodb:DescribeTimeToLive"),
        Err(error) => Check::warn(name, cause(&error), hint),
    }
}

async fn bucket_of(config: &SdkConfig, bucket: &str) -> Check {
    let builder = aws_sdk_s3::config::Builder::from(config).force_path_style(config.endpoint_url().is_some());
    let answer = aws_sdk_s3::Client::from_conf(builder.build()).head_bucket().bucket(bucket).send().await;
    match answer {
        Ok(_) => Check::ok("bucket", format!("{bucket} is there")),
        Err(error) => {
            let status = error.raw_response().map(|response| response.status().as_u16());
            let found = match status {
                Some(403) => format!("{bucket} is not for this user"),
                Some(404) => format!("{bucket} does not exist"),
                _ => format!("{bucket}: {}", cause(&error)),
            };
            Check::fail("bucket", found, "it takes s3:ListBucket on the bucket and s3:GetObject, s3:PutObject in it")
        }
    }
}

async fn queues_of(config: &SdkConfig, prefix: &str) -> Vec<Check> {
    let client = aws_sdk_sqs::Client::new(config);
    let waiting = async |name: String| {
        let url = match client.get_queue_url().queue_name(&name).send().await {
            Ok(answer) => answer.queue_url.unwrap_or_default(),
            Err(error) => return Err(format!("{name}: {}", cause(&error))),
        };
        let attributes = client.get_queue_attributes().queue_url(url);
        let attributes = attributes.attribute_names(QueueAttributeName::ApproximateNumberOfMessages).send().await;
        let attributes = attributes.map_err(|error| format!("{name}: {}", cause(&error)))?;
        let count = attributes.attributes().and_then(|all| all.get(&QueueAttributeName::ApproximateNumberOfMessages));
        Ok(count.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default())
    };
    let lanes = LANES.iter().flat_map(|lane| Priority::ALL.map(|priority| queue_name(prefix, *lane, priority)));
    let lanes = join_all(lanes.chain([format!("{prefix}-uploads")]).map(waiting)).await;
    let total: u64 = lanes.iter().filter_map(|found| found.as_ref().ok()).sum();
    let hint = "it takes sqs:GetQueueUrl, sqs:GetQueueAttributes and sqs:SendMessage on the queues";
    let failed: Vec<&str> = lanes.iter().filter_map(|found| found.as_ref().err().map(String::as_str)).collect();
    let queues = match failed.as_slice() {
        [] => Check::ok("queues", format!("all {} are there, with about {total} messages", lanes.len())),
        [first, ..] => {
            Check::fail("queues", format!("{} of {} fail, such as {first}", failed.len(), lanes.len()), hint)
        }
    };
    let dead = join_all([format!("{prefix}-dead"), format!("{prefix}-uploads-dead")].map(waiting)).await;
    let dead = match dead.into_iter().collect::<Result<Vec<u64>, String>>() {
        Ok(counts) => match counts.iter().sum::<u64>() {
            0 => Check::ok("dead letters", "none"),
            count => {
                let hint = "messages that failed too often; the logs of the functions say why. Chunks are found again by the sweeper";
                Check::warn("dead letters", format!("about {count}"), hint)
            }
        },
        Err(reason) => Check::warn("dead letters", reason, "they may not be for this user"),
    };
    vec![queues, dead]
}

/// What invokes the functions of a grid.
async fn triggers(config: &SdkConfig, grid: &str) -> Check {
    let (name, hint) = ("triggers", "apply infra/terraform: what has no trigger is never run");
    let client = aws_sdk_lambda::Client::new(config);
    let (mut enabled, mut wrong) = (0, Vec::new());
    for function in TRIGGERED {
        let list = client.list_event_source_mappings().function_name(format!("{grid}-{function}"));
        match list.send().await {
            Ok(answer) => {
                let mappings = answer.event_source_mappings();
                let states = mappings.iter().map(|mapping| mapping.state().unwrap_or("in no known state"));
                let off: Vec<&str> = states.filter(|state| !matches!(*state, "Enabled" | "Updating")).collect();
                match (mappings.len(), off.first()) {
                    (0, _) => wrong.push(format!("{function} has none")),
                    (_, Some(state)) => wrong.push(format!("one of {function} is {state}")),
                    (count, None) => enabled += count,
                }
            }
            Err(error) if is_refused(error.code()) => return not_told(name, "lambda:ListEventSourceMappings"),
            Err(error) => wrong.push(format!("{function}: {}", cause(&error))),
        }
    }
    if wrong.is_empty() {
        Check::ok(name, format!("all {enabled} are enabled"))
    } else {
        Check::fail(name, shortened(wrong.join(", ")), hint)
    }
}

fn is_refused(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("AccessDenied"))
}

fn not_told(name: &'static str, right: &str) -> Check {
    Check::warn(name, "cannot be told with these rights", &format!("{right} would tell"))
}

fn cause(error: &dyn std::error::Error) -> String {
    shortened(plainly(error))
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(CAUSE_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
