//! What goes wrong between a worker and its grid.

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sheaf_api::{ApiError, Code};
use sheaf_conformance::fixture;
use sheaf_core::{ChunkEvent, ChunkState, Evidence, Lane, Owner, Refused, ReleaseReason, WorkerId, limits};
use sheaf_http::Token;
use sheaf_local::SystemClock;
use sheaf_protocol::{BlobStore, ChunkQueue, Clock, Hint, Ports, StateStore, StoreError, Write, WriteError};
use sheaf_remote::{CALL_BYTES_MAX, RemotePorts};

use support::{Served, at};

async fn raw(served: &Served, call: &str, token: &str, body: Vec<u8>) -> (u16, ApiError) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("{}/v1/ports/{call}", served.url)).bearer_auth(token).body(body);
    let answer = request.send().await.expect("it is answered");
    let status = answer.status().as_u16();
    let body = answer.bytes().await.expect("it is whole");
    (status, serde_json::from_slice(&body).expect("an error as JSON"))
}

fn hint(spec: &sheaf_core::ChunkSpec) -> Hint {
    Hint {
        key: spec.key,
        tenant: spec.tenant.clone(),
        lane: spec.lane,
        priority: spec.priority,
        pack: None,
        hedge: false,
    }
}

#[tokio::test]
async fn strangers_are_refused_before_their_request_is_read() {
    let served = Served::start().await;
    let error = RemotePorts::join(at(&served.url, &Token::random())).await.expect_err("a wrong token");
    assert_eq!(error.code, Code::Unauthorized);
    let (status, error) = raw(&served, "receive", "", vec![1; 100]).await;
    assert_eq!((status, error.code), (401, Code::Unauthorized));
}

#[tokio::test]
async fn what_is_too_large_or_makes_no_sense_is_named() {
    let served = Served::start().await;
    let token = served.token.expose();
    let (status, error) = raw(&served, "apply", &token, vec![1; CALL_BYTES_MAX + 1]).await;
    assert_eq!((status, error.code), (413, Code::TooLarge));
    let (status, error) = raw(&served, "apply", &token, vec![1, 0xff, 0xff, 0xff, 0xff, 0xff]).await;
    assert_eq!((status, error.code), (400, Code::Invalid));
    assert!(error.message.contains("a body of apply cannot be read"), "{error:?}");
    let (status, error) = raw(&served, "create_job", &token, Vec::new()).await;
    assert_eq!((status, error.code), (404, Code::NotFound));
    // As much as a result may be goes through; what is more is not even sent.
    let worker = served.join().await;
    let blob = ("r/default/job/0/1-a-0".to_owned(), Bytes::from(vec![7; limits::TASK_BYTES_MAX]));
    assert!(worker.blobs().put(vec![blob]).await.pop().expect("one answer").is_ok());
}

#[tokio::test]
async fn a_worker_may_do_what_workers_do() {
    let served = Served::start().await;
    let worker = served.join().await;
    let spec = fixture::spec(fixture::job_id(), 0, 1);
    let answer = fixture::apply(&worker, fixture::submit(&spec)).await;
    assert!(
        matches!(&answer, Err(WriteError::Store(StoreError::Stopped { detail })) if detail.contains("no worker's"))
    );
    fixture::apply(&served.ports, fixture::submit(&spec)).await.expect("the grid may");
    let held = fixture::apply(&worker, fixture::claim(spec.key, 1)).await.expect("claimed");
    let lease = held.lease().expect("it is held").clone();

    // In memory, no process can have had the store before: of a worker that is not its own the grid says that it is gone.
    let refused = fixture::apply(&worker, fixture::claim(spec.key, 2)).await;
    assert!(matches!(refused, Err(WriteError::Refused { reason: Refused::Held, .. })), "{refused:?}");
    assert!(worker.state().owner_is_gone(&lease.attempt.owner), "and it passes that on");
    let remote = Owner { worker: WorkerId::remote_from_uuid(Default::default()), nonce: 3 };
    let take_over = |owner: Owner, seen: sheaf_core::Attempt, seen_until_ms| Write {
        key: spec.key,
        event: ChunkEvent::TakeOver {
            owner,
            seen,
            seen_until_ms,
            evidence: Evidence::OwnerGone,
            now_ms: fixture::NOW_MS,
            until_ms: fixture::NOW_MS + 1,
        },
    };
    let write = take_over(remote.clone(), lease.attempt, lease.until_ms);
    let taken = fixture::apply(&worker, write).await.expect("taken over");
    // Of a remote one nobody knows, whatever another claims.
    let lease = taken.lease().expect("it is held").clone();
    assert!(!served.ports.state().owner_is_gone(&remote));
    let refused = fixture::apply(&worker, take_over(remote, lease.attempt, lease.until_ms)).await;
    assert!(matches!(&refused, Err(WriteError::Store(StoreError::Stopped { detail })) if detail.contains("is gone")));
}

