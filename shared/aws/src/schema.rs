//! The one home of names: the table's keys, attributes and indexes, and the queues.
//!
//! | item | partition key | sort key |
//! |---|---|---|
//! | job | `S#{job}` | `META` |
//! | what 64 chunks add to the job's summary | `S#{job}` | `SUM#{chunk / 64}` |
//! | chunk | `C#{job}#{chunk mod 16}` | `{chunk}` |
//! | version of a function | `F#{tenant}` | `{name}@{version}` |
//! | newest version of a function | `N#{tenant}` | `{name}` |
//! | estimate of a function | `E#{tenant}` | `{name}@{version}` |
//! | worker | `W` | `{worker}` |
//! | what the grid says of itself (`direct.rs`), written by `infra/terraform` | `G` | `GRID` |
//!
//! Numbers in sort keys are padded, so that they sort as numbers. Three sparse indexes hold keys only and are eventually
//! consistent: jobs by tenant and time of creation, those of them that are not over, and open chunks by due time, in 64
//! shards, so that a million chunks falling due at once are not one hot key.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
        ScalarAttributeType,
    },
};
use aws_sdk_sqs::types::QueueAttributeName;
use futures::future::try_join_all;
use sheaf_core::{ChunkKey, Due, JobId, Lane, Priority, limits};
use sheaf_protocol::StoreError;

use crate::fault::store_error;

/// The partition key, a string.
pub const PK: &str = "pk";
/// The sort key, a string.
pub const SK: &str = "sk";
/// When the table may forget an item by itself (Unix, s): the table's time-to-live attribute. Only workers have it.
pub const TTL: &str = "ttl";

/// Attributes of chunks. Reading an item needs all of them, and nothing else.
pub(crate) mod chunk {
    /// What is fixed: a version byte and postcard.
    pub(crate) const SPEC: &str = "spec";
    /// What was achieved: a version byte and postcard.
    pub(crate) const WORK: &str = "work";
    /// `Q`, `L`, `D` or `X`.
    pub(crate) const STATE: &str = "st";
    /// The epoch of the last claim.
    pub(crate) const EPOCH: &str = "ep";
    /// Grows by one with each write of an owner.
    pub(crate) const REVISION: &str = "rv";
    /// Not claimed before (Q).
    pub(crate) const NOT_BEFORE: &str = "nb";
    /// The worker that holds it, or finished it (L, D).
    pub(crate) const WORKER: &str = "ow";
    /// The nonce of its claim (L, D).
    pub(crate) const NONCE: &str = "no";
    /// When that claim was (L, D).
    pub(crate) const SINCE: &str = "si";
    /// The end of its lease (L).
    pub(crate) const UNTIL: &str = "lu";
    /// The task that runs alone (L).
    pub(crate) const MARKER: &str = "mk";
    /// When it became final (D, X).
    pub(crate) const AT: &str = "at";
    /// Why it ended (X).
    pub(crate) const REASON: &str = "re";
    /// Its deadline, if it has one.
    pub(crate) const DEADLINE: &str = "dl";
}

/// Attributes of jobs.
pub(crate) mod job {
    /// The job, as JSON.
    pub(crate) const JOB: &str = "job";
    /// Grows by one with each event.
    pub(crate) const REVISION: &str = "rv";
    /// When it was sealed (Unix, ms).
    pub(crate) const SEALED_AT: &str = "sa";
    /// When somebody wished it cancelled (Unix, ms).
    pub(crate) const CANCELLING_AT: &str = "ca";
}

/// Attributes of summaries.
pub(crate) mod sum {
    /// Set of chunks that were submitted.
    pub(crate) const SUBMITTED: &str = "sub";
    /// Set of chunks that have ended.
    pub(crate) const ENDED: &str = "end";
}

/// Attributes of functions, estimates and workers.
pub(crate) mod thing {
    /// A manifest, an estimate or a worker, as JSON.
    pub(crate) const JSON: &str = "json";
    /// The newest version of a function.
    pub(crate) const NEWEST: &str = "newest";
}

/// An index of the table: keys only, sparse.
#[derive(Debug, Clone, Copy)]
pub struct Index {
    /// Its name.
    pub name: &'static str,
    /// Its partition key, a string.
    pub partition: &'static str,
    /// Its sort key, binary.
    pub sort: &'static str,
}

/// A tenant's jobs, by time of creation and id.
pub const JOBS: Index = Index { name: "jobs", partition: "tn", sort: "cr" };
/// A tenant's jobs that are not over, by time of creation and id.
pub const ALIVE: Index = Index { name: "alive", partition: "al", sort: "cr" };
/// Open chunks of a shard, by due time, job and number.
pub const DUE: Index = Index { name: "due", partition: "dk", sort: "dr" };
/// All indexes.
pub const INDEXES: [Index; 3] = [JOBS, ALIVE, DUE];

/// Shards of the index of due chunks. Source: a partition takes 1,000 writes/s; 64 take as many as on-demand tables begin
/// with, and more.
pub const DUE_SHARDS: u32 = 64;
/// Partitions that a job's chunks are spread over.
pub const CHUNK_SHARDS: u32 = 16;
/// Chunks in one item of a summary. At up to 15 bytes each it stays below 1 KB, one write unit.
pub const SUM_CHUNKS: u32 = 64;

/// The sort key of a job's own item.
pub(crate) const META: &str = "META";
/// The partition of all workers.
pub(crate) const WORKERS: &str = "W";

pub(crate) fn job_pk(job: JobId) -> String {
    format!("S#{job}")
}

pub(crate) fn sum_sk(group: u32) -> String {
    format!("SUM#{group:08}")
}

/// Behind the sort keys of all items of a summary.
pub(crate) const SUM_SK_END: &str = "SUM#~";

