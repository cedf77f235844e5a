//! The stream's handler over an AWS on loopback: records are made of items as they are in the table.

use sheaf_aws::{
    AwsPorts, Settings,
    loopback::{fresh_account, ports, skipped},
    notify::loopback as uploads,
    stream::records,
};
use sheaf_conformance::fixture::{self, apply, claim, finish, submit};
use sheaf_core::{ChunkEvent, ChunkKey, EndReason, JobEvent, JobState, Origin, Seal};
use sheaf_protocol::Write;

use super::*;

/// A grid of its own, with the uploads that it was asked to collect.
struct Grid {
    ports: AwsPorts,
    stream: Stream<AwsPorts>,
    config: uploads::Config,
    settings: Settings,
}

async fn grid() -> Option<Grid> {
    let (config, settings) = match fresh_account().await {
        Ok(fresh) => fresh,
        Err(reason) => {
            skipped(reason);
            return None;
        }
    };
    let ports = ports(&config, &settings).await;
    let stream = Stream::new(ports.clone(), Notifier::over(&config, &settings.queues, None), "test");
    Some(Grid { ports, stream, config, settings })
}

/// Creates and seals a job.
async fn sealed(ports: &AwsPorts, chunks: u32, origin: Option<Origin>) -> Job {
    let job = Job { origin, ..fixture::job(fixture::job_id(), 1) };
    ports.state().create_job(job.clone()).await.expect("created");
    let seal = Seal { chunks, tasks: u64::from(chunks) * 2 };
    ports.state().apply_job(job.id, JobEvent::Seal { seal }).await.expect("sealed")
}

fn key(job: &Job, number: u32) -> ChunkKey {
    ChunkKey { job: job.id, number }
}

/// Submits a chunk of two tasks; the record of that.
async fn submitted(ports: &AwsPorts, job: &Job, number: u32) -> Value {
    let chunk = apply(ports, submit(&fixture::spec(job.id, number, 2))).await.expect("T1");
    records::of_chunk(&chunk, "INSERT", 100 + u64::from(number))
}

/// Finishes a chunk; the records of its claim and its end.
async fn finished(ports: &AwsPorts, job: &Job, number: u32) -> [Value; 2] {
    let claimed = apply(ports, claim(key(job, number), 1)).await.expect("T2");
    let done = apply(ports, finish(&claimed)).await.expect("T8");
    let stored = ports.state().chunks(&[done.spec.key]).await.expect("read")[0].clone().expect("it is there");
    assert_eq!(stored, done);
    [(&claimed, 200), (&stored, 300)].map(|(chunk, at)| records::of_chunk(chunk, "MODIFY", at + u64::from(number)))
}

fn event(records: impl IntoIterator<Item = Value>) -> Value {
    json!({"Records": records.into_iter().collect::<Vec<_>>()})
}

fn nothing_failed() -> Value {
    json!({"batchItemFailures": []})
}

fn sequence(record: &Value) -> Value {
    record["dynamodb"]["SequenceNumber"].clone()
}

async fn state(ports: &AwsPorts, job: &Job) -> &'static str {
    ports.state().job(job.id).await.expect("read").expect("it is there").state.as_str()
}

