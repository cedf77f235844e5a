//! The journal of a job, on the client's side: what lets a run that was killed be continued by giving it the same items
//! again.
//!
//! It holds the job's id and options (synced before the job is created), the boundaries of every chunk (synced before the
//! chunk is sent), which chunks were acknowledged, and how far the reader is. The boundaries matter because a chunk's
//! number is its idempotency key: the same number must mean the same tasks again. Everything after the job record is
//! written without waiting for the disk but where said: a kill loses nothing, and a power cut only makes a chunk be sent
//! again, which the grid answers with "exists".
//!
//! What it does not do: keep the items themselves.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod record;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sheaf_api::wire::CreateJob;
use sheaf_core::{JobId, Seal};

pub(crate) use self::record::Opening;
use self::record::{MAGIC, Record, fill};
use crate::error::{GridError, JournalError};

/// A chunk that an earlier run recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Recorded {
    pub(crate) tasks: u32,
    pub(crate) acknowledged: bool,
    /// How many of its tasks the reader has dealt with, from its first.
    pub(crate) delivered: u32,
}

/// What an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resume {
    /// By number.
    pub(crate) chunks: Vec<Recorded>,
    /// Its size, once all of it was acknowledged.
    pub(crate) sealing: Option<Seal>,
    /// When the grid says that the job was created (Unix, ms).
    pub(crate) created_at_ms: Option<u64>,
}

impl Resume {
    /// Takes in a record; `false` if it cannot follow those before.
    fn take(&mut self, record: &Record) -> bool {
        match *record {
            Record::Job(_) => return false,
            Record::Created { at_ms } => self.created_at_ms = Some(at_ms),
            Record::Chunk { number, tasks } => {
                if number as usize != self.chunks.len() || tasks == 0 {
                    return false;
                }
                self.chunks.push(Recorded { tasks, ..Recorded::default() });
            }
            Record::Acknowledged { number } => match self.chunks.get_mut(number as usize) {
                Some(chunk) => chunk.acknowledged = true,
                None => return false,
            },
            Record::Delivered { number, tasks } => match self.chunks.get_mut(number as usize) {
                Some(chunk) => {
                    chunk.acknowledged = true;
                    chunk.delivered = chunk.delivered.max(tasks.min(chunk.tasks));
                }
                None => return false,
            },
            Record::Sealing(seal) => self.sealing = Some(seal),
        }
        true
    }
}

/// An open journal, locked against other processes.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Arc<File>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    buffer: Vec<u8>,
    /// What stopped an earlier write: behind a torn record nothing would be read again.
    broken: Option<JournalError>,
}

fn io(doing: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { doing, source: Arc::new(source) }
}

impl Journal {
    /// Opens the journal at `path` for a job, or begins it. Gives what to create the job with (from the journal, if there
    /// is one) and what an earlier run left. Durable when it returns. Blocks on the disk.
    pub(crate) fn open(path: &Path, opening: Opening, id: Option<JobId>) -> Result<(Self, Opening, Resume), GridError> {
        Self::try_open(path, opening, id).map_err(|source| GridError::Journal { path: path.into(), source })
    }

