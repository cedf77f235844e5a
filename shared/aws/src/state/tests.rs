//! Items and transitions against `Chunk::apply`, the latter on a DynamoDB of other hands.

use std::{collections::BTreeMap, future::pending, net::SocketAddr};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use proptest::{prelude::*, strategy::ValueTree};
use sheaf_conformance::fixture::{job_id, spec};
use sheaf_core::{
    Attempt, CheckpointRef, ChunkEvent, ChunkSpec, Commit, Digest, EndReason, Evidence, Mark, Marks, Owner, Refused,
    ReleaseReason, SegmentRef, Tally, limits,
};

use super::{update::Update, *};
use crate::schema;

const TASKS: u32 = 12;
const DEADLINE_MS: u64 = 200_000;

/// Seven bytes that choose an event, mostly one that makes sense.
type Choice = [u8; 7];

fn owner(choice: u8) -> Owner {
    let worker = if choice.is_multiple_of(2) { "wrk_a" } else { "wrk_b" };
    Owner { worker: worker.parse().expect("a worker id"), nonce: [0, 1, u64::MAX][choice as usize % 3] }
}

/// A commit of the tasks whose bits are set.
fn commit(attempt: &Attempt, tasks: u32) -> Commit {
    let mut marks = Marks::open(TASKS);
    let chosen = (0..TASKS).filter(|task| tasks >> task & 1 == 1);
    chosen.for_each(|task| marks.set(task, if task % 3 == 0 { Mark::Failed } else { Mark::Succeeded }));
    let segment = SegmentRef {
        epoch: attempt.epoch,
        nonce: attempt.owner.nonce,
        number: tasks,
        digest: Digest::of(&tasks.to_le_bytes()),
        bytes: 1,
        tasks: 1,
        run_us: 0,
        run_us_max: 0,
        has_logs: false,
    };
    Commit { marks, segment }
}

/// A checkpoint of one task; of none for half of the choices.
fn checkpoints(attempt: &Attempt, choice: u8) -> BTreeMap<u32, CheckpointRef> {
    let (epoch, nonce) = (attempt.epoch, attempt.owner.nonce);
    let digest = Digest::of(&[choice]);
    let of =
        CheckpointRef { epoch, nonce, number: choice.into(), digest, bytes: 1, at_ms: 1_000, run_ms: choice.into() };
    (choice < 128).then_some((u32::from(choice) % (TASKS + 1), of)).into_iter().collect()
}

/// An event on a chunk as it is. One choice in eight names something else than what is so, or no longer so.
fn event(
    spec: &ChunkSpec,
    current: Option<&Chunk>,
    earlier_until_ms: u64,
    [kind, off, a, b, c, d, e]: Choice,
) -> ChunkEvent {
    let is_off = |bit: u8| off >> 5 == bit;
    let lease = current.and_then(Chunk::lease);
    let attempt = match lease {
        Some(lease) if !is_off(1) => lease.attempt.clone(),
        _ => Attempt { epoch: u32::from(b % 4), owner: owner(a) },
    };
    let rv = current.map_or(0, |chunk| chunk.rv) + u64::from(is_off(2));
    let now_ms = u64::from(c) * 1_000;
    let until_ms = now_ms + u64::from(d) * 200;
    let tallies = vec![(u32::from(e) % (TASKS + 1), Tally { attempts: e.into(), strikes: 1 })];
    let open = current.map_or(1, |chunk| chunk.work.marks.open_tasks().fold(0, |tasks, task| tasks | 1 << task));
    let some = if is_off(3) { 1 << (e % 8) } else { open & 1 << (u32::from(e) % TASKS) };
    match kind % 16 {
        0 => {
            let task_first = u64::from(is_off(3));
            ChunkEvent::Submit { spec: Box::new(ChunkSpec { task_first, ..spec.clone() }) }
        }
        1 | 2 | 15 => ChunkEvent::Claim { owner: owner(a), now_ms, until_ms },
        3 => ChunkEvent::TakeOver {
            owner: owner(a),
            seen: attempt,
            seen_until_ms: lease.filter(|_| !is_off(4)).map_or(earlier_until_ms, |lease| lease.until_ms),
            evidence: if b.is_multiple_of(2) { Evidence::LeaseOver } else { Evidence::OwnerGone },
            now_ms,
            until_ms,
        },
        4..=6 => ChunkEvent::Heartbeat { attempt, until_ms },
        7..=9 => ChunkEvent::Segment {
            commit: (kind % 16 > 7).then(|| commit(&attempt, some)),
            checkpoints: checkpoints(&attempt, e),
            attempt,
            rv,
            tallies,
            until_ms,
        },
        10 => ChunkEvent::Mark { attempt, rv, task: u32::from(e) % (TASKS + 1) },
        11 => ChunkEvent::Release {
            commit: b.is_multiple_of(2).then(|| commit(&attempt, some)),
            checkpoints: checkpoints(&attempt, e),
            attempt,
            rv,
            tallies,
            now_ms,
            not_before_ms: until_ms,
            reason: ReleaseReason::BackOff,
        },
        12 if a < 128 => {
            let reason = if b.is_multiple_of(2) { EndReason::Cancelled } else { EndReason::Expired };
            ChunkEvent::End { reason, now_ms }
        }
        14 => ChunkEvent::Finish { commit: Some(commit(&attempt, open)), attempt, rv, now_ms },
        _ => {
            let seen_due_ms = current.map_or(0, |chunk| chunk.due_ms) + u64::from(is_off(5));
            ChunkEvent::Touch { seen_due_ms, due_ms: until_ms }
        }
    }
}

