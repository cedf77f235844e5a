//! Room for the journal, taken before it is needed.
//!
//! fjall gives a new journal its length and leaves it without blocks. A file system then has to find blocks in each sync, and to
//! commit that as well, which makes the sync of a small commit half as slow again as that of bytes which overwrite others
//! (ARCHITECTURE.md has the figures). So zeros are written where the journal has none yet: its content stays what it was, byte for
//! byte. A journal that fjall goes on with after a restart is appended to, and has no room until fjall begins the next.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{SeekFrom, seek};

use super::journal;

/// Room that is taken at once.
const AHEAD: u64 = 256 * 1024;
/// The next is taken when so much of it may be used.
const USED_MAX: usize = AHEAD as usize / 2;
/// Larger commits take their time anyway, and would write most of it twice.
const SMALL_BYTES_MAX: usize = 32 * 1024;
const BLOCK: usize = 64 * 1024;

/// The room of a database's newest journal.
#[derive(Debug)]
pub(super) struct Room {
    rows: PathBuf,
    used: usize,
}

impl Room {
    /// Of a database. The first is taken with the first small commit.
    pub(super) fn new(rows: &Path) -> Self {
        Self { rows: rows.to_owned(), used: USED_MAX }
    }

    /// Notes a commit of about so many bytes, and takes more room if there may be little. Meanwhile nobody may write to the journal.
    pub(super) fn used(&mut self, bytes: usize) {
        self.used += bytes;
        if bytes > SMALL_BYTES_MAX || self.used < USED_MAX {
            return;
        }
        self.used = 0;
        if let Err(error) = take(&self.rows) {
            tracing::debug!(%error, "the journal has no room: its syncs take longer");
        }
    }
}

/// Writes zeros behind everything that the newest journal has blocks for.
fn take(rows: &Path) -> io::Result<()> {
    let Some(path) = journal::newest(rows)? else { return Ok(()) };
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let from = match seek(&file, SeekFrom::Hole(0)) {
        Ok(from) => from,
        // Where there is nothing, there is no hole either.
        Err(rustix::io::Errno::NXIO) => length,
        Err(error) => return Err(error.into()),
    };
    let until = from.saturating_add(AHEAD).min(length);
    let mut block = [0; BLOCK];
    for at in (from..until).step_by(BLOCK) {
        let block = &mut block[..BLOCK.min((until - at) as usize)];
        file.read_exact_at(block, at)?;
        // It is, but what is written here must never be anything else than what was there.
        if block.iter().all(|byte| *byte == 0) {
            file.write_all_at(block, at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::MetadataExt,
    };

    use super::*;

    /// A journal of 1 MiB with so many bytes in it, below a directory.
    fn journal(bytes: usize) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("7.jnl");
        let file = File::create(&path).expect("a file");
        file.set_len(1024 * 1024).expect("its length");
        file.write_all_at(&vec![7; bytes], 0).expect("its bytes");
        (directory, path)
    }

    fn blocks_bytes(path: &Path) -> u64 {
        File::open(path).and_then(|file| file.sync_all().and_then(|()| file.metadata())).expect("a file").blocks() * 512
    }

    #[test]
    fn there_is_room_and_the_content_stays() {
        let (directory, path) = journal(10_000);
        let before = fs::read(&path).expect("a journal");
        let mut room = Room::new(directory.path());
        room.used(0);
        let first = blocks_bytes(&path);
        assert!((AHEAD..=AHEAD + 16_384).contains(&first), "{first}");
        room.used(USED_MAX - 1);
        room.used(SMALL_BYTES_MAX + 1);
        assert_eq!(blocks_bytes(&path), first, "a large commit waits for no room");
        room.used(1);
        assert!(blocks_bytes(&path) >= 2 * AHEAD);
        assert!(fs::read(&path).expect("a journal") == before);
    }

    #[test]
    fn it_ends_with_the_journal() {
        let (directory, path) = journal(1024 * 1024 - 10);
        let mut room = Room::new(directory.path());
        room.used(USED_MAX);
        assert_eq!(fs::metadata(&path).expect("a journal").len(), 1024 * 1024);
        // One that is appended to, and none at all.
        File::options().write(true).open(&path).and_then(|file| file.set_len(10)).expect("cut");
        take(directory.path()).expect("no room");
        assert_eq!(fs::read(&path).expect("a journal"), [7; 10]);
        fs::remove_file(&path).expect("removed");
        take(directory.path()).expect("no journal");
    }
}
