//! The sweeper over an AWS on loopback.

use std::sync::Mutex;

use sheaf_aws::{
    AwsPorts, Container, ServiceCounts,
    loopback::{damage_chunk, fresh, fresh_account, ports, skipped},
    notify,
};
use sheaf_conformance::fixture::{self, apply, finish, submit};
use sheaf_core::{Chunk, ChunkEvent, ChunkKey, ChunkSpec, Job, JobEvent, JobState, Lane, Owner, Seal};
use sheaf_protocol::{ChunkQueue, Write, summarise};

use super::*;
use crate::{recount::TOLD_MS, scale::Capacity};

/// Enough for one round.
const ONE_ROUND_MS: u64 = limits::SWEEP_MS;

/// How long a task runs.
const TASK_US: u32 = 30_000_000;

/// An ECS of one service, that does what it is told.
#[derive(Debug, Default)]
struct FakeEcs {
    service: Mutex<ServiceCounts>,
    /// What it was told.
    told: Mutex<Vec<u32>>,
    /// How often it was asked for its containers.
    asked: Mutex<u32>,
    broken: Option<StoreError>,
}

impl Ecs for &FakeEcs {
    async fn describe(&self, names: &[String]) -> Result<Vec<ServiceCounts>, StoreError> {
        assert_eq!(names, ["night-spot"]);
        let found = vec![self.service.lock().expect("no panic").clone()];
        self.broken.clone().map_or(Ok(found), Err)
    }

    async fn set_desired(&self, name: &str, desired: u32) -> Result<(), StoreError> {
        assert_eq!(name, "night-spot");
        self.service.lock().expect("no panic").desired = desired;
        self.told.lock().expect("no panic").push(desired);
        Ok(())
    }

    async fn containers(&self, name: &str) -> Result<Vec<Container>, StoreError> {
        assert_eq!(name, "night-spot");
        *self.asked.lock().expect("no panic") += 1;
        Ok(Vec::new())
    }
}

impl FakeEcs {
    fn with(desired: u32) -> Self {
        let service = ServiceCounts { desired, running: desired, ..ServiceCounts::default() };
        Self { service: Mutex::new(service), ..Self::default() }
    }

    fn scaler(&self) -> Scaler<&Self> {
        let told = r#"{"cluster":"night","grace_s":60,"drain_s":300,"pools":[{"service":"night-spot","lane":"spot","slots":1,
            "price_per_hour":0.02,"boot_p95_s":90,"machines_max":10}]}"#;
        Scaler::new(Capacity::parse(told).expect("capacity"), self)
    }

    fn told(&self) -> Vec<u32> {
        self.told.lock().expect("no panic").clone()
    }
}

/// A sweep of a grid without containers, of whose hints so many wait.
async fn sweep<P, B>(ports: &P, backlog: B, remaining_ms: u64) -> Result<Minute, StoreError>
where
    P: Ports,
    B: AsyncFn() -> Result<u64, StoreError>,
{
    let hints = async || backlog().await.map(|hints| [(Lane::Lambda, hints)].into());
    super::sweep(ports, hints, None::<&Scaler<&FakeEcs>>, remaining_ms).await
}

/// A round with containers.
async fn scaled(ports: &AwsPorts, ecs: &FakeEcs, hints_on_spot: u64) -> Minute {
    let hints = async || Ok([(Lane::Spot, hints_on_spot)].into());
    super::sweep(ports, hints, Some(&ecs.scaler()), ONE_ROUND_MS).await.expect("swept")
}

/// A job of the spot lane with so many open chunks of a task, which was counted.
async fn on_spot(ports: &AwsPorts, chunks: u32) -> Job {
    let mut job = fixture::job(fixture::job_id(), 1);
    job.options.lane = Lane::Spot;
    ports.state().create_job(job.clone()).await.expect("created");
    let mut open = Vec::new();
    for number in 0..chunks {
        open.push(submitted(ports, &job, number, 0).await);
    }
    summarise::summarise(ports, &open).await.expect("counted");
    job
}

