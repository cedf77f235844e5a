//! What a job costs on AWS: counts of billed things, list prices, and the product of both.
//!
//! [`Usage`] counts billed [`Item`]s by [`Step`]. It comes from a meter around the requests that a grid makes, or from
//! [`JobShape::estimate`], which knows what each step asks for and works for jobs of any grid. [`Prices`] is a dated table
//! (`infra/prices.toml`, built in). All of it is arithmetic: nothing here asks AWS for anything, and the bill is right where it
//! differs.
//!
//! It lives here since both ends need it, the client that shows a cost and the ports that measure it, and this is the only
//! crate below both that may parse text.

mod estimate;
mod report;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use estimate::JobShape;
pub use report::{Report, ReportRow};

/// One request of SQS and one event of EventBridge are billed per so many bytes. Source: their pricing pages.
pub const MESSAGE_BYTES_BILLED: u64 = 64 * 1024;
/// One request of an HTTP API is billed per so many bytes. Source: API Gateway's pricing page.
pub const API_BYTES_BILLED: u64 = 512 * 1024;
/// A body larger than this goes through S3, since Lambda takes and gives 6 MB, a third of which base64 takes.
pub const BODY_BYTES_MAX: u64 = 4_500_000;
/// Memory of the grid's own Lambdas.
pub const STEP_MEMORY_GB: f64 = 0.5;
/// How long an invocation is taken to be busy with the step itself, beside the tasks. An assumption: counts are measured
/// without AWS, times are not.
pub const STEP_S: f64 = 0.1;
/// What an invocation is taken to write into its log, its three lines by Lambda included. An assumption, too.
pub const STEP_LOG_BYTES: f64 = 1_000.0;

/// Bytes in a gigabyte as AWS bills it.
pub(crate) const GB: f64 = (1_u64 << 30) as f64;

/// Something with a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A call of DynamoDB.
    DynamodbRequest,
    /// A write request unit.
    DynamodbWriteUnit,
    /// A read request unit.
    DynamodbReadUnit,
    /// A gigabyte in the table for a month.
    DynamodbGbMonth,
    /// 64 KB of a request of SQS.
    SqsRequest,
    /// A PUT, COPY, POST or LIST of S3.
    S3Put,
    /// A GET or HEAD of S3.
    S3Get,
    /// A DELETE of S3.
    S3Delete,
    /// A gigabyte in S3 for a month.
    S3GbMonth,
    /// An invocation of a Lambda function.
    LambdaRequest,
    /// A gigabyte of a Lambda function's memory for a second, on ARM.
    LambdaArmGbS,
    /// The same, on x86.
    LambdaX86GbS,
    /// 512 KB of a request of the HTTP API.
    ApiRequest,
    /// 64 KB of an event of EventBridge.
    Event,
    /// A gigabyte of logs taken in.
    LogGb,
    /// A container's CPU for an hour.
    FargateVcpuH,
    /// A gigabyte of a container's memory for an hour.
    FargateGbH,
    /// A container's CPU for an hour, on spot.
    FargateSpotVcpuH,
    /// A gigabyte of a container's memory for an hour, on spot.
    FargateSpotGbH,
}

