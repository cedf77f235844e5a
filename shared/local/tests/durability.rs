//! What the disk store promises when the process dies, the tail of a file is torn, or the disk is full.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sheaf_conformance::fixture::{NOW_MS, apply, claim, finish, job, job_id, spec, submit};
use sheaf_core::{ChunkKey, JobId, invariant};
use sheaf_local::{LocalPorts, LocalStore};
use sheaf_protocol::{BlobStore, Ports, StateStore};

const CHUNKS: u32 = 40;

fn open(directory: &Path) -> LocalPorts {
    LocalPorts::new(LocalStore::disk(directory, true).unwrap())
}

/// Submits chunks with packs, finishing every second one.
async fn fill(ports: &LocalPorts) -> JobId {
    let id = job_id();
    ports.state().create_job(job(id, NOW_MS)).await.unwrap();
    for number in 0..CHUNKS {
        fill_one(ports, id, number).await;
    }
    id
}

async fn fill_one(ports: &LocalPorts, id: JobId, number: u32) {
    let pack = Bytes::from(vec![number as u8; if number.is_multiple_of(3) { 100 } else { 20_000 }]);
    let mut spec = spec(id, number, 3);
    spec.digest = sheaf_core::Digest::of(&pack);
    ports.blobs().put(vec![(spec.pack_key(), pack)]).await.remove(0).unwrap();
    apply(ports, submit(&spec)).await.unwrap();
    if number.is_multiple_of(2) {
        let chunk = apply(ports, claim(spec.key, u64::from(number))).await.unwrap();
        let write = finish(&chunk);
        let segment = Bytes::from_static(b"segment");
        let sheaf_core::ChunkEvent::Finish { commit: Some(commit), .. } = &write.event else { unreachable!() };
        ports.blobs().put(vec![(commit.segment.key(&chunk.spec), segment)]).await.remove(0).unwrap();
        apply(ports, write).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == suffix) {
            found.push(path);
        }
    }
    found
}

/// The files as they are while the store is open are what `kill -9` leaves behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_acknowledged_is_there_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let ports = open(directory.path());
    let id = fill(&ports).await;
    let image = tempfile::tempdir().unwrap();
    copy(directory.path(), image.path());

    let after = open(image.path());
    let world = after.store().world().unwrap();
    assert_eq!(world.chunks.len(), CHUNKS as usize);
    assert_eq!(invariant::check_world(&world), []);
    assert_eq!(world.chunks.values().filter(|chunk| chunk.is_final()).count(), CHUNKS as usize / 2);
    assert!(world.jobs.contains_key(&id));
}

/// A journal cut at any byte opens with a prefix of what was written, whose every blob is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let id = {
        let ports = open(directory.path());
        fill(&ports).await
    };
    let journal =
        files(&directory.path().join("rows"), "jnl").into_iter().max().expect("fjall keeps its journal in *.jnl");
    let bytes = fs::metadata(&journal).unwrap().len();
    let written = {
        let content = fs::read(&journal).unwrap();
        content.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
    };
    let mut seen = Vec::new();
    for cut in [1, 2, 3, 5, 17, 100, 333, 1_000, 2_000, 4_000, 8_000, 12_000] {
        let image = tempfile::tempdir().unwrap();
        copy(directory.path(), image.path());
        let torn = image.path().join(journal.strip_prefix(directory.path()).unwrap());
        OpenOptions::new().write(true).open(&torn).unwrap().set_len(written.min(bytes) - cut).unwrap();
        let ports = open(image.path());
        let world = ports.store().world().unwrap();
        let broken: Vec<_> =
            invariant::check_world(&world).into_iter().filter(|violation| violation.number != 9).collect();
        assert_eq!(broken, [], "cut by {cut}");
        seen.push(world.chunks.len());
        // It goes on from there.
        let next = world.chunks.keys().next_back().map_or(0, |key| key.number + 1);
        if world.jobs.contains_key(&id) {
            fill_one(&ports, id, next).await;
            let again = ports.state().chunks(&[ChunkKey { job: id, number: next }]).await.unwrap();
            assert!(again[0].is_some());
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] >= pair[1]), "a longer cut loses more: {seen:?}");
    assert!(seen[0] >= CHUNKS as usize - 1 && seen[seen.len() - 1] < CHUNKS as usize, "{seen:?}");
}

/// Bytes behind the last blob of a volume, whatever they are, are never looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_behind_the_last_blob_does_no_harm() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    drop({
        let ports = open(directory.path());
        fill(&ports).await;
        ports
    });
    for volume in files(directory.path(), "vol") {
        OpenOptions::new().append(true).open(volume).unwrap().write_all(&[0xff; 12_345]).unwrap();
    }
    let ports = open(directory.path());
    fill(&ports).await;
    assert_eq!(invariant::check_world(&ports.store().world().unwrap()), []);
}

/// A job that is removed gives its space back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_blobs_free_their_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let id = fill(&open(directory.path())).await;
    let before = files(directory.path(), "vol");
    let ports = open(directory.path());
    let job = ports.state().job(id).await.unwrap().unwrap();
    sheaf_protocol::sweep::remove(&ports, &job).await.unwrap();
    assert!(!before.is_empty() && files(directory.path(), "vol").is_empty());
    assert!(ports.store().world().unwrap().chunks.is_empty());
}
