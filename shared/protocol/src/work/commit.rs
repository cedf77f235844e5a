//! Making results durable and then visible: the segment's bytes first, then the write that names them.

use bytes::Bytes;
use sheaf_api::SegmentBuilder;
use sheaf_core::{Attempt, Chunk, ChunkSpec, Commit, Digest, SegmentRef};

use crate::{
    error::StoreError,
    ports::{BlobStore, Ports},
    write::retrying,
};

/// Results that are not committed yet.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) answers: SegmentBuilder,
    pub(super) logs: SegmentBuilder,
    segments: u32,
}

impl Pending {
    /// Stores what is pending and gives the commit that names it; `None` when nothing is.
    pub(super) async fn store<P: Ports>(
        &mut self,
        ports: &P,
        spec: &ChunkSpec,
        attempt: &Attempt,
    ) -> Result<Option<Commit>, StoreError> {
        if self.answers.is_empty() {
            return Ok(None);
        }
        let marks = self.answers.marks(spec.tasks).expect("the run takes each task's answer once");
        let (tasks, times) = (self.answers.tasks(), self.answers.run_us());
        let bytes = self.answers.finish(false);
        let segment = SegmentRef {
            epoch: attempt.epoch,
            nonce: attempt.owner.nonce,
            number: self.segments,
            digest: Digest::of(&bytes),
            bytes: bytes.len() as u32,
            tasks,
            run_us: (times.0 * f64::from(tasks)) as u64,
            run_us_max: times.1 as u32,
            has_logs: !self.logs.is_empty(),
        };
        self.segments += 1;
        let mut blobs: Vec<(String, Bytes)> = vec![(segment.key(spec), bytes)];
        if segment.has_logs {
            blobs.push((segment.logs_key(spec), self.logs.finish(true)));
        }
        retrying(ports, || async {
            let put = ports.blobs().put(blobs.clone()).await;
            put.into_iter().collect::<Result<Vec<_>, _>>()
        })
        .await?;
        Ok(Some(Commit { marks, segment }))
    }
}

/// The attempt that holds a chunk.
pub(super) fn attempt_of(chunk: &Chunk) -> Attempt {
    chunk.lease().expect("a claim answers a held chunk").attempt.clone()
}