async fn grid() -> Option<AwsPorts> {
    fresh().await.map_err(skipped).ok()
}

async fn sealed(ports: &AwsPorts, chunks: u32) -> Job {
    let job = fixture::job(fixture::job_id(), 1);
    ports.state().create_job(job.clone()).await.expect("created");
    let seal = Seal { chunks, tasks: u64::from(chunks) };
    ports.state().apply_job(job.id, JobEvent::Seal { seal }).await.expect("sealed")
}

/// A chunk of one task, submitted so long ago.
async fn submitted(ports: &AwsPorts, job: &Job, number: u32, ago_ms: u64) -> Chunk {
    let submitted_at_ms = ports.clock().now_ms() - ago_ms;
    let spec = ChunkSpec { submitted_at_ms, ..fixture::spec(job.id, number, 1) };
    apply(ports, submit(&spec)).await.expect("T1")
}

async fn claimed(ports: &AwsPorts, key: ChunkKey, ago_ms: u64) -> Chunk {
    let now_ms = ports.clock().now_ms() - ago_ms;
    let owner = Owner { worker: "wrk_a".parse().expect("an id"), nonce: 1 };
    let claim = ChunkEvent::Claim { owner, now_ms, until_ms: now_ms + limits::LEASE_MS };
    apply(ports, Write { key, event: claim }).await.expect("T2")
}

/// A chunk that ended so long ago, of which nobody told.
async fn ended(ports: &AwsPorts, job: &Job, number: u32, ago_ms: u64) -> Chunk {
    let chunk = submitted(ports, job, number, ago_ms + 1).await;
    let claimed = claimed(ports, chunk.spec.key, ago_ms + 1).await;
    let mut end = finish(&claimed);
    if let ChunkEvent::Finish { now_ms, commit: Some(commit), .. } = &mut end.event {
        *now_ms = ports.clock().now_ms() - ago_ms;
        (commit.segment.run_us, commit.segment.run_us_max) = (TASK_US.into(), TASK_US);
    }
    apply(ports, end).await.expect("T8")
}

async fn hinted(ports: &AwsPorts) -> Vec<ChunkKey> {
    let received = ports.queue().receive(&[Lane::default()], 10, 0).await.expect("received");
    received.into_iter().map(|delivery| delivery.hint.key).collect()
}

async fn state(ports: &AwsPorts, job: &Job) -> JobState {
    ports.state().job(job.id).await.expect("read").expect("it is there").state
}

