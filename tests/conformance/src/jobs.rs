//! Checks of the state store's jobs, summaries and functions.

use futures::future::join_all;
use sheaf_api::wire::JobFilter;
use sheaf_core::{
    ChunkSet, ChunkTotals, Digest, FunctionKind, FunctionRef, JobEvent, JobId, JobRefused, JobState, Manifest, Seal,
    TenantId,
};
use sheaf_protocol::{Ports, StateStore, SummaryEntry, error::JobWriteError};

use crate::fixture::{NOW_MS, apply, job, job_id, spec, submit};

/// Of several creations of one id, one wins, and all are answered with it.
pub async fn one_creation_wins<P: Ports>(ports: P) {
    let id = job_id();
    assert_eq!(ports.state().job(id).await.expect("read"), None);
    let create = |i: u64| {
        let mut job = job(id, NOW_MS + i);
        job.options_digest = Digest::of(&i.to_le_bytes());
        ports.state().create_job(job)
    };
    let answers: Vec<_> = join_all((0..8).map(create)).await.into_iter().map(|job| job.expect("answered")).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "all see one job");
    assert_eq!(ports.state().job(id).await.expect("read"), Some(answers[0].clone()));
}

/// Events move a job as its state machine says, and are refused as it says.
pub async fn events_move_a_job<P: Ports>(ports: P) {
    let id = job_id();
    let (seal, now_ms) = (Seal { chunks: 1, tasks: 1 }, NOW_MS);
    let apply = async |event| ports.state().apply_job(id, event).await;
    assert_eq!(apply(JobEvent::Cancel).await, Err(JobWriteError::Refused(JobRefused::Absent)));
    ports.state().create_job(job(id, NOW_MS)).await.expect("created");
    assert_eq!(apply(JobEvent::Complete { now_ms }).await, Err(JobWriteError::Refused(JobRefused::Open)));
    assert_eq!(apply(JobEvent::Seal { seal }).await.expect("sealed").state, JobState::Sealed { seal });
    let done = apply(JobEvent::Complete { now_ms }).await.expect("done");
    assert_eq!(done.state, JobState::Done { seal, at_ms: now_ms });
    assert_eq!(apply(JobEvent::Cancel).await, Err(JobWriteError::Refused(JobRefused::Over)));
    assert_eq!(ports.state().job(id).await.expect("read"), Some(done));
}

