//! The calls of DynamoDB that the store makes, with their errors sorted.

use std::{collections::HashMap, time::Duration};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{
    Client,
    config::Builder,
    operation::query::builders::QueryFluentBuilder,
    types::{
        AttributeValue, DeleteRequest, KeysAndAttributes, ReturnConsumedCapacity, ReturnValue,
        ReturnValuesOnConditionCheckFailure, WriteRequest,
    },
};
use futures::{StreamExt, stream};
use sheaf_protocol::StoreError;

use super::{
    item::{Item, Reader, key},
    update::Update,
};
use crate::{
    fault::store_error,
    schema::{Index, PK, SK},
};

/// A call that is not answered in this time is given up; what became of it is unknown.
const ANSWER_MS_MAX: u64 = 5_000;
/// A connection that is not made in this time is given up.
const CONNECT_MS_MAX: u64 = 2_000;
/// Tries of a call that may be repeated, the first included, with a pause of 50 ms doubled each time. A read of many requests
/// would otherwise begin again for the one that failed.
const TRIES_MAX: u32 = 3;
const PAUSE_MS: u64 = 50;
/// Keys in one batch of reads. Source: `BatchGetItem`.
const BATCH_READS_MAX: usize = 100;
/// Deletions in one batch of writes. Source: `BatchWriteItem`.
const BATCH_WRITES_MAX: usize = 25;
/// Batches under way at once in one call.
const BATCHES_MAX: usize = 8;
/// Tries of what a batch left undone, with a pause of 50 ms doubled each time: 3 s in all.
const BATCH_TRIES_MAX: u32 = 7;
const BATCH_PAUSE_MS: u64 = 50;
/// Each answer says the units that it cost, indexes included, for [`crate::meter`]. It is free, and takes some 60 bytes.
const CONSUMED: ReturnConsumedCapacity = ReturnConsumedCapacity::Total;

/// A conditional write that did not happen.
pub(crate) enum NotWritten {
    /// Its condition does not hold of the item as it is; `None` if there is none.
    Refused(Option<Item>),
    /// The store could not.
    Failed(StoreError),
}

/// A page of a query.
pub(crate) struct Rows {
    pub(crate) items: Vec<Item>,
    pub(crate) next: Option<Item>,
}

/// The table of one grid.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// For conditional writes: never sent again by the SDK, since a write whose answer was lost is refused the second time.
    once: Client,
    /// For everything that may be repeated.
    client: Client,
    name: String,
}

impl Table {
    pub(crate) fn new(config: &SdkConfig, name: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .operation_attempt_timeout(Duration::from_millis(ANSWER_MS_MAX))
            .build();
        let client = |retries| {
            let builder = Builder::from(config).retry_config(retries).timeout_config(timeouts.clone());
            Client::from_conf(builder.build())
        };
        let retries =
            RetryConfig::standard().with_max_attempts(TRIES_MAX).with_initial_backoff(Duration::from_millis(PAUSE_MS));
        Self { once: client(RetryConfig::disabled()), client: client(retries), name: name.to_owned() }
    }

    /// Puts an item unless its key is taken.
    pub(crate) async fn create(&self, item: Item) -> Result<(), NotWritten> {
        let put = self
            .once
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .return_consumed_capacity(CONSUMED)
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", PK)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = put.send().await else { return Ok(()) };
        Err(match error.as_service_error() {
            Some(aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(refused)) => {
                NotWritten::Refused(refused.item().filter(|item| !item.is_empty()).cloned())
            }
            _ => NotWritten::Failed(store_error(error)),
        })
    }

    /// Puts an item, whatever was there.
    pub(crate) async fn put(&self, item: Item) -> Result<(), StoreError> {
        let put = self.client.put_item().table_name(&self.name).return_consumed_capacity(CONSUMED).set_item(Some(item));
        put.send().await.map(drop).map_err(store_error)
    }

    /// Updates an item; answers it as it is then. An update without a condition must be one that may be repeated.
    pub(crate) async fn update(&self, key: Item, update: Update) -> Result<Item, NotWritten> {
        let (expression, condition) = (update.expression(), update.condition());
        let (names, values) = update.into_placeholders();
        let client = if condition.is_some() { &self.once } else { &self.client };
        let call = client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .set_update_expression(expression)
            .set_condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_consumed_capacity(CONSUMED)
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match call.send().await {
            Ok(answer) => return Ok(answer.attributes.unwrap_or_default()),
            Err(error) => error,
        };
        Err(match error.as_service_error() {
            Some(aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(
                refused,
            )) => NotWritten::Refused(refused.item().filter(|item| !item.is_empty()).cloned()),
            _ => NotWritten::Failed(store_error(error)),
        })
    }

    /// Reads an item as it is.
    pub(crate) async fn get(&self, key: Item) -> Result<Option<Item>, StoreError> {
        let get = self.client.get_item().table_name(&self.name).set_key(Some(key)).consistent_read(true);
        let get = get.return_consumed_capacity(CONSUMED);
        Ok(get.send().await.map_err(store_error)?.item)
    }

