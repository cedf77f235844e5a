//! Chunks: their writes, reads, and the index of those that are due.

use std::sync::atomic::Ordering;

use futures::{StreamExt, stream};
use sheaf_core::{Chunk, ChunkEvent, ChunkKey, Due, JobId, limits};
use sheaf_protocol::{StoreError, Write, WriteError};

use super::{
    AwsState,
    item::{self, Item, Reader, key},
    merge::{Page, merge},
    table::NotWritten,
    transition,
    update::Update,
};
use crate::{
    fault::damaged,
    schema::{self, CHUNK_SHARDS, DUE, DUE_SHARDS, PK, SK},
};

/// Writes of one call that are under way at once.
const CONCURRENT_MAX: usize = 32;
/// Tries of one write whose condition failed though its event applies, because the chunk was seen too long ago or moves on
/// all the time.
const TRIES_MAX: u32 = 5;
/// When to ask again after those.
const RETRY_AFTER_MS: u64 = 50;

fn chunk_item_key(chunk: ChunkKey) -> Item {
    let (pk, sk) = schema::chunk_key(chunk);
    key(pk, sk)
}

impl AwsState {
    /// Writes of one chunk run one after the other, in their order; others side by side.
    pub(super) async fn apply_all(&self, writes: Vec<Write>) -> Vec<Result<Chunk, WriteError>> {
        let mut order: Vec<usize> = (0..writes.len()).collect();
        order.sort_by_key(|&i| writes[i].key);
        let groups: Vec<Vec<usize>> =
            order.chunk_by(|&a, &b| writes[a].key == writes[b].key).map(<[usize]>::to_vec).collect();
        let writes = &writes;
        let mut running = stream::iter(groups)
            .map(|group| async move {
                let mut answers = Vec::with_capacity(group.len());
                for i in group {
                    answers.push((i, self.apply_one(&writes[i]).await));
                }
                answers
            })
            .buffer_unordered(CONCURRENT_MAX);
        let mut answers: Vec<Option<Result<Chunk, WriteError>>> = vec![None; writes.len()];
        while let Some(group) = running.next().await {
            for (i, answer) in group {
                answers[i] = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.expect("each write is in one group")).collect()
    }

    async fn apply_one(&self, write: &Write) -> Result<Chunk, WriteError> {
        let Write { key, event } = write;
        let claim_moves_due = self.claims_move_due.load(Ordering::Relaxed);
        let mut current = match (transition::unseen(*key, event, claim_moves_due), event) {
            (Some(update), _) => match self.update(*key, update).await? {
                Updated::To(chunk) => return Ok(chunk),
                Updated::Not(current) => current,
            },
            (None, ChunkEvent::Submit { .. }) => None,
            (None, _) => match self.seen.get(*key).filter(|seen| Chunk::apply(Some(seen), event).is_ok()) {
                Some(seen) => Some(seen),
                // Never seen, or long ago: a refusal is said only of the chunk as it is.
                None => self.read(*key).await?,
            },
        };
        for _ in 0..TRIES_MAX {
            let after = Chunk::apply(current.as_ref(), event)
                .map_err(|reason| WriteError::Refused { reason, current: current.clone().map(Box::new) })?;
            let update = match &current {
                None => match self.submit(&after).await? {
                    Updated::To(chunk) => return Ok(chunk),
                    Updated::Not(found) => {
                        current = found;
                        continue;
                    }
                },
                Some(seen) => transition::seen(seen, event, &after),
            };
            let Some(update) = update else { return Ok(after) };
            if let (ChunkEvent::Claim { .. }, Some(seen)) = (event, &current) {
                // Those behind it in the queue are about as old.
                self.claims_move_due.store(after.due_ms != seen.due_ms, Ordering::Relaxed);
            }
            match self.update(*key, update).await? {
                Updated::To(chunk) => return Ok(chunk),
                Updated::Not(found) => current = found,
            }
        }
        Err(StoreError::Throttled { retry_after_ms: RETRY_AFTER_MS }.into())
    }

    async fn submit(&self, chunk: &Chunk) -> Result<Updated, StoreError> {
        let mut item = chunk_item_key(chunk.spec.key);
        item.extend(item::attributes(chunk).into_iter().map(|(name, value)| (name.to_owned(), value)));
        match self.table.create(item).await {
            Ok(()) => Ok(Updated::To(chunk.clone())),
            Err(refused) => self.refused(refused),
        }
    }

    async fn update(&self, key: ChunkKey, update: Update) -> Result<Updated, StoreError> {
        match self.table.update(chunk_item_key(key), update).await {
            Ok(item) => {
                let chunk = item::chunk(&item)?;
                self.seen.note(&chunk);
                Ok(Updated::To(chunk))
            }
            Err(refused) => self.refused(refused),
        }
    }

    fn refused(&self, refused: NotWritten) -> Result<Updated, StoreError> {
        match refused {
            NotWritten::Failed(error) => Err(error),
            NotWritten::Refused(item) => {
                let chunk = item.as_ref().map(item::chunk).transpose()?;
                chunk.iter().for_each(|chunk| self.seen.note(chunk));
                Ok(Updated::Not(chunk))
            }
        }
    }

    async fn read(&self, key: ChunkKey) -> Result<Option<Chunk>, StoreError> {
        let item = self.table.get(chunk_item_key(key)).await?;
        let chunk = item.as_ref().map(item::chunk).transpose()?;
        chunk.iter().for_each(|chunk| self.seen.note(chunk));
        Ok(chunk)
    }

    pub(super) async fn read_all(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Chunk>>, StoreError> {
        if let [key] = keys {
            return Ok(vec![self.read(*key).await?]);
        }
        let items = self.table.get_all(keys.iter().map(|key| schema::chunk_key(*key)).collect()).await?;
        let mut found = std::collections::HashMap::with_capacity(items.len());
        for item in &items {
            let chunk = item::chunk(item)?;
            self.seen.note(&chunk);
            found.insert(chunk.spec.key, chunk);
        }
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    pub(super) async fn read_from(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<Chunk>, StoreError> {
        let page_rows = limit.min(limits::PAGE_ROWS_MAX) / CHUNK_SHARDS as usize + 1;
        let rows = merge(CHUNK_SHARDS, limit, |shard, next| async move {
            let between = (schema::chunk_sk(from), schema::chunk_sk(u32::MAX));
            let page = self.table.query(schema::chunk_pk(job, shard), between, page_rows, next).await?;
            let rows = page.items.iter().map(|item| item::chunk(item).map(|chunk| (chunk.spec.key.number, chunk)));
            Ok(Page { rows: rows.collect::<Result<_, _>>()?, next: page.next })
        });
        let chunks: Vec<Chunk> = rows.await?.into_iter().map(|(_, chunk)| chunk).collect();
        chunks.iter().for_each(|chunk| self.seen.note(chunk));
        Ok(chunks)
    }

    /// Costs a query per shard and page.
    pub(super) async fn read_due(
        &self,
        after: Option<(Due, ChunkKey)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Due, ChunkKey)>, StoreError> {
        // Nothing sorts between a place and the same with a byte more.
        let from = after.map_or_else(|| vec![0], |(due, key)| [schema::due_row(due, key).as_slice(), &[0]].concat());
        let to = schema::due_row(until_ms, ChunkKey { job: JobId::from_bytes([u8::MAX; 16]), number: u32::MAX });
        if from > to {
            return Ok(Vec::new());
        }
        let page_rows = limit.min(limits::PAGE_ROWS_MAX) / DUE_SHARDS as usize + 1;
        let between = &(from, to);
        let rows = merge(DUE_SHARDS, limit, |shard, next| async move {
            let page =
                self.table.query_index(DUE, schema::due_pk(shard), between.clone(), false, page_rows, next).await?;
            let row = |item: &Item| {
                let read = Reader { item, object: "due chunk" };
                let row = schema::parse_due_row(read.bytes(DUE.sort)?);
                row.map(|row| (row, ())).ok_or_else(|| damaged("a due chunk", "its place cannot be read"))
            };
            Ok(Page { rows: page.items.iter().map(row).collect::<Result<_, _>>()?, next: page.next })
        });
        Ok(rows.await?.into_iter().map(|(row, ())| row).collect())
    }

    /// Deletes all chunks of a job.
    pub(super) async fn delete_chunks(&self, job: JobId) -> Result<(), StoreError> {
        for shard in 0..CHUNK_SHARDS {
            let pk = schema::chunk_pk(job, shard);
            let mut next = None;
            loop {
                let between = (schema::chunk_sk(0), schema::chunk_sk(u32::MAX));
                let page = self.table.query(pk.clone(), between, limits::PAGE_ROWS_MAX, next).await?;
                self.table.delete_all(page.items.into_iter().map(key_only).collect()).await?;
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What became of a conditional write.
enum Updated {
    To(Chunk),
    Not(Option<Chunk>),
}

/// What of an item names it.
pub(super) fn key_only(mut item: Item) -> Item {
    item.retain(|name, _| name == PK || name == SK);
    item
}
