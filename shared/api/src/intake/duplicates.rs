//! Which ids a file has used, in 128 bits each.
//!
//! An id is known by half of its BLAKE3 hash, so memory does not depend on how long ids are, nobody can make two ids
//! collide, and no shape of ids makes the tables slow. A row or line number taken for an id costs nothing until its run of
//! numbers is broken.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
};

use super::reader::Id;

/// Tables are split by a byte of the hash: when one grows and is copied, the others are not.
const SHARDS: usize = 256;

/// The ids used so far.
pub(super) struct Seen {
    given: Vec<HashSet<u128, BuildHasherDefault<AlreadyHashed>>>,
    any_given: bool,
    /// First and last of each run of numbers, ascending.
    numbered: Vec<(u64, u64)>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { given: vec![HashSet::default(); SHARDS], any_given: false, numbered: Vec::new() }
    }

    /// Whether an id is new; it is not from now on. Numbered ids come in ascending order.
    pub(super) fn insert(&mut self, id: &Id<'_>) -> bool {
        match id {
            Id::Given(text) => {
                self.any_given = true;
                let (hash, shard) = hash(text);
                self.given[shard].insert(hash) && !self.is_numbered(text)
            }
            &Id::Numbered(number) => {
                match self.numbered.last_mut() {
                    Some((_, last)) if *last + 1 == number => *last = number,
                    _ => self.numbered.push((number, number)),
                }
                !self.any_given || {
                    let (hash, shard) = hash(&number.to_string());
                    !self.given[shard].contains(&hash)
                }
            }
        }
    }

    fn is_numbered(&self, text: &str) -> bool {
        let Ok(number) = text.parse::<u64>() else { return false };
        let run = self.numbered.partition_point(|&(_, last)| last < number);
        // `+7` and `007` parse too, and are other ids than `7`.
        self.numbered.get(run).is_some_and(|&(first, _)| first <= number) && number.to_string() == text
    }
}

fn hash(text: &str) -> (u128, usize) {
    let hash = blake3::hash(text.as_bytes());
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    (u128::from_le_bytes(half), usize::from(half[15]))
}

/// Takes a part of a hash for the hash.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        // The low half; the shard is from the high one.
        self.0 = hash as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
