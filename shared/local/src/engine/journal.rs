//! Cutting fjall's journal behind its last whole batch, before fjall opens it.
//!
//! Of what was written and not synced when the power was cut, a disk may hold later pages without earlier ones: a journal
//! with a hole. fjall (3.1) drops a tail that breaks off or is zero, and refuses a journal in which a batch does not fit its
//! checksum although more follows. But such a batch was not synced, nor was any behind it, since a sync covers all that was
//! written before; so none of them was acknowledged, and all of them go. Only the newest journal can have a hole: fjall
//! syncs a journal before it begins the next.
//!
//! Bytes that were synced and are damaged nevertheless cannot be told from a hole and end the journal too, as in most
//! databases; the log then says how much went.
//!
//! A batch is, in little-endian,
//! ```text
//! 1  items: u32  sequence number: u64                                                                          start
//! 2  type: u8  compression: u8  keyspace: u64  key bytes: u16  value bytes: u32  stored bytes: u32  key  value  item
//! 4  keyspace: u64                                                                                             item (clear)
//! 3  XXH3 of all items: u64  "FJL" 3                                                                           end
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// What fjall's version marker holds, and each batch ends with.
const MAGIC: [u8; 4] = *b"FJL\x03";
/// Uncompressed; the engine asks for no other.
const PLAIN: u8 = 0;
const BLOCK: usize = 64 * 1024;

/// Cuts the newest journal of a database behind its last whole batch. Leaves the journals of another format alone.
pub(super) fn cut(rows: &Path) -> io::Result<()> {
    if fs::read(rows.join("version")).ok().as_deref() != Some(&MAGIC) {
        return Ok(());
    }
    let Some(path) = newest(rows)? else { return Ok(()) };
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let size = file.metadata()?.len();
    let mut journal = Journal { reader: BufReader::with_capacity(BLOCK, &file), left: size };
    let mut whole = 0;
    while journal.batch()? {
        whole = size - journal.left;
    }
    if whole < size {
        if journal.stopped_in_batch(whole, size) {
            tracing::warn!(journal = %path.display(), whole, size, "what follows the last whole batch is dropped");
        }
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(())
}

/// The journal that a database writes, or goes on with.
pub(super) fn newest(rows: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(rows)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(other, _)| number > *other)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

struct Journal<'a> {
    reader: BufReader<&'a File>,
    /// Bytes not read yet.
    left: u64,
}

