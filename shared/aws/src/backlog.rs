//! How many hints wait in the queues, for the sweeper and for people.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_sqs::types::QueueAttributeName;
use futures::future::try_join_all;
use parking_lot::Mutex;
use sheaf_core::{Lane, Priority};
use sheaf_protocol::StoreError;

use crate::{
    fault::store_error,
    schema::{LANES, queue_name},
};

/// The queues of a grid, to be counted.
#[derive(Debug)]
pub struct Backlog {
    client: aws_sdk_sqs::Client,
    prefix: String,
    urls: Mutex<Vec<(Lane, String)>>,
}

impl Backlog {
    /// The queues whose names begin so. Nothing is called yet.
    pub fn over(config: &SdkConfig, prefix: &str) -> Self {
        Self { client: aws_sdk_sqs::Client::new(config), prefix: prefix.to_owned(), urls: Mutex::default() }
    }

    /// Hints that nobody has received, by lane, roughly: SQS counts to within a minute. One request per queue.
    pub async fn hints(&self) -> Result<BTreeMap<Lane, u64>, StoreError> {
        let counts = self.urls().await?.into_iter().map(|(lane, url)| async move {
            let wanted = QueueAttributeName::ApproximateNumberOfMessages;
            let ask = self.client.get_queue_attributes().queue_url(url).attribute_names(wanted.clone());
            let answer = ask.send().await.map_err(store_error)?;
            let count = answer.attributes().and_then(|attributes| attributes.get(&wanted));
            let count: u64 = count.and_then(|text| text.parse().ok()).unwrap_or_default();
            Ok::<_, StoreError>((lane, count))
        });
        let mut hints = BTreeMap::new();
        for (lane, count) in try_join_all(counts).await? {
            *hints.entry(lane).or_default() += count;
        }
        Ok(hints)
    }

    async fn urls(&self) -> Result<Vec<(Lane, String)>, StoreError> {
        let known = self.urls.lock().clone();
        if !known.is_empty() {
            return Ok(known);
        }
        let names = LANES
            .iter()
            .flat_map(|&lane| Priority::ALL.map(|priority| (lane, queue_name(&self.prefix, lane, priority))));
        let found = names.map(|(lane, name)| async move {
            let found = self.client.get_queue_url().queue_name(&name).send().await.map_err(store_error)?;
            let url = found.queue_url.ok_or_else(|| StoreError::Unknown { detail: format!("{name} has no URL") })?;
            Ok::<_, StoreError>((lane, url))
        });
        let urls = try_join_all(found).await?;
        self.urls.lock().clone_from(&urls);
        Ok(urls)
    }
}