    fn try_open(path: &Path, opening: Opening, id: Option<JobId>) -> Result<(Self, Opening, Resume), JournalError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io("opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked),
            Err(TryLockError::Error(source)) => return Err(io("locked")(source)),
        }
        let bytes = file.metadata().map_err(io("read"))?.len();
        let found = scan(BufReader::new(&file), bytes)?;
        let journal = Self { path: path.into(), file: Arc::new(file), writer: Mutex::default() };
        let (opening, resume) = match found {
            Some(Scanned { opening: found, resume, end }) => {
                check_same(&found.request, &opening.request, id)?;
                journal.cut(end).map_err(io("cut behind its last whole record"))?;
                (found, resume)
            }
            None => {
                journal.cut(0).map_err(io("begun"))?;
                let mut bytes = MAGIC.to_vec();
                Record::Job(Box::new(opening.clone())).write(&mut bytes);
                (&*journal.file).write_all(&bytes).map_err(io("written"))?;
                (opening, Resume::default())
            }
        };
        journal.file.sync_all().map_err(io("synced"))?;
        sync_parent(path).map_err(io("synced with its directory"))?;
        Ok((journal, opening, resume))
    }

    fn cut(&self, end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        (&*self.file).seek(SeekFrom::Start(end)).map(drop)
    }

    fn append(&self, records: impl IntoIterator<Item = Record>) -> Result<(), GridError> {
        let mut writer = self.writer.lock();
        let Writer { buffer, broken } = &mut *writer;
        if broken.is_none() {
            buffer.clear();
            records.into_iter().for_each(|record| record.write(buffer));
            *broken = (&*self.file).write_all(buffer).map_err(io("written")).err();
        }
        broken.clone().map_or(Ok(()), |source| Err(self.error(source)))
    }

    /// The job exists, since then.
    pub(crate) fn created(&self, at_ms: u64) -> Result<(), GridError> {
        self.append([Record::Created { at_ms }])
    }

    /// These chunks will be sent: consecutive numbers from `number` on, each with its tasks. To be synced
    /// before they are.
    pub(crate) fn chunks(&self, chunks: impl IntoIterator<Item = (u32, u32)>) -> Result<(), GridError> {
        self.append(chunks.into_iter().map(|(number, tasks)| Record::Chunk { number, tasks }))
    }

    /// These chunks are durable in the grid.
    pub(crate) fn acknowledged(&self, numbers: impl IntoIterator<Item = u32>) -> Result<(), GridError> {
        self.append(numbers.into_iter().map(|number| Record::Acknowledged { number }))
    }

    /// All chunks are, and the job will be sealed.
    pub(crate) fn sealing(&self, seal: Seal) -> Result<(), GridError> {
        self.append([Record::Sealing(seal)])
    }

    /// The reader has dealt with the first `tasks` tasks of a chunk.
    pub(crate) fn delivered(&self, number: u32, tasks: u32) -> Result<(), GridError> {
        self.append([Record::Delivered { number, tasks }])
    }

    /// Waits until all that was written is on the disk.
    pub(crate) async fn sync(journal: Arc<Self>) -> Result<(), GridError> {
        let file = Arc::clone(&journal.file);
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        let synced = synced.unwrap_or_else(|error| Err(io::Error::other(error)));
        synced.map_err(|error| journal.error(io("synced")(error)))
    }

    pub(crate) fn error(&self, source: JournalError) -> GridError {
        GridError::Journal { path: self.path.clone(), source }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Children of this process have the file too until they begin their programs, and so the lock.
        let _ = self.file.unlock();
    }
}

struct Scanned {
    opening: Opening,
    resume: Resume,
    /// Where its last whole record ends.
    end: u64,
}

/// Reads what there is, of so many bytes; `None` when there is not even a whole job record, so that nothing can have been
/// created.
fn scan(mut from: impl Read, bytes: u64) -> Result<Option<Scanned>, JournalError> {
    let mut magic = [0; MAGIC.len()];
    let whole = bytes >= magic.len() as u64;
    let head = if whole { &mut magic[..] } else { &mut magic[..bytes as usize] };
    fill(&mut from, head).map_err(io("read"))?;
    if *head != MAGIC[..head.len()] {
        let other_version = head.len() > 4 && head[..4] == MAGIC[..4];
        return Err(if other_version { JournalError::Version { version: head[4] } } else { JournalError::NotOne });
    }
    let mut buffer = Vec::new();
    let mut next = || Record::read(&mut from, &mut buffer).map_err(io("read"));
    let Some((Record::Job(opening), size)) = next()? else { return Ok(None) };
    let mut end = MAGIC.len() as u64 + size;
    let mut resume = Resume::default();
    while let Some((record, size)) = next()? {
        if !resume.take(&record) {
            break;
        }
        end += size;
    }
    Ok(Some(Scanned { opening: *opening, resume, end }))
}

