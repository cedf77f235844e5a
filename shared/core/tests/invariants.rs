//! Each invariant is seen to be broken by a write or a world that breaks it, and by nothing else.

mod fixture;

use fixture::{Path, attempt, claim, commit, digest, end, marks, owner, segment, spec};
use sheaf_core::{
    Chunk, ChunkKey, ChunkState, EndReason, Job, JobId, JobOptions, JobState, Mark, Marks, Seal, Summary, TenantId,
    Totals,
    invariant::{World, check_world, check_write},
};

/// Held by `me`, with one task of four succeeded and a checkpoint of the last.
fn held() -> Chunk {
    Path::submitted(spec(4, None)).then(|_| claim("me", 1)).commits("s...").checkpoints([3], 2).0
}

fn done() -> Chunk {
    Path(held()).commits(".sff").finished(9).0
}

type Break = fn(&mut Chunk);

#[test]
fn every_broken_write_is_seen() {
    let next: fn(&Chunk) -> Chunk = |before| {
        let lease = before.lease().expect("it is held");
        let commit = commit(&lease.attempt, 1, marks(".s.."));
        Chunk::apply(Some(before), &segment(&lease.attempt, before.rv, commit, 0)).expect("its owner commits")
    };
    let breaks: [(&str, Break); 22] = [
        ("marks of more tasks", |after| after.work.marks = Marks::open(5)),
        ("an outcome in no segment", |after| after.work.marks.set(2, Mark::Failed)),
        ("a segment without its outcomes", |after| after.work.segments[1].tasks = 2),
        ("a segment gone", |after| after.work.segments = after.work.segments.split_off(1)),
        ("a segment twice", |after| after.work.segments[1].number = 0),
        ("a segment of another nonce", |after| after.work.segments[1].nonce = owner("ben").nonce),
        ("a segment of an earlier holder", |after| {
            after.work.segments.iter_mut().for_each(|segment| segment.nonce = 0)
        }),
        ("a segment of a later epoch", |after| after.work.segments[1].epoch = 2),
        ("an open task's checkpoint gone", |after| after.work.checkpoints.clear()),
        ("a checkpoint of a closed task", |after| {
            let checkpoint = after.work.checkpoints[&3].clone();
            after.work.checkpoints.insert(0, checkpoint);
        }),
        ("a checkpoint of no task", |after| {
            let checkpoint = after.work.checkpoints[&3].clone();
            after.work.checkpoints.insert(9, checkpoint);
        }),
        ("a checkpoint of another nonce", |after| {
            after.work.checkpoints.values_mut().for_each(|checkpoint| checkpoint.nonce = owner("ben").nonce);
        }),
        ("a checkpoint of an earlier epoch", |after| {
            after.work.checkpoints.values_mut().for_each(|checkpoint| checkpoint.epoch = 0);
        }),
        ("a checkpoint of a later epoch", |after| {
            after.work.checkpoints.values_mut().for_each(|checkpoint| checkpoint.epoch = 2);
        }),
        ("done with open tasks", |after| {
            let attempt = attempt(1, "me");
            after.state = ChunkState::Done { attempt, since_ms: 1, at_ms: 2 };
        }),
        ("an outcome changed", |after| after.work.marks.set(0, Mark::Failed)),
        ("an outcome moved", |after| {
            after.work.marks.set(0, Mark::Open);
            after.work.marks.set(2, Mark::Succeeded);
        }),
        ("the epoch back", |after| {
            after.epoch = 0;
            after.work.checkpoints.values_mut().for_each(|checkpoint| checkpoint.epoch = 0);
            after.work.segments.iter_mut().for_each(|segment| segment.epoch = 0);
        }),
        ("an epoch skipped", |after| after.epoch = 3),
        ("rv back", |after| after.rv = 1),
        ("rv skipped", |after| after.rv += 1),
        ("another pack", |after| after.spec.digest = digest("another pack")),
    ];
    let before = held();
    assert_eq!(check_write(Some(&before), &next(&before)), Ok(()));
    let told = breaks.map(|(name, broken)| {
        let mut after = next(&before);
        broken(&mut after);
        let violation = check_write(Some(&before), &after).expect_err(name);
        format!("{name:32} → {violation}")
    });
    let told = told.join("\n");
    insta::assert_snapshot!("writes", told);
}

