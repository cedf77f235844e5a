//! For tests, behind the feature `loopback`: what an operator does to a deployed grid with other tools, good or bad. Region,
//! credentials and endpoint are found as the SDK finds them.

use aws_config::SdkConfig;
use aws_sdk_sqs::types::QueueAttributeName::{
    self, ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed, ApproximateNumberOfMessagesNotVisible,
};
use sheaf_protocol::StoreError;

use crate::{fault::store_error, load_config};

/// A client of S3 that finds buckets on servers without host names of their own, too.
fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let own_endpoint = config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL").is_some();
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::Config::from(config).to_builder().force_path_style(own_endpoint).build())
}

async fn queue(name: &str) -> Result<(aws_sdk_sqs::Client, String), StoreError> {
    let client = aws_sdk_sqs::Client::new(&load_config().await);
    let found = client.get_queue_url().queue_name(name).send().await.map_err(store_error)?;
    Ok((client, found.queue_url.unwrap_or_default()))
}

/// Throws away every message of a queue.
pub async fn purge(name: &str) -> Result<(), StoreError> {
    let (client, url) = queue(name).await?;
    client.purge_queue().queue_url(url).send().await.map(drop).map_err(store_error)
}

/// Sends a message to a queue.
pub async fn send(name: &str, body: &str) -> Result<(), StoreError> {
    let (client, url) = queue(name).await?;
    client.send_message().queue_url(url).message_body(body).send().await.map(drop).map_err(store_error)
}

/// About how many messages a queue has, whether they wait, are delayed or in flight.
pub async fn messages(name: &str) -> Result<u64, StoreError> {
    count(
        name,
        &[ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed, ApproximateNumberOfMessagesNotVisible],
    )
    .await
}

/// About how many messages of a queue wait to be received.
pub async fn waiting(name: &str) -> Result<u64, StoreError> {
    count(name, &[ApproximateNumberOfMessages]).await
}

async fn count(name: &str, names: &[QueueAttributeName]) -> Result<u64, StoreError> {
    let (client, url) = queue(name).await?;
    let ask = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
    let found = ask.send().await.map_err(store_error)?.attributes.unwrap_or_default();
    Ok(found.values().filter_map(|count| count.parse::<u64>().ok()).sum())
}

/// The version of an object, in a bucket that keeps versions, its entity tag and its size.
pub async fn version_of(bucket: &str, key: &str) -> Result<(Option<String>, String, u64), StoreError> {
    let head = s3(&load_config().await).head_object().bucket(bucket).key(key).send().await.map_err(store_error)?;
    let version = head.version_id().filter(|version| *version != "null").map(str::to_owned);
    let tag = head.e_tag().unwrap_or_default().trim_matches('"').to_owned();
    Ok((version, tag, head.content_length().unwrap_or_default().unsigned_abs()))
}

/// The tables, queues and buckets whose names begin so.
pub async fn leftovers(grid: &str) -> Result<Vec<String>, StoreError> {
    let config = load_config().await;
    let tables = aws_sdk_dynamodb::Client::new(&config).list_tables().send().await.map_err(store_error)?;
    let queues = aws_sdk_sqs::Client::new(&config).list_queues().send().await.map_err(store_error)?;
    let buckets = s3(&config).list_buckets().send().await.map_err(store_error)?;
    let queues = queues.queue_urls.unwrap_or_default().into_iter();
    let queues = queues.map(|url| format!("queue {}", url.rsplit('/').next().unwrap_or_default()));
    let tables = tables.table_names.unwrap_or_default().into_iter().map(|name| format!("table {name}"));
    let buckets = buckets.buckets.unwrap_or_default().into_iter().filter_map(|bucket| bucket.name);
    let buckets = buckets.map(|name| format!("bucket {name}"));
    let is_ours = |thing: &String| thing.split(' ').nth(1).is_some_and(|name| name.starts_with(grid));
    let mut left: Vec<String> = tables.chain(queues).chain(buckets).filter(is_ours).collect();
    let lambda = aws_sdk_lambda::Client::new(&config).list_functions().send().await.map_err(store_error)?;
    let functions = lambda.functions.unwrap_or_default().into_iter().filter_map(|function| function.function_name);
    left.extend(functions.map(|name| format!("function {name}")).filter(is_ours));
    Ok(left)
}