/// Jobs are listed newest first, in pages, by filter and by tenant.
pub async fn jobs_are_listed_newest_first<P: Ports>(ports: P) {
    let ids: Vec<JobId> = (0..5).map(|_| job_id()).collect();
    for (age, id) in ids.iter().enumerate() {
        let mut job = job(*id, NOW_MS - 1_000 * age as u64);
        job.options.name = if age == 2 { "named".to_owned() } else { String::new() };
        ports.state().create_job(job).await.expect("created");
    }
    ports.state().apply_job(ids[1], JobEvent::Cancel).await.expect("cancelling");
    ports.state().apply_job(ids[1], JobEvent::CancelComplete { now_ms: NOW_MS }).await.expect("cancelled");
    let tenant = TenantId::default();
    let list = async |filter: JobFilter| {
        let jobs = ports.state().jobs(&tenant, &filter).await.expect("listed");
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    assert_eq!(list(all.clone()).await, ids);
    assert_eq!(list(JobFilter { limit: 2, before: Some(ids[1]), ..all.clone() }).await, [ids[2], ids[3]]);
    assert_eq!(list(JobFilter { alive: true, ..all.clone() }).await, [ids[0], ids[2], ids[3], ids[4]]);
    assert_eq!(list(JobFilter { name: Some("named".to_owned()), ..all.clone() }).await, [ids[2]]);
    let stranger: TenantId = "stranger".parse().expect("a tenant");
    assert_eq!(ports.state().jobs(&stranger, &all).await.expect("listed"), []);
}

fn entry(number: u32, ended: bool) -> SummaryEntry {
    let totals = ChunkTotals { succeeded: 7, failed: 3, ..ChunkTotals::default() };
    SummaryEntry { number, tasks: 10, ended: ended.then_some(totals) }
}

/// A summary counts each chunk once, however often and in whatever order it is told.
pub async fn summaries_count_each_chunk_once<P: Ports>(ports: P) {
    let id = job_id();
    ports.state().create_job(job(id, NOW_MS)).await.expect("created");
    let told: Vec<Vec<SummaryEntry>> =
        (0..20).map(|i| vec![entry(i % 5, i % 2 == 0), entry(i % 7, false), entry(i % 5, i % 3 == 0)]).collect();
    join_all(told.iter().map(|entries| ports.state().summarise(id, entries))).await;
    ports.state().summarise(id, &(0..7).map(|i| entry(i, true)).collect::<Vec<_>>()).await.expect("summarised");
    let summary = ports.state().summary(id).await.expect("read");
    assert_eq!((summary.chunks_submitted, summary.tasks_submitted, summary.chunks_ended), (7, 70, 7));
    assert_eq!((summary.totals.succeeded, summary.totals.failed, summary.totals.ended()), (49, 21, 70));
}

/// Chunks that ended are told lowest first, without those that the reader has.
pub async fn ended_chunks_are_told_once<P: Ports>(ports: P) {
    let id = job_id();
    ports.state().create_job(job(id, NOW_MS)).await.expect("created");
    let entries: Vec<SummaryEntry> = [5, 70_000, 1, 3].map(|number| entry(number, true)).to_vec();
    ports.state().summarise(id, &entries).await.expect("summarised");
    ports.state().summarise(id, &[entry(2, false)]).await.expect("summarised");
    let ended = async |have: &[u32], limit| {
        let have: ChunkSet = have.iter().collect();
        ports.state().ended(id, &have, limit).await.expect("read")
    };
    assert_eq!(ended(&[], 10).await, [1, 3, 5, 70_000]);
    assert_eq!(ended(&[1, 5, 9], 10).await, [3, 70_000]);
    assert_eq!(ended(&[], 2).await, [1, 3]);
}

/// Who waits for a change is woken by it, and otherwise waits no longer than asked.
pub async fn changes_wake_who_waits<P: Ports>(ports: P) {
    let id = job_id();
    ports.state().create_job(job(id, NOW_MS)).await.expect("created");
    let wait = ports.state().changed(id, 0, "open", 60_000);
    let entries = [entry(0, true)];
    let change = ports.state().summarise(id, &entries);
    let (_, summary) = futures::join!(wait, change);
    summary.expect("summarised");
    let wait = ports.state().changed(id, 1, "open", 60_000);
    let change = ports.state().apply_job(id, JobEvent::Cancel);
    let (_, job) = futures::join!(wait, change);
    job.expect("cancelling");
    ports.state().changed(id, 1, "cancelling", 20).await;
}

/// Functions are kept by version; the one put last is the newest of its name.
pub async fn functions_are_kept_by_version<P: Ports>(ports: P) {
    let name = "conformance";
    let manifest = |program: &str| {
        Manifest::new(name.parse().expect("a name"), FunctionKind::Command { argv: vec![program.to_owned()] })
    };
    let versions: Vec<(FunctionRef, Manifest)> =
        ["one", "two"].map(|program| (manifest(program).reference(program.as_bytes()), manifest(program))).to_vec();
    let parsed = name.parse().expect("a name");
    assert_eq!(ports.state().newest(&parsed).await.expect("read"), None);
    for (reference, manifest) in [&versions[0], &versions[1], &versions[1]] {
        ports.state().put_function(reference, manifest).await.expect("put");
        assert_eq!(ports.state().newest(&parsed).await.expect("read").as_ref(), Some(reference));
    }
    for (reference, manifest) in &versions {
        assert_eq!(ports.state().function(reference).await.expect("read").as_ref(), Some(manifest));
    }
    assert_eq!(ports.state().functions().await.expect("read"), [versions[1].0.clone()]);
}

/// A deleted job is gone with its chunks, summary and history; deleting it again is harmless.
pub async fn a_deleted_job_is_gone<P: Ports>(ports: P) {
    let (id, other) = (job_id(), job_id());
    for id in [id, other] {
        ports.state().create_job(job(id, NOW_MS)).await.expect("created");
        apply(&ports, submit(&spec(id, 0, 1))).await.expect("accepted");
        ports.state().summarise(id, &[entry(0, true)]).await.expect("summarised");
    }
    for _ in 0..2 {
        ports.state().delete_job(id).await.expect("deleted");
    }
    assert_eq!(ports.state().job(id).await.expect("read"), None);
    assert_eq!(ports.state().chunks_from(id, 0, 10).await.expect("read"), []);
    assert_eq!(ports.state().summary(id).await.expect("read").chunks_ended, 0);
    assert_eq!(ports.state().events(id, 0, 10).await.expect("read"), []);
    assert_eq!(ports.state().chunks_from(other, 0, 10).await.expect("read").len(), 1);
    let listed = ports
        .state()
        .jobs(&TenantId::default(), &JobFilter { limit: 10, ..JobFilter::default() })
        .await
        .expect("listed");
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [other]);
}
