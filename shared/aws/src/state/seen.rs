//! Chunks as this process last saw them, so that an owner's write needs no read before it.
//!
//! Nothing is decided by them: each write's condition says what must still be true of them.

use std::collections::HashMap;

use parking_lot::Mutex;
use sheaf_core::{Chunk, ChunkKey};

/// Memory for them, roughly: two generations of half each.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a chunk takes besides its marks and segments, roughly.
const CHUNK_BYTES: usize = 512;
/// What a segment, an earlier attempt or a checkpoint takes, roughly.
const ENTRY_BYTES: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Seen {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<ChunkKey, Chunk>,
    old: HashMap<ChunkKey, Chunk>,
    young_bytes: usize,
}

fn bytes(chunk: &Chunk) -> usize {
    let work = &chunk.work;
    let entries = work.segments.len() + work.past.len() + work.tallies.len() + work.checkpoints.len();
    CHUNK_BYTES + work.marks.bits().len() + ENTRY_BYTES * entries
}

impl Seen {
    pub(crate) fn get(&self, key: ChunkKey) -> Option<Chunk> {
        let generations = self.generations.lock();
        generations.young.get(&key).or_else(|| generations.old.get(&key)).cloned()
    }

    /// Remembers an open chunk; forgets one that is final. What came later may be overwritten by what was read earlier:
    /// the write that then fails brings the chunk as it is.
    pub(crate) fn note(&self, chunk: &Chunk) {
        let key = chunk.spec.key;
        let mut generations = self.generations.lock();
        if chunk.is_final() {
            generations.young.remove(&key);
            generations.old.remove(&key);
            return;
        }
        generations.young_bytes += bytes(chunk);
        generations.young.insert(key, chunk.clone());
        if generations.young_bytes > BYTES_MAX / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use sheaf_conformance::fixture::{job_id, spec};
    use sheaf_core::ChunkEvent;

    use super::*;

    #[test]
    fn memory_is_bounded_and_the_latest_are_kept() {
        let (seen, job) = (Seen::default(), job_id());
        let count = (BYTES_MAX / CHUNK_BYTES) as u32;
        for number in 0..count {
            let event = ChunkEvent::Submit { spec: Box::new(spec(job, number, 1)) };
            seen.note(&Chunk::apply(None, &event).unwrap());
        }
        let generations = seen.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= count as usize);
        drop(generations);
        assert!(seen.get(ChunkKey { job, number: count - 1 }).is_some());
        assert!(seen.get(ChunkKey { job, number: 0 }).is_none());
    }
}
