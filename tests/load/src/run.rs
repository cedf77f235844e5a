//! Running a scenario once: clients, clocks and counters around a grid.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sheaf::{Grid, Transport};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};

use crate::{
    clients::{Client, Found},
    disk::{self, Probe},
    error::LoadError,
    live::Live,
    machine::Machine,
    report::{Group, Point, Run},
    resources::{Below, Watched},
    scenario::{Clients, Load, Place, Scenario},
    stages::History,
    target::{Options, Target},
    work::Doing,
};

/// The pause between two points of the timeline.
const POINT_MS: u64 = 50;
/// Points of a timeline that are kept; a longer one is thinned out.
const POINTS_MAX: usize = 400;
/// Points between two looks at child processes, which cost more.
const TICKS_PER_LOOK: usize = 5;

/// Runs a scenario once, on a grid of its own unless one is given.
pub async fn run(scenario: &Scenario, options: &Options, live: &Arc<Live>) -> Result<(Run, Machine), LoadError> {
    let target = Box::pin(Target::open(scenario, options)).await?;
    let machine = Machine::this(target.directory());
    let measured = Box::pin(measure(scenario, &target, live)).await;
    target.close().await;
    Ok((measured?, machine))
}

async fn measure(scenario: &Scenario, target: &Target, live: &Arc<Live>) -> Result<Run, LoadError> {
    let probed = target.directory().filter(|_| waits_for_syncs(scenario));
    let probe = probed.map(Probe::new).transpose()?.map(Arc::new);
    let clients = clients(scenario, target, live, probe.as_ref()).await?;
    let handles: Vec<_> = clients.iter().map(|client| client.grid.clone()).collect();
    let (syncs, requests) = (syncs(target).await?, requests(&handles));
    let here = if target.is_embedded() { "client and grid" } else { "client" };
    let mut watched = vec![Watched::start(here, std::process::id())?];
    if let Some(pid) = target.pid() {
        watched.push(Watched::start("grid", pid)?);
    }

    let (start, mut timeline, mut below) = (Instant::now(), Vec::new(), Below::default());
    let limit = Duration::from_secs(scenario.timeout_s);
    let running = timeout(limit, run_all(clients, scenario.clients.len(), start));
    let running = tokio::select! {
        running = running => running,
        () = observe(live, start, target.pid(), &mut timeline, &mut below) => unreachable!("it observes for ever"),
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut usage = watched.iter().map(Watched::used).collect::<Result<Vec<_>, _>>()?;
    usage.extend(below.used());
    let standing = live.standing();
    let found = running.map_err(|_| LoadError::TimedOut {
        name: scenario.name.clone(),
        timeout_s: scenario.timeout_s,
        done: standing.done,
        submitted: standing.submitted,
    })??;
    let requests = requests.map(|before| self::requests(&handles).unwrap_or(before) - before);
    let syncs = match syncs {
        Some(before) => self::syncs(target).await?.map(|after| after - before),
        None => None,
    };
    timeline.push(Point { at_s: seconds, done: standing.done });

    let jobs: BTreeSet<_> = found.iter().flat_map(|found| found.jobs.iter().copied()).collect();
    let grid = After {
        history: History::read(target.grid(), &jobs).await?,
        slots: target.grid().info().await?.slots,
        shares_clock: target.shares_clock(),
    };
    let mut run = Run {
        seconds,
        timeline: thinned(timeline),
        usage,
        requests,
        syncs,
        store_bytes: target.directory().map(disk::bytes_below),
        fdatasync: probe.and_then(|probe| probe.percentiles()),
        ..Run::default()
    };
    conclude(&mut run, scenario, found, &grid);
    if !target.is_embedded() {
        for client in handles {
            client.close().await;
        }
    }
    Ok(run)
}

/// How often the grid has waited for the disk, where it counts that.
async fn syncs(target: &Target) -> Result<Option<u64>, LoadError> {
    Ok(target.grid().info().await?.syncs)
}

/// Requests that these clients have sent, if they send any.
fn requests(clients: &[Grid]) -> Option<u64> {
    let of_each = clients.iter().map(|grid| match grid.api() {
        Transport::Remote(remote) => Some(remote.requests()),
        _ => None,
    });
    of_each.sum()
}

/// What is known of the grid after a run.
struct After {
    history: History,
    slots: u32,
    shares_clock: bool,
}

/// Whether single tasks wait for the disk one after the other, so that what it needs for a sync is what to compare them to.
fn waits_for_syncs(scenario: &Scenario) -> bool {
    let alone = |clients: &Clients| matches!(clients.load, Load::Closed { at_once: 1, .. });
    scenario.durable && scenario.grid != Place::Memory && scenario.clients.iter().all(alone)
}

/// All clients of a scenario, with the numbers of their tasks.
async fn clients(
    scenario: &Scenario,
    target: &Target,
    live: &Arc<Live>,
    probe: Option<&Arc<Probe>>,
) -> Result<Vec<Client>, LoadError> {
    let shared = Arc::new(scenario.clone());
    let (mut clients, mut first) = (Vec::new(), 0);
    for (group, alike) in scenario.clients.iter().enumerate() {
        for _ in 0..alike.count {
            let seed = scenario.seed.wrapping_add(clients.len() as u64);
            clients.push(Client {
                grid: target.client().await?,
                function: target.function().clone(),
                scenario: Arc::clone(&shared),
                group,
                first,
                seed,
                live: Arc::clone(live),
                probe: probe.cloned(),
            });
            first += alike.tasks_each(seed);
        }
    }
    Ok(clients)
}

/// Runs them all at once; what they found, by group.
async fn run_all(clients: Vec<Client>, groups: usize, start: Instant) -> Result<Vec<Found>, LoadError> {
    let mut running = JoinSet::new();
    for client in clients {
        let group = client.group;
        running.spawn(async move { (group, client.run(start).await) });
    }
    let mut found: Vec<Found> = (0..groups).map(|_| Found::default()).collect();
    while let Some(ended) = running.join_next().await {
        let (group, of_one) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        found[group].merge(of_one?);
    }
    Ok(found)
}

/// Notes how many tasks have come back, and looks at the grid's child processes, for ever.
async fn observe(live: &Live, start: Instant, pid: Option<u32>, timeline: &mut Vec<Point>, below: &mut Below) {
    let mut clock = tokio::time::interval(Duration::from_millis(POINT_MS));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_usize.. {
        clock.tick().await;
        timeline.push(Point { at_s: start.elapsed().as_secs_f64(), done: live.done_so_far() });
        if tick.is_multiple_of(TICKS_PER_LOOK) {
            below.look(pid.unwrap_or(std::process::id()));
        }
    }
}

/// At most [`POINTS_MAX`] points, the last among them.
fn thinned(timeline: Vec<Point>) -> Vec<Point> {
    let step = timeline.len().div_ceil(POINTS_MAX).max(1);
    let last = timeline.len().saturating_sub(1);
    timeline.into_iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last).map(|(_, point)| point).collect()
}

