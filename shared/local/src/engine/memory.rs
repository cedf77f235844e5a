//! The engine in memory: for tests, and for people who want speed and can lose everything.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound::{Excluded, Included},
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Engine, EngineError, Row, Scan, Space};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
pub(crate) struct MemoryEngine {
    spaces: RwLock<BTreeMap<Space, Rows>>,
    blobs: RwLock<BTreeMap<String, Bytes>>,
}

/// Blobs removed in one go.
const REMOVE_MAX: usize = 10_000;

impl Engine for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.spaces.read().get(&space).and_then(|rows| rows.get(key).cloned()))
    }

    fn scan(&self, space: Space, scan: Scan<'_>) -> Result<Vec<Row>, EngineError> {
        if scan.from >= scan.to {
            return Ok(Vec::new());
        }
        let spaces = self.spaces.read();
        let Some(rows) = spaces.get(&space) else { return Ok(Vec::new()) };
        let range = rows.range::<[u8], _>((Included(scan.from), Excluded(scan.to)));
        let owned = |(key, row): (&Vec<u8>, &Vec<u8>)| (key.clone(), row.clone());
        Ok(if scan.backwards {
            range.rev().take(scan.limit).map(owned).collect()
        } else {
            range.take(scan.limit).map(owned).collect()
        })
    }

    fn put_blob(&self, key: &str, bytes: &Bytes) -> Result<bool, EngineError> {
        match self.blobs.write().entry(key.to_owned()) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(vacant) => {
                vacant.insert(bytes.clone());
                Ok(true)
            }
        }
    }

    fn blob(&self, key: &str) -> Result<Option<Bytes>, EngineError> {
        Ok(self.blobs.read().get(key).cloned())
    }

    fn remove_blobs(&self, prefix: &str) -> Result<bool, EngineError> {
        let mut blobs = self.blobs.write();
        let range = blobs.range::<str, _>((Included(prefix), std::ops::Bound::Unbounded));
        let keys: Vec<String> =
            range.map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).take(REMOVE_MAX).cloned().collect();
        keys.iter().for_each(|key| drop(blobs.remove(key)));
        Ok(keys.len() == REMOVE_MAX)
    }

    fn commit(&self, batch: Batch, _durable: bool) -> Result<(), EngineError> {
        let mut spaces = self.spaces.write();
        for (space, key, row) in batch.rows {
            let rows = spaces.entry(space).or_default();
            match row {
                Some(row) => drop(rows.insert(key, row)),
                None => drop(rows.remove(&key)),
            }
        }
        Ok(())
    }

    fn holds_back(&self) -> bool {
        false
    }

    fn waits(&self) -> bool {
        false
    }

    fn syncs(&self) -> Option<u64> {
        None
    }
}