fn specs(has_deadline: bool) -> Vec<ChunkSpec> {
    let job = job_id();
    let deadline_ms = has_deadline.then_some(DEADLINE_MS);
    (0..2).map(|number| ChunkSpec { deadline_ms, submitted_at_ms: 1_000, ..spec(job, number, TASKS) }).collect()
}

/// A state store over a DynamoDB in this process.
async fn config() -> SdkConfig {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let table = dynoxide::Database::memory().unwrap();
    tokio::spawn(dynoxide::server::serve_with_shutdown(listener, table, pending()));
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::for_tests())
        .endpoint_url(format!("http://{address}"));
    config.load().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_chunk_comes_back_as_it_was_stored(choices in prop::collection::vec(any::<Choice>(), 1..60), deadline: bool) {
        let spec = &specs(deadline)[0];
        let mut current = None;
        for choice in choices {
            if let Ok(after) = Chunk::apply(current.as_ref(), &event(spec, current.as_ref(), 0, choice)) {
                let mut stored = item::key("C", "0");
                stored.extend(item::attributes(&after).into_iter().map(|(name, value)| (name.to_owned(), value)));
                prop_assert_eq!(&item::chunk(&stored).unwrap(), &after);
                stored.remove(schema::chunk::REVISION);
                prop_assert!(item::chunk(&stored).is_err());
                current = Some(after);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Two processes write the same chunks, each knowing what it saw last. Whatever they try, the table does what
    /// [`Chunk::apply`] says of the chunk as it is, and answers with it.
    #[test]
    fn a_write_happens_exactly_when_it_applies(
        choices in prop::collection::vec((0..2_usize, 0..2_usize, any::<Choice>()), 1..100),
        deadline: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let config = config().await;
            schema::create_table(&config, "sheaf").await.unwrap();
            let processes = [AwsState::new(&config, "sheaf"), AwsState::new(&config, "sheaf")];
            let specs = specs(deadline);
            let mut model: BTreeMap<ChunkKey, Chunk> = BTreeMap::new();
            let mut earlier: BTreeMap<ChunkKey, u64> = BTreeMap::new();
            for (process, chunk, choice) in choices {
                let spec = &specs[chunk];
                let current = model.get(&spec.key);
                let event = event(spec, current, earlier.get(&spec.key).copied().unwrap_or_default(), choice);
                let wanted = Chunk::apply(current, &event)
                    .map_err(|reason| WriteError::Refused { reason, current: current.cloned().map(Box::new) });
                let mut answers = processes[process].apply(vec![Write { key: spec.key, event: event.clone() }]).await;
                prop_assert_eq!(answers.remove(0), wanted.clone(), "{:?} on {:?}", event, current);
                if let Ok(after) = wanted {
                    if let Some(lease) = current.and_then(Chunk::lease)
                        && after.lease().is_some_and(|new| new.until_ms != lease.until_ms)
                    {
                        earlier.insert(spec.key, lease.until_ms);
                    }
                    model.insert(spec.key, after);
                }
            }
            let open = model.values().filter_map(|chunk| Some((chunk.due()?, chunk.spec.key)));
            let mut due: Vec<(Due, ChunkKey)> = open.collect();
            due.sort_unstable();
            prop_assert_eq!(processes[0].due(None, u64::MAX, 10).await.unwrap(), due);
            Ok(())
        })?;
    }
}