/// Works out the figures.
fn conclude(run: &mut Run, scenario: &Scenario, found: Vec<Found>, grid: &After) {
    let mut blurred = BTreeSet::new();
    let mut all = Found::default();
    for (clients, found) in scenario.clients.iter().zip(found) {
        run.groups.push(group(clients, &found, grid, &mut blurred));
        all.merge(found);
    }
    run.verdict = std::mem::take(&mut all.verdict);
    run.tasks = run.verdict.right + run.verdict.wrong;
    if grid.history.cut {
        blurred.insert(format!(
            "jobs have more history than is read: stages are those of the first {} events",
            grid.history.events
        ));
    }
    let batches = scenario.clients.iter().all(|clients| matches!(clients.load, Load::Batch { .. }));
    let timed = scenario.clients.iter().all(|clients| clients.mix.doing != Doing::Nothing);
    if !batches && scenario.clients.iter().any(|clients| matches!(clients.load, Load::Batch { .. })) {
        blurred.insert("latency of batches: a batch's tasks are due all at once".to_owned());
    }
    let mut figures = BTreeMap::from([
        ("tasks_per_s".to_owned(), run.tasks as f64 / run.seconds),
        ("seconds".to_owned(), run.seconds),
    ]);
    if batches && timed {
        figures.extend(against_the_ideal(run, &mut all, grid));
    }
    for group in &run.groups {
        if let Some(latency) = group.stages.get("latency") {
            for (name, value) in [("p50", latency.p50_ms), ("p99", latency.p99_ms), ("max", latency.max_ms)] {
                figures.insert(format!("{}.latency_{name}_ms", group.name), value);
            }
            if let Some(fdatasync) = run.fdatasync.as_ref().filter(|fdatasync| fdatasync.p50_ms > 0.0) {
                let name = format!("{}.latency_p50_per_fdatasync_p50", group.name);
                figures.insert(name, latency.p50_ms / fdatasync.p50_ms);
            }
        }
    }
    figures.extend(run.fdatasync.iter().map(|times| ("fdatasync_p50_ms".to_owned(), times.p50_ms)));
    figures.extend(used(run));
    run.figures = figures;
    run.blurred = blurred.into_iter().collect();
}