#[test]
fn final_chunks_never_change() {
    let finals = [done(), Path(held()).then(|_| end(EndReason::Cancelled, 9)).0];
    for before in finals {
        assert_eq!(check_write(Some(&before), &before), Ok(()));
        let mut after = before.clone();
        after.state = ChunkState::Queued { not_before_ms: 0 };
        let violation = check_write(Some(&before), &after).expect_err("a final chunk is back in the queue");
        assert_eq!((violation.number, violation.promise), (2, "final states never change"));
        let mut after = before.clone();
        after.due_ms += 1;
        assert_eq!(check_write(Some(&before), &after).expect_err("a final chunk was touched").number, 2);
    }
}

#[test]
fn a_chunk_that_nobody_holds_gets_no_results() {
    let before = Path(held()).released(2, 0).0;
    let mut after = before.clone();
    after.rv += 1;
    after.work.marks.set(1, Mark::Failed);
    after.work.segments.push(commit(&attempt(1, "me"), 1, marks(".f..")).segment);
    let violation = check_write(Some(&before), &after).expect_err("a zombie has committed");
    assert_eq!((violation.number, violation.promise), (5, "one attempt at most can commit"));
}

/// A job of two chunks that is done (the second one expired), and one that is open with a chunk that is held.
fn world() -> World {
    let mut world = World::default();
    let seal = Seal { chunks: 2, tasks: 8 };
    for (id, state) in [(DONE, JobState::Done { seal, at_ms: 9 }), (OPEN, JobState::Open)] {
        let options = JobOptions::new(vec!["square@0123456789ab".parse().expect("a function version")]);
        let (tenant, options_digest) = (TenantId::default(), digest("options"));
        world.jobs.insert(id, Job { id, tenant, options, options_digest, origin: None, created_at_ms: 0, state });
    }
    let late = Path::submitted(spec(4, Some(9))).then(|_| claim("me", 1)).commits("s...");
    put(&mut world, ChunkKey { job: DONE, number: 0 }, done());
    put(&mut world, ChunkKey { job: DONE, number: 1 }, late.then(|_| end(EndReason::Expired, 9)).0);
    put(&mut world, ChunkKey { job: OPEN, number: 0 }, held());
    world
}

const DONE: JobId = JobId::from_bytes([1; 16]);
const OPEN: JobId = JobId::from_bytes([2; 16]);

/// Puts a chunk under a key, with the blobs it names and its part of the summary.
fn put(world: &mut World, key: ChunkKey, mut chunk: Chunk) {
    chunk.spec.key = key;
    world.blobs.insert(chunk.spec.pack_key(), chunk.spec.digest);
    world.blobs.extend(chunk.work.segments.iter().map(|segment| (segment.key(&chunk.spec), segment.digest)));
    let checkpoints = chunk.work.checkpoints.iter();
    world.blobs.extend(checkpoints.map(|(&task, checkpoint)| (checkpoint.key(&chunk.spec, task), checkpoint.digest)));
    let summary = world.summaries.entry(key.job).or_default();
    summary.chunks_submitted += 1;
    summary.tasks_submitted += u64::from(chunk.spec.tasks);
    if chunk.is_final() {
        summary.chunks_ended += 1;
        summary.totals += Totals::from(chunk.totals());
    }
    world.chunks.insert(key, chunk);
}

fn chunk(world: &mut World, job: JobId, number: u32) -> &mut Chunk {
    world.chunks.get_mut(&ChunkKey { job, number }).expect("a chunk of the world")
}

fn summary(world: &mut World, job: JobId) -> &mut Summary {
    world.summaries.get_mut(&job).expect("a summary of the world")
}