impl Item {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::DynamodbRequest,
        Self::DynamodbWriteUnit,
        Self::DynamodbReadUnit,
        Self::DynamodbGbMonth,
        Self::SqsRequest,
        Self::S3Put,
        Self::S3Get,
        Self::S3Delete,
        Self::S3GbMonth,
        Self::LambdaRequest,
        Self::LambdaArmGbS,
        Self::LambdaX86GbS,
        Self::ApiRequest,
        Self::Event,
        Self::LogGb,
        Self::FargateVcpuH,
        Self::FargateGbH,
        Self::FargateSpotVcpuH,
        Self::FargateSpotGbH,
    ];

    /// What it is, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DynamodbRequest => "DynamoDB requests",
            Self::DynamodbWriteUnit => "DynamoDB write units",
            Self::DynamodbReadUnit => "DynamoDB read units",
            Self::DynamodbGbMonth => "DynamoDB GB-months",
            Self::SqsRequest => "SQS requests",
            Self::S3Put => "S3 PUTs and LISTs",
            Self::S3Get => "S3 GETs",
            Self::S3Delete => "S3 DELETEs",
            Self::S3GbMonth => "S3 GB-months",
            Self::LambdaRequest => "Lambda requests",
            Self::LambdaArmGbS => "Lambda GB-s (ARM)",
            Self::LambdaX86GbS => "Lambda GB-s (x86)",
            Self::ApiRequest => "HTTP API requests",
            Self::Event => "EventBridge events",
            Self::LogGb => "CloudWatch log GB",
            Self::FargateVcpuH => "Fargate vCPU-hours",
            Self::FargateGbH => "Fargate GB-hours",
            Self::FargateSpotVcpuH => "Fargate Spot vCPU-hours",
            Self::FargateSpotGbH => "Fargate Spot GB-hours",
        }
    }

    /// Whether it is a request, of whatever service; units, times and sizes are not.
    pub const fn is_request(self) -> bool {
        match self {
            Self::DynamodbRequest
            | Self::SqsRequest
            | Self::S3Put
            | Self::S3Get
            | Self::S3Delete
            | Self::LambdaRequest
            | Self::ApiRequest
            | Self::Event => true,
            Self::DynamodbWriteUnit
            | Self::DynamodbReadUnit
            | Self::DynamodbGbMonth
            | Self::S3GbMonth
            | Self::LambdaArmGbS
            | Self::LambdaX86GbS
            | Self::LogGb
            | Self::FargateVcpuH
            | Self::FargateGbH
            | Self::FargateSpotVcpuH
            | Self::FargateSpotGbH => false,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What something is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Taking in jobs, chunks and files.
    Submit,
    /// Claiming, running and committing chunks in Lambda, with what polls the queues for it.
    Dispatch,
    /// The same in a container.
    Worker,
    /// Counting what has ended, and closing jobs.
    Result,
    /// Answering where a job stands, and its results.
    Read,
    /// Looking for what fell through.
    Sweep,
    /// The tasks themselves.
    Run,
    /// Keeping payloads and results until the job is forgotten.
    Keep,
    /// Anything else.
    Other,
}

impl Step {
    /// Its name, as in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Dispatch => "dispatch",
            Self::Worker => "worker",
            Self::Result => "result",
            Self::Read => "read",
            Self::Sweep => "sweep",
            Self::Run => "run",
            Self::Keep => "keep",
            Self::Other => "other",
        }
    }

    /// Whether it is the grid's own doing: neither the user's code nor the user's bytes.
    pub const fn is_control_plane(self) -> bool {
        !matches!(self, Self::Run | Self::Keep)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How much of what was used, by step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage(BTreeMap<(Step, Item), f64>);

impl Usage {
    /// Adds some of an item.
    pub fn add(&mut self, step: Step, item: Item, count: f64) {
        if count > 0.0 {
            *self.0.entry((step, item)).or_default() += count;
        }
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|((step, item), count)| self.add(*step, *item, *count));
    }

    /// Adds invocations of one of the grid's own Lambdas, each busy for [`STEP_S`] and logging [`STEP_LOG_BYTES`].
    pub fn invocations(&mut self, step: Step, count: f64) {
        self.add(step, Item::LambdaRequest, count);
        self.add(step, Item::LambdaArmGbS, count * STEP_S * STEP_MEMORY_GB);
        self.add(step, Item::LogGb, count * STEP_LOG_BYTES / GB);
    }

    /// Adds calls of the HTTP API with these bodies, each answered by a Lambda. A request that is too large for Lambda is put
    /// into S3 first, which takes another call for its name; such an answer is put there and fetched from there.
    pub fn calls(&mut self, step: Step, count: f64, request_bytes: u64, reply_bytes: u64) {
        let through_s3 = |bytes| f64::from(u8::from(bytes > BODY_BYTES_MAX));
        let (requests, replies) = (through_s3(request_bytes), through_s3(reply_bytes));
        let direct_bytes =
            [request_bytes, reply_bytes].into_iter().filter(|bytes| *bytes <= BODY_BYTES_MAX).sum::<u64>();
        self.add(step, Item::ApiRequest, count * (direct_bytes.div_ceil(API_BYTES_BILLED).max(1) as f64 + requests));
        self.invocations(step, count * (1.0 + requests));
        self.add(step, Item::S3Put, count * (requests + replies));
        self.add(step, Item::S3Get, count * (requests + replies));
    }

    /// How much of an item a step used.
    pub fn of(&self, step: Step, item: Item) -> f64 {
        self.0.get(&(step, item)).copied().unwrap_or_default()
    }

    /// How much of an item all steps of the control plane used.
    pub fn control_plane(&self, item: Item) -> f64 {
        self.rows().filter(|row| row.0.is_control_plane() && row.1 == item).map(|row| row.2).sum()
    }

    /// Billed requests of the control plane, of all services.
    pub fn requests(&self) -> f64 {
        Item::ALL.into_iter().filter(|item| item.is_request()).map(|item| self.control_plane(item)).sum()
    }

    /// All of it, by step.
    pub fn rows(&self) -> impl Iterator<Item = (Step, Item, f64)> + '_ {
        self.0.iter().map(|((step, item), count)| (*step, *item, *count))
    }
}

/// A list price.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// So many dollars…
    usd: f64,
    /// …for so many.
    per: f64,
    /// The page it was read from.
    pub source: String,
    /// What it is for exactly.
    #[serde(default)]
    pub note: String,
}

impl Price {
    /// Dollars for one.
    pub fn unit_usd(&self) -> f64 {
        self.usd / self.per
    }
}

/// List prices of one region at one date.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// When they were read, as in `2026-06-30`.
    pub as_of: String,
    /// The region that they are of.
    pub region: String,
    prices: BTreeMap<Item, Price>,
}

