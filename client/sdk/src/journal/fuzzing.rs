//! The journal's bytes without its file: see [`crate::fuzzing`].

use sheaf_api::wire::CreateJob;
use sheaf_core::Seal;

use super::{Opening, Recorded, Resume, Scanned, record::Record, scan};
use crate::error::JournalError;

/// What a journal begins with.
pub const MAGIC: [u8; 8] = super::MAGIC;

/// What a journal says.
#[derive(Debug)]
pub struct Opened {
    /// The job, and whether its packs are compressed.
    pub job: (CreateJob, bool),
    /// How far an earlier run was.
    pub resume: Resumed,
    /// Where the last record that was read ends.
    pub end: u64,
}

/// How far a run was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Of each chunk its tasks, whether it was acknowledged, and how many of its tasks were delivered.
    pub chunks: Vec<(u32, bool, u32)>,
    /// The job's size, once known.
    pub sealing: Option<Seal>,
    /// When the job was created.
    pub created_at_ms: Option<u64>,
}

/// Reads a journal; `None` for the beginning of one.
pub fn read_journal(bytes: &[u8]) -> Result<Option<Opened>, JournalError> {
    let opened = |Scanned { opening: Opening { request, compress }, resume, end }| {
        let Resume { chunks, sealing, created_at_ms } = resume;
        let chunks =
            chunks.into_iter().map(|Recorded { tasks, acknowledged, delivered }| (tasks, acknowledged, delivered));
        Opened { job: (request, compress), resume: Resumed { chunks: chunks.collect(), sealing, created_at_ms }, end }
    };
    Ok(scan(bytes, bytes.len() as u64)?.map(opened))
}

/// Writes journals.
pub mod write_journal {
    use super::{CreateJob, MAGIC, Opening, Record, Resumed};

    /// The record of a chunk.
    pub fn chunk(number: u32, tasks: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        Record::Chunk { number, tasks }.write(&mut bytes);
        bytes
    }

    /// A journal that says this.
    pub fn whole((request, compress): &(CreateJob, bool), resume: &Resumed) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        Record::Job(Box::new(Opening { request: request.clone(), compress: *compress })).write(&mut bytes);
        resume.created_at_ms.into_iter().for_each(|at_ms| Record::Created { at_ms }.write(&mut bytes));
        for (number, &(tasks, acknowledged, delivered)) in (0..).zip(&resume.chunks) {
            Record::Chunk { number, tasks }.write(&mut bytes);
            if acknowledged {
                Record::Acknowledged { number }.write(&mut bytes);
            }
            if delivered > 0 {
                Record::Delivered { number, tasks: delivered }.write(&mut bytes);
            }
        }
        resume.sealing.into_iter().for_each(|seal| Record::Sealing(seal).write(&mut bytes));
        bytes
    }
}