pub(crate) fn chunk_pk(job: JobId, shard: u32) -> String {
    format!("C#{job}#{shard}")
}

pub(crate) fn chunk_sk(number: u32) -> String {
    format!("{number:010}")
}

/// The partition and sort key of a chunk.
pub(crate) fn chunk_key(key: ChunkKey) -> (String, String) {
    (chunk_pk(key.job, key.number % CHUNK_SHARDS), chunk_sk(key.number))
}

/// The shard of the index of due chunks that a chunk belongs to.
pub(crate) fn due_shard(key: ChunkKey) -> u32 {
    let job = key.job.as_bytes().iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    job.wrapping_add(key.number) % DUE_SHARDS
}

pub(crate) fn due_pk(shard: u32) -> String {
    format!("D#{shard}")
}

/// The place of a chunk in its shard: sorts by due time, then by key. Both are in it, so that places differ.
pub(crate) fn due_row(due_ms: Due, key: ChunkKey) -> Vec<u8> {
    [&due_ms.to_be_bytes()[..], key.job.as_bytes(), &key.number.to_be_bytes()].concat()
}

/// The due time and the chunk of a place.
pub(crate) fn parse_due_row(row: &[u8]) -> Option<(Due, ChunkKey)> {
    let (due, rest) = row.split_first_chunk::<8>()?;
    let (job, number) = rest.split_first_chunk::<16>()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    Some((u64::from_be_bytes(*due), ChunkKey { job: JobId::from_bytes(*job), number }))
}

/// The place of a job in its tenant's list.
pub(crate) fn created_row(created_at_ms: u64, job: JobId) -> Vec<u8> {
    [&created_at_ms.to_be_bytes()[..], job.as_bytes()].concat()
}

/// The lanes that have queues.
pub const LANES: [Lane; 3] = [Lane::Lambda, Lane::Spot, Lane::OnDemand];
/// A received hint comes again after this time unless it was deleted or postponed. Source: a lease and a margin, doubled.
pub const VISIBILITY_S: u64 = 2 * (limits::LEASE_MS + limits::CLOCK_MARGIN_MS) / 1_000;

/// The name of a queue: one per lane and priority.
pub fn queue_name(prefix: &str, lane: Lane, priority: Priority) -> String {
    format!("{prefix}-{lane}-{priority}")
}

/// Creates the table, billed per request, unless it exists. It may be used once it is active.
pub async fn create_table(config: &SdkConfig, table: &str) -> Result<(), StoreError> {
    let mut attributes = vec![(PK, ScalarAttributeType::S), (SK, ScalarAttributeType::S)];
    for index in INDEXES {
        attributes.push((index.partition, ScalarAttributeType::S));
        attributes.push((index.sort, ScalarAttributeType::B));
    }
    attributes.sort_by_key(|(name, _)| *name);
    attributes.dedup_by_key(|(name, _)| *name);
    let keys_only = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
    let mut create = Client::new(config)
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema(PK, SK)));
    for (name, kind) in attributes {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
        create = create.attribute_definitions(attribute.expect("name and type are set"));
    }
    for Index { name, partition, sort } in INDEXES {
        let index = GlobalSecondaryIndex::builder()
            .index_name(name)
            .set_key_schema(Some(key_schema(partition, sort)))
            .projection(keys_only.clone());
        create = create.global_secondary_indexes(index.build().expect("name and keys are set"));
    }
    match create.send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => Ok(()),
        Err(error) => Err(store_error(error)),
    }
}

/// Creates the queues of a grid, unless they exist.
pub async fn create_queues(config: &SdkConfig, prefix: &str) -> Result<(), StoreError> {
    let client = aws_sdk_sqs::Client::new(config);
    let queues = LANES.iter().flat_map(|lane| Priority::ALL.map(|priority| queue_name(prefix, *lane, priority)));
    let created = queues.map(|name| {
        let queue = client.create_queue().queue_name(name);
        queue.attributes(QueueAttributeName::VisibilityTimeout, VISIBILITY_S.to_string()).send()
    });
    try_join_all(created).await.map(drop).map_err(store_error)
}

fn key_schema(partition: &str, sort: &str) -> Vec<KeySchemaElement> {
    let element = |name: &str, kind| {
        let element = KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        element.expect("name and type are set")
    };
    vec![element(partition, KeyType::Hash), element(sort, KeyType::Range)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> ChunkKey {
        ChunkKey { job: JobId::from_bytes([7; 16]), number }
    }

    #[test]
    fn places_sort_by_due_time_and_come_back() {
        let rows = [(1, key(9)), (2, key(0)), (2, key(300)), (1 << 40, key(1))];
        let places: Vec<Vec<u8>> = rows.iter().map(|(due, key)| due_row(*due, *key)).collect();
        assert!(places.is_sorted());
        let parsed: Vec<_> = places.iter().filter_map(|place| parse_due_row(place)).collect();
        assert_eq!(parsed, rows);
    }

    #[test]
    fn keys_are_as_they_were_stored() {
        assert_eq!(chunk_key(key(37)).0, format!("C#{}#5", key(0).job));
        assert_eq!(chunk_key(key(37)).1, "0000000037");
        assert_eq!(sum_sk(u32::MAX / SUM_CHUNKS), "SUM#67108863");
        assert!(sum_sk(99_999_999).as_str() < SUM_SK_END && META < sum_sk(0).as_str());
    }

    #[test]
    fn a_jobs_chunks_fall_due_in_all_shards() {
        let mut shards: Vec<u32> = (0..DUE_SHARDS).map(|number| due_shard(key(number))).collect();
        shards.sort_unstable();
        assert_eq!(shards, (0..DUE_SHARDS).collect::<Vec<_>>());
    }
}
