//! The ports of a grid on AWS, together.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_config::{BehaviorVersion, SdkConfig};
use futures::{FutureExt, future::BoxFuture};
use sheaf_api::cost::Step;
use sheaf_protocol::{Clock, Ports, Rng};

use crate::{AwsBlobs, AwsQueue, AwsState, Meter};

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The thread's random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadRng;

impl Rng for ThreadRng {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// Where a grid's state, bytes and hints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The DynamoDB table.
    pub table: String,
    /// The S3 bucket.
    pub bucket: String,
    /// What the names of its queues begin with (see [`crate::schema::queue_name`]).
    pub queues: String,
}

/// A variable of the environment that a function or container of a grid is missing, or that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not set.
    #[error("the environment variable {name} is not set; infra/terraform sets it")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// It says something else than it may.
    #[error("the environment variable {name} is {value:?}, must be {expected}")]
    Malformed {
        /// Its name.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
}

impl Settings {
    /// From `SHEAF_TABLE`, `SHEAF_BUCKET` and `SHEAF_QUEUES`, as a deployed grid's functions and containers are given them.
    pub fn from_env() -> Result<Self, SettingsError> {
        let variable = |name| match std::env::var(name) {
            Ok(value) if !value.is_empty() => Ok(value),
            _ => Err(SettingsError::Missing { name }),
        };
        let (table, bucket) = (variable("SHEAF_TABLE")?, variable("SHEAF_BUCKET")?);
        Ok(Self { table, bucket, queues: variable("SHEAF_QUEUES")? })
    }
}

/// The configuration of the SDK as it finds it: environment, profile, role. Endpoints, too. Boxed, as its future is so deep that
/// compilers give up on what is built around it.
pub fn load_config() -> BoxFuture<'static, SdkConfig> {
    aws_config::load_defaults(BehaviorVersion::latest()).boxed()
}

/// Table, bucket and queues of one grid. Cloning shares them.
#[derive(Debug, Clone)]
pub struct AwsPorts {
    state: Arc<AwsState>,
    blobs: Arc<AwsBlobs>,
    queue: Arc<AwsQueue>,
}

impl AwsPorts {
    /// The ports with a configuration of the SDK. Nothing is called yet.
    pub fn over(config: &SdkConfig, settings: &Settings) -> Self {
        Self::new(
            AwsState::new(config, &settings.table),
            AwsBlobs::new(config, &settings.bucket),
            AwsQueue::new(config, &settings.queues),
        )
    }

    /// The ports with a configuration of the SDK, whose every request counts for a step.
    pub fn metered(config: &SdkConfig, settings: &Settings, meter: &Meter, step: Step) -> Self {
        Self::over(&meter.attach(config, step), settings)
    }

    /// The same ports in a Lambda that an event source mapping feeds; see [`AwsQueue::for_events`].
    pub fn for_events(&self) -> Self {
        Self { queue: Arc::new(self.queue.for_events()), ..self.clone() }
    }

    /// The ports made of these.
    pub fn new(state: AwsState, blobs: AwsBlobs, queue: AwsQueue) -> Self {
        Self { state: Arc::new(state), blobs: Arc::new(blobs), queue: Arc::new(queue) }
    }
}

impl Ports for AwsPorts {
    type State = AwsState;
    type Blobs = AwsBlobs;
    type Queue = AwsQueue;
    type Clock = SystemClock;
    type Rng = ThreadRng;

    fn state(&self) -> &AwsState {
        &self.state
    }

    fn blobs(&self) -> &AwsBlobs {
        &self.blobs
    }

    fn queue(&self) -> &AwsQueue {
        &self.queue
    }

    fn clock(&self) -> &SystemClock {
        &SystemClock
    }

    fn rng(&self) -> &ThreadRng {
        &ThreadRng
    }
}