#[tokio::test]
async fn a_refusal_comes_through_unchanged_and_shows_ones_own_write() {
    let served = Served::start().await;
    let worker = served.join().await;
    let spec = fixture::spec(fixture::job_id(), 0, 1);
    fixture::apply(&served.ports, fixture::submit(&spec)).await.expect("submitted");
    let claim = fixture::claim(spec.key, 1);
    let claimed = fixture::apply(&worker, claim.clone()).await.expect("claimed");
    let (near, far) =
        (fixture::apply(&served.ports, claim.clone()).await, fixture::apply(&worker, claim.clone()).await);
    assert_eq!(near, far);
    let Err(WriteError::Refused { current: Some(current), .. }) = far else { panic!("refused: {far:?}") };
    assert!(claim.event.landed_in(&current) && *current == claimed, "as after a lost answer");
}

/// The worker that got the hint has died before it claimed, or after; or the answer was lost.
#[tokio::test]
async fn a_hint_that_nobody_acts_on_is_handed_out_again() {
    let served = Served::start().await;
    let worker = served.join().await;
    let specs = [0, 1, 2, 3].map(|number| fixture::spec(fixture::job_id(), number, 1));
    for spec in &specs {
        fixture::apply(&served.ports, fixture::submit(spec)).await.expect("submitted");
    }
    served.ports.queue().send(specs.iter().map(hint).collect(), 0).await;
    let mut received = worker.queue().receive(&[Lane::default()], 10, 0).await.expect("received");
    assert_eq!(received.len(), 4);
    received.sort_by_key(|delivery| delivery.hint.key.number);
    let now_ms = SystemClock.now_ms();
    let claim = |number: usize, until_ms: u64| {
        let mut write = fixture::claim(specs[number].key, 1);
        if let ChunkEvent::Claim { until_ms: until, .. } = &mut write.event {
            *until = until_ms;
        }
        write
    };
    // One is held for long, one was held for a moment, one is given up as over, and one is not claimed at all.
    fixture::apply(&worker, claim(0, now_ms + 600_000)).await.expect("claimed");
    fixture::apply(&worker, claim(3, now_ms)).await.expect("claimed");
    worker.queue().delete(received.swap_remove(1)).await;
    let started = Instant::now();
    let mut again = BTreeSet::new();
    while again.len() < 2 {
        let received = worker.queue().receive(&[Lane::default()], 10, 200).await.expect("received");
        again.extend(received.iter().map(|delivery| delivery.hint.key.number));
        assert!(started.elapsed() < Duration::from_secs(60), "only {again:?} were handed out again");
    }
    assert_eq!(again, BTreeSet::from([2, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_that_is_started_again_is_found_again() {
    let served = Served::start().await;
    let worker = served.join().await;
    let spec = fixture::spec(fixture::job_id(), 0, 1);
    fixture::apply(&served.ports, fixture::submit(&spec)).await.expect("submitted");
    let held = fixture::apply(&worker, fixture::claim(spec.key, 1)).await.expect("claimed");
    let (ports, token) = (served.ports.clone(), served.token.clone());
    let address = served.url.trim_start_matches("http://").parse().expect("an address");
    served.stop().await;
    let release = ChunkEvent::Release {
        attempt: held.lease().expect("it is held").attempt.clone(),
        rv: held.rv,
        commit: None,
        tallies: Vec::new(),
        checkpoints: Default::default(),
        now_ms: fixture::NOW_MS,
        not_before_ms: 0,
        reason: ReleaseReason::Drain,
    };
    let writing = tokio::spawn({
        let worker = worker.clone();
        async move {
            loop {
                match fixture::apply(&worker, Write { key: spec.key, event: release.clone() }).await {
                    // It was sent on a connection that the grid closed in the same moment. The steps ask again, too.
                    Err(WriteError::Store(StoreError::Unknown { .. })) => {}
                    told => return told,
                }
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _again = Served::at(ports, token, address).await;
    let released = writing.await.expect("it does not panic").expect("it arrives");
    assert!(matches!(released.state, ChunkState::Queued { .. }), "{released:?}");
}

/// A worker that waits for hints does not keep its grid from stopping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_a_long_poll_with_nothing() {
    let served = Served::start().await;
    let worker = served.join().await;
    let waiting = tokio::spawn(async move { worker.queue().receive(&[Lane::Spot], 10, 20_000).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    served.stop().await;
    assert!(started.elapsed() < Duration::from_secs(9), "it did not wait for the poll to end by itself");
    assert!(waiting.await.expect("it does not panic").expect("answered").is_empty());
}
