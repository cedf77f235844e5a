//! Each call, from the client over a socket to the API and back.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use sheaf_api::{
    Api, ApiError, Code, PackBuilder, Segment,
    wire::{ChunkAnswer, CreateJob, JobFilter, PutFunction, ReadResults, RetryJob, SubmitChunk},
};
use sheaf_core::{ChunkKey, ChunkSet, FunctionKind, JobId, JobState, Manifest, Origin, Seal, TaskId};

use crate::{
    fake::{task_view, worker_view},
    server::Server,
};

pub(crate) fn job_id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

pub(crate) fn chunk(number: u32, payloads: &[&str]) -> SubmitChunk {
    let mut pack = PackBuilder::new();
    for (index, payload) in payloads.iter().enumerate() {
        pack.push_task(payload.as_bytes(), 0, &format!("k{index}")).unwrap();
    }
    SubmitChunk { number, task_first: 10 * u64::from(number), pack: pack.finish(false) }
}

#[tokio::test]
async fn a_job_from_its_creation_to_its_results() {
    let server = Server::start().await;
    let remote = server.remote();
    let request = CreateJob { name: "näme & more".into(), ..CreateJob::new(job_id(1), vec!["echo".into()]) };
    let created = remote.create_job(request.clone()).await.unwrap();
    assert_eq!(created, remote.create_job(request).await.unwrap());
    let other = remote.create_job(CreateJob::new(job_id(1), vec!["other".into()])).await.unwrap_err();
    assert_eq!(other.code, Code::Conflict);

    let chunks = vec![chunk(0, &["1", "\"two\""]), chunk(1, &["\"fail\""])];
    let reply = remote.submit(job_id(1), chunks).await.unwrap();
    assert_eq!(reply.answers, [ChunkAnswer::Accepted, ChunkAnswer::Accepted]);
    let reply = remote.submit(job_id(1), vec![chunk(0, &["1", "\"two\""]), chunk(1, &["3"])]).await.unwrap();
    assert_eq!(reply.answers[0], ChunkAnswer::Exists);
    assert!(matches!(&reply.answers[1], ChunkAnswer::Refused { error } if error.code == Code::Conflict));

    let sealed = remote.seal(job_id(1), Seal { chunks: 2, tasks: 3 }).await.unwrap();
    assert!(matches!(sealed.job.state, JobState::Done { .. }));
    assert_eq!(remote.progress(job_id(1), Some(9), 5_000).await.unwrap(), sealed);

    let read = ReadResults { chunks_max: 1, with_packs: true, ..ReadResults::default() };
    let page = remote.results(job_id(1), read).await.unwrap();
    assert_eq!((page.job, page.chunks.len()), (sealed, 1));
    assert_eq!((page.chunks[0].head.number, page.chunks[0].head.tasks), (0, 2));
    assert_eq!(page.chunks[0].pack.as_ref().unwrap(), chunk(0, &["1", "\"two\""]).pack.bytes());
    let segment = Segment::parse(page.chunks[0].segments[0].clone()).unwrap();
    assert_eq!(segment.entry(1).answer, b"\"two\"");
    let read = ReadResults { have: ChunkSet::from_iter([0]), chunks_max: 9, ..ReadResults::default() };
    let page = remote.results(job_id(1), read).await.unwrap();
    assert_eq!(
        page.chunks.iter().map(|chunk| (chunk.head.number, chunk.pack.is_some())).collect::<Vec<_>>(),
        [(1, false)]
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_long_set_of_chunks_travels_in_a_body() {
    let server = Server::start().await;
    let remote = server.remote();
    remote.create_job(CreateJob::new(job_id(1), vec!["echo".into()])).await.unwrap();
    remote.submit(job_id(1), vec![chunk(40_000, &["1"]), chunk(40_001, &["2"])]).await.unwrap();
    let have: ChunkSet = (0..50_000).filter(|number| number % 2 == 0).collect();
    assert!(sheaf_api::stream::encode_chunk_set(&have).len() > 8_000);
    let page = remote.results(job_id(1), ReadResults { have, chunks_max: 9, ..ReadResults::default() }).await.unwrap();
    assert_eq!(page.chunks.iter().map(|chunk| chunk.head.number).collect::<Vec<_>>(), [40_001]);
    server.stopped().await;
}

#[tokio::test]
async fn the_other_calls() {
    let server = Server::start().await;
    let remote = server.remote();
    assert_eq!(remote.grid().await.unwrap(), server.fake.grid().await.unwrap());
    assert_eq!(remote.workers().await.unwrap().rows, [worker_view()]);
    for number in 1..=3 {
        let name = format!("job {number}");
        let request = CreateJob { name, ..CreateJob::new(job_id(number), vec!["echo".into()]) };
        remote.create_job(request).await.unwrap();
    }
    remote.seal(job_id(3), Seal { chunks: 0, tasks: 0 }).await.unwrap();
    let filter = JobFilter { alive: true, limit: 9, ..JobFilter::default() };
    let ids = |page: sheaf_api::wire::Page<sheaf_api::wire::JobView>| -> Vec<JobId> {
        page.rows.iter().map(|view| view.job.id).collect()
    };
    assert_eq!(ids(remote.jobs(filter.clone()).await.unwrap()), [job_id(2), job_id(1)]);
    let named = JobFilter { name: Some("job 1".into()), ..filter.clone() };
    assert_eq!(ids(remote.jobs(named).await.unwrap()), [job_id(1)]);
    let before = JobFilter { alive: false, before: Some(job_id(3)), limit: 1, ..filter };
    assert_eq!(ids(remote.jobs(before).await.unwrap()), [job_id(2)]);

    let task = TaskId { chunk: ChunkKey { job: job_id(1), number: 7 }, index: 8 };
    assert_eq!(remote.task(task).await.unwrap(), task_view(task));
    assert_eq!(remote.logs(task).await.unwrap(), Bytes::from_static(b"line\n\xff"));
    let events = remote.events(job_id(1), 4).await.unwrap();
    assert_eq!((events.rows[0].number, events.next.as_deref()), (4, Some("5")));

    assert!(matches!(remote.cancel(job_id(1)).await.unwrap().job.state, JobState::Cancelling { .. }));
    assert!(matches!(remote.cancel(job_id(1)).await.unwrap().job.state, JobState::Cancelled { .. }));
    assert_eq!(remote.cancel(job_id(3)).await.unwrap_err().code, Code::Over);
    let again = remote.retry(job_id(3), RetryJob { id: job_id(4) }).await.unwrap();
    assert_eq!(again.job.origin, Some(Origin::RetryOf { job: job_id(3) }));

    let kind = FunctionKind::Command { argv: vec!["true".into()] };
    let manifest = Manifest::new("my.function".parse().unwrap(), kind);
    let package = Some(Bytes::from_static(b"zip"));
    let function = remote.put_function(PutFunction { manifest: manifest.clone(), package }).await.unwrap();
    assert_eq!(function.manifest, manifest);
    assert_eq!(remote.function("my.function").await.unwrap(), function);
    assert_eq!(remote.functions().await.unwrap().rows, [function]);
    assert_eq!(remote.function("my.function@0123456789ab").await.unwrap_err().code, Code::NotFound);
    assert_eq!(remote.function("a/b").await.unwrap_err().code, Code::Invalid);
    server.stopped().await;
}

#[tokio::test]
async fn errors_arrive_whole() {
    let server = Server::start().await;
    let error = ApiError::new(Code::Stopped, "the disk is full").with_hint("free some").with_retry_after_ms(1_500);
    server.fake.errors.lock().unwrap().push(error.clone());
    assert_eq!(server.remote().grid().await.unwrap_err(), error);
    assert_eq!(server.remote().cancel(job_id(9)).await.unwrap_err().code, Code::NotFound);
    server.stopped().await;
}

#[tokio::test]
async fn what_may_help_is_sent_again() {
    let server = Server::start().await;
    let remote = server.remote();
    remote.create_job(CreateJob::new(job_id(1), vec!["echo".into()])).await.unwrap();
    let errors = [Code::Unknown, Code::Unavailable].map(|code| ApiError::new(code, "later").with_retry_after_ms(1));
    server.fake.errors.lock().unwrap().extend(errors);
    let reply = remote.submit(job_id(1), vec![chunk(0, &["1"])]).await.unwrap();
    assert_eq!(reply.answers, [ChunkAnswer::Exists], "the first had happened");
    assert_eq!(server.fake.submits.load(Ordering::SeqCst), 3);
    server.stopped().await;
}

#[tokio::test]
async fn an_error_says_whether_it_may_have_happened() {
    let server = Server::start().await;
    let remote = server.remote().with_retry_ms_max(400);
    let late = |code| ApiError::new(code, "not now").with_retry_after_ms(1);
    *server.fake.errors.lock().unwrap() = vec![late(Code::Throttled); 99];
    assert_eq!(remote.grid().await.unwrap_err().code, Code::Throttled);
    *server.fake.errors.lock().unwrap() = [vec![late(Code::Unknown)], vec![late(Code::Throttled); 99]].concat();
    assert_eq!(remote.grid().await.unwrap_err().code, Code::Unknown);
    // A pause beyond the budget is not worth waiting for.
    *server.fake.errors.lock().unwrap() = vec![late(Code::Throttled).with_retry_after_ms(60_000); 9];
    let before = tokio::time::Instant::now();
    assert_eq!(remote.grid().await.unwrap_err().code, Code::Throttled);
    assert!(before.elapsed().as_millis() < 400);
    assert_eq!(server.fake.errors.lock().unwrap().len(), 8, "tried once");
    server.stopped().await;
}

#[tokio::test]
async fn many_at_once() {
    let server = Server::start().await;
    let remote = Arc::new(server.remote());
    remote.create_job(CreateJob::new(job_id(1), vec!["echo".into()])).await.unwrap();
    let submits = (0..64).map(|number| {
        let remote = Arc::clone(&remote);
        tokio::spawn(async move { remote.submit(job_id(1), vec![chunk(number, &["1"; 100])]).await.unwrap().answers })
    });
    for submit in submits.collect::<Vec<_>>() {
        assert_eq!(submit.await.unwrap(), [ChunkAnswer::Accepted]);
    }
    assert_eq!(remote.progress(job_id(1), None, 0).await.unwrap().summary.totals.succeeded, 6_400);
    server.stopped().await;
}

#[test]
fn a_client_shows_no_secret_and_refuses_what_is_no_address() {
    let remote = sheaf::Remote::new("http://127.0.0.1:1", "sesame").unwrap();
    assert!(!format!("{remote:?}").contains("sesame"));
    for url in ["127.0.0.1:1", "ftp://127.0.0.1", "http://me:sesame@127.0.0.1", "", "file:///"] {
        let error = sheaf::Remote::new(url, "sesame").unwrap_err();
        assert_eq!(error.code, Code::Invalid, "{url}");
    }
    assert!(sheaf::Remote::new("http://127.0.0.1:1", "se\nsame").is_err());
}