fn group(clients: &Clients, found: &Found, grid: &After, blurred: &mut BTreeSet<String>) -> Group {
    let mut stages = grid.history.stages(&found.chunks, grid.shares_clock, blurred);
    let own = [("latency", &found.latency), ("late", &found.late), ("submit", &found.submit), ("run", &found.run)];
    stages.extend(own.into_iter().filter_map(|(name, times)| Some((name.to_owned(), times.percentiles()?))));
    if !stages.contains_key("submit") {
        blurred.insert("submitting, of batches: their tasks are taken, packed and sent side by side".to_owned());
    }
    let tasks = found.verdict.right + found.verdict.wrong;
    Group { name: clients.name.clone(), clients: clients.count, tasks, stages }
}

/// How busy the slots were, and how long it took beside what no schedule can beat: all work spread evenly over all slots,
/// or the longest task.
fn against_the_ideal(run: &Run, all: &mut Found, grid: &After) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    let (work_s, slots) = (all.run_us as f64 / 1e6, f64::from(grid.slots));
    if let Some(active_us) = grid.history.active_us().filter(|active_us| *active_us > 0) {
        figures.push(("busy_share".to_owned(), work_s / (slots * active_us as f64 / 1e6)));
    }
    let longest_s = all.run.percentiles().map_or(0.0, |run| run.max_ms / 1e3);
    let ideal_s = (work_s / slots).max(longest_s);
    if ideal_s > 0.0 {
        figures.push(("seconds_per_ideal".to_owned(), run.seconds / ideal_s));
    }
    all.ended.sort_by_key(|(at, _)| *at);
    let (mut ended, most) = (0, run.tasks - run.tasks / 100);
    let reached = all.ended.iter().find(|(_, tasks)| {
        ended += tasks;
        ended >= most
    });
    if let (Some((at, _)), Some((last, _))) = (reached, all.ended.last()) {
        figures.push(("last_percent_s".to_owned(), (*last - *at).as_secs_f64()));
    }
    figures
}

/// What was used, as figures.
fn used(run: &Run) -> Vec<(String, f64)> {
    let tasks = run.tasks.max(1) as f64;
    let mut figures = Vec::new();
    for usage in &run.usage {
        let role = usage.role.replace(' ', "_");
        figures.push((format!("{role}_peak_mib"), usage.peak_bytes as f64 / f64::from(1 << 20)));
        figures.push((format!("{role}_cpu_us_per_task"), usage.cpu_s * 1e6 / tasks));
    }
    figures.push((
        "written_bytes_per_task".to_owned(),
        run.usage.iter().map(|usage| usage.written_bytes as f64).sum::<f64>() / tasks,
    ));
    figures.extend(run.requests.map(|requests| ("requests_per_1000_tasks".to_owned(), requests as f64 * 1e3 / tasks)));
    figures.extend(run.syncs.map(|syncs| ("syncs_per_1000_tasks".to_owned(), syncs as f64 * 1e3 / tasks)));
    figures.extend(run.store_bytes.map(|bytes| ("store_bytes_per_task".to_owned(), bytes as f64 / tasks)));
    figures
}