#[tokio::test]
async fn a_chunk_whose_hint_was_never_sent_is_found() {
    let Some(ports) = grid().await else { return };
    let job = sealed(&ports, 2).await;
    let lost = submitted(&ports, &job, 0, 2 * limits::HINT_AGE_MS).await.spec.key;
    submitted(&ports, &job, 1, limits::HINT_AGE_MS / 4).await;
    let minute = sweep(&ports, async || Ok(0), ONE_ROUND_MS).await.expect("swept");
    assert_eq!((minute.rounds, minute.looked_at, minute.hints, minute.backed_off), (1, 1, 1, 0));
    assert_eq!(hinted(&ports).await, [lost]);
    let waits = minute.waits.expect("a job is alive");
    assert!(waits.oldest_pending_ms >= 2 * limits::HINT_AGE_MS);
    // Looked at again only after a while.
    assert_eq!(sweep(&ports, async || Ok(0), ONE_ROUND_MS).await.expect("swept").hints, 0);
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_keeps_nobody_from_the_others() {
    let Some((config, settings)) = fresh_account().await.map_err(skipped).ok() else { return };
    let ports = ports(&config, &settings).await;
    let job = sealed(&ports, 3).await;
    let spoilt = submitted(&ports, &job, 0, 4 * limits::HINT_AGE_MS).await.spec.key;
    let behind = [1, 2].map(|number| ChunkKey { job: job.id, number });
    for key in behind {
        submitted(&ports, &job, key.number, 3 * limits::HINT_AGE_MS).await;
    }
    damage_chunk(&config, &settings.table, spoilt).await;
    let minute = sweep(&ports, async || Ok(0), ONE_ROUND_MS).await.expect("swept");
    assert_eq!((minute.looked_at, minute.hints), (3, 2));
    let mut found = hinted(&ports).await;
    found.sort_unstable();
    assert_eq!(found, behind);
}

#[tokio::test]
async fn what_waits_in_a_backlog_is_not_sent_again() {
    let Some(ports) = grid().await else { return };
    let job = sealed(&ports, 3).await;
    submitted(&ports, &job, 0, 5 * limits::HINT_AGE_MS).await;
    let minute = sweep(&ports, async || Ok(1_000), ONE_ROUND_MS).await.expect("swept");
    assert_eq!((minute.looked_at, minute.hints), (1, 0));

    // A claim shows that hints wait for three minutes at present, so what is older than that and a quarter is lost.
    let taken = submitted(&ports, &job, 1, 3 * limits::HINT_AGE_MS).await.spec.key;
    claimed(&ports, taken, 0).await;
    let lost = submitted(&ports, &job, 2, 4 * limits::HINT_AGE_MS).await.spec.key;
    let minute = sweep(&ports, async || Ok(1_000), ONE_ROUND_MS).await.expect("swept");
    let delay_ms = minute.waits.expect("a job is alive").delay_ms;
    assert!((3 * limits::HINT_AGE_MS..4 * limits::HINT_AGE_MS).contains(&delay_ms), "{delay_ms}");
    assert_eq!((minute.hints, hinted(&ports).await), (1, vec![lost]));
}

#[tokio::test]
async fn with_nothing_alive_it_looks_once() {
    let Some(ports) = grid().await else { return };
    let asked = async || panic!("the queues are not asked for");
    let minute = sweep(&ports, asked, MINUTE_MS).await.expect("swept");
    assert_eq!((minute.rounds, minute.waits), (1, None));
}

#[tokio::test]
async fn while_a_job_is_alive_it_looks_every_round_that_fits() {
    let Some(ports) = grid().await else { return };
    sealed(&ports, 1).await;
    let minute = sweep(&ports, async || Ok(0), limits::SWEEP_MS + MARGIN_MS + 4_000).await.expect("swept");
    assert_eq!(minute.rounds, 2);
}

#[tokio::test]
async fn it_makes_way_for_whoever_is_throttled() {
    let Some(ports) = grid().await else { return };
    sealed(&ports, 1).await;
    let busy = async || Err(StoreError::Throttled { retry_after_ms: 1 });
    let minute = sweep(&ports, busy, MINUTE_MS).await.expect("no failure");
    assert_eq!((minute.rounds, minute.backed_off), (0, 1));
    let broken = async || Err(StoreError::Stopped { detail: "no such queue".to_owned() });
    assert!(sweep(&ports, broken, MINUTE_MS).await.is_err());
}

#[tokio::test]
async fn a_job_that_cannot_be_read_holds_up_no_other() {
    let (config, settings) = match fresh_account().await {
        Ok(fresh) => fresh,
        Err(reason) => return skipped(reason),
    };
    let ports = ports(&config, &settings).await;
    let (good, bad) = (sealed(&ports, 1).await, sealed(&ports, 1).await);
    notify::loopback::spoil_summary(&config, &settings, bad.id).await;
    ended(&ports, &good, 0, TOLD_MS + 1).await;
    submitted(&ports, &bad, 0, 2 * limits::HINT_AGE_MS).await;
    let minute = sweep(&ports, async || Ok(0), ONE_ROUND_MS).await.expect("swept");
    assert_eq!((minute.rounds, minute.hints), (1, 1));
    // In every fifth minute the sweep has done it itself.
    let recounted = recount(&ports, &TenantId::default(), ports.clock().now_ms()).await.expect("recounted");
    assert_eq!(minute.recounted + recounted, 1);
    assert!(matches!(state(&ports, &good).await, JobState::Done { .. }));
}

#[tokio::test]
async fn two_at_once_are_as_one() {
    let Some(ports) = grid().await else { return };
    let job = sealed(&ports, 1).await;
    let lost = submitted(&ports, &job, 0, 2 * limits::HINT_AGE_MS).await.spec.key;
    let one = async || sweep(&ports, async || Ok(0), ONE_ROUND_MS).await.expect("swept");
    let (one, other) = tokio::join!(one(), one());
    assert_eq!(one.hints + other.hints, 1, "T10 has one winner");
    assert_eq!(hinted(&ports).await, [lost]);
}

#[tokio::test]
async fn ends_that_nobody_told_of_are_counted() {
    let Some(ports) = grid().await else { return };
    let (lost, recent, open) = (sealed(&ports, 3).await, sealed(&ports, 1).await, sealed(&ports, 2).await);
    for number in 0..3 {
        ended(&ports, &lost, number, TOLD_MS + 1).await;
    }
    ended(&ports, &recent, 0, 1_000).await;
    submitted(&ports, &open, 0, 0).await;
    let behind = ended(&ports, &open, 1, TOLD_MS + 1).await;
    let tenant = TenantId::default();
    let now_ms = ports.clock().now_ms();
    assert_eq!(recount(&ports, &tenant, now_ms).await, Ok(3));
    assert!(matches!(state(&ports, &lost).await, JobState::Done { .. }));
    assert!(matches!(state(&ports, &recent).await, JobState::Sealed { .. }), "its record is on its way");
    assert_eq!(recount(&ports, &tenant, now_ms).await, Ok(0));

    // What lies behind an open chunk is found when that one has been told of.
    let first = claimed(&ports, ChunkKey { number: 0, ..behind.spec.key }, 0).await;
    let first = apply(&ports, finish(&first)).await.expect("T8");
    summarise::summarise(&ports, &[first]).await.expect("told");
    assert_eq!(recount(&ports, &tenant, now_ms).await, Ok(1));
    assert!(matches!(state(&ports, &open).await, JobState::Done { .. }));
}

#[test]
fn every_so_many_minutes_is_decided_by_the_clock() {
    let hour =
        |minutes| (0..60).filter(|minute| is_turn(fixture::NOW_MS + minute * MINUTE_MS + 59_999, minutes)).count();
    assert_eq!([1, RECOUNT_MINUTES, RETENTION_MINUTES].map(hour), [60, 12, 1]);
}

#[test]
fn what_was_done_is_measured() {
    let waits = Waits { delay_ms: 1, oldest_pending_ms: 1_500, backlog: 7 };
    let containers = [(Lane::Spot, Containers { wanted: 3, running: 2 })].into();
    let minute = Minute {
        hints: 3,
        waits: Some(waits),
        work: [(Lane::Spot, 90.5)].into(),
        scaled: Ok(Scaled { containers, is_held_back: false }),
        ..Minute::new(5)
    };
    let lines: Vec<serde_json::Value> = minute
        .metrics("g")
        .iter()
        .flat_map(Metrics::lines)
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    let [line, work, spot] = lines.as_slice() else { panic!("{lines:?}") };
    let got = [names::SWEEP_HINTS, names::OLDEST_PENDING, names::BACKLOG].map(|metric| line[metric.name].as_f64());
    assert_eq!(got, [Some(3.0), Some(1.5), Some(7.0)]);
    assert_eq!((&work["lane"], &work["work_seconds"]), (&"spot".into(), &90.5.into()));
    assert_eq!(spot["lane"], "spot");
    let got = [names::CONTAINERS_WANTED, names::CONTAINERS_RUNNING].map(|metric| spot[metric.name].as_f64());
    assert_eq!(got, [Some(3.0), Some(2.0)]);
    assert!(Minute { rounds: 1, ..Minute::new(5) }.metrics("g").is_empty(), "an idle grid says nothing");
    let none = [(Lane::Spot, Containers { wanted: 0, running: 0 })].into();
    let idle = Minute { scaled: Ok(Scaled { containers: none, is_held_back: false }), ..Minute::new(5) };
    assert!(idle.metrics("g").is_empty(), "nor one without containers");
}

#[tokio::test]
async fn containers_follow_the_work_and_nothing_is_left_of_them() {
    let Some(ports) = grid().await else { return };
    let ecs = FakeEcs::default();
    let job = on_spot(&ports, 20).await;
    let minute = scaled(&ports, &ecs, 20).await;
    // Twenty tasks that nobody knows are taken for 600 s, to be done in 300.
    assert_eq!((ecs.told(), minute.work), (vec![2], [(Lane::Spot, 600.0)].into()));
    let containers = minute.scaled.expect("scaled").containers;
    assert_eq!(containers, [(Lane::Spot, Containers { wanted: 2, running: 0 })].into());
    scaled(&ports, &ecs, 20).await;
    assert_eq!(ecs.told(), [2], "nobody is told twice");
    ports.state().apply_job(job.id, JobEvent::Cancel).await.expect("cancelled");
    scaled(&ports, &ecs, 0).await;
    assert_eq!(ecs.told(), [2, 0]);
}

#[tokio::test]
async fn containers_end_when_no_job_is_alive() {
    let Some(ports) = grid().await else { return };
    let ecs = FakeEcs::with(3);
    let minute = scaled(&ports, &ecs, 0).await;
    assert_eq!((minute.rounds, minute.waits, ecs.told()), (1, None, vec![0]));
    assert_eq!(*ecs.asked.lock().expect("no panic"), 1, "how they ended is looked at");
    scaled(&ports, &ecs, 0).await;
    assert_eq!(ecs.told(), [0]);
}

#[tokio::test]
async fn what_dispatch_hands_on_is_work_too() {
    let Some(ports) = grid().await else { return };
    sealed(&ports, 1).await;
    let ecs = FakeEcs::default();
    scaled(&ports, &ecs, 1).await;
    assert_eq!(ecs.told(), [1]);
}

#[tokio::test]
async fn an_ecs_that_refuses_keeps_nothing_else_from_being_done() {
    let Some(ports) = grid().await else { return };
    let job = sealed(&ports, 1).await;
    let lost = submitted(&ports, &job, 0, 2 * limits::HINT_AGE_MS).await.spec.key;
    let broken = StoreError::Stopped { detail: "no such service".to_owned() };
    let ecs = FakeEcs { broken: Some(broken.clone()), ..FakeEcs::default() };
    let minute = scaled(&ports, &ecs, 0).await;
    assert_eq!((minute.scaled, minute.hints), (Err(broken), 1));
    assert_eq!(hinted(&ports).await, [lost]);
}

#[tokio::test]
async fn work_for_containers_is_told_in_seconds() {
    let Some(ports) = grid().await else { return };
    let mut jobs = Vec::new();
    for lane in [Lane::Spot, Lane::Lambda] {
        let mut job = fixture::job(fixture::job_id(), 1);
        job.options.lane = lane;
        ports.state().create_job(job.clone()).await.expect("created");
        jobs.push(job);
    }
    for job in &jobs {
        let open = [submitted(&ports, job, 0, 0).await, submitted(&ports, job, 1, 0).await];
        let done = ended(&ports, job, 2, 0).await;
        summarise::summarise(&ports, &[&open[..], &[done]].concat()).await.expect("counted");
    }
    let minute = sweep(&ports, async || Ok(0), ONE_ROUND_MS).await.expect("swept");
    assert_eq!(minute.work, [(Lane::Spot, 2.0 * f64::from(TASK_US) / 1e6)].into());
}