impl Journal<'_> {
    /// Reads a batch; answers whether there is one, whole.
    fn batch(&mut self) -> io::Result<bool> {
        let Some([START, items @ .., _, _, _, _, _, _, _, _]) = self.read::<13>()? else { return Ok(false) };
        let mut hash = Xxh3::new();
        for _ in 0..u32::from_le_bytes(items) {
            if !self.item(&mut hash)? {
                return Ok(false);
            }
        }
        let Some([END, rest @ ..]) = self.read::<13>()? else { return Ok(false) };
        let [checksum @ .., a, b, c, d] = rest;
        Ok([a, b, c, d] == MAGIC && u64::from_le_bytes(checksum) == hash.digest())
    }

    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some([tag]) = self.read::<1>()? else { return Ok(false) };
        hash.update(&[tag]);
        match tag {
            ITEM => {
                let Some(head) = self.read::<20>()? else { return Ok(false) };
                hash.update(&head);
                let [_, compression, _, _, _, _, _, _, _, _, key @ .., v0, v1, v2, v3, s0, s1, s2, s3] = head;
                let (value, stored) = (u32::from_le_bytes([v0, v1, v2, v3]), u32::from_le_bytes([s0, s1, s2, s3]));
                let bytes = u64::from(u16::from_le_bytes(key)) + u64::from(stored);
                Ok(compression == PLAIN && value == stored && self.skip(bytes, hash)?)
            }
            CLEAR => {
                let Some(keyspace) = self.read::<8>()? else { return Ok(false) };
                hash.update(&keyspace);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn read<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.left < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.left -= N as u64;
        Ok(Some(bytes))
    }

    /// Hashes what is not looked at; a length that a hole has made up takes no memory.
    fn skip(&mut self, mut bytes: u64, hash: &mut Xxh3) -> io::Result<bool> {
        if self.left < bytes {
            return Ok(false);
        }
        let mut block = [0; 4 * 1024];
        while bytes > 0 {
            let part = block.len().min(bytes as usize);
            self.reader.read_exact(&mut block[..part])?;
            hash.update(&block[..part]);
            bytes -= part as u64;
            self.left -= part as u64;
        }
        Ok(true)
    }

    /// Whether reading stopped within a batch, rather than before the zeros that fjall allocates in advance.
    const fn stopped_in_batch(&self, whole: u64, size: u64) -> bool {
        size - self.left > whole + 13
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const BATCHES: u8 = 6;

    /// A database whose journal holds some batches of several pages each; the ends of the batches.
    fn fill(rows: &Path) -> fjall::Result<Vec<u64>> {
        let database = Database::builder(rows).open()?;
        let space = database.keyspace("space", KeyspaceCreateOptions::default)?;
        let mut ends = Vec::new();
        for batch in 1..=BATCHES {
            let mut write = database.batch();
            for item in 0..5 {
                write.insert(&space, [batch, item], vec![batch; 3_000]);
            }
            write.remove(&space, [batch, 9]);
            write.durability(Some(PersistMode::SyncData)).commit()?;
            let content = fs::read(newest(rows)?.expect("a journal"))?;
            ends.push(content.iter().rposition(|byte| *byte != 0).expect("a batch") as u64 + 1);
        }
        Ok(ends)
    }

    fn batches(rows: &Path) -> fjall::Result<Vec<u8>> {
        let database = Database::builder(rows).open()?;
        let space = database.keyspace("space", KeyspaceCreateOptions::default)?;
        let mut found = Vec::new();
        for batch in 1..=BATCHES {
            let items = (0..5).filter(|item| space.contains_key([batch, *item]).is_ok_and(|found| found)).count();
            assert!(items == 0 || items == 5, "batch {batch} is there in part");
            found.extend((items == 5).then_some(batch));
        }
        Ok(found)
    }

    /// This is what notices a version of fjall whose journal looks different.
    #[test]
    fn a_whole_journal_loses_nothing() -> fjall::Result<()> {
        let directory = tempfile::tempdir()?;
        let ends = fill(directory.path())?;
        cut(directory.path())?;
        let size = fs::metadata(newest(directory.path())?.expect("a journal"))?.len();
        assert_eq!(Some(&size), ends.last(), "cut behind the last batch");
        assert_eq!(batches(directory.path())?, [1, 2, 3, 4, 5, 6]);
        cut(directory.path())?;
        assert_eq!(batches(directory.path())?, [1, 2, 3, 4, 5, 6], "and goes on from there");
        Ok(())
    }

    /// A page that is zero, wherever it lies, costs the batch that it lies in and those behind it, and no other.
    #[test]
    fn a_hole_costs_what_follows_it() -> fjall::Result<()> {
        let original = tempfile::tempdir()?;
        let ends = fill(original.path())?;
        let journal = newest(original.path())?.expect("a journal");
        let end = *ends.last().expect("batches");
        let content = fs::read(&journal)?[..end as usize].to_vec();
        for page in 0..end / 4_096 {
            let (from, to) = (page * 4_096, end.min((page + 1) * 4_096));
            fs::write(&journal, &content)?;
            let file = OpenOptions::new().write(true).open(&journal)?;
            file.write_all_at(&vec![0; (to - from) as usize], from)?;
            cut(original.path())?;
            let expected: Vec<u8> = (1..=BATCHES).filter(|batch| ends[usize::from(*batch) - 1] <= from).collect();
            assert_eq!(batches(original.path())?, expected, "page {page}");
        }
        Ok(())
    }
}
