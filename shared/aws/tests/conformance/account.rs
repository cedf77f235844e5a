//! The checks on a real account:
//!
//! ```text
//! SHEAF_TEST_AWS=1 cargo test -p sheaf-aws --test conformance account:: -- --test-threads=4
//! ```
//!
//! Region and credentials are found as the AWS CLI finds them. Each check makes a table, nine queues and a bucket of its own
//! and deletes them at its end, passed or failed; all are named `sheaf-test-…`. A run costs a few cents. The indexes of a real
//! table lag by some milliseconds, which the checks of lists and due chunks do not allow for: one of those that fails once is
//! no finding.

use aws_config::SdkConfig;
use sheaf_aws::{AwsPorts, Settings, loopback, schema};
use sheaf_core::Priority;
use sheaf_protocol::{BlobStore, Ports};

async fn fresh() -> Result<(AwsPorts, Cleanup), &'static str> {
    if std::env::var_os("SHEAF_TEST_AWS").is_none_or(|value| value != "1") {
        return Err("checks on a real AWS account: set SHEAF_TEST_AWS=1");
    }
    let config = sheaf_aws::load_config().await;
    let provider = config.credentials_provider().ok_or("checks on a real AWS account: no credentials")?;
    let found = aws_sdk_dynamodb::config::ProvideCredentials::provide_credentials(&provider).await;
    found.map_err(|_| "checks on a real AWS account: no credentials")?;
    let settings = loopback::settings(&format!("sheaf-test-{}", loopback::account()));
    let cleanup = Cleanup { config: config.clone(), settings: settings.clone() };
    Ok((loopback::ports(&config, &settings).await, cleanup))
}

/// Deletes what a check has made.
struct Cleanup {
    config: SdkConfig,
    settings: Settings,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let (config, settings) = (self.config.clone(), self.settings.clone());
        // A runtime of its own: this one may be unwinding.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(clean(&config, &settings));
        });
        let _ = cleaning.join();
    }
}

async fn clean(config: &SdkConfig, settings: &Settings) {
    let say = |what: &str, error: &dyn std::fmt::Debug| eprintln!("{what} was left behind: {error:?}");
    let tables = aws_sdk_dynamodb::Client::new(config);
    if let Err(error) = tables.delete_table().table_name(&settings.table).send().await {
        say(&settings.table, &error);
    }
    let queues = aws_sdk_sqs::Client::new(config);
    for lane in schema::LANES {
        for priority in Priority::ALL {
            let name = schema::queue_name(&settings.queues, lane, priority);
            let url = queues.get_queue_url().queue_name(&name).send().await.ok().and_then(|found| found.queue_url);
            if let Err(error) = queues.delete_queue().queue_url(url.unwrap_or_default()).send().await {
                say(&name, &error);
            }
        }
    }
    if let Err(error) = AwsPorts::over(config, settings).blobs().delete_prefix("").await {
        say(&settings.bucket, &error);
    }
    let buckets = aws_sdk_s3::Client::new(config);
    if let Err(error) = buckets.delete_bucket().bucket(&settings.bucket).send().await {
        say(&settings.bucket, &error);
    }
}

checks_on_aws!(match super::fresh().await {
    Ok(fresh) => fresh,
    Err(reason) => return sheaf_aws::loopback::skipped(reason),
});