    /// Deletes an item, if there is one.
    pub(crate) async fn delete(&self, key: Item) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.name).set_key(Some(key));
        let delete = delete.return_consumed_capacity(CONSUMED);
        delete.send().await.map(drop).map_err(store_error)
    }

    /// Reads items as they are, in no certain order; those that do not exist are left out.
    pub(crate) async fn get_all(&self, mut keys: Vec<(String, String)>) -> Result<Vec<Item>, StoreError> {
        // DynamoDB refuses a batch that names a key twice.
        keys.sort_unstable();
        keys.dedup();
        let batches: Vec<Vec<Item>> = keys
            .chunks(BATCH_READS_MAX)
            .map(|batch| batch.iter().map(|(pk, sk)| key(pk.as_str(), sk.as_str())).collect())
            .collect();
        let mut found = Vec::with_capacity(keys.len());
        let mut reads = stream::iter(batches).map(|batch| self.get_batch(batch)).buffer_unordered(BATCHES_MAX);
        while let Some(items) = reads.next().await {
            found.extend(items?);
        }
        Ok(found)
    }

    async fn get_batch(&self, mut open: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::with_capacity(open.len());
        for tries in 0..BATCH_TRIES_MAX {
            pause(tries).await;
            let keys = KeysAndAttributes::builder().set_keys(Some(open)).consistent_read(true).build();
            let keys = keys.expect("the keys are set");
            let get = self.client.batch_get_item().request_items(&self.name, keys);
            let answer = get.return_consumed_capacity(CONSUMED).send().await;
            let mut answer = answer.map_err(store_error)?;
            found.extend(answer.responses.take().unwrap_or_default().into_values().flatten());
            let unread = answer.unprocessed_keys.take().unwrap_or_default().into_values();
            open = unread.flat_map(|keys| keys.keys).collect();
            if open.is_empty() {
                return Ok(found);
            }
        }
        Err(StoreError::Throttled { retry_after_ms: BATCH_PAUSE_MS })
    }

    /// Deletes items, those that exist.
    pub(crate) async fn delete_all(&self, keys: Vec<Item>) -> Result<(), StoreError> {
        let batches: Vec<Vec<Item>> = keys.chunks(BATCH_WRITES_MAX).map(<[Item]>::to_vec).collect();
        let mut writes = stream::iter(batches).map(|batch| self.delete_batch(batch)).buffer_unordered(BATCHES_MAX);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }

    async fn delete_batch(&self, keys: Vec<Item>) -> Result<(), StoreError> {
        let request = |key| {
            let delete = DeleteRequest::builder().set_key(Some(key)).build().expect("the key is set");
            WriteRequest::builder().delete_request(delete).build()
        };
        let mut open: Vec<WriteRequest> = keys.into_iter().map(request).collect();
        for tries in 0..BATCH_TRIES_MAX {
            pause(tries).await;
            let write = self.client.batch_write_item().request_items(&self.name, open);
            let answer = write.return_consumed_capacity(CONSUMED).send().await;
            let left: HashMap<_, _> = answer.map_err(store_error)?.unprocessed_items.unwrap_or_default();
            open = left.into_values().flatten().collect();
            if open.is_empty() {
                return Ok(());
            }
        }
        Err(StoreError::Throttled { retry_after_ms: BATCH_PAUSE_MS })
    }

    /// One page of a partition, in order, of sort keys between two (both included), consistent.
    pub(crate) async fn query(
        &self,
        pk: String,
        between: (String, String),
        limit: usize,
        next: Option<Item>,
    ) -> Result<Rows, StoreError> {
        let (from, to) = (AttributeValue::S(between.0), AttributeValue::S(between.1));
        let query = self.client.query().consistent_read(true);
        self.run(query, (PK, pk), (SK, from, to), limit, next).await
    }

    /// All rows of [`Table::query`].
    pub(crate) async fn query_all(&self, pk: &str, between: (&str, &str)) -> Result<Vec<Item>, StoreError> {
        let (mut items, mut next) = (Vec::new(), None);
        loop {
            let between = (between.0.to_owned(), between.1.to_owned());
            let page = self.query(pk.to_owned(), between, i32::MAX as usize, next).await?;
            items.extend(page.items);
            next = page.next;
            if next.is_none() {
                return Ok(items);
            }
        }
    }

    /// One page of a partition of an index, of sort keys between two (both included), eventually consistent.
    pub(crate) async fn query_index(
        &self,
        index: Index,
        partition: String,
        between: (Vec<u8>, Vec<u8>),
        backwards: bool,
        limit: usize,
        next: Option<Item>,
    ) -> Result<Rows, StoreError> {
        let (from, to) = (super::item::binary(between.0), super::item::binary(between.1));
        let query = self.client.query().index_name(index.name).scan_index_forward(!backwards);
        self.run(query, (index.partition, partition), (index.sort, from, to), limit, next).await
    }

    async fn run(
        &self,
        query: QueryFluentBuilder,
        (partition, is): (&str, String),
        (sort, from, to): (&str, AttributeValue, AttributeValue),
        limit: usize,
        next: Option<Item>,
    ) -> Result<Rows, StoreError> {
        let answer = query
            .table_name(&self.name)
            .return_consumed_capacity(CONSUMED)
            .key_condition_expression("#p = :p AND #s BETWEEN :from AND :to")
            .expression_attribute_names("#p", partition)
            .expression_attribute_names("#s", sort)
            .expression_attribute_values(":p", AttributeValue::S(is))
            .expression_attribute_values(":from", from)
            .expression_attribute_values(":to", to)
            .limit(i32::try_from(limit.max(1)).unwrap_or(i32::MAX))
            .set_exclusive_start_key(next)
            .send()
            .await
            .map_err(store_error)?;
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty());
        Ok(Rows { items: answer.items.unwrap_or_default(), next })
    }
}

async fn pause(tries: u32) {
    if tries > 0 {
        tokio::time::sleep(Duration::from_millis(BATCH_PAUSE_MS << (tries - 1))).await;
    }
}

/// The table key of an item, as it was read.
pub(crate) fn key_of(item: &Item) -> Result<(String, String), StoreError> {
    let read = Reader { item, object: "row" };
    Ok((read.text(PK)?.to_owned(), read.text(SK)?.to_owned()))
}
