//! AWS as the parts of a Lambda see it.

use sheaf_api::cost::Step;
use sheaf_aws::{Meter, SdkConfig, load_config};

/// The configuration of the SDK, read once, and what counts the requests that are made with it.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
    meter: Meter,
}

impl Aws {
    /// Reads the configuration: environment and role. Nothing is called yet.
    pub async fn load() -> Self {
        Self { config: load_config().await, meter: Meter::default() }
    }

    /// The configuration for one step. Its requests are counted if the counts are logged.
    pub fn of(&self, step: Step) -> SdkConfig {
        self.meter.attach_logged(&self.config, step)
    }

    /// Logs what was asked for since the last time.
    pub fn log(&self) {
        self.meter.log();
    }
}