#[test]
fn every_broken_world_is_seen() {
    type Break = fn(&mut World);
    let breaks: [(&str, Break); 19] = [
        ("a pack is gone", |world| world.blobs.retain(|key, _| !(key.starts_with("p/") && key.ends_with("/1")))),
        ("a pack is another", |world| {
            world.blobs.values_mut().take(1).for_each(|digest| *digest = fixture::digest("other"))
        }),
        ("a segment is gone", |world| world.blobs.retain(|key, _| !key.ends_with("/0/1-0000000000006d65-1"))),
        ("a segment is another", |world| {
            world.blobs.insert(segment_of_open(), digest("other"));
        }),
        ("a checkpoint is gone", |world| world.blobs.retain(|key, _| !key.starts_with("k/"))),
        ("a checkpoint is another", |world| {
            let held = chunk(world, OPEN, 0).clone();
            world.blobs.insert(held.work.checkpoints[&3].key(&held.spec, 3), digest("other"));
        }),
        ("a chunk has lost a segment", |world| chunk(world, OPEN, 0).work.segments.clear()),
        ("a chunk lies elsewhere", |world| chunk(world, OPEN, 0).spec.key.number = 5),
        ("a chunk is of another tenant", |world| {
            let mut chunk = world.chunks.remove(&ChunkKey { job: OPEN, number: 0 }).expect("it is there");
            chunk.spec.tenant = "acme".parse().expect("a tenant");
            world.summaries.remove(&OPEN);
            put(world, chunk.spec.key, chunk);
        }),
        ("done, but a chunk is gone", |world| drop(world.chunks.remove(&ChunkKey { job: DONE, number: 1 }))),
        ("done, but a chunk is held", |world| {
            chunk(world, DONE, 1).state = held().state;
        }),
        ("done, but chunks are numbered wrongly", |world| {
            let second = world.chunks.remove(&ChunkKey { job: DONE, number: 1 }).expect("it is there");
            *summary(world, DONE) = Summary::default();
            let first = chunk(world, DONE, 0).clone();
            put(world, first.spec.key, first);
            put(world, ChunkKey { job: DONE, number: 7 }, second);
        }),
        ("done, with a chunk too many", |world| put(world, ChunkKey { job: DONE, number: 2 }, done())),
        ("done, with fewer tasks than sealed", |world| {
            let seal = Seal { chunks: 2, tasks: 9 };
            world.jobs.get_mut(&DONE).expect("it is there").state = JobState::Done { seal, at_ms: 9 };
        }),
        ("done, without a summary", |world| world.summaries.retain(|job, _| *job != DONE)),
        ("a summary counts an outcome as another", |world| {
            let totals = &mut summary(world, DONE).totals;
            (totals.succeeded, totals.failed) = (totals.succeeded - 1, totals.failed + 1);
        }),
        ("a summary knows of chunks that are not there", |world| summary(world, OPEN).chunks_submitted += 1),
        ("a summary knows of ends that are not there", |world| summary(world, OPEN).chunks_ended += 1),
        ("a summary knows of outcomes not yet final", |world| summary(world, OPEN).totals.succeeded += 1),
    ];
    assert_eq!(check_world(&world()), []);
    let told = breaks.map(|(name, broken)| {
        let mut world = world();
        broken(&mut world);
        let violations = check_world(&world);
        assert!(!violations.is_empty(), "{name} is not seen");
        violations.iter().fold(format!("{name}\n"), |text, violation| format!("{text}  → {violation}\n"))
    });
    let told = told.concat();
    insta::assert_snapshot!("worlds", told);
}

fn segment_of_open() -> String {
    let held = world().chunks.remove(&ChunkKey { job: OPEN, number: 0 }).expect("it is there");
    held.work.segments[0].key(&held.spec)
}

#[test]
fn a_summary_may_lag_behind() {
    let mut world = world();
    put(&mut world, ChunkKey { job: OPEN, number: 1 }, done());
    world.summaries.remove(&OPEN);
    assert_eq!(check_world(&world), []);
}