#[tokio::test]
async fn a_job_is_done_when_the_last_end_was_told() {
    let Some(Grid { ports, stream, .. }) = grid().await else { return };
    let job = sealed(&ports, 3, None).await;
    let mut told = Vec::new();
    for number in 0..3 {
        told.push(submitted(&ports, &job, number).await);
    }
    assert_eq!(stream.take(&event(told.clone())).await.answer, nothing_failed());
    let summary = ports.state().summary(job.id).await.expect("a summary");
    assert_eq!((summary.chunks_submitted, summary.tasks_submitted, summary.chunks_ended), (3, 6, 0));

    for number in 0..2 {
        told.extend(finished(&ports, &job, number).await);
    }
    // Twice, and in another order.
    for _ in 0..2 {
        told.reverse();
        assert_eq!(stream.take(&event(told.clone())).await.answer, nothing_failed());
        assert_eq!(state(&ports, &job).await, "sealed");
    }
    assert_eq!(stream.take(&event(finished(&ports, &job, 2).await)).await.answer, nothing_failed());
    assert_eq!(state(&ports, &job).await, "done");
    let summary = ports.state().summary(job.id).await.expect("a summary");
    assert_eq!((summary.chunks_submitted, summary.chunks_ended, summary.totals.succeeded), (3, 3, 6));
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_nothing() {
    let Some(Grid { ports, stream, config, settings }) = grid().await else { return };
    let (good, bad) = (sealed(&ports, 1, None).await, sealed(&ports, 1, None).await);
    uploads::spoil_summary(&config, &settings, bad.id).await;
    let mut told = Vec::new();
    for job in [&bad, &good] {
        told.push(submitted(&ports, job, 0).await);
        told.extend(finished(&ports, job, 0).await);
    }
    let mut poison = told[0].clone();
    poison["dynamodb"]["NewImage"]["spec"] = json!({"B": "////"});
    told.insert(0, poison);
    told.push(json!({"eventName": "INSERT"}));
    assert_eq!(stream.take(&event(told)).await.answer, nothing_failed());
    assert_eq!(state(&ports, &good).await, "done");
    assert_eq!(state(&ports, &bad).await, "sealed");
}

#[tokio::test]
async fn what_may_yet_succeed_comes_again_from_its_record_on() {
    let Some(Grid { ports, config, settings, .. }) = grid().await else { return };
    let job = sealed(&ports, 2, None).await;
    let mut told = vec![submitted(&ports, &job, 0).await];
    told.extend(finished(&ports, &job, 0).await);
    // A claim is no news, so it is not what failed; the chunk's end is.
    told.remove(0);
    let elsewhere = Settings { table: "none".to_owned(), ..settings.clone() };
    let broken = AwsPorts::over(&config, &elsewhere);
    let stream = Stream::new(broken, Notifier::over(&config, &settings.queues, None), "test");
    let answer = stream.take(&event(told.clone())).await.answer;
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": sequence(&told[1])}]}));
    // It is measured when it has been counted.
    assert!(stream.take(&event(told)).await.metrics.iter().all(|metrics| metrics.lines().is_empty()));
}

#[tokio::test]
async fn results_of_uploaded_jobs_are_asked_for() {
    let Some(Grid { ports, stream, config, settings }) = grid().await else { return };
    let origins = [
        Some(Origin::File { path: "s3://bucket/inbox/a.json".into() }),
        Some(Origin::File { path: "/home/someone/inbox/a.json".into() }),
        None,
    ];
    let (mut jobs, mut told) = (Vec::new(), Vec::new());
    for (origin, number) in origins.into_iter().zip(0..) {
        let job = sealed(&ports, 1, origin).await;
        // Not over yet, so nobody is asked.
        told.push(records::of_job(&job, "MODIFY", number));
        ports.state().apply_job(job.id, JobEvent::Complete { now_ms: 9 }).await.expect("done");
        told.push(records::of_stored_job(ports.state(), job.id, 10 + number).await);
        jobs.push(job);
    }
    // There is no such queue yet: it comes again from the uploaded job's end on.
    let answer = stream.take(&event(told.clone())).await.answer;
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": sequence(&told[1])}]}));

    uploads::create_queue(&config, &settings.queues).await;
    assert_eq!(stream.take(&event(told.clone())).await.answer, nothing_failed());
    let asked = uploads::received(&config, &settings.queues).await;
    assert_eq!(asked, [json!({"collect": jobs[0].id}).to_string()]);
}

#[tokio::test]
async fn an_event_that_cannot_be_told_holds_up_nothing() {
    let Some(Grid { ports, config, settings, .. }) = grid().await else { return };
    let job = sealed(&ports, 1, None).await;
    ports.state().apply_job(job.id, JobEvent::Complete { now_ms: 9 }).await.expect("done");
    let told = event([records::of_stored_job(ports.state(), job.id, 1).await]);
    // An event has the counts of its job, and these cannot be read.
    uploads::spoil_summary(&config, &settings, job.id).await;
    let stream = Stream::new(ports, Notifier::over(&config, &settings.queues, Some("bus")), "test");
    let mut lost = Lost::default();
    let over = read(&StreamRecord::all(&told), &mut lost).over;
    assert_eq!(over.len(), 1);
    let again = stream.notify(&over, &mut lost).await;
    assert_eq!((again, lost.notifications), (None, 1));
}

#[tokio::test]
async fn a_cancelled_job_is_over_when_its_ends_were_told() {
    let Some(Grid { ports, stream, .. }) = grid().await else { return };
    let job = sealed(&ports, 1, None).await;
    let told = submitted(&ports, &job, 0).await;
    assert_eq!(stream.take(&event([told])).await.answer, nothing_failed());
    ports.state().apply_job(job.id, JobEvent::Cancel).await.expect("cancelling");
    let write = Write { key: key(&job, 0), event: ChunkEvent::End { reason: EndReason::Cancelled, now_ms: 5 } };
    let ended = apply(&ports, write).await.expect("T9");
    assert_eq!(stream.take(&event([records::of_chunk(&ended, "MODIFY", 2)])).await.answer, nothing_failed());
    assert!(matches!(ports.state().job(job.id).await, Ok(Some(Job { state: JobState::Cancelled { .. }, .. }))));
}

#[test]
fn metrics_are_of_what_has_ended() {
    let submitted = Chunk::apply(None, &submit(&fixture::spec(fixture::job_id(), 0, 3)).event).expect("T1");
    let claimed = Chunk::apply(Some(&submitted), &claim(submitted.spec.key, 1).event).expect("T2");
    let done = Chunk::apply(Some(&claimed), &finish(&claimed).event).expect("T8");
    let end = ChunkEvent::End { reason: EndReason::Cancelled, now_ms: 5 };
    let cancelled = Chunk::apply(Some(&submitted), &end).expect("T9");
    let chunks = [submitted, claimed, done, cancelled];
    let lines: Vec<Value> = metrics("g", 1, chunks.iter(), Lost { poison: 2, notifications: 0 })
        .iter()
        .flat_map(Metrics::lines)
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    let [succeeded, cancelled, rest] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&succeeded["outcome"], &succeeded["tasks_total"]), (&json!("succeeded"), &json!(3)));
    assert_eq!((&cancelled["outcome"], &cancelled["tasks_total"]), (&json!("cancelled"), &json!(3)));
    let rest = [names::CHUNKS_FINISHED, names::CHUNKS_ENDED, names::STREAM_POISON, names::EXECUTIONS_PER_TASK]
        .map(|metric| rest[metric.name].as_u64());
    assert_eq!(rest, [Some(1), Some(1), Some(2), Some(1)]);
}