/// A resumed run must ask for the same job. Its id is the journal's unless one is asked for; its deadline stays where the
/// first run set it.
fn check_same(found: &CreateJob, asked: &CreateJob, id: Option<JobId>) -> Result<(), JournalError> {
    let differs = |difference| Err(JournalError::OtherJob { job: found.id, difference });
    if id.is_some_and(|id| id != found.id) {
        return differs("id");
    }
    if found.functions != asked.functions {
        return differs("function");
    }
    let same = CreateJob { id: found.id, deadline_ms: found.deadline_ms, ..asked.clone() };
    if *found != same {
        return differs("options");
    }
    Ok(())
}

/// A new file survives a power cut only once its directory entry does.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opening(id: u8) -> Opening {
        Opening { request: CreateJob::new(JobId::from_bytes([id; 16]), vec!["price".into()]), compress: false }
    }

    fn open(path: &Path, id: u8) -> Result<(Journal, Opening, Resume), GridError> {
        Journal::open(path, opening(id), None)
    }

    #[test]
    fn a_second_run_finds_what_the_first_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("eod.journal");
        let (journal, begun, resume) = open(&path, 1).expect("begun");
        assert_eq!(resume, Resume::default());
        assert!(matches!(
            open(&path, 2).expect_err("it is in use"),
            GridError::Journal { source: JournalError::Locked, .. }
        ));
        journal.created(5).expect("written");
        journal.chunks([(0, 3), (1, 4)]).expect("written");
        journal.acknowledged([1]).expect("written");
        journal.delivered(1, 4).expect("written");
        drop(journal);
        let (_journal, found, resume) = open(&path, 2).expect("opened");
        assert_eq!(found, begun, "the job is the first run's");
        let chunks = vec![
            Recorded { tasks: 3, acknowledged: false, delivered: 0 },
            Recorded { tasks: 4, acknowledged: true, delivered: 4 },
        ];
        assert_eq!(resume, Resume { chunks, sealing: None, created_at_ms: Some(5) });
    }

    #[test]
    fn other_files_and_other_jobs_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "remember the milk").expect("written");
        let refused = open(&path, 1).expect_err("not a journal");
        assert!(matches!(refused, GridError::Journal { source: JournalError::NotOne, .. }));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "remember the milk");

        let path = directory.path().join("job");
        drop(open(&path, 1).expect("begun"));
        let mut other = opening(1);
        other.request.functions = vec!["risk".into()];
        let refused = Journal::open(&path, other, None).expect_err("another function");
        assert!(matches!(
            refused,
            GridError::Journal { source: JournalError::OtherJob { difference: "function", .. }, .. }
        ));
        let refused = Journal::open(&path, opening(1), Some(JobId::from_bytes([9; 16]))).expect_err("another id");
        assert!(matches!(refused, GridError::Journal { source: JournalError::OtherJob { difference: "id", .. }, .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is torn or flipped, what is read is what stood before it.
        #[test]
        fn a_damaged_tail_is_cut(cut in 0_usize..400, flip in proptest::option::of(0_usize..400)) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("journal");
            let (journal, ..) = open(&path, 1).expect("begun");
            for number in 0..10 {
                journal.chunks([(number, number + 1)]).expect("written");
                journal.acknowledged([number]).expect("written");
            }
            drop(journal);
            let whole = std::fs::read(&path).expect("there");
            let mut bytes = whole[..cut.min(whole.len())].to_vec();
            if let Some(at) = flip.filter(|&at| at >= MAGIC.len() && at < bytes.len()) {
                bytes[at] ^= 0x40;
            }
            std::fs::write(&path, &bytes).expect("written");
            let (journal, _, resume) = open(&path, 1).expect("opened whatever happened to its tail");
            for (number, chunk) in resume.chunks.iter().enumerate() {
                prop_assert_eq!(chunk.tasks as usize, number + 1);
            }
            let next = resume.chunks.len() as u32;
            journal.chunks([(next, 77)]).expect("written");
            drop(journal);
            let (_, _, again) = open(&path, 1).expect("opened");
            prop_assert_eq!(again.chunks.len(), resume.chunks.len() + 1);
            prop_assert_eq!(again.chunks[next as usize].tasks, 77);
        }
    }
}