/// The choices above make every transition happen, and often enough for the store to be tried with it.
#[test]
fn choices_take_every_transition() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let runs = prop::collection::vec(any::<Choice>(), 60);
    let mut taken: BTreeMap<&'static str, usize> = BTreeMap::new();
    for _ in 0..100 {
        let choices = runs.new_tree(&mut runner).expect("choices").current();
        let (spec, mut current) = (&specs(true)[0], None);
        for choice in choices {
            let event = event(spec, current.as_ref(), 0, choice);
            if let Ok(after) = Chunk::apply(current.as_ref(), &event) {
                *taken.entry(event.transition()).or_default() += 1;
                current = Some(after);
            }
        }
    }
    assert_eq!(taken.len(), 10, "{taken:?}");
    assert!(taken.values().all(|count| *count >= 25), "{taken:?}");
}

#[test]
fn a_claim_is_stated_without_knowing_the_chunk() {
    let spec = &specs(false)[0];
    let claim = ChunkEvent::Claim { owner: owner(0), now_ms: 10, until_ms: 20 };
    let stated = |moves_due| transition::unseen(spec.key, &claim, moves_due).expect("a claim needs no read");
    let expressions =
        |update: &Update| (update.expression().expect("a change"), update.condition().expect("a condition"));
    let (set, condition) = expressions(&stated(false));
    assert_eq!(
        set, "SET #st = :v2, #ow = :v3, #no = :v4, #si = :v5, #lu = :v6 REMOVE #nb ADD #ep :v7, #rv :v8",
        "the due time stays, and with it its index entry"
    );
    assert_eq!(
        condition,
        "#dr >= :v0 AND #dr <= :v1 AND #st = :v9 AND #nb <= :v10 AND (attribute_not_exists(#dl) OR #dl >= :v11)"
    );
    let (set, condition) = expressions(&stated(true));
    assert!(set.starts_with("SET #dr = :v0, #st"), "{set}");
    assert!(condition.starts_with("(#dr < :v1 OR #dr > :v2) AND #st"), "{condition}");
    for (moves_due, deadline_ms) in [(false, limits::HINT_AGE_MS), (true, 0)] {
        let (names, values) = stated(moves_due).into_placeholders();
        assert_eq!(names["#dl"], "dl");
        let last = format!(":v{}", values.len() - 1);
        assert_eq!(values[&last], item::number(20 + limits::CLOCK_MARGIN_MS + deadline_ms));
    }
}

#[test]
fn a_commit_is_fenced_by_epoch_owner_and_revision() {
    let spec = &specs(false)[0];
    let queued = Chunk::apply(None, &ChunkEvent::Submit { spec: Box::new(spec.clone()) }).unwrap();
    let claim = ChunkEvent::Claim { owner: owner(0), now_ms: 10, until_ms: 20 };
    let held = Chunk::apply(Some(&queued), &claim).unwrap();
    let attempt = held.lease().expect("it is held").attempt.clone();
    let commit = commit(&attempt, 1);
    let (tallies, checkpoints) = Default::default();
    let (rv, commit) = (held.rv, Some(commit));
    let event = ChunkEvent::Segment { attempt, rv, commit, tallies, checkpoints, until_ms: 30 };
    let after = Chunk::apply(Some(&held), &event).unwrap();
    let update = transition::seen(&held, &event, &after).expect("it changes something");
    assert_eq!(update.expression().expect("so"), "SET #lu = :v0, #rv = :v1, #work = :v2");
    assert_eq!(
        update.condition().expect("it is conditional"),
        "#rv = :v3 AND #st = :v4 AND #ep = :v5 AND #ow = :v6 AND #no = :v7 AND #lu <= :v8"
    );
}

#[test]
fn a_release_sets_the_due_time_though_it_was_the_same() {
    let spec = &specs(false)[0];
    let queued = Chunk::apply(None, &ChunkEvent::Submit { spec: Box::new(spec.clone()) }).unwrap();
    let claim = ChunkEvent::Claim { owner: owner(0), now_ms: 10, until_ms: 20 };
    let mut held = Chunk::apply(Some(&queued), &claim).unwrap();
    let attempt = held.lease().expect("it is held").attempt.clone();
    let (commit, tallies, checkpoints) = Default::default();
    let (rv, reason, now_ms, not_before_ms) = (held.rv, ReleaseReason::Drain, 11, 0);
    let event = ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason };
    held.due_ms = Chunk::apply(Some(&held), &event).unwrap().due_ms;
    let after = Chunk::apply(Some(&held), &event).unwrap();
    let update = transition::seen(&held, &event, &after).expect("it changes something");
    let expression = update.expression().expect("so");
    assert!(expression.contains("#dr = "), "the sweeper may have touched it meanwhile: {expression}");
}

