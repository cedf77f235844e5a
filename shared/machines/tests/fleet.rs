//! A fleet of real processes that only stand for workers, under a policy that says what the test wants.

use std::{
    io,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sheaf_core::{ChunkKey, JobId, Lane, ReleaseReason, WorkerId};
use sheaf_machines::{Event, Fleet, FleetSpec, Grid, Launch, TaskNow, What, Why};
use sheaf_scheduler::{
    Activity, Decision, Drain, Memory, Policy, PolicyName, Pool, Settings, Snapshot, Want,
    formats::spot::Outage,
    sim::{
        faults::{FaultKind, Faults},
        fleet::PoolSpec,
    },
};
use tokio::process::{Child, Command};

/// Wants one machine, and none any more once it is told.
struct Told(Arc<AtomicBool>);

impl Policy for Told {
    fn name(&self) -> PolicyName {
        PolicyName::Fixed
    }

    fn decide(&self, snapshot: &Snapshot, _: &mut Memory) -> Decision {
        if !self.0.load(Ordering::Relaxed) {
            return Decision { wants: vec![Want { pool: 0, machines: 1 }], ..Decision::default() };
        }
        let held = snapshot.machines.iter().filter(|machine| machine.activity.counts());
        // Less than it has to be given.
        Decision { drains: held.map(|held| Drain { machine: held.id, give_s: 0.0 }).collect(), ..Decision::default() }
    }
}

/// A grid whose only task is held by whichever worker was started last.
struct Fake {
    script: &'static str,
    started: Mutex<Vec<WorkerId>>,
    /// The session of the process started first.
    session: Mutex<Option<i32>>,
    given_back: Mutex<Vec<(WorkerId, ReleaseReason)>>,
}

impl Fake {
    fn new(script: &'static str) -> Self {
        Self { script, started: Mutex::default(), session: Mutex::default(), given_back: Mutex::default() }
    }
}

impl Grid for Fake {
    fn start(&self, launch: &Launch) -> io::Result<Child> {
        self.started.lock().expect("nobody panicked").push(launch.worker.clone());
        // From util-linux: a session of its own.
        let mut command = Command::new("setsid");
        command.args(["/bin/sh", "-c", self.script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn()?;
        let session = child.id().and_then(|pid| i32::try_from(pid).ok());
        let mut first = self.session.lock().expect("nobody panicked");
        *first = first.or(session);
        Ok(child)
    }

    async fn look(&self) -> Option<Vec<TaskNow>> {
        let last = self.started.lock().expect("nobody panicked").last().cloned();
        Some(vec![last.map_or(TaskNow::Waiting, |worker| TaskNow::Running { worker, since_ms: 0 })])
    }

    async fn give_back(&self, worker: &WorkerId, reason: ReleaseReason) -> Vec<ChunkKey> {
        self.given_back.lock().expect("nobody panicked").push((worker.clone(), reason));
        vec![ChunkKey { job: JobId::from_bytes([1; 16]), number: 0 }]
    }

    async fn hedge(&self, _: &[usize]) {}

    async fn copies(&self) -> Option<Vec<(WorkerId, usize)>> {
        Some(Vec::new())
    }

    async fn owner(&self, _: usize) -> Option<WorkerId> {
        None
    }
}

fn spec(faults: Faults, notice_s: f64) -> FleetSpec {
    let pool = Pool { machine: "m".to_owned(), market: Lane::Spot, machines_max: 1, ..Pool::default() };
    FleetSpec {
        pools: vec![PoolSpec { pool, kind: 0, boot_s: 10.0, memory_mb: 0.0, burstable: None }],
        spot_max: 1,
        on_demand_max: 0,
        faults,
        seed: 1,
        fault: FaultKind::Terminate,
        notice_s: vec![notice_s],
        time_scale: 100.0,
        settings: Settings { period_s: 5.0, grace_s: 60.0, ..Settings::default() },
        job: "job".to_owned(),
        tasks_s: vec![100.0],
        deadline_s: 10_000.0,
        budget: None,
    }
}

/// Drives a fleet until something has happened.
async fn until(
    fleet: &mut Fleet<'_>,
    grid: &Fake,
    events: &Mutex<Vec<Event>>,
    happened: impl Fn(&What) -> bool,
) -> Event {
    let seen = async {
        loop {
            if let Some(event) = events.lock().expect("nobody panicked").iter().find(|event| happened(&event.what)) {
                return event.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        event = seen => event,
        spent = fleet.run(grid) => panic!("there is no budget: {spent:?}"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it did not happen: {events:?}"),
    }
}

/// A worker that joins, hears nothing and goes on for ever.
const DEAF: &str = "echo joined; exec sleep 1000";
/// The same, with something that would outlive it.
const WITH_CHILD: &str = "sleep 1001 & echo joined; exec sleep 1000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_a_lease_is_given_twice_the_grace_whatever_the_policy_says() {
    let (grid, stop, events) = (Fake::new(DEAF), Arc::new(AtomicBool::new(false)), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let mut fleet = Fleet::new(spec(Faults::None, 120.0), Box::new(Told(stop.clone())), tell);
    let up = until(&mut fleet, &grid, &events, |what| matches!(what, What::Up { .. })).await;
    assert!(up.at_s >= 10.0, "not before it has booted: {up:?}");
    until(&mut fleet, &grid, &events, |what| matches!(what, What::Busy { .. })).await;
    stop.store(true, Ordering::Relaxed);
    let draining = until(&mut fleet, &grid, &events, |what| matches!(what, What::Draining { .. })).await;
    let What::Draining { until_s, .. } = draining.what else { panic!("{draining:?}") };
    assert!(until_s - draining.at_s >= 119.0, "{draining:?}");
    // It hears nothing: it is killed, though not before its time, and what it held is given back.
    let ended = until(&mut fleet, &grid, &events, |what| matches!(what, What::Ended { .. })).await;
    assert!(ended.at_s > until_s, "{ended:?}");
    assert!(matches!(&ended.what, What::Ended { why: Why::Drained, given_back, .. } if given_back.len() == 1));
    let given_back = grid.given_back.lock().expect("nobody panicked").clone();
    assert!(matches!(&given_back[..], [(_, ReleaseReason::Drain)]), "{given_back:?}");
    drop(fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_noticed_then_killed_and_its_pool_is_left_alone_for_a_while() {
    let outage = Outage { zone: "m".to_owned(), down_s: 60.0, up_s: f64::INFINITY };
    let (grid, events) = (Fake::new(WITH_CHILD), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let policy = Box::new(Told(Arc::default()));
    let mut fleet = Fleet::new(spec(Faults::Trace(vec![outage]), 50.0), policy, tell);
    let noticed = until(&mut fleet, &grid, &events, |what| matches!(what, What::Noticed { .. })).await;
    assert!(noticed.at_s >= 60.0, "{noticed:?}");
    let ended = until(&mut fleet, &grid, &events, |what| matches!(what, What::Ended { .. })).await;
    assert!(ended.at_s >= noticed.at_s + 49.0, "{ended:?}");
    assert!(matches!(ended.what, What::Ended { why: Why::Reclaimed, .. }));
    let given_back = grid.given_back.lock().expect("nobody panicked").clone();
    assert!(matches!(&given_back[..], [(_, ReleaseReason::Reclaimed)]), "{given_back:?}");
    let session = grid.session.lock().expect("nobody panicked").expect("one was started");
    let of_session = |process: procfs::ProcResult<procfs::process::Process>| {
        process.and_then(|process| process.stat()).is_ok_and(|stat| stat.session == session && stat.state != 'Z')
    };
    assert!(!procfs::process::all_processes().expect("there is /proc").any(of_session), "nothing of it still runs");
    until(&mut fleet, &grid, &events, |what| matches!(what, What::Refused { failures: 3, .. })).await;
    drop(fleet);
    let events = events.into_inner().expect("nobody panicked");
    let refused = events.iter().filter(|event| matches!(event.what, What::Refused { .. }));
    let refused: Vec<f64> = refused.map(|event| event.at_s).collect();
    assert!(refused[1] - refused[0] >= 14.0 && refused[2] - refused[1] >= 29.0, "{refused:?}");
}

/// The machine costs a cent a second. When a dollar is spent it is told to end, and once it has, the fleet says what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_budget_is_spent_the_last_machine_ends_and_that_is_the_end() {
    let (grid, events) = (Fake::new("echo joined; read notice"), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let mut spec = FleetSpec { budget: Some(1.0), ..spec(Faults::None, 0.0) };
    spec.pools[0].pool.price_per_hour = 36.0;
    let sheaf = spec.settings.policy(PolicyName::Sheaf);
    let mut fleet = Fleet::new(spec, sheaf, tell);
    let spent = tokio::time::timeout(Duration::from_secs(60), fleet.run(&grid)).await.expect("it ends by itself");
    assert_eq!((spent.budget, spent.tasks_left), (1.0, 1));
    let paid: f64 = fleet.records().iter().map(|record| record.cost).sum();
    assert!((spent.cost - paid).abs() < 1e-9 && paid >= 1.0, "{spent:?} {paid}");
    drop(fleet);
    let events = events.into_inner().expect("nobody panicked");
    let requested = events.iter().filter(|event| matches!(event.what, What::Requested { .. })).count();
    assert_eq!(requested, 1, "nothing is started for what is left: {events:?}");
    assert!(matches!(events.last().map(|event| &event.what), Some(What::Spent { tasks_left: 1, .. })), "{events:?}");
}

/// Nobody knows why it has died: perhaps of a task. So nothing is given back in its name, and another one is started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_by_itself_is_replaced_and_its_leases_run_out() {
    let (grid, events) = (Fake::new("echo joined; sleep 0.3; exit 1"), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let mut fleet = Fleet::new(spec(Faults::None, 120.0), Box::new(Told(Arc::default())), tell);
    until(&mut fleet, &grid, &events, |what| matches!(what, What::Ended { why: Why::Failed, .. })).await;
    until(&mut fleet, &grid, &events, |what| matches!(what, What::Requested { machine: 1, .. })).await;
    assert!(grid.given_back.lock().expect("nobody panicked").is_empty());
    fleet.close(&grid).await;
    let records = fleet.records();
    assert!(records.iter().all(|record| record.ended_s.is_some()), "{records:?}");
    assert_eq!(records.last().and_then(|record| record.why), Some(Why::Over));
}

/// Young's interval for a reclaim an hour, which is what is believed beforehand; other policies say nothing of it.
#[test]
fn how_often_checkpoints_pay_is_known_before_the_work_begins() {
    let every_s = |policy: PolicyName| {
        let spec = spec(Faults::None, 0.0);
        spec.checkpoint_every_s(&*spec.settings.policy(policy))
    };
    let (asked_s, dump_s) =
        (every_s(PolicyName::Sheaf).expect("spot machines may be lost"), Settings::default().dump_s);
    assert!((asked_s - (2.0 * dump_s * 3600.0).sqrt()).abs() < 1e-6, "{asked_s}");
    assert_eq!(every_s(PolicyName::Fixed), None);
}

/// Processes of the session that was started first, with their states.
fn states(grid: &Fake) -> Vec<char> {
    let session = grid.session.lock().expect("nobody panicked").expect("one was started");
    let stats =
        procfs::process::all_processes().expect("there is /proc").filter_map(|process| process.ok()?.stat().ok());
    stats.filter(|stat| stat.session == session && stat.state != 'Z').map(|stat| stat.state).collect()
}

fn hibernating(up_s: f64) -> FleetSpec {
    let outage = Outage { zone: "m".to_owned(), down_s: 60.0, up_s };
    FleetSpec { fault: FaultKind::Hibernate, ..spec(Faults::Trace(vec![outage]), 50.0) }
}

/// It is frozen with all it runs and without a notice, what it held is given back though it has not ended, and it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_hibernates_and_comes_back_as_it_was() {
    let (grid, events) = (Fake::new(WITH_CHILD), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let mut fleet = Fleet::new(hibernating(160.0), Box::new(Told(Arc::default())), tell);
    let frozen = until(&mut fleet, &grid, &events, |what| matches!(what, What::Hibernated { .. })).await;
    assert!(frozen.at_s >= 60.0, "{frozen:?}");
    assert!(matches!(&frozen.what, What::Hibernated { given_back, .. } if given_back.len() == 1), "{frozen:?}");
    let states_now = states(&grid);
    assert!(states_now.len() == 2 && states_now.iter().all(|state| *state == 'T'), "{states_now:?}");
    // The grid says for as long as it is frozen that it holds something: that is given back as well.
    let resumed = until(&mut fleet, &grid, &events, |what| matches!(what, What::Resumed { .. })).await;
    assert!(resumed.at_s >= 160.0 && !states(&grid).contains(&'T'), "{resumed:?}");
    until(&mut fleet, &grid, &events, |what| matches!(what, What::Busy { .. })).await;
    fleet.close(&grid).await;
    assert_eq!(states(&grid), []);
    let given_back = grid.given_back.lock().expect("nobody panicked").clone();
    let reclaimed = given_back.iter().filter(|(_, reason)| *reason == ReleaseReason::Reclaimed).count();
    assert!(reclaimed > 1 && reclaimed < given_back.len(), "{given_back:?}");
    let records = fleet.records();
    let (record, What::Resumed { frozen_s, .. }) = (&records[0], resumed.what) else { panic!("{records:?}") };
    assert_eq!((records.len(), record.hibernations, record.why), (1, 1, Some(Why::Over)), "{records:?}");
    assert!(frozen_s >= 80.0 && (record.frozen_s - frozen_s).abs() < 1e-6, "{record:?}");
    assert!((record.held_s - frozen_s - record.paid_s()).abs() < 1e-6, "{record:?}");
    drop(fleet);
    let events = events.into_inner().expect("nobody panicked");
    assert!(!events.iter().any(|event| matches!(event.what, What::Noticed { .. })), "hibernation is not announced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_frozen_to_the_end_is_killed_and_costs_nothing_meanwhile() {
    let (grid, events) = (Fake::new(WITH_CHILD), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let mut fleet = Fleet::new(hibernating(f64::INFINITY), Box::new(Told(Arc::default())), tell);
    until(&mut fleet, &grid, &events, |what| matches!(what, What::Hibernated { .. })).await;
    let seen = async { tokio::time::sleep(Duration::from_millis(500)).await };
    tokio::select! {
        () = seen => {}
        spent = fleet.run(&grid) => panic!("there is no budget: {spent:?}"),
    }
    let meanwhile = fleet.records();
    assert!(meanwhile[0].frozen_s >= 45.0 && meanwhile[0].ended_s.is_none(), "{meanwhile:?}");
    fleet.close(&grid).await;
    assert_eq!(states(&grid), [], "what is stopped is killed as well");
    let record = fleet.records().remove(0);
    assert_eq!(record.why, Some(Why::Over));
    let ended_s = record.ended_s.expect("it is over");
    assert!(record.paid_s() < ended_s - record.requested_s - 45.0, "{record:?}");
}

/// A policy may let a frozen machine go, for a fresh one in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_machine_that_is_wanted_no_longer_is_ended_at_once() {
    struct Ends(Arc<AtomicBool>);
    impl Policy for Ends {
        fn name(&self) -> PolicyName {
            PolicyName::Fixed
        }

        fn decide(&self, snapshot: &Snapshot, memory: &mut Memory) -> Decision {
            let frozen = |held: &&sheaf_scheduler::Machine| matches!(held.activity, Activity::Hibernated { .. });
            let drains = snapshot.machines.iter().filter(frozen).map(|held| Drain { machine: held.id, give_s: 0.0 });
            Decision { drains: drains.collect(), ..Told(self.0.clone()).decide(snapshot, memory) }
        }
    }
    let (grid, events) = (Fake::new(WITH_CHILD), Mutex::new(Vec::new()));
    let tell = |event: &Event| events.lock().expect("nobody panicked").push(event.clone());
    let mut fleet = Fleet::new(hibernating(f64::INFINITY), Box::new(Ends(Arc::default())), tell);
    let ended = until(&mut fleet, &grid, &events, |what| matches!(what, What::Ended { .. })).await;
    assert!(matches!(ended.what, What::Ended { why: Why::Drained, .. }), "{ended:?}");
    assert_eq!(states(&grid), []);
    assert_eq!(fleet.records()[0].hibernations, 1);
}