/// A table of prices that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricesError {
    /// It is malformed.
    #[error("{0}")]
    Format(String),
    /// A price is missing, or is none.
    #[error("there is no price of {0}")]
    Missing(Item),
}

impl Prices {
    /// Reads a table in the form of `infra/prices.toml`.
    pub fn parse(text: &str) -> Result<Self, PricesError> {
        let prices: Self = toml::from_str(text).map_err(|error| PricesError::Format(error.to_string()))?;
        let is_price = |price: &Price| price.usd >= 0.0 && price.usd.is_finite() && price.per >= 1.0;
        match Item::ALL.into_iter().find(|item| !prices.prices.get(item).is_some_and(is_price)) {
            Some(item) => Err(PricesError::Missing(item)),
            None => Ok(prices),
        }
    }

    /// The table that this build was made with.
    pub fn built_in() -> Self {
        Self::parse(include_str!("../../../../infra/prices.toml")).expect("a test reads it")
    }

    /// The price of an item.
    pub fn of(&self, item: Item) -> &Price {
        self.prices.get(&item).expect("a table that was read has all prices")
    }

    /// Dollars for some of an item.
    pub fn usd(&self, item: Item, count: f64) -> f64 {
        count * self.of(item).unit_usd()
    }

    /// What something used costs, a line per step and item.
    pub fn price(&self, usage: &Usage) -> Vec<Line> {
        let line = |(step, item, count)| {
            let unit_usd = self.of(item).unit_usd();
            Line { step, item, count, unit_usd, usd: count * unit_usd }
        };
        usage.rows().map(line).collect()
    }
}

/// A line of a bill.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    /// What it was for.
    pub step: Step,
    /// What was used.
    pub item: Item,
    /// How much of it.
    pub count: f64,
    /// Dollars for one.
    pub unit_usd: f64,
    /// Dollars for all.
    pub usd: f64,
}

/// Dollars of all lines, and of those that are the grid's own doing.
pub fn totals(lines: &[Line]) -> (f64, f64) {
    let own = lines.iter().filter(|line| line.step.is_control_plane()).map(|line| line.usd).sum();
    (lines.iter().map(|line| line.usd).sum(), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_names_its_sources() {
        let prices = Prices::built_in();
        assert_eq!(prices.prices.len(), Item::ALL.len());
        assert_eq!((prices.as_of.len(), prices.region.as_str()), (10, "us-east-1"));
        for item in Item::ALL {
            assert!(prices.of(item).source.starts_with("https://aws.amazon.com/"), "{item}");
        }
        assert!((prices.usd(Item::DynamodbWriteUnit, 1e6) - 0.625).abs() < 1e-9);
        assert!((prices.usd(Item::S3Put, 1_000.0) - 0.005).abs() < 1e-9);
    }

    #[test]
    fn a_table_without_a_price_is_refused() {
        let whole = include_str!("../../../../infra/prices.toml");
        let without = whole.replace("[prices.s3_put]", "[prices.s3_get_twice]");
        assert!(matches!(Prices::parse(&without), Err(PricesError::Format(_))), "an unknown item");
        let at = whole.find("[prices.fargate_spot_gb_h]").expect("the last one");
        assert_eq!(Prices::parse(&whole[..at]), Err(PricesError::Missing(Item::FargateSpotGbH)));
        let negative = whole.replace("usd = 5.0", "usd = -5.0");
        assert_eq!(Prices::parse(&negative), Err(PricesError::Missing(Item::S3Put)));
    }

    #[test]
    fn usage_is_priced_line_by_line() {
        let mut usage = Usage::default();
        usage.add(Step::Submit, Item::S3Put, 2.0);
        usage.add(Step::Submit, Item::S3Put, 1.0);
        usage.add(Step::Run, Item::LambdaArmGbS, 1e6);
        usage.add(Step::Read, Item::S3Get, 0.0);
        let lines = Prices::built_in().price(&usage);
        assert_eq!(
            lines.iter().map(|line| (line.step, line.count)).collect::<Vec<_>>(),
            [(Step::Submit, 3.0), (Step::Run, 1e6)]
        );
        let (all, own) = totals(&lines);
        assert!((own - 15e-6).abs() < 1e-12 && (all - own - 13.3334).abs() < 1e-6, "{all} {own}");
        assert_eq!(usage.requests(), 3.0);
    }

    #[test]
    fn large_bodies_go_through_s3() {
        let counts = |request, reply| {
            let mut usage = Usage::default();
            usage.calls(Step::Read, 1.0, request, reply);
            [Item::ApiRequest, Item::LambdaRequest, Item::S3Put, Item::S3Get].map(|item| usage.of(Step::Read, item))
        };
        assert_eq!(counts(0, 0), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(counts(100, API_BYTES_BILLED), [2.0, 1.0, 0.0, 0.0]);
        assert_eq!(counts(0, BODY_BYTES_MAX + 1), [1.0, 1.0, 1.0, 1.0], "the answer is an address");
        assert_eq!(counts(BODY_BYTES_MAX + 1, 0), [2.0, 2.0, 1.0, 1.0], "the first call asks for an address");
    }
}