/// A worker that saw the lease before its owner renewed it does not take over, whatever it remembers.
#[tokio::test]
async fn a_renewed_lease_is_not_taken_over() {
    let config = config().await;
    schema::create_table(&config, "sheaf").await.unwrap();
    let [mine, theirs] = [AwsState::new(&config, "sheaf"), AwsState::new(&config, "sheaf")];
    let spec = &specs(false)[0];
    let apply = async |process: &AwsState, event| process.apply(vec![Write { key: spec.key, event }]).await.remove(0);
    apply(&theirs, ChunkEvent::Submit { spec: Box::new(spec.clone()) }).await.unwrap();
    let claim = ChunkEvent::Claim { owner: owner(0), now_ms: 10, until_ms: 20 };
    let held = apply(&theirs, claim).await.unwrap();
    let seen = mine.chunks(&[spec.key]).await.unwrap().remove(0);
    assert_eq!(seen.as_ref(), Some(&held));
    let attempt = held.lease().expect("it is held").attempt.clone();
    let renewed = apply(&theirs, ChunkEvent::Heartbeat { attempt: attempt.clone(), until_ms: 9_000 }).await.unwrap();
    let take_over = |seen_until_ms| ChunkEvent::TakeOver {
        owner: owner(1),
        seen: attempt.clone(),
        seen_until_ms,
        evidence: Evidence::LeaseOver,
        now_ms: 60_000,
        until_ms: 90_000,
    };
    let refused = apply(&mine, take_over(20)).await;
    assert_eq!(refused, Err(WriteError::Refused { reason: Refused::Stale, current: Some(Box::new(renewed)) }));
    assert!(apply(&mine, take_over(9_000)).await.is_ok());
}

/// The size of an item, as DynamoDB counts it: names and values, a byte more per two digits of a number.
fn item_bytes(item: &item::Item) -> usize {
    let value = |value: &aws_sdk_dynamodb::types::AttributeValue| match value {
        aws_sdk_dynamodb::types::AttributeValue::S(text) => text.len(),
        aws_sdk_dynamodb::types::AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        aws_sdk_dynamodb::types::AttributeValue::B(bytes) => bytes.as_ref().len(),
        other => panic!("{other:?} is in no chunk"),
    };
    item.iter().map(|(name, of)| name.len() + value(of)).sum()
}

#[test]
fn a_full_chunk_is_one_write_unit() {
    let key = ChunkKey { job: job_id(), number: 999_999 };
    let submitted_at_ms = 1_800_000_000_000;
    let spec = ChunkSpec { submitted_at_ms, tasks: limits::CHUNK_TASKS_MAX, ..spec(key.job, key.number, 1) };
    let worker = WorkerId::from_uuid(uuid::Uuid::from_u128(u128::MAX));
    let owner = Owner { worker, nonce: u64::MAX };
    let mut chunk = Chunk::apply(None, &ChunkEvent::Submit { spec: Box::new(spec) }).unwrap();
    let claim = ChunkEvent::Claim { owner, now_ms: submitted_at_ms, until_ms: submitted_at_ms + limits::LEASE_MS };
    chunk = Chunk::apply(Some(&chunk), &claim).unwrap();
    let attempt = chunk.lease().expect("it is held").attempt.clone();
    let mut marks = Marks::open(limits::CHUNK_TASKS_MAX);
    (0..limits::CHUNK_TASKS_MAX).for_each(|task| marks.set(task, Mark::Succeeded));
    let mut commit = commit(&attempt, 0);
    commit.marks = marks;
    let finish = ChunkEvent::Finish { attempt, rv: chunk.rv, commit: Some(commit), now_ms: submitted_at_ms };
    chunk = Chunk::apply(Some(&chunk), &finish).unwrap();
    let (pk, sk) = schema::chunk_key(key);
    let mut item = item::key(pk, sk);
    item.extend(item::attributes(&chunk).into_iter().map(|(name, value)| (name.to_owned(), value)));
    let bytes = item_bytes(&item);
    assert!(bytes <= 1_024, "{bytes} bytes");
    println!("a finished chunk of 1,024 tasks has {bytes} bytes");
}
